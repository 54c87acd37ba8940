"""Storage of a value in C: an array, and the strides and offset of the value's entries in it.

Every view (a slice, a transpose, a broadcast, a reshape that copies nothing) is the same array with other strides. NumPy
itself says with which: the view is made of an array without memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


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

    @property
    def contiguous(self) -> bool:
        return all(n == 1 or s == own for n, s, own in zip(self.shape, self.strides, standard(self.shape)))

    def at(self, index: list[str], columns: int = 1) -> str:
        """The C text of the entry at these indices; multiples of `columns` are written as such."""
        def times(count: int) -> str:
            if columns > 1 and count % columns == 0:
                return "COLUMNS" if count == columns else f"{count // columns} * COLUMNS"
            return str(count)
        terms = [times(self.offset)] if self.offset else []
        for i, stride in zip(index, self.strides):
            if i != "0" and stride:
                terms.append(i if stride == 1 else f"{i} * {times(stride)}" if stride > 0 else f"{i} * -{times(-stride)}")
        return f"{self.array}[{' + '.join(terms) or '0'}]"
