"""Python source as text: literals, brackets, precedence, and lines broken at the page's width."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import numpy as np

WIDTH = 96  # maximum line length
INLINE = 64  # maximum length of an expression inside another

# Precedence of the operators, as in Python
PRECEDENCE = {">": 0, ">=": 0, "<": 0, "<=": 0, "==": 0, "!=": 0, "|": 1, "&": 2, "+": 3, "-": 3, "*": 4, "/": 4,
              "//": 4, "%": 4, "@": 4, "unary": 5, "**": 6}
ATOM = 9


def quoted(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)


def bracket(parts: list[str], opening: str) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})" if opening == "(" else f"[{', '.join(parts)}]"


def wrapped(part: tuple[str, int], needed: int) -> str:
    text, binds = part
    return text if binds >= needed else f"({text})"


def infix(sign: str, left: tuple[str, int], right: tuple[str, int]) -> tuple[str, int]:
    """`left sign right`, left-associative but for **. A sum right of - and a product right of / keep their brackets."""
    binds = PRECEDENCE[sign]
    if sign == "**":
        return f"{wrapped(left, binds + 1)} ** {wrapped(right, PRECEDENCE['unary'])}", binds
    if binds == 0:
        return f"{wrapped(left, 1)} {sign} {wrapped(right, 1)}", binds
    return f"{wrapped(left, binds)} {sign} {wrapped(right, binds + (sign != '+'))}", binds


def constant(x: Any) -> tuple[str, int]:
    if isinstance(x, np.ndarray) and not np.any(x):
        return f"np.zeros({x.shape}, {dtype_text(x.dtype)})", ATOM
    text = literal(x)
    return text, PRECEDENCE["unary"] if text.startswith("-") else ATOM


class Source(str):
    """Python source among constants and metadata."""

    __repr__ = str.__str__


def literal(x: Any) -> str:
    """Python text for a constant or for metadata."""
    if isinstance(x, np.ndarray) and not x.size:
        return f"np.zeros({x.shape}, {dtype_text(x.dtype)})"
    if isinstance(x, np.ndarray) and x.dtype.kind in "fc" and not np.isfinite(x).all():
        return f"np.array({literal(x.tolist())}, {dtype_text(x.dtype)})"
    if isinstance(x, np.ndarray):
        values = np.array2string(x, separator=", ", threshold=x.size + 1, floatmode="unique").replace("\n", " ")
        return f"np.array({' '.join(values.split())}, {dtype_text(x.dtype)})"
    if isinstance(x, np.dtype) or (isinstance(x, type) and issubclass(x, np.generic)):
        return dtype_text(np.dtype(x))
    if isinstance(x, np.generic):
        return f"{dtype_text(x.dtype)}({literal(x.item())})"
    if isinstance(x, (tuple, list)):
        return bracket([literal(v) for v in x], "(" if isinstance(x, tuple) else "[")
    if isinstance(x, complex) and not np.isfinite(x):
        return f"complex({literal(x.real)}, {literal(x.imag)})"
    if isinstance(x, type) or not isinstance(x, float):
        return x.__name__ if isinstance(x, type) else repr(x)
    return repr(x) if np.isfinite(x) else f'float("{x}")'


def dtype_text(dtype: Any) -> str:
    name = np.dtype(dtype).name
    return "bool" if name == "bool" else f"np.{name}"


def slice_text(index: tuple) -> str:
    def one(i: Any) -> str:
        if isinstance(i, slice):
            text = f"{'' if i.start in (None, 0) else i.start}:{'' if i.stop is None else i.stop}"
            return text if i.step is None else f"{'' if i.start is None else i.start}:{text.split(':')[1]}:{i.step}"
        return "..." if i is Ellipsis else "None" if i is None else literal(i)
    return ", ".join(one(i) for i in index) or "()"


def assignment(name: str, text: str, equals: str = " = ") -> list[str]:
    """`name = text`, broken over several lines if it is too long."""
    return fitted("", name, f"{equals}{text}") if name.startswith("(") else fitted(f"{name}{equals}", text)


def fitted(head: str, text: str, tail: str = "") -> list[str]:
    """head + text + tail, with the text broken over several lines if that is too long."""
    line = f"{head}{text}{tail}"
    return [line] if len(line) <= WIDTH else broken(head, text, tail)


def broken(head: str, text: str, tail: str) -> list[str]:
    """A long expression in brackets over several lines: a tuple at its commas, a sum at its outermost + and -."""
    indent = " " * (len(head) + 1)
    if text.startswith("(") and text.endswith(")") and closes(text):
        text = text[1:-1]
        rows = textwrap.wrap(text, WIDTH - len(indent) - 1, break_long_words=False, break_on_hyphens=False)
    else:
        rows = [""]
        for piece in split_top(text):
            if rows[-1] and len(indent) + len(rows[-1]) + len(piece) > WIDTH - 1:
                rows.append(piece.lstrip())
            else:
                rows[-1] += piece
        if len(rows) == 1:
            return [f"{head}{text}{tail}"]
    lines = [f"{indent}{row}" for row in rows]
    lines[0] = f"{head}({rows[0]}"
    lines[-1] += f"){tail}"
    return lines


def closes(text: str) -> bool:
    """Whether the first bracket closes at the very end."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if depth == 0:
            return i == len(text) - 1
    return False


def split_top(text: str) -> list[str]:
    """Pieces that begin with a + or - outside of all brackets."""
    pieces, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if depth == 0 and text[i:i + 3] in (" + ", " - ") and i > start:
            pieces.append(text[start:i])
            start = i
    return [*pieces, text[start:]]


def mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def function(name: str, arguments: list[str], lines: list[str]) -> str:
    head = fitted(f"def {name}", f"({', '.join(arguments)})", ":")
    return "\n".join([*head, *(f"    {line}".rstrip() for line in lines)])
