"""Ops that take axes away: sums, extremes, and softmax with its kin.

`axis` is None (all), an int or a tuple, `keepdims` leaves axes of length 1, as in NumPy.
"""

import math

import numpy as np

from minigrad.ops.elementwise import astype, divide, equal, sqrt, square, where
from minigrad.ops.indexing import flip, getitem
from minigrad.ops.shape import broadcast_to, concatenate, normalize_axis, reshape, shape_of, squeeze
from minigrad.tensor import composite, op


def kept_shape(shape, axis):
    """The shape that a reduction over `axis` leaves with keepdims."""
    axes = range(len(shape)) if axis is None or not shape else normalize_axis(axis, len(shape), "reduction")
    return tuple(1 if a in axes else n for a, n in enumerate(shape))


def count(shape, axis):
    """How many entries a reduction over `axis` takes together."""
    return math.prod(n for n, kept in zip(shape, kept_shape(shape, axis)) if kept == 1)


@op(np=np.sum, method=True,
    dx=lambda g, x_shape, axis: broadcast_to(reshape(g, kept_shape(x_shape, axis)), x_shape))
def sum(x, *, axis=None, keepdims=False):
    """y = Σ x over the axes.   dL/dx = g, the same for each entry of its sum."""
    return np.add.reduce(x, axis=axis, keepdims=keepdims)  # np.sum without what leads to it, half of a small sum's time


@composite(np=np.mean, method=True)
def mean(x, axis=None, keepdims=False):
    """y = Σ x / n over the axes."""
    return divide(sum(x, axis=axis, keepdims=keepdims), count(shape_of(x), axis))


@composite(np=np.var, method=True)
def var(x, axis=None, ddof=0, keepdims=False):
    """y = Σ (x − mean x)² / (n − ddof) over the axes.
    For complex x it is this formula too, without an absolute value, so that the complex step sees through it.
    """
    squares = square(x - mean(x, axis=axis, keepdims=True))
    return divide(sum(squares, axis=axis, keepdims=keepdims), count(shape_of(x), axis) - ddof)


@composite(np=np.std, method=True)
def std(x, axis=None, ddof=0, keepdims=False):
    """y = √var x. Where all entries are equal the slope is infinite, and the gradient nan."""
    return sqrt(var(x, axis=axis, ddof=ddof, keepdims=keepdims))


# -- extremes -----------------------------------------------------------------------------------------


def extreme_dx(g, y, x, x_shape, axis):
    kept = kept_shape(x_shape, axis)
    best = equal(x, reshape(y, kept))
    ties = astype(sum(best, axis=axis, keepdims=True), g.dtype)
    return where(best, reshape(g, kept) / ties, 0.0)


@op(np=(np.max, np.amax), method=True, dx=extreme_dx)
def max(x, *, axis=None, keepdims=False):
    """y = the largest x over the axes.   dL/dx = g, shared equally by the entries that are largest, else 0."""
    return np.max(x, axis=axis, keepdims=keepdims)


@op(np=(np.min, np.amin), method=True, dx=lambda g, y, x, x_shape, axis: extreme_dx(g, y, x, x_shape, axis))
def min(x, *, axis=None, keepdims=False):
    """y = the smallest x over the axes.   dL/dx = g, shared equally by the entries that are smallest, else 0."""
    return np.min(x, axis=axis, keepdims=keepdims)


# -- products and running sums ------------------------------------------------------------------------


@composite(np=np.prod, method=True)
def prod(x, axis=None, keepdims=False):
    """y = Π x over the axes.
    The halves are multiplied with each other until one is left: log₂ n products and the rule of multiply, which is
    right where an entry is 0, to any order. y / x would not be. Integers keep their type, where NumPy widens them.
    """
    ndim = len(shape_of(x))
    axes = tuple(range(ndim)) if axis is None or not ndim else normalize_axis(axis, ndim, "prod")
    for a in axes:
        x = halves_multiplied(x, a)
    return x if keepdims else squeeze(x, axes)


def halves_multiplied(x, axis):
    """The product along one axis, which stays with length 1."""
    before = (slice(None),) * axis
    n = shape_of(x)[axis]
    if n == 0:
        return sum(x, axis=axis, keepdims=True) + 1
    while n > 1:
        half = n // 2
        y = getitem(x, index=(*before, slice(0, half))) * getitem(x, index=(*before, slice(half, 2 * half)))
        x = concatenate([y, getitem(x, index=(*before, slice(2 * half, n)))], axis=axis) if n % 2 else y
        n -= half
    return x


@op(np=np.cumsum, method=True,
    dx=lambda g, x_shape, axis: reshape(flip(cumsum(flip(g, axis), axis), axis), x_shape))
def cumsum(x, *, axis=None):
    """yₜ = Σₛ≤ₜ xₛ along an axis, or of the flat entries.   dL/dxₜ = Σₛ≥ₜ gₛ: the running sum from the other end."""
    return np.cumsum(x, axis=axis)


# -- softmax and its kin: all shift by the largest real part, so no exponential overflows ---------------


def shifted_exp(x, axis):
    """e^(x − m) and m = max x; an exponential that underflows is 0, which is right."""
    if x.dtype.kind in "iub":
        x = x.astype(float)  # −inf, the maximum of nothing, is no integer
    m = np.max(np.real(x), axis=axis, keepdims=True, initial=-np.inf)
    m = np.where(np.isfinite(m), m, 0)
    with np.errstate(under="ignore"):
        return np.exp(x - m), m


@op(dx=lambda g, x, axis: reshape(g, kept_shape(x.shape, axis)) * softmax(x, axis=axis))
def logsumexp(x, *, axis=None, keepdims=False):
    """y = ln Σ eˣ over the axes, without overflow.   dL/dx = g softmax x.   −inf entries count as absent."""
    e, m = shifted_exp(x, axis)
    with np.errstate(divide="ignore"):  # nothing to sum: ln 0 = −inf is the answer
        y = np.log(np.sum(e, axis=axis, keepdims=True)) + m
    return y if keepdims else np.squeeze(y, axis if axis is not None else tuple(range(np.ndim(x))))


@op(dx=lambda g, y, axis: y * (g - sum(g * y, axis=axis, keepdims=True)))
def softmax(x, *, axis=-1):
    """yᵢ = e^(xᵢ) / Σⱼ e^(xⱼ) along an axis.   dL/dx = y (g − Σ g y)."""
    e, _ = shifted_exp(x, axis)
    return e / np.sum(e, axis=axis, keepdims=True)


@op(dx=lambda g, x, axis: g - softmax(x, axis=axis) * sum(g, axis=axis, keepdims=True))
def log_softmax(x, *, axis=-1):
    """yᵢ = xᵢ − ln Σⱼ e^(xⱼ) along an axis.   dL/dx = g − softmax x Σ g; eʸ would be the same, but underflow."""
    return x - logsumexp(x, axis=axis, keepdims=True)
