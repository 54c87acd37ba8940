"""`Recurrent`: a cell over sequences, called as PyTorch's layers are.

The cell works features first and batch last, x (D, B) and state (H, B), as the source document does. The layer takes x
(T, B, D), converts the layout once on entry and once on exit, and runs the cell in `scan`, which derives its backward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from minigrad.engine.ops import expand_dims, take, transpose
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.engine.tensor import Tensor
from minigrad.nn.checks import Array, Tree, as_numbers, cast
from minigrad.nn.layout import Batch, broadcast_state, state_to_cell_layout, to_cell_layout
from minigrad.nn.module import Module
from minigrad.timeloop.call import ScanCall
from minigrad.timeloop.scan import run_scan


class Recurrent(Module):
    """Base class of a user's own cell, run over sequences. Subclass it and write two methods:

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
    reverse      run from the last step of each sequence to its first; outputs keep the order of the inputs
    batch_first  x and output have the batch axis before time

    Both can be passed to `super().__init__` or set later. Called as `recurrent(x, state=None, lengths=None)`:

    x        (T, B, D), with batch_first (B, T, D), or (T, D) for one sequence; T ≥ 1
    state    the initial state, nested as the cell's, batch axis first, like the final state that is returned; by
             default `initial_state(B)`
    lengths  (B,) integers from 1 to T: the length of each sequence. Past its end the state is kept, the output is 0,
             and x has no effect.

    Returns (output, state): output (T, B, …) in the layout of x, nested as the cell's y, and the state after each
    sequence's own last step (with reverse: its first). x and state are cast to the dtype of the parameters, if there
    are any (see layers.py). Raises ValueError if x, state or lengths do not fit.
    """

    batch_first = False
    reverse = False
    meanings: ClassVar[dict[str, str]] = {}  # {name of a value in `cell`: what it is}, shown by `minigrad inspect`

    def __init__(self, *, batch_first: bool = False, reverse: bool = False):
        self.batch_first, self.reverse = batch_first, reverse

    def cell(self, state: Any, x: Any, /) -> tuple[Any, Any]:
        """One step: x (D, B) and a state nested as `initial_state` returns it → (state, y), all with batch last."""
        raise NotImplementedError(f"{type(self).__name__} has no cell yet: write its method cell(self, state, x), "
                                  "which returns (state, y)")

    def initial_state(self, batch: int) -> Tree:
        """The state before the first step: leaves (…, batch), or (…, 1) for one state shared by all sequences. A
        learned initial state consists of parameters."""
        raise NotImplementedError(f"{type(self).__name__} has no initial state yet: write its method "
                                  "initial_state(self, batch), for instance `return np.zeros((self.size, batch))`")

    def __call__(self, x: Array, state: Tree = None, lengths: Any = None) -> tuple[Any, Any]:
        return self.over_time(x, state, lengths, self.batch_first, self.reverse)

    def step(self, x: Array, state: Tree = None) -> tuple[Any, Any]:
        """One step, as in sampling: x (B, D) or (D,) → (y, state), batch first."""
        x = as_numbers(self, x)
        if x.ndim not in (1, 2):
            raise ValueError(f"one step of {type(self).__name__} takes x of shape (batch, features) or (features,), "
                             f"not {x.shape}")
        ys, state = self.over_time(expand_dims(x, 0), state, None, batch_first=False, reverse=False)
        return map_leaves(lambda y: y[0], ys), state

    def over_time(self, x: Array, state: Tree, lengths: Any, batch_first: bool, reverse: bool) -> tuple[Any, Any]:
        x, mask, batch = to_cell_layout(self, x, lengths, batch_first)
        if state is not None:
            size = None if batch.axis is None else x.shape[2]
            state = state_to_cell_layout(self, state, self.initial_state(x.shape[2]), size)
        of_state = Batch(None if batch.axis is None else 0)
        state, ys = self.run(x, state, mask, reverse, (of_state, batch))
        return ys, state

    def run(self, x: Array, state: Tree = None, mask: Array = None, reverse: bool = False,
            axes: tuple[Batch | None, Batch | None] = (None, None)) -> tuple[Tree, Tree]:
        """scan in the cell's layout: x (T, D, B), state with batch last. Returns (final state, ys), the batch of each
        at this axis of the caller's layout; None: last."""
        dtypes = self.parameter_types()
        x = cast(x, common(dtypes) if dtypes else None)
        return self.scanned(self.cell, dtypes | {x.dtype}, x, state, mask, reverse, axes)

    def run_symbols(self, table: Array, symbols: np.ndarray, *how: Any) -> tuple[Tree, Tree]:
        """`run` for symbols (T, B), each of which stands for a row of a table (V, D) as x."""
        return self.run(transpose(take(table, symbols, axis=0), (0, 2, 1)), *how)

    def scanned(self, cell: Callable, dtypes: set[np.dtype], x: Array, state: Tree, mask: Array, reverse: bool,
                axes: tuple[Batch | None, Batch | None]) -> tuple[Tree, Tree]:
        batch = x.shape[-1]
        if state is None:
            state = self.initial_state(batch)
        else:
            dtypes = dtypes | {s.dtype for s in flatten(state)[0] if s.dtype.kind == "c"}
        state = map_leaves(partial(broadcast_state, batch, common(dtypes)), state)
        return run_scan(ScanCall(cell, state, x, reverse, mask, axes))

    def parameter_types(self) -> set[np.dtype]:
        """The dtypes of the parameters: of those that the cell declares as its keys, without a search for others."""
        own, declared = vars(self), getattr(self.cell, "key_attributes", ())
        return {a.dtype for name in declared if (a := own.get(name)).__class__ is Tensor} or {
            p.dtype for p in self.parameters()}


def common(dtypes: set[np.dtype]) -> np.dtype:
    """The dtype that NumPy gives to a result of all of these."""
    return next(iter(dtypes)) if len(dtypes) == 1 else np.result_type(*dtypes)
