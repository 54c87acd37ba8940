"""The answer of an audit, as text and as a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape

from minigrad.derived import derive
from minigrad.notebook import table


@dataclass
class Cause:
    """One fault that explains wrong gradients.

    text           the fault in a sentence;  kind: of the table of changes
    explains       the gradients that it makes equal, entry by entry, at all inputs tried
    also           other faults that would give the same numbers
    forward_line   "file:line: text" of the forward, and `backward_line` of the user's backward, if it can be told
    confirmed      at how many inputs it was confirmed beside those of the search
    derived_line   what `derive` prints in the place of that line of the user's, if it can be told
    mend           what to do to that line, if it was tried
    keys           of the change, or of two on one path: what `audit` takes as hints
    """

    text: str
    kind: str
    explains: list[str]
    also: list[str] = field(default_factory=list)
    forward_line: str | None = None
    backward_line: str | None = None
    confirmed: int = 2
    derived_line: str | None = None
    mend: str | None = None
    keys: tuple = ()


@dataclass(repr=False)
class AuditReport:
    """The result of `audit`. It prints as a short text; Jupyter shows a table.

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

    @property
    def ok(self) -> bool:
        return not self.wrong and not self.missing

    def __str__(self) -> str:
        if self.ok:
            return "\n".join(["right: every gradient agrees", *self.notes])
        lines = [f"{label}: {', '.join(names)}" for label, names in (
            ("wrong", self.wrong), ("not written yet", self.missing), ("right", self.right or ["none"])) if names]
        for cause in self.causes:
            lines += ["", cause.text,
                      f"  explains {', '.join(cause.explains)}; confirmed at {cause.confirmed} other inputs"]
            lines += [f"  {label:13} {line}" for label, line in (
                ("your line", cause.backward_line), ("mends it", cause.mend), ("derived line", cause.derived_line),
                ("forward line", cause.forward_line)) if line]
            lines += [f"  the same numbers: {text}" for text in cause.also]
        if self.unexplained:
            lines += ["", f"not explained: {', '.join(self.unexplained)}"]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def note(self, text: str, names: list[str] | None = None) -> None:
        """Add a note, once; `{}` stands for names, without which there is nothing to note."""
        text = "note: " + text.replace("{}", ", ".join(names or []))
        if names != [] and text not in self.notes:
            self.notes.append(text)

    def add_derived_lines(self, forward: Callable, inputs: tuple) -> None:
        """Put the derived line beside each line of the user's. A forward that `derive` refuses has none."""
        try:
            text = derive(forward, *inputs).source
        except Exception:
            return
        for cause in self.causes:
            found = re.search(r":\d+: d_?(\w+)[^=]*=", cause.backward_line or "")
            name = found[1] if found else ""
            if not re.search(rf"\bd_?{re.escape(name)}\b", cause.text):  # it is about another gradient
                name = cause.explains[0].removeprefix("d") if len(cause.explains) == 1 else ""
            lines = re.findall(rf"^ *(d_{re.escape(name)}(?:_in)? = .*)$", text, re.M)
            cause.derived_line = "; ".join(dict.fromkeys(lines)) or None

    def _repr_html_(self) -> str:
        if self.ok:
            return "".join(f"<p>{escape(line)}</p>" for line in str(self).splitlines())
        rows = [(cause.explains, "; ".join([cause.text, *(f"the same numbers: {text}" for text in cause.also)]),
                 cause.backward_line, cause.derived_line, cause.forward_line) for cause in self.causes]
        rows += [(names, text, None, None, None) for names, text in (
            (self.unexplained, "not explained"), (self.missing, "not written yet"), (self.right, "right")) if names]
        head = ("gradient", "error", "what is wrong", "your line", "derived line", "forward line")
        return table("; ".join([str(self).splitlines()[0], *self.notes]), head, [
            (", ".join(names), self.error(names), text, *(re.sub(r"^.*?:(\d+): ", r"line \1: ", line or "")
                                                         for line in lines)) for names, text, *lines in rows])

    def error(self, names: list[str]) -> str:
        """The largest relative error of these gradients, if they are wrong."""
        largest = max(self.wrong.get(name, -1.0) for name in names)
        return "another shape" if largest == float("inf") else "" if largest < 0 else f"{largest:.1e}"
