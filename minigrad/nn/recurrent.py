"""Recurrent layers: a cell is its equations, in the document's names, and everything else is said once for all cells.

The cell works features first and batch last, x (D, B) and state (H, B), as the document does. A layer is called as in
PyTorch, with x (T, B, D): it turns the axes once, at its border, and gives the cell to `scan`. No backward is written
here: scan derives it from the cell.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.ops import (
    broadcast_to,
    concatenate,
    expand_dims,
    moveaxis,
    relu,
    sigmoid,
    split,
    stack,
    tanh,
    where,
)
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.nn.init import chrono as chrono_biases
from minigrad.nn.init import glorot_uniform, orthogonal
from minigrad.nn.module import Module, cast, fitting, numbers, refuse_integers
from minigrad.nn.signature import UnknownOption, options_of
from minigrad.timeloop.scan import scan

Array = Any  # np.ndarray or Tensor
Tree = Any  # an array, or a nesting of tuples, lists and dicts of them


class Recurrent(Module):
    """A cell of one's own, over sequences. Subclass it, and write two methods:

    ```python
    class Leaky(nn.Recurrent):
        def __init__(self, size):
            self.rate = mg.tensor(np.zeros((size, 1)), requires_grad=True)

        def initial_state(self, batch):
            return np.zeros((self.rate.shape[0], batch))

        def cell(self, h, x):
            h_next = h + mg.sigmoid(self.rate) * (x - h)
            return h_next, h_next
    ```
    reverse      from the last step of each sequence to its first; outputs stay in the order of the inputs
    batch_first  x and output have the batch before time

    Both may be given to `super().__init__`, or be set later. Called as `recurrent(x, state=None, lengths=None)`:

    x        (T, B, D), with batch_first (B, T, D), or (T, D) for one sequence; T ≥ 1
    state    where to start, nested as the cell's state with the batch axis first, as the final state that is
             returned; by default `initial_state(B)`
    lengths  (B,) integers from 1 to T: how long each sequence is. Past its end the state stands still, the output is
             0, and what stands in x does not matter.

    Returns (output, state): output (T, B, …) as x is, or whatever nesting y has, and the state after each sequence's
    own last step (with reverse: its first). x and state are cast to the dtype of the parameters, if there are any (see
    layers.py). Raises ValueError when x, state or lengths do not fit.
    """

    batch_first = False
    reverse = False

    def __init__(self, *, batch_first: bool = False, reverse: bool = False):
        self.batch_first, self.reverse = batch_first, reverse

    def cell(self, state: Tree, x: Array, /) -> tuple[Tree, Tree]:
        """One step: x (D, B), state as `initial_state` gives it → (state, y), batch last everywhere."""
        raise NotImplementedError(f"{type(self).__name__} has no cell yet: write its method cell(self, state, x), "
                                  "which returns (state, y)")

    def initial_state(self, batch: int) -> Tree:
        """The state before the first step: leaves (…, batch), or (…, 1) for the same in every sequence. It may be
        learned: then it is made of parameters."""
        raise NotImplementedError(f"{type(self).__name__} does not know where to start: write its method "
                                  "initial_state(self, batch), for instance `return np.zeros((self.size, batch))`")

    def __call__(self, x: Array, state: Tree = None, lengths: Any = None) -> tuple[Tree, Tree]:
        x, mask, single = enter(self, x, lengths, self.batch_first)
        if state is not None:
            state = enter_state(self, state, self.initial_state(x.shape[2]), x.shape[2], single)
        state, ys = self.run(x, state, mask, self.reverse)
        return leave(ys, self.batch_first, single), leave_state(state, single)

    def step(self, x: Array, state: Tree = None) -> tuple[Tree, Tree]:
        """One step alone, as for sampling: x (B, D) or (D,) → (y, state), batch first."""
        x = numbers(self, x)
        if x.ndim not in (1, 2):
            raise ValueError(f"one step of {type(self).__name__} takes x of shape (batch, features) or (features,), "
                             f"not {x.shape}")
        single = x.ndim == 1
        x, _, _ = enter(self, expand_dims(x, 0), None, batch_first=False)
        if state is not None:
            state = enter_state(self, state, self.initial_state(x.shape[2]), x.shape[2], single)
        state, ys = self.run(x, state)
        return map_leaves(lambda y: y[0], leave(ys, False, single)), leave_state(state, single)

    def run(self, x: Array, state: Tree = None, mask: Array = None, reverse: bool = False) -> tuple[Tree, Tree]:
        """scan with the cell's own layout: x (T, D, B), state and ys batch last. Returns (final state, ys)."""
        batch = x.shape[2]
        dtypes = [p.dtype for p in self.parameters()]
        x = cast(x, np.result_type(*dtypes) if dtypes else None)
        dtype = np.result_type(x.dtype, *dtypes, *[s.dtype for s in flatten(state)[0] if s.dtype.kind == "c"])
        state = self.initial_state(batch) if state is None else state
        state = map_leaves(lambda start: settled(start, batch, dtype), state)
        return scan(self.cell, state, x, reverse=reverse, mask=mask)


# -- the border: batch first outside, batch last inside -------------------------------------------------------


def enter(layer: Module, x: Array, lengths: Any, batch_first: bool, size: int | None = None
          ) -> tuple[Array, np.ndarray | None, bool]:
    """x as the caller has it → x (T, D, B), the mask (T, B) or None, and whether it is one sequence without batch."""
    x = numbers(layer, x)
    kind = type(layer).__name__
    if x.ndim not in (2, 3):
        layout = "(batch, time, features)" if batch_first else "(time, batch, features)"
        raise ValueError(f"{kind} takes x of shape {layout}, or (time, features) for one sequence, not {x.shape}")
    if size is not None and x.shape[-1] != size:
        raise ValueError(f"{kind} takes {size} features, the last axis of x, and x has shape {x.shape}")
    single = x.ndim == 2
    x = expand_dims(x, 2) if single else x.transpose((1, 2, 0) if batch_first else (0, 2, 1))
    if x.shape[0] < 1:
        raise ValueError(f"{kind} takes sequences of one step or more, and x has none")
    mask = mask_of(kind, lengths, x.shape[0], x.shape[2])
    if mask is not None:
        x = where(expand_dims(mask, 1), x, 0.0)  # so that a NaN in the padding is no 0 · NaN in a gradient
    return x, mask, single


def mask_of(kind: str, lengths: Any, steps: int, batch: int) -> np.ndarray | None:
    """(T, B), true within each sequence; None where all are of full length."""
    if lengths is None:
        return None
    lengths = bare(lengths)
    if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
        raise ValueError(f"{kind} takes lengths as one integer for each of {batch} sequences, "
                         f"not {lengths.dtype} of shape {lengths.shape}")
    if lengths.min(initial=steps) < 1 or lengths.max(initial=1) > steps:
        raise ValueError(f"{kind} takes lengths from 1 to {steps}, the steps of x, not {lengths.tolist()}")
    return None if (lengths == steps).all() else np.arange(steps)[:, None] < lengths


def enter_state(layer: Module, state: Tree, like: Tree, batch: int, single: bool, count: int | None = None) -> Tree:
    """The caller's state, batch first → batch last, nested `like` the cell's; with count, so many are stacked."""
    lead = () if count is None else (count,)
    given = [start if isinstance(start, Tensor) else bare(start) for start in flatten(state)[0]]
    shapes = [lead + (() if single else (batch,)) + tuple(leaf.shape[:-1]) for leaf in flatten(like)[0]]
    if [start.shape for start in given] != shapes:
        raise ValueError(f"{type(layer).__name__} takes a state of shape {' and '.join(map(str, shapes))}, "
                         f"not {' and '.join(str(start.shape) for start in given[:4]) or 'nothing'}"
                         + (f" and {len(given) - 4} more" if len(given) > 4 else ""))
    given = [expand_dims(start, len(lead)) for start in given] if single else given
    return unflatten(like, [moveaxis(start, len(lead), -1) for start in given])


def settled(start: Array, batch: int, dtype: np.dtype) -> Array:
    """A leaf of the first state, for every sequence of the batch, in the dtype that the steps will have."""
    start = start if isinstance(start, Tensor) else bare(start)
    if start.dtype != dtype:
        start = start.astype(dtype)
    if start.shape[-1:] == (batch,):
        return start
    if start.shape[-1:] != (1,):
        raise ValueError(f"initial_state gave a leaf of shape {start.shape} for {batch} sequences: its last axis must "
                         f"be the batch, of length {batch}, or 1 for the same in all")
    return broadcast_to(start, (*start.shape[:-1], batch))


def leave(ys: Tree, batch_first: bool, single: bool) -> Tree:
    """ys with leaves (T, …, B) → (T, B, …), (B, T, …) or, of one sequence, (T, …)."""
    return map_leaves(lambda y: batch_to(None if single else 0 if batch_first else 1, y), ys)


def leave_state(state: Tree, single: bool) -> Tree:
    """Leaves (…, B) → (B, …) or, of one sequence, (…)."""
    return map_leaves(partial(batch_to, None if single else 0), state)


def batch_to(axis: int | None, _leaf: Array) -> Array:
    """The last axis moved to this place; None takes it away. With an underscore, so that a derived source does not call
    a final state by the name that it has here."""
    if axis is None:
        return _leaf[..., 0]
    if axis == 0 and _leaf.ndim == 2:
        return _leaf.T
    order = list(range(_leaf.ndim - 1))
    return _leaf.transpose((*order[:axis], _leaf.ndim - 1, *order[axis:]))


# -- the cells ----------------------------------------------------------------------------------------------------


class TorchCell(Recurrent):
    """What RNNCell, GRUCell and LSTMCell share: their sizes, how they are called and how PyTorch writes them.

    `cell(x, state=None)` is one step, as with PyTorch's cells: x (B, D) or (D,) → the new state, batch first.

    W  (gates · H, H + D): the gates' rows one above the other, over columns [state; x]
    b  (gates · H, 1)

    The block of a gate is orthogonal for the state, Glorot for x; b is zero but for what a cell says. dtype is that of
    the parameters, rng a np.random.Generator or a seed for their values. With learned_state the initial state is a
    parameter too, (H, 1), and starts at zero. Raises ValueError for sizes that make no layer.
    """

    gates = 1
    torch_order: tuple[int, ...] = (0,)  # which of our gates stands where in PyTorch; its own inverse
    states: tuple[str, ...] = ("h0",)

    def __init__(self, input_size: int, hidden_size: int, *, learned_state: bool = False, dtype: Any = np.float32,
                 rng: Any = None, **unknown: Any):
        if unknown:
            raise UnknownOption(type(self).__name__, unknown, options_of(type(self)))
        refuse_sizes(self, input_size, hidden_size)
        refuse_integers(self, dtype)
        self.input_size, self.hidden_size, self.learned_state = input_size, hidden_size, learned_state
        self.rng, self.dtype = np.random.default_rng(rng), np.dtype(dtype)
        self.W = self.weight(*[[self.state_block(), self.input_block()] for _ in range(self.gates)])
        self.b = self.weight([np.zeros((self.gates * hidden_size, 1))])
        if learned_state:
            for name in self.states:
                setattr(self, name, self.weight([np.zeros((hidden_size, 1))]))

    def __call__(self, x: Array, state: Tree = None) -> Tree:
        x = numbers(self, x)
        if x.shape[-1:] != (self.input_size,):
            raise ValueError(f"{type(self).__name__} takes {self.input_size} features, the last axis of x, and x has "
                             f"shape {x.shape}")
        return self.step(x, state)[1]

    def initial_state(self, batch: int) -> Tree:
        leaves = tuple(getattr(self, name) if self.learned_state else np.zeros((self.hidden_size, batch), self.dtype)
                       for name in self.states)
        return leaves if len(leaves) > 1 else leaves[0]

    def weight(self, *rows: list[np.ndarray]) -> Tensor:
        return Tensor(np.block(list(rows)), requires_grad=True, dtype=self.dtype)

    def state_block(self) -> np.ndarray:
        return orthogonal((self.hidden_size, self.hidden_size), self.rng, float)

    def input_block(self) -> np.ndarray:
        return glorot_uniform((self.hidden_size, self.input_size), self.rng, float)

    def rows(self, gate: int) -> slice:
        return slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)

    # -- PyTorch's names and order ------------------------------------------------------------------------

    def to_torch(self) -> dict[str, np.ndarray]:
        """weight_ih, weight_hh, bias_ih and bias_hh, as PyTorch's cell has them: b is all in bias_ih."""
        W, b, h = self.reordered(self.W.data), self.reordered(self.b.data)[:, 0], self.hidden_size
        return {"weight_ih": W[:, h:].copy(), "weight_hh": W[:, :h].copy(), "bias_ih": b.copy(),
                "bias_hh": np.zeros_like(b)}

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        """Take the parameters of PyTorch's cell, by its names, from arrays or CPU tensors. Its two biases are added, in
        float64 whatever they are in.

        Raises ValueError, and changes nothing, when names or shapes are not those of `to_torch()`.
        """
        arrays = fitting(arrays, self.to_torch(), type(self).__name__)
        W = np.hstack([arrays["weight_hh"], arrays["weight_ih"]])
        self.W.data = self.reordered(np.ascontiguousarray(W))
        self.b.data = self.reordered(added(arrays["bias_ih"], arrays["bias_hh"])[:, None])

    def reordered(self, array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[self.rows(gate)] for gate in self.torch_order])


def added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b, of half precision or integers too without rounding or overflow on the way."""
    return np.add(a, b, dtype=np.result_type(a, b, np.float64))


def is_whole(number: Any, least: int) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and number >= least


def refuse_sizes(layer: Module, input_size: Any, hidden_size: Any) -> None:
    if not (is_whole(input_size, 0) and is_whole(hidden_size, 1)):
        raise ValueError(f"{type(layer).__name__} takes whole numbers input_size ≥ 0 and hidden_size ≥ 1, not "
                         f"{input_size!r} and {hidden_size!r}")


class RNNCell(TorchCell):
    """h_next = tanh(W [h_prev; x] + b), or relu.          W (H, H + D), b (H, 1)

    Elman 1990. For the rest see `TorchCell`.
    """

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options: Any):
        super().__init__(input_size, hidden_size, **options)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        self.nonlinearity = nonlinearity

    def cell(self, h_prev: Array, x: Array) -> tuple[Array, Array]:
        activation = tanh if self.nonlinearity == "tanh" else relu
        concat = concatenate([h_prev, x], axis=0)
        h_next = activation(self.W @ concat + self.b)
        return h_next, h_next

    cell.reads = "W", "b", "nonlinearity"


class GRUCell(TorchCell):
    """Gated recurrent unit:

        r, z = σ(W [h_prev; x] + b)
        n = tanh(Wx x + bx + r ∘ (Wh h_prev + bh))        reset_after, the default
        n = tanh(Wx x + bx + Wh (r ∘ h_prev))             reset_after=False: there is no bh
        h_next = (1 − z) ∘ n + z ∘ h_prev

    W (2H, H + D), b (2H, 1), rows r, z; Wh (H, H), Wx (H, D), bh and bx (H, 1). For the rest see `TorchCell`.

    Conventions differ. Here z keeps the *old* state, as in Cho et al. 2014 and PyTorch; Chung et al. 2014 exchange
    z and 1 − z. r is applied after the product with Wh as in the first version of Cho et al. (arXiv 1406.1078v1), in
    cuDNN and in PyTorch, or before it as in its later versions (v3, and EMNLP). After the product, the candidate's two
    biases cannot be added into one, as r scales bh alone: PyTorch's bias_ih and bias_hh of n are held as bx and bh.

    chrono  the longest dependency expected: b of z is then log U[1, chrono − 1] (see `nn.init.chrono`)
    """

    gates = 2
    torch_order = (0, 1)

    def __init__(self, input_size: int, hidden_size: int, *, reset_after: bool = True, chrono: float | None = None,
                 **options: Any):
        super().__init__(input_size, hidden_size, **options)
        self.reset_after = reset_after
        self.Wh, self.Wx = self.weight([self.state_block()]), self.weight([self.input_block()])
        self.bx = self.weight([np.zeros((hidden_size, 1))])
        if reset_after:
            self.bh = self.weight([np.zeros((hidden_size, 1))])
        if chrono is not None:
            self.b.data[self.rows(1)] = chrono_biases((hidden_size, 1), chrono, self.rng)[0]

    def cell(self, h_prev: Array, x: Array) -> tuple[Array, Array]:
        concat = concatenate([h_prev, x], axis=0)
        gates = sigmoid(self.W @ concat + self.b)
        r, z = split(gates, 2)
        recurrent = r * (self.Wh @ h_prev + self.bh) if self.reset_after else self.Wh @ (r * h_prev)
        candidate = tanh(self.Wx @ x + self.bx + recurrent)
        h_next = (1.0 - z) * candidate + z * h_prev
        return h_next, h_next

    cell.reads = "W", "b", "Wh", "bh", "Wx", "bx", "reset_after"

    def to_torch(self) -> dict[str, np.ndarray]:
        """As PyTorch's GRUCell, rows r, z, n. Raises ValueError with reset_after=False, which PyTorch has not."""
        if not self.reset_after:
            raise ValueError("PyTorch's GRU resets after the product: one with reset_after=False is none of PyTorch's")
        gates = super().to_torch()
        candidate = {"weight_ih": self.Wx.data, "weight_hh": self.Wh.data,
                     "bias_ih": self.bx.data[:, 0], "bias_hh": self.bh.data[:, 0]}
        return {name: np.concatenate([gates[name], candidate[name]]) for name in gates}

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        arrays = fitting(arrays, self.to_torch(), type(self).__name__)
        (w_ih, Wx), (w_hh, Wh), (b_ih, bx), (b_hh, bh) = (np.split(arrays[name], [2 * self.hidden_size])
                                                          for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        self.W.data, self.b.data = np.ascontiguousarray(np.hstack([w_hh, w_ih])), added(b_ih, b_hh)[:, None]
        for mine, theirs in ((self.Wh, Wh), (self.Wx, Wx), (self.bh, bh[:, None]), (self.bx, bx[:, None])):
            mine.data = np.array(theirs, order="C")


class LSTMCell(TorchCell):
    """The document's cell, its three sigmoids in one:

        ft, it, ot = σ(W [a_prev; x] + b), the first three blocks of rows      cct = tanh(…), the fourth
        c_next = ft ∘ c_prev + it ∘ cct                    a_next = ot ∘ tanh(c_next)

    W (4H, H + D), b (4H, 1), rows f, i, o, c; state (a, c). Wf, bf, Wi, bi, Wo, bo, Wc, bc are views of them, as the
    document's `parameters` has them. For the rest see `TorchCell`. Gers, Schmidhuber & Cummins 2000.

    forget_bias  what bf starts with: 1, so that the gradient reaches far from the first day (Jozefowicz et al. 2015)
    chrono       the longest dependency expected: then bf = log U[1, chrono − 1] and bi = −bf (see `nn.init.chrono`)
    """

    gates = 4
    torch_order = (1, 0, 3, 2)  # f, i, o, c ⇄ i, f, g, o
    states = ("h0", "c0")

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, chrono: float | None = None,
                 **options: Any):
        super().__init__(input_size, hidden_size, **options)
        self.bf[:] = forget_bias
        if chrono is not None:
            self.bf[:], self.bi[:] = chrono_biases((hidden_size, 1), chrono, self.rng)

    def cell(self, state: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        a_prev, c_prev = state
        concat = concatenate([a_prev, x], axis=0)
        z = self.W @ concat + self.b
        gates = sigmoid(z[:3 * self.hidden_size])
        ft, it, ot = split(gates, 3)
        cct = tanh(z[3 * self.hidden_size:])
        c_next = ft * c_prev + it * cct
        a_next = ot * tanh(c_next)
        return (a_next, c_next), a_next

    cell.reads = "W", "b", "hidden_size"

    Wf, bf, Wi, bi, Wo, bo, Wc, bc = (
        property(lambda self, name=name, gate=gate: getattr(self, name).data[self.rows(gate)],
                 doc=f"The rows of {name} for the document's gate {'fioc'[gate]}, as a view: an ndarray.")
        for gate in range(4) for name in "Wb")


# -- the layers -----------------------------------------------------------------------------------------------------


class Stacked(Module):
    """Cells in several layers and both directions; `RNN`, `GRU` and `LSTM` are this with PyTorch's shapes and names.

    input_size D, hidden_size H
    num_layers     each takes the output of the one below
    bidirectional  each layer has a second cell that goes from the end to the start; their outputs stand side by side
    dropout        the probability with which an output between two layers is set to 0 in training, the others are
                   scaled by 1 / (1 − dropout); not after the last layer; drawn from the layer's own rng
    batch_first    x and output are (B, T, …); states are not concerned, as in PyTorch
    dtype, rng     of the parameters; rng, a np.random.Generator or a seed, also of the dropout
    Further options go to the cells, as learned_state=True.

    Called as `layer(x, state=None, lengths=None)`; with L = num_layers · (2 if bidirectional else 1):
    x        (T, B, D), or (T, D) for one sequence
    state    as the final state; zeros by default
    lengths  (B,) integers from 1 to T: past the end of a sequence its states stand still, its output is 0, and the
             backward direction starts at its own end
    Returns output (T, B, H), or 2H wide if bidirectional, and the final state: (L, B, H), for an LSTM a pair (h, c) of
    such. Of one sequence, output (T, H) and states (L, H). All are of `dtype`, whatever that of x and state is (see
    layers.py).

    The cells are in `layers`, under PyTorch's names: l0, l0_reverse, l1, … To stack a cell of your own, subclass
    `Stacked` with `Cell` as a Recurrent that is built by (input_size, hidden_size, *, dtype, rng) and gives y (H, B).
    Raises ValueError when sizes, x, state or lengths do not fit.
    """

    Cell: type[Any]
    layers: dict[str, Any]

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, *, bidirectional: bool = False,
                 dropout: float = 0.0, batch_first: bool = False, dtype: Any = np.float32, rng: Any = None,
                 **options: Any):
        refuse_sizes(self, input_size, hidden_size)
        refuse_integers(self, dtype)
        if not is_whole(num_layers, 1):
            raise ValueError(f"{type(self).__name__} takes a whole number num_layers ≥ 1, not {num_layers!r}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"{type(self).__name__} takes a dropout from 0 to less than 1, not {dropout}")
        if dropout and num_layers == 1:
            warnings.warn(f"{type(self).__name__} has one layer, and dropout stands between layers: it does nothing "
                          "here, use nn.Dropout on x or on the output", stacklevel=2)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.dropout, self.batch_first = bidirectional, dropout, batch_first
        self.rng = np.random.default_rng(rng)
        sizes = [input_size] + [hidden_size * (2 if bidirectional else 1)] * (num_layers - 1)
        try:
            self.layers: dict[str, Any] = {
                f"l{i}{direction}": self.Cell(size, hidden_size, dtype=dtype, rng=self.rng, **options)
                for i, size in enumerate(sizes) for direction in ("", "_reverse")[:1 + bool(bidirectional)]}
        except UnknownOption as problem:
            kind = type(self).__name__
            if set(problem.names) <= set(options):
                raise UnknownOption(kind, problem.names, self.option_names()) from None
            raise TypeError(f"{kind} builds its cells as {self.Cell.__name__}(input_size, hidden_size, dtype=…, rng=…)"
                            f", and {problem}") from problem

    @classmethod
    def option_names(cls) -> list[str]:
        """What it takes: its own options, and those of its cells."""
        return list(dict.fromkeys(options_of(cls) + options_of(getattr(cls, "Cell", cls))[2:]))

    def __call__(self, x: Array, state: Tree = None, lengths: Any = None) -> tuple[Array, Tree]:
        x, mask, single = enter(self, x, lengths, self.batch_first, self.input_size)
        cells = list(self.layers.values())
        if state is not None:
            like = cells[0].initial_state(x.shape[2])
            state = enter_state(self, state, like, x.shape[2], single, len(cells))
        finals, ys = [], []
        for i, (name, cell) in enumerate(self.layers.items()):
            first = None if state is None else map_leaves(lambda start, i=i: start[i], state)
            final, y = cell.run(x, first, mask, reverse=name.endswith("_reverse"))
            finals.append(final)
            ys.append(y)
            if len(ys) == 1 + self.bidirectional:  # the layer is done: its output is the next one's x
                x, ys = concatenate(ys, axis=1) if self.bidirectional else y, []
                x = self.dropped(x) if i + 1 < len(cells) else x
        ends = zip(*(flatten(leave_state(final, single))[0] for final in finals))
        states = [stack(leaves) if len(leaves) > 1 else leaves[0].reshape((1, *leaves[0].shape)) for leaves in ends]
        return leave(x, self.batch_first, single), unflatten(finals[0], states)

    def dropped(self, x: Array) -> Array:
        if not (self.training and self.dropout):
            return x
        keep = self.rng.random(x.shape) >= self.dropout
        return x * (keep / (1.0 - self.dropout)).astype(x.dtype)

    # -- PyTorch's names and order ------------------------------------------------------------------------

    def to_torch(self) -> dict[str, np.ndarray]:
        """The parameters as PyTorch names and orders them (weight_ih_l0, …): its `load_state_dict` takes
        `{name: torch.from_numpy(array) for name, array in layer.to_torch().items()}`.

        PyTorch has two biases where one does: b is in bias_ih, and bias_hh is 0. Of a learned state it knows nothing.
        """
        return {f"{name}_{layer}": array for layer, cell in self.layers.items()
                for name, array in cell.to_torch().items()}

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        """Take the parameters of PyTorch's module of the same form: its `state_dict()`, or arrays by the same names.

        The two biases of a gate are added, in float64 whatever they are in. Raises ValueError, and changes nothing,
        when names or shapes differ.
        """
        arrays = fitting(arrays, self.to_torch(), type(self).__name__)
        for layer, cell in self.layers.items():
            cell.load_torch({name: arrays[f"{name}_{layer}"]
                             for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})


class RNN(Stacked):
    """Layers of `RNNCell`; options nonlinearity="tanh" or "relu". See `Stacked`."""

    Cell = RNNCell


class GRU(Stacked):
    """Layers of `GRUCell`, which says whose GRU it is; options reset_after=True, chrono=None. See `Stacked`."""

    Cell = GRUCell


class LSTM(Stacked):
    """Layers of `LSTMCell`; options forget_bias=1.0, chrono=None. State and final state are (h, c). See `Stacked`."""

    Cell = LSTMCell
