"""`scan`: a cell over time. Every recurrence of this project is one call of it.

    (state, x[0]) → cell → (state, y[0])    (state, x[1]) → cell → (state, y[1])    …

The cell is traced for one step at each call. What it computes is the key of its derived program, with buffers
(`derive/plan.py`), which is what runs; on the graph the whole scan is one op. A cell that cannot be traced, and a
gradient of a gradient, go through the loop as it is written, op by op, with the same numbers.
"""

from __future__ import annotations

import functools
import linecache
import warnings
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

import numpy as np

from minigrad.engine.arrays import plain
from minigrad.engine.messages import name_of
from minigrad.engine.op import PART, primitive
from minigrad.engine.op import record as on_record
from minigrad.engine.ops import concatenate, expand_dims, where
from minigrad.engine.pytree import flatten, map_leaves, named_leaves, unflatten
from minigrad.engine.tensor import Tensor, no_grad, recording, watcher, wrap
from minigrad.printers.numpy_loop import Options, Plan
from minigrad.program.effects import BYTES, Surroundings, Unrepeatable
from minigrad.program.key import PLAIN, CellTracer, UnknownShape, blank, glance, nesting, untracked, without_floats
from minigrad.program.loops import ChangingCell, Scan, is_tracked, pulled_back
from minigrad.program.purity import only_computes
from minigrad.program.simplify import Program
from minigrad.program.trace import Symbol, Trace, TraceError, Tracer, is_engine, profiled
from minigrad.timeloop.cache import Buffers, Source, pool, programs

Cell = Callable[[Any, Any], tuple[Any, Any]]

# Who keeps what a scan computes (`bptt.record`): called with each run before it starts, returns the run in its place;
# or, for a cell that goes step by step, with the reason.
recorder: ContextVar[Any] = ContextVar("recorder", default=None)


class ScanNotice(UserWarning):
    """Why a scan goes step by step instead of through its derived program. Said once for a cell."""


class CellError(TypeError):
    """A function that is not a cell: it does not return a pair."""


class StepByStep(Exception):
    """A cell has no program; the message says why."""


def scan(cell: Cell, state: Any, xs: Any, *, reverse: bool = False, mask: Any = None,
         checkpoint_every: int | None = None) -> tuple[Any, Any]:
    """Run `cell(state, x) → (state, y)` over the leading axis of xs.

    state and xs, and the y of the cell, are arrays or tensors, or any nesting of tuples, lists and dicts of them; the
    leaves of xs have shape (T, …) with one T ≥ 1. The new state must have the nesting, shapes and dtypes of the old.
    Both reach the cell as tensors. The cell is called once or twice at each call of scan, to see what it computes now;
    the steps run from the program of that, for any T. Tensors and arrays that it closes over are inputs of the program,
    numbers are parts of it. A cell that changes something outside itself (a counter, a list, random numbers) or
    branches on values goes step by step, with a ScanNotice. Idle buffers of all programs take at most
    `minigrad.timeloop.cache.pool.limit` bytes, by default 256 MB (set MINIGRAD_POOL_MB for another bound).

    reverse  from the last step to the first; ys stay in the order of xs
    mask     (T, batch), numbers or booleans; batch is the last axis of every leaf of state and y. Where it is 0 the
             state is carried over unchanged, and y is 0.
    checkpoint_every  k: keep only every k-th state for the backward, which runs the steps between again. Memory for
             the backward falls from T steps to T/k states and k steps, least at k ≈ √T; time grows by one forward.
             Gradients are the same to the bit: for that, k is rounded up to whole blocks of the planned program.

    Returns (final state, ys), ys with leaves (T, …): arrays where no tensor is involved, else tensors. Gradients flow
    to state, xs, and the tensors the cell closes over.
    Inside of `derive` it is printed as two loops, with the same numbers; there checkpoint_every changes nothing.
    Raises ValueError where shapes do not fit, TypeError when the cell returns no pair.
    """
    steps = length(xs)
    if not callable(cell):
        raise CellError(f"scan takes a cell first, a function (state, x) → (state, y), not a {type(cell).__name__}")
    if checkpoint_every is not None and (not isinstance(checkpoint_every, (int, np.integer)) or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every is a number of steps ≥ 1, not {checkpoint_every!r}")
    state, xs = map_leaves(entered, state), map_leaves(entered, xs)
    if mask is not None:
        mask = checked_mask(mask, steps, state)
    if getattr(watcher.get(), "loops", False):
        return within_derive(cell, state, xs, steps, reverse, mask)
    if watcher.get() is not None:
        return loop(cell, state, xs, steps, reverse, mask)
    record = recorder.get()
    try:
        run = prepare(cell, state, xs, mask)
        if record is not None:
            return record(run, cell).on_graph(steps, reverse)
        if checkpoint_every is not None and checkpoint_every < steps and run.compiled.backward:
            with no_grad():
                run = Checkpointed(run, prepare(cell, state, xs, mask).compiled, int(checkpoint_every))
    except StepByStep as problem:
        why = str(problem)
        if record is not None:
            record(why, cell)
    else:
        return run.on_graph(steps, reverse)
    notice(cell, why, stacklevel=3)
    return loop(cell, state, xs, steps, reverse, mask)


def entered(leaf: Any) -> Tensor | np.ndarray:
    """A leaf of state or xs: a tensor as it is, all else as a plain array of native byte order."""
    return leaf if isinstance(leaf, Tensor) else np.asarray(plain(leaf))


def within_derive(cell: Cell, state: Any, xs: Any, steps: int, reverse: bool, mask: Any) -> tuple[Any, Any]:
    """One op, which is printed as a loop; a cell that cannot be traced by itself is written out step by step."""
    def written_out(state: Any, xs: Any) -> tuple[Any, Any]:
        return loop(cell, state, xs, steps, reverse, mask)
    tracer, around = watcher.get(), Surroundings()
    before, tracer.around = tracer.around, around
    try:
        try:
            note_cell(around, cell)
            traced = Scan(cell, functools.partial(one_step, cell), written_out, state, xs, mask, steps, reverse)
        finally:
            changed, tracer.around = around.restore(), before
        refuse_change(changed)
    except (TraceError, ChangingCell, Unrepeatable, StepByStep) as problem:
        why = str(problem)
    else:
        return traced.on_graph()
    results = written_out(state, xs)
    notice(cell, why)
    return results


# -- the loop as it is written ---------------------------------------------------------------------------------


def loop(cell: Cell, state: Any, xs: Any, steps: int, reverse: bool, mask: np.ndarray | None) -> tuple[Any, Any]:
    """Step by step, each op recorded by itself. The cell is given tensors; arrays come out where none came in."""
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
    """One call of the cell, checked, and with its mask."""
    pair = cell(before, x)
    if not isinstance(pair, tuple) or len(pair) != 2:
        what = "one array" if hasattr(pair, "shape") else f"a {type(pair).__name__}"
        what += f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
        raise CellError(f"a cell returns a pair (state, y), not {what}: end it with return state, y")
    state, y = pair
    old, new = ([(tuple(np.shape(leaf)), getattr(leaf, "dtype", None)) for leaf in flatten(tree)[0]]
                for tree in (before, state))
    if old != new:
        raise ValueError(f"the cell was given a state of shapes and dtypes {shown(old)} and returned {shown(new)}: "
                         "they must be the same at every step")
    if mask is not None:
        pairs = zip(flatten(state)[0], flatten(before)[0])
        state = unflatten(state, [where(mask, after, unchanged) for after, unchanged in pairs])
        y = unflatten(y, [where(mask, leaf, 0.0) for leaf in flatten(y)[0]])
    return state, y


def length(xs: Any) -> int:
    """T, the same for every leaf."""
    if isinstance(xs, list):
        raise ValueError(f"xs is a list of {len(xs)}, and scan goes over the leading axis of an array: stack the "
                         "steps, as in np.stack(xs), or pass several arrays over time as a tuple")
    leaves = named_leaves(xs)
    if not leaves:
        raise ValueError("scan needs xs with a time axis: for a cell without input pass np.zeros((T, 0))")
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for _, leaf in leaves}
    if len(lengths) > 1 or min(lengths) < 1:
        said = ", ".join(f"xs{name} {np.shape(leaf)}" for name, leaf in leaves)
        raise ValueError(f"scan goes over the leading axis of xs, of one length T ≥ 1 for all: {said}")
    return lengths.pop()


def checked_mask(mask: Any, steps: int, state: Any) -> Any:
    mask = mask.detach() if isinstance(mask, Tensor) else mask
    mask = mask if isinstance(mask, Symbol) else np.asarray(plain(mask))
    if mask.ndim != 2 or len(mask) != steps:
        raise ValueError(f"mask has shape {mask.shape} and must be (T, batch) = ({steps}, batch)")
    for name, leaf in named_leaves(state):
        if np.shape(leaf)[-1:] != (mask.shape[1],):
            raise ValueError(f"mask has shape {mask.shape} and state{name} {np.shape(leaf)}: the batch must be the "
                             "second axis of the mask and the last of every state")
    return mask if isinstance(mask, Symbol) and mask.dtype == bool else mask != 0  # a copy: the backward reads it


def shown(leaves: list[tuple]) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in leaves)


# -- the derived program ------------------------------------------------------------------------------------------

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

        weakref.finalize(self, end, self.buffers, self.forward.__code__.co_filename).atexit = False


def end(buffers: Source, filename: str) -> None:
    """A program is gone: its idle buffers and its text go too."""
    buffers.close()
    linecache.cache.pop(filename, None)


def given(trace: Trace, x: Tensor) -> Any:
    """An input from outside as the user's code has it: the tensor, or the array behind a symbol."""
    array = trace.tracer.array(x) if isinstance(x, Symbol) else None
    return x if array is None else array


class Run:
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
        whole = on_record(compiled.op, self.inputs, {"run": self}, results, tracked)
        if tracked:
            leaves = [on_record(PART, (whole,), {"i": i}, y, compiled.tracked[i]) for i, y in enumerate(results)]
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


class Checkpointed(Run):
    """A run that keeps only every k-th state, and runs the steps between again in the backward."""

    __slots__ = ("every", "plain", "starts")

    def __init__(self, run: Run, plain: Compiled, every: int):
        for name in ("cell", "compiled", "inputs", "mask", "patterns", "sizes", "supply"):
            setattr(self, name, getattr(run, name))
        self.buffers = None
        block = self.compiled.block  # whole blocks, so that sums over time are the same to the bit
        self.plain, self.every = plain, -(-every // block) * block  # plain keeps nothing

    def segments(self, xs: list) -> list[tuple[int, slice, list]]:
        """(how many steps, which, their xs) for each stretch between two kept states."""
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
    """The rule of a scan on arrays: its derived backward loop."""
    gradients = metadata["run"].backward(g)
    return [np.zeros(x.shape) if d is None and isinstance(x, Tensor) and x._tracked else d
            for x, d in zip(inputs, gradients)]


def second_order(g: tuple, y: Any, inputs: tuple, metadata: dict) -> list:
    """The rule of a scan on tensors, for gradients of gradients: the scan step by step, and the sweep through it."""
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


def check_unchanged(run: Run, state: Any, xs: Any) -> None:
    """Raise RuntimeError where the cell computes something else by now than what the scan has run."""
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


def again(*arrays: np.ndarray, run: Run) -> tuple:
    """The forward of a scan's op, on other arrays."""
    other = Run(run.compiled, run.cell, *run.patterns, run.mask, run.supply)
    other.inputs, other.sizes, other.values = run.inputs, run.sizes, [np.asarray(a) for a in arrays]
    other.steps, other.reverse = run.steps, run.reverse
    return other.forward()


# -- which program fits a call ----------------------------------------------------------------------------------------


def prepare(cell: Cell, state: Any, xs: Any, mask: np.ndarray | None) -> Run:
    """The run of a call, with the program of what the cell computes now. Raises StepByStep."""
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
    return Run(compiled, cell, state, xs, mask, supply)


def note_code(code: CodeType | None, key: tuple) -> None:
    """Note that a cell of this code was found pure, and whether its programs differ in their numbers alone."""
    if code is None:
        return
    PURE.add(code)
    like_this = without_floats(key)
    others = [known for known in programs.keys_of(code) if known != key]
    if sum(without_floats(known) == like_this for known in others) >= MOST_VARIANTS:
        VARYING.add(code)


# The code of cells that two traces found to change nothing: one trace without values is enough for them
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


def same_values(a: Any, b: Any) -> bool:
    """Whether two traces were given the same from outside: one object, or equal arrays that the cell made."""
    return a is b or (isinstance(a, Tensor) == isinstance(b, Tensor)
                      and np.array_equal(example(a), example(b), equal_nan=example(a).dtype.kind in "fc"))


def read_by(cell: Cell) -> tuple[tuple, list[Tensor]] | None:
    """For a cell whose function says what it `reads` of its owner (minigrad's own do): those numbers and shapes as a
    key, and the tensors. None for any other, and where one of them is something else."""
    if not isinstance(cell, MethodType) or (names := getattr(cell.__func__, "reads", None)) is None:
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


def code_of(cell: Any) -> CodeType | None:
    """The code of a function, a method, a partial or an object that can be called."""
    while isinstance(cell, functools.partial):
        cell = cell.func
    if isinstance(cell, MethodType):
        cell = cell.__func__
    if not isinstance(cell, FunctionType):
        cell = getattr(type(cell), "__call__", None)  # noqa: B004
    return cell.__code__ if isinstance(cell, FunctionType) else None


def example(leaf: Any) -> np.ndarray:
    return leaf._array if isinstance(leaf, Tensor) else np.asarray(leaf)


def notice(cell: Cell, why: str, stacklevel: int = 4) -> None:
    """Say once for a cell why it runs step by step."""
    code = code_of(cell)
    known = said.setdefault(code, set()) if code is not None else set()
    if why not in known:
        known.add(why)
        name = name_of(cell, "__qualname__")
        warnings.warn(f"scan runs {name} step by step: {why}", ScanNotice, stacklevel=stacklevel)


said: weakref.WeakKeyDictionary[CodeType, set[str]] = weakref.WeakKeyDictionary()
