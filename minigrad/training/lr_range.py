"""The learning-rate range test: train a few steps while lr rises, and see where the loss falls fastest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minigrad.training.trainer import Diverged, Trainer

SMOOTH = 0.9  # weight of the mean of earlier losses in the smoothed loss
WORSE = 4.0  # the test ends when the smoothed loss is this many times its lowest value
FIRST = 10  # number of steps before that may happen


@dataclass(frozen=True, eq=False)
class LrRange:
    """The result of a range test: lr and loss (n,) of each step that was made, and the smoothed loss.

    Read it as Smith does: a good lr lies where the loss falls steadily, below the one where it becomes ragged or rises;
    for the maximum of a schedule take the largest such lr, for a constant one a third to a tenth of it.
    """

    lr: np.ndarray
    loss: np.ndarray

    @property
    def smoothed(self) -> np.ndarray:
        """(n,): a running mean of the losses, each earlier one weighing 0.9 times as much, corrected at the start."""
        mean, made = 0.0, np.empty(len(self.loss))
        for i, loss in enumerate(self.loss):
            mean = SMOOTH * mean + (1 - SMOOTH) * loss
            made[i] = mean / (1 - SMOOTH ** (i + 1))
        return made

    @property
    def steepest(self) -> float:
        """The lr where the smoothed loss falls fastest against log lr; NaN after fewer than two steps."""
        if len(self.lr) < 2:
            return math.nan
        return float(self.lr[np.argmin(np.gradient(self.smoothed, np.log(self.lr)))])

    @property
    def lowest(self) -> float:
        """The lr where the smoothed loss is lowest: about the largest that still trains."""
        return float(self.lr[np.argmin(self.smoothed)]) if len(self.lr) else math.nan

    def __str__(self) -> str:
        """Some twenty rows of lr and smoothed loss, with a bar for the loss."""
        smoothed = self.smoothed
        shown = np.unique(np.linspace(0, len(smoothed) - 1, min(20, len(smoothed))).round().astype(int))
        most = max(smoothed[shown], default=1.0)
        rows = [f"{self.lr[i]:>10.2e}  {smoothed[i]:>10.4g}  {'█' * round(40 * smoothed[i] / most)}" for i in shown]
        found = f"the loss falls fastest at lr {self.steepest:.2g}, and is lowest at {self.lowest:.2g}"
        if len(smoothed) and smoothed.argmin() == len(smoothed) - 1:
            found += ", the end of the range: try a higher one"
        return "\n".join([f"{'lr':>10}  {'loss':>10}", *rows, found])


def lr_range_test(trainer: Trainer, low: float = 1e-5, high: float = 1.0, steps: int = 100) -> LrRange:
    """Train `steps` steps with lr rising from low to high, by the same factor at each step, and undo the training.

    Ends early when the loss diverges. Afterwards model, optimiser, random states and history are as before. Smith 2017
    (Cyclical learning rates for training neural networks, section 3.3), who lets lr rise linearly and looks at the
    accuracy. Raises ValueError unless 0 < low < high and steps ≥ 2.
    """
    if not 0 < low < high < math.inf or steps < 2:
        raise ValueError(f"a range test takes 0 < low < high and two steps or more, not {low}, {high} and {steps}")
    lrs, start = np.geomspace(low, high, steps), trainer.step
    found: list[float] = []

    def watch(_: Trainer, row: dict[str, float]) -> bool:
        found.append(row["loss"])
        smoothed = LrRange(lrs[:len(found)], np.array(found)).smoothed
        return len(found) > FIRST and bool(smoothed[-1] > WORSE * smoothed.min())

    names = ("steps", "schedule", "validate_every", "callbacks", "rows")
    kept, (arrays, state) = {name: getattr(trainer, name) for name in names}, trainer.state_dict()
    trainer.steps, trainer.schedule, trainer.validate_every = start + steps, lambda step: lrs[step - start], None
    trainer.callbacks, trainer.rows, trainer.ended = [watch], [], ""
    try:
        trainer.run()
    except Diverged:
        pass  # the end of the test
    finally:
        vars(trainer).update(kept)
        trainer.load_state_dict(arrays, state)
        trainer.model.zero_grad()
    return LrRange(lrs[:len(found)], np.array(found))
