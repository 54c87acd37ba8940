"""Parity: whether the number of ones so far is odd; one bit of memory, which any input may flip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad.tasks.task import Batch, Task, lstm_recipe, target_at_end, whole


@dataclass(frozen=True)
class Parity(Task):
    """Whether the number of ones among `length` bits is odd.

    x (T, B, 1): −1 or 1, equally likely. Target: 1 if the ones up to here are odd, else 0; at every step, or with
    `only_at_end` at the last alone, as in Hochreiter & Schmidhuber 1996 (Bridging long time lags by weight guessing and
    long short term memory), who show that guessing weights at random is quicker there than following a gradient.

    Metric: the fraction of sequences whose last answer is right; solved at all of 1000. The best memoryless guess
    is right for one half, for every T, since the ones before the last step are even or odd equally often.

    Published: nothing for targets at every step. For a target at the end, T = 50, guessing the weights of a small RNN
    took 10 253 guesses (https://cybertronai.github.io/schmidhuber-problems/rs-parity, seed 0).
    """

    length: int = whole(50, least=2)
    only_at_end: bool = False

    name = "parity"
    about = "A step reads a bit, −1 or 1; the target is 1 if the number of ones so far is odd, else 0."
    inputs, outputs, loss = 1, 1, "binary_cross_entropy"
    metric_name, test_size = "fraction right at the end", 1000
    baseline, goal = 0.5, 1.0
    recipe = lstm_recipe(hidden=16, batch=50, steps=2000, lr=0.01, validate_every=50)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        bits = rng.integers(0, 2, (self.length, size, 1))
        x, odd = (2 * bits - 1).astype(np.float32), (bits.cumsum(axis=0) % 2).astype(np.float32)
        return target_at_end(x, odd[-1]) if self.only_at_end else Batch(x, odd)

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        return np.mean((outputs[-1] > 0) == (batch.targets[-1] > 0))
