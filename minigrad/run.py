"""A run: a training, and the folder in which it survives.

    config.json      the settings, and what a model is built from
    metrics.jsonl    an object for each step: step, loss, norm, lr and, where it was measured, metric
    checkpoint.npz   all it needs to go on; checkpoint.previous.npz is the one before
    result.json      at the end: task, steps, metric, baseline, solved, …

A run that is killed at any moment and resumed ends with the same metrics.jsonl and the same weights, bit for bit, as
one that was left alone: it goes back to its last checkpoint, metrics.jsonl is cut back to the same step, and what is
drawn, carried and computed from there is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from minigrad import checkpoint
from minigrad.checkpoint import CheckpointError, named, write_json
from minigrad.model import SequenceModel
from minigrad.names import in_one_sentence
from minigrad.settings import Settings
from minigrad.train import Diverged, Signals, Trainer, under

try:
    import fcntl
except ImportError:  # Windows: there, two runs in one folder are not told apart
    fcntl = None

CONFIG, METRICS, CHECKPOINT, RESULT = "config.json", "metrics.jsonl", "checkpoint.npz", "result.json"


class Run:
    """A training that is written down as it goes, if it has a folder; as a context, it holds the folder.

    ```python
    with Run.new(Settings.for_task("adding"), "runs/adding") as run:       # or Run.resume("runs/adding")
        result = run.go()
    ```
    Its `trainer` may be given callbacks before `go`.
    """

    def __init__(self, settings: Settings, folder: Folder | None = None):
        self.settings, self.trainer, self.folder = settings, settings.trainer(), folder
        self.saved = 0  # the step of the last checkpoint

    @classmethod
    def new(cls, settings: Settings, out: str | Path | None = None) -> Run:
        """A new run, in a folder that holds none yet; it is made if it is not there.

        Raises ValueError, in a sentence, where settings or folder do not do. Nothing is written then.
        """
        run = cls(settings)
        if out is not None:
            run.folder = Folder.new(out, describe(settings, run.trainer.task))
        return run

    @classmethod
    def resume(cls, place: str | Path) -> Run:
        """The run of a folder, at its last checkpoint; or at a checkpoint, if that is named instead of the folder.

        Raises ValueError, in a sentence that names the file, where it cannot go on. Nothing is changed then.
        """
        place = Path(place)
        folder = Folder(folder_of(place))
        try:
            config = read_config(folder.path)
            run = cls(config["settings"], folder)
            now = describe(run.settings, run.trainer.task)["sources"]
            for source, known in config["sources"].items():
                if now.get(source) != known:
                    raise CheckpointError(f"{source} has changed since the run in {folder.path} began: put it back as "
                                          "it was, or begin a new run")
            path = place if place.is_file() else checkpoint.latest(folder.path / CHECKPOINT)
            if path is not None:
                run.restore(path)
            run.trainer.rows = folder.cut_back(run.trainer.step)
            folder.put_aside(path)
        except BaseException:
            folder.close()
            raise
        return run

    def restore(self, path: Path) -> None:
        arrays, meta = load_or_offer(path)
        try:
            if meta["settings"] != self.settings.as_dict():
                raise ValueError("its settings are others")
            self.trainer.load_state_dict(arrays, meta["trainer"])
        except (ValueError, KeyError, TypeError) as problem:
            raise CheckpointError(f"{path} is not of the run that {self.folder.path / CONFIG} describes: "
                                  f"{in_one_sentence(problem)}") from None
        self.saved = self.trainer.step

    def go(self, report: Callable[[str], None] | None = None, bar: bool = False) -> dict[str, Any]:
        """Train to the end, and return what result.json holds; report and bar as for `Trainer.run`.

        `trainer.ended` says how it ended. Raises Diverged, and CheckpointError when the folder cannot be written to;
        the last checkpoint stays as it was.
        """
        with threadpool_limits(self.settings.threads, user_api="blas"):
            if self.folder is not None:
                return self.go_and_write(report, bar)
            self.trainer.run(report, bar)
            return self.result()

    def go_and_write(self, report: Callable[[str], None] | None, bar: bool) -> dict[str, Any]:
        trainer = self.trainer
        with Signals():  # also while the end is written
            trainer.callbacks.append(self.record)
            try:
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
                raise CheckpointError(f"{problem}; once that is put right, go on by --resume {self.folder.path}"
                                      ) from None
            finally:
                trainer.callbacks.remove(self.record)

    def record(self, trainer: Trainer, row: dict[str, float]) -> None:
        """The callback that writes a step down."""
        self.folder.write(row)
        if trainer.step % self.settings.checkpoint_every == 0:
            self.save()

    def save(self) -> None:
        arrays, state = self.trainer.state_dict()
        self.folder.flush()  # first: no checkpoint is further than metrics.jsonl
        checkpoint.save(self.folder.path / CHECKPOINT, arrays, {"settings": self.settings.as_dict(), "trainer": state})
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


class Folder:
    """The files of one run, in the hands of one process: metrics.jsonl stays open, and locked."""

    def __init__(self, path: Path):
        self.path = path
        with named(path / METRICS, "cannot be written"):
            self.metrics = open(path / METRICS, "ab")
        if fcntl is not None:
            try:
                fcntl.flock(self.metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise CheckpointError(f"{path} is in use by another run: wait for its end, or take another folder"
                                      ) from None
            except OSError:
                pass  # a file system that has no locks

    @classmethod
    def new(cls, path: str | Path, config: dict[str, Any]) -> Folder:
        path = Path(path)
        with named(path, "cannot be made a folder"):
            path.mkdir(parents=True, exist_ok=True)
        refuse_occupied(path)
        folder = cls(path)
        try:
            refuse_occupied(path)  # again, now that no other can begin one here
            write_json(path / CONFIG, config)
        except BaseException:
            folder.close()
            raise
        return folder

    def write(self, row: dict[str, float]) -> None:
        with named(self.path / METRICS, "cannot be written"):
            self.metrics.write(json.dumps(row).encode() + b"\n")
            self.metrics.flush()

    def flush(self) -> None:
        """Have what was written on the disk."""
        with named(self.path / METRICS, "cannot be written"):
            os.fsync(self.metrics.fileno())

    def cut_back(self, step: int) -> list[dict[str, float]]:
        """Cut metrics.jsonl back to its first so many steps, and return them."""
        path = self.path / METRICS
        with named(path, "cannot be read"), open(path, "rb") as file:
            lines = [line for _, line in zip(range(step), file)]
        try:
            rows = [json.loads(line) for line in lines]
            fits = [row["step"] for row in rows] == list(range(1, step + 1))
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise CheckpointError(f"{path} does not hold steps 1 to {step}, which the checkpoint has behind it: put it "
                                  "back as it was")
        with named(path, "cannot be written"):
            self.metrics.truncate(sum(map(len, lines)))
        return rows

    def put_aside(self, used: Path | None) -> None:
        """A checkpoint that was passed over for the one before it makes way, but is not lost."""
        path = self.path / CHECKPOINT
        if used is not None and used.name != CHECKPOINT and path.exists():
            with named(path, "cannot be renamed"):
                os.replace(path, self.path / "checkpoint.aside.npz")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take was said before
            self.metrics.close()


def refuse_occupied(path: Path) -> None:
    names = (CONFIG, METRICS, CHECKPOINT, checkpoint.previous(CHECKPOINT).name, RESULT)
    held = [name for name in names if (path / name).exists() and (name != METRICS or (path / name).stat().st_size)]
    if held:
        raise CheckpointError(f"{path} holds a run already ({', '.join(held)}): go on with it by --resume {path}, or "
                              "take another folder")


def load_or_offer(path: Path) -> tuple[dict[str, Any], Any]:
    """A checkpoint; where it is broken, the error offers the one before it, if that is whole."""
    try:
        return checkpoint.load(path)
    except CheckpointError as problem:
        before, offer = checkpoint.previous(path), ""
        with contextlib.suppress(CheckpointError):
            step = checkpoint.load(before)[1]["trainer"]["step"]
            offer = f"; the one before it, of step {step}, is whole: give {before} in its place"
        raise CheckpointError(f"{problem}{offer}") from None


def describe(settings: Settings, task: Any) -> dict[str, Any]:
    """What config.json holds: the settings, what a model is built from, and the prints of what else was read."""
    sources = {}
    if ".py:" in settings.cell:
        file = settings.cell.rpartition(":")[0]
        sources[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    if settings.task == "text":
        sources[task.source] = task.fingerprint
    return {"settings": settings.as_dict(), "sources": sources,
            "model": {"inputs": task.inputs, "outputs": task.outputs, "symbols": task.symbols},
            "characters": getattr(task, "characters", None)}


def folder_of(place: Path) -> Path:
    """The folder of a run, given it or a checkpoint in it."""
    path = place.parent if place.is_file() else place
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path} holds no run, as it has no {CONFIG}: begin one by minigrad train --out {path}")
    return path


def read_config(path: Path) -> dict[str, Any]:
    """config.json, with its settings as Settings."""
    file = path / CONFIG
    with named(file, "cannot be read"):
        text = file.read_bytes()
    try:
        config = json.loads(text)
        return {**config, "settings": Settings.of(**config["settings"]), "sources": dict(config["sources"])}
    except (ValueError, TypeError, KeyError) as problem:
        raise CheckpointError(f"{file} is no config of minigrad: {in_one_sentence(problem)}") from None


def load_model(place: str | Path) -> tuple[SequenceModel, dict[str, Any]]:
    """The model of a run, with the weights of its last checkpoint, and its config, with the `step` that this was made
    at. The text or task is not needed.

    place is the folder, or a checkpoint in it. Raises CheckpointError, in a sentence that names the file.
    """
    place = Path(place)
    folder = folder_of(place)
    config = read_config(folder)
    path = place if place.is_file() else checkpoint.latest(folder / CHECKPOINT)
    if path is None:
        raise CheckpointError(f"{folder} has no checkpoint yet: go on with the run by --resume {folder}")
    arrays, meta = load_or_offer(path)
    try:
        model = config["settings"].model(**config["model"], rng=0)
        model.load_state_dict(under("model/", arrays))
        config["step"] = meta["trainer"]["step"]
    except (ValueError, TypeError, KeyError) as problem:
        raise CheckpointError(f"{path} is not of the run that {folder / CONFIG} describes: {in_one_sentence(problem)}"
                              ) from None
    return model.eval(), config
