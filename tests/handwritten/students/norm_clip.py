"""Gradients scaled to a norm of 5 before they are returned."""
import numpy as np
def rnn_loss(params, inputs, targets, h0):
    Wx, Wh, Wy, bh, by = params
    T = len(inputs)
    hs, ps = [h0], []
    loss = 0
    for t in range(T):
        h = np.tanh(Wx[inputs[t]] + hs[-1] @ Wh + bh)
        s = h @ Wy + by
        s = s - np.max(s)
        p = np.exp(s) / np.sum(np.exp(s))
        loss += -np.log(p[targets[t]])
        hs.append(h); ps.append(p)
    dWx, dWh, dWy, dbh, dby = [np.zeros_like(p) for p in params]
    dh = np.zeros_like(h0)
    for t in range(T - 1, -1, -1):
        ds = ps[t].copy()
        ds[targets[t]] -= 1
        dWy += np.outer(hs[t + 1], ds)
        dby += ds
        dz = (ds @ Wy.T + dh) * (1 - hs[t + 1] ** 2)
        dWx[inputs[t]] += dz
        dWh += np.outer(hs[t], dz)
        dbh += dz
        dh = dz @ Wh.T
    grads = [dWx, dWh, dWy, dbh, dby]
    norm = np.sqrt(sum((g ** 2).sum() for g in grads))
    if norm > 5.0:
        grads = [g * 5.0 / norm for g in grads]
    return loss, grads, hs[-1]
