"""Reading and writing by index. `getitem` and `scatter` are one pair, and all the rest is said with them."""

import numpy as np

from minigrad.ops.elementwise import where
from minigrad.ops.shape import broadcast_to, normalize_axis, ravel, reshape, shape_of
from minigrad.tensor import NUMPY, Tensor, composite, op


def settled(index):
    """An index as a tuple of ints, slices, newaxis, ellipsis and arrays of its own, that no later change can touch."""
    return tuple([i if isinstance(i, (int, slice)) else settled_part(i)
                  for i in (index if isinstance(index, tuple) else (index,))])


def settled_part(i):
    if i is None or i is Ellipsis:
        return i
    i = np.array(i.detach().numpy() if isinstance(i, Tensor) else i)
    if i.ndim == 0 and i.dtype.kind in "iu":
        return int(i)
    return i if i.size or i.dtype == bool else i.astype(np.intp)


def repeats(index):
    """Whether an index may name an entry twice: it holds an integer array."""
    return any(isinstance(i, np.ndarray) and i.dtype != bool for i in index)


def add_at(total, g, index):
    """total[index] += g, where an entry that is named twice gets both."""
    index = settled(index)
    if not repeats(index):
        total[index] += g
    elif len(index) == 1 and total.ndim > 1 and total.flags.c_contiguous:
        add_rows(total, g, index[0])
    else:
        np.add.at(total, index, g)


PAIRS = {"f": np.complex64, "d": np.complex128}


def add_rows(total, g, rows):
    """total[rows] += g for whole rows, as of an embedding. np.add.at is slow on rows and fast on flat arrays: so every
    number gets an index of its own; where it can be, every pair of numbers, as one complex number."""
    n, width = len(total), total[:1].size
    rows = rows.astype(np.intp).reshape(-1, 1)
    if rows.size and (rows.min() < -n or rows.max() >= n):
        raise IndexError(f"an index of {rows.ravel()} is out of bounds for {n} rows")
    total, g = total.reshape(-1), np.ascontiguousarray(g).reshape(-1)
    if width % 2 == 0 and total.dtype == g.dtype and g.dtype.char in PAIRS:
        total, g, width = total.view(PAIRS[g.dtype.char]), g.view(PAIRS[g.dtype.char]), width // 2
    np.add.at(total, (rows % n * width + np.arange(width)).reshape(-1), g)


@op(dx=lambda g, x_shape, index: scatter(g, shape=x_shape, index=index), dx_into=add_at)
def getitem(x, *, index):
    """y = x[index] as NumPy reads it: slices, integers, newaxis, ellipsis, integer arrays, masks.
    dL/dx = zeros with g added at index: an entry that is read twice gets both gradients.
    """
    return np.asarray(x)[index]


@op(dx=lambda g, index: getitem(g, index=index))
def scatter(x, *, shape, index):
    """Zeros of a shape, with x added at index; the pair of getitem.   dL/dx = g[index]."""
    y = np.zeros(shape, np.asarray(x).dtype)
    add_at(y, np.asarray(x), index)
    return y


Tensor.__getitem__ = lambda x, index: getitem(x, index=settled(index))


@composite(np=np.take, method=True)
def take(x, indices, axis=None):
    """x[…, indices, …] along an axis, or of its flat entries. Raises IndexError out of bounds."""
    if axis is None:
        x, axis = ravel(x), 0
    (axis,) = normalize_axis(axis, len(shape_of(x)), "take")
    return getitem(x, settled((slice(None),) * axis + (indices,)))


@composite(np=np.flip)
def flip(x, axis=None):
    """x backwards along an axis, some, or all of them."""
    ndim = len(shape_of(x))
    axes = range(ndim) if axis is None else normalize_axis(axis, ndim, "flip")
    return getitem(x, index=tuple(slice(None, None, -1) if a in axes else slice(None) for a in range(ndim)))


@composite(np=np.repeat, method=True)
def repeat(x, repeats, axis=None):
    """Each entry `repeats` times (a number, or one for each entry) along an axis, or of the flat entries."""
    if axis is None:
        x, axis = ravel(x), 0
    (axis,) = normalize_axis(axis, len(shape_of(x)), "repeat")
    n = shape_of(x)[axis]
    if np.size(repeats) not in (1, n):
        raise ValueError(f"repeat: {np.size(repeats)} repeats for {n} entries: give one number, or one for each")
    return take(x, np.repeat(np.arange(n), repeats), axis)


@composite(np=np.tile)
def tile(x, reps):
    """x laid side by side, reps[i] times along axis i; missing axes are added in front, as NumPy does."""
    reps = tuple(reps) if isinstance(reps, (tuple, list)) else (reps,)
    shape = (1,) * (len(reps) - len(shape_of(x))) + tuple(shape_of(x))
    reps = (1,) * (len(shape) - len(reps)) + reps
    spread = broadcast_to(reshape(x, sum(((1, n) for n in shape), ())), sum(zip(reps, shape), ()))
    return reshape(spread, tuple(r * n for r, n in zip(reps, shape)))


@composite(np=np.pad)
def pad(x, pad_width, mode="constant", constant_values=0):
    """x with entries added before and after along each axis; widths as NumPy takes them: n, (before, after), or a
    pair for each axis. Any mode of np.pad that copies entries: constant, edge, reflect, symmetric, wrap.
    """
    shape = shape_of(x)
    try:
        widths = np.broadcast_to(np.asarray(pad_width), (len(shape), 2)).tolist()
    except ValueError:
        widths = [(-1, -1)]
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError(f"pad: widths {pad_width!r} do not fit the shape {shape}: give a number ≥ 0, (before, after), "
                         "or such a pair for each axis")
    if mode == "constant":
        if np.ndim(constant_values):
            raise ValueError(f"pad: constant_values must be one number, not {constant_values!r}: concatenate others")
        index = tuple(slice(before, before + n) for (before, _), n in zip(widths, shape))
        full = tuple(before + n + after for (before, after), n in zip(widths, shape))
        y = scatter(x, shape=full, index=index)
        if constant_values == 0:
            return y
        inside = np.zeros(full, bool)
        inside[index] = True
        return where(inside, y, constant_values)
    for axis, (n, width) in enumerate(zip(shape, widths)):
        if mode not in ("edge", "reflect", "symmetric", "wrap"):
            raise ValueError(f"pad: mode {mode!r} copies no entries: use constant, edge, reflect, symmetric or wrap")
        x = take(x, np.pad(np.arange(n), width, mode=mode), axis)
    return x


# Questions without a derivative are answered as NumPy answers them, with arrays: about the shape, and about values.
ABOUT_SHAPE = (np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.result_type)
ABOUT_VALUES = (np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.any, np.all, np.isnan, np.isinf,
                np.isfinite, np.isclose, np.allclose, np.array_equal, np.array2string, np.array_repr, np.array_str)


def answered(question, values):
    def answer(*args, **kwargs):
        return question(*[values(a) if isinstance(a, Tensor) else a for a in args],
                        **{name: values(a) if isinstance(a, Tensor) else a for name, a in kwargs.items()})
    answer.__name__ = question.__name__
    return answer


NUMPY.update({question: answered(question, lambda x: x._data) for question in ABOUT_SHAPE})
NUMPY.update({question: answered(question, lambda x: x.detach().numpy()) for question in ABOUT_VALUES})
