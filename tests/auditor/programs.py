"""Forwards, and right backwards written by hand as text, in which the tests of the auditor plant faults.

A backward's text reads `d` (the tuple of arriving gradients) and the forward's arguments, and leaves its gradients in
G.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg


def σ(z):
    return 1 / (1 + np.exp(-z))


class Program(NamedTuple):
    """A forward, its right backward, and the shapes of the arguments (an array: the argument itself)."""

    forward: Callable
    backward: str
    shapes: tuple

    @property
    def inputs(self) -> list:
        return [np.zeros(s) if isinstance(s, tuple) else {k: np.zeros(v) for k, v in s.items()} if isinstance(s, dict)
                else s for s in self.shapes]

    def run(self, text: str) -> Callable:
        """The backward of a text, as `mg.audit` takes it."""
        names = list(inspect.signature(self.forward).parameters)
        code = compile(text, "<backward>", "exec")

        def backward(d: Any, *args: Any) -> dict:
            space = dict(zip(names, args), d=d if isinstance(d, tuple) else (d,), np=np, σ=σ, inputs=CHARS,
                         one_hot=ONE_HOT)
            exec(code, space)
            return space["G"]
        return backward


PROGRAMS: dict[str, Program] = {}


def program(*shapes: Any, backward: str, name: str | None = None) -> Callable:
    def add(forward: Callable) -> Callable:
        PROGRAMS[name or forward.__name__] = Program(forward, backward, shapes)
        return forward
    return add


W = {"Wf": (4, 7), "Wi": (4, 7), "Wc": (4, 7), "Wo": (4, 7), "bf": (4, 1), "bi": (4, 1), "bc": (4, 1), "bo": (4, 1)}


@program((3, 5), (4, 5), (4, 5), W, name="written_out", backward="""
P = parameters; n = a_prev.shape[0]
concat = np.concatenate([a_prev, xt]); da, dc = d
ft = σ(P['Wf'] @ concat + P['bf']); it = σ(P['Wi'] @ concat + P['bi'])
cct = np.tanh(P['Wc'] @ concat + P['bc']); ot = σ(P['Wo'] @ concat + P['bo'])
c_next = ft * c_prev + it * cct; tc = np.tanh(c_next)
dot = da * tc * ot * (1 - ot)
dcct = (dc * it + ot * (1 - tc ** 2) * it * da) * (1 - cct ** 2)
dit = (dc * cct + ot * (1 - tc ** 2) * cct * da) * it * (1 - it)
dft = (dc * c_prev + ot * (1 - tc ** 2) * c_prev * da) * ft * (1 - ft)
G = dict(dWf=dft @ concat.T, dWi=dit @ concat.T, dWc=dcct @ concat.T, dWo=dot @ concat.T)
G.update(dbf=np.sum(dft, axis=1, keepdims=True), dbi=np.sum(dit, axis=1, keepdims=True))
G.update(dbc=np.sum(dcct, axis=1, keepdims=True), dbo=np.sum(dot, axis=1, keepdims=True))
G['da_prev'] = P['Wf'][:, :n].T @ dft + P['Wi'][:, :n].T @ dit + P['Wc'][:, :n].T @ dcct + P['Wo'][:, :n].T @ dot
G['dc_prev'] = dc * ft + ot * (1 - tc ** 2) * ft * da
G['dxt'] = P['Wf'][:, n:].T @ dft + P['Wi'][:, n:].T @ dit + P['Wc'][:, n:].T @ dcct + P['Wo'][:, n:].T @ dot
""")
@program((3, 5), (4, 5), (4, 5), W, backward="""
P = parameters; n = a_prev.shape[0]
concat = np.concatenate([a_prev, xt]); da, dc = d
ft = σ(P['Wf'] @ concat + P['bf']); it = σ(P['Wi'] @ concat + P['bi'])
cct = np.tanh(P['Wc'] @ concat + P['bc']); ot = σ(P['Wo'] @ concat + P['bo'])
c_next = ft * c_prev + it * cct; tc = np.tanh(c_next)
dcn = dc + ot * (1 - tc ** 2) * da
dot = da * tc * ot * (1 - ot)
dcct = dcn * it * (1 - cct ** 2)
dit = dcn * cct * it * (1 - it)
dft = dcn * c_prev * ft * (1 - ft)
G = dict(dWf=dft @ concat.T, dWi=dit @ concat.T, dWc=dcct @ concat.T, dWo=dot @ concat.T)
G.update(dbf=np.sum(dft, axis=1, keepdims=True), dbi=np.sum(dit, axis=1, keepdims=True))
G.update(dbc=np.sum(dcct, axis=1, keepdims=True), dbo=np.sum(dot, axis=1, keepdims=True))
G['da_prev'] = P['Wf'][:, :n].T @ dft + P['Wi'][:, :n].T @ dit + P['Wc'][:, :n].T @ dcct + P['Wo'][:, :n].T @ dot
G['dxt'] = P['Wf'][:, n:].T @ dft + P['Wi'][:, n:].T @ dit + P['Wc'][:, n:].T @ dcct + P['Wo'][:, n:].T @ dot
G['dc_prev'] = dcn * ft
""")
def document_cell(xt, a_prev, c_prev, parameters):
    concat = np.concatenate([a_prev, xt])
    Wf, Wi, Wc, Wo, bf, bi, bc, bo = (parameters[k] for k in ("Wf", "Wi", "Wc", "Wo", "bf", "bi", "bc", "bo"))
    ft = mg.sigmoid(Wf @ concat + bf)
    it = mg.sigmoid(Wi @ concat + bi)
    cct = np.tanh(Wc @ concat + bc)
    ot = mg.sigmoid(Wo @ concat + bo)
    c_next = ft * c_prev + it * cct
    a_next = ot * np.tanh(c_next)
    return a_next, c_next


@program((3, 5, 4), (6, 5), {k: (6, *((9,) if k[0] == "W" else (1,))) for k in W}, backward="""
P = parameters; n, m = a0.shape; T = x.shape[2]
a, c, K = a0, np.zeros((n, m)), []
for t in range(T):
    z = np.concatenate([a, x[:, :, t]])
    f, i, g, o = (fn(P['W' + k] @ z + P['b' + k]) for k, fn in zip('fico', (σ, σ, np.tanh, σ)))
    cn = f * c + i * g; K.append((z, c, cn, f, i, g, o)); a, c = o * np.tanh(cn), cn
G = {'d' + k: np.zeros_like(v) for k, v in P.items()}; dx = np.zeros_like(x)
da_prev = np.zeros((n, m)); dc_prev = np.zeros((n, m))
for t in reversed(range(T)):
    z, cp, cn, f, i, g, o = K[t]
    da = d[0][:, :, t] + da_prev
    dc = dc_prev + da * o * (1 - np.tanh(cn) ** 2)
    dot = da * np.tanh(cn) * o * (1 - o)
    dcct = dc * i * (1 - g ** 2)
    dit = dc * g * i * (1 - i)
    dft = dc * cp * f * (1 - f)
    dz = P['Wf'].T @ dft + P['Wi'].T @ dit + P['Wc'].T @ dcct + P['Wo'].T @ dot
    dc_prev = dc * f
    da_prev = dz[:n]
    dx[:, :, t] = dz[n:]
    G['dWf'] += dft @ z.T; G['dWi'] += dit @ z.T; G['dWc'] += dcct @ z.T; G['dWo'] += dot @ z.T
    G['dbf'] += dft.sum(1, keepdims=True); G['dbi'] += dit.sum(1, keepdims=True)
    G['dbc'] += dcct.sum(1, keepdims=True); G['dbo'] += dot.sum(1, keepdims=True)
G['dx'] = dx; G['da0'] = da_prev
""")
def document_lstm(x, a0, parameters):
    Wf, Wi, Wc, Wo, bf, bi, bc, bo = (parameters[k] for k in ("Wf", "Wi", "Wc", "Wo", "bf", "bi", "bc", "bo"))
    a_next, c_next, a = a0, np.zeros(a0.shape), []
    for t in range(x.shape[2]):
        concat = np.concatenate([a_next, x[:, :, t]])
        ft = mg.sigmoid(Wf @ concat + bf)
        it = mg.sigmoid(Wi @ concat + bi)
        cct = np.tanh(Wc @ concat + bc)
        ot = mg.sigmoid(Wo @ concat + bo)
        c_next = ft * c_next + it * cct
        a_next = ot * np.tanh(c_next)
        a.append(a_next)
    return np.stack(a, axis=2)


@program((5, 4, 3), (5, 6), (3, 6), (6, 6), (6,), backward="""
N, T, D = x.shape; h, hs = h0, [h0]
for t in range(T): h = np.tanh(x[:, t] @ Wx + h @ Wh + b); hs.append(h)
dx = np.zeros_like(x); dWx = np.zeros_like(Wx); dWh = np.zeros_like(Wh); db = np.zeros_like(b)
dprev = np.zeros_like(h0)
for t in range(T)[::-1]:
    dh = d[0][:, t] + dprev
    dz = dh * (1 - hs[t + 1] ** 2)
    dx[:, t] = dz @ Wx.T
    dprev = dz @ Wh.T
    dWx += x[:, t].T @ dz
    dWh += hs[t].T @ dz
    db += dz.sum(axis=0)
G = dict(dx=dx, dh0=dprev, dWx=dWx, dWh=dWh, db=db)
""")
def rnn(x, h0, Wx, Wh, b):
    h, out = h0, []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ Wx + h @ Wh + b)
        out.append(h)
    return np.stack(out, axis=1)


@program((5, 3), (5, 4), (5, 4), (3, 16), (4, 16), (16,), backward="""
H = 4; A = x @ Wx + h_prev @ Wh + b; dh, dc = d
f, g, i, o = σ(A[:, :H]), np.tanh(A[:, H:2 * H]), σ(A[:, 2 * H:3 * H]), σ(A[:, 3 * H:])
c = f * c_prev + g * i; tc = np.tanh(c)
ds = dc + dh * o * (1 - tc ** 2)
dc_prev = ds * f
di = ds * g * i * (1 - i)
df = ds * c_prev * f * (1 - f)
do = dh * tc * o * (1 - o)
dg = ds * i * (1 - g ** 2)
dA = np.hstack((df, dg, di, do))
G = dict(dx=dA @ Wx.T, dh_prev=dA @ Wh.T, dc_prev=dc_prev, dWx=x.T @ dA, dWh=h_prev.T @ dA, db=dA.sum(axis=0))
""")
def fused_cell(x, h_prev, c_prev, Wx, Wh, b):
    H = h_prev.shape[1]
    A = x @ Wx + h_prev @ Wh + b
    f = mg.sigmoid(A[:, :H])
    g = np.tanh(A[:, H:2 * H])
    i = mg.sigmoid(A[:, 2 * H:3 * H])
    o = mg.sigmoid(A[:, 3 * H:])
    c = f * c_prev + g * i
    h = o * np.tanh(c)
    return h, c


GRU = [(5, 3), (5, 4), (3, 4), (4, 4), (3, 4), (4, 4), (3, 4), (4, 4)]


@program(*GRU, backward="""
z = σ(x @ Wz + h @ Uz); r = σ(x @ Wr + h @ Ur); n = np.tanh(x @ Wn + (r * h) @ Un); g = d[0]
dn = g * (1 - z) * (1 - n ** 2)
dz = g * (h - n) * z * (1 - z)
drh = dn @ Un.T
dr = drh * h * r * (1 - r)
dh = g * z + drh * r + dz @ Uz.T + dr @ Ur.T
dx = dn @ Wn.T + dz @ Wz.T + dr @ Wr.T
G = dict(dx=dx, dh=dh, dWz=x.T @ dz, dUz=h.T @ dz, dWr=x.T @ dr, dUr=h.T @ dr, dWn=x.T @ dn, dUn=(r * h).T @ dn)
""")
def gru_before(x, h, Wz, Uz, Wr, Ur, Wn, Un):
    z = mg.sigmoid(x @ Wz + h @ Uz)
    r = mg.sigmoid(x @ Wr + h @ Ur)
    n = np.tanh(x @ Wn + (r * h) @ Un)
    return z * h + (1 - z) * n


@program(*GRU, (4,), backward="""
z = σ(x @ Wz + h @ Uz); r = σ(x @ Wr + h @ Ur); q = h @ Un + bn; n = np.tanh(x @ Wn + r * q); g = d[0]
dn = g * (1 - z) * (1 - n ** 2)
dz = g * (h - n) * z * (1 - z)
dr = dn * q * r * (1 - r)
dq = dn * r
dh = g * z + dz @ Uz.T + dr @ Ur.T + dq @ Un.T
dx = dn @ Wn.T + dz @ Wz.T + dr @ Wr.T
G = dict(dx=dx, dh=dh, dWz=x.T @ dz, dUz=h.T @ dz, dWr=x.T @ dr, dUr=h.T @ dr, dWn=x.T @ dn, dUn=h.T @ dq)
G["dbn"] = dq.sum(0)
""")
def gru_after(x, h, Wz, Uz, Wr, Ur, Wn, Un, bn):
    z = mg.sigmoid(x @ Wz + h @ Uz)
    r = mg.sigmoid(x @ Wr + h @ Ur)
    q = h @ Un + bn
    n = np.tanh(x @ Wn + r * q)
    return z * h + (1 - z) * n


@program((3, 5), (4, 5), (4, 5), (16, 7), (4, 1), (4, 1), (4, 1), backward="""
n = 4; A = W @ np.concatenate([h_prev, x]); dh, dcn = d
i = σ(A[:n] + pi * c_prev); f = σ(A[n:2 * n] + pf * c_prev); g = np.tanh(A[2 * n:3 * n])
c = f * c_prev + i * g; o = σ(A[3 * n:] + po * c); tc = np.tanh(c)
do = dh * tc * o * (1 - o)
dc = dcn + dh * o * (1 - tc ** 2) + do * po
di = dc * g * i * (1 - i)
df = dc * c_prev * f * (1 - f)
dg = dc * i * (1 - g ** 2)
dA = np.concatenate([di, df, dg, do])
dz = W.T @ dA
dc_prev = dc * f + di * pi + df * pf
G = dict(dx=dz[n:], dh_prev=dz[:n], dc_prev=dc_prev, dW=dA @ np.concatenate([h_prev, x]).T)
G.update(dpi=(di * c_prev).sum(1, keepdims=True), dpf=(df * c_prev).sum(1, keepdims=True))
G.update(dpo=(do * c).sum(1, keepdims=True))
""")
def peephole(x, h_prev, c_prev, W, pi, pf, po):
    A = W @ np.concatenate([h_prev, x])
    n = c_prev.shape[0]
    i = mg.sigmoid(A[:n] + pi * c_prev)
    f = mg.sigmoid(A[n:2 * n] + pf * c_prev)
    g = np.tanh(A[2 * n:3 * n])
    c = f * c_prev + i * g
    o = mg.sigmoid(A[3 * n:] + po * c)
    h = o * np.tanh(c)
    return h, c


@program((5, 7), (7,), (7,), backward="""
D = x.shape[1]; mu = x.mean(1, keepdims=True); var = ((x - mu) ** 2).mean(1, keepdims=True)
rstd = 1 / np.sqrt(var + 1e-5); xhat = (x - mu) * rstd; dout = d[0]
dgamma = (dout * xhat).sum(0)
dbeta = dout.sum(0)
dxhat = dout * gamma
dvar = (dxhat * (x - mu)).sum(1, keepdims=True) * -0.5 * rstd ** 3
dmu = -(dxhat * rstd).sum(1, keepdims=True)
dx = dxhat * rstd + dvar * 2 * (x - mu) / D + dmu / D
G = dict(dx=dx, dgamma=dgamma, dbeta=dbeta)
""")
def layer_norm(x, gamma, beta):
    mu = np.mean(x, axis=1, keepdims=True)
    xmu = x - mu
    var = np.mean(xmu ** 2, axis=1, keepdims=True)
    std = np.sqrt(var + 1e-5)
    xhat = xmu / std
    return gamma * xhat + beta


@program((6, 4), (4,), (4,), backward="""
N = x.shape[0]; mu = x.mean(0); xmu = x - mu; var = (xmu ** 2).mean(0)
std = np.sqrt(var + 1e-5); xhat = xmu / std; dout = d[0]
dgamma = np.sum(dout * xhat, axis=0)
dbeta = np.sum(dout, axis=0)
dxhat = dout * gamma
dx = (dxhat - dxhat.mean(0) - xhat * (dxhat * xhat).mean(0)) / std
G = dict(dx=dx, dgamma=dgamma, dbeta=dbeta)
""")
def batch_norm(x, gamma, beta):
    mu = np.mean(x, axis=0)
    xmu = x - mu
    var = np.mean(xmu ** 2, axis=0)
    std = np.sqrt(var + 1e-5)
    xhat = xmu / std
    return gamma * xhat + beta


@program((4, 5), (6, 3), (6, 2), (5, 3), backward="""
Q = x @ Wq; s = Q @ k.T / np.sqrt(3.0)
e = np.exp(s - s.max(1, keepdims=True)); p = e / e.sum(1, keepdims=True); g = d[0]
dv = p.T @ g
dp = g @ v.T
ds = p * (dp - np.sum(dp * p, axis=1, keepdims=True))
ds = ds / np.sqrt(3.0)
dQ = ds @ k
dk = ds.T @ Q
G = dict(dx=dQ @ Wq.T, dk=dk, dv=dv, dWq=x.T @ dQ)
""")
def attention(x, k, v, Wq):
    Q = x @ Wq
    s = Q @ k.T / np.sqrt(3.0)
    p = mg.softmax(s, axis=1)
    return p @ v


TARGETS = np.array([0, 3, 5, 1, 2])


@program((5, 3), (3, 6), (6,), TARGETS, backward="""
z = x @ W + b; p = np.exp(z - z.max(1, keepdims=True)); p /= p.sum(1, keepdims=True); N = len(x)
dz = p.copy()
dz[np.arange(N), y] -= 1
dz /= N
dz = dz * d[0]
dW = x.T @ dz
db = dz.sum(0)
dx = dz @ W.T
G = dict(dx=dx, dW=dW, db=db)
""")
def cross_entropy(x, W, b, y):
    z = x @ W + b
    logp = mg.log_softmax(z, axis=1)
    return -np.mean(logp[np.arange(len(y)), y])


WORDS = np.array([[0, 2, 2, 1], [4, 0, 6, 2]])


@program((7, 3), (3, 5), (5,), WORDS, backward="""
e = E[words]; m = e.mean(1); h = np.tanh(m @ W + b); g = d[0]
ds = g * (1 - h ** 2)
dW = m.T @ ds
db = ds.sum(0)
dm = ds @ W.T
de = np.repeat(dm[:, None], 4, axis=1) / 4
dE = np.zeros_like(E)
np.add.at(dE, words, de)
G = dict(dE=dE, dW=dW, db=db)
""")
def embedding(E, W, b, words):
    e = E[words]
    m = np.mean(e, axis=1)
    return np.tanh(m @ W + b)


@program((3, 5, 6), (4, 5), (4, 3), (4, 4), (4, 1), backward="""
h, hs = h0, [h0]
for t in range(6): h = np.tanh(W @ x[:, :, t] + U @ h + b); hs.append(h)
dx = np.zeros_like(x); dW = np.zeros_like(W); dU = np.zeros_like(U); db = np.zeros_like(b)
carry = np.zeros_like(h0)
for t in reversed(range(6)):
    dh = d[0][:, :, t] + carry
    ds = dh * (1 - hs[t + 1] ** 2)
    dx[:, :, t] = W.T @ ds
    dW += ds @ x[:, :, t].T
    dU += ds @ hs[t].T
    db += ds.sum(1, keepdims=True)
    carry = U.T @ ds
    if t == 3:
        carry = 0 * carry
G = dict(dx=dx, dh0=carry, dW=dW, dU=dU, db=db)
""")
def truncated(x, h0, W, U, b):
    h, out = h0, []
    for t in range(x.shape[2]):
        if t == 3:
            h = h.detach() if hasattr(h, "detach") else h
        h = np.tanh(W @ x[:, :, t] + U @ h + b)
        out.append(h)
    return np.stack(out, axis=2)


CHARS = np.eye(6)[[2, 5, 0, 3]][:, :, None]
NEXT = np.array([5, 0, 3, 1])


@program((4, 6), (4, 4), (6, 4), (4, 1), (6, 1), (4, 1), NEXT, backward="""
hs, ps = {-1: hprev}, {}
for t in range(4):
    hs[t] = np.tanh(Wxh @ inputs[t] + Whh @ hs[t - 1] + bh)
    y = Why @ hs[t] + by; ps[t] = np.exp(y) / np.exp(y).sum()
dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
dbh, dby = np.zeros_like(bh), np.zeros_like(by)
dhnext = np.zeros_like(hs[0])
for t in reversed(range(4)):
    dy = np.copy(ps[t])
    dy[targets[t]] -= 1
    dy *= d[0]
    dWhy += dy @ hs[t].T
    dby += dy
    dh = Why.T @ dy + dhnext
    dhraw = (1 - hs[t] * hs[t]) * dh
    dbh += dhraw
    dWxh += dhraw @ inputs[t].T
    dWhh += dhraw @ hs[t - 1].T
    dhnext = Whh.T @ dhraw
G = dict(dWxh=dWxh, dWhh=dWhh, dWhy=dWhy, dbh=dbh, dby=dby, dhprev=dhnext)
""")
def min_char(Wxh, Whh, Why, bh, by, hprev, targets):
    h, loss = hprev, 0
    for t in range(len(targets)):
        h = np.tanh(Wxh @ CHARS[t] + Whh @ h + bh)
        y = Why @ h + by
        loss = loss - mg.log_softmax(y, axis=0)[int(targets[t]), 0]
    return loss


@program((7, 3), (3, 4), (4,), (4, 2), (2,), backward="""
s = x @ W1 + b1; h = np.maximum(s, 0); y = h @ W2 + b2; N = y.size
dy = d[0] * 2 * y / N
dh = dy @ W2.T
ds = dh * (s > 0)
G = dict(dx=ds @ W1.T, dW1=x.T @ ds, db1=ds.sum(0), dW2=h.T @ dy, db2=dy.sum(0))
""")
def perceptron(x, W1, b1, W2, b2):
    s = x @ W1 + b1
    h = mg.relu(s)
    y = h @ W2 + b2
    return np.mean(y ** 2)


@program((3, 4, 5), (3, 6), (5, 24), (6, 24), (24,), backward="""
N, T, D = x.shape; H = h0.shape[1]
h, c, kept = h0, np.zeros((N, H)), []
for t in range(T):
    i, f, o, g = np.split(x[:, t] @ Wx + h @ Wh + b, 4, axis=1)
    i, f, o, g = σ(i), σ(f), σ(o), np.tanh(g)
    c_next = f * c + i * g
    kept.append((h, c, i, f, o, g, c_next))
    h, c = o * np.tanh(c_next), c_next
dx, dWx, dWh, db = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)
dh, dc = np.zeros((N, H)), np.zeros((N, H))
for t in reversed(range(T)):
    h_prev, c_prev, i, f, o, g, c_next = kept[t]
    dh = dh + d[0][:, t]
    dc = dc + dh * o * (1 - np.tanh(c_next) ** 2)
    di = dc * g * i * (1 - i)
    df = dc * c_prev * f * (1 - f)
    do = dh * np.tanh(c_next) * o * (1 - o)
    dg = dc * i * (1 - g ** 2)
    dA = np.hstack([di, df, do, dg])
    dx[:, t] = dA @ Wx.T
    dWx += x[:, t].T @ dA
    dWh += h_prev.T @ dA
    db += dA.sum(0)
    dh = dA @ Wh.T
    dc = dc * f
G = dict(dx=dx, dh0=dh, dWx=dWx, dWh=dWh, db=db)
""")
def fused_lstm(x, h0, Wx, Wh, b):
    h, c, out = h0, np.zeros(h0.shape), []
    H = h0.shape[1]
    for t in range(x.shape[1]):
        A = x[:, t] @ Wx + h @ Wh + b
        i = mg.sigmoid(A[:, :H])
        f = mg.sigmoid(A[:, H:2 * H])
        o = mg.sigmoid(A[:, 2 * H:3 * H])
        g = np.tanh(A[:, 3 * H:])
        c = f * c + i * g
        h = o * np.tanh(c)
        out.append(h)
    return np.stack(out, axis=1)


@program((3, 5, 4), (6, 5), (6, 3), (6, 6), (6, 3), (6, 6), (6, 3), (6, 6), (6, 1), (6, 1), (6, 1), backward="""
h, kept = h0, []
for t in range(x.shape[2]):
    u = x[:, :, t]; z = σ(Wz @ u + Uz @ h + bz); r = σ(Wr @ u + Ur @ h + br); n = np.tanh(Wn @ u + Un @ (r * h) + bn)
    kept.append((u, h, z, r, n)); h = (1 - z) * h + z * n
G = {"d" + k: np.zeros_like(v) for k, v in dict(Wz=Wz, Uz=Uz, bz=bz, Wr=Wr, Ur=Ur, br=br, Wn=Wn, Un=Un, bn=bn).items()}
dx, dh = np.zeros_like(x), np.zeros_like(h0)
for t in reversed(range(x.shape[2])):
    u, h_prev, z, r, n = kept[t]
    dh = dh + d[0][:, :, t]
    dn = dh * z * (1 - n ** 2)
    dz = dh * (n - h_prev) * z * (1 - z)
    drh = Un.T @ dn
    dr = drh * h_prev * r * (1 - r)
    for k, da in (("z", dz), ("r", dr), ("n", dn)):
        G["dW" + k] += da @ u.T
        G["dU" + k] += da @ (r * h_prev if k == "n" else h_prev).T
        G["db" + k] += da.sum(1, keepdims=True)
    dx[:, :, t] = Wz.T @ dz + Wr.T @ dr + Wn.T @ dn
    dh = dh * (1 - z) + Uz.T @ dz + Ur.T @ dr + drh * r
G.update(dx=dx, dh0=dh)
""")
def gru_sequence(x, h0, Wz, Uz, Wr, Ur, Wn, Un, bz, br, bn):
    h, out = h0, []
    for t in range(x.shape[2]):
        u = x[:, :, t]
        z = mg.sigmoid(Wz @ u + Uz @ h + bz)
        r = mg.sigmoid(Wr @ u + Ur @ h + br)
        n = np.tanh(Wn @ u + Un @ (r * h) + bn)
        h = (1 - z) * h + z * n
        out.append(h)
    return np.stack(out, axis=2)


@program((3, 5, 4), (6, 5), (6, 3), (6, 6), (6, 1), backward="""
T = x.shape[2]; hs = [h0]
for t in range(T): hs.append(np.tanh(W @ x[:, :, t] + U @ hs[t] + b))
dx, dW, dU, db = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)
dh = np.zeros_like(h0)
for t in reversed(range(T)):
    ds = (d[0][:, :, t] + dh) * (1 - hs[t + 1] ** 2)
    dx[:, :, t] = W.T @ ds
    dW += ds @ x[:, :, t].T
    dU += ds @ hs[t].T
    db += np.sum(ds, axis=1, keepdims=True)
    dh = U.T @ ds
G = dict(dx=dx, dh0=dh, dW=dW, dU=dU, db=db)
""")
def elman(x, h0, W, U, b):
    h, out = h0, []
    for t in range(x.shape[2]):
        h = np.tanh(W @ x[:, :, t] + U @ h + b)
        out.append(h)
    return np.stack(out, axis=2)


ONE_HOT = np.eye(6)[TARGETS]


@program((5, 3), (3, 6), (6,), backward="""
z = x @ W + b; p = np.exp(z - z.max(1, keepdims=True)); p /= p.sum(1, keepdims=True)
dz = (p - one_hot) / 5 * d[0]
G = dict(dx=dz @ W.T, dW=x.T @ dz, db=dz.sum(0))
""")
def one_hot_entropy(x, W, b):
    z = x @ W + b
    p = mg.softmax(z, axis=1)
    return -np.sum(ONE_HOT * np.log(p)) / 5


@program((5, 7), (7,), (7,), name="layer_norm_short", backward="""
mu = x.mean(1, keepdims=True); xmu = x - mu; std = np.sqrt((xmu ** 2).mean(1, keepdims=True) + 1e-5); xhat = xmu / std
g = d[0]; dxhat = g * gamma
dx = (dxhat - dxhat.mean(1, keepdims=True) - xhat * (dxhat * xhat).mean(1, keepdims=True)) / std
G = dict(dx=dx, dgamma=(g * xhat).sum(0), dbeta=g.sum(0))
""")
def layer_norm_again(x, gamma, beta):
    return layer_norm(x, gamma, beta)


@program((4, 3), (6, 3), (6, 2), backward="""
s = q @ k.T / np.sqrt(3.0); e = np.exp(s); p = e / e.sum(1, keepdims=True); g = d[0]
dv = p.T @ g
dp = g @ v.T
ds = p * (dp - (dp * p).sum(1, keepdims=True)) / np.sqrt(3.0)
dq = ds @ k
dk = ds.T @ q
G = dict(dq=dq, dk=dk, dv=dv)
""")
def attend(q, k, v):
    e = np.exp(q @ k.T / np.sqrt(3.0))
    p = e / np.sum(e, axis=1, keepdims=True)
    return p @ v
