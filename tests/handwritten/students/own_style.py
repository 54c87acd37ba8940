"""The course's functions in a terse style, with caches and keys of its own."""

from __future__ import print_function, division
from builtins import range, object
import numpy as np
from typing import Tuple
def sigmoid(x): return 1 / (1 + np.exp(-x))
def lstm_cell_forward(x_t, a_prev, c_prev, parameters):
    p = parameters
    z = np.vstack((a_prev, x_t))
    f = sigmoid(p["Wf"] @ z + p["bf"]); i = sigmoid(p["Wi"] @ z + p["bi"])
    g = np.tanh(p["Wc"] @ z + p["bc"]); o = sigmoid(p["Wo"] @ z + p["bo"])
    c = f * c_prev + i * g
    a = o * np.tanh(c)
    e = np.exp(p["Wy"] @ a + p["by"])
    return a, c, e / e.sum(0), {"z": z, "f": f, "i": i, "g": g, "o": o, "c": c, "c_prev": c_prev, "n": a.shape[0], "p": p}
def lstm_cell_backward(da_next, dc_next, cache):
    z, f, i, g, o, c, c_prev, n, p = (cache[k] for k in ("z", "f", "i", "g", "o", "c", "c_prev", "n", "p"))
    dc = dc_next + da_next * o * (1 - np.tanh(c) ** 2)
    do, df, di, dg = da_next * np.tanh(c) * o * (1 - o), dc * c_prev * f * (1 - f), dc * g * i * (1 - i), dc * i * (1 - g ** 2)
    dz = p["Wf"].T @ df + p["Wi"].T @ di + p["Wc"].T @ dg + p["Wo"].T @ do
    return {"dx_t": dz[n:], "da_prev": dz[:n], "dc_prev": dc * f, "dWf": df @ z.T, "dWi": di @ z.T, "dWc": dg @ z.T, "dWo": do @ z.T,
            "dbf": df.sum(1, keepdims=True), "dbi": di.sum(1, keepdims=True), "dbc": dg.sum(1, keepdims=True), "dbo": do.sum(1, keepdims=True)}
def lstm_forward(x, a0, parameters):
    a = np.zeros((*a0.shape, x.shape[2])); c = np.zeros_like(a0); h = a0; caches = []
    for t in range(x.shape[2]):
        h, c, _, k = lstm_cell_forward(x[:, :, t], h, c, parameters)
        a[:, :, t] = h; caches.append(k)
    return a, caches
def lstm_backward(da, caches):
    dx, da_next, dc_next, g = [], 0, 0, None
    for t in reversed(range(da.shape[2])):
        s = lstm_cell_backward(da[:, :, t] + da_next, dc_next, caches[t])
        da_next, dc_next = s["da_prev"], s["dc_prev"]
        dx.insert(0, s["dx_t"])
        w = {k: v for k, v in s.items() if k[1] in "Wb"}
        g = w if g is None else {k: g[k] + w[k] for k in g}
    return {"dx": np.stack(dx, axis=2), "da0": da_next, **g}
