"""`minigrad plot`: the curves of runs as a picture."""

import sys

import pytest

from minigrad.cli import main

SIGNS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("runs")
    for seed in "12":
        main(["train", "sine", "--steps", "3", "--hidden", "3", "--seed", seed, "--out", str(folder / seed)])
    return folder


@pytest.mark.parametrize("suffix", SIGNS)
def test_runs_are_drawn_by_name(runs, suffix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    out = tmp_path / f"curves{suffix}"
    assert main(["plot", "1", "2", "--log", "--smooth", "1", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(SIGNS[suffix])
    assert capsys.readouterr().out == f"{out}: loss of 1, 2\n"
    assert main(["plot", "1/metrics.jsonl", "--what", "norm", "--out", str(out)]) == 0  # over the older one


@pytest.mark.parametrize(("arguments", "words"), [
    (["1", "--out", "curves.txt"], "ending in .png"), (["1", "--out", "missing/a.png"], "a folder that exists"),
    (["1", "--what", "los"], "no row has 'los'"), (["3"], "cannot be read as the metrics"), (["."], "cannot be read"),
])
def test_wrong_input_gets_a_sentence_and_no_file(runs, arguments, words, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    before = sorted(runs.rglob("*"))
    assert main(["plot", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert sorted(runs.rglob("*")) == before


def test_without_matplotlib_the_message_says_what_to_install(runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", str(runs / "1")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
