"""Chapter 5: the whole loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.exercises.exercise import audited, differs, exercise
from minigrad.microscope import bptt
from minigrad.timeloop.scan import scan


@exercise("5.1", "How large is the ledger?", """
entries = 50 * 51 // 2  # ←
""", why="""
Loss s has s + 1 uses before it or at its own step: 1 + 2 + … + 50 = 1275. The backward sums them in 50 steps, because
it adds the gradients of all later losses *before* it multiplies them with a Jacobian.
""")
def size(my: Any) -> Iterator[str]:
    """A sequence of 50 steps has a loss at each step. How many entries of its ledger can be different from 0?"""
    yield from differs("entries", my.entries, 1275)


def rnn_over_time(W, b, h0, xs):
    def cell(h_prev, x):
        concat = np.concatenate([h_prev, x])
        h_next = np.tanh(W @ concat + b)
        return h_next, h_next
    _, hs = scan(cell, h0, xs)
    return hs


@exercise("5.2", "A loss at every step", """
import numpy as np


def forward(W, b, h0, xs):
    hs = [h0]
    for x in xs:
        hs.append(np.tanh(W @ np.concatenate([hs[-1], x]) + b))
    return np.stack(hs[1:])


def backward(d_hs, W, b, h0, xs):
    hs = np.concatenate([h0[None], forward(W, b, h0, xs)])
    d_W, d_b, d_xs = np.zeros(W.shape), np.zeros(b.shape), np.zeros(xs.shape)
    d_h = np.zeros(h0.shape)                                      # ←
    for t in reversed(range(len(xs))):                            # ←
        d_h = d_h + d_hs[t]                                       # ←
        d_z = d_h * (1.0 - hs[t + 1] ** 2)                        # ←
        d_W = d_W + d_z @ np.concatenate([hs[t], xs[t]]).T        # ←
        d_b = d_b + d_z.sum(axis=1, keepdims=True)                # ←
        d_concat = W.T @ d_z                                      # ←
        d_h, d_xs[t] = d_concat[:len(h0)], d_concat[len(h0):]     # ←
    return {"dW": d_W, "db": d_b, "dh0": d_h, "dxs": d_xs}
""", why="""
The one new line is `d_h = d_h + d_hs[t]`: a state has two readers, the loss of its step and the next step. To forget
the carried part is the most common fault in hand-written backwards ([20 of 23 wrong ones](audit.md)).
""")
def every_step(my: Any) -> Iterator[str]:
    """Write backpropagation through time for a plain RNN whose every state has a loss: d_hs (T, H, B) is dL/dh from the
    loss of each step alone. W (H, H + D), b (H, 1), h0 (H, B), xs (T, D, B).
    """
    yield from audited(rnn_over_time, my.backward, W=(4, 6), b=(4, 1), h0=(4, 3), xs=(5, 2, 3))


@exercise("5.3", "The formula", """
import numpy as np


def ledger(J, d_losses, direct):
    T, n, m = direct.shape
    G = np.zeros((T, T, m))
    for s in range(T):                   # ←
        row = d_losses[s]                # ←
        for t in reversed(range(s + 1)):  # ←
            G[s, t] = row @ direct[t]    # ←
            row = row @ J[t]             # ←
    return G
""", why="""
The row vector ∂Lₛ/∂hₛ is multiplied with one more Jacobian for each step back. G.sum(axis=(0, 1)) is dL/dW.
""")
def formula(my: Any) -> Iterator[str]:
    """Write the ledger by the formula of the chapter, for a state of n numbers and m weights. You have the Jacobians
    J (T, n, n) with J[t] = ∂hₜ/∂hₜ₋₁, the gradients of the losses d_losses (T, n) with d_losses[s] = ∂Lₛ/∂hₛ, and
    direct (T, n, m) with direct[t] = ∂⁺hₜ/∂W. G[s, t] is the gradient that loss s sends to the use of the weights at
    step t, (m,).
    """
    rng = np.random.default_rng(0)
    T, n, m = 5, 3, 4
    J, d_losses, direct = rng.normal(size=(T, n, n)), rng.normal(size=(T, n)), rng.normal(size=(T, n, m))
    right = np.zeros((T, T, m))
    for s in range(T):
        for t in range(s + 1):
            right[s, t] = np.linalg.multi_dot([np.eye(n), *J[s:t:-1], np.eye(n)]).T @ d_losses[s] @ direct[t]
    found = my.ledger(J, d_losses, direct)
    if np.shape(found) == right.shape and np.any(np.asarray(found)[np.triu_indices(T, 1)]):
        yield "G[s, t] is not 0 for some t > s: a loss cannot depend on a later step"
    yield from differs("ledger(J, d_losses, direct)", found, right)


@exercise("5.4", "How far back is far enough?", """
import numpy as np

import minigrad as mg
from minigrad import nn

x = np.random.default_rng(0).normal(size=(50, 1, 3))
rnn = nn.RNN(3, 8, dtype=np.float64, rng=0)
with mg.bptt.record() as rec:
    y, _ = rnn(x)
    y.sum().backward()


k = mg.bptt.truncation(rec, range(10, 30), every=1).smallest(0.001)["W"]  # ←
""", why="""
19 steps: the error falls by about a third with every step more, as the gradient does with every step back.
""")
def far_enough(my: Any) -> Iterator[str]:
    """An experiment. The network is that of the chapter. How many steps must each loss be sent back, at least, for an
    error of dL/dW of at most 0.1 %? Use `mg.bptt.truncation`.
    """
    x = np.random.default_rng(0).normal(size=(50, 1, 3))
    with bptt.record() as rec:
        y, _ = nn.RNN(3, 8, dtype=np.float64, rng=0)(x)
        y.sum().backward()
    yield from differs("k", my.k, bptt.truncation(rec, range(10, 30), every=1).smallest(0.001)["W"])
