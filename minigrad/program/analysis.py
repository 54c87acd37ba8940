"""What is known of the values of a program: views, aliases, liveness, loop invariants, influence, terms of a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter

from minigrad.engine.ops import add, getitem, matmul, transpose
from minigrad.engine.ops import sum as sum_op
from minigrad.program.ir import LOOP, Value

by_number = attrgetter("number")


# -- views, aliases and liveness ------------------------------------------------------------------------------


def is_view(x: Value) -> bool:
    """Whether NumPy computes x as a view of its input: a slice, a transpose, a broadcast."""
    return x.op is not None and x.op.is_view(x.metadata)


def is_slice(x: Value) -> bool:
    """Whether x is a part of its input cut by slices alone."""
    return x.op is getitem.op and is_view(x)


def is_slice_or_transpose(x: Value) -> bool:
    return x.op is transpose.op or is_slice(x)


def base(x: Value, is_view: Callable[[Value], bool] = is_view) -> Value:
    """The value behind the views of it: the one that owns the memory."""
    while is_view(x):
        x = x.inputs[0]
    return x


class Aliases:
    """Which values share memory.

    invariant    values that are the same at every step; they have memory of their own
    is_buffered  whether a value is written into a buffer, so that it shares no memory with its inputs
    """

    def __init__(self, invariant: set[Value], is_buffered: Callable[[Value], bool]):
        self.invariant, self.is_buffered = invariant, is_buffered
        self.known: dict[Value, set[Value]] = {}

    def is_view(self, value: Value) -> bool:
        return value not in self.invariant and is_view(value)

    def base(self, value: Value) -> Value:
        return base(value, self.is_view)

    def of(self, value: Value) -> set[Value]:
        """Values whose memory this one may show. An op that is not buffered may return a view, as np.reshape does:
        then all its inputs count."""
        if value.op is None or self.is_buffered(value):
            return {value}
        if value not in self.known:
            self.known[value] = set().union(*map(self.of, value.inputs), () if self.is_view(value) else {value})
        return self.known[value]

    def is_slice_of_base(self, value: Value) -> bool:
        """Whether a value is its base, or one slice of it."""
        base = self.base(value)
        return value is base or (is_slice(value) and value.inputs[0] is base)

    def last_uses(self, values: list[Value], live: Iterable[Value]) -> dict[Value, int]:
        """Liveness: {value: position of the last of `values` that reads its memory}; len(values) for what is `live`
        after them."""
        last = {b: n for n, value in enumerate(values) for a in value.inputs for b in self.of(a)}
        last.update((b, len(values)) for value in live for b in self.of(value))
        return last


# -- loop invariants and influence ----------------------------------------------------------------------------


def is_invariant(value: Value, invariant: set[Value]) -> bool:
    """Whether a value is the same at every step: one of the loop invariants, or a constant."""
    return value.is_constant or value in invariant


def add_invariants(invariant: set[Value], values: Iterable[Value]) -> None:
    """Extend `invariant` by the values that are computed from invariants alone; inputs come first. An inner loop stays
    in its loop."""
    for value in values:
        if value.op is not LOOP and all(is_invariant(a, invariant) for a in value.inputs):
            invariant.add(value)


def results_that_depend(wanted: set[Value], forward: list[Value], state: list[Value], new_state: list[Value],
                        y: list[Value]) -> list[bool]:
    """Whether a gradient can flow from each new state and each y to one of the wanted values, at this step or, through
    the state, at an earlier one."""
    depends = set(wanted)
    for _ in range(len(state) + 1):
        for value in forward:
            if not depends.isdisjoint(value.onward):
                depends.add(value)
        depends.update(a for a, new in zip(state, new_state) if new in depends)
    return [value in depends for value in [*new_state, *y]]


# -- sums over time -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """How to sum a value over the steps: one "product" of two arrays over time, one "sum" of an array over time and
    `axes` of each step, or "step" by step."""

    how: str
    values: tuple[Value, ...]
    axes: tuple[int, ...] = ()


def sum_over_time(v: Value, is_factor: Callable[[Value], bool], is_summand: Callable[[Value], bool]) -> Term:
    """The shortest sum of v over the steps; the two functions say which values may be stacked over time for it."""
    if is_matrix_product(v) and all(map(is_factor, v.inputs)):
        return Term("product", v.inputs)
    if v.op is sum_op.op and is_summand(v.inputs[0]):
        axis, n = v.metadata["axis"], len(v.inputs[0].shape)
        axes = range(n) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        return Term("sum", v.inputs, tuple(a % n for a in axes) if n else ())
    return Term("step", (v,))


def is_matrix_product(v: Value) -> bool:
    """Whether v is A B of two matrices. Its sum over time is one product of the stacked factors."""
    return v.op is matmul.op and all(len(a.shape) == 2 for a in v.inputs)


def terms_of(g: Value) -> list[Value]:
    """The terms of a sum of values of one shape."""
    if g.op is add.op and all(a.shape == g.shape for a in g.inputs):
        return [term for a in g.inputs for term in terms_of(a)]
    return [g]


# -- parts ----------------------------------------------------------------------------------------------------


def part_slices(whole: Value) -> list[tuple]:
    """The index of a concatenation that each of its inputs fills."""
    axis = whole.metadata["axis"] % len(whole.shape)
    slices, start = [], 0
    for a in whole.inputs:
        stop = start + a.shape[axis]
        ends = slice(start or None, None if stop == whole.shape[axis] else stop)  # as a split writes them
        slices.append((*[slice(None)] * axis, ends))
        start = stop
    return slices
