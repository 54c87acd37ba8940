import numpy as np

def relu(x): return np.maximum(x, 0)
def sigmoid(x): return 1 / (1 + np.exp(-x))

def highway_forward(x, Wh, bh, Wt, bt):
    """y = T(x) * H(x) + (1 - T(x)) * x"""
    a = x.dot(Wh) + bh
    T = sigmoid(x.dot(Wt) + bt)
    Hx = relu(a)
    y = x + T * (Hx - x)
    return y, (x, a, T, Hx, Wh, Wt)

def highway_backward(dy, cache):
    x, a, T, Hx, Wh, Wt = cache
    da = dy * T * (a > 0)
    dt = dy * (Hx - x) * T * (1 - T)
    dx = dy * (1 - T)
    dx += da.dot(Wh.T)
    dx += dt.dot(Wt.T)
    return dx, x.T.dot(da), da.sum(axis=0), x.T.dot(dt), dt.sum(axis=0)
