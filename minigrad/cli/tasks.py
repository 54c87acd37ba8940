"""`minigrad tasks`: list the tasks, or show one with its setup, defaults, recipe and published figures."""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from dataclasses import MISSING, fields
from typing import Any

from minigrad.cli.arguments import add_command
from minigrad.data import Sequences
from minigrad.tasks import Task
from minigrad.training.settings import KNOWN_TASKS, refuse_unknown

WIDTH = 80  # maximum width of the text


def add_tasks(commands: Any) -> None:
    job = add_command(commands, "tasks", run_tasks, help="list the tasks that `minigrad train` knows, or show one",
                      description="List the tasks that `minigrad train` knows, one per line, or show one: its setup, "
                                  "defaults, recipe and published figures.", examples=["tasks", "tasks adding"])
    job.add_argument("name", nargs="?", metavar="NAME", help="a task")


def run_tasks(arguments: argparse.Namespace) -> int:
    if arguments.name is not None:
        print(describe(arguments.name))
        return 0
    width = max(map(len, KNOWN_TASKS))
    for name, task in KNOWN_TASKS.items():
        print(f"{name:<{width}}  {first_line(task)}")
    return 0


def first_line(task: type) -> str:
    return inspect.getdoc(task).partition("\n")[0]


def describe(name: str) -> str:
    """The text on one task. Raises ValueError for an unknown name."""
    refuse_unknown("there is no task", [name], KNOWN_TASKS)
    kind = KNOWN_TASKS[name]
    parts = [filled(f"{name}: {first_line(kind)}"), *map(filled, inspect.getdoc(kind).split("\n\n")[1:])]
    if kind.__bases__ != (Task,):  # a variant
        base = kind.__bases__[0]
        parts += map(filled, f"{base.__name__}: {inspect.getdoc(base)}".split("\n\n"))
    options = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
    rows = [("options", ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none"),
            ("recipe", ", ".join(f"{key} {value}" for key, value in kind.recipe.items()))]
    if name not in ("text", Sequences.name):  # a text or own sequences decide theirs
        task = kind()
        rows += [("baseline", f"{task.baseline:.4g} {task.metric_name}, without memory"),
                 ("solved", f"{'at' if task.higher_is_better else 'below'} {task.goal:.4g}")]
    how = {"text": "--text FILE", Sequences.name: "--data FILE"}.get(name, name)
    rows.append(("train", f"minigrad train {how}"))
    table = "\n".join(textwrap.fill(text, WIDTH, initial_indent=f"{key:<10}", subsequent_indent=" " * 10,
                                    break_on_hyphens=False) for key, text in rows)
    return "\n\n".join([*parts, table])


def filled(paragraph: str) -> str:
    """A paragraph as wide as a terminal; the lines of a table keep their own."""
    lines = paragraph.splitlines()
    if not any(re.match(r"\w+ {2,}\S", line) for line in lines):
        return textwrap.fill(" ".join(lines), WIDTH, break_on_hyphens=False, break_long_words=False)
    rows: list[str] = []
    for line in lines:  # a line that is indented continues the one before it
        rows = [*rows[:-1], f"{rows[-1]} {line.strip()}"] if line.startswith(" ") and rows else [*rows, line]
    indent = max(len(re.match(r"\w+ {2,}|", row)[0]) for row in rows)
    return "\n".join(textwrap.fill(row, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False) for row in rows)
