"""`mg.inspect`: models and functions of one's own, in a notebook and on disk."""

import html
import re

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.tasks import Adding, Batch, Reber
from minigrad.training.sequence_model import SequenceModel

RNG = np.random.default_rng(0)
W = mg.tensor(0.4 * RNG.normal(size=(5, 8)), requires_grad=True)


class Own(nn.Module):
    def __init__(self):
        self.embedding, self.lower = nn.Embedding(7, 4, rng=0), nn.GRU(4, 5, rng=1)
        self.upper, self.out = nn.LSTM(5, 6, rng=2), nn.Linear(6, 7, rng=3)

    def __call__(self, x):
        return self.out(self.upper(self.lower(self.embedding(x))[0])[0])


def cell(state, x):
    h = np.tanh(W @ np.concatenate([state["h"], x["x"]]))
    return {"h": h}, h


def losses(x):
    return (mg.scan(cell, {"h": np.zeros((5, x.shape[-1]))}, {"x": x})[1] ** 2).mean(axis=(1, 2))


def test_a_model_of_ones_own_on_a_sequence_of_a_batch():
    model, task = Own(), Reber()
    batch = task.batch(0, 5)
    model.out.weight.grad = before = np.ones_like(model.out.weight.data)
    report = mg.inspect(model, batch, loss=lambda outputs, targets: nn.binary_cross_entropy(outputs, targets)
                        if targets.dtype.kind == "f" else nn.cross_entropy(outputs, targets), example=1,
                        names=task.names)
    looked, T = report.inspection, int(batch.lengths[1])
    assert [layer.name for layer in looked.layers] == ["lower.l0", "upper.l0"]
    assert looked.symbols == [task.names[0][code] for code in batch.x[:T, 1]]
    assert model.out.weight.grad is before and model.training
    with mg.bptt.record(model) as rec:
        alone = model(batch.x[:T, 1:2])
        targets = batch.targets[:T, 1:2]
        asked = np.arange(T) if batch.mask is None else np.flatnonzero(batch.mask[:T, 1])
        loss = nn.binary_cross_entropy if targets.dtype.kind == "f" else nn.cross_entropy
        (sum(loss(alone[int(t)], targets[t]) for t in asked) / len(asked)).backward()
    np.testing.assert_allclose(looked.layers[1].grads["c_next"], rec["upper"].grads["c_next"][:, :, 0], rtol=1e-5)


def test_a_pair_of_arrays_and_layers_with_short_names():
    model = SequenceModel(2, 1, hidden=4, layers=2, rng=0)
    x, targets = RNG.normal(size=(9, 3, 2)), RNG.normal(size=(9, 3, 1))
    looked = mg.inspect(model, (x, targets), example=-1).inspection
    assert [layer.name for layer in looked.layers] == ["l0", "l1"] and looked.asked.tolist() == list(range(9))
    expected = ((model(x[:, 2:])[0].detach().numpy() - targets[:, 2:]) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(looked.steps["loss"], expected, rtol=1e-5)
    assert looked.facts["sequence"] == "number -1 of 3"


@pytest.mark.parametrize(("loss", "asked"), [
    (losses, list(range(12))), (lambda x: losses(x).mean(), [11]), (lambda x: losses(x)[4], [4]),
    (lambda x: [losses(x)[2]] * 2, [2]), (lambda x: list(losses(x)[3:5]), [3, 4]),
], ids=["of every step", "one", "of an early step", "two at one step", "of two steps"])
def test_a_function(loss, asked):
    looked = mg.inspect(loss, RNG.normal(size=(12, 3, 1))).inspection
    assert looked.asked.tolist() == asked
    assert np.flatnonzero(~np.isnan(looked.steps["loss"])).tolist() == asked
    assert looked.symbols == [str(t) for t in range(12)] and "def backward" in looked.layers[0].source


def test_a_function_of_a_batch_sees_one_sequence():
    batch = Adding(8).batch(0, 4)
    seen = []

    def loss_fn(one):
        seen.append(one)
        return losses(np.moveaxis(np.concatenate([one.x, one.x[:, :, :1]], axis=2), 1, 2))
    report = mg.inspect(loss_fn, batch, example=2, title="mine")
    np.testing.assert_array_equal(seen[0].x, batch.x[:, 2:3])
    assert report.inspection.title == "mine" and len(report.inspection.targets) == 8


def test_a_notebook_shows_the_page_that_is_saved(tmp_path):
    report = mg.inspect(losses, RNG.normal(size=(5, 3, 1)))
    report.save(tmp_path / "report.html")
    saved = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert saved == report.html and "minigrad inspect" in saved
    (srcdoc,) = re.findall(r'srcdoc="([^"]*)"', report._repr_html_())
    assert html.unescape(srcdoc) == saved
    assert repr(report).startswith("report on losses: 5 steps, cell, ")
    report.save(tmp_path / "report.html")  # again
    with pytest.raises(ValueError, match=r"save it as .*report\.html"):
        report.save(tmp_path / "report.pdf")
    with pytest.raises(ValueError, match="cannot be written"):
        report.save(tmp_path / "missing" / "report.html")


class AtTheEnd(Own):
    def __call__(self, x):
        return super().__call__(x)[-1]


MODEL = SequenceModel(2, 1, hidden=4, rng=0)
X = RNG.normal(size=(6, 3, 2))


@pytest.mark.parametrize(("arguments", "words"), [
    ((MODEL, 3), r"takes \(x, targets\) or a Batch"),
    ((MODEL, (X, X[:2])), "time first"),
    ((MODEL, (X, X[..., :1]), {"example": 3}), "has 3 sequences, not number 3"),
    ((MODEL, (X, X[..., :1]), {"loss": "mes"}), "loss is cross_entropy"),
    ((MODEL, Batch(X, X[..., :1], np.zeros((6, 3), bool))), "no step of this sequence has a target"),
    ((AtTheEnd(), Batch(np.zeros((6, 3), int), np.zeros((6, 3), int))), r"outputs \(1, 7\) of x \(6, 1\)"),
    ((3, X), "a module, with its loss, or a function"),
    ((losses, X, {"loss": "mse"}), "not a loss for a function"),
    ((losses, RNG.normal(size=(6, 3, 2))), "cell ran on 2 sequences"),
    ((lambda x: mg.tensor(1.0, requires_grad=True), X), "ran no recurrent layer"),
    ((lambda x: losses(x).detach(), X[:, :, :1]), "through which gradients flow"),
    ((lambda x: (losses(x), 2 * mg.tensor(1.0, requires_grad=True))[1], X[:, :, :1]), "no loss depends"),
    ((lambda x: losses(x).sum() + losses(x[:2]).sum(), X[..., :1]), "different numbers of steps"),
], ids=["no targets", "shapes", "example", "loss", "mask", "outputs", "no model", "loss of a function", "two sequences",
        "no layer", "no gradient", "no dependence", "two lengths"])
def test_wrong_input_gets_a_sentence(arguments, words):
    model, batch, *options = arguments
    with pytest.raises(ValueError, match=words):
        mg.inspect(model, batch, **(options[0] if options else {}))
