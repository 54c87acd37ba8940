"""Does the gradient of an LSTM vanish less than that of a plain RNN? Measured, before any training.

The loss looks at the last hidden state only, L = Σ u·h_T with a random u. The gradient that arrives at an earlier
hidden state, dL/dh_{T−lag}, is what the network can learn from that far back; its norm is taken at every lag.
All networks have the same sizes, the same random input and weights from the same uniform range ±1/√n_a, but for the
orthogonal RNN, whose recurrent matrix neither shrinks nor stretches. Biases are zero, but for the forget gate's.

    python examples/vanishing_gradient.py --steps 120 --hidden 32 --out docs/images/vanishing_gradient.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad.document import lstm_forward

INPUTS, EXAMPLES, OUTPUTS = 8, 4, 2
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "vanishing_gradient.png"


def rnn(x: np.ndarray, h: mg.Tensor, rng: np.random.Generator, orthogonal: bool = False) -> list[mg.Tensor]:
    """The hidden states h_t = tanh(W [h_{t−1}; x_t])."""
    n_a = h.shape[0]
    W = uniform(rng, n_a, n_a + INPUTS)
    if orthogonal:
        W[:, :n_a] = np.linalg.qr(rng.normal(size=(n_a, n_a)))[0]
    states = []
    for t in range(x.shape[2]):
        h = mg.tanh(W @ mg.concatenate([h, x[:, :, t]], axis=0))
        states.append(h)
    return states


def lstm(x: np.ndarray, h: mg.Tensor, rng: np.random.Generator, forget_bias: float) -> list[mg.Tensor]:
    """The hidden states of the document's LSTM: each step's cache begins with its a_next."""
    n_a = h.shape[0]
    parameters = {"bf": np.full((n_a, 1), forget_bias), "Wy": uniform(rng, OUTPUTS, n_a), "by": np.zeros((OUTPUTS, 1))}
    for gate in "fico":
        parameters["W" + gate] = uniform(rng, n_a, n_a + INPUTS)
        parameters.setdefault("b" + gate, np.zeros((n_a, 1)))
    *_, (caches, _) = lstm_forward(x, h, parameters)
    return [cache[0] for cache in caches]


def uniform(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.uniform(-1.0, 1.0, (rows, columns)) / np.sqrt(rows)


# name → how to run it, and how to draw it: colours (Okabe and Ito's) that differ in lightness too
NETWORKS: dict[str, tuple[Callable, dict, dict]] = {
    "plain RNN": (rnn, {}, {"color": "#000000", "linestyle": "-"}),
    "RNN, orthogonal": (rnn, {"orthogonal": True}, {"color": "#E69F00", "linestyle": ":"}),
    "LSTM, forget bias 0": (lstm, {"forget_bias": 0.0}, {"color": "#D55E00", "linestyle": "--"}),
    "LSTM, forget bias 1": (lstm, {"forget_bias": 1.0}, {"color": "#0072B2", "linestyle": "-"}),
    "LSTM, forget bias 3": (lstm, {"forget_bias": 3.0}, {"color": "#56B4E9", "linestyle": "-."}),
}


def norms(network: str, steps: int, hidden: int, seed: int) -> np.ndarray:
    """‖dL/dh_{T−lag}‖ / ‖dL/dh_T‖ for lag = 0 … steps − 1."""
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(INPUTS, EXAMPLES, steps)), rng.normal(size=(hidden, EXAMPLES))
    run, options, _ = NETWORKS[network]
    states = run(x, mg.tensor(np.zeros((hidden, EXAMPLES)), requires_grad=True), rng, **options)
    for h in states:
        h.retain_grad()
    mg.sum(u * states[-1]).backward()
    found = np.array([np.linalg.norm(h.grad) for h in reversed(states)])
    return found / found[0]


def table(results: dict[str, np.ndarray]) -> str:
    """Median, and range over the seeds, at some lags; and the factor of one step of lag, over the second half."""
    steps = next(iter(results.values())).shape[1]
    lags = [lag for lag in (3, 10, 30, 100) if lag < steps][-3:]
    lines = [f"{'':<20}" + "".join(f"{f'lag {lag}':>26}" for lag in lags) + f"{'per step':>12}"]
    for name, values in results.items():
        middle = np.median(values, axis=0)
        cells = [f"{middle[i]:.1e} ({values[:, i].min():.0e} … {values[:, i].max():.0e})" for i in lags]
        half = steps // 2
        factor = (middle[-1] / middle[half]) ** (1 / max(1, steps - 1 - half))
        lines.append(f"{name:<20}" + "".join(f"{cell:>26}" for cell in cells) + f"{factor:>12.2f}")
    return "\n".join(lines)


def draw(results: dict[str, np.ndarray], title: str, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for name, values in results.items():
        style, lag, middle = NETWORKS[name][2], np.arange(values.shape[1]), np.median(values, axis=0)
        axes.semilogy(lag, middle, linewidth=2, **style)
        axes.fill_between(lag, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="lag (time steps back from the loss)", xlim=(0, len(lag) - 1),
             ylabel=r"$\|dL/dh_{T-\mathrm{lag}}\|\;/\;\|dL/dh_T\|$  (no unit)")
    axes.set_title(title, loc="left", fontsize="medium")
    end = -np.inf
    for name in sorted(results, key=lambda name: np.median(results[name][:, -1])):  # names at the line ends, apart
        end = max(end + 0.05, axes.transAxes.inverted().transform(
            axes.transData.transform((0, np.median(results[name][:, -1]))))[1])
        axes.text(1.01, end, name, transform=axes.transAxes, va="center")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100, pil_kwargs={"optimize": True})
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120, help="length of the sequence (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=32, help="hidden size of every network (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="how many random networks each (default %(default)s)")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture (default %(default)s)")
    options = parser.parse_args(argv)
    if min(options.steps - 1, options.hidden, options.seeds) < 1:
        parser.error("it takes at least 2 steps, 1 hidden unit and 1 seed")

    results = {name: np.array([norms(name, options.steps, options.hidden, seed) for seed in range(options.seeds)])
               for name in NETWORKS}
    what = f"{options.seeds} untrained networks of hidden size {options.hidden}"
    print(f"‖dL/dh at T − lag‖ / ‖dL/dh at T‖, median (least … most) of {what} each")
    print(table(results))
    try:
        draw(results, f"How much gradient comes back: median and range of {what}", options.out)
    except ModuleNotFoundError:
        print('No picture, as matplotlib is missing: pip install ".[plot]" and run this again.')
    else:
        print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
