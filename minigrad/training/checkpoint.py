"""Write and read a checkpoint: arrays and JSON in one file, which is either whole or missing.

The file is an archive that NumPy can read (files/archive.py). A save replaces it atomically and keeps the one before,
so the last whole checkpoint survives whenever the process or the machine stops.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.files import archive

KIND = "checkpoint"


def save(path: str | Path, arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """Write arrays and meta, a JSON value, to path; rename the file that was there to `previous(path)`.

    Equal arrays and meta give equal bytes. Raises CheckpointError, and leaves both files unchanged, if the disk is full
    or the folder is not writable; ValueError for an array without numbers or named `meta`; TypeError or ValueError if
    meta is not JSON.
    """
    archive.save(path, KIND, arrays, meta, keep=previous(path))


def load(path: str | Path) -> tuple[dict[str, np.ndarray], Any]:
    """The (arrays, meta) that were saved. Raises CheckpointError if the file is missing, unreadable, cut short, damaged
    or not a checkpoint, declares more memory than it has bytes, or was written by a newer version."""
    return archive.load(path, KIND)


def previous(path: str | Path) -> Path:
    """The path of the checkpoint before the last: `checkpoint.npz` → `checkpoint.previous.npz`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def latest(path: str | Path) -> Path | None:
    """path or, if a save was interrupted between its two renames, the previous checkpoint; None if neither exists.

    A dangling link is returned too: it is an error to read, which differs from no checkpoint."""
    return next((file for file in (Path(path), previous(path)) if os.path.lexists(file)), None)
