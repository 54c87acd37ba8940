"""The conventions in which people write backward passes by hand: tables of names, shapes and true forwards.

`find` recognises the subjects of a file by the names of its functions and their parameters.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.engine.messages import nearest
from minigrad.engine.pytree import flatten, named_leaves
from minigrad.handwritten import references as true
from minigrad.handwritten.source import CouldNotRun, Source, method_of, parameters_of
from minigrad.handwritten.subjects import (
    COURSE_LSTM,
    COURSE_RNN,
    LABELS,
    MASK,
    WORDS,
    Course,
    D,
    H,
    Layer,
    N,
    Named,
    Positional,
    Subject,
    T,
    Together,
    V,
)


def fused(gates: int) -> dict[str, tuple[int, ...]]:
    return {"Wx": (D, gates * H), "Wh": (H, gates * H), "b": (gates * H,)}


# -- the tables -------------------------------------------------------------------------------------------

COURSE: dict[str, tuple] = {  # backward: (inputs, reference, arriving, cell, axis of time)
    "rnn_cell_backward": ({"xt": (D, N), "a_prev": (H, N), **COURSE_RNN}, true.course_rnn_cell, (0,), None, None),
    "rnn_backward": ({"x": (D, N, T), "a0": (H, N), **COURSE_RNN}, true.course_rnn, (0,), "rnn_cell_backward", 2),
    "lstm_cell_backward": ({"xt": (D, N), "a_prev": (H, N), "c_prev": (H, N), **COURSE_LSTM}, true.course_lstm_cell,
                           (0, 1), None, None),
    "lstm_backward": ({"x": (D, N, T), "a0": (H, N), **COURSE_LSTM}, true.course_lstm, (0,), "lstm_cell_backward", 2),
}

LSTM_STEPS, GRU_STEPS = true.lstm_steps("ifog"), true.gru_steps()
CS231N: dict[str, tuple] = {
    "rnn_step_backward": ({"x": (N, D), "prev_h": (N, H), **fused(1)}, [true.rnn_step], (0,), None, None),
    "rnn_backward": ({"x": (N, T, D), "h0": (N, H), **fused(1)}, [true.over_time(true.rnn_step, 1)], (0,),
                     "rnn_step_backward", 1),
    "lstm_step_backward": ({"x": (N, D), "prev_h": (N, H), "prev_c": (N, H), **fused(4)}, LSTM_STEPS, (0, 1), None,
                           None),
    "lstm_backward": ({"x": (N, T, D), "h0": (N, H), **fused(4)}, [true.over_time(s, 2) for s in LSTM_STEPS], (0,),
                      "lstm_step_backward", 1),
    "gru_step_backward": ({"x": (N, D), "prev_h": (N, H), **fused(3)}, GRU_STEPS, (0,), None, None),
    "gru_backward": ({"x": (N, T, D), "h0": (N, H), **fused(3)}, [true.over_time(s, 1) for s in GRU_STEPS], (0,),
                     "gru_step_backward", 1),
    "affine_backward": ({"x": (N, D), "w": (D, H), "b": (H,)}, [true.affine], (0,), None, None),
    "temporal_affine_backward": ({"x": (N, T, D), "w": (D, H), "b": (H,)}, [true.affine], (0,), None, None),
    "batchnorm_backward": ({"x": (V, D), "gamma": (D,), "beta": (D,)}, [true.batchnorm], (0,), None, None),
    "batchnorm_backward_alt": ({"x": (V, D), "gamma": (D,), "beta": (D,)}, [true.batchnorm], (0,), None, None),
    "layernorm_backward": ({"x": (N, D), "gamma": (D,), "beta": (D,)}, [true.layernorm], (0,), None, None),
    "relu_backward": ({"x": (N, D)}, [true.rectifier], (0,), None, None),
    "word_embedding_backward": ({"W": (V, D)}, [true.embedding(WORDS)], (0,), None, None),
}
LOSSES: dict[str, tuple] = {
    "softmax_loss": ({"x": (N, V)}, [true.cross_entropy(LABELS[:, 0], c) for c in (N, 1)]),
    "temporal_softmax_loss": ({"x": (N, T, V)}, [true.cross_entropy(LABELS, c, MASK)
                                                 for c in (N, 1, N * T, MASK.sum())]),
}
MIN_CHAR: dict[str, tuple[int, ...]] = {"Wxh": (H, V), "Whh": (H, H), "Why": (V, H), "bh": (H, 1), "by": (V, 1)}

BOOK_LSTM = true.lstm_steps("fgio")
# (what the class's name contains, how many inputs forward has): (inputs, references, arriving)
LAYERS: dict[tuple[str, int], tuple] = {
    ("LSTM", 3): ({"x": (N, D), "h_prev": (N, H), "c_prev": (N, H), **fused(4)}, BOOK_LSTM, (0, 1)),
    ("GRU", 2): ({"x": (N, D), "h_prev": (N, H), **fused(3)}, GRU_STEPS, (0,)),
    ("RNN", 2): ({"x": (N, D), "h_prev": (N, H), **fused(1)}, [true.rnn_step], (0,)),
    ("LSTM", 1): ({"xs": (N, T, D), **fused(4)}, [true.from_zero(true.over_time(s, 2)) for s in BOOK_LSTM], (0,)),
    ("GRU", 1): ({"xs": (N, T, D), **fused(3)}, [true.from_zero(true.over_time(s, 1)) for s in GRU_STEPS], (0,)),
    ("RNN", 1): ({"xs": (N, T, D), **fused(1)}, [true.from_zero(true.over_time(true.rnn_step, 1))], (0,)),
}


def find(source: Source) -> list[Subject]:
    """The subjects of a file that the tables know, a cell before the sequence that calls it."""
    return [*functions(source), *layers(source.definitions)]


def functions(source: Source) -> Iterator[Subject]:
    defined = source.definitions
    for known, (inputs, reference, arriving, cell, time) in COURSE.items():
        name = own_name(known, defined)
        if name and is_course(known, defined):
            forward = own_name(forward_of(known), defined) or forward_of(known)
            if forward in defined and set(source.keys_of(forward)) - set(inputs):
                continue  # another cell
            yield Course(name, "the course's convention", inputs, [reference], arriving,
                         tuple({"Wy", "by", "Wya"} & inputs.keys()), cell and own_name(cell, defined), forward, time)
    for known, (inputs, references, arriving, cell, time) in CS231N.items():
        name = own_name(known, defined)
        if name and not is_course(known, defined):
            forward = own_name(forward_of(known), defined) or forward_of(known)
            extra = 1 if "embedding" in known or "norm" in known else 0
            if forward in defined and len(parameters_of(defined[forward])) != len(inputs) + extra:
                continue
            yield Positional(name, "cs231n's convention", inputs, references, arriving, time=time,
                             cell=cell and own_name(cell, defined), forward_name=forward,
                             names=returned(defined[name], inputs))
    for name, (inputs, references) in LOSSES.items():
        if name in defined and len(parameters_of(defined[name])) >= (3 if name.startswith("temporal") else 2):
            yield Together(name, "cs231n's convention", inputs, references)


def own_name(known: str, defined: dict[str, Any]) -> str | None:
    """The file's name for a function of a convention: the same, or the only one that contains it, my_lstm_backward."""
    if known in defined:
        return known
    found = [name for name, node in defined.items() if re.search(rf"(^|_){known}(\d|_|$)", name)
             and name not in CS231N and isinstance(node, ast.FunctionDef)]
    return found[0] if len(found) == 1 else None


def forward_of(backward: str) -> str:
    return backward.removesuffix("_alt").replace("backward", "forward")


def is_course(known: str, defined: dict[str, Any]) -> bool:
    """Whether the functions are the course's: three or four inputs with a dict of parameters, and a dict returned."""
    if known not in CS231N or known not in COURSE:
        return known in COURSE
    forward = own_name(forward_of(known), defined)
    if forward is None:
        text = ast.unparse(defined[own_name(known, defined) or known])
        return "parameters" in text or "gradients" in text or "caches" in text
    return len(parameters_of(defined[forward])) <= 4


def not_judged(source: Source, subjects: list[Subject]) -> list[str]:
    """The other functions and classes of a file with a backward, in no convention that is known."""
    judged = {name for subject in subjects for name in (subject.name, subject.cell)}
    return [name for name, node in source.definitions.items() if name not in judged and (
        name.endswith("backward") if isinstance(node, ast.FunctionDef) else method_of(node, "backward"))]


def returned(node: Any, inputs: dict[str, Any], first: int = 0) -> tuple[str, ...]:
    """The inputs whose gradients a function returns as a tuple of names, dx, dW, …; empty if that cannot be told."""
    for statement in reversed([n for n in ast.walk(node) if isinstance(n, ast.Return)]):
        if isinstance(statement.value, ast.Tuple):
            names = [ast.unparse(e).removeprefix("d").split("[")[0] for e in statement.value.elts][first:]
            aliases = {"hprev": "prev_h", "h_prev": "prev_h", "c_prev": "prev_c", "W": "w"}
            names = [n if n in inputs else aliases.get(n, n) for n in names][:len(inputs)]
            return tuple(names) if set(names) <= set(inputs) else ()
    return ()


def layers(defined: dict[str, Any]) -> Iterator[Subject]:
    """Classes, those with a state as an argument before those over time."""
    classes = [node for node in defined.values() if isinstance(node, ast.ClassDef)
               and method_of(node, "forward") and method_of(node, "backward")]
    for (kind, count), (inputs, references, arriving) in LAYERS.items():
        for node in classes:
            if kind.lower() not in node.name.lower() or len(parameters_of(node, "forward")) != count:
                continue
            weights = [name for name in inputs if name[0] in "Wb"]
            takes = tuple(name for name in parameters_of(node) if name in weights)
            own = {name: shape for name, shape in inputs.items() if name not in weights or name in takes}
            if list(takes) == weights or (kind == "GRU" and takes == ("Wx", "Wh")):
                fitting = [r for r in references if len(takes) == len(weights)] or references
                step = [other.name for other in classes if kind in other.name and other is not node
                        and len(parameters_of(other, "forward")) > 1]
                layer = Layer(node.name, "classes with forward, backward and grads", own, fitting, arriving,
                              cell=step[0] if "xs" in inputs and step else None, time=1 if "xs" in inputs else None)
                layer.weights = layer.made_from = takes
                layer.order = tuple(name for name in own if name not in takes)
                layer.arrive = len(parameters_of(node, "backward"))
                layer.names = returned(method_of(node, "backward"), own)
                yield layer


# -- functions that the user names --------------------------------------------------------------------------------


def pair(source: Source, backward: str, other: Source, forward: str, shapes: str) -> Named:
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
    subject = Named(backward, "named functions", {name: leaf.shape for name, leaf in zip(names, leaves)},
                    forward_name=forward, names=returned(source.definitions[backward], dict.fromkeys(names)))
    subject.pattern, subject.takes = pattern, parameters_of(source.definitions[backward])
    subject.elsewhere = other if other.file != source.file else None
    return subject


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
