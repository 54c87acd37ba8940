"""The search: which changes of the derivation give exactly the gradients that the user gave?

A change counts only if it makes a wrong gradient equal to the user's, entry by entry, and leaves every gradient equal
that was; at the inputs of the search and at two others. In each round the change that explains the most is accepted,
and the next round looks for what is left with it in place. A round ends after a number of steps run, not of seconds:
so the answer is always the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor import in_place, over_time, returned  # noqa: F401 (the blocks of the table)
from minigrad.auditor.change import Change, all_changes, scaled
from minigrad.auditor.tape import Replacement, Tape, d, groups

ROUNDS = 5  # causes found one after the other
MOST_TIES = 4  # named beside a cause
MOST_COST = 4.5  # of two changes together: beyond, the words do not say what a person did
COMMON = 2.7  # changes of a higher cost are tried at one gradient, and not beside other faults
ODD = 2.5  # what was returned, times a number that no size suggests: anything else comes first
MOST_STEPS = 50_000  # steps run for pairs of changes, and for changes in one copy of an expression
MOST_UNKNOWNS = 150  # entries of a gradient that is solved from the user's gradients
MOST_GAINERS = 60  # changes that make more entries equal, tried in pairs
FAILURES = (ValueError, TypeError, IndexError, KeyError)  # of a change that does not fit the shapes


class Search:
    """given: the user's gradients by leaf, one dict for each draw;  tolerance: of each leaf."""

    def __init__(self, tape: Tape, given: list[dict[str, Any]], tolerance: dict[str, float]):
        self.tape, self.given, self.tolerance = tape, given, tolerance
        self.leaves = [leaf for leaf in tape.leaves if leaf in given[0]]
        self.right = self.explained(self.leaves, {}, self.draws())
        self.wrong = [leaf for leaf in self.leaves if leaf not in self.right]
        self.settled = list(self.right)  # right, or explained
        self.causes: list[Change] = []
        self.tried = 0

    def draws(self, first: int = 0) -> range:
        return range(first, len(self.given))

    @property
    def left(self) -> list[str]:
        return [leaf for leaf in self.wrong if leaf not in self.settled]

    # -- predictions ----------------------------------------------------------------------------------------

    def agrees(self, leaf: str, draw: int, value: Any) -> bool:
        given = self.given[draw][leaf]
        if np.shape(value) != given.shape or not np.isfinite(value).all():
            return False
        scale = max(np.abs(value).max(initial=0), np.abs(given).max(initial=0))
        return bool((np.abs(value - given) <= self.tolerance[leaf] * scale).all())

    def explained(self, leaves: list[str], replaced: dict[int, Replacement], draws: Iterable[int] = (0,),
                  within: bool = False) -> list[str]:
        """Those of the leaves whose gradients are the user's with these steps replaced, at some draws."""
        for draw in draws:
            try:
                values = self.tape.gradients(tuple(leaves), replaced, draw, within)
            except FAILURES:
                return []
            leaves = [leaf for leaf, value in zip(leaves, values) if self.agrees(leaf, draw, value)]
        return leaves

    def reached(self, replaced: dict[int, Replacement], leaves: Iterable[str]) -> list[str]:
        """Those of the leaves that these steps lead to, the nearest first."""
        found = [leaf for leaf in leaves if any(self.tape.reaches(i, leaf) for i in replaced)]
        return sorted(found, key=lambda leaf: self.tape.length(replaced, leaf))

    def breaks_nothing(self, replaced: dict[int, Replacement], draws: Iterable[int] = (0,)) -> bool:
        kept = self.reached(replaced, self.settled)
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
        self.tried += len(changes)
        best = self.confirmed(self.everywhere(changes))
        if best is not None and (best.edge or best.cost < ODD):
            return best
        return (self.confirmed([*self.in_some_leaves(changes), *self.through_an_edge(changes)])
                or self.confirmed(self.pairs(changes)) or best)

    def rank(self, change: Change) -> tuple:
        """The order of candidates: what explains most, then the most usual, then the nearest to a gradient. That several
        gradients are zero is rather a fault before them."""
        unusual = change.edge is None and change.cost < 1 < len(change.explains)
        return -len(change.explains), round(change.cost + unusual, 6), change.length

    def found(self, change: Change, explained: list[str]) -> Change:
        change.explains = [leaf for leaf in self.left if leaf in explained]
        change.length = self.tape.length(change.replaced, change.explains[0])
        return change

    def everywhere(self, changes: list[Change]) -> list[Change]:
        """The changes that explain something and break nothing."""
        left, most = self.left, MOST_COST
        found: dict[Any, Change] = {}
        for is_thorough in (False, True):
            for change in changes:
                if change.cost > most:  # one that explains everything, and what ties with it, has been found
                    break
                reached = self.reached(change.replaced, left)
                if is_thorough:
                    explained = self.explained(reached[1:], change.replaced) if change.cost <= COMMON else []
                else:  # most changes fail at the nearest
                    explained = self.explained(reached[:1], change.replaced)
                    explained += self.explained(reached[1:], change.replaced) if explained else []
                if explained and self.breaks_nothing(change.replaced):
                    key = change.text if change.edge is None else change
                    if key in found:  # the same happened to another gradient
                        explained += found[key].explains
                        change.replaced = {**found[key].replaced, **change.replaced}
                    found[key] = self.found(change, explained)
                    most = min(most, change.cost + 1 if len(explained) == len(left) else most)
            if most < MOST_COST:
                break
        return list(found.values())

    def in_some_leaves(self, changes: list[Change]) -> Iterator[Change]:
        """A fault in one copy of an expression: it concerns some leaves, and what is carried on is right."""
        for change in (change for change in changes if change.cost <= COMMON and change.edge):
            reached = self.reached(change.replaced, self.left)
            explained = self.explained(reached[:1], change.replaced, within=True)
            explained += self.explained(reached[1:], change.replaced, within=True)
            if explained:
                yield self.only(change, f"in {{}} only: {change.text}", explained, [(1, change.replaced)], True)

    def only(self, change: Change, text: str, leaves: list[str], terms: list, within: bool = False) -> Change:
        """A change of the gradients of some leaves alone, which become sums of those of replays."""
        def one(leaf: str) -> Replacement:
            return lambda v: sum(sign * v.again(leaf, replaced, within) for sign, replaced in terms)
        new = Change(change.kind, change.cost, text, {self.tape.total(leaf): one(leaf) for leaf in leaves}, change.edge)
        self.found(new, leaves)
        new.length = self.tape.length(change.replaced, new.explains[0])
        return new

    def through_an_edge(self, changes: list[Change]) -> Iterator[Change]:
        """A fault in one term or in one copy of an expression: only on the paths through one edge or one output.

        A gradient is a sum over paths. Of those that a change alters, the ones through a cut are the difference that
        the cut makes: changed − (changed and cut), beside the true gradient's own: true − (true and cut)."""
        tape, left, budget = self.tape, self.left, 2 * MOST_STEPS
        out_of, gradient = groups(tape.edges, lambda e: e.consumer), {}
        cuts = [(edges[0], scaled(edges, 0), len(tape.steps[tape.totals[edges[0].x]].inputs) > 1,
                 len(out_of[edges[0].consumer]) > 1) for edges in tape.slots]
        cuts += [(change.edge, change.replaced, True, False) for change in changes if change.text.endswith("not used")]
        for change, (edge, cut, is_term, is_copy) in itertools.product(changes, cuts):
            if change.cost > COMMON or change.edge is None or set(cut) == set(change.replaced):
                continue
            is_term &= any(tape.after[i] >> k & 1 for i in cut for k in change.replaced)
            if not is_term and not (is_copy and any(tape.after[i] >> k & 1 for i in change.replaced for k in cut)):
                continue
            reached = self.reached(change.replaced if is_term else cut, self.leaves)
            wanted = [leaf for leaf in left if leaf in reached]
            if not wanted or set(reached) & set(self.settled):
                continue
            nearest = min(wanted, key=lambda leaf: tape.length(change.replaced, leaf))
            budget -= tape.length(change.replaced, nearest)
            if budget < 0:
                break
            try:
                for replaced in (change.replaced, cut):
                    if (nearest, id(replaced)) not in gradient:
                        gradient[nearest, id(replaced)] = tape.gradients((nearest,), replaced)[0]
                value = gradient[nearest, id(change.replaced)] + gradient[nearest, id(cut)] - tape.gradients(
                    (nearest,), change.replaced | cut)[0]
            except FAILURES:
                continue
            if self.agrees(nearest, 0, value):
                where = f"in the formula of {d(tape.say(edge.x))}"
                if is_term:
                    where = "in the term of " + (
                        tape.say_arriving(edge.x) if edge.x == edge.consumer else d(tape.say(edge.consumer)))
                terms = [(1, change.replaced), (1, cut), (-1, change.replaced | cut)]
                new = self.only(change, f"{where} only: {change.text}", wanted, terms)
                new.cost += 0.5
                explained = self.explained(wanted, new.replaced)
                yield self.only(new, new.text, explained, terms)

    def pairs(self, changes: list[Change]) -> Iterator[Change]:
        """Two changes on one path, neither of which explains a gradient by itself.

        Those that make some more entries equal come first, as a fused matrix has a block for each gate."""
        tape, left, short, seen, budget = self.tape, self.left, [], set(), MOST_STEPS
        for change in (change for change in changes if change.cost < 2.9 and change.edge):
            reached = self.reached(change.replaced, left)
            if not reached or self.reached(change.replaced, self.settled):
                continue
            leaf = reached[0]
            budget -= tape.length(change.replaced, leaf)
            if budget < 0:
                break
            try:
                (value,) = tape.gradients((leaf,), change.replaced)
                key = leaf, np.round(value, 9).tobytes()
                gain = self.equal_entries(leaf, value) - self.equal_entries(leaf, tape.true(leaf))
            except FAILURES:
                continue
            if key not in seen:  # of those that give the same, one
                seen.add(key)
                short.append((gain, change, leaf))
        some = sorted((entry for entry in short if entry[0] > 0), key=lambda entry: -entry[0])[:MOST_GAINERS] or short
        pairs = sorted(((a, b, leaf) for (_, a, leaf), (_, b, other) in itertools.combinations(some, 2)
                        if leaf == other), key=lambda pair: pair[0].cost + pair[1].cost)
        budget = MOST_STEPS
        for a, b, leaf in pairs:
            replaced = a.replaced | b.replaced
            budget -= tape.length(replaced, leaf)
            if budget < 0 or a.cost + b.cost > MOST_COST:
                break
            if not set(a.replaced) & set(b.replaced) and self.explained([leaf], replaced) \
                    and self.breaks_nothing(replaced):
                pair = Change(a.kind, a.cost + b.cost, f"{a.text}; and {b.text}", replaced, a.edge)
                yield self.found(pair, self.explained(left, replaced))

    def equal_entries(self, leaf: str, value: Any) -> float:
        given = self.given[0][leaf]
        if np.shape(value) != given.shape:
            return 0.0
        return float(np.mean(np.abs(value - given) <= self.tolerance[leaf] * np.abs(given).max(initial=0)))

    def confirmed(self, found: Iterable[Change]) -> Change | None:
        """The first that holds at the other inputs too, with the others that explain as much."""
        best = None
        for change in sorted(found, key=self.rank):
            if best is not None and (len(best.also) == MOST_TIES or change.explains != best.explains
                                     or self.rank(change)[1] > self.rank(best)[1] + 1):
                continue
            if self.explained(change.explains, change.replaced, self.draws(1)) == change.explains \
                    and self.breaks_nothing(change.replaced, self.draws(1)):
                if best is None:
                    best = change
                elif str(change) != str(best) and str(change) not in best.also:
                    best.also.append(str(change))
        return best

    # -- what stays unexplained ----------------------------------------------------------------------------------

    def narrowed(self) -> list[str]:
        """Where the fault of unexplained gradients lies: before a gradient from which they follow consistently."""
        notes, left = [], self.left
        with np.errstate(all="ignore"):
            while len(left) > 1:
                found = [(len(leaves), -size, calls, leaves) for calls in self.tape.calls.values()
                         for leaves, size in [self.consistent(calls, left)] if len(leaves) > 1]
                if not found:
                    break
                *_, calls, leaves = max(found, key=lambda entry: entry[:2])
                notes.append(f"{', '.join(map(d, leaves))} agree with each other: the fault lies before "
                             f"{d(self.tape.say(calls[0]))}")
                left = [leaf for leaf in left if leaf not in leaves]
        return notes

    def consistent(self, calls: list[int], left: list[str]) -> tuple[list[str], int]:
        """The leaves for which some gradient of a forward value, of a size, gives what the user gave."""
        tape, shape = self.tape, self.tape.shape(calls[0])
        totals = [tape.totals[i] for i in calls if i in tape.totals]
        size = int(np.prod(shape or ())) * len(totals)
        leaves = tuple(leaf for leaf in left if any(tape.reaches(i, leaf) for i in totals)
                       and self.given[0][leaf].shape == tape.true(leaf).shape
                       and np.isfinite(self.given[0][leaf]).all())
        if len(leaves) < 2 or shape is None or not 0 < size <= MOST_UNKNOWNS \
                or sum(tape.true(leaf).size for leaf in leaves) <= size:
            return [], size

        def gradients(units: Any) -> list:
            replaced: dict[int, Any] = {i: (lambda v, part=part: part) for i, part in zip(
                totals, units.reshape(len(totals), *shape))}
            return [np.ravel(g) for g in tape.gradients(leaves, replaced, within=True)]
        rest, units = gradients(np.zeros(size)), [gradients(unit) for unit in np.eye(size)]
        alone = [k for k, r in enumerate(rest) if not r.any()]  # the leaves that no other path leads to
        for some in (some for some in (list(range(len(leaves))), alone) if len(some) > 1):
            base = np.concatenate([rest[k] for k in some])
            wanted = np.concatenate([np.ravel(self.given[0][leaves[k]]) for k in some]) - base
            matrix = np.stack([np.concatenate([unit[k] for k in some]) - base for unit in units], 1)
            solution, _, rank, _ = np.linalg.lstsq(matrix, wanted, rcond=None)
            if rank < len(wanted) and np.abs(matrix @ solution - wanted).max() <= 1e-7 * np.abs(wanted).max():
                return [leaves[k] for k in some], size
        return [], size
