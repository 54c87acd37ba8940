"""A method that returns the loss and the gradients, on a batch of texts."""
import numpy as np
class Elman:
    def __init__(self, V, H):
        self.V, self.H = V, H
        r = np.random.RandomState(1)
        self.params = dict(W=r.randn(V, H) * .1, U=r.randn(H, H) * .1, b=np.zeros(H), O=r.randn(H, V) * .1, c=np.zeros(V))
    def loss_and_gradients(self, X, Y):
        """X, Y: integer arrays (B, T)"""
        p = self.params
        B, T = X.shape
        hs = np.zeros((T + 1, B, self.H))
        probs = np.zeros((T, B, self.V))
        loss = 0
        for t in range(T):
            hs[t] = np.tanh(p['W'][X[:, t]] + hs[t - 1] @ p['U'] + p['b'])
            z = hs[t] @ p['O'] + p['c']
            z -= z.max(axis=1, keepdims=True)
            probs[t] = np.exp(z)
            probs[t] /= probs[t].sum(axis=1, keepdims=True)
            loss -= np.log(probs[t][np.arange(B), Y[:, t]]).sum()
        loss /= B * T
        grads = {k: np.zeros_like(v) for k, v in p.items()}
        dh = np.zeros((B, self.H))
        for t in range(T)[::-1]:
            dz = probs[t]
            dz[np.arange(B), Y[:, t]] -= 1
            dz /= B * T
            grads['O'] += hs[t].T @ dz
            grads['c'] += dz.sum(0)
            da = (dz @ p['O'].T + dh) * (1 - hs[t] ** 2)
            np.add.at(grads['W'], X[:, t], da)
            grads['U'] += hs[t - 1].T @ da
            grads['b'] += da.sum(0)
            dh = da @ p['U'].T
        return loss, grads
