"""`minigrad inspect`: a model and one sequence under the microscope, as one HTML file."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import checkpoint
from minigrad.cli.arguments import natural, positive
from minigrad.lens import look
from minigrad.model import LAYERS, SequenceModel
from minigrad.names import nearest
from minigrad.report import Report, page
from minigrad.run import CONFIG, METRICS, folder_of, load_model
from minigrad.settings import Settings
from minigrad.tasks import TASKS, Batch, Text
from minigrad.train import LOSSES

WINDOW = 100  # characters of a text, if nothing else is said
LETTERS = {"reber": "BTPSXVE", "anbn": "#ab", "copy": "01234567·!",  # what the symbols of a task are called
           **dict.fromkeys(("temporal-order", "temporal-order-3", "temporal-order-4"), "abcdXYEB")}


def add_inspect(commands: Any) -> None:
    job = commands.add_parser(
        "inspect", help="see what backpropagation through time does in a model, as one HTML file",
        description="Put a model and one sequence under the microscope: values and gradients of every unit at every "
                    "step, gradients against lag, the credit ledger, Jacobians, and the derived source, in one HTML "
                    "file that opens from disk.",
        epilog="examples:\n"
               "  minigrad inspect runs/novel                            of a run, on a sequence of its own task\n"
               "  minigrad inspect runs/novel --text \"It was the best of times\"\n"
               "  minigrad inspect gru --task adding --length 200        a model as it is before any training\n"
               "  minigrad inspect cells.py:MyCell --out mycell.html",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    job.add_argument("what", metavar="DIR|MODEL", help=f"the folder of a run, or a checkpoint in it; or {', '.join(LAYERS)} "
                     "or FILE.py:Class, untrained; the file is run")
    job.add_argument("--text", metavar="TEXT", help="the characters to look at; each is asked for after those before it")
    job.add_argument("--task", metavar="TASK", help="a name that `minigrad tasks` lists, to take a sequence from: that "
                     "of the run, or text")
    job.add_argument("--length", type=positive, metavar="N", help=f"of the task's sequence; of a text, the characters "
                     f"({WINDOW})")
    job.add_argument("--hidden", type=positive, metavar="N", help="units of an untrained model (as the task's recipe)")
    job.add_argument("--seed", type=natural, default=0, metavar="N", help="of the sequence, and of an untrained model "
                     "(%(default)s)")
    job.add_argument("--out", metavar="FILE", default="report.html", help="(%(default)s)")
    job.set_defaults(run=run_inspect)


def run_inspect(arguments: argparse.Namespace) -> int:
    """Write the page, and say where it is."""
    out = Path(arguments.out)
    refuse_foreign(out)
    report = report_of(arguments)
    html = page(report).encode()
    with checkpoint.replacing(out) as file:
        file.write(html)
    print(f"{out}: {len(report.symbols)} steps, {', '.join(lens.name for lens in report.lenses)}, "
          f"{len(html) / 1e6:.1f} MB; open it in a browser")
    return 0


def refuse_foreign(out: Path) -> None:
    """Raises ValueError where --out names a file that is no report: only a report is written over."""
    with checkpoint.named(out, "cannot be read"):
        if out.exists() and b'content="minigrad inspect"' not in out.open("rb").read(1000):
            raise ValueError(f"{out} is there already, and is no report of minigrad inspect: choose another --out")


def report_of(arguments: argparse.Namespace) -> Report:
    """The report that was asked for."""
    subject = of_run(arguments) if Path(arguments.what).exists() else untrained(arguments)
    batch = subject.batch
    ...
