"""Faults on a path: its factor, the derivative of an activation, another gradient in its place, parts in another order.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.change import kind, scaled
from minigrad.auditor.over_time import factors
from minigrad.auditor.record import Step
from minigrad.auditor.rules import OF_VALUES, formulas, read, readings
from minigrad.auditor.tape import Tape, groups
from minigrad.auditor.words import d, path, say


@kind
def factor_of_a_path(tape: Tape, given: list) -> Iterator[tuple]:
    """One path of the derivation with a constant factor: missing, twice, of the other sign, or solved for."""
    for edges in tape.bundles:
        e, x = edges[0], say(edges[0].x)
        where = path(e) + " of the step before" * (e in tape.carried)
        unnamed = 0.05 * (not x.isidentifier()) + 0.05 * (not say(e.of).isidentifier())
        yield 1.0 + unnamed, f"{d(x)} lacks the path {where}", scaled(edges, 0)
        yield 1.7 + unnamed, f"the path {where} has its sign turned", scaled(edges, -1)
        yield 1.8 + unnamed, f"the path {where} is counted twice", scaled(edges, 2)
        if e.is_cut:
            yield (1.0, f"{d(x)} goes back through a detach: the forward cuts this path (a truncated sequence)",
                   dict.fromkeys(edges, lambda v, e: v(e.inputs[0])))
        solved = (found for leaf, g in given[0].items() if tape.reached(edges, [leaf])
                  and (found := factors(tape, leaf, g, [edges])) is not None)
        for k in next(solved, [k for k, _ in tape.numbers[:24]] if len(edges) > 1 else []):
            if min(abs(k - n) for n in (0, 1, 2, -1)) > 1e-9:
                name, known = tape.number_name(k)
                yield 2.2 if known else 3.5, f"the path {where} has a factor {name} too much", scaled(edges, k)


# what a path has too much
FACTORS = [(0.3, "a division by {}", lambda w: 1 / w), *(
    (more, f"a factor {text}", f) for more, text, f in formulas((0.0, "{}"), (0.0, "1 − {}"), (0.3, "1 − {}²")))]


@kind
def another_path(tape: Tape, given: list) -> Iterator[tuple]:
    """The gradient of another value in place of a whole path, or a value too much as a factor or a divisor."""
    for edges in tape.bundles:
        e, x = edges[0], say(edges[0].x)
        for cost, text, what, *_ in readings(tape, e.x.total, is_whole=True) if e.x.total else ():
            yield (cost + 0.3, f"{d(x)} takes {text} in place of what comes back from {say(e.of)}",
                   dict.fromkeys(edges, lambda v, e, what=what: what(v, e, e.x.total)))
        for series in tape.arrays:
            if series.first.kind == "forward" and series.is_named and fits(series.shape, e.x.shape):
                value, name = read(tape, series), say(series.first)
                for more, text, f in FACTORS:
                    yield (2.6 + more, f"the path {path(e)} has {text.format(name)} too much", dict.fromkeys(
                        edges, lambda v, e, f=f, value=value: v.own(e) * f(value(v, e, e.x))))


def fits(a: tuple, b: tuple) -> bool:
    """Whether an array of shape a broadcasts to the shape b."""
    return len(a) <= len(b) and all(n in (1, m) for n, m in zip(a[::-1], b[::-1]))


# -- the derivative of a function of one variable ----------------------------------------------------------------


# what a person may take for the slope of an activation whose result is {}
FUNCTIONS = [(0.0, "{} alone", lambda v: v), *OF_VALUES[:4], *formulas(
    (0.2, "1 + {}²"), (0.3, "(1 − {})²"), (0.3, "{} (1 − {})"), (0.4, "{} (1 − {}²)"), (0.4, "{} (1 + {})"),
    (0.4, "{}² (1 − {})"), (0.4, "{} (1 − {})²"))]
SLOPES = {"sigmoid": "{y} (1 − {y})", "tanh": "1 − {y}²", "relu": "{x} > 0", "exp": "{y}", "square": "2 {x}",
          "sqrt": "1 / (2 {y})", "log": "1 / {x}"}
# (cost, what is said, the new gradient from g, y, x, the op, and its slope as a function of y and x)
DERIVATIVES: list[tuple[float, str, Callable]] = [
    (0.8, "lacks the derivative of its {op}, {slope}", lambda g, y, x, op, s: g),
    *((1.4 + more, f"has {text.replace('{}', '{y}')} in place of the derivative {{slope}}",
       lambda g, y, x, op, s, f=f: g * f(y)) for more, text, f in FUNCTIONS),
    (1.6, "has the derivative of its {op} twice, {slope}", lambda g, y, x, op, s: g * s(y, x) ** 2),
    (1.8, "takes the derivative {slope} at {op}({y}): {op} is applied once too often",
     lambda g, y, x, op, s: g * s(op.forward(y), y)),
    (1.8, "takes the derivative {slope} at {x}, the argument, in place of the result",
     lambda g, y, x, op, s: g * s(x, x)),
    (1.9, "applies {op} to the gradient in place of its derivative", lambda g, y, x, op, s: op.forward(g)),
    (2.0, "divides by the derivative {slope}", lambda g, y, x, op, s: g / s(y, x)),
    (2.0, "has the derivative {slope} where the argument is negative", lambda g, y, x, op, s: g * (x < 0))]


@kind
def local_derivative(tape: Tape, given: list) -> Iterator[tuple]:
    """The derivative of an activation: missing, of another function, at another value; at one place or at several."""
    sites = [slot for slot in tape.slots if (op := slot[0].of.op) and op.elementwise and not op.linear
             and not op.variadic and len(op.arrays) == 1]
    alike = [some for some in groups(sites, lambda site: site[0].of.op).values() if len(some) > 1]
    for some in [*([site] for site in sites), *alike, *([sites] if sites not in alike and len(sites) > 1 else [])]:
        e, ops = some[0][0], list(dict.fromkeys(site[0].of.op.name for site in some))
        ys, x = [say(site[0].of) for site in some], say(e.x)
        subject = d(ys[0]) if ys[0].isidentifier() else f"the step {path(e)}"
        if len(some) > 1:
            subject = "each of " + ", ".join(map(d, ys))
        slope = SLOPES.get(ops[0], "{op}′({x})").format(y=ys[0], x=x, op=ops[0])
        strange = 0.05 * len(some) + 0.3 * (not all(map(str.isidentifier, ys)))
        for cost, text, how in DERIVATIVES[:None if len(ops) == 1 else 1]:
            yield (cost + strange, f"{subject} {text.format(op=' or '.join(ops), slope=slope, y=ys[0], x=x)}",
                   dict.fromkeys(itertools.chain(*some), lambda v, e, how=how: how(
                       v(e.of.total), v(e.of), v(e.x), e.of.op, functools.partial(slope_of, e.of))))


def slope_of(of: Step, y: Any, x: Any) -> Any:
    return of.op.vjps[0].plain(np.ones_like(y), y, (x,), of.metadata)


# -- the order of parts ------------------------------------------------------------------------------------------------


@kind
def order_of_parts(tape: Tape, given: list) -> Iterator[tuple]:
    """The parts of a concatenation are taken in another order, or one of them for another too."""
    for edges in groups(tape.edges, lambda e: e.of.place).values():
        parts = [e for e in edges if e.of is edges[0].of]
        whole, names, numbers = edges[0].of, [say(e.x) for e in parts], tuple(range(len(parts)))
        if not whole.op.variadic or whole.metadata.get("axis") is None or not 1 < len(parts) == len(set(names)) < 5:
            continue
        for i, j in itertools.permutations(numbers, 2):
            if parts[i].shape == parts[j].shape:
                yield (1.9, f"the part of {d(whole)} that belongs to {names[j]} is taken for {names[i]} too",
                       {e: part(parts, numbers, j) for e in edges if e.position == i})
        for order in orders(parts):
            yield (2.0, f"the parts of {d(whole)} are taken in the order {', '.join(names[k] for k in order)} in place "
                   f"of {', '.join(names)}",
                   {e: part(parts, order, e.position) for e in edges if e.position in numbers})


def part(parts: list[Step], order: tuple, k: int) -> Callable:
    """Part k of the gradient of a concatenation, as if its parts had this order."""
    axis = parts[0].of.metadata["axis"]
    cuts = np.cumsum([parts[i].shape[axis] for i in order])[:-1]
    return lambda v, e: np.split(v(e.of.total), cuts, axis)[order.index(k)]


@kind
def order_of_blocks(tape: Tape, given: list) -> Iterator[tuple]:
    """The blocks of a fused array have each other's gradients."""
    blocks = [slot for slot in tape.slots if "index" in slot[0].of.metadata]
    for some in groups(blocks, lambda slot: (slot[0].x.place, slot[0].of.op, slot[0].of.shape, len(slot))).values():
        users = [user(tape, slot[0].of) for slot in some]
        for order in orders(some):
            off = [k for k, other in enumerate(order) if other != k]
            yield (1.5 + 0.1 * len(off), f"in {d(some[0][0].x)} the block of " + ", ".join(
                f"{users[k]} has the gradient of {users[order[k]]}" for k in off), {
                e.of.total: lambda v, _, o=o: v.own(o.of.total) for k in off for e, o in zip(some[k], some[order[k]])},
                some[off[0]][0])


def orders(parts: list) -> list[tuple]:
    """All other orders of a few parts."""
    return list(itertools.permutations(range(len(parts))))[1:] if len(parts) < 5 else []


def user(tape: Tape, block: Step) -> str:
    """What a block of a fused array is used for: the first named result on the path from it."""
    while not block.name and len(users := [e.of for e in tape.edges if e.x is block]) == 1:
        block = users[0]
    return say(block)
