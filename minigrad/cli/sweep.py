"""`minigrad sweep`: train every combination of some options, each in a folder of its own, and print a table."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from minigrad import interrupt
from minigrad.cli.arguments import add_command, positive
from minigrad.cli.options import add_training_options, as_settings, given_options
from minigrad.training.sweep import WorkerDied, sweep

MOST = 100_000  # values of a range


def add_sweep(commands: Any) -> None:
    job = add_command(
        commands, "sweep", run_sweep, help="train every combination of some options, and print a table",
        description="Train a run for every combination of the options that are lists (rnn,gru) or ranges (0-9), each "
                    "in a folder of its own, on all cores. The same command continues a sweep that was stopped or "
                    "killed, and skips the runs that are done; more values add runs. Options that are not given come "
                    "from the recipe of the task. Exit status 0: all runs have ended.",
        examples=["sweep adding --cell rnn,gru,lstm --seed 0-9 --lr 0.01,0.003 --out runs/adding",
                  "sweep --text novel.txt --hidden 64,128 --out runs/novel --jobs 4"])
    add_training_options(job, several)
    job.add_argument("--out", required=True, metavar="DIR", help="folder of the runs' folders")
    job.add_argument("--jobs", type=positive, metavar="N", help="number of runs at a time, by joblib (one a core)")
    job.add_argument("--quiet", action="store_true", help="print only the table")


def several(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type: one value of this kind, or a list: 1,2,3 or, for whole numbers, 0-9."""
    def read(value: str) -> Any:
        found: list[Any] = []
        for word in value.split(","):
            ends = re.fullmatch(r"(\d+)-(\d+)", word) if kind is not str else None
            if ends:
                first, last = kind(ends[1]), kind(ends[2])
                if not (isinstance(first, int) and 0 <= last - first < MOST):
                    raise argparse.ArgumentTypeError(f"{word!r} is not a range of whole numbers, such as 0-9")
                found += range(first, last + 1)
            else:
                found.append(kind(word.strip()))
        if len(set(found)) < len(found):
            raise argparse.ArgumentTypeError(f"{value!r} lists a value twice")
        return found if "," in value or len(found) > 1 else found[0]
    return read


def run_sweep(arguments: argparse.Namespace) -> int:
    task, settings = as_settings(given_options(arguments))
    bar = sys.stderr is not None and sys.stderr.isatty() and not arguments.quiet
    report = None if arguments.quiet else lambda line: print(line, file=sys.stderr if bar else sys.stdout, flush=True)
    try:
        result = sweep(task, arguments.out, jobs=arguments.jobs or -1, report=report, bar=bar, **settings)
    except KeyboardInterrupt:
        print("interrupted; the runs are saved, and the same command continues them", file=sys.stderr)
        return interrupt.STATUS
    except WorkerDied as problem:
        print(f"minigrad sweep: {problem}", file=sys.stderr)
        return 1
    print(result)
    if not arguments.quiet:
        print(f"kept in {arguments.out}: a folder for each of the {len(result.rows)} runs")
    for row in result.failed:
        print(f"{row['folder']}: {row['failed']}", file=sys.stderr)
    return 1 if result.failed else 0
