"""Dicts of weights for each gate, a loss and its gradients as two methods, np.c_ and take_along_axis."""
import numpy as np


class Net:
    def __init__(self, D, H, K, seed=0):
        r = np.random.RandomState(seed)
        self.W = {k: r.randn(D + H, H) for k in "fig"}
        self.b = {k: np.zeros(H) for k in "fig"}
        self.V = r.randn(H, K)

    def run(self, x, keep):
        h, tape = np.zeros((x.shape[0], self.V.shape[0])), []
        for t in range(x.shape[1]):
            v = np.c_[x[:, t], h]
            f, i = (1 / (1 + np.exp(-(v @ self.W[k] + self.b[k]))) for k in "fi")
            g = np.tanh(v @ self.W["g"] + self.b["g"])
            tape.append((v, f, i, g, h, keep[:, t]))
            h = np.where(keep[:, t], h, f * h + i * g)
        return h @ self.V, h, tape

    def loss(self, x, labels, keep):
        z = self.run(x, keep)[0]
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -np.take_along_axis(log_p, labels[:, None], axis=1).mean()

    def gradients(self, x, labels, keep):
        z, h, tape = self.run(x, keep)
        dz = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        dz[np.arange(len(labels)), labels] -= 1
        dz /= len(labels)
        dV, dh = h.T @ dz, dz @ self.V.T
        dW = {k: np.zeros_like(w) for k, w in self.W.items()}
        db = {k: np.zeros_like(b) for k, b in self.b.items()}
        for v, f, i, g, h, kept in reversed(tape):
            d = np.where(kept, 0, dh)
            dh = np.where(kept, dh, dh * f)
            for k, dk in (("f", d * h * f * (1 - f)), ("i", d * g * i * (1 - i)), ("g", d * i * (1 - g ** 2))):
                dW[k] += v.T @ dk
                db[k] += dk.sum(axis=0)
                dh = dh + (dk @ self.W[k].T)[:, x.shape[2]:]
        return dW, db, dV
