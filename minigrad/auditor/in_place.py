"""Faults at one place of the code: a path, the derivative of an activation, a step of a rule, a value that it reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minigrad.auditor.change import kind, put, reading, redone, same_shape, scaled, value_of
from minigrad.auditor.over_time import MOMENTS, factors
from minigrad.auditor.record import Edge
from minigrad.auditor.tape import Series, Tape, Values, d, groups, number_name
from minigrad.engine.op import OPS

# -- one path ------------------------------------------------------------------------------------------------------


@kind
def path(tape: Tape, given: list) -> Iterator[tuple]:
    """One path of the derivation with a constant factor: missing, twice, of the other sign, or solved for."""
    for edges in tape.bundles:
        e = edges[0]
        y, x = tape.say(e.consumer), tape.say(e.x)
        where = f"from {y} to {x}" + (" of the step before" if e in tape.carried else "")
        unnamed = 0.05 * (not x.isidentifier()) + 0.05 * (not y.isidentifier())
        solved = (k[0] for leaf, g in given[0].items() if tape.length([e.contribution for e in edges], leaf)
                  and (k := factors(tape, leaf, g, [edges])) is not None)
        k = next(solved, None)
        others = [k] if k is not None else [n for n, _ in tape.numbers[:24]] if len(edges) > 1 else []
        yield 1.0 + unnamed, f"{d(x)} lacks the path {where}", scaled(edges, 0), e
        yield 1.7 + unnamed, f"the path {where} has its sign turned", scaled(edges, -1), e
        yield 1.8 + unnamed, f"the path {where} is counted twice", scaled(edges, 2), e
        for k in (k for k in others if min(abs(k - n) for n in (0, 1, 2, -1)) > 1e-9):
            name, known = number_name(tape.numbers, k)
            yield 2.2 if known else 3.5, f"the path {where} has a factor {name} too much", scaled(edges, k), e


@kind
def not_cut(tape: Tape, given: list) -> Iterator[tuple]:
    """A path that detach cuts in the forward is gone back along."""
    for edges in (edges for edges in tape.slots if tape.steps[edges[0].contribution].metadata == "cut"):
        yield (1.0, f"{d(tape.say(edges[0].x))} goes back through a detach: the forward cuts this path (a truncated "
               "sequence)", put(edges, lambda v, own, e: v(tape.steps[e.contribution].inputs[0])), edges[0])


# -- the derivative of a function of one variable ----------------------------------------------------------------


# (how unusual, text, what a person may take for a value v, or for the slope of an activation whose result it is)
FUNCTIONS: list[tuple[float, str, Callable]] = [
    (0.0, "{}", lambda v: v), (0.0, "1 − {}", lambda v: 1 - v), (0.3, "1 − {}²", lambda v: 1 - v * v),
    (0.0, "{}²", lambda v: v * v), (0.2, "1 + {}", lambda v: 1 + v), (0.6, "−{}", lambda v: -v),
    (0.6, "tanh({})", np.tanh), (0.6, "sigmoid({})", OPS["sigmoid"].forward),
    (0.2, "1 + {}²", lambda v: 1 + v * v), (0.3, "(1 − {})²", lambda v: (1 - v) ** 2),
    (0.3, "{} (1 − {})", lambda v: v * (1 - v)), (0.4, "{} (1 − {}²)", lambda v: v * (1 - v * v)),
    (0.4, "{} ({} − 1)", lambda v: v * (v - 1)), (0.4, "{} (1 + {})", lambda v: v * (1 + v)),
    (0.4, "{}² (1 − {})", lambda v: v * v * (1 - v)), (0.4, "{} (1 − {})²", lambda v: v * (1 - v) ** 2),
    (0.4, "(1 − {}²)²", lambda v: (1 - v * v) ** 2), (0.5, "√(1 − {}²)", lambda v: np.sqrt(1 - v * v)),
    (0.6, "1 where {} is not 0", lambda v: v != 0)]
OF_VALUES, OF_FACTORS = FUNCTIONS[1:8], FUNCTIONS[:3]
SLOPES = {"sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y}
SLOPE_TEXT = {"sigmoid": "{y} (1 − {y})", "tanh": "1 − {y}²", "relu": "{x} > 0", "exp": "{y}", "square": "2 {x}",
              "sqrt": "1 / (2 {y})", "log": "1 / {x}"}
# (cost, what is said, the new gradient from g, y, x, the op, and its own slope s)
DERIVATIVES: list[tuple[float, str, Callable]] = [
    (0.8, "lacks the derivative of its {op}, {slope}", lambda g, y, x, op, s: g),
    *((1.4 + more, f"has {text.replace('{}', '{y}') + ' alone' * (text == '{}')} in place of the derivative {{slope}}",
       lambda g, y, x, op, s, f=f: g * f(y)) for more, text, f in FUNCTIONS),
    (1.6, "has the derivative of its {op} twice, {slope}", lambda g, y, x, op, s: g * s * s),
    (1.8, "takes the derivative {slope} at {op}({y}): {op} is applied once too often",
     lambda g, y, x, op, s: g * SLOPES[op.name](op.forward(y))),  # KeyError: no such slope
    (1.8, "takes the derivative {slope} at {x}, the argument, in place of the result",
     lambda g, y, x, op, s: g * SLOPES[op.name](x)),
    (1.9, "applies {op} to the gradient in place of its derivative", lambda g, y, x, op, s: op.forward(g)),
    (2.0, "divides by the derivative {slope}", lambda g, y, x, op, s: g / s),
    (2.0, "has the derivative {slope} where the argument is negative", lambda g, y, x, op, s: g * (x < 0))]


@kind
def local_derivative(tape: Tape, given: list) -> Iterator[tuple]:
    """The derivative of an activation: missing, of another function, at another value; at one place or at several."""
    sites, op_of = tape.activations, lambda site: tape.steps[site[0].consumer].op
    alike = [tuple(some) for some in groups(sites, op_of).values() if len(some) > 1] + [tuple(sites)]
    several = [some for n in range(2, min(len(sites), 6) + 1) for some in itertools.combinations(sites, n)]
    for some in [*[(site,) for site in sites], *(several if len(several) <= 64 else alike)]:
        e = some[0][0]
        ops = list(dict.fromkeys(op_of(site).name for site in some))
        ys, x = [tape.say(site[0].consumer) for site in some], tape.say(e.x)
        subject = d(ys[0]) if ys[0].isidentifier() else f"the step from {ys[0]} to {x}"
        if len(some) > 1:
            subject = "each of " + ", ".join(map(d, ys))
        slope = SLOPE_TEXT.get(ops[0], "{op}′({x})").format(y=ys[0], x=x, op=ops[0])
        strange = 0.05 * len(some) + 0.3 * (not all(map(str.isidentifier, ys)))
        for cost, text, how in DERIVATIVES if len(some) == 1 or some in alike else DERIVATIVES[:1]:
            yield (cost + strange, f"{subject} {text.format(op=' or '.join(ops), slope=slope, y=ys[0], x=x)}",
                   put(itertools.chain(*some), sloped(tape, how)), e)


def sloped(tape: Tape, how: Callable) -> Callable:
    def replacement(v: Values, own: Any, e: Edge) -> Any:
        step, y, x = tape.steps[e.consumer], v(e.consumer), v(e.x)
        slope = step.op.vjps[0].plain(np.ones_like(y), y, (x,), step.metadata)
        return how(v(tape.totals[e.consumer]), y, x, step.op, slope)
    return replacement


@kind
def diagonal_alone(tape: Tape, given: list) -> Iterator[tuple]:
    """An op of a vector, whose derivative is a full matrix, is treated as a function of each entry."""
    text = "the step from {} to {} has only the diagonal of the derivative{}: the sum over the other entries is missing"
    for e, sites in tape.rules:
        step, shape = tape.steps[e.consumer], tape.shape(e.consumer)
        if shape and len(step.op.arrays) == 1 and shape == tape.shape(e.x):
            sums = [i for site in sites for i in site if "axis" in (tape.steps[i].metadata or ())
                    and tape.shape(i) != shape]
            yield (1.3, text.format(tape.say(e.consumer), tape.say(e.x), f" of its {step.op.name}"),
                   redone(tape, sums, lambda step, a: a), e)
    for slot in tape.slots:  # the same, written as exp(x) / sum(exp(x))
        e, x = slot[0], tape.steps[slot[0].x]
        raw = tape.shape(tape.steps[e.contribution].inputs[0])
        if tape.shape(e.x) and x.kind == "forward" and len(x.inputs) == 1 and x.op.linear \
                and tape.shape(e.x) != raw == tape.shape(x.inputs[0]):
            summed = {c.x: c.contribution for c in slot}

            def how(v: Values, own: Any, e: Edge, summed: Any = summed) -> Any:
                c = summed[e.consumer]
                return own - v(c) + v(tape.steps[c].inputs[0])
            yield (1.3, f"{text.format(tape.say(e.consumer), tape.say(x.inputs[0]), '')}, in {d(tape.say(e.x))}",
                   put((c for c in tape.edges if c.consumer in summed), how), e)


@kind
def copied_line(tape: Tape, given: list) -> Iterator[tuple]:
    """The gradient before one activation is that before another: a line copied, the name not changed."""
    for a, b in itertools.permutations(tape.activations, 2):
        twins = {tape.steps[e.consumer].time: e.contribution for e in b}
        if same_shape(tape, a[0].x, b[0].x) and twins.keys() == {tape.steps[e.consumer].time for e in a}:
            names = d(tape.say(a[0].consumer)), d(tape.say(b[0].consumer))
            yield (2.1, f"{names[0]} is a copy of {names[1]}: the name is not changed", put(
                a, lambda v, own, e, twins=twins: v.own(twins[tape.steps[e.consumer].time])), a[0])


# -- inside a rule -------------------------------------------------------------------------------------------------


def turned(out: Any, first: bool) -> Any:
    """A transposed matrix with its first or last square block transposed again, as the part of a fused matrix."""
    n, out = min(out.shape), np.array(out)
    part = slice(n) if first else slice(-n, None)
    index = (part, slice(None)) if out.shape[0] > out.shape[1] else (slice(None), part)
    out[index] = out[index].T
    return out


def assigned(step: Any, g: Any) -> Any:
    out = np.zeros(step.metadata["shape"])
    out[step.metadata["index"]] = g
    return out


# {op of a rule: (cost, what is said, the new result from the step and the values of its inputs)}
RULE_STEPS: dict[str, list[tuple[float, str, Callable]]] = {
    "multiply": [(1.5, "the factor {a} is missing", lambda step, a, b: b),
                 (1.5, "the factor {b} is missing", lambda step, a, b: a),
                 (1.9, "{a} / {b} in place of {this}", lambda step, a, b: a / b)],
    "divide": [(1.5, "the division by {b} is missing", lambda step, a, b: a),
               (1.9, "{a} {b} in place of {this}", lambda step, a, b: a * b)],
    "add": [(1.5, "the term {a} is missing", lambda step, a, b: b),
            (1.5, "the term {b} is missing", lambda step, a, b: a),
            (1.9, "{a} − {b} in place of {this}", lambda step, a, b: a - b)],
    "subtract": [(1.5, "the term {a} is missing", lambda step, a, b: -b),
                 (1.5, "the term {b} is missing", lambda step, a, b: a),
                 (1.9, "{a} + {b} in place of {this}", lambda step, a, b: a + b),
                 (1.9, "{b} − {a} in place of {this}: the sign", lambda step, a, b: b - a)],
    "negative": [(1.6, "the sign is turned", lambda step, a: a)],
    "transpose": [(1.2, "{a} is not transposed", lambda step, a: a),
                  (1.6, "the first {n} columns of {a} are not transposed", lambda step, a: turned(a.T, first=True)),
                  (1.6, "the last {n} columns of {a} are not transposed", lambda step, a: turned(a.T, first=False))],
    "sum": [(1.9, "the sum {this} is missing", lambda step, a: a),
            (1.9, "{this} is a mean, not a sum,",
             lambda step, a: step.compute(a) * np.size(step.example) / np.size(a))],
    "scatter": [(1.5, "the gradient is assigned by index, and not added: an entry that is read twice keeps the last "
                 "of its gradients (np.add.at adds them)", assigned)],
}


@kind
def step_of_a_rule(tape: Tape, given: list) -> Iterator[tuple]:
    """One op of a rule: an operand left out, a sign turned, a transpose or a sum left out."""
    for e, site in ((e, site) for e, sites in tape.rules for site in sites):
        step, n = tape.steps[site[0]], min(tape.shape(site[0]), default=0)
        said = [tape.say_read(i, e.consumer) for i in step.inputs]
        is_square = len({tape.shape(i) for i in (site[0], *step.inputs)}) == 1
        for cost, text, how in RULE_STEPS.get(step.op.name, ()):
            shown = [f"({x})" if "term" in text and not x.isidentifier() else x for x in said]
            words = dict(zip("ab", shown), this=tape.say(site[0], 3), n=n)
            if not ("columns" in text and (n < 2 or is_square)):
                yield cost, f"{text.format(**words)} {tape.say_between(e)}", redone(tape, site, how), e


# -- another value of the same shape ---------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What may be read in place of a value: get(the values, the step that is meant, the time).

    meant  the part of a concatenation that is replaced, and not all of it
    """

    cost: float
    text: str
    get: Callable[[Values, int, int], Any]
    is_plain: bool = True  # not a function of a value
    meant: int | None = None


def readings(tape: Tape, own: int, is_whole: bool = False) -> Iterator[Reading]:
    """What may be read in place of the value or gradient `own`; is_whole: without functions and parts of it."""
    step, shape = tape.steps[own], tape.shape(own)
    is_gradient, key = step.kind == "total", tape.key(own)
    moments = [("", 0.0, None), *((f" of {m}", cost, at) for m, cost, at in MOMENTS[:1 if is_gradient else 3])]
    for group in tape.gradients_at if is_gradient else tape.values_at:
        base, is_own = (2.3 if is_gradient else 2.4) + 0.4 * (not group.is_named), group.key == key
        looping, found = len(group.at) > 1, tape.shape(group.first)
        if found != shape and not (is_gradient or is_whole or looping) and group.is_named:
            for text, f in reshapings(found, shape):
                yield Reading(base + 0.3, f"{text} of {group.name}", read(tape, group, None, f), False)
        for moment, cost, at in moments[:None if looping else 1] if found == shape else ():
            if moment or not is_own or (looping and not is_gradient):
                yield Reading(base + cost, group.name + moment, read(tape, group, at))
            if not is_gradient and not is_whole and (cost < 0.3 if is_own else group.is_named and not moment):
                for more, text, f in OF_VALUES:
                    yield Reading(base + cost + more + 0.4, text.format(group.name) + moment, read(tape, group, at, f),
                                  False)
    for k, part in enumerate(step.inputs if step.kind == "forward" and step.op.variadic and not is_whole else ()):
        for new in readings(tape, part, is_whole=True):
            def get(v: Values, x: int, t: int, k: int = k, new: Reading = new) -> Any:
                parts = [new.get(v, i, t) if j == k else v(i) for j, i in enumerate(tape.steps[x].inputs)]
                return tape.steps[x].compute(*parts)
            yield Reading(new.cost + 0.1, new.text, get, False, part)


def read(tape: Tape, group: Series, at: Callable | None, f: Callable | None = None) -> Callable:
    """Read a group at its own time or at another moment, and a function of it. Before the first step it is the initial
    state; where there is none, zeros."""
    def get(v: Values, x: int, t: int) -> Any:
        if len(group.at) == 1:
            i: int | None = group.first
        else:
            t = at(t, len(group.at)) if at else t
            i = tape.starts.get(group.key) if t == -1 else group.at.get(t)
        value = np.zeros(tape.shape(x)) if i is None else v(i)
        return value if f is None or i is None else f(value)
    return get


def reshapings(shape: tuple, wanted: tuple) -> Iterator[tuple[str, Callable]]:
    """Parts and sums of an array of another shape that fit the wanted shape."""
    for axis, n in enumerate(wanted if len(shape) == len(wanted) else ()):
        others = [(a, b) for k, (a, b) in enumerate(zip(shape, wanted)) if k != axis]
        before = (slice(None),) * axis
        if shape[axis] > n and all(a == b for a, b in others):
            yield f"the first {n}", lambda v, index=(*before, slice(n)): v[index]
            yield f"the last {n}", lambda v, index=(*before, slice(-n, None)): v[index]
        if shape[axis] != n and all(a in (1, b) for a, b in others):
            yield f"the sum over axis {axis}", lambda v, axis=axis: v.sum(axis, keepdims=True)


@kind
def another_value(tape: Tape, given: list) -> Iterator[tuple]:
    """Another value or gradient where a rule reads one: another name, or the same at a neighbouring step."""
    for e, sites in tape.rules:
        reads = [(tape.steps[site[0]].inputs[p], (site, p)) for site in sites
                 for p in range(len(tape.steps[site[0]].inputs))]
        for own, entries in groups(((x, spot) for x, spot in reads if tape.steps[x].kind != "rule" and tape.shape(x)),
                                   lambda entry: entry[0]).items():
            spots = [spot for _, spot in entries]
            for new in readings(tape, own):
                whole = "" if new.meant is None else f" in the {tape.say(own)}"
                meant = tape.say_read(own if new.meant is None else new.meant, e.consumer)
                for some in [spots, *([spot] for spot in spots if len(spots) > 1 and new.is_plain)]:
                    yield (new.cost + 0.5 * (some is not spots), f"{new.text} is used where {meant} is meant,{whole} "
                           f"{tape.say_between(e)}", reading(tape, {
                               (i, p): lambda v, i=i, p=p, new=new: new.get(v, tape.steps[i].inputs[p], tape.time(i))
                               for site, p in some for i in site}), e)


@kind
def values_exchanged(tape: Tape, given: list) -> Iterator[tuple]:
    """Two values are read in place of each other in all rules, as where a cache is unpacked in another order."""
    reads = groups(((e, i, p) for e, sites in tape.rules for site in sites for i in site
                    for p in range(len(tape.steps[i].inputs))), lambda r: tape.key(tape.steps[r[1]].inputs[r[2]]))
    for a, b in itertools.combinations((group for group in tape.values_at if group.is_named and group.key in reads), 2):
        if a.at.keys() == b.at.keys() and same_shape(tape, a.first, b.first):
            spots = {(i, p): value_of(other.at[tape.steps[tape.steps[i].inputs[p]].time])
                     for one, other in ((a, b), (b, a)) for _, i, p in reads[one.key]}
            yield (2.5, f"{a.name} and {b.name} are exchanged wherever they are read", reading(tape, spots),
                   reads[a.key][0][0])


@kind
def another_gradient(tape: Tape, given: list) -> Iterator[tuple]:
    """The gradient of another value in place of a whole path, or a value too much as a factor or a divisor."""
    for edges in tape.bundles:
        e, own = edges[0], tape.totals.get(edges[0].x)
        for new in readings(tape, own, is_whole=True) if own is not None else ():
            yield (new.cost + 0.3, f"{new.text} stands for the path {tape.say_path(e)}", put(
                edges, lambda v, own, e, new=new: new.get(v, tape.totals[e.x], tape.steps[e.consumer].time)), e)
        for group in tape.values_at:
            if tape.steps[group.first].kind == "forward" and group.is_named and fits(
                    tape.shape(group.first), tape.shape(e.x)):
                value = read(tape, group, None)
                forms = [(0.3, f"a division by {group.name}", lambda own, w: own / w), *(
                    (more, f"a factor {text.format(group.name)}", lambda own, w, f=f: own * f(w))
                    for more, text, f in OF_FACTORS)]
                for more, text, f in forms:
                    yield (2.6 + more, f"the path {tape.say_path(e)} has {text} too much", put(
                        edges, lambda v, own, e, f=f, value=value: f(own, value(v, e.x, tape.steps[e.consumer].time))),
                        e)


def fits(a: tuple, b: tuple) -> bool:
    """Whether an array of shape a broadcasts to the shape b."""
    return len(a) <= len(b) and all(n in (1, m) for n, m in zip(a[::-1], b[::-1]))


# -- the order of parts ------------------------------------------------------------------------------------------------


@kind
def order_of_parts(tape: Tape, given: list) -> Iterator[tuple]:
    """The parts of a concatenation are taken in another order."""
    for edges in groups(tape.edges, lambda e: tape.steps[e.consumer].place).values():
        parts = [e for e in edges if e.consumer == edges[0].consumer]
        step, names = tape.steps[parts[0].consumer], [tape.say(e.x) for e in parts]
        axis = (step.metadata or {}).get("axis")
        if not step.op or not step.op.variadic or axis is None or not 1 < len(parts) == len(set(names)) < 5:
            continue
        lengths = [tape.shape(e.x)[axis] for e in parts]
        for order in list(itertools.permutations(range(len(parts))))[1:]:
            def how(v: Values, own: Any, e: Edge, order: Any = order, axis: int = axis, lengths: Any = lengths) -> Any:
                cuts = np.cumsum([lengths[k] for k in order])[:-1]
                return np.split(v(tape.totals[e.consumer]), cuts, axis)[order.index(e.position)]
            yield (2.0, f"the parts of {d(tape.say(parts[0].consumer))} are taken in the order "
                   f"{', '.join(names[k] for k in order)} in place of {', '.join(names)}",
                   put((e for e in edges if e.position in order), how), parts[0])


@kind
def order_of_blocks(tape: Tape, given: list) -> Iterator[tuple]:
    """The blocks of a fused array have each other's gradients."""
    def fused(edges: list[Edge]) -> Any:
        step = tape.steps[edges[0].consumer]
        return tape.steps[edges[0].x].place or edges[0].x, step.op, tape.shape(edges[0].consumer), len(edges)
    for some in groups((edges for edges in tape.slots if "index" in (tape.steps[edges[0].consumer].metadata or ())),
                       fused).values():
        users = [tape.say_user(edges[0].consumer) for edges in some]
        for order in list(itertools.permutations(range(len(some))))[1:] if len(some) < 5 else ():
            off = [k for k, other in enumerate(order) if other != k]
            other = {e: o for k in off for e, o in zip(some[k], some[order[k]])}

            def how(v: Values, own: Any, e: Edge, other: dict = other) -> Any:
                step = tape.steps[e.consumer]
                return step.op.vjps[0].plain(v(tape.totals[other[e].consumer]), None, (v(e.x),), step.metadata)
            yield (1.5 + 0.1 * len(off), f"in {d(tape.say(some[0][0].x))} the block of " + ", ".join(
                f"{users[k]} has the gradient of {users[order[k]]}" for k in off), put(other, how), some[0][0])
