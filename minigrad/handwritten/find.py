"""Find the backwards of a file, and how to call each.

A backward is recognised by its name, and so is its forward; a class by its two methods; a function that returns a loss
and its gradients by what it returns. `shapes` finds arguments for the forward; of these examples the first is taken
with which the backward runs too.
"""

from __future__ import annotations

import ast
import copy
import io
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.engine.messages import nearest
from minigrad.handwritten import observations as see
from minigrad.handwritten.layers import WEIGHT, WEIGHTS, weights_of
from minigrad.handwritten.lengths import Known, clashes, is_parameter
from minigrad.handwritten.recordable import bases
from minigrad.handwritten.references import COURSE_WEIGHTS, course_example
from minigrad.handwritten.shapes import Example, examples
from minigrad.handwritten.source import (
    CouldNotRun,
    Source,
    TooSlow,
    explained,
    names_called,
    parameters_of,
    required,
)
from minigrad.handwritten.subjects import (
    GRADIENT,
    LABELS,
    OUTPUT,
    RATE,
    Subject,
    bare,
    is_output,
    stacked,
    state,
)

BACK = r"(?:backward|bwd|back_?prop(?:agation)?|bprop|bptt|(?<![a-z])(?:back|grad)(?![a-z]))"
BOTH = rf"(forward|fwd|fprop).*{BACK}|loss_and_grad"  # of one function
FORWARD = r"^_?(forward|fwd|run|feed_?forward|forward_?(prop(agation)?|pass)|predict|__call__|call)$"
LOSS = r"loss|cost|cross_?entropy|objective|criterion|cout|perte|erreur|verlust|kosten|fehler|perdida|costo"
TEXT = "abcdef" * 9  # of any file that is opened
VOCABULARY = r"vocab.*(size|len|n$)|^(size|len|num|n)_?(of_)?(vocab|chars|words|letters|unique)|^V$|n_chars"
COURSE = r"(^|_)((rnn|lstm)(_cell)?)_backward(\d|_|$)"  # the names of the course's functions
MOST_TRIED, FAILED = 120, 99  # candidates of one kind, and what one counts whose backward fails
FEWEST = 2  # gradients that a function computes which is a backward by that alone
MASK = r"mask|keep|valid"
FIRST = r"0$|init|first|start"  # in the name of a first state, which may be learned
STEPS = r"seq|time|step|length"  # in the name of a number of steps
SIZE = r"hid|units|seq|(vocab|wordvec|embed\w*)_(size|dim)|^n_[ah]$|^[HT]$"  # of a layer, or a number of steps
V, H = 6, 5  # for a vocabulary and hidden units, where weights are globals


def find(source: Source) -> dict[str, Subject]:
    """{name: subject} of all backwards of a file, a step before what calls it, itself or by another."""
    found: dict[str, Subject] = {}
    parents = {base.id for node in source.definitions.values() for base in getattr(node, "bases", [])
               if isinstance(base, ast.Name)}
    for name, node in source.definitions.items():
        own = source.definitions if isinstance(node, ast.FunctionDef) else source.methods(name)
        parts = {called for method in own if re.search(BACK, method) for called in names_called(own[method]) - {method}}
        methods = sorted(own, key=lambda method: (not re.search(BOTH, method), not re.search(BACK, method),
                                                  method in parts))
        for backward in [name] if isinstance(node, ast.FunctionDef) else [] if name in parents else methods:
            if (subject := subject_of(source, name, own, backward)) and name not in found:
                found[name] = subject
    for name, subject in list(found.items()):
        called = {n.id for f in source.functions_in(name) for n in ast.walk(f) if isinstance(n, ast.Name)}
        for other in called & found.keys() - {name}:  # a part of this one: it adds to gradients that it takes
            returned = flat(found[other].returns)
            is_once = 0 < len(returned) == len({*returned}) and not found[other].is_class
            if is_once and {*returned} <= {*found[other].takes}:
                del found[other]
        subject.cells = tuple(other for other in found if other in called and other != name)
    return dict(sorted(found.items(), key=lambda item: len(item[1].cells)))


def subject_of(source: Source, name: str, own: dict[str, Any], backward: str) -> Subject | None:
    """The subject whose backward is this function, or this method of a class; None if it is not a backward."""
    is_class = isinstance(source.definitions[name], ast.ClassDef)
    node = own[backward]
    subject = Subject(name, "a class with forward and backward" if is_class else "functions in pairs, forward and "
                      "backward", backward, "", is_class=is_class, returns=names_returned(node))
    if inner := next((one for one in ast.walk(node) if isinstance(one, ast.FunctionDef) and one is not node
                      and one.name in flat(subject.returns)), None):
        results = tuple(result for result in subject.returns if result != inner.name)
        return replace(subject, convention="a forward that returns its backward", backward_name=inner.name,
                       is_closure=True, forward_name=backward, order=called_with(node, is_class),
                       takes=called_with(inner, False), results=results, returns=names_returned(inner),
                       makes=makes(own, source) if is_class else ())
    is_both = bool(re.search(BOTH, backward))
    arriving = any(re.match(r"d[A-Z_]?\w", one) and (bare(one) in source.words or state(bare(one)))
                   for one in parameters_of(node))
    is_loss = is_both or bool(re.search(LOSS if arriving else rf"{LOSS}|^(compute_)?grad", backward, re.I))
    returned = flat(subject.returns)
    is_loss |= bool(re.search(LOSS, next(iter(returned), ""), re.I)) and sum(
        bool(re.match(r"d[A-Z_]?\w|grad", one)) for one in returned) >= FEWEST
    forward = "" if is_both else forward_of(backward, own) if re.search(BACK, backward) else None
    if is_class and forward is None and re.search(BACK, backward):
        forward = next((name for name in own if re.search(LOSS, name) and name != backward and called_with(
            own[name], True)), None)
    if forward is None and not is_loss:
        forward = forward_by_use(backward, own, is_class, source)
        subject.is_guess = not re.search(BACK, backward)
        is_both = forward is None and subject.is_guess and len(gradients_in(node, source)) >= FEWEST and bool(
            subject.returns and called_with(node, is_class))
    if forward or (re.search(BACK, backward) and not is_both):
        if not is_class and (course := course_of(backward, forward, source)):
            subject.convention, subject.course = "the course's convention", course
            forward = forward or f"{course}_forward"
        if forward is None:
            return None
        subject.forward_name = forward
        subject.order = (*called_with(own[forward], is_class), *starred(own[forward], source)) if forward in own else \
            course_example(course).names
        results = names_returned(own[forward]) if forward in own else ()
        names = [own or at_call for own, at_call in itertools.zip_longest(results, names_at_a_call(
            forward, source, len(results)))]
        subject.results = tuple(name if name not in names[:k] else "" for k, name in enumerate(names))  # hs, and hs[-1]
        subject.takes = called_with(node, is_class)
        losses = [other for other in own if re.search(LOSS, other) and other not in (backward, forward)
                  and "backward" not in other and not re.search("d_|grad|deriv|prime", other)]
        known = {*subject.order, *subject.results, *subject.takes}
        subject.loss_name = next((f for f in losses if set(called_with(own[f], is_class)) <= known), "")
    elif is_both or (is_loss and (len(gradients_in(node, source)) >= FEWEST or any(
            re.match(r"d[A-Z_]?\w|grad|g$", one) for one in flat(subject.returns)))):
        subject.convention = "loss and gradients in one function"
        subject.forward_name, subject.order = backward, (*called_with(node, is_class), *starred(node, source))
        losses = [name for name in own if re.search(LOSS, name, re.I) and name != backward and called_with(
            own[name], is_class) == subject.order]
        if losses and re.match(GRADIENT, flat(subject.returns)[0]):
            subject.convention, subject.forward_name = "a loss and its gradients", losses[0]
            subject.takes = subject.order
    else:
        return None
    if subject.loss_name:
        subject.loss_takes = called_with(own[subject.loss_name], is_class)
        others = [name for name in subject.loss_takes if name not in (*subject.order, *subject.results)]
        subject.targets = tuple(others if len(others) == 1 else filter(subject.is_target, others))
    if subject.forward_name in own:
        needed = required(own[subject.forward_name])
        subject.optional = tuple(one for one in subject.order if re.search(MASK, one) and one not in needed)
    if is_class:
        subject.makes = makes(own, source)
    return subject


def makes(own: dict[str, Any], source: Source) -> tuple[str, ...]:
    """What a class is made from: the parameters of its constructor, with sizes that have a default."""
    if not (init := own.get("__init__")):
        return ()
    needed = required(init)
    sizes = itertools.takewhile(lambda name: re.search(SIZE, name), parameters_of(init)[len(needed):])
    return (*needed[1:], *sizes, *starred(init, source))


def forward_of(backward: str, own: dict[str, Any]) -> str | None:
    """The function or method whose backward this is, by its name."""
    wanted = [re.sub(BACK, forth, backward).strip("_") for forth in (
        "forward", "fwd", "forwardprop", "forward_prop", "forward_propagation", "feedforward", "feed_forward",
        "forward_pass", "fprop", "forw", "")]
    if re.fullmatch(rf"_?{BACK}(_pass)?", backward):
        wanted += [name for name in own if re.match(FORWARD, name)]
    wanted += [other for name in wanted[:2] for other in own if re.search(rf"(^|_){name}(\d|_|$)", other)]
    wanted += [re.sub("_alt|_naive|_fast|_vectorized", "", name) for name in wanted]
    return next((name for name in wanted if name in own and not names_called(own[name]) & {backward}
                 and name != backward), None)


def course_of(backward: str, forward: str | None, source: Source) -> str:
    """rnn, rnn_cell, lstm or lstm_cell, if a function is one of the course's, whose forwards are known; or ""."""
    takes = parameters_of(source.definitions[backward])
    if not (found := re.search(COURSE, backward)) or any(re.search(LABELS, name) for name in takes):
        return ""
    if forward is None:
        text = ast.unparse(source.definitions[backward])
        return found[2] if any(word in text for word in ("parameters", "gradients", "caches")) else ""
    names = parameters_of(source.definitions[forward])
    loops = [n for f in source.functions_in(forward) for n in ast.walk(f) if isinstance(n, (ast.For, ast.While))]
    if not loops and not found[4] and not see.not_written(source, forward, True):
        return ""
    is_course = len(names) == len(course_example(found[2]).names) and re.search(WEIGHTS, names[-1]) and \
        set(source.keys_of(forward)) <= set(COURSE_WEIGHTS[found[3]])
    return found[2] if is_course else ""


def forward_by_use(backward: str, own: dict[str, Any], is_class: bool, source: Source) -> str | None:
    """The function whose backward this seems to be by what it takes and returns, whatever the two are called.

    It takes gradients of what the other returns, or some of what the other takes and returns, and makes gradients of
    what that takes. A method reads attributes that the other sets.
    """
    node, found = own[backward], []
    returned = [bare(name) for name in flat(names_returned(node)) if re.match(r"d[A-Z_]?\w|grad_|g[A-Z]", name)]
    gradients = {*returned, *gradients_in(node, source)}
    given = {*parameters_of(node)[is_class:]}
    arriving = {bare(name) for name in given if re.match(r"d[A-Z_]?\w|grad_|g[A-Z]", name)}
    takes = {name for name in given if bare(name) not in arriving}
    if backward.startswith("__") or (not gradients and not is_class):
        return None
    reads, sets = attributes(node, ast.Load), attributes(node, ast.Store)
    passed = passed_on(backward, source)
    if is_class and not any(re.match(GRADIENT, name) for name in sets) and not gradients:
        return None
    for name, other in own.items():
        if name == "__init__" or re.search(BACK, name) or not isinstance(other, ast.FunctionDef) or \
                names_called(other) & {backward} or name == backward:
            continue
        theirs, results = parameters_of(other)[is_class:], flat(names_returned(other))
        is_function = any(isinstance(n, ast.Return) and n.value for n in own_nodes(other))
        of = sum(any(one in (bare(f"d{x}"), x) or (state(one) and state(one) == state(x)) for x in theirs)
                 for one in gradients)
        kept = {a for a in attributes(other, ast.Store) & reads if not re.match(GRADIENT, a)}
        back = arriving & {bare(f"d{y}") for y in results}
        alike = len({*name.split("_")} & {*backward.split("_")}) * bool(arriving)
        alike += 3 * (name in passed)
        score = len(takes & {*theirs, *results}) + of + len(kept) + 2 * len(back) + alike
        if of + len(kept) + len(back) + alike > 0 and is_function and score > 1 and not given <= {*theirs}:
            found.append((score, name))
    return max(found)[1] if found else None


def passed_on(backward: str, source: Source) -> set[str]:
    """The functions and methods whose results are passed on to this backward, wherever it is called."""
    found: set[str] = set()
    for scope in [source.tree, *(n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef))]:
        nodes = list(own_nodes(scope))
        taken = {n.id for call in nodes if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2]
                 == backward for one in (*call.args, *(k.value for k in call.keywords)) for n in ast.walk(one)
                 if isinstance(n, ast.Name)}
        found |= {name for s in nodes if isinstance(s, ast.Assign) and isinstance(s.value, ast.Call) and taken & {
            base.id for target in s.targets for base in bases(target)} for name in names_called(s.value)}
    return found


def names_at_a_call(name: str, source: Source, count: int) -> list[str]:
    """The names that the file gives to the results of a function where it calls it; "" for each if it gives none."""
    calls = [s for s in ast.walk(source.tree) if isinstance(s, ast.Assign) and isinstance(s.value, ast.Call)
             and ast.unparse(s.value.func) == name]
    found = [list(map(ast.unparse, getattr(s.targets[0], "elts", s.targets))) for s in calls]
    return next((names for names in found if len(names) == count and all(map(str.isidentifier, names))), [""] * count)


def gradients_in(node: Any, source: Source) -> set[str]:
    """The names in the names of gradients that a function computes: W of dW, where something has the name W."""
    made = {base.id for s in ast.walk(node) if isinstance(s, (ast.Assign, ast.AugAssign)) and not (
        isinstance(s.value, ast.Call) and names_called(s.value) & source.definitions.keys())
            for t in (s.targets if isinstance(s, ast.Assign) else [s.target]) for base in bases(t)}
    keys = {bare(n.slice.value) for n in ast.walk(node) if isinstance(n, ast.Subscript) and isinstance(
        n.slice, ast.Constant) and isinstance(n.slice.value, str) and isinstance(n.ctx, ast.Store) and re.match(
            r"(d|g|grads?|gradients?)$", ast.unparse(n.value))}
    made |= attributes(node, ast.Store)
    found = {bare(name) for name in made if re.match(r"d(?!t$)_?\w|grads?_|delta_|nabla_|g_?[A-Z]", name)}
    return {name for name in found if name in source.words or state(name)} | keys


def attributes(node: Any, context: type) -> set[str]:
    """The attributes of self that a method reads (ast.Load), or sets (ast.Store)."""
    return {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, context)
            and ast.unparse(n.value) == "self"}


def starred(node: Any, source: Source) -> tuple[str, ...]:
    """The names of what a function takes as *weights: those it unpacks them to, those of the function that it hands
    them on to, or those in its docstring or a comment, `weights: W, U, b`."""
    if node.args.vararg is None:
        return ()
    star = node.args.vararg.arg
    for s in ast.walk(node):
        if isinstance(s, ast.Assign) and ast.unparse(s.value) == star and isinstance(s.targets[0], ast.Tuple):
            return tuple(map(ast.unparse, s.targets[0].elts))
        if isinstance(s, ast.Call) and s.args and ast.unparse(s.args[-1]) == f"*{star}" and isinstance(
                other := source.definitions.get(ast.unparse(s.func)), ast.FunctionDef):
            return (*required(other)[len(s.args) - 1:], *starred(other, source))
    lines = source.text.splitlines()[node.lineno - 1:node.end_lineno]
    text = " ".join([ast.get_docstring(node) or "", *(line.partition("#")[2] for line in lines)])
    found = re.search(rf"\b{star}\W{{1,3}}(\w+(?:\s*,\s*\w+)+)", text)
    return tuple(re.findall(r"\w+", found[1])) if found else ()


def called_with(node: Any, is_method: bool) -> tuple[str, ...]:
    """The parameters that are passed: those without a default, a rate, and of a forward its first, targets, masks."""
    names, needed = parameters_of(node)[is_method:], len(required(node)) - is_method
    is_back = bool(re.search(BACK, node.name))
    passed = [i < needed or bool(re.search(RATE, name)) or (not is_back and (i < is_method or bool(
        re.search(f"{LABELS}|{MASK}", name)))) for i, name in enumerate(names)]
    return tuple(itertools.compress(names, itertools.takewhile(bool, passed)))


def names_returned(node: Any) -> tuple:
    """The names in the last `return` that has some, nested as they are: (loss, (dW, db), h). A tuple of gradients may
    have a name before it is returned."""
    literals = {s.targets[0].id: parts for s in own_nodes(node) if isinstance(s, ast.Assign)
                and isinstance(s.targets[0], ast.Name) and re.match(r"d[A-Z_]?|grad|g$|g_", s.targets[0].id)
                and (parts := elements(s.value))}

    def parts_of(value: Any) -> list[ast.expr]:
        """The elements of a literal, of a name of one, of tuple(name), or of a sum of such; of anything else none."""
        if isinstance(value, ast.Call) and ast.unparse(value.func) in ("tuple", "list") and len(value.args) == 1:
            return parts_of(value.args[0])
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            left, right = parts_of(value.left), parts_of(value.right)
            return [*left, *right] if left and right else []
        found = literals.get(value.id, []) if isinstance(value, ast.Name) else elements(value)
        return [part for one in found for part in (isinstance(one, ast.Starred) and parts_of(one.value)) or [one]]

    def one(value: Any) -> Any:
        if parts := parts_of(value):
            return tuple(map(one, parts))
        while isinstance(value, ast.Subscript):
            value = value.value
        text = ast.unparse(value).removeprefix("self.")
        inside = [] if text.isidentifier() else re.findall(r"\b(d\w+)", text) or re.findall(r"\(\[?(\w+)\b(?!=)", text)
        return text if text.isidentifier() else next(iter(inside), "")
    for statement in reversed([n for n in own_nodes(node) if isinstance(n, ast.Return) and n.value]):
        if isinstance(statement.value, (ast.Tuple, ast.List, ast.Name, ast.Attribute)) or parts_of(statement.value):
            found = one(statement.value)
            return found if isinstance(found, tuple) else (found,)
    return ()


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions in it, which have their own returns."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield from own_nodes(child)


def elements(value: ast.expr) -> list[ast.expr]:
    """The elements of a tuple or a list, or of what a comprehension goes over: [clip(d) for d in (dW, db)]."""
    if isinstance(value, (ast.ListComp, ast.GeneratorExp)) and len(value.generators) == 1:
        value = value.generators[0].iter
    return value.elts if isinstance(value, (ast.Tuple, ast.List)) else []


def flat(names: tuple) -> tuple[str, ...]:
    """Nested names as one tuple."""
    return tuple(name for one in names for name in (flat(one) if isinstance(one, tuple) else (one,)))


# -- how to call them -------------------------------------------------------------------------------------


def candidates(subject: Subject, source: Source, namespace: dict[str, Any]) -> Iterator[Subject]:
    """The subject with each example of its arguments, and with each kind of targets for its backward."""
    node = source.definitions[subject.name]
    if subject.is_class:
        own = source.methods(subject.name)
        body = [with_parameters(own[name], ("self", *names)) for name, names in (
            ("__init__", subject.makes), (subject.forward_name, subject.order)) if name in own]
        body.insert(0, ast.Expr(ast.Constant(source.text)))
        node = ast.copy_location(ast.ClassDef(subject.name, [], [], body, []), node)
    else:
        node = with_parameters(source.definitions[subject.forward_name], subject.order)
        texts = [ast.get_docstring(one) or "" for one in (node, source.tree)]
        node.body = [ast.Expr(ast.Constant("\n".join(texts))), *node.body]
    function = namespace[subject.name if subject.is_class else subject.forward_name]
    most, tried = math.inf, []
    for example in examples(function, node, namespace, subject.forward_name):
        ones = sum(axis == {"": 1} for known in example.known.values() for axis in known.axes)
        if ones > (most := min(most, ones)):
            continue  # an axis that is broadcast, where the first example has one of its own
        tried.append(example)
        yield from with_example(subject, example, namespace)
    for example in tried if subject.loss_name else []:  # it may be one of several sequences, or of something else
        yield from with_example(replace(subject, loss_name=""), example, namespace)


def with_parameters(node: Any, names: tuple[str, ...]) -> Any:
    """A function that takes these parameters, and has no others."""
    node = copy.copy(node)
    node.args = ast.arguments([], [ast.arg(name) for name in names], None, [], [], None, [])
    return node


def with_example(subject: Subject, example: Example, namespace: dict[str, Any]) -> Iterator[Subject]:
    """The subject with these arguments. What its backward takes besides is made like an output."""
    shapes, constants, known = dict(example.shapes), dict(example.constants), dict(example.known)
    is_all = all(re.search(LABELS, path.rpartition(".")[2]) for path in shapes)
    labels = [path for path in shapes if re.search(f"{LABELS}|{MASK}", path) and f"d{path}" not in flat(
        subject.returns)][is_all:]  # of two such names the first is what is predicted
    for path in list({**shapes, **constants}):
        if re.search(RATE, path):
            constants[path] = 1.0  # a step is the gradient
        elif type(constants.get(path)) is int and re.search(STEPS, path):
            constants[path] = next((len(v) for v in constants.values() if np.ndim(v) == 1), constants[path])
        elif isinstance(constants.get(path), np.ndarray) and constants[path].size > 2 and (
                constants[path].dtype.kind in "iu"):
            constants[path].flat[-1] = constants[path].flat[0]  # a word that occurs twice
        elif path in labels:
            shape = shapes.pop(path)
            alike = [other for other in shapes.values() if len(other) == len(shape)]
            axis = next((a for a, n in enumerate(shape) if alike and all(other[a] != n for other in alike)), -1)
            constants[path] = (like_output(shape, axis) if len(shape) != 1 else np.arange(shape[0]) % 2.0) if (
                not re.search(MASK, path)) else np.arange(np.prod(shape)).reshape(
                shape) % 3 < 2.0
            known[path] = Known("constant")
    made = tuple(path for path, one in known.items() if one.kind == "made")
    shapes = {path: shape for path, shape in shapes.items() if not path.startswith(tuple(f"{one}." for one in made))}
    last = [path.rpartition(".")[2] for path in shapes]
    own = replace(subject, example=replace(example, known=known, constants=constants), tables=(
        *subject.tables, *(name for name in subject.order if name in made and not subject.is_class)))
    names = {path: name if last.count(name) == 1 else path.replace(".", "_") for name, path in zip(last, shapes)}
    own.paths = {names[path]: path for path in sorted(names, key=lambda path: path in subject.makes)}
    own.inputs = {name: shapes[path] for name, path in own.paths.items()}
    if subject.is_class:
        given = own.arguments({name: np.ones(shape) for name, shape in own.inputs.items()}, namespace.__getitem__)[0]
        layer = namespace[subject.name](*given)
        kept = {name: places[0].value for name, places in weights_of(layer).items()}
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
    own.constants = {name: 1.0 for name in (*subject.takes, *subject.loss_takes) if re.search(RATE, name)}
    labels = [name for name in dict.fromkeys((*subject.takes, *subject.loss_takes))
              if subject.is_target(name) and name not in (*subject.order, *subject.results)]
    if not labels:
        yield own
        return
    arrays = {name: np.ones(shape) for name, shape in own.inputs.items()}
    owner = own.owner(namespace, arrays)
    result = own.result(owner, own.pool(owner, arrays))
    computed = [y for name, y in vars(owner("")).items() if re.match(OUTPUT, name)] if own.is_class else []
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
    names = [name for name in dict.fromkeys([*returned, *read]) if name in read and (
        bare(f"d{name}") in returned or re.match(WEIGHT, name) or re.match(WEIGHTS, name))]
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
                else [places[0].value for places in weights_of(found.get(name)).values()])}
    lengths = {n for arrays in weights().values() for w in arrays for n in np.shape(w)} - {1}
    hidden = {name: value for name, value in source.assigned.items() if value in lengths and name not in sizes}
    small = dict(zip(dict.fromkeys(hidden.values()), (H, *range(V + 1, V + 1 + len(hidden)))))
    sizes |= {name: small[value] for name, value in hidden.items()}
    found, namespace = weights(), source.run(names, sizes)
    held = tuple(name for name in found if isinstance(namespace[name], np.ndarray))
    return replace(subject, sizes=sizes, held=held, tables=tuple(name for name in found if name not in held))


def fitting(subject: Subject, source: Source, namespace: dict[str, Any], example: Example | None = None) -> Subject:
    """The first candidate whose gradients of data have the right shapes, or most of them.

    The shapes of weights are those of the first example: a fault may change them. Raises CouldNotRun if no forward
    runs.
    """
    found: list[tuple[int, Subject]] = []
    problems: list[str] = []
    rng = np.random.default_rng(0)

    def try_all(waiting: Iterator[Subject], depth: int) -> bool:
        """Whether one of them fits."""
        for candidate in itertools.islice(waiting, MOST_TRIED):
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
                if outputs:
                    is_of_shapes = bool(re.search("(Value|Index|Axis|Key)Error|SimpleNamespace|'int' obj", str(
                        problem)))
                    found.append((FAILED * is_of_shapes, candidate))
                    if not is_of_shapes or (depth and try_others(narrowed(candidate, problem.__cause__), depth - 1)):
                        return True
                continue
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


def narrowed(subject: Subject, problem: BaseException | None) -> Iterator[Example]:
    """Examples for a backward that fails: of one example at a time, with biases as rows, or with a number of steps from
    the constructor."""
    example: Any = subject.example
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


def nothing_found(source: Source) -> CouldNotRun:
    """What to do where no backward is recognised."""
    if source.python_2:
        return CouldNotRun(f"{source.file} is not Python 3: {source.python_2}")
    pairs = [name for name in source.definitions if name.endswith("backward")]
    hint = f"name {pairs[0]}'s forward and shapes, as {source.file}:{pairs[0]} --forward " \
           f"{source.file}:{pairs[0].replace('backward', 'forward')} --shapes \"x=3,4 W=5,3\"" if pairs else \
           "name the two functions and the shapes of the forward's arguments, as FILE:function --forward " \
           "FILE:function --shapes \"x=3,4 W=5,3\""
    return CouldNotRun(f"{source.file} has no backward that is found by its name (x_backward beside x_forward, a class "
                       f"with forward and backward, or lossFun): {hint}")
