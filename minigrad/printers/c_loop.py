"""A cell's program as two loops over time in C: one file, in the user's names.

The values are those of the program that `derive` prints, cut so that entrywise work has one shape (program/pieces.py).
1. All entrywise values of one shape that can be computed together are one pass over the entries. What only this pass
   needs is a variable of the loop's body; all else is stored.
2. Values that the backward reads are stored over time. Slices, transposes and broadcasts are strides (c_places.py).
3. Products with a weight use panels of it, packed before the loop (c_products.py). Loop invariants come from NumPy.
4. If no value mixes the columns of the batch (program/columns.py), chunks of them are shared out to threads. COLUMNS is
   a constant of the text, so a chunk's row is a few vectors.
5. The factors of a weight's gradient are laid down in rows over all steps; after the loop NumPy multiplies them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.engine.op import PART
from minigrad.engine.ops import add, concatenate, cumsum, getitem, matmul, reshape, scatter, transpose
from minigrad.engine.ops import max as max_op
from minigrad.engine.ops import min as min_op
from minigrad.engine.ops import sum as sum_op
from minigrad.printers import c_math
from minigrad.printers.c_expressions import NotInC, binding, c_type, called, expression, number, operand_dtypes
from minigrad.printers.c_places import Place, standard
from minigrad.printers.c_products import (
    BY_COLUMNS,
    BY_ROWS,
    COPIES,
    HEAD,
    RUN,
    VECTORS,
    for_type,
    taken,
)
from minigrad.printers.readable import Emitter, values_in
from minigrad.program.analysis import Aliases, BackwardNeeds, is_view, part_slices, results_that_depend
from minigrad.program.columns import keeps_columns
from minigrad.program.ir import DETACH, LOOP, Value, in_order, numbers_of
from minigrad.program.pieces import Pieces
from minigrad.program.reassociate import Reassociated
from minigrad.program.simplify import Program

# {columns of a chunk: its time, relative}; fewer than 4 columns run one by one
WIDTHS = {32: 32, 16: 17, 8: 11, 4: 9}
INDEX = ("i", "j", "k", "l", "m", "n")
MOST_VALUES, MOST_ENTRIES = 2000, 4096
INLINE = 72
RESERVED = frozenset("""auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union unsigned void volatile
    while bool true false NULL NAN INFINITY COLUMNS T t i j k l m n run chunk block columns column memory work array stride
    line sum first take part forward backward asm typeof main""".split())


def chunk_width(batch: int, threads: int, itemsize: int) -> int:
    """The columns of a chunk: those with the least work, all in all, that leave every thread a chunk."""
    if batch < 4:
        return 1
    share = -(-batch // min(threads, batch))
    widths = [w for w in WIDTHS if w * itemsize <= 128]
    return min([w for w in widths if w < 2 * share] or widths[-1:], key=lambda w: -(-batch // w) * WIDTHS[w])


@dataclass(eq=False)
class Rows:
    """A value laid down over all steps for sums over time: (rows, T × columns), or (T, rows) for one column."""

    name: str
    value: Value
    transposed: bool
    rows: int
    across: int  # entries of a row that one step fills


@dataclass(eq=False)
class Loop:
    """The text of one loop: what comes before, in a step, and after; and the arrays that its call passes."""

    name: str
    typed: list[tuple] = field(default_factory=list)  # arrays that a call passes: (kind, what, name, strides, C type)
    width: int | None = None  # columns of a chunk
    before: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    work: int = 0  # bytes of the arrays of a step


class CPlan:
    """The loops of one cell `(state, x) → (state, y)` in C, at given shapes. Raises NotInC.

    source      the text; `forward` and `backward` are described by their Loops
    columns     the columns of a chunk; None if the batch is not cut
    stacks      {array: (entries of a step, extra steps, dtype)} that a chunk keeps over time
    rows        the Rows of sums over time; sums: {weight: [(how, …)]}
    """

    def __init__(self, program: Program, wanted: set[Value], threads: int = 1):
        self.program = program
        (_, state), (_, x), *closed = program.arguments
        self.state, self.x, self.closed = values_in(state), values_in(x), [tree for _, tree in closed]
        self.results = tuple(values_in(tree) for tree in program.result)
        self.differentiated = bool(wanted)
        gradients = {a: g for a, g in program.gradients.items()
                     if self.differentiated and g is not None and (a in wanted or a in self.state)}
        reassociated = Reassociated(program, gradients)
        gradients = reassociated.gradients
        results = [numbers_of(v) for values in self.results for v in values]
        if any(v.op in (LOOP, PART) for v in in_order([*results, *gradients.values()], set())):
            raise NotInC("a scan in it is not printed")
        self.pieces = pieces = Pieces(program, [*results, *gradients.values()])
        self.new_state, self.y = (list(map(pieces.new, values)) for values in self.results)
        self.gradients = {a: pieces.new(g) for a, g in gradients.items()}
        self.forward_values = in_order([*self.new_state, *self.y], set())
        self.invariant: set[Value] = set()
        self.needs = BackwardNeeds(self.forward_values, self.gradients, program.seeds.values(), self.closed,
                                   Aliases(self.invariant, lambda v: True), True, True)
        self.forward_values = [v for v in self.forward_values if v not in self.invariant]
        self.steps = self.steps_of_backward()
        if len(self.forward_values) + len(self.steps) > MOST_VALUES:
            raise NotInC(f"it has more than {MOST_VALUES} values")
        for v in [*self.state, *self.x, *self.forward_values, *self.steps, *program.seeds.values()]:
            c_type(v.dtype)
            if 0 in v.shape and v not in self.x:
                raise NotInC(f"a value has shape {v.shape}")
        self.names(reassociated)
        self.columns = self.chosen_columns(threads)
        self.stacks: dict[str, tuple[int, int, Any]] = {}
        self.rows: dict[tuple, Rows] = {}
        self.sums: dict[Value, list[tuple]] = {}
        self.types: set[str] = set()
        self.products: set[str] = set()
        self.tables: list[str] = []
        self.over_time: dict[Value, str] = {}  # values stored over time: their arrays
        self.lay_down_sums()
        self.forward = LoopWriter(self, "forward").written_forward()
        self.backward = LoopWriter(self, "backward").written_backward() if self.differentiated else None
        self.source = self.text()

    def steps_of_backward(self) -> list[Value]:
        """The values that a step of the backward computes: without transposes that only a sum over time reads."""
        factors = {v for terms in self.needs.sums.values() for term in terms for v in term.values
                   if term.how == "product" and v.op is transpose.op}
        read = {a for v in self.needs.steps for a in v.inputs}
        return [v for v in self.needs.steps if v not in factors or v in read]

    # -- names and shapes ------------------------------------------------------------------------------------------

    def names(self, reassociated: Reassociated) -> None:
        """Take the names of derived source over; a value that is computed differently keeps its name."""
        emitter = Emitter(self.program, RESERVED)
        self.taken, names, self.last = emitter.taken | RESERVED, dict(emitter.names), 0
        for value, new in [*reassociated.known.items(), *self.pieces.known.items()]:
            if value in names and new.op is not None:
                names.setdefault(new, names[value])
        own = [*self.state, *self.x, *self.closed, *self.program.seeds.values(), *self.forward_values, *self.steps]
        self.name_of: dict[Value, str] = {}
        for value in own:  # derived source may use a name again
            if value in names and value not in self.name_of:
                again = names[value] in self.name_of.values()
                self.name_of[value] = self.free(names[value]) if again else names[value]
        self.named = set(self.name_of)

    def name(self, value: Value) -> str:
        if value not in self.name_of:
            self.last += 1
            self.name_of[value] = self.free(f"t{self.last}")
        return self.name_of[value]

    def free(self, name: str) -> str:
        candidate, n = name, 2
        while candidate in self.taken:
            candidate, n = f"{name}_{n}", n + 1
        self.taken.add(candidate)
        return candidate

    def chosen_columns(self, threads: int) -> int | None:
        """The columns of a chunk, if no value mixes columns."""
        batch = self.state[0].shape[-1] if self.state and self.state[0].shape else 1
        seeds = list(self.program.seeds.values())
        values = [*self.forward_values, *self.steps]
        leaves = [*self.state, *self.x, *(s for s in seeds if not s.is_constant)]
        results = [*self.new_state, *self.y, *(g for a, g in self.gradients.items() if a not in self.closed)]
        by_step = any(term.how == "step" for terms in self.needs.sums.values() for term in terms)
        if batch == 1 or by_step or not keeps_columns(values, leaves, batch) or \
                not {*results} <= {*values, *leaves}:
            return None
        for terms in self.needs.sums.values():
            for term in terms:
                if term.how == "sum" and len(term.values[0].shape) - 1 not in term.axes:
                    return None
        return chunk_width(batch, threads, max(v.dtype.itemsize for v in self.state))

    def shape(self, value: Value) -> tuple:
        """The shape of a value in a chunk."""
        if self.columns is None or value in self.invariant or value.is_constant:
            return value.shape
        return (*value.shape[:-1], self.columns)

    # -- sums over time ---------------------------------------------------------------------------------------------

    def lay_down_sums(self) -> None:
        for a, terms in self.needs.sums.items():
            self.sums[a] = []
            for term in terms:
                if term.how == "product":
                    left, right = term.values
                    self.sums[a].append(("product", self.rows_of(left, False), self.rows_of(right, True)))
                elif term.how == "sum":
                    self.sums[a].append(("sum", self.rows_of(term.values[0], False), term.axes))
                else:
                    self.sums[a].append(("step", term.values[0]))

    def rows_of(self, value: Value, transposed: bool) -> Rows:
        """The Rows of a value (n, m), or of its transpose."""
        if value.op is transpose.op and len(value.shape) == 2 and value not in self.invariant:
            value, transposed = value.inputs[0], not transposed
        key = value, transposed
        if key not in self.rows:
            shape = value.shape[::-1] if transposed else value.shape
            across = self.shape(value)[0 if transposed else -1] if shape else 1
            name = self.free(f"{self.name(value)}_rows")
            self.rows[key] = Rows(name, value, transposed, math.prod(shape[:-1]), across)
        return self.rows[key]

    # -- the file -----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        loops = [loop for loop in (self.forward, self.backward) if loop is not None]
        bodies = [line for loop in loops for line in [*loop.before, *loop.body, *loop.after]]
        what = f"{self.program.name} over time, as minigrad compiles it"
        parts = [f"/* {what}. */\n\n{HEAD}"]
        if self.columns is not None:
            parts.append(f"enum {{ COLUMNS = {self.columns} }};  /* of the batch, side by side in a chunk */\n")
        parts += [c_math.functions(called(bodies)), RUN]
        parts += [for_type(COPIES, t) for t in sorted(self.types)]
        if self.products:
            kernels = BY_COLUMNS if (self.columns or 1) > 1 else BY_ROWS
            parts += [VECTORS, *(for_type(kernels, t) for t in sorted(self.products))]
        parts += ["\n".join(self.tables)] if self.tables else []
        for loop in loops:
            parts += [loop_function(loop), entry_function(loop)]
        return "\n".join(part.strip("\n") + "\n" for part in parts if part.strip())


def unpacked(loop: Loop, lines: list[str], constant: bool = True) -> list[str]:
    """The lines that name those arrays and strides of a call which these lines use."""
    used, out = set(re.findall(r"\w+", "\n".join(lines))), []
    for n, (_, _, name, strides, text) in enumerate(loop.typed):
        if name in used:
            out.append(f"{text if constant else text.removeprefix('const ')}{name} = run->array[{n}]->data;")
        item = text.removeprefix("const ").removesuffix(" *")
        axes = {0: (), 2: ("row", "column"), 3: ("step", "row", "column")}[strides]
        named = [f"{name}_{axis} = run->array[{n}]->strides[{k}] / (long)sizeof({item})" for k, axis in enumerate(axes)
                 if f"{name}_{axis}" in used]
        out += [f"const long {', '.join(named)};"] if named else []
    return out


def loop_function(loop: Loop) -> str:
    """The function that runs all steps of one chunk."""
    used = set(re.findall(r"\w+", "\n".join(loop.body)))
    pointers = [line for line in loop.pointers if line.split("*", 1)[1].split(" ")[0] in used]
    head = "for (long t = T - 1; t >= 0; t--) {" if loop.name == "backward" else "for (long t = 0; t < T; t++) {"
    lines = [*loop.before, "", head, *indented([*pointers, *loop.body]), "}", *loop.after]
    start = ["const long T = run->T;"]
    if "columns" in re.findall(r"\w+", "\n".join(lines)):
        start.append("const long left = run->batch - chunk * COLUMNS, columns = left < COLUMNS ? left : COLUMNS;")
    if loop.width == 1:
        lines = [line.replace("COLUMNS", "1") for line in lines]
        start = [line.replace("COLUMNS", "1") for line in start]
    memory = ["char *memory = run->memory + chunk * run->chunk_bytes;"] if "take(&memory" in lines[0] else []
    body = "\n".join(f"    {line}".rstrip() for line in [*start, *memory, *unpacked(loop, lines), "", *lines])
    return f"static void {loop.name}_chunk(const struct run *run, long chunk, char *work)\n{{\n{body}\n}}\n"


def entry_function(loop: Loop) -> str:
    """The function that is called from outside: it packs the matrices and starts the threads."""
    lines = [*unpacked(loop, loop.packs, constant=False), *loop.packs, f"run_chunks(run, threads, {loop.name}_chunk);"]
    return f"void {loop.name}(const struct run *run, long threads)\n{{\n" + "".join(
        f"    {line}\n" for line in lines) + "}\n"


def indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}".rstrip() for line in lines]


class LoopWriter:
    """Writes one of the two loops.

    place    {value: its Place}, of those that are stored
    level    {value: when it is computed}: values of one level do not wait for each other
    """

    def __init__(self, plan: CPlan, name: str):
        self.plan, self.loop = plan, Loop(name, width=plan.columns)
        self.place: dict[Value, Place] = {}
        self.renamed: dict[Value, Value] = {}  # a seed: the sum of what arrives
        self.fixed: set[Value] = set()  # values that are stored before the first group
        self.wide = plan.columns or 1
        self.taken = set(plan.taken)

    def free(self, name: str) -> str:
        """A name that this function does not use."""
        candidate, n = name, 2
        while candidate in self.taken:
            candidate, n = f"{name}_{n}", n + 1
        self.taken.add(candidate)
        return candidate

    # -- arrays -----------------------------------------------------------------------------------------------------

    def typed(self, value_type: str) -> str:
        self.plan.types.add(value_type)
        return value_type

    def passed(self, kind: str, what: Any, hint: str, dtype: Any, strides: int = 0, constant: bool = True) -> str:
        for known in self.loop.typed:
            if known[0] == kind and (known[1] is what or (isinstance(what, int) and known[1] == what)):
                return known[2]
        text = f"{'const ' if constant else ''}{c_type(dtype)} *"
        name = hint if kind == "invariant" else self.free(hint)
        self.loop.typed.append((kind, what, name, strides, text))
        return name

    def stack(self, value: Value, extra: int = 0) -> str:
        """The array of a value over time."""
        plan = self.plan
        if value not in plan.over_time:
            name = plan.free(f"{plan.name(value)}_over_time")
            plan.over_time[value] = name
            plan.stacks[name] = (math.prod(plan.shape(value)), extra, value.dtype)
        return plan.over_time[value]

    def take_stacks(self) -> list[str]:
        lines = []
        for name, (entries, extra, dtype) in self.plan.stacks.items():
            own = c_type(dtype)
            steps = f"(T + {extra})" if extra else "T"
            lines.append(f"{own} *{name} = take(&memory, {steps} * {self.entries(entries)} * sizeof({own}));")
        return lines

    def entries(self, count: int) -> str:
        if self.wide > 1 and count % self.wide == 0:
            return "COLUMNS" if count == self.wide else f"{count // self.wide} * COLUMNS"
        return str(count)

    def at_step(self, value: Value, array: str, offset: int = 0, ending: str = "_t") -> Place:
        """A pointer to a value of an array over time, at step t + offset."""
        shape = self.plan.shape(value)
        pointer = self.free(f"{self.plan.name(value)}{ending}")
        t = f"(t + {offset})" if offset else "t"
        self.loop.pointers.append(f"{c_type(value.dtype)} *{pointer} = {array} + {t} * {self.factor(shape)};")
        return Place.whole(pointer, shape)

    def factor(self, shape: tuple) -> str:
        text = self.entries(math.prod(shape))
        return f"({text})" if " " in text else text

    def in_turn(self, value: Value, name: str, offset: int, ending: str) -> Place:
        shape = self.plan.shape(value)
        pointer = self.free(f"{self.plan.name(value)}{ending}")
        step = f"(t + {offset})" if offset else "t"
        self.loop.pointers.append(f"{c_type(value.dtype)} *{pointer} = {name} + {step} % 2 * {self.factor(shape)};")
        return Place.whole(pointer, shape)

    def buffer(self, value: Value, copies: int = 1, hint: str | None = None) -> str:
        """An array of a step."""
        own, entries = c_type(value.dtype), math.prod(self.plan.shape(value)) * copies
        name = self.free(f"{hint or self.plan.name(value)}_t" if copies == 1 else
                              f"{hint or self.plan.name(value)}_in_turn")
        self.loop.before.append(f"{own} *{name} = take(&work, {self.entries(entries)} * sizeof({own}));")
        self.loop.work += taken(entries * value.dtype.itemsize)
        return name

    # -- places -----------------------------------------------------------------------------------------------------

    def actual(self, value: Value) -> Value:
        return self.renamed.get(value, value)

    def is_seen(self, value: Value) -> bool:
        """Whether a value may be a view of its input."""
        return value.op is not None and value not in self.plan.invariant and may_be_view(value)

    def source(self, value: Value) -> Place:
        """Where the entries of a value can be read: its place, or a view of its input's."""
        value = self.actual(value)
        if value in self.place:
            return self.place[value]
        if value.is_constant or value in self.plan.invariant:
            return self.unchanging(value)
        if (place := self.view_of(value)) is not None:
            return place
        raise AssertionError(f"{value} is not stored")

    def unchanging(self, value: Value) -> Place:
        """The place of a loop invariant: a weight, a view of one, or what NumPy computes before the loop."""
        if value.op is not None and value not in self.plan.closed and may_be_view(value) and \
                (place := self.seen_as(value, self.unchanging(value.inputs[0]))) is not None:
            return place
        return Place.whole(self.passed("invariant", value, self.plan.name(value), self.dtype_of(value)), value.shape)

    def view_of(self, value: Value) -> Place | None:
        """The place of a view, if the value is one."""
        return self.seen_as(value, self.source(value.inputs[0])) if self.is_seen(value) else None

    def seen_as(self, value: Value, source: Place) -> Place | None:
        """The place of a view of `source`; None if the value must be copied."""
        shape = self.plan.shape(value)
        try:
            if value.op is reshape.op:
                return source.seen(lambda x: np.reshape(x, shape, copy=False))
            if value.op is getitem.op:
                index = value.metadata["index"]
                return source.seen(lambda x: at_index(x, index)) if is_basic(index) else None
            if value.op is transpose.op:
                return source.seen(lambda x: value.op.forward(x, **value.metadata))
            return source.seen(lambda x: np.broadcast_to(x, shape))
        except ValueError:
            return None

    def root(self, value: Value) -> Value:
        """The value whose storage a value reads: itself, or what it is a view of."""
        value = self.actual(value)
        while value not in self.place and self.is_possible_view(value):
            value = self.actual(value.inputs[0])
        return value

    def is_possible_view(self, value: Value) -> bool:
        """Whether no statement computes the value: it is read through its input's place."""
        if value in self.copied or not self.is_seen(value):
            return False
        return value.op is not getitem.op or is_basic(value.metadata["index"])

    # -- what is computed, and when --------------------------------------------------------------------------------

    def schedule(self, values: list[Value], read_after: Iterable[Value]) -> None:
        """Decide which values are stored, and the level of each."""
        self.copied: set[Value] = set()
        own = set(values)
        for value in values:  # a reshape that NumPy would copy
            if value.op is reshape.op and self.needs_copy(value):
                self.copied.add(value)
        for value in own & set(self.place):
            if self.is_seen(value):
                self.copied.add(value)
        computed = [v for v in values if not self.is_possible_view(v)]
        self.level: dict[Value, int] = {}
        for v in computed:
            level = 0
            for a in v.inputs:
                a = self.actual(a)
                b = self.root(a)
                if b in self.level:
                    fused = a is b and v.op.elementwise and b.op.elementwise and self.same_shape(v, b)
                    level = max(level, self.level[b] + (not fused))
            self.level[v] = level
        self.sink_late(computed, set(map(self.root, read_after)))
        self.uses: dict[Value, list[Value]] = {}
        for v in computed:
            for a in v.inputs:
                self.uses.setdefault(self.actual(a), []).append(v)
        self.computed = computed

    def needs_copy(self, value: Value) -> bool:
        x = value.inputs[0]
        while self.is_seen(x) and x not in self.copied:
            if x.op is not reshape.op:
                return True
            x = x.inputs[0]
        return False

    def sink_late(self, computed: list[Value], live: set[Value]) -> None:
        """Move a value to the pass that reads it, if all that it reads is stored by then anyway."""
        users: dict[Value, list[tuple[Value, bool]]] = {}
        for v in computed:
            for a in v.inputs:
                a = self.actual(a)
                users.setdefault(self.root(a), []).append((v, a is self.root(a)))
        for v in reversed(computed):
            if not v.op.elementwise or v in live or v not in users:
                continue
            if any(self.root(a) in self.level and self.root(a).op.elementwise and len(users[self.root(a)]) > 1
                   for a in v.inputs):
                continue
            latest = min(self.level[u] - (not (direct and u.op.elementwise and self.same_shape(u, v)))
                         for u, direct in users[v])
            self.level[v] = max(self.level[v], latest)

    def same_shape(self, v: Value, b: Value) -> bool:
        return self.plan.shape(v) == self.plan.shape(b)

    def is_stored(self, v: Value) -> bool:
        return v in self.place

    def assign(self, live: Iterable[Value]) -> None:
        """Give a place to every computed value that another pass reads; parts of a concatenation lie in it."""
        live = {self.root(v) for v in live}
        computed = set(self.computed)
        for whole in reversed(self.computed):
            if whole.op is concatenate.op:
                if whole not in self.place:
                    self.place[whole] = Place.whole(self.buffer(whole), self.plan.shape(whole))
                for a, part in zip(whole.inputs, self.parts(whole)):
                    a = self.actual(a)
                    mine = (a in computed and (a.op.elementwise or part.contiguous)) or (
                        a in self.loadable and part.contiguous)
                    if mine and a not in self.place and a.dtype == whole.dtype and whole.inputs.count(a) == 1:
                        self.place[a] = part
        for v in self.computed:
            if v in self.place:
                continue
            outside = [u for w in self.readers(v) for u in [w]
                       if not (v.op.elementwise and u.op.elementwise and self.level[u] == self.level[v]
                               and self.same_shape(u, v))]
            through_view = any(self.root(a) is v and self.actual(a) is not v
                               for u in self.readers(v) for a in u.inputs)
            if not v.op.elementwise or outside or through_view or v in live:
                self.place[v] = Place.whole(self.buffer(v), self.plan.shape(v))

    def readers(self, v: Value) -> list[Value]:
        if not hasattr(self, "reader_map"):
            self.reader_map: dict[Value, list[Value]] = {}
            for u in self.computed:
                for a in u.inputs:
                    self.reader_map.setdefault(self.root(a), []).append(u)
        return self.reader_map.get(v, [])

    def parts(self, whole: Value) -> list[Place]:
        """The place of each part of a concatenation."""
        place = self.place[whole]
        return [place.seen(lambda x, index=index: x[index]) for index in part_slices(whole)]

    # -- statements ------------------------------------------------------------------------------------------------

    def write_values(self) -> None:
        """The statements of a step: level by level, first what is not entrywise, then a pass for each shape."""
        for level in sorted(set(self.level.values())):
            here = [v for v in self.computed if self.level[v] == level]
            for v in here:
                if not v.op.elementwise:
                    self.loop.body += self.statement(v)
            shapes: dict[tuple, list[Value]] = {}
            for v in here:
                if v.op.elementwise:
                    shapes.setdefault(self.plan.shape(v), []).append(v)
            for shape, values in shapes.items():
                self.loop.body += self.one_pass(shape, values)

    def one_pass(self, shape: tuple, values: list[Value]) -> list[str]:
        """All entrywise values of one shape and level, in one loop over the entries."""
        self.axes = self.merged_axes(shape, values)
        index, own = self.axes.index, set(values)
        lines: list[str] = []
        texts: dict[Value, str] = {}
        loaded: set[str] = set()
        read = [self.actual(a) for u in values for a in u.inputs]
        inside = {v: read.count(v) for v in values}

        def operand(a: Value, dtype: Any) -> str:
            a = self.actual(a)
            if a.is_constant and np.ndim(a.constant) == 0:
                return number(a.constant, dtype)
            if a in own:
                text = texts[a]
            else:
                text = self.at(self.source(a), shape)
                if a in self.plan.named and a not in self.plan.invariant:
                    name = self.plan.name(a)
                    if name not in loaded:
                        loaded.add(name)
                        lines.append(f"const {c_type(a.dtype)} {name} = {text};")
                    text = name
            kind = a.dtype or np.asarray(a.constant).dtype
            if np.dtype(dtype) == kind:
                return text
            return f"({c_type(dtype)}){text}" if binding(text) >= 8 else f"({c_type(dtype)})({text})"

        for v in values:
            operands = [operand(a, d) for a, d in zip(v.inputs, operand_dtypes(v))]
            text = expression(v, operands)
            stores = self.stores(v, shape)
            if v not in self.plan.named and inside[v] == 1 and not stores and len(text) <= INLINE:
                texts[v] = text
                continue
            if not inside[v] and len(stores) <= 1:
                lines += [f"{store} = {text};" for store in stores]
                continue
            name = self.plan.name(v)
            lines.append(f"const {c_type(v.dtype)} {name} = {text};")
            texts[v] = name
            lines += [f"{store} = {name};" for store in stores]
        return nest(self.axes, lines) if lines else []

    def stores(self, v: Value, shape: tuple) -> list[str]:
        stores = [self.at(self.place[v], shape)] if v in self.place else []
        stores += [self.rows_at(rows, index_of(self.axes, shape)) for rows in self.laid_down(v)]
        return stores

    def laid_down(self, v: Value) -> list[Rows]:
        """The Rows that a pass over v fills while it computes it."""
        return [rows for (value, _), rows in self.plan.rows.items() if value is v and rows in self.pending]

    def rows_at(self, rows: Rows, index: list[str]) -> str:
        """The text of an entry in the rows of a value, at this step."""
        shape = self.plan.shape(rows.value)
        if rows.transposed:
            shape, index = shape[::-1], index[::-1]
        pointer = self.rows_pointer(rows)
        lead = Place.whole("", shape[:-1]).at(index[:-1])[1:-1] if shape else "0"
        last = index[-1] if index else "0"
        if self.is_narrow(rows):
            return f"{pointer}[{lead}]"
        return f"{pointer}[{bracketed(lead)} * line + {last}]" if lead != "0" else f"{pointer}[{last}]"

    def is_narrow(self, rows: Rows) -> bool:
        return rows.across == 1

    def rows_pointer(self, rows: Rows) -> str:
        self.taken.discard(rows.name)
        name = self.passed("rows", rows, rows.name, rows.value.dtype, constant=False)
        pointer = f"{name}_t"
        step = "t" if self.is_narrow(rows) else "t % block"
        step = f"({step} * run->chunks + chunk)" if self.plan.columns else f"({step})" if " " in step else step
        scale = rows.rows if self.is_narrow(rows) else rows.across
        of_block = "" if self.is_narrow(rows) else f"t / block * {rows.rows} * line + "
        line = f"{c_type(rows.value.dtype)} *{pointer} = {name} + {of_block}{step} * {self.factor_of(scale)};"
        if line not in self.loop.pointers:
            sizes = "const long block = run->block, line = run->line;"
            if not self.is_narrow(rows) and sizes not in self.loop.before:
                self.loop.before.insert(0, sizes)
            self.loop.pointers.append(line)
        return pointer

    def factor_of(self, scale: int) -> str:
        return "COLUMNS" if scale == self.plan.columns and scale > 1 else str(scale)

    def at(self, place: Place, shape: tuple) -> str:
        """The text of the entry of a place, broadcast to the shape of the pass."""
        lead = len(shape) - len(place.shape)
        place = Place(place.array, shape, (*[0] * lead, *(0 if n == 1 else s for n, s in zip(place.shape, place.strides))),
                      place.offset)
        return self.axes.at(place, self.wide)

    def merged_axes(self, shape: tuple, values: list[Value]) -> Axes:
        return Axes(shape, self.wide)

    def copy(self, to: Place, text_of: Callable[[Axes], str], sign: str = "=") -> list[str]:
        axes = Axes(to.shape, self.wide)
        return nest(axes, [f"{axes.at(to, self.wide)} {sign} {text_of(axes)};"])

    def copied_from(self, to: Place, source: Place, sign: str = "=") -> list[str]:
        lead = len(to.shape) - len(source.shape)
        if lead < 0:
            raise NotInC("shapes do not go together")
        source = Place(source.array, to.shape, (*[0] * lead, *(0 if n == 1 else s for n, s in zip(source.shape, source.strides))),
                       source.offset)
        return self.copy(to, lambda axes: axes.at(source, self.wide), sign)

    def statement(self, v: Value) -> list[str]:
        """The statements of a value that is not entrywise."""
        place = self.place[v]
        if v.op is matmul.op:
            return self.product(v, place)
        if v.op is concatenate.op:
            return [line for a, part in zip(v.inputs, self.parts(v)) if self.place.get(self.actual(a)) != part
                    for line in self.copied_from(part, self.source_or_number(a, part))]
        if v.op in (sum_op.op, max_op.op, min_op.op):
            return self.reduction(v, place)
        if v.op is cumsum.op:
            return self.running_sum(v, place)
        if v.op is getitem.op:
            return self.gather(v, place)
        if v.op is scatter.op:
            return self.scattered(v, place)
        if v.op is reshape.op:
            source = self.source(v.inputs[0])
            return self.copied_from(place.seen(lambda x: np.reshape(x, source.shape, copy=False)), source)
        if v in self.copied:
            return self.copied_from(place, self.view_of(v))
        raise NotInC(f"{v.op} is not printed")

    def source_or_number(self, a: Value, part: Place) -> Place:
        return self.source(a)

    def product(self, v: Value, place: Place) -> list[str]:
        a, b = v.inputs
        kinds = {x.dtype for x in (a, b, v)}
        if len(kinds) > 1 or v.dtype.kind != "f":
            raise NotInC("a product of mixed number types is not printed")
        left, right = None, self.source(b)
        if a in self.plan.invariant and len(a.shape) == len(b.shape) == 2 and place.contiguous and right.contiguous \
                and place.shape[-1] == self.wide:
            own = c_type(v.dtype)
            rows, inner = a.shape
            self.plan.products.add(own)
            name = self.plan.name(a)
            panels = self.passed("panels", a, f"{name}_panels", v.dtype)
            matrix = self.unchanging(a)
            pack = (f"pack_{own}({address(matrix, 1)}, {matrix.strides[0]}, {matrix.strides[1]}, {rows}, {inner}, "
                    f"{panels});")
            if pack not in self.loop.packs:
                self.loop.packs.append(pack)
            return [f"product_{own}({rows}, {inner}, {panels}, {address(right, self.wide)}, "
                    f"{address(place, self.wide)});"]
        left = self.source(a)
        return self.plain_product(v, place, left, right)

    def plain_product(self, v: Value, place: Place, left: Place, right: Place) -> list[str]:
        """A product of any two stacks of matrices or vectors, by plain loops."""
        if len(left.shape) == 1:
            left = left.seen(lambda x: x[None])
            place = place.seen(lambda x: x[..., None, :] if len(right.shape) > 1 else x[..., None])
        if len(right.shape) == 1:
            right = right.seen(lambda x: x[:, None])
            place = place.seen(lambda x: x[..., None])
        lead, (n, m), inner = place.shape[:-2], place.shape[-2:], left.shape[-1]
        left = left.seen(lambda x: np.broadcast_to(x, (*lead, n, inner)))
        right = right.seen(lambda x: np.broadcast_to(x, (*lead, inner, m)))
        axes = Axes((*lead, n, inner, m), self.wide)
        *batch, i, k, j = axes.index
        to = place.at([*batch, i, j], self.wide)
        zero = self.copy(place, lambda axes: "0")
        return [*zero, *nest(axes, [f"{to} += {left.at([*batch, i, k], self.wide)} * {right.at([*batch, k, j], self.wide)};"])]

    def reduction(self, v: Value, place: Place) -> list[str]:
        source = self.source(v.inputs[0])
        axis, n = v.metadata["axis"], len(source.shape)
        axes = range(n) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = {a % n for a in axes} if n else set()
        if not v.metadata["keepdims"]:
            place = place.seen(lambda x: np.expand_dims(x, tuple(sorted(axes))) if axes else x)
        loops = Axes(source.shape, self.wide)
        to = Place(place.array, source.shape, tuple(0 if a in axes else s for a, s in enumerate(place.strides)),
                   place.offset)
        x, y = loops.at(source, self.wide), loops.at(to, self.wide)
        if v.op is sum_op.op:
            if v.dtype.kind not in "fi":
                raise NotInC("a sum of booleans is not printed")
            return [*self.copy(place, lambda axes: "0"), *nest(loops, [f"{y} += {x};"])]
        better = ">" if v.op is max_op.op else "<"
        start = source.seen(lambda x: at_index(x, tuple(slice(0, 1) if a in axes else slice(None) for a in range(n))))
        return [*self.copied_from(place, start), *nest(loops, [f"{y} = {x} {better} {y} || {x} != {x} ? {x} : {y};"])]

    def running_sum(self, v: Value, place: Place) -> list[str]:
        source, axis = self.source(v.inputs[0]), v.metadata["axis"]
        if axis is None:
            raise NotInC("cumsum over all entries is not printed")
        def at(x: np.ndarray, part: slice) -> np.ndarray:
            return x[(*[slice(None)] * (axis % x.ndim), part)]
        if place.shape[axis] == 1:
            return self.copied_from(place, source)
        later, before, now = (p.seen(lambda x, s=s: at(x, s)) for p, s in
                              ((place, slice(1, None)), (place, slice(None, -1)), (source, slice(1, None))))
        first = self.copied_from(place.seen(lambda x: at(x, slice(0, 1))), source.seen(lambda x: at(x, slice(0, 1))))
        axes = Axes(later.shape, self.wide)
        lines = [f"{axes.at(later, self.wide)} = {axes.at(before, self.wide)} + {axes.at(now, self.wide)};"]
        return [*first, *nest(axes, lines, independent=False)]

    def table(self, offsets: np.ndarray) -> str:
        if offsets.size > MOST_ENTRIES:
            raise NotInC(f"an index of {offsets.size} entries is not printed")
        name = self.plan.free("entries")
        rows = ", ".join(map(str, offsets.ravel().tolist()))
        self.plan.tables.append(f"static const int {name}[] = {{{rows}}};")
        return name

    def picked(self, place: Place, index: tuple, whole: tuple) -> tuple[Place, str]:
        """(offsets of the entries that an index picks of a place, as a table; the columns apart)"""
        columns = self.plan.columns is not None
        lead = place.shape[:-1] if columns else place.shape
        offsets = sum((np.arange(n).reshape([-1 if a == b else 1 for b in range(len(lead))]) * s
                       for a, (n, s) in enumerate(zip(lead, place.strides))), np.zeros(lead, np.int64)) + place.offset
        if columns:
            index = index[:len(lead)]
        return offsets[index], "j" if columns else ""

    def gather(self, v: Value, place: Place) -> list[str]:
        source = self.source(v.inputs[0])
        return self.moved(v, place, source, v.metadata["index"], gathers=True)

    def scattered(self, v: Value, place: Place) -> list[str]:
        zero, index = self.copy(place, lambda axes: "0"), v.metadata["index"]
        source = self.source(v.inputs[0])
        if is_basic(index):
            return [*zero, *self.copied_from(place.seen(lambda x: at_index(x, index)), source, "+=")]
        return [*zero, *self.moved(v, place, source, index, gathers=False)]

    def moved(self, v: Value, place: Place, source: Place, index: tuple, gathers: bool) -> list[str]:
        """Entries picked by a table: y = x[table], or y[table] += x."""
        if any(i is None or i is Ellipsis for i in index):
            raise NotInC("a new axis among indices is not printed")
        indexed, other = (source, place) if gathers else (place, source)
        offsets, column = self.picked(indexed, index, indexed.shape)
        table = self.table(offsets)
        axes = Axes(other.shape, self.wide)
        lead = len(offsets.shape)
        where = Place.whole(table, offsets.shape).at(axes.index[:lead])
        last = axes.index[-1] if column else "0"
        stride = indexed.strides[-1] if column else 0
        entry = f"{indexed.array}[{where}{f' + {last} * {stride}' if stride > 1 else f' + {last}' if stride else ''}]"
        text = f"{axes.at(other, self.wide)} = {entry};" if gathers else f"{entry} += {axes.at(other, self.wide)};"
        return nest(axes, [text], independent=gathers)

    # -- copies in and out --------------------------------------------------------------------------------------------

    def flat(self, shape: tuple) -> tuple[int, int]:
        return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)

    def load(self, value: Value, to: str, name: str, step: bool) -> str:
        rows, width = self.flat(self.plan.shape(value))
        own = self.typed(c_type(value.dtype))
        where = self.outside(name, width, step)
        valid = "columns" if self.plan.columns else str(width)
        return f"load_{own}({to}, {where}, {name}_row, {name}_column, {rows}, {width_text(width, self.wide)}, {valid});"

    def store(self, place: Place, dtype: Any, name: str, step: bool) -> str:
        rows, width = self.flat(place.shape)
        own = self.typed(c_type(dtype))
        where = self.outside(name, width, step)
        valid = "columns" if self.plan.columns else str(width)
        return (f"store_{own}({address(place, self.wide)}, {where}, {name}_row, {name}_column, {rows}, "
                f"{width_text(width, self.wide)}, {valid});")

    def outside(self, name: str, width: int, step: bool) -> str:
        parts = [name, *([f"t * {name}_step"] if step else []),
                 *([f"chunk * {width_text(width, self.wide)} * {name}_column"] if self.plan.columns else [])]
        return " + ".join(parts)

    def contiguous(self, value: Value, hint: str) -> tuple[Place, list[str]]:
        """A place in which the entries of a value lie side by side, and what copies them there."""
        value = self.actual(value)
        if not (value.is_constant or value in self.plan.invariant) or self.plan.columns is None:
            place = self.source(value)
            if place.contiguous and place.shape == self.plan.shape(value):
                return place, []
        like = Value(None, (), {}, value.shape, value.dtype or np.asarray(value.constant).dtype, name=hint)
        place = Place.whole(self.buffer(like, hint=hint), self.plan.shape(value))
        return place, self.copied_from(place, self.source(value))

    def lay_down_rest(self) -> None:
        """Copies into the rows of values that no pass of this loop has laid down."""
        for rows in self.pending:
            v = rows.value
            if v in self.level and v.op.elementwise and v in self.computed:
                continue
            place = self.source(v)
            if rows.transposed:
                place = place.seen(lambda x: x.T)
            shape, axes = place.shape, Axes(place.shape, self.wide)
            shown = Rows(rows.name, rows.value, False, rows.rows, rows.across)
            pointer = self.rows_pointer(rows)
            lead = Place.whole("", shape[:-1]).at(axes.index[:-1])[1:-1] if shape else "0"
            last = axes.index[-1] if shape else "0"
            if self.is_narrow(shown):
                to = f"{pointer}[{lead}]"
            else:
                to = f"{pointer}[{bracketed(lead)} * line + {last}]" if lead != "0" else f"{pointer}[{last}]"
            self.loop.body += nest(axes, [f"{to} = {axes.at(place, self.wide)};"])

    # -- the forward loop ----------------------------------------------------------------------------------------------

    def written_forward(self) -> Loop:
        plan, loop = self.plan, self.loop
        read = self.read_in_backward() if plan.differentiated else set()
        kept = plan.needs.kept & read
        for k, a in enumerate(plan.state):
            name = self.passed("state", k, f"{plan.name(a)}_start", a.dtype, strides=2)
            if a in kept:
                array = self.stack(a, extra=1)
                self.place[a] = self.at_step(a, array)
            else:
                array = self.buffer(a, copies=2)
                self.place[a] = self.in_turn(a, array, 0, "_t")
            setattr(loop, f"start_{k}", (self.load(a, array, name, step=False), array, a in kept))
        for v in plan.forward_values:
            if v in kept and v not in self.place:
                self.place[v] = self.at_step(v, self.stack(v))
        self.loadable = {x for x in plan.x if x in self.read_by(plan.forward_values, [*plan.new_state, *plan.y])
                         or any(rows.value is x or self.base(rows.value) is x for rows in plan.rows.values())}
        steps = set(plan.steps)
        seeds = set(plan.program.seeds.values())
        self.pending = [rows for rows in plan.rows.values() if self.base(rows.value) not in steps | seeds]
        live = [*plan.new_state, *plan.y, *(rows.value for rows in self.pending)]
        self.next_places(kept)
        self.schedule(plan.forward_values, live)
        stored = [*plan.new_state, *plan.y, *(rows.value for rows in self.pending if not rows.value.op
                                              or not rows.value.op.elementwise)]
        self.assign(stored)
        self.load_inputs()
        self.write_values()
        self.lay_down_rest()
        for k, (a, new) in enumerate(zip(plan.state, plan.new_state)):
            place = self.next[a]
            if self.place.get(self.actual(new)) != place:
                loop.body += self.copied_from(place, self.source(new))
        for k, y in enumerate(plan.y):
            name = self.passed("y", k, f"ys_{k}", self.dtype_of(y), strides=3, constant=False)
            place, lines = self.contiguous(y, f"y{k}")
            loop.body += [*lines, self.store(place, self.dtype_of(y), name, step=True)]
        loop.before = [*self.take_stacks(), *loop.before]
        for k, a in enumerate(plan.state):
            line, array, is_kept = getattr(loop, f"start_{k}")
            loop.before.append(line)
            name = self.passed("final", k, f"{plan.name(a)}_final", a.dtype, strides=2, constant=False)
            last = f"{array} + {'T' if is_kept else 'T % 2'} * {self.factor(plan.shape(a))}"
            loop.after.append(self.store(Place.whole(last, plan.shape(a)), a.dtype, name, step=False))
        return loop

    def dtype_of(self, v: Value) -> Any:
        return v.dtype or np.asarray(v.constant).dtype

    def base(self, v: Value) -> Value:
        while is_view(v) and v not in self.plan.invariant:
            v = v.inputs[0]
        return v

    def read_by(self, values: list[Value], results: list[Value]) -> set[Value]:
        read = {*results, *(a for v in values for a in v.inputs)}
        return read | {self.base(v) for v in read}

    def read_in_backward(self) -> set[Value]:
        """The values that the steps of the backward read, other than for sums over time."""
        needs = self.plan.needs
        results = [g for a, g in needs.gradients.items() if a not in self.plan.closed]
        results += [term.values[0] for terms in needs.sums.values() for term in terms if term.how == "step"]
        return self.read_by(self.plan.steps, results)

    def next_places(self, kept: set[Value]) -> None:
        """Where the next state is written, and the new states that are computed there."""
        plan = self.plan
        self.next: dict[Value, Place] = {}
        values = set(plan.forward_values)
        for a, new in zip(plan.state, plan.new_state):
            if a in kept:
                place = self.at_step(a, plan.over_time[a], 1, "_next")
            else:
                array = next(line.split("*")[1].split(" ")[0] for line in self.loop.before
                             if line.split("*")[1].startswith(f"{plan.name(a)}_in_turn"))
                place = self.in_turn(a, array, 1, "_next")
            self.next[a] = place
            if new in values and new not in self.place and (new.op.elementwise or new.op is matmul.op):
                self.place[new] = place

    def load_inputs(self) -> None:
        """Copy the x of a step that are read, where they belong."""
        for k, a in enumerate(self.plan.x):
            if a in self.loadable:
                if a not in self.place:
                    self.place[a] = Place.whole(self.buffer(a), self.plan.shape(a))
                name = self.passed("x", k, f"{self.plan.name(a)}_over_time", a.dtype, strides=3)
                self.loop.body.append(self.load(a, address(self.place[a], self.wide), name, step=True))

    # -- the backward loop ---------------------------------------------------------------------------------------------

    def written_backward(self) -> Loop:
        plan, loop = self.plan, self.loop
        needs = plan.needs
        kept = needs.kept & self.read_in_backward()
        for v in [*plan.state, *plan.forward_values]:
            if v in kept:
                self.place[v] = self.at_step(v, plan.over_time[v])
        results = [g for a, g in plan.gradients.items() if a not in plan.closed]
        steps = [term.values[0] for terms in needs.sums.values() for term in terms if term.how == "step"]
        made = {*plan.steps, *plan.program.seeds.values()}
        self.pending = [rows for rows in plan.rows.values() if self.base(rows.value) in made]
        self.loadable = {x for x in plan.x if x in self.read_by(plan.steps, [*results, *steps])}
        self.carry, starts, self.seeds = {}, [], []
        for k, a in enumerate(plan.state):
            like = Value(None, (), {}, a.shape, a.dtype)
            hint = self.free(f"d_{plan.name(a)}")
            plan.name_of[like] = hint
            array = self.buffer(like, copies=2, hint=hint)
            self.carry[a] = (self.in_turn(like, array, 0, "_t"), like, array)
            self.place[like] = self.in_turn(like, array, 1, "_after")
            name = self.passed("d_final", k, f"d_{plan.name(a)}_final", a.dtype, strides=2)
            starts.append(self.load(a, f"{array} + T % 2 * {self.factor(plan.shape(a))}", name, step=False))
        self.arriving()
        values = [*self.seeds, *plan.steps]
        live = [*results, *steps, *(rows.value for rows in self.pending)]
        for a in plan.state:
            g = plan.gradients.get(a)
            if g in set(plan.steps) and g not in self.place and (g.op.elementwise or g.op is matmul.op):
                self.place[g] = self.carry[a][0]
        self.schedule(values, live)
        stored = [*results, *steps, *(rows.value for rows in self.pending if not self.actual(rows.value).op
                                      or not self.actual(rows.value).op.elementwise)]
        self.assign(stored)
        self.load_inputs()
        self.pending_seeds()
        self.write_values()
        self.lay_down_rest()
        for a in plan.state:
            place, g = self.carry[a][0], plan.gradients.get(a)
            if g is None:
                loop.body += self.copy(place, lambda axes: "0")
            elif self.place.get(self.actual(g)) != place:
                loop.body += self.copied_from(place, self.source(g))
        for k, a in enumerate(plan.x):
            if a in plan.gradients:
                g = plan.gradients[a]
                name = self.passed("d_x", k, f"d_{plan.name(a)}_over_time", a.dtype, strides=3, constant=False)
                place, lines = self.contiguous(g, f"d_x{k}")
                loop.body += [*lines, self.store(place, a.dtype, name, step=True)]
        for n, (a, terms) in enumerate(needs.sums.items()):
            for term in terms:
                if term.how == "step":
                    name = self.passed("total", a, f"sum_{plan.name(a)}", a.dtype, constant=False)
                    loop.body += self.copied_from(Place.whole(name, a.shape), self.source(term.values[0]), "+=")
        loop.before = [*self.take_stacks(), *loop.before, *starts]
        for k, a in enumerate(plan.state):
            name = self.passed("d_state", k, f"d_{plan.name(a)}_start", a.dtype, strides=2, constant=False)
            loop.after.append(self.store(Place.whole(self.carry[a][2], plan.shape(a)), a.dtype, name, step=False))
        return loop

    def pending_seeds(self) -> None:
        """A seed that is laid down in rows is what arrives."""
        for rows in self.pending:
            rows.value = self.actual(rows.value)
        self.plan.rows = {(rows.value, rows.transposed): rows for rows in self.plan.rows.values()}

    def arriving(self) -> None:
        """Make each seed the sum of what arrives at its result: from the next step, and from ys."""
        plan = self.plan
        for result, seed in plan.program.seeds.items():
            if seed.is_constant:
                continue
            sources = [self.carry[a][1] for a, new in zip(plan.state, plan.results[0]) if new is result]
            for k, y in enumerate(plan.results[1]):
                if y is result:
                    like = Value(None, (), {}, y.shape, seed.dtype)
                    plan.name_of[like] = self.free(f"d_y{k}")
                    name = self.passed("d_y", k, f"d_ys_{k}", y.dtype, strides=3)
                    array = self.buffer(like)
                    self.place[like] = Place.whole(array, plan.shape(like))
                    self.loop.body.append(self.load(like, array, name, step=True))
                    sources.append(like)
            total = sources[0]
            for more in sources[1:]:
                total = Value(add.op, (total, more), {}, seed.shape, seed.dtype)
                self.seeds.append(total)
            if total.op is not None and seed in plan.name_of:
                plan.name_of[total] = plan.name_of[seed]
                plan.named.add(total)
            self.renamed[seed] = total


class Axes:
    """The loops over the entries of a shape: an index for each axis that is longer than 1."""

    def __init__(self, shape: tuple, wide: int):
        names = iter(INDEX)
        self.shape, self.wide = shape, wide
        self.index = [next(names) if n > 1 else "0" for n in shape]

    def at(self, place: Place, columns: int) -> str:
        return place.at(self.index, columns)


def index_of(axes: Axes, shape: tuple) -> list[str]:
    return axes.index


def nest(axes: Axes, lines: list[str], independent: bool = True) -> list[str]:
    """Loops around some lines."""
    out = list(lines)
    loops = [(i, n) for i, n in zip(axes.index, axes.shape) if i != "0"]
    for depth, (i, n) in enumerate(reversed(loops)):
        bound = "COLUMNS" if n == axes.wide and n > 1 and i == axes.index[-1] else str(n)
        head = f"for (long {i} = 0; {i} < {bound}; {i}++)"
        if len(out) > 1 or depth:
            out = [f"{head} {{", *indented(out), "}"] if len(out) > 1 else [head, *indented(out)]
        else:
            out = [head, *indented(out)]
        if depth == 0 and independent:
            out.insert(0, "#pragma GCC ivdep")
    return out if loops or len(lines) == 1 else ["{", *indented(lines), "}"]


def bracketed(text: str) -> str:
    return f"({text})" if " + " in text else text


def address(place: Place, wide: int) -> str:
    if not place.offset:
        return place.array
    own = place.at(["0"] * len(place.shape), wide)
    return f"&{own}"


def width_text(width: int, wide: int) -> str:
    return "COLUMNS" if width == wide and wide > 1 else str(width)


def at_index(x: np.ndarray, index: tuple) -> np.ndarray:
    """x[index] as an array, where NumPy would make a number of one entry too."""
    return x[index if any(i is Ellipsis for i in index) else (*index, ...)]


def may_be_view(value: Value) -> bool:
    return is_view(value) or value.op in (reshape.op, getitem.op)


def is_basic(index: tuple) -> bool:
    return not any(isinstance(i, np.ndarray) for i in index)
