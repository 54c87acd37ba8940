"""Losses: one number, the mean over all targets that count.

A mask selects them: booleans (or 0 and 1), one for each target. Outputs and targets where it is 0 have no effect, NaN
included. A loss has the dtype of the outputs; for float16 it is computed in float32. A loss near 0 keeps its digits,
and so does its gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.op import op
from minigrad.engine.ops import add, expand_dims, multiply, negative, softmax, softplus, square, subtract, sum, where
from minigrad.engine.ops.halves import in_float32
from minigrad.engine.tensor import Tensor
from minigrad.nn.checks import Array

A = TypeVar("A", Tensor, np.ndarray)


class Loss(Protocol):
    """The type of `cross_entropy`: it returns a tensor for a tensor of logits, an array for an array."""

    def __call__(self, logits: A, targets: Any, mask: Any = None) -> A: ...


# -- classes ------------------------------------------------------------------------------------------------------


def slope_dscale(g, logits, targets, mask):
    return sum(g * cross_entropy_slope(1.0, logits, targets, mask=mask))


def slope_dlogits(g, scale, logits, targets, mask):
    p = softmax(logits)
    d = p * (g - sum(g * p, axis=-1, keepdims=True)) * (scale / counted(mask, targets))
    return d if mask is None else where(expand_dims(mask, -1), d, 0.0)


@op(dscale=slope_dscale, dlogits=slope_dlogits)
def cross_entropy_slope(scale, logits, targets, *, mask=None):
    """The gradient of scale · cross_entropy: scale / n (p − 1 at the target), p = softmax z, for the n rows that count,
    and 0 for the others.          scale ()   logits z, y, g (…, V)   targets, mask (…)
    dL/dscale = Σ g y / scale        dL/dlogits = scale / n · p (g − Σ g p)
    """
    z, t, kept = rows(logits, targets, mask)
    d, others, own, _ = shifted(z, t)
    weight = scale / len(t) / (others + own)
    d *= weight[:, None]
    d[np.arange(len(t)), t] = -others * weight
    if kept is not None:
        every = np.zeros((targets.size, z.shape[1]), d.dtype)
        every[kept] = d
        d = every
    return d.reshape(logits.shape)


def as_loss(call: Callable) -> Loss:
    @functools.wraps(call)
    def loss(logits: Any, targets: Any, mask: Any = None) -> Any:
        return in_float32(call)(logits, targets, mask=None if mask is None else bare(mask))
    return loss


@as_loss
@op(dlogits=lambda g, logits, targets, mask: cross_entropy_slope(g, logits, targets, mask=mask),
    shapes="targets have the shape of logits without its last axis, the classes, and a mask has the shape of targets")
def cross_entropy(logits, targets, *, mask=None):
    """L = mean −ln p(target) = mean (ln Σₖ e^zₖ − z at the target), in nats, p = softmax z.
    logits z (…, V)   targets (…) integers from 0 to V − 1   mask (…)
    dL/dlogits = g / n (p − 1 at the target): bounded, where p itself would be divided by.
    Stable for logits of any size: the maximum of each row is subtracted first, and the exponentials of the other
    classes are summed apart from the target's.
    Raises ValueError when shapes differ, a target that counts is not a class, or none counts; TypeError when targets
    are not integers.
    """
    z, t = np.asarray(logits), np.asarray(targets)
    if not z.ndim or t.shape != z.shape[:-1]:
        raise ValueError("shape")
    if t.dtype.kind not in "iu":
        raise TypeError(f"targets are classes, integers from 0, not {t.dtype}")
    counted(mask, t)
    z, t, _ = rows(z, t, mask)
    if t.min() < 0 or t.max() >= z.shape[1]:
        raise ValueError(f"there are classes from 0 to {z.shape[1] - 1}, and a target is "
                         f"{t.min() if t.min() < 0 else t.max()}")
    _, others, own, m = shifted(z, t)
    with np.errstate(under="ignore"):
        return np.add.reduce(np.log1p(others + (own - 1)) + (m - z[np.arange(len(t)), t])) / len(t)


def rows(logits, targets, mask):
    """The logits (n, V) and classes (n,) that count, and their indices (None: all count)."""
    z, t, kept = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), None
    if mask is not None:
        kept = np.flatnonzero(np.asarray(mask))
        z, t = z[kept], t[kept]
    return z, t, kept


def shifted(z, t):
    """e^(z − m), with the maximum m of each row against overflow and 0 at the target; the row sums, the value at the
    target, and m."""
    m = np.maximum.reduce(z.real, axis=1)
    with np.errstate(under="ignore"):
        e = np.exp(z - m[:, None])
    target = np.arange(len(t)), t
    own, e[target] = e[target], 0
    return e, np.dot(e, np.ones(e.shape[1], e.dtype)), own, m  # dot sums short rows four times as fast as np.sum


def counted(mask, targets):
    """The number of targets that count. Raises ValueError for 0, and for a mask that does not fit."""
    n = targets.size
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != targets.shape:
            raise ValueError(f"a mask of shape {mask.shape} does not fit targets of shape {targets.shape}")
        n = int(np.count_nonzero(mask))
        if mask.dtype != bool and n != (mask == 1).sum():
            raise ValueError("the mask contains numbers other than 0 and 1: a mask selects targets, it does not weight "
                             "them")
    if n == 0:
        why = "targets is empty" if mask is None else "the mask is 0 everywhere"
        raise ValueError(f"no target counts, {why}: a mean needs one or more")
    return n


# -- numbers ------------------------------------------------------------------------------------------------------


def mse_loss(y: A, target: Array, mask: Any = None) -> A:
    """Mean (y − target)² over all entries, or those that the mask selects.

    y and target have the same shape (…); a mask has that shape or its first axes: (T, B) for y (T, B, D). Raises
    ValueError if shapes differ, since (B, 1) and (B,) would broadcast to B² differences, and if no target counts.
    """
    return mean_of(y, target, mask, "mse_loss", lambda y, target: square(subtract(y, target)))


def binary_cross_entropy(logits: A, targets: Array, mask: Any = None) -> A:
    """Mean −t ln p − (1 − t) ln(1 − p) = mean t ln(1 + e^−z) + (1 − t) ln(1 + e^z), in nats, with p = sigmoid z,
    computed from the logits z and so stable for every z.

    logits and targets have the same shape; mask as in `mse_loss`. Targets are probabilities: raises ValueError if one
    that counts is outside 0 … 1, if shapes differ, and if no target counts.
    """
    def terms(z, t):
        values = np.real(t.data if isinstance(t, Tensor) else t)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"binary_cross_entropy takes targets from 0 to 1, and they go from {values.min()} to "
                             f"{values.max()}")
        return add(multiply(t, softplus(negative(z))), multiply(subtract(1, t), softplus(z)))
    return mean_of(logits, targets, mask, "binary_cross_entropy", terms)


@in_float32
def mean_of(y: Array, target: Array, mask: Any, loss: str, terms: Callable) -> Array:
    """The mean of terms(y, target) over the entries that the mask selects; `loss` is the name for errors."""
    y, target = (x if isinstance(x, Tensor) else bare(x) for x in (y, target))
    if y.shape != target.shape:
        raise ValueError(f"{loss} compares arrays of the same shape, not {y.shape} and {target.shape}: reshape "
                         "one of them")
    if y.dtype.kind == "f" and target.dtype != y.dtype and target.dtype.kind in "fiub":
        target = target.astype(y.dtype)  # NumPy's default float64 must not widen a float32 model
    if mask is not None:
        mask = bare(mask)
        if mask.shape != y.shape[:mask.ndim]:
            raise ValueError(f"{loss}: a mask of shape {mask.shape} does not fit targets of shape {y.shape}: it must "
                             "have that shape, or its first axes")
        mask = np.broadcast_to(mask.reshape(mask.shape + (1,) * (y.ndim - mask.ndim)), y.shape)
    try:
        n = counted(mask, y)
    except ValueError as problem:
        raise ValueError(f"{loss}: {problem}") from None
    if mask is None:
        return sum(terms(y, target)) / n
    mask = mask != 0  # mask the inputs too: 0 · NaN in a gradient is NaN
    return sum(where(mask, terms(where(mask, y, 0.0), where(mask, target, 0.0)), 0.0)) / n
