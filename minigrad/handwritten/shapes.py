"""Arguments with which a student's function runs, found by running it.

An argument begins as a probe, which stops the function as soon as it must be known what it is (`probe`). Then each of
its axes has a length of its own, and NumPy's errors name the lengths that must agree (`lengths`). The function runs
again with one more fact, until it runs through. Where an error can be read in several ways, or an argument can be of
several ranks, the likeliest is followed first and the others are kept with a cost.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import heapq
import inspect
import io
import itertools
import linecache
import math
import operator
import re
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from minigrad.engine.messages import one_line
from minigrad.handwritten.layers import places
from minigrad.handwritten.lengths import (
    BIAS,
    STATE,
    Hypothesis,
    Known,
    Length,
    agreements,
    clashes,
    in_words,
    is_constant,
    is_parameter,
    measured,
    owner,
    read,
    reshaped,
)
from minigrad.handwritten.probe import Asked, Need, Probe, leaves, product
from minigrad.handwritten.source import CouldNotRun, Function, TooSlow, limited, required
from minigrad.handwritten.subjects import state

# Lengths while it is tried. A sum of some is hardly ever another.
DATA = (11, 13, 17, 37, 59, 77, 83, 89)
SHORT = (5, 7, 19, 23)  # of arrays with four axes
WEIGHTS = tuple(range(156, 288, 12))  # long, so that slices of fused gates are not cut short, and they can be split
SMALL = [n for n in range(3, 200) if math.isqrt(n) ** 2 != n]  # a factor 2 could be the root of a length of 4
LARGEST = 1.5e6  # numbers in an argument, or in what is computed from some
MOST_GATES = 8
TABLE = r"(\w+_)?(to|2)_?(ix|i|idx|index|indices|ids?)|stoi|\w+_(idx|ix|id|index)_?(map|dict)"  # of words
INVERSE = r"(ix|i|idx|index|ids?)_?(to|2)_?\w+|itos"
WORDS = ("<NULL>", "<START>", "<END>", "<UNK>", "a", "b", "c")
NO_ARRAYS = {TABLE: {word: i for i, word in enumerate(WORDS)}, INVERSE: dict(enumerate(WORDS))}
ROW = r"output operand with shape \((\d+),\) doesn't match the broadcast shape \(1,"
SECONDS = 10.0
FARTHEST = 3.0  # what an example may cost more than the first
OWN = r"positional argument|unexpected keyword|NoneType|\bdict\b|(NameError|UnboundLocalError): |" \
      r"AttributeError: '(?!numpy|int|float|str|list|tuple|SimpleNamespace|Asked)"  # not for the arguments' lengths


@dataclass
class Example:
    """Arguments with which a function runs. A part of an argument has a path, `x` or `params.Wf`.

    known      path → what it is
    lengths    free axis → its length; all axes that differ have different lengths, so that a wrong transpose fails
    constants  path → value of what is no array of floats: integers, numbers, words
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
        """path → its axes in words, ("4 h_prev.1", "x.1"), of each array of floats."""
        return {path: tuple(map(in_words, known.axes)) for path, known in self.known.items() if known.kind == "array"}

    def arguments(self, arrays: dict[str, Any], find: Callable[[str], Any]) -> tuple:
        """The arguments, nested as the function takes them, from path → array; `find` gives a class by its name."""
        def part(path: str) -> Any:
            known = self.known[path]
            if known.kind in ("mapping", "object"):
                found = {key: part(f"{path}.{key}") for key in known.keys}
                return found if known.kind == "mapping" else SimpleNamespace(**found)
            if known.kind in ("sequence", "made"):
                parts = tuple(part(f"{path}.{key}") for key in known.keys)
                if known.kind == "made":
                    return find(known.value)(**dict(zip(known.keys, parts)))
                is_list = known.value is list if known.value else is_parameter(f"{path}.0")  # not a state of two
                return list(parts) if is_list else parts
            if known.kind == "array":
                return arrays[path] if path in arrays else np.full(shapes[path], 0.1)
            value = self.constants[path]
            return value.copy() if isinstance(value, np.ndarray) else value  # a function may change it in place
        shapes = self.shapes
        return tuple(map(part, self.names))


def examples(function: Callable, node: Function, namespace: dict[str, Any] | None = None,
             method: str = "forward", results: tuple = (), ranks: dict[str, int] | None = None,
             told: dict[str, Known] | None = None) -> Iterator[Example]:
    """Arguments for a function, or for a class's constructor and its method together: all that are found in SECONDS of
    computing, likely ones first.

    node       its definition, for the parameters without a default, and docstrings and comments: x (N, T, D)
    results    names of what it returns, where they are known
    ranks      of its parameters, where something else than its own docstring tells them
    told       path → what an argument is, where the file's own calls show it
    namespace  of the file: where the function reads lengths or arrays from it, a matrix in it with the name of a
               weight, or a dict of them, says the shape

    Raises CouldNotRun with the arguments that came furthest and the line that failed; its cause is the exception, where
    no other arguments help.
    """
    names, call, code, sizes = required(node), function, function, tuple[str, ...]()
    if isinstance(node, ast.ClassDef):
        sizes = tuple(name for name in names if not is_parameter(name))
        made, own, code = names, required(node, method), getattr(function, method)
        names = (*made, *(f"{method}.{name}" if name in made else name for name in own))

        def call(*arguments: Any) -> Any:
            return getattr(function(*arguments[:len(made)]), method)(*arguments[len(made):])
    values: dict[str, Any] = {name: (namespace or {}).get(name) for name in names}

    def as_it_is(value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype.kind == "f"
    read = [(namespace or {}).get(name) for name in names_read(code, namespace or {}, function)]
    sizes_read = {value for value in read if type(value) is int}
    given = {name: fixed(value) for name, value in values.items() if is_parameter(name) and as_it_is(value) and len(
        set(np.shape(value))) == np.ndim(value) and (sizes_read or any(map(as_it_is, read)))}
    for name, table in values.items():  # a dict of weights, of sizes that are globals
        if isinstance(table, dict) and all(map(as_it_is, table.values())) and sizes_read & {
                n for w in table.values() for n in w.shape}:
            given |= {name: Known("mapping", keys=tuple(table))}
            given |= {f"{name}.{key}": fixed(w) for key, w in table.items()}
    lengths = Counter(n for place in places(namespace or {}) if place.is_weight for n in np.shape(place.value))
    common, steps = tuple(n for n, _ in lengths.most_common()), tuple(sorted(sizes_read))
    classes = {name: one for name, one in (namespace or {}).items() if isinstance(one, type) and one is not function}
    lines = linecache.getlines(code.__code__.co_filename) if hasattr(code, "__code__") else []
    search = Search(call, names, (ranks or {}) | hints(names, comments(node, lines)), sizes, classes)
    search.results = results
    search.has_columns = bool(re.search(r"""\([\w.()[\]'"]+, ?1[,)]""", "".join(lines)))
    yield from search.run(Hypothesis(given | (told or {}), {}, common, steps), node.name)


def names_read(function: Any, namespace: dict[str, Any], cls: Any) -> set[str]:
    """The globals that a function reads, itself or in one that it calls, which may be a method of its class."""
    waiting, seen, found = [getattr(function, "__code__", None)], set[Any](), set[str]()
    while waiting:
        code = waiting.pop()
        if code is None or code in seen:
            continue
        seen.add(code)
        read = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
        called = [*map(namespace.get, read), *(getattr(cls, name, None) for name in code.co_names)]
        waiting += [*(one for one in code.co_consts if hasattr(one, "co_names")),
                    *(getattr(one, "__code__", None) for one in called)]
        found |= read
    return found


def fixed(value: Any) -> Known:
    """An array of this shape."""
    return Known("array", tuple({"": n} for n in value.shape))


class Sliced(np.ndarray):
    """An array that tells its trial what NumPy does without a word: it cuts slices short, and takes rows apart."""

    __array_priority__ = 1  # so is its product with another array

    def __array_finalize__(self, origin: Any) -> None:
        self.trial: Any = getattr(origin, "trial", None)
        if self.trial and self.size > LARGEST:
            raise Need

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function is np.outer and math.prod(map(np.size, arguments)) > LARGEST:  # of two matrices it is all pairs
            raise Need
        return super().__array_function__(function, types, arguments, options)

    def __getitem__(self, key: Any) -> Any:
        for length, item in zip(self.shape if self.trial else (), key if isinstance(key, tuple) else (key,)):
            if not isinstance(item, (int, np.integer, slice)):
                break
            if isinstance(item, slice):
                end, more = (item.stop, 0) if item.stop else (item.start or 0, 1)
                self.trial.slices.append((length, end, more))
        return super().__getitem__(key)

    def dot(self, other: Any, *out: Any) -> Any:
        return product(self, other) if isinstance(other, Probe) else super().dot(other, *out)

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """Its last axis as several, reshape(-1, 4, H): they should have as many numbers."""
        wanted = list(leaves(shape))
        is_known = all(isinstance(n, (int, np.integer)) for n in wanted)  # and no probes
        if self.trial and self.ndim and is_known and wanted[:1] == [-1] and math.prod(
                wanted[1:]) not in itertools.accumulate(self.shape[::-1], operator.mul, initial=1):
            self.trial.split.append((self.shape[-1], wanted[1:]))
        return super().reshape(*shape, **options)


class Search:
    """The hypotheses that wait, the likeliest first.

    call   takes the arguments `names`
    ranks  name → rank, as the docstring says it
    sizes  the names that are numbers if they can be: what a class is made from
    classes  of the file: an argument may be an object of one
    """

    def __init__(self, call: Callable, names: tuple[str, ...], ranks: dict[str, int], sizes: tuple[str, ...],
                 classes: dict[str, type]):
        self.call, self.names, self.ranks, self.sizes, self.classes = call, names, ranks, sizes, classes
        self.waiting: list[tuple[float, int, Hypothesis | Example]] = []
        self.count = itertools.count(0, -1)  # of two with one cost the later goes first
        self.iterated: set[str] = set()  # the axes that a loop goes over
        self.results: tuple = ()  # names of what the function returns
        self.has_columns = False  # whether the file makes arrays of shape (n, 1)
        self.furthest = (0, 0, False)  # how many parts were known, the line that failed, and if it was for no lengths
        self.closest = "none"
        self.problems: list[BaseException] = []  # of the trials of one hypothesis
        self.ends: dict[str, BaseException | None] = {}  # where those fail for no lengths; what is a fault of the file

    def run(self, start: Hypothesis, called: str) -> Iterator[Example]:
        self.wait(0, start)
        seen: set[str] = set()
        found: set[str] = set()
        spent, most = 0.0, math.inf
        while self.waiting and spent < SECONDS and self.waiting[0][0] <= most:
            cost, _, one = heapq.heappop(self.waiting)
            if isinstance(one, Example):
                most = min(most, cost + FARTHEST)
                ranks = {path: len(known.axes) for path, known in one.known.items()}
                if (told := str((one.axes, ranks))) not in found:  # integers of another rank are another example
                    found.add(told)
                    yield one
            elif (said := str((one.known, sorted(one.equal.items())))) not in seen:
                seen.add(said)
                began = time.process_time()
                self.follow(cost, one)
                for problem in self.problems:  # its frames hold arrays, and are held by themselves
                    traceback.clear_frames(problem.__traceback__)
                self.problems.clear()
                spent += time.process_time() - began
        left = [one for *_, one in sorted(self.waiting, key=lambda entry: entry[:2]) if isinstance(one, Example)]
        if left and not found:  # the time was over
            yield left[0]
        elif not found:
            raise CouldNotRun(f"no arguments were found with which {called} runs; the closest were {self.closest}"
                              ) from [*self.ends.values(), None][0 if len(self.ends) == 1 else -1]

    def wait(self, cost: float, one: Hypothesis | Example | None) -> None:
        if one is not None:
            heapq.heappush(self.waiting, (cost, next(self.count), one))

    def note(self, trial: Trial) -> None:
        """Keep the first arguments that came furthest, and where those fail that came as far."""
        problem = trial.problem
        if problem is None or isinstance(problem, Need):
            return
        line = next((frame.lineno or 0 for frame in frames(problem)), 0)
        reached = len(trial.known), line, not clashes(problem)
        if reached > self.furthest:
            self.furthest, self.closest, self.ends = reached, f"{trial.said()}: {place(problem)}", {}
        if reached == self.furthest:
            is_own = re.search(OWN, f"{type(problem).__name__}: {problem}")
            self.ends[place(problem)] = problem if is_own else None

    def follow(self, cost: float, hypothesis: Hypothesis) -> None:
        """Run the function under a hypothesis; what follows from its end waits."""
        trial = Trial(self, hypothesis, {})
        for length, shape in trial.split[:1]:
            rows = reshaped(replace(hypothesis, known=trial.known), length, shape, trial.lengths)
            self.wait(cost, rows)
            cost += rows is not None
        if trial.problem is None:  # and with small lengths in another order
            now = replace(hypothesis, known=trial.known)
            trial = Trial(self, now, trial.smallest([*reversed(trial.lengths)]))
        if trial.problem is None:
            better = [one for one in (trial.recurrent(), trial.side_by_side()) if one is not None]
            for one in better:
                self.wait(cost, one)
            of_weights = {axis for path, length in now.axes for axis in length
                          if is_parameter(path) or path in self.sizes}
            short = Trial(self, now, trial.smallest(sorted(trial.lengths, key=of_weights.__contains__)))
            self.wait(cost + len(better) + trial.unlikely(), (trial if short.problem else short).example())
            return
        self.note(trial)
        if type(trial.problem) in (NameError, ImportError, SystemExit, TooSlow) or "module" in str(trial.problem):
            self.ends = {"": trial.problem}  # no other arguments help
            self.waiting.clear()
            return
        for more, option in trial.options:
            self.wait(cost + more, option)

        def instead(path: str, known: Known) -> None:
            self.wait(cost + 0.5, replace(hypothesis, known={**trial.known, path: known}))
        if re.search("must be (of|an) integer|converted to a scalar index|are valid indices", str(trial.problem)):
            for path, known in trial.known.items():
                if known.kind == "array" and not is_parameter(path):
                    instead(path, replace(known, kind="integers"))
        if row := re.search(ROW, str(trial.problem)):
            for path, known in trial.known.items():  # a bias (1, n)
                if is_parameter(path) and known.kind == "array" and len(known.axes) == 1 and trial.measure(
                        known.axes[0]) == int(row[1]):
                    instead(path, replace(known, axes=({"": 1}, *known.axes)))
        if counts := re.search(r"takes (\d+) positional arguments? but (\d+) were given", str(trial.problem)):
            taken, given = map(int, counts.groups())  # f(x, *weights)
            for axis in self.iterated & trial.lengths.keys():
                if keys := tuple(map(str, range(taken - given + trial.lengths[axis]))):
                    instead(owner(axis), Known("sequence", keys=keys))
        if lacking := re.search(r"missing \d+ required .*arguments?: (.*)", str(trial.problem)):  # f(**params)
            for path, known in trial.known.items():
                if known.kind == "mapping":
                    instead(path, replace(known, keys=(*known.keys, *re.findall(r"'(\w+)'", lacking[1]))))
        key: Any = trial.problem.args[0] if isinstance(trial.problem, KeyError) and trial.problem.args else None
        for path, known in trial.known.items() if isinstance(key, str) else ():  # of what a loop over a dict makes
            if known.kind == "mapping" and key not in known.keys:
                instead(path, replace(known, keys=(*known.keys, key)))
        if lacking := re.search(r"missing (\d+) required positional argument", str(trial.problem)):  # f(*params)
            for path, known in trial.known.items():
                if known.kind == "sequence":
                    instead(path, replace(known, keys=tuple(map(str, range(len(known.keys) + int(lacking[1]))))))
        if not trial.options:
            others = {axis: n + 24 * i + 12 if n in WEIGHTS else n + i * i + 3 for i, (axis, n) in enumerate(
                trial.lengths.items())}  # not much longer: three axes of a state are many numbers
            again = Trial(self, hypothesis, others).problem if clashes(trial.problem) else None
            for more, following in agreements(replace(hypothesis, known=trial.known), trial.problem, trial.lengths,
                                              again, others):
                self.wait(cost + more, following)
            for is_cut in (False, True):
                self.wait(cost + (not is_cut) / 2, self.gates(replace(hypothesis, known=trial.known), trial, is_cut))

    def gates(self, now: Hypothesis, trial: Trial, is_cut: bool) -> Hypothesis | None:
        """What is sliced, or only what is cut short by it, is as long as its slices ask for: 4 H, of fused gates."""
        asked: dict[int, tuple[int, str]] = {}
        behind: dict[int, int] = {}  # the last one, a[:, -H:]
        for length, end, more in trial.slices:
            for axis, n in trial.lengths.items():
                if end and end % n == 0 and end // n < MOST_GATES and n != length:
                    if end > 0 and (end + more > length or not is_cut):
                        asked[length] = max(asked.get(length, (0, "")), (end // n + more, axis))
                    elif end < 0 and more:
                        behind[length] = max(behind.get(length, 0), -end // n)
        asked = {length: (times + behind.get(length, 0), axis) for length, (times, axis) in asked.items()}
        following: Hypothesis | None = now
        for length, (times, axis) in asked.items():
            tied = [one for one, made in now.equal.items() if {*made.values()} != {1} and measured(
                made, trial.lengths) == length]  # of a smaller multiple
            if following and tied:
                following = replace(following, equal=following.equal | {one: {axis: times} for one in tied})
            elif following:
                following = following.agree(read(length, trial.lengths, [])[0], {axis: times}, list(trial.lengths))
        return following if asked else None


class Trial:
    """One run of the function under a hypothesis, with these lengths of free axes; those that are not given are chosen.

    problem  the exception with which it ended, None if it ran through
    known    what the parts are, with the keys that it asked for
    options  (cost, hypothesis): what the probe that stopped it may be
    """

    def __init__(self, search: Search, hypothesis: Hypothesis, lengths: dict[str, int]):
        self.hypothesis, self.lengths, self.iterated = hypothesis, lengths, search.iterated
        self.names, self.ranks, self.classes = search.names, search.ranks, search.classes
        self.has_columns, self.results = search.has_columns, search.results
        self.known = dict(hypothesis.known)
        self.sizes = (*search.sizes, *(f"{path}.{key}" for path, known in self.known.items() if known.kind == "made"
                                       for key in known.keys if not is_parameter(key)))
        self.options: list[tuple[float, Hypothesis]] = []
        self.least: dict[str, int] = {}  # path → rank that a probe has at least
        self.indexed: dict[str, int] = {}  # path → the largest constant index
        self.slices: list[tuple[int, int, int]] = []  # length, end of a slice, 1 if it goes on from there
        self.split: list[tuple[int, list[int]]] = []  # length, those of the axes that it should be made of
        self.rng = np.random.default_rng(0)
        self.problem: BaseException | None = None
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(), limited(), \
                    contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                self.result = search.call(*map(self.value, self.names))
            for path in self.names:
                self.settle(path)
        except (Exception, SystemExit, TooSlow, Need) as problem:
            self.problem = problem
        if self.options and self.problem is None:
            self.problem = Need()
        search.problems += filter(None, [self.problem])

    def settle(self, path: str) -> None:
        """Decide what the function never needed to know."""
        known = self.known.get(path)
        if known is None:
            Probe(self, path).ranked()
        for key in known.keys if known else ():
            self.settle(f"{path}.{key}")

    def note(self, path: str, options: list[tuple[float, Known]]) -> None:
        """Keep what a probe may be, if it is the first that stops the function."""
        if self.options:
            return
        for cost, known in options:
            now: Hypothesis | None = replace(self.hypothesis, known={**self.known, path: known})
            for i, axis in enumerate(known.axes):
                for name in (f"{path}.{i}", f"{path}.{i - len(known.axes)}"):  # x.shape[-1] may have been asked for
                    if name in self.lengths or name in self.hypothesis.equal:
                        now = now and now.agree({name: 1}, axis, list(self.lengths))
            if now is not None:
                self.options.append((cost, now))

    def value(self, path: str) -> Any:
        known = self.known.get(path)
        if known is None:
            kind = next((kind for kind in NO_ARRAYS if re.fullmatch(kind, path.rpartition(".")[2])), None)
            if kind is None:
                return Probe(self, path)
            known = self.known[path] = Known("constant", value=NO_ARRAYS[kind])
        if known.kind in ("mapping", "object"):
            return Asked(self, path, {key: self.value(f"{path}.{key}") for key in known.keys})
        if known.kind in ("sequence", "made"):
            parts = [self.value(f"{path}.{key}") for key in known.keys]
            return (known.value or list)(parts) if known.kind == "sequence" else self.classes[known.value](
                **dict(zip(known.keys, parts)))
        shape = tuple(map(self.measure, known.axes))
        if math.prod(shape) ** (1 + (known.kind == "number")) > LARGEST:  # of a number np.eye may be made
            raise Need
        if known.kind == "array":
            array = self.rng.uniform(0.1, 0.9, shape).view(Sliced)
            array.trial = self
            return array
        if known.kind == "integers":
            others = [other for other, one in self.known.items() if one.kind == "integers"].index(path)
            return np.resize(np.roll([1, 0, 2, 1, 2, 0, 0], -others), shape)  # targets differ from inputs
        return known.value if known.kind == "constant" else shape[0]

    def measure(self, length: Length) -> int:
        """The length in this run; a free axis that is new gets one."""
        reduced = self.hypothesis.reduced(length)
        for axis in reduced.keys() - self.lengths.keys() - {""}:
            path = owner(axis)
            is_long = is_parameter(path) and (path not in self.known or len(self.known[path].axes) < 3)
            is_large = path in self.known and len(self.known[path].axes) > 3
            lengths = WEIGHTS if is_long else SHORT * is_large + DATA + WEIGHTS
            taken = set(self.lengths.values())
            self.lengths[axis] = next(n for n in itertools.chain(lengths, itertools.count(288, 12)) if n not in taken)
        return measured(reduced, self.lengths)

    def axis_of(self, number: int) -> Length | None:
        """An axis of this length; None if there is none."""
        axes = [*({axis: 1} for axis in self.lengths), *(axis for _, axis in self.hypothesis.axes)]
        return next((axis for axis in axes if number > 1 and measured(axis, self.lengths) == number), None)

    def with_attribute(self, name: str, path: str) -> Iterator[Known]:
        """The objects of the file's classes with this attribute, first of a class whose name is like the argument's;
        made with the sizes that are defaults, or with others."""
        def is_alike(cls: str) -> bool:
            words = cls.lower(), re.sub(r"\W|\d", "", path.rpartition(".")[2]).lower()
            return bool(words[1]) and (words[0] in words[1] or words[1] in words[0])
        for cls in sorted(self.classes, key=is_alike, reverse=True):
            made = self.classes[cls]
            used = {one for base in made.__mro__ for f in vars(base).values() if hasattr(f, "__code__")
                    for one in f.__code__.co_names}
            if not any(made in other.__mro__[1:] for other in self.classes.values()) and (
                    hasattr(made, name) or name in used or name in getattr(made, "__annotations__", ())):
                parameters = [p for p in inspect.signature(made).parameters.values()
                              if p.kind is p.POSITIONAL_OR_KEYWORD]
                needed = tuple(p.name for p in parameters if p.default is p.empty)
                sizes = tuple(p.name for p in parameters if type(p.default) is int and p.default > 2)
                yield Known("made", value=cls, keys=needed)
                yield from [Known("made", value=cls, keys=(*needed, *sizes))] * bool(sizes)

    # -- after it ran through

    def smallest(self, order: list[str]) -> dict[str, int]:
        """Lengths for the free axes that grow in this order, so that all axes that differ have others."""
        found: dict[str, int] = {}
        axes = [axis for _, axis in replace(self.hypothesis, known=self.known).axes]
        for axis in order:
            whole = [a for a in axes if a.keys() - {""} <= found.keys() | {axis}]
            different = [a for i, a in enumerate(whole) if a not in whole[:i]]
            found[axis] = next(n for n in SMALL if n not in found.values() and len(different) == len(
                {measured(a, found | {axis: n}) for a in different}))
        return {axis: found[axis] for axis in self.lengths}

    def recurrent(self) -> Hypothesis | None:
        """The hypothesis that a state has the shape in which it is returned; None if nothing changes by it."""
        now = self.hypothesis
        following: Hypothesis | None = now
        results = list(self.result) if isinstance(self.result, (tuple, list)) else [self.result]
        if isinstance(results[0], tuple):  # a state of two
            results = [*results[0], *results[1:]]
        for path, known in self.known.items():
            named = [y for name, y in zip(self.results, results) if isinstance(name, str) and state(path) and state(
                name) == state(path)] if len(self.results) == len(results) else []
            returned = next((y for y in [*named, *results] if isinstance(y, np.ndarray) and y.ndim == len(
                known.axes)), None)
            if path not in self.data or len(self.data) < 2 or returned is None or not re.search(STATE, path):
                continue
            for axis, length in zip(map(now.reduced, known.axes), returned.shape):
                others = [other for other, one in now.axes if one == axis and other != path]
                if not is_constant(axis) and all(map(is_parameter, others)):
                    one = read(length, self.lengths, [other for _, other in now.axes])[0]
                    following = following and following.agree(one, axis, list(self.lengths))
        return following if following and following.equal != now.equal else None

    def side_by_side(self) -> Hypothesis | None:
        """The hypothesis that arguments which are iterated over, as in zip, have one length; None if they have."""
        following: Hypothesis | None = self.hypothesis
        axes = sorted(axis for axis in self.iterated if axis in self.lengths)
        for axis, other in itertools.pairwise(axes):
            following = following and following.agree({axis: 1}, {other: 1}, list(self.lengths))
        return following if following and following.equal != self.hypothesis.equal else None

    def unlikely(self) -> float:
        """A cost where data have an axis twice, or two of weights, where several have one that nothing else has, where
        a bias has an axis of data that no other weight has, as one for each example, where a layer has one unit, and
        where a length of data is a number that nothing says, read from an error."""
        now = self.hypothesis
        numbers = {axis[""] for path, axis in now.axes if is_constant(axis) and axis.get("", 0) > 1 and (
            path in self.data or self.known[path].kind == "number")} - {*now.common, *now.steps}
        single = sum(known.kind == "number" and now.reduced(known.axes[0]) == {"": 1} for known in self.known.values())
        axes = [(path, axis) for path, axis in now.axes if axis.keys() != {""}]
        fixed = {one for path, axis in axes for one in axis
                 if path not in self.data and len(self.known[path].axes) < 3}
        own = {path: [axis for other, axis in axes if other == path] for path in self.data}
        strange = [path for path, known in self.data.items() if known.kind == "array" and (
            len({str(axis) for axis in own[path]}) < len(own[path]) or
            sum(axis.keys() - {""} <= fixed and not is_constant(axis) for axis in own[path]) > 1)]
        alone = {path for path, axis in axes if path in self.data and sum(
            axis.keys() <= other.keys() for _, other in axes) == 1}
        of_data, of_biases, of_others = ({one for path, axis in axes for one in axis if some(path)} - {""} for some in (
            self.data.__contains__, lambda path: re.match(BIAS, path) and path not in self.data,
            lambda path: path not in self.data and not re.match(BIAS, path)))
        of_each = bool(of_biases & of_data - of_others)
        return 0.7 * len(numbers) + 1.5 * (len(strange) + single + of_each) + 1.1 * max(0, len(alone) - 1)

    @property
    def data(self) -> dict[str, Known]:
        return {path: known for path, known in self.known.items()
                if known.kind in ("array", "integers") and not is_parameter(path)}

    def example(self) -> Example:
        def below(path: str) -> list[str]:
            return [path, *(one for key in self.known[path].keys for one in below(f"{path}.{key}"))]
        known = {path: replace(self.known[path], axes=tuple(map(self.hypothesis.reduced, self.known[path].axes)))
                 for name in self.names for path in below(name)}
        constants = {path: self.value(path) for path, one in known.items()
                     if one.kind in ("integers", "number", "constant")}
        return Example(self.names, known, dict(self.lengths), constants)

    def said(self) -> str:
        words = [f"{path} {tuple(map(self.measure, known.axes))}" if known.kind == "array" else f"{path} {known.kind}"
                 for path, known in self.known.items()]
        return ", ".join(words) or "none"


# -- what the source says ----------------------------------------------------------------------------------------


def comments(node: Any, lines: list[str]) -> str:
    """The docstrings and comments of a function or a class in a file of these lines, or of the whole file."""
    found = [ast.get_docstring(n) or "" for n in ast.walk(node) if isinstance(n, (Function, ast.Module))]
    own = lines if isinstance(node, ast.Module) else lines[node.lineno - 1:node.end_lineno]
    return "\n".join([*found, *(line.partition("#")[2] for line in own)])


def hints(names: tuple[str, ...], text: str) -> dict[str, int]:
    """name → rank, as the text says it: x (N, T, D), x: of shape (D,), hprev is Hx1."""
    out = {}
    for name in names:
        found = re.search(rf"\b{name}\b[^()\n.;]{{0,40}}?\((\w+(?:\s*,\s*\w+)+|\w+,)\s*\)(?!\s*=)", text)
        if found and not (is_parameter(name) and found[1].count(",") > 1):
            out[name] = len([part for part in found[1].split(",") if part.strip()])
        elif re.search(rf"\b{name}\b\s+is\s+(an?\s+)?\w+\s*x\s*\w+", text):
            out[name] = 2
    return out


def frames(problem: BaseException) -> list[traceback.FrameSummary]:
    """Those of the user's code, the innermost last."""
    return [frame for frame in traceback.extract_tb(problem.__traceback__)
            if not re.search(r"site-packages|\.pyx$|contextlib|handwritten.(shapes|probe|lengths)\.py", frame.filename)]


def place(problem: BaseException) -> str:
    """An exception as "line 7, `the line`, what"."""
    own = frames(problem)
    where = f"line {own[-1].lineno}, `{one_line(str(own[-1].line), 80)}`, " if own else ""
    return f"{where}{type(problem).__name__}: {one_line(str(problem), 160)}"
