"""Convert between PyTorch's layout, batch before features, and a cell's, features first and batch last.

One sequence, without a batch axis, is a batch of 1 in the cell's layout.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.ops import broadcast_to, expand_dims, where
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.nn.checks import Array, Tree, as_numbers, check_features


class Batch(NamedTuple):
    """The position of the batch axis in the caller's layout, None for one sequence.

    is_layer  whether a new axis of length 1 precedes all others, for the layers of a `Stacked`
    """

    axis: int | None
    is_layer: bool = False

    def enter(self, x: Array) -> Array:
        """From the caller's layout to the cell's."""
        x = x[..., None] if self.axis is None else x.transpose(orders(self.axis, x.ndim)[0])
        return x[0] if self.is_layer else x

    def leave(self, _x: Array) -> Array:
        """From the cell's layout to the caller's. The underscore keeps `_x` from naming a result in derived source."""
        _x = _x[None] if self.is_layer else _x
        return _x[..., 0] if self.axis is None else _x.transpose(orders(self.axis, _x.ndim)[1])


@functools.cache
def orders(axis: int, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The orders of axes that move this one to the end, and the last one here."""
    others, last = range(ndim - 1), ndim - 1
    return (*range(axis), *range(axis + 1, ndim), axis), (*others[:axis], last, *others[axis:])


def to_cell_layout(layer: object, x: Array, lengths: Any, batch_first: bool, size: int | None = None
                   ) -> tuple[Array, np.ndarray | None, Batch]:
    """The caller's x → x (T, D, B), the mask (T, B) or None, and the batch axis of x.

    Raises ValueError unless x has D = size features (None: any number) and one step or more.
    """
    x = as_numbers(layer, x)
    kind = type(layer).__name__
    if x.ndim not in (2, 3):
        axes = "(batch, time, features)" if batch_first else "(time, batch, features)"
        raise ValueError(f"{kind} takes x of shape {axes}, or (time, features) for one sequence, not {x.shape}")
    if size is not None:
        check_features(layer, x, size)
    batch = Batch(None if x.ndim == 2 else 0 if batch_first else 1)
    x = batch.enter(x)
    if x.shape[0] < 1:
        raise ValueError(f"{kind} takes sequences of one step or more, and x has none")
    mask = mask_of(kind, lengths, x.shape[0], x.shape[2])
    if mask is not None:
        x = where(expand_dims(mask, 1), x, 0.0)  # a NaN in the padding would become 0 · NaN in a gradient
    return x, mask, batch


def symbols_to_cell_layout(layer: object, x: Any, lengths: Any, batch_first: bool, table: Array, size: int
                           ) -> tuple[np.ndarray, np.ndarray | None, Batch]:
    """The caller's symbols → symbols (T, B) from 0, the mask (T, B) or None, and their batch axis.

    Raises TypeError unless x contains integers, IndexError for one that is no row of the table (V, size), ValueError
    unless the shapes fit.
    """
    kind, x = type(layer).__name__, x.detach().numpy() if isinstance(x, Tensor) else bare(x)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{kind} with a table takes x as symbols, integers that count its rows from 0, not {x.dtype}")
    if len(np.shape(table)) != 2 or table.shape[1] != size or not len(table):
        raise ValueError(f"{kind} takes a table of shape (symbols, {size}), a row for each symbol, not "
                         f"{np.shape(table)}")
    if x.ndim not in (1, 2) or not len(x):
        axes = "(batch, time)" if batch_first else "(time, batch)"
        raise ValueError(f"{kind} with a table takes symbols of shape {axes}, or (time,) for one sequence, with one "
                         f"step or more, not {x.shape}")
    batch = Batch(None if x.ndim == 1 else 0 if batch_first else 1)
    x = batch.enter(x).astype(np.int64)
    mask = mask_of(kind, lengths, *x.shape)
    x = x if mask is None else np.where(mask, x, 0)
    if x.min(initial=0) < 0 or x.max(initial=0) >= len(table):
        raise IndexError(f"{kind} has a table of symbols from 0 to {len(table) - 1}, and x contains {x.min()} to "
                         f"{x.max()}")
    return x, mask, batch


def mask_of(kind: str, lengths: Any, steps: int, batch: int) -> np.ndarray | None:
    """(T, B), true within each sequence; None if all sequences have full length."""
    if lengths is None:
        return None
    lengths = bare(lengths)
    if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
        raise ValueError(f"{kind} takes lengths as one integer for each of {batch} sequences, "
                         f"not {lengths.dtype} of shape {lengths.shape}")
    if lengths.min(initial=steps) < 1 or lengths.max(initial=1) > steps:
        raise ValueError(f"{kind} takes lengths from 1 to {steps}, the steps of x, not {lengths.tolist()}")
    return None if (lengths == steps).all() else np.arange(steps)[:, None] < lengths


def state_to_cell_layout(layer: object, state: Tree, like: Tree, size: int | None, count: int | None = None) -> Tree:
    """The caller's state, leaves (B, …) or with `count` (count, B, …) → leaves (…, B) or (count, …, B), nested as
    `like`, the state of a cell. size: B, None for one sequence. Raises ValueError if a shape differs."""
    lead = () if count is None else (count,)
    given = [leaf if isinstance(leaf, Tensor) else bare(leaf) for leaf in flatten(state)[0]]
    shapes = [lead + (() if size is None else (size,)) + tuple(leaf.shape[:-1]) for leaf in flatten(like)[0]]
    if [leaf.shape for leaf in given] != shapes:
        raise ValueError(f"{type(layer).__name__} takes a state of shape {' and '.join(map(str, shapes))}, "
                         f"not {' and '.join(str(leaf.shape) for leaf in given[:4]) or 'nothing'}"
                         + (f" and {len(given) - 4} more" if len(given) > 4 else ""))
    batch = Batch(None if size is None else len(lead))
    return unflatten(like, list(map(batch.enter, given)))


def broadcast_state(batch: int, dtype: np.dtype, start: Array) -> Array:
    """A leaf of the initial state, (…, B) or (…, 1) → (…, B), in this dtype."""
    start = start if isinstance(start, Tensor) else bare(start)
    if start.dtype != dtype:
        start = start.astype(dtype)
    if start.shape[-1:] == (batch,):
        return start
    if start.shape[-1:] != (1,):
        raise ValueError(f"initial_state gave a leaf of shape {start.shape} for {batch} sequences: its last axis must "
                         f"be the batch, of length {batch}, or 1 for the same in all")
    return broadcast_to(start, (*start.shape[:-1], batch))
