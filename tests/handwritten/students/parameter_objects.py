"""A GRU whose weights are objects with data and grad, as in PyTorch."""
import numpy as np
class Parameter:
    def __init__(self, data):
        self.data = data
        self.grad = np.zeros_like(data)
class Module:
    def parameters(self):
        return [p for p in vars(self).values() if isinstance(p, Parameter)]
    def zero_grad(self):
        for p in self.parameters():
            p.grad[...] = 0
class GRU(Module):
    def __init__(self, input_size, hidden_size):
        k = 1 / np.sqrt(hidden_size)
        self.weight_ih = Parameter(np.random.uniform(-k, k, (3 * hidden_size, input_size)))
        self.weight_hh = Parameter(np.random.uniform(-k, k, (3 * hidden_size, hidden_size)))
        self.bias_ih = Parameter(np.random.uniform(-k, k, 3 * hidden_size))
        self.bias_hh = Parameter(np.random.uniform(-k, k, 3 * hidden_size))
        self.hidden_size = hidden_size
    def forward(self, x, h0):
        """x: (seq_len, batch, input_size)"""
        self.saved = []
        h, out = h0, []
        for t in range(x.shape[0]):
            gi = x[t] @ self.weight_ih.data.T + self.bias_ih.data
            gh = h @ self.weight_hh.data.T + self.bias_hh.data
            i_r, i_z, i_n = np.split(gi, 3, axis=1)
            h_r, h_z, h_n = np.split(gh, 3, axis=1)
            r = 1 / (1 + np.exp(-(i_r + h_r)))
            z = 1 / (1 + np.exp(-(i_z + h_z)))
            n = np.tanh(i_n + r * h_n)
            self.saved.append((x[t], h, r, z, n, h_n))
            h = (1 - z) * n + z * h
            out.append(h)
        return np.stack(out), h
    def backward(self, dout, dhT):
        dh = dhT
        dx = []
        for t in reversed(range(len(self.saved))):
            x, h, r, z, n, h_n = self.saved[t]
            dh = dh + dout[t]
            dn = dh * (1 - z) * (1 - n ** 2)
            dz = dh * (h - n) * z * (1 - z)
            dr = dn * h_n * r * (1 - r)
            gi = np.concatenate([dr, dz, dn], axis=1)
            gh = np.concatenate([dr, dz, dn * r], axis=1)
            self.weight_ih.grad += gi.T @ x
            self.weight_hh.grad += gh.T @ h
            self.bias_ih.grad += gi.sum(0)
            self.bias_hh.grad += gh.sum(0)
            dx.append(gi @ self.weight_ih.data)
            dh = dh * z + gh @ self.weight_hh.data
        return np.stack(dx[::-1]), dh
