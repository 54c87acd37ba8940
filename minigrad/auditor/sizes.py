"""What the sizes of the inputs hide: lengths that are equal by chance, and loops of fewer than three steps.

Two axes are tied if the forward cannot run with one of them longer than the other. It is found out by trying: each op
of the forward runs on ones, with one axis longer, then with two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.tape import Tape, groups
from minigrad.engine.pytree import unflatten
from minigrad.program.trace import TraceError


def notes_on_sizes(tape: Tape, forward: Callable) -> Iterator[str]:
    """A sentence on independent axes of one input that have the same length, and one on a short loop."""
    class_of, equal = tied(tape), []
    for leaf, i in tape.leaves.items():
        for n, axes in groups(enumerate(np.shape(tape.steps[i].example)), lambda entry: entry[1]).items():
            if n > 1 and len({class_of((i, axis)) for axis, _ in axes}) > 1:
                equal.append(f"{leaf} ({' and '.join(str(axis) for axis, _ in axes)})")
    if equal:
        yield (f"note: axes of {', '.join(equal)} have the same length, though the forward does not ask for it: a "
               "fault that takes one for the other cannot be seen; give them different lengths")
    for i, x in ((i, x) for i, x in enumerate(tape.examples) if i in tape.floats and x.ndim > 2):
        for axis in (axis for axis, n in enumerate(x.shape) if n < 3):
            longer = list(tape.examples)
            longer[i] = np.zeros([3 if k == axis else n for k, n in enumerate(x.shape)])
            try:
                is_time = Tape(forward, unflatten(tape.pattern, longer), np.random.default_rng(0)).times > tape.times
            except (ValueError, TypeError, IndexError, TraceError):
                continue
            if is_time:
                yield (f"note: axis {axis} of {tape.labels[i]} is time and has the length {x.shape[axis]}: faults in "
                       "what is carried from step to step can hide; give it 3 steps or more")


def tied(tape: Tape) -> Callable[[tuple], tuple]:
    """The function from (step, axis) to the representative of the axes that are tied to it."""
    parent: dict[tuple, tuple] = {}

    def find(axis: tuple) -> tuple:
        while parent.get(axis, axis) != axis:
            axis = parent[axis]
        return axis

    for i, step in enumerate(tape.steps):
        if step.kind != "forward" or step.time > 1:  # later calls tie the same places
            continue
        arrays = [tape.steps[x].example for x in step.inputs]
        axes = [(k, a) for k, x in enumerate(arrays) if not isinstance(x, tuple) for a, n in enumerate(np.shape(x))
                if n > 1]
        for one in axes:
            n = np.shape(arrays[one[0]])[one[1]]
            alike = [axis for axis in axes if np.shape(arrays[axis[0]])[axis[1]] == n]
            tries = [[one], *([one, other] for other in alike if other != one), [a for a in alike if a[1] == one[1]]]
            some = next((some for some in tries if grown(step, arrays, some) is not None), alike)
            out = grown(step, arrays, some)
            now = [] if isinstance(step.example, tuple) else np.shape(step.example)
            ends = [(tape.key(step.inputs[j]), a) for j, a in some] + [
                (tape.key(i), b) for b, m in enumerate(now) if m == n and (out is None or out[b] != m)]
            for end in ends[1:]:
                parent[find(end)] = find(ends[0])
    results = [tape.steps[seed].of for seed in tape.seeds]
    for shape, made in groups(results, lambda i: np.shape(tape.steps[i].example)).items():
        states = [i for i in tape.leaves.values() if np.shape(tape.steps[i].example) == shape]
        for i in states if len(states) == len(made) else ():  # the next state has the sizes of the state
            for axis in range(len(shape)):
                parent[find((i, axis))] = find((tape.key(made[0]), axis))
    return find


def grown(step: Any, arrays: list, longer: list[tuple[int, int]]) -> tuple | None:
    """The shape of an op's result with some axes of its inputs longer by one; None if it does not run."""
    try:
        out = step.op.forward(*[np.ones([n + ((k, a) in longer) for a, n in enumerate(np.shape(x))])
                                for k, x in enumerate(arrays)], **step.metadata)
    except Exception:  # whatever NumPy says of shapes that do not fit
        return None
    return np.shape(out) if not isinstance(out, tuple) and np.ndim(out) == np.ndim(step.example) else None
