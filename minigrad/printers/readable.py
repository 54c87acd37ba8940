"""A program as readable NumPy: the text that is shown, and that runs.

A value that has a name, or is used more than once, gets a line of its own; one that is used once is written where it
is used, as long as the line stays short. Above the lines of the backward, a comment quotes the forward statement whose
rules they apply. The text is deterministic: the same function gives the same bytes.
"""

from __future__ import annotations

import builtins
import copy
import keyword
import textwrap
from collections import Counter
from typing import Any

import numpy as np

from minigrad.engine.op import PART
from minigrad.engine.ops import add, getitem, scatter, subtract, transpose
from minigrad.engine.ops.indexing import repeats
from minigrad.engine.pytree import flatten
from minigrad.printers.helpers import add_helper, helper_names
from minigrad.printers.size_text import SizeText
from minigrad.printers.text import (
    ATOM,
    INLINE,
    PRECEDENCE,
    WIDTH,
    assignment,
    bracket,
    constant,
    dtype_text,
    function,
    infix,
    literal,
    mentions,
    quoted,
    slice_text,
    wrapped,
)
from minigrad.program.analysis import base, is_view, read_of_forward
from minigrad.program.ir import DETACH, EINSUM, LOOP, Value, content_key, without_detach
from minigrad.program.simplify import Program
from minigrad.program.sizes import Size, factor_of


class Emitter:
    """Names, statements and text of one program."""

    def __init__(self, program: Program, reserved: frozenset[str] = frozenset(("cache", "d_output"))):
        self.root = self
        self.taken = set(keyword.kwlist) | {"np", *reserved, *helper_names()}
        self.helpers: dict[str, str] = {}
        self.constants: dict[Any, tuple[str, str]] = {}  # arrays that loops use: their names and texts
        self.defined: set[str] = set()  # those that have a line in the function that is written
        self.sizes = SizeText(program, self.free)
        self.begin(program)
        self.name_backward()

    def begin(self, program: Program) -> None:
        self.program = program
        self.names: dict[Value, str] = {}
        self.aliases: dict[Value, str] = {}  # argument → its gradient's second name: d_b = d_z
        self.bodies: dict[Any, Any] = {}  # of the loops
        self.quotes: dict[Value, list[str]] = {}  # statements of the forward
        self.seeded: set[Value] = set()  # results whose gradients have been taken out of d_output
        self.name_arguments()
        self.uses = self.count_uses()
        self.kept = self.choose_cache()
        self.name_forward()
        self.lines_of = self.lines_of_forward()

    # -- uses ---------------------------------------------------------------------------------------------------

    def name_arguments(self) -> None:
        self.taken.update(name for name, tree in self.program.arguments if not isinstance(tree, Value))
        self.leaves = [v for _, tree in self.program.arguments for v in values_in(tree) if not v.is_constant]
        for value in self.leaves:
            self.name(value, value.name)
        self.sizes.arguments = dict(self.names)

    def count_uses(self) -> Counter[Value]:
        """Count the uses of each value in the forward, in the backward and among the results."""
        program = self.program
        return Counter([*(a for value in program.forward + program.backward for a in value.inputs),
                        *values_in(program.result), *filter(None, program.gradients.values())])

    def choose_cache(self) -> list[Value]:
        """Values of the forward that the backward reads, in the order of computing."""
        program, roots = self.program, filter(None, self.program.gradients.values())
        kept = read_of_forward(program.backward, roots, program.seeds.values(), lambda v: base(v, is_unnamed_view))
        return [v for v in self.leaves + program.forward if v in kept]

    # -- names --------------------------------------------------------------------------------------------

    def free(self, name: str | None) -> str:
        """A name that is not taken: `name`, or `name` and a number."""
        name = name if name and name.isidentifier() else "t"
        candidate, n = name, 1
        while candidate in self.taken or (candidate == "t" and name == "t") or candidate in vars(builtins):
            candidate, n = f"{name}{n}" if name == "t" else f"{name}_{n + 1}", n + 1
        self.taken.add(candidate)
        return candidate

    def name(self, value: Value, wanted: str | None) -> None:
        self.names[value] = self.free(wanted)

    def label(self, value: Value) -> str | None:
        """The name of a value as part of another name."""
        return self.names.get(value)

    def name_in_loop(self, value: Value, hint: str) -> str:
        """The text of a value within a loop: a name, since an expression would be computed at every step."""
        if value not in self.names and not value.is_constant and not self.is_free(value):
            self.name(value, value.name or hint)
        return self.expression(value)[0]

    def name_forward(self) -> None:
        """Name the values that get a line: named by the user, results, cached, or used more than once."""
        results = set(map(without_detach, values_in(self.program.result)))
        uses = Counter(a for value in self.program.forward for a in value.inputs)
        for value in self.program.forward:
            if value.op is LOOP:
                self.body(value)
            if value.op in (LOOP, PART, DETACH) or (is_unnamed_view(value) and value not in results):
                continue
            if value.name is None and (value in self.kept or uses[value] > 1 or (
                    value in results and len(results) > 1)):
                (x, *others) = value.inputs or (None,)
                if x in self.names and not others and not value.op.infix:
                    value.name = f"{value.op.name}_{self.label(x)}"
                else:
                    value.name = "t"
            if value.name is not None:
                self.name(value, value.name)

    def lines_of_forward(self) -> dict[Value, Value]:
        """{value of the forward: the value whose line contains it}."""
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
        inner = {g for v, g in program.total.items() if v.op is not None and self.uses[g] > 1}
        for v, g in program.total.items():  # gradients of named values; a bias may share one
            if v.op is None and g in inner:
                written = g in own and not is_unnamed_view(g) and g.op is not PART
                if written and self.root is self and program.gradients.get(v) is g:  # not a slice that is all of v
                    self.aliases[v] = self.free(f"d_{self.label(v)}")
                continue
            if v in self.names and g in own and g not in self.names:
                seed = program.seeds.get(v)
                if self.uses_up(g, seed) and self.names[seed].isidentifier():
                    self.names[g] = self.names[seed]  # d_c = d_c + …: the seed is used up in this line
                else:
                    self.name(g, f"d_{self.label(v)}")
        for v, g in program.total.items():  # gradients of values inside a line
            if v.op is not None and g in own and g not in self.names and self.uses[g] > 1:
                line = self.label(self.lines_of.get(v))
                self.name(g, f"d_{line}_in" if line else "t")
        for value in program.backward:
            if value.op is LOOP:
                self.body(value).name_backward()
            elif value not in self.names and self.uses[value] > 1 and not self.is_free(value):
                self.name(value, value.name or "t")

    def uses_up(self, g: Value, seed: Value | None) -> bool:
        """Whether g is a sum with the seed as a term, and the seed has no other use."""
        terms = [g]
        while terms:
            term = terms.pop()
            if term.op in (add.op, subtract.op):
                if seed in term.inputs:
                    return self.uses[seed] == 1
                terms += [a for a in term.inputs if a not in self.names and self.uses[a] == 1]
        return False

    def is_free(self, value: Value) -> bool:
        """Whether a value is written wherever it is used, like `W.T` and `z[:5]`, which cost nothing."""
        return is_unnamed_view(value) and value.inputs[0] in self.names

    # -- text ---------------------------------------------------------------------------------------------

    def module(self) -> str:
        program = self.program
        lines = self.lines(program.forward, keep=True)
        lines = self.sizes.lines([*lines, f"return {self.literal(program.result)}, cache"])
        self.quote({})
        backward = self.backward_function()  # first, for it decides on the cache
        forward = self.forward_function(lines)
        shapes = ", ".join(f"{self.names[v]} {v.shape}" for v in self.leaves)
        about = textwrap.fill(f"{program.name} and its backward pass, derived by minigrad for {shapes}.", WIDTH,
                              break_long_words=False)
        parts = [f'"""{about}"""\n\nimport numpy as np\n', *self.helpers.values(), forward, backward]
        return "\n\n".join(part.strip("\n") + "\n" for part in parts)

    def forward_function(self, lines: list[str]) -> str:
        names = [name if not isinstance(tree, Value) else self.names[tree] for name, tree in self.program.arguments]
        read = self.sizes.arguments_read(lines)
        unpacking = [line for name, tree in self.program.arguments if not isinstance(tree, Value)
                     for line in self.unpacking(name, tree, read)]
        cache = assignment("cache", bracket([self.names[v] for v in self.kept], "("))
        return function("forward", names, [*unpacking, *lines[:-1], *cache, lines[-1]])

    def backward_function(self) -> str:
        program = self.program
        self.defined.clear()
        self.sizes.begin_backward({v: self.names[v] for v in self.kept})
        seeds = self.seed_lines(program.result, "d_output")
        lines = self.lines(program.backward, keep=False)
        gradients = [self.gradient_text(tree) for _, tree in program.arguments if self.is_differentiated(tree)]
        lines = self.sizes.lines(lines + assignment("return", bracket(gradients, "("), " "))
        read = self.sizes.arguments_read(lines)
        self.kept = [v for v in self.leaves + program.forward if v in self.kept or v in read]
        cache = assignment(bracket([self.names[v] for v in self.kept], "("), "cache") if self.kept else []
        return function("backward", ["d_output", "cache"], [*seeds, *cache, *lines])

    def quote(self, unnamed: dict[Value, str]) -> None:
        """Note the statements of the forward. unnamed: names for the results that have none."""
        for value in dict.fromkeys(self.lines_of.values()):
            self.quotes[value] = [self.body(value).head(value)] if value.op is LOOP else \
                self.statement(value, self.names.get(value, unnamed.get(value, "output")))

    def seed_lines(self, tree: Any, access: str) -> list[str]:
        """Unpack the gradients from d_output, which has the nesting of the result."""
        if isinstance(tree, dict):
            return [line for key, child in tree.items() for line in self.seed_lines(child, f"{access}[{key!r}]")]
        if isinstance(tree, (tuple, list)) and tree:
            flat = [self.names[self.program.seeds[y]] if isinstance(y, Value) and y in self.program.seeds else "_"
                    for y in tree]
            different = len(set(flat) - {"_"}) + flat.count("_") == len(flat)
            new = not any(isinstance(y, Value) and y in self.seeded for y in tree)
            if different and new and all(isinstance(y, Value) or not y for y in tree):
                self.seeded.update(y for y in tree if isinstance(y, Value))
                return assignment(", ".join(flat) + ("," if len(flat) == 1 else ""), access)
            return [line for i, child in enumerate(tree) for line in self.seed_lines(child, f"{access}[{i}]")]
        if isinstance(tree, Value) and tree in self.program.seeds:
            seed = self.names[self.program.seeds[tree]]
            if seed == access:
                return []
            if tree in self.seeded:  # the same result a second time
                return [f"{seed} = {seed} + {access}"]
            self.seeded.add(tree)
            return [f"{seed} = {access}"]
        return []

    def unpacking(self, access: str, tree: Any, read: set[Value]) -> list[str]:
        """`Wf = parameters["Wf"]` for each leaf of a nested argument."""
        if isinstance(tree, Value):
            return [f"{self.names[tree]} = {access}"] if (
                self.uses[tree] or tree in self.kept or tree in read) else []
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (tuple, list)) else ()
        return [line for key, child in pairs for line in self.unpacking(f"{access}[{quoted(key)}]", child, read)]

    def lines(self, values: list[Value], keep: bool) -> list[str]:
        """The statements of these values; in the backward, below the forward statements that they belong to."""
        out: list[str] = []
        quoted_last = None
        for value in values:
            text = self.line(value, values)
            origin = self.lines_of.get(value.origin) if text and not keep else None
            if origin is not None and origin is not quoted_last:
                quoted_last = origin
                out += ["", *(f"# {line}" for line in self.quotes[origin])]
            out += text
        return out

    def body(self, whole: Value) -> Any:
        """The emitter of a loop, forward and backward."""
        loop = whole.metadata["loop"]
        if loop not in self.bodies:
            self.bodies[loop] = Body(self, loop)
        return self.bodies[loop]

    def line(self, value: Value, among: list[Value]) -> list[str]:
        """The statement of a value; none if it is written where it is used."""
        if value.op is LOOP:
            return self.body(value).text(value)
        if value.op is PART or (value not in self.names and (
                value.op is DETACH or self.is_free(value) or self.inlined(value, among))):
            return []
        if value not in self.names:
            self.name(value, value.name or "t")
        shared = [f"{alias} = {self.names[value]}" for v, alias in self.aliases.items()
                  if self.program.gradients[v] is value]
        return self.statement(value, self.names[value]) + shared

    def statement(self, value: Value, name: str) -> list[str]:
        """Compute a value into a variable."""
        if pieces := self.pieces(value):
            zeros = self.sizes.array("zeros", value.shape, value.dtype)
            return [f"{name} = {zeros}", *(line for piece in pieces for line in self.added_at(name, piece))]
        return assignment(name, self.expression(value, top=True)[0])

    def inlined(self, value: Value, among: list[Value]) -> bool:
        """Whether a value is written where it is used: it is short and has one use in this function."""
        users = [v for v in among if value in v.inputs]
        if len(users) != 1 or users[0].inputs.count(value) > 1:
            return not users and value not in values_in(self.program.result)
        if self.pieces(value):  # needs lines of its own, unless they are those of a sum
            return users[0].op is add.op and bool(self.pieces(users[0]))
        text, _ = self.expression(value, top=True)
        return len(text) <= INLINE

    def pieces(self, value: Value) -> list[Value]:
        """The arrays added at an index that a value is the sum of, from left to right; [] for any other value."""
        if value.op is scatter.op and value.shape:
            return [value]
        if value.op is add.op and not any(a in self.names or self.uses[a] > 1 for a in value.inputs):
            left, right = map(self.pieces, value.inputs)
            return [*left, *right] if left and len(right) == 1 else []
        return []

    def added_at(self, name: str, piece: Value) -> list[str]:
        """`name[index] += …`; with np.add.at if an entry may occur twice."""
        index, text = piece.metadata["index"], self.expression(piece.inputs[0])[0]
        entries = slice_text(self.sizes.spell(index))
        if not repeats(index):
            return assignment(f"{name}[{entries}]", text, " += ")
        return [f"np.add.at({name}, {entries if len(index) == 1 else f'np.s_[{entries}]'}, {text})"]

    def expression(self, value: Value, top: bool = False) -> tuple[str, int]:
        """The text of a value and how tightly it binds: its name, or (at the top of its own line) what computes it."""
        if value in self.names and not top:
            return self.names[value], ATOM
        if value.is_constant:
            return self.sizes.size(value.constant) if isinstance(value.constant, Size) else constant(value.constant)
        if value.op is None:
            return self.names[value], ATOM
        return self.call(value)

    def call(self, value: Value, operands: list[str] | None = None) -> tuple[str, int]:
        """The text that computes a value from its inputs, or from these operands in their place."""
        op, metadata = value.op, value.metadata
        parts = [self.expression(a) for a in value.inputs] if operands is None else [(text, ATOM) for text in operands]
        if op is DETACH:
            return parts[0]
        if op.infix and len(parts) == 2:
            return infix(op.infix, *parts)
        if op.infix and len(parts) == 1:
            return f"{op.infix}{wrapped(parts[0], PRECEDENCE['unary'])}", PRECEDENCE["unary"]
        if (template := op.template(metadata)) is not None:
            return self.filled(template, value, parts), ATOM
        values = [text for text, _ in parts]
        if op is EINSUM:
            return f'np.einsum("{metadata["subscripts"]}", {", ".join(values)}, optimize=True)', ATOM
        arguments = [f"[{', '.join(values)}]"] if op.variadic else values
        arguments += [f"{key}={literal(self.sizes.spell(given))}" for key, given in metadata.items()
                      if key != "part" and repr(given) != repr(op.defaults[key])]
        if op.numpy:
            name = f"np.{op.numpy[0].__name__}"
        else:
            name = op.name
            add_helper(op, self.helpers)
            if op.variadic:
                arguments[0] = f"*{arguments[0]}"
        text = f"{name}({', '.join(arguments)})"
        return (f"{text}[{metadata['part']}]" if "part" in metadata else text), ATOM

    def filled(self, template: str, value: Value, parts: list[tuple[str, int]]) -> str:
        """The text of an op from its template: `{x}[{index}]`."""
        texts = {key: slice_text(self.sizes.spell(given)) if key == "index" else literal(self.sizes.spell(given))
                 for key, given in value.metadata.items()} | {"dtype": dtype_text(value.dtype)}
        for name, part in zip(value.op.arrays, parts):
            texts[name] = wrapped(part, ATOM) if template.startswith("{") else part[0]
        return template.format(**texts)

    # -- trees of names ---------------------------------------------------------------------------------------

    def literal(self, tree: Any) -> str:
        """A result, with the nesting that the function returned."""
        if isinstance(tree, dict):
            return "{" + ", ".join(f"{quoted(key)}: {self.literal(child)}" for key, child in tree.items()) + "}"
        if isinstance(tree, (tuple, list)):
            return bracket([self.literal(child) for child in tree], "[" if isinstance(tree, list) else "(")
        return self.expression(tree)[0] if isinstance(tree, Value) else literal(tree)

    def is_differentiated(self, tree: Any) -> bool:
        return any(value in self.program.gradients for value in values_in(tree))

    def gradient_text(self, tree: Any) -> str:
        """The gradients of one argument, with its nesting; None for what is not differentiable."""
        if not self.is_differentiated(tree):
            return "None"
        if isinstance(tree, dict):
            return "{" + ", ".join(f"{quoted(key)}: {self.gradient_text(child)}" for key, child in tree.items()) + "}"
        if isinstance(tree, (tuple, list)):
            return bracket(list(map(self.gradient_text, tree)), "(")
        g = self.program.gradients[tree]
        if g is None:
            return self.sizes.array("zeros", tree.shape, tree.dtype)
        return self.aliases.get(tree) or self.expression(g)[0]


class Body(Emitter):
    """The emitter of a Loop (loops.py), forward and backward; `parent` emits the code around it."""

    def __init__(self, parent: Emitter, loop: Any):
        self.parent, self.root, self.loop = parent, parent.root, loop
        if isinstance(loop.steps, Size) and (factor := factor_of(loop.steps)) is not None:
            parent.sizes.given.setdefault(factor, "T")
        self.sizes, self.taken, self.helpers = parent.sizes, parent.taken, parent.helpers
        self.constants, self.defined = parent.constants, parent.defined
        self.t = self.free("t_2") if isinstance(parent, Body) else "t"
        self.arrays = {v: loop.stack[v] for v in loop.stacks if v not in loop.state}
        program = copy.copy(loop.inner)
        program.forward, program.backward = loop.lines, loop.d_lines
        program.result = [*loop.stacks, *(loop.new[k] for k in loop.live)]
        program.seeds = {y: seed for y, seed in program.seeds.items() if y in loop.arrivals}
        program.total = {v: g for v, g in program.total.items()  # a value that the loop hands on is not an array
                         if v not in loop.closed and not (v in loop.state and g in loop.d_stacks)}
        program.gradients = dict(enumerate([*loop.d_stacks, *loop.d_sums, *(loop.d_state[k] for k in loop.d_live)]))
        self.begin(program)

    def choose_cache(self) -> list[Value]:
        return list(self.arrays)

    # -- names ------------------------------------------------------------------------------------------------

    def name_arguments(self) -> None:
        self.name_around()
        for k in self.loop.live:
            self.name(self.loop.state[k], self.loop.state[k].name)
        for a in self.loop.stacks:
            if a in self.loop.state:
                self.name_part(self.loop.stack[a], f"{a.name}_over_time")

    def name_forward(self) -> None:
        for v in self.arrays:
            if v.op is DETACH:
                self.name(v, v.name)
        super().name_forward()
        for k in self.loop.ends:
            self.name_part(self.loop.final[k], self.loop.end_names[k])

    def name_around(self) -> None:
        """Loop invariants keep their outer name. In nested loops it may differ between forward and backward."""
        loop = self.loop
        for a, value in loop.around.items():
            if a in loop.read or a in loop.d_read:
                text = self.parent.name_in_loop(value, "xs" if a in loop.x else "t")
                if value.is_constant and np.ndim(value.constant):
                    text = self.constant_name(value, a.name)
                self.names[a] = f"{text}[{self.t}]" if a in loop.x else text

    def name(self, value: Value, wanted: str | None) -> None:
        part = self.arrays.get(value)
        if part is None:
            return super().name(value, wanted)
        if value in self.loop.y:
            wanted = "ys" if wanted in (None, "t") else f"{wanted}_over_time"
        self.name_part(part, wanted)
        self.names[value] = f"{self.parent.names[part]}[{self.t}]"

    def name_part(self, part: Value, wanted: str | None) -> None:
        if part not in self.parent.names:
            self.parent.name(part, part.name or wanted)

    def label(self, value: Value | None) -> str | None:
        if value in self.loop.around:
            return value.name
        name = self.names.get(value)
        if name is None or name.isidentifier():
            return name
        return value.name if value.name not in (None, "t") else name.partition("[")[0]

    def name_backward(self) -> None:
        loop, parent = self.loop, self.parent
        self.d_y = {j: parent.name_in_loop(loop.d_y[j], "d_ys") for _, places in loop.arrivals.values() for j in places}
        self.arrays |= {v: loop.d_stack[v] for v in loop.d_stacks}
        self.names |= {loop.inner.seeds[y]: f"{self.d_y[places[0]]}[{self.t}]"
                       for y, (_, places) in loop.arrivals.items() if loop.inner.seeds[y] in loop.plain_seeds}
        for y, seed in self.program.seeds.items():
            g = self.program.total.get(y)
            if g in self.arrays and seed not in self.arrays and self.uses_up(g, seed):
                self.arrays[seed] = self.arrays[g]  # d_c[t] = d_c[t] + …
        super().name_backward()
        for v in loop.d_stacks:
            if v not in self.names:
                self.name(v, v.name or "t")
        for v in loop.d_sums:
            self.name_part(loop.d_sum[v], "t")
        self.carried: dict[int, str] = {}
        for k in loop.d_live:
            wanted = f"d_{loop.state[k].name}"
            name = self.names.get(loop.d_state[k], "")
            own = name.isidentifier() and name.startswith(wanted) and name not in self.carried.values()
            self.carried[k] = name if own else self.free(wanted)
            if k in loop.d_ends:
                part = loop.d_start[k]
                if part in getattr(parent, "arrays", ()):
                    self.name_part(part, wanted)
                parent.names.setdefault(part, self.carried[k])

    # -- text --------------------------------------------------------------------------------------------------

    def text(self, whole: Value) -> list[str]:
        before, body, after = self.backward_lines() if whole.metadata["backward"] else self.forward_lines()
        if not body:
            return before + after
        code = "\n".join(line for line in body if not line.lstrip().startswith("#"))
        new = {name: text for name, text in self.constants.values()
               if name not in self.defined and mentions(code, name)}
        self.defined.update(new)
        body = body[1:] if body[0] == "" else body
        return [*(f"{name} = {text}" for name, text in new.items()), *before, self.head(whole),
                *(f"    {line}".rstrip() for line in body), *after]

    def head(self, whole: Value) -> str:
        steps = f"range({self.sizes.size(self.loop.steps)[0]})"
        forwards = whole.metadata["backward"] == self.loop.scan.reverse
        return f"for {self.t} in {steps if forwards else f'reversed({steps})'}:"

    def forward_lines(self) -> tuple[list[str], list[str], list[str]]:
        """The lines before the loop, in it, and after it."""
        loop, outside = self.loop, self.parent
        carried = [self.names[loop.state[k]] for k in loop.live]
        before = self.empty_arrays(loop.stack[v] for v in loop.stacks)
        before += [line for k, name in zip(loop.live, carried)
                   for line in assignment(name, outside.expression(loop.start[k])[0])]
        body = [f"{self.step_of(loop.stack[a])} = {self.names[a]}" for a in loop.stacks if a in loop.state]
        body += self.lines(loop.lines, keep=True)
        body += simultaneous(carried, [self.expression(loop.new[k])[0] for k in loop.live])
        after = [f"{outside.names[loop.final[k]]} = {self.names[loop.state[k]]}" for k in loop.ends]
        results = {loop.new[k]: name for k, name in zip(loop.live, carried)}
        self.quote(results)
        return before, body, after

    def backward_lines(self) -> tuple[list[str], list[str], list[str]]:
        loop, outside = self.loop, self.parent
        self.name_around()
        self.names |= {a: self.step_of(loop.stack[a]) for a in loop.state if loop.stack[a] in outside.names}
        before = self.empty_arrays(loop.d_stack[v] for v in loop.d_stacks)
        before += [f"{outside.names[loop.d_sum[v]]} = {self.sizes.array('zeros', v.shape, v.dtype)}"
                   for v in loop.d_sums]
        for k in loop.d_live:
            start, a = loop.d_final[k], loop.state[k]
            text = self.sizes.array("zeros", a.shape, a.dtype) if start is None else outside.expression(start)[0]
            before += assignment(self.carried[k], text)
        seeds = [self.names[loop.inner.seeds[y]] for y in loop.arrivals]
        arriving = [" + ".join([self.carried[k] for k in states] + [f"{self.d_y[j]}[{self.t}]" for j in places])
                    or self.sizes.array("zeros", y.shape, y.dtype) for y, (states, places) in loop.arrivals.items()]
        body = assignments(seeds, arriving)
        views = [v for v in loop.views if self.names.get(v, "").isidentifier()]  # f = gates[t][:5] once more
        body += self.lines([*views, *loop.d_lines], keep=False)
        body += [line for v in loop.d_sums if v not in loop.d_lines for line in self.added(v)]
        given = [loop.d_state[k] for k in loop.d_live]
        body += simultaneous([self.carried[k] for k in loop.d_live],
                        [self.sizes.array("zeros", loop.state[k].shape, loop.state[k].dtype) if g is None else
                         self.expression(g)[0] for k, g in zip(loop.d_live, given)])
        after = simultaneous([outside.names[loop.d_start[k]] for k in loop.d_ends],
                             [self.carried[k] for k in loop.d_ends])
        return before, body, after

    def line(self, value: Value, among: list[Value]) -> list[str]:
        text = super().line(value, among)
        return text + self.added(value) if value in self.loop.d_sums else text

    def added(self, value: Value) -> list[str]:
        """Add a value to its sum over time."""
        return assignment(self.parent.names[self.loop.d_sum[value]], self.expression(value)[0], " += ")

    def step_of(self, part: Value) -> str:
        return f"{self.parent.names[part]}[{self.t}]"

    def empty_arrays(self, parts: Any) -> list[str]:
        """Allocate (T, …) arrays; an inner loop may write into a row of the outer one's."""
        names = {self.parent.names[part]: part for part in parts}
        return [f"{name} = {self.sizes.array('empty', part.shape, part.dtype)}" for name, part in names.items()
                if name.isidentifier()]

    def expression(self, value: Value, top: bool = False) -> tuple[str, int]:
        if value.is_constant and np.ndim(value.constant) and np.any(value.constant):
            return self.constant_name(value, "constant"), ATOM
        return super().expression(value, top)

    def constant_name(self, value: Value, hint: str) -> str:
        """The name of a constant array, which is defined before the loop."""
        key = content_key(value.constant)
        if key not in self.constants:
            self.constants[key] = self.free(hint), constant(value.constant)[0]
        return self.constants[key][0]


def assignments(names: list[str], texts: list[str]) -> list[str]:
    """One line each, unless one would change a name that a later one reads."""
    for i, name in enumerate(names):
        if any(mentions(text, name) for text in texts[i + 1:]):
            return simultaneous(names, texts)
    return [line for pair in zip(names, texts) if pair[0] != pair[1] for line in assignment(*pair)]


def simultaneous(names: list[str], texts: list[str]) -> list[str]:
    """`a_prev, c_prev = a, c` in one statement, since a text may read another's name."""
    pairs = [(name, text) for name, text in zip(names, texts) if name != text]
    if not pairs:
        return []
    names, texts = ([pair[i] for pair in pairs] for i in (0, 1))
    line = f"{', '.join(names)} = {', '.join(texts)}"
    return [line] if len(line) <= WIDTH or len(pairs) == 1 else assignment(", ".join(names), bracket(texts, "("))


def is_unnamed_view(value: Value) -> bool:
    """A transpose or a slice that the user gave no name."""
    return value.op in (transpose.op, getitem.op) and value.name is None and is_view(value)


def values_in(tree: Any) -> list[Value]:
    return [v for v in flatten(tree)[0] if isinstance(v, Value)]
