"""The figures of docs/tasks.md: the recipe of each task, as `minigrad train TASK --seed N` runs it, over several seeds.

    python tests/benchmarks/tasks.py                                           every row of the docs' table: hours
    python tests/benchmarks/tasks.py reber anbn --seeds 0-9
    python tests/benchmarks/tasks.py adding --length 200 --seeds 0-2
    python tests/benchmarks/tasks.py parity --cell rnn --seeds 0-1             beside it, a plain RNN

A line for each run, and one for all of a task. A run stops where its validation set and its test set are solved; so
its metric is given on a third set too, `fresh`, that it never saw. Of aⁿbⁿ and the long lag there is only one set, all
that there is.
"""

from __future__ import annotations

import timing  # isort: skip  (before NumPy: it sets the threads)

import argparse
import os

import numpy as np

from minigrad.run import Run
from minigrad.settings import Settings

FRESH = (3, 0x7E57)  # the seed of the third set: validation has (1, …), the test (2, …)
ROWS = [("reber", {}, range(10)), ("adding", {}, range(5)), ("adding", {"length": 200}, range(3)),
        ("temporal-order", {}, range(10)), ("anbn", {}, range(10)), ("long-lag", {}, range(10)),
        ("parity", {}, range(5)), ("sine", {}, range(5)), ("temporal-order-3", {}, range(3)),
        ("temporal-order-4", {}, range(2)), ("adding-1997", {}, range(3)), ("copy", {}, range(2))]


def runs(task: str, seeds: range, **given) -> None:
    """Every seed of a task, each printed when it ends, and what they come to."""
    results = []
    print(f"{task} {given}", flush=True)
    for seed in seeds:
        run = Run.new(Settings.for_task(task, seed=seed, **given))
        result = run.go()
        fresh, course = run.trainer.measure(FRESH), run.trainer.history()["metric"]
        best = (np.nanmax if run.trainer.task.higher_is_better else np.nanmin)(course)
        results.append(result | {"fresh": fresh})
        print(f"seed {seed}: {'solved' if result['solved'] else 'NOT solved'} in {result['steps']:,} steps, "
              f"{result['sequences']:,} sequences, {result['seconds']:.0f} s; {result['metric_name']} "
              f"{result['metric']:.4g}, fresh {fresh:.4g}, at best {best:.4g} on the validation set, "
              f"without memory {result['baseline']:.4g}; loss {result['loss']:.4g}", flush=True)
    solved = [result for result in results if result["solved"]]
    line = f"seeds {seeds[0]}-{seeds[-1]}: {len(solved)} of {len(results)} solved"
    for what in ("steps", "sequences") if solved else ():
        counts = [result[what] for result in solved]
        line += f"; {what} {np.mean(counts):,.0f}, from {min(counts):,} to {max(counts):,}"
    for what in ("metric", "fresh"):
        values = [result[what] for result in results]
        line += f"; {what} from {min(values):.4g} to {max(values):.4g}"
    print(line + "\n", flush=True)


def seeds_of(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    job = argparse.ArgumentParser(description="The recipes of tasks over several seeds.")
    job.add_argument("tasks", nargs="*", metavar="TASK", help="of `minigrad tasks` (every row of the docs)")
    job.add_argument("--seeds", type=seeds_of, default=range(1), metavar="FIRST-LAST", help="of the tasks named (0)")
    job.add_argument("--length", type=int, metavar="N", help="of the tasks named")
    job.add_argument("--cell", help="in place of the recipe's")
    arguments = job.parse_args()
    options = {"length": arguments.length} if arguments.length else {}
    cell = {"cell": arguments.cell} if arguments.cell else {}
    print(f"{timing.conditions()}; {os.cpu_count()} cores\n", flush=True)
    for task, of_row, seeds in [(task, options, arguments.seeds) for task in arguments.tasks] or ROWS:
        runs(task, seeds, options=of_row, **cell)


if __name__ == "__main__":
    main()
