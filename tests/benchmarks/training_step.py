"""Compare a training step of a character model with PyTorch's: embedding, LSTM, linear, cross-entropy, backward,
clipping, Adam.

    python tests/benchmarks/training_step.py                          # all sections, one thread
    MINIGRAD_THREADS=2 python tests/benchmarks/training_step.py step  # two; each contender in its own process

step   the whole step; loss and gradients of the first one are compared before timing
parts  the same, part by part
adam   the update alone, for few large and for many small parameters
faults page faults of a step, and the milliseconds that the system takes for them
rows   ways to add the gradients of repeated rows of an embedding

float32, vocabulary 65, different symbols at every step, gradients clipped to norm 0.01 (all are larger), loss read as
a number. minigrad's LSTM takes the symbols and the embedding's table, as in `SequenceModel`; "rows as x" looks the
vectors up first, in the lines of PyTorch. PyTorch's second bias, which minigrad lacks, is fixed at 0. On a CPU its Adam
updates one parameter after the other by default; "fused" is an option.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics

import timing  # isort: skip  (before NumPy: it sets the threads)

import numpy as np

import minigrad as mg
from minigrad import nn, optim
from minigrad.engine.ops.indexing import add_at

SIZES = [(1, 25, 100, 1), (16, 50, 128, 1), (50, 50, 128, 2)]  # batch, T, hidden, layers
VOCABULARY, CLIP = 65, 0.01
PARTS = ("embedding", "LSTM", "linear", "loss", "backward", "clip", "Adam", "all")


class Model(nn.Module):
    def __init__(self, hidden, layers):
        self.embedding = nn.Embedding(VOCABULARY, hidden, rng=0)
        self.lstm = nn.LSTM(hidden, hidden, layers, rng=1)
        self.linear = nn.Linear(hidden, VOCABULARY, rng=2)

    def vectors(self, x):
        return x

    def recurrent(self, x):
        return self.lstm(x, table=self.embedding.weight)


class RowsAsX(Model):
    def vectors(self, x):
        return self.embedding(x)

    def recurrent(self, x):
        return self.lstm(x)


def batches(size):
    """Endless pairs (symbols, next symbols), each (T, batch)."""
    batch, T, _, _ = size
    text = np.random.default_rng(0).integers(0, VOCABULARY, (200, T + 1, batch))
    return itertools.cycle([(symbols[:-1], symbols[1:]) for symbols in text])


def one_step(model, optimizer, x, targets, cross_entropy, clip, clock):
    """The loss as a number; both libraries run these lines."""
    optimizer.zero_grad()
    clock()
    e = model.vectors(x)
    clock()
    y, _ = model.recurrent(e)
    clock()
    logits = model.linear(y)
    clock()
    loss = cross_entropy(logits, targets)
    clock()
    loss.backward()
    clock()
    clip()
    clock()
    optimizer.step()
    clock()
    return loss.item()


def minigrad(size, clock=lambda: None, kind=Model):
    model, data, found = kind(*size[2:]), batches(size), {}
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step():
        found["loss"] = one_step(model, optimizer, *next(data), nn.cross_entropy,
                                 lambda: optim.clip_grad_norm(optimizer.parameters, CLIP), clock)

    def findings():
        gradients = Model(*size[2:])
        for p, q in zip(gradients.parameters(), model.parameters()):
            p.data = q.grad
        return {**found, **{name: a for name, a in gradients.to_torch().items() if "bias_hh" not in name}}
    return step, findings


def rows_as_x(size, clock=lambda: None):
    return minigrad(size, clock, RowsAsX)


def pytorch(size, clock=lambda: None, **adam):
    import torch
    torch.set_num_threads(int(timing.THREADS))

    class TorchModel(torch.nn.Module):
        def __init__(self, hidden, layers):
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, hidden)
            self.lstm = torch.nn.LSTM(hidden, hidden, layers)
            self.linear = torch.nn.Linear(hidden, VOCABULARY)

        def vectors(self, x):
            return self.embedding(x)

        def recurrent(self, x):
            return self.lstm(x)

    def cross_entropy(logits, targets):
        return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets.reshape(-1))
    model, data, found = TorchModel(*size[2:]), batches(size), {}
    model.load_state_dict({name: torch.tensor(a) for name, a in Model(*size[2:]).to_torch().items()})
    for name, p in model.named_parameters():
        p.requires_grad_("bias_hh" not in name)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3, **adam)

    def step():
        found["loss"] = one_step(model, optimizer, *map(torch.from_numpy, next(data)), cross_entropy,
                                 lambda: torch.nn.utils.clip_grad_norm_(trained.values(), CLIP), clock)
    return step, lambda: {**found, **{name: p.grad.numpy() for name, p in trained.items()}}


def pytorch_fused(size, clock=lambda: None):
    return pytorch(size, clock, fused=True)


CONTENDERS = {"minigrad": minigrad, "rows as x": rows_as_x, "PyTorch": pytorch, "PyTorch, fused Adam": pytorch_fused}


# -- measuring -------------------------------------------------------------------------------------------------


def step(rounds):
    pairs = [("minigrad", name) for name in CONTENDERS if name != "minigrad"]
    timing.against(CONTENDERS, SIZES, pairs, rounds, [__file__, "step"])


def parts(rounds):
    """Print the median µs of each part; contenders alternate in bursts of 0.15 s."""
    for size in SIZES:
        steps, times = {}, {}
        for name, contender in CONTENDERS.items():
            try:
                steps[name], times[name] = timed(contender, size)
            except ImportError:
                continue
        timing.side_by_side(steps, rounds)
        print(size, "µs")
        for name in steps:
            print(f"  {name:20}", "  ".join(f"{part} {statistics.median(column):.0f}"
                                            for part, column in zip(PARTS, zip(*times[name]))))


def timed(contender, size):
    """(step, times): each call of the step appends the µs of its parts and of the whole."""
    stamps, times = [], []
    call, _ = contender(size, lambda: stamps.append(timing.clock()))

    def step():
        stamps.clear()
        call()
        times.append([(after - before) * 1e6 for before, after in [*itertools.pairwise(stamps),
                                                                   (stamps[0], stamps[-1])]])
    return step, times


def adam(rounds):
    """Print the µs of an update for the models above, and for as many numbers in 200 parameters."""
    for _, _, hidden, layers in SIZES:
        model = [p.shape for p in Model(hidden, layers).parameters()]
        numbers = sum(int(np.prod(shape)) for shape in model)
        for shapes in (model, [(numbers // 200,)] * 200):
            rng, calls = np.random.default_rng(0), {}
            values = [rng.normal(size=shape).astype("f") for shape in shapes]
            ours = [mg.tensor(value, requires_grad=True) for value in values]
            for p in ours:
                p.grad = p.data / 10
            calls["minigrad"] = optim.Adam(ours).step
            try:
                import torch
                torch.set_num_threads(int(timing.THREADS))
                for name, options in (("PyTorch", {}), ("foreach", {"foreach": True}), ("fused", {"fused": True})):
                    theirs = [torch.tensor(value, requires_grad=True) for value in values]
                    for p in theirs:
                        p.grad = p.detach() / 10
                    calls[name] = torch.optim.Adam(theirs, **options).step
            except ImportError:
                pass
            found = timing.side_by_side(calls, rounds, 0.05)
            print(f"{numbers} numbers in {len(shapes):3} parameters  ",
                  "  ".join(f"{name} {ms * 1e3:.0f}" for name, ms in found.items()), "(µs)")


def faults(rounds):
    """Print the page faults and the system's milliseconds of a step."""
    for name, contender in CONTENDERS.items():
        for size in SIZES:
            try:
                call, _ = contender(size)
            except ImportError:
                continue
            for _ in range(rounds):
                call()
            before = resource.getrusage(resource.RUSAGE_SELF)
            for _ in range(rounds):
                call()
            after = resource.getrusage(resource.RUSAGE_SELF)
            print(f"{name} {size}: {(after.ru_minflt - before.ru_minflt) / rounds:.0f} page faults, "
                  f"{(after.ru_stime - before.ru_stime) / rounds * 1e3:.2f} ms")


def rows(rounds):
    """Print the µs to add gradients (n, 128) to the rows of a table given by n symbols."""
    def sort_and_reduceat(total, rows, g):
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        total[ordered[starts]] += np.add.reduceat(g[order], starts, axis=0)

    def one_hot(total, rows, g):
        columns = np.zeros((len(total), len(rows)), g.dtype)
        columns[rows, np.arange(len(rows))] = 1
        total += columns @ g

    def bincount(total, rows, g):
        where = (rows[:, None] * g.shape[1] + np.arange(g.shape[1])).ravel()
        total += np.bincount(where, g.ravel(), total.size).reshape(total.shape)

    ways = {"np.add.at": np.add.at, "np.add.at, flat (add_at)": lambda total, rows, g: add_at(total, g, (rows,)),
            "sort and reduceat": sort_and_reduceat, "one-hot product": one_hot, "bincount": bincount}
    for symbols, n in ((65, 25), (65, 800), (65, 2500), (1000, 2500), (10_000, 2500)):
        rng = np.random.default_rng(0)
        which, g = rng.integers(0, symbols, n), rng.normal(size=(n, 128)).astype("f")
        expected, calls = np.zeros((symbols, 128)), {}
        np.add.at(expected, which, g.astype(float))
        for name, way in ways.items():
            if name == "one-hot product" and symbols > 1000:
                continue
            total = np.zeros((symbols, 128), "f")
            way(total, which, g)
            np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-4)
            calls[name] = lambda way=way, total=total, which=which, g=g: way(total, which, g)
        found = timing.side_by_side(calls, rounds, 0.05)
        print(f"{n} of {symbols} symbols  ", "  ".join(f"{name} {ms * 1e3:.0f}" for name, ms in found.items()), "(µs)")


SECTIONS = {"step": step, "parts": parts, "adam": adam, "faults": faults, "rows": rows}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        return timing.worker(CONTENDERS[arguments.worker], SIZES)
    print(timing.conditions(), flush=True)
    for section in arguments.sections or SECTIONS:
        print(f"\n{section}", flush=True)
        SECTIONS[section](arguments.rounds)


if __name__ == "__main__":
    main()
