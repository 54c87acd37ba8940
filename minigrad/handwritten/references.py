"""The true forwards of the usual cells and losses, each in its own names, on arrays and on tensors.

A user's forward is compared with the one that its names and shapes suggest. Fused gates have several orders, so there
are several, and the one that gives the numbers of the user's forward is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations, product
from typing import Any, NamedTuple

import numpy as np

from minigrad.document import lstm_cell_forward
from minigrad.engine.ops import concatenate, log, log_softmax, sigmoid, softmax, stack, tanh
from minigrad.engine.ops import sum as total
from minigrad.handwritten.lengths import Known
from minigrad.handwritten.shapes import Example
from minigrad.handwritten.subjects import Subject

# -- features first, weights on [a; x] ------------------------------------------------------------------


def course_rnn_cell(xt, a_prev, Wax, Waa, Wya, ba, by):
    a_next = tanh(Wax @ xt + Waa @ a_prev + ba)
    yt_pred = softmax(Wya @ a_next + by, axis=0)
    return a_next, yt_pred


def course_rnn(x, a0, Wax, Waa, Wya, ba, by):
    a, y, a_next = [], [], a0
    for t in range(x.shape[2]):
        xt = x[:, :, t]
        a_next = tanh(Wax @ xt + Waa @ a_next + ba)
        a.append(a_next)
        y.append(softmax(Wya @ a_next + by, axis=0))
    return stack(a, axis=2), stack(y, axis=2)


def course_lstm_cell(xt, a_prev, c_prev, Wf, bf, Wi, bi, Wc, bc, Wo, bo, Wy, by):
    concat = concatenate([a_prev, xt], axis=0)
    ft = sigmoid(Wf @ concat + bf)
    it = sigmoid(Wi @ concat + bi)
    cct = tanh(Wc @ concat + bc)
    c_next = ft * c_prev + it * cct
    ot = sigmoid(Wo @ concat + bo)
    a_next = ot * tanh(c_next)
    yt_pred = softmax(Wy @ a_next + by, axis=0)
    return a_next, c_next, yt_pred


def course_lstm(x, a0, Wf, bf, Wi, bi, Wc, bc, Wo, bo, Wy, by):
    a, y, c = [], [], []
    a_next, c_next = a0, np.zeros(a0.shape)
    for t in range(x.shape[2]):  # not by a call of the cell, which would name the states a_prev and c_prev
        concat = concatenate([a_next, x[:, :, t]], axis=0)
        ft = sigmoid(Wf @ concat + bf)
        it = sigmoid(Wi @ concat + bi)
        cct = tanh(Wc @ concat + bc)
        c_next = ft * c_next + it * cct
        ot = sigmoid(Wo @ concat + bo)
        a_next = ot * tanh(c_next)
        a.append(a_next)
        c.append(c_next)
        y.append(softmax(Wy @ a_next + by, axis=0))
    return stack(a, axis=2), stack(y, axis=2), stack(c, axis=2)


def rnn_cell_forward(xt, a_prev, parameters):
    """As the course's function: a_next, yt_pred, (a_next, a_prev, xt, parameters)."""
    a_next, yt_pred = course_rnn_cell(xt, a_prev, *(parameters[name] for name in COURSE_WEIGHTS["rnn"]))
    return a_next, yt_pred, (a_next, a_prev, xt, parameters)


def course_loop(cell: Callable, states: int) -> Callable:
    """The course's function over a sequence, from its cell: a, y, (c,) stacked over time, and (caches, x)."""
    def forward(x, a0, parameters):
        state, outputs, caches = [a0, np.zeros(a0.shape)][:states], [], []
        for t in range(x.shape[2]):
            *step, cache = cell(x[:, :, t], *state, parameters)
            state = step[:states]
            outputs.append(step)
            caches.append(cache)
        a, *c, y = (np.stack(steps, axis=2) for steps in zip(*outputs))
        return a, y, *c, (caches, x)
    return forward


COURSE_WEIGHTS = {
    "rnn": {"Wax": "H D", "Waa": "H H", "Wya": "V H", "ba": "H 1", "by": "V 1"},
    "lstm": {**{f"{kind}{gate}": "H H+D" if kind == "W" else "H 1" for gate in "fico" for kind in "Wb"},
             "Wy": "V H", "by": "V 1"}}


def course_example(course: str) -> Example:
    """The arguments of the course's forward, rnn, rnn_cell, lstm or lstm_cell."""
    states = {"a_prev": "H N", "c_prev": "H N"} if course == "lstm_cell" else {"a_prev": "H N"}
    shapes = {"xt": "D N", **states} if "_cell" in course else {"x": "D N T", "a0": "H N"}
    weights = COURSE_WEIGHTS[course.removesuffix("_cell")]
    shapes |= {f"parameters.{name}": shape for name, shape in weights.items()}
    x, a, *_ = shapes
    axes = {"D": f"{x}.0", "N": f"{x}.1", "T": f"{x}.2", "H": f"{a}.0", "V": "by.0", "1": ""}
    known = {path: Known("array", tuple({axes[letter]: 1 for letter in length.split("+")} for length in shape.split()))
             for path, shape in shapes.items()}
    names = (*(path for path in shapes if "." not in path), "parameters")
    return Example(names, known | {"parameters": Known("mapping", keys=tuple(weights))},
                   {axes[letter]: n for letter, n in {"D": 4, "H": 5, "N": 7, "T": 3, "V": 6}.items()}, {})


def course_forwards(name: str, namespace: dict[str, Any]) -> dict[str, Callable]:
    """{name: forward} of the course's cell and sequence, for a forward of this name; the sequence calls that cell."""
    cell, is_lstm = name if "_cell" in name else name.replace("_forward", "_cell_forward"), "lstm" in name
    return {cell: lstm_cell_forward if is_lstm else rnn_cell_forward,
            cell.replace("_cell", ""): course_loop(lambda *args: namespace[cell](*args), 2 if is_lstm else 1)}


# -- batch first ------------------------------------------------------------------------------------------


def rnn_step(x, prev_h, Wx, Wh, b):
    next_h = tanh(x @ Wx + prev_h @ Wh + b)
    return next_h


def lstm_steps(names: str) -> list[Callable]:
    """LSTM steps with fused gates, first in the order `names`, then in each other order."""
    def in_order(order: tuple[str, ...]) -> Callable:
        def lstm_step(x, prev_h, prev_c, Wx, Wh, b):
            z = x @ Wx + prev_h @ Wh + b
            H = prev_h.shape[1]
            part = {name: slice(k * H, (k + 1) * H) for k, name in enumerate(order)}
            i = sigmoid(z[:, part["i"]])
            f = sigmoid(z[:, part["f"]])
            o = sigmoid(z[:, part["o"]])
            g = tanh(z[:, part["g"]])
            next_c = f * prev_c + i * g
            next_h = o * tanh(next_c)
            return next_h, next_c
        return lstm_step
    return [in_order(order) for order in sorted(permutations(names), key=lambda order: order != tuple(names))]


def over_time(step: Callable, states: int) -> Callable:
    """The sequence of a step: (x (N, T, D), h0, *weights) → h (N, T, H), every other state starting at zero."""
    def sequence(x, h0, *weights):
        state = [h0, *(np.zeros(h0.shape) for _ in range(states - 1))]
        h = []
        for t in range(x.shape[1]):
            new = step(x[:, t, :], *state, *weights)
            state = list(new) if states > 1 else [new]
            h.append(state[0])
        return stack(h, axis=1)
    return sequence


def from_zero(sequence: Callable) -> Callable:
    """A sequence whose first state is zero, (x (N, T, D), Wx, Wh, b) → h."""
    def time_layer(xs, Wx, Wh, b):
        return sequence(xs, np.zeros((xs.shape[0], Wh.shape[0])), Wx, Wh, b)
    return time_layer


# -- losses ------------------------------------------------------------------------------------------------


def cross_entropy(labels: np.ndarray, count: float, present: Any = None) -> Callable:
    """−Σ log p[label] / count over the last axis of the scores, of the entries that are present."""
    def loss(x):
        one_hot = np.eye(x.shape[-1])[labels]
        log_p = one_hot * log_softmax(x, axis=-1)
        if present is not None:
            mask = np.expand_dims(present, -1)
            log_p = mask * log_p
        return -total(log_p) / count
    return loss


LOSSES: dict[str, Callable] = {  # of outputs y and targets t, with the axis of the classes
    "the cross-entropy": lambda y, t, axis: -total(t * log(y)),
    "the cross-entropy of the softmax": lambda y, t, axis: -total(t * log_softmax(y, axis=axis)),
    "half the squared error": lambda y, t, axis: total((y - t) ** 2) / 2,
    "the squared error": lambda y, t, axis: total((y - t) ** 2)}


DIVIDED = {"": "summed", "steps": "divided by the number of steps", "entries": "divided by the number of entries",
           "first": "divided by the length of the first axis", "last": "divided by the length of the last axis",
           "middle": "divided by the length of the middle axis"}


def usual_losses() -> Iterator[tuple[str, Callable]]:
    """(in words, loss of (outputs, targets)), for a backward that takes targets in a file without a loss."""
    def loss(outputs: list, targets: Any, order: int, k: int, form: str, divided_by: str) -> Any:
        y, t = outputs[k], np.asarray(targets)[::order] if np.ndim(targets) else np.asarray(targets)
        y = y.reshape(tuple(n for n in y.shape if n > 1) or (1,))
        axis = y.ndim - 1
        if t.dtype.kind == "i":
            axis = max(axis for axis in range(y.ndim) if y.shape[:axis] + y.shape[axis + 1:] == t.shape)
            t = np.moveaxis(np.eye(y.shape[axis])[t], -1, axis)
        count = {"steps": t.size // y.shape[axis], "entries": t.size, "first": len(y),
                 "last": y.shape[-1], "middle": y.shape[y.ndim // 2]}.get(divided_by, 1)
        return LOSSES[form](y, t.reshape(y.shape), axis) / count
    for order, form, divided_by, k in product((1, -1), LOSSES, DIVIDED, (-1, 0)):
        text = f"{form}, {DIVIDED[divided_by]}"
        yield text + ", with the last target first" * (order < 0), partial(
            loss, order=order, k=k, form=form, divided_by=divided_by)


# -- which of them a subject's forward should be ------------------------------------------------------------


class Usual(NamedTuple):
    """The true forwards that a subject's names and shapes suggest."""

    forwards: Sequence[Callable] = ()
    is_certain: bool = False  # whether its forward has to be one of them
    own_names: bool = False  # whether the user's forward takes their place where it has the same numbers


def usual(subject: Subject) -> Usual:
    inputs, kind = subject.inputs, next((k for k in ("lstm", "rnn") if k in subject.name.lower()), "")
    shapes, states = list(inputs.values()), 2 if kind == "lstm" else 1
    if subject.course:
        reference = (course_rnn, course_lstm) if len(shapes[0]) == 3 else (course_rnn_cell, course_lstm_cell)
        return Usual([by_name(reference[states - 1], list(inputs), tuple(COURSE_WEIGHTS[kind]))], True)
    if {"Wx", "Wh"} <= inputs.keys() and re.match(rf"(time_?|my_?)?{kind or '-'}(_?(cell|step|layer|backward))*$",
                                                 subject.name, re.I):
        n, d, h = shapes[0][0], shapes[0][-1], inputs["Wh"][0]
        weights = [(d, states ** 2 * h), (h, states ** 2 * h), (states ** 2 * h,)]  # four gates or one
        steps = lstm_steps("fgio" if subject.is_class else "ifog") if kind == "lstm" else [rnn_step]
        for arguments, in_form in (([(n, d), *[(n, h)] * states], lambda step: step),
                                   ([(n, *shapes[0][1:2], d), (n, h)], lambda step: over_time(step, states)),
                                   ([(n, *shapes[0][1:2], d)], lambda step: from_zero(over_time(step, states)))):
            if shapes == arguments + weights:
                return Usual([in_form(step) for step in steps], own_names=True)
    constants = (subject.example.constants if subject.example else {}) | subject.constants
    labels = [value for value in constants.values() if np.ndim(value) and np.asarray(value).dtype.kind == "i"]
    if len(inputs) == len(labels) == 1 and subject.is_loss:
        present = next((value for name, value in constants.items() if "mask" in name), None)
        counts = [labels[0].shape[0], 1, labels[0].size, *([] if present is None else [present.sum()])]
        return Usual([cross_entropy(labels[0], count, present) for count in counts])
    return Usual()


def by_name(reference: Callable, names: list[str], order: Sequence[str]) -> Callable:
    """A reference whose last arguments are named, as a function of all its arguments in the order of `names`."""
    def forward(*arguments):
        weights = dict(zip(names, arguments))
        first = [value for name, value in weights.items() if name not in order]
        return reference(*first, *(weights[name] for name in order))
    return forward
