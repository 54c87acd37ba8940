"""Storage and schedule of one loop in C: which values are stored, where, and which are computed together.

Values have levels. Those of one level do not wait for each other, so entrywise values of one level and shape are one
pass over the entries. A value is stored if another pass, a product or the other loop reads it; else it is a variable of
its pass. Parts of a concatenation are computed in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.engine.ops import concatenate, getitem, reshape, transpose
from minigrad.printers.c_expressions import c_type
from minigrad.printers.c_places import Place, at_index, is_basic, multiple
from minigrad.printers.c_products import taken
from minigrad.program.analysis import is_view, part_slices
from minigrad.program.ir import Value


@dataclass(eq=False)
class Rows:
    """A value laid down over all steps for sums over time: (rows, T × columns), or (T × columns, rows) if it is the
    right factor of a product or a step has one column."""

    name: str
    value: Value
    transposed: bool
    rows: int
    across: int  # entries of a row that one step fills
    in_lines: bool  # (rows, T × columns): a row of a block of steps is a line
    backward: bool = False  # whether the backward lays it down, for the steps of one call


@dataclass(eq=False)
class Loop:
    """The text of one loop: what comes before, in a step, and after; and the arrays that its call passes."""

    name: str
    typed: list[tuple] = field(default_factory=list)  # arrays that a call passes: (kind, what, name, C type)
    width: int | None = None  # columns of a chunk
    before: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    work: int = 0  # bytes of the arrays of a step
    products: int = 0  # of a step and a chunk, about


class Schedule:
    """One of the two loops.

    place    {value: its Place}, of those that are stored
    level    {value: when it is computed}: values of one level do not wait for each other
    """

    def __init__(self, plan: Any, name: str):
        self.plan, self.loop = plan, Loop(name, width=plan.columns)
        self.place: dict[Value, Place] = {}
        self.renamed: dict[Value, Value] = {}  # {seed: the sum of what arrives}
        self.copied: set[Value] = set()  # views that are stored as copies
        self.loadable: set[Value] = set()  # x that the steps read
        self.reader_map: dict[Value, list[Value]] = {}
        self.pending: list[Rows] = []  # that this loop lays down
        self.wholes: dict[Place, Place] = {}  # {place of a loop invariant: that of its copy in all columns}
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

    def passed(self, kind: str, what: Any, hint: str, dtype: Any, constant: bool = True) -> str:
        """The name of an array that the caller passes: a pointer, or for what is copied in and out its description."""
        for known in self.loop.typed:
            if known[0] == kind and (known[1] is what or (isinstance(what, int) and known[1] == what)):
                return known[2]
        pointer = kind in ("invariant", "panels", "rows", "total")
        text = f"{'const ' if constant else ''}{c_type(dtype)} *" if pointer else "const struct array *"
        name = hint if kind == "invariant" else self.free(hint)
        self.loop.typed.append((kind, what, name, text))
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
        return multiple(count, self.wide)

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
        name = f"{hint or self.plan.name(value)}_{'t' if copies == 1 else 'in_turn'}"
        return self.array(name, math.prod(self.plan.shape(value)) * copies, value.dtype)

    def array(self, name: str, entries: int, dtype: Any) -> str:
        """An array of one thread."""
        name, own = self.free(name), c_type(dtype)
        self.loop.before.append(f"{own} *{name} = take(&work, {self.entries(entries)} * sizeof({own}));")
        self.loop.work += taken(entries * np.dtype(dtype).itemsize)
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
        return Place.whole(self.passed("invariant", value, self.plan.name(value), dtype_of(value)), value.shape)

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
            outside = [u for u in self.readers(v)
                       if not (v.op.elementwise and u.op.elementwise and self.level[u] == self.level[v]
                               and self.same_shape(u, v))]
            through_view = any(self.root(a) is v and self.actual(a) is not v
                               for u in self.readers(v) for a in u.inputs)
            if not v.op.elementwise or outside or through_view or v in live:
                self.place[v] = Place.whole(self.buffer(v), self.plan.shape(v))

    def readers(self, v: Value) -> list[Value]:
        """The values that read the storage of a value."""
        if not self.reader_map:
            for u in self.computed:
                for a in u.inputs:
                    self.reader_map.setdefault(self.root(a), []).append(u)
        return self.reader_map.get(v, [])

    def parts(self, whole: Value) -> list[Place]:
        """The place of each part of a concatenation."""
        place = self.place[whole]
        return [place.seen(lambda x, index=index: x[index]) for index in part_slices(whole)]


def may_be_view(value: Value) -> bool:
    return is_view(value) or value.op in (reshape.op, getitem.op)


def dtype_of(value: Value) -> Any:
    """The dtype of a value; that of its array for a constant number."""
    return value.dtype if value.dtype is not None else np.asarray(value.constant).dtype
