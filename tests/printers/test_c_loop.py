"""The loops in C: right to 1e-12 of the NumPy loops, readable, deterministic, and silent where they cannot be had."""

import importlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import fuzz
import numpy as np
import pytest
from scan_cells import CELLS
from threadpoolctl import threadpool_limits

import minigrad as mg
from minigrad import nn
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.printers.c_expressions import NotInC
from minigrad.printers.c_places import Place
from minigrad.printers.c_threads import THREADS

module = importlib.import_module("minigrad.timeloop.compiled")
compiling = importlib.import_module("minigrad.timeloop.compile")
ROOT = Path(__file__).parents[2]
BATCH = 5  # does not fill a chunk
RUNS = [{}, {"reverse": True}, {"mask": True}, {"checkpoint_every": 2}]
needs_compiler = pytest.mark.skipif(not compiling.compiler.enabled(), reason=f"no C: {compiling.compiler.reason()}")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Compile in a cache folder of the tests' own, however busy the machine is."""
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 600.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "c"))
    command = compiling.compiler.command
    compiling.compiler.command = command
    yield
    compiling.compiler.command = command
    module.programs.clear()


def in_c(monkeypatch, run):
    """What `run()` returns where every program is compiled at its first call, and why some were not."""
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    module.programs.clear()
    out = run()
    return out, [program.why_not_in_c for program in module.programs if program.in_c is None]


def in_numpy(monkeypatch, run):
    monkeypatch.setattr(module, "AFTER_SECONDS", 1e9)
    module.programs.clear()
    return run()


def compared(monkeypatch, run, tolerance):
    ours, not_printed = in_c(monkeypatch, run)
    assert not not_printed
    for a, b in zip(ours, in_numpy(monkeypatch, run), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            largest = np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * largest)


def gradients(cell, state, xs, weights, mask=False, **options):
    """Results and gradients of a scan, for a loss that weighs each entry differently."""
    rng = np.random.default_rng(3)
    lifted = [map_leaves(lambda x: mg.tensor(x, requires_grad=x.dtype.kind == "f"), tree)
              for tree in (state, xs, weights)]
    mask = rng.integers(0, 2, (len(flatten(xs)[0][0]), BATCH)).astype(bool) if mask else None
    results = flatten(mg.scan(cell(lifted[2]), lifted[0], lifted[1], mask=mask, **options))[0]
    terms = [mg.sum(y * rng.normal(size=y.shape).astype(y.dtype)) for y in results if y.requires_grad]
    if terms:
        sum(terms[1:], terms[0]).backward()
    leaves = [x for x in flatten(lifted)[0] if x.dtype.kind == "f"]
    return [y.detach().numpy() for y in results] + [x.grad for x in leaves]


# -- right ---------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("options", RUNS, ids=str)
@pytest.mark.parametrize("row", CELLS, ids=str)
def test_each_cell_is_right(row, options, monkeypatch):
    if "mask" in options and not row.batch_last:
        pytest.skip("takes no mask")
    state, xs, weights = row.inputs(steps=5, **{"B": BATCH} if row.batch_last else {})
    compared(monkeypatch, lambda: gradients(row.cell, state, xs, weights, **options), 1e-12)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 17, 33])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", [row for row in CELLS if row.batch_last], ids=str)
def test_each_cell_is_right_in_any_batch(row, dtype, batch, monkeypatch):
    state, xs, weights = row.inputs(steps=3, dtype=dtype, B=batch)
    compared(monkeypatch, lambda: gradients(row.cell, state, xs, weights), 1e-12 if dtype is np.float64 else 2e-5)


def layer_gradients(layer, x, lengths=None):
    layer.zero_grad()
    x = mg.tensor(x, requires_grad=True)
    results = flatten(layer(x, lengths=lengths))[0]
    rng = np.random.default_rng(4)
    sum((mg.sum(y * rng.normal(size=y.shape).astype(y.dtype)) for y in results[1:]), mg.sum(results[0])).backward()
    return [y.detach().numpy() for y in results] + [x.grad] + [p.grad for p in layer.parameters()]


LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "both ways": partial(nn.LSTM, bidirectional=True),
          "reset before": partial(nn.GRU, reset_after=False)}


@needs_compiler
@pytest.mark.parametrize("batch", [1, 3, 6, 9, 25, 30, 40, 50])  # 8 and one left over, 3 · 8 and one, 6 · 8 and two
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_is_right(name, dtype, batch, monkeypatch):
    rng = np.random.default_rng(0)
    layer, x = LAYERS[name](5, 7, rng=0, dtype=dtype), rng.normal(size=(6, batch, 5)).astype(dtype)
    lengths = rng.integers(1, 7, batch)
    compared(monkeypatch, lambda: layer_gradients(layer, x, lengths), 1e-12 if dtype is np.float64 else 2e-5)


@needs_compiler
@pytest.mark.parametrize("batch", range(2, 10))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_columns_are_right(dtype, batch, monkeypatch):
    """Several panels, of which the last is not full; passes with and without a value that is broadcast over rows."""
    rng = np.random.default_rng(0)
    shapes = (76, 24), (76, 1), (19, 1)
    weights = [rng.normal(size=shape).astype(dtype) / 4 for shape in shapes]

    def cell(weights):
        W, b, gain = weights

        def step(state, x):
            h, c = state
            i, f, o, g = mg.split(W @ mg.concatenate([h, x]) + b, 4)
            c = mg.sigmoid(f) * c + mg.sigmoid(i) * np.tanh(g)
            h = mg.softmax(gain * c, axis=0) * mg.sigmoid(o)
            return (h, c), h
        return step

    state = tuple(rng.normal(size=(19, batch)).astype(dtype) for _ in range(2))
    xs = rng.normal(size=(6, 5, batch)).astype(dtype)
    compared(monkeypatch, lambda: gradients(cell, state, xs, weights), 1e-12 if dtype is np.float64 else 2e-5)


@needs_compiler
@pytest.mark.parametrize("batch", [17, 24, 42])  # so that rows of the sums could begin 4 096 bytes apart
def test_a_column_of_all_rows_lies_in_all_sets_of_the_cache(batch, monkeypatch):
    layer, x = nn.LSTM(3, 5, rng=0), np.zeros((60, batch, 3), "f")
    assert not in_c(monkeypatch, lambda: layer(x)[0].sum().backward())[1]
    program, = (program.in_c for program in module.programs)
    (buffers,) = program.allocator.idle
    assert buffers.made[0].line * x.itemsize // 64 % 2 == 1


@needs_compiler
@pytest.mark.parametrize("kind", ["PeepholeLSTM", "CoupledLSTM", "LayerNormLSTM", "MinimalGatedUnit"])
def test_the_cells_of_the_example_are_right(kind, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    layer = getattr(importlib.import_module("own_cells"), kind)(3, 6, dtype=np.float64, rng=0)
    x = np.random.default_rng(1).normal(size=(5, 9, 3))
    compared(monkeypatch, lambda: layer_gradients(layer, x), 1e-12)


@needs_compiler
@pytest.mark.parametrize("seeds", [range(0, 25), pytest.param(range(25, 400), marks=pytest.mark.slow)])
def test_random_cells_are_right_and_nearly_all_are_printed(seeds, monkeypatch):
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    ran = []
    for seed in seeds:
        module.programs.clear()
        assert not fuzz.failure(fuzz.make(seed))
        ran += [program.why_not_in_c if program.in_c is None else "C" for program in module.programs]
    assert ran.count("C") >= 0.9 * len(ran), set(ran)
    assert not [why for why in ran if "fails" in why or "ended with" in why]


@needs_compiler
@pytest.mark.parametrize("state, weight", [(np.float64, np.float32), (np.float32, np.float64)])
@pytest.mark.parametrize("batch", [9, 12, 17, 25, 33])
def test_products_of_two_types_are_right(batch, state, weight, monkeypatch):
    """A chunk's rows fill whole vectors, and perhaps a half one, in either type."""
    def cell(weights):
        def step(h, x):
            h = mg.tanh(weights[1] @ h + (weights[0] @ x).astype(state))
            return h, h
        return step
    rng = np.random.default_rng(0)
    xs, h = rng.normal(size=(4, 3, batch)).astype(weight), rng.normal(size=(5, batch)).astype(state)
    weights = rng.normal(size=(5, 3)).astype(weight), rng.normal(size=(5, 5)).astype(state)
    with threadpool_limits(1, user_api="blas"):
        compared(monkeypatch, lambda: gradients(cell, h, xs, weights), 2e-5)


FUNCTIONS = [mg.exp, mg.expm1, mg.log, mg.log1p, mg.log2, mg.log10, mg.sqrt, mg.square, mg.abs, mg.sin, mg.cos, mg.tanh,
             mg.sigmoid, mg.softplus, mg.relu, np.sign, np.floor, np.ceil, np.trunc, np.round,
             lambda x: mg.maximum(x, 0.5), lambda x: mg.minimum(0.5, x), lambda x: mg.where(x > 1, x, -x),
             lambda x: x ** 3, lambda x: x ** 0.5, lambda x: x ** -1, lambda x: 2.0 ** x, lambda x: x % 3.0,
             lambda x: x // 0.7, lambda x: np.logaddexp(x, 1.0), lambda x: mg.softmax(x, axis=0),
             lambda x: mg.sum(x, axis=0, keepdims=True) + x, lambda x: mg.max(x, axis=0, keepdims=True) + x]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-310, -1e-310, 1e-45, 800.0, -800.0, 87.0, -87.0, 709.9, -745.2, 1e308,
           -1e308, 1e-8, 1.0, -1.0, 0.5, -0.5, 3.0, 2.5, -2.5]


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values_pass_as_in_numpy(dtype, monkeypatch):
    """Of every function, entry by entry and over an axis: NaN, infinities, subnormal numbers, and what overflows."""
    with np.errstate(all="ignore"):
        special = np.array(SPECIAL).astype(dtype)
        xs = np.stack([special, special[::-1]])[:, None, :].repeat(2, axis=1)

        def run():
            x = mg.tensor(xs, requires_grad=True)
            state = np.zeros((2, len(special)), dtype)
            _, ys = mg.scan(lambda h, z: (h + 0.0, tuple(f(z) for f in FUNCTIONS)), state, x)
            mg.sum(mg.concatenate([mg.reshape(y, (-1,)) for y in ys if y.requires_grad])).backward()
            return [y.detach().numpy() for y in ys]
        ours, not_printed = in_c(monkeypatch, run)
        assert not not_printed
        for f, a, b in zip(FUNCTIONS, ours, in_numpy(monkeypatch, run), strict=True):
            info = np.finfo(dtype)
            np.testing.assert_allclose(a, b, rtol=2.5 * info.eps, atol=2 * info.smallest_subnormal, err_msg=str(f))


@needs_compiler
@pytest.mark.parametrize("batch", [33, 16, 6])  # of 16 columns, each of two threads takes 8: another kernel
def test_the_number_of_threads_changes_no_bit_of_a_column(monkeypatch, batch):
    T, _, D, H = LARGE
    layer, x = nn.LSTM(D, H, rng=0), np.random.default_rng(0).normal(size=(T, batch, D)).astype(np.float32)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            results.append(in_c(monkeypatch, lambda: layer_gradients(layer, x)[:4])[0])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_compiler
@pytest.mark.parametrize("batch, steps", [(1, 70), (2, 40), (5, 40), (16, 70), (33, 45)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_over_time_are_those_of_numpy(monkeypatch, batch, steps, dtype):
    """Several blocks of steps, tiles at every edge, columns that only fill a chunk up."""
    for D, H in ((1, 1), (5, 7), (18, 33)):
        layer = nn.GRU(D, H, rng=0, dtype=dtype)
        x = np.random.default_rng(0).normal(size=(steps, batch, D)).astype(dtype)
        compared(monkeypatch, partial(layer_gradients, layer, x), 40 * steps * np.finfo(dtype).eps)


@needs_compiler
@pytest.mark.parametrize("checkpoint_every", [None, 16])
def test_a_learned_rate_leaves_the_columns_apart(monkeypatch, checkpoint_every):
    """Its gradient is a sum over time and batch times what only weights decide, so that no step needs all columns."""
    rng = np.random.default_rng(0)
    leak, W = (mg.tensor(0.3 * rng.normal(size=shape), requires_grad=True) for shape in ((7, 1), (7, 7)))
    xs, g = rng.normal(size=(70, 7, 20)), rng.normal(size=(70, 7, 20))

    def cell(h, x):
        h = h + 2.0 * mg.sigmoid(leak) * (np.tanh(W @ h + x) - h)
        return h, h

    def run():
        leak.grad = W.grad = None
        mg.scan(cell, np.zeros((7, 20)), xs, checkpoint_every=checkpoint_every)[1].backward(g)
        return [leak.grad, W.grad]
    compared(monkeypatch, run, 1e-12)
    in_c(monkeypatch, run)
    assert all(program.in_c.plan.columns for program in module.programs)


@needs_compiler
def test_what_weights_decide_is_found_in_linear_time(monkeypatch):
    """40 squares of a weight: followed path by path, they would take 2⁴⁰ steps."""
    rate, xs = mg.tensor(np.full((3, 1), 1.0), requires_grad=True), np.random.default_rng(0).normal(size=(6, 3, 5))

    def cell(h, x):
        scale = rate
        for _ in range(40):
            scale = 1.1 * scale * scale - 0.1 * scale
        h = np.tanh(h + scale * x)
        return h, h

    def run():
        rate.grad = None
        mg.scan(cell, np.zeros((3, 5)), xs)[1].sum().backward()
        return [rate.grad]
    compared(monkeypatch, run, 1e-11)


LARGE = (40, 33, 6, 48)  # T, batch, D, H with work for three threads


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_repeat_their_bits(monkeypatch, threads):
    T, batch, D, H = LARGE
    layer, x = nn.LSTM(D, H, rng=0), np.random.default_rng(0).normal(size=(T, batch, D)).astype(np.float32)
    alone = in_c(monkeypatch, lambda: layer_gradients(layer, x))[0]
    with threadpool_limits(threads, user_api="blas"):
        runs = [in_c(monkeypatch, lambda: layer_gradients(layer, x))[0] for _ in range(5)]
    for out in runs:
        for a, b, c in zip(out, runs[0], alone, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4 * np.abs(c).max())


@needs_compiler
def test_a_forked_process_has_threads_of_its_own():
    """Also if it was forked while another thread of Python was in a compiled loop."""
    code = f"""
import importlib, os, threading
import numpy as np
from threadpoolctl import threadpool_limits
from minigrad import nn
importlib.import_module("minigrad.timeloop.compiled").AFTER_SECONDS = 0.0
threadpool_limits(2, user_api="blas")
T, batch, D, H = {LARGE}
layer, x = nn.LSTM(D, H, rng=0), np.ones((T, batch, D), np.float32)
expected, stop = layer(x)[0].detach().numpy(), threading.Event()
def others():
    while not stop.is_set():
        assert (layer(x)[0].detach().numpy() == expected).all()
thread = threading.Thread(target=others)
thread.start()
for _ in range(5):
    if not (child := os.fork()):
        os._exit(0 if (layer(x)[0].detach().numpy() == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
print("right")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.stdout, done.returncode) == ("right\n", 0), done.stderr


@needs_compiler
def test_a_gradient_can_be_taken_twice(monkeypatch):
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    layer, x = nn.LSTM(3, 4, rng=0, dtype=np.float64), np.random.default_rng(0).normal(size=(5, 2, 3))
    _, pull = mg.vjp(lambda x: layer(x)[0], x)
    g = np.random.default_rng(1).normal(size=(5, 2, 4))
    for a, b in zip(pull(g), pull(g), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@needs_compiler
def test_any_array_can_be_x(monkeypatch):
    """Reversed, transposed, a field of a record between odd bytes, of other memory order."""
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    x = np.random.default_rng(0).normal(size=(5, 3, 4))
    record = np.zeros((5, 3, 4), np.dtype([("byte", "i1"), ("x", "f8")]))
    record["x"] = x
    every_second = np.zeros((10, 6, 8))
    every_second[::2, ::2, ::2] = x
    module.programs.clear()

    def cell(h, x):
        h = np.tanh(h + x)
        return h, h
    expected = mg.scan(cell, np.zeros((3, 4)), x)[1]
    for same in (x[::-1].copy()[::-1], x.T.copy().T, record["x"], every_second[::2, ::2, ::2], np.asfortranarray(x)):
        np.testing.assert_array_equal(mg.scan(cell, np.zeros((3, 4)), same)[1], expected)
    assert mg.scan.ran(cell) == ["C"]


@needs_compiler
def test_threads_of_python_share_a_program(monkeypatch):
    """Each call has buffers of its own; ctypes lets the calls run at the same time."""
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    layer = nn.LSTM(6, 16, rng=0)
    xs = [np.random.default_rng(seed).normal(size=(9, 20, 6)).astype(np.float32) for seed in range(8)]
    module.programs.clear()
    expected = [layer(x)[0].detach().numpy() for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for ours, theirs in zip(pool.map(lambda x: layer(x)[0].detach().numpy(), xs), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@needs_compiler
def test_a_thread_that_comes_while_a_program_is_compiled_runs_in_c(monkeypatch):
    """Two runs of a sweep in one process, as on dask: the first step of one was by the NumPy loops."""
    load, begun = compiling.Compiler.load, threading.Event()

    def slow(self, source):
        begun.set()
        time.sleep(0.3)
        return load(self, source)
    monkeypatch.setattr(compiling.Compiler, "load", slow)
    module.programs.clear()
    layer, x, executors = nn.RNN(3, 4, rng=0), np.ones((5, 2, 3), np.float32), []
    executor = module.Compiled.executor
    monkeypatch.setattr(module.Compiled, "executor", lambda self: executors.append(executor(self)) or executors[-1])

    def first():
        with mg.loops_in("c"):
            layer(x)
    one = threading.Thread(target=first)
    one.start()
    begun.wait()
    first()
    one.join()
    assert [type(found).__name__ for found in executors] == ["InC", "InC"]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["haswell", "x86-64"])
def test_shorter_vectors_are_right(kind, monkeypatch):
    """The C for processors with vectors of 32 or 16 bytes, without a mask, and without fma."""
    if platform.machine() != "x86_64":
        pytest.skip("this processor is none of these")
    monkeypatch.setattr(compiling, "NATIVE", (f"-march={kind}",))
    compiling.compiler.command = compiling.compiler.command  # its identity, which names a program's file, has changed
    test_special_values_pass_as_in_numpy(np.float32, monkeypatch)
    for dtype in (np.float32, np.float64):
        for batch in (1, 2, 3, 6, 8, 24, 40):
            for name in LAYERS:
                test_each_layer_is_right(name, dtype, batch, monkeypatch)
        for batch, steps in ((1, 70), (5, 40), (33, 45)):
            test_sums_over_time_are_those_of_numpy(monkeypatch, batch, steps, dtype)
    for batch in (9, 17, 25):
        test_products_of_two_types_are_right(batch, np.float64, np.float32, monkeypatch)
    test_the_number_of_threads_changes_no_bit_of_a_column(monkeypatch, 16)


@needs_compiler
@pytest.mark.slow
def test_nothing_is_read_or_written_outside_of_an_array():
    """AddressSanitizer and UndefinedBehaviorSanitizer over random cells and layers, alone and with threads."""
    libraries = [subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
                 .strip() for name in ("libasan.so", "libubsan.so")]
    if not all(map(os.path.isabs, libraries)):
        pytest.skip("the compiler has no sanitizers")
    code = f"""
import importlib, sys
sys.path[:0] = ["tests", "tests/printers"]
import numpy as np
import fuzz
from threadpoolctl import threadpool_limits
import minigrad as mg
from minigrad import nn
compiled, compiling = map(importlib.import_module, ("minigrad.timeloop.compiled", "minigrad.timeloop.compile"))
compiled.AFTER_SECONDS, compiling.COMPILE_SECONDS = 0.0, 600.0
compiling.FLAGS = (*compiling.FLAGS, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
def run(make, T, batch, D, H, dtype=np.float32):
    layer, x = make(D, H, rng=0, dtype=dtype), np.ones((T, batch, D), dtype)
    layer(x, lengths=np.arange(batch) % T + 1)[0].backward(np.ones((T, batch, H), dtype))
    for cell in layer.layers.values():
        ran.update(mg.scan.ran(cell.cell))
ran = set()
for make in (nn.LSTM, nn.GRU, nn.RNN):
    for batch in (1, 3, 5, 17, 40):
        run(make, 6, batch, 5, 7)
    T, batch, D, H = {LARGE}
    with threadpool_limits(3, user_api="blas"):
        for batch in (1, batch, 50):
            run(make, T, batch, D, H)
            run(make, T, batch, D, H, np.float64)
assert ran == {{"C"}}, ran
for seed in range(80):
    compiled.programs.clear()
    assert not fuzz.failure(fuzz.make(seed)), seed
print("clean")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "MINIGRAD_CC": "cc", "LD_PRELOAD": " ".join(libraries),
                               "ASAN_OPTIONS": "detect_leaks=0"})
    assert done.stdout.strip() == "clean", done.stderr[-3000:]


POOL = THREADS + r"""
#include <pthread.h>
#include <stdio.h>

enum { TASKS = 48, ENTRIES = 500 };

/* Write into the task's own array, and into memory of the thread's own. */
static void fill(const struct run *run, long k, char *work)
{
    long *own = (long *)run->memory + k * ENTRIES;
    for (long i = 0; i < ENTRIES; i++) {
        ((long *)work)[i] = run->T + k;
        own[i] += ((long *)work)[i] + i;
    }
}

/* Calls of different lengths, some of which come while the threads still sleep or are with another caller. */
static void *caller(void *right)
{
    static _Thread_local long memory[TASKS * ENTRIES], work[8 * ENTRIES];
    struct run run = {.memory = (char *)memory, .work = (char *)work, .work_bytes = ENTRIES * sizeof(long)};
    for (long call = 0; call < 400; call++) {
        const long tasks = 2 + call % (TASKS - 2);
        if (call % 40 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 2 * AWAKE}, NULL);
        memset(memory, 0, sizeof memory);
        run.T = call;
        pool(&run, tasks, 2 + call % 7, fill);
        for (long k = 0; k < TASKS; k++)
            for (long i = 0; i < ENTRIES; i++)
                if (memory[k * ENTRIES + i] != (k < tasks ? call + k + i : 0))
                    return NULL;
    }
    *(bool *)right = true;
    return NULL;
}

int main(void)
{
    bool right[2] = {false, false};
    pthread_t other;
    pthread_create(&other, NULL, caller, right);
    caller(right + 1);
    pthread_join(other, NULL);
    puts(right[0] && right[1] ? "right" : "wrong");
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_the_threads_do_not_race(name, tmp_path):
    """ThreadSanitizer over two callers that share the threads."""
    if not shutil.which(name):
        pytest.skip(f"no {name}")
    (tmp_path / "nothing.c").write_text("int main(void) { return 0; }", encoding="utf-8")
    (tmp_path / "pool.c").write_text(POOL, encoding="utf-8")
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-pthread", "-w"]
    for program, expected in (("nothing", ""), ("pool", "right\n")):
        for call in ([name, *flags, "-o", program, f"{program}.c"], [f"./{program}"]):
            done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
            if program == "nothing" and done.returncode:
                pytest.skip(f"{name} has no ThreadSanitizer here")
        assert (done.returncode, done.stdout) == (0, expected), done.stderr[-3000:]


# -- which loop runs -------------------------------------------------------------------------------------------------


def run_layer(layer=None, batch=2):
    layer = layer or nn.LSTM(3, 4, rng=0)
    layer(np.ones((3, batch, 3), np.float32))
    return mg.scan.ran(layer.layers["l0"].cell)


def test_a_short_run_is_not_compiled():
    module.programs.clear()
    assert run_layer() == ["NumPy: it has not run long enough to be worth a compile"]


@needs_compiler
def test_a_long_run_is_compiled_at_the_same_call_each_time(monkeypatch):
    monkeypatch.setattr(module, "AFTER_SECONDS", 1e-3)
    runs = []
    for _ in range(2):
        module.programs.clear()
        layer = nn.LSTM(3, 4, rng=0)
        runs.append([run_layer(layer)[-1] for _ in range(40)])
    assert runs[0] == runs[1] and runs[0][0].startswith("NumPy") and runs[0][-1] == "C"


def test_without_a_compiler_the_numpy_loop_runs(monkeypatch):
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    module.programs.clear()
    compiling.compiler.command = "none"
    assert run_layer() == ["NumPy: the C compiler is switched off (MINIGRAD_CC=none)"]


def test_what_is_not_printed_says_why(monkeypatch):
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    module.programs.clear()

    def cell(h, x):
        return h * (1 + 2j), h
    mg.scan(cell, np.ones(3, complex), np.ones((4, 3)))
    (ran,) = mg.scan.ran(cell)
    assert ran.startswith("NumPy: ") and ("complex" in ran or not compiling.compiler.enabled())
    with pytest.raises(NotInC, match="complex128"):
        _ = mg.derive(cell, np.ones(3, complex), np.ones(3, complex)).c_source


@needs_compiler
def test_buffers_of_a_dropped_model_go_back(monkeypatch):
    monkeypatch.setattr(module, "AFTER_SECONDS", 0.0)
    module.programs.clear()
    before = len(module.pool.idle)
    run_layer()
    assert len(module.pool.idle) == before + 1
    module.programs.clear()
    assert len(module.pool.idle) == before


@needs_compiler
def test_the_buffers_take_no_more_than_those_of_numpy(monkeypatch):
    x, layer = np.ones((50, 32, 64), np.float32), nn.LSTM(64, 128, rng=0)

    def run():
        y, _ = layer(x)
        y.backward(np.ones(y.shape, np.float32))
        del y
        return max(buffers.nbytes for buffers in module.pool.idle)
    sizes = []
    for way in (lambda run: in_c(monkeypatch, run)[0], lambda run: in_numpy(monkeypatch, run)):
        module.programs.clear()
        sizes.append(way(run))
    assert sizes[0] <= 1.05 * sizes[1]


# -- the text --------------------------------------------------------------------------------------------------------


def source_of(kind):
    cell, state = kind(3, 5, rng=0), np.zeros((5, 4), np.float32)
    return mg.derive(cell.cell, (state, state) if kind is nn.LSTMCell else state, np.zeros((3, 4), np.float32)).c_source


def lstm_source():
    return source_of(nn.LSTMCell)


def test_the_text_of_the_lstm_has_its_equations():
    lines = [line.strip() for line in lstm_source().splitlines()]
    for line in ("const float c_next = ft * c_prev + it * cct;", "const float tanh_c_next = mg_tanh_f32(c_next);",
                 "a_prev_next[i] = ot * tanh_c_next;", "product_float(20, 8, W_panels, concat_t, t1_t);",
                 "const float ft = mg_sigmoid_f32(t1_t[i] + b_whole[i]);"):
        assert line in lines
    assert sum("for (long t" in line for line in lines) == 2


def test_the_text_is_the_same_in_another_process():
    code = ("import sys; sys.path[:0] = ['tests', 'tests/printers']\n"
            "from test_c_loop import lstm_source\nprint(lstm_source())")
    texts = {subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True,
                            env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("0", "1")}
    assert len(texts) == 1 and b"void forward" in texts.pop()


@pytest.mark.parametrize("name", ["gcc", "clang"])
@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_the_text_compiles_without_a_warning(name, cell, tmp_path):
    """The text of a cell, and that of the threads; `GCC ivdep` and `clang fp` each mean something to one compiler."""
    if not shutil.which(name):
        pytest.skip(f"no {name}")
    for text in (source_of(cell), THREADS):
        (tmp_path / "text.c").write_text(text, encoding="utf-8")
        call = [name, *compiling.FLAGS, "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-o", "text.so", "text.c"]
        done = subprocess.run([word for word in call if word != "-w"], cwd=tmp_path, capture_output=True, text=True,
                              check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("view", [lambda x: x[1:], lambda x: x[::-1, ::2], lambda x: x.T, lambda x: x[:, None],
                                  lambda x: np.broadcast_to(x, (2, 4, 6)), lambda x: x[2, ...],
                                  lambda x: np.reshape(x, (2, 2, 6), copy=False)])
def test_a_place_is_seen_as_numpy_sees_the_array(view):
    x = np.arange(24).reshape(4, 6)
    place = Place.whole("x", x.shape).seen(view)
    found = np.lib.stride_tricks.as_strided(x.ravel()[place.offset:], place.shape, np.multiply(place.strides, 8))
    np.testing.assert_array_equal(found, view(x))
    with pytest.raises(ValueError):
        Place.whole("x", (4, 6)).seen(lambda x: np.reshape(x.T, (24,), copy=False))
