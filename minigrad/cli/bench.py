"""`minigrad bench`: time training on this machine, by the loops in C and in NumPy, next to PyTorch if installed."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.cli.arguments import add_command, positive, positive_float
from minigrad.engine.ops import concatenate, sigmoid, split, tanh
from minigrad.engine.tensor import Tensor
from minigrad.optim import Adam, clip_grad_norm
from minigrad.timeloop.compile import compiler, loops_in
from minigrad.training.sequence_model import SequenceModel

LAYERS = ((1, 25, 65, 100), (16, 50, 65, 128))  # batch, T, inputs, hidden
SYMBOLS = 65
ROUNDS = 7


def add_bench(commands: Any) -> None:
    job = add_command(
        commands, "bench", run_bench, help="time a layer, a user-defined cell and a training step on this machine",
        description="Time forward and backward of nn.LSTM and of a user-defined cell, and a whole training step, on "
                    "this machine: with the loops over time in C if there is a C compiler, in NumPy, and by PyTorch "
                    "if that is installed. Takes some fifteen seconds.",
        examples=["bench", "bench --threads 2"])
    job.add_argument("--seconds", type=positive_float, default=0.1, metavar="X",
                     help="seconds per round (%(default)s)")
    job.add_argument("--threads", type=positive, default=1, metavar="N", help="threads of "
                     "minigrad and PyTorch (%(default)s)")


def run_bench(arguments: argparse.Namespace) -> int:
    """Print a row per job: milliseconds per call, in turn, medians of ROUNDS rounds; the ratio is of C (or NumPy)."""
    try:
        import torch
        torch.set_num_threads(arguments.threads)
    except ImportError:
        torch = None
    kinds = {"C": "c", "NumPy": "numpy"}
    if not compiler.enabled():
        del kinds["C"]
        print(f"All loops run in NumPy: {compiler.reason()}.")
    columns = [*kinds, "PyTorch"] if torch else [*kinds]
    print(f"{'one call':<62}" + "".join(f"{column:>10}" for column in columns)
          + (f"{columns[0] + ' / PyTorch':>17}" if torch else ""), flush=True)
    for name, ours, theirs in jobs(torch):
        calls = [*(by(kind, ours) for kind in kinds.values()), *([theirs] if theirs else [])]
        rounds = [[milliseconds(call, arguments.seconds) for call in calls] for _ in range(ROUNDS)]
        found = list(map(statistics.median, zip(*rounds)))
        print(f"{name:<62}" + "".join(f"{ms:>7.2f} ms" for ms in found)
              + (f"{found[0] / found[-1]:>17.2f}" if theirs else ""), flush=True)
    return 0


def by(kind: str, call: Callable) -> Callable:
    """The call with its loops in "c" or "numpy"."""
    def chosen() -> None:
        with loops_in(kind):
            call()
    return chosen


def milliseconds(call: Callable, seconds: float) -> float:
    """Milliseconds per call: the mean over as many calls as fit into `seconds`."""
    calls, start = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        spent = time.perf_counter() - start
        if spent >= seconds:
            return spent / calls * 1e3


def jobs(torch: Any) -> list[tuple[str, Callable, Callable | None]]:
    """[(description, minigrad's call, PyTorch's call or None)]"""
    found = []
    for batch, T, inputs, hidden in LAYERS:
        size = f"batch {batch}, {T} steps, {inputs} → {hidden}"
        x = Tensor(np.random.default_rng(1).normal(size=(T, batch, inputs)), True, np.float32)
        x_torch = torch and torch.randn(T, batch, inputs, requires_grad=True)
        found += [(f"nn.LSTM, {size}", layer(nn.LSTM(inputs, hidden, rng=0), x),
                   torch and layer(torch.nn.LSTM(inputs, hidden), x_torch))]
    found += [(f"a user-defined cell, {size}", layer(Coupled(inputs, hidden), x),
               torch and layer(torch_coupled(torch, inputs, hidden), x_torch)),
              (f"training step, {SYMBOLS} characters, {size.replace(str(inputs), '64', 1)}",
               training(batch, T, hidden), torch and torch_training(torch, batch, T, hidden))]
    return found


def layer(module: Callable, x: Any) -> Callable:
    """Forward and backward of a layer of minigrad or PyTorch, with gradients of the weights and of x."""
    def call():
        module(x)[0].sum().backward()
    return call


class Coupled(nn.Recurrent):
    """A cell that no library has: an LSTM with coupled gates, f = 1 − i."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.W = Tensor(nn.init.glorot_uniform((3 * hidden, hidden + inputs), 0), requires_grad=True)
        self.b = Tensor(np.zeros((3 * hidden, 1), np.float32), requires_grad=True)

    def initial_state(self, batch: int) -> Any:
        return (np.zeros((self.b.size // 3, batch), np.float32),) * 2

    def cell(self, state: Any, x: Any) -> tuple[Any, Any]:
        h, c = state
        i, o, u = split(self.W @ concatenate([h, x]) + self.b, 3)
        i = sigmoid(i)
        c = (1.0 - i) * c + i * tanh(u)
        h = sigmoid(o) * tanh(c)
        return (h, c), h


def torch_coupled(torch: Any, inputs: int, hidden: int) -> Callable:
    """`Coupled` in PyTorch."""
    cell = torch.nn.Linear(hidden + inputs, 3 * hidden)

    def run(x):
        h = c = torch.zeros(x.shape[1], hidden)
        ys = []
        for x_t in x:
            i, o, u = cell(torch.cat([h, x_t], 1)).chunk(3, 1)
            i = torch.sigmoid(i)
            c = (1.0 - i) * c + i * torch.tanh(u)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(h)
        return torch.stack(ys), (h, c)
    return run


def training(batch: int, T: int, hidden: int) -> Callable:
    """A training step: embedding, LSTM, linear, cross-entropy, backward, clipping, Adam."""
    rng = np.random.default_rng(0)
    model = SequenceModel(SYMBOLS, SYMBOLS, hidden=hidden, symbols=True, embedding=64, rng=rng)
    optimizer = Adam(model.parameters(), 1e-3)
    x, targets = rng.integers(0, SYMBOLS, (2, T, batch))

    def call():
        optimizer.zero_grad()
        nn.cross_entropy(model(x)[0], targets).backward()
        clip_grad_norm(optimizer.parameters, 1.0)
        optimizer.step()
    return call


def torch_training(torch: Any, batch: int, T: int, hidden: int) -> Callable:
    """`training` in PyTorch."""
    embedding, lstm = torch.nn.Embedding(SYMBOLS, 64), torch.nn.LSTM(64, hidden)
    linear = torch.nn.Linear(hidden, SYMBOLS)
    parameters = [p for module in (embedding, lstm, linear) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    x, targets = torch.randint(0, SYMBOLS, (2, T, batch))

    def call():
        optimizer.zero_grad()
        logits = linear(lstm(embedding(x))[0])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return call
