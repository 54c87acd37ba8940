"""Convert numbers, lists and arrays of the user to inputs of an op."""

from __future__ import annotations

from typing import Any

import numpy

ndarray = numpy.ndarray
asarray = numpy.asarray
NUMBERS = frozenset(map(numpy.dtype, "?bhilqBHILQefdgFDG"))  # in native byte order


def plain(x: Any) -> Any:
    """Convert an input that is not a Tensor. Python numbers stay (they do not widen float32), lists become arrays.

    Arrays get native byte order. Raises TypeError for objects, text and records, and if `bare` does.
    """
    kind = x.__class__
    if kind is float or kind is int or (kind is ndarray and x.dtype in NUMBERS):
        return x
    if isinstance(x, (numpy.number, numpy.bool_, complex, int)):
        return x
    return (out := bare(x)).astype(native(out.dtype), copy=False)


def bare(x: Any) -> ndarray:
    """x as an ndarray; an array of another library is read by DLPack, or else by NumPy.

    Raises TypeError for masked arrays and other subclasses of ndarray, also inside lists, and for an array that its
    library does not hand over.
    """
    waiting = [] if x.__class__ is ndarray else [x]
    while waiting:
        part = waiting.pop()
        if isinstance(part, numpy.ma.MaskedArray):
            raise TypeError("a masked array would lose its mask: pass its numbers as x.filled(0), and the mask "
                            "separately, for example to mg.where")
        if isinstance(part, ndarray) and type(part) not in (ndarray, numpy.memmap, numpy.recarray):
            raise TypeError(f"a {type(part).__name__} may carry more than its numbers: if only the numbers matter, "
                            "pass np.asarray(x)")
        waiting += part if isinstance(part, (list, tuple)) and {type(i) for i in part} - {float, int, bool} else ()
    if not isinstance(x, ndarray) and hasattr(x, "__dlpack__"):
        try:
            return numpy.from_dlpack(x)
        except (BufferError, RuntimeError, TypeError, ValueError) as problem:
            raise TypeError(f"a {type(x).__module__}.{type(x).__name__} cannot be read by DLPack: {problem}; pass an "
                            "array on the CPU, without gradients, of a dtype that NumPy has") from None
    return asarray(x)


def native(dtype: Any) -> numpy.dtype | None:
    """A numeric dtype in native byte order; None for None. Raises TypeError for other dtypes."""
    if dtype is None:
        return None
    dtype = numpy.dtype(dtype)
    if dtype.kind not in "fciub":
        raise TypeError(f"a tensor holds numbers, not {dtype}: pass an array of one numeric dtype")
    return numpy.dtype(dtype.char)  # the shared object, comparable by `is`; .newbyteorder("=") makes a new one
