"""The cost of a recording: forward and backward of nn.LSTM with and without `mg.bptt.record()`, and, as one would do by
hand, unrolled op by op with retain_grad on every value.

    python tests/benchmarks/bptt.py

Then the milliseconds of each analysis of a recording, at the first size. Gradients are compared before timing.
"""

from __future__ import annotations

import timing  # isort: skip  (before NumPy: it sets the threads)

import time

import numpy as np

import minigrad as mg
from minigrad import nn

SIZES = [(8, 32, 32, 64), (32, 50, 64, 128)]  # batch, T, input, hidden


def contenders(size):
    batch, T, D, H = size
    layer, x = nn.LSTM(D, H, rng=0), np.random.default_rng(1).normal(size=(T, batch, D)).astype("f")
    ones, cell = np.ones((T, batch, H), "f"), layer.layers["l0"]

    def plain():
        layer.zero_grad()
        layer(x)[0].backward(ones)

    def recorded():
        with mg.bptt.record() as rec:
            plain()
        return rec

    def by_hand():
        layer.zero_grad()
        a = c = mg.tensor(np.zeros((H, batch), "f"))
        outputs, features = [], x.transpose(0, 2, 1)
        for t in range(T):
            concat = mg.concatenate([a, features[t]])
            z = cell.W @ concat + cell.b
            gates = mg.sigmoid(z[:3 * H])
            ft, it, ot = mg.split(gates, 3)
            cct = mg.tanh(z[3 * H:])
            c = ft * c + it * cct
            a = ot * mg.tanh(c)
            for value in (concat, z, gates, ft, it, ot, cct, c, a):
                if value.requires_grad:
                    value.retain_grad()
            outputs.append(a)
        mg.stack(outputs).backward(np.ones((T, H, batch), "f"))

    found = []
    for run in (plain, recorded, by_hand):
        run()
        found.append(cell.W.grad)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-3, atol=1e-3 * np.abs(found[0]).max())
    return {"plain": plain, "recorded": recorded, "unrolled with retain_grad": by_hand}


def analyses(size):
    """Print the milliseconds of one call of each analysis."""
    batch, T, D, H = size
    layer, x = nn.LSTM(D, H, rng=0), np.random.default_rng(1).normal(size=(T, batch, D)).astype("f")
    with mg.bptt.record() as rec:
        losses = mg.sum(layer(x)[0] ** 2, axis=(1, 2))
        mg.sum(losses).backward(retain_graph=True)
    scan, found = rec[0], mg.bptt.jacobians(rec)
    asked = {"all values": lambda: dict(scan.values), "all grads": lambda: dict(scan.grads),
             "weight_grads": lambda: [scan.weight_grads(name) for name in scan.weights],
             "credit": lambda: mg.bptt.credit(rec, losses), "jacobians": lambda: mg.bptt.jacobians(rec),
             "their norms": lambda: found.norms,
             "truncation, 5 k": lambda: mg.bptt.truncation(rec, [1, 2, 4, 8, 16]),
             "paths": lambda: mg.bptt.paths(rec), "saturation": lambda: mg.bptt.saturation(rec)}
    for name, ask in asked.items():
        start = time.perf_counter()
        ask()
        print(f"  {name:<18}{(time.perf_counter() - start) * 1e3:>10.1f}")


def main():
    print(timing.conditions())
    print(f"{'batch, T, input, hidden':<26}" + "".join(f"{name:>28}" for name in contenders((1, 2, 1, 1))))
    for size in SIZES:
        times = timing.side_by_side(contenders(size))
        cells = "".join(f"{ms:>18.2f} ms ({ms / times['plain']:>4.1f})" for ms in times.values())
        print(f"{', '.join(map(str, size)):<26}{cells}")
    print(f"analyses at {SIZES[0]}, ms:")
    analyses(SIZES[0])
    getter, rounds = mg.scan.__globals__["recorder"].get, 1_000_000
    start = time.perf_counter()
    for _ in range(rounds):
        getter()
    passed = (time.perf_counter() - start) / rounds
    print(f"outside record, scan checks whether a recording is open in {passed * 1e9:.0f} ns")


if __name__ == "__main__":
    main()
