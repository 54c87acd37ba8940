"""Entrywise ops as C expressions.

An op states its text as the trait `c`: a template of its inputs, of {s} (f32 or f64), {f} (C's suffix) and {type} (of
the result), or a function of the metadata that returns one, or None if it is not printed. A comparison or an arithmetic
op is C's own operator; all other ufuncs, and minigrad's own ops, are calls of `mg_<name>` (c_math.py), or a ufunc of
the function of C's library that has the same name.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from minigrad.engine.op import Op
from minigrad.engine.ops import power, where
from minigrad.printers import c_math
from minigrad.program.ir import Value

TYPES = {"float32": "float", "float64": "double", "int64": "int64_t", "int32": "int32_t", "bool": "bool"}
ARITHMETIC, COMPARISON = {"+", "-", "*", "/"}, {"<", "<=", ">", ">=", "==", "!="}
# of C's library, where it has NumPy's name
LIBRARY = {"hypot", "fabs", "cbrt", "exp2", "sinh", "cosh", "tan", "copysign", "nextafter"}
CALL = re.compile(r"\bmg_\w+_f(?:32|64)\b")
MOST_FACTORS = 4  # xⁿ is a product up to this n


class NotInC(Exception):
    """A program, or one of its values, that is not printed as C; the message says why."""


def c_type(dtype: Any) -> str:
    name = np.dtype(dtype).name
    if name not in TYPES:
        raise NotInC(f"it computes with {name}")
    return TYPES[name]


def number(x: Any, dtype: Any) -> str:
    """A number as a C literal of this dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        return str(int(x))
    with np.errstate(over="ignore"):
        x = float(dtype.type(x))
    if math.isnan(x):
        return "NAN"
    if math.isinf(x):
        return "INFINITY" if x > 0 else "-INFINITY"
    text = repr(x) if dtype == np.float64 else np.format_float_scientific(np.float32(x), trim="0")
    text = repr(float(text)) if float(text) == float(repr(float(text))) else text
    return f"{text}f" if dtype == np.float32 else text


def suffix(dtype: Any) -> str:
    return "f32" if dtype == np.float32 else "f64"


def operand_dtypes(value: Value) -> list[Any]:
    """The dtype in which each operand takes part: that of the result; what a comparison compares in; for a condition
    its own."""
    own = [a.dtype for a in value.inputs]
    typed = [d for d in own if d is not None]
    if value.op.infix in COMPARISON:
        return [np.result_type(*typed, *(a.constant for a in value.inputs if a.dtype is None))] * len(own)
    if value.dtype == bool or len(own) == 1:
        return [d or np.asarray(a.constant).dtype for d, a in zip(own, value.inputs)]
    if value.op is where.op:
        return [own[0] or np.dtype(bool), value.dtype, value.dtype]
    return [value.dtype] * len(own)


def expression(value: Value, operands: list[str]) -> str:
    """The C expression of an entrywise value; the operands have the types that `operand_dtypes` says."""
    op, dtype = value.op, value.dtype
    template = power_template(value) if op is power.op else op.c(**value.metadata) if callable(op.c) else op.c
    if template is None:
        template = derived(op, value)
    texts = {"type": c_type(dtype), "s": suffix(dtype), "f": "f" if dtype == np.float32 else ""}
    operand = dict(zip(op.arrays, operands))

    def filled(found: re.Match) -> str:
        if found[1] in texts:
            return texts[found[1]]
        text, before, after = operand[found[1]], template[:found.start()].rstrip(), template[found.end():].lstrip()
        alone = before[-1:] in ("(", ",") and after[:1] in (")", ",")
        return text if alone or binding(text) > around(before, after) else f"({text})"
    return re.sub(r"\{(\w+)\}", filled, template)


# How tightly operators bind; what is looser than its surroundings needs brackets
BINDING = {"?": 0, ":": 0, "||": 1, "&&": 2, "==": 3, "!=": 3, "<": 4, "<=": 4, ">": 4, ">=": 4, "+": 5, "-": 5, "*": 7,
           "/": 7}
TIGHTEST = 9


def around(before: str, after: str) -> int:
    """The precedence of the operators around an operand in a template."""
    left = re.search(r"(\|\||&&|[<>=!]=|[-+*/<>?:!)])$", before)
    right = re.match(r"(\|\||&&|[<>=!]=|[-+*/<>?:])", after)
    if left and (left[1] in ("!", ")") or left[1] == before == "-"):
        return TIGHTEST - 1
    held = BINDING[left[1]] if left else -1
    return max(held, BINDING[right[1]] - 1 if right else -1) if left is None or left[1] != "?" else 0


def binding(text: str) -> int:
    """How tightly the loosest operator of a text binds, outside of its brackets."""
    depth, loosest, operand = 0, TIGHTEST, False
    for token in re.findall(r"[\w.]+(?<=e)[+-]\d+f?|[\w.]+|\|\||&&|[<>=!]=|[^\s\w]", text):
        if token in "([":
            depth, operand = depth + 1, False
        elif token in ")]":
            depth, operand = depth - 1, True
        elif token in BINDING and depth == 0:
            loosest = min(loosest, BINDING[token] if operand else TIGHTEST - 1)
            operand = False
        elif token == "!" and depth == 0:
            loosest = min(loosest, TIGHTEST - 1)
        else:
            operand = True
    return min(loosest, TIGHTEST - 1) if text.startswith("(") and not closes(text) and loosest == TIGHTEST else loosest


def closes(text: str) -> bool:
    """Whether the first bracket closes at the very end."""
    depth = 0
    for n, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return n == len(text) - 1
    return False


def derived(op: Op, value: Value) -> str:
    """The template of an op that states none."""
    names = [f"{{{name}}}" for name in op.arrays]
    if op.infix in ARITHMETIC or op.infix in COMPARISON:
        if value.dtype == bool and op.infix in ARITHMETIC:
            raise NotInC(f"{op.name} of booleans is not printed")
        return f"{op.infix}{names[0]}" if len(names) == 1 else f" {op.infix} ".join(names)
    ours = op.forward is not None and op.forward.__module__.startswith("minigrad.")
    function = op.ufunc.__name__ if op.ufunc is not None else op.name if ours and op.elementwise else None
    if value.dtype.kind == "f":
        if f"mg_{function}_{suffix(value.dtype)}" in c_math.NAMES:
            return f"mg_{function}_{{s}}({', '.join(names)})"
        if op.ufunc is not None and function in LIBRARY:
            return f"{function}{{f}}({', '.join(names)})"
    raise NotInC(f"{op.name} has no C text")


def power_template(value: Value) -> str:
    _, exponent = value.inputs
    n = exponent.constant if exponent.is_constant and np.ndim(exponent.constant) == 0 else None
    small = n is not None and n == int(n) and 1 <= n <= MOST_FACTORS
    if small:
        return " * ".join(["{a}"] * int(n))
    if value.dtype.kind != "f":
        raise NotInC("an integer to a power is not printed")
    return {0.5: "sqrt{f}({a})", -1: "1 / {a}"}.get(n, "mg_power_{s}({a}, {b})")


def called(lines: list[str]) -> set[str]:
    """The functions of c_math.py that these lines call."""
    return {name for line in lines for name in CALL.findall(line)}
