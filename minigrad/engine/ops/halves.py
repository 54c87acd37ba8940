"""Half precision: where an op computes in float32 and returns halves, as PyTorch does."""

import functools

import numpy as np

from minigrad.engine.ops.elementwise import astype
from minigrad.engine.tensor import Tensor

HALF = np.dtype(np.float16)


def is_half(x):
    """Whether x is an array or a tensor of halves."""
    return getattr(getattr(x._array if isinstance(x, Tensor) else x, "dtype", None), "char", "") == "e"


def in_float32(function):
    """`function`, in float32 inside where its first array is of halves, and back in halves, as PyTorch sums them: in
    halves a sum overflows beyond 65504, and one of ones ends at 2048. Gradients go back the same path."""
    @functools.wraps(function)
    def wide(x, *args, **options):
        if not is_half(x):
            return function(x, *args, **options)
        y = function(astype(x, np.float32), *args, **options)
        return astype(y, HALF) if y.dtype == np.float32 else y
    return wide
