"""Many runs: every combination of some settings, each in a folder of its own, in processes by joblib.

A sweep has no state but the folders of its runs. The same call, after a kill or with more seeds, skips the runs that
are done and resumes the others; each run has the same bits as one that trains alone.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minigrad.engine.messages import brief
from minigrad.files.atomic import CheckpointError, file_errors, read_json
from minigrad.training.folder import CONFIG, RESULT, InUse
from minigrad.training.run import Run
from minigrad.training.settings import Settings, fits
from minigrad.training.trainer import Diverged
from minigrad.training.user_code import split_name
from minigrad.training.verify import read_config, without_paths

PARENT = os.getppid()  # in a worker, the process that started it
PATIENCE = 10.0  # seconds to wait for a run that another process, such as a worker of a killed sweep, still saves
COUNTED = {"metric": float, "baseline": float, "solved": bool, "steps": int, "metric_name": str}  # types in result.json

Point = tuple[Path, dict[str, Any], Settings]  # (folder, values that the sweep varies, settings)


class WorkerDied(RuntimeError):
    """A process of a sweep was killed from outside."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The result of a sweep. `str` is its table: a row a combination, over all seeds.

    rows    a dict a run: folder, the values that vary, and the content of its result.json; or, for a run that has not
            ended, "failed" with the reason
    """

    rows: list[dict[str, Any]]
    varied: tuple[str, ...]
    higher_is_better: bool

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The rows of the runs that have not ended."""
        return [row for row in self.rows if "failed" in row]

    def table(self) -> list[dict[str, Any]]:
        """A dict a combination of the values that vary, without the seed: these values, and mean and worst metric, the
        number solved, failed and all runs, and the mean number of steps. Mean and worst are of the runs that ended."""
        names = [name for name in self.varied if name != "seed"]
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault(repr([row[name] for name in names]), []).append(row)
        made = []
        for rows in groups.values():
            ended = [row for row in rows if "failed" not in row]
            metrics = [row["metric"] for row in ended]
            worst = (min if self.higher_is_better else max)(metrics, default=np.nan)
            made.append({name: rows[0][name] for name in names} | {
                "mean": float(np.mean(metrics)) if metrics else np.nan, "worst": float(worst),
                "solved": sum(row["solved"] for row in ended), "failed": len(rows) - len(ended), "runs": len(rows),
                "steps": float(np.mean([row["steps"] for row in ended])) if ended else np.nan})
        return made

    def __str__(self) -> str:
        ended = [row for row in self.rows if "failed" not in row]
        names = [name for name in self.varied if name != "seed"]
        head = [*names, "mean", "worst", "solved", "steps"]
        lines = [head] + [
            [*(label(row[name]) for name in names), f"{row['mean']:.4g}", f"{row['worst']:.4g}",
             f"{row['solved']} of {row['runs']}" + (f", {row['failed']} failed" if row["failed"] else ""),
             f"{row['steps']:.0f}"] for row in self.table()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(word.ljust(n) if i < len(names) else word.rjust(n)
                          for i, (word, n) in enumerate(zip(line, widths))).rstrip() for line in lines]
        if ended:
            text.insert(0, f"{ended[0]['metric_name']}, without memory {ended[0]['baseline']:.4g}")
        return "\n".join(text)


def sweep(task: str, out: str | Path, *, jobs: int = -1, report: Callable[[str], None] | None = None,
          bar: bool = False, **settings: Any) -> Sweep:
    """Train every combination of settings, each in a folder of `out`, and return their results.

    ```python
    print(sweep("adding", "runs/adding", cell=["rnn", "gru", "lstm"], seed=range(10), options={"length": 20}))
    ```
    task, settings  those of `Settings.for_task`. A list, a range or an array lists values to combine; a tuple is one
                    value
    jobs            number of processes; -1: one a core, or in `joblib.parallel_config` all that its backend has, which
                    may be a cluster
    report, bar     a function that gets a line for each run that ends; a bar over the runs on stderr

    Runs that are done are skipped, others resumed. A run that diverges or cannot be saved does not stop the others. The
    gradients of each combination are checked before it trains. Without joblib the runs go one after another.

    Raises ValueError, before any training, for settings that do not define a run, wrong gradients, and a folder that
    contains a run of other settings; KeyboardInterrupt after Ctrl-C and WorkerDied after the death of a process, with
    all runs saved.
    """
    points = grid(task, Path(out).absolute(), settings)
    higher = points[0][2].make_task().higher_is_better
    rows = {folder: result for folder, _, settings in points if (result := ended(folder, settings)) is not None}
    todo = [point for point in points if point[0] not in rows]
    check(todo)
    by_folder = {folder: {"folder": str(folder), **values} for folder, values, _ in points}
    with tqdm(total=len(points), initial=len(rows), unit="run", dynamic_ncols=True,
              bar_format="{percentage:3.0f}%|{bar}| {n}/{total} runs [{elapsed}{postfix}]") if bar else nullcontext() \
            as shown:
        if rows and report is not None:
            report(f"{len(rows)} of {len(points)} runs are done")
        for folder, result in run_all(todo, jobs, report):
            rows[folder] = result
            if result.get("failed") == INTERRUPTED:
                raise KeyboardInterrupt
            if shown is not None:
                shown.set_postfix_str(describe(folder, result)[:40], refresh=False)
                shown.update()
            elif report is not None:
                report(describe(folder, result))
    return Sweep([by_folder[folder] | rows[folder] for folder, _, _ in points], tuple(points[0][1]), higher)


def grid(task: str, out: Path, given: dict[str, Any]) -> list[Point]:
    """Every combination of the settings that are lists. Raises ValueError for an empty or a repeated one."""
    axes = {name: list(values) for name, values in given.items() if isinstance(values, (list, range, np.ndarray))}
    for name, values in axes.items():
        if not values:
            raise ValueError(f"{name} lists no value: give one or more")
    points = []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values))
        settings = Settings.for_task(task, **{**given, **point})
        folder = out / (",".join(f"{name}={label(value)}" for name, value in point.items()) or "run")
        points.append((folder, {name: getattr(settings, name) for name in point}, settings))
    names = [folder.name for folder, _, _ in points]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two combinations would be called {twice}: give each value once, and cells different names")
    return points


def label(value: Any) -> str:
    """A value in the name of a folder: a user's cell by its class, options by their items."""
    if isinstance(value, dict):
        return "+".join(f"{name}-{label(one)}" for name, one in value.items()) or "none"
    named = split_name(value) if isinstance(value, str) else None
    return re.sub(r"[^\w.+-]", "_", named[1] if named else str(value))


def check(points: Sequence[Point]) -> None:
    """Build the model of each combination once and check its gradients; seed and lr do not matter for that."""
    seen = set()
    for _, _, settings in points:
        key = repr(replace(settings, seed=0, lr=1.0))
        if key not in seen:
            seen.add(key)
            if not (found := settings.trainer().gradcheck()).ok:
                raise ValueError(f"the gradients of {settings.cell} are wrong: {found.summary}; minigrad gradcheck "
                                 f"{settings.cell} names the rule")


def ended(folder: Path, settings: Settings) -> dict[str, Any] | None:
    """The result of a run that is done, else None. Raises CheckpointError if the folder contains a run with other
    settings, or a result that is damaged."""
    if (folder / CONFIG).exists():
        found = read_config(folder / CONFIG)["settings"]
        ours, theirs = without_paths(replace(settings, loops=found.loops)), without_paths(found)
        if ours != theirs:
            name = next(name for name in ours if ours[name] != theirs[name])
            raise CheckpointError(f"{folder} contains a run with other settings ({name} is {brief(theirs[name])}, not "
                                  f"{brief(ours[name])}): use another folder")
    if not (folder / RESULT).exists():
        return None
    with file_errors(folder / RESULT, "cannot be read"):
        text = (folder / RESULT).read_bytes()
    try:
        result = read_json(text)
    except ValueError:
        result = None
    if not isinstance(result, dict) or not all(fits(result.get(name), kind) for name, kind in COUNTED.items()):
        raise CheckpointError(f"{folder / RESULT} is damaged: remove it, and the run measures its model again")
    return result


INTERRUPTED = "interrupted"


def run_all(points: Sequence[Point], jobs: int, report: Callable[[str], None] | None
            ) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield (folder, result) of each run as it ends."""
    if not points:
        return
    if jobs != 1 and len(points) > 1:
        try:
            import joblib
        except ImportError:
            (report or warnings.warn)("joblib is not installed, so the runs go one after another: pip install joblib")
        else:
            parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
            calls = (joblib.delayed(run_point)(folder, settings, os.getpid()) for folder, _, settings in points)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "[0-9]+ tasks", UserWarning)  # after Ctrl-C: all of them are saved
                try:
                    yield from parallel(calls)
                except BrokenExecutor:
                    raise WorkerDied("a worker process was killed, as when memory runs out; the runs are saved, and "
                                     "the same sweep continues them, if need be with fewer jobs") from None
            return
    for folder, _, settings in points:
        yield run_point(folder, settings, os.getpid())


def run_point(folder: Path, settings: Settings, owner: int) -> tuple[Path, dict[str, Any]]:
    """Begin or resume one run, and train it to its end. `owner` is the process of the sweep; another one is a worker,
    which ends with the process that started it."""
    if os.getpid() != owner:
        end_with_parent()
    waited = time.monotonic()
    while True:
        try:
            if (result := ended(folder, settings)) is not None:
                return folder, result
            # the user named the cell in this sweep, and `ended` has compared the settings
            with Run.resume(folder, trust=True) if (folder / CONFIG).exists() else Run.new(settings, folder) as run:
                result = run.go()
            return folder, result if run.trainer.ended in ("done", "solved") else {"failed": INTERRUPTED}
        except InUse as problem:
            if time.monotonic() - waited > PATIENCE:
                return folder, {"failed": str(problem)}
            time.sleep(0.1)
        except (Diverged, ValueError) as problem:
            return folder, {"failed": str(problem)}
        except MemoryError as problem:
            return folder, {"failed": f"there is not enough memory ({problem})"}


@functools.cache
def end_with_parent() -> None:
    """Watch the parent of this process, once a process, in a thread. When it is gone, SIGTERM ends an idle worker, and
    lets a run finish its step and save itself first."""
    def watch() -> None:
        while os.getppid() == PARENT:
            time.sleep(0.5)
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
    threading.Thread(target=watch, daemon=True).start()


def describe(folder: Path, result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"{folder.name}: failed, {result['failed']}"
    return f"{folder.name}: {result['metric_name']} {result['metric']:.4g}, " \
           f"{'solved' if result['solved'] else 'not solved'} in {result['steps']} steps"
