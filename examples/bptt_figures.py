"""Every figure of docs/bptt.md, and the numbers of its chapters 4, 7, 8 and 9.

    python examples/bptt_figures.py                   all figures, into docs/images, in a few minutes
    python examples/bptt_figures.py --only claim --steps 200 --hidden 64 --seeds 20

Chapter 7 asks whether the gradient of an LSTM vanishes less than that of a plain RNN, before any training. Its
loss depends only on the last hidden state, L = Σ u·h_T with a random u. The norm of the gradient at an earlier hidden
state, dL/dh at T − lag, limits what the network can learn over this lag; it is measured at every lag. All networks have
the same sizes, the same random input and weights from the same uniform range ±1/√H, except the orthogonal RNN, whose
recurrent matrix neither shrinks nor stretches. Biases are zero, except that of the forget gate.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import minigrad as mg
from minigrad import nn, plot
from minigrad.optim import Adam
from minigrad.timeloop.cache import pool

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

    save_graph(mg.graph(loss, 0.5, 2.0, 3.0), options.out / "bptt_1_multiplication.svg")


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
    save_graph(mg.graph(recurrence(0.1, np.ones(4)), weights=True).unrolled(4), options.out / "bptt_2_repeated.svg")


def powers(options: argparse.Namespace) -> None:
    _, (left, right) = subplots(2)
    once = np.eye(1, options.steps)[0]
    for ax, curve, title in ((left, lambda s: s, "s ← w s + x"), (right, np.tanh, "s ← tanh(w s + x)")):
        plot.against_lag({f"w = {w}": recurrence(w, once, curve) for w in (1.3, 1.1, 1.0, 0.9)}, ax, of="s")
        ax.set_title(title, loc="left")
    early = max(0, options.steps - 11)  # the lag of the first ten steps
    right.axvspan(early, options.steps - 1, color=INK, alpha=0.15, linewidth=0)
    right.text(0.86, 0.42, "the first 10 steps:\ns still changes", transform=right.transAxes, ha="right", fontsize=8)
    save(left, options.out / "bptt_3_powers.png")


# -- 4: many numbers -----------------------------------------------------------------------------------------------


def jacobians(options: argparse.Namespace) -> None:
    _, (left, right) = subplots(2)
    spectra, gradients = {}, {}
    for k, scale in enumerate((0.7, 1.0, 1.5)):
        scan = run("RNN, orthogonal", options.steps, options.hidden, 0, scale=scale)
        found, norms = mg.bptt.jacobians(scan), plot.by_lag(scan)
        spectra[f"{scale} × orthogonal"], gradients[f"{scale} × orthogonal"] = found, norms / norms[0]
        bound = np.concatenate([[1.0], found.norms.max(axis=1)[:-1]])
        right.plot(bound, color=plot.STYLES[k][0], linewidth=0.9, label="_")
    plot.spectra(spectra, left)
    left.set_title("one step: its Jacobian", loc="left")
    plot.against_lag(gradients, right)
    right.set_ylabel(PART_THAT_CAME)
    right.set_title("many steps: gradient (marked), and its bound (thin)", loc="left")
    save(left, options.out / "bptt_4_jacobians.png")


# -- 4: an explosion ------------------------------------------------------------------------------------------------


def distance(parameters: np.ndarray) -> mg.Tensor:
    """L = (s_50 − 0.7)² for s ← tanh(w s + b) from s = 0.3, with (w, b) = parameters."""
    w, b = parameters

    def cell(s_prev, x):
        s = np.tanh(w * s_prev + b)
        return s, ()
    s, _ = mg.scan(cell, 0.3 + 0.0 * w, np.zeros((50, 0)))
    return np.square(s - 0.7)


def descent(max_norm: float, lr: float = 0.02, updates: int = 60) -> np.ndarray:
    """The (w, b) of gradient descent from one start, with gradients clipped to a norm."""
    path = [np.array([1.3, -0.25])]
    for _ in range(updates):
        g = mg.grad(distance)(path[-1])
        path.append(path[-1] - lr * g * min(1.0, max_norm / np.linalg.norm(g)))
    return np.array(path)


def cliff(options: argparse.Namespace) -> None:
    """The loss of one unit over its two weights, and gradient descent on it, as Pascanu et al. (2013) draw it."""
    figure, (left, right) = subplots(2)
    w, b = np.meshgrid(np.linspace(1.0, 1.6, 241), np.linspace(-0.3, 0.15, 241))
    image = left.pcolormesh(w, b, distance(np.stack([w, b])), cmap=plot.MAP, shading="nearest", rasterized=True)
    figure.colorbar(image, ax=left, label="loss")
    for max_norm, name, color, marker in ((np.inf, "as it is", "#D55E00", "s"),
                                          (1.0, "clipped at norm 1", "#FFFFFF", "o")):
        path = descent(max_norm)
        print(f"gradient {name}: longest update {np.linalg.norm(np.diff(path, axis=0), axis=1).max():.2f}, "
              f"ends at w = {path[-1, 0]:.2f}, b = {path[-1, 1]:.2f} with loss {float(distance(path[-1])):.4f}")
        left.plot(*path.T, color=color, marker=marker, markersize=3.5, linewidth=1.2, label=name)
    left.set(xlim=(1.0, 1.6), ylim=(-0.3, 0.15), xlabel="w", ylabel="b")
    left.legend(loc="upper right", facecolor="#404040", labelcolor="#FFFFFF", framealpha=0.9)
    left.set_title("loss over the two weights, and gradient descent", loc="left")
    across = np.linspace(-0.12, 0.02, 20001)  # the steepest part is narrow
    for k, at in enumerate((1.05, 1.1, 1.2)):
        d = mg.grad(lambda parameters: distance(parameters).sum())(np.stack([np.full(across.shape, at), across]))
        norms = np.linalg.norm(d, axis=0)
        print(f"w = {at}: the gradient is {norms[0]:.1f} at b = {across[0]} and {norms.max():.0f} on the cliff")
        plot.draw_line(right, across, norms[None], f"w = {at}", k, log=True)
    right.set(xlabel="b", ylabel="norm of the gradient", yscale="log")
    plot.finished(right)
    right.set_title("the gradient on the way across the cliff", loc="left")
    save(left, options.out / "bptt_4_cliff.png")


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
    save_graph(mg.graph(scan), options.out / "bptt_6_lstm.svg")
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


# -- 8 and 9: what they cost ------------------------------------------------------------------------------------------


def peak(compute: Callable) -> float:
    """The largest memory of a call in MB. Buffers of earlier calls are not used again."""
    before, pool.limit = pool.limit, 0
    tracemalloc.start()
    try:
        compute()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
        pool.limit = before


def checkpoint_peaks(hidden: int, steps: int = 1024, batch: int = 8) -> dict[int, float]:
    """{k: peak memory in MB} of an LSTM's gradient with every k-th state kept, from all states to √T."""
    layer = nn.LSTMCell(1, hidden, rng=0)
    x = np.random.default_rng(0).normal(size=(steps, 1, batch)).astype(np.float32)
    start = np.zeros((hidden, batch), np.float32)

    def cell(state, x):
        state, _ = layer.cell(state, x)
        return state, ()

    def gradient(every: int | None) -> None:
        with mg.loops_in("numpy"):
            (h, _), _ = mg.scan(cell, (start, start), x, checkpoint_every=every)
            h.sum().backward()
    return {every: peak(lambda every=every: gradient(every if every < steps else None))
            for every in (steps, 512, 256, 128, 64, 32)}


def memory(options: argparse.Namespace) -> None:
    """The peak memory with checkpoints, and the error of windows."""
    hidden = 2 * options.hidden
    peaks = checkpoint_peaks(hidden)
    intervals, steps = list(peaks), max(peaks)
    print(f"LSTM, {hidden} units, 8 sequences of {steps} steps, float32: peak memory by the number of steps between "
          "two states that are kept")
    for every, size in peaks.items():
        print(f"{'all kept' if every == steps else every:>9}{size:>8.1f} MB")
    _, (left, right) = subplots(2)
    plot.draw_line(left, np.array(intervals), np.array([list(peaks.values())]), "", 0, log=True)
    left.set(xlabel="k, steps between two states that are kept", ylabel="peak memory (MB)", xscale="log", yscale="log",
             xticks=intervals, xticklabels=intervals, yticks=[2, 5, 10, 20], yticklabels=[2, 5, 10, 20])
    left.minorticks_off()
    plot.finished(left)
    left.set_title(f"checkpoints: {steps} steps, √T = 32", loc="left")
    windows(right, min(options.steps, 40), options.hidden)
    save(left, options.out / "bptt_8_memory.png")


def windows(ax, steps: int, hidden: int) -> None:
    """Draw the error of truncated backpropagation through time, for overlapping windows and for others."""
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(steps, EXAMPLES, INPUTS)), rng.normal(size=(steps, EXAMPLES, hidden))
    with mg.bptt.record() as rec:
        y, _ = network("LSTM, forget bias 1", hidden, np.random.default_rng(0))(x)
        ((y - target) ** 2).mean(axis=(1, 2)).sum().backward()
    lengths = np.arange(1, steps)
    for k, (name, every) in enumerate({"k1 = 1": 1, "k1 = k2": None}.items()):
        plot.draw_line(ax, lengths, mg.bptt.truncation(rec, lengths, every=every).bias["W"][None], name, k, log=True)
    ax.set(xlabel="k2 (steps that the backward goes back)", ylabel="error of dL/dW (part of it)", yscale="log")
    plot.finished(ax)
    ax.set_title(f"windows: {steps} steps of the LSTM of figure 5", loc="left")


def rnn_with_loss(hidden: int) -> tuple[Callable, list[mg.Tensor]]:
    """A plain RNN of one input as a cell whose output is its loss, and its weights."""
    layer = nn.RNNCell(1, hidden, dtype=np.float64, rng=0)

    def cell(h_prev, x):
        h, _ = layer.cell(h_prev, x)
        return h, np.sum(np.square(h))
    return cell, list(layer.parameters())


def forward(options: argparse.Namespace) -> None:
    """What real-time recurrent learning costs beside BPTT: time by the number of units, memory by that of steps."""
    def by_rtrl(hidden: int, steps: int) -> None:
        cell, weights = rnn_with_loss(hidden)
        for _ in mg.bptt.rtrl(cell, np.zeros((hidden, 1)), np.ones((steps, 1, 1)), weights):
            pass

    def by_bptt(hidden: int, steps: int) -> None:
        cell, _ = rnn_with_loss(hidden)
        with mg.loops_in("numpy"):
            mg.scan(cell, np.zeros((hidden, 1)), np.ones((steps, 1, 1)))[1].sum().backward()

    def product(hidden: int, steps: int) -> None:
        J, influence = np.ones((hidden, hidden)), np.ones((hidden, hidden * (hidden + 2)))
        for _ in range(steps):
            J @ influence

    def seconds(compute: Callable, more: int, hidden: int) -> float:
        """Of one step: the processor's time for `more` and 10 steps less that for 10, each the least of five."""
        def once(steps: int) -> float:
            start = time.process_time()
            compute(hidden, steps)
            return time.process_time() - start
        with threadpool_limits(1, user_api="blas"):
            return max(1e-9, min(once(10 + more) for _ in range(5)) - min(once(10) for _ in range(5))) / more

    methods = {"RTRL": (by_rtrl, 40), "BPTT": (by_bptt, 4000), "J P of RTRL": (product, 40)}
    sizes = [hidden for hidden in (4, 8, 16, 32, 64, 128) if hidden <= max(8, 4 * options.hidden)]
    lengths = [steps for steps in (10, 100, 1000, 10000) if steps <= 100 * options.steps]
    _, (left, right) = subplots(2)
    print("milliseconds a step, plain RNN, one sequence; H = " + "".join(f"{hidden:>9}" for hidden in sizes))
    for k, (name, (compute, more)) in enumerate(methods.items()):
        times = np.array([seconds(compute, more, hidden) for hidden in sizes])
        print(f"{name:<11}" + "".join(f"{1e3 * value:>9.3f}" for value in times)
              + f"   the last doubling: × {times[-1] / times[-2]:.1f}")
        plot.draw_line(left, np.array(sizes), 1e3 * times[None], name, k, log=True)
    left.set(xlabel="H, units", ylabel="milliseconds a step", xscale="log", yscale="log", xticks=sizes,
             xticklabels=sizes)
    left.minorticks_off()
    plot.finished(left)
    left.set_title("time grows with the units", loc="left")
    print("peak memory in MB at 16 units; T = " + "".join(f"{steps:>9}" for steps in lengths))
    for k, (name, (compute, _)) in enumerate(list(methods.items())[:2]):
        kept = np.array([peak(lambda compute=compute, steps=steps: compute(16, steps)) for steps in lengths])
        print(f"{name:<11}" + "".join(f"{value:>9.2f}" for value in kept))
        plot.draw_line(right, np.array(lengths), kept[None], name, k, log=True)
    right.set(xlabel="T, steps", ylabel="peak memory (MB), 16 units", xscale="log", yscale="log")
    plot.finished(right)
    right.set_title("memory grows with the steps", loc="left")
    save(left, options.out / "bptt_9_forward.png")


# -- files and arguments ------------------------------------------------------------------------------------------


def subplots(columns: int, rows: int = 1):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(5.4 * columns, 4.2 * rows), layout="constrained")


INK = "#747c87"  # grey that is legible on white and on black


def save(ax, path: Path) -> None:
    """Save a figure that can be read on a light and on a dark page: a transparent background, and grey for black."""
    import matplotlib.pyplot as plt
    from matplotlib.collections import Collection
    from matplotlib.colors import to_hex, to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.spines import Spine
    from matplotlib.text import Text

    for part in ax.figure.findobj(lambda part: isinstance(part, (Text, Line2D, Spine))):
        color = part.get_edgecolor() if isinstance(part, Spine) else part.get_color()
        if to_hex(color) in ("#000000", "#808080"):
            part.set_color(INK)
        if isinstance(part, Line2D) and to_hex(part.get_markerfacecolor(), keep_alpha=True) == "#000000ff":
            part.set_markerfacecolor(INK)
    for part in ax.figure.findobj(lambda part: isinstance(part, Collection) and part.get_array() is None):
        faces, edges = part.get_facecolor().copy(), part.get_edgecolor().copy()  # of bands and of scattered points
        for colors in (faces, edges):
            colors[(colors[:, :3] == 0.0).all(axis=1), :3] = to_rgb(INK)
        part.set(facecolor=faces, edgecolor=edges)
    for axes in ax.figure.axes:
        axes.tick_params(which="both", colors=INK)
        for image in axes.images:
            image.set_cmap(image.get_cmap().with_extremes(under="none"))
    ax.figure.savefig(path, dpi=90, transparent=True, pil_kwargs={"optimize": True})
    plt.close(ax.figure)


def save_graph(graph, path: Path) -> None:
    """Save the picture of a graph, whose colours are inverted on a dark page."""
    graph.save(path)
    dark = "<style>@media (prefers-color-scheme: dark) { svg { filter: invert(1) hue-rotate(180deg) } }</style>\n"
    path.write_text(path.read_text(encoding="utf-8").replace("<title>", f"{dark}<title>", 1), encoding="utf-8")


FIGURES = {figure.__name__: figure for figure in (multiplication, repeated, powers, jacobians, cliff, credit, gates,
                                                claim, training, memory, forward)}


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
