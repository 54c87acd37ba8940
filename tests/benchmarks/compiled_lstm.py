"""The loops in C against the loops in NumPy, PyTorch and JAX: time of a forward and backward, and where it goes.

    python tests/benchmarks/compiled_lstm.py                         # one thread; each contender in its own process
    MINIGRAD_THREADS=2 python tests/benchmarks/compiled_lstm.py lstm toy cells step
    python tests/benchmarks/compiled_lstm.py cells --rounds 3        # fewer rounds
    python tests/benchmarks/compiled_lstm.py roofline

lstm, toy   nn.LSTM, torch.nn.LSTM, and the matrix products alone by NumPy
cells       cells of one's own: the same lines in PyTorch (eager, torch.compile of the cell) and JAX (jit of lax.scan)
unrolled    torch.compile of the whole loop over time, which it unrolls; compiling takes a minute or more a size
first       seconds of the first call of a cell, with tracing and compiling, each in a new process with empty caches
step        a whole step of training (training_step.py)
train       the command `minigrad train`, by the clock
roofline    flops, bytes and passes counted from the program, what they take at the processor's peak, and the time of
            each part of a call: a table for docs/performance.md

Outputs and gradients are compared before timing. A library that is not installed is left out. MINIGRAD_CLOCK=cpu counts
the processor's time (not in first and train): for one thread on a machine that has other work to do.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import timing  # isort: skip  (before NumPy: it sets the threads)

import numpy as np
import recurrent
import training_step

import minigrad as mg
from minigrad.timeloop import cache
from minigrad.timeloop.compile import compiler
from minigrad.timeloop.in_c import CProgram

# -- the contenders ----------------------------------------------------------------------------------------------------


def by(loops: str, contender: timing.Contender) -> timing.Contender:
    """A contender of minigrad with its loops in "c" or in "numpy"."""
    def chosen(size: tuple) -> tuple:
        if loops == "c" and not compiler.enabled():
            raise ImportError(compiler.reason())
        call, findings = contender(size)

        def step() -> None:
            with mg.loops_in(loops):
                call()

        def checked() -> dict:
            others = [program.why_not_in_c for program in cache.programs if program.in_c is None]
            assert loops == "numpy" or not others, others
            return findings()
        return step, checked
    return chosen


def both(contender: timing.Contender) -> dict[str, timing.Contender]:
    return {"C": by("c", contender), "NumPy": by("numpy", contender)}


LSTM = both(recurrent.minigrad_layer) | {"torch.nn.LSTM": recurrent.torch_lstm, "products": recurrent.products}
CELLS = {"peephole": recurrent.peephole, "coupled": recurrent.coupled, "leaky": recurrent.leaky_gru}
TOY = [(32, 20, 2, 16), (1, 100, 10, 24), (50, 100, 2, 32), (16, 30, 8, 32), (1, 12, 7, 12)]  # batch, T, input, hidden
TABLES = {"lstm": (LSTM, recurrent.SIZES["lstm"]), "toy": (LSTM, TOY),
          "step": (both(training_step.minigrad) | {"C, rows as x": by("c", training_step.rows_as_x),
                                                   "torch": training_step.pytorch,
                                                   "torch, fused Adam": training_step.pytorch_fused},
                   training_step.SIZES)}
for name, cell in CELLS.items():
    minigrad = both(recurrent.through_scan(cell))
    TABLES[f"cells {name}"] = minigrad | {
        "torch eager": recurrent.in_torch(cell), "torch.compile": recurrent.in_torch(cell, "cell"),
        "JAX": recurrent.in_jax(cell), "torch.nn.LSTM": recurrent.torch_lstm}, recurrent.SIZES["cell"]
    TABLES[f"unrolled {name}"] = minigrad | {"torch.compile": recurrent.in_torch(cell, "loop")}, recurrent.SIZES["cell"]


def table(name: str, rounds: int) -> None:
    """Print the milliseconds of a table of contenders, and the time of C in that of each other one."""
    contenders, sizes = TABLES[name]
    print(f"\n{name}", flush=True)
    timing.against(contenders, sizes, [("C", other) for other in contenders if other != "C"], rounds,
                   [__file__, "--table", name], apart=True)


# -- the first call, and the command -----------------------------------------------------------------------------------


def first(rounds: int) -> None:
    """Print the median seconds from a new contender to its first results; nothing is compiled in advance."""
    for title in (title for title in TABLES if title.startswith("cells")):
        contenders, sizes = TABLES[title]
        for name in contenders:
            found = []
            for _ in range(min(rounds, 3)):
                with tempfile.TemporaryDirectory() as empty:
                    caches = {"XDG_CACHE_HOME": empty, "TORCHINDUCTOR_CACHE_DIR": empty}
                    done = subprocess.run([sys.executable, __file__, "--table", title, "--first", name],
                                          env=os.environ | caches, capture_output=True, text=True, check=True)
                found.append(done.stdout.split()[-1])
            if "nan" not in found:
                print(f"{title}, {sizes[-1]}: {name} {statistics.median(map(float, found)):.2f} s", flush=True)


def first_call(title: str, name: str) -> None:
    """Print the seconds of a contender's first call at the largest size; a smaller one has imported the libraries."""
    contenders, sizes = TABLES[title]
    try:
        contenders["torch eager" if name.startswith("torch") else name]((1, 2, 3, 4))[0]()
        start = time.perf_counter()
        contenders[name](sizes[-1])[0]()
        print(time.perf_counter() - start)
    except ImportError:
        print("nan")


def train(rounds: int) -> None:
    """Print the median seconds of `minigrad train`: in NumPy, in C, and in C with an empty cache of compiled programs.
    Its last loss is compared: rounding changes it a little, as every step of training enlarges a difference."""
    seconds: dict[str, list[float]] = {"C": [], "C, empty cache": [], "NumPy": []}
    rates: dict[str, list[float]] = {name: [] for name in seconds}
    losses = {}
    for _ in range(min(rounds, 5)):
        for name in seconds:
            with tempfile.TemporaryDirectory() as empty:
                environment = {"NumPy": {"MINIGRAD_CC": "none"}, "C": {}, "C, empty cache": {"XDG_CACHE_HOME": empty}}
                start = time.perf_counter()
                done = subprocess.run([sys.executable, "-m", "minigrad", "train", "--quiet", "--threads",
                                       timing.THREADS], env=os.environ | environment[name], capture_output=True,
                                      text=True, check=True)
                seconds[name].append(time.perf_counter() - start)
            line = next(line for line in done.stdout.splitlines() if line.startswith("trained"))
            rates[name].append(float(re.search(r"([\d,]+) tokens/s", line)[1].replace(",", "")))
            losses[name] = float(line.rpartition(" ")[2])
    assert max(losses.values()) < 1.02 * min(losses.values()), losses
    for name, values in seconds.items():
        print(f"minigrad train, {name}: {statistics.median(values):.1f} s, {statistics.median(rates[name]):,.0f} "
              f"characters/s, last loss {losses[name]:.4g}")
    print(f"C / NumPy: {statistics.median(a / b for a, b in zip(seconds['C'], seconds['NumPy'])):.2f}")


# -- the roofline ------------------------------------------------------------------------------------------------------


def roofline(rounds: int) -> None:
    """Print a table: the work counted from the program of nn.LSTM, what it takes at peak, and the time of each part."""
    speed = peak_of_products()
    print(f"Products reach {speed / 1e9:.0f} Gflop/s in a square of 768; bytes are moved as fast as by np.copyto with "
          "as many bytes. Microseconds:\n\n| batch, T, input, hidden | Mflop | at peak | MB moved | at peak | entries, "
          "millions | passes a step | forward | backward and sums | Python | all | larger peak / all |\n"
          + "|---" * 12 + "|")
    for size in [*recurrent.SIZES["lstm"], *TOY]:
        cache.programs.clear()
        step, _ = by("c", recurrent.minigrad_layer)(size)
        step()
        program, = (program.in_c for program in cache.programs)
        flops, entries, passes, moved = work_of(program, size[1])
        us, total = time_of_parts(step, rounds)
        peaks = flops / speed * 1e6, moved / peak_of_copies(moved // 4) * 1e6
        backward = us["backward"] + us.get("add_sums", 0.0)  # sums by C, and by NumPy
        parts = [us["forward"], backward, total - sum(us.values()), total]
        cells = [f"{flops / 1e6:.1f}", f"{peaks[0]:.0f}", f"{moved / 1e6:.2f}", f"{peaks[1]:.0f}",
                 f"{entries / 1e6:.2f}", " + ".join(map(str, passes)), *(f"{part:.0f}" for part in parts),
                 f"{max(peaks) / total:.0%}"]
        print(f"| {str(size)[1:-1]} | {' | '.join(cells)} |", flush=True)


def work_of(program: CProgram, steps: int) -> tuple[int, int, list[int], int]:
    """Count what one forward and backward does: (flops of products, entries that elementwise ops compute, passes of a
    step of each loop over arrays, bytes that go to or come from arrays over time).

    Padding of the batch to whole chunks is not counted as work, but its bytes are moved.
    """
    plan = program.plan
    values = [*plan.forward_values, *plan.steps]
    flops = sum(2 * math.prod(v.shape) * v.inputs[0].shape[-1] for v in values if v.op is mg.matmul.op)
    flops += sum(2 * math.prod(term[1].value.shape) * term[2].rows
                 for terms in plan.sums.values() for term in terms if term[0] == "product")
    entries = sum(math.prod(v.shape) for v in values if v.op.elementwise)
    passes = [sum(line.startswith(("for (", "load_", "store_")) for line in loop.body)
              for loop in (plan.forward, plan.backward)]
    rows = sum(r.rows * r.across * program.chunks * r.value.dtype.itemsize for r in plan.rows.values())
    passed = sum(math.prod(v.shape) * v.dtype.itemsize
                 for v in [*plan.x, *plan.y, *plan.y, *(a for a in plan.x if a in plan.gradients)])
    moved = 2 * program.chunks * program.chunk_bytes(steps) + steps * (2 * rows + passed)  # written once, read once
    return steps * flops, steps * entries, passes, moved


def time_of_parts(step: Callable, rounds: int) -> tuple[dict[str, float], float]:
    """Median µs of both C functions and of sums by NumPy in a call, and of the whole call."""
    spent: dict[str, list[float]] = {}
    originals = {name: watch(name, spent) for name in ("call", "add_sums")}
    whole = []
    for _ in range(20 * rounds):
        for values in spent.values():
            values.append(0.0)
        start = timing.clock()
        step()
        whole.append(timing.clock() - start)
    for name, original in originals.items():
        setattr(CProgram, name, original)
    return {name: statistics.median(values) * 1e6 for name, values in spent.items()}, statistics.median(whole) * 1e6


def watch(name: str, spent: dict) -> Callable:
    """Add the time of a method of CProgram to the last entry of spent[its first argument, or its name]."""
    original = getattr(CProgram, name)

    def timed(self: CProgram, *args: object) -> object:
        start = timing.clock()
        out = original(self, *args)
        key = args[0] if isinstance(args[0], str) else name
        spent.setdefault(key, [0.0])[-1] += timing.clock() - start
        return out
    setattr(CProgram, name, timed)
    return original


def peak_of_products(n: int = 768) -> float:
    """Flops a second of the best of 15 products of squares in float32."""
    a, b, out = np.ones((n, n), "f"), np.ones((n, n), "f"), np.empty((n, n), "f")
    return 2 * n ** 3 / shortest(lambda: np.dot(a, b, out))


def peak_of_copies(size: int) -> float:
    """Bytes a second, read and written, of the best of 15 copies."""
    a, b = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return 2 * size / shortest(lambda: np.copyto(a, b))


def shortest(call: Callable) -> float:
    times = []
    for _ in range(15):
        start = timing.clock()
        call()
        times.append(timing.clock() - start)
    return min(times)


COMMANDS = {"first": first, "train": train, "roofline": roofline}
SECTIONS = ("lstm", "toy", "cells", "unrolled", "first", "step", "train", "roofline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all but unrolled by default")
    parser.add_argument("--rounds", type=int, default=9)
    for option in ("--table", "--worker", "--first"):
        parser.add_argument(option, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        contenders, sizes = TABLES[args.table]
        return timing.worker(contenders[args.worker], sizes)
    if args.first:
        return first_call(args.table, args.first)
    print(timing.conditions(), flush=True)
    for section in args.sections or [name for name in SECTIONS if name != "unrolled"]:
        if section in COMMANDS:
            print(f"\n{section}", flush=True)
            COMMANDS[section](args.rounds)
        else:
            for name in (name for name in TABLES if name.split(" ")[0] == section):
                table(name, args.rounds)


if __name__ == "__main__":
    main()
