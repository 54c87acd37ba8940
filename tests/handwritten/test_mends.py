"""What to write in a student's line, said beside the fault, or in its place where the fault has no good words."""

import textwrap

import pytest

from minigrad.handwritten.judge import judge_file

FILES = {
    "two directions": """
        import numpy as np
        def scan(x, W, U):
            h, out = np.zeros((x.shape[0], U.shape[0])), np.zeros((*x.shape[:2], U.shape[0]))
            for t in range(x.shape[1]):
                h = np.tanh(x[:, t] @ W + h @ U)
                out[:, t] = h
            return out
        def scan_back(dout, x, out, W, U):
            dx, dW, dU, dh = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U), 0
            for t in range(x.shape[1] - 1, -1, -1):
                da = (dout[:, t] + dh) * (1 - out[:, t] ** 2)
                dx[:, t], dh = da @ W.T, da @ U.T
                dW += x[:, t].T @ da
                if t > 0:
                    dU += out[:, t - 1].T @ da
            return dx, dW, dU
        def two_forward(x, W, U, V, R):
            a, b = scan(x, W, U), scan(x[:, ::-1], V, R)
            return np.concatenate([a, b[:, ::-1]], axis=2), (x, a, b, W, U, V, R)
        def two_backward(dy, cache):
            x, a, b, W, U, V, R = cache
            H = a.shape[2]
            dxa, dW, dU = scan_back(dy[:, :, :H], x, a, W, U)
            dxb, dV, dR = scan_back(dy[:, ::-1, H:], x[:, ::-1], b, V, R)
            dx = dxa + dxb[:, ::-1]
            return dx, dW, dU, dV, dR
        """,
    "a loss": """
        import numpy as np
        def forward(E, U, V, words, targets, h0):
            hs, ps, loss = {-1: h0}, {}, 0
            for t in range(len(words)):
                hs[t] = np.tanh(E[:, [words[t]]] + U @ hs[t - 1])
                e = np.exp(V @ hs[t])
                ps[t] = e / e.sum()
                loss -= np.log(ps[t][targets[t], 0])
            return loss, (E, U, V, words, targets, hs, ps)
        def backward(cache):
            E, U, V, words, targets, hs, ps = cache
            dE, dU, dV, dh = np.zeros_like(E), np.zeros_like(U), np.zeros_like(V), 0
            for t in range(len(words) - 1, -1, -1):
                dy = ps[t].copy()
                dy[targets[t]] -= 1
                dV += dy @ hs[t].T
                da = (V.T @ dy + dh) * (1 - hs[t] ** 2)
                dE[:, [words[t]]] += da
                dU += da @ hs[t - 1].T
                dh = U.T @ da
            return dE, dU, dV
        """,
    "layers": """
        import numpy as np
        class TimeAffine:
            def __init__(self, W, b):
                self.params, self.grads = [W, b], [np.zeros(W.shape), np.zeros(b.shape)]
            def forward(self, x):
                self.x = x
                return x @ self.params[0] + self.params[1]
            def backward(self, dout):
                self.grads[0][...] = np.einsum('ntd,ntm->dm', self.x, dout)
                self.grads[1][...] = dout.sum(axis=(0, 1))
                return dout @ self.params[0].T
        class TimeRNN:
            def __init__(self, Wx, Wh, b):
                self.params = [Wx, Wh, b]
                self.grads = [np.zeros(Wx.shape), np.zeros(Wh.shape), np.zeros(b.shape)]
                self.WhT = np.ascontiguousarray(Wh.T)
            def forward(self, xs):
                Wx, Wh, b = self.params
                N, T, D = xs.shape
                self.xs, self.hs = xs, [np.zeros((N, Wh.shape[0]))]
                for t in range(T):
                    self.hs.append(np.tanh(np.dot(xs[:, t], Wx) + np.dot(self.hs[t], Wh) + b))
                return np.stack(self.hs[1:], axis=1)
            def backward(self, dhs):
                Wx, Wh, b = self.params
                dxs, dh = np.empty(self.xs.shape), 0
                for g in self.grads:
                    g.fill(0)
                for t in range(dhs.shape[1] - 1, -1, -1):
                    dA = (dhs[:, t] + dh) * (1 - self.hs[t + 1] ** 2)
                    self.grads[0] += self.xs[:, t].T @ dA
                    self.grads[1] += self.hs[t].T @ dA
                    self.grads[2] += np.sum(dA, axis=0)
                    dxs[:, t] = dA @ Wx.T
                    dh = dA @ Wh.T
                return dxs
        class Predictor:
            def __init__(self, H=16, seed=1):
                r = np.random.RandomState(seed)
                self.layers = [TimeRNN(r.randn(1, H), r.randn(H, H), np.zeros(H)),
                               TimeAffine(r.randn(H, 1), np.zeros(1))]
                self.params = sum([l.params for l in self.layers], [])
                self.grads = sum([l.grads for l in self.layers], [])
            def forward(self, xs, ts):
                for l in self.layers:
                    xs = l.forward(xs)
                self.diff = xs - ts
                return 0.5 * np.mean(self.diff ** 2)
            def backward(self):
                d = self.diff / self.diff.size
                for l in self.layers[::-1]:
                    d = l.backward(d)
                return d
        """}
# (file, a line, what stands there, what is said)
FAULTS = [
    ("two directions", "dx = dxa + dxb[:, ::-1]", "dx = dxa + dxb",
     "mends it      write `dxb[:, ::-1]` in place of `dxb`"),
    ("two directions", "scan_back(dy[:, ::-1, H:]", "scan_back(dy[:, ::-1, :H]", "write `H:` in place of `:H`"),
    ("two directions", "dU += out[:, t - 1].T", "dU += out[:, t].T", "write `out[:, t - 1]` in place of"),
    ("a loss", "                dy[targets[t]] -= 1\n", "", "mends it      add `dy[targets[t], 0] -= 1` behind it"),
    ("a loss", "dE[:, [words[t]]] += da", "dE[:, [words[t]]] = da", "write `dE[:, [words[t]]] += da` in place of"),
    ("a loss", "dh = U.T @ da", "dh = U @ da", "mends it      write `U.T` in place of `U`"),
    ("layers", "[np.zeros(W.shape), np.zeros(b.shape)]", "[np.zeros(W.shape), np.zeros(b.shape, dtype=np.int32)]",
     "dlayers_1_1 is kept in an array of integers, which cuts the fractions"),
    ("layers", "dh = dA @ Wh.T", "dh = dA @ self.WhT",
     "wrong once the weights change: the backward uses WhT, a copy of Wh"),
    ("layers", "d = self.diff / self.diff.size", "d = self.diff", "the forward takes a mean, and"),
    ("a loss", "(V.T @ dy + dh) *", "(V.T @ dy) *", "mends it      write `V.T @ dy + dh` in place of `V.T @ dy`"),
    ("a loss", "return dE, dU, dV", "dV /= 3\n            return dE, dU, dV", "mends it      leave out `dV /= 3`"),
    ("layers", "np.einsum('ntd,ntm->dm', self.x, dout)",
     "self.x.reshape(self.x.shape[2], -1) @ dout.reshape(-1, dout.shape[2])",
     "write `self.x.reshape(-1, self.x.shape[2]).T` in place of"),
    ("a loss", "dh = U.T @ da", "dh = U.T @ da\n            for t in range(3):\n                pass",
     "not written yet: its loop (line 22)")]


@pytest.mark.parametrize("file", FILES)
def test_the_files_are_right(file, tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(FILES[file]))
    assert "right" in {verdict.status for verdict in judge_file(str(tmp_path / "mine.py"))} <= {"right", "not judged"}


@pytest.mark.parametrize("file, line, wrong, said", FAULTS)
def test_what_to_write(file, line, wrong, said, tmp_path):
    text = FILES[file].replace(line, wrong)
    assert text != FILES[file]
    (tmp_path / "mine.py").write_text(textwrap.dedent(text))
    faults = "\n".join(fault for verdict in judge_file(str(tmp_path / "mine.py")) for fault in verdict.faults)
    assert said in faults, faults


def test_nothing_is_judged_where_nothing_fits(tmp_path):
    """All gradients differ and no fault says why: the arguments may not be as meant."""
    (tmp_path / "mine.py").write_text(textwrap.dedent("""
        import numpy as np
        def gate_forward(x, W, b):
            a = x @ W + b
            return np.tanh(a), (x, W, a)
        def gate_backward(dout, cache):
            x, W, a = cache
            d = np.sin(3 * dout) + np.cos(a)
            return d @ W.T ** 3, x.T @ np.exp(d), np.sort(d, axis=0).sum(axis=0)
        """))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert verdict.status == "could not run" and "cannot be judged" in verdict.faults[0], verdict


def test_targets_that_add_up_along_the_axis_that_is_meant(tmp_path):
    """Classes may lie along the first axis: there the gradient is right."""
    (tmp_path / "mine.py").write_text(textwrap.dedent("""
        import numpy as np
        def rnn_forward(x, W, V):
            h = np.tanh(np.einsum('hx,xmt->hmt', W, x))
            e = np.exp(np.einsum('yh,hmt->ymt', V, h))
            return e / e.sum(axis=0), (x, h, W, V)
        def compute_cost(y_hat, Y):
            return -np.sum(Y * np.log(y_hat)) / Y.shape[1]
        def rnn_backward(y_hat, Y, cache):
            x, h, W, V = cache
            dz = (y_hat - Y) / Y.shape[1]
            dh = np.einsum('yh,ymt->hmt', V, dz) * (1 - h ** 2)
            return {'dx': np.einsum('hx,hmt->xmt', W, dh), 'dW': np.einsum('hmt,xmt->hx', dh, x),
                    'dV': np.einsum('ymt,hmt->yh', dz, h)}
        """))
    (verdict,) = judge_file(str(tmp_path / "mine.py"))
    assert (verdict.status, verdict.notes) == ("right", []), verdict


def test_a_wrong_dropout_is_not_held_against_the_model(tmp_path):
    """The right layer in its place has the mask of its own call; a large default of a size is a size."""
    (tmp_path / "mine.py").write_text(textwrap.dedent("""
        import numpy as np
        class Affine:
            def __init__(self, W):
                self.params, self.grads = [W], [np.zeros_like(W)]
            def forward(self, x):
                self.x = x
                return x @ self.params[0]
            def backward(self, dout):
                self.grads[0][...] = self.x.T @ dout
                return dout @ self.params[0].T
        class Dropout:
            def __init__(self):
                self.params, self.grads = [], []
            def forward(self, x):
                self.mask = (np.random.rand(*x.shape) > 0.5) * 2.0
                return x * self.mask
            def backward(self, dout):
                return dout
        class Model:
            def __init__(self, vocab_size=20000, hidden_size=3000):
                V, H = vocab_size, hidden_size
                self.layers = [Affine(np.random.randn(V, H)), Dropout(), Affine(np.random.randn(H, V)), Dropout()]
                self.params = [p for l in self.layers for p in l.params]
                self.grads = [g for l in self.layers for g in l.grads]
            def forward(self, x):
                for l in self.layers:
                    x = l.forward(x)
                return x
            def backward(self, dout):
                for l in self.layers[::-1]:
                    dout = l.backward(dout)
                return dout
        """))
    verdicts = {verdict.name: verdict for verdict in judge_file(str(tmp_path / "mine.py"))}
    assert {name: verdict.status for name, verdict in verdicts.items()} == {
        "Affine": "right", "Dropout": "wrong", "Model": "right"}, verdicts
    assert "the factor mask is missing" in verdicts["Dropout"].faults[0]
