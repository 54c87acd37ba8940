"""What can be seen of a hand-written backward besides its numbers, each observation one function, in sentences."""

from __future__ import annotations

import ast
import contextlib
import functools
import linecache
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.lines import bindings
from minigrad.engine.ops import relu, sigmoid, softmax, tanh
from minigrad.handwritten import references
from minigrad.handwritten.recordable import bases
from minigrad.handwritten.source import Source, names_called

ACTIVATIONS = {"sigmoid": [sigmoid], "tanh": [tanh], "relu": [relu],
               "softmax": [functools.partial(softmax, axis=axis) for axis in (-1, 0, 1)]}
LOOKALIKES = {"σ(x)": sigmoid, "tanh(x)": tanh, "tanh(x/2)": lambda x: tanh(x / 2), "σ(2x)": lambda x: sigmoid(2 * x),
              "tanh(2x)": lambda x: tanh(2 * x), "σ(−x)": lambda x: sigmoid(-x), "its own derivative, σ(x) (1 − σ(x))":
              lambda x: sigmoid(x) * (1 - sigmoid(x)), "its own derivative, 1 − tanh²(x)": lambda x: 1 - tanh(x) ** 2,
              "a softmax over all entries at once": lambda x: np.exp(x) / np.exp(x).sum(),
              "exp(x), not divided by its sum": np.exp}

SLOPE = r"(grad|gradient|deriv|derivative|prime|df)$"  # a method with the derivative of an activation


def close(given: Any, true: Any, tolerance: float = 1e-5) -> bool:
    given, true = np.asarray(given), np.asarray(true)
    if given.dtype.kind not in "fiub" or given.shape != true.shape or not true.size:
        return given.dtype.kind in "fiub" and given.shape == true.shape
    lost = np.isnan(true)
    scale = max(1.0, np.abs(true[~lost]).max(initial=0.0))
    return bool(np.array_equal(lost, np.isnan(given)) and np.all(np.abs(given - true)[~lost] <= tolerance * scale))


# -- the forward ------------------------------------------------------------------------------------------


def own_activations(source: Source, namespace: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, sentence) of each activation of the file that is not what its name says."""
    x = np.linspace(-1.5, 2.0, 12).reshape(3, 4)
    for name in [name for name in source.definitions if name in ACTIVATIONS or callable_class(name, namespace)]:
        right = ACTIVATIONS[name.lower()]
        try:
            own = namespace[name]() if isinstance(namespace[name], type) else namespace[name]
            given = np.asarray(own(x.copy()))
        except Exception:  # it takes other arguments, or fails in use as well: the forward says so
            continue
        if given.shape != x.shape or any(close(given, true(x)) for true in right):
            continue
        is_ = next((f": it is {what}" for what, f in LOOKALIKES.items() if close(given, f(x))), "")
        where = source.place(source.definitions[name].lineno)
        value = f"{name}({x[0, 1]:.3g}) gives {given[0, 1]:.4g}, and {right[0](x)[0, 1]:.4g} is right"
        yield name, f"{name} ({where}) is not what its name says{is_}; {value}"


def callable_class(name: str, namespace: dict[str, Any]) -> bool:
    """Whether a name is that of a class of an activation, whose objects are called."""
    return name.lower() in ACTIVATIONS and "__call__" in vars(namespace.get(name, object))


def as_named(name: str, namespace: dict[str, Any], k: int = 0) -> Any:
    """The activation that a name of the file says, of a softmax one of three; a class in place of a class."""
    right, own = (3 * ACTIVATIONS[name.lower()])[k], namespace[name]
    return type(name, (own,), {"__call__": lambda self, x: right(x)}) if isinstance(own, type) else right


def right_activations(source: Source, namespace: dict[str, Any]) -> dict[str, Callable]:
    """{name: minigrad's} of the activations of the file that are what their names say, however they are written."""
    found: dict[str, Callable] = {}
    for name in [name for name in ACTIVATIONS if name in source.definitions and name in namespace]:
        left = ACTIVATIONS[name]
        for shape in ((3, 4), (2, 3, 4)):  # one of a matrix alone may fail at the second
            x = np.linspace(-1.5, 2.0, int(np.prod(shape))).reshape(shape)
            with contextlib.suppress(Exception):
                given = namespace[name](x.copy())
                left = [true for true in left if close(given, true(x))]
        if left:
            found[name] = left[0]
    return found


def wrong_slopes(source: Source, namespace: dict[str, Any]) -> Iterator[str]:
    """A sentence on each derivative of an activation of the file, dtanh or Tanh.grad, that is one neither of the
    argument nor of the result."""
    pairs: list[tuple[str, Any, str, Any]] = []
    for name in source.definitions:
        f = namespace.get(name)
        if isinstance(f, type):
            with contextlib.suppress(Exception):  # made from something
                one = f()
                call = next(getattr(one, key) for key in ("__call__", "forward", "f") if hasattr(one, key))
                pairs += [(name, call, f"{name}.{key}", getattr(one, key)) for key in dir(one) if re.match(SLOPE, key)]
        else:
            others = (f"d{name}", f"d_{name}", f"{name}_prime", f"{name}_derivative", f"{name}_deriv", f"{name}_grad")
            pairs += [(name, f, other, namespace[other]) for other in others if other in source.definitions
                      and other in namespace]
    x = np.array([-1.3, -0.4, 0.3, 0.9, 1.6])  # none is at a kink
    for name, f, other, slope in pairs:
        with contextlib.suppress(Exception):  # it takes other arguments
            y, true = f(x), (f(x + 1e-6) - f(x - 1e-6)) / 2e-6
            given = [slope(x.copy()), slope(np.array(y))]
            if np.shape(y) == x.shape and close(f(x[:3]), y[:3]) and not any(close(d, true) for d in given):
                line = source.definitions[other.partition(".")[0]].lineno
                yield (f"{other} ({source.place(line)}) is not the derivative of {name}: at {x[3]:g} it gives "
                       f"{given[0][3]:.4g}, at {name}({x[3]:g}) {given[1][3]:.4g}, and {true[3]:.4g} is right")


def first_difference(source: Source, user: Callable, reference: Callable) -> str:
    """The first value of a user's forward that differs from the true forward's value of that name; "" if none."""
    file = references.__file__
    true, given = (last_bindings(call, at) for call, at in ((reference, file), (user, source.file)))
    for line, name, value in given:
        same = [(at, other) for at, n, other in true if n == name and other.shape == value.shape]
        if same and not any(close(value, other) for _, other in same):
            at, other = max(same, key=lambda pair: pair[0])  # of two lines that bind it, the later
            index = np.unravel_index(np.argmax(np.abs(value - other)), value.shape)
            return (f"{name} ({source.place(line)}) is the first value that differs: {value[index]:.4g} at "
                    f"{list(map(int, index))}, where `{linecache.getline(file, at).strip()}` gives {other[index]:.4g}")
    return ""


def last_bindings(call: Callable, file: str) -> list[tuple[int, str, np.ndarray]]:
    """(line, name, values) of the arrays that have a name, when they changed last, in the order of their making."""
    _, bound = bindings(call, file)
    last = {(one.name, id(one.array)): one for one in bound if one.name.isidentifier() and one.name != "return"}
    return [(one.line, one.name, one.values) for one in last.values()]


# -- the backward -----------------------------------------------------------------------------------------


def not_written(source: Source, name: str, at_any_time: bool = False, method: str = "") -> str:
    """"dxt, da_prev (line 12)" for what a function leaves as None; "its body" for `pass`; "" if all is written.

    at_any_time: also what is None first and assigned again later.
    """
    node, body = source.definitions[name], body_of(source, name, method)
    if body is None:
        return ""
    empty, lines = [], []
    for s in ast.walk(body):
        if is_none(s):
            empty += [base.id for target in s.targets for base in bases(target)]  # type: ignore[attr-defined]
            lines.append(s.lineno)  # type: ignore[attr-defined]
    later = {base.id for s in ast.walk(body) if isinstance(s, (ast.Assign, ast.AugAssign)) and s.lineno not in lines
             for target in (s.targets if isinstance(s, ast.Assign) else [s.target]) for base in bases(target)}
    empty = [n for n in dict.fromkeys(empty) if at_any_time or n not in later]
    if empty:
        return f"{', '.join(empty)} ({source.place(min(lines))})"
    if is_empty(body.body):
        return f"its body ({source.place(body.lineno)})"
    returns = any(isinstance(s, ast.Return) and s.value is not None for s in ast.walk(body))
    may_return = at_any_time and isinstance(node, ast.FunctionDef)
    return f"what it returns ({source.place(body.lineno)})" if may_return and not returns else ""


def passes_over(source: Source, name: str, method: str = "") -> tuple[str, str]:
    """("its loop (line 12)", "collect, which it calls (line 20)") for what a backward leaves empty; "" for each that
    it does not. A method that only raises is abstract."""
    body = body_of(source, name, method)
    if body is None:
        return "", ""
    loop = next((s for s in ast.walk(body) if isinstance(s, ast.For) and is_empty(
        [one for one in s.body if not is_none(one)]) and "range(" in ast.unparse(s.iter)), None)
    functions = [f for f in source.functions_in(name) if f.name in names_called(body) - {body.name}]
    written = {f.name for f in functions if not is_empty(f.body) or isinstance(f.body[-1], ast.Raise)}
    part = next((f for f in functions if f.name not in written), None)
    return (f"its loop ({source.place(loop.lineno)})" if loop else "",
            f"{part.name}, which it calls ({source.place(part.lineno)})" if part else "")


def body_of(source: Source, name: str, method: str) -> ast.FunctionDef | None:
    """The definition of a function, or of a method of a class."""
    return next((n for n in ast.walk(source.definitions[name]) if isinstance(n, ast.FunctionDef)
                 and n.name in (name, method)), None)


def is_empty(statements: list[ast.stmt]) -> bool:
    """Whether they only pass or raise, beside a docstring or `…`."""
    return all(isinstance(s, (ast.Pass, ast.Raise)) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
               for s in statements)


def is_none(s: ast.AST) -> bool:
    """Whether a statement assigns None to all its targets."""
    values = s.value.elts if isinstance(s, ast.Assign) and isinstance(s.value, ast.Tuple) else [getattr(s, "value", s)]
    return isinstance(s, ast.Assign) and all(isinstance(v, ast.Constant) and v.value is None for v in values)


def line_of_change(source: Source, name: str, argument: str) -> str:
    """" (line 7)" where a function, or one that it calls, changes the argument of this name in place."""
    for f in source.functions_in(name):
        for s in ast.walk(f):
            targets = [s.target] if isinstance(s, ast.AugAssign) else \
                [t for t in getattr(s, "targets", []) if isinstance(t, ast.Subscript)]
            if any(base.id == argument for t in targets for base in bases(t)):
                return f" ({source.place(s.lineno)})"  # type: ignore[attr-defined]
    return ""


def clipping(source: Source, name: str) -> tuple[str, set[float]]:
    """(" (line 7)" where a function, or one that it calls, clips or asks for a norm; the numbers there)"""
    for n in source.clips(name):
        numbers = {float(c.value) for c in ast.walk(n) if isinstance(c, ast.Constant)
                   and isinstance(c.value, (int, float))}
        return f" ({source.place(n.lineno)})", numbers  # type: ignore[attr-defined]
    return "", set()


def factor(given: dict[str, np.ndarray], free: dict[str, Any]) -> float | None:
    """The number by which all gradients were multiplied; None if it is not one."""
    ones, others = (np.concatenate([np.ravel(d[name]) for name in given]) for d in (given, free))
    found = float(ones @ others / (others @ others)) if np.any(others) else 1.0
    return found if close(ones, found * others, 1e-9) else None


def line_of_float32(source: Source) -> int:
    """The first line that asks for single precision; 0 if none does."""
    return next((n.lineno for n in ast.walk(source.tree) if isinstance(n, ast.Attribute)
                 and n.attr in ("float32", "single")), 0)


def line_of_state(source: Source, name: str) -> str:
    """" (line 7)" where a function adds to a global, to an argument's default value or to an attribute of self, or
    makes a list of self longer that it does not begin anew."""
    for f in source.functions_in(name):
        declared = {n for s in ast.walk(f) if isinstance(s, ast.Global) for n in s.names}
        defaults = [a.arg for a in f.args.args][len(f.args.args) - len(f.args.defaults):]
        own = {n.id for n in ast.walk(f) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - declared
        for s in ast.walk(f):
            if isinstance(s, ast.AugAssign):
                names = {base.id for base in bases(s.target)}
                plain = {a.arg for a in f.args.args} - {*defaults, "self"}
                if names and not names & plain and not names & own:
                    return f" ({source.place(s.lineno)})"
            if isinstance(s, ast.Call) and isinstance(s.func, ast.Attribute) and s.func.attr in ("append", "extend"):
                longer = ast.unparse(s.func.value)
                if longer.startswith("self.") and not any(longer in map(ast.unparse, new.targets) for new in ast.walk(f)
                                                          if isinstance(new, ast.Assign)):
                    return f" ({source.place(s.lineno)})"
    return ""


def bound_of_clipping(values: list[np.ndarray]) -> float | None:
    """The largest magnitude, if several entries have it: the bound at which they were clipped."""
    flat = np.abs(np.concatenate([np.ravel(v) for v in values])) if values else np.zeros(0)
    if not flat.size or not np.all(np.isfinite(flat)):
        return None
    top = flat.max()
    return float(f"{top:.9g}") if top > 0 and np.sum(np.isclose(flat, top, 1e-12, 0)) > 1 else None
