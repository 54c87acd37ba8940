"""What to write in a student's line, said beside the fault, or in its place where the fault has no good words."""

import textwrap
from pathlib import Path

import pytest

from minigrad.handwritten.judge import judge_file
from minigrad.handwritten.trial import Verdict

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
        """,
    "features": """
        import numpy as np
        def rnn_forward(F, P, x, U):
            h = np.zeros((*x.shape[:2], U.shape[0]))
            prev = h0 = F @ P
            for t in range(x.shape[1]):
                h[:, t] = prev = np.tanh(x[:, t] + prev @ U)
            return h, (F, P, x, U, h0, h)
        def rnn_backward(dh, cache):
            F, P, x, U, h0, h = cache
            dx, dU, dh0 = np.zeros_like(x), np.zeros_like(U), 0
            for t in range(x.shape[1] - 1, -1, -1):
                dz = (dh[:, t] + dh0) * (1 - h[:, t] ** 2)
                dx[:, t], dh0 = dz, dz @ U.T
                dU += (h[:, t - 1] if t else F @ P).T @ dz
            dP = F.T @ dh0
            return dh0 @ P.T, dP, dx, dU
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
    ("layers", "np.einsum('ntd,ntm->dm', self.x, dout)",
     "self.x.transpose(1, 0, 2).reshape(-1, self.x.shape[2]).T @ dout.reshape(-1, dout.shape[2])",
     "write `self.x` in place of `self.x.transpose(1, 0, 2)`"),
    ("features", "dP = F.T @ dh0", "dP = F.T @ dh[:, 0]", "write `dh0` in place of `dh[:, 0]`"),
    ("a loss", "dh = U.T @ da", "dh = U.T @ da\n            for t in range(3):\n                pass",
     "not written yet: its loop (line 22)")]


def judged(folder: Path, text: str) -> list[Verdict]:
    file = folder / "mine.py"
    file.write_text(textwrap.dedent(text))
    return judge_file(str(file))


@pytest.mark.parametrize("file", FILES)
def test_the_files_are_right(file, tmp_path):
    assert "right" in {verdict.status for verdict in judged(tmp_path, FILES[file])} <= {"right", "not judged"}


@pytest.mark.parametrize("file, line, wrong, said", FAULTS)
def test_what_to_write(file, line, wrong, said, tmp_path):
    text = FILES[file].replace(line, wrong)
    assert text != FILES[file]
    faults = "\n".join(fault for verdict in judged(tmp_path, text) for fault in verdict.faults)
    assert said in faults, faults


def test_nothing_is_judged_where_nothing_fits(tmp_path):
    """All gradients differ and no fault says why: the arguments may not be as meant."""
    (verdict,) = judged(tmp_path, """
        import numpy as np
        def gate_forward(x, W, b):
            a = x @ W + b
            return np.tanh(a), (x, W, a)
        def gate_backward(dout, cache):
            x, W, a = cache
            d = np.sin(3 * dout) + np.cos(a)
            return d @ W.T ** 3, x.T @ np.exp(d), np.sort(d, axis=0).sum(axis=0)
        """)
    assert verdict.status == "could not run" and "cannot be judged" in verdict.faults[0], verdict


def test_targets_that_add_up_along_the_axis_that_is_meant(tmp_path):
    """Classes may lie along the first axis: there the gradient is right."""
    (verdict,) = judged(tmp_path, """
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
        """)
    assert (verdict.status, verdict.notes) == ("right", []), verdict


def test_a_wrong_dropout_is_not_held_against_the_model(tmp_path):
    """The right layer in its place has the mask of its own call; a large default of a size is a size."""
    verdicts = {verdict.name: verdict for verdict in judged(tmp_path, """
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
        """)}
    assert {name: verdict.status for name, verdict in verdicts.items()} == {
        "Affine": "right", "Dropout": "wrong", "Model": "right"}, verdicts
    assert "the factor mask is missing" in verdicts["Dropout"].faults[0]


def test_weights_that_are_read_from_a_global_dict(tmp_path):
    """Of whatever names its keys are."""
    (verdict,) = judged(tmp_path, """
        import numpy as np
        net = {'Wx': np.ones((3, 4)), 'Uh': np.ones((4, 4))}
        def step_forward(x, h, p):
            y = np.tanh(x @ p['Wx'] + h @ p['Uh'])
            return y, (x, h, y)
        def step_backward(dy, cache, p):
            x, h, y = cache
            dz = dy * (1 - y ** 2)
            return dz @ p['Wx'].T, dz @ net['Uh'].T, {'Wx': x.T @ dz, 'Uh': h.T @ dz}
        """)
    assert [fault[:46] for fault in verdict.faults] == ["step_backward reads net from globals (line 10)"], verdict


def test_a_cell_without_a_cache_has_the_one_of_the_course(tmp_path):
    (verdict,) = judged(tmp_path, """
        import numpy as np
        def rnn_cell_step(xt, a_prev, parameters):
            return np.tanh(parameters['Wax'] @ xt + parameters['Waa'] @ a_prev + parameters['ba'])
        def rnn_cell_backward(da_next, cache):
            a_next, a_prev, xt, parameters = cache
            dz = (1 - a_next ** 2) * da_next
            return {'dxt': parameters['Wax'].T @ dz, 'da_prev': parameters['Waa'].T @ dz, 'dWax': dz @ xt.T,
                    'dWaa': dz @ a_prev.T, 'dba': dz.sum(axis=1, keepdims=True)}
        """)
    assert (verdict.status, verdict.notes) == ("right", []), verdict


def test_one_array_of_two_names(tmp_path):
    (verdict,) = judged(tmp_path, """
        import numpy as np
        def gate_forward(x, Wa, Wb):
            a, b = np.tanh(x @ Wa), np.tanh(x @ Wb)
            return a * b, (x, a, b)
        def gate_backward(dy, cache):
            x, a, b = cache
            dWa = dWb = np.zeros((x.shape[1], a.shape[1]))
            dWa += x.T @ (dy * b * (1 - a ** 2))
            dWb += x.T @ (dy * a * (1 - b ** 2))
            return {'Wa': dWa, 'Wb': dWb}
        """)
    assert "`dWa = dWb = np.zeros((x.shape[1], a.shape[1]))`: that is one array" in verdict.faults[0], verdict


def test_a_derivative_that_is_that_of_another_function(tmp_path):
    """Its factor 0.2 is lost as well, so no change of the derivation gives these gradients."""
    (verdict,) = judged(tmp_path, """
        import numpy as np
        class HardSigmoid:
            def __call__(self, x):
                return np.clip(0.2 * x + 0.5, 0.0, 1.0)
            def grad(self, y):
                return y * (1 - y)
        class Gate:
            def __init__(self, n):
                self.W, self.U, self.f = np.ones((n, n)), np.ones((n, n)), HardSigmoid()
            def forward(self, x):
                self.x, self.a, self.b = x, self.f(x @ self.W), self.f(x @ self.U)
                return self.a * self.b
            def backward(self, dy):
                da, db = dy * self.b * self.f.grad(self.a), dy * self.a * self.f.grad(self.b)
                self.dW, self.dU = self.x.T @ da, self.x.T @ db
                return da @ self.W.T + db @ self.U.T
        """)
    assert "HardSigmoid.grad (line 3) is not the derivative of HardSigmoid: at 0.9 it" in verdict.faults[0], verdict


def test_a_right_cell_in_place_of_one_that_returns_a_tuple_and_a_dict(tmp_path):
    cell, sequence = judged(tmp_path, """
        import numpy as np
        def cell_forward(xt, a_prev, params):
            a = np.tanh(params['W'] @ a_prev + params['U'] @ xt)
            return a, (xt, a_prev, a)
        def rnn_forward(x, a0, params):
            a, out, caches = a0, [], []
            for t in range(x.shape[-1]):
                a, cache = cell_forward(x[:, :, t], a, params)
                out.append(a)
                caches.append(cache)
            return np.stack(out, axis=-1), caches
        def cell_backward(da, cache, params):
            xt, a_prev, a = cache
            dz = da * a * (1 - a)
            return params['W'].T @ dz, params['U'].T @ dz, dict(dW=dz @ a_prev.T, dU=dz @ xt.T)
        def rnn_backward(da, caches, params):
            total, dx, back = {'d' + k: np.zeros_like(v) for k, v in params.items()}, [], 0
            for t in range(da.shape[-1])[::-1]:
                back, dxt, g = cell_backward(da[:, :, t] + back, caches[t], params)
                dx.insert(0, dxt)
                for k, v in g.items():
                    total[k] += v
            return total | {'dx': np.stack(dx, axis=-1), 'da0': back}
        """)
    assert (cell.status, sequence.status) == ("wrong", "right"), sequence


def test_sums_of_float32_have_its_digits(tmp_path):
    (verdict,) = judged(tmp_path, """
        import numpy as np
        def layer_forward(x, W, b):
            y = np.tanh(x @ W + b)
            return y, (x, W, y)
        def layer_backward(dy, cache):
            x, W, y = cache
            dz = (dy * (1 - y ** 2)).astype(np.float32)
            return dz @ W.T, x.T @ dz, dz.astype(float).sum(axis=0)
        """)
    assert verdict.status == "right" and "computed in float32 (line 8)" in verdict.notes[0], verdict


def test_a_class_whose_gradients_are_not_found_says_so(tmp_path):
    """Right, with no other word, is said of what was judged."""
    (verdict,) = judged(tmp_path, """
        import numpy as np
        class Layer:
            def __init__(self, n):
                self.W, self.b = np.ones((n, n)), np.zeros(n)
            def forward(self, x):
                self.x, self.y = x, np.tanh(x @ self.W + self.b)
                return self.y
            def backward(self, dy):
                dz = dy * (1 - self.y ** 2)
                self.kept = (self.x.T @ dz, dz.sum(0))
                return dz @ self.W.T
        """)
    assert verdict.notes == ["not judged: dW, db, which Layer does not return, or in a way that was not found"], verdict


def test_a_mean_in_the_step_is_right_where_the_sequence_means_it(tmp_path):
    """Alone the step is no gradient; with it the sequence has the gradient of its mean."""
    step, sequence = judged(tmp_path, """
        import numpy as np
        def step_forward(x, h, W, U):
            y = np.tanh(W @ x + U @ h)
            return y, (x, h, y, W, U)
        def run_forward(xs, h0, W, U):
            h, caches, loss = h0, [], 0
            for t in range(xs.shape[2]):
                h, cache = step_forward(xs[:, :, t], h, W, U)
                caches.append(cache)
                loss += np.sum(h ** 2) / 2 / h.shape[1]
            return loss, caches
        def step_backward(dy, cache):
            x, h, y, W, U = cache
            dz = dy * (1 - y ** 2)
            return dz @ x.T / x.shape[1], dz @ h.T / x.shape[1], U.T @ dz
        def run_backward(caches):
            dW, dU, dh = 0, 0, 0
            for cache in caches[::-1]:
                dWt, dUt, dh = step_backward(cache[2] + dh, cache)
                dW, dU = dW + dWt, dU + dUt
            return dW, dU
        """)
    assert (step.status, sequence.status) == ("not judged", "right"), (step, sequence)


def test_a_layer_that_gets_what_the_one_above_got(tmp_path):
    """Found by what the two methods of a whole call of its parts, whatever they are called."""
    (fault,) = judged(tmp_path, """
        import numpy as np
        class Schicht:
            def __init__(self, n):
                self.W = np.random.RandomState().randn(n, n)
            def vorwaerts(self, x):
                self.x, self.y = x, np.tanh(x @ self.W)
                return self.y
            def rueckwaerts(self, dy):
                dz = dy * (1 - self.y ** 2)
                self.dW = self.x.T @ dz
                return dz @ self.W.T
        class Stapel:
            def __init__(self, n):
                self.schichten = [Schicht(n), Schicht(n)]
            def vorwaerts(self, xs):
                for s in self.schichten:
                    xs = s.vorwaerts(xs)
                return xs
            def rueckwaerts(self, dout):
                for s in reversed(self.schichten):
                    dxs = s.rueckwaerts(dout)
                return dxs
        """)[1].faults
    assert "write `dxs = dout = s.rueckwaerts(dout)` in place of `dxs = s.rueckwaerts(dout)`" in fault


def test_methods_that_are_put_into_a_class(tmp_path):
    """As notebooks have them; without a seed its weights are the same at each call."""
    verdicts = {verdict.name: verdict for verdict in judged(tmp_path, """
        import numpy as np
        class Layer:
            def __init__(self, n):
                self.W = np.random.default_rng().normal(size=(n, n))
                self.mask = np.random.RandomState().rand(n) < 0.5
        def forward(self, x):
            self.x = x
            return np.tanh(x @ self.W) * self.mask
        def backward(self, dy):
            self.dW = self.x.T @ (dy * self.mask * (1 - np.tanh(self.x @ self.W) ** 2))
            return dy * self.mask * (1 - np.tanh(self.x @ self.W) ** 2) @ self.W.T
        Layer.forward = forward
        Layer.backward = backward
        """)}
    assert (verdicts["Layer"].status, verdicts["Layer"].notes) == ("right", []), verdicts


def test_a_layer_that_keeps_its_state_is_reset_between_calls(tmp_path):
    (verdict,) = judged(tmp_path, """
        import numpy as np
        class Layer:
            def __init__(self, n):
                self.W, self.h, self.dh = np.ones((n, n)), None, 0.0
            def reset_state(self):
                self.h = None
            def forward(self, x):
                self.before = np.zeros_like(x) if self.h is None else self.h
                self.x = x
                self.h = np.tanh(x @ self.W + self.before)
                return self.h
            def backward(self, dy):
                dz = (dy + self.dh) * (1 - self.h ** 2)
                self.dW, self.dh = self.x.T @ dz, dz
                return dz @ self.W.T
        """)
    assert "the second call gives another dW, dx than the first" in verdict.faults[0], verdict


# {what: a right file}
RIGHT = {
    # An output of several units would have gradients where the loss has none.
    "a loss that reads the first output": """
        import numpy as np
        def prop(a, b, net):
            h, hs, ys = np.zeros(len(net['W'])), [np.zeros(len(net['W']))], []
            for k in range(len(a)):
                h = np.tanh(np.array([a[k], b[k]]) @ net['V'] + h @ net['W'])
                hs.append(h)
                ys.append(h @ net['U'])
            return hs, ys
        def error(a, b, c, net):
            return sum((c[k] - prop(a, b, net)[1][k][0]) ** 2 for k in range(len(c))) / 2
        def backprop(a, b, c, net):
            hs, ys = prop(a, b, net)
            dV, dW, dU, later = 0 * net['V'], 0 * net['W'], 0 * net['U'], 0
            for k in reversed(range(len(c))):
                dy = ys[k] - c[k]
                dh = (net['U'] @ dy + later) * (1 - hs[k + 1] ** 2)
                dU += np.outer(hs[k + 1], dy)
                dW += np.outer(hs[k], dh)
                dV += np.outer([a[k], b[k]], dh)
                later = net['W'] @ dh
            return {'V': dV, 'W': dW, 'U': dU}
        """,
    # The backward takes one sentence, and the loss a list of them.
    "the loss of many sentences is not that of one": """
        import numpy as np
        class Model:
            def __init__(self, word_dim, hidden_dim):
                self.word_dim, self.hidden_dim = word_dim, hidden_dim
                self.U, self.V = np.ones((hidden_dim, word_dim)), np.ones((word_dim, hidden_dim))
                self.W = np.ones((hidden_dim, hidden_dim))
            def forward(self, x):
                s, o = np.zeros((len(x) + 1, self.hidden_dim)), np.zeros((len(x), self.word_dim))
                for t in np.arange(len(x)):
                    s[t] = np.tanh(self.U[:, x[t]] + self.W.dot(s[t - 1]))
                    e = np.exp(self.V.dot(s[t]))
                    o[t] = e / e.sum()
                return [o, s]
            def total_loss(self, x, y):
                return -sum(np.log(self.forward(x[i])[0][np.arange(len(y[i])), y[i]]).sum() for i in range(len(y)))
            def loss(self, x, y):
                return self.total_loss(x, y) / sum(len(one) for one in y)
            def bptt(self, x, y):
                o, s = self.forward(x)
                dU, dV, dW, dh = 0 * self.U, 0 * self.V, 0 * self.W, 0
                o[np.arange(len(y)), y] -= 1.0
                for t in np.arange(len(y))[::-1]:
                    dV += np.outer(o[t], s[t])
                    dz = (self.V.T.dot(o[t]) + dh) * (1 - s[t] ** 2)
                    dW += np.outer(dz, s[t - 1])
                    dU[:, x[t]] += dz
                    dh = self.W.T.dot(dz)
                return [dU, dV, dW]
        """,
    # The addition of bits goes through them from the last one on.
    "targets from the last on": """
        import numpy as np
        def forward(a, b, W, U):
            hs = [np.zeros((1, len(U)))]
            for t in range(len(a))[::-1]:
                hs.append(np.tanh(np.array([[a[t], b[t]]]) @ W + hs[-1] @ U))
            return hs[1:], hs
        def backward(a, b, c, outputs, hs, W, U):
            W_update, U_update, later = np.zeros_like(W), np.zeros_like(U), 0
            for t in range(len(a)):
                delta = (outputs[-t - 1] - c[t] + later) * (1 - hs[-t - 1] ** 2)
                W_update += np.array([[a[t], b[t]]]).T @ delta
                U_update += hs[-t - 2].T @ delta
                later = delta @ U.T
            return W_update, U_update
        """,
    # A column for each example would give a loss for each.
    "one example where the loss is a number": """
        import numpy as np
        def forward(p, xs):
            h = np.zeros((len(p['b']), 1))
            hs = [h]
            for x in xs:
                hs.append(np.tanh(p['W'] @ x + p['U'] @ hs[-1] + p['b']))
            e = np.exp(p['V'] @ hs[-1])
            return e / e.sum(), hs
        def loss(p, xs, label):
            return -np.log(forward(p, xs)[0][label, 0]).item()
        def backward(p, xs, label):
            probs, hs = forward(p, xs)
            dy = probs.copy()
            dy[label] -= 1
            grads = {k: np.zeros_like(v) for k, v in p.items()}
            grads['V'], dh = dy @ hs[-1].T, p['V'].T @ dy
            for t in reversed(range(len(xs))):
                dz = (1 - hs[t + 1] ** 2) * dh
                grads['b'] += dz
                grads['U'] += dz @ hs[t].T
                grads['W'] += dz @ xs[t].T
                dh = p['U'].T @ dz
            return grads
        """,
    "the error of a gradient check is no loss": """
        import numpy as np
        def rel_error(x, y):
            return np.max(np.abs(x - y) / (np.abs(x) + np.abs(y)))
        def model_forward(x, W):
            s = np.tanh(x * W)
            return s, (x, W, s)
        def model_backward(y, cache):
            x, W, s = cache
            d = (s - y) * (1 - s ** 2)
            return d * W, d * x
        """,
    "a state that is reset to the size of a batch": """
        import numpy as np
        class Layer:
            def __init__(self, n):
                self.W, self.h = np.ones((n, n)), None
            def reset_state(self, batch):
                self.h = np.zeros((batch, len(self.W)))
            def forward(self, x):
                before = np.zeros_like(x) if self.h is None else self.h
                self.x, self.h = x, np.tanh(x @ self.W + before)
                return self.h
            def backward(self, dy):
                dz = dy * (1 - self.h ** 2)
                self.dW = self.x.T @ dz
                return dz @ self.W.T
        """
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name, tmp_path):
    (verdict,) = judged(tmp_path, RIGHT[name])
    assert verdict.status == "right", verdict
