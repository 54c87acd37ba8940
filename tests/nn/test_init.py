"""Initial values: bounds, distributions, and dependence on the given rng alone."""

import numpy as np
import pytest

from minigrad.nn import init

MAKERS = {"glorot_uniform": lambda rng, **o: init.glorot_uniform((4, 3), rng, **o),
          "orthogonal": lambda rng, **o: init.orthogonal((4, 3), rng, **o),
          "chrono": lambda rng, **o: init.chrono((4, 1), 50, rng, **o)[0]}


@pytest.mark.parametrize("name", MAKERS)
def test_rng_is_explicit_and_dtype_kept(name):
    make = MAKERS[name]
    assert np.array_equal(make(3), make(np.random.default_rng(3))) and not np.array_equal(make(3), make(4))
    rng = np.random.default_rng(3)
    assert not np.array_equal(make(rng), make(rng))  # a generator advances
    assert make(0).dtype == np.float32 and make(0, dtype=np.float64).dtype == np.float64


def test_glorot_uniform():
    W = init.glorot_uniform((300, 200), 0, float)
    bound = np.sqrt(6 / 500)
    assert 0.999 * bound < np.abs(W).max() <= bound
    assert abs(W.var() / (2 / 500) - 1) < 0.02 and abs(W.mean()) < 3e-3
    assert init.glorot_uniform((5, 0), 0).shape == (5, 0)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (6, 2), (2, 6), (3, 2, 4), (12, 2, 2)], ids=str)
def test_orthogonal(shape):
    Q = init.orthogonal(shape, 0, float)
    assert Q.shape == shape
    Q = Q.reshape(shape[0], -1)
    assert np.allclose(Q @ Q.T if Q.shape[0] <= Q.shape[1] else Q.T @ Q, np.eye(min(Q.shape)), atol=1e-14)


def test_orthogonal_is_uniform_over_all_orthogonal_matrices():
    """The trace has mean 0 and variance 1 (Diaconis & Shahshahani 1994); LAPACK's own signs would give a mean of −2."""
    rng = np.random.default_rng(0)
    traces = [np.trace(init.orthogonal((4, 4), rng, float)) for _ in range(2000)]
    assert abs(np.mean(traces)) < 0.1 and abs(np.var(traces) - 1) < 0.15
    assert {-1.0, 1.0} == {float(init.orthogonal((1, 1), rng)[0, 0]) for _ in range(20)}


def test_chrono():
    forget, inputs = init.chrono((5000, 1), 100, 0, float)
    assert np.array_equal(inputs, -forget)
    times = np.exp(forget)  # uniform from 1 to 99
    assert times.min() >= 1 and times.max() <= 99 and abs(times.mean() - 50) < 1.5
    assert not init.chrono((3, 1), 2, 0)[0].any()


@pytest.mark.parametrize("call, message", [
    (lambda: init.glorot_uniform((3,), 0), r"a matrix \(outputs, inputs\), not an array of shape \(3,\)"),
    (lambda: init.orthogonal((3,), 0), r"two axes or more, not of shape \(3,\)"),
    (lambda: init.chrono((3, 1), 1.5, 0), "2 steps or more, not 1.5"),
    (lambda: init.chrono((3, 1), float("nan"), 0), "not nan"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
