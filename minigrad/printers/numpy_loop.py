"""A cell's program as two loops over time that write into buffers: what `scan` runs.

The values are those of the program that `derive` prints; here each is assigned storage.
1. Values that the backward reads are stored in stacks over time. All others use buffers, reused once a value is dead.
2. A slice is a view of its parent. The inputs of a concatenation are written directly into it, including the state
   that the next step concatenates. Views are made once for a set of buffers, not at every step.
3. Loop invariants are computed before the loop, transposes as contiguous copies.
4. The gradient of a weight is one product for a block of steps, that of a bias one sum.
5. Values that do not depend on the previous step, such as the factors c_prev f (1 − f) of the backward, are computed
   for a block of steps at once: few large calls replace many small ones. To this end (g x) y becomes g (x y).
6. Every statement computes in the dtype of its value.
Each pass is exact up to the order of sums and products. `Options` switches each off.
"""

from __future__ import annotations

import itertools
import linecache
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.engine.ops import concatenate, getitem, power, transpose
from minigrad.engine.tensor import Op
from minigrad.printers.buffers import ALL_PASSES, Options, Scope, Storage, can_be_buffered, empty, part_paths
from minigrad.printers.module_text import RESERVED, called_functions, module_text
from minigrad.printers.readable import values_in
from minigrad.printers.statements import LoopText
from minigrad.printers.text import bracket, dtype_text
from minigrad.program.analysis import (
    Term,
    add_invariants,
    is_invariant,
    is_matrix_product,
    results_that_depend,
    sum_over_time,
    terms_of,
)
from minigrad.program.ir import DETACH, Value, in_order, numbers_of
from minigrad.program.reassociate import Reassociated
from minigrad.program.simplify import Program

BLOCK_COLUMNS = 256  # minimum number of columns of one gathered product: steps × batch
BLOCK_BYTES = 1 << 20  # maximum size of the values computed ahead, so they are still in the cache at their step

number = itertools.count(1).__next__  # numbers the compiled texts


class Plan:
    """The loops of one cell `(state, x) → (state, y)` at given shapes.

    wanted     arguments whose gradients are requested; if empty, there is no backward and nothing is stacked
    source     text of the module: `make` and `make_backward` allocate the arrays that `forward` and `backward` use
    constants  {name: array} for constants too large for the text
    """

    def __init__(self, program: Program, wanted: set[Value], options: Options = ALL_PASSES):
        self.program, self.options = program, options
        self.scope = Scope(program, options, RESERVED | called_functions())
        self.storage, self.invariant, self.aliases = self.scope.storage, self.scope.invariant, self.scope.aliases
        self.base = self.aliases.base
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
        """For each new state and each y, whether a gradient can flow from it to one of the wanted values."""
        return results_that_depend(wanted, self.program.forward, self.state, *self.results)

    # -- schedule -------------------------------------------------------------------------------------------

    def choose(self) -> None:
        """Find the loop invariants, how weight gradients are summed, and which forward values the backward reads."""
        program, names = self.program, self.scope.emitter.names
        if self.options.ahead and self.differentiated:
            reassociated = Reassociated(program, self.gradients)
            self.gradients = reassociated.gradients
            for value, new in reassociated.known.items():  # the same value, computed differently, keeps its name
                if value in names and new not in names and new.op is not None:
                    names[new] = names[value]
        self.values_backward: list[Value] = []
        if self.differentiated:
            self.values_backward = in_order(list(self.gradients.values()), set(program.forward))
        self.invariant.update(self.closed)
        if self.options.hoisted:
            add_invariants(self.invariant, [*self.values, *self.values_backward])
        self.sums: dict[Value, list[Term]] = {}  # by weight
        self.kept: set[Value] = set()
        self.steps_backward: list[Value] = []
        if not self.differentiated:
            return
        roots = []
        for a, g in self.gradients.items():
            if a in self.closed:
                self.sums[a] = [self.summed(term) for term in (terms_of(g) if self.options.gathered else [g])]
                roots += [v for term in self.sums[a] for v in term.values]
            else:
                roots.append(g)
        gathered = {v for terms in self.sums.values() for term in terms if term.how != "step" for v in term.values}
        for a, terms in self.sums.items():  # a value that is in a stack anyway is summed over the stack
            self.sums[a] = [replace(term, how="sum") if term.how == "step" and term.values[0] in gathered else term
                            for term in terms]
        backward = in_order(roots, set(program.forward))
        self.steps_backward = [v for v in backward if v not in self.invariant]
        own = set(backward) | set(program.seeds.values())
        read = {self.base(a) for v in backward for a in v.inputs} | {self.base(v) for v in roots}
        self.kept = {a for a in read if not a.is_constant and a not in own and a not in self.invariant}

    def summed(self, v: Value) -> Term:
        if not self.options.gathered or v.op is None or v in self.invariant:
            return Term("step", (v,))
        return sum_over_time(v, lambda a: 0 not in a.shape and self.stackable(a),
                             lambda a: self.stackable(a, (getitem.op,)))

    def stackable(self, value: Value, views: tuple[Op, ...] = (getitem.op, transpose.op)) -> bool:
        """Whether all steps of a value can be one array: a value that every step computes, or one view of it."""
        if self.aliases.is_view(value) and value.op in views:
            value = value.inputs[0]
        return not self.aliases.is_view(value) and not is_invariant(value, self.invariant)

    # -- storage ---------------------------------------------------------------------------------------------

    def assign_parts(self, whole: Value, producers: set[Value]) -> None:
        """Write the inputs of a placed concatenation directly into its buffer, if their producer can write there, or if
        they are state or xs."""
        place = self.storage[whole]
        movable = {*producers, *self.state, *(self.x if place.kind == "stack" else ())} - self.invariant
        for a, path in zip(whole.inputs, part_paths(whole)):
            if a in movable and a not in self.storage and not self.aliases.is_view(a) and a.dtype == whole.dtype \
                    and whole.inputs.count(a) == 1:
                self.storage[a] = replace(place, path=place.path + path, contiguous=False)
                if a.op is concatenate.op:
                    self.assign_parts(a, producers)

    def assign_forward(self, loop: LoopText) -> None:
        """Assign storage to the state over time, the concatenations that read it, and all values the backward reads."""
        values = [v for v in self.values if v not in self.invariant]
        producers = {v for v in values if can_be_buffered(v)}
        kind = "stack" if self.differentiated else "turn"
        for whole in reversed(values):
            if whole.op is concatenate.op and whole not in self.storage and self.options.placed:
                from_outside = [a for a in whole.inputs
                                if a in self.state and a not in self.storage and a.dtype == whole.dtype]
                if from_outside or whole in self.kept:
                    self.storage[whole] = loop.array(kind, whole, extra=1)
                    self.assign_parts(whole, producers)
        for a in self.state:
            if a not in self.storage:
                self.storage[a] = loop.array(kind, a, extra=1)
        for a, new in zip(self.state, self.new_state):
            if new in producers and new not in self.storage:
                self.storage[new] = replace(self.storage[a], offset=1)
        for value in values:
            if value in self.kept and value not in self.storage:
                self.storage[value] = loop.array("stack", value)
        self.assign_concatenations(loop, values)

    def assign_concatenations(self, loop: LoopText, values: list[Value]) -> None:
        """Assign storage to the other concatenations, outer ones first, so an inner one is written into the outer."""
        if self.options.placed:
            producers = {v for v in values if can_be_buffered(v)}
            for whole in reversed(values):
                if whole.op is concatenate.op:
                    if whole not in self.storage:
                        self.storage[whole] = loop.array("buffer", whole)
                    self.assign_parts(whole, producers)

    # -- blocks of steps -----------------------------------------------------------------------------------------

    def compute_ahead(self, values: list[Value], loop: LoopText, live: list[Value], there: set[Value]) -> list[Value]:
        """Emit once per block the values that depend only on xs and on stacks of the values in `there`; return those
        that must stay in the step."""
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
        blocks = {place.array: value for value in found if (place := self.storage[value]).array not in arrays}
        bytes_a_step = sum(value.dtype.itemsize * math.prod(value.shape) for value in blocks.values())
        loop.size = int(np.clip(BLOCK_BYTES // max(bytes_a_step, 1), 1, 32))
        return rest

    def can_go_ahead(self, value: Value, known: set[Value], there: set[Value]) -> bool:
        """Whether a value is independent of other steps: a ufunc, or a product with an invariant, of known values."""
        product = is_matrix_product(value) and value.inputs[0] in self.invariant
        if not product and not goes_in_blocks(value):
            return False
        if value in self.storage and (self.storage[value].kind != "stack" or self.storage[value].path):
            return False
        for a in value.inputs:
            if a.is_constant or a in self.invariant:
                if len(a.shape) > len(value.shape):
                    return False
            elif len(a.shape) != len(value.shape) or not self.aliases.is_slice_of_base(a):
                return False
            elif (base := self.base(a)) not in known and not (base in there and self.is_stored_in(base, "stack")):
                return False
        return True

    def can_wait(self, values: list[Value]) -> list[Value]:
        """Values that only sums over time read. They are computed once per block, after its steps."""
        if not self.options.ahead:
            return []

        def known(a: Value, axes: int) -> bool:
            return a.is_constant or a in self.invariant or (
                len(a.shape) == axes and self.aliases.is_slice_of_base(a) and self.lies_in_blocks(self.base(a)))
        read = {self.base(g) for a, g in self.gradients.items() if a not in self.closed}
        late: set[Value] = set()
        for value in reversed(values):
            if value not in read and not self.aliases.is_view(value) and goes_in_blocks(value) and \
                    self.lies_in_blocks(value) and all(known(a, len(value.shape)) for a in value.inputs):
                late.add(value)
            else:
                read.update(map(self.base, value.inputs))
        return [value for value in values if value in late]

    def is_stored_in(self, value: Value, kind: str) -> bool:
        return value in self.storage and self.storage[value].kind == kind

    def lies_in_blocks(self, value: Value) -> bool:
        return value in self.storage and self.storage[value].lies_in_blocks

    # -- the forward loop ----------------------------------------------------------------------------------------

    def write_forward(self) -> LoopText:
        loop = LoopText(self.scope)
        for a in self.closed:
            self.storage[a] = Storage(loop.local(a), "local")
        self.assign_forward(loop)
        loop.hoist([v for v in self.values if v in self.invariant])
        self.take_inputs(loop, copy=True)
        for k, a in enumerate(self.state):
            loop.before.append(f"{self.storage[a].at('0')}[...] = state[{k}]")
        values = [v for v in self.values if v not in self.invariant]
        live = [*self.new_state, *self.y]
        loop.compute(self.compute_ahead(values, loop, live, there=set()), live)
        for a, new in zip(self.state, self.new_state):
            place = replace(self.storage[a], offset=1)
            text = loop.operand(new)
            if self.storage.get(new) != place:
                loop.body.append(f"copyto({loop.variable(place, f'{self.scope.name(a)}_next')}, {text})")
        for k, y in enumerate(self.y):
            text = loop.operand(y)
            stacked = None if y.is_constant else self.storage[y].over_time()
            if stacked:
                loop.after.append(f"ys_{k} = {stacked}.copy()")
            else:
                loop.before.append(f"ys_{k} = {empty(['T', *y.shape], y.dtype)}")
                loop.body.append(f"ys_{k}[t] = {text}")
        states = [f"{self.storage[a].at('T')}.copy()" for a in self.state]
        loop.after.append(f"return {bracket(states, '(')}, {bracket([f'ys_{k}' for k in range(len(self.y))], '(')}")
        return loop

    def take_inputs(self, loop: LoopText, copy: bool) -> None:
        """Copy inputs that belong to a concatenation into it before the loop; read the others at each step."""
        for k, a in enumerate(self.x):
            place = self.storage.get(a)
            if place is not None and place.kind == "stack":
                if copy:
                    loop.before.append(f"{place.over_time()}[...] = xs[{k}]")
            else:
                self.storage[a] = Storage(loop.local(a), "local")
                loop.body.append(f"{self.scope.name(a)} = xs[{k}][t]")

    # -- the backward loop -----------------------------------------------------------------------------------------

    def write_backward(self) -> LoopText:
        loop = LoopText(self.scope)
        loop.locals.update(map(self.scope.name, self.closed))
        program, values = self.program, self.steps_backward
        made = set(values)
        for value, place in list(self.storage.items()):  # the backward has no views or variables of the forward loop
            if self.aliases.is_view(value) or (place.kind == "local" and value not in self.closed):
                del self.storage[value]
        invariant = [v for v in [*self.values, *self.values_backward] if v in self.invariant]
        loop.hoist([v for v in invariant if self.is_read(v, invariant)])
        self.take_inputs(loop, copy=False)
        stacked = [v for terms in self.sums.values() for term in terms if term.how != "step" for v in term.values]
        for value in map(self.base, stacked):
            if value not in self.storage and (value in made or value in program.seeds.values()):
                self.storage[value] = loop.array("block", value)
        carries = self.carries(loop, made)
        self.assign_concatenations(loop, values)
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
            if g is None or self.storage.get(g) != place:
                loop.body.append(f"copyto({loop.variable(place, f'd_{self.scope.name(a)}_before')}, {text})")
        self.gather(loop)
        d_state = [f"{carries[a].at('0')}.copy()" for a in self.state]
        d_xs = [f"d_xs_{k}" if a in self.gradients else "None" for k, a in enumerate(self.x)]
        loop.after.append(f"return {bracket(d_state, '(')}, {bracket(d_xs, '(')}, {bracket(sums, '(')}")
        return loop

    def is_read(self, value: Value, invariant: list[Value]) -> bool:
        """Whether the backward loop, or another invariant, reads an invariant."""
        readers = [*self.steps_backward, *invariant]
        direct = [term.values[0] for terms in self.sums.values() for term in terms]
        direct += [g for a, g in self.gradients.items() if a not in self.closed]
        return any(value in v.inputs for v in readers) or value in direct

    def carries(self, loop: LoopText, made: set[Value]) -> dict[Value, Storage]:
        """Double buffer that carries each state's gradient to the previous step; the buffer of the gradient itself if
        possible."""
        out = {}
        for a in self.state:
            g = self.gradients.get(a)
            base = None if g is None else self.base(g)
            if base in made and base not in self.storage and can_be_buffered(base):
                self.storage[base] = loop.array("turn", base)
            if base in made and self.storage.get(base, Storage("", "")).kind == "turn":
                loop.operand(g)
                # two states may share one gradient
                if self.storage[g].kind == "turn" and self.storage[g] not in out.values():
                    out[a] = self.storage[g]
                    continue
            out[a] = loop.array("turn", a)
        return out

    def seed(self, loop: LoopText, carries: dict[Value, Storage]) -> None:
        """Add up the gradient of each result of the step: from the next step and from ys."""
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
            if seed in self.storage:  # the seed is stacked for a sum over time
                loop.body.append(f"copyto({loop.operand(seed)}, {arriving[0]})")
            elif len(arriving) == 1:
                self.storage[seed] = places[0] if places else Storage(arriving[0], "local")
                continue
            else:
                self.storage[seed] = loop.array("buffer", seed)
                loop.body.append(f"copyto({loop.operand(seed)}, {arriving[0]})" if len(arriving) == 1 else
                                 f"add({arriving[0]}, {arriving[1]}, {loop.operand(seed)})")
                arriving = arriving[1:]
            for more in arriving[1:]:
                loop.body.append(f"add({loop.operand(seed)}, {more}, {loop.operand(seed)})")

    def gather(self, loop: LoopText) -> None:
        """Emit the sums over time, once per block of steps."""
        made: dict[tuple, str] = {}  # products and sums share one side-by-side copy

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
                    text = f"{text}.reshape({a.shape})"  # an array: a NumPy scalar cannot be added into
                    summed = loop.local_name("summed")
                    lines += [f"{summed} = {text}",
                              f"{total} = {summed} if {total} is None else add({total}, {summed}, {total})"]
        loop.behind += lines

    def compiled(self) -> dict[str, Any]:
        """Compile the text; return its functions by name."""
        filename = f"<minigrad planned {self.program.name} {number()}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(keepends=True), filename)
        module = dict(self.constants)
        exec(compile(self.source, filename, "exec"), module)
        return module


def goes_in_blocks(value: Value) -> bool:
    """Whether one call of a ufunc computes it for a block of steps; x² is not one (np.square is faster)."""
    return value.op.ufunc is not None and value.op is not power.op
