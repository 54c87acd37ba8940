"""The figures on the pages, each with the command that gives it, and their check.

    python tests/claims.py              check every claim that is quick: it recomputes, or reads recorded runs
    python tests/claims.py --slow       check the slow ones too: they measure again
    python tests/claims.py --write      write the table docs/claims.md

To add a figure, add a `Claim` to CLAIMS: its page, a passage of that page word for word, the command that a reader runs,
and a function that returns the passage, or True if the passage is right. The tests run the quick ones, and check that
every passage is on its page and that docs/claims.md is this table. What a code block prints needs no claim:
tests/test_docs.py compares it.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Claim:
    """A passage with figures on a page.

    page      below the root, as "docs/tasks.md"
    passage   its text, word for word but for line breaks; or the lines of a table
    command   what gives the figures
    check     returns the passage as it is measured now, or whether the passage is right
    slow      measures for longer than a second or two
    what      the claim in a few words, where the passage is long
    """

    page: str
    passage: str | Callable[[], list[str]]
    command: str
    check: Callable[[], Any] = lambda: True
    slow: bool = False
    what: str = ""

    @property
    def text(self) -> str:
        return self.passage if isinstance(self.passage, str) else "\n".join(self.passage())

    @property
    def name(self) -> str:
        return self.what or self.text

    def problem(self) -> str | None:
        """What is wrong with the claim, in a sentence; None if nothing is."""
        if unbroken(self.text) not in unbroken((ROOT / self.page).read_text(encoding="utf-8")):
            missing = next((line for line in self.text.splitlines()
                            if unbroken(line) not in unbroken((ROOT / self.page).read_text(encoding="utf-8"))), self.text)
            return f"{self.page} does not say: {missing}"
        found = self.check()
        if found is True or (isinstance(found, str) and unbroken(found) == unbroken(self.text)):
            return None
        return f"{self.page} says {self.text!r}, and `{self.command}` gives {found!r}"


def unbroken(text: str) -> str:
    return " ".join(text.replace("\n> ", "\n").split())


# -- recorded runs --------------------------------------------------------------------------------------------


@cache
def script(path: str) -> dict[str, Any]:
    """The names of a script of the repository."""
    folder = str((ROOT / path).parent)
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(str(ROOT / path))
    finally:
        sys.path.remove(folder)


def lag_runs() -> list[dict]:
    example = script("examples/long_lags.py")
    return example["read"](example["RESULTS"])


def task_table(*rows: str) -> Callable[[], list[str]]:
    def lines() -> list[str]:
        bench = script("tests/benchmarks/tasks.py")
        return bench["table"](bench["read"](bench["RESULTS"]), list(rows))
    return lines


def measured_again(path: str, arguments: list[str]) -> Callable[[], Any]:
    """A check that runs a command of the repository and finds the passage in what it prints."""
    raise NotImplementedError


CLAIMS: list[Claim] = []
