# RNN with forward and backward as functions
import numpy as np
text = open("shakespeare.txt").read()
chars = sorted(set(text))
char_to_ix = {c: i for i, c in enumerate(chars)}
vocab_size = len(chars)
n_h = 64
Wx = np.random.randn(n_h, vocab_size) * 0.01
Wh = np.random.randn(n_h, n_h) * 0.01
Wy = np.random.randn(vocab_size, n_h) * 0.01
bh = np.zeros(n_h)
by = np.zeros(vocab_size)

def forward(inputs, targets, h):
    loss = 0
    xs, hs, ps = [], [h], []
    for ix, target in zip(inputs, targets):
        x = np.zeros(vocab_size)
        x[ix] = 1
        h = np.tanh(Wx @ x + Wh @ h + bh)
        y = Wy @ h + by
        p = np.exp(y) / np.sum(np.exp(y))
        loss += -np.log(p[target])
        xs.append(x)
        hs.append(h)
        ps.append(p)
    return loss / len(inputs), xs, hs, ps

def backward(xs, hs, ps, targets):
    dWx, dWh, dWy = np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(Wy)
    dbh, dby = np.zeros_like(bh), np.zeros_like(by)
    dhn = np.zeros_like(hs[0])
    for t in range(len(xs))[::-1]:
        dy = ps[t].copy()
        dy[targets[t]] -= 1
        dy /= len(xs)
        dWy += np.outer(dy, hs[t + 1])
        dby += dy
        dz = (Wy.T @ dy + dhn) * (1 - hs[t + 1] ** 2)
        dWx += np.outer(dz, xs[t])
        dWh += np.outer(dz, hs[t])
        dbh += dz
        dhn = Wh.T @ dz
    return {"Wx": dWx, "Wh": dWh, "Wy": dWy, "bh": dbh, "by": dby}
h = np.zeros(n_h)
for i in range(100000):
    loss, xs, hs, ps = forward([1, 2], [2, 3], h)
