"""Compiled C: the cache folder, every way in which compiling fails, and what the flags leave as it is."""

import ctypes
import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import minigrad as mg
from minigrad.timeloop import compile
from minigrad.timeloop.compile import BreakEven, CompileNotice, Compiler, threads


def call_of(command):
    """The arguments that call a compiler, or None if it is not installed."""
    if command and shutil.which(shlex.split(command)[0]) is None:
        return None
    compiler = Compiler(command)
    return compiler.found[0] if compiler.enabled() else None


REAL = call_of(os.environ.get("MINIGRAD_CC", ""))
needs_compiler = pytest.mark.skipif(REAL is None, reason="there is no C compiler")
SOURCE = "double next_number(double x) { return x + 1.0; }\n"
CHILD = f"""
import ctypes, importlib.util, sys
spec = importlib.util.spec_from_file_location("compile", {compile.__file__!r})  # the package takes longer to import
compile = importlib.util.module_from_spec(spec)
sys.modules["compile"] = compile
spec.loader.exec_module(compile)
compiler = compile.compiler
"""
LOAD = CHILD + """
library = compiler.load(sys.argv[1])
if library is None:
    print("NumPy:", compiler.reason(sys.argv[1]))
else:
    library.next_number.restype, library.next_number.argtypes = ctypes.c_double, [ctypes.c_double]
    print(library.next_number(1.0), compiler.identity())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder of a user who has compiled nothing, in a process that has given no notice."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compile, "notified", [])
    return tmp_path / "cache" / "minigrad"


@pytest.fixture
def fake(tmp_path):
    """Write a compiler: a shell script, in which REAL is this machine's compiler. It answers --version."""
    def write(body, version="echo fake 1.0; exit 0"):
        path = tmp_path / f"fake-{len(list(tmp_path.iterdir()))}"
        path.write_text(f'#!/bin/sh\ncase "$*" in *--version*) {version};; esac\n'
                        + body.replace("REAL", shlex.join(REAL or [])) + "\n")
        path.chmod(0o755)
        return str(path)
    return write


def number(library):
    library.next_number.restype, library.next_number.argtypes = ctypes.c_double, [ctypes.c_double]
    return library.next_number(1.0)


def libraries(cache):
    return sorted(cache.glob("*.so"))


def start(source=SOURCE, **environment):
    """A process that loads a program and prints its result, and the compiler's identity or why there is none."""
    return subprocess.Popen([sys.executable, "-c", LOAD, source], text=True, env=os.environ | environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_child(source=SOURCE, **environment):
    process = start(source, **environment)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.strip(), err


# -- the ordinary path -------------------------------------------------------------------------------------------


def installed(command, name):
    return pytest.param(command, id=name, marks=pytest.mark.skipif(
        not command or call_of(command) is None, reason=f"{name} is not installed"))


@pytest.mark.parametrize("command", [installed("gcc", "gcc"), installed("clang", "clang"),
                                     installed(os.environ.get("MINIGRAD_CC", ""), "MINIGRAD_CC")])
def test_a_program_is_compiled_once(command, cache):
    compiler = Compiler(command)
    library = compiler.load(SOURCE)
    assert number(library) == 2.0 and compiler.reason() is None and compiler.reason(SOURCE) is None
    assert compiler.load(SOURCE) is library
    (path,) = libraries(cache)
    before = path.stat().st_ino
    assert number(Compiler(command).load(SOURCE)) == 2.0  # as in another process
    assert [p.stat().st_ino for p in cache.iterdir()] == [before]
    assert cache.stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o777 == 0o600


@needs_compiler
def test_a_program_loads_from_the_cache_folder_in_30_ms(fake):
    command = fake('exec REAL "$@"')
    assert Compiler(command).load(SOURCE)
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        assert Compiler(command).load(SOURCE)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.03, taken


@needs_compiler
def test_whatever_decides_the_content_is_in_the_identity(fake, monkeypatch):
    command = fake('exec REAL "$@"')
    same = Compiler(command).identity()
    assert same == Compiler(command).identity()
    found = {same, Compiler(fake('exec REAL "$@"')).identity(), Compiler(fake('exec REAL "$@"', "echo 2.0")).identity(),
             Compiler(command + " -g").identity()}
    monkeypatch.setattr(compile, "FLAGS", (*compile.FLAGS, "-g"))
    found.add(Compiler(command).identity())
    monkeypatch.setattr(compile, "processor", lambda: "another")
    found.add(Compiler(command).identity())
    os.utime(command, (1, 1))
    found.add(Compiler(command).identity())
    assert len(found) == 7


@needs_compiler
def test_without_native_where_the_compiler_does_not_take_it(fake):
    compiler = Compiler(fake('case "$*" in *-march=native*) echo error: unknown; exit 1;; esac\nexec REAL "$@"'))
    assert number(compiler.load(SOURCE)) == 2.0


@needs_compiler
def test_a_command_of_several_words_and_a_relative_path(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = fake('test "$1" = --own || exit 1\nshift\nexec REAL "$@"')
    assert number(Compiler(f"./{Path(path).name} --own").load(SOURCE)) == 2.0


@needs_compiler
def test_the_environment_sets_the_command_at_the_start(cache):
    assert run_child(MINIGRAD_CC="none") == (0, "NumPy: the C compiler is switched off (MINIGRAD_CC=none)", "")
    assert not cache.exists()
    status, out, err = run_child(MINIGRAD_CC=shlex.join(REAL))
    assert (status, out.split()[0], err) == (0, "2.0", "") and len(libraries(cache)) == 1


@needs_compiler
def test_the_command_can_be_changed():
    compiler = Compiler("none")
    assert not compiler.enabled() and compiler.load(SOURCE) is None and compiler.identity() == "numpy"
    compiler.command = shlex.join(REAL)
    assert compiler.enabled() and number(compiler.load(SOURCE)) == 2.0 and compiler.identity() != "numpy"
    compiler.command = "none"
    assert compiler.load(SOURCE) is None and "switched off" in compiler.reason()


# -- failures ----------------------------------------------------------------------------------------------------


def refuse(where, name, why=errno.ENOSPC):
    """Let a call fail as it does on a full disk."""
    def refused(*_, **__):
        raise OSError(why, os.strerror(why))
    return lambda monkeypatch, tmp_path: monkeypatch.setattr(where, name, refused)


def no_home(monkeypatch, tmp_path):
    def home():
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)


def open_to_others(monkeypatch, tmp_path):
    (tmp_path / "cache" / "minigrad").mkdir(parents=True)
    (tmp_path / "cache" / "minigrad").chmod(0o777)


def of_another_user(monkeypatch, tmp_path):
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)


def a_file_in_its_place(monkeypatch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "minigrad").write_text("")


def make_read_only(folder):
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")


def read_only(monkeypatch, tmp_path):
    make_read_only(tmp_path / "cache" / "minigrad")


def no_thread(monkeypatch, tmp_path):
    def start(*_):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", start)


def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(compile, "COMPILE_SECONDS", 0.3)
    monkeypatch.setattr(compile, "ASK_SECONDS", 0.3)


ORDINARY = 'exec REAL "$@"'
FAILURES = {  # {what: (body of the compiler, words of the reason, whether it holds for all programs, preparation)}
    "an error in the program": ('echo "in file:"; echo "program.c:1: error: no"; exit 1',
                                "ended with status 1: program.c:1: error: no", False, None),
    "killed": ("kill -9 $$", "ended with status -9", False, None),
    "hangs": ("sleep 100 & sleep 100", "was stopped after 0.3 seconds", True, quick),
    "prints without end": ("yes nonsense", "ended with status", False, None),
    "no file": ("exit 0", "made no file", True, None),
    "a folder": ("mkdir program.so", "made no file", True, None),
    "an empty file": ("touch program.so", "damaged", True, None),
    "nonsense": ("yes nonsense | head -c 20000 > program.so", "damaged", True, None),
    "a library cut off": ('REAL "$@" && head -c 1000 program.so > s && mv s program.so', "damaged", True, None),
    "only its header": ('REAL "$@" && head -c 64 program.so > s && mv s program.so', "damaged", True, None),
    "for another processor": ('REAL "$@" && printf "\\377" | dd of=program.so bs=1 seek=18 conv=notrunc 2>/dev/null',
                              "not usable", True, None),
    "a full disk": ('head -c 1000 /dev/zero > program.so; echo "error: No space left on device"; exit 1',
                    "No space left on device", False, None),
    "a full disk for the text": (ORDINARY, "No space left", True, refuse(Path, "write_text")),
    "a full disk for the rename": (ORDINARY, "No space left", True, refuse(os, "replace")),
    "a full disk for the folder": (ORDINARY, "No space left", True, refuse(Path, "mkdir")),
    "no more threads": (ORDINARY, "can't start new thread", True, no_thread),
    "no more files": (ORDINARY, "does not start: Too many open files", True, refuse(subprocess, "Popen", errno.EMFILE)),
    "no home": (ORDINARY, "no home", True, no_home),
    "no such home": (ORDINARY, "cannot be made", True,
                     lambda monkeypatch, _: monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/home")),
    "a folder that others can write": (ORDINARY, "others may write", True, open_to_others),
    "a folder of another user": (ORDINARY, "others may write", True, of_another_user),
    "a file for a folder": (ORDINARY, "cannot be made", True, a_file_in_its_place),
    "a folder that is read-only": (ORDINARY, "not usable", True, read_only),
}


@needs_compiler
@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_one_notice_and_no_error(what, fake, cache, tmp_path, monkeypatch):
    body, words, lasting, prepare = FAILURES[what]
    compiler = Compiler(fake(body))
    assert compiler.enabled()
    if prepare:
        prepare(monkeypatch, tmp_path)
    with pytest.warns(CompileNotice, match=words) as caught:
        assert compiler.load(SOURCE) is None
        assert compiler.load(SOURCE) is None and compiler.load(SOURCE + "\n") is None
    assert len(caught) == 1 and words in compiler.reason(SOURCE)
    assert compiler.enabled() is not lasting and (compiler.identity() == "numpy") is lasting
    assert not cache.is_dir() or not list(cache.iterdir())


FOUND_NOT = {  # {command: (words of the reason, whether there is a notice)}
    "none": ("switched off", False),
    "/no/such/cc": ("names /no/such/cc, which is not an executable file", True),
    "/": ("not an executable file", True),
    "'cc": ("not a command", True),
}


@pytest.mark.parametrize("command", FOUND_NOT)
def test_a_compiler_that_cannot_be_called(command):
    words, notice = FOUND_NOT[command]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiler = Compiler(command)
        assert not compiler.enabled() and compiler.load(SOURCE) is None
    assert words in compiler.reason() and [w.category for w in caught] == [CompileNotice] * notice


@pytest.mark.parametrize("version, words", [
    ("exit 3", "ended with status 3"), ("sleep 100", "stopped after"), ("kill -9 $$", "ended with status -9"),
    ("yes", "ended with status")])
def test_a_compiler_that_does_not_tell_its_version(version, words, fake, monkeypatch, tmp_path):
    quick(monkeypatch, tmp_path)
    with pytest.warns(CompileNotice, match=words):
        compiler = Compiler(fake("exit 1", version))
        assert not compiler.enabled()


@needs_compiler
def test_a_version_of_nonsense(fake):
    assert number(Compiler(fake(ORDINARY, "head -c 3000 /dev/urandom; exit 0")).load(SOURCE)) == 2.0


def test_no_compiler_and_no_notice(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no C compiler was found" in Compiler("").reason()


@pytest.mark.parametrize("name, value", [("os.name", "nt"), ("sys.maxsize", 2**31 - 1)])
def test_other_systems(name, value, monkeypatch):
    compiler = Compiler("")
    with monkeypatch.context() as patch:
        patch.setattr(name, value)
        assert not compiler.enabled()
    assert "are not compiled on" in compiler.reason()


@needs_compiler
def test_where_the_processor_is_unknown_code_is_for_any(fake, monkeypatch):
    monkeypatch.setattr(compile, "processor", lambda: "")
    body = 'case "$*" in *-march=native*) touch program.so; exit 0;; esac\nexec REAL "$@"'
    assert number(Compiler(fake(body)).load(SOURCE)) == 2.0


@needs_compiler
def test_an_error_in_one_program_leaves_the_others():
    compiler = Compiler("")
    with pytest.warns(CompileNotice, match="error"):
        assert compiler.load("double f(") is None
    assert number(compiler.load(SOURCE)) == 2.0
    assert "error" in compiler.reason("double f(") and compiler.reason(SOURCE) is compiler.reason() is None


@needs_compiler
def test_a_lasting_failure_leaves_the_programs_that_are_loaded(monkeypatch, tmp_path):
    compiler = Compiler("")
    library = compiler.load(SOURCE)
    refuse(os, "replace")(monkeypatch, tmp_path)
    with pytest.warns(CompileNotice, match="No space left"):
        assert compiler.load(SOURCE + "\n") is None
    assert not compiler.enabled() and "No space left" in compiler.reason("never tried")
    assert compiler.load(SOURCE) is library and compiler.reason(SOURCE) is None


@needs_compiler
def test_what_a_stopped_compiler_started_is_stopped_too(fake, monkeypatch, tmp_path):
    quick(monkeypatch, tmp_path)
    with pytest.warns(CompileNotice):
        assert Compiler(fake(f"sleep 100 & echo $! > {tmp_path}/started; wait")).load(SOURCE) is None
    started = int((tmp_path / "started").read_text())
    for _ in range(100):
        if not Path(f"/proc/{started}").exists() or "Z" in Path(f"/proc/{started}/stat").read_text().split()[2]:
            return
        time.sleep(0.02)
    os.kill(started, 0)
    raise AssertionError("it still runs")


# -- the cache folder --------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def folder(path):
    path.unlink()
    path.mkdir()


def another(path):
    shutil.copy(shutil.which("true"), path)


DAMAGE = {"empty": lambda path: path.write_bytes(b""), "cut off": cut, "a bit flipped": flip, "a folder": folder,
          "another program": another, "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
          "no hash in the name": lambda path: path.rename(path.with_name(path.name.partition("-")[0] + ".so"))}


@needs_compiler
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_not_loaded(what, cache):
    """In a process of its own, which a damaged library would crash."""
    assert Compiler("").load(SOURCE)
    (path,) = libraries(cache)
    data = path.read_bytes()
    path.unlink()  # this process has it loaded
    path.write_bytes(data)
    DAMAGE[what](path)
    for _ in range(2):
        status, out, err = run_child()
        assert (status, out.split()[0], err) == (0, "2.0", "")


@needs_compiler
def test_a_read_only_cache_folder_still_serves(cache):
    assert Compiler("").load(SOURCE)
    make_read_only(cache)
    assert number(Compiler("").load(SOURCE)) == 2.0


@needs_compiler
def test_processes_at_once(cache):
    processes = [start() for _ in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.split()[0], err) == (0, "2.0", "")
    assert 1 <= len(libraries(cache)) == len(list(cache.iterdir()))


@needs_compiler
def test_threads_at_once(cache):
    compiler, found = Compiler(""), []
    workers = [threading.Thread(target=lambda: found.append(compiler.load(SOURCE))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 8 and len(set(map(id, found))) == 1 and number(found[0]) == 2.0


@needs_compiler
def test_a_killed_process_leaves_nothing_for_ever(fake, cache):
    process = start(MINIGRAD_CC=fake('touch begun; sleep 1; exec REAL "$@"'))
    while not list(cache.glob("compiling-*/begun")) and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (left,) = cache.iterdir()
    compiler = Compiler("")
    assert number(compiler.load(SOURCE)) == 2.0 and left.exists()
    os.utime(left, (1, 1))
    assert compiler.load(SOURCE + "\n") and not left.exists()


@needs_compiler
def test_ctrl_c_while_it_compiles(fake, cache):
    compiler = Compiler(fake(f"test -e {cache}/again || sleep 100\n{ORDINARY}"))
    compiler.enabled()
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            compiler.load(SOURCE)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not list(cache.iterdir())
    (cache / "again").touch()
    assert number(compiler.load(SOURCE)) == 2.0


@needs_compiler
def test_a_fork_while_another_thread_compiles(tmp_path):
    """The child's lock is its own."""
    code = CHILD + """
import os, threading, time, warnings
warnings.simplefilter("ignore")
compiler.enabled()
threading.Thread(target=compiler.lock.acquire).start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    os._exit(0 if compiler.load(sys.argv[1]) else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code, SOURCE], timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_the_cache_is_bounded(cache, monkeypatch):
    compiler = Compiler("")
    sources = [SOURCE + "\n" * i for i in range(4)]
    for i, source in enumerate(sources):
        before = set(libraries(cache))
        assert compiler.load(source)
        (new,) = set(libraries(cache)) - before
        os.utime(new, (i, i))
    size = new.stat().st_size
    (cache / "somebody's").write_bytes(b"x" * size)
    assert Compiler("").load(sources[0])  # used again
    monkeypatch.setattr(compile, "CACHE_BYTES", 3 * size + 100)
    assert compiler.load(SOURCE + "\n" * 5)
    assert len(libraries(cache)) == 3 and (cache / "somebody's").exists()
    before = {path.stat().st_ino for path in libraries(cache)}
    for source in (sources[0], sources[3], SOURCE + "\n" * 5):
        assert Compiler("").load(source)
    assert {path.stat().st_ino for path in libraries(cache)} == before


@pytest.mark.parametrize("given, place", [
    ({"XDG_CACHE_HOME": "{tmp}/xdg", "HOME": "{tmp}"}, "xdg/minigrad"),
    ({"XDG_CACHE_HOME": "relative", "HOME": "{tmp}"}, ".cache/minigrad"),
    ({"XDG_CACHE_HOME": "", "HOME": "{tmp}"}, ".cache/minigrad")])
def test_where_the_cache_folder_is(given, place, tmp_path, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    assert compile.cache_folder() == tmp_path / place
    assert (tmp_path / place).stat().st_mode & 0o777 == 0o700


def test_a_full_disk(tmp_path):
    """A real one, where this user may mount a small file system."""
    place = tmp_path / "small"
    place.mkdir()
    if REAL is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", place],
                                      capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        (place / "filled").write_bytes(b"x" * 56_000)  # two pages are left: no compiler makes a smaller library
        status, out, err = run_child(XDG_CACHE_HOME=str(place))
        assert status == 0 and out.startswith("NumPy:") and err.count("CompileNotice") == 1, (out, err)
        assert not libraries(place / "minigrad")
        (place / "filled").unlink()
        assert run_child(XDG_CACHE_HOME=str(place))[1].startswith("2.0")
    finally:
        subprocess.run(["umount", place], check=True)


# -- what the flags leave as it is -------------------------------------------------------------------------------


NUMBERS = """
double lost(double a, double b) { return (a + b) - a; }
double error_of_product(double a, double b, double c) { return a * b - c; }
double negative_zero(double x) { return x + 0.0 * -1.0; }
int is_nan(double x) { return x != x; }
double total(long n, const double *x) { double s = 0; for (long i = 0; i < n; i++) s += x[i]; return s; }
void mixed(long n, double *y, const double *a, const double *b) {
#pragma GCC ivdep
    for (long i = 0; i < n; i++) y[i] = a[i] * b[i] + b[i] * y[i] - a[i] / 3.0;
}
"""


@needs_compiler
def test_arithmetic_is_that_of_the_text():
    library = Compiler("").load(NUMBERS)
    for name in ("lost", "error_of_product", "negative_zero", "is_nan"):
        function = getattr(library, name)
        function.argtypes = [ctypes.c_double] * {"lost": 2, "error_of_product": 3}.get(name, 1)
        function.restype = ctypes.c_int if name == "is_nan" else ctypes.c_double
    assert library.lost(1e16, 1.0) == (1e16 + 1.0) - 1e16 == 0.0
    assert library.error_of_product(0.1, 0.1, 0.1 * 0.1) == 0.0  # fused it would be 9e-19
    assert np.signbit(library.negative_zero(-0.0)) and library.is_nan(np.nan)
    x = np.random.default_rng(0).standard_normal(1001)
    library.total.restype = ctypes.c_double
    assert library.total(ctypes.c_long(x.size), ctypes.c_void_p(x.ctypes.data)) == sum(x.tolist())


@needs_compiler
def test_the_same_bits_at_any_place_and_as_in_numpy():
    library, rng = Compiler("").load(NUMBERS), np.random.default_rng(0)
    for n in range(1, 70):
        a, b, y = rng.standard_normal((3, n))
        expected = a * b + b * y - a / 3.0
        library.mixed(ctypes.c_long(n), *(ctypes.c_void_p(x.ctypes.data) for x in (y, a, b)))
        np.testing.assert_array_equal(y, expected)


# -- when, and on how many threads -------------------------------------------------------------------------------


def test_break_even():
    worth = BreakEven(cost=1.0)
    assert [worth.reached(0.25) for _ in range(5)] == [False, False, False, True, True]
    assert BreakEven(cost=1.0).reached(2.0) and not BreakEven().reached(0.0)


def test_threads_are_those_of_numpy():
    before = threads()
    for n in (1, 2):
        with threadpool_limits(n, user_api="blas"):
            assert threads() == n
    assert threads() == before
    began = time.perf_counter()
    for _ in range(100):
        threads()
    assert time.perf_counter() - began < 0.1


def test_threads_without_a_known_library(monkeypatch):
    monkeypatch.setattr(compile, "blas", lambda: None)
    assert threads() == 1


# -- which loops run --------------------------------------------------------------------------------------------------


@needs_compiler
def test_the_loops_of_a_context_run():
    def cell(h, x):
        h = mg.tanh(h + x)
        return h, h

    def call():
        return mg.scan(cell, np.zeros((3, 2)), np.ones((4, 3, 2)))[1]
    with mg.loops_in("numpy"):
        planned = call()
        assert mg.scan.ran(cell)[0].startswith("NumPy")
    with mg.loops_in("c"):
        in_c = call()
    assert mg.scan.ran(cell) == ["C"]
    with mg.loops_in("numpy"):
        np.testing.assert_array_equal(call(), planned)
    np.testing.assert_allclose(in_c, planned, rtol=1e-14)
    with pytest.raises(ValueError, match="loops run in 'auto', 'numpy' or 'c', not 'C'"), mg.loops_in("C"):
        pass
