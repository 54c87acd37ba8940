"""`gradcheck`: its inputs, its verdicts, its messages.

test_gradcheck_faults.py shows that it finds and names a fault in any rule of any op.
"""

from __future__ import annotations

import collections
from collections.abc import Callable

import numpy as np
import pytest

import minigrad as mg
from minigrad.engine.op import OPS

rng = np.random.default_rng(0)
x23, x3 = rng.normal(size=(2, 3)), rng.normal(size=3)


@pytest.fixture
def op():
    """@op for ops that are removed after the test."""
    before = dict(OPS)
    yield mg.op
    OPS.clear()
    OPS.update(before)


def wrong(f, *inputs, **how):
    """The error of a check that must fail."""
    with pytest.raises(mg.GradcheckError) as error:
        mg.gradcheck(f, *inputs, **how)
    return error.value


# -- inputs and results --------------------------------------------------------------------------------------

cut: Callable = np.array  # read by the rules of faulty ops, set by their tests
fault: np.ndarray = np.ones(1)


State = collections.namedtuple("State", "h c")


def test_inputs_and_results_are_any_nesting():
    def f(p, state, k, mode=None):
        h = mg.tanh(p["W"] @ state.h + p["b"][0]) * k
        return {"h": h, "c": (state.c * h, [mg.sum(h)]), "count": 3}

    p = {"W": x23, "b": [mg.tensor(0.1)]}
    report = mg.gradcheck(f, p, State(x3, 2.0), 3, "mode", order=2)
    assert report.ok and report.method == "complex step" and report.worst.error < 1e-12
    assert [(row.order, row.name, row.shape, row.checked) for row in report.rows] == [
        (order, *row) for order in (1, 2)
        for row in [("p.W", (2, 3), "6 entries"), ("p.b[0]", (), "1 entries"), ("state.h", (3,), "3 entries"),
                    ("state.c", (), "1 entries")]]


def test_inputs_other_than_floats_are_passed_unchanged():
    def f(x, index, mask, tensor, text, function):
        assert index.dtype == int and mask.dtype == bool and isinstance(tensor, mg.Tensor)
        assert (text, function) == ("mean", np.tanh)
        return mg.where(mask, x[index], 0.0) * tensor

    mask, whole = np.array([True, True, False]), mg.tensor([1, 2, 3])
    report = mg.gradcheck(f, x3, np.array([2, 0, 0]), mask, whole, "mean", np.tanh)
    assert [row.name for row in report.rows] == ["x"]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_shapes_at_the_edge(shape):
    report = mg.gradcheck(lambda x: (mg.tanh(x), mg.sum(x * x)), np.full(shape, 0.5), order=2)
    assert report.ok and report.rows[0].shape == shape and str(report)


def test_arguments_without_names():
    assert mg.gradcheck(lambda *args: args[0] * args[1], x3, x3).rows[1].name == "args[1]"
    assert mg.gradcheck(np.tanh, x3).rows[0].name in ("x", "input 0")


class Model:
    """Like a Module: parameters by name."""

    def __init__(self):
        self.W = mg.tensor(x23, requires_grad=True, dtype=np.float32)
        self.b = mg.tensor(np.zeros((2,)), requires_grad=True)
        self.fail = False

    def named_parameters(self):
        yield "layer.W", self.W
        yield "layer.b", self.b

    def forward(self, x):
        if self.fail:
            raise ZeroDivisionError
        return mg.sigmoid(self.W @ x + self.b)

    __call__ = forward


@pytest.mark.parametrize("face", [lambda model: model, lambda model: model.forward])
def test_a_module_is_checked_with_its_parameters(face):
    model = Model()
    data = model.W.data, model.b.data
    report = mg.gradcheck(face(model), x3, order=2)
    assert [row.name for row in report.rows][:3] == ["x", "layer.W", "layer.b"]
    assert report.rounding is not None and model.W.data is data[0] and model.b.data is data[1]
    assert model.W.dtype == np.float32 and model.W.grad is None


def test_leaves_that_f_closes_over_are_checked_and_named():
    named, nameless = mg.tensor(x3, requires_grad=True, name="gain"), mg.tensor(x3, requires_grad=True)
    constant = mg.tensor(x3)
    report = mg.gradcheck(lambda x: named * x * nameless + constant, x3)
    assert [row.name for row in report.rows] == ["x", "gain", "parameter 1"]
    assert [row.name for row in mg.gradcheck(lambda: named * nameless).rows] == ["gain", "parameter 1"]


def test_a_parameter_that_is_used_past_the_engine_is_found():
    model = Model()
    model.forward = None
    model.__class__ = type("Detached", (Model,), {"__call__": lambda self, x: mg.tanh(self.W @ x + self.b.detach())})
    assert "the gradient of layer.b[" in str(wrong(model, x3))
    assert "the gradient of x[" in str(wrong(lambda x: x * x.detach(), x3))


def test_inputs_and_parameters_keep_their_values():
    model, x = Model(), x3.astype(np.float32)
    t = mg.tensor(x3, requires_grad=True)
    before = model.W.data, model.W.data.copy(), x.copy(), t.data
    mg.gradcheck(lambda x, t: model(x) * mg.sum(t), x, t)
    calls = 0

    def stumbling(x, t):
        nonlocal calls
        calls += 1
        model.fail = calls > 5
        return model(x) * mg.sum(t)

    with pytest.raises(ZeroDivisionError):
        mg.gradcheck(stumbling, x, t)
    assert calls > 5
    assert model.W.data is before[0] and np.array_equal(model.W.data, before[1]) and np.array_equal(x, before[2])
    assert t.data is before[3] and t.grad is None and model.W.grad is None and mg.tanh(t).requires_grad


def test_inside_no_grad_and_under_raised_errors():
    with mg.no_grad(), np.errstate(all="raise"):
        assert mg.gradcheck(mg.sigmoid, np.array([800.0, -800.0, 0.0]), order=2).ok
        assert not mg.tanh(mg.tensor(1.0, requires_grad=True)).requires_grad


# -- complex step or central differences ------------------------------------------------------------------


def test_central_differences_replace_the_complex_step_where_it_fails(op):
    assert mg.gradcheck(mg.tanh, x3).method == "complex step"
    report = mg.gradcheck(lambda x: mg.abs(x) * x, x3, order=2)
    assert report.ok and (report.method, report.why) == ("central differences", "abs does not take the complex step")

    @op(dx=lambda g, x: g * mg.cos(x))
    def real_sine(x):
        """sin of the real part, which drops the imaginary part silently"""
        return np.sin(np.real(x))

    @op(dx=lambda g, x: g * mg.cos(x))
    def casting_sine(x):
        """sin as float64: NumPy warns"""
        return np.sin(np.asarray(x).astype(np.float64))

    @op(dx=lambda g, x: g * mg.cos(x))
    def raising_sine(x):
        """sin of real numbers"""
        if np.iscomplexobj(x):
            raise NotImplementedError("real numbers only")
        return np.sin(x)

    for sine, why in ((real_sine, "does not see all of f"), (casting_sine, "does not take complex numbers"),
                      (raising_sine, "does not take complex numbers: real numbers only")):
        report = mg.gradcheck(lambda x, sine=sine: sine(x) + mg.exp(x) * sine(x)[0], x3, order=2)
        assert report.ok and report.method == "central differences" and why in report.why
        assert report.tolerance == 1e-6 and report.worst.error < 1e-8
        error = wrong(lambda x, sine=sine: sine(x), x3, method="complex")
        assert "the complex step cannot be used: " in str(error) and "use method='central'" in str(error)


def test_a_method_can_be_asked_for():
    assert mg.gradcheck(mg.tanh, x3, method="central").method == "central differences"
    assert mg.gradcheck(mg.tanh, x3, method="complex", tolerance=1e-13).tolerance == 1e-13


def test_complex_inputs_go_by_central_differences():
    report = mg.gradcheck(lambda z: mg.exp(z) * z, np.array([1.0 + 2.0j, 0.5j]))
    assert report.ok and report.why == "the inputs are complex"


def test_float32_is_checked_in_float64_and_its_rounding_told():
    report = mg.gradcheck(lambda W, x: mg.softmax(mg.tanh(W @ x)), x23.astype(np.float32), x3)
    assert report.worst.error < 1e-12 and 1e-9 < report.rounding < 1e-5
    assert f"float32 rounding of the gradient: {report.rounding:.1e}" in str(report)
    assert mg.gradcheck(mg.tanh, x3).rounding is None


# -- wrong gradients ----------------------------------------------------------------------------------------


@pytest.fixture
def faulty(op):
    """tanh with a rule that is off by a thousandth."""
    @op(dx=lambda g, y: 1.001 * g * (1.0 - y * y))
    def faulty(x):
        """tanh x"""
        return np.tanh(x)
    return faulty


@pytest.mark.parametrize("method", ["auto", "central"])
@pytest.mark.parametrize("order", [1, 2])
def test_the_report_names_parameter_index_values_and_rule(faulty, method, order):
    error = wrong(lambda good, bad: mg.tanh(good) + faulty(bad), x3, x23, method=method, order=order)
    row = error.report.worst
    assert row.name == "bad" and row.error == pytest.approx(1e-3, rel=0.3) and len(row.index) == 2
    assert row.derived == pytest.approx(1.001 * row.numeric, rel=1e-5) or row.order == 2
    assert not error.report.ok and error.report.blamed[0][0] == "faulty.dx"
    assert error.report.blamed[0][1] == pytest.approx(1e-3, rel=0.1) and len(error.report.blamed) == 1
    text = str(error)
    assert text.startswith(f"the gradient of bad{list(row.index)} is wrong: derived {row.derived:.10g}, numeric ")
    assert "FAILED" in text and "the rule faulty.dx is wrong: off by 1.0e-03 in a separate check" in text
    assert isinstance(error, AssertionError)


def test_a_fault_of_second_order_only(op, monkeypatch):
    """The rule gives the right numbers, but its own derivative is cut."""
    @op()
    def constant_of(x):
        """x, without a rule"""
        return np.array(x)

    monkeypatch.setitem(globals(), "cut", constant_of)  # a rule captures nothing, so it finds this as a global

    @op(dx=lambda g, x: g * mg.cos(cut(x)))
    def sine(x):
        """sin x"""
        return np.sin(x)

    assert mg.gradcheck(sine, x3).ok
    error = wrong(sine, x3, order=2)
    assert [row.verdict for row in error.report.rows] == ["ok", "wrong"] and error.report.worst.order == 2
    assert "FAILED" in str(error)


def test_a_rule_that_ignores_g(op):
    """A rule that returns a number, not a tensor, is reported as wrong, at any order."""
    @op(dx=lambda g: 2.0)
    def twice(x):
        """2 x"""
        return 2.0 * x

    for order in (1, 2):
        error = wrong(twice, 3.0, order=order)
        assert error.report.blamed[0][0] == "twice.dx" and error.report.worst.order == 1


@pytest.mark.parametrize("method", ["complex", "central"])
def test_one_wrong_entry_of_a_large_input_is_found(op, monkeypatch, method):
    @op(dx=lambda g, x: 2.0 * g * x * fault)
    def square_of(x):
        """x²"""
        return x * x

    big, place = np.random.default_rng(3).normal(size=(60, 50)), (37, 21)
    monkeypatch.setitem(globals(), "fault", np.ones(big.shape))
    report = mg.gradcheck(square_of, big, method=method)
    assert report.ok and report.rows[0].checked == "8 directions" and report.rows[0].index is None
    fault[place] = 1.001
    big[place] = 1.0
    error = wrong(square_of, big, method=method)
    assert error.report.worst.index == place and error.report.worst.derived == pytest.approx(
        1.001 * error.report.worst.numeric)


def test_all_entries_or_directions():
    x = rng.normal(size=(10, 10))
    assert mg.gradcheck(mg.tanh, x, max_entries=100).rows[0].checked == "100 entries"
    assert mg.gradcheck(mg.tanh, x, directions=3).rows[0].checked == "3 directions"
    one, other = (mg.gradcheck(mg.tanh, x, rng=seed) for seed in (1, np.random.default_rng(1)))
    assert str(one) == str(other)


def test_a_small_entry_beside_large_ones_is_not_lost():
    scale = np.array([1e6, 1.0, 1e-3])
    report = mg.gradcheck(lambda x: mg.sum(mg.sin(x) * scale), x3)
    assert report.ok and report.worst.error < 1e-10


@pytest.mark.parametrize("f, x, index, message", [
    (lambda x: mg.relu(x), [1.0, 0.0], (1,), "not differentiable here, its slope"),
    (lambda x: mg.maximum(x, 0.0) + mg.relu(x), [1.0, 0.0], (1,), "not differentiable here, its slope"),
    (lambda x: mg.abs(x) + mg.relu(x), [0.0, 2.0], (0,), "not differentiable here, its slope"),
    (lambda x: mg.sqrt(x), [1.0, 0.0], (1,), "not finite here"),
    (lambda x: mg.sqrt(mg.var(x)), [1.0, 1.0], (0,), "not finite here"),
])
def test_kinks_are_not_blamed_on_a_rule(f, x, index, message):
    report = mg.gradcheck(f, np.array(x), raise_error=False)
    assert not report.ok and report.worst.index == index and report.worst.verdict.startswith(message)
    assert not report.blamed
    assert f"is {report.worst.verdict}" in str(wrong(f, np.array(x)))


def test_a_kink_of_the_second_derivative():
    def f(x):
        return mg.relu(x) * x
    assert mg.gradcheck(f, np.array([0.0, 1.0])).ok
    report = mg.gradcheck(f, np.array([0.0, 1.0]), order=2, raise_error=False)
    assert (report.worst.order, report.worst.index) == (2, (0,)) and "not differentiable" in report.worst.verdict


counter = iter(range(10 ** 9))


@pytest.mark.parametrize("f, message", [
    (lambda x: x * np.random.default_rng(next(counter)).normal(size=3), "not deterministic.*seed its randomness"),
    (lambda x: mg.tensor(np.random.default_rng(next(counter)).normal(size=(3, 3))) @ x, "build modules outside of it"),
    (lambda x: [x] * (2 + next(counter) % 2), "not deterministic"),
    (lambda x: x[:1 + next(counter) % 2], "not deterministic"),
    (lambda x: x.detach() * 2.0, "do not depend on any input through recorded ops"),
    (lambda x: np.ones(3), "do not depend on any input"),
    (lambda x: x > 0, "do not depend on any input"),
    (lambda x: mg.log(x - 100.0), "f is not finite at these inputs"),
    (lambda x: mg.exp(x + 1000.0), "f is not finite at these inputs"),
])
@pytest.mark.parametrize("method", ["auto", "central"])
def test_a_function_that_cannot_be_checked_raises(f, message, method):
    with pytest.raises(mg.GradcheckError, match=message) as error:
        mg.gradcheck(f, x3, raise_error=False, method=method)
    assert error.value.report is None


def test_nothing_to_check():
    for inputs in ((), (3,), (np.arange(3),), ("text", None)):
        with pytest.raises(mg.GradcheckError, match="there is nothing to check: no input is a float"):
            mg.gradcheck(lambda *args: mg.tensor(1.0), *inputs)


@pytest.mark.parametrize("how, message", [
    ({"order": 3}, "order is 1 or 2, not 3"), ({"order": 0}, "order is 1 or 2"),
    ({"method": "numeric"}, "method is 'auto', 'complex' or 'central', not 'numeric'"),
])
def test_bad_arguments(how, message):
    with pytest.raises(ValueError, match=message):
        mg.gradcheck(mg.tanh, x3, **how)


def test_a_stateful_function_is_caught():
    """Hidden state carried from call to call would make the numeric side that of another function."""
    state = [np.zeros(3)]

    def f(x):
        h = mg.tanh(x + state[0])
        state[0] = h.detach().numpy()
        return h

    assert "reset any state it keeps" in str(wrong(f, x3))


# -- the report ---------------------------------------------------------------------------------------------


def test_the_table():
    report = mg.gradcheck(lambda W, x: W @ x, np.eye(2), np.array([1.0, 2.0]), order=2)
    lines = str(report).splitlines()
    assert lines[0].split() == ["order", "input", "shape", "checked", "worst", "error", "at", "derived", "numeric"]
    assert [line.split()[:2] for line in lines[1:5]] == [["1", "W"], ["1", "x"], ["2", "W"], ["2", "x"]]
    assert all(line.endswith("ok") for line in lines[1:5])
    assert lines[5].startswith("complex step, tolerance 1e-09, margin ") and lines[5].endswith(": passed")
    assert len(lines) == 6 and max(map(len, lines)) <= 120
    assert "–" in str(mg.gradcheck(mg.tanh, np.zeros((0,)) + x3[:0]))


def test_raise_error_false_gives_the_report(faulty):
    report = mg.gradcheck(faulty, x3, raise_error=False)
    assert not report.ok and report.worst.verdict == "wrong" and "FAILED" in str(report)


def test_the_work_is_bounded(faulty):
    """A check of a large input takes some dozens of evaluations, not one for each entry, even if it fails."""
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return faulty(x)

    for method, most in (("complex", 80), ("central", 800)):
        calls = 0
        wrong(f, np.random.default_rng(0).normal(size=(1000, 100)), method=method)
        assert calls < most
