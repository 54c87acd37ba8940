"""The training loop over windows of data; it can stop at any step and resume there, bit for bit.

    window → outputs → loss → backward → clip → step

A `Trainer` needs a model, a task and an optimiser, and does not touch files: `state_dict()` returns all that a resume
needs, and callbacks (plain functions) run after every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.check.gradcheck import gradcheck
from minigrad.check.gradcheck_report import GradcheckReport
from minigrad.engine.anomaly import detect_anomaly
from minigrad.engine.context import no_grad
from minigrad.engine.ops import concatenate
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.nn.module import as_lists
from minigrad.optim import clip_grad_norm
from minigrad.training.progress import Progress
from minigrad.training.sequence_model import eval_mode
from minigrad.training.signals import SignalGuard
from minigrad.training.windows import Window, parse_bptt, split_windows

LOSSES = {"cross_entropy": nn.cross_entropy, "mse": nn.mse_loss, "binary_cross_entropy": nn.binary_cross_entropy}
SAVED = ("step", "ended", "sequences", "tokens", "seconds", "position")  # attributes saved as they are
VALIDATION, TEST = (1, 0x7E57), (2, 0x7E57)  # validation/test seeds; tuples, so no integer training seed collides


class Diverged(ArithmeticError):
    """A loss, a gradient or a weight became NaN or Inf. The message names the step and the op."""


class Trainer:
    """Trains a model on a task.

    model      model(x, state=None, lengths=None) → (outputs, state), as `SequenceModel`
    task       a Task, or any object with `batch(rng, size)` and `loss` (a key of LOSSES, or a function of outputs,
               targets and mask=); measuring also needs `test(rng)`, `metric(outputs, batch)` and `solved(value)`.
               Its `validation(rng)`, if it has one, is the validation set; else `test` with another rng
    optimizer  from minigrad.optim
    steps      number of optimiser steps, each on one window of `batch` sequences
    schedule   schedule(step) → lr, counted from 0; None keeps the optimiser's lr
    clip       maximum norm of the gradients, or None
    bptt       truncation: None for whole sequences; k for windows of k steps; (k1, k2) to flow back k2 steps from
               windows that advance by k1 ≤ k2. The state is carried from window to window.
    rng        seed or np.random.Generator for the data
    validate_every, until_solved   steps between measurements on a validation set; with `until_solved`, training stops
               when it is solved. The test set has no part in this.
    callbacks  called as callback(trainer, row) after every step; row is a dict of step, loss, norm, lr and, where it
               was measured, metric. A callback that returns True ends the training.

    After `run()`, `ended` is "done", "solved", "stopped" (by a callback) or "interrupted" (by Ctrl-C or SIGTERM, after
    the current step). Calling `run` again continues the training.
    """

    def __init__(self, model: Any, task: Any, optimizer: Any, *, steps: int, batch: int = 32,
                 schedule: Callable[[int], float] | None = None, clip: float | None = None,
                 bptt: int | tuple[int, int] | None = None, rng: Any = 0, validate_every: int | None = None,
                 until_solved: bool = False, callbacks: Iterable[Callable[[Trainer, dict], Any]] = ()):
        self.model, self.task, self.optimizer = model, task, optimizer
        self.steps, self.batch, self.schedule, self.clip = steps, batch, schedule, clip
        self.bptt = parse_bptt(bptt)
        self.validate_every, self.until_solved, self.callbacks = validate_every, until_solved, list(callbacks)
        self.criterion = LOSSES.get(task.loss, task.loss)
        self.rng = np.random.default_rng(rng)
        self.drawn, self.position = self.rng.bit_generator.state, 0  # resume cursor: RNG state, windows used
        self.state: Any = None  # the model's state, carried from window to window
        self.step = self.sequences = self.tokens = 0
        self.seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self.ended = ""

    def run(self, report: Callable[[str], None] | None = None, bar: bool = False) -> dict[str, np.ndarray]:
        """Train to the end and return the history. Pass ten lines of progress to `report`, or show a bar on stderr.

        The model trains in training mode; a submodule that was put in eval mode separately stays in eval mode.
        Afterwards the mode of each module is restored.

        Raises Diverged, before the step changes the weights, when the loss or a gradient is no longer finite.
        """
        self.ended = "solved" if self.ended == "solved" else "done" if self.step >= self.steps else ""
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # Diverged reports it instead
        with SignalGuard() as signals, Progress(self, report, bar) as progress, quiet, self.model.modes_kept():
            if not self.model.training:  # do not change submodules that are in eval mode
                self.model.train()
            windows = self.windows()
            while not self.ended:
                window = next(windows)
                if not window.has_targets:
                    with no_grad():
                        self.state = detached(self.forward(window)[1])
                    continue
                self.optimizer.zero_grad()
                loss, state = self.loss(window)
                loss.backward()
                norm = clip_grad_norm(self.optimizer.parameters, self.clip or math.inf)
                if not (math.isfinite(loss.item()) and math.isfinite(norm)):
                    raise Diverged(self.diagnose(window, loss.item(), norm))
                if self.schedule is not None:
                    self.optimizer.lr = self.schedule(self.step)
                self.optimizer.step()
                self.state = detached(state)
                self.step += 1

                row = {"step": self.step, "loss": loss.item(), "norm": norm, "lr": self.optimizer.lr}
                if self.validate_every and self.step % self.validate_every == 0:
                    row["metric"] = self.measure(VALIDATION)
                    if self.until_solved and self.task.solved(row["metric"]):
                        self.ended = "solved"
                self.rows.append(row)
                self.tokens += window.advance * window.x.shape[1]
                self.seconds += progress.update(row)
                if self.step >= self.steps:
                    self.ended = self.ended or "done"
                for callback in self.callbacks:
                    if callback(self, row):
                        self.ended = self.ended or "stopped"
                if signals.received and not self.ended:
                    self.ended = "interrupted"
        return self.history()

    def __repr__(self) -> str:
        k1, k2 = self.bptt
        settings = {"batch": self.batch, "clip": self.clip, "bptt": k1 if k1 == k2 else (k1, k2),
                    "schedule": self.schedule and getattr(self.schedule, "__qualname__", "given").split(".")[0],
                    "validate_every": self.validate_every, "until_solved": self.until_solved,
                    "callbacks": len(self.callbacks)}
        task = getattr(self.task, "name", type(self.task).__name__)
        return (f"Trainer of {type(self.model).__name__} on {task}, step {self.step:,} of {self.steps:,}"
                f"{self.ended and f', {self.ended}'}\n  "
                f"{', '.join(f'{name}={value}' for name, value in settings.items())}\n  {self.optimizer!r}")

    # -- one window ---------------------------------------------------------------------------------------

    def windows(self) -> Iterator[Window]:
        """Yield windows from the cursor on, without end."""
        self.rng.bit_generator.state = self.drawn
        while True:
            batch = self.task.batch(self.rng, self.batch)
            self.sequences += batch.x.shape[1] if self.position == 0 else 0
            for i, window in enumerate(split_windows(batch, *self.bptt)):
                if i >= self.position:
                    self.position = i + 1
                    yield window
            self.drawn, self.position = self.rng.bit_generator.state, 0

    def loss(self, window: Window) -> tuple[Tensor, Any]:
        """(loss of a window, state at the start of the next)."""
        outputs, state = self.forward(window)
        return self.criterion(outputs, window.targets, mask=window.mask), state

    def forward(self, window: Window) -> tuple[Tensor, Any]:
        """(outputs of a window, state at the start of the next)."""
        k, T = window.advance, len(window.x)
        lengths = [None, None] if window.lengths is None else [
            np.clip(window.lengths, 1, k), np.clip(window.lengths - k, 1, max(1, T - k))]
        outputs, state = self.model(window.x[:k], self.start_state(window.first), lengths[0])
        if k < T:
            more, _ = self.model(window.x[k:], state, lengths[1])
            outputs = concatenate([outputs, more])
        return outputs, state

    def start_state(self, first: Any) -> Any:
        """The state before a window; None if all its sequences begin there."""
        if self.state is None or np.all(first):
            return None
        return self.model.restart(self.state, np.asarray(first)) if np.any(first) else self.state

    def measure(self, seed: Any = TEST) -> float:
        """The task's metric on its test set, or with the seed VALIDATION on its validation set."""
        draw = getattr(self.task, "validation", self.task.test) if seed == VALIDATION else self.task.test
        batch = draw(np.random.default_rng(seed))
        with eval_mode(self.model), no_grad():
            outputs, _ = self.model(batch.x, None, batch.lengths)
        return float(self.task.metric(np.asarray(outputs), batch))

    def diagnose(self, window: Window, loss: float, norm: float) -> str:
        """Name the step and the op that diverged; run the step again under detect_anomaly to find the op."""
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradients is {norm}"
        cause = "no op returned NaN or Inf when the step was run again"
        self.optimizer.zero_grad()
        try:
            with detect_anomaly():
                self.loss(window)[0].backward()
        except FloatingPointError as problem:
            cause = str(problem)
        return f"{what} at step {self.step + 1}: {cause}"

    def gradcheck(self, steps: int = 2, rows: int = 4) -> GradcheckReport:
        """Check the model's gradients against numerical ones on the first steps of a few sequences. The mask is ignored
        since the task may have a target at the last step only."""
        window = next(split_windows(self.task.batch(np.random.default_rng(VALIDATION), rows)))

        def loss():
            outputs, _ = self.model(window.x[:steps], None)
            return self.criterion(outputs, window.targets[:steps], mask=None)
        with eval_mode(self.model):
            return check_loss(loss, self.model)

    # -- saving and resuming ---------------------------------------------------------------------------

    def history(self) -> dict[str, np.ndarray]:
        """The rows as one array per name; NaN where a value was not measured."""
        names = dict.fromkeys(["step", "loss", "norm", "lr"] + [name for row in self.rows for name in row])
        return {name: np.array([row.get(name, math.nan) for row in self.rows], int if name == "step" else float)
                for name in names}

    def state_dict(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON values): weights, optimiser, random states, cursor and carried state, without the history.

        Raises Diverged if a weight is not finite, since training cannot continue from it.
        """
        weights, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        for name, weight in weights.items():
            if not np.isfinite(weight).all():
                raise Diverged(f"{name} contains NaN or Inf after step {self.step}")
        arrays = {f"model/{name}": weight for name, weight in weights.items()}
        arrays |= {f"optimizer/{name}": x for name, x in optimizer.items() if isinstance(x, np.ndarray)}
        arrays |= {f"state/{i}": leaf for i, leaf in enumerate(flatten(self.state)[0])}
        return arrays, {name: getattr(self, name) for name in SAVED} | {
            "optimizer": {name: x for name, x in optimizer.items() if not isinstance(x, np.ndarray)},
            "model_rngs": self.model.rng_states(), "drawn": as_lists(self.drawn),
            "state": map_leaves(lambda leaf: 0, self.state)}  # only its nesting; JSON turns tuples into lists

    def load_state_dict(self, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Restore a `state_dict()`. Raises ValueError if it comes from another model or optimiser."""
        self.model.load_state_dict(strip_prefix("model/", arrays))
        self.model.load_rng_states(meta["model_rngs"])
        self.optimizer.load_state_dict(strip_prefix("optimizer/", arrays) | meta["optimizer"])
        self.state = unflatten(meta["state"], list(strip_prefix("state/", arrays).values()))
        for name in (*SAVED, "drawn"):
            setattr(self, name, meta[name])


def detached(state: Any) -> Any:
    """The state as contiguous arrays without a graph, the same as one loaded from a checkpoint."""
    return map_leaves(lambda leaf: np.ascontiguousarray(leaf.detach().numpy() if isinstance(leaf, Tensor) else leaf),
                      state)


def strip_prefix(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, without the prefix."""
    return {name[len(prefix):]: x for name, x in arrays.items() if name.startswith(prefix)}


def check_loss(loss: Callable[[], Tensor], model: Any) -> GradcheckReport:
    """Check the gradients of a loss with respect to the named parameters of its model."""
    loss.named_parameters = model.named_parameters
    return gradcheck(loss, raise_error=False)
