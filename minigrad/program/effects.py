"""Side effects of a traced function: save the objects that it can reach before the call, and undo their changes.

A trace runs a function once instead of many times. A counter that it increments, a list that it appends to or a random
generator that it draws from would then be a few steps off, so a function with such side effects must not be traced.
"""

from __future__ import annotations

import array
import pickle
import random
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from types import BuiltinFunctionType, CellType, FrameType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from minigrad.engine.arrays import ndarray
from minigrad.engine.op import Op
from minigrad.engine.tensor import Tensor, node_of

DEPTH = 20  # maximum nesting of containers and attributes that is followed
ITEMS = 10_000  # maximum length of a container whose items are followed
THINGS = 50_000  # maximum number of objects that are followed
BYTES = 1 << 16  # maximum size of an array whose values are compared in a trace without values

IMMUTABLE = (int, float, complex, str, bytes, type(None), type(Ellipsis), slice, range, np.generic, np.dtype, np.ufunc,
             Op)
CYTHON = type(np.random.default_rng(0).random)  # a method of NumPy's generators
WRAPPER = type([].__len__)
CACHED = type(lru_cache(len))
# The random states that all threads share, as `named` calls them
SHARED = "the random numbers of random", "the random numbers of np.random"
RANDOM = random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator
UNSET = object()  # marks a variable without a value


class Unrepeatable(Exception):
    """A function can reach something that cannot be restored, such as an iterator."""


class Surroundings:
    """Snapshot of everything that a function can reach by the names in its code.

    `note_function` takes it before the call, and `note_frame` for each function that is called inside; `restore`
    undoes the changes. Objects that the function makes itself do not count. Objects reached otherwise (getattr of a
    computed name, C code) are missed.
    """

    def __init__(self, largest: float = float("inf")) -> None:
        self.largest = largest  # maximum bytes of an array whose values are compared
        # key → (name, content before, function that reads it, function that restores it)
        self.kept: dict[Any, tuple[str, Any, Callable[[], Any], Callable[[Any], Any]]] = {}
        self.seen: set[Any] = set()  # ids of things, and of (thing, names) pairs that were followed
        self.alive: list[Any] = []  # keeps these things, since Python reuses the id of a freed one

    def restore(self) -> str | None:
        """Undo all changes. Return the name of the first changed thing, of SHARED ones only if nothing else changed."""
        changed = []
        for name, before, read, write in self.kept.values():
            now = read()
            if not same(now, before):
                changed.append(named(name, now, before))
                write(before)
        return min(changed, key=SHARED.__contains__, default=None)

    def note_function(self, function: Any, name: str, names: Sequence[str]) -> None:
        """Note the objects that a function can reach before it is called, and the random states of Python and NumPy.

        A trace without values (`largest` is small) notes these only if a function names them: reading takes 50 µs."""
        if self.largest > BYTES:
            self.note_random()
        self.note(function, name, names)

    def note_random(self) -> None:
        self.note(random._inst, "random", ())
        self.note(np.random.mtrand._rand, "np.random", ())

    def note_surface(self, function: Any) -> None:
        """Note only the attributes of a callable or of its owner, or the variables that it closes over."""
        owner = function.__self__ if isinstance(function, MethodType) else function
        if isinstance(owner, FunctionType):
            self.variables(owner)
        elif hasattr(owner, "__dict__"):
            self.all_attributes(owner, "self")

    def note_frame(self, frame: FrameType) -> None:
        """At the call of a function, note the globals that it names, and the parts of known things that it names."""
        names, outside = frame.f_code.co_names, frame.f_globals
        for name, value in list(frame.f_locals.items()):
            if id(value) in self.seen:
                self.note(value, name, names)
        if "globals" in names:
            self.keep(id(outside), "globals()", partial(dict, outside), partial(refill, outside))
        modules = [outside.get(name) for name in names if isinstance(outside.get(name), ModuleType)]
        if random in modules or np.random in modules or (np in modules and "random" in names):
            self.note_random()
        for name in names:
            if name in sys.modules and name not in outside:  # it may be imported here
                self.note(sys.modules[name], name, names)
            if name in outside:
                self.keep((id(outside), name), name, partial(outside.get, name, UNSET),
                          partial(outside.__setitem__, name))
                self.note(outside[name], name, names)

    def note(self, thing: Any, name: str, names: Sequence[str], depth: int = 0) -> None:
        """Note the content of a thing, and of those of its parts that the code can name."""
        key = id(thing), id(names)
        if isinstance(thing, IMMUTABLE) or key in self.seen or depth > DEPTH or len(self.seen) > THINGS:
            return
        self.seen |= {key, id(thing)}
        self.alive += thing, names
        for part, called in self.parts(thing, name, names):
            self.note(part, called, names, depth + 1)

    def keep(self, key: Any, name: str, read: Callable[[], Any], write: Callable[[Any], Any]) -> None:
        if key not in self.kept:
            self.kept[key] = name, read(), read, write

    def parts(self, thing: Any, name: str, names: Sequence[str]) -> Iterator[tuple[Any, str]]:
        """Note the content of one thing; yield (part, name of the part)."""
        keep = partial(self.keep, id(thing), name)
        if isinstance(thing, Tensor):
            if thing.__class__ is Tensor:  # not a symbol, which has no values
                keep(lambda: (thing._array, getattr(node_of(thing), "_version", 0)), lambda was: set_data(thing, *was))
                yield thing._array, name
        elif isinstance(thing, ndarray):
            if thing.nbytes <= self.largest and thing.flags.writeable:
                keep(lambda: np.array(thing), lambda was: np.copyto(thing, was))
        elif isinstance(thing, memoryview):
            yield thing.obj, name
        elif isinstance(thing, weakref.ref):
            yield thing(), name
        elif isinstance(thing, (list, array.array, bytearray)):
            keep(lambda: thing[:], lambda was: thing.__setitem__(slice(None), was))
            yield from ((item, name) for item in short(thing) if isinstance(thing, list))
        elif isinstance(thing, (deque, set)):
            keep(thing.copy, partial(refill, thing))
            yield from ((item, name) for item in short(thing) if isinstance(thing, deque))
        elif isinstance(thing, dict):
            keep(lambda: dict(thing), partial(refill, thing))
            yield from ((item, f"{name}[{key!r}]") for key, item in short(thing.items()))
        elif isinstance(thing, tuple):
            yield from ((item, name) for item in short(thing))
        elif isinstance(thing, random.SystemRandom):
            pass  # it has no state
        elif isinstance(thing, RANDOM):
            read, write = random_state(thing)
            self.keep(id(thing), f"the random numbers of {name}", read, write)
            if "spawn" in names:
                raise Unrepeatable(f"it can spawn generators from {name}")
        elif isinstance(thing, np.random.SeedSequence):
            if "spawn" in names:
                raise Unrepeatable(f"it can spawn seeds from {name}")
        elif isinstance(thing, ContextVar):
            if (value := or_unset(thing.get)) is not UNSET:
                keep(thing.get, thing.set)
                yield value, name
            elif "set" in names:
                raise Unrepeatable(f"it can set {name}, a context variable without a value")
        elif isinstance(thing, FunctionType):
            if not is_library(thing.__module__):
                keep(lambda: dict(vars(thing)), partial(refill, vars(thing)))
                yield from self.variables(thing)
                yield from ((defaults, name) for defaults in (thing.__defaults__, thing.__kwdefaults__))
        elif isinstance(thing, MethodType):
            yield from ((thing.__self__, "self"), (thing.__func__, name))
        elif isinstance(thing, (BuiltinFunctionType, WRAPPER, CYTHON)):
            owner = getattr(thing, "__self__", None)  # pop of a list, __next__ of an iterator, normal of a generator
            if not isinstance(owner, (ModuleType, type)):
                yield owner, name
        elif isinstance(thing, partial):
            yield from ((part, name) for part in (thing.func, thing.args, thing.keywords))
        elif isinstance(thing, (type, ModuleType)):
            held = vars(thing)
            if not is_library(thing.__module__ if isinstance(thing, type) else thing.__name__):
                for attribute in [n for n in names if n in held]:
                    self.keep((id(thing), attribute), f"{name}.{attribute}", partial(held.get, attribute, UNSET),
                              partial(setattr, thing, attribute))
                    yield held[attribute], f"{name}.{attribute}"
                if isinstance(thing, type):
                    yield from ((kind, kind.__name__) for kind in (type(thing), *thing.__bases__))
        elif isinstance(thing, CACHED):
            yield thing.__wrapped__, name
        elif hasattr(type(thing), "__next__"):
            raise Unrepeatable(f"it can take elements from {name}, an iterator")
        else:
            yield from self.attributes(thing, name, names)

    def attributes(self, thing: Any, name: str, names: Sequence[str]) -> Iterator[tuple[Any, str]]:
        """Note all attributes of an object; yield those that the code names, and its classes."""
        if hasattr(thing, "__dict__"):
            held = self.all_attributes(thing, name)
            yield from ((held[n], f"{name}.{n}") for n in names if n in held)
        for kind in type(thing).__mro__[:-1]:
            for slot, place in kind.__dict__.items() if "__slots__" in kind.__dict__ else ():
                if isinstance(place, MemberDescriptorType):
                    read = partial(or_unset, place.__get__, thing)
                    self.keep((id(thing), slot), f"{name}.{slot}", read, lambda was, place=place: (
                        place.__delete__(thing) if was is UNSET else place.__set__(thing, was)))
                    if slot in names:
                        yield read(), f"{name}.{slot}"
            yield kind, kind.__name__

    def all_attributes(self, thing: Any, name: str) -> dict[str, Any]:
        held = thing.__dict__
        self.keep((id(thing), "__dict__"), name, lambda: Attributes(held), partial(refill, held))
        return held

    def variables(self, function: FunctionType) -> list[tuple[Any, str]]:
        """Note the variables that a function closes over; return [(value, name)]."""
        cells = list(zip(function.__closure__ or (), function.__code__.co_freevars))
        for cell, name in cells:
            self.keep(id(cell), name, partial(content, cell), partial(set_content, cell))
        return [(content(cell), name) for cell, name in cells]


class Attributes(dict):
    """The attributes of an object."""


def named(name: str, now: Any, before: Any) -> str:
    """Return the name of the changed part of a thing."""
    if isinstance(before, dict):
        key = next((key for key in [*now, *before] if not alike(now.get(key, UNSET), before.get(key, UNSET))), None)
        if key is None:
            return f"the order of {name}"
        return f"{name}.{key}" if isinstance(before, Attributes) else f"{name}[{key!r}]"
    return name


def same(now: Any, before: Any) -> bool:
    """Whether a thing contains the same objects as before; arrays are compared by value."""
    if isinstance(before, (ndarray, array.array)) and isinstance(now, type(before)):
        return now is before or now.tobytes() == before.tobytes()
    if isinstance(before, (list, tuple, deque, bytearray)) and isinstance(now, type(before)):
        return now is before or (len(now) == len(before) and all(map(alike, now, before)))
    if isinstance(now, dict) and isinstance(before, dict):
        return list(now) == list(before) and all(alike(now[key], before[key]) for key in now)
    return alike(now, before) or (isinstance(now, set) and now == before)


def alike(a: Any, b: Any) -> bool:
    """Whether two things are one object, or equal numbers or strings, which Python may copy."""
    return a is b or (a.__class__ is b.__class__ and isinstance(a, (int, float, str, bytes)) and a == b)


def refill(held: dict | set | deque, was: Any) -> None:
    held.clear()
    (held.extend if isinstance(held, deque) else held.update)(was)


def or_unset(read: Callable, *arguments: Any) -> Any:
    """Return what `read` returns, or UNSET for a variable without a value."""
    try:
        return read(*arguments)
    except (AttributeError, LookupError, ValueError):
        return UNSET


def short(items: Any) -> Any:
    return list(items) if len(items) <= ITEMS else ()


def random_state(source: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Return the functions that read the state of a random generator, as bytes, and that set it."""
    if isinstance(source, random.Random):
        read, write = source.getstate, source.setstate
    elif isinstance(source, np.random.RandomState):
        read, write = partial(source.get_state, legacy=False), source.set_state
    else:
        bits = getattr(source, "bit_generator", source)
        read, write = lambda: bits.state, partial(setattr, bits, "state")
    return lambda: pickle.dumps(read()), lambda was: write(pickle.loads(was))


def content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return UNSET


def set_content(cell: CellType, value: Any) -> None:
    if value is UNSET:
        del cell.cell_contents
    else:
        cell.cell_contents = value


def set_data(tensor: Tensor, data: ndarray, version: int) -> None:
    tensor._array, node_of(tensor)._version = data, version


def is_library(module: Any) -> bool:
    """Whether a module belongs to minigrad, NumPy or Python's builtins, whose functions keep no count of calls."""
    return (module if isinstance(module, str) else "builtins").partition(".")[0] in ("minigrad", "numpy", "builtins")
