"""A cell over time in eager mode: one step of the cell, checked and masked, and the loop over the steps.

This loop is the reference. It runs cells that have no program, and the sweep of a gradient of a gradient.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from minigrad.engine.context import watcher
from minigrad.engine.messages import name_of
from minigrad.engine.ops import concatenate, expand_dims, where
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor, wrap
from minigrad.program.trace import Tracer

Cell = Callable[[Any, Any], tuple[Any, Any]]


class ScanNotice(UserWarning):
    """Warns once per cell that a scan runs step by step instead of through its compiled program, and why."""


class CellError(TypeError):
    """A function that is not a cell: it does not return a pair."""


def loop(cell: Cell, state: Any, xs: Any, steps: int, reverse: bool, mask: np.ndarray | None) -> tuple[Any, Any]:
    """Run the cell step by step and record each op. The cell receives tensors; if no input is one, return arrays."""
    x_leaves, x_pattern = flatten(xs)
    start = flatten(state)[0]
    outputs: list[list[Any]] = []
    pattern = None
    state = unflatten(state, [as_tensor(leaf) for leaf in start])
    for t in reversed(range(steps)) if reverse else range(steps):
        x = unflatten(x_pattern, [as_tensor(leaf[t]) for leaf in x_leaves])
        state, pattern = one_step(cell, state, x, None if mask is None else mask[t])
        outputs.append(flatten(pattern)[0])
    if reverse:
        outputs.reverse()
    ys = [concatenate([expand_dims(y, 0) for y in leaf], axis=0) for leaf in zip(*outputs)]
    final, n = flatten(state)[0], len(start)
    results = [*final, *ys]
    if not any(isinstance(x, Tensor) for x in (*start, *x_leaves)):
        results = [y._array if y.__class__ is Tensor and not y._tracked else y for y in results]
    return unflatten(state, results[:n]), unflatten(pattern, results[n:])


def as_tensor(leaf: Any) -> Tensor:
    if isinstance(leaf, Tensor):
        return leaf
    watching = watcher.get()
    return watching.constant(leaf) if isinstance(watching, Tracer) else wrap(np.asarray(leaf))


def one_step(cell: Cell, before: Any, x: Any, mask: Any) -> tuple[Any, Any]:
    """Call the cell once, check its result, and apply the mask."""
    pair = cell(before, x)
    if not isinstance(pair, tuple) or len(pair) != 2:
        what = "one array" if hasattr(pair, "shape") else f"a {type(pair).__name__}"
        what += f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
        raise CellError(f"a cell returns a pair (state, y), not {what}: end it with return state, y")
    state, y = pair
    old, new = ([(tuple(np.shape(leaf)), getattr(leaf, "dtype", None)) for leaf in flatten(tree)[0]]
                for tree in (before, state))
    if old != new:
        raise ValueError(f"the cell received a state of shapes and dtypes {kinds_text(old)} and returned "
                         f"{kinds_text(new)}: they must be the same at every step")
    if mask is not None:
        pairs = zip(flatten(state)[0], flatten(before)[0])
        state = unflatten(state, [where(mask, after, unchanged) for after, unchanged in pairs])
        y = unflatten(y, [where(mask, leaf, 0.0) for leaf in flatten(y)[0]])
    return state, y


def kinds_text(leaves: list[tuple]) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in leaves)


def code_of(cell: Any) -> CodeType | None:
    """Return the code of a function, a method, a partial or a callable object."""
    while isinstance(cell, functools.partial):
        cell = cell.func
    if isinstance(cell, MethodType):
        cell = cell.__func__
    if not isinstance(cell, FunctionType):
        cell = getattr(type(cell), "__call__", None)  # noqa: B004
    return cell.__code__ if isinstance(cell, FunctionType) else None


def notice(cell: Cell, why: str, stacklevel: int = 4) -> None:
    """Warn once per cell why it runs step by step."""
    code = code_of(cell)
    known = notified.setdefault(code, set()) if code is not None else set()
    if why not in known:
        known.add(why)
        name = name_of(cell, "__qualname__")
        warnings.warn(f"scan runs {name} step by step: {why}", ScanNotice, stacklevel=stacklevel)


notified: weakref.WeakKeyDictionary[CodeType, set[str]] = weakref.WeakKeyDictionary()
