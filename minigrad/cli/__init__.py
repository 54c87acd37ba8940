"""The command `minigrad`: one file per family of commands.

Exit status 0: done, 1: failed or goal not reached, 2: bad input, 130: interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from threadpoolctl import threadpool_limits

from minigrad import interrupt
from minigrad.check.gradcheck import GradcheckError
from minigrad.cli.arguments import Parser
from minigrad.cli.audit import add_audit
from minigrad.cli.bench import add_bench
from minigrad.cli.check import add_gradcheck
from minigrad.cli.derive import add_derive
from minigrad.cli.exercise import add_exercise
from minigrad.cli.inspect import add_inspect
from minigrad.cli.plot import add_plot
from minigrad.cli.sweep import add_sweep
from minigrad.cli.tasks import add_tasks
from minigrad.cli.train import add_lr_range, add_sample, add_train
from minigrad.training.settings import KNOWN_TASKS
from minigrad.training.trainer import Diverged


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    NumPy's matrix products use one thread unless --threads is given: for toy models more threads gain little, and if
    other programs use the cores, BLAS threads wait for one another (docs/performance.md).
    """
    command = "minigrad"
    with printable(sys.stdout), printable(sys.stderr):
        try:
            top = parser()
            arguments = top.parse_args(argv)
            if arguments.command is None:
                top.print_help()
                return 0
            command = f"minigrad {arguments.command}"
            with threadpool_limits(getattr(arguments, "threads", None) or 1, user_api="blas"):
                status = arguments.run(arguments)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where an error can still be reported
            return status
        except (Diverged, GradcheckError) as problem:
            return fail(1, command, problem)
        except ValueError as problem:
            return fail(2, command, problem)
        except MemoryError as problem:
            return fail(1, command, f"there is not enough memory for these sizes ({problem or 'MemoryError'})")
        except KeyboardInterrupt:
            return interrupt.STATUS
        except BrokenPipeError:  # the reader (`| head`) closed the pipe
            discard_output()
            return 1
        except OSError as problem:
            discard_output()
            return fail(1, command, f"{problem.filename or 'the output'}: {problem.strerror or problem}")


def fail(status: int, command: str, what: object) -> int:
    print(f"{command}: {what}", file=sys.stderr)
    return status


@contextlib.contextmanager
def printable(stream: Any) -> Iterator[None]:
    """Escape characters that the terminal cannot encode, instead of losing a finished result to an error."""
    if not hasattr(stream, "reconfigure"):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # the pipe has no reader, or the stream is closed
            stream.reconfigure(errors=before)


def discard_output() -> None:
    """Send the rest of the output to /dev/null; otherwise Python reports an error at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> Parser:
    top = Parser(prog="minigrad", description="Train recurrent networks and see their gradients.")
    top.add_argument("--version", action="version", version=f"minigrad {sys.modules['minigrad'].__version__}")
    top.known_elsewhere = {name: f"train {name}" for name in KNOWN_TASKS} | {"help": "--help"}
    commands = top.add_subparsers(dest="command", metavar="command")
    for add in (add_train, add_sample, add_sweep, add_lr_range, add_inspect, add_plot, add_tasks,
                add_gradcheck, add_audit, add_derive, add_exercise, add_bench):
        add(commands)
    return top
