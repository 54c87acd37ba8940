"""lstm and its backward pass, derived by minigrad for x (3, 4), a_prev (5, 4), c_prev (5, 4), W
(20, 8), b (20, 1)."""

import numpy as np


def sigmoid(x):
    return 0.5 * np.tanh(0.5 * x) + 0.5


def forward(x, a_prev, c_prev, W, b):
    n = a_prev.shape[0]
    concat = np.concatenate([a_prev, x])
    z = W @ concat + b
    gates = sigmoid(z[:3 * n])
    f = gates[:n]
    i = gates[n:2 * n]
    o = gates[2 * n:]
    u = np.tanh(z[3 * n:])
    c = f * c_prev + i * u
    tanh_c = np.tanh(c)
    a = o * tanh_c
    cache = (c_prev, W, concat, gates, f, i, o, u, tanh_c)
    return (a, c), cache


def backward(d_output, cache):
    d_a, d_c = d_output
    (c_prev, W, concat, gates, f, i, o, u, tanh_c) = cache
    n = f.shape[0]

    # a = o * tanh_c
    d_o = d_a * tanh_c
    d_tanh_c = d_a * o

    # tanh_c = np.tanh(c)
    d_c = d_c + d_tanh_c * (1.0 - tanh_c * tanh_c)

    # c = f * c_prev + i * u
    d_i = d_c * u
    d_u = d_c * i
    d_f = d_c * c_prev
    d_c_prev = d_c * f
    d_gates = np.concatenate([d_f, d_i, d_o])

    # gates = sigmoid(z[:3 * n])
    d_z = np.concatenate([d_gates * gates * (1.0 - gates), d_u * (1.0 - u * u)])

    # z = W @ concat + b
    d_b = np.sum(d_z, axis=1, keepdims=True)
    d_W = d_z @ concat.T
    d_concat = W.T @ d_z

    # concat = np.concatenate([a_prev, x])
    d_a_prev = d_concat[:n]
    d_x = d_concat[n:]
    return (d_x, d_a_prev, d_c_prev, d_W, d_b)
