"""Leaf tensors for tests."""

import numpy as np

import minigrad as mg


def leaf(*shape, seed=0, **options):
    """A leaf of this shape that requires gradients, with normally distributed values."""
    return mg.tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True, **options)
