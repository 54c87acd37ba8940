"""Ways to write a backward that no file of `students/` has: each is right, and a fault in it is found."""

import textwrap

import pytest

from minigrad.handwritten.judge import judge_file

HEAD = """
import numpy as np
letters = 'abcdef'
n_v, n_h, n_g = len(letters), 40, 30
U, W, V = np.ones((n_h, n_v)) * .1, np.ones((n_h, n_h)) * .1, np.ones((n_v, n_h)) * .1
b, c = np.zeros((n_h, 1)), np.zeros((n_v, 1))
"""
BODY = """
    xs, hs, ps, loss = {}, {-1: hprev}, {}, 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((n_v, 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(U @ xs[t] + W @ hs[t - 1] + b)
        e = np.exp(V @ hs[t] + c)
        ps[t] = e / e.sum()
        loss -= np.log(ps[t][targets[t], 0])
    dU, dW, dV, db, dc = (np.zeros_like(w) for w in (U, W, V, b, c))
    dh_next = np.zeros_like(hprev)
    for t in reversed(range(len(inputs))):
        dy = ps[t].copy()
        dy[targets[t]] -= 1
        dV += dy @ hs[t].T
        dc += dy
        da = (V.T @ dy + dh_next) * (1 - hs[t] ** 2)
        dU += da @ xs[t].T
        dW += da @ hs[t - 1].T
        db += da
        dh_next = W.T @ da
"""
# name: (text, line, another line that makes it wrong, the gradients that are wrong then)
WAYS = {
    "a matrix V, gradients in a comprehension": (
        HEAD + "def lossFun(inputs, targets, hprev):" + BODY +
        "    grads = [np.clip(g, -5, 5) for g in (dU, dW, dV, db, dc)]\n    return loss, grads, hs[len(inputs) - 1]\n",
        "dh_next = W.T @ da", "dh_next = W @ da", "dU, dW, db"),
    "a sum of tuples": (
        HEAD + "def lossFun(inputs, targets, hprev):" + BODY +
        "    grads = (dU, dW, dV, db, dc)\n    return (loss,) + grads + (hs[len(inputs) - 1],)\n",
        "dc += dy", "dc = dy", "dc"),
    "an object of a class that takes sizes": ("""
        import numpy as np
        class Weights:
            def __init__(self, H, V):
                self.E, self.U, self.b = np.random.randn(H, V), np.random.randn(H, H), np.zeros((H, 1))
        def loss_fun(w, inputs, targets, hprev):
            hs, ps, loss = {-1: hprev}, {}, 0
            for t in range(len(inputs)):
                hs[t] = np.tanh(w.E[:, [inputs[t]]] + w.U @ hs[t - 1] + w.b)
                e = np.exp(w.E.T @ hs[t])
                ps[t] = e / e.sum()
                loss -= np.log(ps[t][targets[t], 0])
            g = {k: np.zeros_like(getattr(w, k)) for k in ('E', 'U', 'b')}
            dh = np.zeros_like(hprev)
            for t in reversed(range(len(inputs))):
                dy = ps[t].copy()
                dy[targets[t]] -= 1
                da = (w.E @ dy + dh) * (1 - hs[t] ** 2)
                g['E'] += hs[t] @ dy.T
                g['E'][:, [inputs[t]]] += da
                g['U'] += da @ hs[t - 1].T
                g['b'] += da
                dh = w.U.T @ da
            return loss, g, dh
        """, "g['U'] += da @ hs[t - 1].T", "g['U'] += da @ hs[t].T", "dU"),
    "a cost, and a step that adds to the gradients it is given": ("""
        import numpy as np
        def rnn_step_forward(p, a_prev, x):
            a = np.tanh(p['Wax'] @ x + p['Waa'] @ a_prev)
            e = np.exp(p['Wya'] @ a)
            return a, e / e.sum(axis=0)
        def rnn_forward(X, Y, a0, p):
            a, y_hat, cost = {-1: a0}, {}, 0
            n_x, m, T = X.shape
            for t in range(T):
                a[t], y_hat[t] = rnn_step_forward(p, a[t - 1], X[:, :, t])
                cost -= np.sum(Y[:, :, t] * np.log(y_hat[t]))
            return cost / m, (y_hat, a)
        def rnn_step_backward(dy, gradients, p, x, a, a_prev):
            gradients['dWya'] += dy @ a.T
            da = (p['Wya'].T @ dy + gradients['da_next']) * (1 - a * a)
            gradients['dWax'] += da @ x.T
            gradients['dWaa'] += da @ a_prev.T
            gradients['da_next'] = p['Waa'].T @ da
            return gradients
        def rnn_backward(X, Y, p, cache):
            y_hat, a = cache
            n_x, m, T = X.shape
            gradients = {'d' + k: np.zeros_like(v) for k, v in p.items()}
            gradients['da_next'] = np.zeros_like(a[0])
            for t in reversed(range(T)):
                dy = (y_hat[t] - Y[:, :, t]) / m
                gradients = rnn_step_backward(dy, gradients, p, X[:, :, t], a[t], a[t - 1])
            return gradients, a
        """, "dy = (y_hat[t] - Y[:, :, t]) / m", "dy = y_hat[t] - Y[:, :, t]", "da0, dWax, dWaa, dWya"),
    "*weights, named in a comment": ("""
        import numpy as np
        class Elman:
            def __init__(self, *weights):
                # weights: W, U, b
                self.params, self.grads = list(weights), [np.zeros_like(w) for w in weights]
            def forward(self, xs, h):
                W, U, b = self.params
                hs = np.zeros(xs.shape[:2] + (h.shape[1],))
                self.xs, self.hs = xs, [h]
                for t in range(xs.shape[1]):
                    hs[:, t] = h = np.tanh(xs[:, t].dot(W) + h.dot(U) + b)
                    self.hs.append(h)
                return hs
            def backward(self, dhs):
                W, U, b = self.params
                dxs, dh = np.zeros_like(self.xs), 0
                for g in self.grads:
                    g[...] = 0
                for t in reversed(range(dhs.shape[1])):
                    da = (dhs[:, t] + dh) * (1 - self.hs[t + 1] ** 2)
                    self.grads[0] += self.xs[:, t].T @ da
                    self.grads[1] += self.hs[t].T @ da
                    self.grads[2] += da.sum(axis=0)
                    dxs[:, t], dh = da @ W.T, da @ U.T
                self.dh = dh
                return dxs
        """, "self.grads[1] += self.hs[t].T", "self.grads[1] += self.hs[t + 1].T", "dU"),
    "layers of words, whose weights have the layer's name": ("""
        import numpy as np
        class TimeEmbedding:
            def __init__(self, W):
                self.params, self.grads = [W], [np.zeros_like(W)]
            def forward(self, xs):
                self.idx = xs
                return self.params[0][xs]
            def backward(self, dout):
                N, T = self.idx.shape
                self.grads[0][...] = 0
                for t in range(T):
                    np.add.at(self.grads[0], self.idx[:, t], dout[:, t])
        class Model:
            def __init__(self, embed_W, affine_W, affine_b):
                self.layer = TimeEmbedding(embed_W)
                self.params = self.layer.params + [affine_W, affine_b]
                self.grads = self.layer.grads + [np.zeros_like(affine_W), np.zeros_like(affine_b)]
            def forward(self, xs, ts):
                x = self.layer.forward(xs)
                N, T, D = x.shape
                self.cache = x, ts, (N, T, D)
                y = np.exp(x @ self.params[1] + self.params[2])
                self.p = y / y.sum(axis=2, keepdims=True)
                return -np.log(self.p.reshape(N * T, -1)[np.arange(N * T), ts.reshape(N * T)]).sum() / (N * T)
            def backward(self):
                x, ts, (N, T, D) = self.cache
                d = self.p.reshape(N * T, -1).copy()
                d[np.arange(N * T), ts.reshape(N * T)] -= 1
                d /= N * T
                self.grads[1][...] = x.reshape(N * T, D).T @ d
                self.grads[2][...] = d.sum(axis=0)
                self.layer.backward((d @ self.params[1].T).reshape(N, T, D))
        """, "d /= N * T", "d /= N", "dembed_W, daffine_W, daffine_b"),
}


@pytest.mark.parametrize("name", WAYS)
def test_way(name, tmp_path):
    text, line, other, wrong = WAYS[name]
    text = textwrap.dedent(text)
    assert line in text
    (tmp_path / "mine.py").write_text(text)
    verdicts = judge_file(str(tmp_path / "mine.py"))
    assert {(v.status, *v.faults) for v in verdicts if v.status != "not judged"} == {("right",)}
    assert all("was judged as a part of" in v.faults[0] for v in verdicts if v.status == "not judged")
    (tmp_path / "mine.py").write_text(text.replace(line, other))
    said = "\n".join(fault for v in judge_file(str(tmp_path / "mine.py")) for fault in v.faults)
    assert f"wrong: {wrong}\n" in said, said
