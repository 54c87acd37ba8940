"""What results print, and the tables that a notebook shows."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.notebook import milestones, table
from minigrad.tasks import Adding, Batch, Copy, Reber
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.trainer import Trainer


class Cells(HTMLParser):
    """Reads a table; raises AssertionError if a tag is left open."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def answers():
    lstm = nn.LSTM(3, 5, rng=0, dtype=np.float64)
    with mg.bptt.record() as rec:
        y, _ = lstm(np.random.default_rng(0).normal(size=(30, 2, 3)))
        losses = (y**2).sum(axis=(1, 2))
        credit = mg.bptt.credit(rec, losses)
        losses.sum().backward()
    return {"credit": credit, "jacobians": mg.bptt.jacobians(rec), "truncation": mg.bptt.truncation(rec, [1, 5, 30]),
            "saturation": mg.bptt.saturation(rec), "adding": Adding(20).batch(0, 4), "copy": Copy().batch(0, 1),
            "reber": Reber().batch(0, 5), "gradcheck": mg.gradcheck(mg.tanh, np.ones((2, 3)))}


LINES = {
    "credit": r"30 losses × 30 steps, half of the credit within \d+ steps",
    "jacobians": r"30 steps × 2 sequences, 10 × 10 each: Lyapunov exponent -?[\d.e-]+ nats a step; 30 steps back, a "
                 r"gradient is at most [\d.e-]+ times as large",
    "truncation": r"backwards over k = 1, 5, 30 steps: from k = 30 on every weight's gradient is within 10 %",
    "saturation": r"gates closed \d+ %, open \d+ % of the time; 0 of 10 units dead, 0 exploding; no NaN",
    "adding": r"4 sequences × 20 steps of 2 features, targets at 4 of 80 places",
    "copy": r"1 sequence × 70 steps of symbols, targets at every step",
    "reber": r"5 sequences × \d+ steps of symbols, \d+ to \d+ long, targets at \d+ of \d+ places",
    "gradcheck": r"(?s)order  input .*passed",
}


@pytest.mark.parametrize("name", LINES)
def test_a_result_prints_its_meaning_and_shows_a_table(name, answers):
    assert re.fullmatch(LINES[name], repr(answers[name])), repr(answers[name])
    head, *rows = Cells(answers[name]._repr_html_()).rows
    assert rows and all(len(row) == len(head) for row in rows)


def test_the_tables_have_the_numbers(answers):
    found, rows = answers["credit"], Cells(answers["credit"]._repr_html_()).rows
    assert [row[0] for row in rows[1:]] == ["0", "1", "2", "5", "10", "20", "29"]
    assert rows[1][1] == f"{np.mean(np.diag(found.size)):.3g}" and rows[-1][2] == "100.0 %"
    half = int(re.search(r"within (\d+)", repr(found))[1])
    lags = np.subtract.outer(np.arange(30), np.arange(30))
    reached = [found.size[(lags >= 0) & (lags <= k)].sum() / found.size.sum() for k in (half - 1, half)]
    assert reached[0] < 0.5 <= reached[1]
    J = answers["jacobians"]
    assert float(Cells(J._repr_html_()).rows[-1][1]) == pytest.approx(J.norms.max(axis=1)[-1], rel=1e-2)
    bias = answers["truncation"].bias["W"]
    assert [row[1] for row in Cells(answers["truncation"]._repr_html_()).rows[1:]] == [f"{b:.3g}" for b in bias]


@pytest.mark.parametrize(("weights", "words"), [(0.0, "no credit: the gradient is 0"), (np.nan, "NaN or Inf")])
def test_credit_without_a_number(weights, words):
    layer = nn.RNN(2, 3, rng=0)
    for p in layer.parameters():
        p.data = np.full(p.shape, weights, p.dtype)
    with mg.bptt.record() as rec, np.errstate(all="ignore"):
        y, _ = layer(np.ones((4, 1, 2)))
        found = mg.bptt.credit(rec, (y**2).sum(axis=(1, 2)))
    assert words in repr(found) and Cells(found._repr_html_()).rows
    if not weights:
        assert "no gradient" in repr(mg.bptt.jacobians(rec)) or "at most 0 times" in repr(mg.bptt.jacobians(rec))


def test_a_batch_of_ones_own():
    batch = Batch(np.zeros((3, 2), int), np.zeros((3, 2), int), first=False)
    assert repr(batch) == "2 sequences × 3 steps of symbols, targets at every step, continuing"
    assert Cells(batch._repr_html_()).rows[1] == ["x", "(3, 2)", "int64", "0 … 0"]


def test_derived_prints_its_source_and_a_notebook_highlights_it():
    derived = mg.derive(lambda x: np.tanh(x), np.ones(3))
    assert str(derived) == repr(derived) == derived.source
    assert derived._repr_markdown_() == f"```python\n{derived.source}\n```"


def test_a_trainer_and_an_optimiser_print_their_settings():
    model = SequenceModel(2, 1, hidden=4, rng=0)
    adam = optim.Adam(model.parameters(), lr=0.01)
    assert repr(adam) == ("Adam(lr=0.01, betas=(0.9, 0.999), eps=1e-08, weight_decay=0): 4 parameters of 117 numbers, "
                          "0 steps taken")
    trainer = Trainer(model, Adding(5), adam, steps=3, clip=1.0, bptt=(2, 3), schedule=optim.cosine(0.1, 3))
    assert repr(trainer).splitlines()[:2] == [
        "Trainer of SequenceModel on adding, step 0 of 3",
        "  batch=32, clip=1.0, bptt=(2, 3), schedule=cosine, validate_every=None, until_solved=False, callbacks=0"]
    trainer.run()
    assert "step 3 of 3, done" in repr(trainer) and "lr=0.025" in repr(trainer) and "3 steps taken" in repr(trainer)
    for kind in (optim.SGD, optim.RMSprop, optim.Adagrad, optim.AdamW):
        assert repr(kind(model.parameters(), lr=0.5)).startswith(f"{kind.__name__}(lr=0.5, ")


def test_texts_never_become_markup():
    html = table("<b>", ["<i>"], [["<script>"]])
    assert "<b>" not in html and "<i>" not in html and "<script>" not in html
    assert Cells(html).rows == [["<i>"], ["<script>"]]


@pytest.mark.parametrize(("last", "chosen"), [(0, [0]), (1, [0, 1]), (5, [0, 1, 2, 5]), (7, [0, 1, 2, 5, 7]),
                                              (120, [0, 1, 2, 5, 10, 20, 50, 100, 120])])
def test_milestones(last, chosen):
    assert milestones(last) == chosen
