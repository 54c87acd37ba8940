"""The options that describe a training, shared by `train`, `lr-range` and `sweep`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from minigrad.cli.arguments import natural, positive, positive_float
from minigrad.data import Sequences
from minigrad.training.sequence_model import LAYERS
from minigrad.training.settings import OPTIMIZERS

NAMES = ("task", "text", "data", "cell", "hidden", "layers", "length", "batch", "steps", "lr", "optimizer", "clip",
         "seed", "dtype", "threads", "checkpoint_every")


def add_training_options(job: argparse.ArgumentParser, values: Callable[[Callable], Callable] = lambda kind: kind
                         ) -> None:
    """Add the options. `values` turns the type of one value into that of several, where these may be lists."""
    job.add_argument("task", nargs="?", metavar="TASK", help="a name that `minigrad tasks` lists (text)")
    job.add_argument("--text", metavar="FILE", help="train on a UTF-8 text, in place of Python's language reference")
    job.add_argument("--data", metavar="FILE", help="train on sequences of your own, which minigrad.data.Sequences has "
                     "saved")
    job.add_argument("--cell", type=values(str), metavar="CELL", help=f"{', '.join(LAYERS)}, or FILE.py:Class; the "
                     "file is run")
    job.add_argument("--hidden", type=values(positive), metavar="N", help="units per layer")
    job.add_argument("--layers", type=values(positive), metavar="N", help="number of stacked layers")
    job.add_argument("--length", type=values(positive), metavar="N", help="steps of the task's sequences; for a text "
                     "or own sequences, how many steps gradients flow back")
    job.add_argument("--batch", type=values(positive), metavar="N", help="sequences per step")
    job.add_argument("--steps", type=values(positive), metavar="N", help="maximum number of optimiser steps")
    job.add_argument("--lr", type=values(positive_float), metavar="X", help="step size of the optimiser")
    job.add_argument("--optimizer", type=values(str), metavar="NAME", help=", ".join(OPTIMIZERS))
    job.add_argument("--clip", type=values(positive_float), metavar="X", help="maximum norm of the gradients")
    job.add_argument("--seed", type=values(natural), metavar="N", help="seed of all random numbers (0)")
    job.add_argument("--dtype", choices=["float32", "float64"], help="type of all numbers (float32)")
    job.add_argument("--threads", type=positive, metavar="N", help="threads of NumPy's matrix products (1; more are "
                     "slower when other programs use the cores)")
    job.add_argument("--checkpoint-every", type=positive, metavar="N", help="steps between checkpoints (100)")


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that the user gave, by name."""
    return {name: value for name in NAMES if (value := getattr(arguments, name)) is not None}


def as_settings(given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(task, settings) as `Settings.for_task` takes them. A list of lengths becomes a list of options, or of bptt."""
    given = dict(given)
    text, data, length = (given.pop(name, None) for name in ("text", "data", "length"))
    own = "text" if text is not None else Sequences.name if data is not None else None
    task = given.pop("task", own or "text")
    for option, file, name in (("--text", text, "text"), ("--data", data, Sequences.name)):
        if file is not None and task != name:
            raise ValueError(f"{option} is not for the task {task}: leave the task out to train on a file")
    if own is not None:
        given["options"] = {"file": text if data is None else data}
    if length is not None and task in ("text", Sequences.name):
        given["bptt"] = length
    elif length is not None:
        given["options"] = [{"length": one} for one in length] if isinstance(length, list) else {"length": length}
    return task, given


def option(name: str) -> str:
    """The option of this name, as the user writes it."""
    return name if name == "task" else f"--{name.replace('_', '-')}"
