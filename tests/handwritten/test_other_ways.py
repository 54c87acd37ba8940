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
    "columns of a stack, and gradients without names of their own": (
        HEAD + """def lossFun(inputs, targets, hprev, clip=None):
    T, hs, ys, dA, dh = len(inputs), {-1: hprev}, {}, {}, 0
    for t in range(T):
        hs[t] = np.tanh(U[:, [inputs[t]]] + W @ hs[t - 1] + b)
        ys[t] = V @ hs[t] + c
    Y = np.hstack([ys[t] for t in range(T)])
    P = np.exp(Y) / np.exp(Y).sum(axis=0)
    loss = -np.log(P[targets, np.arange(T)]).sum()
    P[targets, np.arange(T)] -= 1
    for t in range(T - 1, -1, -1):
        dA[t] = (V.T @ P[:, [t]] + dh) * (1 - hs[t] ** 2)
        dh = W.T @ dA[t]
    A, H, before = (np.hstack([s[t + k] for t in range(T)]) for s, k in ((dA, 0), (hs, 0), (hs, -1)))
    dU = np.zeros_like(U)
    np.add.at(dU.T, inputs, A.T)
    grads = [dU, A @ before.T, P @ H.T, A.sum(axis=1, keepdims=True), P.sum(axis=1, keepdims=True)]
    if clip is not None:
        grads = [np.clip(g, -clip, clip) for g in grads]
    return (loss, *grads, hs[T - 1])
""", "A @ before.T", "A @ H.T", "dW"),
    "a loss of scores (N, T, V) over axis 2": ("""
        import numpy as np
        class TimeSoftmaxWithLoss:
            def __init__(self):
                self.params, self.grads = [], []
            def forward(self, xs, ts):
                m = ts != -1
                x = xs - xs.max(2, keepdims=True)
                logy = x - np.log(np.exp(x).sum(2, keepdims=True))
                t = np.eye(xs.shape[2])[ts] * m[..., None]
                self.saved = np.exp(logy), t, m
                return -(t * logy).sum() / m.sum()
            def backward(self, dout=1):
                y, t, m = self.saved
                return dout * (y * t.sum(2, keepdims=True) - t) / m.sum()
        """, "(y * t.sum(2, keepdims=True) - t) / m.sum()", "(y * t.sum(2, keepdims=True) - t)", "dxs"),
    "matrices drawn at random, one of them V, sizes from a file": (
        """
import numpy as np
letters = sorted(set(open('input.txt').read()))
n_v, n_h = len(letters), 40
np.random.seed(1)
U, W = np.random.uniform(-1, 1, (n_h, n_v)), np.random.uniform(-1, 1, (n_h, n_h))
V = np.random.uniform(-1, 1, (n_v, n_h))
b, c = np.zeros((n_h, 1)), np.zeros((n_v, 1))
def lossFun(inputs, targets, hprev):""" + BODY + "    return loss, dU, dW, dV, db, dc, hs[len(inputs) - 1]\n",
        "dy[targets[t]] -= 1", "dy[targets[t]] -= 0", "dU, dW, dV, db, dc"),
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
    "slices of [1, x, h] that go to the end, and H as a quarter of an axis": ("""
        import numpy as np
        class Gated:
            @staticmethod
            def forward(X, W, h0=None):
                n, b, d_in = X.shape
                d = W.shape[1] // 4
                h = np.zeros((b, d))
                u = np.zeros((n, b, W.shape[0]))
                Hout, G = np.zeros((n, b, d)), np.zeros((n, b, 4 * d))
                for t in range(n):
                    u[t, :, 0] = 1
                    u[t, :, 1:d_in + 1] = X[t]
                    u[t, :, d_in + 1:] = h
                    G[t] = np.tanh(u[t].dot(W))
                    h = G[t, :, :d] * G[t, :, d:2 * d] + G[t, :, 2 * d:3 * d] * G[t, :, 3 * d:]
                    Hout[t] = h
                return Hout, (u, G, W, d_in)
            @staticmethod
            def backward(dHout, cache):
                u, G, W, d_in = cache
                d = W.shape[1] // 4
                dX, dW, dh = np.zeros((*u.shape[:2], d_in)), np.zeros_like(W), 0
                for t in reversed(range(len(u))):
                    dh = dHout[t] + dh
                    parts = [G[t, :, d:2 * d], G[t, :, :d], G[t, :, 3 * d:], G[t, :, 2 * d:3 * d]]
                    da = np.hstack([dh * p for p in parts]) * (1 - G[t] ** 2)
                    dW += u[t].T.dot(da)
                    du = da.dot(W.T)
                    dX[t], dh = du[:, 1:d_in + 1], du[:, d_in + 1:]
                return dX, dW
        """, "dh = dHout[t] + dh", "dh = dHout[t]", "dX, dW"),
    "vectors, and the weights of another object": ("""
        import numpy as np
        class Weights:
            def __init__(self, cells, x_dim):
                self.x_dim = x_dim
                self.wi, self.bi = np.ones((cells, x_dim + cells)), np.ones(cells)
                self.wi_diff, self.bi_diff = np.zeros((cells, x_dim + cells)), np.zeros(cells)
        class Node:
            def __init__(self, node_param):
                self.param = node_param
            def forward(self, x, h_prev):
                self.xc = np.hstack((x, h_prev))
                self.i = np.tanh(np.dot(self.param.wi, self.xc) + self.param.bi)
                return self.i * h_prev, self.i
            def backward(self, top_diff_h, top_diff_i):
                n = self.param.x_dim
                di = (top_diff_h * self.xc[n:] + top_diff_i) * (1 - self.i ** 2)
                self.param.wi_diff += np.outer(di, self.xc)
                self.param.bi_diff += di
                dxc = self.param.wi.T.dot(di)
                return dxc[:n], dxc[n:] + top_diff_h * self.i
        """, "self.param.bi_diff += di", "self.param.bi_diff += top_diff_i", "dbi"),
    "a dataclass of layers, and a weight that one of them has transposed": ("""
        import numpy as np
        from dataclasses import dataclass
        class Linear:
            def __init__(self, W):
                self.params, self.grads = [W], [np.zeros_like(W)]
            def forward(self, x):
                self.x = x
                return x @ self.params[0]
            def backward(self, dy):
                self.grads[0][...] = self.x.T @ dy
                return dy @ self.params[0].T
        @dataclass
        class Tied:
            inputs: int
            hidden: int
            def __post_init__(self):
                E = np.random.default_rng(0).normal(size=(self.inputs, self.hidden))
                self.one, self.two = Linear(E), Linear(E.T)
                self.params = [E]
            def forward(self, x):
                self.h = np.tanh(self.one.forward(x))
                return self.two.forward(self.h)
            def backward(self, dy):
                dx = self.one.backward(self.two.backward(dy) * (1 - self.h ** 2))
                self.grads = [self.one.grads[0] + self.two.grads[0].T]
                return dx
        """, "[self.one.grads[0] + self.two.grads[0].T]", "[self.one.grads[0]]", "dparams_0"),
    "a dict of global weights, and a global size": ("""
        import numpy as np
        D, H = 3, 4
        model = dict(W=np.ones((H + D, H)), b=np.zeros((1, H)), V=np.ones((H, D)))
        def step_forward(word, state, model):
            h_old, c_old = state
            x = np.zeros((1, D))
            x[0, word] = 1.
            z = np.column_stack((h_old, x))
            g = np.tanh(z @ model['W'] + model['b'])
            c = g * c_old
            h = np.tanh(c)
            return h @ model['V'], (h, c), (z, g, c, h, c_old, model)
        def step_backward(dy, d_state, cache):
            z, g, c, h, c_old, model = cache
            dh_next, dc_next = d_state
            dh = dy @ model['V'].T + dh_next
            dc = dh * (1 - h ** 2) + dc_next
            da = dc * c_old * (1 - g ** 2)
            dz = da @ model['W'].T
            return dict(W=z.T @ da, b=da, V=h.T @ dy), (dz[:, :H], dc * g)
        """, "(dz[:, :H], dc * g)", "(dz[:, :H], dc_next * g)", "dc_old"),
    "a class made of dicts of words, and of sizes with a default": ("""
        import numpy as np
        class Words:
            def __init__(self, char_to_idx, idx_to_char, vocab_size, n_h=100, seq_len=25):
                self.vocab_size, self.seq_len, self._null = vocab_size, seq_len, char_to_idx.get('<NULL>')
                self.letters = {i: ch for ch, i in char_to_idx.items()}
                self.W, self.U, self.V = np.ones((n_h, vocab_size)), np.ones((n_h, n_h)), np.ones((vocab_size, n_h))
            def lossFun(self, inputs, targets, h_prev):
                hs, ps, loss = {-1: h_prev}, {}, 0
                for t in range(self.seq_len):
                    hs[t] = np.tanh(self.W[:, [inputs[t]]] + self.U @ hs[t - 1])
                    e = np.exp(self.V @ hs[t])
                    ps[t] = e / np.sum(e)
                    loss -= np.log(ps[t][targets[t], 0])
                dW, dU, dV = [np.zeros_like(w) for w in (self.W, self.U, self.V)]
                dh_next = np.zeros_like(h_prev)
                for t in reversed(range(self.seq_len)):
                    dy = ps[t].copy()
                    dy[targets[t]] -= 1
                    dV += dy @ hs[t].T
                    da = (self.V.T @ dy + dh_next) * (1 - hs[t] ** 2)
                    dW[:, [inputs[t]]] += da
                    dU += da @ hs[t - 1].T
                    dh_next = self.U.T @ da
                grads = [dW, dU, dV]
                return (loss,) + tuple(grads) + (hs[self.seq_len - 1],)
        """, "dU += da @ hs[t - 1].T", "dU += da @ hs[t].T", "dU"),
    "weights that a call unpacks": ("""
        import numpy as np
        def scan(x, W, U, b):
            h = [np.zeros((x.shape[0], U.shape[0]))]
            for t in range(x.shape[1]):
                h.append(np.tanh(x[:, t] @ W + h[-1] @ U + b))
            return h
        def two_forward(x, one, two):
            a, b = scan(x, *one), scan(x[:, ::-1], *two)
            return a[-1] + b[-1], (x, a, b, one, two)
        def rows(dh, x, h, W, U, b):
            dx, dW, dU, db = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)
            for t in reversed(range(x.shape[1])):
                da = dh * (1 - h[t + 1] ** 2)
                dx[:, t], dh = da @ W.T, da @ U.T
                dW, dU, db = dW + x[:, t].T @ da, dU + h[t].T @ da, db + da.sum(axis=0)
            return dx, [dW, dU, db]
        def two_backward(dout, cache):
            x, a, b, one, two = cache
            dxa, done = rows(dout, x, a, *one)
            dxb, dtwo = rows(dout, x[:, ::-1], b, *two)
            return dxa + dxb[:, ::-1], done, dtwo
        """, "dxa + dxb[:, ::-1]", "dxa + dxb", "dx"),
    "a forward that a training function calls too, and results written with out=": ("""
        import numpy as np
        def run(x, W, V):
            hs = np.empty((x.shape[0] + 1, *x.shape[1:2], W.shape[1]))
            hs[0] = 0
            for t in range(x.shape[0]):
                np.tanh(x[t] @ W + hs[t], out=hs[t + 1])
            return hs[-1] @ V, hs
        def compute_cost(y, t):
            return np.sum((y - t) ** 2) / 2
        def model_backward(y, t, hs, x, W, V):
            dy = y - t
            dV, dh, dW = hs[-1].T @ dy, dy @ V.T, np.zeros_like(W)
            for k in reversed(range(len(x))):
                dh = dh * (1 - hs[k + 1] ** 2)
                dW += x[k].T @ dh
            return dW, dV
        def model(x, t, W, V):
            for _ in range(3):
                y, hs = run(x, W, V)
                dW, dV = model_backward(y, t, hs, x, W, V)
                W, V = W - dW, V - dV
            return W, V
        """, "dW += x[k].T @ dh", "dW = x[k].T @ dh", "dW"),
    "a softmax from a file that is not there, along the rows": ("""
        from book import softmax
        def look_forward(X, Q, K, V):
            q, k, v = X @ Q, X @ K, X @ V
            p = softmax(q @ k.T / len(k.T) ** 0.5)
            return p @ v, (X, q, k, v, p)
        def look_backward(dout, cache, Q, K, V):
            X, q, k, v, p = cache
            dv, dp = p.T @ dout, dout @ v.T
            ds = p * (dp - (dp * p).sum(1, keepdims=True)) / len(k.T) ** 0.5
            dq, dk = ds @ k, ds.T @ q
            return dq @ Q.T + dk @ K.T + dv @ V.T, X.T @ dq, X.T @ dk, X.T @ dv
        """, "ds.T @ q", "ds @ q", "dX, dK"),
    "a sigmoid that keeps its argument in bounds, gradients that are clipped and then scaled": ("""
        import numpy as np
        class Gate:
            def __init__(self, n_in, n_hid):
                self.W, self.U = np.random.randn(n_in, n_hid), np.random.randn(n_hid, n_hid)
            def sigmoid(self, z):
                return 1 / (1 + np.exp(-np.clip(z, -50, 50)))
            def forward(self, x):
                self.hs = [np.zeros((x.shape[0], self.U.shape[0]))]
                for t in range(x.shape[1]):
                    self.hs.append(self.sigmoid(x[:, t] @ self.W + self.hs[-1] @ self.U))
                return self.hs[-1]
            def backward(self, x, targets, learning_rate=0.1):
                dW, dU = np.zeros_like(self.W), np.zeros_like(self.U)
                dh = self.hs[-1] - targets
                for t in range(x.shape[1] - 1, -1, -1):
                    dz = dh * self.hs[t + 1] * (1 - self.hs[t + 1])
                    dW += x[:, t].T @ dz
                    dU += self.hs[t].T @ dz
                    dh = dz @ self.U.T
                for w, d in ((self.W, dW), (self.U, dU)):
                    np.clip(d, -1, 1, out=d)
                    w -= learning_rate * d / len(x)
        """, "self.hs[t].T @ dz", "self.hs[t + 1].T @ dz", "dU"),
    "a step that is handed p - y, and not the gradient of p": ("""
        import numpy as np
        def softmax(s):
            e = np.exp(s - s.max(axis=0))
            return e / e.sum(axis=0)
        def step_forward(xt, h_prev, W, U, V):
            h_next = np.tanh(W @ xt + U @ h_prev)
            p = softmax(V @ h_next)
            return h_next, p, (h_next, h_prev, xt, p, U, V)
        def step_backward(dy, dh_next, cache):
            h_next, h_prev, xt, p, U, V = cache
            dz = (V.T @ dy + dh_next) * (1 - h_next ** 2)
            return {"dV": dy @ h_next.T, "dW": dz @ xt.T, "dU": dz @ h_prev.T, "dh_prev": U.T @ dz}
        """, "dz @ h_prev.T", "dz @ h_next.T", "dU"),
    "a class whose forward is its loss, as a number of Python": ("""
        import numpy as np
        class Scores:
            def __init__(self, n_in, n_classes):
                self.p = {'W': np.random.randn(n_in, n_classes), 'b': np.zeros(n_classes)}
            def loss(self, X, y):
                s = X @ self.p['W'] + self.p['b']
                self.X, self.y, self.q = X, y, np.exp(s) / np.exp(s).sum(1, keepdims=True)
                return float(-np.log(self.q[np.arange(len(y)), y]).mean()) + 0.1 * np.sum(self.p['W'] ** 2).item()
            def backward(self):
                d = self.q.copy()
                d[np.arange(len(d)), self.y] -= 1
                d /= len(d)
                self.grads = {'W': self.X.T @ d + 0.2 * self.p['W'], 'b': d.sum(0)}
                return self.grads
        """, "0.2 * self", "0.1 * self", "dW"),
    "a step back among the methods, before the backward": ("""
        import numpy as np
        class Walk:
            def __init__(self, n_in, n_hid):
                self.n_hid, self.W = n_hid, np.random.randn(n_in + n_hid, n_hid)
            def _step(self, x, h):
                self.tape.append((np.hstack((x, h)), h))
                return np.tanh(self.tape[-1][0] @ self.W)
            def forward(self, X):
                self.tape, H = [], [np.zeros((X.shape[1], self.n_hid))]
                for x in X:
                    H.append(self._step(x, H[-1]))
                self.H = np.stack(H[1:])
                return self.H
            def _step_back(self, dh, h, z):
                da = dh * (1 - h ** 2)
                self.dW = self.dW + z.T @ da
                return da @ self.W.T
            def backward(self, dH):
                self.dW, dX, dh = 0 * self.W, [], 0
                for d, h, (z, _) in zip(dH[::-1], self.H[::-1], self.tape[::-1]):
                    dz = self._step_back(d + dh, h, z)
                    dX.insert(0, dz[:, :-self.n_hid])
                    dh = dz[:, -self.n_hid:]
                return np.stack(dX)
        """, "self.dW + z.T @ da", "z.T @ da", "dW"),
    "a loss by another name, beside a function that samples": (HEAD + "def rnn(inputs, targets, hprev):" + BODY + (
        "    return loss, dU, dW, dV, db, dc, hs[len(inputs) - 1]\n"
        "def sample(h, seed, n):\n    x = np.zeros((n_v, 1))\n    x[seed] = 1\n    out = []\n"
        "    for t in range(n):\n        h = np.tanh(U @ x + W @ h + b)\n        out.append(np.argmax(V @ h + c))\n"
        "    return out\n"), "db += da", "db += dy.sum() * da", "db"),
    "a bias that broadcasts as a number, and one behind which a mean is taken out": ("""
        import numpy as np
        def wide_forward(x, w, b, gamma):
            a = np.einsum('nd,dh->nh', x, w) + b[None]
            c = a - a.mean(axis=1, keepdims=True)
            return gamma * c, (x, w, c, gamma)
        def wide_backward(dout, cache):
            x, w, c, gamma = cache
            dc = dout * gamma
            da = dc - dc.mean(axis=1, keepdims=True)
            return da @ w.T, x.T @ da, np.einsum('nh->h', da), (dout * c).sum(axis=0)
        """, "(dout * c).sum(axis=0)", "dout.sum(axis=0)", "dgamma"),
    "biases as rows, to which rows are added": ("""
        import numpy as np
        def forward(xs, p):
            h, ys = np.zeros((len(xs), len(p['U']))), np.zeros((len(xs), p['V'].shape[1]))
            for t, x in enumerate(xs):
                h[t] = np.tanh(x @ p['W'] + (h[t - 1] if t else 0 * h[0]) @ p['U'] + p['b'])
                ys[t] = h[t] @ p['V'] + p['c']
            return ys, h
        def backward(xs, targets, p, h, ys):
            grads, da = {k: np.zeros_like(p[k]) for k in p}, np.zeros((1, len(p['U'])))
            for t in range(len(xs) - 1, -1, -1):
                dy = ys[t:t + 1] - targets[t:t + 1]
                grads['V'] += h[t:t + 1].T @ dy
                grads['c'] += dy
                grads['U'] += h[t:t + 1].T @ da
                da = (dy @ p['V'].T + da @ p['U'].T) * (1 - h[t:t + 1] ** 2)
                grads['W'] += xs[t:t + 1].T @ da
                grads['b'] += da
            return grads
        """, "grads['b'] += da", "grads['b'] = da", "db"),
    "one number that is predicted": ("""
        import numpy as np
        class Sum:
            def __init__(self, n_in, n_hid, n_out=1):
                self.n_hid, self.n_out = n_hid, n_out
                self.W, self.U = np.random.randn(n_hid, n_in), np.random.randn(n_hid, n_hid)
                self.V = np.random.randn(n_out, n_hid)
            def forward(self, seq):
                self.xs, self.hs = [x.reshape(-1, 1) for x in seq], [np.zeros((self.n_hid, 1))]
                for x in self.xs:
                    self.hs.append(np.tanh(self.W @ x + self.U @ self.hs[-1]))
                self.y = self.V @ self.hs[-1]
                return self.y
            def backward(self, y_true):
                dy = 2 * (self.y - y_true)
                self.dV, dh = dy @ self.hs[-1].T, self.V.T @ dy
                self.dW, self.dU = 0 * self.W, 0 * self.U
                for t in range(len(self.xs) - 1, -1, -1):
                    da = dh * (1 - self.hs[t + 1] ** 2)
                    self.dW += da @ self.xs[t].T
                    self.dU += da @ self.hs[t].T
                    dh = self.U.T @ da
        """, "da @ self.hs[t].T", "da @ self.hs[t + 1].T", "dU"),
    "sums by ufuncs, and gradients without names that only their shapes tell": ("""
        import numpy as np
        n_v, n_h = 5, 7
        U, W, V = np.ones((n_h, n_v)) * .1, np.ones((n_h, n_h)) * .1, np.ones((n_v, n_h)) * .1
        bh, by = np.zeros((n_h, 1)), np.zeros((n_v, 1))
        def lossFun(inputs, targets, hprev):
            T = len(inputs)
            X, Y, H = np.eye(n_v)[:, inputs], np.eye(n_v)[:, targets], np.zeros((n_h, T + 1))
            H[:, :1] = hprev
            for t in range(T):
                H[:, t + 1] = np.logaddexp(0, U @ X[:, t] + bh[:, 0] + W @ H[:, t])
            S = V @ H[:, 1:] + by
            P = np.exp(S - np.logaddexp.reduce(S, axis=0))
            loss = -np.add.reduce(np.log(P) * Y).sum()
            dS = P - Y
            dH, dA = V.T @ dS, np.zeros((n_h, T))
            for t in range(T - 1, -1, -1):
                dA[:, t] = dH[:, t] * np.reciprocal(1 + np.exp(-np.log(np.exp(H[:, t + 1]) - 1)))
                if t:
                    dH[:, t - 1] += W.T @ dA[:, t]
            return (loss, dA @ X.T, dA @ H[:, :-1].T, dS @ H[:, 1:].T, dA.sum(1, keepdims=True),
                    dS.sum(1, keepdims=True), H[:, -1:])
        """, "dA @ H[:, :-1].T", "dA @ H[:, 1:].T", "dW"),
    "two layers, one of them by the name of a weight": ("""
        import numpy as np
        class Way:
            def __init__(self, n_in, n_hid):
                self.w, self.u = np.random.randn(n_in, n_hid), np.random.randn(n_hid, n_hid)
            def forward(self, x):
                self.x, self.h = x, [np.zeros((len(x), len(self.u)))]
                for t in range(x.shape[1]):
                    self.h.append(np.tanh(x[:, t] @ self.w + self.h[t] @ self.u))
                return np.stack(self.h[1:], axis=1)
            def backward(self, dy):
                self.dw, self.du, dx, dh = 0 * self.w, 0 * self.u, np.zeros_like(self.x), 0
                for t in range(dy.shape[1] - 1, -1, -1):
                    da = (dy[:, t] + dh) * (1 - self.h[t + 1] ** 2)
                    self.dw += self.x[:, t].T @ da
                    self.du += self.h[t].T @ da
                    dx[:, t], dh = da @ self.w.T, da @ self.u.T
                return dx
        class Both:
            def __init__(self, n_in, n_hid):
                self.fwd, self.bwd, self.n = Way(n_in, n_hid), Way(n_in, n_hid), n_hid
            def forward(self, x):
                return np.concatenate([self.fwd.forward(x), self.bwd.forward(x[:, ::-1])[:, ::-1]], axis=2)
            def backward(self, dy):
                da, db = dy[..., :self.n], dy[..., self.n:]
                return self.fwd.backward(da) + self.bwd.backward(db[:, ::-1])[:, ::-1]
        """, "self.bwd.backward(db[:, ::-1])[:, ::-1]", "self.bwd.backward(db[:, ::-1])", "dx"),
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


@pytest.mark.parametrize(("line", "other", "said"), [
    ("e / e.sum(axis=0)", "e / e.sum()", "it is a softmax over all entries"),
    ("np.max(x))\n    return e / e.sum(axis=0)", "x.max(axis=0))\n    return e / e.sum(axis=1)[:, None]",
     "softmax (line 2)"),
    ("1 / (1 + np.exp(-x))", "0.5 * (1 + np.tanh(x))", "it is σ(2x)"),
    ("cache):", "cache, other=0):", "")])
def test_an_activation_whose_backward_is_that_of_its_name(line, other, said, tmp_path):
    """It is the forward that differs; where the backward is right for it, nothing is said."""
    text = textwrap.dedent("""
        import numpy as np
        def softmax(x):
            e = np.exp(x - np.max(x))
            return e / e.sum(axis=0)
        def sigmoid(x):
            return 1 / (1 + np.exp(-x))
        def rnn_forward(x, W, V):
            h = sigmoid(W @ x)
            p = softmax(V @ h)
            return p, (x, h, p, W, V)
        def compute_cost(p, Y):
            return -np.sum(Y * np.log(p)) / Y.shape[1]
        def rnn_backward(Y, cache):
            x, h, p, W, V = cache
            dz = (p - Y) / Y.shape[1]
            da = V.T @ dz * h * (1 - h)
            return {'dx': W.T @ da, 'dW': da @ x.T, 'dV': dz @ h.T}
        """).lstrip().replace(line, other)
    (tmp_path / "mine.py").write_text(text)
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert [said in fault for fault in verdict.faults] == [True] * bool(said), verdict


def test_of_two_activations_only_the_one_that_matters_is_said(tmp_path):
    """A softmax over all entries is right for one column."""
    own = ("def tanh(x):\n    return (np.exp(x) - 1) / (np.exp(x) + 1)\n"
           "def softmax(x):\n    return np.exp(x) / np.exp(x).sum()\n")
    body = BODY.replace("np.tanh(", "tanh(").replace("e = np.exp(V @ hs[t] + c)", "").replace(
        "ps[t] = e / e.sum()", "ps[t] = softmax(V @ hs[t] + c)")
    (tmp_path / "mine.py").write_text(
        HEAD + own + "def lossFun(inputs, targets, hprev):" + body + "    return loss, dU, dW, dV, db, dc\n")
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    (fault,) = verdict.faults
    assert "tanh" in fault and "it is tanh(x/2)" in fault


@pytest.mark.parametrize("write", ["self.grads[0][...] = dW", "self.grads = [dW]"])
def test_a_model_whose_gradients_lose_the_arrays_of_its_layers(write, tmp_path):
    """Its loss has the book's guard against log 0, which many words make larger than an error of rounding."""
    (tmp_path / "mine.py").write_text(textwrap.dedent("""
        import numpy as np
        class Affine:
            def __init__(self, W):
                self.params, self.grads = [W], [np.zeros_like(W)]
            def forward(self, x):
                self.x = x
                return x @ self.params[0]
            def backward(self, dout):
                dW = self.x.T @ dout
                WRITE
                return dout @ self.params[0].T
        class Model:
            def __init__(self, V=10000, D=100):
                self.layers = [Affine(np.random.randn(D, V) / 10)]
                self.params, self.grads = [], []
                for layer in self.layers:
                    self.params += layer.params
                    self.grads += layer.grads
            def forward(self, x, t):
                for layer in self.layers:
                    x = layer.forward(x)
                e = np.exp(x - x.max(axis=1, keepdims=True))
                self.t, self.y = t, e / e.sum(axis=1, keepdims=True)
                return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)
            def backward(self, dout=1):
                dout = self.y.copy()
                dout[np.arange(len(self.t)), self.t] -= 1
                dout /= len(self.t)
                for layer in reversed(self.layers):
                    dout = layer.backward(dout)
                return dout
        """).replace("WRITE", write))
    said = {v.name: (v.status, *v.faults) for v in judge_file(str(tmp_path / "mine.py"))}
    assert said["Affine"] == ("right",)
    assert said["Model"] == ("right",) if "..." in write else "does not hold dlayers_0" in said["Model"][1]


def test_a_softmax_of_other_sums_than_its_shift(tmp_path):
    """Its shift cannot be left out."""
    (tmp_path / "mine.py").write_text(textwrap.dedent("""
        import numpy as np
        def softmax(x):
            e = np.exp(x - x.max(axis=1, keepdims=True))
            return e / e.sum(axis=0, keepdims=True)
        class SoftmaxWithLoss:
            def forward(self, x, t):
                self.y, self.t = softmax(x), t
                return -np.sum(np.log(self.y[np.arange(len(t)), t])) / len(t)
            def backward(self, dout=1):
                dx = self.y.copy()
                dx[np.arange(len(self.t)), self.t] -= 1
                return dx * dout / len(self.t)
        """))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    (fault,) = verdict.faults
    assert fault.startswith("your forward differs: softmax (line 3) is not what its name says")


def test_a_part_that_passes_is_not_written_and_the_rest_is_judged(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent("""
        import numpy as np
        class Scale:
            def __init__(self, n):
                self.g, self.dg = np.ones(n), None
            def forward(self, x):
                self.x = x
                return self.g * x
            def backward(self, dy):
                self.collect(dy)
                return self.g * dy
            def collect(self, dy):
                ...
        """))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert (verdict.status, verdict.faults) == ("wrong", ["not written yet: collect, which it calls (line 12)"])


def test_a_backward_that_alone_reads_globals(tmp_path):
    text = textwrap.dedent("""
        import numpy as np
        parameters = {"Wax": np.ones((5, 3)), "Waa": np.ones((5, 5)), "Wya": np.ones((2, 5)), "ba": np.ones((5, 1)),
                      "by": np.ones((2, 1))}
        def rnn_cell_backward(da_next, cache):
            a_next, a_prev, xt, p = cache
            dz = da_next * (1 - a_next ** 2)
            return {"dxt": p["Wax"].T @ dz, "da_prev": parameters["Waa"].T @ dz, "dWax": dz @ xt.T,
                    "dWaa": dz @ a_prev.T, "dba": dz.sum(axis=1, keepdims=True)}
        """)
    (tmp_path / "mine.py").write_text(text)
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert "reads parameters from globals (line 8), not from its cache" in verdict.faults[0]


def test_an_activation_that_is_a_class(tmp_path):
    """Its base class is abstract, which is not unwritten."""
    (tmp_path / "mine.py").write_text(textwrap.dedent("""
        import numpy as np
        class Activation:
            def __call__(self, x):
                raise NotImplementedError
            def prime(self, y):
                raise NotImplementedError
        class Tanh(Activation):
            def __call__(self, x):
                return (1 - np.exp(-x)) / (1 + np.exp(-x))
            def prime(self, y):
                return 1 - y ** 2
        class Layer:
            def __init__(self, n_in, n_out):
                self.W, self.act = np.random.randn(n_in, n_out), Tanh()
            def forward(self, x):
                self.x, self.y = x, self.act(x @ self.W)
                return self.y
            def backward(self, dy):
                dz = dy * self.act.prime(self.y)
                self.dW = self.x.T @ dz
                return dz @ self.W.T
        """))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    (fault,) = verdict.faults
    assert "Tanh (line 8) is not what its name says: it is tanh(x/2)" in fault
