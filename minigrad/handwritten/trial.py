"""One hand-written backward on trial: run it beside its forward, look at what it does, and audit its numbers.

Everything here runs the user's code in this process. The command `minigrad audit` calls it in a process of its own.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigrad.auditor.audit import audit
from minigrad.auditor.lines import bindings, quoted
from minigrad.auditor.report import AuditReport, Cause
from minigrad.engine.context import no_grad
from minigrad.engine.ops import softmax
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.engine.tensor import Tensor
from minigrad.functional import vjp
from minigrad.handwritten import observations as see
from minigrad.handwritten import references
from minigrad.handwritten.find import candidates, fitting, flat, like_output, other_sizes, with_example, with_globals
from minigrad.handwritten.given_cell import replace_cell
from minigrad.handwritten.layers import WEIGHT, copies_of, places
from minigrad.handwritten.lengths import is_parameter
from minigrad.handwritten.recordable import BOARDS, OnTensors
from minigrad.handwritten.repair import SECONDS, SECONDS_AT_A_LINE, Edit, edits_of, installed, repair
from minigrad.handwritten.shapes import Example
from minigrad.handwritten.source import SOFTMAX, CouldNotRun, Source, explained, on_arrays, parameters_of
from minigrad.handwritten.subjects import GRADIENT, LABELS, Subject, as_tuple, stacked
from minigrad.program.trace import TraceError

MOST_TARGETS = 6  # kinds of targets that are tried where the file has no loss
LONG, SHORT = 7, 4  # steps of the caches, and of the gradients that arrive, in the course's exercise of lstm_backward


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
    unlike: list[tuple[int, int]] = field(default_factory=list)  # lengths that did not fit one another

    @property
    def is_explained(self) -> bool:
        return self.status == "right" or (self.status == "wrong" and not self.unlike and not any(
            "not explained" in text for text in self.faults))

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.place}): {self.status}"]
        return "\n".join([*lines, *(f"  {line}" for text in self.faults for line in text.splitlines()),
                          *(f"  note: {note}" for note in self.notes)])


class Trial:
    """One subject, its namespace, and what was found. `cells` are the trials of the steps that it calls."""

    def __init__(self, source: Source, subject: Subject, cells: list[Trial]):
        self.source, self.subject, self.cells = source, subject, cells
        self.verdict = Verdict(subject.name, source.place(source.definitions[subject.name].lineno), subject.convention)
        self.activations: dict[str, Callable] = {}  # in place of the file's own
        self.use_true_forwards = False
        self.unclipped = False  # whether the file is run without what clips gradients
        self.reference: Callable | None = None
        self.is_usual = False  # whether the user's forward has the numbers of a usual one: its arguments are as meant
        self.behind: Callable | None = None  # the usual forward whose place the user's own takes
        self.globals: dict[str, int] = {}
        self.seconds: float | None = None  # that one call may take
        self.returned: list[str] = []  # the inputs whose gradients the backward returns
        self.namespace: dict[str, Any] = {}
        self.rng = np.random.default_rng(0)

    def fit(self, example: Example | None = None) -> None:
        """Find out how to call the two functions, with this example if one is given.

        Raises CouldNotRun if no way is found.
        """
        if library := self.source.library_of({self.subject.name, self.subject.forward_name}):
            raise CouldNotRun(f"{self.subject.name} uses {library}: the audit reads backward passes in NumPy")
        if self.subject.example is None or example is not None:
            self.subject = with_globals(self.subject, self.source)
            self.use_true_forwards = bool(self.subject.course)  # the user's may fail
            for other in (*self.subject.with_less(), None):
                try:
                    self.subject = fitting(self.subject, self.source, self.fresh(), example)
                    break
                except CouldNotRun:
                    if other is None:
                        raise
                    self.subject = other
            self.use_true_forwards = False
            if targets := self.taken_for_gradients():
                self.subject = fitting(replace(self.subject, example=None, targets=targets), self.source, self.fresh())
        if not self.subject.is_class:
            own = {"parameters", *self.subject.inputs, *self.source.assigned} - {*self.subject.held,
                                                                                 *self.subject.tables}
            now = self.fresh()
            self.globals = {name: line for name, line in self.source.global_names(self.subject.name, own).items()
                            if name in self.subject.inputs or self.has_weights(name, now.get(name))}
        self.namespace = self.fresh()
        if see.clipping(self.source, self.subject.name)[0]:
            inputs = self.draw()
            before, _ = self.forward(inputs)
            self.set_clipping(True)
            if not all(map(see.close, self.forward(inputs)[0], before)):  # the forward clips, as a hard tanh does
                self.set_clipping(False)

    def has_weights(self, name: str, value: Any) -> bool:
        """Whether a global is a dict of weights that the forward takes as arguments."""
        return name == "parameters" or (isinstance(value, dict) and bool(value) and value.keys() <= {
            *self.subject.inputs})

    def taken_for_gradients(self) -> tuple[str, ...]:
        """What seemed to be gradients that arrive, and are targets: where they are zero, something else comes out."""
        names, *_ = self.subject.forward(self.fresh(), self.draw())[1][1].get("", ((),))
        if self.subject.is_loss or not names or any(re.match(GRADIENT, name) for name in names):
            return ()
        self.namespace, inputs = self.fresh(), self.draw()
        outputs, _ = self.forward(inputs)
        given = self.gradients(inputs, [np.zeros(outputs[i].shape) for i in self.subject.arriving])
        return tuple(names) if any(d is not None and np.any(d) for d in given.values()) else ()

    def fresh(self, source: Source | None = None) -> dict[str, Any]:
        """The file's namespace, with the parts of the convention that it lacks."""
        subject, source = self.subject, source or self.source_in_use
        classes = [name for name, node in source.definitions.items() if isinstance(node, ast.ClassDef)]
        needs = [name for cell in self.cells for name in cell.subject.needs]
        namespace = source.run([*subject.needs, *needs, *classes],
                               {**dict.fromkeys(self.globals), **copy.deepcopy(subject.sizes)})
        if subject.name not in namespace:
            raise CouldNotRun(f"{subject.name} cannot be defined: {source.failed.get(subject.name)}")
        if subject.elsewhere is not None:
            namespace[subject.forward_name] = subject.elsewhere.run([subject.forward_name])[subject.forward_name]
        if subject.course:
            cell_differs = any(cell.verdict.forward_differs for cell in self.cells)
            for name, forward in references.course_forwards(subject.forward_name, namespace).items():
                if self.use_true_forwards or name not in namespace or (cell_differs and "_cell" in name):
                    namespace[name] = forward
        namespace |= self.activations
        for cell in self.wrong_cells:
            replace_cell(namespace, cell.subject, cell.reference)  # type: ignore[arg-type]
        return namespace

    @property
    def source_in_use(self) -> Source:
        return self.without_clips if self.unclipped else self.source

    @functools.cached_property
    def without_clips(self) -> Source:
        return self.source.unclipped(self.subject.name)

    def set_clipping(self, unclipped: bool) -> None:
        self.unclipped = unclipped
        self.namespace = self.fresh()

    @property
    def wrong_cells(self) -> list[Trial]:
        """Those that are replaced; not one that takes words or targets: its reference has its own."""
        return [cell for cell in self.cells if cell.verdict.backward_wrong and cell.reference is not None
                and not cell.subject.is_loss and not cell.subject.is_closure
                and not any(isinstance(value, np.ndarray) for value in cell.subject.example.constants.values())]

    # -- the user's two functions -----------------------------------------------------------------------

    def forward(self, inputs: dict[str, np.ndarray]) -> tuple[tuple, Any]:
        subject = self.subject
        with explained(self.source, f"{subject.forward_in_words} fails", self.seconds):
            self.set_globals(inputs, self.namespace)
            np.random.seed(0)  # dropout and its like are the same at each call
            outputs, memory = subject.forward(self.namespace, copy.deepcopy(inputs))
            if len(outputs) <= max(subject.arriving):
                raise CouldNotRun(f"{subject.forward_in_words} returns {len(outputs)} outputs and a cache, where "
                                  f"{max(subject.arriving) + 1} outputs or more are expected")
            return tuple(map(np.asarray, outputs)), memory

    def backward(self, memory: Any, d_outputs: list[np.ndarray]) -> dict[str, Any]:
        with explained(self.source, f"{self.subject.name} fails", self.seconds):
            found = self.subject.backward(self.namespace, memory, d_outputs)
            for name, d in found.items():
                if d is not None:
                    found[name] = np.asarray(stacked(d))
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

    # -- judging -----------------------------------------------------------------------------------------

    def judge(self) -> None:
        verdict, subject = self.verdict, self.subject
        if self.namespace["softmax"] is SOFTMAX and "softmax" in self.source.words and not subject.course:
            self.choose_softmax([on_arrays(softmax, axis=axis) for axis in (0, -1)])
        elif subject.is_loss and not subject.has_loss:
            self.choose_targets()
        elif not subject.is_loss and "softmax" in self.source.words and self.returns_softmax():
            self.choose_softmax([self.namespace["softmax"], SCORES])
            if self.activations["softmax"] is SCORES:
                self.verdict.notes.append(f"{subject.name} was judged as taking the gradient of what goes into the "
                                          "softmax, and not of its result")
            else:
                self.activations = {}
        self.reference = reference = self.true_forward()
        if reference is not None and subject.is_loss and subject.has_loss and self.differing(self.sample(reference)):
            self.choose_targets()
            chosen = self.subject
            if chosen.example is not subject.example or chosen.constants is not subject.constants or \
                    chosen.loss_name != subject.loss_name:
                self.reference = reference = self.own_forward()
        inputs = self.draw()
        outputs, memory = self.forward(inputs)
        subject = self.subject
        d_outputs = [self.rng.normal(size=outputs[i].shape) for i in subject.arriving]
        first = self.backward(memory, copy.deepcopy(d_outputs))
        self.refuse_other_shapes(first)
        self.look_for_unwritten(first)
        loop, part = see.passes_over(self.source, subject.name, subject.backward_name)
        if loop:
            verdict.status, verdict.faults = "not written", [f"not written yet: {loop}"]
            return
        if part:
            verdict.faults.append(f"not written yet: {part}")
        if reference is None:
            verdict.status = "wrong"
            verdict.notes.append(f"{subject.name} is judged once its forward is right")
            return
        self.look_at_order()
        self.look_at_state(inputs, d_outputs, first)
        self.look_at_copies(inputs, d_outputs)
        self.look_at_arguments(inputs, d_outputs)
        self.look_at_clipping(inputs, d_outputs)
        if self.globals:
            names, line = ", ".join(self.globals), self.source.place(min(self.globals.values()))
            self.fault(f"{subject.name} reads {names} from globals ({line}), not from its cache: it is right only "
                       "while they are the weights of the forward")
        self.audit(reference, {name: d for name, d in first.items() if d is not None})
        if not verdict.backward_wrong and subject.course == "lstm":
            self.look_at_fewer_steps(reference)
        if subject.detached and not verdict.backward_wrong:
            names = ", ".join(f"d{name}" for name in subject.inputs if name in subject.detached)
            self.fault(f"grads of {subject.name} does not hold {names}: the backward of a layer puts new arrays in the "
                       "place of those that were collected; write into them, as in self.grads[i][...] = grad")
        self.look_at_digits(reference)
        verdict.notes += filter(None, [subject.remark])
        if subject.unnamed and not verdict.faults:
            verdict.notes.append(f"not judged: {', '.join(sorted(subject.unnamed))}, which {subject.name} returns, and "
                                 "no input or weight of that name was found")
        if verdict.faults:
            verdict.status = "wrong"
        for cell in [cell for cell in self.wrong_cells if cell.verdict.status != "could not run"]:
            verdict.notes.append(f"{subject.name} was judged with a right {cell.subject.name} in place of yours")

    def fault(self, text: str) -> None:
        self.verdict.faults.append(text)
        self.verdict.backward_wrong = True

    def refuse_other_shapes(self, gradients: dict[str, Any]) -> None:
        """Raise CouldNotRun if most gradients have other sizes than their inputs: then the inputs are not as meant."""
        inputs, other = self.subject.inputs, other_sizes(gradients, self.subject.inputs)
        if len(other) > max(1.0, len(gradients) / 2):
            name, given = other[0], np.shape(gradients[other[0]])
            raise CouldNotRun(f"{len(other)} of its {len(gradients)} gradients have other sizes than what they belong "
                              f"to, as d{name} {given} and {name} {inputs[name]}: the shapes that were found for it "
                              "are not those that you mean; give --forward and --shapes")

    def choose_targets(self) -> None:
        """Take the targets, and where the file has none the usual loss, that make most gradients right."""
        wrong, own, text = np.inf, self.subject, ""
        chosen, problems = own, list[CouldNotRun]()
        losses = list(references.usual_losses()) if not own.has_loss else [("", own.true_loss)]

        def kinds() -> Iterator[Subject]:
            yield from self.targets()
            if wrong == 0.5 or wrong >= len(self.returned):  # none is right, or all are one multiple
                yield from itertools.islice(candidates(own, self.source, self.namespace), MOST_TARGETS)
        for subject, (name, loss) in ((kind, loss) for kind in kinds() for loss in losses):
            self.subject = replace(subject, true_loss=loss)
            try:
                with explained(self.source, ""):
                    sample = self.sample(self.own_forward())
                    if (differing := self.differing(sample)) is not None:
                        now = 0.5 if differing and self.is_multiple(sample) else len(differing)
                        if now < wrong:
                            wrong, chosen, text = now, self.subject, name
            except CouldNotRun as problem:
                problems.append(problem)
            if not wrong:
                break
        self.subject = chosen
        failed = [one for one in problems if str(one).startswith(f"{own.name} fails")]
        if wrong == np.inf and failed:
            raise max(failed, key=lambda one: self.source.line_of(one.__cause__ or one))  # where one came furthest
        if wrong == np.inf:
            raise CouldNotRun(f"{own.name} takes targets, and its gradients are those of no loss that was tried: "
                              "let the forward return the loss")
        if wrong and text:
            self.verdict.notes.append(f"{own.name} was judged as the gradient of {text}: the file has no loss")

    def returns_softmax(self) -> bool:
        """Whether gradients arrive at an output of the file's softmax."""
        outputs: tuple = ()
        with contextlib.suppress(CouldNotRun, IndexError):
            outputs, _ = self.forward(self.draw())
        return any(y.ndim and np.all(y > 0) and any(np.allclose(y.sum(axis), 1) for axis in range(y.ndim))
                   for y in (outputs[i] for i in self.subject.arriving if i < len(outputs)))

    def choose_softmax(self, kinds: list[Callable]) -> None:
        """Take the softmax of these that makes most gradients right."""
        own, least, chosen = self.subject, np.inf, (self.subject, self.activations, self.verdict.notes)
        for kind in kinds:
            self.subject, self.activations, self.verdict.notes = own, {"softmax": kind}, []
            self.namespace = self.fresh()
            with contextlib.suppress(CouldNotRun, IndexError):
                if own.is_loss and not own.has_loss:
                    self.choose_targets()
                wrong = self.differing(self.sample(self.own_forward()))
                if wrong is not None and len(wrong) < least:
                    least, chosen = len(wrong), (self.subject, self.activations, self.verdict.notes)
        self.subject, self.activations, self.verdict.notes = chosen
        self.namespace = self.fresh()

    def targets(self) -> Iterator[Subject]:
        """The subject with each kind of targets: classes, and numbers that add up to one along an axis."""
        subject, example = self.subject, self.subject.example
        yield subject
        for table in [path for path, value in example.constants.items() if re.search(LABELS, path)
                      and np.ndim(value) > 1 and value.dtype.kind == "f"]:
            for axis in range(np.ndim(example.constants[table])):
                constants = example.constants | {table: like_output(example.constants[table].shape, axis)}
                yield replace(subject, example=replace(example, constants=constants))
        if subject.loss_name:
            yield replace(subject, loss_name="")
        yield from itertools.islice(with_example(subject, example, self.namespace), MOST_TARGETS)

    def is_multiple(self, sample: tuple) -> bool:
        """Whether all gradients are one number times the true ones of a sample."""
        inputs, _, d_outputs, true = sample
        given = {name: d for name, d in self.gradients(inputs, list(d_outputs)).items() if d is not None}
        is_alike = all(np.shape(d) == np.shape(true[name]) for name, d in given.items())
        return bool(given) and is_alike and see.factor(given, true) is not None

    def sample(self, reference: Callable) -> tuple:
        """(inputs, outputs, gradients that arrive, true gradients)"""
        inputs = self.draw()
        y, pull = vjp(self.arriving(reference), *inputs.values())
        d_outputs = tuple(self.rng.normal(size=leaf.shape) for leaf in y)
        return inputs, y, d_outputs, dict(zip(inputs, pull(d_outputs)))

    def differing(self, sample: tuple, tolerance: float = 1e-5) -> list[str] | None:
        """The inputs whose gradients are not the true ones of a sample; None if the outputs are not."""
        inputs, y, d_outputs, true = sample
        outputs, memory = self.forward(inputs)
        if not all(see.close(outputs[i], leaf) for i, leaf in zip(self.subject.arriving, y)):
            return None
        given = self.backward(memory, copy.deepcopy(list(d_outputs)))
        self.returned = self.returned or [name for name, d in given.items() if d is not None]
        return [name for name in self.returned if not see.close(given.get(name), true[name], tolerance)]

    def true_forward(self) -> Callable | None:
        """The usual forward whose numbers are the user's, in the user's names where these can be had.

        If the forward differs, that is a fault, and the next best is returned: the course's forward, for its caches are
        known; the user's own, if it runs on tensors; or None.
        """
        subject, verdict = self.subject, self.verdict
        if self.activations.get("softmax") is SCORES:
            return self.own_forward()
        usual = references.usual(subject)
        inputs = self.draw()
        try:
            outputs, _ = self.forward(inputs)
            if reference := self.matching(usual.forwards, inputs, outputs):
                self.is_usual = True
                return self.in_own_names(reference) if usual.own_names else reference
            wrong = dict(see.own_activations(self.source, self.namespace))
            if not usual.is_certain:
                return self.that_is_meant(usual, wrong)
            if not any(cell.verdict.forward_differs for cell in self.cells):
                verdict.faults += [f"your forward differs: {text}" for text in wrong.values()]
            verdict.forward_differs = bool(wrong)
            if wrong:
                self.activations = {name: see.as_named(name, self.namespace) for name in wrong}
                self.namespace = self.fresh()
                outputs, _ = self.forward(inputs)
                if reference := self.matching(usual.forwards, inputs, outputs):
                    return reference
        except CouldNotRun as problem:
            if not subject.course:
                raise
            unwritten = see.not_written(self.source, subject.forward_name, True) \
                if subject.forward_name in self.source.definitions else ""
            verdict.faults.append(f"your forward is not written yet: {unwritten}" if unwritten else str(problem))
        else:
            if differing := [cell.subject.name for cell in self.cells if cell.verdict.forward_differs]:
                raise CouldNotRun(f"not judged: the forward of {differing[0]} differs")
            reference = usual.forwards[0]
            text = self.difference(inputs, outputs, reference, values(reference, inputs))
            verdict.faults.append(f"your forward differs: {text}")
        verdict.forward_differs = True
        if subject.course:
            self.use_true_forwards = True
            self.namespace = self.fresh()
            verdict.notes.append(f"{subject.name} was judged on the caches of a right forward")
            return usual.forwards[0]
        with contextlib.suppress(CouldNotRun):
            reference = self.own_forward()
            verdict.notes.append(f"{subject.name} was judged as the backward of your own forward")
            return reference
        return None

    def that_is_meant(self, usual: references.Usual, wrong: dict[str, str]) -> Callable:
        """The forward whose gradients the backward gives: the user's own, the same with right activations in place of
        some `wrong` ones, or a usual one. A tie goes to the user's own."""
        best: tuple = (math.inf, self.subject, {})
        own = None
        try:
            own = self.own_forward()
            differing = self.differing(self.sample(own)) if wrong or usual.own_names else None
            if not differing and (differing is not None or not wrong):
                return own
            best = (math.inf if differing is None else len(differing), self.subject, {})
        except CouldNotRun:
            if not wrong:
                raise
        kinds = list(self.targets()) if self.subject.is_loss else [self.subject]
        some = [names for n in range(len(wrong)) for names in itertools.combinations(wrong, n + 1)]
        for names, axis, self.subject in itertools.product(some, (0, 1, 2), kinds):  # three kinds of softmax
            self.activations = {name: see.as_named(name, self.namespace, axis) for name in names}
            self.namespace = self.fresh()
            with contextlib.suppress(CouldNotRun, IndexError):
                sample = self.sample(self.own_forward())
                zero = [name for name in self.returned if not np.any(abs(sample[-1][name]) > 1e-9)]  # right by chance
                found = self.differing(sample)
                if found is not None and len(found + zero) < best[0]:
                    best = len(found + zero), self.subject, self.activations
        _, self.subject, self.activations = best
        self.namespace = self.fresh()
        if self.activations or own is None:
            self.verdict.faults += [f"your forward differs: {wrong[name]}" for name in self.activations]
            self.verdict.forward_differs = True
            return self.own_forward()
        if not usual.own_names:
            return own
        meant = next((forward for forward in usual.forwards if self.gives(forward)), None)
        inputs, forward = self.draw(), meant or usual.forwards[0]
        text = self.difference(inputs, self.forward(inputs)[0], forward, values(forward, inputs))
        if meant:
            self.verdict.faults.append(f"your forward differs: {text}; {self.subject.name} is the backward of that one")
            self.verdict.forward_differs = True
        else:
            self.verdict.notes.append(f"your forward differs from the usual one: {text}; {self.subject.name} was "
                                      "judged as the backward of yours")
        return meant or own

    def gives(self, forward: Callable) -> bool:
        """Whether the backward gives the gradients of another forward."""
        inputs, _, d_outputs, true = self.sample(forward)
        given = self.gradients(inputs, list(d_outputs))
        return all(d is None or see.close(d, true[name]) for name, d in given.items())

    def matching(self, forwards: Sequence[Callable], inputs: dict, outputs: tuple) -> Callable | None:
        """The one with the numbers of the user's forward."""
        for forward in forwards:
            with contextlib.suppress(IndexError):  # targets that are not classes
                if all(see.close(y, z) for y, z in zip(outputs, values(forward, inputs))):
                    return forward
        return None

    def in_own_names(self, reference: Callable) -> Callable:
        """The user's forward in place of a reference with the same numbers, if tensors can go through it."""
        with contextlib.suppress(CouldNotRun):
            self.behind = reference
            return self.own_forward()
        return reference

    def own_forward(self) -> Callable:
        """The user's forward itself, rewritten for tensors. Raises CouldNotRun if it does not run on them."""
        subject, source = self.subject, self.source
        what = f"{subject.forward_in_words} cannot be differentiated"
        with explained(source, what):
            if subject.elsewhere is not None:
                source = subject.elsewhere
                namespace = source.recordable().run([subject.forward_name])
            else:
                namespace = self.fresh(source.recordable(subject.backward_name if subject.together else None))
            namespace |= see.right_activations(source, namespace)
            namespace |= {name: OnTensors(value) for name, value in namespace.items() if value is np}

        def forward(*arguments: Any) -> Any:
            inputs = dict(zip(subject.inputs, arguments))
            self.set_globals(inputs, namespace)
            BOARDS.clear()
            np.random.seed(0)
            if state := getattr(forward, "state", None):  # that of one of several calls
                np.random.set_state(state)
            return subject.forward(namespace, inputs)[0]

        def agrees(scale: float, tolerance: float) -> bool:
            inputs = self.draw(scale)
            with explained(self.source, what):
                found, _ = vjp(forward, *inputs.values())
            return all(see.close(y, z, tolerance) for y, z in zip(flatten(found)[0], self.forward(inputs)[0]))
        # log(p + 1e-7) is recorded as log(p)
        if not agrees(1.0, 1e-5) and not (subject.is_loss and agrees(0.1, 1e-3)):
            raise CouldNotRun(f"{subject.forward_in_words} gives other numbers on tensors than on arrays")
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

    def arriving(self, reference: Callable) -> Callable:
        """A forward with only the outputs whose gradients arrive, as a tuple."""
        def forward(*arguments: Any) -> Any:
            found = as_tuple(reference(*arguments))
            return tuple(found[i] for i in self.subject.arriving)
        return forward

    def audit(self, reference: Callable, returned: dict[str, np.ndarray]) -> None:
        """Have the library compare the gradients that the backward returns, and describe what it finds."""
        subject, names = self.subject, [name for name in self.subject.inputs if name in returned]
        self.look_for_lacking(reference, returned)
        is_searched = not references.usual(subject).is_certain and not self.is_usual
        try:
            report = self.shared(reference, names) or self.report(reference, names)
        except Exception as problem:  # the forward depends on values, as a sigmoid in two halves
            if self.behind is not None:
                report = self.report(self.behind, names)
            else:
                report, is_searched = self.comparison(reference, names), False
                report.notes = report.notes if isinstance(problem, TraceError) else []
        wrong_steps = [cell.subject.name for cell in self.cells if cell.verdict.backward_wrong]
        if report.unexplained and len(wrong_steps) > len(self.wrong_cells):  # one could not be replaced
            self.verdict.notes.append(f"{subject.name} calls {', '.join(wrong_steps)}: mend that first")
            report.notes = []
        else:
            self.look_for_integers(reference, report)
            self.look_for_mends(reference, report)
            self.look_for_edits(reference, report)
        unexplained = {name: returned[name] for name in names if f"d{name}" in report.unexplained}
        strange = other_sizes(unexplained, subject.inputs)
        if report.unexplained and not any(cause.kind != "edit" for cause in report.causes) and (
                len(strange) > 1 or (is_searched and not report.right and not report.causes)):
            raise CouldNotRun(self.unjudged())
        self.verdict.notes += [note.removeprefix("note: ") for note in report.notes]
        if not report.ok:
            report.notes = []
            for cause in report.causes:
                cause.text += self.mean_in(cause.text)
                if not (cause.forward_line or "").startswith((self.source.file, references.__file__)):
                    cause.forward_line = None
            self.fault(self.in_places(str(report)))
            for name in [name for name in names if f"d{name}" in report.unexplained]:
                given, shape = returned[name].shape, subject.inputs[name]
                if given != shape:
                    self.verdict.unlike += [pair for pair in zip(given, shape) if pair[0] != pair[1]]
                    self.fault(f"d{name} has the shape {given}, and {name} has {shape}")

    def unjudged(self) -> str:
        """What is said where no gradient is right and no fault explains one: the arguments may not be as meant."""
        subject, shapes = self.subject, ", ".join(f"{name} {shape}" for name, shape in self.subject.inputs.items())
        return (f"{subject.name} cannot be judged: its gradients are not those of {subject.forward_in_words}, and no "
                f"fault explains them; if its arguments have other shapes than {shapes}, give --forward and "
                "--shapes")

    def mean_in(self, text: str) -> str:
        """What is added to "db: 1/7 times the gradient", or 7 times, where one axis of data has the length 7."""
        inputs, found = self.subject.inputs, re.match(r"d(\w+).*: (1/)?(\d+) times the gradient$", text)
        n = int(found[3]) if found else 0
        axes = [(name, shape.index(n)) for name, shape in inputs.items() if name not in self.subject.held
                and not re.match(WEIGHT, name) and n in shape] if n > 2 else []
        if not found or not axes or (found[2] and n in inputs.get(found[1], ())):
            return ""
        where = "axis {1} of {0}".format(*axes[0])
        return f": the mean over {where} in place of the sum" if found[2] else \
            f": the division by the length of {where} is missing, as of a mean"

    def shared(self, reference: Callable, names: list[str]) -> AuditReport | None:
        """The report on a backward of which some, or all, is wrong because an array is changed under another name."""
        report = self.comparison(reference, names)
        report.notes = []
        self.look_for_edits(reference, report, only_copies=True)
        return report if report.causes and not report.unexplained else None

    def edits(self, at: int | None = None) -> list[Edit]:
        """The edits of the user's code, or all of one line."""
        subject, others = self.subject, [name for cell in self.cells for name in cell.subject.needs]
        forwards = list(filter(None, (subject.forward_name, subject.loss_name)))
        return [] if subject.elsewhere else edits_of(
            self.source_in_use, subject.name if subject.is_class else "", subject.name if subject.is_closure else
            subject.backward_name, [] if subject.is_closure else forwards, others, *self.shapes_in_use, at)

    @functools.cached_property
    def shapes_in_use(self) -> tuple[dict[str, set[tuple]], bool]:
        """The shapes of the arrays of each name in the user's code, and whether gradients have wrong shapes."""
        inputs, shapes = self.draw(), defaultdict[str, set[tuple]](set)
        d_outputs = [np.ones(self.forward(inputs)[0][i].shape) for i in self.subject.arriving]
        found, bound = bindings(lambda: self.gradients(inputs, d_outputs), self.source.file)
        for one in bound:
            shapes[one.name].add(one.values.shape)
        return shapes, any(d is not None and np.shape(d) != self.subject.inputs[name] for name, d in found.items())

    def look_for_integers(self, reference: Callable, report: AuditReport) -> None:
        """Say which gradients are right but for their fractions, for they are kept in arrays of integers."""
        cut = [name for name in self.subject.inputs if f"d{name}" in report.wrong]
        for inputs, _, d_outputs, true in [self.sample(reference) for _ in range(3)] if cut else ():
            _, memory = self.forward(inputs)
            given, by = self.backward(memory, list(d_outputs)), d_outputs[0] if self.subject.is_loss else 1.0
            whole = given | (self.subject.kept(memory[0]("")) if self.subject.is_class else {})
            cut = [name for name in cut if whole.get(name) is not None and whole[name].dtype.kind in "iu"
                   and see.close(given[name], by * np.trunc(true[name] / by))]
        if not cut:
            return
        names = [f"d{name}" for name in cut]
        for cause in report.causes:
            cause.explains = [name for name in cause.explains if name not in names]
        lines = {n.lineno for f in self.source.functions_in(self.subject.name) for n in ast.walk(f)
                 if isinstance(n, ast.Attribute | ast.Name) and re.fullmatch(r"(np\.|numpy\.)?u?int(8|16|32|64)?",
                                                                             ast.unparse(n))}
        report.unexplained = [name for name in report.unexplained if name not in names]
        report.notes = report.notes if report.unexplained else []
        report.causes = [*filter(lambda cause: cause.explains, report.causes), Cause(
            f"{', '.join(names)} {'are' if names[1:] else 'is'} kept in an array of integers, which cuts the fractions",
            "integers", names, backward_line=quoted(self.source.file, lines.pop()) if len(lines) == 1 else None)]

    def look_for_mends(self, reference: Callable, report: AuditReport) -> None:
        """The edit of a cause's line that mends all that the cause explains, and more if it is the whole fault.

        It takes the place of a cause whose words say little: two changes, another value for a whole path, or a factor
        for each step.
        """
        for cause in [cause for cause in report.causes if cause.kind != "edit"]:
            is_vague = cause.kind == "another path" or "; and " in cause.text or "has the factors" in cause.text
            line = int((cause.backward_line or ":0").removeprefix(self.source.file).split(":")[1])
            edits = self.edits(line) + (self.edits() if is_vague else [])
            found = self.repaired(reference, [name.removeprefix("d") for name in cause.explains + report.unexplained],
                                  edits, SECONDS / 2 if is_vague else SECONDS_AT_A_LINE)
            mended = [f"d{name}" for name in found[1]] if found else []
            if found and {*cause.explains} <= {*mended}:
                cause.mend, cause.explains = found[0].text, [name for name in report.wrong if name in mended]
                report.unexplained = [name for name in report.unexplained if name not in mended]
                if is_vague:
                    cause.text, cause.mend, cause.also = cause.mend, None, []
                    cause.backward_line = quoted(self.source.file, found[0].line)

    def look_for_edits(self, reference: Callable, report: AuditReport, only_copies: bool = False) -> None:
        """Find the edits that mend what is not explained: those that copy a shared array, or all others."""
        wrong = [name for name in self.subject.inputs if f"d{name}" in report.unexplained]
        edits = [edit for edit in self.edits() if (edit.cost <= 0) is only_copies] if wrong else []
        with contextlib.ExitStack() as edited:
            while wrong and (found := self.repaired(reference, wrong, edits)):
                edit, mended = found
                edited.enter_context(installed(edit, self.namespace, self.source.file))
                report.causes.append(Cause(edit.text, "edit", [f"d{name}" for name in mended],
                                           backward_line=quoted(self.source.file, edit.line)))
                wrong = [name for name in wrong if name not in mended]
        report.unexplained = [f"d{name}" for name in wrong]
        report.notes = report.notes if wrong else [n for n in report.notes if "agree with each other" not in n]

    def repaired(self, reference: Callable, wrong: list[str], edits: list[Edit], seconds: float = SECONDS
                 ) -> tuple[Edit, list[str]] | None:
        """The edit that mends all that is wrong, or most, and what it mends."""
        samples = [self.sample(reference) for _ in range(3)]
        self.seconds = 1.0  # an edit may make a loop endless
        found = repair(lambda k: self.differing(samples[k]), wrong, edits, self.namespace, self.source.file, seconds)
        self.seconds = None
        return found

    def comparison(self, reference: Callable, names: list[str]) -> AuditReport:
        """Which gradients are right, where the forward cannot be traced and no fault can be looked for."""
        report, sample = AuditReport(), self.sample(reference)
        if not any(np.any(sample[-1][name]) for name in names):
            raise CouldNotRun(f"every gradient of {self.subject.name} is zero at the arguments that were found: give "
                              "--forward and --shapes")
        wrong = self.differing(sample, 1e-7) or []
        report.right = [f"d{name}" for name in names if name not in wrong]
        report.unexplained = [f"d{name}" for name in wrong]
        report.wrong = dict.fromkeys(report.unexplained, float("inf"))
        if report.wrong:
            report.notes.append("your forward branches on values, so no fault was looked for")
        return report

    def report(self, reference: Callable, names: list[str]) -> AuditReport:
        """The audit of the gradients of these inputs."""
        subject, arriving = self.subject, self.arriving(reference)

        def forward(*arguments: Any) -> Any:
            found = arriving(*arguments)
            return found if len(found) > 1 else found[0]

        def backward(d_outputs: Any, *arguments: Any) -> dict[str, Any]:
            inputs = {name: np.array(value) for name, value in zip(subject.inputs, arguments)}
            d_outputs = d_outputs if isinstance(d_outputs, tuple) else (d_outputs,)
            found = self.gradients(inputs, [np.array(d) for d in d_outputs])
            return {f"d{name}": found[name] for name in names}

        forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in subject.inputs])
        user = self.namespace[subject.name]
        backward.__wrapped__ = getattr(user, subject.backward_name, user)  # type: ignore[attr-defined]
        backward.passed_over = {f.lineno for cell in self.cells  # type: ignore[attr-defined]
                                for f in self.source.functions_in(cell.subject.name)}
        report = audit(forward, backward, *map(np.zeros, subject.inputs.values()),
                       names={f"d{name}": name for name in names}, other_sizes=False)
        report.missing = []  # `look_for_lacking` says which
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

    def look_for_lacking(self, reference: Callable, returned: dict[str, np.ndarray]) -> None:
        """Say which gradients are missing and not zero: all that a convention has, else a few of the weights.

        If many are missing, the backward returns them in a way that was not found.
        """
        subject, inputs = self.subject, self.draw()
        usual = references.usual(subject)  # what another function returns is its own affair
        is_certain = not subject.is_loss and (usual.is_certain or (
            bool(usual.forwards) and usual.own_names and not subject.is_class))
        weights = [name for name in subject.inputs if name in subject.held or (
            "." in (path := subject.paths.get(name, "")) and is_parameter(path))]
        lacking = [name for name in (subject.inputs if is_certain else weights) if name not in returned]
        if not lacking or any("not written" in text for text in self.verdict.faults):
            return
        y, pull = vjp(self.arriving(reference), *inputs.values())
        d = dict(zip(inputs, pull(map_leaves(lambda leaf: np.ones(leaf.shape), y))))
        lacking = [name for name in lacking if np.any(d[name])]
        if (is_certain and lacking) or 3 * len(lacking) == 3 <= len(weights):
            (self.fault if is_certain else self.verdict.notes.append)(
                f"{subject.name} does not return {', '.join(f'd{name}' for name in lacking)}")

    def look_at_order(self) -> None:
        """Whether two gradients of one shape are returned in each other's places."""
        inputs, names = self.subject.inputs, list(map(self.subject.input_of, flat(self.subject.returns)))
        exchanged = [pair for pair in zip(names, inputs) if pair[0] != pair[1]]
        if sorted(names) == sorted(inputs) and len(exchanged) == 2 and len({inputs[n] for n, _ in exchanged}) == 1:
            (one, other), _ = exchanged
            self.fault(f"{self.subject.name} returns d{one} before d{other}, and its forward takes {other} before "
                       f"{one}: whoever reads them by position exchanges them")

    def look_at_state(self, inputs: dict, d_outputs: list, first: dict[str, Any]) -> None:
        """Call again: with the same inputs, and after a call with others, in the same namespace."""
        if self.subject.is_class:
            outputs, _ = self.forward(inputs)
            weights = {name: inputs[name] for name in self.subject.held if name in inputs}
            for before in (inputs, self.draw() | weights):
                _, memory = self.forward(before)
                self.backward(memory, copy.deepcopy(d_outputs))
                with explained(self.source, f"{self.subject.name} fails when it is called again"):
                    again, memory = self.subject.run_forward(memory[0], copy.deepcopy(inputs))
                    if not all(map(see.close, again, outputs)):
                        return  # it continues from the state of the call before
                found = self.backward(memory, copy.deepcopy(d_outputs))
                if not all(same(first[name], found.get(name)) for name in first):
                    break
        else:
            self.gradients(self.draw(), copy.deepcopy(d_outputs))
            found = self.gradients(inputs, d_outputs)
            in_globals = self.subject.together and self.subject.in_globals(self.namespace)
            if in_globals and all(same(first[name], found.get(name)) for name in first):
                _, (owner, *_) = self.forward(inputs)  # and with these gradients as they are, the weights as they were
                self.namespace |= {name: inputs[name].copy() for name in self.subject.held if name in inputs}
                _, memory = self.subject.run_forward(owner, copy.deepcopy(inputs))
                found = self.backward(memory, copy.deepcopy(d_outputs))
        changed = [f"d{name}" for name in first if not same(first[name], found.get(name))]
        kept = [f"d{name}" for name in first if name in self.subject.held]
        twice = [name for name in kept if same(2 * np.asarray(first[name[1:]]), found.get(name[1:]))]
        if changed and twice == changed == kept and (self.subject.is_class or re.search(
                r"\.fill\(0|\*= ?0\b|\[(\.\.\.|:)\] = 0", self.source.text)):  # whoever calls it may set them to zero
            self.subject = replace(self.subject, adds_up=True)
            self.verdict.notes.append(f"{', '.join(changed)} {'add' if changed[1:] else 'adds'} up over calls: set "
                                      f"{'them' if changed[1:] else 'it'} to zero before each step")
        elif changed:
            where = see.line_of_state(self.source, self.subject.name)
            self.fault(f"the second call gives another {', '.join(changed)} than the first for the same "
                       f"inputs: something is kept between calls{where}")
            whole = self.gradients

            def gradients(inputs: dict, d_outputs: list) -> dict[str, Any]:
                self.namespace = self.fresh()
                return whole(inputs, d_outputs)
            self.gradients = gradients  # type: ignore[method-assign]

    def look_at_copies(self, inputs: dict, d_outputs: list) -> None:
        """Change the weights in place after the constructor: does the backward use copies that it made of them?"""
        subject, made = self.subject, self.draw()
        weights = {name: made[name] for name, path in subject.paths.items() if path in subject.makes}
        copies = copies_of(subject.owner(self.namespace, made)(""), weights) if subject.is_class else {}

        def gradients(is_mended: bool) -> dict[str, Any] | None:
            """Those at other weights, and at copies of them if it is mended; None if the outputs are others."""
            owner = subject.owner(self.namespace, made)
            for place in places(owner("")):
                for name, w in weights.items() if is_mended or place.path not in copies else ():
                    for old, new in ((w, inputs[name]), (w.T, inputs[name].T)):
                        if np.array_equal(place.value, old):
                            place.value[...] = new
            outputs, memory = subject.run_forward(owner, copy.deepcopy(inputs))
            return self.backward(memory, copy.deepcopy(d_outputs)) if all(map(see.close, outputs, true)) else None
        if not copies:
            return
        true, memory = self.forward(inputs)
        right = self.backward(memory, copy.deepcopy(d_outputs))
        with explained(self.source, f"{subject.name} fails when its weights are changed in place"):
            stale, mended = gradients(False), gradients(True)
        if stale is None or mended is None or not all(same(right[name], mended.get(name)) for name in right):
            return
        if wrong := [f"d{name}" for name in right if not same(right[name], stale.get(name))]:
            which = ", ".join(f"{'.'.join(map(str, path))}, a copy of {name}" for path, name in copies.items())
            self.fault(f"{', '.join(wrong)} {'are' if wrong[1:] else 'is'} wrong once the weights change: the backward "
                       f"uses {which} that the constructor made")

    def look_at_arguments(self, inputs: dict, d_outputs: list) -> None:
        """Compare the arguments before and after."""
        subject, node = self.subject, self.source.definitions[self.subject.name]
        if subject.together:
            return
        _, memory = self.forward(inputs)
        pool, given = memory[1], copy.deepcopy(d_outputs)
        before = copy.deepcopy(arrays(pool))
        self.backward(memory, given)
        names = [name for name in parameters_of(node, subject.backward_name) if name not in pool]
        for name, d, now in zip(names, d_outputs, given):
            if not np.array_equal(d, now):
                where = see.line_of_change(self.source, subject.name, name)
                self.verdict.notes.append(f"{subject.name} changes its argument {name} in place{where}: whoever "
                                          "uses it afterwards reads other numbers")
        if not all(map(np.array_equal, before, arrays(pool))):
            self.verdict.notes.append(f"{subject.name} changes values of its cache in place: a second backward on "
                                      "that cache gives other numbers")

    def look_at_digits(self, reference: Callable) -> None:
        """Note gradients that are right to the digits of float32 only, where the file asks for it."""
        line = next((n.lineno for n in ast.walk(self.source.tree) if isinstance(n, ast.Attribute)
                     and n.attr in ("float32", "single")), 0)
        if not line or self.verdict.backward_wrong or any("float32" in note for note in self.verdict.notes):
            return
        sample = self.sample(reference)
        if rounded := self.differing(sample, 1e-11):
            self.verdict.notes.append(f"{', '.join(f'd{name}' for name in rounded)} computed in float32 "
                                      f"({self.source.place(line)}), and judged to its digits")

    def look_at_clipping(self, inputs: dict, d_outputs: list) -> None:
        """A gradient is linear in what arrives, unless it is clipped."""
        clip, numbers = see.clipping(self.source, self.subject.name)
        own, was, bound = self.subject, self.unclipped, None
        cases = [(inputs, [1e4 * d for d in d_outputs])]
        if own.is_loss:  # what arrives is always 1: only larger weights and longer texts make larger gradients
            self.subject = longer(own)
            try:
                self.forward(inputs)
            except CouldNotRun:  # it asserts their length
                self.subject = own
            cases = [(self.draw(scale), [np.ones(())]) for scale in (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)]
        for inputs, d_outputs in cases if clip or not own.is_loss else []:
            self.set_clipping(False)
            given = {name: np.asarray(d) for name, d in self.gradients(inputs, d_outputs).items() if d is not None}
            if own.is_loss:
                found = see.bound_of_clipping(list(given.values()))
                bound = found if found in numbers else bound
            else:
                small = self.gradients(inputs, [1e-6 * d for d in d_outputs])
                bound = see.bound_of_clipping([d for name, d in given.items() if not same(
                    1e6 * np.asarray(small[name], float), d, 1e-3)])
            if clip and bound is None:
                self.set_clipping(True)
                free = self.gradients(inputs, d_outputs)
                cut = {f"d{name}": (free[name], d) for name, d in given.items() if not same(free[name], d)}
                n = max((np.abs(d).max() for _, d in cut.values()), default=0.0)  # it may be divided afterwards
                if cut and all(same(np.clip(whole, -n, n), d) for whole, d in cut.values()):
                    bound = float(n)
                if cut and bound is None and see.factor(given, free):
                    bound = float(np.sqrt(sum(np.sum(d ** 2) for d in given.values())))
                elif cut and bound is None:
                    self.fault(f"{own.name} clips what it goes on to use{clip}: wherever that is cut, {', '.join(cut)} "
                               "are not the gradients; clip them when they are finished")
                    break
        self.subject = own
        self.set_clipping(was)
        if bound is not None:
            self.verdict.notes.append(f"{self.subject.name} clips its gradients at ±{bound:.4g}{clip}: they are judged "
                                      "unclipped; clip after the backward, and a gradient check can pass")

    def look_at_fewer_steps(self, reference: Callable) -> None:
        """The course's exercise has gradients for 4 of the 7 steps in the caches: what goes wrong there is no fault."""
        x, *_ = self.subject.inputs
        inputs = self.draw() | {x: self.rng.normal(size=(*self.subject.inputs[x][:2], LONG))}
        what = f"with da for {SHORT} of the {LONG} steps in the caches, as in the course's exercise"
        try:
            outputs, memory = self.forward(inputs)
            da = self.rng.normal(size=(*outputs[0].shape[:2], SHORT))
            given = self.backward(memory, [da.copy()])
        except CouldNotRun as problem:
            self.verdict.notes.append(f"{what}, {problem}; take the number of steps from da, not from the caches")
            return
        first = inputs | {x: inputs[x][:, :, :SHORT]}
        _, pull = vjp(lambda *a: reference(*a)[0], *first.values())
        true = dict(zip(first, pull(da)))
        given = {name: d[:, :, :SHORT] if name == x else d for name, d in given.items() if d is not None}
        wrong = [f"d{name}" for name, d in given.items() if not see.close(d, true[name], 1e-7)]
        if wrong:
            are = "are" if wrong[1:] else "is"
            self.verdict.notes.append(f"{what}, {', '.join(wrong)} {are} wrong: go through the {SHORT} steps of da, "
                                      "from the first on, not through all caches")


def longer(subject: Subject) -> Subject:
    """The subject with texts, lists of integers, and what has their length, of twelve times the length."""
    example: Any = subject.example
    lengths = {len(v) for v in example.constants.values() if np.ndim(v) == 1}

    def many(constants: dict[str, Any]) -> dict[str, Any]:
        return {name: np.tile(v, 12) if np.ndim(v) == 1 else 12 * v if type(v) is int and v in lengths else v
                for name, v in constants.items()}
    return replace(subject, constants=many(subject.constants), example=replace(
        example, constants=many(example.constants)))


def SCORES(scores: Any) -> Any:
    """In place of a softmax where its argument's gradient arrives, p − y, and not its own."""
    return scores


def values(reference: Callable, inputs: dict[str, np.ndarray]) -> tuple:
    """The outputs of a reference as arrays."""
    with no_grad():
        found = as_tuple(reference(*inputs.values()))
    return tuple(y.detach().numpy() if isinstance(y, Tensor) else np.asarray(y) for y in found)


def same(one: Any, other: Any, tolerance: float = 1e-6) -> bool:
    if one is None or other is None:
        return one is other
    return see.close(other, one, tolerance)


def arrays(tree: Any) -> list[np.ndarray]:
    """The arrays in a cache of any nesting."""
    return [leaf for leaf in flatten(tree)[0] if isinstance(leaf, np.ndarray)]
