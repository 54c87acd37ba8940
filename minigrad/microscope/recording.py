"""`record`: keep every named value of the scans that run inside, and its gradient.

Inside `record`, scan runs the derived program of the cell value by value (cell_program.py) instead of its planned
loops, and keeps the values. Parts of the same program compute what is asked for later, such as the gradient of a weight
at one step or a truncated backward.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import sys
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from minigrad.engine.backward import sweep
from minigrad.engine.context import no_grad
from minigrad.engine.op import PART, Op
from minigrad.engine.ops import getitem, reshape, transpose
from minigrad.engine.pytree import flatten
from minigrad.engine.tensor import Tensor
from minigrad.microscope.cell_program import NamedValue, evaluate, instructions, step_program_of, weight_names
from minigrad.nn.module import Module
from minigrad.program.analysis import base
from minigrad.program.ir import DETACH, Value, in_order
from minigrad.timeloop.call import ScanCall
from minigrad.timeloop.cell_key import example
from minigrad.timeloop.scan import recorder

Array = np.ndarray
REARRANGING = (getitem.op, reshape.op, transpose.op, DETACH)  # ops whose entries are entries of their input


@contextlib.contextmanager
def record(model: Module | None = None) -> Iterator[Recording]:
    """Record every scan that runs inside, and the backward through it: `with record() as rec`.

    `rec` finds a scan by the path of its module, which follows the attributes that contain modules. With a model, paths
    start there. A recording remains valid after the `with`; a later backward is recorded too. A recording sees only its
    own thread and async task; inside another recording, the inner one records.

    Under `mg.detect_anomaly()` a scan runs op by op and is not recorded. checkpoint_every has no effect here.

    Memory: a recording copies, at every step, each named value of the cell, the inputs, and what the backward reads;
    the weights once; and for each backward the gradients of all named values. For an LSTM these are 12 H + 2 D numbers
    per step and sequence, and 16 H + D more per backward; an unrecorded scan keeps 7 H + D. The weights' gradients by
    step, T times the weights, are computed on request.
    """
    if not isinstance(model, (Module, type(None))):
        raise TypeError(f"record takes no argument, or the Module from which paths start, not {type(model).__name__}")
    recording = Recording(model)
    token = recorder.set(recording.take)
    try:
        yield recording
    finally:
        recorder.reset(token)


class UnknownName(KeyError):
    """An unknown name; the message lists the known ones."""

    __str__ = Exception.__str__

    def __init__(self, name: Any, of: str, known: list[str]):
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        names = f"it has {shortened(known, 20) or 'none'}"
        super().__init__(f"{of} has no {name!r}: " + (f"did you mean {near[0]!r}? " if near else "") + names)


class Recording:
    """The recorded scans, in the order in which they ran.

    rec[0]       the `Record` of the first scan
    rec["lstm"]  the `Record` of the scan at or below this path; a `Recording` of them if there are several, because a
                 layer has several cells (lstm.l0, lstm.l0_reverse, …) or was called several times. Raises KeyError for
                 an unknown path, TypeError for a cell that cannot be traced
    len(rec), iteration, rec.paths   as of a list of Records
    """

    def __init__(self, model: Module | None = None, records: Iterable[Record | UnrecordedScan] = ()):
        self.model_paths = {} if model is None else {id(x): path for path, x in model.named_parts()}
        self.records = list(records)
        self.copies: dict[int, Array] = {}

    def take(self, run: ScanCall | str, cell: Callable) -> tuple[Any, Any] | None:
        """Hook for scan: run a call into a Record and return its results; or note why a cell cannot be traced."""
        path = path_of(cell, self.model_paths)
        if isinstance(run, str):
            self.records.append(UnrecordedScan(path, run))
            return None
        record = run.executor = Record(path, run, self.snapshot)
        results = run.on_graph()
        self.records.append(record)
        for leaf in flatten(results)[0]:
            if isinstance(leaf, Tensor) and leaf._op is PART:
                record.node = weakref.ref(leaf._inputs[0])
        return results

    def snapshot(self, weight: Tensor | Array) -> Array:
        """A copy of a weight, unaffected by later changes; scans that see the same values share it."""
        copy, data = self.copies.get(id(weight)), example(weight)
        if copy is None or copy.dtype != data.dtype or not np.array_equal(copy, data):
            copy = self.copies[id(weight)] = np.array(data)
        return copy

    @property
    def paths(self) -> list[str]:
        return [record.path for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: int | str) -> Any:
        if not self.records:
            raise LookupError("nothing was recorded: no scan ran inside record() (a Python loop is not a scan), or "
                              "it ran under detect_anomaly, which runs a scan op by op")
        if isinstance(key, str):
            found = Recording(records=[r for r in self.records if f"{r.path}.".startswith(f"{key}.")])
            if not found.records:
                raise UnknownName(key, "the recording", list(dict.fromkeys(self.paths)))
            return found[0] if len(found) == 1 else found
        try:
            record = self.records[key]
        except IndexError:
            raise IndexError(f"the recording has {len(self)} scans and no rec[{key}]") from None
        if isinstance(record, UnrecordedScan):
            raise TypeError(f"{record.path} was not recorded, because its cell cannot be traced: {record.why}")
        return record

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "records":
            raise AttributeError(name)
        scans = f"{len(self)} scan{'s' * (len(self) != 1)} ({shortened(self.paths)})"
        raise AttributeError(f"the recording has {scans}, each with its own {name}: take one, as in [0].{name}")

    def __repr__(self) -> str:
        return "\n".join([f"a recording of {len(self)} scan{'s' * (len(self) != 1)}",
                          *(f"  [{i}] {record}" for i, record in enumerate(self.records))])


@dataclass
class UnrecordedScan:
    """A scan that ran step by step, without a program to record."""

    path: str
    why: str

    def __repr__(self) -> str:
        return f"{self.path}: not recorded, because it cannot be traced"


def one_scan(rec: Recording | Record) -> Record:
    """The only scan of a recording, or the given Record."""
    if isinstance(rec, Record):
        return rec
    if not isinstance(rec, Recording):
        raise TypeError(f"this function takes a recording, as from record(), or one of its scans, not an object of "
                        f"type {type(rec).__name__}")
    if len(rec) > 1:
        raise ValueError(f"this function takes one scan, not {len(rec)} ({shortened(rec.paths)}): choose one by its "
                         "path or number, as rec[0]")
    return rec[0]


def shortened(names: list[str], most: int = 8) -> str:
    """The first names of a list, as text."""
    return ", ".join(names[:most]) + ", …" * (len(names) > most)


def path_of(cell: Callable, model_paths: Mapping[int, str] = MappingProxyType({})) -> str:
    """The path of the cell's module, from the model or the outermost module that contains it; for another function its
    name."""
    owner = getattr(cell, "__self__", cell)
    path = model_paths.get(id(owner)) or getattr(owner, "_path", "")
    # PyTorch's name for a cell of a Stacked layer
    return re.sub(r"(^|\.)layers\.(l\d+(_reverse)?)$", r"\1\2", path) or (
        getattr(owner, "__name__", type(owner).__name__))


# -- one scan ---------------------------------------------------------------------------------------------------------


class Record:
    """One recorded scan: the values of its cell at every step, and their gradients.

    values        {name: (T, …)}: the cell's variable of this name at every step, with its shape in the cell after T
    grads         {name: (T, …)}: dL/d(that value) over all paths to L, summed over all backwards. A state that enters a
                  step is the same value as the new state of the step before, so grads["a_prev"][t] is
                  grads["a_next"][t − 1], as in an unrolled loop.
    weight_grads(name)   (T, …): the contribution of each step to the gradient of a weight
    states        {name of an old state: name of its new state}, as {"a_prev": "a_next", "c_prev": "c_next"}; None for a
                  new state that is a constant or a weight
    inputs, outputs   names of the leaves of x, and of those of y that the cell computes
    weights       names of the tensors that the cell closes over
    cell, nesting   the cell itself; how its state and its x are nested, with 0 as leaves
    steps, reverse, mask, path   T; whether the scan ran from the last step to the first; (T, batch) or None; its path

    Time is in the order of xs, also if the scan ran in reverse. With a mask, the values are the cell's own at every
    step; where the mask is 0, their gradients are 0 and the next step receives the old state. If two values have the
    same name, the second is `name_2`. Unnamed values do not appear; results of the cell always have a name (`h_next`
    for the new h, `y`).
    """

    def __init__(self, path: str, run: ScanCall, snapshot: Callable[[Tensor | Array], Array]):
        self.path, self.steps, self.reverse, self.mask, self.axes = path, run.steps, run.reverse, run.mask, run.axes
        self.cell, self.nesting = run.cell, run.compiled.patterns
        self.order = range(run.steps)[::-1 if run.reverse else 1]  # indices in xs, in the order of running
        self.step = step = step_program_of(run)
        self.states = dict(zip(step.names_of["state"], step.names_of["new state"]))
        self.inputs = step.names_of["x"]
        self.outputs = [name for name in step.names_of["y"] if name is not None]
        closed, self.closed = [run.supply[i] for i in step.closed], run.compiled.closed
        names = weight_names(run.cell, closed, step)
        tensors = [(name, w, x) for name, w, x in zip(names, step.weights, closed) if isinstance(x, Tensor)]
        self.weights = [name for name, _, _ in tensors]
        self.weight_values = {name: w for name, w, _ in tensors}
        self.weight_indices = {x._index: name for name, _, x in tensors}  # by the index of the tensor
        self.invariants = step.constants | {w: snapshot(x) for w, x in zip(step.weights, closed)}
        self.forward_values: list[dict[Value, Array]] = []  # of each step, in the order of running
        self.backwards: list[BackwardPass] = []
        self.node: Callable[[], Tensor | None] = lambda: None  # a weak reference to the scan's node on the graph
        self.values, self.grads = LazyArrays(self, self.value), LazyArrays(self, self.grad)

    def op_of(self, name: str) -> Op | None:
        """The op that computed a value, such as sigmoid for a gate; looks through slices and transposes."""
        return base(self.known(name).value, lambda value: value.op in REARRANGING).op

    def __repr__(self) -> str:
        went = {0: "no backward yet", 1: "one backward"}.get(len(self.backwards), f"{len(self.backwards)} backwards")
        return (f"{self.path}: {self.steps} steps{' in reverse' * self.reverse}, {went}; "
                f"values {', '.join(self.values)}; weights {', '.join(self.weights)}")

    # -- values and gradients ----------------------------------------------------------------------------------

    def known(self, name: str) -> NamedValue:
        if name not in self.step.named:
            raise UnknownName(name, self.path, list(self.step.named))
        return self.step.named[name]

    def value(self, name: str) -> Array:
        """(T, …): a value at every step."""
        value = self.known(name).value
        return np.stack([ChainMap(self.forward_values[t], self.invariants)[value] for t in self.order])

    def grad(self, name: str) -> Array:
        """(T, …): its gradient at every step."""
        named = self.known(name)
        if named.value.dtype.kind not in "fc":
            raise TypeError(f"{name} of {self.path} has dtype {named.value.dtype}, and only floats have gradients")
        return self.over_time(named.value, lambda values, t: self.gradient_at(values, t, named))

    def over_time(self, value: Value, gradient: Callable[[list[dict[Value, Array]], int], Any]) -> Array:
        """(T, …): gradient(values of a backward, t) of a value at the t-th step that ran, summed over all backwards."""
        total = np.zeros((self.steps, *value.shape), value.dtype)
        for backward in self.recorded_backwards():
            for t, time in enumerate(self.order):
                total[time] += gradient(backward.values, t)
        return total

    def gradient_at(self, values: list[dict[Value, Array]], t: int, named: NamedValue) -> Any:
        """dL/d(a value) at the t-th step that ran; for a state, the gradient of the new state of the previous step."""
        while named.entering is not None and t > 0:
            t, named = t - 1, self.step.leaving[named.entering]
        return ChainMap(values[t], self.invariants)[named.total]

    def weight_grads(self, name: str) -> Array:
        """(T, *shape): the contribution of each step to the gradient of a weight, computed at each call by the part of
        the derived program that leads to this weight."""
        if name not in self.weight_values:
            raise UnknownName(name, f"{self.path}, among its weights,", self.weights)
        weight = self.weight_values[name]
        if weight not in self.step.program.gradients:
            raise ValueError(f"{name} of {self.path} does not require gradients: set requires_grad=True first")
        gradient = self.step.gradients[weight]
        program = instructions(in_order([gradient], {*self.step.recorded, *self.step.recorded_backward}))

        def at(values: list[dict[Value, Array]], t: int) -> Any:
            env = {**self.invariants, **self.forward_values[t], **values[t]}
            evaluate(program, env)
            return env[gradient]
        return self.over_time(weight, at)

    def recorded_backwards(self) -> list[BackwardPass]:
        """The recorded backwards, at least one."""
        if not self.backwards:
            raise RuntimeError(f"no backward has gone through {self.path}: call loss.backward() on a loss that depends "
                               "on it, recorded outside no_grad and with a tensor that requires gradients")
        return self.backwards

    # -- running -------------------------------------------------------------------------------------------------

    def forward(self, state: list, xs: list, closed: list) -> tuple[list, list]:
        """Executor of a ScanCall: return the final states and the ys, all in the order of running."""
        step = self.step
        state, xs = [np.array(s) for s in state], [np.array(x) for x in xs]
        ys = []
        for t in range(self.steps):
            env = {**self.invariants, **dict(zip(step.arguments, [*state, *(x[t, ...] for x in xs)]))}
            evaluate(step.forward, env)
            state = [env[value] for value in step.new_states]
            ys.append([env[value] for value in step.ys])
            self.forward_values.append({value: env[value] for value in step.recorded})
        return [np.array(s) for s in state], [np.stack(y) for y in zip(*ys)]

    def backward(self, d_state: list, d_ys: list, xs: list, closed: list) -> tuple[list, list, list]:
        """Return the gradients of the first state, of the xs and of the weights, from those of the results."""
        step, window = self.step, replay_window.get()
        d_state, d_ys = [np.array(d) for d in d_state], [np.array(d) for d in d_ys]
        d_first = [np.zeros(s.shape, s.dtype) for s in step.states]
        d_xs = {x: np.zeros((self.steps, *x.shape), x.dtype) for x in step.xs if x in step.program.gradients}
        d_weights = {w: np.zeros(w.shape, w.dtype) for w in step.weights if w in step.program.gradients}
        values: list[dict[Value, Array]] = [{}] * self.steps
        for t, env in self.steps_back(d_state, d_ys, *(window or ())):
            for x, total in d_xs.items():
                total[t] += env[step.gradients[x]]
            for w, total in d_weights.items():
                total += env[step.gradients[w]]
            if t == 0:
                d_first = [total + env[step.gradients[s]] for total, s in zip(d_first, step.states)]
            if window is None:
                values[t] = {value: env[value] for value in step.recorded_backward}
        if window is None:
            self.backwards.append(BackwardPass(d_state, d_ys, values))
            self.grads.made.clear()
        by_place = {i: d_weights.get(w) for i, w in zip(step.closed, step.weights)}
        return d_first, [d_xs.get(x) for x in step.xs], [by_place[i] for i in self.closed]

    def steps_back(self, d_state: list, d_ys: list, horizon: int = sys.maxsize, every: int = sys.maxsize
                   ) -> Iterator[tuple[int, dict[Value, Array]]]:
        """(t, all values of the step and of its backward) from the last step to the first, in the order of running.

        Truncated, it is BPTT(horizon; every) of Williams & Peng (1990): the loss of each piece of `every` steps is sent
        back through this piece and the horizon − every steps before it.
        """
        for first in reversed(range(0, self.steps, every)):
            stop = min(first + every, self.steps)
            d = d_state if stop == self.steps else [np.zeros_like(d) for d in d_state]
            for t in reversed(range(max(0, first - (horizon - every)), stop)):
                d_y = [d_y[t, ...] if t >= first else np.zeros_like(d_y[t, ...]) for d_y in d_ys]
                env = {**self.invariants, **self.forward_values[t],
                       **self.step.seeds(zip(self.step.new_states + self.step.ys, [*d, *d_y]))}
                evaluate(self.step.backward, env)
                d = [env[self.step.gradients[s]] for s in self.step.states]
                yield t, env


@dataclass
class BackwardPass:
    """One backward through a scan, in the order of running: gradients of its results, and of the named values."""

    d_state: list[Array]
    d_ys: list[Array]
    values: list[dict[Value, Array]]


# arguments of `Record.steps_back` in the backwards that a question runs, which are not recorded; () is the whole
Window = tuple[()] | tuple[int, int]
replay_window: ContextVar[Window | None] = ContextVar("replay_window", default=None)


def replayed_gradients(losses: list[Tensor], targets: list[Tensor], window: Window = ()) -> dict[int, Any]:
    """{index of a target: its gradient of Σ losses}, with the backward of every recorded scan cut to the window."""
    token = replay_window.set(window)
    try:
        with no_grad():
            return sweep(losses, [np.ones(loss.shape, loss.dtype) for loss in losses], targets)
    finally:
        replay_window.reset(token)


class LazyArrays(Mapping):
    """Arrays by name, computed on first access."""

    def __init__(self, record: Record, make: Callable[[str], Array]):
        self.record, self.make = record, make
        self.made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self.made:
            self.made[name] = self.make(name)
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.record.step.named)

    def __len__(self) -> int:
        return len(self.record.step.named)

    def __repr__(self) -> str:
        named = self.record.step.named.items()
        return "\n".join(f"{name} {(self.record.steps, *value.value.shape)}" for name, value in named)
