"""Buffer assignment for a scanned cell: the array, the variable name and the view of every value.

A `Storage` is an array, a time index in it, and a view applied to it. The two loops of a cell share a `Scope`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minigrad.engine.ops import concatenate, matmul, where
from minigrad.printers.readable import Emitter, values_in
from minigrad.printers.text import bracket, dtype_text, slice_text
from minigrad.program.analysis import Aliases, part_slices
from minigrad.program.ir import Value
from minigrad.program.simplify import Program

LEVEL = re.compile(r"\[([^\]]*)\]")  # one index of a path


@dataclass(frozen=True, eq=False)  # by identity: part of the key of every call of scan
class Options:
    """Passes of the planner, all on. Tests switch off one at a time."""

    reuse: bool = True  # reuse the buffers of dead values
    placed: bool = True  # write parts of a concatenation directly into it
    hoisted: bool = True  # compute loop invariants before the loop
    gathered: bool = True  # sum weight gradients as one product for a block of steps
    blocked: bool = True  # split large products into row blocks
    ahead: bool = True  # compute values that do not depend on the previous step for a block of steps at once


ALL_PASSES = Options()


@dataclass(frozen=True)
class Storage:
    """Storage of a value: buffer, time index, and the view applied to it (`path`).

    kind: "stack" (an array over time), "turn" (two arrays in turn), "block" (an array over K steps), "buffer" (one
    array), or "local" (a variable)
    """

    array: str
    kind: str
    offset: int = 0
    path: str = ""
    contiguous: bool = True
    scalar: bool = False  # one number a step: then [t, ...] keeps it an array

    @property
    def text(self) -> str:
        t = f"t + {self.offset}" if self.offset else "t"
        step = {"stack": t, "turn": f"({t}) % 2" if self.offset else "t % 2", "block": "t % K"}.get(self.kind)
        return f"{self.array}{self.index(step)}{self.path}"

    def index(self, step: str | None) -> str:
        return "" if step is None else f"[{step}, ...]" if self.scalar else f"[{step}]"

    def at(self, t: str) -> str:
        """The place at a given step, 0 or T, which the offset is not added to."""
        return f"{self.array}{self.index(f'{t} % 2' if self.kind == 'turn' and t != '0' else t)}{self.path}"

    def over_time(self) -> str | None:
        """All steps as one array (T, …), where the path is made of plain indices."""
        if self.kind != "stack" or "." in self.path:
            return None
        steps = f"{self.offset}:T + {self.offset}" if self.offset else ":T"
        first, *others = LEVEL.findall(self.path) or [""]
        return f"{self.array}[{steps}{', ' if first else ''}{first}]" + "".join(f"[:, {index}]" for index in others)

    @property
    def lies_in_blocks(self) -> bool:
        """Whether the steps of a block are adjacent in memory."""
        return self.kind in ("block", "stack") and "." not in self.path

    def over_block(self) -> str:
        """The steps from start to stop as one array."""
        assert self.lies_in_blocks, f"{self} is nowhere for a block of steps"
        offset = f" + {self.offset}" if self.offset else ""
        steps = ":stop - start" if self.kind == "block" else f"start{offset}:stop{offset}"
        return f"{self.array}[{steps}]" + "".join(f"[:, {index}]" for index in LEVEL.findall(self.path))


def part_paths(whole: Value) -> list[str]:
    """The slice of a concatenation that each of its inputs fills, as text."""
    return [f"[{slice_text(index)}]" for index in part_slices(whole)]


def empty(shape: Iterable, dtype: Any) -> str:
    return f"np.empty({bracket([str(n) for n in shape], '(')}, {dtype_text(dtype)})"


def can_be_buffered(value: Value) -> bool:
    """Whether its statements write directly into a buffer."""
    op = value.op
    return op.ufunc is not None or op.buffered is not None or op in (matmul.op, where.op, concatenate.op)


class Scope:
    """Names, storage and aliases of a cell's values, shared by its two loops.

    storage    assigned so far
    inputs     {x: its position in xs}
    invariant  loop invariants
    """

    def __init__(self, program: Program, options: Options, reserved: frozenset[str]):
        self.options = options
        self.emitter = Emitter(program, reserved)
        self.storage: dict[Value, Storage] = {}
        self.inputs = {a: k for k, a in enumerate(values_in(program.arguments[1][1]))}
        self.invariant: set[Value] = set()
        self.constants: dict[str, Any] = {}  # too large to be written into the text
        self.free = self.emitter.free
        self.next_number = itertools.count(1).__next__
        self.aliases = Aliases(self.invariant, can_be_buffered)

    def name(self, value: Value) -> str:
        if value not in self.emitter.names:
            self.emitter.names[value] = self.free(f"t{self.next_number()}")
        return self.emitter.names[value]
