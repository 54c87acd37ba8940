"""gru and its backward pass, derived by minigrad for x (3, 4), h_prev (5, 4), W (15, 3), U (15,
5), b (15, 1)."""

import numpy as np


def sigmoid(x):
    return 0.5 * np.tanh(0.5 * x) + 0.5


def forward(x, h_prev, W, U, b):
    n = h_prev.shape[0]
    wx = W @ x + b
    uh = U @ h_prev
    r = sigmoid(wx[:n] + uh[:n])
    z = sigmoid(wx[n:2 * n] + uh[n:2 * n])
    candidate = np.tanh(wx[2 * n:] + r * uh[2 * n:])
    t1 = 1 - z
    h = t1 * candidate + z * h_prev
    cache = (x, h_prev, W, U, uh, r, z, candidate, t1)
    return h, cache


def backward(d_output, cache):
    d_h = d_output
    (x, h_prev, W, U, uh, r, z, candidate, t1) = cache
    n = h_prev.shape[0]

    # h = t1 * candidate + z * h_prev
    d_t1 = d_h * candidate
    d_candidate = d_h * t1

    # t1 = 1 - z
    d_z = d_h * h_prev - d_t1

    # candidate = np.tanh(wx[2 * n:] + r * uh[2 * n:])
    d_candidate_in = d_candidate * (1.0 - candidate * candidate)
    d_r = d_candidate_in * uh[2 * n:]

    # z = sigmoid(wx[n:2 * n] + uh[n:2 * n])
    d_z_in = d_z * z * (1.0 - z)

    # r = sigmoid(wx[:n] + uh[:n])
    d_r_in = d_r * r * (1.0 - r)
    d_uh = np.concatenate([d_r_in, d_z_in, d_candidate_in * r])
    d_wx = np.concatenate([d_r_in, d_z_in, d_candidate_in])

    # uh = U @ h_prev
    d_U = d_uh @ h_prev.T
    d_h_prev = d_h * z + U.T @ d_uh

    # wx = W @ x + b
    d_b = np.sum(d_wx, axis=1, keepdims=True)
    d_W = d_wx @ x.T
    d_x = W.T @ d_wx
    return (d_x, d_h_prev, d_W, d_U, d_b)
