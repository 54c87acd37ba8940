"""A backward that takes the step itself, by a learning rate with a default."""
import numpy as np
class RNNNet:
    def __init__(self, n_in, n_hid, n_out, learning_rate=0.1):
        self.Wx = np.random.randn(n_hid, n_in) * 0.1
        self.Wh = np.random.randn(n_hid, n_hid) * 0.1
        self.Wo = np.random.randn(n_out, n_hid) * 0.1
        self.bh = np.zeros((n_hid, 1))
        self.bo = np.zeros((n_out, 1))
        self.lr = learning_rate
    def forward(self, xs):
        self.xs = xs
        self.hs = [np.zeros((self.Wh.shape[0], 1))]
        self.ys = []
        for x in xs:
            self.hs.append(np.tanh(self.Wx @ x + self.Wh @ self.hs[-1] + self.bh))
            self.ys.append(self.Wo @ self.hs[-1] + self.bo)
        return self.ys
    def backward(self, targets):
        gWx, gWh, gWo = np.zeros_like(self.Wx), np.zeros_like(self.Wh), np.zeros_like(self.Wo)
        gbh, gbo = np.zeros_like(self.bh), np.zeros_like(self.bo)
        dh = 0
        for t in reversed(range(len(targets))):
            dy = self.ys[t] - targets[t]
            gWo += dy @ self.hs[t+1].T
            gbo += dy
            dz = (self.Wo.T @ dy + dh) * (1 - self.hs[t+1]**2)
            gWx += dz @ self.xs[t].T
            gWh += dz @ self.hs[t].T
            gbh += dz
            dh = self.Wh.T @ dz
        self.Wx -= self.lr * gWx
        self.Wh -= self.lr * gWh
        self.Wo -= self.lr * gWo
        self.bh -= self.lr * gbh
        self.bo -= self.lr * gbo
