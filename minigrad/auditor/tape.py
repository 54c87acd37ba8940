"""The tape: the steps of a forward and its derived backward, each of which can be replaced and rerun.

A fault is a replacement of some steps of the backward; only what depends on them runs again.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from minigrad.auditor.record import Edge, Recorder, Recording
from minigrad.engine.op import PART
from minigrad.engine.pytree import flatten, named_leaves, unflatten
from minigrad.program.trace import Symbol, argument_names

A_REPLAY = 15  # what a replay costs beside its steps, in steps
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
        paths = [path for name, arg in zip(argument_names(forward, inputs), inputs)
                 for path, _ in named_leaves(arg, name)]
        short = [path.rsplit(".", 1)[-1] for path in paths]
        labels = [label if short.count(label) == 1 else path for label, path in zip(short, paths)]
        self.rng, self.labels = rng, labels
        first = self.draw()

        def run(*floats: Any) -> Any:
            leaves = list(first)
            for i, x in zip(self.floats, floats):
                leaves[i] = x
            return forward(*unflatten(self.pattern, leaves))

        record = Recording(run, tuple(first[i] for i in self.floats), Recorder())
        record.close()
        self.steps, self.edges, self.totals = record.steps, record.edges, record.totals
        self.result, self.seeds = record.result, record.arriving
        self.leaf_numbers = [record.numbers[x._index] for x in record.leaves]
        self.leaves = {labels[i]: number for i, number in zip(self.floats, self.leaf_numbers) if number in self.totals}
        for label, number in zip([labels[i] for i in self.floats], self.leaf_numbers):
            self.steps[number].name = label
        self.index()
        self.ran = 0  # steps, in all replays
        self.accepted: dict[int, Replacement] = {}  # the replacements that are in force in every replay
        self.draws: list[Draw] = []
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
            if step.compute is not None:
                values[i] = step.compute(*[values[x] for x in step.inputs])
        d = iter(self.seeds)
        d_outputs = unflatten(self.result, [
            values[next(d)] if isinstance(y, Symbol) and y._tracked else np.zeros(np.shape(getattr(y, "example", y)))
            for y in flatten(self.result)[0]])
        self.draws.append(Draw(values, d_outputs, leaves))

    def index(self) -> None:
        """What depends on what, as bits, and which steps and edges belong to one place of the code."""
        steps, n = self.steps, len(self.steps)
        self.calls = groups((i for i in range(n) if steps[i].kind == "forward"), lambda i: steps[i].place)
        self.times = max(map(len, self.calls.values()), default=1)
        self.carried = dict.fromkeys(e for e in self.edges if steps[e.consumer].time > steps[e.x].time
                                     and steps[e.x].kind == "forward" and len(self.calls[steps[e.x].place]) > 1)
        carries = {e.contribution for e in self.carried}
        self.before, self.after, self.after_within = ([1 << i for i in range(n)] for _ in range(3))
        for i, step in enumerate(steps):
            for x in step.inputs:
                self.before[i] |= self.before[x]
        for i, step in reversed(list(enumerate(steps))):
            for x in step.inputs:
                self.after[x] |= self.after[i]
                self.after_within[x] |= 0 if i in carries else self.after_within[i]
        self.starts = {steps[e.x].place: steps[self.calls[steps[e.consumer].place][0]].inputs[e.position]
                       for e in self.carried}  # {place of a state: its initial value}
        state_of = {(self.starts[steps[e.x].place], steps[e.consumer].place): steps[e.x].place for e in self.carried}
        self.slots = list(groups(self.edges, lambda e: (
            steps[e.consumer].place, e.position if not steps[e.consumer].op.variadic
            else state_of.get((e.x, steps[e.consumer].place), self.key(e.x)))).values())
        self.bundles = [part for slot in self.slots for part in unique(
            [slot, *groups(slot, lambda e: self.key(e.x)).values()])]
        self.activations = [slot for slot in self.slots if (op := steps[slot[0].consumer].op) and len(op.arrays) == 1
                            and op.elementwise and not op.linear and not op.variadic]
        edge_of = {(steps[e.consumer].place, k): e for e in reversed(self.edges) for k in (e.position, None)}
        rules = groups((i for i in range(n) if steps[i].kind == "rule"),
                       lambda i: edge_of.get((steps[steps[i].of].place, steps[i].position)))
        self.rules = [(e, list(groups(rule, lambda i: steps[i].number_in).values())) for e, rule in rules.items() if e]
        self.values_at = self.series(i for i in range(n) if steps[i].kind in ("leaf", "forward", "constant"))
        self.gradients_at = self.series(i for calls in self.calls.values() for i in map(self.totals.get, calls) if i)
        self.gradients_at += self.series(i for i in self.seeds if len(steps[self.totals[steps[i].of]].inputs) > 1)
        for at in groups(self.carried, lambda e: steps[e.x].place).values():
            if len(carried := {steps[e.x].time: e.contribution for e in at}) == len(at):
                self.gradients_at.append(Series(at[0], f"the carried {d(self.say(at[0].x))}", True, carried))

    def series(self, some: Iterable[int]) -> list[Series]:
        """The arrays among some steps, those of one place together."""
        return [Series(key, self.say(at[0]), any(self.steps[i if self.steps[i].of < 0 else self.steps[i].of].name
                                                 for i in at), {self.time(i): i for i in at})
                for key, at in groups(filter(self.shape, some), self.key).items()]

    def key(self, i: int) -> Any:
        """What the values of a place have in common at all times; for a total, what its gradients have."""
        step = self.steps[i]
        return ("total", self.key(step.of)) if step.kind == "total" else step.place or i

    def time(self, i: int) -> int:
        """The time of a forward step, or of the one whose backward a step belongs to."""
        return self.steps[i].time if self.steps[i].of < 0 else self.steps[self.steps[i].of].time

    def shape(self, i: int) -> tuple[int, ...]:
        """The shape of a step's value; () for an op of several results."""
        return getattr(self.steps[i].example, "shape", ())

    def total(self, leaf: str) -> int:
        return self.totals[self.leaves[leaf]]

    def true(self, leaf: str) -> Any:
        """The gradient of a leaf at the first draw, with the replacements that are in force."""
        return self.draws[0].values[self.total(leaf)]

    # -- values -----------------------------------------------------------------------------------------

    def behind(self, changed: Iterable[int], within: bool = False) -> int:
        """All that depends on some steps, as bits. within: not from step to step of time."""
        after, mask = self.after_within if within else self.after, 0
        for i in changed:
            mask |= after[i]
        return mask

    def length(self, changed: Iterable[int], leaf: str) -> int:
        """How many steps a replay runs."""
        return (self.behind(changed) & self.before[self.total(leaf)]).bit_count()

    def gradients(self, leaves: tuple[str, ...], replaced: dict[int, Replacement], draw: int = 0,
                  within: bool = False) -> list:
        """The gradients of leaves with some steps replaced."""
        return self.replayed(leaves, replaced, self.draws[draw].values, within)

    def replayed(self, leaves: tuple[str, ...], replaced: dict[int, Replacement], before: list, within: bool) -> list:
        todo, wanted = self.behind(replaced, within), 0
        for leaf in leaves:
            wanted |= self.before[self.total(leaf)]
        path = bits(todo & wanted)
        self.ran += len(path) + A_REPLAY
        values = Values(self, before, replaced, todo).sweep(path)
        return [values[self.total(leaf)] for leaf in leaves]

    def accept(self, replaced: dict[int, Replacement]) -> None:
        """Make replacements permanent, in the values of all draws too."""
        self.accepted = {**self.accepted, **replaced}
        todo = self.behind(replaced)
        for draw in self.draws:
            draw.values[:] = Values(self, draw.values, replaced, todo).sweep(bits(todo))

    # -- words --------------------------------------------------------------------------------------------

    def say(self, i: int, depth: int = 2) -> str:
        """What the user calls a step; an expression where it has no name."""
        step = self.steps[i]
        if step.kind == "total":
            return d(self.say(step.of))
        if step.kind == "seed":
            return self.say_arriving(step.of)
        names = [name for k in self.calls.get(step.place, (i,)) if (name := self.steps[k].name)]
        if names:
            return step.name or max(set(names), key=names.count)
        if step.kind == "constant":
            return f"{float(step.example):g}" if np.ndim(step.example) == 0 else "the constant"
        if depth < 0 or step.op is None:
            return "…"
        inputs = [self.say(x, depth - 1 if step.kind == self.steps[x].kind else 2) for x in step.inputs]
        if step.op.infix and len(inputs) == 1:
            return f"−{inputs[0]}"
        if step.op.infix and len(inputs) == 2:
            if inputs[0] == inputs[1] and step.op.infix == "*":
                return f"{inputs[0]}²"
            sign = {"*": " ", "-": " − "}.get(step.op.infix, f" {step.op.infix} ")
            return sign.join(x if len(x.split()) == 1 or x.endswith(")") else f"({x})" for x in inputs)
        if step.op is PART or step.op.view or step.op.name in PLAIN:
            return inputs[0] + (".T" if step.kind == "rule" and step.op.name.startswith("t") else "")
        return f"{step.op.name}({', '.join(dict.fromkeys(inputs))})"

    def say_read(self, i: int, consumer: int) -> str:
        """A value that the rule of a consumer reads; a state of the step before is called so."""
        step = self.steps[i]
        start = next((place for place, start in self.starts.items() if start == i), None)
        if start is not None and self.steps[consumer].time == 0:
            return f"{self.say(self.calls[start][0])} of the step before"
        is_before = step.kind == "forward" and len(self.calls[step.place]) > 1 and step.time < self.steps[consumer].time
        return self.say(i, 2 + (step.kind == "rule")) + (" of the step before" if is_before else "")

    def say_path(self, e: Edge) -> str:
        return f"from {self.say(e.consumer)} to {self.say(e.x)}"

    def say_between(self, e: Edge) -> str:
        """Where the path lies, in terms of the gradients that the user wrote."""
        return f"between {d(self.say(e.consumer))} and {d(self.say(e.x))}"

    def say_arriving(self, y: int) -> str:
        return f"the arriving {d(self.say(y)).removeprefix('the ')}"

    def say_user(self, i: int) -> str:
        """What a block of a fused array is used for: the first named result on the path from it."""
        while self.steps[i].name is None:
            users = [e.consumer for e in self.edges if e.x == i]
            if len(users) != 1:
                break
            i = users[0]
        return self.say(i)

    @functools.cached_property
    def numbers(self) -> list[tuple[float, str]]:
        """Numbers that the sizes suggest, with their names."""
        shapes = [self.shape(i) for i, step in enumerate(self.steps) if step.kind in ("leaf", "forward")]
        lengths = sorted({n for shape in shapes for n in shape if n > 1})
        sizes = sorted({int(np.prod(shape)) for shape in shapes} - set(lengths) - {1})
        out = [(float(n), f"{n}") for n in lengths] + [(1.0 / n, f"1/{n}") for n in lengths]
        out += [(2.0, "2"), (0.5, "1/2"), (-1.0, "−1")]
        out += [(float(n), f"{n}") for n in sizes] + [(1.0 / n, f"1/{n}") for n in sizes]
        out += [(n ** 0.5, f"√{n}") for n in lengths] + [(n ** -0.5, f"1/√{n}") for n in lengths]
        return out + [(n / m, f"{n}/{m}") for n, m in itertools.permutations([*lengths, *sizes], 2)]


PLAIN = ("getitem", "transpose", "reshape", "copy", "broadcast_to")  # written as their first input


class Draw(NamedTuple):
    """The values of all steps at some inputs, the gradients that arrive there, and the inputs."""

    values: list
    d_outputs: Any
    leaves: list


class Series(NamedTuple):
    """The values, or the gradients, of one place of the code: {time: step}."""

    key: Any
    name: str
    is_named: bool
    at: dict[int, int]

    @property
    def first(self) -> int:
        return self.at[min(self.at)]


class Values:
    """The values of a replay. v(i) is that of a step, which is computed ahead of its turn if a replacement reads it.

    base   what a step is without any change;  own: what its own op gives from what has been changed before it
    again  the gradient of a leaf from another replay, with more steps replaced
    """

    def __init__(self, tape: Tape, values: list, given: dict[int, Replacement], todo: int):
        self.tape, self.before, self.values, self.todo = tape, values, values.copy(), todo
        self.given, self.replaced = given, {**tape.accepted, **given}
        self.done: set[int] = set()

    def sweep(self, path: list[int]) -> list:
        """Compute the steps of a path, in order; return the values of all steps."""
        values, steps, done, replaced = self.values, self.tape.steps, self.done, self.replaced
        for i in path:
            if i not in done:
                step = steps[i]
                values[i] = self.changed(i) if i in replaced else step.compute(*[values[x] for x in step.inputs])
                done.add(i)
        return values

    def changed(self, i: int) -> Any:
        new = self.replaced[i](self)
        if self.tape.steps[i].kind in ("contribution", "seed") and np.shape(new) != self.tape.shape(i):
            return np.broadcast_to(new, self.tape.shape(i))
        return new

    def __call__(self, i: int) -> Any:
        if i not in self.done and self.todo >> i & 1:
            self.done.add(i)
            self.values[i] = self.changed(i) if i in self.replaced else self.own(i)
        return self.values[i]

    def base(self, i: int) -> Any:
        return self.before[i]

    def own(self, i: int) -> Any:
        step = self.tape.steps[i]
        return step.compute(*map(self, step.inputs))

    def again(self, leaf: str, replaced: dict[int, Replacement], within: bool) -> Any:
        total = self.tape.total(leaf)
        return self.tape.replayed((leaf,), {**self.given, **replaced, total: lambda v: v.own(total)}, self.before,
                                  within)[0]


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set, the smallest first."""
    return np.flatnonzero(np.frombuffer(bin(mask)[:1:-1].encode(), np.uint8) == ord("1")).tolist()


def number_name(numbers: list[tuple[float, str]], k: float) -> tuple[str, bool]:
    """A number as a person would write it, and whether the sizes give it."""
    found = next((name for n, name in numbers if abs(n - k) < 1e-7 * abs(k)), None)
    return found or f"{k:.6g}", found is not None


def d(name: str) -> str:
    return f"d{name}" if name.isidentifier() else f"the gradient of {name}"


def unique(items: list[list]) -> list[list]:
    return [item for i, item in enumerate(items) if item not in items[:i]]


def groups(items: Iterable, key: Callable) -> dict[Any, list]:
    out: dict[Any, list] = defaultdict(list)
    for item in items:
        out[key(item)].append(item)
    return out
