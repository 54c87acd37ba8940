"""Every example runs, at a reduced size and without a display."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# file → the arguments that make it small; {tmp} is a folder for what it writes
REDUCED = {
    "vanishing_gradient.py": ["--steps", "12", "--hidden", "4", "--seeds", "2", "--out", "{tmp}/picture.png"],
}


def main_of(file):
    return runpy.run_path(EXAMPLES / file)["main"]


def test_every_example_has_a_row():
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(REDUCED)


@pytest.mark.parametrize("file", REDUCED)
def test_example_runs(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    main_of(file)([argument.format(tmp=tmp_path) for argument in REDUCED[file]])
    assert capsys.readouterr().out.strip()


def test_vanishing_gradient_prints_its_table_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "new" / "picture.png"
    main_of("vanishing_gradient.py")(["--steps", "20", "--hidden", "6", "--seeds", "3", "--out", str(picture)])
    printed = capsys.readouterr().out
    rows = {line[:20].strip(): line.split() for line in printed.splitlines()}
    for network in ("plain RNN", "RNN, orthogonal", "LSTM, forget bias 0", "LSTM, forget bias 1"):
        assert 0 < float(rows[network][-1]) < 1  # the factor of one step
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_vanishing_gradient_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # makes `import matplotlib` fail
    picture = tmp_path / "picture.png"
    main_of("vanishing_gradient.py")(["--steps", "12", "--hidden", "4", "--seeds", "1", "--out", str(picture)])
    printed = capsys.readouterr().out
    assert "plain RNN" in printed and 'pip install ".[plot]"' in printed and not picture.exists()


def test_vanishing_gradient_claim():
    """What docs/document.md says of the picture: with forget bias 0 the LSTM is no better than the plain RNN."""
    norms = runpy.run_path(EXAMPLES / "vanishing_gradient.py")["norms"]
    networks = "plain RNN", "RNN, orthogonal", "LSTM, forget bias 0", "LSTM, forget bias 1", "LSTM, forget bias 3"
    at = {name: np.median([norms(name, 61, 24, seed)[60] for seed in range(3)]) for name in networks}
    assert max(at["plain RNN"], at["LSTM, forget bias 0"]) < 1e-10
    assert 1e-8 < at["LSTM, forget bias 1"] < 1e-2 and 1e-8 < at["RNN, orthogonal"] < 1e-2
    assert at["LSTM, forget bias 3"] > 1e-2


@pytest.mark.parametrize("arguments", [["--steps", "1"], ["--hidden", "0"], ["--seeds", "0"]])
def test_vanishing_gradient_refuses_what_cannot_be_measured(arguments, capsys):
    with pytest.raises(SystemExit):
        main_of("vanishing_gradient.py")(arguments)
    assert "at least 2 steps" in capsys.readouterr().err
