"""The compiled program of a cell, and how it runs: with NumPy's loops or C's, between checkpoints, and to second order.

`prepare` chooses the program of a call by the key of what the cell computes now.
"""

from __future__ import annotations

import linecache
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.context import recording, watcher
from minigrad.engine.messages import name_of
from minigrad.engine.op import VJP, primitive
from minigrad.engine.ops import matmul
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.printers.c_expressions import NotInC
from minigrad.printers.c_loop import CPlan
from minigrad.printers.numpy_loop import Options, Plan
from minigrad.program.ir import Value
from minigrad.program.key import CellTracer, trace_key, untracked
from minigrad.program.loops import pulled_back
from minigrad.program.purity import Surface, only_computes
from minigrad.program.simplify import Program
from minigrad.program.trace import Symbol, Trace, TraceError
from minigrad.timeloop.cache import Allocator, Executor, pool, programs
from minigrad.timeloop.call import ScanCall, leave
from minigrad.timeloop.cell_key import (
    PURE,
    VARYING,
    example,
    inspect_without_values,
    key_of_attributes,
    note_pure,
    same_values,
    trace_twice,
)
from minigrad.timeloop.compile import COST_SECONDS, BreakEven, compiler, loops, threads
from minigrad.timeloop.eager import Cell, code_of, loop, notice, one_step
from minigrad.timeloop.in_c import CProgram, InC

OPTIONS = Options()
# A program is compiled once its NumPy loops have run this long, by an estimate from sizes; 0: at its first call
AFTER_SECONDS = COST_SECONDS
SECONDS_A_STATEMENT, SECONDS_AN_ENTRY, SECONDS_A_PRODUCT = 1.5e-6, 0.5e-9, 2e-11  # of the estimate


class Compiled:
    """The planned program of a cell at its shapes, for any number of steps.

    patterns   (state, xs), nested as the caller's
    supply     all tensors and arrays that the cell closes over
    closed     indices in `supply` of those that the program reads
    inputs_tracked   for each leaf of state and xs, and each of `closed`, whether a gradient flows to it
    forward, backward   the loops over time; backward is None where no gradient is wanted
    results    (state, y), nested as the cell returns them
    block      number of steps that the backward sums at once
    numbers    whether Python floats are inputs too
    key        what the cell computes (program/key.py)
    source     text of the loops
    tracked    for each result whether a gradient flows from it
    allocator  makes the buffers (cache.py); one set belongs to one call, from its forward to its backward
    """

    def __init__(self, trace: Trace, name: str, patterns: tuple[Any, Any], tracked: list[bool], supply: list[Any]):
        program = Program(trace, name)
        self.patterns = map_leaves(lambda _: 0, patterns)
        self.results = map_leaves(lambda _: 0, trace.result)
        places = {id(x): i for i, x in enumerate(supply)}
        self.closed = [places[id(closed_over(trace, x))] for x in trace.closed]
        self.numbers = trace.tracer.numbers
        self.key = untracked(trace.tracer.key)
        on = recording.get()
        self.inputs_tracked = [*tracked, *(on and x._tracked for x in trace.closed)]
        inputs = [*trace.leaves[:len(tracked)], *trace.closed]
        sources = {program.values[x._index] for x, is_tracked in zip(inputs, self.inputs_tracked) if is_tracked}
        plan = Plan(program, sources, OPTIONS)
        self.tracked = plan.results_that_depend(sources)
        self.in_c: CProgram | None = None
        self.why_not_in_c = "it has not run long enough to be worth a compile"
        self.to_compile: tuple | None = program, sources
        self.break_even = BreakEven(AFTER_SECONDS)
        texts = [loop for loop in (plan.forward, plan.backward) if loop is not None]
        self.seconds_a_step = estimate(sum(len(loop.body) for loop in texts), [*plan.values, *plan.needs.steps])
        self.source = plan.source
        functions = plan.compiled()
        self.forward, self.backward = functions["forward"], functions.get("backward")
        self.block = 1 if plan.backward is None else plan.backward.size
        self.allocator = Allocator(functions["make"], functions.get("make_backward"))
        self.allocators = [self.allocator]
        self.op = primitive("scan")
        self.op.variadic, self.op.arrays = True, ("inputs",)
        self.op.vjps = [VJP(0, second_order, first_order, (0,))]
        self.op.forward = again
        self.op.fresh = True
        self.op.analytic = all(value.op.analytic for value in program.forward)

        weakref.finalize(self, drop_program, self.allocators, self.forward.__code__.co_filename).atexit = False

    def executor(self) -> Executor:
        """What runs a call: the C loops once they are compiled, else the NumPy loops."""
        return Planned(self) if self.in_c is None or loops.get() == "numpy" else InC(self.in_c)

    def executor_of_call(self, steps: int, closed: list) -> Executor:
        """Count a call of scan with these weights, and compile the program when it has run long enough."""
        kind = loops.get()
        if self.to_compile is not None and kind != "numpy" and (
                kind == "c" or self.break_even.reached(steps * self.seconds_a_step)):
            self.compile()
        executor = self.executor()
        executor.program.allocator.used_by(closed)
        return executor

    def compile(self) -> None:
        """Print the program as C and compile it, or remember in `why_not_in_c` why not. A thread that comes meanwhile
        waits, so that its run is in C too."""
        with compiler.lock:
            if self.to_compile is not None:
                try:
                    self.print_and_compile(*self.to_compile)
                finally:
                    self.to_compile = None

    def print_and_compile(self, program: Program, sources: set[Value]) -> None:
        if not compiler.enabled():
            self.why_not_in_c = compiler.reason()
            return
        try:
            plan = CPlan(program, sources, threads())
        except NotInC as problem:
            self.why_not_in_c = str(problem)
            return
        except Exception as problem:  # a fault of the printer must not end a run: the NumPy loops are right
            self.why_not_in_c = f"printing it fails: {problem!r}"
            return
        library = compiler.load(plan.source)
        if library is None:
            self.why_not_in_c = compiler.reason(plan.source)
            return
        in_c = CProgram(plan, library, self.block)
        self.allocators.append(in_c.allocator)
        pool.drop(self.allocator)
        self.in_c = in_c


def estimate(statements: int, values: list[Value]) -> float:
    """The seconds that a step of the NumPy loops takes, about."""
    products = sum(math.prod(v.shape) * v.inputs[0].shape[-1] for v in values if v.op is matmul.op)
    return statements * SECONDS_A_STATEMENT + products * SECONDS_A_PRODUCT + \
        sum(math.prod(v.shape) for v in values) * SECONDS_AN_ENTRY


def drop_program(allocators: list[Allocator], filename: str) -> None:
    """Release the idle buffers and the source text of a program that was collected."""
    for allocator in allocators:
        allocator.close()
    linecache.cache.pop(filename, None)


def closed_over(trace: Trace, x: Tensor) -> Any:
    """Return what the cell closed over: the tensor, or the array that the tracer replaced by the symbol x."""
    array = trace.tracer.array(x) if isinstance(x, Symbol) else None
    return x if array is None else array


class Planned(Executor):
    """Run the planned loops of a program."""

    __slots__ = ()

    def forward(self, state: list, xs: list, closed: list) -> tuple:
        steps = len(xs[0])
        self.buffers = pool.take(self.program.allocator, steps)
        return self.program.forward(steps, state, xs, closed, self.buffers.made)

    def segment(self, d_state: tuple, d_ys: list, xs: list, closed: list, sums: tuple | None) -> tuple:
        made_backward = self.buffers.for_backward()
        return self.program.backward(len(xs[0]), d_state, d_ys, xs, closed, sums or (None,) * len(closed),
                                     self.buffers.made, made_backward)


class Checkpointed:
    """Keep only every k-th state; the backward recomputes the steps between them.

    without_backward  the program of the same cell that keeps nothing for a backward
    """

    __slots__ = ("compiled", "every", "starts", "without_backward")

    def __init__(self, compiled: Compiled, without_backward: Compiled, every: int):
        self.compiled, self.without_backward = compiled, without_backward
        # whole blocks, so that sums over time are the same to the bit
        block = compiled.block if compiled.in_c is None else compiled.in_c.block
        self.every = -(-every // block) * block

    def segments(self, xs: list) -> list[tuple[slice, list]]:
        """Return [(slice of time, xs in it)], one for each kept state."""
        bounds = [slice(start, start + self.every) for start in range(0, len(xs[0]), self.every)]
        return [(steps, [x[steps] for x in xs]) for steps in bounds]

    def forward(self, state: list, xs: list, closed: list) -> tuple:
        self.starts, parts = [], []
        for _, x in self.segments(xs):
            self.starts.append(state)
            state, ys = self.without_backward.executor().forward(state, x, closed)
            parts.append(ys)
        return state, [np.concatenate(leaf) for leaf in zip(*parts)]

    def backward(self, d_state: tuple, d_ys: list, xs: list, closed: list) -> tuple:
        d_xs: list[list] = []
        sums = None
        for (steps, x), state in reversed(list(zip(self.segments(xs), self.starts))):
            planned = self.compiled.executor()
            planned.forward(state, x, closed)
            d_state, d_x, sums = planned.segment(d_state, [d[steps] for d in d_ys], x, closed, sums)
            d_xs.insert(0, d_x)
        d_xs = [None if leaf[0] is None else np.concatenate(leaf) for leaf in zip(*d_xs)]
        return d_state, d_xs, planned.gradients(sums, closed)


def first_order(g: tuple, y: Any, inputs: tuple, metadata: dict) -> list:
    """Pull scan back on arrays: run its derived backward loop. g: None for a result without a gradient; y: shapes."""
    gradients = metadata["run"].backward(g, y)
    return [np.zeros(x.shape) if d is None and isinstance(x, Tensor) and x._tracked else d
            for x, d in zip(inputs, gradients)]


def second_order(g: tuple, y: Any, inputs: tuple, metadata: dict) -> list:
    """Pull scan back on tensors, for gradients of gradients: sweep through the eager loop."""
    run = metadata["run"]
    notice(run.cell, "a gradient of its gradient is computed")
    state, xs = unflatten(run.compiled.patterns, list(inputs))

    def results() -> list:
        if watcher.get() is None:
            check_unchanged(run, inputs)
        final, ys = loop(run.cell, state, xs, run.steps, run.reverse, run.mask)
        return list(leave(run.axes, flatten(final)[0], flatten(ys)[0]))
    return pulled_back(results, g, inputs, run.compiled.inputs_tracked)


def check_unchanged(run: ScanCall, inputs: tuple) -> None:
    """Raise RuntimeError if the cell no longer computes what scan ran."""
    attributes = key_of_attributes(run.cell)
    try:
        firsts, pattern = run.first_step(list(map(example, inputs[:sum(run.sizes)])), run.compiled.patterns)
        now = trace_key(step_of(run.cell), firsts, pattern, CellTracer(values=True, numbers=run.compiled.numbers))
    except TraceError:
        unchanged = False
    else:
        outside = now.outside if attributes is None else attributes[1]
        unchanged = (untracked(now.key) == run.compiled.key and len(outside) == len(run.supply)
                     and all(map(same_values, run.supply, outside)))
    if not unchanged:
        raise RuntimeError(f"{name_of(run.cell)} computes something else now than when scan ran it, but a gradient of "
                           "its gradient runs it again: change what it reads after that, or pass it through the state")


def again(*arrays: np.ndarray, run: ScanCall) -> tuple:
    """Run the forward of a scan's op on other arrays."""
    return run.forward(run.compiled.executor(), *run.split([np.asarray(a) for a in arrays]))


def prepare(run: ScanCall) -> ScanCall:
    """Choose the program of what the cell computes now, or make it. Raises StepByStep."""
    cell, n, on = run.cell, run.sizes[0], recording.get()
    tracked = [on and isinstance(leaf, Tensor) and leaf._tracked for leaf in run.leaves]
    arrays = [leaf._array if isinstance(leaf, Tensor) else leaf for leaf in run.leaves]
    kinds = [(x.shape if i < n else x.shape[1:], x.dtype) for i, x in enumerate(arrays)]
    if run.mask is not None:
        kinds.append((run.mask.shape[1:], run.mask.dtype))
    about = run.nesting, tuple(kinds), tuple(tracked), on, OPTIONS
    attributes = key_of_attributes(cell)
    if attributes is not None:
        own_key, supply = attributes
        key: Any = about, cell.__func__, own_key
        compiled = programs.get(key)
    else:
        compiled, supply = known(run, about, kinds)
    if compiled is None:
        step, code = step_of(cell), code_of(cell)
        traced, seen = trace_twice(cell, step, *run.first_step(arrays, run.trees), code in VARYING)
        if attributes is None:
            key, supply = (about, code, seen.key), seen.outside
            note_pure(code, key)
        compiled = programs.get(key)
        if compiled is None:
            inputs = supply if attributes is not None else traced.tracer.outside
            compiled = programs.put(key, Compiled(traced, step.__name__, run.trees, tracked, inputs))
        traced.close()
    run.run_by(compiled, arrays, supply)
    return run


def known(run: ScanCall, about: tuple, kinds: list) -> tuple[Compiled | None, list]:
    """(the program of a pure cell, or None; what the cell closes over), by what it reads, or else by a trace.

    What it reads becomes a shortcut to the program if that decides the trace and contains all that the trace found.
    """
    surface = Surface(cell := run.cell)
    short = (about, *surface.key) if surface.complete else None
    found = short and programs.by_shortcut(short)
    if found:
        return found[0], [surface.tensors[i] for i in found[1]]
    code = code_of(cell)
    if code not in PURE:
        return None, []
    seen = inspect_without_values(cell, step_of(cell), kinds, run.first_step([], run.trees)[1], code in VARYING)
    if seen is None:
        return None, []
    key = about, code, seen.key
    compiled = programs.get(key)
    if compiled is not None and short and only_computes(cell) and {*map(id, seen.outside)} <= {*surface.ids}:
        programs.put_shortcut(short, key, [surface.ids.index(id(x)) for x in seen.outside])
    return compiled, seen.outside


def step_of(cell: Cell) -> Callable:
    """The cell as a function of (state, (x, mask)), under its own name."""
    def step(state: Any, x: Any) -> tuple[Any, Any]:
        return one_step(cell, state, *x)
    step.__name__ = name_of(cell)
    return step


def ran(cell: Cell) -> list[str]:
    """How scan runs the compiled programs of a cell: "C", or "NumPy: …" and why, the most recent program last."""
    code = code_of(cell)
    found = [program for key, program in programs.items() if code in (key[1], code_of(key[1]))]
    return ["C" if program.in_c is not None else f"NumPy: {program.why_not_in_c}" for program in found]
