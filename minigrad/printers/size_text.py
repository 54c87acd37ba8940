"""Sizes as text: `3 * n + x.shape[0]`, and the line `n = a_prev.shape[0]` of each size that has a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad.printers.text import ATOM, PRECEDENCE, Source, bracket, dtype_text, infix, mentions, wrapped
from minigrad.program.ir import Value
from minigrad.program.simplify import Program
from minigrad.program.sizes import Axis, Factor, Size, meaning


class SizeText:
    """Texts of the sizes of one program.

    sources    {argument: its name in the text}
    free       returns a name that is not taken
    """

    def __init__(self, program: Program, free: Callable[[str], str]):
        self.values, self.given, self.free = program.values, program.size_names, free
        self.sources: dict[Value, str] = {}
        self.names: dict[Factor, str] = {}
        self.texts: dict[str, str] = {}  # by name

    def lines(self, lines: list[str]) -> list[str]:
        """The lines of a function, after one for each size that they name."""
        code, sizes = code_of(lines), []
        for name, text in reversed(self.texts.items()):  # a later size may name an earlier one
            if mentions(code, name):
                sizes.insert(0, f"{name} = {text}")
                code += f"\n{text}"
        return sizes + lines

    def shaped(self, lines: list[str]) -> set[Value]:
        """The arguments whose shapes the lines read."""
        code = code_of(lines)
        return {v for v, name in self.sources.items() if mentions(code, f"{name}.shape")}

    def size(self, n: int) -> tuple[str, int]:
        """The text of a size: a sum of products of the user's names for axes, or of `x.shape[0]`."""
        if not isinstance(n, Size):
            return str(n), ATOM
        text, binds = "", ATOM
        for product, count in sorted(n.terms.items(), key=lambda term: term[1] < 0):
            parts = [self.factor(factor) for factor in product]
            if abs(count) != 1 or not parts:
                parts.insert(0, (str(abs(count)), ATOM))
            term = parts[0]
            for part in parts[1:]:
                term = infix("*", term, part)
            if text:
                term = infix("-" if count < 0 else "+", (text, binds), term)
            elif count < 0:
                term = f"-{wrapped(term, PRECEDENCE['unary'])}", PRECEDENCE["unary"]
            text, binds = term
        return text, binds

    def factor(self, factor: Factor) -> tuple[str, int]:
        if factor not in self.given:
            return self.unnamed(factor)
        if factor not in self.names:
            text = self.unnamed(factor)[0]
            self.names[factor] = name = self.free(self.given[factor])
            self.texts[name] = text
        return self.names[factor], ATOM

    def unnamed(self, factor: Factor) -> tuple[str, int]:
        if not isinstance(factor, Axis):
            return infix(factor.sign, self.size(factor.left), self.size(factor.right))
        return f"{self.sources[self.values[factor.argument]]}.shape[{factor.axis}]", ATOM

    def shape(self, shape: tuple) -> str:
        """The text of a shape: `x.shape` where it is that of an argument, else size by size."""
        for start in (0, 1):
            tail = [factor.argument for n in shape[start:] if isinstance(n, Size)
                    for factor in next(iter(n.terms)) if isinstance(factor, Axis)]
            argument = self.values.get(tail[0]) if tail and len(shape) > start else None
            if argument is not None and argument.op is None and len(argument.shape) == len(shape) - start and (
                    [*map(meaning, argument.shape)] == [*map(meaning, shape[start:])]):
                name = self.sources[argument]
                return f"({self.size(shape[0])[0]}, *{name}.shape)" if start else f"{name}.shape"
        return bracket([self.size(n)[0] for n in shape], "(")

    def array(self, how: str, shape: tuple, dtype: Any) -> str:
        return f"np.{how}({self.shape(shape)}, {dtype_text(dtype)})"

    def spell(self, x: Any) -> Any:
        """Metadata with texts in place of its sizes."""
        if isinstance(x, Size):
            return Source(self.size(x)[0])
        if isinstance(x, slice):
            return slice(*map(self.spell, (x.start, x.stop, x.step)))
        if isinstance(x, tuple) and x and all(isinstance(n, int) for n in x) and any(isinstance(n, Size) for n in x):
            return Source(self.shape(x))
        return tuple(map(self.spell, x)) if isinstance(x, tuple) else x


def code_of(lines: list[str]) -> str:
    """The lines without the comments."""
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))
