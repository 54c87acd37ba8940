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
}


@pytest.mark.parametrize("name", WAYS)
def test_way(name, tmp_path):
    text, line, other, wrong = WAYS[name]
    text = textwrap.dedent(text)
    assert line in text
    (tmp_path / "mine.py").write_text(text)
    assert {(v.status, *v.faults) for v in judge_file(str(tmp_path / "mine.py"))} == {("right",)}
    (tmp_path / "mine.py").write_text(text.replace(line, other))
    said = "\n".join(fault for v in judge_file(str(tmp_path / "mine.py")) for fault in v.faults)
    assert f"wrong: {wrong}\n" in said, said
