"""`minigrad train`, `minigrad sample` and `minigrad lr-range`: check, train and sample a model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from minigrad.cli.arguments import add_command, add_trust, encode, natural, natural_float, positive
from minigrad.cli.options import add_training_options, as_settings, given_options, option
from minigrad.cli.tasks import first_line
from minigrad.data import Sequences
from minigrad.files.atomic import atomic_write
from minigrad.tasks.text import unigram_bits
from minigrad.training.lr_range import lr_range_test
from minigrad.training.run import Run, load_model
from minigrad.training.sampling import sample
from minigrad.training.sequence_model import LAYERS
from minigrad.training.settings import Settings


def add_train(commands: Any) -> None:
    job = add_command(
        commands, "train", run_train, help="check the gradients of a model, then train it on a task or a text",
        description="Check the gradients of a recurrent model, train it on a task, on the characters of a text or on "
                    "sequences of your own, and measure it. Options that are not given come from the recipe of the "
                    "task.",
        examples=["train                                    on Python's language reference",
                  "train --text novel.txt --hidden 256 --steps 5000 --out runs/novel",
                  "train adding --length 200 --cell gru     a task of `minigrad tasks`",
                  "train reber --cell cells.py:MyCell       your own cell, as in examples/own_cells.py",
                  "train --data own.npz --out runs/own      your own sequences, as in examples/trainer_day.py",
                  "train --resume runs/novel                continue where it was stopped or killed",
                  "train --resume runs/novel --steps 9000   train on longer, to 9000 steps in all"])
    add_training_options(job)
    job.add_argument("--out", metavar="DIR", help="folder for config, metrics, checkpoints and result")
    job.add_argument("--resume", metavar="DIR", help="continue the run in this folder, with its own settings; with "
                     "--steps, the new number of all its steps, and --lr it trains on longer")
    add_trust(job)
    job.add_argument("--quiet", action="store_true", help="print only the result, not the progress")


def run_train(arguments: argparse.Namespace) -> int:
    """Check, train, measure and sample a model."""
    def say(line: str) -> None:
        if not arguments.quiet:
            print(line, flush=True)

    with make_run(arguments) as run:
        trainer = run.trainer
        if trainer.step == 0:
            checked = trainer.gradcheck()
            say(f"gradient check: {checked.summary}")
            if not checked.ok:
                print(checked)
                return 1
        parameters = sum(p.size for p in trainer.model.parameters())
        layers = f"{run.settings.layers} layers of " if run.settings.layers > 1 else ""
        say(f"{describe_task(trainer.task)}\nmodel: {run.settings.cell}, {layers}{run.settings.hidden} hidden units, "
            f"{parameters:,} parameters")
        if trainer.step:
            say(f"resumed after step {trainer.step} of {trainer.steps}")
        terminal = sys.stderr is not None and sys.stderr.isatty()
        result = run.go(None if arguments.quiet else say, bar=terminal and not arguments.quiet)
        print_result(run, result)
        if trainer.ended == "interrupted":
            print(f"continue with: minigrad train {run.resume_options}" if run.folder else
                  "not saved, since --out DIR was not given")
            return 1
        status = 0 if trainer.task.name == "text" or result["solved"] else 1
        if trainer.task.name == "text" and not arguments.quiet:
            text = trainer.task
            codes = sample(trainer.model, 400, run.settings.seed, [first_code(text.characters)], 0.7)
            print("sample:\n" + text.decode(codes).strip("\n"))
        say("not kept: give --out DIR to keep the model" if run.folder is None else
            f"kept in {run.folder.path}: the model in checkpoint.npz, the measurements in metrics.jsonl and "
            f"result.json; train on longer with: minigrad train {run.resume_options} --steps N")
        return status


def make_run(arguments: argparse.Namespace) -> Run:
    """A new run, or the run to resume."""
    given = given_options(arguments)
    if arguments.resume is not None:
        own = [name for name in given if name not in ("steps", "lr")] + (["out"] if arguments.out is not None else [])
        if own:
            raise ValueError(f"{', '.join(map(option, own))} cannot be combined with --resume: the run keeps the "
                             "settings of its config.json, except --steps and --lr")
        return Run.resume(arguments.resume, arguments.trust, steps=given.get("steps"), lr=given.get("lr"))
    if arguments.trust:
        raise ValueError("--trust is only for --resume: the file of a --cell that you name is run anyway")
    task, settings = as_settings(given)
    return Run.new(Settings.for_task(task, **settings), arguments.out)


def describe_task(task: Any) -> str:
    if task.name == Sequences.name:
        return f"data: {task}"
    if task.name == "text":
        return f"text: {len(task):,} characters, {len(task.characters)} distinct, from {task.source}"
    return f"task: {task.name}, {first_line(type(task))}"


def print_result(run: Run, result: dict[str, Any]) -> None:
    trainer = run.trainer
    losses = [row["loss"] for row in trainer.rows]
    how = {"done": f"{trainer.step} steps", "solved": f"{trainer.step} steps, until the validation set was solved"}.get(
        trainer.ended, f"{trainer.ended} after {trainer.step} of {trainer.steps} steps")
    if losses:
        how += f", {trainer.seconds:.0f} s, {trainer.tokens / trainer.seconds:,.0f} tokens/s, " \
               f"loss {losses[0]:.3f} → {np.mean(losses[-50:]):.3g}"
    print(f"trained: {how}")
    if trainer.task.name == "text":
        text = trainer.task
        cell = run.settings.cell.upper() if run.settings.cell in LAYERS else "model"
        print(f"bits per character on the {len(text.held_out):,} held out: {cell} {result['metric']:.2f}, "
              f"bigram {result['baseline']:.2f}, unigram {unigram_bits(text):.2f}")
    else:
        print(f"{result['metric_name']}: {result['metric']:.4g}, without memory {result['baseline']:.4g}; "
              f"{'solved' if result['solved'] else 'not solved'}")


# -- sample, lr-range --------------------------------------------------------------------------------------------------


def add_sample(commands: Any) -> None:
    job = add_command(
        commands, "sample", run_sample, help="generate text with a trained model",
        description="Generate text with a model that `minigrad train --out DIR` has trained on a text.",
        examples=["sample runs/novel", 'sample runs/novel --prime "It was " --temperature 0.5 --length 1000'])
    job.add_argument("folder", metavar="DIR", help="folder of the run, or a checkpoint in it")
    add_trust(job)
    job.add_argument("--prime", metavar="TEXT", help="text that the model reads first and continues (a line break)")
    job.add_argument("--temperature", type=natural_float, default=0.7, metavar="X", help="0: always the "
                     "likeliest character, 1: the model's own probabilities (%(default)s)")
    job.add_argument("--length", type=positive, default=400, metavar="N", help="number of characters (%(default)s)")
    job.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the sampling (%(default)s)")


def run_sample(arguments: argparse.Namespace) -> int:
    model, config = load_model(arguments.folder, trust=arguments.trust)
    characters = config["characters"]
    if characters is None:
        raise ValueError(f"{arguments.folder} contains a model of the task {config['settings'].task}, which does not "
                         "write text: `sample` is for models that were trained on a text")
    prime = arguments.prime or characters[first_code(characters)]
    codes = sample(model, arguments.length, arguments.seed, encode("--prime", prime, characters), arguments.temperature)
    print((arguments.prime or "") + "".join(characters[code] for code in codes))
    return 0


def add_lr_range(commands: Any) -> None:
    job = add_command(
        commands, "lr-range", run_lr_range, help="find a step size: train a few steps while lr rises",
        description="Train a new model for a few steps while the step size rises, and print the loss at each (the "
                    "range test of Smith 2017). A good lr lies where the loss falls steadily, below the one where it "
                    "rises again.",
        examples=["lr-range adding --length 20", "lr-range --text novel.txt --range 1e-4,1 --out range.csv"])
    add_training_options(job)
    job.add_argument("--range", type=lr_span, default=(1e-5, 1.0), metavar="LOW,HIGH", help="of lr (1e-5,1)")
    job.add_argument("--out", metavar="FILE", help="write lr, loss and smoothed loss of each step as CSV, to plot")


def lr_span(value: str) -> tuple[float, float]:
    try:
        low, high = map(float, value.split(","))
    except ValueError:
        low = high = 0.0
    if not 0 < low < high < float("inf"):
        raise argparse.ArgumentTypeError(f"{value!r} is not a range of lr such as 1e-5,1")
    return low, high


def run_lr_range(arguments: argparse.Namespace) -> int:
    task, settings = as_settings({**given_options(arguments), "steps": arguments.steps or 100})
    found = lr_range_test(Settings.for_task(task, **settings).trainer(), *arguments.range, arguments.steps or 100)
    print(found)
    if arguments.out is not None:
        with atomic_write(arguments.out) as file:
            rows = zip(found.lr.tolist(), found.loss.tolist(), found.smoothed.tolist())
            file.write("".join(["lr,loss,smoothed\n", *(f"{lr},{loss},{mean}\n" for lr, loss, mean in rows)]).encode())
        print(f"written to {arguments.out}")
    return 0


def first_code(characters: str) -> int:
    """The index of a line break, or of the first character if there is no line break."""
    return max(0, characters.find("\n"))

