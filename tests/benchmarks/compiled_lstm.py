"""The loops in C against the loops in NumPy and PyTorch: time of a forward and backward, and where it goes.

    python tests/benchmarks/compiled_lstm.py                     # one thread; each contender in a process of its own
    MINIGRAD_THREADS=2 python tests/benchmarks/compiled_lstm.py
    python tests/benchmarks/compiled_lstm.py parts               # µs of each part, and the flops they reach

lstm, toy   nn.LSTM in C and in NumPy, torch.nn.LSTM, and the matrix products alone by NumPy
cells       cells of examples/own_cells.py in C, against torch.nn.LSTM of their size
parts       the C of the forward and of the backward, the sums by NumPy, and the Python around them

MINIGRAD_CLOCK=cpu counts the processor's time: for one thread on a machine that has other work to do.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import timing  # isort: skip  (before NumPy: it sets the threads)

import numpy as np
from recurrent import products, torch_lstm

import minigrad as mg
from minigrad import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
compiled = importlib.import_module("minigrad.timeloop.compiled")
in_c = importlib.import_module("minigrad.timeloop.in_c")

SIZES = {"lstm": [(1, 25, 65, 100), (8, 32, 32, 64), (16, 25, 65, 128), (32, 50, 64, 128), (64, 60, 128, 256)],
         "toy": [(32, 20, 2, 16), (1, 100, 10, 24), (50, 100, 2, 32), (16, 30, 8, 32), (1, 12, 7, 12)],
         "cells": [(1, 50, 20, 64), (16, 50, 32, 96), (32, 40, 64, 128)]}  # batch, T, input, hidden


def layer_step(make: Callable, loop: str) -> timing.Contender:
    """A contender: one forward and backward of a layer, by the loop in "C" or in "NumPy"."""
    def contender(size: tuple) -> tuple:
        compiled.AFTER_SECONDS = 0.0 if loop == "C" else math.inf
        batch, T, D, H = size
        layer = make(D, H)
        x, ones = np.random.default_rng(1).normal(size=(T, batch, D)).astype("f"), np.ones((T, batch, H), "f")

        def step() -> None:
            layer.zero_grad()
            y, _ = layer(x)
            y.backward(ones)
        step()
        cell = (next(iter(layer.layers.values())) if hasattr(layer, "layers") else layer).cell
        assert all(ran.startswith(loop) for ran in mg.scan.ran(cell)), mg.scan.ran(cell)
        return step, None
    return contender


def own(name: str, loop: str) -> timing.Contender:
    return layer_step(lambda D, H: getattr(importlib.import_module("own_cells"), name)(D, H, rng=0), loop)


def lstm(D: int, H: int) -> nn.LSTM:
    return nn.LSTM(D, H, rng=0)


LSTM = {"C": layer_step(lstm, "C"), "NumPy": layer_step(lstm, "NumPy"), "torch": torch_lstm, "products": products}
CELLS = {"peephole": own("PeepholeLSTM", "C"), "coupled": own("CoupledLSTM", "C"),
         "minimal": own("MinimalGatedUnit", "C"), "torch": torch_lstm}
SECTIONS = {"lstm": LSTM, "toy": LSTM, "cells": CELLS}


def table(section: str, rounds: int) -> None:
    contenders, sizes = SECTIONS[section], SIZES[section]
    rows = timing.in_processes([__file__, "--section", section], list(contenders), sizes, rounds)
    print(f"\n{section}, {timing.THREADS} threads, ms")
    print(f"{'batch, T, input, hidden':<24}" + "".join(f"{name:>10}" for name in contenders) + "   of torch's time")
    ratios: dict[str, list[float]] = {name: [] for name in contenders if name != "torch"}
    for size, row in zip(sizes, rows):
        for name, values in ratios.items():
            values.append(row[name] / row["torch"])
        shares = "  ".join(f"{name} {values[-1]:.2f}" for name, values in ratios.items())
        print(f"{str(size)[1:-1]:<24}" + "".join(f"{row[name]:>10.3f}" for name in contenders) + f"   {shares}")
    print("geometric mean: " + "  ".join(f"{name} {statistics.geometric_mean(v):.2f}" for name, v in ratios.items()))


def parts(rounds: int) -> None:
    """Where a step's time goes, and how the products stand to what the processor can do."""
    peak = peak_flops()
    print(f"\nparts, µs; the products alone reach {peak / 1e9:.0f} Gflop/s at the best size")
    for size in SIZES["lstm"] + SIZES["toy"]:
        batch, T, D, H = size
        step, _ = layer_step(lstm, "C")(size)
        spent: dict[str, list[float]] = {}
        watched = [(in_c.CProgram, "call", spent), (in_c.CProgram, "add_sums", spent)]
        originals = [watch(*one) for one in watched]
        whole = []
        for _ in range(20 * rounds):
            for values in spent.values():
                values.append(0.0)
            start = timing.clock()
            step()
            whole.append(timing.clock() - start)
        for (owner, name, _), original in zip(watched, originals):
            setattr(owner, name, original)
        us = {name: statistics.median(values) * 1e6 for name, values in spent.items()}
        total = statistics.median(whole) * 1e6
        flops = 2 * T * batch * 4 * H * (2 * (D + H) + H)  # W u, dW, and Wᵀ dz for the state
        bound = flops / peak * 1e6
        print(f"{str(size)[1:-1]:<20}" + "  ".join(f"{name} {value:.0f}" for name, value in us.items())
              + f"  rest {total - sum(us.values()):.0f}  all {total:.0f}  products at peak {bound:.0f}"
              f" ({bound / total:.0%})")
        compiled.programs.clear()


def watch(owner: type, name: str, spent: dict) -> Callable:
    """Add the time of a method to the last entry of spent[name], or of spent[its first argument]."""
    original = getattr(owner, name)

    def timed(self: object, *args: object) -> object:
        start = timing.clock()
        out = original(self, *args)
        key = args[0] if isinstance(args[0], str) else name
        spent.setdefault(key, [0.0])[-1] += timing.clock() - start
        return out
    setattr(owner, name, timed)
    return original


def peak_flops(n: int = 768) -> float:
    a, b = np.ones((n, n), "f"), np.ones((n, n), "f")
    out = np.empty((n, n), "f")
    times = []
    for _ in range(15):
        start = timing.clock()
        np.dot(a, b, out)
        times.append(timing.clock() - start)
    return 2 * n ** 3 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=["lstm", "toy", "cells", "parts"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        timing.worker(SECTIONS[args.section][args.worker], SIZES[args.section])
        return
    for section in args.sections:
        parts(args.rounds) if section == "parts" else table(section, args.rounds)


if __name__ == "__main__":
    main()
