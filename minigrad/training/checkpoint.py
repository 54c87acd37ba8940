"""A checkpoint: arrays and JSON in one file, which is whole or is not there.

It is an .npz archive as NumPy writes and reads them, without pickle and without compression: every array under its
name, and `meta`, the rest as JSON. Each part has a checksum. The file is written beside its place, flushed to disk and
renamed into it, and the one that was there is kept as the previous one: whenever the process or the machine stops, the
last whole checkpoint is there.
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
    """Write arrays and meta, anything that JSON can hold, to path; what was there goes to `previous(path)`.

    The same arrays and meta give the same bytes. Raises CheckpointError, and leaves both files as they were, when the
    disk is full or the folder cannot be written to; TypeError or ValueError for an array that is not of numbers, for
    the name `meta`, and for a meta that is not JSON.
    """
    header = json.dumps({"format": FORMAT, "version": VERSION, "arrays": list(arrays), "meta": meta})
    entries = {name: np.asarray(array) for name, array in arrays.items()}
    unfit = [name for name, array in entries.items() if array.dtype.kind not in NUMBERS or name == "meta"]
    if unfit:
        raise ValueError(f"a checkpoint holds arrays of numbers under any name but 'meta', and was given {unfit}")
    entries["meta"] = np.frombuffer(header.encode(), np.uint8)
    with atomic_write(path, keep=previous(path)) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            # a ZipInfo without a date, so that the bytes do not depend on the clock
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load(path: str | Path) -> tuple[dict[str, np.ndarray], Any]:
    """(arrays, meta) as they were saved. Raises CheckpointError when the file is missing, cannot be read, is cut
    short or damaged, is not a checkpoint, asks for more memory than it has bytes, or was written by a newer version."""
    with file_errors(path, "cannot be read"):
        refuse_special(path)
        with open(path, "rb") as file:
            start = file.read(4)
            if len(start) == 4 and start != b"PK\3\4":
                raise CheckpointError(f"{path} is not a checkpoint of minigrad: it is not even an .npz archive")
            return unpack(path, file)


def unpack(path: str | Path, file: Any) -> tuple[dict[str, np.ndarray], Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            refuse_bomb(archive, os.fstat(file.fileno()).st_size)
            arrays = {name.removesuffix(".npy"): read_array(archive, name) for name in archive.namelist()}
    except Exception as problem:  # zipfile and NumPy raise a dozen kinds for bytes that make no sense
        why = one_line(str(problem), 200) or type(problem).__name__
        raise CheckpointError(f"{path} is cut short or damaged: {why}") from None
    try:
        header = read_json(arrays.pop("meta").tobytes())
        kind, version = header["format"], header["version"]
    except (KeyError, TypeError, ValueError):
        kind = version = None
    if kind != FORMAT or type(version) is not int or version < 1:
        raise CheckpointError(f"{path} is not a checkpoint of minigrad, but some other archive of arrays")
    if version > VERSION:
        raise CheckpointError(f"{path} was written by a newer minigrad, in version {version} of its format, and this "
                              f"one reads up to {VERSION}: update minigrad")
    if header.get("arrays") != list(arrays) or "meta" not in header:
        raise CheckpointError(f"{path} is not as minigrad wrote it: arrays or parts of its header were added or taken "
                              "away")
    return arrays, header["meta"]


def refuse_bomb(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError unless the declared sizes of uncompressed entries fit into a file of this size."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("it is compressed, which minigrad never does")
    if (declared := sum(entry.file_size for entry in entries)) > size:
        raise ValueError(f"its parts are declared with {declared:,} bytes, and the file has {size:,}")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it contains two arrays of one name")


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An entry as an array. Raises ValueError before any memory is taken for a shape that the entry does not have."""
    entry = io.BytesIO(archive.read(name))  # whole, so that its checksum is compared
    version = np.lib.format.read_magic(entry)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(entry)
    there = len(entry.getbuffer()) - entry.tell()
    if dtype.kind not in NUMBERS:
        raise ValueError(f"{name} contains {dtype.name} values, and a checkpoint contains numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{name} is declared as {dtype.name} of shape {shape}, and has {there:,} bytes")
    entry.seek(0)
    return np.lib.format.read_array(entry, allow_pickle=False)


def previous(path: str | Path) -> Path:
    """Where the checkpoint before the last is kept: `checkpoint.npz` → `checkpoint.previous.npz`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def latest(path: str | Path) -> Path | None:
    """path or, between the two renames of a save that was broken off, the previous one; None where there is none.

    A link that leads nowhere is returned too: to read it is an error, and not the same as no checkpoint."""
    return next((file for file in (Path(path), previous(path)) if os.path.lexists(file)), None)
