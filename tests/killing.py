"""A run that dies again and again: `lives` trains in a child process, kills it with SIGKILL, resumes, until one ends.

    python tests/killing.py FOLDER --by clock     whenever the time has come
    python tests/killing.py FOLDER --by calls     at some call that touches a file, half of what it writes written

Children are forked, so that a life costs no start of Python. The last line printed says how many died, and what of.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np

from minigrad import checkpoint, run
from minigrad.run import Run
from minigrad.settings import Settings


def go(folder: Path, settings: Settings) -> None:
    """What a user does: resume if there is a run, and else begin one."""
    new = not (folder / run.CONFIG).exists()
    with Run.new(settings, folder) if new else Run.resume(folder) as a_run:
        a_run.go()


class Fatal:
    """Counts the calls that touch files, and dies at one of them; a file that is written to, by this very hand."""

    def __init__(self, deadline: int):
        self.calls, self.deadline = 0, deadline

    def install(self) -> None:
        for module in (checkpoint, run):
            module.open = self.opened
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, self.watched(getattr(os, name)))

    def dies(self) -> bool:
        self.calls += 1
        return self.calls == self.deadline

    def watched(self, call):
        def watching(*arguments, **keywords):
            if self.dies():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)
        return watching

    def opened(self, path, mode="r"):
        file = open(path, mode)
        return FatalFile(file, self) if set(mode) & set("wa") else file


class FatalFile:
    def __init__(self, file, fatal: Fatal):
        self.file, self.fatal = file, fatal

    def write(self, data):
        if self.fatal.dies():
            self.file.write(bytes(data)[:len(data) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(data)

    def truncate(self, *size):
        self.fatal.watched(lambda: None)()
        return self.file.truncate(*size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def life(folder: Path, settings: Settings, by: str, rng: np.random.Generator, longest: float) -> int:
    """Returns the signal that ended it, 0 if none did."""
    span = rng.uniform(0, longest) if by == "clock" else int(rng.integers(1, longest))
    child = os.fork()
    if child == 0:
        try:
            if by == "calls":
                Fatal(span).install()
            go(folder, settings)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(1)
    if by == "clock":
        time.sleep(span)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a life ended with an exception")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def lives(folder: Path, settings: Settings, by: str, seed: int, longest: float) -> tuple[int, Counter]:
    """Train in a folder to the end, whatever it takes. Returns the deaths, and which files were there at them."""
    rng = np.random.default_rng(seed)
    deaths, found = 0, Counter()
    while life(folder, settings, by, rng, longest):
        deaths += 1
        found.update(file.name for file in folder.glob("*"))
    return deaths, found
