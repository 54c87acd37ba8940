"""rnn and its backward pass, derived by minigrad for x (3, 4), h_prev (5, 4), Wx (5, 3), Wh (5,
5), b (5, 1)."""

import numpy as np


def forward(x, h_prev, Wx, Wh, b):
    h = np.tanh(Wx @ x + Wh @ h_prev + b)
    cache = (x, h_prev, Wx, Wh, h)
    return h, cache


def backward(d_output, cache):
    d_h = d_output
    (x, h_prev, Wx, Wh, h) = cache

    # h = np.tanh(Wx @ x + Wh @ h_prev + b)
    d_h_in = d_h * (1.0 - h * h)
    d_b = np.sum(d_h_in, axis=1, keepdims=True)
    d_Wh = d_h_in @ h_prev.T
    d_h_prev = Wh.T @ d_h_in
    d_Wx = d_h_in @ x.T
    d_x = Wx.T @ d_h_in
    return (d_x, d_h_prev, d_Wx, d_Wh, d_b)
