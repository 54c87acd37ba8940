"""Advice for NumPy functions without an op: it names existing functions and gives NumPy's result."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minigrad as mg
from minigrad.engine.advice import INSTEAD, SPACES, dotted, missing
from minigrad.engine.operators import NUMPY

x = np.array([[0.5, 0.2, 0.9], [0.1, 0.7, 0.4], [0.3, 0.6, 0.8]])
a, b, condition = x, x[::-1] + 0.25, x > 0.4
CALLS = {  # calls of NumPy's function if its arguments are not x, or a and b
    "np.extract": lambda f: f(condition, x), "np.compress": lambda f: f(condition.ravel(), x),
    "np.copyto": lambda f: written(f, condition), "np.putmask": lambda f: written(f, condition),
    "np.linalg.multi_dot": lambda f: f((a, b)),
    **{f"np.{name}": lambda f: f(x, 3) for name in ("vsplit", "hsplit", "array_split")},
}


def written(f, condition):
    out = a.copy()
    f(out, *((b, "same_kind", condition) if f is np.copyto else (condition, b)))
    return out


def function(name):
    """The function with this dotted name: np.linalg.norm, np.add.reduce."""
    found = np
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


def numpys():
    """Every public NumPy function that dispatches on its arguments."""
    return {f"{space}.{name}": f for space, module in SPACES.items() for name, f in vars(module).items()
            if not name.startswith("_") and (isinstance(f, np.ufunc) or hasattr(f, "_implementation"))}


@pytest.mark.parametrize("name", INSTEAD)
def test_advice_means_the_same(name):
    text, vector, _ = INSTEAD[name].partition(" for ")  # "for a vector x", "for vectors a and b"
    given = {"mg": mg, "np": np, "condition": condition, "n": 3}
    given |= {key: mg.tensor(value[0] if vector else value, requires_grad=True)
              for key, value in (("x", x), ("a", a), ("b", b))}
    f = function(name)
    assert f not in NUMPY, f"{name} has an op"
    if name == "np.compress":
        given["x"], given["condition"] = given["x"].reshape(9), condition.ravel()
    ours = eval(text, given)
    plain = {key: value.detach().numpy() for key, value in given.items() if isinstance(value, mg.Tensor)}
    if name in CALLS:
        theirs = CALLS[name](f)
    else:
        theirs = f(plain["x"]) if re.search(r"\bx\b", text) else f(plain["a"], plain["b"])
    for our, their in zip(ours, theirs, strict=True) if isinstance(ours, (list, tuple)) else [(ours, theirs)]:
        np.testing.assert_allclose(our.data if isinstance(our, mg.Tensor) else our, their, rtol=1e-12)


def test_the_message_names_what_exists():
    functions = numpys()
    lacking = {name: f for name, f in functions.items() if f not in NUMPY}
    assert len(lacking) > 100 and {"np.linalg.svd", "np.fft.fft", "np.tan"} <= set(lacking)
    for name, f in lacking.items():
        with pytest.raises(TypeError, match="has no op") as problem:
            mg.tensor(1.0).__array_function__(f, (), (), {})
        message = str(problem.value)
        assert function(message.split()[0]) is f, name
        for found in re.findall(r"np(?:\.[a-z_0-9]+)+", message):
            assert function(found) is not None
        for found in re.findall(r"mg\.(\w+)", message):
            assert hasattr(mg, found)


@pytest.mark.parametrize("call, message", [
    (lambda t: np.linalg.svd(t), r"^np\.linalg\.svd has no op and cannot be recorded: declare it with @mg\.op"),
    (lambda t: np.fft.fft(t), r"^np\.fft\.fft has"), (lambda t: np.tan(t), r"np\.tan .*: write mg\.sin\(x\) / mg\.cos"),
    (lambda t: np.add.at(np.zeros(2), 0, t), r"^np\.add\.at has no op"),
    (lambda t: np.add.reduce(t), r"np\.add\.reduce has no op.*mg\.sum\(x, axis=0\)"),
    (lambda t: np.frompyfunc(abs, 1, 1)(t), r"^abs \(vectorized\) has no op"),
])
def test_a_function_is_called_by_its_full_name(call, message):
    with pytest.raises(TypeError, match=message):
        call(mg.tensor(np.eye(2), requires_grad=True))


def test_names_that_are_not_numpys_are_left_as_they_are():
    def f():
        """A function of another package."""
    assert dotted(f) == "f" and missing("f").startswith("f has no op")
    assert dotted(np.linalg.outer) == "np.linalg.outer" and dotted(np.outer) == "np.outer"
