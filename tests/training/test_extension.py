"""A run that trains on longer: more steps and another lr, recorded, and the same bits after any kill."""

import json

import numpy as np
import pytest
from test_run import assert_same_end, at, refused, settings_for

from minigrad.tasks import TASKS
from minigrad.training import Run, checkpoint


def go(folder, **more):
    with Run.resume(folder, **more) as run:
        return run.go()


def begun(folder, **given):
    with Run.new(settings_for(**given), folder) as run:
        run.go()
    return folder


def lrs(folder):
    return [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def extensions(folder):
    return json.loads((folder / "config.json").read_text())["extensions"]


def test_a_run_goes_on_with_more_steps_and_another_lr(tmp_path):
    folder = begun(tmp_path / "run", lr=0.01)
    assert go(folder, steps=15)["steps"] == 15
    assert go(folder, steps=18, lr=0.001)["steps"] == 18
    assert lrs(folder) == [0.01] * 15 + [0.001] * 3
    assert extensions(folder) == [{"after": 12, "steps": 15, "lr": None, "until_solved": True},
                                  {"after": 15, "steps": 18, "lr": 0.001, "until_solved": True}]
    assert json.loads((folder / "result.json").read_text())["steps"] == 18
    before = (folder / "config.json").read_bytes()
    for again in ({}, {"steps": 18}, {"steps": 18, "lr": 0.001}, {"lr": 0.001}):  # nothing new
        assert go(folder, **again)["steps"] == 18
    assert (folder / "config.json").read_bytes() == before


def test_without_lr_it_ends_like_a_run_that_had_these_steps_from_the_start(tmp_path):
    whole, folder = begun(tmp_path / "whole", steps=20), begun(tmp_path / "run")
    go(folder, steps=20)
    assert (whole / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    a, b = (checkpoint.load(one / "checkpoint.npz")[0] for one in (whole, folder))
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_a_stopped_extension_ends_like_one_that_was_not(tmp_path):
    given = {"schedule": "cosine", "warm_up": 3, "lr_final": 1e-4}
    whole, folder = begun(tmp_path / "whole", **given), begun(tmp_path / "run", **given)
    go(whole, steps=24, lr=0.02)
    with Run.resume(folder, steps=24, lr=0.02) as run:
        run.trainer.callbacks.append(at(17))
        run.go()
    assert not (folder / "result.json").exists()  # it would be of fewer steps
    go(folder, steps=24, lr=0.02)  # the same command again
    assert_same_end(whole, folder)
    assert (whole / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert lrs(folder)[12] == 0.02 and lrs(folder)[-1] < 0.002  # a cosine of its own


def test_an_extension_before_its_first_step_is_replaced(tmp_path):
    folder = begun(tmp_path / "run")
    with Run.resume(folder, steps=20, lr=0.5) as run:
        run.trainer.callbacks.append(at(13))
        run.go()
    go(folder / "checkpoint.previous.npz", steps=14, lr=0.25)  # from step 12, where the first one began
    assert [one["steps"] for one in extensions(folder)] == [14] and lrs(folder)[12:] == [0.25, 0.25]


def test_a_solved_run_goes_on_to_its_new_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(TASKS["reber"], "goal", 0.0)
    folder = begun(tmp_path / "run")
    assert len(lrs(folder)) == 4  # solved at the first measurement
    assert go(folder, steps=14)["ended"] == "done" and len(lrs(folder)) == 14


def test_opening_writes_nothing_before_go(tmp_path):
    folder = begun(tmp_path / "run")
    before = (folder / "config.json").read_bytes(), (folder / "result.json").read_bytes()
    Run.resume(folder, steps=20).__exit__()
    assert ((folder / "config.json").read_bytes(), (folder / "result.json").read_bytes()) == before


@pytest.mark.parametrize("given, more, sentence", [
    ({}, {"steps": 12, "lr": 0.5}, "steps is the number of all steps of the run, more than the 12 that it has made"),
    ({}, {"steps": 5}, "not 5"), ({}, {"steps": 10**13}, "at most 1,000,000,000,000"), ({}, {"steps": 2.5}, "not 2.5"),
    ({}, {"lr": 0.5}, "it has made all of its 12 steps: give steps too"),
    ({}, {"steps": 20, "lr": -1.0}, "lr is a number above 0, not -1.0"),
    ({}, {"steps": 20, "lr": float("nan")}, "lr is a number above 0, not nan"),
    ({"schedule": "cosine"}, {"steps": 20}, "its cosine schedule brings lr down to 0 at step 12: give lr too")],
    ids=str)
def test_what_cannot_be_extended_is_a_sentence_and_changes_nothing(given, more, sentence, tmp_path):
    folder = begun(tmp_path / "run", **given)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    refused(lambda: Run.resume(folder, **more), f"the run in {folder} cannot go on", sentence)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("value", [
    3, [3], [{}], [{"after": 12, "steps": 20, "lr": None}], {}, None,
    [{"after": -1, "steps": 20, "lr": None, "until_solved": True}],
    [{"after": 12, "steps": 10, "lr": None, "until_solved": True}],
    [{"after": 12, "steps": 20, "lr": "0.1", "until_solved": True}],
    [{"after": 12, "steps": 20, "lr": float("inf"), "until_solved": True}],
    [{"after": 12, "steps": 20, "lr": None, "until_solved": 1}],
    [{"after": 12, "steps": 10**30, "lr": None, "until_solved": True}],
    2 * [{"after": 12, "steps": 20, "lr": None, "until_solved": True}]], ids=str)
def test_extensions_from_somebody_else_are_checked(value, tmp_path):
    folder = begun(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"extensions": value}))
    refused(lambda: Run.resume(folder), f"{folder / 'config.json'} is not a config of minigrad")


def test_the_lr_of_a_step_depends_on_the_step_alone(tmp_path):
    folder = begun(tmp_path / "run", schedule="cosine", lr=0.1)
    go(folder, steps=20, lr=0.05)
    with Run.resume(folder) as run:
        assert [run.trainer.schedule(step) for step in range(20)] == lrs(folder)
        assert np.allclose(run.trainer.schedule(12), 0.05)
