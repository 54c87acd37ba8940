"""Exponentials and logarithms that keep their precision where the plain formula loses it or overflows."""

import math

import numpy as np

from minigrad.engine.op import op
from minigrad.engine.ops.reduce import kept_shape, shifted_exp, softmax, sum
from minigrad.engine.ops.shape import reshape


@op(np=np.expm1, dx=lambda g, y: g * (y + 1.0))
def expm1(x):
    """y = eˣ − 1, exact for small x.   dL/dx = g (y + 1)."""
    return np.expm1(x)


@op(np=np.log1p, dx=lambda g, x: g / (1.0 + x))
def log1p(x):
    """y = ln(1 + x), exact for small x.   dL/dx = g / (1 + x)."""
    return np.log1p(x)


LN_2, LN_10 = math.log(2.0), math.log(10.0)


@op(np=np.log2, dx=lambda g, x: g / (x * LN_2))
def log2(x):
    """y = log₂ x.   dL/dx = g / (x ln 2)."""
    return np.log2(x)


@op(np=np.log10, dx=lambda g, x: g / (x * LN_10))
def log10(x):
    """y = log₁₀ x.   dL/dx = g / (x ln 10)."""
    return np.log10(x)


@op(elementwise=True, dx=lambda g, x: g * softplus_slope(x))
def softplus(x):
    """y = ln(1 + eˣ) = max(x, 0) + ln(1 + e^(−|x|)).   dL/dx = g sigmoid x, with full precision in the small tail.
    It neither overflows nor loses its tail.
    """
    positive = np.real(x) > 0
    with np.errstate(under="ignore"):
        return np.where(positive, x, 0.0) + np.log1p(np.exp(np.where(positive, np.multiply(x, -1.0), x)))


@op(elementwise=True, dx=lambda g, x, y: g * y * softplus_slope(-x))
def softplus_slope(x):
    """y = sigmoid x = e^(−softplus(−x)), precise in its left tail.   dL/dx = g y (1 − y) = g y sigmoid(−x)."""
    with np.errstate(under="ignore"):
        return np.exp(-softplus(np.negative(x)))


@op(np=np.logaddexp, elementwise=True, da=lambda g, a, b: g * softplus_slope(a - b),
    db=lambda g, a, b: g * softplus_slope(b - a))
def logaddexp(a, b):
    """y = ln(eᵃ + eᵇ), without overflow.   dL/da = g e^(a − y) = g sigmoid(a − b),  dL/db = g sigmoid(b − a)."""
    with np.errstate(under="ignore"):
        if np.iscomplexobj(a) or np.iscomplexobj(b):  # which np.logaddexp does not take
            swap = np.real(a) < np.real(b)
            return np.where(swap, b, a) + np.log1p(np.exp(np.where(swap, np.subtract(a, b), np.subtract(b, a))))
        return np.logaddexp(a, b)


@op(dx=lambda g, x, axis: reshape(g, kept_shape(x.shape, axis)) * softmax(x, axis=axis))
def logsumexp(x, *, axis=None, keepdims=False):
    """y = ln Σ eˣ over the axes, without overflow.   dL/dx = g softmax x.   −inf entries count as absent.
    The largest shifted exponential is 1; log1p of the sum of the others keeps their digits.
    """
    e, m = shifted_exp(x, axis)
    top = np.real(x) == m
    others = np.sum(np.where(top, e - 1, e), axis=axis, keepdims=True)
    n = np.count_nonzero(top, axis=axis, keepdims=True).astype(m.dtype)
    with np.errstate(divide="ignore", under="ignore"):  # an empty sum: ln 0 = −inf is right
        y = np.log1p(others + (n - 1)) + m
    return y if keepdims else np.squeeze(y, axis if axis is not None else tuple(range(np.ndim(x))))


@op(dx=lambda g, x, axis: g - softmax(x, axis=axis) * sum(g, axis=axis, keepdims=True))
def log_softmax(x, *, axis=-1):
    """yᵢ = xᵢ − ln Σⱼ e^(xⱼ) along an axis.   dL/dx = g − softmax x Σ g; eʸ would be equal, but underflows."""
    _, m = shifted_exp(x, axis)
    z = x - m
    return z - logsumexp(z, axis=axis, keepdims=True)
