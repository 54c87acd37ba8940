"""`scan`: a cell over time. Every recurrence of this project is one call of it.

    (state, x[0]) → cell → (state, y[0])    (state, x[1]) → cell → (state, y[1])    …

Time is the leading axis of xs and ys, the batch (for a mask) the last axis of every state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.ops import concatenate, expand_dims, where
from minigrad.tensor import Tensor
from minigrad.tree import flatten, named_leaves, unflatten

Cell = Callable[[Any, Any], tuple[Any, Any]]


def scan(cell: Cell, state: Any, xs: Any, *, reverse: bool = False, mask: Any = None) -> tuple[Any, Any]:
    """Run `cell(state, x) → (state, y)` over the leading axis of xs.

    state and xs, and the y of the cell, are arrays or tensors, or any nesting of tuples, lists and dicts of them; the
    leaves of xs have shape (T, …) with one T ≥ 1. The new state must have the nesting, shapes and dtypes of the old.

    reverse  from the last step to the first; ys stay in the order of xs
    mask     (T, batch), numbers or booleans; batch is the last axis of every leaf of state and y. Where it is 0 the
             state is carried over unchanged, and y is 0.

    Returns (final state, ys), ys with leaves (T, …). Raises ValueError where shapes do not fit.
    """
    steps = length(xs)
    if mask is not None:
        mask = checked_mask(mask, steps)
    return loop(cell, state, xs, steps, reverse, mask)


def loop(cell: Cell, state: Any, xs: Any, steps: int, reverse: bool, mask: np.ndarray | None) -> tuple[Any, Any]:
    """The loop as it is, step by step, each op recorded by itself."""
    x_leaves, x_pattern = flatten(xs)
    outputs: list[list[Any]] = []
    pattern = None
    for t in reversed(range(steps)) if reverse else range(steps):
        before = state
        pair = cell(state, unflatten(x_pattern, [leaf[t] for leaf in x_leaves]))
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"a cell returns a pair (state, y), not {type(pair).__name__}: end it with return state, y")
        state, pattern = pair
        check_state(before, state)
        y_leaves = flatten(pattern)[0]
        if mask is not None:
            pairs = zip(flatten(state)[0], flatten(before)[0])
            state = unflatten(state, [where(mask[t], new, old) for new, old in pairs])
            y_leaves = [where(mask[t], y, 0.0) for y in y_leaves]
        outputs.append(y_leaves)
    if reverse:
        outputs.reverse()
    ys = [concatenate([expand_dims(y, 0) for y in leaf], axis=0) for leaf in zip(*outputs)]
    return state, unflatten(pattern, ys)


def length(xs: Any) -> int:
    """T, the same for every leaf."""
    leaves = named_leaves(xs)
    if not leaves:
        raise ValueError("scan needs xs with a time axis: for a cell without input pass np.zeros((T, 0))")
    lengths = {name: np.shape(leaf)[0] if np.ndim(leaf) else 0 for name, leaf in leaves}
    if len(set(lengths.values())) > 1 or min(lengths.values()) < 1:
        said = ", ".join(f"xs{name} {np.shape(leaf)}" for name, leaf in leaves)
        raise ValueError(f"scan goes over the leading axis of xs, of one length T ≥ 1 for all: {said}")
    return next(iter(lengths.values()))


def checked_mask(mask: Any, steps: int) -> np.ndarray:
    mask = np.asarray(mask.detach() if isinstance(mask, Tensor) else mask)
    if mask.ndim != 2 or len(mask) != steps:
        raise ValueError(f"mask has shape {mask.shape} and must be (T, batch) = ({steps}, batch)")
    return mask != 0


def check_state(before: Any, after: Any) -> None:
    """The state of one step is the state of the next: it must keep its form."""
    old, new = ([(np.shape(leaf), getattr(leaf, "dtype", None)) for leaf in flatten(tree)[0]]
                for tree in (before, after))
    if old != new:
        raise ValueError(f"the cell was given a state of shapes and dtypes {shown(old)} and returned {shown(new)}: "
                         "they must be the same at every step")


def shown(leaves: list[tuple]) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in leaves)


