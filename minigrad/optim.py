"""Optimisers: how gradients change parameters. PyTorch's formulas, argument names and defaults."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minigrad.tensor import Tensor


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1): steps of about lr, from running means of the gradient and of its square.

        m ← β₁ m + (1 − β₁) g      v ← β₂ v + (1 − β₂) g²
        p ← p − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + eps)

    parameters: tensors that require gradients. One without a gradient stays as it is.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("Adam was given no parameters: pass the tensors to be trained")
        self.lr, self.betas, self.eps = lr, betas, eps
        self.moments = [(np.zeros_like(p.data), np.zeros_like(p.data)) for p in self.parameters]
        self.steps = [0] * len(self.parameters)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        beta1, beta2 = self.betas
        for i, (p, (m, v)) in enumerate(zip(self.parameters, self.moments)):
            if p.grad is None:
                continue
            self.steps[i] += 1
            m *= beta1
            m += (1 - beta1) * p.grad
            v *= beta2
            v += (1 - beta2) * p.grad * p.grad
            step_size = self.lr / (1 - beta1 ** self.steps[i])
            p.data -= step_size * m / (np.sqrt(v / (1 - beta2 ** self.steps[i])) + self.eps)


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their common norm is at most max_norm; returns the norm before.

    The factor is max_norm / (norm + 1e-6), as in PyTorch. A norm that is not finite is returned, and nothing is scaled.
    """
    gradients = [p for p in parameters if p.grad is not None]
    norm = float(np.sqrt(sum(float(np.vdot(p.grad, p.grad).real) for p in gradients)))
    factor = max_norm / (norm + 1e-6)
    if factor < 1 and np.isfinite(norm):
        for p in gradients:
            p.grad = p.grad * np.asarray(factor, p.grad.dtype)
    return norm
