"""Settings: the trainers that they build, and the values that they refuse."""

import json

import numpy as np
import pytest

from minigrad.tasks import TASKS
from minigrad.training.settings import OPTIMIZERS, Settings


@pytest.mark.parametrize("task", TASKS)
def test_the_recipe_of_every_task_builds_and_runs(task, tmp_path):
    options = {}
    if task == "text":
        options = {"file": tmp_path / "text.txt"}
        options["file"].write_text("abcdefgh" * 40)
    settings = Settings.for_task(task, options=options, steps=1, batch=2, hidden=3)
    trainer = settings.trainer()
    assert np.isfinite(trainer.run()["loss"]).all()
    assert Settings.of(**json.loads(json.dumps(settings.as_dict()))) == settings  # through config.json


def test_given_settings_override_the_recipe():
    recipe = Settings.for_task("temporal-order")
    assert recipe.cell == "lstm" and recipe.cell_options and recipe.lr == TASKS["temporal-order"].recipe["lr"]
    other = Settings.for_task("temporal-order", cell="rnn", lr=0.5, bptt=(2, 5))
    assert (other.cell, other.lr, other.cell_options, other.bptt) == ("rnn", 0.5, {}, [2, 5])
    assert other.trainer().bptt == (2, 5)
    other = Settings.for_task("copy", optimizer="adagrad")  # it has no betas, which the recipe sets for Adam
    assert other.optimizer_options == {} != Settings.for_task("copy").optimizer_options and other.cell_options
    assert Settings.for_task("copy", optimizer="adam") == Settings.for_task("copy")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_and_schedules(optimizer):
    trainer = Settings.for_task("parity", optimizer=optimizer, optimizer_options={"weight_decay": 0.1}, lr=0.2,
                                schedule="cosine", lr_final=0.1, steps=10, warm_up=2).trainer()
    assert type(trainer.optimizer) is OPTIMIZERS[optimizer] and trainer.optimizer.weight_decay == 0.1
    assert [trainer.schedule(step) for step in (0, 5, 10)] == pytest.approx([0.1, 0.15, 0.1])


def test_the_seed_determines_every_random_number():
    def drawn(seed):
        trainer = Settings.for_task("adding", seed=seed).trainer()
        return trainer.model.recurrent.layers["l0"].W.data, trainer.task.batch(trainer.rng, 2).x
    one, same, other = drawn(0), drawn(0), drawn(1)
    for a, b, c in zip(one, same, other):
        assert (a == b).all() and not (a == c).all()


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(cell="cells.py:Mine", options={"file": "text.txt"})
    assert settings.cell == f"{tmp_path}/cells.py:Mine" and settings.options == {"file": f"{tmp_path}/text.txt"}


@pytest.mark.parametrize("given, sentence", [
    ({"task": "ading"}, "there is no task 'ading': did you mean adding?"),
    ({"optimizer": "adm"}, "there is no optimizer 'adm': did you mean adam?"),
    ({"optimizer": "lbfgs"}, "there is no optimizer 'lbfgs': sgd, rmsprop, adagrad, adam, adamw"),
    ({"schedule": "linear"}, "there is no schedule 'linear'"),
    ({"dtype": "float16"}, "there is no dtype 'float16': did you mean float"),
    ({"hiden": 3}, "there is no setting 'hiden': did you mean hidden?"),
    ({"hidden": 0}, "hidden is a whole number above 0, not 0"),
    ({"steps": 1.5}, "steps is a whole number, not 1.5"),
    ({"options": {"lenght": 5}}, "the task adding has no option 'lenght': did you mean length?"),
    ({"options": {"length": 1}}, "adding takes a whole number of 2 or more as length, not 1"),
    ({"options": {"a": print}}, "options cannot be written to config.json: Object of type builtin_function_or_method"),
    ({"bptt": (5, 2)}, "bptt is (k1, k2)"),
    ({"cell": "gnu"}, "'gnu' is neither rnn, gru, lstm nor FILE.py:Class: did you mean gru?"),
    ({"lr": -1.0}, "Adam takes lr as a finite number ≥ 0, not -1.0"),
    ({"optimizer_options": {"beta": 1}}, "Adam has no option beta (did you mean betas?): it takes "),
    ({"cell_options": {"peepholes": True}}, "the cell lstm has no option peepholes: it takes "),
])
def test_unknown_names_are_refused_in_a_sentence(given, sentence):
    with pytest.raises(ValueError) as error:
        Settings.for_task(**{"task": "adding", **given}).trainer()
    assert sentence in str(error.value)


@pytest.mark.parametrize("given, sentence", [
    ({"cell": None}, "cell is a string, not None"), ({"cell": ["lstm"]}, "cell is a string, not ['lstm']"),
    ({"cell": int}, "a run reloads its cell from a file: give cell as FILE.py:int, not the class itself"),
    ({"task": ["text"]}, "task is a string"), ({"options": None}, "options is a dict, not None"),
    ({"seed": 1.5}, "seed is a whole number, not 1.5"), ({"seed": -1}, "seed is a whole number from 0 on, not -1"),
    ({"hidden": True}, "hidden is a whole number, not True"), ({"lr": True}, "lr is a finite number, not True"),
    ({"lr": float("nan")}, "lr cannot be written to config.json"), ({"lr": 10**400}, "lr is a finite number, not 1000"),
    ({"clip": 0}, "clip is a number above 0, or None for no limit, not 0"), ({"clip": "1"}, "clip is a finite number"),
    ({"until_solved": 1}, "until_solved is True or False, not 1"), ({"layers": 10**9}, "layers is at most 1,000, not"),
    ({"bptt": [1, 2, 3]}, "bptt is a whole number, a pair (k1, k2) or None, not [1, 2, 3]"),
    ({"bptt": "ab"}, "bptt is a whole number or a pair of whole numbers or None, not 'ab'"),
    ({"validate_every": 0}, "validate_every is a whole number above 0, not 0"),
    ({"options": {"length": "x"}}, "the task adding: length is a whole number, not 'x'"),
    ({"task": "parity", "options": {"only_at_end": 1}}, "the task parity: only_at_end is True or False, not 1"),
    ({"task": "text", "options": {"file": 5}}, "the task text: file is a string or a path or None, not 5"),
    ({"cell_options": {"rng": 3}}, "a model with the cell lstm cannot be built: "),
    ({"optimizer_options": {"lr": 3}}, "adam cannot be built: "),
    ({"optimizer_options": {"eps": []}}, "Adam takes eps as a finite number"),
])
def test_wrong_types_and_values_are_refused_in_a_sentence(given, sentence):
    with pytest.raises(ValueError) as error:
        Settings.for_task(**{"task": "adding", **given}).trainer()
    assert sentence in str(error.value) and len(str(error.value)) < 600


def test_numpy_numbers_are_accepted():
    settings = Settings.for_task("adding", lr=np.float32(0.5), hidden=np.int64(3), until_solved=np.bool_(True))
    assert (type(settings.lr), type(settings.hidden), settings.until_solved) == (float, int, True)
