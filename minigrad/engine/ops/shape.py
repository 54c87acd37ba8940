"""Ops that rearrange entries. They are linear and come in pairs, each the rule of the other, so they have
derivatives of any order: reshape, transpose, broadcast_to ⇄ sum_to, concatenate ⇄ split.
"""

import math

import numpy as np

from minigrad.engine.op import op


def shape_of(x):
    """The shape of a tensor, an array or a number."""
    return x.shape if hasattr(x, "shape") else np.shape(x)


def normalize_axis(axis, ndim, name):
    """Axes as in NumPy (an int or a tuple, negative too) → a tuple of axes ≥ 0. `name` is for the error."""
    axes = axis if isinstance(axis, (tuple, list)) else tuple(axis) if np.ndim(axis) else (axis,)
    for a in axes:
        if isinstance(a, (bool, np.bool_)) or not hasattr(a, "__index__"):
            raise TypeError(f"{name}: an axis is an integer, not {a!r}")
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(f"{name}: axis {a} is out of bounds for {ndim} dimensions: "
                                          f"use {-ndim} to {ndim - 1}")
    axes = tuple(int(a) % ndim for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{name}: axis {axis} names an axis twice: name each once")
    return axes


# -- order of axes and shape ------------------------------------------------------------------------


@op(np=np.reshape, linear=True, text="np.reshape({x}, {shape})",
    dx=lambda g, x_shape: reshape(g, x_shape))
def reshape(x, *, shape):
    """y = the entries of x, in order, in another shape; one length may be −1.   dL/dx = g in the shape of x."""
    return np.asarray(x).reshape(shape)  # a third of the time of np.reshape


@op(np=np.transpose, linear=True, view=True,
    text=lambda axes: "{x}.T" if axes is None else "{x}.transpose({axes})",
    dx=lambda g, axes: transpose(g, None if axes is None else tuple(np_argsort(axes))))
def transpose(x, *, axes=None):
    """y = x with its axes in the order `axes`, reversed by default.   dL/dx = g with the axes in x's order."""
    return np.asarray(x).transpose(axes)


def np_argsort(axes):
    """The inverse permutation of `axes`."""
    order = [a % len(axes) for a in axes]
    return [order.index(a) for a in range(len(order))]


def swap(x):
    """x with its last two axes exchanged: the transpose of a matrix, or of each matrix in a stack."""
    return x.T if x.ndim == 2 else transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


# -- broadcasting -----------------------------------------------------------------------------------


@op(np=np.broadcast_to, linear=True, view=True, text="np.broadcast_to({x}, {shape})",
    dx=lambda g, x_shape: sum_to(g, x_shape))
def broadcast_to(x, *, shape):
    """y = x repeated along new axes and axes of length 1 to get this shape.   dL/dx = g summed over them.
    The result is a read-only view."""
    return np.broadcast_to(x, shape)


@op(linear=True, dx=lambda g, x_shape: broadcast_to(g, x_shape))
def sum_to(x, *, shape):
    """y = x summed over the axes that broadcasting had added or stretched.   dL/dx = g broadcast.
    float16 is summed in float32."""
    x = np.asarray(x)
    added = x.ndim - len(shape)
    axes = tuple(range(added)) + tuple(added + a for a, n in enumerate(shape) if n == 1 != x.shape[added + a])
    wide = np.float32 if x.dtype == np.float16 else None
    return x.sum(axis=axes, keepdims=True, dtype=wide).reshape(shape).astype(x.dtype, copy=False)


# -- joining and splitting --------------------------------------------------------------------------


def concatenate_darrays(g, arrays_shape, axis):
    if axis is None:
        return [reshape(part, shape) for part, shape in zip(split(g, ends([math.prod(s) for s in arrays_shape])),
                                                             arrays_shape)]
    return split(g, ends([shape[axis] for shape in arrays_shape]), axis)


def ends(lengths):
    """The indices of the cuts between parts of these lengths."""
    total, cuts = 0, []
    for n in lengths[:-1]:
        total += n
        cuts.append(total)
    return tuple(cuts)


@op(np=np.concatenate, linear=True, darrays=concatenate_darrays,
    shapes="all axes except the joined one must have equal lengths")
def concatenate(*arrays, axis=0):
    """The arrays joined along an existing axis: `concatenate([a, b], axis=0)`.
    axis=None joins their flattened entries.   dL/darrays = g cut at the joints.
    """
    return np.concatenate(arrays, axis=axis)


@op(np=np.split, linear=True, dx=lambda g, axis: concatenate(g, axis=axis))
def split(x, *, indices_or_sections, axis=0):
    """x cut along an axis into n equal parts, or before the given indices: a tuple of views.
    dL/dx = the gradients of the parts joined, zeros for a part without one.
    """
    (axis,) = normalize_axis(axis, np.ndim(x), "split")
    cuts = indices_or_sections
    if isinstance(cuts, (int, np.integer)):
        n = np.shape(x)[axis]
        if cuts < 1 or n % cuts:
            raise ValueError(f"{n} entries cannot be cut into {cuts} equal parts: give the indices of the cuts")
        cuts = range(n // cuts, n, n // cuts) if n else [0] * (cuts - 1)
    # np.split makes the same views 20 times slower, because it checks each cut separately
    index = [slice(None)] * (axis + 1)
    parts, start = [], 0
    for stop in [*cuts, None]:
        index[-1] = slice(start, stop)
        parts.append(x[tuple(index)])
        start = stop
    return tuple(parts)
