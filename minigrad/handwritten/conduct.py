"""What a backward does besides its numbers, seen by running it: what it lacks, keeps, changes or clips."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.engine.pytree import flatten, map_leaves
from minigrad.functional import vjp
from minigrad.handwritten import observations as see
from minigrad.handwritten import references
from minigrad.handwritten.find import flat
from minigrad.handwritten.layers import copies_of, places
from minigrad.handwritten.lengths import is_parameter
from minigrad.handwritten.meant import own_forward
from minigrad.handwritten.source import CouldNotRun, explained, parameters_of
from minigrad.handwritten.subjects import Subject, reset
from minigrad.handwritten.trial import Trial

MANY, LONGEST = 12, 60  # steps
LONG, SHORT = 7, 4  # steps of the caches, and of the gradients that arrive, in the course's exercise of lstm_backward


def look(trial: Trial, inputs: dict, d_outputs: list, first: dict[str, Any]) -> None:
    """All that is to be seen before the numbers are audited; `first` are the gradients of a first call."""
    look_at_order(trial)
    look_at_state(trial, inputs, d_outputs, first)
    look_at_copies(trial, inputs, d_outputs)
    look_at_arguments(trial, inputs, d_outputs)
    look_at_clipping(trial, inputs, d_outputs)
    look_at_globals(trial)


def look_at_the_right(trial: Trial, reference: Callable) -> None:
    """What is to be said of gradients that are right at the lengths and by the digits that were tried."""
    if not trial.verdict.backward_wrong and trial.subject.course == "lstm":
        look_at_fewer_steps(trial, reference)
    look_at_more_steps(trial)
    look_at_lists(trial)
    look_at_digits(trial, reference)


def look_for_unwritten(trial: Trial, found: dict[str, Any]) -> None:
    missing = [name for name, value in found.items() if value is None]
    if not found or len(missing) == len(found):
        raise CouldNotRun(f"{trial.subject.name} returns None")
    if missing:
        trial.fault(f"not written yet: {', '.join('d' + name for name in missing)}")


def look_for_lacking(trial: Trial, reference: Callable, returned: dict[str, np.ndarray]) -> None:
    """Say which gradients are missing and not zero: all that a convention has, else a few of the weights.

    If many are missing, the backward returns them in a way that was not found.
    """
    subject, inputs = trial.subject, trial.draw()
    usual = references.usual(subject)  # what another function returns is its own affair
    is_certain = not subject.is_loss and (usual.is_certain or (
        bool(usual.forwards) and usual.own_names and not subject.is_class))
    weights = [name for name in subject.inputs if name in subject.held or (
        "." in (path := subject.paths.get(name, "")) and is_parameter(path))]
    lacking = [name for name in (subject.inputs if is_certain else weights) if name not in returned]
    if not lacking or any("not written" in text for text in trial.verdict.faults):
        return
    y, pull = vjp(trial.arriving(reference), *inputs.values())
    d = dict(zip(inputs, pull(map_leaves(lambda leaf: np.ones(leaf.shape), y))))
    lacking = [name for name in lacking if np.any(d[name])]
    is_certain &= not subject.has_others
    if (is_certain and lacking) or 3 * len(lacking) == 3 <= len(weights):
        (trial.fault if is_certain else trial.verdict.notes.append)(
            f"{subject.name} does not return {', '.join(f'd{name}' for name in lacking)}")
    elif lacking:
        trial.verdict.notes.append(f"not judged: {', '.join(f'd{name}' for name in lacking)}, which {subject.name} "
                                   "does not return, or in a way that was not found")


def look_at_order(trial: Trial) -> None:
    """Whether two gradients of one shape are returned in each other's places."""
    inputs, names = trial.subject.inputs, list(map(trial.subject.input_of, flat(trial.subject.returns)))
    exchanged = [pair for pair in zip(names, inputs) if pair[0] != pair[1]]
    if sorted(names) == sorted(inputs) and len(exchanged) == 2 and len({inputs[n] for n, _ in exchanged}) == 1:
        (one, other), _ = exchanged
        trial.fault(f"{trial.subject.name} returns d{one} before d{other}, and its forward takes {other} before "
                    f"{one}: whoever reads them by position exchanges them")


def look_at_state(trial: Trial, inputs: dict, d_outputs: list, first: dict[str, Any]) -> None:
    """Call again: with the same inputs, and after a call with others, in the same namespace."""
    if trial.subject.is_class:
        outputs, _ = trial.forward(inputs)
        weights = {name: inputs[name] for name in trial.subject.held if name in inputs}
        for before in (inputs, trial.draw() | weights):
            _, memory = trial.forward(before)
            trial.backward(memory, copy.deepcopy(d_outputs))
            with explained(trial.source, f"{trial.subject.name} fails when it is called again"):
                reset(memory[0](""), r"(reset|clear)(_?(state|hidden|h))?$")
                again, memory = trial.subject.run_forward(memory[0], copy.deepcopy(inputs))
                if not all(map(see.close, again, outputs)):
                    return  # it continues from the state of the call before
            found = trial.backward(memory, copy.deepcopy(d_outputs))
            if not all(same(first[name], found.get(name)) for name in first):
                break
    else:
        trial.gradients(trial.draw(), copy.deepcopy(d_outputs))
        found = trial.gradients(inputs, d_outputs)
        in_globals = trial.subject.together and trial.subject.in_globals(trial.namespace)
        if in_globals and all(same(first[name], found.get(name)) for name in first):
            _, (owner, *_) = trial.forward(inputs)  # and with these gradients as they are, the weights as they were
            trial.namespace |= {name: inputs[name].copy() for name in trial.subject.held if name in inputs}
            _, memory = trial.subject.run_forward(owner, copy.deepcopy(inputs))
            found = trial.backward(memory, copy.deepcopy(d_outputs))
    changed = [f"d{name}" for name in first if not same(first[name], found.get(name))]
    kept = [f"d{name}" for name in first if name in trial.subject.held]
    twice = [name for name in kept if same(2 * np.asarray(first[name[1:]]), found.get(name[1:]))]
    if changed and twice == changed == kept and (trial.subject.is_class or re.search(
            r"\.fill\(0|\*= ?0\b|\[(\.\.\.|:)\] = 0", trial.source.text)):  # whoever calls it may set them to zero
        trial.subject = replace(trial.subject, adds_up=True)
        trial.verdict.notes.append(f"{', '.join(changed)} {'add' if changed[1:] else 'adds'} up over calls: set "
                                   f"{'them' if changed[1:] else 'it'} to zero before each step")
    elif changed:
        where = see.line_of_state(trial.source, trial.subject.name)
        trial.fault(f"the second call gives another {', '.join(changed)} than the first for the same "
                    f"inputs: something is kept between calls{where}")
        trial.begins_anew = True
    elif trial.subject.is_class:
        look_at_sums(trial, inputs, d_outputs, memory)


def look_at_sums(trial: Trial, inputs: dict, d_outputs: list, memory: Any) -> None:
    """Whether gradients add up over calls where nobody sets them to zero."""
    found = list[dict[str, Any]]()
    with contextlib.suppress(CouldNotRun), explained(trial.source, ""):
        for keeps in (False, True):
            _, memory = trial.subject.run_forward(memory[0], copy.deepcopy(inputs), keeps)
            found.append(copy.deepcopy(trial.backward(memory, copy.deepcopy(d_outputs))))
        once, twice = found
        if any(same(2 * np.asarray(d), twice.get(name)) for name, d in once.items() if d is not None and np.any(d)):
            trial.subject = replace(trial.subject, adds_up=True)


def look_at_copies(trial: Trial, inputs: dict, d_outputs: list) -> None:
    """Change the weights in place after the constructor: does the backward use copies that it made of them?"""
    subject, made = trial.subject, trial.draw()
    weights = {name: made[name] for name, path in subject.paths.items() if path in subject.makes}
    copies = copies_of(subject.owner(trial.namespace, made)(""), weights) if subject.is_class else {}

    def gradients(is_mended: bool) -> dict[str, Any] | None:
        """Those at other weights, and at copies of them if it is mended; None if the outputs are others."""
        owner = subject.owner(trial.namespace, made)
        for place in places(owner("")):
            for name, w in weights.items() if is_mended or place.path not in copies else ():
                for old, new in ((w, inputs[name]), (w.T, inputs[name].T)):
                    if np.array_equal(place.value, old):
                        place.value[...] = new
        outputs, memory = subject.run_forward(owner, copy.deepcopy(inputs))
        return trial.backward(memory, copy.deepcopy(d_outputs)) if all(map(see.close, outputs, true)) else None
    if not copies:
        return
    true, memory = trial.forward(inputs)
    right = trial.backward(memory, copy.deepcopy(d_outputs))
    with explained(trial.source, f"{subject.name} fails when its weights are changed in place"):
        stale, mended = gradients(False), gradients(True)
    if stale is None or mended is None or not all(same(right[name], mended.get(name)) for name in right):
        return
    if wrong := [f"d{name}" for name in right if not same(right[name], stale.get(name))]:
        which = ", ".join(f"{'.'.join(map(str, path))}, a copy of {name}" for path, name in copies.items())
        trial.fault(f"{', '.join(wrong)} {'are' if wrong[1:] else 'is'} wrong once the weights change: the backward "
                    f"uses {which} that the constructor made")


def look_at_arguments(trial: Trial, inputs: dict, d_outputs: list) -> None:
    """Compare the arguments before and after."""
    subject, node = trial.subject, trial.source.definitions[trial.subject.name]
    if subject.together:
        return
    _, memory = trial.forward(inputs)
    pool, given = memory[1], copy.deepcopy(d_outputs)
    before = copy.deepcopy(arrays(pool))
    trial.backward(memory, given)
    names = [name for name in parameters_of(node, subject.backward_name) if name not in pool]
    for name, d, now in zip(names, d_outputs, given):
        if not np.array_equal(d, now):
            where = see.line_of_change(trial.source, subject.name, name)
            trial.verdict.notes.append(f"{subject.name} changes its argument {name} in place{where}: whoever "
                                       "uses it afterwards reads other numbers")
    if not all(map(np.array_equal, before, arrays(pool))):
        trial.verdict.notes.append(f"{subject.name} changes values of its cache in place: a second backward on "
                                   "that cache gives other numbers")


def look_at_clipping(trial: Trial, inputs: dict, d_outputs: list) -> None:
    """A gradient is linear in what arrives, unless it is clipped."""
    clip, numbers = see.clipping(trial.source, trial.subject.name)
    if clip and not trial.unclipped:  # the forward clips, as a hard tanh does
        return
    own, was, bound = trial.subject, trial.unclipped, None
    cases = [(inputs, [1e4 * d for d in d_outputs])]
    if own.is_loss:  # what arrives is always 1: only larger weights and longer texts make larger gradients
        trial.subject = with_steps(own, LONGEST)
        try:
            trial.forward(inputs)
        except CouldNotRun:  # it asserts their length
            trial.subject = own
        cases = [(trial.draw(scale), [np.ones(())]) for scale in (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)]
    for inputs, d_outputs in cases if clip or not own.is_loss else []:
        trial.set_clipping(False)
        given = {name: np.asarray(d) for name, d in trial.gradients(inputs, d_outputs).items() if d is not None}
        if own.is_loss:
            found = see.bound_of_clipping(list(given.values()))
            bound = found if found in numbers else bound
        else:
            small = trial.gradients(inputs, [1e-6 * d for d in d_outputs])
            bound = see.bound_of_clipping([d for name, d in given.items() if not same(
                1e6 * np.asarray(small[name], float), d, 1e-3)])
        if clip and bound is None:
            trial.set_clipping(True)
            free = trial.gradients(inputs, d_outputs)
            cut = {f"d{name}": (free[name], d) for name, d in given.items() if not same(free[name], d)}
            n = max((np.abs(d).max() for _, d in cut.values()), default=0.0)  # it may be divided afterwards
            if cut and all(same(np.clip(whole, -n, n), d) for whole, d in cut.values()):
                bound = float(n)
            if cut and bound is None and see.factor(given, free):
                bound = float(np.sqrt(sum(np.sum(d ** 2) for d in given.values())))
            elif cut and bound is None:
                trial.fault(f"{own.name} clips what it goes on to use{clip}: wherever that is cut, {', '.join(cut)} "
                            "are not the gradients; clip them when they are finished")
                break
    trial.subject = own
    trial.set_clipping(was)
    if bound is not None:
        trial.verdict.notes.append(f"{trial.subject.name} clips its gradients at ±{bound:.4g}{clip}: they are judged "
                                   "unclipped; clip after the backward, and a gradient check can pass")


def look_at_globals(trial: Trial) -> None:
    if trial.globals:
        names, line = ", ".join(trial.globals), trial.source.place(min(trial.globals.values()))
        trial.fault(f"{trial.subject.name} reads {names} from globals ({line}), not from its cache: it is right only "
                    "while they are the weights of the forward")


def look_at_more_steps(trial: Trial) -> None:
    """Whether what is right for the few steps that were tried is wrong for more: the gradient is cut off."""
    own, most = trial.subject, 0
    wrong: list[str] | None = []
    with contextlib.suppress(CouldNotRun, IndexError), np.errstate(all="ignore"):
        for n in () if trial.verdict.faults else (MANY, *range(LONG, SHORT, -1)):
            trial.subject = with_steps(own, n)
            found = trial.differing(trial.sample(own_forward(trial), 0.3))
            wrong, most = (wrong or found, n - 1) if found else (wrong, most)
            if not found:
                break
    trial.subject = own
    if wrong:
        word = next(iter(re.findall(r"\w*trunc\w*", trial.source.text)), "")
        trial.verdict.notes.append(
            f"for more than {most} steps {', '.join(f'd{name}' for name in wrong)} are not the gradient of the loss: "
            f"it is carried back over some steps only{f' ({word})' if word else ''}")


def with_steps(subject: Subject, n: int, old: int = 0) -> Subject:
    """The subject with n in place of each length that only data have, but for 1, or of one `old` length of theirs."""
    example: Any = subject.example
    of_weights = {axis for path, known in example.known.items() if is_parameter(path) or known.kind == "number"
                  for length in known.axes for axis in length}
    short = {m for axis, m in example.lengths.items() if axis not in of_weights} - {1} or {
        len(v) for v in example.constants.values() if np.ndim(v) == 1}
    short = short & {old} if old else short

    def many(value: Any) -> Any:
        if np.ndim(value) and np.asarray(value).dtype.kind in "iufb":
            new = np.resize(value, tuple(n if m in short else m for m in np.shape(value)))
            sums = [axis for axis in range(new.ndim) if np.allclose(np.sum(value, axis), 1)]  # targets
            return new / new.sum(sums[0], keepdims=True) if sums and new.dtype.kind == "f" else new
        return n if type(value) is int and value in short else value
    example = replace(example, lengths={axis: n if m in short and axis not in of_weights else m
                                        for axis, m in example.lengths.items()},
                      constants={path: many(value) for path, value in example.constants.items()})
    inputs = subject.inputs | {name: example.shapes[path] for name, path in subject.paths.items()
                               if path in example.shapes}
    return replace(subject, example=example, inputs=inputs,
                   constants={name: many(value) for name, value in subject.constants.items()})


def with_a_label_of_minus_one(subject: Subject) -> Subject | None:
    """The subject with −1 in place of the first label in each array of labels; None if it has no labels."""
    def ignored(name: str, value: Any) -> Any:
        if np.ndim(value) and np.asarray(value).dtype.kind == "i" and subject.is_target(name.rpartition(".")[2]):
            value = np.array(value)
            value.flat[0] = -1
        return value
    own = {name: ignored(name, value) for name, value in subject.constants.items()}
    example = {path: ignored(path, value) for path, value in subject.example.constants.items()}
    is_other = any(one is not value for made, kept in ((own, subject.constants), (example, subject.example.constants))
                   for one, value in zip(made.values(), kept.values()))
    return replace(subject, constants=own, example=replace(subject.example, constants=example)) if is_other else None


def look_at_lists(trial: Trial) -> None:
    """Whether `grads` lists arrays that the layers no longer use."""
    subject = trial.subject
    if subject.detached and not trial.verdict.backward_wrong:
        names = ", ".join(f"d{name}" for name in subject.inputs if name in subject.detached)
        trial.fault(f"grads of {subject.name} does not hold {names}: the backward of a layer puts new arrays in the "
                    "place of those that were collected; write into them, as in self.grads[i][...] = grad")


def look_at_fewer_steps(trial: Trial, reference: Callable) -> None:
    """The course's exercise has gradients for 4 of the 7 steps in the caches: what goes wrong there is no fault."""
    x, *_ = trial.subject.inputs
    inputs = trial.draw() | {x: trial.rng.normal(size=(*trial.subject.inputs[x][:2], LONG))}
    what = f"with da for {SHORT} of the {LONG} steps in the caches, as in the course's exercise"
    try:
        outputs, memory = trial.forward(inputs)
        arriving = [trial.rng.normal(size=(*outputs[i].shape[:2], SHORT)) for i in trial.subject.arriving]
        given = trial.backward(memory, list(map(np.copy, arriving)))
    except CouldNotRun as problem:
        trial.verdict.notes.append(f"{what}, {problem}; take the number of steps from da, not from the caches")
        return
    first = inputs | {x: inputs[x][:, :, :SHORT]}
    _, pull = vjp(trial.arriving(reference), *first.values())
    true = dict(zip(first, pull(tuple(arriving))))
    given = {name: d[:, :, :SHORT] if name == x else d for name, d in given.items() if d is not None}
    wrong = [f"d{name}" for name, d in given.items() if not see.close(d, true[name], 1e-7)]
    if wrong:
        are = "are" if wrong[1:] else "is"
        trial.verdict.notes.append(f"{what}, {', '.join(wrong)} {are} wrong: go through the {SHORT} steps of da, "
                                   "from the first on, not through all caches")


def look_at_digits(trial: Trial, reference: Callable) -> None:
    """Note gradients that are right to the digits of float32 only, where the file asks for it."""
    line = see.line_of_float32(trial.source)
    if not line or trial.verdict.backward_wrong or any("float32" in note for note in trial.verdict.notes):
        return
    sample = trial.sample(reference)
    if rounded := trial.differing(sample, 1e-11):
        trial.verdict.notes.append(f"{', '.join(f'd{name}' for name in rounded)} computed in float32 "
                                   f"({trial.source.place(line)}), and judged to its digits")


def same(one: Any, other: Any, tolerance: float = 1e-6) -> bool:
    if one is None or other is None:
        return one is other
    return see.close(other, one, tolerance)


def arrays(tree: Any) -> list[np.ndarray]:
    """The arrays in a cache of any nesting."""
    return [leaf for leaf in flatten(tree)[0] if isinstance(leaf, np.ndarray)]
