"""One-hot targets among the arguments of the forward, classes first."""
import numpy as np
def initialize(n_x, n_h, n_y):
    return {"Wxh": np.random.randn(n_h, n_x), "Whh": np.random.randn(n_h, n_h), "Why": np.random.randn(n_y, n_h),
            "bh": np.zeros((n_h, 1)), "by": np.zeros((n_y, 1))}
def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)
def rnn_forward(x, y, h_prev, parameters):
    """x: (n_x, m, T) ; y: (n_y, m, T) one-hot"""
    T = x.shape[2]
    h = {-1: h_prev}
    p = {}
    loss = 0
    for t in range(T):
        h[t] = np.tanh(parameters["Wxh"] @ x[:, :, t] + parameters["Whh"] @ h[t-1] + parameters["bh"])
        p[t] = softmax(parameters["Why"] @ h[t] + parameters["by"])
        loss -= np.sum(y[:, :, t] * np.log(p[t]))
    m = x.shape[1]
    cache = (h, p, x, y, parameters)
    return loss / m, cache
def rnn_backward(cache):
    h, p, x, y, parameters = cache
    m, T = x.shape[1], x.shape[2]
    grads = {"d" + k: np.zeros_like(v) for k, v in parameters.items()}
    dh_next = np.zeros_like(h[0])
    for t in reversed(range(T)):
        dy = (p[t] - y[:, :, t]) / m
        grads["dWhy"] += dy @ h[t].T
        grads["dby"] += dy.sum(axis=1, keepdims=True)
        dz = (parameters["Why"].T @ dy + dh_next) * (1 - h[t] ** 2)
        grads["dWxh"] += dz @ x[:, :, t].T
        grads["dWhh"] += dz @ h[t-1].T
        grads["dbh"] += dz.sum(axis=1, keepdims=True)
        dh_next = parameters["Whh"].T @ dz
    return grads
