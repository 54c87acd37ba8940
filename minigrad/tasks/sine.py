"""Sine: the next value of a wave of unknown frequency and phase; a first test of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad.tasks.task import Batch, Task, lstm_recipe, whole

SLOWEST, FASTEST = 2 * np.pi / 30, 2 * np.pi / 10  # radians a step
FIRST_TARGET = 10  # the steps before determine frequency and phase


@dataclass(frozen=True)
class Sine(Task):
    """The next value of a sine wave of unknown frequency and phase, over `length` steps.

    x (T, B, 1): sin(φ + ω t), with φ from U[0, 2π] and a period of 2π/ω steps, ω from U[2π/30, 2π/10]. Targets: the
    next value, after the first ten steps.

    Metric: mean squared error; solved below 1e-3. Given x = sin θ alone, where θ is uniform and independent of ω, the
    next value sin(θ + ω) is x cos ω ± √(1 − x²) sin ω, either sign equally likely: the best memoryless guess is c x
    with c = E[cos ω] = (sin ω₂ − sin ω₁) / (ω₂ − ω₁), and its error E[½ (cos ω − c)² + ½ sin² ω] = ½ (1 − c²).

    Published: nothing.
    """

    length: int = whole(50, least=FIRST_TARGET + 1)

    name = "sine"
    about = "A step reads a value of a wave and, from the tenth on, is asked for the next value."
    inputs, outputs, loss = 1, 1, "mse"
    metric_name, higher_is_better = "mean squared error", False
    baseline = (1 - ((np.sin(FASTEST) - np.sin(SLOWEST)) / (FASTEST - SLOWEST)) ** 2) / 2
    goal = 1e-3
    recipe = lstm_recipe(hidden=16, batch=50, steps=1000, lr=0.01, validate_every=50)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        phase, speed = rng.uniform(0, 2 * np.pi, size), rng.uniform(SLOWEST, FASTEST, size)
        t = np.arange(self.length + 1)[:, None]
        wave = np.sin(phase + speed * t).astype(np.float32)[:, :, None]
        mask = np.broadcast_to(t[:-1] >= FIRST_TARGET, wave[1:, :, 0].shape)
        return Batch(wave[:-1], wave[1:] * mask[:, :, None], mask)

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        return np.mean((outputs - batch.targets)[batch.mask] ** 2, dtype=float)
