"""The true forwards: the cells and layers of the conventions in `conventions`, each in its own names.

They run on arrays and on tensors. Where people order fused gates, or the two states of a GRU, in several ways, the
reference is a list of them, and the one that gives the numbers of the user's forward is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np

from minigrad.engine.ops import concatenate, log_softmax, mean, relu, sigmoid, softmax, sqrt, stack, tanh
from minigrad.engine.ops import sum as total

# -- features first, weights on [a; x] ------------------------------------------------------------------


def course_rnn_cell(xt, a_prev, Wax, Waa, Wya, ba, by):
    a_next = tanh(Wax @ xt + Waa @ a_prev + ba)
    yt_pred = softmax(Wya @ a_next + by, axis=0)
    return a_next, yt_pred


def course_rnn(x, a0, Wax, Waa, Wya, ba, by):
    a, y, a_next = [], [], a0
    for t in range(x.shape[2]):
        xt = x[:, :, t]
        a_next = tanh(Wax @ xt + Waa @ a_next + ba)
        a.append(a_next)
        y.append(softmax(Wya @ a_next + by, axis=0))
    return stack(a, axis=2), stack(y, axis=2)


def course_lstm_cell(xt, a_prev, c_prev, Wf, bf, Wi, bi, Wc, bc, Wo, bo, Wy, by):
    concat = concatenate([a_prev, xt], axis=0)
    ft = sigmoid(Wf @ concat + bf)
    it = sigmoid(Wi @ concat + bi)
    cct = tanh(Wc @ concat + bc)
    c_next = ft * c_prev + it * cct
    ot = sigmoid(Wo @ concat + bo)
    a_next = ot * tanh(c_next)
    yt_pred = softmax(Wy @ a_next + by, axis=0)
    return a_next, c_next, yt_pred


def course_lstm(x, a0, Wf, bf, Wi, bi, Wc, bc, Wo, bo, Wy, by, c0=0.0):
    a, y, c = [], [], []
    a_next, c_next = a0, c0 + np.zeros(a0.shape)
    for t in range(x.shape[2]):  # not by a call of the cell, which would name the states a_prev and c_prev
        concat = concatenate([a_next, x[:, :, t]], axis=0)
        ft = sigmoid(Wf @ concat + bf)
        it = sigmoid(Wi @ concat + bi)
        cct = tanh(Wc @ concat + bc)
        c_next = ft * c_next + it * cct
        ot = sigmoid(Wo @ concat + bo)
        a_next = ot * tanh(c_next)
        a.append(a_next)
        c.append(c_next)
        y.append(softmax(Wy @ a_next + by, axis=0))
    return stack(a, axis=2), stack(y, axis=2), stack(c, axis=2)


def rnn_cell_forward(xt, a_prev, parameters):
    """As the course's function: a_next, yt_pred, (a_next, a_prev, xt, parameters)."""
    names = ("Wax", "Waa", "Wya", "ba", "by")
    a_next, yt_pred = course_rnn_cell(xt, a_prev, *(parameters[name] for name in names))
    return a_next, yt_pred, (a_next, a_prev, xt, parameters)


def course_loop(cell: Callable, states: int, c0: Any = 0.0) -> Callable:
    """The course's function over a sequence, from its cell: a, y, (c,) stacked over time, and (caches, x)."""
    def forward(x, a0, parameters):
        state, outputs, caches = [a0, c0 + np.zeros(a0.shape)][:states], [], []
        for t in range(x.shape[2]):
            *step, cache = cell(x[:, :, t], *state, parameters)
            state = step[:states]
            outputs.append(step)
            caches.append(cache)
        a, *c, y = (np.stack(steps, axis=2) for steps in zip(*outputs))
        return a, y, *c, (caches, x)
    return forward


# -- batch first ------------------------------------------------------------------------------------------


def rnn_step(x, prev_h, Wx, Wh, b):
    next_h = tanh(x @ Wx + prev_h @ Wh + b)
    return next_h


def lstm_steps(names: str) -> list[Callable]:
    """LSTM steps with fused gates, first in the order `names`, then in each other order."""
    def in_order(order: tuple[str, ...]) -> Callable:
        def lstm_step(x, prev_h, prev_c, Wx, Wh, b):
            z = x @ Wx + prev_h @ Wh + b
            H = prev_h.shape[1]
            part = {name: slice(k * H, (k + 1) * H) for k, name in enumerate(order)}
            i = sigmoid(z[:, part["i"]])
            f = sigmoid(z[:, part["f"]])
            o = sigmoid(z[:, part["o"]])
            g = tanh(z[:, part["g"]])
            next_c = f * prev_c + i * g
            next_h = o * tanh(next_c)
            return next_h, next_c
        return lstm_step
    return [in_order(order) for order in sorted(permutations(names), key=lambda order: order != tuple(names))]


def gru_steps(names: str = "zrn") -> list[Callable]:
    """GRU steps with fused gates: each order of gates, r before or after the product, z for the new or the old."""
    def form(order: tuple[str, ...], reset_after: bool, z_new: bool, bias: bool) -> Callable:
        def gru_step(x, h_prev, Wx, Wh, b=None):
            H = h_prev.shape[1]
            part = {name: slice(k * H, (k + 1) * H) for k, name in enumerate(order)}
            zx = x @ Wx + b if bias else x @ Wx
            z = sigmoid(zx[:, part["z"]] + h_prev @ Wh[:, part["z"]])
            r = sigmoid(zx[:, part["r"]] + h_prev @ Wh[:, part["r"]])
            Whn = Wh[:, part["n"]]
            h_hat = tanh(zx[:, part["n"]] + (r * (h_prev @ Whn) if reset_after else (r * h_prev) @ Whn))
            h_next = (1 - z) * h_prev + z * h_hat if z_new else z * h_prev + (1 - z) * h_hat
            return h_next
        return gru_step
    return [form(order, after, new, bias) for bias in (True, False) for after in (False, True) for new in (True, False)
            for order in permutations(names)]


def over_time(step: Callable, states: int) -> Callable:
    """The sequence of a step: (x (N, T, D), h0, *weights) → h (N, T, H), every other state starting at zero."""
    def sequence(x, h0, *weights):
        state = [h0, *(np.zeros(h0.shape) for _ in range(states - 1))]
        h = []
        for t in range(x.shape[1]):
            new = step(x[:, t, :], *state, *weights)
            state = list(new) if states > 1 else [new]
            h.append(state[0])
        return stack(h, axis=1)
    return sequence


def from_zero(sequence: Callable) -> Callable:
    """A sequence whose first state is zero, (x (N, T, D), Wx, Wh, b) → h."""
    def time_layer(xs, Wx, Wh, *b):
        return sequence(xs, np.zeros((xs.shape[0], Wh.shape[0])), Wx, Wh, *b)
    return time_layer


# -- layers and losses ------------------------------------------------------------------------------------


def rectifier(x):
    return relu(x)


def affine(x, w, b):
    out = x @ w + b
    return out


def embedding(indices: np.ndarray) -> Callable:
    def word_embedding(W):
        return W[indices]
    return word_embedding


def batchnorm(x, gamma, beta):
    centred = x - mean(x, axis=0)
    x_hat = centred / sqrt(mean(centred * centred, axis=0) + 1e-5)
    return gamma * x_hat + beta


def layernorm(x, gamma, beta):
    centred = x - mean(x, axis=1, keepdims=True)
    x_hat = centred / sqrt(mean(centred * centred, axis=1, keepdims=True) + 1e-5)
    return gamma * x_hat + beta


def cross_entropy(labels: np.ndarray, count: float, present: Any = None) -> Callable:
    """−Σ log p[label] / count over the last axis of the scores, of the entries that are present."""
    def loss(x):
        one_hot = np.eye(x.shape[-1])[labels]
        log_p = one_hot * log_softmax(x, axis=-1)
        if present is not None:
            mask = np.expand_dims(present, -1)
            log_p = mask * log_p
        return -total(log_p) / count
    return loss


def min_char(inputs: list[int], targets: list[int], count: float) -> Callable:
    """The loss of min-char-rnn over a sequence of characters: the sum over the steps, or divided by `count`."""
    def lossFun(Wxh, Whh, Why, bh, by, hprev):
        loss, h = 0.0, hprev
        for char, target in zip(inputs, targets):
            h = tanh(Wxh[:, [char]] + Whh @ h + bh)
            log_p = log_softmax(Why @ h + by, axis=0)
            loss = loss - log_p[target, 0]
        return loss / count
    return lossFun

