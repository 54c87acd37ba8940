"""What a traced function changes outside itself: noted before it can, found afterwards, and put back.

A trace runs a function once, in the place of many runs. A counter that it raises, an element that it appends or a
random number that it draws would then be a few steps off; a function that changes such a thing must not be traced.
"""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from types import BuiltinFunctionType, CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from minigrad.tensor import Op, Tensor, ndarray

DEPTH = 6  # levels of containers and attributes that are followed
ITEMS = 1000  # length of a container up to which its items are followed
BYTES = 1 << 16  # size of an array up to which its values are compared

IMMUTABLE = (int, float, complex, str, bytes, type(None), type(Ellipsis), slice, range, np.generic, np.dtype, np.ufunc,
             BuiltinFunctionType, Op)
UNSET = object()  # the value of a variable that has none


class Unrepeatable(Exception):
    """A function can reach something that no one can put back, such as an iterator."""


class Surroundings:
    """Everything that a function can reach by the names in its code, as it was before the call.

    `note_function` and, as functions are called by it, `note_frame` remember; `restore` puts back what has changed.
    What a function makes itself does not count. What it reaches otherwise (getattr of a computed name, C code) is not
    seen.
    """

    def __init__(self) -> None:
        # name, content before, how it is read and how it is put back
        self.kept: dict[Any, tuple[str, Any, Callable[[], Any], Callable[[Any], Any]]] = {}
        self.seen: set[Any] = set()  # ids of things, and of (thing, names) pairs that were followed
        self.alive: list[Any] = []  # so that no id is used twice

    def restore(self) -> str | None:
        """Put back what has changed. Returns the name of the first such thing, or None."""
        changed = []
        for name, before, read, write in self.kept.values():
            now = read()
            if not same(now, before):
                changed.append(named(name, now, before))
                write(before)
        return changed[0] if changed else None

    def note_function(self, function: Any, name: str, names: Sequence[str]) -> None:
        """Remember what a function can reach before it is called, and Python's and NumPy's own random numbers."""
        self.note(random._inst, "random", ())
        self.note(np.random.mtrand._rand, "np.random", ())
        self.note(function, name, names)

    def note_surface(self, function: Any) -> None:
        """Remember only the attributes of a callable or of its owner, or the variables that it closes over."""
        owner = getattr(function, "__self__", function)
        if isinstance(owner, FunctionType):
            self.variables(owner)
        elif hasattr(owner, "__dict__"):
            self.all_attributes(owner, "self")

    def note_frame(self, frame: FrameType) -> None:
        """As a function is called: remember the globals that it names, and what it names of things seen before."""
        names, outside = frame.f_code.co_names, frame.f_globals
        for name, value in list(frame.f_locals.items()):
            if id(value) in self.seen:
                self.note(value, name, names)
        for name in names:
            if name in outside:
                self.keep((id(outside), name), name, partial(outside.get, name, UNSET),
                          partial(outside.__setitem__, name))
                self.note(outside[name], name, names)

    def note(self, thing: Any, name: str, names: Sequence[str], depth: int = 0) -> None:
        """Remember what a thing holds, and what those parts hold that the code can name."""
        key = id(thing), id(names)
        if isinstance(thing, IMMUTABLE) or key in self.seen or depth > DEPTH:
            return
        self.seen |= {key, id(thing)}
        self.alive += thing, names
        for part, called in self.parts(thing, name, names):
            self.note(part, called, names, depth + 1)

    def keep(self, key: Any, name: str, read: Callable[[], Any], write: Callable[[Any], Any]) -> None:
        if key not in self.kept:
            self.kept[key] = name, read(), read, write

    def parts(self, thing: Any, name: str, names: Sequence[str]) -> Iterator[tuple[Any, str]]:
        """Remember what a thing itself can lose or gain; yields its parts with the name of each."""
        keep = partial(self.keep, id(thing), name)
        if isinstance(thing, Tensor):
            if thing.__class__ is Tensor:  # not a symbol, which has no values
                keep(lambda: (thing._array, thing._version), lambda was: set_data(thing, *was))
                yield thing._array, name
        elif isinstance(thing, ndarray):
            if thing.nbytes <= BYTES and thing.flags.writeable and not thing.dtype.hasobject:
                keep(lambda: np.array(thing), lambda was: np.copyto(thing, was))
        elif isinstance(thing, (list, deque, bytearray)):
            keep(lambda: list(thing), lambda was: (thing.clear(), thing.extend(was)))
            yield from ((item, name) for item in short(thing))
        elif isinstance(thing, set):
            keep(thing.copy, lambda was: (thing.clear(), thing.update(was)))
        elif isinstance(thing, dict):
            keep(lambda: dict(thing), lambda was: (thing.clear(), thing.update(was)))
            yield from ((item, f"{name}[{key!r}]") for key, item in short(thing.items()))
        elif isinstance(thing, tuple):
            yield from ((item, name) for item in short(thing))
        elif isinstance(thing, random.SystemRandom):
            pass  # it has no state
        elif isinstance(thing, (np.random.Generator, np.random.RandomState, random.Random)):
            read, write = random_state(thing)
            self.keep(id(thing), f"the random numbers of {name}", lambda: pickle.dumps(read()),
                      lambda was: write(pickle.loads(was)))
        elif isinstance(thing, ContextVar):
            if (value := value_of(thing)) is not UNSET:  # one without a value cannot be put back
                keep(partial(value_of, thing), thing.set)
                yield value, name
        elif isinstance(thing, FunctionType):
            if not is_library(thing.__module__):
                keep(lambda: dict(vars(thing)), lambda was: (vars(thing).clear(), vars(thing).update(was)))
                yield from self.variables(thing)
                yield from ((defaults, name) for defaults in (thing.__defaults__, thing.__kwdefaults__))
        elif isinstance(thing, MethodType):
            yield from ((thing.__self__, "self"), (thing.__func__, name))
        elif isinstance(thing, partial):
            yield from ((part, name) for part in (thing.func, thing.args, thing.keywords))
        elif isinstance(thing, (type, ModuleType)):
            held = vars(thing)
            if not is_library(thing.__module__ if isinstance(thing, type) else thing.__name__):
                for attribute in [n for n in names if n in held]:
                    self.keep((id(thing), attribute), f"{name}.{attribute}", partial(held.get, attribute, UNSET),
                              partial(setattr, thing, attribute))
                    yield held[attribute], f"{name}.{attribute}"
        elif hasattr(thing, "__next__"):
            raise Unrepeatable(f"it can take elements from {name}, an iterator")
        else:
            yield from self.attributes(thing, name, names)

    def attributes(self, thing: Any, name: str, names: Sequence[str]) -> Iterator[tuple[Any, str]]:
        """Remember all attributes of an object; yields those that the code names, and its classes."""
        if hasattr(thing, "__dict__"):
            held = self.all_attributes(thing, name)
            yield from ((held[n], f"{name}.{n}") for n in names if n in held)
        for kind in type(thing).__mro__[:-1]:
            slots = kind.__dict__.get("__slots__") or ()
            for slot in [n for n in ((slots,) if isinstance(slots, str) else slots) if n in names]:
                read = partial(getattr, thing, slot, UNSET)
                self.keep((id(thing), slot), f"{name}.{slot}", read, partial(setattr, thing, slot))
                yield read(), f"{name}.{slot}"
            yield kind, kind.__name__


    def all_attributes(self, thing: Any, name: str) -> dict[str, Any]:
        held = thing.__dict__
        self.keep((id(thing), "__dict__"), name, lambda: Attributes(held), lambda was: (held.clear(), held.update(was)))
        return held

    def variables(self, function: FunctionType) -> list[tuple[Any, str]]:
        """Remember the variables that a function closes over; returns their values and names."""
        cells = list(zip(function.__closure__ or (), function.__code__.co_freevars))
        for cell, name in cells:
            self.keep(id(cell), name, partial(content, cell), partial(set_content, cell))
        return [(content(cell), name) for cell, name in cells]


class Attributes(dict):
    """The attributes of an object."""


def named(name: str, now: Any, before: Any) -> str:
    """The name of what has changed within a thing."""
    if isinstance(before, dict):
        key = next(key for key in [*now, *before] if not alike(now.get(key, UNSET), before.get(key, UNSET)))
        return f"{name}.{key}" if isinstance(before, Attributes) else f"{name}[{key!r}]"
    return name


def same(now: Any, before: Any) -> bool:
    """Whether a thing holds the very objects that it held before; arrays are compared by value."""
    if isinstance(now, ndarray) and isinstance(before, ndarray):
        return now is before or now.tobytes() == before.tobytes()
    if isinstance(now, (list, tuple)) and isinstance(before, (list, tuple)):
        return now is before or (len(now) == len(before) and all(map(alike, now, before)))
    if isinstance(now, dict) and isinstance(before, dict):
        return now.keys() == before.keys() and all(alike(now[key], before[key]) for key in now)
    return alike(now, before) or (isinstance(now, set) and now == before)


def alike(a: Any, b: Any) -> bool:
    """Whether two things are one object, or equal numbers or texts, which Python may make anew."""
    return a is b or (a.__class__ is b.__class__ and isinstance(a, (int, float, str, bytes)) and a == b)


def short(items: Any) -> Any:
    return list(items) if len(items) <= ITEMS else ()


def random_state(source: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """How the state of a source of random numbers is read and set."""
    if isinstance(source, np.random.Generator):
        bits = source.bit_generator
        return lambda: bits.state, partial(setattr, bits, "state")
    if isinstance(source, np.random.RandomState):
        return partial(source.get_state, legacy=False), source.set_state
    return source.getstate, source.setstate


def value_of(variable: ContextVar) -> Any:
    try:
        return variable.get()
    except LookupError:
        return UNSET


def content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return UNSET


def set_content(cell: CellType, value: Any) -> None:
    if value is UNSET:
        del cell.cell_contents
    else:
        cell.cell_contents = value


def set_data(tensor: Tensor, data: ndarray, version: int) -> None:
    tensor._array, tensor._version = data, version


def is_library(module: str | None) -> bool:
    """Whether a module is minigrad's, NumPy's or Python's own, in which nothing counts the calls of a function."""
    return (module or "builtins").partition(".")[0] in ("minigrad", "numpy", "builtins")
