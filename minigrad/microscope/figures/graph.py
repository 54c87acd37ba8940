"""The computational graph of a function as an SVG picture, without external programs.

A box is a line of the derived source (`mg.derive`): a value, by its name in your text, and its expression. The graph of
a cell (state, x) → (state, y) also has edges over time. Folded, the picture shows one cell, with dashed edges from each
new state back to the old one; their black square is a delay of one step (as in Goodfellow, Bengio & Courville, Deep
Learning, 2016, figure 10.2). Unrolled, it shows the cell once per step, side by side. A scan inside a function is one
box with such an edge to itself.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minigrad.engine.op import PART
from minigrad.engine.pytree import map_leaves, named_leaves
from minigrad.functional import vjp
from minigrad.microscope.figures.drawing import MOST_BOXES, Box, Edge, Graph
from minigrad.microscope.recording import Record, Recording, one_scan, path_of
from minigrad.printers.readable import Emitter, values_in
from minigrad.program.ir import LOOP, Value
from minigrad.program.simplify import Program
from minigrad.program.source_tracer import SourceTracer
from minigrad.program.trace import Trace


def graph(f: Callable | Record | Recording, *examples: Any, weights: bool = False, scans: bool = True) -> Graph:
    """The graph of f at examples (arrays, or pytrees of arrays; only shapes and dtypes matter).

    f         a function; or a cell (state, x) → (state, y): two arguments, a pair as result, whose first part has the
              structure and shapes of the first argument. Or, without examples, a recorded scan, as `rec["lstm"]`, or a
              recording of one scan: the width of each edge then shows the size of the gradient along it.
    weights   whether the tensors that f closes over get boxes of their own; their names appear in the lines anyway
    scans     whether a scan in f is one box; False: it is unrolled step by step. To draw the inside of the box, call
              graph(cell, state, x), or give the record of that scan

    Raises TraceError if f depends on a value, as `mg.derive` does, and ValueError if the graph is too large to draw.
    """
    if isinstance(f, (Record, Recording)):
        f = one_scan(f)
        if examples:
            raise TypeError(f"the record of {f.path} has its own values: pass it without examples")
        for name, known in f.step.named.items():
            if known.value.op is None:
                known.value.name = name  # the cell's own name, also if traced inside another function
        builder = GraphBuilder(f.step.program, 2, weights)
        return builder.graph(sizes_along(builder, f), list(f.order))
    if not callable(f):
        raise TypeError(f"graph takes a function or one recorded scan, as rec[0], not an object of type "
                        f"{type(f).__name__}")
    examples = map_leaves(lambda leaf: leaf if hasattr(leaf, "dtype") or isinstance(leaf, (str, bool))
                          else np.asarray(leaf), examples)
    name = getattr(f, "__name__", type(f).__name__)
    program = Program(Trace(f, examples, tracer=SourceTracer(scans)), "the function" if name == "<lambda>" else name)
    return GraphBuilder(program, len(examples), weights).graph()


class GraphBuilder:
    """Boxes and edges of a program."""

    def __init__(self, program: Program, count: int, weights: bool):
        self.program = program
        self.emitter = emitter = Emitter(program)
        emitter.lines(program.forward, keep=True)  # names the expressions that are too long to inline
        given = [values_in(tree) for _, tree in program.arguments]
        self.pairs = self.over_time(count)
        kinds = ["state", "x"] if self.pairs else ["argument"] * count
        self.kinds = {value: kind for kind, values in zip(kinds + ["weight"] * (len(given) - count), given)
                      for value in values if not value.is_constant}
        results = values_in(program.result)
        shown = results[len(self.pairs):] if self.pairs else results
        read = {a for v in program.forward for a in v.inputs}  # a loop also returns values that only its backward reads
        lines = [v for v in program.forward if v in results or v.op is LOOP or
                 (v in emitter.names and (v.op is not PART or v in read))]
        constants = [v for v in results if v.is_constant]
        arguments = [v for v in self.kinds if weights or v in results or self.kinds[v] != "weight"]
        self.values: list[Value] = list(dict.fromkeys(arguments + constants + lines))
        self.results = set(shown)
        if len(self.values) > MOST_BOXES:
            raise ValueError(f"{program.name} has {len(self.values)} lines, more than the {MOST_BOXES} of a picture: "
                             "draw a part of it, or the cell of a loop instead of the loop")

    def over_time(self, count: int) -> list[tuple[Value, Value]]:
        """[(new state, old state)] for the leaves of the state of a cell; empty for another function."""
        result = self.program.result
        if count != 2 or not isinstance(result, tuple) or len(result) != 2:
            return []
        old, new = (named_leaves(tree) for tree in (self.program.arguments[0][1], result[0]))
        fits = [(path, v.shape) for path, v in old] == [(path, v.shape) for path, v in new]
        return [(after, before) for (_, after), (_, before) in zip(new, old)] if fits else []

    def graph(self, sizes: Mapping[tuple[Value, Value], np.ndarray] = MappingProxyType({}),
              times: list[int] | None = None) -> Graph:
        number = {value: i for i, value in enumerate(self.values)}
        edges = [Edge(number[a], number[line], sizes=sizes.get((a, line)))
                 for line in self.values if line.op is not None for a in self.read_by(line) if a in number]
        edges += [Edge(number[new], number[old], True, sizes.get((new, old))) for new, old in self.pairs]
        return Graph(self.program.name, [self.box(value) for value in self.values], edges, times)

    def read_by(self, line: Value) -> list[Value]:
        """The boxes and weights that a line reads; looks through unnamed values, which are inlined in it."""
        found: dict[Value, None] = {}
        stack = list(line.inputs)[::-1]
        while stack:
            a = stack.pop()
            if a in self.emitter.names or a.op is LOOP:
                found[a] = None
            else:
                stack += reversed(a.inputs)  # a constant has none
        return list(found)

    def box(self, value: Value) -> Box:
        if value.op is LOOP:
            scan = value.metadata["loop"].scan
            text = f"scan over {scan.steps} steps{' in reverse' * scan.reverse}"
            return Box(path_of(scan.cell), text, None, "scan")
        if value.op is PART:
            loop = value.inputs[0].metadata["loop"]
            text = "after the last step" if value in loop.final else "at every step"
            return Box(self.emitter.names[value], text, tuple(value.shape), "value", value in self.results)
        text = "" if value in self.kinds else re.sub(r"\bnp\.", "", self.emitter.expression(value, top=True)[0])
        return Box(self.emitter.names.get(value, "output"), text, tuple(value.shape), self.kinds.get(value, "value"),
                   value in self.results)

    def compute(self, line: Value, known: Mapping[Value, Any]) -> Any:
        """The value of a line, by the ops of its expression; `known` contains the values that it reads."""
        def of(value: Value) -> Any:
            if value.is_constant or value in known:
                return value.constant if value.is_constant else known[value]
            metadata = {key: given for key, given in value.metadata.items() if key != "part"}
            y = value.op(tuple(map(of, value.inputs)), metadata)
            return y[value.metadata["part"]] if "part" in value.metadata else y
        return of(line)


# -- gradients along the edges ---------------------------------------------------------------------------------


def sizes_along(builder: GraphBuilder, scan: Record) -> dict[tuple[Value, Value], np.ndarray]:
    """{(from, to): norm of the gradient along that edge at every step, in the order of running}"""
    sizes: dict[tuple[Value, Value], list[float]] = {}
    for t in range(scan.steps):
        along = gradients_along(builder, scan, t)
        for new, old in builder.pairs:
            along[new, old] = sum(d for (a, _), d in along.items() if a is old)
        for edge, d in along.items():
            sizes.setdefault(edge, []).append(float(np.linalg.norm(d)))
    return {edge: np.array(norms[1:] if edge in builder.pairs else norms) for edge, norms in sizes.items()}


def gradients_along(builder: GraphBuilder, scan: Record, t: int) -> dict[tuple[Value, Value], np.ndarray]:
    """{(from, to): the gradient along that edge in the t-th step that ran}. The lines are computed again from the
    recorded arguments; each edge adds a zero, and the gradient for that zero is the gradient along the edge."""
    recorded = dict(scan.invariants)
    for name, named in scan.step.named.items():
        if named.value.op is None:
            recorded[named.value] = scan.values[name][scan.order[t]]
    if scan.mask is not None:
        recorded[scan.step.xs[-1]] = scan.mask[scan.order[t]]
    lines = [value for value in builder.values if value.op is not None]
    edges = [(a, line) for line in lines if line.dtype.kind in "fc"
             for a in builder.read_by(line) if a.dtype.kind in "fc"]
    results = [result for result in scan.step.program.seeds if result in lines]

    def run(*zeros: Any) -> list[Any]:
        zero, known = dict(zip(edges, zeros)), dict(recorded)
        for line in lines:
            read = {a: known[a] + zero[a, line] for a in builder.read_by(line) if (a, line) in zero}
            known[line] = builder.compute(line, ChainMap(read, known))
        return [known[result] for result in results]

    _, pullback = vjp(run, *[np.zeros(a.shape, a.dtype) for a, _ in edges])
    seeds = [scan.step.program.seeds[result] for result in results]
    return dict(zip(edges, pullback([sum(b.values[t][seed] for b in scan.recorded_backwards()) for seed in seeds])))
