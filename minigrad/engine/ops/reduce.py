"""Reductions (sums and extremes), running sums and softmax.

`axis` is None (all axes), an int or a tuple; `keepdims` keeps the reduced axes with length 1.
"""

import math

import numpy as np

from minigrad.engine.op import op
from minigrad.engine.ops.elementwise import astype, where
from minigrad.engine.ops.indexing import flip
from minigrad.engine.ops.shape import broadcast_to, normalize_axis, reshape
from minigrad.engine.ops.unruled import equal, logical_or, not_equal


def kept_shape(shape, axis):
    """The shape of a reduction over `axis` with keepdims."""
    axes = range(len(shape)) if axis is None or not shape else normalize_axis(axis, len(shape), "reduction")
    return tuple(1 if a in axes else n for a, n in enumerate(shape))


def count(shape, axis):
    """The number of entries that a reduction over `axis` combines into one."""
    return math.prod(n for n, kept in zip(shape, kept_shape(shape, axis)) if kept == 1)


@op(np=np.sum, method=True, linear=True,
    buffered="np.add.reduce({x}, axis={axis}, keepdims={keepdims}, out={y})",
    dx=lambda g, x_shape, axis: broadcast_to(reshape(g, kept_shape(x_shape, axis)), x_shape))
def sum(x, *, axis=None, keepdims=False):
    """y = Σ x over the axes.   dL/dx = g, the same for each entry of a sum."""
    return np.add.reduce(x, axis=axis, keepdims=keepdims)  # np.sum without its overhead, half of a small sum's time


@op(elementwise=True, dx=lambda g, y: 0.5 * g / where(equal(y, 0), INF, y))
def root(x):
    """y = √x of a sum of squares.   dL/dx = g / 2y, and 0 at y = 0: the slope of a norm or a deviation at its kink."""
    return np.sqrt(x)


INF = math.inf


# -- extremes -----------------------------------------------------------------------------------------


def extreme_dx(g, y, x, x_shape, axis):
    kept = kept_shape(x_shape, axis)
    best = logical_or(equal(x, reshape(y, kept)), not_equal(x, x))  # if one is nan, so is y
    ties = astype(sum(best, axis=axis, keepdims=True), g.dtype)
    return where(best, reshape(g, kept) / ties, 0.0)


@op(np=(np.max, np.amax), method=True, dx=extreme_dx)
def max(x, *, axis=None, keepdims=False):
    """y = the largest x over the axes, nan if any is.   dL/dx = g, split equally between the largest (or nan) entries,
    else 0."""
    return np.max(x, axis=axis, keepdims=keepdims)


@op(np=(np.min, np.amin), method=True,
    dx=lambda g, y, x, x_shape, axis: extreme_dx(g, y, x, x_shape, axis))
def min(x, *, axis=None, keepdims=False):
    """y = the smallest x over the axes, nan if any is.   dL/dx = g, split equally between the smallest (or nan)
    entries, else 0."""
    return np.min(x, axis=axis, keepdims=keepdims)


# -- running sums -------------------------------------------------------------------------------------


@op(np=np.cumsum, method=True, linear=True,
    dx=lambda g, x_shape, axis: reshape(flip(cumsum(flip(g, axis), axis), axis), x_shape))
def cumsum(x, *, axis=None):
    """yₜ = Σₛ≤ₜ xₛ along an axis, or of the flattened x.   dL/dxₜ = Σₛ≥ₜ gₛ: the running sum from the other end."""
    return np.cumsum(x, axis=axis)


# -- softmax: it shifts by the largest real part, so no exponential overflows -------------------------------


def shifted_exp(x, axis):
    """e^(x − m) and m = max x; an exponential that underflows is 0, which is right."""
    x = np.asarray(x) + 0.0  # floats: −inf, the maximum of nothing, is not an integer
    m = np.max(np.real(x), axis=axis, keepdims=True, initial=-np.inf)
    m = np.where(np.isfinite(m), m, 0)
    with np.errstate(under="ignore"):
        return np.exp(x - m), m


@op(dx=lambda g, y, axis: y * (g - sum(g * y, axis=axis, keepdims=True)))
def softmax(x, *, axis=-1):
    """yᵢ = e^(xᵢ) / Σⱼ e^(xⱼ) along an axis.   dL/dx = y (g − Σ g y)."""
    e, _ = shifted_exp(x, axis)
    return e / np.sum(e, axis=axis, keepdims=True)
