"""`minigrad inspect`: write an HTML report about a model and one sequence."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.cli.arguments import add_command, add_trust, encode, natural, positive
from minigrad.engine.messages import nearest
from minigrad.files.atomic import atomic_write, file_errors
from minigrad.microscope.page.inspection import Sequence, inspect
from minigrad.microscope.page.rendering import Inspection, render
from minigrad.tasks import Text
from minigrad.training.folder import CONFIG, METRICS, read_lines, read_rows
from minigrad.training.run import load_model
from minigrad.training.sequence_model import LAYERS, SequenceModel
from minigrad.training.settings import KNOWN_TASKS, Settings
from minigrad.training.trainer import LOSSES
from minigrad.training.user_code import split_name
from minigrad.training.verify import refuse_data

WINDOW = 100  # default number of characters of a text


def add_inspect(commands: Any) -> None:
    job = add_command(
        commands, "inspect", run_inspect,
        help="see what backpropagation through time does in a model, as one HTML file",
        description="Put a model and one sequence under the microscope: values and gradients of every unit at every "
                    "step, gradients against lag, the credit ledger, Jacobians, and the derived source, in one HTML "
                    "file that opens from disk.",
        examples=["inspect runs/novel                            a run, on a sequence of its own task",
                  'inspect runs/novel --text "It was the best of times"',
                  "inspect gru --task adding --length 200        a model before any training",
                  "inspect cells.py:MyCell --out mycell.html"])
    job.add_argument("what", metavar="DIR|MODEL", help="the folder of a run, or a checkpoint in it; or untrained, "
                     f"{', '.join(LAYERS)}, or FILE.py:Class, a subclass of nn.Recurrent; the file is run")
    add_trust(job)
    job.add_argument("--text", metavar="TEXT", help="the characters to inspect, each predicted from those before")
    job.add_argument("--task", metavar="TASK", help="a name that `minigrad tasks` lists, as source of the sequence "
                     "(the task of the run, or text)")
    job.add_argument("--length", type=positive, metavar="N", help="steps of the task's sequence; characters of a text "
                     f"({WINDOW})")
    job.add_argument("--hidden", type=positive, metavar="N", help="units of an untrained model (as the task's recipe)")
    job.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the sequence and of an "
                     "untrained model (%(default)s)")
    job.add_argument("--out", metavar="FILE", default="report.html", help="file to write (%(default)s)")


def run_inspect(arguments: argparse.Namespace) -> int:
    """Write the report and print its path."""
    out = Path(arguments.out)
    refuse_output_file(out)
    inspection = make_inspection(arguments)
    html = render(inspection).encode()
    with atomic_write(out) as file:
        file.write(html)
    print(f"{out}: {len(inspection.symbols)} steps, {', '.join(layer.name for layer in inspection.layers)}, "
          f"{len(html) / 1e6:.2g} MB; open it in a browser")
    return 0


def refuse_output_file(out: Path) -> None:
    """Raises ValueError, before the work, if out is not writable or would overwrite a file that is not a report."""
    if out.suffix.lower() not in (".html", ".htm") and not out.is_dir():
        raise ValueError(f"{out} is not the name of an HTML file: let --out be {out.with_suffix('.html')}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: let --out name a file in it, as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise ValueError(f"{out} cannot be written, as there is no folder {out.parent}: make it first")
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"{out} cannot be written, as the folder {out.parent} cannot: choose another --out")
    if os.path.lexists(partial := f"{out}.partial"):
        raise ValueError(f"{partial} would be overwritten: rename or remove it first")
    with file_errors(out, "cannot be read"):
        if not out.exists():
            return
        with open(out, "rb") as file:
            if b'content="minigrad inspect"' not in file.read(1000):
                raise ValueError(f"{out} exists and is not a report of minigrad inspect: choose another --out")


def make_inspection(arguments: argparse.Namespace) -> Inspection:
    """The inspection that the arguments ask for."""
    what = arguments.what
    if what in LAYERS or split_name(what):
        if arguments.trust:
            raise ValueError("--trust is for the folder of a run: the file of a cell that you name is run anyway")
        return inspect_model(arguments)
    if os.path.exists(what):
        return inspect_run(arguments)
    raise ValueError(f"{what!r} is neither the folder of a run, nor {', '.join(LAYERS)}, nor FILE.py:Class"
                     f"{nearest(what, LAYERS)}")


# -- runs and untrained models ---------------------------------------------------------------------------------------


def inspect_run(arguments: argparse.Namespace) -> Inspection:
    """Inspect a run on a sequence of its own task, or of another task with the same sizes."""
    place = Path(arguments.what)
    folder = place.parent if place.is_file() else place
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{place} is not a run: give a folder that `minigrad train --out` has made")
    if arguments.hidden is not None:
        raise ValueError(f"--hidden is for an untrained model, and the model of {place} is trained")
    model, config = load_model(place, trust=arguments.trust)
    settings, characters = config["settings"], config["characters"]
    if arguments.text is not None and characters is None:
        raise ValueError(f"{place} contains a model of the task {settings.task}, which reads no text: leave out --text")
    if arguments.text is not None:
        sequence = text_sequence(arguments, characters)
    else:
        own = arguments.task in (None, settings.task)
        if own:
            refuse_data(folder, config)
        task = make_task(arguments, arguments.task or settings.task, settings.options if own else {})
        read, theirs = config["model"], getattr(task, "characters", None)
        if theirs and characters and theirs != characters:
            raise ValueError(f"{task.source} has other characters than the text that {place} was trained on: give some "
                             "by --text")
        if task.sizes != read or theirs != characters:
            raise ValueError(f"the model of {place} has {describe_sizes(read, characters)}, for the task "
                             f"{settings.task}, and {task.name} has {describe_sizes(task.sizes, theirs)}: leave out "
                             "--task, or name one that fits")
        if own:
            refuse_data(folder, config, task)
        sequence = task_sequence(arguments, task)
    curves = read_curves(folder / METRICS, KNOWN_TASKS[settings.task].metric_name)
    return inspect_sequence(arguments, model, sequence, settings, f"{config['step']:,} steps", curves)


def inspect_model(arguments: argparse.Namespace) -> Inspection:
    """Inspect an untrained model."""
    given = {} if arguments.hidden is None else {"hidden": arguments.hidden}
    settings = Settings.for_task(arguments.task or "text", cell=arguments.what, **given)
    if arguments.text is not None:
        characters = "".join(sorted(set(arguments.text)))
        sequence = text_sequence(arguments, characters)
        sizes = {"inputs": len(characters), "outputs": len(characters), "symbols": True}
    else:
        task = make_task(arguments, settings.task, {})
        sequence, sizes = task_sequence(arguments, task), task.sizes
    rng = np.random.SeedSequence(arguments.seed).spawn(2)[0]  # the same as a training with this seed
    model = settings.model(**sizes, rng=rng).eval()
    return inspect_sequence(arguments, model, sequence, settings, "not yet", {})


def inspect_sequence(arguments: argparse.Namespace, model: SequenceModel, sequence: Sequence, settings: Settings,
                  trained: str, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Inspection:
    T = len(sequence.x)
    print(f"looking at {T:,} steps …", file=sys.stderr, flush=True)
    try:
        layers, asked, steps = inspect(model, sequence, settings.batch)
    except MemoryError:
        raise ValueError(f"a sequence of {T:,} steps needs more memory than there is: take a shorter one") from None
    task = arguments.task or settings.task
    if arguments.text is not None:
        source = "given by --text"
    elif task == "text":
        source = "the start of the held-out text"
    else:
        source = f"{task}, seed {arguments.seed}"
    mean = f"the mean of {len(sequence.asked)} steps" if len(sequence.asked) > 1 else f"of step {sequence.asked[0]}"
    facts = {"task": settings.task, "cell": Path(settings.cell).name, "layers": str(settings.layers),
             "units": str(settings.hidden), "parameters": f"{sum(p.size for p in model.parameters()):,}",
             "trained": trained, "sequence": source,
             "loss L": f"{steps['loss'][sequence.asked].mean():.4g}, {mean}"}
    return Inspection(arguments.what, facts, sequence.symbols, sequence.answers, asked, steps, curves, layers,
                      sequence.about)


def describe_sizes(sizes: dict[str, Any], characters: str | None) -> str:
    kind = "characters" if characters else "symbols" if sizes["symbols"] else "inputs"
    return f"{sizes['inputs']} {kind} and {sizes['outputs']} outputs"


# -- the sequence -----------------------------------------------------------------------------------------------------


def text_sequence(arguments: argparse.Namespace, characters: str) -> Sequence:
    """The given text as a sequence; every character but the first is a target."""
    text = arguments.text
    for name in ("task", "length"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} cannot be combined with --text, which is the sequence")
    if len(text) < 2:
        raise ValueError(f"--text is {text!r}, and takes two characters or more, as each is asked for after those "
                         "before it")
    if os.path.isfile(text):
        raise ValueError(f"--text takes the characters themselves, and {text} is a file: give --text \"$(cat {text})\"")
    return code_sequence(np.array(encode("--text", text, characters)), characters)


def make_task(arguments: argparse.Namespace, name: str, options: dict[str, Any]) -> Any:
    if arguments.length is not None and name != "text":
        options = options | {"length": arguments.length}
    return Settings.for_task(name, options=options).make_task()


def task_sequence(arguments: argparse.Namespace, task: Any) -> Sequence:
    """A sequence of a task, drawn with the seed; for a text, the start of its held-out part."""
    if isinstance(task, Text):
        most = len(task.held_out) - 1
        length = arguments.length or min(WINDOW, most)
        if length > most:
            raise ValueError(f"--length {length:,} is more than the held-out text has: it may be up to {most:,}")
        return code_sequence(task.held_out[:length + 1], task.characters)
    batch = task.batch(np.random.default_rng(arguments.seed), 1)
    T = len(batch.x) if batch.lengths is None else int(batch.lengths[0])
    x, targets = batch.x[:T], batch.targets[:T]
    asked = np.arange(T) if batch.mask is None else np.flatnonzero(batch.mask[:T, 0])
    return Sequence(x, targets, asked, LOSSES[task.loss], task.names, task.about)


def code_sequence(codes: np.ndarray, characters: str) -> Sequence:
    return Sequence(codes[:-1, None], codes[1:, None], np.arange(len(codes) - 1), LOSSES["cross_entropy"],
                    (characters, characters), Text.about)


# -- the run ---------------------------------------------------------------------------------------------------------


def read_curves(file: Path, metric_name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (steps, values)} from metrics.jsonl."""
    rows, curves = read_rows(file, read_lines(file)), {}
    for name, label in (("loss", "loss"), ("metric", metric_name), ("norm", "gradient norm, before clipping"),
                        ("lr", "learning rate")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points and (name != "lr" or len({y for _, y in points}) > 1):
            curves[label] = tuple(np.array(points, float).T)
    return curves
