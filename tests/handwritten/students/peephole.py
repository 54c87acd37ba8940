# An LSTM with peepholes: gates see the cell
import numpy as np

def sigmoid(x):
    return 1 / (1 + np.exp(-x))

def peephole_lstm_forward(x, h_prev, c_prev, Wf, Wi, Wg, Wo, pf, pi, po, bf, bi, bg, bo):
    hx = np.concatenate((h_prev, x), axis=0)
    f = sigmoid(Wf @ hx + pf * c_prev + bf)
    i = sigmoid(Wi @ hx + pi * c_prev + bi)
    g = np.tanh(Wg @ hx + bg)
    c = f * c_prev + i * g
    o = sigmoid(Wo @ hx + po * c + bo)
    h = o * np.tanh(c)
    cache = (x, h_prev, c_prev, hx, f, i, g, c, o, Wf, Wi, Wg, Wo, pf, pi, po)
    return h, c, cache

def peephole_lstm_backward(dh, dc, cache):
    x, h_prev, c_prev, hx, f, i, g, c, o, Wf, Wi, Wg, Wo, pf, pi, po = cache
    H = h_prev.shape[0]
    tanh_c = np.tanh(c)
    do = dh * tanh_c * o * (1 - o)
    dct = dc + dh * o * (1 - tanh_c ** 2) + do * po
    df = dct * c_prev * f * (1 - f)
    di = dct * g * i * (1 - i)
    dg = dct * i * (1 - g ** 2)
    dhx = Wf.T @ df + Wi.T @ di + Wg.T @ dg + Wo.T @ do
    dh_prev = dhx[:H]
    dx = dhx[H:]
    dc_prev = dct * f + df * pf + di * pi
    dWf = df @ hx.T
    dWi = di @ hx.T
    dWg = dg @ hx.T
    dWo = do @ hx.T
    dpf = np.sum(df * c_prev, axis=1, keepdims=True)
    dpi = np.sum(di * c_prev, axis=1, keepdims=True)
    dpo = np.sum(do * c, axis=1, keepdims=True)
    dbf = np.sum(df, axis=1, keepdims=True)
    dbi = np.sum(di, axis=1, keepdims=True)
    dbg = np.sum(dg, axis=1, keepdims=True)
    dbo = np.sum(do, axis=1, keepdims=True)
    return dx, dh_prev, dc_prev, dWf, dWi, dWg, dWo, dpf, dpi, dpo, dbf, dbi, dbg, dbo
