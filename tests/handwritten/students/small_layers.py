"""Layers and losses as classes, each with a habit of its own."""
import numpy as np
class Linear:
    def __init__(self, in_features, out_features):
        self.weight = np.random.randn(out_features, in_features) / np.sqrt(in_features)
        self.bias = np.zeros(out_features)
    def forward(self, x):
        self.x = x
        return x @ self.weight.T + self.bias
    def backward(self, grad):
        self.grad_weight = grad.T @ self.x
        self.grad_bias = grad.sum(axis=0)
        return grad @ self.weight
class ReLU:
    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out
    def backward(self, dout):
        dout[self.mask] = 0
        return dout
class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y
    def backward(self, dy):
        return dy * (1 - self.y ** 2)
class LayerNorm:
    def __init__(self, gamma, beta):
        self.gamma, self.beta = gamma, beta
    def forward(self, x):
        self.mu = x.mean(-1, keepdims=True)
        self.std = np.sqrt(((x - self.mu) ** 2).mean(-1, keepdims=True) + 1e-5)
        self.xhat = (x - self.mu) / self.std
        return self.xhat * self.gamma + self.beta
    def backward(self, dout):
        self.dgamma = (dout * self.xhat).sum(0)
        self.dbeta = dout.sum(0)
        d = dout * self.gamma
        return (d - d.mean(-1, keepdims=True) - self.xhat * (d * self.xhat).mean(-1, keepdims=True)) / self.std
class CrossEntropy:
    def forward(self, logits, labels):
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.p = e / e.sum(axis=1, keepdims=True)
        self.labels = labels
        return -np.mean(np.log(self.p[np.arange(len(labels)), labels]))
    def backward(self):
        d = self.p.copy()
        d[np.arange(len(self.labels)), self.labels] -= 1
        return d / len(self.labels)
class Softmax:
    def forward(self, x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        self.y = e / e.sum(axis=-1, keepdims=True)
        return self.y
    def backward(self, dout):
        s = (dout * self.y).sum(axis=-1, keepdims=True)
        return self.y * (dout - s)
class Embedding:
    def __init__(self, vocab_size, embed_dim):
        self.W = np.random.randn(vocab_size, embed_dim)
    def forward(self, ids):
        self.ids = ids
        return self.W[ids]
    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        for i, word in np.ndenumerate(self.ids):
            self.dW[word] += dout[i]
class Dropout:
    def __init__(self, ratio=0.5):
        self.ratio = ratio
    def forward(self, x):
        self.mask = np.random.rand(*x.shape) > self.ratio
        return x * self.mask
    def backward(self, dout):
        return dout * self.mask
