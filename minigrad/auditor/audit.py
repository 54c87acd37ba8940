"""`mg.audit`: run the user's backward beside the derived one, and say which change of the derivation it is."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.auditor.change import Change
from minigrad.auditor.lines import Binding, bindings, line_of, line_that_assigns, quoted
from minigrad.auditor.record import Step
from minigrad.auditor.report import AuditReport, Cause
from minigrad.auditor.search import Search
from minigrad.auditor.sizes import notes_on_sizes, other_inputs
from minigrad.auditor.tape import Draw, Tape, bits
from minigrad.auditor.words import say
from minigrad.engine.messages import in_one_sentence
from minigrad.engine.pytree import flatten, map_leaves, named_leaves, unflatten

TOLERANCE, TOLERANCE_FLOAT32 = 1e-7, 1e-4  # relative to the largest entry
OTHER_INPUTS = 2  # where a cause is confirmed


def audit(forward: Callable, backward: Callable, *inputs: Any, names: dict[str, str] | None = None,
          seed: int = 0, other_sizes: bool = True, hints: Sequence[tuple] = ()) -> AuditReport:
    """Which gradients of a hand-written backward are wrong, and which fault explains them?

    forward(*inputs) is the function, written with minigrad's or NumPy's functions, that can be traced as by `derive`.
    backward(d_outputs, *inputs) returns its gradients: a dict {"dWf": array, …}, a tuple in the order of the inputs,
    or any nesting of the inputs. d_outputs is nested as what forward returns.

    Of floats among the inputs only the shapes matter (integers stay): the audit draws its own values, none of them
    zero. Where the functions run at other sizes, it makes equal lengths of independent axes different, and a sequence 3
    steps or longer, because faults hide there. Where they do not, a note says which lengths are equal.
    names  {key of a gradient: name of an input}, where they cannot be told from each other ("dxt" is that of x_t)
    other_sizes  False: only the given sizes are tried
    hints  the `keys` of causes that were found at other sizes: each is tried together with another fault

    A cause is reported only if it gives the user's wrong gradients entry by entry, at three inputs, and makes no right
    one wrong. Raises TraceError where forward cannot be traced, and what backward raises.
    """
    tape, given, keys, report = run(forward, backward, inputs, names or {}, np.random.default_rng(seed),
                                    other_sizes)
    singles = [leaf for leaf in given[0] if all(is_single(draw[leaf]) for draw in given)]
    if singles:
        others = [leaf for leaf in given[0] if leaf not in singles and np.any(given[0][leaf])]
        which = f"{', '.join(keys[leaf] for leaf in singles)} computed" if others else "computed"
        report.note(f"{which} in float32, and judged to its digits")
    search = Search(tape, [{leaf: g.astype(float) for leaf, g in draw.items()} for draw in given],
                    {leaf: TOLERANCE_FLOAT32 if leaf in singles else TOLERANCE for leaf in given[0]}, hints)
    report.right = [keys[leaf] for leaf in search.leaves if leaf in search.right]
    report.wrong = {keys[leaf]: error(search, leaf) for leaf in search.wrong}
    report.unexplained = [keys[leaf] for leaf in search.run()]
    report.notes += search.narrowed()
    report.causes = list(causes_of(tape, search.causes, keys, backward)) if search.causes else []
    if report.causes and not tape.carried:  # a loop over time is unrolled, and its lines are not the user's
        report.add_derived_lines(forward, inputs)
    return report


def run(forward: Callable, backward: Callable, inputs: tuple, names: dict[str, str], rng: np.random.Generator,
        other_sizes: bool) -> tuple[Tape, list[dict], dict, AuditReport]:
    """The tape, the user's gradients and their names, at sizes that hide nothing, or at the given ones with notes."""
    tape, problem = Tape(forward, inputs, rng), ""
    if not tape.leaves:
        raise ValueError("nothing to audit: no result of forward depends on a float among the inputs; pass arrays of "
                         "floats, and return what is computed from them")
    for some in other_inputs(tape, forward) if other_sizes else ():
        with contextlib.suppress(Exception):  # sizes that are fixed in the forward
            other, report = Tape(forward, some, rng), AuditReport()
            now = {leaf: step.shape for leaf, step in other.leaves.items()}
            problem = "note: it is not judged at other lengths: with " + ", ".join(
                f"{leaf} {now[leaf]}" for leaf, step in tape.leaves.items() if now[leaf] != step.shape)
            try:
                given, keys = gradients(other, backward, names, report)
                problems = [f"{keys[leaf]} has the shape {g.shape}" for leaf, g in given[0].items()
                            if g.shape != now[leaf]]
            except Exception as failure:
                problems = [f"backward fails: {in_one_sentence(failure)}"]
            if not problems:
                return other, given, keys, report
            problem += f" {', '.join(problems)}"
    report = AuditReport()
    given, keys = gradients(tape, backward, names, report)
    report.notes += [*notes_on_sizes(tape, forward), *filter(None, [problem])] if other_sizes else []
    return tape, given, keys, report


def gradients(tape: Tape, backward: Callable, names: dict[str, str], report: AuditReport) -> tuple[list[dict], dict]:
    """The user's gradients by leaf at three draws, and what the user calls them. What is seen becomes a note."""
    for _ in range(OTHER_INPUTS):
        tape.add_draw()
    found = [named_gradients(tape, call(backward, draw, tape, report), names) for draw in tape.draws]
    first, keys = found[0]
    numbers = [leaf for leaf in first if all(leaf in draw and draw[leaf].dtype.kind in "fiub" for draw, _ in found)]
    report.note("{} are not arrays of real numbers", [keys[leaf] for leaf in first if leaf not in numbers])
    given = [{leaf: draw[leaf] for leaf in numbers} for draw, _ in found]
    report.missing = [keys[leaf] for leaf in tape.leaves if leaf not in given[0]]
    report.note("{} contain nan or inf", [keys[leaf] for leaf, g in given[0].items() if not np.isfinite(g).all()])
    report.note("{} are the same for other arguments: backward reads its values from elsewhere, as from global "
                "variables", [keys[leaf] for leaf, g in given[0].items() if np.any(g)
                              and np.array_equal(g, given[1][leaf])])
    return given, keys


def is_single(g: Any) -> bool:
    """Whether an array has digits, and none beyond those of float32."""
    return bool(np.array_equal(g, g.astype(np.float32)) and np.any(g != np.round(g, 3)))


def call(backward: Callable, draw: Draw, tape: Tape, report: AuditReport) -> Any:
    """The user's gradients at one draw; what it does to its arguments becomes a note."""
    def fresh() -> tuple:
        return map_leaves(np.array, (draw.d_outputs, *unflatten(tape.pattern, draw.inputs)))
    arguments = fresh()
    result = backward(*arguments)
    changed = [not np.array_equal(x, y) for x, y in zip(flatten(arguments)[0], flatten(fresh())[0])]
    for label, is_changed in zip(tape.labels, changed[-len(tape.labels):]):
        report.note("backward changes its argument {} in place", [label] * is_changed)
    report.note("backward changes {} in place", ["d_outputs"] * any(changed[:-len(tape.labels)]))
    result = map_leaves(lambda x: np.array(x) if not isinstance(x, (str, bool)) else x, result)
    again = flatten(backward(*fresh()))[0]
    if any(isinstance(x, np.ndarray) and not np.array_equal(x, np.asarray(y), equal_nan=x.dtype.kind in "fc")
           for x, y in zip(flatten(result)[0], again)):
        report.note("called twice with the same arguments, backward gives two answers: it keeps state between the "
                    "calls, which must start from zero")
    return result


def named_gradients(tape: Tape, result: Any, names: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """{leaf: the user's gradient} and {leaf: what the user calls it}."""
    keys, pairs = {leaf: f"d{leaf}" for leaf in tape.leaves}, named_leaves(result)
    if all(re.fullmatch(r"(\[\d+\])*", path) for path, _ in pairs):  # without names, in the order of the inputs
        values = with_none(result)
        labels = [tape.labels[i] for i in (range(len(tape.labels)) if len(values) == len(tape.labels) else tape.floats)]
        if result is not None and len(values) != len(labels):
            raise ValueError(f"backward returned {len(values)} gradients and forward has {len(labels)} inputs: return "
                             "one for each input, in their order, or a dict such as {'dW': …}")
        return {leaf: np.asarray(x) for leaf, x in zip(labels, values) if leaf in keys and x is not None}, keys
    found: dict[str, Any] = {}
    scores = [(likeness(path, x, step, names, keys), path, x, leaf) for path, x in pairs
              for leaf, step in tape.leaves.items()]
    used = set()
    for score, path, x, leaf in sorted(scores, key=lambda entry: -entry[0]):
        if score > 0.85 and path not in used and leaf not in found:
            used.add(path)
            found[leaf], keys[leaf] = np.asarray(x), path.rsplit(".", 1)[-1]
    return found, keys


def likeness(path: str, x: Any, step: Step, names: dict[str, str], leaves: Iterable[str]) -> float:
    """How well the name and the shape of a gradient fit an input."""
    key = path.rsplit(".", 1)[-1]
    if key in names or path in names:
        return 9.0 * (names.get(key, names.get(path)) == step.name)
    bare = key[1:] if key[:1] == "d" and key not in leaves else key
    one, other = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in (bare, step.name))
    return (difflib.SequenceMatcher(None, one, other).ratio() + (step.name in (bare, key))
            + 0.3 * (np.shape(x) == step.shape))


def with_none(tree: Any) -> list:
    """The leaves of a nesting of tuples and lists, with None as a leaf."""
    return [leaf for child in tree for leaf in with_none(child)] if isinstance(tree, (tuple, list)) else [tree]


def error(search: Search, leaf: str) -> float:
    """The largest error relative to the gradient's largest entry; inf for another shape."""
    true, given = search.tape.true(leaf), search.given[0][leaf]
    if true.shape != given.shape:
        return float("inf")
    return float(np.abs(true - given).max() / (np.abs(true).max() or 1.0))


def causes_of(tape: Tape, changes: list[Change], keys: dict[str, str], backward: Callable) -> Iterator[Cause]:
    """The causes, with the line of the forward, and the first of the user's that makes a value which only it gives."""
    function = inspect.unwrap(backward)
    bound: list[Binding] = []
    file = function.__code__.co_filename if hasattr(function, "__code__") else ""
    tape.add_draw(is_plain=True)  # a loss and its gradients in one function take 1 for what arrives
    draw = tape.draws.pop()
    if file:
        arguments = map_leaves(np.array, (draw.d_outputs, *unflatten(tape.pattern, draw.inputs)))
        _, bound = bindings(lambda: backward(*arguments), file, getattr(backward, "passed_over", ()))
    known: tuple[list, list] = [], []  # the values of the forward, and the true gradients
    for step, value in zip(tape.steps, draw.values):
        known[step.kind in ("seed", "rule", "edge", "total")].append(value)
    for change in changes:
        where = None if change.whole else change.where
        names = [say(where.x), say(where.of)] if where else change.explains
        ends = [("edge", where.of.place), ("total", where.of.place), ("total", where.x.place)] if where else []
        values = values_behind(tape, change, draw.values)
        near = [value for step, value in values if not where or (step.kind, step.of.place) in ends]
        line = line_of(bound, near, [value for _, value in values], known, names) or (
            line_that_assigns(function, [*names, *change.explains]) if file else None)
        forward_line = change.where and change.where.of.line
        yield Cause(str(change), change.kind, [keys[leaf] for leaf in change.explains], change.also,
                    quoted(*forward_line) if forward_line else None, quoted(file, line) if line else None, OTHER_INPUTS,
                    keys=tuple(part.key for part in change.parts or (change,)))


def values_behind(tape: Tape, change: Change, values: list) -> list[tuple[Step, Any]]:
    """The steps behind a change and their values; without the leaves, if it is on some paths only."""
    found, leaves = [], [step.total for step in tape.leaves.values()] if change.whole else []
    for one in filter(None, (change, change.whole)):
        now = tape.replay(tape.accepted | one.replaced, values)
        found += [(tape.steps[i], now[i]) for i in bits(tape.behind(one.replaced))]
    return [(step, value) for step, value in found if step.shape and step not in leaves]
