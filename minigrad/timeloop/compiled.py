"""The compiled program of a cell, and one call of scan that runs it: forward, backward, and checkpoints between them.

`prepare` chooses the program by the key of what the cell computes now.
"""

from __future__ import annotations

import linecache
import weakref
from typing import Any

import numpy as np

from minigrad.engine.messages import name_of
from minigrad.engine.op import PART, primitive, record
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor, recording, watcher, wrap
from minigrad.printers.numpy_loop import Options, Plan
from minigrad.program.key import CellTracer, glance, nesting, untracked
from minigrad.program.loops import is_tracked, pulled_back
from minigrad.program.simplify import Program
from minigrad.program.trace import Symbol, Trace, TraceError
from minigrad.timeloop.cache import Buffers, Source, pool, programs
from minigrad.timeloop.eager import Cell, code_of, loop, notice, one_step
from minigrad.timeloop.looks import (
    PURE,
    VARYING,
    example,
    note_code,
    quick_look,
    read_by,
    same_values,
    traced_twice,
)

OPTIONS = Options()


class Compiled:
    """The planned program of a cell at its shapes, for any number of steps.

    supply    what the cell uses from outside, as each call finds it anew; closed: which of these the program needs
    forward, backward   its loops; backward is None where no gradient is wanted. block: how many steps it sums at once
    numbers   whether Python floats are inputs too;  key: what it computes
    source    their text;  tracked: for each result whether a gradient flows from it
    buffers   what makes its buffers (cache.py); a set belongs to one run, from its forward to its backward
    """

    def __init__(self, trace: Trace, name: str, tracked: list[bool], supply: list[Any]):
        program = Program(trace, name)
        self.state_pattern, self.y_pattern = (unflatten(tree, [0] * len(flatten(tree)[0])) for tree in trace.result)
        numbers = {id(x): i for i, x in enumerate(supply)}
        self.closed = [numbers[id(given(trace, x))] for x in trace.closed]
        self.numbers = trace.tracer.numbers
        self.key = untracked(trace.tracer.key)
        on = recording.get()
        wanted = [s for s, is_tracked in zip(trace.leaves, tracked) if is_tracked]
        wanted += [x for x in trace.closed if x._tracked and on]
        sources = {program.values[x._index] for x in wanted}
        plan = Plan(program, sources, OPTIONS)
        self.tracked = plan.results_that_depend(sources)
        self.source = plan.source
        functions = plan.compiled()
        self.forward, self.backward = functions["forward"], functions.get("backward")
        self.block = 1 if plan.backward is None else plan.backward.size
        self.buffers = Source(functions["make"], functions.get("make_backward"))
        self.op = primitive("scan")
        self.op.variadic, self.op.arrays = True, ("inputs",)
        self.op.pulls = [(0, second_order, first_order, (0,))]
        self.op.forward = again
        self.op.fresh = True
        self.op.analytic = all(value.op.analytic for value in program.forward)

        weakref.finalize(self, drop_program, self.buffers, self.forward.__code__.co_filename).atexit = False


def drop_program(buffers: Source, filename: str) -> None:
    """Release the idle buffers and the source text of a program that was collected."""
    buffers.close()
    linecache.cache.pop(filename, None)


def given(trace: Trace, x: Tensor) -> Any:
    """Return a closed-over input as the user's code has it: the tensor, or the array behind a symbol."""
    array = trace.tracer.array(x) if isinstance(x, Symbol) else None
    return x if array is None else array


class ScanCall:
    """One call of scan: its inputs, and from the forward to the backward its buffers.

    supply  what the cell uses from outside;  inputs: leaves of state and xs, and what the program needs of supply
    """

    __slots__ = ("buffers", "cell", "compiled", "inputs", "mask", "patterns", "reverse", "sizes", "steps", "supply",
                 "tracked", "values")

    def __init__(self, compiled: Compiled, cell: Cell, state: Any, xs: Any, mask: Any, supply: list):
        self.compiled, self.cell, self.mask, self.supply = compiled, cell, mask, supply
        state_leaves, x_leaves = flatten(state)[0], flatten(xs)[0]
        closed = [supply[i] for i in compiled.closed]
        compiled.buffers.used_by(closed)
        self.inputs = (*state_leaves, *x_leaves, *closed)
        self.sizes = len(state_leaves), len(x_leaves)
        self.patterns = state, xs
        self.buffers: Buffers | None = None

    def on_graph(self, steps: int, reverse: bool) -> tuple[Any, Any]:
        """Run, and record the whole as one op."""
        self.steps, self.reverse = steps, reverse
        compiled = self.compiled
        self.values = [x._array if isinstance(x, Tensor) else np.asarray(x) for x in self.inputs]
        self.tracked = list(map(is_tracked, self.inputs))  # now: a pull untracks its own tensors again
        results = self.forward()
        tracked = compiled.backward is not None
        whole = record(compiled.op, self.inputs, {"run": self}, results, tracked)
        if tracked:
            leaves = [record(PART, (whole,), {"i": i}, y, compiled.tracked[i]) for i, y in enumerate(results)]
        else:
            self.release()
            leaves = list(results)
            if any(isinstance(x, Tensor) for x in self.inputs):
                leaves = [wrap(y) for y in leaves]
        n = self.sizes[0]
        return unflatten(compiled.state_pattern, leaves[:n]), unflatten(compiled.y_pattern, leaves[n:])

    def split(self, values: list) -> tuple[list, list, list]:
        """Values of all inputs → those of the states, of xs with the mask as they are run through, of weights."""
        n, m = self.sizes
        xs = [*values[n:n + m], *([] if self.mask is None else [self.mask])]
        return values[:n], [x[::-1] for x in xs] if self.reverse else xs, values[n + m:]

    def forward(self) -> tuple:
        """The final states and the ys."""
        final, ys = self.forward_steps(*self.split(self.values))
        return (*final, *(np.ascontiguousarray(y[::-1]) if self.reverse else y for y in ys))

    def backward(self, gradients: tuple) -> list:
        """dL/d(each input), None where the program has none."""
        n, m = self.sizes
        _, xs, closed = self.split(self.values)
        d_ys = [d[::-1] if self.reverse else d for d in gradients[n:]]
        d_state, d_xs, d_closed = self.backward_steps(gradients[:n], d_ys, xs, closed)
        d_xs = [d if d is None or not self.reverse else d[::-1] for d in d_xs[:m]]
        return [*d_state, *d_xs, *d_closed]

    def forward_steps(self, state: list, xs: list, closed: list) -> tuple:
        self.buffers = pool.take(self.compiled.buffers, self.steps)
        return self.compiled.forward(self.steps, state, xs, closed, self.buffers.made)

    def backward_steps(self, d_state: tuple, d_ys: list, xs: list, closed: list) -> tuple:
        made_backward = self.buffers.for_backward()
        return self.compiled.backward(self.steps, d_state, d_ys, xs, closed, (None,) * len(closed), self.buffers.made,
                                      made_backward)

    def release(self) -> None:
        if self.buffers is not None:
            pool.give(self.buffers)
            self.buffers = None

    __del__ = release


class Checkpointed(ScanCall):
    """A call that keeps only every k-th state; the backward recomputes the steps between them."""

    __slots__ = ("every", "plain", "starts")

    def __init__(self, run: ScanCall, plain: Compiled, every: int):
        for name in ("cell", "compiled", "inputs", "mask", "patterns", "sizes", "supply"):
            setattr(self, name, getattr(run, name))
        self.buffers = None
        block = self.compiled.block  # whole blocks, so that sums over time are the same to the bit
        self.plain, self.every = plain, -(-every // block) * block  # plain keeps nothing

    def segments(self, xs: list) -> list[tuple[int, slice, list]]:
        """Return (number of steps, slice of time, xs) for each segment between two kept states."""
        bounds = [slice(start, min(start + self.every, self.steps)) for start in range(0, self.steps, self.every)]
        return [(steps.stop - steps.start, steps, [x[steps] for x in xs]) for steps in bounds]

    def forward_steps(self, state: list, xs: list, closed: list) -> tuple:
        self.starts, parts = [], []
        for steps, _, x in self.segments(xs):
            self.starts.append(state)
            buffers = pool.take(self.plain.buffers, steps)
            state, ys = self.plain.forward(steps, state, x, closed, buffers.made)
            pool.give(buffers)
            parts.append(ys)
        return state, [np.concatenate(leaf) for leaf in zip(*parts)]

    def backward_steps(self, d_state: tuple, d_ys: list, xs: list, closed: list) -> tuple:
        d_xs: list[list] = []
        d_closed = (None,) * len(closed)
        for (steps, which, x), state in reversed(list(zip(self.segments(xs), self.starts))):
            buffers = pool.take(self.compiled.buffers, steps)
            self.compiled.forward(steps, state, x, closed, buffers.made)
            d_state, d_x, d_closed = self.compiled.backward(
                steps, d_state, [d[which] for d in d_ys], x, closed, d_closed, buffers.made, buffers.for_backward())
            pool.give(buffers)
            d_xs.insert(0, d_x)
        return d_state, [None if leaf[0] is None else np.concatenate(leaf) for leaf in zip(*d_xs)], d_closed


def first_order(g: tuple, y: Any, inputs: tuple, metadata: dict) -> list:
    """Apply the rule of scan to arrays: run its derived backward loop."""
    gradients = metadata["run"].backward(g)
    return [np.zeros(x.shape) if d is None and isinstance(x, Tensor) and x._tracked else d
            for x, d in zip(inputs, gradients)]


def second_order(g: tuple, y: Any, inputs: tuple, metadata: dict) -> list:
    """Apply the rule of scan to tensors, for gradients of gradients: sweep through the eager loop."""
    run = metadata["run"]
    notice(run.cell, "a gradient of its gradient was asked for")
    n, m = run.sizes
    state, xs = unflatten(run.patterns[0], list(inputs[:n])), unflatten(run.patterns[1], list(inputs[n:n + m]))

    def results() -> list:
        if watcher.get() is None:
            check_unchanged(run, state, xs)
        final, ys = loop(run.cell, state, xs, run.steps, run.reverse, run.mask)
        return flatten(final)[0] + flatten(ys)[0]
    return pulled_back(results, g, inputs, run.tracked)


def check_unchanged(run: ScanCall, state: Any, xs: Any) -> None:
    """Raise RuntimeError if the cell now computes something else than scan ran."""
    leaves, pattern = flatten((state, (xs, run.mask)))
    firsts = [example(leaf) if i < run.sizes[0] else example(leaf)[0] for i, leaf in enumerate(leaves)]
    flags = read_by(run.cell)
    try:
        now = glance(lambda state, x: one_step(run.cell, state, *x), list(map(np.asarray, firsts)), pattern,
                     CellTracer(values=True, numbers=run.compiled.numbers))
    except TraceError:
        unchanged = False
    else:
        outside = now.outside if flags is None else flags[1]
        unchanged = (untracked(now.key) == run.compiled.key and len(outside) == len(run.supply)
                     and all(map(same_values, run.supply, outside)))
    if not unchanged:
        raise RuntimeError(f"{name_of(run.cell)} computes something else now than when scan ran it, and a gradient of "
                           "its gradient runs it again: change what it reads after that, or pass it through the state")


def again(*arrays: np.ndarray, run: ScanCall) -> tuple:
    """Run the forward of a scan's op on other arrays."""
    other = ScanCall(run.compiled, run.cell, *run.patterns, run.mask, run.supply)
    other.inputs, other.sizes, other.values = run.inputs, run.sizes, [np.asarray(a) for a in arrays]
    other.steps, other.reverse = run.steps, run.reverse
    return other.forward()


def prepare(cell: Cell, state: Any, xs: Any, mask: np.ndarray | None) -> ScanCall:
    """Return the ScanCall with the program of what the cell computes now. Raises StepByStep."""
    starts, on = flatten(state)[0], recording.get()
    leaves, n = (*starts, *flatten(xs)[0]), len(starts)
    tracked = [on and isinstance(leaf, Tensor) and leaf._tracked for leaf in leaves]
    kinds = [(leaf.shape if i < n else leaf.shape[1:], leaf.dtype) for i, leaf in enumerate(map(example, leaves))]
    if mask is not None:
        kinds.append((mask.shape[1:], mask.dtype))
    about = tuple(kinds), tuple(tracked), mask is None, on, OPTIONS

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        return one_step(cell, state, *x)
    step.__name__ = name_of(cell)
    examples = (state, (xs, mask))
    flags, code = read_by(cell), code_of(cell)
    key: Any = None
    if flags is not None:
        words, supply = flags
        key = about, cell.__func__, words, nesting(state), nesting(xs)
    elif code in PURE:
        seen = quick_look(cell, step, kinds, examples, code in VARYING)
        if seen is not None:
            key, supply = (about, code, seen.key), seen.outside
    compiled = None if key is None else programs.get(key)
    if compiled is None:
        traced, seen = traced_twice(cell, step, examples, n, code in VARYING)
        if flags is None:
            key, supply = (about, code, seen.key), seen.outside
            note_code(code, key)
        compiled = programs.get(key)
        if compiled is None:
            inputs = supply if flags is not None else traced.tracer.outside
            compiled = programs.put(key, Compiled(traced, step.__name__, tracked, inputs))
        traced.close()
    return ScanCall(compiled, cell, state, xs, mask, supply)
