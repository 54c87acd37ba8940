"""A cell's program as two loops over time in C: one file, in the user's names.

The values are those of the program that `derive` prints, cut so that entrywise work has one shape (program/pieces.py).
1. All entrywise values of one shape that can be computed together are one pass over the entries. What only this pass
   needs is a variable of the loop's body; all else is stored.
2. Values that the backward reads are stored over time. Slices, transposes and broadcasts are strides (c_places.py).
3. Products with a weight use panels of it, packed before the loop (c_products.py). Loop invariants come from NumPy.
4. If no value mixes the columns of the batch (program/columns.py), chunks of them are shared out to threads. COLUMNS is
   a constant of the text, so a chunk's row is a few vectors; if it does not fill them, a pass is one run over all
   rows.
5. The factors of a weight's gradient are laid down in rows over all steps; after the loop they are multiplied, and
   strips of the result are shared out to threads. NumPy does what is no plain product or sum.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from minigrad.engine.op import PART
from minigrad.engine.ops import add, matmul, multiply, transpose
from minigrad.engine.ops import sum as sum_op
from minigrad.printers import c_math
from minigrad.printers.c_expressions import NotInC, c_type, called
from minigrad.printers.c_places import Place, address, indented
from minigrad.printers.c_products import (
    BY_COLUMNS,
    BY_ROWS,
    COPIES,
    LAY_DOWN,
    LOOK_UP,
    OVER_TIME,
    PACK,
    PAIRS,
    SHARE,
    STRIP,
    TAKE,
    TURN,
    VECTORS,
    for_type,
)
from minigrad.printers.c_schedule import Loop, Rows, dtype_of
from minigrad.printers.c_statements import Statements
from minigrad.printers.c_threads import HEAD, RUN
from minigrad.printers.readable import Emitter, values_in
from minigrad.program.analysis import (
    Aliases,
    BackwardNeeds,
    Term,
    add_invariants,
    is_added_at,
    is_invariant,
    is_matrix_product,
    is_view,
    terms_of,
)
from minigrad.program.columns import keeps_columns
from minigrad.program.ir import LOOP, Value, in_order, without_detach
from minigrad.program.pieces import Pieces
from minigrad.program.reassociate import Reassociated
from minigrad.program.simplify import Program

# {bytes of a row of a chunk: the time of its products, relative}. Each of up to 4 columns left over behind a multiple
# of 64 bytes takes 2; behind only one vector, a fifth of that vector's columns more. Rows of at most FEW bytes take
# 1.5, an eighth for each byte, and an eighth for each that is filled.
WIDTHS = {64: 18.5, 96: 32, 128: 32, 160: 48, 192: 47, 224: 70}
FEW = 32
THREADED = 1.25  # what a second thread costs
MOST_PARTS = 64  # of a weight's gradient that is linear in products and sums
MOST_VALUES = 1000  # more would take the compiler too long
RESERVED = frozenset("""
    last     COLUMNS FILLED INFINITY NAN NULL T array asm auto backward block bool break case char chunk column columns
    const continue default do double else enum extern false first float for forward goto i if inline int j k l left
    line long m main memory n part register restrict return run short signed sizeof static struct sum switch t
    take true typedef typeof union unsigned void volatile while work""".split())


def chunk_of(batch: int, threads: int, itemsize: int, flat: bool) -> tuple[int, int]:
    """The columns of a chunk, and how many of them the batch fills, with which the threads are done first. More than
    one thread must be worth it; a batch that fits few columns is one chunk.

    flat   whether nothing is broadcast over rows: then a pass is one run, and only few columns are filled up
    """
    most, line = FEW // itemsize, 64 // itemsize
    few = next(w for w in (2, 4, 8) if w >= min(batch, most))
    widths = [size // itemsize for size in WIDTHS]
    if flat or batch <= most:
        widths.insert(0, few)

    def seconds(filled: int) -> float:
        chunks, left = -(-batch // filled), filled % line
        if filled <= most:
            products = 1.5 + (few + filled) * itemsize / 8
        elif 0 < left <= 4 and filled > line:
            products = WIDTHS[(filled - left) * itemsize] + 2 * left + line // 5 * (filled < 2 * line)
        else:
            products = WIDTHS[min(w for w in widths if w >= filled) * itemsize]
        return -(-chunks // threads) * products * (THREADED if min(chunks, threads) > 1 else 1)
    filled = min([-(-batch // -(-batch // width)) for width in widths], key=seconds)
    return filled if flat and filled > line else min(w for w in widths if w >= filled), filled


class CPlan:
    """The loops of one cell `(state, x) → (state, y)` in C, at given shapes. Raises NotInC.

    source      the text; `forward` and `backward` are described by their Loops
    columns     the columns of a chunk; None if the batch is not cut; filled: those that the batch fills
    stacks      {array: (entries of a step, extra steps, dtype)} that a chunk keeps over time
    looked_up   {x that is an index: the length of the axes that it indexes}
    rows        the Rows of sums over time; sums: {weight, or stand-in: [(how, …)]}
    parted      {weight: its gradient as a linear function of the sums of stand-ins}
    summed      those whose sums run in C, by the loop `adding`; None if there are none
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
        results = [without_detach(v) for values in self.results for v in values]
        if any(v.op in (LOOP, PART) for v in in_order([*results, *gradients.values()], set())):
            raise NotInC("a scan in it is not printed")
        self.pieces = pieces = Pieces(program, [*results, *gradients.values()])
        self.new_state, self.y = (list(map(pieces.new, values)) for values in self.results)
        self.gradients = {a: pieces.new(g) for a, g in gradients.items()}
        self.forward_values = in_order([*self.new_state, *self.y], set())
        self.invariant: set[Value] = set()
        self.needs = self.what_backward_needs()
        self.forward_values = [v for v in self.forward_values if v not in self.invariant]
        self.steps = self.steps_of_backward()
        if len(self.forward_values) + len(self.steps) > MOST_VALUES:
            raise NotInC(f"it has more than {MOST_VALUES} values")
        for v in [*self.state, *self.x, *self.forward_values, *self.steps, *program.seeds.values()]:
            c_type(v.dtype)
            if 0 in v.shape and v not in self.x:
                raise NotInC(f"a value has shape {v.shape}")
        self.names(reassociated)
        self.columns, self.filled = self.chosen_columns(threads)
        self.stacks: dict[str, tuple[int, int, Any]] = {}
        self.rows: dict[tuple, Rows] = {}
        self.looked_up: dict[Value, int] = {}
        self.looked_up_types: set[str] = set()
        self.types: set[str] = set()
        self.laid_down_in_part: set[str] = set()  # types of rows whose last chunk is not full
        self.products: set[str] = set()
        self.sum_kinds: set[tuple] = set()  # of sums over time: (how, whether rows are lines, type)
        self.tables: list[str] = []
        self.over_time: dict[Value, str] = {}  # values stored over time: their arrays
        self.sums = {a: [self.laid_down(term) for term in terms] for a, terms in self.needs.sums.items()
                     if a in self.gradients or a not in self.closed}
        self.forward = LoopWriter(self, "forward").written_forward()
        self.backward = LoopWriter(self, "backward").written_backward() if self.differentiated else None
        self.summed = [a for a, terms in self.sums.items() if terms and all(self.is_plain(a, term) for term in terms)]
        self.adding = self.sums_over_time() if self.summed else None
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

    def chosen_columns(self, threads: int) -> tuple[int | None, int]:
        """The columns of a chunk and how many are filled, if no value mixes columns."""
        batch = self.state[0].shape[-1] if self.state and self.state[0].shape else 1
        seeds = list(self.program.seeds.values())
        values = [*self.forward_values, *self.steps]
        leaves = [*self.state, *self.x, *(s for s in seeds if not s.is_constant)]
        results = [*self.new_state, *self.y, *self.results_of_steps()]
        by_step = any(term.how == "step" for terms in self.needs.sums.values() for term in terms)
        if batch == 1 or by_step or not keeps_columns(values, leaves, batch) or \
                not {*results} <= {*values, *leaves}:
            return None, 1
        for terms in self.needs.sums.values():
            for term in terms:
                if term.how == "sum" and len(term.values[0].shape) - 1 not in term.axes:
                    return None, 1
        # rows of a larger type fill whole vectors too
        self.itemsize = min([v.dtype.itemsize for v in values if v.dtype.kind == "f"], default=8)
        self.broadcasts = not all(a.shape == v.shape or a.is_constant or a in self.invariant
                                  for v in values if v.op.elementwise for a in v.inputs)
        return chunk_of(batch, threads, self.itemsize, not self.broadcasts)

    @property
    def few(self) -> bool:
        """Whether a row of a chunk does not fill a vector: products have vectors across rows, and passes across all."""
        return self.columns is not None and 1 < self.columns <= FEW // self.itemsize

    @property
    def flat(self) -> bool:
        """Whether a pass is one run over all rows, as a row does not fill its vectors."""
        return self.few or (self.columns is not None and not self.broadcasts and self.columns * self.itemsize % 64 != 0)

    @property
    def has_filling(self) -> bool:
        """Whether columns of the last chunk are only there to fill it up."""
        return self.columns is not None and (self.columns != self.filled or
                                             self.state[0].shape[-1] % self.columns != 0)

    def shape(self, value: Value) -> tuple:
        """The shape of a value in a chunk."""
        if self.columns is None or value in self.invariant or value.is_constant:
            return value.shape
        return (*value.shape[:-1], self.columns)

    def products_of(self, values: list[Value]) -> int:
        """The products of a step of a chunk, an entry of an entrywise value counted as 8."""
        return sum(math.prod(self.shape(v)) * (v.inputs[0].shape[-1] if v.op is matmul.op else 8) for v in values)

    # -- sums over time ---------------------------------------------------------------------------------------------

    def what_backward_needs(self) -> BackwardNeeds:
        aliases, seeds = Aliases(self.invariant, lambda v: True), self.program.seeds.values()
        needs = BackwardNeeds(self.forward_values, self.parted_gradients(), seeds, self.weights, aliases, True, True)
        if all(term.how != "step" for a, terms in needs.sums.items() if a not in self.closed for term in terms):
            return needs
        self.parted, self.weights = {}, self.closed
        return BackwardNeeds(self.forward_values, self.gradients, seeds, self.closed, aliases, True, True)

    def parted_gradients(self) -> dict[Value, Value]:
        """The gradients, and in place of a weight's that is linear in products and sums, these: a concatenation of
        products is summed over time product by product, Σ f(x) = f(Σ x). Each is the gradient of a stand-in."""
        self.weights = list(self.closed)
        self.unchanging, self.part_counts = set(self.closed), dict[Value, int]()
        add_invariants(self.unchanging, in_order(list(self.gradients.values()), set()))
        # {weight: its terms, each a stand-in, (linear value, terms of each input), or (what only weights decide, None)}
        self.parted: dict[Value, list] = {}
        summed: dict[Value, Value] = {}

        def parts(g: Value) -> list:
            return [(g, None)] if self.is_unchanging(g) else [
                (term, [parts(a) for a in term.inputs]) if self.is_linear_in_sums(term) else stand_in(term)
                for term in terms_of(g)]

        def stand_in(term: Value) -> Value:
            leaf = Value(None, (), {}, term.shape, term.dtype)
            self.weights.append(leaf)
            summed[leaf] = term
            return leaf

        for a, g in self.gradients.items():
            if a in self.closed and any(map(self.is_linear_in_sums, terms_of(g))):
                self.parted[a] = parts(g)
            else:
                summed[a] = g
        return summed

    def is_linear_in_sums(self, value: Value) -> bool:
        """Whether a value is a concatenation, a transpose, … of a few matrix products and sums alone, or one of these
        times what only weights decide."""
        return not is_product_or_sum(value) and 0 < self.parts_in(value) <= MOST_PARTS

    def parts_in(self, value: Value) -> int:
        """How many products and sums a value is a linear function of, path by path; 0 if it is none."""
        if is_product_or_sum(value):
            return 1
        if value not in self.part_counts:
            self.part_counts[value] = 0
            if value.op is multiply.op:
                pairs = value.inputs, value.inputs[::-1]
                self.part_counts[value] = max(self.parts_in(b) if self.is_unchanging(a) else 0 for a, b in pairs)
            elif value.op is not None and value.op.linear:
                counts = list(map(self.parts_in, value.inputs))
                self.part_counts[value] = sum(counts) if all(counts) else 0
        return self.part_counts[value]

    def is_unchanging(self, value: Value) -> bool:
        """Whether a value is computed from weights and constants alone."""
        return is_invariant(value, self.unchanging)

    def results_of_steps(self) -> list[Value]:
        """The gradients that every step returns: of the state and of x."""
        return [g for a, g in self.gradients.items() if a not in self.closed]

    def laid_down(self, term: Term) -> tuple:
        """How a term of a sum over time is summed, and the Rows that are laid down for it."""
        if term.how == "product":
            left, right = term.values
            return "product", self.rows_of(left, False), self.rows_of(right, True, right=True)
        if term.how == "at":
            return "at", *(self.rows_of(v, False) for v in term.values)
        if term.how == "sum":
            return "sum", self.rows_of(term.values[0], False), term.axes
        return "step", term.values[0]

    def rows_of(self, value: Value, transposed: bool, right: bool = False) -> Rows:
        """The Rows of a value (n, m), or of its transpose; right: as the right factor of a product."""
        if value.op is transpose.op and len(value.shape) == 2 and value not in self.invariant:
            value, transposed = value.inputs[0], not transposed
        shape = value.shape[::-1] if transposed else value.shape
        across = self.shape(value)[0 if transposed else -1] if shape else 1
        key = value, transposed, across > 1 and not right
        if key not in self.rows:
            name = self.free(f"{self.name(value)}_rows")
            self.rows[key] = Rows(name, value, transposed, math.prod(shape[:-1]), across, key[-1])
        return self.rows[key]

    def is_plain(self, weight: Value, term: tuple) -> bool:
        """Whether a term of a gradient is a product of two Rows, the sum of the entries of each row, or these entries
        added at an index."""
        if term[0] not in ("product", "sum", "at"):
            return False
        how, left, right = term
        if how == "sum":
            lead = len(left.value.shape) - 1
            return tuple(right) in [(lead,), ()][:1 + (left.across == 1)] and left.value.dtype == weight.dtype
        if how == "at":
            return left.across == right.across and left.value.dtype == weight.dtype and right.value.dtype == np.int64
        return left.across == right.across and {left.value.dtype, right.value.dtype} == {weight.dtype}

    def sums_over_time(self) -> Loop:
        """The function that adds a strip of the sums over some steps: block by block, from the last."""
        loop, own = Loop("sums", typed=self.backward.typed), c_type  # one call passes the arrays of both
        read = {rows for a in self.summed for term in self.sums[a] for rows in term if isinstance(rows, Rows)}
        for rows in (rows for rows in self.rows.values() if rows in read):
            if all(what is not rows for _, what, *_ in loop.typed):
                loop.typed.append(("rows", rows, rows.name, f"const {own(rows.value.dtype)} *"))
            steps = "(start - first)" if rows.backward else "start"
            offset = f"{steps} / block * {rows.rows} * line" if rows.in_lines else \
                f"{steps} * {'run->batch' if self.columns else rows.across} * {rows.rows}"
            loop.pointers.append(f"const {own(rows.value.dtype)} *{rows.name}_t = {rows.name} + {offset};")
        for a in self.summed:
            kind, sums = own(a.dtype), self.free(f"d_{self.name(a)}")
            loop.typed.append(("total", a, sums, f"{kind} *"))
            rows = self.sums[a][0][1].rows
            loop.before.append(f"clear(strip, {rows}, {math.prod(a.shape) // rows} * sizeof({kind}), {sums});")
            for how, left, right in self.sums[a]:
                self.sum_kinds.add((how, left.in_lines, kind))
                n = "n" if self.columns or left.across == 1 else f"n * {left.across}"
                line = f"{left.name}_t" if not left.in_lines else f"line, {left.name}_t"
                if how == "sum":
                    loop.body.append(f"add_rows_{kind}(strip, {left.rows}, {n}, {line}, {sums});")
                elif how == "at":
                    loop.body.append(f"add_at_{kind}(strip, {left.rows}, {a.shape[-1]}, {n}, {line}, {right.name}_t, "
                                     f"{sums});")
                else:
                    strides = "line, 1" if left.in_lines else f"1, {left.rows}"
                    loop.body.append(f"add_product_{kind}(strip, {left.rows}, {right.rows}, {n}, {left.name}_t, "
                                     f"{strides}, {right.name}_t, {sums});")
                loop.products += left.rows * left.across * (right.rows if how == "product" else 1)
        return loop

    # -- the file -----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        loops = [loop for loop in (self.forward, self.backward) if loop is not None]
        bodies = [line for loop in loops for line in [*loop.before, *loop.body, *loop.after]]
        what = f"{self.program.name} over time, as minigrad compiles it"
        parts = [f"/* {what}. */\n\n{HEAD}"]
        if self.columns is not None or self.products:
            parts.append(f"enum {{ COLUMNS = {self.columns or 1}, FILLED = {self.filled} }};"
                         "  /* of the batch, side by side in a chunk; those behind FILLED only fill up vectors */\n")
        parts += [c_math.functions(called(bodies)), RUN, TAKE, SHARE]
        parts += [for_type(TURN + COPIES, t) for t in sorted(self.types | self.products)]
        by_rows = self.few or self.columns in (None, 1)
        parts += [VECTORS] if self.products or self.summed or self.laid_down_in_part else []
        parts += [for_type(LAY_DOWN, t) for t in sorted(self.laid_down_in_part)]
        parts += [PAIRS] if self.products and by_rows else []
        parts += [for_type(PACK + (BY_ROWS if by_rows else BY_COLUMNS), t) for t in sorted(self.products)]
        parts += [for_type(LOOK_UP, t) for t in sorted(self.looked_up_types)]
        parts += [STRIP] if self.summed else []
        parts += [for_type(OVER_TIME[how, in_lines], t) for how, in_lines, t in sorted(self.sum_kinds)]
        parts += ["\n".join(self.tables)] if self.tables else []
        for loop in loops:
            adding = self.adding if loop is self.backward else None
            parts += [loop_function(loop), *([sums_function(adding)] if adding else []), entry_function(loop, adding)]
        return "\n".join(part.strip("\n") + "\n" for part in parts if part.strip())


def unpacked(loop: Loop, lines: list[str], constant: bool = True) -> list[str]:
    """The lines that name those arrays of a call which these lines use."""
    used = set(re.findall(r"\w+", "\n".join(lines)))
    out = []
    for n, (_, _, name, text) in enumerate(loop.typed):
        if name in used:
            array = f"run->array[{n}]" if text.startswith("const struct") else f"run->array[{n}]->data"
            out.append(f"{text if constant else text.removeprefix('const ')}{name} = {array};")
    return out


def loop_function(loop: Loop) -> str:
    """The function that runs all steps of one chunk."""
    used = set(re.findall(r"\w+", "\n".join(loop.body)))
    pointers = [line for line in loop.pointers if line.split("*", 1)[1].split(" ")[0] in used]
    backwards = loop.name == "backward"
    head = "for (long t = last - 1; t >= first; t--) {" if backwards else "for (long t = 0; t < T; t++) {"
    lines = [*loop.before, "", head, *indented([*pointers, *loop.body]), "}", *loop.after]
    start = ["const long T = run->T, first = run->first, last = run->last;" if backwards else "const long T = run->T;"]
    if "columns" in re.findall(r"\w+", "\n".join(lines)):
        start += ["const long column = chunk * FILLED, left = run->batch - column;",
                  "const long columns = left < FILLED ? left : FILLED;"]
    memory = ["char *memory = run->memory + chunk * run->chunk_bytes;"] if "take(&memory" in lines[0] else []
    body = "\n".join(f"    {line}".rstrip() for line in [*start, *memory, *unpacked(loop, lines), "", *lines])
    return f"static void {loop.name}_chunk(const struct run *run, long chunk, char *work)\n{{\n{body}\n}}\n"


def entry_function(loop: Loop, adding: Loop | None) -> str:
    """The function that is called from outside: it packs the matrices and starts the threads."""
    packs = [*unpacked(loop, loop.packs, constant=False), *loop.packs]
    if loop.name == "forward":
        lines = [*packs, f"share(run, run->chunks, worth(run, {loop.products}, threads), forward_chunk);"]
    else:
        shares = [f"share(&part, run->chunks, worth(&part, {loop.products}, threads), backward_chunk);"]
        shares += [f"share(&part, STRIPS, worth(&part, {adding.products}, threads), sums_strip);"] if adding else []
        lines = ["if (run->last == run->T) {", *indented(packs), "}"] if packs else []
        lines += ["for (struct run part = *run; part.last > run->first; part.last = part.first) {", *indented([
            "part.first = (part.last - 1) / run->at_once * run->at_once;",
            "part.first = part.first < run->first ? run->first : part.first;", *shares]), "}"]
    return f"void {loop.name}(const struct run *run, long threads)\n{{\n" + "".join(
        f"    {line}\n" for line in lines) + "}\n"


def sums_function(loop: Loop) -> str:
    """The function of a strip of the sums over time."""
    used = set(re.findall(r"\w+", "\n".join([*loop.pointers, *loop.body])))
    start = ["const long first = run->first, last = run->last, block = run->block;"]
    start += ["const long line = run->line;"] if "line" in used else []
    start += ["(void)work;  // sums need no memory of their own"]
    steps = ["const long stop = start + block < last ? start + block : last, n = (stop - start) * run->batch;",
             *loop.pointers, *loop.body]
    lines = [*start, *unpacked(loop, [*loop.pointers, *loop.body]), "",
             "if (run->fresh && last == run->T) {", *indented(loop.before), "}",
             "for (long start = (last - 1) / block * block; start >= first; start -= block) {", *indented(steps), "}"]
    body = "\n".join(f"    {line}".rstrip() for line in lines)
    return f"static FUSED void sums_strip(const struct run *run, long strip, char *work)\n{{\n{body}\n}}\n"


def is_product_or_sum(value: Value) -> bool:
    return is_matrix_product(value) or is_added_at(value) or value.op is sum_op.op


class LoopWriter(Statements):
    """Writes the forward or the backward loop of a plan."""

    # -- the forward loop ----------------------------------------------------------------------------------------------

    def written_forward(self) -> Loop:
        plan, loop = self.plan, self.loop
        read = self.read_in_backward() if plan.differentiated else set()
        kept = plan.needs.kept & read
        starts, last = [], {}
        self.turns: dict[Value, str] = {}
        for k, a in enumerate(plan.state):
            name = self.passed("state", k, f"{plan.name(a)}_start", a.dtype)
            if a in kept:
                array = self.stack(a, extra=1)
                self.place[a] = self.at_step(a, array)
            else:
                array = self.buffer(a, copies=2)
                self.place[a] = self.in_turn(a, array, 0, "_t")
            starts.append(self.load(a, array, name, step=False))
            last[a] = f"{array} + {'T' if a in kept else 'T % 2'} * {self.factor(plan.shape(a))}"
            self.turns[a] = array
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
        self.assign([*plan.new_state, *plan.y, *self.laid_down_later()])
        self.load_inputs()
        self.write_values()
        self.lay_down_rest()
        for a, new in zip(plan.state, plan.new_state):
            place = self.next[a]
            if self.place.get(self.actual(new)) != place:
                loop.body += self.copied_from(place, self.source(new))
        for k, y in enumerate(plan.y):
            name = self.passed("y", k, f"ys_{k}", dtype_of(y))
            place, lines = self.contiguous(y, f"y{k}")
            loop.body += [*lines, self.store(place, dtype_of(y), name, step=True)]
        loop.before = [*self.take_stacks(), *loop.before, *starts]
        loop.products = plan.products_of(self.computed)
        for k, a in enumerate(plan.state):
            name = self.passed("final", k, f"{plan.name(a)}_final", a.dtype)
            loop.after.append(self.store(Place.whole(last[a], plan.shape(a)), a.dtype, name, step=False))
        return loop

    def laid_down_later(self) -> list[Value]:
        """The values of Rows that no entrywise pass fills."""
        return [v for rows in self.pending for v in [self.actual(rows.value)] if not self.fills(rows)
                or v.op is None or not v.op.elementwise]

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
        results = self.plan.results_of_steps()
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
                place = self.in_turn(a, self.turns[a], 1, "_next")
            self.next[a] = place
            if new in values and new not in self.place and (new.op.elementwise or new.op is matmul.op):
                self.place[new] = place

    def load_inputs(self) -> None:
        """Copy the x of a step that are read, where they belong."""
        for k, a in enumerate(self.plan.x):
            if a in self.loadable:
                if a not in self.place:
                    self.place[a] = Place.whole(self.buffer(a), self.plan.shape(a))
                name = self.passed("x", k, f"{self.plan.name(a)}_over_time", a.dtype)
                self.loop.body.append(self.load(a, address(self.place[a], self.wide), name, step=True))

    # -- the backward loop ---------------------------------------------------------------------------------------------

    def written_backward(self) -> Loop:
        plan, loop = self.plan, self.loop
        needs = plan.needs
        kept = needs.kept & self.read_in_backward()
        for v in [*plan.state, *plan.forward_values]:
            if v in kept:
                self.place[v] = self.at_step(v, plan.over_time[v])
        results = plan.results_of_steps()
        steps = [term.values[0] for terms in needs.sums.values() for term in terms if term.how == "step"]
        made = {*plan.steps, *plan.program.seeds.values()}
        self.pending = [rows for rows in plan.rows.values() if self.base(rows.value) in made]
        for rows in self.pending:
            rows.backward = True
        self.loadable = {x for x in plan.x if x in self.read_by(plan.steps, [*results, *steps])}
        # {state: (place of its gradient at t, what arrives at t + 1, array, what comes in and goes out)}
        self.carry: dict[Value, tuple] = {}
        self.seeds: list[Value] = []
        starts = []
        for k, a in enumerate(plan.state):
            like = Value(None, (), {}, a.shape, a.dtype)
            hint = self.free(f"d_{plan.name(a)}")
            plan.name_of[like] = hint
            array = self.buffer(like, copies=2, hint=hint)
            name = self.passed("d_state", k, f"d_{plan.name(a)}_carried", a.dtype)
            self.carry[a] = (self.in_turn(like, array, 0, "_t"), like, array, name)
            self.place[like] = self.in_turn(like, array, 1, "_after")
            starts.append(self.load(a, f"{array} + last % 2 * {self.factor(plan.shape(a))}", name, step=False))
        self.arriving()
        values = [*self.seeds, *plan.steps]
        live = [*results, *steps, *(rows.value for rows in self.pending)]
        for a in plan.state:
            g = plan.gradients.get(a)
            if g in set(plan.steps) and g not in self.place and (g.op.elementwise or g.op is matmul.op):
                self.place[g] = self.carry[a][0]
        self.schedule(values, live)
        self.assign([*results, *steps, *self.laid_down_later()])
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
                name = self.passed("d_x", k, f"d_{plan.name(a)}_over_time", a.dtype)
                place, lines = self.contiguous(g, f"d_x{k}")
                loop.body += [*lines, self.store(place, a.dtype, name, step=True)]
        for a, terms in needs.sums.items():
            for term in terms:
                if term.how == "step":
                    name = self.passed("total", a, f"sum_{plan.name(a)}", a.dtype, constant=False)
                    loop.body += self.copied_from(Place.whole(name, a.shape), self.source(term.values[0]), "+=")
        loop.before = [*self.take_stacks(), *loop.before, *starts]
        loop.products = plan.products_of(self.computed)
        for a in plan.state:
            first = f"{self.carry[a][2]} + first % 2 * {self.factor(plan.shape(a))}"
            loop.after.append(self.store(Place.whole(first, plan.shape(a)), a.dtype, self.carry[a][3], step=False))
        return loop

    def pending_seeds(self) -> None:
        """A seed that is laid down in rows is what arrives."""
        for rows in self.pending:
            rows.value = self.actual(rows.value)
        self.plan.rows = {(rows.value, rows.transposed, rows.in_lines): rows for rows in self.plan.rows.values()}

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
                    name = self.passed("d_y", k, f"d_ys_{k}", y.dtype)
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
