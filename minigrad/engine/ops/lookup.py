"""Indexing by a tensor: the index is an input of the op, and not a part of it, so a traced function can look up other
entries at each call. `index_select` and `index_add` are each the rule of the other.
"""

import numpy as np

from minigrad.engine.op import op
from minigrad.engine.ops.halves import in_float32
from minigrad.engine.ops.indexing import add_at, getitem, settled
from minigrad.engine.tensor import Tensor


@op(text=lambda axis: f"{{x}}[{':, ' * axis}{{index}}]", buffered="np.take({x}, {index}, axis={axis}, out={y})",
    dx=lambda g, index, x_shape, axis: index_add(g, index, length=x_shape[axis], axis=axis),
    dx_into=lambda total, g, index, axis: add_at(total, g, (slice(None),) * axis + (index,)))
def index_select(x, index, *, axis):
    """y = x[…, index, …] along an axis: index is an input, so a traced function looks up other entries at each call.
    dL/dx = index_add(g, index).
    """
    return np.take(x, index, axis=axis)


@in_float32
@op(dx=lambda g, index, axis: index_select(g, index, axis=axis), helper="""
def index_add(x, index, length, axis):
    last = axis + np.ndim(index)
    y = np.zeros((*np.shape(x)[:axis], length, *np.shape(x)[last:]), np.asarray(x).dtype)
    np.add.at(y, (slice(None),) * axis + (index,), x)
    return y
""")
def index_add(x, index, *, length, axis):
    """y = zeros of this length along an axis, with x added at index, the adjoint of index_select.
    dL/dx = index_select(g, index).
    """
    x = np.asarray(x)
    y = np.zeros((*x.shape[:axis], length, *x.shape[axis + np.ndim(index):]), x.dtype)
    add_at(y, x, (slice(None),) * axis + (index,))
    return y


def looked_up(x, index):
    """x[index]. Integers of unknown values, in a traced function, are an input of the op: x[i], x[:, i], …"""
    *before, last = index if index.__class__ is tuple and index else (index,)
    if isinstance(last, Tensor) and last.is_symbol and last.dtype.kind in "iu" and \
            all(isinstance(i, slice) and i == slice(None) for i in before):
        return index_select(x, last, axis=len(before))
    return getitem(x, index=settled(index))


Tensor.__getitem__ = looked_up
