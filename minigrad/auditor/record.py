"""The record of a forward and its derived backward: one list of steps, with names and places from the user's code.

A forward step is a place of the code and a time: the number of earlier calls at that place. For each forward step the
backward has a `total` (the sum of what arrives), and for each input the steps of the `rule` and its `contribution` to
the input's total.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
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
    example      its value when it was recorded
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


class DerivationTrace(Trace):
    """A trace whose backward is run by `Tape`, rule by rule."""

    def differentiate(self) -> None:
        self.tracer.last = True
        self.steps = Steps(self)


class Steps:
    """The steps of a trace: `add` appends one; `number` finds that of a symbol or a constant."""

    def __init__(self, trace: Trace):
        self.tracer = cast(Any, trace.tracer)  # a Recorder
        self.steps: list[Step] = []
        self.numbers: dict[int, int] = {}
        self.edges: list[Edge] = []
        self.held: list[Any] = []
        calls: dict[Any, int] = defaultdict(int)
        for x in trace.inputs:
            self.numbers[x._index] = self.add(Step("leaf", name=self.tracer.names.get(x._index)), x.example)
        for x in [x for x in self.tracer.latest if x._index not in self.numbers]:
            self.forward(x, calls)
        self.seeds = []
        outputs = [y for y in trace.outputs if isinstance(y, Symbol) and y._tracked]
        arriving: dict[int, list[int]] = defaultdict(list)
        for y in outputs:
            self.seeds.append(self.add(Step("seed", of=self.numbers[y._index]), y.example))
            arriving[y._index].append(self.seeds[-1])
        for node in reversed(behind(outputs)):
            self.backward(node, arriving)
        self.totals = {i: n for n, i in enumerate(step.of if step.kind == "total" else -1 for step in self.steps)
                       if i >= 0}

    def add(self, step: Step, example: Any) -> int:
        step.example = example
        self.steps.append(step)
        return len(self.steps) - 1

    def number(self, x: Any) -> int:
        """The step of a symbol, or a new constant for anything else."""
        if isinstance(x, Symbol):
            return self.numbers[x._index]
        key = -id(x)
        if key not in self.numbers:
            self.held.append(x)
            array = x._array if isinstance(x, Tensor) else x
            name = self.tracer.names.get(x._index if isinstance(x, Tensor) else key)
            self.numbers[key] = self.add(Step("constant", name=name), array)
        return self.numbers[key]

    def forward(self, x: Symbol, calls: dict) -> None:
        sites, ordinal = self.tracer.sites[x._index]
        place = x._op.name, x._metadata.get("i") if x._op is PART else ordinal, tuple(site[:3] for site in sites)
        inputs = tuple(map(self.number, x._inputs))
        self.numbers[x._index] = self.add(Step(
            "forward", x._op, inputs, x._metadata, place, calls[place], name=self.tracer.names.get(x._index),
            line=(sites[0][0], sites[0][3]) if sites else None), x.example)
        calls[place] += 1

    def backward(self, node: Symbol, arriving: dict[int, list[int]]) -> None:
        """The total of a node, and for each tracked input a contribution."""
        n, parts = self.numbers[node._index], arriving[node._index]
        if isinstance(node.example, tuple):
            found = {self.steps[self.steps[p].of].metadata["i"]: p for p in parts}
            example: Any = tuple(self.steps[found[i]].example if i in found else np.zeros_like(y)
                                 for i, y in enumerate(node.example))
            total = self.add(Step("total", inputs=tuple(parts), of=n, metadata=tuple(found), name="parts"), example)
            g: Any = tuple(self.given(total, y, i) for i, y in enumerate(example))
        else:
            example = sum(self.steps[p].example for p in parts)
            total = self.add(Step("total", inputs=tuple(parts), of=n), example)
            g = symbol(self.tracer, example, False)
            self.numbers[g._index] = total
        if node._op is None:
            return
        y = value_of(node)
        if node._op is PART:
            self.contribute(node, 0, node._inputs[0], g, arriving)
        elif node._op.variadic:
            self.tracer.latest = []
            given = node._op.vjps[0].recorded(g, y, node._inputs, node._metadata)
            self.rule(n, None)
            for position, (x, d) in enumerate(zip(node._inputs, given)):
                self.contribute(node, position, x, d, arriving)
        else:
            for vjp in node._op.vjps:
                if node._mask >> vjp.position & 1:
                    self.tracer.latest = []
                    d = vjp.recorded(g, y, node._inputs, node._metadata)
                    self.rule(n, vjp.position)
                    self.contribute(node, vjp.position, node._inputs[vjp.position], d, arriving)

    def given(self, total: int, example: Any, i: int) -> Symbol:
        g = symbol(self.tracer, example, False)
        self.numbers[g._index] = self.add(Step("rule", PART, (total,), {"i": i}, of=self.steps[total].of), example)
        return g

    def rule(self, of: int, position: int | None) -> None:
        for j, x in enumerate(self.tracer.latest):
            self.numbers[x._index] = self.add(Step("rule", x._op, tuple(map(self.number, x._inputs)), x._metadata,
                                                   of=of, position=position, number_in=j), x.example)

    def contribute(self, node: Symbol, position: int, x: Any, d: Any, arriving: dict[int, list[int]]) -> None:
        if not (isinstance(x, Symbol) and x._tracked):
            return
        consumer, to, number = self.numbers[node._index], self.numbers[x._index], self.number(d)
        example = self.steps[number].example
        example = example if isinstance(x.example, tuple) else fit(example, x.example.shape)
        is_cut = node._index in self.tracer.cut
        example = 0 * example if is_cut else example
        c = self.add(Step("contribution", None, (number,), of=consumer, position=position,
                          metadata="cut" if is_cut else None), example)
        self.edges.append(Edge(c, consumer, position, to))
        arriving[x._index].append(c)


def fit(d: Any, shape: tuple[int, ...]) -> Any:
    """A gradient broadcast or summed to the shape of its value."""
    if np.shape(d) == shape:
        return d
    d = np.asarray(d)
    return sum_to.op.forward(np.broadcast_to(d, np.broadcast_shapes(d.shape, shape)), shape=shape)
