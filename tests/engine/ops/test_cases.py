"""Properties of every op: each test runs on every row of `cases.py`."""

import gc
import weakref

import numpy as np
import pytest
from cases import BEYOND_FLOATS, CASES, PREDICATES, REAL_ONLY, WITHOUT_GRADIENT

import minigrad as mg
from minigrad.check.faults import CallSites, nodes_behind
from minigrad.engine.backward import data_of
from minigrad.engine.op import OPS
from minigrad.engine.tensor import Tensor, wrap

every = pytest.mark.parametrize("case", CASES, ids=str)
differentiable = pytest.mark.parametrize("case", [c for c in CASES if c.differentiable], ids=str)


def leaves(arrays):
    """The arrays as tensors, not copied: the op sees their strides."""
    return [wrap(x, tracked=x.dtype.kind in "fc") for x in arrays]


def results(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


def weighted(ys):
    """Σ u y with fixed random numbers u: its gradient contains every entry of the Jacobian with its own weight."""
    rng = np.random.default_rng(11)
    terms = [mg.sum(y * rng.uniform(0.5, 1.5, y.shape).astype(np.float32)) for y in ys]
    return sum(terms[1:], terms[0])


def gradients(f, arrays):
    """The gradient of Σ u f(arrays) for each float input."""
    inputs = leaves(arrays)
    weighted(results(f(*inputs))).backward()
    return [x.grad for x in inputs if x.requires_grad]


def values(y):
    return [part.data if isinstance(part, Tensor) else part for part in results(y)]


def assert_same(found, expected, rtol=1e-12, atol=1e-14):
    """Assert equal values, shapes and dtypes."""
    found, expected = values(found), values(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# -- the table is complete --------------------------------------------------------------------------------


def test_every_op_and_every_composite_has_a_row():
    own = {name for name, op in OPS.items() if op.forward.__module__.startswith("minigrad.")}
    assert (own | set(mg.ops.__all__)) - {case.name for case in CASES} == set()


def test_every_rule_is_reached_by_a_row():
    """Every argument with a rule is an array in some row of its op: so each rule is checked separately."""
    reached = set()
    for case in CASES:
        if case.differentiable:
            for node in nodes_behind([y for y in results(case.ours(*leaves(case.inputs()))) if y._tracked]):
                reached |= {(node._op.name, i) for i, x in enumerate(node._inputs)
                            if node._mask >> i & 1 and np.prod(x.shape)}
    missing = [(name, op.arrays[vjp.position]) for name, op in OPS.items() for vjp in op.vjps
               if (name, vjp.position) not in reached and op.forward.__module__.startswith("minigrad.")]
    assert missing == []


def test_ops_without_a_gradient_are_those_named():
    without = {name for name, op in OPS.items() if not op.rules and op.forward.__module__.startswith("minigrad.")}
    assert without == WITHOUT_GRADIENT


# -- values ----------------------------------------------------------------------------------------------


@every
def test_value_is_numpys(case):
    assert_numpys(case, np.float64, 1e-12)
    assert_numpys(case, np.float32, 1e-4)
    if case.name != "astype":  # a complex number does not become a real one without a warning
        assert_numpys(case, np.complex128, 1e-12)


@every
def test_value_is_numpys_for_other_number_types(case):
    assert_numpys(case, np.int64, 1e-12)
    assert_numpys(case, np.float16, 2e-2)


def assert_numpys(case, dtype, tolerance):
    arrays = case.inputs(dtype)
    try:
        expected = case.numpys(*arrays)
    except (TypeError, ValueError) as refusal:  # such as an integer to a negative power
        with pytest.raises(type(refusal)):
            case.ours(*map(wrap, arrays))
    else:
        assert_same(case.ours(*map(wrap, arrays)), expected, rtol=tolerance, atol=0.1 * tolerance)


@every
def test_arrays_alone_give_arrays(case):
    arrays = case.inputs()
    y = case.ours(*arrays)
    assert all(isinstance(part, (np.ndarray, np.generic)) for part in results(y))
    assert_same(y, case.ours(*leaves(arrays)), rtol=0, atol=0)


@every
def test_the_same_by_every_name(case):
    """NumPy's function, the method of Tensor and the operator call the op, with the same bits and gradients."""
    arrays = case.inputs()
    spellings = [case.numpys] if case.in_numpy else []
    if callable(getattr(Tensor, case.name, None)) and isinstance(case.arguments[0], type(case.makers[0])):
        spellings.append(lambda x, *rest: case.call(type("", (), {case.name: getattr(Tensor, case.name)}), x, *rest))
    for spelling in spellings:
        y = spelling(*leaves(arrays))
        assert all(isinstance(part, Tensor) for part in results(y))
        assert_same(y, case.ours(*leaves(arrays)), rtol=0, atol=0)
        if case.differentiable:
            for found, expected in zip(gradients(spelling, arrays), gradients(case.ours, arrays)):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name, expression", [
    ("add", lambda a, b: a + b), ("subtract", lambda a, b: a - b), ("multiply", lambda a, b: a * b),
    ("divide", lambda a, b: a / b), ("power", lambda a, b: a ** b), ("matmul", lambda a, b: a @ b),
    ("greater", lambda a, b: a > b), ("greater_equal", lambda a, b: a >= b), ("less", lambda a, b: a < b),
    ("less_equal", lambda a, b: a <= b), ("equal", lambda a, b: a == b), ("not_equal", lambda a, b: a != b)])
def test_operators(name, expression):
    a, b = np.random.default_rng(0).uniform(0.5, 2.0, (2, 3, 3))
    expected = getattr(np, name)(a, b)
    for left, right in ((mg.tensor(a), mg.tensor(b)), (mg.tensor(a), b), (a, mg.tensor(b)), (mg.tensor(a), b.tolist())):
        y = expression(left, right)
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.data, expected)
    if name != "matmul":
        np.testing.assert_array_equal(expression(2, mg.tensor(b)).data, getattr(np, name)(2, b))
        np.testing.assert_array_equal(expression(mg.tensor(a), 2).data, getattr(np, name)(a, 2))


# -- gradients ---------------------------------------------------------------------------------------------


@differentiable
def test_gradient_to_order_2(case):
    report = mg.gradcheck(case.ours, *case.inputs(), order=2)
    assert report.method == ("complex step" if case.analytic else "central differences"), report.why


def with_bases(array):
    """The ids of an array and of its bases."""
    return set() if array is None else {id(array)} | with_bases(getattr(array, "base", None))


@differentiable
def test_the_graph_keeps_only_what_a_rule_reads(case):
    """A node keeps an input, or its result, if a rule that runs reads it. Other arrays are freed with their tensors."""
    inputs = leaves(case.inputs())
    copies = [mg.copy(x) if x._tracked else x for x in inputs]
    arrays = [weakref.ref(x._array) for x in copies if x._tracked]
    ys = [y for y in results(case.ours(*copies)) if y._tracked]
    saved = set()
    for node in nodes_behind(ys):
        read = {i for vjp in node._op.vjps if node._op.variadic or node._mask >> vjp.position & 1 for i in vjp.saves}
        assert (node._array is None) == (-1 not in read) or isinstance(node._array, tuple)
        for i, x in enumerate(node._inputs):
            is_kept = isinstance(x, np.ndarray) or (isinstance(x, Tensor) and not x.is_leaf)
            assert not is_kept or i in read or (node._op.variadic and 0 in read)
            saved |= with_bases(data_of(x)) if is_kept else set()
        saved |= with_bases(node._array)
    kept = [id(array()) in saved for array in arrays]
    loss = weighted(ys)
    del copies, node, x, ys
    gc.collect()  # the closure in Case.call
    assert [array() is not None for array in arrays] == kept
    loss.backward()
    for x, expected in zip([x for x in inputs if x._tracked], gradients(case.ours, case.inputs())):
        assert np.array_equal(x.grad, expected)


@pytest.mark.parametrize("case", [c for c in CASES if not c.differentiable], ids=str)
def test_no_gradient_passes(case):
    y = case.ours(*leaves(case.inputs()))
    assert not y.requires_grad
    assert y.dtype == bool or case.name not in PREDICATES


@differentiable
def test_float32_stays_float32(case):
    """The value, the result of each rule, and the gradient, which is the float64 one rounded, are float32."""
    inputs = leaves(case.inputs(np.float32))
    with CallSites() as sites:
        ys = results(case.ours(*inputs))
    assert all(y.dtype == np.float32 for y in ys) or case.name == "astype"
    for node, _, value, _ in sites.calls.values():
        if node._op.name in ("astype", "split") or str(case) in ("power(2, (3))", "power(0.5, ())"):
            continue  # NumPy's logarithm of a Python number is float64; the engine casts that gradient
        for vjp in node._op.vjps:
            if node._mask >> vjp.position & 1:
                for rule, y in ((vjp.plain, value), (vjp.recorded, wrap(value))):
                    assert all(d.dtype == np.float32 for d in results(rule(y, y, node._inputs, node._metadata)))
    exact = gradients(case.ours, case.inputs(np.float64))
    for found, expected in zip(gradients(case.ours, case.inputs(np.float32)), exact):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.max(np.abs(expected), initial=1.0))


@differentiable
def test_complex_gradient_is_holomorphic(case):
    """On the real axis it is the real gradient. Elsewhere it has no conjugates: a check at complex numbers passes."""
    if not case.analytic:
        if case.name != "astype":
            message = f"{case.name} cannot take" if case.name in REAL_ONLY else "abs has no complex derivative"
            with pytest.raises(TypeError, match=message):
                case.ours(*leaves(case.inputs(np.complex128)))
        return
    on_axis = [x + 0j if x.dtype.kind == "f" else x for x in case.inputs()]
    for found, expected in zip(gradients(case.ours, on_axis), gradients(case.ours, case.inputs())):
        assert found.dtype == np.complex128
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    mg.gradcheck(case.ours, *case.inputs(np.complex128))


def apart(x):
    """The same values at every other index of a larger array, reversed: no axis is contiguous."""
    view = np.zeros([2 * n for n in x.shape], x.dtype)[(..., *[slice(None, None, -2)] * x.ndim)]
    view[...] = x
    view.flags.writeable = False
    return view


@every
def test_inputs_of_any_strides_stay_untouched(case):
    arrays = case.inputs()
    for others in ([apart(x) for x in arrays], [np.array(x, order="F") for x in arrays]):
        assert_same(case.ours(*leaves(others)), case.ours(*leaves(arrays)))
        if case.differentiable:
            for found, expected in zip(gradients(case.ours, others), gradients(case.ours, arrays)):
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        for x, before, again in zip(others, arrays, case.inputs()):
            np.testing.assert_array_equal(x, again)
            np.testing.assert_array_equal(before, again)


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in BEYOND_FLOATS], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nothing_overflows_at_the_ends(case, dtype):
    """At ±800, if allowed, the value and the first and second derivatives are finite, without any NumPy error."""
    if case.name == "prod" and dtype is np.float32:
        pytest.skip("800¹³ is beyond float32")
    arrays = case.inputs(dtype, extreme=True)
    numbers = tuple(i for i, x in enumerate(arrays) if x.dtype.kind == "f")

    def first(*inputs):
        return mg.grad(lambda *inputs: weighted(results(case.ours(*inputs))), numbers)(*inputs)

    with np.errstate(all="raise"):
        y = case.ours(*leaves(arrays))
        found = [*values(y)]
        if case.differentiable:
            found += values(first(*arrays)) + values(mg.grad(lambda *x: weighted(first(*x)), numbers)(*arrays))
    assert all(np.isfinite(part).all() for part in found)
    with np.errstate(all="ignore"):  # the plain formula may overflow; those entries are not compared
        plain, sizes = values(case.numpys(*arrays)), values(case.numpys(*map(np.abs, arrays)))
        for part, expected, size in zip(values(y), plain, sizes):
            known = np.isfinite(expected)
            scale = np.max(np.abs(size), initial=1.0, where=np.isfinite(size))  # size of the terms, before they cancel
            np.testing.assert_allclose(part[known], expected[known], rtol=0, atol=10 * np.finfo(dtype).eps * scale)
