"""`minigrad audit`: exit status, text, and a process that may print, hang or end."""

from pathlib import Path

import pytest

from minigrad.cli import main

STUDENTS = Path(__file__).parent / "students"


def edited(tmp_path, old, new):
    text = (STUDENTS / "cs231n.py").read_text()
    assert old in text
    (tmp_path / "mine.py").write_text(text.replace(old, new, 1))
    return f"{tmp_path / 'mine.py'}:rnn_step_backward"


def test_right(capsys):
    file = str(STUDENTS / "cs231n.py")
    assert main(["audit", f"{file}:rnn_backward"]) == 0
    assert capsys.readouterr().out == (f"{file}: functions in pairs, forward and backward\n"
                                       "rnn_step_backward (line 94): right\n"
                                       "rnn_backward (line 118): right\n")


def test_wrong_and_what_it_prints(tmp_path, capfd):
    what = edited(tmp_path, "dz = dnext_h * (1 - next_h ** 2)", "print('inside'); dz = dnext_h")
    assert main(["audit", what]) == 1
    out, err = capfd.readouterr()
    assert "rnn_step_backward (line 94): wrong" in out and "wrong: dx, dprev_h, dWx, dWh, db" in out
    assert "inside" not in out + err and "--printed shows them" in out
    assert main(["audit", what, "--printed"]) == 1
    assert "\n| inside\n" in capfd.readouterr().out


def test_not_written(tmp_path, capsys):
    what = edited(tmp_path, "    dz = dnext_h * (1 - next_h ** 2)\n", "    dz = None\n")
    assert main(["audit", what]) == 2
    assert "not written yet: dz (line 96)" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "said"), [
    ("import os; os._exit(7)", "ended the process that ran it, with status 7"),
    ("import signal; signal.setitimer(signal.ITIMER_REAL, 0)\n    while True: pass",
     "was still being run or judged after 5 s, in line 9"),
])
def test_a_process_that_ends_or_hangs(code, said, tmp_path, capsys):
    what = edited(tmp_path, "    dz = dnext_h * (1 - next_h ** 2)\n", f"    {code}\n")
    assert main(["audit", what, "--seconds", "5"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [
    (["none.py"], "none.py is not a file"),
    (["none.py:f"], "none.py is not a file"),
    (["none.py:f", "--forward", "none.py:g"], "--forward and --shapes go together"),
    (["none.py:f", "--forward", "none.py", "--shapes", "x=3"], "name two functions"),
    (["none.py", "--forward", "none.py:g", "--shapes", "x=3"], "name two functions"),
])
def test_bad_arguments(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_named_functions(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text("import numpy as np\ndef forward(x, W):\n    return np.tanh(W @ x)\n"
                    "def backward(d, x, W):\n    dz = d * (1 - forward(x, W) ** 2)\n    return W.T @ dz, dz @ x.T\n")
    assert main(["audit", f"{file}:backward", "--forward", f"{file}:forward", "--shapes", "x=3,2 W=5,3"]) == 0
    assert capsys.readouterr().out == f"{file}: named functions\nbackward (line 4): right\n"
