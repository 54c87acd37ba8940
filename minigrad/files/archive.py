"""Write and read arrays in one .npz file, which NumPy can read, without pickle and without compression.

Each entry has a checksum. What is read may come from somebody else: a file that is damaged, contains anything but
numbers, or declares more memory than it has bytes is refused in a sentence before memory is allocated. `save` and
`load` add a header: a kind, a version and a JSON value, under the name `meta`.
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
from minigrad.files.atomic import CheckpointError, atomic_write, file_errors, read_json, refuse_special

VERSION = 1  # of the header
NUMBERS = "biufc"  # kinds of dtype that an archive may contain


def write(path: str | Path, arrays: Mapping[str, np.ndarray], keep: Path | None = None) -> None:
    """Write arrays to path atomically. Equal arrays give equal bytes. An existing file is renamed to `keep`, if given.

    Raises CheckpointError, and changes no file, if the disk is full or the folder is not writable; ValueError for an
    array without numbers.
    """
    entries = {name: np.asarray(array) for name, array in arrays.items()}
    unfit = [name for name, array in entries.items() if array.dtype.kind not in NUMBERS]
    if unfit:
        raise ValueError(f"a file of arrays contains arrays of numbers under any name but 'meta'; it was given {unfit}")
    with atomic_write(path, keep=keep) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            # a ZipInfo without a date: the bytes must not depend on the clock
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read(path: str | Path, kind: str = "file of arrays") -> dict[str, np.ndarray]:
    """The arrays of an archive. Raises CheckpointError if the file is missing, unreadable, not an .npz archive, cut
    short, damaged or compressed, or declares more memory than it has bytes."""
    with file_errors(path, "cannot be read"):
        refuse_special(path)
        with open(path, "rb") as file:
            start = file.read(4)
            if len(start) == 4 and start[:2] != b"PK":
                raise CheckpointError(f"{path} is not a {kind} of minigrad: it is not an .npz archive")
            try:
                with zipfile.ZipFile(file) as archive:
                    refuse_bomb(archive, os.fstat(file.fileno()).st_size)
                    return {name.removesuffix(".npy"): read_array(archive, name, kind) for name in archive.namelist()}
            except Exception as problem:  # zipfile and NumPy raise many types of exception for invalid bytes
                why = one_line(str(problem), 200) or type(problem).__name__
                raise CheckpointError(f"{path} is cut short or damaged: {why}") from None


def save(path: str | Path, kind: str, arrays: Mapping[str, np.ndarray], meta: Any, keep: Path | None = None) -> None:
    """Write arrays and meta, a JSON value, as a file of this kind; see `write`. Raises ValueError for an array named
    `meta`, and TypeError or ValueError if meta is not JSON."""
    if "meta" in arrays:
        raise ValueError(f"a {kind} contains arrays of numbers under any name but 'meta'; it was given ['meta']")
    header = json.dumps({"format": f"minigrad {kind}", "version": VERSION, "arrays": list(arrays), "meta": meta})
    write(path, {**arrays, "meta": np.frombuffer(header.encode(), np.uint8)}, keep)


def load(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], Any]:
    """The (arrays, meta) that were saved; see `read`. Raises CheckpointError if the file is of another kind, was
    changed, or was written by a newer version."""
    arrays = read(path, kind)
    try:
        header = read_json(arrays.pop("meta").tobytes())
        written, version = header["format"], header["version"]
    except (KeyError, TypeError, ValueError):
        written = version = None
    if written != f"minigrad {kind}" or type(version) is not int or version < 1:
        raise CheckpointError(f"{path} is not a {kind} of minigrad, but another archive of arrays")
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


def read_array(archive: zipfile.ZipFile, name: str, kind: str) -> np.ndarray:
    """Read one entry. Raises ValueError, before it allocates memory, if the declared shape does not fit its size."""
    entry = io.BytesIO(archive.read(name))  # reading all of it also compares its checksum
    version = np.lib.format.read_magic(entry)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(entry)
    found = len(entry.getbuffer()) - entry.tell()
    if dtype.kind not in NUMBERS:
        raise ValueError(f"{name} contains {dtype.name} values, and a {kind} contains only numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != found:
        raise ValueError(f"{name} is declared as {dtype.name} of shape {shape}, and has {found:,} bytes")
    entry.seek(0)
    return np.lib.format.read_array(entry, allow_pickle=False)
