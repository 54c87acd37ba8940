"""Inspect a cell: find the key of what it computes now, and the tensors that it closes over, from traces of one step.

A cell whose code only computes is traced once, without values. Any other is traced twice with values; changes outside
the cell are undone, and a cell that makes them runs in the eager loop.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import CodeType, FrameType, MethodType
from typing import Any

import numpy as np

from minigrad.engine.anomaly import is_own_frame
from minigrad.engine.messages import name_of
from minigrad.engine.pytree import unflatten
from minigrad.engine.tensor import Tensor
from minigrad.program.effects import BYTES, SHARED, Surroundings, Unrepeatable
from minigrad.program.ir import PLAIN
from minigrad.program.key import CellTracer, UnknownShape, blank, trace_key, without_floats
from minigrad.program.purity import only_computes
from minigrad.program.trace import Trace, TraceError, profiled
from minigrad.timeloop.cache import programs
from minigrad.timeloop.eager import Cell, CellError, code_of


class StepByStep(Exception):
    """The cell cannot be compiled; the message says why."""


# Code of cells that changed nothing in two traces: one trace without values is enough for them
PURE: weakref.WeakSet[CodeType] = weakref.WeakSet()

# Pure code with several programs that differ only in their numbers: the next program takes these numbers as inputs
VARYING: weakref.WeakSet[CodeType] = weakref.WeakSet()

MOST_VARIANTS = 3


def inspect_without_values(cell: Cell, step: Callable, kinds: list, pattern: Any, numbers: bool
                           ) -> CellTracer | None:
    """Trace a pure cell once without values; None where traces with values are needed.

    Pure was only the path through the code that was taken then: a cell may draw noise in training and none in
    evaluation. Unless its code shows that it only computes, watch again what it can change, and compare the arrays
    that it closes over with those of a second trace."""
    around, blanks = Surroundings(BYTES), [blank(*kind) for kind in kinds]

    def inspect() -> CellTracer:
        return trace_key(step, blanks, pattern, CellTracer(values=False, numbers=numbers))

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and not is_own_frame(frame):
            around.note_frame(frame)
    tracer: CellTracer | None
    try:
        if only_computes(cell):
            around.note_surface(cell)
            tracer = inspect()
        else:
            note_cell(around, cell)
            with profiled(profile):
                tracer = inspect()
            weights_only = all(x.__class__ is Tensor and x._tracked for x in tracer.outside)
            if not weights_only and not all(map(same_values, tracer.outside, inspect().outside)):
                tracer = None
    except (TraceError, UnknownShape, Unrepeatable):
        tracer = None
    finally:
        changed = around.restore()
    return tracer if changed is None else None


def trace_twice(cell: Cell, step: Callable, firsts: list, pattern: Any, numbers: bool) -> tuple[Trace, CellTracer]:
    """Trace the cell twice with values, and undo its changes outside. firsts: an array for each leaf of its arguments.

    Raises StepByStep if it changes anything, or if the traces differ."""
    around, changed = Surroundings(), []
    tracer = CellTracer(values=True, numbers=numbers, around=around)
    try:
        try:
            note_cell(around, cell)
            traced = Trace(step, unflatten(pattern, firsts), tracer=tracer)
        except (TypeError, ValueError, ArithmeticError) as problem:
            if isinstance(problem, (TraceError, CellError)) or tracer.entries is not None:
                raise
            # the step itself is right; the eager loop raises this error in the backward, if there is one
            raise StepByStep(f"its backward cannot be derived: {problem}") from None
        finally:
            changed.append(around.restore())
        try:
            second = trace_key(step, firsts, pattern, CellTracer(values=True, numbers=numbers))
        finally:
            changed.append(around.restore())
    except (TraceError, Unrepeatable) as problem:
        raise StepByStep(str(problem)) from None
    # another thread may draw from the generators that all share: a cell that draws does so in both traces
    refuse_change(*(name for name in changed if name not in SHARED or set(changed) == {name}))
    first = traced.tracer
    if first.key != second.key or not all(map(same_values, first.outside, second.outside)):
        traced.close()
        raise StepByStep("it makes new values at every call, as random numbers: pass them in through xs")
    return traced, second


def note_cell(around: Surroundings, cell: Cell) -> None:
    code = code_of(cell)
    around.note_function(cell, name_of(cell), () if code is None else code.co_names)


def refuse_change(*changed: str | None) -> None:
    """Raise StepByStep if a trace changed something outside the cell. changed: a name for each trace, or None."""
    for name in filter(None, changed):
        raise StepByStep(f"it changes {name}, and a loop does that at every step: pass what changes through the state "
                         "or xs")


def note_pure(code: CodeType | None, key: tuple) -> None:
    """Remember that a cell of this code is pure, and whether its programs differ only in their numbers."""
    if code is None:
        return
    PURE.add(code)
    pattern = without_floats(key)
    others = [known for known in programs.keys_of(code) if known != key]
    if sum(without_floats(known) == pattern for known in others) >= MOST_VARIANTS:
        VARYING.add(code)


def key_of_attributes(cell: Cell) -> tuple[tuple, list[Tensor]] | None:
    """Return (key, closed-over tensors) of a method that lists what it reads in `key_attributes`, as minigrad's cells.

    None for any other cell, and if an attribute is neither a tensor nor a plain value."""
    if not isinstance(cell, MethodType) or (names := getattr(cell.__func__, "key_attributes", None)) is None:
        return None
    owner = cell.__self__
    key: list[Any] = [owner.__class__]  # which may override what the method calls
    supply: list[Tensor] = []
    firsts: dict[int, int] = {}
    for name in names:
        x = getattr(owner, name, None)
        if x.__class__ is Tensor:
            array = x._array
            key.append((array.shape, array.dtype, x._tracked, firsts.setdefault(id(x), len(supply))))
            supply.append(x)
        elif x.__class__ in PLAIN:
            key.append((x.__class__, x))
        else:
            return None
    return tuple(key), supply


def same_values(a: Any, b: Any) -> bool:
    """Whether two closed-over inputs are the same: one object, or equal arrays that the cell made."""
    return a is b or (isinstance(a, Tensor) == isinstance(b, Tensor)
                      and np.array_equal(example(a), example(b), equal_nan=example(a).dtype.kind in "fc"))


def example(leaf: Any) -> np.ndarray:
    return leaf._array if isinstance(leaf, Tensor) else np.asarray(leaf)
