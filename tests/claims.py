"""The figures on the pages: for each, the command that gives it, and a check.

    python tests/claims.py              check the quick claims: they recompute, or read recorded runs
    python tests/claims.py --slow       check the slow ones too: they measure again (some minutes)
    python tests/claims.py --write      write the table, docs/claims.md

To add a figure, add a `Claim` to CLAIMS. The tests run the quick ones, and check that every passage is on its page and
that docs/claims.md is this table. What a code block prints needs no claim: tests/test_docs.py compares it. Times are no
claims: they depend on the machine, and each stands beside its command in docs/performance.md.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "claims.md"
HEAD = """# Claims

The figures on the pages that no code block prints, each with the command that gives it. `python tests/claims.py`
checks that a page shows what its command gave; the tests do too. `python tests/claims.py --slow` also measures again
what takes some minutes. To add a figure, add a row to [claims.py](../tests/claims.py), and write this table with
`python tests/claims.py --write`. Times are in [performance.md](performance.md), each with its command.
"""


@dataclass(frozen=True)
class Claim:
    """Figures on a page.

    page      below the root, as "docs/tasks.md"
    what      the claim, in a few words
    command   what a reader runs for the figures
    passage   the text on the page, word for word but for line breaks; or a function that returns it from recorded runs
    check     whether the passage is right, measured now; without it, the passage comes from recorded runs
    slow      the check takes longer than a few seconds
    """

    page: str
    what: str
    command: str
    passage: str | Callable[[], str]
    check: Callable[[], Any] | None = None
    slow: bool = False

    def missing(self) -> list[str]:
        """The lines of the passage that are not on the page; a passage is one line if it is not a table."""
        text = self.passage if isinstance(self.passage, str) else self.passage()
        page = one_line((ROOT / self.page).read_text(encoding="utf-8"))
        lines = text.splitlines() if text.startswith("|") else [text]
        return [line for line in lines if one_line(line) not in page]


def one_line(text: str) -> str:
    return " ".join(text.replace("\n> ", "\n").split())


@cache
def script(path: str) -> dict[str, Any]:
    """The names of a script of the repository."""
    folder = str((ROOT / path).parent)
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(str(ROOT / path))
    finally:
        sys.path.remove(folder)


# -- chapter 7 of the course ----------------------------------------------------------------------------------

LAGS, RESULTS = "examples/long_lags.py", ROOT / "docs" / "results"


def lag_runs() -> list[dict]:
    return script(LAGS)["read"](RESULTS / "long_lags.jsonl")


def learning(lag: int) -> Callable[[], str]:
    return lambda: "\n".join(script(LAGS)["learning_table"](lag_runs(), lag))


def recorded_before_training(start: str) -> Callable[[], str]:
    """The table of docs/results/untrained.md that begins like this."""
    def lines() -> str:
        tables = (RESULTS / "untrained.md").read_text(encoding="utf-8").split("\n\n")
        return next(table.strip() for table in tables if table.startswith(start))
    return lines


def learned(network: str, lag: int) -> list[int]:
    """How many of the networks learned, by step size."""
    runs = [run for run in lag_runs() if (run["network"], run["lag"]) == (network, lag)]
    return [sum(run["learned"] is not None for run in runs if run["rate"] == rate)
            for rate in sorted({run["rate"] for run in runs})]


def part_before(network: str, lag: int, of: str = "W") -> list[float]:
    return [run[of][0] for run in lag_runs() if (run["network"], run["lag"]) == (network, lag)]


def cell(start: str, row: str, column: int) -> float:
    """The first number of a cell in a table of docs/results/untrained.md."""
    line = next(line for line in recorded_before_training(start)().splitlines() if line.startswith(f"| {row} |"))
    return float(line.split("|")[column].split()[0])


def within_a_factor(found: float, said: float, factor: float = 10 ** 0.75) -> bool:
    return said / factor <= found <= said * factor


def untrained_again() -> bool:
    """Measure everything before training once more: the same text."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        script(LAGS)["untrained"](Namespace(seeds=10, out=out))
        again, recorded = ((folder / "untrained.md").read_text(encoding="utf-8") for folder in (out, RESULTS))
        return again == recorded


def learning_again() -> bool:
    """Train seed 0 over 20 steps with the middle step size once more: the same networks learn, in about as many
    updates (their last digits depend on the processor)."""
    for run in lag_runs():
        if (run["lag"], run["rate"], run["seed"]) == (20, 0.01, 0):
            again = script(LAGS)["train"](run["network"], 20, 0.01, 0, run["updates"])
            if (again["learned"] is None) != (run["learned"] is None):
                return False
            if run["learned"] and abs(np.log(again["learned"] / run["learned"])) > np.log(1.5):
                return False
    return True


# -- the course's exercise --------------------------------------------------------------------------------------


def numbers_in_circulation() -> bool:
    """dWf[3][1] of the exercise, from its generator: with both carries dropped, and as it is."""
    from minigrad.document import lstm_backward, lstm_cell_backward, lstm_forward

    rng = np.random.RandomState(1)
    x, a0 = rng.randn(3, 10, 7), rng.randn(5, 10)
    p = {"Wy": np.zeros((2, 5)), "by": np.zeros((2, 1))}
    for gate in "fioc":
        p["W" + gate], p["b" + gate] = rng.randn(5, 8), rng.randn(5, 1)
    caches, da = lstm_forward(x, a0, p)[3], rng.randn(5, 10, 4)
    dropped = sum(lstm_cell_backward(da[:, :, t], np.zeros((5, 10)), caches[0][t])["dWf"] for t in range(4))
    return abs(dropped[3, 1] + 0.0698199) < 1e-7 and abs(lstm_backward(da, caches)["dWf"][3, 1] + 0.0809802) < 1e-7


# -- tasks ----------------------------------------------------------------------------------------------------

TASKS = "tests/benchmarks/tasks.py"


def task_rows(*rows: str) -> Callable[[], str]:
    def lines() -> str:
        bench = script(TASKS)
        return "\n".join(bench["table"](bench["read"](RESULTS / "tasks.jsonl"), list(rows)))
    return lines


def tasks_again(*rows: str) -> Callable[[], bool]:
    """A check: the first two seeds of these rows, once more. The validation set is solved, within twice the largest
    number of sequences that a recorded run of the row took; kernels and versions differ in their last digits."""
    def again() -> bool:
        bench = script(TASKS)
        recorded = bench["read"](RESULTS / "tasks.jsonl")
        most = {row: max(run["sequences"] for run in recorded if run["row"] == row) for row in rows}
        found = [bench["measure"](row, seed) for row in rows for seed in range(2)]
        return all(run["ended"] == "solved" and run["sequences"] <= 2 * most[run["row"]] for run in found)
    return again


def baselines() -> bool:
    from minigrad.tasks import TASKS as KINDS

    names = [script(TASKS)["ROWS"][row][0] for row in ROWS_OF_LSTM]
    said = (0.167, 0.167, 0.154, 0.5, 0.25, 0.125, 0.0625, 0.5, 1, 0.5, 0.089, 0.125)
    return all(abs(KINDS[name]().baseline - value) < 6e-4 for name, value in zip(names, said, strict=True))


ROWS_OF_LSTM = ("adding", "adding, T = 200", "adding-1997", "reber", "temporal-order", "temporal-order-3",
                "temporal-order-4", "long-lag", "anbn", "parity", "sine", "copy")


def reber_strings() -> bool:
    """No string of the test or the validation set is drawn for training; both have 256 distinct strings."""
    from minigrad.tasks import Reber

    def strings(batch: Any) -> set[bytes]:
        return {batch.x[:length, i].tobytes() for i, length in enumerate(batch.lengths)}
    task = Reber()
    test, validation, known = strings(task.test(1)), strings(task.validation(2)), strings(task.batch(0, 20_000))
    return len(test) == len(validation) == 256 and not (test | validation) & known and not test & validation


FIGURES = "examples/bptt_figures.py"
PEAKS = {1024: 20.5, 512: 10.8, 256: 5.9, 128: 3.7, 64: 2.6, 32: 2.1}  # {k: MB with every k-th state kept}


def checkpoints_again() -> bool:
    """Measure the peaks once more: the same within a tenth."""
    return all(abs(found / PEAKS[k] - 1.0) < 0.1 for k, found in script(FIGURES)["checkpoint_peaks"](64).items())


CLAIMS = [
    *(Claim("docs/bptt.md", f"chapter 7: who learns a sign over {lag} steps, and the gradient at the first step before",
            f"python {LAGS} --only learning --anew", learning(lag)) for lag in (20, 60)),
    Claim("docs/bptt.md", "chapter 7: the gradient after training", f"python {LAGS} --only learning --anew",
          lambda: "\n".join(script(LAGS)["after_table"](lag_runs()))),
    *(Claim("docs/bptt.md", f"chapter 7: {what}", f"python {LAGS} --only untrained", recorded_before_training(start))
      for what, start in (("dL/dh against lag, untrained", "| dL/dh, untrained"),
                          ("dL/dW against lag, untrained", "| dL/dW, untrained"),
                          ("the forget gate and one step", "| LSTM, untrained"),
                          ("what an LSTM keeps, by its forget bias", "| forget bias |"))),
    Claim("docs/bptt.md", "chapter 7: before training, measured again", f"python {LAGS} --only untrained", "",
          untrained_again, slow=True),
    Claim("docs/bptt.md", "chapter 7: seed 0 over 20 steps, trained again", f"python {LAGS} --only learning --anew", "",
          learning_again, slow=True),
    *(Claim("docs/bptt.md", f"chapter 7: {network} over {lag} steps", f"python {LAGS} --only learning --anew", passage,
            lambda network=network, lag=lag, counts=counts, least=least, most=most:
            learned(network, lag) == counts and min(part_before(network, lag)) >= least
            and max(part_before(network, lag)) <= most)
      for network, lag, passage, counts, least, most in (
          ("LSTM, forget bias 1", 60, "has 4·10⁻⁵ and learned on 3, 1 and 0", [3, 1, 0], 1e-6, 2e-3),
          ("GRU", 60, "The GRU begins with 10⁻¹², and with the largest step size 8 of 10 learned", [0, 0, 8], 1e-14,
           1e-10),
          ("plain RNN", 60, "the plain RNN with 10⁻²⁰ to 10⁻⁷, and 6 did", [0, 4, 6], 1e-20, 1e-7),
          ("nn.LSTM", 60, "The library's LSTM has 6·10⁻³, and learned on 9, 4 and 1", [9, 4, 1], 1e-3, 4e-2),
          ("LSTM, forget bias 0", 20, "the LSTM on 10, 9 and 2", [10, 9, 2], 1e-5, 1e-3),
          ("RNN, orthogonal on h", 60, "it learned over 60 steps on 10, 9 and 8 networks", [10, 9, 8], 1e-3, 1e-1))),
    Claim("docs/bptt.md", "chapter 8: peak memory with checkpoints", f"python {FIGURES} --only memory",
          "| peak memory | " + " | ".join(f"{size} MB" for size in PEAKS.values()) + " |", checkpoints_again),
    Claim("docs/document.md", "who learns over 60 steps", f"python {LAGS} --only learning --anew",
          "a GRU learned the sign over 60 steps on 0, 0 and 8 of 10 seeds at step sizes 0.003, 0.01 and 0.03, an LSTM "
          "on none; with chrono biases both on all 10",
          lambda: [learned(name, 60) for name in ("GRU", "LSTM, forget bias 0", "GRU, chrono", "LSTM, chrono")]
          == [[0, 0, 8], [0, 0, 0], [10, 10, 10], [10, 10, 10]]),
    Claim("docs/document.md", "the gradient of an LSTM over 100 and 1000 steps", f"python {LAGS} --only untrained",
          "Over 100 steps an LSTM with forget bias 0 keeps 10⁻²² of the gradient of its hidden state, with 1 it is "
          "10⁻⁸, with 3 it is 0.2. Over 1000 steps a bias of 1 keeps 10⁻⁷⁶.",
          lambda: all(within_a_factor(cell("| dL/dh, untrained", f"LSTM, forget bias {bias}", 4), said)
                      for bias, said in ((0, 1e-22), (1, 1e-8), (3, 0.2)))
          and within_a_factor(cell("| forget bias |", "1", 4), 1e-76)),
    Claim("docs/document.md", "the factor of a step in a plain RNN", f"python {LAGS} --only untrained",
          "a factor of 0.55 a step; the spectral radius of its matrix is about 0.6. With orthogonal weights the factor "
          "is 0.85.", lambda: [cell("| dL/dh, untrained", name, 5) for name in ("plain RNN", "RNN, orthogonal on h")]
          == [0.55, 0.85]),
    Claim("docs/audit.md", "the wrong numbers in circulation lack both carries, the right ones have them",
          "pytest tests/test_claims.py", "| dWf[3][1] | -0.0698199 | -0.0809802 |", numbers_in_circulation),
    Claim("docs/tasks.md", "recipes with an LSTM", f"python {TASKS}", task_rows(*ROWS_OF_LSTM)),
    Claim("docs/tasks.md", "a plain RNN by the same recipes", f"python {TASKS}",
          lambda: task_rows(*(row for row in script(TASKS)["ROWS"] if row.endswith(", rnn")))()),
    Claim("docs/tasks.md", "recipes that lack one setting", f"python {TASKS}",
          lambda: task_rows(*(row for row in script(TASKS)["ROWS"] if row.endswith(("bias 1", "own betas"))))()),
    Claim("docs/tasks.md", "results without memory", "pytest tests/tasks",
          "0.167, 0.167, 0.154, 0.5, 0.25, 0.125, 0.0625, 0.5, 1, 0.5, 0.089 and 0.125", baselines),
    Claim("docs/tasks.md", "no string of a Reber test is trained on", "pytest tests/tasks",
          "Both sets have 256 distinct strings; the model has seen none of them", reber_strings),
    Claim("docs/tasks.md", "the first two seeds of five rows, again", f"python {TASKS}", "",
          tasks_again("reber", "anbn", "sine", "parity", "temporal-order"), slow=True),
]


def main() -> int:
    job = argparse.ArgumentParser(description="Check the figures on the pages.")
    job.add_argument("--slow", action="store_true", help="check the slow claims too")
    job.add_argument("--write", action="store_true", help="write docs/claims.md")
    arguments = job.parse_args()
    if arguments.write:
        TABLE.write_text(table(), encoding="utf-8")
    wrong = 0
    for claim in CLAIMS:
        problem = f"the page lacks: {claim.missing()[0]}" if claim.missing() else None
        if problem is None and claim.check and (arguments.slow or not claim.slow) and not claim.check():
            problem = "the check gives something else"
        skipped = claim.slow and not arguments.slow
        print(f"{'WRONG' if problem else 'slow ' if skipped else 'right'}  {claim.page}: {claim.what}"
              + (f": {problem}" if problem else ""), flush=True)
        wrong += problem is not None
    return int(wrong > 0)


def table() -> str:
    """The text of docs/claims.md."""
    lines = [HEAD, "| page | claim | command | check |", "|---|---|---|---|"]
    for claim in CLAIMS:
        page = claim.page.removeprefix("docs/")
        kind = "recorded runs" if claim.check is None else "measured again, slow" if claim.slow else "measured again"
        lines.append(f"| [{page}]({page}) | {claim.what} | `{claim.command}` | {kind} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
