"""Cut values at the joints of concatenations and at the ends of slices, so that entrywise work has one shape.

    z = W u + b;  f = σ(z[:H]);  g = tanh(z[H:])    →    f = σ((W u)[:H] + b[:H]);  g = tanh((W u)[H:] + b[H:])

An entrywise value that is read in slices, or made from a concatenation, is computed piece by piece. All pieces of a
cell's gates then have the shape of its state, and one pass over the entries computes all of them. What is read as a
whole is the concatenation of its pieces. softmax and its kin become the max, exp, sum and quotient they consist of.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from minigrad.engine.op import Op
from minigrad.engine.ops import (
    add,
    concatenate,
    divide,
    equal,
    exp,
    getitem,
    index_add,
    index_select,
    log,
    log_softmax,
    logsumexp,
    reshape,
    softmax,
    subtract,
    transpose,
    where,
)
from minigrad.engine.ops import max as max_op
from minigrad.engine.ops import sum as sum_op
from minigrad.engine.ops.reduce import kept_shape
from minigrad.program.analysis import is_slice, part_slices
from minigrad.program.ir import DETACH, Value, in_order, without_detach
from minigrad.program.simplify import Program

MOST_PIECES = 16  # a value in more pieces is left whole


class Pieces:
    """Rewrite the values that `roots` need; `new(value)` is the value that takes the place of one of them."""

    def __init__(self, program: Program, roots: list[Value]):
        self.program = program
        self.known: dict[Value, Value] = {}
        self.parts: dict[tuple, Value] = {}
        values = [v for v in in_order(roots, set()) if v.op is not DETACH]
        self.cuts = cuts_of(values)
        for value in values:
            self.known[value] = self.rewritten(value)

    def new(self, value: Value) -> Value:
        value = without_detach(value)
        return self.known.get(value, value)

    def make(self, op: Op, inputs: tuple, metadata: dict, shape: tuple, dtype: Any) -> Value:
        return self.program.known_or_new(op, inputs, metadata, shape, dtype, None)

    def rewritten(self, value: Value) -> Value:
        axis, cuts = self.cuts.get(value, (0, ()))
        if cuts:
            ends = [0, *cuts, value.shape[axis]]
            parts = tuple(self.piece(value, axis, *pair) for pair in pairwise(ends))
            return self.make(concatenate.op, parts, {"axis": axis % len(value.shape)}, value.shape, value.dtype)
        inputs = tuple(map(self.new, value.inputs))
        if value.op in EXPANSIONS:
            return EXPANSIONS[value.op](self, inputs[0], value)
        if is_slice(value) and (cut := one_cut(value)) is not None:
            return self.piece(value.inputs[0], *cut)
        if value.op in (transpose.op, index_add.op) and (columns := self.by_columns(value, inputs)) is not None:
            return columns
        return value if inputs == value.inputs else self.make(value.op, inputs, value.metadata, value.shape,
                                                              value.dtype)

    def by_columns(self, value: Value, inputs: tuple) -> Value | None:
        """Rows that are looked up, E[i].T, as columns, E.T[:, i], and likewise their gradient; None for any other."""
        x, shape = inputs[0], value.shape
        if len(x.shape) != 2 or len(shape) != 2:
            return None
        if value.op is transpose.op and x.op is index_select.op and x.metadata["axis"] == 0:
            table, index = x.inputs
            return self.make(index_select.op, (self.transposed(table), index), {"axis": 1}, shape, value.dtype)
        if value.op is index_add.op and x.op is transpose.op and value.metadata["axis"] == 0:
            metadata = {**value.metadata, "axis": 1}
            return self.transposed(self.make(index_add.op, (x.inputs[0], inputs[1]), metadata, shape[::-1],
                                             value.dtype))
        return None

    def transposed(self, x: Value) -> Value:
        return self.make(transpose.op, (x,), {"axes": None}, x.shape[::-1], x.dtype)

    def piece(self, value: Value, axis: int, start: int, stop: int) -> Value:
        """value[start:stop] along an axis, counted from the last (−1)."""
        key = (value, axis, start, stop)
        if key not in self.parts:
            self.parts[key] = self.made_piece(value, axis, start, stop)
        return self.parts[key]

    def made_piece(self, value: Value, axis: int, start: int, stop: int) -> Value:
        n = value.shape[axis]
        if (start, stop) == (0, n):
            return self.new(value)
        shape = list(value.shape)
        shape[axis] = stop - start
        own_axis, cuts = self.cuts.get(value, (0, ()))
        if cuts and own_axis == axis and {start, stop} <= {0, *cuts, n}:
            inner = [c for c in cuts if start < c < stop]
            if not inner:
                inputs = tuple(self.piece(a, axis, start, stop) if len(a.shape) >= -axis and a.shape[axis] == n != 1
                               else self.new(a) for a in value.inputs)
                return self.make(value.op, inputs, value.metadata, tuple(shape), value.dtype)
        if value.op is concatenate.op and value.metadata["axis"] % len(shape) == axis % len(shape):
            for a, index in zip(value.inputs, part_slices(value)):
                first = index[-1].start or 0
                if first <= start and stop <= first + a.shape[axis]:
                    return self.piece(a, axis, start - first, stop - first)
        if is_slice(value) and (cut := one_cut(value)) is not None and cut[0] == axis:
            return self.piece(value.inputs[0], axis, cut[1] + start, cut[1] + stop)
        index = (*[slice(None)] * (axis % len(shape)), slice(start or None, None if stop == n else stop))
        return self.make(getitem.op, (self.new(value),), {"index": index}, tuple(shape), value.dtype)


def one_cut(value: Value) -> tuple[int, int, int] | None:
    """(axis from the last, start, stop) of a slice that cuts one axis in steps of 1; None for any other."""
    (x,) = value.inputs
    index = [i.indices(n) for i, n in zip(value.metadata["index"], x.shape)]
    cut = [(axis - len(x.shape), start, stop) for axis, ((start, stop, step), n) in enumerate(zip(index, x.shape))
           if (start, stop) != (0, n) or step != 1]
    return cut[0] if len(cut) == 1 and all(step == 1 for _, _, step in index) and cut[0][1] < cut[0][2] else None


def cuts_of(values: list[Value]) -> dict[Value, tuple[int, tuple[int, ...]]]:
    """{entrywise value: (axis from the last, where it is cut)}. Cuts spread between values of one length."""
    found: dict[tuple[Value, int], set[int]] = {}

    def spread(a: Value, axis: int, cuts: set[int]) -> bool:
        if a.is_constant or not cuts:
            return False
        known = found.setdefault((a, axis), set())
        grown = not cuts <= known
        known |= cuts
        return grown

    again = True
    while again:
        again = False
        for v in reversed(values):
            again |= any([spread(*cut) for cut in demands(v, found)])
        for v in values:
            if v.op.elementwise:
                for a in v.inputs:
                    for axis in shared_axes(v, a):
                        if not a.is_constant and (a.op is concatenate.op or (a.op and a.op.elementwise)):
                            again |= spread(v, axis, found.get((a, axis), set()) | joints(a, axis))
    out: dict[Value, tuple[int, tuple[int, ...]]] = {}
    for v in values:
        axes = [axis for axis in range(-len(v.shape), 0) if found.get((v, axis))] if v.op.elementwise else []
        if axes and len(found[v, axes[0]]) < MOST_PIECES:
            out[v] = axes[0], tuple(sorted(found[v, axes[0]]))
    return out


def demands(v: Value, found: dict) -> list[tuple[Value, int, set[int]]]:
    """The cuts that a value asks of its inputs: (input, axis, cuts)."""
    if is_slice(v) and (cut := one_cut(v)) is not None:
        axis, start, stop = cut
        (x,) = v.inputs
        inside = {start, stop, *(start + c for c in found.get((v, axis), ()))}
        return [(x, axis, {c for c in inside if 0 < c < x.shape[axis]})]
    if v.op.elementwise:
        return [(a, axis, found.get((v, axis), set())) for a in v.inputs for axis in shared_axes(v, a)]
    if v.op is concatenate.op:
        own = v.metadata["axis"] % len(v.shape) - len(v.shape)
        out = []
        for a, index in zip(v.inputs, part_slices(v)):
            first = index[-1].start or 0
            cuts = {c - first for c in found.get((v, own), ())}
            out.append((a, own, {c for c in cuts if 0 < c < a.shape[own]}))
        return out
    return []


def shared_axes(v: Value, a: Value) -> list[int]:
    """The axes, from the last, along which an input has the length of the value."""
    return [axis for axis in range(-len(a.shape), 0) if a.shape[axis] == v.shape[axis] > 1]


def joints(a: Value, axis: int) -> set[int]:
    if a.op is not concatenate.op or a.metadata["axis"] % len(a.shape) != axis % len(a.shape):
        return set()
    return {index[-1].start for index in part_slices(a) if index[-1].start}


# -- softmax and its kin in simpler ops --------------------------------------------------------------------------


def shifted(pieces: Pieces, x: Value, axis: Any) -> tuple[Value, Value]:
    """x − m and m, the max over the axis, or 0 where that is not finite."""
    kept = kept_shape(x.shape, axis)
    m = pieces.make(max_op.op, (x,), {"axis": axis, "keepdims": True}, kept, x.dtype)
    zero = Value(None, (), {}, (), None, constant=0.0)
    rest = pieces.make(subtract.op, (m, m), {}, kept, x.dtype)  # 0, or nan
    finite = pieces.make(equal.op, (rest, zero), {}, kept, np.dtype(bool))
    m = pieces.make(where.op, (finite, m, zero), {}, kept, x.dtype)
    return pieces.make(subtract.op, (x, m), {}, x.shape, x.dtype), m


def summed_exp(pieces: Pieces, z: Value, axis: Any) -> tuple[Value, Value]:
    """eᶻ and its sum over the axis."""
    e = pieces.make(exp.op, (z,), {}, z.shape, z.dtype)
    return e, pieces.make(sum_op.op, (e,), {"axis": axis, "keepdims": True}, kept_shape(z.shape, axis), z.dtype)


def expanded_softmax(pieces: Pieces, x: Value, value: Value) -> Value:
    e, total = summed_exp(pieces, shifted(pieces, x, value.metadata["axis"])[0], value.metadata["axis"])
    return pieces.make(divide.op, (e, total), {}, value.shape, value.dtype)


def expanded_log_softmax(pieces: Pieces, x: Value, value: Value) -> Value:
    z, _ = shifted(pieces, x, value.metadata["axis"])
    _, total = summed_exp(pieces, z, value.metadata["axis"])
    total = pieces.make(log.op, (total,), {}, total.shape, total.dtype)
    return pieces.make(subtract.op, (z, total), {}, value.shape, value.dtype)


def expanded_logsumexp(pieces: Pieces, x: Value, value: Value) -> Value:
    z, m = shifted(pieces, x, value.metadata["axis"])
    _, total = summed_exp(pieces, z, value.metadata["axis"])
    total = pieces.make(log.op, (total,), {}, total.shape, total.dtype)
    y = pieces.make(add.op, (total, m), {}, m.shape, m.dtype)
    return y if y.shape == value.shape else pieces.make(reshape.op, (y,), {"shape": value.shape}, value.shape, y.dtype)


EXPANSIONS = {softmax.op: expanded_softmax, log_softmax.op: expanded_log_softmax, logsumexp.op: expanded_logsumexp}
