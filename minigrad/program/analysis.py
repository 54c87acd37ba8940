"""Analyses of a program: views, aliases, liveness, loop invariants, influence, sums over time, blocks of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import attrgetter

from minigrad.engine.op import Op
from minigrad.engine.ops import add, getitem, index_add, matmul, power, transpose
from minigrad.engine.ops import sum as sum_op
from minigrad.program.ir import LOOP, Value, in_order

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
    is_buffered  whether a value is written into a buffer; then it shares no memory with its inputs
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
        """Liveness: {value: position of the last of `values` that reads its memory}; len(values) for those that
        are `live` after them."""
        last = {b: n for n, value in enumerate(values) for a in value.inputs for b in self.of(a)}
        last.update((b, len(values)) for value in live for b in self.of(value))
        return last


def read_of_forward(backward: list[Value], roots: Iterable[Value], seeds: Iterable[Value],
                    base: Callable[[Value], Value]) -> set[Value]:
    """The values of the forward, or its arguments, that the backward reads, itself or as its results (`roots`)."""
    own = {*backward, *seeds}
    read = {base(a) for a in [*(a for v in backward for a in v.inputs), *roots]}
    return {a for a in read if not a.is_constant and a not in own}


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


def closure(found: set, more: Callable[[set], set]) -> set:
    """Extend a set by what `more` finds from it, until it finds nothing new: what is read through the states."""
    while not (new := more(found)) <= found:
        found = found | new
    return found


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
    `axes` of each step, the columns of an array over time added "at" an index over time, or "step" by step."""

    how: str
    values: tuple[Value, ...]
    axes: tuple[int, ...] = ()


def sum_over_time(v: Value, is_factor: Callable[[Value], bool], is_summand: Callable[[Value], bool]) -> Term:
    """The shortest sum of v over the steps; the two functions say which values may be stacked over time for it."""
    if is_matrix_product(v) and all(map(is_factor, v.inputs)):
        return Term("product", v.inputs)
    if is_added_at(v) and all(map(is_factor, v.inputs)):
        return Term("at", v.inputs)
    if v.op is sum_op.op and is_summand(v.inputs[0]):
        axis, n = v.metadata["axis"], len(v.inputs[0].shape)
        axes = range(n) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        return Term("sum", v.inputs, tuple(a % n for a in axes) if n else ())
    return Term("step", (v,))


def is_added_at(v: Value) -> bool:
    """Whether v is the columns of a matrix, each added into the column of zeros that an index names."""
    return v.op is index_add.op and [len(a.shape) for a in v.inputs] == [2, 1] and v.metadata["axis"] == 1


def is_matrix_product(v: Value) -> bool:
    """Whether v is A B of two matrices. Its sum over time is one product of the stacked factors."""
    return v.op is matmul.op and all(len(a.shape) == 2 for a in v.inputs)


def terms_of(g: Value) -> list[Value]:
    """The terms of a sum of values of one shape."""
    if g.op is add.op and all(a.shape == g.shape for a in g.inputs):
        return [term for a in g.inputs for term in terms_of(a)]
    return [g]


class BackwardNeeds:
    """The backward of a cell: its values, its sums over time, and the values of the forward that it reads.

    Adds the loop invariants that it finds to `aliases.invariant`, which the printers read.

    gradients       {argument: its gradient} where one is wanted
    values          the values of the backward
    sums            {weight: terms of its gradient}
    steps           the values that each step of the backward computes
    kept            values of the forward that the backward reads, stored over time
    """

    def __init__(self, forward: list[Value], gradients: dict[Value, Value], seeds: Iterable[Value],
                 weights: list[Value], aliases: Aliases, hoisted: bool, gathered: bool):
        self.gradients, self.weights, self.aliases = gradients, weights, aliases
        self.invariant, before = aliases.invariant, set(forward)
        self.values = in_order(list(gradients.values()), before)
        self.invariant.update(weights)
        if hoisted:
            add_invariants(self.invariant, [*forward, *self.values])
        self.sums = {a: [self.summed(v) for v in terms_of(g)] if gathered else [Term("step", (g,))]
                     for a, g in gradients.items() if a in weights}
        stacked = set(self.stacked())
        for a, terms in self.sums.items():  # a value that is in a stack anyway is summed over the stack
            self.sums[a] = [replace(term, how="sum") if term.how == "step" and term.values[0] in stacked else term
                            for term in terms]
        roots = [v for a, g in gradients.items() for v in self.reads_for(a, g)]
        backward = in_order(roots, before)
        self.steps = [v for v in backward if v not in self.invariant]
        self.kept = read_of_forward(backward, roots, seeds, aliases.base) - self.invariant

    def reads_for(self, a: Value, g: Value) -> list[Value]:
        """The values that the gradient of one argument is computed from: itself, or the operands of its sums."""
        return [v for term in self.sums[a] for v in term.values] if a in self.sums else [g]

    def stacked(self) -> list[Value]:
        """The values that sums over time read, all steps at once."""
        return [v for terms in self.sums.values() for term in terms if term.how != "step" for v in term.values]

    def live(self) -> list[Value]:
        """The values that are read after the statements of a step, or of a block of steps."""
        return [g for a, g in self.gradients.items() if a not in self.weights] + [
            term.values[0] for terms in self.sums.values() for term in terms]

    def summed(self, v: Value) -> Term:
        if v.op is None or v in self.invariant:
            return Term("step", (v,))
        return sum_over_time(v, lambda a: 0 not in a.shape and self.is_stackable(a, (getitem.op, transpose.op)),
                             lambda a: self.is_stackable(a, (getitem.op,)))

    def is_stackable(self, value: Value, views: tuple[Op, ...]) -> bool:
        """Whether all steps of a value can be one array: a value that every step computes, or one view of it."""
        if self.aliases.is_view(value) and value.op in views:
            value = value.inputs[0]
        return not self.aliases.is_view(value) and not is_invariant(value, self.invariant)

    def invariants_read(self, invariant: list[Value]) -> list[Value]:
        """Of these invariants, those that the backward loop, or another of them, reads."""
        read = {*(a for v in [*self.steps, *invariant] for a in v.inputs), *self.live()}
        return [v for v in invariant if v in read]


# -- blocks of steps ------------------------------------------------------------------------------------------


def computed_ahead(values: list[Value], known: set[Value], aliases: Aliases, is_free: Callable[[Value], bool]
                   ) -> list[Value]:
    """The values that do not depend on other steps: they can be computed for a whole block, before its steps.

    known    the values that are known for a whole block
    is_free  whether a value may be stored over a block
    """
    known, found = set(known), []

    def is_known(a: Value, axes: int) -> bool:
        if is_invariant(a, aliases.invariant):
            return len(a.shape) <= axes
        return len(a.shape) == axes and aliases.is_slice_of_base(a) and aliases.base(a) in known

    for value in values:
        product = is_matrix_product(value) and value.inputs[0] in aliases.invariant
        if (product or goes_in_blocks(value)) and is_free(value) and \
                all(is_known(a, len(value.shape)) for a in value.inputs):
            found.append(value)
            known.add(value)
    return found


def computed_behind(values: list[Value], read: Iterable[Value], aliases: Aliases,
                    lies_in_blocks: Callable[[Value], bool]) -> list[Value]:
    """The values that only sums over time read: they can be computed for a whole block, after its steps.

    read            the values that are read within the block, besides by `values`
    lies_in_blocks  whether the steps of a value are adjacent in memory
    """
    read, late = set(map(aliases.base, read)), set()

    def is_known(a: Value, axes: int) -> bool:
        return is_invariant(a, aliases.invariant) or (
            len(a.shape) == axes and aliases.is_slice_of_base(a) and lies_in_blocks(aliases.base(a)))

    for value in reversed(values):
        if value not in read and not aliases.is_view(value) and goes_in_blocks(value) and lies_in_blocks(value) and \
                all(is_known(a, len(value.shape)) for a in value.inputs):
            late.add(value)
        else:
            read.update(map(aliases.base, value.inputs))
    return [value for value in values if value in late]


def goes_in_blocks(value: Value) -> bool:
    """Whether one call of a ufunc computes it for a block of steps; x² is not one (np.square is faster)."""
    return value.op.ufunc is not None and value.op is not power.op


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
