"""Losses: values, PyTorch, masks, extreme logits, wrong input."""

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

rng = np.random.default_rng(0)
LOGITS, CLASSES = rng.normal(size=(4, 3, 5)), rng.integers(0, 5, (4, 3))
Y, TARGET, PROBABILITIES = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2)), rng.random((4, 3, 2))
MASK = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]], bool)

LOSSES = {"cross_entropy": (LOGITS, CLASSES), "mse_loss": (Y, TARGET), "binary_cross_entropy": (Y, PROBABILITIES)}
TORCH = {"cross_entropy": "cross_entropy", "mse_loss": "mse_loss",
         "binary_cross_entropy": "binary_cross_entropy_with_logits"}
every = pytest.mark.parametrize("name", LOSSES)


def in_torch(name, y, target):
    import torch
    y = torch.tensor(y.reshape(-1, y.shape[-1]), requires_grad=True)
    target = torch.tensor(target.reshape(-1) if name == "cross_entropy" else target.reshape(y.shape))
    loss = getattr(torch.nn.functional, TORCH[name])(y, target)
    loss.backward()
    return loss.item(), y.grad.numpy()


@every
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_torch(name, mask):
    pytest.importorskip("torch")
    y, target = LOSSES[name]
    leaf = mg.tensor(y, requires_grad=True)
    loss = getattr(nn, name)(leaf, target, mask)
    loss.backward()
    kept = slice(None) if mask is None else mask
    expected, gradient = in_torch(name, y[kept], target[kept])
    assert loss.item() == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(leaf.grad[kept].reshape(gradient.shape), gradient, rtol=1e-11, atol=1e-14)
    assert mask is None or not leaf.grad[~mask].any()


@every
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_gradients_to_order_2(name, mask):
    y, target = LOSSES[name]
    report = mg.gradcheck(lambda y: getattr(nn, name)(y, target, mask), y, order=2)
    assert report.ok and report.method == "complex step"


@pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy"])
def test_gradients_flow_into_targets_too(name):
    assert mg.gradcheck(getattr(nn, name), *LOSSES[name], order=2).ok


@every
def test_masked_entries_have_no_effect(name):
    """NaN in outputs and targets, or a target that is not a class: same loss, same gradients, of second order too."""
    y, target = (x.copy() for x in LOSSES[name])
    loss = getattr(nn, name)

    def both(y, target):
        norm = mg.grad(lambda y: mg.sum(mg.square(mg.grad(lambda y: loss(y, target, MASK))(y))))
        return loss(y, target, MASK), mg.grad(lambda y: loss(y, target, MASK))(y), norm(y)
    expected = both(y, target)
    y[~MASK] = np.nan
    target[~MASK] = -100 if target.dtype.kind == "i" else np.nan
    for a, b in zip(both(y, target), expected):
        np.testing.assert_array_equal(a, b)


@every
def test_a_mask_of_any_kind(name):
    y, target = LOSSES[name]
    expected = getattr(nn, name)(y, target, MASK)
    for mask in (MASK.astype(int), MASK.astype("f"), MASK.tolist(), mg.tensor(MASK)):
        assert getattr(nn, name)(mg.tensor(y), mg.tensor(target), mask).item() == expected
    assert getattr(nn, name)(y, target, np.ones((4, 3))) == pytest.approx(getattr(nn, name)(y, target), rel=1e-14)


def test_a_mask_over_numbers_may_have_every_axis():
    mask = np.broadcast_to(MASK[..., None], Y.shape)
    assert nn.mse_loss(Y, TARGET, mask) == pytest.approx(nn.mse_loss(Y, TARGET, MASK), rel=1e-14)
    assert nn.mse_loss(Y, TARGET, mask) == pytest.approx(np.mean((Y - TARGET)[mask] ** 2), rel=1e-14)


@every
def test_float32_stays_float32(name):
    y, target = LOSSES[name]
    leaf = mg.tensor(y, requires_grad=True, dtype=np.float32)
    for mask in (None, MASK):
        loss = getattr(nn, name)(leaf, target, mask)  # the target is float64
        loss.backward()
        assert loss.dtype == leaf.grad.dtype == np.float32
        assert loss.item() == pytest.approx(float(getattr(nn, name)(y, target, mask)), rel=1e-5)


@every
def test_arrays_return_a_number_and_one_example_is_enough(name):
    y, target = LOSSES[name]
    one = getattr(nn, name)(y[0, 0], target[0, 0])
    assert isinstance(one, (np.ndarray, np.generic)) and one.shape == ()
    assert one == pytest.approx(getattr(nn, name)(y[:1, :1], target[:1, :1]), rel=1e-14)


def test_known_values():
    assert nn.cross_entropy(np.zeros((7, 4)), np.arange(7) % 4) == pytest.approx(math.log(4))
    assert nn.cross_entropy(np.zeros((2, 1)), [0, 0]) == 0
    assert nn.cross_entropy([[0, 1]], [1]) == pytest.approx(math.log(1 + math.exp(-1)))
    assert nn.mse_loss([1, 2, 3], [1.0, 2.0, 6.0]) == 3
    assert nn.binary_cross_entropy(np.zeros(3), [0, 1, 0.5]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(dtype):
    """A confident mistake costs its margin, a confident hit 0; gradients lie in −1 … 1; NumPy raises no error."""
    with np.errstate(all="raise"):
        z = mg.tensor([[1e4, 0, -1e4], [1e4, 0, -1e4]], requires_grad=True, dtype=dtype)
        loss = nn.cross_entropy(z, [2, 0])
        loss.backward()
        assert loss.item() == 1e4
        np.testing.assert_array_equal(z.grad, [[0.5, 0, -0.5], [0, 0, 0]])
        z = mg.tensor([1e4, -1e4, 1e4], requires_grad=True, dtype=dtype)
        loss = nn.binary_cross_entropy(z, [0, 0, 1])
        loss.backward()
        assert loss.item() == pytest.approx(1e4 / 3) and z.grad[1:].tolist() == [0, 0]
    z = mg.tensor([[0.0, -np.inf, 1.0]], requires_grad=True, dtype=dtype)  # a class that cannot be
    loss = nn.cross_entropy(z, [0])
    loss.backward()
    assert np.isfinite(loss.item()) and z.grad[0, 1] == 0


def test_nan_in_a_logit_is_not_hidden():
    assert np.isnan(nn.cross_entropy([[np.nan, 0.0], [1.0, 0.0]], [0, 1]))


@pytest.mark.parametrize("dtype, z", [(np.float32, 12), (np.float32, 16), (np.float32, 80), (float, 40), (float, 600)])
def test_the_loss_of_a_confident_hit_keeps_its_digits(dtype, z):
    """ln(1 + e^−z) and its slope σ(−z), at z for target 1 and at −z for target 0, and equally for two classes."""
    right, slope = np.log1p(np.exp(-float(z))), 1 / (1 + np.exp(float(z)))
    for logit, target, sign in ((z, 1, -1), (-z, 0, 1)):
        value, d = mg.value_and_grad(nn.binary_cross_entropy)(np.array([logit], dtype), np.array([target], dtype))
        np.testing.assert_allclose([value, *d], [right, sign * slope], rtol=1e-5)
        value, d = mg.value_and_grad(nn.cross_entropy)(np.array([[0, logit]], dtype), np.array([target]))
        np.testing.assert_allclose([value, *d[0]], [right, -sign * slope, sign * slope], rtol=1e-5)


def test_cross_entropy_can_be_derived():
    derived = mg.derive(lambda z: nn.cross_entropy(z, CLASSES), LOGITS)
    loss, cache = derived.forward(LOGITS)
    assert loss == nn.cross_entropy(LOGITS, CLASSES)
    np.testing.assert_array_equal(derived.backward(1.0, cache)[0],
                                  mg.grad(lambda z: nn.cross_entropy(z, CLASSES))(LOGITS))


@pytest.mark.parametrize("call, error, says", [
    (lambda: nn.cross_entropy(LOGITS, CLASSES[0]), ValueError,
     r"logits \(4, 3, 5\), targets \(3,\) do not go together: targets have the shape of logits without its last axis"),
    (lambda: nn.cross_entropy(LOGITS, CLASSES, MASK[0]), ValueError,
     r"mask \(3,\) do not go together: .* and a mask has the shape of targets"),
    (lambda: nn.cross_entropy(1.0, 0), ValueError, "do not go together"),
    (lambda: nn.cross_entropy(LOGITS, CLASSES + 0.0), TypeError, "targets are classes, integers from 0, not float"),
    (lambda: nn.cross_entropy(LOGITS, CLASSES + 4), ValueError, r"there are classes from 0 to 4, and a target is \d"),
    (lambda: nn.cross_entropy(LOGITS, CLASSES - 5), ValueError, "from 0 to 4, and a target is -5"),
    (lambda: nn.cross_entropy(LOGITS, CLASSES, 0 * MASK), ValueError, "no target counts, the mask is 0 everywhere"),
    (lambda: nn.cross_entropy(LOGITS[:0], CLASSES[:0]), ValueError, "no target counts, .*empty: a mean needs"),
    (lambda: nn.cross_entropy(LOGITS, CLASSES, MASK * 0.5), ValueError, "the mask .* other than 0 and 1"),
    (lambda: nn.mse_loss(Y, TARGET[..., 0]), ValueError,
     r"mse_loss compares arrays of the same shape, not \(4, 3, 2\) and \(4, 3\): reshape one of them"),
    (lambda: nn.mse_loss(Y, TARGET[..., :1]), ValueError, "compares arrays of the same shape"),
    (lambda: nn.mse_loss(Y, TARGET, MASK[0]), ValueError,
     r"mse_loss: a mask of shape \(3,\) does not fit targets of shape \(4, 3, 2\)"),
    (lambda: nn.mse_loss(Y, TARGET, 0 * MASK), ValueError, "mse_loss: no target counts, the mask is 0 everywhere"),
    (lambda: nn.mse_loss(Y[:0], TARGET[:0]), ValueError, "mse_loss: no target counts, .*empty"),
    (lambda: nn.binary_cross_entropy(Y, TARGET), ValueError,
     "binary_cross_entropy takes targets from 0 to 1, and they go from -"),
    (lambda: nn.binary_cross_entropy(Y, PROBABILITIES * np.nan), ValueError, "targets from 0 to 1, and they go from n"),
])
def test_bad_input_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
