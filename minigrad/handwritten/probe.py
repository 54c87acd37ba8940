"""An argument of unknown kind: what a function does with it shows what it is.

A probe lets the function go on as long as it can. p["W"] makes it a dict; `a, b = p` a tuple; x[t][p[i]] = 1 integers;
a matrix product or a sum with an array makes it an array, of a rank that the indices before ask for.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import itertools
import linecache
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.handwritten.lengths import BIAS, Known, Length, is_parameter
from minigrad.handwritten.source import Seeded

GROUP = r"^(params?|parameters|weights|theta)$"
NUMBER = r"^(p|lr)$|(?<!st)eps|rate|momentum|decay|seed|temperature|ratio|drop"
RANDOM = r"(uniform|(standard_)?normal|randn?|randint|random(_sample)?|integers|choice|permutation|shuffle)$"
REDUCTIONS = ("sum", "mean", "max", "min", "std", "var", "prod", "any", "all")
SIZES = [(cost, Known("constant", value=sizes)) for cost, sizes in (  # of layers: two hidden ones show what they share
    (0, (6, 5, 3, 4)), (0.4, (6, 5, 5, 4)), (0.8, (6, 5, 4)))]
HERE = str(Path(__file__).parent)
RANKS = (2, 1, 3, 0)  # in the order in which they are tried


class Need(BaseException):
    """Stops the function: a probe must be known. No `except Exception` of a student's catches it."""


class Probe(np.lib.mixins.NDArrayOperatorsMixin):
    """An argument, or a part of one, on which a function depends before it is known.

    trial  the run, which notes what the probe may be: a `shapes.Trial`
    shift  how many axes fewer it has than the argument (x[:, t] has one fewer than x); None if that is unknown
    least  how many axes the argument has at least
    plain  it has the argument's own axes, or is a row of it
    """

    def __init__(self, trial: Any, path: str, shift: int | None = 0, least: int = 0, plain: bool = True):
        self.trial, self.path, self.shift, self.least, self.plain = trial, path, shift, least, plain
        self.is_vector = False  # one of a table of vectors, looked up by an integer
        self.is_flat = False  # all its axes made one: it has several

    __hash__ = object.__hash__

    # -- what it may be: (cost, Known), likely ones first

    def needs(self, *options: tuple[float, Known]) -> Any:
        """Stop the function. NumPy swallows some exceptions, so the trial keeps the first stop."""
        hint = self.trial.ranks.get(self.path)
        self.trial.note(self.path, [(cost + (hint is not None and known.kind in ("array", "integers")
                                             and len(known.axes) != hint), known) for cost, known in options])
        raise Need

    def axis(self, i: int) -> Length:
        return {f"{self.path}.{i}": 1}

    def of_rank(self, rank: int, kind: str = "array") -> Known:
        return Known(kind, tuple(map(self.axis, range(rank))))

    def ranked(self, ranks: Iterable[int] = RANKS, kind: str = "array") -> Any:
        """It has one of these ranks. The docstring's rank comes first; other ranks of a weight are less likely."""
        if self.may_be_number or self.path in self.trial.sizes:
            return self.number()
        least = max(self.least, self.trial.least.get(self.path, 0))
        is_open = ranks is RANKS and bool(re.match(BIAS, self.path))  # a bias that met nothing: a row, or a column
        if is_open and not self.trial.has_columns:
            ranks = (1, 2, 3, 0)
        wanted = [*[2] * (self.is_vector or self.is_flat), *(rank + (self.shift or 0) for rank in ranks)]
        fitting = [rank for rank in wanted if rank >= least] or [least]
        hint = self.trial.ranks.get(self.path, fitting[0])
        fitting = [hint, *fitting] if hint >= least else fitting
        costs = itertools.count(0, 2 if is_parameter(self.path) and not is_open else 1)
        keys = tuple(map(str, range(self.trial.indexed.get(self.path, 0) + 1)))
        return self.needs(*((cost, self.of_rank(rank, kind)) for cost, rank in zip(costs, dict.fromkeys(fitting))),
                          *[(1.5, Known("sequence", keys=keys))] * (len(keys) > 1))

    @property
    def may_be_number(self) -> bool:
        """Whether its name is that of a number, and nothing was taken out of it."""
        return bool(re.search(NUMBER, self.path)) and self.plain and not self.shift

    @property
    def is_row(self) -> bool:
        """Whether it is one of a sequence, in a file that makes no columns."""
        return self.plain and self.shift == 1 and not self.trial.has_columns

    def number(self) -> Any:
        if re.search(NUMBER, self.path):
            return self.needs((0, Known("constant", value=0 if "seed" in self.path else 0.1)))
        return self.needs((0, Known("number", ({self.path: 1},))), (1, self.of_rank(1)))

    def integers(self) -> Any:
        """It is used as an index, or as a size in a call."""
        is_size = unpacking()[0].startswith(("CALL", "PRECALL"))
        if self.path in self.trial.sizes or (not self.shift and self.plain and is_size):
            return self.number()
        shared = [known for known in self.trial.known.values() if known.kind == "integers" and (
            self.shift or 0) <= len(known.axes)]
        if shared and not self.is_flat:  # inputs and targets are of one shape
            return self.needs((0, shared[0]), *((rank, self.of_rank(rank, "integers")) for rank in (1, 2)))
        return self.ranked((0,) if self.shift and self.plain else (0, 1, 2) if self.shift else (1, 2, 0), "integers")

    def like(self, shape: tuple[int, ...], ufunc: Any = None) -> Any:
        """It meets an array of this shape: data have its shape, a bias or a gain one axis of it, that of features."""
        is_sum, is_difference = ufunc in (np.add, np.subtract), ufunc is np.subtract  # y - t: t is no longer than y
        lengths: list[Length] = [{"": 1} if n == 1 and is_difference else self.trial.axis_of(n) or self.axis(i)
                                 for i, n in enumerate(shape)]
        is_weight = is_parameter(self.path) or self.path in self.trial.sizes
        is_column = is_weight and len(shape) > 1 and self.features_first(lengths)
        if not self.plain or self.shift or len(shape) < max(self.least, 1) or self.may_be_number or (
                self.path in self.trial.sizes and not is_sum):
            return self.ranked((1 if is_weight and not is_column else len(shape), *RANKS[:3]))
        whole, last = Known("array", tuple(lengths)), Known("array", (lengths[-1],))
        if not is_weight or len(shape) == 1:
            options = [(0, whole)] + [(1, last)] * (len(shape) > 1)
            return self.needs(*options, *((2, self.of_rank(rank)) for rank in (1, 2, 3) if rank != len(shape)))
        ones = ({"": 1},) * (len(shape) - 1)
        column, row = Known("array", (*ones[1:], lengths[-2], {"": 1})), Known("array", (*ones, lengths[-1]))
        if self.trial.ranks.get(self.path) == len(shape):
            return self.needs((0, column if is_column else row), (1, row if is_column else column), (1, whole))
        return self.needs(*((0, column), (2, last)) if is_column else ((0, last), (1, column)), (2, whole))

    def features_first(self, lengths: list[Length]) -> bool:
        """Whether the last but one of these lengths is that of features: W @ x, not x @ W."""
        now = self.trial.hypothesis
        own = [axis for path, axis in now.axes if is_parameter(path)]
        features = [length in own for length in lengths[-2:]]
        if any(features):
            return features == [True, False]
        met = {axis for length in own for axis in length}  # as where other data meet weights
        return any([now.reduced(axis).keys() <= met for axis in known.axes[-2:]] == [True, False]
                   for path, known in now.known.items() if known.kind == "array" and not is_parameter(path))

    # -- what the function does with it

    def part(self, fewer: int | None = 0, least: int = 0, plain: bool = False) -> Probe:
        """What an operation makes of it: an array with this many axes fewer."""
        shift = None if fewer is None or self.shift is None else self.shift + fewer
        return Probe(self.trial, self.path, shift, max(least, self.least), plain and self.plain)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) or (isinstance(key, int) and re.search(GROUP, self.path)):
            return self.needs((0, Known("sequence", keys=("0", "1")) if self.shift else Known("mapping")))
        if self.path in self.trial.sizes:
            return self.needs(*SIZES)
        items = key if isinstance(key, tuple) else (key,)
        for item in leaves(items):
            if isinstance(item, Probe):  # a mask, if it was made of the same
                return item.ranked() if item.path == self.path else item.integers()
        new = sum(item is None for item in items)
        taken = [item for item in items if item is not None and item is not Ellipsis]
        fewer = sum(1 - np.ndim(item) for item in taken if not isinstance(item, slice))
        is_row = all(isinstance(item, (int, np.integer)) for item in items)
        if type(key) is int and key > 0 and self.plain and not self.shift:  # a row, or one of a tuple
            self.trial.indexed[self.path] = max(key, self.trial.indexed.get(self.path, 0))
        out = self.part(fewer - new, (self.shift or 0) + len(taken), is_row)
        out.is_vector = isinstance(key, (np.integer, np.ndarray))
        return out

    def moved(self, is_flat: bool = False) -> Probe:
        """With its axes in another order, or as one."""
        out = self.part(None)
        out.is_flat = is_flat
        return out

    def __setitem__(self, key: Any, value: Any) -> None:
        self[key].ranked()

    def __iter__(self) -> Iterator[Probe]:
        operation, count, names = unpacking()
        if self.path in self.trial.sizes:  # NumPy iterates over the size in np.ones(n) first
            is_call = operation.startswith(("CALL", "PRECALL"))
            number = [(0, Known("number", ({self.path: 1},)))] if is_call else []
            return self.needs(*number, *((cost + is_call, sizes) for cost, sizes in SIZES), (
                1.5, self.of_rank(1, "integers")), (2, Known("sequence", keys=("0", "1"))))
        if operation == "UNPACK_SEQUENCE" and self.plain and self.shift in (0, 1):
            keys = ("0", "1") if self.shift else names or tuple(map(str, range(count)))
            self.needs((0, Known("sequence", keys=keys)), (1, Known("array", ({"": count}, self.axis(1)))))
        if self.plain and self.shift == 0:
            self.trial.iterated.add(f"{self.path}.0")
        return iter([self.part(1, (self.shift or 0) + 1, True)] * len(self))

    def __len__(self) -> int:
        return self.trial.measure(self.axis(self.shift or 0))

    def __call__(self, *_: Any) -> Any:
        return self.needs((0, Known("constant", value=np.tanh)))

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: Any) -> bool:
        return self.needs((0, Known("mapping"))) if isinstance(key, str) else self.ranked()

    def __index__(self) -> int:
        return self.integers()

    def __int__(self) -> int:
        return self.integers() if self.shift else self.number()

    __float__ = __int__

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        if unpacking()[0] == "BINARY_SUBSCR":
            return self.integers()
        return self.ranked((0, 1, 2) if self.shift and self.plain else RANKS)

    @property
    def shape(self) -> Shape:
        return Shape(self)

    @property
    def T(self) -> Probe:
        return self.part()

    def __getattr__(self, name: str) -> Any:
        if name in ("items", "keys", "values", "get", "setdefault"):
            return self.needs((0, Known("mapping")))
        if name.startswith("__"):
            raise AttributeError(name)
        if re.match(RANDOM, name):
            return self.needs((0, Known("constant", value=Seeded())))
        if not hasattr(np.ndarray, name):
            if self.shift and self.plain:
                return self.needs((0, Known("sequence", keys=("0", "1"))))
            made = list(self.trial.with_attribute(name, self.path))
            return self.needs(*enumerate(made), (len(made), Known("object")))
        if name in ("copy", "astype"):
            return lambda *_, **__: self.part(plain=True)
        if name == "transpose":
            return lambda *axes: self.ranked((len(axes),)) if axes and self.shift == 0 else self.moved()
        if name in ("reshape", "ravel", "flatten", "squeeze", "swapaxes"):
            return lambda *shape, **_: self.moved(name in ("ravel", "flatten") or shape == (-1,))
        if name == "dot":
            return lambda other: product(self, other)
        return self.along if name in REDUCTIONS else self.ranked()

    def along(self, axis: Any = None, *_: Any, **__: Any) -> Any:
        """A method such as mean(axis=(2, 3)): it has these axes."""
        axes = [one for one in leaves([axis]) if isinstance(one, int)]
        return self.part(None, max(axes, default=-1) + 1 + (self.shift or 0)).ranked()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Any:
        if ufunc is np.matmul:
            return product(*inputs)
        for one in inputs:
            if isinstance(one, str):
                return self.needs((0, Known("constant", value=one)))
        probes = [one for one in inputs if isinstance(one, Probe)]
        shapes = [np.shape(one) for one in inputs if isinstance(one, (np.ndarray, list)) and np.ndim(one)]
        if shapes:
            return first(probes).like(np.broadcast_shapes(*shapes), ufunc)
        if len({one.path for one in probes}) > 1:
            own = max(one.least - (one.shift or 0) for one in probes)  # axes that one of them has at least
            return first(probes).ranked((1, 2) if is_parameter(first(probes).path) else (max(2, own), *RANKS[:3]))
        return self.part(plain=True)  # with numbers alone

    def __array_function__(self, function: Callable, types: Any, arguments: tuple, options: dict[str, Any]) -> Any:
        parts = list(leaves([*arguments, *options.values()]))
        probes = [one for one in parts if isinstance(one, Probe)]
        ranks = [one.ndim for one in parts if isinstance(one, np.ndarray) and one.ndim]
        if function in (np.dot, np.matmul, np.inner):
            return product(*parts[:2])
        if function in (np.take_along_axis, np.put_along_axis) and isinstance(arguments[1], Probe):
            return arguments[1].ranked((np.ndim(arguments[0]),), "integers")
        if function is np.take and isinstance(arguments[1], Probe):
            return arguments[1].integers()
        if function is np.outer:
            return first(probes).ranked((1,))
        if function is np.einsum and isinstance(arguments[0], str) and "." not in arguments[0]:
            letters = arguments[0].replace(" ", "").partition("->")[0].split(",")
            return next(one.ranked((len(word),)) for word, one in zip(letters, arguments[1:]) if isinstance(one, Probe))
        if function in (np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.copy):
            return probes[0].part(plain=True)
        if function in (np.reshape, np.ravel, np.transpose, np.squeeze, np.expand_dims, np.swapaxes, np.moveaxis):
            return probes[0].part(None)
        if function is np.shape:
            return probes[0].shape
        if function in (np.concatenate, np.hstack) and not options and not arguments[1:] and first(probes).is_row:
            return first(probes).ranked((1, 2, 3))
        return first(probes).ranked((*ranks[:1] * (not is_parameter(first(probes).path)), *RANKS[:3]))


class Shape:
    """The shape of a probe: its lengths can be had before its rank is known."""

    def __init__(self, probe: Probe):
        self.probe = probe

    def __getitem__(self, i: Any) -> Any:
        probe = self.probe
        if isinstance(i, slice) and i.stop and i.stop > 0 and probe.plain:  # x.shape[:2]
            return tuple(self[j] for j in range(i.stop)[i])
        if not isinstance(i, int) or probe.shift is None or (not probe.plain and i):
            return probe.ranked()
        if i >= 0:
            i += probe.shift
            probe.trial.least[probe.path] = max(i + 1, probe.trial.least.get(probe.path, 0))
        return probe.trial.measure(probe.axis(i))

    def __iter__(self) -> Any:
        operation, count, _ = unpacking()
        return self.probe.ranked((count,) if operation == "UNPACK_SEQUENCE" else RANKS)

    def __len__(self) -> int:
        return self.probe.ranked()

    def __add__(self, other: Any) -> Any:
        return self.probe.ranked()

    __radd__ = __eq__ = __add__


class Asked(dict):
    """A dict that makes what it is asked for, or an object that has its keys as attributes."""

    def __init__(self, trial: Any, path: str, values: dict[str, Any]):
        super().__init__(values)
        self.trial, self.path = trial, path

    def __missing__(self, key: str) -> Any:
        known = self.trial.known[self.path]
        self.trial.known[self.path] = replace(known, keys=(*known.keys, key))
        self[key] = self.trial.value(f"{self.path}.{key}")
        return self[key]

    def __getattr__(self, name: str) -> Any:
        if self.trial.known[self.path].kind == "mapping" or name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __len__(self) -> int:
        return max(super().__len__(), 8)  # several layers, whether each has two or three, and the last others

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if default is None else super().get(key, default)


def product(*factors: Any) -> Any:
    """Decide the first probe of a matrix product. Beside one list of integers h @ W has a vector, or a column; W @ x
    has a vector for each x of a sequence, where the file makes no columns."""
    one = first([one for one in factors if isinstance(one, Probe)])
    if one is factors[-1] and one.is_row:
        return one.ranked((1, 2, 3))
    is_alone = any(known.kind == "integers" and len(known.axes) == 1 for known in one.trial.known.values())
    if not is_alone or is_parameter(one.path) or not (one.trial.has_columns or one is factors[0]):
        return one.ranked(RANKS[:3])
    return one.ranked((2, 3, 1) if one.trial.has_columns else (1, 2, 3))


def first(probes: Sequence[Probe]) -> Probe:
    """The one to decide first: data before weights."""
    return min(probes, key=lambda one: is_parameter(one.path))


def leaves(tree: Iterable[Any]) -> Iterator[Any]:
    for one in tree:
        if isinstance(one, (list, tuple)):
            yield from leaves(one)
        else:
            yield one


def unpacking() -> tuple[str, int, tuple[str, ...]]:
    """(operation, its argument, the names that it is unpacked to) of the line that uses a probe.

    The operation is that of the interpreter in the innermost frame outside this folder: CALL, UNPACK_SEQUENCE …
    """
    frame: Any = sys._getframe(1)
    while frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    code, count = frame.f_code.co_code[frame.f_lasti:frame.f_lasti + 2]
    operation = dis.opname[code] if dis.opname[code] != "BINARY_OP" or count < 26 else "BINARY_SUBSCR"  # Python 3.14
    names: tuple[str, ...] = ()
    with contextlib.suppress(SyntaxError, ValueError, IndexError):
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        targets = [node.elts for node in ast.walk(ast.parse(line + " pass" * line.endswith(":"))) if isinstance(
            node, (ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Store) and len(node.elts) == count]
        names = tuple(ast.unparse(one) for one in targets[0])
    return operation, count, names if all(map(str.isidentifier, names)) else ()
