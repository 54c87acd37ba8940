"""aⁿbⁿ: the simplest language that requires counting; the metric is how far a model counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad.tasks.task import Batch, Task, length_mask, lstm_recipe, whole

EDGE, A, B = 0, 1, 2


@dataclass(frozen=True)
class AnBn(Task):
    """The next symbol of aⁿbⁿ, with n up to `length` in training and up to `furthest` in the test.

    A string is #aⁿbⁿ#, n from 1 … N equally likely; x (2N' + 1, B) are all symbols but the last, targets all but the
    first, 0 for #, 1 for a, 2 for b; N' is the largest n of the batch. There is one string for each n, so validation
    set and test set overlap: the validation set is n = 1 … 65, the test set n = 1 … `furthest`. A model that is trained
    until solved is selected on the first 65 strings, and tested only on the others.

    Metric: the largest n for which this string and all shorter ones are right wherever the next symbol is determined:
    after # (a), and after each b (b, or # after the n-th). After an a, both a and b are legal. Solved at 65.

    Baseline: 1. A memoryless guess after b is either always b (no string right) or always # (n = 1).

    The optimal cross-entropy is known. A string is determined by its n, so the smallest expected
    −ln p of a string is the entropy of n, ln N nats. There are 2n + 1
    symbols to predict, N + 2 on average: ln N / (N + 2) nats a symbol, 0.192 for N = 10 (`optimum`). Step by step:
    after the k-th a, b comes with probability 1 / (N − k + 1), and all other symbols are certain.
    Lan, Geyer, Chemla & Katzir 2022 draw n geometrically, p = 0.3, and measure strings longer than those in training:
    (n − 1) log₂ 1/0.7 + log₂ 1/0.3 bits for 2n + 1 symbols, for large n ½ log₂ 1/0.7 = 0.257 bits a symbol.

    Published, as that cross-entropy in bits: optimum 0.258, the best RNN of a grid search 0.532 with 100 strings, 0.510
    with 500 (Lan et al. 2022, TACL 10, table 1). As the largest n after training to n ≤ 10: 65 to 100, the furthest
    tried, on five seeds, by an LSTM of 2 cells with peepholes, trained with Adam on one string a step. That is not a
    paper's figure but that of a program, https://cybertronai.github.io/schmidhuber-problems/anbn-anbncn, after Gers &
    Schmidhuber 2001, IEEE Transactions on Neural Networks 12(6).
    """

    length: int = whole(10, least=1)
    furthest: int = whole(100, least=65)

    name = "anbn"
    about = "A step reads # (an edge), a or b, and is asked for the next symbol: the b's are as many as the a's."
    inputs, symbols, outputs, loss = 3, True, 3, "cross_entropy"
    names = "#ab", "#ab"
    metric_name = "largest n"
    baseline, goal = 1.0, 65.0
    recipe = lstm_recipe(hidden=4, batch=5, steps=4000, lr=0.1, cell_options={"forget_bias": 8.0}, validate_every=20)

    @property
    def test_size(self) -> int:
        return self.furthest

    @property
    def optimum(self) -> float:
        """The smallest possible cross-entropy in training, in nats per symbol: ln N / (N + 2)."""
        return np.log(self.length) / (self.length + 2)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        return self.strings(rng.integers(1, self.length, size, endpoint=True))

    def validation(self, rng: np.random.Generator | int) -> Batch:
        return self.strings(np.arange(1, int(self.goal) + 1))

    def test(self, rng: np.random.Generator | int) -> Batch:
        return self.strings(np.arange(1, self.furthest + 1))

    def strings(self, n: np.ndarray) -> Batch:
        lengths = 2 * n + 1
        t = np.arange(1, lengths.max() + 1)[:, None]  # x is #, then the targets one step later
        targets = np.where(t <= n, A, np.where(t <= 2 * n, B, EDGE))
        mask = length_mask(lengths, len(t))
        x = np.where(mask, np.concatenate([np.full((1, len(n)), EDGE), targets[:-1]]), 0)
        return Batch(x, targets, mask, lengths)

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        asked = batch.mask & (batch.x != A)
        right = ((outputs.argmax(axis=-1) == batch.targets) | ~asked).all(axis=0)
        n = batch.lengths // 2
        return min(n[~right], default=n.max() + 1) - 1
