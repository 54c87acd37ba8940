"""Faults over time: what is carried from step to step, added up over the steps, or arrives from outside.

Most are of one form: at each time, edges pass what those of other times should pass, or of none.
"""

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

ByTime = dict[int, list[Step]]


def total(v: Values, edges: ByTime, times: Iterable[int]) -> Any:
    return sum(v.own(e) for t in times for e in edges.get(t, ()))


def rerouted(edges: ByTime, sources: Callable[[int], Iterable[int]], other: ByTime | None = None) -> Replaced:
    """Have the edges of each time pass together the sum of what those of the times sources(time), or other edges of
    these times, should pass."""
    replaced: Replaced = {}
    for t, some in edges.items():
        if (times := list(sources(t))) != [t] or other:
            replaced |= dict.fromkeys(some, lambda v, e: 0.0)
            replaced |= dict.fromkeys(some[:1], lambda v, e, times=times: total(v, other or edges, times))
    return replaced


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


def states_of(tape: Tape) -> list[State]:
    return [State(tape, edges) for edges in groups(tape.carried, lambda e: e.x.place).values()]


def ending(s: State, more: Callable[[Values], Any]) -> Replaced:
    """Something more arrives at the last step of a state."""
    return {s.end: lambda v, end: v.own(end) + more(v)} if s.end else {}


@kind
def carried_gradient(tape: Tape, given: list) -> Iterator[tuple]:
    """What is carried to the step before: nothing, too much, another's, or it starts wrong."""
    states = states_of(tape)
    for some in itertools.chain.from_iterable(itertools.combinations(states, n) for n in (1, 2, 3)):
        names, verb = " and ".join(dict.fromkeys(s.name for s in some)), "is" if len(some) == 1 else "are"
        for cost, more, start in ((0.5, "", 0), (0.7, ", nor to the initial state", -1)):
            yield (cost + 0.1 * len(some), f"{names} {verb} not carried to the step before{more}",
                   scaled((e for s in some for t in s.edges if t >= start for e in s.edges[t]), 0))
    for s in states:
        yield (1.2, f"the carried {s.name} is added up: the sum of all later steps arrives, and not that of the step "
               "after alone", rerouted(s.edges, lambda t, s=s: range(t, s.last)))
        others = [e for e in s.end.inputs if e.kind == "edge" and e not in tape.carried] if s.end else []
        yield 1.4, f"the carried {s.name} starts at ones, and not at zeros", ending(s, lambda v: 1.0), s.first
        yield (1.6, f"the carried {s.name} starts at what arrives at the last step, which is counted twice",
               ending(s, lambda v, others=others: sum(map(v, others))), s.first)
    for a, b in itertools.combinations(states, 2):
        for cost, more, start in ((1.5, "", 0), (1.6, ", those of the initial states too", -1)):
            if a.first.shape == b.first.shape:
                one, other = ({t: s.edges[t] for t in s.edges if t >= start} for s in (a, b))
                yield (cost, f"the carried {a.name} and {b.name} are exchanged{more}",
                       rerouted(one, lambda t: [t], other) | rerouted(other, lambda t: [t], one))


@kind
def loop_over_time(tape: Tape, given: list) -> Iterator[tuple]:
    """The backward loop runs in the forward's order, or covers only some of the steps."""
    states = states_of(tape)
    turned: Replaced = {}
    for s in states:  # to the last step, the first is the step after
        turned |= rerouted(s.edges, lambda t, s=s: [] if t == 0 else [t - 2] if t > 0 else [s.last - 1])
        turned |= ending(s, lambda v, s=s: total(v, s.edges, [s.last - 2]))
    if tape.times > 2:
        yield (1.0, "the backward loop runs in the forward's order, from the first step to the last: it must start at "
               "the last step", turned)
    loop = [e for e in tape.edges if len(tape.places[e.of.place]) == tape.times]
    for k in range(1, tape.times):
        early = scaled((e for e in loop if e.time < k), 0)
        for s in states:  # what is carried to the last step of the loop is returned for the initial state
            early |= dict.fromkeys(s.edges[-1][:1], lambda v, e, s=s, k=k: sum(map(v, s.edges.get(k - 1, ()))))
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
        cost = 0.6 if g.any() else 1.85  # zeros: said beside "nothing arrives" of returned.py
        for time, which in ((times[0], ""), (times[-1], " (the last step's is what stays)")):
            yield (cost, f"{{}} is overwritten at each step, not added up{which}",
                   rerouted(at, lambda t, time=time: [t] if t == time else []))
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
        at = groups(slot, lambda e: e.x.time)
        if len(at) == len(slot) > 1 and len({e.of for e in slot}) == 1:  # what is stacked after the loop
            for text, moment in reads:
                yield (1.4, f"the arriving {d(slot[0].of).removeprefix('the ')} is {text}",
                       rerouted(at, lambda t, at=at, moment=moment: [moment(t, len(at))]))
