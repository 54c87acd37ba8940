"""Chapter 9: the forward way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.exercises.exercise import differs, exercise


@exercise("9.1", "What each of them keeps", """
forward = 100 * 100 * 100   # ←
backward = 50 * 100         # ←
""", why="""
A million numbers against five thousand. RTRL wins in memory only when T is larger than |W|: here, above 10 000 steps.
""")
def keeps(my: Any) -> Iterator[str]:
    """A plain RNN has 100 units, W (100, 100) and no input; the sequence has 50 steps. How many numbers does the
    influence ∂h/∂W of RTRL have (`forward`), and how many do the states have that BPTT keeps (`backward`)?
    """
    yield from differs("forward", my.forward, 1_000_000)
    yield from differs("backward", my.backward, 5_000)


@exercise("9.2", "A tangent", """
import numpy as np


def tangent(w, d_w, s_prev, d_s_prev, x):
    s = np.tanh(w * s_prev + x)
    d_s = (1.0 - s * s) * (d_w * s_prev + w * d_s_prev)  # ←
    return s, d_s
""", why="""
The same factors as in the backward of exercise 3.2, from the inputs to the result. Forward mode has one direction of
change in, and all results out.
""")
def tangent(my: Any) -> Iterator[str]:
    """Forward mode: along with s = tanh(w s_prev + x) compute d_s, the change of s when w changes by d_w and s_prev by
    d_s_prev (to first order).
    """
    for w, d_w, s, d_s, x in np.random.default_rng(0).normal(size=(3, 5)):
        new = np.tanh(w * s + x)
        found = my.tangent(w, d_w, s, d_s, x)
        yield from differs("d_s", found[1], (1 - new ** 2) * (d_w * s + w * d_s))


@exercise("9.3", "Real-time recurrent learning, one unit", """
import numpy as np


def gradient(w, xs):
    s, d_s = 0.0, 0.0
    for x in xs:
        s_next = np.tanh(w * s + x)                   # ←
        d_s = (1.0 - s_next ** 2) * (s + w * d_s)     # ←
        s = s_next                                    # ←
    return d_s
""", why="""
No list, no second loop: the tangent of exercise 9.2 with d_w = 1. xs may go on for ever.
""")
def online(my: Any) -> Iterator[str]:
    """Compute ds_T/dw for s ← tanh(w s + x), s = 0 at the start, in the one loop over xs. xs is an iterator: it can be
    read once, and its length is not known. Inside the loop change s and d_s.
    """
    w, values = 0.8, np.random.default_rng(0).normal(size=30)
    s, d_s = 0.0, 0.0
    for x in values:
        s_next = np.tanh(w * s + x)
        d_s = (1 - s_next ** 2) * (s + w * d_s)
        s = s_next
    yield from differs("gradient(w, xs)", my.gradient(w, iter(values)), d_s)


@exercise("9.4", "Real-time recurrent learning, many units", """
import numpy as np


def influence(P, W, h_prev, h_next):
    H = len(h_prev)
    direct = np.zeros((H, H, H))
    direct[np.arange(H), np.arange(H), :] = h_prev                # ←
    P = direct + np.einsum("ij,jkl->ikl", W, P)                   # ←
    return (1.0 - h_next ** 2)[:, None, None] * P                 # ←
""", why="""
The product of W (H, H) with P (H, H²) costs H⁴ a step. That is the price of RTRL.
""")
def influence(my: Any) -> Iterator[str]:
    """For h_next = tanh(W h_prev + …), carry the influence P (H, H, H) over one step: P[i, j, k] is ∂h_prev[i]/∂W[j, k]
    through all earlier steps. Return ∂h_next[i]/∂W[j, k]. `direct` is for the use of W in this step.
    """
    rng = np.random.default_rng(0)
    P, W, h_prev, h_next = rng.normal(size=(3, 3, 3)), rng.normal(size=(3, 3)), rng.normal(size=3), rng.uniform(size=3)
    right = np.einsum("ij,jkl->ikl", W, P) + np.einsum("ij,k->ijk", np.eye(3), h_prev)
    found = my.influence(P.copy(), W, h_prev, h_next)
    if np.shape(found) == (3, 3, 3) and np.allclose(found, right):
        yield "the slope of tanh is missing: 1 − h_next²"
    yield from differs("influence(…)", found, right * (1 - h_next ** 2)[:, None, None])
