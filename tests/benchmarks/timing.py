"""Time contenders in turn, and print medians and their ratios.

Machines are shared and drift, so contenders alternate: in one process, or each in its own process, which sleeps during
the others' turns, as with several threads always. Import this module before NumPy, since it sets the number of BLAS
threads (MINIGRAD_THREADS, default 1). MINIGRAD_CLOCK=cpu measures the processor time of this process instead of wall
time, for one thread on a busy machine.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

THREADS = os.environ.get("MINIGRAD_THREADS", "1")
clock = time.process_time if os.environ.get("MINIGRAD_CLOCK") == "cpu" else time.perf_counter
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = THREADS
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")  # as minigrad sets it, if it is imported before NumPy

import numpy as np  # noqa: E402

# Contender(size) → (the call to time, a function that returns its results by name, or None)
Contender = Callable[[tuple], tuple[Callable[[], object], Callable[[], dict] | None]]


def side_by_side(contenders: dict[str, Callable[[], object]], rounds: int = 15,
                 seconds: float = 0.15) -> dict[str, float]:
    """Median time of one call, in ms. Each round runs every contender for about `seconds`, in turn."""
    calls = {}
    for name, call in contenders.items():
        call()
        start = clock()
        call()
        calls[name] = max(1, round(seconds / (clock() - start)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = clock()
            for _ in range(calls[name]):
                call()
            times[name].append((clock() - start) / calls[name] * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def compared(contenders: dict[str, Contender], size: tuple) -> dict[str, Callable[[], object]]:
    """{name: call} of the contenders that run here. Contenders with the same names of results must agree."""
    calls, first = {}, {}
    for name, contender in contenders.items():
        try:
            call, findings = contender(size)
        except ImportError as problem:
            print(f"{name} is left out: {problem}", flush=True)
            continue
        call()
        if findings is not None:
            found = findings()
            reference = first.setdefault(frozenset(found), found)
            for key, value in found.items():
                near = 2e-5 * np.abs(reference[key]).max()
                np.testing.assert_allclose(value, reference[key], rtol=1e-3, atol=near, err_msg=f"{name}, {key}")
        calls[name] = call
    return calls


def worker(contender: Contender, sizes: list[tuple]) -> None:
    """Run one contender in its own process: read the number of a size, run it for a while, print its milliseconds."""
    calls = {}
    for line in sys.stdin:
        k, seconds = json.loads(line)
        if k not in calls:
            calls[k] = contender(sizes[k])[0]
            calls[k]()
        calls[k]()
        times, start = [], time.perf_counter()
        while not times or time.perf_counter() - start < seconds:
            before = clock()
            calls[k]()
            times.append((clock() - before) * 1e3)
        print(statistics.median(times), flush=True)


def in_processes(command: list[str], names: list[str], sizes: list[tuple], rounds: int,
                 seconds: float = 0.2) -> list[dict[str, float]]:
    """Median ms of each contender for each size; `command --worker NAME` is a process that calls `worker`."""
    times = {name: [[] for _ in sizes] for name in names}
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(subprocess.Popen(
            [sys.executable, *command, "--worker", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for name in names}
        for turn in range(rounds + 1):  # the first turn warms up
            for k in range(len(sizes)):
                for name, process in workers.items():
                    process.stdin.write(json.dumps([k, seconds if turn else 0.05]) + "\n")
                    process.stdin.flush()
                    ms = float(process.stdout.readline())
                    time.sleep(0.05)  # until its threads have stopped spinning
                    if turn:
                        times[name][k].append(ms)
        for process in workers.values():
            process.stdin.close()
    return [{name: statistics.median(row[k]) for name, row in times.items()} for k in range(len(sizes))]


def against(contenders: dict[str, Contender], sizes: list[tuple], pairs: list[tuple[str, str]], rounds: int,
            command: list[str], alternate: bool = False, apart: bool = THREADS != "1") -> None:
    """Print milliseconds for each size, and the ratio of each of `pairs`, (ours, theirs). Results are compared first.
    With `alternate`, single calls take turns in place of bursts of 0.15 s, so caches are cold. With `apart`, each
    contender has a process of its own."""
    calls: list[dict] = []
    for size in sizes:
        calls.append(compared(contenders, size))
        contenders = {name: contenders[name] for name in calls[0]}
    if apart:
        rows = in_processes(command, list(contenders), sizes, rounds)
    else:
        rows = [side_by_side(row, rounds * 10, 0.0) if alternate else side_by_side(row, rounds) for row in calls]
    for size, row in zip(sizes, rows):
        print(f"{size!s:20}", "  ".join(f"{name} {ms:.3g}" for name, ms in row.items()), " (ms)")
    for ours, theirs in pairs:
        if {ours, theirs} <= rows[0].keys():
            ratios = [row[ours] / row[theirs] for row in rows]
            print(f"{ours} / {theirs}: geometric mean {statistics.geometric_mean(ratios):.2f}, from {min(ratios):.2f} "
                  f"to {max(ratios):.2f}   ({', '.join(f'{r:.2f}' for r in ratios)})", flush=True)


def conditions() -> str:
    """The conditions of a measurement: versions, processor, threads."""
    versions = []
    for name in ("numpy", "torch", "mygrad", "autograd", "jax"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    core = os.environ.get("OPENBLAS_CORETYPE")
    return (f"Python {platform.python_version()}, {', '.join(versions)}; {model}; {THREADS} thread(s)"
            + ("; processor's time" if clock is time.process_time else "")
            + (f"; OPENBLAS_CORETYPE={core}" if core else ""))
