"""Functions and classes that no table of `conventions` knows: how to call them is found by trying.

A name says what an argument is (x, h_prev, Wxh, labels, hidden_size), a `Layout` says the order of its axes. Each
candidate is called, forward and backward; the one that returns the most gradients of the right shape is taken. All
sizes differ, so that a wrong layout fails.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minigrad.handwritten import references as true
from minigrad.handwritten.conventions import MIN_CHAR, returned
from minigrad.handwritten.source import Source, limited, method_of, parameters_of
from minigrad.handwritten.subjects import (
    CHARS,
    NEXT,
    SIZES,
    WEIGHT,
    WEIGHTS,
    WORDS,
    H,
    Layer,
    LossFun,
    Named,
    Subject,
    V,
    weights_of,
)

# what an argument is, by its name
LABELS = r"^(t|ts|y|ys|labels?|targets?|y_true)$"
INDICES = r"^(idx|index|indices|ids|tokens?|words?|word_ids?)$"
STATE = r"^(prev_|last_|init_)?(h|a|c|s|hs|cs|hidden|cell|(hidden_|cell_)?state)" \
        r"(_?(prev|t|0|old|next|in|init|last|tm1|t_?1))*$"
PEEPHOLE = r"p|w_?c_?[ifo]$"
SIZE = [(r"hid|n_?[ah]$|units|state|^H$", "H"), (r"out|class|n_?y$|^V$", "V"), (r"seq|steps|^T$", "T"),
        (r"batch|^N$", "N"), (r"in|n_?x|feat|emb|vocab|dim|size|^D$", "D")]  # of a class's constructor


class Layout(NamedTuple):
    """The axes of x and of a state as letters of `sizes`; whether weights are (out, in); how they are named."""

    x: str
    state: str
    out_first: bool
    scheme: str
    gates: int
    targets: str  # "values" of x's shape, or "classes"
    sizes: dict[str, int]

    def shape(self, axes: str) -> tuple[int, ...]:
        return tuple(self.sizes[letter] for letter in axes)

    def weight(self, name: str) -> tuple[int, ...]:
        """The shape of a weight from its name."""
        letters = name.strip("_").lower()
        hidden, inputs = self.sizes["H"], self.sizes["D"]
        is_output = bool(re.search(r"y|ho$|out", letters)) or letters == "c" or (
            letters[0] == "v" and self.scheme == "u w v")
        out = self.sizes["V"] if is_output else self.gates * hidden
        if re.match(r"gamma|beta", letters):
            return (inputs if self.scheme == "letters" else hidden,)
        if letters[0] in "bc" or re.match(PEEPHOLE, letters):
            return (out, 1) if self.state in ("HN", "H1") else (out,)
        if self.scheme == "embedding":
            return self.sizes["V"], inputs
        is_recurrent = letters[0] == {"w u": "u", "u w v": "w"}.get(self.scheme) or (
            self.scheme == "letters" and "x" not in letters and re.search("[has]", letters[1:]))
        into = hidden if is_output or is_recurrent else hidden + inputs if self.scheme == "concatenated" else inputs
        return (out, into) if self.out_first else (into, out)

    def argument(self, name: str, embeds: bool) -> tuple[int, ...] | np.ndarray:
        """The shape of a parameter of a forward, or its value if it is one of integers."""
        if re.search(INDICES, name) or (embeds and not re.match(WEIGHT, name)):
            return WORDS
        if re.search(LABELS, name) and self.targets == "values":
            return np.linspace(0.1, 0.9, int(np.prod(self.shape(self.x)))).reshape(self.shape(self.x))
        if re.search(LABELS, name):
            shape = self.shape(self.x.replace("D", ""))
            return np.arange(1, 1 + int(np.prod(shape))).reshape(shape) % self.sizes["D"]
        if re.match(WEIGHT, name):
            return self.weight(name)
        return self.shape(self.state if re.search(STATE, name) else self.x)

    def size(self, name: str) -> Any:
        """A number for a constructor's parameter: a size, a seed or a rate."""
        if self.scheme == "embedding" and "vocab" in name:
            return self.sizes["V"]
        return next((self.sizes[letter] for pattern, letter in SIZE if re.search(pattern, name)),
                    0 if "seed" in name else 0.1)


AXES = [("ND", "NH", False), ("DN", "HN", True), ("NTD", "NH", False), ("DNT", "HN", True), ("TND", "NH", False),
        ("TDN", "HN", True), ("D1", "H1", True), ("TD1", "H1", True), ("D", "H", True), ("D", "H", False),
        ("TD", "H", True), ("TD", "H", False), ("ND", "NH", True), ("NTD", "NH", True), ("TND", "NH", True)]


def layouts(weights: list[str], names: Iterable[str], embeds: bool, sizes: dict[str, int]) -> Iterator[Layout]:
    """All layouts for arguments of these names. Fused gates are tried where there are few weights."""
    targets = ["values", "classes"] if any(re.search(LABELS, name) for name in names) else ["classes"]
    schemes = ["embedding"] if embeds else ["letters", "concatenated", "w u", "u w v"] if weights else ["letters"]
    for target, gates, scheme, axes in itertools.product(targets, (1, 4, 3) if 0 < len(weights) <= 4 else (1,),
                                                         schemes, AXES):
        yield Layout(*axes, scheme, gates, target, sizes)


def fitting(subject: Any, source: Source, namespace: dict[str, Any], gradients: Callable,
            sizes: dict[str, int] = SIZES) -> Subject | None:
    """The candidate that returns the most gradients of the right shape; None if no forward runs.

    gradients(subject) → {name: array}, None if the forward fails, {} if the backward does.
    """
    found: list[tuple[int, Subject]] = []
    for candidate in subject.candidates(source, namespace, sizes):
        returned = gradients(candidate)
        if returned is None:
            continue
        score = sum(np.shape(returned[name]) == shape for name, shape in candidate.inputs.items() if name in returned)
        found.append((score, candidate))
        if score == len(candidate.inputs):
            break
    return max(found, key=lambda pair: pair[0])[1] if found else None


@dataclass
class Functions(Named):
    """x_forward(x, …, weights or a dict of them) → (*outputs, cache) and x_backward(*d_outputs, cache)."""

    order: tuple[str, ...] = ()  # the parameters of the forward
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    keys: tuple[str, ...] = ()  # of the dict of weights

    def arguments(self, inputs: dict[str, Any]) -> tuple:
        return tuple(self.constants[name] if name in self.constants else inputs[name] if name in inputs
                     else {key: inputs[key] for key in self.keys} for name in self.order)

    def candidates(self, source: Source, namespace: dict[str, Any], sizes: dict[str, int]) -> Iterator[Subject]:
        order = required(source.definitions[self.forward_name])
        by_key = any(re.search(WEIGHTS, name) for name in order)
        written = source.keys_of(self.forward_name) if by_key else ()
        weights, embeds = [*written, *(name for name in order if re.match(WEIGHT, name))], "embed" in self.name.lower()
        for layout in layouts(weights or ["W"] * 5 * by_key, order, embeds, sizes):
            keys = tuple(dict.fromkeys([*written, *(self.asked(namespace, layout, order) if by_key else ())]))
            found: dict[str, Any] = {}
            for name in order:
                found |= {key: layout.weight(key) for key in keys} if re.search(WEIGHTS, name) else {
                    name: layout.argument(name, embeds)}
            inputs = {name: value for name, value in found.items() if isinstance(value, tuple)}
            out = Functions(self.name, self.convention, inputs, forward_name=self.forward_name, cell=self.cell,
                            names=returned(source.definitions[self.name], inputs))
            out.takes, out.order, out.keys = parameters_of(source.definitions[self.name]), order, keys
            out.constants = {name: value for name, value in found.items() if name not in inputs}
            yield out

    def asked(self, namespace: dict[str, Any], layout: Layout, order: tuple[str, ...]) -> tuple[str, ...]:
        """The keys that the forward asks of a dict of weights while it runs: p["W" + gate]."""
        asked = Asked(layout)
        arguments = [asked if re.search(WEIGHTS, name) else layout.argument(name, False) for name in order]
        with contextlib.suppress(Exception), limited():
            namespace[self.forward_name](*(np.ones(a) if isinstance(a, tuple) else a for a in arguments))
        return tuple(asked)


class Asked(dict):
    """A dict of weights that makes each when it is asked for."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout

    def __missing__(self, key: str) -> np.ndarray:
        self[key] = np.ones(self.layout.weight(key))
        return self[key]


class GuessedLayer(Layer):
    """A class with forward and backward, made from weights or from sizes."""

    def candidates(self, source: Source, namespace: dict[str, Any], sizes: dict[str, int]) -> Iterator[Subject]:
        node: Any = source.definitions[self.name]
        forward: Any = method_of(node, "forward")
        backward, init = method_of(node, "backward"), method_of(node, "__init__")
        makes = required(init)[1:] if init else ()
        order, arrive = (required(forward) + parameters_of(forward)[1:2])[1:], len(required(backward)) - 1
        order = tuple(dict.fromkeys(order))
        given, embeds = [name for name in makes if re.match(WEIGHT, name)], "embed" in self.name.lower()
        for layout in layouts(given, order, embeds, sizes):
            made_from = tuple(name if name in given else layout.size(name) for name in makes)
            weights = {name: layout.weight(name) for name in given}
            if not given:
                try:
                    weights = {name: np.shape(w) for name, w, _ in weights_of(namespace[self.name](*made_from))}
                except Exception:  # another layout may do
                    continue
            found: dict[str, Any] = {name: layout.argument(name, embeds) for name in order}
            inputs = {name: value for name, value in found.items() if isinstance(value, tuple)} | weights
            labels = [value for name, value in found.items() if re.search(LABELS, name)]
            losses = [true.cross_entropy(labels[0], count) for count in (labels[0].shape[0], 1, labels[0].size)] \
                if len(labels) == len(inputs) == 1 and layout.targets == "classes" else []
            yield Layer(self.name, self.convention, inputs, known=losses, weights=tuple(weights), order=order,
                        constants={name: value for name, value in found.items() if name not in inputs},
                        made_from=made_from, arrive=arrive, names=returned(backward, inputs))


class GuessedLossFun(LossFun):
    """lossFun with any cell: its weights are the globals that it returns gradients of."""

    def candidates(self, source: Source, namespace: dict[str, Any], sizes: dict[str, int]) -> Iterator[Subject]:
        node: Any = source.definitions[self.name]
        returned_nodes = [n for s in ast.walk(node) if isinstance(s, ast.Return) for n in ast.walk(s)]
        names = [str(getattr(n, "id", getattr(n, "value", ""))) for n in returned_nodes]  # and keys of a dict
        wanted = [name[1:] for name in names if re.fullmatch(r"d\w+", name)]
        self.sizes = {name: V for name in source.assigned if re.search(r"vocab|^V$|n_chars", name)}
        shapes = self.shapes(source, wanted)
        lengths = {n for shape in shapes.values() for n in shape} - {1, V}
        hidden = {name: H for name, value in source.assigned.items() if value in lengths}
        for small, size in ((hidden, H), ({}, max(lengths, default=H))):
            own = LossFun(self.name, self.convention, {}, sizes=self.sizes | small, silent=parameters_of(node)[2:])
            self.sizes = own.sizes
            shapes = self.shapes(source, wanted)
            own.weights, own.names = tuple(shapes), returned(node, shapes, first=1)
            own.inputs = shapes | dict.fromkeys(own.silent, (size, 1))
            if shapes.keys() == MIN_CHAR.keys() and len(own.silent) == 1:
                own.references = [true.min_char(CHARS, NEXT, count) for count in (1, len(CHARS))]
            yield own

    def shapes(self, source: Source, wanted: list[str]) -> dict[str, tuple[int, ...]]:
        found = source.run(wanted, {name: value for name, value in self.given.items() if name not in wanted})
        return {name: np.shape(found[name]) for name in wanted if name in found and np.ndim(found[name])}


def required(node: Any) -> tuple[str, ...]:
    """The parameters of a function without a default."""
    names = parameters_of(node)
    return names[:len(names) - len(node.args.defaults)]


def forwards_of(backward: str) -> list[str]:
    """The names that the forward of a function may have; none for one that is not called a backward."""
    pairs = (("backward", "forward"), ("bwd", "fwd"), ("backprop", "forwardprop"), ("backprop", "forward"))
    return [backward.replace(back, forth) for back, forth in pairs if back in backward]


def guesses(source: Source, known: set[str]) -> Iterator[Subject]:
    """The functions and classes of a file that no table knows and that can be tried, a cell before its sequence."""
    defined = source.definitions
    found: list[Subject] = []
    for name, node in defined.items():
        if name in known:
            continue
        if isinstance(node, ast.ClassDef):
            if method_of(node, "forward") and method_of(node, "backward"):
                found.append(GuessedLayer(name, "classes with forward and backward", {}))
        elif forward := next((f for f in forwards_of(name) if f in defined), None):
            called = {n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            cell = [other for other in called & defined.keys() if set(forwards_of(other)) & defined.keys()]
            found.append(Functions(name, "functions in pairs, forward and backward", {}, forward_name=forward,
                                   cell=cell[0] if cell else None))
        elif re.search(r"loss_?fun", name, re.I) and len(parameters_of(node)) >= 3:
            found.append(GuessedLossFun(name, "min-char-rnn's convention", {}))
    yield from sorted(found, key=lambda subject: subject.cell is not None)
