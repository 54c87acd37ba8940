import numpy as np

class BiRNN:
    def __init__(self, D, H, seed=0):
        g = np.random.default_rng(seed)
        self.p = {k + s: g.normal(size=sh) * .5 for s in ('f', 'b')
                  for k, sh in (('Wx', (D, H)), ('Wh', (H, H)), ('b', (H,)))}
        self.H = H

    def forward(self, x):
        N, T, D = x.shape
        self.x = x
        self.h = {}
        for s, order in (('f', range(T)), ('b', range(T - 1, -1, -1))):
            h = np.zeros((N, self.H))
            self.h[s] = np.zeros((N, T, self.H))
            for t in order:
                h = np.tanh(x[:, t] @ self.p['Wx' + s] + h @ self.p['Wh' + s] + self.p['b' + s])
                self.h[s][:, t] = h
        return self.h['f'] + self.h['b']         # merge by sum

    def backward(self, dout):
        x = self.x
        N, T, D = x.shape
        self.grads = {k: np.zeros_like(v) for k, v in self.p.items()}
        dx = np.zeros_like(x)
        for s, order, step in (('f', range(T - 1, -1, -1), -1), ('b', range(T), +1)):
            carry = np.zeros((N, self.H))
            for t in order:
                dz = (dout[:, t] + carry) * (1 - self.h[s][:, t] ** 2)
                dx[:, t] += dz @ self.p['Wx' + s].T
                self.grads['Wx' + s] += x[:, t].T @ dz
                self.grads['b' + s] += dz.sum(0)
                if 0 <= t + step < T:
                    self.grads['Wh' + s] += self.h[s][:, t + step].T @ dz
                carry = dz @ self.p['Wh' + s].T
        return dx
