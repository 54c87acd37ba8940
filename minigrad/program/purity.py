"""Purity of a cell, read off its bytecode: a trace of a cell that only computes has no side effects.

Such code calls ops of NumPy and minigrad, methods of tensors, and user functions and methods that only compute, all by
their names, and stores into its own variables. Any other code may still be pure.
"""

from __future__ import annotations

import dis
import sys
import weakref
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

from minigrad.engine.arrays import ndarray
from minigrad.engine.op import OPS
from minigrad.engine.tensor import Tensor
from minigrad.program.effects import content

TENSOR = frozenset({"T", "shape", "ndim", "size", "dtype", "sum", "mean", "max", "min", "reshape", "transpose",
                    "swapaxes", "squeeze", "detach", "astype", "dot", "clip"})
MODULES = "minigrad", "numpy"
NAMES = frozenset({name for op in OPS.values() for name in (op.name, *(f.__name__ for f in op.numpy))} | {
    "pi", "e", "inf", "newaxis", "float32", "float64", "zeros", "ones", "eye", "zeros_like", "ones_like", "split",
    "tanh", "sigmoid", "relu", "softmax", "concatenate", "stack", "where"})

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
    """

    called: frozenset[str]
    read: frozenset[tuple[str, str]]
    attributes: frozenset[str]
    methods: frozenset[str]


def only_computes(cell: Any) -> bool:
    """Whether a cell certainly has no side effects, by its code and the objects that it names now."""
    if isinstance(cell, MethodType):
        return function_computes(cell.__func__, cell.__self__, ())
    if isinstance(cell, FunctionType):
        return function_computes(cell, None, ())
    return function_computes(type(cell).__call__, cell, ())


def function_computes(function: Any, owner: Any, callers: tuple) -> bool:
    """The same for a function. owner: its first argument if it is a method; callers: code of the functions around."""
    if not isinstance(function, FunctionType) or function.__code__ in callers:
        return False
    code, callers = function.__code__, (*callers, function.__code__)
    if code not in KNOWN:
        KNOWN[code] = uses(code)
    used = KNOWN[code]
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


KNOWN: weakref.WeakKeyDictionary[CodeType, Uses | None] = weakref.WeakKeyDictionary()


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
    return Uses(frozenset(called), frozenset(read), frozenset(attributes), frozenset(methods))


def is_first_argument(instruction: Any, code: CodeType) -> bool:
    if not instruction.opname.startswith("LOAD_FAST"):
        return False
    name = instruction.argval if isinstance(instruction.argval, str) else instruction.argval[-1]
    return name == code.co_varnames[0]
