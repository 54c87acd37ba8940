"""Runs: one that is killed anywhere and resumed ends like an uninterrupted one, and bad input loses nothing."""

import copy
import importlib.util
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minigrad.cli import main
from minigrad.files import archive, atomic
from minigrad.tasks import TASKS
from minigrad.timeloop.compile import CompileNotice, compiler, loops
from minigrad.training import Diverged, Run, Settings, checkpoint, load_model, trust

KILLING = Path(__file__).parents[1] / "killing.py"
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs fork and signals")


def here():
    """The environment in which scripts import minigrad from this tree."""
    return os.environ | {"PYTHONPATH": str(KILLING.parents[1])}


def settings_for(task="reber", **given):
    return Settings.for_task(task, **{"hidden": 6, "batch": 4, "steps": 12, "checkpoint_every": 5, "validate_every": 4,
                                      **given})


def trained(folder, settings, **stop):
    """Train a run in a folder to its end, or until a callback of `stop` ends it."""
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
    """Compare metrics to the byte, weights and all other state to the bit."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    (a, m), (b, n) = (checkpoint.load(folder / "checkpoint.npz") for folder in (one, other))
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes(), name
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    for of_time in (m["trainer"], n["trainer"], *results):
        of_time.pop("seconds")
    assert m == n and results[0] == results[1]


# -- the loops over time -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not compiler.enabled(), reason=f"without a C compiler: {compiler.reason()}")
def test_a_run_keeps_its_loops_and_says_if_it_cannot(tmp_path, monkeypatch):
    """C or NumPy for a whole run: a change in its middle would change digits."""
    trained(tmp_path / "c", settings_for(steps=4))
    assert Settings.of(**json.loads((tmp_path / "c" / "config.json").read_text())["settings"]).loops != "numpy"
    monkeypatch.setattr(compiler, "command", "none")
    trained(tmp_path / "numpy", settings_for(steps=4))
    with Run.resume(tmp_path / "c") as run, pytest.warns(CompileNotice, match="C by .*, and here they are by numpy"):
        run.go()
    monkeypatch.setattr(compiler, "command", "")
    with Run.resume(tmp_path / "numpy") as run:
        run.trainer.steps, seen = 6, set()
        run.trainer.callbacks.append(lambda *_: seen.add(loops.get()))
        run.go()
    assert seen == {"numpy"} and run.settings.loops == "numpy"


# -- the files -----------------------------------------------------------------------------------------------------


def test_the_files_of_a_run(tmp_path):
    trained(tmp_path / "runs" / "reber", settings_for())
    folder = tmp_path / "runs" / "reber"
    assert sorted(file.name for file in folder.iterdir()) == [
        "checkpoint.npz", "checkpoint.previous.npz", "config.json", "lock", "metrics.jsonl", "result.json"]
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["task"] == "reber" and Settings.of(**config["settings"]) == \
        settings_for(loops=compiler.identity())
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


def test_a_model_loads_without_its_text(tmp_path, text):
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
def test_threads_follow_the_settings_and_are_restored(tmp_path, folder):
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    before, seen = threads(), []
    if not before:
        pytest.skip("NumPy's BLAS here has no number of threads that could be set")
    with Run.new(settings_for(threads=2, steps=1), folder and tmp_path / folder) as run:
        run.trainer.callbacks.append(lambda trainer, row: seen.extend(threads()))
        run.go()
    assert set(seen) == {2} and threads() == before == [1] * len(before)  # conftest sets one


# -- stopped and resumed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["reber", "text"])
def test_a_stopped_and_resumed_run_ends_like_an_uninterrupted_one(task, tmp_path, text):
    of_text = {"options": text, "bptt": (4, 7)} if task == "text" else {}
    settings = settings_for(task, layers=2, dropout=0.3, **of_text)
    whole = trained(tmp_path / "whole", settings)
    folder = trained(tmp_path / "stopped", settings, stop=at(7))
    assert not (folder / "result.json").exists()
    with Run.resume(folder) as run:
        assert run.trainer.step == 7 and len(run.trainer.rows) == 7
        history = run.trainer.run()
        assert len(history["loss"]) == 12  # including the rows before the resume
    with Run.resume(folder) as run:  # the trainer alone wrote nothing
        assert run.trainer.step == 7
        run.go()
    assert_same_end(whole, folder)
    with Run.resume(folder) as run:  # again, with nothing left to do
        assert run.go()["ended"] == "done"
    assert_same_end(whole, folder)


def test_the_carried_state_has_the_dtype_of_the_trained_weights(tmp_path, text):
    """A fixed tensor of another dtype, which is saved too, does not count."""
    file = tmp_path / "cells.py"
    file.write_text("import numpy as np\nimport minigrad as mg\nclass Mine(mg.nn.GRUCell):\n"
                    "    def __init__(self, *sizes, **options):\n        super().__init__(*sizes, **options)\n"
                    "        self.fixed = mg.tensor(np.ones(2))\n")
    settings = settings_for("text", options=text, bptt=4, cell=f"{file}:Mine", validate_every=None)
    folder = trained(tmp_path / "run", settings, stop=at(7))
    with Run.resume(folder) as run:
        assert run.trainer.step == 7 and run.trainer.state.dtype == np.float32


def test_a_run_that_solved_its_task_does_not_continue(tmp_path, monkeypatch):
    monkeypatch.setattr(TASKS["parity"], "goal", 0.4)  # guessing reaches it
    with Run.new(settings_for("parity", options={"length": 5}), tmp_path / "run") as run:
        result = run.go()
        assert result["solved"] and result["ended"] == "solved" and result["steps"] == 4
    (tmp_path / "run" / "result.json").unlink()  # as if killed before writing it
    with Run.resume(tmp_path / "run") as run:
        assert run.trainer.ended == "solved" and run.go()["steps"] == 4


def test_a_run_can_resume_from_the_previous_checkpoint(tmp_path):
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=here())
    assert done.returncode == 0, done.stderr
    assert_same_end(whole, tmp_path / "killed")
    return json.loads(done.stdout)


KILLS = {"text": {"task": "text", "layers": 2, "dropout": 0.2, "bptt": (4, 9), "steps": 30, "checkpoint_every": 3},
         "reber": {"task": "reber", "steps": 30, "checkpoint_every": 3, "optimizer": "sgd",
                   "optimizer_options": {"momentum": 0.9}}}


@POSIX
@pytest.mark.parametrize("run, seed", [("text", 0), ("reber", 1)])
def test_a_run_survives_a_kill_at_any_file_operation(run, seed, tmp_path, text):
    """SIGKILL while it writes metrics or the arrays of a checkpoint, between the two renames, …"""
    settings = settings_for(**KILLS[run], **({"options": text} if run == "text" else {}))
    assert killed_until_it_ends(tmp_path, settings, "calls", seed, 1200)["deaths"]


@POSIX
def test_a_run_survives_a_kill_at_any_time(tmp_path, text):
    """SIGKILL from outside, at a random moment."""
    settings = settings_for("text", hidden=100, steps=60, checkpoint_every=1, options=text, validate_every=None)
    assert killed_until_it_ends(tmp_path, settings, "clock", 0, 0.2)["deaths"]


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("run", KILLS)
@pytest.mark.parametrize("by, longest", [("clock", 0.2), ("calls", 1200)])
def test_a_run_survives_many_kills(by, longest, run, tmp_path, text):
    """Checkpoints are large and frequent, so some kills by the clock interrupt their writing."""
    settings = settings_for(**{**KILLS[run], "hidden": 150, "steps": 10, "checkpoint_every": 1},
                            **({"options": text} if run == "text" else {}))
    found = [killed_until_it_ends(tmp_path / str(seed), settings, by, 100 + seed, longest) for seed in range(10)]
    assert sum(one["deaths"] for one in found) >= 10
    assert sum(one["files"].get("checkpoint.npz.partial", 0) for one in found)


# -- refusals -----------------------------------------------------------------------------------------------


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def refused(call, *sentences):
    with pytest.raises(ValueError) as error:
        call()
    for sentence in sentences:
        assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_contains_a_run_is_not_written_to(tmp_path):
    folder = trained(tmp_path / "run", settings_for(), stop=at(7))
    before = contents(folder)
    refused(lambda: Run.new(settings_for(), folder), f"{folder} already contains a run (config.json, metrics.jsonl, "
            f"checkpoint.npz, checkpoint.previous.npz): continue it with --resume {folder}")
    for name in before.keys() - {"lock"}:  # a single file of a run counts too
        other = tmp_path / f"with {name}"
        other.mkdir()
        shutil.copy(folder / name, other)
        refused(lambda other=other: Run.new(settings_for(), other), f"already contains a run ({name})")
    assert contents(folder) == before
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "metrics.jsonl").touch()
    (tmp_path / "new" / "notes.txt").write_text("mine")
    trained(tmp_path / "new", settings_for())


@POSIX
def test_a_second_run_in_a_folder_is_refused(tmp_path):
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
        patch.setattr(archive, "VERSION", 2)
        checkpoint.save(folder / "checkpoint.npz", {}, {})


def from_another_run(folder):
    other = trained(folder.parent / "other", settings_for(hidden=7), stop=at(7))
    shutil.copy(other / "checkpoint.npz", folder)


BROKEN = {
    "cut short": (cut_short("checkpoint.npz", 0.7), "{folder}/checkpoint.npz is cut short or damaged: "),
    "corrupt": (corrupt, "{folder}/checkpoint.npz is cut short or damaged: Bad CRC-32 for file 'meta.npy'"),
    "foreign": (damaged("checkpoint.npz", b"dear diary"), "{folder}/checkpoint.npz is not a checkpoint of minigrad"),
    "newer": (saved_by_a_newer_version, "{folder}/checkpoint.npz was written by a newer minigrad in version 2"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_named_and_the_previous_one_suggested(how, tmp_path):
    whole = trained(tmp_path / "whole", settings_for())
    folder = trained(tmp_path / "run", settings_for(), stop=at(11))
    breaks, sentence = BROKEN[how]
    breaks(folder)
    before = contents(folder)
    step = 11 if how == "newer" else 10  # the newer one was saved after the last good one
    offer = f"; the one before it, of step {step}, is whole: give {folder}/checkpoint.previous.npz in its place"
    refused(lambda: Run.resume(folder), sentence.format(folder=folder), offer)
    refused(lambda: load_model(folder), sentence.format(folder=folder), offer)
    assert contents(folder) == before
    with Run.resume(folder / "checkpoint.previous.npz") as run:  # the suggestion works
        run.go()
    assert_same_end(whole, folder)
    assert (folder / "checkpoint.aside.npz").read_bytes() == before["checkpoint.npz"]


@pytest.mark.parametrize("breaks, sentence", [
    (lambda folder: (cut_short("checkpoint.npz", 0.5)(folder), cut_short("checkpoint.previous.npz", 0.5)(folder)),
     "checkpoint.npz is cut short or damaged"),
    (from_another_run, "checkpoint.npz does not belong to the run that {folder}/config.json describes: "
     "its settings differ"),
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
def test_a_run_that_cannot_resume_is_named_and_left_unchanged(breaks, sentence, tmp_path):
    folder = trained(tmp_path / "run", settings_for(), stop=at(11))
    breaks(folder)
    before = contents(folder)
    refused(lambda: Run.resume(folder), sentence.format(folder=folder))
    assert contents(folder) == before


@pytest.mark.parametrize("change, sentence", [
    (lambda file: file.unlink(), "{file} cannot be read: No such file"),
    (lambda file: file.write_text("the lazy dog." * 100), "{file} has changed since the run in {folder} began"),
])
def test_a_missing_or_changed_text_is_refused(change, sentence, tmp_path, text):
    folder = trained(tmp_path / "run", settings_for("text", options=text), stop=at(7))
    before = contents(folder)
    file = Path(text["file"])
    change(file)
    refused(lambda: Run.resume(folder), sentence.format(file=file, folder=folder))
    assert contents(folder) == before


def test_a_missing_or_changed_cell_is_refused(tmp_path):
    file = tmp_path / "cells.py"
    file.write_text("from minigrad import nn\nclass Mine(nn.GRUCell):\n    pass\n")
    folder = trained(tmp_path / "run", settings_for(cell=f"{file}:Mine"), stop=at(7))
    file.write_text(file.read_text() + "# or so\n")
    refused(lambda: Run.resume(folder), f"{file} has changed since the run in {folder} began: restore it")
    file.unlink()
    refused(lambda: Run.resume(folder), f"{file} is not a file")


@pytest.mark.parametrize("folder", ["/dev/null/run", "/proc/run"])
@POSIX
def test_a_folder_that_cannot_be_created_is_named(folder):
    refused(lambda: Run.new(settings_for(), folder), f"{folder} cannot be created: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", settings_for())
    folder = tmp_path / "run"

    def fill(trainer, row):
        if row["step"] == 9:
            monkeypatch.setattr(atomic, "open", lambda _, mode: open("/dev/full", mode), raising=False)
    refused(lambda: trained(folder, settings_for(), fill=fill), f"{folder}/checkpoint.npz cannot be written: No space "
            f"left on device; correct that, then continue with --resume {folder}")
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
    with pytest.raises(Diverged, match=r"linear.weight contains NaN or Inf after step 10; the checkpoint of step 5 is"):
        with Run.resume(folder) as run:
            run.trainer.callbacks.append(lambda trainer, row: poison(trainer, {"step": row["step"] - 3}))
            run.go()
    assert step_of(folder / "checkpoint.npz") == 5


# -- missing checkpoints ---------------------------------------------------------------------------------------


def all_gone(folder):
    for file in folder.glob("checkpoint*.npz"):
        file.unlink()


def all_links_to_nowhere(folder):
    for file in folder.glob("checkpoint*.npz"):
        file.unlink()
        file.symlink_to(folder / "nowhere.npz")


def all_folders(folder):
    for file in folder.glob("checkpoint*.npz"):
        file.unlink()
        file.mkdir()


LOST = {
    "gone": (all_gone, "has metrics.jsonl{more}, but neither checkpoint.npz nor checkpoint.previous.npz"),
    "links to nowhere": (all_links_to_nowhere, "checkpoint.npz cannot be read: No such file"),
    "folders": (all_folders, "checkpoint.npz cannot be read: Is a directory"),
}


@pytest.mark.parametrize("stop", [{}, {"stop": at(3)}, {"stop": at(7)}], ids=["ended", "before 5", "after 5"])
@pytest.mark.parametrize("how", LOST)
def test_a_run_without_its_checkpoints_does_not_restart_over_its_metrics(how, stop, tmp_path):
    folder = trained(tmp_path / "run", settings_for(), **stop)
    loses, sentence = LOST[how]
    loses(folder)
    before = contents(folder)
    sentence = sentence.format(more="" if stop else " and result.json")
    refused(lambda: Run.resume(folder), sentence)
    refused(lambda: load_model(folder), sentence)
    assert contents(folder) == before


@POSIX
def test_a_run_killed_before_its_first_checkpoint_restarts(tmp_path):
    whole = trained(tmp_path / "whole", settings_for())
    folder = tmp_path / "run"

    class Killed(Exception):
        pass

    def kill(trainer, row):
        if row["step"] == 4:
            raise Killed
    with pytest.raises(Killed):
        trained(folder, settings_for(), kill=kill)
    assert not list(folder.glob("*.npz")) and (folder / "no-checkpoint-yet").exists()
    refused(lambda: load_model(folder), f"{folder} has no checkpoint yet: continue the run with --resume {folder}")
    with Run.resume(folder) as run:
        assert run.trainer.step == 0
        run.go()
    assert_same_end(whole, folder)
    assert not (folder / "no-checkpoint-yet").exists()


def test_opening_a_run_changes_no_file(tmp_path):
    """Metrics are cut and a newer checkpoint is set aside only when the run continues."""
    folder = trained(tmp_path / "run", settings_for(), stop=at(11))
    before = contents(folder)
    with Run.resume(folder / "checkpoint.previous.npz") as run:
        assert run.trainer.step == 10
    assert contents(folder) == before
    (folder / "checkpoint.npz").unlink()  # as between the two renames of a save
    with Run.resume(folder) as run:
        assert run.trainer.step == 10
    assert (folder / "metrics.jsonl").read_bytes() == before["metrics.jsonl"]


def test_checkpoints_set_aside_are_never_overwritten(tmp_path):
    folder = trained(tmp_path / "run", settings_for(), stop=at(11))
    for number in ("", "2", "3"):
        shutil.copy(folder / "checkpoint.npz", folder / "kept.npz")
        aside = folder / f"checkpoint.aside{number}.npz"
        with Run.resume(folder / ("checkpoint.aside.npz" if number else "checkpoint.previous.npz")) as run:
            run.go()
        assert aside.read_bytes() == (folder / "kept.npz").read_bytes()


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoint.npz.partial"])
def test_a_run_does_not_write_through_a_link(name, tmp_path):
    """Otherwise a folder from somebody else could overwrite any file of this user."""
    folder = trained(tmp_path / "run", settings_for(), stop=at(7))
    other = tmp_path / "other"
    other.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"precious")
    before = other.read_bytes()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(other)

    def go():
        with Run.resume(folder) as run:
            run.go()
    refused(go, f"{folder / name} is a link")
    assert other.read_bytes() == before


# -- a folder from somebody else ------------------------------------------------------------------------------------

CELL = """
from pathlib import Path
from minigrad import nn
Path(__file__).with_suffix(".ran").touch()
class Mine(nn.GRUCell):
    pass
"""


@pytest.fixture
def received(tmp_path, monkeypatch):
    """(folder, file) of a run from somebody else; the file touches a `.ran` file when it is run."""
    file = tmp_path / "cells.py"
    file.write_text(CELL)
    monkeypatch.setattr(trust, "SESSION", set())
    monkeypatch.setenv("MINIGRAD_STATE", str(tmp_path / "theirs"))
    folder = trained(tmp_path / "run", settings_for(cell=f"{file}:Mine"), stop=at(7))
    monkeypatch.setattr(trust, "SESSION", set())
    monkeypatch.setenv("MINIGRAD_STATE", str(tmp_path / "ours"))
    file.with_suffix(".ran").unlink()
    return folder, file


def opened(opens, *arguments, **options):
    result = opens(*arguments, **options)
    if isinstance(result, Run):
        result.__exit__()


@pytest.mark.parametrize("opens", [load_model, Run.resume])
def test_a_python_file_named_by_a_folder_is_run_only_if_trusted(opens, received):
    folder, file = received
    before = contents(folder)
    for place in (folder, folder / "checkpoint.npz"):
        refused(lambda place=place: opened(opens, place), f"{folder}/config.json names the Python file {file}, and you "
                "have not trained with it on this machine, so it was not run: read it, and if you trust it, give "
                "--trust (in Python trust=True)")
    assert not file.with_suffix(".ran").exists() and contents(folder) == before
    opened(opens, folder, trust=True)
    assert file.with_suffix(".ran").exists()
    refused(lambda: opened(opens, folder), "give --trust")  # trust for one call is not remembered


@pytest.mark.parametrize("opens", [load_model, Run.resume])
def test_a_file_that_this_user_trained_with_is_run(opens, received, tmp_path):
    folder, file = received
    Run.new(settings_for(cell=f"{file}:Mine"), tmp_path / "mine").__exit__()
    trust.SESSION.clear()  # another process
    opened(opens, folder)
    copy = tmp_path / "elsewhere" / "cells.py"  # the same content, beside other modules
    copy.parent.mkdir()
    copy.write_text(CELL)
    change_config(folder, settings={"cell": f"{copy}:Mine"})
    refused(lambda: opened(opens, folder), f"names the Python file {copy}")
    assert not copy.with_suffix(".ran").exists()
    opened(opens, folder, trust=True)  # a run whose files were moved


@pytest.mark.parametrize("opens", [load_model, Run.resume])
@pytest.mark.parametrize("trusted", [False, True])
def test_a_changed_cell_is_not_run_even_if_trusted(opens, trusted, received):
    folder, file = received
    file.write_text(CELL + "# or so\n")
    refused(lambda: opened(opens, folder, trust=trusted), f"{file} has changed since the run in {folder} began")
    file.unlink()
    refused(lambda: opened(opens, folder, trust=trusted), f"{file} is not a file")
    assert not file.with_suffix(".ran").exists()


@pytest.mark.parametrize("opens", [load_model, Run.resume])
def test_a_file_without_its_hash_in_config_json_needs_trust(opens, received, tmp_path):
    folder, file = received
    Run.new(settings_for(cell=f"{file}:Mine"), tmp_path / "mine").__exit__()
    change_config(folder, sources=None)
    refused(lambda: opened(opens, folder), "give --trust")
    opened(opens, folder, trust=True)


def test_compiled_python_beside_a_trusted_file_is_not_run(received):
    """A .pyc file could differ from the source that the user has read."""
    folder, file = received
    source = CELL.replace(".ran", ".hidden")
    evil = file.with_name("evil.py")
    evil.write_text(source)
    compiled = importlib.util.cache_from_source(str(file))
    py_compile.compile(str(evil), compiled, str(file), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    load_model(folder, trust=True)
    assert file.with_suffix(".ran").exists() and not file.with_suffix(".hidden").exists()


@pytest.mark.parametrize("state", ["/dev/null/state", ""])
def test_a_state_folder_without_write_permission_is_not_an_error(state, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_STATE", state)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    file = tmp_path / "cells.py"
    file.write_text(CELL)
    folder = trained(tmp_path / "run", settings_for(cell=f"{file}:Mine"), stop=at(7))
    with Run.resume(folder) as run:  # within the process the file is trusted
        run.go()


def test_a_script_that_trains_its_own_cell_needs_a_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
from minigrad import nn
from minigrad.training import Run, Settings
class Mine(nn.GRUCell):
    pass
if GUARDED:
    settings = Settings.for_task("parity", cell=f"{__file__}:Mine", steps=2, batch=2, options={"length": 5})
    with Run.new(settings, "run") as run:
        run.go()
    with Run.resume("run") as run:
        print(run.trainer.step)
""")
    for guard, status, said in (('__name__ == "__main__"', 0, "2"), ("True", 1, "`if __name__ == \"__main__\":`")):
        path = tmp_path / f"script{status}.py"
        path.write_text(script.read_text().replace("GUARDED", guard))
        done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True,
                              env=here())
        assert done.returncode == status and said in done.stdout + done.stderr, done.stderr


# -- hostile and damaged files --------------------------------------------------------------------------------------


def change_config(folder, **changes):
    """Update parts of config.json; None empties a part."""
    config = json.loads((folder / "config.json").read_text())
    for part, values in changes.items():
        config[part] = {} if values is None else config[part] | values
    (folder / "config.json").write_text(json.dumps(config))


WRONG = [None, -1, 1e308, 10**30, "a\nb\x1b[0m" * 300, {"a": {"b": 1}}, "NOTHING",
         True, 1.5, float("nan"), "", "\ud800", [[1, 2], "a"], "NESTED"]


def as_text(value):
    return json.dumps(value).replace('"NESTED"', "[" * 40 + "]" * 40)


def mutations(value, wrongs, above=()):
    """Yield (path, copy) with one field replaced by a wrong value or left out; of a list, only its first item."""
    for key, child in list(value.items()) if isinstance(value, dict) else list(enumerate(value))[:1]:
        for wrong in wrongs:
            changed = copy.copy(value)
            if wrong == "NOTHING":
                del changed[key]
            else:
                changed[key] = wrong
            yield (*above, key, str(wrong)[:20]), changed
        if isinstance(child, (dict, list)):
            for where, changed in mutations(child, wrongs, (*above, key)):
                whole = copy.copy(value)
                whole[key] = changed
                yield where, whole


def outcome(opens, folder, where):
    """Whether it opens; if not, check that the error is one sentence."""
    try:
        opened(opens, folder)
    except ValueError as problem:
        said = str(problem)
        assert len(said) < 600 and said.isprintable(), (where, said)
        return False
    except Exception as problem:
        raise AssertionError(f"{opens.__name__} with {where} raised {problem!r}") from problem
    return True


SMALLEST = {"adding": {"options": {"length": 5}, "optimizer": "sgd"},
            "text": {"bptt": (2, 4), "layers": 2, "embedding": 3, "dropout": 0.2, "optimizer": "sgd", "cell": "gru"}}


@pytest.fixture(params=SMALLEST)
def hostile(request, tmp_path, text):
    given = SMALLEST[request.param] | ({"options": text} if request.param == "text" else {})
    return trained(tmp_path / "run", settings_for(request.param, **{"hidden": 3, "steps": 3, "batch": 2,
                                                                    "validate_every": None, **given}))


def test_any_wrong_field_of_config_json_is_refused_in_a_sentence(hostile):
    config = json.loads((hostile / "config.json").read_text())
    good = 0
    for where, changed in mutations(config, WRONG):
        (hostile / "config.json").write_text(as_text(changed))
        for opens in (load_model, Run.resume):
            good += outcome(opens, hostile, where)
    assert good < 60  # unchanged or optional values
    (hostile / "config.json").write_text(json.dumps(config))
    assert outcome(load_model, hostile, "") and outcome(Run.resume, hostile, "")


def test_any_wrong_field_of_a_checkpoint_header_is_refused_in_a_sentence(hostile):
    arrays, meta = checkpoint.load(hostile / "checkpoint.npz")
    whole = {"format": "minigrad checkpoint", "version": archive.VERSION, "arrays": list(arrays), "meta": meta}
    meta["settings"] = {name: meta["settings"][name] for name in ("task", "cell")}  # the others are tested above
    refused_ones = 0
    for where, changed in mutations(whole, WRONG[:7]):
        entry = np.frombuffer(as_text(changed).encode("utf-8", "surrogatepass"), np.uint8)
        np.savez(hostile / "checkpoint.npz", **arrays, meta=entry)
        for opens in (load_model, Run.resume):
            refused_ones += not outcome(opens, hostile, where)
    assert refused_ones > 300


def test_a_checkpoint_with_more_steps_than_metrics_is_refused(hostile):
    arrays, meta = checkpoint.load(hostile / "checkpoint.npz")
    meta["trainer"]["step"] = 10**15
    checkpoint.save(hostile / "checkpoint.npz", arrays, meta)
    refused(lambda: Run.resume(hostile), "metrics.jsonl does not contain steps 1 to 1000000000000000")


@pytest.mark.parametrize("change", [
    lambda a: a.astype(complex), lambda a: a.astype(np.int16), lambda a: a.astype(np.float16), lambda a: a[None],
    lambda a: a.ravel()[:0], lambda a: a + np.nan], ids=["complex", "int", "half", "shape", "empty", "NaN"])
def test_unfit_weights_are_refused(change, hostile):
    arrays, meta = checkpoint.load(hostile / "checkpoint.npz")
    for name in [name for name in arrays if name.startswith("model/")]:
        checkpoint.save(hostile / "checkpoint.npz", arrays | {name: change(arrays[name])}, meta)
        for opens in (load_model, Run.resume):
            assert not outcome(opens, hostile, name)


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe{}", b"{" * 100_000, b'{"settings": ' * 1000,
                                     b'{"settings": {}, "settings": {}}', b"\x00" * 100, b"1" * 10_000])
def test_a_config_that_is_not_an_object_is_refused(content, hostile):
    (hostile / "config.json").write_bytes(content)
    refused(lambda: load_model(hostile), f"{hostile}/config.json is not a config of minigrad: ")
    refused(lambda: Run.resume(hostile), f"{hostile}/config.json is not a config of minigrad: ")


@pytest.mark.parametrize("sizes", [{"hidden": 2**20}, {"layers": 1000}, {"embedding": 2**20}])
def test_sizes_that_differ_from_the_checkpoint_are_refused_before_a_model_is_built(sizes, hostile, monkeypatch):
    change_config(hostile, settings=sizes)
    arrays, meta = checkpoint.load(hostile / "checkpoint.npz")
    meta["settings"] |= sizes
    if "hidden" in sizes:
        arrays["model/linear.weight"] = np.zeros((arrays["model/linear.weight"].shape[0], 2**20), np.float32)
    checkpoint.save(hostile / "checkpoint.npz", arrays, meta)
    monkeypatch.setattr(Settings, "model", lambda *_, **__: pytest.fail("built"))
    if Settings.of(**meta["settings"]).task != "text" and "embedding" in sizes:
        pytest.skip("numbers are not embedded")
    refused(lambda: load_model(hostile), "weights, and the model has")
    refused(lambda: Run.resume(hostile), "weights, and the model has")


def test_a_text_that_is_a_device_is_not_read(hostile):
    config = json.loads((hostile / "config.json").read_text())
    if config["settings"]["task"] == "text":
        change_config(hostile, settings={"options": {"file": "/dev/zero"}})
        refused(lambda: Run.resume(hostile), "/dev/zero is not a regular file")


# -- signals -------------------------------------------------------------------------------------------


PARITY = ["train", "parity", "--length", "20", "--hidden", "8", "--steps", "150", "--checkpoint-every", "7", "--out"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main([*PARITY, str(folder)]) == 1  # the task was not solved
    return folder


@POSIX
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGKILL, -9)])
def test_the_command_can_be_stopped_and_resumed(number, status, uninterrupted, tmp_path, capsys):
    """Ctrl-C and SIGTERM save and print how to continue; SIGKILL leaves the last checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "minigrad", *PARITY, tmp_path / "run"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "checkpoint.npz").exists():
        time.sleep(0.002)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and err == ""
    if number != signal.SIGKILL:
        assert "trained: interrupted after" in out
        assert out.endswith(f"continue with: minigrad train --resume {tmp_path / 'run'}\n")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().out
    assert "resumed after step" in said and "not solved" in said
    assert_same_end(uninterrupted, tmp_path / "run")
