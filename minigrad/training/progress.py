"""Show the progress of a training as a bar or as ten lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm


class Progress:
    """A bar on stderr, or ten lines for `report`: the step, the mean loss of the last fifty steps, and the speed. Where
    the metric was measured, it is shown in the line, or in a separate line above the bar."""

    def __init__(self, trainer: Any, report: Callable[[str], None] | None, bar: bool):
        self.trainer, self.report = trainer, report
        self.bar = tqdm(total=trainer.steps, initial=trainer.step, unit="step", dynamic_ncols=True) if bar else None

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
            loss = np.mean([row["loss"] for row in trainer.rows[-50:]])
            rate = (trainer.tokens - self.tokens) / (now - self.started)
            name, metric = getattr(trainer.task, "metric_name", "metric"), row.get("metric")
            measured = "" if metric is None else f", {name} {metric:.4g}"
            text = f"step {trainer.step} of {trainer.steps}: loss {loss:.4g}{measured}, {rate:,.0f} tokens/s"
            if line:
                self.report(text)
            else:
                if measured:
                    self.bar.write(text, file=self.bar.fp)
                self.bar.set_postfix_str(f"loss {loss:.4g}, {rate:,.0f} tokens/s", refresh=False)
                self.bar.update()
        return seconds
