"""Derived source: equal to the engine for every op, golden texts, and clear errors for untraceable functions."""

import cProfile
import os
import pstats
import subprocess
import sys
import traceback
from pathlib import Path

import derive_cells as cells
import numpy as np
import pytest
from cases import CASES

import minigrad as mg
from minigrad.engine.pytree import flatten, unflatten

GOLDEN = Path(__file__).parent / "golden"
CELLS = cells.examples()


def gradients_like(y, rng, dtype=np.float64):
    return unflatten(y, [rng.normal(size=np.shape(leaf)).astype(dtype) for leaf in flatten(y)[0]])


def assert_equal_trees(ours, theirs, tolerance=1e-12):
    ours, theirs = flatten(ours)[0], flatten(theirs)[0]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 2e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_is_derived_as_the_engine_computes_it(case, dtype, tolerance):
    inputs = case.inputs(dtype=dtype)
    derived = mg.derive(case.ours, *inputs)
    y, cache = derived.forward(*inputs)
    assert_equal_trees(y, case.ours(*inputs), tolerance)
    floats = [i for i, x in enumerate(inputs) if np.asarray(x).dtype.kind == "f"]
    if floats and all(np.asarray(leaf).dtype.kind == "f" for leaf in flatten(y)[0]):
        def of_floats(*values):
            return case.ours(*[values[floats.index(i)] if i in floats else x for i, x in enumerate(inputs)])
        d_y = gradients_like(y, np.random.default_rng(0), dtype)
        _, pull = mg.vjp(of_floats, *[inputs[i] for i in floats])
        assert_equal_trees(derived.backward(d_y, cache), pull(d_y), tolerance)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_the_text_of_a_cell_is_the_golden_one(cell):
    """To accept an intended change, rewrite the golden files: python tests/test_derived.py"""
    file = GOLDEN / f"derived_{cell.__name__}.py"
    assert mg.derive(cell, *CELLS[cell]).source == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_the_text_of_a_cell_stands_alone_and_is_right(cell):
    args = CELLS[cell]
    alone = {}
    exec((GOLDEN / f"derived_{cell.__name__}.py").read_text(encoding="utf-8"), alone)
    y, cache = alone["forward"](*args)
    expected, pull = mg.vjp(cell, *args)
    d_y = gradients_like(y, np.random.default_rng(1))
    assert_equal_trees(y, expected)
    assert_equal_trees(alone["backward"](d_y, cache), pull(d_y))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_the_cache_has_names(cell):
    """The names are those in the line of the backward that unpacks the cache."""
    derived = mg.derive(cell, *CELLS[cell])
    _, cache = derived.forward(*CELLS[cell])
    assert len(derived.cache_names) == len(cache)
    assert f"    ({', '.join(derived.cache_names)}) = cache\n" in derived.source


@pytest.mark.parametrize("cell", [cells.document, cells.lstm_layer], ids=lambda cell: cell.__name__)
def test_same_function_same_bytes_in_another_process(cell):
    code = ("import sys; sys.path.insert(0, 'tests')\nimport minigrad as mg\nimport derive_cells as cells\n"
            f"cell = cells.{cell.__name__}\nprint(mg.derive(cell, *cells.examples()[cell]).source, end='')")
    texts = {subprocess.run([sys.executable, "-c", code], cwd=GOLDEN.parents[1], capture_output=True, check=True,
                            env={**os.environ, "PYTHONHASHSEED": seed}).stdout.replace(b"\r\n", b"\n")
             for seed in ("0", "1")}
    assert texts == {(GOLDEN / f"derived_{cell.__name__}.py").read_bytes()}


def test_nothing_is_computed_twice_and_nothing_for_nothing():
    def f(x, y):
        mg.exp(y)  # unused
        return mg.tanh(x) * mg.tanh(x) + (x - x * 1.0)
    source = mg.derive(f, np.ones(3), np.ones(3)).source
    assert source.count("np.tanh") == 2  # the forward line, and the comment that quotes it
    assert "exp" not in source and "* 1.0" not in source
    assert "np.zeros(y.shape, np.float64)" in source.splitlines()[-1]  # d_y


def test_tensors_that_are_closed_over_become_arguments():
    class Model:
        def __init__(self):
            self.weight = mg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)

        def __call__(self, x):
            return np.tanh(self.weight @ x + offset)
    offset = mg.tensor([0.5, -0.5], requires_grad=True)
    model, x = Model(), np.array([0.1, 0.2])
    derived = mg.derive(model, x)
    assert "def forward(x, weight, offset):" in derived.source
    _, cache = derived.forward(x)
    model(mg.tensor(x)).backward(np.ones(2))
    _, d_weight, d_offset = derived.backward(np.ones(2), cache)
    assert_equal_trees((d_weight, d_offset), (model.weight.grad, offset.grad))
    model.weight.data = np.zeros((2, 2))  # its value at the time of the call counts
    assert_equal_trees(derived.forward(x)[0], np.tanh(offset.data))


def test_nested_arguments_and_results_keep_their_nesting():
    def f(state, scale):
        h, (c, _) = state["h"], state["rest"]
        return {"sum": h + c * scale, "both": (h * c, h)}
    args = {"h": np.ones(3), "rest": (np.full(3, 2.0), np.zeros(2))}, 3.0
    derived = mg.derive(f, *args)
    y, cache = derived.forward(*args)
    expected, pull = mg.vjp(f, *args)
    d_y = gradients_like(y, np.random.default_rng(0))
    assert_equal_trees(y, expected)
    d_args = derived.backward(d_y, cache)
    assert set(d_args[0]) == {"h", "rest"} and len(d_args[0]["rest"]) == 2
    assert_equal_trees(d_args, pull(d_y))


def test_integers_and_flags_are_constants_of_the_program():
    derived = mg.derive(lambda x, n, twice: x ** n * (2.0 if twice else 1.0), np.array([2.0, 3.0]), 3, True)
    y, cache = derived.forward(np.array([2.0, 3.0]), 3, True)
    assert_equal_trees(y, np.array([16.0, 54.0]))
    assert_equal_trees(derived.backward(np.ones(2), cache), (np.array([24.0, 54.0]),))


def test_detach_stops_the_gradient_and_stays_in_the_program():
    derived = mg.derive(lambda x: x * x.detach(), np.array([2.0]))
    y, cache = derived.forward(np.array([3.0]))
    assert y[0] == 9.0 and derived.backward(np.ones(1), cache)[0][0] == 3.0


def branch(x):
    if x[0] > 0:
        return x
    return -x


@pytest.mark.parametrize("f, what", [
    (branch, "branch"), (lambda x: x * float(x[0]), "number"), (lambda x: x * x.item(), "number"),
    (lambda x: np.asarray(x) * x, "array"), (lambda x: x * x.data, "values"), (lambda x: x[np.argmax(x)], "array"),
    (lambda x: x if np.any(x > 0) else -x, "array"), (lambda x: x[mg.sign(x)], "array"),
    (lambda x: next(v for v in x if v > 0), "branch"), (lambda x: mg.tensor(f"{x[0]:.2f}"), "value"),
], ids=["branch", "float", "item", "asarray", "data", "argmax index", "np.any", "mask index", "iteration", "format"])
def test_an_untraceable_function_gets_its_line_and_an_alternative(f, what):
    says = rf"{what}.* at .*test_derived.py:\d+ in .*values are unknown.*eager engine"
    with pytest.raises(mg.TraceError, match=says):
        mg.derive(f, np.array([1.0, 2.0]))
    assert sys.getprofile() is None


def test_a_missing_attribute_is_refused_with_the_line():
    with pytest.raises(mg.TraceError, match=r"a tensor has no attribute 'sort'; it was asked for at .*derived.py:\d+"):
        mg.derive(lambda x: x.sort(), np.ones(2))
    assert mg.derive(lambda x: x * hasattr(x, "sort") + hasattr(x, "__len__"), np.ones(2))


def test_numpy_functions_without_an_op_are_refused_as_in_eager_mode():
    with pytest.raises(TypeError, match=r"np\.tan has no op"):
        mg.derive(lambda x: np.tan(x), np.ones(2))


def test_tracebacks_show_the_line_of_the_derived_text():
    derived = mg.derive(cells.rnn, *CELLS[cells.rnn])
    x, h_prev, *weights = CELLS[cells.rnn]
    try:
        derived.forward(x[:2], h_prev, *weights)
    except ValueError:
        assert "h = np.tanh(Wx @ x + Wh @ h_prev + b)" in traceback.format_exc()
    else:
        raise AssertionError("shapes that do not fit went through")


def test_a_running_profiler_is_put_back():
    def profiler(*_):
        pass
    sys.setprofile(profiler)
    try:
        mg.derive(cells.rnn, *CELLS[cells.rnn])
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_a_function_is_derived_under_cprofile():
    profile = cProfile.Profile()
    profile.enable()
    try:
        mg.derive(cells.rnn, *CELLS[cells.rnn])
        after()
    finally:
        profile.disable()
    assert any(name == "after" for _, _, name in pstats.Stats(profile).stats)  # and goes on being profiled


def after():
    pass


def test_a_detached_weight_is_read_anew_at_every_call():
    w = mg.tensor([2.0], requires_grad=True)
    derived = mg.derive(lambda x: x * w.detach() + w, np.ones(1))
    w.data = np.array([5.0])
    y, cache = derived.forward(np.ones(1))
    assert y.tolist() == [10.0]
    assert [d.tolist() for d in derived.backward(np.ones(1), cache)] == [[5.0], [1.0]]


def test_only_a_cell_has_planned_source():
    with pytest.raises(ValueError, match=r"rnn is not a cell.*\(state, x\) → \(state, y\)"):
        mg.derive(cells.rnn, *CELLS[cells.rnn]).planned_source  # noqa: B018


# -- the text at other sizes than it was derived at --------------------------------------------------------------


def in_other_sizes(n_x=2, n_a=7, m=3, n_y=6, T=4):
    rng = np.random.default_rng(2)

    def array(*shape):
        return rng.normal(size=shape)
    x, h, c = array(n_x, m), array(n_a, m), array(n_a, m)
    parameters = {}
    for gate in "fico":
        parameters |= {f"W{gate}": array(n_a, n_a + n_x), f"b{gate}": array(n_a, 1)}
    parameters |= {"Wy": array(n_y, n_a), "by": array(n_y, 1)}
    W, b = array(4 * n_a, n_a + n_x), array(4 * n_a, 1)
    return {cells.rnn: (x, h, array(n_a, n_x), array(n_a, n_a), array(n_a, 1)),
            cells.gru: (x, h, array(3 * n_a, n_x), array(3 * n_a, n_a), array(3 * n_a, 1)),
            cells.lstm: (x, h, c, W, b), cells.lstm_layer: (array(T, n_x, m), h, c, W, b),
            cells.document: (x, h, c, parameters)}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_the_text_of_a_cell_is_right_at_other_sizes(cell):
    args, module = in_other_sizes()[cell], {}
    exec(mg.derive(cell, *CELLS[cell]).source, module)
    y, cache = module["forward"](*args)
    expected, pull = mg.vjp(cell, *args)
    d_y = gradients_like(y, np.random.default_rng(1))
    assert_equal_trees(y, expected)
    assert_equal_trees(module["backward"](d_y, cache), pull(d_y))


def test_two_sizes_that_are_equal_by_chance_stay_two():
    def f(x, h):
        return np.concatenate([h, x])[:h.shape[0]] * 2.0, np.concatenate([h, x])[:x.shape[0]] * 3.0
    module = {}
    exec(mg.derive(f, np.ones(3), np.ones(3)).source, module)
    x, h = np.arange(2.0), np.arange(4.0)
    (a, b), _ = module["forward"](x, h)
    assert_equal_trees((a, b), f(x, h))


def test_the_backward_reads_sizes_from_cached_values():
    def f(x, W):
        n = x.shape[0]
        y = np.tanh(np.concatenate([x, W @ x]))
        return y[:n] * y[n:]
    derived = mg.derive(f, np.ones((3, 2)), np.ones((3, 3)))
    assert derived.source.count("n = x.shape[0]") == 2  # x is in the cache for the gradient of W
    derived = mg.derive(lambda x, y: np.concatenate([x, y]) * 2.0, np.ones(3), np.ones(4))
    assert derived.cache_names == ("x",)
    derived = mg.derive(lambda x, y: np.concatenate([np.tanh(x), y]) * 2.0, np.ones(3), np.ones(4))
    assert derived.cache_names == ("tanh_x",)
    module, (x, y) = {}, (np.arange(2.0), np.arange(5.0))
    exec(derived.source, module)
    _, cache = module["forward"](x, y)
    d_x, d_y = module["backward"](np.ones(7), cache)
    assert_equal_trees((d_x, d_y), (2 * (1 - np.tanh(x) ** 2), np.full(5, 2.0)))


@pytest.mark.parametrize("f, lines", [
    (lambda x: x[1:], ["d_x = np.zeros(x.shape, np.float64)", "d_x[1:] += d_output"]),
    (lambda x: x[1:] * x[:-1], ["d_x[:-1] += d_output * x[1:]", "d_x[1:] += d_output * x[:-1]"]),
    (lambda x: x[[0, 2, 0]], ["np.add.at(d_x, np.array([0, 2, 0], np.int64), d_output)"]),
    (lambda x: x[:, [1, 1]], ["np.add.at(d_x, np.s_[:, np.array([1, 1], np.int64)], d_output)"]),
    (lambda x: x[2, 1:], ["d_x[2, 1:] += d_output"]),
    (lambda x: x[1:] + np.sum(x[0] * x[1]), ["d_x[0] += ", "d_x[1] += ", "d_x[1:] += d_output"]),
    (lambda x: x[1:][:1], ["[:1] += d_output", "d_x[1:] += "]),
    (lambda x: np.tanh(x)[1:] * x[1:], ["d_tanh_x[1:] += d_output * x[1:]"]),
    (lambda x: mg.grad(lambda z: np.sum(z[1:] ** 3))(x), ["[1:] += "]),
], ids=["slice", "two slices", "indices", "indices of columns", "row", "three", "slice of a slice", "in a sum",
        "of a gradient"])
def test_the_gradient_of_an_index_is_added_into_zeros(f, lines):
    derived, x = mg.derive(f, np.ones((3, 4))), np.random.default_rng(0).normal(size=(3, 4))
    for line in lines:
        assert line in derived.source
    assert "scatter" not in derived.source
    y, cache = derived.forward(x)
    d_y = gradients_like(y, np.random.default_rng(1))
    assert_equal_trees(derived.backward(d_y, cache), mg.vjp(f, x)[1](d_y), tolerance=0)


def test_a_row_of_a_weight_is_read_once_for_all_steps():
    w = mg.tensor(np.ones((3, 2)), requires_grad=True)
    derived = mg.derive(lambda h, xs: mg.scan(lambda h, x: (np.tanh(h * w[1] + x), h), h, xs), np.ones(2),
                        np.ones((4, 2)))
    assert derived.source.count("d_w[1] += d_getitem_w\n    return") == 1


def test_a_split_behind_the_end_has_empty_parts():
    derived, x = mg.derive(lambda x: np.split(x * 2.0, [1, 4])[0] * 3.0, np.ones((0, 2))), np.ones((0, 2))
    y, cache = derived.forward(x)
    assert y.shape == (0, 2) and derived.backward(y, cache)[0].shape == (0, 2)
    derived = mg.derive(lambda x: np.broadcast_to(np.split(x, [4])[1], (2, 0)), np.ones(3))
    assert derived.forward(np.ones(3))[0].shape == (2, 0)


def test_a_mean_divides_by_the_size_at_hand():
    module = {}
    exec(mg.derive(lambda x: np.mean(x * x), np.ones((3, 4))).source, module)
    x = np.arange(10.0).reshape(2, 5)
    y, cache = module["forward"](x)
    assert_equal_trees((y, module["backward"](1.0, cache)), (np.mean(x * x), (2 * x / 10,)))


@pytest.mark.parametrize("logistic", [
    lambda z: 1 / (1 + np.exp(-z)), lambda z: 1.0 / (np.exp(-z) + 1.0), lambda z: (1 + np.exp(-z)) ** -1,
    lambda z: 1 / (1 + np.exp(-1.0 * z)),
], ids=["quotient", "other order", "power", "times -1"])
def test_a_hand_written_logistic_has_the_gradient_of_sigmoid(logistic):
    def cell(x):
        z = 2.0 * x
        a = logistic(z)
        return a
    derived, x = mg.derive(cell, np.ones(5)), np.array([-400.0, -1.0, 0.0, 1.0, 400.0])
    assert "d_a * a * (1.0 - a)" in derived.source and "np.exp(" in derived.source
    with np.errstate(over="ignore"):
        _, cache = derived.forward(x)
    (d_x,) = derived.backward(np.ones(5), cache)
    assert d_x[0] == d_x[4] == 0.0
    assert_equal_trees(d_x[1:4], mg.vjp(cell, x[1:4])[1](np.ones(3))[0])


def test_a_gradient_that_a_bias_shares_has_the_name_of_the_line():
    def cell(x, W, b):
        h = np.tanh(W @ x + b)
        return h
    source = mg.derive(cell, np.ones((3, 1)), np.ones((5, 3)), np.ones((5, 1))).source
    assert "d_h_in = d_h * (1.0 - h * h)" in source and "d_b = d_h_in" in source


def test_filling_an_array_is_refused_with_what_to_write_instead():
    def f(x):
        y = np.zeros((4, 2))
        y[:2, :] = x
        return x * y
    with pytest.raises(mg.TraceError, match=r"array.*test_derived.py:\d+.*np\.concatenate.*mg\.stack"):
        mg.derive(f, np.ones((2, 2)))


if __name__ == "__main__":
    for golden_cell, golden_args in CELLS.items():
        (GOLDEN / f"derived_{golden_cell.__name__}.py").write_text(
            mg.derive(golden_cell, *golden_args).source, encoding="utf-8")
