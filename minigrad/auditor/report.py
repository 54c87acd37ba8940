"""The answer of an audit, as text and as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape


@dataclass
class Cause:
    """One fault that explains wrong gradients.

    text           the fault in a sentence;  kind: of the table of changes
    explains       the gradients that it makes equal, entry by entry, at all inputs tried
    also           other faults that would give the same numbers
    forward_line   "file:line: text" of the forward, and `backward_line` of the user's backward, if it can be told
    confirmed      at how many inputs it was confirmed beside those of the search
    """

    text: str
    kind: str
    explains: list[str]
    also: list[str] = field(default_factory=list)
    forward_line: str | None = None
    backward_line: str | None = None
    confirmed: int = 2


@dataclass
class AuditReport:
    """The result of `audit`. `str(report)` is a short text; Jupyter shows a table.

    right        the gradients that are right;  wrong: {gradient: relative error} of the others
    missing      gradients that were not returned, or are None
    causes       the faults found;  unexplained: wrong gradients that none explains
    notes        what else was seen: arguments changed in place, float32, hints on what is unexplained
    """

    right: list[str] = field(default_factory=list)
    wrong: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tried: int = 0

    @property
    def ok(self) -> bool:
        return not self.wrong and not self.missing

    def __str__(self) -> str:
        if self.ok:
            return "\n".join(["right: every gradient agrees", *self.notes])
        lines = []
        if self.wrong:
            lines += [f"wrong: {', '.join(self.wrong)}"]
        if self.missing:
            lines += [f"not written yet: {', '.join(self.missing)}"]
        lines += [f"right: {', '.join(self.right) or 'none'}"]
        for cause in self.causes:
            lines += ["", cause.text]
            lines += [f"  explains {', '.join(cause.explains)}; confirmed at {cause.confirmed} other inputs"]
            if cause.backward_line:
                lines += [f"  your line     {cause.backward_line}"]
            if cause.forward_line:
                lines += [f"  forward line  {cause.forward_line}"]
            lines += [f"  the same numbers: {text}" for text in cause.also]
        if self.unexplained:
            lines += ["", f"not explained: {', '.join(self.unexplained)}"]
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        if self.ok:
            return "".join(f"<p>{escape(line)}</p>" for line in str(self).splitlines())
        rows = [("gradient", "relative error", "cause", "your line", "forward line")]
        for name, error in self.wrong.items():
            cause = next((cause for cause in self.causes if name in cause.explains), None)
            rows.append((name, f"{error:.1e}", cause.text if cause else "not explained",
                         (cause and cause.backward_line) or "", (cause and cause.forward_line) or ""))
        rows += [(name, "0", "right", "", "") for name in self.right]
        rows += [(name, "", "not written yet", "", "") for name in self.missing]
        cells = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
                 for tag, row in zip(["th"] + ["td"] * len(rows), rows)]
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>" + notes
