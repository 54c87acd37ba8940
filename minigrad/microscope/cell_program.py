"""The derived program of one step of a cell, run value by value, with the cell's own names.

Scan runs the same program with shared buffers (printers/numpy_loop.py). Here every value has its own array, and any
part of the program can run by itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.engine.ops import concatenate, getitem, matmul
from minigrad.engine.ops import sum as sum_op
from minigrad.engine.pytree import flatten, named_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.nn.module import Module
from minigrad.program.ir import Value, in_order
from minigrad.program.key import CellTracer
from minigrad.program.simplify import Program
from minigrad.program.trace import Symbol, Trace, argument_names
from minigrad.timeloop.compiled import Compiled, ScanCall, closed_over
from minigrad.timeloop.eager import one_step

Array = np.ndarray


@dataclass
class NamedValue:
    """A value of the program and its total gradient (None: zero). entering: index among the leaves of the old state;
    its gradient is that of the new state of the previous step."""

    value: Value
    total: Value | None
    entering: int | None = None


class StepProgram:
    """The derived program of one step of a cell, value by value.

    states, xs, weights   values of its arguments; a mask is the last of xs
    new_states, ys        values of its results
    named, leaving        {name: NamedValue}; the NamedValue of each new state
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
        self.program = program = Program(trace, getattr(cell, "__name__", type(cell).__name__))
        self.tensors = [closed_over(trace, w) for w in trace.closed]
        self.outside, self.fallbacks = trace.tracer.outside, [trace.closed_name(w) for w in trace.closed]
        symbols, n = trace.leaves, len(flatten(state)[0])
        self.arguments = [program.values[s._index] for s in symbols]
        self.states, self.xs = self.arguments[:n], self.arguments[n:]
        self.weights = [program.values[w._index] for w in trace.closed]
        self.new_states, self.ys = (flatten(tree)[0] for tree in program.result)
        program.build([s for s in trace.tracer.held if isinstance(s, Symbol) and can_be_built(s, program)])
        totals = {index: g for index, g in trace.tracer.total.items() if isinstance(g, Tensor)}
        self.name_values(cell, trace, pairs[-1], state, x)
        program.build([totals[index] for index in self.indices.values() if index in totals])

        def of(leaf: Any) -> NamedValue:
            """The NamedValue of a symbol."""
            value = program.value_of(leaf)
            if not isinstance(leaf, Symbol):  # the new state is a closed-over weight: use the state's gradient
                return NamedValue(value, program.seeds.get(value))
            total = totals.get(leaf._index)
            entering = next((i for i, s in enumerate(symbols[:n]) if s is leaf), None)
            return NamedValue(value, None if total is None else program.values[total._index], entering)

        symbols_held = [*symbols, *trace.tracer.held, *flatten(pairs[-1])[0]]
        by_index = {s._index: s for s in symbols_held if isinstance(s, Symbol)}
        self.named = {name: of(by_index[index]) for name, index in self.indices.items()}
        self.leaving = [of(leaf) for leaf in flatten(trace.result[0])[0]]
        self.plan()
        trace.close()

    def name_values(self, cell: Callable, trace: Trace, pair: tuple, state: Any, x: Any) -> None:
        """Choose {name: index of the symbol} for the arguments, then the computed values, then the results."""
        given, closed = trace.tracer.names, {w._index for w in trace.closed}
        chosen: dict[int, str] = {}

        def choose(leaf: Any, otherwise: str) -> str | None:
            if not isinstance(leaf, Symbol):
                return None
            if leaf._index not in chosen:
                chosen[leaf._index] = free(given.get(leaf._index, otherwise), chosen.values())
            return chosen[leaf._index]

        n, m = len(flatten(state)[0]), len(flatten(x)[0])
        own = argument_names(cell, (state, x))
        paths = [path for path, _ in named_leaves(state, own[0])], [path for path, _ in named_leaves(x, own[1])]
        before = [choose(leaf, path) for leaf, path in zip(trace.leaves[:n], paths[0])]
        inputs = [choose(leaf, path) for leaf, path in zip(trace.leaves[n:n + m], paths[1])]
        held = {s._index: s for s in trace.tracer.held if isinstance(s, Symbol)}
        for index in sorted(given):
            if index in self.program.values and index in held and index not in closed:
                choose(held[index], given[index])
        after = [choose(leaf, f"{name}_next") for leaf, name in zip(flatten(pair[0])[0], before)]
        outputs = [choose(leaf, path) for path, leaf in named_leaves(pair[1], "y")]
        self.names_of = {"state": before, "x": inputs, "new state": after, "y": outputs}
        self.indices = {name: index for index, name in chosen.items()}

    def plan(self) -> None:
        """Choose the values that the forward and the backward compute, and those that a record keeps."""
        program = self.program
        wanted = [*self.new_states, *self.ys, *(named.value for named in self.named.values())]
        totals = [n.total for n in [*self.named.values(), *self.leaving] if n.total is not None]
        gradients = [g for g in program.gradients.values() if g is not None]
        forward = in_order(wanted, set())
        backward = in_order(totals + gradients, set(forward))
        self.forward, self.backward = instructions(forward), instructions(backward)
        read = {*wanted, *totals, *gradients, *(a for value in backward for a in value.inputs)}
        self.recorded = [v for v in dict.fromkeys([*self.arguments, *forward]) if v in read]
        seeds = [seed for seed in program.seeds.values() if not seed.is_constant]
        self.recorded_backward = [v for v in dict.fromkeys(seeds + totals) if v in {*seeds, *backward}]
        self.constants = {a: a.constant for value in forward + backward for a in value.inputs if a.is_constant}

    def seeds(self, d_state: list, d_ys: list) -> dict[Value, Array]:
        """{seed of the backward program: gradient of its result}"""
        seeds: dict[Value, Array] = {}
        for result, d in zip(self.new_states + self.ys, [*d_state, *d_ys]):
            seed = self.program.seeds.get(result)
            if seed is not None:
                seeds[seed] = seeds[seed] + d if seed in seeds else d
        return seeds

    def gradient_of(self, argument: Value) -> Value:
        """dL/d(an argument) of one step in the backward program; a constant if it is zero."""
        return self.program.gradients.get(argument) or Value(
            None, (), {}, argument.shape, argument.dtype, constant=np.zeros(argument.shape, argument.dtype))

    def gradient(self, env: dict[Value, Array], argument: Value) -> Any:
        """The array of `gradient_of(argument)`."""
        return value_in(env, self.gradient_of(argument))

    def zeros(self, argument: Value, *lead: int) -> Array | None:
        """Zeros to accumulate the gradient of an argument; None if it has no gradient."""
        return np.zeros((*lead, *argument.shape), argument.dtype) if argument in self.program.gradients else None


STEP_PROGRAMS: weakref.WeakKeyDictionary[Compiled, StepProgram] = weakref.WeakKeyDictionary()


def step_program_of(run: ScanCall) -> StepProgram:
    """The StepProgram of a run's cell, made once per program of scan."""
    step = STEP_PROGRAMS.get(run.compiled)
    if step is None:
        n, m = run.sizes
        state = unflatten(run.patterns[0], run.values[:n])
        x = unflatten(run.patterns[1], [np.asarray(values[0]) for values in run.values[n:n + m]])
        step = StepProgram(run.cell, state, x, None if run.mask is None else run.mask[0], run.compiled.numbers)
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


def free(name: str, taken: Any) -> str:
    """The name, with a number appended if it is taken."""
    taken, candidate, n = set(taken), name, 1
    while candidate in taken:
        n += 1
        candidate = f"{name}_{n}"
    return candidate


def value_in(env: dict[Value, Array], value: Value) -> Any:
    return value.constant if value.is_constant else env[value]


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


def evaluate_stacked(program: list[tuple], env: dict[Value, Array], many: set[Value], count: int) -> None:
    """`evaluate` for `count` gradients at once. Values in `many` have one more, last axis of length `count`; values
    that depend on them are added to `many`. Common ops compute all gradients in one call, other ops one by one."""
    for instruction in program:
        value, forward, inputs, metadata, part, dtype = instruction
        if many.isdisjoint(inputs):
            evaluate([instruction], env)
            continue
        op, arrays = value.op, [env[a] for a in inputs]
        is_product = op is matmul.op and all(len(a.shape) == 2 for a in inputs)
        if op.elementwise and part is None:
            y = forward(*[aligned(x, a in many, len(value.shape)) for a, x in zip(inputs, arrays)])
        elif is_product and inputs[0] not in many:
            y = np.tensordot(arrays[0], arrays[1], 1)
        elif is_product and inputs[1] not in many:
            y = np.tensordot(arrays[1], arrays[0], ((0,), (1,))).swapaxes(0, 1)
        elif (op is sum_op.op and isinstance(metadata["axis"], int) and metadata["axis"] >= 0) or \
                (op is getitem.op and all(isinstance(i, (int, slice)) for i in metadata["index"])):
            y = forward(*arrays, **metadata)
        elif op is concatenate.op and metadata["axis"] is not None and metadata["axis"] >= 0:
            y = forward(*[x if a in many else np.broadcast_to(x[..., None], (*x.shape, count))
                          for a, x in zip(inputs, arrays)], **metadata)
        else:
            one_by_one = [forward(*[x[..., i] if a in many else x for a, x in zip(inputs, arrays)], **metadata)
                          for i in range(count)]
            y = np.stack(one_by_one if part is None else [parts[part] for parts in one_by_one], axis=-1)
        env[value] = np.asarray(y, dtype)
        many.add(value)


def aligned(x: Array, is_many: bool, ndim: int) -> Array:
    """Reshape an operand for broadcasting to a value of `ndim` axes followed by the axis of gradients."""
    shape = np.shape(x) if is_many else (*np.shape(x), 1)
    return np.reshape(x, (*(1,) * (ndim + 1 - len(shape)), *shape))
