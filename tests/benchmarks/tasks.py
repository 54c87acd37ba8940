"""Measure the figures of docs/tasks.md: run the recipe of each task, as `minigrad train` does, over several seeds.

    python tests/benchmarks/tasks.py                       run what docs/results/tasks.jsonl lacks, and print every row
    python tests/benchmarks/tasks.py --results mine.jsonl reber "anbn, forget bias 1"      some rows, measured anew
    MINIGRAD_CC=none OPENBLAS_CORETYPE=Haswell python tests/benchmarks/tasks.py reber      other kernels, loops in NumPy

A finished run is one line of the results file: the row, the seed, the numbers of `minigrad train`'s result, and what
the last digits depend on: the processor, the kernel of OpenBLAS, and whether the loops over time ran in C or NumPy. A
run that is in the file for the same kernel and loops is not repeated.
"""

from __future__ import annotations

import timing  # isort: skip  (before NumPy: it sets the threads)

import argparse
import json
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from minigrad.timeloop.compile import compiler
from minigrad.training import Run, Settings

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "tasks.jsonl"
LENGTH, BIAS, BETAS = {"options": {"length": 200}}, {"cell_options": {}}, {"optimizer_options": {}}
RNN = {"cell": "rnn"}
ROWS = {  # name: (task, settings that differ from its recipe, number of seeds)
    "adding": ("adding", {}, 5),
    "adding, T = 200": ("adding", LENGTH, 3),
    "adding-1997": ("adding-1997", {}, 3),
    "reber": ("reber", {}, 30),
    "temporal-order": ("temporal-order", {}, 10),
    "temporal-order-3": ("temporal-order-3", {}, 5),
    "temporal-order-4": ("temporal-order-4", {}, 2),
    "long-lag": ("long-lag", {}, 10),
    "anbn": ("anbn", {}, 10),
    "parity": ("parity", {}, 5),
    "sine": ("sine", {}, 5),
    "copy": ("copy", {}, 2),
    # a plain RNN by the same recipe
    "adding, rnn": ("adding", RNN, 2),
    "adding, T = 200, rnn": ("adding", RNN | LENGTH, 1),
    "adding-1997, rnn": ("adding-1997", RNN, 1),
    "reber, rnn": ("reber", RNN, 3),
    "temporal-order, rnn": ("temporal-order", RNN, 1),
    "long-lag, rnn": ("long-lag", RNN, 2),
    "anbn, rnn": ("anbn", RNN, 5),
    "parity, rnn": ("parity", RNN, 5),
    "sine, rnn": ("sine", RNN, 2),
    "copy, rnn": ("copy", RNN, 1),
    # recipes that lack one setting: an LSTM's forget bias is then 1, Adam's betas are (0.9, 0.999)
    "adding, forget bias 1": ("adding", BIAS, 5),
    "adding, T = 200, forget bias 1": ("adding", BIAS | LENGTH, 3),
    "adding-1997, forget bias 1": ("adding-1997", BIAS, 1),
    "temporal-order, forget bias 1": ("temporal-order", BIAS, 3),
    "anbn, forget bias 1": ("anbn", BIAS, 10),
    "long-lag, Adam's own betas": ("long-lag", BETAS, 5),
}


def kernel() -> str:
    """What decides the last digits of a run on one processor: the kernel of the BLAS, and the loops."""
    blas = [info.get("architecture") or info["internal_api"] for info in threadpool_info()
            if info["user_api"] == "blas"]
    return f"{blas[0] if blas else 'no BLAS'}, loops in {'NumPy' if compiler.identity() == 'numpy' else 'C'}"


def measure(row: str, seed: int) -> dict:
    """Run one seed of a row; return its line of the results."""
    task, settings, _ = ROWS[row]
    run = Run.new(Settings.for_task(task, seed=seed, **settings))
    result = run.go()
    course = run.trainer.history().get("metric", np.array([np.nan]))
    best = (np.nanmax if run.trainer.task.higher_is_better else np.nanmin)(course)
    return {"row": row, "seed": seed, "kernel": kernel(), "ended": result["ended"], "steps": result["steps"],
            "sequences": result["sequences"], "test": float(f"{result['metric']:.6g}"),
            "best": float(f"{best:.6g}"), "loss": float(f"{result['loss']:.4g}"), "weights": result["parameters"],
            "seconds": round(result["seconds"]), "machine": timing.conditions()}


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def table(runs: list[dict], rows: list[str]) -> list[str]:
    """A Markdown table, a line for each row and kernel: how many runs stopped because the validation set was solved,
    the sequences until then, mean (largest), and the results on the test set, smallest … largest."""
    lines = ["| row | model, optimiser, weights | stopped | sequences until then | test set | kernel, loops |",
             "|---|---|---|---|---|---|"]
    for row in rows:
        for found in sorted({run["kernel"] for run in runs if run["row"] == row}, reverse=True):
            some = [run for run in runs if (run["row"], run["kernel"]) == (row, found)]
            counts = [run["sequences"] for run in some if run["ended"] == "solved"]
            test = sorted(run["test"] for run in some)
            lines.append(f"| {row} | {described(row)}, {spaced(some[0]['weights'])} | {len(counts)} of {len(some)} | "
                         + (f"{spaced(np.mean(counts))} ({spaced(max(counts))})" if counts else
                            f"{spaced(max(run['sequences'] for run in some))} without")
                         + f" | {' … '.join(dict.fromkeys(f'{value:.4g}' for value in (test[0], test[-1])))} | "
                         f"{found.replace(', loops in', ',')} |")
    return lines


def described(row: str) -> str:
    """The cell and the optimiser of a row, as "LSTM 16, Adam 0.01, batch 20"."""
    task, given, _ = ROWS[row]
    settings = Settings.for_task(task, **given)
    options = [f"{name} {value:g}" for name, value in settings.cell_options.items()]
    betas = [f"β₂ {settings.optimizer_options['betas'][1]}"] if "betas" in settings.optimizer_options else []
    return ", ".join([" ".join([settings.cell.upper(), str(settings.hidden)]), *options,
                      " ".join([settings.optimizer.capitalize(), f"{settings.lr:g}", *betas]),
                      f"batch {settings.batch}"])


def spaced(count: float) -> str:
    return f"{count:,.0f}".replace(",", " ")


def main() -> None:
    job = argparse.ArgumentParser(description="The recipes of tasks over several seeds.")
    job.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {'; '.join(ROWS)} (default: all)")
    job.add_argument("--results", type=Path, default=RESULTS, help="file of finished runs, one a line")
    arguments = job.parse_args()
    unknown = [row for row in arguments.rows if row not in ROWS]
    if unknown:
        job.error(f"{unknown[0]!r} is not a row: {'; '.join(ROWS)}")
    rows = arguments.rows or list(ROWS)
    done = {(run["row"], run["seed"], run["kernel"]) for run in read(arguments.results)}
    for row in rows:
        for seed in range(ROWS[row][2]):
            if (row, seed, kernel()) not in done:
                line = json.dumps(measure(row, seed), ensure_ascii=False)
                with open(arguments.results, "a", encoding="utf-8") as file:
                    file.write(line + "\n")
    print("\n".join(table(read(arguments.results), rows)))


if __name__ == "__main__":
    main()
