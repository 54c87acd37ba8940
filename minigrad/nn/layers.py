"""Layers without a recurrence: a map of the last axis, a table of rows, noise, a scale for each feature, and one layer
after the other. PyTorch's names, shapes and parameters.

dtype is that of the parameters, rng a np.random.Generator or a seed for their values, or for what a layer draws.

A layer computes in the dtype of its parameters. An x of another dtype is cast to it, as the float64 that NumPy makes
is to float32, and the gradient of x comes back in the dtype of x. (PyTorch refuses such an x.) A layer without
parameters leaves x as it is. Complex x stays complex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.ops import expand_dims, mean, sqrt, square, take
from minigrad.engine.ops.elementwise import in_float32
from minigrad.engine.tensor import Tensor
from minigrad.nn.init import glorot_uniform
from minigrad.nn.module import Module, cast, numbers, refuse_integers

Array = Any  # np.ndarray or Tensor


class Linear(Module):
    """y = x Wᵀ + b.          x (…, in_features) → y (…, out_features)

    weight  W (out_features, in_features), at first Glorot-uniform
    bias    b (out_features,), at first 0; None with bias=False

    Raises ValueError for sizes below 1, and for x of another last axis.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = np.float32,
                 rng: Any = None):
        at_least_one(self, in_features=in_features, out_features=out_features)
        refuse_integers(self, dtype)
        self.weight = Tensor(glorot_uniform((out_features, in_features), rng, dtype), requires_grad=True)
        self.bias = Tensor(np.zeros(out_features, dtype), requires_grad=True) if bias else None

    def __call__(self, x: Array) -> Array:
        x = features(self, x, self.weight.shape[1], self.weight.dtype)
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Embedding(Module):
    """A row of numbers for each symbol.          x (…) integers → (…, embedding_dim)

    weight  (num_embeddings, embedding_dim), at first from N(0, 1), as PyTorch has it

    Raises TypeError for x that is no integers, IndexError for symbols outside 0 … num_embeddings − 1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: Any = np.float32, rng: Any = None):
        at_least_one(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        refuse_integers(self, dtype)
        values = np.random.default_rng(rng).standard_normal((num_embeddings, embedding_dim))
        self.weight = Tensor(values, requires_grad=True, dtype=dtype)

    def __call__(self, x: Any) -> Tensor:
        x = x.data if isinstance(x, Tensor) else bare(x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"Embedding takes symbols, integers from 0, not {x.dtype}: for floats use Linear")
        n = self.weight.shape[0]
        if x.min(initial=0) < 0 or x.max(initial=0) >= n:
            raise IndexError(f"Embedding has symbols from 0 to {n - 1}, and x holds {x.min()} to {x.max()}")
        return take(self.weight, x, axis=0)


class Dropout(Module):
    """Each number is set to 0 with probability p, the others are scaled by 1 / (1 − p); only in training.

    variational  one draw for all steps of a sequence: x (T, …), and what is 0 at one step is 0 at all of them
                 (Gal & Ghahramani 2016)
    rng          of its own, so that a run can be repeated (`rng_states` keeps its state)

    Srivastava et al. 2014. Raises ValueError unless 0 ≤ p < 1.
    """

    def __init__(self, p: float = 0.5, *, variational: bool = False, rng: Any = None):
        if not 0.0 <= p < 1.0:
            raise ValueError(f"Dropout takes a probability from 0 to less than 1, not {p}")
        self.p, self.variational, self.rng = p, variational, np.random.default_rng(rng)

    def __call__(self, x: Array) -> Array:
        x = numbers(self, x)
        if not (self.training and self.p):
            return x
        if self.variational and not x.ndim:
            raise ValueError("variational Dropout takes x with time as its first axis, not a single number")
        keep = self.rng.random((1, *x.shape[1:]) if self.variational else x.shape, np.float32) >= self.p
        return x * np.multiply(keep, 1.0 / (1.0 - self.p), dtype=x.dtype if x.dtype.kind in "fc" else float)


class LayerNorm(Module):
    """y = (x − mean x) / √(var x + eps) ∘ w + b, mean and var (1/n) over the last axis.          x, y (…, size)

    weight  w (size,), at first 1
    bias    b (size,), at first 0
    axis    −1, or −2 for x (…, size, B): in the cell of a recurrence features come before the batch

    Ba, Kiros & Hinton 2016. Raises ValueError for a size below 1, a negative eps, another axis, and x of another size
    there.
    """

    def __init__(self, size: int, eps: float = 1e-5, *, axis: int = -1, dtype: Any = np.float32):
        at_least_one(self, size=size)
        refuse_integers(self, dtype)
        if not eps >= 0 or axis not in (-1, -2):
            raise ValueError(f"LayerNorm takes an eps ≥ 0 and axis −1 or −2, not {eps} and {axis}")
        self.eps, self.axis = eps, axis
        self.weight = Tensor(np.ones(size, dtype), requires_grad=True)
        self.bias = Tensor(np.zeros(size, dtype), requires_grad=True)

    def __call__(self, x: Array) -> Array:
        axis, weight, bias = self.axis, self.weight, self.bias
        x = features(self, x, weight.shape[0], weight.dtype, axis)
        if axis == -2:
            weight, bias = expand_dims(weight, 1), expand_dims(bias, 1)

        def normalised(x):
            centred = x - mean(x, axis=axis, keepdims=True)
            return centred / sqrt(mean(square(centred), axis=axis, keepdims=True) + self.eps) * weight + bias
        return in_float32(normalised)(x)


class Sequential(Module):
    """Modules one after the other, each called with the result of the one before. Functions may stand among them:
    `Sequential(Linear(3, 5), mg.tanh, Linear(5, 2))`.

    Of a pair, as a recurrent layer returns (output, state), the output goes on. Parameters are named by the place of
    their module, as in PyTorch: 0.weight, 0.bias, 2.weight, … Raises TypeError for what cannot be called.
    """

    def __init__(self, *modules: Callable[[Any], Any]):
        for i, module in enumerate(modules):
            if not callable(module):
                raise TypeError(f"Sequential takes modules and functions, one after the other, and number {i} is "
                                f"{module!r}")
            setattr(self, str(i), module)
        self.length = len(modules)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Callable[[Any], Any]:
        return getattr(self, str(range(self.length)[i]))

    def __call__(self, x: Any) -> Any:
        for module in self:
            x = module(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


# -- what is asked of sizes and inputs ----------------------------------------------------------------------------


def at_least_one(layer: Module, **sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"{type(layer).__name__} takes {name} as an integer ≥ 1, not {size!r}")


def features(layer: Module, x: Array, size: int, dtype: np.dtype, axis: int = -1) -> Array:
    """x in this dtype, checked to have the right number of features on an axis."""
    x = numbers(layer, x)
    if x.ndim < -axis or x.shape[axis] != size:
        place = "the last axis" if axis == -1 else "the last axis but one"
        raise ValueError(f"{type(layer).__name__} takes {size} features, {place} of x, and x has shape {x.shape}")
    return cast(x, dtype)
