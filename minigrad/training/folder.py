"""The folder of a run: its files, used by one process at a time."""

from __future__ import annotations

import contextlib
import json
import os
from itertools import chain, count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from minigrad.files.atomic import CheckpointError, file_errors, refuse_special, write_json
from minigrad.training import checkpoint

CONFIG, METRICS, CHECKPOINT, RESULT = "config.json", "metrics.jsonl", "checkpoint.npz", "result.json"
LOCK = "lock"  # an empty file, locked while a process uses the folder
UNSAVED = "no-checkpoint-yet"  # an empty file in a run's folder until its first checkpoint is written


class InUse(CheckpointError):
    """Another process uses the folder."""


class Folder:
    """The files of one run, used by one process: metrics.jsonl stays open, and the folder is locked."""

    def __init__(self, path: Path, new: bool = False):
        self.path = path
        self.keep: tuple[int, Path | None] | None = None  # after a resume: bytes to keep, and the checkpoint used
        for name in (METRICS, LOCK):
            refuse_special(path / name, link=False)
        if not (new or (path / METRICS).exists()):
            raise CheckpointError(f"{path / METRICS} is missing: put it back")
        with file_errors(path / METRICS, "cannot be written"):
            self.metrics = open(path / METRICS, "ab")
        self.lock = FileLock(path / LOCK, thread_local=False)  # of the run, whichever thread closes it
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            self.close()
            raise InUse(f"{path} is in use by another run: wait until it ends, or use another folder") from None
        except OSError:
            pass  # the file system has no locks

    @classmethod
    def new(cls, path: str | Path, config: dict[str, Any]) -> Folder:
        path = Path(path)
        with file_errors(path, "cannot be created"):
            path.mkdir(parents=True, exist_ok=True)
        refuse_occupied(path)
        folder = cls(path, new=True)
        try:
            refuse_occupied(path)  # again, now that the lock keeps other runs out
            with file_errors(path / UNSAVED, "cannot be written"):
                (path / UNSAVED).touch()
            write_json(path / CONFIG, config)
        except BaseException:
            folder.close()
            raise
        return folder

    def write(self, row: dict[str, float]) -> None:
        with file_errors(self.path / METRICS, "cannot be written"):
            self.metrics.write(json.dumps(row).encode() + b"\n")
            self.metrics.flush()

    def flush(self) -> None:
        """Flush metrics.jsonl to disk."""
        with file_errors(self.path / METRICS, "cannot be written"):
            os.fsync(self.metrics.fileno())

    def rows_until(self, step: int, used: Path | None) -> list[dict[str, float]]:
        """The rows of the first `step` steps; `truncate` will remove the rest. `used` is the loaded checkpoint.
        Raises CheckpointError if the file does not begin with these rows."""
        path = self.path / METRICS
        lines = read_lines(path)[:step]
        rows = read_rows(path, lines)
        if len(rows) < step or any(row["step"] != i for i, row in enumerate(rows, start=1)):
            raise CheckpointError(f"{path} does not contain steps 1 to {step}, which precede the checkpoint: put it "
                                  "back as it was")
        self.keep = sum(map(len, lines)), used
        return rows

    def truncate(self) -> None:
        """Cut metrics.jsonl back to the rows that were kept. When resuming from an older checkpoint, rename the
        newer to checkpoint.aside.npz."""
        if self.keep is None:
            return
        (size, used), last = self.keep, self.path / CHECKPOINT
        if used is not None:
            (self.path / UNSAVED).unlink(missing_ok=True)
        if used not in (None, last) and os.path.lexists(last):
            names = (self.path / f"checkpoint.aside{number}.npz" for number in chain([""], count(2)))
            with file_errors(last, "cannot be renamed"):
                os.replace(last, next(name for name in names if not os.path.lexists(name)))
        with file_errors(self.path / METRICS, "cannot be written"):
            self.metrics.truncate(size)  # last: extra rows are harmless, missing rows are not
        self.keep = None

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported before
            self.metrics.close()
        self.lock.release()


def refuse_occupied(path: Path) -> None:
    held = [name for name in (CONFIG, METRICS, CHECKPOINT, checkpoint.previous(CHECKPOINT).name, RESULT)
            if (path / name).exists() and (name != METRICS or (path / name).stat().st_size)]
    if held:
        raise CheckpointError(f"{path} already contains a run ({', '.join(held)}): continue it with --resume {path}, "
                              "or use another folder")


def find_checkpoint(folder: Path, place: Path) -> Path | None:
    """The checkpoint to load: `place` if it is a file, otherwise the last one; None if the run has none yet.
    Raises CheckpointError if the run had checkpoints and they are missing."""
    path = place if place.is_file() else checkpoint.latest(folder / CHECKPOINT)
    if path is None and not (folder / UNSAVED).exists():
        held = [name for name in (METRICS, RESULT) if (folder / name).is_file() and (folder / name).stat().st_size]
        if held:
            raise CheckpointError(f"{folder} has {' and '.join(held)}, but neither {CHECKPOINT} nor "
                                  f"{checkpoint.previous(CHECKPOINT)}: put a checkpoint back, or begin a new run in "
                                  "another folder")
    return path


def read_lines(path: Path) -> list[bytes]:
    """The complete lines of metrics.jsonl; a kill may have cut off the last one."""
    refuse_special(path, link=False)
    with file_errors(path, "cannot be read"):
        lines = path.read_bytes().splitlines(keepends=True)
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]


def read_rows(path: Path, lines: list[bytes]) -> list[dict[str, float]]:
    """Parse the lines of metrics.jsonl. Raises CheckpointError for a line that is not a step of a run."""
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)  # NaN and infinity are allowed: a run may have measured them
            whole = isinstance(row, dict) and all(
                type(value) is float or (type(value) is int and abs(value) < 2**63) for value in row.values())
        except (ValueError, RecursionError):
            whole = False
        if not whole or not row.keys() >= {"step", "loss", "norm", "lr"} or type(row["step"]) is not int:
            raise CheckpointError(f"{path}, line {number}, is not a step of a run: put the file back as it was")
        rows.append(row)
    return rows
