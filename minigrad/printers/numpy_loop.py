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

from minigrad.engine.ops import concatenate
from minigrad.printers.buffers import ALL_PASSES, Options, Scope, Storage, can_be_buffered, empty, part_paths
from minigrad.printers.module_text import RESERVED, called_functions, module_text
from minigrad.printers.readable import values_in
from minigrad.printers.statements import LoopText
from minigrad.printers.text import bracket, dtype_text
from minigrad.program.analysis import BackwardNeeds, computed_ahead, computed_behind, results_that_depend
from minigrad.program.ir import DETACH, Value, without_detach
from minigrad.program.reassociate import Reassociated
from minigrad.program.simplify import Program

BLOCK_COLUMNS = 256  # minimum number of columns of one gathered product: steps × batch
BLOCK_BYTES = 1 << 20  # maximum size of the values computed ahead, so they are still in the cache at their step

ADDED_AT = """
def added_at(x, index, length):
    y = np.zeros((len(x), length), x.dtype)
    order = np.argsort(index, kind='stable')
    index, first = np.unique(index[order], return_index=True)
    if len(first):
        np.add.at(y, (slice(None), index), np.add.reduceat(x[:, order], first, axis=1))
    return y
"""

number = itertools.count(1).__next__  # numbers the compiled texts


class Plan:
    """The loops of one cell `(state, x) → (state, y)` at given shapes.

    wanted     arguments whose gradients are requested; if empty, the plan has no backward and stacks nothing
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
        self.new_state, self.y = (list(map(without_detach, values)) for values in self.results)
        self.values = [v for v in program.forward if v.op is not DETACH]
        self.differentiated = bool(wanted)
        self.gradients = {a: g for a, g in program.gradients.items()
                          if self.differentiated and g is not None and (a in wanted or a in self.state)}
        if options.ahead:
            self.reassociate()
        self.needs = BackwardNeeds(program.forward, self.gradients, program.seeds.values(), self.closed, self.aliases,
                                   options.hoisted, options.gathered)
        self.forward = self.write_forward()
        self.backward = self.write_backward() if self.differentiated else None
        self.constants = self.scope.constants
        self.source = module_text(program.name, list(map(self.scope.name, self.closed)),
                                  list(self.scope.emitter.helpers.values()), self.forward, self.backward)

    def results_that_depend(self, wanted: set[Value]) -> list[bool]:
        """For each new state and each y, whether a gradient can flow from it to one of the wanted values."""
        return results_that_depend(wanted, self.program.forward, self.state, *self.results)

    def reassociate(self) -> None:
        """Rewrite the gradients; a value that is computed differently keeps its name."""
        names, reassociated = self.scope.emitter.names, Reassociated(self.program, self.gradients)
        self.gradients = reassociated.gradients
        for value, new in reassociated.known.items():
            if value in names and new not in names and new.op is not None:
                names[new] = names[value]

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
                if from_outside or whole in self.needs.kept:
                    self.storage[whole] = loop.array(kind, whole, extra=1)
                    self.assign_parts(whole, producers)
        for a in self.state:
            if a not in self.storage:
                self.storage[a] = loop.array(kind, a, extra=1)
        for a, new in zip(self.state, self.new_state):
            if new in producers and new not in self.storage:
                self.storage[new] = replace(self.storage[a], offset=1)
        for value in values:
            if value in self.needs.kept and value not in self.storage:
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
        known = {*self.x, *(v for v in there if self.is_stored_in(v, "stack"))}
        found = computed_ahead(values, known, self.aliases, self.may_lie_in_blocks)
        ahead = set(found)
        rest = [v for v in values if v not in ahead]
        arrays = set(loop.arrays)
        loop.compute(found, [self.base(a) for v in rest for a in v.inputs] + list(map(self.base, live)), kind="block")
        blocks = {place.array: value for value in found if (place := self.storage[value]).array not in arrays}
        bytes_a_step = sum(value.dtype.itemsize * math.prod(value.shape) for value in blocks.values())
        loop.size = int(np.clip(BLOCK_BYTES // max(bytes_a_step, 1), 1, 32))
        return rest

    def may_lie_in_blocks(self, value: Value) -> bool:
        """Whether a value has no storage yet, or a stack of its own."""
        return value not in self.storage or (self.is_stored_in(value, "stack") and not self.storage[value].path)

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
        program, needs, values = self.program, self.needs, self.needs.steps
        made = set(values)
        for value, place in list(self.storage.items()):  # the backward has no views or variables of the forward loop
            if self.aliases.is_view(value) or (place.kind == "local" and value not in self.closed):
                del self.storage[value]
        loop.hoist(needs.invariants_read([v for v in [*self.values, *needs.values] if v in self.invariant]))
        self.take_inputs(loop, copy=False)
        for value in map(self.base, needs.stacked()):
            if value not in self.storage and (value in made or value in program.seeds.values()):
                self.storage[value] = loop.array("block", value)
        carries = self.carries(loop, made)
        self.assign_concatenations(loop, values)
        self.seed(loop, carries)
        sums = [loop.local_name(f"sum_{self.scope.name(a)}") for a in self.closed]
        if sums:
            loop.before.append(f"{bracket(sums, '(')} = sums")
        self.total = dict(zip(self.closed, sums))
        for a, terms in self.needs.sums.items():
            if any(term.how == "step" for term in terms) or not terms:
                zeros = f"np.zeros({a.shape}, {dtype_text(a.dtype)})"
                loop.before.append(f"{self.total[a]} = {zeros} if {self.total[a]} is None else {self.total[a]}")
        inputs = [(k, a) for k, a in enumerate(self.x) if a in self.gradients]
        live = needs.live()
        values = self.compute_ahead(values, loop, live, there={*self.values, *self.state, *self.x})
        read = [g for a, g in self.gradients.items() if a not in self.closed]
        late = computed_behind(values, read, self.aliases, self.lies_in_blocks) if self.options.ahead else []
        loop.compute([v for v in values if v not in late], live)
        loop.compute_behind(late)
        for k, a in inputs:
            loop.before.append(f"d_xs_{k} = {empty(['T', *a.shape], a.dtype)}")
            loop.body.append(f"d_xs_{k}[t] = {loop.operand(self.gradients[a])}")
        for a, terms in self.needs.sums.items():
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
                loop.body.append(f"add({arriving[0]}, {arriving[1]}, {loop.operand(seed)})")
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
        for a, terms in self.needs.sums.items():
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
                elif term.how == "at":
                    x, index = term.values
                    self.scope.emitter.helpers["added_at"] = ADDED_AT
                    summed = loop.local_name("summed")
                    rows, index = side_by_side(x, loop.rows), f"{loop.over_block(index)}.reshape(-1)"
                    lines += [f"{summed} = added_at({rows}, {index}, {a.shape[1]})",
                              f"{total} = {summed} if {total} is None else add({total}, {summed}, {total})"]
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
