"""Faults over time: what is carried from step to step, added up over the steps, or arrives from outside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.change import kind, scaled
from minigrad.auditor.record import Step
from minigrad.auditor.rules import MOMENTS
from minigrad.auditor.tape import Replaced, Tape, Values, groups
from minigrad.auditor.words import d, say


class State:
    """A state that is carried over time.

    edges  {time: those that carry its gradient there}, −1: to the initial state;  last: the time to which nothing is
    end    the total of its gradients at the last step, or None
    """

    def __init__(self, tape: Tape, edges: list[Step]):
        self.first, x, at = edges[0], edges[0].x, tape.places[edges[0].x.place]
        self.name, self.end, self.last = d(x), at[-1].total, len(at) - 1
        self.edges = groups(edges, lambda e: e.x.time)
        self.edges[-1] = [e for slot in tape.slots if set(slot) & set(edges) for e in slot
                          if e.x is tape.starts[x.place]]

    def sent(self, v: Values, t: int) -> Any:
        """What the rules of step t + 1 give for the state of step t."""
        return sum(map(v.own, self.edges[t]))

    def arrived(self, v: Values, t: int) -> Any:
        return sum(map(v, self.edges.get(t, ())))


def states_of(tape: Tape) -> list[State]:
    return [State(tape, edges) for edges in groups(tape.carried, lambda e: e.x.place).values()]


def carried(some: Iterable[State], what: Callable, start: bool = True) -> Replaced:
    """Replace what is carried to each time by what(values, state, time). start: to the initial states too."""
    replaced: Replaced = {}
    for s in some:
        for t in s.edges if start else s.edges.keys() - {-1}:
            replaced |= dict.fromkeys(s.edges[t], lambda v, e: 0.0)
            replaced |= dict.fromkeys(s.edges[t][:1], lambda v, e, s=s, t=t: what(v, s, t))
    return replaced


@kind
def carried_gradient(tape: Tape, given: list) -> Iterator[tuple]:
    """What is carried to the step before: nothing, too much, another's, or it starts wrong."""
    states = states_of(tape)
    for some in itertools.chain.from_iterable(itertools.combinations(states, n) for n in (1, 2, 3)):
        names, verb = " and ".join(dict.fromkeys(s.name for s in some)), "is" if len(some) == 1 else "are"
        for cost, more in ((0.5, ""), (0.7, ", nor to the initial state")):
            yield (cost + 0.1 * len(some), f"{names} {verb} not carried to the step before{more}",
                   carried(some, lambda v, s, t: 0.0, start=bool(more)))
    for s in states:
        yield (1.2, f"the carried {s.name} is added up: the sum of all later steps arrives, and not that of the step "
               "after alone", carried([s], lambda v, s, t: s.sent(v, t) + s.arrived(v, t + 1)))
        others = [e for e in s.end.inputs if e.kind == "edge" and e not in tape.carried] if s.end else []
        for cost, text, first in ((1.4, "ones, and not at zeros", lambda v, others: 1.0),
                                  (1.6, "what arrives at the last step, which is counted twice",
                                   lambda v, others: sum(map(v, others)))):
            end = dict.fromkeys(filter(None, [s.end]), lambda v, end, first=first, others=others: v.own(end) + first(
                v, others))
            yield cost, f"the carried {s.name} starts at {text}", end, s.first
    for a, b in itertools.combinations(states, 2):
        for cost, more in ((1.5, ""), (1.6, ", those of the initial states too")):
            if a.first.shape == b.first.shape:
                other = {a: b, b: a}
                yield (cost, f"the carried {a.name} and {b.name} are exchanged{more}",
                       carried([a, b], lambda v, s, t, other=other: other[s].sent(v, t), start=bool(more)))


@kind
def loop_over_time(tape: Tape, given: list) -> Iterator[tuple]:
    """The backward loop runs in the forward's order, or covers only some of the steps."""
    states = states_of(tape)
    if tape.times > 2:  # to the last step, the first is the step after
        turned = carried(states, lambda v, s, t: 0.0 if t == 0 else s.sent(v, t - 2 if t > 0 else s.last - 1))
        turned |= {s.end: lambda v, end, s=s: v.own(end) + s.sent(v, s.last - 2) for s in states if s.end}
        yield (1.0, "the backward loop runs in the forward's order, from the first step to the last: it must start at "
               "the last step", turned)
    loop = [e for e in tape.edges if len(tape.places[e.of.place]) == tape.times]
    for k in range(1, tape.times):
        early = scaled((e for e in loop if e.time < k), 0)
        for s in states:  # what is carried to the last step of the loop is returned for the initial state
            early |= dict.fromkeys(s.edges[-1][:1], lambda v, e, s=s, k=k: s.arrived(v, k - 1))
        for which, left_out in ((f"last {tape.times - k}", scaled((e for e in loop if e.time >= k), 0)),
                                (f"first {k}", early)):
            yield 2.0, f"the loop over time leaves out the {which} of the {tape.times} steps", left_out


def factors(tape: Tape, leaf: str, given: Any, sets: list[list[Step]]) -> Any:
    """The factors on sets of edges that give the user's gradient of a leaf; None if there are none."""
    true = tape.true(leaf)
    if given.shape != true.shape or np.allclose(given, true, rtol=1e-9):
        return None
    columns = np.stack([(true - tape.gradients([leaf], scaled(some, 0))[0]).ravel() for some in sets], 1)
    wanted = (given - true).ravel() + columns.sum(1)
    k = np.linalg.lstsq(columns, wanted, rcond=None)[0] if columns.any() else np.zeros(len(sets))
    return k if np.abs(columns @ k - wanted).max(initial=0) < 1e-7 * np.abs(columns).max(initial=0) else None


@kind
def not_added_up(tape: Tape, given: list) -> Iterator[tuple]:
    """A gradient that is added up over time, with other weights: 0 or 1 for `=` in place of `+=`."""
    for leaf, g in given[0].items():
        at = groups((e for e in tape.edges if e.x is tape.leaves[leaf]), lambda e: e.time)
        if len(times := sorted(at)) < 2:
            continue
        for time, which in ((times[0], ""), (times[-1], " (the last step's is what stays)")):
            yield (0.6, f"{{}} is overwritten at each step, not added up{which}",
                   scaled((e for t in times if t != time for e in at[t]), 0))
        weights = factors(tape, leaf, g, [at[t] for t in times])
        if weights is not None and weights.any() and np.allclose(4 * weights, np.round(4 * weights), atol=1e-6):
            weights = np.round(4 * weights) / 4 + 0.0  # no −0
            yield (1.6, f"d{leaf} is not the sum over the steps: step by step it has the factors "
                   f"{', '.join(f'{w:g}' for w in weights)}",
                   {e: how for w, t in zip(weights, times) for e, how in scaled(at[t], w).items()})


@kind
def arriving(tape: Tape, given: list) -> Iterator[tuple]:
    """The gradient that arrives at an output: not used, taken as 1, or that of another output or another step."""
    for seed in tape.seeds:
        for text, k in (("not used", 0.0), ("taken as 1", 1.0)):
            yield 1.3, f"{say(seed)} is {text}", {seed: lambda v, seed, k=k: k}
    for a, b in itertools.combinations(tape.seeds, 2):
        if a.shape == b.shape:
            yield (1.5, f"{say(a)} and {d(b.of)} are exchanged",
                   {a: lambda v, _, b=b: v.own(b), b: lambda v, _, a=a: v.own(a)})
    reads = [("used at the last step only", lambda t, n: t if t == n - 1 else -1),
             ("used at the first step only", lambda t, n: t if t == 0 else -1),
             *((f"that of {moment} at every step", at) for moment, _, at in MOMENTS)]
    for slot in tape.slots:
        steps = {e.x.time: e for e in slot}
        if len(steps) == len(slot) > 1 and len({e.of for e in slot}) == 1:  # what is stacked after the loop
            for text, at in reads:
                def how(v: Values, e: Step, at: Callable = at, steps: dict = steps) -> Any:
                    other = steps.get(at(e.x.time, len(steps)))
                    return v.own(other) if other else 0 * v.own(e)
                yield (1.4, f"the arriving {d(slot[0].of).removeprefix('the ')} is {text}",
                       dict.fromkeys(slot, how))
