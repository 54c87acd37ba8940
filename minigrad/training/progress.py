"""Show the progress of a training as a bar or as ten lines."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

BAR = 10  # minimum width of the bar itself


class Progress:
    """A bar on stderr, or ten lines for `report`: the step, the mean loss of the last fifty steps, the metric where it
    was measured (the bar keeps the last one), and the speed. The bar fits its terminal."""

    def __init__(self, trainer: Any, report: Callable[[str], None] | None, bar: bool):
        self.trainer, self.report = trainer, report
        self.measured = ""
        self.bar = tqdm(total=trainer.steps, initial=trainer.step, dynamic_ncols=True, bar_format=
                        "{percentage:3.0f}%|{bar}| {n}/{total} [{elapsed}<{remaining}{postfix}]") if bar else None

    def __enter__(self) -> Progress:
        self.started = self.last = time.perf_counter()
        self.tokens = self.trainer.tokens
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, row: dict) -> float:
        """Show a step and return the seconds it took."""
        now, trainer = time.perf_counter(), self.trainer
        seconds, self.last = now - self.last, now
        line = self.report and not self.bar and trainer.step % max(1, trainer.steps // 10) == 0
        if line or self.bar:
            loss = f"loss {np.mean([row['loss'] for row in trainer.rows[-50:]]):.4g}"
            speed = f"{(trainer.tokens - self.tokens) / (now - self.started):,.0f} tokens/s"
            metric = row.get("metric")
            measured = "" if metric is None else f"{getattr(trainer.task, 'metric_name', 'metric')} {metric:.4g}"
            if line:
                start = f"step {trainer.step} of {trainer.steps}: {loss}"
                self.report(", ".join(filter(None, (start, measured, speed))))
            else:
                self.measured = measured or self.measured
                self.bar.set_postfix_str(self.fitted([loss, self.measured, speed]), refresh=False)
                self.bar.update()
        return seconds

    def fitted(self, parts: list[str]) -> str:
        """The parts in order of importance, as far as they fit beside the bar; a long name of a metric becomes
        "metric"."""
        total = self.trainer.steps
        left = shutil.get_terminal_size().columns - len(f"100%|{'':{BAR}}| {total}/{total} [00:00<00:00, ]")
        if len(", ".join(parts[:2])) > left:
            parts = [parts[0], f"metric {parts[1].rpartition(' ')[2]}" if parts[1] else "", parts[2]]
        shown = ""
        for part in filter(None, parts):
            longer = f"{shown}, {part}" if shown else part
            if len(longer) > left:
                break
            shown = longer
        return shown
