"""Chapter 2: the same weight, many times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.exercises.exercise import audited, differs, exercise
from minigrad.timeloop.scan import scan


def last_state(w, xs):
    def cell(s_prev, x):
        s = w * s_prev + x
        return s, s
    s, _ = scan(cell, np.zeros(()), xs)
    return s


@exercise("2.1", "A thousandth", """
k = 10  # ←
""", why="""
0.5¹⁰ = 1/1024. In general k = ln(1/1000) / ln w, rounded up.
""")
def thousandth(my: Any) -> Iterator[str]:
    """With w = 0.5, how many steps back is less than a thousandth of the gradient left, for the first time?"""
    yield from differs("k", my.k, 10)


@exercise("2.2", "Backpropagation through time", """
import numpy as np


def forward(w, xs):
    s = 0.0
    for x in xs:
        s = w * s + x
    return s


def backward(d_s, w, xs):
    states = [0.0]
    for x in xs:
        states.append(w * states[-1] + x)
    d_w, d_xs = 0.0, np.zeros(len(xs))
    for t in reversed(range(len(xs))):    # ←
        d_xs[t] = d_s                     # ←
        d_w = d_w + d_s * states[t]       # ←
        d_s = d_s * w                     # ←
    return {"dw": d_w, "dxs": d_xs}
""", why="""
Three lines in the loop: what the step gives to its input, what it adds to the weight, and what it sends to the step
before. `states[t]` is the state *before* step t.
""")
def through_time(my: Any) -> Iterator[str]:
    """Write the loop of `backward`, for a loss that depends on the last state only: d_s is dL/ds there. w is one
    number, xs (T,), and the state starts at 0.
    """
    yield from audited(last_state, my.backward, w=(), xs=(5,))


@exercise("2.3", "Copies of a weight", """
import numpy as np

import minigrad as mg


def parts(w, xs):
    def last_state(copies):
        s = 0.0
        for copy, x in zip(copies, xs):
            s = copy * s + x
        return s
    return mg.grad(last_state)(np.full(len(xs), w))  # ←
""", why="""
With a copy for each step, each part is an ordinary gradient, and dL/dw is their sum: this is what the sign ∂⁺ of
chapter 5 means.
""")
def copies(my: Any) -> Iterator[str]:
    """`last_state` gives each step its own copy of w. Return the gradient for each of the T copies, with `mg.grad`. In
    the recurrence all copies are the same number w.
    """
    w, xs = 0.9, np.array([1.0, -2.0, 0.5, 3.0])
    states = np.array([0.0, *(sum(w ** (t - s) * xs[s] for s in range(t + 1)) for t in range(3))])
    yield from differs("parts(w, xs)", my.parts(w, xs), states * w ** np.arange(3, -1, -1))


@exercise("2.4", "Where float32 ends", """
import numpy as np

largest = np.finfo(np.float32).max
smallest = np.finfo(np.float32).smallest_subnormal


explodes = int(np.ceil(np.log(float(largest)) / np.log(1.1)))     # ←
vanishes = int(np.ceil(np.log(float(smallest)) / np.log(0.9)))    # ←
""", why="""
After 931 steps a factor of 1.1 is infinite in float32, and after 981 steps a factor of 0.9 is below every positive
number. Long before, such a gradient is useless beside others of size 1: float32 has 7 digits.
""")
def ends(my: Any) -> Iterator[str]:
    """After how many steps is 1.1ᵏ larger than any float32, and 0.9ᵏ smaller than any positive float32? Give the first
    such k of each.
    """
    yield from differs("explodes", my.explodes, 931)
    yield from differs("vanishes", my.vanishes, 981)
