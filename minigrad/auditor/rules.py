"""Faults inside a rule: one op of it, or a value that it reads."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigrad.auditor.change import kind, reading
from minigrad.auditor.record import Step
from minigrad.auditor.tape import Series, Tape, Values, groups
from minigrad.auditor.words import between, d, is_turned, say, say_read
from minigrad.engine.op import OPS, PART
from minigrad.engine.ops import add, getitem, reshape, split, transpose

# (words, cost, the step that is read at a step t of n): -1 is the initial state
MOMENTS: list[tuple[str, float, Callable[[int, int], int]]] = [
    ("the step after", 0.2, lambda t, n: t + 1), ("the step before", 0.2, lambda t, n: t - 1),
    ("the last step", 0.3, lambda t, n: n - 1), ("the first step", 0.3, lambda t, n: 0),
    ("the other end", 0.4, lambda t, n: n - 1 - t)]
DIAGONAL = "has only the diagonal of the derivative{}: the sum over the other entries is missing"


def assigned(step: Step, g: Any, index: Any) -> Any:
    """The gradient of what is read by an index, assigned by an index and not added."""
    out = np.zeros(step.metadata["shape"])
    out[index] = g
    return out


def added_by_parts(axis: int) -> Callable:
    """dW[x[:, t]] += d[:, t] for each t along this axis: a word that stands twice in one part counts once."""
    def new(step: Step, g: Any) -> Any:
        (index,), out = step.metadata["index"], np.zeros(step.metadata["shape"])  # a ValueError where there are more
        for i in range(np.shape(index)[axis]):
            out[np.take(index, i, axis)] += np.take(g, i, axis)
        return out
    return new


# {op of a rule: (cost, what is said, the new result from the step and the values of its inputs)}
RULE_STEPS: dict[str, list[tuple[float, str, Callable]]] = {
    "multiply": [(1.5, "the factor {a} is missing {between}", lambda step, a, b: b),
                 (1.5, "the factor {b} is missing {between}", lambda step, a, b: a),
                 (1.9, "{a} / {b} in place of {this} {between}", lambda step, a, b: a / b)],
    "divide": [(1.5, "the division by {b} is missing {between}", lambda step, a, b: a),
               (1.9, "{a} {b} in place of {this} {between}", lambda step, a, b: a * b)],
    "mean": [(1.4, "the division by {b} is missing: the forward takes a mean, and its gradient does not",
              lambda step, a, b: a)],
    "add": [(1.5, "the term {a} is missing {between}", lambda step, a, b: b),
            (1.5, "the term {b} is missing {between}", lambda step, a, b: a),
            (1.9, "{a} − {b} in place of {this} {between}", lambda step, a, b: a - b)],
    "subtract": [(1.5, "the term {a} is missing {between}", lambda step, a, b: -b),
                 (1.5, "the term {b} is missing {between}", lambda step, a, b: a),
                 (1.9, "{a} + {b} in place of {this} {between}", lambda step, a, b: a + b),
                 (1.9, "{b} − {a} in place of {this}: the sign {between}", lambda step, a, b: b - a)],
    "negative": [(1.6, "the sign is turned {between}", lambda step, a: a)],
    "transpose": [(1.2, "{a} is not transposed {between}", lambda step, a: a)],
    "turned": [(1.2, "{a} is not turned back: the forward turns {x} round", lambda step, a: assigned(step, a, tuple(
        slice(None) if isinstance(part, slice) else part for part in np.index_exp[step.metadata["index"]])))],
    "sum": [(1.3, f"the step from {{y}} to {{x}} {DIAGONAL.format(' of its {op}')}", lambda step, a: a),
            (1.9, "{this} is a mean, not a sum, {between}",
             lambda step, a: step.compute(a) * np.size(step.example) / np.size(a))],
    "scatter": [(1.5, "the gradient is assigned by index, and not added: an entry that is read twice keeps one of its "
                 "gradients (np.add.at adds them) {between}",
                 lambda step, a: assigned(step, a, step.metadata["index"])),
                *((1.6, f"at each step along axis {axis} the gradient is added by +=, where an index that stands twice "
                   "counts once (np.add.at adds both), {between}", added_by_parts(axis)) for axis in (0, 1))],
}
# g − Σ g y, and of g only −y is there: the other steps are those of every difference
RULE_STEPS["subtract of a softmax"] = [
    (1.4, "what arrives at {y} is left out {between}: p in place of p − y, where a cross-entropy is its loss",
     lambda step, a, b: -b), *RULE_STEPS["subtract"][1:]]


@kind
def step_of_a_rule(tape: Tape, given: list) -> Iterator[tuple]:
    """One op of a rule: an operand left out, a sign turned, a transpose or a sum left out."""
    for site in (site for site in tape.places.values() if site[0].kind == "rule"):
        step, of = site[0], site[0].of
        name = "turned" if is_turned(step) else step.op.name if step.shape or step.op.name != "divide" else "mean"
        name += " of a softmax" if name == "subtract" and "softmax" in of.op.name else ""
        said = [say_read(operand, step.time) for operand in step.inputs]
        for cost, text, how in RULE_STEPS.get(name, ()):
            shown = [f"({word})" if "term" in text and not word.isidentifier() else word for word in said]
            words = dict(zip("ab", shown), this=say(step, 3), op=of.op.name, y=say(of), x=say(step.x))
            yield (cost, text.format(**words, between=between(step)),
                   dict.fromkeys(site, lambda v, step, how=how: how(step, *map(v, step.inputs))))


@kind
def sum_of_a_rule(tape: Tape, given: list) -> Iterator[tuple]:
    """A sum that goes into each entry, as in exp(x) / sum(exp(x)): its gradient is not summed, or over one axis."""
    for e in (slot[0] for slot in tape.slots):
        if e.x.kind == "forward" and e.x.op.linear and len(e.x.total.inputs) == 1 \
                and e.shape != e.inputs[0].shape == e.x.inputs[0].shape:
            after = [other for other in tape.edges if other.of.place == e.x.place]
            text, whole = f"the step from {say(e.of)} to {say(e.x.inputs[0])}", e.inputs[0].shape
            yield (1.3, f"{text} {DIAGONAL.format('')}, in {d(e.x)}",
                   dict.fromkeys(after, lambda v, after: v(after.of.total.inputs[0].inputs[0])), e)
            for axis in range(len(whole) if e.example.size == 1 < len(whole) else 0):
                yield (1.3, f"{text} is that of sums over axis {axis}, and {say(e.x)} in the forward is over all axes",
                       dict.fromkeys(after, lambda v, after, axis=axis: v(after.of.total.inputs[0].inputs[0]).sum(
                           axis, keepdims=True)), e)


@kind
def block_not_transposed(tape: Tape, given: list) -> Iterator[tuple]:
    """W[:, :n] for W[:, :n].T: the block that meets one part of a concatenation, of one matrix or of all that meet it.
    """
    transposes = [at for at in tape.places.values() if at[0].kind == "rule" and at[0].op is transpose.op
                  and at[0].x.op and at[0].x.op.variadic and at[0].x.metadata.get("axis") is not None
                  and len(at[0].shape) == len(at[0].x.shape)]
    for some in groups(transposes, lambda at: at[0].x.place).values():
        whole, axis = some[0][0].x, some[0][0].x.metadata["axis"] % len(some[0][0].x.shape)
        ends = np.cumsum([0, *(part.shape[axis] for part in whole.inputs)])
        for part, (start, stop) in zip(whole.inputs, itertools.pairwise(ends)):
            block = (*[slice(None)] * axis, slice(start, stop))
            for chosen in [*([at] for at in some), *([some] if len(some) > 1 else [])]:
                def how(v: Values, step: Step, block: tuple = block) -> Any:
                    out = np.array(v.own(step))
                    out[block] = out[block].T
                    return out
                if all(at[0].example[block].shape == at[0].example[block].T.shape for at in chosen):
                    yield (1.2, f"the block of {', '.join(say(at[0].inputs[0]) for at in chosen)} that belongs to "
                           f"{say(part)} is not transposed", {step: how for at in chosen for step in at})


# -- another value of the same shape ---------------------------------------------------------------------------------


def formulas(*some: tuple[float, str]) -> list[tuple[float, str, Callable]]:
    """(how unusual, "{}² (1 − {})", the function of one value that the text says)"""
    def function(text: str) -> Callable:
        code = re.sub(r"(?<=[v2)]) (?=[v(])", "*", text.replace("²", "**2").replace("−", "-").replace("{}", "v"))
        return eval(f"lambda v: {code}", {"tanh": np.tanh, "sigmoid": OPS["sigmoid"].forward})
    return [(cost, text, function(text)) for cost, text in some]


# what a person may take for a value
OF_VALUES = formulas((0.0, "1 − {}"), (0.3, "1 − {}²"), (0.0, "{}²"), (0.2, "1 + {}"), (0.6, "−{}"), (0.6, "tanh({})"),
                     (0.6, "sigmoid({})"))


def readings(tape: Tape, own: Step, is_whole: bool = False) -> Iterator[tuple]:
    """(cost, words, what, is_plain, meant) of what may be read in place of the value or gradient `own`.

    what(the values, the step that reads, the step that is meant);  is_plain: no function of a value
    meant: the part of a concatenation that is replaced, or `own`;  is_whole: without functions and parts of it
    """
    is_gradient = own.kind == "total"
    moments = [("", 0.0, None), *((f" of {m}", cost + 0.2 * is_gradient, at)  # of a sum over time, rather the value
                                  for m, cost, at in MOMENTS[:1 if is_gradient else 3])]
    for series in tape.array_gradients if is_gradient else tape.arrays:
        base, is_own = (2.3 if is_gradient else 2.4) + 0.4 * (not series.is_named), series.place == own.place
        looping, name = len(series.at) > 1, say(series.first)
        for moment, cost, at in moments[:None if looping else 1] if series.shape == own.shape else ():
            if moment or not is_own or (looping and not is_gradient):
                yield base + cost, name + moment, read(tape, series, at), True, own
            if not is_gradient and not is_whole and (cost < 0.3 if is_own else series.is_named and not moment):
                for more, text, f in OF_VALUES:
                    what = read(tape, series, at, f)
                    yield base + cost + more + 0.4, text.format(name) + moment, what, False, own
    for k, part in enumerate(own.inputs if own.kind == "forward" and own.op.variadic and not is_whole else ()):
        for cost, text, what, *_ in readings(tape, part, is_whole=True):
            def in_part(v: Values, step: Step, x: Step, k: int = k, what: Callable = what) -> Any:
                return x.compute(*[what(v, step, y) if j == k else v(y) for j, y in enumerate(x.inputs)])
            yield cost + 0.1, text, in_part, False, part
    for term, what in lacking_a_term(own) if not is_gradient and not is_whole else ():
        yield 2.5, f"{say(own)} without its term {say(term)}", lambda v, step, x, what=what: what(v, x), False, own


def lacking_a_term(own: Step) -> Iterator[tuple[Step, Callable]]:
    """A sum without one of its terms, h U for h U + b, also where a part of it is taken."""
    if own.kind != "forward" or own.op not in (add.op, getitem.op, reshape.op, split.op, PART):
        return
    if own.op is add.op:
        for k, term in enumerate(own.inputs):
            yield term, lambda v, x, k=k: v(x.inputs[1 - k]) + np.zeros(x.shape)
    else:
        for term, what in lacking_a_term(own.inputs[0]):
            yield term, lambda v, x, what=what: x.compute(what(v, x.inputs[0]))


def read(tape: Tape, series: Series, at: Callable | None = None, f: Callable | None = None) -> Callable:
    """Read a series at its own time or at another moment, and a function of it. Before the first step it is the initial
    state; where there is none, zeros."""
    def what(v: Values, step: Step, x: Step) -> Any:
        now: Step | None = series.first
        if len(series.at) > 1:
            t = at(step.time, len(series.at)) if at else step.time
            now = tape.starts.get(series.place) if t == -1 else series.at.get(t)
        return np.zeros(x.shape) if now is None else f(v(now)) if f else v(now)
    return what


@kind
def another_value(tape: Tape, given: list) -> Iterator[tuple]:
    """Another value or gradient where a rule reads one: another name, or the same at a neighbouring step."""
    rules = groups((at for at in tape.places.values() if at[0].kind == "rule"),
                   lambda at: (at[0].of.place, at[0].position))
    for rule in rules.values():
        spots = [(at, p) for at in rule for p, x in enumerate(at[0].inputs) if x.kind != "rule" and x.shape]
        for some in groups(spots, lambda spot: spot[0][0].inputs[spot[1]]).values():
            first, own = some[0][0][0], some[0][0][0].inputs[some[0][1]]
            for cost, words, what, is_plain, meant in readings(tape, own):
                whole = f" in the {say(own)}" if meant is not own else ""
                text = f"{words} is used where {say_read(meant, first.time)} is meant,{whole} {between(first)}"
                for chosen in [some, *([spot] for spot in some if len(some) > 1 and is_plain)]:
                    yield (cost + 0.5 * (chosen is not some), text,
                           reading({(step, p): what for at, p in chosen for step in at}))


@kind
def values_exchanged(tape: Tape, given: list) -> Iterator[tuple]:
    """Two values are read in place of each other in all rules, as where a cache is unpacked in another order."""
    spots = groups(((step, p) for step in tape.steps if step.kind == "rule" for p in range(len(step.inputs))),
                   lambda spot: spot[0].inputs[spot[1]].place)
    named = [series for series in tape.arrays if series.is_named and series.place in spots]
    for a, b in itertools.combinations(named, 2):
        if a.at.keys() == b.at.keys() and a.shape == b.shape:
            yield (2.5, f"{say(a.first)} and {say(b.first)} are exchanged wherever they are read",
                   reading({(step, p): other.at[step.inputs[p].time] for one, other in ((a, b), (b, a))
                            for step, p in spots[one.place]}))


@kind
def factors_exchanged(tape: Tape, given: list) -> Iterator[tuple]:
    """Two paths have each other's factors, as two gates: c_prev and g in c = f c_prev + i g."""
    spots = groups(((step, p) for step in tape.steps if step.kind == "rule" and step.x.shape
                    for p, x in enumerate(step.inputs) if x.kind in ("forward", "leaf") and x.shape
                    and x not in (step.of, step.x)), lambda spot: (spot[0].place, spot[1]))
    for one, other in itertools.combinations(spots.values(), 2):
        (a, p), (b, q) = one[0], other[0]
        x, y = a.inputs[p], b.inputs[q]
        if x.place == y.place or x.shape != y.shape or a.x.shape != b.x.shape or a.x.place == b.x.place \
                or a.of.place == b.of.place or [s.time for s, _ in one] != [s.time for s, _ in other]:
            continue
        swapped = {(s, i): t.inputs[j] for mine, its in ((one, other), (other, one))
                   for (s, i), (t, j) in zip(mine, its)}
        yield (2.3, f"{say_read(x, a.time)} and {say_read(y, b.time)} are exchanged: {d(a.x)} has the factor "
               f"{say_read(y, b.time)} and {d(b.x)} {say_read(x, a.time)}", reading(swapped))


@kind
def cache_of_another_step(tape: Tape, given: list) -> Iterator[tuple]:
    """The whole rule of each step reads the values of another step."""
    loop = [step for step in tape.steps if step.kind == "rule" and len(tape.places[step.of.place]) == tape.times > 1]
    for moment, _, at in MOMENTS if loop else ():
        spots: dict[tuple[Step, int], Step] = {}
        for step in loop:
            other = tape.places[step.of.place][at(step.time, tape.times) % tape.times]
            new = {**dict(zip(step.of.inputs, other.inputs)), step.of: other}
            spots |= {(step, p): new[x] for p, x in enumerate(step.inputs) if new.get(x, x) is not x}
        yield 1.5, f"each step reads the cache of {moment}, and not its own", reading(spots)
