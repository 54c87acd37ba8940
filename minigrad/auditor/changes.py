"""The table of faults: each kind of change that a person makes to a derivation, one block each.

A kind is a generator of `Change`s of a tape: which steps are replaced, by what, and the sentence that says so. None
knows an LSTM: they go by the edges of the derivation, the ops of its rules and the names in the user's code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minigrad.auditor.record import Edge
from minigrad.auditor.tape import Replacement, Tape, groups
from minigrad.engine.op import OPS


@dataclass(frozen=True, eq=False)
class Change:
    """A fault: steps and what is there in their place.

    cost    how unusual it is: of changes that explain the same, the smallest comes first
    spot    the forward step that it is about;  about: names of gradients in whose lines it may be
    within  it stays within its step of time (the copy that is carried is right);  only: the leaves it concerns
    """

    kind: str
    cost: float
    text: str
    replaced: dict[int, Replacement]
    spot: int
    about: tuple[str, ...] = ()
    within: bool = False
    only: frozenset | None = None

    def limited(self, leaves: frozenset) -> Change:
        return replace(self, within=True, only=leaves)


KINDS: list[tuple[str, Callable[[Tape, dict], Iterator[tuple]]]] = []


def kind(function: Callable) -> Callable:
    KINDS.append((function.__name__.replace("_", " "), function))
    return function


def all_changes(tape: Tape, given: dict[str, Any]) -> Iterator[Change]:
    """Every change of the table. given: the user's gradients at the first draw, for what is solved and not tried."""
    for name, function in KINDS:
        for cost, text, replaced, spot, *about in function(tape, given):
            if replaced:
                yield Change(name, cost, text, replaced, spot, tuple(about))


# -- places ----------------------------------------------------------------------------------------------------


def slots(tape: Tape) -> list[list[Edge]]:
    """The edges of one place of the code, at all times."""
    steps = tape.steps

    def slot(e: Edge) -> Any:
        return steps[e.consumer].place, (e.position if not steps[e.consumer].op.variadic
                                         else steps[e.x].place or e.x)
    return list(groups(tape.edges, slot).values())


def bundles(tape: Tape) -> list[tuple[list[Edge], bool]]:
    """(edges, whether they are those between steps of time): whole slots, and their parts by what they lead to."""
    out = []
    for edges in slots(tape):
        out.append((edges, all(e.contribution in tape.carries for e in edges)))
        parts = groups(edges, lambda e: tape.steps[e.x].place or e.x)
        if len(parts) > 1:
            out += [(part, all(e.contribution in tape.carries for e in part)) for part in parts.values()]
    return out


def each(edges: list[Edge], how: Callable[[Any, Edge], Any]) -> dict[int, Replacement]:
    """Replace the contribution of each edge by how(its value, edge)."""
    return {e.contribution: (lambda value, e=e: on_parts(lambda d: how(d, e), value.without_change(e.contribution)))
            for e in edges}


def on_parts(f: Callable, d: Any) -> Any:
    return tuple(map(f, d)) if isinstance(d, tuple) else f(d)


def words(tape: Tape, e: Edge) -> tuple[str, str]:
    """The names of an edge's ends: the consumer and what its gradient goes to."""
    return tape.say(e.consumer), tape.say(e.x)


def unary(tape: Tape) -> list[list[Edge]]:
    """The slots of elementwise functions of one variable whose derivative is not a constant."""
    return [edges for edges in slots(tape) if (op := tape.steps[edges[0].consumer].op) and len(op.arrays) == 1
            and op.elementwise and not op.linear and not op.variadic]


def d(name: str) -> str:
    return f"d{name}" if name.isidentifier() else f"the gradient of {name}"


# -- carried states ------------------------------------------------------------------------------------------


@kind
def not_carried(tape: Tape, given: dict) -> Iterator[tuple]:
    """All edges that carry one state, or several, to the step before."""
    steps = tape.steps
    states = groups((e for e in tape.edges if e.contribution in tape.carries), lambda e: steps[e.x].place)
    names = {place: tape.say(edges[0].x) for place, edges in states.items()}
    for n in range(1, min(len(states), 3) + 1):
        for some in itertools.combinations(states, n):
            edges = [e for place in some for e in states[place]]
            said = " and ".join(dict.fromkeys(f"d{names[place]}" for place in some))
            verb = "is" if n == 1 else "are"
            yield (0.5 + 0.1 * n, f"{said} {verb} not carried to the step before", each(edges, lambda d, e: 0 * d),
                   edges[0].x, *[names[place] for place in some])
            slots = {(steps[e.consumer].place, e.position) for e in edges}
            first = [e for e in tape.edges if (steps[e.consumer].place, e.position) in slots
                     and e.contribution not in tape.carries]
            yield (0.7 + 0.1 * n, f"{said} {verb} not carried to the step before, nor to the initial state",
                   each(edges + first, lambda d, e: 0 * d), edges[0].x, *[names[place] for place in some])


@kind
def steps_left_out(tape: Tape, given: dict) -> Iterator[tuple]:
    """The loop over time covers only some of the steps."""
    for k in range(1, tape.times):
        for late in (True, False):
            edges = [e for e in tape.edges if len(tape.calls[tape.steps[e.consumer].place]) == tape.times
                     and (tape.steps[e.consumer].time >= k) is late]
            which = f"the last {tape.times - k}" if late else f"the first {k}"
            text = f"the loop over time leaves out {which} of the {tape.times} steps"
            replaced = each(edges, lambda d, e: 0 * d)
            yield 2.0, text, replaced, edges[0].consumer if edges else 0
            if not late:  # what is carried to the last step of the loop is returned for the initial state
                for place, start in first_states(tape).items():
                    carried = [e.contribution for e in tape.edges if e.x == tape.calls[place][k - 1]
                               and e.contribution in tape.carries]
                    if start in tape.totals and carried:
                        replaced = {**replaced, tape.totals[start]: lambda value, carried=carried: sum(
                            value(c) for c in carried)}
                yield 2.1, text, replaced, edges[0].consumer if edges else 0


@kind
def not_added_up(tape: Tape, given: dict) -> Iterator[tuple]:
    """A gradient that is added up over time, with other weights: 0 or 1 for `=` in place of `+=`."""
    for leaf, number in tape.leaves.items():
        edges = [e for e in tape.edges if e.x == number]
        for key, by in (("step", groups(edges, lambda e: tape.steps[e.consumer].time)),
                        ("path", groups(edges, lambda e: (tape.steps[e.consumer].place, e.position)))):
            if len(by) < 2 or given.get(leaf) is None or given[leaf].shape != tape.draws[0][0][number].shape:
                continue
            columns = np.stack([sum(tape.draws[0][0][e.contribution] for e in part).ravel() for part in by.values()], 1)
            if key == "step":
                for time in (min(by), max(by)):
                    change = each([e for t, part in by.items() if t != time for e in part], lambda d, e: 0 * d)
                    last = " (the last step's is what stays)" if time else ""
                    yield (0.6, f"d{leaf} is overwritten at each step, not added up{last}", change, edges[0].consumer,
                           leaf)
            weights, *_ = np.linalg.lstsq(columns, given[leaf].ravel(), rcond=None)
            if np.abs(columns @ weights - given[leaf].ravel()).max() > 1e-7 * np.abs(columns).max() \
                    or np.abs(weights - np.round(weights * 4) / 4).max() > 1e-6:
                continue
            weights = np.round(weights * 4) / 4
            scale = {e.contribution: w for w, part in zip(weights, by.values()) for e in part}
            change = each(edges, lambda d, e, scale=scale: scale[e.contribution] * d)
            weights += 0.0  # no −0
            is_known = key == "step" and sorted(weights)[-2:] == [0.0, 1.0] and weights[[0, -1]].any()
            if not weights.any() or (weights == 1).all() or is_known:
                continue
            if key == "step":
                shown = ", ".join(f"{w:g}" for _, w in sorted(zip(by, weights)))
                yield (1.6, f"d{leaf} is not the sum over the steps: step by step it has the factors {shown}",
                       change, edges[0].consumer, leaf)
            else:
                off = [(e[0], w) for w, e in zip(weights, by.values()) if w != 1]
                what = "; ".join(f"the path through {tape.say(e.consumer)} "
                                 + {0: "is missing", -1: "has its sign turned"}.get(w, f"counts {w:g} times")
                                 for e, w in off)
                yield 1.4 + 0.1 * len(off), f"in d{leaf} {what}", change, edges[0].consumer, leaf


# -- one edge ----------------------------------------------------------------------------------------------------


@kind
def path(tape: Tape, given: dict) -> Iterator[tuple]:
    """One path of the derivation: missing, counted twice, of the other sign."""
    for edges, carried in bundles(tape):
        y, x = words(tape, edges[0])
        unnamed = 0.05 * (not x.isidentifier()) + 0.05 * (not y.isidentifier())
        where = f"from {y} to {x}" + (" of the step before" if carried else "")
        for cost, text, k in ((1.0, f"{d(x)} lacks the path {where}", 0),
                              (1.8, f"the path {where} is counted twice", 2),
                              (1.7, f"the path {where} has its sign turned", -1)):
            yield (cost + unnamed, text, each(edges, lambda g, e, k=k: k * g), edges[0].consumer, x, y)


@kind
def scale(tape: Tape, given: dict) -> Iterator[tuple]:
    """A constant factor on one path, solved from the user's gradient, or one that the sizes suggest."""
    for edges, _ in bundles(tape):
        y, x = words(tape, edges[0])
        tried = set()
        for leaf in list(given):
            if len(tried) or not any(tape.after[e.contribution] >> tape.total(leaf) & 1 for e in edges):
                continue
            true = tape.draws[0][0][tape.total(leaf)]
            if true.shape != given[leaf].shape or np.allclose(given[leaf], true, rtol=1e-9):
                continue
            rest = tape.gradient(leaf, each(edges, lambda g, e: 0 * g))
            part = true - rest
            k = float(np.vdot(part, given[leaf] - rest) / (np.vdot(part, part) or 1))
            if np.isfinite(k) and np.abs(rest + k * part - given[leaf]).max() < 1e-7 * np.abs(given[leaf]).max():
                tried.add(k)
        if len(edges) > 1 and not tried:
            tried = {k for k, _ in named_sizes(tape)[:24]}
        for k in tried:
            if abs(k) < 1e-9 or abs(k - 1) < 1e-9:
                continue
            yield (2.2 if number_name(tape, k)[1] else 3.5,
                   f"the path from {y} to {x} has a factor {number_name(tape, k)[0]} too much",
                   each(edges, lambda g, e, k=k: k * g), edges[0].consumer, x, y)


def named_sizes(tape: Tape) -> list[tuple[float, str]]:
    """Numbers that the sizes suggest, with their names."""
    if hasattr(tape, "sizes"):
        return tape.sizes
    shapes = [np.shape(step.example) for step in tape.steps if step.kind in ("leaf", "forward")
              and not isinstance(step.example, tuple)]
    lengths = sorted({n for shape in shapes for n in shape if n > 1})
    totals = sorted({int(np.prod(shape)) for shape in shapes} - set(lengths) - {1})
    out = [(float(n), f"{n}") for n in lengths] + [(1.0 / n, f"1/{n}") for n in lengths]
    out += [(2.0, "2"), (0.5, "1/2"), (-1.0, "−1")]
    out += [(float(n), f"{n}") for n in totals] + [(1.0 / n, f"1/{n}") for n in totals]
    out += [(n ** 0.5, f"√{n}") for n in lengths] + [(n ** -0.5, f"1/√{n}") for n in lengths]
    out += [(n / m, f"{n}/{m}") for n in [*lengths, *totals] for m in [*lengths, *totals] if n != m]
    tape.sizes = out
    return out


def number_name(tape: Tape, k: float) -> tuple[str, bool]:
    """A number as a person would write it, and whether the sizes give it."""
    found = next((name for n, name in named_sizes(tape) if abs(n - k) < 1e-7 * abs(k)), None)
    return found or f"{k:.6g}", found is not None


# -- the derivative of a function of one variable ----------------------------------------------------------------


SLOPES = {"sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y}
SLOPE_TEXT = {"sigmoid": "{y} (1 − {y})", "tanh": "1 − {y}²", "relu": "{x} > 0", "exp": "{y}", "square": "2 {x}",
              "sqrt": "1 / (2 {y})", "log": "1 / {x}"}
# (cost, what is in place of the derivative, g′ from g, y, x and the op's own slope s)
DERIVATIVES: list[tuple[float, str, Callable]] = [
    (0.8, "lacks the derivative of its {op}, {slope}", lambda g, y, x, op, s: g),
    (1.6, "has the derivative of its {op} twice, {slope}", lambda g, y, x, op, s: g * s * s),
    (1.4, "has {y} alone in place of the derivative {slope}", lambda g, y, x, op, s: g * y),
    (1.4, "has 1 − {y} in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 - y)),
    (1.6, "has 1 + {y} in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 + y)),
    (1.6, "has 1 + {y}² in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 + y * y)),
    (1.4, "has {y}² in place of the derivative {slope}", lambda g, y, x, op, s: g * y * y),
    (1.7, "has (1 − {y})² in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 - y) ** 2),
    (1.7, "has 1 − {y}² in place of the derivative {slope}: it is that of tanh",
     lambda g, y, x, op, s: g * (1 - y * y)),
    (1.7, "has {y} (1 − {y}) in place of the derivative {slope}: it is that of a sigmoid",
     lambda g, y, x, op, s: g * y * (1 - y)),
    (1.8, "has {y} (1 − {y}²) in place of the derivative {slope}", lambda g, y, x, op, s: g * y * (1 - y * y)),
    (1.8, "has {y} ({y} − 1) in place of the derivative {slope}: the sign", lambda g, y, x, op, s: g * y * (y - 1)),
    (1.8, "has {y} (1 + {y}) in place of the derivative {slope}", lambda g, y, x, op, s: g * y * (1 + y)),
    (1.8, "has {y}² (1 − {y}) in place of the derivative {slope}", lambda g, y, x, op, s: g * y * y * (1 - y)),
    (1.8, "has {y} (1 − {y})² in place of the derivative {slope}", lambda g, y, x, op, s: g * y * (1 - y) ** 2),
    (1.8, "has (1 − {y}²)² in place of the derivative {slope}", lambda g, y, x, op, s: g * (1 - y * y) ** 2),
    (1.9, "has √(1 − {y}²) in place of the derivative {slope}", lambda g, y, x, op, s: g * np.sqrt(1 - y * y)),
    (1.8, "takes the derivative {slope} at {op}({y}): {op} is applied once too often",
     lambda g, y, x, op, s: g * SLOPES[op.name](op.forward(y))),  # KeyError: no such slope
    (1.8, "takes the derivative {slope} at {x}, the argument, in place of the result",
     lambda g, y, x, op, s: g * SLOPES[op.name](x)),
    (1.9, "applies {op} to the gradient in place of its derivative", lambda g, y, x, op, s: op.forward(g)),
    (2.0, "has {op}({y}) in place of the derivative {slope}", lambda g, y, x, op, s: g * op.forward(y)),
    (2.0, "divides by the derivative {slope}", lambda g, y, x, op, s: g / s),
    (2.0, "has the derivative {slope} where the argument is negative", lambda g, y, x, op, s: g * (x < 0)),
    (2.0, "has 1 where its result is not 0, in place of the derivative {slope}", lambda g, y, x, op, s: g * (y != 0)),
]


@kind
def local_derivative(tape: Tape, given: dict) -> Iterator[tuple]:
    """The derivative of an activation: missing, of another function, at another value; at one place or at several."""
    sites = unary(tape)
    several = [some for n in range(2, min(len(sites), 6) + 1) for some in itertools.combinations(sites, n)]
    names = groups(sites, lambda edges: tape.steps[edges[0].consumer].op.name)
    kinds = [tuple(some) for some in names.values() if len(some) > 1] + [tuple(sites)]
    for some in [*[(site,) for site in sites], *(several if len(several) <= 64 else kinds)]:
        first = some[0][0]
        ops = list(dict.fromkeys(tape.steps[site[0].consumer].op.name for site in some))
        ys, x = [tape.say(site[0].consumer) for site in some], tape.say(first.x)
        y = ys[0]
        for cost, text, how in DERIVATIVES[:None if len(some) == 1 or tuple(some) in kinds else 1]:
            slope = SLOPE_TEXT.get(ops[0], "{op}′({x})").format(y=y, x=x, op=ops[0])
            said = text.format(op=" or ".join(ops), slope=slope, y=y, x=x)
            replaced = {}
            for e in (e for site in some for e in site):
                replaced[e.contribution] = slope_change(tape, e, how)
            subject = d(y) if y.isidentifier() else f"the step from {y} to {x}"
            if len(some) > 1:
                subject = "each of " + ", ".join(map(d, ys))
            yield cost + 0.05 * len(some), f"{subject} {said}", replaced, first.consumer, *ys, x


def slope_change(tape: Tape, e: Edge, how: Callable) -> Replacement:
    step, total = tape.steps[e.consumer], tape.totals[e.consumer]
    vjp = step.op.vjps[0]

    def replacement(value: Callable) -> Any:
        y, x = value(e.consumer), value(e.x)
        s = vjp.plain(np.ones_like(y), y, (x,), step.metadata)
        return how(value(total), y, x, step.op, s)
    return replacement


@kind
def copied_line(tape: Tape, given: dict) -> Iterator[tuple]:
    """The gradient before one activation is that before another: a line copied, the name not changed."""
    for a, b in itertools.permutations(unary(tape), 2):
        twins = {tape.steps[e.consumer].time: e for e in b}
        if np.shape(tape.steps[a[0].x].example) != np.shape(tape.steps[b[0].x].example) or \
                not all(tape.steps[e.consumer].time in twins for e in a):
            continue
        pairs = {e.contribution: twins[tape.steps[e.consumer].time].contribution for e in a}
        ya, yb = tape.say(a[0].consumer), tape.say(b[0].consumer)
        yield (2.1, f"{d(ya)} is a copy of {d(yb)}: the name is not changed",
               {c: (lambda value, twin=twin: value(twin)) for c, twin in pairs.items()}, a[0].consumer, ya, yb)


# -- inside of a rule ------------------------------------------------------------------------------------------------


def rule_sites(tape: Tape) -> list[list[int]]:
    """The steps of the rules: one group for a place of the code, an input and a place in the rule, at all times."""
    steps = tape.steps
    rules = [i for i, step in enumerate(steps) if step.kind == "rule" and step.place is None]
    return list(groups(rules, lambda i: (steps[steps[i].of].place, steps[i].position, steps[i].number_in)).values())


def rule_words(tape: Tape, i: int, depth: int = 3) -> str:
    """A step of the backward in words: names of the forward, `d…` for gradients."""
    step = tape.steps[i]
    if step.kind == "total":
        return d(tape.say(step.of))
    if step.kind == "contribution":
        return rule_words(tape, step.inputs[0], depth)
    if step.kind != "rule":
        return tape.say(i)
    if depth < 0:
        return "…"
    inputs = [rule_words(tape, x, depth - 1) for x in step.inputs]
    if step.op.infix and len(inputs) == 2:
        if inputs[0] == inputs[1] and step.op.infix == "*":
            return f"{inputs[0]}²"
        sign = {"*": " ", "-": " − "}.get(step.op.infix, f" {step.op.infix} ")
        return sign.join(x if len(x.split()) == 1 else f"({x})" for x in inputs)
    if step.op.name in ("getitem", "reshape", "broadcast_to", "transpose"):
        return inputs[0] + (".T" if step.op.name == "transpose" else "")
    return f"{step.op.name}({', '.join(inputs)})"


def operand_words(tape: Tape, i: int, consumer: int) -> str:
    """An operand of a consumer's rule in words; a state of the step before is called so."""
    before = is_before(tape, i, consumer)
    return rule_words(tape, i) if before is None else f"{tape.say(before)} of the step before"


def between(y: str, x: str) -> str:
    """Where a path of the backward lies: it leads from the gradient of y to that of x."""
    return f"between {d(y)} and {d(x)}"


def goal(tape: Tape, i: int) -> tuple[str, str]:
    """Where the rule of a step leads: the consumer's name and that of the input it is the gradient of."""
    step = tape.steps[i]
    inputs = tape.steps[step.of].inputs
    return tape.say(step.of), tape.say(inputs[step.position or 0])


@kind
def inner_term(tape: Tape, given: dict) -> Iterator[tuple]:
    """One op of a rule: an operand left out, a sign turned, a transpose or a sum left out."""
    for site in rule_sites(tape):
        step = tape.steps[site[0]]
        name, inputs = step.op.name, step.inputs
        if any(isinstance(tape.steps[i].example, tuple) for i in (site[0], *inputs)):
            continue
        y, x = goal(tape, site[0])
        where = between(y, x)
        if name in ("multiply", "divide", "add", "subtract") and len(inputs) == 2:
            a, b = (operand_words(tape, k, step.of) for k in inputs)
            for k in (0, 1):
                left = (a, b)[1 - k]
                if name == "divide" and k == 1:
                    continue
                word = {"multiply": "factor", "divide": "division by", "add": "term", "subtract": "term"}[name]
                sign = -1 if name == "subtract" and k == 1 else 1
                yield (1.5, f"the {word} {left} is missing {where}" if word != "term" or left.isidentifier()
                       else f"the term ({left}) is missing {where}",
                       each_rule(tape, site, lambda op, v, k=k, sign=sign: sign * v[k]), step.of, x, y)
            other = {"multiply": (" / ", OPS["divide"]), "divide": (" ", OPS["multiply"]),
                     "add": (" − ", OPS["subtract"]), "subtract": (" + ", OPS["add"])}[name]
            yield (1.9, f"{a}{other[0]}{b} in place of {rule_words(tape, site[0])} {where}",
                   each_rule(tape, site, lambda op, v, other=other: other[1].forward(*v)), step.of, x, y)
            if name == "subtract":
                yield (1.9, f"{b} − {a} in place of {a} − {b} {where}: the sign",
                       each_rule(tape, site, lambda op, v: v[1] - v[0]), step.of, x, y)
        if name == "transpose" and np.shape(step.example) == np.shape(tape.steps[inputs[0]].example):
            yield (1.2, f"{rule_words(tape, inputs[0])} is not transposed {where}",
                   each_rule(tape, site, lambda op, v: v[0]), step.of, x, y)
        small = min(np.shape(step.example), default=0)
        if name == "transpose" and np.ndim(step.example) == 2 and small > 1:  # of a part of a fused matrix
            for part, word in ((slice(small), "first"), (slice(-small, None), "last")):
                yield (1.6, f"the {word} {small} columns of {rule_words(tape, inputs[0])} are not transposed {where}",
                       each_rule(tape, site, lambda op, v, part=part: with_block(op(v), part)), step.of, x, y)
        if name == "scatter" and any(isinstance(i, np.ndarray) and i.dtype != bool for i in step.metadata["index"]):
            yield (1.5, f"{d(x)} is assigned by index, and not added: an entry that is read twice keeps the last of "
                   "its gradients (np.add.at adds them)", each_rule(tape, site, assigned(step)), step.of, x, y)
        if name == "sum":
            yield (1.9, f"the sum {rule_words(tape, site[0])} is missing {where}",
                   each_rule(tape, site, lambda op, v: v[0]), step.of, x, y)
            yield (1.9, f"{rule_words(tape, site[0])} is a mean, not a sum, {where}",
                   each_rule(tape, site, lambda op, v: op(v) * (np.size(op(v)) / np.size(v[0]))), step.of, x, y)
        if name == "negative":
            yield 1.6, f"the sign is turned {where}", each_rule(tape, site, lambda op, v: v[0]), step.of, x, y


def with_block(transposed: Any, part: slice) -> Any:
    """A transposed matrix with a square part of it transposed again."""
    out = np.array(transposed)
    index = (part, slice(None)) if out.shape[0] > out.shape[1] else (slice(None), part)
    out[index] = out[index].T
    return out


def assigned(step: Any) -> Callable:
    def how(op: Callable, v: list) -> Any:
        out = np.zeros(step.metadata["shape"])
        out[step.metadata["index"]] = v[0]
        return out
    return how


def each_rule(tape: Tape, site: list[int], how: Callable) -> dict[int, Replacement]:
    """Replace each step of a rule's site by how(the op itself, the values of its inputs)."""
    def one(i: int) -> Replacement:
        step = tape.steps[i]
        return lambda value: how(lambda v: step.op.forward(*v, **step.metadata), [value(x) for x in step.inputs])
    return {i: one(i) for i in site}


@kind
def other_value(tape: Tape, given: dict) -> Iterator[tuple]:
    """Another value of the same shape where a rule reads one: another name, or the same at a neighbouring step."""
    steps, first = tape.steps, first_states(tape)
    rules = groups((i for i, s in enumerate(steps) if s.kind == "rule"), lambda i: (steps[i].of, steps[i].position))
    spots = groups(rules, lambda key: (steps[key[0]].place, key[1]))
    arrays = [i for i, s in enumerate(steps) if s.kind in ("leaf", "forward", "constant")
              and not isinstance(s.example, tuple) and np.ndim(s.example)]
    by_shape = groups(arrays, lambda i: np.shape(steps[i].example))
    for rule_keys in spots.values():
        reading = [(i, x) for i in rules[rule_keys[0]] for x in steps[i].inputs
                   if steps[x].kind in ("leaf", "forward", "constant") and np.ndim(steps[x].example)]
        for own in dict.fromkeys(x for _, x in reading):
            once = [number for i, x in reading if x == own for number in [steps[i].number_in]]
            which = [None] if len(once) == 1 else [None, *once]
            choices = substitutes(tape, own, by_shape[np.shape(steps[own].example)], len(rule_keys))
            y, x = goal(tape, rules[rule_keys[0]][0])
            meant = operand_words(tape, own, rule_keys[0][0])
            for (cost, said, at, f), occurrence in itertools.product(choices, which):
                replaced = {}
                for key in rule_keys:
                    of_time = steps[key[0]].time
                    for i in rules[key]:
                        for p, operand in enumerate(steps[i].inputs):
                            if same_role(tape, operand, own) and occurrence in (None, steps[i].number_in):
                                replaced[i] = substituted(tape, i, p if occurrence is not None else None, operand,
                                                          at(of_time, operand, first), f)
                yield (cost + (0.5 if occurrence is not None else 0),
                       f"{said} is used where {meant} is meant, {between(y, x)}",
                       replaced, steps[rule_keys[0][0]].of if steps[rule_keys[0][0]].of >= 0 else rule_keys[0][0], x, y)


def is_before(tape: Tape, own: int, consumer: int) -> int | None:
    """A step of the state whose value before the consumer's step is what the rule reads as `own`; else None."""
    for place, start in first_states(tape).items():
        if own == start and tape.steps[consumer].time == 0:
            return tape.calls[place][0]
    step = tape.steps[own]
    return own if step.kind == "forward" and len(tape.calls[step.place]) > 1 \
        and step.time < tape.steps[consumer].time else None


def same_role(tape: Tape, a: int, b: int) -> bool:
    """Whether two steps are the same value of the code at two times; an initial state is the state before step 0."""
    A, B = tape.steps[a], tape.steps[b]
    return a == b or (A.place is not None and A.place == B.place) or (
        A.kind != "rule" and B.kind != "rule" and {a, b} & set(first_states(tape).values()) != set()
        and (first_states(tape).get(B.place) == a or first_states(tape).get(A.place) == b))


def first_states(tape: Tape) -> dict[Any, int]:
    """For the place of a state, the step that is its value before the first step of time."""
    if not hasattr(tape, "first"):
        tape.first = {}
        for e in tape.edges:
            if e.contribution in tape.carries:
                tape.first[tape.steps[e.x].place] = tape.steps[tape.calls[tape.steps[e.consumer].place][0]].inputs[
                    e.position]
    return tape.first


FUNCTIONS = [(0.4, "tanh({})", np.tanh), (0.4, "sigmoid({})", OPS["sigmoid"].forward),
             (0.5, "1 − {}", lambda v: 1 - v), (0.5, "1 + {}", lambda v: 1 + v),
             (0.5, "{}²", lambda v: v * v), (0.6, "1 − {}²", lambda v: 1 - v * v), (0.5, "−{}", lambda v: -v)]


def substitutes(tape: Tape, own: int, candidates: list[int], count: int) -> Iterator[tuple]:
    """(cost, words, the step to read as a function of time, a function of its value)"""
    steps = tape.steps
    for some in groups(candidates, lambda i: steps[i].place or i).values():
        name = tape.say(some[0])
        at_time = {steps[i].time: i for i in some}
        named = 0 if steps[some[0]].name else 0.4
        looping = len(some) > 1 or steps[some[0]].place in first_states(tape)
        same = same_role(tape, some[0], own)
        for offset in (0, -1, 1) if looping and len(tape.calls.get(steps[some[0]].place, ())) > 1 else (0,):
            def at(time: int, operand: int, first: dict, some: Any = some, at_time: Any = at_time,
                   offset: int = offset) -> int | None:
                if len(some) == 1:
                    return some[0]
                start = first.get(steps[some[0]].place)
                return start if time + offset == -1 and start is not None else at_time.get(time + offset)
            shift = {0: "", -1: " of the step before", 1: " of the step after"}[offset]
            if some[0] != own or looping or count > 1:
                yield 2.4 + named + 0.2 * abs(offset), name + shift, at, None
            if offset == 0 or same:
                for cost, text, f in FUNCTIONS:
                    yield 2.4 + named + cost + 0.2 * abs(offset), text.format(name) + shift, at, f


def substituted(tape: Tape, i: int, position: int | None, operand: int, other: int | None, f: Any) -> Replacement:
    step = tape.steps[i]

    def replacement(value: Callable) -> Any:
        new = np.zeros_like(value(operand)) if other is None else value(other)
        new = new if f is None else f(new)
        if position is None:
            return step.op.forward(*[new if x == operand else value(x) for x in step.inputs], **step.metadata)
        return step.op.forward(*[new if p == position else value(x) for p, x in enumerate(step.inputs)],
                               **step.metadata)
    return replacement


@kind
def other_order(tape: Tape, given: dict) -> Iterator[tuple]:
    """The parts of a concatenation, or the blocks of a fused array, taken in another order."""
    steps = tape.steps
    for edges in groups(tape.edges, lambda e: e.consumer).values():  # parts of a concatenation
        step = steps[edges[0].consumer]
        if not (step.op and step.op.variadic and 1 < len(edges) < 5) or "axis" not in step.metadata \
                or step.metadata["axis"] is None or (len(tape.calls[step.place]) > 1 and steps[edges[0].consumer].time):
            continue
        if len({tape.say(e.x) for e in edges}) < len(edges):
            continue
        axis, consumers = step.metadata["axis"], tape.calls[step.place]
        names = [tape.say(e.x) for e in edges]
        for order in list(itertools.permutations(range(len(edges))))[1:]:
            lengths = [np.shape(steps[edges[k].x].example)[axis] for k in order]
            starts = dict(zip(order, np.cumsum([0, *lengths[:-1]])))
            replaced = {}
            for e in (e for c in consumers for e in tape.edges if e.consumer == c):
                if e.position < len(edges):
                    start = starts[e.position]
                    replaced[e.contribution] = part_of(tape, e, axis, start)
            yield (2.0, f"the parts of {d(tape.say(edges[0].consumer))} are taken in the order "
                   f"{', '.join(names[k] for k in order)} in place of {', '.join(names)}", replaced,
                   edges[0].consumer, *names)
    for some in groups(slots(tape), lambda edges: (steps[edges[0].x].place or edges[0].x, steps[edges[0].consumer].op,
                                                   np.shape(steps[edges[0].consumer].example))).values():
        if not (1 < len(some) < 5 and steps[some[0][0].consumer].op.name == "getitem"):
            continue
        if len({len(edges) for edges in some}) > 1 or isinstance(steps[some[0][0].consumer].example, tuple):
            continue
        users = [user_name(tape, edges[0].consumer) for edges in some]
        for order in list(itertools.permutations(range(len(some))))[1:]:
            replaced = {}
            for k, edges in enumerate(some):
                for e, other in zip(edges, some[order[k]]):
                    if order[k] != k:
                        replaced[e.contribution] = block_of(tape, e, other)
            off = [k for k in range(len(some)) if order[k] != k]
            yield (1.5 + 0.1 * len(off), f"in {d(tape.say(some[0][0].x))} the block of " + ", ".join(
                f"{users[k]} has the gradient of {users[order[k]]}" for k in off), replaced, some[0][0].consumer,
                tape.say(some[0][0].x))


def part_of(tape: Tape, e: Edge, axis: int, start: int) -> Replacement:
    length = np.shape(tape.steps[e.x].example)[axis]
    return lambda value: np.take(value(tape.totals[e.consumer]), range(start, start + length), axis)


def block_of(tape: Tape, e: Edge, other: Edge) -> Replacement:
    vjp, step = tape.steps[e.consumer].op.vjps[0], tape.steps[e.consumer]
    return lambda value: vjp.plain(value(tape.totals[other.consumer]), None, (value(e.x),), step.metadata)


def user_name(tape: Tape, i: int) -> str:
    """The name of what a block of a fused array is used for: the first named result of it."""
    while tape.steps[i].name is None:
        users = [e.consumer for e in tape.edges if e.x == i]
        if len(users) != 1:
            break
        i = users[0]
    return tape.say(i)


@kind
def other_gradient(tape: Tape, given: dict) -> Iterator[tuple]:
    """The gradient of another value where a rule reads that of its own result, or in place of a whole path."""
    steps = tape.steps
    arriving = [(i, f"the arriving {d(tape.say(steps[i].of))}", {0: i}) for i in tape.seeds
                if len(steps[tape.totals[steps[i].of]].inputs) > 1]
    totals = [(tape.totals[calls[0]], d(tape.say(calls[0])), {steps[c].time: tape.totals[c] for c in calls
              if c in tape.totals}) for calls in tape.calls.values() if calls[0] in tape.totals]
    for edges, _ in bundles(tape):
        e = edges[0]
        if isinstance(steps[e.consumer].example, tuple) or isinstance(steps[e.x].example, tuple):
            continue
        y, x = words(tape, e)
        for i, name, at in [*arriving, *totals]:
            shape = np.shape(steps[i].example)
            chosen = {e.contribution: (at.get(steps[e.consumer].time) if len(at) > 1 else next(iter(at.values())))
                      for e in edges}
            if None in chosen.values() or i == tape.totals[e.consumer]:
                continue
            named = 0 if steps[steps[i].of].name else 0.5
            if shape == np.shape(steps[e.consumer].example):
                replaced = {}
                for r, step in ((r, step) for r, step in enumerate(steps) if step.kind == "rule"):
                    for edge in edges:
                        if step.of == edge.consumer and step.position == edge.position and \
                                tape.totals[edge.consumer] in step.inputs:
                            replaced[r] = substituted(tape, r, None, tape.totals[edge.consumer],
                                                      chosen[edge.contribution], None)
                yield (2.3 + named, f"{name} is used where {d(y)} is meant, {between(y, x)}", replaced,
                       e.consumer, x, y)
            if shape == np.shape(steps[e.x].example) and i != tape.totals.get(e.x):
                yield (2.6 + named, f"{name} stands for the path from {y} to {x}",
                       {c: (lambda value, v=v: value(v)) for c, v in chosen.items()}, e.consumer, x, y)


@kind
def not_cut(tape: Tape, given: dict) -> Iterator[tuple]:
    """A path that detach cuts in the forward is gone back along."""
    for edges in slots(tape):
        if tape.steps[edges[0].contribution].metadata == "cut":
            x = tape.say(edges[0].x)
            yield (1.0, f"{d(x)} goes back through a detach: the forward cuts this path (a truncated sequence)",
                   {e.contribution: (lambda value, i=tape.steps[e.contribution].inputs[0]: value(i)) for e in edges},
                   edges[0].consumer, x)


@kind
def extra_factor(tape: Tape, given: dict) -> Iterator[tuple]:
    """A value too much on one path, as a factor or a divisor."""
    steps = tape.steps
    for edges, _ in bundles(tape):
        y, x = words(tape, edges[0])
        shape = np.shape(steps[edges[0].x].example)
        if isinstance(steps[edges[0].x].example, tuple):
            continue
        for some in tape.calls.values():
            example = steps[some[0]].example
            if isinstance(example, tuple) or not np.ndim(example) or not fits(np.shape(example), shape) \
                    or not steps[some[0]].name:
                continue
            times = {steps[i].time: i for i in some}
            name = tape.say(some[0])
            chosen = {e.contribution: times.get(steps[e.consumer].time) if len(some) > 1 else some[0] for e in edges}
            if None in chosen.values():
                continue
            for cost, text, f in ((2.6, f"a factor {name} too much", lambda g, v: g * v),
                                  (2.9, f"a division by {name} too much", lambda g, v: g / v),
                                  (2.8, f"a factor 1 − {name} too much", lambda g, v: g * (1 - v)),
                                  (2.8, f"a factor 1 − {name}² too much", lambda g, v: g * (1 - v * v))):
                yield (cost, f"the path from {y} to {x} has {text}",
                       {c: (lambda value, c=c, v=v, f=f: f(value.without_change(c), value(v)))
                        for c, v in chosen.items()}, edges[0].consumer, x, y)


def fits(small: tuple, shape: tuple) -> bool:
    return len(small) <= len(shape) and all(n in (1, m) for n, m in zip(small[::-1], shape[::-1]))


@kind
def arriving(tape: Tape, given: dict) -> Iterator[tuple]:
    """The gradient that arrives at an output: not used, or taken as 1."""
    for seed in tape.seeds:
        y = tape.say(tape.steps[seed].of)
        for text, k in (("not used", 0), ("taken as 1", 1)):
            yield (1.3, f"the arriving {d(y)} is {text}",
                   {seed: lambda value, s=seed, k=k: 0 * value.base(s) + k}, tape.steps[seed].of, y)
