"""A task from sequences of your own, given as arrays or as a file of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.data.examples import Examples, split_positions
from minigrad.data.reading import encode
from minigrad.engine.messages import brief, refusing
from minigrad.engine.ops import log_softmax
from minigrad.files import archive
from minigrad.files.atomic import CheckpointError
from minigrad.nn.checks import is_whole
from minigrad.tasks.task import Batch, Task, lstm_recipe

KIND = "file of sequences"


@dataclass(frozen=True, eq=False)
class Sequences(Task):
    """Sequences of your own, from arrays or a file, with answers at the end, at every step, or the next symbol.

    sequences  a list of sequences, each with its steps first: floats (T, D) or (T,) are features; integers, strings or
               a str are symbols
    targets    one for each sequence: one answer, which counts at its last step, or one answer for each step. Integers
               and strings are classes, floats are numbers. None: the next symbol, at every step
    file       a file that `save` wrote, in place of these; `minigrad train --data FILE` reads it
    at_end     whether targets are one answer each; None: decided by their shapes, and where both fit, False
    parts      fractions, or numbers of sequences, for training, validation and test
    seed       of the split; None keeps the order: the first part is trained on
    solved_at  the metric at which the task is solved; None: better than the baseline

    `batch(rng, size)` draws `size` sequences of similar length, all of them if there are fewer. `validation` and `test`
    are the other two parts, whole.

    Metric: the fraction of right answers for classes, the mean squared error for numbers, and bits per symbol for the
    next symbol. Baseline: the best guess without looking at the input, counted in the training part.

    Raises ValueError, in a sentence that names the sequence or the target, for what cannot be trained on.
    """

    sequences: Any = field(default=None, repr=False)
    targets: Any = field(default=None, repr=False)
    file: str | Path | None = None
    at_end: bool | None = None
    parts: Any = (0.8, 0.1, 0.1)
    seed: int | None = 0
    solved_at: float | None = None

    name, metric_name = "sequences", "metric"  # an instance has the name of its own metric
    recipe = lstm_recipe(hidden=32, batch=32, steps=1000, lr=0.005, validate_every=50, until_solved=False)

    def __post_init__(self) -> None:
        if (self.file is None) == (self.sequences is None):
            raise ValueError("give either sequences or a file of them")
        if self.file is None:
            examples = Examples.read(self.sequences, self.targets, self.at_end)
        else:
            examples = read_file(self.file)
        training, validation, test = self.split(examples)
        kind = "numbers" if not examples.classes else "next" if examples.ys is None else "classes"
        metric, higher = {"numbers": ("mean squared error", False), "next": ("bits per symbol", False),
                          "classes": ("fraction right", True)}[kind]
        for name, value in {
                "examples": examples, "training": training, "held_out": (validation, test), "kind": kind,
                "inputs": examples.inputs, "symbols": examples.symbols, "outputs": examples.outputs,
                "names": examples.names, "loss": "mse" if kind == "numbers" else "cross_entropy",
                "metric_name": metric, "higher_is_better": higher, "test_size": len(test)}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "baseline", self.score_guess(training.answers, test.answers))
        object.__setattr__(self, "goal", self.baseline if self.solved_at is None else self.solved_at)

    def split(self, examples: Examples) -> list[Examples]:
        if not isinstance(self.parts, (list, tuple)) or len(self.parts) != 3:
            raise ValueError(f"parts are of three, for training, validation and test, not {brief(self.parts)}")
        if self.seed is not None and not is_whole(self.seed, 0):
            raise ValueError(f"seed is a whole number from 0 on, or None to keep the order, not {brief(self.seed)}")
        if len(examples) < 3:
            raise ValueError("a task takes three sequences or more, to train, validate and test on different ones, not "
                             f"{len(examples)}: cut a long one into pieces")
        return [examples.part(chosen) for chosen in split_positions(len(examples), self.parts, self.seed)]

    @property
    def source(self) -> str:
        return "the arrays" if self.file is None else str(self.file)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the sequences and their targets."""
        return self.examples.fingerprint()

    @property
    def characters(self) -> str | None:
        """The symbols, if they are characters and the model predicts the next; else None."""
        names = self.names[0] if self.kind == "next" else None
        return "".join(names) if names and all(len(name) == 1 for name in names) else None

    def __str__(self) -> str:
        lengths = self.examples.lengths
        span = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
        of = f"{self.inputs} symbols" if self.symbols else f"{self.inputs} feature{'s' if self.inputs > 1 else ''}"
        to = {"next": "the next symbol", "classes": f"{self.outputs} classes", "numbers": f"{self.outputs} numbers"}
        where = " at the end" if self.examples.at_end else " at every step"
        return f"{len(self.examples):,} sequences of {span} steps, {of} → {to[self.kind]}{where}, from {self.source}"

    def encode(self, symbols: Sequence[str]) -> np.ndarray:
        """The codes of these symbols, (n,) int64. Raises ValueError for a symbol that the sequences do not have."""
        if self.names[0] is None:
            raise ValueError("these sequences were given as numbers, which have no names")
        return encode([symbols], self.names[0])[0][0]

    def decode(self, codes: Sequence[int]) -> str | list[str]:
        """The symbols of these codes: a str if all names are characters, else a list."""
        names = self.names[0]
        if names is None:
            raise ValueError("these sequences were given as numbers, which have no names")
        found = [names[code] for code in codes]
        return "".join(found) if all(len(name) == 1 for name in names) else found

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        return self.training.batch(self.training.draw(rng, size))

    def validation(self, rng: Any) -> Batch:
        """The validation part, whole; nothing is drawn from rng."""
        return self.held_out[0].batch()

    def test(self, rng: Any) -> Batch:
        """The test part, whole; nothing is drawn from rng."""
        return self.held_out[1].batch()

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        asked = slice(None) if batch.mask is None else batch.mask
        outputs, targets = (x[asked].reshape(-1, *x.shape[2:]) for x in (outputs, batch.targets))
        if self.kind == "numbers":
            return np.mean((outputs - targets) ** 2, dtype=float)
        if self.kind == "classes":
            return np.mean(outputs.argmax(axis=-1) == targets)
        return -np.mean(np.take_along_axis(log_softmax(outputs), targets[:, None], axis=-1), dtype=float) / np.log(2)

    def score_guess(self, known: np.ndarray, asked: np.ndarray) -> float:
        """The metric of the best guess without input, counted in the answers that are known."""
        if self.kind == "numbers":
            return float(np.mean((asked - known.mean(axis=0, dtype=float)) ** 2))
        counts = np.bincount(known, minlength=self.outputs)
        if self.kind == "classes":
            return float(np.mean(asked == counts.argmax()))
        p = (counts + 1) / (counts + 1).sum()
        return float(-np.mean(np.log2(p[asked])))

    def save(self, path: str | Path) -> None:
        """Write sequences, targets and names to a file of numbers and JSON, atomically, without pickle. Raises
        ValueError if it cannot be written."""
        examples = self.examples
        arrays = {"steps": np.concatenate(examples.xs), "lengths": np.array([len(x) for x in examples.xs])}
        if examples.ys is not None:
            arrays["targets"] = examples.answers
        archive.save(path, KIND, arrays, {"at_end": examples.at_end, "names": examples.names})


def read_file(path: str | Path) -> Examples:
    """The sequences of a file, which may come from somebody else. Raises ValueError if it is not one that `save` wrote
    or its parts do not fit."""
    arrays, meta = archive.load(path, KIND)
    with refusing(f"{path} is not a {KIND} that minigrad wrote", CheckpointError):
        lengths, steps = arrays["lengths"], arrays["steps"]
        if lengths.dtype.kind != "i" or lengths.ndim != 1 or lengths.min() < 1 or lengths.sum() != len(steps):
            raise ValueError("its lengths do not fit its steps")
        at_end, names = meta["at_end"], [checked_names(one) for one in meta["names"]]
        ends, answers = np.cumsum(lengths)[:-1], arrays.get("targets")
        sequences = np.split(steps, ends)
        if answers is not None and len(answers) != (len(lengths) if at_end else len(steps)):
            raise ValueError("its targets do not fit its sequences")
        targets = answers if answers is None or at_end else np.split(answers, ends)
        found = Examples.read(sequences, targets, answers is not None and bool(at_end))
        for codes, own in ((found.xs, names[0]), (found.ys or found.xs, names[1])):
            if own is not None and (codes[0].dtype.kind != "i" or max(one.max() for one in codes) >= len(own)):
                raise ValueError("its names do not fit its symbols")
        return Examples(found.xs, found.ys, found.at_end, tuple(names))


def checked_names(names: Any) -> list[str] | None:
    if names is not None and not (isinstance(names, list) and all(isinstance(one, str) for one in names)
                                  and len(set(names)) == len(names)):
        raise ValueError("its names are not a list of different strings")
    return names
