"""Files whose first answer was wrong once: right code that was called wrong, or a cause that was none."""

from __future__ import annotations

import textwrap

import pytest

from minigrad.handwritten.judge import judge_file

# {what: (the file, {name: status}, what the verdicts say, what they do not)}
FILES: dict[str, tuple[str, dict[str, str], tuple[str, ...], tuple[str, ...]]] = {
    # Y is what the forward returned, and no targets: a gradient arrives beside it.
    "a result that is handed back": ("""
        class TanH:
            def forward(self, X):
                return np.tanh(X)
            def backward(self, Y, output_grad):
                return (1 - Y ** 2) * output_grad
        """, {"TanH": "right"}, (), ("cross-entropy",)),
    # Each step's backward takes slices that have the numbers of what its forward took and returned.
    "slices in place of what was returned": ("""
        class Update:
            def __init__(self, W):
                self.W = W
            def forward(self, Xk, Sk):
                return np.tanh(Xk + Sk @ self.W)
            def backward(self, Sk0, Sk1, output_grad):
                gZ = (1 - Sk1 ** 2) * output_grad
                return gZ, gZ @ self.W.T, Sk0.T @ gZ
        def run(update, X):
            S = np.zeros((4, 2, 3))
            for k in range(3):
                S[k + 1] = update.forward(X[k], S[k])
            g = np.ones((2, 3))
            for k in (2, 1, 0):
                gZ, g, gW = update.backward(S[k], S[k + 1], g)
        if __name__ == "__main__":
            run(Update(np.eye(3) * 0.5), np.linspace(0, 1, 18).reshape(3, 2, 3))
        """, {"Update": "right"}, (), ()),
    # The state is masked by zeros and ones: 1 − h² is the derivative of the tanh wherever it is not cut off.
    "zeros and ones": ("""
        class Direction:
            def __init__(self, n, k):
                self.p = {'W': np.ones((n, k)), 'R': np.eye(k), 'b': np.zeros(k)}
            def forward(self, x, alive):
                self.x, self.alive, self.h, self.before = x, alive, [], []
                s = np.zeros((x.shape[1], len(self.p['b'])))
                for t in range(len(x)):
                    self.before.append(s)
                    s = np.tanh(x[t] @ self.p['W'] + s @ self.p['R'] + self.p['b']) * alive[t]
                    self.h.append(s)
                return np.array(self.h)
            def backward(self, dh):
                self.g = {k: np.zeros_like(v) for k, v in self.p.items()}
                dx, carry = np.zeros_like(self.x), 0
                for t in reversed(range(len(dh))):
                    d = (dh[t] + carry) * self.alive[t] * (1 - self.h[t] ** 2)
                    self.g['W'] += self.x[t].T @ d
                    self.g['R'] += self.before[t].T @ d
                    self.g['b'] += d.sum(axis=0)
                    dx[t] = d @ self.p['W'].T
                    carry = d @ self.p['R'].T
                return dx
        if __name__ == "__main__":
            one = Direction(2, 4)
            alive = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1.0]])[:, :, None]
            one.backward(one.forward(np.ones((3, 3, 2)), alive))
        """, {"Direction": "right"}, (), ()),
    # Two objects of one class, in attributes that look like weights, and gradients in a G beside P.
    "weights in groups of several objects": ("""
        class Half:
            def __init__(self, n):
                self.P, self.G = {'W': np.eye(n), 'b': np.zeros(n)}, {}
            def forward(self, x):
                self.x = x
                return x @ self.P['W'] + self.P['b']
            def backward(self, dy):
                self.G = {'W': self.x.T @ dy, 'b': dy.sum(0)}
                return dy @ self.P['W'].T
        class Both:
            def __init__(self, n, k):
                self.fw, self.bw, self.V, self.c = Half(n), Half(n), np.ones((n, k)), np.zeros(k)
            def forward(self, x):
                self.h = self.fw.forward(x) * self.bw.forward(x)
                return self.h @ self.V + self.c
            def backward(self, dy):
                dh = dy @ self.V.T
                a, b = self.fw.forward(self.fw.x), self.bw.forward(self.bw.x)
                dx = self.fw.backward(dh * b) + self.bw.backward(dh * a)
                self.grads = {'V': self.h.T @ dy, 'c': dy.sum(0), 'fw': self.fw.G, 'bw': self.bw.G}
                return dx
        """, {"Half": "right", "Both": "right"}, (), ("not judged",)),
    # The layers have other sizes, so that each is a pass of its own; the states are a list.
    "a loop that leaves out the first step in each layer": ("""
        class Deep:
            def __init__(self, sizes):
                self.layers = [{'W': np.ones((n, m)), 'U': np.eye(m)} for n, m in zip(sizes, sizes[1:])]
            def forward(self, x, h0):
                self.kept = []
                for p, h in zip(self.layers, h0):
                    out, cache = [], []
                    for xt in x:
                        new = np.tanh(xt @ p['W'] + h @ p['U'])
                        cache.append((xt, h, new))
                        out.append(new)
                        h = new
                    self.kept.append(cache)
                    x = np.array(out)
                return x
            def backward(self, dout):
                grads, dh0 = [], []
                for p, cache in zip(self.layers[::-1], self.kept[::-1]):
                    g, dh = {k: np.zeros_like(v) for k, v in p.items()}, 0
                    dx = np.zeros((len(cache), *cache[0][0].shape))
                    for t in range(len(cache) - 1, 0, -1):
                        xt, h, new = cache[t]
                        dz = (dout[t] + dh) * (1 - new ** 2)
                        g['W'] += xt.T @ dz
                        g['U'] += h.T @ dz
                        dx[t], dh = dz @ p['W'].T, dz @ p['U'].T
                    grads.insert(0, g)
                    dh0.insert(0, dh)
                    dout = dx
                return dout, dh0, grads
        if __name__ == "__main__":
            net = Deep([3, 4, 5])
            net.backward(net.forward(np.ones((6, 2, 3)), [np.zeros((2, 4)), np.zeros((2, 5))]))
        """, {"Deep": "wrong"}, ("the loop over time leaves out the first 1 of the",), ("not explained",)),
    # The probability is a number too, and is handed on. Of a gradient that is zero no step stays.
    "zeros behind a loss and a probability": ("""
        def forward(p, X, y):
            h, trace = np.zeros((len(p['U']), 1)), []
            for x in X:
                x = x.reshape(-1, 1)
                a = np.tanh(p['U'] @ h + p['W'] @ x)
                trace.append((x, h, a))
                h = p['S'] @ a
            prob = 1 / (1 + np.exp(-(p['v'].T @ h)))[0, 0]
            return -(y * np.log(prob) + (1 - y) * np.log(1 - prob)), prob, h, trace
        def backward(p, y, prob, h, trace):
            grad = {k: np.zeros_like(w) for k, w in p.items()}
            grad['v'] = (prob - y) * h
            dh = (prob - y) * p['v']
            for x, before, a in trace[::-1]:
                grad['S'] += dh @ a.T
                da = (p['S'].T @ dh) * (1 - a ** 2)
                grad['W'] += da @ x.T
                dh = p['U'].T @ da  # U is not written yet
            return grad
        if __name__ == "__main__":
            p = {'U': np.eye(4) / 2, 'W': np.ones((4, 2)) / 3, 'S': np.eye(4), 'v': np.ones((4, 1))}
            loss, prob, h, trace = forward(p, np.ones((5, 2)), 1)
            backward(p, 1, prob, h, trace)
        """, {"backward": "wrong"}, ("dU: zero: nothing arrives",), ()),
    # What arrives at the softmax is p − y; the loss comes behind its gradients, and has a mean that they have not.
    "gradients before their loss": ("""
        def forward(x, h, m):
            h_prev, h = h, np.tanh(x @ m['Wx'] + h @ m['Wh'])
            e = np.exp(h @ m['Wy'])
            return e / e.sum(axis=1, keepdims=True), h, (x, h_prev, h)
        def backward(dy, dh, cache, m):
            x, h_prev, h = cache
            da = (dy @ m['Wy'].T + dh) * (1 - h ** 2)
            return {'Wy': h.T @ dy, 'Wx': x.T @ da, 'Wh': h_prev.T @ da}, da @ m['Wh'].T
        def train_step(X, h, m):
            caches, probs, loss = [], [], 0.
            for x in X:
                p, h, cache = forward(x, h, m)
                loss += -np.log(p[0, 1])
                probs.append(p)
                caches.append(cache)
            loss /= len(X)
            grads, dh = {k: np.zeros_like(v) for k, v in m.items()}, 0
            for t in reversed(range(len(X))):
                dy = probs[t].copy()
                dy[0, 1] -= 1
                g, dh = backward(dy, dh, caches[t], m)
                for k in m:
                    grads[k] += g[k]
            return grads, loss, h
        if __name__ == "__main__":
            m = {'Wx': np.ones((3, 4)) / 5, 'Wh': np.eye(4) / 2, 'Wy': np.ones((4, 2))}
            grads, loss, h = train_step(np.ones((5, 1, 3)), np.zeros((1, 4)), m)
        """, {"backward": "right", "train_step": "wrong"}, ("gradient of what goes into the softmax", "the gradient"),
        ("not explained", "takes the gradient of softmax")),
    # A notebook goes on with a class of the same name.
    "a class that extends itself": ("""
        class Cell:
            def __init__(self, n):
                self.W = np.eye(n)
            def forward(self, x):
                self.y = np.tanh(x @ self.W)
                self.x = x
                return self.y
            def backward(self, dy):
                self.dW = self.x.T @ (dy * (1 - self.y))
                return (dy * (1 - self.y ** 2)) @ self.W.T
        class Cell(Cell):
            def __repr__(self):
                return "Cell"
        """, {"Cell": "wrong"}, ("1 − y",), ()),
    # Its own run has a single step, at which both faults are hidden: the first verdict stands.
    "a run of one step": ("""
        class RNN:
            def __init__(self, input_size, output_size, hidden_size=16):
                self.Whh, self.Wxh = np.eye(hidden_size), np.ones((hidden_size, input_size)) / 9
                self.Why = np.ones((output_size, hidden_size)) / 9
            def forward(self, inputs):
                h = np.zeros((len(self.Whh), 1))
                self.inputs, self.hs = inputs, {0: h}
                for i, x in enumerate(inputs):
                    h = np.tanh(self.Wxh @ x + self.Whh @ h)
                    self.hs[i + 1] = h
                return self.Why @ h, h
            def backprop(self, d_y):
                n = len(self.inputs)
                d_Why, d_Whh, d_Wxh = d_y @ self.hs[n - 1].T, np.zeros(self.Whh.shape), np.zeros(self.Wxh.shape)
                d_h = self.Why.T @ d_y
                for t in reversed(range(n)):
                    temp = (1 - self.hs[t + 1] ** 2) * d_h
                    d_Whh += temp @ self.hs[t].T
                    d_Wxh += temp @ self.inputs[t].T
                    d_h = self.Whh.T @ temp
                return d_Whh, d_Wxh, d_Why
        if __name__ == "__main__":
            rnn = RNN(3, 2)
            rnn.forward([np.array([[1], [0], [0.0]])])
            rnn.backprop(np.ones((2, 1)))
        """, {"RNN": "wrong"}, ("wrong: dWhy", "write `self.hs[n]`"), ("does not return",)),
    # Found among the changes of one step; over time there are too many pairs.
    "two faults on one path": ("""
        def sigmoid(x):
            return 1 / (1 + np.exp(-x))
        def lstm_forward(xs, h, c, Wf, Wi, Wg, Wo, Uf, Ui, Ug, Uo):
            out, caches = [], []
            for x in xs:
                f, i = sigmoid(x @ Wf + h @ Uf), sigmoid(x @ Wi + h @ Ui)
                g, o = np.tanh(x @ Wg + h @ Ug), sigmoid(x @ Wo + h @ Uo)
                cn = f * c + i * g
                hn = o * np.tanh(cn)
                caches.append((x, h, c, f, i, g, o, cn))
                h, c = hn, cn
                out.append(hn)
            return np.array(out), (caches, Wf, Wi, Wg, Wo, Uf, Ui, Ug, Uo)
        def lstm_backward(dout, cache):
            caches, *weights = cache
            d = [np.zeros_like(w) for w in weights]
            dxs, dh, dc = [], 0, 0
            for t in reversed(range(len(caches))):
                x, h, c, f, i, g, o, cn = caches[t]
                dh = dout[t] + dh
                dc = dc + dh * o * (1 - np.tanh(cn) ** 2)
                dz = [dc * cn * f, dc * g * i * (1 - i), dc * i * (1 - g ** 2), dh * np.tanh(cn) * o * (1 - o)]
                dx, dh, dc = 0, 0, dc * f
                for k in range(4):
                    d[k] += x.T @ dz[k]
                    d[4 + k] += h.T @ dz[k]
                    dx, dh = dx + dz[k] @ weights[k].T, dh + dz[k] @ weights[4 + k].T
                dxs.insert(0, dx)
            return np.array(dxs), dh, dc, *d
        """, {"lstm_backward": "wrong"}, (
            "f (1 − f)", "; and ", "cn is used where cn of the step before is meant"), ("not explained",)),
    # What the loss needs is set by a call that returns nothing.
    "an object for each step": ("""
        class Param:
            def __init__(self, n, k):
                self.W, self.U, self.v = np.ones((k, n)), np.eye(k), np.ones(k)
                self.W_diff, self.U_diff, self.v_diff = 0 * self.W, 0 * self.U, 0 * self.v
        class Node:
            def __init__(self, param):
                self.p = param
            def step(self, x, h):
                self.x, self.before, self.h = x, h, np.tanh(self.p.W @ x + self.p.U @ h)
            def back(self, dh):
                dz = dh * (1 - self.h ** 2)
                self.p.W_diff += np.outer(dz, self.x)
                self.p.U_diff += np.outer(dz, self.before)
                self.dx, self.dh = self.p.W.T @ dz, self.p.U.T @ dz
        def run(param, xs, target):
            h, nodes = np.zeros(len(param.v)), []
            for x in xs:
                node = Node(param)
                node.step(x, h)
                h = node.h
                nodes.append(node)
            err = param.v @ h - target
            param.v_diff += 2 * err * h
            dh, dxs = 2 * err * param.v, []
            for node in nodes[::-1]:
                node.back(dh)
                dh = node.dh
                dxs.insert(0, node.dx)
            return err ** 2, np.array(dxs)
        if __name__ == "__main__":
            run(Param(3, 4), np.ones((5, 3)), 0.5)
        """, {"run": "right"}, (), ()),
    # An output of several units would have gradients where the loss has none.
    "a loss of the first column": ("""
        def predict(p, seq, h):
            hs, ys = [h], []
            for x in seq:
                hs.append(np.tanh(p['U'] @ x + p['W'] @ hs[-1]))
                ys.append(p['V'] @ hs[-1] + p['c'])
            return np.array(ys)[:, 0], hs
        def loss(p, seq, h, target):
            y, _ = predict(p, seq, h)
            return np.sum((y - target) ** 2) / len(seq)
        def bptt(p, seq, h, target):
            y, hs = predict(p, seq, h)
            d, dh = {k: np.zeros_like(w) for k, w in p.items()}, 0
            for t in reversed(range(len(seq))):
                dy = 2 * (y[t] - target[t]) / len(seq)
                d['V'] += dy * hs[t + 1][None, :]
                d['c'] += dy
                da = (dh + dy * p['V'][0]) * (1 - hs[t + 1] ** 2)
                d['U'] += np.outer(da, seq[t])
                d['W'] += np.outer(da, hs[t])
                dh = p['W'].T @ da
            return d
        """, {"bptt": "right"}, (), ()),
    # One carried gradient is that of all layers; with a single hidden layer it would be right.
    "one array for all layers": ("""
        class Stack:
            def __init__(self, sizes):
                self.H, self.L = sizes[1], len(sizes) - 2
                self.W = [np.ones((self.H, n)) / n for n in sizes[:-2]]
                self.R = [np.eye(self.H) / 2 for _ in range(self.L)]
            def forward(self, xs):
                self.xs, self.h, ys = xs, {-1: [np.zeros(self.H) for _ in range(self.L)]}, []
                for t, x in enumerate(xs):
                    self.h[t] = []
                    for l in range(self.L):
                        x = np.tanh(self.W[l] @ x + self.R[l] @ self.h[t - 1][l])
                        self.h[t].append(x)
                    ys.append(x)
                return np.array(ys)
            def backward(self, dys):
                dW, dR = [np.zeros_like(w) for w in self.W], [np.zeros_like(w) for w in self.R]
                carry = [np.zeros(self.H)] * self.L
                for t in range(len(self.xs) - 1, -1, -1):
                    above = dys[t]
                    for l in range(self.L - 1, -1, -1):
                        dz = (above + carry[l]) * (1 - self.h[t][l] ** 2)
                        dW[l] += np.outer(dz, self.h[t][l - 1] if l else self.xs[t])
                        dR[l] += np.outer(dz, self.h[t - 1][l])
                        carry[l][:] = self.R[l].T @ dz
                        above = self.W[l].T @ dz
                return {"W": dW, "R": dR}
        """, {"Stack": "wrong"}, ("[np.zeros(self.H)] * self.L",), ()),
    # A factor is missing at each step, and another is false in what is carried: neither explains anything alone.
    "a fault of a step and one of what it carries": ("""
        def sigmoid(x):
            return 1 / (1 + np.exp(-x))
        class Unit:
            def __init__(self, n, k):
                self.W, self.U = {g: np.ones((n, k)) for g in "fog"}, {g: np.eye(k) for g in "fog"}
            def forward(self, x):
                h = c = np.zeros((x.shape[0], self.U["f"].shape[0]))
                self.x, self.tape, hs = x, [], []
                for t in range(x.shape[1]):
                    f, o = (sigmoid(x[:, t] @ self.W[k] + h @ self.U[k]) for k in "fo")
                    g = np.tanh(x[:, t] @ self.W["g"] + h @ self.U["g"])
                    c_next = f * c + (1 - f) * g
                    h_next = o * np.tanh(c_next)
                    self.tape.append((h, c, f, o, g, c_next))
                    h, c = h_next, c_next
                    hs.append(h)
                return np.stack(hs, 1)
            def backward(self, dhs):
                self.dW, self.dU = ({k: np.zeros_like(w) for k, w in some.items()} for some in (self.W, self.U))
                dx, dh, dc = np.zeros_like(self.x), 0, 0
                for t in reversed(range(len(self.tape))):
                    h, c, f, o, g, c_next = self.tape[t]
                    dh = dhs[:, t] + dh
                    dc = dc + dh * o
                    d = {"f": dc * (c - g) * f * (1 - f), "o": dh * np.tanh(c_next) * o * (1 - o),
                         "g": dc * (1 - f) * (1 - g ** 2)}
                    dh, dc = 0, dc * o
                    for k in d:
                        self.dW[k] += self.x[:, t].T @ d[k]
                        self.dU[k] += h.T @ d[k]
                        dx[:, t] += d[k] @ self.W[k].T
                        dh = dh + d[k] @ self.U[k].T
                return dx
        """, {"Unit": "wrong"}, ("lacks the derivative of its tanh", "; and o is used where f is meant"), ()),
    # d is what was guessed, and the name of no gradient; an update is.
    "updates beside a guess": ("""
        synapse_0, synapse_h = np.ones((2, 5)) / 3, np.eye(5) / 2
        def run_example(a, b, c):
            n, d, loss = len(a), np.zeros_like(c), 0.0
            hs, deltas = [np.zeros((1, 5))], []
            for t in range(n):
                X, y = np.array([[a[n - t - 1], b[n - t - 1]]]), np.array([[c[n - t - 1]]])
                h = 1 / (1 + np.exp(-(X.dot(synapse_0) + hs[-1].dot(synapse_h))))
                deltas.append(h.sum() - y)
                loss += 0.5 * float((deltas[-1] ** 2).sum())
                d[n - t - 1] = int(np.round(h[0][0]))
                hs.append(h)
            synapse_0_update, synapse_h_update = np.zeros_like(synapse_0), np.zeros_like(synapse_h)
            future = np.zeros((1, 5))
            for t in range(n):
                h, before = hs[-t - 1], hs[-t - 2]
                future = (future.dot(synapse_h.T) + deltas[-t - 1]) * h * (1 - h)
                synapse_h_update += before.T.dot(future)
                synapse_0_update += np.array([[a[t], b[t]]]).T.dot(future)
            return loss, d, synapse_0_update, synapse_h_update
        if __name__ == "__main__":
            run_example(np.array([0, 1, 1]), np.array([1, 0, 1]), np.array([1, 1, 0]))
        """, {"run_example": "right"}, (), ()),
    # Of y and another name the first is what was predicted, and a mean over all of it is one over two axes.
    "the targets have another name than y": ("""
        class MSE:
            def forward(self, y, cible):
                self.diff = y - cible
                return np.mean(self.diff ** 2)
            def backward(self):
                return 2 * self.diff / len(self.diff)
        """, {"MSE": "wrong"}, ("dy: 5 times the gradient",), ("-5",)),
    # Nothing was written but the frame.
    "a loop that assigns None": ("""
        def rnn_forward(x, W, U):
            h = [np.zeros((x.shape[0], U.shape[0]))]
            for t in range(x.shape[1]):
                h.append(np.tanh(x[:, t] @ W + h[-1] @ U))
            return np.stack(h[1:], 1), (x, h, W, U)
        def rnn_backward(dh, cache):
            x, h, W, U = cache
            dx, dW, dU = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U)
            for t in reversed(range(x.shape[1])):
                gradients = None
            return dx, dW, dU
        """, {"rnn_backward": "not written"}, ("not written yet: its loop",), ()),
    # The largest is taken off in the exponent and added again: it is no guard that may be left out on one side.
    "a logarithm of a sum by hand": ("""
        def loss_and_grads(seq, label, p):
            h = [np.zeros(p["b"].size)]
            for x in seq:
                h.append(np.tanh(p["W"].dot(x) + p["U"].dot(h[-1]) + p["b"]))
            z = p["V"] @ h[-1]
            total = z.max() + np.log(np.exp(z - z.max()).sum())
            dz = np.exp(z - total)
            dz[label] -= 1
            grad = {k: np.zeros_like(w) for k, w in p.items()}
            grad["V"] = np.outer(dz, h[-1])
            dh = p["V"].T @ dz
            for t in range(len(seq) - 1, -1, -1):
                da = dh * (1 - h[t + 1] ** 2)
                grad["W"] += np.outer(da, seq[t])
                grad["U"] += np.outer(da, h[t])
                grad["b"] += da
                dh = p["U"].T @ da
            return total - z[label], grad
        """, {"loss_and_grads": "right"}, (), ()),
    # (n, -1) of three axes: the labels have the first two.
    "labels as long as the first two axes": ("""
        class Loss:
            def forward(self, xs, ts):
                mask = (ts != -1).reshape(-1)
                ys = np.exp(xs - xs.max(axis=2, keepdims=True))
                ys = (ys / ys.sum(axis=2, keepdims=True)).reshape(mask.size, -1)
                self.cache = ts.reshape(-1), ys, mask, xs.shape
                return -(np.log(ys[np.arange(mask.size), ts.reshape(-1)]) * mask).sum() / mask.sum()
            def backward(self, dout=1):
                ts, ys, mask, shape = self.cache
                dx = ys.copy()
                dx[np.arange(mask.size), ts] -= 1
                return (dout * dx / mask.sum() * mask[:, None]).reshape(shape)
        """, {"Loss": "right"}, (), ()),
    # max(0, a) is a relu, and has one derivative.
    "the derivative of a tanh for a maximum with 0": ("""
        class Layer:
            def __init__(self, n, k):
                self.W, self.b = np.ones((n, k)), np.zeros(k)
            def forward(self, x):
                self.x = x
                self.y = np.maximum(0, x @ self.W + self.b)
                return self.y
            def backward(self, dy):
                da = dy * (1 - self.y ** 2)
                self.dW, self.db = self.x.T @ da, da.sum(axis=0)
                return da @ self.W.T
        """, {"Layer": "wrong"}, ("has 1 − y² in place of the derivative",), ()),
    # The call of the demo has no masked word, where the fault does not show.
    "values of the file that hide a fault": ("""
        def temporal_loss(x, y, mask):
            N, T, V = x.shape
            x, y, mask = x.reshape(N * T, V), y.reshape(N * T), mask.reshape(N * T)
            p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            loss = -np.sum(mask * np.log(p[np.arange(N * T), y])) / N
            dx = p * mask[:, None]
            dx[np.arange(N * T), y] -= 1
            return loss, (dx / N).reshape(N, T, V)
        if __name__ == "__main__":
            temporal_loss(np.ones((2, 3, 4)), np.array([[0, 1, 2], [3, 1, 0]]), np.ones((2, 3), bool))
        """, {"temporal_loss": "wrong"}, ("wrong: dx",), ()),
    # What is kept is divided by 0.8, which zeros and ones do not show.
    "a mask of other numbers than one": ("""
        class Layer:
            def __init__(self, W):
                self.W = W
            def forward(self, x, mask):
                self.x, self.mask = x * mask, mask
                return self.x @ self.W
            def backward(self, dy):
                self.dW, dx = self.x.T @ dy, dy @ self.W.T
                dx[self.mask == 0] = 0
                return dx
        if __name__ == "__main__":
            Layer(np.ones((3, 2))).forward(np.ones((2, 3)), np.array([[1, 0, 1], [1, 1, 0]]) / 0.8)
        """, {"Layer": "wrong"}, ("dx: 0.8 times the gradient",), ()),
    # What is returned beside dx is no gradient of the weights, and those are kept.
    "states returned beside what is kept": ("""
        class Rnn:
            def __init__(self, D, H):
                self.W, self.U = np.ones((D, H)) / D, np.eye(H)
            def forward(self, xs):
                self.xs, self.hs = xs, [np.zeros((xs.shape[1], len(self.U)))]
                for x in xs:
                    self.hs.append(np.tanh(x @ self.W + self.hs[-1] @ self.U))
                return np.array(self.hs[1:])
            def backward(self, dhs):
                self.dW, self.dU, dxs, dh = np.zeros_like(self.W), np.zeros_like(self.U), [], 0
                for x, h, y, d in zip(self.xs[::-1], self.hs[-2::-1], self.hs[::-1], dhs[::-1]):
                    dz = (dh + d) * (1 - y ** 2)
                    self.dW += x.T @ dz
                    self.dU += h.T @ dz
                    dxs.append(dz @ self.W.T)
                    dh = dz @ self.U.T
                return np.array(dxs), (dh, dh)
        """, {"Rnn": "wrong"}, ("wrong: dxs\n", "dxs: reversed along axis 0"), ()),
    # The norm has another name.
    "gradients that are scaled to a norm": ("""
        Wxh, Whh = np.ones((4, 3)) / 3, np.eye(4)
        def lossFun(xs, target, hprev):
            hs, loss = [hprev], 0
            for x in xs:
                hs.append(np.tanh(Wxh @ x + Whh @ hs[-1]))
            loss = 0.5 * np.sum((hs[-1] - target) ** 2)
            dWxh, dWhh, dh = np.zeros_like(Wxh), np.zeros_like(Whh), hs[-1] - target
            for t in range(len(xs) - 1, -1, -1):
                draw = dh * (1 - hs[t + 1] ** 2)
                dWxh += draw @ xs[t].T
                dWhh += draw @ hs[t].T
                dh = Whh.T @ draw
            grads = [dWxh, dWhh]
            total = np.sqrt(sum(np.sum(g ** 2) for g in grads))
            if total > 1.0:
                grads = [g / total for g in grads]
            return (loss, *grads)
        """, {"lossFun": "right"}, ("clips its gradients",), ()),
    # Keys that a loop over the dict does not tell, pairs of arrays, and a gradient that may be left out.
    "a dict of pairs and a last state": ("""
        def unroll(par, xs, h, c):
            kept = []
            for x in xs:
                v = np.concatenate((x, h))
                a = {k: np.tanh(W @ v + b) for k, (W, b) in par.items()}
                old, c = c, a["f"] * c + a["g"]
                h = a["o"] * np.tanh(c)
                kept.append((v, a, old, c))
            return h, c, kept
        def unroll_back(par, kept, dh, dc=None):
            n = len(dh)
            dc = np.zeros(n) if dc is None else dc
            grads = {k: [np.zeros_like(W), np.zeros_like(b)] for k, (W, b) in par.items()}
            for v, a, old, c in kept[::-1]:
                t = np.tanh(c)
                dc = dc + dh * a["o"] * (1 - t * t)
                pre = {"o": dh * t * (1 - a["o"] ** 2), "f": dc * old * (1 - a["f"] ** 2)}
                pre["g"] = dc * (1 - a["g"] ** 2)
                dv = 0
                for k, d in pre.items():
                    grads[k][0] += np.outer(d, v)
                    grads[k][1] += d
                    dv = dv + d @ par[k][0]
                dh, dc = dv[-n:], dc * a["f"]
            return dh, dc, grads
        """, {"unroll_back": "right"}, (), ()),
    # A term is added after the others were computed from the sum: there the path is missing.
    "a line too late": ("""
        class Cell:
            def forward(self, x, c, U, v):
                self.kept = x, c, U, v
                self.f = np.tanh(x @ U)
                self.c = self.f * c + x
                self.o = np.tanh(x + v * self.c)
                return self.o * np.tanh(self.c)
            def backward(self, dh):
                x, c, U, v = self.kept
                t = np.tanh(self.c)
                do = dh * t * (1 - self.o ** 2)
                dc = dh * self.o * (1 - t ** 2)
                df = dc * c * (1 - self.f ** 2)
                dv = (do * self.c).sum(0)
                dc += do * v
                return do + dc + df @ U.T, dc * self.f, x.T @ df, dv
        """, {"Cell": "wrong"}, ("in the formula of df only: dc lacks the path from v c to c",), ()),
    # What the layer above left is carried into the one below.
    "zeros before the loop over layers": ("""
        def rnn_forward(x, layers):
            kept = []
            for W, U in layers:
                h = [np.zeros((x.shape[1], len(U)))]
                for t in range(len(x)):
                    h.append(np.tanh(x[t] @ W + h[-1] @ U))
                kept.append((x, h))
                x = np.array(h[1:])
            return x, (kept, layers)
        def rnn_backward(dh, cache):
            kept, layers = cache
            grads = []
            carry = np.zeros_like(dh[0])
            for (x, h), (W, U) in zip(kept[::-1], layers[::-1]):
                dx, dW, dU = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U)
                for t in reversed(range(len(x))):
                    dz = (dh[t] + carry) * (1 - h[t + 1] ** 2)
                    dW += x[t].T @ dz
                    dU += h[t].T @ dz
                    dx[t] = dz @ W.T
                    carry = dz @ U.T
                grads.insert(0, (dW, dU))
                dh = dx
            return dh, grads
        if __name__ == "__main__":
            y, cache = rnn_forward(np.ones((4, 2, 3)), [(np.eye(3), np.eye(3)), (np.eye(3), np.eye(3))])
            rnn_backward(y, cache)
        """, {"rnn_backward": "wrong"}, ("carry = np.zeros_like(dh[0])` belongs at the beginning of",), ()),
    # Logits beyond 700 have exponentials without a number; a student's own takes the largest off.
    "a recurrence without bounds": ("""
        def loss(p, x, y, h):
            hs = [h]
            for t in range(x.shape[1]):
                hs.append(np.maximum(0, x[:, t] @ p["W"] + hs[-1] @ p["U"]))
            s = 20 * (np.stack(hs[1:], 1) @ p["V"])
            s = s - s.max(axis=2, keepdims=True)
            logp = s - np.log(np.exp(s).sum(axis=2, keepdims=True))
            nll = -np.take_along_axis(logp, y[:, :, None], axis=2).mean()
            ds = np.exp(logp)
            np.put_along_axis(ds, y[:, :, None], np.take_along_axis(ds, y[:, :, None], 2) - 1, axis=2)
            ds *= 20 / y.size
            grads = {"W": 0, "U": 0, "V": np.einsum("nth,ntv->hv", np.stack(hs[1:], 1), ds)}
            dh = 0
            for t in range(x.shape[1] - 1, -1, -1):
                dz = (dh + ds[:, t] @ p["V"].T) * (hs[t + 1] > 0)
                grads["W"] += x[:, t].T @ dz
                grads["U"] += hs[t].T @ dz
                dh = dz @ p["U"].T
            return nll, grads
        """, {"loss": "right"}, (), ()),
    # The cost has a name for what the forward returns without one, and divides by the examples, the middle axis.
    "a cost that names its predictions": ("""
        def softmax(z):
            return np.exp(z) / np.exp(z).sum(axis=0, keepdims=True)
        def rnn_forward(x, a0, p):
            a, out, kept = a0, [], []
            for t in range(x.shape[2]):
                before, a = a, np.tanh(p["W"] @ x[:, :, t] + p["U"] @ a)
                out.append(softmax(p["V"] @ a))
                kept.append((x[:, :, t], before, a, out[-1]))
            return np.stack(out, axis=2), kept
        def compute_cost(y_pred, labels):
            n, m, T = y_pred.shape
            return sum(-np.log(y_pred[labels[:, t], np.arange(m), t]).sum() for t in range(T)) / m
        def rnn_backward(x, labels, kept, p):
            m, da, grads = x.shape[1], 0, {"d" + k: np.zeros(w.shape) for k, w in p.items()}
            for t in range(x.shape[2])[::-1]:
                xt, before, a, y = kept[t]
                dz = y.copy()
                dz[labels[:, t], np.arange(m)] -= 1
                dz /= m
                grads["dV"] += dz @ a.T
                d = (p["V"].T @ dz + da) * (1 - a ** 2)
                grads["dW"] += d @ xt.T
                grads["dU"] += d @ before.T
                da = p["U"].T @ d
            return {**grads, "da0": da}
        """, {"rnn_backward": "right"}, (), ("the file has no loss",)),
    # dWs is that of the dict W, and its key c is no state.
    "dicts of gates in the plural": ("""
        GATES = ("f", "c")
        def step_forward(x, c, W, b):
            z = np.concatenate((c, x))
            a = {g: np.tanh(W[g] @ z + b[g]) for g in GATES}
            return a["f"] * c + a["c"], (z, c, a)
        def run_forward(x, c0, W, b):
            c, kept, out = c0, [], []
            for t in range(x.shape[2]):
                c, cache = step_forward(x[:, :, t], c, W, b)
                kept.append(cache)
                out.append(c)
            return np.stack(out, axis=2), kept
        def run_backward(dc, kept, W):
            dc_c, n = 0, dc.shape[0]
            dWs = {g: np.zeros_like(W[g]) for g in GATES}
            dbs = {g: np.zeros((n, 1)) for g in GATES}
            dx = np.zeros((W["f"].shape[1] - n, *dc.shape[1:]))
            for t in range(dc.shape[2])[::-1]:
                z, c, a = kept[t]
                d = dc[:, :, t] + dc_c
                dz, da = 0, {"f": d * c * (1 - a["f"] ** 2), "c": d * (1 - a["c"] ** 2)}
                for g in GATES:
                    dWs[g] += da[g] @ z.T
                    dbs[g] += da[g].sum(axis=1, keepdims=True)
                    dz = dz + W[g].T @ da[g]
                dx[:, :, t], dc_c = dz[n:], d * a["f"] + dz[:n]
            return dx, dc_c, dWs, dbs
        """, {"run_backward": "right"}, (), ("c0",)),
    # A layer that is handed the arrays to which it adds.
    "gradients that are handed to a layer": ("""
        class Linear:
            def __init__(self, W, b, dW, db):
                self.W, self.b, self.dW, self.db = W, b, dW, db
            def forward(self, x):
                self.x = x
                return x @ self.W + self.b
            def backward(self, grad):
                self.dW += self.x.T @ grad
                self.db += grad.sum(axis=0)
                return grad @ self.W.T
        """, {"Linear": "right"}, ("dW, db add up over calls",), ()),
}


@pytest.mark.parametrize("name", FILES)
def test_first_answer(name, tmp_path):
    text, statuses, said, not_said = FILES[name]
    file = tmp_path / "student.py"
    file.write_text("import numpy as np\n" + textwrap.dedent(text), encoding="utf-8")
    verdicts = {verdict.name: verdict for verdict in judge_file(str(file))}
    answer = "\n".join(map(str, verdicts.values()))
    assert {key: verdict.status for key, verdict in verdicts.items()} == statuses, answer
    assert [words for words in said if words not in answer] == [], answer
    assert [words for words in not_said if words in answer] == [], answer
