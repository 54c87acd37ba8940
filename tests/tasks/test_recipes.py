"""Recipes solve their tasks: the short ones here, those in bold in docs/tasks.md, over several seeds, by
`pytest -m slow`.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from minigrad.engine.context import no_grad
from minigrad.training import Run, Settings, load_model
from minigrad.training.folder import RESULT
from minigrad.training.trainer import TEST


@pytest.mark.parametrize("name", ["reber", "anbn", "parity", "sine"])
def test_a_recipe_solves_its_task_and_the_saved_model_shows_it(tmp_path, name):
    with Run.new(Settings.for_task(name), tmp_path / name) as run:
        run.go()
    result = json.loads((tmp_path / name / RESULT).read_text())
    assert result["solved"] and result["ended"] == "solved"

    model, config = load_model(tmp_path / name)
    task = config["settings"].make_task()
    test = task.test(np.random.default_rng(TEST))
    with no_grad():
        outputs, _ = model(test.x, None, test.lengths)
    assert task.metric(outputs.numpy(), test) == result["metric"]


def test_a_plain_rnn_does_not_count_to_65():
    """Not even to ten, its largest n in training, in more steps than most LSTMs need to count to 65."""
    run = Run.new(Settings.for_task("anbn", cell="rnn", steps=500))
    result = run.go()
    assert not result["solved"] and np.nanmax(run.trainer.history()["metric"]) < 10


@pytest.mark.slow
@pytest.mark.parametrize("name, options, seeds, what, bound, enough, test", [
    ("adding", {}, 5, "steps", 2000, 4, 2e-3),
    ("adding", {"length": 200}, 3, "steps", 3000, 3, 2e-3),
    ("reber", {}, 10, "sequences", 4800, 10, 253 / 256),
    ("temporal-order", {}, 10, "sequences", 31_390, 10, 2556 / 2560),
    ("anbn", {}, 10, "steps", 4000, 10, 65),
    ("copy", {}, 2, "steps", 6000, 2, 0.75),
])
def test_the_promised_number_of_seeds_is_solved_in_time(name, options, seeds, what, bound, enough, test):
    """The validation set ends the training; on the test set, measured once, all of them come close to the goal."""
    runs = [Run.new(Settings.for_task(name, options=options, seed=seed)) for seed in range(seeds)]
    results = [run.go() for run in runs]
    assert sum(result["ended"] == "solved" and result[what] <= bound for result in results) >= enough
    higher = runs[0].trainer.task.higher_is_better
    close = [result["metric"] >= test if higher else result["metric"] < test for result in results]
    assert sum(close) >= enough
