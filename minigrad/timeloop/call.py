"""One call of scan: its arguments, checked and flattened once, and its run as one op on the graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minigrad.engine.arrays import plain
from minigrad.engine.backward import zeros_of
from minigrad.engine.op import record_parts
from minigrad.engine.pytree import CONTAINERS, named_leaves, unflatten
from minigrad.engine.tensor import Tensor, wrap
from minigrad.program.trace import Symbol
from minigrad.timeloop.eager import Cell


class ScanCall:
    """One call of scan. Its executor runs the loops over time, on arrays in the order of running.

    trees     (state, xs), nested as the caller's;  nesting: of both, as a key
    leaves    of both: tensors, and arrays in native byte order;  sizes: their numbers
    mask      (T, batch) booleans, an array or a symbol; or None
    axes      for the states and the ys that are returned, the caller's batch axis (`Batch` of nn/layout.py); None where
              the layout is the cell's
    steps     T, the length of all leaves of xs

    `prepare` (compiled.py) sets the others:
    compiled  the program
    supply    all tensors and arrays that the cell closes over
    inputs    the leaves, and those of the supply that the program reads
    arrays    of the inputs: (state, xs and mask in the order of running, supply)
    executor  Planned, InC, Checkpointed, or a Record of the microscope

    Raises ValueError if the shapes of xs and mask do not fit.
    """

    __slots__ = ("arrays", "axes", "cell", "compiled", "executor", "inputs", "leaves", "mask", "nesting", "reverse",
                 "sizes", "steps", "supply", "trees")

    def __init__(self, cell: Cell, state: Any, xs: Any, reverse: bool = False, mask: Any = None,
                 axes: tuple[Any, Any] = (None, None)):
        self.cell, self.trees, self.reverse, self.axes, self.leaves = cell, (state, xs), reverse, axes, []
        nesting = gather(state, self.leaves)
        n = len(self.leaves)
        self.nesting = nesting, gather(xs, self.leaves)
        self.sizes = n, len(self.leaves) - n
        self.steps = length(self.leaves[n:], xs)
        self.mask = None if mask is None else checked_mask(mask, self.steps, state)

    def run_by(self, compiled: Any, arrays: list, supply: list) -> None:
        """Set the program, and what it runs on. arrays: of the leaves."""
        closed = [supply[i] for i in compiled.closed]
        self.compiled, self.supply, self.inputs = compiled, supply, (*self.leaves, *closed)
        self.arrays = self.split(arrays + [x._array if isinstance(x, Tensor) else np.asarray(x) for x in closed])
        self.executor = compiled.executor_of_call(self.steps, closed)

    def on_graph(self) -> tuple[Any, Any]:
        """Run, and record the whole as one op."""
        compiled = self.compiled
        results = self.forward(self.executor, *self.arrays)
        if compiled.backward is not None:
            results = record_parts(compiled.op, self.inputs, {"run": self}, results, compiled.tracked)
        else:
            self.executor = None  # gives its buffers back
            if any(isinstance(x, Tensor) for x in self.inputs):
                results = tuple(map(wrap, results))
        return unflatten(compiled.results, results)

    def split(self, arrays: list) -> tuple[list, list, list]:
        """Arrays of all inputs → (state, xs and mask in the order of running, closed-over tensors)."""
        n, m = self.sizes
        xs = arrays[n:n + m] if self.mask is None else [*arrays[n:n + m], self.mask]
        return arrays[:n], self.in_order(xs), arrays[n + m:]

    def in_order(self, over_time: Any) -> Any:
        """Arrays over time in the order of xs → in the order of running, or back."""
        return [x if x is None else x[::-1] for x in over_time] if self.reverse else over_time

    def forward(self, executor: Any, state: list, xs: list, closed: list) -> tuple:
        """Return the final states and the ys, in the caller's layout."""
        final, ys = executor.forward(state, xs, closed)
        return leave(self.axes, final, map(np.ascontiguousarray, self.in_order(ys)) if self.reverse else ys)

    def backward(self, gradients: list, results: tuple) -> list:
        """Return dL/d(each input), None where the program has none. gradients: of the results, None for zeros; of the
        results only shapes and dtypes are read."""
        n, m = self.sizes
        state, xs, closed = self.arrays
        of_state, of_y = self.axes
        d_state = [np.zeros(a.shape, a.dtype) if d is None else
                   np.array(of_state.enter(d) if of_state else d, order="C") for a, d in zip(state, gradients)]
        d_ys = enter(of_y, [zeros_of(y) if d is None else d for y, d in zip(results[n:], gradients[n:])])
        d_state, d_xs, d_closed = self.executor.backward(d_state, self.in_order(d_ys), xs, closed)
        return [*d_state, *self.in_order(d_xs[:m]), *d_closed]

    def first_step(self, arrays: list, trees: tuple[Any, Any]) -> tuple[list, Any]:
        """The arrays of (state, (x, mask)) at the first step, and that as a pattern. arrays: of the leaves."""
        state, xs = trees
        firsts = [x if i < self.sizes[0] else np.asarray(x[0]) for i, x in enumerate(arrays)]
        return firsts if self.mask is None else [*firsts, self.mask[0]], (state, (xs, self.mask))


def leave(axes: tuple[Any, Any], final: Iterable, ys: Iterable) -> tuple:
    """Final states and ys, one after the other, in the caller's layout."""
    of_state, of_y = axes
    return (*(map(of_state.leave, final) if of_state else final), *(map(of_y.leave, ys) if of_y else ys))


def enter(axis: Any, gradients: list) -> list:
    """Gradients in the cell's layout. axis: one of `axes`."""
    return list(map(axis.enter, gradients)) if axis else gradients


def gather(tree: Any, leaves: list[Any]) -> Any:
    """Append the leaves of a tree to a list, all but tensors as plain arrays of native byte order. Return the nesting
    of the tree, as a key."""
    if isinstance(tree, dict):
        return tree.__class__, *[(key, gather(child, leaves)) for key, child in tree.items()]
    if isinstance(tree, CONTAINERS):
        return tree.__class__, *[gather(child, leaves) for child in tree]
    if tree is not None:
        leaves.append(tree if isinstance(tree, Tensor) else np.asarray(plain(tree)))
    return tree is None


def length(leaves: list, xs: Any) -> int:
    """Return T, the length of all leaves of xs."""
    lengths = {leaf.shape[0] if leaf.shape else 0 for leaf in leaves}
    if not lengths:
        raise ValueError("scan needs xs with a time axis: for a cell without input pass np.zeros((T, 0))")
    if len(lengths) > 1 or min(lengths) < 1:
        shapes = ", ".join(f"xs{name} {np.shape(leaf)}" for name, leaf in named_leaves(xs))
        raise ValueError(f"scan runs over the leading axis of xs, which must have one length T ≥ 1: {shapes}")
    return lengths.pop()


def checked_mask(mask: Any, steps: int, state: Any) -> Any:
    """Return the mask as booleans (T, batch), an array or a symbol, after comparing its shape with the state."""
    mask = mask.detach() if isinstance(mask, Tensor) else mask
    mask = mask if isinstance(mask, Symbol) else np.asarray(plain(mask))
    if mask.ndim != 2 or len(mask) != steps:
        raise ValueError(f"mask has shape {mask.shape} and must be (T, batch) = ({steps}, batch)")
    for name, leaf in named_leaves(state):
        if np.shape(leaf)[-1:] != (mask.shape[1],):
            raise ValueError(f"mask has shape {mask.shape} and state{name} {np.shape(leaf)}: the batch must be the "
                             "second axis of the mask and the last of every state")
    return mask if isinstance(mask, Symbol) and mask.dtype == bool else mask != 0  # a copy: the backward reads it
