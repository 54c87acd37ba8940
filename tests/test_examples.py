"""Every example runs, at a reduced size and without a display."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"

# file → the arguments that make it small; {tmp} is a folder for what it writes
REDUCED = {
    "bptt_figures.py": ["--only", "repeated", "gates", "--out", "{tmp}"],  # all of them in a test of their own
    "trainer_day.py": ["--steps", "6", "--out", "{tmp}"],
    "long_lags.py": ["--only", "learning", "--seeds", "1", "--updates", "20", "--lags", "5", "--rates", "0.1",
                     "--anew", "--out", "{tmp}"],
    "own_cells.py": ["--updates", "3", "--hidden", "4"],
    "student_day.py": [],
    "researcher_day.py": ["--updates", "20"],
    "engineer_day.py": [],
}


@pytest.fixture(autouse=True)
def examples_import_one_another(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


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


SMALL = ["--steps", "9", "--hidden", "6"]


def test_the_course_has_exactly_the_figures_that_its_script_makes(tmp_path):
    pytest.importorskip("matplotlib")
    main_of("bptt_figures.py")([*SMALL, "--out", str(tmp_path / "new")])
    page = (EXAMPLES.parent / "docs" / "bptt.md").read_text(encoding="utf-8")
    made = sorted([*(path.name for path in (tmp_path / "new").iterdir()), "bptt_7_claim.png", "bptt_7_training.png"])
    assert made == sorted(re.findall(r"\(images/(bptt_\S+)\)", page))
    assert made == sorted(path.name for path in (EXAMPLES.parent / "docs" / "images").glob("bptt_*"))
    for path in (tmp_path / "new").iterdir():
        if path.suffix == ".svg":  # these depend on no option
            assert path.read_bytes() == (EXAMPLES.parent / "docs" / "images" / path.name).read_bytes(), path.name
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_course_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # makes `import matplotlib` fail
    main_of("bptt_figures.py")([*SMALL, "--out", str(tmp_path)])
    assert 'pip install ".[plot]"' in capsys.readouterr().out
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg"}


def test_long_lags_continues_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    results = tmp_path / "runs.jsonl"
    options = ["--only", "learning", "--updates", "25", "--lags", "5", "--rates", "0.1", "--out", str(tmp_path)]
    main = main_of("long_lags.py")
    main([*options, "--seeds", "1"])
    first = results.read_text()
    main([*options, "--seeds", "2"])
    assert results.read_text().startswith(first) and len(results.read_text().splitlines()) == 26
    assert (tmp_path / "bptt_7_training.png").read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert "LSTM, forget bias 1" in table and "1997, truncated" in table


def test_the_claim_measured():
    """What docs/bptt.md and docs/document.md say of it: the forget gate and the lag decide."""
    example = runpy.run_path(EXAMPLES / "long_lags.py")

    def part(name, seed, of, lag=60):
        return example["by_step"](example["untrained_scan"](example["NETWORKS"][name], seed, lag + 1))[of][lag]
    at = {name: np.median([part(name, seed, "h") for seed in range(3)]) for name in example["NETWORKS"]}
    assert max(at["plain RNN"], at["GRU"], at["LSTM, forget bias 0"]) < 1e-10
    assert 1e-7 < at["LSTM, forget bias 1"] < 1e-3 and 1e-7 < at["RNN, orthogonal on h"] < 1e-3
    assert at["LSTM, forget bias 3"] > 1e-2 and at["GRU, chrono"] > 0.1
    assert example["kept_over"](500, 1.0, 0) < np.finfo(np.float32).tiny ** 0.5
    assert at["1997, truncated"] == 0 and part("1997, truncated", 0, "W") > 0.1
    d_c = example["untrained_scan"](example["NETWORKS"]["1997, truncated"], 0, 61).grads["c_next"]
    assert (d_c == d_c[-1]).all()  # the constant error carousel: an error flow of exactly 1


@pytest.mark.parametrize("file, arguments, sentence", [
    ("bptt_figures.py", ["--steps", "1"], "at least 2 steps"), ("bptt_figures.py", ["--hidden", "0"], "1 hidden unit"),
    ("long_lags.py", ["--seeds", "0"], "at least 1 seed"), ("long_lags.py", ["--updates", "19"], "20 updates"),
    ("long_lags.py", ["--lags", "20", "1"], "lags of 2 steps")])
def test_the_course_refuses_what_cannot_be_measured(file, arguments, sentence, capsys):
    with pytest.raises(SystemExit):
        main_of(file)(arguments)
    assert sentence in capsys.readouterr().err


def test_own_cells_are_right_and_learn(capsys):
    main_of("own_cells.py")(["--updates", "150"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[0] for line in lines] == ["PeepholeLSTM", "CoupledLSTM", "LayerNormLSTM", "MinimalGatedUnit"]
    assert all("complex step" in " ".join(line) and float(line[2].rstrip(",")) < 1e-10 for line in lines)
    assert all(float(line[-1]) < 0.1 < 0.8 < float(line[-2].rstrip(",")) for line in lines), lines


def test_own_cells_are_the_papers():
    """One step of each, gate by gate, in plain NumPy."""
    example = runpy.run_path(EXAMPLES / "own_cells.py")
    rng = np.random.default_rng(0)
    h, c, x = rng.normal(size=(3, 4, 2))

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def norm(z):
        return (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)

    def peephole(p, z):
        f, i, o, u = np.split(z, 4)
        new = sigmoid(f + p["pf"] * c) * c + sigmoid(i + p["pi"] * c) * np.tanh(u)
        return sigmoid(o + p["po"] * new) * np.tanh(new)

    def coupled(p, z):
        f, o, u = np.split(z, 3)
        return sigmoid(o) * np.tanh(sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(u))

    def layer_norm(p, z):
        z = p["gain_h"] * norm(p["W"][:, :4] @ h) + p["gain_x"] * norm(p["W"][:, 4:] @ x) + p["b"]
        f, i, o, u = np.split(z, 4)
        return sigmoid(o) * np.tanh(p["gain_c"] * norm(sigmoid(f) * c + sigmoid(i) * np.tanh(u)) + p["bias_c"])

    def minimal(p, z):
        f = sigmoid(z[:4])
        candidate = np.tanh(p["W"][4:] @ np.concatenate([f * h, x]) + p["b"][4:])
        return (1 - f) * h + f * candidate

    for Kind, formula in zip(example["CELLS"], (peephole, coupled, layer_norm, minimal)):
        cell = Kind(4, 4, rng=rng)
        for _, tensor in cell.named_parameters():
            tensor.data = rng.normal(size=tensor.shape)
        p = {name: tensor.data.astype(float) for name, tensor in cell.named_parameters()}
        _, y = cell.cell(h if Kind.__name__ == "MinimalGatedUnit" else (h, c), x)
        np.testing.assert_allclose(y.data, formula(p, p["W"] @ np.concatenate([h, x]) + p["b"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["PeepholeLSTM", "CoupledLSTM", "LayerNormLSTM", "MinimalGatedUnit"])
def test_own_cells_go_into_a_training_from_the_command_line(name, capsys):
    cell = f"{EXAMPLES / 'own_cells.py'}:{name}"
    small = ["--steps", "2", "--hidden", "4", "--layers", "2", "--dtype", "float64"]
    assert main(["train", "sine", *small, "--cell", cell]) == 1  # not solved
    out = capsys.readouterr().out
    assert "gradient check" in out.splitlines()[0] and "passed" in out.splitlines()[0] and "trained: 2 steps" in out
