"""Names of their own: forward_…, …_bwd, computed keys, a sequence in a class called RNN, time first, losses."""
import numpy as np
# names the other way round, helper per gate, cache with None
def sigmoid(z): return 1/(1+np.exp(-z))
def gate(W, b, u, act): return act(np.dot(W, u) + b)
def forward_lstm_cell(x_t, h_prev, c_prev, params):
    u = np.vstack([h_prev, x_t])
    f, i, o = (gate(params['W' + k], params['b' + k], u, sigmoid) for k in 'fio')
    g = gate(params['Wg'], params['bg'], u, np.tanh)
    c = f * c_prev + i * g
    h = o * np.tanh(c)
    return h, c, dict(u=u, f=f, i=i, o=o, g=g, c=c, c_prev=c_prev, params=params, n=h.shape[0])
def backward_lstm_cell(dh, dc, cache):
    f, i, o, g, c = (cache[k] for k in 'fiogc')
    dc = dc + dh * o * (1 - np.tanh(c) ** 2)
    d = {'o': dh * np.tanh(c) * o * (1 - o), 'f': dc * cache['c_prev'] * f * (1 - f), 'i': dc * g * i * (1 - i), 'g': dc * i * (1 - g ** 2)}
    du = sum(cache['params']['W' + k].T @ d[k] for k in d)
    grads = {}
    for k in d:
        grads['dW' + k] = d[k] @ cache['u'].T
        grads['db' + k] = d[k].sum(axis=1, keepdims=True)
    return du[cache['n']:], du[:cache['n']], dc * f, grads


def rnn_fwd(x, h0, p):
    hs = [h0]
    for t in range(x.shape[1]):
        hs.append(np.tanh(x[:, t] @ p["W"] + hs[-1] @ p["U"] + p["b"]))
    return np.stack(hs[1:], 1), (x, hs, p)
def rnn_bwd(dh, cache):
    x, hs, p = cache
    g = {k: np.zeros_like(v) for k, v in p.items()}
    dx, d = np.zeros_like(x), 0
    for t in reversed(range(x.shape[1])):
        dz = (dh[:, t] + d) * (1 - hs[t + 1] ** 2)
        g["W"] += x[:, t].T @ dz
        g["U"] += hs[t].T @ dz
        g["b"] += dz.sum(0)
        dx[:, t] = dz @ p["W"].T
        d = dz @ p["U"].T
    return dx, d, g


class SimpleRNN:
    def __init__(self, Wx, Wh, b, return_sequences=True):
        self.Wx, self.Wh, self.b = Wx, Wh, b
    def forward(self, x, h0):
        self.x, self.hs = x, [h0]
        for t in range(x.shape[0]):
            self.hs.append(np.tanh(self.hs[-1] @ self.Wh + x[t] @ self.Wx + self.b))
        return np.stack(self.hs[1:])
    def backward(self, dout):
        dWx, dWh, db = [np.zeros_like(p) for p in (self.Wx, self.Wh, self.b)]
        dx, dh = np.zeros_like(self.x), np.zeros_like(self.hs[0])
        for t in range(len(self.x) - 1, -1, -1):
            dz = (dout[t] + dh) * (1 - self.hs[t + 1] ** 2)
            dWx += self.x[t].T @ dz; dWh += self.hs[t].T @ dz; db += dz.sum(0)
            dx[t], dh = dz @ self.Wx.T, dz @ self.Wh.T
        self.grads = [dWx, dWh, db]
        return dx, dh


class MSE:
    def forward(self, y_pred, y_true):
        self.diff = y_pred - y_true
        return np.mean(self.diff ** 2)
    def backward(self):
        return 2 * self.diff / self.diff.size
class BCEWithSigmoid:
    def forward(self, x, t):
        self.t = t
        self.y = 1 / (1 + np.exp(-x))
        return -np.mean(t * np.log(self.y + 1e-7) + (1 - t) * np.log(1 - self.y + 1e-7))
    def backward(self, dout=1):
        return dout * (self.y - self.t) / self.t.size
