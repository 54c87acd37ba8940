"""The command line: the main job at a small size, and what it says to bad input."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

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
