"""The command line: each command at a small size, and its messages for bad input."""

import dataclasses
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad.cli import bench, main, parser
from minigrad.tasks import TASKS
from minigrad.timeloop.cache import Programs
from minigrad.timeloop.compile import Compiler, loops_in
from minigrad.training import trust
from minigrad.training.settings import KNOWN_TASKS

SMALL = ["train", "--steps", "12", "--hidden", "8"]


def test_train_checks_trains_measures_and_samples(capsys):
    assert main(SMALL) == 0
    out = capsys.readouterr().out
    check, text, model = out.splitlines()[:3]
    assert re.fullmatch(r"gradient check: worst relative error \d\.\de-1\d, in [\w.]+ "
                        r"\(complex step, tolerance 1e-09\): passed", check)
    assert "pydoc_data.topics" in text and model.startswith("model: lstm, 8 hidden units, ")
    assert "step 12 of 12: loss" in out and re.search(r"trained: 12 steps, \d+ s, [\d,]+ tokens/s, loss [\d.]+ → ", out)
    bits = re.search(r"held out: LSTM ([\d.]+), bigram ([\d.]+), unigram ([\d.]+)", out)
    assert float(bits[2]) < float(bits[3]) < float(bits[1]) < 7  # twelve steps do not beat the baselines
    assert len(out.split("sample:\n")[1]) > 100


def test_train_on_a_file(tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("to be or not to be, " * 50)
    assert main([*SMALL, "--text", str(file)]) == 0
    assert f"1,000 characters, 8 distinct, from {file}" in capsys.readouterr().out


def test_train_a_task(capsys, monkeypatch):
    task = ["train", "parity", "--steps", "4", "--length", "5", "--batch", "3"]
    assert main(task) == 1  # the task was not solved
    out = capsys.readouterr().out
    assert "task: parity, Whether the number of ones among `length` bits is odd.\n" in out
    assert re.search(r"fraction right at the end: [\d.]+, without memory 0.5; not solved\n"
                     r"not kept: give --out DIR to keep the model\n$", out)
    assert "sample" not in out
    monkeypatch.setattr(TASKS["parity"], "goal", 0.0)
    assert main([*task, "--quiet"]) == 0
    trained, measured = capsys.readouterr().out.splitlines()
    assert trained.startswith("trained: 4 steps, 0 s") and measured.endswith("; solved")


def config_of(folder):
    return json.loads((folder / "config.json").read_text())["settings"]


def test_every_option_arrives(tmp_path):
    main(["train", "parity", "--cell", "gru", "--hidden", "3", "--layers", "2", "--length", "4", "--batch", "5",
          "--steps", "1", "--lr", "0.5", "--optimizer", "sgd", "--clip", "0.25", "--seed", "7", "--dtype", "float64",
          "--threads", "2", "--out", str(tmp_path / "run"), "--checkpoint-every", "9", "--quiet"])
    given = {"task": "parity", "cell": "gru", "hidden": 3, "layers": 2, "options": {"length": 4}, "batch": 5,
             "steps": 1, "lr": 0.5, "optimizer": "sgd", "clip": 0.25, "seed": 7, "dtype": "float64",
             "threads": 2, "checkpoint_every": 9}
    assert given.items() <= config_of(tmp_path / "run").items()
    main([*SMALL, "--length", "5", "--out", str(tmp_path / "text"), "--quiet"])
    assert config_of(tmp_path / "text")["bptt"] == 5  # for a text, how far gradients flow back


def test_resume_continues_and_refuses_other_options(tmp_path, capsys):
    folder = str(tmp_path / "run")
    assert main([*SMALL, "--out", folder]) == 0
    first = capsys.readouterr().out
    assert main(["train", "--resume", folder]) == 0
    again = capsys.readouterr().out
    assert "resumed after step 12 of 12" in again and "gradient check" not in again
    assert first.partition("bits")[2] == again.partition("bits")[2]  # the result and the sample
    for arguments, said in ((["--hidden", "4"], "--hidden"), (["adding", "--clip", "2"], "task, --clip")):
        assert main(["train", *arguments, "--resume", folder]) == 2
        assert f"{said} cannot be combined with --resume" in capsys.readouterr().err
    assert main([*SMALL, "--out", folder]) == 2
    assert f"{folder} already contains a run" in capsys.readouterr().err


def test_a_bar_on_terminals_and_lines_elsewhere(capsys, monkeypatch):
    main(["train", "parity", "--length", "5", "--steps", "20"])
    captured = capsys.readouterr()
    assert captured.out.count("\nstep ") == 10 and captured.err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    main(["train", "parity", "--length", "5", "--steps", "20"])
    captured = capsys.readouterr()
    assert "\nstep " not in captured.out and "20/20" in captured.err and "tokens/s" in captured.err
    main(["train", "parity", "--length", "5", "--steps", "20", "--quiet"])
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.count("\n") == 2


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("task", ["parity", "adding-1997", "copy"])
def test_the_bar_fits_the_terminal_and_shows_the_metric(task, columns, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(TASKS[task], "recipe", TASKS[task].recipe | {"validate_every": 2})
    main(["train", task, "--steps", "6", "--hidden", "4", "--batch", "2"])
    lines = re.split(r"[\r\n]+", capsys.readouterr().err)
    assert max(map(len, lines)) <= columns and "6/6" in "".join(lines)
    assert columns < 80 or any(re.search(rf"loss [\d.e-]+, ({TASKS[task].metric_name}|metric) [\d.]+", line)
                               for line in lines)
    assert columns < 200 or any("tokens/s" in line and TASKS[task].metric_name in line for line in lines)


def test_the_end_says_what_was_kept_and_how_to_go_on(tmp_path, capsys):
    train = ["train", "parity", "--length", "5", "--steps", "4", "--hidden", "4"]
    main([*train, "--out", str(tmp_path / "run")])
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"kept in {tmp_path}/run: the model in checkpoint.npz, the measurements in metrics.jsonl and result.json; "
        f"train on longer with: minigrad train --resume {tmp_path}/run --steps N")
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "4"]) == 1  # nothing new: as without
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "6", "--lr", "0.5"]) == 1
    assert "resumed after step 4 of 6" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows][3:] == [rows[0]["lr"], 0.5, 0.5]
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "5"]) == 2
    assert "steps is the number of all steps of the run, more than the 6" in capsys.readouterr().err


def test_own_data_is_trained_on_and_sampled(tmp_path, capsys):
    mg.data.Sequences([".anna.", ".emma.", ".lena.", ".ella."]).save(tmp_path / "names.npz")
    folder = str(tmp_path / "run")
    assert main(["train", "--data", str(tmp_path / "names.npz"), "--steps", "30", "--out", folder]) in (0, 1)
    out = capsys.readouterr().out
    assert "data: 4 sequences of 5 steps, 6 symbols → the next symbol at every step, from " in out
    assert main(["sample", folder, "--length", "12", "--prime", "."]) == 0
    assert set(capsys.readouterr().out) <= set(".aelmn\n")
    mg.data.Sequences([".anna.", ".emma.", ".lena.", ".elle."]).save(tmp_path / "names.npz")
    assert main(["train", "--resume", folder, "--steps", "40"]) == 2
    assert "names.npz has changed since the run in" in capsys.readouterr().err


def test_lr_range_prints_and_writes_the_losses(tmp_path, capsys):
    file = tmp_path / "range.csv"
    assert main(["lr-range", "parity", "--length", "5", "--steps", "12", "--range", "1e-3,1", "--out", str(file)]) == 0
    assert "the loss falls fastest at lr " in capsys.readouterr().out
    head, *rows = file.read_text().splitlines()
    assert head == "lr,loss,smoothed" and len(rows) == 12
    assert float(rows[0].split(",")[0]) == 1e-3 and float(rows[-1].split(",")[0]) == 1.0


def test_divergence_is_status_1_and_a_sentence(tmp_path, capsys):
    assert main(["train", "adding", "--length", "5", "--optimizer", "sgd", "--lr", "1e30", "--out",
                 str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"minigrad train: (the loss|the norm of the gradients) is \S+ at step \d: \w+ of .* gave .*; "
                        rf"there is no checkpoint yet in {tmp_path}/run\n", said)


def wrong(op, monkeypatch):
    """Scale every rule of an op by 1.001."""
    vjps = [vjp._replace(recorded=lambda *a, vjp=vjp: 1.001 * vjp.recorded(*a),
                         plain=lambda *a, vjp=vjp: 1.001 * vjp.plain(*a)) for vjp in mg.OPS[op].vjps]
    monkeypatch.setattr(mg.OPS[op], "vjps", vjps)
    monkeypatch.setattr(sys.modules["minigrad.timeloop.compiled"], "programs", Programs(limit=128))


def test_a_wrong_gradient_stops_training_before_it_begins(monkeypatch, capsys):
    wrong("cross_entropy", monkeypatch)
    assert main(SMALL) == 1
    out = capsys.readouterr().out
    assert "): FAILED\n" in out and "the rule cross_entropy.dlogits is wrong" in out and "trained" not in out


@pytest.mark.parametrize("arguments, sentence", [
    (["train", "--text", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
    (["train", "--steps", "0"], "'0' is not a whole number above 0"),
    (["train", "--lr", "nan"], "'nan' is not a number above 0"),
    (["train", "--hidden", "many"], "'many' is not a whole number"),
    (["train", "--seed", "-1"], "'-1' is not a whole number from 0 on"),
    (["train", "ading"], "there is no task 'ading': did you mean adding?"),
    (["train", "adding", "--cell", "lsmt"], "'lsmt' is neither rnn, gru, lstm nor FILE.py:Class: did you mean lstm?"),
    (["train", "adding", "--optimizer", "adma"], "there is no optimizer 'adma': did you mean adam?"),
    (["train", "adding", "--text", "novel.txt"], "--text is not for the task adding"),
    (["train", "reber", "--length", "9"], "the task reber has no option 'length'"),
    (["train", "--resume", "nowhere"], "nowhere is not the folder of a run, as it has no config.json"),
    (["train", "parity", "--out", "/dev/null/run"], "/dev/null/run cannot be created"),
    (["sample", "nowhere"], "nowhere is not the folder of a run"),
    (["sample", "nowhere", "--temperature", "-1"], "'-1' is not a number from 0 on"),
    (["gradcheck", "nowhere.py:Cell"], "nowhere.py is not a file"),
    (["gradcheck", "gnu"], "did you mean gru?"),
    (["bench", "--seconds", "0"], "'0' is not a number above 0"),
    (["derive", "lsmt"], "'lsmt' is neither lstm, gru, rnn, document nor FILE.py:Class nor FILE.py:function: did you "
     "mean lstm?"),
    (["derive", "rnn", "--sizes", "3,0,4"], "'3,0,4' is not an input, hidden and batch size such as 3,5,4"),
    (["derive", "rnn", "--shapes", "x=3,4"], "--shapes is not for rnn, which takes --sizes"),
    (["derive", "nowhere.py:cell"], "nowhere.py is not a file"),
    (["trian"], "invalid choice: 'trian'"),
    (["tasks", "ading"], "there is no task 'ading': did you mean adding?"),
    (["adding"], "invalid choice: 'adding': did you mean train adding?"), (["help"], "did you mean --help?"),
    (["train", "adding", "--data", "own.npz"], "--data is not for the task adding"),
    (["train", "--data", "nowhere.npz"], "nowhere.npz cannot be read: No such file"),
    (["lr-range", "--range", "1,0"], "'1,0' is not a range of lr such as 1e-5,1"),
    (["sweep", "adding", "--out", "x", "--seed", "3-1"], "'3-1' is not a range of whole numbers, such as 0-9"),
    (["sweep", "adding", "--out", "x", "--lr", "0.1,0.10"], "lists a value twice"),
    (["sweep", "adding", "--out", "x", "--lr", "0.1,-1"], "'-1' is not a number above 0"),
    (["sweep", "adding", "--out", "x", "--cell", "rnn,lsmt"], "did you mean lstm?"),
    (["sweep", "ading", "--out", "x"], "there is no task 'ading': did you mean adding?"),
    (["sweep", "adding"], "required: --out"),
])
def test_bad_input_is_status_2_and_a_sentence(arguments, sentence, capsys):
    try:
        status = main(arguments)
    except SystemExit as exit:  # raised by argparse
        status = exit.code
    captured = capsys.readouterr()
    assert status == 2 and sentence in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize("content", [b"", b"\xff\xfe is not UTF-8, and long enough to be a text"])
def test_a_bad_file_is_status_2(tmp_path, content, capsys):
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    assert main(["train", "--text", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "sample", "sweep", "lr-range", "tasks", "inspect", "gradcheck", "derive",
                                     "bench"])
def test_help_has_examples_that_can_be_parsed(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    examples = re.findall(r"^  minigrad (.*?)(?:   .*)?$", capsys.readouterr().out.split("examples:")[1], re.M)
    assert examples
    for example in examples:
        assert parser().parse_args(shlex.split(example)).command == command


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to a process")
def test_ctrl_c_prints_the_result_so_far():
    process = subprocess.Popen([sys.executable, "-m", "minigrad", *SMALL, "--steps", "500"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert any(line.startswith("step 50 of 500") for line in process.stdout)  # it reads no further
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err == ""
    assert re.search(r"trained: interrupted after \d+ of 500 steps", out)
    assert out.endswith("not saved, since --out DIR was not given\n")


def test_a_reader_that_closes_the_pipe_is_not_an_error():
    done = subprocess.run(f"{sys.executable} -m minigrad tasks | head -n 1; exit ${{PIPESTATUS[0]}}", shell=True,
                          executable="/bin/bash", capture_output=True, text=True)
    assert done.stdout.startswith("adding") and done.stderr == ""


def command(*arguments, **options):
    """Run `minigrad …` as a process."""
    options = {"capture_output": True, **options}
    options["env"] = os.environ | options.pop("env", {})
    return subprocess.run([sys.executable, "-m", "minigrad", *arguments], **options)


def without_torch(folder):
    """The environment of a process that cannot import PyTorch, which would take bench seconds."""
    (folder / "torch.py").write_text("raise ImportError")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.path.dirname(os.path.dirname(mg.__file__))}"}


QUICK = [["tasks"], ["derive", "lstm", "--planned"], ["derive", "--help"], ["gradcheck", "rnn"],
         ["bench", "--seconds", "0.0001"], ["inspect", "rnn", "--text", "abcä"],
         ["train", "parity", "--length", "5", "--steps", "2"]]


@pytest.mark.parametrize("encoding, arguments", [*[("ascii", arguments) for arguments in QUICK], ("cp1252", QUICK[-1]),
                                                 ("cp1252", QUICK[2])])
def test_a_terminal_without_unicode_loses_no_result(encoding, arguments, tmp_path):
    if arguments[0] == "inspect":
        arguments = [*arguments, "--out", str(tmp_path / "report.html")]
    done = command(*arguments, env={"PYTHONIOENCODING": encoding} | without_torch(tmp_path))
    assert done.returncode == (1 if arguments[0] == "train" else 0) and b"Error" not in done.stderr, done.stderr
    done.stdout.decode(encoding)


def test_a_text_is_sampled_on_a_terminal_without_its_characters(tmp_path):
    (tmp_path / "text.txt").write_text("жук\n" * 100, encoding="utf-8")
    folder = str(tmp_path / "run")
    trained = command("train", "--text", str(tmp_path / "text.txt"), "--hidden", "4", "--steps", "2", "--out", folder,
                      env={"PYTHONIOENCODING": "ascii"})
    sampled = command("sample", folder, "--length", "50", env={"PYTHONIOENCODING": "ascii"})
    assert trained.returncode == sampled.returncode == 0 and b"\\u0436" in sampled.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_an_unwritable_output_is_a_sentence():
    for arguments in (["tasks"], ["derive", "lstm"]):
        with open("/dev/full", "w") as full:
            done = command(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        said = f"minigrad {arguments[0]}: the output: No space left on device\n"
        assert (done.returncode, done.stderr.decode()) == (1, said)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to a process")
@pytest.mark.parametrize("arguments", [["tasks"], ["bench", "--seconds", "100"]], ids=" ".join)
@pytest.mark.parametrize("name", ["numpy", "minigrad.engine.tensor", "minigrad.microscope.page.rendering",
                                  "minigrad.cli.bench"])
def test_ctrl_c_during_imports_ends_quietly(name, arguments, tmp_path):
    """The process sends itself SIGINT when it imports `name`."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
""")
    root = os.path.dirname(os.path.dirname(mg.__file__))
    done = command(*arguments, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"})
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to a process")
def test_ctrl_c_during_a_command_ends_quietly(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "minigrad", "bench", "--seconds", "100"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=os.environ | without_torch(tmp_path))
    process.stdout.readline()  # the header: now it measures
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")


def test_ctrl_c_is_unchanged_when_minigrad_is_a_library():
    code = "import signal, minigrad; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("arguments, meant", [
    (["train", "adding", "--lenght", "20"], "--length"), (["train", "--stpes=5"], "--steps"),
    (["train", "-lenght", "20"], "--length"), (["sample", "run", "--temprature", "1"], "--temperature"),
    (["sample", "--trsut"], "--trust"), (["inspect", "--taks", "adding", "lstm"], "--task"),
    (["derive", "--plannned"], "--planned"), (["derive", "lstm", "--siezs=1,2,3"], "--sizes"),
    (["bench", "--treads", "2"], "--threads"), (["gradcheck", "--hlep"], "--help"), (["tasks", "--hepl"], "--help"),
    (["sweep", "--job", "2", "--cel", "rnn", "--sead", "1"], "--seed"),
    (["--verison"], "--version"), (["sweeep", "adding"], "sweep"),
    (["derive", "lstm", "--dtype", "flaot32"], "float32"), (["trian", "adding"], "train")])
def test_a_mistyped_word_gets_the_nearest_one(arguments, meant, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    said = capsys.readouterr().err
    assert exit.value.code == 2 and f"did you mean {meant}?" in said.splitlines()[-1]
    of = "[-h]" if arguments[0] in ("trian", "sweeep", "--verison") else arguments[0]
    assert said.startswith(f"usage: minigrad {of} ")


# -- runs from somebody else ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["sample", "run", "--length", "5"], ["train", "--resume", "run", "--quiet"],
                                       ["inspect", "run", "--text", "one line"]], ids=lambda arguments: arguments[0])
def test_a_command_runs_the_file_named_by_a_folder_only_if_trusted(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("one line\n" * 40)
    cell = "from minigrad import nn\nclass Mine(nn.GRUCell):\n    pass\n"
    (tmp_path / "own.py").write_text(cell)
    train = ["train", "--text", "text.txt", "--cell", "own.py:Mine", "--hidden", "4", "--steps", "3", "--quiet"]
    assert main([*train, "--out", "run"]) == 0
    assert main(arguments) == 0  # this user trained it
    monkeypatch.setenv("MINIGRAD_STATE", str(tmp_path / "another user"))
    monkeypatch.setattr(trust, "SESSION", set())
    capsys.readouterr()
    assert main(arguments) == 2
    assert "names the Python file" in capsys.readouterr().err
    assert main([*arguments, "--trust"]) == 0
    (tmp_path / "own.py").write_text(cell + "# changed\n")
    capsys.readouterr()
    assert main([*arguments, "--trust"]) == 2
    assert "own.py has changed since the run in run began" in capsys.readouterr().err


def test_trust_is_only_for_the_folder_of_a_run(capsys):
    for arguments in (["train", "adding", "--trust"], ["inspect", "lstm", "--trust"]):
        assert main(arguments) == 2
        assert "that you name is run anyway" in capsys.readouterr().err


# -- sample, tasks, gradcheck, bench --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fox(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fox")
    (folder / "fox.txt").write_text("the quick brown fox.\n" * 60)
    assert main(["train", "--text", str(folder / "fox.txt"), "--hidden", "24", "--steps", "150", "--batch", "8",
                 "--length", "16", "--lr", "0.02", "--out", str(folder / "run"), "--quiet"]) == 0
    (folder / "fox.txt").unlink()  # no longer needed
    return str(folder / "run")


def test_a_sample_continues_its_prime(fox, capsys):
    def sampled(*arguments):
        capsys.readouterr()
        assert main(["sample", fox, *arguments]) == 0
        return capsys.readouterr().out
    assert sampled("--prime", "the qu", "--temperature", "0", "--length", "15") == "the quick brown fox.\n\n"
    assert len(sampled()) == 401
    wild = ("--temperature", "2")
    assert sampled(*wild) == sampled(*wild) != sampled(*wild, "--seed", "1")
    assert main(["sample", fox, "--prime", "the QUICK"]) == 2
    assert "--prime has 'CIKQU', which is not in the text that the model was trained on" in capsys.readouterr().err


def test_a_model_of_a_task_cannot_be_sampled(tmp_path, capsys):
    main(["train", "parity", "--length", "5", "--steps", "1", "--out", str(tmp_path / "run")])
    assert main(["sample", str(tmp_path / "run")]) == 2
    assert "contains a model of the task parity, which does not write text" in capsys.readouterr().err


def test_tasks_are_listed_one_per_line(capsys):
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(KNOWN_TASKS) and all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", KNOWN_TASKS)
def test_a_task_is_shown_with_its_setup_recipe_defaults_and_published_figures(name, capsys):
    assert main(["tasks", name]) == 0
    out, kind = capsys.readouterr().out, KNOWN_TASKS[name]
    assert max(map(len, out.splitlines())) <= 100 and out.startswith(f"{name}: ")
    words = " ".join(out.split())
    assert f"hidden {kind.recipe['hidden']}, " in words and "Metric: " in words and "\noptions " in out
    assert name == "sequences" or "Published" in words or "published" in words
    assert all(one.name in words for one in dataclasses.fields(kind))


def test_minigrad_alone_prints_help_and_its_version_on_demand(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: minigrad")
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out == f"minigrad {mg.__version__}\n"


def test_gradcheck_of_the_built_in_cells(capsys):
    assert main(["gradcheck"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["rnn", "gru", "lstm"]
    assert all(line.endswith("(complex step, tolerance 1e-09): passed") for line in lines)


def test_gradcheck_of_a_user_defined_cell(tmp_path, capsys, monkeypatch):
    file = tmp_path / "cells.py"
    file.write_text("from minigrad import nn\nclass Mine(nn.LSTMCell):\n    pass\n")
    assert main(["gradcheck", f"{file}:Mine"]) == 0
    assert "recurrent.layers.l1.W" in capsys.readouterr().out  # the whole report
    wrong("sigmoid", monkeypatch)
    assert main(["gradcheck", f"{file}:Mine"]) == 1
    assert "the rule sigmoid.dx is wrong" in capsys.readouterr().out


@pytest.mark.parametrize("torch", [True, False])
@pytest.mark.parametrize("compiles", [True, False])
def test_bench_measures_both_loops_next_to_pytorch(torch, compiles, capsys, monkeypatch):
    if torch:
        pytest.importorskip("torch")
    else:
        monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    if not compiles:
        monkeypatch.setattr(bench, "compiler", Compiler("none"))
    elif not bench.compiler.enabled():
        pytest.skip("no C compiler")
    ran = []
    monkeypatch.setattr(bench, "loops_in", lambda kind: (ran.append(kind), loops_in(kind))[1])
    monkeypatch.setattr(bench, "LAYERS", ((1, 3, 4, 5), (2, 3, 4, 6)))
    columns = ["C"] * compiles + ["NumPy"] + ["PyTorch"] * torch
    measured = itertools.cycle([2.0 + n if column == "PyTorch" else 4.0 + n
                                for n in (-1.0, 0.0, 5.0, 0.0, -0.5, 1.0, 0.0) for column in columns])  # medians 2, 4
    monkeypatch.setattr(bench, "milliseconds", lambda call, seconds: (call(), next(measured))[1])
    assert main(["bench", "--seconds", "0.001"]) == 0
    *why, head, first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert why == ([] if compiles else ["All loops run in NumPy: the C compiler is switched off (MINIGRAD_CC=none)."])
    assert head.split()[2:2 + len(columns)] == columns and ("/ PyTorch" in head) == torch
    for row in (first, second, third, fourth):
        found = list(map(float, re.findall(r"([\d.]+)(?: ms|$)", row)))
        assert found == [4.0] * (1 + compiles) + [2.0, 2.0] * torch
    assert set(ran) == ({"c", "numpy"} if compiles else {"numpy"})


# -- derive -------------------------------------------------------------------------------------------------

CELLS = """
import numpy as np
import minigrad as mg

def cell(state, x, weights, scale=2.0):
    h, c = state
    c_next = scale * c + np.tanh(weights["W"] @ x)
    h_next = h * c_next
    return (h_next, c_next), h_next

W = mg.tensor(np.ones((5, 3), np.float32), requires_grad=True)

def step(h_prev, x):
    h = np.tanh(W @ x + h_prev)
    return h, h

def branch(x):
    return x if x[0] > 0 else -x

def over_time(xs, h):
    return mg.scan(step, h, xs)[1]

seven = 7
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(CELLS)
    return path


def printed(arguments, capsys):
    assert main(["derive", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "document"])
@pytest.mark.parametrize("planned", [[], ["--planned"]], ids=["derived", "planned"])
def test_derive_prints_the_cells_of_minigrad(name, planned, capsys):
    out = printed([name, "--sizes", "2,6,3", *planned], capsys)
    module = {}
    exec(out, module)
    assert "forward" in module and "backward" in module and ("for t" in out) == bool(planned)


def test_derive_prints_a_function_of_a_file(file, capsys):
    out = printed([f"{file}:cell", "--shapes", "x=3,4 state=(5,4),(5,4) weights={'W': (5, 3)}"], capsys)
    weights = {"W": np.zeros((5, 3))}

    def cell(state, x, weights):
        h, c = state
        c_next = 2.0 * c + np.tanh(weights["W"] @ x)
        h_next = h * c_next
        return (h_next, c_next), h_next
    assert out == mg.derive(cell, (np.zeros((5, 4)),) * 2, np.zeros((3, 4)), weights).source
    assert out != (equations := printed([f"{file}:cell", "--latex", "--shapes",
                                         "x=3,4 state=(5,4),(5,4) weights={'W': (5, 3)}"], capsys))
    assert equations == mg.derive(cell, (np.zeros((5, 4)),) * 2, np.zeros((3, 4)), weights).latex + "\n"
    assert "for t in reversed(range(T)):" in printed([f"{file}:over_time", "--shapes", "xs=7,3,4 h=5,4"], capsys)
    assert "np.float32" in printed([f"{file}:step", "--shapes", "x=3,4 h_prev=5,4", "--planned",
                                    "--dtype", "float32"], capsys)


@pytest.mark.parametrize("name, shapes, sentence", [
    ("cel", "", "model.py has no function or class 'cel': did you mean cell?"),
    ("seven", "", "seven in {file} is not a function or class; its type is int"),
    ("branch", "x=3", "branch cannot be derived: there is a branch on the value of a tensor at {file}:18"),
    ("branch", "", "branch takes x: give --shapes for x, as x=3,4"),
    ("branch", "x=three", "--shapes has 'x=three', where name=3,4 is expected"),
    ("step", "x=3,4 h_perv=5,4", "--shapes has 'h_perv', and {file}:step takes h_prev, x: did you mean h_prev?"),
    ("step", "x=4,4 h_prev=5,4", "step cannot be derived: matmul: a (5, 3), b (4, 4) do not go together"),
    ("cell", "state=(5,4),(5,4) x=3,4 weights={}", "cell cannot be derived: KeyError: 'W' (at {file}:7)"),
])
def test_derive_refuses_unfit_input_in_one_sentence(name, shapes, sentence, file, capsys):
    assert main(["derive", f"{file}:{name}", "--shapes", shapes]) == 2
    said = capsys.readouterr().err
    assert sentence.replace("{file}", str(file)) in said and said.count("\n") == 1


@pytest.mark.parametrize("name, shapes, sentence", [
    ("branch", "x=3", "--planned is for a cell (state, x) → (state, y)"),
    ("cell", "state=(5,4),(5,4) x=3,4 weights={'W': (5, 3)}", "takes 3 arguments"),
])
def test_only_a_cell_can_be_planned(name, shapes, sentence, file, capsys):
    assert main(["derive", f"{file}:{name}", "--shapes", shapes, "--planned"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("content, problem", [("def f(:", "invalid syntax"), ("1 / 0", "ZeroDivisionError")])
def test_a_file_that_fails_is_named(content, problem, file, capsys):
    file.write_text(content)
    assert main(["derive", f"{file}:f"]) == 2
    said = capsys.readouterr().err
    assert f"{file} cannot be run: " in said and problem in said and said.count("\n") == 1


def test_colours_only_on_terminals(capsys, monkeypatch):
    plain = printed(["rnn"], capsys)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(["rnn"], capsys) == plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setitem(sys.modules, "pygments", None)  # as if it were not installed
    assert printed(["rnn"], capsys) == plain
    monkeypatch.undo()
    pytest.importorskip("pygments")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = printed(["rnn"], capsys)
    assert "\x1b[" in coloured and re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


OWN = """
import numpy as np
import minigrad as mg
from minigrad import nn

class Mine(nn.Recurrent):
    def __init__(self, input_size, hidden_size, *, dtype, rng):
        self.W = mg.tensor(np.zeros((hidden_size, hidden_size + input_size), dtype), requires_grad=True)
        self.start = mg.tensor(np.zeros((hidden_size, 1), dtype), requires_grad=True)

    def initial_state(self, batch):
        return {"h": self.start}

    def cell(self, state, x):
        h = mg.tanh(self.W @ mg.concatenate([state["h"], x]))
        return {"h": h}, h

class NoCell:
    pass

class NoPair(Mine):
    def cell(self, state, x):
        return state
"""


@pytest.mark.parametrize("options, says", [
    ([], 'return ({"h": d_h}, d_x, d_W)'), (["--planned"], "for t in"), (["--sizes", "2,6,3"], "x (2, 3)")])
def test_derive_takes_a_class_like_the_other_commands(options, says, tmp_path, capsys):
    (tmp_path / "cells.py").write_text(OWN)
    out = printed([f"{tmp_path / 'cells.py'}:Mine", *options], capsys)
    module = {}
    exec(out, module)
    assert "forward" in module and "backward" in module and says in out


def test_derive_builds_a_class_from_its_two_sizes(tmp_path, capsys):
    (tmp_path / "cells.py").write_text("""
import numpy as np
import minigrad as mg
class Short(mg.nn.Recurrent):
    def __init__(self, inputs, hidden):
        self.U = mg.tensor(np.ones((hidden, hidden + inputs)), requires_grad=True)
    def initial_state(self, batch):
        return np.zeros((len(self.U), batch))
    def cell(self, h_prev, x):
        h = np.tanh(self.U @ np.concatenate([h_prev, x]))
        return h, h
class Broken(Short):
    def __init__(self, inputs):
        pass
""")
    assert main(["derive", f"{tmp_path / 'cells.py'}:Short"]) == 0
    assert "d_U = d_" in capsys.readouterr().out
    assert main(["derive", f"{tmp_path / 'cells.py'}:Broken"]) == 2
    assert "Broken cannot be built as Broken(3, 5)" in capsys.readouterr().err


@pytest.mark.parametrize("name, sentence", [
    ("NoCell", "subclass of nn.Recurrent"), ("NoPair", "NoPair does not run on sequences of shape"),
    ("Mind", "has no {kind} 'Mind': did you mean Mine?")])
def test_every_command_refuses_a_class_with_the_same_message(name, sentence, tmp_path, capsys):
    (tmp_path / "cells.py").write_text(OWN)
    what = f"{tmp_path / 'cells.py'}:{name}"
    for arguments, kind in ((["derive", what], "function or class"), (["gradcheck", what], "class"),
                            (["train", "parity", "--cell", what], "class"),
                            (["inspect", what, "--out", str(tmp_path / "report.html")], "class")):
        assert main(arguments) == 2
        assert sentence.format(kind=kind) in capsys.readouterr().err
