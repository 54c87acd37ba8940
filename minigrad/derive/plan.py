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
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np

from minigrad.derive.emit import (
    WIDTH,
    Emitter,
    bracket,
    broken,
    constant,
    dtype_text,
    function,
    literal,
    slice_text,
    values_in,
)
from minigrad.derive.reassociate import Reassociated, part_slices
from minigrad.derive.simplify import Program, Value, in_order
from minigrad.tensor import OPS

UFUNCS = {"add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "greater", "less", "greater_equal",
          "less_equal", "equal", "not_equal", "negative", "exp", "expm1", "log", "log1p", "sqrt", "square", "abs",
          "sign", "sin", "cos", "tanh"}
WRITTEN = UFUNCS | {"sigmoid", "matmul", "sum", "where", "concatenate"}  # ops that can write into a buffer
# M·N·K up to which OpenBLAS has a quicker way, measured in docs/performance.md. It has one for AVX-512 only: with AVX2,
# two blocks are 3 % slower than the whole.
AVX512 = any("AVX512" in found or "V4" in found
             for kinds in np.lib.introspect.opt_func_info("^tanh$", "float32").values()
             for found in [kind["current"] for kind in kinds.values()]) and "OPENBLAS_CORETYPE" not in os.environ
SMALL_PRODUCT = 1_000_000 if AVX512 else 0

# What the text uses itself. The loops call NumPy's functions by their bare names, with the buffer as the last argument:
# that is 90 ns less, at each call, than np.add(…, out=…).
FUNCTIONS = {op.numpy[0].__name__ for op in OPS.values() if op.name in UFUNCS} | {"dot", "matmul", "copyto"}
RESERVED = frozenset({"T", "t", "K", "start", "stop", "state", "xs", "weights", "made", "made_backward", "steps",
                      "d_state", "d_ys", "sums"} | FUNCTIONS)

number = itertools.count(1).__next__
by_number = attrgetter("number")
LEVEL = re.compile(r"\[([^\]]*)\]")  # one index of a path


@dataclass(frozen=True)
class Options:
    """The passes of the planner, all on; tests switch each off."""

    reuse: bool = True  # buffers of dead values are used again
    placed: bool = True  # parts of a concatenation are written into it
    hoisted: bool = True  # what does not change with time is computed before the loop
    gathered: bool = True  # weight gradients are one product for a block of steps
    blocked: bool = True  # products in row blocks
    ahead: bool = True  # what does not wait for the step before, for a block of steps at once


@dataclass(frozen=True)
class Place:
    """Where a value lies: in an array, at a step, seen along a path.

    kind: "stack" (an array over time), "turn" (two arrays in turn), "block" (an array over K steps), "buffer" (one
    array), or "local" (a variable)
    """

    array: str
    kind: str
    offset: int = 0
    path: str = ""
    contiguous: bool = True
    scalar: bool = False  # one number a step: then [t, ...] keeps it an array

    @property
    def text(self) -> str:
        t = f"t + {self.offset}" if self.offset else "t"
        step = {"stack": t, "turn": f"({t}) % 2" if self.offset else "t % 2", "block": "t % K"}.get(self.kind)
        return f"{self.array}{self.index(step)}{self.path}"

    def index(self, step: str | None) -> str:
        return "" if step is None else f"[{step}, ...]" if self.scalar else f"[{step}]"

    def at(self, t: str) -> str:
        """The place at a given step, 0 or T, which the offset is not added to."""
        return f"{self.array}{self.index(f'{t} % 2' if self.kind == 'turn' and t != '0' else t)}{self.path}"

    def over_time(self) -> str | None:
        """All steps as one array (T, …), where the path is made of plain indices."""
        if self.kind != "stack" or "." in self.path:
            return None
        steps = f"{self.offset}:T + {self.offset}" if self.offset else ":T"
        first, *others = LEVEL.findall(self.path) or [""]
        return f"{self.array}[{steps}{', ' if first else ''}{first}]" + "".join(f"[:, {index}]" for index in others)


    def over_block(self) -> str:
        """The steps from start to stop as one array."""
        offset = f" + {self.offset}" if self.offset else ""
        steps = ":stop - start" if self.kind == "block" else f"start{offset}:stop{offset}"
        return f"{self.array}[{steps}]" + "".join(f"[:, {index}]" for index in LEVEL.findall(self.path))


SIDE_BY_SIDE = """
def side_by_side(matrices, flat):
    steps, n, m = matrices.shape
    rows = flat[:steps * n * m].reshape(n, steps, m)
    copyto(rows, matrices.transpose(1, 0, 2))
    return rows.reshape(n, steps * m)
"""

BLOCK_COLUMNS = 256  # that one gathered product should have at least: steps × batch
BLOCK_BYTES = 1 << 20  # of what is computed ahead, so that it still lies in the cache when its step comes


@dataclass(frozen=True)
class Term:
    """How one term of a weight's gradient is summed over time: a "product" of two stacks, a "sum" of a stack over some
    axes of each step too, or the value of each "step" added by itself."""

    how: str
    values: tuple[Value, ...]
    axes: tuple[int, ...] = ()


@dataclass
class Loop:
    """One of the two loops, while it is written."""

    arrays: dict[str, str] = field(default_factory=dict)  # name → how it is made
    whole: dict[tuple, str] = field(default_factory=dict)  # (what does not change with time, shape) → its array
    fixed: dict[str, str] = field(default_factory=dict)  # variable → its view of a buffer
    views: dict[str, str] = field(default_factory=dict)  # variable → its view at step t
    ahead: list[str] = field(default_factory=list)  # for a block of steps, before them
    behind: list[str] = field(default_factory=list)  # and after them
    size: int = 1  # K, the steps of a block
    quiet: bool = False  # whether an overflow in it is meant
    before: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


class Plan:
    """The loops of one cell `(state, x) → (state, y)` at given shapes.

    wanted  the argument values whose gradients are asked for; with none, there is no backward and nothing is stacked
    source  the text; `made(T)` makes the buffers, `forward` and `backward` run in them
    """

    def __init__(self, program: Program, wanted: set[Value], options: Options = Options()):
        self.program, self.options = program, options
        self.emitter = Emitter(program, RESERVED)
        (_, state), (_, x), *closed = program.arguments
        new_state, y = program.result
        self.state, self.x, self.closed = values_in(state), values_in(x), [tree for _, tree in closed]
        self.new_state, self.y = values_in(new_state), values_in(y)
        self.places: dict[Value, Place] = {}
        self.looks_into: dict[Value, set[Value]] = {}
        self.constants: dict[str, Any] = {}
        self.taken = set(self.emitter.taken)
        self.next_number = itertools.count(1).__next__
        self.gradients = {a: g for a, g in program.gradients.items()
                          if g is not None and (a in wanted or a in self.state)}
        self.differentiated = bool(wanted)
        self.choose()
        self.forward = self.write_forward()
        self.backward = self.write_backward() if self.differentiated else None
        for loop in (self.forward, self.backward) if self.differentiated else (self.forward,):
            used = set(re.findall(r"\w+", " ".join(loop.body)))
            loop.views = {name: text for name, text in loop.views.items() if name in used}
        self.source = self.text()

    def results_that_depend(self, wanted: set[Value]) -> list[bool]:
        """For each new state and each y, whether a gradient can go from it to one of these values, at this step or
        through the state at an earlier one."""
        depends = set(wanted)
        for _ in range(len(self.state) + 1):
            for value in self.program.forward:
                if value.dtype.kind in "fc" and any(a in depends for a in value.inputs):
                    depends.add(value)
            depends.update(a for a, new in zip(self.state, self.new_state) if new in depends)
        return [value in depends for value in [*self.new_state, *self.y]]

    # -- what is computed when ------------------------------------------------------------------------------

    def choose(self) -> None:
        """Sort out what is invariant, how weight gradients are summed, and what the backward keeps of the forward."""
        program = self.program
        if self.options.ahead and self.differentiated:
            reassociated = Reassociated(program, self.gradients)
            self.gradients = reassociated.gradients
            for value, new in reassociated.known.items():  # the same value, by another way: it keeps its name
                if value in self.emitter.names and new not in self.emitter.names and new.op is not None:
                    self.emitter.names[new] = self.emitter.names[value]
        self.values_backward: list[Value] = []
        if self.differentiated:
            self.values_backward = in_order(list(self.gradients.values()), set(program.forward))
        self.invariant = set(self.closed)
        for value in [*program.forward, *self.values_backward]:
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
        if self.options.gathered and g.op is not None and g.op.name == "add" and \
                all(a.shape == g.shape for a in g.inputs):
            return [term for a in g.inputs for term in self.terms(a)]
        return [g]

    def summed(self, v: Value) -> Term:
        if self.options.gathered and v.op is not None and v not in self.invariant:
            if v.op.name == "matmul" and len(v.shape) == 2 and all(
                    self.stackable(a) and self.base(a) not in self.invariant for a in v.inputs):
                return Term("product", v.inputs)
            if v.op.name == "sum" and self.base(v.inputs[0]) not in self.invariant and \
                    self.stackable(v.inputs[0], ("getitem",)):
                axis, axes = v.metadata["axis"], len(v.inputs[0].shape)
                axis = range(axes) if axis is None else axis if isinstance(axis, tuple) else (axis,)
                return Term("sum", v.inputs, tuple(i % axes for i in axis))
        return Term("step", (v,))

    def stackable(self, value: Value, views: tuple[str, ...] = ("getitem", "transpose")) -> bool:
        """Whether all steps of a value can be one array: itself, or one view, as a slice, of what is computed."""
        if self.is_view(value) and value.op.name in views:
            value = value.inputs[0]
        return not self.is_view(value) and not value.is_constant

    def is_view(self, value: Value) -> bool:
        if value.op is None or value in self.invariant:
            return False
        if value.op.name == "getitem":
            return all(isinstance(i, slice) for i in value.metadata["index"])
        return value.op.name in ("transpose", "broadcast_to")

    def base(self, value: Value) -> Value:
        """What a view looks at in the end."""
        while self.is_view(value):
            value = value.inputs[0]
        return value

    def seen(self, value: Value) -> set[Value]:
        """The values whose memory this one may look into: that of what it is a view of, and, where NumPy makes it
        (np.reshape gives a view or a copy), of all its inputs."""
        if value.op is None or value.op.name in WRITTEN:
            return {value}
        if value not in self.looks_into:
            self.looks_into[value] = set().union(*map(self.seen, value.inputs), () if self.is_view(value) else {value})
        return self.looks_into[value]

    # -- places ----------------------------------------------------------------------------------------------

    def free(self, name: str) -> str:
        candidate, n = name, 2
        while candidate in self.taken:
            candidate, n = f"{name}_{n}", n + 1
        self.taken.add(candidate)
        return candidate

    def name(self, value: Value) -> str:
        if value not in self.emitter.names:
            self.emitter.names[value] = self.free(f"t{self.next_number()}")
        return self.emitter.names[value]

    def array(self, loop: Loop, kind: str, value: Value, extra: int = 0) -> Place:
        """A new array for a value."""
        lead = {"stack": [f"T + {extra}" if extra else "T"], "turn": ["2"], "block": ["K"]}.get(kind, [])
        ending = {"stack": "over_time", "turn": "in_turn", "block": "ahead", "buffer": "buffer"}[kind]
        name = self.free(f"{self.name(value)}_{ending}")
        loop.arrays[name] = empty([*lead, *value.shape], value.dtype)
        return Place(name, kind, scalar=value.shape == ())

    def place_parts(self, whole: Value, producers: set[Value]) -> None:
        """Let the parts of a placed concatenation lie in it: those that one op makes, and what comes from outside."""
        place = self.places[whole]
        for a, path in zip(whole.inputs, part_paths(whole)):
            if a not in self.places and a not in self.invariant and not a.is_constant and not self.is_view(a) and \
                    whole.inputs.count(a) == 1 and (a in producers or a in self.state or (
                        a in self.x and place.kind == "stack")):
                self.places[a] = replace(place, path=place.path + path, contiguous=False)
                if a.op is not None and a.op.name == "concatenate":
                    self.place_parts(a, producers)

    def place_forward(self, loop: Loop) -> None:
        """What must lie in a fixed place: the state over time, with the concatenations it feeds, and what is kept."""
        values = [v for v in self.program.forward if v not in self.invariant]
        producers = {v for v in values if v.op.name in WRITTEN}
        kind = "stack" if self.differentiated else "turn"
        for whole in reversed(values):
            if whole.op.name == "concatenate" and whole not in self.places and self.options.placed:
                from_outside = [a for a in whole.inputs if a in self.state and a not in self.places]
                if from_outside or whole in self.kept:
                    self.places[whole] = self.array(loop, kind, whole, extra=1)
                    self.place_parts(whole, producers)
        for a in self.state:
            if a not in self.places:
                self.places[a] = self.array(loop, kind, a, extra=1)
        for a, new in zip(self.state, self.new_state):
            if new in producers and new not in self.places:
                self.places[new] = replace(self.places[a], offset=1)
        for value in values:
            if value in self.kept and value not in self.places:
                self.places[value] = self.array(loop, "stack", value)
        self.place_concatenations(loop, values)

    def place_concatenations(self, loop: Loop, values: list[Value]) -> None:
        """The other concatenations, the last first, so that one within another lies in it."""
        if self.options.placed:
            producers = {v for v in values if v.op.name in WRITTEN}
            for whole in reversed(values):
                if whole.op.name == "concatenate":
                    if whole not in self.places:
                        self.places[whole] = self.array(loop, "buffer", whole)
                    self.place_parts(whole, producers)

    # -- statements --------------------------------------------------------------------------------------------

    def operand(self, value: Value, loop: Loop) -> str:
        """The variable, or number, that stands for a value in a statement."""
        if value.is_constant:
            if np.size(value.constant) <= 16:
                return constant(value.constant)[0]
            name = self.free("constant")
            self.constants[name] = value.constant
            self.places[value] = Place(name, "local")
            return name
        if value not in self.places:
            self.places[value] = self.view(value, loop)
        return self.variable(self.places[value], self.name(value), loop)

    def variable(self, place: Place, hint: str, loop: Loop) -> str:
        if place.kind == "local":
            return place.array
        if place.kind == "buffer" and not place.path:
            return place.array
        views = loop.fixed if place.kind == "buffer" else loop.views
        for name, text in views.items():
            if text == place.text:
                return name
        name = hint
        while name in loop.fixed or name in loop.views or name in loop.arrays or name in self.locals:
            name = self.free(hint)
        views[name] = place.text
        return name

    def view(self, value: Value, loop: Loop) -> Place:
        """The place of a view: that of its parent, seen along a path."""
        (parent,) = value.inputs
        source = self.operand(parent, loop)
        place = self.places.get(parent, Place(source, "local"))
        if value.op.name == "getitem":
            path = f"[{slice_text(value.metadata['index'])}]"
        elif value.op.name == "transpose":
            axes = value.metadata["axes"]
            path = ".T" if axes is None else f".transpose({literal(tuple(axes))})"
        else:
            place, path = Place(source, "local"), None
        if place.kind != "local":
            index = value.metadata.get("index", ())
            rows = len(index) == 1 and index[0].step is None
            return replace(place, path=place.path + path, contiguous=place.contiguous and rows)
        name = self.local(value)
        text = f"np.broadcast_to({source}, {value.shape})" if path is None else f"{source}{path}"
        loop.body.append(f"{name} = {text}")
        return Place(name, "local")

    def local_name(self, hint: str) -> str:
        name = self.free(hint)
        self.locals.add(name)
        return name

    def local(self, value: Value) -> str:
        name = self.name(value)
        self.locals.add(name)
        return name

    def hoist(self, values: list[Value], loop: Loop) -> None:
        """What does not change with time, before the loop; a transposed matrix as a contiguous copy, which BLAS reads
        up to 1.7 times faster."""
        for value in values:
            text, _ = self.emitter.call(value, [self.operand(a, loop) for a in value.inputs])
            if value.op.name == "transpose" and len(value.shape) == 2:
                self.places[value] = self.array(loop, "buffer", value)
                loop.before.append(f"copyto({self.operand(value, loop)}, {text})")
            else:
                name = self.local(value)
                loop.before.append(f"{name} = {text}")
                self.places[value] = Place(name, "local")

    def compute(self, values: list[Value], loop: Loop, live: list[Value]) -> None:
        """The statements of one step; `live` are read after it."""
        last: dict[Value, int] = {}
        for n, value in enumerate(values):
            last.update((b, n) for a in value.inputs for b in self.seen(a))
        last.update((b, len(values)) for value in live for b in self.seen(value))
        idle: dict[tuple, list[Place]] = {}
        owned: dict[Value, Place] = {}  # values in buffers that may be used again
        for n, value in enumerate(values):
            if self.is_view(value):
                continue
            operands = [self.operand(a, loop) for a in value.inputs]
            dying = {b: None for a in value.inputs for b in sorted(self.seen(a), key=by_number)
                     if last[b] == n and b in owned}
            if value not in self.places and value.op.name in WRITTEN:
                same = next((b for b in dying if self.in_place(value, b)), None) if self.options.reuse else None
                free = idle.get((value.shape, value.dtype))
                if same is not None:
                    del dying[same]
                    self.places[value] = owned.pop(same)
                else:
                    self.places[value] = free.pop() if free else self.array(loop, "buffer", value)
                owned[value] = self.places[value]
            loop.body += self.statement(value, operands, loop)
            for b in dying if self.options.reuse else ():
                idle.setdefault((b.shape, b.dtype), []).append(owned.pop(b))

    def compute_ahead(self, values: list[Value], loop: Loop, live: list[Value]) -> list[Value]:
        """The statements for a block of steps; returns the values that are left for the steps themselves."""
        if not self.options.ahead:
            return values
        found: dict[Value, None] = {}
        for value in values:
            if self.can_go_ahead(value, found):
                found[value] = None
        rest = [v for v in values if v not in found]
        needed = {self.base(a) for v in rest for a in v.inputs} | {self.base(v) for v in live}
        last = {self.base(a): n for n, value in enumerate(found) for a in value.inputs}
        idle: dict[tuple, list[Place]] = {}
        owned: dict[Value, Place] = {}
        bytes_a_step = 0
        for n, value in enumerate(found):
            operands = [self.operand_ahead(a, loop) for a in value.inputs]
            dying = {self.base(a): None for a in value.inputs if last[self.base(a)] == n and self.base(a) in owned}
            if value not in self.places:
                same = next((b for b in dying if self.in_place(value, b)), None) if self.options.reuse else None
                free = idle.get((value.shape, value.dtype))
                if same is not None:
                    del dying[same]
                    self.places[value] = owned.pop(same)
                elif free:
                    self.places[value] = free.pop()
                else:
                    self.places[value] = self.array(loop, "block", value)
                    bytes_a_step += np.dtype(value.dtype).itemsize * int(np.prod(value.shape))
                if value not in needed:
                    owned[value] = self.places[value]
            out = self.places[value].over_block()
            loop.ahead.append(called(value, operands, out))
            for b in dying if self.options.reuse else ():
                idle.setdefault((b.shape, b.dtype), []).append(owned.pop(b))
        loop.size = int(np.clip(BLOCK_BYTES // max(bytes_a_step, 1), 1, 32))
        return rest

    def can_wait(self, values: list[Value]) -> set[Value]:
        """The values that only sums over time read: they are computed for a block of steps too, after its steps."""
        if not self.options.ahead:
            return set()
        read = {self.base(g) for a, g in self.gradients.items() if a not in self.closed}
        late: set[Value] = set()
        for value in reversed(values):
            if value not in read and not self.is_view(value) and value.op.name in UFUNCS - {"power"} and \
                    self.lies_in_blocks(value) and all(
                        a.is_constant or a in self.invariant or (self.lies_in_blocks(self.base(a)) and
                        len(a.shape) == len(value.shape) and (a is self.base(a) or (a.op.name == "getitem" and
                                                              a.inputs[0] is self.base(a)))) for a in value.inputs):
                late.add(value)
            else:
                read.update(self.base(a) for a in value.inputs)
        return late

    def lies_in_blocks(self, base: Value) -> bool:
        place = self.places.get(base)
        return place is not None and place.kind in ("block", "stack") and "." not in place.path

    def can_go_ahead(self, value: Value, found: dict) -> bool:
        """Whether a value waits for no other step: an elementwise op, or a product with a weight, of what is there."""
        product = value.op.name == "matmul" and value.inputs[0] in self.invariant and \
            all(len(a.shape) == 2 for a in value.inputs)
        if not product and value.op.name not in UFUNCS - {"power"}:
            return False
        if value in self.places and (self.places[value].kind != "stack" or self.places[value].path):
            return False
        for a in value.inputs:
            if a.is_constant or a in self.invariant:
                if len(np.shape(a.constant) if a.is_constant else a.shape) > len(value.shape):
                    return False
                continue
            base = self.base(a)
            if len(a.shape) != len(value.shape) or (a is not base and (
                    a.op.name != "getitem" or a.inputs[0] is not base)):
                return False
            there = base in found or base in self.x or self.over_time_before(base)
            if not there:
                return False
        return True

    def over_time_before(self, base: Value) -> bool:
        """Whether all steps of a value are there before the loop begins: those of the forward in the backward."""
        return self.is_backward and base in self.places and self.places[base].kind == "stack" and base in self.done

    def operand_ahead(self, a: Value, loop: Loop) -> str:
        """An operand for a block of steps."""
        if a.is_constant and np.ndim(a.constant) == 0:
            return constant(a.constant)[0]
        if a.is_constant or a in self.invariant:
            return self.operand(a, loop)
        base = self.base(a)
        level = "" if a is base else f"[:, {slice_text(a.metadata['index'])}]"
        if base in self.x and self.places[base].kind == "local":
            return f"xs[{self.x.index(base)}][start:stop]{level}"
        return self.places[base].over_block() + level

    def in_place(self, value: Value, b: Value) -> bool:
        """Whether a value may be written over an input that dies with it."""
        elementwise = value.op.name in UFUNCS or value.op.name == "sigmoid"
        return elementwise and (value.shape, value.dtype) == (b.shape, b.dtype) and \
            all(a is b or b not in self.seen(a) for a in value.inputs)

    def statement(self, value: Value, operands: list[str], loop: Loop) -> list[str]:
        """Compute one value into its place."""
        name, place = value.op.name, self.places.get(value)
        if place is None or name not in WRITTEN:
            text, _ = self.emitter.call(value, operands)
            if place is None:
                self.places[value] = Place(self.local(value), "local")
                return [f"{self.operand(value, loop)} = {text}"]
            return [f"{self.operand(value, loop)}[...] = {text}"]
        out = self.operand(value, loop)
        if name == "sigmoid":
            if value.dtype.kind == "c":  # of which exp(−z) may be inf + nan i
                half = self.number(0.5, value.dtype, loop)
                return [f"multiply({operands[0]}, {half}, {out})", f"tanh({out}, {out})",
                        f"multiply({out}, {half}, {out})", f"add({out}, {half}, {out})"]
            loop.quiet = True  # exp(−x) may be inf, and 1 / (1 + inf) is 0
            one = self.number(1.0, value.dtype, loop)
            return [f"negative({operands[0]}, {out})", f"exp({out}, {out})", f"add({out}, {one}, {out})",
                    f"divide({one}, {out}, {out})"]
        if name == "matmul":
            return [self.product(value, operands, out, loop)]
        if name == "sum":
            return [f"np.add.reduce({operands[0]}, axis={literal(value.metadata['axis'])}, "
                    f"keepdims={value.metadata['keepdims']}, out={out})"]
        if name == "where":
            return [f"copyto({out}, {operands[2]})", f"copyto({out}, {operands[1]}, where={operands[0]})"]
        if name == "concatenate":
            return [f"copyto({self.variable(part, f'{out}_part', loop)}, {text})"
                    for a, text, part in zip(value.inputs, operands, self.parts(value)) if self.places.get(a) != part]
        if name == "power" and value.inputs[1].is_constant and value.inputs[1].constant == 2:
            return [f"square({operands[0]}, {out})"]
        operands = [self.whole_operand(a, text, value, loop) for a, text in zip(value.inputs, operands)]
        return [called(value, operands, out)]

    def whole_operand(self, a: Value, text: str, value: Value, loop: Loop) -> str:
        """An operand as NumPy takes it fastest: a number as an array of its type (300 ns less), and what does not
        change with time in its full shape (a bias column of 192 gates: 1 µs less)."""
        if a.is_constant and np.ndim(a.constant) == 0:
            others = [b.dtype for b in value.inputs if not b.is_constant]
            dtype = value.dtype if value.dtype.kind in "fc" else others[0] if others else None
            return text if dtype is None else self.number(a.constant, dtype, loop)
        if a in self.invariant and a.shape != value.shape and self.options.hoisted:
            return self.whole_over_columns(text, value.shape, a.dtype, loop)
        return text

    def whole_over_columns(self, text: str, shape: tuple, dtype: Any, loop: Loop) -> str:
        """What does not change with time, broadcast into an array of its own before the loop."""
        key = (text, shape)
        if key not in loop.whole:
            loop.whole[key] = name = self.free(f"{text}_whole" if text.isidentifier() else "whole")
            loop.arrays[name] = empty([*shape], dtype)
            loop.before.append(f"copyto({name}, {text})")
        return loop.whole[key]

    def number(self, x: Any, dtype: Any, loop: Loop) -> str:
        """A number as an array without axes, made before the loop."""
        x = x.item() if isinstance(x, (np.ndarray, np.generic)) else x
        name = {0: "zero", 0.5: "half", 1: "one", 2: "two"}.get(x, "number") if np.isreal(x) else "number"
        return self.prepared(name, f"np.array({constant(x)[0]}, {dtype_text(dtype)})", loop)

    def prepared(self, hint: str, text: str, loop: Loop) -> str:
        """A variable that holds this from before the loop."""
        for line in loop.before:
            name, equals, known = line.partition(" = ")
            if equals and known == text:
                return name
        name = self.free(hint)
        self.locals.add(name)
        loop.before.append(f"{name} = {text}")
        return name

    def parts(self, whole: Value) -> list[Place]:
        place = self.places[whole]
        return [replace(place, path=place.path + path, contiguous=False) for path in part_paths(whole)]

    def product(self, value: Value, operands: list[str], out: str, loop: Loop) -> str:
        """A matrix product: by np.dot where it may be, in row blocks where OpenBLAS is quicker with small ones."""
        a, b = value.inputs
        place = self.places[value]
        if len(a.shape) != 2 or len(b.shape) != 2 or not place.contiguous or a.dtype != b.dtype:
            return f"matmul({', '.join(operands)}, {out})"
        (rows, inner), columns = a.shape, b.shape[1]
        if self.options.blocked and a in self.invariant and rows * inner * columns > SMALL_PRODUCT:
            for blocks in range(2, 9):
                if rows % blocks == 0 and rows // blocks * inner * columns <= SMALL_PRODUCT:
                    blocked = self.free(f"{operands[0]}_blocks")
                    loop.before.append(f"{blocked} = {operands[0]}.reshape({blocks}, {rows // blocks}, {inner})")
                    path = f"{place.path}.reshape({blocks}, {rows // blocks}, {columns})"
                    out = self.variable(replace(place, path=path), f"{out}_blocks", loop)
                    return f"matmul({blocked}, {operands[1]}, {out})"
        return f"dot({', '.join(operands)}, {out})"

    # -- the forward loop ----------------------------------------------------------------------------------------

    def write_forward(self) -> Loop:
        loop, self.locals = Loop(), set()
        for a in self.closed:
            self.places[a] = Place(self.local(a), "local")
        self.place_forward(loop)
        self.hoist([v for v in self.program.forward if v in self.invariant], loop)
        self.take_inputs(loop, copy=True)
        for k, a in enumerate(self.state):
            loop.before.append(f"{self.places[a].at('0')}[...] = state[{k}]")
        values = [v for v in self.program.forward if v not in self.invariant]
        self.is_backward, self.done = False, set()
        values = self.compute_ahead(values, loop, [*self.new_state, *self.y])
        self.compute(values, loop, [*self.new_state, *self.y])
        for a, new in zip(self.state, self.new_state):
            place = replace(self.places[a], offset=1)
            text = self.operand(new, loop)
            if self.places.get(new) != place:
                loop.body.append(f"copyto({self.variable(place, f'{self.name(a)}_next', loop)}, {text})")
        for k, y in enumerate(self.y):
            text = self.operand(y, loop)
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
                self.places[a] = Place(self.local(a), "local")
                loop.body.append(f"{self.name(a)} = xs[{k}][t]")

    # -- the backward loop -----------------------------------------------------------------------------------------

    def write_backward(self) -> Loop:
        loop, self.locals = Loop(), {self.name(a) for a in self.closed}
        program, values = self.program, self.steps_backward
        made = set(values)
        for value, place in list(self.places.items()):  # variables of the forward loop are not there any more
            if place.kind == "local" and value not in self.closed and value not in self.invariant:
                del self.places[value]
        for value, place in list(self.places.items()):
            if self.is_view(value) or (place.kind == "local" and value.op is not None):
                del self.places[value]
        invariant = [v for v in [*program.forward, *self.values_backward] if v in self.invariant]
        self.hoist([v for v in invariant if self.is_read(v, invariant)], loop)
        self.take_inputs(loop, copy=False)
        stacked = [v for terms in self.sums.values() for term in terms if term.how != "step" for v in term.values]
        for value in map(self.base, stacked):
            if value not in self.places and (value in made or value in program.seeds.values()):
                self.places[value] = self.array(loop, "block", value)
        carries = self.carries(loop, made)
        self.place_concatenations(loop, values)
        self.seed(loop, carries)
        sums = [self.local_name(f"sum_{self.name(a)}") for a in self.closed]
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
        self.is_backward, self.done = True, set(program.forward) | set(self.state) | set(self.x)
        values = self.compute_ahead(values, loop, live)
        late = self.can_wait(values)
        self.compute([v for v in values if v not in late], loop, live)
        loop.behind += [called(v, [self.operand_ahead(a, loop) for a in v.inputs], self.places[v].over_block())
                        for v in values if v in late]
        for k, a in inputs:
            loop.before.append(f"d_xs_{k} = {empty(['T', *a.shape], a.dtype)}")
            loop.body.append(f"d_xs_{k}[t] = {self.operand(self.gradients[a], loop)}")
        for a, terms in self.sums.items():
            for term in terms:
                if term.how == "step":
                    loop.body.append(f"add({self.total[a]}, {self.operand(term.values[0], loop)}, {self.total[a]})")
        for a, place in carries.items():
            g = self.gradients.get(a)
            text = "0" if g is None else self.operand(g, loop)
            if g is None or self.places.get(g) != place:
                loop.body.append(f"copyto({self.variable(place, f'd_{self.name(a)}_before', loop)}, {text})")
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
            if base in made and base not in self.places and base.op.name in WRITTEN:
                self.places[base] = self.array(loop, "turn", base)
            if base in made and self.places.get(base, Place("", "")).kind == "turn":
                self.operand(g, loop)
                if self.places[g].kind == "turn" and self.places[g] not in out.values():  # two may have one gradient
                    out[a] = self.places[g]
                    continue
            out[a] = self.array(loop, "turn", a)
        return out

    def seed(self, loop: Loop, carries: dict[Value, Place]) -> None:
        """The gradient that arrives at each result of the step: from the step after, and from ys."""
        for k, a in enumerate(self.state):
            loop.before.append(f"{carries[a].at('T')}[...] = d_state[{k}]")
        for result, seed in self.program.seeds.items():
            places = [replace(carries[a], offset=1) for a, new in zip(self.state, self.new_state) if new is result]
            hint = f"d_{self.emitter.names.get(result, 'state')}_after"
            arriving = [self.variable(place, hint, loop) for place in places]
            for k, y in enumerate(self.y):
                if y is result:
                    name = self.free(f"d_y{k}")
                    self.locals.add(name)
                    loop.body.append(f"{name} = d_ys[{k}][t]")
                    arriving.append(name)
            if seed in self.places:  # it is stacked for a sum over time
                loop.body.append(f"copyto({self.operand(seed, loop)}, {arriving[0]})")
            elif len(arriving) == 1:
                self.places[seed] = places[0] if places else Place(arriving[0], "local")
                continue
            else:
                self.places[seed] = self.array(loop, "buffer", seed)
                loop.body.append(f"copyto({self.operand(seed, loop)}, {arriving[0]})" if len(arriving) == 1 else
                                 f"add({arriving[0]}, {arriving[1]}, {self.operand(seed, loop)})")
                arriving = arriving[1:]
            for more in arriving[1:]:
                loop.body.append(f"add({self.operand(seed, loop)}, {more}, {self.operand(seed, loop)})")

    def gather(self, loop: Loop) -> None:
        """Sums over time, a block of steps at once."""
        made: dict[tuple, str] = {}  # what stands side by side once serves products and sums

        def side_by_side(value: Value, how: Callable[[Value, Loop], str]) -> str:
            if (value, how) not in made:
                made[value, how] = self.local_name("rows")
                loop.behind.append(f"{made[value, how]} = {how(value, loop)}")
            return made[value, how]

        lines = []
        for a, terms in self.sums.items():
            total = self.total[a]
            for term in terms:
                if term.how == "product":
                    left, right = term.values
                    loop.size = max(loop.size, -(-BLOCK_COLUMNS // max(left.shape[1], 1)))
                    product = self.free("product")
                    loop.arrays[product] = empty([*a.shape], np.result_type(left.dtype, right.dtype))
                    left, right = side_by_side(left, self.rows), side_by_side(right, self.rows_of_columns)
                    lines.append(f"{total} = {left} @ {right}.T if {total} is None else "
                                 f"add({total}, dot({left}, {right}.T, {product}), {total})")
                elif term.how == "sum":
                    (x,), axes = term.values, term.axes
                    if axes == (1,) and len(x.shape) == 2 and x.shape[1] > 1:
                        text = f"np.add.reduce({side_by_side(x, self.rows)}, axis=1)"
                    else:
                        text = f"np.add.reduce({self.whole(x)}, axis={(0, *(i + 1 for i in axes))})"
                    text = text if axes == () else f"{text}.reshape({a.shape})"
                    summed = self.local_name("summed")
                    lines += [f"{summed} = {text}",
                              f"{total} = {summed} if {total} is None else add({total}, {summed}, {total})"]
        loop.behind += lines

    def whole(self, value: Value) -> str:
        """A block of steps of a value as one array (n, …)."""
        if value in self.x and self.places[value].kind == "local":
            return f"xs[{self.x.index(value)}][start:stop]"
        place = self.places.get(value)
        if place is None or place.kind == "local":
            place = replace(self.places[value.inputs[0]], path=f"[{slice_text(value.metadata['index'])}]")
        assert place.kind in ("stack", "block") and "." not in place.path, f"{place} is nowhere for a block of steps"
        return place.over_block()

    def rows(self, value: Value, loop: Loop) -> str:
        """A block of K steps of a matrix (n, m) side by side: (n, K m)."""
        if value.op is not None and value.op.name == "transpose" and self.is_view(value):
            return f"{self.whole(value.inputs[0])}.reshape(-1, {value.shape[0]}).T"
        return self.side_by_side(value, loop)

    def rows_of_columns(self, value: Value, loop: Loop) -> str:
        """A block of K steps of a matrix (m, k), transposed, side by side: (k, K m)."""
        if value.op is not None and value.op.name == "transpose" and self.is_view(value):
            return self.side_by_side(value.inputs[0], loop)
        return f"{self.whole(value)}.reshape(-1, {value.shape[1]}).T"

    def side_by_side(self, value: Value, loop: Loop) -> str:
        """The text for the steps of a matrix (n, m) as (n, K m): copied into an array of their own, but single columns,
        which lie so already."""
        n, m = value.shape
        if m == 1:
            return f"{self.whole(value)}.reshape(-1, {n}).T"
        self.emitter.helpers["side_by_side"] = SIDE_BY_SIDE
        flat = self.free(f"{self.name(self.base(value))}_rows")
        loop.arrays[flat] = f"np.empty({n * m} * K, {dtype_text(value.dtype)})"
        return f"side_by_side({self.whole(value)}, {flat})"

    # -- text ------------------------------------------------------------------------------------------------------

    def text(self) -> str:
        weights = [f"{bracket([self.name(a) for a in self.closed], '(')} = weights"] if self.closed else []
        lines = [line for loop in (self.forward, self.backward) if loop
                 for line in [*loop.before, *loop.ahead, *loop.body, *loop.behind]]
        lines += [line for helper in self.emitter.helpers.values() for line in helper.splitlines()]
        used = sorted(name for name in FUNCTIONS if any(re.search(rf"(?<![\w.]){name}\(", line) for line in lines))
        parts = [f'"""{self.program.name} over time, as minigrad runs it."""\n\nimport numpy as np\n'
                 + (f"from numpy import {', '.join(used)}\n" if used else "")]
        forward = [*weights, *unpacked(self.forward, "made"), *self.forward.before,
                   *loop_text(self.forward, "0, T", "range(start, stop)", "steps"), *self.forward.after]
        functions = [made_function("make", self.forward, None),
                     function("forward", ["T", "state", "xs", "weights", "made"], forward)]
        if self.backward is not None:
            backward = [*weights, *arrays_of(self.forward, "made"), *unpacked(self.backward, "made_backward"),
                        *self.backward.before,
                        *loop_text(self.backward, "(T - 1) // K * K, -1", "range(stop - 1, start - 1, -1)",
                                   "reversed(steps)"), *self.backward.after]
            arguments = ["T", "d_state", "d_ys", "xs", "weights", "sums", "made", "made_backward"]
            functions += [made_function("make_backward", self.backward, self.forward),
                          function("backward", arguments, backward)]
        return "\n\n".join(part.strip("\n") + "\n" for part in [*parts, *self.emitter.helpers.values(), *functions])

    def compiled(self) -> dict[str, Any]:
        """The functions of the text, ready to be called."""
        filename = f"<minigrad planned {self.program.name} {number()}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(keepends=True), filename)
        module = dict(self.constants)
        exec(compile(self.source, filename, "exec"), module)
        return module


def part_paths(whole: Value) -> list[str]:
    """The slice of a concatenation that each of its inputs fills, as text."""
    return [f"[{slice_text(index)}]" for index in part_slices(whole)]


def called(value: Value, operands: list[str], out: str) -> str:
    """The call of a NumPy function into a buffer; NumPy wants the buffer of maximum and minimum by name."""
    name = value.op.numpy[0].__name__
    return f"{name}({', '.join(operands)}, {'out=' if name in ('maximum', 'minimum') else ''}{out})"


def loop_text(loop: Loop, bounds: str, steps: str, views: str) -> list[str]:
    """The loop over time, in blocks if something is computed ahead."""
    names, body = bracket(list(loop.views), "("), [f"    {line}" for line in loop.body or ["pass"]]
    blocks = bool(loop.ahead or loop.behind)
    if blocks:
        views = views.replace("steps", "steps[start:stop]")
    else:
        steps = steps.replace("start", "0").replace("stop", "T")
    if any(re.search(r"\bt\b", line) for line in loop.body):
        head = wrapped(names, f" in zip({steps}, {views}):", "for t, ")
    else:
        head = wrapped(names, f" in {views}:", "for ")
    text = [*head, *body]
    if blocks:
        step = "-K" if "-1" in bounds else "K"
        text = [f"K = min({loop.size}, T)", f"for start in range({bounds}, {step}):", "    stop = min(start + K, T)",
                *(f"    {line}" for line in [*loop.ahead, *text, *loop.behind])]
    if loop.quiet:
        text = ["with np.errstate(over='ignore', under='ignore'):", *(f"    {line}" for line in text)]
    return text


def wrapped(names: str, tail: str, head: str = "") -> list[str]:
    """A tuple with what stands before and behind it, over several lines if it is long."""
    return broken(names, tail, head) if len(head + names + tail) > WIDTH else [f"{head}{names}{tail}"]


def empty(shape: list, dtype: Any) -> str:
    return f"np.empty({bracket([str(n) for n in shape], '(')}, {dtype_text(dtype)})"


def unpacked(loop: Loop, made: str) -> list[str]:
    """Take the arrays, the fixed views and the views of each step out of what `make` gave."""
    return wrapped(bracket([*loop.arrays, *loop.fixed], "("), f", steps = {made}")


def arrays_of(loop: Loop, made: str) -> list[str]:
    """Only the arrays, under the names that the loop's own views do not use."""
    return wrapped(bracket([*loop.arrays], "("), f" = {made}[0][:{len(loop.arrays)}]") if loop.arrays else []


def made_function(name: str, loop: Loop, before: Loop | None) -> str:
    """The function that makes the buffers of a loop and all views into them, once for a length T."""
    lines = [f"K = min({loop.size}, T)"] if loop.ahead or loop.behind else []
    lines += arrays_of(before, "made") if before is not None else []
    lines += [f"{array} = {text}" for array, text in loop.arrays.items()]
    lines += [f"{variable} = {text}" for variable, text in loop.fixed.items()]
    lines += wrapped(bracket(list(loop.views.values()), "("), " for t in range(T)]", "steps = [")
    lines += wrapped(bracket([*loop.arrays, *loop.fixed], "("), ", steps", "return ")
    return function(name, ["T"] if before is None else ["T", "made"], lines)
