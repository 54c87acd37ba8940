"""A change of the derivation: steps of the backward, and what is there in their place.

A fault that a person makes is one of three things, at one place of the code or at several: something else passes an
edge (`put`), a step of a rule reads something else (`reading`), or it is another op (`redone`). Each kind of fault is
one block of the table: a generator of (cost, text, replaced steps, edge), in over_time.py, in_place.py, returned.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from minigrad.auditor.record import Edge
from minigrad.auditor.tape import Replacement, Tape, Values, d


@dataclass(eq=False)
class Change:
    """Replaced steps, and what the search finds out about them.

    cost      how unusual it is: of changes that explain the same, the smallest comes first
    text      the fault in a sentence; `{}` stands for the gradients that it explains
    edge      where it is; None: in what is returned
    explains  the gradients that it makes equal to the user's;  also: other sentences that would give the same numbers
    length    how many steps lie between it and the first of these gradients
    """

    kind: str
    cost: float
    text: str
    replaced: dict[int, Replacement]
    edge: Edge | None = None
    explains: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    length: int = 0

    def __str__(self) -> str:
        return self.text.replace("{}", ", ".join(map(d, self.explains)))


Block = Callable[[Tape, list[dict[str, Any]]], Iterator[tuple]]
KINDS: list[Block] = []


def kind(block: Block) -> Block:
    """Add a block to the table. It gets the tape, and the user's gradients that are not explained, for each draw."""
    KINDS.append(block)
    return block


def all_changes(tape: Tape, given: list[dict[str, Any]]) -> list[Change]:
    """Every change of the table, the most usual first."""
    found = [Change(block.__name__.replace("_", " "), cost, text, replaced, edge)
             for block in KINDS for cost, text, replaced, edge in block(tape, given) if replaced]
    return sorted(found, key=lambda change: change.cost)


def put(edges: Iterable[Edge], how: Callable[[Values, Any, Edge], Any]) -> dict[int, Replacement]:
    """Replace what passes each edge by how(the values, what passes, the edge)."""
    return {e.contribution: lambda v, e=e: how(v, v.own(e.contribution), e) for e in edges}


def scaled(edges: Iterable[Edge], k: float) -> dict[int, Replacement]:
    return put(edges, lambda v, own, e: k * own)


def redone(tape: Tape, steps: Iterable[int], how: Callable) -> dict[int, Replacement]:
    """Replace steps of rules by how(the step, the values of its inputs)."""
    return {i: lambda v, step=tape.steps[i]: how(step, *map(v, step.inputs)) for i in steps}


def reading(tape: Tape, spots: dict[tuple[int, int], Replacement]) -> dict[int, Replacement]:
    """Have steps of rules read something else: {(step, position of its input): what it reads}."""
    read: dict[int, dict[int, Replacement]] = defaultdict(dict)
    for (i, p), what in spots.items():
        read[i][p] = what
    return {i: lambda v, step=tape.steps[i], read=read[i]: step.compute(
        *[read[p](v) if p in read else v(x) for p, x in enumerate(step.inputs)]) for i in read}


def value_of(i: int) -> Replacement:
    return lambda v: v(i)


def same_shape(tape: Tape, i: int, j: int) -> bool:
    return tape.shape(i) == tape.shape(j)
