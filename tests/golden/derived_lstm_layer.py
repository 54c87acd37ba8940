"""lstm_layer and its backward pass, derived by minigrad for x (6, 3, 4), a0 (5, 4), c0 (5, 4), W
(20, 8), b (20, 1)."""

import numpy as np


def sigmoid(x):
    return 0.5 * np.tanh(0.5 * x) + 0.5


def forward(x, a0, c0, W, b):
    T = x.shape[0]
    n = a0.shape[0]
    c_prev_over_time = np.empty((T, *c0.shape), np.float64)
    concat = np.empty((T, n + x.shape[1], a0.shape[1]), np.float64)
    gates = np.empty((T, 3 * n, a0.shape[1]), np.float64)
    u = np.empty((T, W.shape[0] - 3 * n, a0.shape[1]), np.float64)
    tanh_c = np.empty((T, *a0.shape), np.float64)
    hidden = np.empty((T, *a0.shape), np.float64)
    a_prev = a0
    c_prev = c0
    for t in range(T):
        c_prev_over_time[t] = c_prev
        concat[t] = np.concatenate([a_prev, x[t]])
        z = W @ concat[t] + b
        gates[t] = sigmoid(z[:3 * n])
        f = gates[t][:n]
        i = gates[t][n:2 * n]
        o = gates[t][2 * n:]
        u[t] = np.tanh(z[3 * n:])
        c = f * c_prev + i * u[t]
        tanh_c[t] = np.tanh(c)
        hidden[t] = o * tanh_c[t]
        a_prev, c_prev = hidden[t], c
    a_last = a_prev
    cache = (W, c_prev_over_time, concat, gates, u, tanh_c)
    return (hidden, a_last), cache


def backward(d_output, cache):
    d_hidden, d_a_last = d_output
    (W, c_prev_over_time, concat, gates, u, tanh_c) = cache
    T = c_prev_over_time.shape[0]
    n = tanh_c.shape[1]

    # for t in range(T):
    d_z = np.empty((T, W.shape[0], concat.shape[2]), np.float64)
    d_x = np.empty((T, W.shape[1] - n, concat.shape[2]), np.float64)
    d_a_prev = d_a_last
    d_c_prev = np.zeros(c_prev_over_time.shape[1:], np.float64)
    for t in reversed(range(T)):
        d_a = d_a_prev + d_hidden[t]
        d_c = d_c_prev
        f = gates[t][:n]
        i = gates[t][n:2 * n]
        o = gates[t][2 * n:]

        # hidden[t] = o * tanh_c[t]
        d_o = d_a * tanh_c[t]
        d_tanh_c = d_a * o

        # tanh_c[t] = np.tanh(c)
        d_c = d_c + d_tanh_c * (1.0 - tanh_c[t] * tanh_c[t])

        # c = f * c_prev + i * u[t]
        d_i = d_c * u[t]
        d_u = d_c * i
        d_f = d_c * c_prev_over_time[t]
        d_c_prev = d_c * f
        d_gates = np.concatenate([d_f, d_i, d_o])

        # gates[t] = sigmoid(z[:3 * n])
        d_z[t] = np.concatenate([d_gates * gates[t] * (1.0 - gates[t]), d_u * (1.0 - u[t] * u[t])])

        # z = W @ concat[t] + b
        d_concat = W.T @ d_z[t]

        # concat[t] = np.concatenate([a_prev, x[t]])
        d_a_prev = d_concat[:n]
        d_x[t] = d_concat[n:]
    d_a0, d_c0 = d_a_prev, d_c_prev
    d_W = np.einsum("tib,tjb->ij", d_z, concat, optimize=True)
    d_b = np.sum(d_z, axis=(0, 2), keepdims=True)[0]
    return (d_x, d_a0, d_c0, d_W, d_b)
