"""A task: a problem that generates its data from an explicit rng and scores answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from minigrad.nn.checks import is_whole
from minigrad.notebook import table


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences side by side, time first.

    x        (T, B, D) float32, or (T, B) integers if the inputs are symbols
    targets  (T, B, D_out) float32, or (T, B) integers if the answer is a symbol or a class
    mask     (T, B) booleans: where targets count; None: everywhere. Elsewhere targets are 0
    lengths  (B,) integers: the steps of each sequence, after which x is 0; None: all have T
    first    whether sequences begin here: one bool, or (B,) of them; the others continue from the previous batch
    """

    x: np.ndarray
    targets: np.ndarray
    mask: Any = None
    lengths: Any = None
    first: bool | np.ndarray = True

    def __repr__(self) -> str:
        steps, size = self.x.shape[:2]
        of = f"of {self.x.shape[2]} feature{'s' * (self.x.shape[2] != 1)}" if self.x.ndim > 2 else "of symbols"
        lengths = "" if self.lengths is None else f", {np.min(self.lengths)} to {np.max(self.lengths)} long"
        asked = steps * size if self.mask is None else int(np.sum(self.mask))
        return (f"{size} sequence{'s' * (size != 1)} × {steps} steps {of}{lengths}, targets at "
                f"{'every step' if asked == steps * size else f'{asked:,} of {steps * size:,} places'}"
                f"{'' if np.all(self.first) else ', continuing'}")

    def _repr_html_(self) -> str:
        arrays = [(part.name, getattr(self, part.name)) for part in fields(self)]
        return table(repr(self), ["part", "shape", "dtype", "values"], [
            (name, np.shape(x), np.asarray(x).dtype, f"{np.min(x):.4g} … {np.max(x):.4g}" if np.size(x) else "–")
            for name, x in arrays if x is not None])


@dataclass(frozen=True)
class Task:
    """Subclass per problem; dataclass fields are its options (see `whole`); the class attributes below are required.

    name              as in `TASKS` and on the command line
    inputs, symbols   number of features of x, or with `symbols` x contains symbols 0 … inputs − 1
    names             names of the input symbols and of the answers: a string or list each; None: numbers
    outputs           numbers per step that a model returns: (T, B, outputs), logits if the loss takes logits
    loss              "cross_entropy", "mse" or "binary_cross_entropy"
    about             what a step reads and what it is asked for, in a sentence
    metric_name       what `metric` measures
    test_size         number of sequences of the test set, and of the validation set
    baseline          the metric of the best memoryless guess
    goal              the task is solved when the metric reaches it (`higher_is_better`) or falls below it
    recipe            training settings that reach the goal

    Raises ValueError for options that do not define a problem.
    """

    name: ClassVar[str]
    inputs: ClassVar[int]
    symbols: ClassVar[bool] = False
    names: ClassVar[tuple[Sequence[str] | None, Sequence[str] | None]] = (None, None)
    outputs: ClassVar[int]
    loss: ClassVar[str]
    about: ClassVar[str] = ""
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    test_size: ClassVar[int] = 1000
    baseline: ClassVar[float]
    goal: ClassVar[float]
    recipe: ClassVar[dict[str, Any]]

    def __post_init__(self) -> None:
        for option in fields(self):
            least, value = option.metadata.get("least"), getattr(self, option.name)
            if least is not None and not is_whole(value, least):
                raise ValueError(f"{self.name} takes a whole number of {least} or more as {option.name}, not {value!r}")

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes of a model for this task, as arguments of `SequenceModel`."""
        return {"inputs": self.inputs, "outputs": self.outputs, "symbols": self.symbols}

    def batch(self, rng: Any, size: int) -> Batch:
        """`size` fresh sequences, drawn from rng, a np.random.Generator or a seed."""
        if not is_whole(size, 1):
            raise ValueError(f"{self.name} makes batches of one sequence or more, a whole number, not of {size!r}")
        return self.make(np.random.default_rng(rng), size)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        """Generate a batch. Subclasses implement it."""
        raise NotImplementedError(f"{type(self).__name__} makes no data yet: write its method make(self, rng, size)")

    def test(self, rng: Any) -> Batch:
        """The test set; it depends only on rng, not on the training data."""
        return self.batch(rng, self.test_size)

    def validation(self, rng: Any) -> Batch:
        """The validation set, which decides when to stop: another draw of the test set unless a task overrides it."""
        return self.test(rng)

    def metric(self, outputs: np.ndarray, batch: Batch) -> float:
        """Score a model's outputs (T, B, outputs) for batch.x in the terms of the task; NaN if any output is NaN."""
        outputs = np.asarray(outputs)
        if outputs.shape != (*batch.x.shape[:2], self.outputs):
            raise ValueError(f"{self.name} measures outputs of shape {(*batch.x.shape[:2], self.outputs)}, "
                             f"not {outputs.shape}")
        return float("nan") if np.isnan(outputs).any() else float(self.score(outputs, batch))

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        """The metric for outputs of the right shape. Subclasses implement it."""
        raise NotImplementedError(f"{type(self).__name__} has no measure yet: write its method "
                                  "score(self, outputs, batch)")

    def solved(self, value: float) -> bool:
        """Whether a value of the metric reaches the goal."""
        return bool(value >= self.goal if self.higher_is_better else value < self.goal)


# -- shared by tasks ---------------------------------------------------------------------------------------------


def whole(default: int, least: int) -> Any:
    """An option that is a whole number from `least` on."""
    return field(default=default, metadata={"least": least})


def length_mask(lengths: np.ndarray, steps: int) -> np.ndarray:
    """(steps, B) mask: true before the end of each sequence."""
    return np.arange(steps)[:, None] < lengths


def target_at_end(x: np.ndarray, answers: np.ndarray, lengths: np.ndarray | None = None) -> Batch:
    """A batch whose only target is at the last step of each sequence: answers (B,) or (B, D)."""
    steps, size = x.shape[:2]
    last = (np.full(size, steps) if lengths is None else lengths) - 1
    targets = np.zeros((steps, *answers.shape), answers.dtype)
    targets[last, np.arange(size)] = answers
    return Batch(x, targets, np.arange(steps)[:, None] == last, lengths)


def lstm_recipe(**settings: Any) -> dict[str, Any]:
    """A recipe with an LSTM, Adam and gradients clipped to norm 1, plus these settings."""
    return {"cell": "lstm", "optimizer": "adam", "clip": 1.0, **settings}
