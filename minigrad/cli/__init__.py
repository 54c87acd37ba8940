"""The command `minigrad`: one file for each family of commands. Exit status 0: done, 1: it did not reach what was
asked, 2: bad input.
"""

from __future__ import annotations

import argparse
import os
import sys

from threadpoolctl import threadpool_limits

from minigrad.cli.bench import add_bench
from minigrad.cli.check import add_gradcheck
from minigrad.cli.derive import add_derive
from minigrad.cli.inspect import add_inspect
from minigrad.cli.train import add_sample, add_tasks, add_train
from minigrad.gradcheck import GradcheckError
from minigrad.train import Diverged


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return its exit status.

    One thread of NumPy's matrix products, unless --threads says otherwise: at the sizes of toy models more gain little,
    and where other programs keep the cores busy, they wait for each other (docs/performance.md).
    """
    arguments = parser().parse_args(argv)
    try:
        with threadpool_limits(getattr(arguments, "threads", None) or 1, user_api="blas"):
            return arguments.run(arguments)
    except (Diverged, GradcheckError) as problem:
        return said(1, arguments.command, problem)
    except ValueError as problem:
        return said(2, arguments.command, problem)
    except KeyboardInterrupt:
        return said(1, arguments.command, "interrupted")
    except BrokenPipeError:  # whoever read the output, as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at the exit
        return 1


def said(status: int, command: str, what: object) -> int:
    print(f"minigrad {command}: {what}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="minigrad", description="Train recurrent networks and see their gradients.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    for add in (add_train, add_sample, add_inspect, add_tasks, add_gradcheck, add_derive, add_bench):
        add(commands)
    return top
