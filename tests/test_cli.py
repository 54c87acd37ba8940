"""The command line: the main job at a small size, and what it says to bad input."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import minigrad as mg
from minigrad.cli import main

SMALL = ["train", "--steps", "12", "--hidden", "8"]


def test_train_checks_trains_measures_and_samples(capsys):
    assert main(SMALL) == 0
    out = capsys.readouterr().out
    check, text, model = out.splitlines()[:3]
    assert re.fullmatch(r"gradient check: worst relative error \d\.\de-1\d, in \w+ "
                        r"\(complex step, tolerance 1e-09\): passed", check)
    assert "pydoc_data.topics" in text and "8 hidden units" in model
    assert "step 12 of 12" in out and "trained: 12 steps" in out
    bits = re.search(r"held out: LSTM ([\d.]+), bigram ([\d.]+), unigram ([\d.]+)", out)
    assert float(bits[2]) < float(bits[3]) < float(bits[1]) < 7  # twelve steps do not beat the baselines
    assert len(out.split("sample:\n")[1]) > 100


def test_train_on_a_file(tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("to be or not to be, " * 50)
    assert main([*SMALL, "--text", str(file)]) == 0
    assert f"1,000 characters, 8 distinct, from {file}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, sentence", [
    (["train", "--text", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
    (["train", "--steps", "0"], "'0' is no whole number above 0"),
    (["train", "--lr", "nan"], "'nan' is no number above 0"),
    (["train", "--hidden", "many"], "'many' is no whole number"),
    (["derive", "lsmt"], "'lsmt' is neither lstm, gru, rnn, document nor FILE.py:function: did you mean lstm?"),
    (["derive", "rnn", "--sizes", "3,0,4"], "'3,0,4' is no input, hidden and batch size, as 3,5,4"),
    (["derive", "rnn", "--shapes", "x=3,4"], "--shapes is not for rnn, which takes --sizes"),
    (["derive", "nowhere.py:cell"], "nowhere.py is no file"),
    (["trian"], "invalid choice: 'trian'"),
    ([], "required: command"),
])
def test_bad_input_is_status_2_and_a_sentence(arguments, sentence, capsys):
    try:
        status = main(arguments)
    except SystemExit as exit:  # argparse's own way out
        status = exit.code
    captured = capsys.readouterr()
    assert status == 2 and sentence in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize("content", [b"", b"\xff\xfe is not UTF-8, and long enough to be a text"])
def test_a_bad_file_is_status_2(tmp_path, content, capsys):
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    assert main(["train", "--text", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


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
    assert "for t in reversed(range(7)):" in printed([f"{file}:over_time", "--shapes", "xs=7,3,4 h=5,4"], capsys)
    assert "np.float32" in printed([f"{file}:step", "--shapes", "x=3,4 h_prev=5,4", "--planned",
                                    "--dtype", "float32"], capsys)


@pytest.mark.parametrize("name, shapes, sentence", [
    ("cel", "", "model.py has no function 'cel': did you mean cell?"),
    ("seven", "", "seven in {file} is no function, but of type int"),
    ("branch", "x=3", "branch cannot be derived: there is a branch on the value of a tensor at {file}:18"),
    ("branch", "", "branch takes x: give --shapes for x, as x=3,4"),
    ("branch", "x=three", "--shapes has 'x=three', where name=3,4 is expected"),
    ("step", "x=3,4 h_perv=5,4", "--shapes has 'h_perv', and {file}:step takes h_prev, x: did you mean h_prev?"),
    ("step", "x=4,4 h_prev=5,4", "step cannot be derived: matmul: a (5, 3), b (4, 4) do not go together"),
    ("cell", "state=(5,4),(5,4) x=3,4 weights={}", "cell cannot be derived: KeyError: 'W' (at {file}:7)"),
])
def test_derive_says_in_one_sentence_what_does_not_fit(name, shapes, sentence, file, capsys):
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
def test_a_file_that_does_not_run(content, problem, file, capsys):
    file.write_text(content)
    assert main(["derive", f"{file}:f"]) == 2
    said = capsys.readouterr().err
    assert f"{file} cannot be run: " in said and problem in said and said.count("\n") == 1


def test_colours_are_for_terminals(capsys, monkeypatch):
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


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to a process")
def test_ctrl_c_ends_with_what_there_is():
    process = subprocess.Popen([sys.executable, "-m", "minigrad", "train", "--steps", "100000", "--hidden", "8"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("model:"):
            break
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert re.search(r"trained: interrupted after \d+ of 100000 steps", out) and "sample:" in out
    assert "Traceback" not in err
