"""Compare the recurrent layers and `scan` with other libraries: time of a forward and backward, of a step, of the first
call, and memory.

    python tests/benchmarks/recurrent.py                          # all sections, one thread
    MINIGRAD_THREADS=2 python tests/benchmarks/recurrent.py lstm  # two; each contender in its own process
    python tests/benchmarks/recurrent.py cell steps first memory facts
    python tests/benchmarks/recurrent.py lstm --alternate         # one call of each in turn: cold caches

lstm    nn.LSTM against torch.nn.LSTM, JAX's jit + lax.scan, hand-fused NumPy, and the matrix products alone
cell    user-defined cells through scan, against the same lines in PyTorch, and torch.nn.LSTM of that size
        (compiled_lstm.py cells: also coupled gates, torch.compile and JAX, each in its own process)
steps   µs per step against the length of the sequence
first   ms of the first call: trace, derive, plan, compile
memory  peak bytes against the size of the caches
checkpoints  peak bytes and time, with and without checkpoints
facts   the cost of single NumPy calls, on which the printers' choices rest

OPENBLAS_CORETYPE, if set, limits NumPy's products to one kind of processor: `env -u OPENBLAS_CORETYPE` removes it.
Outputs and gradients are compared before timing. A library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import tracemalloc

import timing  # isort: skip  (before NumPy: it sets the threads)

import numpy as np
from threadpoolctl import threadpool_limits

import minigrad as mg
from minigrad import nn
from minigrad.timeloop import cache

SIZES = {"lstm": [(1, 25, 65, 100), (8, 32, 32, 64), (16, 25, 65, 128), (32, 50, 64, 128), (64, 60, 128, 256)],
         "cell": [(1, 50, 20, 64), (16, 50, 32, 96), (32, 40, 64, 128)]}  # batch, T, input, hidden


def layer_and_input(size):
    batch, T, D, H = size
    return nn.LSTM(D, H, rng=0), np.random.default_rng(1).normal(size=(T, batch, D)).astype("f")


# -- contenders of an LSTM: each returns (one forward and backward, its output and gradients in PyTorch's layout) ------


def in_torch_order(cell, y, d_W, d_b):
    d_W, d_b = cell.reordered(np.asarray(d_W)), cell.reordered(np.asarray(d_b).reshape(-1, 1))
    return {"y": np.asarray(y), "weight_ih": d_W[:, cell.hidden_size:], "weight_hh": d_W[:, :cell.hidden_size],
            "bias": d_b[:, 0]}


def minigrad_layer(size):
    layer, x = layer_and_input(size)
    ones, cell, found = np.ones((size[1], size[0], size[3]), "f"), layer.layers["l0"], {}

    def step():
        layer.zero_grad()
        found["y"], _ = layer(x)
        found["y"].backward(ones)
    return step, lambda: in_torch_order(cell, found["y"].detach(), cell.W.grad, cell.b.grad)


def minigrad_scan(size):
    """The cell alone, on x (T, D, B): without the layer's conversion of the layout."""
    layer, x = layer_and_input(size)
    batch, T, _, H = size
    cell, x, ones = layer.layers["l0"], np.ascontiguousarray(x.transpose(0, 2, 1)), np.ones((T, H, batch), "f")
    zero, found = np.zeros((H, batch), "f"), {}

    def step():
        layer.zero_grad()
        _, found["y"] = mg.scan(cell.cell, (zero, zero), x)
        found["y"].backward(ones)
    return step, lambda: in_torch_order(cell, found["y"].detach().numpy().transpose(0, 2, 1), cell.W.grad, cell.b.grad)


def torch_lstm(size):
    import torch
    torch.set_num_threads(int(timing.THREADS))
    layer, x = layer_and_input(size)
    lstm = torch.nn.LSTM(size[2], size[3])
    lstm.load_state_dict({name: torch.tensor(a) for name, a in layer.to_torch().items()})
    x, ones, found = torch.from_numpy(x), torch.ones(size[1], size[0], size[3]), {}

    def step():
        lstm.zero_grad()
        found["y"], _ = lstm(x)
        found["y"].backward(ones)
    return step, lambda: {"y": found["y"].detach().numpy(), "weight_ih": lstm.weight_ih_l0.grad.numpy(),
                          "weight_hh": lstm.weight_hh_l0.grad.numpy(), "bias": lstm.bias_ih_l0.grad.numpy()}


def jax_on_threads():
    one = " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if timing.THREADS == "1" else ""
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + one
    os.environ["NPROC"] = timing.THREADS
    import jax
    return jax


def jax_scan(size):
    jax = jax_on_threads()
    jnp = jax.numpy
    layer, x = layer_and_input(size)
    cell, H = layer.layers["l0"], size[3]
    parameters = jnp.asarray(cell.W.data.T), jnp.asarray(cell.b.data[:, 0])
    x, zero = jnp.asarray(x), jnp.zeros((size[0], H), "f")

    def loss(parameters):
        W, b = parameters

        def one_step(state, x):
            a, c = state
            z = jnp.concatenate([a, x], 1) @ W + b
            f, i, o = jnp.split(jax.nn.sigmoid(z[:, :3 * H]), 3, 1)
            c = f * c + i * jnp.tanh(z[:, 3 * H:])
            a = o * jnp.tanh(c)
            return (a, c), a
        y = jax.lax.scan(one_step, (zero, zero), x)[1]
        return y.sum(), y
    gradient, found = jax.jit(jax.grad(loss, has_aux=True)), []

    def step():
        found[:] = jax.block_until_ready(gradient(parameters))
    return step, lambda: in_torch_order(cell, found[1], np.asarray(found[0][0]).T, found[0][1])


def fused_numpy(size):
    """An LSTM written by hand for speed: stacked gates, preallocated buffers, one product for the weight gradient."""
    layer, x = layer_and_input(size)
    B, T, D, H = size
    cell = layer.layers["l0"]
    W, b, xt, ones = cell.W.data, cell.b.data, x.transpose(0, 2, 1), np.ones((T, B, H), "f").transpose(0, 2, 1)
    concat, c, tanh_c = np.empty((T + 1, H + D, B), "f"), np.empty((T + 1, H, B), "f"), np.empty((T, H, B), "f")
    gates, dz, z, one, two = (np.empty(s, "f") for s in ((T, 4 * H, B), (T, 4 * H, B), (4 * H, B), (H, B), (H, B)))
    Wa, found = np.ascontiguousarray(W[:, :H].T), []

    def step():
        concat[0, :H], c[0], concat[:T, H:] = 0, 0, xt
        for t in range(T):
            g = gates[t]
            np.dot(W, concat[t], out=z)
            np.add(z, b, out=z)
            z[:3 * H] *= 0.5
            np.tanh(z, out=g)
            sigmoids = g[:3 * H]
            sigmoids *= 0.5
            sigmoids += 0.5
            f, i, o, cct = g[:H], g[H:2 * H], g[2 * H:3 * H], g[3 * H:]
            np.multiply(f, c[t], out=c[t + 1])
            np.multiply(i, cct, out=one)
            c[t + 1] += one
            np.tanh(c[t + 1], out=tanh_c[t])
            np.multiply(o, tanh_c[t], out=concat[t + 1, :H])
        da, dc = np.zeros((H, B), "f"), np.zeros((H, B), "f")
        for t in reversed(range(T)):
            g, d = gates[t], dz[t]
            f, i, o, cct = g[:H], g[H:2 * H], g[2 * H:3 * H], g[3 * H:]
            da += ones[t]
            np.multiply(da, o, out=one)
            np.multiply(tanh_c[t], tanh_c[t], out=two)
            np.subtract(1, two, out=two)
            np.multiply(one, two, out=one)
            dc += one
            np.multiply(dc, c[t], out=d[:H])
            np.multiply(dc, cct, out=d[H:2 * H])
            np.multiply(da, tanh_c[t], out=d[2 * H:3 * H])
            np.multiply(g[:3 * H], d[:3 * H], out=d[:3 * H])
            np.subtract(1, g[:3 * H], out=z[:3 * H])
            d[:3 * H] *= z[:3 * H]
            np.multiply(cct, cct, out=one)
            np.subtract(1, one, out=one)
            np.multiply(one, i, out=one)
            np.multiply(dc, one, out=d[3 * H:])
            dc *= f
            np.dot(Wa, d, out=da)
        rows = dz.transpose(1, 0, 2).reshape(4 * H, -1)
        y = concat[1:, :H].transpose(0, 2, 1).copy()
        found[:] = y, rows @ concat[:T].transpose(1, 0, 2).reshape(H + D, -1).T, rows.sum(1)
    return step, lambda: in_torch_order(cell, *found)


def products(size):
    """A lower bound: only the matrix products of the same sizes, by np.dot."""
    B, T, D, H = size
    W, Wa, concat, dz = (np.random.default_rng(0).normal(size=s).astype("f") for s in
                         ((4 * H, H + D), (H, 4 * H), (H + D, B), (4 * H, B)))
    z, da, rows, columns = np.empty((4 * H, B), "f"), np.empty((H, B), "f"), np.tile(dz, T), np.tile(concat, T).T
    dot = np.dot

    def step():
        for _ in range(T):
            dot(W, concat, z)
        for _ in range(T):
            dot(Wa, dz, da)
        dot(rows, columns)
    return step, None


# -- contenders of a user-defined cell: all libraries run these lines --------------------------------------------------


def peephole(p, lib):
    """LSTM whose gates read the cell state (Gers & Schmidhuber, IJCNN 2000)."""
    W, b, pf, pi, po = p["W"], p["b"], p["pf"], p["pi"], p["po"]
    concatenate, split, sigmoid, tanh = lib

    def cell(state, x):
        a_prev, c_prev = state
        zf, zi, zo, zc = split(W @ concatenate([a_prev, x]) + b, 4)
        c_next = sigmoid(zf + pf * c_prev) * c_prev + sigmoid(zi + pi * c_prev) * tanh(zc)
        a_next = sigmoid(zo + po * c_next) * tanh(c_next)
        return (a_next, c_next), a_next
    return cell


def coupled(p, lib):
    """LSTM that writes as much as it forgets (CIFG of Greff et al. 2017)."""
    W, b = p["W"], p["b"]
    concatenate, split, sigmoid, tanh = lib

    def cell(state, x):
        a_prev, c_prev = state
        zf, zo, zc = split(W @ concatenate([a_prev, x]) + b, 3)
        f = sigmoid(zf)
        c_next = f * c_prev + (1.0 - f) * tanh(zc)
        a_next = sigmoid(zo) * tanh(c_next)
        return (a_next, c_next), a_next
    return cell


def leaky_gru(p, lib):
    """Minimal gated unit with a learned leak, a second rate at which h approaches its candidate."""
    W, b, Wc, bc, leak = p["W"], p["b"], p["Wc"], p["bc"], p["leak"]
    concatenate, split, sigmoid, tanh = lib

    def cell(h_prev, x):
        r, z = split(sigmoid(W @ concatenate([h_prev, x]) + b), 2)
        candidate = tanh(Wc @ concatenate([r * h_prev, x]) + bc)
        h_next = h_prev + sigmoid(leak) * z * (candidate - h_prev)
        return h_next, h_next
    return cell


# {cell: (number of states, {parameter: (rows in units of H, whether it multiplies [state; x])})}
PARAMETERS = {peephole: (2, {"W": (4, True), "b": (4, False), "pf": (1, False), "pi": (1, False), "po": (1, False)}),
              coupled: (2, {"W": (3, True), "b": (3, False)}),
              leaky_gru: (1, {"W": (2, True), "b": (2, False), "Wc": (1, True), "bc": (1, False), "leak": (1, False)})}


def own(cell, size):
    """(parameters, initial state, x (T, D, B)) of a cell."""
    B, T, D, H = size
    rng, (states, parameters) = np.random.default_rng(0), PARAMETERS[cell]
    p = {name: (rng.normal(size=(rows * H, H + D if wide else 1)) / np.sqrt(H + D)).astype("f")
         for name, (rows, wide) in parameters.items()}
    zero = np.zeros((H, B), "f")
    return p, zero if states == 1 else (zero,) * states, rng.normal(size=(T, D, B)).astype("f")


def through_scan(cell):
    def contender(size):
        p, state, x = own(cell, size)
        p = {name: mg.tensor(a, requires_grad=True) for name, a in p.items()}
        ones, found = np.ones((size[1], size[3], size[0]), "f"), {}
        own_cell = cell(p, (mg.concatenate, mg.split, mg.sigmoid, mg.tanh))

        def step():
            for leaf in p.values():
                leaf.grad = None
            found["y"] = mg.scan(own_cell, state, x)[1]
            found["y"].backward(ones)
        return step, lambda: {"y": found["y"].detach(), **{name: leaf.grad for name, leaf in p.items()}}
    return contender


def in_torch(cell, compiled=None):
    """In PyTorch, eager; or with torch.compile of the "cell" alone, or of the "loop" over time, which it unrolls."""
    def contender(size):
        import torch
        torch.set_num_threads(int(timing.THREADS))
        p, first, x = own(cell, size)
        p, x = {name: torch.tensor(a, requires_grad=True) for name, a in p.items()}, torch.from_numpy(x)
        first = tuple(map(torch.from_numpy, first)) if isinstance(first, tuple) else torch.from_numpy(first)
        ones, found = torch.ones(size[1], size[3], size[0]), {}
        own_cell = cell(p, (torch.cat, torch.chunk, torch.sigmoid, torch.tanh))
        one_step = torch.compile(own_cell) if compiled == "cell" else own_cell

        def over_time(state, x):
            ys = []
            for xt in x:
                state, y = one_step(state, xt)
                ys.append(y)
            return torch.stack(ys)
        forward = torch.compile(over_time) if compiled == "loop" else over_time

        def step():
            for leaf in p.values():
                leaf.grad = None
            found["y"] = forward(first, x)
            found["y"].backward(ones)
        if compiled:
            torch._dynamo.reset()
            try:
                step()
            except RuntimeError as problem:
                raise ImportError(f"torch.compile fails: {str(problem).strip().splitlines()[0]}") from problem
        return step, lambda: {"y": found["y"].detach().numpy(), **{name: leaf.grad.numpy() for name, leaf in p.items()}}
    return contender


def in_jax(cell):
    """JAX's jit of lax.scan."""
    def contender(size):
        jax = jax_on_threads()
        jnp = jax.numpy
        p, first, x = own(cell, size)
        p, first, x = jax.tree.map(jnp.asarray, (p, first, x))
        found = {}

        def loss(p, first, x):
            own_cell = cell(p, (jnp.concatenate, jnp.split, jax.nn.sigmoid, jnp.tanh))
            y = jax.lax.scan(own_cell, first, x)[1]
            return y.sum(), y
        gradient = jax.jit(jax.grad(loss, has_aux=True))

        def step():
            gradients, y = jax.block_until_ready(gradient(p, first, x))
            found.update(gradients, y=y)
        return step, lambda: {name: np.asarray(a) for name, a in found.items()}
    return contender


CONTENDERS = {
    "lstm": {"nn.LSTM": minigrad_layer, "scan": minigrad_scan, "torch.nn.LSTM": torch_lstm, "JAX": jax_scan,
             "fused NumPy": fused_numpy, "products": products},
    "cell": {"peephole": through_scan(peephole), "peephole, torch eager": in_torch(peephole),
             "leaky GRU": through_scan(leaky_gru), "leaky GRU, torch eager": in_torch(leaky_gru),
             "torch.nn.LSTM": torch_lstm},
}


ALTERNATE = False  # single calls in turn, in place of bursts of 0.15 s: caches are cold


# -- measuring ---------------------------------------------------------------------------------------------------


def against(section, pairs, rounds):
    timing.against(CONTENDERS[section], SIZES[section], pairs, rounds, [__file__, section], ALTERNATE)


def lstm(rounds):
    against("lstm", [("nn.LSTM", name) for name in CONTENDERS["lstm"] if name != "nn.LSTM"] +
            [("torch.nn.LSTM", "products")], rounds)


def cell(rounds):
    against("cell", [(name + tail, peer) for name in ("peephole", "leaky GRU") for tail, peer in
                     (("", f"{name}, torch eager"), ("", "torch.nn.LSTM"))], rounds)


def steps(rounds):
    """Print the µs per step; all lengths alternate."""
    lengths = (100, 200, 400, 800, 1600)
    for batch, D, H in ((1, 10, 24), (1, 65, 100), (8, 32, 64)):
        for name in ("nn.LSTM", "torch.nn.LSTM"):
            try:
                calls = {T: CONTENDERS["lstm"][name]((batch, T, D, H))[0] for T in lengths}
            except ImportError:
                continue
            times = timing.side_by_side(calls, rounds)
            row = {T: ms / T * 1e3 for T, ms in times.items()}
            print(f"batch {batch}, input {D}, hidden {H}  {name:14}",
                  "  ".join(f"T={T}: {us:.1f}" for T, us in row.items()),
                  f"  last/first {row[1600] / row[100]:.2f}")


def first(rounds):
    """Print the time of the first call of a layer, of the second, and of the first in a process."""
    programs = cache.programs
    for size in SIZES["lstm"]:
        found = []
        for _ in range(rounds):
            programs.clear()
            step, _ = minigrad_layer(size)
            times = []
            for _ in range(3):
                start = time.perf_counter()
                step()
                times.append((time.perf_counter() - start) * 1e3)
            found.append(times)
        one, _, three = (statistics.median(column) for column in zip(*found))
        code = ("import sys, time; sys.path.insert(0, sys.argv[1]); import recurrent\n"
                f"step, _ = recurrent.minigrad_layer({size}); t = time.perf_counter(); step()\n"
                "print((time.perf_counter() - t) * 1e3)")
        fresh = [float(subprocess.run([sys.executable, "-c", code, os.path.dirname(os.path.abspath(__file__))],
                                      capture_output=True, text=True, check=True).stdout) for _ in range(5)]
        print(f"{size!s:20} first {one:.1f} ms, third {three:.1f} ms: {one - three:.1f} ms for the program; "
              f"the very first in a process {statistics.median(fresh):.1f} ms")


def memory(rounds):
    """Peak bytes that Python allocates in a forward and backward; x and the weights, made before, are not counted."""
    programs = cache.programs
    sizes = SIZES["lstm"] + [(8, 1000, 32, 64), (8, 10_000, 32, 64)]
    print("MB; caches: a, x, c, the gates, tanh c (7 H + D a step and sequence) and dz (4 H)")
    for size in sizes:
        B, T, D, H = size
        caches = (11 * H + D) * T * B * 4 / 1e6
        for name in ("nn.LSTM", "scan"):
            programs.clear()
            step, _ = CONTENDERS["lstm"][name]((B, 2, D, H))
            step()  # the program, without the buffers of this T
            step, _ = CONTENDERS["lstm"][name](size)
            tracemalloc.start()
            step()
            held, peak = (v / 1e6 for v in tracemalloc.get_traced_memory())
            tracemalloc.stop()
            print(f"{size!s:20} {name:8} caches {caches:8.2f}  peak {peak:8.2f}  ratio {peak / caches:.2f}  "
                  f"held after {held:8.2f}  ratio {held / caches:.2f}")


def checkpoints(rounds):
    """Peak bytes and time of a forward and backward of mg.scan, all states kept against every √T-th."""
    B, D, H = 8, 32, 64
    cell = nn.LSTM(D, H, rng=0).layers["l0"]
    state = (np.zeros((H, B), "f"), np.zeros((H, B), "f"))
    for T in (100, 1000, 10_000):
        xs = np.random.default_rng(1).normal(size=(T, D, B)).astype("f")
        for every in (None, round(T ** 0.5)):
            def step(every=every, xs=xs):
                (a, _), _ = mg.scan(lambda s, x: (cell.cell(s, x)[0], ()), state, xs, checkpoint_every=every)
                a.backward(np.ones((H, B), "f"))
            cache.programs.clear()
            tracemalloc.start()
            step()
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            ms = timing.side_by_side({"scan": step}, max(3, rounds // 3))["scan"]
            print(f"T = {T:6}  checkpoint_every={every!s:5}  peak {peak:8.2f} MB  {ms:8.2f} ms")


def facts(rounds):
    """Single NumPy calls: µs, GFLOP/s, and what two threads change in the digits."""
    a, out, half = np.ones((192, 8), "f"), np.empty((192, 8), "f"), np.array(0.5, "f")
    column, whole = np.ones((192, 1), "f"), np.ones((192, 8), "f")
    add, multiply = np.add, np.multiply

    def us(calls, seconds=0.05):
        found = timing.side_by_side(calls, rounds, seconds)
        print("   ".join(f"{name}: {ms * 1e3:.2f} µs" for name, ms in found.items()))

    def many(call):
        return lambda: [call() for _ in range(1000)] and None
    print("ns a call, with what is around it")
    small, small_out = a[:24, :1].copy(), out[:24, :1].copy()
    found = timing.side_by_side({name: many(call) for name, call in {
        "a float as operand": lambda: multiply(small, 0.5, small_out),
        "a 0-d array": lambda: multiply(small, half, small_out),
        "np.add(…, out=…)": lambda: np.add(small, small, out=small_out),
        "add(…, out), bare": lambda: add(small, small, small_out),
        "bias (192, 1) to (192, 8)": lambda: add(a, column, out),
        "bias (192, 8)": lambda: add(a, whole, out)}.items()}, rounds, 0.05)
    print("   ".join(f"{name}: {ms * 1e3:.0f}" for name, ms in found.items()))

    T, H, B = 50, 128, 32
    stack, rows = np.ones((T, 4 * H, B), "f"), np.ones((4 * H, T * B), "f")
    columns = np.ones((T * B, H + 64), "f")
    print(f"bias gradient, T {T}, 4 H {4 * H}, batch {B}")
    us({"sum of the stack over (0, 2)": lambda: np.add.reduce(stack, axis=(0, 2)),
        "sum of rows side by side": lambda: np.add.reduce(rows, axis=1), "laying them so": lambda: stack.transpose(
            1, 0, 2).reshape(4 * H, -1), "the weight's product": lambda: rows @ columns})

    print("GFLOP/s of W (M, K) @ (K, N): plain and in row blocks")
    for M, K, N in ((512, 193, 16), (512, 192, 32)):
        W, x, out = np.ones((M, K), "f"), np.ones((K, N), "f"), np.empty((M, N), "f")
        n = next(n for n in range(2, 9) if M % n == 0 and M // n * K * N <= 1_000_000)
        blocks, parts = W.reshape(n, M // n, K), out.reshape(n, M // n, N)
        found = timing.side_by_side({"plain": lambda W=W, x=x, out=out: np.dot(W, x, out),
                                     f"{n} blocks": lambda b=blocks, x=x, p=parts: np.matmul(b, x, p)}, rounds, 0.05)
        print(f"({M}, {K}) @ ({K}, {N})", "   ".join(f"{k}: {2 * M * K * N / ms / 1e6:.0f}" for k, ms in found.items()))

    B, H, D = 16, 128, 128
    print(f"W [a; x] of a step, T {T}, 4 H {4 * H}, D {D}, batch {B}; '/ T' marks all steps, divided by T")
    W, both, z = np.ones((4 * H, H + D), "f"), np.ones((H + D, B), "f"), np.empty((4 * H, B), "f")
    Wa, Wx = (np.ascontiguousarray(part) for part in (W[:, :H], W[:, H:]))
    xs, wide_x = np.ones((T, D, B), "f"), np.empty((D, T * B), "f")
    wide_z, zs = np.empty((4 * H, T * B), "f"), np.empty((T, 4 * H, B), "f")
    found = timing.side_by_side({
        "whole": lambda: np.dot(W, both, z), "for a": lambda: np.dot(Wa, both[:H], z),
        "x side by side, / T": lambda: np.copyto(wide_x.reshape(D, T, B), xs.transpose(1, 0, 2)),
        "for x as one product, / T": lambda: np.dot(Wx, wide_x, wide_z),
        "laid out by steps, / T": lambda: np.copyto(zs, wide_z.reshape(4 * H, T, B).transpose(1, 0, 2))}, rounds, 0.05)
    print("   ".join(f"{name}: {ms * 1e3 / (T if '/ T' in name else 1):.1f} µs" for name, ms in found.items()))

    rng, equal = np.random.default_rng(0), []
    for M, K, N in ((640, 288, 64), (512, 256, 16)):
        a, b, products = rng.normal(size=(M, K)).astype("f"), rng.normal(size=(K, N)).astype("f"), []
        for threads in (1, 2):
            with threadpool_limits(threads, user_api="blas"):
                products.append(a @ b)
        equal.append(f"({M}, {K}) @ ({K}, {N}): {np.mean(products[0] == products[1]):.0%}")
    print("entries that one thread and two give equal to the bit   ", "   ".join(equal))


SECTIONS = {"lstm": lstm, "cell": cell, "steps": steps, "first": first, "memory": memory, "checkpoints": checkpoints,
            "facts": facts}


def main(argv=None):
    global ALTERNATE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--alternate", action="store_true", help="single calls in turn: the caches are never warm")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        section = arguments.sections[0]
        return timing.worker(CONTENDERS[section][arguments.worker], SIZES[section])
    ALTERNATE = arguments.alternate
    print(timing.conditions(), flush=True)
    for section in arguments.sections or SECTIONS:
        print(f"\n{section}", flush=True)
        SECTIONS[section](arguments.rounds)


if __name__ == "__main__":
    main()
