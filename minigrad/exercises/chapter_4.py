"""Chapter 4: many units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.exercises.exercise import audited, differs, exercise


@exercise("4.1", "The Jacobian of a step", """
import numpy as np


def jacobian(W, h_next):
    return (1.0 - h_next ** 2)[:, None] * W  # ←
""", why="""
Row i belongs to unit i *after* the step, so it is row i that gets the slope of unit i.
""")
def jacobian(my: Any) -> Iterator[str]:
    """For h_next = tanh(W h + …), with W (H, H) and h_next (H,), return J with J[i, j] = ∂(h_next)ᵢ/∂hⱼ."""
    rng = np.random.default_rng(0)
    W, h_next = rng.normal(size=(4, 4)), np.tanh(rng.normal(size=4))
    found, slope = my.jacobian(W, h_next), 1.0 - h_next ** 2
    if np.shape(found) == (4, 4) and np.allclose(found, W * slope):
        yield "the slopes multiply the columns of W: they belong to the units after the step, which are rows"
    yield from differs("jacobian(W, h_next)", found, slope[:, None] * W)


@exercise("4.2", "It grows before it vanishes", """
import numpy as np

J = np.array([[0.7, 1.0], [0.0, 0.7]])


def stretch(k):
    return np.linalg.norm(np.linalg.matrix_power(J, k), 2)


k = max(range(1, 51), key=stretch)  # ←
most = stretch(k)                   # ←
""", why="""
Both eigenvalues are 0.7, so Jᵏ vanishes in the end. But the largest singular value of J is 1.36, and the first steps
stretch: k steps multiply the upper right entry by k · 0.7ᵏ⁻¹. Eigenvalues say what happens in the long run, singular
values what can happen in the next step.
""")
def growth(my: Any) -> Iterator[str]:
    """A step has the Jacobian J, with both eigenvalues 0.7. `stretch(k)` is the largest factor by which k steps can
    lengthen a gradient. Which k gives the largest one, and how large is it?
    """
    J = np.array([[0.7, 1.0], [0.0, 0.7]])
    norms = [np.linalg.norm(np.linalg.matrix_power(J, k), 2) for k in range(1, 51)]
    yield from differs("k", my.k, 1 + int(np.argmax(norms)))
    yield from differs("most", my.most, max(norms))


def rnn_step(W, b, h_prev, x):
    concat = np.concatenate([h_prev, x])
    h_next = np.tanh(W @ concat + b)
    return h_next


@exercise("4.3", "The backward of an RNN's step", """
import numpy as np


def forward(W, b, h_prev, x):
    concat = np.concatenate([h_prev, x])
    h_next = np.tanh(W @ concat + b)
    return h_next


def backward(d_h_next, W, b, h_prev, x):
    concat = np.concatenate([h_prev, x])
    h_next = np.tanh(W @ concat + b)
    d_z = d_h_next * (1.0 - h_next ** 2)                     # ←
    d_concat = W.T @ d_z                                     # ←
    return {"dW": d_z @ concat.T,                            # ←
            "db": d_z.sum(axis=1, keepdims=True),            # ←
            "dh_prev": d_concat[:len(h_prev)],               # ←
            "dx": d_concat[len(h_prev):]}                    # ←
""", why="""
A product C = A B has the rules d_A = d_C Bᵀ and d_B = Aᵀ d_C: the shapes leave no other choice. b was added to every
column, so its gradient is the sum over columns.
""")
def rnn(my: Any) -> Iterator[str]:
    """Write the backward of a plain RNN's step for a batch of B sequences: W (H, H + D), b (H, 1), h_prev (H, B),
    x (D, B). Return a dict with dW, db, dh_prev and dx.
    """
    yield from audited(rnn_step, my.backward, W=(4, 6), b=(4, 1), h_prev=(4, 3), x=(2, 3))


@exercise("4.4", "Clipping", """
import numpy as np


def clip(gradients, max_norm):
    norm = np.sqrt(sum(np.sum(g ** 2) for g in gradients))    # ←
    scale = max_norm / norm if norm > max_norm else 1.0       # ←
    return [scale * g for g in gradients], norm               # ←
""", why="""
One norm over all weights and one factor: the direction of the update stays. `mg.optim.clip_grad_norm` does this in
place.
""")
def clipping(my: Any) -> Iterator[str]:
    """`gradients` is a list of arrays, one for each weight. If their norm, over all entries of all arrays, is above
    max_norm, scale them so that it is max_norm; the direction must not change. Return the list, and the norm before.
    """
    large, small = [np.array([[3.0, 0.0]]), np.array([4.0])], [np.array([0.3]), np.array([0.4])]
    for given, scale, norm in ((large, 0.2, 5.0), (small, 1.0, 0.5), ([np.zeros(2)], 1.0, 0.0)):
        copies = [g.copy() for g in given]
        result = my.clip(copies, 1.0)
        if not isinstance(result, tuple) or len(result) != 2 or len(result[0]) != len(given):
            yield "clip must return two things: the list of scaled gradients, and the norm before"
            return
        if given is large and np.allclose(np.ravel(result[0][1]), 1.0):
            yield "each array is clipped by itself, which changes the direction: use one norm of all of them"
        for i, (d, g) in enumerate(zip(result[0], given)):
            yield from differs(f"for gradients of norm {norm:g} and max_norm = 1, array {i}", d, scale * g)
        yield from differs("the norm", result[1], norm)
