"""TensorBoard: scalars of a training, and histograms of its gradients by layer and by time step (the extra
`tensorboard`, which is tensorboardX)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minigrad.engine.backward import sweep
from minigrad.engine.context import no_grad
from minigrad.microscope.recording import Record, Recording, record
from minigrad.nn.module import Module
from minigrad.training.sequence_model import eval_mode
from minigrad.training.trainer import VALIDATION, Trainer
from minigrad.training.windows import split_windows

MOST = 100  # maximum number of time steps that get a histogram


class TensorBoard:
    """Writes the logs that `tensorboard --logdir FOLDER` shows.

    ```python
    with TensorBoard("logs/lstm", every=100) as board:
        Trainer(model, task, optimizer, steps=1000, callbacks=[board]).run()
    ```
    folder  for the event files; it is made if it is missing
    every   updates between two sets of histograms; None: scalars only

    As a callback of a `Trainer`, it writes the row of every step as scalars and, every `every` steps, `gradients` of
    the model, and `over_time` of a recording of the model on the first window of a validation batch, in eval mode. It
    changes neither the model nor its random numbers. In a loop of your own, call its methods. A resumed training goes
    on in the same folder: TensorBoard drops what is newer than the checkpoint.

    Raises ModuleNotFoundError if tensorboardX is not installed, ValueError unless every ≥ 1.
    """

    def __init__(self, folder: str | Path, every: int | None = 100):
        try:
            import tensorboardX  # noqa: F401
        except ModuleNotFoundError:
            raise ModuleNotFoundError("TensorBoard's logs need tensorboardX, which is not installed: pip install "
                                      "tensorboardX") from None
        if every is not None and every < 1:
            raise ValueError(f"TensorBoard takes a number ≥ 1 of updates between histograms, or None, not {every!r}")
        self.folder, self.every = Path(folder), every
        self.writer: Any = None

    def opened(self, step: int) -> Any:
        """The writer, whose file begins at this update."""
        if self.writer is None:
            import tensorboardX
            self.writer = tensorboardX.SummaryWriter(str(self.folder), purge_step=step)
        return self.writer

    def __call__(self, trainer: Trainer, row: dict[str, float]) -> None:
        step = int(row["step"])
        self.scalars(step, **{name: value for name, value in row.items() if name != "step"})
        if self.every and step % self.every == 0:
            self.gradients(trainer.model, step)
            self.over_time(validation_recording(trainer), step)

    def scalars(self, step: int, **numbers: float) -> None:
        """Write numbers by name, as `board.scalars(step, loss=loss.item())`."""
        writer = self.opened(step)
        for name, number in numbers.items():
            writer.add_scalar(name, float(number), step)

    def gradients(self, model: Module, step: int) -> None:
        """Write a histogram of the gradient of every parameter, `gradient/NAME`, at this update. A parameter without a
        gradient is left out, and so is one whose gradient has only NaN and Inf."""
        writer = self.opened(step)
        for name, p in model.named_parameters():
            if p.grad is not None:
                add_histogram(writer, f"gradient/{name.replace('.', '/')}", p.grad, step)

    def over_time(self, rec: Recording | Record, step: int) -> None:
        """Write, for each recorded scan, a histogram of dL/d(each new state) at every time step, or at 100 of them:
        `gradient_over_time/SCAN/STATE/update_N`. The axis that TensorBoard calls step is the time of the sequence."""
        writer = self.opened(step)
        for scan in [rec] if isinstance(rec, Record) else [one for one in rec.records if isinstance(one, Record)]:
            times = np.unique(np.linspace(0, scan.steps - 1, MOST).round().astype(int))
            for name in (new for new in scan.states.values() if new and scan.values[new].dtype.kind == "f"):
                d = scan.grads[name]
                for t in times:
                    tag = f"gradient_over_time/{scan.path.replace('.', '/')}/{name}/update_{step}"
                    add_histogram(writer, tag, d[t], int(t))

    def close(self) -> None:
        """Write what is still in memory, and close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def add_histogram(writer: Any, tag: str, values: np.ndarray, step: int) -> None:
    finite = values[np.isfinite(values)]
    if finite.size:
        writer.add_histogram(tag, finite.astype(float), step)


def validation_recording(trainer: Trainer) -> Recording:
    """A recording of the model, and of its backward, on the first window of a validation batch."""
    window = next(split_windows(trainer.task.batch(np.random.default_rng(VALIDATION), trainer.batch), *trainer.bptt))
    with eval_mode(trainer.model), record(trainer.model) as recording:
        outputs, _ = trainer.model(window.x, None, window.lengths)
        loss = trainer.criterion(outputs, window.targets, mask=window.mask if window.has_targets else None)
        with no_grad():  # `loss.backward()` would change .grad
            sweep([loss], [np.ones(loss.shape, loss.dtype)], trainer.model.parameters(), release=True)
    return recording
