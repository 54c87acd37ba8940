"""The planned source: deterministic text that runs by itself, in given buffers, with few calls a step."""

import ast
import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scan_cells import CELLS

import minigrad as mg
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.timeloop import cache
from minigrad.timeloop.call import ScanCall

module = sys.modules["minigrad.timeloop.compiled"]
LSTM = next(row for row in CELLS if str(row) == "lstm")
ROOT = Path(__file__).parents[2]


def compiled(row, dtype=np.float64, steps=4, wanted=(True, True, True), **sizes):
    """The program of a cell, and the inputs that it was compiled for."""
    inputs = row.inputs(dtype=dtype, steps=steps, **sizes)
    state, xs, weights = [map_leaves(lambda x, on=on: mg.tensor(x, requires_grad=on and x.dtype.kind == "f"), tree)
                          for tree, on in zip(inputs, wanted)]
    cache.programs.clear()
    run = module.prepare(ScanCall(row.cell(weights), state, xs))
    return run.compiled, [flatten(tree)[0] for tree in inputs], list(map(module.example, run.inputs[sum(run.sizes):]))


def called(row, **options):
    """The compiled program of a cell and its arguments, ready to run."""
    program, (state, xs, _), weights = compiled(row, **options)
    return program, len(xs[0]), state, xs, weights


def all_arrays(made):
    """The buffers of a set, each once; a view counts as its base."""
    found, stack = {}, [made]
    while stack:
        x = stack.pop()
        if isinstance(x, np.ndarray):
            while x.base is not None and isinstance(x.base, np.ndarray):
                x = x.base
            found[id(x)] = x
        elif isinstance(x, (tuple, list)):
            stack += x
    return list(found.values())


def test_the_text_is_the_same_in_another_process():
    code = ("import sys; sys.path[:0] = ['tests', 'tests/printers']\n"
            "from scan_cells import CELLS\nfrom test_numpy_loop import compiled\n"
            "for row in CELLS: print(compiled(row)[0].source)")
    texts = {subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True,
                            env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("0", "1")}
    assert len(texts) == 1 and b"def forward" in texts.pop()


@pytest.mark.parametrize("row", [row for row in CELLS if str(row) != "large_constant"], ids=str)
def test_the_text_runs_alone_and_is_right(row):
    program, steps, state, xs, weights = called(row)
    source = program.source
    imported = {alias.name if isinstance(node, ast.Import) else node.module for node in ast.walk(ast.parse(source))
                if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    assert imported == {"numpy"}
    alone = {}
    exec(source, alone)
    made = alone["make"](steps)
    final, ys = alone["forward"](steps, state, xs, weights, made)
    theirs = program.forward(steps, state, xs, weights, program.allocator.make(steps))
    for a, b in zip(flatten((final, ys))[0], flatten(theirs)[0], strict=True):
        np.testing.assert_array_equal(a, b)

    inputs = row.inputs()
    cell_weights = {name: mg.tensor(w, requires_grad=True) for name, w in inputs[2].items()}
    lifted = [map_leaves(lambda x: mg.tensor(x, requires_grad=x.dtype.kind == "f"), tree) for tree in inputs[:2]]
    results = flatten(module.loop(row.cell(cell_weights), *lifted, steps, False, None))[0]
    rng = np.random.default_rng(0)
    d = [rng.normal(size=y.shape) for y in results]
    for y, expected in zip(flatten((final, ys))[0], results, strict=True):
        np.testing.assert_allclose(y, getattr(expected, "_array", expected), rtol=1e-12, atol=1e-12)
    sum(mg.sum(y * w) for y, w in zip(results, d)).backward()
    d_state, d_xs, d_weights = alone["backward"](steps, d[:len(state)], d[len(state):], xs, weights,
                                                (None,) * len(weights), made,
                                                 alone["make_backward"](steps, made))
    leaves = module.prepare(ScanCall(row.cell(cell_weights), *lifted)).inputs
    for ours, leaf in zip([*d_state, *d_xs[:len(xs)], *d_weights], leaves, strict=True):
        theirs = leaf.grad if isinstance(leaf, mg.Tensor) else None  # an array that the cell closes over has none
        ours, theirs = (np.zeros(leaf.shape) if d is None else d for d in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def loop_bodies(source, name):
    """The statements of the innermost loops over t of a function, one after another."""
    function = next(node for node in ast.parse(source).body if getattr(node, "name", "") == name)
    loops = [node for node in ast.walk(function) if isinstance(node, ast.For)]
    return [node for node in loops
            if not any(isinstance(inner, ast.For) for child in node.body for inner in ast.walk(child))]


@pytest.mark.parametrize("name, most", [("forward", 14), ("backward", 20)])
def test_an_lstm_takes_few_calls_a_step(name, most):
    """A call costs 0.3 to 1 µs at any size: at hidden 64, most of the time."""
    program, *_ = compiled(LSTM)
    (loop,) = loop_bodies(program.source, name)
    calls = [node for statement in loop.body for node in ast.walk(statement) if isinstance(node, ast.Call)]
    assert 5 < len(calls) <= most, program.source


def peak_of(function):
    gc.collect()
    tracemalloc.start()
    try:
        kept = function()
        return tracemalloc.get_traced_memory()[1], kept
    finally:
        tracemalloc.stop()


def test_nothing_is_allocated_in_the_loops():
    """With buffers made, the peak is the results and the arrays made once, before or after the loops. It has no room
    for an array that each step allocates (8 KiB, twice the size of a gate)."""
    sizes = {"B": 16, "H": 32, "D": 8}
    program, steps, state, xs, weights = called(LSTM, steps=50, **sizes)
    made = program.allocator.make(steps)
    made_backward = program.allocator.make_backward(steps, made)

    def forward():
        return program.forward(steps, state, xs, weights, made)
    final, ys = forward()
    peak, results = peak_of(forward)
    whole_bias = 4 * 32 * 16 * 8
    assert peak <= sum(y.nbytes for y in flatten(results)[0]) + whole_bias + 8192
    d_state, d_ys = [np.ones_like(s) for s in final], [np.ones_like(y) for y in ys]

    def backward():
        return program.backward(steps, d_state, d_ys, xs, weights, (None,) * len(weights), made, made_backward)
    backward()
    peak, gradients = peak_of(backward)
    gathered = steps * 16 * 8 * (4 * 32 + 32 + 8)  # dz and [a; x] of all steps side by side, for one product
    assert peak <= sum(d.nbytes for d in flatten(gradients)[0] if d is not None) + gathered + weights[0].nbytes + 8192


def test_only_values_that_the_backward_reads_are_stacked():
    """For an LSTM f, i, o and the candidate (4H), tanh(c) (H), the state c (H) and [a; x] (H + D); within 1.2."""
    H, D, B, T = 32, 8, 16, 50
    program, *_ = compiled(LSTM, steps=T, H=H, D=D, B=B)
    caches = 8 * T * B * (4 * H + H + H + H + D)
    assert sum(x.nbytes for x in all_arrays(program.allocator.make(T))) <= 1.2 * caches


def test_without_gradients_only_inputs_are_stacked():
    few, many = ([sum(x.nbytes for x in all_arrays(program.allocator.make(steps))) for steps in (10, 1000)]
                 for program in [compiled(LSTM, wanted=(False, False, False))[0]] * 2)
    assert few[1] <= few[0] and many == few


def test_a_buffer_set_depends_on_the_length_alone():
    """A second run with other numbers may reuse the buffers: no number of the first is left."""
    program, steps, state, xs, weights = called(LSTM)
    made = program.allocator.make(steps)
    made_backward = program.allocator.make_backward(steps, made)
    d = [np.ones_like(s) for s in state], [np.ones((steps, *state[0].shape))]

    def run(made, made_backward, scale):
        inputs = [s * scale for s in state], [x * scale for x in xs], weights
        results = program.forward(steps, *inputs, made)
        sums = (None,) * len(weights)
        return flatten((results, program.backward(steps, *d, *inputs[1:], sums, made, made_backward)))[0]
    run(made, made_backward, 50.0)
    for x in all_arrays((made, made_backward)):
        x[...] = np.nan
    fresh = program.allocator.make(steps)
    expected = run(fresh, program.allocator.make_backward(steps, fresh), 0.5)
    for a, b in zip(run(made, made_backward, 0.5), expected, strict=True):
        np.testing.assert_array_equal(a, b)
