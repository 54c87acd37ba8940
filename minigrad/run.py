"""A run: a training and the folder in which it survives.

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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigrad import checkpoint
from minigrad.checkpoint import CheckpointError, flush_folder, write_json
from minigrad.model import SequenceModel
from minigrad.settings import Settings, build, build_model
from minigrad.train import TEST, Diverged, Signals, Trainer

try:
    import fcntl
except ImportError:  # Windows: there, two runs in one folder are not told apart
    fcntl = None

CONFIG, METRICS, CHECKPOINT, RESULT = "config.json", "metrics.jsonl", "checkpoint.npz", "result.json"


class Run:
    """A training that is written down as it goes, if it has a folder. Use it as a context: it holds the folder.

    ```python
    with Run.new(Settings.for_task("adding", length=50), "runs/adding") as run:   # or Run.resume("runs/adding")
        result = run.go()
    ```
    `settings`, and `trainer`, which may be given callbacks of one's own before `go`.
    """

    def __init__(self, settings: Settings, trainer: Trainer, folder: Folder | None):
        self.settings, self.trainer, self.folder = settings, trainer, folder
        self.saved: int | None = None  # the step of the last checkpoint

    @classmethod
    def new(cls, settings: Settings, out: str | Path | None = None) -> Run:
        """A new run, in a folder that holds none. Raises ValueError, in a sentence, where the settings or the folder
        do not do."""
        run = cls(settings, build(settings), None)
        if out is not None:
            run.folder = Folder.new(out, describe(settings, run.trainer))
        return run

    @classmethod
    def resume(cls, place: str | Path) -> Run:
        """The run of a folder, at its last checkpoint; or at the checkpoint that is named instead of the folder.

        Raises ValueError, in a sentence that names the file, where it cannot go on. Nothing is changed then.
        """
        folder = Folder.existing(place)
        try:
            config = read_config(folder.path)
            settings = Settings.checked(**config["settings"])
            run = cls(settings, build(settings), folder)
            now = describe(settings, run.trainer)
            for source in config["sources"]:
                if config["sources"][source] != now["sources"].get(source):
                    raise ValueError(f"{source} has changed since the run in {folder.path} began: put it back as it "
                                     "was, or begin a new run")
            run.restore(Path(place))
        except BaseException:
            folder.close()
            raise
        return run

    def restore(self, place: Path) -> None:
        path = self.folder.path / CHECKPOINT
        path = place if place.is_file() else checkpoint.latest(path)
        step = 0
        if path is not None:
            arrays, meta = load_or_offer(path)
            if meta["settings"] != asdict(self.settings):
                raise CheckpointError(f"{path} is not of the run that {self.folder.path / CONFIG} describes")
            self.trainer.load_state_dict(arrays, meta["trainer"])
            step = self.saved = self.trainer.step
        self.trainer.rows = self.folder.cut_back(step)
        self.folder.put_aside(path)

    def go(self, report: Callable[[str], None] | None = None, bar: bool = False) -> dict[str, Any]:
        """Train to the end, and return what result.json holds; report and bar as for `Trainer.run`.

        `trainer.ended` says how it ended. Raises Diverged, and CheckpointError when the folder cannot be written to:
        the last checkpoint is then as it was.
        """
        trainer = self.trainer
        with Signals():  # also while the end is written
            if self.folder is not None:
                trainer.callbacks.append(self.record)
            try:
                trainer.run(report, bar)
            except Diverged as problem:
                kept = f"; the checkpoint of step {self.saved} is kept in {self.folder.path}" if self.saved else ""
                raise Diverged(f"{problem}{kept}") from None
            finally:
                if self.folder is not None:
                    trainer.callbacks.remove(self.record)
            if self.folder is not None and self.saved != trainer.step:
                self.save()
            result = self.result()
            if self.folder is not None and trainer.ended in ("done", "solved"):
                write_json(self.folder.path / RESULT, result)
        return result

    def record(self, trainer: Trainer, row: dict[str, float]) -> None:
        """The callback that writes a step down."""
        self.folder.write(row)
        if trainer.step % self.settings.checkpoint_every == 0:
            self.save()

    def save(self) -> None:
        arrays, meta = self.trainer.state_dict()
        self.folder.flush()  # first: a checkpoint goes nowhere that metrics.jsonl has not been
        checkpoint.save(self.folder.path / CHECKPOINT, arrays, {"settings": asdict(self.settings), "trainer": meta})
        self.saved = self.trainer.step

    def result(self) -> dict[str, Any]:
        trainer, task = self.trainer, self.trainer.task
        value = trainer.measure(TEST)
        return {"task": task.name, "steps": trainer.step, "sequences": trainer.sequences,
                "metric_name": task.metric_name, "metric": value, "baseline": task.baseline,
                "solved": task.solved(value), "loss": trainer.rows[-1]["loss"] if trainer.rows else None,
                "parameters": sum(p.size for p in trainer.model.parameters()), "seconds": round(trainer.seconds, 3),
                "ended": trainer.ended}

    def close(self) -> None:
        if self.folder is not None:
            self.folder.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Folder:
    """The files of one run, held by one process: metrics.jsonl stays open, and locked."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.metrics = open(path / METRICS, "ab")
        except OSError as problem:
            raise CheckpointError(f"{path / METRICS} cannot be written: {problem.strerror or problem}") from None
        if fcntl is not None:
            try:
                fcntl.flock(self.metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise CheckpointError(f"{path} is in use by another run: wait for its end, or take another "
                                      "folder") from None
            except OSError:
                pass  # a file system without locks

    @classmethod
    def new(cls, path: str | Path, config: dict[str, Any]) -> Folder:
        """A folder for a new run, made if it is not there; refused if it holds one."""
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise CheckpointError(f"{path} cannot be made a folder: {problem.strerror or problem}") from None
        refuse_occupied(path)
        folder = cls(path)
        try:
            refuse_occupied(path)  # again, now that no other can begin one
            write_json(path / CONFIG, config)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def existing(cls, place: str | Path) -> Folder:
        """The folder of a run, or of a checkpoint of it."""
        place = Path(place)
        path = place.parent if place.is_file() else place
        if not (path / CONFIG).is_file():
            raise CheckpointError(f"{path} holds no run, as it has no {CONFIG}: begin one with --out {path}")
        return cls(path)

    def write(self, row: dict[str, float]) -> None:
        try:
            self.metrics.write(json.dumps(row).encode() + b"\n")
            self.metrics.flush()
        except OSError as problem:
            raise CheckpointError(f"{self.path / METRICS} cannot be written: {problem.strerror or problem}") from None

    def flush(self) -> None:
        os.fsync(self.metrics.fileno())
        flush_folder(self.path)

    def cut_back(self, step: int) -> list[dict[str, float]]:
        """Cut metrics.jsonl back to its first so many steps, and return them."""
        path = self.path / METRICS
        with open(path, "rb") as file:
            lines = [line for _, line in zip(range(step), file)]
        try:
            rows = [json.loads(line) for line in lines]
            fits = [row["step"] for row in rows] == list(range(1, step + 1))
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise CheckpointError(f"{path} does not hold the steps 1 to {step}, which the checkpoint has behind it: put "
                                  "it back as it was")
        self.metrics.truncate(sum(map(len, lines)))
        return rows

    def put_aside(self, used: Path | None) -> None:
        """A checkpoint that was passed over for the one before it makes way, but is not lost."""
        path = self.path / CHECKPOINT
        if used is not None and used != path and path.exists():
            os.replace(path, self.path / "checkpoint.aside.npz")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk: said before
            self.metrics.close()


def refuse_occupied(path: Path) -> None:
    files = [path / name for name in (CONFIG, METRICS, CHECKPOINT, checkpoint.previous(path / CHECKPOINT).name, RESULT)]
    held = [file.name for file in files if file.exists() and (file.name != METRICS or file.stat().st_size)]
    if held:
        raise CheckpointError(f"{path} holds a run already ({', '.join(held)}): go on with it by --resume {path}, or "
                              "take another folder")


def load_or_offer(path: Path) -> tuple[dict[str, Any], Any]:
    """The checkpoint; where it is broken, the error offers the one before it, if that is whole."""
    try:
        return checkpoint.load(path)
    except CheckpointError as problem:
        before = checkpoint.previous(path)
        offer = ""
        with contextlib.suppress(CheckpointError):
            step = checkpoint.load(before)[1]["trainer"]["step"]
            offer = f"; the one before it is whole, of step {step}: --resume {before}"
        raise CheckpointError(f"{problem}{offer}") from None


def describe(settings: Settings, trainer: Trainer) -> dict[str, Any]:
    """What config.json holds: the settings, what a model is built from, and prints of what was read from elsewhere."""
    task = trainer.task
    sources = {}
    if ".py:" in settings.cell:
        file = settings.cell.rpartition(":")[0]
        sources[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    if settings.task == "text":
        sources[task.source] = task.fingerprint
    return {"settings": asdict(settings), "sources": sources,
            "model": {"inputs": task.inputs, "outputs": task.outputs, "symbols": task.symbols},
            "characters": getattr(task, "characters", None)}


def read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        config = json.loads(file.read_bytes())
        if not isinstance(config, dict) or not {"settings", "sources", "model"} <= set(config):
            raise ValueError("it has not what a config has")
    except OSError as problem:
        raise CheckpointError(f"{file} cannot be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise CheckpointError(f"{file} is no config of minigrad: {problem}") from None
    return config


def load_model(place: str | Path) -> tuple[SequenceModel, dict[str, Any]]:
    """The model of a run, with the weights of its last checkpoint, and its config; nothing else of the run is needed.

    place is the folder, or a checkpoint in it. Raises CheckpointError, in a sentence that names the file.
    """
    place = Path(place)
    folder = place.parent if place.is_file() else place
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no run, as it has no {CONFIG}")
    config = read_config(folder)
    path = place if place.is_file() else checkpoint.latest(folder / CHECKPOINT)
    if path is None:
        raise CheckpointError(f"{folder} has no checkpoint yet: go on with the run, by --resume {folder}")
    arrays, _ = load_or_offer(path)
    model = build_model(Settings.checked(**config["settings"]), **config["model"], rng=0)
    model.load_state_dict({name.removeprefix("model/"): x for name, x in arrays.items() if name.startswith("model/")})
    return model.eval(), config
