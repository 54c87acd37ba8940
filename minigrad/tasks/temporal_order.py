"""Temporal order: remember a few symbols among many, and their order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from minigrad.engine.ops import log_softmax
from minigrad.tasks.task import Batch, Task, length_mask, lstm_recipe, target_at_end, whole

X, Y, E, B = 4, 5, 6, 7  # 0 … 3 are the distractors a, b, c, d
STARTS = {2: (10, 50), 3: (10, 33, 66), 4: (10, 30, 50, 70)}  # starts of the ranges with an X or Y, in percent of T


@dataclass(frozen=True)
class TemporalOrder(Task):
    """The order of X and Y at two places among distractors.

    `length` T is the shortest; lengths are drawn from T … T + T/10. x (T + T/10, B) are symbols: E first, B last, and
    between them a, b, c or d, except X or Y at one place between T/10 and T/5 and at one between T/2 and 3T/5. The
    target at the end is one of four classes: XX, XY, YX, YY. Hochreiter & Schmidhuber 1997, experiment 6a.

    Metric: the fraction of sequences right, where every output is less than 0.3 from its target as in 1997; for
    a softmax, p > 0.7 for the class. Solved when all 2560 are right. The best memoryless guess is one class
    for all: 1/4.

    Published: 31 390 sequences, then 1 of 2560 wrong (table 9, mean of 20 runs, 156 weights, one sequence at a time).
    Training stopped when the mean error was below 0.1 and the last 2 000 sequences were all right, which are in the
    count.
    """

    length: int = whole(100, least=20)

    name = "temporal-order"
    about = ("A step reads E (start), B (end), X, Y or one of the distractors a to d; the target at the end is "
             "the order of the X's and Y's.")
    inputs, symbols, loss = 8, True, "cross_entropy"
    metric_name, test_size, goal = "fraction right", 2560, 1.0
    places = 2
    recipe = lstm_recipe(hidden=16, batch=20, steps=3000, lr=0.01, cell_options={"chrono": 100}, validate_every=50)

    @property
    def names(self) -> tuple[str, list[str]]:
        return "abcdXYEB", ["".join(order) for order in itertools.product("XY", repeat=self.places)]

    @property
    def outputs(self) -> int:
        return 2 ** self.places

    @property
    def baseline(self) -> float:
        return 1 / self.outputs

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        T, each = self.length, np.arange(size)
        longest = T + T // 10
        lengths = rng.integers(T, longest, size, endpoint=True)
        x = rng.integers(0, 4, (longest, size))
        order = np.zeros(size, int)
        for start in STARTS[self.places]:
            bit = rng.integers(0, 2, size)
            x[start * T // 100 + rng.integers(0, T // 10, size, endpoint=True), each] = np.where(bit, Y, X)
            order = 2 * order + bit
        x[0], x[lengths - 1, each] = E, B
        return target_at_end(np.where(length_mask(lengths, longest), x, 0), order, lengths)

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        log_p = log_softmax(outputs[batch.mask])
        return np.mean(np.take_along_axis(log_p, batch.targets[batch.mask][:, None], axis=1) > np.log(0.7))


@dataclass(frozen=True)
class TemporalOrder3(TemporalOrder):
    """The order of X and Y at three places among distractors: eight classes.

    As `TemporalOrder`, with X or Y between 0.10 T and 0.20 T, 0.33 T and 0.43 T, 0.66 T and 0.76 T. Hochreiter &
    Schmidhuber 1997, experiment 6b. Baseline 1/8.

    Published: 571 100 sequences, then 2 of 2560 wrong (table 9, mean of 10 runs, 308 weights). The count includes the
    last 2 000, all right.
    """

    name, places = "temporal-order-3", 3


@dataclass(frozen=True)
class TemporalOrder4(TemporalOrder):
    """The order of X and Y at four places among distractors: sixteen classes.

    As `TemporalOrder`, one step further than the paper goes, so nothing is published: X or Y between 0.1 T and 0.2 T,
    0.3 T and 0.4 T, 0.5 T and 0.6 T, 0.7 T and 0.8 T. Baseline 1/16.
    """

    name, places = "temporal-order-4", 4
