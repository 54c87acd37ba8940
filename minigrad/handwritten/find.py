"""Find the backwards of a file, each with its forward.

A backward is recognised by its name, and so is its forward; a class by its two methods; a function that returns a loss
and its gradients by what it returns.
"""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import replace
from typing import Any

from minigrad.handwritten import observations as see
from minigrad.handwritten.closures import in_words
from minigrad.handwritten.layers import WEIGHTS
from minigrad.handwritten.recordable import LOSS, bases, own_nodes
from minigrad.handwritten.references import COURSE_WEIGHTS, course_example
from minigrad.handwritten.source import CouldNotRun, Source, names_called, parameters_of, required
from minigrad.handwritten.subjects import GRADIENT, LABELS, RATE, Subject, bare, loss_first, state

BACK = r"(?:backward|bwd|back_?prop(?:agation)?|bprop|bptt|(?<![a-z])(?:back|grad)(?![a-z]))"
NO_BACK = r"^_?(zero|clear|reset|clip|check|num\w*)_?grad"  # what goes on beside a backward
BOTH = rf"(forward|fwd|fprop).*{BACK}|(loss|cost|value|objective|error)s?_and_(the_)?grad"  # of one function
FORWARD = r"^_?(forward|fwd|run|feed_?forward|forward_?(prop(agation)?|pass)|predict|__call__|call)$"
NO_LOSS = r"d_|grad|deriv|prime|rel_|check|plot|print"  # rel_error of a gradient check
SUFFIX = r"_(update|grad|gradient)s?$"  # of a name of a gradient
MADE = rf"d[A-Z_]?\w|grad|g$|g_|g[A-Z]|\w+{SUFFIX}"  # a name of a gradient
COURSE = r"(^|_)((rnn|lstm)(_cell)?)_backward(\d|_|$)"  # the names of the course's functions
FEWEST = 2  # gradients that a function computes which is a backward by that alone
MASK = r"mask|keep|valid"
SIZE = r"hid|units|seq|(vocab|wordvec|embed\w*)_(size|dim)|^n_[ah]$|^[HT]$"  # of a layer, or a number of steps


def find(source: Source) -> dict[str, Subject]:
    """{name: subject} of all backwards of a file, a step before what calls it, itself or by another."""
    found: dict[str, Subject] = {}
    put = {f.name for _, _, f in source.methods_put}
    for name, node in [(name, node) for name, node in source.definitions.items() if name not in put]:
        own = source.definitions if isinstance(node, ast.FunctionDef) else {
            key: f for key, f in source.methods(name).items() if f in node.body or key == "__init__" or
            not see.is_empty(f.body)}  # without abstract ones of other classes
        parts = {called for method in own if re.search(BACK, method) for called in names_called(own[method], "self")
                 if called != method}
        methods = sorted(own, key=lambda method: (not re.search(BOTH, method), not re.search(BACK, method),
                                                  method in parts))
        methods = [method for method in methods if not is_slope(own, method) and not re.match(NO_BACK, method)]
        for backward in [name] if isinstance(node, ast.FunctionDef) else [] if name in source.parents else methods:
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
    for name, subject in found.items():
        if not subject.is_closure:
            own = source.methods(name) if subject.is_class else source.definitions
            subject.returns = fed_back(subject, own[subject.backward_name], source)
    return dict(sorted(found.items(), key=lambda item: len(item[1].cells)))


def is_slope(own: dict[str, Any], name: str) -> bool:
    """Whether a method is the derivative of an activation, as grad(y): it takes one array and keeps nothing."""
    return bool(re.search("grad|deriv|prime", name)) and not attributes(own[name], ast.Load) and len(
        parameters_of(own[name])) == 2


def subject_of(source: Source, name: str, own: dict[str, Any], backward: str) -> Subject | None:
    """The subject whose backward is this function, or this method of a class; None if it is not a backward."""
    is_class = isinstance(source.definitions[name], ast.ClassDef)
    node = own[backward]
    convention = in_words(source.definitions[name]) if is_class else "functions in pairs, forward and backward"
    subject = Subject(name, convention, backward, "", is_class=is_class, returns=names_returned(node))
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
    at = next((k for k, one in enumerate(subject.returns) if isinstance(one, str) and re.search(LOSS, one, re.I)), 0)
    is_loss |= at > 0 and any(re.match("(grad|gradient)s?$", str(one)) for one in subject.returns)  # grads, loss
    returned = flat(subject.returns)
    made = [one for one in returned if re.match(r"d[A-Z_]?\w|grad|g_", one)]
    is_loss |= bool(re.search(LOSS, next(iter(returned), ""), re.I)) and (
        len(made) >= FEWEST or bool({*map(bare, made)} & {*parameters_of(node)}) or "g" in returned)
    losses = [name for name in own if re.search(LOSS, name, re.I) and name != backward and not re.search(
        f"{NO_LOSS}|{BACK}", name) and called_with(own[name], is_class) == called_with(node, is_class)]
    is_loss |= bool(losses) and any(re.match(MADE, one) for one in returned)
    forward = "" if is_both else forward_of(backward, own) if re.search(BACK, backward) else None
    if is_class and forward is None and re.search(BACK, backward):
        forward = next((name for name in own if re.search(LOSS, name) and name != backward and called_with(
            own[name], True)), None)
    if forward is None and not is_loss:
        forward = forward_by_use(backward, own, is_class, source)
        subject.is_guess = not re.search(BACK, backward)
        is_both = forward is None and subject.is_guess and len(gradients_in(node, source)) >= FEWEST and bool(
            subject.returns and called_with(node, is_class))
    if forward or (re.search(BACK, backward) and not is_both and not (is_loss and losses)):
        if not is_class and (course := course_of(backward, forward, source)):
            subject.convention, subject.course = "the course's convention", course
            if forward is None or len(names_returned(own[forward])) < 2:  # without a cache, or not in this file
                forward = f"{course}_forward"
        if forward is None:
            return None
        subject.forward_name = forward
        subject.order = (*called_with(own[forward], is_class), *starred(own[forward], source)) if forward in own else \
            course_example(course).names
        subject.results = results_of(forward, own, source)
        subject.takes = called_with(node, is_class)
        subject.takes += tuple(itertools.takewhile(  # dc=None beside dh, where h and c are returned
            lambda name: bare(name) != name and bare(name) in subject.results,
            parameters_of(node)[is_class + len(subject.takes):]))
        subject.loss_name = loss_of(subject, own, not arriving)
    elif is_both or (is_loss and (len(gradients_in(node, source)) >= FEWEST or any(
            re.match(MADE, one) for one in flat(subject.returns)))):
        subject.convention, subject.loss_at = "loss and gradients in one function", at
        subject.returns = loss_first(subject.returns, at)
        subject.forward_name, subject.order = backward, (*called_with(node, is_class), *starred(node, source))
        if losses and not re.search(BOTH, backward) and re.match(rf"{GRADIENT}|\w+{SUFFIX}", flat(subject.returns)[0]):
            subject.convention, subject.forward_name = "a loss and its gradients", losses[0]
            subject.takes = subject.order
    else:
        return None
    subject.fills, subject.flags = filled(node, is_class), flags(node)
    if subject.together:
        subject.order = tuple(name for name in subject.order if name != subject.fills)
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


def flags(node: Any) -> tuple[str, ...]:
    """The parameters that are False unless given, and decide whether a function returns gradients."""
    defaults = dict(zip(parameters_of(node)[::-1], node.args.defaults[::-1]))
    decides = {n.id for s in ast.walk(node) if isinstance(s, ast.If) and any(
        isinstance(one, ast.Return) for one in s.body) for n in ast.walk(s.test) if isinstance(n, ast.Name)}
    return tuple(name for name, default in defaults.items() if name in decides and re.search("grad|back", name)
                 and getattr(default, "value", None) is False)


def filled(node: Any, is_method: bool) -> str:
    """The parameter that a backward fills with gradients: g of `g["W"] += …`, `g[1] = …` and `g.W += …`; "" if none."""
    parts = [t for s in ast.walk(node) if isinstance(s, (ast.Assign, ast.AugAssign)) for t in (
        s.targets if isinstance(s, ast.Assign) else [s.target]) if isinstance(t, (ast.Subscript, ast.Attribute))]
    whole: list[Any] = [next(one for one in ast.walk(t) if not isinstance(getattr(one, "value", None), (
        ast.Subscript, ast.Attribute))) for t in parts]  # g["W"] of g["W"][i]
    keys = {(ast.unparse(t.value), ast.unparse(t)) for t in whole if isinstance(t, ast.Attribute) or isinstance(
        getattr(t, "slice", None), ast.Constant)}
    return next((name for name in parameters_of(node)[is_method:] if re.match(rf"{GRADIENT}|acc", name) and sum(
        base == name for base, _ in keys) >= FEWEST), "")


def is_reduced(node: Any) -> bool:
    """Whether a function returns a number that a sum or a mean over all entries makes, and no share of the right."""
    if not isinstance(node, ast.FunctionDef) or re.search(r"argmax|round|astype", ast.unparse(node)):
        return False
    returned = [n.value for n in own_nodes(node) if isinstance(n, ast.Return)]
    value = returned[0] if len(returned) == 1 else None
    while isinstance(value, (ast.BinOp, ast.UnaryOp)):
        value = value.operand if isinstance(value, ast.UnaryOp) else value.left
    return isinstance(value, ast.Call) and bool(re.search(r"(^|\.)(sum|mean)$", ast.unparse(value.func))) and not any(
        k.arg == "axis" for k in value.keywords) and not any(isinstance(n, ast.Compare) for n in ast.walk(value))


def results_of(forward: str, own: dict[str, Any], source: Source) -> tuple:
    """The names of what a forward returns, its own or those that it gets where it is called."""
    results = names_returned(own[forward]) if forward in own else ()
    names = [name or at_call for name, at_call in itertools.zip_longest(results, names_at_a_call(
        forward, source, len(results)))]
    return tuple(name if name not in names[:k] else "" for k, name in enumerate(names))  # hs, and hs[-1]


def loss_of(subject: Subject, own: dict[str, Any], takes_targets: bool) -> str:
    """The function that computes the loss from what a subject's forward and backward take and return; "" if none."""
    both = subject.backward_name, subject.forward_name
    losses = [other for other in own if re.search(LOSS, other) and other not in both and "backward" not in other
              and not re.search(NO_LOSS, other) and not is_of_many(other, subject.forward_name, own)]
    known = {*subject.order, *subject.results, *subject.takes}
    asked = {*subject.takes} - {*subject.order, *flat(subject.results)}
    losses += [other for other in own if takes_targets and other not in both and is_reduced(own[other])
               and asked & {*called_with(own[other], subject.is_class)}]  # by whatever name, it takes the targets too
    found = next((f for f in losses if set(called_with(own[f], subject.is_class)) <= known), "")
    for f in losses if not found and subject.results[:1] == ("",) else ():  # it has a name for a result without one
        others = [name for name in called_with(own[f], subject.is_class) if name not in known]
        if len(others) == 1 and asked & {*called_with(own[f], subject.is_class)}:
            subject.results = (others[0], *subject.results[1:])
            return f
    return found


def is_of_many(name: str, forward: str, own: dict[str, Any]) -> bool:
    """Whether a loss is that of several examples: it calls the forward with an entry of what it takes, or another that
    does."""
    entries = {ast.unparse(n.target) for n in ast.walk(own[name]) if isinstance(n, ast.For)}
    calls = [n for n in ast.walk(own[name]) if isinstance(n, ast.Call)]
    return any(isinstance(one, ast.Subscript) or ast.unparse(one) in entries for n in calls for one in n.args
               if ast.unparse(n.func).rpartition(".")[2] == forward) or any(
        is_of_many(other, forward, own) for other in names_called(own[name]) & own.keys() - {name, forward})


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
        "forward_pass", "fprop", "forw", "")] + [re.sub("^_?back_?", "", backward)]
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
        alike += 3 * (name in passed) + 2 * (name in names_called(other) and backward in names_called(node))  # of parts
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


def fed_back(subject: Subject, node: Any, source: Source) -> tuple:
    """The names of what a backward returns; where they are those of nothing that its forward takes, the parameters as
    which the file passes the results on to the next call: a state, or the gradient of one."""
    returns = subject.returns

    def name_of(own: Any, target: Any, given: dict[str, str]) -> Any:
        parts = getattr(target, "elts", ())
        if isinstance(own, tuple):
            return tuple(map(name_of, own, parts, [given] * len(own))) if len(own) == len(parts) else given.get(
                ast.unparse(target), own)
        short = bare(own)
        is_known = bool(short) and not (short in subject.results and short in subject.takes) and any(
            short in (one, bare(f"d{one}")) or (state(short) and state(short) == state(one)) for one in subject.order)
        return own if is_known else given.get(ast.unparse(target), own)
    for s in ast.walk(source.tree):
        if isinstance(s, ast.Assign) and isinstance(s.value, ast.Call) and ast.unparse(s.value.func).rpartition(".")[
                2] == node.name and returns:
            given = dict(zip(map(ast.unparse, s.value.args), parameters_of(node)[subject.is_class:]))
            target = s.targets[0] if len(returns) > 1 else ast.Tuple(s.targets[:1], ast.Store())
            if (found := name_of(returns, target, given)) != returns:
                return found
    return returns


def gradients_in(node: Any, source: Source) -> set[str]:
    """The names in the names of gradients that a function computes: W of dW, where something has the name W."""
    made = {base.id for s in ast.walk(node) if isinstance(s, (ast.Assign, ast.AugAssign)) and not (
        isinstance(s.value, ast.Call) and names_called(s.value) & source.definitions.keys())
            for t in (s.targets if isinstance(s, ast.Assign) else [s.target]) for base in bases(t)}
    keys = {bare(n.slice.value) for n in ast.walk(node) if isinstance(n, ast.Subscript) and isinstance(
        n.slice, ast.Constant) and isinstance(n.slice.value, str) and isinstance(n.ctx, ast.Store) and re.match(
            r"(d|g|grads?|gradients?)$", ast.unparse(n.value), re.I)}
    made |= attributes(node, ast.Store)
    found = {bare(name) for name in made if re.match(rf"d(?!t$)_?\w|grads?_|delta_|nabla_|g_?[A-Z]|\w+{SUFFIX}", name)}
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
    plain = set[str]()  # what is returned whole

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
        is_part = isinstance(value, ast.Subscript)
        while isinstance(value, ast.Subscript):
            value = value.value
        terms = [value.left, value.right] if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add) else []
        added = [term.id for term in terms if isinstance(term, ast.Name) and re.match(GRADIENT, term.id)]
        text = added[0] if added else ast.unparse(value).removeprefix("self.")
        if is_part and text in plain:  # hs[1:] beside hs
            return ""
        if text.isidentifier():
            return text
        inside = re.findall(r"\b(d\w+)\b(?!\()", text)
        if isinstance(value, ast.Call):  # np.stack(hs), and no o * np.tanh(c)
            inside += re.findall(r"\(\[?(\w+)\b(?!=)", text)
        return next((name for name in inside if name not in plain), "")
    for statement in reversed([n for n in own_nodes(node) if isinstance(n, ast.Return) and n.value]):
        if isinstance(statement.value, (ast.Tuple, ast.List, ast.Name, ast.Attribute)) or parts_of(statement.value):
            plain |= {ast.unparse(part) for part in parts_of(statement.value)}
            found = one(statement.value)
            return found if isinstance(found, tuple) else (found,)
    return ()


def elements(value: ast.expr) -> list[ast.expr]:
    """The elements of a tuple or a list, or of what a comprehension goes over: [clip(d) for d in (dW, db)]."""
    if isinstance(value, (ast.ListComp, ast.GeneratorExp)) and len(value.generators) == 1:
        value = value.generators[0].iter
    return value.elts if isinstance(value, (ast.Tuple, ast.List)) else []


def flat(names: tuple) -> tuple[str, ...]:
    """Nested names as one tuple."""
    return tuple(name for one in names for name in (flat(one) if isinstance(one, tuple) else (one,)))


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
