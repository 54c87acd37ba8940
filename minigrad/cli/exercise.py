"""`minigrad exercise`: list the exercises of the course, print one, or check an answer."""

from __future__ import annotations

import argparse
from typing import Any

from minigrad.cli.arguments import add_command, positive_float
from minigrad.exercises import CHAPTERS, EXERCISES
from minigrad.exercises.learner import check_apart


def add_exercise(commands: Any) -> None:
    job = add_command(
        commands, "exercise", run_exercise, help="list the exercises of the course, print one, or check your answer",
        description="Without a number, list the exercises of docs/bptt.md. With a number, print the task as comments, "
                    "and a file to start from. With a file too, run the file, in a process of its own and under a time "
                    "limit, and check the answer. Exit status 0: right, 1: not right yet, 2: the file could not be run "
                    "or is not finished.",
        examples=["exercise", "exercise 3.2 > my.py", "exercise 3.2 my.py", "exercise 3.2 --answer"])
    job.add_argument("number", nargs="?", metavar="NUMBER", help="of an exercise, as 3.2")
    job.add_argument("file", nargs="?", metavar="FILE", help="your answer: a .py file or a notebook; it is run")
    job.add_argument("--answer", action="store_true", help="print an answer in place of the task")
    job.add_argument("--seconds", type=positive_float, default=60.0, help="time limit in all (%(default)g); the file, "
                     "and then its check, may take 10 s each")


def run_exercise(arguments: argparse.Namespace) -> int:
    """Print, or check a file. Raises ValueError for an unknown number, and for a file that cannot be run."""
    number = arguments.number
    if number is None:
        for chapter, title in CHAPTERS.items():
            print(f"{chapter}. {title}")
            print(*(f"  {e.number}  {e.title}" for e in EXERCISES.values() if e.number.startswith(f"{chapter}.")),
                  sep="\n")
        print("`minigrad exercise 1.1 > my.py` writes the task and a file to start from, "
              "`minigrad exercise 1.1 my.py` checks your answer")
        return 0
    if number.endswith((".py", ".ipynb")):
        raise ValueError(f"the number of the exercise comes first: minigrad exercise 1.1 {number}")
    if number not in EXERCISES:
        chapter = number.partition(".")[0]
        known = [n for n in EXERCISES if n.startswith(f"{chapter}.")]
        raise ValueError(f"there is no exercise {number}: " + (f"chapter {chapter} has {', '.join(known)}" if known else
                         "`minigrad exercise` lists them"))
    exercise = EXERCISES[number]
    if arguments.file is None:
        print(f"{exercise.answer}\n{commented(exercise.why)}" if arguments.answer else exercise.file, end="")
        return 0
    problem, printed = check_apart(exercise, arguments.file, arguments.seconds)
    if printed.strip():
        print(*(f"| {line}" for line in printed.strip("\n").splitlines()), sep="\n")
    print(f"exercise {number}: {'right' if problem is None else 'not right yet'}")
    print(exercise.why if problem is None else problem)
    return 0 if problem is None else 1


def commented(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
