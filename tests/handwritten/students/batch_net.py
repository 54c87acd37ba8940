import numpy as np

class Network:
    """Elman network for sequences, batch x time x features; mean squared error."""
    def __init__(self, n_in, n_hidden, n_out):
        self.n_hidden = n_hidden
        self.params = {
            'W_in': np.random.randn(n_in, n_hidden) * 0.1,
            'W_rec': np.random.randn(n_hidden, n_hidden) * 0.1,
            'W_out': np.random.randn(n_hidden, n_out) * 0.1,
            'b_h': np.zeros((1, n_hidden)),
            'b_o': np.zeros((1, n_out)),
        }

    def forward(self, X):
        p = self.params
        B, T, _ = X.shape
        H = np.zeros((B, T + 1, self.n_hidden))
        Y = np.zeros((B, T, p['W_out'].shape[1]))
        for t in range(T):
            H[:, t + 1] = np.tanh(X[:, t] @ p['W_in'] + H[:, t] @ p['W_rec'] + p['b_h'])
            Y[:, t] = H[:, t + 1] @ p['W_out'] + p['b_o']
        return Y, H

    def loss(self, Y, target):
        return 0.5 * np.mean(np.sum((Y - target) ** 2, axis=2))

    def backward(self, X, Y, H, target):
        p = self.params
        B, T, _ = X.shape
        grads = {k: np.zeros_like(v) for k, v in p.items()}
        dH = np.zeros((B, self.n_hidden))
        dY = (Y - target) / (B * T)
        for t in reversed(range(T)):
            grads['W_out'] += H[:, t + 1].T @ dY[:, t]
            grads['b_o'] += dY[:, t].sum(axis=0, keepdims=True)
            dh = dY[:, t] @ p['W_out'].T + dH
            dz = dh * (1 - H[:, t + 1] ** 2)
            grads['W_in'] += X[:, t].T @ dz
            grads['W_rec'] += H[:, t].T @ dz
            grads['b_h'] += dz.sum(axis=0, keepdims=True)
            dH = dz @ p['W_rec'].T
        return grads
