"""Files of many arrangements: how a backward is found and called, and whose gradients it gives. Each file is right."""

from __future__ import annotations

import textwrap

import pytest

from minigrad.handwritten.find import find
from minigrad.handwritten.judge import judge, judge_file
from minigrad.handwritten.meant import own_forward
from minigrad.handwritten.source import read
from minigrad.handwritten.trial import Trial

pytestmark = pytest.mark.quick

# name: (text, what is judged, the gradients that are told apart)
FILES = {
    "a forward that returns its backward": ("""
        def rnn(x, h0, W, U):
            hs = [h0]
            for t in range(len(x)):
                hs.append(np.tanh(x[t] @ W + hs[-1] @ U))
            def backward(dhs):
                dW, dU, dx, dh = np.zeros_like(W), np.zeros_like(U), np.zeros_like(x), 0
                for t in reversed(range(len(x))):
                    dz = (dhs[t] + dh) * (1 - hs[t + 1] ** 2)
                    dx[t], dW, dU, dh = dz @ W.T, dW + x[t].T @ dz, dU + hs[t].T @ dz, dz @ U.T
                return dx, dh, dW, dU
            return np.stack(hs[1:]), backward
        """, "rnn", "x h0 W U"),
    "a method that returns a lambda": ("""
        class Layer:
            def __init__(self, n_in, n_out):
                self.W = np.ones((n_out, n_in))
            def __call__(self, x):
                y = np.tanh(self.W @ x)
                return y, lambda dy: {'x': self.W.T @ (dy * (1 - y ** 2)), 'W': dy * (1 - y ** 2) @ x.T}
        """, "Layer", "x W"),
    "dataclasses and named tuples": ("""
        from dataclasses import dataclass
        from typing import NamedTuple
        @dataclass
        class Params:
            W: np.ndarray
            b: np.ndarray
        class Cache(NamedTuple):
            x: np.ndarray
            y: np.ndarray
        def cell_forward(p: Params, x):
            y = np.tanh(p.W @ x + p.b[:, None])
            return y, Cache(x, y)
        def cell_backward(p, cache, dy):
            dz = dy * (1 - cache.y ** 2)
            return Params(W=dz @ cache.x.T, b=dz.sum(1)), p.W.T @ dz
        """, "cell_backward", "W b x"),
    "static methods and a context": ("""
        class Context:
            def save(self, *xs):
                self.saved = xs
        class Cell:
            @staticmethod
            def forward(ctx, x, W):
                out = np.tanh(x @ W)
                ctx.save(x, W, out)
                return out
            @staticmethod
            def backward(ctx, g):
                x, W, out = ctx.saved
                dz = g * (1 - out * out)
                return dz @ W.T, x.T @ dz
        """, "Cell", "x W"),
    "layers in a list": ("""
        class Linear:
            def __init__(self, n_in, n_out):
                self.W = np.ones((n_in, n_out))
            def forward(self, x):
                self.x = x
                return x @ self.W
            def backward(self, dy):
                self.dW = self.x.T @ dy
                return dy @ self.W.T
        class Sequential:
            def __init__(self, layers):
                self.layers = layers
            def forward(self, x):
                for layer in self.layers:
                    x = layer.forward(x)
                return x
            def backward(self, dy):
                for layer in reversed(self.layers):
                    dy = layer.backward(dy)
                return dy
        """, "Sequential", "x layers_0_W layers_1_W"),
    "a class made from objects of other classes": ("""
        class Encoder:
            def __init__(self, W, c):
                self.params, self.grads = [W, c], [np.zeros_like(W), np.zeros_like(c)]
            def forward(self, x):
                self.x = x
                return x @ self.params[0] + self.params[1]
            def backward(self, d):
                self.grads[0][...], self.grads[1][...] = self.x.T @ d, d.sum(axis=0)
                return d @ self.params[0].T
        class Model:
            def __init__(self, enc, V):
                self.encoder, self.V, self.dV = enc, V, np.zeros_like(V)
            def forward(self, x):
                self.h = np.tanh(self.encoder.forward(x))
                return self.h @ self.V
            def backward(self, dy):
                self.dV[...] = self.h.T @ dy
                return self.encoder.backward(dy @ self.V.T * (1 - self.h ** 2))
        """, "Model", "x encoder_0 encoder_1 V"),
    "one method for the step of training": ("""
        class Net:
            def __init__(self, n_in, n_hidden, lr=0.1):
                self.U, self.V, self.lr = np.ones((n_hidden, n_in)), np.ones((n_in, n_hidden)), lr
            def train_step(self, inputs, targets):
                loss, dU, dV = 0, np.zeros_like(self.U), np.zeros_like(self.V)
                for i, j in zip(inputs, targets):
                    h = np.tanh(self.U[:, i])
                    e = np.exp(self.V @ h)
                    loss -= np.log(e[j] / e.sum())
                    dy = e / e.sum()
                    dy[j] -= 1
                    dV += np.outer(dy, h)
                    dU[:, i] += self.V.T @ dy * (1 - h ** 2)
                self.U -= self.lr * dU
                self.V -= self.lr * dV
                return loss
        """, "Net", "U V"),
    "a list of tuples, and one like it": ("""
        def forward(x, params):
            caches = []
            for W, b in params:
                caches.append(x)
                x = np.tanh(x @ W + b)
            return x, (caches, x)
        def backward(dout, cache, params):
            xs, y = cache
            grads = []
            for x, (W, b) in zip(reversed(xs), reversed(params)):
                dz = dout * (1 - y ** 2)
                grads.insert(0, (x.T @ dz, dz.sum(axis=0)))
                dout, y = dz @ W.T, x
            return dout, grads
        """, "backward", "x params_0_W params_0_b params_1_W params_1_b"),
    "a state of two, and arguments by name": ("""
        def step(x, state, *, W):
            h, c = state
            c_new = np.tanh(np.concatenate([x, h], axis=1) @ W) + c
            return (np.tanh(c_new), c_new), (x, h, c_new)
        def step_vjp(dstate, cache, *, W):
            dh, dc = dstate
            x, h, c_new = cache
            dc = dc + dh * (1 - np.tanh(c_new) ** 2)
            dz = dc * (1 - np.tanh(np.concatenate([x, h], axis=1) @ W) ** 2)
            D = x.shape[1]
            return (dz @ W.T)[:, :D], ((dz @ W.T)[:, D:], dc), {"W": np.concatenate([x, h], axis=1).T @ dz}
        """, "step_vjp", "x h c W"),
    "a cache that is a global": ("""
        params = {"W": np.ones((8, 3)), "b": np.zeros((8, 1))}
        grads, cache = {}, {}
        def forward(x):
            cache["x"] = x
            cache["y"] = np.tanh(params["W"] @ x + params["b"])
            return cache["y"]
        def backward(dy):
            dz = dy * (1 - cache["y"] ** 2)
            grads["W"], grads["b"] = dz @ cache["x"].T, dz.sum(axis=1, keepdims=True)
            return grads
        """, "backward", "W b"),
    "names of another language": ("""
        sigma = lambda z: 1 / (1 + np.exp(-z))
        def vorwaerts(x, h_alt, W, U):
            h_neu = sigma(x @ W + h_alt @ U)
            return h_neu, (x, h_alt, h_neu, W, U)
        def rueckwaerts(dh_neu, speicher):
            x, h_alt, h_neu, W, U = speicher
            dz = dh_neu * h_neu * (1 - h_neu)
            return dz @ W.T, dz @ U.T, x.T @ dz, h_alt.T @ dz
        """, "rueckwaerts", "x h_alt W U"),
    "heads, and weights that are handed on": ("""
        def heads(x, W, n_heads=2):
            z = x @ W
            return z.reshape(*z.shape[:-1], n_heads, W.shape[1] // n_heads)
        def attention_forward(x, *weights):
            return np.tanh(heads(x, *weights)), (x, weights)
        def attention_backward(dy, cache):
            x, (W,) = cache
            dz = (dy * (1 - np.tanh(heads(x, W)) ** 2)).reshape(len(x), -1)
            return dz @ W.T, x.T @ dz
        """, "attention_backward", "x W"),
    "gradients and weights in dicts of dicts": ("""
        class Net:
            def __init__(self, n_in, n_out):
                self.p = {"a": {"W": np.ones((n_in, n_in)), "b": np.zeros(n_in)}, "out": {"W": np.ones((n_in, n_out))}}
            def forward(self, x):
                self.x = x
                self.h = np.tanh(x @ self.p["a"]["W"] + self.p["a"]["b"])
                return self.h @ self.p["out"]["W"]
            def backward(self, dy):
                dz = dy @ self.p["out"]["W"].T * (1 - self.h ** 2)
                return {"a": {"W": self.x.T @ dz, "b": dz.sum(0)}, "out": {"W": self.h.T @ dy}}
        """, "Net", "a_W a_b out_W"),
    "lists of lists, w and g": ("""
        class Cell:
            def __init__(self, n):
                self.w = [[np.ones((n, n)), np.zeros(n)] for _ in range(2)]
            def forward(self, x):
                self.x = x
                self.y = [np.tanh(x @ W + b) for W, b in self.w]
                return self.y[0] * self.y[1]
            def backward(self, dy):
                dz = [dy * self.y[1 - k] * (1 - self.y[k] ** 2) for k in range(2)]
                self.g = [[self.x.T @ d, d.sum(0)] for d in dz]
                return sum(d @ W.T for d, (W, _) in zip(dz, self.w))
        """, "Cell", "x w_0_0 w_0_1 w_1_0 w_1_1"),
    "a mask that is optional, four axes, a tuple into an array": ("""
        def pool_forward(A, mask=None):
            out = np.zeros((2, *A.shape[:2]))
            out[:] = A.mean(axis=(2, 3)) * mask, A.sum(axis=(2, 3))
            return np.tanh(out), (A, mask)
        def pool_backward(dout, cache):
            A, mask = cache
            out = np.stack([A.mean(axis=(2, 3)) * mask, A.sum(axis=(2, 3))])
            dz = dout * (1 - np.tanh(out) ** 2)
            dA = dz[0] * mask / (A.shape[2] * A.shape[3]) + dz[1]
            return np.zeros_like(A) + dA[:, :, None, None]
        """, "pool_backward", "A"),
    "an output's bias that is called c": ("""
        class RNN:
            def __init__(self, n_in, n_hidden, n_out):
                self.U, self.W = np.ones((n_hidden, n_in)), np.ones((n_hidden, n_hidden))
                self.V, self.c = np.ones((n_out, n_hidden)), np.zeros((n_out, 1))
            def forward(self, x, s):
                self.x, self.s, self.s_next = x, s, np.tanh(self.U @ x + self.W @ s)
                return self.V @ self.s_next + self.c
            def backward(self, do):
                dz = self.V.T @ do * (1 - self.s_next ** 2)
                return {"U": dz @ self.x.T, "W": dz @ self.s.T, "V": do @ self.s_next.T, "c": do.sum(1, keepdims=True)}
        """, "RNN", "U W V c"),
    "weights in global lists of their own": ("""
        Wx, Wh = [np.ones((4, 5)), np.ones((5, 5))], [np.ones((5, 5)) for _ in range(2)]
        bias = [np.zeros(5) for _ in range(2)]
        def loss_and_grads(xs, targets):
            inputs, hs, below = [], [np.zeros((len(xs) + 1, 5)) for _ in range(2)], xs
            for l in range(2):
                inputs.append(below)
                for t in range(len(xs)):
                    hs[l][t + 1] = np.tanh(below[t] @ Wx[l] + hs[l][t] @ Wh[l] + bias[l])
                below = hs[l][1:]
            loss = np.sum((below - targets) ** 2) / 2
            dWx, dWh, dbias = [[np.zeros_like(w) for w in ws] for ws in (Wx, Wh, bias)]
            d = below - targets
            for l in (1, 0):
                dnext = np.zeros(5)
                dx = np.zeros_like(inputs[l])
                for t in reversed(range(len(xs))):
                    dz = (d[t] + dnext) * (1 - hs[l][t + 1] ** 2)
                    dWx[l] += np.outer(inputs[l][t], dz)
                    dWh[l] += np.outer(hs[l][t], dz)
                    dbias[l] += dz
                    dx[t], dnext = dz @ Wx[l].T, dz @ Wh[l].T
                d = dx
            return loss, dWx, dWh, dbias
        """, "loss_and_grads", "Wx_0 Wx_1 Wh_0 Wh_1 bias_0 bias_1"),
    "the last gate counted from the end": ("""
        def gate_forward(x, h, W, U):
            H = h.shape[1]
            z = x @ W + h @ U
            s = 1 / (1 + np.exp(-z[:, :2 * H]))
            r, u, n = s[:, :-H], s[:, -H:], np.tanh(z[:, -H:])
            return u * h + r * n, (x, h, W, U, r, u, n)
        def gate_backward(dy, cache):
            x, h, W, U, r, u, n = cache
            dz = np.hstack([dy * n * r * (1 - r), dy * h * u * (1 - u), dy * r * (1 - n ** 2)])
            return dz @ W.T, dz @ U.T + dy * u, x.T @ dz, h.T @ dz
        """, "gate_backward", "x h W U"),
    "a state of two for each layer": ("""
        class Layer:
            def __init__(self, n):
                self.W, self.U = np.ones((n, n)), np.ones((n, n))
            def forward(self, xs, h, c):
                self.tape, hs = [], []
                for x in xs:
                    c_new = np.tanh(x @ self.W + c)
                    h_new = np.tanh(h @ self.U + c_new)
                    self.tape.append((x, h, c_new, h_new))
                    h, c = h_new, c_new
                    hs.append(h)
                return np.array(hs), (h, c)
            def backward(self, dhs, dh_last, dc_last):
                self.dW, self.dU, dxs, dh, dc = 0 * self.W, 0 * self.U, [], dh_last, dc_last
                for dh_t, (x, h, c_new, h_new) in zip(dhs[::-1], self.tape[::-1]):
                    dz = (dh + dh_t) * (1 - h_new ** 2)
                    dc = (dc + dz) * (1 - c_new ** 2)
                    self.dU += h.T @ dz
                    self.dW += x.T @ dc
                    dh = dz @ self.U.T
                    dxs.append(dc @ self.W.T)
                return np.array(dxs[::-1]), (dh, dc)
        class Stack:
            def __init__(self, n):
                self.layers = [Layer(n), Layer(n)]
            def forward(self, xs, states):
                last = []
                for layer, (h, c) in zip(self.layers, states):
                    xs, state = layer.forward(xs, h, c)
                    last.append(state)
                return xs, last
            def backward(self, dout, dlast):
                d_states = []
                for layer, (dh, dc) in zip(self.layers[::-1], dlast[::-1]):
                    dout, d = layer.backward(dout, dh, dc)
                    d_states.insert(0, d)
                return dout, d_states
        """, "Stack", "xs layers_0_W layers_0_U layers_1_W layers_1_U "
                      "states_0_0 states_0_1 states_1_0 states_1_1"),
    "a part that is called with the layers": ("""
        class Linear:
            def __init__(self, n, rng):
                self.W, self.dW = rng.standard_normal((n, n)), np.zeros((n, n))
            def forward(self, x):
                return x @ self.W
            def backward(self, x, dy):
                self.dW += x.T @ dy
                return dy @ self.W.T
        class Net:
            def __init__(self, n, seed=0):
                rng = np.random.default_rng(seed)
                self.one, self.other = Linear(n, rng), Linear(n, rng)
            def _run_back(self, x, dy, layer):
                return layer.backward(x, dy)
            def forward(self, x):
                self.x, self.h = x, np.tanh(self.one.forward(x))
                return self.other.forward(self.h)
            def backward(self, dy):
                dh = self._run_back(self.h, dy, self.other)
                return self._run_back(self.x, dh * (1 - self.h ** 2), self.one)
        """, "Net", "x one_W other_W"),
    "updates, and a state by another name": ("""
        def forward(xs, h, synapse_0, synapse_h):
            hs = [h]
            for x in xs:
                hs.append(np.tanh(x @ synapse_0 + hs[-1] @ synapse_h))
            return hs
        def loss(xs, h0, synapse_0, synapse_h):
            return np.sum(forward(xs, h0, synapse_0, synapse_h)[-1])
        def gradients(xs, h0, synapse_0, synapse_h):
            hs, dh = forward(xs, h0, synapse_0, synapse_h), np.ones_like(h0)
            synapse_0_update, synapse_h_update = np.zeros_like(synapse_0), np.zeros_like(synapse_h)
            for t in reversed(range(len(xs))):
                dz = dh * (1 - hs[t + 1] ** 2)
                synapse_0_update += np.outer(xs[t], dz)
                synapse_h_update += np.outer(hs[t], dz)
                dh = synapse_h @ dz
            return synapse_0_update, synapse_h_update
        """, "gradients", "synapse_0 synapse_h"),
    "the state behind the probabilities": ("""
        def step(x, h, c, model):
            z = np.concatenate([h, x])
            c_new = np.tanh(model['Wc'] @ z + c)
            gate = np.tanh(model['Wh'] @ z)
            h_new = c_new * gate
            return model['Wy'] @ h_new, h_new, c_new, (z, c_new, gate, h_new)
        def step_back(ds, dh_next, dc_next, cache, model):
            z, c_new, gate, h_new = cache
            dh = model['Wy'].T @ ds + dh_next
            dg, dc = dh * c_new * (1 - gate ** 2), (dh * gate + dc_next) * (1 - c_new ** 2)
            dz = model['Wh'].T @ dg + model['Wc'].T @ dc
            return {'Wy': ds @ h_new.T, 'Wh': dg @ z.T, 'Wc': dc @ z.T}, dz[:len(h_new)], dc
        """, "step_back", "h c Wy Wh Wc"),
    "a learned first state as a row": ("""
        def cell(theta, xs):
            h, trace = np.tile(theta['h0'], (xs.shape[1], 1)), []
            for x in xs:
                trace.append((x, h, np.tanh(x @ theta['W'] + h @ theta['U'])))
                h = trace[-1][-1]
            def pullback(dh):
                g = {k: np.zeros_like(v) for k, v in theta.items()}
                for x, h, y in trace[::-1]:
                    dz = dh * (1 - y ** 2)
                    g['W'] += x.T @ dz
                    g['U'] += h.T @ dz
                    dh = dz @ theta['U'].T
                g['h0'] += dh.sum(axis=0, keepdims=True)
                return g
            return h, pullback
        def value_and_grad(theta, xs, ys):
            h, pull = cell(theta, xs)
            out = (h @ theta['v'])[:, 0]
            d = (out - ys)[:, None]
            g = pull(d @ theta['v'].T)
            g['v'] = h.T @ d
            return np.sum((out - ys) ** 2) / 2, g
        """, "value_and_grad", "W U h0 v"),
    "a list of weights that is handed on": ("""
        class Cell:
            def __init__(self, W, U, b):
                self.params, self.grads = [W, U, b], [np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)]
            def forward(self, x, h):
                W, U, b = self.params
                self.x, self.h, self.y = x, h, np.tanh(x @ W + h @ U + b)
                return self.y
            def backward(self, dy):
                W, U, b = self.params
                dz = dy * (1 - self.y ** 2)
                for g, d in zip(self.grads, (self.x.T @ dz, self.h.T @ dz, dz.sum(0))):
                    g[...] = d
                return dz @ W.T, dz @ U.T
        class Sequence:
            def __init__(self, params):
                self.params, self.grads = params, [np.zeros_like(p) for p in params]
            def forward(self, xs):
                self.layers, h, hs = [], np.zeros((xs.shape[0], len(self.params[1]))), []
                for t in range(xs.shape[1]):
                    self.layers.append(Cell(*self.params))
                    h = self.layers[-1].forward(xs[:, t], h)
                    hs.append(h)
                return np.stack(hs, axis=1)
            def backward(self, dhs):
                dxs, dh = np.zeros((*dhs.shape[:2], len(self.params[0]))), 0
                for g in self.grads:
                    g[...] = 0
                for t in reversed(range(dhs.shape[1])):
                    dxs[:, t], dh = self.layers[t].backward(dhs[:, t] + dh)
                    for g, d in zip(self.grads, self.layers[t].grads):
                        g += d
                return dxs
        """, "Sequence", "xs params_0 params_1 params_2"),
    "weights in a named tuple": ("""
        from collections import namedtuple
        Params = namedtuple('Params', ['W', 'U'])
        def rnn_forward(params, xs, h0):
            hs = np.empty((len(xs) + 1, len(h0)))
            hs[0] = h0
            for t, x in enumerate(xs):
                hs[t + 1] = np.tanh(params.W @ x + params.U @ hs[t])
            return hs[1:], (xs, hs)
        def rnn_backward(params, tape, dhs):
            xs, hs = tape
            grads, dxs, dh = Params(*(np.zeros_like(p) for p in params)), np.empty_like(xs), 0
            for t in range(len(xs) - 1, -1, -1):
                dz = (dhs[t] + dh) * (1 - hs[t + 1] ** 2)
                grads.W[:] += np.outer(dz, xs[t])
                grads.U[:] += np.outer(dz, hs[t])
                dxs[t], dh = params.W.T @ dz, params.U.T @ dz
            return grads, dxs, dh
        """, "rnn_backward", "W U xs h0"),
    "a stack that zero_grad clears, abstract methods, made from a generator": ("""
        class Layer:
            def forward(self, x):
                raise NotImplementedError
            def backward(self, grad):
                raise NotImplementedError
        class Cell(Layer):
            def __init__(self, n, rng):
                self.U = rng.normal(0, 1, (n, n))
                self.zero_grad()
            def zero_grad(self):
                self.dU, self.stack = np.zeros_like(self.U), []
            def step(self, x):
                y = np.tanh(x @ self.U)
                self.stack.append((x, y))
                return y
            def step_back(self, grad):
                x, y = self.stack.pop()
                dz = grad * (1 - y ** 2)
                self.dU += x.T @ dz
                return dz @ self.U.T
        class Twice(Layer):
            def __init__(self, cell):
                self.cell = cell
            def forward(self, x):
                self.cell.zero_grad()
                return self.cell.step(self.cell.step(x))
            def backward(self, grad):
                return self.cell.step_back(self.cell.step_back(grad))
        """, "Twice", "x cell_U"),
    "a peephole by the name of its gradient, turned by flipud": ("""
        class Back:
            def __init__(self, n):
                self.W, self.p = np.ones((n, n)), np.ones(n)
            def forward(self, X):
                self.X = X
                self.Y = np.tanh(np.flipud(X) @ self.W + self.p)
                return self.Y
            def backward(self, dY):
                dz = dY * (1 - self.Y ** 2)
                self.dW, self.dp = np.flipud(self.X).T @ dz, dz.sum(0)
                return np.flipud(dz @ self.W.T)
        """, "Back", "X W p"),
    "a loss by no name of one": ("""
        def temporal_softmax(x, y, mask):
            N, T, V = x.shape
            p = np.exp(x - x.max(axis=2, keepdims=True))
            p /= p.sum(axis=2, keepdims=True)
            n, t = np.arange(N)[:, None], np.arange(T)
            loss = -np.sum(mask * np.log(p[n, t, y])) / N
            dx = p.copy()
            dx[n, t, y] -= 1
            return loss, dx * mask[:, :, None] / N
        """, "temporal_softmax", "x"),
    "the lengths of a global dict": ("""
        N_IN, N_HID = 4, 6
        params = dict(W=np.ones((N_HID, N_IN)), U=np.ones((N_HID, N_HID)))
        def forward(xs, h0, theta):
            hs = [h0]
            for x in xs:
                hs.append(np.tanh(theta['W'] @ x + theta['U'] @ hs[-1]))
            return np.array(hs[1:]), (xs, hs)
        def backward(dhs, history, theta):
            xs, hs = history
            grad, dxs, dh = {k: np.zeros_like(v) for k, v in theta.items()}, np.zeros((len(xs), N_IN)), np.zeros(N_HID)
            for t in reversed(range(len(xs))):
                dz = (dhs[t] + dh) * (1 - hs[t + 1] ** 2)
                grad['W'] += np.outer(dz, xs[t])
                grad['U'] += np.outer(dz, hs[t])
                dxs[t], dh = theta['W'].T @ dz, theta['U'].T @ dz
            return grad, dxs, dh
        """, "backward", "W U xs h0"),
    "peepholes in a dict": ("""
        class Peephole:
            def __init__(self, n):
                self.W, self.p = np.ones((n, n)), {'i': np.ones(n), 'o': np.ones(n)}
            def forward(self, x, c):
                self.x, self.c, self.i = x, c, np.tanh(x @ self.W + self.p['i'] * c)
                self.o = np.tanh(self.p['o'] * self.i)
                return self.o
            def backward(self, dy):
                do = dy * (1 - self.o ** 2)
                di = do * self.p['o'] * (1 - self.i ** 2)
                self.dW = self.x.T @ di
                self.dp = {'i': (di * self.c).sum(0), 'o': (do * self.i).sum(0)}
                return di @ self.W.T, di * self.p['i']
        """, "Peephole", "x c W p_i p_o"),
    "two results, one of them an expression of the other": ("""
        class Cell:
            def __init__(self, n):
                self.W = np.ones((n, n))
            def zero_grad(self):
                for p in [v for v in vars(self).values() if hasattr(v, "grad")]:
                    p.grad[...] = 0
            def forward(self, x, c):
                c_new = np.tanh(x @ self.W) * c
                self.kept = x, c, c_new
                return x * np.tanh(c_new), c_new
            def backward(self, dh, dc):
                x, c, c_new = self.kept
                dc = dc + dh * x * (1 - np.tanh(c_new) ** 2)
                dz = dc * c * (1 - np.tanh(x @ self.W) ** 2)
                self.dW = x.T @ dz
                return dh * np.tanh(c_new) + dz @ self.W.T, dc * np.tanh(x @ self.W)
        """, "Cell", "x c W"),
    "weights of any name that are objects with slots": ("""
        class Parameter:
            __slots__ = ("value", "grad")
            def __init__(self, value):
                self.value, self.grad = value, np.zeros_like(value)
        class Layer:
            def __init__(self, n_in, n_out):
                self.kernel, self.offset = Parameter(np.ones((n_in, n_out))), Parameter(np.ones(n_out))
            def forward(self, x):
                self.x, self.y = x, np.tanh(x @ self.kernel.value + self.offset.value)
                return self.y
            def backward(self, dy):
                dz = dy * (1 - self.y ** 2)
                self.kernel.grad += self.x.T @ dz
                self.offset.grad += dz.sum(0)
                return dz @ self.kernel.value.T
        """, "Layer", "x kernel offset"),
    "weights that only the names of the returned gradients tell": ("""
        class Cell:
            def __init__(self, n):
                self.P = {"W": np.ones((n, n))}
        class Net:
            def __init__(self, n):
                self.cell, self.v = Cell(n), np.ones(n)
            def forward(self, x):
                self.x, self.h = x, np.tanh(x @ self.cell.P["W"])
                return self.h @ self.v
            def backward(self, dy):
                dz = np.outer(dy, self.v) * (1 - self.h ** 2)
                return {"W": self.x.T @ dz, "v": self.h.T @ dy}
        """, "Net", "cell_W v"),
    "gradients nested like weights in dicts of lists": ("""
        class Net:
            def __init__(self, n, m):
                self.trunk = {"z": [np.ones((n, m)), np.ones(m)], "h": [np.ones((n, m)), np.ones(m)]}
            def forward(self, x):
                self.x = x
                self.z, self.h = (np.tanh(x @ W + b) for W, b in (self.trunk["z"], self.trunk["h"]))
                return self.z * self.h
            def backward(self, dy):
                dz, dh = dy * self.h * (1 - self.z ** 2), dy * self.z * (1 - self.h ** 2)
                return {"trunk": {"z": [self.x.T @ dz, dz.sum(0)], "h": [self.x.T @ dh, dh.sum(0)]}}
        """, "Net", "trunk_z_0 trunk_z_1 trunk_h_0 trunk_h_1"),
    "a dict of gradients in Spanish": ("""
        class Capa:
            def __init__(self, n, m):
                self.We, self.umbral = np.ones((m, n)), np.ones((m, 1))
            def forward(self, x):
                self.x, self.y = x, np.tanh(self.We @ x + self.umbral)
                return self.y
            def backward(self, dy):
                delta = dy * (1 - self.y ** 2)
                self.gradientes = {"We": delta @ self.x.T, "umbral": delta.sum(1, keepdims=True)}
                return self.We.T @ delta
        """, "Capa", "x We umbral"),
    "a gradient without a name beside those of weights that are kept": ("""
        class Gate:
            def __init__(self, n, m):
                self.Wi, self.Wr = np.ones((n, m)), np.ones((m, m))
        class Layer:
            def __init__(self, n, m):
                self.m, self.update = m, Gate(n, m)
            def forward(self, X, s0=None):
                S = [np.zeros((len(X), self.m)) if s0 is None else s0]
                for t in range(X.shape[1]):
                    S.append(np.tanh(X[:, t] @ self.update.Wi + S[-1] @ self.update.Wr))
                self.X, self.S = X, S
                return np.stack(S[1:], axis=1)
            def backward(self, dS):
                carry, dX = 0, np.zeros_like(self.X)
                self.update.gWi, self.update.gWr = np.zeros_like(self.update.Wi), np.zeros_like(self.update.Wr)
                for t in reversed(range(dS.shape[1])):
                    da = (dS[:, t] + carry) * (1 - self.S[t + 1] ** 2)
                    self.update.gWi += self.X[:, t].T @ da
                    self.update.gWr += self.S[t].T @ da
                    dX[:, t], carry = da @ self.update.Wi.T, da @ self.update.Wr.T
                return np.ascontiguousarray(dX), carry
        """, "Layer", "X update_Wi update_Wr"),
    "a generator of names and gradients": ("""
        class Layer:
            def __init__(self, n, m):
                self.wxh, self.bh = np.ones((n, m)), np.ones(m)
            def forward(self, x):
                self.x, self.y = x, np.tanh(x @ self.wxh + self.bh)
                return self.y
            def backward(self, dy):
                dz = dy * (1 - self.y ** 2)
                yield "wxh", self.x.T @ dz
                yield "bh", dz.sum(0)
        """, "Layer", "wxh bh"),
    "globals of any name with their gradients beside them": ("""
        Wrec, bin_ = np.ones((5, 5)), np.ones(5)
        gWrec, gbin = np.zeros_like(Wrec), np.zeros_like(bin_)
        def forward(x):
            global kept
            kept = x, np.tanh(x @ Wrec + bin_)
            return kept[1]
        def backward(dy):
            global gWrec, gbin
            x, y = kept
            dz = dy * (1 - y ** 2)
            gWrec, gbin = x.T @ dz, dz.sum(0)
        """, "backward", "Wrec bin_"),
    "gradients that are sums, one by one in a tuple": ("""
        def loss_and_gradients(U, W, x, h):
            y = np.tanh(W * x + U * h)
            dz = y * (1 - y ** 2)
            gW, gU = dz * x, np.zeros_like(U)
            return 0.5 * np.sum(y ** 2), (gW + dz * 0, gU + dz * h)
        """, "loss_and_gradients", "U W"),
    "weights in a dict by another name": ("""
        modelo = {}
        for gate in 'zr':
            modelo['W' + gate] = np.ones((5, 4))
        modelo['Wy'] = np.ones((4, 5))
        def perdida(ids):
            loss, past = 0, []
            for i, j in zip(ids[:-1], ids[1:]):
                z, r = np.tanh(modelo['Wz'][:, i]), np.tanh(modelo['Wr'][:, i])
                p = np.exp(modelo['Wy'] @ (z * r))
                p = p / p.sum()
                loss -= np.log(p[j])
                past.append((i, j, z, r, p))
            g = {k: np.zeros_like(v) for k, v in modelo.items()}
            while past:
                i, j, z, r, p = past.pop()
                dy = p.copy()
                dy[j] -= 1
                g['Wy'] += np.outer(dy, z * r)
                dh = modelo['Wy'].T @ dy
                g['Wz'][:, i] += dh * r * (1 - z ** 2)
                g['Wr'][:, i] += dh * z * (1 - r ** 2)
            return loss, g
        """, "perdida", "Wz Wr Wy"),
    "weights in lists that a loop fills, and last states": ("""
        SIZES = [4, 5]
        Wx, Wh = [], []
        before = 3
        for n in SIZES:
            Wx.append(np.ones((n, before)))
            Wh.append(np.ones((n, n)))
            before = n
        def lossFun(xs, states):
            hs, loss = {(l, -1): states[l] for l in range(2)}, 0
            for t in range(len(xs)):
                below = xs[t]
                for l in range(2):
                    hs[l, t] = below = np.tanh(Wx[l] @ below + Wh[l] @ hs[l, t - 1])
                loss += below.sum()
            dWx, dWh = [np.zeros_like(w) for w in Wx], [np.zeros_like(w) for w in Wh]
            later = [0, 0]
            for t in reversed(range(len(xs))):
                above = np.ones(5)
                for l in (1, 0):
                    dz = (above + later[l]) * (1 - hs[l, t] ** 2)
                    dWx[l] += np.outer(dz, hs[0, t] if l else xs[t])
                    dWh[l] += np.outer(dz, hs[l, t - 1])
                    later[l], above = Wh[l].T @ dz, Wx[l].T @ dz
            return loss, (dWx, dWh), [hs[l, len(xs) - 1] for l in range(2)]
        if __name__ == '__main__':
            states = [np.zeros(4), np.zeros(5)]
            for _ in range(3):
                loss, (a, b), states = lossFun(np.ones((4, 3)), states)
        """, "lossFun", "Wx_0 Wx_1 Wh_0 Wh_1"),
    "a loss of the same arguments, beside gradients by no name of a backward": ("""
        def penalty_cost(W, x, goal):
            return 0.5 * ((np.tanh(x @ W) - goal) ** 2).sum()
        def adjoint(W, x, goal):
            y = np.tanh(x @ W)
            gz = (y - goal) * (1 - y ** 2)
            gW, gx = x.T @ gz, gz @ W.T
            return gW, gx
        """, "adjoint", "W x"),
    "a dict to be filled": ("""
        def step(p, x, h):
            z = np.tanh(x @ p['W'] + h @ p['U'] + p['b'])
            return z, (x, h, z)
        def step_back(p, g, dz, cache):
            x, h, z = cache
            da = dz * (1 - z ** 2)
            g['W'] += x.T @ da
            g['U'] += h.T @ da
            g['b'] += da.sum(0)
            dx, dh = da @ p['W'].T, da @ p['U'].T
            return dx, dh
        """, "step_back", "x h W U b"),
    "a dict to be filled, where one is given": ("""
        params = dict(W=np.ones((3, 4)), U=np.ones((4, 4)), d=np.ones(4))
        def loss_fun(x, h, P=params, grads=None):
            new = np.tanh(x @ P['W'] + h @ P['U'] + P['d'])
            if grads is None:
                return new.sum(), new
            dz = 1 - new ** 2
            grads['W'] = x.T @ dz
            grads['U'] = h.T @ dz
            grads['d'] = dz.sum(0)
            return new.sum(), new[-1]
        if __name__ == '__main__':
            h = np.zeros((2, 4))
            for _ in range(2):
                loss, h = loss_fun(np.ones((2, 3)), h, params, {})
        """, "loss_fun", "W U d"),
    "a number and a state in one result": ("""
        params = dict(W=np.ones((3, 4)), U=np.ones((4, 4)))
        def loss_fun(x, h):
            new = np.tanh(x @ params['W'] + h @ params['U'])
            dz, predicted = 1 - new ** 2, 2 * new
            return (new.sum(), new), {'W': x.T @ dz, 'U': h.T @ dz}, predicted
        """, "loss_fun", "W U"),
    "a dict with the loss and the gradients": ("""
        def objective(params, batch):
            h = np.tanh(batch['x'] @ params['layer/W'] + params['layer/b'])
            dz = 1 - h ** 2
            grads = {}
            grads['layer/W'] = batch['x'].T @ dz
            grads['layer/b'] = dz.sum(0)
            return {'loss': h.sum(), 'grads': grads, 'carry': h}
        """, "objective", "layer/W layer/b"),
    "gradients where they are asked for": ("""
        class Net:
            def __init__(self, n_in, n_hidden):
                self.W, self.b = np.ones((n_in, n_hidden)), np.ones(n_hidden)
            def loss(self, x, with_grad=False):
                h = np.tanh(x @ self.W + self.b)
                if not with_grad:
                    return h.sum()
                dz = 1 - h ** 2
                return h.sum(), {'W': x.T @ dz, 'b': dz.sum(0)}
        """, "Net", "W b"),
    "a step whose results go into the step before": ("""
        W, U = np.ones((4, 3)), np.ones((4, 4))
        def forward(x, h_prev, c_prev):
            z = np.tanh(x @ W.T + h_prev @ U.T)
            c = z + c_prev
            h = np.tanh(c)
            return z, c, h
        def backward(dh_next, dc_next, x, h_prev, z, c, h):
            dc = dc_next + dh_next * (1 - h ** 2)
            dz = dc * (1 - z ** 2)
            dW, dU = dz.T @ x, dz.T @ h_prev
            return dz @ U, dc, dW, dU
        def run(steps, dh, dc):
            for step in reversed(steps):
                dh, dc, dW, dU = backward(dh, dc, *step)
            return dh, dc
        """, "backward", "h_prev c_prev W U"),
    "a backward that returns the loss": ("""
        class Net:
            def __init__(self, n_in, n_out):
                self.W, self.b = np.ones((n_in, n_out)), np.ones(n_out)
            def forward(self, x):
                self.x, self.y = x, x @ self.W + self.b
                return self.y
            def backward(self, y):
                error = self.y - y
                loss = (error ** 2).sum() / 2
                self.grad = dict(W=self.x.T @ error, b=error.sum(0))
                return loss
        """, "Net", "W b"),
    "dicts by the names of weights, keyed by gate": ("""
        GATES = ['keep', 'new']
        W = {gate: np.ones((5, 4)) for gate in GATES}
        B = {gate: np.ones(5) for gate in GATES}
        def go(xs):
            outs, past = [], []
            for x in xs:
                k, n = [np.tanh(W[gate] @ x + B[gate]) for gate in GATES]
                outs.append(k * n)
                past.append((x, k, n))
            return outs, past
        def misfit(outs, wanted):
            return np.sum([((o - w) ** 2).sum() for o, w in zip(outs, wanted)])
        def go_back(outs, past, wanted):
            dW, dB = {g: np.zeros_like(W[g]) for g in GATES}, {g: np.zeros_like(B[g]) for g in GATES}
            for (x, k, n), o, w in zip(past, outs, wanted):
                e = 2 * (o - w)
                for gate, d in zip(GATES, (e * n * (1 - k ** 2), e * k * (1 - n ** 2))):
                    dW[gate] += np.outer(d, x)
                    dB[gate] += d
            return dW, dB
        """, "go_back", "W_keep W_new B_keep B_new"),
    "weights in a dict by one letter, and d": ("""
        class Net:
            def __init__(self, n_in, n_out):
                self.w = {'K': np.ones((n_in, n_out)), 'D': np.ones((n_out, 1)), 'd': np.zeros(1)}
            def loss(self, X):
                return (np.tanh(X @ self.w['K']) @ self.w['D'] + self.w['d']).sum()
            def backprop(self, X):
                h, gr = np.tanh(X @ self.w['K']), {}
                gr['D'], gr['d'] = h.T @ np.ones((len(X), 1)), np.full(1, 1.0 * len(X))
                gr['K'] = X.T @ (self.w['D'].T * (1 - h ** 2))
                return gr
        """, "Net", "w_K w_D w_d"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_arrangement(name, tmp_path):
    text, judged, gradients = FILES[name]
    file = tmp_path / "student.py"
    file.write_text("import numpy as np\n" + textwrap.dedent(text), encoding="utf-8")
    source = read(str(file))
    trial = Trial(source, find(source)[judged], [])
    trial.fit()
    assert trial.differing(trial.sample(own_forward(trial))) == []
    assert sorted(trial.returned) == sorted(gradients.split())


IN_USE = {
    "a bag of weights": """
        class Bag: pass
        def step(bag, x, goal):
            h = np.tanh(bag.inner @ x)
            loss = np.sum((bag.outer @ h + bag.shift - goal) ** 2)
            g = Bag()
            e = 2 * (bag.outer @ h + bag.shift - goal)
            g.outer, g.shift = e * h, np.array(e)
            g.inner = np.outer(e * bag.outer * (1 - h ** 2), x)
            return loss, h, g
        if __name__ == '__main__':
            w = Bag()
            w.inner, w.outer, w.shift = np.ones((4, 3)), np.ones(4), np.zeros(())
            step(w, np.ones(3), 0.5)
        """,
}


@pytest.mark.parametrize("name", IN_USE)
def test_an_arrangement_in_use(name, tmp_path):
    file = tmp_path / "student.py"
    file.write_text("import numpy as np\n" + textwrap.dedent(IN_USE[name]), encoding="utf-8")
    verdicts = judge_file(str(file))
    assert [verdict.status for verdict in verdicts] == ["right"], verdicts[0]


IDLE = """
        n = 100
        def forward(p, X):
            h = np.zeros((n + 1, 3, X.shape[1]))
            for t in range(len(X)):
                h[t + 1] = np.tanh(p['W'] @ X[t][None, :] + p['U'] @ h[t])
            y = p['V'] @ h[n] + p['c']
            return y, h
        def J(p, X, Y):
            return np.sum((forward(p, X)[0] - Y) ** 2) / (2 * X.shape[1])
        def backward(p, X, Y, y, h):
            G = {k: np.zeros_like(v) for k, v in p.items()}
            dy = (y - Y) / X.shape[1]
            G['V'], G['c'] = dy @ h[n].T, dy.sum(1, keepdims=True)
            dh = p['V'].T @ dy
            for t in range(len(X) - 1, -1, -1):
                dz = dh * (1 - h[t + 1] ** 2)
                G['W'] += dz @ X[t][:, None]
                G['U'] += dz @ h[t].T
                dh = p['U'].T @ dz
            return G
"""


def test_a_sequence_of_which_the_last_step_is_not_reached(tmp_path):
    file = tmp_path / "student.py"
    file.write_text("import numpy as np\n" + textwrap.dedent(IDLE), encoding="utf-8")
    source = read(str(file))
    verdict = judge(source, find(source)["backward"], []).verdict
    assert verdict.status == "could not run" and "does not depend on W, U" in str(verdict)
