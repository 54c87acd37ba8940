"""The table of faults: each kind of change that a person makes to a derivation is one block.

A block is a generator of `(cost, text, {step: what is there in its place}, edge)`. It goes over the edges of the
derivation, the steps of its rules, and the names in the user's code; none knows an LSTM.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minigrad.auditor.record import Edge, fit
from minigrad.auditor.tape import Replacement, Tape, Values, d, groups, is_array
from minigrad.engine.op import OPS


@dataclass(frozen=True, eq=False)
class Change:
    """A fault: steps and what is there in their place.

    cost     how unusual it is: of changes that explain the same, the smallest comes first
    edge     where it is
    leaves   the only leaves that it concerns, and what is carried to other steps of time is right; None: all
    through  {step: zero}: only the paths through these steps are changed; empty: all
    """

    kind: str
    cost: float
    text: str
    replaced: dict[int, Replacement]
    edge: Edge
    leaves: frozenset | None = None
    through: dict[int, Replacement] = field(default_factory=dict)


KINDS: list[Callable[[Tape, dict], Iterator[tuple]]] = []


def kind(function: Callable) -> Callable:
    KINDS.append(function)
    return function


def all_changes(tape: Tape, given: dict[str, Any]) -> Iterator[Change]:
    """Every change of the table. given: the user's gradients at the first draw, for what is solved and not tried."""
    for function in KINDS:
        for cost, text, replaced, edge in function(tape, given):
            if replaced:
                yield Change(function.__name__.replace("_", " "), cost, text, replaced, edge)


def each(edges: Iterable[Edge], how: Callable[[Any], Any]) -> dict[int, Replacement]:
    """Replace the contribution of each edge by how(its value)."""
    def one(c: int) -> Replacement:
        def replacement(value: Values) -> Any:
            own = value.without_change(c)
            return tuple(map(how, own)) if isinstance(own, tuple) else how(own)
        return replacement
    return {e.contribution: one(e.contribution) for e in edges}


def zero(edges: Iterable[Edge]) -> dict[int, Replacement]:
    return each(edges, lambda g: 0 * g)


def value_of(i: int) -> Replacement:
    return lambda value: value(i)


def moved(pairs: Iterable[tuple[Edge, Edge | None]]) -> dict[int, Replacement]:
    """Replace the contribution of each edge by that of another; None: by zero."""
    return {e.contribution: (lambda value, c=e.contribution, other=other: 0 * value.base(c) if other is None
                             else value.without_change(other.contribution)) for e, other in pairs}


# -- time --------------------------------------------------------------------------------------------------------


@kind
def not_carried(tape: Tape, given: dict) -> Iterator[tuple]:
    """All edges that carry one state, or several, to the step before."""
    states = groups(tape.carried, lambda e: tape.steps[e.x].place)
    for n in range(1, min(len(states), 3) + 1):
        for some in itertools.combinations(states.values(), n):
            edges = [e for part in some for e in part]
            names = " and ".join(dict.fromkeys(d(tape.say(part[0].x)) for part in some))
            text = f"{names} {'is' if n == 1 else 'are'} not carried to the step before"
            yield 0.5 + 0.1 * n, text, zero(edges), edges[0]
            yield (0.7 + 0.1 * n, f"{text}, nor to the initial state",
                   zero(e for slot in tape.slots if set(slot) & set(edges) for e in slot), edges[0])


@kind
def carried_wrongly(tape: Tape, given: dict) -> Iterator[tuple]:
    """What is carried to the step before is kept and added to, starts wrong, or goes to another state."""
    states = groups(tape.carried, lambda e: tape.steps[e.x].place)
    names = {place: d(tape.say(edges[0].x)) for place, edges in states.items()}
    for place, edges in states.items():
        replaced: dict[int, Replacement] = {}
        for slot in (slot for slot in tape.slots if set(slot) & set(edges)):
            at = {tape.steps[e.consumer].time: e.contribution for e in slot}
            for t, c in at.items() if len(at) == len(slot) else ():
                if t + 1 in at:
                    replaced[c] = lambda value, c=c, later=at[t + 1]: value.without_change(c) + value(later)
        yield (1.2, f"the carried {names[place]} is added up: the sum of all later steps arrives, and not that of the "
               "step after alone", replaced, edges[0])
        last = tape.totals.get(tape.calls[place][-1])
        if last is not None:
            yield (1.4, f"the carried {names[place]} starts at ones, and not at zeros",
                   {last: lambda value, i=last: value.without_change(i) + 1}, edges[0])
            for seed in (i for i in tape.seeds if len(tape.calls[tape.steps[tape.steps[i].of].place]) == 1):
                arrived = [e for e in tape.edges if e.x == tape.calls[place][-1] and e not in tape.carried]
                if tape.after[seed] >> last & 1 and arrived:
                    yield (1.6, f"the carried {names[place]} starts at what arrives at the last step, which is counted "
                           "twice", {last: lambda value, i=last, arrived=arrived: value.without_change(i) + sum(
                               value(e.contribution) for e in arrived)}, edges[0])
                    break
    for a, b in itertools.combinations(states, 2):
        if np.shape(tape.steps[states[a][0].x].example) == np.shape(tape.steps[states[b][0].x].example):
            replaced = {**handed_over(tape, states[a], states[b]), **handed_over(tape, states[b], states[a])}
            text = f"the carried {names[a]} and {names[b]} are exchanged"
            yield 1.5, text, replaced, states[a][0]
            starts = {**to_the_start(tape, states[a], states[b]), **to_the_start(tape, states[b], states[a])}
            yield 1.6, f"{text}, those of the initial states too", {**replaced, **starts}, states[a][0]


def handed_over(tape: Tape, to: list[Edge], source: list[Edge]) -> dict[int, Replacement]:
    """Carry to one state what is carried to another; the first of its edges at a step has the whole."""
    parts = {t: [e.contribution for e in some] for t, some in groups(source, lambda e: tape.steps[e.x].time).items()}
    replaced: dict[int, Replacement] = {}
    for t, edges in groups(to, lambda e: tape.steps[e.x].time).items():
        first, *rest = [e.contribution for e in edges]
        replaced[first] = lambda value, t=t, c=first: sum(
            (value.without_change(i) for i in parts.get(t, ())), 0 * value.base(c))
        replaced |= {c: (lambda value, c=c: 0 * value.base(c)) for c in rest}
    return replaced


def to_the_start(tape: Tape, to: list[Edge], source: list[Edge]) -> dict[int, Replacement]:
    """Carry to the initial state of one what the first step carries to that of another, be it a constant."""
    place = tape.steps[to[0].x].place
    edges = [e.contribution for slot in tape.slots if set(slot) & set(to) for e in slot if e.x == tape.starts[place]]
    rules = [rule_at(tape, tape.calls[where][0], position)
             for where, position in groups(source, lambda e: (tape.steps[e.consumer].place, e.position))]
    return {c: (lambda value, c=c: sum((rule(value) for rule in rules), 0 * value.base(c)) if c == edges[0]
                else 0 * value.base(c)) for c in edges}


@kind
def values_of_another_step(tape: Tape, given: dict) -> Iterator[tuple]:
    """The whole rule of each step reads the values of another step: its cache is that of another time."""
    loops = {c for calls in tape.calls.values() if len(calls) == tape.times for c in calls}
    n, sites = tape.times, [i for _, some in tape.rules for site in some for i in site if tape.steps[i].of in loops]
    for text, read in (("the step before", lambda t: (t - 1) % n), ("the last step", lambda t: n - 1),
                       ("the first step", lambda t: 0), ("the other end", lambda t: n - 1 - t)) if n > 1 else ():
        replaced: dict[int, Replacement] = {}
        for i in sites:
            consumer = tape.steps[i].of
            other = tape.calls[tape.steps[consumer].place][read(tape.steps[consumer].time)]
            meant = {consumer: other, **dict(zip(tape.steps[consumer].inputs, tape.steps[other].inputs))}
            moves = {p: meant[x] for p, x in enumerate(tape.steps[i].inputs) if meant.get(x, x) != x}
            if moves:
                replaced[i] = exchanged(tape, i, moves)
        if replaced:
            yield (1.5, f"each step reads the cache of {text}, and not its own", replaced,
                   next(e for e in tape.edges if e.consumer in loops))


@kind
def loop_in_forward_order(tape: Tape, given: dict) -> Iterator[tuple]:
    """The loop runs from the first step to the last: what one step carries arrives at the next."""
    replaced: dict = {}
    for slot in (slot for slot in tape.slots if tape.carried.keys() & slot):
        consumers, n = tape.calls[tape.steps[slot[0].consumer].place], tape.times
        carry = [rule_at(tape, i, slot[0].position) for i in consumers]
        for e in slot if len(carry) == n > 2 else ():
            t = tape.steps[e.consumer].time
            replaced |= {e.contribution: carry[t - 2 if t else -1]} if t != 1 else moved([(e, None)])
        last = tape.totals.get(tape.calls[tape.steps[slot[0].x].place][-1])
        if replaced and last is not None:
            before = replaced.get(last, lambda value, last=last: value.without_change(last))
            replaced[last] = lambda value, before=before, carry=carry[n - 2]: before(value) + carry(value)
    if replaced:
        yield (1.0, "the backward loop runs in the forward's order, from the first step to the last: it must start at "
               "the last step", replaced, next(iter(tape.carried)))


def rule_at(tape: Tape, consumer: int, position: int) -> Replacement:
    """What the rule of a consumer gives for one of its inputs."""
    step, total = tape.steps[consumer], tape.totals[consumer]
    shape = np.shape(tape.steps[step.inputs[position]].example)
    rules = {vjp.position: vjp.plain for vjp in step.op.vjps}

    def rule(value: Callable) -> Any:
        inputs = [value(x) for x in step.inputs]
        if step.op.variadic:
            return rules[0](value(total), value(consumer), inputs, step.metadata)[position]
        return fit(rules[position](value(total), value(consumer), inputs, step.metadata), shape)
    return rule


@kind
def steps_left_out(tape: Tape, given: dict) -> Iterator[tuple]:
    """The loop over time covers only some of the steps."""
    in_loop = [e for e in tape.edges if len(tape.calls[tape.steps[e.consumer].place]) == tape.times]
    for k in range(1, tape.times if in_loop else 1):
        text = f"the loop over time leaves out %s of the {tape.times} steps"
        late = zero(e for e in in_loop if tape.steps[e.consumer].time >= k)
        early = zero(e for e in in_loop if tape.steps[e.consumer].time < k)
        yield 2.0, text % f"the last {tape.times - k}", late, in_loop[0]
        yield 2.0, text % f"the first {k}", early, in_loop[0]
        last: dict = {}  # what is carried to the last step of the loop is returned for the initial state
        for place, start in tape.starts.items():
            carried = [e.contribution for e in tape.carried if e.x == tape.calls[place][k - 1]]
            if start in tape.totals and carried:
                last[tape.totals[start]] = lambda value, carried=carried: sum(map(value, carried))
        if last:
            yield 2.1, text % f"the first {k}", early | last, in_loop[0]


@kind
def not_added_up(tape: Tape, given: dict) -> Iterator[tuple]:
    """A gradient that is added up over time, with other weights: 0 or 1 for `=` in place of `+=`."""
    for leaf, number in tape.leaves.items():
        at = groups((e for e in tape.edges if e.x == number), lambda e: tape.steps[e.consumer].time)
        if len(at) < 2 or given.get(leaf) is None or given[leaf].shape != tape.true(leaf).shape:
            continue
        first, last = min(at), max(at)
        edge = at[first][0]
        for time, which in ((first, ""), (last, " (the last step's is what stays)")):
            yield (0.6, f"d{leaf} is overwritten at each step, not added up{which}",
                   zero(e for t in at if t != time for e in at[t]), edge)
        columns = np.stack([sum(tape.draws[0][0][e.contribution] for e in at[t]).ravel() for t in sorted(at)], 1)
        weights, *_ = np.linalg.lstsq(columns, given[leaf].ravel(), rcond=None)
        weights = np.round(weights * 4) / 4 + 0.0  # no −0
        if np.abs(columns @ weights - given[leaf].ravel()).max() < 1e-7 * np.abs(columns).max() and weights.any():
            replaced: dict[int, Replacement] = {}
            for w, t in zip(weights, sorted(at)):
                replaced |= each(at[t], lambda g, w=w: w * g)
            yield (1.6, f"d{leaf} is not the sum over the steps: step by step it has the factors "
                   f"{', '.join(f'{w:g}' for w in weights)}", replaced, edge)


@kind
def arriving(tape: Tape, given: dict) -> Iterator[tuple]:
    """The gradient that arrives at an output: not used, taken as 1, or read at other steps of time."""
    for seed in tape.seeds:
        y = tape.steps[seed].of
        for text, k in (("not used", 0), ("taken as 1", 1)):
            yield (1.3, f"{tape.say_arriving(y)} is {text}",
                   {seed: lambda value, s=seed, k=k: 0 * value.base(s) + k}, Edge(seed, y, 0, y))
    for a, b in itertools.combinations(tape.seeds, 2):
        if np.shape(tape.steps[a].example) == np.shape(tape.steps[b].example):
            y, z = tape.steps[a].of, tape.steps[b].of
            yield (1.5, f"{tape.say_arriving(y)} and {d(tape.say(z))} are exchanged",
                   {a: lambda value, b=b: value.base(b), b: lambda value, a=a: value.base(a)}, Edge(a, y, 0, y))
    for slot in tape.slots:
        at = {tape.steps[e.x].time: e for e in slot}
        if len(at) < 2 or len({e.consumer for e in slot}) > 1 or len(at) != len(slot):
            continue
        n, said = len(at), f"{tape.say_arriving(slot[0].consumer)} is "
        for text, read in (("used at the last step only", lambda t, n: t if t == n - 1 else -1),
                           ("used at the first step only", lambda t, n: -1 if t else t),
                           ("that of the last step at every step", lambda t, n: n - 1),
                           ("that of the first step at every step", lambda t, n: 0),
                           ("read one step too late", lambda t, n: t + 1),
                           ("read one step too early", lambda t, n: t - 1),
                           ("read in the other order of time", lambda t, n: n - 1 - t)):
            yield 1.4, said + text, moved((e, at.get(read(t, n))) for t, e in at.items()), slot[0]


# -- one path ------------------------------------------------------------------------------------------------------


@kind
def path(tape: Tape, given: dict) -> Iterator[tuple]:
    """One path of the derivation with a constant factor: missing, twice, of the other sign, or solved for."""
    for edges in tape.bundles:
        e = edges[0]
        y, x = tape.say(e.consumer), tape.say(e.x)
        where = f"from {y} to {x}" + (" of the step before" if e in tape.carried else "")
        unnamed = 0.05 * (not x.isidentifier()) + 0.05 * (not y.isidentifier())
        yield 1.0 + unnamed, f"{d(x)} lacks the path {where}", zero(edges), e
        yield 1.7 + unnamed, f"the path {where} has its sign turned", each(edges, lambda g: -g), e
        yield 1.8 + unnamed, f"the path {where} is counted twice", each(edges, lambda g: 2 * g), e
        factors = set(solved_factors(tape, given, edges))
        if len(edges) > 1 and not factors:
            factors = {k for k, _ in tape.numbers[:24]}
        for k in factors - {0.0, 1.0, 2.0, -1.0}:
            name, known = number_name(tape.numbers, k)
            yield (2.2 if known else 3.5, f"the path {where} has a factor {name} too much",
                   each(edges, lambda g, k=k: k * g), e)


def solved_factors(tape: Tape, given: dict, edges: list[Edge]) -> Iterator[float]:
    """The factor on some edges that gives the user's gradient of a leaf."""
    for leaf, g in given.items():
        true = tape.true(leaf)
        if true.shape != g.shape or np.allclose(g, true, rtol=1e-9) or not any(
                tape.reaches(e.contribution, leaf) for e in edges):
            continue
        rest = tape.gradients((leaf,), zero(edges))[0]
        part = true - rest
        k = float(np.vdot(part, g - rest) / (np.vdot(part, part) or 1))
        if abs(k) > 1e-9 and abs(k - 1) > 1e-9 and np.abs(rest + k * part - g).max() < 1e-7 * np.abs(g).max():
            yield min((n for n in (2.0, -1.0) if abs(k - n) < 1e-9), default=k)
            return


def number_name(numbers: list[tuple[float, str]], k: float) -> tuple[str, bool]:
    """A number as a person would write it, and whether the sizes give it."""
    found = next((name for n, name in numbers if abs(n - k) < 1e-7 * abs(k)), None)
    return found or f"{k:.6g}", found is not None


@kind
def not_cut(tape: Tape, given: dict) -> Iterator[tuple]:
    """A path that detach cuts in the forward is gone back along."""
    for edges in tape.slots:
        if tape.steps[edges[0].contribution].metadata == "cut":
            yield (1.0, f"{d(tape.say(edges[0].x))} goes back through a detach: the forward cuts this path (a "
                   "truncated sequence)", {e.contribution: value_of(tape.steps[e.contribution].inputs[0])
                                           for e in edges}, edges[0])


# -- the derivative of a function of one variable ----------------------------------------------------------------


SLOPES = {"sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y}
SLOPE_TEXT = {"sigmoid": "{y} (1 − {y})", "tanh": "1 − {y}²", "relu": "{x} > 0", "exp": "{y}", "square": "2 {x}",
              "sqrt": "1 / (2 {y})", "log": "1 / {x}"}
# (cost, what is said, the new gradient from g, y, x, the op, and its own slope s)
DERIVATIVES: list[tuple[float, str, Callable]] = [
    (0.8, "lacks the derivative of its {op}, {slope}", lambda g, y, x, op, s: g),
    (1.4, "has {y} alone in place of the derivative {slope}", lambda g, y, x, op, s: g * y),
    (1.4, "has 1 − {y} in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 - y)),
    (1.6, "has 1 + {y} in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 + y)),
    (1.6, "has 1 + {y}² in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 + y * y)),
    (1.4, "has {y}² in place of the derivative {slope}", lambda g, y, x, op, s: g * y * y),
    (1.7, "has (1 − {y})² in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 - y) ** 2),
    (1.7, "has 1 − {y}² in place of the derivative {slope}: it is that of tanh",
     lambda g, y, x, op, s: g * (1 - y * y)),
    (1.7, "has {y} (1 − {y}) in place of the derivative {slope}: it is that of a sigmoid",
     lambda g, y, x, op, s: g * y * (1 - y)),
    (1.8, "has {y} (1 − {y}²) in place of the derivative {slope}", lambda g, y, x, op, s: g * y * (1 - y * y)),
    (1.8, "has {y} ({y} − 1) in place of the derivative {slope}: the sign", lambda g, y, x, op, s: g * y * (y - 1)),
    (1.8, "has {y} (1 + {y}) in place of the derivative {slope}", lambda g, y, x, op, s: g * y * (1 + y)),
    (1.8, "has {y}² (1 − {y}) in place of the derivative {slope}", lambda g, y, x, op, s: g * y * y * (1 - y)),
    (1.8, "has {y} (1 − {y})² in place of the derivative {slope}", lambda g, y, x, op, s: g * y * (1 - y) ** 2),
    (1.8, "has (1 − {y}²)² in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 - y * y) ** 2),
    (1.9, "has √(1 − {y}²) in place of the derivative {slope}", lambda g, y, x, op, s: g * np.sqrt(1 - y * y)),
    (1.6, "has the derivative of its {op} twice, {slope}", lambda g, y, x, op, s: g * s * s),
    (1.8, "takes the derivative {slope} at {op}({y}): {op} is applied once too often",
     lambda g, y, x, op, s: g * SLOPES[op.name](op.forward(y))),  # KeyError: no such slope
    (1.8, "takes the derivative {slope} at {x}, the argument, in place of the result",
     lambda g, y, x, op, s: g * SLOPES[op.name](x)),
    (1.9, "applies {op} to the gradient in place of its derivative", lambda g, y, x, op, s: op.forward(g)),
    (2.0, "has {op}({y}) in place of the derivative {slope}", lambda g, y, x, op, s: g * op.forward(y)),
    (2.0, "divides by the derivative {slope}", lambda g, y, x, op, s: g / s),
    (2.0, "has the derivative {slope} where the argument is negative", lambda g, y, x, op, s: g * (x < 0)),
    (2.0, "has 1 where its result is not 0, in place of the derivative {slope}", lambda g, y, x, op, s: g * (y != 0)),
]


@kind
def local_derivative(tape: Tape, given: dict) -> Iterator[tuple]:
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
        for cost, text, how in DERIVATIVES if len(some) == 1 or some in alike else DERIVATIVES[:1]:
            strange = 0.3 * (not all(map(str.isidentifier, ys)))
            slope = SLOPE_TEXT.get(ops[0], "{op}′({x})").format(y=ys[0], x=x, op=ops[0])
            words = dict(op=" or ".join(ops), slope=slope, y=ys[0], x=x)
            yield (cost + 0.05 * len(some) + strange, f"{subject} {text.format(**words)}",
                   {e.contribution: sloped(tape, e, how) for site in some for e in site}, e)


def sloped(tape: Tape, e: Edge, how: Callable) -> Replacement:
    step = tape.steps[e.consumer]

    def replacement(value: Callable) -> Any:
        y, x = value(e.consumer), value(e.x)
        slope = step.op.vjps[0].plain(np.ones_like(y), y, (x,), step.metadata)
        return how(value(tape.totals[e.consumer]), y, x, step.op, slope)
    return replacement


@kind
def diagonal_alone(tape: Tape, given: dict) -> Iterator[tuple]:
    """An op of a vector, whose derivative is a full matrix, is treated as a function of each entry."""
    for e, sites in tape.rules:
        step = tape.steps[e.consumer]
        if not is_array(step) or len(step.op.arrays) > 1 or step.example.shape != np.shape(tape.steps[e.x].example):
            continue
        sums = [i for site in sites for i in site if "axis" in (tape.steps[i].metadata or ())
                and tape.steps[i].example.shape != step.example.shape]
        yield (1.3, f"the step from {tape.say(e.consumer)} to {tape.say(e.x)} has only the diagonal of the derivative "
               f"of its {step.op.name}: the sum over the other entries is missing",
               {i: rerun(tape, i, lambda op, a: a) for i in sums}, e)
    for slot in tape.slots:  # the same, written as exp(x) / sum(exp(x))
        e, x = slot[0], tape.steps[slot[0].x]
        raw = np.shape(tape.steps[tape.steps[e.contribution].inputs[0]].example) if is_array(x) else ()
        if x.kind != "forward" or raw == x.example.shape or len(x.inputs) != 1 or not x.op.linear or np.shape(
                tape.steps[x.inputs[0]].example) != raw:
            continue
        summed = {c.x: c for c in slot}
        replaced = {c.contribution: unsummed(tape, c.contribution, summed[c.consumer].contribution)
                    for c in tape.edges if c.consumer in summed}
        yield (1.3, f"the step from {tape.say(e.consumer)} to {tape.say(x.inputs[0])} has only the diagonal of the "
               f"derivative: the sum over the other entries is missing, in {d(tape.say(e.x))}", replaced, e)


def unsummed(tape: Tape, i: int, summed: int) -> Replacement:
    (raw,) = tape.steps[summed].inputs
    return lambda value: value.without_change(i) - value(summed) + value(raw)


@kind
def copied_line(tape: Tape, given: dict) -> Iterator[tuple]:
    """The gradient before one activation is that before another: a line copied, the name not changed."""
    for a, b in itertools.permutations(tape.activations, 2):
        twins = {tape.steps[e.consumer].time: e for e in b}
        if np.shape(tape.steps[a[0].x].example) == np.shape(tape.steps[b[0].x].example) and len(a) == len(b):
            names = d(tape.say(a[0].consumer)), d(tape.say(b[0].consumer))
            yield (2.1, f"{names[0]} is a copy of {names[1]}: the name is not changed", moved(
                (e, twins.get(tape.steps[e.consumer].time)) for e in a), a[0])


# -- inside a rule -------------------------------------------------------------------------------------------------


# {op of a rule: (cost, what is said, the new result from the op itself and the values of its inputs)}
RULE_STEPS: dict[str, list[tuple[float, str, Callable]]] = {
    "multiply": [(1.5, "the factor {a} is missing", lambda op, a, b: b),
                 (1.5, "the factor {b} is missing", lambda op, a, b: a),
                 (1.9, "{a} / {b} in place of {this}", lambda op, a, b: a / b)],
    "divide": [(1.5, "the division by {b} is missing", lambda op, a, b: a),
               (1.9, "{a} {b} in place of {this}", lambda op, a, b: a * b)],
    "add": [(1.5, "the term {a} is missing", lambda op, a, b: b),
            (1.5, "the term {b} is missing", lambda op, a, b: a),
            (1.9, "{a} − {b} in place of {this}", lambda op, a, b: a - b)],
    "subtract": [(1.5, "the term {a} is missing", lambda op, a, b: -b),
                 (1.5, "the term {b} is missing", lambda op, a, b: a),
                 (1.9, "{a} + {b} in place of {this}", lambda op, a, b: a + b),
                 (1.9, "{b} − {a} in place of {this}: the sign", lambda op, a, b: b - a)],
    "negative": [(1.6, "the sign is turned", lambda op, a: a)],
    "transpose": [(1.2, "{a} is not transposed", lambda op, a: a),
                  (1.6, "the first {n} columns of {a} are not transposed", lambda op, a: turned(op(a), first=True)),
                  (1.6, "the last {n} columns of {a} are not transposed", lambda op, a: turned(op(a), first=False))],
    "sum": [(1.9, "the sum {this} is missing", lambda op, a: a),
            (1.9, "{this} is a mean, not a sum,", lambda op, a: op(a) * (np.size(op(a)) / np.size(a)))],
    "scatter": [(1.5, "the gradient is assigned by index, and not added: an entry that is read twice keeps the last "
                 "of its gradients (np.add.at adds them)", lambda op, a: assigned(a, **op.keywords))],
}


@kind
def step_of_a_rule(tape: Tape, given: dict) -> Iterator[tuple]:
    """One op of a rule: an operand left out, a sign turned, a transpose or a sum left out."""
    for e, sites in tape.rules:
        for site in sites:
            step = tape.steps[site[0]]
            if any(isinstance(tape.steps[i].example, tuple) for i in (site[0], *step.inputs)):
                continue
            said = [tape.say_read(i, e.consumer) for i in step.inputs]
            shapes = {np.shape(tape.steps[i].example) for i in (site[0], *step.inputs)}
            for cost, text, how in RULE_STEPS.get(step.op.name, ()):
                n = min(np.shape(step.example), default=0)
                if "columns" in text and (n < 2 or len(shapes) == 1):
                    continue
                shown = [f"({x})" if "term" in text and not x.isidentifier() else x for x in said]
                words = dict(zip("ab", shown), this=tape.say(site[0], 3), n=f"{n}")
                yield (cost, f"{text.format(**words)} {tape.say_between(e)}",
                       {i: rerun(tape, i, how) for i in site}, e)


def rerun(tape: Tape, i: int, how: Callable) -> Replacement:
    step = tape.steps[i]
    op = Bound(step.op.forward, step.metadata)
    return lambda value: how(op, *[value(x) for x in step.inputs])


class Bound(NamedTuple):
    """An op's forward with its metadata."""

    forward: Callable
    keywords: dict

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs, **self.keywords)


def turned(out: Any, first: bool) -> Any:
    """A transposed matrix with its first or last square block transposed again, as the part of a fused matrix."""
    n = min(out.shape)
    part, out = slice(n) if first else slice(-n, None), np.array(out)
    index = (part, slice(None)) if out.shape[0] > out.shape[1] else (slice(None), part)
    out[index] = out[index].T
    return out


def assigned(g: Any, shape: tuple, index: Any) -> Any:
    out = np.zeros(shape)
    out[index] = g
    return out


# -- another value of the same shape ---------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What may be read in place of a value: at(time) is the step, None for zeros; f: of its value, or None."""

    cost: float
    text: str
    at: Callable[[int], int | None]
    f: Callable | None = None


FUNCTIONS = [(0.4, "tanh({})", np.tanh), (0.4, "sigmoid({})", OPS["sigmoid"].forward), (0.5, "1 − {}", lambda v: 1 - v),
             (0.5, "1 + {}", lambda v: 1 + v), (0.5, "{}²", lambda v: v * v), (0.6, "1 − {}²", lambda v: 1 - v * v),
             (0.5, "−{}", lambda v: -v)]
# (words, cost, the time that is read at a time t of n)
OFFSETS = [("", 0.0, lambda t, n: t), (" of the step after", 0.2, lambda t, n: t + 1),
           (" of the step before", 0.2, lambda t, n: t - 1), (" of the last step", 0.3, lambda t, n: n - 1)]


def readings(tape: Tape, own: int, is_plain: bool = False) -> Iterator[Reading]:
    """What may be read in place of the value or gradient `own`; is_plain: without functions of it."""
    is_gradient, shape = tape.steps[own].kind == "total", np.shape(tape.steps[own].example)
    for key, name, is_named, at in tape.gradient_groups if is_gradient else tape.value_groups:
        (first, some), looping = min(at.items()), len(at) > 1
        base = (2.3 if is_gradient else 2.4) + (0 if is_named else 0.4)
        found = np.shape(tape.steps[some].example)
        if found != shape and not (is_gradient or is_plain or looping) and is_named:
            for text, f in reshapings(found, shape):
                yield Reading(base + 0.3, f"{text} of {name}", lambda t, i=some: i, f)
        offsets = OFFSETS[:2 if is_gradient else None] if looping else OFFSETS[:1]  # later gradients are known
        for shift, cost, offset in offsets if found == shape else ():
            def step_at(t: int, key: Any = key, at: Any = at, first: int = first, offset: Any = offset) -> int | None:
                t = offset(t, len(at)) if len(at) > 1 else first
                return tape.starts.get(key) if t == -1 else at.get(t)
            if looping or key != tape.key(own):
                yield Reading(base + cost, name + shift, step_at)
            is_own = key == tape.key(own)
            if not is_gradient and not is_plain and ((is_own and cost < 0.3) or (is_named and not shift)):
                for more, text, f in FUNCTIONS:
                    yield Reading(base + cost + more, text.format(name) + shift, step_at, f)


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
def another_value(tape: Tape, given: dict) -> Iterator[tuple]:
    """Another value or gradient where a rule reads one: another name, or the same at a neighbouring step."""
    for e, sites in tape.rules:
        reads = [(tape.steps[site[0]].inputs[p], (j, p)) for j, site in enumerate(sites)
                 for p in range(len(tape.steps[site[0]].inputs))]
        reads = [(x, spot) for x, spot in reads if tape.steps[x].kind != "rule" and is_array(tape.steps[x])]
        for own, entries in groups(reads, lambda entry: entry[0]).items():
            spots = [spot for _, spot in entries]
            meant = f"is used where {tape.say_read(own, e.consumer)} is meant, {tape.say_between(e)}"
            for new in readings(tape, own):
                for some in [spots, *([spot] for spot in spots if len(spots) > 1 and not new.f)]:
                    replaced = {i: reread(tape, i, {p for k, p in some if k == j}, new)
                                for j in {j for j, _ in some} for i in sites[j]}
                    if new.f or any(new.at(tape.time(i)) != tape.steps[i].inputs[p] for j, p in some for i in sites[j]):
                        yield new.cost + 0.5 * (some is not spots), f"{new.text} {meant}", replaced, e


def reread(tape: Tape, i: int, positions: set[int], new: Reading) -> Replacement:
    step, other = tape.steps[i], new.at(tape.time(i))

    def replacement(value: Callable) -> Any:
        inputs = [value(x) for x in step.inputs]
        for p in positions:
            inputs[p] = np.zeros_like(inputs[p]) if other is None else value(other) if new.f is None else new.f(
                value(other))
        return step.op.forward(*inputs, **step.metadata)
    return replacement


@kind
def values_exchanged(tape: Tape, given: dict) -> Iterator[tuple]:
    """Two values are read in place of each other in all rules, as where a cache is unpacked in another order."""
    reads: dict[Any, list[tuple[int, int]]] = defaultdict(list)  # {key: (a rule's step, the position of its input)}
    edge_of: dict[Any, Edge] = {}
    for e, sites in tape.rules:
        for i in (i for site in sites for i in site):
            for p, x in enumerate(tape.steps[i].inputs):
                reads[tape.key(x)].append((i, p))
                edge_of.setdefault(tape.key(x), e)
    named = [group for group in tape.value_groups if group.is_named and group.key in reads]
    for a, b in itertools.combinations(named, 2):
        if len(a.at) == len(b.at) and np.shape(tape.steps[min(a.at.values())].example) == np.shape(
                tape.steps[min(b.at.values())].example):
            moves: dict[int, dict[int, int]] = defaultdict(dict)
            for one, other in ((a, b), (b, a)):
                time_of = {x: t for t, x in one.at.items()}
                for i, p in reads[one.key]:
                    moves[i][p] = other.at[time_of[tape.steps[i].inputs[p]]]
            yield (2.5, f"{a.name} and {b.name} are exchanged wherever they are read",
                   {i: exchanged(tape, i, some) for i, some in moves.items()}, edge_of[a.key])


def exchanged(tape: Tape, i: int, moves: dict[int, int]) -> Replacement:
    """A rule's step that reads other steps at some positions: {position: step}."""
    step = tape.steps[i]
    inputs = [moves.get(p, x) for p, x in enumerate(step.inputs)]
    return lambda value: step.op.forward(*map(value, inputs), **step.metadata)


@kind
def another_part(tape: Tape, given: dict) -> Iterator[tuple]:
    """A rule reads a concatenation of which one part is another value."""
    for e, sites in tape.rules:
        for site, p in [(some, p) for some in sites for p in range(len(tape.steps[some[0]].inputs))]:
            joined = [tape.steps[tape.steps[i].inputs[p]] for i in site]
            whole, is_joined = tape.steps[site[0]].inputs[p], all(j.kind == "forward" and j.op.variadic for j in joined)
            for k, part in enumerate(joined[0].inputs if is_joined else ()):
                for new in readings(tape, part, is_plain=True):
                    yield (new.cost + 0.1, f"{new.text} is used where {tape.say_read(part, e.consumer)} is meant, in "
                           f"the {tape.say(whole)} {tape.say_between(e)}",
                           {i: rejoined(tape, i, p, k, new.at(tape.time(i))) for i in site}, e)


def rejoined(tape: Tape, i: int, p: int, k: int, other: int | None) -> Replacement:
    step, whole = tape.steps[i], tape.steps[tape.steps[i].inputs[p]]

    def replacement(value: Callable) -> Any:
        inputs, parts = [value(x) for x in step.inputs], [value(x) for x in whole.inputs]
        parts[k] = np.zeros_like(parts[k]) if other is None else value(other)
        inputs[p] = whole.op.forward(*parts, **whole.metadata)
        return step.op.forward(*inputs, **step.metadata)
    return replacement


@kind
def another_gradient(tape: Tape, given: dict) -> Iterator[tuple]:
    """The gradient of another value in place of a whole path."""
    for edges in tape.bundles:
        e = edges[0]
        if e.x not in tape.totals or isinstance(tape.steps[e.x].example, tuple):
            continue
        for new in readings(tape, tape.totals[e.x], is_plain=True):
            chosen = {e.contribution: new.at(tape.steps[e.consumer].time) for e in edges}
            if None not in chosen.values() and not set(chosen.values()) & {tape.totals.get(e.x) for e in edges}:
                yield (new.cost + 0.3, f"{new.text} stands for the path {tape.say_path(e)}",
                       {c: value_of(i) for c, i in chosen.items() if i is not None}, e)


@kind
def extra_factor(tape: Tape, given: dict) -> Iterator[tuple]:
    """A value too much on one path, as a factor or a divisor."""
    for edges, (_, name, is_named, at) in itertools.product(tape.bundles, tape.value_groups):
        e, some = edges[0], tape.steps[min(at.values())]
        if some.kind != "forward" or not is_named or not fits(some.example, tape.steps[e.x].example):
            continue
        chosen = {e.contribution: at.get(tape.steps[e.consumer].time if len(at) > 1 else min(at)) for e in edges}
        if None in chosen.values():
            continue
        for cost, text, f in ((2.6, f"a factor {name}", lambda g, v: g * v), (2.9, f"a division by {name}", np.divide),
                              (2.8, f"a factor 1 − {name}", lambda g, v: g * (1 - v)),
                              (2.8, f"a factor 1 − {name}²", lambda g, v: g * (1 - v * v))):
            yield (cost, f"the path {tape.say_path(e)} has {text} too much",
                   {c: (lambda value, c=c, v=v, f=f: f(value.without_change(c), value(v)))
                    for c, v in chosen.items()}, e)


def fits(a: Any, b: Any) -> bool:
    """Whether a broadcasts to the shape of b."""
    shape = () if isinstance(b, tuple) else np.shape(b)
    return np.ndim(a) <= len(shape) and all(n in (1, m) for n, m in zip(np.shape(a)[::-1], shape[::-1]))


# -- the order of parts ------------------------------------------------------------------------------------------------


@kind
def order_of_parts(tape: Tape, given: dict) -> Iterator[tuple]:
    """The parts of a concatenation are taken in another order."""
    joins = groups(tape.edges, lambda e: tape.steps[e.consumer].place)
    for edges in (edges for edges in joins.values() if "axis" in (tape.steps[edges[0].consumer].metadata or ())):
        parts = [e for e in edges if e.consumer == edges[0].consumer]
        names = [tape.say(e.x) for e in parts]
        axis = tape.steps[parts[0].consumer].metadata["axis"]
        if not (tape.steps[parts[0].consumer].op.variadic and 1 < len(parts) == len(set(names)) < 5) or axis is None:
            continue
        lengths = [np.shape(tape.steps[e.x].example)[axis] for e in parts]
        for order in list(itertools.permutations(range(len(parts))))[1:]:
            start = dict(zip(order, np.cumsum([0, *(lengths[k] for k in order[:-1])])))
            yield (2.0, f"the parts of {d(tape.say(parts[0].consumer))} are taken in the order "
                   f"{', '.join(names[k] for k in order)} in place of {', '.join(names)}",
                   {e.contribution: taken(tape, e, axis, start[e.position]) for e in edges if e.position in start},
                   parts[0])


def taken(tape: Tape, e: Edge, axis: int, start: int) -> Replacement:
    part = range(start, start + np.shape(tape.steps[e.x].example)[axis])
    return lambda value: np.take(value(tape.totals[e.consumer]), part, axis)


@kind
def order_of_blocks(tape: Tape, given: dict) -> Iterator[tuple]:
    """The blocks of a fused array have each other's gradients."""
    def fused(edges: list[Edge]) -> Any:
        step = tape.steps[edges[0].consumer]
        return tape.steps[edges[0].x].place or edges[0].x, step.op, np.shape(step.example), len(edges)
    for some in groups((edges for edges in tape.slots if "index" in (tape.steps[edges[0].consumer].metadata or ())),
                       fused).values():
        users = [tape.say_user(edges[0].consumer) for edges in some]
        for order in list(itertools.permutations(range(len(some))))[1:] if len(some) < 5 else ():
            off = [k for k, other in enumerate(order) if other != k]
            yield (1.5 + 0.1 * len(off), f"in {d(tape.say(some[0][0].x))} the block of " + ", ".join(
                f"{users[k]} has the gradient of {users[order[k]]}" for k in off),
                {e.contribution: block(tape, e, other) for k in off for e, other in zip(some[k], some[order[k]])},
                some[0][0])


def block(tape: Tape, e: Edge, other: Edge) -> Replacement:
    step = tape.steps[e.consumer]
    return lambda value: step.op.vjps[0].plain(value(tape.totals[other.consumer]), None, (value(e.x),), step.metadata)
