"""Ops that take axes away: sums, extremes, and softmax with its kin.

`axis` is None (all), an int or a tuple, `keepdims` leaves axes of length 1, and the arguments come in NumPy's order.
Halves are summed, counted and normalised in float32.
"""

import math

import numpy as np

from minigrad.engine.advice import refuse_unless_default
from minigrad.engine.op import op
from minigrad.engine.ops.elementwise import astype, where
from minigrad.engine.ops.halves import HALF, in_float32, is_half
from minigrad.engine.ops.indexing import flip
from minigrad.engine.ops.shape import broadcast_to, normalize_axis, reshape
from minigrad.engine.ops.unruled import equal, logical_or, not_equal


def kept_shape(shape, axis):
    """The shape that a reduction over `axis` leaves with keepdims."""
    axes = range(len(shape)) if axis is None or not shape else normalize_axis(axis, len(shape), "reduction")
    return tuple(1 if a in axes else n for a, n in enumerate(shape))


def count(shape, axis):
    """How many entries a reduction over `axis` takes together."""
    return math.prod(n for n, kept in zip(shape, kept_shape(shape, axis)) if kept == 1)


def as_numpy_sums(call):
    def sum(x, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=None):
        if not (out is initial is where is None):
            refuse_unless_default("sum", out=out, initial=initial, where=where)
        if dtype is not None:
            x = astype(x, dtype)
        return of_axes(call, x, axis, keepdims)
    return sum


def of_axes(call, x, axis, keepdims):
    if is_half(x):
        return astype(call(astype(x, np.float32), axis, keepdims), HALF)
    return call(x) if axis is None and not keepdims else call(x, axis, keepdims)


@op(np=np.sum, method=True, around=as_numpy_sums, linear=True,
    buffered="np.add.reduce({x}, axis={axis}, keepdims={keepdims}, out={y})",
    dx=lambda g, x_shape, axis: broadcast_to(reshape(g, kept_shape(x_shape, axis)), x_shape))
def sum(x, *, axis=None, keepdims=False):
    """y = Σ x over the axes.   dL/dx = g, the same for each entry of its sum."""
    return np.add.reduce(x, axis=axis, keepdims=keepdims)  # np.sum without what leads to it, half of a small sum's time


@op(elementwise=True, c="sqrt{f}({x})", dx=lambda g, y: 0.5 * g / where(equal(y, 0), INF, y))
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


def as_numpy_finds(call):
    def extreme(x, axis=None, out=None, keepdims=False, initial=None, where=None):
        if not (out is initial is where is None):
            refuse_unless_default(call.__name__, out=out, initial=initial, where=where)
        return of_axes(call, x, axis, keepdims)  # in float32 for its rule, which counts ties
    return extreme


@op(np=(np.max, np.amax), method=True, around=as_numpy_finds, dx=extreme_dx)
def max(x, *, axis=None, keepdims=False):
    """y = the largest x over the axes, nan if one is.   dL/dx = g, shared equally by the entries that are largest (or
    nan), else 0."""
    return np.max(x, axis=axis, keepdims=keepdims)


@op(np=(np.min, np.amin), method=True, around=as_numpy_finds,
    dx=lambda g, y, x, x_shape, axis: extreme_dx(g, y, x, x_shape, axis))
def min(x, *, axis=None, keepdims=False):
    """y = the smallest x over the axes, nan if one is.   dL/dx = g, shared equally by the entries that are smallest (or
    nan), else 0."""
    return np.min(x, axis=axis, keepdims=keepdims)


# -- running sums -------------------------------------------------------------------------------------


def as_numpy_runs(call):
    wide = in_float32(call)

    def cumsum(x, axis=None, dtype=None, out=None):
        refuse_unless_default("cumsum", out=out)
        return wide(x if dtype is None else astype(x, dtype), axis)
    return cumsum


@op(np=np.cumsum, method=True, around=as_numpy_runs, linear=True,
    dx=lambda g, x_shape, axis: reshape(flip(cumsum(flip(g, axis), axis), axis), x_shape))
def cumsum(x, *, axis=None):
    """yₜ = Σₛ≤ₜ xₛ along an axis, or of the flat entries.   dL/dxₜ = Σₛ≥ₜ gₛ: the running sum from the other end."""
    return np.cumsum(x, axis=axis)


# -- softmax and its kin: all shift by the largest real part, so no exponential overflows ---------------


def shifted_exp(x, axis):
    """e^(x − m) and m = max x; an exponential that underflows is 0, which is right."""
    x = np.asarray(x) + 0.0  # floats: −inf, the maximum of nothing, is not an integer
    m = np.max(np.real(x), axis=axis, keepdims=True, initial=-np.inf)
    m = np.where(np.isfinite(m), m, 0)
    with np.errstate(under="ignore"):
        return np.exp(x - m), m


@op(around=in_float32, dx=lambda g, x, axis: reshape(g, kept_shape(x.shape, axis)) * softmax(x, axis=axis))
def logsumexp(x, *, axis=None, keepdims=False):
    """y = ln Σ eˣ over the axes, without overflow.   dL/dx = g softmax x.   −inf entries count as absent.
    The largest is 1 in the sum of shifted exponentials; what the others add to it keeps its digits.
    """
    e, m = shifted_exp(x, axis)
    top = np.real(x) == m
    others = np.sum(np.where(top, e - 1, e), axis=axis, keepdims=True)
    n = np.count_nonzero(top, axis=axis, keepdims=True).astype(m.dtype)
    with np.errstate(divide="ignore", under="ignore"):  # nothing to sum: ln 0 = −inf is the answer
        y = np.log1p(others + (n - 1)) + m
    return y if keepdims else np.squeeze(y, axis if axis is not None else tuple(range(np.ndim(x))))


@op(around=in_float32, dx=lambda g, y, axis: y * (g - sum(g * y, axis=axis, keepdims=True)))
def softmax(x, *, axis=-1):
    """yᵢ = e^(xᵢ) / Σⱼ e^(xⱼ) along an axis.   dL/dx = y (g − Σ g y)."""
    e, _ = shifted_exp(x, axis)
    return e / np.sum(e, axis=axis, keepdims=True)


@op(around=in_float32, dx=lambda g, x, axis: g - softmax(x, axis=axis) * sum(g, axis=axis, keepdims=True))
def log_softmax(x, *, axis=-1):
    """yᵢ = xᵢ − ln Σⱼ e^(xⱼ) along an axis.   dL/dx = g − softmax x Σ g; eʸ would be the same, but underflow."""
    _, m = shifted_exp(x, axis)
    z = x - m
    return z - logsumexp(z, axis=axis, keepdims=True)
