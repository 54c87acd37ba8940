"""Purity read off the code of a cell."""

import random
import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad.engine.ops import tanh
from minigrad.program.purity import only_computes

W, LOG, DRAWS = mg.tensor(np.eye(3)), [], np.random.default_rng(0)


class Plain:
    def __init__(self):
        self.W, self.count, self.items = W, 0, []

    def __call__(self, h, x):
        h = mg.tanh(self.W @ h + x)
        return h, np.sum(h.T, axis=0)

    def counts(self, h, x):
        self.count += 1
        return h, x

    def gated(self, h, x):
        return self.gate(self.W, h) * squashed(h), x

    def gate(self, w, h):
        return mg.sigmoid(w @ h)

    def own(self, h, x):
        return self.noise(h), x

    def recursive(self, h, x):
        return self.recursive(h, x)

    def asks(self, h, x):
        return self.drawn * h, x

    def noise(self, h):
        return DRAWS.normal() * h

    @property
    def drawn(self):
        return DRAWS.normal()


class Slots:
    __slots__ = ("W",)

    def __call__(self, h, x):
        return self.W @ h, x


class Dynamic(Plain):
    def __getattr__(self, name):
        return DRAWS.normal()


def squashed(h):
    return mg.tanh(h)


def closing(weight, module, function):
    def cell(h, x):
        h = module.tanh(weight.T @ function(h) + W.T @ x)
        return h, function(x).sum(axis=0)
    return cell


def times(weight, function):
    return lambda h, x: (weight @ function(h), x)


def twice_removed(h):
    return helper(h)


def helper(h):
    return h * DRAWS.normal()


def by_loop(h, x):
    for w in LOG:
        h = w @ h
    return h, x


def in_place(h, x):
    kept = LOG
    kept += [1]
    return h, x


COMPUTES = {
    "callable object": Plain(), "object with slots": Slots(), "global op": lambda h, x: (tanh(W @ h + x), h.sum()),
    "functions made of ops": lambda h, x: (h - mg.mean(h, axis=0), np.clip(x, 0.0, 1.0)),
    "nested result": lambda h, x: (W[0] * h, {"a": (x, h.T)}), "method": Plain().gated,
    "function": lambda h, x: (squashed(h), x), "closed-over op": closing(W, mg, mg.exp),
    "closed-over function": closing(np.eye(3), np, squashed), "closed-over op after a weight": times(W, mg.exp)}
MORE = {
    "attribute assigned": Plain().counts, "method that draws": Plain().own, "property that draws": Plain().asks,
    "recursion": Plain().recursive, "function two calls away": lambda h, x: (twice_removed(h), x),
    "closed-over module": closing(W, random, mg.exp), "closed-over object": closing(Plain(), mg, mg.exp),
    "closed-over function": closing(W, mg, twice_removed), "closed-over builtin": closing(W, mg, print),
    "closed-over method": (lambda f: lambda h, x: (f(h), x))(DRAWS.permutation),
    "closed-over function after a weight": times(W, twice_removed),
    "closed-over function returned": (lambda f: lambda h, x: f(h))(helper), "__getattr__": Dynamic(),
    "function that draws": lambda h, x: (helper(h), x), "loop over a list": by_loop, "in place": in_place,
    "random": lambda h, x: (h * random.random(), x), "np.random": lambda h, x: (h * np.random.normal(), x),
    "append": lambda h, x: (h, LOG.append(x)), "generator": lambda h, x: (h * DRAWS.normal(), x),
    "function as an option": lambda h, x: (mg.pad(h, 1, helper), x),
    "out=": lambda h, x: (np.add(h, x, out=LOG), x), "ufunc": np.add, "builtin": print}


# before Python 3.11 the instructions do not show which globals are called, and such code is not recognised
RECOGNISED = pytest.mark.skipif(sys.version_info < (3, 11), reason="recognised from Python 3.11 on")


@RECOGNISED
@pytest.mark.parametrize("cell", COMPUTES.values(), ids=COMPUTES)
def test_ops_on_attributes_and_weights_only_compute(cell):
    assert only_computes(cell)


@pytest.mark.parametrize("cell", MORE.values(), ids=MORE)
def test_a_cell_that_may_store_or_draw_does_not_only_compute(cell):
    assert not only_computes(cell)


@RECOGNISED
def test_a_rebound_name_is_read_again(monkeypatch):
    assert only_computes(COMPUTES["global op"])
    monkeypatch.setitem(globals(), "tanh", helper)
    assert not only_computes(COMPUTES["global op"])
    assert only_computes(COMPUTES["method"])
    monkeypatch.setattr(Plain, "gate", Plain.noise)
    assert not only_computes(COMPUTES["method"])
