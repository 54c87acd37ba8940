"""Which values of a cell keep the columns of the batch apart, so that each thread can run its own columns.

The batch is the last axis of the state. A value keeps columns if its column j needs only columns j of the state, of x
and of the gradients that arrive; sequences of a batch do not talk to each other. A product W u, a sum over the features
and all entrywise ops keep columns; a sum over the batch, or a product over it, does not.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minigrad.engine.ops import (
    broadcast_to,
    concatenate,
    cumsum,
    getitem,
    index_select,
    matmul,
    reshape,
    scatter,
    transpose,
)
from minigrad.engine.ops import max as max_op
from minigrad.engine.ops import min as min_op
from minigrad.engine.ops import sum as sum_op
from minigrad.program.ir import Value, order_of_axes


def keeps_columns(values: Iterable[Value], leaves: Iterable[Value], batch: int) -> bool:
    """Whether all of these values, computed at each step, keep the columns of their leaves."""
    leaves = list(leaves)
    if not all(a.shape and a.shape[-1] == batch for a in leaves):
        return False
    columns = set(leaves)
    for value in values:
        from_columns = [a in columns for a in value.inputs]
        if not any(from_columns):
            return False  # the same in all columns, but not invariant: none such is known
        if value.shape[-1:] != (batch,) or not is_by_column(value, from_columns):
            return False
        columns.add(value)
    return True


def is_by_column(value: Value, from_columns: list[bool]) -> bool:
    op, metadata, x = value.op, value.metadata, value.inputs[0]
    n = len(x.shape)
    if op.elementwise:
        return all(own or not a.shape or a.shape[-1] == 1 for own, a in zip(from_columns, value.inputs))
    if op is matmul.op:
        return not from_columns[0] and len(value.inputs[1].shape) == 2
    if op is index_select.op:
        return not from_columns[0] and metadata["axis"] == n - 1
    if op is concatenate.op:
        return all(from_columns) and metadata["axis"] is not None and metadata["axis"] % n != n - 1
    if op in (sum_op.op, max_op.op, min_op.op, cumsum.op):
        axis = metadata["axis"]
        axes = axis if isinstance(axis, tuple) else (axis,)
        return axis is not None and all(a % n != n - 1 for a in axes)
    if op in (getitem.op, scatter.op):
        index = metadata["index"]
        whole = x.shape if op is getitem.op else value.shape
        masks = [i for i in index if isinstance(i, np.ndarray) and i.dtype.kind == "b"]
        plain = not masks and all(i is not None and i is not Ellipsis for i in index)
        untouched = len(index) < len(whole) or (index[-1].__class__ is slice and index[-1] == slice(None))
        return plain and untouched
    if op is transpose.op:
        return order_of_axes(metadata["axes"], n)[-1] == n - 1
    return op in (reshape.op, broadcast_to.op)
