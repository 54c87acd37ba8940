"""What a cell computes now: the key of its program and the tensors that it closes over, from traces of one step.

A cell whose code only computes is traced once without values. Any other is traced twice with values; what the traces
change outside the cell is restored, and such a cell runs in the eager loop.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import CodeType, FrameType, MethodType
from typing import Any

import numpy as np

from minigrad.engine.messages import name_of
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.program.effects import BYTES, Surroundings, Unrepeatable
from minigrad.program.key import PLAIN, CellTracer, UnknownShape, blank, glance, without_floats
from minigrad.program.purity import only_computes
from minigrad.program.trace import Trace, TraceError, is_engine, profiled
from minigrad.timeloop.cache import programs
from minigrad.timeloop.eager import Cell, CellError, code_of


class StepByStep(Exception):
    """The cell cannot be compiled; the message says why."""


# Code of cells that changed nothing in two traces: one trace without values is enough for them
PURE: weakref.WeakSet[CodeType] = weakref.WeakSet()

# Of those, the ones that gave several programs which differ in their numbers alone: the next has these as inputs
VARYING: weakref.WeakSet[CodeType] = weakref.WeakSet()

MOST_VARIANTS = 3


def quick_look(cell: Cell, step: Callable, kinds: list, examples: Any, numbers: bool) -> CellTracer | None:
    """One trace without values; None where a more careful look is needed.

    It was seen that the code changes nothing, but only where it went then: a cell in training may draw the noise that
    it leaves out in evaluation. So what it may change is noted again, unless its code shows that it only computes; and
    of what it was given from outside, arrays are compared with those of a second trace."""
    around, blanks = Surroundings(BYTES), [blank(*kind) for kind in kinds]
    try:
        if only_computes(cell):
            around.note_surface(cell)
            tracer = glance(step, blanks, examples, CellTracer(values=False, numbers=numbers))
        else:
            tracer = long_look(cell, step, blanks, examples, numbers, around)
    except (TraceError, UnknownShape, Unrepeatable):
        tracer = None
    finally:
        changed = around.restore()
    return tracer if changed is None else None


def long_look(cell: Cell, step: Callable, blanks: list, examples: Any, numbers: bool, around: Surroundings
              ) -> CellTracer | None:
    """One trace, around which all that it may change is noted; two, where it was given arrays. None if they differ."""
    def look() -> CellTracer:
        return glance(step, blanks, examples, CellTracer(values=False, numbers=numbers))

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and not is_engine(frame):
            around.note_frame(frame)
    note_cell(around, cell)
    with profiled(profile):
        first = look()
    if all(x.__class__ is Tensor and x._tracked for x in first.outside):
        return first
    return first if all(map(same_values, first.outside, look().outside)) else None


def traced_twice(cell: Cell, step: Callable, examples: Any, n: int, numbers: bool = False
                 ) -> tuple[Trace, CellTracer]:
    """Two traces with values. What they change outside the cell is put back.

    Raises StepByStep where they change anything, or differ."""
    leaves, pattern = flatten(examples)
    firsts = [example(leaf) if i < n else np.asarray(example(leaf)[0]) for i, leaf in enumerate(leaves)]
    around, changed = Surroundings(), []
    tracer = CellTracer(values=True, numbers=numbers, around=around)
    try:
        try:
            note_cell(around, cell)
            traced = Trace(step, unflatten(pattern, firsts), tracer=tracer)
        except (TypeError, ValueError, ArithmeticError) as problem:
            if isinstance(problem, (TraceError, CellError)) or tracer.entries is not None:
                raise
            # the step itself is right: who wants its backward gets this error there
            raise StepByStep(f"its backward cannot be derived: {problem}") from None
        finally:
            changed.append(around.restore())
        try:
            second = glance(step, firsts, pattern, CellTracer(values=True, numbers=numbers))
        finally:
            changed.append(around.restore())
    except (TraceError, Unrepeatable) as problem:
        raise StepByStep(str(problem)) from None
    refuse_change(*changed)
    first = traced.tracer
    if first.key != second.key or not all(map(same_values, first.outside, second.outside)):
        traced.close()
        raise StepByStep("it makes new values at every call, as random numbers: pass them in through xs")
    return traced, second


def note_cell(around: Surroundings, cell: Cell) -> None:
    code = code_of(cell)
    around.note_function(cell, name_of(cell), () if code is None else code.co_names)


def refuse_change(*changed: str | None) -> None:
    for name in filter(None, changed):
        raise StepByStep(f"it changes {name}, and a loop does that at every step: pass what changes through the state "
                         "or xs")


def note_code(code: CodeType | None, key: tuple) -> None:
    """Note that a cell of this code was found pure, and whether its programs differ in their numbers alone."""
    if code is None:
        return
    PURE.add(code)
    like_this = without_floats(key)
    others = [known for known in programs.keys_of(code) if known != key]
    if sum(without_floats(known) == like_this for known in others) >= MOST_VARIANTS:
        VARYING.add(code)


def read_by(cell: Cell) -> tuple[tuple, list[Tensor]] | None:
    """For a cell whose function says its `key_attributes` (minigrad's own do): those numbers and shapes as a key, and the tensors. None for any other, and where one of them is something else."""
    if not isinstance(cell, MethodType) or (names := getattr(cell.__func__, "key_attributes", None)) is None:
        return None
    owner = cell.__self__
    words: list[Any] = []
    supply: list[Tensor] = []
    for name in names:
        x = getattr(owner, name, None)
        if x.__class__ is Tensor:
            same = next((i for i, other in enumerate(supply) if other is x), None)
            words.append((x.shape, x.dtype, x._tracked, same))
            supply.append(x)
        elif x.__class__ in PLAIN:
            words.append((x.__class__, x))
        else:
            return None
    return tuple(words), supply


def same_values(a: Any, b: Any) -> bool:
    """Whether two closed-over inputs are the same: one object, or equal arrays that the cell made."""
    return a is b or (isinstance(a, Tensor) == isinstance(b, Tensor)
                      and np.array_equal(example(a), example(b), equal_nan=example(a).dtype.kind in "fc"))


def example(leaf: Any) -> np.ndarray:
    return leaf._array if isinstance(leaf, Tensor) else np.asarray(leaf)
