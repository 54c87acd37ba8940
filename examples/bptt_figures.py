"""The figures of docs/bptt.md, but for those of chapter 7, which `long_lags.py` makes with its measurements.

    python examples/bptt_figures.py                   all figures, into docs/images
    python examples/bptt_figures.py --only jacobians --steps 200 --hidden 64
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import nn, plot

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
INPUTS, EXAMPLES = 8, 4
PART_THAT_CAME = "‖dL/dh at T − lag‖ / ‖dL/dh at T‖"


# -- 1 to 3: one number ---------------------------------------------------------------------------------------


def multiplication(options: argparse.Namespace) -> None:
    def loss(w, x, target):
        y = w * x
        error = y - target
        L = np.square(error)
        return L

    mg.graph(loss, 0.5, 2.0, 3.0).save(options.out / "bptt_1_multiplication.svg")


def recurrence(w: float, xs: np.ndarray, curve: Callable = lambda s: s) -> mg.bptt.Record:
    """Record s_t = curve(w s_{t−1} + x_t) with the loss L = s_T."""
    w = mg.tensor(w, requires_grad=True)

    def cell(s_prev, x):
        s = curve(w * s_prev + x)
        return s, s

    with mg.bptt.record() as rec:
        s, _ = mg.scan(cell, np.zeros(()), xs)
        s.backward()
    return rec[0]


def repeated(options: argparse.Namespace) -> None:
    mg.graph(recurrence(0.1, np.ones(4)), weights=True).unrolled(4).save(options.out / "bptt_2_repeated.svg")


def powers(options: argparse.Namespace) -> None:
    _, (left, right) = subplots(2)
    once = np.eye(1, options.steps)[0]
    for ax, curve, title in ((left, lambda s: s, "s ← w s + x"), (right, np.tanh, "s ← tanh(w s + x)")):
        plot.against_lag({f"w = {w}": recurrence(w, once, curve) for w in (1.3, 1.1, 1.0, 0.9)}, ax, of="s")
        ax.set_title(title, loc="left")
    save(left, options.out / "bptt_3_powers.png")


# -- 4: many numbers -----------------------------------------------------------------------------------------------


def jacobians(options: argparse.Namespace) -> None:
    _, (left, right) = subplots(2)
    spectra, bounds = {}, {}
    for scale in (0.7, 1.0, 1.5):
        scan = run("RNN, orthogonal", options.steps, options.hidden, 0, scale=scale)
        found = mg.bptt.jacobians(scan)
        spectra[f"W = {scale} × orthogonal"] = found
        norms = plot.by_lag(scan)
        bounds[f"gradient at {scale}"] = norms / norms[0]
        bounds[f"bound at {scale}"] = np.concatenate([[1.0], found.norms.max(axis=1)[:-1]])
    plot.spectra(spectra, left)
    left.set_title("one step: its Jacobian", loc="left")
    plot.against_lag(bounds, right)
    right.set_ylabel(PART_THAT_CAME)
    right.set_title("many steps: the product of them bounds the gradient", loc="left")
    save(left, options.out / "bptt_4_jacobians.png")


# -- 5: all of the loss, all of the steps -----------------------------------------------------------------------------


def credit(options: argparse.Namespace) -> None:
    steps = min(options.steps, 40)
    layer = network("LSTM, forget bias 1", options.hidden, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(steps, EXAMPLES, INPUTS)), rng.normal(size=(steps, EXAMPLES, options.hidden))
    with mg.bptt.record() as rec:
        y, _ = layer(x)
        losses = ((y - target) ** 2).mean(axis=(1, 2))
        found = mg.bptt.credit(rec, losses)
        losses.sum().backward()
    _, (left, right) = subplots(2)
    plot.ledger(found, left)
    left.set_title("gradient of each loss for each step", loc="left")
    ks = np.arange(1, steps)  # all steps would not be a truncation
    truncation = mg.bptt.truncation(rec, ks, every=1)
    plot.draw_line(right, ks, truncation.bias["W"][None], "bias", 0, log=True)
    plot.draw_line(right, ks, 1 - truncation.cosine["W"][None], "1 − cosine", 1, log=True)
    right.set(xlabel="k (steps that the backward goes back)", ylabel="error of dL/dW (no unit)", yscale="log")
    plot.finished(right)
    right.set_title("error of a truncated backward", loc="left")
    save(left, options.out / "bptt_5_credit.png")


# -- 6: gates --------------------------------------------------------------------------------------------------------


TEXT = "a (bc) def (gh) ijk (lm no pq"


def latch(text: str = TEXT) -> mg.bptt.Record:
    """Record an LSTM with weights set by hand that reads a text. All units store at "(". Unit 0 forgets at ")"; the
    others forget at every step, at their own rates. L is the sum of the last hidden state."""
    characters = sorted(set(text))
    cell = nn.LSTMCell(len(characters), 4, forget_bias=0.0, dtype=np.float64, rng=0)
    cell.W.data = np.zeros(cell.W.shape)
    opening, closing = (4 + characters.index(c) for c in "()")
    forget = np.array([5.0, 5.0, 2.2, 0.0])  # gates of 0.99, 0.99, 0.90, 0.50
    cell.bf[:, 0], cell.bi[:], cell.bo[:], cell.bc[:] = forget, -5.0, 2.0, 2.0
    cell.Wf[0, closing], cell.Wi[:, opening] = -10.0, 10.0
    x = np.eye(len(characters))[[characters.index(c) for c in text]]
    with mg.bptt.record() as rec:
        _, y = mg.scan(cell.cell, cell.initial_state(1), x[:, :, None])
        y[-1].sum().backward()
    return rec[0]


def gates(options: argparse.Namespace) -> None:
    scan = latch()
    mg.graph(scan).save(options.out / "bptt_6_lstm.svg")
    figure, (upper, lower) = subplots(1, 2)
    figure.set_size_inches(9, 7)
    plot.gates({f"{name}, unit 0": scan.values[name][:, :1] for name in ("ft", "it", "ot")}, upper, symbols=TEXT)
    upper.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, handlelength=3.6)
    upper.set_xlim(-0.5, len(TEXT) - 0.5)
    plot.heat(scan.grads["c_next"], lower, symbols=TEXT, name="|dL/dc_next|", log=True)
    lower.set_yticks(range(4), ["0: until )", "1: 0.99", "2: 0.90", "3: 0.50"])
    lower.set_ylabel("unit: forget gate")
    save(upper, options.out / "bptt_6_gates.png")


# -- networks of chapters 4 and 5 ---------------------------------------------------------------------------------


NETWORKS = {"RNN, orthogonal": (nn.RNN, None), "LSTM, forget bias 1": (nn.LSTM, 1.0)}  # {name: (layer, forget bias)}


def network(name: str, hidden: int, rng: np.random.Generator, scale: float = 1.0) -> nn.Module:
    """A layer with weights from ±1/√H and zero biases; the RNN with `scale` times an orthogonal recurrent matrix."""
    Kind, bias = NETWORKS[name]
    layer = Kind(INPUTS, hidden, dtype=np.float64, rng=0)
    for _, p in layer.named_parameters():
        p.data = rng.uniform(-1.0, 1.0, p.shape) / np.sqrt(hidden) if p.shape[1] > 1 else np.zeros(p.shape)
    if bias is None:
        layer.layers["l0"].W.data[:, :hidden] = scale * np.linalg.qr(rng.normal(size=(hidden, hidden)))[0]
    else:
        layer.layers["l0"].bf[:] = bias
    return layer


def run(name: str, steps: int, hidden: int, seed: int, scale: float) -> mg.bptt.Record:
    """Record a network on random input, and the backward of its loss u·h_T."""
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(steps, EXAMPLES, INPUTS)), rng.normal(size=(EXAMPLES, hidden))
    with mg.bptt.record() as rec:
        y, _ = network(name, hidden, rng, scale)(x)
        (u * y[-1]).sum().backward()
    return rec[0]


# -- files and arguments ------------------------------------------------------------------------------------------


def subplots(columns: int, rows: int = 1):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(5.4 * columns, 4.2 * rows), layout="constrained")


def save(ax, path: Path) -> None:
    import matplotlib.pyplot as plt

    ax.figure.savefig(path, dpi=90, pil_kwargs={"optimize": True})
    plt.close(ax.figure)


FIGURES = {figure.__name__: figure for figure in (multiplication, repeated, powers, jacobians, credit, gates)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE",
                        help=f"draw only these of {', '.join(FIGURES)}")
    parser.add_argument("--steps", type=int, default=120, help="length of the sequences (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=32, help="hidden size of the networks (default %(default)s)")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures (default %(default)s)")
    options = parser.parse_args(argv)
    if min(options.steps - 1, options.hidden) < 1:
        parser.error("give at least 2 steps and 1 hidden unit")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        try:
            FIGURES[name](options)
        except ModuleNotFoundError as problem:
            print(f'{name}: no picture, because {problem.name} is missing: pip install ".[plot]" and run this again.')
        else:
            print(f"{name}: in {options.out}")


if __name__ == "__main__":
    main()
