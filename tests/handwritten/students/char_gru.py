import numpy as np

with open('input.txt') as f:
    data = f.read()
chars = sorted(set(data))
vocab_size = len(chars)
hidden_size = 64

def sigmoid(x):
    return 1 / (1 + np.exp(-x))

Wz = np.random.randn(hidden_size, hidden_size + vocab_size) * 0.1
Wr = np.random.randn(hidden_size, hidden_size + vocab_size) * 0.1
Wc = np.random.randn(hidden_size, hidden_size + vocab_size) * 0.1
Wy = np.random.randn(vocab_size, hidden_size) * 0.1
bz = np.zeros((hidden_size, 1))
br = np.zeros((hidden_size, 1))
bc = np.zeros((hidden_size, 1))
by = np.zeros((vocab_size, 1))

def lossFun(inputs, targets, hprev):
    xs, hs, zs, rs, cs, ps, cats, rcats = {}, {}, {}, {}, {}, {}, {}, {}
    hs[-1] = np.copy(hprev)
    loss = 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((vocab_size, 1))
        xs[t][inputs[t]] = 1
        cats[t] = np.vstack((hs[t - 1], xs[t]))
        zs[t] = sigmoid(np.dot(Wz, cats[t]) + bz)
        rs[t] = sigmoid(np.dot(Wr, cats[t]) + br)
        rcats[t] = np.vstack((rs[t] * hs[t - 1], xs[t]))
        cs[t] = np.tanh(np.dot(Wc, rcats[t]) + bc)
        hs[t] = (1 - zs[t]) * hs[t - 1] + zs[t] * cs[t]
        y = np.dot(Wy, hs[t]) + by
        e = np.exp(y - np.max(y))
        ps[t] = e / np.sum(e)
        loss -= np.log(ps[t][targets[t], 0])
    dWz, dWr, dWc, dWy = [np.zeros_like(w) for w in (Wz, Wr, Wc, Wy)]
    dbz, dbr, dbc, dby = [np.zeros_like(w) for w in (bz, br, bc, by)]
    dhnext = np.zeros_like(hprev)
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Wy.T, dy) + dhnext
        dz = dh * (cs[t] - hs[t - 1]) * zs[t] * (1 - zs[t])
        dc = dh * zs[t] * (1 - cs[t] ** 2)
        drc = np.dot(Wc.T, dc)[:hidden_size]
        dr = drc * hs[t - 1] * rs[t] * (1 - rs[t])
        dWz += np.dot(dz, cats[t].T)
        dWr += np.dot(dr, cats[t].T)
        dWc += np.dot(dc, rcats[t].T)
        dbz += dz
        dbr += dr
        dbc += dc
        dhnext = dh * (1 - zs[t]) + drc * rs[t]
        dhnext += np.dot(Wz.T, dz)[:hidden_size] + np.dot(Wr.T, dr)[:hidden_size]
    return loss, dWz, dWr, dWc, dWy, dbz, dbr, dbc, dby, hs[len(inputs) - 1]
