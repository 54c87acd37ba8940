"""Train a run on longer than its settings say: more steps, and another lr, from some step on.

config.json keeps the settings that the run began with, and lists its extensions beside them. What lr a step has is
therefore a function of the step alone, and a run that is killed and resumed has the same bits as one that is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from minigrad import optim
from minigrad.engine.messages import brief
from minigrad.nn.checks import is_whole
from minigrad.training.settings import RANGES, Settings
from minigrad.training.trainer import Trainer

MOST = RANGES["steps"][1]


@dataclass(frozen=True)
class Extension:
    """A change of a run after its step `after`: the number of all steps, and lr, or None to keep that of before.

    until_solved  whether the run still stops when its task is solved; not if it had been solved before
    """

    after: int
    steps: int
    lr: float | None
    until_solved: bool

    def __post_init__(self) -> None:
        if not (is_whole(self.after, 0) and is_whole(self.steps, self.after + 1) and self.steps <= MOST):
            raise ValueError(f"steps is the number of all steps of the run, more than the {brief(self.after)} that it "
                             f"has made and at most {MOST:,}, not {brief(self.steps)}")
        if self.lr is not None and not (type(self.lr) in (int, float) and 0 < self.lr < math.inf):
            raise ValueError(f"lr is a number above 0, not {brief(self.lr)}")
        if type(self.until_solved) is not bool:
            raise ValueError(f"until_solved is True or False, not {brief(self.until_solved)}")


def next_extension(settings: Settings, before: Sequence[Extension], trainer: Trainer, steps: int | None,
                   lr: float | None) -> Extension | None:
    """The extension of a run at its current step; None if steps and lr are what the run has already. Raises ValueError
    if the run cannot be extended by them."""
    last = before[-1] if before else None
    replaced = last if last is not None and last.after == trainer.step else None
    own = settings.lr if last is None else last.lr
    if steps in (None, trainer.steps) and lr in (None, own):
        return None
    if steps is None and trainer.step >= trainer.steps:
        raise ValueError(f"it has made all of its {trainer.steps} steps: give steps too, the new number of all of them")
    steps = trainer.steps if steps is None else steps
    lr = replaced.lr if lr is None and replaced is not None else lr
    made = Extension(trainer.step, steps, lr, trainer.until_solved and trainer.ended != "solved")
    if settings.schedule == "cosine" and lr is None and steps > trainer.steps:
        raise ValueError(f"its cosine schedule brings lr down to {settings.lr_final:g} at step {trainer.steps}: give "
                         "lr too, from which it comes down again")
    return made


def extended_schedule(settings: Settings, extensions: Sequence[Extension]) -> optim.Schedule:
    """lr as a function of the step: the settings' own schedule, and from each extension with an lr on one of the same
    kind, without warm-up, over the steps that were left then."""
    parts = [(0, settings.lr_schedule())]
    parts += [(one.after, settings.schedule_of(one.lr, one.steps - one.after))
              for one in extensions if one.lr is not None]

    def schedule(step: int) -> float:
        start, current = next(part for part in reversed(parts) if part[0] <= step)
        return current(step - start)
    return schedule


def read_extensions(given: Any) -> list[Extension]:
    """The extensions in a config.json, which may come from somebody else. Raises ValueError if they are not valid."""
    names = {one.name for one in fields(Extension)}
    if not isinstance(given, list) or not all(isinstance(one, dict) and one.keys() == names for one in given):
        raise ValueError(f"extensions cannot be {brief(given)}")
    made = [Extension(**one) for one in given]
    if any(a.after >= b.after for a, b in pairwise(made)):
        raise ValueError("extensions must be in the order of their steps")
    return made
