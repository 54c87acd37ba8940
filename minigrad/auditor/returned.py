"""Faults of what is returned: the gradient was right, and then scaled, reordered, clipped, summed, or named wrongly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.change import kind, value_of
from minigrad.auditor.record import fit
from minigrad.auditor.tape import Tape, number_name

# (cost, text, what is returned for a gradient p and its axis a)
ALONG: list[tuple[float, str, Callable]] = [
    (1.5, "reversed along axis {a}", np.flip), (1.9, "a running sum along axis {a}", np.cumsum),
    (1.8, "shifted by 1 along axis {a}", lambda p, a: np.roll(p, 1, a)),
    (1.8, "shifted by -1 along axis {a}", lambda p, a: np.roll(p, -1, a)),
    (1.9, "summed over axis {a} and spread over it again", lambda p, a: 0 * p + p.sum(a, keepdims=True)),
    (1.9, "only the first of axis {a}", lambda p, a: p * (np.indices(p.shape)[a] == 0)),
    (1.9, "only the last of axis {a}", lambda p, a: p * (np.indices(p.shape)[a] == p.shape[a] - 1))]


@kind
def returned_array(tape: Tape, given: list) -> Iterator[tuple]:
    for leaf, g in given[0].items():
        total, true = tape.total(leaf), tape.true(leaf)
        sources = [(*tape.steps[c].inputs, c)[0] for c in sorted(tape.steps[total].inputs, key=tape.time)]
        if g.shape != true.shape:
            parts = [tape.draws[0].values[i] for i in sources]
            for cost, text, f in of_shape(g, true, parts):
                yield (cost, f"{{}}: the shape is {g.shape} in place of {true.shape}: {text}", {
                    total: lambda v, f=f, total=total, sources=sources: f(v.own(total), list(map(v, sources)))}, None)
            continue
        top = max(float(np.abs(draw[leaf]).max(initial=0)) for draw in given)
        for cost, text, f in of_values(tape, g, true, top):
            yield cost, f"{{}}: {text}", {total: lambda v, f=f, total=total: f(v.own(total))}, None
        for other in (other for other in tape.leaves if other != leaf and tape.true(other).shape == g.shape):
            yield 1.4, f"{{}}: it is that of {other}", {total: value_of(tape.total(other))}, None


def of_values(tape: Tape, g: Any, true: Any, top: float) -> Iterator[tuple[float, str, Callable]]:
    """What keeps the shape. top: the largest entry of the user's at all inputs."""
    if not g.any():
        yield 0.9, "zero: nothing arrives", lambda p: 0 * p
        return
    k = float(np.vdot(true, g) / (np.vdot(true, true) or 1))
    if k and abs(k - 1) > 1e-9:
        name, known = number_name(tape.numbers, k)
        text = "the sign is turned" if abs(k + 1) < 1e-9 else f"{name} times the gradient"
        yield 1.5 if known else 2.8, text, lambda p: k * p
    if true.ndim == 2 and true.shape[0] == true.shape[1]:
        yield 1.5, "transposed", np.transpose
    for axis, length in enumerate(true.shape):
        for cost, text, f in ALONG:
            yield cost, text.format(a=axis), lambda p, f=f, axis=axis: f(p, axis)
        for n in (n for n in (2, 3, 4) if length % n == 0 and length > n):
            for order in list(itertools.permutations(range(n)))[1:]:
                yield (1.5, f"the {n} blocks along axis {axis} are in the order {order}", lambda p, n=n, order=order,
                       axis=axis: np.concatenate([np.split(p, n, axis)[i] for i in order], axis))
    norm = float(np.linalg.norm(g))
    yield 1.2, f"clipped to ±{top:.6g} before it is returned", lambda p: np.clip(p, -top, top)
    yield (1.9, f"scaled to the norm {norm:.6g} before it is returned",
           lambda p: p * (norm / max(float(np.linalg.norm(p)), norm)))
    yield 1.9, "the absolute value of the gradient", np.abs
    yield 1.9, "the sign of the gradient", np.sign


def of_shape(g: Any, true: Any, parts: list) -> Iterator[tuple[float, str, Callable]]:
    """What gives another shape, from the gradient p and the parts that sum to it."""
    shape, alike = g.shape, len({np.shape(part) for part in parts}) == 1
    if g.size == true.size:
        squeezed = [n for n in shape if n > 1] == [n for n in true.shape if n > 1]
        yield (1.0, "keepdims=True is missing, or too much" if squeezed else "it is reshaped",
               lambda p, parts: p.reshape(shape))
        yield 1.1, "it is transposed", lambda p, parts: p.T
    if g.size == 1:
        yield 1.1, "it is summed over all axes", lambda p, parts: p.sum().reshape(shape)
    for axis, (order, more) in itertools.product(range(len(shape) if alike and len(parts) > 1 else 0),
                                                 ((1, ""), (-1, " (in the other order)"))):
        for read in (lambda x: fit(x, true.shape), lambda x: x):
            if np.ndim(read(parts[0])) >= axis:
                yield (1.2, f"the whole sequence is returned, and not summed over the steps{more}",
                       lambda p, parts, axis=axis, order=order, read=read: np.stack(
                           list(map(read, parts))[::order], axis))
    for whole in (lambda p, parts: p, lambda p, parts: sum(parts))[:1 + alike]:
        axes_of = range(np.ndim(whole(true, parts)))
        for axes, keep in itertools.product(itertools.chain.from_iterable(
                itertools.combinations(axes_of, n) for n in range(len(axes_of) + 1)), (True, False)):
            over = f"over {'axes' if len(axes) > 1 else 'axis'} {', '.join(map(str, axes))}"
            for cost, text, f in ((1.2, f"summed {over}" if axes else "not summed at all", np.sum),
                                  (1.3, f"the mean {over}", np.mean)):
                yield (cost, f"it is {text}", lambda p, parts, axes=axes, keep=keep, whole=whole, f=f: f(
                    whole(p, parts), axes, keepdims=keep))
