"""One table: every transformation × kind of scan × differentiated inputs × four cells, against the complex step.

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
from minigrad.engine.pytree import flatten, unflatten

T, SIZES = 3, {"H": 2, "D": 1, "B": 2}
MASK = np.array([[1, 1], [1, 0], [0, 1]])


def own(w):
    """A user's cell: a weight used twice, a scalar weight, and the state transposed."""
    def cell(h, x):
        h = np.tanh(w.W @ h * x + np.moveaxis(w.W.T @ h, 0, 0) + w.a * h.T)
        return h, w.a * h * h
    return cell


ROWS = {str(r): r for r in [*CELLS, row(own, "H B", "D B", W="H H", a="")] if str(r) in ("rnn", "gru", "lstm", "own")}
KINDS = {"plain": {}, "reverse": {"reverse": True}, "mask": {"mask": MASK}, "checkpoint_every": {"checkpoint_every": 2},
         "nested": {}, "within derive": {}}
PATHS = list(itertools.product(("xs", "state", "weight"), ("straight in", "through an op")))


def by_hand(cell, state, xs, reverse=False, mask=None, **_):
    """Run scan's reference on arrays."""
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
def example(cell, kind, path):
    """Return (f by scan, f by hand, its argument a, a cotangent c); f(a) is all results in one axis."""
    of, entered = path
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


# transformation → (its result for f, argument a, directions u and v, cotangent c; the reference)
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


def is_slow(transformation, cell, kind):
    """Whether a case is slow: second derivatives are unrolled over the steps, and in derived source also over rows."""
    rows, second = transformation in ("jacobian", "hessian"), transformation in ("pull of a gradient", "hvp")
    return kind == "within derive" and cell != "rnn" and (rows or (second and cell != "own"))


CASES = [pytest.param(*case, marks=[pytest.mark.slow] * is_slow(*case))
         for case in itertools.product(TABLE, ROWS, KINDS)]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
@pytest.mark.parametrize("transformation, cell, kind", CASES)
def test_every_transformation_of_every_kind_of_scan(transformation, cell, kind, path):
    f, by_loop, a, c = example(cell, kind, path)
    rng = np.random.default_rng(zlib.crc32(cell.encode()))
    u, v = rng.normal(size=(2, *a.shape))
    ours, reference = TABLE[transformation]

    def transformed(a):
        return ours(f, a, u, v, c)
    result = mg.derive(transformed, a).forward(a)[0] if kind == "within derive" else transformed(a)
    assert isinstance(result, (np.ndarray, np.floating)), "no tensor outside depends on it: an array"
    right = reference(by_loop, a, u, v, c)
    tolerance = 1e-7 if "along_twice" in reference.__code__.co_names else 1e-11
    np.testing.assert_allclose(result, right, rtol=tolerance, atol=tolerance * (1 + np.abs(right).max()))


def final(w, h0, xs, **options):
    """w³ h₀ + w² x₀ + w x₁ + x₂, for three steps."""
    return mg.scan(lambda h, x: (w * h + x, h), h0, xs, **options)[0].sum()


ONE, W, XS, V = np.ones(1), np.array([2.0]), np.ones((3, 1)), np.array([[1.0], [2.0], [3.0]])


@pytest.mark.parametrize("of, x, v, right", [
    (lambda xs: final(W, ONE, xs), XS, V, 4 + 4 + 3),
    (lambda h0: final(W, h0, XS), ONE, ONE, 8),
    (lambda w: final(w, ONE, XS), W, ONE, 12 + 4 + 1),
    (lambda w: final(w, w, XS), W, ONE, 32 + 4 + 1),
    (lambda x: final(x, x, mg.stack([x, x, x])), W, ONE, 32 + 12 + 4 + 1),
    (lambda xs: final(W, ONE, xs, reverse=True), XS, V, 12 + 4 + 1),
    (lambda xs: final(W, ONE, xs, mask=np.array([[1], [0], [1]])), XS, V, 2 + 3),
    (lambda xs: final(W, ONE, xs, checkpoint_every=1), XS, V, 4 + 4 + 3)],
    ids=["xs", "state", "weight", "weight and state", "all three", "reverse", "mask", "checkpoints"])
def test_a_polynomial_in_the_argument_has_its_exact_derivative(of, x, v, right):
    assert float(mg.jvp(of, (x,), (v,))[1]) == right
    _, pull = mg.vjp(of, x)
    assert float(mg.grad(lambda s: (pull(s)[0] * v).sum())(1.0)) == right


def test_a_cell_may_take_the_gradient_of_untracked_values():
    """A pull in a trace is recorded, not computed from the values of the example."""
    def cell(h, x):
        with mg.no_grad():
            slope = mg.grad(lambda z: (z ** 3).sum())(h)
        return h + x, slope
    _, slopes = mg.scan(cell, np.ones(1), V)
    assert slopes[:, 0].tolist() == [3, 3 * 2 ** 2, 3 * 4 ** 2]
    derived = mg.derive(lambda x: mg.grad(lambda z: (z * mg.sign(x)).sum())(np.ones(1)), ONE)
    assert derived.forward(np.array([-2.0]))[0].tolist() == [-1]
