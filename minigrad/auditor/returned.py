"""Faults of what is returned: the gradient was right, and then scaled, reordered, clipped, summed, or named wrongly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.change import kind
from minigrad.auditor.record import fit
from minigrad.auditor.tape import Tape


@kind
def clipped_by_norm(tape: Tape, given: list) -> Iterator[tuple]:
    """All gradients together are scaled down to a norm that they must not exceed."""
    leaves = {leaf: tape.leaves[leaf].total for leaf, g in given[0].items() if g.shape == tape.true(leaf).shape}
    norms = [norm(draw[leaf] for leaf in leaves) for draw in given]
    bound = max(norms)  # which several draws reach
    for total in leaves.values() if bound and np.isclose(norms, bound, rtol=1e-9).sum() > 1 else ():
        yield (1.2, f"{{}}: clipped to the norm {bound:.6g}, all together, before it was returned", {
            total: lambda v, total: v.own(total) * min(1.0, bound / norm(map(v.own, leaves.values())))})


def norm(arrays: Iterable) -> float:
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in arrays)))


@kind
def returned_array(tape: Tape, given: list) -> Iterator[tuple]:
    """One gradient, changed as a whole after it was right."""
    for leaf, g in given[0].items():
        total, true = tape.leaves[leaf].total, tape.true(leaf)
        terms = [(*e.inputs, e)[0] for e in sorted(total.inputs, key=lambda e: (e.of or e).time)]
        if g.shape == true.shape:
            top = max(float(np.abs(draw[leaf]).max(initial=0)) for draw in given)
            rows = of_values(tape, g, true, top)
        else:
            rows = of_shape(g, true, [tape.draws[0].values[term.number] for term in terms])
        for cost, text, f in rows:
            yield cost, f"{{}}: {text}", {total: lambda v, total, f=f, terms=terms: f(v.own(total), map(v, terms))}
        for other in tape.leaves:
            if other != leaf and tape.true(other).shape == g.shape == true.shape:
                yield (1.4, f"{{}}: it is that of {other}",
                       {total: lambda v, _, other=tape.leaves[other].total: v(other)})


def of_values(tape: Tape, g: Any, true: Any, top: float) -> Iterator[tuple[float, str, Callable]]:
    """What keeps the shape. top: the largest entry of the user's at all inputs."""
    if not g.any():
        yield 0.9, "zero: nothing arrives", lambda p, _: 0 * p
        return
    k = float(np.vdot(true, g) / (np.vdot(true, true) or 1))
    if k and abs(k - 1) > 1e-9:
        name, known = tape.number_name(k)
        text = "the sign is turned" if abs(k + 1) < 1e-9 else f"{name} times the gradient"
        yield 1.5 if known else 2.8, text, lambda p, _: k * p
    if true.size > 1:
        yield 1.5, "it is summed over all axes, and each entry is that sum", lambda p, _: np.full_like(p, p.sum())
    if true.ndim == 2 and true.shape[0] == true.shape[1]:
        yield 1.5, "transposed", lambda p, _: p.T
    for axis in range(true.ndim):
        yield 1.5, f"reversed along axis {axis}", lambda p, _, axis=axis: np.flip(p, axis)
        for shift in (1, -1):
            yield (1.8, f"shifted by {shift} along axis {axis}",
                   lambda p, _, axis=axis, shift=shift: np.roll(p, shift, axis))
    yield 1.2, f"clipped to ±{top:.6g} before it was returned", lambda p, _: np.clip(p, -top, top)


def of_shape(g: Any, true: Any, terms: list) -> Iterator[tuple[float, str, Callable]]:
    """What gives another shape, from the gradient p and the terms that sum to it, by time."""
    instead = f"the shape is {g.shape} in place of {true.shape}: "
    if g.size == true.size:
        squeezed = [n for n in g.shape if n > 1] == [n for n in true.shape if n > 1]
        yield (1.0, instead + ("keepdims=True is missing, or too much" if squeezed else "it is reshaped"),
               lambda p, _: p.reshape(g.shape))
        yield 1.1, f"{instead}it is transposed", lambda p, _: p.T
    alike = len({np.shape(term) for term in terms}) == 1
    steps = [("", 1), (" (in the other order)", -1)] if alike and len(terms) > 1 else []
    for axis, (more, order), fitted in itertools.product(range(g.ndim), steps, (False, True)):
        yield (1.2, f"{instead}the whole sequence is returned, and not summed over the steps{more}",
               lambda p, terms, axis=axis, order=order, fitted=fitted: np.stack(
                   [fit(term, p.shape) if fitted else term for term in terms][::order], axis))
    for whole in (lambda p, terms: p, lambda p, terms: sum(terms))[:1 + alike]:
        axes_of = range(np.ndim(whole(true, terms)))
        if np.size(whole(true, terms)) == g.size != true.size:
            yield 1.2, f"{instead}it is not summed at all", lambda p, terms: np.sum([*terms], 0).reshape(g.shape)
        for axes in itertools.chain.from_iterable(itertools.combinations(axes_of, n + 1) for n in axes_of):
            over = f"over {'axes' if axes[1:] else 'axis'} {', '.join(map(str, axes))}"
            is_all = axes == (*axes_of,)
            for cost, text, f in ((1.2, "summed", np.sum), (1.3, "the mean", np.mean)):
                yield (cost - 0.1 * is_all, f"{instead}it is {text} {'over all axes' if is_all else over}",
                       lambda p, terms, axes=axes, whole=whole, f=f: f(whole(p, terms), axes).reshape(g.shape))
