"""Lengths of axes that are not known yet: what an error says of them, and what follows.

A length is written in axes that are free: {"h.0": 4} is 4 H, {"h.0": 1, "x.0": 1} is H + D, {"": 3} is the constant 3.
An error of NumPy's names lengths that should agree; each is read as such a sum, and an equation is solved for an axis.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import linecache
import math
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

STATE = r"prev|last|old|init|state|hidden|estado|stato|zustand|etat|_?0$|tm1|t_?1$|^[hacs](x?$|_)"
INPUTS = r"^([xX]s?|inputs?|data|seq\w*|frames)$"
GROUPS = r"^(p|P|m|w|par|params?|parameters?|weights|theta|model|net)$"
PARAMETER = r"^_?([WUVRPwb](?![a-z]{3})|p(_?[figoc])?$|[gE]$|emb|weight|syn|bias|gain|gamma|beta|theta|ln_|" \
            r"(?!d[A-Z_]|grad|delta|nabla)[a-z]{2,}\d?_([WU][a-z]{0,2}|b)$)"  # and lstm_Wx, affine_b
BIAS = r"(.*\.)?_?(b|bias)(_?[a-z]{0,2}\d?)$"
BITS = "zeros and ones"
Length = dict[str, Any]  # axis → how many times
Reading = tuple[int, dict[str, int]]  # a number, and the lengths of the free axes in the run in which it was seen


@dataclass(frozen=True)
class Known:
    """What an argument, or a part of one, is."""

    kind: str  # array, integers, number, constant, mapping, sequence or object
    axes: tuple[Length, ...] = ()
    keys: tuple[str, ...] = ()  # of a mapping, a sequence or an object
    value: Any = None  # of a constant; BITS of an array that the file gives nothing but zeros and ones


@dataclass(frozen=True)
class Hypothesis:
    """What is believed of the arguments: what each part is, and which axes are made of others."""

    known: dict[str, Known]
    equal: dict[str, Length]
    common: tuple[int, ...] = ()  # lengths of weights that are globals, the most frequent first
    steps: tuple[int, ...] = ()  # numbers that are globals, which a loop may go over, the smallest first

    def reduced(self, length: Length) -> Length:
        """The length in axes that are free."""
        out: Length = {}
        for axis, times in length.items():
            for free, more in self.equal.get(axis, {axis: 1}).items():
                out[free] = out.get(free, 0) + times * more
        return {axis: times for axis, times in out.items() if times}

    @property
    def axes(self) -> list[tuple[str, Length]]:
        """(path, length in free axes) of all axes of all parts."""
        return [(path, self.reduced(axis)) for path, known in self.known.items() for axis in known.axes]

    def agree(self, left: Length, right: Length, order: Sequence[str]) -> Hypothesis | None:
        """With left = right, solved for an axis of weights or the last in `order`; None if no solution is a length."""
        rest = self.reduced({axis: left.get(axis, 0) - right.get(axis, 0) for axis in {*left, *right}})
        if not rest:
            return self
        for axis in sorted(rest.keys() - {""}, reverse=True,
                           key=lambda axis: (is_parameter(owner(axis)), (*order, *rest).index(axis))):
            value = {other: -times / Fraction(rest[axis]) for other, times in rest.items() if other != axis}
            if not value or min(value.values()) < 0:
                continue
            parts = {other: times.denominator for other, times in value.items() if times.denominator > 1}
            if parts and len(value) > 1:  # H + D, where H is a quarter of another axis
                following: Hypothesis | None = self
                for other, count in parts.items():
                    following = following and following.agree({other: 1}, {f"{other}/{count}": count}, order)
                return following and following.agree(left, right, order)
            if not parts:
                solved = {axis: {other: int(times) for other, times in value.items()}}
                alone = replace(self, equal=solved)
                return replace(self, equal={a: alone.reduced(v) for a, v in self.equal.items()} | solved)
        return None


def is_parameter(path: str) -> bool:
    """Whether an argument is a weight: by its name, or as a part of a dict or a tuple that is no state and no x."""
    root, _, rest = path.partition(".")
    key = rest.rpartition(".")[2]
    return bool(re.match(PARAMETER, root) or (rest and not re.search(f"{STATE}|{INPUTS}", root) and (
        re.match(GROUPS, root) or re.match(PARAMETER, key) or key.isdigit())))


def owner(axis: str) -> str:
    """The path of the argument that an axis belongs to."""
    return axis.rpartition(".")[0]


def measured(length: Length, lengths: dict[str, int]) -> int:
    return math.floor(sum(times * (lengths[axis] if axis else 1) for axis, times in length.items()))


def in_words(length: Length) -> str:
    return " + ".join(str(times) if not axis else axis if times == 1 else f"{times} {axis}"
                      for axis, times in sorted(length.items(), key=lambda item: (not item[0], item[0])))


def is_constant(length: Length) -> bool:
    return not length.keys() - {""}


def read(number: int, lengths: dict[str, int], axes: Sequence[Length], again: Reading | None = None) -> list[Length]:
    """What a length may be made of: an axis, one of `axes`, a sum, a multiple, a part, what a slice left, a constant.

    again  the same length in a run with other lengths of the axes: only what fits both is kept
    """
    if 0 <= number < 2:
        return [{"": number}]
    pairs = list(itertools.combinations(lengths, 2))
    is_product = any(lengths[a] * lengths[b] == number for a, b in pairs)
    wanted = itertools.chain(
        ({a: 1} for a in lengths), axes, ({a: 1, b: 1} for a, b in pairs),
        ({a: k} for a in lengths for k in (2, 3, 4)), ({a: 1, "": 1} for a in lengths),
        ({a: 1, b: 1, "": 1} for a, b in pairs),
        ({a: Fraction(1, k)} for a in lengths for k in (2, 3, 4)),
        ({a: 1, "": number - lengths[a]} for a in lengths if again and number > lengths[a]),
        ({a: 1, b: -k, **one} for one in ({}, {"": -1}) for a, b in itertools.permutations(lengths, 2)
         for k in (1, 2, 3)[:3 - 2 * len(one)]),
        [] if is_product else [{"": number}],
        ({a: j, b: -k} for j in (2, 3, 4) for a, b in itertools.permutations(lengths, 2) for k in (1, 2, 3)))
    found: list[Length] = []
    for length in wanted:
        if measured(length, lengths) == number and length not in found and (
                again is None or measured(length, again[1]) == again[0]):
            found.append(length)
    return found[:4]


def agreements(now: Hypothesis, problem: BaseException | None, lengths: dict[str, int],
               again: BaseException | None, lengths_again: dict[str, int]) -> Iterator[tuple[float, Hypothesis | None]]:
    """(cost, hypothesis) under which the lengths that an error names agree, likely ones with a low cost.

    again  the exception with which the same run ends at other lengths
    """
    text, order, axes = str(problem), list(lengths), [axis for _, axis in now.axes]
    weights = [axis for axis in order if is_parameter(owner(axis))]
    if found := re.search(r"reshape array of size (\d+) into shape \(([\d,]+)(newaxis)?\)", text):
        size, shape = int(found[1]), [int(n) for n in found[2].split(",") if n]
        yield 0, reshaped(now, size, shape, lengths, bool(found[3]))
        for i, n in enumerate(shape):  # the others fit
            rest = math.prod(shape[:i] + shape[i + 1:])
            if rest > 1 and size % rest == 0:
                for one, other in zip(read(n, lengths, axes), read(size // rest, lengths, axes)[:1]):
                    yield 0.1, now.agree(one, other, order)
            for axis in [one for one in order if 1 < n < 9 and lengths[one] // n in shape and "/" not in one]:
                # n heads
                yield 0.1, now.agree({axis: 1}, {f"{axis}/{n}": n}, order)
    if found := re.search(r"with size (\d+)$", text):  # a loop over an axis that is longer
        for axis in order:
            if lengths[axis] > int(found[1]):
                yield 0.1 + (axis in weights), now.agree(read(int(found[1]), lengths, axes)[0], {axis: 1}, order)
    if found := re.search(r"index (\d+) is out of bounds for axis \d+ with size (\d+)", text):
        short, last = read(int(found[2]), lengths, axes)[0], int(found[1])
        for i, steps in enumerate([n for n in now.steps if n > last]):
            yield 0.2 + 0.1 * i, now.agree(short, {"": steps}, order)
        yield 2.2, now.agree(short, {"": last + 1}, order)
    if "negative dimensions" in text:  # a kernel is longer than what it goes over
        for axis in weights:
            yield 1, now.agree({axis: 1}, {"": 2}, order)
    if re.search("not broadcastable to correct shape|'a' and 'p' must have same size|array of size 1 to a", text):
        # np.add.at and random.choice name no lengths; a state may be a column
        for path, known in now.known.items():
            if known.kind == "array" and len(known.axes) == 2 and not is_parameter(path):
                yield 0.5, now.agree(known.axes[1], {"": 1}, order)
    pairs, second = clashes(problem), clashes(again)
    if not pairs:
        return
    is_same = re.sub(r"\d+", "", str(again)) == re.sub(r"\d+", "", text) and len(second) == len(pairs)
    readings = []
    for (m, n), (m2, n2) in zip(pairs, second if is_same else [(None, None)] * len(pairs)):
        ones = read(m, lengths, axes, None if m2 is None else (m2, lengths_again))
        others = read(n, lengths, axes, None if n2 is None else (n2, lengths_again)) if n > 0 else [
            {f"{axis}/{-n}": -n} for axis in [*ones[0]][:1]] if n < 0 and ones else [{"": 0}]  # n < 0: equal parts
        readings.append(list(itertools.product(enumerate(ones), enumerate(others))))
    for choice in itertools.islice(itertools.product(*readings), 16):
        following: Hypothesis | None = now
        for (_, left), (_, right) in choice:
            following = following and following.agree(left, right, order)
        constants = sum(i > 0 and is_constant(one) for pair in choice for i, one in pair)
        yield 2 * constants + sum(i + j for (i, _), (j, _) in choice), following
    for (_, left), (_, right) in (options[0] for options in readings if options):
        yield from sums(now, left, right, order)
        yield from parts(now, left, right, order)
        yield from parts(now, right, left, order)
        for short, full in ((left, right), (right, left)):  # slices of fused gates, 4 H - H, or cut short
            longest = max(short, key=lambda axis: short[axis])
            is_cut = min(short.values()) < 0
            if not is_constant(full) and (is_cut or ("broadcast" in text and longest in weights)):
                for times in (4, 1, 3, 2) if is_cut else (4, 3, 2):
                    yield 0.5 if is_cut else 1, now.agree({longest: 1}, {a: times * n for a, n in full.items()}, order)
    if len(pairs) == 1 and pairs[0][1] > 0:
        yield 0.2, reshaped(now, pairs[0][0], [pairs[0][1]], lengths)
    if len(pairs) == 1 and "broadcast" in text:
        for length in [length for number in pairs[0] for length in read(number, lengths, axes)[:1]]:
            is_bias = all(re.match(BIAS, owner(axis)) for axis in length)  # one for each example is unlikely
            yield 2 - is_bias, now.agree(length, {"": 1}, order)


def sums(now: Hypothesis, left: Length, right: Length, order: list[str]) -> Iterator[tuple[float, Hypothesis | None]]:
    """Two sums of two axes agree term by term: [x; h] meets a matrix of D + H."""
    if len(left) == len(right) == 2 and {*left.values(), *right.values()} == {1} and \
            now.agree(left, right, order) is None:
        one, other = left
        orders = sorted((tuple(right), tuple(right)[::-1]), key=lambda pair: sum(  # H of a class for h_prev
            is_hidden(a) != is_hidden(b) for a, b in zip((one, other), pair)))
        for cost, (first, last) in enumerate(orders):
            half = now.agree({one: 1}, {first: 1}, order)
            yield cost / 2, half and half.agree({other: 1}, {last: 1}, order)


def is_hidden(axis: str) -> bool:
    """Whether an axis is that of a state, or a size of one."""
    size = r"(n_?)?h|(n_)?a$|.*(hid|unit)"
    return bool(re.search(STATE, owner(axis)) or re.match(size, axis.rpartition(".")[2], re.I))


def parts(now: Hypothesis, left: Length, right: Length, order: list[str]) -> Iterator[tuple[float, Hypothesis | None]]:
    """The sum of two axes is a constant: they have lengths of global weights, a state the most frequent."""
    whole = left.get("", 0)
    if is_constant(left) and len(right) == 2 and {*right.values()} == {1} and "" not in right:
        one, other = sorted(right, key=lambda axis: not re.search(STATE, owner(axis)))
        for length in [n for n in now.common if whole - n in now.common][:1]:
            first = now.agree({one: 1}, {"": length}, order)
            yield 0, first and first.agree({other: 1}, {"": whole - length}, order)


def reshaped(now: Hypothesis, size: int, shape: list[int], lengths: dict[str, int], is_open: bool = False
             ) -> Hypothesis | None:
    """As many numbers on both sides: each as a product of axes, without those that both have; or, of (n, −1), the first
    axes of the array have the n."""
    def factors(number: int) -> list[Length]:
        for count in (1, 2, 3, 4):
            for found in itertools.combinations_with_replacement(lengths, count):
                if number and (times := number / math.prod(lengths[a] for a in found)) in (1, 2, 3, 4):
                    return [*({a: 1} for a in found), *[{"": int(times)}] * (times > 1)]
        return [{"": number}]
    left, right = factors(size), [one for n in shape for one in factors(n)]
    if is_open:  # those of data
        left = sorted(left, key=lambda one: any("." not in a or is_parameter(owner(a)) for a in one))[:len(right)]
    for one in list(left):
        if one in right:
            left.remove(one)
            right.remove(one)
    if len(right) > len(left):
        right = [one for one in right if one != {"": 1}]
    scale = math.prod(one.pop("") for one in right if "" in one) if len(left) == 1 else 1
    right = [one for one in right if one]
    following: Hypothesis | None = now if len(left) == len(right) else None
    for one, other in zip(left, right):
        following = following and following.agree(one, {a: scale * n for a, n in other.items()}, list(lengths))
    return following


# -- errors --------------------------------------------------------------------------------------------------------


def clashes(problem: BaseException | None) -> list[tuple[int, int]]:
    """The pairs of lengths that an error of NumPy's says should agree; (n, -k): n should be a multiple of k."""
    text = str(problem)
    for pattern in (r"size (\d+) is different from (\d+)", r"not aligned: (\d+) \(dim \d\) != (\d+)",
                    r"has size (\d+) and the array at index \d+ has size (\d+)", r"don't match \((\d+) != (\d+)\)",
                    r"size of axis is (\d+) but size of corresponding boolean axis is (\d+)"):
        if found := re.search(pattern, text):
            return [(int(found[1]), int(found[2]))]
    if found := re.search(r"output operand with shape \((.*)\) doesn't match the broadcast shape \((.*)\)", text):
        return filled(*(list(map(int, re.findall(r"\d+", shape))) for shape in found.groups()))
    if found := re.search(r"(?:input|value) array \w+ shape \((.*)\) (?:into|could .* of) shape \((.*)\)", text):
        whole, into = (list(map(int, re.findall(r"\d+", shape))) for shape in found.groups())
        return [pair for pair in filled(into, whole) if pair[1] != 1]
    if "broadcast" in text:
        return broadcast([[int(n) if n.isdigit() else 1 for n in shape.replace(" ", "").split(",") if n] for shape in
                          re.findall(r"->\(([\d,newaxis ]*)\)", text) or re.findall(r"\(([\d, ]*)\)", text)])
    inner = [frame for frame, _ in traceback.walk_tb(problem.__traceback__)][-1:] if problem else []
    names = inner[0].f_locals if inner else {}
    if isinstance(problem, AssertionError) and inner:
        return asserted(inner[0])
    if "equal division" in text and "sections" in names:
        return [(names["N"], -names["sections"])]
    if "shape-mismatch for sum" in text and "axes_a" in names:
        pairs = [(names["as_"][i], names["bs"][j]) for i, j in zip(names["axes_a"], names["axes_b"])
                 if i < len(names["as_"]) and j < len(names["bs"])]
        return [(m, n) for m, n in pairs if m != n]
    if "same shape" in text and "arrays" in names:
        return broadcast([np.shape(a) for a in names["arrays"]])
    return []


def broadcast(shapes: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The first two lengths that differ, axis by axis from the right."""
    out = []
    for lengths in itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        different = list(dict.fromkeys(n for n in lengths if n != 1))
        out += [(different[0], different[1])] if len(different) > 1 else []
    return out


def filled(into: list[int], whole: list[int]) -> list[tuple[int, int]]:
    """The lengths that differ where an array is written into another; none if it has too many axes."""
    pairs = itertools.zip_longest(reversed(into), reversed(whole), fillvalue=1)
    return [(m, n) for m, n in pairs if m != n] if len(into) >= len(whole) else []


def asserted(frame: Any) -> list[tuple[int, int]]:
    """The lengths that the failing line of a frame asserts to be equal."""
    with contextlib.suppress(Exception):
        test: Any = ast.parse(linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()).body[0]
        sides = [eval(ast.unparse(side), frame.f_globals, frame.f_locals)
                 for side in (test.test.left, test.test.comparators[0])]
        pairs = zip(*(side if isinstance(side, tuple) else (side,) for side in sides))
        return [(int(m), int(n)) for m, n in pairs if m != n]
    return []
