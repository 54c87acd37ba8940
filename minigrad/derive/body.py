"""The text of a loop: a Body emits the program of one step, forward and backward, within the text around the loop.

A value of which there is an array over time is called `name[t]`, wherever it stands. All other names are as everywhere.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

from minigrad.derive.emit import ATOM, WIDTH, Emitter, assignment, bracket, constant, dtype_text
from minigrad.derive.simplify import DETACH, Value, repr_of


class Body(Emitter):
    """The emitter of a Loop (loops.py), the same for its forward and its backward; parent emits what stands around."""

    def __init__(self, parent: Emitter, loop: Any):
        self.parent, self.loop = parent, loop
        self.taken, self.helpers = parent.taken, parent.helpers
        self.constants, self.defined = parent.constants, parent.defined
        self.names, self.bodies, self.quotes = {}, {}, {}
        self.t = self.free("t_2") if isinstance(parent, Body) else "t"
        self.program = program = copy.copy(loop.inner)
        program.forward, program.backward = loop.lines, loop.d_lines
        program.result = [*loop.stacks, *(loop.new[k] for k in loop.live)]
        program.seeds = {y: seed for y, seed in program.seeds.items() if y in loop.arrivals}
        program.total = {v: g for v, g in program.total.items()  # what a loop hands on is no array
                         if v not in loop.closed and not (v in loop.state and g in loop.d_stacks)}
        roots = [*loop.d_stacks, *loop.d_sums, *(loop.d_state[k] for k in loop.d_live)]
        program.gradients = dict(enumerate(roots))
        self.arrays = {v: loop.stack[v] for v in loop.stacks if v not in loop.state}
        self.kept = list(self.arrays)
        self.name_around()
        for k in loop.live:
            self.name(loop.state[k], loop.state[k].name)
        for a in loop.stacks:
            if a in loop.state:
                self.name_part(loop.stack[a], f"{a.name}_over_time")
        self.uses = self.count_uses()
        for v in self.arrays:
            if v.op is DETACH:
                self.name(v, v.name)
        self.name_forward()
        for k in loop.ends:
            self.name_part(loop.final[k], loop.end_names[k])
        self.statement = self.statements_of_forward()

    # -- names ------------------------------------------------------------------------------------------------

    def name_around(self) -> None:
        """What stays the same is called as outside. In a loop in a loop, that is not the same forward and backward."""
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
               if name not in self.defined and re.search(rf"\b{name}\b", code)}
        self.defined.update(new)
        body = body[1:] if body[0] == "" else body
        return [*(f"{name} = {text}" for name, text in new.items()), *before, self.head(whole),
                *(f"    {line}".rstrip() for line in body), *after]

    def head(self, whole: Value) -> str:
        steps = f"range({self.loop.steps})"
        forwards = whole.metadata["backward"] == self.loop.scan.reverse
        return f"for {self.t} in {steps if forwards else f'reversed({steps})'}:"

    def forward_lines(self) -> tuple[list[str], list[str], list[str]]:
        """What stands before the loop, in it, and behind it."""
        loop, outside = self.loop, self.parent
        carried = [self.names[loop.state[k]] for k in loop.live]
        before = self.empty_arrays(loop.stack[v] for v in loop.stacks)
        before += [line for k, name in zip(loop.live, carried)
                   for line in assignment(name, outside.expression(loop.start[k])[0])]
        body = [f"{self.step_of(loop.stack[a])} = {self.names[a]}" for a in loop.stacks if a in loop.state]
        body += self.lines(loop.lines, keep=True)
        body += hand_on(carried, [self.expression(loop.new[k])[0] for k in loop.live])
        after = [f"{outside.names[loop.final[k]]} = {self.names[loop.state[k]]}" for k in loop.ends]
        results = {loop.new[k]: name for k, name in zip(loop.live, carried)}
        self.quotes = {v: super(Body, self).statement_text(v, results.get(v, "output"))
                       for v in self.statement.values()}
        return before, body, after

    def backward_lines(self) -> tuple[list[str], list[str], list[str]]:
        loop, outside = self.loop, self.parent
        self.name_around()
        self.names |= {a: self.step_of(loop.stack[a]) for a in loop.state if loop.stack[a] in outside.names}
        before = self.empty_arrays(loop.d_stack[v] for v in loop.d_stacks)
        before += [f"{outside.names[loop.d_sum[v]]} = {array('zeros', v.shape, v.dtype)}" for v in loop.d_sums]
        for k in loop.d_live:
            start, a = loop.d_final[k], loop.state[k]
            text = array("zeros", a.shape, a.dtype) if start is None else outside.expression(start)[0]
            before += assignment(self.carried[k], text)
        seeds = [self.names[loop.inner.seeds[y]] for y in loop.arrivals]
        arriving = [" + ".join([self.carried[k] for k in states] + [f"{self.d_y[j]}[{self.t}]" for j in places])
                    or array("zeros", y.shape, y.dtype) for y, (states, places) in loop.arrivals.items()]
        body = assignments(seeds, arriving)
        views = [v for v in loop.views if self.names.get(v, "").isidentifier()]  # f = gates[t][:5] once more
        body += self.lines([*views, *loop.d_lines], keep=False)
        body += [line for v in loop.d_sums if v not in loop.d_lines for line in self.added(v)]
        given = [loop.d_state[k] for k in loop.d_live]
        body += hand_on([self.carried[k] for k in loop.d_live],
                        [array("zeros", loop.state[k].shape, loop.state[k].dtype) if g is None else
                         self.expression(g)[0] for k, g in zip(loop.d_live, given)])
        after = hand_on([outside.names[loop.d_start[k]] for k in loop.d_ends], [self.carried[k] for k in loop.d_ends])
        return before, body, after

    def line(self, value: Value, among: list[Value]) -> list[str]:
        text = super().line(value, among)
        return text + self.added(value) if value in self.loop.d_sums else text

    def added(self, value: Value) -> list[str]:
        """A step of a sum over the steps."""
        return assignment(self.parent.names[self.loop.d_sum[value]], self.expression(value)[0], " += ")

    def step_of(self, part: Value) -> str:
        return f"{self.parent.names[part]}[{self.t}]"

    def empty_arrays(self, parts: Any) -> list[str]:
        """Room for all steps; where the loop itself stands in a loop, there may be room already."""
        names = {self.parent.names[part]: part for part in parts}
        return [f"{name} = {array('empty', part.shape, part.dtype)}" for name, part in names.items()
                if name.isidentifier()]

    def statement_text(self, value: Value, unnamed: str = "output") -> list[str]:
        return self.quotes[value]

    def expression(self, value: Value, top: bool = False) -> tuple[str, int]:
        if value.is_constant and np.ndim(value.constant) and np.any(value.constant):
            return self.constant_name(value, "constant"), ATOM
        return super().expression(value, top)

    def constant_name(self, value: Value, hint: str) -> str:
        """The name of a constant array, which is made before the loop."""
        key = repr_of(value.constant)
        if key not in self.constants:
            self.constants[key] = self.free(hint), constant(value.constant)[0]
        return self.constants[key][0]


def assignments(names: list[str], texts: list[str]) -> list[str]:
    """A line for each, unless one would change what a later one reads."""
    for i, name in enumerate(names):
        if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for text in texts[i + 1:]):
            return hand_on(names, texts)
    return [line for pair in zip(names, texts) if pair[0] != pair[1] for line in assignment(*pair)]


def hand_on(names: list[str], texts: list[str]) -> list[str]:
    """`a_prev, c_prev = a, c`, at once, for a text may hold another's name."""
    pairs = [(name, text) for name, text in zip(names, texts) if name != text]
    if not pairs:
        return []
    names, texts = ([pair[i] for pair in pairs] for i in (0, 1))
    line = f"{', '.join(names)} = {', '.join(texts)}"
    return [line] if len(line) <= WIDTH or len(pairs) == 1 else assignment(", ".join(names), bracket(texts, "("))


def array(how: str, shape: tuple, dtype: Any) -> str:
    return f"np.{how}({shape}, {dtype_text(dtype)})"
