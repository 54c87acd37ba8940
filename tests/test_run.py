"""A run survives: killed anywhere and resumed it ends as one that was left alone; and nothing is lost to bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minigrad import checkpoint
from minigrad.run import Run, load_model
from minigrad.settings import Settings
from minigrad.tasks import TASKS
from minigrad.train import Diverged

KILLING = Path(__file__).parent / "killing.py"
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs fork and signals")


def settings_for(task="reber", **given):
    return Settings.for_task(task, **{"hidden": 6, "batch": 4, "steps": 12, "checkpoint_every": 5, "validate_every": 4,
                                      **given})


def trained(folder, settings, **stop):
    """A run in a folder, to its end, or as far as the callbacks of `stop` let it come."""
    with Run.new(settings, folder) as run:
        run.trainer.callbacks += stop.values()
        run.go()
    return folder


def step_of(path):
    return checkpoint.load(path)[1]["trainer"]["step"]


def at(step):
    return lambda trainer, row: row["step"] == step


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "fox.txt"
    path.write_text("the quick brown fox. " * 40)
    return {"file": str(path)}


def assert_same_end(one: Path, other: Path):
    """The same metrics to the byte, the same weights and everything else that is carried to the bit."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    (a, m), (b, n) = (checkpoint.load(folder / "checkpoint.npz") for folder in (one, other))
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes(), name
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    for of_time in (m["trainer"], n["trainer"], *results):
        of_time.pop("seconds")
    assert m == n and results[0] == results[1]


# -- the files -----------------------------------------------------------------------------------------------------


def test_what_a_run_leaves_behind(tmp_path):
    trained(tmp_path / "runs" / "reber", settings_for())
    folder = tmp_path / "runs" / "reber"
    assert sorted(file.name for file in folder.iterdir()) == [
        "checkpoint.npz", "checkpoint.previous.npz", "config.json", "metrics.jsonl", "result.json"]
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["task"] == "reber" and Settings.of(**config["settings"]) == settings_for()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13)) and all(row["loss"] > 0 for row in rows)
    assert [row["step"] for row in rows if "metric" in row] == [4, 8, 12]
    result = json.loads((folder / "result.json").read_text())
    assert {name: result[name] for name in ("task", "steps", "sequences", "baseline", "solved", "ended")} == {
        "task": "reber", "steps": 12, "sequences": 48, "baseline": 0.5, "solved": False, "ended": "done"}
    assert 0 <= result["metric"] <= 1 and result["loss"] == rows[-1]["loss"]
    assert [step_of(folder / name) for name in ("checkpoint.npz", "checkpoint.previous.npz")] == [12, 10]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Run.new(settings_for()) as run:
        assert run.go()["steps"] == 12
    assert not list(tmp_path.iterdir())


def test_a_model_is_loaded_without_its_text(tmp_path, text):
    folder = trained(tmp_path / "run", settings_for("text", options=text, validate_every=None))
    Path(text["file"]).unlink()
    model, config = load_model(folder)
    assert config["characters"] == "".join(sorted(set("the quick brown fox. ")))
    weights, _ = checkpoint.load(folder / "checkpoint.npz")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, weights[f"model/{name}"])
    assert not model.training
    before, _ = load_model(folder / "checkpoint.previous.npz")
    assert (before.linear.weight.data != model.linear.weight.data).any()


@pytest.mark.parametrize("folder", [None, "run"])
def test_the_threads_are_those_of_its_settings_and_afterwards_as_before(tmp_path, folder):
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    before, seen = threads(), []
    if not before:
        pytest.skip("NumPy's BLAS here has no number of threads that could be set")
    with Run.new(settings_for(threads=2, steps=1), folder and tmp_path / folder) as run:
        run.trainer.callbacks.append(lambda trainer, row: seen.extend(threads()))
        run.go()
    assert set(seen) == {2} and threads() == before == [1] * len(before)  # one, as conftest says


# -- stopped and resumed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["reber", "text"])
def test_stopped_and_resumed_it_ends_as_one_that_was_left_alone(task, tmp_path, text):
    of_text = {"options": text, "bptt": (4, 7)} if task == "text" else {}
    settings = settings_for(task, layers=2, dropout=0.3, **of_text)
    whole = trained(tmp_path / "whole", settings)
    folder = trained(tmp_path / "stopped", settings, stop=at(7))
    assert not (folder / "result.json").exists()
    with Run.resume(folder) as run:
        assert run.trainer.step == 7 and len(run.trainer.rows) == 7
        history = run.trainer.run()
        assert len(history["loss"]) == 12  # with what was before
    with Run.resume(folder) as run:  # that was the trainer alone, of which nothing was written down
        assert run.trainer.step == 7
        run.go()
    assert_same_end(whole, folder)
    with Run.resume(folder) as run:  # and once more, when there is nothing left to do
        assert run.go()["ended"] == "done"
    assert_same_end(whole, folder)


def test_a_run_that_has_solved_its_task_does_not_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(TASKS["parity"], "goal", 0.4)  # guessing does that
    with Run.new(settings_for("parity", options={"length": 5}), tmp_path / "run") as run:
        result = run.go()
        assert result["solved"] and result["ended"] == "solved" and result["steps"] == 4
    (tmp_path / "run" / "result.json").unlink()  # as if it had been killed before it was written
    with Run.resume(tmp_path / "run") as run:
        assert run.trainer.ended == "solved" and run.go()["steps"] == 4


def test_a_checkpoint_before_the_last_is_a_place_to_go_on_from_too(tmp_path):
    whole = trained(tmp_path / "whole", settings_for())
    folder = trained(tmp_path / "run", settings_for(), stop=at(11))
    with Run.resume(folder / "checkpoint.previous.npz") as run:
        assert run.trainer.step == 10
        run.go()
    assert_same_end(whole, folder)
    assert step_of(folder / "checkpoint.aside.npz") == 11  # nothing is lost


def killed_until_it_ends(tmp_path, settings, by, seed, longest):
    tmp_path.mkdir(exist_ok=True)
    whole = trained(tmp_path / "whole", settings)
    (tmp_path / "settings.json").write_text(json.dumps(settings.as_dict()))
    command = [sys.executable, KILLING, tmp_path / "killed", tmp_path / "settings.json", by, str(seed), str(longest)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same_end(whole, tmp_path / "killed")
    return json.loads(done.stdout)


KILLS = {"text": {"task": "text", "layers": 2, "dropout": 0.2, "bptt": (4, 9), "steps": 30, "checkpoint_every": 3},
         "reber": {"task": "reber", "steps": 30, "checkpoint_every": 3, "optimizer": "sgd",
                   "optimizer_options": {"momentum": 0.9}}}


@POSIX
@pytest.mark.parametrize("run, seed", [("text", 0), ("reber", 1)])
def test_killed_at_any_call_that_touches_a_file(run, seed, tmp_path, text):
    """SIGKILL in the middle of writing metrics, of a checkpoint's arrays, between its two renames, …"""
    settings = settings_for(**KILLS[run], **({"options": text} if run == "text" else {}))
    assert killed_until_it_ends(tmp_path, settings, "calls", seed, 1200)["deaths"]


@POSIX
def test_killed_at_any_time(tmp_path, text):
    """SIGKILL from outside, at a random moment."""
    settings = settings_for("text", hidden=100, checkpoint_every=1, options=text, validate_every=None)
    assert killed_until_it_ends(tmp_path, settings, "clock", 0, 0.2)["deaths"]


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("run", KILLS)
@pytest.mark.parametrize("by, longest", [("clock", 0.2), ("calls", 1200)])
def test_killed_again_and_again(by, longest, run, tmp_path, text):
    """The checkpoints are so large, and so many, that deaths by the clock fall on their writing too."""
    settings = settings_for(**{**KILLS[run], "hidden": 150, "steps": 10, "checkpoint_every": 1},
                            **({"options": text} if run == "text" else {}))
    found = [killed_until_it_ends(tmp_path / str(seed), settings, by, 100 + seed, longest) for seed in range(10)]
    assert sum(one["deaths"] for one in found) >= 10
    assert sum(one["files"].get("checkpoint.npz.partial", 0) for one in found)


# -- what is refused -----------------------------------------------------------------------------------------------


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def refused(call, *sentences):
    with pytest.raises(ValueError) as error:
        call()
    for sentence in sentences:
        assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_a_run_is_not_written_to(tmp_path):
    folder = trained(tmp_path / "run", settings_for(), stop=at(7))
    before = contents(folder)
    refused(lambda: Run.new(settings_for(), folder), f"{folder} holds a run already (config.json, metrics.jsonl, "
            f"checkpoint.npz, checkpoint.previous.npz): go on with it by --resume {folder}")
    for name in list(before):  # what is left of one counts too, but for what a death at the very start leaves
        other = tmp_path / f"with {name}"
        other.mkdir()
        shutil.copy(folder / name, other)
        refused(lambda other=other: Run.new(settings_for(), other), f"holds a run already ({name})")
    assert contents(folder) == before
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "metrics.jsonl").touch()
    (tmp_path / "new" / "notes.txt").write_text("mine")
    trained(tmp_path / "new", settings_for())


@POSIX
def test_two_runs_in_one_folder(tmp_path):
    with Run.new(settings_for(), tmp_path / "run") as run:
        refused(lambda: Run.resume(tmp_path / "run"), f"{tmp_path / 'run'} is in use by another run")
        run.go()
    with Run.resume(tmp_path / "run"):
        refused(lambda: Run.resume(tmp_path / "run"), "is in use by another run")
    Run.resume(tmp_path / "run").__exit__()


def damaged(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut_short(name, keep):
    return lambda folder: os.truncate(folder / name, int(keep * (folder / name).stat().st_size))


def corrupt(folder):
    path = folder / "checkpoint.npz"
    path.write_bytes(path.read_bytes().replace(b"step", b"stop"))


def saved_by_a_newer_version(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", 2)
        checkpoint.save(folder / "checkpoint.npz", {}, {})


def from_another_run(folder):
    other = trained(folder.parent / "other", settings_for(hidden=7), stop=at(7))
    shutil.copy(other / "checkpoint.npz", folder)


BROKEN = {
    "cut short": (cut_short("checkpoint.npz", 0.7), "{folder}/checkpoint.npz is cut short or damaged: "),
    "corrupt": (corrupt, "{folder}/checkpoint.npz is cut short or damaged: Bad CRC-32 for file 'meta.npy'"),
    "foreign": (damaged("checkpoint.npz", b"dear diary"), "{folder}/checkpoint.npz is not a checkpoint of minigrad"),
    "newer": (saved_by_a_newer_version, "{folder}/checkpoint.npz was written by a newer minigrad, in version 2"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_named_and_the_one_before_offered(how, tmp_path):
    whole = trained(tmp_path / "whole", settings_for())
    folder = trained(tmp_path / "run", settings_for(), stop=at(11))
    breaks, sentence = BROKEN[how]
    breaks(folder)
    before = contents(folder)
    step = 11 if how == "newer" else 10  # that one was saved after the last good one, and not over it
    offer = f"; the one before it, of step {step}, is whole: give {folder}/checkpoint.previous.npz in its place"
    refused(lambda: Run.resume(folder), sentence.format(folder=folder), offer)
    refused(lambda: load_model(folder), sentence.format(folder=folder), offer)
    assert contents(folder) == before
    with Run.resume(folder / "checkpoint.previous.npz") as run:  # the offer holds
        run.go()
    assert_same_end(whole, folder)
    assert (folder / "checkpoint.aside.npz").read_bytes() == before["checkpoint.npz"]


@pytest.mark.parametrize("breaks, sentence", [
    (lambda folder: (cut_short("checkpoint.npz", 0.5)(folder), cut_short("checkpoint.previous.npz", 0.5)(folder)),
     "checkpoint.npz is cut short or damaged"),
    (from_another_run, "checkpoint.npz is not of the run that {folder}/config.json describes: its settings are others"),
    (damaged("config.json", b"{}"), "{folder}/config.json is not a config of minigrad: settings is missing"),
    (damaged("config.json", b"\xff"), "{folder}/config.json is not a config of minigrad: "),
    (damaged("config.json", json.dumps({
        "settings": settings_for().as_dict() | {"task": "chess"}, "sources": {}, "characters": None,
        "model": {"inputs": 1, "outputs": 1, "symbols": False}}).encode()), "there is no task 'chess'"),
    (lambda folder: (folder / "config.json").unlink(), "{folder} is not the folder of a run, as it has no config.json"),
    (damaged("metrics.jsonl", b""), "{folder}/metrics.jsonl does not contain steps 1 to 11"),
    (cut_short("metrics.jsonl", 0.5), "{folder}/metrics.jsonl does not contain steps 1 to 11"),
    (damaged("metrics.jsonl", b"[]\n" * 11), "{folder}/metrics.jsonl, line 1, is not a step of a run"),
])
def test_what_cannot_be_resumed_is_named_and_stays_as_it_is(breaks, sentence, tmp_path):
    folder = trained(tmp_path / "run", settings_for(), stop=at(11))
    breaks(folder)
    before = contents(folder)
    refused(lambda: Run.resume(folder), sentence.format(folder=folder))
    assert contents(folder) == before


@pytest.mark.parametrize("change, sentence", [
    (lambda file: file.unlink(), "{file} cannot be read: No such file"),
    (lambda file: file.write_text("the lazy dog." * 100), "{file} has changed since the run in {folder} began"),
])
def test_a_text_that_is_gone_or_has_changed(change, sentence, tmp_path, text):
    folder = trained(tmp_path / "run", settings_for("text", options=text), stop=at(7))
    before = contents(folder)
    file = Path(text["file"])
    change(file)
    refused(lambda: Run.resume(folder), sentence.format(file=file, folder=folder))
    assert contents(folder) == before


def test_a_cell_that_is_gone_or_has_changed(tmp_path):
    file = tmp_path / "cells.py"
    file.write_text("from minigrad import nn\nclass Mine(nn.GRUCell):\n    pass\n")
    folder = trained(tmp_path / "run", settings_for(cell=f"{file}:Mine"), stop=at(7))
    file.write_text(file.read_text() + "# or so\n")
    refused(lambda: Run.resume(folder), f"{file} has changed since the run in {folder} began: put it back")
    file.unlink()
    refused(lambda: Run.resume(folder), f"{file} is not a file")


@pytest.mark.parametrize("folder", ["/dev/null/run", "/proc/run"])
@POSIX
def test_a_folder_that_cannot_be_made(folder):
    refused(lambda: Run.new(settings_for(), folder), f"{folder} cannot be made a folder: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_run_and_costs_nothing(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", settings_for())
    folder = tmp_path / "run"

    def fill(trainer, row):
        if row["step"] == 9:
            monkeypatch.setattr(checkpoint, "open", lambda _, mode: open("/dev/full", mode), raising=False)
    refused(lambda: trained(folder, settings_for(), fill=fill), f"{folder}/checkpoint.npz cannot be written: No space "
            f"left on device; once that is put right, go on by --resume {folder}")
    monkeypatch.undo()
    with Run.resume(folder) as run:
        assert run.trainer.step == 5
        run.go()
    assert_same_end(whole, folder)


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path):
    folder = tmp_path / "run"

    def poison(trainer, row):
        if row["step"] == 7:
            trainer.model.linear.weight.data = trainer.model.linear.weight.data * np.float32(np.inf)
    with pytest.raises(Diverged, match=rf"the loss is \S+ at step 8: .*; the checkpoint of step 5 is kept in {folder}"):
        trained(folder, settings_for(), poison=poison)
    assert not (folder / "result.json").exists()
    with Run.resume(folder) as run:
        assert run.trainer.step == 5
    with pytest.raises(Diverged, match=r"linear.weight holds NaN or Inf after step 10; the checkpoint of step 5 is"):
        with Run.resume(folder) as run:
            run.trainer.callbacks.append(lambda trainer, row: poison(trainer, {"step": row["step"] - 3}))
            run.go()
    assert step_of(folder / "checkpoint.npz") == 5


# -- signals, from outside -------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGKILL, -9)])
def test_a_command_that_is_stopped_and_resumed(number, status, tmp_path):
    """The command itself: Ctrl-C and SIGTERM save and say how to go on; SIGKILL leaves the last checkpoint."""
    command = [sys.executable, "-m", "minigrad", "train"]
    arguments = ["parity", "--length", "20", "--hidden", "8", "--steps", "150", "--checkpoint-every", "7", "--out"]
    subprocess.run([*command, *arguments, tmp_path / "whole"], capture_output=True)
    process = subprocess.Popen([*command, *arguments, tmp_path / "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    while not (tmp_path / "run" / "checkpoint.npz").exists():
        time.sleep(0.002)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and err == ""
    if number != signal.SIGKILL:
        assert "trained: interrupted after" in out
        assert out.endswith(f"go on with: minigrad train --resume {tmp_path / 'run'}\n")
    done = subprocess.run([*command, "--resume", tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 1 and "resumed after step" in done.stdout and "not solved" in done.stdout
    assert_same_end(tmp_path / "whole", tmp_path / "run")
