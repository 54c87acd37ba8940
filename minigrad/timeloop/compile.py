"""Compile C with the machine's own compiler, each program once, into the user's cache folder, and load the result.

    compiler.load(source) → ctypes.CDLL, or None: then the NumPy loop runs, and compiler.reason(source) says why

The compiler is $MINIGRAD_CC, or the first of cc, gcc and clang; `MINIGRAD_CC=none` switches it off. The folder is
minigrad in $XDG_CACHE_HOME or ~/.cache. The name of a file in it has two hashes: of everything that decides its
content (text, flags, compiler, processor), and of the content, so a damaged file is not loaded. A file appears by a
rename, so processes do not disturb one another. Beyond CACHE_BYTES, the least recently used files are deleted.
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
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from threadpoolctl import LibController, ThreadpoolController

# With these flags a program computes what its text says: no sum is reordered (except in a loop marked `#pragma omp
# simd reduction`), no NaN, Inf or −0 is assumed away, and a product and a sum are fused only where the text says fma.
# The same entry then has the same bits in a vector, in the rest of a loop, and on any number of threads.
# With -O3 an LSTM is as fast, and takes three times as long to compile.
FLAGS = ("-std=gnu11", "-O2", "-ftree-vectorize", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off",
         "-fopenmp-simd", "-w", "-fPIC", "-pthread", "-shared")
NATIVE, GCC = ("-march=native",), ("-fvect-cost-model=dynamic",)  # added where the compiler takes them
COMPILE_SECONDS, ASK_SECONDS = 60.0, 10.0  # time limits of a compile, and of `cc --version`
ABANDONED_SECONDS = 3600.0  # age at which the folder of a killed compile is deleted
CACHE_BYTES = 64 * 2 ** 20
COST_SECONDS = 0.4  # typical duration of a compile


# Per thread and async task: "auto", "numpy" or "c"
loops: ContextVar[str] = ContextVar("loops", default="auto")


class CompileNotice(UserWarning):
    """Warns once per process that a program runs in NumPy because compiling it failed, and why."""


@contextlib.contextmanager
def loops_in(kind: str) -> Iterator[None]:
    """Context that chooses the loops of the scans inside, in this thread and async task.

    kind  "numpy"; "c", compiled at a program's first call; or "auto", the default: C once a program has run long enough
          to be worth a compile. What C cannot do still runs in NumPy.

    A new program, and its change to C, can change the last digits; "numpy" and "c" never change over.
    Raises ValueError for another kind.
    """
    if kind not in ("auto", "numpy", "c"):
        raise ValueError(f"loops run in 'auto', 'numpy' or 'c', not {kind!r}")
    token = loops.set(kind)
    try:
        yield
    finally:
        loops.reset(token)


class Failure(Exception):
    """Why a program is not compiled.

    lasting   whether it holds for all programs
    usual     whether it is no reason for a notice, as where no compiler is installed
    """

    def __init__(self, why: str, lasting: bool = True, usual: bool = False):
        super().__init__(why)
        self.lasting, self.usual = lasting, usual


class Compiler:
    """The C compiler of this process, and the programs it has loaded.

    command   settable: "" for the first of cc, gcc and clang, "none" for no compiler, else the command to call
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
            self.found: tuple[list[str], str] | None = None  # (arguments that call it, its identity)
            self.off: str | None = None  # why no program is compiled
            self.programs: dict[str, ctypes.CDLL | str] = {}  # {source: the library, or why there is none}

    def enabled(self) -> bool:
        """Whether programs are compiled in this process."""
        if self.found is None and self.off is None:
            with self.lock:
                try:
                    self.found = find(self.command)
                except Failure as problem:
                    self.give_up(problem)
                except OSError as problem:  # as of a working directory that was deleted
                    self.give_up(Failure(f"the C compiler is not usable: {problem.strerror or problem}"))
        return self.off is None

    def identity(self) -> str:
        """Version, processor and a hash of all that decides a program's bits; "numpy" where nothing is compiled."""
        return self.found[1] if self.enabled() and self.found else "numpy"

    def reason(self, source: str | None = None) -> str | None:
        """Why programs, or this program, are not compiled; None if they are, or if this one was not tried."""
        found = self.programs.get(source) if source is not None else None
        if found is None:
            return None if self.enabled() else self.off
        return found if isinstance(found, str) else None

    def load(self, source: str) -> ctypes.CDLL | None:
        """Return the compiled program, from this process, the cache folder or the compiler; None if that fails."""
        with self.lock:
            if source not in self.programs and self.enabled() and self.found:
                try:
                    self.programs[source] = open_or_compile(source, *self.found)
                except Failure as problem:
                    self.programs[source] = str(problem)
                    self.give_up(problem)
            found = self.programs.get(source)
        return found if isinstance(found, ctypes.CDLL) else None

    def give_up(self, problem: Failure) -> None:
        """Compile nothing more after a lasting failure, and warn of the first failure."""
        if problem.lasting:
            self.off = str(problem)
        if not problem.usual and not notified:
            notified.append(str(problem))
            warnings.warn(f"a program runs in NumPy, not compiled: {problem}", CompileNotice, stacklevel=4)


notified: list[str] = []


# -- the compiler ------------------------------------------------------------------------------------------------


def find(command: str) -> tuple[list[str], str]:
    """(arguments that call the compiler, its identity). Raises Failure."""
    if command == "none":
        raise Failure("the C compiler is switched off (MINIGRAD_CC=none)", usual=True)
    if os.name != "posix" or sys.maxsize < 2 ** 32:
        raise Failure(f"programs are not compiled on {platform.system()} {platform.machine()}", usual=True)
    if sys.implementation.name != "cpython" or not reads_arrays():
        raise Failure(f"C cannot read the arrays of NumPy {np.__version__} in this Python")
    try:
        words = shlex.split(command)
    except ValueError as problem:
        raise Failure(f"MINIGRAD_CC is not a command: {problem}") from None
    found = next(filter(None, map(shutil.which, words[:1] or ("cc", "gcc", "clang"))), None)
    if found is None and words:
        raise Failure(f"MINIGRAD_CC names {words[0]}, which is not an executable file")
    if found is None:
        raise Failure("no C compiler was found: no cc, gcc or clang is on the PATH", usual=True)
    call = [os.path.abspath(found), *words[1:]]
    version = run([*call, "--version"], None, ASK_SECONDS).partition("\n")[0].strip()[:120]
    path = os.path.realpath(found)
    status = os.stat(path)
    parts = (call, path, status.st_size, status.st_mtime_ns, version, processor(), c_library(), NATIVE, GCC, FLAGS)
    kind = processor().partition(";")[0] or platform.machine()
    return call, f"{version}, {kind}, {digest(repr(parts).encode())[:12]}"


class Fields(ctypes.Structure):
    """The fields of an array that C reads: `struct array` in printers/c_threads.py."""

    _fields_ = (("head", ctypes.c_char * object.__basicsize__), ("data", ctypes.c_void_p), ("axes", ctypes.c_int),
                ("lengths", ctypes.POINTER(ctypes.c_ssize_t)), ("strides", ctypes.POINTER(ctypes.c_ssize_t)))


def reads_arrays() -> bool:
    """Whether the object of an array has these fields. A pointer is followed only if all before it is as expected."""
    x = np.zeros((3, 5))[:, ::2]
    found = Fields.from_address(id(x))
    return (found.data == x.ctypes.data and found.axes == x.ndim
            and tuple(found.lengths[:2]) == x.shape and tuple(found.strides[:2]) == x.strides)


def run(call: list[str], folder: Path | None, seconds: float) -> str:
    """Run the compiler and return the first 10 000 bytes that it prints. Raises Failure."""
    name = os.path.basename(call[0])
    environment = os.environ | {"LC_ALL": "C"} | ({"TMPDIR": str(folder)} if folder else {})
    try:
        process = subprocess.Popen(call, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as problem:
        raise Failure(f"{name} does not start: {problem.strerror or problem}") from None
    late = threading.Event()
    timer = threading.Timer(seconds, lambda: (late.set(), kill(process)))
    timer.daemon = True
    try:
        with process.stdout as pipe:
            timer.start()
            output = pipe.read(10_000).decode(errors="replace")
        status = process.wait()
    except BaseException as problem:
        kill(process)
        if isinstance(problem, RuntimeError):
            raise Failure(f"{name} is not started: {problem}") from None  # no thread for the time limit
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise Failure(f"{name} was stopped after {seconds:g} seconds")
    if status:
        lines = output.splitlines() or ["it printed nothing"]
        line = next((line for line in lines if "error" in line), lines[0])
        raise Failure(f"{name} ended with status {status}: {line.strip()[:200]}", lasting=folder is None)
    return output


def kill(process: subprocess.Popen) -> None:
    """End the compiler and the processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@functools.cache
def processor() -> str:
    """The processor and its instruction sets, as code for one may not run on another; "" where that is unknown."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read(20_000).partition("\n\n")[0]
    except OSError:
        return ""
    found = dict(map(str.strip, line.split(":", 1)) for line in first.splitlines() if ":" in line)
    names = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU variant", "CPU part",
             "CPU revision", "Features", "isa")
    return ";".join([found.get("model name", platform.machine()), *(found.get(name, "") for name in names)])


def c_library() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):  # not glibc
        return platform.release()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


# -- the cache folder --------------------------------------------------------------------------------------------


def open_or_compile(source: str, call: list[str], identity: str) -> ctypes.CDLL:
    """The program from the cache folder, or compiled into it. Raises Failure."""
    folder = cache_folder()
    key = digest(f"{identity}\n{source}".encode())
    try:
        for name in sorted(name for name in os.listdir(folder) if name.startswith(key)):
            with contextlib.suppress(Failure, OSError):
                return open_checked(folder / name)
        path = compile_into(folder, key, source, call)
        clean(folder)
        return open_checked(path)
    except OSError as problem:  # dlopen's has no errno and names the file
        where = "the compiled program" if problem.errno is None else f"the cache folder {folder}"
        raise Failure(f"{where} is not usable: {problem.strerror or problem}") from None


def cache_folder() -> Path:
    """The folder of compiled programs, which only this user may write in. Raises Failure."""
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # the XDG specification ignores a relative path
        folder = (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "minigrad"
    except RuntimeError:
        raise Failure("there is no cache folder: this user has no home, and XDG_CACHE_HOME is not set") from None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as problem:
        raise Failure(f"the cache folder {folder} cannot be made: {problem.strerror}") from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Failure(f"others may write in the cache folder {folder}: make it yours, with mode 0700")
    return folder


def open_checked(path: Path) -> ctypes.CDLL:
    """Load a library whose content has the hash in its name, and mark it as used; delete it if that fails.

    Raises Failure and OSError.
    """
    try:
        data = path.read_bytes() if path.is_file() else b""
        if path.stem.partition("-")[2] != digest(data) or not is_whole(data):
            raise Failure("the compiled program is damaged")
        library = ctypes.CDLL(str(path))
    except (Failure, OSError):
        delete(path)
        raise
    with contextlib.suppress(OSError):
        os.utime(path)
    return library


def delete(path: Path) -> None:
    """Delete a file or a folder, as far as that is possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def is_whole(data: bytes) -> bool:
    """Whether an ELF file has all its segments: the process would crash on loading one that was cut off."""
    if sys.platform != "linux":
        return True
    try:
        start, = struct.unpack_from("=Q", data, 32)
        size, number = struct.unpack_from("=HH", data, 54)
        segments = [struct.unpack_from("=8xQ16xQ", data, start + i * size) for i in range(number)]
    except struct.error:
        return False
    return data[:5] == b"\x7fELF\x02" and all(offset + length <= len(data) for offset, length in segments)


def compile_into(folder: Path, key: str, source: str, call: list[str]) -> Path:
    """Compile in a private folder, and rename the result into the cache. Raises Failure and OSError."""
    name = os.path.basename(call[0])
    with tempfile.TemporaryDirectory(prefix="compiling-", dir=folder, ignore_cleanup_errors=True) as made:
        private = Path(made)
        (private / "program.c").write_text(source, encoding="utf-8")
        files = ("-o", "program.so", "program.c", "-lm")
        native = NATIVE if processor() else ()
        for more in ((*native, *GCC), native, GCC, ()):
            try:
                run([*call, *FLAGS, *more, *files], private, COMPILE_SECONDS)
                break
            except Failure as problem:
                if problem.lasting or not more:
                    raise
        result = private / "program.so"
        if not result.is_file():
            raise Failure(f"{name} made no file")
        result.chmod(0o600)
        path = folder / f"{key}-{digest(result.read_bytes())}.so"
        os.replace(result, path)
    return path


def clean(folder: Path) -> None:
    """Delete the least recently used programs beyond CACHE_BYTES, and what killed compiles left."""
    left, now = CACHE_BYTES, time.time()
    with contextlib.suppress(OSError):  # another process may clean too
        found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir())
        for modified, size, path in reversed(found):
            if path.suffix == ".so":
                left -= size
                if left < 0:
                    delete(path)
            elif path.name.startswith("compiling-") and now - modified > ABANDONED_SECONDS:
                delete(path)


# -- when, and on how many threads -------------------------------------------------------------------------------


class BreakEven:
    """Decides when a program is worth compiling: once it has run in NumPy for as long as a compile takes.

    All in all that never takes more than twice the time of the best choice. With seconds that are estimated from the
    sizes, not measured, a script changes over at the same call in every run.
    """

    def __init__(self, cost: float = COST_SECONDS):
        self.left = cost

    def reached(self, seconds: float) -> bool:
        """Count a call of this length; return whether the next one is worth a compile."""
        self.left -= seconds
        return self.left <= 0


@functools.cache
def blas() -> LibController | None:
    """The library of NumPy's matrix products."""
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    site = os.path.dirname(os.path.dirname(np.__file__))
    own = [library for library in found if library.filepath.startswith(os.path.join(site, "numpy"))]
    return next(iter([*own, *found]), None)


def threads() -> int:
    """The number of threads of NumPy's matrix products at the moment; a compiled program takes as many."""
    library = blas()
    return max(1, library.num_threads or 1) if library else 1


compiler = Compiler(os.environ.get("MINIGRAD_CC", ""))
if hasattr(os, "register_at_fork"):  # another thread may hold the lock while this process forks
    os.register_at_fork(after_in_child=lambda: setattr(compiler, "lock", threading.RLock()))
