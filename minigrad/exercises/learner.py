"""Run a learner's file and check it against its exercise."""

from __future__ import annotations

import ast
import linecache
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from minigrad.exercises import EXERCISES, Exercise
from minigrad.exercises.exercise import is_ellipsis
from minigrad.handwritten.process import run_apart
from minigrad.handwritten.source import CouldNotRun, Source, explained, read


def check_apart(exercise: Exercise, file: str, seconds: float) -> tuple[str | None, str]:
    """(what is wrong, or None; what the file printed). Raises CouldNotRun for a file that cannot be run in time, and
    for one that is not finished."""
    return run_apart(check_file, {"file": file, "number": exercise.number}, seconds)


def check_file(file: str, number: str) -> str | None:
    """The first thing that is wrong with a learner's file, or None. Raises CouldNotRun. Runs the file here."""
    exercise, source = EXERCISES[number], read(file)
    refuse_unwritten(source)
    namespace = run_whole(source)
    if missing := [name for name in exercise.names if name not in namespace]:
        raise CouldNotRun(f"{file} does not define {', '.join(missing)}: `minigrad exercise {number}` prints a file to "
                          "start from")
    for name, is_function in exercise.names.items():
        if is_function and not callable(namespace[name]):
            raise CouldNotRun(f"{file}: {name} is not a function at the end of the file")
    with explained(source, file):
        return next(exercise.check(SimpleNamespace(**namespace)), None)


def refuse_unwritten(source: Source) -> None:
    """Raise CouldNotRun for a `...` of the starter."""
    indices = {id(inner) for node in ast.walk(source.tree) if isinstance(node, ast.Subscript)
               for inner in ast.walk(node.slice)}
    for node in ast.walk(source.tree):
        if is_ellipsis(node) and id(node) not in indices:
            raise CouldNotRun(f"{source.file}: {source.place(node.lineno)} is still `...`: write your code there")


def run_whole(source: Source) -> dict[str, Any]:
    """Run all of a file and return its namespace. Like a script, it may import modules beside it."""
    namespace: dict[str, Any] = {"__name__": "minigrad_user", "__file__": source.file}
    sys.path.insert(0, str(Path(source.file).resolve().parent))
    linecache.cache[source.file] = (len(source.text), None, source.text.splitlines(True), source.file)
    with explained(source, source.file):
        exec(compile(source.tree, source.file, "exec", dont_inherit=True), namespace)
    return namespace
