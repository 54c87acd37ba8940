"""Feed-forward layers: Linear, Embedding, Dropout, LayerNorm, Sequential, with PyTorch's names, shapes and parameters.

dtype is that of the parameters; rng, a np.random.Generator or a seed, draws their initial values or the dropout.

A layer computes in the dtype of its parameters. It casts an x of another dtype, such as NumPy's default float64, and
the gradient of x has the dtype of x. (PyTorch refuses such an x.) A layer without parameters keeps the dtype of x.
Complex x stays complex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.ops import expand_dims, mean, sqrt, square, take
from minigrad.engine.ops.halves import in_float32
from minigrad.engine.tensor import Tensor
from minigrad.nn.checks import Array, as_numbers, cast, check_float, check_sizes, features
from minigrad.nn.init import glorot_uniform
from minigrad.nn.module import Module


class Linear(Module):
    """y = x Wᵀ + b.          x (…, in_features) → y (…, out_features)

    weight  W (out_features, in_features), initially Glorot-uniform
    bias    b (out_features,), initially 0; None with bias=False

    Raises ValueError for sizes below 1, and for x of another last axis.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = np.float32,
                 rng: Any = None):
        check_sizes(self, in_features=in_features, out_features=out_features)
        check_float(self, dtype)
        self.weight = Tensor(glorot_uniform((out_features, in_features), rng, dtype), requires_grad=True)
        self.bias = Tensor(np.zeros(out_features, dtype), requires_grad=True) if bias else None

    def __call__(self, x: Array) -> Tensor:
        y = cast(features(self, x, self.weight.shape[1]), self.weight.dtype) @ self.weight.T
        return y if self.bias is None else y + self.bias


class Embedding(Module):
    """One row of the weight for each symbol.          x (…) integers → (…, embedding_dim)

    weight  (num_embeddings, embedding_dim), initially N(0, 1), as in PyTorch

    Raises TypeError unless x contains integers, IndexError for symbols outside 0 … num_embeddings − 1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: Any = np.float32, rng: Any = None):
        check_sizes(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        check_float(self, dtype)
        values = np.random.default_rng(rng).standard_normal((num_embeddings, embedding_dim))
        self.weight = Tensor(values, requires_grad=True, dtype=dtype)

    def __call__(self, x: Any) -> Tensor:
        x = x.data if isinstance(x, Tensor) else bare(x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"Embedding takes symbols, integers from 0, not {x.dtype}: for floats use Linear")
        n = self.weight.shape[0]
        if x.min(initial=0) < 0 or x.max(initial=0) >= n:
            raise IndexError(f"Embedding has symbols from 0 to {n - 1}, and x contains {x.min()} to {x.max()}")
        return take(self.weight, x, axis=0)


class Dropout(Module):
    """Set each number to 0 with probability p and scale the others by 1 / (1 − p); in training only.

    variational  one draw for all steps of a sequence x (T, …): a feature is dropped at every step or at none
                 (Gal & Ghahramani 2016)
    rng          the layer's own generator; `rng_states` saves its state

    Srivastava et al. 2014. Raises ValueError unless 0 ≤ p < 1.
    """

    def __init__(self, p: float = 0.5, *, variational: bool = False, rng: Any = None):
        if not 0.0 <= p < 1.0:
            raise ValueError(f"Dropout takes a probability from 0 to less than 1, not {p}")
        self.p, self.variational, self.rng = p, variational, np.random.default_rng(rng)

    def __call__(self, x: Array) -> Array:
        x = as_numbers(self, x)
        if not (self.training and self.p):
            return x
        if self.variational and not x.ndim:
            raise ValueError("variational Dropout takes x with time as its first axis, not a single number")
        keep = self.rng.random((1, *x.shape[1:]) if self.variational else x.shape, np.float32) >= self.p
        return x * np.multiply(keep, 1.0 / (1.0 - self.p), dtype=x.dtype if x.dtype.kind in "fc" else float)


class LayerNorm(Module):
    """y = (x − mean x) / √(var x + eps) ∘ w + b, mean and var (1/n) over the last axis.          x, y (…, size)

    weight  w (size,), initially 1
    bias    b (size,), initially 0
    axis    −1, or −2 for x (…, size, B), as in a recurrent cell

    Ba, Kiros & Hinton 2016. Raises ValueError for a size below 1, a negative eps, another axis, and an x that
    does not have `size` features on that axis.
    """

    def __init__(self, size: int, eps: float = 1e-5, *, axis: int = -1, dtype: Any = np.float32):
        check_sizes(self, size=size)
        check_float(self, dtype)
        if not eps >= 0 or axis not in (-1, -2):
            raise ValueError(f"LayerNorm takes an eps ≥ 0 and axis −1 or −2, not {eps} and {axis}")
        self.eps, self.axis = eps, axis
        self.weight = Tensor(np.ones(size, dtype), requires_grad=True)
        self.bias = Tensor(np.zeros(size, dtype), requires_grad=True)

    def __call__(self, x: Array) -> Tensor:
        axis, weight, bias = self.axis, self.weight, self.bias
        x = cast(features(self, x, weight.shape[0], axis), weight.dtype)
        if axis == -2:
            weight, bias = expand_dims(weight, 1), expand_dims(bias, 1)

        def normalised(x):
            centred = x - mean(x, axis=axis, keepdims=True)
            return centred / sqrt(mean(square(centred), axis=axis, keepdims=True) + self.eps) * weight + bias
        return in_float32(normalised)(x)


class Sequential(Module):
    """Call modules and functions in order, each with the result of the one before:
    `Sequential(Linear(3, 5), mg.tanh, Linear(5, 2))`.

    A tuple, such as a recurrent layer's (output, state), passes on its first item. Parameters are named by the position
    of their module, as in PyTorch: 0.weight, 0.bias, 2.weight, … Raises TypeError for an object that is not callable.
    """

    def __init__(self, *modules: Callable[[Any], Any]):
        for i, module in enumerate(modules):
            if not callable(module):
                raise TypeError(f"Sequential takes modules and functions, and number {i} is {module!r}")
            setattr(self, str(i), module)
        self.length = len(modules)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Callable[[Any], Any]:
        return getattr(self, str(range(self.length)[i]))

    def __call__(self, x: Any) -> Any:
        for i in range(self.length):
            x = self[i](x)
            x = x[0] if isinstance(x, tuple) else x
        return x
