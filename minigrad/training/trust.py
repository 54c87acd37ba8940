"""Which Python files of runs may be run unasked: those that this user has trained with on this machine.

A run's config.json names the file of its cell. Opening a run executes that file, and a folder may come from somebody
else. So training with a file remembers it, by the hash of its path and its content, as an empty file of that name in
the user's state folder: $MINIGRAD_STATE, or minigrad in $XDG_STATE_HOME or ~/.local/state.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

SESSION: set[str] = set()  # keys of this process: they count where the state folder cannot be written to


def remember(file: str, digest: str) -> None:
    """This user trains with a file whose content has this hash."""
    SESSION.add(name := key(file, digest))
    folder = state_folder()
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / name).touch()


def trained_with(file: str, digest: str) -> bool:
    """Whether this user has trained with this file, in this place and with this content."""
    name, folder = key(file, digest), state_folder()
    if name in SESSION:
        return True
    with contextlib.suppress(OSError):
        return folder is not None and (folder / name).is_file()
    return False


def key(file: str, digest: str) -> str:
    """The path counts too: elsewhere, the same file may import other neighbours."""
    return hashlib.sha256(os.fsencode(os.path.realpath(file)) + b"\0" + digest.encode()).hexdigest()


def state_folder() -> Path | None:
    """Where files are remembered; None for a user without a home."""
    own, shared = os.environ.get("MINIGRAD_STATE", ""), os.environ.get("XDG_STATE_HOME", "")
    if own:
        return Path(own) / "trained"
    if os.path.isabs(shared):  # the XDG specification ignores a relative path
        return Path(shared) / "minigrad" / "trained"
    try:
        return Path.home() / ".local" / "state" / "minigrad" / "trained"
    except RuntimeError:
        return None
