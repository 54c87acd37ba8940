"""Build a program from a trace, simplified: common subexpressions are shared, constants are folded, and ops that do
nothing (a cast to the same type, a sum over no axis, x · 1) are left out.

Each simplification is exact and makes the text shorter; most also make it faster.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from minigrad.engine.op import PART, Op
from minigrad.engine.ops import (
    add,
    astype,
    broadcast_to,
    concatenate,
    copy,
    divide,
    getitem,
    multiply,
    negative,
    power,
    reshape,
    scatter,
    split,
    subtract,
    sum_to,
    transpose,
)
from minigrad.engine.ops import sum as sum_op
from minigrad.engine.ops.indexing import settled
from minigrad.engine.pytree import map_leaves
from minigrad.engine.tensor import Tensor
from minigrad.program.analysis import terms_of
from minigrad.program.ir import DETACH, LOOP, Value, content_key, in_order, is_number, order_of_axes, without_detach
from minigrad.program.sizes import cuts
from minigrad.program.trace import Symbol, Trace, all_behind


class Program:
    """The forward and backward of one function, as lists of values in the order of computing.

    arguments  [(name, tree of Values)];  result: tree of Values
    seeds      {result Value: the Value of its gradient};  gradients: {argument Value: Value, or None for zeros}
    total      {forward Value: its complete gradient}
    loops      {scan of the trace: its Loop}
    """

    def __init__(self, trace: Trace, name: str):
        self.name = name
        self.values: dict[int, Value] = {}  # by the index of the symbol
        self.known: dict[tuple, Value] = {}
        self.loops: dict[Any, Any] = {}
        tracer = trace.tracer
        self.given, self.written, self.size_names = tracer.names, tracer.written, tracer.size_names
        self.end_of_forward = min((seed._index for seed in trace.seeds.values()), default=sys.maxsize)
        self.arguments = [(argument, self.argument_tree(tree, argument)) for argument, tree in trace.arguments]
        self.build(trace.outputs)
        self.result = map_leaves(self.value_of, trace.result)
        self.seeds = {}
        for index, seed in trace.seeds.items():
            result = self.values[index]
            # two results that turned out to be one value: the first seed is the sum of both, the second nothing
            again = np.zeros(seed.shape, seed.dtype) if result in self.seeds else None
            self.values[seed._index] = value = Value(None, (), {}, seed.shape, seed.dtype, again)
            self.seeds.setdefault(result, value)
        self.build(list(trace.found.values()))
        self.gradients = {self.values[x._index]: self.values[trace.found[x._index]._index]
                          if x._index in trace.found else None
                          for x in trace.inputs + trace.closed if x._tracked}
        results = [self.values[y._index] for y in trace.outputs]
        gradients = [g for g in self.gradients.values() if g is not None]
        self.prune_loops(results + gradients)
        kept = [v for v in in_order(gradients, set()) if v.op is PART and not v.inputs[0].metadata["backward"]]
        self.forward = in_order(results + kept, set())
        self.backward = in_order(gradients, set(self.forward))
        self.total = {}
        for index, g in tracer.total.items():
            if index in self.values and isinstance(g, Tensor) and g._index in self.values:
                self.total.setdefault(self.values[index], self.values[g._index])
        for index, origin in tracer.origin.items():
            if index in self.values and origin in self.values and self.values[index].origin is None:
                self.values[index].origin = self.values[origin]
        for index, given in tracer.names.items():
            value = self.values.get(index)
            if value is not None and value.name is None and value not in self.seeds.values():
                value.name = given
        for loop in self.loops.values():
            loop.name_given()

    # -- from symbols to values ---------------------------------------------------------------------------

    def argument_tree(self, tree: Any, name: str) -> Any:
        if isinstance(tree, dict):
            return {key: self.argument_tree(child, str(key)) for key, child in tree.items()}
        if isinstance(tree, (tuple, list)):
            named = [self.given.get(child._index, f"{name}{i}") if isinstance(child, Tensor) else f"{name}{i}"
                     for i, child in enumerate(tree)]  # `a_prev, c_prev = state`
            return tuple(self.argument_tree(child, own) for child, own in zip(tree, named))
        if not isinstance(tree, Tensor):
            return tree
        value = Value(None, (), {}, tree.shape, tree.dtype, name=name, tracked=tree._tracked)
        self.values[tree._index] = value
        return value

    def build(self, roots: list[Tensor]) -> None:
        """Make the values that the roots need, the oldest first."""
        for x in all_behind(roots, lambda x: isinstance(x, Symbol) and x._index not in self.values,
                            lambda x: (*x._inputs, self.written.get(x._index))):
            if not isinstance(x._array, tuple):
                self.values[x._index] = self.made(x)

    def made(self, x: Tensor) -> Value:
        """The value of a symbol that an op made."""
        if x._index in self.written:
            return self.value_of(self.written[x._index])
        if x._op is PART:
            return self.part(x)
        inputs = tuple(self.value_of(a) for a in x._inputs)
        return self.apply(x._op, inputs, x._metadata, x.shape, x.dtype, self.is_tracked(x))

    def is_tracked(self, x: Tensor) -> bool | None:
        """Whether a gradient flows to a symbol of the forward; None in the backward, where it does not matter."""
        return x._tracked if x._index < self.end_of_forward else None

    def value_of(self, x: Any) -> Value:
        if isinstance(x, Tensor):
            return self.values[x._index]
        shape = np.shape(x)
        return Value(None, (), {}, shape, getattr(x, "dtype", None), constant=x)

    def part(self, x: Tensor) -> Value:
        """The value of one of several results; a part of a split is a slice."""
        (whole,), i = x._inputs, x._metadata["i"]
        if whole._op is LOOP:
            return whole._metadata["scan"].part(self, whole._metadata["backward"], i)
        if whole._op is not split.op:
            inputs, metadata = tuple(self.value_of(a) for a in whole._inputs), {**whole._metadata, "part": i}
            return self.apply(whole._op, inputs, metadata, x.shape, x.dtype, self.is_tracked(x))
        axis = whole._metadata["axis"] % len(x.shape)
        ends = cuts(whole._inputs[0].shape[axis], whole._metadata["indices_or_sections"])
        last = i == len(whole._array) - 1
        index = (*[slice(None)] * axis, slice(ends[i] or None, None if last else ends[i + 1]))
        inputs = (self.value_of(whole._inputs[0]),)
        return self.apply(getitem.op, inputs, {"index": index}, x.shape, x.dtype, self.is_tracked(x))

    def prune_loops(self, roots: list[Value]) -> None:
        """Let each loop compute only the results that are read; the youngest first, since it reads others."""
        wholes = [whole for loop in self.loops.values() for whole in (loop.forward, loop.backward) if whole is not None]
        for whole in sorted(wholes, key=lambda whole: -whole.number):
            whole.metadata["loop"].prune(whole, {v for v in in_order(roots, set()) if v.inputs == (whole,)})

    # -- simplification -----------------------------------------------------------------------------------

    def apply(self, op: Op, inputs: tuple[Value, ...], metadata: dict, shape: tuple, dtype: Any,
              tracked: bool | None = None) -> Value:
        """The value of op(*inputs): a known one, a simpler one, or a new one.

        tracked: whether a gradient flows to it; None in the backward, where it does not matter.
        """
        if op in (getitem.op, scatter.op):
            metadata = {**metadata, "index": settled(metadata["index"])}
        if not tracked:  # only its numbers matter
            inputs = tuple(map(without_detach, inputs))
        value = None if "part" in metadata else self.simpler(op, inputs, metadata, shape, dtype, tracked)
        if value is None:
            inputs = self.without_broadcast(op, inputs, shape, tracked)
            value = self.known_or_new(op, inputs, metadata, shape, dtype, tracked)
        return self.detached(value) if tracked is False else value

    def known_or_new(self, op: Op, inputs: tuple[Value, ...], metadata: dict, shape: tuple, dtype: Any,
                     tracked: bool | None) -> Value:
        key = op, tuple(content_key(a.constant) if a.is_constant else a for a in inputs), content_key(metadata)
        for known in (True,) if tracked else (True, False):
            if (key, known) in self.known:
                return self.known[key, known]
        value = self.known[key, bool(tracked)] = Value(op, inputs, metadata, shape, dtype, tracked=bool(tracked))
        return value

    def detached(self, x: Value) -> Value:
        """x without its gradient."""
        return self.known_or_new(DETACH, (x,), {}, x.shape, x.dtype, False) if x.tracked else x

    def simpler(self, op: Op, inputs: tuple[Value, ...], metadata: dict, shape: tuple, dtype: Any,
                tracked: bool | None) -> Value | None:
        def again(op: Op, *inputs: Value, **metadata: Any) -> Value:
            return self.apply(op, inputs, metadata, shape, dtype, tracked)

        def is_op(x: Value, other: Op) -> bool:
            """Whether this op made x from one input, and the gradient of x flows on to that input."""
            return x.op is other and (tracked is None or x.tracked or not x.inputs[0].tracked)

        x = inputs[0] if inputs else None
        if inputs and all(a.is_constant for a in inputs):
            with np.errstate(all="ignore"):
                return self.value_of(op.forward(*(a.constant for a in inputs), **metadata))
        if op is copy.op or (op is astype.op and x.dtype == dtype) or (
                op in (reshape.op, broadcast_to.op, sum_to.op) and x.shape == shape):
            return x
        if op is reshape.op and is_op(x, op):
            return again(op, *x.inputs, **metadata)
        if op is sum_to.op and dtype != np.float16:  # whose sum is in float32
            return self.summed(x, shape, dtype, tracked)
        if op is transpose.op:
            order = order_of_axes(metadata["axes"], len(shape))
            if is_op(x, op):
                order = [order_of_axes(x.metadata["axes"], len(shape))[a] for a in order]
                x, = x.inputs
            if order == list(range(len(shape))):
                return x
            axes = None if order == list(range(len(shape)))[::-1] else tuple(order)
            if x is not inputs[0] or axes != metadata["axes"]:
                return again(op, x, axes=axes)
        if op in (getitem.op, scatter.op) and x.shape == shape and all(
                i is Ellipsis or (isinstance(i, slice) and i.step in (None, 1)) for i in metadata["index"]):
            return x
        if op is concatenate.op and metadata["axis"] is None:
            return again(op, *[self.flat(a, tracked) for a in inputs], axis=0)
        if op is negative.op and is_op(x, op):
            return x.inputs[0]
        same = inputs and (x.shape, x.dtype) == (shape, dtype)
        if op in (multiply.op, divide.op, power.op) and is_number(inputs[1], 1) and same:
            return x
        if op is multiply.op and is_number(x, 1) and inputs[1].shape == shape and inputs[1].dtype == dtype:
            return inputs[1]
        if op is add.op:
            for one, other in (inputs, inputs[::-1]):
                if tracked is None and is_number(other, 0) and one.shape == shape and one.dtype == dtype:
                    return one  # in a forward −0.0 + 0 is 0.0
                if is_op(other, negative.op):
                    return again(subtract.op, one, other.inputs[0])
            if tracked is None and (joined := self.joined([*terms_of(x), *terms_of(inputs[1])], shape, dtype)):
                return joined
        if op is subtract.op and is_op(inputs[1], negative.op):
            return again(add.op, x, inputs[1].inputs[0])
        return None

    def joined(self, terms: list[Value], shape: tuple, dtype: Any) -> Value | None:
        """The concatenation of slices scattered into zeros and added, if they fill the shape without a gap."""
        pieces = [piece for x in terms if x.shape == shape and (piece := scattered_slice(x)) is not None]
        if len(pieces) < len(terms) or len({axis for axis, *_ in pieces}) > 1:
            return None
        axis, pieces = pieces[0][0], sorted(pieces, key=lambda piece: piece[1])
        ends = [0, *(stop for _, _, stop, _ in pieces)]
        if [start for _, start, _, _ in pieces] != ends[:-1] or ends[-1] != shape[axis]:
            return None
        return self.apply(concatenate.op, tuple(x for *_, x in pieces), {"axis": axis}, shape, dtype)

    def summed(self, x: Value, shape: tuple, dtype: Any, tracked: bool | None) -> Value:
        """sum_to, in NumPy's words: a sum over axes, and a reshape where leading axes go too."""
        added = len(x.shape) - len(shape)
        stretched = tuple(added + a for a, n in enumerate(shape) if n == 1 != x.shape[added + a])
        axes = tuple(range(added)) + stretched
        if not added or not stretched:
            kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape)) if not added else shape
            axis = axes[0] if len(axes) == 1 else axes
            return self.apply(sum_op.op, (x,), {"axis": axis, "keepdims": not added}, kept, dtype, tracked)
        kept = tuple(n for a, n in enumerate(x.shape) if a not in axes)
        y = self.apply(sum_op.op, (x,), {"axis": axes, "keepdims": False}, kept, dtype, tracked)
        return self.apply(reshape.op, (y,), {"shape": shape}, shape, dtype, tracked)

    def flat(self, x: Value, tracked: bool | None) -> Value:
        """x in one axis, tracked if both x and the result are."""
        size = (math.prod(x.shape),)
        return self.apply(reshape.op, (x,), {"shape": size}, size, x.dtype, tracked and x.tracked)

    def without_broadcast(self, op: Op, inputs: tuple[Value, ...], shape: tuple, tracked: bool | None
                          ) -> tuple[Value, ...]:
        """Drop broadcasts before an elementwise op, which broadcasts itself."""
        if not op.elementwise:
            return inputs
        out = list(inputs)
        for i, a in enumerate(out):
            if a.op is broadcast_to.op and (tracked is None or a.tracked or not a.inputs[0].tracked):
                others = [b.shape for j, b in enumerate(out) if j != i]
                if np.broadcast_shapes(*others, a.inputs[0].shape) == shape:
                    out[i] = a.inputs[0]
        return tuple(out)


def scattered_slice(x: Value) -> tuple[int, int, int, Value] | None:
    """(axis, start, stop, slice) of a slice along one axis that is scattered into zeros; None for any other value."""
    if x.op is not scatter.op or not all(isinstance(i, slice) and i.step in (None, 1) for i in x.metadata["index"]):
        return None
    bounds = [i.indices(n) for i, n in zip(x.metadata["index"], x.shape)]
    cut = [axis for axis, ((start, stop, _), n) in enumerate(zip(bounds, x.shape)) if (start, stop) != (0, n)]
    return (cut[0], *bounds[cut[0]][:2], x.inputs[0]) if len(cut) == 1 else None
