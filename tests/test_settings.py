"""Settings: what they build, and what they refuse."""

import json

import numpy as np
import pytest

from minigrad.settings import OPTIMIZERS, Settings
from minigrad.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_the_recipe_of_every_task_builds_and_runs(task, tmp_path):
    options = {}
    if task == "text":
        options = {"file": tmp_path / "text.txt"}
        options["file"].write_text("abcdefgh" * 40)
    settings = Settings.for_task(task, options=options, steps=1, batch=2, hidden=3)
    trainer = settings.trainer()
    assert np.isfinite(trainer.run()["loss"]).all()
    assert Settings.of(**json.loads(json.dumps(settings.as_dict()))) == settings  # as config.json has it


def test_what_is_given_stands_in_the_place_of_the_recipe():
    recipe = Settings.for_task("temporal-order")
    assert recipe.cell == "lstm" and recipe.cell_options and recipe.lr == TASKS["temporal-order"].recipe["lr"]
    other = Settings.for_task("temporal-order", cell="rnn", lr=0.5, bptt=(2, 5))
    assert (other.cell, other.lr, other.cell_options, other.bptt) == ("rnn", 0.5, {}, [2, 5])
    assert other.trainer().bptt == (2, 5)
    other = Settings.for_task("copy", optimizer="adagrad")  # of which betas, as the recipe has them, are no option
    assert other.optimizer_options == {} != Settings.for_task("copy").optimizer_options and other.cell_options
    assert Settings.for_task("copy", optimizer="adam") == Settings.for_task("copy")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_and_schedules(optimizer):
    trainer = Settings.for_task("parity", optimizer=optimizer, optimizer_options={"weight_decay": 0.1}, lr=0.2,
                                schedule="cosine", lr_final=0.1, steps=10, warm_up=2).trainer()
    assert type(trainer.optimizer) is OPTIMIZERS[optimizer] and trainer.optimizer.weight_decay == 0.1
    assert [trainer.schedule(step) for step in (0, 5, 10)] == pytest.approx([0.1, 0.15, 0.1])


def test_the_seed_is_that_of_every_random_number():
    def drawn(seed):
        trainer = Settings.for_task("adding", seed=seed).trainer()
        return trainer.model.recurrent.layers["l0"].W.data, trainer.task.batch(trainer.rng, 2).x
    one, same, other = drawn(0), drawn(0), drawn(1)
    for a, b, c in zip(one, same, other):
        assert (a == b).all() and not (a == c).all()


def test_paths_hold_wherever_one_goes(tmp_path, monkeypatch):
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
    ({"optimizer_options": {"beta": 1}}, "adam cannot be built: "),
    ({"cell_options": {"peepholes": True}}, "lstm cannot be built: "),
])
def test_what_there_is_not_is_said_in_a_sentence(given, sentence):
    with pytest.raises(ValueError) as error:
        Settings.for_task(**{"task": "adding", **given}).trainer()
    assert sentence in str(error.value)
