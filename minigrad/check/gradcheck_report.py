"""The result of a gradient check: a row for each input, the rules found wrong, and a table for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.notebook import table


class GradcheckError(AssertionError):
    """A gradient is wrong or cannot be checked. `report` is the GradcheckReport, or None."""

    def __init__(self, message: str, report: GradcheckReport | None = None):
        super().__init__(message)
        self.report: Any = report


@dataclass
class Row:
    """The worst entry of one input, or its worst direction (index None)."""

    order: int
    name: str
    shape: tuple[int, ...]
    checked: str
    error: float = 0.0
    index: tuple[int, ...] | None = None
    derived: float | None = None
    numeric: float | None = None
    verdict: str = "ok"


@dataclass
class GradcheckReport:
    """The result of `gradcheck`. `str(report)` is a short table.

    rows       one `Row` for each input and order
    method     "complex step" or "central differences", and `why` for the latter
    tolerance  the relative error that was allowed
    rounding   the float32 gradient's largest difference from the float64 one, relative to its largest entry; or None
    blamed     the rules found wrong: [("tanh.dx", relative error)]; the cell of a scan is run step by step for
               this. "scan.dinputs" means that the derived program is wrong although each rule in it is right
    locations  {"tanh.dx": "in 1 of 5 calls, as at cell.py:12 in cell, t = 3"}, for a rule that is right elsewhere
    """

    method: str
    tolerance: float
    why: str = ""
    rows: list[Row] = field(default_factory=list)
    rounding: float | None = None
    blamed: list[tuple[str, float]] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(row.verdict == "ok" for row in self.rows)

    @property
    def worst(self) -> Row:
        return max(self.rows, key=lambda row: (row.verdict != "ok", row.error))

    @property
    def summary(self) -> str:
        """One line: the largest error, its place, and the method."""
        return (f"worst relative error {self.worst.error:.1e}, in {self.worst.name} ({self.method}, tolerance "
                f"{self.tolerance:.0e}): {'passed' if self.ok else 'FAILED'}")

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The table as texts, the head first."""
        head = ("order", "input", "shape", "checked", "worst error", "at", "derived", "numeric", "")
        return [head] + [(str(r.order), r.name, str(r.shape), r.checked, f"{r.error:.1e}",
                          "–" if r.index is None else str(r.index),
                          *("–" if slope is None else f"{slope:.10g}" for slope in (r.derived, r.numeric)),
                          r.verdict) for r in self.rows]

    @property
    def notes(self) -> list[str]:
        """The lines below the table."""
        margin = self.tolerance / self.worst.error if self.worst.error else np.inf
        lines = [f"{self.method}{' (' + self.why + ')' if self.why else ''}, tolerance {self.tolerance:.0e}, "
                  f"margin {margin:.1g}: {'passed' if self.ok else 'FAILED'}"]
        if self.rounding is not None:
            lines += [f"float32 rounding of the gradient: {self.rounding:.1e}"]
        lines += [f"the rule {name} is wrong: off by {error:.1e} in a separate check"
                  + (f", {self.locations[name]}" if name in self.locations else "") for name, error in self.blamed]
        return lines

    def __str__(self) -> str:
        cells = self.cells
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
        return "\n".join(lines + self.notes)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *rows = self.cells
        return table("; ".join(self.notes), head, rows)
