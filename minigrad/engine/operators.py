"""Install ops as operators and methods of `Tensor`, and for NumPy's functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad.engine.context import recording
from minigrad.engine.tensor import Tensor, describe

NUMPY: dict[Callable, Callable] = {}  # NumPy's function → ours
UNARY = {"-": "neg", "+": "pos", "~": "invert"}
DUNDER = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "@": "matmul", "**": "pow",
          ">": "gt", ">=": "ge", "<": "lt", "<=": "le", "==": "eq", "!=": "ne", "&": "and", "|": "or"}
COMPARISON = {">", ">=", "<", "<=", "==", "!="}  # Python reflects these itself


def install(call: Any, functions: tuple, infix: str | None, method: bool) -> None:
    """Make an operator and a method of Tensor, and NumPy's functions, call this function."""
    for function in functions:
        NUMPY[function] = call
    if method:
        setattr(Tensor, call.__name__, call)
    if infix is None:
        return
    if len(call.op.arrays) == 1:
        setattr(Tensor, f"__{UNARY[infix]}__", call)
        return
    setattr(Tensor, f"__{DUNDER[infix]}__", call)
    if infix not in COMPARISON:
        setattr(Tensor, f"__r{DUNDER[infix]}__", lambda b, a: call(a, b))
        setattr(Tensor, f"__i{DUNDER[infix]}__", lambda a, b: in_place(call, a, b))


def in_place(call: Callable, a: Tensor, b: Any) -> Tensor:
    """`a += b`. A leaf that requires gradients is changed in place, under no_grad only (an optimiser's step). Any other
    tensor is replaced by a new one: values saved for a backward never change."""
    if not (a._tracked and a._node is None):
        return call(a, b)
    if recording.get():
        raise RuntimeError(f"{describe(a)} is a leaf that requires gradients and cannot be changed while they are "
                           "recorded: update it inside `with mg.no_grad():`, or write a = a + b for a new tensor")
    value = call(a._array, b._array if isinstance(b, Tensor) else b)
    if value.shape != a._array.shape:
        raise ValueError(f"{describe(a)} must keep its shape if changed in place, but the result has {value.shape}: "
                         "write a = a + b for a new tensor")
    a._array[...] = value
    a.data = a._array
    return a


def composite(*, np: Any = (), method: bool = False) -> Callable:
    """Declare a function made of ops, which needs no rule. NumPy's functions and a method can call it too."""
    def declare(function):
        install(function, np if isinstance(np, tuple) else (np,), None, method)
        return function
    return declare
