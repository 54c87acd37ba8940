"""Ties, zeros and infinities in reductions, and error messages."""

import numpy as np
import pytest

import minigrad as mg

INF = np.inf


def test_a_tie_is_shared_equally_along_each_axis():
    """The expected numbers are those of torch.amax and torch.amin."""
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    third = 1 / 3
    for f, axis, expected in [
            (mg.max, None, [[0, 0.5, 0.5], [0, 0, 0]]), (mg.max, 1, [[0, 0.5, 0.5], [third, third, third]]),
            (mg.max, 0, [[0, 1, 1], [1, 0, 0]]), (mg.max, (0, 1), [[0, 0.5, 0.5], [0, 0, 0]]),
            (mg.min, None, [[1, 0, 0], [0, 0, 0]]), (mg.min, 1, [[1, 0, 0], [third, third, third]]),
            (mg.min, 0, [[1, 0, 0], [0, 1, 1]])]:
        for keepdims in (False, True):
            d = mg.grad(lambda x, f=f, axis=axis, keepdims=keepdims: f(x, axis=axis, keepdims=keepdims).sum())(x)
            np.testing.assert_allclose(d, expected)


@pytest.mark.parametrize("x", [[2.0, 0.0, 3.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0], [0.0], [4.0]])
def test_prod_with_zeros_to_second_order(x):
    """Compare with the products of the other entries, written out."""
    n = len(x)

    def others(*left_out):
        return np.prod([x[k] for k in range(n) if k not in left_out])

    np.testing.assert_allclose(mg.grad(mg.prod)(np.array(x)), [others(i) for i in range(n)])
    np.testing.assert_allclose(mg.hessian(mg.prod)(np.array(x)),
                               [[0.0 if i == j else others(i, j) for j in range(n)] for i in range(n)])


def test_an_empty_sum_and_product():
    assert mg.sum(np.zeros(0)) == 0 and mg.prod(np.zeros(0)) == 1
    assert mg.grad(lambda x: mg.prod(x))(np.zeros(0)).shape == (0,)
    assert mg.logsumexp(np.zeros(0)) == -INF


def test_minus_infinity_counts_as_absent():
    """Masking with −∞ before a softmax equals leaving the entries out, in value and gradient."""
    x, kept = np.array([0.5, -INF, 2.0, -INF]), [0, 2]
    with np.errstate(all="raise"):
        np.testing.assert_allclose(mg.softmax(x)[kept], mg.softmax(x[kept]))
        np.testing.assert_array_equal(mg.softmax(x)[[1, 3]], 0)
        np.testing.assert_allclose(mg.logsumexp(x), mg.logsumexp(x[kept]))
        np.testing.assert_array_equal(mg.log_softmax(x)[[1, 3]], -INF)
        for f in (lambda x: (mg.softmax(x)[0] ** 2), mg.logsumexp, lambda x: mg.log_softmax(x)[2]):
            d = mg.grad(f)(x)
            np.testing.assert_array_equal(d[[1, 3]], 0)
            short = mg.grad(lambda x, f=f: f(mg.concatenate([x[:1], [-INF], x[1:], [-INF]])))(x[kept])
            np.testing.assert_allclose(d[kept], short)
    assert mg.logsumexp(np.full(3, -INF)) == -INF


def test_softmax_at_the_ends():
    """The plain formula cannot compute these values: e⁸⁰⁰ overflows."""
    x = np.array([800.0, 0.0, -800.0])
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(mg.softmax(x), [1, 0, 0])
        np.testing.assert_array_equal(mg.log_softmax(x), [0, -800, -1600])
        assert mg.logsumexp(x) == 800 and mg.logsumexp(-x) == 800
        assert mg.logsumexp(np.array([800.0, 800.0])) == 800 + np.log(2)


def test_softmax_does_not_feel_a_shift():
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_allclose(mg.softmax(x + 1e5), mg.softmax(x), rtol=1e-10)
    np.testing.assert_allclose(mg.log_softmax(x), np.log(mg.softmax(x)), rtol=1e-12)
    np.testing.assert_allclose(mg.softmax(x).sum(axis=-1), 1, rtol=1e-15)


def test_integers():
    x = np.arange(1, 4)
    for f in (mg.softmax, mg.log_softmax, mg.logsumexp, mg.mean, mg.var, mg.std):
        np.testing.assert_array_equal(f(x), f(x.astype(float)))
    assert mg.sum(x).dtype == mg.max(x).dtype == mg.prod(x).dtype == x.dtype


@pytest.mark.parametrize("call, error, message", [
    (lambda x: mg.sum(x, axis=5), IndexError, r"sum cannot take x \(2, 3\), axis=5: axis 5 is out of bounds"),
    (lambda x: mg.mean(x, axis=(0, 0)), ValueError, r"sum cannot take x \(2, 3\), axis=\(0, 0\): duplicate"),
    (lambda x: mg.max(x[:0]), ValueError, r"max cannot take x \(0, 3\)"),
    (lambda x: mg.softmax(x, axis=3), IndexError, r"softmax cannot take x \(2, 3\), axis=3"),
    (lambda x: mg.prod(x, axis=2), np.exceptions.AxisError, "prod: axis 2 is out of bounds"),
    (lambda x: mg.cumsum(x, axis=2), IndexError, r"cumsum cannot take x \(2, 3\), axis=2"),
    (lambda x: mg.sum(x, 0, axis=1), TypeError, r"sum\(\) got multiple values for argument 'axis'"),
])
def test_bad_input_gets_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(mg.tensor(np.ones((2, 3)), requires_grad=True))


def test_the_gradient_of_an_extreme_that_is_nan_goes_to_the_nan():
    """As in PyTorch, several nans share it."""
    x = np.array([[1.0, np.nan, 2.0], [3.0, 4.0, 4.0], [np.nan, 0.0, np.nan]])
    for f, last in ((mg.max, [0, 0.5, 0.5]), (mg.min, [1, 0, 0])):
        assert np.isnan(f(x))
        d = mg.grad(lambda x, f=f: mg.sum(f(x, axis=1)))(x)
        np.testing.assert_array_equal(d, [[0, 1, 0], last, [0.5, 0, 0.5]])
    for f in (mg.softmax, mg.log_softmax, mg.logsumexp, mg.mean, mg.std, mg.norm):
        assert np.isnan(mg.grad(lambda x, f=f: mg.sum(f(x) ** 2))(x)).any()


@pytest.mark.parametrize("x, axis, ddof", [
    ([3.5], None, 0), (3.5, None, 0), ([1.0, 2.0], (), 0), ([[1.0], [2.0]], 1, 0), ([2.0, 2.0], None, 0),
    ([2.0, 2.0], None, 1)])
def test_the_deviation_of_equal_values_has_the_slope_zero(x, axis, ddof):
    """The deviation of one value is always 0. That of several has a kink, where PyTorch's slope is 0 too."""
    def f(x):
        return mg.sum(mg.std(x, axis=axis, ddof=ddof))
    x = np.array(x)
    assert f(x) == 0 and not mg.grad(f)(x).any()
    assert not mg.grad(lambda x: mg.sum(mg.grad(f)(x) ** 2))(x).any()


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero", "ignore:Degrees of freedom")
@pytest.mark.parametrize("x, ddof", [([1.0, 2.0], 2), ([1.0, 2.0], 3), ([3.0], 1), ([3.0], 2), ([[1.0, 2.0]], 5)])
def test_a_variance_with_too_few_values_is_numpys(x, ddof):
    for f in (np.var, np.std):
        np.testing.assert_array_equal(f(mg.tensor(x), ddof=ddof).data, f(x, ddof=ddof))


def test_what_is_close_to_the_largest_keeps_its_digits():
    """e^−40 beside 1: its digits are kept if the result is small."""
    for dtype, far in ((np.float64, 40.0), (np.float32, 20.0)):
        x, tail = np.array([0, -far], dtype), np.exp(-far)
        np.testing.assert_allclose(mg.logsumexp(x), tail, rtol=1e-6)
        np.testing.assert_allclose(mg.log_softmax(x), [-tail, -far], rtol=1e-6)
        np.testing.assert_allclose(mg.log_softmax(x + 8), [-tail, -far], rtol=1e-6)
    np.testing.assert_allclose(mg.logsumexp(np.zeros(3)), np.log(3), rtol=1e-15)


@pytest.mark.parametrize("f, expected", [
    (lambda x: np.sum(x, axis=0), 5), (lambda x: np.cumsum(x, axis=-1), [5]), (lambda x: np.cumprod(x, 0), [5]),
    (lambda x: np.max(x, axis=0), 5), (lambda x: mg.softmax(x, axis=0), 1), (lambda x: mg.std(x, axis=0), 0)])
def test_a_single_number_has_the_axis_0(f, expected):
    assert f(mg.tensor(5.0)).tolist() == expected
