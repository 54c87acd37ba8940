"""Four cells that nobody put in a library, each a few lines: how to write one's own.

A cell is its equations, features first: x (D, B), states (H, B). Its backward pass is derived, it runs over
sequences like any layer, and `gradcheck` proves its gradient by complex steps through the very code that runs.
Each cell is checked so, over sequences of different lengths, and then learns a small task: to say at every step
whether it was told +1 or −1 three steps ago.

    python examples/own_cells.py

They are built as the command line builds one: `minigrad train anbn --cell examples/own_cells.py:PeepholeLSTM`.
"""

from __future__ import annotations

import argparse

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.optim import Adam


class Cell(nn.Recurrent):
    """What the four share: a stacked W (gates · H, H + D) on [h; x], b (gates · H, 1), and a start at zero."""

    gates = 4

    def __init__(self, inputs: int, hidden: int, *, dtype=np.float32, rng=None):
        super().__init__()
        self.hidden, self.dtype, rng = hidden, dtype, np.random.default_rng(rng)
        self.W = mg.tensor(np.concatenate([np.hstack([
            nn.init.orthogonal((hidden, hidden), rng, dtype), nn.init.glorot_uniform((hidden, inputs), rng, dtype)])
            for _ in range(self.gates)]), requires_grad=True)
        self.b = self.vector(self.gates * hidden)

    def vector(self, size: int, value: float = 0.0) -> mg.Tensor:
        return mg.tensor(np.full((size, 1), value, self.dtype), requires_grad=True)

    def initial_state(self, batch: int):
        h = c = np.zeros((self.hidden, batch))
        return h, c


class PeepholeLSTM(Cell):
    """The gates see the cell state too, each unit its own: f and i the old one, o the new one.

    Gers & Schmidhuber 2000, Recurrent nets that time and count.
    """

    def __init__(self, inputs, hidden, **options):
        super().__init__(inputs, hidden, **options)
        self.pf, self.pi, self.po = (self.vector(hidden, 0.1) for _ in range(3))

    def cell(self, state, x):
        h, c = state
        f, i, o, u = mg.split(self.W @ mg.concatenate([h, x]) + self.b, 4)
        c_next = mg.sigmoid(f + self.pf * c) * c + mg.sigmoid(i + self.pi * c) * mg.tanh(u)
        h_next = mg.sigmoid(o + self.po * c_next) * mg.tanh(c_next)
        return (h_next, c_next), h_next


class CoupledLSTM(Cell):
    """What is not forgotten is not written: f = 1 − i, a gate less.

    CIFG of Greff, Srivastava, Koutník, Steunebrink & Schmidhuber 2017, LSTM: a search space odyssey.
    """

    gates = 3

    def cell(self, state, x):
        h, c = state
        f, o, u = mg.split(self.W @ mg.concatenate([h, x]) + self.b, 3)
        f = mg.sigmoid(f)
        c_next = f * c + (1.0 - f) * mg.tanh(u)
        h_next = mg.sigmoid(o) * mg.tanh(c_next)
        return (h_next, c_next), h_next


class LayerNormLSTM(Cell):
    """Both products and the cell state are normalised over the units, each with a gain and a bias of its own.

    Ba, Kiros & Hinton 2016, Layer normalization, equations 20 to 22. Of x, its direction counts but not its length.
    """

    def __init__(self, inputs, hidden, **options):
        super().__init__(inputs, hidden, **options)
        self.gain_h, self.gain_x, self.gain_c = (self.vector(size, 1.0) for size in (4 * hidden, 4 * hidden, hidden))
        self.bias_c = self.vector(hidden)  # those of the two products are in b

    def cell(self, state, x):
        h, c = state
        product_h, product_x = self.W[:, :self.hidden] @ h, self.W[:, self.hidden:] @ x
        z = self.gain_h * normalised(product_h) + self.gain_x * normalised(product_x) + self.b
        f, i, o, u = mg.split(z, 4)
        c_next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(u)
        h_next = mg.sigmoid(o) * mg.tanh(self.gain_c * normalised(c_next) + self.bias_c)
        return (h_next, c_next), h_next


def normalised(z):
    """Mean 0 and variance 1 over the units of each example."""
    centred = z - mg.mean(z, axis=0, keepdims=True)
    return centred / mg.sqrt(mg.mean(mg.square(centred), axis=0, keepdims=True) + 1e-5)


class MinimalGatedUnit(Cell):
    """One gate f, that resets and updates: h̃ = tanh(W [f ∘ h; x] + b), h_next = (1 − f) ∘ h + f ∘ h̃.

    Zhou, Wu, Zhang & Zhou 2016, Minimal gated unit for recurrent neural networks.
    """

    gates = 2

    def initial_state(self, batch):
        return np.zeros((self.hidden, batch))

    def cell(self, h, x):
        n = self.hidden
        f = mg.sigmoid(self.W[:n] @ mg.concatenate([h, x]) + self.b[:n])
        candidate = mg.tanh(self.W[n:] @ mg.concatenate([f * h, x]) + self.b[n:])
        h_next = (1.0 - f) * h + f * candidate
        return h_next, h_next


CELLS = (PeepholeLSTM, CoupledLSTM, LayerNormLSTM, MinimalGatedUnit)


class Echo(nn.Module):
    """A cell, and a linear map of what it gives: the input of some steps ago."""

    def __init__(self, cell: nn.Recurrent, outputs: int, rng: np.random.Generator):
        self.cell = cell
        self.Wy = mg.tensor(nn.init.glorot_uniform((outputs, cell.hidden), rng), requires_grad=True)

    def __call__(self, x):
        output, _ = self.cell(x)
        return output @ self.Wy.T


def train(model: Echo, rng: np.random.Generator, updates: int, steps: int = 12, delay: int = 3) -> list[float]:
    """The mean squared error at every update; saying 0 all the time would give 1."""
    optimiser, losses = Adam(model.parameters(), lr=0.02), []
    for _ in range(updates):
        x = rng.choice(np.array([-1.0, 1.0], np.float32), (steps, 16, 1))
        loss = mg.mean(mg.square(model(x)[delay:] - x[:-delay]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=300, help="training steps of each cell (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=16, help="hidden size in training (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.updates < 1 or options.hidden < 1:
        parser.error("it takes at least 1 update and 1 hidden unit")

    print(f"{'':<18}{'parameters':>10}  {'gradient against complex step':<30}  loss: first, last of {options.updates}")
    for Kind in CELLS:
        rng = np.random.default_rng(options.seed)
        small = Kind(2, 3, rng=rng)
        x = rng.normal(size=(4, 3, 2))
        report = mg.gradcheck(lambda x, cell=small: cell(x, lengths=[4, 1, 3]), x)
        model = Echo(Kind(1, options.hidden, rng=rng), 1, rng)
        losses = train(model, rng, options.updates)
        last = float(np.mean(losses[-10:]))
        size = sum(p.size for p in model.cell.parameters())
        checked = f"{report.worst.error:.0e}, {report.method}"
        print(f"{Kind.__name__:<18}{size:>10}  {checked:<30}  {losses[0]:.3f}, {last:.3f}")


if __name__ == "__main__":
    main()
