"""What the sizes of the inputs hide: lengths that are equal by chance, and loops of fewer than three steps.

Two axes are tied if one cannot become longer without the other. It is found out by trying: the forward runs with one
axis longer by one, and where it stops, with the second that lets it come furthest, until it runs to its end. Axes that
are not tied get different lengths.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from minigrad.auditor.tape import Tape, groups
from minigrad.auditor.words import say
from minigrad.check.faults import CallSites
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import tensor

Axis = tuple  # (step, axis)
TO_ITS_END = 1_000_000  # more ops than a forward has


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
    axes = axes_of(tape)
    alike = [tied(tape, forward, some) for n, some in groups(axes, axes.__getitem__).items()
             if n > 1 and n not in fixed]
    for kept in itertools.islice(itertools.product(*filter(None, alike)), 6):
        unused = (n for n in itertools.count(3) if n not in fixed and n not in axes.values())
        longer: Counter = Counter()  # the columns of a fused matrix may be those of several classes
        for some in (some for classes in alike for some in classes if some not in kept):
            longer.update(dict.fromkeys(some, next(unused) - axes[some[0]]))
        if longer or short:
            yield resized(tape, {axis: n + longer[axis] for axis, n in axes.items()})


def notes_on_sizes(tape: Tape, forward: Callable) -> Iterator[str]:
    """A sentence on independent axes of one input that have the same length, and one on a short loop."""
    axes = axes_of(tape)
    equal = [f"{step.name} ({' and '.join(str(axis) for _, axis in some)})"
             for (step, n), some in groups(axes, lambda axis: (axis[0], axes[axis])).items()
             if n > 1 and len(tied(tape, forward, some)) > 1]
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


def tied(tape: Tape, forward: Callable, alike: list[Axis]) -> list[list[Axis]]:
    """Classes of these axes of one length, each with all axes that have to grow with them; first, as one class, those
    that cannot grow."""
    stuck: list[Axis] = []
    classes: list[list[Axis]] = []
    for axis in alike if len(alike) > 1 else ():
        if any(axis in some for some in classes):
            continue
        some, came, before = [axis], ops_run(tape, forward, [axis]), -1
        while before < came < 2 * TO_ITS_END:
            tries: dict[Axis, int] = {}
            for one in [one for one in axes_of(tape) if one not in some]:
                tries[one] = ops_run(tape, forward, [*some, one])
                if tries[one] == 2 * TO_ITS_END:
                    break
            best = max(tries, key=lambda one: tries[one], default=axis)
            before, came = came, tries.get(best, 0)
            some.append(best)
        if came == 2 * TO_ITS_END:
            classes.append(some)
        else:
            stuck.append(axis)
    return [stuck, *classes] if stuck else classes


def ops_run(tape: Tape, forward: Callable, longer: list[Axis]) -> int:
    """How many ops the forward runs with some axes longer by one. To its end are more, and twice as many if the next
    state, among its results, has the sizes of the state: h_next those of h_prev."""
    inputs = resized(tape, {axis: n + (axis in longer) for axis, n in axes_of(tape).items()})
    arrays = flatten(inputs)[0]
    now = {step: np.shape(arrays[i]) for i, step in zip(tape.floats, tape.inputs)}
    with np.errstate(all="ignore"), CallSites() as sites, contextlib.suppress(Exception):  # whatever NumPy says
        result = forward(*map_leaves(lambda x: tensor(x, requires_grad=True) if x.dtype.kind == "f" else x, inputs))
        shapes, unlike = list(map(np.shape, flatten(result)[0])), 0
        for seed in tape.seeds:
            states = [leaf for leaf in tape.leaves.values() if leaf.shape == seed.shape]
            if len(states) > len([other for other in tape.seeds if other.shape == seed.shape]):
                states = [leaf for leaf in states if leaf.name[0] == say(seed.of)[0]]
            unlike += sum(n != m for leaf in states for n, m in zip(now[leaf], shapes[seed.position]))
        return 2 * TO_ITS_END if not unlike else TO_ITS_END - unlike
    return len(sites.calls)
