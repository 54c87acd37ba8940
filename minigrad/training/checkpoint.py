"""A checkpoint: arrays and JSON in one file, which is whole or is not there.

It is an .npz archive as NumPy writes and reads them, without pickle and without compression: every array under its
name, and `meta`, the rest as JSON. Each part has a checksum. The file is written beside its place, flushed to disk and
renamed into it, and the one that was there is kept as the previous one: whenever the process or the machine stops, the
last whole checkpoint is there.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.engine.messages import one_line

FORMAT, VERSION = "minigrad checkpoint", 1
NUMBERS = "biufc"  # kinds of dtype that a checkpoint may contain
DEEPEST = 50  # levels of nesting in JSON from outside


class CheckpointError(ValueError):
    """A file that cannot be written, or that is not what it should be. The message is one line and names the file."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


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
    with replacing(path, keep=True) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            # a ZipInfo without a date, so that the bytes do not depend on the clock
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load(path: str | Path) -> tuple[dict[str, np.ndarray], Any]:
    """(arrays, meta) as they were saved. Raises CheckpointError when the file is missing, cannot be read, is cut
    short or damaged, is not a checkpoint, asks for more memory than it has bytes, or was written by a newer version."""
    with named(path, "cannot be read"):
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


def read_json(text: bytes) -> Any:
    """JSON from outside. Raises ValueError if it is not UTF-8, not JSON, names something twice or nests too deep."""
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(made := dict(pairs)) < len(pairs):
            raise ValueError("it gives the same name twice in one object")
        return made
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=once)
        depth, level = 0, [value]
        while level and (depth := depth + 1) <= DEEPEST:
            level = [child for node in level if isinstance(node, (dict, list))
                     for child in (node.values() if isinstance(node, dict) else node)]
    except RecursionError:
        depth = DEEPEST + 1
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    return value


def previous(path: str | Path) -> Path:
    """Where the checkpoint before the last is kept: `checkpoint.npz` → `checkpoint.previous.npz`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def latest(path: str | Path) -> Path | None:
    """path or, between the two renames of a save that was broken off, the previous one; None where there is none.

    A link that leads nowhere is returned too: to read it is an error, and not the same as no checkpoint."""
    return next((file for file in (Path(path), previous(path)) if os.path.lexists(file)), None)


# -- files that survive --------------------------------------------------------------------------------------


@contextlib.contextmanager
def named(path: str | Path, what: str) -> Iterator[None]:
    """An OSError inside becomes a CheckpointError: `FILE cannot be written: No space left on device`."""
    try:
        yield
    except OSError as problem:
        raise CheckpointError(f"{path} {what}: {problem.strerror or problem}") from None


def refuse_special(path: str | Path, link: bool = True) -> None:
    """Raises CheckpointError for a path with something else than a regular file, a folder or nothing; without `link`
    also for a symbolic link, through which a file elsewhere would be changed."""
    with contextlib.suppress(FileNotFoundError):
        mode = (os.stat if link else os.lstat)(path).st_mode
        if stat.S_ISLNK(mode):
            raise CheckpointError(f"{path} is a link: put the file itself in its place")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise CheckpointError(f"{path} is not a regular file")


@contextlib.contextmanager
def replacing(path: str | Path, keep: bool = False) -> Iterator[Any]:
    """A file to write to. At the end its bytes are flushed to disk, and it takes the place of path in one rename; with
    keep, what was there is kept as `previous(path)`. Raises CheckpointError, nothing replaced, for an OSError."""
    path, partial = Path(path), Path(f"{path}.partial")
    refuse_special(partial, link=False)
    with named(path, "cannot be written"):
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if keep and path.exists():
                os.replace(path, previous(path))  # until the next line, the previous one is the last: see `latest`
            os.replace(partial, path)
        except BaseException:
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
