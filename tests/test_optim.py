"""Optimisers: the formulas, and PyTorch's numbers where it is installed."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.optim import Adam, clip_grad_norm


def parameters(rng, dtype=float):
    return [mg.tensor(rng.normal(size=shape), requires_grad=True, dtype=dtype) for shape in ((3, 4), (5,), ())]


def test_the_first_step_is_lr_in_the_direction_of_the_sign():
    p = mg.tensor([1.0, -2.0, 3.0], requires_grad=True)
    p.grad = np.array([0.1, -5.0, 1e3])
    Adam([p], lr=0.01).step()
    np.testing.assert_allclose(p.data, [0.99, -1.99, 2.99], rtol=1e-6)


def test_a_parameter_without_a_gradient_stays():
    p, q = mg.tensor([1.0], requires_grad=True), mg.tensor([1.0], requires_grad=True)
    p.grad = np.array([1.0])
    optimizer = Adam([p, q], lr=0.1)
    optimizer.step()
    assert p.data[0] != 1.0 and q.data[0] == 1.0
    optimizer.zero_grad()
    assert p.grad is None
    with pytest.raises(ValueError, match="no parameters"):
        Adam([])


def test_clipping_scales_all_gradients_together():
    a, b = mg.tensor([0.0], requires_grad=True), mg.tensor([0.0, 0.0], requires_grad=True)
    a.grad, b.grad = np.array([3.0]), np.array([0.0, 4.0])
    assert clip_grad_norm([a, b], 10.0) == 5.0
    assert a.grad[0] == 3.0
    assert clip_grad_norm([a, b], 1.0) == 5.0
    np.testing.assert_allclose([a.grad[0], b.grad[1]], [0.6, 0.8], rtol=1e-6)
    a.grad = np.array([np.nan])
    assert np.isnan(clip_grad_norm([a, b], 1.0)) and b.grad[1] == pytest.approx(0.8)
    assert clip_grad_norm([], 1.0) == 0.0


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 2e-6)])
def test_a_hundred_steps_are_pytorchs(dtype, tolerance):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = parameters(rng, dtype)
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    optimizer, reference = Adam(ours, lr=0.05), torch.optim.Adam(theirs, lr=0.05)
    for _ in range(100):
        for p, q in zip(ours, theirs):
            g = rng.normal(size=p.shape).astype(dtype)
            p.grad, q.grad = g, torch.tensor(g)
        norm = clip_grad_norm(ours, 2.0)
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 2.0)), rel=1e-5)
        optimizer.step()
        reference.step()
    for p, q in zip(ours, theirs):
        assert p.dtype == dtype
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=tolerance, atol=tolerance)
