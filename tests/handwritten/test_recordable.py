"""A forward rewritten for tensors gives the same numbers on arrays, and the gradients of what it writes in place."""

import ast

import numpy as np
import pytest

import minigrad as mg
from minigrad.handwritten.recordable import HELPERS, OnTensors, loss_alone, recordable

FUNCTIONS = {
    "filled by steps": """
def f(x):
    h = np.zeros((3, 2))
    s = x[0]
    for t in range(3):
        s = np.tanh(s + x[t])
        h[t] = s
    return h * 2""",
    "two targets of one value": """
def f(x):
    h, all, i = x[0], np.zeros((3, 2)), 0
    for t in range(3):
        all[t] = h = np.tanh(h + x[t])
    all[0] = all[1] = h * x[1]
    return all * h""",
    "read while it is filled": """
def f(x):
    h = np.zeros((4, 2))
    h[-1] = x[0]
    for t in range(3):
        h[t] = np.tanh(h[t - 1] + x[t])
    return h""",
    "parts of a column": """
def f(x):
    u = np.zeros((5, 2))
    u[:3, :] = x
    u[3:] = x[:2] ** 2
    u[0] += x[1]
    return np.tanh(u)""",
    "dicts, tuples and attributes": """
def f(x):
    class Box: pass
    box, hs = Box(), {-1: x[0]}
    box.all = np.empty((2, 3))
    for t in range(3):
        hs[t], other = np.tanh(hs[t - 1] * x[t]), 0
        box.all[:, t] = hs[t]
    return box.all""",
    "gates in a comprehension": """
def f(x):
    a, b = [np.tanh(x[k]) for k in range(2)]
    total = 0
    for name, part in zip("ab", (a, b)):
        total = total + part * part
    return total + sum(p for p in (a, b))""",
    "guards and arrays of tensors": """
def f(x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return np.array([np.log(row + 1e-9) for row in p])""",
    "exponentials of one name in a function and one inside": """
def f(x):
    e = np.exp(x)
    def other(z):
        e = np.exp(2 * z)
        return e / e.sum()
    return e / e.sum(axis=1, keepdims=True) + other(x)""",
    "products from the left": """
def f(x):
    A = np.arange(6.0).reshape(2, 3)
    out = A.dot(x)
    out += 1
    l, r = np.hsplit(out, 2)
    return l * r""",
}


def run(tree, name="f", **given):
    namespace = {"np": OnTensors(np), **HELPERS, **given}
    exec(compile(tree, "recordable", "exec"), namespace)
    return namespace[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rewritten(name):
    tree = ast.parse(FUNCTIONS[name])
    f, original = run(recordable(tree)), run(tree)
    x = np.random.default_rng(0).normal(size=(3, 2))
    np.testing.assert_allclose(f(x.copy()), original(x.copy()), atol=1e-8)
    assert mg.gradcheck(lambda x: (f(x) ** 2).sum(), x).ok


@pytest.mark.parametrize(("values", "line"), [
    ("a + b, a * b", "C_t, h = (a + b, a * b)"), ("a, b", "C = put_(C, t, a,")])
def test_parts_have_names_of_the_user_s(values, line):
    tree = ast.parse(f"def f(a, b, C, hs):\n    for t in range(3):\n        C[t], hs[t] = {values}\n    return C, hs")
    assert line in ast.unparse(recordable(tree))


LOSSES = {
    "a backward loop": """
    d = np.copy(ps[0])
    d[0] -= 1
    for t in reversed(range(n)):
        d = d * 2
    return loss, d, ps""",
    "a loop that empties a list": """
    d = 1
    while ps:
        p = ps.pop()
        t = len(ps)
        if t > 9:
            break
        d = d * p
    return loss, d""",
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_part_that_computes_a_loss(name):
    tree = ast.parse("""
def f(x, n):
    loss, ps = 0, []
    for t in range(n):
        p = np.tanh(x * t)
        ps.append(p)
        loss += ps[-1].sum()
""" + LOSSES[name])
    tree.body[0] = loss_alone(tree.body[0])
    text = ast.unparse(tree)
    assert text.endswith("return loss") and text.count("for") + text.count("while") == 1 and "d =" not in text
    x = np.ones(2)
    assert run(tree)(x, 3) == pytest.approx(2 * (np.tanh(1) + np.tanh(2)))


def test_a_loss_whose_loop_takes_from_a_list():
    tree = ast.parse("""
def f(x):
    loss, waiting = 0, list(x)
    while waiting:
        one = waiting.pop()
        loss = loss + one ** 2
        d = 2 * one
    return loss, d""")
    tree.body[0] = loss_alone(tree.body[0])
    assert "d =" not in ast.unparse(tree) and run(tree)(np.arange(4.0)) == 14
