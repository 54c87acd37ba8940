"""Write files that survive a crash: to a temporary file beside the target, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigrad.engine.messages import one_line

DEEPEST = 50  # maximum nesting depth of untrusted JSON


class CheckpointError(ValueError):
    """A file cannot be written, or has the wrong content. The message is one line and names the file."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


@contextlib.contextmanager
def file_errors(path: str | Path, what: str) -> Iterator[None]:
    """Turn an OSError into a CheckpointError such as `FILE cannot be written: No space left on device`."""
    try:
        yield
    except OSError as problem:
        raise CheckpointError(f"{path} {what}: {problem.strerror or problem}") from None


def refuse_special(path: str | Path, link: bool = True) -> None:
    """Raises CheckpointError if path exists and is neither a regular file nor a folder, for example a device or a pipe;
    without `link`, also for a symbolic link, since writing would change a file elsewhere."""
    with contextlib.suppress(FileNotFoundError):
        mode = (os.stat if link else os.lstat)(path).st_mode
        if stat.S_ISLNK(mode):
            raise CheckpointError(f"{path} is a link: put the file itself in its place")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise CheckpointError(f"{path} is not a regular file")


@contextlib.contextmanager
def atomic_write(path: str | Path, keep: Path | None = None) -> Iterator[Any]:
    """Open a temporary file; at the end flush it to disk and rename it to `path`. An existing file is renamed to `keep`
    if that is given. On any exception nothing is replaced; an OSError becomes a CheckpointError."""
    path, partial = Path(path), Path(f"{path}.partial")
    refuse_special(partial, link=False)
    with file_errors(path, "cannot be written"):
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                os.replace(path, keep)  # until the next line, only `keep` exists: see `checkpoint.latest`
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flush a folder to disk, so that renames in it are permanent."""
    with contextlib.suppress(OSError):  # Windows and some network drives do not support it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Write a small JSON file atomically. Raises CheckpointError if that fails."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def read_json(text: bytes) -> Any:
    """Parse untrusted JSON. Raises ValueError if it is not UTF-8 or not JSON, repeats a name or nests too deep."""
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(made := dict(pairs)) < len(pairs):
            raise ValueError("it repeats a name in one object")
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
