"""`minigrad plot`: draw the training curves of runs into a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minigrad.cli.arguments import add_command, positive
from minigrad.files.atomic import atomic_write
from minigrad.microscope.figures.plot import curves

FORMATS = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")


def add_plot(commands: Any) -> None:
    job = add_command(
        commands, "plot", run_plot, help="draw the training curves of runs",
        description="Draw the training curves of one run or several, each with its name, into one picture.",
        examples=["plot runs/adding", "plot runs/rnn runs/lstm --what metric --out compared.svg"])
    job.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, or its metrics.jsonl")
    job.add_argument("--what", default="loss", metavar="NAME", help="loss, metric, norm or lr (%(default)s)")
    job.add_argument("--smooth", type=positive, metavar="N", help="rows to average (a fiftieth of the run)")
    job.add_argument("--log", action="store_true", help="logarithmic axis")
    job.add_argument("--out", default="curves.png", metavar="FILE",
                     help=f"picture to write, {', '.join(FORMATS)}; an older one is overwritten (%(default)s)")


def run_plot(arguments: argparse.Namespace) -> int:
    """Write the picture and print its path."""
    out = Path(arguments.out)
    if out.suffix.lower() not in FORMATS or out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"{out} cannot be written as a picture: let --out name a file in a folder that exists, ending "
                         f"in {', '.join(FORMATS)}")
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
        ax = curves(arguments.runs if len(arguments.runs) > 1 else arguments.runs[0], what=arguments.what,
                    smooth=arguments.smooth, log=arguments.log)
    except ModuleNotFoundError:
        raise ValueError("pictures need matplotlib, which is not installed: pip install matplotlib") from None
    if len(arguments.runs) == 1:
        ax.set_title(f"{arguments.runs[0]}: {arguments.what} over the training", loc="left", fontsize="medium",
                     parse_math=False)
    with atomic_write(out) as file:
        ax.figure.savefig(file, format=out.suffix[1:].lower(), dpi=150)
    pyplot.close(ax.figure)
    print(f"{out}: {arguments.what} of {', '.join(arguments.runs)}")
    return 0
