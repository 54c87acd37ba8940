"""One hand-written backward on trial: find out how to call it, run it beside its forward, and compare its numbers.

Everything here runs the user's code in this process. The command `minigrad audit` calls it in a process of its own.
"""

from __future__ import annotations

import ast
import copy
import functools
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigrad.auditor.lines import bindings
from minigrad.functional import vjp
from minigrad.handwritten import observations as see
from minigrad.handwritten import references
from minigrad.handwritten.fit import fitting, other_sizes, with_globals
from minigrad.handwritten.given_cell import replace_cell
from minigrad.handwritten.shapes import Example
from minigrad.handwritten.source import CouldNotRun, Source, explained
from minigrad.handwritten.subjects import GRADIENT, Subject, as_tuple, stacked


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
        self.globals: dict[str, int] = {}  # weights that the backward reads from globals, with the line
        self.keys: dict[str, tuple] = {}  # of those that are dicts
        self.takes_scores = False  # whether what arrives at a softmax's result is the gradient of its argument
        self.begins_anew = False  # whether each call has a namespace of its own: something is kept between calls
        self.seconds: float | None = None  # that one call may take
        self.returned: list[str] = []  # the inputs whose gradients the backward returns
        self.wrong: list[str] = []  # of those the wrong ones
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
            self.keys = {name: tuple(now[name] if isinstance(now.get(name), dict) else (
                key for key in self.subject.inputs if key[0] in "Wb")) for name in self.globals}
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
            namespace[name] = inputs.get(name, {key: inputs[key] for key in self.keys.get(name, ()) if key in inputs})

    def gradients(self, inputs: dict[str, np.ndarray], d_outputs: list[np.ndarray]) -> dict[str, Any]:
        if self.begins_anew:
            self.namespace = self.fresh()
        _, memory = self.forward(inputs)
        return self.backward(memory, copy.deepcopy(d_outputs))

    def draw(self, scale: float = 1.0) -> dict[str, np.ndarray]:
        return {name: scale * self.rng.normal(size=shape) for name, shape in self.subject.inputs.items()}

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

    def sample(self, reference: Callable, scale: float = 1.0) -> tuple:
        """(inputs, outputs, gradients that arrive, true gradients)"""
        for smaller in (1.0, 0.2, 0.04):  # where a recurrence without bounds overflows
            inputs = self.draw(smaller * scale)
            with np.errstate(all="ignore"):
                y, pull = vjp(self.arriving(reference), *inputs.values())
                d_outputs = tuple(self.rng.normal(size=leaf.shape) for leaf in y)
                true = dict(zip(inputs, pull(d_outputs)))
            if all(np.isfinite(d).all() for d in true.values()):
                break
        return inputs, y, d_outputs, true

    def differing(self, sample: tuple, tolerance: float = 1e-5) -> list[str] | None:
        """The inputs whose gradients are not the true ones of a sample; None if the outputs are not."""
        inputs, y, d_outputs, true = sample
        outputs, memory = self.forward(inputs)
        if not all(see.close(outputs[i], leaf) for i, leaf in zip(self.subject.arriving, y)):
            return None
        given = self.backward(memory, copy.deepcopy(list(d_outputs)))
        self.returned = self.returned or [name for name, d in given.items() if d is not None]
        return [name for name in self.returned if not see.close(given.get(name), true[name], tolerance)]

    def arriving(self, reference: Callable) -> Callable:
        """A forward with only the outputs whose gradients arrive, as a tuple."""
        def forward(*arguments: Any) -> Any:
            found = as_tuple(reference(*arguments))
            return tuple(found[i] for i in self.subject.arriving)
        return forward

    @functools.cached_property
    def shapes_in_use(self) -> tuple[dict[str, set[tuple]], bool]:
        """The shapes of the arrays of each name in the user's code, and whether gradients have wrong shapes."""
        inputs, shapes = self.draw(), defaultdict[str, set[tuple]](set)
        d_outputs = [np.ones(self.forward(inputs)[0][i].shape) for i in self.subject.arriving]
        found, bound = bindings(lambda: self.gradients(inputs, d_outputs), self.source.file)
        for one in bound:
            shapes[one.name].add(one.values.shape)
        return shapes, any(d is not None and np.shape(d) != self.subject.inputs[name] for name, d in found.items())
