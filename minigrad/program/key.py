"""Key of a traced step of a cell: steps with equal keys have the same program.

`scan` traces a cell at each call and runs the program of its key, so a change in anything that the cell reads changes
the key. The trace needs only shapes, no values, and the shapes of known calls are cached: it costs a few microseconds
per op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.arrays import ndarray
from minigrad.engine.context import recording, watcher
from minigrad.engine.op import Op
from minigrad.engine.pytree import CONTAINERS, flatten, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.program.effects import Surroundings
from minigrad.program.ir import content_key
from minigrad.program.trace import Symbol, TraceError, Tracer, symbol

LONGEST = 4096  # most entries of each of the two caches

SHAPES: dict[tuple, Any] = {}  # (op, metadata, shapes and dtypes of the inputs) → the result without values
BLANKS: dict[tuple, ndarray] = {}


class UnknownShape(Exception):
    """A call of an op whose result shape is not cached."""


class CellTracer(Tracer):
    """Watcher of one trace of a cell, which builds its key: ops, wiring, metadata and numbers.

    The tensors and arrays that the cell closes over are inputs, listed in `outside` in the order of first use. The key
    contains their shapes and dtypes, and which of them are the same object, but not their values.
    values   whether ops run on example values; if not, a call whose shape is not cached raises UnknownShape
    numbers  whether Python floats are inputs too, for a cell in which they change from call to call
    """

    def __init__(self, values: bool, numbers: bool = False, around: Surroundings | None = None):
        super().__init__(around=around)
        self.values, self.numbers = values, numbers
        self.entries: list[tuple] | None = []  # None once the key is complete
        self.outside: list[Any] = []
        self.references: dict[int, tuple[Any, Any]] = {}  # id of a closed-over object → (number, input)
        self.arrays: dict[int, ndarray] = {}  # index of a symbol → the closed-over array it replaces
        self.count = 0

    def argument(self, example: ndarray) -> Symbol:
        out = super().argument(example)
        out.number, self.count = self.count, self.count + 1
        return out

    def __call__(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        if self.entries is None:
            return super().__call__(op, inputs, arrays, metadata, tracked)
        if self.constants:
            inputs = tuple([self.without_wrapper(x) for x in inputs])
            if not any(isinstance(x, Tensor) for x in inputs):
                return super().__call__(op, inputs, inputs, metadata, tracked)
        if self.numbers:
            inputs = with_arrays_for_floats(inputs)
        numbers, kinds = [], []
        for i, x in enumerate(inputs):
            if x.__class__ is Symbol and x.number is not None:
                numbers.append(x.number)
                kinds.append((x.example.shape, x.example.dtype))
            elif isinstance(x, (Tensor, ndarray, np.generic)):
                number, operand = self.references.get(id(x)) or self.add_input(x)
                numbers.append(number)
                kinds.append((operand.shape, operand.dtype))
                if operand is not x:
                    inputs = (*inputs[:i], operand, *inputs[i + 1:])
            else:
                number = x.__class__, repr(x)
                numbers.append(number)
                kinds.append(number)
        tracked = tracked and recording.get()
        options = content_key(metadata, unknown_metadata) if metadata else None
        self.entries.append((op, options, tuple(numbers), tracked))
        call = op, options, tuple(kinds)
        if self.values:
            out = super().__call__(op, inputs, arrays, metadata, tracked)
            if len(SHAPES) >= LONGEST:
                SHAPES.clear()
            SHAPES[call] = tuple(blank(y.shape, y.dtype) for y in out) if isinstance(out, tuple) else \
                blank(out.shape, out.dtype)
        else:
            y = SHAPES.get(call)
            if y is None:
                raise UnknownShape
            out = self.results(y, tracked, op, inputs, metadata)
        for y in out if isinstance(out, tuple) else (out,):
            y.number, self.count = self.count, self.count + 1
        return out

    def add_input(self, x: Any) -> tuple[Any, Any]:
        """Make a closed-over object an input, an array as a symbol; return its number and the input."""
        operand = x
        if not isinstance(x, Tensor):
            operand = symbol(self, np.asarray(x), False)
            self.arrays[operand._index] = x
        number = -1 - len(self.outside)
        if isinstance(operand, Symbol):
            operand.number = number
        self.outside.append(x)
        self.references[id(x)] = number, operand
        return number, operand

    def array(self, x: Symbol) -> ndarray | None:
        return self.arrays.get(x._index)

    def returned(self, result: Any) -> Any:
        """Complete the key with the result of the step; an array in it is an input too."""
        leaves, pattern = flatten(super().returned(result))
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, (Tensor, ndarray, np.generic)) and getattr(leaf, "number", None) is None:
                leaves[i] = (self.references.get(id(leaf)) or self.add_input(leaf))[1]
        results = tuple([leaf.number if isinstance(leaf, Symbol) else self.references[id(leaf)][0]
                         if isinstance(leaf, Tensor) else (leaf.__class__, repr(leaf)) for leaf in leaves])
        outside = tuple([(x.shape, x.dtype, isinstance(x, Tensor) and x._tracked) for x in self.outside])
        self.key = tuple(self.entries), outside, results, nesting(pattern)
        self.entries = None
        return unflatten(pattern, leaves)


def trace_key(step: Callable, examples: list[ndarray], pattern: Any, tracer: CellTracer) -> CellTracer:
    """Trace one step for its key. examples: an array for each leaf of the step's arguments.

    Raises TraceError if the step reads values, and UnknownShape."""
    args = unflatten(pattern, list(map(tracer.argument, examples)))
    token, on = watcher.set(tracer), recording.set(True)
    try:
        tracer.returned(step(*args))
    finally:
        recording.reset(on)
        watcher.reset(token)
        tracer.over = True
    return tracer


def with_arrays_for_floats(inputs: tuple) -> tuple:
    """Return the inputs with Python floats as arrays of the dtype that NumPy gives them in this operation."""
    if not any(x.__class__ is float for x in inputs):
        return inputs
    others = [x.dtype for x in inputs if hasattr(x, "dtype")]
    dtype = np.result_type(*others, 0.0)
    return tuple([np.asarray(x, dtype) if x.__class__ is float else x for x in inputs])


def without_floats(key: Any) -> Any:
    """Return the key with all floats replaced by one marker."""
    if isinstance(key, tuple):
        return float if len(key) == 2 and key[0] is float else tuple(map(without_floats, key))
    return key


def untracked(key: tuple) -> tuple:
    """Return a trace's key without its flags for tracking."""
    entries, outside, *rest = key
    return [entry[:3] for entry in entries], [x[:2] for x in outside], *rest


def blank(shape: tuple, dtype: Any) -> ndarray:
    """Return an array of this shape that shares the memory of one zero, from a cache."""
    key = shape, dtype
    if key not in BLANKS:
        if len(BLANKS) >= LONGEST:
            BLANKS.clear()
        BLANKS[key] = np.broadcast_to(np.zeros((), dtype), shape)
    return BLANKS[key]


def unknown_metadata(x: Any) -> Any:
    raise TraceError(f"an op has metadata of type {type(x).__name__}, in which scan cannot see changes: pass numbers, "
                     "strings, slices, arrays, or tuples, lists and dicts of these")


def nesting(tree: Any) -> Any:
    """Return the nesting of a pytree as a key, without its leaves."""
    if not isinstance(tree, CONTAINERS):
        return tree is None
    if isinstance(tree, dict):
        return tree.__class__, *[(key, nesting(child)) for key, child in tree.items()]
    return tree.__class__, *[nesting(child) if isinstance(child, CONTAINERS) else child is None for child in tree]
