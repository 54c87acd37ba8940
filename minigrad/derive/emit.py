"""A program as readable NumPy: the text that is shown, and that runs.

A value that has a name, or is used more than once, is a line of its own; one that is used once stands where it is
used, as long as the line stays short. The forward statement stands as a comment above the lines of the backward
that its rules gave. One program, one text: the same function gives the same bytes.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.derive.simplify import DETACH, LOOP, Program, Value, numbers_of
from minigrad.tensor import OPS, PART, Op

WIDTH = 96  # of a line
INLINE = 64  # of an expression that stands inside another

# How tightly an operator binds, as in Python.
PRECEDENCE = {">": 0, ">=": 0, "<": 0, "<=": 0, "==": 0, "!=": 0, "|": 1, "&": 2, "+": 3, "-": 3, "*": 4, "/": 4,
              "//": 4, "%": 4, "@": 4, "unary": 5, "**": 6}
ATOM = 9

HELPERS = {"sigmoid": """
def sigmoid(x):
    return 0.5 * np.tanh(0.5 * x) + 0.5
""", "scatter": """
def scatter(x, shape, index):
    y = np.zeros(shape, np.asarray(x).dtype)
    np.add.at(y, index, x)
    return y
"""}


class Emitter:
    """Names, statements and text of one program."""

    def __init__(self, program: Program, reserved: frozenset[str] = frozenset(("cache", "d_output"))):
        self.program = program
        self.taken = set(keyword.kwlist) | {"np", *reserved, *helper_names()}
        self.names: dict[Value, str] = {}
        self.helpers: dict[str, str] = {}
        self.bodies: dict[Any, Any] = {}  # of the loops
        self.constants: dict[str, tuple[str, str]] = {}  # arrays that loops use: their names and texts
        self.defined: set[str] = set()  # those that have a line in the function that is written
        self.leaves: list[Value] = []  # the arguments
        self.seeded: set[Value] = set()  # results whose gradients have been taken out of d_output
        self.collect_arguments()
        self.uses = self.count_uses()
        self.kept = self.choose_cache()
        self.name_forward()
        self.statement = self.statements_of_forward()
        self.name_backward()

    # -- what is used how often ---------------------------------------------------------------------------

    def collect_arguments(self) -> None:
        def walk(tree: Any) -> None:
            for child in children(tree):
                walk(child)
            if isinstance(tree, Value) and tree.op is None and not tree.is_constant and tree not in self.names:
                self.leaves.append(tree)
                self.names[tree] = self.free(tree.name)
        for name, tree in self.program.arguments:
            if not isinstance(tree, Value):
                self.taken.add(name)
            walk(tree)

    def count_uses(self) -> dict[Value, int]:
        """How often a value stands in the forward, in the backward, or among the results."""
        uses: dict[Value, int] = {}
        for value in self.program.forward + self.program.backward:
            for a in value.inputs:
                uses[a] = uses.get(a, 0) + 1
        for y in [*values_in(self.program.result), *(g for g in self.program.gradients.values() if g)]:
            uses[y] = uses.get(y, 0) + 1
        return uses

    def choose_cache(self) -> list[Value]:
        """What the backward reads of the forward, in the order of computing."""
        own = set(self.program.backward) | set(self.program.seeds.values())
        read = [a for value in self.program.backward for a in value.inputs]
        read += [g for g in self.program.gradients.values() if g]
        kept = {behind_views(a) for a in read if a not in own and not a.is_constant}
        return [v for v in self.leaves + self.program.forward if v in kept]

    # -- names --------------------------------------------------------------------------------------------

    def free(self, name: str | None) -> str:
        """The name, with a number behind it if it is taken."""
        name = name if name and name.isidentifier() else "t"
        candidate, n = name, 1
        while candidate in self.taken or (candidate == "t" and name == "t") or candidate in vars(builtins):
            candidate, n = f"{name}{n}" if name == "t" else f"{name}_{n + 1}", n + 1
        self.taken.add(candidate)
        return candidate

    def name(self, value: Value, wanted: str | None) -> None:
        self.names[value] = self.free(wanted)

    def label(self, value: Value) -> str | None:
        """What other names call a value."""
        return self.names.get(value)

    def name_in_loop(self, value: Value, hint: str) -> str:
        """The text of a value within a loop: a name, so that it is not computed at every step."""
        if value not in self.names and not value.is_constant and not self.is_free(value):
            self.name(value, value.name or hint)
        return self.expression(value)[0]

    def name_forward(self) -> None:
        """A line for what has a name, is a result, is kept for the backward, or is used more than once."""
        results = set(map(numbers_of, values_in(self.program.result)))
        own = [v for v in self.program.forward]
        forward_uses: dict[Value, int] = {}
        for value in own:
            for a in value.inputs:
                forward_uses[a] = forward_uses.get(a, 0) + 1
        for value in own:
            if value.op is LOOP:
                self.body(value)
            if value.op in (LOOP, PART, DETACH) or (is_view(value) and value not in results):
                continue
            if value.name is None and (value in self.kept or forward_uses.get(value, 0) > 1 or (
                    value in results and len(results) > 1)):
                (x, *others) = value.inputs or (None,)
                if x in self.names and not others and not value.op.infix:
                    value.name = f"{value.op.name}_{self.label(x)}"
                else:
                    value.name = "t"
            if value.name is not None:
                self.name(value, value.name)

    def statements_of_forward(self) -> dict[Value, Value]:
        """For each value of the forward, the value in whose line it stands."""
        line: dict[Value, Value] = {}
        for value in reversed(self.program.forward):
            if value.op is PART:
                continue
            if value in self.names:
                line[value] = value
            line.setdefault(value, value)
            for a in value.inputs:
                if a not in self.names:
                    line.setdefault(a, line[value])
        return line

    def name_backward(self) -> None:
        program = self.program
        for y, seed in program.seeds.items():
            if y is program.result and y not in self.names:
                self.names[seed] = "d_output"
            elif seed not in self.names:
                self.name(seed, f"d_{self.label(y) or 'output'}")
        own = set(program.backward)
        for v, g in program.total.items():  # the gradients of what has a name
            if v in self.names and g in own and g not in self.names:
                seed = program.seeds.get(v)
                if self.uses_up(g, seed) and self.names[seed].isidentifier():
                    self.names[g] = self.names[seed]  # d_c = d_c + …: the seed is used up in this line
                else:
                    self.name(g, f"d_{self.label(v)}")
        for v, g in program.total.items():  # and of what stands inside a line
            if g in own and g not in self.names and self.uses.get(g, 0) > 1:
                line = self.label(self.statement.get(v))
                self.name(g, f"d_{line}_in" if line else "t")
        for value in program.backward:
            if value.op is LOOP:
                self.body(value).name_backward()
            elif value not in self.names and self.uses.get(value, 0) > 1 and not self.is_free(value):
                self.name(value, value.name or "t")

    def uses_up(self, g: Value, seed: Value | None) -> bool:
        """Whether g is a sum that holds the seed, and nothing else does."""
        terms = [g]
        while terms:
            term = terms.pop()
            if term.op is not None and term.op.name in ("add", "subtract"):
                if seed in term.inputs:
                    return self.uses.get(seed) == 1
                terms += [a for a in term.inputs if a not in self.names and self.uses.get(a) == 1]
        return False

    def is_free(self, value: Value) -> bool:
        """`W.T` and `z[:5]` cost nothing and read well: they stand wherever they are used."""
        return is_view(value) and value.inputs[0] in self.names

    # -- text ---------------------------------------------------------------------------------------------

    def module(self) -> str:
        program = self.program
        forward = self.forward_function()
        backward = self.backward_function()
        shapes = ", ".join(f"{self.names[v]} {v.shape}" for v in self.leaves)
        about = textwrap.fill(f"{program.name} and its backward pass, derived by minigrad for {shapes}.", WIDTH,
                              break_long_words=False)
        parts = [f'"""{about}"""\n\nimport numpy as np\n', *self.helpers.values(), forward, backward]
        return "\n\n".join(part.strip("\n") + "\n" for part in parts)

    def forward_function(self) -> str:
        names = [name if not isinstance(tree, Value) else self.names[tree] for name, tree in self.program.arguments]
        lines = []
        for name, tree in self.program.arguments:
            if not isinstance(tree, Value):
                lines += self.unpacking(name, tree)
        self.defined.clear()
        lines += self.lines(self.program.forward, keep=True)
        result = self.literal(self.program.result)
        lines += assignment("cache", bracket([self.names[v] for v in self.kept], "("))
        return function("forward", names, [*lines, f"return {result}, cache"])

    def backward_function(self) -> str:
        program = self.program
        lines = self.seed_lines(program.result, "d_output")
        lines += assignment(bracket([self.names[v] for v in self.kept], "("), "cache") if self.kept else []
        self.defined.clear()
        lines += self.lines(program.backward, keep=False)
        gradients = [self.gradient_literal(tree) for _, tree in program.arguments]
        gradients = [g for g in gradients if g is not None]
        lines += assignment("return", bracket(gradients, "("), " ")
        return function("backward", ["d_output", "cache"], lines)

    def seed_lines(self, tree: Any, access: str) -> list[str]:
        """Take the gradients out of d_output, which is nested as the result is."""
        if isinstance(tree, dict):
            return [line for key, child in tree.items() for line in self.seed_lines(child, f"{access}[{key!r}]")]
        if isinstance(tree, (tuple, list)) and tree:
            flat = [self.names[self.program.seeds[y]] if isinstance(y, Value) and y in self.program.seeds else "_"
                    for y in tree]
            different = len(set(flat) - {"_"}) + flat.count("_") == len(flat)
            new = not any(isinstance(y, Value) and y in self.seeded for y in tree)
            if different and new and all(isinstance(y, Value) or not children(y) for y in tree):
                self.seeded.update(y for y in tree if isinstance(y, Value))
                return assignment(", ".join(flat) + ("," if len(flat) == 1 else ""), access)
            return [line for i, child in enumerate(tree) for line in self.seed_lines(child, f"{access}[{i}]")]
        if isinstance(tree, Value) and tree in self.program.seeds:
            seed = self.names[self.program.seeds[tree]]
            if seed == access:
                return []
            if tree in self.seeded:  # a result that stands there twice
                return [f"{seed} = {seed} + {access}"]
            self.seeded.add(tree)
            return [f"{seed} = {access}"]
        return []

    def unpacking(self, access: str, tree: Any) -> list[str]:
        """`Wf = parameters["Wf"]` for each leaf of a nested argument."""
        if isinstance(tree, Value):
            return [f"{self.names[tree]} = {access}"] if self.uses.get(tree) or tree in self.kept else []
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (tuple, list)) else ()
        return [line for key, child in pairs for line in self.unpacking(f"{access}[{quoted(key)}]", child)]

    def lines(self, values: list[Value], keep: bool) -> list[str]:
        """The statements for these values, each followed by what it could not hold inside."""
        out: list[str] = []
        said = None
        for value in values:
            text = self.line(value, values)
            origin = self.statement.get(value.origin) if text and not keep else None
            if origin is not None and origin is not said:
                said = origin
                out += ["", *(f"# {line}" for line in self.statement_text(origin))]
            out += text
        return out

    def body(self, whole: Value) -> Any:
        """The emitter of a loop, forward and backward."""
        loop = whole.metadata["loop"]
        if loop not in self.bodies:
            self.bodies[loop] = loop.body(self)
        return self.bodies[loop]

    def line(self, value: Value, among: list[Value]) -> list[str]:
        """The statement of a value; none for what stands where it is used."""
        if value.op is LOOP:
            return self.body(value).text(value)
        if value.op is PART or (value not in self.names and (
                value.op is DETACH or self.is_free(value) or self.inlined(value, among))):
            return []
        if value not in self.names:
            self.name(value, value.name or "t")
        return assignment(self.names[value], self.expression(value, top=True)[0])

    def inlined(self, value: Value, among: list[Value]) -> bool:
        """Whether a value stands where it is used: once, in this function, and short."""
        users = [v for v in among if value in v.inputs]
        if len(users) != 1 or users[0].inputs.count(value) > 1:
            return not users and value not in values_in(self.program.result)
        text, _ = self.expression(value, top=True)
        return len(text) <= INLINE

    def statement_text(self, value: Value, unnamed: str = "output") -> list[str]:
        if value.op is LOOP:
            return [self.body(value).head(value)]
        return assignment(self.names.get(value, unnamed), self.expression(value, top=True)[0])

    def expression(self, value: Value, top: bool = False) -> tuple[str, int]:
        """The text of a value and how tightly it binds: its name, or (at the top of its own line) what computes it."""
        if value in self.names and not top:
            return self.names[value], ATOM
        if value.is_constant:
            return constant(value.constant)
        if value.op is None:
            return self.names[value], ATOM
        return self.call(value)

    def call(self, value: Value, operands: list[str] | None = None) -> tuple[str, int]:
        """The text that computes a value from its inputs, or from operands that stand for them."""
        op, metadata = value.op, value.metadata
        parts = [self.expression(a) for a in value.inputs] if operands is None else [(text, ATOM) for text in operands]
        special = SPECIAL.get(op.name)
        if special is not None:
            printed = special(self, value, parts)
            if printed is not None:
                return printed
        if op.infix and len(parts) == 2:
            return infix(op.infix, *parts)
        if op.infix and len(parts) == 1:
            return f"{op.infix}{wrapped(parts[0], PRECEDENCE['unary'])}", PRECEDENCE["unary"]
        values = [text for text, _ in parts]
        arguments = [f"[{', '.join(values)}]"] if op.variadic else values
        arguments += [f"{key}={literal(given)}" for key, given in metadata.items()
                      if key != "part" and repr(given) != repr(op.defaults[key])]
        if op.numpy:
            name = f"np.{op.numpy[0].__name__}"
        else:
            name = op.name
            self.need(op)
            if op.variadic:
                arguments[0] = f"*{arguments[0]}"
        text = f"{name}({', '.join(arguments)})"
        return (f"{text}[{metadata['part']}]" if "part" in metadata else text), ATOM

    # -- helpers: the forward of an op that NumPy has no word for --------------------------------------------

    def need(self, op: Op) -> None:
        if op.name in HELPERS:
            self.helpers[op.name] = HELPERS[op.name]
        elif op.name not in self.helpers:
            self.copy_source(op.forward)

    def copy_source(self, function: Callable) -> None:
        """The source of a function, and of the functions it calls, as it was written, without decorators and
        docstrings."""
        name = function.__name__
        if name in self.helpers:
            return
        try:
            source = textwrap.dedent(inspect.getsource(function))
            tree = ast.parse(source).body[0]
        except (OSError, SyntaxError):
            raise ValueError(
                f"the source of {name} cannot be read, so it cannot be printed: put it in a file") from None
        tree.decorator_list = []
        docstring = tree.body[0] if ast.get_docstring(tree) else None
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                other = function.__globals__.get(node.id)
                if inspect.isfunction(other) and node.id != name:
                    self.copy_source(getattr(other, "op", None).forward if hasattr(other, "op") else other)
        self.helpers[name] = "\n".join(
            line for n, line in enumerate(source.splitlines(), start=1)
            if n >= tree.lineno and not (docstring and docstring.lineno <= n <= docstring.end_lineno))

    # -- trees of names ---------------------------------------------------------------------------------------

    def literal(self, tree: Any) -> str:
        """A result, nested as the function gave it."""
        if isinstance(tree, dict):
            return "{" + ", ".join(f"{quoted(key)}: {self.literal(child)}" for key, child in tree.items()) + "}"
        if isinstance(tree, (tuple, list)):
            return bracket([self.literal(child) for child in tree], "[" if isinstance(tree, list) else "(")
        return self.expression(tree)[0] if isinstance(tree, Value) else literal(tree)

    def gradient_literal(self, tree: Any) -> str | None:
        """The gradients of one argument, nested as it is; None where nothing in it can have one."""
        if isinstance(tree, dict):
            parts = {key: self.gradient_literal(child) for key, child in tree.items()}
            return "{" + ", ".join(f"{quoted(key)}: {text}" for key, text in parts.items()) + "}" \
                if any(text is not None for text in parts.values()) else None
        if isinstance(tree, (tuple, list)):
            parts = [self.gradient_literal(child) for child in tree]
            return bracket([str(text) for text in parts], "(") if any(text is not None for text in parts) else None
        if not isinstance(tree, Value) or tree not in self.program.gradients:
            return None
        g = self.program.gradients[tree]
        return f"np.zeros({tree.shape}, {dtype_text(tree.dtype)})" if g is None else self.expression(g)[0]


# -- small text ---------------------------------------------------------------------------------------------


def is_view(value: Value) -> bool:
    """A transpose, or a slice, that the user gave no name."""
    if value.op is None or value.name is not None or value.op.name not in ("transpose", "getitem"):
        return False
    return value.op.name == "transpose" or all(isinstance(i, slice) for i in value.metadata["index"])


def behind_views(value: Value) -> Value:
    while is_view(value):
        value = value.inputs[0]
    return value


def values_in(tree: Any) -> list[Value]:
    return [tree] if isinstance(tree, Value) else [v for child in children(tree) for v in values_in(child)]


def children(tree: Any) -> list[Any]:
    return list(tree.values()) if isinstance(tree, dict) else list(tree) if isinstance(tree, (tuple, list)) else []



def helper_names() -> set[str]:
    return {op.name for op in OPS.values() if not op.numpy} | {"shifted_exp"}


def quoted(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)


def bracket(parts: list[str], opening: str) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})" if opening == "(" else f"[{', '.join(parts)}]"


def wrapped(part: tuple[str, int], needed: int) -> str:
    text, binds = part
    return text if binds >= needed else f"({text})"


def infix(sign: str, left: tuple[str, int], right: tuple[str, int]) -> tuple[str, int]:
    """Left to right, as Python reads; ** from the right. What stands on the right of - and / keeps its brackets."""
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
    """`name = text`, over several lines where it is too long."""
    line = f"{name}{equals}{text}"
    if len(line) <= WIDTH:
        return [line]
    return broken(name, f"{equals}{text}") if name.startswith("(") else broken(text, "", f"{name}{equals}")


def broken(text: str, tail: str, head: str = "") -> list[str]:
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


def function(name: str, arguments: list[str], lines: list[str]) -> str:
    head = f"def {name}({', '.join(arguments)}):"
    if len(head) > WIDTH:
        head = "\n".join(broken(f"({', '.join(arguments)})", ":", f"def {name}"))
    return "\n".join([head, *(f"    {line}".rstrip() for line in lines)])


# -- ops that are not printed as a plain call -------------------------------------------------------------------


def print_getitem(_: Emitter, value: Value, parts: list) -> tuple[str, int]:
    return f"{wrapped(parts[0], ATOM)}[{slice_text(value.metadata['index'])}]", ATOM


def print_transpose(_: Emitter, value: Value, parts: list) -> tuple[str, int] | None:
    return (f"{wrapped(parts[0], ATOM)}.T", ATOM) if value.metadata["axes"] is None else None


def print_astype(_: Emitter, value: Value, parts: list) -> tuple[str, int]:
    return f"{wrapped(parts[0], ATOM)}.astype({dtype_text(value.dtype)})", ATOM


def print_einsum(_: Emitter, value: Value, parts: list) -> tuple[str, int]:
    texts = ", ".join(text for text, _ in parts)
    return f'np.einsum("{value.metadata["subscripts"]}", {texts}, optimize=True)', ATOM


def print_positional(_: Emitter, value: Value, parts: list) -> tuple[str, int]:
    (key,) = value.metadata
    return f"np.{value.op.name}({parts[0][0]}, {literal(value.metadata[key])})", ATOM


def print_detach(_: Emitter, value: Value, parts: list) -> tuple[str, int]:
    return parts[0]


SPECIAL = {"detach": print_detach, "getitem": print_getitem, "transpose": print_transpose, "astype": print_astype,
           "einsum": print_einsum, "reshape": print_positional, "broadcast_to": print_positional}
