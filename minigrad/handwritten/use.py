"""How a file itself calls its backward.

Names tell most of how a backward is called, and the search for arguments the rest. Where both fail, the calls in the
file's own demo or training loop (`watch`) show which function is the forward, which computes the loss, and what each
argument is.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from minigrad.handwritten.closures import in_words
from minigrad.handwritten.find import (
    BACK,
    FEWEST,
    MASK,
    NO_BACK,
    called_with,
    flat,
    gradients_in,
    loss_of,
    names_returned,
    results_of,
)
from minigrad.handwritten.layers import places
from minigrad.handwritten.lengths import BITS, Known, is_parameter
from minigrad.handwritten.shapes import Example
from minigrad.handwritten.source import Source, parameters_of, required
from minigrad.handwritten.subjects import GRADIENT, LABELS, Subject
from minigrad.handwritten.watch import Call, Watch

BESIDE = rf"{NO_BACK}|check|numeric|^_*(init|train|fit|main|test|update|step|optimi|sgd|adam|demo|sample|plot|clip)"
LONGEST = 4  # steps of a sequence in a list, also where the file's own has fewer


def subjects_by_use(source: Source, watch: Watch) -> Iterator[Subject]:
    """A subject for each backward that the file calls, with the roles that its calls show."""
    seen = set[tuple[str, str]]()
    for at, call in enumerate(watch.calls):
        if call.key not in seen and call.ended and (subject := subject_of(source, watch, at)):
            seen.add(call.key)
            yield subject


def subject_of(source: Source, watch: Watch, at: int) -> Subject | None:
    """The subject whose backward is this call, if it looks like one and a forward was called before it."""
    call, (cls, name) = watch.calls[at], watch.calls[at].key
    node = node_of(source, cls, name)
    if node is None or re.search(BESIDE, name) or (cls and cls not in source.definitions):
        return None
    before, returns, is_named = calls_before(watch, at), names_returned(node), bool(re.search(BACK, name))
    loss = next((one for one in reversed(before) if is_number(one.result)), None) or loss_beside(watch, call, before)
    if is_number(call.result) and call.owner is None and returns_gradients(call):
        return Subject(name, "loss and gradients in one function", name, name, returns=returns,
                       order=parameters_used(source, call), is_guess=True)
    made = len(gradients_in(node, source)) >= FEWEST or any(re.match(GRADIENT, one) for one in flat(returns))
    if not before or is_number(call.result) or not (is_named or made or has_shapes_of_weights(call, before)):
        return None
    forward = before[0] if loss in before else before[-1]
    convention = in_words(source.definitions[cls]) if cls else "functions in pairs, forward and backward"
    subject = Subject(cls or name, convention, name, forward.name, is_class=bool(cls), returns=returns,
                      is_guess=not is_named)
    subject.order, subject.takes = parameters_used(source, forward), parameters_used(source, call)
    if cls:
        if (init := made_by(watch, call.owner)) is None and node_of(source, cls, "__init__") is not None:
            return None
        subject.makes = parameters_used(source, init) if init else ()
    if loss and loss is not forward:
        subject.loss_name, subject.loss_takes = loss.name, parameters_used(source, loss)
    passed = [passed_as(one, [call, *([loss] if loss else [])]) for one in as_parts(forward.result)]
    own = source.methods(cls) if cls else source.definitions
    named = results_of(forward.name, own, source)
    named = named if len(named) == len(passed) else ("",) * len(passed)
    subject.results = tuple(one or (name if name not in passed else "") for one, name in zip(passed, named))
    if loss is None and not any(re.match(GRADIENT, one) for one in subject.takes):
        subject.loss_name = loss_of(subject, own, True)
        subject.loss_takes = called_with(own[subject.loss_name], bool(cls)) if subject.loss_name else ()
    subject.alias = aliases(forward, [call, *([loss] if loss else [])])
    outputs = [np.shape(y) for y in as_parts(forward.result) if isinstance(y, np.ndarray)]
    for one in filter(None, (loss if subject.loss_name else None, call)):
        for key, value in (one.copies or {}).items():
            known = key in subject.order or key in subject.results or key in subject.alias
            is_arriving = one is call and is_float(value) and np.shape(value) in outputs and not is_one_hot(value)
            if not known and not is_arriving and key in (*subject.takes, *subject.loss_takes):
                subject.given[key] = value
    return subject


def returns_gradients(call: Call) -> bool:
    """Whether a function returns arrays besides a number, each of the shape of an argument."""
    shapes = {one.shape for one in parts_of(call.given) if is_float(one) and one.ndim}
    arrays = [one for one in parts_of(as_parts(call.result)[1:]) if is_float(one)]
    return sum(one.shape in shapes for one in arrays) >= FEWEST


def loss_beside(watch: Watch, call: Call, before: list[Call]) -> Call | None:
    """A method of the same object that returns a number, called after the backward with arguments of the same names."""
    known = {name for one in (call, *before) for name in one.given}
    return next((one for one in watch.calls if before and call.owner is not None and one.owner is call.owner and
                 one.ended and is_number(one.result) and {*one.given} <= known and one.caller == call.caller
                 and one.name != call.name), None)


def has_shapes_of_weights(call: Call, before: list[Call]) -> bool:
    """Whether a call returns arrays, each of the shape of one that its object, or the forward's arguments, keep."""
    shapes = {place.value.shape for place in places(call.owner) if isinstance(place.value, np.ndarray)} | {
        one.shape for other in before for one in parts_of(other.given) if is_float(one)}
    arrays = [one for one in parts_of(call.result) if is_float(one)]
    return call.result is None or (len(arrays) >= FEWEST and {one.shape for one in arrays} <= shapes)


def node_of(source: Source, cls: str, name: str) -> Any:
    if not cls:
        found = source.definitions.get(name)
        return found if isinstance(found, ast.FunctionDef) else None
    return source.methods(cls).get(name) if isinstance(source.definitions.get(cls), ast.ClassDef) else None


def calls_before(watch: Watch, at: int) -> list[Call]:
    """The calls on which this one builds, made from the same place: of the same object, or whose results it takes."""
    call, found, others = watch.calls[at], list[Call](), list[Call]()
    given = parts_of(call.given)
    for one in watch.calls[:at][::-1]:
        if not one.ended or one.name.startswith("__init") or re.search(NO_BACK, one.name):
            continue
        if one.key == call.key and one.owner is call.owner:
            break  # of the step before
        is_mine = one.owner is call.owner if call.owner is not None else one.owner is None and (
            any(part is other for part in parts_of(one.result) for other in given) or bool(
                {*map(id, parts_of(one.given))} & {*map(id, given)}))
        if is_mine and one.result is not None and one.caller == call.caller:
            found.insert(0, one)
        elif is_mine and call.owner is not None and one.caller >= 0 and (
                watch.calls[one.caller].owner is not call.owner):
            others.append(one)  # of a part: the whole's forward calls its forward
    return found or others[:1]


def parts_of(value: Any, depth: int = 3) -> list[Any]:
    """The arrays and objects in what a call takes or returns, not numbers and words, which are alike everywhere."""
    if value is None or isinstance(value, (bool, int, float, str, np.generic)):
        return []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [value, *(part for one in inner if depth for part in parts_of(one, depth - 1))]


def as_parts(result: Any) -> tuple:
    return tuple(result) if isinstance(result, tuple) else (result,)


def is_number(value: Any) -> bool:
    """Whether a result is a loss, or begins with one."""
    first = as_parts(value)[0] if as_parts(value) else None
    return isinstance(first, (float, np.floating)) or (isinstance(first, np.ndarray) and first.size == 1 == first.ndim)


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def is_one_hot(value: Any) -> bool:
    return bool(np.isin(value, (0, 1)).all() and np.any(value) and not np.all(value))


def scale_of(value: Any, is_mask: bool) -> float | None:
    """k of an array of zeros and k, as a mask of dropout that is divided by what is kept; None for anything else."""
    k = float(value.max(initial=0))
    return k if k not in (0, 1) and (is_mask or np.any(value == 0)) and np.isin(value, (0, k)).all() else None


def parameters_used(source: Source, call: Call) -> tuple[str, ...]:
    """The parameters of a call without a default, and those that had another value than theirs."""
    node = node_of(source, *call.key)
    names = parameters_of(node)[call.owner is not None:]
    needed = len(required(node)) - (call.owner is not None)
    defaults = dict(zip(names[needed:], node.args.defaults))

    def is_default(name: str) -> bool:
        with_value = defaults.get(name)
        try:
            return with_value is not None and bool(ast.literal_eval(with_value) == call.given.get(name))
        except (ValueError, TypeError):
            return with_value is not None and not isinstance(call.given.get(name), (np.ndarray, int, float, list, dict))
    used = [not is_default(name) for name in names]
    return tuple(name for i, name in enumerate(names) if any(used[i:]))


def made_by(watch: Watch, owner: Any) -> Call | None:
    """The call that made an object."""
    return next((one for one in watch.calls if one.name == "__init__" and one.owner is owner), None)


def passed_as(result: Any, others: list[Call]) -> str:
    """The parameter of the calls that follow as which a result is passed on; "" if none."""
    if isinstance(result, (bool, int, float, str, type(None))):
        return ""
    return next((name for one in others for name in one.given if is_passed(result, one, name)), "")


def is_passed(value: Any, call: Call, name: str) -> bool:
    """Whether an argument of a call is this value: the very object, or an array with its numbers."""
    given: Any = (call.copies or {}).get(name)
    return call.given[name] is value or (is_float(value) and is_float(given) and value.size > 1 and bool(
        np.ptp(value)) and np.array_equal(value, given))


def aliases(forward: Call, others: list[Call]) -> dict[str, str]:
    """{parameter: that of the forward} with the same argument, by another name."""
    return {name: own for one in others for name, given in one.given.items() for own, mine in forward.given.items()
            if parts_of(given) and own != name and name not in forward.given and (
                given is mine or is_passed((forward.copies or {}).get(own), one, name))}


# -- the arguments ---------------------------------------------------------------------------------------------


def ways(watch: Watch, subject: Subject) -> Iterator[tuple[Subject, Example | None]]:
    """The subject with the arguments of its constructor and forward as the file gives them: first only what they are,
    so that a search finds lengths that differ, and then all as they are."""
    cls = subject.name if subject.is_class else ""
    forward = next((one for one in watch.calls if one.key == (cls, subject.forward_name) and one.copies), None)
    if forward is None:
        return
    init = made_by(watch, forward.owner) if cls else None
    copies = (init.copies or {} if init else made_of(forward.owner) or {}), forward.copies or {}
    if not {*subject.makes} <= copies[0].keys() or not {*subject.order} <= copies[1].keys():
        return
    yield replace(subject, known=example_from(subject, copies, True).known, given={}), None
    yield subject, example_from(subject, copies, False)


def example_from(subject: Subject, copies: tuple[dict, dict], is_open: bool) -> Example:
    known, constants = dict[str, Known](), dict[str, Any]()
    names = (*subject.makes, *(f"{subject.forward_name}.{name}" if name in subject.makes else name
                               for name in subject.order))
    values = [*(copies[0][name] for name in subject.makes), *(copies[1][name] for name in subject.order)]
    lengths = {n for one in parts_of(values, 6) if isinstance(one, np.ndarray) for n in one.shape}

    def add(path: str, value: Any) -> None:
        last = path.rpartition(".")[2]
        if is_float(value) and (value.ndim or "." in path) and not (re.match(LABELS, last) and not is_open):
            axes = tuple({f"{path}.{i}": 1} if is_open and n > 1 else {"": n} for i, n in enumerate(value.shape))
            is_mask = bool(re.search(MASK, path))
            known[path] = Known("array", axes, value=None if is_parameter(path) and not is_mask else BITS if is_one_hot(
                value) else scale_of(value, is_mask))
        elif isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
            known[path] = Known("mapping", keys=tuple(value))
            for key, one in value.items():
                add(f"{path}.{key}", one)
        elif isinstance(value, (tuple, list)) and value and not hasattr(value, "_fields") and any(
                isinstance(one, np.ndarray) for one in parts_of(value)):
            is_even = is_open and len({getattr(one, "shape", None) for one in value}) == 1
            some = (value * LONGEST if isinstance(value, list) else value)[:LONGEST] if is_even else value
            known[path] = Known("sequence", keys=tuple(map(str, range(len(some)))), value=type(value))
            for i, one in enumerate(some):
                add(f"{path}.{i}", one)
        elif is_bag(value):
            known[path] = Known("object", keys=tuple(vars(value)))
            for key, one in vars(value).items():
                add(f"{path}.{key}", one)
        elif (parts := made_of(value)) is not None:
            known[path] = Known("made", value=type(value).__name__, keys=tuple(parts))
            for key, one in parts.items():
                add(f"{path}.{key}", one)
        elif is_open and isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim:
            known[path] = Known("integers", tuple({f"{path}.{i}": 1} for i in range(value.ndim)))
        elif is_open and type(value) is int and value > 1 and (path in subject.makes or value in lengths):
            known[path] = Known("number", ({path: 1},))
        else:
            known[path] = Known("constant", value=value)
            constants[path] = value
    for name, value in zip(names, values):
        add(name, value)
    return Example(names, known, {}, constants)


def is_bag(value: Any) -> bool:
    """Whether an object only keeps what is put in it."""
    return isinstance(value, SimpleNamespace) or (type(value).__module__ == "minigrad_user" and not any(
        map(callable, vars(type(value)).values())) and type(value).__bases__ == (object,))


def made_of(value: Any) -> dict[str, Any] | None:
    """{parameter: argument} from which an object of the file's classes was made; None for anything else."""
    if hasattr(value, "_fields"):
        return dict(zip(value._fields, value))
    if type(value).__module__ != "minigrad_user":
        return None
    if is_dataclass(value):
        return {name: getattr(value, name) for name in inspect.signature(type(value)).parameters}
    return None
