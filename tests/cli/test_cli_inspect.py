"""`minigrad inspect`: pages of runs and of models by name, and messages for bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import chromium
from inspection_page import cell, data_in, digits, shown, slide, unpacked

import minigrad as mg
from minigrad import nn
from minigrad.cli import main
from minigrad.microscope.page import inspection
from minigrad.microscope.page.inspection import Sequence
from minigrad.tasks import TASKS, Parity, TemporalOrder
from minigrad.training.run import load_model
from minigrad.training.trainer import LOSSES

HOSTILE = "</script><script>window.hit = 1</script><!--"
CELLS = '''
import numpy as np
import minigrad as mg
from minigrad import nn

class Leaky(nn.Recurrent):
    def __init__(self, input_size, hidden_size, *, dtype, rng):
        V = np.random.default_rng(rng).normal(size=(hidden_size, input_size))
        self.V = mg.tensor(V.astype(dtype), requires_grad=True)

    def initial_state(self, batch):
        return np.zeros((self.V.shape[0], batch))

    def cell(self, h, x):
        h_next = 0.9 * h + 0.1 * mg.tanh(self.V @ x)
        return h_next, h_next

class Layer(nn.Module):
    pass

class Memoryless(Leaky):
    def initial_state(self, batch):
        return ()

    def cell(self, state, x):
        return state, mg.tanh(self.V @ x)
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run on a text full of markup, a run on a task, a user-defined cell, and a note."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(f"to be {HOSTILE} or & not\n" * 40)
    small = ["--hidden", "6", "--batch", "4", "--steps", "12", "--quiet"]
    assert main(["train", "--text", str(folder / "text.txt"), "--out", str(folder / "text"), *small]) == 0
    assert main(["train", "parity", "--length", "9", "--cell", "gru", "--layers", "2", "--out", str(folder / "parity"),
                 *small]) == 1  # the task was not solved
    (folder / "cells.py").write_text(CELLS)
    for name in ("note.txt", "note.htm"):
        (folder / name).write_text("a note")
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture
def here(runs, monkeypatch):
    monkeypatch.chdir(runs)
    return runs


def inspected(tmp_path, *arguments):
    """Run the command and return the data of its page."""
    out = tmp_path / "report.html"
    assert main(["inspect", *arguments, "--out", str(out)]) == 0
    return data_in(out.read_text(encoding="utf-8"))


def test_a_run_on_a_text(here, tmp_path, capsys):
    data = inspected(tmp_path, "text", "--text", f"be {HOSTILE}")
    size = (tmp_path / "report.html").stat().st_size / 1e6
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}: 46 steps, l0, {size:.2g} MB; open it in a browser\n"
    assert data["symbols"] == list(f"be {HOSTILE}"[:-1]) and data["targets"] == list(f"e {HOSTILE}")
    facts = {"task": "text", "cell": "lstm", "layers": "1", "units": "6", "trained": "12 steps",
             "sequence": "given by --text"}
    assert facts.items() <= data["facts"].items()
    metrics = [json.loads(line) for line in (here / "text" / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal([unpacked(x) for x in data["curves"]["loss"]],
                                  [[row["step"] for row in metrics], [row["loss"] for row in metrics]])
    model, config = load_model("text")
    codes = np.array([config["characters"].index(c) for c in f"be {HOSTILE}"])
    with mg.bptt.record(model) as rec:
        outputs, _ = model(codes[:-1, None])
        loss = nn.cross_entropy(outputs, codes[1:, None])
        loss.backward()
    assert data["facts"]["loss L"] == f"{loss.item():.4g}, the mean of 46 steps"
    (there,) = data["layers"]
    for name in ("ft", "it", "ot", "cct", "c_next", "a_next"):
        np.testing.assert_array_equal(unpacked(there["values"][name]), shown(rec[0].values[name][:, :, 0]))
        np.testing.assert_allclose(unpacked(there["grads"][name]), rec[0].grads[name][:, :, 0], rtol=1e-3, atol=1e-9)


def test_the_page_of_a_run_contains_the_inspection(here, tmp_path):
    """Check every number of two layers, without a browser: values, gradients, ledgers, spectra."""
    data = inspected(tmp_path, "parity", "--seed", "5")
    model, _ = load_model("parity")
    batch = Parity(length=9).batch(np.random.default_rng(5), 1)
    asked = np.flatnonzero(batch.mask[:, 0]) if batch.mask is not None else np.arange(9)
    layers, _, steps = inspection.inspect(model, Sequence(batch.x, batch.targets, asked, LOSSES[Parity.loss]))
    assert len(layers) == len(data["layers"]) == 2
    for there, one in zip(data["layers"], layers):
        for kind in ("values", "grads", "reach"):
            assert list(there[kind]) == list(getattr(one, kind)) != []
            for name, x in getattr(one, kind).items():
                np.testing.assert_array_equal(unpacked(there[kind][name]), shown(x), f"{kind} {name}")
        np.testing.assert_array_equal(unpacked(there["spectrum"]), shown(one.spectrum))
    for name, x in steps.items():
        np.testing.assert_array_equal(unpacked(data["steps"][name]), x)


def test_a_run_without_text_shows_its_own_task(here, tmp_path):
    data = inspected(tmp_path, "text")
    assert "".join(data["symbols"]) in (here / "text.txt").read_text() and len(data["symbols"]) == 100
    assert len(inspected(tmp_path, "text", "--length", "5")["symbols"]) == 5
    data = inspected(tmp_path, "parity/checkpoint.npz")
    assert [one["name"] for one in data["layers"]] == ["l0", "l1"] and len(data["symbols"]) == 9
    assert set(data["symbols"]) == {"-1", "1"} and set(data["targets"]) <= {"0", "1"}
    assert len(inspected(tmp_path, "parity", "--length", "30")["symbols"]) == 30
    other = inspected(tmp_path, "parity", "--task", "sine")  # one input, one output
    assert other["facts"]["task"] == "parity" and other["facts"]["sequence"] == "sine, seed 0"


def test_a_model_by_name(here, tmp_path):
    data = inspected(tmp_path, "gru", "--task", "reber", "--hidden", "3")
    assert set(data["symbols"]) <= set("BTPSXVE") and data["symbols"][0] == "B" and data["targets"][-1] == "E"
    assert data["facts"]["trained"] == "not yet" and data["curves"] == {}
    assert list(data["layers"][0]["values"]) == ["r", "z", "recurrent", "candidate", "h_next"]
    data = inspected(tmp_path, "rnn", "--text", "to be", "--hidden", "3")
    assert data["symbols"] == list("to b") and data["targets"] == list("o be")
    data = inspected(tmp_path, "cells.py:Leaky", "--task", "temporal-order", "--length", "20", "--hidden", "3")
    assert data["facts"]["cell"] == "cells.py:Leaky" and list(data["layers"][0]["values"]) == ["h_next"]
    assert data["about"] == TemporalOrder.about and all(task.about.endswith(".") for task in TASKS.values())
    assert data["targets"][-1] in ("XX", "XY", "YX", "YY") and set(data["targets"][:-1]) == {""}
    assert unpacked(data["asked"]).tolist() == [len(data["symbols"]) - 1]


@pytest.mark.parametrize("name", ["PeepholeLSTM", "CoupledLSTM", "LayerNormLSTM", "MinimalGatedUnit"])
def test_the_cells_of_the_examples(name, tmp_path):
    file = Path(__file__).parents[2] / "examples" / "own_cells.py"
    data = inspected(tmp_path, f"{file}:{name}", "--text", "to be or", "--hidden", "3")
    assert "h_next" in data["layers"][0]["values"] and data["facts"]["cell"] == f"own_cells.py:{name}"


def test_the_same_seed_gives_the_same_page(here, tmp_path):
    pages = []
    for seed in ("3", "3", "4"):
        inspected(tmp_path, "lstm", "--task", "adding", "--length", "8", "--hidden", "3", "--seed", seed)
        pages.append((tmp_path / "report.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_a_run_still_being_written_can_be_inspected(here, tmp_path):
    shutil.copytree(here / "text", tmp_path / "text")
    with open(tmp_path / "text" / "metrics.jsonl", "a") as file:
        file.write('{"step": 13, "lo')
    data = inspected(tmp_path, str(tmp_path / "text"))
    assert unpacked(data["curves"]["loss"][0]).tolist() == list(range(1, 13))


BAD = [
    (["nothing"], "nothing is not a run: give a folder that `minigrad train --out` has made"),
    (["note.txt"], "note.txt is not a run"),
    (["nowhere"], "'nowhere' is neither the folder of a run, nor rnn, gru, lstm, nor FILE.py:Class"),
    (["lsmt"], "did you mean lstm?"),
    (["cells.py:Leak"], "has no class 'Leak': did you mean Leaky?"),
    (["cells.py:Layer"], "is not a subclass of nn.Recurrent"),
    (["cells.py:Memoryless"], "Memoryless has no recurrence: its state is empty"),
    (["nowhere.py:Cell"], "nowhere.py is not a file"),
    (["parity", "--text", "abc"], "parity contains a model of the task parity, which reads no text"),
    (["text", "--text", "t"], "--text is 't', and takes two characters or more"),
    (["text", "--text", "be Ψ"], "--text has 'Ψ', which is not in the text that the model was trained on"),
    (["text", "--text", "note.txt"], "--text takes the characters themselves, and note.txt is a file"),
    (["text", "--text", "to", "--length", "3"], "--length cannot be combined with --text"),
    (["lstm", "--text", "to", "--task", "copy"], "--task cannot be combined with --text"),
    (["text", "--length", "9999"], "--length 9,999 is more than the held-out text has: it may be up to 239"),
    (["text", "--length", "0"], "'0' is not a whole number above 0"),
    (["parity", "--task", "copy"], "has 1 inputs and 1 outputs, for the task parity, and copy has 10 symbols and 9"),
    (["text", "--task", "reber"], "24 characters and 24 outputs, for the task text, and reber has 7 symbols and 7"),
    (["parity", "--task", "pairty"], "there is no task 'pairty': did you mean parity?"),
    (["lstm", "--task", "reber", "--length", "5"], "the task reber has no option 'length'"),
    (["parity", "--hidden", "3"], "--hidden is for an untrained model"),
    (["rnn", "--text", "to", "--out", "note.htm"], "note.htm exists and is not a report of minigrad inspect"),
    (["rnn", "--text", "to", "--out", "page.png"], "page.png is not the name of an HTML file: let --out be page.html"),
    (["rnn", "--text", "to", "--out", "nothing"], "nothing is a folder: let --out name a file in it"),
    (["text", "--text", ""], "--text is '', and takes two characters or more"),
    (["rnn", "--text", "to", "--out", "not/there.html"], "not/there.html cannot be written, as there is no folder not"),
    (["lstm", "--task", "copy", "--length", "40000"], "a sequence of 40,020 steps needs about"),
    (["lstm", "--task", "copy", "--length", "20000"], "browsers are slow beyond 50"),
]


@pytest.mark.parametrize("arguments, sentence", BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_bad_input_is_status_2_and_a_sentence(arguments, sentence, here, capsys, monkeypatch):
    monkeypatch.setattr(inspection, "free_memory", lambda: 20_000_000_000)
    try:
        status = main(["inspect", *arguments])
    except SystemExit as exit:  # raised by argparse
        status = exit.code
    message = capsys.readouterr().err
    assert status == 2 and sentence in message and "Traceback" not in message
    assert (here / "note.txt").read_text() == (here / "note.htm").read_text() == "a note"
    assert not (here / "report.html").exists()


STEP = '{"step": 1, "loss": 0.5, "norm": 1.0, "lr": 0.01}'


@pytest.mark.parametrize("change, sentence", [
    (lambda run: (run / "config.json").write_text("{"), "config.json is not a config of minigrad"),
    (lambda run: (run / "checkpoint.npz").unlink(),
     "has metrics.jsonl and result.json, but neither checkpoint.npz nor checkpoint.previous.npz"),
    (lambda run: (run / "checkpoint.npz").write_bytes(b"PK\3\4"), "checkpoint.npz is cut short or damaged"),
    (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl cannot be read: No such file"),
    (lambda run: (run / "metrics.jsonl").write_text(f"{STEP}\n[2]\n"), "metrics.jsonl, line 2, is not a step of"),
], ids=["config", "no checkpoint", "damaged checkpoint", "no metrics", "damaged metrics"])
def test_a_damaged_run_is_named(change, sentence, here, tmp_path, capsys):
    run = shutil.copytree(here / "parity", tmp_path / "parity")
    change(run)
    assert main(["inspect", str(run), "--out", str(tmp_path / "report.html")]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "report.html").exists()


def test_a_missing_or_different_text_is_named(here, tmp_path, capsys):
    run = shutil.copytree(here / "text", tmp_path / "text")
    config = json.loads((run / "config.json").read_text())
    config["settings"]["options"]["file"] = str(here / "note.txt")
    (run / "config.json").write_text(json.dumps(config))
    assert main(["inspect", str(run)]) == 2
    assert "note.txt has 6 characters" in capsys.readouterr().err
    (tmp_path / "other.txt").write_text("quite another text, with other characters " * 3)
    config["settings"]["options"]["file"] = str(tmp_path / "other.txt")
    (run / "config.json").write_text(json.dumps(config))
    assert main(["inspect", str(run)]) == 2
    message = capsys.readouterr().err
    assert "other.txt has other characters than the text that" in message and "give some by --text" in message
    inspected(tmp_path, str(run), "--text", "to be or not")


def test_a_folder_without_write_permission_is_refused_first(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    assert main(["inspect", "text", "--out", str(tmp_path / "report.html")]) == 2
    message = capsys.readouterr().err
    assert f"as the folder {tmp_path} cannot: choose another --out" in message and "looking at" not in message


def test_only_a_report_is_overwritten(here, tmp_path):
    inspected(tmp_path, "rnn", "--text", "abc", "--hidden", "2")
    assert inspected(tmp_path, "rnn", "--text", "to be", "--hidden", "2")["symbols"] == list("to b")


def test_the_page_of_a_run_in_a_browser(here, tmp_path):
    with chromium(tmp_path / "chromium") as browser:
        (values,) = inspected(tmp_path, "text", "--text", HOSTILE)["layers"]
        browser.open(tmp_path / "report.html")
        for t, u in ((0, 0), (20, 5)):
            slide(browser, "t", t)
            slide(browser, "u", u)
            for name in ("ft", "c_next"):
                assert browser.text(cell(name)) == digits(unpacked(values["values"][name])[t, u])
                assert browser.text(cell(name, "gradient")) == digits(unpacked(values["grads"][name])[t, u])
        seen = HOSTILE[:-1].replace(" ", "␣")
        assert browser.text("#strip") == seen and browser.js("[window.hit, document.scripts.length]") == [None, 2]
        assert browser.complaints() == []
