"""`scan`: a cell over time. Every recurrence of this project is one call of it.

    (state, x[0]) → cell → (state, y[0])    (state, x[1]) → cell → (state, y[1])    …

Each call traces one step of the cell (cell_key.py), unless what the cell reads shows that the trace is a known one
(purity.py). The trace is the key of its compiled program (compiled.py), which runs as one op on the graph (call.py).
Cells that cannot be traced, and gradients of gradients, run in the eager loop (eager.py), op by op, with the same
numbers.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from copy import copy
from typing import Any

import numpy as np

from minigrad.engine.context import no_grad, watcher
from minigrad.engine.pytree import flatten, unflatten
from minigrad.program.effects import Surroundings, Unrepeatable
from minigrad.program.loops import ChangingCell, Scan
from minigrad.program.trace import TraceError
from minigrad.timeloop.call import ScanCall, leave
from minigrad.timeloop.cell_key import StepByStep, note_cell, refuse_change
from minigrad.timeloop.compiled import Checkpointed, prepare, ran
from minigrad.timeloop.eager import Cell, CellError, ScanNotice, loop, notice, one_step

# Hook of `bptt.record`: receives each ScanCall, runs it and returns its results; for a cell that runs step by step it
# receives the reason instead.
recorder: ContextVar[Any] = ContextVar("recorder", default=None)


def scan(cell: Cell, state: Any, xs: Any, *, reverse: bool = False, mask: Any = None,
         checkpoint_every: int | None = None) -> tuple[Any, Any]:
    """Run `cell(state, x) → (state, y)` over the leading axis of xs.

    state and xs, and the y of the cell, are arrays or tensors, or any nesting of tuples, lists and dicts of them; the
    leaves of xs have shape (T, …) with one T ≥ 1. The new state must have the nesting, shapes and dtypes of the old.
    The cell receives both as tensors. A call of scan traces it at most twice to find its program, which then runs the
    steps, for any T. Tensors and arrays that the cell closes over are inputs of the program; numbers are part of
    it. A cell that changes something outside itself (a counter, a list, random numbers) or branches on values runs
    step by step, with a ScanNotice. Idle buffers of all programs take at most `minigrad.timeloop.cache.pool.limit`
    bytes, by default 256 MB (set MINIGRAD_POOL_MB for another bound).

    reverse  run from the last step to the first; ys stay in the order of xs
    mask     (T, batch), numbers or booleans; batch is the last axis of every leaf of state and y. Where it is 0, the
             state is carried over unchanged, and y is 0.
    checkpoint_every  k: keep only every k-th state; the backward recomputes the steps between. Memory for the backward
             falls from T steps to T/k states and k steps, least at k ≈ √T; time grows by one forward. Gradients are
             the same to the bit, since k is rounded up to whole blocks of the planned program.

    Returns (final state, ys), ys with leaves (T, …): tensors if state, xs or a closed-over value is a tensor, else
    arrays. Gradients flow to state, xs, and the tensors that the cell closes over.
    Inside of `derive`, scan is printed as two loops with the same numbers; checkpoint_every then changes nothing.
    Raises ValueError if shapes do not fit, TypeError if the cell does not return a pair.
    Where there is a C compiler, a program that has run for long enough is compiled (timeloop/compile.py);
    `scan.ran(cell)` lists for the programs of a cell "C", or "NumPy: …" and why.
    """
    if isinstance(xs, list):
        raise ValueError(f"xs is a list of {len(xs)}, but scan runs over the leading axis of an array: stack the "
                         "steps, as in np.stack(xs), or pass several arrays over time as a tuple")
    if not callable(cell):
        raise CellError(f"scan takes a cell first, a function (state, x) → (state, y), not a {type(cell).__name__}")
    if checkpoint_every is not None and (not isinstance(checkpoint_every, (int, np.integer)) or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every is a number of steps ≥ 1, not {checkpoint_every!r}")
    return run_scan(ScanCall(cell, state, xs, reverse, mask), checkpoint_every)


def run_scan(run: ScanCall, checkpoint_every: int | None = None) -> tuple[Any, Any]:
    """Run a call of scan: compiled, or op by op, or as an op of a trace."""
    watching, record = watcher.get(), recorder.get()
    if watching is not None:
        return in_layout(run, traced_scan(run) if getattr(watching, "loops", False) else step_by_step(run))
    try:
        prepare(run)
        if record is not None:
            return record(run, run.cell)
        if checkpoint_every is not None and checkpoint_every < run.steps and run.compiled.backward:
            with no_grad():
                without_backward = prepare(copy(run)).compiled
            run.executor = Checkpointed(run.compiled, without_backward, int(checkpoint_every))
    except StepByStep as problem:
        why = str(problem)
        if record is not None:
            record(why, run.cell)
    else:
        return run.on_graph()
    notice(run.cell, why)
    return in_layout(run, step_by_step(run))


def in_layout(run: ScanCall, results: tuple[Any, Any]) -> tuple[Any, Any]:
    """Results of the cell → in the caller's layout."""
    final, ys = results
    return unflatten(results, leave(run.axes, flatten(final)[0], flatten(ys)[0])) if any(run.axes) else results


def step_by_step(run: ScanCall) -> tuple[Any, Any]:
    return loop(run.cell, *unflatten(run.trees, run.leaves), run.steps, run.reverse, run.mask)


def traced_scan(run: ScanCall) -> tuple[Any, Any]:
    """Record one op, which `derive` prints as a loop; unroll a cell that cannot be traced by itself."""
    def unrolled(state: Any, xs: Any) -> tuple[Any, Any]:
        return loop(cell, state, xs, run.steps, run.reverse, run.mask)
    tracer, around, cell = watcher.get(), Surroundings(), run.cell
    before, tracer.around = tracer.around, around
    state, xs = unflatten(run.trees, run.leaves)
    try:
        try:
            note_cell(around, cell)
            traced = Scan(cell, functools.partial(one_step, cell), unrolled, state, xs, run.mask, run.steps,
                          run.reverse)
        finally:
            tracer.around = before  # first, or a finalizer that runs in `restore` would be noted there
            changed = around.restore()
        refuse_change(changed)
    except (TraceError, ChangingCell, Unrepeatable, StepByStep) as problem:
        why = str(problem)
    else:
        return traced.on_graph()
    results = unrolled(state, xs)
    notice(cell, why, stacklevel=5)
    return results


scan.ran = ran  # type: ignore[attr-defined]

__all__ = ["CellError", "ScanNotice", "StepByStep", "scan"]
