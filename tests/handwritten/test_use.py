"""What a file's own calls show where names say nothing: which function is the forward, the loss, and what they take."""

from __future__ import annotations

import re
import textwrap

import pytest

from minigrad.handwritten.judge import judge_file
from minigrad.handwritten.source import read
from minigrad.handwritten.watch import Watch

RNN = """
    import numpy as np
    class Netz:
        def __init__(self, n):
            self.W, self.U, self.V = np.eye(n) + 0.1, np.full((n, 1), 0.2), np.full((1, n), 0.3)
        def {forward}(self, {arguments}):
            self.h = [np.zeros((len(self.W), 1))]
            for t in range(len(x)):
                self.h.append(np.tanh(self.W @ self.h[-1] + self.U * x[t]))
            {after}
        {loss}
        def {backward}(self, {targets}):
            dy = self.y - ziel
            dW, dU, dh = np.zeros_like(self.W), np.zeros_like(self.U), self.V.T * dy
            for t in reversed(range(len(self.h) - 1)):
                dz = dh * (1 - self.h[t + 1] ** 2)
                dW += dz @ self.h[t].T
                dU += dz * self.x[t]
                dh = self.W.T @ dz
            {end}
    if __name__ == "__main__":
        netz = Netz(4)
        for schritt in range(1000):
            {demo}
"""
FILES = {  # name: (the parts of the class, the gradients that are right)
    "a loss in the forward, and a dict": (
        dict(forward="vorwaerts", arguments="x, ziel", after="self.x, self.ziel, self.y = x, ziel, "
             "(self.V @ self.h[-1])[0, 0]; return 0.5 * (self.y - ziel) ** 2", loss="", backward="nach_hinten",
             targets="", end='return {"W": dW, "U": dU, "V": dy * self.h[-1].T}',
             demo="kosten = netz.vorwaerts(np.arange(5) / 5, 0.7); d = netz.nach_hinten()")),
    "three calls, and the loss in between": (
        dict(forward="raten", arguments="x", after="self.x, self.y = x, (self.V @ self.h[-1])[0, 0]; return self.y",
             loss="def abstand(self, ziel): return 0.5 * (self.y - ziel) ** 2", backward="lernen", targets="ziel",
             end="self.dW, self.dU, self.dV = dW, dU, dy * self.h[-1].T",
             demo="netz.raten(np.arange(5) / 5); netz.abstand(0.7); netz.lernen(0.7)")),
}


def written(tmp_path, text):
    file = tmp_path / "student.py"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_right", [True, False])
def test_roles_are_those_of_the_calls(name, is_right, tmp_path):
    text = RNN.format(**FILES[name])
    if not FILES[name]["targets"]:
        text = text.replace("dy = self.y - ziel", "dy = self.y - self.ziel")
    if not is_right:
        text = text.replace("dz = dh * (1 - self.h[t + 1] ** 2)", "dz = dh")
    (verdict,) = judge_file(written(tmp_path, text))
    assert verdict.status == ("right" if is_right else "wrong"), verdict
    assert is_right or "lacks the derivative of its tanh" in verdict.faults[0], verdict


ARGUMENTS = {
    "a list of columns": """
        def forward(xs, p):
            h, hs = np.zeros((3, 1)), []
            for x in xs + []:
                h = np.tanh(p["W"] @ h + p["U"] @ x)
                hs.append(h)
            return hs, (xs, hs)
        def backward(dhs, cache, p):
            (xs, hs), d = cache, {"W": np.zeros((3, 3)), "U": np.zeros((3, 2))}
            dh = np.zeros((3, 1))
            for t in reversed(range(len(xs))):
                dz = (dhs[t] + dh) * (1 - hs[t] ** 2)
                d["W"] += dz @ (hs[t - 1] if t else np.zeros((3, 1))).T
                d["U"] += dz @ xs[t].T
                dh = p["W"].T @ dz
            return d
        p = {"W": np.eye(3), "U": np.ones((3, 2))}
        hs, cache = forward([np.ones((2, 1))] * 5, p)
        print(backward(hs, cache, p))
        """,
    "a word": """
        letters = {c: i for i, c in enumerate("abcd")}
        W, V = np.eye(4) + 0.1, np.eye(4) * 2
        def loss(word):
            h, total, dW, dV, kept = np.zeros(4), 0.0, np.zeros_like(W), np.zeros_like(V), []
            for one, following in zip(word, word[1:]):
                new = np.tanh(W @ h + np.eye(4)[letters[one]])
                p = np.exp(V @ new) / np.exp(V @ new).sum()
                total -= np.log(p[letters[following]])
                kept.append((h, new, p, letters[following]))
                h = new
            dh = np.zeros(4)
            for h, new, p, i in reversed(kept):
                dy = p - np.eye(4)[i]
                dV += np.outer(dy, new)
                dz = (V.T @ dy + dh) * (1 - new ** 2)
                dW += np.outer(dz, h)
                dh = W.T @ dz
            return total, dW, dV
        for epoch in range(10 ** 9):
            total, dW, dV = loss("abcadb")
        """,
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_are_those_of_the_calls(name, tmp_path):
    (verdict,) = judge_file(written(tmp_path, "import numpy as np\n" + textwrap.dedent(ARGUMENTS[name])))
    assert verdict.status == "right", verdict


def test_a_file_is_watched_and_changes_nothing(tmp_path):
    kept = tmp_path / "notes.txt"
    kept.write_text("mine", encoding="utf-8")
    source = read(written(tmp_path, f"""
        import os, subprocess
        import numpy as np
        def f(x):
            return 2 * x
        def touch(how):
            try:
                how()
            except OSError:
                f(1)
        touch(lambda: open({str(kept)!r}, "w").write("gone"))
        touch(lambda: np.save({str(tmp_path / "new")!r}, np.ones(2)))
        touch(lambda: os.remove({str(kept)!r}))
        touch(lambda: subprocess.run(["true"]))
        raise SystemExit
        """))
    watch = Watch(source)
    assert kept.read_text(encoding="utf-8") == "mine" and sorted(p.name for p in tmp_path.iterdir()) == [
        "notes.txt", "student.py"]
    assert [call.name for call in watch.calls].count("f") == 3  # what is written by open() goes nowhere
    (tmp_path / "after").write_text("written", encoding="utf-8")  # and this process may write


@pytest.mark.parametrize("in_loop", ["f(1)", "x = 1"])
def test_a_file_that_never_ends_is_left(in_loop, tmp_path):
    watch = Watch(read(written(tmp_path, f"""
        def f(x):
            return x
        f(1)
        while True:
            try:
                {in_loop}
            except Exception:
                pass
        """)))
    assert {call.result for call in watch.calls if call.ended} == {1}


JUDGED = {  # name: (the file, what is judged, its status, what is said of it)
    "labels of −1 that only the loss leaves out": ("""
        def softmax_loss(x, y):
            N, mask = len(x), y != -1
            p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            loss = -(np.log(p[np.arange(N), y]) * mask).sum() / mask.sum()
            dx = p.copy()
            dx[np.arange(N), y] -= 1
            return loss, dx * mask[:, None] / N
        """, "softmax_loss", "wrong", "with a label of −1: wrong: dx"),
    "a gradient that is cut off": ("""
        def rnn_forward(x, W):
            h = [np.zeros(W.shape[0])]
            for t in range(len(x)):
                h.append(np.tanh(x[t] + h[-1] @ W))
            return np.stack(h[1:]), h
        def rnn_backward(dy, h, W, most_trunc=5):
            dx, dW = np.zeros_like(dy), np.zeros_like(W)
            for t in range(len(dy)):
                d = dy[t]
                for k in range(t, max(-1, t - most_trunc), -1):
                    d = d * (1 - h[k + 1] ** 2)
                    dx[k] += d
                    dW += np.outer(h[k], d)
                    d = d @ W.T
            return dx, dW
        """, "rnn_backward", "right", "for more than 5 steps dx, dW are not the gradient"),
    "words that stand twice in a row": ("""
        def embed_forward(x, W):
            return W[x], (x, W)
        def embed_backward(dy, cache):
            x, W = cache
            dW = np.zeros_like(W)
            for n in range(len(x)):
                dW[x[n]] += dy[n]
            return dW
        y, cache = embed_forward(np.zeros((3, 7), int), np.ones((10, 4)))
        dW = embed_backward(np.ones_like(y), cache)
        """, "embed_backward", "wrong", r"np.add.at\(dW, x\[n\], dy\[n\]\)"),
    "updates that are added": ("""
        def once(x, target, W, b):
            y = np.tanh(x @ W + b)
            d = (target - y) * (1 - y ** 2)
            return 0.5 * np.sum((y - target) ** 2), x.T @ d, d.sum(0)
        W, b, lr = np.ones((3, 2)), np.zeros(2), 0.1
        for i in range(5):
            loss, up_W, up_b = once(np.ones((4, 3)), np.zeros((4, 2)), W, b)
            W += lr * up_W
            b += lr * up_b
        """, "once", "right", "minus the gradient, which the file adds"),
    "p in place of p − y": ("""
        def loss_and_grads(x, W, target):
            z = x @ W
            e = np.exp(z - np.max(z, axis=1, keepdims=True))
            p = e / np.sum(e, axis=1, keepdims=True)
            loss = -np.log(p[np.arange(len(x)), target]).sum()
            dz = p.copy()
            dW = x.T @ dz
            return loss, dW
        """, "loss_and_grads", "wrong", "p in place of p − y"),
    "exponentials that take the name of their argument": ("""
        def softmax(x):
            x = x - x.max(axis=1, keepdims=True)
            x = np.exp(x)
            return x / x.sum(axis=1, keepdims=True)
        def loss_and_grads(x, W, target):
            p = softmax(x @ W)
            loss = -np.log(p[np.arange(len(x)), target]).sum()
            dz = p.copy()
            dz[np.arange(len(x)), target] -= 1
            dW = x.T @ dz
            return loss, dW
        """, "loss_and_grads", "right", ""),
    "a right cell that uses the cache that it is handed": ("""
        class Cell:
            def __init__(self, n, m):
                self.W, self.U = np.ones((n, m)), np.ones((m, m))
                self.zero_grad()
            def zero_grad(self):
                self.dW, self.dU = np.zeros_like(self.W), np.zeros_like(self.U)
            def forward(self, x, h):
                y = np.tanh(x @ self.W + h @ self.U)
                return y, (x, h, y)
            def backward(self, dy, cache):
                x, h, y = cache
                dz = dy * (1 - y)
                self.dW += x.T @ dz
                self.dU += h.T @ dz
                return dz @ self.W.T, dz @ self.U.T
        class Layer:
            def __init__(self, n, m):
                self.m, self.cell = m, Cell(n, m)
            def forward(self, x):
                h, self.caches, out = np.zeros((len(x), self.m)), [], []
                for t in range(x.shape[1]):
                    h, cache = self.cell.forward(x[:, t], h)
                    self.caches.append(cache)
                    out.append(h)
                return np.stack(out, axis=1)
            def backward(self, dy):
                self.cell.zero_grad()
                dx, dh = [], 0
                for t in reversed(range(dy.shape[1])):
                    d, dh = self.cell.backward(dy[:, t] + dh, self.caches[t])
                    dx.append(d)
                return np.stack(dx[::-1], axis=1)
        """, "Layer", "right", "with a right Cell in place of yours"),
}


@pytest.mark.parametrize("name", JUDGED)
def test_what_is_said(name, tmp_path):
    text, judged, status, said = JUDGED[name]
    verdicts = {v.name: v for v in judge_file(written(tmp_path, "import numpy as np\n" + textwrap.dedent(text)))}
    assert verdicts[judged].status == status, verdicts[judged]
    assert re.search(said, str(verdicts[judged])), verdicts[judged]
