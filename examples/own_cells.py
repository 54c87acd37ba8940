"""Write your own recurrent cell: four published cells, each a few lines.

A cell is its equations, features first: x (D, B), states (H, B). Its backward pass is derived, it runs over
sequences like any layer, and `gradcheck` checks its gradient by complex steps through the code that runs. Each cell is
checked on sequences of different lengths, and then learns a small task: to repeat the input, +1 or −1, of three steps
ago.

    python examples/own_cells.py

The command line trains them too: `minigrad train anbn --cell examples/own_cells.py:PeepholeLSTM`.
"""

from __future__ import annotations

import argparse

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.optim import Adam


class Cell(nn.Recurrent):
    """Base class of the four: a stacked W (gates · H, H + D) on [h; x], b (gates · H, 1), an initial state of zeros."""

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
    """LSTM whose gates also read the cell state, each unit its own: f and i read the old one, o the new one.

    Gers & Schmidhuber, Recurrent nets that time and count, IJCNN 2000.
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
    """LSTM with one gate less: it writes as much as it forgets, i = 1 − f.

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
    """LSTM that normalises both products and the cell state over the units, each with its own gain and bias.

    Ba, Kiros & Hinton 2016, Layer normalization, equations 20 to 22. The length of x has no effect, only its direction.
    """

    def __init__(self, inputs, hidden, **options):
        super().__init__(inputs, hidden, **options)
        self.gain_h, self.gain_x, self.gain_c = (self.vector(size, 1.0) for size in (4 * hidden, 4 * hidden, hidden))
        self.bias_c = self.vector(hidden)  # the biases of the two products are in b

    def cell(self, state, x):
        h, c = state
        product_h, product_x = self.W[:, :self.hidden] @ h, self.W[:, self.hidden:] @ x
        z = self.gain_h * normalised(product_h) + self.gain_x * normalised(product_x) + self.b
        f, i, o, u = mg.split(z, 4)
        c_next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(u)
        h_next = mg.sigmoid(o) * mg.tanh(self.gain_c * normalised(c_next) + self.bias_c)
        return (h_next, c_next), h_next


def normalised(z):
    """z scaled to mean 0 and variance 1 over the units of each example."""
    centred = z - mg.mean(z, axis=0, keepdims=True)
    return centred / mg.sqrt(mg.mean(mg.square(centred), axis=0, keepdims=True) + 1e-5)


class MinimalGatedUnit(Cell):
    """Cell with one gate f, which resets and updates: h̃ = tanh(W [f ∘ h; x] + b), h_next = (1 − f) ∘ h + f ∘ h̃.

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
    """Model that repeats the input of some steps ago: a cell, and a linear map of its output."""

    def __init__(self, cell: nn.Recurrent, outputs: int, rng: np.random.Generator):
        self.cell = cell
        self.Wy = mg.tensor(nn.init.glorot_uniform((outputs, cell.hidden), rng), requires_grad=True)

    def __call__(self, x):
        output, _ = self.cell(x)
        return output @ self.Wy.T


def train(model: Echo, rng: np.random.Generator, updates: int, steps: int = 12, delay: int = 3) -> list[float]:
    """Train the model; returns the mean squared error at every update. Always answering 0 would give 1."""
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
        parser.error("--updates and --hidden must be at least 1")

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
