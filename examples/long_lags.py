"""Does an LSTM's gradient vanish, and does it matter? The measurements of chapter 7 of docs/bptt.md.

    python examples/long_lags.py                          both parts, with the recorded training runs: a minute
    python examples/long_lags.py --only untrained         gradients before training
    python examples/long_lags.py --only learning --anew   every training run again: half an hour
    python examples/long_lags.py --only learning --anew --seeds 1 --lags 20     some of them

Tables and pictures go into the folder --out. A finished training run is a line of its file runs.jsonl and is not
repeated, so a command that was stopped continues where it was. The runs of the page are recorded in
docs/results/long_lags.jsonl, and are used unless --anew is given.

The protocol. Every network reads float64 sequences. Before training: 121 steps of 4 sequences of 8 numbers from
N(0, 1), 32 hidden units, and the loss L = Σ u·h_T with u from N(0, 1), which depends on the last hidden state only. In
training: one hidden layer of 16 units reads noise from N(0, 1) and, as a second number, a sign at the first step; at
the last step v·h_T must give that sign (logistic loss, 32 fresh sequences an update, Adam, no clipping). Weights come
from U(−1/√H, 1/√H), and biases are zero, unless the row of the network says otherwise; the rows nn.RNN, nn.GRU and
nn.LSTM have the library's own initial values.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bptt_figures import save, subplots

import minigrad as mg
from minigrad import nn, plot
from minigrad.optim import Adam

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "docs" / "results" / "long_lags.jsonl"
GUESS, LEARNED = np.log(2), 0.1  # nats
WINDOW = 20  # updates over which a loss is averaged


# -- the networks -------------------------------------------------------------------------------------------


class LSTM1997(nn.Recurrent):
    """The LSTM of Hochreiter & Schmidhuber 1997: no forget gate. c keeps all that it has ever stored.

    truncated  as in 1997: gates and candidate read the last h as a constant, which cuts every path back but that
               through c. The gradient of c is then the same at every step.
    """

    def __init__(self, inputs: int, hidden: int, *, truncated: bool = True, rng=None, dtype=np.float64):
        super().__init__()
        self.hidden, self.truncated, self.dtype = hidden, truncated, dtype
        rng = np.random.default_rng(rng)
        self.W = mg.tensor(rng.uniform(-1, 1, (3 * hidden, hidden + inputs)) / np.sqrt(hidden), requires_grad=True)
        self.b = mg.tensor(np.zeros((3 * hidden, 1)), requires_grad=True)

    def initial_state(self, batch: int):
        h = c = np.zeros((self.hidden, batch), self.dtype)
        return h, c

    def cell(self, state, x):
        h_prev, c_prev = state
        h_read = h_prev.detach() if self.truncated else h_prev
        it, ot, cct = mg.split(self.W @ mg.concatenate([h_read, x]) + self.b, 3)
        c_next = c_prev + mg.sigmoid(it) * mg.tanh(cct)
        h_next = mg.sigmoid(ot) * mg.tanh(c_next)
        return (h_next, c_next), h_next


def plain(Kind: type, orthogonal: bool = False, **options) -> Callable:
    """A builder (inputs, hidden, lag, rng) → layer with weights from ±1/√H and zero biases; then with what `options`
    says of the gates' biases. chrono=True: for dependencies of `lag` steps."""
    def build(inputs: int, hidden: int, lag: int, rng: np.random.Generator) -> nn.Module:
        layer = Kind(inputs, hidden, dtype=np.float64, rng=0)
        cell = layer.layers["l0"]
        for _, p in layer.named_parameters():
            p.data = rng.uniform(-1, 1, p.shape) / np.sqrt(hidden) if p.shape[1] > 1 else np.zeros(p.shape)
        if orthogonal:
            cell.W.data[:, :hidden] = nn.init.orthogonal((hidden, hidden), rng, float)
        if "forget_bias" in options:
            cell.bf[:] = options["forget_bias"]
        if options.get("chrono"):
            keep, store = nn.init.chrono((hidden, 1), lag, rng, float)
            if Kind is nn.LSTM:
                cell.bf[:], cell.bi[:] = keep, store
            else:
                cell.b.data[cell.rows(1)] = keep
        return layer
    return build


def own(Kind: type) -> Callable:
    """The library's initial values: orthogonal on h, Glorot-uniform on x; an LSTM's forget bias is 1."""
    return lambda inputs, hidden, lag, rng: Kind(inputs, hidden, dtype=np.float64, rng=rng)


NETWORKS: dict[str, Callable] = {
    "plain RNN": plain(nn.RNN),
    "RNN, orthogonal on h": plain(nn.RNN, orthogonal=True),
    "GRU": plain(nn.GRU),
    "GRU, chrono": plain(nn.GRU, chrono=True),
    "LSTM, forget bias 0": plain(nn.LSTM),
    "LSTM, forget bias 1": plain(nn.LSTM, forget_bias=1.0),
    "LSTM, forget bias 3": plain(nn.LSTM, forget_bias=3.0),
    "LSTM, chrono": plain(nn.LSTM, chrono=True),
    "1997, truncated": lambda inputs, hidden, lag, rng: LSTM1997(inputs, hidden, rng=rng),
    "1997, whole gradient": lambda inputs, hidden, lag, rng: LSTM1997(inputs, hidden, truncated=False, rng=rng),
    "nn.RNN": own(nn.RNN),
    "nn.GRU": own(nn.GRU),
    "nn.LSTM": own(nn.LSTM),
}


def by_step(scan: mg.bptt.Record) -> dict[str, np.ndarray]:
    """The gradient at each step as a part of that at the last: {"h": …, "W": …}, each (T,) from lag 0 to lag T − 1.

    h: ‖dL/dh_t‖. W: the norm of what step t adds to the gradients of all weight matrices.
    """
    def part(norms: np.ndarray) -> np.ndarray:
        return norms / norms[0]
    steps = [scan.weight_grads(name) for name in scan.weights]
    squares = sum(np.square(d).sum(axis=(1, 2)) for d in steps if d.shape[2] > 1)
    return {"h": part(plot.by_lag(scan)), "W": part(np.sqrt(squares)[::-1])}


# -- training ------------------------------------------------------------------------------------------------


def signs(lag: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(x (lag, 32, 2), signs (32,)): noise, and the sign as second number of the first step."""
    sign = rng.choice([-1.0, 1.0], size=32)
    x = np.stack([rng.normal(size=(lag, 32)), np.zeros((lag, 32))], axis=2)
    x[0, :, 1] = sign
    return x, sign


def train(name: str, lag: int, rate: float, seed: int, updates: int, hidden: int = 16) -> dict:
    """Train one network; return its line of the results.

    learned: the first update after which the mean loss of the last 20 is below 0.1 nats, or None; loss: this mean at
    the end; h and W: [before, after] training, the part of the gradient at the last step that reaches the first one.
    """
    rng = np.random.default_rng(seed)
    layer = NETWORKS[name](2, hidden, lag, rng)
    v = mg.tensor(rng.normal(size=hidden) / np.sqrt(hidden), requires_grad=True)

    def parts() -> dict[str, float]:
        with mg.bptt.record() as rec:
            y, _ = layer(signs(lag, np.random.default_rng(99))[0])
            (y[-1] @ v).sum().backward()
        return {of: float(norms[-1]) for of, norms in by_step(rec[0]).items()}
    before, losses = parts(), []
    optimiser = Adam([*layer.parameters(), v], lr=rate)
    for _ in range(updates):
        x, sign = signs(lag, rng)
        y, _ = layer(x)
        loss = mg.softplus(-sign * (y[-1] @ v)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    smooth = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), "valid")
    below = np.flatnonzero(smooth < LEARNED)
    after = parts()
    return {"network": name, "lag": lag, "rate": rate, "seed": seed, "updates": updates,
            "learned": int(below[0]) + WINDOW if below.size else None, "loss": round(float(smooth[-1]), 4),
            **{of: [float(f"{value:.2e}") for value in (before[of], after[of])] for of in before}}


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def learning(options: argparse.Namespace) -> None:
    """Train what has not been trained, seed after seed; then print the tables and draw the picture."""
    key, file = ("network", "lag", "rate", "seed", "updates"), options.out / "runs.jsonl"
    known = read(file) + ([] if options.anew else read(RECORDED))
    done = {tuple(run[k] for k in key) for run in known}
    wanted = [(name, lag, rate, seed, options.updates) for seed in range(options.seeds) for lag in options.lags
              for rate in options.rates for name in NETWORKS]
    missing = [run for run in wanted if run not in done]
    for count, run in enumerate(missing, 1):
        known.append(train(*run))
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(known[-1]) + "\n")
        if count % len(NETWORKS) == 0:
            print(f"{count} of {len(missing)} runs", flush=True)
    runs = [run for run in known if tuple(run[k] for k in key) in set(wanted)]
    for lag in options.lags:
        print("\n".join(learning_table(runs, lag)) + "\n")
    print("\n".join(after_table(runs)) + "\n")
    draw_learning(runs, options)


def learning_table(runs: list[dict], lag: int) -> list[str]:
    """A Markdown table: the part of the gradient at the first step before training, and how many learned."""
    runs = [run for run in runs if run["lag"] == lag]
    rates = sorted({run["rate"] for run in runs})
    lines = [f"| {lag} steps | dL/dW at the first step | dL/dh there | "
             + " | ".join(f"step size {rate}" for rate in rates) + " |", "|---" * (3 + len(rates)) + "|"]
    for name in NETWORKS:
        found = [run for run in runs if run["network"] == name]
        parts = [spread([run[of][0] for run in found if run["rate"] == rates[0]]) for of in "Wh"]
        lines.append(f"| {name} | " + " | ".join(parts + [learned_by(found, rate) for rate in rates]) + " |")
    return lines


def learned_by(runs: list[dict], rate: float) -> str:
    """"8 (340)": how many of the runs with this step size learned, and the median of their updates."""
    took = [run["learned"] for run in runs if run["rate"] == rate and run["learned"] is not None]
    return f"{len(took)} ({np.median(took):.0f})" if took else "0"


def after_table(runs: list[dict]) -> list[str]:
    """A Markdown table: the part of dL/dh at the first step after training, of the runs that end below 0.1 nats."""
    lags = sorted({run["lag"] for run in runs})
    lines = ["| dL/dh at the first step, after training | " + " | ".join(f"{lag} steps" for lag in lags) + " |",
             "|---" * (1 + len(lags)) + "|"]
    for name in NETWORKS:
        after = [[run["h"][1] for run in runs if run["network"] == name and run["lag"] == lag and run["loss"] < LEARNED]
                 for lag in lags]
        lines.append(f"| {name} | " + " | ".join(f"{spread(values)}, {len(values)} runs" if values else "none"
                                                 for values in after) + " |")
    return lines


def spread(values: list[float] | np.ndarray, form: str = ".0e") -> str:
    """Median and range, as "2e-03 (7e-04 … 4e-03)"."""
    return f"{np.median(values):{form}} ({min(values):{form}} … {max(values):{form}})" if np.any(values) else "0"


def draw_learning(runs: list[dict], options: argparse.Namespace) -> None:
    """The part of the gradient at the first step before training, against the updates until the sign was learned."""
    families = {"plain RNN": ("RNN", "#000000", "s"), "nn.RNN": ("RNN", "#000000", "s"),
                "RNN, orthogonal on h": ("RNN", "#000000", "s"), "GRU": ("GRU", "#D55E00", "^"),
                "GRU, chrono": ("GRU", "#D55E00", "^"), "nn.GRU": ("GRU", "#D55E00", "^"),
                "1997, truncated": ("LSTM of 1997", "#009E73", "D"),
                "1997, whole gradient": ("LSTM of 1997", "#009E73", "D")}
    _, axes = subplots(len(options.rates))
    for ax, rate in zip(np.atleast_1d(axes), options.rates):
        for run in runs:
            if run["rate"] == rate:
                family, color, marker = families.get(run["network"], ("LSTM with forget gate", "#0072B2", "o"))
                y = run["learned"] or 1.5 * options.updates * np.exp(0.25 * np.sin(7 * run["seed"]))
                ax.plot(max(run["W"][0], 1e-18), y, marker, color=color, markersize=4.5, linestyle="", alpha=0.6,
                        markerfacecolor=color if run["lag"] == max(options.lags) else "none", label=family)
        ax.axhspan(options.updates, 3.4 * options.updates, color="#808080", alpha=0.12, linewidth=0)
        ax.text(0.02, 0.98, f"not learned in {options.updates} updates", transform=ax.transAxes, va="top", fontsize=8)
        ax.set(xscale="log", yscale="log", title=f"Adam, step size {rate}",
               xlabel="part of dL/dW at the first step, untrained")
        ax.set_ylim(top=3.4 * options.updates)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    first = np.atleast_1d(axes)[0]
    first.set_ylabel("updates until learned (loss below 0.1 nats)")
    handles = {label: handle for handle, label in zip(*first.get_legend_handles_labels())}
    first.legend(handles.values(), handles.keys(), frameon=False, loc="lower left", fontsize=8)
    save(first, options.out / "bptt_7_training.png")


# -- before training -------------------------------------------------------------------------------------------

INPUTS, EXAMPLES, HIDDEN, STEPS = 8, 4, 32, 121


def untrained_scan(build: Callable, seed: int, steps: int = STEPS, lag: int = 100) -> mg.bptt.Record:
    """Record an untrained network on random input, and the backward of L = Σ u·h_T."""
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(steps, EXAMPLES, INPUTS)), rng.normal(size=(EXAMPLES, HIDDEN))
    layer = build(INPUTS, HIDDEN, lag, rng)
    with mg.bptt.record() as rec:
        y, _ = layer(x)
        (u * y[-1]).sum().backward()
    return rec[0]


def per_step(values: np.ndarray) -> float:
    """The factor a step of lag: the geometric mean over the second half of the lags, of the median over networks."""
    middle = np.median(values, axis=0)
    half = len(middle) // 2
    return (middle[-1] / middle[half]) ** (1 / (len(middle) - 1 - half)) if middle[half] else 0.0


def without_h(build: Callable) -> Callable:
    """The same network whose weights on h are zero: c is then the only path back."""
    def closed(inputs: int, hidden: int, lag: int, rng: np.random.Generator) -> nn.Module:
        layer = build(inputs, hidden, lag, rng)
        layer.layers["l0"].W.data[:, :hidden] = 0.0
        return layer
    return closed


def untrained(options: argparse.Namespace) -> None:
    """Measure gradients against lag for every network, then what decides them in an LSTM; draw both."""
    seeds = range(options.seeds)
    results = {name: [by_step(untrained_scan(build, seed)) for seed in seeds] for name, build in NETWORKS.items()}
    biases = np.arange(-1.0, 6.5, 1.0)
    kept = {lag: np.array([[kept_over(lag, bias, seed) for bias in biases] for seed in range(min(options.seeds, 5))])
            for lag in (10, 100, 1000)}
    radii = f"spectral radius of the plain RNN's matrix on h: {spread([radius(seed) for seed in seeds], '.2f')}"
    text = "\n\n".join([radii, *("\n".join(table) for table in (
        by_lag_table(results, "h"), by_lag_table(results, "W"), gate_table(seeds), bias_table(biases, kept)))]) + "\n"
    print(text)
    (options.out / "untrained.md").write_text(text, encoding="utf-8")
    draw_untrained(results, biases, kept, options)


def radius(seed: int) -> float:
    layer = NETWORKS["plain RNN"](INPUTS, HIDDEN, 100, np.random.default_rng(seed))
    return abs(np.linalg.eigvals(layer.layers["l0"].W.data[:, :HIDDEN])).max()


def by_lag_table(results: dict[str, list], of: str) -> list[str]:
    """A Markdown table: the gradient at T − lag as a part of that at T."""
    lags = (10, 30, 100)
    lines = [f"| dL/d{of}, untrained | " + " | ".join(f"lag {lag}" for lag in lags) + " | per step |",
             "|---" * (2 + len(lags)) + "|"]
    for name, found in results.items():
        values = np.array([parts[of] for parts in found])
        lines.append(f"| {name} | " + " | ".join(spread(values[:, lag]) for lag in lags)
                     + f" | {per_step(values):.2f} |")
    return lines


def gate_table(seeds: range) -> list[str]:
    """A Markdown table: the forget gate of an LSTM, and the factors of one step on dL/dc."""
    lines = ["| LSTM, untrained | forget gate | dL/dc per step, nothing through h | dL/dc per step | dL/dc at lag 10 |",
             "|---|---|---|---|---|"]
    for bias in (0.0, 1.0, 3.0):
        build = plain(nn.LSTM, forget_bias=bias)
        alone, whole = ([untrained_scan(b, seed) for seed in seeds] for b in (without_h(build), build))
        gate = np.median([scan.values["ft"].mean() for scan in whole])
        alone, whole = (np.array([plot.by_lag(scan, "c_next") for scan in scans]) for scans in (alone, whole))
        kept = np.median(whole[:, 10] / whole[:, 0])
        lines.append(f"| forget bias {bias:.0f} | {gate:.2f} | {per_step(alone / alone[:, :1]):.2f} | "
                     f"{per_step(whole / whole[:, :1]):.2f} | {kept:.2g} |")
    return lines


def bias_table(biases: np.ndarray, kept: dict[int, np.ndarray]) -> list[str]:
    lines = ["| forget bias | " + " | ".join(f"dL/dh after {lag} steps" for lag in kept) + " |",
             "|---" * (1 + len(kept)) + "|"]
    return lines + [f"| {bias:.0f} | " + " | ".join(spread(values[:, k]) for values in kept.values()) + " |"
                    for k, bias in enumerate(biases)]


def kept_over(lag: int, bias: float, seed: int) -> float:
    norms = plot.by_lag(untrained_scan(plain(nn.LSTM, forget_bias=bias), seed, steps=lag + 1))
    return norms[-1] / norms[0]


def draw_untrained(results: dict[str, list], biases: np.ndarray, kept: dict[int, np.ndarray],
                   options: argparse.Namespace) -> None:
    _, (left, right) = subplots(2)
    shown = ["plain RNN", "RNN, orthogonal on h", "GRU", "LSTM, forget bias 0", "LSTM, forget bias 1",
             "LSTM, forget bias 3"]
    plot.against_lag({name: np.array([parts["h"] for parts in results[name]]) for name in shown}, left)
    left.set_ylabel("‖dL/dh at T − lag‖ / ‖dL/dh at T‖")
    left.set_title(f"median and range of {options.seeds} untrained networks", loc="left", fontsize="medium")
    for k, (lag, values) in enumerate(kept.items()):
        plot.draw_line(right, biases, values, f"lag {lag}", k, log=True)
    least = float(np.finfo(np.float32).smallest_subnormal)
    right.axhline(least, color="#808080", linewidth=0.8)
    right.annotate("below: 0 in float32", (biases[-1], least), ha="right", va="top", fontsize=8)
    right.set(xlabel="forget bias (the gate is about σ of it)", ylabel="part of dL/dh that is kept", yscale="log")
    plot.finished(right)
    right.set_title("LSTM: the forget gate and the lag decide", loc="left", fontsize="medium")
    save(left, options.out / "bptt_7_claim.png")


# -- arguments -----------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"only these of {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=int, default=10, help="networks of each kind (default %(default)s)")
    parser.add_argument("--lags", type=int, nargs="+", default=[20, 60], help="steps to remember the sign over")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03], help="step sizes of Adam")
    parser.add_argument("--updates", type=int, default=1500, help="updates of the weights (default %(default)s)")
    parser.add_argument("--anew", action="store_true", help="do not use the recorded training runs")
    parser.add_argument("--out", type=Path, default=Path("long_lags"),
                        help="folder of tables, pictures and runs (default %(default)s)")
    options = parser.parse_args(argv)
    if min(options.seeds, options.updates - WINDOW + 1, *(lag - 1 for lag in options.lags)) < 1:
        parser.error(f"give at least 1 seed, {WINDOW} updates and lags of 2 steps")
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.only:
        PARTS[part](options)


PARTS = {"untrained": untrained, "learning": learning}

if __name__ == "__main__":
    main()
