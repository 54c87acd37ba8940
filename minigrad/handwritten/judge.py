"""Judge the hand-written backwards of a file: run each, look at what it does, and audit its numbers.

Everything here runs the user's code in this process. The command `minigrad audit` calls it in a process of its own.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.auditor.audit import audit
from minigrad.auditor.report import AuditReport
from minigrad.engine.context import no_grad
from minigrad.engine.messages import in_one_sentence, nearest
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.engine.tensor import Tensor
from minigrad.functional import vjp
from minigrad.handwritten import observations as see
from minigrad.handwritten import references
from minigrad.handwritten.conventions import find, not_judged, nothing_found, pair
from minigrad.handwritten.given_cell import replace_cell
from minigrad.handwritten.guessed import GuessedLayer, fitting, guesses
from minigrad.handwritten.recordable import OnTensors
from minigrad.handwritten.source import CouldNotRun, Source, explained, parameters_of, read
from minigrad.handwritten.subjects import (
    SAME_SIZES,
    SIZES,
    Course,
    Layer,
    LossFun,
    Named,
    Subject,
    Together,
    square,
    without_clip,
)
from minigrad.program.trace import TraceError

LONG, SHORT = 7, 4  # steps of the caches, and of the gradients that arrive, as in the course's exercise


@dataclass
class Verdict:
    """What is said of one backward. status: right, wrong, not written, could not run, not judged (not known)."""

    name: str
    place: str
    convention: str = ""
    status: str = "right"
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is worth knowing, and makes no gradient wrong
    forward_differs: bool = False
    backward_wrong: bool = False
    shapes_differ: bool = False  # a gradient has another shape, and no cause was found

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.place}): {self.status}"]
        return "\n".join([*lines, *(f"  {line}" for text in self.faults for line in text.splitlines()),
                          *(f"  note: {note}" for note in self.notes)])


def judge_file(file: str, only: str | None = None) -> list[Verdict]:
    """A verdict for each backward of a file, or only for one and the step that it calls.

    Raises CouldNotRun if the file cannot be read or has none.
    """
    source = read(file)
    subjects = subjects_of(source)
    if not subjects:
        raise nothing_found(source)
    if only is not None:
        if only not in subjects:
            raise CouldNotRun(f"{only} in {file} is none of {', '.join(subjects)}{nearest(only, subjects)}; for any "
                              f"other function give --forward {file}:function and --shapes")
        subjects = {name: s for name, s in subjects.items() if name in (only, subjects[only].cell)}
    verdicts: dict[str, Verdict] = {}
    for name, subject in subjects.items():
        called = subject.cell if subject.cell and subject.cell in ast.unparse(source.definitions[name]) else ""
        verdicts[name] = judge(source, subject, verdicts.get(called))
    others = [] if only else not_judged(source, list(subjects.values()))
    return [*verdicts.values(), *(Verdict(name, source.place(source.definitions[name].lineno), "", "not judged", [
        "its convention is not known: for a function give --forward and --shapes"]) for name in others)]


def subjects_of(source: Source) -> dict[str, Subject]:
    known = find(source)
    known += guesses(source, {name for subject in known for name in (subject.name, subject.cell) if name})
    return {subject.name: subject for subject in known}


def judge_pair(file: str, backward: str, forward_file: str, forward: str, shapes: str) -> list[Verdict]:
    """The verdict for two functions named by the user, and the shapes of the forward's arguments."""
    source, other = read(file), read(forward_file)
    subject = pair(source, backward, other, forward, shapes)
    return [judge(source, subject)]


def status_of(verdicts: list[Verdict]) -> int:
    """The exit status: 0 all right, 1 one is wrong, 2 one could not be run or is not written."""
    statuses = {verdict.status for verdict in verdicts} - {"not judged"}
    return 1 if "wrong" in statuses else 0 if statuses == {"right"} else 2


def judge(source: Source, subject: Subject, cell: Verdict | None = None) -> Verdict:
    """The verdict for one backward; `cell` is that of the step which a sequence calls.

    All sizes differ, so that Wh in place of Wx shows by its shape, or fails. Such a fault is looked for once more with
    as many inputs as hidden units, where the shapes fit.
    """
    verdict = try_once(source, subject, cell)
    if (verdict.shapes_differ or "ValueError" in "".join(verdict.faults)) and not verdict.forward_differs and (
            type(subject) is not Named):
        fitting = try_once(source, subject, cell, SAME_SIZES)
        if fitting.status == "right":
            verdict.faults.append("it is right only if there are as many inputs as hidden units")
        elif fitting.status == "wrong" and not fitting.shapes_differ:
            verdict.faults += ["with as many inputs as hidden units, so that the shapes fit:", *fitting.faults]
        if fitting.status in ("right", "wrong"):
            verdict.status = "wrong"
    return verdict


def try_once(source: Source, subject: Subject, cell: Verdict | None, sizes: dict[str, int] = SIZES) -> Verdict:
    node = source.definitions[subject.name]
    verdict = Verdict(subject.name, source.place(node.lineno), subject.convention)
    try:
        if isinstance(subject, Layer) and subject.references and not in_shape(source, subject):
            subject = GuessedLayer(subject.name, subject.convention, {})
        if hasattr(subject, "candidates"):
            subject = tried(source, subject, sizes)
        elif sizes is SAME_SIZES:
            subject = square(subject)
        Trial(source, subject, verdict, cell).judge()
    except CouldNotRun as problem:
        wants_none = "None" in str(problem) or "not defined" in str(problem)
        if unwritten := see.not_written(source, subject.name, wants_none):
            verdict.status, verdict.faults = "not written", [f"not written yet: {unwritten}"]
        else:
            verdict.status = "could not run"
            verdict.faults.append(str(problem))
    except Exception as problem:  # the user's functions may return anything
        verdict.status = "could not run"
        verdict.faults.append(f"{subject.name} cannot be judged: {in_one_sentence(problem)}")
    verdict.backward_wrong |= verdict.status not in ("right", "wrong")
    return verdict


def in_shape(source: Source, subject: Subject) -> bool:
    """Whether a class's forward returns the shapes of the one that its name and its arguments suggest."""
    try:
        trial = Trial(source, subject, Verdict(subject.name, ""))
        inputs = trial.draw()
        shapes = [y.shape for y in trial.forward(inputs)[0]]
    except CouldNotRun as problem:
        return "ValueError" not in str(problem)
    return shapes[:1] == [y.shape for y in values(subject.references[0], inputs)][:1]


def tried(source: Source, subject: Subject, sizes: dict[str, int]) -> Subject:
    """The subject with the inputs that fit it, found by trying. Raises CouldNotRun if none fit."""
    problems: list[str] = []

    def gradients(candidate: Subject) -> dict[str, Any] | None:
        trial = None
        try:
            trial = Trial(source, candidate, Verdict(candidate.name, ""))
            inputs = trial.draw()
            outputs, memory = trial.forward(inputs)
        except CouldNotRun as problem:
            problems.append(str(problem))
            if "still running" in str(problem):
                raise
            return None
        try:
            return trial.backward(memory, [np.ones(outputs[i].shape) for i in candidate.arriving])
        except CouldNotRun:
            return {}
    namespace = source.run([*subject.needs], subject.given)
    found = fitting(subject, source, namespace, gradients, sizes)
    if found is None:
        problem = problems[0] if problems else f"{subject.name} cannot be made: its constructor fails"
        raise CouldNotRun(problem if not re.search("(Value|Index|Type|Key)Error|cannot be made", problem) else
                          f"{problem}; no shapes were found with which its forward runs: for a function give --forward "
                          "and --shapes")
    return found


class Trial:
    """One subject, its namespace, and what was found."""

    def __init__(self, source: Source, subject: Subject, verdict: Verdict, cell: Verdict | None = None):
        self.source, self.subject, self.verdict, self.cell = source, subject, verdict, cell
        self.activations: dict[str, str] = {}
        self.use_true_forwards = False
        self.behind: Callable | None = None  # the reference whose place the user's own forward takes
        weights = {name for name in subject.inputs if name[0] in "Wb"} | {"parameters"}
        self.globals = {} if isinstance(subject, LossFun) else see.global_weights(source, subject.name, weights)
        self.namespace = self.fresh()
        self.rng = np.random.default_rng(0)

    def fresh(self, source: Source | None = None) -> dict[str, Any]:
        """The file's namespace, with the parts of the convention that it lacks."""
        subject, source = self.subject, source or self.source
        cells = [name for name in (subject.cell, (subject.cell or "").replace("backward", "forward")) if name]
        namespace = source.run([*subject.needs, *cells], {**dict.fromkeys(self.globals), **subject.given})
        if subject.name not in namespace:
            raise CouldNotRun(f"{subject.name} cannot be defined: {source.failed.get(subject.name)}")
        if isinstance(subject, Named) and subject.elsewhere is not None:
            namespace[subject.forward_name] = subject.elsewhere.run([subject.forward_name])[subject.forward_name]
        if isinstance(subject, Course):
            for name, forward in subject.true_forwards(namespace).items():
                if self.use_true_forwards or name not in namespace or \
                        (self.cell and self.cell.forward_differs and "cell" in name):
                    namespace[name] = forward
        elif subject.forward_name and subject.forward_name not in namespace:
            raise CouldNotRun(f"{subject.name} needs {subject.forward_name}, which makes its cache, and the file does "
                              "not define it")
        for name in self.activations:
            namespace[name] = see.ACTIVATIONS[name][0]
        if self.cell and self.cell.backward_wrong:
            self.give_cell(namespace)
        return namespace

    # -- the user's two functions -----------------------------------------------------------------------

    def forward(self, inputs: dict[str, np.ndarray]) -> tuple[tuple, Any]:
        with explained(self.source, f"{self.subject.forward_name or 'the forward of ' + self.subject.name} fails"):
            self.set_globals(inputs, self.namespace)
            np.random.seed(0)  # dropout and its like are the same at each call
            outputs, memory = self.subject.forward(self.namespace, copy.deepcopy(inputs))
            if len(outputs) <= max(self.subject.arriving):
                raise CouldNotRun(f"{self.subject.forward_name} returns {len(outputs)} outputs and a cache, where "
                                  f"{max(self.subject.arriving) + 1} outputs or more are expected")
            return tuple(map(np.asarray, outputs)), memory

    def backward(self, memory: Any, d_outputs: list[np.ndarray]) -> dict[str, Any]:
        with explained(self.source, f"{self.subject.name} fails"):
            found = self.subject.backward(self.namespace, memory, d_outputs)
            for name, d in found.items():
                if d is not None:
                    found[name] = np.asarray(d)
                    if found[name].dtype.kind not in "fiub":
                        raise CouldNotRun(f"{self.subject.name} returns a {type(d).__name__} for d{name}, where an "
                                          "array is expected")
            return found

    def set_globals(self, inputs: dict[str, Any], namespace: dict[str, Any]) -> None:
        for name in self.globals:
            namespace[name] = inputs.get(name, {k: v for k, v in inputs.items() if k[0] in "Wb"})

    def gradients(self, inputs: dict[str, np.ndarray], d_outputs: list[np.ndarray]) -> dict[str, Any]:
        _, memory = self.forward(inputs)
        return self.backward(memory, copy.deepcopy(d_outputs))

    def draw(self, scale: float = 1.0) -> dict[str, np.ndarray]:
        return {name: scale * self.rng.normal(size=shape) for name, shape in self.subject.inputs.items()}

    def give_cell(self, namespace: dict[str, Any]) -> None:
        """Replace a wrong cell's backward by the true one, so that the sequence is judged alone."""
        cell = subjects_of(self.source)[self.subject.cell or ""]
        if hasattr(cell, "candidates"):
            cell = tried(self.source, cell, SIZES)
        trial = Trial(self.source, cell, Verdict(cell.name, ""))
        with contextlib.suppress(CouldNotRun):
            reference = trial.true_forward()
            if reference is not None:
                replace_cell(namespace, cell, reference)

    # -- judging -----------------------------------------------------------------------------------------

    def judge(self) -> None:
        verdict, subject = self.verdict, self.subject
        reference = self.true_forward()
        inputs = self.draw()
        outputs, memory = self.forward(inputs)
        d_outputs = [self.rng.normal(size=outputs[i].shape) for i in subject.arriving]
        first = self.backward(memory, copy.deepcopy(d_outputs))
        self.look_for_unwritten(first)
        if reference is None:
            verdict.status = "wrong"
            verdict.notes.append(f"{subject.name} is judged once its forward is right")
            return
        self.look_at_state(inputs, d_outputs, first)
        self.look_at_arguments(inputs, d_outputs)
        self.look_at_clipping(inputs, d_outputs)
        if self.globals:
            names, line = ", ".join(self.globals), self.source.place(min(self.globals.values()))
            verdict.notes.append(f"{subject.name} reads {names} from globals ({line}), not from its cache: it is right "
                                 "only while they are the weights of the forward")
        returned = {name: d for name, d in first.items() if d is not None}
        if isinstance(subject, Course) and subject.name == "lstm_backward" and caches_of_cells(memory[0]):
            subject.c0 = self.rng.normal(size=inputs["a0"].shape)
            self.audit(functools.partial(reference, c0=subject.c0), returned)
            subject.c0 = None
        else:
            self.audit(reference, returned)
        if not verdict.backward_wrong and isinstance(subject, Course) and subject.time is not None:
            self.look_at_fewer_steps(reference)
        if verdict.faults:
            verdict.status = "wrong"
        if self.cell and self.cell.backward_wrong:
            verdict.notes.append(f"{subject.name} was judged with a right {subject.cell} in place of yours")

    def fault(self, text: str) -> None:
        self.verdict.faults.append(text)
        self.verdict.backward_wrong = True

    def true_forward(self) -> Callable | None:
        """The reference whose numbers are the user's.

        If the forward differs, that is a fault, and the next best is returned: the course's forward, for its caches are
        known; the user's own, if it runs on tensors; or None.
        """
        subject, verdict = self.subject, self.verdict
        if not subject.references:
            if subject.known:
                inputs = self.draw()
                if reference := self.matching(subject.known, inputs, self.forward(inputs)[0]):
                    return reference
            verdict.faults += [f"your forward differs: {text}" for name, text in see.own_activations(
                self.source, self.namespace) if name != "softmax"]  # of a vector, it has another form
            verdict.forward_differs = bool(verdict.faults)
            return self.own_forward()
        inputs = self.draw()
        try:
            outputs, _ = self.forward(inputs)
            if reference := self.matching(subject.references, inputs, outputs):
                return self.in_own_names(reference)
            if wrong := dict(see.own_activations(self.source, self.namespace)):
                if not (self.cell and self.cell.forward_differs):
                    verdict.faults += [f"your forward differs: {text}" for text in wrong.values()]
                verdict.forward_differs = True
                self.activations = wrong
                self.namespace = self.fresh()
                outputs, _ = self.forward(inputs)
                if reference := self.matching(subject.references, inputs, outputs):
                    return reference
        except CouldNotRun as problem:
            if not isinstance(subject, Course):
                raise
            unwritten = see.not_written(self.source, subject.forward_name, True) \
                if subject.forward_name in self.source.definitions else ""
            verdict.faults.append(f"your forward is not written yet: {unwritten}" if unwritten else str(problem))
        else:
            if self.cell and self.cell.forward_differs:
                raise CouldNotRun(f"not judged: the forward of {subject.cell} differs")
            reference = subject.references[0]
            text = self.difference(inputs, outputs, reference, values(reference, inputs))
            verdict.faults.append(f"your forward differs: {text}")
        verdict.forward_differs = True
        if isinstance(subject, Course):
            self.use_true_forwards = True
            self.namespace = self.fresh()
            verdict.notes.append(f"{subject.name} was judged on the caches of a right forward")
            return subject.references[0]
        with contextlib.suppress(CouldNotRun):
            reference = self.own_forward()
            verdict.notes.append(f"{subject.name} was judged as the backward of your own forward")
            return reference
        return None

    def matching(self, references: list[Callable], inputs: dict, outputs: tuple) -> Callable | None:
        """The reference with the numbers of the user's forward."""
        for reference in references:
            with contextlib.suppress(IndexError):  # targets that are not classes
                if all(see.close(y, z) for y, z in zip(outputs, values(reference, inputs))):
                    return reference
        return None

    def in_own_names(self, reference: Callable) -> Callable:
        """The user's forward in place of a reference with the same numbers, if tensors can go through it."""
        if not isinstance(self.subject, (Course, Together)) or isinstance(self.subject, LossFun):
            with contextlib.suppress(CouldNotRun):
                self.behind = reference
                return self.own_forward()
        return reference

    def own_forward(self) -> Callable:
        """The user's forward itself, rewritten for tensors. Raises CouldNotRun if it does not run on them."""
        subject, source = self.subject, self.source
        elsewhere = getattr(subject, "elsewhere", None)
        with explained(source, f"the forward of {subject.name} cannot be differentiated"):
            namespace = self.fresh(source.recordable(subject.name if isinstance(subject, Together) else None))
            if elsewhere is not None:
                source = elsewhere
                namespace = elsewhere.recordable().run([subject.forward_name])
            if isinstance(subject, LossFun):
                without_clip(namespace)
            namespace |= see.right_activations(source, namespace)
            namespace |= {name: OnTensors(np) for name, value in namespace.items() if value is np}

        def forward(*arguments: Any) -> Any:
            inputs = dict(zip(subject.inputs, arguments))
            self.set_globals(inputs, namespace)
            np.random.seed(0)
            return subject.forward(namespace, inputs)[0]
        inputs = self.draw()
        name = self.subject.forward_name or f"the forward of {self.subject.name}"
        with explained(self.source, f"{name} cannot be differentiated"):
            found, _ = vjp(forward, *inputs.values())
        if not all(see.close(y, z) for y, z in zip(flatten(found)[0], self.forward(inputs)[0])):
            raise CouldNotRun(f"{name} gives other numbers on tensors than on arrays")
        return forward

    def difference(self, inputs: dict, outputs: tuple, reference: Callable, true: tuple) -> str:
        found = see.first_difference(self.source, lambda: self.forward(inputs), lambda: values(reference, inputs))
        if found:
            return found
        k = next(k for k, (y, z) in enumerate(zip(outputs, true)) if not see.close(y, z))
        if outputs[k].shape != true[k].shape:
            return f"its output {k + 1} has the shape {outputs[k].shape}, and {true[k].shape} is right"
        index = np.unravel_index(np.argmax(np.abs(outputs[k] - true[k])), true[k].shape)
        return (f"its output {k + 1} is {outputs[k][index]:.4g} at {list(map(int, index))}, and {true[k][index]:.4g} "
                "is right")

    def audit(self, reference: Callable, returned: dict[str, np.ndarray]) -> None:
        """Have the library compare the gradients that the backward returns, and describe what it finds."""
        subject, names = self.subject, [name for name in self.subject.inputs if name in returned]
        self.look_for_lacking(reference, returned)
        try:
            report = self.report(reference, names)
        except Exception as problem:  # the forward depends on values, as a sigmoid in two halves
            if self.behind is not None:
                report = self.report(self.behind, names)
            elif isinstance(problem, TraceError):
                report = self.comparison(reference, names)
            else:
                raise
        self.verdict.notes += [note.removeprefix("note: ") for note in report.notes]
        if not report.ok:
            report.notes = []
            self.fault(self.in_places(str(report)))
            for name in [name for name in names if f"d{name}" in report.unexplained]:
                given, shape = returned[name].shape, subject.inputs[name]
                if given != shape:
                    self.verdict.shapes_differ = True
                    self.fault(f"d{name} has the shape {given}, and {name} has {shape}")

    def look_for_lacking(self, reference: Callable, returned: dict[str, np.ndarray]) -> None:
        """The inputs whose gradients are not returned, and not zero."""
        subject, inputs = self.subject, self.draw()
        lacking = [name for name in subject.inputs if name not in returned and name not in subject.silent]
        if not lacking or any("not written" in text for text in self.verdict.faults):
            return

        def forward(*arguments: Any) -> Any:
            found = reference(*arguments)
            return tuple(found[i] for i in subject.arriving) if isinstance(found, tuple) else found
        y, pull = vjp(forward, *inputs.values())
        d = dict(zip(inputs, pull(map_leaves(lambda leaf: np.ones(leaf.shape), y))))
        lacking = [f"d{name}" for name in lacking if np.any(d[name])]
        if lacking:
            is_known = bool(subject.references)  # what another function returns is its own affair
            (self.fault if is_known else self.verdict.notes.append)(
                f"{subject.name} does not return {', '.join(lacking)}")

    def comparison(self, reference: Callable, names: list[str]) -> AuditReport:
        """Which gradients are right, where the forward cannot be traced and no fault can be looked for."""
        subject, inputs, report = self.subject, self.draw(), AuditReport()
        y, pull = vjp(lambda *arguments: [reference(*arguments)[i] for i in subject.arriving], *inputs.values())
        d_outputs = [self.rng.normal(size=leaf.shape) for leaf in y]
        true, given = dict(zip(inputs, pull(d_outputs))), self.gradients(inputs, d_outputs)
        for name in names:
            if see.close(given[name], true[name], 1e-7):
                report.right.append(f"d{name}")
            else:
                report.wrong[f"d{name}"] = float("inf")
                report.unexplained.append(f"d{name}")
        if report.wrong:
            report.notes.append("your forward goes another way for other values, so no fault is looked for")
        return report

    def report(self, reference: Callable, names: list[str]) -> AuditReport:
        """The audit of the gradients of these inputs, and of no other but those that have none in this convention."""
        subject, rest, free = self.subject, self.draw(), [*names, *self.subject.silent]

        def forward(*arguments: Any) -> Any:
            found = reference(*(rest | dict(zip(free, arguments))).values())
            found = found if isinstance(found, tuple) else (found,)
            return tuple(found[i] for i in subject.arriving) if len(subject.arriving) > 1 else found[0]

        def backward(d_outputs: Any, *arguments: Any) -> dict[str, Any]:
            inputs = rest | {name: np.array(value) for name, value in zip(free, arguments)}
            d_outputs = d_outputs if isinstance(d_outputs, tuple) else (d_outputs,)
            found = self.gradients(inputs, [np.array(d) for d in d_outputs])
            return {f"d{name}": found[name] for name in names}

        forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in free])
        user = self.namespace[subject.name]
        backward.__wrapped__ = getattr(user, "backward", user)  # type: ignore[attr-defined]
        report = audit(forward, backward, *(np.zeros(subject.inputs[name]) for name in free),
                       names={f"d{name}": name for name in names})
        report.missing = [name for name in report.missing if name[1:] not in subject.silent]
        return report

    def in_places(self, text: str) -> str:
        """A report whose lines are those of the user's file; lines of the references stand without their file."""
        text = re.sub(rf"{re.escape(references.__file__)}:\d+: ", "", text)
        return re.sub(rf"{re.escape(self.source.file)}:(\d+)", lambda m: self.source.place(int(m[1])), text)

    # -- what is not a matter of numbers -----------------------------------------------------------------

    def look_for_unwritten(self, found: dict[str, Any]) -> None:
        missing = [name for name, value in found.items() if value is None]
        if not found or len(missing) == len(found):
            raise CouldNotRun(f"{self.subject.name} returns None")
        if missing:
            self.fault(f"not written yet: {', '.join('d' + name for name in missing)}")

    def look_at_state(self, inputs: dict, d_outputs: list, first: dict[str, Any]) -> None:
        """Call again: with the same inputs, and after a call with others, in the same namespace."""
        if isinstance(self.subject, Layer):
            _, memory = self.forward(inputs)
            self.backward(memory, copy.deepcopy(d_outputs))
            with explained(self.source, f"{self.subject.name} fails when it is called again"):
                outputs, memory = self.subject.outputs(memory[0], copy.deepcopy(inputs))
                if not all(see.close(y, z) for y, z in zip(outputs, self.forward(inputs)[0])):
                    return  # it continues from the state of the call before
            again = self.backward(memory, copy.deepcopy(d_outputs))
        else:
            self.gradients(self.draw(), copy.deepcopy(d_outputs))
            again = self.gradients(inputs, d_outputs)
        changed = [f"d{name}" for name in first if not same(first[name], again.get(name))]
        if changed:
            where = see.line_of_state(self.source, self.subject.name)
            self.fault(f"the second call gives another {', '.join(changed)} than the first for the same "
                       f"inputs: something is kept between calls{where}")
            whole = self.gradients

            def gradients(inputs: dict, d_outputs: list) -> dict[str, Any]:
                self.namespace = self.fresh()
                return whole(inputs, d_outputs)
            self.gradients = gradients  # type: ignore[method-assign]

    def look_at_arguments(self, inputs: dict, d_outputs: list) -> None:
        """Compare the arguments before and after."""
        node = self.source.definitions[self.subject.name]
        if isinstance(self.subject, Together):
            return
        _, memory = self.forward(inputs)
        given, kept = copy.deepcopy(d_outputs), memory[1] if isinstance(self.subject, Layer) else memory
        before = copy.deepcopy(flatten_arrays(kept))
        self.backward(memory, given)
        names = parameters_of(node, "backward")
        for name, d, now in zip(names, d_outputs, given):
            if not np.array_equal(d, now):
                where = see.line_of_change(self.source, self.subject.name, name)
                self.verdict.notes.append(f"{self.subject.name} changes its argument {name} in place{where}: whoever "
                                          "uses it afterwards reads other numbers")
        if not all(map(np.array_equal, before, flatten_arrays(kept))):
            self.verdict.notes.append(f"{self.subject.name} changes values of its cache in place: a second backward on "
                                      "that cache gives other numbers")

    def look_at_clipping(self, inputs: dict, d_outputs: list) -> None:
        """A gradient is linear in what arrives, unless it is clipped."""
        clip, numbers = see.clipping(self.source, self.subject.name)
        bound = None
        if not isinstance(self.subject, Together):
            small = self.gradients(inputs, d_outputs)
            large = self.gradients(inputs, [1e4 * d for d in d_outputs])
            bound = see.bound_of_clipping([np.asarray(d) for name, d in large.items()
                                           if d is not None and not same(1e4 * small[name], d, 1e-3)])
        elif clip:  # what arrives is always 1: only larger weights make larger gradients
            self.subject.clips, self.namespace = True, self.fresh()
            for scale in (3.0, 10.0, 30.0):
                large = self.gradients(self.draw(scale), [np.ones(())])
                found = see.bound_of_clipping([np.asarray(d) for d in large.values() if d is not None])
                bound = found if found in numbers else bound
            self.subject.clips, self.namespace = False, self.fresh()
        if bound is not None:
            self.verdict.notes.append(f"{self.subject.name} clips its gradients at ±{bound:.4g}{clip}: they are judged "
                                      "unclipped; clip after the backward, and a gradient check can pass")

    def look_at_fewer_steps(self, reference: Callable) -> None:
        """The course's exercise has gradients for 4 of the 7 steps in the caches."""
        inputs = self.draw() | {"x": self.rng.normal(size=(*self.subject.inputs["x"][:2], LONG))}
        what = f"with da for {SHORT} of the {LONG} steps in the caches"
        try:
            outputs, memory = self.forward(inputs)
            da = self.rng.normal(size=(*outputs[0].shape[:2], SHORT))
            given = self.backward(memory, [da.copy()])
        except CouldNotRun as problem:
            self.fault(f"{what}, {problem}; take the number of steps from da, not from the caches")
            return
        first = inputs | {"x": inputs["x"][:, :, :SHORT]}
        _, pull = vjp(lambda *a: reference(*a)[0], *first.values())
        true = dict(zip(first, pull(da)))
        padded = np.concatenate([true["x"], np.zeros((*true["x"].shape[:2], LONG - SHORT))], axis=2)
        wrong = [f"d{name}" for name, d in given.items() if d is not None and not see.close(d, true[name], 1e-7)
                 and not (name == "x" and see.close(d, padded, 1e-7))]
        if wrong:
            self.fault(f"{what}, {', '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} wrong: go through the "
                       f"{SHORT} steps of da, not through all caches")


def caches_of_cells(caches: Any) -> bool:
    """Whether the caches of a sequence are the course's: (a list with the cache of each step, x)."""
    return isinstance(caches, tuple) and len(caches) == 2 and isinstance(caches[0], list)


def values(reference: Callable, inputs: dict[str, np.ndarray]) -> tuple:
    """The outputs of a reference as arrays."""
    with no_grad():
        found = reference(*inputs.values())
    found = found if isinstance(found, tuple) else (found,)
    return tuple(y.detach().numpy() if isinstance(y, Tensor) else np.asarray(y) for y in found)


def same(one: Any, other: Any, tolerance: float = 1e-6) -> bool:
    if one is None or other is None:
        return one is other
    return see.close(other, one, tolerance)


def flatten_arrays(tree: Any) -> list[np.ndarray]:
    """The arrays in a cache of any nesting."""
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return [tree] if isinstance(tree, np.ndarray) else [x for child in children for x in flatten_arrays(child)]
