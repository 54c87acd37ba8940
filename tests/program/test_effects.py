"""Side effects of a function are detected, named, and undone."""

import array
import contextvars
import functools
import itertools
import random
import re
import weakref
from collections import deque
from types import ModuleType

import numpy as np
import pytest

import minigrad as mg
from minigrad.program.effects import Surroundings, Unrepeatable
from minigrad.program.trace import Tracer, profiled

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


class Kind(type):
    shared = 0


class Made(metaclass=Kind):
    pass


def chain(n):
    return {"next": chain(n - 1)} if n else {}


def deepest(node):
    while "next" in node:
        node = node["next"]
    return node


def world():
    """Make everything that the functions below change."""
    OWN.n = 0
    Thing.shared, Thing.table, Kind.shared = 0, {}, 0
    stack, target = [1, 2], Thing()
    return {"turned": {"a": 1, "b": 2}, "plain": array.array("d", [0.0]), "view": memoryview(bytearray(2)),
            "large": np.zeros(20_000), "objects": np.array(["a", None], dtype=object), "stack": stack,
            "pop": stack.pop, "draw": np.random.default_rng(1).normal, "bits": np.random.PCG64(0),
            "target": target, "weak": weakref.ref(target), "made": Made, "chain": chain(12),
            "long": [[] for _ in range(1500)],
            "thing": Thing(), "slotted": Slotted(), "numbers": [3, 1], "table": {"n": 0}, "some": {1},
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
    "a deleted attribute": (lambda w: delattr(w["thing"], "n"), "thing.*n"),
    "a list in an attribute": (lambda w: w["thing"].items.append(3), "items"),
    "a slot": (lambda w: setattr(w["slotted"], "n", w["slotted"].n + 1), "slotted.*n"),
    "the class": (lambda w: setattr(type(w["thing"]), "shared", w["thing"].shared + 1), "shared"),
    "a dict of the class": (lambda w: w["thing"].table.update(n=1), "table"),
    "a list": (lambda w: w["numbers"].sort(), "numbers"),
    "a dict": (lambda w: w["table"].__setitem__("n", 1), r"table'\]\['n'\]"),
    "the order of a dict": (lambda w: w["turned"].update(a=w["turned"].pop("a")), "the order of .*turned"),
    "an element of array.array": (lambda w: w["plain"].__setitem__(0, 1.0), "plain"),
    "bytes through a memoryview": (lambda w: w["view"].__setitem__(0, 1), "view"),
    "a large array": (lambda w: w["large"].__setitem__(0, 1.0), "large"),
    "objects in an array": (lambda w: w["objects"].__setitem__(0, "b"), "objects"),
    "a list by a bound method": (lambda w: w["pop"](), "pop|stack"),
    "a generator by a bound method": (lambda w: w["draw"](), "random numbers of"),
    "a bit generator": (lambda w: w["bits"].random_raw(), "random numbers of .*bits"),
    "the referent of a weak reference": (lambda w: setattr(w["weak"](), "n", 5), "weak|target"),
    "a slot by a computed name": (lambda w: setattr(w["slotted"], "n"[:], 5), "slotted.*n"),
    "an attribute of a metaclass": (lambda w: setattr(Kind, "shared", w["made"].shared + 1), "shared"),
    "a deeply nested dict": (lambda w: deepest(w["chain"]).update(n=1), r"\['n'\]"),
    "an item of a long list": (lambda w: w["long"][7].append(1), "long"),
    "a set": (lambda w: w["some"].add(2), "some"), "a deque": (lambda w: w["queue"].popleft(), "queue"),
    "an array": (lambda w: w["array"].__setitem__(0, 1.0), "array"),
    "a tensor": (lambda w: setattr(w["tensor"], "data", np.ones(3)), "tensor"),
    "the data of a tensor": (lambda w: w["tensor"].data.fill(1.0), "tensor"),
    "a generator": (lambda w: w["rng"].normal(), "random numbers of .*rng"),
    "a RandomState": (lambda w: w["old"].normal(), "random numbers of .*old"),
    "a Random": (lambda w: w["dice"].random(), "random numbers of .*dice"),
    "NumPy's random numbers": (lambda w: np.random.normal(), "random numbers of np.random"),
    "Python's random numbers": (lambda w: random.random(), "random numbers of random"),
    "a context variable": (lambda w: w["variable"].set(1), "variable"),
    "a module": (lambda w: setattr(OWN, "n", OWN.n + 1), "OWN.n"), "a global": (of_a_global, "NUMBER"),
    "a default": (of_a_default, "of_a_default"), "a nested dict by helpers": (through_helpers, "deep"),
    "an attribute of a function": (lambda w: setattr(w["function"], "calls", 1), "function"),
    "through a partial": (functools.partial(lambda kept, w: kept.append(1), []), "partial|kept")}


def content(w):
    """Return the world as text."""
    return repr([w["turned"], w["plain"], bytes(w["view"]), w["large"], w["objects"], w["stack"], w["target"].n,
                 w["draw"].__self__.bit_generator.state, w["bits"].state, Kind.shared, w["chain"], w["long"],
                 vars(w["thing"]), w["slotted"].n, Thing.shared, Thing.table, w["numbers"], w["table"], w["some"],
                 w["queue"], w["array"], w["tensor"], w["rng"].bit_generator.state, w["old"].get_state(),
                 w["dice"].getstate(), w["variable"].get(), OWN.n, NUMBER, of_a_default.__defaults__,
                 vars(w["function"]), np.random.get_state(), random.getstate()])


def called(function, w):
    """Call the function as a trace does; return the name of what it changed."""
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
def test_a_side_effect_is_named_and_undone(what):

    function, name = CHANGES[what]
    w = world()
    before = content(w)
    changed = called(function, w)
    assert changed is not None and re.search(name, changed)
    assert content(w) == before


READERS = {"reads": lambda w: (w["thing"].n, w["table"]["n"], w["numbers"][0], w["array"][0], w["tensor"].data[0]),
           "changes its own list": lambda w: [[], {}][0].append(1),
           "draws from its own generator": lambda w: np.random.default_rng(0).normal(),
           "changes its own object": lambda w: setattr(Thing(), "n", 5),
           "computes": lambda w: w["array"] * 2.0 + w["tensor"]}


@pytest.mark.parametrize("what", READERS)
def test_reading_and_changing_own_objects_are_not_side_effects(what):
    w = world()
    before = content(w)
    assert called(READERS[what], w) is None
    assert content(w) == before


VARIABLE, SEEDS = contextvars.ContextVar("VARIABLE"), np.random.SeedSequence(0)
NEXT = itertools.count().__next__


@pytest.mark.parametrize("draw, what", [
    (lambda w: NEXT(), "elements from NEXT"), (lambda w: VARIABLE.set(1), "set VARIABLE"),
    (lambda w: SEEDS.spawn(1), "spawn"), (lambda w: w["rng"].spawn(1), "spawn generators")],
    ids=["iterator", "context variable", "seed sequence", "generator"])
def test_a_function_whose_effect_cannot_be_undone_is_refused(draw, what):
    with pytest.raises(Unrepeatable, match=what):
        called(draw, world())


def test_an_iterator_cannot_be_restored():
    count = itertools.count()

    def draw(w):
        return next(count)
    with pytest.raises(Unrepeatable, match="elements from count, an iterator"):
        called(draw, world())
    assert next(count) == 0
