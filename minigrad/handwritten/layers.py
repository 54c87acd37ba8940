"""The weights that an object keeps, and their gradients: in attributes, dicts and lists, and in layers of its own.

A path leads to an array: ("Wx",), ("params", "Wf"), ("layers", 0, "b"), or ("W_f", "v") with its gradient in
("W_f", "d").
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from minigrad.engine.tensor import Tensor

WEIGHT = r"^_?(?!.*_param$)([UVWRwub](?![a-z]{3})|[UVW](rec|out|hid)$|p_?[figoc]$|[gE]$|gain|weight|bias|gamma|beta|" \
         r"theta|(?!d[A-Z_]|grad|delta|nabla)[a-z]{2,}\d?_([WU][a-z]{0,2}|b)$)"  # and lstm_Wx, affine_b
WEIGHTS = r"^_?(p|P|par|params?|[Pp]arameters?|weights|theta|model)$"  # a dict of them
VALUE = r"^(v|val|value|data|w|W|array|param)$"  # the attribute of a weight that is an object, and of its gradient
TURNED = r"^_?[UVWR]\w{0,3}?_?T$"  # a transposed copy, WhT
GRADIENT = r"^_?(d|g|G$|nabla|delta)|grad|_(d|g|diff)$"
STATE = r"^_?(x|y|z|h|a|c|s|o)s?(_?(prev|next|t|0|last))?$|hidden|state|cell|out"  # no weight, though it has a gradient
DEEPEST = 6
Path = tuple[Any, ...]


class Place(NamedTuple):
    """Where an object keeps an array."""

    path: Path
    holder: Any  # a dict, a list or an object of the user's
    value: Any
    start: int = 0  # how many parts of the path lead to the innermost object

    def put(self, W: Any) -> None:
        if np.shape(W)[::-1] == self.value.shape != np.shape(W):  # the place has a view of a weight
            self.put(W.T)
        elif isinstance(self.holder, (dict, list)):
            self.holder[self.path[-1]] = W
        else:
            setattr(self.holder, self.path[-1], W)

    @property
    def name(self) -> Path:
        """The path without what only groups arrays: params, grads, and the attribute of a weight that is an object."""
        last = len(self.path) - 1
        values = "(v|val|value|data|grad)$" if isinstance(self.holder, (dict, list)) else f"{VALUE}|{GRADIENT}"
        others = [key for key, value in attributes(self.holder).items() if isinstance(value, np.ndarray)
                  and re.match(WEIGHT, key) and not re.match(f"{VALUE}|g$", key)]  # of a layer, by whatever name
        is_value = last and not others and (self.is_pair or (
            re.match(WEIGHT, str(self.path[-2])) and re.match(values, str(self.path[-1]))))
        groups = rf"{WEIGHTS}|^_?(g|G|d|d?params|grads?|gradients?)$"
        names_some = not isinstance(self.holder, dict) or any(re.match(WEIGHT, str(key)) for key in self.holder)
        return tuple(part for i, part in enumerate(self.path) if not (i == last and is_value) and not (
            i < last and re.match(groups, str(part)) and (names_some or part != "p")))  # the peephole p["i"] is no i

    @property
    def is_pair(self) -> bool:
        """Whether this is one of the two arrays of an object, a weight of whatever name and its gradient."""
        alike = [key for key, one in attributes(self.holder).items() if one is None or (
            isinstance(one, np.ndarray) and one.shape == np.shape(self.value))]
        return len(self.path) > 1 and self.path[-1] in alike and all(any(
            re.match(kind, key) for key in alike) for kind in (VALUE, r"(d|g|grad|gradient)$"))

    @property
    def is_weight(self) -> bool:
        *groups, last = self.path
        if self.value.ndim == 0 or any(re.search("grad|_(d|g|diff)$", str(part)) for part in self.path):
            return False
        if groups and last == "g" and any(re.match(VALUE, key) for key in attributes(self.holder)):
            return False  # W.g beside W.v
        if isinstance(self.holder, (dict, list)):
            if not groups:
                return isinstance(last, int) or bool(re.match(WEIGHT, str(last)))
            if isinstance(last, str) and all(re.match(WEIGHT, str(key)) for key in self.holder):  # of a layer
                return not re.match("_?(d|g|G)s?$", str(groups[-1]))
            return any(re.match(f"{WEIGHT}|{WEIGHTS}", str(one)) and one != "g" for one in groups[self.start:])
        if re.match(WEIGHT, last) or (groups and re.match(VALUE, last) and (
                self.is_pair or re.match(WEIGHT, str(groups[-1])))):
            return True
        return not groups and not re.search(STATE, last) and f"d{last}" in names_in(self.holder.__class__)


@functools.cache
def names_in(cls: type) -> set[str]:
    """The names of the attributes that the methods of a class use."""
    return {name for base in cls.__mro__ for f in vars(base).values() if hasattr(f, "__code__")
            for name in f.__code__.co_names}


def attributes(one: Any) -> dict[str, Any]:
    """The attributes of an object, in its dict or in slots."""
    slots = [name for base in type(one).__mro__ for name, f in vars(base).items() if inspect.ismemberdescriptor(f)]
    return {name: getattr(one, name) for name in slots if hasattr(one, name)} | getattr(one, "__dict__", {})


def places(root: Any, path: Path = (), seen: set[int] | None = None, start: int = 0) -> Iterator[Place]:
    """All arrays in an object of the user's, a dict or a list."""
    seen = set() if seen is None else seen
    if isinstance(root, dict):
        pairs: Any = root.items()
    elif isinstance(root, (list, tuple)):
        pairs = enumerate(root)
    elif is_own(root):
        pairs, start = attributes(root).items(), len(path)
    else:
        return
    if id(root) in seen or len(path) == DEEPEST:
        return
    seen.add(id(root))
    for key, value in list(pairs):
        if not isinstance(value, (np.ndarray, np.floating, Tensor)):  # a gradient that was summed over all axes
            yield from places(value, (*path, key), seen, start)
        elif not isinstance(root, tuple):
            yield Place((*path, key), root, value, start)


def objects(root: Any) -> Iterator[Any]:
    """An object of the user's, and those that it keeps, itself or in lists and dicts."""
    waiting, seen = [root], set[int]()
    for one in waiting:
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (dict, list, tuple)):
            waiting += one.values() if isinstance(one, dict) else one
        elif is_own(one):
            yield one
            waiting += attributes(one).values()


def is_own(one: Any) -> bool:
    """Whether something is an object of a class of the user's."""
    return any(base.__module__ == "minigrad_user" for base in type(one).__mro__)


def weights_of(root: Any, called: str = "", further: tuple[Path, ...] = ()) -> dict[str, list[Place]]:
    """{name: its places} of each weight: an array in several places, or its transpose, is one weight.

    called   the name of what is a list of weights, W of W_0, W_1, or a dict of them
    further  where weights are that neither their names nor their neighbours tell
    """
    found: dict[Any, list[Place]] = {}
    for place in places(root):
        is_array = isinstance(place.value, np.ndarray) and place.value.size
        memory = (place.value.ctypes.data, *sorted(place.value.shape)) if is_array else id(place.value)
        found.setdefault(memory, []).append(place)
    found = {memory: ones for memory, ones in found.items() if not re.match(TURNED, str(ones[0].path[-1])) or not any(
        other is not ones and other[0].is_weight and other[0].value.shape == ones[0].value.shape[::-1]
        for other in found.values())}
    lasts = {ones[0].path[-1] for ones in found.values()}
    is_group = isinstance(root, dict) and bool(re.match(WEIGHTS, called))
    if called and isinstance(root, dict) and not is_group and not any(
            one.is_weight for ones in found.values() for one in ones):
        return {f"{called}_{ones[0].path[-1]}": ones for ones in found.values() if len(ones[0].path) == 1}  # W["input"]

    def is_weight(place: Place) -> bool:
        """Also c, where it is an output's bias, V h + c, and no state, and all that is in a dict called params."""
        return place.is_weight or place.path in further or (
            is_group and len(place.path) == 1 and place.value.ndim > 0) or (
            place.path[-1] == "c" and "V" in lasts and ("b" in lasts or "h" not in lasts) and "grad" not in str(
                place.path))
    weights = [sorted(ones, key=lambda one: (  # by its attribute, not as params[0]; one that is shared by the whole's
        len({place.value.shape for place in ones}) > 1 and len(one.path), isinstance(one.path[-1], int)))
        for ones in found.values() if any(map(is_weight, ones))]
    return {in_words(next(filter(is_weight, ones)).name, called): ones for ones in weights}


def copies_of(root: Any, weights: dict[str, np.ndarray]) -> dict[Path, str]:
    """{path: the weight} of the arrays that have a weight's numbers, or its transpose's, and not its memory."""
    kept = {place.path for ones in weights_of(root).values() for place in ones}
    return {place.path: name for place in places(root) if place.path not in kept for name, w in weights.items()
            if any(np.array_equal(place.value, same) for same in (w, w.T))}


def in_words(name: Path, called: str = "") -> str:
    """A path as one word: forget_Wx, params_0."""
    word = "_".join(map(str, name))
    return word if not word[:1].isdigit() else f"{called or 'params'}_{word}"


def gradients_of(root: Any, called: str = "", further: tuple[Path, ...] = ()) -> list[Place]:
    """The arrays in attributes such as dW, in `grads`, and beside the values of weights that are objects."""
    weights = {place.path for places in weights_of(root, called, further).values() for place in places}
    return [place for place in places(root) if place.path not in weights and any(
        re.search(GRADIENT, str(part)) for part in place.path)]
