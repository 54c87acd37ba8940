"""Judge the hand-written backwards of a file: each step before the sequence that calls it."""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.messages import in_one_sentence, nearest
from minigrad.handwritten import conduct
from minigrad.handwritten import observations as see
from minigrad.handwritten.causes import explain
from minigrad.handwritten.find import BACK, find, nothing_found
from minigrad.handwritten.fit import pair, with_lengths
from minigrad.handwritten.lengths import BITS, clashes, is_parameter
from minigrad.handwritten.meant import find_forward, own_forward, take_updates
from minigrad.handwritten.shapes import Example
from minigrad.handwritten.source import CouldNotRun, Source, method_of, read
from minigrad.handwritten.subjects import CACHE, GRADIENT, Subject
from minigrad.handwritten.trial import Trial, Verdict
from minigrad.handwritten.use import subjects_by_use, ways
from minigrad.handwritten.watch import Watch

LEFT_OUT = r"([!=<>]=|[<>]) *-1\b|>= *0\b|ignore"  # in a file whose loss leaves out labels
SECONDS = 30.0  # of computing for the ways in which a file itself calls its backwards
SECONDS_EXPLAINED = 10.0  # the same where the first answer is explained


def judge_file(file: str, only: str | None = None) -> list[Verdict]:
    """A verdict for each backward of a file, or only for one and the steps that it calls.

    Raises CouldNotRun if the file cannot be read or has none.
    """
    source = read(file)
    subjects = find(source)
    watched = functools.cache(lambda: Watch(source))
    used = functools.cache(lambda: list(subjects_by_use(source, watched())))
    until = functools.cache(lambda: time.process_time() + SECONDS)
    if only is not None and only not in subjects and only in source.definitions:
        raise CouldNotRun(f"{only} in {file} {alone(source, only, [])}")
    if only is not None:
        if not subjects:
            raise nothing_found(source)
        if only not in subjects:
            raise CouldNotRun(f"{only} in {file} is none of {', '.join(subjects)}{nearest(only, subjects)}; for any "
                              f"other function give --forward {file}:function and --shapes")
        subjects = {name: s for name, s in subjects.items() if name in (only, *subjects[only].cells)}
    trials: dict[str, Trial] = {}
    for name, subject in subjects.items():
        cells = [trials[cell] for cell in subject.cells if cell in trials]
        doubtful = [cell for cell in cells if cell.verdict.unlike or cell.verdict.status == "could not run"]
        trials[name] = judge(source, subject, [cell for cell in cells if cell not in doubtful])
        if trials[name].verdict.status != "not written" and (is_doubtful(trials[name]) or not (
                trials[name].verdict.is_explained) or has_other_arguments(trials[name], watched)):
            trials[name] = as_it_is_used(source, subject, trials[name], watched(), used(), until()) or trials[name]
        if trials[name].verdict.status == "wrong" and trials[name].wrong_cells:  # a mean in the step may be meant
            own = judge(source, subject, [cell for cell in cells if not cell.verdict.backward_wrong])
            if own.verdict.status == "right":
                doubtful += trials[name].wrong_cells
                trials[name] = own
        if trials[name].verdict.is_explained:  # in use they run, with arguments that were not found for them alone
            for cell in doubtful:
                cell.verdict.status, cell.verdict.notes = "not judged", []
                cell.verdict.faults = [f"it was judged as a part of {name}"]
        elif doubtful:
            trials[name] = judge(source, subject, cells)
    for subject in used() if not any(trial.verdict.status in (
            "right", "wrong", "not written") for trial in trials.values()) else ():
        if (found := as_it_is_used(source, subject, None, watched(), [], until())) and subject.name not in trials:
            trials[subject.name] = found
    if not trials:
        raise nothing_found(source)
    for name, trial in trials.items():  # part of one that could be judged
        users = [n for n, other in trials.items() if name in other.subject.cells and other.verdict.status in (
            "right", "wrong") and name not in [cell.subject.name for cell in other.wrong_cells]]
        if trial.verdict.status == "could not run" and users:
            trial.verdict.status, trial.verdict.faults = "not judged", [f"it was judged as a part of {users[0]}"]
    guesses = {name for name, trial in trials.items() if trial.subject.is_guess and trial.verdict.status not in (
        "right", "wrong")}
    if len(guesses) < len(trials):  # what only looks like a backward
        trials = {name: trial for name, trial in trials.items() if name not in guesses}
    if trials:
        said = f"{source.file} is not Python 3, and was read as Python 2: {source.python_2}" if source.python_2 else \
            source.gone
        next(iter(trials.values())).verdict.notes += filter(None, [said])
    others = [] if only else not_judged(source, subjects)
    return [*(trial.verdict for trial in trials.values()), *(Verdict(name, source.place(
        source.definitions[name].lineno), "", "not judged", [alone(source, name, list(trials))]) for name in others)]


def is_doubtful(trial: Trial) -> bool:
    """Whether a backward was called wrong whose roles are a guess: by what it does, or what arrives has an odd name."""
    subject = trial.subject
    known = (*subject.order, *subject.results, *subject.alias, *subject.constants)
    return trial.verdict.status == "wrong" and (subject.is_guess or any(
        name not in known and not re.search(f"{GRADIENT}|{CACHE}", name) for name in subject.takes))


def has_other_arguments(trial: Trial, watched: Callable[[], Watch]) -> bool:
    """Whether a backward was judged with arguments of other ranks than the file's own, longer where those have one
    column, or of reals where those have zeros and ones, or zeros and another number. One that was called right is
    looked at only if it takes integers or a mask."""
    tried: Any = trial.subject.example
    takes_few = tried and (any(one.kind == "integers" for one in tried.known.values()) or any(
        isinstance(value, np.ndarray) and value.dtype.kind == "b" for value in tried.constants.values()))
    if not tried or not (trial.verdict.status == "wrong" or (trial.verdict.status == "right" and takes_few)):
        return False

    def arrays(known: dict[str, Any], name: str) -> list[Any]:
        return [one.axes for path, one in known.items() if f"{path}.".startswith(f"{name}.") and one.kind in (
            "array", "integers")]
    own = next((one.known for one, _ in ways(watched(), trial.subject)), {})
    special = {path: one.value for path, one in own.items() if one.kind == "array" and one.value is not None}
    for path, value in special.items():
        same = tried.known.get(path) or tried.known.get(path.partition(".")[0])
        if same and same.value != value and (value != BITS or path in tried.shapes):
            return True
    pairs = [pair for name in tried.names for pair in zip(arrays(own, name), arrays(tried.known, name))]
    return any(len(a) != len(b) or any(one == {"": 1} != other for one, other in zip(a, b)) for a, b in pairs)


def as_it_is_used(source: Source, subject: Subject, first: Trial | None, watch: Watch, used: list[Subject],
                  until: float) -> Trial | None:
    """The trial of a backward with the arguments and the roles that the file's own calls show, where the first one
    says nothing, or is in doubt of its roles.

    used   the subjects that the calls show
    until  when the last trial may begin
    """
    roles = [one for one in used if one.name == subject.name]
    roles = [one for one in roles if one.loss_name != subject.loss_name] if first and is_doubtful(first) else [
        subject, *roles]
    until -= SECONDS - SECONDS_EXPLAINED if first and first.verdict.is_explained else 0
    for one, example in [way for role in roles for way in ways(watch, role)]:
        if time.process_time() < until:
            trial = judge(source, one, first.cells if first else [], example)
            is_sure = trial.verdict.is_explained or (  # the roles were right
                first is not None and first.verdict.status == "right" and trial.verdict.status == "wrong")
            if is_sure and (first is None or is_better(trial, first)):
                return trial
    return first


def is_better(trial: Trial, first: Trial) -> bool:
    """Whether a verdict that is explained tells as much as the first one: of as many gradients, of no more wrong ones,
    and if some are wrong, not with a single step or example in place of several, where faults look alike. One that was
    right gives way to any: its own arguments show more. One that was wrong is not right because of other values."""
    before, now = first.subject.inputs, trial.subject.inputs
    is_shorter = any(n == 1 < m for name in before.keys() & now.keys() for n, m in zip(now[name], before[name])
                     if len(now[name]) == len(before[name]))
    if trial.verdict.status == "wrong" and first.verdict.status == "wrong" and is_shorter:
        return False
    if trial.verdict.status == "right" and first.verdict.status == "wrong" and kinds(trial) == kinds(first):
        return False
    return not first.verdict.is_explained or first.verdict.status == "right" or (
        len(trial.returned) >= len(first.returned) and len(trial.wrong) <= len(first.wrong))


def kinds(trial: Trial) -> dict[str, tuple]:
    """{path: what an argument is, without its lengths, but for the axes of weights that are broadcast, and without the
    values of an array}"""
    example: Any = trial.subject.example

    def kind(path: str) -> tuple:
        known, value = example.known[path], example.constants.get(path)
        if isinstance(value, np.ndarray):
            return "integers" if value.dtype.kind in "iu" else "array", value.ndim, value.dtype.kind == "b"
        if known.kind in ("array", "integers"):
            ones = [n == 1 for n in example.shapes.get(path, ())] if is_parameter(path) else []
            return known.kind, len(known.axes), known.value == BITS, ones
        return ("number",) if type(value) is int else (known.kind, known.keys, repr(value))
    return {path: kind(path) for path in example.known}


def alone(source: Source, name: str, judged: list[str]) -> str:
    """Why a function is not judged by itself."""
    users = [user for user in judged if source.definitions[name] in source.functions_in(user)]
    return f"it was judged as a part of {users[0]}" if users else \
        "has no forward beside it that its name tells: give --forward and --shapes"


def not_judged(source: Source, subjects: dict[str, Subject]) -> list[str]:
    """The other functions and classes of a file with a backward."""
    judged = {name for name, subject in subjects.items()} | {f for s in subjects.values() for f in s.cells}
    judged |= source.parents
    return [name for name, node in source.definitions.items() if name not in judged and (
        re.search(BACK, name) and not re.search("check|num", name, re.I) if isinstance(node, ast.FunctionDef) else
        method_of(node, "backward"))]


def judge_pair(file: str, backward: str, forward_file: str, forward: str, shapes: str) -> list[Verdict]:
    """The verdict for two functions named by the user, and the shapes of the forward's arguments."""
    source, other = read(file), read(forward_file)
    return [judge(source, pair(source, backward, other, forward, shapes), []).verdict]


def status_of(verdicts: list[Verdict]) -> int:
    """The exit status: 0 all right, 1 one is wrong, 2 one could not be run or is not written."""
    statuses = {verdict.status for verdict in verdicts} - {"not judged"}
    return 1 if "wrong" in statuses else 0 if statuses == {"right"} else 2


def judge(source: Source, subject: Subject, cells: list[Trial], example: Example | None = None) -> Trial:
    """The trial of one backward; `cells` are those of the steps that it calls.

    All lengths differ, so that Wh in place of Wx shows by its shape, or fails. Such a fault is looked for once more
    with the two lengths made equal that do not fit one another.
    """
    trial = try_once(source, subject, cells, example)
    verdict = trial.verdict
    fitted: Any = None if verdict.forward_differs or subject.example or example else trial.subject.example
    for lengths in verdict.unlike[:4] if fitted else []:
        axes = [axis for axis, n in fitted.lengths.items() if n in lengths]
        if len(axes) < 2:
            continue
        equal = next(with_lengths(fitted, min(lengths), max(lengths)))
        fitting = try_once(source, subject, cells, equal).verdict
        one, other = ("axis {2} of {0}".format(*axis.rpartition(".")) for axis in axes[:2])
        if fitting.status == "right":
            verdict.faults.append(f"it is right only if {one} is as long as {other}")
        elif fitting.status == "wrong" and not fitting.unlike:
            verdict.faults += [f"with {one} as long as {other}, so that the shapes fit:", *fitting.faults]
        if fitting.status in ("right", "wrong"):
            verdict.status = "wrong"
            break
    return trial


def try_once(source: Source, subject: Subject, cells: list[Trial], example: Example | None = None) -> Trial:
    trial = Trial(source, subject, cells)
    verdict = trial.verdict
    try:
        trial.fit(example)
        examine(trial)
    except CouldNotRun as problem:
        wants_none = "None" in str(problem) or "not defined" in str(problem)
        unwritten = see.not_written(source, subject.name, wants_none, subject.backward_name) or next(
            filter(None, see.passes_over(source, subject.name, subject.backward_name)), "")
        if unwritten:
            verdict.status, verdict.faults = "not written", [f"not written yet: {unwritten}"]
        else:
            verdict.status = "could not run"
            verdict.faults.append(str(problem))
            verdict.unlike = clashes(problem.__cause__)
    except Exception as problem:  # the user's functions may return anything
        verdict.status = "could not run"
        verdict.faults.append(f"{subject.name} cannot be judged: {in_one_sentence(problem)}")
    verdict.backward_wrong |= verdict.status not in ("right", "wrong")
    return trial


def refuse_idle(trial: Trial, reference: Callable) -> None:
    """Raise CouldNotRun if the outputs depend on few of the inputs whose gradients come back: of a sequence that is too
    short, say, the last step is never reached."""
    inputs, _, d_outputs, true = trial.sample(reference)
    returned = {name: d for name, d in trial.gradients(inputs, list(d_outputs)).items() if d is not None}
    idle = [name for name, d in returned.items() if np.any(d) and not np.any(true[name])]
    if len(idle) > 1 and 2 * len(idle) >= len(returned):
        raise CouldNotRun(f"{trial.subject.forward_in_words} does not depend on {', '.join(idle)} at the lengths that "
                          "were found: they are not those that you mean; give --forward and --shapes")


def examine(trial: Trial) -> None:
    """Fill in the verdict of a trial that was fitted."""
    verdict = trial.verdict
    trial.reference = reference = find_forward(trial)
    if reference is not None:
        take_updates(trial, reference)
    inputs, subject = trial.draw(), trial.subject
    outputs, memory = trial.forward(inputs)
    d_outputs = [trial.rng.normal(size=outputs[i].shape) for i in subject.arriving]
    first = trial.backward(memory, copy.deepcopy(d_outputs))
    trial.refuse_other_shapes(first)
    conduct.look_for_unwritten(trial, first)
    loop, part = see.passes_over(trial.source, subject.name, subject.backward_name)
    if loop:
        verdict.status, verdict.faults = "not written", [f"not written yet: {loop}"]
        return
    if part:
        verdict.faults.append(f"not written yet: {part}")
    if reference is None:
        verdict.status = "wrong"
        verdict.notes.append(f"{subject.name} is judged once its forward is right")
        return
    conduct.look(trial, inputs, d_outputs, first)
    returned = {name: d for name, d in first.items() if d is not None}
    trial.returned = list(returned)
    conduct.look_for_lacking(trial, reference, returned)
    refuse_idle(trial, reference)
    explain(trial, reference, returned)
    conduct.look_at_the_right(trial, reference)
    if not verdict.faults and re.search(LEFT_OUT, trial.source.text):
        judge_without_labels(trial, returned)
    verdict.notes += filter(None, [subject.remark])
    if subject.unnamed and not verdict.faults:
        verdict.notes.append(f"not judged: {', '.join(sorted(subject.unnamed))}, which {subject.name} returns, and "
                             "no input or weight of that name was found")
    if verdict.faults:
        verdict.status = "wrong"
    for cell in trial.wrong_cells:
        verdict.notes.append(f"{subject.name} was judged with a right {cell.subject.name} in place of yours")


def judge_without_labels(trial: Trial, returned: dict[str, Any]) -> None:
    """Judge again with a label of −1, which a loss may leave out: its gradient must leave it out too."""
    own = trial.subject
    trial.subject = conduct.with_a_label_of_minus_one(own) or own
    with contextlib.suppress(CouldNotRun, IndexError), np.errstate(all="ignore"):
        reference = own_forward(trial) if trial.subject is not own else None
        if reference and trial.differing(trial.sample(reference)):
            explain(trial, reference, returned)
            trial.verdict.faults = [f"with a label of −1: {text}" for text in trial.verdict.faults]
    trial.subject = own
