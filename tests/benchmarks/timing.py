"""How the benchmarks measure: contenders in turn, in one process, medians and their ratios.

Machines are shared and drift, so only what ran side by side is compared. Import this before NumPy: it fixes the
number of BLAS threads (MINIGRAD_THREADS, default 1).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable

THREADS = os.environ.get("MINIGRAD_THREADS", "1")
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = THREADS


def side_by_side(contenders: dict[str, Callable[[], object]], rounds: int = 15,
                 seconds: float = 0.15) -> dict[str, float]:
    """Median time of one call, in ms. Each round runs every contender for about `seconds`, in turn."""
    calls = {}
    for name, call in contenders.items():
        call()
        start = time.perf_counter()
        call()
        calls[name] = max(1, round(seconds / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                call()
            times[name].append((time.perf_counter() - start) / calls[name] * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def geometric_mean(values: list[float]) -> float:
    return statistics.geometric_mean(values)


def conditions() -> str:
    """What the figures depend on: versions, processor, threads."""
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
            + (f"; OPENBLAS_CORETYPE={core}" if core else ""))
