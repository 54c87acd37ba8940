"""Does an LSTM's gradient vanish, and does it matter? The measurements of chapter 7 of docs/bptt.md.

    python examples/long_lags.py untrained        gradients before training, and their picture: a minute
    python examples/long_lags.py learning         train every network on two lags, and draw the picture: half an hour
    python examples/long_lags.py learning --seeds 1 --lags 20 --results /tmp/mine.jsonl

A finished training run is one line of the results file and is not repeated: the second command continues where it was
stopped, and with the file in the repository it only prints the table and draws the picture.

The protocol. Every network reads float64 sequences. Before training: T steps of 4 sequences of 8 numbers from N(0, 1),
32 hidden units, and the loss L = Σ u·h_T with u from N(0, 1), which depends on the last hidden state only. In training:
one hidden layer of 16 units reads noise from N(0, 1) and, as a second number, a sign at the first step; at the last step
v·h_T must give that sign (logistic loss, 32 sequences an update, Adam). Weights come from ±1/√H, and biases are zero,
unless the row of the network says otherwise; the rows nn.RNN, nn.GRU and nn.LSTM have the library's own initial values.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import nn, plot
from minigrad.optim import Adam

ROOT = Path(__file__).resolve().parents[1]
IMAGES, RESULTS = ROOT / "docs" / "images", ROOT / "docs" / "results" / "long_lags.jsonl"
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
    """Train what the results file lacks, seed after seed; then print the table and draw the picture."""
    key = ("network", "lag", "rate", "seed", "updates")
    done = {tuple(run[k] for k in key) for run in read(options.results)}
    wanted = [(name, lag, rate, seed, options.updates) for seed in range(options.seeds) for lag in options.lags
              for rate in options.rates for name in NETWORKS]
    missing = [run for run in wanted if run not in done]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for count, run in enumerate(missing, 1):
        with open(options.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(train(*run)) + "\n")
        if count % len(NETWORKS) == 0:
            print(f"{count} of {len(missing)} runs", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=list(PARTS), metavar="PART",
                        help=f"which of {', '.join(PARTS)} (default: both)")
    parser.add_argument("--seeds", type=int, default=10, help="networks of each kind (default %(default)s)")
    parser.add_argument("--lags", type=int, nargs="+", default=[20, 60], help="steps to remember the sign over")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03], help="step sizes of Adam")
    parser.add_argument("--updates", type=int, default=1500, help="updates of the weights (default %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of finished runs, one a line")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures (default %(default)s)")
    options = parser.parse_args(argv)
    for part in options.parts:
        PARTS[part](options)


PARTS = {"learning": learning}

if __name__ == "__main__":
    main()
