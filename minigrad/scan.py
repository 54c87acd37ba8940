"""`scan`: a cell over time. Every recurrence of this project is one call of it.

    (state, x[0]) → cell → (state, y[0])    (state, x[1]) → cell → (state, y[1])    …

The cell is traced once for its shapes; its derived program, with buffers, is what runs (`derive/plan.py`), and on the
graph the whole scan is one op. A cell that cannot be traced, and a gradient of a gradient, go through the loop as it
is written, op by op, with the same numbers.
"""

from __future__ import annotations

import functools
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from minigrad import tensor as engine
from minigrad.anomaly import fingerprint
from minigrad.derive.loops import Scan, is_tracked, pulled_back
from minigrad.derive.plan import Options, Plan
from minigrad.derive.simplify import Program
from minigrad.derive.trace import Symbol, Trace
from minigrad.ops import concatenate, expand_dims, where
from minigrad.tensor import PART, Op, Tensor, no_grad, primitive, recording, watcher
from minigrad.tree import flatten, named_leaves, unflatten

Cell = Callable[[Any, Any], tuple[Any, Any]]

# Who keeps what a scan computes (`bptt.record`): called with each run before it starts, gives the run in its place.
recorder: ContextVar[Any] = ContextVar("recorder", default=None)


class ScanNotice(UserWarning):
    """Why a scan goes step by step instead of through its derived program. Said once for a cell."""


class CellError(TypeError):
    """A cell that is none: it returns no pair."""


def scan(cell: Cell, state: Any, xs: Any, *, reverse: bool = False, mask: Any = None,
         checkpoint_every: int | None = None) -> tuple[Any, Any]:
    """Run `cell(state, x) → (state, y)` over the leading axis of xs.

    state and xs, and the y of the cell, are arrays or tensors, or any nesting of tuples, lists and dicts of them; the
    leaves of xs have shape (T, …) with one T ≥ 1. The new state must have the nesting, shapes and dtypes of the old.
    The cell must be a pure function of its arguments and of what it closes over: it is traced once, and runs from the
    derived program until something that it sees changes (code, numbers, flags, tensors put in another's place; not the
    contents of closed-over arrays beyond 1 MB and of containers beyond 1 000 items: pass such things in through xs).

    reverse  from the last step to the first; ys stay in the order of xs
    mask     (T, batch), numbers or booleans; batch is the last axis of every leaf of state and y. Where it is 0 the
             state is carried over unchanged, and y is 0.
    checkpoint_every  k: keep only every k-th state for the backward, which runs the steps between again. Memory for
             the backward falls from T steps to T/k states and k steps, least at k ≈ √T; time grows by one forward.
             Gradients are the same to the bit: for that, k is rounded up to whole blocks of the planned program.

    Returns (final state, ys), ys with leaves (T, …). Gradients flow to state, xs, and the tensors the cell closes over.
    Inside of `derive` it is printed as two loops, with the same numbers; there checkpoint_every changes nothing.
    Raises ValueError where shapes do not fit, TypeError when the cell returns no pair.
    """
    steps = length(xs)
    if checkpoint_every is not None and (not isinstance(checkpoint_every, (int, np.integer)) or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every is a number of steps ≥ 1, not {checkpoint_every!r}")
    state = unflatten(state, [leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for leaf in flatten(state)[0]])
    if mask is not None:
        mask = checked_mask(mask, steps, state)
    if watcher.get() is None:
        run, record = prepare(cell, state, xs, mask), recorder.get()
        if record is not None:
            run, checkpoint_every = record(run, cell, state, xs, mask), None
        if run is not None:
            if checkpoint_every is not None and checkpoint_every < steps and run.compiled.functions["backward"]:
                with no_grad():
                    run = Checkpointed(run, prepare(cell, state, xs, mask).compiled, int(checkpoint_every))
            return run.on_graph(steps, reverse)
    if getattr(watcher.get(), "loops", False):
        return within_derive(cell, state, xs, steps, reverse, mask)
    return loop(cell, state, xs, steps, reverse, mask)


def within_derive(cell: Cell, state: Any, xs: Any, steps: int, reverse: bool, mask: Any) -> tuple[Any, Any]:
    """One op, which is printed as a loop; a cell that cannot be traced by itself is written out step by step."""
    def written_out(state: Any, xs: Any) -> tuple[Any, Any]:
        return loop(cell, state, xs, steps, reverse, mask)
    try:
        traced = Scan(cell, functools.partial(one_step, cell), written_out, state, xs, mask, steps, reverse)
    except TypeError as problem:  # a TraceError, a cell that changes, or Python's own for what a symbol cannot do
        why = str(problem)
    else:
        return traced.on_graph()
    results = written_out(state, xs)
    notice(cell, why, stacklevel=4)
    return results


# -- the loop as it is written ---------------------------------------------------------------------------------


def loop(cell: Cell, state: Any, xs: Any, steps: int, reverse: bool, mask: np.ndarray | None) -> tuple[Any, Any]:
    """Step by step, each op recorded by itself."""
    x_leaves, x_pattern = flatten(xs)
    outputs: list[list[Any]] = []
    pattern = None
    for t in reversed(range(steps)) if reverse else range(steps):
        x = unflatten(x_pattern, [leaf[t] for leaf in x_leaves])
        state, pattern = one_step(cell, state, x, None if mask is None else mask[t])
        outputs.append(flatten(pattern)[0])
    if reverse:
        outputs.reverse()
    ys = [concatenate([expand_dims(y, 0) for y in leaf], axis=0) for leaf in zip(*outputs)]
    return state, unflatten(pattern, ys)


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
    mask = mask if isinstance(mask, Symbol) else np.asarray(mask)
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

PROGRAMS: OrderedDict[tuple, Compiled | None] = OrderedDict()  # by everything that a trace depends on
MOST_PROGRAMS = 256
MOST_BUFFERS = 8  # sets kept for one program
OPTIONS = Options()


class Compiled:
    """The planned program of a cell at its shapes, with a pool of buffers.

    Buffers belong to one run: it takes a set from the pool, and gives it back when its backward is done or its graph
    is dropped. list.append and list.pop are atomic, so threads may share a program.
    """

    def __init__(self, cell: Cell, state: Any, x: Any, mask: Any, wanted: Callable[[Trace], list], paths: dict):
        def step(state, x):
            return one_step(cell, state, x[0], x[1])
        step.__name__ = getattr(cell, "__name__", type(cell).__name__)
        trace = Trace(step, (state, (x, mask)))
        self.program = Program(trace, step.__name__)
        self.state_pattern, self.y_pattern = (self.pattern(tree) for tree in trace.result)
        by_identity = {id(x): path for path, x in paths.items()}
        self.closed = [by_identity.get(id(x)) for x in trace.closed]
        sources = {self.program.values[x._index] for x in wanted(trace)}
        self.plan = Plan(self.program, sources, OPTIONS)
        self.tracked = self.plan.results_that_depend(sources)
        functions = self.plan.compiled()
        self.functions = {name: functions.get(name) for name in ("make", "forward", "make_backward", "backward")}
        self.pool: dict[int, list] = {}  # by T: [made, made_backward] of earlier runs
        self.op = primitive("scan")
        self.op.variadic, self.op.arrays = True, ("inputs",)
        self.op.pulls = [(0, second_order, first_order, (0,))]
        self.op.forward = again
        self.op.fresh = True
        self.op.analytic = all(value.op.analytic for value in self.program.forward)

    @staticmethod
    def pattern(tree: Any) -> Any:
        """The nesting alone."""
        return unflatten(tree, [0] * len(flatten(tree)[0]))

    def same_as(self, other: Compiled) -> bool:
        """Whether a second trace wrote the same: if not, the cell makes new values (random numbers) at every call."""
        ours, theirs = self.plan.constants, other.plan.constants
        return self.plan.source == other.plan.source and ours.keys() == theirs.keys() and \
            all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)

    def take(self, steps: int) -> list:
        """A set of buffers for so many steps; those of the backward, which look into the others, come when needed."""
        try:
            return self.pool[steps].pop()
        except (KeyError, IndexError):
            return [self.functions["make"](steps), None]

    def backward(self, steps: int, d_state: tuple, d_ys: list, xs: list, closed: list, sums: tuple,
                 buffers: list) -> tuple:
        """The backward loop after a forward in these buffers; sums: what later steps have added up for the weights."""
        if buffers[1] is None:
            buffers[1] = self.functions["make_backward"](steps, buffers[0])
        return self.functions["backward"](steps, d_state, d_ys, xs, closed, sums, *buffers)

    def give(self, steps: int, buffers: list) -> None:
        sets = self.pool.setdefault(steps, [])
        if len(sets) < MOST_BUFFERS:
            sets.append(buffers)
        while len(self.pool) > MOST_BUFFERS:
            self.pool.pop(next(iter(self.pool)), None)


class Run:
    """One call of scan: its inputs, and from the forward to the backward its buffers."""

    __slots__ = ("buffers", "cell", "compiled", "inputs", "mask", "patterns", "reverse", "sizes", "steps", "tracked",
                 "values")

    def __init__(self, compiled: Compiled, cell: Cell, state: Any, xs: Any, mask: Any, closed: list):
        self.compiled, self.cell, self.mask = compiled, cell, mask
        state_leaves, x_leaves = flatten(state)[0], flatten(xs)[0]
        self.inputs = (*state_leaves, *x_leaves, *closed)
        self.sizes = len(state_leaves), len(x_leaves)
        self.patterns = state, xs
        self.buffers = None

    def on_graph(self, steps: int, reverse: bool) -> tuple[Any, Any]:
        """Run, and record the whole as one op."""
        self.steps, self.reverse = steps, reverse
        compiled = self.compiled
        self.values = [x._data if isinstance(x, Tensor) else np.asarray(x) for x in self.inputs]
        self.tracked = list(map(is_tracked, self.inputs))  # now: a pull untracks its own tensors again
        results = self.forward()
        tracked = compiled.functions["backward"] is not None
        whole = engine.record(compiled.op, self.inputs, {"run": self}, results, tracked)
        if tracked:
            leaves = [engine.record(PART, (whole,), {"i": i}, y, compiled.tracked[i]) for i, y in enumerate(results)]
        else:
            self.release()
            leaves = list(results)
            if any(isinstance(x, Tensor) for x in self.inputs):
                leaves = [engine.wrap(y) for y in leaves]
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
        self.buffers = self.compiled.take(self.steps)
        return self.compiled.functions["forward"](self.steps, state, xs, closed, self.buffers[0])

    def backward_steps(self, d_state: tuple, d_ys: list, xs: list, closed: list) -> tuple:
        return self.compiled.backward(self.steps, d_state, d_ys, xs, closed, (None,) * len(closed), self.buffers)

    def release(self) -> None:
        if self.buffers is not None:
            self.compiled.give(self.steps, self.buffers)
            self.buffers = None

    __del__ = release


class Checkpointed(Run):
    """A run that keeps only every k-th state, and runs the steps between again in the backward."""

    __slots__ = ("every", "plain", "starts")

    def __init__(self, run: Run, plain: Compiled, every: int):
        for name in ("cell", "compiled", "inputs", "mask", "patterns", "sizes"):
            setattr(self, name, getattr(run, name))
        self.buffers = None
        block = self.compiled.plan.backward.size  # whole blocks, so that sums over time are the same to the bit
        self.plain, self.every = plain, -(-every // block) * block  # plain keeps nothing

    def segments(self, xs: list) -> list[tuple[int, slice, list]]:
        """(how many steps, which, their xs) for each stretch between two kept states."""
        bounds = [slice(start, min(start + self.every, self.steps)) for start in range(0, self.steps, self.every)]
        return [(steps.stop - steps.start, steps, [x[steps] for x in xs]) for steps in bounds]

    def forward_steps(self, state: list, xs: list, closed: list) -> tuple:
        self.starts, parts = [], []
        for steps, _, x in self.segments(xs):
            self.starts.append(state)
            buffers = self.plain.take(steps)
            state, ys = self.plain.functions["forward"](steps, state, x, closed, buffers[0])
            self.plain.give(steps, buffers)
            parts.append(ys)
        return state, [np.concatenate(leaf) for leaf in zip(*parts)]

    def backward_steps(self, d_state: tuple, d_ys: list, xs: list, closed: list) -> tuple:
        d_xs: list[list] = []
        d_closed = (None,) * len(closed)
        for (steps, which, x), state in reversed(list(zip(self.segments(xs), self.starts))):
            buffers = self.compiled.take(steps)
            self.compiled.functions["forward"](steps, state, x, closed, buffers[0])
            d_state, d_x, d_closed = self.compiled.backward(
                steps, d_state, [d[which] for d in d_ys], x, closed, d_closed, buffers)
            self.compiled.give(steps, buffers)
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
        final, ys = loop(run.cell, state, xs, run.steps, run.reverse, run.mask)
        return flatten(final)[0] + flatten(ys)[0]
    return pulled_back(results, g, inputs, run.tracked)


def again(*arrays: np.ndarray, run: Run) -> tuple:
    """The forward of a scan's op, on other arrays."""
    other = Run(run.compiled, run.cell, *run.patterns, run.mask, [])
    other.inputs, other.sizes, other.values = run.inputs, run.sizes, [np.asarray(a) for a in arrays]
    other.steps, other.reverse = run.steps, run.reverse
    return other.forward()


def notice(cell: Cell, why: str, stacklevel: int = 5) -> None:
    """Say once for a cell why it runs step by step."""
    key = getattr(cell, "__code__", None) or getattr(getattr(cell, "__func__", None), "__code__", None) or type(cell)
    if (key, why) not in said:
        said.add((key, why))
        name = getattr(cell, "__qualname__", type(cell).__name__)
        warnings.warn(f"scan runs {name} step by step: {why}", ScanNotice, stacklevel=stacklevel)


said: set[tuple] = set()


# -- which program fits a call ----------------------------------------------------------------------------------------


def prepare(cell: Cell, state: Any, xs: Any, mask: np.ndarray | None) -> Run | None:
    """The run of a call: with a program that was compiled before, if nothing it depends on has changed."""
    around: list[tuple] = []
    paths: dict[str, Tensor] = {}
    look(cell, "", around, paths, set(), 0)
    inputs = named_leaves((state, xs))
    on = recording.get()
    about = [(name, leaf.shape, leaf.dtype, on and leaf._tracked) if isinstance(leaf, Tensor) else
             (name, np.shape(leaf), np.asarray(leaf).dtype, False) for name, leaf in inputs]
    key = (tuple(about), None if mask is None else mask.shape[1:], on, tuple(around), OPTIONS)
    if key not in PROGRAMS:
        while len(PROGRAMS) >= MOST_PROGRAMS:
            PROGRAMS.popitem(last=False)
        PROGRAMS[key] = compiled_or_none(cell, state, xs, mask, paths)
    compiled = PROGRAMS[key]
    return None if compiled is None else Run(compiled, cell, state, xs, mask, [paths[path] for path in compiled.closed])


def compiled_or_none(cell: Cell, state: Any, xs: Any, mask: np.ndarray | None, paths: dict) -> Compiled | None:
    """The program of a cell, or None and a notice where it has to go step by step."""
    x_leaves, x_pattern = flatten(xs)
    x = unflatten(x_pattern, [np.asarray(example(leaf)[0]) for leaf in x_leaves])
    given = unflatten(state, [example(leaf) for leaf in flatten(state)[0]])
    leaves = (*flatten(state)[0], *x_leaves)
    tracked = [recording.get() and isinstance(leaf, Tensor) and leaf._tracked for leaf in leaves]
    first_mask = None if mask is None else mask[0]

    def wanted(trace: Trace) -> list:
        inputs = [s for s, wants in zip(trace.leaves, tracked) if wants]
        return inputs + [x for x in trace.closed if x._tracked and recording.get()]
    try:
        compiled, second = (Compiled(cell, given, x, first_mask, wanted, paths) for _ in range(2))
    except CellError:
        raise
    except TypeError as problem:  # a TraceError, or Python's own for what a symbol cannot do
        return notice(cell, str(problem))
    if None in compiled.closed:
        return notice(cell, "it uses a tensor that is not found in what it closes over")
    if not compiled.same_as(second):
        return notice(cell, "it makes new values at every call, as random numbers: pass them in through xs")
    return compiled


def example(leaf: Any) -> np.ndarray:
    return leaf._data if isinstance(leaf, Tensor) else np.asarray(leaf)


SIMPLE = (int, float, complex, str, bool, bytes, type(None), np.dtype, np.generic, types.CodeType)
PLAIN = frozenset({int, float, str, bool, type(None), types.CodeType})  # the most of what one meets
DEEPEST = 8  # and these: what lies beyond (data sets, say) counts as the same as long as it is the same object
LONGEST = 1000  # items of a container
LARGEST = 1 << 20  # bytes of an array


class Same:
    """A thing as a part of a key: equal to itself alone. It is kept alive, so that no other can take its id."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any):
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        mine = self.thing
        return isinstance(other, Same) and (other.thing is mine or (isinstance(mine, SIMPLE) and other.thing == mine))

    def __hash__(self) -> int:
        return hash(self.thing) if isinstance(self.thing, SIMPLE) else id(self.thing)


def look(thing: Any, path: str, around: list[tuple], paths: dict[str, Tensor], seen: set[int], depth: int) -> None:
    """Write down all that a cell can see and a trace depends on: its code, the values and tensors that it closes over.

    Tensors count by place, shape and dtype, so that models of one kind share a program; other values by value, and what
    cannot be compared by identity.
    """
    if thing.__class__ in PLAIN:
        around.append((path, thing.__class__, thing))
    elif isinstance(thing, Tensor):
        same = next((other for other, x in paths.items() if x is thing), None)  # two weights may be one
        paths[path] = thing
        around.append((path, thing.shape, thing.dtype, thing._tracked, same))
    elif isinstance(thing, SIMPLE):
        around.append((path, type(thing), thing))
    elif isinstance(thing, (set, frozenset)):
        around.append((path, frozenset(map(Same, thing))))
    elif isinstance(thing, np.ndarray):
        small = thing.nbytes <= LARGEST and thing.dtype.kind in "biufc"
        around.append((path, Same(thing), fingerprint(thing) if small else None))
    elif id(thing) in seen or depth > DEEPEST or (isinstance(thing, (list, tuple, dict)) and len(thing) > LONGEST):
        around.append((path, Same(thing)))
    else:
        seen.add(id(thing))
        children = list(inside(thing))
        around.append((path, type(thing), len(children)) if children else (path, Same(thing)))
        for name, child in children:
            look(child, f"{path}.{name}", around, paths, seen, depth + 1)


HIDDEN = {"__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__"}


def inside(thing: Any) -> Iterator[tuple[str, Any]]:
    """What a function, an object or a container holds."""
    if isinstance(thing, types.MethodType):
        yield "self", thing.__self__
        yield "function", thing.__func__
    elif isinstance(thing, types.FunctionType):
        code = thing.__code__
        yield "code", code
        yield from (thing.__kwdefaults__ or {}).items()
        if not thing.__module__.startswith("minigrad."):
            for name, variable in zip(code.co_freevars, thing.__closure__ or ()):
                try:
                    yield name, variable.cell_contents
                except ValueError:  # not assigned yet
                    yield name, None
            for name in code.co_names:
                if name in thing.__globals__ and not isinstance(thing.__globals__[name], (types.ModuleType, type)):
                    yield name, thing.__globals__[name]
        yield from ((f"default{i}", value) for i, value in enumerate(thing.__defaults__ or ()))
    elif isinstance(thing, functools.partial):
        yield from (("function", thing.func), ("arguments", thing.args), ("keywords", thing.keywords))
    elif isinstance(thing, dict):
        yield from ((str(key), value) for key, value in thing.items())
    elif isinstance(thing, (tuple, list)):
        yield from ((str(i), value) for i, value in enumerate(thing))
    elif not isinstance(thing, (type, types.ModuleType, types.BuiltinFunctionType, Op, np.random.Generator)):
        yield from getattr(thing, "__dict__", {}).items()
        for kind in type(thing).__mro__:
            if kind is not object and not kind.__module__.startswith("minigrad."):  # ours hold nothing of their own
                for name in (kind.__dict__.get("__slots__") or ()):
                    yield name, getattr(thing, name, None)
                for name, value in vars(kind).items():
                    if isinstance(value, (types.FunctionType, Tensor, np.ndarray, *SIMPLE)) and name not in HIDDEN:
                        yield f"class.{name}", value


