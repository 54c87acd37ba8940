"""Python's and NumPy's protocols of `Tensor`: numbers, truth, length, iteration, copies, text, NumPy's functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from minigrad.engine.advice import dotted, missing, refuse_unless_default
from minigrad.engine.operators import NUMPY
from minigrad.engine.tensor import Tensor, describe, flowing, made_by


def installed(method: Callable) -> Callable:
    setattr(Tensor, method.__name__, method)
    return method


# -- numbers ------------------------------------------------------------------------------------------


def number(self: Tensor) -> Any:
    """The single value, for float(x), math.sin(x) and array[i] = x. Raises TypeError while gradients are recorded
    through it, since they would be lost silently."""
    if self._array.size != 1:  # TypeError as in NumPy; item raises ValueError
        raise TypeError(f"{describe(self)} has {self._array.size} values, not one: index it or reduce it first")
    value = self.item()
    if flowing(self):
        raise TypeError(
            f"{describe(self)} requires gradients, and a Python number cannot carry them: keep it a tensor (np.sin "
            "instead of math.sin; mg.stack of a list instead of array[i] = x), or read its value with .item()")
    return value


@installed
def __float__(self: Tensor) -> float:
    return float(number(self))


@installed
def __int__(self: Tensor) -> int:
    return int(number(self))


@installed
def __complex__(self: Tensor) -> complex:
    return complex(number(self))


@installed
def __index__(self: Tensor) -> int:
    number(self)
    return self._array.__index__()


@installed
def __bool__(self: Tensor) -> bool:
    if self._array.size != 1:
        raise ValueError(f"the truth value of {describe(self)} is ambiguous: use np.any, np.all or mg.where")
    return bool(self._array.item())


@installed
def __divmod__(self: Tensor, other: Any) -> tuple[Tensor, Tensor]:
    return self // other, self % other


@installed
def __rdivmod__(self: Tensor, other: Any) -> tuple[Tensor, Tensor]:
    return other // self, other % self


# -- containers ---------------------------------------------------------------------------------------


@installed
def __len__(self: Tensor) -> int:
    if not self._array.ndim:
        raise TypeError(f"{describe(self)} has no axis, so it has no length: use .size or .item()")
    return len(self._array)


@installed
def __iter__(self: Tensor) -> Iterator[Tensor]:
    return (self[i] for i in range(len(self)))


@installed
def __contains__(self: Tensor, value: Any) -> bool:
    return bool((self == value).any())


@installed
def __setitem__(self: Tensor, index: Any, value: Any) -> None:
    raise TypeError("writing into a tensor cannot be recorded: collect the parts in a list and use "
                    "mg.stack or mg.concatenate, or mg.where for a mask")


# -- other libraries' arrays ----------------------------------------------------------------------------


@installed
def __dlpack__(self: Tensor, **options: Any) -> Any:
    """The data for another library, not copied: `torch.from_dlpack(t)`. Raises BufferError, as PyTorch does, for a
    tensor that requires gradients."""
    if self._tracked:
        raise BufferError(f"{describe(self)} requires gradients, and DLPack does not carry them: hand over its values "
                          "with .detach()")
    return self._array.__dlpack__(**options)


@installed
def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    return self._array.__dlpack_device__()


# -- copies and text ----------------------------------------------------------------------------------


@installed
def __reduce__(self: Tensor) -> tuple:
    if self._op is not None:
        raise TypeError(f"{describe(self)} is part of a graph and cannot be copied or pickled: .detach() it first")
    grad = None if self._grad is None else self._grad.copy()
    return type(self), (self._array, self._tracked, None, self.name), (None, {"_grad": grad})


@installed
def __format__(self: Tensor, spec: str) -> str:
    return format(self.item(), spec) if spec else str(self)


@installed
def __repr__(self: Tensor) -> str:
    values = numpy.array2string(self._array, separator=", ", prefix="tensor(")
    notes = [f"dtype={self.dtype}"] if self.dtype not in (float, int, bool) else []
    notes += [f"name={self.name!r}"] if self.name else []
    if self._tracked:
        maker = made_by(self)
        notes += ["requires_grad=True" if self._op is None else f"op={maker}" if maker else "graph released"]
    return f"tensor({', '.join([values, *notes])})"


# -- NumPy's own functions ----------------------------------------------------------------------------


@installed
def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
    if method != "__call__":
        raise TypeError(missing(f"{dotted(ufunc)}.{method}"))
    if kwargs.get("out") is not None:
        raise TypeError(f"{dotted(ufunc)} into an existing array cannot be recorded: "
                        "write a = a + b instead of a += b, or read values with .detach().numpy()")
    return self.__array_function__(ufunc, (), inputs, kwargs)


@installed
def __array_function__(self, function, types, args, kwargs):
    ours = NUMPY.get(function)
    if ours is None:
        raise TypeError(missing(dotted(function)))
    known = parameters(ours)
    if kwargs and "kwargs" not in known:  # an argument that has another name here is passed by position
        theirs, kwargs = parameters(function), dict(kwargs)
        while len(args) < min(len(theirs), len(known)) and theirs[len(args)] in {*kwargs} - {*known}:
            args = (*args, kwargs.pop(theirs[len(args)]))
        refuse_unless_default(dotted(function), **{key: kwargs.pop(key) for key in {*kwargs} - {*known}})
    return ours(*args, **kwargs)


@functools.cache
def parameters(function: Callable) -> tuple[str, ...]:
    """The names of a function's parameters; none if it has no signature."""
    try:
        return tuple(inspect.signature(function).parameters)
    except ValueError:
        return ()
