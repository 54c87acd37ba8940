"""A run: a training, and the folder in which it survives.

    config.json      the settings, and what a model is built from
    metrics.jsonl    an object for each step: step, loss, norm, lr and, where it was measured, metric
    checkpoint.npz   all it needs to go on; checkpoint.previous.npz is the one before
    result.json      at the end: task, steps, metric, baseline, solved, …

A run that is killed at any moment and resumed ends with the same metrics.jsonl and the same weights, bit for bit, as
one that was left alone: it goes back to its last checkpoint, metrics.jsonl is cut back to the same step, and what is
drawn, carried and computed from there is the same.

A folder may come from somebody else. So its files are checked before anything is built from them, and the Python file
that config.json names for a cell is not run, unless the caller trusts it or `minigrad.training.trust` remembers it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import fields
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from minigrad.engine.messages import brief, one_line, refusing
from minigrad.engine.pytree import flatten
from minigrad.engine.tensor import Tensor
from minigrad.training import checkpoint, trust
from minigrad.training.checkpoint import CheckpointError, named, read_json, refuse_special, write_json
from minigrad.training.sequence_model import LAYERS, SequenceModel
from minigrad.training.settings import Settings, fits
from minigrad.training.trainer import Diverged, Signals, Trainer, under
from minigrad.training.user_code import fingerprint, split_name

try:
    import fcntl
except ImportError:  # Windows: there, two runs in one folder are not told apart
    fcntl = None

CONFIG, METRICS, CHECKPOINT, RESULT = "config.json", "metrics.jsonl", "checkpoint.npz", "result.json"
UNSAVED = "no-checkpoint-yet"  # an empty file in a run's folder until its first checkpoint is written
PARTS = {"settings": dict, "sources": dict, "model": dict, "characters": str | None}  # of config.json
MODEL = {"inputs": int, "outputs": int, "symbols": bool}  # of its part `model`
STATE = {"step": int, "ended": str, "sequences": int, "tokens": int, "seconds": float, "optimizer": dict,  # of a
         "model_rngs": dict, "position": int, "drawn": dict}  # checkpoint's trainer, beside the nesting of its state


class Run:
    """A training that is written down as it goes, if it has a folder; as a context, it holds the folder.

    ```python
    with Run.new(Settings.for_task("adding"), "runs/adding") as run:       # or Run.resume("runs/adding")
        result = run.go()
    ```
    Its `trainer` may be given callbacks before `go`.
    """

    def __init__(self, settings: Settings, folder: Folder | None = None, trusted: bool = False):
        self.settings, self.trainer, self.folder = settings, settings.trainer(), folder
        self.saved = 0  # the step of the last checkpoint
        self.trusted = trusted

    @classmethod
    def new(cls, settings: Settings, out: str | Path | None = None) -> Run:
        """A new run, in a folder that does not contain one yet; it is made if it does not exist.

        The file of a cell of one's own is run, and remembered as this user's (training/trust.py). Raises ValueError, in
        one sentence, if the settings are invalid or the folder cannot be used; nothing is written then.
        """
        run = cls(settings)
        if out is not None:
            config = describe(settings, run.trainer.task)
            run.folder = Folder.new(out, config)
            if settings.cell_file is not None:
                trust.remember(settings.cell_file, config["sources"][settings.cell_file])
        return run

    @classmethod
    def resume(cls, place: str | Path, trust: bool = False) -> Run:
        """The run of a folder, at its last checkpoint; or at a checkpoint, if that is named instead of the folder.

        With `trust`, the Python file that config.json names for the cell is run even if this user has not trained with
        it on this machine. Raises ValueError, in one sentence that names the file, if the run cannot go on. Nothing is
        changed before `go`.
        """
        place = Path(place)
        path, config = opened(place, trust)
        settings = config["settings"]
        folder = Folder(path)
        try:
            used = checkpoint_of(path, place)
            found = None if used is None else load_or_offer(used)
            if found is not None:
                refuse_other(used, path, config, *found)
            with refusing(f"the run in {path} cannot go on", CheckpointError):
                refuse_special_text(settings)
                run = cls(settings, folder, trust)
            refuse_changed_text(run.trainer.task, path, config)
            if found is not None:
                run.restore(used, *found)
            run.trainer.rows = folder.kept(run.trainer.step, used)
        except BaseException:
            folder.close()
            raise
        return run

    def restore(self, path: Path, arrays: dict[str, np.ndarray], meta: Any) -> None:
        trainer, state = self.trainer, meta["trainer"]
        with refusing(f"{path} is not of the run that {self.folder.path / CONFIG} describes", CheckpointError):
            refuse_weights(trainer.model, arrays)
            refuse_carried(trainer.model, under("state/", arrays))
            type(trainer.rng.bit_generator)().state = state["drawn"]
            if len(flatten(state["state"])[0]) != len(under("state/", arrays)):
                raise ValueError("the arrays of its state are not those that it names")
            trainer.load_state_dict(arrays, state)
        self.saved = trainer.step

    @property
    def onward(self) -> str:
        """The options of `minigrad train` that go on with this run."""
        return f"--resume {self.folder.path}{' --trust' if self.trusted else ''}"

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
                self.folder.begin()
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
                raise CheckpointError(f"{problem}; once that is put right, go on by {self.onward}") from None
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


class Folder:
    """The files of one run, in the hands of one process: metrics.jsonl stays open, and locked."""

    def __init__(self, path: Path, new: bool = False):
        self.path = path
        self.cut: tuple[int, Path | None] | None = None  # after a resume: how much to keep, and the checkpoint used
        refuse_special(path / METRICS, link=False)
        if not (new or (path / METRICS).exists()):
            raise CheckpointError(f"{path / METRICS} is missing: put it back")
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
        folder = cls(path, new=True)
        try:
            refuse_occupied(path)  # again, now that no other can begin one here
            with named(path / UNSAVED, "cannot be written"):
                (path / UNSAVED).touch()
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

    def kept(self, step: int, used: Path | None) -> list[dict[str, float]]:
        """The rows of the first `step` steps, to which `begin` will cut metrics.jsonl back; `used` is the checkpoint
        that was loaded. Raises CheckpointError if the file does not begin with them."""
        path = self.path / METRICS
        lines = read_lines(path)[:step]
        rows = read_rows(path, lines)
        if len(rows) < step or any(row["step"] != i for i, row in enumerate(rows, start=1)):
            raise CheckpointError(f"{path} does not contain steps 1 to {step}, which the checkpoint has behind it: put "
                                  "it back as it was")
        self.cut = sum(map(len, lines)), used
        return rows

    def begin(self) -> None:
        """Cut metrics.jsonl back to the rows that were kept. When the run goes on from an older checkpoint, the newer
        one is renamed to checkpoint.aside.npz."""
        if self.cut is not None:
            size, used = self.cut
            last = self.path / CHECKPOINT
            if used is not None:
                (self.path / UNSAVED).unlink(missing_ok=True)
            if used is not None and used.name != CHECKPOINT and os.path.lexists(last):
                names = (self.path / f"checkpoint.aside{number}.npz" for number in chain([""], count(2)))
                with named(last, "cannot be renamed"):
                    os.replace(last, next(name for name in names if not os.path.lexists(name)))
            with named(self.path / METRICS, "cannot be written"):
                self.metrics.truncate(size)  # last: rows that no checkpoint is behind are no harm, missing ones are
            self.cut = None

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take was said before
            self.metrics.close()


def refuse_occupied(path: Path) -> None:
    names = (CONFIG, METRICS, CHECKPOINT, checkpoint.previous(CHECKPOINT).name, RESULT)
    held = [name for name in names if (path / name).exists() and (name != METRICS or (path / name).stat().st_size)]
    if held:
        raise CheckpointError(f"{path} holds a run already ({', '.join(held)}): go on with it by --resume {path}, or "
                              "take another folder")


def checkpoint_of(folder: Path, place: Path) -> Path | None:
    """The checkpoint to load: `place`, if it is a file, or else the last one; None for a run that has not come to its
    first. Raises CheckpointError if the run has had one, and it is gone."""
    path = place if place.is_file() else checkpoint.latest(folder / CHECKPOINT)
    if path is None and not (folder / UNSAVED).exists():
        held = [name for name in (METRICS, RESULT) if (folder / name).is_file() and (folder / name).stat().st_size]
        if held:
            raise CheckpointError(f"{folder} has {' and '.join(held)}, but neither {CHECKPOINT} nor "
                                  f"{checkpoint.previous(CHECKPOINT)}: put a checkpoint back, or begin a new run in "
                                  "another folder")
    return path


def load_or_offer(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """A checkpoint of a run; if it is broken, the error offers the one before it, if that is whole."""
    try:
        return load_checkpoint(path)
    except CheckpointError as problem:
        before, offer = checkpoint.previous(path), ""
        with contextlib.suppress(CheckpointError):
            step = load_checkpoint(before)[1]["trainer"]["step"]
            offer = f"; the one before it, of step {step}, is whole: give {before} in its place"
        raise CheckpointError(f"{problem}{offer}") from None


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """A checkpoint whose meta has the parts of a run's, each of its type."""
    arrays, meta = checkpoint.load(path)
    try:
        if not isinstance(meta, dict):
            raise ValueError("it has no settings and no trainer")
        parts_of("", meta, {"settings": dict, "trainer": dict})
        state = parts_of("trainer.", meta["trainer"], STATE)
        if "state" not in meta["trainer"]:
            raise ValueError("trainer.state is missing")
        counts = [state[name] for name in ("step", "sequences", "tokens", "seconds", "position")]
        if not 0 <= min(counts) <= max(counts) < 2**62:
            raise ValueError(f"trainer counts {brief(counts)}")
        if state["ended"] not in ("", "done", "solved", "stopped", "interrupted"):
            raise ValueError(f"it has ended as {brief(state['ended'])}")
    except ValueError as problem:
        raise CheckpointError(f"{path} is not a checkpoint of a run: {one_line(str(problem), 200)}") from None
    return arrays, meta


def parts_of(prefix: str, values: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """The values of these names. Raises ValueError for one that is missing or of another type."""
    for name, kind in kinds.items():
        if name not in values:
            raise ValueError(f"{prefix}{name} is missing")
        if not fits(values[name], kind):
            raise ValueError(f"{prefix}{name} cannot be {brief(values[name])}")
    return {name: values[name] for name in kinds}


def read_lines(path: Path) -> list[bytes]:
    """The whole lines of metrics.jsonl: the last one may have been cut off by a kill."""
    refuse_special(path, link=False)
    with named(path, "cannot be read"):
        lines = path.read_bytes().splitlines(keepends=True)
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]


def read_rows(path: Path, lines: list[bytes]) -> list[dict[str, float]]:
    """metrics.jsonl as rows. Raises CheckpointError for a line that is not a step of a run."""
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)  # NaN and infinity too: a run may have measured them
            whole = isinstance(row, dict) and all(
                type(value) is float or (type(value) is int and abs(value) < 2**63) for value in row.values())
        except (ValueError, RecursionError):
            whole = False
        if not whole or not row.keys() >= {"step", "loss", "norm", "lr"} or type(row["step"]) is not int:
            raise CheckpointError(f"{path}, line {number}, is not a step of a run: put the file back as it was")
        rows.append(row)
    return rows


def describe(settings: Settings, task: Any) -> dict[str, Any]:
    """The content of config.json: the settings, what a model is built from, and the hashes of what else was read."""
    sources = {}
    if settings.cell_file is not None:
        sources[settings.cell_file] = fingerprint(settings.cell_file)
    if settings.task == "text":
        sources[task.source] = task.fingerprint
    return {"settings": settings.as_dict(), "sources": sources,
            "model": {"inputs": task.inputs, "outputs": task.outputs, "symbols": task.symbols},
            "characters": getattr(task, "characters", None)}


# -- a run from outside ----------------------------------------------------------------------------------------------


def opened(place: Path, trusted: bool) -> tuple[Path, dict[str, Any]]:
    """(folder, config) of a run, given its folder or a checkpoint in it. Every command opens a run here.

    Raises CheckpointError if there is no run, its config.json is not one, its cell's file has changed since, or that
    file may not be run.
    """
    folder = place.parent if place.is_file() else place
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is not the folder of a run, as it has no {CONFIG}: begin one by minigrad "
                              f"train --out {folder}")
    config = read_config(folder / CONFIG)
    file, sources = config["settings"].cell_file, config["sources"]
    if file is not None:
        with refusing(f"{folder / CONFIG} names a cell that cannot be read", CheckpointError):
            digest = fingerprint(file)
        if sources.get(file, digest) != digest:
            raise CheckpointError(changed(file, folder))
        mine = digest in sources.values() and trust.trained_with(file, digest)
        if not (mine or trusted):
            raise CheckpointError(f"{folder / CONFIG} names the Python file {file}, and you have not trained with it "
                                  "on this machine, so it was not run: read it, and if you trust it, give --trust (in "
                                  "Python trust=True)")
    return folder, config


def refuse_special_text(settings: Settings) -> None:
    """Raises CheckpointError for a text that is a device or a pipe: reading it might not end."""
    if settings.task == "text" and settings.options.get("file") is not None:
        refuse_special(settings.options["file"])


def refuse_changed_text(task: Any, folder: Path, config: dict[str, Any]) -> None:
    """Raises CheckpointError if the task is a text, and not the one that the run began with."""
    if config["settings"].task == "text" and task.fingerprint not in config["sources"].values():
        raise CheckpointError(changed(task.source, folder))


def changed(source: str, folder: Path) -> str:
    return f"{source} has changed since the run in {folder} began: put it back as it was, or begin a new run"


def read_config(file: Path) -> dict[str, Any]:
    """config.json, with its settings as Settings."""
    with named(file, "cannot be read"):
        text = file.read_bytes()
    with refusing(f"{file} is not a config of minigrad", CheckpointError):
        config = read_json(text)
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
        config = parts_of("", config, PARTS)
        config["model"] = parts_of("model.", config["model"], MODEL)
        parts_of("settings.", config["settings"], {one.name: object for one in fields(Settings)})
        config["settings"] = settings = Settings.of(**config["settings"])
        if not all(isinstance(digest, str) for digest in config["sources"].values()):
            raise ValueError("sources are hashes by file")
        symbols, characters = config["model"]["symbols"], config["characters"]
        if min(config["model"]["inputs"], config["model"]["outputs"]) < 1:
            raise ValueError("model takes inputs and outputs above 0")
        if (characters is not None) != (settings.task == "text"):
            raise ValueError("the characters are those of a text")
        if characters is not None:
            characters.encode()  # raises for half a surrogate pair, which no text contains
            if not symbols or not len(set(characters)) == len(characters) == config["model"]["inputs"]:
                raise ValueError("its characters are not the symbols of its model")
    return config


def refuse_other(path: Path, folder: Path, config: dict[str, Any], arrays: dict[str, np.ndarray], meta: Any) -> None:
    """Raises CheckpointError unless a checkpoint has the settings of config.json, and as many weights as a model of
    these takes at least: before it is built, since sizes that are not true could ask for any memory."""
    settings, model = config["settings"], config["model"]
    with refusing(f"{path} is not of the run that {folder / CONFIG} describes", CheckpointError):
        if placeless(Settings.of(**meta["settings"])) != placeless(settings):
            raise ValueError("its settings are others")
        linear = arrays.get("model/linear.weight", np.zeros(0))
        if linear.shape != (model["outputs"], settings.hidden):
            raise ValueError(f"it has weights of shape {linear.shape} for {model['outputs']} outputs of "
                             f"{settings.hidden} units")
        embedding = settings.embedding if model["symbols"] else None
        least = model["inputs"] * embedding if embedding else 0
        if settings.cell in LAYERS:
            least += settings.hidden * (settings.hidden + (embedding or model["inputs"]))
            least += settings.hidden * 2 * settings.hidden * (settings.layers - 1)
        if least > (there := sum(array.size for array in under("model/", arrays).values())):
            raise ValueError(f"it has {there:,} weights, and the model has {least:,} or more")


def placeless(settings: Settings) -> dict[str, Any]:
    """Settings without the paths of files, whose content is compared by hash: a run may be moved."""
    values = settings.as_dict()
    if named_cell := split_name(settings.cell):
        values["cell"] = named_cell[1]
    if "file" in settings.options:
        values["options"]["file"] = None
    return values


def refuse_weights(model: SequenceModel, arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError for weights that are not numbers, or would be converted to another type."""
    dtypes = {f"model/{name}": x.dtype for name, x in model.named_parts() if isinstance(x, Tensor)}
    for name, array in arrays.items():
        if array.dtype != dtypes.get(name, array.dtype):
            raise ValueError(f"{name} is {array.dtype}, and in the model {dtypes[name]}")
        if name in dtypes and not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinity")


def refuse_carried(model: SequenceModel, leaves: dict[str, np.ndarray]) -> None:
    """Raises ValueError for a carried state that is not of finite numbers in the type in which the model computes."""
    dtype = np.result_type(*[p.dtype for p in model.parameters()])
    for name, leaf in leaves.items():
        if leaf.dtype != dtype or not np.isfinite(leaf).all():
            raise ValueError(f"state/{name} is not finite {dtype} values")


def load_model(place: str | Path, trust: bool = False) -> tuple[SequenceModel, dict[str, Any]]:
    """The model of a run, with the weights of its last checkpoint, and its config, with the `step` that this was made
    at. The text or task is not needed.

    place is the folder, or a checkpoint in it. With `trust`, the Python file that config.json names for the cell is
    run even if this user has not trained with it on this machine. Raises CheckpointError, in one sentence that names
    the file.
    """
    place = Path(place)
    folder, config = opened(place, trust)
    path = checkpoint_of(folder, place)
    if path is None:
        raise CheckpointError(f"{folder} has no checkpoint yet: go on with the run by --resume {folder}")
    arrays, meta = load_or_offer(path)
    refuse_other(path, folder, config, arrays, meta)
    with refusing(f"{path} is not of the run that {folder / CONFIG} describes", CheckpointError):
        model = config["settings"].model(**config["model"], rng=0)
        refuse_weights(model, arrays)
        model.load_state_dict(under("model/", arrays))
    return model.eval(), config | {"step": meta["trainer"]["step"]}
