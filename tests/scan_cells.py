"""Table of cells `(state, x) → (state, y)`, of every kind that a user may write, for the tests of scan.

A row contains a function from weights to the cell, and the shapes of all inputs in words:

    row(rnn, state="H B", xs="D B", Wx="H D", Wh="H H", b="H 1")

H, D and B are the sizes of state, input and batch, D ≠ H always. A leaf may begin with a dtype (`bool 1 B`, `int B`,
`step` counts 0, 1, 2, …). The weights are attributes of one object that the cell closes over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.engine.pytree import flatten, map_leaves

SIZES = {"H": 4, "D": 3, "B": 2}
TABLE = np.random.default_rng(7).normal(size=(SIZES["H"], 8))  # a constant too large for the text of a program


@dataclass(frozen=True)
class Row:
    """A cell and the shapes of its inputs. batch_last: whether it takes a mask and an empty batch."""

    make: Callable
    state: Any
    xs: Any
    weights: dict[str, str]
    batch_last: bool = True
    analytic: bool = True

    def __str__(self):
        return self.make.__name__

    def inputs(self, dtype=np.float64, steps=4, seed=0, **sizes):
        """Return (state, xs, weights), pytrees of arrays."""
        rng, sizes = np.random.default_rng(seed), {**SIZES, **sizes}

        def array(words, lead=()):
            words = words.split()
            kind = words.pop(0) if words and words[0] in ("bool", "int", "step") else None
            shape = (*lead, *(eval(word, {}, sizes) for word in words))
            if kind == "step":
                return np.arange(steps)
            if kind is not None:
                return rng.integers(0, 2, shape).astype(kind)
            return np.asarray(rng.uniform(-0.9, 0.9, shape), dtype)
        return (map_leaves(array, self.state), map_leaves(lambda words: array(words, (steps,)), self.xs),
                {name: array(words) for name, words in self.weights.items()})

    def cell(self, weights):
        return self.make(SimpleNamespace(**weights))


def row(make, state, xs, batch_last=True, analytic=True, **weights):
    return Row(make, state, xs, weights, batch_last, analytic)


# -- usual cells -------------------------------------------------------------------------------------------------


def rnn(w):
    def cell(h, x):
        h = np.tanh(w.Wx @ x + w.Wh @ h + w.b)
        return h, h
    return cell


def rnn_concatenated(w):
    def cell(h, x):
        h = mg.tanh(w.W @ mg.concatenate([h, x]) + w.b)
        return h, w.V @ h
    return cell


def lstm(w):
    def cell(state, x):
        a, c = state
        n = a.shape[0]
        z = w.W @ np.concatenate([a, x]) + w.b
        f, i, o = np.split(mg.sigmoid(z[:3 * n]), 3)
        c = f * c + i * np.tanh(z[3 * n:])
        a = o * np.tanh(c)
        return (a, c), a
    return cell


def lstm_four_weights(w):
    """The cell of the document: a W for each gate, and a prediction at every step."""
    def cell(state, x):
        a_prev, c_prev = state
        concat = np.concatenate([a_prev, x])
        ft = mg.sigmoid(w.Wf @ concat + w.bf)
        it = mg.sigmoid(w.Wi @ concat + w.bi)
        cct = np.tanh(w.Wc @ concat + w.bc)
        c_next = ft * c_prev + it * cct
        ot = mg.sigmoid(w.Wo @ concat + w.bo)
        a_next = ot * np.tanh(c_next)
        return (a_next, c_next), mg.softmax(w.Wy @ a_next + w.by, axis=0)
    return cell


def gru(w):
    def cell(h, x):
        n = h.shape[0]
        wx, uh = w.W @ x + w.b, w.U @ h
        r, z = mg.sigmoid(wx[:n] + uh[:n]), mg.sigmoid(wx[n:2 * n] + uh[n:2 * n])
        h = (1 - z) * np.tanh(wx[2 * n:] + r * uh[2 * n:]) + z * h
        return h, h
    return cell


def peephole(w):
    def cell(state, x):
        a, c = state
        n = a.shape[0]
        z = w.W @ np.concatenate([a, x]) + w.b
        f, i = mg.sigmoid(z[:n] + w.pf * c), mg.sigmoid(z[n:2 * n] + w.pi * c)
        c = f * c + i * np.tanh(z[2 * n:3 * n])
        a = mg.sigmoid(z[3 * n:] + w.po * c) * np.tanh(c)
        return (a, c), a
    return cell


def layer_normalised(w):
    def cell(h, x):
        z = w.W @ x + w.U @ h
        centred = z - mg.mean(z, axis=0, keepdims=True)
        z = w.gain * centred / mg.sqrt(mg.mean(centred * centred, axis=0, keepdims=True) + 1e-5) + w.b
        h = np.tanh(z)
        return h, h
    return cell


def batch_first(w):
    def cell(h, x):
        h = np.tanh(x @ w.Wx + h @ w.Wh + w.b)
        return h, h @ w.Wy
    return cell


def batch_first_concatenated(w):
    def cell(h, x):
        h = np.tanh(np.concatenate([x, h], axis=1) @ w.W + w.b)
        return h, h
    return cell


def vectors(w):
    """One example without a batch axis."""
    def cell(h, x):
        h = np.tanh(w.Wx @ x + w.Wh @ h + w.b)
        return h, h
    return cell


def looked_up(w):
    """x is a symbol: a column of P for each sequence, and a row of another table."""
    def cell(h, x):
        symbol, other = x
        h = np.tanh(mg.take(w.P, symbol, axis=1) + w.W @ h + mg.take(w.E, other, axis=0).T)
        return h, h
    return cell


# -- unusual states -------------------------------------------------------------------------------


def linear(w):
    def cell(s, x):
        return s + w.W @ x, s
    return cell


def swapped(w):
    def cell(state, x):
        p, q = state
        return (q, np.tanh(p + w.W @ x)), p
    return cell


def only_swapped(w):
    def cell(state, x):
        p, q = state
        return (q, p), p * x
    return cell


def shifted(w):
    """A delay line: every leaf takes its neighbour's value."""
    def cell(state, x):
        a, b, c = state
        return (w.W @ x, a, b), c * a
    return cell


def same_twice(w):
    """One value becomes both leaves of the state, and y."""
    def cell(state, x):
        p, q = state
        h = np.tanh(p * q + w.W @ x)
        return (h, h), h
    return cell


def never_changing(w):
    def cell(state, x):
        h, context = state
        h = np.tanh(w.W @ x + h + context)
        return (h, context), h
    return cell


def forgetful(w):
    """The new state does not depend on the old one."""
    def cell(h, x):
        return w.W @ x, h
    return cell


def reset(w):
    """The new state is a constant."""
    def cell(h, x):
        return h * 0 + 1.0, h * (w.W @ x)
    return cell


def replaced_by_x(w):
    def cell(h, x):
        return x, h * x
    return cell


def slices_of_the_state(w):
    """A shift register inside one array."""
    def cell(s, x):
        s = np.concatenate([s[1:], mg.sum(w.v * x, axis=0, keepdims=True)])
        return s, s[:2]
    return cell


def state_used_transposed(w):
    """Fast weights: the state is a matrix that outer products add to."""
    def cell(A, x):
        k = np.tanh(w.W @ x)
        A = 0.9 * A + k @ k.T
        return A, A.T @ k
    return cell


def weight_as_state(w):
    """The new state is a closed-over tensor."""
    def cell(h, x):
        return w.h, h + w.W @ x
    return cell


def scalar(w):
    def cell(s, x):
        s = mg.tanh(w.a * s + x)
        return s, s * s
    return cell


def nested(w):
    def cell(state, x):
        h, (c, more) = state["h"], state["rest"]
        h = np.tanh(w.W @ x["in"][0] + h * x["gate"] + c)
        return {"h": h, "rest": [c + more["m"], {"m": 0.5 * more["m"] * h}]}, {"y": (h, {"c": c})}
    return cell


def without_state(w):
    def cell(state, x):
        return state, np.tanh(w.W @ x)
    return cell


# -- weights ------------------------------------------------------------------------------------------------------


def weight_twice(w):
    def cell(h, x):
        h = np.tanh(w.W @ np.tanh(w.W @ h + x) + w.W @ x)
        return h, w.W @ h
    return cell


def weight_and_transpose(w):
    def cell(h, x):
        h = np.tanh(w.W.T @ np.tanh(w.W @ h + x))
        return h, h
    return cell


def weight_in_parts(w):
    """Slices of one weight, and a product of two weights, which is loop invariant."""
    def cell(h, x):
        n = h.shape[0]
        h = np.tanh(w.W[:, :n] @ h + w.W[:, n:] @ x + (w.A @ w.B) @ h)
        return h, h
    return cell


def weight_by_its_size(w):
    """A weight alone in the loss: its gradient is loop invariant."""
    def cell(h, x):
        return np.tanh(w.v * h + x), mg.sum(w.v * w.v) + mg.sum(h, axis=0)
    return cell


def without_weights(w):
    def cell(h, x):
        h = 0.5 * h + np.tanh(x)
        return h, np.exp(h)
    return cell


def large_constant(w):
    def cell(h, x):
        table = TABLE.astype(h.dtype)
        h = np.tanh(table[:, :4] @ h + np.exp(table)[:, 4:] @ (w.a * x))
        return h, h + table[:, :1]
    return cell


def bias_of_full_shape(w):
    """Biases with a batch axis, with one element, and broadcast along the features."""
    def cell(h, x):
        h = np.tanh(w.W @ x + w.full + w.one + w.across * h)
        return h, h
    return cell


# -- outputs and inputs -------------------------------------------------------------------------------------------


def x_itself(w):
    def cell(h, x):
        h = np.tanh(w.W @ x + h)
        return h, (x, h, x)
    return cell


def constant_outputs(w):
    def cell(h, x):
        h = np.tanh(w.W @ x + h)
        return h, (np.full(3, 2.0, x.dtype), h, w.b)
    return cell


def equal_outputs(w):
    """Two outputs with the same expression."""
    def cell(h, x):
        h = np.tanh(w.W @ x + h)
        return h, (np.exp(h), np.exp(h), np.exp(h) * 2)
    return cell


def no_output(w):
    def cell(h, x):
        return np.tanh(w.W @ x + h), None
    return cell


def reductions(w):
    def cell(h, x):
        z = w.W @ x + h
        p = mg.softmax(z, axis=0)
        y = {"lse": mg.logsumexp(z, axis=0), "max": mg.max(z, axis=0), "p": p, "mean": mg.mean(z * p, axis=0)}
        return np.tanh(z) * p, y
    return cell


def selected(w):
    def cell(h, x):
        z = w.W @ x + h
        h = mg.where(z > 0, z, 0.1 * z) * mg.maximum(h, 0.2)
        return h, mg.where(h > 0, x[:1], z)
    return cell


def several_inputs(w):
    def cell(h, x):
        a, b, _ = x
        h = np.tanh(w.W @ np.concatenate([b, a]) + b * h)
        return h, a * a
    return cell


def chosen_by_flags(w):
    def cell(h, x):
        keep, n, x = x["keep"], x["n"], x["x"]
        z = np.tanh(w.W @ x + h)
        return mg.where(keep, z, h), mg.where(n == 1, z, h * h)
    return cell


def counted(w):
    """The result depends on the number of the step, an input in xs."""
    def cell(h, x):
        t, x = x
        h = mg.where(t > 1, np.tanh(w.W @ x + h), mg.where(t > 1, h * h, h))
        return h, h
    return cell


def without_input(w):
    def cell(h, x):
        h = np.tanh(w.W @ h + w.b)
        return h, h
    return cell


def reshaped(w):
    def cell(h, x):
        z = (w.W @ x).reshape(2, 2, -1)
        h = np.tanh(mg.moveaxis(z, 0, 1).reshape(h.shape) + h[::-1])
        return h, h[1]
    return cell


def indexed(w):
    """Rows by an integer array, and one row by a number."""
    def cell(h, x):
        h = np.tanh(w.W @ x + h[np.array([2, 0, 0, 1])])
        return h, h[-1] * x[0]
    return cell


def concatenated_twice(w):
    """One value in two concatenations, one concatenation in another."""
    def cell(h, x):
        inner = np.concatenate([h, x])
        outer = np.concatenate([inner, np.tanh(x), h])
        h = np.tanh(w.W @ inner + w.V @ outer + w.V @ np.concatenate([x, inner, x, h[:1]]))
        return h, inner * 1.0
    return cell


def stacked_within(w):
    """np.stack makes views of values that are still live: their buffers cannot be reused yet."""
    def cell(h, x):
        hs = [np.tanh(h + w.W @ x + j) for j in range(4)]
        return np.tanh(w.V @ hs[-1]), mg.sum(mg.stack(hs) * h, axis=0)
    return cell


def equal_gradients(w):
    """Two states whose gradients are one value."""
    def cell(state, x):
        a, b = state
        y = np.tanh(w.W @ x) * (a + b)
        return (y, w.W @ x), y
    return cell


def counting(w):
    """A state of integers beside one of floats."""
    def cell(state, x):
        h, n = state
        h = np.tanh(w.W @ x + h) * (n < 2)
        return (h, n + 1), h
    return cell


CELLS = [
    row(rnn, "H B", "D B", Wx="H D", Wh="H H", b="H 1"),
    row(rnn_concatenated, "H B", "D B", W="H H+D", b="H 1", V="2 H"),
    row(lstm, ("H B", "H B"), "D B", W="4*H H+D", b="4*H 1"),
    row(lstm_four_weights, ("H B", "H B"), "D B", **{f"W{gate}": "H H+D" for gate in "fico"},
        **{f"b{gate}": "H 1" for gate in "fico"}, Wy="2 H", by="2 1"),
    row(gru, "H B", "D B", W="3*H D", U="3*H H", b="3*H 1"),
    row(peephole, ("H B", "H B"), "D B", W="4*H H+D", b="4*H 1", pf="H 1", pi="H 1", po="H 1"),
    row(layer_normalised, "H B", "D B", W="H D", U="H H", gain="H 1", b="H 1"),
    row(batch_first, "B H", "B D", batch_last=False, Wx="D H", Wh="H H", b="H", Wy="H 2"),
    row(batch_first_concatenated, "B H", "B D", batch_last=False, W="D+H H", b="H"),
    row(vectors, "H", "D", batch_last=False, Wx="H D", Wh="H H", b="H"),
    row(linear, "H B", "D B", W="H D"),
    row(swapped, ("H B", "H B"), "D B", W="H D"),
    row(only_swapped, ("H B", "H B"), "H B"),
    row(shifted, ("H B", "H B", "H B"), "D B", W="H D"),
    row(same_twice, ("H B", "H B"), "D B", W="H D"),
    row(never_changing, ("H B", "H B"), "D B", W="H D"),
    row(forgetful, "H B", "D B", W="H D"),
    row(reset, "H B", "D B", W="H D"),
    row(replaced_by_x, "H B", "H B"),
    row(slices_of_the_state, "H B", "D B", v="D 1"),
    row(state_used_transposed, "H H", "D B", batch_last=False, W="H D"),
    row(weight_as_state, "H B", "D B", h="H B", W="H D"),
    row(scalar, "", "", batch_last=False, a=""),
    row(nested, {"h": "H B", "rest": ["H B", {"m": "H B"}]}, {"in": ("D B",), "gate": "1 B"}, W="H D"),
    row(without_state, (), "D B", W="H D"),
    row(weight_twice, "H B", "H B", W="H H"),
    row(weight_and_transpose, "H B", "D B", W="D H"),
    row(weight_in_parts, "H B", "D B", W="H H+D", A="H 2", B="2 H"),
    row(weight_by_its_size, "H B", "H B", v="H 1"),
    row(without_weights, "H B", "H B"),
    row(large_constant, "H B", "H B", batch_last=False, a="H 1"),
    row(bias_of_full_shape, "H B", "D B", W="H D", full="H B", one="", across="1 B"),
    row(x_itself, "H B", "D B", W="H D"),
    row(constant_outputs, "H B", "D B", batch_last=False, W="H D", b="2 1"),
    row(equal_outputs, "H B", "D B", W="H D"),
    row(no_output, "H B", "D B", W="H D"),
    row(reductions, "H B", "D B", analytic=False, W="H D"),
    row(selected, "H B", "D B", analytic=False, W="H D"),
    row(several_inputs, "H B", ("D B", "H B", "D B"), W="H H+D"),
    row(chosen_by_flags, "H B", {"keep": "bool B", "n": "int 1 B", "x": "D B"}, W="H D"),
    row(counted, "H B", ("step", "D B"), W="H D"),
    row(without_input, "H B", "0", W="H H", b="H 1"),
    row(reshaped, "H B", "D B", W="H D"),
    row(indexed, "H B", "D B", W="H D"),
    row(stacked_within, "H B", "D B", W="H D", V="H H"),
    row(equal_gradients, ("H B", "H B"), "D B", W="H D"),
    row(looked_up, "H B", ("int B", "int B"), W="H H", P="H 5", E="3 H"),
    row(counting, ("H B", "int H B"), "D B", W="H D"),
    row(concatenated_twice, "H B", "D B", W="H H+D", V="H 2*H+2*D"),
]


# -- random cells -------------------------------------------------------------------------------

SHAPE = 3, SIZES["B"]
FIRST, SECOND = np.random.default_rng(1).normal(size=SHAPE), np.random.default_rng(2).normal(size=(2, *SHAPE))
MOVES = [
    lambda a, b, w: a + b, lambda a, b, w: a - b, lambda a, b, w: a * b, lambda a, b, w: -a,
    lambda a, b, w: mg.tanh(a), lambda a, b, w: mg.where(a > b, a, b * 0.3), lambda a, b, w: a[::-1] * FIRST,
    lambda a, b, w: w.W @ a, lambda a, b, w: w.V.T @ a + b, lambda a, b, w: (w.W @ w.V) @ a,
    lambda a, b, w: mg.tanh(w.gain) * a, lambda a, b, w: a * mg.sum(b, axis=0, keepdims=True),
    lambda a, b, w: mg.concatenate([a[:1], b[1:]]), lambda a, b, w: mg.concatenate([a, b])[1:4],
    lambda a, b, w: a.reshape(SHAPE[::-1]).reshape(SHAPE) + b, lambda a, b, w: mg.sigmoid(a),
    lambda a, b, w: mg.stack([a, b])[1] * a,
    lambda a, b, w: mg.scan(lambda h, x: (mg.tanh(w.W @ h * x + a), h * b), b, SECOND)[1][0] + a]


def random_row(seed, nested=True):
    """Return a cell of random moves among states, inputs, weights and earlier values, some of which it returns.

    nested: whether one of the moves is a scan."""
    possible = MOVES if nested else MOVES[:-1]
    rng = np.random.default_rng(seed)
    states, inputs = rng.integers(1, 4, 2)
    places = rng.integers(0, (len(possible), 99, 99), (rng.integers(2, 12), 3))
    moves = [(possible[k], i, j) for k, i, j in places]
    new, out = rng.integers(0, 99, states), rng.integers(0, 99, rng.integers(1, 4))

    def at_random(w):
        def cell(state, x):
            values = [*state, *x, mg.tanh(w.gain) + x[0] * 0]
            for move, i, j in moves:
                values.append(move(values[i % len(values)], values[j % len(values)], w))
            return tuple(values[-1 - i % len(values)] for i in new), tuple(values[-1 - i % len(values)] for i in out)
        return cell
    return row(at_random, ("3 B",) * states, ("3 B",) * inputs, analytic=False, W="3 3", V="3 3", gain="3 1")


# -- how tests run and compare a cell ---------------------------------------------------------------------------

SCAN_OPTIONS = {"plain": {}, "reverse": {"reverse": True}, "mask": {"mask": True},
        "mask and reverse": {"mask": True, "reverse": True}}

every_cell = pytest.mark.parametrize("row", CELLS, ids=str)


def mask_for(steps, batch):
    """Return a mask with different lengths, and a first step that is 0 in half of the batch."""
    mask = np.arange(steps)[:, None] < np.maximum(steps - np.arange(batch), 1)
    mask[0, batch // 2:] = False
    return mask


def mixed(tree, seed=5):
    """Return a loss with a different weight for every entry."""
    rng = np.random.default_rng(seed)
    total = 0.0
    for leaf in flatten(tree)[0]:
        total = total + mg.sum(leaf * rng.normal(size=leaf.shape).astype(leaf.dtype))
    return total


def gradient(x):
    return np.zeros(x.shape, x.dtype) if x.grad is None else x.grad


def outcome(scan, make, inputs, wanted=(True, True, True), **options):
    """Run once; return (final state, ys, gradients of state, of xs, of weights), all as arrays.

    wanted: which of state, xs and weights require gradients."""
    trees = [map_leaves(lambda leaf, on=on: mg.tensor(leaf.copy(), requires_grad=on and leaf.dtype.kind == "f"), tree)
             for tree, on in zip(inputs, wanted)]
    state, xs, weights = trees
    final, ys = scan(make(weights), state, xs, **options)
    loss = mixed((final, ys))
    if isinstance(loss, mg.Tensor) and loss.requires_grad:
        loss.backward()
    results = [map_leaves(lambda y: np.array(y.detach() if isinstance(y, mg.Tensor) else y), t) for t in (final, ys)]
    return (*results, *([gradient(x) for x in flatten(tree)[0]] for tree in trees))


PARTS = ("final state", "ys", "gradient of state", "gradient of xs", "gradient of weights")


def assert_same(ours, theirs, tolerance=1e-12):
    for part, a, b in zip(PARTS, ours, theirs):
        a, b = flatten(a)[0], flatten(b)[0]
        assert len(a) == len(b), part
        for n, (x, y) in enumerate(zip(a, b)):
            assert (np.shape(x), x.dtype) == (np.shape(y), y.dtype), f"{part} {n}"
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"{part} {n}")
