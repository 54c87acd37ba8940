"""A cell's program as two loops over time that write into buffers: what `scan` runs.

The values are those of the program that `derive` prints; here each gets a place.
1. What the backward needs lies in stacks over time, everything else in buffers, used again once a value is dead.
2. A slice is a view of its parent; what feeds a concatenation is written straight into its place there, also the
   state that the next step concatenates. Views are made once for a set of buffers, not at every step.
3. What does not change with time is computed before the loop, transposes as contiguous copies.
4. A weight's gradient that is a sum over time of products is one product for a block of steps, a bias's one sum.
5. What a step needs and does not wait for, in the backward all factors like c_prev f (1 − f), is computed for a block
   of steps at once, few large calls in place of many small ones. For that, (g x) y is computed as g (x y).
6. Every statement computes in the dtype of its value.
Each pass is exact up to the order of sums and products; each can be switched off (`Options`).
"""

from __future__ import annotations

import itertools
import linecache
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minigrad.engine.op import Op
from minigrad.engine.ops import add, concatenate, getitem, matmul, power, transpose
from minigrad.engine.ops import sum as sum_op
from minigrad.printers.buffers import ALL_PASSES, Options, Place, Scope, can_be_buffered, empty, part_paths
from minigrad.printers.module_text import RESERVED, called_functions, module_text
from minigrad.printers.readable import values_in
from minigrad.printers.statements import Loop
from minigrad.printers.text import bracket, dtype_text
from minigrad.program.reassociate import Reassociated
from minigrad.program.simplify import DETACH, Program, Value, in_order, numbers_of

BLOCK_COLUMNS = 256  # that one gathered product should have at least: steps × batch
BLOCK_BYTES = 1 << 20  # of what is computed ahead, so that it still lies in the cache when its step comes

number = itertools.count(1).__next__  # of the compiled texts


@dataclass(frozen=True)
class Term:
    """How one term of a weight's gradient is summed over time: a "product" of two stacks, a "sum" of a stack over some
    axes of each step too, or the value of each "step" added by itself."""

    how: str
    values: tuple[Value, ...]
    axes: tuple[int, ...] = ()


class Plan:
    """The loops of one cell `(state, x) → (state, y)` at given shapes.

    wanted     the argument values whose gradients are asked for; with none, there is no backward and nothing is stacked
    source     the text: `make` and `make_backward` make the arrays in which `forward` and `backward` run
    constants  what it names and does not hold
    """

    def __init__(self, program: Program, wanted: set[Value], options: Options = ALL_PASSES):
        self.program, self.options = program, options
        self.scope = Scope(program, options, RESERVED | called_functions())
        self.places, self.invariant, self.base = self.scope.places, self.scope.invariant, self.scope.base
        (_, state), (_, x), *closed = program.arguments
        self.state, self.x, self.closed = values_in(state), values_in(x), [tree for _, tree in closed]
        self.results = tuple(values_in(tree) for tree in program.result)  # new states and ys, each with its gradient
        self.new_state, self.y = (list(map(numbers_of, values)) for values in self.results)
        self.values = [v for v in program.forward if v.op is not DETACH]
        self.gradients = {a: g for a, g in program.gradients.items()
                          if g is not None and (a in wanted or a in self.state)}
        self.differentiated = bool(wanted)
        self.choose()
        self.forward = self.write_forward()
        self.backward = self.write_backward() if self.differentiated else None
        self.constants = self.scope.constants
        self.source = module_text(program.name, list(map(self.scope.name, self.closed)),
                                  list(self.scope.emitter.helpers.values()), self.forward, self.backward)

    def results_that_depend(self, wanted: set[Value]) -> list[bool]:
        """For each new state and each y, whether a gradient can go from it to one of these values, at this step or
        through the state at an earlier one."""
        depends = set(wanted)
        for _ in range(len(self.state) + 1):
            for value in self.program.forward:
                if not depends.isdisjoint(value.onward):
                    depends.add(value)
            depends.update(a for a, new in zip(self.state, self.results[0]) if new in depends)
        return [value in depends for values in self.results for value in values]

    # -- what is computed when ------------------------------------------------------------------------------

    def choose(self) -> None:
        """Sort out what is invariant, how weight gradients are summed, and what the backward keeps of the forward."""
        program, names = self.program, self.scope.emitter.names
        if self.options.ahead and self.differentiated:
            reassociated = Reassociated(program, self.gradients)
            self.gradients = reassociated.gradients
            for value, new in reassociated.known.items():  # the same value, by another way: it keeps its name
                if value in names and new not in names and new.op is not None:
                    names[new] = names[value]
        self.values_backward: list[Value] = []
        if self.differentiated:
            self.values_backward = in_order(list(self.gradients.values()), set(program.forward))
        self.invariant.update(self.closed)
        for value in [*self.values, *self.values_backward]:
            if self.options.hoisted and all(a.is_constant or a in self.invariant for a in value.inputs):
                self.invariant.add(value)
        self.sums: dict[Value, list[Term]] = {}  # by weight
        self.kept: set[Value] = set()
        self.steps_backward: list[Value] = []
        if not self.differentiated:
            return
        roots = []
        for a, g in self.gradients.items():
            if a in self.closed:
                self.sums[a] = [self.summed(term) for term in self.terms(g)]
                roots += [v for term in self.sums[a] for v in term.values]
            else:
                roots.append(g)
        gathered = {v for terms in self.sums.values() for term in terms if term.how != "step" for v in term.values}
        for a, terms in self.sums.items():  # what lies in a stack anyway need not be added up step by step
            self.sums[a] = [replace(term, how="sum") if term.how == "step" and term.values[0] in gathered else term
                            for term in terms]
        backward = in_order(roots, set(program.forward))
        self.steps_backward = [v for v in backward if v not in self.invariant]
        own = set(backward) | set(program.seeds.values())
        read = {self.base(a) for v in backward for a in v.inputs} | {self.base(v) for v in roots}
        self.kept = {a for a in read if not a.is_constant and a not in own and a not in self.invariant}

    def terms(self, g: Value) -> list[Value]:
        """A gradient as a sum of terms."""
        if self.options.gathered and g.op is add.op and all(a.shape == g.shape for a in g.inputs):
            return [term for a in g.inputs for term in self.terms(a)]
        return [g]

    def summed(self, v: Value) -> Term:
        if self.options.gathered and v.op is not None and v not in self.invariant:
            if v.op is matmul.op and all(len(a.shape) == 2 and 0 not in a.shape and self.stackable(a)
                                             and self.base(a) not in self.invariant for a in v.inputs):
                return Term("product", v.inputs)
            if v.op is sum_op.op and self.base(v.inputs[0]) not in self.invariant and \
                    self.stackable(v.inputs[0], (getitem.op,)):
                axis, axes = v.metadata["axis"], len(v.inputs[0].shape)
                axis = range(axes) if axis is None else axis if isinstance(axis, tuple) else (axis,)
                return Term("sum", v.inputs, tuple(i % max(axes, 1) for i in axis if axes))
        return Term("step", (v,))

    def stackable(self, value: Value, views: tuple[Op, ...] = (getitem.op, transpose.op)) -> bool:
        """Whether all steps of a value can be one array: itself, or one view, as a slice, of what is computed."""
        if self.scope.is_view(value) and value.op in views:
            value = value.inputs[0]
        return not self.scope.is_view(value) and not value.is_constant

    # -- places ----------------------------------------------------------------------------------------------

    def place_parts(self, whole: Value, producers: set[Value]) -> None:
        """Let the parts of a placed concatenation lie in it: those that one op makes, and what comes from outside."""
        place = self.places[whole]
        movable = {*producers, *self.state, *(self.x if place.kind == "stack" else ())} - self.invariant
        for a, path in zip(whole.inputs, part_paths(whole)):
            if a in movable and a not in self.places and not self.scope.is_view(a) and a.dtype == whole.dtype \
                    and whole.inputs.count(a) == 1:
                self.places[a] = replace(place, path=place.path + path, contiguous=False)
                if a.op is concatenate.op:
                    self.place_parts(a, producers)

    def place_forward(self, loop: Loop) -> None:
        """What must lie in a fixed place: the state over time, with the concatenations it feeds, and what is kept."""
        values = [v for v in self.values if v not in self.invariant]
        producers = {v for v in values if can_be_buffered(v)}
        kind = "stack" if self.differentiated else "turn"
        for whole in reversed(values):
            if whole.op is concatenate.op and whole not in self.places and self.options.placed:
                from_outside = [a for a in whole.inputs
                                if a in self.state and a not in self.places and a.dtype == whole.dtype]
                if from_outside or whole in self.kept:
                    self.places[whole] = loop.array(kind, whole, extra=1)
                    self.place_parts(whole, producers)
        for a in self.state:
            if a not in self.places:
                self.places[a] = loop.array(kind, a, extra=1)
        for a, new in zip(self.state, self.new_state):
            if new in producers and new not in self.places:
                self.places[new] = replace(self.places[a], offset=1)
        for value in values:
            if value in self.kept and value not in self.places:
                self.places[value] = loop.array("stack", value)
        self.place_concatenations(loop, values)

    def place_concatenations(self, loop: Loop, values: list[Value]) -> None:
        """The other concatenations, the last first, so that one within another lies in it."""
        if self.options.placed:
            producers = {v for v in values if can_be_buffered(v)}
            for whole in reversed(values):
                if whole.op is concatenate.op:
                    if whole not in self.places:
                        self.places[whole] = loop.array("buffer", whole)
                    self.place_parts(whole, producers)

    # -- what is computed for a block of steps -------------------------------------------------------------------

    def compute_ahead(self, values: list[Value], loop: Loop, live: list[Value], there: set[Value]) -> list[Value]:
        """The statements for a block of steps, before them, of what needs only x and what is `there` over time; returns
        the values that are left for the steps themselves."""
        if not self.options.ahead:
            return values
        found: list[Value] = []
        known = set(self.x)
        for value in values:
            if self.can_go_ahead(value, known, there):
                found.append(value)
                known.add(value)
        rest = [v for v in values if v not in known]
        arrays = set(loop.arrays)
        loop.compute(found, [self.base(a) for v in rest for a in v.inputs] + list(map(self.base, live)), kind="block")
        blocks = {place.array: value for value in found if (place := self.places[value]).array not in arrays}
        bytes_a_step = sum(value.dtype.itemsize * math.prod(value.shape) for value in blocks.values())
        loop.size = int(np.clip(BLOCK_BYTES // max(bytes_a_step, 1), 1, 32))
        return rest

    def can_go_ahead(self, value: Value, known: set[Value], there: set[Value]) -> bool:
        """Whether a value waits for no other step: an elementwise op, or a product with a weight, of what is known."""
        product = value.op is matmul.op and value.inputs[0] in self.invariant and \
            all(len(a.shape) == 2 for a in value.inputs)
        if not product and not goes_in_blocks(value):
            return False
        if value in self.places and (self.places[value].kind != "stack" or self.places[value].path):
            return False
        for a in value.inputs:
            if a.is_constant or a in self.invariant:
                if len(a.shape) > len(value.shape):
                    return False
            elif len(a.shape) != len(value.shape) or not self.scope.is_slice_of_base(a):
                return False
            elif (base := self.base(a)) not in known and not (base in there and self.has_place(base, "stack")):
                return False
        return True

    def can_wait(self, values: list[Value]) -> list[Value]:
        """The values that only sums over time read: they are computed for a block of steps too, after its steps."""
        if not self.options.ahead:
            return []

        def known(a: Value, axes: int) -> bool:
            return a.is_constant or a in self.invariant or (
                len(a.shape) == axes and self.scope.is_slice_of_base(a) and self.lies_in_blocks(self.base(a)))
        read = {self.base(g) for a, g in self.gradients.items() if a not in self.closed}
        late: set[Value] = set()
        for value in reversed(values):
            if value not in read and not self.scope.is_view(value) and goes_in_blocks(value) and \
                    self.lies_in_blocks(value) and all(known(a, len(value.shape)) for a in value.inputs):
                late.add(value)
            else:
                read.update(map(self.base, value.inputs))
        return [value for value in values if value in late]

    def has_place(self, value: Value, kind: str) -> bool:
        return value in self.places and self.places[value].kind == kind

    def lies_in_blocks(self, value: Value) -> bool:
        return value in self.places and self.places[value].lies_in_blocks

    # -- the forward loop ----------------------------------------------------------------------------------------

    def write_forward(self) -> Loop:
        loop = Loop(self.scope)
        for a in self.closed:
            self.places[a] = Place(loop.local(a), "local")
        self.place_forward(loop)
        loop.hoist([v for v in self.values if v in self.invariant])
        self.take_inputs(loop, copy=True)
        for k, a in enumerate(self.state):
            loop.before.append(f"{self.places[a].at('0')}[...] = state[{k}]")
        values = [v for v in self.values if v not in self.invariant]
        live = [*self.new_state, *self.y]
        loop.compute(self.compute_ahead(values, loop, live, there=set()), live)
        for a, new in zip(self.state, self.new_state):
            place = replace(self.places[a], offset=1)
            text = loop.operand(new)
            if self.places.get(new) != place:
                loop.body.append(f"copyto({loop.variable(place, f'{self.scope.name(a)}_next')}, {text})")
        for k, y in enumerate(self.y):
            text = loop.operand(y)
            stacked = None if y.is_constant else self.places[y].over_time()
            if stacked:
                loop.after.append(f"ys_{k} = {stacked}.copy()")
            else:
                loop.before.append(f"ys_{k} = {empty(['T', *y.shape], y.dtype)}")
                loop.body.append(f"ys_{k}[t] = {text}")
        states = [f"{self.places[a].at('T')}.copy()" for a in self.state]
        loop.after.append(f"return {bracket(states, '(')}, {bracket([f'ys_{k}' for k in range(len(self.y))], '(')}")
        return loop

    def take_inputs(self, loop: Loop, copy: bool) -> None:
        """The inputs of a step: those in a concatenation are copied there before the loop, the others are read."""
        for k, a in enumerate(self.x):
            place = self.places.get(a)
            if place is not None and place.kind == "stack":
                if copy:
                    loop.before.append(f"{place.over_time()}[...] = xs[{k}]")
            else:
                self.places[a] = Place(loop.local(a), "local")
                loop.body.append(f"{self.scope.name(a)} = xs[{k}][t]")

    # -- the backward loop -----------------------------------------------------------------------------------------

    def write_backward(self) -> Loop:
        loop = Loop(self.scope)
        loop.locals.update(map(self.scope.name, self.closed))
        program, values = self.program, self.steps_backward
        made = set(values)
        for value, place in list(self.places.items()):  # views and variables of the forward loop are not there any more
            if self.scope.is_view(value) or (place.kind == "local" and value not in self.closed):
                del self.places[value]
        invariant = [v for v in [*self.values, *self.values_backward] if v in self.invariant]
        loop.hoist([v for v in invariant if self.is_read(v, invariant)])
        self.take_inputs(loop, copy=False)
        stacked = [v for terms in self.sums.values() for term in terms if term.how != "step" for v in term.values]
        for value in map(self.base, stacked):
            if value not in self.places and (value in made or value in program.seeds.values()):
                self.places[value] = loop.array("block", value)
        carries = self.carries(loop, made)
        self.place_concatenations(loop, values)
        self.seed(loop, carries)
        sums = [loop.local_name(f"sum_{self.scope.name(a)}") for a in self.closed]
        if sums:
            loop.before.append(f"{bracket(sums, '(')} = sums")
        self.total = dict(zip(self.closed, sums))
        for a, terms in self.sums.items():
            if any(term.how == "step" for term in terms) or not terms:
                zeros = f"np.zeros({a.shape}, {dtype_text(a.dtype)})"
                loop.before.append(f"{self.total[a]} = {zeros} if {self.total[a]} is None else {self.total[a]}")
        inputs = [(k, a) for k, a in enumerate(self.x) if a in self.gradients]
        live = [self.gradients[a] for a in self.gradients if a not in self.closed]
        live += [term.values[0] for terms in self.sums.values() for term in terms]
        values = self.compute_ahead(values, loop, live, there={*self.values, *self.state, *self.x})
        late = self.can_wait(values)
        loop.compute([v for v in values if v not in late], live)
        loop.compute_behind(late)
        for k, a in inputs:
            loop.before.append(f"d_xs_{k} = {empty(['T', *a.shape], a.dtype)}")
            loop.body.append(f"d_xs_{k}[t] = {loop.operand(self.gradients[a])}")
        for a, terms in self.sums.items():
            for term in terms:
                if term.how == "step":
                    loop.body.append(f"add({self.total[a]}, {loop.operand(term.values[0])}, {self.total[a]})")
        for a, place in carries.items():
            g = self.gradients.get(a)
            text = "0" if g is None else loop.operand(g)
            if g is None or self.places.get(g) != place:
                loop.body.append(f"copyto({loop.variable(place, f'd_{self.scope.name(a)}_before')}, {text})")
        self.gather(loop)
        d_state = [f"{carries[a].at('0')}.copy()" for a in self.state]
        d_xs = [f"d_xs_{k}" if a in self.gradients else "None" for k, a in enumerate(self.x)]
        loop.after.append(f"return {bracket(d_state, '(')}, {bracket(d_xs, '(')}, {bracket(sums, '(')}")
        return loop

    def is_read(self, value: Value, invariant: list[Value]) -> bool:
        """Whether an invariant value is needed by the backward loop, directly or by another that is."""
        readers = [*self.steps_backward, *invariant]
        direct = [term.values[0] for terms in self.sums.values() for term in terms]
        direct += [g for a, g in self.gradients.items() if a not in self.closed]
        return any(value in v.inputs for v in readers) or value in direct

    def carries(self, loop: Loop, made: set[Value]) -> dict[Value, Place]:
        """Where the gradient of each state lies for the step before: two places in turn, those of the value itself if
        it can be written there at once."""
        out = {}
        for a in self.state:
            g = self.gradients.get(a)
            base = None if g is None else self.base(g)
            if base in made and base not in self.places and can_be_buffered(base):
                self.places[base] = loop.array("turn", base)
            if base in made and self.places.get(base, Place("", "")).kind == "turn":
                loop.operand(g)
                if self.places[g].kind == "turn" and self.places[g] not in out.values():  # two may have one gradient
                    out[a] = self.places[g]
                    continue
            out[a] = loop.array("turn", a)
        return out

    def seed(self, loop: Loop, carries: dict[Value, Place]) -> None:
        """The gradient that arrives at each result of the step: from the step after, and from ys."""
        for k, a in enumerate(self.state):
            loop.before.append(f"{carries[a].at('T')}[...] = d_state[{k}]")
        for result, seed in self.program.seeds.items():
            places = [replace(carries[a], offset=1) for a, new in zip(self.state, self.results[0]) if new is result]
            hint = f"d_{self.scope.emitter.names.get(result, 'state')}_after"
            arriving = [loop.variable(place, hint) for place in places]
            for k, y in enumerate(self.results[1]):
                if y is result:
                    name = loop.local_name(f"d_y{k}")
                    loop.body.append(f"{name} = d_ys[{k}][t]")
                    arriving.append(name)
            if seed in self.places:  # it is stacked for a sum over time
                loop.body.append(f"copyto({loop.operand(seed)}, {arriving[0]})")
            elif len(arriving) == 1:
                self.places[seed] = places[0] if places else Place(arriving[0], "local")
                continue
            else:
                self.places[seed] = loop.array("buffer", seed)
                loop.body.append(f"copyto({loop.operand(seed)}, {arriving[0]})" if len(arriving) == 1 else
                                 f"add({arriving[0]}, {arriving[1]}, {loop.operand(seed)})")
                arriving = arriving[1:]
            for more in arriving[1:]:
                loop.body.append(f"add({loop.operand(seed)}, {more}, {loop.operand(seed)})")

    def gather(self, loop: Loop) -> None:
        """Sums over time, a block of steps at once."""
        made: dict[tuple, str] = {}  # what stands side by side once serves products and sums

        def side_by_side(value: Value, how: Callable[[Value], str]) -> str:
            if (value, how) not in made:
                made[value, how] = loop.local_name("rows")
                loop.behind.append(f"{made[value, how]} = {how(value)}")
            return made[value, how]

        lines = []
        for a, terms in self.sums.items():
            total = self.total[a]
            for term in terms:
                if term.how == "product":
                    left, right = term.values
                    loop.size = max(loop.size, -(-BLOCK_COLUMNS // max(left.shape[1], 1)))
                    product = self.scope.free("product")
                    loop.arrays[product] = empty([*a.shape], np.result_type(left.dtype, right.dtype))
                    left, right = side_by_side(left, loop.rows), side_by_side(right, loop.rows_of_columns)
                    lines.append(f"{total} = {left} @ {right}.T if {total} is None else "
                                 f"add({total}, dot({left}, {right}.T, {product}), {total})")
                elif term.how == "sum":
                    (x,), axes = term.values, term.axes
                    if axes == (1,) and len(x.shape) == 2 and x.shape[1] > 1:
                        text = f"np.add.reduce({side_by_side(x, loop.rows)}, axis=1)"
                    else:
                        text = f"np.add.reduce({loop.over_block(x)}, axis={(0, *(i + 1 for i in axes))}, keepdims=True)"
                    text = f"{text}.reshape({a.shape})"  # never a scalar, into which nothing can be added
                    summed = loop.local_name("summed")
                    lines += [f"{summed} = {text}",
                              f"{total} = {summed} if {total} is None else add({total}, {summed}, {total})"]
        loop.behind += lines

    def compiled(self) -> dict[str, Any]:
        """The functions of the text, ready to be called."""
        filename = f"<minigrad planned {self.program.name} {number()}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(keepends=True), filename)
        module = dict(self.constants)
        exec(compile(self.source, filename, "exec"), module)
        return module


def goes_in_blocks(value: Value) -> bool:
    """Whether one call of a ufunc computes it for a block of steps; x² is not one (np.square is faster)."""
    return value.op.ufunc is not None and value.op is not power.op
