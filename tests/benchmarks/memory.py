"""Check that memory stays flat over many models, many lengths, and many closed-over arrays.

    python tests/benchmarks/memory.py

Each row runs in its own process and prints the resident memory after a tenth of the work and at the end, the numbers of
programs and of texts in `linecache`, and the size of idle buffers.
"""

import gc
import linecache
import os
import subprocess
import sys

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.timeloop.cache import pool, programs


def trained(layer, x):
    (layer(x)[0] ** 2).sum().backward()


def models_of_many_sizes(n):
    """Make 100 models of different sizes, train each once and drop it."""
    trained(nn.LSTM(64, 160 + n, rng=n), np.ones((50, 32, 64), "f"))


def models_of_one_size(n):
    """Make 100 models LSTM(64, 256), train each once and drop it."""
    trained(nn.LSTM(64, 256, rng=n), np.ones((50, 32, 64), "f"))


LAYER = nn.LSTM(32, 64, rng=0)


def lengths(n):
    """Train on 500 lengths, each longer than the one before."""
    trained(LAYER, np.ones((n + 1, 16, 32), "f"))


W = mg.tensor(np.eye(64, dtype="f") * 0.5, requires_grad=True)


def masks(n):
    """Run 2 000 steps, each with a new array that the cell closes over."""
    mask = (np.random.default_rng(n).random((64, 32)) < 0.9).astype("f")

    def cell(h, x):
        h = mg.tanh(W @ (h * mask) + x)
        return h, h
    mg.scan(cell, np.zeros((64, 32), "f"), np.ones((20, 64, 32), "f"))[0].sum().backward()


def numbers(n):
    """Run 500 steps, each with another Python number in the cell."""
    def cell(h, x):
        h = mg.tanh(W @ h * (1.0 + n / 1000) + x)
        return h, h
    mg.scan(cell, np.zeros((64, 32), "f"), np.ones((20, 64, 32), "f"))[0].sum().backward()


ROWS = {"models_of_many_sizes": 100, "models_of_one_size": 100, "lengths": 500, "masks": 2000, "numbers": 500}


def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(name):
    work, count, early = globals()[name], ROWS[name], 0.0
    for n in range(count):
        work(n)
        if n == count // 10:
            early = resident()
    end = resident()
    texts = sum("minigrad" in file and file.startswith("<") for file in linecache.cache)
    print(f"{name:22} {early:7.1f} → {end:7.1f} MB ({end - early:+6.1f})   {len(programs):3} programs, {texts:3} "
          f"texts, {pool.nbytes / 1e6:6.1f} MB of idle buffers")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1])
    else:
        for row in ROWS:
            subprocess.run([sys.executable, __file__, row], check=True)
