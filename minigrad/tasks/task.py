"""A task: a problem that makes its own data from an explicit rng, and knows what an answer is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences side by side, time first.

    x        (T, B, D) float32, or (T, B) integers where the inputs are symbols
    targets  (T, B, D_out) float32, or (T, B) integers where a symbol or a class is asked for
    mask     (T, B) booleans: where a target counts; None: everywhere. Where it does not, the target is 0
    lengths  (B,) integers: the steps of each sequence, past which x is 0; None: all have T
    first    whether sequences begin here, for all or, (B,) booleans, for each; those that do not go on where the batch
             before this one ended
    """

    x: np.ndarray
    targets: np.ndarray
    mask: Any = None
    lengths: Any = None
    first: bool | np.ndarray = True


@dataclass(frozen=True)
class Task:
    """A subclass is a problem, its fields are the problem's options, all with defaults; it says what follows.

    name              as in `TASKS` and on the command line
    inputs, symbols   x has so many features, or holds symbols 0 … inputs − 1
    names             of the symbols of x, and of the answers that targets number: a string or list each; None: numbers
    outputs           so many numbers a step are asked of a model: (T, B, outputs), logits where the loss takes logits
    loss              "cross_entropy", "mse" or "binary_cross_entropy": what to minimise
    metric_name       what `metric` measures, and the size of the test set it is measured on, `test_size`
    baseline          the metric of the best guess that remembers nothing
    goal              the task is solved when the metric gets there: up to it if `higher_is_better`, else below it
    recipe            settings for training that reach the goal

    Raises ValueError, in a sentence, for options that make no such problem.
    """

    name: ClassVar[str]
    inputs: ClassVar[int]
    symbols: ClassVar[bool] = False
    names: ClassVar[tuple[Sequence[str] | None, Sequence[str] | None]] = (None, None)
    outputs: ClassVar[int]
    loss: ClassVar[str]
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    test_size: ClassVar[int] = 1000
    baseline: ClassVar[float]
    goal: ClassVar[float]
    recipe: ClassVar[dict[str, Any]]

    def batch(self, rng: Any, size: int) -> Batch:
        """`size` fresh sequences, drawn from rng, a np.random.Generator or a seed."""
        if not is_whole(size, 1):
            raise ValueError(f"{self.name} makes batches of one sequence or more, a whole number, not of {size!r}")
        return self.make(np.random.default_rng(rng), size)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        """What `batch` returns: to be written by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} makes no data yet: write its method make(self, rng, size)")

    def test(self, rng: Any) -> Batch:
        """The test set: the same for the same seed, whatever was drawn for training."""
        return self.batch(rng, self.test_size)

    def metric(self, outputs: np.ndarray, batch: Batch) -> float:
        """How good a model's outputs (T, B, outputs) for batch.x are, in the task's own terms; NaN if one is NaN."""
        outputs = np.asarray(outputs)
        if outputs.shape != (*batch.x.shape[:2], self.outputs):
            raise ValueError(f"{self.name} measures outputs of shape {(*batch.x.shape[:2], self.outputs)}, "
                             f"not {outputs.shape}")
        return float("nan") if np.isnan(outputs).any() else float(self.score(outputs, batch))

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        """What `metric` returns for outputs of the right shape: to be written by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} has no measure yet: write its method "
                                  "score(self, outputs, batch)")

    def solved(self, value: float) -> bool:
        """Whether a value of the metric counts as a solution."""
        return bool(value >= self.goal if self.higher_is_better else value < self.goal)

    def require_at_least(self, **smallest: int) -> None:
        """Raises ValueError for the first option that is no integer, or smaller than this."""
        for option, least in smallest.items():
            value = getattr(self, option)
            if not is_whole(value, least):
                raise ValueError(f"{self.name} takes a whole number of {least} or more as {option}, not {value!r}")


def is_whole(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least


# -- what several tasks say ---------------------------------------------------------------------------------------


def length_mask(lengths: np.ndarray, steps: int) -> np.ndarray:
    """(steps, B): true at the steps of each sequence, false past its end."""
    return np.arange(steps)[:, None] < lengths


def target_at_end(x: np.ndarray, answers: np.ndarray, lengths: np.ndarray | None = None) -> Batch:
    """The batch in which only the last step of each sequence is asked: for one of answers (B,) or (B, D)."""
    steps, size = x.shape[:2]
    last = (np.full(size, steps) if lengths is None else lengths) - 1
    targets = np.zeros((steps, *answers.shape), answers.dtype)
    targets[last, np.arange(size)] = answers
    return Batch(x, targets, np.arange(steps)[:, None] == last, lengths)


def lstm_recipe(**settings: Any) -> dict[str, Any]:
    """A recipe: an LSTM, Adam, gradients clipped at a norm of 1; the rest is said."""
    return {"cell": "lstm", "optimizer": "adam", "clip": 1.0, **settings}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """ln of the probabilities, over the last axis."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
