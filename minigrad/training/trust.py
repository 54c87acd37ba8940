"""Trusted Python files: those that this user has trained with on this machine may be run without asking.

A run's config.json names the file of its cell. Opening a run executes that file, and a folder may come from somebody
else. Training with a file therefore remembers a hash of its path and content, as the name of an empty file in the
user's state folder: $MINIGRAD_STATE, or minigrad in $XDG_STATE_HOME or ~/.local/state.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

SESSION: set[str] = set()  # keys of this process, needed if the state folder is not writable


def remember(file: str, digest: str) -> None:
    """Trust a file whose content has this hash."""
    SESSION.add(name := key(file, digest))
    folder = state_folder()
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / name).touch()


def trained_with(file: str, digest: str) -> bool:
    """Whether this user has trained with this file at this path and with this content."""
    name, folder = key(file, digest), state_folder()
    if name in SESSION:
        return True
    with contextlib.suppress(OSError):
        return folder is not None and (folder / name).is_file()
    return False


def key(file: str, digest: str) -> str:
    """A hash of path and content; at another path, the same file may import other modules."""
    return hashlib.sha256(os.fsencode(os.path.realpath(file)) + b"\0" + digest.encode()).hexdigest()


def state_folder() -> Path | None:
    """The folder of trusted files; None for a user without a home."""
    own, shared = os.environ.get("MINIGRAD_STATE", ""), os.environ.get("XDG_STATE_HOME", "")
    if own:
        return Path(own) / "trained"
    if os.path.isabs(shared):  # the XDG specification ignores a relative path
        return Path(shared) / "minigrad" / "trained"
    try:
        return Path.home() / ".local" / "state" / "minigrad" / "trained"
    except RuntimeError:
        return None
