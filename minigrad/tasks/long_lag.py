"""A long lag without noise: two sequences that differ only in their first and last symbols."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad.engine.ops import log_softmax
from minigrad.tasks.task import Batch, Task, lstm_recipe, whole


@dataclass(frozen=True)
class LongLag(Task):
    """The next symbol of (y, a₁ … aₚ₋₁, y) or (x, a₁ … aₚ₋₁, x), with p = `length`.

    A batch alternates between these two sequences, starting with a random one. Each symbol but the last follows from
    the one before; the last repeats the first, p steps earlier. Symbols 0 … p − 2 are the a's, p − 1 is x, p is y;
    x (p, B) are all symbols but the last, targets (p, B) all but the first. Hochreiter & Schmidhuber 1997, experiment
    2a, where each sequence is drawn.

    Metric: the largest error |p − target| of any output, at any step, on both sequences, which are both validation
    and test set; solved below 0.25, as in 1997. The best memoryless guess knows all but the last symbol, and gives x
    and y probability one half each: 0.5.

    Published, p = 100 (table 2, 18 trials): LSTM all, after 5 040 sequences on the mean; the chunker a third, 32 400;
    BPTT and RTRL none.
    """

    length: int = whole(100, least=2)

    name = "long-lag"
    about = "A step reads a symbol and is asked for the next; the last target repeats the first symbol."
    symbols, loss = True, "cross_entropy"
    metric_name, higher_is_better, test_size = "largest error", False, 2
    baseline, goal = 0.5, 0.25
    recipe = lstm_recipe(hidden=64, batch=2, steps=3000, lr=0.01, cell_options={"forget_bias": 4.0},
                  optimizer_options={"betas": (0.9, 0.99)}, validate_every=20)

    @property
    def inputs(self) -> int:
        return self.length + 1

    outputs = inputs

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        return self.sequences((rng.integers(0, 2) + np.arange(size)) % 2)

    def test(self, rng: np.random.Generator | int) -> Batch:
        return self.sequences(np.arange(2))

    def sequences(self, which: np.ndarray) -> Batch:
        symbols = np.repeat(np.arange(-1, self.length)[:, None], len(which), axis=1)
        symbols[[0, -1]] = self.length - 1 + which
        return Batch(symbols[:-1], symbols[1:])

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        p = np.exp(log_softmax(outputs))
        return abs(p - np.eye(self.outputs)[batch.targets]).max()
