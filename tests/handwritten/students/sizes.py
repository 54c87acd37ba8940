"""Classes made from sizes: a cell with a dict of weights, a network with attributes and its own loop."""
import numpy as np

def sigmoid(x):
    return 1. / (1. + np.exp(-x))

class LSTMCell:
    def __init__(self, n_in, n_hid, seed=1):
        r = np.random.RandomState(seed)
        self.n_hid = n_hid
        self.params = {
            "Wf": r.randn(n_in + n_hid, n_hid) * 0.1, "bf": np.ones(n_hid),
            "Wi": r.randn(n_in + n_hid, n_hid) * 0.1, "bi": np.zeros(n_hid),
            "Wg": r.randn(n_in + n_hid, n_hid) * 0.1, "bg": np.zeros(n_hid),
            "Wo": r.randn(n_in + n_hid, n_hid) * 0.1, "bo": np.zeros(n_hid),
        }
        self.grads = {k: np.zeros_like(v) for k, v in self.params.items()}

    def forward(self, x, h_prev, c_prev):
        p = self.params
        z = np.hstack([h_prev, x])
        f = sigmoid(z @ p["Wf"] + p["bf"])
        i = sigmoid(z @ p["Wi"] + p["bi"])
        g = np.tanh(z @ p["Wg"] + p["bg"])
        o = sigmoid(z @ p["Wo"] + p["bo"])
        c = f * c_prev + i * g
        h = o * np.tanh(c)
        self.cache = z, f, i, g, o, c, c_prev
        return h, c

    def backward(self, dh, dc):
        p = self.params
        z, f, i, g, o, c, c_prev = self.cache
        tc = np.tanh(c)
        do = dh * tc * o * (1 - o)
        dct = dc + dh * o * (1 - tc * tc)
        df = dct * c_prev * f * (1 - f)
        di = dct * g * i * (1 - i)
        dg = dct * i * (1 - g * g)
        dz = 0
        for name, d in zip("figo", (df, di, dg, do)):
            self.grads["W" + name] = z.T @ d
            self.grads["b" + name] = d.sum(axis=0)
            dz = dz + d @ p["W" + name].T
        return dz[:, self.n_hid:], dz[:, :self.n_hid], dct * f


class VanillaRNN:
    """many to many, batch first"""
    def __init__(self, input_dim, hidden_dim, output_dim, lr=0.01):
        rng = np.random.default_rng(0)
        self.hidden_dim = hidden_dim
        self.Wxh = rng.normal(0, 0.1, (input_dim, hidden_dim))
        self.Whh = rng.normal(0, 0.1, (hidden_dim, hidden_dim))
        self.Why = rng.normal(0, 0.1, (hidden_dim, output_dim))
        self.bh = np.zeros(hidden_dim)
        self.by = np.zeros(output_dim)
        self.lr = lr

    def forward(self, xs):
        N, T, D = xs.shape
        self.xs = xs
        self.hs = {-1: np.zeros((N, self.hidden_dim))}
        ys = []
        for t in range(T):
            self.hs[t] = np.tanh(xs[:, t] @ self.Wxh + self.hs[t - 1] @ self.Whh + self.bh)
            ys.append(self.hs[t] @ self.Why + self.by)
        return np.stack(ys, axis=1)

    def backward(self, dys):
        N, T, V = dys.shape
        self.grads = {"Wxh": np.zeros_like(self.Wxh), "Whh": np.zeros_like(self.Whh), "Why": np.zeros_like(self.Why),
                      "bh": np.zeros_like(self.bh), "by": np.zeros_like(self.by)}
        dxs = np.zeros_like(self.xs)
        dh_next = np.zeros((N, self.hidden_dim))
        for t in reversed(range(T)):
            self.grads["Why"] += self.hs[t].T @ dys[:, t]
            self.grads["by"] += dys[:, t].sum(axis=0)
            dh = dys[:, t] @ self.Why.T + dh_next
            dz = dh * (1 - self.hs[t] ** 2)
            self.grads["Wxh"] += self.xs[:, t].T @ dz
            self.grads["Whh"] += self.hs[t - 1].T @ dz
            self.grads["bh"] += dz.sum(axis=0)
            dxs[:, t] = dz @ self.Wxh.T
            dh_next = dz @ self.Whh.T
        return dxs
