"""The score of `mg.audit` on planted faults, as a table: `PYTHONPATH=.:tests python tests/auditor/score.py`.

first  the first cause names the fault;  tie: it is named among those that give the same numbers;  whole: every wrong
gradient is explained;  false: causes were printed, and the fault is not among them
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from auditor.planted import FAULTS, TRIAL
from auditor.programs import PROGRAMS

import minigrad as mg
from minigrad.auditor.report import AuditReport


def audited(name: str, old: str = "", new: str = "") -> AuditReport:
    program = PROGRAMS[name]
    assert old in program.backward, (name, old)
    return mg.audit(program.forward, program.run(program.backward.replace(old, new, 1) if old else program.backward),
                    *program.inputs)


@dataclass
class Row:
    """The score of the faults of a program. seconds: of this process, for each fault."""

    faults: int = 0
    first: int = 0
    tie: int = 0
    whole: int = 0
    false: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def score(faults: Iterable[tuple[str, str, str, str]]) -> dict[str, Row]:
    """The rows by program, and "all"."""
    rows = {"all": Row()}
    for name, old, new, said in faults:
        start = time.process_time()
        report = audited(name, old, new)
        seconds = time.process_time() - start
        causes = [[cause.text, *cause.also] for cause in report.causes]
        is_named = any(re.search(said, text) for texts in causes for text in texts)
        for row in (rows["all"], rows.setdefault(name, Row())):
            row.faults += 1
            row.seconds.append(seconds)
            is_first = bool(causes) and re.search(said, causes[0][0]) is not None
            row.first += is_first
            row.tie += is_named and not is_first
            row.whole += bool(causes) and not report.unexplained
            if not is_first:
                where = row.missed if is_named or not causes else row.false
                where.append(f"{name}: {old!r} → {new!r}: {report}")
    return rows


def table(rows: dict[str, Row]) -> str:
    lines = ["| program | faults | first | tie | whole | false | median s | largest s |", "|---" * 8 + "|"]
    for name, row in sorted(rows.items(), key=lambda entry: entry[0] == "all"):
        seconds = sorted(row.seconds)
        lines.append(f"| {name} | {row.faults} | {row.first} | {row.tie} | {row.whole} | {len(row.false)} | "
                     f"{seconds[len(seconds) // 2]:.2f} | {seconds[-1]:.2f} |")
    return "\n".join(lines)


def seconds_of_noise(name: str, seed: int) -> float:
    """The time of an audit that finds no cause: noise in all gradients."""
    program = PROGRAMS[name]
    right = program.run(program.backward)

    def backward(*args: Any) -> dict:
        rng = np.random.default_rng(seed)
        return {key: g + 0.1 * rng.normal(size=g.shape) for key, g in right(*args).items()}
    began = time.process_time()
    report = mg.audit(program.forward, backward, *program.inputs)
    assert report.wrong and not report.causes
    return time.process_time() - began


if __name__ == "__main__":
    rows = score(TRIAL + FAULTS)
    print(table(rows))
    print("\n\n".join(["", *rows["all"].missed, *rows["all"].false]))
    print(f"\nof the trial's {len(TRIAL)}: first", score(TRIAL)["all"].first)
    for name in ("document_cell", "document_lstm"):
        found = [seconds_of_noise(name, seed) for seed in range(6)]
        print(f"noise in the gradients of {name}: {min(found):.2f} to {max(found):.2f} s")
