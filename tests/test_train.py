"""The character model on the document's LSTM: its gradients, its training, its end by Ctrl-C."""

import itertools
import signal

import numpy as np
import pytest

import minigrad as mg
from minigrad.tasks.text import bigram_bits, split_text
from minigrad.train import CharModel, Interrupt, bits_per_character, check_model, sample, train

CIRCLE = split_text("the quick brown fox. " * 60, "a circle")


def model_for(text, hidden=16, seed=0):
    return CharModel(len(text.characters), hidden, np.random.default_rng(seed))


def test_the_models_gradients_pass_the_complex_step():
    report = check_model(model_for(CIRCLE), CIRCLE, np.random.default_rng(0))
    assert report.ok and report.method == "complex step" and report.worst.error < 1e-11
    assert {row.name for row in report.rows} == {f"{kind}{gate}" for kind in "Wb" for gate in "ficoy"}


def test_a_wrong_rule_is_seen_by_the_check(monkeypatch):
    op = mg.OPS["tanh"]
    (i, pull, on_arrays, reads), = op.pulls
    monkeypatch.setattr(op, "pulls", [(i, lambda *a: 1.001 * pull(*a), lambda *a: 1.001 * on_arrays(*a), reads)])
    report = check_model(model_for(CIRCLE), CIRCLE, np.random.default_rng(0))
    assert not report.ok and report.blamed[0][0] == "tanh.dx"


def test_it_learns_what_a_bigram_cannot_know():
    model = model_for(CIRCLE, hidden=32)
    history = train(model, CIRCLE, steps=150, batch=8, length=16, lr=0.02)
    assert history.losses[0] == pytest.approx(np.log(len(CIRCLE.characters)), abs=0.3)  # it begins by guessing
    assert bits_per_character(model, CIRCLE.held_out) < 0.5 * bigram_bits(CIRCLE)
    words = CIRCLE.decode(sample(model, 60, np.random.default_rng(0), CIRCLE.characters.index("."), temperature=0.3))
    assert "quick brown" in words


def test_same_seed_same_bits():
    runs = [train(model_for(CIRCLE), CIRCLE, steps=5).losses for _ in range(2)]
    assert runs[0] == runs[1]
    assert train(model_for(CIRCLE, seed=1), CIRCLE, steps=5).losses != runs[0]


def test_measuring_in_streams_is_measuring():
    """One stream: −log₂ p by the definition, character after character."""
    model, codes = model_for(CIRCLE), CIRCLE.held_out
    state, bits = model.zero_state(1), []
    with mg.no_grad():
        for code, target in itertools.pairwise(codes):
            y, state = model(np.array([[code]]), state)
            bits.append(-np.log2(y.numpy()[0, target, 0]))
    assert bits_per_character(model, codes, batch=1) == pytest.approx(np.mean(bits), rel=1e-5)


def test_a_text_of_one_letter_and_one_shorter_than_a_window():
    text = split_text("a" * 25, "one letter")
    model = model_for(text, hidden=2)
    assert train(model, text, steps=2).losses == [0.0, 0.0]
    assert bits_per_character(model, text.held_out) == 0.0


def test_a_probability_that_underflows_leaves_the_loss_finite():
    model = model_for(CIRCLE)
    model.parameters["by"].data = 200.0 * np.arange(model.n)[:, None]
    loss, _ = model.loss(np.zeros((1, 1), int), np.zeros((1, 1), int), model.zero_state(1))
    loss.backward()
    assert np.isfinite(loss.item()) and all(np.isfinite(p.grad).all() for p in model.parameters.values())


def test_ctrl_c_ends_after_the_step_and_gives_the_handler_back():
    before = signal.getsignal(signal.SIGINT)
    steps = []

    class Counting(CharModel):
        def loss(self, *arguments):
            steps.append(1)
            if len(steps) == 3:
                signal.raise_signal(signal.SIGINT)
            return super().loss(*arguments)
    history = train(Counting(len(CIRCLE.characters), 4, np.random.default_rng(0)), CIRCLE, steps=100)
    assert history.interrupted and len(history.losses) == len(steps) == 3
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), Interrupt():  # the second time it means it
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
