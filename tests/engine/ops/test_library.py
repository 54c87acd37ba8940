"""Functions made of ops, beyond the table of cases: kinks, zeros, methods and error messages."""

import numpy as np
import pytest

import minigrad as mg

X = np.array([1.0, 2.0, 3.0])


def tensor(x=X):
    return mg.tensor(x, requires_grad=True)


@pytest.mark.parametrize("how", [{}, {"axis": 1}, {"axis": (0, 1)}, {"ord": 1, "axis": 0}, {"ord": 3, "axis": 1},
                                 {"ord": 1.5, "axis": 1}, {"ord": 0.5, "axis": 1}, {"ord": np.inf}, {"ord": "fro"}],
                         ids=str)
def test_the_slope_of_a_norm_at_zero_is_zero(how):
    """0 is the mean of its slopes, as in PyTorch."""
    assert not mg.grad(lambda x: mg.sum(np.linalg.norm(x, **how)))(np.zeros((2, 3))).any()


def test_a_norm_at_a_zero_among_others():
    x = np.array([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    d = mg.grad(lambda x: mg.sum(np.linalg.norm(x, axis=1)))(x)
    np.testing.assert_allclose(d, [[0.6, 0, 0.8], [0, 0, 0]])
    np.testing.assert_allclose(mg.hessian(mg.norm)(np.array([3.0, 4.0])), [[16 / 125, -12 / 125], [-12 / 125, 9 / 125]])


@pytest.mark.parametrize("x", [[2.0, 0.0, 3.0], [0.0, 0.0, 3.0, 5.0], [0.0], [4.0, -1.0, 0.5, 2.0, 3.0]])
def test_cumprod_with_zeros_to_second_order(x):
    """Compare with the products of the other entries, written out."""
    n = len(x)

    def others(upto, *left_out):
        return np.prod([x[k] for k in range(upto + 1) if k not in left_out])

    np.testing.assert_allclose(mg.jacobian(mg.cumprod)(np.array(x)),
                               [[others(t, i) if i <= t else 0 for i in range(n)] for t in range(n)])
    np.testing.assert_allclose(
        mg.hessian(lambda x: mg.sum(mg.cumprod(x)))(np.array(x)),
        [[sum(others(t, i, j) for t in range(max(i, j), n)) if i != j else 0 for j in range(n)] for i in range(n)])


def test_small_integers_are_multiplied_in_numpys_type():
    for x in (np.full(9, 100, np.int8), np.ones(3, bool), np.full(3, 200, np.uint8), np.arange(3)):
        for name in ("prod", "cumprod"):
            found, expected = getattr(mg, name)(mg.tensor(x)).data, getattr(np, name)(x)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_a_tensor_answers_questions_as_an_array_does():
    x = np.array([[1.0, 5.0, 2.0], [4.0, 0.0, 6.0]])
    for t in (tensor(x), mg.tensor(x)):
        assert t.argmax() == 5 and t.argmin() == 4 and t.argmax(axis=1).tolist() == [1, 2]
        assert (t > 0).any() and not (t > 0).all() and (t > 0).all(axis=0).tolist() == [True, False, True]


def test_methods_carry_gradients():
    for f in (lambda t: t.flatten(), lambda t: t.copy(), lambda t: t.cumprod(), lambda t: t.dot(t), lambda t: +t,
              lambda t: t.flatten("F"), lambda t: t.reshape(3, 1, order="F"), lambda t: t.astype(float, copy=False)):
        assert f(tensor()).requires_grad
    assert tensor([[1.0, 2.0], [3.0, 4.0]]).flatten("F").tolist() == [1, 3, 2, 4]
    leaf = tensor()
    copied = leaf.flatten()
    leaf._array[0] = 7
    assert copied.tolist() == [1, 2, 3]  # a copy, as ndarray.flatten returns


def test_numpys_joins_take_tensors_and_arrays():
    for y, expected in ((np.vstack((tensor(), X)), np.vstack((X, X))), (np.hstack([X, tensor()[:1]]), [1, 2, 3, 1]),
                        (np.append(X, tensor()), [*X, *X]), (np.diff(tensor(), prepend=0.0), [1, 1, 1]),
                        (np.column_stack((tensor(), X)), np.stack((X, X), 1))):
        assert isinstance(y, mg.Tensor)
        np.testing.assert_array_equal(y.data, expected)
    assert [a.shape for a in np.atleast_2d(tensor(), mg.tensor(1.0))] == [(1, 3), (1, 1)]


def test_einsum_in_numpys_other_form():
    A, B = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    y = np.einsum(tensor(A), [0, 1], tensor(B), [1, 2], [2, 0], optimize=["einsum_path", (0, 1)])
    np.testing.assert_array_equal(y.data, (A @ B).T)
    np.testing.assert_array_equal(mg.einsum(A, [..., 1], [1, ...]), A.T)


@pytest.mark.parametrize("call, error, message", [
    (lambda x: np.linalg.norm(x, "nuc"), ValueError, "norm: ord='nuc' of a matrix has no gradient here: use 'fro'"),
    (lambda x: mg.norm(x, 2), ValueError, "norm: ord=2 of a matrix has no gradient here"),
    (lambda x: mg.norm(x, "fro", 0), ValueError, "norm: ord='fro' is a norm of matrices, but there is one axis"),
    (lambda x: mg.norm(x[None], 1), ValueError, r"norm: ord=1 takes one axis \(a vector\) or two \(a matrix\), not 3"),
    (lambda x: mg.norm(x, axis=2), np.exceptions.AxisError, "norm: axis 2 is out of bounds for 2 dimensions"),
    (lambda x: mg.roll(x, 1, 2), np.exceptions.AxisError, "roll: axis 2 is out of bounds"),
    (lambda x: mg.cumprod(x, (0, 1)), TypeError, "tuple"),
    (lambda x: mg.diff(x, -1), ValueError, r"diff takes an array of one axis or more and n ≥ 0, not shape \(2, 3\)"),
    (lambda x: mg.tril(x[0, 0]), ValueError, "tril takes a matrix, not a single number"),
    (lambda x: mg.vstack([x, x[:, :2]]), ValueError, "concatenate: .* do not go together"),
    (lambda x: np.vstack([x, x], dtype=float), TypeError, "vstack takes no dtype here"),
    (lambda x: np.take(x, [0], mode="nonsense"), TypeError, "take takes no mode here"),
    (lambda x: np.einsum("ij->", x, dtype=float), TypeError, "einsum takes no dtype here"),
    (lambda x: np.einsum(x, [0, -1]), TypeError, "einsum takes subscripts, .* a list of its axes' numbers"),
    (lambda x: np.reshape(x, (3, 2), "A"), TypeError, "reshape takes no order here, and order='A' was given"),
])
def test_bad_input_gets_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(tensor(np.ones((2, 3))))
