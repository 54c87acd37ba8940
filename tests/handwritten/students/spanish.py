"""A pair of functions that only their arguments and results tell."""
import numpy as np
def adelante(x, a0, Wx, Wa, b, Wy, by):
    """x: (T, n_x), a0: (n_a,)"""
    a, estados, salidas = a0, [], []
    for xt in x:
        a = np.tanh(Wx.dot(xt) + Wa.dot(a) + b)
        estados.append(a)
        salidas.append(Wy.dot(a) + by)
    return np.array(salidas), (x, a0, estados, Wx, Wa, Wy)
def atras(dy, memoria):
    x, a0, estados, Wx, Wa, Wy = memoria
    dWx, dWa, dWy = np.zeros_like(Wx), np.zeros_like(Wa), np.zeros_like(Wy)
    db, dby = np.zeros(len(a0)), np.zeros(dy.shape[1])
    dx = np.zeros_like(x)
    da = np.zeros_like(a0)
    for t in range(len(x) - 1, -1, -1):
        dWy += np.outer(dy[t], estados[t])
        dby += dy[t]
        dz = (Wy.T.dot(dy[t]) + da) * (1 - estados[t] ** 2)
        anterior = estados[t - 1] if t > 0 else a0
        dWx += np.outer(dz, x[t])
        dWa += np.outer(dz, anterior)
        db += dz
        dx[t] = Wx.T.dot(dz)
        da = Wa.T.dot(dz)
    return dx, da, dWx, dWa, db, dWy, dby
