"""NumPy's full signatures for the core ops, and half precision.

An argument that minigrad does not have raises TypeError. float16 is multiplied, summed and normalised in float32 and
returned as float16, as in PyTorch; the rules see float32 only.
"""

import numpy as np

from minigrad.engine.advice import refuse_unless_default
from minigrad.engine.op import named
from minigrad.engine.operators import install
from minigrad.engine.ops import elementwise, linalg, reduce, shape, special
from minigrad.engine.ops.halves import HALF, in_float32, is_half
from minigrad.engine.tensor import Tensor


def answers_for(op):
    """Replace the public function of an op: under its name, as a method, and for NumPy's functions."""
    def declare(function):
        public = named(function, op)
        install(public, op.numpy, op.infix, op.name in vars(Tensor))
        return public
    return declare


@answers_for(shape.reshape.op)
def reshape(x, shape, order="C", *, copy=None):
    if order == "C" and not copy:
        return reshape.op.call(x, shape)
    refuse_unless_default("reshape", order=None if order in ("C", "F") else order, copy=copy or None)
    return transpose(reshape.op.call(transpose(x), tuple(shape)[::-1] if np.ndim(shape) else shape))


@answers_for(shape.transpose.op)
def transpose(x, axes=None):
    if axes is None or axes.__class__ is tuple:
        return transpose.op.call(x, axes)
    return transpose.op.call(x, tuple(axes) if np.ndim(axes) else (axes,))


def lengths(args):
    """`x.reshape(2, 3)` and `x.reshape((2, 3))` → (2, 3)."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


Tensor.reshape = lambda self, *shape, **order: reshape(self, lengths(shape), **order)
Tensor.transpose = lambda self, *axes: transpose(self, None if axes in ((), (None,)) else lengths(axes))
Tensor.T = property(transpose)


@answers_for(elementwise.where.op)
def where(condition, a=None, b=None):
    if a is None and b is None:
        return np.nonzero(condition)
    return where.op.call(condition, a, b)


@answers_for(elementwise.astype.op)
def astype(x, dtype, *, copy=True):  # copy only controls whether NumPy may return x itself
    return astype.op.call(x, dtype)


@answers_for(linalg.matmul.op)
def matmul(a, b):
    if not (is_half(a) or is_half(b)):
        return matmul.op.call(a, b)
    halves = np.result_type(*[x.dtype if hasattr(x, "dtype") else np.asarray(x) for x in (a, b)]) == HALF
    y = matmul.op.call(*[astype(x, np.float32) if is_half(x) else x for x in (a, b)])
    return astype(y, HALF) if halves else y


@answers_for(reduce.sum.op)
def sum(x, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=None):
    if not (out is initial is where is None):
        refuse_unless_default("sum", out=out, initial=initial, where=where)
    return over_axes(sum.op, x if dtype is None else astype(x, dtype), axis, keepdims)


def over_axes(op, x, axis, keepdims):
    if is_half(x):
        return astype(op.call(astype(x, np.float32), axis, keepdims), HALF)
    return op.call(x) if axis is None and not keepdims else op.call(x, axis, keepdims)


def extreme(op):
    """max or min. float16 runs in float32, because the rule counts ties."""
    def find(x, axis=None, out=None, keepdims=False, initial=None, where=None):
        if not (out is initial is where is None):
            refuse_unless_default(op.name, out=out, initial=initial, where=where)
        return over_axes(op, x, axis, keepdims)
    return answers_for(op)(find)


@answers_for(reduce.cumsum.op)
def cumsum(x, axis=None, dtype=None, out=None):
    refuse_unless_default("cumsum", out=out)
    return in_float32(cumsum.op.call)(x if dtype is None else astype(x, dtype), axis)


max, min = extreme(reduce.max.op), extreme(reduce.min.op)
softmax = in_float32(reduce.softmax)
log_softmax, logsumexp = in_float32(special.log_softmax), in_float32(special.logsumexp)
