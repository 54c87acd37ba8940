"""A change of the derivation: steps of the backward, and what is there in their place.

A fault that a person makes is one of three things, at one place of the code or at several: something else passes an
edge, a step of a rule is another op, or it reads something else (`reading`). Each kind of fault is one block of the
table, a generator of (cost, text, replaced steps[, where]), in paths.py, rules.py, over_time.py and returned.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from minigrad.auditor.record import Step
from minigrad.auditor.tape import Replaced, Tape, Values
from minigrad.auditor.words import d


@dataclass(eq=False)
class Change:
    """Replaced steps, and what the search finds out about them.

    cost      how unusual it is: of changes that explain the same, the smallest comes first
    text      the fault in a sentence; `{}` stands for the gradients that it explains
    where     an edge or a step of a rule, by default the first replaced step; None: in what is returned
    explains  the gradients that it makes equal to the user's;  also: other sentences that would give the same numbers
    length    how many steps lie between it and the first of these gradients
    whole     the change that this one is on some paths only;  parts: the two that it is made of
    """

    kind: str
    cost: float
    text: str
    replaced: Replaced
    where: Step | None = None
    explains: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    length: int = 0
    whole: Change | None = None
    parts: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        first = next(iter(self.replaced))
        self.where = self.where or (first if first.x else None)

    @property
    def key(self) -> tuple:
        """Its kind and its places, which are the same for any number of steps."""
        return self.kind, frozenset(step.place for step in self.replaced)

    def __str__(self) -> str:
        text = self.text.replace("{} is", "{} are") if self.explains[1:] else self.text
        return text.replace("{}", ", ".join(map(d, self.explains)))


Block = Callable[[Tape, list[dict[str, Any]]], Iterator[tuple]]
KINDS: list[Block] = []


def kind(block: Block) -> Block:
    """Add a block to the table. It gets the tape, and the user's gradients that are not explained, for each draw."""
    KINDS.append(block)
    return block


def all_changes(tape: Tape, given: list[dict[str, Any]]) -> list[Change]:
    """Every change of the table, the most usual first."""
    found = [Change(block.__name__.replace("_", " "), *change)
             for block in KINDS for change in block(tape, given) if change[2]]
    return sorted(found, key=lambda change: change.cost)


def scaled(edges: Iterable[Step], k: float) -> Replaced:
    return dict.fromkeys(edges, lambda v, e: k * v.own(e))


def reading(spots: dict[tuple[Step, int], Any]) -> Replaced:
    """Have steps of rules read something else: {(step, which input): another step, or a function of the values, the
    step and the input that is meant}."""
    def read(v: Values, step: Step, p: int) -> Any:
        what = spots.get((step, p), step.inputs[p])
        return v(what) if isinstance(what, Step) else what(v, step, step.inputs[p])
    return {step: lambda v, step: step.compute(*[read(v, step, p) for p in range(len(step.inputs))])
            for step, _ in spots}
