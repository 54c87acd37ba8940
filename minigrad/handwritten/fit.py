"""Find out how to call a backward and its forward.

`shapes` finds arguments for the forward. The first of them for which the backward runs too is taken, if the gradients
of data have the right shapes.
"""

from __future__ import annotations

import ast
import copy
import functools
import io
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.engine.messages import nearest
from minigrad.handwritten.find import MASK, flat, names_returned
from minigrad.handwritten.layers import WEIGHT, WEIGHTS, attributes, places, weights_of
from minigrad.handwritten.lengths import Known, clashes, is_parameter
from minigrad.handwritten.references import course_example
from minigrad.handwritten.shapes import Example, comments, examples, hints
from minigrad.handwritten.source import CouldNotRun, Source, TooSlow, explained, parameters_of
from minigrad.handwritten.subjects import LABELS, OUTPUT, RATE, Subject, bare, is_output, names_gradient, stacked, state

TEXT = "abcdef" * 9  # of any file that is opened
VOCABULARY = r"vocab.*(size|len|n$)|^(size|len|num|n)_?(of_)?(vocab|chars|words|letters|unique)|^V$|n_chars"
MOST_TRIED, MOST_IN_ALL = 120, 2000  # candidates of one kind, and of all
FAILED = 99  # what one counts whose backward fails
OF_SHAPES = r"(Value|Index|Axis|Key)Error|SimpleNamespace|'(numpy.)?int(64)?'"  # errors that other arguments may mend
FIRST = r"0$|init|first|start"  # in the name of a first state, which may be learned
PREDICTED = r"pred|hat|out|prob|logit|score|est|^(x|p|o|a|z|h)(s?|t|\d)$"  # the name of what y is compared with
STEPS = r"seq|time|step|length"  # in the name of a number of steps
V, H = 6, 5  # for a vocabulary and hidden units, where weights are globals


def candidates(subject: Subject, source: Source, namespace: dict[str, Any]) -> Iterator[Subject]:
    """The subject with each example of its arguments, and with each kind of targets for its backward."""
    node = source.definitions[subject.name]
    ranks = {} if subject.is_class else ranks_where_called(source.definitions[subject.forward_name], source)
    if subject.is_class:
        own = source.methods(subject.name)
        body = [with_parameters(own[name], ("self", *names)) for name, names in (
            ("__init__", subject.makes), (subject.forward_name, subject.order)) if name in own]
        body.insert(0, ast.Expr(ast.Constant(comments(source.tree, source.text.splitlines()))))
        node = ast.copy_location(ast.ClassDef(subject.name, [], [], body, []), node)
    else:
        node = with_parameters(source.definitions[subject.forward_name], subject.order)
        texts = [ast.get_docstring(one) or "" for one in (node, source.tree)]
        node.body = [ast.Expr(ast.Constant("\n".join(texts))), *node.body]
    function = namespace[subject.name if subject.is_class else subject.forward_name]
    most, tried = math.inf, []
    for example in examples(function, node, namespace, subject.forward_name, subject.results, ranks,
                            subject.known):
        ones = sum(axis == {"": 1} for known in example.known.values() for axis in known.axes)
        if ones > (most := min(most, ones)):
            continue  # an axis that is broadcast, where the first example has one of its own
        tried.append(example)
        yield from with_example(subject, example, namespace)
    for example in tried if subject.loss_name else []:  # it may be one of several sequences, or of something else
        yield from with_example(replace(subject, loss_name=""), example, namespace)


def ranks_where_called(node: Any, source: Source) -> dict[str, int]:
    """{name: rank} of parameters, as functions say them to which they are handed on by their names."""
    found: dict[str, int] = {}
    for call in [n for n in ast.walk(node) if isinstance(n, ast.Call)]:
        called = source.definitions.get(ast.unparse(call.func))
        if isinstance(called, ast.FunctionDef):
            same = [name for name, one in zip(parameters_of(called), call.args) if ast.unparse(one) == name]
            found |= hints(tuple(same), comments(called, source.text.splitlines()))
    return found


def with_parameters(node: Any, names: tuple[str, ...]) -> Any:
    """A function that takes these parameters, and has no others."""
    node = copy.copy(node)
    node.args = ast.arguments([], [ast.arg(name) for name in names], None, [], [], None, [])
    return node


def with_example(subject: Subject, example: Example, namespace: dict[str, Any]) -> Iterator[Subject]:
    """The subject with these arguments. What its backward takes besides is made like an output."""
    shapes, constants, known = dict(example.shapes), dict(example.constants), dict(example.known)
    is_all = all(re.search(LABELS, path.rpartition(".")[2]) for path in shapes)
    free = [path for path in shapes if f"d{path}" not in flat(subject.returns)]  # without a gradient
    labels = [path for path in free if re.search(LABELS, path)][is_all:]  # of two the first is what is predicted
    others = [path for path in shapes if path not in labels]
    if labels == ["y"] == list(shapes)[:1] and len(others) == 1 and shapes["y"] == shapes[others[0]] and not re.search(
            PREDICTED, others[0]):
        labels = others
    masks = [path for path in free if re.search(MASK, path) or (known[path].value is not None and path not in labels)]
    for path in list({**shapes, **constants}):
        if re.search(RATE, path):
            constants[path] = 1.0  # a step is the gradient
        elif type(constants.get(path)) is int and re.search(STEPS, path):
            constants[path] = next((len(v) for v in constants.values() if np.ndim(v) == 1), constants[path])
        elif isinstance(constants.get(path), np.ndarray) and constants[path].size > 2 and (
                constants[path].dtype.kind in "iu"):
            constants[path].flat[-1] = constants[path].flat[0]  # a word that occurs twice
        elif path in subject.makes and path[0] == "d" and path[1:] in shapes:
            shapes.pop(path, None)  # what gradients are added to
            constants[path], known[path] = np.zeros(shapes[path[1:]]), Known("constant")
        elif path in masks:
            shape, scale = shapes.pop(path), known[path].value
            bits = np.arange(np.prod(shape)).reshape(shape) % 3 < 2.0
            constants[path] = bits * scale if isinstance(scale, float) else bits
            known[path] = Known("constant", value=scale)
        elif path in labels:
            shape = shapes.pop(path)
            alike = [other for other in shapes.values() if len(other) == len(shape)]
            axis = next((a for a, n in enumerate(shape) if alike and all(other[a] != n for other in alike)), -1)
            constants[path] = like_output(shape, axis) if len(shape) != 1 else np.arange(shape[0]) % 2.0
            known[path] = Known("constant")
    made = tuple(path for path, one in known.items() if one.kind == "made" and not hasattr(
        namespace.get(one.value), "_fields"))  # whose parts are arguments; an object keeps its weights
    shapes = {path: shape for path, shape in shapes.items() if not path.startswith(tuple(f"{one}." for one in made))}
    last = [path.rpartition(".")[2] for path in shapes]
    own = replace(subject, example=replace(example, known=known, constants=constants), unnamed=set(), detached=set(),
                  overlooked=set())
    own.tables = (*own.tables, *(name for name in own.order if name in made and not own.is_class))
    names = {path: name if last.count(name) == 1 and not name.isdigit() else path.replace(".", "_")
             for name, path in zip(last, shapes)}
    own.paths = {names[path]: path for path in sorted(names, key=lambda path: path in subject.makes)}
    own.inputs = {name: shapes[path] for name, path in own.paths.items()}
    if subject.is_class:
        given = own.arguments({name: np.ones(shape) for name, shape in own.inputs.items()}, namespace.__getitem__)[0]
        layer = namespace[subject.name](*given)
        kept = {name: places[0].value for name, places in weights_of(layer, "", own.further).items()}
        own.arrays = tuple(place.path for place in places(layer))
        taken = [name for name in own.inputs if own.paths[name] in subject.makes]
        kept = {name: w for name, w in kept.items() if name not in taken and not any(w is one for one in given)}
        own.held = (*taken, *kept)
        own.inputs |= {name: np.shape(w) for name, w in kept.items()}
    weights = {name: namespace[name] for name in subject.held if not subject.is_class}
    if own.tables != subject.tables:
        own.owner(namespace, {name: np.ones(shape) for name, shape in own.inputs.items()})
    for table in own.tables:
        weights |= {name: places[0].value for name, places in weights_of(namespace[table], table).items()}
    own.inputs |= {name: np.shape(w) for name, w in weights.items()}
    rates = [name for name in (*subject.takes, *subject.loss_takes) if re.search(RATE, name)]
    own.constants = subject.given | dict.fromkeys(rates, 1.0)
    labels = [name for name in dict.fromkeys((*subject.takes, *subject.loss_takes)) if subject.is_target(
        name) and name not in (*subject.order, *subject.results, *subject.alias, *subject.given)]
    if not labels:
        yield own
        return
    arrays = {name: np.ones(shape) for name, shape in own.inputs.items()}
    owner = own.owner(namespace, arrays)
    result = own.result(owner, own.pool(owner, arrays))
    computed = [y for name, y in attributes(owner("")).items() if re.match(OUTPUT, name)] if own.is_class else []
    outputs = [np.asarray(stacked(y)) for y in [*reversed(result), *computed] if is_output(y)]
    words = [value for value in constants.values() if np.ndim(value) == 1 and not outputs]
    yield from (replace(own, constants=own.constants | dict.fromkeys(labels, np.roll(one, 1))) for one in words)
    for shape in dict.fromkeys(map(np.shape, outputs)):
        yield from (replace(own, constants=own.constants | dict.fromkeys(labels, n)) for n in (1, 0) if not shape)
        sums = [axis for y in outputs if np.shape(y) == shape for axis in range(y.ndim) if np.allclose(y.sum(axis), 1)]
        long = [axis for axis in reversed(range(len(shape))) if shape[axis] > 1]
        for axis in dict.fromkeys([*sums, *(long or range(len(shape))[-1:])]):
            rest = tuple(n for k, n in enumerate(shape) if k != axis and n > 1)
            classes = (np.arange(1, 1 + int(np.prod(rest))) % shape[axis]).reshape(rest)
            for target in (classes if rest else int(classes), like_output(shape, axis)):
                yield replace(own, constants=own.constants | dict.fromkeys(labels, target))


def like_output(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Positive targets that add up to one along an axis."""
    values = np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape)
    return values / values.sum(axis=axis, keepdims=True) if shape else values


def example_of(shapes: dict[str, Any]) -> Example:
    """An example from zeros, nested as the arguments."""
    known: dict[str, Known] = {}

    def add(path: str, part: Any) -> None:
        if isinstance(part, (dict, tuple)):
            children = part if isinstance(part, dict) else dict(zip(map(str, range(len(part))), part))
            known[path] = Known("mapping" if isinstance(part, dict) else "sequence", keys=tuple(children))
            for key, child in children.items():
                add(f"{path}.{key}", child)
        else:
            known[path] = Known("array", tuple({"": n} for n in np.shape(part)))
    for name, part in shapes.items():
        add(name, part)
    return Example(tuple(shapes), known, {}, {})


def with_globals(subject: Subject, source: Source) -> Subject:
    """The subject with the weights that it reads from globals, and small numbers for the sizes of the file."""
    arguments = {*subject.order, *subject.takes, *source.keys_of(subject.forward_name)}
    read = [name for f in (subject.forward_name, subject.backward_name) if f in source.definitions
            for name in source.global_names(f, set(source.assigned) - arguments)]
    returned = [bare(name) for name in flat(subject.returns)]
    values = source.run(read)
    names = [name for name in dict.fromkeys([*returned, *read]) if name in read and (
        bare(f"d{name}") in returned or re.match(f"{WEIGHT}|{WEIGHTS}", name) or is_table(values.get(name)) or any(
            one != name and names_gradient(one, name) for one in source.assigned if one[0] in "dg"))]
    of_forward = source.global_names(subject.forward_name, {*names})
    if subject.is_class or not (of_forward or (names and subject.forward_name not in source.definitions)):
        return subject  # a backward that alone reads globals has not those of its forward
    sizes: dict[str, Any] = {"open": lambda *_, **__: io.StringIO(TEXT)}
    sizes |= {name: V for name in source.assigned if re.search(VOCABULARY, name) and not (
        name in names and isinstance(source.run([name], sizes).get(name), np.ndarray))}

    def weights() -> dict[str, list[Any]]:
        """{name: its arrays} of each global with weights."""
        found = source.run(names, sizes)
        return {name: arrays for name in names if (arrays := [found[name]] if isinstance(found.get(name), np.ndarray)
                else [places[0].value for places in weights_of(found.get(name), name).values()])}
    lengths = {n for arrays in weights().values() for w in arrays for n in np.shape(w)} - {1}
    hidden = {name: value for name, value in source.assigned.items() if value in lengths and name not in sizes}
    small = dict(zip(dict.fromkeys(hidden.values()), (H, *range(V + 1, V + 1 + len(hidden)))))
    sizes |= {name: small[value] for name, value in hidden.items()}
    found, namespace = weights(), source.run(names, sizes)
    held = tuple(name for name in found if isinstance(namespace[name], np.ndarray))
    return replace(subject, sizes=sizes, held=held, tables=tuple(name for name in found if name not in held))


def is_table(value: Any) -> bool:
    """Whether a dict keeps nothing but weights, as their keys tell."""
    return isinstance(value, dict) and bool(value) and len(weights_of(value)) == len(value)


def fitting(subject: Subject, source: Source, namespace: dict[str, Any], example: Example | None = None) -> Subject:
    """The first candidate whose gradients of data have the right shapes, or most of them.

    The shapes of weights are those of the first example: a fault may change them. Raises CouldNotRun if no forward
    runs.
    """
    found: list[tuple[int, Subject]] = []
    problems: list[str] = []
    rng, tries = np.random.default_rng(0), itertools.count()

    def try_all(waiting: Iterator[Subject], depth: int) -> bool:
        """Whether one of them fits."""
        for candidate in itertools.islice(waiting, MOST_TRIED):
            if next(tries) > MOST_IN_ALL:
                return False
            inputs = {name: rng.normal(size=shape) for name, shape in candidate.inputs.items()}
            outputs: tuple = ()
            try:
                with explained(source, f"{subject.forward_in_words} fails"):
                    outputs, memory = candidate.forward(namespace, inputs)
                with explained(source, f"{subject.name} fails"):
                    returned = candidate.backward(namespace, memory, [np.ones(np.shape(outputs[i])) for i in
                                                                      candidate.arriving])
            except CouldNotRun as problem:
                problems.append(str(problem))
                if "still running" in str(problem):
                    raise
                many = re.search(r"gives an array of shape \((\d+),\), not a number", str(problem))
                if many and depth and try_others(alone(candidate.example, int(many[1])), depth - 1):
                    return True
                if outputs:
                    is_of_shapes = bool(re.search(OF_SHAPES, str(problem)))
                    found.append((FAILED * is_of_shapes, candidate))
                    if not is_of_shapes or (depth and try_others(narrowed(
                            candidate, problem.__cause__, tables()), depth - 1)):
                        return True
                continue
            if candidate.overlooked and depth:
                more = replace(subject, further=(*candidate.further, *sorted(candidate.overlooked, key=str)))
                if try_all(with_example(more, candidate.example, namespace), depth - 1):
                    return True
            wrong = {name: np.shape(d) for name, d in returned.items() if np.shape(d) != candidate.inputs[name]}
            strange = [name for name in wrong if name not in candidate.held and not re.match(WEIGHT, name)]
            if len(returned) > 1 and len(other_sizes(returned, candidate.inputs)) > len(returned) / 2:
                strange = list(wrong)  # not the arguments that are meant
            found.append((len(strange), candidate))
            if depth and try_others(tied(candidate, wrong, strange), depth - 1):
                chosen = found[-1][1]
                learned = [name for name in strange if 1 in chosen.inputs[name] and 1 not in candidate.inputs[name]]
                if 1 in chosen.example.lengths.values():
                    chosen.remark = (f"{subject.name} was judged with one example at a time: for more it does not sum "
                                     "the gradients of biases")
                elif learned:
                    chosen.remark = (f"d{learned[0]} is right where {learned[0]} has the shape "
                                     f"{chosen.inputs[learned[0]]}, which the forward broadcasts")
                return True
            if not strange:
                return True
        return False

    @functools.cache
    def tables() -> list[dict]:
        """The global dicts that may keep weights."""
        names = [name for name in source.assigned if re.match(WEIGHTS, name)]
        kept = source.run(names, subject.sizes) if names else {}
        return [table for table in map(kept.get, names) if isinstance(table, dict) and table]

    def try_others(others: Iterator[Example], depth: int) -> bool:
        return try_all((one for other in others for one in with_example(subject, other, namespace)), depth)
    example = example or (course_example(subject.course) if subject.course else None)
    try:
        if try_all(with_example(subject, example, namespace) if example else candidates(
                subject, source, namespace), 2):
            return found[-1][1]
    except CouldNotRun as problem:
        if problem.__cause__ is None:
            raise CouldNotRun(f"{problem}; for a function give --forward and --shapes") from None
        if isinstance(problem.__cause__, TooSlow):
            raise
        raise CouldNotRun(f"{subject.forward_in_words} fails: {source.sentence(problem.__cause__)}") from None
    if not found:
        raise CouldNotRun("; ".join([*sorted(problems, key=line_in)[-1:], "no arguments were found with which its "
                                     "forward runs: for a function give --forward and --shapes"]))
    return min(found, key=lambda pair: pair[0])[1]


def other_sizes(gradients: dict[str, Any], inputs: dict[str, tuple[int, ...]]) -> list[str]:
    """The inputs whose gradients have as many numbers as they have not."""
    return [name for name, d in gradients.items() if d is not None and np.size(d) != math.prod(inputs[name])]


def narrowed(subject: Subject, problem: BaseException | None, tables: list[dict]) -> Iterator[Example]:
    """Examples for a backward that fails: of the lengths that one of the tables of these weights has, of one example at
    a time, with biases as rows, or with a number of steps from the constructor."""
    example: Any = subject.example
    for table in tables:
        if table.keys() <= subject.paths.keys():
            axes = [(axis, n) for name, w in table.items() for length, n in zip(
                example.known[subject.paths[name]].axes, np.shape(w)) for axis in length if length == {axis: 1}]
            yield replace(example, lengths=example.lengths | dict(axes))
    for pair in clashes(problem):
        if 1 in pair:
            yield from alone(example, max(pair))
    if re.search(r"output operand with shape \(\d+,\) doesn't match", str(problem)):  # of a bias (1, n)
        rows = {path: replace(one, axes=({"": 1}, *one.axes)) for path, one in example.known.items()
                if is_parameter(path) and one.kind == "array" and len(one.axes) == 1}
        yield replace(example, known=example.known | rows)
    taken = {n for shape in subject.inputs.values() for n in shape}
    steps = {len(y) for y in (*example.constants.values(), *map(np.empty, example.shapes.values())) if np.ndim(y)}
    for path, value in example.constants.items():
        if type(value) is int and value not in taken:
            for n in sorted(steps - {value, 1, 2}):
                yield replace(example, constants=example.constants | {path: n})


def tied(subject: Subject, wrong: dict[str, tuple[int, ...]], strange: list[str]) -> Iterator[Example]:
    """Examples for a backward whose gradients have other shapes where its forward leaves more open than is meant.

    Each bias, and there are some, comes back with a column for each example: it takes one at a time. A single gradient
    of data is that of a state, and differs in one length: two states are of one length. A length that nothing else has
    is that of the gradient; so is the shape of a bias without an axis of another weight.
    """
    example: Any = subject.example
    biases = [name for name, shape in subject.inputs.items() if shape[1:] == (1,)]
    columns = {wrong[name][1] for name in biases if len(wrong.get(name, ())) == 2}
    if len(biases) > 1 and wrong.keys() >= {*biases} and len(columns) == 1:
        yield from alone(example, columns.pop())
    for name, shape in wrong.items():
        own = subject.inputs[name]
        if len(own) == len(shape) and name in subject.paths and may_be_broadcast(example, subject.paths[name], shape):
            path = subject.paths[name]
            axes = tuple({"": 1} if m == 1 else axis for axis, m in zip(example.known[path].axes, shape))
            yield replace(example, known=example.known | {path: replace(example.known[path], axes=axes)})
        if len(own) != len(shape) and name in subject.paths and not is_tied(example, subject.paths[name]):
            axes = tuple(next(({axis: 1} for axis, length in example.lengths.items() if length == n), {"": n})
                         for n in shape)
            path = subject.paths[name]
            yield replace(example, known=example.known | {path: replace(example.known[path], axes=axes)})
        pairs = [pair for pair in zip(own, shape) if pair[0] != pair[1]]
        if len(pairs) == 1 and 1 not in pairs[0] and len(shape) == len(own) and name in subject.paths:
            at = next(i for i, (n, other) in enumerate(zip(own, shape)) if n != other)
            axes = example.known[subject.paths[name]].axes[at].keys()
            owned = [subject.paths.get(one) for one in wrong]
            others = any(axes & length.keys() for path, known in example.known.items() if path not in owned
                         for length in known.axes)
            if not others or (strange == [name] and state(name)):
                yield from with_lengths(example, *pairs[0])


def is_tied(example: Example, path: str) -> bool:
    """Whether a weight has an axis of another weight; else its shape is a guess."""
    others = axes_of_weights(example, path) - {""}
    return not is_parameter(path) or any({*length} & others for length in example.known[path].axes)


def axes_of_weights(example: Example, but: str) -> set[str]:
    """The axes of all weights but one."""
    return {axis for path, known in example.known.items() if path != but and is_parameter(path)
            for length in known.axes for axis in length}


def may_be_broadcast(example: Example, path: str, shape: tuple[int, ...]) -> bool:
    """Whether an input may have the length 1 wherever its gradient has: a bias along an axis of no other weight, or the
    first state of all examples."""
    of_weights = axes_of_weights(example, path)
    ones = [length.keys() for length, n, m in zip(example.known[path].axes, example.shapes[path], shape) if n != m == 1]
    return (is_parameter(path) or bool(re.search(FIRST, path))) and not any(axes & of_weights for axes in ones) and all(
        m in (1, n) for n, m in zip(example.shapes[path], shape))


def alone(example: Example, columns: int) -> Iterator[Example]:
    """The example with one column where it has this number, if that is no length of a weight."""
    of_weights = {axis for path, known in example.known.items() for length in known.axes for axis in length
                  if is_parameter(path) or known.kind == "number"}
    if not any(n == columns for axis, n in example.lengths.items() if axis in of_weights):
        yield from with_lengths(example, columns, 1)


def with_lengths(example: Example, old: int, new: int) -> Iterator[Example]:
    """The example with another length of the axes that have this one, if there are any."""
    def changed(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and old in value.shape[1:]:  # targets
            return like_output(tuple(new if n == old else n for n in value.shape), -1)
        return new if type(value) is int and value == old else value
    if old in example.lengths.values():
        yield replace(example, lengths={axis: new if n == old else n for axis, n in example.lengths.items()},
                      constants={path: changed(value) for path, value in example.constants.items()})


def with_one_output(example: Example) -> Iterator[Example]:
    """The example with the length 1 of an axis that weights alone have, and first: the loss may read only y[0]."""
    for axis, n in example.lengths.items():
        users = [path for path, known in example.known.items() if any(axis in length for length in known.axes)]
        if users and all(map(is_parameter, users)):
            yield from with_lengths(example, n, 1)


def line_in(problem: str) -> int:
    found = re.search(r"line (\d+):", problem)
    return int(found[1]) if found else 0


# -- functions that the user names --------------------------------------------------------------------------------


def pair(source: Source, backward: str, other: Source, forward: str, shapes: str) -> Subject:
    """The subject for `FILE:backward --forward FILE:forward --shapes "x=3,4 p={'W': (5, 3)}"`."""
    given: dict[str, Any] = {}
    for word in re.split(r"\s+(?=\w+\s*=)", shapes.strip()):
        name, _, shape = word.partition("=")
        try:
            given[name.strip()] = shapes_of(ast.literal_eval(shape.strip()))
        except (ValueError, TypeError, SyntaxError):
            raise CouldNotRun(f"--shapes has {word!r}, where name=3,4 is expected, name=() for a number, or a nesting "
                              "of shapes in Python's brackets") from None
    for where, name in ((source, backward), (other, forward)):
        if not isinstance(where.definitions.get(name), ast.FunctionDef):
            raise CouldNotRun(f"{where.file} has no function {name!r}{nearest(name, where.definitions)}")
    takes = parameters_of(other.definitions[forward])
    if list(given) != list(takes[:len(given)]) or not given:
        raise CouldNotRun(f"{forward} takes {', '.join(takes)}: give --shapes for them in this order, as "
                          f"{takes[0] if takes else 'x'}=3,4")
    node = source.definitions[backward]
    subject = Subject(backward, "named functions", backward, forward, order=tuple(given), takes=parameters_of(node),
                      results=names_returned(other.definitions[forward]), returns=names_returned(node),
                      elsewhere=other if other.file != source.file else None)
    return next(with_example(subject, example_of(given), {}))


def shapes_of(shape: Any) -> Any:
    """Zeros nested like their shapes. A shape is a number, or a tuple or list of numbers."""
    if isinstance(shape, dict):
        return {key: shapes_of(child) for key, child in shape.items()}
    if isinstance(shape, (tuple, list)) and not all(type(n) is int for n in shape):
        return tuple(shapes_of(child) for child in shape)
    return np.zeros(shape)
