"""Sweeps: in processes, on a cluster and killed at any moment, each run ends as it does alone."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_run import POSIX, assert_same_end, here

from minigrad.cli import main
from minigrad.training import Run, Settings, sweep
from minigrad.training.folder import Folder

SMALL = {"options": {"length": 4}, "hidden": 4, "batch": 4, "steps": 8, "checkpoint_every": 3, "validate_every": 4}
AXES = {"cell": ["rnn", "gru"], "seed": range(2)}
MODULE = sys.modules["minigrad.training.sweep"]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The sweep that all others must equal, one run after another."""
    folder = tmp_path_factory.mktemp("serial")
    return folder, sweep("parity", folder, jobs=1, **SMALL, **AXES)


def assert_same_sweep(one, other):
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    assert names[0] == names[1] and len(names[0]) == 4
    for name in names[0]:
        assert_same_end(one / name, other / name)


def test_every_combination_is_a_run_of_its_own(serial):
    folder, result = serial
    assert sorted(path.name for path in folder.iterdir()) == [
        "cell=gru,seed=0", "cell=gru,seed=1", "cell=rnn,seed=0", "cell=rnn,seed=1"]
    for row in result.rows:
        settings = json.loads((Path(row["folder"]) / "config.json").read_text())["settings"]
        assert (settings["cell"], settings["seed"]) == (row["cell"], row["seed"])
    with Run.new(Settings.for_task("parity", cell="gru", seed=1, **SMALL), folder.parent / "alone") as run:
        run.go()
    assert_same_end(folder / "cell=gru,seed=1", folder.parent / "alone")


def test_the_table_has_mean_worst_and_the_number_solved(serial):
    _, result = serial
    rnn = [row["metric"] for row in result.rows if row["cell"] == "rnn"]
    head = result.table()[0]
    assert head["cell"] == "rnn" and head["mean"] == np.mean(rnn) and head["worst"] == min(rnn)
    assert (head["solved"], head["runs"], head["failed"], head["steps"]) == (0, 2, 0, 8)
    lines = str(result).splitlines()
    assert lines[0] == "fraction right at the end, without memory 0.5"
    assert lines[1].split() == ["cell", "mean", "worst", "solved", "steps"]
    assert lines[2].split() == ["rnn", f"{np.mean(rnn):.4g}", f"{min(rnn):.4g}", "0", "of", "2", "8"]


def test_processes_give_the_same_bits(serial, tmp_path):
    pytest.importorskip("joblib")
    lines = []
    result = sweep("parity", tmp_path, jobs=2, report=lines.append, **SMALL, **AXES)
    assert_same_sweep(serial[0], tmp_path)
    assert str(result) == str(serial[1]) and len(lines) == 4 and all("not solved in 8 steps" in line for line in lines)


def test_a_dask_cluster_gives_the_same_bits(serial, tmp_path):
    """Two workers in processes of their own, as the page on training shows."""
    joblib, distributed = pytest.importorskip("joblib"), pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, \
                distributed.Client(cluster), joblib.parallel_config(backend="dask"):
            result = sweep("parity", tmp_path, **SMALL, **AXES)
    assert_same_sweep(serial[0], tmp_path)
    assert str(result) == str(serial[1])


def test_runs_that_are_done_are_skipped_and_others_resumed(serial, tmp_path, monkeypatch):
    settings = Settings.for_task("parity", cell="rnn", seed=1, **SMALL)
    with Run.new(settings, tmp_path / "cell=rnn,seed=1") as run:
        run.trainer.callbacks.append(lambda trainer, row: row["step"] == 5)
        run.go()
    (tmp_path / "cell=rnn,seed=0").mkdir()  # killed before anything was written
    sweep("parity", tmp_path, jobs=1, **SMALL, **AXES)
    assert_same_sweep(serial[0], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(MODULE, "run_point", None)  # nothing runs
    lines = []
    assert str(sweep("parity", tmp_path, report=lines.append, **SMALL, **AXES)) == str(serial[1])
    assert lines == ["4 of 4 runs are done"] and {path: path.stat().st_mtime_ns for path in before} == before


def test_more_values_add_runs(tmp_path):
    sweep("parity", tmp_path, jobs=1, seed=[0], **SMALL)
    assert len(sweep("parity", tmp_path, jobs=1, seed=range(3), **SMALL).rows) == 3


def test_without_joblib_it_runs_serially_and_says_so_once(serial, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    lines = []
    sweep("parity", tmp_path, report=lines.append, **SMALL, **AXES)
    assert_same_sweep(serial[0], tmp_path)
    assert [line for line in lines if "joblib" in line] == [
        "joblib is not installed, so the runs go one after another: pip install joblib"]


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, capsys):
    arguments = ["sweep", "adding", "--length", "4", "--hidden", "4", "--steps", "5", "--lr", "0.1,1e30", "--optimizer",
                 "sgd", "--out", str(tmp_path), "--jobs", "1"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "0 of 1, 1 failed" in captured.out
    assert f"{tmp_path}/lr=1e+30: " in captured.err and " at step " in captured.err
    assert (tmp_path / "lr=0.1" / "result.json").exists()


def test_a_folder_in_use_is_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "PATIENCE", 0.3)
    settings = Settings.for_task("parity", seed=0, **SMALL)
    with Run.new(settings, tmp_path / "seed=0"):
        result = sweep("parity", tmp_path, jobs=1, seed=[0, 1], **SMALL)
    assert len(result.failed) == 1 and "is in use by another run" in result.failed[0]["failed"]
    assert not sweep("parity", tmp_path, jobs=1, seed=[0, 1], **SMALL).failed
    Folder(tmp_path / "seed=0").close()


OWN = "from minigrad import nn\nclass Mine(nn.GRUCell):\n    pass\n"


@pytest.mark.parametrize("given, sentence", [
    ({"cell": []}, "cell lists no value"), ({"seed": [1, 1]}, "two combinations would be called seed=1"),
    ({"cell": ["rnn", "lsmt"]}, "did you mean lstm?"),
    ({"hiden": 3}, "there is no setting 'hiden': did you mean hidden?"),
    ({"options": {"lenght": 3}}, "the task parity has no option 'lenght': did you mean length?"),
    ({"lr": [0.1, "x"]}, "lr is a finite number, not 'x'"),
    ({"steps": 9}, "contains a run with other settings (steps is 8")],
    ids=str)
def test_bad_input_is_a_sentence_before_any_training(given, sentence, tmp_path):
    sweep("parity", tmp_path, jobs=1, **SMALL | {"seed": [0]})
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(ValueError) as error:
        sweep("parity", tmp_path, **(SMALL | {"seed": [0]} | given))
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert {path for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"metric": "a"}', b"\xff"], ids=str)
def test_a_damaged_result_is_named(content, tmp_path):
    sweep("parity", tmp_path, jobs=1, **SMALL | {"seed": [0]})
    (tmp_path / "seed=0" / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json is damaged: remove it"):
        sweep("parity", tmp_path, jobs=1, **SMALL | {"seed": [0]})
    (tmp_path / "seed=0" / "result.json").unlink()
    sweep("parity", tmp_path, jobs=1, **SMALL | {"seed": [0]})


def test_a_cell_of_ones_own_is_swept(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    result = sweep("parity", tmp_path / "runs", jobs=1, cell=["gru", f"{tmp_path}/own.py:Mine"], **SMALL)
    assert [Path(row["folder"]).name for row in result.rows] == ["cell=gru", "cell=Mine"]
    assert [line.split()[0] for line in str(result).splitlines()[2:]] == ["gru", "Mine"]


# -- kills and signals -----------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "minigrad", "sweep", "parity", "--length", "4", "--hidden", "4", "--batch", "4",
           "--checkpoint-every", "3", "--cell", "rnn,gru", "--seed", "0-1", "--jobs", "2"]


def started(folder, steps):
    """The sweep as a process. Its errors go to a file, since idle workers of a killed one would keep a pipe open."""
    with open(errors(folder), "w") as file:
        return subprocess.Popen([*COMMAND, "--steps", str(steps), "--out", str(folder)], env=here(), text=True,
                                start_new_session=True, stdout=subprocess.DEVNULL, stderr=file)


def errors(folder):
    return folder.with_name(f"{folder.name}.errors")


def workers(process):
    """The processes that it started to work."""
    listed = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True,
                            text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "LokyProcess" in line]


def killed_until_it_ends(folder, steps, seed, longest):
    """Kill the sweep's process, one of its workers, or all of them, at random moments until it ends. Returns deaths."""
    rng, deaths = np.random.default_rng(seed), 0
    while True:
        process = started(folder, steps)
        try:
            process.wait(timeout=rng.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            deaths, longest = deaths + 1, longest * 1.1
            kind = rng.integers(3)
            if kind == 0:
                os.killpg(process.pid, signal.SIGKILL)
            elif kind == 1 and (found := workers(process)):
                os.kill(found[rng.integers(len(found))], signal.SIGKILL)
            else:
                process.kill()
            if process.wait(timeout=120) == 1:
                assert "a worker process was killed" in errors(folder).read_text()
        assert "Traceback" not in errors(folder).read_text(), errors(folder).read_text()
        if process.returncode == 0:
            return deaths


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_killed_at_random_moments_ends_like_one_left_alone(seed, tmp_path):
    pytest.importorskip("joblib")
    assert started(tmp_path / "whole", 400).wait(timeout=300) == 0, errors(tmp_path / "whole").read_text()
    assert killed_until_it_ends(tmp_path / "killed", 400, seed, 4.0)
    assert_same_sweep(tmp_path / "whole", tmp_path / "killed")


@POSIX
def test_workers_of_a_killed_sweep_stop_and_the_next_one_continues(tmp_path):
    pytest.importorskip("joblib")
    out = tmp_path / "runs"
    process = started(out, 100_000)
    while len(list(out.glob("*/checkpoint.npz"))) < 2:
        time.sleep(0.05)
    own = workers(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(alive, own)):
        assert len(own) == 2 and time.monotonic() < deadline
        time.sleep(0.1)
    for folder in out.glob("*"):
        with Run.resume(folder) as run:
            assert run.trainer.step >= 1  # saved after the step that it was in


def alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and "Z" not in state


@POSIX
def test_ctrl_c_saves_the_runs_and_says_how_to_continue(tmp_path):
    pytest.importorskip("joblib")
    process = started(tmp_path / "runs", 100_000)
    while len(list((tmp_path / "runs").glob("*/checkpoint.npz"))) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(timeout=60) == 130
    assert errors(tmp_path / "runs").read_text() == \
        "interrupted; the runs are saved, and the same command continues them\n"
