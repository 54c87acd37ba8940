"""Reverse mode in its plainest form, as an oracle for the real engine: scalars, closures, and recursion.

Nothing here is clever. A value keeps its parents and, for each, the local slope as a number. The gradient of an
output is the sum over all paths back to a leaf of the product of the slopes on the way: followed path by path, so it
costs exponential time in the worst case, and needs no order, no accumulation and no bookkeeping to be right.
"""

from __future__ import annotations

import math


class Value:
    def __init__(self, data: float, parents: tuple[tuple[Value, float], ...] = ()):
        self.data, self.parents = data, parents


def binary(f, slopes):
    return lambda a, b: Value(f(a.data, b.data), tuple(zip((a, b), slopes(a.data, b.data))))


def unary(f, slope):
    return lambda x: Value(f(x.data), ((x, slope(x.data)),))


def logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


OPS = {
    "add": binary(lambda a, b: a + b, lambda a, b: (1.0, 1.0)),
    "subtract": binary(lambda a, b: a - b, lambda a, b: (1.0, -1.0)),
    "multiply": binary(lambda a, b: a * b, lambda a, b: (b, a)),
    "tanh": unary(math.tanh, lambda x: 1.0 - math.tanh(x) ** 2),
    "sigmoid": unary(logistic, lambda x: logistic(x) * (1.0 - logistic(x))),
    "sin": unary(math.sin, math.cos),
    "negative": unary(lambda x: -x, lambda x: -1.0),
}


def slope(y: Value, leaf: Value) -> float:
    """dy/dleaf: 1 for the leaf itself, else the sum over y's parents."""
    if y is leaf:
        return 1.0
    return sum(local * slope(parent, leaf) for parent, local in y.parents)
