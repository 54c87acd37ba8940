"""Sequences with their targets, as batches: shuffled, with sequences of similar length side by side, and split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.data.reading import coded, listed, padded, read, read_array
from minigrad.engine.messages import brief
from minigrad.nn.checks import is_whole
from minigrad.tasks.task import Batch, target_at_end

POOL = 16  # number of batches whose sequences are sorted by length together

Names = tuple[Sequence[str] | None, Sequence[str] | None]


@dataclass(frozen=True, eq=False)
class Examples:
    """N sequences and their targets, read and checked.

    xs      float32 (T, D) or int64 (T,) each
    ys      of the same lengths, or with `at_end` one answer each: int64 () for a class, float32 (D,) for numbers;
            None: the target at every step is the next symbol
    names   the strings behind the codes of symbols and answers, or None for each
    """

    xs: list[np.ndarray]
    ys: list[np.ndarray] | None
    at_end: bool
    names: Names = (None, None)

    @classmethod
    def read(cls, sequences: Iterable[Any], targets: Iterable[Any] | None = None, at_end: bool | None = None,
             names: Names = (None, None)) -> Examples:
        """Raises ValueError, in a sentence that names the sequence or the target, for what cannot be trained on."""
        xs, x_names = read("sequences", sequences), None
        if xs[0].dtype.kind == "U":
            xs, x_names = coded("sequences", xs, names[0])
        refuse_negative("sequences", xs)
        if targets is None:
            refuse_unpredictable(xs)
            return cls(xs, None, False, (x_names, x_names))
        ys, at_end = read_targets(listed("targets", targets), xs, at_end)
        y_names = None
        if ys[0].dtype.kind == "U":
            ys, y_names = coded("targets", ys, names[1])
        refuse_negative("targets", ys)
        return cls(xs, ys, at_end, (x_names, y_names))

    def __len__(self) -> int:
        return len(self.xs)

    @property
    def symbols(self) -> bool:
        return self.xs[0].dtype.kind == "i"

    @property
    def classes(self) -> bool:
        return self.ys is None or self.ys[0].dtype.kind == "i"

    @property
    def inputs(self) -> int:
        return self.count(self.xs, self.names[0]) if self.symbols else self.xs[0].shape[1]

    @property
    def outputs(self) -> int:
        ys = self.xs if self.ys is None else self.ys
        return self.count(ys, self.names[1]) if self.classes else ys[0].shape[-1]

    @staticmethod
    def count(codes: list[np.ndarray], names: Sequence[str] | None) -> int:
        return len(names) if names is not None else int(max(one.max() for one in codes)) + 1

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(x) - (self.ys is None) for x in self.xs])

    @property
    def answers(self) -> np.ndarray:
        """All targets in a row: (n,) classes or (n, D) numbers."""
        if self.ys is None:
            return np.concatenate([x[1:] for x in self.xs])
        return np.stack(self.ys) if self.at_end else np.concatenate(self.ys)

    def fingerprint(self) -> str:
        """The SHA-256 of all sequences and targets, and of their names."""
        digest = hashlib.sha256(repr((self.at_end, self.names)).encode())
        for array in (*self.xs, *(self.ys or ())):
            digest.update(repr((array.dtype.str, array.shape)).encode() + array.tobytes())
        return digest.hexdigest()

    def part(self, chosen: np.ndarray) -> Examples:
        return Examples([self.xs[i] for i in chosen], self.ys and [self.ys[i] for i in chosen], self.at_end, self.names)

    def batch(self, chosen: Iterable[int] | None = None) -> Batch:
        """These sequences side by side, or all. Mask and lengths are None where all sequences are equally long."""
        some = self if chosen is None else self.part(chosen)
        xs, ys = (some.xs, some.ys) if some.ys is not None else ([x[:-1] for x in some.xs], [x[1:] for x in some.xs])
        x, mask, lengths = padded(xs)
        equal = bool(mask.all())
        if some.at_end:
            return target_at_end(x, np.stack(ys), None if equal else lengths)
        return Batch(x, padded(ys)[0], None if equal else mask, None if equal else lengths)

    def epoch(self, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
        """The positions of each batch of one pass over all sequences."""
        order, found = rng.permutation(len(self)), []
        for start in range(0, len(order), POOL * size):
            pool = self.by_length(order[start:start + POOL * size])
            found += [pool[i:i + size] for i in range(0, len(pool), size)]
        return (found[i] for i in rng.permutation(len(found)))

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """The positions of one batch, drawn from rng alone; each sequence is equally likely."""
        number = min(POOL, len(self) // size)  # of whole batches: a rest would be of the longest sequences
        if number == 0:
            return rng.permutation(len(self))
        pool = self.by_length(rng.choice(len(self), number * size, replace=False))
        first = size * rng.integers(number)
        return pool[first:first + size]

    def by_length(self, chosen: np.ndarray) -> np.ndarray:
        return chosen[np.argsort(self.lengths[chosen], kind="stable")]


def read_targets(targets: list[Any], xs: list[np.ndarray], at_end: bool | None) -> tuple[list[np.ndarray], bool]:
    """(targets as arrays of one kind, whether each is one answer at the end)"""
    if len(targets) != len(xs):
        raise ValueError(f"there are {len(xs)} sequences and {len(targets)} targets: give one target for each sequence")
    ys = [np.array(one) if isinstance(one, str) else read_array(f"targets[{i}]", one) for i, one in enumerate(targets)]
    if at_end is None:
        at_end = any(y.ndim == 0 or len(y) != len(x) for x, y in zip(xs, ys))
    if not at_end:
        for i, (x, y) in enumerate(zip(xs, ys)):
            if y.ndim not in (1, 2) or len(y) != len(x):
                raise ValueError(f"targets[{i}] has shape {y.shape}, and sequences[{i}] {len(x)} steps: give a target "
                                 "for each of its steps, or one answer for the whole sequence")
        return read("targets", ys), False
    dims = {y.ndim for y in ys}
    if len(dims) > 1 or max(dims) > 1 or len({y.shape for y in ys}) > 1:
        odd = next(i for i, y in enumerate(ys) if y.shape != ys[0].shape or y.ndim > 1)
        raise ValueError(f"targets[{odd}] has shape {ys[odd].shape}, targets[0] {ys[0].shape}, and sequences[{odd}] "
                         f"{len(xs[odd])} steps: a target is one answer for the whole sequence, or one for each of its "
                         "steps")
    if len({"number" if y.dtype.kind in "if" else "string" for y in ys}) > 1:
        raise ValueError("some targets are numbers and others strings: all answers have one kind")
    if max(dims) == 1 or any(y.dtype.kind == "f" for y in ys):  # numbers; else classes
        if ys[0].dtype.kind == "U":
            raise ValueError(f"targets[0] is {brief(targets[0])}: an answer is one string, or numbers")
        ys = [y.astype(np.float32).reshape(-1) for y in ys]
    return ys, True


def refuse_negative(what: str, arrays: list[np.ndarray]) -> None:
    for i, one in enumerate(arrays):
        if one.dtype.kind == "i" and one.min() < 0:
            raise ValueError(f"{what}[{i}] contains {one.min()}, and integers are symbols or classes, counted from 0: "
                             "give numbers as floats")


def refuse_unpredictable(xs: list[np.ndarray]) -> None:
    """Raises ValueError unless the next symbol can be the target."""
    if xs[0].dtype.kind == "f":
        raise ValueError("sequences of numbers need targets: give one answer for each sequence, or one for each step, "
                         "such as the next value")
    short = next((i for i, x in enumerate(xs) if len(x) < 2), None)
    if short is not None:
        raise ValueError(f"sequences[{short}] has one step: without targets the next symbol is the target, which takes "
                         "two or more")


def batches(sequences: Iterable[Any], targets: Iterable[Any] | None = None, *, size: int = 32, rng: Any,
            at_end: bool | None = None) -> Iterator[Batch]:
    """One pass over all sequences, shuffled, as `Batch` objects of `size` sequences; the last may be smaller.

    sequences  as for `pad`, or strings, whose codes are sorted; a batch pads to its own longest sequence
    targets    for each sequence one answer, which counts at its last step, or a list of one answer for each step;
               integers and strings are classes, floats are numbers. None: the next symbol, at every step
    rng        seed or np.random.Generator for the order: sequences of similar length come into one batch, to save
               padding, and the batches come in random order
    at_end     whether targets are one answer each; None: decided by their shapes, and where both fit, False

    Raises ValueError, before the first batch, in a sentence that names the sequence or the target.
    """
    if not is_whole(size, 1):
        raise ValueError(f"size is a whole number above 0, not {brief(size)}")
    examples = Examples.read(sequences, targets, at_end)
    return (examples.batch(chosen) for chosen in examples.epoch(np.random.default_rng(rng), int(size)))


def split(*lists: Sequence[Any], parts: Sequence[float] = (0.8, 0.1, 0.1), rng: Any) -> list[Any]:
    """Split a list, or several lists of equal length alike, into parts for training, validation and test.

    parts  fractions that sum to 1, or whole numbers of elements. No part is empty
    rng    seed or np.random.Generator for the order; None keeps the order, as for data that was split before

    Returns one list a part; of several lists, one tuple of lists a part. Raises ValueError if there are too few
    elements or parts do not fit.
    """
    lists = tuple(list(one) for one in lists)
    if not lists or len({len(one) for one in lists}) > 1:
        raise ValueError(f"split takes one list, or several of equal length, not of lengths {[len(x) for x in lists]}")
    made = [tuple([one[i] for i in chosen] for one in lists) for chosen in split_positions(len(lists[0]), parts, rng)]
    return [part[0] for part in made] if len(lists) == 1 else made


def split_positions(n: int, parts: Sequence[float], rng: Any) -> list[np.ndarray]:
    """The positions of each part of n elements."""
    parts = list(parts) if isinstance(parts, (list, tuple, np.ndarray)) else [parts]
    numbers = all(isinstance(p, (int, float, np.number)) and not isinstance(p, bool) and p > 0 for p in parts)
    counts = numbers and all(is_whole(p, 1) for p in parts)
    if not parts or not numbers or not (counts or abs(sum(parts) - 1) < 1e-9):
        raise ValueError(f"parts are fractions that sum to 1, such as (0.8, 0.1, 0.1), or whole numbers, not "
                         f"{brief(parts)}")
    if counts and sum(parts) != n:
        raise ValueError(f"parts of {brief(parts)} are {sum(parts)} elements, and there are {n}")
    if len(parts) > n:
        raise ValueError(f"{n} element{'' if n == 1 else 's'} cannot be split into {len(parts)} parts that are not "
                         "empty")
    order = np.arange(n) if rng is None else np.random.default_rng(rng).permutation(n)
    sizes = [int(p) for p in parts] if counts else [max(1, round(p * n)) for p in parts[1:]]
    if not counts:
        sizes = [n - sum(sizes), *sizes]
        while sizes[0] < 1:  # rounding up left nothing for the first part
            sizes[sizes.index(max(sizes))] -= 1
            sizes[0] += 1
    return np.split(order, np.cumsum(sizes)[:-1])
