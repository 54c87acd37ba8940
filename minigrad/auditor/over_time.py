"""Faults over time: what is carried from step to step, added up over the steps, or arrives from outside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.change import kind, put, reading, same_shape, scaled, value_of
from minigrad.auditor.record import Edge, fit
from minigrad.auditor.tape import Replacement, Tape, Values, d, groups

# (words, cost, the step that is read at a step t of n): -1 is the initial state
MOMENTS: list[tuple[str, float, Callable[[int, int], int]]] = [
    ("the step after", 0.2, lambda t, n: t + 1), ("the step before", 0.2, lambda t, n: t - 1),
    ("the last step", 0.3, lambda t, n: n - 1), ("the first step", 0.3, lambda t, n: 0),
    ("the other end", 0.4, lambda t, n: n - 1 - t)]


class State:
    """A state that is carried over time.

    edges  {time: those that carry its gradient there}, -1: to the initial state
    """

    def __init__(self, tape: Tape, edges: list[Edge]):
        self.tape, self.first, place = tape, edges[0], tape.steps[edges[0].x].place
        self.name = d(tape.say(edges[0].x))
        self.calls, self.last = tape.calls[place], len(tape.calls[place]) - 1
        self.edges = groups(edges, lambda e: tape.steps[e.x].time)
        self.times = sorted(self.edges)
        self.edges[-1] = [e for slot in tape.slots if set(slot) & set(edges) for e in slot if e.x == tape.starts[place]]
        self.rules = {(tape.steps[e.consumer].place, e.position) for e in edges}

    def put(self, new: dict[int, Callable[[Values], Any]]) -> dict[int, Replacement]:
        """Replace what is carried to some times. To the last nothing is: there the new is added to what arrives."""
        replaced: dict[int, Replacement] = {}
        for t, f in new.items():
            for k, e in enumerate(self.edges.get(t, ())):
                replaced[e.contribution] = f if k == 0 else lambda v: 0.0
            total = self.tape.totals.get(self.calls[t])
            if t == self.last and total is not None:
                replaced[total] = lambda v, f=f, total=total: v.own(total) + f(v)
        return replaced

    def sent(self, v: Values, t: int) -> Any:
        """What the rules of step t give for the state of the step before, be it a constant."""
        if some := self.edges.get(t - 1):
            return sum(v.own(e.contribution) for e in some)
        return sum(rule_at(self.tape, self.tape.calls[place][t], position)(v) for place, position in self.rules)

    def arrived(self, v: Values, t: int) -> Any:
        return sum(v(e.contribution) for e in self.edges.get(t, ()))


def states(tape: Tape) -> list[State]:
    return [State(tape, edges) for edges in groups(tape.carried, lambda e: tape.steps[e.x].place).values()]


def rule_at(tape: Tape, consumer: int, position: int) -> Replacement:
    """What the rule of a consumer gives for one of its inputs."""
    step, total = tape.steps[consumer], tape.totals[consumer]
    rules = {vjp.position: vjp.plain for vjp in step.op.vjps}

    def rule(v: Values) -> Any:
        found = rules[0 if step.op.variadic else position](v(total), v(consumer), [v(x) for x in step.inputs],
                                                           step.metadata)
        return found[position] if step.op.variadic else fit(found, tape.shape(step.inputs[position]))
    return rule


def in_loop(tape: Tape, e: Edge) -> bool:
    return len(tape.calls[tape.steps[e.consumer].place]) == tape.times > 1


@kind
def not_carried(tape: Tape, given: list) -> Iterator[tuple]:
    """All edges that carry one state, or several, to the step before."""
    for some in itertools.chain.from_iterable(itertools.combinations(states(tape), n) for n in (1, 2, 3)):
        names, verb = " and ".join(dict.fromkeys(s.name for s in some)), "is" if len(some) == 1 else "are"
        for cost, more, start in ((0.5, "", []), (0.7, ", nor to the initial state", [-1])):
            replaced: dict[int, Replacement] = {}
            for s in some:
                replaced |= s.put(dict.fromkeys([*start, *s.times], lambda v: 0.0))
            yield (cost + 0.1 * len(some), f"{names} {verb} not carried to the step before{more}", replaced,
                   some[0].first)


@kind
def carried_wrongly(tape: Tape, given: list) -> Iterator[tuple]:
    """What is carried to the step before is kept and added to, or starts wrong."""
    for s in states(tape):
        yield (1.2, f"the carried {s.name} is added up: the sum of all later steps arrives, and not that of the step "
               "after alone", s.put({t: lambda v, t=t, s=s: s.sent(v, t + 1) + s.arrived(v, t + 1)
                                     for t in [-1, *s.times]}), s.first)
        yield 1.4, f"the carried {s.name} starts at ones, and not at zeros", s.put({s.last: lambda v: 1.0}), s.first
        others = [e.contribution for e in tape.edges if e.x == s.calls[-1] and e not in tape.carried]
        if others:
            yield (1.6, f"the carried {s.name} starts at what arrives at the last step, which is counted twice",
                   s.put({s.last: lambda v, others=others: sum(map(v, others))}), s.first)


@kind
def carried_to_another(tape: Tape, given: list) -> Iterator[tuple]:
    """Two carried states are exchanged."""
    for a, b in itertools.combinations(states(tape), 2):
        for cost, more, start in ((1.5, "", []), (1.6, ", those of the initial states too", [-1])):
            if same_shape(tape, a.first.x, b.first.x):
                replaced: dict[int, Replacement] = {}
                for to, other in ((a, b), (b, a)):
                    replaced |= to.put({t: lambda v, t=t, s=other: s.sent(v, t + 1) for t in [*start, *to.times]})
                yield cost, f"the carried {a.name} and {b.name} are exchanged{more}", replaced, a.first


@kind
def loop_in_forward_order(tape: Tape, given: list) -> Iterator[tuple]:
    """The loop runs from the first step to the last: what one step carries arrives at the next."""
    replaced: dict[int, Replacement] = {}
    for s in states(tape) if tape.times > 2 else ():
        replaced |= s.put({t: (lambda v: 0.0) if t == 0 else lambda v, t=t, s=s: s.sent(v, t - 1 if t > 0 else s.last)
                           for t in [-1, *s.times, s.last]})
    yield (1.0, "the backward loop runs in the forward's order, from the first step to the last: it must start at the "
           "last step", replaced, next(iter(tape.carried), None))


@kind
def steps_left_out(tape: Tape, given: list) -> Iterator[tuple]:
    """The loop over time covers only some of the steps."""
    loop = [e for e in tape.edges if in_loop(tape, e)]
    for k in range(1, tape.times if loop else 1):
        text = f"the loop over time leaves out %s of the {tape.times} steps"
        late, early = (scaled((e for e in loop if (tape.steps[e.consumer].time >= k) == is_late), 0)
                       for is_late in (True, False))
        yield 2.0, text % f"the last {tape.times - k}", late, loop[0]
        yield 2.0, text % f"the first {k}", early, loop[0]
        for s in states(tape):  # what is carried to the last step of the loop is returned for the initial state
            early = early | s.put({-1: lambda v, s=s, k=k: s.arrived(v, k - 1)})
        yield 2.1, text % f"the first {k}", early, loop[0]


@kind
def cache_of_another_step(tape: Tape, given: list) -> Iterator[tuple]:
    """The whole rule of each step reads the values of another step."""
    loop = [e for e in tape.edges if in_loop(tape, e)]
    consumers, n = {e.consumer for e in loop}, tape.times
    for moment, _, read in MOMENTS if loop else ():
        spots: dict[tuple[int, int], Replacement] = {}
        for i in (i for i, step in enumerate(tape.steps) if step.kind == "rule" and step.of in consumers):
            own = tape.steps[i].of
            other = tape.calls[tape.steps[own].place][read(tape.steps[own].time, n) % n]
            meant = {**dict(zip(tape.steps[own].inputs, tape.steps[other].inputs)), own: other}
            spots |= {(i, p): value_of(meant[x]) for p, x in enumerate(tape.steps[i].inputs) if meant.get(x, x) != x}
        yield 1.5, f"each step reads the cache of {moment}, and not its own", reading(tape, spots), loop[0]


def factors(tape: Tape, leaf: str, given: Any, sets: list[list[Edge]]) -> Any:
    """The factors on sets of edges that give the user's gradient of a leaf; None if there are none."""
    true = tape.true(leaf)
    if given.shape != true.shape or np.allclose(given, true, rtol=1e-9):
        return None
    columns = np.stack([(true - tape.gradients((leaf,), scaled(some, 0))[0]).ravel() for some in sets], 1)
    wanted = (given - true).ravel() + columns.sum(1)
    k = np.linalg.lstsq(columns, wanted, rcond=None)[0] if columns.any() else np.zeros(len(sets))
    return k if np.abs(columns @ k - wanted).max(initial=0) < 1e-7 * np.abs(columns).max(initial=0) else None


@kind
def not_added_up(tape: Tape, given: list) -> Iterator[tuple]:
    """A gradient that is added up over time, with other weights: 0 or 1 for `=` in place of `+=`."""
    for leaf, g in given[0].items():
        at = groups((e for e in tape.edges if e.x == tape.leaves[leaf]), lambda e: tape.steps[e.consumer].time)
        if len(times := sorted(at)) < 2:
            continue
        e = at[times[0]][0]
        for time, which in ((times[0], ""), (times[-1], " (the last step's is what stays)")):
            yield (0.6, f"d{leaf} is overwritten at each step, not added up{which}",
                   scaled((e for t in times if t != time for e in at[t]), 0), e)
        weights = factors(tape, leaf, g, [at[t] for t in times])
        if weights is not None and weights.any() and np.allclose(4 * weights, np.round(4 * weights), atol=1e-6):
            weights = np.round(4 * weights) / 4 + 0.0  # no −0
            yield (1.6, f"d{leaf} is not the sum over the steps: step by step it has the factors "
                   f"{', '.join(f'{w:g}' for w in weights)}",
                   {c: f for w, t in zip(weights, times) for c, f in scaled(at[t], w).items()}, e)


@kind
def arriving(tape: Tape, given: list) -> Iterator[tuple]:
    """The gradient that arrives at an output: not used, taken as 1, or that of another output or another step."""
    at = {seed: Edge(seed, tape.steps[seed].of, 0, tape.steps[seed].of) for seed in tape.seeds}
    for seed, e in at.items():
        for text, k in (("not used", 0.0), ("taken as 1", 1.0)):
            yield 1.3, f"{tape.say_arriving(e.x)} is {text}", {seed: lambda v, k=k: k}, e
    for a, b in itertools.combinations(tape.seeds, 2):
        if same_shape(tape, a, b):
            yield (1.5, f"{tape.say_arriving(at[a].x)} and {d(tape.say(at[b].x))} are exchanged",
                   {a: lambda v, b=b: v.base(b), b: lambda v, a=a: v.base(a)}, at[a])
    for slot in tape.slots:
        steps = {tape.steps[e.x].time: e for e in slot}
        if len(steps) < 2 or len({e.consumer for e in slot}) > 1 or len(steps) != len(slot):
            continue
        reads = [("used at the last step only", lambda t, n: t if t == n - 1 else -1),
                 ("used at the first step only", lambda t, n: t if t == 0 else -1),
                 *((f"that of {moment} at every step", read) for moment, _, read in MOMENTS)]
        for text, read in reads:
            def how(v: Values, own: Any, e: Edge, read: Any = read, steps: Any = steps) -> Any:
                other = steps.get(read(tape.steps[e.x].time, len(steps)))
                return v.own(other.contribution) if other else 0 * own
            yield 1.4, f"{tape.say_arriving(slot[0].consumer)} is {text}", put(slot, how), slot[0]
