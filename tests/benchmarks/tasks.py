"""Measure the figures of docs/tasks.md: run the recipe of each task, as `minigrad train` does, over several seeds.

    python tests/benchmarks/tasks.py                                every row of the first table: an hour and more
    python tests/benchmarks/tasks.py reber anbn --seeds 0-9         some of them
    python tests/benchmarks/tasks.py adding --length 200 --seeds 0-2
    python tests/benchmarks/tasks.py parity --cell rnn --seeds 0-1  a row of the second: a plain RNN, the same recipe
    python tests/benchmarks/tasks.py --without                      the rows below them: recipes that lack one setting

Prints a line for each run and one for each task. A run stops when its validation set and its test set are solved, so
its metric is also measured on a third set, `fresh`, that it never saw. aⁿbⁿ and the long lag have only one set.
"""

from __future__ import annotations

import timing  # isort: skip  (before NumPy: it sets the threads)

import argparse
import os

import numpy as np

from minigrad.training import Run, Settings

FRESH = (3, 0x7E57)  # the seed of the third set: validation has (1, …), the test (2, …)
T200 = {"options": {"length": 200}}
ROWS = [("reber", {}, 30), ("adding", {}, 5), ("adding", T200, 3), ("temporal-order", {}, 10), ("anbn", {}, 10),
        ("long-lag", {}, 10), ("parity", {}, 5), ("sine", {}, 5), ("temporal-order-3", {}, 5),
        ("temporal-order-4", {}, 2), ("adding-1997", {}, 3), ("copy", {}, 2)]  # task, settings, number of seeds
BIAS, BETAS = {"cell_options": {}}, {"optimizer_options": {}}  # forget bias 1, Adam's default betas
WITHOUT = [("adding", BIAS, 5), ("adding", BIAS | T200, 3), ("temporal-order", BIAS, 3), ("adding-1997", BIAS, 1),
           ("long-lag", BETAS, 5), ("anbn", BIAS, 10)]


def runs(task: str, seeds: range, **given) -> None:
    """Run a task with every seed; print each result and a summary."""
    results = []
    print(f"{task} {given or ''}", flush=True)
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
    job.add_argument("tasks", nargs="*", metavar="TASK", help="any of `minigrad tasks` but text (all rows of the docs)")
    job.add_argument("--seeds", type=seeds_of, default=range(1), metavar="FIRST-LAST", help="of the tasks named (0)")
    job.add_argument("--length", type=int, metavar="N", help="of the tasks named")
    job.add_argument("--cell", help="cell that replaces the recipe's")
    job.add_argument("--without", action="store_true", help="every row of recipes that lack one setting")
    arguments = job.parse_args()
    length = {"options": {"length": arguments.length}} if arguments.length else {}
    cell = {"cell": arguments.cell} if arguments.cell else {}
    rows = [(task, settings, range(count)) for task, settings, count in (WITHOUT if arguments.without else ROWS)]
    print(f"{timing.conditions()}; {os.cpu_count()} cores\n", flush=True)
    for task, settings, seeds in [(task, length, arguments.seeds) for task in arguments.tasks] or rows:
        runs(task, seeds, **settings, **cell)


if __name__ == "__main__":
    main()
