"""Half precision (float16): ops that compute in float32 and return float16, as in PyTorch."""

import functools

import numpy as np

from minigrad.engine.ops.elementwise import astype
from minigrad.engine.tensor import Tensor

HALF = np.dtype(np.float16)


def is_half(x):
    """Whether x is a float16 array or tensor."""
    return getattr(getattr(x._array if isinstance(x, Tensor) else x, "dtype", None), "char", "") == "e"


def in_float32(function):
    """Wrap `function` to compute in float32 if its first array is float16, and return float16. Gradients take the same
    path. In float16 a sum overflows beyond 65504, and a sum of ones stops at 2048."""
    @functools.wraps(function)
    def wide(x, *args, **options):
        if not is_half(x):
            return function(x, *args, **options)
        y = function(astype(x, np.float32), *args, **options)
        return astype(y, HALF) if y.dtype == np.float32 else y
    return wide
