"""Every figure of docs/bptt.md, and the numbers in its last chapter: from one multiplication to the LSTM.

    python examples/bptt_figures.py                   all figures, into bptt_figures, in a few minutes
    python examples/bptt_figures.py --only claim --steps 200 --hidden 64 --seeds 20

The last chapter asks whether the gradient of an LSTM vanishes less than that of a plain RNN, before any training. Its
loss depends only on the last hidden state, L = Σ u·h_T with a random u. The norm of the gradient at an earlier hidden
state, dL/dh at T − lag, limits what the network can learn over this lag; it is measured at every lag. All networks have
the same sizes, the same random input and weights from the same uniform range ±1/√H, except the orthogonal RNN, whose
recurrent matrix neither shrinks nor stretches. Biases are zero, except that of the forget gate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import nn, plot
from minigrad.optim import Adam

IMAGES = Path("bptt_figures")  # the course's own are in docs/images
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


# -- 7: the claim -----------------------------------------------------------------------------------------------


NETWORKS = {  # {name: (layer, forget bias)}
    "plain RNN": (nn.RNN, None),
    "RNN, orthogonal": (nn.RNN, None),
    "GRU": (nn.GRU, None),
    "LSTM, forget bias 0": (nn.LSTM, 0.0),
    "LSTM, forget bias 1": (nn.LSTM, 1.0),
    "LSTM, forget bias 3": (nn.LSTM, 3.0),
}


def network(name: str, hidden: int, rng: np.random.Generator, scale: float = 1.0, forget_bias: float | None = None,
            inputs: int = INPUTS, recurrent: bool = True) -> nn.Module:
    """A layer with weights from ±1/√H, or `scale` times an orthogonal recurrent matrix, and zero biases.
    recurrent=False: the weights of the hidden state are zero."""
    Kind, bias = NETWORKS[name]
    bias = bias if forget_bias is None else forget_bias
    layer = Kind(inputs, hidden, dtype=np.float64, rng=0)
    for _, p in layer.named_parameters():
        p.data = rng.uniform(-1.0, 1.0, p.shape) / np.sqrt(hidden) if p.shape[1] > 1 else np.zeros(p.shape)
    if "orthogonal" in name:
        layer.layers["l0"].W.data[:, :hidden] = scale * np.linalg.qr(rng.normal(size=(hidden, hidden)))[0]
    if bias is not None:
        layer.layers["l0"].bf[:] = bias
    if not recurrent:
        layer.layers["l0"].W.data[:, :hidden] = 0.0
    return layer


def run(name: str, steps: int, hidden: int, seed: int, **how: float) -> mg.bptt.Record:
    """Record a network on random input, and the backward of its loss u·h_T."""
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(steps, EXAMPLES, INPUTS)), rng.normal(size=(EXAMPLES, hidden))
    with mg.bptt.record() as rec:
        y, _ = network(name, hidden, rng, **how)(x)
        (u * y[-1]).sum().backward()
    return rec[0]


def norms(name: str, steps: int, hidden: int, seed: int, of: str | None = None, **how: float) -> np.ndarray:
    """‖dL/dh at T − lag‖ / ‖dL/dh at T‖ for lag = 0 … steps − 1; of: a value in place of h."""
    found = plot.by_lag(run(name, steps, hidden, seed, **how), of)
    return found / found[0]


def per_step(values: np.ndarray) -> float:
    """The mean factor per step of lag, over the second half of the lags, of the median over networks."""
    middle = np.median(values, axis=0)
    half = len(middle) // 2
    return (middle[-1] / middle[half]) ** (1 / max(1, len(middle) - 1 - half))


def table(results: dict[str, np.ndarray]) -> str:
    """Median and range over the seeds at some lags, and the factor per step of lag, as text."""
    steps = next(iter(results.values())).shape[1]
    lags = [lag for lag in (3, 10, 30, 100) if lag < steps][-3:]
    lines = [f"{'':<20}" + "".join(f"{f'lag {lag}':>26}" for lag in lags) + f"{'per step':>12}"]
    for name, values in results.items():
        middle = np.median(values, axis=0)
        cells = [f"{middle[i]:.1e} ({values[:, i].min():.0e} … {values[:, i].max():.0e})" for i in lags]
        lines.append(f"{name:<20}" + "".join(f"{cell:>26}" for cell in cells) + f"{per_step(values):>12.2f}")
    return "\n".join(lines)


def claim(options: argparse.Namespace) -> None:
    """Measure the claim, and its dependence on the forget gate and the lag."""
    what = f"{options.seeds} untrained networks of hidden size {options.hidden}"
    results = {name: np.array([norms(name, options.steps, options.hidden, seed) for seed in range(options.seeds)])
               for name in NETWORKS}
    print(f"‖dL/dh at T − lag‖ / ‖dL/dh at T‖, median (smallest … largest) of {what} each")
    print(table(results))
    print("one step of an LSTM: mean forget gate, factor on dL/dc without the path through h, factor on dL/dc with it; "
          "‖dL/dc‖ at lags 1 and 10")
    for bias in (0.0, 1.0, 3.0):
        how = {"steps": options.steps, "hidden": options.hidden, "forget_bias": bias}
        seeds = range(options.seeds)
        gate = np.median([run("LSTM, forget bias 0", seed=seed, **how).values["ft"].mean() for seed in seeds])
        alone, whole = (np.array([norms("LSTM, forget bias 0", seed=seed, of="c_next", recurrent=recurrent, **how)
                                  for seed in seeds]) for recurrent in (False, True))
        lags = np.median(whole, axis=0)[[lag for lag in (1, 10) if lag < options.steps]]
        print(f"forget bias {bias:.0f}       {gate:>10.2f}{per_step(alone):>10.2f}{per_step(whole):>10.2f}"
              + "".join(f"{kept:>10.2f}" for kept in lags))
    _, (left, right) = subplots(2)
    plot.against_lag(results, left)
    left.set_ylabel(PART_THAT_CAME)
    left.set_title(f"median and range of {what}", loc="left", fontsize="medium")
    biases = np.arange(-1.0, 6.5, 1.0)
    lags = [lag for lag in (10, 100, 1000) if lag < 10 * options.steps] or [1]
    kept = {lag: np.array([[norms("LSTM, forget bias 0", lag + 1, options.hidden, seed, forget_bias=bias)[-1]
                            for bias in biases] for seed in range(min(options.seeds, 3))]) for lag in lags}
    print("kept at the forget bias   " + "".join(f"{bias:>10.0f}" for bias in biases))
    for k, (lag, values) in enumerate(kept.items()):
        print(f"after {lag:>4} steps          " + "".join(f"{value:>10.0e}" for value in np.median(values, axis=0)))
        plot.draw_line(right, biases, values, f"lag {lag}", k, log=True)
    least = float(np.finfo(np.float32).smallest_subnormal)
    right.axhline(least, color="#808080", linewidth=0.8)
    right.annotate("below: 0 in float32", (biases[-1], least), ha="right", va="top", fontsize=8)
    right.set(xlabel="forget bias (the gate is σ of it, about)", ylabel="part of the gradient that is kept",
              yscale="log")
    plot.finished(right)
    right.set_title("LSTM: the forget gate and the lag decide", loc="left", fontsize="medium")
    save(left, options.out / "bptt_7_claim.png")


def signs(lag: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(x, signs): 32 sequences of noise, each with a sign as second input at the first step."""
    sign = rng.choice([-1.0, 1.0], size=32)
    x = np.stack([rng.normal(size=(lag, 32)), np.zeros((lag, 32))], axis=2)
    x[0, :, 1] = sign
    return x, sign


def remember(name: str, lag: int, updates: int, hidden: int = 16, seed: int = 0
             ) -> tuple[list[dict[str, float]], list[float]]:
    """Train a network to output at the end the sign of the first input. Returns the rows of its run, and before and
    after training the fraction of the gradient that reaches the first step from the last."""
    rng = np.random.default_rng(seed)
    layer = network(name, hidden, rng, inputs=2)
    v = mg.tensor(rng.normal(size=hidden) / np.sqrt(hidden), requires_grad=True)

    def fraction() -> float:
        with mg.bptt.record() as rec:
            y, _ = layer(signs(lag, np.random.default_rng(99))[0])
            (y[-1] @ v).sum().backward()
        found = plot.by_lag(rec[0])
        return found[-1] / found[0]
    optimiser = Adam([*layer.parameters(), v], lr=0.01)
    rows, fractions = [], [fraction()]
    for step in range(1, updates + 1):
        x, sign = signs(lag, rng)
        y, _ = layer(x)
        loss = mg.softplus(-sign * (y[-1] @ v)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rows.append({"step": step, "loss": loss.item()})
    return rows, [*fractions, fraction()]


def training(options: argparse.Namespace) -> None:
    """Train the same networks: does the vanishing gradient matter?"""
    seeds, updates = min(options.seeds, 3), options.updates
    lags = [min(lag, options.steps // 2) for lag in (20, 60)]
    _, both = subplots(2)
    for lag, ax in zip(lags, both):
        print(f"remember one sign over {lag} steps: {seeds} networks each, {updates} updates; loss (nats), and the "
              "fraction of the gradient that reaches the first step, before → after")
        for k, name in enumerate(NETWORKS):
            runs = [remember(name, lag, updates, seed=seed) for seed in range(seeds)]
            losses = np.array([[row["loss"] for row in rows] for rows, _ in runs])
            print(f"{name:<20}" + "".join(f"{loss:>8.3f}" for loss in losses[:, -20:].mean(axis=1)) + "   "
                  + "".join(f"{before:>8.0e} → {after:.0e}" for _, (before, after) in runs), flush=True)
            for seed, values in enumerate(losses):
                smooth = plot.running_mean(values, 20)[None]
                plot.draw_line(ax, np.arange(1, updates + 1), smooth, name * (seed == 0), k, log=True)
        ax.axhline(np.log(2), color="#808080", linewidth=0.8)
        ax.set(xlabel="step (updates of the weights)", ylabel="loss (nats), mean over 20 updates", yscale="log")
        ax.set_title(f"one sign, {lag} steps ago: {seeds} networks each", loc="left")
        plot.finished(ax)
    both[0].get_legend().remove()  # it equals the legend of the other
    save(ax, options.out / "bptt_7_training.png")


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


FIGURES = {figure.__name__: figure for figure in (multiplication, repeated, powers, jacobians, credit, gates, claim,
                                                training)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE",
                        help=f"draw only these of {', '.join(FIGURES)}")
    parser.add_argument("--steps", type=int, default=120, help="length of the sequences (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=32, help="hidden size of the networks (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="random networks of each kind (default %(default)s)")
    parser.add_argument("--updates", type=int, default=300, help="updates of the weights (default %(default)s)")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures (default %(default)s)")
    options = parser.parse_args(argv)
    if min(options.steps - 1, options.hidden, options.seeds, options.updates) < 1:
        parser.error("give at least 2 steps, 1 hidden unit, 1 seed and 1 update")
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
