"""`minigrad audit`: what is wrong with the backward passes that somebody wrote by hand in a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minigrad.cli.arguments import add_command, positive_float
from minigrad.handwritten.judge import status_of
from minigrad.handwritten.process import judge_apart


def add_audit(commands: Any) -> None:
    job = add_command(
        commands, "audit", run_audit, help="say what is wrong with a backward pass that you wrote by hand",
        description="Find the hand-written backward passes in a Python file or notebook, compare each with the derived "
                    "one, and say which fault explains a wrong gradient. The parts of the file that they need are run, "
                    "in a process of their own, under a time limit; what they print is kept apart. Exit status 0: all "
                    "are right, 1: one is wrong, 2: one could not be run or is not written yet.",
        examples=["audit my_lstm.py", "audit rnn_layers.ipynb:lstm_backward --printed",
                  "audit gru.py:backward --forward gru.py:forward --shapes \"x=3,4 h=5,4 W=5,8\""])
    job.add_argument("what", metavar="FILE", help="FILE.py or FILE.ipynb, or FILE:function for one of its functions")
    job.add_argument("--forward", metavar="FILE:function", help="the forward of a function that the audit cannot "
                     "call by itself")
    job.add_argument("--shapes", metavar="TEXT", help="the shapes of that forward's arguments, as \"x=3,4 W=5,3\"")
    job.add_argument("--seconds", type=positive_float, default=300.0, help="time limit in all (%(default)g); one call "
                     "of your code may take 10 s")
    job.add_argument("--printed", action="store_true", help="also show what the file's code printed")


def run_audit(arguments: argparse.Namespace) -> int:
    """Print a verdict for each backward. Raises ValueError if the file cannot be read or run."""
    file, function = split(arguments.what)
    if (arguments.forward is None) != (arguments.shapes is None):
        raise ValueError("--forward and --shapes go together: the forward, and the shapes of its arguments")
    request: dict[str, str | None] = {"file": file}
    if arguments.forward is None:
        request |= {"only": function}
    else:
        forward_file, forward = split(arguments.forward)
        if function is None or forward is None:
            raise ValueError("with --forward name two functions: FILE:function --forward FILE:function")
        request |= {"backward": function, "forward_file": forward_file, "forward": forward, "shapes": arguments.shapes}
    verdicts, printed = judge_apart(request, arguments.seconds)
    conventions = dict.fromkeys(verdict.convention for verdict in verdicts if verdict.convention)
    print(f"{file}: {', '.join(conventions)}")
    print(*verdicts, sep="\n")
    if printed.strip():
        lines = printed.strip("\n").splitlines()
        print(f"your code printed {len(lines)} lines" + (":" if arguments.printed else "; --printed shows them"))
        if arguments.printed:
            print(*(f"| {line}" for line in lines), sep="\n")
    return status_of(verdicts)


def split(what: str) -> tuple[str, str | None]:
    """(file, function or None) of FILE or FILE:function."""
    file, colon, name = what.rpartition(":")
    return (file, name) if colon and not Path(what).exists() and Path(file).suffix else (what, None)
