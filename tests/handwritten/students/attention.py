import numpy as np

def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)

def attention_forward(x, Wq, Wk, Wv):
    """x (N, T, D)"""
    Q = x @ Wq
    K = x @ Wk
    V = x @ Wv
    scale = 1 / np.sqrt(Wq.shape[1])
    S = Q @ K.transpose(0, 2, 1) * scale
    P = softmax(S)
    out = P @ V
    return out, (x, Wq, Wk, Wv, Q, K, V, P, scale)

def attention_backward(dout, cache):
    x, Wq, Wk, Wv, Q, K, V, P, scale = cache
    dV = P.transpose(0, 2, 1) @ dout
    dP = dout @ V.transpose(0, 2, 1)
    dS = P * (dP - np.sum(dP * P, axis=-1, keepdims=True))
    dQ = dS @ K * scale
    dK = dS.transpose(0, 2, 1) @ Q * scale
    dx = dQ @ Wq.T + dK @ Wk.T + dV @ Wv.T
    dWq = np.sum(x.transpose(0, 2, 1) @ dQ, axis=0)
    dWk = np.sum(x.transpose(0, 2, 1) @ dK, axis=0)
    dWv = np.sum(x.transpose(0, 2, 1) @ dV, axis=0)
    return dx, dWq, dWk, dWv
