"""Cells as a user writes them; their derived texts are in tests/golden."""

import numpy as np

import minigrad as mg
from minigrad.document import lstm_cell_forward


def rnn(x, h_prev, Wx, Wh, b):
    h = np.tanh(Wx @ x + Wh @ h_prev + b)
    return h


def gru(x, h_prev, W, U, b):
    n = h_prev.shape[0]
    wx = W @ x + b
    uh = U @ h_prev
    r = mg.sigmoid(wx[:n] + uh[:n])
    z = mg.sigmoid(wx[n:2 * n] + uh[n:2 * n])
    candidate = np.tanh(wx[2 * n:] + r * uh[2 * n:])
    h = (1 - z) * candidate + z * h_prev
    return h


def lstm(x, a_prev, c_prev, W, b):
    n = a_prev.shape[0]
    concat = np.concatenate([a_prev, x])
    z = W @ concat + b
    gates = mg.sigmoid(z[:3 * n])
    f, i, o = np.split(gates, 3)
    u = np.tanh(z[3 * n:])
    c = f * c_prev + i * u
    a = o * np.tanh(c)
    return a, c


def lstm_layer(x, a0, c0, W, b):
    """x (T, n_x, m): the cell above over time."""
    def cell(state, xt):
        a, c = lstm(xt, *state, W, b)
        return (a, c), a
    (a_last, _), hidden = mg.scan(cell, (a0, c0), x)
    return hidden, a_last


def document(x_t, a_prev, c_prev, parameters):
    a_next, c_next, yt_pred, _ = lstm_cell_forward(x_t, a_prev, c_prev, parameters)
    return a_next, c_next, yt_pred


def examples(dtype=np.float64):
    """{cell: its arguments}, m = 4 examples, n_x = 3 inputs, n_a = 5 units."""
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.normal(size=shape).astype(dtype)
    x, h, c = array(3, 4), array(5, 4), array(5, 4)
    parameters = {}
    for gate in "fico":
        parameters |= {f"W{gate}": array(5, 8), f"b{gate}": array(5, 1)}
    parameters |= {"Wy": array(2, 5), "by": array(2, 1)}
    return {rnn: (x, h, array(5, 3), array(5, 5), array(5, 1)),
            gru: (x, h, array(15, 3), array(15, 5), array(15, 1)),
            lstm: (x, h, c, array(20, 8), array(20, 1)),
            lstm_layer: (array(6, 3, 4), h, c, array(20, 8), array(20, 1)),
            document: (x, h, c, parameters)}
