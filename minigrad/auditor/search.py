"""The search: which changes of the derivation give exactly the gradients that the user gave?

A change counts only if it makes a wrong gradient equal to the user's, entry by entry, and leaves every gradient equal
that was; at the inputs of the search and at two others. In each round the change that explains the most is accepted,
and the next round looks for what is left with it in place. A round ends after a number of steps run, not of seconds:
so the answer is always the same.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.auditor import over_time, paths, returned, rules  # noqa: F401 (the blocks of the table)
from minigrad.auditor.change import Change, all_changes
from minigrad.auditor.record import Step
from minigrad.auditor.tape import Replaced, Tape, Values
from minigrad.auditor.words import d, say

ROUNDS = 5  # causes found one after the other
MOST_TIES = 4  # named beside a cause
MOST_COST = 5.4  # of two changes together: beyond, the words do not say what a person did
COMMON = 2.7  # changes of a higher cost are tried at one gradient, and not beside other faults
ODD = 2.5  # what was returned, times a number that no size suggests: anything else comes first
BUDGET = 340_000  # steps run in a round for a cell, five times as many for a loop; half as many more for pairs
MOST_UNKNOWNS = 150  # entries of a gradient that is solved from the user's gradients
MOST_IN_PAIRS = 250  # changes that are tried in pairs; if some of them make more entries equal, only those
# of a change that does not fit the shapes, or reads against the order of a long loop
FAILURES = (ValueError, TypeError, IndexError, KeyError, RecursionError)


class Search:
    """given: the user's gradients by leaf, one dict for each draw;  tolerance: of each leaf;  hints: keys of changes
    that may be one of two."""

    def __init__(self, tape: Tape, given: list[dict[str, Any]], tolerance: dict[str, float], hints: Sequence[tuple]):
        self.tape, self.given, self.tolerance, self.hints = tape, given, tolerance, hints
        self.end = 0
        self.values: dict[Change, dict[str, Any]] = {}  # the gradients with each change, in this round
        self.causes: list[Change] = []
        self.leaves = [leaf for leaf in tape.leaves if leaf in given[0]]
        self.right = self.explained(self.leaves, {}, range(len(given)))
        self.wrong = [leaf for leaf in self.leaves if leaf not in self.right]
        self.settled = list(self.right)  # right, or explained

    @property
    def left(self) -> list[str]:
        return [leaf for leaf in self.wrong if leaf not in self.settled]

    def affordable(self, items: Iterable, share: float) -> Iterator:
        """The items, until a share of what is left of the round's budget is spent."""
        most = self.tape.ran + share * (self.end - self.tape.ran)
        return itertools.takewhile(lambda _: self.tape.ran <= most, items)

    # -- predictions ----------------------------------------------------------------------------------------

    def equal(self, leaf: str, value: Any, draw: int = 0) -> Any:
        """Which entries of the user's gradient have this value."""
        given = self.given[draw][leaf]
        if np.shape(value) != given.shape or not np.isfinite(value).all():
            return np.zeros(1, bool)
        scale = max(np.abs(value).max(initial=0), np.abs(given).max(initial=0))
        return np.abs(value - given) <= self.tolerance[leaf] * scale

    def agreeing(self, values: dict[str, Any], draw: int = 0) -> list[str]:
        return [leaf for leaf, value in values.items() if self.equal(leaf, value, draw).all()]

    def predicted(self, leaves: Iterable[str], replaced: Replaced, draw: int = 0) -> dict[str, Any]:
        """The gradients of leaves with these steps replaced; none if they do not fit the shapes."""
        try:
            return dict(zip(leaves, self.tape.gradients(leaves, replaced, draw)))
        except FAILURES:
            return {}

    def explained(self, leaves: Iterable[str], replaced: Replaced, draws: Iterable[int] = (0,)) -> list[str]:
        """Those of the leaves whose gradients are the user's with these steps replaced, at some draws."""
        for draw in draws:
            leaves = self.agreeing(self.predicted(leaves, replaced, draw), draw)
        return list(leaves)

    def breaks_nothing(self, replaced: Replaced, draws: Iterable[int] = (0,)) -> bool:
        kept = list(self.tape.reached(replaced, self.settled))
        return not kept or self.explained(kept, replaced, draws) == kept

    # -- rounds -----------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Find the causes; return the leaves that stay unexplained."""
        with np.errstate(all="ignore"):
            while self.left and len(self.causes) < ROUNDS and (best := self.best()) is not None:
                self.causes.append(best)
                self.settled += best.explains
                self.tape.accept(best.replaced)
        return self.left

    def best(self) -> Change | None:
        finite = [leaf for leaf in self.left if all(np.isfinite(given[leaf]).all() for given in self.given)]
        changes = all_changes(self.tape, [{leaf: given[leaf] for leaf in finite} for given in self.given])
        self.values = {}
        self.end = self.tape.ran + BUDGET * (5 if self.tape.carried else 1)
        if self.hints and (two := self.confirmed(self.tried(
                self.hinted([change for change in changes if change.where]), 0.5))) is not None:
            return two  # what one change explains was found without hints
        best = self.confirmed(self.tried([*changes, *(one for one in changes if one.cost <= COMMON)], 0.75))
        if best is not None and (best.where or best.cost < ODD):
            return best
        changes = [change for change in changes if change.where]
        common = [change for change in changes if change.cost <= COMMON]
        if (some := self.confirmed(self.tried(self.on_some_paths(common), 1.0))) is not None:
            return some
        self.end += BUDGET // 2
        return self.confirmed(self.tried(self.pairs(changes), 1.0)) or best

    def rank(self, change: Change) -> tuple:
        """The order of candidates: what explains most, then the most usual, then the nearest to a gradient.

        That several gradients are zero is rather a fault before them."""
        unusual = change.where is None and change.cost < 1 < len(change.explains)
        return -len(change.explains), round(change.cost + 0.9 * unusual, 6), change.length

    def confirmed(self, found: Iterable[Change]) -> Change | None:
        """The first that holds at the other inputs too, with the others that explain as much."""
        best, others = None, range(1, len(self.given))
        for change in sorted((change for change in found if change.explains), key=self.rank):
            if best is not None and (len(best.also) == MOST_TIES or change.explains != best.explains
                                     or self.rank(change)[1] > self.rank(best)[1] + 1):
                continue
            if self.explained(change.explains, change.replaced, others) == change.explains \
                    and self.breaks_nothing(change.replaced, others):
                if best is None:
                    best = change
                elif str(change) not in (str(best), *best.also):
                    best.also.append(str(change))
        return best

    # -- candidates -------------------------------------------------------------------------------------------

    def tried(self, changes: Iterable[Change], share: float) -> list[Change]:
        """The changes that explain something and break nothing. Each is tried at the nearest gradient that it reaches,
        where most fail; one that comes again, at the others."""
        left, most = self.left, MOST_COST
        found: dict[Any, Change] = {}
        for change in self.affordable(changes, share):
            if change.cost > most or (change in self.values and most < MOST_COST):
                continue  # one that explains everything, and what ties with it, has been found
            reached = list(self.tape.reached(change.replaced, left))
            some = reached[1:] if change in self.values else reached[:1]
            values = self.values.setdefault(change, {})
            values |= self.predicted(some, change.replaced) if some else {}
            if not self.agreeing(values):
                continue
            values |= self.predicted(reached, change.replaced)
            if self.breaks_nothing(change.replaced):
                explained, key = self.agreeing(values), change.text if change.text.startswith("{}") else change
                if key in found:  # the same happened to another gradient
                    explained += found[key].explains
                    change.replaced = {**found[key].replaced, **change.replaced}
                change.explains = [leaf for leaf in left if leaf in explained]
                change.length = sum(self.tape.reached((change.whole or change).replaced, change.explains[:1]).values())
                found[key] = change
                most = min(most, change.cost + 1 if len(explained) == len(left) else most)
        return list(found.values())

    def on_some_paths(self, changes: list[Change]) -> Iterator[Change]:
        """A fault in one term or in one copy of an expression: only on the paths through one edge or one output.

        A gradient is a sum over paths. With C changed and with the edge cut it loses what C does elsewhere: so it is
        that with C, plus that with the cut, minus that with both; taken at the edge that comes last, at each step of
        time with what is carried there."""
        tape, edges_from = self.tape, Counter(e.of for e in self.tape.edges)
        settled, left = (sum(1 << tape.leaves[leaf].total.number for leaf in some)
                         for some in (self.settled, self.left))
        cuts = []
        for at in [*tape.slots, *([seed] for seed in tape.seeds)]:
            cut, e = dict.fromkeys(at, lambda v, e: 0.0), at[0]
            words = "{}" if e.x.kind == "leaf" else f"the formula of {d(e.x)}", f"the term of {d(e.of)}"
            cuts.append((e, cut, tape.behind(cut), words if e.kind == "edge" else ("", f"the term of {say(e)}")))
        for change in filter(self.values.get, changes):
            after = tape.behind(change.replaced)
            rules_of = {(x.of, x.position) for x in change.replaced if x.kind == "rule"}
            ends = [x for x in change.replaced if x.kind != "rule"]
            ends += [e for e in tape.edges if (e.of, e.position) in rules_of] if rules_of else []
            for e, cut, behind, (copy, term) in cuts:
                is_term = (e.kind == "seed" or len(e.x.total.inputs) > 1) and any(
                    behind >> step.number & 1 for step in change.replaced)
                is_copy = edges_from[e.of] > 1 and any(after >> step.number & 1 for step in cut)
                last = after & behind if is_term or is_copy else 0
                if last & left and not last & settled and cut.keys() != change.replaced.keys():
                    where = term if is_term else copy
                    yield Change(change.kind, change.cost + 0.5 * (where != "{}"), f"in {where} only: {change.text}",
                                 on_both(change.replaced, cut, ends if is_term else None), change.where, whole=change)

    def pairs(self, changes: list[Change]) -> Iterator[Change]:
        """Two changes on one path, neither of which explains a gradient by itself.

        One of them makes some more entries equal, as a fused matrix has a block for each gate; or it says what a cause
        says that was found: the same line of the user's code runs for another layer. Those that reach the most
        gradients come first."""
        short: dict[Any, tuple[float, int, Change, str]] = {}
        said = {cause.text for cause in self.causes}
        for change in changes:
            known = self.values.get(change)
            if known and change.cost <= 2.9 and not self.tape.reached(change.replaced, self.settled):
                leaf, value = next(iter(known.items()))
                before, now = (self.equal(leaf, some).mean() for some in (self.tape.true(leaf), value))
                short.setdefault((leaf, np.round(value, 9).tobytes(), change.key[1]),  # one of equal ones at a place
                                 (now - before + (change.text in said),
                                  len(self.tape.reached(change.replaced, self.left)), change, leaf))
        some = sorted(short.values(), key=lambda entry: (-entry[0], -entry[1], entry[2].cost))[:MOST_IN_PAIRS]
        pairs = [(-min(reach, also), a.cost + b.cost, a, b)
                 for (gain, reach, a, leaf), (_, also, b, other) in itertools.combinations(some, 2)
                 if leaf == other and (gain > 0 or some[0][0] <= 0) and a.cost + b.cost <= MOST_COST
                 and not a.replaced.keys() & b.replaced.keys()]
        for *_, a, b in sorted(pairs, key=lambda pair: pair[:2]):
            yield together(a, b)

    def hinted(self, changes: list[Change]) -> Iterator[Change]:
        """Yield pairs of changes, at least one of them named by the hints.

        Pairs with both named come first, then pairs whose other change affects only the gradients carried over time: a
        single step cannot show it."""
        known, carried = {change: change.key in self.hints for change in changes}, {e.place for e in self.tape.carried}
        within = {step.total for step in self.tape.leaves.values()}  # what leads to a gradient within a step of time
        for step in reversed(self.tape.steps):
            if step in within and step.place not in carried:
                within.update(step.inputs)
        pairs = [(not known[b], not within.isdisjoint(b.replaced), a.cost + b.cost, a, b)
                 for i, a in enumerate(changes) if known[a] for j, b in enumerate(changes)
                 if b.cost <= COMMON and not (known[b] and i <= j) and not a.replaced.keys() & b.replaced.keys()]
        for *_, a, b in sorted(pairs, key=lambda pair: pair[:3]):
            yield together(a, b)

    # -- what stays unexplained ----------------------------------------------------------------------------------

    def narrowed(self) -> list[str]:
        """Where the fault of unexplained gradients lies: before a gradient from which they follow consistently."""
        notes, left, self.end = [], self.left, self.tape.ran + BUDGET
        with np.errstate(all="ignore"):
            behind = sorted(self.tape.totals, key=lambda at: -len(self.tape.reached(at, left)))
            for at in self.affordable(behind, 1.0):
                if some := self.consistent(at, left):
                    notes.append(f"{', '.join(map(d, some))} agree with each other: the fault lies before {say(at[0])}")
                    left = [leaf for leaf in left if leaf not in some]
        return notes

    def consistent(self, totals: list[Step], left: list[str]) -> list[str]:
        """Those of the leaves for which some gradient of a forward value gives what the user gave, two or more."""
        given, true, shape = self.given[0], self.tape.true, (len(totals), *totals[0].shape)
        size = math.prod(shape)
        leaves = [leaf for leaf in self.tape.reached(totals, left)
                  if given[leaf].shape == true(leaf).shape and np.isfinite(given[leaf]).all()]
        is_one_shape = len({total.shape for total in totals}) == 1
        if not is_one_shape or len(leaves) < 2 or not 0 < size <= MOST_UNKNOWNS or sum(
                true(leaf).size for leaf in leaves) <= size:
            return []

        def gradients(unit: Any) -> list:
            parts: Replaced = {total: lambda v, _, part=part: part for total, part in zip(totals, unit.reshape(shape))}
            return self.tape.gradients(leaves, parts)
        rest, units = gradients(np.zeros(size)), [gradients(unit) for unit in np.eye(size)]
        alone = [k for k, r in enumerate(rest) if not r.any()]  # the leaves that no other path leads to
        for some in (some for some in (list(range(len(leaves))), alone) if len(some) > 1):
            base, wanted, *ends = (np.concatenate([np.ravel(found[k]) for k in some])
                                   for found in [rest, [given[leaf] for leaf in leaves], *units])
            matrix = np.stack(ends, 1) - base[:, None]
            solution, _, rank, _ = np.linalg.lstsq(matrix, wanted - base, rcond=None)
            off = np.abs(base + matrix @ solution - wanted)
            if rank < len(wanted) and off.max() <= 1e-7 * np.abs(wanted - base).max():
                return [leaf for leaf in self.left if leaf in [leaves[k] for k in some]]
        return []


def together(a: Change, b: Change) -> Change:
    return Change(a.kind, a.cost + b.cost, f"{a.text}; and {b.text}", a.replaced | b.replaced, a.where, parts=(a, b))


def on_both(change: Replaced, cut: Replaced, ends: list[Step] | None) -> Replaced:
    """The change on the paths through the edges of the cut alone. ends: those of the change, if they come later."""
    own = dict.fromkeys(ends or cut, Values.own)
    one, other, both = own | change, own | cut, own | change | cut
    if ends is None:
        return dict.fromkeys(cut, lambda v, e: v.within(one, e))
    return dict.fromkeys(ends, lambda v, e: v.within(one, e) + v.within(other, e) - v.within(both, e))
