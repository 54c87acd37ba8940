"""What may have happened to a gradient after it was right: shapes, scales, orders, clipping, and names exchanged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minigrad.auditor.changes import number_name
from minigrad.auditor.record import fit


class Transform(NamedTuple):
    """cost and text (of one or more leaves), and what is returned: f(the gradient, the other gradients by leaf)."""

    cost: float
    text: str
    f: Callable[[Any, Any], Any]


def transforms(numbers: list[tuple[float, str]], leaf: str, given: Any, others: dict[Any, Any], top: float
               ) -> Iterator[Transform]:
    """The transforms that may lead from the gradient of a leaf to `given`; the caller tries them.

    numbers: that the sizes suggest;  others: the leaves' gradients, and ("parts", leaf): their contributions;
    top: the largest entry of the user's at all inputs"""
    true = others[leaf]
    if given.shape != true.shape:
        yield from of_shape(given, true, others["parts", leaf], leaf)
        return
    if not np.any(given):
        yield Transform(0.9, "zero: nothing arrives", lambda p, _: 0 * p)
        return
    k = float(np.vdot(true, given) / (np.vdot(true, true) or 1))
    if k and abs(k - 1) > 1e-9:
        said, known = number_name(numbers, k)
        text = "the sign is turned" if abs(k + 1) < 1e-9 else f"{said} times the gradient"
        yield Transform(1.5 if known else 2.8, text, lambda p, _: k * p)
    if true.ndim == 2 and true.shape[0] == true.shape[1]:
        yield Transform(1.5, "transposed", lambda p, _: p.T)
    for other, value in others.items():
        if isinstance(other, str) and other != leaf and value.shape == given.shape:
            yield Transform(1.4, f"it is that of {other}", lambda p, all_, other=other: all_[other])
    for axis in range(true.ndim):
        yield Transform(1.5, f"reversed along axis {axis}", lambda p, _, axis=axis: np.flip(p, axis))
        yield Transform(1.9, f"summed over axis {axis} and spread over it again",
                        lambda p, _, axis=axis: np.broadcast_to(p.sum(axis, keepdims=True), p.shape))
        yield Transform(1.9, f"a running sum along axis {axis}", lambda p, _, axis=axis: np.cumsum(p, axis))
        yield from blocks(true, axis)
        for shift in (1, -1):
            yield Transform(1.8, f"shifted by {shift} along axis {axis}",
                            lambda p, _, axis=axis, shift=shift: np.roll(p, shift, axis))
        for first, rest in ((True, slice(1, None)), (False, slice(None, -1))):
            index = (slice(None),) * axis + (rest,)
            yield Transform(1.9, f"only the {'first' if first else 'last'} of axis {axis}",
                            lambda p, _, index=index: with_zeros(p, index))
    yield Transform(1.2, f"clipped to ±{top:.6g} before it is returned", lambda p, _: np.clip(p, -top, top))
    norm = float(np.linalg.norm(given))
    yield Transform(1.9, f"scaled to the norm {norm:.6g} before it is returned",
                    lambda p, _: p * (norm / max(float(np.linalg.norm(p)), norm)))
    yield Transform(1.9, "the absolute value of the gradient", lambda p, _: np.abs(p))
    yield Transform(1.9, "the sign of the gradient", lambda p, _: np.sign(p))


def with_zeros(p: Any, index: tuple) -> Any:
    out = p.copy()
    out[index] = 0
    return out


def blocks(true: Any, axis: int) -> Iterator[Transform]:
    """The gates of a fused matrix in another order, or one of them wrong in sign."""
    for n in (2, 3, 4):
        if true.shape[axis] % n == 0 and true.shape[axis] > n:
            for order in itertools.permutations(range(n)):
                if order != tuple(range(n)):
                    yield Transform(1.5, f"the {n} blocks along axis {axis} are in the order {order}",
                                    lambda p, _, n=n, order=order: np.concatenate(
                                        [np.split(p, n, axis)[i] for i in order], axis))


def of_shape(given: Any, true: Any, parts: list, leaf: str) -> Iterator[Transform]:
    """What gives another shape."""
    shape, sums = given.shape, len({np.shape(part) for part in parts}) == 1
    said = f"the shape is {shape} in place of {true.shape}"
    if given.size == true.size:
        squeezed = tuple(n for n in shape if n > 1) == tuple(n for n in true.shape if n > 1)
        yield Transform(1.0, said + (": keepdims=True is missing, or too much" if squeezed else ": it is reshaped"),
                        lambda p, _: p.reshape(shape))
        if given.T.shape == true.shape:
            yield Transform(1.1, said + ": it is transposed", lambda p, _: p.T)
    if given.size == 1:
        yield Transform(1.1, f"{said}: it is summed over all axes", lambda p, _: p.sum().reshape(shape))
    for axis, order in itertools.product(range(len(shape)) if sums and len(parts) > 1 else (), (1, -1)):
        for part, read in ((true, lambda x: fit(x, true.shape)), (parts[0], lambda x: x)):
            if (*np.shape(part)[:axis], len(parts), *np.shape(part)[axis:]) == shape:
                yield Transform(1.2, f"{said}: the whole sequence is returned, and not summed over the steps" +
                                (" (in the other order)" if order < 0 else ""),
                                lambda p, others, axis=axis, order=order, read=read: np.stack(
                                    list(map(read, others["parts", leaf]))[::order], axis))
    for read in (lambda p, others: p, *([lambda p, others: sum(others["parts", leaf])] if sums else ())):
        whole = read(true, {("parts", leaf): parts})
        for n in range(0, np.ndim(whole) + 1):
            for axes, keep in itertools.product(itertools.combinations(range(np.ndim(whole)), n), (True, False)):
                if np.sum(whole, axes, keepdims=keep).shape == shape:
                    over = f"over {'axes' if n > 1 else 'axis'} {', '.join(map(str, axes))}" if n else "at all"
                    for cost, text, f in ((1.2, f"{'' if n else 'not '}summed {over}", np.sum),
                                          (1.3, f"the mean {over}", np.mean)):
                        yield Transform(cost, f"{said}: it is {text}",
                                        lambda p, others, axes=axes, keep=keep, read=read, f=f: f(
                                            read(p, others), axes, keepdims=keep))
