import numpy as np

class Softmax:
    def forward(self, x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        self.out = e / e.sum(axis=-1, keepdims=True)
        return self.out

    def backward(self, dout):
        dx = self.out * dout
        return dx - self.out * dx.sum(axis=-1, keepdims=True)

class AttentionWeight:
    def __init__(self):
        self.softmax = Softmax()

    def forward(self, hs, h):
        self.hs = hs
        self.hr = h[:, None, :]
        return self.softmax.forward((hs * self.hr).sum(axis=2))

    def backward(self, da):
        ds = self.softmax.backward(da)
        dt = ds[:, :, None]
        dhs = dt * self.hr
        dh = (dt * self.hs).sum(axis=1)
        return dhs, dh

class WeightSum:
    def forward(self, hs, a):
        self.hs, self.a = hs, a
        return np.einsum('nth,nt->nh', hs, a)

    def backward(self, dc):
        return self.a[:, :, None] * dc[:, None, :], np.einsum('nth,nh->nt', self.hs, dc)

class Attention:
    """encoder states hs (N, T, H), decoder state h (N, H) -> context (N, H)"""
    def __init__(self):
        self.w, self.s = AttentionWeight(), WeightSum()

    def forward(self, hs, h):
        return self.s.forward(hs, self.w.forward(hs, h))

    def backward(self, dout):
        dhs0, da = self.s.backward(dout)
        dhs1, dh = self.w.backward(da)
        return dhs0 + dhs1, dh
