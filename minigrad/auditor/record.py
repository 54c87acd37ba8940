"""The record of a forward and its derived backward: one list of steps, with names and places from the user's code.

A forward step is a place of the code and a time: the number of earlier calls at that place. For each forward step the
backward has a `total` (the sum of what arrives), and for each input the steps of the `rule` and its `contribution` to
the input's total.
"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from dataclasses import dataclass
from operator import itemgetter
from types import FrameType
from typing import Any, NamedTuple, cast

import numpy as np

from minigrad.engine.anomaly import is_own_frame
from minigrad.engine.backward import behind, value_of
from minigrad.engine.op import PART, Op
from minigrad.engine.ops import copy, sum_to
from minigrad.engine.tensor import Tensor
from minigrad.program.source_tracer import SourceTracer
from minigrad.program.trace import Symbol, Trace, Tracer, symbol


@dataclass(eq=False)
class Step:
    """One value. kind: leaf, constant, seed, forward, rule, contribution or total.

    place, time  of a forward step: the op and the user's call sites, and how many calls came before at this place
    example      its value when it was recorded;  compute: from the values of its inputs to its own
    of           of a backward step: the forward step whose rule or total it is;  position: of the rule's input
    number_in    the place of a rule's step within its rule
    """

    kind: str
    op: Any = None  # an Op
    inputs: tuple[int, ...] = ()
    metadata: Any = None
    place: Any = None
    time: int = 0
    of: int = -1
    position: Any = None
    number_in: int = 0
    name: str | None = None
    line: tuple[str, int] | None = None
    example: Any = None
    compute: Any = None


class Edge(NamedTuple):
    """A contribution to the gradient of `x` from the rule of `consumer`."""

    contribution: int
    consumer: int
    position: int
    x: int


class Recorder(SourceTracer):
    """A tracer that also notes where in the user's code an op was called, and lists the symbols of a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[int, tuple] = {}
        self.latest: list[Symbol] = []
        self.cut: set[int] = set()
        self.call: tuple[Any, dict] = (None, {})  # the frame that the user's code called last, its places of each op

    def argument(self, example: Any) -> Symbol:
        return Tracer.argument(self, example)  # its shape in plain numbers

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if is_user_frame(frame):
            super().profile(frame, event, argument)

    def detached(self, x: Tensor) -> Tensor:
        """x without its gradient: a copy whose contribution is zero, so that a path that is not cut can be found."""
        out = copy(x)
        self.cut.add(out._index)
        return out

    def made(self, data: Any, tracked: bool, op: Op, inputs: tuple, metadata: dict) -> Symbol:
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


def is_user_frame(frame: FrameType) -> bool:
    return not is_own_frame(frame) and not frame.f_globals.get("__name__", "").startswith("minigrad.auditor.")


def call_sites() -> tuple[tuple, Any, tuple]:
    """The user's frames as (file, function, instruction, line), innermost first; the frame called; its place."""
    frame: FrameType | None = sys._getframe(2)
    sites: list[tuple] = []
    called, inside = None, []
    while frame is not None and frame.f_code is not Trace.__init__.__code__:
        if is_user_frame(frame):
            sites.append((frame.f_code.co_filename, frame.f_code.co_name, frame.f_lasti, frame.f_lineno))
        elif not sites:
            called = frame
            inside.append(frame.f_lasti)
        frame = frame.f_back
    return tuple(sites), called, tuple(inside)


class Recording(Trace):
    """The steps of a forward, and of its backward, which is run rule by rule.

    numbers   {index of a symbol: its step};  totals {forward step: its total}
    arriving  the seeds: the gradients that arrive at the outputs
    """

    def differentiate(self) -> None:
        self.recorder = cast(Recorder, self.tracer)
        self.recorder.last = True
        self.steps: list[Step] = []
        self.edges: list[Edge] = []
        self.numbers: dict[int, int] = {}
        self.held: list[Any] = []
        calls: dict[Any, int] = defaultdict(int)
        for x in self.inputs:
            self.add(Step("leaf", name=self.recorder.names.get(x._index)), x)
        for x in [x for x in self.recorder.latest if x._index not in self.numbers]:
            self.forward(x, calls)
        outputs = [y for y in self.outputs if isinstance(y, Symbol) and y._tracked]
        arriving: dict[int, list[int]] = defaultdict(list)  # {index of a symbol: what arrives there}
        self.arriving = [self.add(Step("seed", of=self.numbers[y._index], example=y.example)) for y in outputs]
        for y, seed in zip(outputs, self.arriving):
            arriving[y._index].append(seed)
        parts: dict[int, dict[int, Symbol]] = defaultdict(dict)  # {index of an op of several results: their gradients}
        for node in reversed(behind(outputs)):
            self.backward(node, arriving, parts)
        self.totals = {step.of: i for i, step in enumerate(self.steps) if step.kind == "total"}

    def add(self, step: Step, x: Symbol | None = None) -> int:
        """Append a step; that of a symbol is found again by `number`."""
        self.steps.append(step)
        if step.op is PART:
            step.compute = itemgetter(step.metadata["i"])
        elif step.op is not None:
            step.compute = functools.partial(step.op.forward, **step.metadata) if step.metadata else step.op.forward
        if x is not None:
            step.example = x.example
            self.numbers[x._index] = len(self.steps) - 1
        return len(self.steps) - 1

    def number(self, x: Any) -> int:
        """The step of a symbol, or a new constant for anything else."""
        if isinstance(x, Symbol):
            return self.numbers[x._index]
        key = -id(x)
        if key not in self.numbers:
            self.held.append(x)
            name = self.recorder.names.get(x._index if isinstance(x, Tensor) else key)
            self.numbers[key] = self.add(Step("constant", name=name, example=x._array if isinstance(x, Tensor) else x))
        return self.numbers[key]

    def forward(self, x: Symbol, calls: dict) -> None:
        sites, ordinal = self.recorder.sites[x._index]
        place = x._op.name, x._metadata.get("i") if x._op is PART else ordinal, tuple(site[:3] for site in sites)
        self.add(Step("forward", x._op, tuple(map(self.number, x._inputs)), x._metadata, place, calls[place],
                      name=self.recorder.names.get(x._index), line=(sites[0][0], sites[0][3]) if sites else None), x)
        calls[place] += 1

    def backward(self, node: Symbol, arriving: dict[int, list[int]], parts: dict[int, dict[int, Symbol]]) -> None:
        """The total of a node, and for each tracked input a contribution."""
        n, arrived = self.numbers[node._index], tuple(arriving[node._index])
        if isinstance(node.example, tuple):  # its rule reads the totals of the results
            g: Any = tuple(parts[node._index].get(i, np.zeros_like(y)) for i, y in enumerate(node.example))
        else:
            g = symbol(self.recorder, sum(self.steps[i].example for i in arrived), False)
            self.add(Step("total", inputs=arrived, of=n, compute=lambda first, *rest: sum(rest, first)), g)
        if node._op is PART:
            parts[node._inputs[0]._index][node._metadata["i"]] = g
            return
        for vjp in node._op.vjps if node._op else ():
            if node._op.variadic or node._mask >> vjp.position & 1:
                self.recorder.latest = []
                d = vjp.recorded(g, value_of(node), node._inputs, node._metadata)
                pairs = zip(range(len(d)), d) if node._op.variadic else [(vjp.position, d)]
                for j, x in enumerate(self.recorder.latest):
                    self.add(Step("rule", x._op, tuple(map(self.number, x._inputs)), x._metadata, of=n, number_in=j,
                                  position=None if node._op.variadic else vjp.position), x)
                for position, d in pairs:
                    self.contribute(node, position, d, arriving)

    def contribute(self, node: Symbol, position: int, d: Any, arriving: dict[int, list[int]]) -> None:
        x = node._inputs[position]
        if isinstance(x, Symbol) and x._tracked:
            source, is_cut = self.number(d), node._index in self.recorder.cut
            compute = functools.partial(fit, shape=x.example.shape, factor=0 if is_cut else 1)
            c = self.add(Step("contribution", None, (source,), "cut" if is_cut else None, of=self.numbers[node._index],
                              position=position, example=compute(self.steps[source].example), compute=compute))
            self.edges.append(Edge(c, self.numbers[node._index], position, self.numbers[x._index]))
            arriving[x._index].append(c)


def fit(d: Any, shape: tuple[int, ...], factor: int = 1) -> Any:
    """A gradient broadcast or summed to the shape of its value."""
    if np.shape(d) != shape:
        d = np.asarray(d)
        d = sum_to.op.forward(np.broadcast_to(d, np.broadcast_shapes(d.shape, shape)), shape=shape)
    return d if factor else 0 * d
