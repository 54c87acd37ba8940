"""Calls as in NumPy: arguments in NumPy's order, or refused by name; numbers and lists as arrays."""

import inspect

import numpy as np
import pytest
from cases import CASES, Maker

import minigrad as mg
from minigrad.engine.operators import NUMPY
from minigrad.engine.tensor import Tensor

# NumPy's names for the arrays that are x, or a and b, here
ARRAYS = {"a", "b", "x1", "x2", "x", "y", "arr", "ary", "m", "A", "array", "arrays", "tup", "arys", "operands",
          "condition", "values"}
FUNCTIONS = {f"{function.__module__}.{function.__name__}": (function, ours) for function, ours in NUMPY.items()
             if not ours.__qualname__.startswith("answered") and not isinstance(function, np.ufunc)}
X = np.arange(6.0).reshape(2, 3)


def places(function):
    """The names of the arguments that may be passed by position, which includes the metadata of a bare op."""
    signature = inspect.signature(function)
    bare = hasattr(function, "op") and signature == inspect.signature(function.op.forward)
    return [p.name for p in signature.parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) or (bare and p.kind is p.KEYWORD_ONLY)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_have_numpys_places(name):
    """Each of our arguments has NumPy's position, counted from the last array. NumPy may have more after them."""
    try:
        inspect.signature(FUNCTIONS[name][0])
    except ValueError:
        pytest.skip("before 2.4, NumPy's compiled functions have no signature")
    theirs, ours = ([p for p in places(f) if p not in ARRAYS] for f in FUNCTIONS[name])
    ours = [p for p in ours if p not in {"min", "max"}]
    assert ours == theirs[:len(ours)], (ours, theirs)


@pytest.mark.parametrize("name, call", {
    "sum": lambda t: np.sum(t, 0, None, np.zeros(3)), "mean": lambda t: np.mean(t, 0, None, np.zeros(3)),
    "max": lambda t: np.max(t, 0, np.zeros(3)), "cumsum": lambda t: np.cumsum(t, 0, None, np.zeros((2, 3))),
    "prod": lambda t: np.prod(t, 0, None, np.zeros(3)), "clip": lambda t: np.clip(t, 0, 1, np.zeros((2, 3))),
    "take": lambda t: np.take(t, [0], 0, np.zeros((1, 3))), "dot": lambda t: np.dot(t, t.T, np.zeros((2, 2))),
    "outer": lambda t: np.outer(t, t, np.zeros((6, 6)))}.items())
def test_an_array_for_the_result_is_refused_by_name(name, call):
    with pytest.raises(TypeError, match=f"{name} takes no out here"):
        call(mg.tensor(X, requires_grad=True))


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "cumsum", "cumprod"])
def test_a_dtype_in_the_third_place(name):
    """float64 results of float32 numbers: as in NumPy, with a gradient in the dtype of x."""
    x = (X / 3).astype(np.float32)
    leaf = mg.tensor(x, requires_grad=True)
    for y in (getattr(np, name)(leaf, 0, float), getattr(mg, name)(leaf, 0, float), getattr(leaf, name)(0, float)):
        expected = getattr(np, name)(x, 0, float)
        assert y.dtype == expected.dtype == float
        np.testing.assert_allclose(y.data, expected, rtol=1e-14)
    mg.sum(getattr(leaf, name)(0, float)).backward()
    assert leaf.grad.dtype == np.float32
    expected = mg.grad(lambda x: mg.sum(getattr(mg, name)(x, 0)))(x.astype(float))
    np.testing.assert_allclose(leaf.grad, expected, rtol=1e-5, atol=1e-6)


def test_by_the_names_that_numpy_gives_to_arrays():
    t = mg.tensor(X, requires_grad=True)
    for y, expected in ((np.sum(a=t, axis=0), X.sum(0)), (np.clip(a=t, a_min=1, a_max=2), X.clip(1, 2)),
                        (np.take(a=t, indices=[1], axis=0), X[[1]]), (np.append(arr=t, values=t), np.append(X, X)),
                        (np.flip(m=t), X[::-1, ::-1]), (np.tril(m=t), np.tril(X)),
                        (np.vstack(tup=(t, t)), np.vstack((X, X)))):
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.data, expected)


# every function with one array, for a single number and for a list
ALONE = {str(case): case for case in CASES if len(case.makers) == 1 and isinstance(case.arguments[0], Maker)
         and case.makers[0].shape in ((), (3,), (5,), (4,), (2, 3)) and case.name != "astype"}


@pytest.mark.parametrize("name", ALONE)
def test_numbers_and_lists_are_arrays(name):
    case = ALONE[name]
    (x,) = case.inputs()
    given = x.tolist()  # a Python number for shape ()
    found, expected = case.ours(given), case.ours(x)
    for a, b in zip(*(list(y) if isinstance(y, tuple) else [y] for y in (found, expected))):
        assert isinstance(a, (np.ndarray, np.generic)) and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "softplus", "relu", "sigmoid", "norm",
                                  "cumprod"])
@pytest.mark.parametrize("x", [2, True, np.float32(0.5), np.int8(3)])
def test_numbers_of_any_type(name, x):
    np.testing.assert_allclose(getattr(mg, name)(x), getattr(mg, name)(np.array(float(x))), rtol=1e-6)


@pytest.mark.parametrize("call, sentence", [
    (lambda x: np.add(x, 1.0, where=X > 2), r"np.add takes no where here, and an array of shape \(2, 3\) was given"),
    (lambda x: np.exp(x, dtype="f4"), "np.exp takes no dtype here"),
    (lambda x: np.copy(x, order="F"), "np.copy takes no order here"),
    (lambda x: np.var(x, correction=1), "np.var takes no correction here"),
    (lambda x: np.mean(x, dtype=int), "mean in int64 would lose the fractions"),
    (lambda x: x.std(dtype="i4"), "std in int32 would lose the fractions"),
    (lambda x: mg.prod(x, True), "prod: an axis is an integer, not True"),
    (lambda x: mg.flip(x, 1.5), "flip: an axis is an integer, not 1.5"),
    (lambda x: np.emath.sqrt(x), "^np.emath.sqrt has no op")])
def test_what_cannot_be_followed_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call(mg.tensor(X, requires_grad=True))


def test_an_argument_that_asks_for_nothing_is_passed_over():
    np.testing.assert_array_equal(np.round(mg.tensor(X), out=None), X)
    assert np.count_nonzero(mg.tensor(X), axis=0, keepdims=True).shape == (1, 3)
    assert mg.prod(mg.tensor(X), np.array(1)).shape == (2,)


@pytest.mark.parametrize("mode", ["raise", "wrap", "clip"])
def test_take_reads_booleans_as_0_and_1(mode):
    flags = np.array([True, False, True])
    np.testing.assert_array_equal(np.take(mg.tensor(X), flags, 1, mode=mode), np.take(X, flags, 1, mode=mode))


@pytest.mark.parametrize("ord", [-1, -2, -0.5])
def test_a_norm_of_negative_order_is_0_and_flat_where_an_entry_is_0(ord):
    x = mg.tensor([[0.0, 2.0], [1.0, 3.0]], requires_grad=True)
    y = np.linalg.norm(x, ord, axis=1)
    mg.sum(y).backward()
    np.testing.assert_allclose(y.data, [0.0, np.linalg.norm([1.0, 3.0], ord)])
    np.testing.assert_array_equal(x.grad[0], 0.0)
    assert np.isfinite(x.grad).all() and x.grad[1].all()
