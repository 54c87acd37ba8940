"""The derived program of one step of a cell, run value by value, with the cell's own names.

Scan runs the same program with shared buffers (printers/numpy_loop.py). Here every value has its own array, and any
part of the program can run by itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np

from minigrad.engine.pytree import flatten, named_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.nn.module import Module
from minigrad.program.ir import Value, in_order
from minigrad.program.key import CellTracer
from minigrad.program.simplify import Program
from minigrad.program.trace import Symbol, Trace, argument_names
from minigrad.timeloop.call import ScanCall
from minigrad.timeloop.cell_key import example
from minigrad.timeloop.compiled import Compiled, closed_over
from minigrad.timeloop.eager import one_step

Array = np.ndarray


@dataclass
class NamedValue:
    """A value of the program and its total gradient. entering: index among the leaves of the old state; its gradient is
    that of the new state of the previous step."""

    value: Value
    total: Value
    entering: int | None = None


class StepProgram:
    """The derived program of one step of a cell, value by value.

    states, xs, weights   values of its arguments; a mask is the last of xs
    new_states, ys        values of its results
    named, leaving        {name: NamedValue}; the NamedValue of each new state
    gradients             {argument or weight: its gradient in the backward program}
    recorded, recorded_backward   values of the forward and of the backward that a record keeps
    """

    def __init__(self, cell: Callable, state: Any, x: Any, mask: Any, numbers: bool = False):
        pairs = []

        def watched(*inputs):
            pairs.append(cell(*inputs))
            return pairs[-1]

        def step(_state, _x):  # underscored: the tracer must not prefer these names to the cell's
            return one_step(watched, _state, *_x)

        trace = Trace(step, (state, (x, mask)), tracer=CellTracer(values=True, numbers=numbers))
        tracer, n = trace.tracer, len(flatten(state)[0])
        self.program = program = Program(trace, getattr(cell, "__name__", type(cell).__name__))
        self.tensors = [closed_over(trace, w) for w in trace.closed]
        self.outside, self.fallbacks = tracer.outside, [trace.closed_name(w) for w in trace.closed]
        self.arguments = [program.values[s._index] for s in trace.leaves]
        self.states, self.xs = self.arguments[:n], self.arguments[n:]
        self.weights = [program.values[w._index] for w in trace.closed]
        self.new_states, self.ys = (flatten(tree)[0] for tree in program.result)
        program.build([s for s in tracer.held if isinstance(s, Symbol) and can_be_built(s, program)])
        symbols = self.name_symbols(cell, trace, pairs[-1], state, x)
        totals = {index: g for index, g in tracer.total.items() if isinstance(g, Tensor)}
        program.build([totals[s._index] for s in symbols.values() if s._index in totals])

        def of(leaf: Any) -> NamedValue:
            """The NamedValue of a symbol."""
            value = program.value_of(leaf)
            if not isinstance(leaf, Symbol):  # the new state is a closed-over weight: use the state's gradient
                return NamedValue(value, program.seeds.get(value) or zeros_like(value))
            total = program.values[totals[leaf._index]._index] if leaf._index in totals else zeros_like(value)
            entering = next((i for i, s in enumerate(trace.leaves[:n]) if s is leaf), None)
            return NamedValue(value, total, entering)

        self.named = {name: of(symbol) for name, symbol in symbols.items()}
        self.leaving = [of(leaf) for leaf in flatten(trace.result[0])[0]]
        self.plan()
        trace.close()

    def name_symbols(self, cell: Callable, trace: Trace, pair: tuple, state: Any, x: Any) -> dict[str, Symbol]:
        """Choose {name: symbol} for the arguments, then the computed values, then the results."""
        given, symbols = trace.tracer.names, {}
        chosen: dict[int, str] = {}  # names by the index of the symbol

        def choose(leaf: Any, otherwise: str) -> str | None:
            if not isinstance(leaf, Symbol):
                return None
            if leaf._index not in chosen:
                chosen[leaf._index] = name = free(given.get(leaf._index, otherwise), symbols)
                symbols[name] = leaf
            return chosen[leaf._index]

        arguments = iter(trace.leaves)
        before, inputs = [[choose(next(arguments), path) for path, _ in named_leaves(tree, name)]
                          for tree, name in zip((state, x), argument_names(cell, (state, x)))]
        held = {s._index: s for s in trace.tracer.held if isinstance(s, Symbol)}
        computed = held.keys() & given.keys() & self.program.values.keys()
        for index in sorted(computed - {w._index for w in trace.closed}):
            choose(held[index], given[index])
        after = [choose(leaf, f"{name}_next") for leaf, name in zip(flatten(pair[0])[0], before)]
        outputs = [choose(leaf, path) for path, leaf in named_leaves(pair[1], "y")]
        self.names_of = {"state": before, "x": inputs, "new state": after, "y": outputs}
        return symbols

    def plan(self) -> None:
        """Choose the values that the forward and the backward compute, and those that a record keeps."""
        program = self.program
        wanted = [*self.new_states, *self.ys, *(named.value for named in self.named.values())]
        totals = [named.total for named in [*self.named.values(), *self.leaving]]
        self.gradients = {a: program.gradients.get(a) or zeros_like(a) for a in [*self.arguments, *self.weights]}
        gradients = list(self.gradients.values())
        forward = in_order(wanted, set())
        backward = in_order(totals + gradients, set(forward))
        self.forward, self.backward = instructions(forward), instructions(backward)
        read = {*wanted, *totals, *gradients, *(a for value in backward for a in value.inputs)}
        self.recorded = [v for v in [*self.arguments, *forward] if v in read]
        seeds = [seed for seed in program.seeds.values() if not seed.is_constant]
        self.recorded_backward = [v for v in dict.fromkeys(seeds + totals) if v in {*seeds, *backward}]
        inputs = [a for value in forward + backward for a in value.inputs]
        self.constants = {a: a.constant for a in [*wanted, *totals, *gradients, *inputs] if a.is_constant}

    def seeds(self, gradients: Iterable[tuple[Value, Array]]) -> dict[Value, Array]:
        """[(result, its gradient)] → {seed of the backward program: gradient}"""
        seeds: dict[Value, Array] = {}
        for result, d in gradients:
            seed = self.program.seeds.get(result)
            if seed is not None:
                seeds[seed] = seeds[seed] + d if seed in seeds else d
        return seeds


STEP_PROGRAMS: weakref.WeakKeyDictionary[Compiled, StepProgram] = weakref.WeakKeyDictionary()


def step_program_of(run: ScanCall) -> StepProgram:
    """The StepProgram of a run's cell, made once per program of scan."""
    step = STEP_PROGRAMS.get(run.compiled)
    if step is None:
        firsts, pattern = run.first_step(list(map(example, run.leaves)), run.compiled.patterns)
        state, (x, mask) = unflatten(pattern, firsts)
        step = StepProgram(run.cell, state, x, mask, run.compiled.numbers)
        # closed-over tensors by identity, or by their position among those that the cell makes in a trace
        positions = {id(x): i for xs in (step.outside, run.supply) for i, x in enumerate(xs)}
        step.closed = [positions[id(x)] for x in step.tensors]
        del step.tensors, step.outside  # models of the same form share this program; do not hold one model's tensors
        STEP_PROGRAMS[run.compiled] = step
    return step


def can_be_built(symbol: Symbol, program: Program) -> bool:
    """Whether the symbol depends only on arguments of the program; dead code in the cell may use other tensors."""
    seen, stack = set(), [symbol]
    while stack:
        x = stack.pop()
        if x._index in program.values or x._index in seen:
            continue
        if not isinstance(x, Symbol) or x._inputs is None:
            return False
        seen.add(x._index)
        stack += [a for a in x._inputs if isinstance(a, Tensor)]
    return True


def weight_names(cell: Callable, tensors: list[Any], step: StepProgram) -> list[str]:
    """Names of the tensors and arrays that a cell closes over: from their module, or else from variables."""
    owner = getattr(cell, "__self__", None)
    own = {id(x): name for name, x in owner.named_parts()} if isinstance(owner, Module) else {}
    names: list[str] = []
    for tensor, otherwise in zip(tensors, step.fallbacks):
        names.append(free(own.get(id(tensor)) or getattr(tensor, "name", None) or otherwise, names))
    return names


def free(name: str, taken: Container[str]) -> str:
    """The name, with a number appended if it is taken."""
    numbered = (f"{name}_{n}" for n in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in taken)


def zeros_like(value: Value) -> Value:
    """A constant: the gradient of a value that has none."""
    return Value(None, (), {}, value.shape, value.dtype, constant=np.zeros(value.shape, value.dtype))


def instructions(values: list[Value]) -> list[tuple]:
    """Values as rows for `evaluate`: (value, function, inputs, metadata, index among several results, dtype)."""
    return [(value, value.op.forward, value.inputs, {key: given for key, given in value.metadata.items()
                                                     if key != "part"}, value.metadata.get("part"), value.dtype)
            for value in values]


def evaluate(program: list[tuple], env: dict[Value, Array]) -> None:
    """Compute the values in order, each in its own dtype: a Python float must not widen float32."""
    for value, forward, inputs, metadata, part, dtype in program:
        y = forward(*[env[a] for a in inputs], **metadata)
        if part is not None:
            y = y[part]
        env[value] = y if y.__class__ is Array and y.dtype == dtype else np.asarray(y, dtype)
