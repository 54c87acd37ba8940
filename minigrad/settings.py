"""The settings of a training: from names and numbers, as a command line or a file has them, to a `Trainer`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from minigrad import optim
from minigrad.model import SequenceModel
from minigrad.names import nearest
from minigrad.tasks import TASKS
from minigrad.train import Trainer

OPTIMIZERS = {"sgd": optim.SGD, "rmsprop": optim.RMSprop, "adagrad": optim.Adagrad, "adam": optim.Adam,
              "adamw": optim.AdamW}
SCHEDULES = ("constant", "cosine")


@dataclass
class Settings:
    """What a training is made of, as config.json has it. The defaults of a task are its `recipe`: see `for_task`.

    task, options          a name in TASKS, and keywords of its class, as {"length": 200}
    cell, cell_options     of `SequenceModel`, as hidden, layers, dropout, embedding, dtype
    batch, steps, clip, bptt, validate_every, until_solved   of `Trainer`
    optimizer, optimizer_options, lr   a name in OPTIMIZERS, and its keywords
    schedule, lr_final, warm_up        "constant", or "cosine", on which lr falls to lr_final; it rises for the first
                                       warm_up steps
    seed                   of every random number
    checkpoint_every       steps; there is one at the end in any case
    """

    task: str = "text"
    options: dict[str, Any] = field(default_factory=dict)
    cell: str = "lstm"
    cell_options: dict[str, Any] = field(default_factory=dict)
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.0
    embedding: int | None = None
    dtype: str = "float32"
    batch: int = 32
    steps: int = 1000
    bptt: Any = None
    optimizer: str = "adam"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    lr: float = 1e-3
    schedule: str = "constant"
    lr_final: float = 0.0
    warm_up: int = 0
    clip: float | None = 1.0
    seed: int = 0
    validate_every: int | None = 100
    until_solved: bool = True
    checkpoint_every: int = 100

    @classmethod
    def for_task(cls, task: str, **given: Any) -> Settings:
        """The recipe of a task, with what is given in its place; what is None is not given.

        Raises ValueError for a task, or a setting, that there is not.
        """
        given = {name: value for name, value in given.items() if value is not None}
        return cls.checked(task=task, **{**task_class(task).recipe, **given})

    @classmethod
    def checked(cls, **settings: Any) -> Settings:
        names = [one.name for one in fields(cls)]
        for name in settings:
            if name not in names:
                raise ValueError(f"there is no setting {name!r}{nearest(name, names)}")
        made = cls(**settings)
        for what, name, known in (("optimizer", made.optimizer, OPTIMIZERS), ("schedule", made.schedule, SCHEDULES)):
            if name not in known:
                raise ValueError(f"there is no {what} {name!r}{nearest(name, known) or ': there is '}"
                                 f"{'' if nearest(name, known) else ', '.join(known)}")
        return made


def task_class(name: str) -> type:
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}{nearest(name, TASKS)}; `minigrad tasks` lists them")
    return TASKS[name]


def build(settings: Settings) -> Trainer:
    """The trainer of these settings, at its first step."""
    of_model, of_data = np.random.SeedSequence(settings.seed).spawn(2)
    try:
        task = task_class(settings.task)(**settings.options)
    except TypeError:
        known = [one.name for one in fields(task_class(settings.task))]
        raise ValueError(f"the task {settings.task} takes {', '.join(known) or 'no options'}, not "
                         f"{', '.join(settings.options)}") from None
    model = build_model(settings, task.inputs, task.outputs, task.symbols, of_model)
    optimizer = OPTIMIZERS[settings.optimizer](model.parameters(), settings.lr, **settings.optimizer_options)
    schedule = optim.constant(settings.lr)
    if settings.schedule == "cosine":
        schedule = optim.cosine(settings.lr, settings.steps, settings.lr_final)
    if settings.warm_up:
        schedule = optim.warm_up(settings.warm_up, schedule)
    return Trainer(model, task, optimizer, steps=settings.steps, batch=settings.batch, schedule=schedule,
                   clip=settings.clip, bptt=settings.bptt, rng=np.random.default_rng(of_data),
                   validate_every=settings.validate_every, until_solved=settings.until_solved)


def build_model(settings: Settings, inputs: int, outputs: int, symbols: bool, rng: Any) -> SequenceModel:
    return SequenceModel(inputs, outputs, cell=settings.cell, hidden=settings.hidden, layers=settings.layers,
                         dropout=settings.dropout, symbols=symbols, embedding=settings.embedding,
                         dtype=settings.dtype, rng=rng, **settings.cell_options)
