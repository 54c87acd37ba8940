"""A researcher's day: a cell of one's own in a model of one's own, trained in one's own loop, and its gradients.

    python examples/researcher_day.py             # writes memory.png and memory.html into the current folder
"""

from __future__ import annotations

import argparse

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.tasks import Adding


class Leaky(nn.Recurrent):
    """h ← h + σ(rate) ∘ (tanh(W [h; x] + b) − h): each unit has a time constant of its own, which is learned."""

    def __init__(self, inputs, hidden, rng):
        super().__init__()
        self.W = mg.tensor(nn.init.glorot_uniform((hidden, hidden + inputs), rng), requires_grad=True)
        self.b = mg.tensor(np.zeros((hidden, 1), np.float32), requires_grad=True)
        self.rate = mg.tensor(rng.uniform(-4, 0, (hidden, 1)).astype(np.float32), requires_grad=True)

    def initial_state(self, batch):
        return np.zeros((len(self.b), batch), np.float32)

    def cell(self, h, x):
        rate = mg.sigmoid(self.rate)
        h_next = h + rate * (mg.tanh(self.W @ mg.concatenate([h, x]) + self.b) - h)
        return h_next, h_next


class Model(nn.Module):
    def __init__(self, rng):
        self.leaky, self.out = Leaky(2, 24, rng), nn.Linear(24, 1, rng=rng)

    def __call__(self, x):
        return self.out(self.leaky(x)[0])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=300)
    updates = parser.parse_args(argv).updates
    rng = np.random.default_rng(0)
    task, model = Adding(30), Model(rng)
    optimizer = mg.optim.Adam(model.parameters(), lr=0.01)
    print(optimizer)

    rows = []                                                   # the loop
    for step in range(1, updates + 1):
        batch = task.batch(rng, 32)
        optimizer.zero_grad()
        loss = nn.mse_loss(model(batch.x), batch.targets, mask=batch.mask)
        loss.backward()
        mg.optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        rows.append({"step": step, "loss": loss.item()})

    batch = task.batch(1, 8)                                    # the gradients
    print(batch)
    with mg.bptt.record(model) as rec:
        loss = nn.mse_loss(model(batch.x), batch.targets, mask=batch.mask)
        print(mg.bptt.credit(rec, [loss]))
        loss.backward(retain_graph=True)
    jacobians, truncation = mg.bptt.jacobians(rec), mg.bptt.truncation(rec, [1, 2, 5, 10, 20, 30])
    print(jacobians, truncation, mg.bptt.saturation(rec), sep="\n")

    mg.inspect(model, batch, title="a leaky cell").save("memory.html")
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        print("the picture needs matplotlib")
        return
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    mg.plot.curves(rows, a, log=True)
    mg.plot.against_lag(rec, b)
    mg.plot.spectra(jacobians, c)
    mg.plot.truncation(truncation, d)
    figure.savefig("memory.png")
    plt.close(figure)


if __name__ == "__main__":
    main()
