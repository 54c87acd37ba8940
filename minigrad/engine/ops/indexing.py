"""Indexing. `getitem` and `scatter` are each the rule of the other; the rest is built from them."""

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.op import op
from minigrad.engine.operators import composite
from minigrad.engine.ops.halves import in_float32
from minigrad.engine.ops.shape import normalize_axis, shape_of
from minigrad.engine.tensor import Tensor


def settled(index):
    """An index as a tuple of ints, slices, newaxis, ellipsis and copies of arrays, which no later change can affect."""
    return tuple([i if isinstance(i, (int, slice)) else settled_part(i)
                  for i in (index if isinstance(index, tuple) else (index,))])


def settled_part(i):
    if i is None or i is Ellipsis:
        return i
    i = np.array(i.detach().numpy() if isinstance(i, Tensor) else bare(i))
    if i.ndim == 0 and i.dtype.kind in "iu":
        return int(i)
    return i if i.size or i.dtype == bool else i.astype(np.intp)


def repeats(index):
    """Whether an index may select an entry twice, because it contains an integer array."""
    return any(isinstance(i, np.ndarray) and i.dtype != bool for i in index)


def add_at(total, g, index):
    """total[index] += g. An entry that is selected twice gets both gradients. float16 is summed in float32."""
    index = settled(index)
    if not repeats(index):
        total[index] += g
    elif total.dtype == np.float16:
        wide = total.astype(np.float32)
        add_at(wide, g.astype(np.float32), index)
        total[...] = wide
    elif len(index) == 1 and total.ndim > 1 and total.flags.c_contiguous:
        add_rows(total, g, index[0])
    else:
        np.add.at(total, index, g)


PAIRS = {"f": np.complex64, "d": np.complex128}


def add_rows(total, g, rows):
    """total[rows] += g for whole rows, such as an embedding's. np.add.at is slow on rows and fast on flat arrays, so
    every entry gets its own index. If possible, two entries share one index, as one complex number."""
    n, width = len(total), total[:1].size
    rows = rows.astype(np.intp).reshape(-1, 1)
    if rows.size and (rows.min() < -n or rows.max() >= n):
        raise IndexError(f"an index of {rows.ravel()} is out of bounds for {n} rows")
    total, g = total.reshape(-1), np.ascontiguousarray(g).reshape(-1)
    if width % 2 == 0 and total.dtype == g.dtype and g.dtype.char in PAIRS:
        total, g, width = total.view(PAIRS[g.dtype.char]), g.view(PAIRS[g.dtype.char]), width // 2
    np.add.at(total, (rows % n * width + np.arange(width)).reshape(-1), g)


@op(linear=True, view=lambda index: all(isinstance(i, slice) for i in index), text="{x}[{index}]",
    dx=lambda g, x_shape, index: scatter(g, shape=x_shape, index=index), dx_into=add_at)
def getitem(x, *, index):
    """y = x[index] as in NumPy: slices, integers, newaxis, ellipsis, integer arrays, masks.
    dL/dx = zeros with g added at index: an entry that is read twice gets both gradients.
    """
    return np.asarray(x)[index]


@in_float32
@op(linear=True, dx=lambda g, index: getitem(g, index=index), helper="""
def scatter(x, shape, index):
    y = np.zeros(shape, np.asarray(x).dtype)
    np.add.at(y, index, x)
    return y
""")
def scatter(x, *, shape, index):
    """y = zeros of this shape with x added at index, the adjoint of getitem.   dL/dx = g[index]."""
    y = np.zeros(shape, np.asarray(x).dtype)
    add_at(y, np.asarray(x), index)
    return y


@composite(np=np.flip)
def flip(x, axis=None):
    """x reversed along one axis, several axes or all of them."""
    ndim = len(shape_of(x))
    axes = range(ndim) if axis is None else normalize_axis(axis, ndim, "flip")
    return getitem(x, index=tuple(slice(None, None, -1) if a in axes else slice(None) for a in range(ndim)))
