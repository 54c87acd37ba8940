"""Arguments with which a student's function runs, found by running it.

An argument begins as a `Probe`, an object that stops the function as soon as it must be known what it is: an array of
some rank, a dict, a tuple, integers. Then every axis has a length of its own. NumPy's errors name the lengths that
must agree, and a length says which axes it is made of: 13 is H, 52 is 4 H, 24 is H + D. The function runs again, with
one more fact, until it runs through. Where an error can be read in several ways the cheapest is followed first, and
the others are kept.
"""

from __future__ import annotations

import ast
import contextlib
import heapq
import io
import itertools
import linecache
import math
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from minigrad.engine.messages import one_line
from minigrad.handwritten.source import CouldNotRun, Function, TooSlow, limited, method_of, parameters_of

# None can be split into equal parts; a sum or a multiple of some is hardly ever another.
LENGTHS = (11, 13, 17, 37, 59, 77, 83, 89, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173)
WEIGHTS_FROM = 8  # where those of weights begin: they are long, so that slices of fused gates are not cut short
PARAMETER = r"^_?([WUVRPb](?![a-z]{3})|p_?[figoc]$|w$|weight|bias|gain|gamma|beta|theta|ln_)"
STATE = r"prev|last|old|init|state|hidden|_?0$|tm1|t_?1$|^[hacs]$"
NUMBER = r"eps|^lr$|rate|momentum|decay|seed|temperature|ratio|drop"
SECONDS = 2.0
Length = dict[str, Any]  # axis → how many times; "" is the constant: {"h.1": 1, "x.1": 1} is H + D


@dataclass(frozen=True)
class Known:
    """What an argument, or a part of one, is."""

    kind: str  # array, integers, number, constant, mapping or sequence
    axes: tuple[Length, ...] = ()
    keys: tuple[str, ...] = ()  # of a mapping or a sequence
    value: Any = None


@dataclass
class Example:
    """Arguments with which a function runs. A part of an argument has a path, `x` or `params.Wf`.

    axes       path → a length in words for each axis, ("4 h_prev.1", "x.1"), of the arrays of floats
    lengths    axis → its length; different axes have different lengths, so that a wrong transpose fails
    constants  path → value of all other parts: integers, numbers, strings
    """

    names: tuple[str, ...]
    known: dict[str, Known]
    lengths: dict[str, int]
    constants: dict[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """path → shape of each array of floats, in the order of the arguments."""
        return {path: tuple(measured(axis, self.lengths) for axis in known.axes)
                for path, known in self.known.items() if known.kind == "array"}

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        return {path: tuple(map(in_words, known.axes)) for path, known in self.known.items() if known.kind == "array"}

    def arguments(self, arrays: dict[str, Any]) -> tuple:
        """The arguments, nested as the function takes them, from path → array."""
        def part(path: str) -> Any:
            known = self.known[path]
            if known.kind == "mapping":
                return {key: part(f"{path}.{key}") for key in known.keys}
            if known.kind == "sequence":
                return tuple(part(f"{path}.{key}") for key in known.keys)
            return arrays[path] if known.kind == "array" else self.constants[path]
        return tuple(map(part, self.names))


def example_arguments(function: Callable, node: Function, namespace: dict[str, Any] | None = None,
                      method: str = "forward") -> Example:
    """Find arguments for a function, or for a class's constructor and its method together.

    function   a function, or a class
    node       its definition, for the parameters without a default, docstrings and comments: x (N, T, D)
    namespace  of the file: an array in it with the name of a parameter says the shape

    Raises CouldNotRun with what was tried last and the line that failed.
    """
    return next(examples(function, node, namespace, method))


def examples(function: Callable, node: Function, namespace: dict[str, Any] | None = None,
             method: str = "forward") -> Iterator[Example]:
    """All that is found within SECONDS, likely ones first. Raises CouldNotRun if there is none."""
    names, call, text, sizes = required(node), function, comments(function, node), ()
    if isinstance(node, ast.ClassDef):
        sizes = tuple(name for name in names if not is_parameter(name))
        made, own = names, required(method_of(node, method))[1:]
        names = (*made, *(f"{method}.{name}" if name in made else name for name in own))
        text = comments(getattr(function, method), node)

        def call(*arguments: Any) -> Any:
            return getattr(function(*arguments[:len(made)]), method)(*arguments[len(made):])
    start, ranks = Hypothesis({}, {}, 0.0), hints(names, text)
    for name in names:
        value = (namespace or {}).get(name)
        if is_parameter(name) and isinstance(value, np.ndarray) and value.dtype.kind == "f" and len(set(value.shape)) == value.ndim:
            start.known[name] = Known("array", tuple({"": n} for n in value.shape))
    waiting: list[tuple[float, int, Hypothesis]] = [(0.0, 0, start)]
    count, found, seen, last, until = itertools.count(-1, -1), set(), set(), "", time.process_time() + SECONDS
    while waiting and time.process_time() < until:
        cost, _, hypothesis = heapq.heappop(waiting)
        if hypothesis.solution:
            if (said := str(hypothesis.solution.axes)) not in found:
                found.add(said)
                yield hypothesis.solution
            continue
        if (said := str((hypothesis.known, sorted(hypothesis.equal.items())))) in seen:
            continue
        seen.add(said)
        trial = Trial(hypothesis, names, ranks, sizes)
        problem = trial.run(call)
        if problem is None and not trial.options:
            trial = Trial(replace(hypothesis, known=trial.known), names, ranks, sizes, trial.smallest())
            problem = trial.run(call)
            if problem is None and not trial.options:
                recurrent = trial.recurrent()
                if recurrent is not None:
                    heapq.heappush(waiting, (cost, next(count), replace(recurrent, cost=cost)))
                    cost += 1
                done = replace(trial.hypothesis, solution=trial.example(), cost=cost + trial.alone())
                heapq.heappush(waiting, (done.cost, next(count), done))
                continue
        if problem is not None:
            last = f"{trial.said()}: {place(problem)}"
        again = Trial(hypothesis, names, ranks, sizes, {axis: 6 * ((2 * n + i * i) // 6) + 7 for i, (axis, n) in enumerate(
            trial.lengths.items())})
        for more, following in trial.options or trial.agreeing(problem, again, call):
            if following is not None:
                heapq.heappush(waiting, (cost + more, next(count), replace(following, cost=cost + more)))
    if not found:
        raise CouldNotRun(f"no arguments were found with which {node.name} runs; the last tried were {last}")


# -- hypotheses and trials ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hypothesis:
    """What is believed of the arguments: what each part is, and which axes are made of others."""

    known: dict[str, Known]
    equal: dict[str, Length]
    cost: float
    solution: Example | None = None

    def reduced(self, length: Length) -> Length:
        """The length in axes that are free."""
        out: Length = {}
        for axis, times in length.items():
            for free, more in self.equal.get(axis, {axis: 1}).items():
                out[free] = out.get(free, 0) + times * more
        return {axis: times for axis, times in out.items() if times}

    def agree(self, left: Length, right: Length, order: Sequence[str]) -> Hypothesis | None:
        """With left = right, solved for the axis that comes last in `order`; None if no axis can be."""
        rest = self.reduced({axis: left.get(axis, 0) - right.get(axis, 0) for axis in {*left, *right}})
        if not rest:
            return self
        for axis in sorted(rest.keys() - {""}, reverse=True,
                           key=lambda axis: (is_parameter(axis.rpartition(".")[0]), (*order, *rest).index(axis))):
            value = {other: -times / Fraction(rest[axis]) for other, times in rest.items() if other != axis}
            if value and all(times > 0 and times.denominator == 1 for times in value.values()):
                whole = {other: int(times) for other, times in value.items()}
                solved = replace(self, equal={axis: whole})
                return replace(self, equal={a: solved.reduced(v) for a, v in self.equal.items()} | {axis: whole})
        return None


class Need(BaseException):
    """Stops the function: a probe must be known. No `except Exception` of a student's catches it."""


@dataclass
class Trial:
    """One run of the function under a hypothesis."""

    hypothesis: Hypothesis
    names: tuple[str, ...]
    ranks: dict[str, int]
    sizes: Sequence[str] = ()  # the names that are numbers if they can be
    lengths: dict[str, int] = field(default_factory=dict)  # of the axes that are free, in the order of their use
    options: list[tuple[float, Hypothesis]] = field(default_factory=list)  # what a probe may be, with costs

    def __post_init__(self) -> None:
        self.known = dict(self.hypothesis.known)
        self.least: dict[str, int] = {}  # rank that a probe's shape[2] asks for
        self.rng = np.random.default_rng(0)

    def run(self, call: Callable) -> BaseException | None:
        """The exception with which the call ends."""
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(), limited(), \
                    contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                self.result = call(*(self.value(name) for name in self.names))
            for path in self.names:
                self.settle(path)
        except (Exception, SystemExit, TooSlow, Need) as problem:
            return problem
        return None

    def settle(self, path: str) -> None:
        """Decide what the function never needed to know."""
        known = self.known.get(path)
        if known is None:
            Probe(self, path).ranked()
        for key in known.keys if known else ():
            self.settle(f"{path}.{key}")

    def value(self, path: str) -> Any:
        known = self.known.get(path)
        if known is None:
            return Probe(self, path)
        if known.kind == "mapping":
            return Asked(self, path, {key: self.value(f"{path}.{key}") for key in known.keys})
        if known.kind == "sequence":
            return [self.value(f"{path}.{key}") for key in known.keys]
        shape = tuple(self.measure(axis) for axis in known.axes)
        if math.prod(shape) > 4e6:
            raise Need
        if known.kind == "array":
            return self.rng.uniform(0.1, 0.9, shape)
        if known.kind == "integers":
            return np.resize([1, 0, 2, 1, 2, 0, 0], shape)
        return known.value if known.kind == "constant" else shape[0]

    def measure(self, length: Length) -> int:
        """The length in this run; an axis that is new gets one."""
        reduced = self.hypothesis.reduced(length)
        for axis in reduced.keys() - self.lengths.keys() - {""}:
            taken, first = set(self.lengths.values()), WEIGHTS_FROM * is_parameter(axis.rpartition(".")[0])
            self.lengths[axis] = next(
                n for n in itertools.chain(LENGTHS[first:], itertools.count(179, 6)) if n not in taken)
        return measured(reduced, self.lengths)

    def read(self, number: int, again: tuple[int, dict[str, int]] | None = None) -> list[Length]:
        """What a length may be made of: an axis, a length known already, a sum, a multiple, a part, a constant.

        again  the same length in a run with these other lengths of the axes, if it is known
        """
        if 0 <= number < 2:
            return [{"": number}]
        free = list(self.lengths)
        axes = [self.hypothesis.reduced(axis) for known in self.known.values() for axis in known.axes]
        pairs = list(itertools.combinations(free, 2))
        simple = [*({a: 1} for a in free), *axes, *({a: 1, b: 1} for a, b in pairs),
                  *({a: k} for a in free for k in (2, 3, 4)), *({a: 1, "": 1} for a in free),
                  *({a: 1, b: 1, "": 1} for a, b in pairs),
                  *({a: 1, "": number - self.lengths[a]} for a in free if again and number > self.lengths[a])]
        parts = [*({a: Fraction(1, k)} for a in free for k in (2, 3, 4)),
                 *({a: 1, b: -k} for a in free for b in free if a != b for k in (1, 2, 3))]
        cut = [{a: j, b: -k} for j in (2, 3, 4) for a in free for b in free if a != b for k in (1, 2, 3)]
        constant = [] if any(self.lengths[a] * self.lengths[b] == number for a, b in pairs) else [{"": number}]
        found: list[Length] = []
        for length in (*simple, *parts, *constant, *cut):
            if measured(length, self.lengths) == number and length not in found and (
                    again is None or measured(length, again[1]) == again[0]):
                found.append(length)
        return found[:4]

    def agreeing(self, problem: BaseException | None, again: Trial, call: Callable) -> Iterator[tuple[float, Hypothesis | None]]:
        """(cost, hypothesis) under which the lengths that an error names agree."""
        order = list(self.lengths)
        now = replace(self.hypothesis, known=self.known)
        pairs = clashes(problem)
        others: list[Any] = [(None, None)] * len(pairs)
        same = again.run(call) if pairs else None
        if re.sub(r"\d+", "", str(same)) == re.sub(r"\d+", "", str(problem)) and len(second := clashes(same)) == len(pairs):
            others = [tuple((n, again.lengths) for n in pair) for pair in second]
        if found := re.search(r"reshape array of size (\d+) into shape \(([\d,]+)\)", str(problem)):
            yield 0, self.reshaped(now, int(found[1]), [int(n) for n in found[2].split(",") if n])
        readings = []
        for (m, n), (m2, n2) in zip(pairs, others):
            left = self.read(m, m2)
            right = self.read(n, n2) if n >= 0 else [{f"{next(iter(left[0]))}/{-n}": -n} for _ in left[:1]]
            readings.append(list(itertools.product(enumerate(left), enumerate(right))))
        for number, choice in enumerate(itertools.islice(itertools.product(*readings), 16 if pairs else 0)):
            following: Hypothesis | None = now
            for (_, left), (_, right) in choice:
                following = following and following.agree(left, right, order)
            constants = sum(i > 0 and not one.keys() - {""} for pair in choice for i, one in pair)
            yield 2 * constants + sum(i + j for (i, _), (j, _) in choice), following
            for (_, left), (_, right) in choice[:number == 0]:
                if following is None and len(left) == len(right) == 2 and {*left.values(), *right.values()} == {1}:
                    one, other = left
                    for cost, (first, second) in enumerate((list(right), list(right)[::-1])):  # [x; h] meets D + H
                        half = now.agree({one: 1}, {first: 1}, order)
                        yield cost / 2, half and half.agree({other: 1}, {second: 1}, order)
                for short, whole in ((left, right), (right, left)):  # slices of fused gates, 4 H - H, or cut short
                    longest = max(short, key=lambda axis: short[axis]) if short.keys() - {""} else ""
                    is_cut = min(short.values()) < 0
                    if whole.keys() - {""} and (is_cut or is_parameter(longest.rpartition(".")[0])):
                        for times in (1, 4, 3, 2) if is_cut else (4, 3, 2):
                            yield 1, now.agree({longest: 1}, {a: times * n for a, n in whole.items()}, order)
        if len(pairs) == 1 and pairs[0][1] > 0:
            yield 0.5, self.reshaped(now, pairs[0][0], [pairs[0][1]])
        if len(pairs) == 1 and isinstance(problem, ValueError) and "broadcast" in str(problem):
            for length in [length for number in pairs[0] for length in self.read(number)[:1]]:
                yield 2, now.agree(length, {"": 1}, order)
        if len(pairs) == 1 and min(pairs[0]) == 0:  # a slice behind the end: 4 H is meant
            length = self.read(max(pairs[0]))[0]
            for axis in order:
                if is_parameter(axis.rpartition(".")[0]) and axis not in length:
                    for times in (2, 3, 4):
                        yield 1 + times / 10, now.agree({axis: 1}, {a: times * n for a, n in length.items()}, order)
        if found := re.search(r"with size (\d+)$", str(problem)):  # a loop over a longer axis
            own = self.read(int(found[1]))[0]
            for axis in order:
                if axis not in own and self.lengths[axis] > int(found[1]):
                    yield 0.1 + is_parameter(axis.rpartition(".")[0]), now.agree(own, {axis: 1}, order)

    def reshaped(self, now: Hypothesis, size: int, shape: list[int]) -> Hypothesis | None:
        """As many numbers on both sides: each as a product of axes, and what both have cancelled."""
        def factors(number: int) -> list[Length]:
            for count in (1, 2, 3):
                for found in itertools.combinations_with_replacement(self.lengths, count):
                    if number and (times := number / math.prod(self.lengths[a] for a in found)) in (1, 2, 3, 4):
                        return [*({a: 1} for a in found), *[{"": int(times)}] * (times > 1)]
            return [{"": number}]
        left, right = factors(size), [one for n in shape for one in factors(n)]
        for one in list(left):
            if one in right:
                left.remove(one)
                right.remove(one)
        scale = math.prod(one.pop("") for one in right if "" in one) if len(left) == 1 else 1
        right = [one for one in right if one]
        if len(left) != len(right):
            return None
        following: Hypothesis | None = now
        for one, other in zip(left, right):
            following = following and following.agree(one, {a: scale * n for a, n in other.items()}, list(self.lengths))
        return following

    def recurrent(self) -> Hypothesis | None:
        """The hypothesis that a state has the shape in which it is returned; None if nothing changes by it."""
        results = self.result if isinstance(self.result, (tuple, list)) else (self.result,)
        following = now = replace(self.hypothesis, known=self.known)
        axes = [(path, axis) for path, known in self.known.items() for axis in map(now.reduced, known.axes)]
        for path, known in self.known.items():
            returned = next((y for y in results if isinstance(y, np.ndarray) and y.ndim == len(known.axes)), None)
            if known.kind != "array" or returned is None or is_parameter(path) or not re.search(STATE, path):
                continue
            for axis, length in zip(map(now.reduced, known.axes), returned.shape):
                others = [other for other, one in axes if one == axis and other != path]
                if axis.keys() - {""} and all(map(is_parameter, others)):
                    following = following and following.agree(self.read(length)[0], axis, list(self.lengths))
        return following if following and following.equal != now.equal else None

    def features_first(self, lengths: list[Length]) -> bool:
        """Whether the last but one of these lengths is that of features: W @ x, not x @ W."""
        own = [self.hypothesis.reduced(axis) for path, known in self.known.items() if is_parameter(path)
               for axis in known.axes]
        features = [length in own for length in lengths[-2:]]
        if any(features):
            return features == [True, False]
        met = {axis for length in own for axis in length}  # as where other data meet weights
        return any([axis.keys() <= met for axis in map(self.hypothesis.reduced, known.axes[-2:])] == [True, False]
                   for path, known in self.known.items() if known.kind == "array" and not is_parameter(path))

    def smallest(self) -> dict[str, int]:
        """Small lengths for the free axes, in the opposite order, so that all axes that differ have others."""
        found: dict[str, int] = {}
        axes = [self.hypothesis.reduced(axis) for known in self.known.values() for axis in known.axes]
        for axis in reversed(self.lengths):
            whole = [a for a in axes if a.keys() - {""} <= found.keys() | {axis}]
            different = [a for i, a in enumerate(whole) if a not in whole[:i]]
            found[axis] = next(n for n in itertools.count(3) if n not in found.values() and len(different) == len(
                {measured(a, found | {axis: n}) for a in different}))
        return {axis: found[axis] for axis in self.lengths}

    def alone(self) -> float:
        """A cost where several arguments have an axis that nothing else has: one over time may, two are a wrong rank."""
        axes = [(path, axis) for path, known in self.known.items() if known.kind in ("array", "integers", "number")
                for axis in map(self.hypothesis.reduced, known.axes) if axis.keys() != {""}]
        return 1.1 * max(0, len({path for path, axis in axes if not is_parameter(path) and self.known[path].kind != "number" and sum(
            axis.keys() <= other.keys() for _, other in axes) == 1}) - 1)

    def example(self) -> Example:
        known = {path: replace(known, axes=tuple(map(self.hypothesis.reduced, known.axes)))
                 for path, known in self.known.items()}
        constants = {path: self.value(path) for path, one in known.items() if one.kind not in (
            "array", "mapping", "sequence")}
        order = sorted(known, key=lambda path: self.names.index(next(
            n for n in self.names if path == n or path.startswith(f"{n}."))))
        return Example(self.names, {path: known[path] for path in order}, dict(self.lengths), constants)

    def said(self) -> str:
        words = [f"{path} {tuple(map(self.measure, known.axes))}" if known.kind == "array" else
                 f"{path} {known.kind}" for path, known in self.known.items()]
        return ", ".join(words) or "none"


class Asked(dict):
    """A dict that makes what it is asked for."""

    def __init__(self, trial: Trial, path: str, values: dict[str, Any]):
        super().__init__(values)
        self.trial, self.path = trial, path

    def __missing__(self, key: str) -> Any:
        known = self.trial.known[self.path]
        self.trial.known[self.path] = replace(known, keys=(*known.keys, key))
        self[key] = self.trial.value(f"{self.path}.{key}")
        return self[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if default is None else super().get(key, default)


class Probe(np.lib.mixins.NDArrayOperatorsMixin):
    """An argument, or a part of one, of which it is not yet known what it is.

    shift  how many axes fewer it has than the argument (x[:, t] has one fewer than x); None if that is unknown
    least  how many axes the argument has at least
    plain  it is the argument itself
    """

    def __init__(self, trial: Trial, path: str, shift: int | None = 0, least: int = 0, plain: bool = True):
        self.trial, self.path, self.shift, self.least, self.plain = trial, path, shift, least, plain

    __hash__ = object.__hash__

    def needs(self, *options: tuple[float, Known]) -> Any:
        """Stop the function. NumPy swallows some exceptions, so the first stop is noted too."""
        if not self.trial.options:
            known, hint = self.trial.known, self.trial.ranks.get(self.path)
            for cost, found in options:
                equal = dict(self.trial.hypothesis.equal)
                rank = len(found.axes)
                for i in range(rank):  # -1 is another name of the last axis
                    equal[f"{self.path}.{i - rank}"] = self.trial.hypothesis.reduced(found.axes[i])
                cost += (hint is not None and found.kind in ("array", "integers") and rank != hint)
                self.trial.options.append((cost, Hypothesis({**known, self.path: found}, equal, 0)))
        raise Need

    def axis(self, i: int) -> Length:
        return {f"{self.path}.{i}": 1}

    def of_rank(self, rank: int, kind: str = "array") -> Known:
        return Known(kind, tuple(map(self.axis, range(rank))))

    def ranked(self, ranks: Sequence[int] = (2, 1, 3, 0), kind: str = "array") -> Any:
        """It is an array, of one of these ranks."""
        if re.search(NUMBER, self.path) or self.path in self.trial.sizes:
            return self.number()
        wanted = dict.fromkeys(rank + (self.shift or 0) for rank in ranks)
        self.least = max(self.least, self.trial.least.get(self.path, 0))
        fitting = [rank for rank in wanted if rank >= self.least] or [self.least]
        hint = self.trial.ranks.get(self.path, fitting[0])
        fitting = [rank for rank in dict.fromkeys((hint, *fitting)) if rank >= self.least]
        costs = itertools.count(0, 2 if is_parameter(self.path) else 1)
        return self.needs(*((cost, self.of_rank(rank, kind)) for cost, rank in zip(costs, fitting)))

    def number(self) -> Any:
        if re.search(NUMBER, self.path):
            return self.needs((0, Known("constant", value=0 if "seed" in self.path else 0.1)))
        return self.needs((0, Known("number", ({self.path: 1},))), (1, self.of_rank(1)))

    def integers(self) -> Any:
        shared = [known for known in self.trial.known.values() if known.kind == "integers" and len(known.axes) == 1]
        if self.path in self.trial.sizes or not self.shift and self.plain and caller().startswith("CALL"):
            return self.number()
        if shared and (self.shift or 0) <= 1:  # inputs and targets are of one length
            return self.needs((0, shared[0]), *((rank, self.of_rank(rank, "integers")) for rank in (1, 2)))
        return self.ranked((0,) if self.shift and self.plain else (1, 2), "integers")

    def like(self, shape: tuple[int, ...]) -> Any:
        """It meets an array of this shape in an elementwise operation."""
        lengths = [next(iter(self.trial.read(n)), self.axis(i)) if n > 1 else self.axis(i) for i, n in enumerate(shape)]
        is_column = len(shape) > 1 and is_parameter(self.path) and self.trial.features_first(lengths)
        if not self.plain or self.shift or self.path in self.trial.sizes or len(shape) < max(self.least, 1):
            return self.ranked(dict.fromkeys((1 if is_parameter(self.path) and not is_column else len(shape), 2, 1, 3)))
        whole, last = Known("array", tuple(lengths)), Known("array", (lengths[-1],))
        others = [(2, self.of_rank(rank)) for rank in (1, 2, 3) if rank != len(shape)]
        if not is_parameter(self.path):
            return self.needs((0, whole), (1, last), *others)
        if len(shape) == 1:
            return self.needs((0, last), *others)
        ones = ({"": 1},) * (len(shape) - 1)
        column, row = Known("array", (*ones[1:], lengths[-2], {"": 1})), Known("array", (*ones, lengths[-1]))
        if self.trial.ranks.get(self.path) == len(shape):
            return self.needs((0, column if is_column else row), (1, row if is_column else column), (1, whole))
        return self.needs(*((0, column), (2, last)) if is_column else ((0, last), (1, column)), (2, whole))

    def part(self, fewer: int | None = 0, least: int = 0, plain: bool = False) -> Probe:
        shift = None if fewer is None or self.shift is None else self.shift + fewer
        return Probe(self.trial, self.path, shift, max(least, self.least), plain and self.plain)

    # -- what the function does with it

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.needs((0, Known("mapping")))
        items = key if isinstance(key, tuple) else (key,)
        for item in items:
            if isinstance(item, Probe):  # a mask, if it was made of the same
                return item.ranked() if item.path == self.path else item.integers()
        given = [item for item in items if item is not None and item is not Ellipsis]
        fewer = sum(1 - np.ndim(item) for item in given if not isinstance(item, slice)) - items.count(None) \
            if not any(isinstance(item, np.ndarray) for item in items) else sum(
                1 - np.ndim(item) for item in given if not isinstance(item, slice))
        whole = all(isinstance(item, (int, np.integer)) for item in items)
        return self.part(fewer, (self.shift or 0) + len(given), whole)

    def __setitem__(self, key: Any, value: Any) -> None:
        self[key].ranked()

    def __iter__(self) -> Iterator[Probe]:
        operation, count, names = unpacked()
        if operation == "UNPACK_SEQUENCE" and self.plain and not self.shift:
            self.needs((0, Known("sequence", keys=names or tuple(map(str, range(count))))),
                       (1, Known("array", ({"": count}, self.axis(1)))))
        row = Probe(self.trial, self.path, (self.shift or 0) + 1, (self.shift or 0) + 1)
        return iter([row] * len(self))

    def __len__(self) -> int:
        return self.trial.measure(self.axis(self.shift or 0))

    def __call__(self, *_: Any) -> Any:
        return self.needs((0, Known("constant", value=np.tanh)))

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: Any) -> bool:
        return self.needs((0, Known("mapping"))) if isinstance(key, str) else self.ranked()

    def __index__(self) -> int:
        return self.integers()

    def __int__(self) -> int:
        return self.integers() if self.shift else self.number()

    __float__ = __int__

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self.integers() if caller() == "BINARY_SUBSCR" else self.ranked()

    @property
    def shape(self) -> Shape:
        return Shape(self)

    @property
    def T(self) -> Probe:
        return self.part()

    def __getattr__(self, name: str) -> Any:
        if name in ("items", "keys", "values", "get", "setdefault"):
            return self.needs((0, Known("mapping")))
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(name)
        if name in ("copy", "astype"):
            return lambda *_, **__: self.part(plain=True)
        if name in ("reshape", "ravel", "flatten", "transpose", "squeeze", "swapaxes"):
            return lambda *_, **__: self.part(None)
        if name == "dot":
            return lambda other: product(self, other)
        return self.ranked()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Any:
        if ufunc is np.matmul:
            return product(*inputs)
        for one in inputs:
            if isinstance(one, str):
                return self.needs((0, Known("constant", value=one)))
        return elementwise(inputs) or self.part(plain=True)

    def __array_function__(self, function: Callable, types: Any, arguments: tuple, options: dict[str, Any]) -> Any:
        parts = list(leaves(arguments)) + list(leaves(list(options.values())))
        probes = [one for one in parts if isinstance(one, Probe)]
        arrays = [one for one in parts if isinstance(one, np.ndarray) and one.ndim]
        if function in (np.dot, np.matmul, np.inner):
            return product(*probes) if len(parts) < 2 else product(*parts[:2])
        if function is np.outer:
            return first(probes).ranked((1,))
        if function is np.einsum and isinstance(arguments[0], str) and "." not in arguments[0]:
            letters = arguments[0].replace(" ", "").partition("->")[0].split(",")
            return next(one.ranked((len(word),)) for word, one in zip(letters, arguments[1:]) if isinstance(one, Probe))
        if function in (np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.copy):
            return probes[0].part(plain=True)
        if function in (np.reshape, np.ravel, np.transpose, np.squeeze, np.expand_dims, np.swapaxes, np.moveaxis):
            return probes[0].part(None)
        if function is np.shape:
            return probes[0].shape
        return first(probes).ranked(dict.fromkeys((*(a.ndim for a in arrays[:1]), 2, 1, 3)))


class Shape:
    """The shape of a probe."""

    def __init__(self, probe: Probe):
        self.probe = probe

    def __getitem__(self, i: Any) -> Any:
        if not isinstance(i, int) or self.probe.shift is None or (not self.probe.plain and i):
            return self.probe.ranked()
        if i >= 0:
            self.probe.trial.least[self.probe.path] = i + self.probe.shift + 1
            i += self.probe.shift
        return self.probe.trial.measure(self.probe.axis(i))

    def __iter__(self) -> Any:
        operation, count, _ = unpacked()
        return self.probe.ranked((count,) if operation == "UNPACK_SEQUENCE" else (2, 1, 3))

    def __len__(self) -> int:
        return self.probe.ranked()

    def __add__(self, other: Any) -> Any:
        return self.probe.ranked()

    __radd__ = __eq__ = __add__


def elementwise(inputs: Sequence[Any]) -> Any:
    """Decide the first probe that meets an array, or another argument; None if it meets numbers alone."""
    probes = [one for one in inputs if isinstance(one, Probe)]
    arrays = [one for one in inputs if isinstance(one, (np.ndarray, list)) and np.ndim(one)]
    if arrays:
        return first(probes).like(np.broadcast_shapes(*map(np.shape, arrays)))
    if len({one.path for one in probes}) > 1:
        own = max(one.least - (one.shift or 0) for one in probes)  # axes that one of them has at least
        ranks = (1, 2) if is_parameter(first(probes).path) else (max(2, own), 2, 1, 3)
        return first(probes).ranked(ranks)
    return None


def product(*factors: Any) -> Any:
    """Decide the first probe of a matrix product."""
    probe = first([one for one in factors if isinstance(one, Probe)])
    return probe.ranked((2, 1) if is_parameter(probe.path) else (2, 1, 3))


def first(probes: Sequence[Probe]) -> Probe:
    """The one to decide first: data before weights."""
    return min(probes, key=lambda one: is_parameter(one.path))


def leaves(tree: Any) -> Iterator[Any]:
    for one in tree:
        if isinstance(one, (list, tuple)):
            yield from leaves(one)
        else:
            yield one


# -- lengths and errors ------------------------------------------------------------------------------------------


def measured(length: Length, lengths: dict[str, int]) -> int:
    return math.floor(sum(times * (lengths[axis] if axis else 1) for axis, times in length.items()))


def in_words(length: Length) -> str:
    return " + ".join(str(times) if not axis else axis if times == 1 else f"{times} {axis}"
                      for axis, times in length.items())


def is_parameter(path: str) -> bool:
    return "." in path or bool(re.match(PARAMETER, path))


def clashes(problem: BaseException | None) -> list[tuple[int, int]]:
    """The pairs of lengths that an error of NumPy's says should agree."""
    text = str(problem)
    for pattern in (r"size (\d+) is different from (\d+)", r"not aligned: (\d+) \(dim \d\) != (\d+)",
                    r"has size (\d+) and the array at index \d+ has size (\d+)", r"don't match \((\d+) != (\d+)\)",
                    r"size of axis is (\d+) but size of corresponding boolean axis is (\d+)"):
        if found := re.search(pattern, text):
            return [(int(found[1]), int(found[2]))]
    if found := re.search(r"output operand with shape \((.*)\) doesn't match the broadcast shape \((.*)\)|"
                          r"input array from shape \((.*)\) into shape \((.*)\)", text):
        into, whole = (found[1], found[2]) if found[1] is not None else (found[4], found[3])
        if len(re.findall(r"\d+", into)) < len(re.findall(r"\d+", whole)):
            return []
        pairs = itertools.zip_longest(*(map(int, reversed(re.findall(r"\d+", s))) for s in (into, whole)), fillvalue=1)
        return [pair for pair in pairs if pair[0] != pair[1] and (pair[1] != 1 or found[1] is not None)]
    if "broadcast" in text:
        remapped = re.findall(r"->\(([\d,newaxis ]*)\)", text)
        shapes = [[int(n) if n.isdigit() else 1 for n in found.replace(" ", "").strip(",").split(",") if n]
                  for found in remapped or re.findall(r"\(([\d, ]*)\)", text)]
        return broadcast(shapes)
    inner = list(traceback.walk_tb(problem.__traceback__))[-1:] if problem else []
    names = inner[0][0].f_locals if inner else {}
    if "equal division" in text and "sections" in names:
        return [(names["N"], -names["sections"])]
    if "same shape" in text and "arrays" in names:
        return broadcast([np.shape(a) for a in names["arrays"]])
    return []


def broadcast(shapes: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The first pair of lengths that differ, axis by axis from the right."""
    out = []
    for lengths in itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        different = list(dict.fromkeys(n for n in lengths if n != 1))
        out += [(different[0], different[1])] if len(different) > 1 else []
    return out


def place(problem: BaseException) -> str:
    lines = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename != __file__]
    own = [frame for frame in lines if "site-packages" not in frame.filename and "contextlib" not in frame.filename]
    where = f"line {own[-1].lineno}, `{one_line(str(own[-1].line), 80)}`, " if own else ""
    return f"{where}{type(problem).__name__}: {one_line(str(problem), 160)}"


# -- what the source says ----------------------------------------------------------------------------------------


def required(node: Any) -> tuple[str, ...]:
    """The parameters without a default of a function, or of a class's constructor."""
    if isinstance(node, ast.ClassDef):
        init = method_of(node, "__init__")
        return required(init)[1:] if init else ()
    names = parameters_of(node)
    return names[:len(names) - len(node.args.defaults)]


def comments(function: Any, node: Any) -> str:
    """The docstrings and comments of a function or a class."""
    code = getattr(function, "__code__", None)
    lines = linecache.getlines(code.co_filename)[node.lineno - 1:node.end_lineno] if code else []
    found = [ast.get_docstring(n) or "" for n in ast.walk(node) if isinstance(n, Function)]
    return "\n".join([*found, *(line.partition("#")[2] for line in lines)])


def hints(names: Sequence[str], text: str) -> dict[str, int]:
    """name → rank, as the text says it: x (N, T, D), x: of shape (D,), hprev is Hx1."""
    out = {}
    for name in names:
        found = re.search(rf"\b{name}\b[^()\n.;]{{0,40}}?\((\w+(?:\s*,\s*\w+)+|\w+,)\s*\)", text)
        if found and not (is_parameter(name) and found[1].count(",") > 1):
            out[name] = len([part for part in found[1].split(",") if part.strip()])
        elif re.search(rf"\b{name}\b\s+is\s+(an?\s+)?\w+\s*x\s*\w+", text):
            out[name] = 2
    return out


def caller() -> str:
    """The operation of the function that uses a probe: CALL, BINARY_SUBSCR, UNPACK_SEQUENCE …"""
    return unpacked()[0]


def unpacked() -> tuple[str, int, tuple[str, ...]]:
    """(operation, its argument, the names it is unpacked to) of the innermost frame outside this file."""
    import dis
    frame: Any = sys._getframe(1)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    code = frame.f_code.co_code
    operation, count = dis.opname[code[frame.f_lasti]], code[frame.f_lasti + 1]
    names: tuple[str, ...] = ()
    with contextlib.suppress(SyntaxError, ValueError, AttributeError, IndexError):
        statement: Any = ast.parse(linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()).body[0]
        names = tuple(ast.unparse(one) for one in statement.targets[0].elts)
    return operation, count, names if len(names) == count and all(map(str.isidentifier, names)) else ()
