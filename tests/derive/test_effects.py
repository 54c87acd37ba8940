"""What a function changes outside itself is found, named, and put back."""

import contextvars
import functools
import itertools
import random
import re
from collections import deque
from types import ModuleType

import numpy as np
import pytest

import minigrad as mg
from minigrad.derive.effects import Surroundings, Unrepeatable
from minigrad.derive.trace import Tracer, profiled

OWN = ModuleType("own")
NUMBER = 0


class Slotted:
    __slots__ = ("n",)
    shared = 0

    def __init__(self):
        self.n = 0


class Thing:
    shared, table = 0, {}

    def __init__(self):
        self.n, self.items, self.inner = 0, [1, 2], {"deep": [{}]}


def world():
    """Everything that the functions below change, and what it holds."""
    OWN.n = 0
    Thing.shared, Thing.table = 0, {}
    return {"thing": Thing(), "slotted": Slotted(), "numbers": [3, 1], "table": {"n": 0}, "some": {1},
            "queue": deque([1]), "array": np.zeros(3), "tensor": mg.tensor(np.zeros(3)),
            "rng": np.random.default_rng(0),
            "old": np.random.RandomState(0), "dice": random.Random(0),
            "variable": contextvars.ContextVar("variable", default=0), "function": lambda: None}


def of_a_global(w):
    global NUMBER
    NUMBER += 1


def of_a_default(w, kept=[]):  # noqa: B006
    kept.append(1)


def through_helpers(w):
    def first(thing):
        second(thing.inner)

    def second(inner):
        inner["deep"][0]["n"] = 1
    first(w["thing"])


CHANGES = {
    "an attribute": (lambda w: setattr(w["thing"], "n", 1), "thing.*n"),
    "a new attribute": (lambda w: setattr(w["thing"], "more", 1), "thing.*more"),
    "an attribute that goes": (lambda w: delattr(w["thing"], "n"), "thing.*n"),
    "a list in an attribute": (lambda w: w["thing"].items.append(3), "items"),
    "a slot": (lambda w: setattr(w["slotted"], "n", w["slotted"].n + 1), "slotted.*n"),
    "the class": (lambda w: setattr(type(w["thing"]), "shared", w["thing"].shared + 1), "shared"),
    "a dict of the class": (lambda w: w["thing"].table.update(n=1), "table"),
    "a list": (lambda w: w["numbers"].sort(), "numbers"),
    "a dict": (lambda w: w["table"].__setitem__("n", 1), r"table'\]\['n'\]"),
    "a set": (lambda w: w["some"].add(2), "some"), "a deque": (lambda w: w["queue"].popleft(), "queue"),
    "an array": (lambda w: w["array"].__setitem__(0, 1.0), "array"),
    "a tensor": (lambda w: setattr(w["tensor"], "data", np.ones(3)), "tensor"),
    "the data of a tensor": (lambda w: w["tensor"].data.fill(1.0), "tensor"),
    "a generator": (lambda w: w["rng"].normal(), "random numbers of .*rng"),
    "a RandomState": (lambda w: w["old"].normal(), "random numbers of .*old"),
    "a Random": (lambda w: w["dice"].random(), "random numbers of .*dice"),
    "NumPy's random numbers": (lambda w: np.random.normal(), "random numbers of np.random"),
    "Python's random numbers": (lambda w: random.random(), "random numbers of random"),
    "a variable of the context": (lambda w: w["variable"].set(1), "variable"),
    "a module": (lambda w: setattr(OWN, "n", OWN.n + 1), "OWN.n"), "a global": (of_a_global, "NUMBER"),
    "a default": (of_a_default, "of_a_default"), "deep inside, by helpers": (through_helpers, "deep"),
    "an attribute of a function": (lambda w: setattr(w["function"], "calls", 1), "function"),
    "through a partial": (functools.partial(lambda kept, w: kept.append(1), []), "partial|kept")}


def content(w):
    """The world as text."""
    return repr([vars(w["thing"]), w["slotted"].n, Thing.shared, Thing.table, w["numbers"], w["table"], w["some"],
                 w["queue"], w["array"], w["tensor"], w["rng"].bit_generator.state, w["old"].get_state(),
                 w["dice"].getstate(), w["variable"].get(), OWN.n, NUMBER, of_a_default.__defaults__,
                 vars(w["function"]), np.random.get_state(), random.getstate()])


def called(function, w):
    """Call it as a trace does; the name of what it changed."""
    around = Surroundings()
    tracer = Tracer(around=around)
    around.note_function(function, getattr(function, "__name__", "partial"), ())
    with profiled(tracer.profile):
        caller(function, w, around)
    return around.restore()


def caller(function, w, around):
    around.note(w, "w", ())
    function(w)


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_named_and_put_back(what):

    function, name = CHANGES[what]
    w = world()
    before = content(w)
    changed = called(function, w)
    assert changed is not None and re.search(name, changed)
    assert content(w) == before


READERS = {"reads": lambda w: (w["thing"].n, w["table"]["n"], w["numbers"][0], w["array"][0], w["tensor"].data[0]),
           "makes a list": lambda w: [[], {}][0].append(1),
           "makes numbers": lambda w: np.random.default_rng(0).normal(),
           "makes a thing": lambda w: setattr(Thing(), "n", 5), "computes": lambda w: w["array"] * 2.0 + w["tensor"]}


@pytest.mark.parametrize("what", READERS)
def test_a_function_that_only_reads_or_makes_its_own_changes_nothing(what):
    w = world()
    before = content(w)
    assert called(READERS[what], w) is None
    assert content(w) == before


def test_an_iterator_cannot_be_put_back():
    count = itertools.count()

    def draw(w):
        return next(count)
    with pytest.raises(Unrepeatable, match="elements from count, an iterator"):
        called(draw, world())
    assert next(count) == 0
