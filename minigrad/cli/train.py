"""`minigrad train`, `minigrad sample` and `minigrad tasks`: check, train and sample a model."""

from __future__ import annotations

import argparse
import inspect
import sys
from typing import Any

import numpy as np

from minigrad.cli.arguments import add_command, add_trust, encode, natural, natural_float, positive, positive_float
from minigrad.tasks import TASKS
from minigrad.tasks.text import unigram_bits
from minigrad.training.run import Run, load_model
from minigrad.training.sampling import sample
from minigrad.training.sequence_model import LAYERS
from minigrad.training.settings import OPTIMIZERS, Settings


def add_train(commands: Any) -> None:
    job = add_command(
        commands, "train", run_train, help="check the gradients of a model, then train it on a task or a text",
        description="Check the gradients of a recurrent model, train it on a task or on the characters of a text, and "
                    "measure it. Options that are not given come from the recipe of the task.",
        examples=["train                                    on Python's language reference",
                  "train --text novel.txt --hidden 256 --steps 5000 --out runs/novel",
                  "train adding --length 200 --cell gru     a task of `minigrad tasks`",
                  "train reber --cell cells.py:MyCell       your own cell, as in examples/own_cells.py",
                  "train --resume runs/novel                continue where it was stopped or killed"])
    job.add_argument("task", nargs="?", metavar="TASK", help="a name that `minigrad tasks` lists (text)")
    job.add_argument("--text", metavar="FILE", help="train on a UTF-8 text, in place of Python's language reference")
    job.add_argument("--cell", metavar="CELL", help=f"{', '.join(LAYERS)}, or FILE.py:Class; the file is run")
    job.add_argument("--hidden", type=positive, metavar="N", help="units per layer")
    job.add_argument("--layers", type=positive, metavar="N", help="number of stacked layers")
    job.add_argument("--length", type=positive, metavar="N", help="steps of the task's sequences; for a text, how "
                     "many characters gradients flow back")
    job.add_argument("--batch", type=positive, metavar="N", help="sequences per step")
    job.add_argument("--steps", type=positive, metavar="N", help="maximum number of optimiser steps")
    job.add_argument("--lr", type=positive_float, metavar="X", help="step size of the optimiser")
    job.add_argument("--optimizer", metavar="NAME", help=", ".join(OPTIMIZERS))
    job.add_argument("--clip", type=positive_float, metavar="X", help="maximum norm of the gradients")
    job.add_argument("--seed", type=natural, metavar="N", help="seed of all random numbers (0)")
    job.add_argument("--dtype", choices=["float32", "float64"], help="type of all numbers (float32)")
    job.add_argument("--threads", type=positive, metavar="N", help="threads of NumPy's matrix products (1; more are "
                     "slower when other programs use the cores)")
    job.add_argument("--out", metavar="DIR", help="folder for config, metrics, checkpoints and result")
    job.add_argument("--checkpoint-every", type=positive, metavar="N", help="steps between checkpoints (100)")
    job.add_argument("--resume", metavar="DIR", help="continue the run in this folder, with its own settings")
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
        if trainer.task.name == "text":
            if not arguments.quiet:
                text = trainer.task
                codes = sample(trainer.model, 400, run.settings.seed, [first_code(text.characters)], 0.7)
                print("sample:\n" + text.decode(codes).strip("\n"))
            return 0
        return 0 if result["solved"] else 1


def make_run(arguments: argparse.Namespace) -> Run:
    """A new run, or the run to resume."""
    names = ("task", "text", "cell", "hidden", "layers", "length", "batch", "steps", "lr", "optimizer", "clip", "seed",
             "dtype", "threads", "out", "checkpoint_every")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.resume is not None:
        if given:
            raise ValueError(f"{', '.join(map(option, given))} cannot be combined with --resume: the run keeps the "
                             "settings of its config.json")
        return Run.resume(arguments.resume, trust=arguments.trust)
    if arguments.trust:
        raise ValueError("--trust is only for --resume: the file of a --cell that you name is run anyway")
    out, text, length = (given.pop(name, None) for name in ("out", "text", "length"))
    task = given.pop("task", "text")
    if text is not None:
        if task != "text":
            raise ValueError(f"--text is not for the task {task}: leave the task out to train on a text")
        given["options"] = {"file": text}
    if length is not None and task == "text":
        given["bptt"] = length
    elif length is not None:
        given["options"] = {"length": length}
    return Run.new(Settings.for_task(task, **given), out)


def option(name: str) -> str:
    return name if name == "task" else f"--{name.replace('_', '-')}"


def describe_task(task: Any) -> str:
    if task.name == "text":
        return f"text: {len(task):,} characters, {len(task.characters)} distinct, from {task.source}"
    return f"task: {task.name}, {first_line(type(task))}"


def first_line(task: type) -> str:
    return inspect.getdoc(task).partition("\n")[0]


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


# -- sample, tasks ----------------------------------------------------------------------------------------------------


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


def add_tasks(commands: Any) -> None:
    add_command(commands, "tasks", run_tasks, help="list the tasks that `minigrad train` knows",
                description="List the tasks that `minigrad train` knows, one per line.")


def run_tasks(arguments: argparse.Namespace) -> int:
    width = max(map(len, TASKS))
    for name, task in TASKS.items():
        print(f"{name:<{width}}  {first_line(task)}")
    return 0


def first_code(characters: str) -> int:
    """The index of a line break, or of the first character if there is no line break."""
    return max(0, characters.find("\n"))

