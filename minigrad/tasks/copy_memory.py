"""The copy problem: remember ten symbols over a long blank and repeat them in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad.tasks.task import Batch, Task, lstm_recipe, whole

BLANK, DELIMITER = 8, 9


@dataclass(frozen=True)
class Copy(Task):
    """Ten symbols, repeated after `length` blanks.

    x (T + 20, B): ten symbols from 0 … 7, T − 1 blanks (8), the delimiter (9), ten blanks. Targets: T + 10 blanks, then
    the ten symbols. The loss is the mean over all T + 20 steps. Arjovsky, Shah & Bengio 2016, section 4.1.

    Metric: the recall, the fraction of the ten symbols that is right. The best memoryless guess is blank up to the
    delimiter, then any symbol: recall 1/8, and the loss 10 ln 8 / (T + 20), see `plateau`. Solved at 0.8.

    Published, as the loss: T = 1000, about 16 000 weights: LSTM 0.0204, GRU 0.0197, RNN 0.0202, all at the plateau of
    0.0204; the recall of an LSTM of 10 000 weights is under 20 % for T < 50 (Bai, Kolter & Koltun 2018, arXiv
    1803.01271, table 1 and figure 5). Tallec & Ollivier 2018 (arXiv 1804.11188): an LSTM of 128 leaves the plateau
    with chrono initialisation, at T = 500 and 2000.
    """

    length: int = whole(50, least=1)

    name = "copy"
    about = ("The first ten steps read symbols from 0 to 7, then come blanks · up to the delimiter !; the last ten "
             "steps are asked for the ten symbols in order, all others for a blank.")
    inputs, symbols, outputs, loss = 10, True, 9, "cross_entropy"
    names = "01234567·!", "01234567·"
    metric_name, test_size = "recall", 500
    baseline, goal = 1 / 8, 0.8
    recipe = lstm_recipe(hidden=128, batch=50, steps=6000, lr=0.004, cell_options={"chrono": 75},
                  optimizer_options={"betas": (0.9, 0.99)}, validate_every=250)

    @property
    def plateau(self) -> float:
        """The loss of the best memoryless guess, in nats per step: 10 ln 8 / (T + 20)."""
        return 10 * np.log(8) / (self.length + 20)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        word = rng.integers(0, 8, (10, size))
        x = np.full((self.length + 20, size), BLANK)
        targets = x.copy()
        x[:10], x[self.length + 9], targets[-10:] = word, DELIMITER, word
        return Batch(x, targets)

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        return np.mean(outputs[-10:].argmax(axis=-1) == batch.targets[-10:])
