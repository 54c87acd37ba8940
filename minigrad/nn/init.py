"""Initial values of weights. Every function takes an `rng`, a np.random.Generator or a seed, and returns arrays.

glorot_uniform keeps the size of a signal from layer to layer, orthogonal from step to step; chrono sets how many steps
a gate remembers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def glorot_uniform(shape: tuple[int, int], rng: Any, dtype: Any = np.float32) -> np.ndarray:
    """U(−a, a) with a = √(6 / (rows + columns)), for a matrix (outputs, inputs).

    Variance 2 / (rows + columns): a compromise between keeping the variance of the signal and of the gradient.
    Glorot & Bengio 2010, equation 16. Raises ValueError unless shape has two axes.
    """
    if len(shape) != 2:
        raise ValueError(f"glorot_uniform makes a matrix (outputs, inputs), not an array of shape {tuple(shape)}")
    bound = math.sqrt(6.0 / max(1, sum(shape)))
    return np.random.default_rng(rng).uniform(-bound, bound, shape).astype(dtype)


def orthogonal(shape: tuple[int, ...], rng: Any, dtype: Any = np.float32) -> np.ndarray:
    """A random matrix with Q Qᵀ = 1 if it is wide, Qᵀ Q = 1 if it is tall; axes after the first count as columns.

    All singular values are 1: repeated products with a square one neither grow nor vanish.
    Q of the QR of a normal matrix, each column times the sign of R's diagonal, which makes it uniform over all
    orthogonal matrices (Mezzadri 2007). Saxe, McClelland & Ganguli 2014.
    Raises ValueError unless shape has two axes or more.
    """
    if len(shape) < 2:
        raise ValueError(f"orthogonal makes an array of two axes or more, not of shape {tuple(shape)}")
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(np.random.default_rng(rng).normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (q if rows >= columns else q.T).reshape(shape).astype(dtype)


def chrono(shape: tuple[int, ...], longest: float, rng: Any, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """(forget bias, input bias) = (b, −b) with b = log U[1, longest − 1].

    A gate with bias b forgets in about 1 + exp(b) steps: the memory of the units then ranges from 2 steps to
    `longest`, the longest dependency expected. Tallec & Ollivier 2018, arXiv 1804.11188.
    Raises ValueError if longest < 2.
    """
    if not longest >= 2:
        raise ValueError(f"chrono expects dependencies of 2 steps or more, not {longest}")
    bias = np.log(np.random.default_rng(rng).uniform(1.0, longest - 1.0, shape)).astype(dtype)
    return bias, -bias
