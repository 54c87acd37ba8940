"""The program of a traced function: `Value`s, each one op on earlier values."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

import numpy as np

from minigrad.engine.arrays import ndarray
from minigrad.engine.op import Op, primitive
from minigrad.program.sizes import Size, meaning

# LOOP: a scan in a derived function (loops.py), an op whose results are PARTs of it. EINSUM: a product summed over
# time.
LOOP, EINSUM = primitive("loop"), primitive("einsum")
# DETACH: a result, a state or a named value that equals another but passes no gradient: `h.detach()`, or the same
# computation under no_grad.
DETACH = primitive("detach")
DETACH.forward = lambda x: x


class Value:
    """One value of a program: an argument, a constant, or an op on other values.

    tracked  whether a gradient flows to it, if one flows to every argument. Values with equal numbers but different
             gradients stay two values.
    onward   the inputs that its gradient flows on to
    origin   in the backward program, the value of the forward whose rule made it

    No input is a DETACH: ops read numbers, and a DETACH has the numbers of its own input.
    """

    __slots__ = ("constant", "dtype", "inputs", "metadata", "name", "number", "onward", "op", "origin", "shape",
                 "tracked")
    next_number = itertools.count().__next__

    def __init__(self, op: Op | None, inputs: tuple[Value, ...], metadata: dict, shape: tuple, dtype: Any,
                 constant: Any = None, name: str | None = None, tracked: bool = False):
        self.op, self.metadata, self.shape, self.dtype = op, metadata, shape, dtype
        self.inputs = tuple(map(without_detach, inputs))
        self.tracked = tracked and dtype.kind in "fc"
        self.onward = ruled(op, inputs) if self.tracked and op is not None else ()
        self.constant, self.name, self.origin = constant, name, None
        self.number = Value.next_number()

    @property
    def is_constant(self) -> bool:
        return self.op is None and self.constant is not None

    def __repr__(self) -> str:
        return f"<{self.name or ''} {self.op or self.constant} {self.shape}>"


def order_of_axes(axes: Any, n: int) -> list[int]:
    """The axes of a transpose, each ≥ 0."""
    return list(range(n))[::-1] if axes is None else [a % n for a in axes]


def without_detach(x: Value) -> Value:
    """x, or the value that x is a DETACH of."""
    return x.inputs[0] if x.op is DETACH else x


def ruled(op: Op, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
    """The tracked inputs that the op has a rule for."""
    positions = range(len(inputs)) if op.variadic else [vjp.position for vjp in op.vjps]
    return tuple(inputs[i] for i in positions if inputs[i].tracked)


def in_order(roots: list[Value], before: set[Value]) -> list[Value]:
    """The values that the roots need, without those in `before`, in the order in which they were made: inputs first."""
    found: set[Value] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value.op is not None and value not in found and value not in before:
            found.add(value)
            stack += value.inputs
    return sorted(found, key=lambda value: value.number)


PLAIN = frozenset({int, bool, str, bytes, type(None), type(Ellipsis)})


def content_key(x: Any, of_other: Callable[[Any], Any] = repr) -> Any:
    """A constant or metadata as a part of a key, equal only for equal meaning (1 is not True, 0.0 is not −0.0).

    of_other  the key of an object of any other type
    """
    kind = x.__class__
    if kind in PLAIN:
        return kind, x
    if kind is tuple or kind is list:
        return kind, *[content_key(child, of_other) for child in x]
    if kind is slice:
        return kind, *[content_key(bound, of_other) for bound in (x.start, x.stop, x.step)]
    if kind is dict:
        return kind, *[(key, content_key(child, of_other)) for key, child in x.items()]
    if kind is Size:
        return kind, meaning(x)
    if isinstance(x, ndarray):
        return kind, x.dtype, x.shape, x.tobytes()
    if isinstance(x, (float, complex, np.generic)):
        return kind, repr(x)
    if isinstance(x, (np.dtype, type, np.ufunc, BuiltinFunctionType)):
        return x
    return of_other(x)


def is_number(x: Value, number: float) -> bool:
    return x.is_constant and np.ndim(x.constant) == 0 and x.constant == number
