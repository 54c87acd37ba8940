"""A run: a training that is saved in a folder and can be resumed.

    config.json      the settings, the sizes of the model and, for a run that trained on longer, its extensions
    metrics.jsonl    one object per step: step, loss, norm, lr and, where it was measured, metric
    checkpoint.npz   the full state of the training; checkpoint.previous.npz is the one before
    result.json      at the end: task, steps, metric, baseline, solved, …

A run that is killed at any moment and resumed ends with the same metrics.jsonl and the same weights, bit for bit, as an
uninterrupted run: it returns to its last checkpoint, cuts metrics.jsonl back to that step, and restores the random
states and the carried state.

A folder may come from somebody else. Its files are checked before anything is built from them, and the Python file that
config.json names for a cell is run only if the caller trusts it or `minigrad.training.trust` remembers it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from minigrad.engine.messages import refusing
from minigrad.engine.pytree import flatten
from minigrad.files.atomic import CheckpointError, write_json
from minigrad.timeloop.compile import CompileNotice, compiler, loops_in
from minigrad.training import checkpoint, trust
from minigrad.training.extension import Extension, extended_schedule, next_extension
from minigrad.training.folder import CHECKPOINT, CONFIG, RESULT, UNSAVED, Folder
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.settings import Settings
from minigrad.training.signals import SignalGuard
from minigrad.training.trainer import Diverged, Trainer, strip_prefix
from minigrad.training.user_code import fingerprint
from minigrad.training.verify import belonging, open_checkpoint, open_config, refuse_data, refuse_values


class Run:
    """A training that is recorded in a folder, if it has one; leaving the context releases the folder.

    ```python
    with Run.new(Settings.for_task("adding"), "runs/adding") as run:       # or Run.resume("runs/adding")
        result = run.go()
    ```
    You can add callbacks to its `trainer` before `go`.
    """

    def __init__(self, settings: Settings, folder: Folder | None = None, trusted: bool = False):
        self.settings, self.trainer, self.folder = settings, settings.trainer(), folder
        self.saved = 0  # the step of the last checkpoint
        self.trusted = trusted
        self.extensions: list[Extension] = []
        self.config: dict[str, Any] | None = None  # to write before the run goes on, if it was extended now

    @classmethod
    def new(cls, settings: Settings, out: str | Path | None = None) -> Run:
        """Begin a run in a folder that does not contain one yet; a missing folder is created.

        The Python file of a user's cell is run, and remembered as trusted (training/trust.py). Raises ValueError, and
        writes nothing, if the settings are invalid or the folder cannot be used.
        """
        run = cls(replace(settings, loops=compiler.identity()))
        if out is not None:
            config = make_config(run.settings, run.trainer.task)
            run.folder = Folder.new(out, config)
            if settings.cell_file is not None:
                trust.remember(settings.cell_file, config["sources"][settings.cell_file])
        return run

    @classmethod
    def resume(cls, place: str | Path, trust: bool = False, *, steps: int | None = None, lr: float | None = None
               ) -> Run:
        """Load a run at the last checkpoint of its folder, or at the checkpoint that `place` names.

        trust   run the Python file that config.json names for the cell, even if this user has not trained with it on
                this machine
        steps   a new number of all its steps, so that it trains on longer, also after it has solved its task
        lr      a new step size from here on; with a cosine schedule, one comes down from it over the steps left

        `go` records steps and lr in config.json. Raises ValueError, in one sentence that names the file, if the run
        cannot continue. No file changes before `go`.
        """
        place = Path(place)
        path, config = open_config(place, trust)
        folder = Folder(path)
        try:
            found = open_checkpoint(place, path, config)
            with refusing(f"the run in {path} cannot continue", CheckpointError):
                refuse_data(path, config)
                run = cls(config["settings"], folder, trust)
            refuse_data(path, config, run.trainer.task)
            if found is not None:
                run.restore(*found)
            run.trainer.rows = folder.rows_until(run.trainer.step, found and found[0])
            with refusing(f"the run in {path} cannot go on", CheckpointError):
                run.extensions = config.get("extensions", [])
                run.apply_extensions()
                if steps is not None or lr is not None:
                    run.extend(config, steps, lr)
        except BaseException:
            folder.close()
            raise
        return run

    def extend(self, config: dict[str, Any], steps: int | None, lr: float | None) -> None:
        """Add an extension from this step on, unless it is already recorded."""
        made = next_extension(self.settings, self.extensions, self.trainer, steps, lr)
        if made is not None:
            self.extensions = [one for one in self.extensions if one.after < made.after] + [made]
            self.config = config | {"settings": self.settings.as_dict(),
                                    "extensions": [asdict(one) for one in self.extensions]}
            self.apply_extensions()

    def apply_extensions(self) -> None:
        if self.extensions:
            trainer, last = self.trainer, self.extensions[-1]
            trainer.steps, trainer.until_solved = last.steps, last.until_solved
            trainer.schedule = extended_schedule(self.settings, self.extensions)
            if trainer.step <= last.after:
                trainer.ended = ""

    def restore(self, path: Path, arrays: dict[str, np.ndarray], meta: Any) -> None:
        trainer, state = self.trainer, meta["trainer"]
        with belonging(path):
            leaves = [name for name in arrays if name.startswith("state/")]
            carried = np.result_type(*[p.dtype for p in trainer.model.parameters()])
            refuse_values(arrays, {f"model/{name}": x.dtype for name, x in trainer.model.state_dict().items()}
                          | dict.fromkeys(leaves, carried))
            type(trainer.rng.bit_generator)().state = state["drawn"]
            if len(flatten(state["state"])[0]) != len(leaves):
                raise ValueError("it has other arrays for the carried state than it declares")
            trainer.load_state_dict(arrays, state)
        self.saved = trainer.step

    @property
    def resume_options(self) -> str:
        """The options of `minigrad train` that resume this run."""
        return f"--resume {self.folder.path}{' --trust' if self.trusted else ''}"

    def go(self, report: Callable[[str], None] | None = None, bar: bool = False) -> dict[str, Any]:
        """Train to the end, and return the content of result.json; report and bar are those of `Trainer.run`.

        `trainer.ended` tells why it ended. Raises Diverged, and CheckpointError if the folder is not writable; the last
        checkpoint is kept.
        """
        kind = "numpy" if self.settings.loops == "numpy" else "c"
        if kind == "c" and compiler.identity() != self.settings.loops:
            warnings.warn(f"the loops of this run are C by {self.settings.loops}, and here they are by "
                          f"{compiler.identity()}: the last digits may differ from those of a run that was never "
                          "interrupted", CompileNotice, stacklevel=2)
        with threadpool_limits(self.settings.threads, user_api="blas"), loops_in(kind):
            if self.folder is not None:
                return self.go_in_folder(report, bar)
            self.trainer.run(report, bar)
            return self.result()

    def go_in_folder(self, report: Callable[[str], None] | None, bar: bool) -> dict[str, Any]:
        trainer = self.trainer
        with SignalGuard():  # covers the final writes too
            trainer.callbacks.append(self.record)
            try:
                self.folder.truncate()
                if self.config is not None:
                    (self.folder.path / RESULT).unlink(missing_ok=True)  # first: it would be of fewer steps
                    write_json(self.folder.path / CONFIG, self.config)
                trainer.run(report, bar)
                if self.saved < trainer.step:
                    self.save()
                result = self.result()
                if trainer.ended in ("done", "solved"):
                    write_json(self.folder.path / RESULT, result)
                return result
            except Diverged as problem:
                kept = f"the checkpoint of step {self.saved} is kept" if self.saved else "there is no checkpoint yet"
                raise Diverged(f"{problem}; {kept} in {self.folder.path}") from None
            except CheckpointError as problem:
                raise CheckpointError(f"{problem}; correct that, then continue with {self.resume_options}") from None
            finally:
                trainer.callbacks.remove(self.record)

    def record(self, trainer: Trainer, row: dict[str, float]) -> None:
        """Callback: write the row of a step, and a checkpoint when one is due."""
        self.folder.write(row)
        if trainer.step % self.settings.checkpoint_every == 0:
            self.save()

    def save(self) -> None:
        arrays, state = self.trainer.state_dict()
        self.folder.flush()  # first: a checkpoint must not be ahead of metrics.jsonl
        checkpoint.save(self.folder.path / CHECKPOINT, arrays, {"settings": self.settings.as_dict(), "trainer": state})
        (self.folder.path / UNSAVED).unlink(missing_ok=True)
        self.saved = self.trainer.step

    def result(self) -> dict[str, Any]:
        trainer, task = self.trainer, self.trainer.task
        value = trainer.measure()
        return {"task": task.name, "steps": trainer.step, "sequences": trainer.sequences,
                "metric_name": task.metric_name, "metric": value, "baseline": float(task.baseline),
                "solved": bool(task.solved(value)), "loss": trainer.rows[-1]["loss"] if trainer.rows else None,
                "parameters": sum(p.size for p in trainer.model.parameters()), "seconds": round(trainer.seconds, 3),
                "ended": trainer.ended}

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            self.folder.close()


def make_config(settings: Settings, task: Any) -> dict[str, Any]:
    """The content of config.json: the settings, the sizes of the model, and hashes of the data and the cell's file."""
    sources = {}
    if settings.cell_file is not None:
        sources[settings.cell_file] = fingerprint(settings.cell_file)
    if hasattr(task, "fingerprint"):
        sources[task.source] = task.fingerprint
    return {"settings": settings.as_dict(), "sources": sources, "model": task.sizes,
            "characters": getattr(task, "characters", None)}


def load_model(place: str | Path, trust: bool = False) -> tuple[SequenceModel, dict[str, Any]]:
    """(model, config) of a run: the model has the weights of the last checkpoint, and config["step"] is its step. The
    text or task is not needed.

    place is the folder, or a checkpoint in it. `trust` is that of `Run.resume`. Raises CheckpointError, in one sentence
    that names the file.
    """
    place = Path(place)
    folder, config = open_config(place, trust)
    found = open_checkpoint(place, folder, config)
    if found is None:
        raise CheckpointError(f"{folder} has no checkpoint yet: continue the run with --resume {folder}")
    path, arrays, meta = found
    with belonging(path):
        model, weights = config["settings"].model(**config["model"], rng=0), strip_prefix("model/", arrays)
        refuse_values(weights, {name: x.dtype for name, x in model.state_dict().items()})
        model.load_state_dict(weights)
    return model.eval(), config | {"step": meta["trainer"]["step"]}
