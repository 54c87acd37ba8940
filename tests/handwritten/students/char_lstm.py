"""min-char-rnn with an LSTM: the weights are globals, and the text is a file that is not here."""
import numpy as np
import sys

data = open(sys.argv[1]).read()
chars = sorted(set(data))
vocab_size = len(chars)
char_to_ix = {c: i for i, c in enumerate(chars)}

H = 64
Z = H + vocab_size
sd = 0.1

Wf = np.random.randn(H, Z) * sd
Wi = np.random.randn(H, Z) * sd
Wc = np.random.randn(H, Z) * sd
Wo = np.random.randn(H, Z) * sd
Wy = np.random.randn(vocab_size, H) * sd
bf = np.ones((H, 1))
bi = np.zeros((H, 1))
bc = np.zeros((H, 1))
bo = np.zeros((H, 1))
by = np.zeros((vocab_size, 1))

def sigmoid(x):
    return 1 / (1 + np.exp(-x))

def lossFun(inputs, targets, hprev, cprev):
    xs, hs, cs, zs = {}, {}, {}, {}
    fs, is_, gs, os_, ps = {}, {}, {}, {}, {}
    hs[-1] = np.copy(hprev)
    cs[-1] = np.copy(cprev)
    loss = 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((vocab_size, 1))
        xs[t][inputs[t]] = 1
        zs[t] = np.vstack((hs[t - 1], xs[t]))
        fs[t] = sigmoid(Wf @ zs[t] + bf)
        is_[t] = sigmoid(Wi @ zs[t] + bi)
        gs[t] = np.tanh(Wc @ zs[t] + bc)
        os_[t] = sigmoid(Wo @ zs[t] + bo)
        cs[t] = fs[t] * cs[t - 1] + is_[t] * gs[t]
        hs[t] = os_[t] * np.tanh(cs[t])
        y = Wy @ hs[t] + by
        ps[t] = np.exp(y) / np.sum(np.exp(y))
        loss += -np.log(ps[t][targets[t], 0])

    dWf, dWi, dWc, dWo, dWy = [np.zeros_like(w) for w in (Wf, Wi, Wc, Wo, Wy)]
    dbf, dbi, dbc, dbo, dby = [np.zeros_like(b) for b in (bf, bi, bc, bo, by)]
    dhnext = np.zeros((H, 1))
    dcnext = np.zeros((H, 1))
    for t in reversed(range(len(inputs))):
        dy = ps[t].copy()
        dy[targets[t]] -= 1
        dWy += dy @ hs[t].T
        dby += dy
        dh = Wy.T @ dy + dhnext
        do = dh * np.tanh(cs[t]) * os_[t] * (1 - os_[t])
        dc = dcnext + dh * os_[t] * (1 - np.tanh(cs[t]) ** 2)
        dg = dc * is_[t] * (1 - gs[t] ** 2)
        di = dc * gs[t] * is_[t] * (1 - is_[t])
        df = dc * cs[t - 1] * fs[t] * (1 - fs[t])
        dWf += df @ zs[t].T
        dWi += di @ zs[t].T
        dWc += dg @ zs[t].T
        dWo += do @ zs[t].T
        dbf += df
        dbi += di
        dbc += dg
        dbo += do
        dz = Wf.T @ df + Wi.T @ di + Wc.T @ dg + Wo.T @ do
        dhnext = dz[:H]
        dcnext = fs[t] * dc
    return loss, dWf, dWi, dWc, dWo, dWy, dbf, dbi, dbc, dbo, dby, hs[len(inputs) - 1], cs[len(inputs) - 1]
