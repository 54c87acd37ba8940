"""A scan inside a derived function: one op of its program, printed as two plain `for` loops.

The cell is traced once; its program is the loop body. The forward loop stores the values that the backward reads in
arrays over time, `concat[t] = …`. The backward loop passes the gradient of the state from each step to the previous
one. Weight gradients are summed after it: one product, or one sum, over all steps.

Values computed from closed-over values alone are loop invariants: they belong to the outer function, before the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minigrad.engine.backward import behind, data_of, needed_for, sweep
from minigrad.engine.context import recording, watcher
from minigrad.engine.messages import name_of
from minigrad.engine.op import PART, VJP
from minigrad.engine.ops import (
    add,
    broadcast_to,
    expand_dims,
    getitem,
    multiply,
    negative,
    reshape,
    subtract,
    transpose,
)
from minigrad.engine.ops import sum as sum_op
from minigrad.engine.ops.shape import shape_of
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor, wrap
from minigrad.program.analysis import (
    add_invariants,
    base,
    closure,
    is_invariant,
    is_slice,
    is_slice_or_transpose,
    sum_over_time,
)
from minigrad.program.ir import EINSUM, LOOP, Value, content_key, in_order, order_of_axes, without_detach
from minigrad.program.simplify import Program
from minigrad.program.trace import Symbol, TraceError, all_behind, argument_names, symbol


class ChangingCell(TypeError):
    """Two calls of a cell compute different things."""


# -- the trace: symbols ---------------------------------------------------------------------------------------


class Scan:
    """One call of `scan` while a function is traced: its cell on symbols. `Program` reads it as it reads a Trace.

    step(state, x, mask) is the cell with its checks, written_out(state, xs) the same scan step by step.
    Raises TraceError, and ChangingCell.
    """

    def __init__(self, cell: Callable, step: Callable, written_out: Callable, state: Any, xs: Any, mask: Any,
                 steps: int, reverse: bool):
        self.tracer, self.written_out = watcher.get(), written_out
        self.cell, self.name = cell, name_of(cell)
        self.steps, self.reverse, self.patterns = steps, reverse, (state, xs)
        self.starts, self.xs = flatten(state)[0], flatten(xs)[0] + ([] if mask is None else [mask])
        self.argument_names = argument_names(cell, (state, xs))
        self.call(step)
        first = self.signature
        self.call(step)
        if self.signature != first:  # compares the op sequence and the closed-over tensors
            raise ChangingCell("it makes new values at every call, as random numbers: pass them in through xs")
        self.own = needed_for(self.inputs, self.made)
        own_inputs = [a for x in self.made if x._index in self.own for a in x._inputs or ()]
        outside = [a for a in own_inputs + self.new if isinstance(a, Tensor) and a._index not in self.own]
        self.closed = list({a._index: a for a in outside}.values())
        self.y = [y for y in self.ys if self.is_made(y)]
        self.result = self.new, self.y
        self.outputs = [y for y in self.new + self.y if isinstance(y, Tensor)]
        self.given = [*self.starts, *self.xs, *self.closed]
        self.tracked = list(map(is_tracked, self.given))  # noted now, since a pull untracks its tensors afterwards
        self.seeds: dict[int, Symbol] = {}  # seeds and found as in a Trace, set by `gradients`
        self.found: dict[int, Any] = {}

    def call(self, step: Callable) -> None:
        """Call the cell on new symbols."""
        state, xs = self.patterns
        self.state = [symbol(self.tracer, x, x.dtype.kind in "fc", shape_of(start))
                      for x, start in zip(map(data_of, self.starts), self.starts)]
        self.x = [symbol(self.tracer, np.asarray(data_of(leaf)[0]), is_tracked(leaf), shape_of(leaf)[1:])
                  for leaf in self.xs]
        self.inputs = self.state + self.x
        mask = self.x[-1] if len(self.x) > len(flatten(xs)[0]) else None
        self.pattern = step(unflatten(state, self.state), unflatten(xs, self.x), mask)
        self.new, self.ys = (flatten(tree)[0] for tree in self.pattern)
        first, results = self.inputs[0]._index, self.new + self.ys
        self.made = all_behind(results, lambda x: x._index >= first)
        self.signature = signature(self.inputs, self.made, results)

    def is_made(self, y: Any) -> bool:
        """Whether a result of the cell depends on the step and is not merely one of its inputs from xs."""
        return isinstance(y, Tensor) and y._index in self.own and all(y is not x for x in self.x)

    @property
    def arguments(self) -> list[tuple[str, Any]]:
        """[(name, tree)], when the names are known."""
        state, xs = self.patterns
        n = len(flatten(xs)[0])
        trees = unflatten(state, self.state), unflatten(xs, self.x[:n])
        return [*zip(self.argument_names, trees), *(("mask", x) for x in self.x[n:]),
                *((x.name or self.tracer.names.get(x._index) or "weight", x) for x in self.closed)]

    # -- as one op of the function around it ------------------------------------------------------------------

    def on_graph(self) -> tuple[Any, Any]:
        """(final state, ys), symbols of the function around the loop."""
        over_time = [np.broadcast_to(y._array, (self.steps, *y.shape)) for y in self.y]
        data = tuple([y._array for y in self.new if isinstance(y, Tensor)] + over_time)
        tracked = self.tracked_results()
        metadata = {"scan": self, "backward": False}
        self.whole = self.tracer.made(data, any(tracked), LOOP, tuple(self.given), metadata)
        parts = iter([self.tracer.made(a, t, PART, (self.whole,), {"i": i})
                      for i, (a, t) in enumerate(zip(data, tracked))])
        state, ys = self.pattern
        return (unflatten(state, [next(parts) if isinstance(y, Tensor) else y for y in self.new]),
                unflatten(ys, [next(parts) if self.is_made(y) else self.repeated(y) for y in self.ys]))

    def repeated(self, y: Any) -> Any:
        """A result of the cell that needs no loop: xs itself, or a loop invariant, repeated."""
        for x, leaf in zip(self.x, self.xs):
            if y is x:
                return leaf
        y = y if isinstance(y, Tensor) else np.asarray(y)
        return broadcast_to(expand_dims(y, 0), (self.steps, *y.shape))

    def tracked_results(self) -> list[bool]:
        """Whether a gradient can flow from each result to a tracked input, at this step or through the state."""
        nodes = behind(self.outputs, self.closed)
        sources = [x for x, tracked in zip(self.inputs + self.closed, self.tracked) if tracked]
        while True:
            reached = needed_for(sources, nodes)
            more = [a for a, new in zip(self.state, self.new)
                    if isinstance(new, Tensor) and new._index in reached and a._index not in reached]
            if not more:
                return [y._tracked and y._index in reached and y.dtype.kind in "fc" for y in self.outputs]
            sources += more

    def gradients(self, g: tuple) -> list:
        """The rule of LOOP: a symbol, or None, for each input. The rules of the cell's ops run here, once."""
        tracer = self.tracer
        if not tracer.last:  # a gradient of this gradient may be asked for
            def results() -> list:
                state, xs = self.patterns
                final, ys = self.written_out(unflatten(state, self.starts), unflatten(xs, self.xs))
                return [*(y for y, new in zip(flatten(final)[0], self.new) if isinstance(new, Tensor)),
                        *(y for y, one in zip(flatten(ys)[0], self.ys) if self.is_made(one))]
            return pulled_back(results, g, self.given, self.tracked)
        self.arriving = [d if isinstance(d, Tensor) or np.any(d) else None for d in g]
        starting = {y._index: y for y, d in zip(self.outputs, self.arriving) if d is not None}
        while True:
            reached = {x._index for x in behind(list(starting.values()), self.closed)}
            more = {new._index: new for a, new in zip(self.state, self.new)
                    if isinstance(new, Tensor) and new._tracked and a._index in reached}
            if more.keys() <= starting.keys():
                break
            starting |= more
        self.seeds = {index: symbol(tracer, data_of(y), False, y.shape) for index, y in starting.items()}
        targets = [x for x in self.inputs + self.closed if x._tracked]
        current = tracer.current
        self.found = sweep(list(starting.values()), list(self.seeds.values()), targets, graph=True)
        tracer.current = current
        tracer.total.update(self.found)
        self.wanted = [i for i, (x, tracked) in enumerate(zip(self.inputs + self.closed, self.tracked))
                       if x._index in self.found and tracked]
        data = tuple(data_of(self.given[i]) for i in self.wanted)
        inputs = self.whole, *[d for d in self.arriving if d is not None]
        whole = tracer.made(data, False, LOOP, inputs, {"scan": self, "backward": True})
        out: list[Any] = [None] * len(self.given)
        for i, (place, a) in enumerate(zip(self.wanted, data)):
            out[place] = tracer.made(a, False, PART, (whole,), {"i": i})
        return out

    def shapes(self, backward: bool) -> list[tuple]:
        """The shapes of its parts."""
        if backward:
            return [shape_of(self.given[i]) for i in self.wanted]
        return [y.shape for y in self.new if isinstance(y, Tensor)] + [(self.steps, *y.shape) for y in self.y]

    def part(self, program: Program, backward: bool, i: int) -> Value:
        """The value of the i-th result of LOOP in a program."""
        loop = program.loops.get(self) or Loop(self, program)
        return loop.gradient(self.wanted[i]) if backward else loop.results[i]


def rule(g: tuple, y: Any, inputs: tuple, metadata: dict) -> list:
    return metadata["scan"].gradients(g)


def rule_on_arrays(g: tuple, y: Any, inputs: tuple, metadata: dict) -> list:
    raise TraceError("the values of a gradient of scan were asked for: while a function is traced its values are "
                     "unknown; take the gradient where gradients are recorded, not inside of no_grad")


LOOP.variadic, LOOP.arrays, LOOP.vjps = True, ("inputs",), [VJP(0, rule, rule_on_arrays, ())]


def pulled_back(run: Callable[[], list], g: tuple, inputs: list, tracked: list[bool]) -> list:
    """The recorded gradients of inputs, by a sweep from the results that `run` computes from them.

    tracked: which inputs were tracked when their scan was recorded. A pull (functional.pullback) untracks its own
    tensors once its function has run; for `run` and the sweep they are tracked again, as in a loop.
    """
    again = [x for x, was in zip(inputs, tracked) if was and not x._tracked]
    for x in again:
        x._tracked = True
    try:
        pairs = [(y, d if isinstance(d, Tensor) else wrap(d)) for y, d in zip(run(), g) if isinstance(y, Tensor)]
        targets = [x for x, was in zip(inputs, tracked) if was]
        found = sweep([y for y, _ in pairs], [d for _, d in pairs], targets, graph=True)
    finally:
        for x in again:
            x._tracked = False
    return [found.pop(x._index, None) if isinstance(x, Tensor) else None for x in inputs]  # once if it is there twice


def needed(roots: list[Value], before: Iterable[Value] = ()) -> tuple[list[Value], set[Value]]:
    """(values to compute for the roots, values that they read, with the roots)."""
    values = in_order(roots, set(before))
    return values, {a for v in values for a in v.inputs}.union(roots)


def is_tracked(x: Any) -> bool:
    return isinstance(x, Tensor) and x._tracked and recording.get()


def signature(inputs: list[Symbol], made: list[Tensor], results: list) -> tuple[tuple, list[int]]:
    """(key, equal for equal computations; indices of the closed-over tensors, which the key numbers)."""
    keys: dict[int, Any] = {x._index: i for i, x in enumerate(inputs)}
    outside: list[int] = []

    def key(a: Any) -> Any:
        if not isinstance(a, Tensor):
            return content_key(a)
        if a._index not in keys:
            keys[a._index] = "outside", len(outside)
            outside.append(a._index)
        return keys[a._index]
    ops = []
    for x in made:
        if x._index not in keys:
            ops.append((x._op, *map(key, x._inputs), content_key(x._metadata, metadata_key), x._tracked)
                       if x._op is not None else content_key(x._array))
            keys[x._index] = "made", len(ops)
    return (*ops, *map(key, results)), outside


def metadata_key(x: Any) -> Any:
    return (x.steps, x.reverse, x.signature[0]) if isinstance(x, Scan) else repr(x)


# -- the program: values --------------------------------------------------------------------------------------


class Loop:
    """A scan in a Program: two Values, `forward` and `backward`, whose PARTs are the outputs of the two loops.

    inner        the Program of one step
    around       {argument of inner: the Value around the loop} for xs, for closed-over values, and for a state that
                 never changes; start: the other states before the first step
    final[k]     the k-th state after the last step          stack[v]     v of every step, (T, …)
    d_start[k]   dL/d(the k-th state before the first step)  d_stack[v]   the same in the backward
                                                             d_sum[v]     Σ v over the steps

    `prune` finds the outputs that are read: stacks and d_stacks, ends and d_ends (which states), d_sums. From these it
    finds the values that a step computes (lines, d_lines), the states that it passes on (live, d_live), the values that
    it reads, and arrivals: for each result of the step the sources of its gradient, ([k of states], [j of ys]).
    """

    def __init__(self, scan: Scan, outer: Program):
        outer.loops[scan] = self
        self.scan, self.outer, self.steps = scan, outer, scan.steps
        self.inner = inner = Program(scan, scan.name)
        self.state, self.x, self.closed = ([inner.values[x._index] for x in symbols]
                                           for symbols in (scan.state, scan.x, scan.closed))
        self.new, self.y = ([inner.value_of(y) for y in ys] for ys in (scan.new, scan.y))
        self.name_states()
        given = [outer.value_of(x) for x in scan.given]
        self.start = given[:len(self.state)]
        unchanged = [a for a, new in zip(self.state, self.new) if a is new]
        self.around = dict(zip(self.x + self.closed, given[len(self.state):]))
        self.around |= {a: start for a, start in zip(self.state, self.start) if a in unchanged}
        self.invariant = {*self.closed, *unchanged}
        add_invariants(self.invariant, inner.forward + inner.backward)
        self.forward = Value(LOOP, tuple(given), {"loop": self, "backward": False}, (), None)
        outer.values[scan.whole._index] = self.forward
        self.final = [self.part(self.forward, a) for a in self.state]
        self.stack = self.stacked(self.forward, self.state + inner.forward)
        self.d_state = [inner.gradients.get(a) for a in self.state]  # dL/d(the state before the step)
        self.backward: Value | None = None  # until it is requested
        self.d_stack, self.plain_seeds, self.arrivals, self.d_read = {}, {}, {}, set()
        self.d_lines, self.d_stacks, self.d_sums, self.d_ends, self.d_live, self.views = [], [], [], [], [], []
        self.results = [start if a in unchanged else final for a, start, final, new in zip(
            self.state, self.start, self.final, scan.new) if isinstance(new, Tensor)]
        self.results += [self.over_time(y) for y in self.y]

    def part(self, whole: Value, like: Value, over_time: bool = False) -> Value:
        shape = (self.steps, *like.shape) if over_time else like.shape
        return Value(PART, (whole,), {}, shape, like.dtype, tracked=whole is self.forward and like.tracked)

    def stacked(self, whole: Value, values: list[Value]) -> dict[Value, Value]:
        return {v: self.part(whole, v, over_time=True) for v in values if v.op is not LOOP}

    def name_states(self) -> None:
        """Name the states h_prev, h and h_last, if the cell has one name for the old and the new state, or none."""
        names, tree = self.scan.tracer.names, self.inner.arguments[0][1]
        nameless = isinstance(tree, tuple)
        self.end_names = []
        for a, x, new in zip(self.state, self.scan.state, self.new):
            new = without_detach(new)
            own = new.name if new.op is not None else None
            if own and (a.name == own or (nameless and x._index not in names)):
                a.name = f"{own}_prev"
            plain = own or a.name.removesuffix("_prev")
            self.end_names.append(f"{plain}_last")
            if new.op is not None and new.name is None:
                new.name = f"{plain}_next"

    def name_given(self) -> None:
        """Name transposed xs, so they are transposed once and not at every step."""
        for value in map(self.around.get, self.x):
            if value.name is None and value.op is transpose.op:
                value.name = "xs"

    def begin_backward(self) -> None:
        """Make the Values of the backward, once the gradients of the results are known."""
        scan = self.scan
        arriving = iter([None if d is None else self.outer.value_of(d) for d in scan.arriving])
        self.d_final = [next(arriving) if isinstance(new, Tensor) else None for new in scan.new]
        self.d_y = list(arriving)
        self.backward = Value(LOOP, (), {"loop": self, "backward": True}, (), None)
        self.backward.origin = self.forward
        # the gradient of a result that is only a y is already stacked in d_y[j]
        places = {y: [j for j, one in enumerate(self.y) if one is y and self.d_y[j] is not None] for y in self.y}
        self.plain_seeds = {seed: self.d_y[places[y][0]] for y, seed in self.inner.seeds.items()
                            if y not in self.new and len(places[y]) == 1}
        made = [*self.inner.seeds.values(), *self.inner.backward]
        self.d_start = [self.part(self.backward, a) for a in self.state]
        self.d_stack = self.stacked(self.backward, made)
        self.d_sum = {v: self.part(self.backward, v) for v in made}
        # gradients of computed values: they have names, and so have their arrays
        self.totals = {g for v, g in self.inner.total.items() if v.op is not None} | set(self.inner.seeds.values())

    def gradient(self, i: int) -> Value:
        """dL/d(the i-th input of the scan)."""
        if self.backward is None:
            self.begin_backward()
        if i < len(self.state):
            return self.d_start[i]
        inside = [*self.state, *self.x, *self.closed][i]
        g = self.inner.gradients[inside]
        return self.over_time(g) if inside in self.x else self.summed(g)

    # -- values of the outer function: all steps at once -----------------------------------------------------------

    def lifted(self, v: Value) -> Value:
        """A loop invariant, as a value of the outer function."""
        if v.op is None:
            return self.around.get(v, v)
        return self.outer.apply(v.op, tuple(map(self.lifted, v.inputs)), v.metadata, v.shape, v.dtype, v.tracked)

    def over_time(self, v: Value) -> Value:
        """All steps of a value, (T, …)."""
        if is_invariant(v, self.invariant):
            shape = self.steps, *v.shape
            return self.outer.apply(broadcast_to.op, (self.lifted(v),), {"shape": shape}, shape, v.dtype, v.tracked)
        there = next(those for those in (self.plain_seeds, self.stack, self.d_stack, self.around) if v in those)
        return there[v]

    def summed(self, g: Value) -> Value:
        """Σ g over the steps: after the loop if it is a product or the sum of an array over time, else accumulated in
        the loop."""
        return self.gathered(g) or self.d_sum[g]

    def gathered(self, g: Value) -> Value | None:
        outer = self.outer
        if is_invariant(g, self.invariant):
            return outer.apply(multiply.op, (self.lifted(g), outer.value_of(self.steps)), {}, g.shape, g.dtype)
        if g in self.totals:
            metadata = {"axis": 0, "keepdims": False}
            return outer.apply(sum_op.op, (self.over_time(g),), metadata, g.shape, g.dtype)
        term = sum_over_time(g, lambda a: True, lambda a: base(a, is_slice_or_transpose) in self.totals)
        if term.how == "product":
            return self.product(g)
        if term.how == "sum":
            return self.sum(g, term.axes)
        if g.op in (negative.op, transpose.op, reshape.op):
            x = self.gathered(g.inputs[0])
            return None if x is None else outer.apply(g.op, (x,), g.metadata, g.shape, g.dtype)
        if g.op in (add.op, subtract.op) and all(a.shape == g.shape for a in g.inputs):
            terms = [self.gathered(a) for a in g.inputs]
            if any(terms):
                terms = [term or self.d_sum[a] for term, a in zip(terms, g.inputs)]
                return outer.apply(g.op, tuple(terms), {}, g.shape, g.dtype)
        return None

    def product(self, g: Value) -> Value:
        """Σ A B over the steps, as one product."""
        (a, of_a), (b, of_b) = (self.operand(x, letters) for x, letters in zip(g.inputs, ("ib", "bj")))
        return self.outer.apply(EINSUM, (a, b), {"subscripts": f"{of_a},{of_b}->ij"}, g.shape, g.dtype)

    def sum(self, g: Value, axes: tuple) -> Value | None:
        """Σ over the steps of a sum, as one sum."""
        letters = "abcdefgh"[:len(g.inputs[0].shape)]
        x, of_x = self.operand(g.inputs[0], letters)
        if of_x != f"t{letters}":
            return None
        metadata = {"axis": (0, *(a + 1 for a in axes)), "keepdims": g.metadata["keepdims"]}
        if not metadata["keepdims"]:
            return self.outer.apply(sum_op.op, (x,), metadata, g.shape, g.dtype)
        y = self.outer.apply(sum_op.op, (x,), metadata, (1, *g.shape), g.dtype)
        return self.outer.apply(getitem.op, (y,), {"index": (0,)}, g.shape, g.dtype)

    def operand(self, v: Value, letters: str) -> tuple[Value, str]:
        """(array over time, its einsum subscripts) for `v`, looking through views."""
        if is_invariant(v, self.invariant):
            return self.lifted(v), letters
        if is_slice(v):
            x, of_x = self.operand(v.inputs[0], letters)
            if of_x == f"t{letters}":
                index = {"index": (slice(None), *v.metadata["index"])}
                return self.outer.apply(getitem.op, (x,), index, (self.steps, *v.shape), v.dtype), of_x
        if v.op is transpose.op:
            axes = order_of_axes(v.metadata["axes"], len(letters))
            return self.operand(v.inputs[0], "".join(letters[axes.index(a)] for a in range(len(letters))))
        return self.over_time(v), f"t{letters}"

    def is_view_of_stack(self, a: Value) -> bool:
        """Whether the backward reads a value of the forward as a view of another that is stacked."""
        return a in self.stack and a not in self.y and is_slice_or_transpose(a)

    # -- liveness: the outputs that are read, and what they need --------------------------------------------------

    def prune(self, whole: Value, asked: set[Value]) -> None:
        if whole is self.backward:
            self.prune_backward(asked)
        else:
            self.prune_forward(asked)

    def prune_forward(self, asked: set[Value]) -> None:
        self.stacks = [v for v, part in self.stack.items() if part in asked]
        self.ends = [k for k, part in enumerate(self.final) if part in asked]

        def read(live: set[int]) -> set[int]:
            self.lines, self.read = needed([*self.stacks, *(self.new[k] for k in live)])
            return {k for k, a in enumerate(self.state) if a in self.read and a not in self.around}
        self.live = sorted(closure(set(self.ends), read))
        starts = [self.start[k] for k in self.live]
        self.forward.inputs = (*starts, *(value for a, value in self.around.items() if a in self.read))

    def prune_backward(self, asked: set[Value]) -> None:
        self.d_stacks = [v for v, part in self.d_stack.items() if part in asked]
        self.d_sums = [v for v, part in self.d_sum.items() if part in asked]
        self.d_ends = [k for k, part in enumerate(self.d_start) if part in asked]

        def arriving(live: set[int]) -> set[int]:
            carried = [self.d_state[k] for k in live if self.d_state[k] is not None]
            self.d_lines, self.d_read = needed([*self.d_stacks, *self.d_sums, *carried], self.inner.forward)
            return {k for k, new in enumerate(self.new) if self.inner.seeds.get(new) in self.d_read
                    and (self.d_final[k] is not None or self.d_state[k] is not None)}
        self.d_live = sorted(closure(set(self.d_ends), arriving))
        seeds = [y for y, seed in self.inner.seeds.items() if seed in self.d_read]
        self.arrivals = {y: ([k for k in self.d_live if self.new[k] is y],
                             [j for j, one in enumerate(self.y) if one is y and self.d_y[j] is not None])
                         for y in seeds}
        read, self.d_read = self.d_read, {base(a, self.is_view_of_stack) for a in self.d_read}
        self.views = in_order(list(read), self.d_read)
        d_final = [self.d_final[k] for k in self.d_live if self.d_final[k] is not None]
        d_y = [self.d_y[j] for _, places in self.arrivals.values() for j in places]
        kept = [part for v, part in self.stack.items() if v in self.d_read and v not in self.around]
        around = [value for a, value in self.around.items() if a in self.d_read]
        self.backward.inputs = (*d_final, *d_y, *kept, *around)
