"""Check the arguments of a layer: sizes, dtypes and inputs. Every error names the layer and says what it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.tensor import Tensor

Array = Any  # np.ndarray or Tensor
Tree = Any  # an array, or a nesting of tuples, lists and dicts of them


def is_whole(number: Any, least: int) -> bool:
    """True for an integer, Python's or NumPy's but not a boolean, from `least` on."""
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and bool(number >= least)


def check_sizes(layer: object, least: int = 1, **sizes: Any) -> None:
    """Raise ValueError for a size that is not an integer ≥ least."""
    for name, size in sizes.items():
        if not is_whole(size, least):
            raise ValueError(f"{type(layer).__name__} takes {name} as an integer ≥ {least}, not {size!r}")


def check_float(layer: object, dtype: Any) -> None:
    """Raise TypeError unless dtype is a real or complex float type, as parameters need."""
    if np.dtype(dtype).kind not in "fc":
        raise TypeError(f"{type(layer).__name__} takes a float type as dtype, such as np.float32, not "
                        f"{np.dtype(dtype)}")


def as_numbers(layer: object, x: Any) -> Array:
    """x as an ndarray or tensor. Raises TypeError for an array of anything but numbers."""
    x = x if isinstance(x, Tensor) else bare(x)
    if x.dtype.kind not in "fciub":
        raise TypeError(f"{type(layer).__name__} takes numbers, and x is an array of {x.dtype}")
    return x


def cast(x: Any, dtype: np.dtype | None) -> Any:
    """x in the dtype of a layer's parameters; without parameters (None), integers become float64.

    Complex x stays complex, since the complex step of `gradcheck` goes through real layers.
    """
    if x.dtype.kind == "c" or x.dtype == dtype or (dtype is None and x.dtype.kind == "f"):
        return x
    return x.astype(dtype or np.float64)


def features(layer: object, x: Any, size: int, axis: int = -1) -> Array:
    """x as an ndarray or tensor. Raises ValueError unless its `axis` has this many features."""
    x = as_numbers(layer, x)
    check_features(layer, x, size, axis)
    return x


def check_features(layer: object, x: Array, size: int, axis: int = -1) -> None:
    if x.ndim < -axis or x.shape[axis] != size:
        which = "the last axis" if axis == -1 else "the last axis but one"
        raise ValueError(f"{type(layer).__name__} takes {size} features, {which} of x, and x has shape {x.shape}")
