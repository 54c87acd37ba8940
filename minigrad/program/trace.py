"""Run a function once on symbols and record its ops: the forward program and, by the engine's own sweep and rules, the
backward program.

A `Symbol` is a Tensor without values, which cannot be used after its trace. The tracer is the watcher that an op's
function calls in place of its forward (`context.watcher`), so every op call, the user's and the engine's, becomes a
`Value` of the program. The user's names are read from the local variables of each function as it returns.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from cProfile import Profile
from operator import attrgetter
from types import FrameType
from typing import Any

import numpy as np

from minigrad.engine.anomaly import is_own_frame, user_line
from minigrad.engine.arrays import ndarray
from minigrad.engine.backward import sweep
from minigrad.engine.context import no_grad, recording, watcher
from minigrad.engine.messages import name_of
from minigrad.engine.op import PART, Op
from minigrad.engine.ops import copy
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor, fill, new, next_index, wrap
from minigrad.program.effects import Surroundings


class TraceError(TypeError):
    """A traced function needs a value; the message names the user's line."""


class NoAttribute(TraceError, AttributeError):
    """An attribute that tensors do not have, though arrays may: x.sort(), x.trace()."""


def refuse(what: str, instead: str) -> Callable:
    def method(self, *args, **kwargs):
        raise TraceError(f"{what} {user_line()}: while a function is traced its values are unknown; {instead}, "
                         "or use the eager engine (mg.grad, backward), which follows values")
    return method


class Symbol(Tensor):
    """A tensor of unknown values: only its shape and dtype are those of its `example`.

    sizes  its shape as a tuple of `Size`s, if the tracer keeps track of them (source_tracer.py), else None
    """

    __slots__ = ("_inputs", "_mask", "_metadata", "_op", "example", "number", "sizes", "tracer")  # its own node
    is_symbol = True

    @property
    def _array(self) -> ndarray:
        if self.tracer.over:
            raise TraceError(f"a tensor of shape {self.shape} was kept by a function that minigrad traced, and is used "
                             f"{user_line()}: it never had values; let the function return it")
        return self.example

    shape = property(lambda self: self.example.shape if self.sizes is None else self.sizes)
    dtype = property(lambda self: self.example.dtype)
    ndim = property(lambda self: self.example.ndim)
    size = property(lambda self: self.example.size)

    data = property(refuse("the values of a tensor were asked for", "compute with the tensor itself"))
    item = tolist = __float__ = __int__ = __complex__ = __index__ = refuse(
        "a tensor was turned into a number", "keep it a tensor; instead of array[i] = x, collect the numbers in a "
        "list and mg.stack them")
    __array__ = numpy = refuse(
        "a tensor was turned into an array", "use minigrad's ops and keep it a tensor; instead of filling an array by "
        "array[...] = x, join the parts by np.concatenate, or collect them in a list and mg.stack them; to look up "
        "entries of an array use mg.take(array, i, axis=…)")
    __bool__ = refuse("there is a branch on the value of a tensor", "use mg.where")

    def __getattr__(self, name: str):
        if name.startswith("__"):  # Python and NumPy look for optional methods
            raise AttributeError(name)
        raise NoAttribute(f"a tensor has no attribute {name!r}; it was asked for {user_line()}: use a function of "
                          "minigrad or NumPy on the tensor, or declare an op")

    __format__ = refuse("the value of a tensor was printed", "print after the call")
    __repr__ = __str__ = object.__repr__


def symbol(tracer: Tracer, example: Any, tracked: bool, sizes: tuple | None = None) -> Symbol:
    """A Symbol of the shape and dtype of an example (for an op of several results: a tuple of examples)."""
    out = new(Symbol)
    out.tracer, out.example, out.sizes, out.number = tracer, example, sizes, None
    out._op = out._inputs = out._metadata = None
    return fill(out, None, tracked)


class Tracer:
    """The watcher of one trace: it makes the symbols, remembers whose rule made them, and collects names.

    loops   whether a scan in the function is one op of the trace (loops.py); else it is traced step by step
    last    whether the trace's own sweep runs, the last one: its results need no gradients
    over    whether the trace has ended: using its symbols is then an error
    began   the engine's clock at the beginning
    around  the surroundings that the function may change, noted before it does (effects.py), or None
    """

    symbolic = True  # values are examples: a pull within must be written down, and not computed (functional.pullback)

    def __init__(self, loops: bool = False, around: Surroundings | None = None) -> None:
        self.loops, self.last, self.over, self.around = loops, False, False, around
        self.began = next_index()
        # tensors whose values are known, by id, each with the array or symbol that the program uses instead
        self.constants: dict[int, tuple[Tensor, Any]] = {}
        self.current: Tensor | None = None  # the value whose rules are being run, in the backward pass
        self.origin: dict[int, int] = {}  # symbol made in the backward → the value whose rule made it
        self.total: dict[int, Any] = {}  # value → its complete gradient
        self.names: dict[int, str] = {}  # of local variables, by the index of their tensor
        self.written: dict[int, Tensor] = {}  # symbol → the symbol whose text the program has in its place
        self.size_names: dict[Any, str] = {}  # of local variables, by factor (source_tracer.py)
        self.held: list[Any] = []  # the objects that `names` refers to, kept alive

    def __call__(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        if self.constants:
            inputs = tuple([self.without_wrapper(x) for x in inputs])
            if not any(isinstance(x, Tensor) for x in inputs):
                return map_leaves(self.constant, op.forward(*inputs, **metadata))
        token = watcher.set(None)
        try:
            with np.errstate(all="ignore"):  # the values are examples
                y = op.forward(*arrays, **metadata)
        except (ValueError, TypeError, IndexError) as problem:
            raise op.error(problem, arrays, metadata) from problem
        finally:
            watcher.reset(token)
        return self.results(y, tracked and recording.get(), op, inputs, metadata)

    def results(self, y: Any, tracked: bool, op: Op, inputs: tuple, metadata: dict) -> Any:
        out = self.made(y if isinstance(y, tuple) else np.asarray(y), tracked, op, inputs, metadata)
        if isinstance(y, tuple):
            return tuple(self.made(np.asarray(part), tracked, PART, (out,), {"i": i}) for i, part in enumerate(y))
        return out

    def made(self, data: Any, tracked: bool, op: Op, inputs: tuple, metadata: dict) -> Symbol:
        out = symbol(self, data, tracked and (isinstance(data, tuple) or data.dtype.kind in "fc"))
        out._op, out._inputs, out._metadata = op, inputs, metadata
        mask = 0  # now: a pull untracks its own tensors once its function has run
        for i, x in enumerate(inputs if out._tracked else ()):
            if isinstance(x, Tensor) and x._tracked:
                mask |= 1 << i
        out._mask = mask
        if self.current is not None:
            self.origin[out._index] = self.current._index
        return out

    def visit(self, node: Tensor, g: Any) -> None:
        """Called by the sweep before it runs the rules of a node, with the node's complete gradient."""
        self.current = node
        self.total[node._index] = g

    def gradient(self, node: Tensor, op: Op, x: Tensor, d: Any) -> None:
        """Called by the sweep with each gradient that a rule returned."""

    def argument(self, example: ndarray) -> Symbol:
        """A symbol for an argument of the function."""
        return symbol(self, example, example.dtype.kind in "fc")

    def returned(self, result: Any) -> Any:
        """Turn the return value of the function into the result of the trace."""
        return map_leaves(self.without_wrapper, result) if self.constants else result

    def detached(self, x: Tensor) -> Tensor:
        """x without its gradient, by an op that the program and the source contain."""
        with no_grad():
            cut = copy(x)
        is_settled = isinstance(x, Symbol) or id(cut) in self.constants
        return cut if is_settled else self.known(x._array, cut)

    def constant(self, array: Any) -> Tensor:
        """A tensor for an array whose values are known while the function is traced."""
        return self.known(np.asarray(array), np.asarray(array))

    def known(self, array: ndarray, instead: Any) -> Tensor:
        out = wrap(array)
        self.constants[id(out)] = out, instead
        return out

    def without_wrapper(self, x: Any) -> Any:
        return self.constants[id(x)][1] if id(x) in self.constants else x

    def array(self, x: Symbol) -> ndarray | None:
        """The array from outside behind a symbol, or None."""
        return None

    # -- names ------------------------------------------------------------------------------------------

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        """As a function returns, name its tensors after its local variables. A caller's names override a callee's."""
        if event not in ("call", "return") or is_own_frame(frame):
            return
        if event == "call" and self.around is not None:
            self.around.note_frame(frame)
        elif event == "return":
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


@contextlib.contextmanager
def profiled(profile: Callable) -> Iterator[None]:
    """Have Python call `profile` at each call and return; put back the profiler that was installed before. A profiler
    written in C may leave an object that cannot be installed again: then it stays, and `profile` is not called."""
    before = sys.getprofile()
    if not (before is None or callable(before) or isinstance(before, Profile)):
        yield
        return
    sys.setprofile(profile)
    try:
        yield
    finally:
        if before is None or callable(before):
            sys.setprofile(before)
        else:  # a cProfile.Profile, before Python 3.12
            sys.setprofile(None)
            before.enable()


class Trace:
    """The record of one run on symbols.

    arguments   [(name, tree of symbols and constants)], the function's own, then closed-over tensors
    result      the tree of results;  seeds: the gradient symbol of each differentiable result
    gradients   for each argument, the tree of its gradients (None: not differentiable)

    After `close`, using a symbol that f has kept raises TraceError.
    """

    def __init__(self, f: Callable, examples: tuple, tracer: Tracer | None = None):
        self.tracer = tracer = tracer or Tracer()
        leaves, pattern = flatten(examples)
        self.leaves = symbols = [lifted(tracer, leaf) for leaf in leaves]
        args = unflatten(pattern, symbols)
        token, on = watcher.set(tracer), recording.set(True)
        try:
            with profiled(tracer.profile):
                result = f(*args)
            self.result = tracer.returned(result)
            self.inputs = [s for s in symbols if isinstance(s, Symbol)]
            self.arguments = list(zip(argument_names(f, examples), args))
            self.outputs = [y for y in flatten(self.result)[0] if isinstance(y, Tensor)]
            if not flatten(self.result)[0]:
                raise TraceError(f"{name_of(f)} returned {self.result!r}: it must return "
                                 "the tensor that it computes, or a nesting of tensors")
            self.closed = self.closed_over()
            self.arguments += [(self.closed_name(x), x) for x in self.closed]
            self.differentiate()
        except BaseException:
            self.close()
            raise
        finally:
            recording.reset(on)
            watcher.reset(token)

    def close(self) -> None:
        self.tracer.over = True

    def closed_over(self) -> list[Tensor]:
        """Tensors from outside among the inputs of the program, in order of first use; arrays, where the tracer makes
        symbols of them."""
        symbols = all_behind(self.outputs, lambda x: isinstance(x, Symbol))
        used = [a for x in symbols for a in x._inputs or ()] + self.outputs
        return list({x._index: x for x in used if self.is_from_outside(x)}.values())

    def is_from_outside(self, x: Any) -> bool:
        return isinstance(x, Tensor) and (not isinstance(x, Symbol) or self.tracer.array(x) is not None)

    def closed_name(self, x: Tensor) -> str:
        array = self.tracer.array(x) if isinstance(x, Symbol) else None
        return x.name or self.tracer.names.get(x._index if array is None else -id(array)) or (
            "weight" if array is None else "given")

    def differentiate(self) -> None:
        """Run the rules on symbols, from a symbol for the gradient of each result."""
        tracer = self.tracer
        outputs = list({y._index: y for y in self.outputs if y._tracked}.values())
        self.seeds = {y._index: symbol(tracer, example_of(y), False, y.shape) for y in outputs}
        targets = [x for x in self.inputs + self.closed if x._tracked]
        tracer.last, tracer.total, tracer.origin = True, {}, {}  # not those of a gradient that f itself has taken
        found = sweep(outputs, [self.seeds[y._index] for y in outputs], targets, graph=True)
        tracer.current = None
        tracer.total.update(found)
        self.found = found


def all_behind(results: list, is_wanted: Callable[[Tensor], bool], inputs_of: Callable = attrgetter("_inputs")
               ) -> list[Tensor]:
    """The wanted tensors that the results are computed from, and the wanted results themselves, the oldest first."""
    found: dict[int, Tensor] = {}
    stack = list(results)
    while stack:
        x = stack.pop()
        if isinstance(x, Tensor) and x._index not in found and is_wanted(x):
            found[x._index] = x
            stack += inputs_of(x) or ()
    return [found[index] for index in sorted(found)]


def example_of(y: Tensor) -> ndarray:
    return y.example if isinstance(y, Symbol) else y._array


def lifted(tracer: Tracer, leaf: Any) -> Any:
    """A symbol for an array or a float; ints, booleans, strings and the like are constants of the program."""
    if isinstance(leaf, Tensor):
        leaf = leaf._array
    if isinstance(leaf, (ndarray, float, complex, np.inexact)):
        return tracer.argument(np.asarray(leaf))
    return leaf


def argument_names(f: Callable, examples: tuple) -> list[str]:
    """The function's parameter names; x0, x1 … for arguments without one."""
    try:
        parameters = list(inspect.signature(f if inspect.isroutine(f) else f.__call__).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return (named + [f"x{i}" for i in range(len(named), len(examples))])[:len(examples)]
