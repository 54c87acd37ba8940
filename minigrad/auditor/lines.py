"""The line of the user's code that makes a value: the code is run once more, and the arrays that it binds are noted."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigrad.engine.tensor import Tensor

DEEPEST, MOST_ARRAYS = 3, 300  # of the nested values of a frame


class Binding(NamedTuple):
    """An array that a line binds to a name, or changes in place: its values then, and only those that are new."""

    line: int
    name: str
    array: np.ndarray
    values: np.ndarray
    new: np.ndarray


def bindings(call: Callable, file: str, passed_over: Iterable[int] = ()) -> tuple[Any, list[Binding]]:
    """(result, what the functions of `file` bound while it ran, in order)

    passed_over  first lines of functions: what they bind belongs to the lines that call them
    """
    found: list[Binding] = []

    def trace(frame: Any, *_: Any) -> Any:
        code = frame.f_code
        if code.co_filename != file or code.co_firstlineno in passed_over:
            return None
        known = {name: (array, array.copy()) for name, array in islice(arrays_in(frame.f_locals), MOST_ARRAYS)}
        line = frame.f_lineno

        def local(frame: Any, event: str, result: Any) -> Any:
            nonlocal line
            returned = {"return": result} if event == "return" else {}
            for name, array in islice(arrays_in({**frame.f_locals, **returned}), MOST_ARRAYS):
                same, before = known.get(name, (None, array))
                if same is array:
                    is_new = ~((array == before) | ((array != array) & (before != before)))  # nan stays nan
                    if not is_new.any():
                        continue
                values = array.copy()
                known[name] = array, values
                found.append(Binding(line, name, array, values, values[is_new] if same is array else values))
            line = frame.f_lineno
            return local
        return local

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        return call(), found
    finally:
        sys.settrace(previous)


def arrays_in(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of the float arrays in local variables, in containers and objects too."""
    value = value._array if type(value) is Tensor else value
    parts: Iterable = ()
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            yield name, value
    elif isinstance(value, dict):
        parts = [(f"{name}[{key!r}]" if name else key, one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{name}[{i}]", one) for i, one in enumerate(value)]
    elif hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType, FunctionType, MethodType)):
        parts = [(f"{name}.{key}", one) for key, one in vars(value).items()]
    for path, one in parts if depth <= DEEPEST else ():
        yield from arrays_in(one, path, depth + 1)


def line_of(bound: list[Binding], near: list[Any], wanted: list[Any], known: tuple[list[Any], list[Any]],
            names: Iterable[str]) -> int | None:
    """The first line that binds one of these arrays, in any shape and order.

    A near one, to the gradient of one of the names; or a wanted one, to the name of a gradient, if it is none of the
    true gradients, or to any name, if it is no value of the forward either.

    known  the values of the forward, and the true gradients
    """
    of_names = re.compile(rf"(d|delta|grad|g)_?({'|'.join(map(re.escape, names))})")
    (values, true), some = map(Sorted, known), Sorted(near)
    wrong = [array for array in wanted if array not in true]
    changed, alone = Sorted(wrong), Sorted(array for array in wrong if array not in values)
    return next((one.line for one in bound if one.new in alone
                 or (of_names.fullmatch(one.name) and one.new in some)
                 or (re.match("_?(d|grad)", one.name) and one.new in changed)), None)


def line_that_assigns(function: Callable, names: Iterable[str]) -> int | None:
    """The line of a function that assigns the gradient of one of these, the first that is found."""
    try:
        lines, start = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return None
    for name in names:
        pattern = re.compile(rf"\bd_?{re.escape(name)}\b[^=(]*[-+*/]?=(?!=)")
        for i, line in enumerate(lines):
            if pattern.search(line.split("#")[0]) and not re.search(r"zeros|empty|None|=\s*(0|\[\])\s*$", line):
                return start + i
    return None


class Sorted:
    """Arrays, compared by their sorted entries without zeros; no constants, which are alike by chance."""

    def __init__(self, arrays: Iterable[Any]):
        self.by_size: dict[int, list[np.ndarray]] = defaultdict(list)
        for array in arrays:
            is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f"
            if is_float and array.size > 1 and np.isfinite(array).all() and np.ptp(array):
                values = ordered(array)
                self.by_size[values.size].append(values)

    def __contains__(self, array: Any) -> bool:
        values = ordered(array)
        most = 1e-5 * np.abs(values).max(initial=0)
        return any(abs(one[0] - values[0]) <= most and abs(one[-1] - values[-1]) <= most
                   and np.abs(one - values).max() <= most for one in self.by_size.get(values.size, ()))


def ordered(array: np.ndarray) -> np.ndarray:
    return np.sort(array[array != 0], axis=None)


def quoted(file: str, line: int) -> str:
    return f"{file}:{line}: {linecache.getline(file, line).strip()}"
