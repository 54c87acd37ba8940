"""Train a run in a child process, kill it with SIGKILL and resume it, again and again until it ends.

    python tests/killing.py FOLDER SETTINGS.json clock SEED LONGEST    after up to LONGEST seconds
    python tests/killing.py FOLDER SETTINGS.json calls SEED LONGEST    at one of the first LONGEST file operations,
                                                                       a write after half of its bytes

Children are forked, which saves the start of Python. Prints the number of deaths and, for each file, the number of
deaths at which it existed, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

from minigrad.files import atomic
from minigrad.training import Run, Settings, folder


def main(path: Path, settings: Settings, by: str, seed: int, longest: float) -> dict:
    rng = np.random.default_rng(seed)
    deaths, files = 0, Counter()
    while died(path, settings, by, rng.uniform(0, longest)):
        deaths, longest = deaths + 1, longest * 1.1  # ends on a machine of any speed
        files.update(file.name for file in path.glob("*"))
    return {"deaths": deaths, "files": files}


def died(path: Path, settings: Settings, by: str, span: float) -> bool:
    """Run a child for this span. Returns whether it was killed; an exception in it ends the program."""
    child = os.fork()
    if child == 0:
        try:
            if by == "calls":
                Fatal(1 + int(span)).install()
            live(path, settings)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if by == "clock":
        time.sleep(span)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child ended with an exception")
    return os.WIFSIGNALED(status)


def live(path: Path, settings: Settings) -> None:
    """Resume the run if it exists, otherwise begin it."""
    with Run.resume(path) if (path / folder.CONFIG).exists() else Run.new(settings, path) as lived:
        lived.go()


class Fatal:
    """Count file operations and kill the process at one of them."""

    def __init__(self, deadline: int):
        self.calls, self.deadline = 0, deadline

    def install(self) -> None:
        atomic.open = folder.open = self.opened
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, self.watched(getattr(os, name)))

    def watched(self, call, last_act=lambda *_: None):
        def watching(*arguments):
            self.calls += 1
            if self.calls == self.deadline:
                last_act(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)
        return watching

    def opened(self, path, mode="r"):
        file = open(path, mode)
        return WatchedFile(file, self) if set(mode) & set("wa") else file


class WatchedFile:
    """A file whose write may be cut off by the kill, half done."""

    def __init__(self, file, fatal: Fatal):
        def half(data):
            file.write(bytes(data)[:len(data) // 2])
            file.flush()
        self.file = file
        self.write, self.truncate = fatal.watched(file.write, half), fatal.watched(file.truncate)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


if __name__ == "__main__":
    where, what, how, first, span = sys.argv[1:]
    what = Settings.of(**json.loads(Path(what).read_text()))
    print(json.dumps(main(Path(where), what, how, int(first), float(span))))
