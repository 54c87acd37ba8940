"""The record of a forward and its derived backward: one list of steps, with names and places from the user's code.

A step of the forward is a place of the code and a time: the number of earlier calls at that place. Its backward has a
`total` (the sum of what arrives), and for each input the steps of the `rule` and an `edge`: what it adds to the input's
total.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import FrameType
from typing import Any

import numpy as np

from minigrad.engine.anomaly import is_own_frame
from minigrad.engine.backward import behind, value_of
from minigrad.engine.op import PART, Op
from minigrad.engine.ops import copy, maximum, relu, sum_to
from minigrad.engine.pytree import flatten
from minigrad.engine.tensor import Tensor
from minigrad.program.source_tracer import SourceTracer
from minigrad.program.trace import Symbol, Trace, Tracer, all_behind, symbol


@dataclass(eq=False, repr=False)
class Step:
    """One value. kind: leaf, constant, seed (what arrives at an output), forward, rule, edge or total.

    example      its value when it was recorded;  compute: from the values of its inputs to its own
    place, time  what is done at each call of one line of the user's code is one place
    of           of a backward step: the forward step whose rule or total it is
    position     of the input of a rule; of the result where a seed arrives
    x            of a seed, an edge or a step of a rule: the forward step to whose total it leads
    total        of a forward step: the sum of its gradients
    name         what the user calls it, or another call at its place
    starts       the state whose initial value it is;  is_repeated: whether its place is called more than once
    """

    number: int
    kind: str
    example: Any
    inputs: tuple[Step, ...] = ()
    compute: Any = None
    place: Any = None
    time: int = 0
    op: Any = None  # an Op
    metadata: Any = field(default_factory=dict)
    of: Any = None  # a Step, as is x
    x: Any = None
    position: int = 0
    name: str = ""
    line: tuple[str, int] | None = None
    is_cut: bool = False  # an edge to what a detach cuts off
    total: Any = None  # a Step, as is starts
    starts: Any = None
    is_repeated: bool = False

    def __post_init__(self) -> None:
        self.shape: tuple[int, ...] = getattr(self.example, "shape", ())  # () for an op of several results
        self.reads = [x.number for x in self.inputs]
        self.place = self.place or (self.kind, self.number)


class Recorder(SourceTracer):
    """A tracer that also notes where in the user's code an op was called, and lists the symbols of a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[int, tuple] = {}
        self.latest: list[Symbol] = []
        self.cut: set[int] = set()
        self.call: tuple[Any, dict] = (None, {})  # the frame that the user's code called last, its places of each op

    def argument(self, example: Any) -> Any:
        """A symbol with a shape in plain numbers; integers stay what they are, for they may be indices."""
        return Tracer.argument(self, example) if example.dtype.kind == "f" else example

    def detached(self, x: Tensor) -> Tensor:
        """x without its gradient: a copy whose edge is zero, so that a path that is not cut can be found."""
        out = copy(x)
        self.cut.add(out._index)
        return out

    def made(self, data: Any, tracked: bool, op: Op, inputs: tuple, metadata: dict) -> Symbol:
        if op is maximum.op and any(map(is_zero, inputs)):  # relu: an activation with one derivative
            op, inputs = relu.op, tuple(x for x in inputs if not is_zero(x))
        out = super().made(data, tracked, op, inputs, metadata)
        self.latest.append(out)
        if not self.last:
            sites, called, inside = call_sites()
            if called is not self.call[0]:
                self.call = called, defaultdict(list)
            places = self.call[1][op]  # np.var takes two means in one call: two places
            if inside not in places:
                places.append(inside)
            self.sites[out._index] = sites, places.index(inside)
        return out


def is_zero(x: Any) -> bool:
    return not isinstance(x, Tensor) and np.size(x) == 1 and not np.any(x)


def call_sites() -> tuple[tuple, Any, tuple]:
    """The user's frames as (file, function, instruction, line), innermost first; the frame called; its place."""
    frame: FrameType | None = sys._getframe(2)
    sites: list[tuple] = []
    called, inside = None, []
    while frame is not None and frame.f_code is not Trace.__init__.__code__:
        if not is_own_frame(frame):
            sites.append((frame.f_code.co_filename, frame.f_code.co_name, frame.f_lasti, frame.f_lineno))
        elif not sites:
            called = frame
            inside.append(frame.f_lasti)
        frame = frame.f_back
    return tuple(sites), called, tuple(inside)


class Recording(Trace):
    """The steps of a forward and of its backward, which is run rule by rule. arriving: the seeds."""

    tracer: Recorder

    def differentiate(self) -> None:
        self.tracer.last = True
        self.steps: list[Step] = []
        self.step_of: dict[int, Step] = {}  # by the index of a symbol, or −id of a constant
        self.held: list[Any] = []
        self.calls: dict[Any, int] = defaultdict(int)
        self.slots: set[tuple] = set()  # the places of edges: a state that begins as a constant has one there too
        for x in self.inputs:
            self.add("leaf", x)
        used = {x._index for x in all_behind(self.outputs, lambda x: isinstance(x, Symbol))}
        calls = [x for x in self.tracer.latest if x._index in used - self.step_of.keys()]
        passes = self.passes(calls)
        for x in calls:
            sites, place = self.tracer.sites[x._index][0], (*self.code_of(x), passes.get(x._index))
            self.add("forward", x, op=x._op, place=place, time=self.calls[place],
                     line=(sites[0][0], sites[0][3]) if sites else None)
            self.calls[place] += 1
        results = {k: y for k, y in enumerate(flatten(self.result)[0]) if isinstance(y, Symbol) and y._tracked}
        arriving: dict[Step, list[Step]] = defaultdict(list)
        for k, y in results.items():
            arriving[self.step(y)].append(self.add("seed", y.example, of=self.step(y), x=self.step(y), position=k))
        self.arriving = [step for step in self.steps if step.kind == "seed"]
        parts: dict[int, dict[int, Symbol]] = defaultdict(dict)  # {index of an op of several results: their gradients}
        for node in reversed(behind([*results.values()])):
            self.backward(node, arriving, parts)

    def add(self, kind: str, value: Any, inputs: tuple = (), compute: Any = None, **more: Any) -> Step:
        """Append a step. value: an example, or a symbol, whose step `step` then finds."""
        is_symbol = isinstance(value, Symbol)
        if is_symbol and (op := more.get("op")) is not None:
            compute = itemgetter(value._metadata["i"]) if op is PART else functools.partial(
                op.forward, **value._metadata) if value._metadata else op.forward
            inputs, more["metadata"] = tuple(map(self.step, value._inputs)), value._metadata
        step = Step(len(self.steps), kind, value.example if is_symbol else value, inputs, compute, **more)
        self.steps.append(step)
        if is_symbol:
            self.step_of[value._index] = step
            step.name = self.tracer.names.get(value._index, "")
        return step

    def step(self, x: Any) -> Step:
        """The step of a symbol; for anything else a constant."""
        key = x._index if isinstance(x, Symbol) else -id(x)
        if key not in self.step_of:
            self.held.append(x)
            name = self.tracer.names.get(x._index if isinstance(x, Tensor) else key, "")
            self.step_of[key] = self.add("constant", x._array if isinstance(x, Tensor) else x, name=name)
        return self.step_of[key]

    def code_of(self, x: Symbol) -> tuple:
        sites, ordinal = self.tracer.sites[x._index]
        return x._op.name, x._metadata.get("i") if x._op is PART else ordinal, tuple(site[:3] for site in sites)

    def passes(self, calls: list[Symbol]) -> dict[int, Any]:
        """{index: which pass} of what is called in a loop over gates or layers: each pass has weights of its own.

        At one place of the code, the calls with other leaves, or with what other passes made, are those of another
        pass, if each pass has as many calls, at least two; or one each, of what passes made, as a layer's stack.
        """
        found: dict[int, Any] = {x._index: x._index for x in self.inputs}  # a leaf's is its own
        known, places = 0, groups(calls, self.code_of)
        while known < len(found):
            known = len(found)
            for place, some in places.items():
                inputs = zip(*([found.get(getattr(x, "_index", -1)) for x in call._inputs] for call in some))
                told = [column for column in inputs if None not in column]
                columns = list(filter(is_even, told)) or [column for column in told if len({*column}) == len(
                    column) > 1 and all(isinstance(one, tuple) for one in column)]
                if columns and (is_even(rows := list(zip(*columns))) or not any(map(is_even, columns))):
                    found |= {x._index: (place, row) for x, row in zip(some, rows)}
        return found

    def backward(self, node: Symbol, arriving: dict[Step, list[Step]], parts: dict[int, dict[int, Symbol]]) -> None:
        """The total of a node, and for each tracked input the rule and an edge."""
        of, op = self.step(node), node._op
        if isinstance(node.example, tuple):  # its rule reads the totals of the results
            g: Any = tuple(parts[node._index].get(i, np.zeros_like(y)) for i, y in enumerate(node.example))
        else:
            arrived = tuple(arriving[of])
            g = symbol(self.tracer, sum(step.example for step in arrived), False)
            of.total = self.add("total", g, arrived, lambda first, *rest: sum(rest, first), of=of, time=of.time,
                                place=("total", of.place))
        if op is PART:
            parts[node._inputs[0]._index][node._metadata["i"]] = g
            return
        for vjp in op.vjps if op else ():
            to = {k: self.step(x) for k, x in enumerate(node._inputs) if (op.variadic or k == vjp.position)
                  and ((isinstance(x, Symbol) and x._tracked) or ("edge", of.place, k) in self.slots)}
            if not to:
                continue
            self.tracer.latest = []
            found = vjp.recorded(g, value_of(node), node._inputs, node._metadata)
            where: dict[str, Any] = {"of": of, "time": of.time}
            for j, x in enumerate(self.tracer.latest):
                self.add("rule", x, op=x._op, x=next(iter(to.values())), position=vjp.position, **where,
                         place=("rule", of.place, vjp.position, j))
            for k, end in to.items():  # what is stacked after a loop has one place
                slot = "edge", of.place, end.place if op.variadic and self.calls[of.place] == 1 else k
                self.slots.add(slot)
                source, is_cut = self.step(found[k] if op.variadic else found), node._index in self.tracer.cut
                compute = functools.partial(fit, shape=end.shape, is_cut=is_cut)
                arriving[end].append(self.add("edge", compute(source.example), (source,), compute, x=end, position=k,
                                              is_cut=is_cut, place=slot, **where))


def groups(items: Iterable, key: Callable) -> dict[Any, list]:
    out: dict[Any, list] = defaultdict(list)
    for item in items:
        out[key(item)].append(item)
    return dict(out)


def is_even(column: Sequence) -> bool:
    """Whether there are several different entries, each as often, twice or more."""
    counts = Counter(column)
    return len(counts) > 1 and len(set(counts.values())) == 1 and max(counts.values()) > 1


def fit(d: Any, shape: tuple[int, ...], is_cut: bool = False) -> Any:
    """A gradient broadcast or summed to the shape of its value."""
    if getattr(d, "shape", None) != shape:
        d = np.asarray(d)
        d = sum_to.op.forward(np.broadcast_to(d, np.broadcast_shapes(d.shape, shape)), shape=shape)
    return 0 * d if is_cut else d
