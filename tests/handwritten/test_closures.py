"""Functions that share variables are judged as a class; the class does what the function did."""

from __future__ import annotations

import ast
import textwrap

import numpy as np
import pytest

from minigrad.handwritten.closures import as_class, with_classes
from minigrad.handwritten.judge import judge_file

COUNTER = """
    def make(start, *, step=2):
        total = start
        seen = []
        def scaled(x, k=3):
            return k * x
        def add(x):
            nonlocal total
            seen.append(scaled(x))
            total += step * x
            return total
        def read():
            total_of = [total for x in seen]
            return (lambda total: total + 1)(len(total_of)), total
        return {"add": add, "read": read, "scaled": scaled}
    """
RNN = """
    import numpy as np
    def make_rnn(n, k, seed=0):
        rng = np.random.default_rng(seed)
        p = {"W": rng.normal(size=(n, k)), "U": rng.normal(size=(k, k)), "b": np.zeros(k)}
        kept = {}
        def forward(x):
            h = [np.zeros((x.shape[0], k))]
            for t in range(x.shape[1]):
                h.append(np.tanh(x[:, t] @ p["W"] + h[-1] @ p["U"] + p["b"]))
            kept.update(x=x, h=h)
            return np.stack(h[1:], 1)
        def backward(dh):
            x, h = kept["x"], kept["h"]
            g, carry = {key: np.zeros_like(w) for key, w in p.items()}, 0
            for t in reversed(range(x.shape[1])):
                dz = (dh[:, t] + carry) * (1 - h[t + 1] ** 2)
                g["W"] += x[:, t].T @ dz
                g["U"] += h[t].T @ dz
                g["b"] += dz.sum(0)
                carry = dz @ p["U"].T
            return g
        return p, forward, backward
    if __name__ == "__main__":
        p, forward, backward = make_rnn(3, 4)
        backward(forward(np.ones((2, 5, 3))))
    """


def made(text: str) -> dict:
    namespace: dict = {}
    tree = with_classes(ast.parse(textwrap.dedent(text)))
    exec(compile(ast.fix_missing_locations(tree), "file", "exec"), namespace)
    return namespace


def test_the_class_does_what_the_function_did():
    own: dict = {}
    exec(textwrap.dedent(COUNTER), own)
    for make in (own["make"], made(COUNTER)["make"]):
        counter = make(1, step=5)
        assert counter["add"](2) == 11 and counter["add"](1) == 16
        assert counter["read"]() == (3, 16) and counter["scaled"](2) == 6


def test_it_is_unpacked_as_before():
    p, forward, backward = made(RNN)["make_rnn"](3, 4)
    gradients = backward(forward(np.ones((2, 5, 3))))
    assert gradients.keys() == p.keys() and gradients["U"].shape == (4, 4)


@pytest.mark.parametrize("text", [
    "def f(x):\n    def back(g):\n        return g\n    return x, back",  # a forward that returns its backward
    "def f(x):\n    def a():\n        return x\n    def b():\n        return a()\n    return b()",
    "def f(x):\n    def a(): pass\n    def b(): pass\n    if x:\n        return a, b",
    "def f(x):\n    def a(k=x): pass\n    def b(): pass\n    return a, b",
    "def f(x):\n    pass"])
def test_other_functions_stay(text):
    assert as_class(ast.parse(text).body[0]) is None


@pytest.mark.parametrize(("old", "new", "said"), [
    ("", "", ""), ("(1 - h[t + 1] ** 2)", "(1 - h[t + 1])", "has 1 − "),
    ('g["U"] += h[t].T', 'g["U"] += h[t + 1].T', "write `h[t]` in place of `h[t + 1]`")])
def test_its_backward_is_judged(tmp_path, old, new, said):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(RNN).replace(old, new) if old else textwrap.dedent(RNN), encoding="utf-8")
    (verdict,) = judge_file(str(file))
    assert verdict.status == ("wrong" if said else "right"), verdict
    assert said in str(verdict) and verdict.convention == "functions that share variables"
