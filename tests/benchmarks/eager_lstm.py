"""Forward and backward of the document's LSTM, with four separate gates, unrolled op by op, in several libraries.

    python tests/benchmarks/eager_lstm.py

All use the same cell, the same float32 numbers, the sum of all a as loss, and one thread; a library that is not
installed is left out. Gradients are compared before timing. The second table shows the time per step against the
length of the sequence.
"""

from __future__ import annotations

import argparse
import statistics

import timing  # isort: skip  (before NumPy: it sets the threads)

import numpy as np

SIZES = [(1, 25, 65, 100), (8, 20, 10, 24), (32, 50, 64, 128)]  # batch, T, input, hidden
GATES = ("Wf", "Wi", "Wc", "Wo"), ("bf", "bi", "bc", "bo")


def data(batch, T, n_x, n_a):
    rng = np.random.default_rng(0)
    p = {W: (rng.normal(size=(n_a, n_a + n_x)) / np.sqrt(n_a + n_x)).astype("f") for W in GATES[0]}
    p |= {b: np.zeros((n_a, 1), "f") for b in GATES[1]}
    return [rng.normal(size=(n_x, batch)).astype("f") for _ in range(T)], np.zeros((n_a, batch), "f"), p


def unrolled(x, zero, p, concatenate, sigmoid, tanh):
    """Σ a over the whole sequence; every library runs these lines."""
    a = c = zero
    loss = 0.0
    for xt in x:
        concat = concatenate([a, xt])
        ft = sigmoid(p["Wf"] @ concat + p["bf"])
        it = sigmoid(p["Wi"] @ concat + p["bi"])
        cct = tanh(p["Wc"] @ concat + p["bc"])
        ot = sigmoid(p["Wo"] @ concat + p["bo"])
        c = ft * c + it * cct
        a = ot * tanh(c)
        loss = loss + a.sum()
    return loss


def minigrad(x, zero, p):
    import minigrad as mg
    leaves = {name: mg.tensor(value, requires_grad=True) for name, value in p.items()}

    def step():
        for leaf in leaves.values():
            leaf.grad = None
        unrolled(x, zero, leaves, mg.concatenate, mg.sigmoid, mg.tanh).backward()
        return {name: leaf.grad for name, leaf in leaves.items()}
    return step


def torch(x, zero, p):
    import torch
    torch.set_num_threads(int(timing.THREADS))
    x, zero = [torch.from_numpy(v) for v in x], torch.from_numpy(zero)
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in p.items()}

    def step():
        for leaf in leaves.values():
            leaf.grad = None
        unrolled(x, zero, leaves, torch.cat, torch.sigmoid, torch.tanh).backward()
        return {name: leaf.grad.numpy() for name, leaf in leaves.items()}
    return step


def mygrad(x, zero, p):
    import mygrad
    from mygrad.nnet.activations import sigmoid
    leaves = {name: mygrad.tensor(value) for name, value in p.items()}

    def step():
        unrolled(x, zero, leaves, mygrad.concatenate, sigmoid, mygrad.tanh).backward()
        return {name: leaf.grad for name, leaf in leaves.items()}
    return step


def autograd(x, zero, p):
    import autograd
    import autograd.numpy as anp

    def sigmoid(z):
        return 0.5 * anp.tanh(0.5 * z) + 0.5
    gradient = autograd.grad(lambda leaves: unrolled(x, zero, leaves, anp.concatenate, sigmoid, anp.tanh))
    return lambda: gradient(p)


def contenders(size, libraries=(minigrad, torch, mygrad, autograd)):
    steps = {}
    for library in libraries:
        try:
            steps[library.__name__] = library(*data(*size))
        except ImportError:
            continue
        ours, theirs = steps["minigrad"](), steps[library.__name__]()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4, err_msg=library.__name__)
    return steps


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args(argv).rounds
    print(timing.conditions())
    ratios: dict[str, list[float]] = {}
    for size in SIZES:
        times = timing.side_by_side(contenders(size), rounds)
        print(f"{size!s:20}", "  ".join(f"{name} {ms:8.2f} ms" for name, ms in times.items()))
        for name, ms in times.items():
            ratios.setdefault(name, []).append(times["minigrad"] / ms)
    print("minigrad's time, geometric mean:",
          ", ".join(f"{statistics.geometric_mean(r):.2f} of {name}" for name, r in ratios.items()
                    if name != "minigrad"))

    print("\nµs per step at batch 1, input 10, hidden 24, by T")
    lengths = (100, 200, 400, 800, 1600)
    for name in contenders((1, 2, 10, 24)):
        row = []
        for T in lengths:
            step = contenders((1, T, 10, 24), [minigrad, globals()[name]])[name]
            row.append(timing.side_by_side({name: step}, max(3, rounds // 3))[name] / T * 1e3)
        print(f"{name:10}", "  ".join(f"T={T}: {us:6.1f}" for T, us in zip(lengths, row)),
              f"  last/first {row[-1] / row[0]:.2f}")


if __name__ == "__main__":
    main()
