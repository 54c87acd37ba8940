"""scan: equality with the eager loop for every cell of the table, its buffers and programs, notices and errors."""

import contextlib
import cProfile
import functools
import gc
import itertools
import os
import random
import sys
import tracemalloc
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scan_cells import (
    CELLS,
    SCAN_OPTIONS,
    assert_same,
    every_cell,
    gradient,
    lstm,
    mask_for,
    mixed,
    outcome,
    random_row,
)

import minigrad as mg
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.printers.numpy_loop import Options
from minigrad.timeloop import cache, cell_key, compiled, eager

module = sys.modules["minigrad.timeloop.scan"]


@pytest.fixture(autouse=True)
def no_earlier_notices():
    """Warn once per test instead of once per process."""
    eager.notified.clear()
    cache.programs.clear()


def by_loop(cell, state, xs, *, reverse=False, mask=None):
    """Run the eager loop, the reference."""
    steps = len(flatten(xs)[0][0])
    return module.loop(cell, state, xs, steps, reverse, None if mask is None else np.asarray(mask) != 0)


@contextmanager
def no_loop():
    """Fail if scan runs step by step: the loop must not be compared with itself."""
    kept = module.loop

    def refuse(*_):
        raise AssertionError("scan ran step by step")
    module.loop = refuse
    try:
        yield
    finally:
        module.loop = kept


def check(row, wanted=(True, True, True), dtype=np.float64, tolerance=1e-12, steps=4, mask=None, sizes=(), **options):
    inputs = row.inputs(dtype=dtype, steps=steps, **dict(sizes))
    before = map_leaves(np.copy, inputs)
    if mask:
        options["mask"] = mask_for(steps, dict(sizes).get("B", 2))
    with no_loop():
        ours = outcome(mg.scan, row.cell, inputs, wanted, **options)
    assert_same(ours, outcome(by_loop, row.cell, inputs, wanted, **options), tolerance)
    for a, b in zip(flatten(inputs)[0], flatten(before)[0]):
        np.testing.assert_array_equal(a, b)
    return ours


# -- the same numbers as the eager loop ---------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("options", SCAN_OPTIONS)
def test_every_cell_equals_the_loop(row, options):
    if "mask" in options and not row.batch_last:
        pytest.skip("this cell cannot take a mask")
    check(row, **SCAN_OPTIONS[options])


@every_cell
def test_float32_stays_float32(row):
    ours = check(row, dtype=np.float32, tolerance=1e-5)
    assert {leaf.dtype for leaf in flatten(ours)[0] if leaf.dtype.kind == "f"} == {np.dtype(np.float32)}


@every_cell
@pytest.mark.parametrize("sizes", [{"steps": 1}, {"sizes": (("B", 1),)}, {"sizes": (("B", 0),)},
                                   {"steps": 70, "sizes": (("H", 6),)}],
                         ids=["T = 1", "batch 1", "batch 0", "other sizes"])
def test_smallest_and_other_sizes(row, sizes):
    names = dict(sizes.get("sizes", ()))
    if (names.get("B") == 0 and not row.batch_last) or ("H" in names and row.make.__name__ in FIXED_SIZE):
        pytest.skip("this cell cannot have this size")
    check(row, **sizes)
    if row.batch_last:
        check(row, mask=True, reverse=True, **sizes)


@pytest.mark.parametrize("seed", range(100, 200))
def test_random_cells(seed):
    rng = np.random.default_rng([seed, 1])
    check(random_row(seed, nested=False), steps=int(rng.integers(1, 9)), mask=bool(rng.integers(2)),
          reverse=bool(rng.integers(2)), tolerance=1e-10)


FIXED_SIZE = {"reshaped", "indexed", "large_constant", "concatenated_twice"}


@every_cell
@pytest.mark.parametrize("switched_off", [*(f.name for f in fields(Options) if f.name != "blocked"), "all"])
def test_numbers_do_not_depend_on_a_pass_of_the_planner(row, switched_off, monkeypatch):
    off = [f.name for f in fields(Options)] if switched_off == "all" else [switched_off]
    monkeypatch.setattr(compiled, "OPTIONS", Options(**{name: False for name in off}))
    check(row, mask=row.batch_last)


@pytest.mark.parametrize("switched_off", [None, "blocked"])
def test_products_large_enough_for_row_blocks(switched_off, monkeypatch):
    # also on processors that do not profit from them
    monkeypatch.setattr(sys.modules["minigrad.printers.statements"], "SMALL_PRODUCT", 1_000_000)
    monkeypatch.setattr(compiled, "OPTIONS", Options(**({switched_off: False} if switched_off else {})))
    row = next(row for row in CELLS if row.make.__name__ == "lstm")
    check(row, steps=2, sizes=(("H", 96), ("D", 40), ("B", 24)), tolerance=1e-11)


@every_cell
@pytest.mark.parametrize("wanted", [w for w in itertools.product([True, False], repeat=3) if not all(w)],
                         ids=lambda w: " ".join(n for n, on in zip(("state", "xs", "weights"), w) if on) or "none")
def test_gradients_of_some_inputs_only(row, wanted):
    check(row, wanted=wanted)
    if row.batch_last:
        check(row, wanted=wanted, mask=True, reverse=True)


@every_cell
def test_without_gradients_nothing_is_recorded_and_arrays_give_arrays(row):
    state, xs, weights = row.inputs()
    expected = by_loop(row.cell(weights), state, xs)
    with no_loop():
        plain = mg.scan(row.cell(weights), state, xs)
        with mg.no_grad():
            recorded = mg.scan(row.cell(map_leaves(lambda w: mg.tensor(w, requires_grad=True), weights)), state,
                               map_leaves(mg.tensor, xs))
    for leaf, theirs in zip(flatten(plain)[0], flatten(expected)[0]):
        assert not isinstance(leaf, mg.Tensor)
        np.testing.assert_allclose(leaf, theirs, rtol=1e-12, atol=1e-12)
    assert not any(getattr(leaf, "requires_grad", False) for leaf in flatten(recorded)[0])
    all_close(flatten(recorded)[0], flatten(expected)[0])


@every_cell
def test_a_result_is_tracked_if_a_gradient_can_flow_to_it(row):
    """As in the loop. (A value that is shifted out of the state after some steps may be tracked longer.)"""
    state, xs, weights = row.inputs()
    for n in range(3):
        lifted = [map_leaves(lambda leaf, on=on: mg.tensor(leaf, requires_grad=on and leaf.dtype.kind == "f"), tree)
                  for on, tree in zip((n == 0, n == 1, n == 2), (state, xs, weights))]
        ours, theirs = (flatten(run(row.cell(lifted[2]), *lifted[:2]))[0] for run in (mg.scan, by_loop))
        ours, theirs = ([getattr(y, "requires_grad", False) for y in leaves] for leaves in (ours, theirs))
        assert ours == theirs if row.make.__name__ != "shifted" else all(a or not b for a, b in zip(ours, theirs))


@every_cell
def test_the_complex_step_agrees(row):
    state, xs, weights = row.inputs(steps=3)
    batch = {"mask": mask_for(3, 2)} if row.batch_last else {}

    def f(state, xs, weights):
        return mg.scan(row.cell(weights), state, xs, **batch)
    report = mg.gradcheck(f, state, xs, weights, max_entries=0, directions=2)
    assert report.ok and (not row.analytic or report.method == "complex step")


@every_cell
def test_the_complex_step_agrees_to_the_second_order(row):
    state, xs, weights = row.inputs(steps=2)
    mg.gradcheck(lambda *inputs: mg.scan(row.cell(inputs[2]), *inputs[:2]), state, xs, weights, order=2, max_entries=0,
                 directions=1)


# -- one program, many calls --------------------------------------------------------------------------------------


def model_of(seed=0, dtype=np.float64, steps=5, batch=2, hidden=4):
    """An LSTM cell with weights that are tensors: (cell, weights, state, xs)."""
    row = next(row for row in CELLS if row.make.__name__ == "lstm")
    state, xs, weights = row.inputs(dtype, steps, seed, B=batch, H=hidden)
    weights = {name: mg.tensor(w, requires_grad=True) for name, w in weights.items()}
    return row.cell(weights), weights, state, xs


def gradients_of(cell, weights, state, xs, scan=mg.scan, seed=5, **options):
    """Return the gradients of the weights and of xs, from a new run."""
    before = [w.grad for w in weights.values()]
    for w in weights.values():
        w.grad = None
    x = mg.tensor(xs, requires_grad=True)
    mixed(scan(cell, state, x, **options), seed).backward()
    out = [*(w.grad for w in weights.values()), x.grad]
    for w, grad in zip(weights.values(), before):
        w.grad = grad
    return out


def all_close(ours, theirs, tolerance=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        a, b = (x.detach().numpy() if isinstance(x, mg.Tensor) else x for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def idle_sets():
    """Return the number of idle sets of buffers."""
    return len(cache.pool.idle)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first loss first", "last loss first"])
def test_two_forwards_before_a_backward(order):
    cell, weights, state, xs = model_of()
    inputs = [mg.tensor(xs * scale, requires_grad=True) for scale in (1.0, -0.7)]
    losses = [mixed(mg.scan(cell, state, x)) for x in inputs]
    for n in order:
        for w in weights.values():
            w.grad = None
        losses[n].backward()
        ours = [*(w.grad for w in weights.values()), inputs[n].grad]
        all_close(ours, gradients_of(cell, weights, state, inputs[n].data, by_loop))


def test_a_second_backward_of_a_retained_graph():
    cell, weights, state, xs = model_of()
    x = mg.tensor(xs, requires_grad=True)
    final, ys = mg.scan(cell, state, x)
    one, two = mixed((final, ys), 1), mixed((final, ys), 2)
    one.backward(retain_graph=True)
    first = x.grad
    one.backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad, 2 * first)
    x.grad = None
    two.backward()
    all_close([x.grad], gradients_of(cell, weights, state, xs, by_loop, seed=2)[-1:])
    with pytest.raises(RuntimeError, match="released"):
        mixed(ys).backward()


def test_buffers_go_back_without_the_garbage_collector():
    cell, _, state, xs = model_of()
    gc.collect()
    gc.disable()
    try:
        for end in ("backward", "dropped", "backward, results kept", "no_grad"):
            with mg.no_grad() if end == "no_grad" else contextlib.nullcontext():
                results = mg.scan(cell, state, mg.tensor(xs))
            idle = idle_sets()
            if "backward" in end:
                mixed(results).backward()
            kept = results if "kept" in end else None
            del results
            assert idle_sets() == (idle if end == "no_grad" else idle + 1), end
            del kept
        assert idle_sets() == len(cache.programs) == 2  # always the same set; no_grad has a program of its own
    finally:
        gc.enable()


def test_the_pool_is_bounded_in_bytes(monkeypatch):
    cell, _, state, xs = model_of()
    mg.scan(cell, state, xs)
    one = cache.pool.nbytes
    assert one == sum(cache.pool.idle.values()) > xs.nbytes
    monkeypatch.setattr(cache.pool, "limit", 4 * one)
    runs = [mg.scan(cell, state, xs) for _ in range(10)]
    del runs
    assert idle_sets() == 4 and cache.pool.nbytes == 4 * one
    mg.scan(cell, state, np.zeros((50 * len(xs), *xs.shape[1:])))  # too large to be kept
    assert cache.pool.nbytes <= 4 * one


def failing_at(patch, n, error):
    """Make np.multiply raise at its nth call, also where a program has imported it."""
    calls, multiply = itertools.count(1), np.multiply

    def patched(*args, **kwargs):
        if next(calls) == n:
            raise error
        return multiply(*args, **kwargs)
    patch.setattr(np, "multiply", patched)
    for program in cache.programs:
        if "multiply" in program.forward.__globals__:
            patch.setitem(program.forward.__globals__, "multiply", patched)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_exception_in_the_middle_leaves_later_calls_right(where, error, monkeypatch):
    cell, weights, state, xs = model_of()
    expected = gradients_of(cell, weights, state, xs, by_loop)
    all_close(gradients_of(cell, weights, state, xs), expected)
    for n in (1, 2, 7):
        loss = mixed(mg.scan(cell, state, xs)) if where == "backward" else None
        with monkeypatch.context() as patch:
            failing_at(patch, n, error)
            with pytest.raises(error):
                mg.scan(cell, state, xs * 2.0) if where == "forward" else loss.backward()
        all_close(gradients_of(cell, weights, state, xs), expected)
        del loss
        all_close(gradients_of(cell, weights, state, xs), expected)
    assert 0 < idle_sets() <= 4


def test_inputs_that_do_not_fit_the_cell_leave_later_calls_right():
    cell, weights, state, xs = model_of()
    mg.scan(cell, state, xs)
    for bad in (xs[:, :2], xs[:, :, :1].repeat(3, axis=2)):
        with pytest.raises(ValueError):
            mg.scan(cell, state, bad)
    all_close(gradients_of(cell, weights, state, xs), gradients_of(cell, weights, state, xs, by_loop))


def test_batch_and_length_may_change_at_every_call():
    for steps, batch in [(5, 2), (3, 2), (5, 2), (5, 7), (1, 1), (12, 2), (5, 7)]:
        args = model_of(steps=steps, batch=batch)
        all_close(gradients_of(*args), gradients_of(*args, by_loop))


def test_many_threads_run_one_cell_at_once():
    cell, *_ = model_of()

    def f(state, xs):
        return mixed(mg.scan(cell, state, xs))
    inputs = [model_of(seed, steps=3 + seed % 3)[2:] for seed in range(24)]
    expected = [mg.grad(f, (0, 1))(*args) for args in inputs]
    cache.programs.clear()  # so that all threads compile, too
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda args: mg.grad(f, (0, 1))(*args), inputs * 4))
    finally:
        sys.setswitchinterval(before)
    for ours, theirs in zip(found, expected * 4, strict=True):
        all_close(flatten(ours)[0], flatten(theirs)[0], 0)


def test_returned_arrays_are_never_written_again():
    """Results and gradients do not share memory with the pool."""
    for row in CELLS:
        inputs = row.inputs()
        lifted = [map_leaves(lambda x: mg.tensor(x, requires_grad=x.dtype.kind == "f"), tree) for tree in inputs]
        kept = outcome(mg.scan, row.cell, inputs)
        results = flatten(mg.scan(row.cell(lifted[2]), *lifted[:2]))[0]
        with mg.no_grad():
            results += flatten(mg.scan(row.cell(lifted[2]), *lifted[:2]))[0]
        results = [y.detach().numpy() if isinstance(y, mg.Tensor) else y for y in results] + flatten(kept)[0]
        before = [np.copy(y) for y in results]
        for seed in (1, 2):
            outcome(mg.scan, row.cell, row.inputs(seed=seed))
        for y, value in zip(results, before):
            np.testing.assert_array_equal(y, value, err_msg=str(row))


def test_writing_into_results_does_not_reach_a_later_backward():
    for row in CELLS:
        inputs = row.inputs()
        state, xs, weights = [map_leaves(lambda x: mg.tensor(x, requires_grad=x.dtype.kind == "f"), t) for t in inputs]
        results = mg.scan(row.cell(weights), state, xs)
        loss = mixed(results)
        for y in flatten(results)[0]:
            if isinstance(y, mg.Tensor) and not any(y is s for s in flatten(state)[0]):
                y._array[...] = 1e3
        loss.backward()
        found = [gradient(x) for x in flatten((state, xs, weights))[0]]
        theirs = outcome(by_loop, row.cell, inputs)
        all_close(found, flatten(theirs[2:])[0])
        for a, b in zip(flatten((state, xs, weights))[0], flatten(inputs)[0]):
            np.testing.assert_array_equal(a.data, b, err_msg=f"{row}: a result is an input")


@pytest.mark.parametrize("which", ["weight", "xs", "state"])
def test_a_value_changed_between_forward_and_backward_is_refused(which):
    cell, weights, state, xs = model_of()
    state, xs = map_leaves(mg.tensor, state), mg.tensor(xs)
    loss = mixed(mg.scan(cell, state, xs))
    changed = {"weight": weights["W"], "xs": xs, "state": state[0]}[which]
    changed.data = changed.data * 2
    with pytest.raises(RuntimeError, match="was changed after scan had used it"):
        loss.backward()


def test_weights_computed_from_others_pass_their_gradient_on():
    row = next(row for row in CELLS if row.make.__name__ == "rnn")
    state, xs, raw = row.inputs()

    def f(raw, scan):
        weights = {name: mg.tanh(w) / mg.sqrt(mg.sum(w * w) + 1.0) for name, w in raw.items()}
        return mixed(scan(row.cell(weights), state, xs))
    with no_loop():
        ours = mg.grad(f)(raw, mg.scan)
    all_close(ours.values(), mg.grad(f)(raw, by_loop).values())


def test_a_tensor_in_several_roles():
    """The initial state is also a weight of the cell, and one input is passed twice."""
    rng = np.random.default_rng(0)
    h, x = (mg.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((4, 2), (3, 4, 2)))

    def cell(state, x):
        s = np.tanh(state * h + x[0] * x[1])
        return s, s

    def run(scan):
        h.grad = x.grad = None
        mixed(scan(cell, h, (x, x))).backward()
        return h.grad, x.grad
    with no_loop():
        ours = run(mg.scan)
    all_close(ours, run(by_loop))


def test_inputs_may_be_views_read_only_and_in_any_order_of_memory():
    cell, weights, state, xs = model_of()
    expected = gradients_of(cell, weights, state, xs, by_loop)
    strange = np.asfortranarray(np.repeat(xs, 2, axis=0))[::2]
    strange.flags.writeable = False
    state = tuple(np.asfortranarray(s) for s in state)
    weights = {name: mg.tensor(np.asfortranarray(w.data), requires_grad=True) for name, w in weights.items()}
    for s in state:
        s.flags.writeable = False
    row = next(row for row in CELLS if row.make.__name__ == "lstm")
    with no_loop():
        all_close(gradients_of(row.cell(weights), weights, state, strange), expected)


def test_a_hook_may_scan_during_the_backward_of_a_scan():
    cell, weights, state, xs = model_of()
    expected = gradients_of(cell, weights, state, xs, by_loop)
    x = mg.tensor(xs, requires_grad=True)
    _, ys = results = mg.scan(cell, state, x)
    seen = []

    def hook(g):
        seen.append(mg.grad(lambda x: mixed(mg.scan(cell, state, x)))(xs * 0.5))
    ys.register_hook(hook)
    mixed(results).backward()
    all_close([x.grad, *seen], [expected[-1], gradients_of(cell, weights, state, xs * 0.5, by_loop)[-1]])


# -- what a program depends on ------------------------------------------------------------------------------------


GLOBAL = SimpleNamespace(scale=1.0)


class Model:
    """A user's module."""

    class_scale = 1.0

    def __init__(self, rng=0, size=3):
        rng = np.random.default_rng(rng)
        self.W = mg.tensor(rng.normal(size=(size, size)), requires_grad=True)
        self.layers = [{"b": mg.tensor(rng.normal(size=(size, 1)), requires_grad=True)}]
        self.scale, self.squared, self.activation = 1.0, False, np.tanh
        self.deep = {"a": {"b": {"c": {"d": {"e": [1.0]}}}}}
        self.slotted = Slotted()
        self.small, self.large = np.ones((size, 1)), np.ones((size, 20))
        self.names = {"tanh"}

    def cell(self, h, x):
        h = self.activation(self.W @ h + self.layers[0]["b"] + x) * self.scale * self.class_scale
        h = h * self.slotted.scale * self.deep["a"]["b"]["c"]["d"]["e"][0] * GLOBAL.scale * len(self.names)
        h = h * self.small + (self.large * 0.5)[:, :1] + self.helper()
        return h, h * h if self.squared else h

    def helper(self):
        return offset_from_a_helper()


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0


OFFSET = 0.0


def offset_from_a_helper():
    return OFFSET


def assert_as_the_loop(cell, *args, **options):
    ours, theirs = (flatten(scan(cell, *args, **options))[0] for scan in (mg.scan, by_loop))
    all_close(ours, theirs)


STATE, XS = np.random.default_rng(1).normal(size=(3, 2)), np.random.default_rng(2).normal(size=(4, 3, 2))
CHANGES = {
    "a weight replaced": lambda m: setattr(m, "W", mg.tensor(np.eye(3), requires_grad=True)),
    "a weight inside a list replaced": lambda m: m.layers.__setitem__(0, {"b": mg.tensor(np.ones((3, 1)))}),
    "a weight frozen": lambda m: setattr(m.W, "requires_grad", False),
    "a weight of another shape": lambda m: m.layers[0].update(b=mg.tensor(np.ones((3, 2)), requires_grad=True)),
    "a number": lambda m: setattr(m, "scale", 2.0),
    "a flag": lambda m: setattr(m, "squared", True),
    "a function": lambda m: setattr(m, "activation", mg.sigmoid),
    "a method": lambda m: setattr(m, "helper", lambda: 3.0),
    "a number of the class": lambda m: setattr(Model, "class_scale", 2.0),
    "a number deep inside": lambda m: m.deep["a"]["b"]["c"]["d"]["e"].__setitem__(0, 2.0),
    "a number in an object with slots": lambda m: setattr(m.slotted, "scale", 2.0),
    "a number of a global object": lambda m: setattr(GLOBAL, "scale", 2.0),
    "a global number that a method's helper reads": lambda m: globals().update(OFFSET=2.0),
    "an element of a set": lambda m: m.names.add("more"),
    "a small array in place": lambda m: m.small.__setitem__(0, 2.0),
    "a large array in place": lambda m: m.large.__setitem__(0, 2.0),
    "a small array replaced": lambda m: setattr(m, "small", m.small * 2),
    "a large array replaced": lambda m: setattr(m, "large", m.large * 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_anything_the_cell_reads_may_change_between_calls(change, monkeypatch):
    monkeypatch.setattr(Model, "class_scale", 1.0)
    monkeypatch.setattr(GLOBAL, "scale", 1.0)
    monkeypatch.setitem(globals(), "OFFSET", 0.0)
    model = Model()
    assert_as_the_loop(model.cell, STATE, XS)
    CHANGES[change](model)
    with no_loop():
        mg.scan(model.cell, STATE, XS)
    assert_as_the_loop(model.cell, STATE, XS)


SETTINGS, CONTEXT = ModuleType("settings"), ContextVar("context", default=0.5)
SLOW = 0.5


class Table:
    alpha, table, weights = 0.5, {"alpha": 0.5}, [0.5]

    def __init__(self):
        self.queue, self.names = deque([0.5]), {"alpha": 0.5}

    @property
    def doubled(self):
        return 2.0 * self.alpha


def reads(source):
    """Return a cell h + α x that reads its α from `source`, and a function that sets α there."""
    table, t, deep = Table(), mg.tensor([0.5], requires_grad=True), []
    bottom = deep
    for _ in range(20):
        bottom.append([])
        bottom = bottom[0]
    bottom.append(0.5)
    box = [0.5]

    def far():
        node = deep
        while isinstance(node[0], list):
            node = node[0]
        return node[0]
    nested = lambda: (lambda: SLOW)()  # noqa: E731
    read, change = {
        "class attribute": (lambda: Table.alpha, lambda v: setattr(Table, "alpha", v)),
        "property": (lambda: table.doubled / 2.0, lambda v: setattr(Table, "alpha", v)),
        "module attribute": (lambda: SETTINGS.alpha, lambda v: setattr(SETTINGS, "alpha", v)),
        "global of a function within": (nested, lambda v: globals().update(SLOW=v)),
        "dict of a class": (lambda: table.table["alpha"], lambda v: Table.table.update(alpha=v)),
        "list of a class": (lambda: table.weights[0], lambda v: Table.weights.__setitem__(0, v)),
        "deque": (lambda: table.queue[0], lambda v: table.queue.__setitem__(0, v)),
        "attribute by a computed name": (lambda: getattr(Table, "al" + "pha"), lambda v: setattr(Table, "alpha", v)),
        "variable of the context": (CONTEXT.get, CONTEXT.set),
        "environment": (lambda: float(os.environ["ALPHA"]), lambda v: os.environ.update(ALPHA=str(v))),
        "twenty levels down": (far, lambda v: bottom.__setitem__(0, v)),
        "closed-over list": (lambda: box[0], lambda v: box.__setitem__(0, v)),
        "item() of a tensor": (t.item, lambda v: setattr(t, "data", np.array([v]))),
        "data of a tensor": (lambda: t.data, lambda v: setattr(t, "data", np.array([v]))),
        "data of a tensor, in place": (lambda: t.data, lambda v: t.data.__setitem__(0, v)),
        "numpy() of a tensor": (lambda: t.detach().numpy(), lambda v: setattr(t, "data", np.array([v]))),
        "NumPy's number": (lambda: np.float64(box[0]), lambda v: box.__setitem__(0, v)),
        "new array": (lambda: np.full(1, box[0]), lambda v: box.__setitem__(0, v)),
    }[source]
    return (lambda h, x: (h + read() * x, h)), change


SOURCES = ["class attribute", "property", "module attribute", "global of a function within", "dict of a class",
           "list of a class", "deque", "attribute by a computed name", "variable of the context", "environment",
           "twenty levels down", "closed-over list", "item() of a tensor", "data of a tensor",
           "data of a tensor, in place", "numpy() of a tensor", "NumPy's number", "new array"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_number_is_read_again_at_each_call(source, monkeypatch):
    monkeypatch.setattr(Table, "alpha", 0.5)
    monkeypatch.setenv("ALPHA", "0.5")
    monkeypatch.setitem(globals(), "SLOW", 0.5)
    monkeypatch.setattr(SETTINGS, "alpha", 0.5, raising=False)
    cell, change = reads(source)
    with no_loop():
        for alpha in (0.5, 2.0, 0.5, -3.0):
            change(alpha)
            assert float(mg.scan(cell, np.zeros(1), np.ones((3, 1)))[0][0]) == 3 * alpha


SCALE = 0.5


def scaled(h):
    return SCALE * h


class Cell:
    """The size is no number of entries here."""

    def __init__(self):
        self.W, self.rate, self.size = mg.tensor(np.eye(3), requires_grad=True), 0.5, 0.5

    def __call__(self, h, x):
        h = self.rate * (self.W @ h) + x
        return h, h

    def by_method(self, h, x):
        h = self.mixed(h) + x
        return h, h

    def mixed(self, h):
        return self.rate * (self.W @ h)

    def by_helper(self, h, x):
        h = size_of(self) * (self.W @ h) + x
        return h, h


def size_of(cell):
    return cell.size


def cell_by(library, W):
    def cell(h, x):
        h = summed(library, W @ h) + x
        return h, h
    return cell


def summed(library, h):
    return library.sum(h, axis=0, keepdims=True)


def cell_over(outside):
    def cell(h, x):
        h = outside["rate"][0] * (outside["W"] @ h) + x
        return h, h
    return cell


def cell_of(W, rate):
    def cell(h, x, rate=rate):
        h = rate * (W @ h) + x
        return h, h
    return cell


def negative_cell_of(W):
    def cell(h, x, rate):
        h = rate * (W @ h) - x
        return h, h
    return cell


def cell_with(W, V, module=np):
    def cell(h, x):
        h = module.tanh(W @ h + V @ x) + scaled(x)
        return h, h
    return cell


def seen_from_outside():
    """{what changes: (cell, function that changes it)}: the code of all these cells only computes."""
    W, V = (mg.tensor(np.eye(3) * 0.5 + n, requires_grad=True) for n in range(2))
    one, two, three, plain = Cell(), Cell(), Cell(), cell_of(W, 0.5)
    outside, module = {"rate": [0.5], "W": W}, ModuleType("minigrad")
    module.tanh, module.sum, by = np.tanh, np.sum, cell_by(module, W)
    tied, own = cell_with(W, W), cell_with(W, V, module)
    closed = dict(zip(tied.__code__.co_freevars, tied.__closure__))

    def rule(self, h):
        return h - self.W @ h
    return {
        "attribute": (one, lambda: setattr(one, "rate", 2.0)),
        "weight": (one, lambda: setattr(one, "W", V)),
        "method of the class": (two.by_method, lambda: setattr(Cell, "mixed", rule)),
        "method of the object": (two.by_method, lambda: setattr(two, "mixed", lambda h: h)),
        "property": (two.by_method, lambda: setattr(Cell, "rate", property(lambda self: 3.0))),
        "attribute read by a helper": (three.by_helper, lambda: setattr(three, "size", 2.0)),
        "list in a dict": (cell_over(outside), lambda: outside["rate"].__setitem__(0, 2.0)),
        "weight in a dict": (cell_over(outside), lambda: outside.update(W=V)),
        "default": (plain, lambda: setattr(plain, "__defaults__", (2.0,))),
        "code": (plain, lambda: setattr(plain, "__code__", negative_cell_of(W).__code__)),
        "global of a helper": (tied, lambda: globals().update(SCALE=2.0)),
        "helper": (tied, lambda: globals().update(scaled=lambda h: h * 3.0)),
        "tied weights": (tied, lambda: setattr(closed["V"], "cell_contents", V)),
        "attribute of a module that is passed on": (by, lambda: setattr(module, "sum", np.mean)),
        "attribute of a module": (own, lambda: setattr(module, "tanh", np.sin)),
        "values": (own, lambda: setattr(V, "data", V.data * 2.0)),
        "gradient off": (own, lambda: setattr(V, "requires_grad", False)),
        "shape": (own, lambda: setattr(dict(zip(own.__code__.co_freevars, own.__closure__))["V"], "cell_contents",
                                       mg.tensor(np.ones((1, 3)), requires_grad=True)))}


@pytest.mark.parametrize("what", seen_from_outside())
def test_what_a_cell_reads_may_change_between_calls(what, monkeypatch):
    """Also where the cell need not be traced again, as all that it reads is a part of a key."""
    monkeypatch.setattr(Cell, "mixed", Cell.mixed)
    monkeypatch.setitem(globals(), "SCALE", SCALE)
    monkeypatch.setitem(globals(), "scaled", scaled)
    cell, change = seen_from_outside()[what]
    try:
        for n in range(6):
            if n == 3:
                change()
            assert_as_the_loop(cell, STATE, XS)
    finally:
        if "rate" in vars(Cell):
            del Cell.rate


@pytest.mark.skipif(sys.version_info < (3, 11), reason="code that only computes is recognised from Python 3.11 on")
@pytest.mark.parametrize("cell", [cell_with(*(mg.tensor(np.eye(3), requires_grad=True) for _ in range(2))), Cell(),
                                  Cell().by_method, cell_of(mg.tensor(np.eye(3), requires_grad=True), 0.5)])
def test_a_cell_of_weights_and_numbers_is_not_traced_again(cell, monkeypatch):
    for _ in range(3):  # traced, inspected, and known by what it reads
        mg.scan(cell, STATE, XS)
    monkeypatch.setattr(compiled, "inspect_without_values", None)
    assert_as_the_loop(cell, STATE, XS)


@pytest.mark.parametrize("outside", [np.ones(1), mg.tensor([1.0], requires_grad=True)], ids=["array", "tensor"])
def test_a_value_that_steers_a_cell_is_read_again(outside):
    """An array, and a tensor of one entry, can decide a branch."""
    def cell(h, x):
        h = h + x if outside else h - x
        return h, h
    array = getattr(outside, "data", outside) if isinstance(outside, mg.Tensor) else outside
    for n in range(6):
        array[...] = n < 3
        assert_as_the_loop(cell, STATE, XS)


def test_minus_zero_is_not_zero():
    zero = [0.0]
    cell = lambda h, x: (h + np.copysign(1.0, zero[0]) * x, h / zero[0])  # noqa: E731
    with np.errstate(divide="ignore", invalid="ignore"):
        for zero[0], sign in ((0.0, 1), (-0.0, -1), (0.0, 1)):
            final, ys = mg.scan(cell, np.ones(1), np.ones((2, 1)))
            assert (float(final[0]), float(ys[0, 0])) == (1 + 2 * sign, sign * np.inf)


def test_an_array_that_changes_is_an_input_and_compiles_nothing():
    W = mg.tensor(np.eye(3), requires_grad=True)
    draws = np.random.default_rng(0)
    for _ in range(5):
        mask = draws.random((3, 2)) < 0.5
        scale = np.float64(draws.normal())

        def cell(h, x, mask=mask, scale=scale):
            h = np.where(mask, W @ h, 0.0) * scale + x * mask
            return h, h
        assert_as_the_loop(cell, STATE, XS)
    assert len(cache.programs) == 1


def test_numbers_that_change_become_inputs():
    W = mg.tensor(np.eye(3, dtype=np.float32), requires_grad=True)
    for n in range(12):
        def cell(h, x, n=n):
            h = np.maximum(W @ h * (1.0 + n / 10), 0.1 * n) + x ** 2.0
            return h, h
        final, ys = mg.scan(cell, STATE.astype("f"), XS.astype("f"))
        W.grad = None
        mixed((final, ys)).backward()
        ours, W.grad = W.grad, None
        theirs = by_loop(cell, STATE.astype("f"), XS.astype("f"))
        mixed(theirs).backward()
        assert final.dtype == ys.dtype == np.float32
        all_close([final, ys, ours], [*theirs, W.grad], 1e-5)
    assert len(cache.programs) == cell_key.MOST_VARIANTS + 2


def with_scale(scale, h, x):
    h = np.tanh(h + x) * scale
    return h, h


def keyword_cell(scale):
    def cell(h, x, *, scale=scale):
        return with_scale(scale, h, x)
    return cell


def default_cell(scale):
    def cell(h, x, scale=scale):
        return with_scale(scale, h, x)
    return cell


def inner_cell(scale):
    def cell(h, x):
        return (lambda: with_scale(scale, h, x))()
    return cell


class Callable:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, h, x):
        return with_scale(self.scale, h, x)


FAMILIES = {"partial": lambda scale: functools.partial(with_scale, scale), "keyword": keyword_cell,
            "default": default_cell, "inner function": inner_cell, "object": Callable,
            "text": lambda scale: eval(f"lambda h, x: with_scale({scale}, h, x)", globals())}


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_of_one_family_keep_their_own_numbers(family):
    """Also if each is freed before the next is made, which may then have its id."""
    for scale in (1.0, 2.0, 3.0):
        assert_as_the_loop(FAMILIES[family](scale), STATE, XS)
        gc.collect()


def test_two_models_of_one_kind_share_a_program_and_keep_their_weights():
    models = [model_of(seed) for seed in range(3)]
    for model in models * 2:
        all_close(gradients_of(*model), gradients_of(*model, by_loop))
    assert len(cache.programs) == 1
    losses = [mixed(mg.scan(cell, state, xs)) for cell, _, state, xs in models]
    for loss in losses:
        loss.backward()
    for model in models:
        all_close([w.grad for w in model[1].values()], gradients_of(*model, by_loop)[:-1])


def test_weights_that_are_tied_in_one_model_and_not_in_another():
    def make(A, B):
        def cell(h, x):
            h = np.tanh(A @ h + B @ x)
            return h, h
        return cell
    rng = np.random.default_rng(0)
    A, B = (mg.tensor(rng.normal(size=(3, 3)), requires_grad=True) for _ in range(2))
    for pair in ((A, A), (A, B), (B, B), (B, A)):
        assert_as_the_loop(make(*pair), STATE, XS)
        A.grad = B.grad = None
        mixed(mg.scan(make(*pair), STATE, XS)).backward()
        ours, A.grad, B.grad = (A.grad, B.grad), None, None
        mixed(by_loop(make(*pair), STATE, XS)).backward()
        for d, expected in zip(ours, (A.grad, B.grad)):
            assert (d is None) == (expected is None)
            if d is not None:
                all_close([d], [expected])


def test_one_program_serves_all_values_of_the_weights():
    """Values of weights are inputs of a program: it is compiled once, and every step uses the new values."""
    cell, weights, state, xs = model_of()
    for _ in range(3):
        ours, theirs = gradients_of(cell, weights, state, xs), gradients_of(cell, weights, state, xs, by_loop)
        all_close(ours, theirs)
        for w, d in zip(weights.values(), ours):
            w.data = w.data - 0.1 * d
    assert len(cache.programs) == 1


# -- with the rest of the engine ----------------------------------------------------------------------------------


def functions_through(scan):
    cell, _, state, xs = model_of(steps=3)
    u = np.random.default_rng(3).normal(size=3 * 2).reshape(1, 3, 2)

    def f(x):
        return mixed(scan(cell, state, x * x))

    def small(v):
        return mixed(scan(cell, state, xs[:2] * v))
    return {"grad": lambda: mg.grad(f)(xs), "jvp": lambda: mg.jvp(f, (xs,), (xs + u,)),
            "hvp": lambda: mg.hvp(f, xs, u + xs), "hessian": lambda: mg.hessian(small)(np.ones(2)),
            "jacobian": lambda: mg.jacobian(lambda v: scan(cell, state, xs * v)[1])(np.ones(2)),
            "grad of grad": lambda: mg.grad(lambda x: mg.sum(mg.grad(f)(x) ** 2))(xs)}


@pytest.mark.parametrize("what", functions_through(by_loop))
def test_scan_inside_the_functions_of_autodiff(what):
    ours, theirs = functions_through(mg.scan)[what](), functions_through(by_loop)[what]()
    all_close(flatten(ours)[0], flatten(theirs)[0], 1e-11)


def test_scan_inside_scan():
    rng = np.random.default_rng(0)
    W = mg.tensor(rng.normal(size=(3, 3)), requires_grad=True)
    xs = rng.normal(size=(3, 2, 3, 2))

    def outer(scan):
        def inner(h, x):
            h = np.tanh(W @ h + x)
            return h, h

        def cell(h, x):
            h, ys = scan(inner, h, x)
            return h, mg.sum(ys, axis=0)
        return cell
    found = []
    for scan in (mg.scan, by_loop):
        W.grad, x = None, mg.tensor(xs, requires_grad=True)
        mixed(scan(outer(scan), np.zeros((3, 2)), x)).backward()
        found.append((W.grad, x.grad))
    all_close(*found)


def test_a_mask_that_changes_after_the_forward_changes_no_gradient():
    x, found = mg.tensor(np.ones((3, 2, 2)), requires_grad=True), []
    for change in (False, True):
        x.grad, mask = None, np.array([[True, True], [True, False], [True, False]])
        h, _ = mg.scan(lambda h, x: (np.tanh(h + x), h), np.zeros((2, 2)), x, mask=mask)
        mask |= change
        mg.sum(h).backward()
        found.append(x.grad)
    np.testing.assert_array_equal(*found)


def test_scan_inside_derive():
    row = next(row for row in CELLS if row.make.__name__ == "gru")
    state, xs, weights = row.inputs()

    def f(state, xs, weights):
        return mg.scan(row.cell(weights), state, xs, reverse=True)
    derived = mg.derive(f, state, xs, weights)
    y, cache = derived.forward(state, xs, weights)
    expected, pull = mg.vjp(f, state, xs, weights)
    all_close(flatten(y)[0], flatten(expected)[0])
    d_y = map_leaves(np.cos, expected)
    all_close(flatten(derived.backward(d_y, cache))[0], flatten(pull(d_y))[0])


def test_detect_anomaly_finds_the_step():
    W = mg.tensor(np.eye(3), requires_grad=True)

    def cell(h, x):
        return h + W @ mg.log(x), h
    xs = np.ones((5, 3, 2))
    xs[3, 1, 0] = -1.0
    with pytest.raises(FloatingPointError, match=r"log of .* nan at index \(1, 0\).*test_scan\.py.* t = 3"), \
            mg.detect_anomaly():
        mg.scan(cell, np.zeros((3, 2)), mg.tensor(xs))


def test_a_layer_whose_cell_is_a_method():
    class LSTM:
        def __init__(self, rng):
            self.W = mg.tensor(rng.normal(size=(16, 7)), requires_grad=True)
            self.b = mg.tensor(rng.normal(size=(16, 1)), requires_grad=True)

        def cell(self, state, x):
            return lstm(self)(state, x)

        def __call__(self, x):
            zeros = np.zeros((4, x.shape[2]))
            return mg.scan(self.cell, (zeros, zeros), x)
    layer = LSTM(np.random.default_rng(0))
    xs = np.random.default_rng(1).normal(size=(6, 3, 2))
    zeros = np.zeros((4, 2))
    with no_loop():
        mixed(layer(xs)).backward()
    ours, layer.W.grad, layer.b.grad = (layer.W.grad, layer.b.grad), None, None
    mixed(by_loop(layer.cell, (zeros, zeros), xs)).backward()
    all_close(ours, (layer.W.grad, layer.b.grad))


# -- cells that are not pure --------------------------------------------------------------------------------------


class Counter:
    """Cells h + x times a number that depends on how often the cell was called."""

    total = 0

    def __init__(self):
        self.t, self.box, self.seen, self.array = 0, {"t": 0}, [], np.zeros(2)

    def attribute(self, h, x):
        self.t += 1
        return self.step(h, x, self.t)

    def class_attribute(self, h, x):
        Counter.total += 1
        return self.step(h, x, Counter.total)

    def entry(self, h, x):
        self.box["t"] += 1
        return self.step(h, x, self.box["t"])

    def element(self, h, x):
        self.seen.append(None)
        return self.step(h, x, len(self.seen))

    def number_of_an_array(self, h, x):
        self.array[0] += 1
        return self.step(h, x, int(self.array[0]))

    def helper(self, h, x):
        return self.step(h, x, self.count())

    def count(self):
        self.box["t"] += 1
        return self.box["t"]

    def attribute_by_name(self, h, x):
        setattr(self, "t", getattr(self, "t") + 1)  # noqa: B009, B010
        return self.step(h, x, self.t)

    @staticmethod
    def step(h, x, t):
        h = h + x * (10.0 if t % 3 == 0 else 1.0)
        return h, h


TOTAL = 0


def of_a_global(h, x):
    global TOTAL
    TOTAL += 1
    return Counter.step(h, x, TOTAL)


def of_a_variable():
    t = 0

    def cell(h, x):
        nonlocal t
        t += 1
        return Counter.step(h, x, t)
    return cell


def of_an_iterator():
    count = itertools.count(1)
    return lambda h, x: Counter.step(h, x, next(count))


COUNTERS = {"a global": lambda: of_a_global, "a variable": of_a_variable, "an iterator": of_an_iterator,
            **{name: lambda name=name: getattr(Counter(), name) for name in (
                "attribute", "class_attribute", "entry", "element", "number_of_an_array", "helper",
                "attribute_by_name")}}


@pytest.mark.parametrize("counter", COUNTERS)
def test_a_cell_that_counts_its_calls_runs_at_every_step(counter, monkeypatch):
    monkeypatch.setattr(Counter, "total", 0)
    monkeypatch.setitem(globals(), "TOTAL", 0)
    cell = COUNTERS[counter]()
    with pytest.warns(module.ScanNotice, match=r"step by step: it (changes|can take)"):
        _, ys = mg.scan(cell, np.zeros(1), np.ones((2, 1)))
    assert ys.ravel().tolist() == [1, 2]
    assert mg.scan(cell, np.zeros(1), np.ones((4, 1)))[1].ravel().tolist() == [10, 11, 12, 22]


DRAWS = {"a generator": (lambda: np.random.default_rng(0), lambda rng: rng.random()),
         "NumPy's own": (lambda: np.random.seed(0), lambda _: np.random.random()),
         "Python's own": (lambda: random.seed(0), lambda _: random.random()),
         "a Random": (lambda: random.Random(0), lambda rng: rng.random())}


@pytest.mark.parametrize("draw", [random.random, np.random.random])
@pytest.mark.parametrize("trace", ["Trace", "trace_key"])
def test_another_thread_may_draw_random_numbers_while_a_cell_is_traced(monkeypatch, draw, trace):
    """Dask's threads do: the first step of a run was then by the eager loop, with other last digits."""
    original = getattr(cell_key, trace)
    monkeypatch.setattr(cell_key, trace, lambda *args, **options: (draw(), original(*args, **options))[1])
    W = mg.tensor(np.eye(3), requires_grad=True)

    def cell(h, x):
        h = np.tanh(W @ h + x)
        return h, h
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mg.scan(cell, np.zeros((3, 2)), np.ones((4, 3, 2)))


@pytest.mark.parametrize("source", DRAWS)
def test_a_branch_on_a_random_number_is_drawn_at_every_step(source):
    """Two traces may take the same branch; the draw is detected all the same, and undone."""
    make, draw = DRAWS[source]

    def drawn():
        rng = make()

        def cell(h, x):
            h = h + x if draw(rng) < 0.5 else h
            return h, h
        return cell
    for _ in range(3):
        ours = mg.scan(drawn(), np.zeros(1), np.ones((12, 1)))[1]
        np.testing.assert_array_equal(ours, by_loop(drawn(), np.zeros(1), np.ones((12, 1)))[1])


def test_a_list_outside_the_cell_gets_the_values_of_every_step():
    gates, W = [], mg.tensor(np.eye(3), requires_grad=True)

    def cell(h, x):
        z = mg.sigmoid(W @ h + x)
        gates.append(z)
        return z * h, z
    _, zs = mg.scan(cell, STATE, XS)
    np.testing.assert_array_equal([z.data for z in gates], zs.data)


def test_a_tensor_kept_from_a_trace_explains_itself():
    kept = []

    def f(x):
        y = x * 2.0
        kept.append(y)
        return y
    mg.derive(f, np.ones(3))
    (y,) = kept
    assert y.shape == (3,)
    for use in (lambda: y + 1.0, y.detach, lambda: mg.sum(y), lambda: np.ones((3, 3)) @ y):
        with pytest.raises(TypeError, match=r"never had values.*let the function return it"):
            use()


def test_a_cell_that_caches_constants_is_compiled_once_they_are_cached():
    tables = {}

    def cell(h, x):
        if 3 not in tables:
            tables[3] = np.eye(3)
        return tables[3] @ h + x, h
    mg.scan(cell, STATE, XS)
    with no_loop():
        mg.scan(cell, STATE, XS)


def test_lists_that_a_cell_makes_are_not_side_effects():
    def collect(gates, z):
        gates.append(z)
        return gates[-1]

    def cell(h, x):
        gates = []
        h = collect(gates, mg.tanh(h + x))
        return h, gates[0]
    with no_loop():
        mg.scan(cell, STATE, XS)


# -- inputs of a cell -------------------------------------------------------------------------------------------


def test_state_and_x_reach_a_cell_as_tensors_on_every_path():
    w = mg.tensor([0.5], requires_grad=True)

    def cell(h, x):
        h = mg.tanh(w * h.detach() + x.detach())
        return h, h

    def branching(h, x):
        h, y = cell(h, x)
        return (h, y) if float(h.detach().data[0]) > -9 else (y, h)
    expected = np.tanh(0.5 * np.tanh(1) + 1)
    for run in (mg.scan, by_loop, functools.partial(mg.scan, checkpoint_every=1)):
        assert np.allclose(run(cell, np.zeros(3), np.ones((2, 3)))[0].data, expected)
    assert np.allclose(mg.scan(branching, np.zeros(3), np.ones((2, 3)))[0].data, expected)
    with mg.detect_anomaly():
        assert np.allclose(mg.scan(cell, np.zeros(3), np.ones((2, 3)))[0].data, expected)
    assert mg.gradcheck(lambda: mg.scan(cell, np.zeros(3), np.ones((4, 3)))[1].sum(), frozen=True).ok
    derived = mg.derive(lambda xs: mg.scan(cell, np.zeros(3), xs)[0], np.ones((2, 3)))
    assert np.allclose(derived.forward(np.ones((2, 3)))[0], expected)


@pytest.mark.parametrize("bad, message", [(np.ma.array(XS, mask=XS > 1), "lose its mask"),
                                          (XS.astype(object), "object")], ids=["masked array", "objects"])
def test_masked_arrays_and_arrays_of_objects_are_refused(bad, message):
    cell = lambda h, x: (h + x, h)  # noqa: E731
    for state, xs in ((STATE, bad), (bad[0], XS)):
        with pytest.raises(TypeError, match=message):
            mg.scan(cell, state, xs)
    big = mg.scan(cell, STATE.astype(">f8"), XS.astype(">f8"))
    assert [y.dtype.isnative for y in big] == [True, True]
    all_close(big, mg.scan(cell, STATE, XS))


def test_a_scan_in_a_cell_may_detach_a_state_that_is_an_array():
    def cell(h, x):
        _, ys = mg.scan(lambda k, z: (np.tanh(k + z), k.detach()), np.zeros(h.shape), np.stack([x, x]))
        return h + ys[1], ys[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = mg.scan(cell, STATE, XS)
    all_close(ours, by_loop(cell, STATE, XS))


def test_a_cell_of_executed_code_runs():
    space = {"np": np}
    exec("def cell(h, x):\n    h = np.tanh(h + x)\n    return h, h", space)
    with no_loop():
        assert np.allclose(mg.scan(space["cell"], np.zeros(3), np.ones((2, 3)))[0], np.tanh(np.tanh(1) + 1))


class Profiler:
    """A profiler for which sys.getprofile() returns an object that cannot be installed again."""


class Enabled(Profiler):
    """As VizTracer's."""

    enable = True


@pytest.mark.parametrize("left", [Profiler(), Enabled(), 7, None], ids=["profiler", "VizTracer", "number", "none"])
def test_a_cell_is_traced_under_any_profiler_and_ours_is_removed(left, monkeypatch):
    real = sys.getprofile
    monkeypatch.setattr(sys, "getprofile", lambda: left)
    try:
        with no_loop():
            mg.scan(lambda h, x: ((k := np.tanh(h + 2.0 * x)), k), STATE, XS)
        assert real() is None
    finally:
        sys.setprofile(None)


def test_cprofile_continues_after_a_trace():
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        mg.scan(lambda h, x: (np.tanh(h + 4.0 * x), h), STATE, XS)
        sorted([2, 1])
    finally:
        profiler.disable()
    assert any("sorted" in str(entry.code) for entry in profiler.getstats())


def test_a_profile_function_continues_after_a_trace():
    seen = []

    def mine(frame, event, argument):
        seen.append(frame.f_code.co_name)
    sys.setprofile(mine)
    try:
        mg.scan(lambda h, x: (np.tanh(h + 3.0 * x), h), STATE, XS)
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("error", [TypeError("x"), AttributeError("x"), KeyError("x"), ZeroDivisionError()],
                         ids=lambda error: type(error).__name__)
def test_an_error_of_the_cell_is_raised_without_a_notice(error):
    calls = []

    def cell(h, x):
        if not calls:
            raise error
        return h, x
    with pytest.raises(type(error)), warnings.catch_warnings():
        warnings.simplefilter("error")
        mg.scan(cell, STATE, XS)


# -- cells that run step by step ----------------------------------------------------------------------------------


def branching(h, x):
    if h[0, 0] > 0:
        return h - x, h
    return h + x, 2.0 * h


def reading_a_value(h, x):
    return h + x * h[0, 0].item(), h


class Noisy:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, h, x):
        return np.tanh(h + x * self.rng.normal(size=h.shape)), h


def unseeded(h, x):
    return h + x * np.random.default_rng().normal(), h


FALLING_BACK = {"branch": (lambda: branching, "branch"), "value": (lambda: reading_a_value, "number"),
                "random numbers": (Noisy, "it changes the random numbers of Noisy.rng"),
                "random numbers without a seed": (lambda: unseeded, "new values at every call")}


@pytest.mark.parametrize("what", FALLING_BACK)
def test_a_cell_that_cannot_be_traced_runs_step_by_step_with_one_notice(what):
    make, why = FALLING_BACK[what]
    x = mg.tensor(XS, requires_grad=True)
    cell = make()
    with pytest.warns(module.ScanNotice, match=f"step by step: .*{why}") as warned:
        results = mg.scan(cell, STATE, x)
    assert len(warned) == 1
    mixed(results).backward()
    ours, x.grad = x.grad, None
    if what != "random numbers without a seed":
        mixed(by_loop(make(), STATE, x)).backward()
        all_close([ours], [x.grad])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mg.scan(cell, STATE, x)
        mg.scan(cell, STATE, XS)


class Moody:
    """A cell that only computes in evaluation; in training it draws, or appends to a list, at each step."""

    def __init__(self, kind):
        self.kind, self.training, self.rng = kind, False, np.random.default_rng(0)
        self.ones, self.log, self.calls = np.ones((3, 2)), [], np.zeros(1)

    def noise(self):
        if not self.training:
            return np.ones((3, 2)) if self.kind == "a new array" else self.ones
        if self.kind in ("its own array", "a new array"):
            return self.rng.normal(size=(3, 2))
        if self.kind == "NumPy's own numbers":
            return np.random.normal(size=(3, 2))
        self.log.append(1)
        self.calls += 1
        return self.ones

    def __call__(self, h, x):
        noise = self.noise()
        h = np.tanh(h * (mg.tensor(noise) if self.kind == "a tensor" else noise) + x)
        return h, h


@pytest.mark.parametrize("kind", ["its own array", "a new array", "NumPy's own numbers", "a tensor",
                                  "a list"])
@pytest.mark.filterwarnings("ignore::minigrad.timeloop.scan.ScanNotice")
def test_new_side_effects_of_a_cell_that_was_pure_are_detected(kind):
    def trained(run):
        cell = Moody(kind)
        for cell.training in (False, False, True):
            np.random.seed(0)
            ys = run(cell, STATE, XS)[1]
        return np.asarray(getattr(ys, "data", ys)), len(cell.log), cell.calls[0]
    ours, theirs = trained(mg.scan), trained(lambda cell, *inputs: module.loop(cell, *inputs, len(XS), False, None))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    assert ours[1:] == theirs[1:]


class DynamicAttributes:
    """Look up every attribute in a dict."""

    def __init__(self):
        self.__dict__["held"] = {"scale": 0.5}

    def __getattr__(self, name):
        return self.held[name]

    def __call__(self, h, x):
        return h + self.scale * x, h


def test_scan_and_derive_read_no_attributes_that_a_cell_does_not_have():
    assert np.allclose(mg.scan(DynamicAttributes(), STATE, XS)[0], STATE + 0.5 * XS.sum(axis=0))
    assert mg.derive(DynamicAttributes(), STATE, XS[0]).name == "DynamicAttributes"


def test_a_notice_points_at_the_call_of_scan():
    with pytest.warns(module.ScanNotice) as warned:
        mg.scan(branching, STATE, XS)
    assert warned[0].filename == __file__


def test_a_gradient_of_a_gradient_has_one_notice():
    cell, _, state, xs = model_of()
    with pytest.warns(module.ScanNotice, match="step by step: a gradient of its gradient") as warned:
        for _ in range(2):
            mg.grad(lambda x: mg.sum(mg.grad(lambda x: mixed(mg.scan(cell, state, x)))(x) ** 2))(xs)
    assert len(warned) == 1


@pytest.mark.parametrize("of", [lambda f, h: mg.hvp(f, h, h), lambda f, h: mg.jvp(f, (h,), (h,)),
                                lambda f, h: mg.hessian(f)(h)], ids=["hvp", "jvp", "hessian"])
@pytest.mark.parametrize("later", [0.5, mg.tensor([0.5]), np.array([0.5])], ids=["number", "tensor", "array"])
@pytest.mark.filterwarnings("ignore::minigrad.timeloop.scan.ScanNotice")
def test_a_cell_that_changed_before_the_gradient_of_its_gradient_is_refused(of, later):
    held = {}

    def final(h, after):
        held["scale"] = later * 4.0
        y = mg.scan(lambda h, x: (h * h * held["scale"] + x, h), h, np.ones((2, 1)))[0].sum()
        held["scale"] = after if after is not None else held["scale"]
        return y
    of(lambda h: final(h, None), np.ones(1))
    with pytest.raises(RuntimeError, match="computes something else now than when scan ran it"):
        of(lambda h: final(h, later), np.ones(1))


# -- arguments that do not fit ------------------------------------------------------------------------------------


WRONG = {
    "one array": (lambda h, x: h, {}, TypeError, r"a cell returns a pair \(state, y\), not one array"),
    "not a function": (None, {}, TypeError, r"a function \(state, x\) → \(state, y\), not a NoneType"),
    "a triple": (lambda h, x: (h, h, h), {}, TypeError, r"a cell returns a pair \(state, y\), not a tuple of 3"),
    "state of another shape": (lambda h, x: (h[:2], x), {}, ValueError, r"\(3, 2\) float64 and returned \(2, 2\)"),
    "state of another dtype": (lambda h, x: (mg.astype(h, dtype=np.float32), x), {}, ValueError, "returned .*float32"),
    "two states for one": (lambda h, x: ((h, h), x), {}, ValueError, "must be the same"),
    "lengths that differ": (branching, {"xs": (XS, XS[:2])}, ValueError,
                            r"one length T ≥ 1: .*xs\[0\] \(4, 3, 2\), xs\[1\] \(2"),
    "no steps": (branching, {"xs": XS[:0]}, ValueError, "one length T ≥ 1"),
    "a number for xs": (branching, {"xs": np.array(1.0)}, ValueError, "one length T ≥ 1"),
    "the steps in a list": (branching, {"xs": list(XS)}, ValueError, r"stack the steps, as in np\.stack\(xs\)"),
    "no xs": (branching, {"xs": ()}, ValueError, "scan needs xs with a time axis"),
    "a mask of one axis": (with_scale, {"mask": np.ones(4)}, ValueError, r"mask has shape \(4,\) .* \(4, batch\)"),
    "a mask of other steps": (with_scale, {"mask": np.ones((3, 2))}, ValueError,
                              r"mask has shape \(3, 2\) .* \(4, batch\)"),
    "a mask of another batch": (lambda h, x: (h + x, x), {"mask": np.ones((4, 5))},
                               ValueError, r"mask has shape \(4, 5\) and state \(3, 2\)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_raise_one_sentence(what):
    cell, options, error, message = WRONG[what]
    options = {"xs": XS, **options}
    for tracked in (False, True):
        with pytest.raises(error, match=message) as problem:
            mg.scan(cell, mg.tensor(STATE, requires_grad=tracked), **options)
        assert "\n" not in str(problem.value) and len(str(problem.value)) < 300


@pytest.mark.parametrize("mask", [mask_for(4, 2), mask_for(4, 2).astype(float), mg.tensor(mask_for(4, 2).astype(float)),
                                  np.zeros((4, 2)), np.ones((4, 2), int)],
                         ids=["bool", "float", "tensor", "zeros", "ones"])
def test_a_mask_of_any_kind(mask):
    cell, weights, state, xs = model_of(steps=4)
    expected = gradients_of(cell, weights, state, xs, by_loop, mask=mask)
    all_close(gradients_of(cell, weights, state, xs, mask=mask), expected)
    if not np.any(mask.data if isinstance(mask, mg.Tensor) else mask):
        final, ys = mg.scan(cell, state, xs, mask=mask)
        all_close([f.detach().numpy() for f in final], state, 0)
        assert not ys.detach().numpy().any()


def test_a_masked_nan_does_not_reach_the_results():
    cell, _, state, xs = model_of(steps=4)
    mask = mask_for(4, 2)
    holes = np.where(mask[:, None], xs, np.nan)
    for ours, theirs in zip(*(flatten(mg.scan(cell, state, x, mask=mask))[0] for x in (holes, xs))):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())


# -- checkpoints ----------------------------------------------------------------------------------------


def checkpointed(every, steps, **options):
    """Return results and gradients of an LSTM over xs (steps, 3, 4), with checkpoint_every=every."""
    rng = np.random.default_rng(0)
    W, b = (mg.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((20, 8), (20, 1)))
    state = [mg.tensor(rng.normal(size=(5, 4)), requires_grad=True) for _ in range(2)]
    x = mg.tensor(rng.normal(size=(steps, 3, 4)), requires_grad=True)

    def cell(state, x):
        a_prev, c_prev = state
        z = W @ mg.concatenate([a_prev, x]) + b
        f, i, o = mg.split(mg.sigmoid(z[:15]), 3)
        c = f * c_prev + i * mg.tanh(z[15:])
        a = o * mg.tanh(c)
        return (a, c), a
    (a, c), y = mg.scan(cell, tuple(state), x, checkpoint_every=every, **options)
    (mg.sum(y * rng.normal(size=y.shape)) + mg.sum(a * c)).backward(retain_graph=True)
    gradients = [leaf.grad for leaf in (W, b, *state, x)]
    (mg.sum(y) * 0.0).backward()  # a second backward through the same checkpoints
    return [y.data, a.data, c.data, *gradients]


@pytest.mark.parametrize("options", [
    {}, {"reverse": True}, {"mask": np.random.default_rng(9).integers(0, 2, (300, 4))}],
                         ids=["plain", "reverse", "mask"])
@pytest.mark.parametrize("every", [1, 7, 128, 150, 299, 300, 1000])
def test_checkpoints_do_not_change_a_bit(every, options):
    for kept, all_kept in zip(checkpointed(every, 300, **options), checkpointed(None, 300, **options)):
        np.testing.assert_array_equal(kept, all_kept)


def test_checkpoints_reduce_memory():
    """Compare the bytes that a scan of 2 000 steps keeps between forward and backward."""
    def held(every):
        x = mg.tensor(np.ones((2000, 4, 16)), requires_grad=True)
        w = mg.tensor(np.ones((32, 4)), requires_grad=True)
        tracemalloc.start()
        try:
            final, _ = mg.scan(lambda h, x: (np.tanh(h + w @ x), ()), np.zeros((32, 16)), x, checkpoint_every=every)
            return tracemalloc.get_traced_memory()[0], final
        finally:
            tracemalloc.stop()
    cache.programs.clear()
    few, _ = held(50)
    cache.programs.clear()
    many, _ = held(None)
    assert few < many / 10


@pytest.mark.parametrize("every", [0, -1, 2.5, "many"])
def test_checkpoint_every_is_a_number_of_steps(every):
    with pytest.raises(ValueError, match="checkpoint_every is a number of steps"):
        mg.scan(with_scale, STATE, XS, checkpoint_every=every)


@pytest.mark.parametrize("mode", ["raise", "wrap", "clip"])
def test_entries_are_taken_at_the_index_of_each_step(mode):
    """And not at that of the trace."""
    table, index = mg.tensor(np.arange(15.0).reshape(3, 5), requires_grad=True), np.array([[0, 1], [4, 2], [3, 3]])
    index = index if mode == "raise" else index * 3 - 4

    def cell(h, i):
        y = mg.take(table, i, axis=1, mode=mode)
        return h + y, y
    _, ys = mg.scan(cell, np.zeros((3, 2)), index)
    assert np.array_equal(ys.data, [np.take(table.data, i, axis=1, mode=mode) for i in index])
