"""The source document: the LSTM's forward in its own names, layout and order, and the backward that follows from it.

The document is a Chinese post, 《NLP知识点第二讲》LSTM的原理与代码实现, with two functions, `lstm_cell_forward` and
`lstm_forward`. Features first: x_t (n_x, m), a and c (n_a, m), sequences (n, m, T_x), m examples side by side. They
take ndarrays or Tensors.

    ft = σ(Wf [a_prev; x_t] + bf)     it = σ(Wi [a_prev; x_t] + bi)     cct = tanh(Wc [a_prev; x_t] + bc)
    ot = σ(Wo [a_prev; x_t] + bo)     c_next = ft c_prev + it cct       a_next = ot tanh(c_next)
    yt_pred = softmax(Wy a_next + by)

The post ends there. `lstm_cell_backward` and `lstm_backward` have the names of the exercise whose comments the post
repeats: deeplearning.ai, Sequence Models, "Building your Recurrent Neural Network, Step by Step". They are not written
by hand: they run the source that `mg.derive` prints for the cell (`minigrad derive document` shows it) on the values in
the caches.

Source of the cell: Gers, Schmidhuber & Cummins, Learning to Forget, 2000. It has no peepholes (Gers & Schmidhuber,
Recurrent nets that time and count, IJCNN 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from minigrad.derived import derive
from minigrad.engine.ops import concatenate, sigmoid, softmax, stack, tanh
from minigrad.engine.tensor import Tensor

Array = Any  # np.ndarray or Tensor
GATES = ("Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo")
PARAMETERS = (*GATES, "Wy", "by")
CACHE = ("a_next", "c_next", "a_prev", "c_prev", "ft", "it", "cct", "ot", "x_t", "parameters")
INPUTS = ("x_t", "a_prev", "c_prev", *PARAMETERS)


def lstm_cell_forward(x_t: Array, a_prev: Array, c_prev: Array, parameters: dict[str, Array]
                      ) -> tuple[Array, Array, Array, tuple]:
    """Run one time step.

    x_t (n_x, m), a_prev and c_prev (n_a, m). parameters: Wf, Wi, Wc, Wo (n_a, n_a + n_x) on [a_prev; x_t],
    bf, bi, bc, bo (n_a, 1), Wy (n_y, n_a), by (n_y, 1).
    Returns a_next (n_a, m), c_next (n_a, m), yt_pred (n_y, m), and
    cache = (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, x_t, parameters).
    Raises ValueError or KeyError if shapes or parameters do not fit.
    """
    check(x_t, a_prev, c_prev, parameters)
    Wf, bf, Wi, bi, Wc, bc, Wo, bo, Wy, by = (parameters[name] for name in PARAMETERS)

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
    """Run the cell over T_x steps; c starts at zero, as in the document.

    x (n_x, m, T_x), a0 (n_a, m). Returns a (n_a, m, T_x), y (n_y, m, T_x), c (n_a, m, T_x), and
    caches = (list of the cells' caches, x). Where the document writes `a[:, :, t] = a_next` into zeros, the steps are
    collected and stacked: an array of zeros records no gradient. Raises ValueError for a sequence without steps.
    """
    if len(x.shape) != 3 or x.shape[2] == 0:
        raise ValueError(f"lstm_forward takes x of shape (n_x, m, T_x) with T_x ≥ 1, not {x.shape}: "
                         "put features first and time last")
    a_next, c_next = a0, np.zeros(a0.shape, a0.dtype)
    a, c, y, caches = [], [], [], []
    for t in range(x.shape[2]):
        a_next, c_next, yt, cache = lstm_cell_forward(x[:, :, t], a_next, c_next, parameters)
        a.append(a_next)
        c.append(c_next)
        y.append(yt)
        caches.append(cache)
    return stack(a, axis=2), stack(y, axis=2), stack(c, axis=2), (caches, x)


def lstm_cell_backward(da_next: Array, dc_next: Array, cache: tuple, dyt: Array | None = None) -> dict[str, np.ndarray]:
    """The gradients of one step: the derived backward of `lstm_cell_forward`, run on its cache.

    da_next, dc_next (n_a, m): dL/da_next and dL/dc_next, including all later steps. dyt (n_y, m): dL/dyt_pred, or None.
    The parameters in the cache must not have changed since the forward. Returns a dict of ndarrays: dxt, da_prev,
    dc_prev, dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo; with dyt also dWy, dby. Each has the shape and dtype of its value
    (float64 if that holds integers). Raises ValueError or KeyError if shapes or names do not fit, TypeError for a
    complex gradient of a real value.
    """
    values = values_of(cache)
    arrived = [("da_next", da_next, values["a_next"]), ("dc_next", dc_next, values["c_next"])]
    if dyt is not None:
        values["yt_pred"] = softmax(values["Wy"] @ values["a_next"] + values["by"], axis=0)
        arrived.append(("dyt", dyt, values["yt_pred"]))
    d_output = [gradient(name, d, value.shape, value.dtype) for name, d, value in arrived]

    backward, reads = derived(dyt is not None, *[(values[name].shape, values[name].dtype) for name in INPUTS])
    dxt, da_prev, dc_prev, d_parameters = backward(d_output, [values[name] for name in reads])
    return {"dxt": dxt, "da_prev": da_prev, "dc_prev": dc_prev,
            **{f"d{name}": d_parameters[name] for name in (GATES if dyt is None else PARAMETERS)}}


def lstm_backward(da: Array, caches: tuple, dy: Array | None = None, dc: Array | None = None) -> dict[str, np.ndarray]:
    """The gradients of a whole sequence: `lstm_cell_backward` from the last step to the first.

    da (n_a, m, T): the gradient of the loss for a at each step, without later steps, for the first T ≤ T_x steps of the
    caches; dc likewise for c, dy (n_y, m, T) for y; None is zero. The gradients from later steps are added here.
    Returns a dict of ndarrays: dx (n_x, m, T), da0 (n_a, m), dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo; with dy dWy, dby.
    Raises as `lstm_cell_backward` does.
    """
    if not isinstance(caches, tuple) or len(caches) != 2:
        raise ValueError("lstm_backward takes caches as lstm_forward returns them, the pair (caches of the cells, x)")
    caches, _ = caches
    T = da.shape[2] if len(da.shape) == 3 else 0
    if not 1 <= T <= len(caches):
        raise ValueError(f"lstm_backward takes da of shape (n_a, m, T) with 1 ≤ T ≤ {len(caches)}, the steps of the "
                         f"caches, not {da.shape}")
    first = checked(caches[0])
    (n_a, m), dtype, parameters = first["a_next"].shape, first["a_next"].dtype, first["parameters"]
    da, dc = gradient("da", da, (n_a, m, T), dtype), gradient("dc", dc, (n_a, m, T), dtype)
    dy = None if dy is None else gradient("dy", dy, (parameters["by"].shape[0], m, T), dtype)

    dx, names = [], GATES if dy is None else PARAMETERS
    total = {f"d{name}": np.zeros_like(floats(parameters[name])) for name in names}
    da_prev = dc_prev = np.zeros((n_a, m), dtype)
    for t in reversed(range(T)):
        step = lstm_cell_backward(da[:, :, t] + da_prev, dc[:, :, t] + dc_prev, caches[t],
                                  None if dy is None else dy[:, :, t])
        da_prev, dc_prev = step["da_prev"], step["dc_prev"]
        dx.append(step["dxt"])
        for name in total:
            total[name] += step[name]
    return {"dx": np.stack(dx[::-1], axis=2), "da0": da_prev, **total}


# -- the derived backward -------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def derived(with_y: bool, *kinds: tuple[tuple[int, ...], np.dtype]) -> tuple[Callable, tuple[str, ...]]:
    """(derived backward of the cell, names of the values that it reads)

    kinds: (shape, dtype) of each of the INPUTS. with_y: yt_pred has a gradient too.
    """
    def lstm_cell(x_t, a_prev, c_prev, parameters):
        return lstm_cell_forward(x_t, a_prev, c_prev, parameters)[:3 if with_y else 2]

    x_t, a_prev, c_prev, *weights = (np.zeros(shape, dtype) for shape, dtype in kinds)
    found = derive(lstm_cell, x_t, a_prev, c_prev, dict(zip(PARAMETERS, weights)))
    return found.module["backward"], found.cache_names  # `found` itself would keep the arrays of its trace


def values_of(cache: tuple) -> dict[str, np.ndarray]:
    """Arrays from a cell's cache by their names in the cell, with the cheap ones that it lacks, concat and tanh_c_next;
    products and gates are not computed again."""
    given = checked(cache)
    dtype = given["a_next"].dtype  # that of the whole cell
    parameters = given.pop("parameters")
    values = {name: floats(value, dtype) for name, value in given.items()}
    values |= {name: floats(parameters[name], dtype) for name in PARAMETERS}
    values["concat"] = np.concatenate([values["a_prev"], values["x_t"]])
    values["tanh_c_next"] = np.tanh(values["c_next"])
    return values


# -- checks ---------------------------------------------------------------------------------------------


def check(x_t: Array, a_prev: Array, c_prev: Array, parameters: dict[str, Array], **others: Array) -> None:
    """Raise KeyError for a missing parameter, ValueError for a wrong shape. `others` have the shape of a_prev."""
    missing = [name for name in PARAMETERS if name not in parameters]
    if missing:
        raise KeyError(f"parameters lack {', '.join(missing)}: they are {', '.join(PARAMETERS)}")
    if len(x_t.shape) != 2 or len(a_prev.shape) != 2:
        raise ValueError(f"x_t {x_t.shape} and a_prev {a_prev.shape} must be (n_x, m) and (n_a, m): features first")
    (n_x, m), n_a = x_t.shape, a_prev.shape[0]
    n_y = parameters["Wy"].shape[0]
    expected = {**{name: (value, (n_a, m)) for name, value in {"a_prev": a_prev, "c_prev": c_prev, **others}.items()},
                **{name: (parameters[name], (n_a, n_a + n_x) if name[0] == "W" else (n_a, 1)) for name in GATES},
                "Wy": (parameters["Wy"], (n_y, n_a)), "by": (parameters["by"], (n_y, 1))}
    for name, (value, shape) in expected.items():
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)} and must have {shape} "
                             f"for n_x = {n_x}, n_a = {n_a}, m = {m}")


def checked(cache: tuple) -> dict[str, Any]:
    """A cell's cache by name. Raises ValueError or KeyError unless its length, names and shapes are right."""
    if len(cache) != len(CACHE):
        raise ValueError(f"a cell's cache contains {', '.join(CACHE)}, and this one has {len(cache)} values: "
                         "take it from lstm_cell_forward, or one of the list that lstm_forward returns")
    given = dict(zip(CACHE, cache))
    check(**given)
    return given


def floats(value: Array, dtype: Any = float) -> np.ndarray:
    """The array of `value`, an array or tensor, cast to dtype if it holds integers (one-hot inputs)."""
    value = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return value if value.dtype.kind in "fc" else value.astype(dtype)


def gradient(name: str, given: Array | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The given gradient in the dtype of its value; zeros for None. Raises ValueError for another shape."""
    if given is None:
        return np.zeros(shape, dtype)
    if tuple(given.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(given.shape)} and must have that of its value, {shape}")
    given = floats(given)
    if given.dtype.kind == "c" != dtype.kind:
        raise TypeError(f"{name} is complex and its value {dtype}: a real value has a real gradient")
    return given.astype(dtype, copy=False)
