"""Settings of a training: build a `Trainer` from the names and numbers of a command line or a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from minigrad import optim
from minigrad.data import Sequences
from minigrad.engine.messages import brief, nearest, refusing
from minigrad.tasks import TASKS
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.trainer import Trainer
from minigrad.training.user_code import split_name

KNOWN_TASKS = TASKS | {Sequences.name: Sequences}
OPTIMIZERS = {"sgd": optim.SGD, "rmsprop": optim.RMSprop, "adagrad": optim.Adagrad, "adam": optim.Adam,
              "adamw": optim.AdamW}
CHOICES = {"task": KNOWN_TASKS, "optimizer": OPTIMIZERS, "schedule": ("constant", "cosine"),
           "dtype": ("float32", "float64")}
RANGES = {"hidden": (1, 2**20), "layers": (1, 1000), "embedding": (1, 2**20), "batch": (1, 2**24), "steps": (1, 10**12),
          "validate_every": (1, 10**12), "checkpoint_every": (1, 10**12), "warm_up": (0, 10**12), "threads": (1, 1024),
          "seed": (0, 2**128)}
KINDS = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a string", dict: "a dict",
         list: "a pair of whole numbers", Path: "a path", NoneType: "None"}


@dataclass
class Settings:
    """All settings of a training, as config.json stores them. `for_task` starts from the recipe of a task.

    task, options   a name in KNOWN_TASKS, and keywords of its class, such as {"length": 200}
    cell, hidden, layers, dropout, embedding, dtype, cell_options   of `SequenceModel`
    batch, steps, bptt, clip, validate_every, until_solved          of `Trainer`
    optimizer, lr, optimizer_options     a name in OPTIMIZERS, its step size, and its other keywords
    schedule, lr_final, warm_up          "constant", or "cosine" down to lr_final; lr rises during the first warm_up
                                         steps
    seed                                 of every random number
    checkpoint_every                     steps between checkpoints; the end always has one
    threads                              of NumPy's matrix products; other numbers may change the last digits
    loops                                over time: "numpy", or the compiler of their C; a new run sets it

    Raises ValueError for an unknown name and for a value of the wrong type or out of range. A path in cell or options
    is made absolute. A user's cell is named by its file, which `trainer` and `model` run.
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
    bptt: int | list[int] | None = None
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
    loops: str = "numpy"

    def __post_init__(self) -> None:
        if isinstance(self.cell, type):
            raise ValueError(f"a run reloads its cell from a file: give cell as FILE.py:{self.cell.__name__}, not the "
                             "class itself")
        for one in fields(self):  # as JSON returns it: a tuple becomes a list
            setattr(self, one.name, as_json(one.name, getattr(self, one.name)))
        refuse_wrong_types("", get_type_hints(type(self)), asdict(self))
        for name, known in CHOICES.items():
            refuse_unknown(f"there is no {name}", [getattr(self, name)], known)
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is a whole number {'above 0' if least else 'from 0 on'}, not {brief(value)}")
            if value is not None and value > most:
                raise ValueError(f"{name} is at most {most:,}, not {brief(value)}")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip is a number above 0, or None for no limit, not {brief(self.clip)}")
        if isinstance(self.bptt, list) and len(self.bptt) != 2:
            raise ValueError(f"bptt is a whole number, a pair (k1, k2) or None, not {brief(self.bptt)}")
        if (named := split_name(self.cell)) is not None:
            self.cell = f"{Path(named[0]).absolute()}:{named[1]}"
        hints = get_type_hints(KNOWN_TASKS[self.task])  # an unknown option is refused in make_task
        known = {name: value for name, value in self.options.items() if name in hints}
        refuse_wrong_types(f"the task {self.task}: ", hints, known)
        if self.options.get("file") is not None:
            self.options = self.options | {"file": str(Path(self.options["file"]).absolute())}

    @classmethod
    def for_task(cls, task: str, **given: Any) -> Settings:
        """The task's recipe overridden by `given`. If the cell or the optimizer is overridden, the recipe's options
        for it are dropped."""
        recipe = dict(KNOWN_TASKS[task].recipe) if isinstance(task, str) and task in KNOWN_TASKS else {}
        for name in ("cell", "optimizer"):
            own = recipe.get(name, getattr(cls, name))
            if given.get(name, own) != own:
                recipe.pop(f"{name}_options", None)
        return cls.of(task=task, **{**recipe, **given})

    @classmethod
    def of(cls, **settings: Any) -> Settings:
        """Settings by name. Raises ValueError for an unknown name."""
        refuse_unknown("there is no setting", settings, [one.name for one in fields(cls)])
        return cls(**settings)

    as_dict = asdict

    @property
    def cell_file(self) -> str | None:
        """The Python file of a user's cell; building the model runs it."""
        named = split_name(self.cell)
        return named and named[0]

    # -- building -----------------------------------------------------------------------------------------------

    def trainer(self) -> Trainer:
        """A trainer at its first step."""
        of_model, of_data = np.random.SeedSequence(self.seed).spawn(2)
        task = self.make_task()
        model = self.model(**task.sizes, rng=of_model)
        with refusing(f"{self.optimizer} cannot be built"):
            optimizer = OPTIMIZERS[self.optimizer](model.parameters(), self.lr, **self.optimizer_options)
        return Trainer(model, task, optimizer, steps=self.steps, batch=self.batch, schedule=self.lr_schedule(),
                       clip=self.clip, bptt=self.bptt, rng=np.random.default_rng(of_data),
                       validate_every=self.validate_every, until_solved=self.until_solved)

    def make_task(self) -> Any:
        task = KNOWN_TASKS[self.task]
        refuse_unknown(f"the task {self.task} has no option", self.options, [one.name for one in fields(task)])
        with refusing(f"the task {self.task} cannot be made"):
            return task(**self.options)

    def model(self, *, rng: Any, **sizes: Any) -> SequenceModel:
        """A model of these `Task.sizes`."""
        with refusing(f"a model with the cell {self.cell} cannot be built"):
            return SequenceModel(**sizes, cell=self.cell, hidden=self.hidden, layers=self.layers, dropout=self.dropout,
                                 embedding=self.embedding, dtype=self.dtype, rng=rng, **self.cell_options)

    def lr_schedule(self) -> optim.Schedule:
        return optim.warm_up(self.warm_up, self.schedule_of(self.lr, self.steps))

    def schedule_of(self, lr: float, steps: int) -> optim.Schedule:
        """The kind of schedule of these settings, from lr, over this many steps, without warm-up."""
        return optim.cosine(lr, steps, self.lr_final) if self.schedule == "cosine" else optim.constant(lr)


# -- checking values --------------------------------------------------------------------------------------------------


def refuse_unknown(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError, with the nearest known name or all of them, for the first name that is not known."""
    for name in names:
        if name not in known:
            near = nearest(name, known) or f": {', '.join(known) or 'it has none'}"
            raise ValueError(f"{what} {brief(name)}{near}")


def refuse_wrong_types(whose: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raises ValueError for the first value whose type differs from its hint."""
    for name, value in values.items():
        if not fits(value, hint := hints[name]):
            kinds = [KINDS[get_origin(kind) or kind] for kind in members(hint)]
            raise ValueError(f"{whose}{name} is {' or '.join(kinds)}, not {brief(value)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has a declared type. An int fits float; True and False are not numbers; NaN and infinity never
    fit."""
    if isinstance(hint, UnionType):
        return any(fits(value, kind) for kind in members(hint))
    kind = get_origin(hint) or hint
    if kind is Any:
        return True
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if kind is list:
        return type(value) is list and all(fits(one, *get_args(hint)) for one in value)
    return type(value) is int if kind is int else isinstance(value, kind)


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, int and NoneType for `int | None`; another hint itself."""
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def as_json(name: str, value: Any) -> Any:
    """The value after a round trip through JSON. Raises ValueError if it cannot be written as JSON."""
    def plain(thing: Any) -> Any:
        if isinstance(thing, (np.bool_, np.number)):
            return thing.item()
        if isinstance(thing, Path):
            return str(thing)
        raise TypeError(f"Object of type {type(thing).__name__} is not JSON serializable")
    try:
        return json.loads(json.dumps(value, default=plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"{name} cannot be written to config.json: {problem}") from None
