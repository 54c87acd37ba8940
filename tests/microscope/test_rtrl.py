"""Real-time recurrent learning equals backpropagation through time, for every cell that minigrad ships."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

OWN = runpy.run_path(Path(__file__).parents[2] / "examples" / "own_cells.py")["CELLS"]
CELLS = {"RNN": nn.RNNCell, "RNN, relu": lambda *a, **k: nn.RNNCell(*a, nonlinearity="relu", **k), "GRU": nn.GRUCell,
         "GRU, reset before": lambda *a, **k: nn.GRUCell(*a, reset_after=False, **k), "LSTM": nn.LSTMCell,
         **{Kind.__name__: Kind for Kind in OWN}}
ONE_STATE = {"RNN", "RNN, relu", "GRU", "GRU, reset before", "MinimalGatedUnit"}
T, D, H = 9, 2, 3


def problem(name, batch, rng):
    """(cell whose output is its loss, state, xs, weights): random weights and start, so that everything counts."""
    layer = CELLS[name](D, H, dtype=np.float64, rng=0)
    for p in layer.parameters():
        p.data = rng.normal(size=p.shape)
    start = rng.normal(size=(2, H, batch))

    def cell(state, inputs):
        x, target = inputs
        state, y = layer.cell(state, x)
        return state, np.sum(np.square(y - target))
    state = start[0] if name in ONE_STATE else tuple(start)
    return cell, state, (rng.normal(size=(T, D, batch)), rng.normal(size=(T, H, batch))), list(layer.parameters())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_rtrl_equals_bptt(name, batch):
    cell, state, xs, weights = problem(name, batch, np.random.default_rng(0))
    _, losses = mg.scan(cell, state, xs)
    losses.sum().backward()
    forward = list(mg.bptt.rtrl(cell, state, xs, weights))
    np.testing.assert_allclose([loss for loss, _ in forward], losses.data, rtol=1e-14)
    for w, *steps in zip(weights, *[gradients for _, gradients in forward]):
        assert np.abs(sum(steps) - w.grad).max() <= 1e-12 * np.abs(w.grad).max(), w.name


def test_the_gradient_of_each_loss_is_there_at_its_step():
    """A learner that stops after a step has the gradient of the losses up to it: no later step is read."""
    cell, state, xs, weights = problem("LSTM", 1, np.random.default_rng(1))
    forward = mg.bptt.rtrl(cell, state, xs, weights)
    for t in range(1, 4):
        _, given = next(forward)
        for w in weights:
            w.grad = None
        mg.scan(cell, state, tuple(x[:t] for x in xs))[1][-1].backward()
        for w, d in zip(weights, given):
            np.testing.assert_allclose(d, w.grad, rtol=1e-12, atol=1e-13)


def test_some_of_the_weights():
    cell, state, xs, weights = problem("GRU", 1, np.random.default_rng(2))
    every, some = (list(mg.bptt.rtrl(cell, state, xs, chosen)) for chosen in (weights, weights[::-2]))
    for (_, all_of_them), (_, chosen) in zip(every, some):
        for d, same in zip(all_of_them[::-2], chosen):
            np.testing.assert_allclose(same, d, rtol=1e-12, atol=1e-14)


def test_wrong_use_is_refused():
    cell, state, xs, weights = problem("RNN", 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="does not use these weights: extra"):
        next(mg.bptt.rtrl(cell, state, xs, [*weights, mg.tensor(np.ones(2), requires_grad=True, name="extra")]))
    layer = nn.RNNCell(D, H, dtype=np.float64, rng=0)
    with pytest.raises(ValueError, match=r"a loss of shape \(3, 1\), and must return one number"):
        next(mg.bptt.rtrl(layer.cell, state, xs[0], list(layer.parameters())))
