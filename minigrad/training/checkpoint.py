"""Write and read a checkpoint: arrays and JSON in one file, which is either whole or missing.

The file is an .npz archive that NumPy can read, without pickle and without compression: each array under its name, and
everything else as JSON under `meta`. Each entry has a checksum. `atomic_write` replaces the file and keeps the one
before it, so the last whole checkpoint survives whenever the process or the machine stops.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.engine.messages import one_line
from minigrad.training.files import CheckpointError, atomic_write, file_errors, read_json, refuse_special

FORMAT, VERSION = "minigrad checkpoint", 1
NUMBERS = "biufc"  # kinds of dtype that a checkpoint may contain


def save(path: str | Path, arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """Write arrays and meta, a JSON value, to path; rename the file that was there to `previous(path)`.

    Equal arrays and meta give equal bytes. Raises CheckpointError, and leaves both files unchanged, if the disk is full
    or the folder is not writable; ValueError for an array without numbers or named `meta`; TypeError or ValueError if
    meta is not JSON.
    """
    header = json.dumps({"format": FORMAT, "version": VERSION, "arrays": list(arrays), "meta": meta})
    entries = {name: np.asarray(array) for name, array in arrays.items()}
    unfit = [name for name, array in entries.items() if array.dtype.kind not in NUMBERS or name == "meta"]
    if unfit:
        raise ValueError(f"a checkpoint contains arrays of numbers under any name but 'meta'; it was given {unfit}")
    entries["meta"] = np.frombuffer(header.encode(), np.uint8)
    with atomic_write(path, keep=previous(path)) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            # a ZipInfo without a date: the bytes must not depend on the clock
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load(path: str | Path) -> tuple[dict[str, np.ndarray], Any]:
    """The (arrays, meta) that were saved. Raises CheckpointError if the file is missing, unreadable, cut short, damaged
    or not a checkpoint, declares more memory than it has bytes, or was written by a newer version."""
    with file_errors(path, "cannot be read"):
        refuse_special(path)
        with open(path, "rb") as file:
            start = file.read(4)
            if len(start) == 4 and start != b"PK\3\4":
                raise CheckpointError(f"{path} is not a checkpoint of minigrad: it is not an .npz archive")
            return unpack(path, file)


def unpack(path: str | Path, file: Any) -> tuple[dict[str, np.ndarray], Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            refuse_bomb(archive, os.fstat(file.fileno()).st_size)
            arrays = {name.removesuffix(".npy"): read_array(archive, name) for name in archive.namelist()}
    except Exception as problem:  # zipfile and NumPy raise many types of exception for invalid bytes
        why = one_line(str(problem), 200) or type(problem).__name__
        raise CheckpointError(f"{path} is cut short or damaged: {why}") from None
    try:
        header = read_json(arrays.pop("meta").tobytes())
        kind, version = header["format"], header["version"]
    except (KeyError, TypeError, ValueError):
        kind = version = None
    if kind != FORMAT or type(version) is not int or version < 1:
        raise CheckpointError(f"{path} is not a checkpoint of minigrad, but another archive of arrays")
    if version > VERSION:
        raise CheckpointError(f"{path} was written by a newer minigrad in version {version} of the format, and this "
                              f"one reads versions up to {VERSION}: update minigrad")
    if header.get("arrays") != list(arrays) or "meta" not in header:
        raise CheckpointError(f"{path} was changed after minigrad wrote it: arrays or header entries were "
                              "added or removed")
    return arrays, header["meta"]


def refuse_bomb(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError if an entry is compressed or the declared sizes exceed the file size."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("it is compressed, and minigrad never compresses")
    if (declared := sum(entry.file_size for entry in entries)) > size:
        raise ValueError(f"its entries declare {declared:,} bytes, and the file has {size:,}")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it contains two arrays of the same name")


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read one entry. Raises ValueError, before it allocates memory, if the declared shape does not fit its size."""
    entry = io.BytesIO(archive.read(name))  # reading all of it also compares its checksum
    version = np.lib.format.read_magic(entry)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(entry)
    found = len(entry.getbuffer()) - entry.tell()
    if dtype.kind not in NUMBERS:
        raise ValueError(f"{name} contains {dtype.name} values, and a checkpoint contains only numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != found:
        raise ValueError(f"{name} is declared as {dtype.name} of shape {shape}, and has {found:,} bytes")
    entry.seek(0)
    return np.lib.format.read_array(entry, allow_pickle=False)


def previous(path: str | Path) -> Path:
    """The path of the checkpoint before the last: `checkpoint.npz` → `checkpoint.previous.npz`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def latest(path: str | Path) -> Path | None:
    """path or, if a save was interrupted between its two renames, the previous checkpoint; None if neither exists.

    A dangling link is returned too: it is an error to read, which differs from no checkpoint."""
    return next((file for file in (Path(path), previous(path)) if os.path.lexists(file)), None)
