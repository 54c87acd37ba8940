"""The figures of docs/bptt.md, but for those of chapter 7, which `long_lags.py` makes with its measurements.

    python examples/bptt_figures.py                   all figures, into bptt_figures, in a few minutes
    python examples/bptt_figures.py --only jacobians --steps 200 --hidden 64
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
from minigrad.timeloop.cache import pool

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
                                                  memory, forward)}


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
