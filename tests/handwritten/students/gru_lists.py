import numpy as np

class GRU:
    def __init__(self, input_dim, hidden_dim):
        self.hidden_dim = hidden_dim
        k = 1.0 / np.sqrt(hidden_dim)
        for g in "zrh":
            setattr(self, f"W{g}", np.random.uniform(-k, k, (hidden_dim, input_dim)))
            setattr(self, f"U{g}", np.random.uniform(-k, k, (hidden_dim, hidden_dim)))
            setattr(self, f"b{g}", np.zeros(hidden_dim))

    def sigmoid(self, x):
        return 1 / (1 + np.exp(-x))

    def forward(self, xs, h0):
        self.cache = []
        h = h0
        hs = []
        for x in xs:
            z = self.sigmoid(self.Wz @ x + self.Uz @ h + self.bz)
            r = self.sigmoid(self.Wr @ x + self.Ur @ h + self.br)
            hh = np.tanh(self.Wh @ x + self.Uh @ (r * h) + self.bh)
            h_new = (1 - z) * h + z * hh
            self.cache.append((x, h, z, r, hh))
            h = h_new
            hs.append(h)
        return hs

    def backward(self, d_outputs):
        self.grads = {k: np.zeros_like(v) for k, v in vars(self).items() if k[0] in "WUb"}
        g = self.grads
        dh_next = 0
        dxs = []
        for (x, h, z, r, hh), d in zip(reversed(self.cache), reversed(d_outputs)):
            dh = d + dh_next
            dz = dh * (hh - h) * z * (1 - z)
            dhh = dh * z * (1 - hh ** 2)
            drh = self.Uh.T @ dhh
            dr = drh * h * r * (1 - r)
            g["Wz"] += np.outer(dz, x); g["Uz"] += np.outer(dz, h); g["bz"] += dz
            g["Wr"] += np.outer(dr, x); g["Ur"] += np.outer(dr, h); g["br"] += dr
            g["Wh"] += np.outer(dhh, x); g["Uh"] += np.outer(dhh, r * h); g["bh"] += dhh
            dh_next = dh * (1 - z) + drh * r + self.Uz.T @ dz + self.Ur.T @ dr
            dxs.append(self.Wz.T @ dz + self.Wr.T @ dr + self.Wh.T @ dhh)
        return dxs[::-1], dh_next
