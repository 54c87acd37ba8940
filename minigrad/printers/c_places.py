"""Storage of a value in C: an array, and the strides and offset of the value's entries in it.

Every view (a slice, a transpose, a broadcast, a reshape that copies nothing) is the same array with other strides.
NumPy itself computes them: the view is made of an array without memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

INDEX = ("i", "j", "k", "l", "m", "n")  # of the loops over the axes


def standard(shape: tuple) -> tuple:
    """The strides of a contiguous array, in entries."""
    return tuple(math.prod(shape[a + 1:]) for a in range(len(shape)))


@dataclass(frozen=True)
class Place:
    """An array by name, and where in it the entries of a value lie, in entries."""

    array: str
    shape: tuple
    strides: tuple
    offset: int = 0

    @classmethod
    def whole(cls, array: str, shape: tuple) -> Place:
        return cls(array, shape, standard(shape))

    def seen(self, view: Callable[[np.ndarray], Any]) -> Place:
        """The place of a view. Raises ValueError if it is not a view."""
        phantom = np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), self.shape, self.strides)
        y = view(phantom)
        if not isinstance(y, np.ndarray) or y.base is None:
            raise ValueError("not a view")
        offset = y.__array_interface__["data"][0] - phantom.__array_interface__["data"][0]
        return Place(self.array, y.shape, y.strides, self.offset + offset)

    def over(self, shape: tuple) -> Place:
        """The place broadcast to a shape."""
        lead = len(shape) - len(self.shape)
        stretched = (0 if n == 1 else s for n, s in zip(self.shape, self.strides))
        return Place(self.array, shape, (*[0] * lead, *stretched), self.offset)

    @property
    def contiguous(self) -> bool:
        return all(n == 1 or s == own for n, s, own in zip(self.shape, self.strides, standard(self.shape)))

    def at(self, index: list[str], columns: int = 1) -> str:
        """The C text of the entry at these indices; multiples of `columns` are written as such."""
        terms = [multiple(self.offset, columns)] if self.offset else []
        for i, stride in zip(index, self.strides):
            if i != "0" and stride:
                factor = multiple(stride, columns) if stride > 0 else f"-{multiple(-stride, columns)}"
                terms.append(i if stride == 1 else f"{i} * {factor}")
        return f"{self.array}[{' + '.join(terms) or '0'}]"


def multiple(count: int, columns: int) -> str:
    """The C text of a count, as a multiple of COLUMNS if it is one."""
    if columns > 1 and count % columns == 0:
        return "COLUMNS" if count == columns else f"{count // columns} * COLUMNS"
    return str(count)


# -- loops over the entries of a shape ------------------------------------------------------------------------


class Axes:
    """The loops over the entries of a shape: an index for each axis that is longer than 1; or one index for all."""

    def __init__(self, shape: tuple, wide: int, flat: bool = False):
        names = iter(INDEX)
        self.shape, self.wide, self.flat = (math.prod(shape),) if flat else shape, wide, flat
        self.index = [next(names) if n > 1 else "0" for n in self.shape]

    def at(self, place: Place, columns: int) -> str:
        return (place.seen(np.ravel) if self.flat else place).at(self.index, columns)

    def bound(self, axis: int) -> str:
        n, last = self.shape[axis], axis == len(self.shape) - 1
        return multiple(n, self.wide) if last and (self.flat or n == self.wide) else str(n)


def nest(axes: Axes, lines: list[str], independent: bool = True) -> list[str]:
    """Loops around some lines."""
    out = list(lines)
    loops = [(i, axes.bound(axis)) for axis, i in enumerate(axes.index) if i != "0"]
    for depth, (i, bound) in enumerate(reversed(loops)):
        head = f"for (long {i} = 0; {i} < {bound}; {i}++)"
        if len(out) > 1 or depth:
            out = [f"{head} {{", *indented(out), "}"] if len(out) > 1 else [head, *indented(out)]
        else:
            out = [head, *indented(out)]
        if depth == 0 and independent:
            out.insert(0, "#pragma GCC ivdep")
    return out if loops or len(lines) == 1 else ["{", *indented(lines), "}"]


def bracketed(text: str) -> str:
    return f"({text})" if " + " in text else text


def address(place: Place, wide: int) -> str:
    if not place.offset:
        return place.array
    own = place.at(["0"] * len(place.shape), wide)
    return f"&{own}"


def width_text(width: int, wide: int) -> str:
    return "COLUMNS" if width == wide and wide > 1 else str(width)


def indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}".rstrip() for line in lines]


# -- indices ----------------------------------------------------------------------------------------------------


def at_index(x: np.ndarray, index: tuple) -> np.ndarray:
    """x[index] as an array, where NumPy would make a number of one entry too."""
    return x[index if any(i is Ellipsis for i in index) else (*index, ...)]



def is_basic(index: tuple) -> bool:
    return not any(isinstance(i, np.ndarray) for i in index)
