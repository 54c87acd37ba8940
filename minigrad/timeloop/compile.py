"""Compile C with the machine's own compiler, once a program, into the user's cache folder, and load the result.

    compiler.load(source) → ctypes.CDLL, or None: then the NumPy loop runs, and compiler.reason(source) says why

The compiler is $MINIGRAD_CC, or the first of cc, gcc and clang; `MINIGRAD_CC=none` switches it off, and
`compiler.command` does both later. The folder is minigrad in $XDG_CACHE_HOME or ~/.cache. A file in it is named by a
hash of everything that decides its content, and by a hash of its content: a damaged file is not loaded. Files appear
by a rename, so processes do not disturb one another. Beyond CACHE_BYTES, the least recently used files are deleted.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from threadpoolctl import LibController, ThreadpoolController

NATIVE = ("-march=native",)
# Results are those of the text: no flag here lets the compiler reorder sums, drop NaN, Inf or −0, or fuse a b + c.
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-std=gnu11", "-w", "-fPIC", "-pthread",
         "-shared")
COMPILE_SECONDS, ASK_SECONDS = 60.0, 10.0  # time limits of a compile, and of `cc --version`
CACHE_BYTES = 64 * 2 ** 20
ABANDONED_SECONDS = 3600  # age at which the folder of a killed compile is deleted
COST_SECONDS = 0.6  # a compile, about


class CompileNotice(UserWarning):
    """Warns once per process that programs run in NumPy because the C compiler or its cache folder fails, and why."""


class Failure(Exception):
    """Why a program was not compiled. `lasting` holds for every other program too."""

    def __init__(self, why: str, lasting: bool = False):
        super().__init__(why)
        self.lasting = lasting


class Compiler:
    """The C compiler of this process and the programs that it has compiled.

    command   what to call, settable: "" for the first of cc, gcc and clang, "none" for no compiler, else a command
    """

    def __init__(self, command: str):
        self.lock = threading.RLock()
        self.command = command

    @property
    def command(self) -> str:
        return self._command

    @command.setter
    def command(self, command: str) -> None:
        with self.lock:
            self._command = command
            self.off: str | None = None  # why no program is compiled
            self.programs: dict[str, ctypes.CDLL | str] = {}  # {source: the library, or why it is not there}
            self.__dict__.pop("found", None)

    @functools.cached_property
    def found(self) -> tuple[list[str], str]:
        """(arguments that call the compiler, its identity). Raises Failure."""
        return find(self.command)

    def enabled(self) -> bool:
        """Whether programs are compiled in this process."""
        with self.lock:
            if self.off is None:
                try:
                    _ = self.found
                except Failure as problem:
                    self.off = str(problem)
            return self.off is None

    def identity(self) -> str:
        """The compiler's version, the processor and a hash of both and the flags, or "numpy" if nothing is compiled."""
        return self.found[1] if self.enabled() else "numpy"

    def reason(self, source: str | None = None) -> str | None:
        """Why programs, or this one, are not compiled; None if they are, or if it was not tried."""
        if not self.enabled():
            return self.off
        found = self.programs.get(source) if source is not None else None
        return found if isinstance(found, str) else None

    def load(self, source: str) -> ctypes.CDLL | None:
        """Return the compiled program, from this process, the cache folder or the compiler; None if that fails."""
        with self.lock:
            if not self.enabled():
                return None
            if source not in self.programs:
                try:
                    self.programs[source] = open_or_compile(source, *self.found)
                except Failure as problem:
                    self.programs[source] = str(problem)
                    if problem.lasting:
                        self.off = str(problem)
                    notify(str(problem))
            found = self.programs[source]
            return None if isinstance(found, str) else found


def notify(why: str) -> None:
    """Warn once per process."""
    if not notified:
        notified.append(why)
        warnings.warn(f"minigrad runs in NumPy, without compiled C: {why}", CompileNotice, stacklevel=4)


notified: list[str] = []


# -- the compiler ------------------------------------------------------------------------------------------------


def find(command: str) -> tuple[list[str], str]:
    """(arguments that call the compiler, its identity). Raises Failure."""
    if command == "none":
        raise Failure("the C compiler is switched off (MINIGRAD_CC=none)")
    if os.name != "posix":
        raise Failure(f"programs are compiled on Linux and macOS, not on {platform.system()}")
    words = shlex.split(command)
    names = [words] if words else [["cc"], ["gcc"], ["clang"]]
    found = next((path for name, *_ in names if (path := shutil.which(name))), None)
    if found is None:
        if words:
            notify(f"MINIGRAD_CC names {words[0]}, which is not an executable file")
            raise Failure(f"MINIGRAD_CC names {words[0]}, which is not an executable file")
        raise Failure("no C compiler was found: no cc, gcc or clang is on the PATH")
    path = os.path.realpath(found)
    call = [found, *words[1:]]
    version = run([*call, "--version"], None, ASK_SECONDS).partition("\n")[0].strip()[:120]
    status = os.stat(path)
    parts = [call, path, status.st_size, status.st_mtime_ns, version, processor(), NATIVE, FLAGS, c_library()]
    return call, f"{version}, {processor().partition(';')[0]}, {digest(repr(parts).encode())[:12]}"


def run(call: list[str], folder: Path | None, seconds: float) -> str:
    """Run the compiler and return the first 10 000 bytes of its output. Raises Failure."""
    name = os.path.basename(call[0])
    environment = os.environ | {"LC_ALL": "C"} | ({"TMPDIR": str(folder)} if folder else {})
    try:
        process = subprocess.Popen(call, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as problem:
        raise Failure(f"{name} does not start: {problem.strerror or problem}", lasting=True) from None
    late = threading.Event()
    timer = threading.Timer(seconds, lambda: (late.set(), kill(process)))
    timer.daemon = True
    timer.start()
    try:
        with process.stdout as pipe:
            output = pipe.read(10_000).decode(errors="replace")
        status = process.wait()
    except BaseException:
        kill(process)
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise Failure(f"{name} was stopped after {seconds:g} seconds", lasting=True)
    if status:
        lines = [line for line in output.splitlines() if "error" in line] or output.splitlines() or ["no output"]
        raise Failure(f"{name} ended with status {status}: {lines[0].strip()[:200]}", lasting=folder is None)
    return output


def kill(process: subprocess.Popen) -> None:
    """End the compiler and the processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@functools.cache
def processor() -> str:
    """The processor and its instruction sets; code for one may not run on another."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read(20_000).partition("\n\n")[0]
    except OSError:
        return platform.machine()
    found = dict(map(str.strip, line.split(":", 1)) for line in first.splitlines() if ":" in line)
    wanted = ("model name", "vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU part",
              "CPU variant", "CPU revision", "flags", "Features", "isa")
    return ";".join([found.get("model name", platform.machine()), platform.machine(),
                     *(f"{name}={found[name]}" for name in wanted if name in found)])


def c_library() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        return platform.release()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


# -- the cache folder --------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """The user's own folder for compiled programs. Raises Failure if there is none that only this user can write."""
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
        folder = base / "minigrad"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except RuntimeError:
        raise Failure("the user has no home folder: set XDG_CACHE_HOME", lasting=True) from None
    except OSError as problem:
        raise Failure(f"the cache folder {folder} cannot be made: {problem.strerror}", lasting=True) from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Failure(f"others may write in the cache folder {folder}: it must be yours, with mode 0700", lasting=True)
    return folder


def open_or_compile(source: str, call: list[str], identity: str) -> ctypes.CDLL:
    """The program from the cache folder, or compiled into it. Raises Failure."""
    folder = cache_folder()
    key = digest(f"{identity}\n{source}".encode())
    try:
        for name in sorted(name for name in os.listdir(folder) if name.startswith(key)):
            library = open_checked(folder / name)
            if library is not None:
                return library
        library = open_checked(compile_into(folder, key, source, call))
        clean(folder)
    except OSError as problem:
        raise Failure(f"the cache folder {folder} fails: {problem.strerror or problem}", lasting=True) from None
    if library is None:
        raise Failure(f"{os.path.basename(call[0])} made a file that is not a library")
    return library


def open_checked(path: Path) -> ctypes.CDLL | None:
    """Load a library whose content has the hash in its name, and mark it as used; else delete it."""
    try:
        data = path.read_bytes()
        if path.stem.partition("-")[2] == digest(data) and is_whole(data):
            library = ctypes.CDLL(str(path))
            with contextlib.suppress(OSError):
                os.utime(path)
            return library
    except OSError:
        pass
    with contextlib.suppress(OSError):
        path.unlink()
    return None


def is_whole(data: bytes) -> bool:
    """Whether all segments of an ELF file lie within it; loading one that was cut off would crash the process."""
    if data[:4] != b"\x7fELF":
        return platform.system() != "Linux" and bool(data)
    try:
        order = "<" if data[5] == 1 else ">"
        if data[4] == 2:
            start, (size, number), word, place = *struct.unpack_from(order + "Q", data, 32), \
                struct.unpack_from(order + "HH", data, 54), "Q", (8, 32)
        else:
            start, (size, number), word, place = *struct.unpack_from(order + "L", data, 28), \
                struct.unpack_from(order + "HH", data, 42), "L", (4, 16)
        return number > 0 and all(
            sum(struct.unpack_from(order + word, data, start + i * size + at)[0] for at in place) <= len(data)
            for i in range(number))
    except (struct.error, IndexError):
        return False


def compile_into(folder: Path, key: str, source: str, call: list[str]) -> Path:
    """Compile in a private folder and rename the result into the cache. Raises Failure and OSError."""
    with tempfile.TemporaryDirectory(prefix="compiling-", dir=folder, ignore_cleanup_errors=True) as made:
        private = Path(made)
        (private / "program.c").write_text(source, encoding="utf-8")
        files = ["-o", "program.so", "program.c", "-lm"]
        native = NATIVE if os.path.exists("/proc/cpuinfo") else ()  # else processor() cannot tell two processors apart
        try:
            run([*call, *native, *FLAGS, *files], private, COMPILE_SECONDS)
        except Failure as problem:
            if problem.lasting or not native:
                raise
            run([*call, *FLAGS, *files], private, COMPILE_SECONDS)
        result = private / "program.so"
        try:
            path = folder / f"{key}-{digest(result.read_bytes())}.so"
        except FileNotFoundError:
            raise Failure(f"{os.path.basename(call[0])} made no file") from None
        os.replace(result, path)
        return path


def clean(folder: Path) -> None:
    """Delete the least recently used programs beyond CACHE_BYTES, and what killed compiles left."""
    with contextlib.suppress(OSError):
        left, now = CACHE_BYTES, time.time()
        entries = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(folder))
        for modified, size, path in reversed(entries):
            if os.path.basename(path).startswith("compiling-"):
                if now - modified > ABANDONED_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
            elif path.endswith(".so"):
                left -= size
                if left < 0:
                    os.unlink(path)


# -- when, and on how many threads -------------------------------------------------------------------------------


class BreakEven:
    """Decides when a program is worth compiling: once it has run as long as a compile takes.

    No other rule has a better worst case: all in all, never more than twice the time of knowing beforehand. If the
    seconds are estimated from the sizes and not measured, the same call changes over in every run of a script.
    """

    def __init__(self, cost: float = COST_SECONDS):
        self.left = cost

    def reached(self, seconds: float) -> bool:
        """Count one call of this length; return whether the next one is worth a compile."""
        self.left -= seconds
        return self.left <= 0


@functools.cache
def blas() -> LibController | None:
    """The library of NumPy's matrix products."""
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    home = os.path.dirname(np.__file__)
    return next((library for library in found if library.filepath.startswith(home)), found[0] if found else None)


def threads() -> int:
    """The number of threads of NumPy's matrix products now: a compiled program takes as many."""
    library = blas()
    return max(1, library.num_threads or 1) if library else 1


compiler = Compiler(os.environ.get("MINIGRAD_CC", ""))
