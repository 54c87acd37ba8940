"""Why gradients are wrong: the causes that the library finds, and the edits of the user's code that mend the rest."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.auditor.audit import audit
from minigrad.auditor.lines import quoted
from minigrad.auditor.report import AuditReport, Cause
from minigrad.auditor.tape import Tape
from minigrad.handwritten import observations as see
from minigrad.handwritten import references
from minigrad.handwritten.conduct import with_steps
from minigrad.handwritten.fit import other_sizes
from minigrad.handwritten.layers import WEIGHT
from minigrad.handwritten.meant import own_forward
from minigrad.handwritten.repair import SECONDS, SECONDS_AT_A_LINE, Edit, edits_of, installed, repair
from minigrad.handwritten.source import CouldNotRun
from minigrad.handwritten.trial import Trial
from minigrad.program.trace import TraceError

NAMED = 2  # of the cost of an edit, where its line names a wrong gradient
SINGLE = 1e-5  # an error relative to the largest entry that single precision may make


def explain(trial: Trial, reference: Callable, returned: dict[str, np.ndarray]) -> None:
    """Have the library compare the gradients that the backward returns, and describe what it finds."""
    subject, names = trial.subject, [name for name in trial.subject.inputs if name in returned]
    is_searched = not references.usual(subject).is_certain and not trial.is_usual
    try:
        report = shared(trial, reference, names) or audited(trial, reference, names)
    except Exception as problem:  # the forward depends on values, as a sigmoid in two halves
        if trial.behind is not None:
            report = audited(trial, trial.behind, names)
        else:
            report, is_searched = comparison(trial, reference, names), False
            report.notes = report.notes if isinstance(problem, TraceError) else []
    if see.line_of_float32(trial.source):  # sums of numbers of few digits have more digits, and no more right ones
        rounded = [name for name in report.unexplained if report.wrong[name] < SINGLE]
        report.right += rounded
        for name in rounded:
            report.unexplained.remove(name)
            del report.wrong[name]
    if report.unexplained and trial.is_usual and trial.behind is None:
        with contextlib.suppress(CouldNotRun, TraceError):  # the user's own has the same numbers by other ops
            report = min(report, audited(trial, own_forward(trial), names), key=lambda one: len(one.unexplained))
    wrong_steps = [cell.subject.name for cell in trial.cells if cell.verdict.backward_wrong and not (
        cell.subject.is_guess and cell.verdict.status == "could not run")]
    if report.unexplained and len(wrong_steps) > len(trial.wrong_cells):  # one could not be replaced
        trial.verdict.notes.append(f"{subject.name} calls {', '.join(wrong_steps)}: mend that first")
        report.notes = []
    else:
        look_for_integers(trial, reference, report)
        look_for_mends(trial, reference, report)
        look_for_edits(trial, reference, report)
        if report.unexplained and not report.causes:
            report = found_at_one_step(trial, reference, names) or report
    slopes = list(see.wrong_slopes(trial.source, trial.namespace)) if report.unexplained else []
    for text in slopes:
        trial.fault(text)
    unexplained = {name: returned[name] for name in names if f"d{name}" in report.unexplained}
    strange = other_sizes(unexplained, subject.inputs)
    if report.unexplained and not slopes and not any(cause.kind != "edit" for cause in report.causes) and (
            len(strange) > 1 or (is_searched and not report.right and not report.causes)):
        raise CouldNotRun(unjudged(trial))
    trial.wrong = list(report.wrong)
    trial.verdict.notes += [note.removeprefix("note: ") for note in report.notes]
    if not report.ok:
        report.notes = []
        for cause in report.causes:
            cause.text += mean_in(trial, cause.text)
            if not (cause.forward_line or "").startswith((trial.source.file, references.__file__)):
                cause.forward_line = None
        trial.fault(in_places(trial, str(report)))
        for name in [name for name in names if f"d{name}" in report.unexplained]:
            given, shape = returned[name].shape, subject.inputs[name]
            if given != shape:
                trial.verdict.unlike += [pair for pair in zip(given, shape) if pair[0] != pair[1]]
                trial.fault(f"d{name} has the shape {given}, and {name} has {shape}")


def shared(trial: Trial, reference: Callable, names: list[str]) -> AuditReport | None:
    """The report where an array that is changed under another name explains all that is wrong; None where not."""
    report = comparison(trial, reference, names)
    report.notes = []
    look_for_edits(trial, reference, report, only_copies=True)
    return report if report.causes and not report.unexplained else None


def audited(trial: Trial, reference: Callable, names: list[str], hints: Sequence[tuple] = ()) -> AuditReport:
    """The audit of the gradients of these inputs."""
    subject, forward = trial.subject, traceable(trial, reference)

    def backward(d_outputs: Any, *arguments: Any) -> dict[str, Any]:
        inputs = {name: np.array(value) for name, value in zip(subject.inputs, arguments)}
        d_outputs = d_outputs if isinstance(d_outputs, tuple) else (d_outputs,)
        found = trial.gradients(inputs, [np.array(d) for d in d_outputs])
        return {f"d{name}": found[name] for name in names}

    user = trial.namespace[subject.name]
    backward.__wrapped__ = getattr(user, subject.backward_name, user)  # type: ignore[attr-defined]
    backward.passed_over = {f.lineno for cell in trial.cells  # type: ignore[attr-defined]
                            for f in trial.source.functions_in(cell.subject.name)}
    report = audit(forward, backward, *map(np.zeros, subject.inputs.values()),
                   names={f"d{name}": as_parameter(name) for name in names}, other_sizes=False, hints=hints)
    report.missing = []  # `look_for_lacking` says which
    return report


def traceable(trial: Trial, reference: Callable) -> Callable:
    """A forward of the inputs by their names, which returns the outputs whose gradients arrive."""
    arriving = trial.arriving(reference)

    def forward(*arguments: Any) -> Any:
        found = arriving(*arguments)
        return found if len(found) > 1 else found[0]
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(as_parameter(name), inspect.Parameter.POSITIONAL_ONLY) for name in trial.subject.inputs])
    return forward


def as_parameter(name: str) -> str:
    """The name of an input, which may be any key of a dict, as that of a parameter."""
    return re.sub(r"\W|^(?=\d)", "_", name)


def found_at_one_step(trial: Trial, reference: Callable, names: list[str]) -> AuditReport | None:
    """The report where two faults on one path explain all that is wrong: they are found where time has a single step,
    which has fewer changes, and then tried over time."""
    own, inputs = trial.subject, tuple(map(np.zeros, trial.subject.inputs.values()))
    hints: tuple = ()
    with contextlib.suppress(CouldNotRun, TraceError, ValueError, IndexError, KeyError):
        if (times := Tape(traceable(trial, reference), inputs, np.random.default_rng(0)).times) > 1:
            trial.subject = with_steps(own, 1, times)
            found = audited(trial, own_forward(trial), names).causes
            hints = tuple(key for cause in found for key in cause.keys)
    trial.subject = own
    report = audited(trial, reference, names, hints) if hints else None
    return report if report and report.causes and not report.unexplained else None


def comparison(trial: Trial, reference: Callable, names: list[str]) -> AuditReport:
    """Which gradients are right, where the forward cannot be traced and no fault can be looked for."""
    report, sample = AuditReport(), trial.sample(reference)
    if not any(np.any(sample[-1][name]) for name in names):
        raise CouldNotRun(f"every gradient of {trial.subject.name} is zero at the arguments that were found: give "
                          "--forward and --shapes")
    wrong = trial.differing(sample, SINGLE if see.line_of_float32(trial.source) else 1e-7) or []
    report.right = [f"d{name}" for name in names if name not in wrong]
    report.unexplained = [f"d{name}" for name in wrong]
    report.wrong = dict.fromkeys(report.unexplained, float("inf"))
    if report.wrong:
        report.notes.append("your forward branches on values, so no fault was looked for")
    return report


def look_for_integers(trial: Trial, reference: Callable, report: AuditReport) -> None:
    """Say which gradients are right but for their fractions, for they are kept in arrays of integers."""
    cut = [name for name in trial.subject.inputs if f"d{name}" in report.wrong]
    for inputs, _, d_outputs, true in [trial.sample(reference) for _ in range(3)] if cut else ():
        _, memory = trial.forward(inputs)
        given, by = trial.backward(memory, list(d_outputs)), d_outputs[0] if trial.subject.is_loss else 1.0
        whole = given | (trial.subject.kept(memory[0]("")) if trial.subject.is_class else {})
        cut = [name for name in cut if whole.get(name) is not None and whole[name].dtype.kind in "iu"
               and see.close(given[name], by * np.trunc(true[name] / by))]
    if not cut:
        return
    names = [f"d{name}" for name in cut]
    for cause in report.causes:
        cause.explains = [name for name in cause.explains if name not in names]
    lines = {n.lineno for f in trial.source.functions_in(trial.subject.name) for n in ast.walk(f)
             if isinstance(n, ast.Attribute | ast.Name) and re.fullmatch(r"(np\.|numpy\.)?u?int(8|16|32|64)?",
                                                                         ast.unparse(n))}
    report.unexplained = [name for name in report.unexplained if name not in names]
    report.notes = report.notes if report.unexplained else []
    report.causes = [*filter(lambda cause: cause.explains, report.causes), Cause(
        f"{', '.join(names)} {'are' if names[1:] else 'is'} kept in an array of integers, which cuts the fractions",
        "integers", names, backward_line=quoted(trial.source.file, lines.pop()) if len(lines) == 1 else None)]


def look_for_mends(trial: Trial, reference: Callable, report: AuditReport) -> None:
    """The edit of a cause's line that mends all that the cause explains, and more if it is the whole fault.

    It takes the place of a cause whose words say little: two changes, another value for a whole path, or a factor
    for each step.
    """
    for cause in [cause for cause in report.causes if cause.kind != "edit"]:
        is_vague = cause.kind == "another path" or cause.keys[1:] or "has the factors" in cause.text
        line = int((cause.backward_line or ":0").removeprefix(trial.source.file).split(":")[1])
        edits = edits_in_use(trial, line) + (edits_in_use(trial) if is_vague else [])
        found = repaired(trial, reference, [name.removeprefix("d") for name in cause.explains + report.unexplained],
                              edits, SECONDS / 2 if is_vague else SECONDS_AT_A_LINE)
        mended = [f"d{name}" for name in found[1]] if found else []
        if found and {*cause.explains} <= {*mended}:
            cause.mend, cause.explains = found[0].text, [name for name in report.wrong if name in mended]
            report.unexplained = [name for name in report.unexplained if name not in mended]
            if is_vague:
                cause.text, cause.mend, cause.also = cause.mend, None, []
                cause.backward_line = quoted(trial.source.file, found[0].line)


def look_for_edits(trial: Trial, reference: Callable, report: AuditReport, only_copies: bool = False) -> None:
    """Find the edits that mend what is not explained: those that copy a shared array, or all others; of one or two
    gradients first where a line names them."""
    wrong = [name for name in trial.subject.inputs if f"d{name}" in report.unexplained]
    edits = [edit for edit in edits_in_use(trial) if (edit.cost <= 0) is only_copies] if wrong else []
    lines, named = trial.source.text.splitlines(), re.compile(rf"(\b|_)d?_?({'|'.join(map(re.escape, wrong))})\b")
    edits.sort(key=lambda edit: edit.cost - NAMED * bool(len(wrong) < 3 and named.search(lines[edit.line - 1])))
    with contextlib.ExitStack() as edited:
        while wrong and (found := repaired(trial, reference, wrong, edits)):
            edit, mended = found
            edited.enter_context(installed(edit, trial.namespace, trial.source.file))
            report.causes.append(Cause(edit.text, "edit", [f"d{name}" for name in mended],
                                       backward_line=quoted(trial.source.file, edit.line)))
            wrong = [name for name in wrong if name not in mended]
    report.unexplained = [f"d{name}" for name in wrong]
    report.notes = report.notes if wrong else [n for n in report.notes if "agree with each other" not in n]


def repaired(trial: Trial, reference: Callable, wrong: list[str], edits: list[Edit], seconds: float = SECONDS
             ) -> tuple[Edit, list[str]] | None:
    """The edit that mends all that is wrong, or most, and what it mends."""
    samples = [trial.sample(reference) for _ in range(3)]
    trial.seconds = 1.0  # an edit may make a loop endless
    found = repair(lambda k: trial.differing(samples[k]), wrong, edits, trial.namespace, trial.source.file, seconds)
    trial.seconds = None
    return found


def edits_in_use(trial: Trial, at: int | None = None) -> list[Edit]:
    """The edits of the user's code, or all of one line."""
    subject, others = trial.subject, [name for cell in trial.cells for name in cell.subject.needs]
    forwards = list(filter(None, (subject.forward_name, subject.loss_name)))
    return [] if subject.elsewhere else edits_of(
        trial.source_in_use, subject.name if subject.is_class else "", subject.name if subject.is_closure else
        subject.backward_name, [] if subject.is_closure else forwards, others, *trial.shapes_in_use, at)


def unjudged(trial: Trial) -> str:
    """What is said where no gradient is right and no fault explains one: the arguments may not be as meant."""
    subject, shapes = trial.subject, ", ".join(f"{name} {shape}" for name, shape in trial.subject.inputs.items())
    return (f"{subject.name} cannot be judged: its gradients are not those of {subject.forward_in_words}, and no "
            f"fault explains them; if its arguments have other shapes than {shapes}, give --forward and "
            "--shapes")


def mean_in(trial: Trial, text: str) -> str:
    """What is added to "db: 1/7 times the gradient", or 7 times, where one axis of data has the length 7."""
    inputs, found = trial.subject.inputs, re.match(r"d(\w+).*: (1/)?(\d+) times the gradient$", text)
    n = int(found[3]) if found else 0
    axes = [(name, shape.index(n)) for name, shape in inputs.items() if name not in trial.subject.held
            and not re.match(WEIGHT, name) and n in shape] if n > 2 else []
    if not found or not axes or (found[2] and n in inputs.get(found[1], ())):
        return ""
    where = "axis {1} of {0}".format(*axes[0])
    return f": the mean over {where} in place of the sum" if found[2] else \
        f": the division by the length of {where} is missing, as of a mean"


def in_places(trial: Trial, text: str) -> str:
    """A report whose lines are those of the user's file; lines of the references stand without their file."""
    text = re.sub(rf"{re.escape(references.__file__)}:\d+: ", "", text)
    return re.sub(rf"{re.escape(trial.source.file)}:(\d+)", lambda m: trial.source.place(int(m[1])), text)
