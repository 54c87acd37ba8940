r"""A program as mathematics: an equation in LaTeX for each line of the readable printer, in the same order.

The lines and the names are those of readable.py; only their text differs. Names become symbols by one rule (`symbol`):

    c_next, c_prev, x_t    c^{⟨t⟩}, c^{⟨t−1⟩}, x^{⟨t⟩}: the step is a superscript
    ft, cct                f^{⟨t⟩}, c̃^{⟨t⟩}: a letter and t is that letter at step t, a doubled letter has a tilde
    Wf, h0, gain_h         W_f, h_0, gain_h: a letter after a letter, and what follows an underscore, is a subscript
    d_c_next               ∂L/∂c^{⟨t⟩}; δc^{⟨t⟩} if it arrives with the result, and more is added to it
    d_ft_in                ∂L/∂z_f^{⟨t⟩}: z_f is the argument of the function that made f
    tanh_c_next            tanh c^{⟨t⟩}, written out wherever it is used

A product of two arrays entry by entry is ⊙, a matrix product has no sign. An op without a form of its own is
\operatorname{name}, with its metadata as subscripts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.ops import abs as absolute
from minigrad.engine.ops import concatenate as join
from minigrad.engine.ops import (
    cos,
    exp,
    getitem,
    index_add,
    index_select,
    log,
    maximum,
    minimum,
    relu,
    scatter,
    sigmoid,
    sin,
    softmax,
    sqrt,
    square,
    tanh,
    transpose,
)
from minigrad.engine.ops import sum as total
from minigrad.printers.readable import Emitter
from minigrad.printers.text import ATOM, literal
from minigrad.program.ir import DETACH, Value, order_of_axes
from minigrad.program.sizes import Axis, Quotient, Size

Text = tuple[str, int]  # a formula and how tightly it binds, as one of these
COMPARISON, OR, AND, SUM, PRODUCT, SCALED, SCRIPTED = range(7)

FUNCTIONS = {tanh.op: r"\tanh", sigmoid.op: r"\sigma", exp.op: r"\exp", log.op: r"\ln", sin.op: r"\sin",
             cos.op: r"\cos", maximum.op: r"\max", minimum.op: r"\min", softmax.op: r"\operatorname{softmax}",
             relu.op: r"\operatorname{relu}"}
SIGNS = {"+": ("+", SUM), "-": ("-", SUM), "&": (r"\land", AND), "|": (r"\lor", OR), ">": (">", COMPARISON),
         ">=": (r"\geq", COMPARISON), "<": ("<", COMPARISON), "<=": (r"\leq", COMPARISON), "==": ("=", COMPARISON),
         "!=": (r"\neq", COMPARISON), "%": (r"\bmod", PRODUCT), "//": (r"\operatorname{div}", PRODUCT)}
GREEK = ("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi "
         "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega").split()
STEPS = {"next": "t", "t": "t", "prev": "t-1"}


def latex_of(emitter: Emitter) -> str:
    """The equations of an emitter that has written its module: one LaTeX environment, with a gap after the forward."""
    equations = Equations(emitter)
    parts = [[f"{left} &= {right}" for left, right in lines]
             for lines in (equations.forward_lines(), equations.backward_lines())]
    body = " \\\\[2ex]\n".join(" \\\\\n".join(part) for part in parts if part)
    return "\n".join([r"\begin{aligned}", *body.splitlines(), r"\end{aligned}"])


class Equations:
    """The equations of a program whose lines and names an emitter has chosen."""

    def __init__(self, emitter: Emitter):
        self.emitter, self.program = emitter, emitter.program
        self.symbols: dict[str, str] = {}  # {name: symbol}; no two names share one, and arguments choose first
        self.constants: list[Any] = []
        self.backward = {*self.program.backward, *self.program.seeds.values()}
        self.arriving = {seed for y, seed in self.program.seeds.items()
                         if self.program.total.get(y) not in (seed, None)}
        for leaf in emitter.leaves:
            self.symbol(emitter.names[leaf])

    def forward_lines(self) -> list[tuple[str, str]]:
        lines = [self.line(v) for v in self.program.forward if v in self.emitter.names and not self.is_function_of(v)]
        result = self.program.result
        if isinstance(result, Value) and result not in self.emitter.names:
            lines.append((self.symbol("output"), self.formula(result)[0]))
        return lines

    def backward_lines(self) -> list[tuple[str, str]]:
        lines = [self.line(v) for v in self.program.backward if v in self.emitter.names]
        written = {left for left, _ in lines}
        for leaf, g in self.program.gradients.items():
            left = self.gradient(self.emitter.names[leaf])
            right = "0" if g is None else self.formula(g)[0]
            if left not in written and left != right:
                lines.append((left, right))
        return lines

    def line(self, value: Value) -> tuple[str, str]:
        return self.formula(value)[0], self.formula(value, top=True)[0]

    def is_function_of(self, value: Value) -> bool:
        """Whether the printer named a value of the forward after its op and its input: tanh_c."""
        names, (x, *others) = self.emitter.names, value.inputs or (None,)
        return value not in self.backward and not others and x in names and \
            names[value] == f"{value.op.name}_{names[x]}"

    # -- names --------------------------------------------------------------------------------------------------

    def name(self, value: Value) -> str:
        name = self.emitter.names[value]
        if value not in self.backward or not name.startswith("d_"):
            return self.symbol(name)
        if value in self.arriving:
            return rf"\delta {self.named(name[2:])}"
        return self.gradient(name[2:])

    def gradient(self, of: str) -> str:
        return rf"\frac{{\partial L}}{{\partial {self.named(of)}}}"

    def named(self, name: str) -> str:
        """The symbol of what d_name is the gradient of."""
        for value, known in self.emitter.names.items():
            if known == name and self.is_function_of(value):
                return self.formula(value, top=True)[0]
        inside = re.fullmatch(r"(\w+)_in((?:_\d+)?)", name)
        if inside and name not in self.emitter.names.values():
            return self.unique(f"{name} ", argument_of(self.symbol(inside[1]), inside[2]))
        return self.symbol(name)

    def symbol(self, name: str) -> str:
        return self.unique(name, symbol(name))

    def unique(self, name: str, wanted: str) -> str:
        """The symbol of a name: the wanted one, or the name itself if another name has it."""
        if name not in self.symbols:
            taken = wanted in self.symbols.values()
            self.symbols[name] = upright(name.strip()) if taken else wanted
        return self.symbols[name]

    # -- formulas -------------------------------------------------------------------------------------------------

    def formula(self, value: Value, top: bool = False) -> Text:
        """The formula of a value: its symbol, or (at the right of its own line) what computes it."""
        if value.is_constant:
            return self.constant(value.constant)
        if value in self.emitter.names and not top and not self.is_function_of(value):
            return self.name(value), ATOM
        op, parts = value.op, [self.formula(a) for a in value.inputs]
        if op is DETACH:
            return parts[0]
        if op in FORMS:
            return FORMS[op](self, value, parts)
        if op in FUNCTIONS:
            return self.call(FUNCTIONS[op], parts, value)
        if op.infix and len(parts) == 1:
            sign = {"-": "-", "~": r"\lnot "}.get(op.infix, op.infix)
            return f"{sign}{within(parts[0], PRODUCT)}", SUM
        if op.infix:
            return self.infix(op.infix, value, *parts)
        return self.call(rf"\operatorname{{{escaped(op.name)}}}", parts, value)

    def infix(self, sign: str, value: Value, left: Text, right: Text) -> Text:
        a, b = value.inputs
        if sign == "@":
            return rf"{within(left, SCALED)} \, {within(right, SCRIPTED)}", SCALED
        if sign == "/":
            return rf"\frac{{{left[0]}}}{{{right[0]}}}", SCRIPTED
        if sign == "**":
            return f"{base(left)}^{{{right[0]}}}", SCRIPTED
        if sign == "*" and a is b:
            return self.squared(a), SCRIPTED
        if sign == "*" and a.shape and b.shape:
            return rf"{within(left, PRODUCT)} \odot {within(right, PRODUCT + 1)}", PRODUCT
        if sign == "*":
            number, other = (left, right) if not a.shape else (right, left)
            return rf"{within(number, SCALED)} \, {within(other, SCALED)}", SCALED
        text, binds = SIGNS[sign]
        return f"{within(left, binds)} {text} {within(right, binds + (sign != '+'))}", binds

    def squared(self, x: Value) -> str:
        """x² entry by entry; of a function, f² (x)."""
        if x.op in FUNCTIONS and len(x.inputs) == 1 and (
                x not in self.emitter.names or self.is_function_of(x)):
            return self.call(rf"{FUNCTIONS[x.op]}^{{2}}", [self.formula(x.inputs[0])], x)[0]
        return f"{base(self.formula(x))}^{{2}}"

    def call(self, function: str, parts: list[Text], value: Value) -> Text:
        """function_{metadata}(arguments), with the metadata that is not the default."""
        given = [rf"\mathrm{{{escaped(key)}}}={self.metadata(x)}" for key, x in value.metadata.items()
                 if key != "part" and repr(x) != repr(value.op.defaults[key])]
        if "part" in value.metadata:
            given.append(str(value.metadata["part"]))
        subscript = f"_{{{', '.join(given)}}}" if given else ""
        return rf"{function}{subscript}\left({', '.join(text for text, _ in parts)}\right)", ATOM

    def constant(self, x: Any) -> Text:
        if np.ndim(x):
            if not np.any(x):
                return "0", ATOM
            known = [i for i, other in enumerate(self.constants) if np.array_equal(other, x, equal_nan=True)]
            self.constants += [] if known else [np.asarray(x, float)]
            return rf"\mathbf{{C}}_{{{(known or [len(self.constants) - 1])[0] + 1}}}", ATOM
        return number(x)

    def metadata(self, x: Any) -> str:
        if isinstance(x, slice):
            start, stop = ("" if bound in (0, None) else self.metadata(bound) for bound in (x.start, x.stop))
            return f"{start}{{:}}{stop}" + (f"{{:}}{x.step}" if x.step is not None else "")
        if isinstance(x, tuple):
            return ", ".join(map(self.metadata, x))
        if isinstance(x, Size):
            return self.size(x)
        if isinstance(x, np.ndarray):
            return rf"\left[{', '.join(literal(i) for i in x.ravel()[:4])}{', …' * (x.size > 4)}\right]"
        if x is Ellipsis:
            return r"\ldots"
        return str(x) if isinstance(x, int) and not isinstance(x, bool) else upright(literal(x))

    def size(self, n: int) -> str:
        """A size: a sum of products of the user's names for axes, or of |x|, the first length of x."""
        if not isinstance(n, Size):
            return str(n)
        text = ""
        for product, count in sorted(n.terms.items(), key=lambda term: term[1] < 0):
            parts = [*([str(abs(count))] if abs(count) != 1 or not product else []), *map(self.factor, product)]
            text += ("-" if count < 0 else "+" if text else "") + r" \, ".join(parts)
        return text

    def factor(self, factor: Any) -> str:
        sizes = self.emitter.sizes
        if factor in sizes.given:
            return self.symbol(sizes.factor(factor)[0])
        if isinstance(factor, Axis):
            argument = self.symbol(sizes.arguments[sizes.values[factor.argument]])
            return rf"\left|{argument}\right|" + (f"_{{{factor.axis}}}" if factor.axis else "")
        assert isinstance(factor, Quotient)
        left, right = self.size(factor.left), self.size(factor.right)
        return rf"\lfloor {left} / {right} \rfloor" if factor.sign == "//" else rf"({left} \bmod {right})"


# -- ops with a form of their own: (equations, value, formulas of the inputs) → formula --------------------------------


def transposed(equations: Equations, value: Value, parts: list[Text]) -> Text:
    (x,), axes = value.inputs, value.metadata["axes"]
    if order_of_axes(axes, len(x.shape)) == [1, 0]:
        return rf"{base(parts[0])}^{{\top}}", SCRIPTED
    return equations.call(r"\operatorname{transpose}", parts, value)


def selected(equations: Equations, value: Value, parts: list[Text]) -> Text:
    return f"{base(parts[0], '_')}_{{{equations.metadata(value.metadata['index'])}}}", SCRIPTED


def placed(equations: Equations, value: Value, parts: list[Text]) -> Text:
    index = equations.metadata(value.metadata["index"])
    return rf"\operatorname{{scatter}}_{{{index}}}\left({parts[0][0]}\right)", ATOM


def looked_up(equations: Equations, value: Value, parts: list[Text]) -> Text:
    """P_{:, i}, and for its gradient scatter_{:, i}."""
    index = "{:}, " * value.metadata["axis"] + parts[1][0]
    if value.op is index_select.op:
        return f"{base(parts[0], '_')}_{{{index}}}", SCRIPTED
    return rf"\operatorname{{scatter}}_{{{index}}}\left({parts[0][0]}\right)", ATOM


def joined(equations: Equations, value: Value, parts: list[Text]) -> Text:
    """[a; x]: below one another, [a, x] side by side."""
    axis = value.metadata["axis"]
    mark = "" if axis in (0, 1) else f"_{{{equations.metadata(axis)}}}"
    return rf"\left[{('; ' if axis == 0 else ', ').join(text for text, _ in parts)}\right]{mark}", ATOM


def summed(equations: Equations, value: Value, parts: list[Text]) -> Text:
    axis = value.metadata["axis"]
    over = "" if axis is None else rf"_{{\mathrm{{axis}}\,{equations.metadata(axis)}}}"
    return rf"\sum{over} {within(parts[0], PRODUCT)}", SUM


FORMS: dict[Any, Callable[[Equations, Value, list[Text]], Text]] = {
    transpose.op: transposed, getitem.op: selected, scatter.op: placed,
    index_select.op: looked_up, index_add.op: looked_up, join.op: joined, total.op: summed,
    sqrt.op: lambda equations, value, parts: (rf"\sqrt{{{parts[0][0]}}}", ATOM),
    square.op: lambda equations, value, parts: (equations.squared(value.inputs[0]), SCRIPTED),
    absolute.op: lambda equations, value, parts: (rf"\left|{parts[0][0]}\right|", ATOM)}


# -- symbols and numbers -----------------------------------------------------------------------------------------------


def symbol(name: str) -> str:
    r"""The symbol of a name, by the rule at the top of this file: c_next → c^{\langle t \rangle}."""
    first, *rest = name.split("_")
    if not name.isidentifier() or "" in (first, *rest):
        return upright(name)
    base, subscripts, step = letters(first)
    for part in rest:
        if part in STEPS and step is None:
            step = STEPS[part]
        else:
            subscripts.append(part)
    return scripted(base, subscripts, step)


def letters(word: str) -> tuple[str, list[str], str | None]:
    """(base, subscripts, step) of the first part of a name."""
    if word in GREEK:
        return rf"\{word}", [], None
    if len(word) == 1:
        return word, [], None
    if len(word) == 2 and word[1] == "t":
        return word[0], [], "t"
    if len(word) == 3 and word[2] == "t" and word[0] == word[1]:
        return rf"\tilde{{{word[0]}}}", [], "t"
    if len(word) == 2 or word[1:].isdecimal():
        return word[0], [word[1:]], None
    return upright(word), [], None


def scripted(base: str, subscripts: list[str], step: str | None) -> str:
    below = ", ".join(part if len(part) == 1 or part.isdecimal() else upright(part) for part in subscripts)
    return base + (f"_{{{below}}}" if below else "") + (rf"^{{\langle {step} \rangle}}" if step else "")


def argument_of(symbol: str, number: str) -> str:
    """z with the symbol as its subscript, at the same step."""
    name, _, step = symbol.partition("^")
    return f"z_{{{name}{number.replace('_', ', ')}}}" + (f"^{step}" if step else "")


def upright(text: str) -> str:
    return rf"\mathrm{{{escaped(text)}}}"


def escaped(text: str) -> str:
    return re.sub(r"([_%&#$])", r"\\\1", text)


def number(x: Any) -> Text:
    """A number, as 0.5, 10^{-5} or ∞."""
    x = x.item() if hasattr(x, "item") else x
    if isinstance(x, bool):
        return upright(str(x)), ATOM
    if isinstance(x, complex):
        return f"({x.real:g} {x.imag:+g} \\, i)", ATOM
    if x != x:
        return upright("NaN"), ATOM
    if abs(x) == float("inf"):
        return r"\infty" if x > 0 else r"-\infty", ATOM if x > 0 else SUM
    mantissa, _, power = repr(int(x) if x == int(x) and abs(x) < 1e15 else x).partition("e")
    if power:
        times = "" if mantissa == "1" else rf"{mantissa} \cdot "
        return f"{times}10^{{{int(power)}}}", SCALED if x > 0 else SUM
    return mantissa, ATOM if x >= 0 else SUM


def within(part: Text, needed: int) -> str:
    text, binds = part
    return text if binds >= needed else rf"\left({text}\right)"


def base(part: Text, script: str = "^") -> str:
    """A formula that takes a script: in brackets, unless it is a symbol without one."""
    text, binds = part
    bare = binds == ATOM and script not in text and not text.startswith(r"\frac") and r"\left(" not in text
    return text if bare else rf"\left({text}\right)"
