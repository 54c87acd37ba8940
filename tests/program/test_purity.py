"""Whether the code of a cell shows that it only computes."""

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


COMPUTES = [Plain(), Slots(), lambda h, x: (tanh(W @ h + x), h.sum()), lambda h, x: (W[0] * h, {"a": (x, h.T)}),
            Plain().gated, lambda h, x: (squashed(h), x), closing(W, mg, mg.exp), closing(np.eye(3), np, squashed)]
MORE = [Plain().counts, Plain().own, Plain().asks, Plain().recursive, lambda h, x: (twice_removed(h), x),
        closing(W, random, mg.exp), closing(Plain(), mg, mg.exp), closing(W, mg, twice_removed), closing(W, mg, print),
        (lambda f: lambda h, x: (f(h), x))(DRAWS.permutation), (lambda f: lambda h, x: f(h))(helper),
        Dynamic(), lambda h, x: (helper(h), x), by_loop, in_place,
        lambda h, x: (h * random.random(), x), lambda h, x: (h * np.random.normal(), x),
        lambda h, x: (h, LOG.append(x)), lambda h, x: (h * DRAWS.normal(), x),
        lambda h, x: (np.add(h, x, out=LOG), x), np.add, print]


def names(cells):
    return [str(i) for i in range(len(cells))]


# before Python 3.11 the instructions do not show which globals are called: such code gets the longer look
SEEN = pytest.mark.skipif(sys.version_info < (3, 11), reason="seen from Python 3.11 on")


@SEEN
@pytest.mark.parametrize("cell", COMPUTES, ids=names(COMPUTES))
def test_ops_on_attributes_and_weights_only_compute(cell):
    assert only_computes(cell)


@pytest.mark.parametrize("cell", MORE, ids=names(MORE))
def test_what_stores_draws_or_calls_what_may_does_more(cell):
    assert not only_computes(cell)


@SEEN
def test_a_name_that_now_means_something_else_is_read_anew(monkeypatch):
    assert only_computes(COMPUTES[2])
    monkeypatch.setitem(globals(), "tanh", helper)
    assert not only_computes(COMPUTES[2])
    assert only_computes(COMPUTES[4])
    monkeypatch.setattr(Plain, "gate", Plain.noise)
    assert not only_computes(COMPUTES[4])
