"""Run a function once on symbols, and write down what it does: the forward program, and, by the engine's own sweep
and the very same rules, its backward program.

A `Symbol` is a Tensor whose values nobody may look at. The tracer stands where `apply` does (`tensor.watcher`), so
every op call, whoever makes it, becomes a `Value` of the program. The user's names are read from the local variables
of each function as it returns.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from minigrad.anomaly import user_line
from minigrad.autodiff import sweep
from minigrad.ops import copy
from minigrad.tensor import PART, Op, Tensor, ndarray, new, next_index, no_grad, recording, watcher
from minigrad.tree import flatten, unflatten


class TraceError(TypeError):
    """A function did something with a value that cannot be written down; the message names the user's line."""


class NoAttribute(TraceError, AttributeError):
    """What a tensor has not, and an array perhaps has: x.sort(), x.trace()."""


def refuse(what: str, instead: str) -> Callable:
    def method(self, *args, **kwargs):
        raise TraceError(f"{what} {user_line()}: while a function is traced its values are unknown; {instead}, "
                         "or use the eager way (mg.grad, backward), which follows values")
    return method


class Symbol(Tensor):
    """A tensor that stands for any values of its shape and dtype."""

    __slots__ = ()

    data = property(refuse("the values of a tensor were asked for", "compute with the tensor itself"))
    item = tolist = __float__ = __int__ = __complex__ = __index__ = refuse(
        "a tensor was turned into a number", "keep it a tensor")
    __array__ = numpy = refuse("a tensor was turned into an array", "use minigrad's ops and keep it a tensor")
    __bool__ = refuse("there is a branch on the value of a tensor", "use mg.where")
    def detach(self) -> Tensor:
        """The same values, through which no gradient flows: as an op, so that it stays a symbol."""
        with no_grad():
            return copy(self)

    def __getattr__(self, name: str):
        if name.startswith("__"):  # Python and NumPy ask whether there is such a method
            raise AttributeError(name)
        raise NoAttribute(f"a tensor has no attribute {name!r}; it was asked for {user_line()}: use a function of "
                          "minigrad or NumPy on the tensor, or declare an op")

    __format__ = refuse("the value of a tensor was printed", "print after the call")
    __repr__ = __str__ = object.__repr__


def symbol(data: Any, tracked: bool, name: str | None = None) -> Symbol:
    """A Symbol of the shape and dtype of data, which is kept for the shapes of what is computed from it."""
    out = new(Symbol)
    out._data = data
    out._tracked = tracked
    out._op = out._inputs = out._metadata = out._watch = out.grad = None
    out.name = name
    out._index = next_index()
    out._version = 0
    return out


class Tracer:
    """The watcher of one trace: it makes the symbols, remembers whose rule made them, and collects names.

    loops  whether a scan may stay a loop; else it is traced step by step
    last   whether the sweep that runs is the last one, the trace's own: no gradient is asked of what it makes
    """

    def __init__(self, loops: bool = False) -> None:
        self.loops, self.last = loops, False
        self.current: Tensor | None = None  # the value whose rules are being run, in the backward pass
        self.origin: dict[int, int] = {}  # symbol made in the backward → the value whose rule made it
        self.total: dict[int, Any] = {}  # value → its complete gradient
        self.names: dict[int, str] = {}  # what a local variable held, by index
        self.held: list[Any] = []  # what `names` speaks of, kept alive

    def __call__(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        token = watcher.set(None)
        try:
            with np.errstate(all="ignore"):  # the values are examples
                y = op.forward(*arrays, **metadata)
        except (ValueError, TypeError, IndexError) as problem:
            raise op.error(problem, arrays, metadata) from problem
        finally:
            watcher.reset(token)
        tracked = tracked and recording.get()
        out = self.made(y if isinstance(y, tuple) else np.asarray(y), tracked, op, inputs, metadata)
        if isinstance(y, tuple):
            return tuple(self.made(np.asarray(part), tracked, PART, (out,), {"i": i}) for i, part in enumerate(y))
        return out

    def made(self, data: Any, tracked: bool, op: Op, inputs: tuple, metadata: dict) -> Symbol:
        out = symbol(data, tracked)
        out._op, out._inputs, out._metadata = op, inputs, metadata
        if self.current is not None:
            self.origin[out._index] = self.current._index
        return out

    def visit(self, node: Tensor, g: Any) -> None:
        """Called by the sweep before it runs the rules of a node, with the node's complete gradient."""
        self.current = node
        self.total[node._index] = g

    def gradient(self, node: Tensor, op: Op, x: Tensor, d: Any) -> None:
        """Called by the sweep with each gradient that a rule gave."""

    # -- names ------------------------------------------------------------------------------------------

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        """As a function returns, its local variables name what they hold. A caller's names go before a callee's."""
        module = frame.f_globals.get("__name__", "")
        if event == "return" and not any(module == own or module.startswith(f"{own}.") for own in ENGINE):
            for name in frame.f_code.co_names:
                if isinstance(frame.f_globals.get(name), Tensor):
                    self.name(name, frame.f_globals[name], depth=0)
            for name, value in frame.f_locals.items():
                self.name(name, value, depth=3)

    def name(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, (Tensor, ndarray)):
            if name.isidentifier() and name.isascii() and not name.startswith("_"):
                self.names[value._index if isinstance(value, Tensor) else -id(value)] = name
                self.held.append(value)
        elif depth and isinstance(value, dict):
            for key, child in value.items():
                self.name(str(key), child, depth - 1)
        elif depth and hasattr(value, "__dict__") and not inspect.ismodule(value) and not callable(value):
            for key, child in vars(value).items():
                self.name(key, child, depth - 1)


ENGINE = ("minigrad.tensor", "minigrad.tree", "minigrad.ops", "minigrad.autodiff", "minigrad.anomaly",
          "minigrad.derive", "minigrad.scan", "contextlib", "numpy")


class Trace:
    """What one run on symbols wrote down.

    arguments   [(name, tree of symbols and constants)], closed-over tensors behind the function's own
    result      the tree of results;  seeds: the gradient symbol of each differentiable result
    gradients   for each argument, the tree of its gradients (None: not differentiable)

    With loops=True a scan in f is one op of the trace (loops.py); else it is traced step by step.
    """

    def __init__(self, f: Callable, examples: tuple, loops: bool = False):
        self.tracer = tracer = Tracer(loops)
        leaves, pattern = flatten(examples)
        self.leaves = symbols = [lifted(leaf) for leaf in leaves]
        args = unflatten(pattern, symbols)
        token, on = watcher.set(tracer), recording.set(True)
        before = sys.getprofile()
        try:
            sys.setprofile(tracer.profile)
            try:
                self.result = f(*args)
            finally:
                if before is None or callable(before):
                    sys.setprofile(before)
                else:  # a cProfile.Profile, before Python 3.12
                    before.enable()
            self.inputs = [s for s in symbols if isinstance(s, Symbol)]
            self.arguments = list(zip(argument_names(f, examples), args))
            self.outputs = [y for y in flatten(self.result)[0] if isinstance(y, Tensor)]
            if not flatten(self.result)[0]:
                raise TraceError(f"{getattr(f, '__name__', 'the function')} returned {self.result!r}: it must return "
                                 "what it computes, a tensor or a nesting of tensors")
            self.closed = self.closed_over()
            self.arguments += [(self.closed_name(x), x) for x in self.closed]
            self.differentiate()
        finally:
            recording.reset(on)
            watcher.reset(token)

    def closed_over(self) -> list[Tensor]:
        """Tensors among the inputs of the program that are no symbols, in order of first use."""
        nodes: dict[int, Tensor] = {}
        stack = list(self.outputs)
        while stack:
            node = stack.pop()
            if node._index not in nodes:
                nodes[node._index] = node
                stack += [x for x in node._inputs or () if isinstance(x, Tensor)] if isinstance(node, Symbol) else []
        used = [x for index in sorted(nodes) for x in nodes[index]._inputs or () if isinstance(nodes[index], Symbol)]
        found = {x._index: x for x in used + self.outputs if isinstance(x, Tensor) and not isinstance(x, Symbol)}
        return list(found.values())

    def closed_name(self, x: Tensor) -> str:
        return x.name or self.tracer.names.get(x._index) or "weight"

    def differentiate(self) -> None:
        """Run the rules on symbols, from a symbol for the gradient of each result."""
        tracer = self.tracer
        outputs = list({y._index: y for y in self.outputs if y._tracked}.values())
        self.seeds = {y._index: symbol(y._data, False) for y in outputs}
        targets = [x for x in self.inputs + self.closed if x._tracked]
        tracer.last = True
        found = sweep(outputs, [self.seeds[y._index] for y in outputs], targets, graph=True)
        tracer.current = None
        tracer.total.update(found)
        self.found = found


def lifted(leaf: Any) -> Any:
    """An array or a float as a symbol; ints, booleans, strings and the like are constants of the program."""
    if isinstance(leaf, Tensor):
        leaf = leaf._data
    if isinstance(leaf, (ndarray, float, complex, np.inexact)):
        data = np.asarray(leaf)
        return symbol(data, data.dtype.kind in "fc")
    return leaf


def argument_names(f: Callable, examples: tuple) -> list[str]:
    """The function's own parameter names, where it has one for each argument."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return (named + [f"x{i}" for i in range(len(named), len(examples))])[:len(examples)]
