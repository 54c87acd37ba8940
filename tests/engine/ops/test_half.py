"""float16 is stored but not computed with: its sums, counts, products and norms run in float32, and so do their
gradients. In float16 a sum overflows beyond 65504, and a sum of ones stops at 2048."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

N = 5000  # more ones than a float16 sum can count
ONES, BIG, ROW = np.ones(N, np.float16), np.full(4, 60000, np.float16), np.ones((1, 3), np.float16)
LOGITS, CLASSES = np.repeat(np.float16([[20, 0, 0]]), N, 0), np.ones(N, int)

# {name: (computation, value)}
VALUES = {
    "sum": (lambda: mg.sum(ONES), N), "sum of an axis": (lambda: mg.sum(np.ones((N, 2), np.float16), axis=0), [N, N]),
    "mean": (lambda: mg.mean(BIG), 60000), "var": (lambda: mg.var(np.float16([-200, 200])), 40000),
    "std": (lambda: mg.std(np.float16([-3000, 3000])), 3000), "max": (lambda: mg.max(BIG), 60000),
    "prod": (lambda: mg.prod(np.float16([300, 300, 0.001])), 90), "cumsum": (lambda: mg.cumsum(ONES)[-1], N),
    "cumprod": (lambda: mg.cumprod(np.float16([300, 0.001, 300]))[-1], 90),
    "norm": (lambda: np.linalg.norm(mg.tensor(BIG / 4)), 30000), "norm, ord 1": (lambda: mg.norm(ONES, 1), N),
    "matmul": (lambda: ONES @ mg.tensor(ONES), N), "matrix": (lambda: mg.matmul(ONES[None], ONES[:, None]), [[N]]),
    "with integers": (lambda: mg.matmul(ONES, np.ones(N, np.int8)), N),
    "dot": (lambda: mg.dot(ONES, ONES), N), "tensordot": (lambda: mg.tensordot(ONES, ONES, 1), N),
    "einsum": (lambda: mg.einsum("i,i", ONES, ONES), N), "einsum of one": (lambda: mg.einsum("i->", ONES), N),
    "softmax": (lambda: mg.sum(mg.softmax(np.ones(70000, np.float16))), 1),
    "log_softmax": (lambda: mg.log_softmax(ONES)[0], -np.log(N)),
    "logsumexp": (lambda: mg.logsumexp(ONES), 1 + np.log(N)),
    "sum_to": (lambda: mg.sum_to(np.ones((N, 3), np.float16), (3,)), [N] * 3),
    "scatter": (lambda: mg.scatter(ONES, (1,), np.zeros(N, int)), [N]),
    "mse": (lambda: nn.mse_loss(np.full(N, 9, np.float16), np.zeros(N, np.float16)), 81),
    "cross_entropy": (lambda: nn.cross_entropy(LOGITS, CLASSES), 20),
    "binary_cross_entropy": (lambda: nn.binary_cross_entropy(20 * ONES, 0 * ONES), 20),
    "LayerNorm": (lambda: nn.LayerNorm(2, dtype=np.float16)(np.float16([-3000, 3000])).detach(), [-1, 1])}

# {name: (function of ones (N,), its gradient for each of them)}
GRADIENTS = {
    "mean": (lambda x: x.mean(), 1 / N), "sum of squares": (lambda x: (x * x).sum(), 2),
    "ties of max": (lambda x: mg.max(x), 1 / N), "product": (lambda x: x @ x, 2), "norm": (mg.norm, N ** -0.5),
    "cumsum": (lambda x: mg.cumsum(x)[-1], 1), "logsumexp": (mg.logsumexp, 1 / N),
    "mse": (lambda x: nn.mse_loss(x, 0 * ONES), 2 / N),
    "cross_entropy": (lambda x: nn.cross_entropy(x[:, None] * np.float16([20, 0]), CLASSES), 20 / N)}


@pytest.mark.parametrize("what", VALUES)
def test_value(what):
    y = mg.tensor(VALUES[what][0]()).data
    assert y.dtype == np.float16
    np.testing.assert_allclose(np.asarray(y, float), VALUES[what][1], rtol=4e-3)


@pytest.mark.parametrize("what", GRADIENTS)
def test_gradient(what):
    d = mg.grad(GRADIENTS[what][0])(ONES)
    assert d.dtype == np.float16
    np.testing.assert_allclose(np.asarray(d, float), GRADIENTS[what][1], rtol=4e-3)


@pytest.mark.parametrize("f", [
    lambda b: mg.sum(b + np.zeros((N, 1), np.float16)), lambda b: mg.sum(mg.broadcast_to(b, (N, 1))),
    lambda b: mg.sum(b[np.zeros(N, int)]), lambda b: mg.sum(mg.repeat(b, N)),
    lambda b: mg.sum(ONES[:, None] @ b[None])],
    ids=["broadcast", "broadcast_to", "index", "repeat", "product"])
def test_the_gradient_of_what_is_used_many_times(f):
    """The gradient is right eagerly, recorded and derived."""
    b = np.ones(1, np.float16)
    assert mg.grad(f)(b) == N
    _, pull = mg.vjp(mg.grad(lambda b: f(b * b)), b)
    assert np.isfinite(np.asarray(pull(b)[0], float)).all()
    derived = mg.derive(f, b)
    assert derived.backward(np.float16(1), derived.forward(b)[1])[0] == N


def test_float32_with_halves_is_float32():
    assert mg.matmul(ONES, np.ones(N, np.float32)).dtype == mg.einsum("i,i", np.ones(N, np.float32), ONES).dtype \
        == np.float32
    assert mg.sum(ONES, dtype=np.float32).dtype == np.float32


def test_the_norm_by_which_gradients_are_clipped():
    p = mg.tensor(np.ones(2, np.float16), requires_grad=True)
    for size in (1e-4, 1e4):
        p.grad = np.full(2, size, np.float16)
        assert mg.optim.clip_grad_norm([p], np.inf) == pytest.approx(size * 2 ** 0.5, rel=1e-2)
