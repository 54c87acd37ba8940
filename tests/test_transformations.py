"""One table: every transformation × every kind of scan × every way into it × four cells, against the complex step.

The reference is a plain loop on complex arrays: D_v f(x) = Im f(x + iεv) / ε, exact to rounding, and for second
derivatives central differences of that.
"""

import functools
import itertools
import zlib

import numpy as np
import pytest
from scan_cells import CELLS, row

import minigrad as mg
from minigrad.tree import flatten, map_leaves, unflatten

T, SIZES = 3, {"H": 2, "D": 1, "B": 2}
MASK = np.array([[1, 1], [1, 0], [0, 1]])


def own(w):
    """A cell of one's own: a weight used twice, one that is a single number, and the state turned."""
    def cell(h, x):
        h = np.tanh(w.W @ h * x + np.moveaxis(w.W.T @ h, 0, 0) + w.a * h.T)
        return h, w.a * h * h
    return cell


ROWS = {str(r): r for r in [*CELLS, row(own, "H B", "D B", W="H H", a="")] if str(r) in ("rnn", "gru", "lstm", "own")}
KINDS = {"plain": {}, "reverse": {"reverse": True}, "mask": {"mask": MASK}, "checkpoint_every": {"checkpoint_every": 2},
         "nested": {}, "within derive": {}}
WAYS = list(itertools.product(("xs", "state", "weight"), ("straight in", "through an op")))


def by_hand(cell, state, xs, reverse=False, mask=None, **_):
    """The reference of scan, on arrays."""
    ys = [None] * len(xs)
    for t in reversed(range(len(xs))) if reverse else range(len(xs)):
        new, y = cell(state, xs[t])
        keep = 1 if mask is None else mask[t]
        state = unflatten(state, [keep * a + (1 - keep) * b for a, b in zip(flatten(new)[0], flatten(state)[0])])
        ys[t] = keep * y
    return state, np.stack(ys)


def twice(scan, cell):
    """A cell that scans two inputs at each step."""
    def outer(state, x):
        state, ys = scan(cell, state, np.stack([x, 0.5 * x]))
        return state, ys[1]
    return outer


@functools.cache
def example(cell, kind, way):
    """(f by scan, f by hand, its argument a, a cotangent c): f(a) is all results in one axis."""
    of, entered = way
    example = ROWS[cell]
    inputs = example.inputs(steps=T, **SIZES)
    state, xs, weights = inputs
    leaves, pattern = flatten({"xs": xs, "state": state, "weight": weights}[of])

    def function(scan):
        def f(a):
            if entered == "through an op":
                a = np.sin(a)
            given = unflatten(pattern, [a, *leaves[1:]])
            at = {"xs": xs, "state": state, "weight": weights} | {of: given}
            step = example.cell(at["weight"])
            results = scan(twice(scan, step) if kind == "nested" else step, at["state"], at["xs"], **KINDS[kind])
            return np.concatenate([np.reshape(leaf, (-1,)) for leaf in flatten(results)[0]])
        return f
    n = len(function(by_hand)(leaves[0]))
    return function(mg.scan), function(by_hand), leaves[0], np.random.default_rng(n).normal(size=n)


def loss_of(f, c):
    def loss(a):
        y = f(a)
        return np.sum(y * c + 0.5 * y * y)
    return loss


def along(f, a, v):
    """D_v f(a)."""
    return np.imag(f(a + 1e-30j * v)) * 1e30


def along_twice(f, a, u, v):
    """D_u D_v f(a)."""
    return (along(f, a + 1e-5 * u, v) - along(f, a - 1e-5 * u, v)) / 2e-5


# transformation → (what it gives, from f, its argument a, the directions u and v, the cotangent c; the reference)
TABLE = {
    "grad": (lambda f, a, u, v, c: np.sum(mg.grad(loss_of(f, c))(a) * v),
             lambda f, a, u, v, c: along(loss_of(f, c), a, v)),
    "vjp": (lambda f, a, u, v, c: np.sum(mg.vjp(f, a)[1](c)[0] * v),
            lambda f, a, u, v, c: c @ along(f, a, v)),
    "pull of a pull": (lambda f, a, u, v, c: mg.vjp(mg.vjp(f, a)[1], c)[1]((v,))[0],
                       lambda f, a, u, v, c: along(f, a, v)),
    "pull of a gradient": (lambda f, a, u, v, c: np.sum(mg.vjp(mg.grad(loss_of(f, c)), a)[1](v)[0] * u),
                           lambda f, a, u, v, c: along_twice(loss_of(f, c), a, u, v)),
    "jvp": (lambda f, a, u, v, c: mg.jvp(f, (a,), (v,))[1],
            lambda f, a, u, v, c: along(f, a, v)),
    "hvp": (lambda f, a, u, v, c: np.sum(mg.hvp(loss_of(f, c), a, v) * u),
            lambda f, a, u, v, c: along_twice(loss_of(f, c), a, u, v)),
    "jacobian": (lambda f, a, u, v, c: np.sum(mg.jacobian(f)(a) * v, axis=tuple(range(1, 1 + v.ndim))),
                 lambda f, a, u, v, c: along(f, a, v)),
    "hessian": (lambda f, a, u, v, c: np.sum(np.multiply.outer(u, v) * mg.hessian(loss_of(f, c))(a)),
                lambda f, a, u, v, c: along_twice(loss_of(f, c), a, u, v)),
}


def check(transformation, cell, kind, way):
    f, by_loop, a, c = example(cell, kind, way)
    rng = np.random.default_rng(zlib.crc32(cell.encode()))
    u, v = rng.normal(size=(2, *a.shape))
    ours, reference = TABLE[transformation]

    def transformed(a):
        return ours(f, a, u, v, c)
    if kind == "within derive":
        result, _ = mg.derive(transformed, a).forward(a)
    else:
        result = transformed(a)
    assert isinstance(result, (np.ndarray, np.floating)), "nothing outside depends on it: an array, as of a loop"
    right = reference(by_loop, a, u, v, c)
    tolerance = 1e-7 if reference.__code__.co_names[0] == "along_twice" else 1e-11
    np.testing.assert_allclose(result, right, rtol=tolerance, atol=tolerance * (1 + np.abs(right).max()))


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ROWS)
@pytest.mark.parametrize("transformation", TABLE)
def test_every_transformation_goes_through_every_kind_of_scan(transformation, cell, kind, way):
    check(transformation, cell, kind, way)
