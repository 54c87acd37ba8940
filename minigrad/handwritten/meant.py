"""Which forward a backward belongs to: the user's own, a usual one with its numbers, or the one that they meant."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.engine.context import no_grad
from minigrad.engine.ops import softmax
from minigrad.engine.pytree import flatten
from minigrad.engine.tensor import Tensor
from minigrad.functional import vjp
from minigrad.handwritten import observations as see
from minigrad.handwritten import references
from minigrad.handwritten.fit import candidates, like_output, with_example, with_one_output
from minigrad.handwritten.recordable import BOARDS, OnTensors
from minigrad.handwritten.source import SOFTMAX, CouldNotRun, explained, on_arrays, seeded
from minigrad.handwritten.subjects import LABELS, Subject, as_tuple
from minigrad.handwritten.trial import Trial

ADDS = r"\+= *[\w.\[\]'\"]+ *\* *(lr|eta|alpha|\w*rate)\b|\+= *(lr|eta|alpha|\w*rate) *\*"  # W += update * alpha
MOST_TARGETS = 6  # kinds of targets that are tried where the file has no loss


def find_forward(trial: Trial) -> Callable | None:
    """The forward to judge by, after what the file leaves open has been chosen so that most gradients are right: its
    targets, its loss, its softmax. None if the user's own has faults and does not run on tensors."""
    subject = trial.subject
    has_softmax = "softmax" in trial.source.words
    if trial.namespace["softmax"] is SOFTMAX and has_softmax and not subject.course:
        choose_softmax(trial, [on_arrays(softmax, axis=axis) for axis in (0, -1)])
    elif subject.is_loss and not subject.has_loss:
        choose_targets(trial)
    elif not subject.is_loss and returns_softmax(trial):
        take_scores(trial)
    reference = own_forward(trial) if trial.takes_scores else true_forward(trial)
    if reference is not None:
        reference = take_one_output(trial, reference)
        subject = trial.subject
    if reference is not None and subject.is_loss and subject.has_loss and trial.differing(trial.sample(reference)):
        choose_targets(trial)
        chosen = trial.subject
        if chosen.example is not subject.example or chosen.constants is not subject.constants or \
                chosen.loss_name != subject.loss_name:
            return own_forward(trial)
    return reference


def take_one_output(trial: Trial, reference: Callable) -> Callable:
    """The forward with an output of length 1 where only the first entry of several is read, as in y[:, 0]."""
    own, true = trial.subject, trial.sample(reference)[-1]
    for example in with_one_output(own.example):
        with contextlib.suppress(CouldNotRun):
            trial.subject = replace(own, example=example, inputs=own.inputs | {
                name: example.shapes[path] for name, path in own.paths.items()})
            shorter = [(name, axis) for name, shape in own.inputs.items() for axis, n in enumerate(shape)
                       if n != trial.subject.inputs[name][axis]]
            rows = [np.moveaxis(true[name], axis, 0) for name, axis in shorter]
            if rows and all(np.any(d[0]) and not np.any(d[1:]) for d in rows):
                return own_forward(trial)
    trial.subject = own
    return reference


def take_updates(trial: Trial, reference: Callable) -> None:
    """Judge minus the gradient where the file adds it to the weights, W += lr * dW, and more is right so."""
    if not re.search(ADDS, trial.source.text):
        return
    own, sample = trial.subject, trial.sample(reference)
    wrong = trial.differing(sample)
    trial.subject = replace(own, sign=-1)
    left = trial.differing(sample) if wrong else None
    if not wrong or left is None or len(left) >= len(wrong):
        trial.subject = own
        return
    trial.verdict.notes.append(f"{own.name} returns minus the gradient, which the file adds to the weights")


def choose_targets(trial: Trial) -> None:
    """Take the targets, and where the file has none the usual loss, that make most gradients right."""
    wrong, own, text = np.inf, trial.subject, ""
    chosen, problems = own, list[CouldNotRun]()
    losses = list(references.usual_losses()) if not own.has_loss else [("", own.true_loss)]

    def kinds() -> Iterator[Subject]:
        yield from targets(trial)
        if own.example.lengths and (wrong == 0.5 or wrong >= len(trial.returned)):  # none is right, or one multiple
            others = itertools.islice(candidates(own, trial.source, trial.namespace), MOST_TARGETS)
            yield from (one for one in others if all(  # with an axis less a mean is over fewer numbers
                len(shape) >= len(own.inputs.get(name, ())) for name, shape in one.inputs.items()))
    for subject, (name, loss) in ((kind, loss) for kind in kinds() for loss in losses):
        trial.subject = replace(subject, true_loss=loss)
        try:
            with explained(trial.source, ""):
                sample = trial.sample(own_forward(trial))
                if (differing := trial.differing(sample)) is not None:
                    now = 0.5 if differing and is_multiple(trial, sample) else len(differing)
                    if now < wrong:
                        wrong, chosen, text = now, trial.subject, name
        except CouldNotRun as problem:
            problems.append(problem)
        if not wrong:
            break
    trial.subject = chosen
    failed = [one for one in problems if str(one).startswith(f"{own.name} fails")]
    if wrong == np.inf and failed:
        raise max(failed, key=lambda one: trial.source.line_of(one.__cause__ or one))  # where one came furthest
    if wrong == np.inf:
        raise CouldNotRun(f"{own.name} takes targets, and its gradients are those of no loss that was tried: "
                          "let the forward return the loss")
    if wrong and text:
        trial.verdict.notes.append(f"{own.name} was judged as the gradient of {text}: the file has no loss")


def returns_softmax(trial: Trial) -> bool:
    """Whether gradients arrive at an output of the file's softmax."""
    outputs: tuple = ()
    with contextlib.suppress(CouldNotRun, IndexError):
        outputs, _ = trial.forward(trial.draw())
    return any(y.ndim and np.all(y > 0) and any(np.allclose(y.sum(axis), 1) for axis in range(y.ndim))
               for y in (outputs[i] for i in trial.subject.arriving if i < len(outputs)))


def take_scores(trial: Trial) -> None:
    """Take what arrives for the gradient of a softmax's argument, p − y, and not of its result, if more is right so."""
    wrong: dict[bool, list[str] | None] = {}
    for trial.takes_scores in (False, True):
        with contextlib.suppress(CouldNotRun):
            wrong[trial.takes_scores] = trial.differing(trial.sample(own_forward(trial)))
    of_result, of_scores = wrong.get(False), wrong.get(True)
    trial.takes_scores = of_result is not None and of_scores is not None and len(of_scores) < len(of_result)
    if trial.takes_scores:
        trial.verdict.notes.append(f"{trial.subject.name} was judged as taking the gradient of what goes into the "
                                   "softmax, and not of its result")


def choose_softmax(trial: Trial, kinds: list[Callable]) -> None:
    """Take the softmax of these that makes most gradients right."""
    own, least, chosen = trial.subject, np.inf, (trial.subject, trial.activations, trial.verdict.notes)
    for kind in kinds:
        trial.subject, trial.activations, trial.verdict.notes = own, {"softmax": kind}, []
        trial.namespace = trial.fresh()
        with contextlib.suppress(CouldNotRun, IndexError):
            if own.is_loss and not own.has_loss:
                choose_targets(trial)
            wrong = trial.differing(trial.sample(own_forward(trial)))
            if wrong is not None and len(wrong) < least:
                least, chosen = len(wrong), (trial.subject, trial.activations, trial.verdict.notes)
    trial.subject, trial.activations, trial.verdict.notes = chosen
    trial.namespace = trial.fresh()


def targets(trial: Trial) -> Iterator[Subject]:
    """The subject with each kind of targets: classes, and numbers that add up to one along an axis."""
    subject, example = trial.subject, trial.subject.example
    yield subject
    for table in [path for path, value in example.constants.items() if re.search(LABELS, path)
                  and np.ndim(value) > 1 and value.dtype.kind == "f"]:
        for axis in range(np.ndim(example.constants[table])):
            constants = example.constants | {table: like_output(example.constants[table].shape, axis)}
            yield replace(subject, example=replace(example, constants=constants))
    if subject.loss_name:
        yield replace(subject, loss_name="")
    yield from itertools.islice(with_example(subject, example, trial.namespace), MOST_TARGETS)


def is_multiple(trial: Trial, sample: tuple) -> bool:
    """Whether all gradients are one number times the true ones of a sample."""
    inputs, _, d_outputs, true = sample
    given = {name: d for name, d in trial.gradients(inputs, list(d_outputs)).items() if d is not None}
    is_alike = all(np.shape(d) == np.shape(true[name]) for name, d in given.items())
    return bool(given) and is_alike and see.factor(given, true) is not None


def true_forward(trial: Trial) -> Callable | None:
    """The usual forward whose numbers are the user's, in the user's names where these can be had.

    If the forward differs, that is a fault, and the next best is returned: the course's forward, for its caches are
    known; the user's own, if it runs on tensors; or None.
    """
    subject, verdict = trial.subject, trial.verdict
    usual = references.usual(subject)
    inputs = trial.draw()
    try:
        outputs, _ = trial.forward(inputs)
        if reference := matching(trial, usual.forwards, inputs, outputs):
            trial.is_usual = True
            return in_own_names(trial, reference) if usual.own_names else reference
        wrong = dict(see.own_activations(trial.source, trial.namespace))
        if not usual.is_certain:
            return that_is_meant(trial, usual, wrong)
        if not any(cell.verdict.forward_differs for cell in trial.cells):
            verdict.faults += [f"your forward differs: {text}" for text in wrong.values()]
        verdict.forward_differs = bool(wrong)
        if wrong:
            trial.activations = {name: see.as_named(name, trial.namespace) for name in wrong}
            trial.namespace = trial.fresh()
            outputs, _ = trial.forward(inputs)
            if reference := matching(trial, usual.forwards, inputs, outputs):
                return reference
    except CouldNotRun as problem:
        if not subject.course:
            raise
        unwritten = see.not_written(trial.source, subject.forward_name, True) \
            if subject.forward_name in trial.source.definitions else ""
        verdict.faults.append(f"your forward is not written yet: {unwritten}" if unwritten else str(problem))
    else:
        if differing := [cell.subject.name for cell in trial.cells if cell.verdict.forward_differs]:
            raise CouldNotRun(f"not judged: the forward of {differing[0]} differs")
        reference = usual.forwards[0]
        text = difference(trial, inputs, outputs, reference, values(reference, inputs))
        verdict.faults.append(f"your forward differs: {text}")
    verdict.forward_differs = True
    if subject.course:
        trial.use_true_forwards = True
        trial.namespace = trial.fresh()
        verdict.notes.append(f"{subject.name} was judged on the caches of a right forward")
        return usual.forwards[0]
    with contextlib.suppress(CouldNotRun):
        reference = own_forward(trial)
        verdict.notes.append(f"{subject.name} was judged as the backward of your own forward")
        return reference
    return None


def that_is_meant(trial: Trial, usual: references.Usual, wrong: dict[str, str]) -> Callable:
    """The forward whose gradients the backward gives: the user's own, the same with right activations in place of
    some `wrong` ones, or a usual one. A tie goes to the user's own."""
    best: tuple = (math.inf, trial.subject, {})
    own = None
    try:
        own = own_forward(trial)
        differing = trial.differing(trial.sample(own)) if wrong or usual.own_names else None
        if not differing and (differing is not None or not wrong):
            return own
        best = (math.inf if differing is None else len(differing), trial.subject, {})
    except CouldNotRun:
        if not wrong:
            raise
    kinds = list(targets(trial)) if trial.subject.is_loss else [trial.subject]
    some = [names for n in range(len(wrong)) for names in itertools.combinations(wrong, n + 1)]
    for names, axis, trial.subject in itertools.product(some, (0, 1, 2), kinds):  # three kinds of softmax
        trial.activations = {name: see.as_named(name, trial.namespace, axis) for name in names}
        trial.namespace = trial.fresh()
        with contextlib.suppress(CouldNotRun, IndexError):
            sample = trial.sample(own_forward(trial))
            zero = [name for name in trial.returned if not np.any(abs(sample[-1][name]) > 1e-9)]  # right by chance
            found = trial.differing(sample)
            if found is not None and len(found + zero) < best[0]:
                best = len(found + zero), trial.subject, trial.activations
    _, trial.subject, trial.activations = best
    trial.namespace = trial.fresh()
    if trial.activations or own is None:
        trial.verdict.faults += [f"your forward differs: {wrong[name]}" for name in trial.activations]
        trial.verdict.forward_differs = True
        return own_forward(trial)
    if not usual.own_names:
        return own
    meant = next((forward for forward in usual.forwards if gives(trial, forward)), None)
    inputs, forward = trial.draw(), meant or usual.forwards[0]
    text = difference(trial, inputs, trial.forward(inputs)[0], forward, values(forward, inputs))
    if meant:
        trial.verdict.faults.append(f"your forward differs: {text}; {trial.subject.name} is the backward of that one")
        trial.verdict.forward_differs = True
    else:
        trial.verdict.notes.append(f"your forward differs from the usual one: {text}; {trial.subject.name} was "
                                   "judged as the backward of yours")
    return meant or own


def gives(trial: Trial, forward: Callable) -> bool:
    """Whether the backward gives the gradients of another forward."""
    inputs, _, d_outputs, true = trial.sample(forward)
    given = trial.gradients(inputs, list(d_outputs))
    return all(d is None or see.close(d, true[name]) for name, d in given.items())


def matching(trial: Trial, forwards: Sequence[Callable], inputs: dict, outputs: tuple) -> Callable | None:
    """The one with the numbers of the user's forward."""
    for forward in forwards:
        with contextlib.suppress(IndexError):  # targets that are not classes
            if all(see.close(y, z) for y, z in zip(outputs, values(forward, inputs))):
                return forward
    return None


def in_own_names(trial: Trial, reference: Callable) -> Callable:
    """The user's forward in place of a reference with the same numbers, if tensors can go through it."""
    with contextlib.suppress(CouldNotRun):
        trial.behind = reference
        return own_forward(trial)
    return reference


def own_forward(trial: Trial) -> Callable:
    """The user's forward itself, rewritten for tensors. Raises CouldNotRun if it does not run on them."""
    subject, source = trial.subject, trial.source
    what = f"{subject.forward_in_words} cannot be differentiated"
    with explained(source, what):
        if subject.elsewhere is not None:
            source = subject.elsewhere
            namespace = source.recordable().run([subject.forward_name])
        else:
            namespace = trial.fresh(source.recordable(subject.backward_name if subject.together else None,
                                                      subject.loss_at))
        namespace |= see.right_activations(source, namespace)
        namespace |= {name: passing(namespace[name]) for name in ("softmax", "softmax_") if trial.takes_scores}
        namespace |= {name: OnTensors(value) for name, value in namespace.items() if value is np}

    def forward(*arguments: Any) -> Any:
        inputs = dict(zip(subject.inputs, arguments))
        trial.set_globals(inputs, namespace)
        BOARDS.clear()
        np.random.seed(0)
        if state := getattr(forward, "state", None):  # that of one of several calls
            np.random.set_state(state)
        with seeded():
            return subject.forward(namespace, inputs)[0]

    def agrees(scale: float, tolerance: float) -> bool:
        inputs = trial.draw(scale)
        with explained(trial.source, what):
            found, _ = vjp(forward, *inputs.values())
        return all(see.close(y, z, tolerance) for y, z in zip(flatten(found)[0], trial.forward(inputs)[0]))
    # log(p + 1e-7) is recorded as log(p)
    if not agrees(1.0, 1e-5) and not (subject.is_loss and agrees(0.3, 1e-3)):
        raise CouldNotRun(f"{subject.forward_in_words} gives other numbers on tensors than on arrays")
    return forward


def difference(trial: Trial, inputs: dict, outputs: tuple, reference: Callable, true: tuple) -> str:
    found = see.first_difference(trial.source, lambda: trial.forward(inputs), lambda: values(reference, inputs))
    if found:
        return found
    k = next(k for k, (y, z) in enumerate(zip(outputs, true)) if not see.close(y, z))
    if outputs[k].shape != true[k].shape:
        return f"its output {k + 1} has the shape {outputs[k].shape}, and {true[k].shape} is right"
    index = np.unravel_index(np.argmax(np.abs(outputs[k] - true[k])), true[k].shape)
    return (f"its output {k + 1} is {outputs[k][index]:.4g} at {list(map(int, index))}, and {true[k][index]:.4g} "
            "is right")


def passing(softmax: Callable) -> Callable:
    """A softmax that hands back to its argument, as it is, what arrives at its result."""
    return lambda x, *rest, **options: x + (softmax(x, *rest, **options) - x).detach() if isinstance(
        x, Tensor) else softmax(x, *rest, **options)


def values(reference: Callable, inputs: dict[str, np.ndarray]) -> tuple:
    """The outputs of a reference as arrays."""
    with no_grad():
        found = as_tuple(reference(*inputs.values()))
    return tuple(y.detach().numpy() if isinstance(y, Tensor) else np.asarray(y) for y in found)
