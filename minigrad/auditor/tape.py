"""The tape: the steps of a forward and its derived backward, each of which can be replaced and rerun.

A fault is a replacement of some steps of the backward; only what depends on them runs again.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from minigrad.auditor.record import Recorder, Recording, Step, groups
from minigrad.engine.pytree import flatten, named_leaves, unflatten
from minigrad.program.trace import Symbol

A_REPLAY = 15  # what a replay costs beside its steps, in steps
Replacement = Callable[["Values", Step], Any]  # from the values of a replay and the step to its new value
Replaced = dict[Step, Replacement]


class Draw(NamedTuple):
    """The values of all steps at some inputs, the gradients that arrive there, and the inputs."""

    values: list
    d_outputs: Any
    inputs: list


class Tape:
    """The steps of `forward` at `inputs`, their values there, and the replay with replacements.

    leaves    {name: step};  labels: the names of all inputs
    places    {place: its steps by time}
    carried   the edges that carry a gradient from one step of time to the step before
    starts    {place of a state: the step that is its initial value}
    totals    of each place of the forward
    slots     the edges of each input of each place;  bundles: these, and their parts that lead to one place
    draws     at the inputs of the search, then at others
    """

    def __init__(self, forward: Callable, inputs: tuple, rng: np.random.Generator):
        examples, self.pattern = flatten(inputs)
        self.examples = [np.asarray(x) for x in examples]
        self.floats = [i for i, x in enumerate(self.examples) if x.dtype.kind == "f"]
        self.rng, self.scale = rng, 0.7
        first = self.draw()
        record = Recording(forward, unflatten(self.pattern, first), Recorder())
        record.close()
        self.steps, self.result, self.seeds = record.steps, record.result, record.arriving
        paths = [path for name, tree in record.arguments[:len(inputs)]
                 for path, _ in named_leaves(tree, name)]
        short = [path.rsplit(".", 1)[-1] for path in paths]
        self.labels = [label if short.count(label) == 1 else path for label, path in zip(short, paths)]
        self.inputs = [record.step(record.leaves[i]) for i in self.floats]
        for i, step in zip(self.floats, self.inputs):
            step.name = self.labels[i]
        self.leaves = {step.name: step for step in self.inputs if step.total}
        self.index()
        self.ran = 0  # steps, in all replays
        self.accepted: Replaced = {}  # the replacements that are in force in every replay
        self.draws: list[Draw] = []
        self.add_draw(first)
        if not all(np.isfinite(self.true(leaf)).all() for leaf in self.leaves):  # a recurrence without bounds
            self.scale, self.draws = 0.15, []
            self.add_draw()

    def draw(self) -> list:
        return [self.scale * self.rng.normal(size=x.shape) if i in self.floats else x
                for i, x in enumerate(self.examples)]

    def add_draw(self, inputs: list | None = None, is_plain: bool = False) -> None:
        """Evaluate the tape at new inputs and new arriving gradients. is_plain: that of a single number is 1."""
        inputs = self.draw() if inputs is None else inputs
        values = [step.example for step in self.steps]
        for step, i in zip(self.inputs, self.floats):
            values[step.number] = inputs[i]
        for seed in self.seeds:
            values[seed.number] = self.rng.normal(size=seed.shape) if seed.shape or not is_plain else np.ones(())
        for step in self.steps:
            if step.compute is not None:
                values[step.number] = step.compute(*[values[i] for i in step.reads])
        seeds = iter(self.seeds)
        d_outputs = unflatten(self.result, [
            values[next(seeds).number] if isinstance(y, Symbol) and y._tracked
            else np.zeros(np.shape(getattr(y, "example", y))) for y in flatten(self.result)[0]])
        self.draws.append(Draw(values, d_outputs, inputs))

    def index(self) -> None:
        """Which steps belong to one place of the code, and what depends on what, as bits."""
        self.places = groups(self.steps, lambda step: step.place)
        for at in self.places.values():
            name = next((step.name for step in reversed(at) if step.name), "")  # of the others only a callee knows one
            for step in at:
                step.is_repeated, step.name = len(at) > 1, name
        self.edges = [e for e in self.steps if e.kind == "edge"]
        self.carried = dict.fromkeys(e for e in self.edges if e.of.time > e.x.time and e.x.kind == "forward"
                                     and e.x.is_repeated)
        loops = [self.places[e.x.place] for e in self.carried] or [
            at for at in self.places.values() if at[0].kind == "forward"]
        self.times = max(map(len, loops), default=1)
        self.starts = {e.x.place: self.places[e.of.place][0].inputs[e.position] for e in self.carried}
        for place, start in reversed(self.starts.items()):
            start.starts = self.places[place][0]
        self.totals = [totals for at in self.places.values() if at[0].kind == "forward"
                       and (totals := [step.total for step in at if step.total])]
        self.slots = [at for at in self.places.values() if at[0].kind == "edge"]
        self.bundles = []
        for slot in self.slots:
            parts = list(groups(slot, lambda e: e.x.place).values())
            self.bundles += [slot, *(parts if len(parts) > 1 else [])]
        self.before, self.after = ([1 << i for i in range(len(self.steps))] for _ in range(2))
        for i, step in enumerate(self.steps):
            for x in step.reads:
                self.before[i] |= self.before[x]
        for i, step in reversed(list(enumerate(self.steps))):
            for x in step.reads:
                self.after[x] |= self.after[i]

    def true(self, leaf: str) -> Any:
        """The gradient of a leaf at the first draw, with the replacements that are in force."""
        return self.draws[0].values[self.leaves[leaf].total.number]

    def behind(self, changed: Iterable[Step]) -> int:
        """All that depends on some steps, as bits."""
        return union(self.after[step.number] for step in changed)

    def reached(self, changed: Iterable[Step], leaves: Iterable[str]) -> dict[str, int]:
        """{leaf: how many steps a replay runs} of the leaves that some steps lead to, the nearest first."""
        behind = self.behind(changed)
        totals = {leaf: self.leaves[leaf].total.number for leaf in leaves}
        lengths = {leaf: (behind & self.before[i]).bit_count() for leaf, i in totals.items() if behind >> i & 1}
        return dict(sorted(lengths.items(), key=lambda entry: entry[1]))

    def replay(self, replaced: Replaced, values: list, ends: int = -1) -> list:
        """The values of all steps, from those of a draw, with some steps replaced; as far as the ends, given as bits,
        depend on them."""
        return Values(self, replaced, values).run(ends)

    def gradients(self, leaves: Iterable[str], replaced: Replaced, draw: int = 0) -> list:
        """The gradients of leaves with some steps replaced."""
        totals = [self.leaves[leaf].total.number for leaf in leaves]
        values = self.replay(replaced, self.draws[draw].values, union(self.before[i] for i in totals))
        return [values[i] for i in totals]

    def accept(self, replaced: Replaced) -> None:
        """Make replacements permanent, in the values of all draws too."""
        for draw in self.draws:
            draw.values[:] = self.replay(replaced, draw.values)
        self.accepted = {**self.accepted, **replaced}

    @functools.cached_property
    def arrays(self) -> list[Series]:
        """The arrays of the forward."""
        return [Series(at) for at in self.places.values()
                if at[0].kind in ("leaf", "forward", "constant") and at[0].shape]

    @functools.cached_property
    def array_gradients(self) -> list[Series]:
        """The gradients of the forward's arrays, what arrives where others add to it, and what is carried."""
        found = [Series(at) for at in self.totals if at[0].shape]
        found += [Series([seed]) for seed in self.seeds if len(seed.of.total.inputs) > 1 and seed.shape]
        carried = groups(self.carried, lambda e: e.x.place).values()
        return found + [Series(at) for at in carried if len({e.x.time for e in at}) == len(at)]

    @functools.cached_property
    def numbers(self) -> list[tuple[float, str]]:
        """Numbers that the sizes suggest, with their names."""
        def whole(some: list[int]) -> list[tuple[float, str]]:
            return [(float(n), f"{n}") for n in some] + [(1 / n, f"1/{n}") for n in some]
        shapes = [step.shape for step in self.steps if step.kind in ("leaf", "forward")]
        lengths = sorted({n for shape in shapes for n in shape if n > 1})
        sizes = sorted({math.prod(shape) for shape in shapes} - set(lengths) - {1})
        roots = [(n ** 0.5, f"√{n}") for n in lengths] + [(n ** -0.5, f"1/√{n}") for n in lengths]
        ratios = [(n / m, f"{n}/{m}" if n % m else f"{n // m}")
                  for n, m in itertools.permutations([*lengths, *sizes], 2)]
        return [*whole(lengths), (2.0, "2"), (0.5, "1/2"), (-1.0, "−1"), *whole(sizes), *roots, *ratios]

    def number_name(self, k: float) -> tuple[str, bool]:
        """A number as a person would write it, and whether the sizes give it."""
        found = next((name for n, name in self.numbers if abs(n - k) < 1e-7 * abs(k)), None)
        return found or f"{k:.6g}", found is not None


class Series:
    """The values, or the gradients, of one place of the code: {time: step}."""

    def __init__(self, steps: list[Step]):
        self.first, self.place, self.shape = steps[0], steps[0].place, steps[0].shape
        self.at = {(step.x or step).time: step for step in steps}
        self.is_named = steps[0].kind == "edge" or any((step.of or step).name for step in steps)


class Values:
    """The values of a replay. v(step) is computed ahead of its turn if a replacement reads it.

    own     what a step is without its own replacement
    within  what a step is with other steps replaced, within one step of time
    """

    def __init__(self, tape: Tape, replaced: Replaced, values: Any):
        self.tape, self.before, self.values, self.todo = tape, values, values.copy(), tape.behind(replaced)
        self.replaced = {**tape.accepted, **replaced}
        self.done: set[int] = set()
        self.others: dict[int, Within] = {}

    def run(self, ends: int) -> list:
        """Compute what the ends depend on, in order; return the values of all steps."""
        values, steps, done, replaced = self.values, self.tape.steps, self.done, self.replaced
        path = bits(self.todo & ends)
        self.tape.ran += len(path) + A_REPLAY
        for i in path:
            if i not in done:
                step = steps[i]
                values[i] = self.changed(step) if step in replaced else step.compute(*[values[x] for x in step.reads])
                done.add(i)
        return values

    def changed(self, step: Step) -> Any:
        new = self.replaced[step](self, step)
        if step.kind in ("edge", "seed") and np.shape(new) != step.shape:
            return np.broadcast_to(new, step.shape)
        return new

    def __call__(self, step: Step) -> Any:
        i = step.number
        if i not in self.done and self.todo >> i & 1:
            self.done.add(i)
            self.values[i] = self.changed(step) if step in self.replaced else self.own(step)
        return self.values[i]

    def own(self, step: Step) -> Any:
        return self.before[step.number] if step.compute is None else step.compute(*map(self, step.inputs))

    def within(self, replaced: Replaced, step: Step) -> Any:
        if id(replaced) not in self.others:
            self.others[id(replaced)] = Within(self, replaced)
        return self.others[id(replaced)](step)


class Within(Values):
    """A replay with other steps replaced in one step of time: what is carried there is that of the outer replay."""

    def __init__(self, outer: Values, replaced: Replaced):
        super().__init__(outer.tape, replaced, {})
        self.outer, self.new, self.before = outer, replaced, outer.before

    def __call__(self, step: Step) -> Any:
        i, values = step.number, self.values
        if i not in values:
            values[i] = self.before[i]  # what is read where a value is needed for itself
            if step in self.new or (self.todo >> i & 1 and step not in self.tape.carried):
                self.tape.ran += 1
                values[i] = self.changed(step) if step in self.replaced else self.own(step)
            else:
                values[i] = self.outer(step)
        return values[i]


def union(masks: Iterable[int]) -> int:
    return functools.reduce(operator.or_, masks, 0)


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set, the smallest first."""
    return np.flatnonzero(np.frombuffer(bin(mask)[:1:-1].encode(), np.uint8) == ord("1")).tolist()
