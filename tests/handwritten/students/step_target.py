import numpy as np

def sigmoid(x): return 1 / (1 + np.exp(-x))

def forward(x, h_prev, C_prev, p):
    z = np.vstack((h_prev, x))
    f = sigmoid(np.dot(p["W_f"], z) + p["b_f"])
    i = sigmoid(np.dot(p["W_i"], z) + p["b_i"])
    C_bar = np.tanh(np.dot(p["W_C"], z) + p["b_C"])
    C = f * C_prev + i * C_bar
    o = sigmoid(np.dot(p["W_o"], z) + p["b_o"])
    h = o * np.tanh(C)
    v = np.dot(p["W_v"], h) + p["b_v"]
    y = np.exp(v) / np.sum(np.exp(v))
    return z, f, i, C_bar, C, o, h, v, y

def backward(target, dh_next, dC_next, C_prev, z, f, i, C_bar, C, o, h, v, y, p):
    g = {}
    dv = np.copy(y)
    dv[target] -= 1
    g["W_v"] = np.dot(dv, h.T)
    g["b_v"] = dv
    dh = np.dot(p["W_v"].T, dv)
    dh += dh_next
    do = dh * np.tanh(C)
    do = o * (1 - o) * do
    g["W_o"] = np.dot(do, z.T)
    g["b_o"] = do
    dC = np.copy(dC_next)
    dC += dh * o * (1 - np.tanh(C) ** 2)
    dC_bar = dC * i
    dC_bar = (1 - C_bar ** 2) * dC_bar
    g["W_C"] = np.dot(dC_bar, z.T)
    g["b_C"] = dC_bar
    di = dC * C_bar
    di = i * (1 - i) * di
    g["W_i"] = np.dot(di, z.T)
    g["b_i"] = di
    df = dC * C_prev
    df = f * (1 - f) * df
    g["W_f"] = np.dot(df, z.T)
    g["b_f"] = df
    dz = (np.dot(p["W_f"].T, df) + np.dot(p["W_i"].T, di) + np.dot(p["W_C"].T, dC_bar) + np.dot(p["W_o"].T, do))
    dh_prev = dz[:h.shape[0], :]
    dC_prev = f * dC
    return dh_prev, dC_prev, g
