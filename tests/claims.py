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


def untrained_again() -> bool:
    """Measure everything before training once more: the same text."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        script(LAGS)["untrained"](Namespace(seeds=10, results=out / "runs.jsonl", out=out))
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


# -- tasks ----------------------------------------------------------------------------------------------------

TASKS = "tests/benchmarks/tasks.py"


def task_rows(*rows: str) -> Callable[[], str]:
    def lines() -> str:
        bench = script(TASKS)
        return "\n".join(bench["table"](bench["read"](RESULTS / "tasks.jsonl"), list(rows)))
    return lines


def tasks_again(*rows: str) -> Callable[[], bool]:
    """A check: the first two seeds of these rows, once more. Where the kernel is a recorded one, the same sequences;
    elsewhere the validation set is solved too."""
    def again() -> bool:
        bench = script(TASKS)
        known = {(run["row"], run["seed"], run["kernel"]): run for run in bench["read"](RESULTS / "tasks.jsonl")}
        for row in rows:
            for seed in range(2):
                found = bench["measure"](row, seed)
                recorded = known.get((row, seed, found["kernel"]))
                if found["ended"] != "solved" or (recorded and recorded["sequences"] != found["sequences"]):
                    return False
        return True
    return again


def reber_strings() -> bool:
    """No string of the test or the validation set is drawn for training; both have 256 distinct strings."""
    from minigrad.tasks import Reber

    def strings(batch: Any) -> set[bytes]:
        return {batch.x[:length, i].tobytes() for i, length in enumerate(batch.lengths)}
    task = Reber()
    test, validation, known = strings(task.test(1)), strings(task.validation(2)), strings(task.batch(0, 20_000))
    return len(test) == len(validation) == 256 and not (test | validation) & known and not test & validation


CLAIMS = [
    *(Claim("docs/bptt.md", f"chapter 7: who learns a sign over {lag} steps, and the gradient at the first step before",
            f"python {LAGS} --only learning", learning(lag)) for lag in (20, 60)),
    Claim("docs/bptt.md", "chapter 7: the gradient after training", f"python {LAGS} --only learning",
          lambda: "\n".join(script(LAGS)["after_table"](lag_runs()))),
    *(Claim("docs/bptt.md", f"chapter 7: {what}", f"python {LAGS} --only untrained", recorded_before_training(start))
      for what, start in (("dL/dh against lag, untrained", "| dL/dh, untrained"),
                          ("dL/dW against lag, untrained", "| dL/dW, untrained"),
                          ("the forget gate and one step", "| LSTM, untrained"),
                          ("what an LSTM keeps, by its forget bias", "| forget bias |"))),
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
