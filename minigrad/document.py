"""The source document: LSTM forward and backward in its own names, layout and order.

Features first: x_t (n_x, m), a and c (n_a, m), sequences (n, m, T_x), m examples side by side. The forward is the
document's NumPy text, on ndarrays or on Tensors. The backward is not typed at all: the engine derives it.

    ft = σ(Wf [a_prev; x_t] + bf)     it = σ(Wi [a_prev; x_t] + bi)     cct = tanh(Wc [a_prev; x_t] + bc)
    ot = σ(Wo [a_prev; x_t] + bo)     c_next = ft c_prev + it cct       a_next = ot tanh(c_next)
    yt_pred = softmax(Wy a_next + by)

Source: deeplearning.ai, Sequence Models, "Building your Recurrent Neural Network, Step by Step"; the cell is that of
Gers, Schmidhuber & Cummins, Learning to Forget, 2000, without peepholes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.autodiff import vjp
from minigrad.ops import concatenate, sigmoid, softmax, stack, tanh
from minigrad.tensor import Tensor

Array = Any  # np.ndarray or Tensor
GATES = ("Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo")
HEAD = ("Wy", "by")


def lstm_cell_forward(x_t: Array, a_prev: Array, c_prev: Array, parameters: dict[str, Array]
                      ) -> tuple[Array, Array, Array, tuple]:
    """One time step.

    x_t (n_x, m), a_prev and c_prev (n_a, m). parameters: Wf, Wi, Wc, Wo (n_a, n_a + n_x) on [a_prev; x_t],
    bf, bi, bc, bo (n_a, 1), Wy (n_y, n_a), by (n_y, 1).
    Returns a_next (n_a, m), c_next (n_a, m), yt_pred (n_y, m), and
    cache = (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, x_t, parameters).
    Raises ValueError or KeyError when shapes or parameters do not fit.
    """
    check(x_t, a_prev, c_prev, parameters)
    Wf, bf, Wi, bi, Wc, bc, Wo, bo = (parameters[name] for name in GATES)
    Wy, by = (parameters[name] for name in HEAD)

    concat = concatenate([a_prev, x_t], axis=0)
    ft = sigmoid(Wf @ concat + bf)
    it = sigmoid(Wi @ concat + bi)
    cct = tanh(Wc @ concat + bc)
    c_next = ft * c_prev + it * cct
    ot = sigmoid(Wo @ concat + bo)
    a_next = ot * tanh(c_next)
    yt_pred = softmax(Wy @ a_next + by, axis=0)

    cache = (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, x_t, parameters)
    return a_next, c_next, yt_pred, cache


def lstm_forward(x: Array, a0: Array, parameters: dict[str, Array]) -> tuple[Array, Array, Array, tuple]:
    """The cell over T_x steps; c starts at zero.

    x (n_x, m, T_x), a0 (n_a, m). Returns a (n_a, m, T_x), y (n_y, m, T_x), c (n_a, m, T_x), and
    caches = (list of the cells' caches, x). Where the document writes `a[:, :, t] = a_next`, the steps are collected
    and stacked, so that gradients flow. Raises ValueError for a sequence without steps.
    """
    if len(x.shape) != 3 or x.shape[2] == 0:
        raise ValueError(f"lstm_forward takes x of shape (n_x, m, T_x) with T_x ≥ 1, not {x.shape}: "
                         "put features first and time last")
    return from_state(x, a0, np.zeros(a0.shape, a0.dtype), parameters)


def from_state(x: Array, a0: Array, c0: Array, parameters: dict[str, Array]) -> tuple[Array, Array, Array, tuple]:
    """`lstm_forward` from any c0 (n_a, m)."""
    a_next, c_next = a0, c0
    a, c, y, caches = [], [], [], []
    for t in range(x.shape[2]):
        a_next, c_next, yt, cache = lstm_cell_forward(x[:, :, t], a_next, c_next, parameters)
        a.append(a_next)
        c.append(c_next)
        y.append(yt)
        caches.append(cache)
    return stack(a, axis=2), stack(y, axis=2), stack(c, axis=2), (caches, x)


def lstm_cell_backward(da_next: Array, dc_next: Array, cache: tuple, dyt: Array | None = None) -> dict[str, np.ndarray]:
    """The gradients of one step, derived by the engine from `lstm_cell_forward`.

    da_next, dc_next (n_a, m): dL/da_next and dL/dc_next, all that reaches them from later. dyt (n_y, m): dL/dyt_pred,
    or None. Returns a dict of ndarrays: dxt, da_prev, dc_prev, dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo; with dyt also
    dWy, dby. Each has the shape of what it is the gradient of.
    """
    _, _, a_prev, c_prev, _, _, _, _, x_t, parameters = cache
    x_t, a_prev, c_prev, parameters = floats(x_t), floats(a_prev), floats(c_prev), weights(parameters)

    (a_next, c_next, yt), pull = vjp(lambda *inputs: lstm_cell_forward(*inputs)[:3], x_t, a_prev, c_prev, parameters)
    dxt, da_prev, dc_prev, d_parameters = pull((
        gradient("da_next", da_next, a_next), gradient("dc_next", dc_next, c_next), gradient("dyt", dyt, yt)))
    return {"dxt": dxt, "da_prev": da_prev, "dc_prev": dc_prev, **named(d_parameters, dyt is not None)}


def lstm_backward(da: Array, caches: tuple, dy: Array | None = None, dc: Array | None = None) -> dict[str, np.ndarray]:
    """The gradients of a whole sequence, derived by the engine from the cell.

    da (n_a, m, T): what the loss itself sends to a at each step, for the first T ≤ T_x steps of the caches; dc likewise
    for c, dy (n_y, m, T) for y; None for nothing. What a later step sends back through a and through c is added here.
    Returns a dict of ndarrays: dx (n_x, m, T), da0 (n_a, m), dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo; with dy dWy, dby.
    """
    caches, x = caches
    T = da.shape[2] if len(da.shape) == 3 else 0
    if not 1 <= T <= len(caches):
        raise ValueError(f"lstm_backward takes da of shape (n_a, m, T) with 1 ≤ T ≤ {len(caches)}, the steps of the "
                         f"caches, not {da.shape}")
    x, parameters = floats(x[:, :, :T]), weights(caches[0][9])
    a0, c0 = floats(caches[0][2]), floats(caches[0][3])

    (a, y, c), pull = vjp(lambda *inputs: from_state(*inputs)[:3], x, a0, c0, parameters)
    dx, da0, _, d_parameters = pull((gradient("da", da, a), gradient("dy", dy, y), gradient("dc", dc, c)))
    return {"dx": dx, "da0": da0, **named(d_parameters, dy is not None)}


# -- small print ----------------------------------------------------------------------------------------


def check(x_t: Array, a_prev: Array, c_prev: Array, parameters: dict[str, Array]) -> None:
    """Raise with the document's names when something is missing or misshapen."""
    missing = [name for name in (*GATES, *HEAD) if name not in parameters]
    if missing:
        raise KeyError(f"parameters lack {', '.join(missing)}: they are {', '.join((*GATES, *HEAD))}")
    if len(x_t.shape) != 2 or len(a_prev.shape) != 2:
        raise ValueError(f"x_t {x_t.shape} and a_prev {a_prev.shape} must be (n_x, m) and (n_a, m): features first")
    (n_x, m), n_a = x_t.shape, a_prev.shape[0]
    n_y = parameters["Wy"].shape[0]
    expected = {"a_prev": (a_prev, (n_a, m)), "c_prev": (c_prev, (n_a, m)),
                **{name: (parameters[name], (n_a, n_a + n_x) if name[0] == "W" else (n_a, 1)) for name in GATES},
                "Wy": (parameters["Wy"], (n_y, n_a)), "by": (parameters["by"], (n_y, 1))}
    for name, (value, shape) in expected.items():
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)} and must have {shape} "
                             f"for n_x = {n_x}, n_a = {n_a}, m = {m}")


def floats(value: Array) -> np.ndarray:
    """The array of a tensor, and one-hot integers as floats: the backward takes values and gives values."""
    value = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return value if value.dtype.kind in "fc" else value.astype(float)


def weights(parameters: dict[str, Array]) -> dict[str, np.ndarray]:
    """What the equations use, and nothing else that the dict may hold."""
    return {name: floats(parameters[name]) for name in (*GATES, *HEAD)}


def gradient(name: str, given: Array | None, value: Array) -> np.ndarray:
    """A gradient that was given, or zeros, in the shape of its value."""
    if given is None:
        return np.zeros(value.shape, value.dtype)
    if tuple(given.shape) != tuple(value.shape):
        raise ValueError(f"{name} has shape {tuple(given.shape)} and must have that of its value, {tuple(value.shape)}")
    return floats(given)


def named(d_parameters: dict[str, np.ndarray], with_y: bool) -> dict[str, np.ndarray]:
    return {f"d{name}": d for name, d in d_parameters.items() if name in GATES or with_y}
