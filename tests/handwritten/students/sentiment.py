import numpy as np

class SentimentRNN:
    """many to one; x: (T, D) one example; label 0..V-1"""
    def __init__(self, input_size, hidden_size, num_classes):
        rng = np.random.default_rng(0)
        self.W_xh = rng.standard_normal((hidden_size, input_size)) * 0.1
        self.W_hh = rng.standard_normal((hidden_size, hidden_size)) * 0.1
        self.W_hy = rng.standard_normal((num_classes, hidden_size)) * 0.1
        self.b_h = np.zeros(hidden_size)
        self.b_y = np.zeros(num_classes)

    def forward(self, x):
        self.x = x
        self.h = {-1: np.zeros_like(self.b_h)}
        for t in range(len(x)):
            self.h[t] = np.tanh(self.W_xh @ x[t] + self.W_hh @ self.h[t - 1] + self.b_h)
        scores = self.W_hy @ self.h[len(x) - 1] + self.b_y
        e = np.exp(scores - scores.max())
        self.probs = e / e.sum()
        return self.probs

    def cross_entropy(self, probs, label):
        return -np.log(probs[label])

    def backward(self, label):
        T = len(self.x)
        dscores = self.probs.copy()
        dscores[label] -= 1
        grads = {}
        grads["W_hy"] = np.outer(dscores, self.h[T - 1])
        grads["b_y"] = dscores
        grads["W_xh"] = np.zeros_like(self.W_xh)
        grads["W_hh"] = np.zeros_like(self.W_hh)
        grads["b_h"] = np.zeros_like(self.b_h)
        dh = self.W_hy.T @ dscores
        for t in range(T - 1, -1, -1):
            da = dh * (1 - self.h[t] ** 2)
            grads["W_xh"] += np.outer(da, self.x[t])
            grads["W_hh"] += np.outer(da, self.h[t - 1])
            grads["b_h"] += da
            dh = self.W_hh.T @ da
        return grads
