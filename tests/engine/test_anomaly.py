"""detect_anomaly names the op, the tensor, the line and the time step, and is inactive outside its context."""

import inspect

import numpy as np
import pytest

import minigrad as mg
from minigrad.check.faults import CallSites
from minigrad.engine.context import watcher


def leaf(*values, **how):
    return mg.tensor(values, requires_grad=True, dtype=float, **how)


def line_of(function, text):
    """The place in this file of the function's line that contains this text."""
    lines, first = inspect.getsourcelines(function)
    return f"test_anomaly.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def loop(w, make):
    h = w
    for t in range(4):
        h = make(h) if t == 2 else h * 1.5  # here it happens
    return h


def first_step(w, make):
    return make(w)  # here it happens


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, make, found", [
    ("log", lambda h: mg.log(h - h), "-inf at index \\(0,\\)"),
    ("sqrt", lambda h: mg.sqrt(-h), "nan at index \\(0,\\)"),
    ("divide", lambda h: h / (h - h[1]), "-inf|inf at index \\(1,\\)"),
    ("multiply", lambda h: h * np.array([1.0, np.nan]), r"nan at index \(1,\).*its input an array of shape \(2,\)"
                                                       r" already held nan at index \(1,\)"),
])
def test_the_first_nan_or_inf_of_the_forward(name, make, found):
    w = leaf(1.0, 2.0, name="w")
    with pytest.raises(FloatingPointError, match=f"^{name} of tensor.* gave .*{found}.*") as error, mg.detect_anomaly():
        loop(w, make)
    message = str(error.value)
    assert "in the forward pass, at " in message and message.count("t = 2") == 1
    assert ("its inputs were finite" in message) == (name != "multiply")
    with pytest.raises(FloatingPointError, match=r"tensor 'w'|made by") as error, mg.detect_anomaly():
        first_step(w, make)
    assert "t = " not in str(error.value)


def test_the_line_is_the_users():
    w = leaf(1.0, -2.0, name="w")
    with pytest.raises(FloatingPointError) as error, mg.detect_anomaly():
        loop(w, mg.log)
    assert f"{line_of(loop, 'here it happens')} in loop, t = 2" in str(error.value)
    assert "log of tensor of shape (2,), made by multiply gave nan at index (1,)" in str(error.value)


def root_of_square(w):
    h = w * 1.0
    for t in range(3):
        h = mg.sqrt(h * h) if t == 1 else h * 1.0  # infinite slope at 0
    return h.sum()


@pytest.mark.parametrize("run", [lambda w: root_of_square(w).backward(), lambda w: mg.grad(root_of_square)(w.data)])
def test_the_first_nan_or_inf_of_the_backward(run):
    """The forward is finite, the gradient is not: Theano's users saw the cost become NaN a step after its gradient."""
    with pytest.raises(FloatingPointError) as error, mg.detect_anomaly():
        run(leaf(1.0, 0.0, name="w"))
    message = str(error.value)
    assert "the rule of sqrt gave inf at index (1,) in the gradient of tensor" in message
    assert f"in the backward pass of a value computed at {__file__.rpartition('/')[0]}" in message
    assert f"{line_of(root_of_square, 'infinite slope')} in root_of_square, t = 1" in message


def test_a_forward_outside_is_said():
    y = root_of_square(leaf(1.0, 0.0))
    with pytest.raises(FloatingPointError, match="computed outside of detect_anomaly"), mg.detect_anomaly():
        y.backward()


@pytest.fixture
def two():
    """An op with two results, whose rule reads them."""
    @mg.op(dx=lambda g, y: g[0] * y[0] - g[1] * y[1])
    def two(x):
        """(eˣ, e⁻ˣ)"""
        return np.exp(x), np.exp(-x)

    yield two
    del mg.OPS["two"]


@pytest.mark.parametrize("op, build", [
    ("tanh", lambda a, w, two: mg.tanh(w)),
    ("multiply", lambda a, w, two: w * a),
    ("sqrt", lambda a, w, two: mg.sqrt(w)),
    ("two", lambda a, w, two: two(w)[0]),
])
def test_an_array_that_is_changed_in_place_after_the_forward(op, build, two):
    a, w = np.array([1.0, 2.0]), leaf(1.0, 2.0, name="w")
    with mg.detect_anomaly():
        y = build(a, w, two)
        saved = a if op == "multiply" else y.data
        saved[0] = 0.5
        with pytest.raises(RuntimeError, match=rf"array of shape \(2,\) that the backward of {op} needs was changed "
                                               r"in place after the forward, at .*test_anomaly\.py:\d+"):
            y.sum().backward()


def test_an_array_that_no_rule_reads_may_change():
    w = leaf(1.0, 2.0)
    with mg.detect_anomaly():
        y = w * 2.0 + np.ones(2)
        y.data[:] = 7.0
        y.sum().backward()
    assert w.grad.tolist() == [2, 2]


def cell(w):
    h = w
    for t in range(3):
        a, b = mg.split(mg.concatenate([mg.tanh(h), h * t]), 2)
        h = a + b[::-1] + mg.softmax(w)
    return mg.sum(h * h)


def test_inside_results_are_the_same():
    w = np.array([0.3, -1.0, 2.0])
    plain = cell(w), mg.grad(cell)(w), mg.hessian(cell)(w)
    with mg.detect_anomaly():
        watched = cell(mg.tensor(w)).data, mg.grad(cell)(w), mg.hessian(cell)(w)
    for one, other in zip(plain, watched):
        assert np.array_equal(one, other)


def test_as_a_decorator_and_with_repeated_use():
    @mg.detect_anomaly()
    def step(w):
        y = mg.log(w).sum()
        y.backward()
        return y

    assert step(leaf(1.0, 2.0)).item() == pytest.approx(np.log(2))
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=r"test_anomaly\.py:\d+ in step"):
            step(leaf(1.0, -1.0))
        assert watcher.get() is None
    both = mg.detect_anomaly()
    with both, both:
        w = leaf(1.0)
        y = mg.tanh(w)
    assert watcher.get() is None and y.requires_grad


def test_outside_nobody_watches():
    assert watcher.get() is None
    with mg.detect_anomaly():
        assert watcher.get() is not None
    assert watcher.get() is None
    with pytest.warns(RuntimeWarning):
        mg.log(leaf(-1.0))  # NumPy's own warning is back


def test_notes_go_with_their_values():
    """One detect_anomaly around a whole training run does not keep every step of it."""
    watching = mg.detect_anomaly()

    def train():
        for _ in range(3):
            w = leaf(1.0, 2.0)
            mg.tanh(w * 2.0).sum().backward()
            assert len(watching._notes) == 0
        y = mg.tanh(w)
        assert len(watching._notes) == 1
        y.sum().backward(retain_graph=True)
        y.sum().backward()
    with watching:
        train()
        assert not watching._notes


def test_as_a_decorator_of_a_generator_function_it_watches_all_steps_of_the_body_and_nothing_between():
    @mg.detect_anomaly()
    def steps(x):
        w = leaf(1.0, 2.0)
        y = mg.tanh(w * x).sum()
        yield watcher.get()
        x[0] = 3.0
        y.backward()
    x = np.ones(2)
    run = steps(x)
    assert next(run) is not None and watcher.get() is None
    with pytest.raises(RuntimeError, match=r"changed in place.*test_anomaly\.py:\d+ in steps"):
        next(run)
    assert watcher.get() is None


def test_the_line_of_an_op_call_is_the_users(tmp_path):
    """The loop over time may make the call, as for a mask."""
    x = mg.tensor(np.ones((3, 2, 4)), requires_grad=True)
    with CallSites() as sites:
        mg.scan(lambda h, x: (h + x, mg.tanh(h)), np.zeros((2, 4)), x, mask=np.ones((3, 4)), reverse=True)
    assert sites.calls
    assert {call.location.partition(":")[0] for call in sites.calls.values()} == {f"at {__file__}"}
