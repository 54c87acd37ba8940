"""The adding problem: remember two marked numbers and return their sum at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad.tasks.task import Batch, Task, length_mask, lstm_recipe, target_at_end, whole


@dataclass(frozen=True)
class Adding(Task):
    """The sum of two marked numbers among `length`, as target at the end.

    x (T, B, 2): numbers from U[0, 1], and markers that are 1 at one place in the first half and one in the second, else
    0. Target: the sum of the two marked numbers. Arjovsky, Shah & Bengio 2016, section 4.2; Le, Jaitly & Hinton
    2015 mark any two places.

    Metric: mean squared error, solved below 1e-3. The best memoryless guess is the mean of the sum, 1; its
    error is the variance, 2 · 1/12 = 1/6. (If the last step is marked, in 1 of T/2 sequences, a better guess exists; it
    is ignored here, as in the papers.)

    Published: at T = 600, with about 70 000 weights, LSTM 0.164, GRU 5.3e-5, plain RNN 0.177 (Bai, Kolter & Koltun
    2018, arXiv 1803.01271, table 1): their LSTM did not leave the baseline.
    """

    length: int = whole(100, least=2)

    name = "adding"
    about = ("A step reads a number from 0 to 1 and a marker; the target at the end is the sum of the two numbers "
             "whose marker is 1.")
    inputs, outputs, loss = 2, 1, "mse"
    metric_name, higher_is_better, test_size = "mean squared error", False, 2560
    baseline, goal = 1 / 6, 1e-3
    recipe = lstm_recipe(hidden=32, batch=50, steps=3000, lr=0.005, cell_options={"chrono": 100}, validate_every=50)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        half, each = self.length // 2, np.arange(size)
        x = np.zeros((self.length, size, 2), np.float32)
        x[:, :, 0] = rng.random((self.length, size), np.float32)
        x[rng.integers(0, half, size), each, 1] = 1
        x[rng.integers(half, self.length, size), each, 1] = 1
        return target_at_end(x, (x[:, :, 0] * x[:, :, 1]).sum(axis=0)[:, None])

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        return np.mean((outputs[-1] - batch.targets[-1]) ** 2, dtype=float)


@dataclass(frozen=True)
class Adding1997(Task):
    """The adding problem of 1997: lengths vary, and an error of 0.04 or more is wrong.

    `length` T is the shortest; lengths are drawn from T … T + T/10. x (T + T/10, B, 2): numbers from U[−1, 1], and
    markers: −1 at the first and the last step, 1 at two more, else 0. One of these is drawn from the first ten steps,
    the other from the first T/2 − 1 that are not marked yet; if it falls on the first step, whose marker stays −1, its
    number counts as 0. Target: 0.5 + (X₁ + X₂) / 4. Hochreiter & Schmidhuber 1997, experiment 4.

    Metric: the fraction of sequences with an error below 0.04. Solved at 2558 of the 2560 test sequences.

    The best guess without memory is 0.5, right where |X₁ + X₂| < 0.16. The sum of two numbers from U[−1, 1] is in
    that range with probability 1 − (1 − 0.08)² = 0.1536, a single number with 0.16. The first step is drawn with
    probability q = 1/10 + 9/10 · 1/(T/2 − 1), so the baseline is (1 − q) · 0.1536 + q · 0.16.

    Published, T = 100: 74 000 sequences, then 1 of 2560 wrong (table 7, mean of ten runs, 93 weights, one sequence at
    a time). Training stopped when the mean error was below 0.01 and the last 2 000 sequences were all right, so at
    least these 2 000 are in the count. T = 500: 209 000, none wrong; T = 1000: 853 000, 1 wrong.
    """

    length: int = whole(100, least=22)  # the marks need ten steps, and T/2 − 1 of at least ten

    name = "adding-1997"
    about = ("A step reads a number from −1 to 1 and a marker, −1 at both ends; the target at the end is ½ + ¼ of "
             "the sum of the two numbers whose marker is 1.")
    inputs, outputs, loss = 2, 1, "mse"
    metric_name, test_size = "fraction with an error below 0.04", 2560
    goal = 2558 / 2560
    recipe = lstm_recipe(hidden=16, batch=20, steps=4000, lr=0.01, cell_options={"chrono": 100}, validate_every=50)

    @property
    def baseline(self) -> float:
        first = 1 / 10 + 9 / 10 / (self.length // 2 - 1)
        return (1 - first) * (1 - (1 - 0.08) ** 2) + first * 0.16

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        longest, each = self.length + self.length // 10, np.arange(size)
        lengths = rng.integers(self.length, longest, size, endpoint=True)
        x = np.zeros((longest, size, 2), np.float32)
        x[:, :, 0] = np.where(length_mask(lengths, longest), rng.uniform(-1, 1, (longest, size)), 0)
        one = rng.integers(0, 10, size)
        two = rng.integers(0, self.length // 2 - 1, size)
        two += two >= one  # skip the step that is already marked
        total = sum(np.where(place > 0, x[place, each, 0], 0) for place in (one, two))
        x[one, each, 1] = x[two, each, 1] = 1
        x[0, :, 1] = x[lengths - 1, each, 1] = -1
        return target_at_end(x, (0.5 + total / 4).astype(np.float32)[:, None], lengths)

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        return np.mean(abs(outputs - batch.targets)[batch.mask] < 0.04)
