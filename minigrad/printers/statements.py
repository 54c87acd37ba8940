"""Code generation for one time loop: prologue, body, epilogue, into preallocated arrays.

Each value is computed into its storage. A value without storage gets a buffer, if possible one that a dead value had.
Views are made once for a set of arrays, not at every step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.engine.ops import concatenate, matmul, power, transpose, where
from minigrad.printers.buffers import Scope, Storage, can_be_buffered, empty, part_paths
from minigrad.printers.text import constant, dtype_text, literal, slice_text
from minigrad.program.analysis import by_number
from minigrad.program.ir import Value, is_number

# The largest M·N·K with a faster kernel in OpenBLAS, measured in docs/performance.md. It has one for AVX-512 only: with
# AVX2, two blocks are 3 % slower than the whole.
AVX512 = any("AVX512" in found or "V4" in found
             for kinds in np.lib.introspect.opt_func_info("^tanh$", "float32").values()
             for found in [kind["current"] for kind in kinds.values()]) and "OPENBLAS_CORETYPE" not in os.environ
SMALL_PRODUCT = 1_000_000 if AVX512 else 0

SIDE_BY_SIDE = """
def side_by_side(matrices, flat):
    steps, n, m = matrices.shape
    rows = flat[:steps * n * m].reshape(n, steps, m)
    copyto(rows, matrices.transpose(1, 0, 2))
    return rows.reshape(n, steps * m)
"""


class LoopText:
    """Statements of one of the two loops of a cell.

    before, after   lines before and after the loop
    body            lines of a step
    ahead, behind   lines before and after the steps of a block; `size` steps are a block
    arrays          {name: expression that allocates it for T steps, once for all calls}
    fixed, views    {variable: view of a buffer}, {variable: view at step t}
    quiet           whether overflow in the loop is expected
    """

    def __init__(self, scope: Scope):
        self.scope, self.storage, self.options = scope, scope.storage, scope.options
        self.before: list[str] = []
        self.ahead: list[str] = []
        self.body: list[str] = []
        self.behind: list[str] = []
        self.after: list[str] = []
        self.arrays: dict[str, str] = {}
        self.fixed: dict[str, str] = {}
        self.views: dict[str, str] = {}
        self.whole: dict[tuple, str] = {}  # {(invariant, shape): array of its broadcast}
        self.locals: set[str] = set()
        self.size, self.quiet = 1, False

    # -- arrays and variables --------------------------------------------------------------------------------

    def array(self, kind: str, value: Value, extra: int = 0) -> Storage:
        """A new array for a value."""
        lead = {"stack": [f"T + {extra}" if extra else "T"], "turn": ["2"], "block": ["K"]}.get(kind, [])
        ending = {"stack": "over_time", "turn": "in_turn", "block": "ahead", "buffer": "buffer"}[kind]
        name = self.scope.free(f"{self.scope.name(value)}_{ending}")
        self.arrays[name] = empty([*lead, *value.shape], value.dtype)
        return Storage(name, kind, scalar=value.shape == ())

    def operand(self, value: Value) -> str:
        """The variable or number that a statement uses for a value."""
        if value.is_constant:
            if np.size(value.constant) <= 16:
                return constant(value.constant)[0]
            name = self.scope.free("constant")
            self.scope.constants[name] = value.constant
            self.storage[value] = Storage(name, "local")
            return name
        if value not in self.storage:
            self.storage[value] = self.view(value)
        return self.variable(self.storage[value], self.scope.name(value))

    def operand_over_block(self, value: Value) -> str:
        """The expression for a value in a statement over a block of steps."""
        if value.is_constant and np.ndim(value.constant) == 0:
            return constant(value.constant)[0]
        return self.operand(value) if value.is_constant or value in self.scope.invariant else self.over_block(value)

    def over_block(self, value: Value) -> str:
        """A block of steps of a value as one array (n, …)."""
        base = self.scope.aliases.base(value)
        text = f"xs[{self.scope.inputs[base]}][start:stop]" if self.is_read_from_xs(base) else \
            self.storage[base].over_block()
        return text if value is base else f"{text}[:, {slice_text(value.metadata['index'])}]"

    def is_read_from_xs(self, value: Value) -> bool:
        """Whether a value is an input that was not copied to a place of its own."""
        return value in self.scope.inputs and self.storage[value].kind == "local"

    def variable(self, place: Storage, hint: str) -> str:
        if place.kind == "local" or (place.kind == "buffer" and not place.path):
            return place.array
        views = self.fixed if place.kind == "buffer" else self.views
        for name, text in views.items():
            if text == place.text:
                return name
        name = hint
        while name in self.fixed or name in self.views or name in self.arrays or name in self.locals:
            name = self.scope.free(hint)
        views[name] = place.text
        return name

    def view(self, value: Value) -> Storage:
        """The place of a view: that of its parent, seen along a path."""
        (parent,) = value.inputs
        source = self.operand(parent)
        place = self.storage.get(parent, Storage(source, "local"))
        text = filled(value.op.template(value.metadata), {"x": source}, value)
        path = text.removeprefix(source)
        if place.kind != "local" and path != text:
            index = value.metadata.get("index", ())
            rows = len(index) == 1 and index[0].step is None
            return replace(place, path=place.path + path, contiguous=place.contiguous and rows)
        name = self.local(value)
        self.body.append(f"{name} = {text}")
        return Storage(name, "local")

    def local_name(self, hint: str) -> str:
        name = self.scope.free(hint)
        self.locals.add(name)
        return name

    def local(self, value: Value) -> str:
        name = self.scope.name(value)
        self.locals.add(name)
        return name

    def prepared(self, hint: str, text: str) -> str:
        """A variable that holds this from before the loop."""
        for line in self.before:
            name, equals, known = line.partition(" = ")
            if equals and known == text:
                return name
        name = self.local_name(hint)
        self.before.append(f"{name} = {text}")
        return name

    def number(self, x: Any, dtype: Any) -> str:
        """A number as an array without axes, made before the loop."""
        x = x.item() if isinstance(x, (np.ndarray, np.generic)) else x
        name = {0: "zero", 0.5: "half", 1: "one", 2: "two"}.get(x, "number") if np.isreal(x) else "number"
        return self.prepared(name, f"np.array({constant(x)[0]}, {dtype_text(dtype)})")

    def whole_over_columns(self, text: str, shape: tuple, dtype: Any) -> str:
        """A loop invariant, broadcast into an array of its own before the loop."""
        key = (text, shape)
        if key not in self.whole:
            self.whole[key] = name = self.scope.free(f"{text}_whole" if text.isidentifier() else "whole")
            self.arrays[name] = empty(shape, dtype)
            self.before.append(f"copyto({name}, {text})")
        return self.whole[key]

    # -- statements ------------------------------------------------------------------------------------------

    def hoist(self, values: Iterable[Value]) -> None:
        """Compute loop invariants before the loop; copy a transposed matrix to contiguous memory, which BLAS reads
        up to 1.7 times faster."""
        for value in values:
            text, _ = self.scope.emitter.call(value, [self.operand(a) for a in value.inputs])
            if value.op is transpose.op and len(value.shape) == 2:
                self.storage[value] = self.array("buffer", value)
                self.before.append(f"copyto({self.operand(value)}, {text})")
            else:
                name = self.local(value)
                self.before.append(f"{name} = {text}")
                self.storage[value] = Storage(name, "local")

    def compute(self, values: Iterable[Value], live: Iterable[Value], kind: str = "buffer") -> None:
        """The statements of one step, or with kind "block" those of a block of steps; `live` are read after them."""
        values, aliases = list(values), self.scope.aliases
        last = aliases.last_uses(values, live)
        idle: dict[tuple, list[Storage]] = {}
        owned: dict[Value, Storage] = {}  # values in arrays that may be used again
        for n, value in enumerate(values):
            if self.scope.aliases.is_view(value):
                continue
            operands = [self.operand(a) if kind == "buffer" else self.operand_over_block(a) for a in value.inputs]
            dying = {b: None for a in value.inputs for b in sorted(aliases.of(a), key=by_number)
                     if last[b] == n and b in owned}
            if value not in self.storage and can_be_buffered(value):
                same = next((b for b in dying if self.in_place(value, b)), None) if self.options.reuse else None
                free = idle.get((value.shape, value.dtype))
                if same is not None:
                    del dying[same]
                    self.storage[value] = owned.pop(same)
                else:
                    self.storage[value] = free.pop() if free else self.array(kind, value)
                owned[value] = self.storage[value]
            if kind == "buffer":
                self.body += self.statement(value, operands)
            else:
                self.ahead.append(called(value, operands, self.storage[value].over_block()))
            for b in dying if self.options.reuse else ():
                idle.setdefault((b.shape, b.dtype), []).append(owned.pop(b))

    def in_place(self, value: Value, b: Value) -> bool:
        """Whether a value may be written over an input that dies with it."""
        entrywise = value.op.elementwise and value.op is not where.op  # np.where is written as two copies
        return entrywise and (value.shape, value.dtype) == (b.shape, b.dtype) and \
            all(a is b or b not in self.scope.aliases.of(a) for a in value.inputs)

    def compute_behind(self, values: Iterable[Value]) -> None:
        """The statements after a block of steps, for all of them at once; their places are made."""
        self.behind += [called(value, [self.operand_over_block(a) for a in value.inputs],
                               self.storage[value].over_block()) for value in values]

    def statement(self, value: Value, operands: list[str]) -> list[str]:
        """Compute one value into its place."""
        op, place = value.op, self.storage.get(value)
        if place is None or not can_be_buffered(value):
            text, _ = self.scope.emitter.call(value, operands)
            if place is None:
                self.storage[value] = Storage(self.local(value), "local")
                return [f"{self.operand(value)} = {text}"]
            return [f"{self.operand(value)}[...] = {text}"]
        out = self.operand(value)
        if op.buffered is not None:
            return self.buffered(value, operands, out)
        if op is matmul.op:
            return [self.product(value, operands, out)]
        if op is where.op:
            condition = operands[0] if value.inputs[0].dtype == bool else f"np.not_equal({operands[0]}, 0)"
            return [f"copyto({out}, {operands[2]})", f"copyto({out}, {operands[1]}, where={condition})"]
        if op is concatenate.op:
            return [f"copyto({self.variable(part, f'{out}_part')}, {text})"
                    for a, text, part in zip(value.inputs, operands, self.parts(value)) if self.storage.get(a) != part]
        if op is power.op and is_number(value.inputs[1], 2) and value.inputs[0].dtype == value.dtype:
            return [f"square({operands[0]}, {out})"]
        return [called(value, [self.whole_operand(*pair, value) for pair in zip(value.inputs, operands)], out)]

    def buffered(self, value: Value, operands: list[str], out: str) -> list[str]:
        """The statements that the op declares, numbers in braces as arrays made before the loop."""
        op = value.op
        if value.op.elementwise:
            if value.dtype.kind == "c":  # an intermediate result may be inf + nan i
                return [f"{out}[...] = {self.scope.emitter.call(value, operands)[0]}"]
            self.quiet = True  # an intermediate result may overflow
        texts = {"y": out, **dict(zip(op.arrays, operands))}
        for number in set(re.findall(r"\{(\d[^}]*)\}", op.buffered)):
            texts[number] = self.number(float(number), value.dtype)
        return filled(op.buffered, texts, value).split("; ")

    def whole_operand(self, a: Value, text: str, value: Value) -> str:
        """An operand as NumPy takes it fastest: a number as an array of its type (300 ns less), and a loop
        invariant in its full shape (a bias column of 192 gates: 1 µs less)."""
        if a.is_constant and np.ndim(a.constant) == 0:
            others = [b.dtype for b in value.inputs if not b.is_constant]
            dtype = value.dtype if value.dtype.kind in "fc" else np.result_type(*others, a.constant)
            return self.number(a.constant, dtype) if dtype.kind in "fc" else text
        if a in self.scope.invariant and a.shape != value.shape and self.options.hoisted:
            return self.whole_over_columns(text, value.shape, a.dtype)
        return text

    def parts(self, whole: Value) -> list[Storage]:
        place = self.storage[whole]
        return [replace(place, path=place.path + path, contiguous=False) for path in part_paths(whole)]

    def product(self, value: Value, operands: list[str], out: str) -> str:
        """A matrix product: by np.dot where it may be, in row blocks where OpenBLAS is quicker with small ones."""
        a, b = value.inputs
        place = self.storage[value]
        if len(a.shape) != 2 or len(b.shape) != 2 or not place.contiguous or a.dtype != b.dtype:
            return f"matmul({', '.join(operands)}, {out})"
        (rows, inner), columns = a.shape, b.shape[1]
        if self.options.blocked and a in self.scope.invariant and rows * inner * columns > SMALL_PRODUCT:
            for blocks in range(2, 9):
                if rows % blocks == 0 and rows // blocks * inner * columns <= SMALL_PRODUCT:
                    blocked = self.scope.free(f"{operands[0]}_blocks")
                    self.before.append(f"{blocked} = {operands[0]}.reshape({blocks}, {rows // blocks}, {inner})")
                    path = f"{place.path}.reshape({blocks}, {rows // blocks}, {columns})"
                    out = self.variable(replace(place, path=path), f"{out}_blocks")
                    return f"matmul({blocked}, {operands[1]}, {out})"
        return f"dot({', '.join(operands)}, {out})"

    # -- a block of steps side by side -------------------------------------------------------------------------

    def rows(self, value: Value) -> str:
        """A block of K steps of a matrix (n, m) side by side: (n, K m)."""
        if value.op is transpose.op and self.scope.aliases.is_view(value):
            return f"{self.over_block(value.inputs[0])}.reshape(-1, {value.shape[0]}).T"
        return self.side_by_side(value)

    def rows_of_columns(self, value: Value) -> str:
        """A block of K steps of a matrix (m, k), transposed, side by side: (k, K m)."""
        if value.op is transpose.op and self.scope.aliases.is_view(value):
            return self.side_by_side(value.inputs[0])
        return f"{self.over_block(value)}.reshape(-1, {value.shape[1]}).T"

    def side_by_side(self, value: Value) -> str:
        """The text for the steps of a matrix (n, m) as (n, K m): copied into an array of their own, except for
        single columns, which are already laid out like that."""
        n, m = value.shape
        if m == 1:
            return f"{self.over_block(value)}.reshape(-1, {n}).T"
        self.scope.emitter.helpers["side_by_side"] = SIDE_BY_SIDE
        flat = self.scope.free(f"{self.scope.name(self.scope.aliases.base(value))}_rows")
        self.arrays[flat] = f"np.empty({n * m} * K, {dtype_text(value.dtype)})"
        return f"side_by_side({self.over_block(value)}, {flat})"


def called(value: Value, operands: list[str], out: str) -> str:
    """The call of a NumPy function into a buffer; NumPy wants the buffer of maximum and minimum by name."""
    function = value.op.numpy[0]
    out = f"out={out}" if function in (np.maximum, np.minimum) else out
    return f"{function.__name__}({', '.join(operands)}, {out})"


def filled(template: str, texts: dict[str, str], value: Value) -> str:
    """A template of an op (`Op.text`, `Op.buffered`) with texts for its inputs, and with its metadata."""
    def text(found: re.Match) -> str:
        name = found[1]
        if name in texts:
            return texts[name]
        given = value.metadata[name]
        return slice_text(given) if name == "index" else literal(tuple(given) if isinstance(given, list) else given)
    return re.sub(r"\{([^}]*)\}", text, template)
