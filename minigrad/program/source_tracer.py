"""The tracer of `derive`: it keeps the user's sizes and logistics, for the reader of the source.

Sizes: the shapes of its symbols are `Size`s (sizes.py), and local variables name them.
Logistics: 1 / (1 + np.exp(-z)) stays as the user wrote it, and its gradient is that of `sigmoid`, g y (1 − y). This is
right at both ends, where the rules of exp and the quotient give 0 · inf = nan for a very negative z.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minigrad.engine.arrays import ndarray
from minigrad.engine.op import PART, Op
from minigrad.engine.ops import add, divide, exp, multiply, negative, power, sigmoid, split
from minigrad.engine.tensor import Tensor
from minigrad.program.sizes import Size, axes_of, cuts, factor_of, plain_number, shape_of_result
from minigrad.program.trace import Symbol, Tracer


class SourceTracer(Tracer):
    def __call__(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        y = super().__call__(op, inputs, list(map(plain_number, arrays)), metadata, tracked)
        if self.last or not isinstance(y, Symbol) or (z := argument_of_logistic(y)) is None:
            return y
        out = self.made(y.example, y._tracked, sigmoid.op, (z,), {})
        self.written[out._index] = y
        return out

    def argument(self, example: ndarray) -> Symbol:
        out = super().argument(example)
        out.sizes = axes_of(out._index, example.shape)
        return out

    def made(self, data: Any, tracked: bool, op: Op, inputs: tuple, metadata: dict) -> Symbol:
        out = super().made(data, tracked, op, inputs, metadata)
        if op is PART:
            shapes = shapes_of_parts(inputs[0])
            out.sizes = None if shapes is None else tuple(
                n if n == length else length for n, length in zip(shapes[metadata["i"]], data.shape))
        elif not isinstance(data, tuple):
            out.sizes = shape_of_result(op, list(map(self.shape_of_input, inputs)), metadata, data.shape)
        return out

    def shape_of_input(self, x: Any) -> tuple:
        """Its shape as sizes; an array that the function makes itself keeps its numbers."""
        if isinstance(x, Tensor) and not isinstance(x, Symbol) and x._index < self.began:
            return axes_of(x._index, x.shape)
        return np.shape(x)

    def name(self, name: str, value: Any, depth: int) -> None:
        if not isinstance(value, Size):
            super().name(name, value, depth)
        elif name.isascii() and not name.startswith("_") and (factor := factor_of(value)) is not None:
            self.size_names[factor] = name


def shapes_of_parts(whole: Tensor) -> list[tuple] | None:
    """The shapes of the results of a split or a loop; None for any other op."""
    metadata = whole._metadata
    if "scan" in metadata:
        return metadata["scan"].shapes(metadata["backward"])
    if whole._op is not split.op:
        return None
    shape, axis = whole._inputs[0].shape, metadata["axis"] % len(whole._inputs[0].shape)
    ends = cuts(shape[axis], metadata["indices_or_sections"])
    return [(*shape[:axis], stop - start, *shape[axis + 1:]) for start, stop in itertools.pairwise(ends)]


def argument_of_logistic(y: Symbol) -> Tensor | None:
    """z of a result 1 / (1 + exp(-z)), in any order of the operands; else None."""
    below = other_operand(y, (divide.op, 0, 1), (power.op, 1, -1))
    exponential = other_operand(below, (add.op, 0, 1), (add.op, 1, 1))
    if not is_made_by(exponential, exp.op):
        return None
    (x,) = exponential._inputs
    if is_made_by(x, negative.op):
        return x._inputs[0]
    z = other_operand(x, (multiply.op, 0, -1), (multiply.op, 1, -1))
    return negative(x) if z is None else z


def other_operand(y: Any, *forms: tuple[Op, int, int]) -> Symbol | None:
    """The other operand of y, if it has one of the forms (op, place of an operand, the number it must be)."""
    for op, place, number in forms:
        if is_made_by(y, op):
            one, other = y._inputs[place], y._inputs[1 - place]
            if not isinstance(one, Tensor) and np.ndim(one) == 0 and one == number and isinstance(other, Symbol):
                return other
    return None


def is_made_by(x: Any, op: Op) -> bool:
    return isinstance(x, Symbol) and x._op is op
