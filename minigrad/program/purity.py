"""Purity of a cell, read off its bytecode: a trace of a cell that only computes has no side effects.

Such code calls ops of NumPy and minigrad, methods of tensors, and user functions and methods that only compute, all by
their names, and stores into its own variables. Any other code may still be pure.

What such code reads from outside is its `Surface`. If that consists of weights and plain values, it decides the trace.
"""

from __future__ import annotations

import dis
import sys
import weakref
from itertools import pairwise
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

from minigrad.engine.arrays import ndarray
from minigrad.engine.op import OPS
from minigrad.engine.ops import __all__ as op_names
from minigrad.engine.tensor import Tensor
from minigrad.program.effects import content
from minigrad.program.ir import PLAIN

TENSOR = frozenset({"T", "shape", "ndim", "size", "dtype", "sum", "mean", "max", "min", "reshape", "transpose",
                    "swapaxes", "squeeze", "detach", "astype", "dot", "clip"})
MODULES = "minigrad", "numpy"
NAMES = frozenset({name for op in OPS.values() for name in (op.name, *(f.__name__ for f in op.numpy))} | {
    *op_names, "pi", "e", "inf", "newaxis", "float32", "float64", "zeros", "ones", "eye", "zeros_like", "ones_like"
    } - {"pad"})  # pad may take a function

# Instructions that change something, call something that may, or take from an iterator
CHANGING = ("STORE_ATTR", "STORE_SUBSCR", "STORE_SLICE", "STORE_GLOBAL", "STORE_NAME", "STORE_DEREF", "DELETE_",
            "IMPORT_", "FOR_ITER", "GET_", "YIELD", "SEND", "BEFORE_", "SETUP_", "LOAD_SPECIAL", "INPLACE_",
            "LOAD_BUILD", "LOAD_NAME", "LOAD_SUPER", "MAKE_FUNCTION", "CALL_FUNCTION", "RAISE")
WITHOUT_EFFECT = ("CACHE", "EXTENDED_ARG", "PRECALL", "KW_NAMES", "COPY_FREE_VARS", "NOP")


class Uses(NamedTuple):
    """Names in a code object.

    called      functions from outside that it calls
    read        (module or tensor from outside, attribute)
    attributes, methods   those of its first argument
    globals     all global names
    whole       names from outside, and of its first argument, that it uses other than by attributes, as by passing them
    """

    called: frozenset[str]
    read: tuple[tuple[str, str], ...]
    attributes: frozenset[str]
    methods: frozenset[str]
    globals: tuple[str, ...]
    whole: frozenset[str]


def only_computes(cell: Any) -> bool:
    """Whether a cell certainly has no side effects, by its code and the objects that it names now."""
    return function_computes(*function_of(cell), ())


def function_of(cell: Any) -> tuple[Any, Any]:
    """The function of a cell, and its first argument if it is a method or a callable object."""
    if isinstance(cell, MethodType):
        return cell.__func__, cell.__self__
    return (cell, None) if isinstance(cell, FunctionType) else (type(cell).__call__, cell)


def function_computes(function: Any, owner: Any, callers: tuple) -> bool:
    """The same for a function. owner: its first argument if it is a method; callers: code of the functions around."""
    if not isinstance(function, FunctionType) or function.__code__ in callers:
        return False
    code, callers = function.__code__, (*callers, function.__code__)
    if (key := id(code)) not in KNOWN:
        KNOWN[key] = weakref.ref(code, lambda _: KNOWN.pop(key, None)), uses(code)
    used = known_uses(code)
    if used is None:
        return False
    closed = dict(zip(code.co_freevars, function.__closure__ or ()))

    def outside(name: str) -> Any:
        return content(closed[name]) if name in closed else function.__globals__.get(name)
    if not (all(is_known(outside(name), attribute) for name, attribute in used.read)
            and all(is_op(f := outside(name)) or function_computes(f, None, callers) for name in used.called)):
        return False
    if owner is None:
        return used.attributes <= TENSOR and not used.methods
    kind, own = type(owner), getattr(owner, "__dict__", {})
    return is_plain(kind, used.attributes) and is_plain(kind, frozenset()) and all(
        name not in own and function_computes(getattr(kind, name, None), owner, callers) for name in used.methods)


# {id of living code: (weak reference to it, its uses)}. A dict of code would compare all its constants at a look-up.
KNOWN: dict[int, tuple[weakref.ref, Uses | None]] = {}


def known_uses(code: CodeType) -> Uses | None:
    """The uses of code that was read before; None for any other, and if it may do more than compute."""
    entry = KNOWN.get(id(code))
    return entry[1] if entry else None


def is_known(x: Any, attribute: str) -> bool:
    """Whether the attribute is an op of minigrad or NumPy, or a property or method of a tensor or array."""
    if isinstance(x, ModuleType):
        return x.__name__ in MODULES and attribute in NAMES
    return x.__class__ in (Tensor, ndarray) and attribute in TENSOR


def is_op(x: Any) -> bool:
    return getattr(x, "__name__", None) in NAMES and str(getattr(x, "__module__", "numpy")).partition(".")[0] in MODULES


def is_plain(kind: type, attributes: frozenset[str]) -> bool:
    """Whether reading these attributes of an instance runs no code."""
    return (kind.__getattribute__ is object.__getattribute__ and not hasattr(kind, "__getattr__")
            and all(isinstance(getattr(kind, name, None), (type(None), MemberDescriptorType)) for name in attributes))


def uses(code: CodeType) -> Uses | None:
    """Return the names in a code object, or None if it may do more than compute."""
    called, read, attributes, methods = set(), set(), set(), set()

    def is_outside(instruction: Any) -> bool:
        return instruction.opname == "LOAD_DEREF" and instruction.argval in code.co_freevars
    if any(isinstance(x, tuple) and "out" in x for x in code.co_consts):
        return None
    found = [now for now in dis.get_instructions(code) if now.opname not in WITHOUT_EFFECT]
    for before, now, after in zip(found, found[1:], [*found[2:], found[-1]]):
        if now.opname.startswith(CHANGING) or (now.opname == "BINARY_OP" and now.argrepr.endswith("=")):
            return None
        if now.opname == "PUSH_NULL":  # follows the called function; precedes it before Python 3.13
            function = before if sys.version_info >= (3, 13) else after
            if is_outside(function):
                called.add(function.argval)
            elif not (before.opname == "LOAD_ATTR" and before.argval in NAMES):
                return None
        of_global, reads = before.opname == "LOAD_GLOBAL", now.opname in ("LOAD_ATTR", "LOAD_METHOD")
        if of_global and "NULL" in before.argrepr and not reads:
            called.add(before.argval)
        if reads:
            of_method = now.opname == "LOAD_METHOD" or "NULL" in now.argrepr
            if of_global or is_outside(before):
                read.add((before.argval, now.argval))
            elif is_first_argument(before, code):
                (methods if of_method and now.argval not in TENSOR else attributes).add(now.argval)
            elif now.argval not in TENSOR:
                return None
    names = dict.fromkeys(now.argval for now in found if now.opname == "LOAD_GLOBAL")
    whole: set[str] = set()
    for now, after in pairwise(found):
        if now.opname in ("LOAD_GLOBAL", "LOAD_DEREF") or "LOAD_FAST" in now.opname:
            *before_last, last = now.argval if isinstance(now.argval, tuple) else (now.argval,)
            whole |= {*before_last} if after.opname in ("LOAD_ATTR", "LOAD_METHOD") else {*before_last, last}
    return Uses(frozenset(called), tuple(sorted(read)), frozenset(attributes), frozenset(methods), tuple(names),
                frozenset(whole))


class Surface:
    """What a cell that only computes reads from outside.

    complete  whether `key` decides the trace of the cell, beside the shapes of its arguments
    key       code, ops, plain values, and kinds of tensors, in the order in which they are found
    tensors   the tensors; the key holds which of them are one

    A value could steer a trace, by a branch, an index or an option, so arrays make a surface incomplete. A tensor that
    requires gradients and has two entries or more is different: in a trace nothing but an op can read its values.
    """

    def __init__(self, cell: Any):
        self.key: list[Any] = []
        self.tensors: list[Tensor] = []
        self.ids: list[int] = []
        try:
            self.complete = self.add_function(*function_of(cell), ())
        except RecursionError:  # a list that contains itself
            self.complete = False

    def add_function(self, function: Any, owner: Any, callers: tuple) -> bool:
        """Add a function, and all that it reads; owner and callers as in `function_computes`. False if incomplete."""
        if function.__class__ is not FunctionType or (code := function.__code__) in callers:
            return False
        used = known_uses(code)
        if used is None:
            return False
        self.key.append(code)
        outside = [(name, function.__globals__.get(name, MISSING)) for name in used.globals]
        try:
            outside += zip(code.co_freevars, [cell.cell_contents for cell in function.__closure__ or ()])
        except ValueError:  # a variable without a value
            return False
        for name, x in outside:
            if name in used.called:
                if is_op(x):
                    self.key.append(x)
                elif not self.add_function(x, None, (*callers, code)):
                    return False
            elif x.__class__ is ModuleType and name not in used.whole:
                self.key += [getattr(x, attribute, MISSING) for of, attribute in used.read if of == name]
            elif not self.add_value(x):
                return False
        return self.add_value(function.__defaults__) and self.add_value(function.__kwdefaults__) and (
            owner is None or self.add_owner(owner, used, code.co_varnames[0], (*callers, code)))

    def add_owner(self, owner: Any, used: Uses, first: str, callers: tuple) -> bool:
        """Add the attributes and methods that a method reads by its first argument, the name `first`."""
        kind, own = type(owner), getattr(owner, "__dict__", {})
        return first not in used.whole and is_plain(kind, used.attributes) and all(
            [self.add_value(getattr(owner, name, MISSING)) for name in sorted(used.attributes)]) and all(
            [name not in own and self.add_function(getattr(kind, name, None), owner, callers)
             for name in sorted(used.methods)])

    def add_value(self, x: Any) -> bool:
        kind = x.__class__
        if kind is Tensor:
            array, same = x._array, id(x)
            self.key.append((array.shape, array.dtype, self.ids.index(same) if same in self.ids else None))
            self.tensors.append(x)
            self.ids.append(same)
            return x._tracked and array.size > 1
        if kind is tuple or kind is list or kind is dict:
            self.key.append((kind, tuple(x) if kind is dict else len(x)))
            return all([self.add_value(part) for part in (x.values() if kind is dict else x)]) and (
                kind is not dict or all([key.__class__ in PLAIN for key in x]))
        self.key.append((kind, repr(x) if kind is float else x))
        return kind is float or kind in PLAIN


MISSING = object()


def is_first_argument(instruction: Any, code: CodeType) -> bool:
    if not instruction.opname.startswith("LOAD_FAST"):
        return False
    name = instruction.argval if isinstance(instruction.argval, str) else instruction.argval[-1]
    return name == code.co_varnames[0]
