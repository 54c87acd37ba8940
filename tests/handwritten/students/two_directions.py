"""A bidirectional LSTM: two dicts of weights with the same keys."""
import numpy as np
sigmoid = lambda x: 1 / (1 + np.exp(-x))
def lstm_forward(x, params):
    Wx, Wh, b = params['Wx'], params['Wh'], params['b']
    N, T, _ = x.shape
    H = Wh.shape[0]
    h, c = np.zeros((N, H)), np.zeros((N, H))
    out, cache = np.zeros((N, T, H)), []
    for t in range(T):
        i, f, g, o = np.split(x[:, t] @ Wx + h @ Wh + b, 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        cache.append([x[:, t], h, c, i, f, g, o])
        c = f * c + i * g
        h = o * np.tanh(c)
        cache[-1].append(c)
        out[:, t] = h
    return out, cache
def lstm_backward(dout, cache, params):
    Wx, Wh, b = params['Wx'], params['Wh'], params['b']
    N, T, H = dout.shape
    grads = {k: np.zeros_like(v) for k, v in params.items()}
    dx = np.zeros((N, T, Wx.shape[0]))
    dh, dc = np.zeros((N, H)), np.zeros((N, H))
    for t in reversed(range(T)):
        xt, h, c_prev, i, f, g, o, c = cache[t]
        dh = dh + dout[:, t]
        tc = np.tanh(c)
        do = dh * tc * o * (1 - o)
        dc = dc + dh * o * (1 - tc ** 2)
        da = np.concatenate([dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g ** 2), do], axis=-1)
        grads['Wx'] += xt.T @ da
        grads['Wh'] += h.T @ da
        grads['b'] += da.sum(axis=0)
        dx[:, t] = da @ Wx.T
        dh = da @ Wh.T
        dc = dc * f
    return dx, grads
def bilstm_forward(x, p):
    out_f, cf = lstm_forward(x, p['fwd'])
    out_b, cb = lstm_forward(x[:, ::-1], p['bwd'])
    return np.concatenate([out_f, out_b[:, ::-1]], axis=2), (cf, cb)
def bilstm_backward(dout, cache, p):
    cf, cb = cache
    H = dout.shape[2] // 2
    dxf, gf = lstm_backward(dout[:, :, :H], cf, p['fwd'])
    dxb, gb = lstm_backward(dout[:, ::-1, H:], cb, p['bwd'])
    return dxf + dxb[:, ::-1], {'fwd': gf, 'bwd': gb}
