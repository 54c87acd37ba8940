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

    arguments  {argument: its name in the text}
    cached     {value that the backward has in any case: its name}; its axes are read before those of other arguments
    free       returns a name that is not taken
    """

    def __init__(self, program: Program, free: Callable[[str], str]):
        self.values, self.given, self.free = program.values, program.size_names, free
        self.arguments: dict[Value, str] = {}
        self.cached: dict[Value, str] = {}
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

    def begin_backward(self, cached: dict[Value, str]) -> None:
        self.cached, self.texts = cached, {}

    def arguments_read(self, lines: list[str]) -> set[Value]:
        """The arguments whose shapes the lines read."""
        code = code_of(lines)
        return {v for v, name in self.arguments.items() if mentions(code, f"{name}.shape")}

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
        text = self.unnamed(factor)[0]
        if factor not in self.names:
            self.names[factor] = self.free(self.given[factor])
        self.texts.setdefault(self.names[factor], text)
        return self.names[factor], ATOM

    def unnamed(self, factor: Factor) -> tuple[str, int]:
        if not isinstance(factor, Axis):
            return infix(factor.sign, self.size(factor.left), self.size(factor.right))
        argument = self.values[factor.argument]
        if argument not in self.cached:
            for value, name in self.cached.items():
                for axis, n in enumerate(value.shape):
                    if isinstance(n, Size) and n.terms == {(factor,): 1}:
                        return f"{name}.shape[{axis}]", ATOM
        return f"{self.arguments[argument]}.shape[{factor.axis}]", ATOM

    def shape(self, shape: tuple) -> str:
        """The text of a shape: `x.shape`, `(T, *x.shape)`, or size by size."""
        if text := self.known_shape(shape):
            return text
        if text := self.known_shape(shape[1:]):
            return f"({self.size(shape[0])[0]}, *{text})"
        return bracket([self.size(n)[0] for n in shape], "(")

    def known_shape(self, shape: tuple) -> str | None:
        """`x.shape` or `x.shape[1:]` of an x that has these sizes."""
        wanted = [*map(meaning, shape)]
        if any(isinstance(n, Size) for n in shape):
            for value, name in (self.cached | self.arguments).items():
                for start in (0, 1) if len(shape) > 1 else (0,):
                    if [*map(meaning, value.shape[start:])] == wanted:
                        return f"{name}.shape" + ("[1:]" if start else "")
        return None

    def array(self, how: str, shape: tuple, dtype: Any) -> str:
        return f"np.{how}({self.shape(shape)}, {dtype_text(dtype)})"

    def spell(self, x: Any) -> Any:
        """Metadata whose sizes are replaced by their texts."""
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
