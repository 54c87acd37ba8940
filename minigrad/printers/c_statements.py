"""The statements of a step in C: entrywise passes, products, sums, gathered entries, and copies in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.ops import concatenate, cumsum, getitem, index_select, matmul, reshape, scatter
from minigrad.engine.ops import max as max_op
from minigrad.engine.ops import min as min_op
from minigrad.engine.ops import sum as sum_op
from minigrad.printers.c_expressions import NotInC, binding, c_type, expression, number, operand_dtypes
from minigrad.printers.c_places import Axes, Place, address, at_index, bracketed, is_basic, nest, width_text
from minigrad.printers.c_schedule import Rows, Schedule, dtype_of
from minigrad.program.ir import Value

MOST_ENTRIES = 4096  # of a table of indices
INLINE = 72  # longest text of a value that is written where it is used


class Statements(Schedule):
    """Writes the statements of the values of a schedule into the body of its loop."""

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
        own = set(values)
        self.axes = Axes(shape, self.wide, self.plan.flat and self.lie_side_by_side(shape, values))
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
                text = self.at(self.whole(a, shape) if self.axes.flat else self.source(a), shape)
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

    def lie_side_by_side(self, shape: tuple, values: list[Value]) -> bool:
        """Whether all that a pass reads and writes lies side by side in its arrays; loop invariants can be copied."""
        read = {self.actual(a) for v in values for a in v.inputs} - set(values)
        places = [self.source(a) for a in read if not (a.is_constant or a in self.plan.invariant)]
        places += [self.place[v] for v in values if v in self.place]
        return all(place.shape == shape and place.contiguous for place in places)

    def whole(self, value: Value, shape: tuple) -> Place:
        """The place of a value; of a loop invariant that is broadcast, that of a copy made before the loop."""
        place = self.source(value).over(shape)
        if place.contiguous:
            return place
        if place not in self.wholes:
            self.wholes[place] = Place.whole(
                self.array(f"{place.array}_whole", math.prod(shape), dtype_of(value)), shape)
            self.loop.before += self.copied_from(self.wholes[place], place)
        return self.wholes[place]

    def stores(self, v: Value, shape: tuple) -> list[str]:
        stores = [self.at(self.place[v], shape)] if v in self.place else []
        stores += [self.rows_at(rows, self.axes.index) for rows in self.laid_down(v)]
        return stores

    def laid_down(self, v: Value) -> list[Rows]:
        """The Rows that a pass over v fills while it computes it."""
        return [rows for rows in self.pending if rows.value is v and self.fills(rows)]

    def fills(self, rows: Rows) -> bool:
        """Whether a pass may lay rows down entry by entry."""
        return not self.plan.has_filling and not self.plan.flat and (rows.in_lines or rows.across == 1)

    def rows_at(self, rows: Rows, index: list[str]) -> str:
        """The text of an entry in the rows of a value, at this step."""
        shape = self.plan.shape(rows.value)
        if rows.transposed:
            shape, index = shape[::-1], index[::-1]
        pointer = self.rows_pointer(rows)
        lead = Place.whole("", shape[:-1]).at(index[:-1])[1:-1] if shape else "0"
        last = index[-1] if index else "0"
        if not rows.in_lines:
            return f"{pointer}[{lead}]" if rows.across == 1 else f"{pointer}[{last} * {rows.rows} + {lead}]"
        return f"{pointer}[{bracketed(lead)} * line + {last}]" if lead != "0" else f"{pointer}[{last}]"

    def rows_pointer(self, rows: Rows) -> str:
        self.taken.discard(rows.name)
        name = self.passed("rows", rows, rows.name, rows.value.dtype, constant=False)
        pointer = f"{name}_t"
        t = "(t - first)" if rows.backward else "t"
        step = f"{t} % block" if rows.in_lines else t
        if self.plan.columns:
            step = f"{step} * run->batch + column"
        scale = (1 if rows.in_lines else rows.rows) * (1 if self.plan.columns else rows.across)
        scaled = step if scale == 1 else f"({step}) * {scale}" if " " in step else f"{step} * {scale}"
        of_block = f"{t} / block * {rows.rows} * line + " if rows.in_lines else ""
        line = f"{c_type(rows.value.dtype)} *{pointer} = {name} + {of_block}{scaled};"
        if line not in self.loop.pointers:
            sizes = "const long block = run->block, line = run->line;"
            if rows.in_lines and sizes not in self.loop.before:
                self.loop.before.insert(0, sizes)
            self.loop.pointers.append(line)
        return pointer

    def at(self, place: Place, shape: tuple) -> str:
        """The text of the entry of a place, broadcast to the shape of the pass."""
        return self.axes.at(place.over(shape), self.wide)

    def copy(self, to: Place, text_of: Callable[[Axes], str], sign: str = "=") -> list[str]:
        axes = Axes(to.shape, self.wide)
        return nest(axes, [f"{axes.at(to, self.wide)} {sign} {text_of(axes)};"])

    def copied_from(self, to: Place, source: Place, sign: str = "=") -> list[str]:
        return self.copy(to, lambda axes: axes.at(source.over(to.shape), self.wide), sign)

    def statement(self, v: Value) -> list[str]:
        """The statements of a value that is not entrywise."""
        place = self.place[v]
        if v.op is matmul.op:
            return self.product(v, place)
        if v.op is concatenate.op:
            return [line for a, part in zip(v.inputs, self.parts(v)) if self.place.get(self.actual(a)) != part
                    for line in self.copied_from(part, self.source(a))]
        if v.op in (sum_op.op, max_op.op, min_op.op):
            return self.reduction(v, place)
        if v.op is cumsum.op:
            return self.running_sum(v, place)
        if v.op is getitem.op:
            return self.gather(v, place)
        if v.op is scatter.op:
            return self.scattered(v, place)
        if v.op is index_select.op:
            return self.looked_up(v, place)
        if v.op is reshape.op:
            source = self.source(v.inputs[0])
            return self.copied_from(place.seen(lambda x: np.reshape(x, source.shape, copy=False)), source)
        if v in self.copied:
            return self.copied_from(place, self.view_of(v))
        raise NotInC(f"{v.op} is not printed")

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
        text = f"{left.at([*batch, i, k], self.wide)} * {right.at([*batch, k, j], self.wide)}"
        return [*zero, *nest(axes, [f"{to} += {text};"])]

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

    def picked(self, place: Place, index: tuple) -> tuple[np.ndarray, str]:
        """(offsets of the entries that an index picks of a place; the columns of a chunk apart, with their index)"""
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

    def looked_up(self, v: Value, place: Place) -> list[str]:
        """Entries at an index that is an array over time, which the caller has checked (CPlan.looked_up)."""
        (x, index), lengths = v.inputs, self.plan.looked_up
        one_of_columns = len(x.shape) == 2 and len(index.shape) == 1 and v.metadata["axis"] == 1
        if not (one_of_columns and place.contiguous and index in self.plan.x and index.dtype == np.int64 and
                lengths.setdefault(index, x.shape[1]) == x.shape[1] and not self.is_read_otherwise(index)):
            raise NotInC("an index other than x[:, i], with i an int64 array over time that is read for nothing else, "
                         "is not printed")
        source, own = self.source(x), c_type(v.dtype)
        self.plan.looked_up_types.add(own)
        return [f"look_up_{own}({address(place, self.wide)}, {address(source, 1)}, {source.strides[0]}, "
                f"{source.strides[1]}, {address(self.source(index), self.wide)}, {x.shape[0]}, "
                f"{width_text(place.shape[1], self.wide)});"]

    def is_read_otherwise(self, index: Value) -> bool:
        """Whether an index is read by other values than lookups."""
        values = [*self.plan.forward_values, *self.plan.steps]
        return any(index in v.inputs and v.op is not index_select.op for v in values)

    def moved(self, v: Value, place: Place, source: Place, index: tuple, gathers: bool) -> list[str]:
        """Entries picked by a table: y = x[table], or y[table] += x."""
        if any(i is None or i is Ellipsis for i in index):
            raise NotInC("a new axis among indices is not printed")
        indexed, other = (source, place) if gathers else (place, source)
        offsets, column = self.picked(indexed, index)
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

    def load(self, value: Value, to: str, name: str, step: bool) -> str:
        """The copy of an array that is passed, at this step, to where it is needed."""
        return self.moved_over("load", to, self.plan.shape(value), value.dtype, name, step)

    def store(self, place: Place, dtype: Any, name: str, step: bool) -> str:
        """The copy into an array that is passed."""
        return self.moved_over("store", address(place, self.wide), place.shape, dtype, name, step)

    def moved_over(self, verb: str, inside: str, shape: tuple, dtype: Any, name: str, step: bool) -> str:
        rows, width = (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)
        own = c_type(dtype)
        self.plan.types.add(own)
        column, valid = ("column", "columns") if self.plan.columns else ("0", str(width))
        return (f"{verb}_{own}({inside}, {name}, {'t' if step else '0'}, {column}, {rows}, "
                f"{width_text(width, self.wide)}, {valid});")

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
            own, lies_across = c_type(v.dtype), not rows.in_lines and not rows.transposed and rows.across > 1
            if self.plan.has_filling or lies_across:
                place, lines = self.contiguous(v, f"{self.plan.name(v)}_whole")
                if lies_across:
                    self.plan.types.add(own)
                    width = width_text(rows.across, self.wide)
                    call = (f"turn_{own}({self.rows_pointer(rows)}, {rows.rows}, {address(place, self.wide)}, {width}, "
                            f"{rows.rows}, {'columns' if self.plan.columns else width});")
                else:
                    self.plan.laid_down_in_part.add(own)
                    call = (f"lay_down_{own}({self.rows_pointer(rows)}, line, {address(place, self.wide)}, "
                            f"{rows.rows}, columns);")
                self.loop.body += [*lines, call]
            elif not (self.fills(rows) and self.is_filled_by_pass(v)):
                place = self.source(v)
                if rows.transposed:
                    place = place.seen(lambda x: x.T)
                axes = Axes(place.shape, self.wide)
                to = self.rows_at(rows, axes.index[::-1] if rows.transposed else axes.index)
                self.loop.body += nest(axes, [f"{to} = {axes.at(place, self.wide)};"])

    def is_filled_by_pass(self, v: Value) -> bool:
        return v in self.level and v.op.elementwise and v in self.computed
