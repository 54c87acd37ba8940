"""An RNN that is made of layers, whose weights are its own."""
import numpy as np
class Layer:
    def forward(self, *a): raise NotImplementedError
    def backward(self, *a): raise NotImplementedError
class Dense(Layer):
    def __init__(self, n_in, n_out):
        self.W = np.random.randn(n_in, n_out); self.b = np.zeros((1, n_out))
    def forward(self, X):
        self.X = X
        return X @ self.W + self.b
    def backward(self, grad):
        self.dW = self.X.T @ grad
        self.db = grad.sum(axis=0, keepdims=True)
        return grad @ self.W.T
class RNN(Layer):
    def __init__(self, n_in, n_hidden, n_out):
        self.i2h = Dense(n_in + n_hidden, n_hidden)
        self.h2o = Dense(n_hidden, n_out)
        self.n_hidden = n_hidden
    def forward(self, X):
        """X: (batch, time, n_in)"""
        h = np.zeros((X.shape[0], self.n_hidden))
        self.store, outs = [], []
        for t in range(X.shape[1]):
            z = self.i2h.forward(np.hstack([X[:, t], h]))
            h_new = np.tanh(z)
            outs.append(self.h2o.forward(h_new))
            self.store.append((self.i2h.X, h_new))
            h = h_new
        return np.stack(outs, 1)
    def backward(self, grad):
        gW, gb = np.zeros_like(self.i2h.W), np.zeros_like(self.i2h.b)
        oW, ob = np.zeros_like(self.h2o.W), np.zeros_like(self.h2o.b)
        dX = []
        dh = np.zeros((grad.shape[0], self.n_hidden))
        for t in reversed(range(grad.shape[1])):
            xh, h = self.store[t]
            self.h2o.X = h
            dh = dh + self.h2o.backward(grad[:, t])
            oW += self.h2o.dW; ob += self.h2o.db
            dz = dh * (1 - h ** 2)
            self.i2h.X = xh
            dxh = self.i2h.backward(dz)
            gW += self.i2h.dW; gb += self.i2h.db
            dX.append(dxh[:, :-self.n_hidden])
            dh = dxh[:, -self.n_hidden:]
        self.i2h.dW, self.i2h.db, self.h2o.dW, self.h2o.db = gW, gb, oW, ob
        return np.stack(dX[::-1], 1)
