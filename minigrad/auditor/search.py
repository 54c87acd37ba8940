"""The search: which changes of the derivation give exactly the gradients that the user gave?

A change counts only if it makes a wrong gradient equal to the user's, entry by entry, and leaves every gradient equal
that was; at the inputs of the search and at two others. In each round the change that explains the most is accepted,
and the next round looks for what is left with it in place.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.auditor.changes import Change, all_changes, d
from minigrad.auditor.tape import Tape
from minigrad.auditor.transforms import Transform, transforms

ROUNDS = 5  # causes found one after the other
MOST_TIES = 4  # named beside a cause
MOST_COST = 4.5  # of two changes together: beyond, the words do not say what a person did
COMMON = 2.7  # changes of a higher cost are tried at one gradient, and not beside other faults
MOST_PAIR_STEPS = 150_000  # steps run for pairs of changes on one path
MOST_UNKNOWNS = 150  # entries of a gradient that is solved from the user's gradients
MOST_GAINERS = 60  # changes that make more entries equal, tried in pairs


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
        only = self.changes[0].only
        said = "; and ".join(change.text for change in self.changes)
        return said if only is None else f"in {', '.join(map(d, self.explains))} only: {said}"


class Search:
    """given: the user's gradients by leaf, one dict for each draw."""

    def __init__(self, tape: Tape, given: list[dict[str, Any]], tolerance: float):
        self.tape, self.given, self.tolerance = tape, given, tolerance
        self.leaves = [leaf for leaf in tape.leaves if leaf in given[0]]
        self.transforms: dict[str, Transform] = {}
        self.limited: dict[str, tuple[Change, ...]] = defaultdict(tuple)
        self.right = {leaf for leaf in self.leaves if self.holds(leaf)}
        self.wrong = [leaf for leaf in self.leaves if leaf not in self.right]
        self.settled = set(self.right)  # right, or explained
        self.causes: list[Found] = []
        self.tried = 0

    # -- predictions ----------------------------------------------------------------------------------------

    def predicted(self, leaf: str, draw: int, changes: tuple[Change, ...] = ()) -> Any:
        """The gradient of a leaf with what was accepted and these changes."""
        limited = self.limited[leaf] + tuple(c for c in changes if c.within)
        replaced = {i: how for c in (*self.limited[leaf], *changes) for i, how in c.replaced.items()}
        out = self.tape.gradient(leaf, replaced, draw, within=bool(limited))
        if leaf in self.transforms:
            others = self.others(draw)
            out = self.transforms[leaf].f(out, others)
        return out

    def others(self, draw: int) -> dict[Any, Any]:
        """The gradients of all leaves, and of each before it is summed over broadcast axes."""
        out: dict[Any, Any] = {leaf: self.tape.gradient(leaf, {}, draw) for leaf in self.tape.leaves}
        return out | {("unsummed", leaf): self.tape.unsummed(leaf, draw) for leaf in self.tape.leaves}

    def agrees(self, leaf: str, draw: int, value: Any) -> bool:
        given = self.given[draw][leaf]
        if value is None or np.shape(value) != given.shape or not np.isfinite(value).all():
            return False
        difference = np.abs(value - given)
        scale = max(np.abs(value).max(initial=0), np.abs(given).max(initial=0))
        return bool((difference <= self.tolerance * scale).all())

    def holds(self, leaf: str, changes: tuple[Change, ...] = (), draws: Any = None) -> bool:
        """Whether a leaf's gradient is the user's with these changes, at these draws (by default all)."""
        return all(self.agrees(leaf, draw, self.predicted(leaf, draw, changes))
                   for draw in (range(len(self.given)) if draws is None else draws))

    # -- rounds -----------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Find the causes; return the leaves that stay unexplained."""
        with np.errstate(all="ignore"):
            for _ in range(ROUNDS):
                if not self.left():
                    break
                best = self.best()
                if best is None:
                    break
                self.accept(best)
        return self.left()

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
        tape = self.tape
        totals = [tape.totals[i] for i in calls if i in tape.totals]
        shape = np.shape(tape.steps[calls[0]].example) if not isinstance(tape.steps[calls[0]].example, tuple) else ()
        size, true = int(np.prod(shape)) * len(totals), tape.draws[0][0]
        leaves = tuple(leaf for leaf in left if any(tape.after[i] >> tape.total(leaf) & 1 for i in totals)
                       and self.given[0][leaf].shape == true[tape.total(leaf)].shape)
        if len(leaves) < 2 or not 0 < size <= MOST_UNKNOWNS or sum(true[tape.total(x)].size for x in leaves) <= size:
            return [], size

        def gradients(unit: int | None) -> list:
            units = np.zeros(size)
            if unit is not None:
                units[unit] = 1.0
            replaced = {i: (lambda value, part=part: part) for i, part in zip(
                totals, units.reshape(len(totals), *shape))}
            return [np.ravel(g) for g in tape.gradients(leaves, replaced, within=True)]
        rest, units = gradients(None), [gradients(unit) for unit in range(size)]
        alone = [k for k, r in enumerate(rest) if not r.any()]  # the leaves that no other path leads to
        for some in (list(range(len(leaves))), alone):
            if len(some) < 2:
                continue
            base = np.concatenate([rest[k] for k in some])
            wanted = np.concatenate([np.ravel(self.given[0][leaves[k]]) for k in some]) - base
            matrix = np.stack([np.concatenate([unit[k] for k in some]) - base for unit in units], 1)
            solution, _, rank, _ = np.linalg.lstsq(matrix, wanted, rcond=None)
            if rank < len(wanted) and np.abs(matrix @ solution - wanted).max() <= 1e-7 * np.abs(wanted).max():
                return [leaves[k] for k in some], size
        return [], size

    def left(self) -> list[str]:
        return [leaf for leaf in self.wrong if leaf not in self.settled]

    def accept(self, found: Found) -> None:
        self.causes.append(found)
        for leaf in found.explains:
            if found.transform is not None:
                self.transforms[leaf] = found.transform
            elif found.changes[0].only is not None:
                self.limited[leaf] += found.changes
        if found.transform is None and found.changes[0].only is None:
            self.tape.accept({i: how for c in found.changes for i, how in c.replaced.items()})
        self.settled |= set(found.explains)

    def best(self) -> Found | None:
        outer = self.best_transform()
        changes = list(all_changes(self.tape, {k: g for k, g in self.given[0].items() if np.isfinite(g).all()}))
        inner = self.best_change(changes)
        if inner is not None and (outer is None or self.rank(inner) <= self.rank(outer)):
            return inner
        if outer is not None and (outer.transform.cost < 2.5 or inner is not None):  # type: ignore[union-attr]
            return outer
        return self.best_limited(changes) or self.best_pair(changes) or outer

    def rank(self, found: Found) -> tuple:
        if found.transform is not None:
            return -len(found.explains), found.transform.cost + (found.transform.cost < 1 < len(found.explains)), 0
        nearest = self.length(found.changes[-1], found.explains[0])  # of equal paths, the one that ends at the leaf
        return -len(found.explains), round(sum(c.cost for c in found.changes), 6), nearest

    def best_transform(self) -> Found | None:
        others = self.others(0)
        by_text: dict[str, list[tuple[str, Transform]]] = defaultdict(list)
        for leaf in self.left():
            top = max(float(np.abs(given[leaf]).max(initial=0)) for given in self.given)
            for t in transforms(self.tape, leaf, self.given[0][leaf], others[leaf], others, top):
                self.tried += 1
                if self.agrees(leaf, 0, t.f(others[leaf], others)) and leaf not in self.transforms:
                    self.transforms[leaf] = t
                    if self.holds(leaf) and leaf not in [other for other, _ in by_text[t.text]]:
                        by_text[t.text].append((leaf, t))
                    del self.transforms[leaf]
        options = [Found((), pairs[0][1], [leaf for leaf, _ in pairs]) for pairs in by_text.values() if pairs]
        if not options:
            return None
        options.sort(key=self.rank)
        best = options[0]
        best.also = [option.text for option in options[1:] if option.explains == best.explains][:MOST_TIES]
        return best

    def best_change(self, changes: list[Change]) -> Found | None:
        """The change that explains the most of what is left and breaks nothing."""
        left = self.left()
        found: list[Found] = []
        for thorough in (False, True):
            for change in changes:
                if thorough and change.cost > COMMON:
                    continue
                reached = sorted([leaf for leaf in left if self.reaches(change, leaf)],
                                 key=lambda leaf: self.length(change, leaf))
                if thorough:
                    explained = self.explained(reached[1:], change)
                else:  # most changes fail at the first
                    explained = self.explained(reached[:1], change)
                    explained += self.explained(reached[1:], change) if explained else []
                if explained and self.breaks_nothing((change,)):
                    found.append(Found((change,), None, [leaf for leaf in left if leaf in explained]))
            found.sort(key=self.rank)
            if found and len(found[0].explains) == len(left):
                break
        return self.confirmed(found)

    def explained(self, leaves: list[str], change: Change) -> list[str]:
        """Those of the unexplained leaves that the change makes equal at the first draw."""
        if not leaves:
            return []
        self.tried += 1
        try:
            values = self.tape.gradients(tuple(leaves), change.replaced, within=change.within)
        except (ValueError, TypeError, IndexError, KeyError):
            return []
        return [leaf for leaf, value in zip(leaves, values) if self.agrees(leaf, 0, value)]

    def length(self, change: Change, leaf: str) -> int:
        """How many steps a replay runs."""
        return len(self.tape.path(frozenset(change.replaced), (leaf,), False)[0])

    def reaches(self, change: Change, leaf: str) -> bool:
        total = self.tape.total(leaf)
        return any(self.tape.after[i] >> total & 1 for i in change.replaced)

    def matches(self, leaf: str, *changes: Change, draw: int = 0) -> bool:
        self.tried += 1
        try:
            return self.agrees(leaf, draw, self.predicted(leaf, draw, changes))
        except (ValueError, TypeError, IndexError, KeyError):
            return False

    def breaks_nothing(self, changes: tuple[Change, ...], draw: int = 0) -> bool:
        return all(self.matches(leaf, *changes, draw=draw) for leaf in self.settled
                   if any(self.reaches(change, leaf) for change in changes))

    def confirmed(self, found: list[Found]) -> Found | None:
        """The first that holds at the other inputs too, with the others that explain as much."""
        best = None
        for candidate in found:
            if best is not None and (len(best.also) == MOST_TIES or candidate.explains != best.explains
                                     or self.rank(candidate)[1] > self.rank(best)[1] + 1):
                continue
            if all(self.matches(leaf, *candidate.changes, draw=draw) for draw in range(1, len(self.given))
                   for leaf in candidate.explains) and (candidate.changes[0].only is not None or all(
                       self.breaks_nothing(candidate.changes, draw) for draw in range(1, len(self.given)))):
                if best is None:
                    best = candidate
                elif candidate.text != best.text and candidate.text not in best.also:
                    best.also.append(candidate.text)
        return best

    def best_limited(self, changes: list[Change]) -> Found | None:
        """A fault in one copy of an expression: it concerns some leaves, and what is carried on is right."""
        left, found = self.left(), []
        for change in changes:
            if change.cost > COMMON:
                continue
            explained = self.explained([leaf for leaf in left if self.reaches(change, leaf)],
                                       change.limited(frozenset()))
            if explained:
                found.append(Found((change.limited(frozenset(explained)),), None, explained))
        found.sort(key=self.rank)
        return self.confirmed(found)

    def best_pair(self, changes: list[Change]) -> Found | None:
        """Two changes on one path, neither of which explains a gradient by itself.

        Those that make some more entries equal come first, as a fused matrix has a block for each gate."""
        left, short, seen = self.left(), [], set()
        budget = MOST_PAIR_STEPS
        for change in sorted(changes, key=lambda c: c.cost):
            reached = [leaf for leaf in left if self.reaches(change, leaf)]
            if not reached or change.cost > 2.9 or any(self.reaches(change, leaf) for leaf in self.settled):
                continue
            leaf = min(reached, key=lambda leaf: self.length(change, leaf))
            budget -= self.length(change, leaf)
            if budget < 0:
                break
            try:
                value = np.asarray(self.predicted(leaf, 0, (change,)))
                key = leaf, np.round(value, 9).tobytes()
                gain = self.equal_entries(leaf, value) - self.equal_entries(leaf, self.predicted(leaf, 0))
            except (ValueError, TypeError, IndexError, KeyError):
                continue
            if key not in seen:  # of those that give the same, one
                seen.add(key)
                short.append((gain, change, leaf))
        short.sort(key=lambda entry: -entry[0])
        some = [entry for entry in short if entry[0] > 0][:MOST_GAINERS] or short
        pairs = sorted(((a, b) for a, b in itertools.combinations(some, 2) if a[2] == b[2]),
                       key=lambda pair: pair[0][1].cost + pair[1][1].cost)
        found, budget = [], MOST_PAIR_STEPS
        for (_, a, leaf), (_, b, _) in pairs:
            budget -= max(self.length(a, leaf), self.length(b, leaf))
            if budget < 0 or a.cost + b.cost > MOST_COST:
                break
            if not set(a.replaced) & set(b.replaced) and self.matches(leaf, a, b) and self.breaks_nothing((a, b)):
                found.append(Found((a, b), None, [other for other in left if self.matches(other, a, b)]))
        found.sort(key=self.rank)
        return self.confirmed(found)

    def equal_entries(self, leaf: str, value: Any) -> float:
        given = self.given[0][leaf]
        if np.shape(value) != given.shape:
            return 0.0
        return float(np.mean(np.abs(value - given) <= self.tolerance * np.abs(given).max(initial=0)))
