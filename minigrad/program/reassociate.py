"""Reorder products: fewer values then depend on the next step.

In the backward of a cell, g comes from the next step; x, y and z are values of the forward, already known:

    (g x) y  →  g (x y)          g x ± g y  →  g (x ± y)          [g x; h y] z  →  [g (x z); h (y z)]

The bracketed factors on the right can be computed for many steps at once. If only some rows of a product A B are read,
only those are computed. Results change by rounding.
"""

from __future__ import annotations

from minigrad.engine.op import Op
from minigrad.engine.ops import add, concatenate, getitem, matmul, multiply, subtract, transpose
from minigrad.program.analysis import part_slices
from minigrad.program.ir import Value, in_order
from minigrad.program.simplify import Program


class Reassociated:
    """Rewrite the gradients of a program; `gradients` is {argument: new gradient}, as `program.gradients`."""

    def __init__(self, program: Program, gradients: dict[Value, Value]):
        self.program = program
        self.uses: dict[Value, int] = {}
        values = in_order(list(gradients.values()), set(program.forward))
        for value in [*(a for v in values for a in v.inputs), *gradients.values()]:
            self.uses[value] = self.uses.get(value, 0) + 1
        self.waits = set(program.seeds.values())
        for value in values:
            if any(a in self.waits for a in value.inputs):
                self.waits.add(value)
        self.known: dict[Value, Value] = {}
        for value in values:
            self.known[value] = self.rewritten(value)
        self.gradients = {a: self.new(g) for a, g in gradients.items()}

    def new(self, value: Value) -> Value:
        return self.known.get(value, value)

    def make(self, like: Value, op: Op, *inputs: Value) -> Value:
        """An elementwise op whose result has the shape of `like`."""
        value = self.program.apply(op, inputs, {}, like.shape, like.dtype)
        if any(a in self.waits for a in inputs):
            self.waits.add(value)
        return value

    def rewritten(self, value: Value) -> Value:
        op, inputs = value.op, tuple(self.new(a) for a in value.inputs)
        waiting = [a in self.waits for a in value.inputs]
        if op is multiply.op and sum(waiting) == 1:
            k = waiting.index(True)
            if self.uses[value.inputs[k]] == 1:
                return self.times(inputs[k], inputs[1 - k], value)
        if op in (add.op, subtract.op) and all(waiting) and all(self.uses[a] == 1 for a in value.inputs):
            one, other = (self.factors(a, value) for a in inputs)
            if one and other and one[0] is other[0]:
                return self.make(value, multiply.op, one[0], self.make(value, op, one[1], other[1]))
        if op is getitem.op and value.inputs[0].op is matmul.op and self.uses[value.inputs[0]] == 1 and \
                len(value.metadata["index"]) == 1 and all(len(a.shape) == 2 for a in (value, *value.inputs[0].inputs)):
            # only these rows are read (dL/da of dL/d[a; x]), so only these are computed
            a, b = inputs[0].inputs
            rows = self.rows(a, value)
            made = self.program.apply(matmul.op, (rows, b), {}, value.shape, value.dtype)
            self.waits.add(made)
            return made
        if inputs == value.inputs:
            return value
        made = self.program.apply(value.op, inputs, value.metadata, value.shape, value.dtype)
        if any(waiting):
            self.waits.add(made)
        return made

    def rows(self, a: Value, wanted: Value) -> Value:
        """Rows of a matrix that an index of its product selects; for a transpose Aᵀ, columns of A, transposed."""
        if a.op is transpose.op:
            (whole,) = a.inputs
            index = (slice(None), *wanted.metadata["index"])
            columns = self.program.apply(getitem.op, (whole,), {"index": index},
                                         (whole.shape[0], wanted.shape[0]), a.dtype)
            return self.program.apply(transpose.op, (columns,), a.metadata, columns.shape[::-1], a.dtype)
        return self.program.apply(getitem.op, (a,), wanted.metadata, (wanted.shape[0], a.shape[1]), a.dtype)

    def factors(self, value: Value, like: Value) -> tuple[Value, Value] | None:
        """(g, x) if value is a product g x, all of one shape, in which only g waits for the next step; else None."""
        if value.op is not multiply.op or value.shape != like.shape:
            return None
        waiting = [a for a in value.inputs if a in self.waits]
        if len(waiting) != 1 or any(a.shape != like.shape or a.dtype != like.dtype for a in value.inputs):
            return None
        (g,) = waiting
        return g, next(a for a in value.inputs if a is not g)

    def times(self, g: Value, q: Value, like: Value) -> Value:
        """g q, with q multiplied into the factor that does not wait."""
        same = not q.is_constant and q.shape == like.shape == g.shape and q.dtype == like.dtype
        pair = self.factors(g, like) if same else None
        if pair is not None:
            return self.make(like, multiply.op, pair[0], self.make(like, multiply.op, pair[1], q))
        if same and g.op is concatenate.op and \
                all(part.dtype == q.dtype and self.factors(part, part) for part in g.inputs):
            parts = []
            for part, path in zip(g.inputs, part_slices(g)):
                piece = self.program.apply(getitem.op, (q,), {"index": path}, part.shape, part.dtype)
                parts.append(self.times(part, piece, part))
            made = self.program.apply(g.op, tuple(parts), g.metadata, g.shape, g.dtype)
            self.waits.add(made)
            return made
        return self.make(like, multiply.op, g, q)
