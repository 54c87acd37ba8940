"""What the sizes of the inputs hide: lengths that are equal by chance, and loops of fewer than three steps.

Two axes are tied if the forward cannot run with one of them longer than the other. It is found out by trying: each op
of the forward runs on ones, with one axis longer, then with two. Axes that are not tied get different lengths.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from minigrad.auditor.record import Step
from minigrad.auditor.tape import Tape, groups
from minigrad.auditor.words import say
from minigrad.engine.pytree import unflatten

Axis = tuple  # (step, axis)


def other_inputs(tape: Tape, forward: Callable) -> Iterator[tuple]:
    """Inputs of other shapes, at which axes that are not tied have different lengths, and time has 3 steps or more.

    An axis of length 1 stays, for it may be broadcast, and so does a length of an array of integers: they are indices.
    Of classes of one length any may have to keep it (H, if another axis has the length 4 H): each is tried.
    """
    fixed = {n for i, x in enumerate(tape.examples) if i not in tape.floats for n in x.shape}
    short = [axis for axis in short_times(tape, forward) if axes_of(tape)[axis] not in fixed]
    if short:
        with contextlib.suppress(Exception):  # of a forward of the user's
            tape = Tape(forward, resized(tape, dict.fromkeys(short, 3)), np.random.default_rng(0))
    (class_of, joined), axes = tied(tape), axes_of(tape)
    now = {class_of(axis): n for axis, n in axes.items()}
    alike = [dict.fromkeys(map(class_of, some)) for n, some in groups(axes, axes.__getitem__).items()
             if n > 1 and n not in fixed]
    for kept in itertools.islice(itertools.product(*alike), 6):
        unused = (n for n in itertools.count(3) if n not in fixed and n not in axes.values())
        new = {c: next(unused) for some in alike for c in some if c not in kept}
        for whole, parts in ((class_of(whole), list(map(class_of, parts))) for whole, parts in joined.items()):
            if now.keys() >= {whole, *parts} and now[whole] == sum(now[part] for part in parts):
                new[whole] = sum(new.get(part, now[part]) for part in parts)
        if new or short:
            yield resized(tape, {axis: new.get(class_of(axis), n) for axis, n in axes.items()})


def notes_on_sizes(tape: Tape, forward: Callable) -> Iterator[str]:
    """A sentence on independent axes of one input that have the same length, and one on a short loop."""
    (class_of, _), axes = tied(tape), axes_of(tape)
    equal = [f"{step.name} ({' and '.join(str(axis) for _, axis in some)})"
             for (step, n), some in groups(axes, lambda axis: (axis[0], axes[axis])).items()
             if n > 1 and len(set(map(class_of, some))) > 1]
    if equal:
        yield (f"note: axes of {', '.join(equal)} have the same length, though the forward does not ask for it: a "
               "fault that takes one for the other cannot be seen; give them different lengths")
    for axis in short_times(tape, forward):
        yield (f"note: axis {axis[1]} of {axis[0].name} is time and has the length {axes[axis]}: faults in what is "
               "carried from step to step can hide; give it 3 steps or more")


def axes_of(tape: Tape) -> dict[Axis, int]:
    """The lengths of the axes of the leaves."""
    return {(step, axis): n for step in tape.leaves.values() for axis, n in enumerate(step.shape)}


def short_times(tape: Tape, forward: Callable) -> Iterator[Axis]:
    """The axes of less than 3 steps that are time: with more, the forward calls some place more often."""
    for axis in (axis for axis, n in axes_of(tape).items() if n < 3 <= len(axis[0].shape)):
        with contextlib.suppress(Exception):  # of a forward of the user's
            if Tape(forward, resized(tape, {axis: 3}), np.random.default_rng(0)).times > tape.times:
                yield axis


def resized(tape: Tape, lengths: dict[Axis, int]) -> tuple:
    """Inputs with some axes of other lengths."""
    arrays = list(tape.examples)
    for i, step in zip(tape.floats, tape.inputs):
        arrays[i] = np.zeros([lengths.get((step, axis), n) for axis, n in enumerate(arrays[i].shape)])
    return unflatten(tape.pattern, arrays)


def tied(tape: Tape) -> tuple[Callable[[Axis], Axis], dict[Axis, list[Axis]]]:
    """The function from an axis to the representative of those that are tied to it, and {axis: those joined in it}."""
    parent: dict[Axis, Axis] = {}
    joined: dict[Axis, list[Axis]] = defaultdict(list)

    def find(axis: Axis) -> Axis:
        while parent.get(axis, axis) != axis:
            axis = parent[axis]
        return axis

    def key(step: Step, axis: int) -> Axis:
        return step if step.kind == "leaf" else step.place, axis

    for step in tape.steps:
        if step.kind != "forward" or step.time > 1:  # later calls tie the same places
            continue
        shapes = [x.shape for x in step.inputs]
        axes = [(k, a) for k, shape in enumerate(shapes) for a, n in enumerate(shape) if n > 1]
        for one in axes:
            n = shapes[one[0]][one[1]]
            alike = [(k, a) for k, a in axes if shapes[k][a] == n]
            tries = [[one], *([one, other] for other in alike if other != one), [a for a in alike if a[1] == one[1]]]
            some = next((some for some in tries if grown(step, shapes, some) is not None), alike)
            out = grown(step, shapes, some)
            ends = [key(step.inputs[k], a) for k, a in some] + [
                key(step, b) for b, m in enumerate(step.shape) if m == n and (out is None or out[b] != m)]
            for b, m in enumerate(out or () if step.op.variadic else ()):
                if len(some) == 1 and m == step.shape[b] + 1 != n + 1:  # a concatenation
                    joined[key(step, b)].append(ends[0])
            if "index" in step.metadata and len(ends) == 1:  # read step by step: one loop may read several arrays
                ends.append(("read by index", n))
            for end in ends[1:]:
                parent[find(end)] = find(ends[0])
    results = [seed.of for seed in tape.seeds]
    for y in results:  # the next state has the sizes of the state: h_next those of h_prev
        states = [leaf for leaf in tape.leaves.values() if leaf.shape == y.shape]
        if len(states) > len([other for other in results if other.shape == y.shape]):
            states = [leaf for leaf in states if leaf.name[0] == say(y)[0]]
        for leaf, axis in itertools.product(states, range(len(y.shape))):
            parent[find(key(leaf, axis))] = find(key(y, axis))
    return find, joined


def grown(step: Step, shapes: list[tuple], longer: list[tuple[int, int]]) -> tuple | None:
    """The shape of an op's result with some axes of its inputs longer by one; None if it does not run."""
    try:
        out = step.compute(*[np.ones([n + ((k, a) in longer) for a, n in enumerate(shape)])
                             for k, shape in enumerate(shapes)])
    except Exception:  # whatever NumPy says of shapes that do not fit
        return None
    return np.shape(out) if not isinstance(out, tuple) and np.ndim(out) == np.ndim(step.example) else None
