"""Compare this checkout with another one in a single run:

    git worktree add /tmp/before <commit> && python tests/benchmarks/against.py /tmp/before

The two checkouts run alternately, each in its own process. A row is one kind of work: its median milliseconds here and
there, and the median ratio of neighbouring runs; the first row is kB. BLAS uses one thread.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]


def work():
    """{name: function that does the work once}, with the minigrad that is first on the path."""
    import numpy as np

    import minigrad as mg
    from minigrad import nn

    def layer(kind, B, T, D, H):
        model, x = kind(D, H, rng=0), np.random.default_rng(1).normal(size=(T, B, D)).astype("f")
        g = np.ones((T, B, H), "f")
        return lambda: model(x)[0].backward(g)
    rows = {f"{kind.__name__} {size}": layer(kind, *size) for kind in (nn.LSTM, nn.GRU)
            for size in ((1, 25, 65, 100), (8, 32, 32, 64), (16, 25, 65, 128), (32, 50, 64, 128), (64, 60, 128, 256))}
    W, U = (mg.tensor(np.eye(n, dtype="f") * 0.5, requires_grad=True) for n in (64, 64))

    def cell(h, x):
        r, z = mg.sigmoid(W @ h + x), mg.sigmoid(U @ h - x)
        n = mg.tanh(W @ (r * h) + x)
        h = (1.0 - z) * n + z * h
        return h, h
    for T, B in ((1, 1), (25, 1), (25, 16)):
        h, xs = np.zeros((64, B), "f"), np.random.default_rng(1).normal(size=(T, 64, B)).astype("f")
        for loops in ("numpy", "c"):
            rows[f"own cell, B = {B}, T = {T}, in {loops}"] = lambda h=h, xs=xs, loops=loops: scanned(
                mg, cell, h, xs, loops)
    rows["own cell by the loop, B = 16, T = 25"] = lambda: looped(mg, cell, h, xs)
    a, b = mg.tensor(np.ones((16, 16), "f"), requires_grad=True), np.ones((16, 16), "f")
    rows["100 small eager ops"] = lambda: chain(mg, a, b).backward()
    return rows


def scanned(mg, cell, h, xs, loops):
    with mg.loops_in(loops):
        mg.scan(cell, h, xs)[0].sum().backward()


def looped(mg, cell, h, xs):
    h = mg.tensor(h)
    for x in xs:
        h, _ = cell(h, x)
    h.sum().backward()


def chain(mg, x, b):
    for _ in range(25):
        x = mg.tanh(x @ b * 0.1 + b)
    return x.sum()


def kept_by_the_graph():
    """Bytes that the graph of a cell of 14 ops, 25 steps op by op, keeps after the forward, in kB."""
    import numpy as np

    import minigrad as mg
    rng = np.random.default_rng(0)
    W, U = (mg.tensor(rng.normal(size=(64, 64)).astype("f"), requires_grad=True) for _ in range(2))
    xs = rng.normal(size=(25, 64, 16)).astype("f")

    def forward():
        h = mg.tensor(np.zeros((64, 16), "f"))
        for x in xs:
            r, z = mg.sigmoid(W @ h + x), mg.sigmoid(U @ h - x)
            h = (1.0 - z) * mg.tanh(W @ (r * h) + x) + z * h
        return h
    forward()
    tracemalloc.start()
    h = forward()
    kept = tracemalloc.get_traced_memory()[0] / 1e3
    tracemalloc.stop()
    h.sum().backward()
    return kept


def measured(seconds=0.25):
    found = {"kB kept by an eager graph": kept_by_the_graph()}
    for name, run in work().items():
        for _ in range(3):
            run()
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        found[name] = statistics.median(times) * 1e3
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", help="the folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    runs = []
    for _ in range(args.rounds):
        pair = []
        for folder in (HERE, Path(args.other).resolve()):
            code = "import against, json; print(json.dumps(against.measured()))"
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1",
                           "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)])}
            done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True,
                                  capture_output=True, text=True)
            pair.append(json.loads(done.stdout))
        runs.append(pair)
    print(f"{'':34}   here  there  here / there")
    for name in runs[0][0]:
        here, there = (statistics.median(pair[i][name] for pair in runs) for i in (0, 1))
        ratio = statistics.median(pair[0][name] / pair[1][name] for pair in runs)
        print(f"{name:34} {here:6.2f} {there:6.2f}  {ratio:.2f}")


if __name__ == "__main__":
    main()
