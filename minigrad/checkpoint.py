"""A checkpoint: arrays and JSON in one file, which is whole or is not there.

It is an .npz archive as NumPy writes and reads them, without pickle: every array under its name, and `meta`, the rest
as JSON. A checksum stands over each of its parts. The file is written beside its place, flushed to disk and renamed
into it, and the one that stood there is kept as the previous one: whenever the process or the machine stops, the last
whole checkpoint is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT, VERSION = "minigrad checkpoint", 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or a file that is none. The message names the file."""


def save(path: str | Path, arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """Write arrays and meta, anything that JSON can hold, to path; what stood there goes to `previous(path)`.

    The same arrays and meta give the same bytes. Raises CheckpointError, and leaves both files as they were, when the
    disk is full or the folder cannot be written to; TypeError or ValueError for an array of objects, for the name
    `meta`, and for a meta that is not JSON.
    """
    header = json.dumps({"format": FORMAT, "version": VERSION, "arrays": list(arrays), "meta": meta})
    entries = {name: np.asarray(array) for name, array in arrays.items()}
    unfit = [name for name, array in entries.items() if array.dtype.hasobject or name == "meta"]
    if unfit:
        raise ValueError(f"a checkpoint holds arrays of numbers under any name but 'meta', and was given {unfit}")
    entries["meta"] = np.frombuffer(header.encode(), np.uint8)
    with replacing(path, keep=True) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            # a ZipInfo without a date, so that the bytes do not depend on the clock
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load(path: str | Path) -> tuple[dict[str, np.ndarray], Any]:
    """(arrays, meta) as they were saved. Raises CheckpointError when the file is missing, cannot be read, is cut
    short or damaged, is no checkpoint, or was written by a newer version."""
    with named(path, "cannot be read"), open(path, "rb") as file:
        start = file.read(4)
        if len(start) == 4 and start != b"PK\3\4":
            raise CheckpointError(f"{path} is no checkpoint of minigrad: it is not even an .npz archive")
        return unpack(path, file)


def unpack(path: str | Path, file: Any) -> tuple[dict[str, np.ndarray], Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()  # first: a header that is not as it was written could ask for any memory
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} does not fit")
            arrays = {}
            for name in archive.namelist():
                with archive.open(name) as entry:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(entry, allow_pickle=False)
    except Exception as problem:  # zipfile and NumPy raise a dozen kinds for bytes that make no sense
        raise CheckpointError(f"{path} is cut short or damaged: {str(problem) or type(problem).__name__}") from None
    try:
        header = json.loads(bytes(arrays.pop("meta")))
        kind, version = header["format"], header["version"]
    except (KeyError, TypeError, ValueError):
        kind = version = None
    if kind != FORMAT or not isinstance(version, int):
        raise CheckpointError(f"{path} is no checkpoint of minigrad, but some other archive of arrays")
    if version > VERSION:
        raise CheckpointError(f"{path} was written by a newer minigrad, in version {version} of its format, and this "
                              f"one reads up to {VERSION}: update minigrad")
    if header["arrays"] != list(arrays):
        raise CheckpointError(f"{path} is not as minigrad wrote it: arrays were added or taken away")
    return arrays, header["meta"]


def previous(path: str | Path) -> Path:
    """Where the checkpoint before the last is kept: `checkpoint.npz` → `checkpoint.previous.npz`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def latest(path: str | Path) -> Path | None:
    """path or, between the two renames of a save that was broken off, the previous one; None where there is none."""
    return next((file for file in (Path(path), previous(path)) if file.exists()), None)


# -- files that survive --------------------------------------------------------------------------------------


@contextlib.contextmanager
def named(path: str | Path, what: str) -> Iterator[None]:
    """An OSError inside becomes a CheckpointError: `FILE cannot be written: No space left on device`."""
    try:
        yield
    except OSError as problem:
        raise CheckpointError(f"{path} {what}: {problem.strerror or problem}") from None


@contextlib.contextmanager
def replacing(path: str | Path, keep: bool = False) -> Iterator[Any]:
    """A file to write to. At the end its bytes are flushed to disk, and it takes the place of path in one rename; with
    keep, what stood there is kept as `previous(path)`. Raises CheckpointError, nothing replaced, for an OSError."""
    path, partial = Path(path), Path(f"{path}.partial")
    with named(path, "cannot be written"):
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if keep and path.exists():
                os.replace(path, previous(path))  # until the next line, the previous one is the last: see `latest`
            os.replace(partial, path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk too: a rename is one."""
    with contextlib.suppress(OSError):  # Windows and some network drives do not offer it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Write a small JSON file, whole or not at all. Raises CheckpointError where that cannot be done."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as file:
        file.write(text.encode())
