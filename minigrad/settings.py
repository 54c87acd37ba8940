"""The settings of a training: from names and numbers, as a command line or a file has them, to a `Trainer`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
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
    """What a training is made of, as config.json has it. `for_task` begins with the recipe of a task.

    task, options   a name in TASKS, and keywords of its class, as {"length": 200}
    cell, hidden, layers, dropout, embedding, dtype, cell_options   of `SequenceModel`
    batch, steps, bptt, clip, validate_every, until_solved          of `Trainer`
    optimizer, lr, optimizer_options     a name in OPTIMIZERS, its step size, and more of its keywords
    schedule, lr_final, warm_up          "constant", or "cosine", on which lr falls to lr_final; it rises to its value
                                         in the first warm_up steps
    seed, checkpoint_every               of every random number; steps, and there is a checkpoint at the end in any case
    threads                              of NumPy's matrix products: with others, the last digits may be others

    Raises ValueError, in a sentence, for what there is not. A path in cell or options is made absolute.
    """

    task: str = "text"
    options: dict[str, Any] = field(default_factory=dict)
    cell: str = "lstm"
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.0
    embedding: int | None = None
    dtype: str = "float32"
    cell_options: dict[str, Any] = field(default_factory=dict)
    batch: int = 32
    steps: int = 1000
    bptt: Any = None
    clip: float | None = 1.0
    validate_every: int | None = 100
    until_solved: bool = True
    optimizer: str = "adam"
    lr: float = 1e-3
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    lr_final: float = 0.0
    warm_up: int = 0
    seed: int = 0
    checkpoint_every: int = 100
    threads: int = 1

    def __post_init__(self) -> None:
        self.known("task", TASKS)
        self.known("optimizer", OPTIMIZERS)
        self.known("schedule", SCHEDULES)
        self.known("dtype", ("float32", "float64"))
        for name in ("hidden", "layers", "batch", "steps", "checkpoint_every", "threads"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a whole number above 0, not {value!r}")
        file, colon, name = self.cell.rpartition(".py:")
        if colon:
            self.cell = f"{Path(file).absolute()}{colon}{name}"
        if self.options.get("file") is not None:
            self.options = self.options | {"file": str(Path(self.options["file"]).absolute())}
        for one in fields(self):  # as JSON gives it back: a tuple is a list
            try:
                setattr(self, one.name, json.loads(json.dumps(getattr(self, one.name))))
            except TypeError as problem:
                raise ValueError(f"{one.name} cannot be written to config.json: {problem}") from None

    def known(self, what: str, names: Iterable[str]) -> None:
        name = getattr(self, what)
        if name not in names:
            raise ValueError(f"there is no {what} {name!r}{nearest(str(name), names) or ': ' + ', '.join(names)}")

    @classmethod
    def for_task(cls, task: str, **given: Any) -> Settings:
        """The recipe of a task, with what is given in its place. What it says of its cell goes with another cell, and
        what it says of its optimiser with another."""
        recipe = dict(TASKS[task].recipe) if task in TASKS else {}
        for name in ("cell", "optimizer"):
            own = recipe.get(name, getattr(cls, name))
            if given.get(name, own) != own:
                recipe.pop(f"{name}_options", None)
        return cls.of(task=task, **{**recipe, **given})

    @classmethod
    def of(cls, **settings: Any) -> Settings:
        """Settings by name. Raises ValueError for a name that there is not."""
        names = [one.name for one in fields(cls)]
        for name in settings:
            if name not in names:
                raise ValueError(f"there is no setting {name!r}{nearest(name, names)}")
        return cls(**settings)

    as_dict = asdict

    # -- what they describe -----------------------------------------------------------------------------------

    def trainer(self) -> Trainer:
        """A trainer at its first step."""
        of_model, of_data = np.random.SeedSequence(self.seed).spawn(2)
        task = self.made_task()
        model = self.model(task.inputs, task.outputs, task.symbols, rng=of_model)
        try:
            optimizer = OPTIMIZERS[self.optimizer](model.parameters(), self.lr, **self.optimizer_options)
        except TypeError as problem:
            raise ValueError(f"{self.optimizer} cannot be built: {problem}") from None
        return Trainer(model, task, optimizer, steps=self.steps, batch=self.batch, schedule=self.lr_schedule(),
                       clip=self.clip, bptt=self.bptt, rng=np.random.default_rng(of_data),
                       validate_every=self.validate_every, until_solved=self.until_solved)

    def made_task(self) -> Any:
        task = TASKS[self.task]
        known = [one.name for one in fields(task)]
        for name in self.options:
            if name not in known:
                raise ValueError(f"the task {self.task} has no option {name!r}{nearest(name, known)}")
        return task(**self.options)

    def model(self, inputs: int, outputs: int, symbols: bool, rng: Any) -> SequenceModel:
        return SequenceModel(inputs, outputs, cell=self.cell, hidden=self.hidden, layers=self.layers,
                             dropout=self.dropout, symbols=symbols, embedding=self.embedding, dtype=self.dtype,
                             rng=rng, **self.cell_options)

    def lr_schedule(self) -> optim.Schedule:
        schedule = optim.constant(self.lr)
        if self.schedule == "cosine":
            schedule = optim.cosine(self.lr, self.steps, self.lr_final)
        return optim.warm_up(self.warm_up, schedule)
