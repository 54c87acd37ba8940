"""Arguments found by running a function: their structure, and which axes are of one length."""

from __future__ import annotations

import itertools
import re
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

from minigrad.handwritten.lengths import clashes
from minigrad.handwritten.probe import Need
from minigrad.handwritten.shapes import Sliced, examples, hints
from minigrad.handwritten.source import CouldNotRun, read

pytestmark = pytest.mark.quick

# a function or a class, and its axes in letters: equal letters are equal lengths, other letters are other lengths
CASES = {
    "cell, features first": ("""
        def f(xt, a_prev, c_prev, parameters):
            Wf, bf = parameters["Wf"], parameters["bf"]
            Wc, bc = parameters["Wc"], parameters["bc"]
            n_a, m = a_prev.shape
            concat = np.zeros((n_a + xt.shape[0], m))
            concat[:n_a] = a_prev
            concat[n_a:] = xt
            ft = 1 / (1 + np.exp(-(np.dot(Wf, concat) + bf)))
            c_next = ft * c_prev + np.tanh(np.dot(Wc, concat) + bc)
            return np.tanh(c_next), c_next, (concat, ft)
        """, "xt D N, a_prev H N, c_prev H N, parameters.Wf H H+D, parameters.bf H 1, parameters.Wc H H+D, "
             "parameters.bc H 1"),
    "sequence, batch first, fused gates in slices": ("""
        def f(x, h0, Wx, Wh, b):
            N, T, D = x.shape
            H = h0.shape[1]
            h, c, hs = h0, np.zeros_like(h0), np.zeros((N, T, H))
            for t in range(T):
                a = x[:, t] @ Wx + h @ Wh + b
                c = a[:, H:2*H] * c + a[:, :H] * a[:, 3*H:]
                h = a[:, 2*H:3*H] * np.tanh(c)
                hs[:, t] = h
            return hs, (x, hs)
        """, "x N T D, h0 N H, Wx D 4H, Wh H 4H, b 4H"),
    "a last slice with an end": ("""
        def f(x, h, Wx, Wh, b):
            H = h.shape[1]
            a = x.dot(Wx) + h.dot(Wh) + b
            return a[:, :H] * np.tanh(a[:, H:2*H]) + a[:, 2*H:3*H] * h
        """, "x N D, h N H, Wx D 3H, Wh H 3H, b 3H"),
    "a class made from weights": ("""
        class f:
            def __init__(self, Wx, Wh, b):
                self.params = [Wx, Wh, b]
                self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
            def forward(self, x, h_prev, c_prev):
                Wx, Wh, b = self.params
                f, g, i, o = np.split(np.dot(x, Wx) + np.dot(h_prev, Wh) + b, 4, axis=1)
                c = f * c_prev + g * i
                return o * np.tanh(c), c
        """, "Wx D 4H, Wh H 4H, b 4H, x N D, h_prev N H, c_prev N H"),
    "a class made from sizes": ("""
        class f:
            def __init__(self, n_in, n_hid, seed=0):
                s = 1 / np.sqrt(n_hid)
                self.W = np.random.RandomState(seed).uniform(-s, s, (3 * n_hid, n_in + n_hid))
            def forward(self, x, h):
                n = h.shape[0]
                a = self.W @ np.vstack([x, h])
                return a[:n] * h + a[n:2*n] * a[2*n:]
        """, "x D N, h H N; n_in D, n_hid H"),
    "a tuple of weights": ("""
        def f(x, h0, params):
            Wz, Uz, bz, Wh, Uh, bh = params
            h, hs = h0, []
            for t in range(x.shape[2]):
                z = np.tanh(Wz @ x[:, :, t] + Uz @ h + bz)
                h = z * h + (1 - z) * np.tanh(Wh @ x[:, :, t] + Uh @ (z * h) + bh)
                hs.append(h)
            return np.stack(hs, axis=2)
        """, "x D N T, h0 H N, params.Wz H D, params.Uz H H, params.bz H 1, params.Wh H D, params.Uh H H, "
             "params.bh H 1"),
    "keys made while it runs, a layer norm": ("""
        def norm(a, g, b):
            return g * (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 1e-5) + b
        def f(x, h, P):
            a = sum(norm(v @ P['W' + k], P['g' + k], P['b' + k]) for k, v in (('x', x), ('h', h)))
            H = h.shape[1]
            return np.tanh(a[:, :H]) * a[:, H:]
        """, "x N D, h N H, P.Wx D 2H, P.gx 2H, P.bx 2H, P.Wh H 2H, P.gh 2H, P.bh 2H"),
    "characters": ("""
        def f(inputs, targets, hprev, model):
            Wxh, Whh, Why, bh, by = [model[k] for k in ('Wxh', 'Whh', 'Why', 'bh', 'by')]
            hs, loss, V = {-1: np.copy(hprev)}, 0, Why.shape[0]
            for t in range(len(inputs)):
                x = np.zeros((V, 1))
                x[inputs[t]] = 1
                hs[t] = np.tanh(Wxh.dot(x) + Whh.dot(hs[t-1]) + bh)
                y = Why.dot(hs[t]) + by
                loss -= np.log(np.exp(y) / np.exp(y).sum())[targets[t], 0]
            dby = np.zeros_like(by)
            dby += np.exp(y)
            return loss, hs[len(inputs) - 1]
        """, "hprev H 1, model.Wxh H V, model.Whh H H, model.Why V H, model.bh H 1, model.by V 1; "
             "inputs T, targets T"),
    "columns that a list of integers chooses": ("""
        def f(inputs, h0, params):
            W, U = params['W'], params['U']  # h0 (H, N)
            for t in range(len(inputs)):
                h0 = np.tanh(W[:, [inputs[t]]] + U.dot(h0))
            return h0
        """, "h0 H N, params.W H V, params.U H H; inputs T"),
    "the shape in slices, and unpacked beside a name": ("""
        def f(xs, h, lstm_W, lstm_U):
            ts, (N, T) = 0, xs.shape[:2]
            out = np.zeros(xs.shape[:2] + (h.shape[1],))
            for t in range(T):
                out[:, t] = h = np.tanh(xs[:, t].dot(lstm_W) + h.dot(lstm_U))
            return out
        """, "xs N T D, h N H, lstm_W D H, lstm_U H H"),
    "vectors, sizes of the file": ("""
        V, H = 6, 5
        W = np.ones((H + V, 4 * H))
        def f(inputs, h0):
            out = np.zeros((len(inputs), H))
            for t in range(len(inputs)):
                z = np.zeros(H + V)
                z[:H] = out[t-1] if t else h0
                z[H + inputs[t]] = 1
                out[t] = np.tanh(z.dot(W)[:H])
            return out
        """, "h0 5; inputs T"),
    "a state over rows": ("""
        def f(xs, h0, W_xh, W_hh):
            hs = [h0]  # xs (T, n_in)
            for x in xs:
                hs.append(np.tanh(x @ W_xh + hs[-1] @ W_hh))
            return np.array(hs)
        """, "xs T D, h0 H, W_xh D H, W_hh H H"),
    "columns in a list": ("""
        class f:
            def __init__(self, d, k):
                self.U, self.W, self.k = np.random.randn(k, d), np.random.randn(k, k), k
            def forward(self, xs):
                h = np.zeros((self.k, 1))
                for x in xs:
                    h[:] = np.tanh(self.U @ x + self.W @ h)
                return h
        """, "xs T D 1; d D, k H"),
    "attention": ("""
        def f(Q, K, V):
            s = np.einsum('nqd,nkd->nqk', Q, K) / np.sqrt(Q.shape[-1])
            e = np.exp(s - s.max(axis=-1, keepdims=True))
            return np.einsum('nqk,nkv->nqv', e / e.sum(axis=-1, keepdims=True), V)
        """, "Q N Q D, K N K D, V N K V"),
    "one vector, as the docstring says": ("""
        class f:
            def __init__(self, d, h):
                self.W, self.U, self.b, self.h = np.random.randn(h, d), np.random.randn(h, h), np.zeros(h), h
            def forward(self, x, h_prev):
                '''x: (d,)  h_prev: (h,)'''
                return np.tanh(self.W @ x + self.U @ h_prev + self.b)
        """, "x D, h_prev H; d D, h H"),
    "labels and a mask, in one row": ("""
        def f(x, y, mask):
            N, T, V = x.shape
            z, y, mask = x.reshape(-1, V), y.reshape(N * T), mask.ravel()
            return -(mask * np.log(np.exp(z) / np.exp(z).sum(1)[:, None])[np.arange(N * T), y]).sum() / N
        """, "x N T V, mask N T; y N T"),
    "a setting in words": ("""
        def f(x, gamma, beta, bn_param):
            assert gamma.shape[0] == x.shape[1], 'features'
            if bn_param['mode'] == 'train':
                return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + bn_param.get('eps', 1e-5)) + beta
        """, "x N D, gamma D, beta D; bn_param.mode"),
    "inputs beside targets": ("""
        def f(xs, ys, h, Wxh, Whh, Why):
            loss = 0
            for x, y in zip(xs, ys):  # xs (T, n_in), ys (T, n_out), h (H,)
                h = np.tanh(Wxh @ x + Whh @ h)
                loss += 0.5 * np.sum((Why @ h - y) ** 2)
            return loss
        """, "xs T D, ys T V, h H, Wxh H D, Whh H H, Why V H"),
    "weights as attributes, a gate's part in the middle": ("""
        def f(x, h, c, p):
            a = np.array_split(x @ p.W.T + h @ p.U.T + p.b, 4, axis=1)
            return a[0] * c + a[1] * np.tanh(a[2]) + a[3]
        """, "x N D, h N H, c N H, p.W 4H D, p.U 4H H, p.b 4H"),
    "a kernel": ("""
        def f(x, w, b):
            N, T, D = x.shape
            K = w.shape[0]
            out = np.zeros((N, T - K + 1, w.shape[2]))
            for t in range(T - K + 1):
                for k in range(K):
                    out[:, t] += x[:, t + k] @ w[k]
            return out + b
        """, "x N T D, w 2 D M, b M"),
    "words, found late": ("""
        class f:
            def __init__(self, W):
                self.params = [W]
            def forward(self, xs):
                N, T = xs.shape
                out = np.empty((N, T, self.params[0].shape[1]))
                for t in range(T):
                    out[:, t] = self.params[0][xs[:, t]]
                return out
        """, "W V D; xs N T"),
    "columns written into columns": ("""
        def f(x, a0, Wax, Waa, ba):
            a, a_t = np.zeros((a0.shape[0], x.shape[1])), a0
            for t in range(x.shape[1]):
                a_t = np.tanh(Wax.dot(x[:, [t]]) + Waa.dot(a_t) + ba)
                a[:, [t]] = a_t
            return a
        """, "x D T, a0 H 1, Wax H D, Waa H H, ba H 1"),
    "an assertion": ("""
        def f(x, W, b):
            assert x.shape[1] == W.shape[0], "features"
            assert b.shape == (W.shape[1],)
            return x @ W + b
        """, "x N D, W D H, b H"),
    "rows taken apart": ("""
        def f(x, h, Wx, Wh, b):
            H = h.shape[1]
            a = (x @ Wx + h @ Wh + b).reshape(-1, 3, H)
            return a[:, 0] * h + np.tanh(a[:, 1] * a[:, 2])
        """, "x N D, h N H, Wx D 3H, Wh H 3H, b 3H"),
    "as many steps as a global says": ("""
        T, V, H = 9, 6, 5
        U, W = np.ones((H, V)), np.ones((H, H))
        def f(inputs, targets, h0):
            h, loss = h0, 0
            for t in range(T):
                x = np.zeros((V, 1))
                x[inputs[t]] = 1
                h = np.tanh(U.dot(x) + W.dot(h))
                loss -= np.log(U.T.dot(h)[targets[t], 0])
            return loss
        """, "h0 5 N; inputs 9, targets 9"),
    "targets of several sequences": ("""
        def f(inputs, targets, W):
            N, T = inputs.shape
            x = np.eye(6)[inputs]
            return ((x @ W - np.eye(6)[targets]) ** 2).sum() / (N * T)
        """, "W 6 6; inputs N T, targets N T"),
    "a word drawn from a column": ("""
        W = np.ones((5, 5))
        def f(h):
            p = np.exp(W.dot(h))
            return h, np.random.choice(range(5), p=p.ravel() / p.sum())
        """, "h 5 1"),
    "layers in a list": ("""
        def f(x, layers):
            for W, b in layers:
                x = np.tanh(x @ W + b)
            return x
        """, "x N A, layers.0.W A B, layers.0.b B, layers.1.W B C, layers.1.b C"),
}


def found(tmp_path, text: str, method: str = "forward"):
    file = tmp_path / "student.py"
    file.write_text("import numpy as np\n" + textwrap.dedent(text))
    source = read(str(file))
    namespace = source.run(["f"])
    return namespace, source.definitions["f"], examples(namespace["f"], source.definitions["f"], namespace, method)


@pytest.mark.parametrize("name", CASES)
def test_axes_are_told_apart(name, tmp_path):
    text, expected = CASES[name]
    _, _, all_examples = found(tmp_path, text)
    example = next(all_examples)
    arrays, _, constants = expected.partition(";")
    words = {path: axes.split() for path, _, axes in (w.strip().partition(" ") for w in arrays.split(",") if w.strip())}
    assert example.shapes.keys() == words.keys()
    assert {w.split()[0] for w in constants.split(",") if w.strip()} == example.constants.keys()
    lengths = {path: example.shapes.get(path) for path in words}
    lengths |= {path: np.shape(value) or (value,) for path, value in example.constants.items()}
    words |= {path: axes.split() for path, *_, axes in (w.strip().partition(" ") for w in constants.split(",")) if axes}
    sizes = {word: n for path in words for word, n in zip(words[path], lengths[path]) if word.isalpha()}
    for path, axes in words.items():
        assert len(axes) == len(lengths[path]), path
        for word, n in zip(axes, lengths[path]):
            terms = re.findall(r"(\d*)([A-Z]?)", word)
            assert n == sum(int(k or 1) * sizes.get(letter, 1) for k, letter in terms if k or letter), (path, word)
    assert len(set(sizes.values())) == len(sizes), sizes
    assert all(n > 2 for n in sizes.values())


def test_the_function_runs_with_what_was_found(tmp_path):
    namespace, _, all_examples = found(tmp_path, CASES["a tuple of weights"][0])
    example = next(all_examples)
    rng = np.random.default_rng(1)
    arguments = example.arguments({path: rng.normal(size=shape) for path, shape in example.shapes.items()}, {}.get)
    H, N = example.shapes["h0"]
    assert namespace["f"](*arguments).shape == (H, N, example.shapes["x"][2])
    assert example.axes["params.Wz"] == ("h0.0", "x.0")


def test_other_arguments_follow_with_a_higher_cost(tmp_path):
    """A function that runs on matrices and on sequences: a backward may tell."""
    _, _, all_examples = found(tmp_path, "def f(x, w, b):\n    return x @ w + b\n")
    ranks = [len(example.shapes["x"]) for example in itertools.islice(all_examples, 8)]
    assert ranks[0] == 2 and {1, 3} <= set(ranks)


def test_integers_of_another_rank_follow(tmp_path):
    """A table is read by any; its backward may unpack the shape."""
    _, _, all_examples = found(tmp_path, "def f(xs, W):\n    return W[xs]\n")
    assert {np.ndim(example.constants["xs"]) for example in itertools.islice(all_examples, 4)} == {0, 1, 2}


def test_what_is_unpacked_says_no_rank():
    assert hints(("ts", "ys"), "ys, ts, (N, T, V) = self.cache") == {}
    assert hints(("ts",), "the targets ts, (N, T)") == {"ts": 2}


def test_two_lists_of_integers_differ(tmp_path):
    """Else a backward that takes the inputs for the targets is right."""
    text = """
        def f(inputs, targets, h):
            loss = 0
            for t in range(len(inputs)):
                x = np.zeros((7, 1))
                x[inputs[t]] = 1
                h = h + x
                loss -= h[targets[t], 0]
            return loss
        """
    _, _, all_examples = found(tmp_path, text)
    constants = next(all_examples).constants
    assert np.all(constants["inputs"] != constants["targets"])


def test_a_constructor_may_take_a_generator(tmp_path):
    text = """
        class f:
            def __init__(self, n_in, n_out, rng):
                self.W = rng.normal(0, 0.1, (n_in, n_out))
            def forward(self, x):
                return x @ self.W
        """
    _, _, all_examples = found(tmp_path, text)
    example = next(all_examples)
    assert example.shapes["x"][1] == example.constants["n_in"] != example.constants["n_out"]


def test_a_weight_of_the_file_says_its_shape(tmp_path):
    text = "W_xh = np.ones((3, 5))\ndef g():\n    return W_xh\ndef f(x, W_xh):\n    g()\n    return x @ W_xh\n"
    _, _, all_examples = found(tmp_path, text)
    assert next(all_examples).shapes["W_xh"] == (3, 5)


def test_a_weight_of_a_function_that_reads_no_globals_is_free(tmp_path):
    """A try-out at the end of the file has a W; the gates of the forward tell its lengths."""
    text = """
    W, T = np.ones((80, 30)), 7
    def f(x, h, W):
        z = W @ np.concatenate((h, x))
        n = h.shape[0]
        return np.tanh(z.T).T[:n] * z[n:2 * n] + z[2 * n:3 * n] * z[3 * n:4 * n] + h
    """
    _, _, all_examples = found(tmp_path, textwrap.dedent(text))
    shapes = next(all_examples).shapes
    assert shapes["W"] == (4 * shapes["h"][0], shapes["h"][0] + shapes["x"][0]) != (80, 30)


def test_what_cannot_be_called_is_said_in_a_sentence(tmp_path):
    namespace, node, _ = found(tmp_path, "def f(x):\n    return x @ np.ones((4, 4)) + missing\n")
    with pytest.raises(CouldNotRun, match=r"with which f runs; the closest were x \(.*4\): "
                                          r"line 3, `return x @ np.ones.*NameError: name 'missing' is not defined"):
        next(examples(namespace["f"], node))


OWN_FAULTS = {  # (function, the line that fails whatever its arguments, and how)
    "a weight that is None": ("""
        class f:
            def __init__(self, n, m):
                self.n, self.W = n, None
            def forward(self, x):
                h = np.zeros((self.n, 1))
                return np.dot(self.W, h)
        """, TypeError),
    "too many arguments": ("""
        def norm(x, gain):
            return gain * x
        def f(x, gain, bias):
            return norm(x.T, gain.T, bias)
        """, TypeError),
    "a name that the object has not": ("""
        class f:
            def __init__(self, W):
                self.W = W
            def forward(self, x):
                self.kept.append(x @ self.W)
                return self.kept[-1]
        """, AttributeError),
}


@pytest.mark.parametrize("name", OWN_FAULTS)
def test_a_fault_of_the_function_itself_is_the_cause(name, tmp_path):
    text, expected = OWN_FAULTS[name]
    with pytest.raises(CouldNotRun) as caught:
        next(found(tmp_path, text)[2])
    assert type(caught.value.__cause__) is expected


def test_the_arguments_that_came_furthest_are_said(tmp_path):
    """Gates of weights that are too small, which no argument mends."""
    text = "W = np.ones((5, 5))\ndef f(h, c):\n    a = np.dot(W, h)\n    return a[:5] * c + a[5:10] * c\n"
    with pytest.raises(CouldNotRun, match=r"the closest were h \(5, \d+\), c .*: line 5") as caught:
        next(found(tmp_path, text)[2])
    assert caught.value.__cause__ is None


def test_nothing_large_is_computed():
    trial = SimpleNamespace(slices=[], split=[])
    state, W = np.ones((200, 3, 200)).view(Sliced), np.ones((10000, 3))
    state.trial = trial
    with pytest.raises(Need):
        np.dot(W, state)


def ones(*shape):
    return np.ones(shape)


CLASHES = [  # NumPy's own messages
    (lambda: ones(2, 4) + ones(2, 5), (4, 5)), (lambda: ones(3, 4) @ ones(5, 3), (5, 4)),
    (lambda: ones(2, 4).dot(ones(5, 3)), (4, 5)), (lambda: np.concatenate([ones(2, 4), ones(2, 5)]), (4, 5)),
    (lambda: np.einsum("ij,jk->ik", ones(2, 4), ones(5, 3)), (4, 5)), (lambda: ones(2, 4)[ones(3) > 0], (2, 3)),
    (lambda: np.stack([ones(2, 4), ones(2, 5)]), (4, 5)), (lambda: np.tensordot(ones(2, 4), ones(5, 3), 1), (4, 5)),
    (lambda: np.split(ones(2, 7), 4, axis=1), (7, -4)), (lambda: ones(3, 1).__iadd__(ones(3, 4)), (1, 4)),
    (lambda: ones(3, 4).__setitem__(slice(None), ones(3, 5)), (4, 5)),
    (lambda: ones(3, 4).__setitem__((slice(None), [1]), ones(3, 5)), (1, 5)),
    (lambda: ones(5, 5)[np.arange(3), np.arange(4)], (3, 4)), (lambda: np.einsum("ii->i", ones(3, 4)), (3, 4)),
]


@pytest.mark.parametrize("case", range(len(CLASHES)))
def test_the_lengths_in_an_error_are_read(case):
    fails, expected = CLASHES[case]
    with pytest.raises((ValueError, IndexError)) as caught:
        fails()
    assert clashes(caught.value) == [expected]
