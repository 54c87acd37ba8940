"""The tape: the steps of a forward and its derived backward, each of which can be replaced and rerun.

A fault is a replacement of some steps of the backward; only what depends on them runs again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minigrad.auditor.record import DerivationTrace, Edge, Recorder, fit
from minigrad.engine.op import PART
from minigrad.engine.pytree import flatten, named_leaves, unflatten
from minigrad.program.trace import Symbol, argument_names

Replacement = Callable[["Values"], Any]  # from the values of a replay to that of the step


class Tape:
    """The steps of `forward` at `inputs`, their values there, and the replay with replacements.

    leaves  {name: the number of the leaf};  totals {forward step: the number of its total}
    draws   the lists of values: at the inputs of the search, then at others
    """

    def __init__(self, forward: Callable, inputs: tuple, rng: np.random.Generator):
        examples, self.pattern = flatten(inputs)
        self.examples = [np.asarray(x) for x in examples]
        self.floats = [i for i, x in enumerate(self.examples) if x.dtype.kind == "f"]
        labels = [(name.rsplit(".", 1)[-1], name) for name_of, arg in zip(argument_names(forward, inputs), inputs)
                  for name, _ in named_leaves(arg, name_of)]
        short = [label for label, _ in labels]
        labels = [label if short.count(label) == 1 else path for label, path in labels]
        self.rng, self.labels = rng, labels
        first = self.draw()

        def run(*floats: Any) -> Any:
            leaves = list(first)
            for i, x in zip(self.floats, floats):
                leaves[i] = x
            return forward(*unflatten(self.pattern, leaves))

        trace = DerivationTrace(run, tuple(first[i] for i in self.floats), Recorder())
        trace.close()
        built = trace.steps
        self.steps, self.edges, self.totals = built.steps, built.edges, built.totals
        self.result, self.seeds = trace.result, built.seeds
        self.leaves = {labels[i]: built.numbers[x._index] for i, x in zip(self.floats, trace.leaves)
                       if built.numbers[x._index] in self.totals}
        self.leaf_numbers = [built.numbers[x._index] for x in trace.leaves]
        for label, number in zip([labels[i] for i in self.floats], self.leaf_numbers):
            self.steps[number].name = label
        self.index()
        self.accepted: dict[int, Replacement] = {}  # the replacements that are in force in every replay
        self.draws: list[tuple[list, Any, list]] = []
        self.add_draw(first)

    def draw(self) -> list:
        return [0.7 * self.rng.normal(size=x.shape) if i in self.floats else x for i, x in enumerate(self.examples)]

    def add_draw(self, leaves: list | None = None) -> None:
        """Evaluate the tape at new inputs and new arriving gradients."""
        leaves = self.draw() if leaves is None else leaves
        values = [step.example for step in self.steps]
        for number, i in zip(self.leaf_numbers, self.floats):
            values[number] = leaves[i]
        for seed in self.seeds:
            values[seed] = self.rng.normal(size=np.shape(values[seed]))
        for i, step in enumerate(self.steps):
            if step.kind not in ("leaf", "constant", "seed"):
                values[i] = self.run[i](values.__getitem__)
        d = iter(self.seeds)
        d_outputs = unflatten(self.result, [
            values[next(d)] if isinstance(y, Symbol) and y._tracked else np.zeros(np.shape(getattr(y, "example", y)))
            for y in flatten(self.result)[0]])
        self.draws.append((values, d_outputs, leaves))

    def index(self) -> None:
        """What depends on what, as bits; which steps belong to one place."""
        after, users = [0] * len(self.steps), defaultdict(list)
        for i, step in enumerate(self.steps):
            for x in step.inputs:
                users[x].append(i)
        for i in reversed(range(len(self.steps))):
            after[i] = 1 << i
            for user in users[i]:
                after[i] |= after[user]
        before = [0] * len(self.steps)
        for i, step in enumerate(self.steps):
            before[i] = 1 << i
            for x in step.inputs:
                before[i] |= before[x]
        self.after, self.before, self.paths = after, before, {}
        self.run = [None if step.kind in ("leaf", "constant", "seed") else self.runner(i)
                    for i, step in enumerate(self.steps)]
        self.calls: dict[Any, list[int]] = defaultdict(list)
        for i, step in enumerate(self.steps):
            if step.kind == "forward":
                self.calls[step.place].append(i)
        self.times = max(map(len, self.calls.values()), default=1)
        self.carries = {e.contribution for e in self.edges if self.crosses(e)}

    def crosses(self, e: Edge) -> bool:
        """Whether an edge goes from a step of time to an earlier one."""
        consumer, x = self.steps[e.consumer], self.steps[e.x]
        return x.kind == "forward" and consumer.time > x.time and len(self.calls[x.place]) > 1

    # -- values -----------------------------------------------------------------------------------------

    def runner(self, i: int) -> Callable[[Callable[[int], Any]], Any]:
        """The function that computes a step from the function that reads its inputs."""
        step, op, metadata = self.steps[i], self.steps[i].op, self.steps[i].metadata
        if step.kind == "total" and step.name == "parts":
            found = dict(zip(metadata, step.inputs))
            return lambda read: tuple([read(found[k]) if k in found else np.zeros_like(y)
                                       for k, y in enumerate(read(step.of))])
        if step.kind == "total":
            first, *rest = step.inputs

            def total(read: Callable) -> Any:
                out = read(first)
                for x in rest:
                    out = out + read(x)
                return out
            return total
        if step.kind == "contribution":
            (source,), shape = step.inputs, np.shape(step.example) if not isinstance(step.example, tuple) else None

            def contribution(read: Callable) -> Any:
                d = read(source)
                if shape is not None and getattr(d, "shape", None) != shape:
                    d = fit(d, shape)
                return d if metadata is None else 0 * d
            return contribution
        if op is PART:
            (whole,), k = step.inputs, metadata["i"]
            return lambda read: read(whole)[k]
        forward, inputs = op.forward, step.inputs  # type: ignore[union-attr]
        if len(inputs) == 2 and not metadata:
            x, y = inputs
            return lambda read: forward(read(x), read(y))
        return lambda read: forward(*[read(x) for x in inputs], **metadata)

    def unsummed(self, leaf: str, draw: int) -> Any:
        """A gradient before it is summed over what broadcasting had added; None if its paths differ in shape."""
        raw = [self.draws[draw][0][(*self.steps[c].inputs, c)[0]] for c in self.steps[self.total(leaf)].inputs]
        return sum(raw) if len({np.shape(d) for d in raw}) == 1 else None

    def total(self, leaf: str) -> int:
        return self.totals[self.leaves[leaf]]

    def path(self, changed: frozenset, leaves: tuple[str, ...], within: bool) -> tuple[list[int], set[int]]:
        """The steps between the changed ones and the gradients of leaves, in order and as a set.

        within: not from step to step of time."""
        key = changed, leaves, within
        if key not in self.paths:
            wanted = mask = 0
            for leaf in leaves:
                wanted |= self.before[self.total(leaf)]
            for c in changed:
                mask |= self.after[c]
            mask &= wanted
            if within:
                kept: set[int] = set()
                out = []
                for i in bits(mask):
                    if i in changed or (i not in self.carries and any(x in kept for x in self.steps[i].inputs)):
                        kept.add(i)
                        out.append(i)
                self.paths[key] = out, set(out)
            else:
                self.paths[key] = bits(mask), set(bits(mask))
        return self.paths[key]

    def gradient(self, leaf: str, replaced: dict[int, Replacement], draw: int = 0, within: bool = False) -> Any:
        """The gradient of a leaf with some steps replaced."""
        return self.gradients((leaf,), replaced, draw, within)[0]

    def gradients(self, leaves: tuple[str, ...], replaced: dict[int, Replacement], draw: int = 0,
                  within: bool = False) -> list:
        """The gradients of leaves with some steps replaced."""
        path, todo = self.path(frozenset(replaced), leaves, within)
        values = Values(self, self.draws[draw][0], replaced, todo).sweep(path)
        return [values[self.total(leaf)] for leaf in leaves]

    def accept(self, replaced: dict[int, Replacement]) -> None:
        """Make replacements permanent, in the values of all draws too."""
        self.accepted = {**self.accepted, **replaced}
        for values, _, _ in self.draws:
            todo = {i for i, step in enumerate(self.steps) if step.kind in ("rule", "contribution", "total")}
            todo |= set(self.accepted)
            new = Values(self, values, {}, todo).sweep(sorted(todo))
            for i, step in enumerate(self.steps):
                if step.kind != "seed":
                    values[i] = new[i]

    # -- words --------------------------------------------------------------------------------------------

    def say(self, i: int, depth: int = 2) -> str:
        """What the user calls a forward step; an expression where it has no name."""
        step = self.steps[i]
        if step.name is None and step.kind == "forward":
            names = [self.steps[k].name for k in self.calls[step.place] if self.steps[k].name]
            if names:
                return max(set(names), key=names.count)
        if step.name:
            return step.name
        if step.kind == "constant":
            return f"{float(step.example):g}" if np.ndim(step.example) == 0 else "the constant"
        if depth < 0 or step.op is None:
            return "…"
        if step.op is PART:
            return self.say(step.inputs[0], depth)
        inputs = [self.say(x, depth - 1) for x in step.inputs]
        if step.op.infix and len(inputs) == 2:
            sign = {"*": " ", "-": " − "}.get(step.op.infix, f" {step.op.infix} ")
            return sign.join(x if len(x.split()) == 1 or x.endswith(")") else f"({x})" for x in inputs)
        if step.op.infix and len(inputs) == 1:
            return f"−{inputs[0]}"
        if step.op.name in ("getitem", "transpose", "reshape", "copy"):
            return inputs[0]
        return f"{step.op.name}({', '.join(dict.fromkeys(inputs))})"


class Values:
    """The values of a replay. values(i): that of a step, which is computed ahead of its turn if a replacement reads it.

    base            what it is without any change
    without_change  what its own op gives from what has been changed before it
    """

    def __init__(self, tape: Tape, values: list, replaced: dict[int, Replacement], todo: set[int]):
        self.tape, self.before, self.values, self.todo = tape, values, values.copy(), todo
        self.replaced = {**tape.accepted, **replaced}
        self.now, self.ahead = -1, set()

    def sweep(self, path: list[int]) -> list:
        """Compute the steps of a path, in order; return the values of all steps."""
        values, read, run, replaced = self.values, self.values.__getitem__, self.tape.run, self.replaced
        for i in path:
            if i in self.ahead:
                continue
            if i in replaced:
                self.now = i
                values[i] = self.changed(i)
            else:
                values[i] = run[i](read)
        return values

    def changed(self, i: int) -> Any:
        new = self.replaced[i](self)
        return new if self.tape.steps[i].kind == "rule" else like(new, self.before[i])  # a rule's step may broadcast

    def __call__(self, i: int) -> Any:
        if i > self.now and i in self.todo and i not in self.ahead:
            self.ahead.add(i)
            self.values[i] = self.changed(i) if i in self.replaced else self.tape.run[i](self)
        return self.values[i]

    def base(self, i: int) -> Any:
        return self.before[i]

    def without_change(self, i: int) -> Any:
        return self.tape.run[i](self)


def like(value: Any, before: Any) -> Any:
    """A value in the shape of the one that it replaces."""
    if isinstance(before, tuple) or np.shape(value) == before.shape:
        return value
    return np.broadcast_to(value, before.shape)


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set, the smallest first."""
    text = bin(mask)[:1:-1]
    out, i = [], text.find("1")
    while i >= 0:
        out.append(i)
        i = text.find("1", i + 1)
    return out


def groups(items: Iterable, key: Callable) -> dict[Any, list]:
    out: dict[Any, list] = defaultdict(list)
    for item in items:
        out[key(item)].append(item)
    return out
