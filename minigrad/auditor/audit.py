"""`mg.audit`: run the user's backward beside the derived one, and say which change of the derivation it is."""

from __future__ import annotations

import difflib
import inspect
import linecache
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.auditor.change import Change
from minigrad.auditor.report import AuditReport, Cause
from minigrad.auditor.search import Search
from minigrad.auditor.sizes import notes_on_sizes
from minigrad.auditor.tape import Tape
from minigrad.engine.pytree import flatten, map_leaves, named_leaves, unflatten

TOLERANCE, TOLERANCE_FLOAT32 = 1e-7, 1e-4  # relative to the largest entry
OTHER_INPUTS = 2  # where a cause is confirmed


def audit(forward: Callable, backward: Callable, *inputs: Any, names: dict[str, str] | None = None,
          seed: int = 0) -> AuditReport:
    """Which gradients of a hand-written backward are wrong, and which fault explains them?

    forward(*inputs) is the function, written with minigrad's or NumPy's functions, that can be traced as by `derive`.
    backward(d_outputs, *inputs) returns its gradients: a dict {"dWf": array, …}, a tuple in the order of the inputs,
    or any nesting of the inputs. d_outputs is nested as what forward returns.

    Of floats among the inputs only the shapes matter (integers stay): the audit draws its own values, none of them
    zero. Give every axis another length, and a sequence 3 steps or more: faults hide where lengths are equal, and a
    note says where they are.
    names  {key of a gradient: name of an input}, where they cannot be told from each other ("dxt" is that of x_t)

    A cause is reported only if it gives the user's wrong gradients entry by entry, at three inputs, and makes no right
    one wrong. Raises TraceError where forward cannot be traced, and what backward raises.
    """
    tape = Tape(forward, inputs, np.random.default_rng(seed))
    if not tape.leaves:
        raise ValueError("nothing to audit: no result of forward depends on a float among the inputs; pass arrays of "
                         "floats, and return what is computed from them")
    for _ in range(OTHER_INPUTS):
        tape.add_draw()
    report = AuditReport()
    given: list[dict[str, Any]] = []
    keys: dict[str, str] = {}
    for _, d_outputs, leaves in tape.draws:
        found, keys = named_gradients(tape, call(backward, d_outputs, tape, leaves, report), names or {})
        strange = [keys[leaf] for leaf, g in found.items() if g.dtype.kind not in "fiub"]
        if strange:
            note(report, f"note: {', '.join(strange)} are not arrays of real numbers")
        given.append({leaf: g for leaf, g in found.items() if g.dtype.kind in "fiub"})
    report.missing = [f"d{leaf}" for leaf in tape.leaves if leaf not in given[0]]
    for found in given[1:]:
        report.missing += [keys[leaf] for leaf in given[0] if leaf not in found]
    notes_on_values(tape, given, keys, report)
    is_single = all(np.array_equal(g, g.astype(np.float32)) for draw in given for g in draw.values()) and any(
        np.any(g != np.round(g, 3)) for g in given[0].values())
    if is_single:
        report.notes.append("note: computed in float32, and judged to its digits")
    given = [{leaf: g.astype(float) for leaf, g in draw.items()} for draw in given]
    search = Search(tape, given, dict.fromkeys(tape.leaves, TOLERANCE_FLOAT32 if is_single else TOLERANCE))
    report.notes += notes_on_sizes(tape, forward)
    report.right = [keys[leaf] for leaf in search.leaves if leaf in search.right]
    report.wrong = {keys[leaf]: error(search, leaf) for leaf in search.wrong}
    report.unexplained = [keys[leaf] for leaf in search.run()]
    report.notes += search.narrowed()
    report.causes = [cause_of(tape, found, keys, backward) for found in search.causes]
    if report.causes and not tape.carried:  # a loop over time is unrolled, and its lines are not the user's
        report.add_derived_lines(forward, inputs)
    report.tried = search.tried
    return report


def call(backward: Callable, d_outputs: Any, tape: Tape, leaves: list, report: AuditReport) -> Any:
    """The user's gradients at one draw; what it does to its arguments becomes a note."""
    def fresh() -> tuple:
        return map_leaves(np.array, d_outputs), *map_leaves(np.array, unflatten(tape.pattern, leaves))
    arguments = fresh()
    result = backward(*arguments)
    changed = [not np.array_equal(x, old) for x, old in zip(flatten(arguments)[0], flatten(fresh())[0])]
    outputs = len(changed) - len(tape.labels)
    for label in [label for label, is_changed in zip(tape.labels, changed[outputs:]) if is_changed]:
        note(report, f"note: backward changes its argument {label} in place")
    if any(changed[:outputs]):
        note(report, "note: backward changes d_outputs in place")
    result = map_leaves(lambda x: np.array(x) if not isinstance(x, (str, bool)) else x, result)
    again = flatten(backward(*fresh()))[0]
    if any(isinstance(x, np.ndarray) and not np.array_equal(x, np.asarray(y), equal_nan=x.dtype.kind in "fc")
           for x, y in zip(flatten(result)[0], again)):
        note(report, "note: called twice with the same arguments, backward gives two answers: it keeps state between "
             "the calls, which must start from zero")
    return result


def note(report: AuditReport, text: str) -> None:
    if text not in report.notes:
        report.notes.append(text)


def named_gradients(tape: Tape, result: Any, names: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """{leaf: the user's gradient} and {leaf: what the user calls it}."""
    if result is None:
        return {}, {leaf: f"d{leaf}" for leaf in tape.leaves}
    plain = lambda k: re.sub(r"[^a-z0-9]", "", k.lower())  # noqa: E731
    pairs = named_leaves(result) if not isinstance(result, np.ndarray) else [("", result)]
    has_names = any(not re.fullmatch(r"(\[\d+\])*", key) for key, _ in pairs)
    if not has_names:
        values = with_none(result)
        labels = [tape.labels[i] for i in (range(len(tape.labels)) if len(values) == len(tape.labels) else tape.floats)]
        if len(values) != len(labels):
            raise ValueError(f"backward returned {len(values)} gradients and forward has {len(labels)} inputs: return "
                             "one for each input, in their order, or a dict such as {'dW': …}")
        found = {leaf: np.asarray(x) for leaf, x in zip(labels, values) if leaf in tape.leaves and x is not None}
        return found, {leaf: f"d{leaf}" for leaf in tape.leaves}
    found, keys = {}, {leaf: f"d{leaf}" for leaf in tape.leaves}
    scores = []
    for path, x in pairs:
        key = path.rsplit(".", 1)[-1]
        for leaf in tape.leaves:
            bare = key[1:] if key[:1] == "d" and key not in tape.leaves else key
            if names.get(key, names.get(path)) == leaf:
                score = 4.0
            elif key in names or path in names:
                continue
            elif bare == leaf or key == leaf:
                score = 3.0
            elif plain(bare) == plain(leaf):
                score = 2.0
            else:
                score = difflib.SequenceMatcher(None, plain(bare), plain(leaf)).ratio()
                score += 0.3 * (np.shape(x) == np.shape(tape.steps[tape.leaves[leaf]].example)) - 0.3
            if score > 0.55:
                scores.append((score, path, key, leaf, x))
    used = set()
    for _, path, key, leaf, x in sorted(scores, key=lambda entry: -entry[0]):
        if path not in used and leaf not in found:
            used.add(path)
            found[leaf], keys[leaf] = np.asarray(x), key
    return found, keys


def with_none(tree: Any) -> list:
    """The leaves of a nesting of tuples and lists, with None as a leaf."""
    if isinstance(tree, (tuple, list)):
        return [leaf for child in tree for leaf in with_none(child)]
    return [tree]


def notes_on_values(tape: Tape, given: list[dict], keys: dict, report: AuditReport) -> None:
    """Notes on NaN, and on gradients that do not depend on the arguments."""
    bad = [keys[leaf] for leaf, g in given[0].items() if not np.isfinite(g).all()]
    if bad:
        note(report, f"note: {', '.join(bad)} contain nan or inf")
    fixed = [keys[leaf] for leaf, g in given[0].items() if g.size and np.any(g) and leaf in given[1]
             and np.array_equal(g, given[1][leaf])]
    if fixed:
        report.notes.append(f"note: {', '.join(fixed)} are the same for other arguments: backward reads its values "
                            "from elsewhere, as from global variables")


def error(search: Search, leaf: str) -> float:
    """The largest error relative to the gradient's largest entry; inf for another shape."""
    true, given = search.tape.draws[0].values[search.tape.total(leaf)], search.given[0][leaf]
    if true.shape != given.shape:
        return float("inf")
    return float(np.abs(true - given).max() / (np.abs(true).max() or 1.0))


def cause_of(tape: Tape, change: Change, keys: dict[str, str], backward: Callable) -> Cause:
    edge, explains = change.edge, [keys[leaf] for leaf in change.explains]
    about, where = change.explains, None
    if edge is not None:
        step = tape.steps[edge.consumer]
        where = step.line and f"{step.line[0]}:{step.line[1]}: {linecache.getline(*step.line).strip()}"
        if not change.text.startswith("in {} only"):
            about = [tape.say(edge.x), tape.say(edge.consumer), *change.explains[:1]]
    return Cause(str(change), change.kind, explains, change.also, where, line_of(backward, about), OTHER_INPUTS)


def line_of(backward: Callable, names: Any) -> str | None:
    """The line of the user's backward that assigns one of these gradients, the first that is found."""
    try:
        lines, start = inspect.getsourcelines(inspect.unwrap(backward))
        file = inspect.getsourcefile(inspect.unwrap(backward))
    except (OSError, TypeError):
        return None
    for name in names:
        pattern = re.compile(rf"\bd_?{re.escape(name)}\b[^=(]*[-+*/]?=(?!=)")
        found = [(i, line) for i, line in enumerate(lines) if pattern.search(line.split("#")[0])
                 and not re.search(r"zeros|empty|None|=\s*(0|\[\])\s*$", line)]
        if found:
            i, line = found[0]
            return f"{file}:{start + i}: {line.strip()}"
    return None
