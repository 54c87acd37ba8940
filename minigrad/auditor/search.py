"""The search: which changes of the derivation give exactly the gradients that the user gave?

A change counts only if it makes a wrong gradient equal to the user's, entry by entry, and leaves every gradient equal
that was; at the inputs of the search and at two others. In each round the change that explains the most is accepted,
and the next round looks for what is left with it in place.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigrad.auditor.changes import Change, all_changes, zero
from minigrad.auditor.tape import Tape, d, groups
from minigrad.auditor.transforms import Transform, transforms

ROUNDS = 5  # causes found one after the other
MOST_TIES = 4  # named beside a cause
MOST_COST = 4.5  # of two changes together: beyond, the words do not say what a person did
COMMON = 2.7  # changes of a higher cost are tried at one gradient, and not beside other faults
MOST_STEPS = 50_000  # steps run for pairs of changes on one path, and for changes in one copy of an expression
MOST_UNKNOWNS = 150  # entries of a gradient that is solved from the user's gradients
MOST_GAINERS = 60  # changes that make more entries equal, tried in pairs
FAILURES = (ValueError, TypeError, IndexError, KeyError)  # of a change that does not fit the shapes


@dataclass
class Found:
    """A cause: one change (or two on one path) or a transform, what it explains, and what gives the same numbers."""

    changes: tuple[Change, ...]
    transform: Transform | None
    explains: list[str]
    also: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        if self.transform is not None:
            return f"{', '.join(map(d, self.explains))}: {self.transform.text}"
        said = "; and ".join(change.text for change in self.changes)
        is_everywhere = self.changes[0].leaves is None or self.changes[0].through
        return said if is_everywhere else f"in {', '.join(map(d, self.explains))} only: {said}"


class Search:
    """given: the user's gradients by leaf, one dict for each draw."""

    def __init__(self, tape: Tape, given: list[dict[str, Any]], tolerance: float):
        self.tape, self.given, self.tolerance = tape, given, tolerance
        self.leaves = [leaf for leaf in tape.leaves if leaf in given[0]]
        self.transforms: dict[str, Transform] = {}
        self.limited: dict[str, tuple[Change, ...]] = defaultdict(tuple)  # accepted for some leaves only
        self.memo: dict[tuple, list[str]] = {}
        self.tried = 0
        self.right = {leaf for leaf in self.leaves if all(self.matches(leaf, draw=k) for k in range(len(given)))}
        self.wrong = [leaf for leaf in self.leaves if leaf not in self.right]
        self.settled = set(self.right)  # right, or explained
        self.causes: list[Found] = []

    # -- predictions ----------------------------------------------------------------------------------------

    def predicted(self, leaves: Iterable[str], draw: int = 0, *changes: Change) -> list:
        """The gradients of leaves with what was accepted and these changes."""
        return [out for leaf in leaves for out in self.replayed((leaf,), draw, (*self.limited[leaf], *changes))]

    def replayed(self, leaves: tuple[str, ...], draw: int, changes: tuple[Change, ...]) -> list:
        replaced = {i: how for c in changes for i, how in c.replaced.items()}
        cut = {i: how for c in changes for i, how in c.through.items()}
        within = any(c.leaves is not None and not c.through for c in changes)
        out = self.tape.gradients(leaves, replaced, draw, within)
        if cut:  # a gradient is a sum over paths: of those that the change alters, only those through the cut
            out = [a + b - c for a, b, c in zip(out, self.tape.gradients(leaves, cut, draw),
                                                self.tape.gradients(leaves, replaced | cut, draw))]
        return [self.transforms[leaf].f(g, self.others(draw)) if leaf in self.transforms else g
                for leaf, g in zip(leaves, out)]

    def others(self, draw: int) -> dict[Any, Any]:
        """The gradients of all leaves, and the contributions to each before they are summed over broadcast axes."""
        out: dict[Any, Any] = dict(zip(self.tape.leaves, self.tape.gradients(tuple(self.tape.leaves), {}, draw)))
        return out | {("parts", leaf): self.tape.parts(leaf, draw) for leaf in self.tape.leaves}

    def agrees(self, leaf: str, draw: int, value: Any) -> bool:
        given = self.given[draw][leaf]
        if value is None or np.shape(value) != given.shape or not np.isfinite(value).all():
            return False
        scale = max(np.abs(value).max(initial=0), np.abs(given).max(initial=0))
        return bool((np.abs(value - given) <= self.tolerance * scale).all())

    def matches(self, leaf: str, *changes: Change, draw: int = 0) -> bool:
        """Whether a leaf's gradient is the user's with these changes, at a draw."""
        return bool(self.explained([leaf], *changes, draw=draw))

    def explained(self, leaves: list[str], *changes: Change, draw: int = 0) -> list[str]:
        """Those of the leaves that these changes make equal, at a draw."""
        within = bool(self.tape.carried) and tuple(c.leaves is None for c in changes)
        key = tuple(leaves), draw, within, *((id(c.replaced), id(c.through)) for c in changes)
        if key not in self.memo:
            self.tried += 1
            try:
                is_alike = not any(self.limited.get(leaf) for leaf in leaves)
                values = self.replayed(tuple(leaves), draw, changes) if is_alike else self.predicted(
                    leaves, draw, *changes)
                self.memo[key] = [leaf for leaf, value in zip(leaves, values) if self.agrees(leaf, draw, value)]
            except FAILURES:
                self.memo[key] = []
        return self.memo[key]

    def reached(self, change: Change, leaves: Iterable[str]) -> list[str]:
        """Those of the leaves that a change may alter, the nearest first."""
        found = [leaf for leaf in leaves if any(self.tape.reaches(i, leaf) for i in change.replaced)]
        return sorted(found, key=lambda leaf: self.length(change, leaf))

    def length(self, change: Change, leaf: str) -> int:
        """How many steps a replay runs."""
        return len(self.tape.path(frozenset(change.replaced), (leaf,), False)[0])

    def breaks_nothing(self, *changes: Change, draw: int = 0) -> bool:
        return all(self.matches(leaf, *changes, draw=draw) for leaf in self.settled
                   if any(self.reached(change, [leaf]) for change in changes))

    # -- rounds -----------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Find the causes; return the leaves that stay unexplained."""
        with np.errstate(all="ignore"):
            while self.left() and len(self.causes) < ROUNDS and (best := self.best()) is not None:
                self.accept(best)
        return self.left()

    def left(self) -> list[str]:
        return [leaf for leaf in self.wrong if leaf not in self.settled]

    def accept(self, found: Found) -> None:
        self.causes.append(found)
        self.settled |= set(found.explains)
        for leaf in found.explains:
            if found.transform is not None:
                self.transforms[leaf] = found.transform
            elif found.changes[0].leaves is not None:
                self.limited[leaf] += found.changes
        if found.transform is None and found.changes[0].leaves is None:
            self.tape.accept({i: how for c in found.changes for i, how in c.replaced.items()})

    def best(self) -> Found | None:
        self.memo.clear()
        outer = self.best_transform()
        changes = sorted(all_changes(self.tape, {k: g for k, g in self.given[0].items() if np.isfinite(g).all()}),
                         key=lambda change: change.cost)
        inner = self.best_change(changes)
        if inner is not None and (outer is None or self.rank(inner) <= self.rank(outer)):
            return inner
        if outer is not None and (outer.transform.cost < 2.5 or inner is not None):  # type: ignore[union-attr]
            return outer
        return max((found for search in (self.best_in_some_leaves, self.best_through_an_edge)
                    if (found := search(changes)) is not None), key=lambda found: len(found.explains),
                   default=None) or self.best_pair(changes) or outer

    def rank(self, found: Found) -> tuple:
        if found.transform is not None:
            return -len(found.explains), found.transform.cost + (found.transform.cost < 1 < len(found.explains)), 0
        nearest = self.length(found.changes[-1], found.explains[0])  # of equal paths, the one that ends at the leaf
        return -len(found.explains), round(sum(c.cost for c in found.changes), 6), nearest

    def best_transform(self) -> Found | None:
        others, by_text = [self.others(draw) for draw in range(len(self.given))], defaultdict(list)
        for leaf in (leaf for leaf in self.left() if leaf not in self.transforms):
            top = max(float(np.abs(given[leaf]).max(initial=0)) for given in self.given)
            for t in transforms(self.tape.numbers, leaf, self.given[0][leaf], others[0], top):
                self.tried += 1
                if all(self.agrees(leaf, draw, t.f(g[leaf], g)) for draw, g in enumerate(others)):
                    by_text[t.text].append((leaf, t))
        options = [Found((), pairs[0][1], list(dict.fromkeys(leaf for leaf, _ in pairs))) for pairs in by_text.values()]
        best = min(options, key=self.rank, default=None)
        if best is not None:
            best.also = [option.text for option in sorted(options, key=self.rank)[1:]
                         if option.explains == best.explains][:MOST_TIES]
        return best

    def best_change(self, changes: list[Change]) -> Found | None:
        """The change that explains the most of what is left and breaks nothing. changes: the usual ones first."""
        left, found, most = self.left(), [], MOST_COST
        for is_thorough in (False, True):
            for change in changes:
                if change.cost > most:  # one that explains everything, and what ties with it, has been found
                    break
                first, rest = (reached := self.reached(change, left))[:1], reached[1:]
                if is_thorough:
                    explained = self.explained(rest, change) if change.cost <= COMMON and rest else []
                else:  # most changes fail at the first
                    explained = self.explained(first, change)
                    explained += self.explained(rest, change) if explained else []
                if explained and self.breaks_nothing(change):
                    found.append(Found((change,), None, [leaf for leaf in left if leaf in explained]))
                    most = min(most, change.cost + 1 if len(explained) == len(left) else most)
            if most < MOST_COST:
                break
        return self.confirmed(sorted(found, key=self.rank))

    def best_in_some_leaves(self, changes: list[Change]) -> Found | None:
        """A fault in one copy of an expression: it concerns some leaves, and what is carried on is right."""
        left, found = self.left(), []
        for change in (change for change in changes if change.cost <= COMMON):
            limited, reached = replace(change, leaves=frozenset()), self.reached(change, left)
            if explained := self.explained(reached[:1], limited) + self.explained(reached[1:], limited):
                limited = replace(change, leaves=frozenset(explained))
                found.append(Found((limited,), None, [leaf for leaf in left if leaf in explained]))
        return self.confirmed(sorted(found, key=self.rank))

    def best_through_an_edge(self, changes: list[Change]) -> Found | None:
        """A fault in one term or in one copy of an expression: only on the paths through one edge or one output."""
        tape, left, found, budget = self.tape, self.left(), [], 2 * MOST_STEPS
        out_of = groups(tape.edges, lambda e: e.consumer)
        cuts = [(edges[0], zero(edges), len(tape.steps[tape.totals[edges[0].x]].inputs) > 1,
                 len(out_of[edges[0].consumer]) > 1) for edges in tape.slots]
        cuts += [(change.edge, change.replaced, True, False) for change in changes if change.text.endswith("not used")]
        gradient = functools.cache(lambda leaf, key: tape.gradients((leaf,), replacements[key])[0])
        replacements = {id(cut): cut for _, cut, _, _ in cuts} | {id(c.replaced): c.replaced for c in changes}
        for change, (edge, cut, is_term, is_copy) in itertools.product(changes, cuts):
            if change.cost > COMMON or set(cut) == set(change.replaced):
                continue
            is_term &= any(tape.after[i] >> k & 1 for i in cut for k in change.replaced)
            if not is_term and not (is_copy and any(tape.after[i] >> k & 1 for i in change.replaced for k in cut)):
                continue
            last = change.replaced if is_term else cut
            reached = [leaf for leaf in self.leaves if any(tape.reaches(i, leaf) for i in last)]
            wanted = [leaf for leaf in left if leaf in reached]
            if not wanted or set(reached) & self.settled:
                continue
            where = f"in the formula of {d(tape.say(edge.x))}"
            if is_term:
                where = "in the term of " + (
                    tape.say_arriving(edge.x) if edge.x == edge.consumer else d(tape.say(edge.consumer)))
            limited = replace(change, leaves=frozenset(wanted), through=cut, cost=change.cost + 0.5,
                              text=f"{where} only: {change.text}")
            nearest = min(wanted, key=lambda leaf: self.length(limited, leaf))
            budget -= self.length(limited, nearest)
            if budget < 0:
                break
            try:
                value = gradient(nearest, id(change.replaced)) + gradient(nearest, id(cut)) - tape.gradients(
                    (nearest,), change.replaced | cut)[0]
            except FAILURES:
                continue
            if self.agrees(nearest, 0, value) and (explained := self.explained(wanted, limited)):
                found.append(Found((limited,), None, explained))
        return self.confirmed(sorted(found, key=self.rank))

    def confirmed(self, found: list[Found]) -> Found | None:
        """The first that holds at the other inputs too, with the others that explain as much."""
        best = None
        for candidate in found:
            if best is not None and (len(best.also) == MOST_TIES or candidate.explains != best.explains
                                     or self.rank(candidate)[1] > self.rank(best)[1] + 1):
                continue
            if all(self.matches(leaf, *candidate.changes, draw=draw) for draw in range(1, len(self.given))
                   for leaf in candidate.explains) and (candidate.changes[0].leaves is not None or all(
                       self.breaks_nothing(*candidate.changes, draw=draw) for draw in range(1, len(self.given)))):
                if best is None:
                    best = candidate
                elif candidate.text != best.text and candidate.text not in best.also:
                    best.also.append(candidate.text)
        return best

    def best_pair(self, changes: list[Change]) -> Found | None:
        """Two changes on one path, neither of which explains a gradient by itself.

        Those that make some more entries equal come first, as a fused matrix has a block for each gate."""
        left, short, seen, budget = self.left(), [], set(), MOST_STEPS
        for change in changes:
            reached = self.reached(change, left)
            if not reached or change.cost > 2.9 or self.reached(change, self.settled):
                continue
            leaf = reached[0]
            budget -= self.length(change, leaf)
            if budget < 0:
                break
            try:
                (value,), (before,) = self.predicted([leaf], 0, change), self.predicted([leaf])
                key = leaf, np.round(value, 9).tobytes()
                gain = self.equal_entries(leaf, value) - self.equal_entries(leaf, before)
            except FAILURES:
                continue
            if key not in seen:  # of those that give the same, one
                seen.add(key)
                short.append((gain, change, leaf))
        short.sort(key=lambda entry: -entry[0])
        some = [entry for entry in short if entry[0] > 0][:MOST_GAINERS] or short
        pairs = sorted(((a, b) for a, b in itertools.combinations(some, 2) if a[2] == b[2]),
                       key=lambda pair: pair[0][1].cost + pair[1][1].cost)
        found, budget = [], MOST_STEPS
        for (_, a, leaf), (_, b, _) in pairs:
            budget -= max(self.length(a, leaf), self.length(b, leaf))
            if budget < 0 or a.cost + b.cost > MOST_COST:
                break
            if not set(a.replaced) & set(b.replaced) and self.matches(leaf, a, b) and self.breaks_nothing(a, b):
                found.append(Found((a, b), None, self.explained(left, a, b)))
        return self.confirmed(sorted(found, key=self.rank))

    def equal_entries(self, leaf: str, value: Any) -> float:
        given = self.given[0][leaf]
        if np.shape(value) != given.shape:
            return 0.0
        return float(np.mean(np.abs(value - given) <= self.tolerance * np.abs(given).max(initial=0)))

    # -- what stays unexplained ----------------------------------------------------------------------------------

    def narrowed(self) -> list[str]:
        """Where the fault of unexplained gradients lies: before a gradient from which they follow consistently."""
        notes, left = [], self.left()
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
        tape, shape = self.tape, np.shape(self.tape.steps[calls[0]].example)
        totals = [tape.totals[i] for i in calls if i in tape.totals]
        size = int(np.prod(shape)) * len(totals)
        leaves = tuple(leaf for leaf in left if any(tape.reaches(i, leaf) for i in totals)
                       and self.given[0][leaf].shape == tape.true(leaf).shape
                       and np.isfinite(self.given[0][leaf]).all())
        if len(leaves) < 2 or isinstance(tape.steps[calls[0]].example, tuple) or not 0 < size <= MOST_UNKNOWNS \
                or sum(tape.true(leaf).size for leaf in leaves) <= size:
            return [], size

        def gradients(units: Any) -> list:
            replaced: dict[int, Any] = {i: (lambda value, part=part: part) for i, part in zip(
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
