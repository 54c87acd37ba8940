"""`minigrad gradcheck`: compare the gradients of a model with numerical ones."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.cli.arguments import add_command
from minigrad.tasks.task import length_mask
from minigrad.training.sequence_model import LAYERS, SequenceModel
from minigrad.training.trainer import check_loss


def add_gradcheck(commands: Any) -> None:
    job = add_command(
        commands, "gradcheck", run_gradcheck, help="check the gradients of a model against numerical ones",
        description="Check the gradients of an embedding, two recurrent layers over sequences of unequal lengths, a "
                    "linear layer and cross-entropy, all at once, against numerical ones.",
        examples=["gradcheck", "gradcheck lstm", "gradcheck cells.py:MyCell"])
    job.add_argument("model", nargs="?", metavar="MODEL", help=f"{', '.join(LAYERS)}, or FILE.py:Class, a subclass of "
                     "nn.Recurrent; the file is run. By default all of them")


def run_gradcheck(arguments: argparse.Namespace) -> int:
    """Print a line per model; print the full report if one model is named or a check fails."""
    status = 0
    for cell in [arguments.model] if arguments.model else LAYERS:
        report = check_cell(cell)
        print(f"{cell}: {report.summary}")
        if arguments.model or not report.ok:
            print(report)
        status = status if report.ok else 1
    return status


def check_cell(cell: str) -> Any:
    rng = np.random.default_rng(0)
    T, batch, symbols = 4, 3, 6
    model = SequenceModel(symbols, symbols, cell=cell, hidden=5, layers=2, symbols=True, embedding=4, rng=rng)
    x, targets = rng.integers(0, symbols, (2, T, batch))
    lengths = np.array([T, 1, 2])

    def loss():
        return nn.cross_entropy(model(x, None, lengths)[0], targets, mask=length_mask(lengths, T))
    return check_loss(loss, model)
