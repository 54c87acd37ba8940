"""Elementwise ops beyond the table of cases: ties and kinks, powers at 0, dtypes, infinities, error messages."""

import numpy as np
import pytest

import minigrad as mg

INF = np.inf


def test_a_tie_is_shared_equally():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    for f, of_a in ((mg.maximum, [0.5, 0, 1]), (mg.minimum, [0.5, 1, 0])):
        d_a, d_b = mg.grad(lambda a, b, f=f: f(a, b).sum(), (0, 1))(a, b)
        np.testing.assert_array_equal(d_a, of_a)
        np.testing.assert_array_equal(d_a + d_b, np.ones(3))


def test_slopes_at_kinks():
    x = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(mg.grad(lambda x: mg.relu(x).sum())(x), [0, 0, 1])
    np.testing.assert_array_equal(mg.grad(lambda x: abs(x).sum())(x), [-1, 0, 1])
    np.testing.assert_array_equal(mg.grad(lambda x: mg.clip(x, -1.0, 0.5).sum())(x), [1, 1, 0])
    d_x, d_low = mg.grad(lambda x, low: mg.clip(x, low, None).sum(), (0, 1))(x, -0.5)
    np.testing.assert_array_equal(d_x, [0, 1, 1])
    assert d_low == 1.0


@pytest.mark.parametrize("a, b, d_a, d_b", [
    (0.0, 0.0, 0.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, 2.0, 0.0, 0.0), (0.0, 3.0, 0.0, 0.0), (0.0, 1.5, 0.0, 0.0),
    (2.0, 0.0, 0.0, np.log(2.0)), (2.0, 3.0, 12.0, 8.0 * np.log(2.0)), (-2.0, 2.0, -4.0, np.nan)])
def test_power_at_its_edges(a, b, d_a, d_b):
    with np.errstate(invalid="ignore"):
        found = mg.grad(lambda a, b: a ** b, (0, 1))(a, b)
    np.testing.assert_allclose(found, (d_a, d_b))
    exponents = (b, int(b)) if b == int(b) else (b,)
    for exponent in exponents:  # a Python number takes another path than an array
        np.testing.assert_allclose(mg.grad(lambda a, n=exponent: a ** n)(a), d_a)


def test_a_whole_power_of_zero_to_second_order():
    for n, second in ((0, 0.0), (1, 0.0), (2, 2.0), (3, 0.0)):
        assert mg.grad(mg.grad(lambda x, n=n: x ** n))(0.0) == second


@pytest.mark.parametrize("f", [
    lambda x: x ** 2, lambda x: x ** 3, lambda x: 2 ** x, lambda x: x ** -1, lambda x: x ** 0.5, lambda x: 2 * x + 1,
    lambda x: 1 / x - 0.5, lambda x: mg.maximum(x, 0), lambda x: mg.where(x > 1, x, 0.0), lambda x: mg.clip(x, 0, 1.5),
    lambda x: x.mean() * 3, lambda x: x.sum() / 7, lambda x: mg.sigmoid(x) * (1 - mg.tanh(x)), lambda x: -x + 1.0 * x,
    lambda x: mg.softplus(x).var(), lambda x: mg.stack([x, 2 * x]), lambda x: mg.pad(x, 1, constant_values=2.0)])
def test_python_numbers_do_not_widen_float32(f):
    for x in (np.float32([1.0, 2.0]), np.float32([1.0])):
        leaf = mg.tensor(x, requires_grad=True)
        y = f(leaf)
        assert y.dtype == np.float32
        y.sum().backward()
        assert leaf.grad.dtype == np.float32


def test_the_side_not_taken_sends_no_nan():
    """Neither a nan in its value nor a nan in the other side's gradient reaches it."""
    x, g = np.array([1.0, 4.0]), np.array([np.nan, 1.0])
    d_a, d_b = mg.grad(lambda a, b: mg.where(x > 2, a, b)[1], (0, 1))(np.array([np.nan, 4.0]), np.full(2, np.nan))
    np.testing.assert_array_equal([d_a, d_b], [[0, 1], [0, 0]])
    d_a, d_b = mg.vjp(lambda a, b: mg.where(x > 2, a, b), x, x)[1](g)
    np.testing.assert_array_equal([d_a, d_b], [[0, 1], [np.nan, 0]])


def test_nan_goes_through():
    x = np.array([np.nan, 1.0])
    for f in (mg.relu, mg.sigmoid, mg.tanh, mg.softplus, mg.abs, lambda x: mg.maximum(x, 0.0),
              lambda x: mg.clip(x, 0, 2)):
        np.testing.assert_array_equal(np.isnan(f(x)), [True, False])


@pytest.mark.parametrize("f, left, right, d_left, d_right", [
    (mg.sigmoid, 0.0, 1.0, 0.0, 0.0), (mg.tanh, -1.0, 1.0, 0.0, 0.0), (mg.softplus, 0.0, INF, 0.0, 1.0),
    (mg.relu, 0.0, INF, 0.0, 1.0)])
def test_limits(f, left, right, d_left, d_right):
    x = np.array([-INF, INF])
    np.testing.assert_array_equal(f(x), [left, right])
    np.testing.assert_array_equal(mg.grad(lambda x: f(x).sum())(x), [d_left, d_right])


def test_softplus_keeps_its_tail():
    x = np.array([-50.0, -300.0])
    np.testing.assert_allclose(mg.softplus(x), np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(-mg.softplus(-x), x, rtol=1e-15)
    np.testing.assert_allclose(mg.grad(lambda x: mg.softplus(x).sum())(np.array([-10.0])), [4.5397868702434395e-05])


@pytest.mark.parametrize("call, error, message", [
    (lambda x: x + np.zeros(2), ValueError, r"add: a \(2, 3\), b \(2,\) do not go together: from the right, axes must"),
    (lambda x: mg.where(x > 0, x, np.zeros(7)), ValueError, r"where: condition \(2, 3\), a \(2, 3\), b \(7,\)"),
    (lambda x: mg.maximum(np.zeros(5), x), ValueError, r"maximum: a \(5,\), b \(2, 3\)"),
    (lambda x: mg.astype(x, dtype="nonsense"), TypeError, r"astype cannot take x \(2, 3\), dtype='nonsense'"),
    (lambda x: mg.tensor([1, 2]) ** -1, ValueError, r"power cannot take a \(2,\), b \(\): Integers to negative"),
    (lambda x: mg.astype(x), TypeError, r"astype\(\) missing 1 required .*'dtype'")])
def test_bad_input_gets_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(mg.tensor(np.ones((2, 3)), requires_grad=True))


NAN = np.nan


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy's warning in logaddexp
@pytest.mark.parametrize("f, x", [
    (mg.maximum, (NAN, 1.0)), (mg.maximum, (1.0, NAN)), (mg.minimum, (NAN, 1.0)), (mg.minimum, (1.0, NAN)),
    (mg.maximum, (NAN, NAN)), (mg.clip, (NAN, 0.0, 1.0)), (mg.clip, (0.5, NAN, 1.0)), (mg.clip, (0.5, 0.0, NAN)),
    (mg.relu, (NAN,)), (mg.leaky_relu, (NAN,)), (mg.elu, (NAN,)), (mg.abs, (NAN,)), (mg.logaddexp, (NAN, 1.0)),
    (mg.log_sigmoid, (NAN,)), (mg.softplus, (NAN,))],
    ids=lambda v: getattr(v, "__name__", str(v)))
def test_no_rule_hides_a_nan(f, x):
    """The value is nan, and the gradient of every nan input is not 0."""
    value, d = mg.value_and_grad(f, tuple(range(len(x))))(*map(np.array, x))
    assert np.isnan(value)
    assert all(d_a != 0 for a, d_a in zip(x, d) if np.isnan(a))


@pytest.mark.parametrize("dtype, far", [(np.float32, 80.0), (np.float64, 600.0)])
def test_both_tails_keep_their_digits(dtype, far):
    """Values and slopes as small as e^−far are exact on either side."""
    x, tail = np.array([far, -far], dtype), np.exp(-np.array(far, dtype))
    np.testing.assert_allclose(mg.log_sigmoid(x), [-tail, -far], rtol=1e-6)
    np.testing.assert_allclose(mg.grad(lambda x: mg.sum(mg.log_sigmoid(x)))(x), [tail, 1], rtol=1e-5)
    np.testing.assert_allclose(mg.softplus(x), [far, tail], rtol=1e-6)
    np.testing.assert_allclose(mg.grad(lambda x: mg.sum(mg.softplus(x)))(x), [1, tail], rtol=1e-5)
    zero = np.zeros(2, dtype)
    np.testing.assert_allclose(mg.grad(lambda a, b: mg.sum(mg.logaddexp(a, b)), (0, 1))(x, zero),
                               [[1, tail], [tail, 1]], rtol=1e-5)


def test_activations_at_known_places():
    np.testing.assert_allclose(mg.leaky_relu(np.array([-2.0, 0.0, 3.0])), [-0.02, 0, 3])
    np.testing.assert_allclose(mg.grad(lambda x: mg.sum(mg.leaky_relu(x)))(np.array([-2.0, 0.0, 3.0])), [0.01, 0.01, 1])
    np.testing.assert_allclose(mg.elu(np.array([-800.0, 0.0, 3.0]), 2.0), [-2, 0, 3])
    np.testing.assert_allclose(mg.log_sigmoid(np.float32([-200, 0])), [-200, -np.log(2)], rtol=1e-6)


def test_a_remainder_has_the_sign_of_its_divisor_and_the_quotient_no_gradient():
    a, b = mg.tensor([5.0, -5.0], requires_grad=True), mg.tensor([3.0, 3.0], requires_grad=True)
    (a % b).sum().backward()
    assert (a % b).tolist() == [2, 1] and (a // b).tolist() == [1, -2]
    assert a.grad.tolist() == [1, 1] and b.grad.tolist() == [-1, 2]
    assert not (a // b).requires_grad and not (7.0 // a).requires_grad
    assert (a % b.data).requires_grad and (a % 3).tolist() == [2, 1] and (-7.0 % a).tolist() == [3, -2]


def test_rounding_passes_no_gradient():
    x = mg.tensor([0.5, 1.5, -1.25], requires_grad=True)
    for y, expected in ((x.round(), [0, 2, -1]), (round(x), [0, 2, -1]), (x.round(1), [0.5, 1.5, -1.2]),
                        (round(x, 1), [0.5, 1.5, -1.2]), (np.around(x), [0, 2, -1]), (np.floor(x), [0, 1, -2]),
                        (np.ceil(x), [1, 2, -1]), (np.trunc(x), [0, 1, -1])):
        assert y.tolist() == expected and not y.requires_grad
    assert (+x).requires_grad and x.copy().requires_grad


def test_where_with_a_condition_alone_gives_indices():
    x = mg.tensor([[1.0, -1.0], [0.0, 2.0]], requires_grad=True)
    for found, expected in zip(np.where(x > 0), ([0, 1], [0, 1])):
        np.testing.assert_array_equal(found, expected)
