"""Find the backwards of a file, and how to call each.

A backward is recognised by its name, and so is its forward; a class by its two methods; a function that returns a loss
and its gradients by these names. How to call them is found by trying: names say what an argument is, and the layout
with which forward and backward return the most gradients of the right shape is taken.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.engine.messages import nearest
from minigrad.engine.pytree import flatten, named_leaves
from minigrad.handwritten.layouts import LABELS, RATE, SIZES, WEIGHT, WEIGHTS, H, Layout, V, layouts
from minigrad.handwritten.references import COURSE_WEIGHTS
from minigrad.handwritten.source import (
    CouldNotRun,
    Source,
    explained,
    limited,
    parameters_of,
)
from minigrad.handwritten.subjects import Subject, bare, weights_of

BACK = r"(?:backward|bwd|back_?prop(?:agation)?|bprop|bptt|(?<![a-z])back(?![a-z]))"
FORWARD = r"^_?(forward|fwd|feed_?forward|forward_?(prop(agation)?|pass)|predict|__call__|call)$"
LOSS = r"loss|cost|cross_?entropy|objective|criterion"
TEXT = "abcdef" * 9  # of any file that is opened
VOCABULARY = r"vocab.*(size|len|n$)|^(size|len|num|n)_?(of_)?(vocab|chars|words|letters|unique)|^V$|n_chars"
COURSE = r"(^|_)((rnn|lstm)(_cell)?_backward)(\d|_|$)"  # the names of the course's functions


def find(source: Source) -> dict[str, Subject]:
    """{name: subject} of all backwards of a file, a step before the sequence that calls it."""
    found: dict[str, Subject] = {}
    parents = {base.id for node in source.definitions.values() for base in getattr(node, "bases", [])
               if isinstance(base, ast.Name)}
    for name, node in source.definitions.items():
        own = source.definitions if isinstance(node, ast.FunctionDef) else source.methods(name)
        for backward in [name] if isinstance(node, ast.FunctionDef) else [] if name in parents else own:
            if (subject := subject_of(source, name, own, backward)) and name not in found:
                found[name] = subject
    for name, subject in found.items():
        called = {n.id for f in source.functions_in(name, alone=True) for n in ast.walk(f) if isinstance(n, ast.Name)}
        subject.cells = tuple(other for other in found if other in called and other != name)
    return dict(sorted(found.items(), key=lambda item: bool(item[1].cells)))


def subject_of(source: Source, name: str, own: dict[str, Any], backward: str) -> Subject | None:
    """The subject whose backward is this function, or this method of a class; None if it is not a backward."""
    is_class = isinstance(source.definitions[name], ast.ClassDef)
    node = own[backward]
    subject = Subject(name, "a class with forward and backward" if is_class else "functions in pairs, forward and "
                      "backward", backward, "", is_class=is_class, returns=names_returned(node))
    if re.search(BACK, backward):
        forward = forward_of(backward, own)
        if not is_class and is_course(backward, forward, source):
            subject.convention, subject.is_course = "the course's convention", True
            forward = forward or re.sub("backward", "forward", re.search(COURSE, backward)[2])  # type: ignore[index]
        if forward is None:
            return None
        subject.forward_name = forward
        subject.order = course_parameters(backward) if forward not in own else called_with(own[forward], is_class)
        subject.results = names_returned(own[forward]) if forward in own else ()
        subject.takes = called_with(node, is_class)
        losses = [other for other in own if re.search(LOSS, other) and other not in (backward, forward)
                  and "backward" not in other and not re.search("d_|grad|deriv|prime", other)]
        known = {*subject.order, *subject.results, *subject.takes}
        subject.loss_name = next((f for f in losses if set(called_with(own[f], is_class)) <= known), "")
    elif re.search(rf"{LOSS}|^(compute_)?grad", backward, re.I) and any(
            re.match(r"d[A-Z_]?\w", one) or one.startswith("grad") for one in subject.returns[1:] or ("",)):
        subject.convention = "loss and gradients in one function"
        subject.forward_name, subject.order = backward, called_with(node, is_class)
    else:
        return None
    if subject.loss_name:
        subject.loss_takes = called_with(own[subject.loss_name], is_class)
    if is_class:
        init = own.get("__init__")
        subject.makes = required(init)[1:] if init else ()
    return subject


def forward_of(backward: str, own: dict[str, Any]) -> str | None:
    """The function or method whose backward this is, by its name."""
    wanted = [re.sub(BACK, forth, backward).strip("_") for forth in (
        "forward", "fwd", "forwardprop", "forward_prop", "forward_propagation", "feedforward", "feed_forward",
        "forward_pass", "fprop", "forw", "")]
    if re.fullmatch(rf"_?{BACK}(_pass)?", backward):
        wanted += [name for name in own if re.match(FORWARD, name)]
    wanted += [other for name in wanted[:2] for other in own if re.search(rf"(^|_){name}(\d|_|$)", other)]
    wanted += [re.sub("_alt|_naive|_fast|_vectorized", "", name) for name in wanted]
    return next((name for name in wanted if name in own and name != backward), None)


def is_course(backward: str, forward: str | None, source: Source) -> bool:
    """Whether a function is one of the course's, for which forwards are known."""
    if not (found := re.search(COURSE, backward)):
        return False
    if forward is None:
        text = ast.unparse(source.definitions[backward])
        return any(word in text for word in ("parameters", "gradients", "caches"))
    names = parameters_of(source.definitions[forward])
    return len(names) == len(course_parameters(backward)) and bool(re.search(WEIGHTS, names[-1])) and \
        set(source.keys_of(forward)) <= set(COURSE_WEIGHTS[found[3]])


def course_parameters(backward: str) -> tuple[str, ...]:
    states = ("a_prev", "c_prev")[:2 if "lstm" in backward else 1]
    return ("xt", *states, "parameters") if "_cell" in backward else ("x", "a0", "parameters")


def required(node: Any) -> tuple[str, ...]:
    """The parameters of a function without a default."""
    names = parameters_of(node)
    return names[:len(names) - len(node.args.defaults)]


def called_with(node: Any, is_method: bool) -> tuple[str, ...]:
    """The parameters that are passed: those without a default, a rate, and of a forward its first and targets."""
    names, needed = parameters_of(node)[is_method:], len(required(node)) - is_method
    is_back = bool(re.search(BACK, node.name))
    passed = [i < needed or bool(re.search(RATE, name)) or (not is_back and (i < is_method or bool(
        re.search(LABELS, name)))) for i, name in enumerate(names)]
    return tuple(itertools.compress(names, itertools.takewhile(bool, passed)))


def names_returned(node: Any) -> tuple[str, ...]:
    """The names in the last `return` that has some, as h_next, cache; keys of a dict too."""
    for statement in reversed([n for n in ast.walk(node) if isinstance(n, ast.Return)]):
        value = statement.value
        if isinstance(value, (ast.Tuple, ast.List)):
            parts = [ast.unparse(e).split("[")[0].removeprefix("self.") for e in value.elts]
            return tuple(part if part.isidentifier() else next(iter(re.findall(r"\b(d\w+)", part)), "")
                         for part in parts)
        if isinstance(value, (ast.Name, ast.Attribute)):
            return (value.id if isinstance(value, ast.Name) else value.attr,)
    return ()


# -- how to call them -------------------------------------------------------------------------------------


def candidates(subject: Subject, source: Source, namespace: dict[str, Any], sizes: dict[str, int]) -> Iterator[Subject]:
    """The subject with the inputs of each layout."""
    names = tuple(dict.fromkeys((*subject.order, *subject.takes, *subject.loss_takes)))
    by_key = any(re.search(WEIGHTS, name) for name in subject.order)
    written = COURSE_WEIGHTS["lstm" if "lstm" in subject.name else "rnn"] if subject.is_course else \
        source.keys_of(subject.forward_name) if by_key else ()
    asks = by_key and not subject.is_course
    embeds = "embed" in subject.name.lower()
    given = [name for name in (*subject.order, *subject.makes) if re.match(WEIGHT, name)]
    for layout in layouts([*written, *given] or ["W"] * 5 * by_key, names, embeds, sizes):
        keys = tuple(dict.fromkeys([*written, *(asked(subject, namespace, layout) if asks else ())]))
        found: dict[str, Any] = {}
        for name in subject.order:
            found |= {key: layout.weight(key) for key in keys} if re.search(WEIGHTS, name) else {
                name: layout.argument(name)}
        found |= {name: layout.number(name) if re.search(RATE, name) else layout.target() for name in names
                  if name not in found and re.search(rf"{LABELS}|{RATE}", name) and name not in subject.results}
        own = replace(subject, keys=keys)
        own.made_from = tuple(name if name in given else layout.number(name) for name in subject.makes)
        weights = {name: layout.weight(name) for name in given if name in subject.makes}
        if subject.is_class and not weights:
            try:
                weights = {name: np.shape(w) for name, w, _ in weights_of(namespace[subject.name](*own.made_from))}
            except Exception:  # another layout may do
                continue
        weights |= {name: np.shape(namespace[name]) for name in subject.held}
        weights |= {key: np.shape(namespace[name][key]) for name, table in subject.tables.items() for key in table}
        own.inputs = {name: shape for name, shape in found.items() if isinstance(shape, tuple)} | weights
        own.constants = {name: value for name, value in found.items() if name not in own.inputs}
        own.held = tuple(weights)
        yield own
        if own.loss_name:  # it may be one of several sequences, or of something else
            yield replace(own, loss_name="")


def asked(subject: Subject, namespace: dict[str, Any], layout: Layout) -> tuple[str, ...]:
    """The keys that the forward asks of a dict of weights while it runs: p["W" + gate]."""
    weights = Asked(layout)
    arguments = [weights if re.search(WEIGHTS, name) else layout.argument(name) for name in subject.order]
    with contextlib.suppress(Exception), limited():
        namespace[subject.forward_name](*(np.ones(a) if isinstance(a, tuple) else a for a in arguments))
    return tuple(weights)


class Asked(dict):
    """A dict of weights that makes each when it is asked for."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout

    def __missing__(self, key: str) -> np.ndarray:
        self[key] = np.ones(self.layout.weight(key))
        return self[key]


def with_globals(subject: Subject, source: Source) -> Subject:
    """The subject with the weights that it reads from globals, and small numbers for the sizes of the file."""
    arguments = {*subject.order, *subject.takes, *source.keys_of(subject.forward_name)}
    read = [name for f in (subject.forward_name, subject.backward_name) if f in source.definitions
            for name in source.global_names(f, set(source.assigned) - arguments)]
    returned = [bare(name) for name in subject.returns]
    names = [name for name in dict.fromkeys([*returned, *read]) if name in read and (
        name in returned or re.match(WEIGHT, name) or re.match(WEIGHTS, name))]
    if subject.is_class or not names:
        return subject
    sizes: dict[str, Any] = {name: V for name in source.assigned if re.search(VOCABULARY, name)}
    sizes["open"] = lambda *_, **__: io.StringIO(TEXT)

    def weights() -> dict[str, Any]:
        found = source.run(names, sizes)
        return {name: found[name] for name in names if isinstance(found.get(name), (dict, np.ndarray))}
    lengths = {n for w in flatten(weights())[0] for n in np.shape(w)} - {1, V}
    sizes |= {name: H for name, value in source.assigned.items() if value in lengths}
    found = weights()
    return replace(subject, sizes=sizes, held=tuple(name for name, w in found.items() if np.ndim(w)),
                   tables={name: tuple(w) for name, w in found.items() if isinstance(w, dict)})


def fitting(subject: Subject, source: Source, namespace: dict[str, Any], sizes: dict[str, int] = SIZES) -> Subject:
    """The candidate that returns the most gradients of the right shape. Raises CouldNotRun if no forward runs."""
    found: list[tuple[int, Subject]] = []
    problems: list[str] = []
    rng = np.random.default_rng(0)
    for candidate in candidates(subject, source, namespace, sizes):
        inputs = {name: rng.normal(size=shape) for name, shape in candidate.inputs.items()}
        outputs: tuple = ()
        try:
            with explained(source, f"{subject.forward_in_words} fails"):
                outputs, memory = candidate.forward(namespace, inputs)
            with explained(source, f"{subject.name} fails"):
                returned = candidate.backward(namespace, memory, [np.ones(np.shape(outputs[i])) for i in
                                                                  candidate.arriving])
        except CouldNotRun as problem:
            problems.append(str(problem))
            if "still running" in str(problem):
                raise
            if not outputs:
                continue
            returned = {}
        score = sum(np.shape(d) == candidate.inputs[name] for name, d in returned.items())
        found.append((score, candidate))
        if score == len(candidate.inputs):
            break
    if not found:
        problem = max(problems, key=line_in) if problems else f"{subject.name} cannot be made: its constructor fails"
        raise CouldNotRun(problem if not re.search("(Value|Index|Type|Key)Error|cannot be made", problem) else
                          f"{problem}; no shapes were found with which its forward runs: for a function give --forward "
                          "and --shapes")
    return max(found, key=lambda pair: pair[0])[1]


def line_in(problem: str) -> int:
    found = re.search(r"line (\d+):", problem)
    return int(found[1]) if found else 0


# -- functions that the user names --------------------------------------------------------------------------------


def pair(source: Source, backward: str, other: Source, forward: str, shapes: str) -> Subject:
    """The subject for `FILE:backward --forward FILE:forward --shapes "x=3,4 p={'W': (5, 3)}"`."""
    given: dict[str, Any] = {}
    for word in re.split(r"\s+(?=\w+\s*=)", shapes.strip()):
        name, _, shape = word.partition("=")
        try:
            given[name.strip()] = shapes_of(ast.literal_eval(shape.strip()))
        except (ValueError, TypeError, SyntaxError):
            raise CouldNotRun(f"--shapes has {word!r}, where name=3,4 is expected, name=() for a number, or a nesting "
                              "of shapes in Python's brackets") from None
    for where, name in ((source, backward), (other, forward)):
        if not isinstance(where.definitions.get(name), ast.FunctionDef):
            raise CouldNotRun(f"{where.file} has no function {name!r}{nearest(name, where.definitions)}")
    takes = parameters_of(other.definitions[forward])
    if list(given) != list(takes[:len(given)]) or not given:
        raise CouldNotRun(f"{forward} takes {', '.join(takes)}: give --shapes for them in this order, as "
                          f"{takes[0] if takes else 'x'}=3,4")
    leaves, pattern = flatten(tuple(given.values()))
    names = [name.rpartition(".")[2] for name, _ in named_leaves(given)]
    node = source.definitions[backward]
    return Subject(backward, "named functions", backward, forward, order=tuple(given), takes=parameters_of(node),
                   results=names_returned(other.definitions[forward]), returns=names_returned(node), pattern=pattern,
                   inputs={name: leaf.shape for name, leaf in zip(names, leaves)},
                   elsewhere=other if other.file != source.file else None)


def shapes_of(shape: Any) -> Any:
    """Zeros nested like their shapes. A shape is a number, or a tuple or list of numbers."""
    if isinstance(shape, dict):
        return {key: shapes_of(child) for key, child in shape.items()}
    if isinstance(shape, (tuple, list)) and not all(type(n) is int for n in shape):
        return tuple(shapes_of(child) for child in shape)
    return np.zeros(shape)


def nothing_found(source: Source) -> CouldNotRun:
    """What to do where no backward is recognised."""
    pairs = [name for name in source.definitions if name.endswith("backward")]
    hint = f"name {pairs[0]}'s forward and shapes, as {source.file}:{pairs[0]} --forward " \
           f"{source.file}:{pairs[0].replace('backward', 'forward')} --shapes \"x=3,4 W=5,3\"" if pairs else \
           "name the two functions and the shapes of the forward's arguments, as FILE:function --forward " \
           "FILE:function --shapes \"x=3,4 W=5,3\""
    return CouldNotRun(f"{source.file} has no backward whose convention is known by its names (lstm_cell_backward, "
                       f"lstm_step_backward, lossFun and their like, or a class with forward and backward): {hint}")
