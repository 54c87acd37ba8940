"""An exercise is one block: its number and title, the task, the answer, and the check of a learner's answer.

    @exercise("2.1", "A thousandth", '''
    k = 10  # ←
    ''', why="…")
    def thousandth(my):
        \"\"\"The task, in Markdown.\"\"\"
        if my.k != 10:
            yield "what is wrong, as a sentence"

Lines of the answer that end in `# ←` are the learner's to write: the starter has `...` in their place. The check
receives what the learner's file defines, and yields a sentence for each thing that is wrong.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.auditor.audit import audit
from minigrad.engine.arrays import plain
from minigrad.engine.tensor import Tensor
from minigrad.handwritten.source import bound

MARK = "# ←"  # ends a line of the answer that the learner is to write
CHAPTERS = {
    1: "One multiplication", 2: "The same weight, many times", 3: "A curve in the way", 4: "Many units: the Jacobian",
    5: "The whole loss", 6: "Gates", 7: "Does an LSTM's gradient vanish?", 8: "Memory, time and windows",
    9: "The forward way"}
Check = Callable[[Any], Iterator[str]]


@dataclass(frozen=True)
class Exercise:
    """One exercise. task and why are Markdown, answer and starter are Python."""

    number: str
    title: str
    task: str
    answer: str
    starter: str
    why: str
    check: Check

    @property
    def names(self) -> dict[str, bool]:
        """What the learner is to write: {name: whether it is a function}."""
        return {name: isinstance(statement, ast.FunctionDef) for statement in ast.parse(self.starter).body
                if any(is_ellipsis(node) for node in ast.walk(statement)) for name in sorted(bound(statement))}

    @property
    def file(self) -> str:
        """The task as comments, and the starter: a Python file."""
        lines = [f"Exercise {self.number}. {self.title}", "", *self.task.splitlines()]
        return "".join(f"# {line}".rstrip() + "\n" for line in lines) + f"\n{self.starter}"


def is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


EXERCISES: dict[str, Exercise] = {}


def exercise(number: str, title: str, answer: str, *, why: str) -> Callable[[Check], Check]:
    """Register the decorated check as an exercise; its docstring is the task."""
    def register(check: Check) -> Check:
        text = answer.strip() + "\n"
        EXERCISES[number] = Exercise(number, title, inspect.cleandoc(check.__doc__ or ""),
                                     re.sub(rf"\s*{MARK}$", "", text, flags=re.M), starter_of(text),
                                     inspect.cleandoc(why), check)
        return check
    return register


def starter_of(marked: str) -> str:
    """The answer with `...` for what the learner is to write: after `name =` at module level, once in a function."""
    lines: list[str] = []
    for line in marked.splitlines():
        indent = line[:len(line) - len(line.lstrip())]
        if not line.endswith(MARK):
            lines.append(line)
        elif not indent:
            lines.append(f"{line.partition(' = ')[0]} = ...")
        elif lines[-1].strip() != "...":
            lines.append(f"{indent}...")
    return "\n".join(lines) + "\n"


# -- what checks say -------------------------------------------------------------------------------------


def differs(name: str, given: Any, right: Any, tolerance: float = 1e-6) -> Iterator[str]:
    """Yield a sentence if `given` is not what it should be: another type, shape or value. The right value is not said.

    tolerance is relative to the largest right entry.
    """
    right, given = np.asarray(right, float), real_numbers(given)
    if given is None:
        yield f"{name} is not {'an array of numbers' if right.ndim else 'a number'}"
    elif given.shape != right.shape:
        must = f"have shape {right.shape}" if right.ndim else "be one number"
        yield f"{name} has shape {given.shape}, and must {must}"
    elif not np.isfinite(given).all():
        yield f"{name} contains NaN or infinity"
    else:
        wrong = np.abs(given - right) > tolerance * np.abs(right).max(initial=1e-300)
        if wrong.any() and right.ndim:
            yield (f"{name} is wrong in {wrong.sum()} of {right.size} entries, by up to "
                   f"{np.abs(given - right).max():.2g}")
        elif wrong.any():
            yield f"{name} is {given:.6g}, and that is not right"


def real_numbers(x: Any) -> np.ndarray | None:
    """x as an array of floats; None for what is not made of real numbers."""
    try:
        array = np.asarray(x.detach().numpy() if isinstance(x, Tensor) else plain(x))
    except (ValueError, TypeError):  # lists of unequal lengths, text
        return None
    return array.astype(float) if array.dtype.kind in "fiu" else None


def audited(forward: Callable, backward: Callable, **inputs: tuple[int, ...]) -> Iterator[str]:
    """Yield what `mg.audit` says of a wrong backward. inputs: the shapes of the forward's arguments, in order."""
    report = audit(forward, backward, *map(np.zeros, inputs.values()), names={f"d{name}": name for name in inputs})
    if not report.ok:
        yield re.sub(rf"{re.escape(str(Path(__file__).parent))}\S*:\d+: ", "", str(report))  # lines of our forward
