"""The edit of a student's backward that makes its gradients right.

The auditor changes the derivation until it gives the student's numbers. Here it is the other way round: one place of
the student's code is changed until it gives the true numbers. It finds what has no counterpart in the derivation, as an
array that is changed in place under another name, and it names the line.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from minigrad.engine.messages import one_line
from minigrad.handwritten.recordable import bases
from minigrad.handwritten.source import CouldNotRun, Source
from minigrad.handwritten.subjects import LABELS

SECONDS = 8.0  # for the search
MOST_NAMES = 70
SECONDS_AT_A_LINE = 1.0  # where the line is known
LIBRARIES = {"np", "numpy", "self", "range", "reversed", "len", "enumerate", "zip"}


class Edit(NamedTuple):
    """A change of the i-th node of a function, or of a method of the class `owner`."""

    owner: str
    function: ast.FunctionDef
    i: int
    change: Callable[[Any], Any]  # returns what takes the place of the node
    line: int
    cost: int  # up to 0: it makes a difference only where arrays are shared, or have fewer digits
    text: str  # what to do, in a sentence


def repair(differing: Callable[[int], list[str] | None], wrong: list[str], edits: Iterable[Edit],
           namespace: dict[str, Any], file: str, seconds: float = SECONDS) -> tuple[Edit, list[str]] | None:
    """(The first edit after which all `wrong` gradients are right, or the one that mends most; those that it mends.)

    differing  the gradients that are wrong at inputs 0, 1 or 2; None if the forward gives other numbers
    """
    best: tuple[Edit, list[str]] | None = None
    allowed = {*wrong, *(differing(0) or ())}
    end = time.process_time() + seconds
    for edit in edits:
        if time.process_time() > end:
            break
        with installed(edit, namespace, file), contextlib.suppress(CouldNotRun):
            mended = set(wrong)
            for k in range(3):
                left = differing(k)
                mended -= set(wrong if left is None or set(left) - allowed else left)
                if len(mended) <= (len(best[1]) if best else 0):
                    break
            else:
                best = edit, [name for name in wrong if name in mended]
        if best and len(best[1]) == len(wrong):
            break
    return best


@contextlib.contextmanager
def installed(edit: Edit, namespace: dict[str, Any], file: str) -> Iterator[None]:
    """The edited function in the place of the student's."""
    name, made = edit.function.name, dict[str, Any]()
    try:
        function = ast.fix_missing_locations(changed(edit.function, edit.i, edit.change))
        exec(compile(ast.Module([function], []), file, "exec"), namespace, made)
    except Exception:  # a default value may be an edit too
        made = {}
    owner = namespace[edit.owner] if edit.owner else None
    before = getattr(owner, name) if owner else namespace[name]
    put = (lambda f: setattr(owner, name, f)) if owner else (lambda f: namespace.__setitem__(name, f))
    put(made.get(name, before))
    try:
        yield
    finally:
        put(before)


# -- the edits, likely ones first -----------------------------------------------------------------------------


def edits_of(source: Source, owner: str, backward: str, forwards: list[str], others: list[str],
             shapes: dict[str, set[tuple]], is_misshaped: bool, at: int | None = None) -> list[Edit]:
    """All edits of the functions of a backward; of those of its forwards only arrays that are copied.

    shapes  {name: those that an array of this name had in a run}
    is_misshaped  whether gradients have wrong shapes: then names of another shape come first, and otherwise last
    at  a line: only its edits, but also the kinds that are too many for a whole function
    """
    of_forward = {key: f for name in forwards for key, f in reached(source, owner, name, others).items()}
    of_backward = reached(source, owner, backward, others)
    if backward not in forwards:
        of_backward = {key: f for key, f in of_backward.items() if key not in of_forward}
    functions, found = of_forward | of_backward, list[Edit]()
    labels = list(dict.fromkeys(
        ast.unparse(n).removeprefix(ast.unparse(n.value)) for f in functions.values() for n in ast.walk(f)
        if isinstance(n, ast.Subscript) and any(
            isinstance(m, ast.Name) and re.match(LABELS, m.id) for m in ast.walk(n.slice))))
    for (owner, _), function in functions.items():
        known = Known(names_in(function, shapes), labels, is_misshaped, at is not None)
        only_copies = function not in of_backward.values()
        line_of = {n: s.lineno for s in ast.walk(function) if isinstance(s, ast.stmt) for n in ast.walk(s)}
        stored = {base for s in ast.walk(function) if isinstance(s, (ast.Assign, ast.AugAssign))
                  for target in (s.targets if isinstance(s, ast.Assign) else [s.target]) for base in bases(target)}
        for i, node in enumerate(ast.walk(function)):
            if node not in stored and (at is None or line_of[node] == at):
                found += [Edit(owner, function, i, change, line[0] if line else line_of[node], cost, text)
                          for cost, change, text, *line in changes(node, known) if cost <= 0 or not only_copies]
    return sorted(found, key=lambda edit: edit.cost)


def reached(source: Source, owner: str, name: str, others: list[str]) -> dict[tuple[str, str], ast.FunctionDef]:
    """{(class or "", name): function} of a function, or method, and those that it calls, without these others."""
    found: dict[tuple[str, str], ast.FunctionDef] = {}
    waiting = [(owner, name)]
    for own, called in waiting:
        functions = source.methods(own) if own else source.definitions
        function = functions.get(called)
        if isinstance(function, ast.FunctionDef) and (own, called) not in found and all(
                ast.unparse(one) == "static_" for one in function.decorator_list):
            found[own, called] = function
            waiting += [("", n.id) for n in ast.walk(function) if isinstance(n, ast.Name) and n.id not in others]
            waiting += [(own, n.attr) for n in ast.walk(function) if isinstance(n, ast.Attribute) and own]
    return found


class Known(NamedTuple):
    """What is known where an edit is made: the function's names with their shapes, indices of labels …"""

    names: dict[str, set[tuple]]  # no shapes if they are no arrays
    labels: list[str]
    is_misshaped: bool
    is_at_a_line: bool


def names_in(function: ast.FunctionDef, shapes: dict[str, set[tuple]]) -> dict[str, set[tuple]]:
    """The names of arrays and numbers that a function uses."""
    called = {n.func.id for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    found = [ast.unparse(n) for n in ast.walk(function) if is_named(n)]
    names = [name for name in dict.fromkeys(found) if name not in called | LIBRARIES][:MOST_NAMES]
    return {name: shapes.get(name, set()) for name in names}


def is_named(node: Any) -> bool:
    """Whether a node is a name, an entry with a name, as d["da"], or an attribute of self."""
    return isinstance(node, ast.Name) or (
        isinstance(node, ast.Subscript) and isinstance(getattr(node.slice, "value", None), str)) or (
        isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self")


def changed(function: ast.FunctionDef, i: int, change: Callable[[Any], Any]) -> ast.FunctionDef:
    """A copy of the function with its i-th node changed: `change` returns what takes its place, or changes it."""
    twin = copy.deepcopy(function)
    target = next(node for k, node in enumerate(ast.walk(twin)) if k == i)

    class Replaced(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return change(node) if node is target else self.generic_visit(node)
    return Replaced().visit(twin)


Change = tuple  # its cost, the change, what to do, and its line, if it is not that of the node


def changes(node: Any, known: Known) -> Iterator[Change]:
    def instead(cost: int, new: str) -> Iterator[Change]:
        old, made = ast.unparse(node), None
        with contextlib.suppress(SyntaxError):
            made = ast.parse(new, mode="eval").body
        if made and ast.unparse(made) != old:
            yield cost, lambda _: ast.copy_location(made, node), f"write `{ast.unparse(made)}` in place of `{old}`"

    if isinstance(node, ast.AugAssign):
        target, value, sign = ast.unparse(node.target), ast.unparse(node.value), ast.unparse(node).split("=")[0][-1]
        if isinstance(node.target, ast.Name):
            for cost, change, text in statement(node, f"{target} = {target} {sign} ({value})", 0):
                yield cost, change, f"{text}: that array has another name too, or fewer digits"
        yield from statement(node, f"{target} = {value}")
        if sign == "+" and isinstance(node.target, ast.Subscript) and not any(
                isinstance(n, (ast.Slice, ast.Constant)) for n in ast.walk(node.target.slice)):
            base, index = ast.unparse(node.target.value), ast.unparse(node.target.slice)
            yield from statement(node, f"np.add.at({base}, {index}, {value})")
        if sign in "*/":
            yield 1, lambda _: ast.copy_location(ast.Pass(), node), f"leave out `{ast.unparse(node)}`"
    elif isinstance(node, ast.Assign) and len(node.targets) > 1:  # of an array they are names of the same one
        alone = [f"{ast.unparse(one)} = {ast.unparse(node.value)}" for one in node.targets]
        made = [ast.copy_location(s, node) for s in ast.parse("\n".join(alone)).body]
        yield 0, lambda _: made, f"write `{'; '.join(alone)}` in place of `{ast.unparse(node)}`: that is one array"
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and not isinstance(node.targets[0], ast.Tuple):
        target, value = ast.unparse(node.targets[0]), ast.unparse(node.value)
        yield from statement(node, f"{target} += {value}")
        yield from statement(node, f"{target} = np.zeros_like({value})", 2)
        for name in [ast.unparse(one) for one in getattr(node.value, "args", ()) if isinstance(one, ast.Name)]:
            yield from statement(node, f"{target} = {name} = {value}", 2)  # handed on to the layer below
        for index in known.labels:
            yield 3, partial(followed, new=f"{target}{index} -= 1"), f"add `{target}{index} -= 1` behind it"
    elif isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
        turned = ast.parse(f"list({ast.unparse(node.iter)})[::-1]", mode="eval").body

        def turn(one: ast.For) -> ast.For:
            one.iter = turned
            return one
        yield 1, turn, f"go through `{ast.unparse(node.iter)}` in the other order"
    elif isinstance(node, (ast.Tuple, ast.List)):
        for i in range(len(node.elts)):
            for j in range(i):
                yield 1, partial(exchanged, i=i, j=j), (
                    f"exchange `{ast.unparse(node.elts[j])}` and `{ast.unparse(node.elts[i])}`")
    elif isinstance(node, ast.keyword) and node.arg == "dtype":
        yield -1, lambda _: None, f"leave out `dtype={ast.unparse(node.value)}`"
    elif isinstance(node, ast.keyword) and node.arg == "axis":
        for axis in (0, 1, -1):
            yield 2, partial(along, axis=axis), f"write `axis={axis}` in place of `axis={ast.unparse(node.value)}`"
    if isinstance(node, ast.Subscript) and not isinstance(getattr(node.slice, "value", None), str):
        yield from shifts(node)
    if isinstance(node, (ast.FunctionDef, ast.For)):
        yield from moves(node)
    elif isinstance(getattr(node, "ctx", ast.Load()), ast.Load) and isinstance(node, ast.expr):
        yield from of_expression(node, known, instead)


def statement(node: ast.stmt, new: str, cost: int = 1) -> Iterator[Change]:
    made = ast.parse(new).body[0]
    text = f"write `{ast.unparse(made)}` in place of `{ast.unparse(node)}`"
    yield cost, lambda _: ast.copy_location(made, node), text


def of_expression(node: Any, known: Known, instead: Callable) -> Iterator[Change]:
    text, names = ast.unparse(node), known.names
    if known.is_at_a_line and not isinstance(node, (ast.Constant, ast.Tuple, ast.List, ast.Slice)):
        for name, sign in itertools.product(names, "+*/"):
            yield from instead(5, f"({text}) {sign} {name}")
    if is_named(node) and text in names:
        yield from instead(0, f"{text}.copy()")
        yield from instead(2, f"{text}.T")
        for other, shapes in names.items():  # first c_next for a_next
            is_other = bool(shapes) != bool(names[text]) or bool(shapes and not shapes & names[text])
            has_word = bool({*other.split("_")} & {*text.split("_")})
            yield from instead(3 + (is_other is not known.is_misshaped) - has_word, other)
        for f in ("np.tanh({})", "(1 - {})", "{}[::-1]", "{}[:, ::-1]", "{}[:, :, ::-1]"):
            yield from instead(4, f.format(text))
    elif isinstance(node, ast.Subscript):
        for other in names:  # dh0 for dh[:, 0]
            if other.startswith(ast.unparse(node.value)) or re.match("_?(d|grad)", other):
                yield from instead(3 + (not other.startswith(ast.unparse(node.value))), other)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for i, part in enumerate(parts):
            if not isinstance(part, ast.Slice):
                yield from instead(2, f"{ast.unparse(node.value)}.sum(axis={i})")
    elif isinstance(node, ast.Slice) and not node.step and (node.lower is None) != (node.upper is None):
        other = ast.unparse(ast.Slice(node.upper, node.lower))
        yield 2, lambda one: ast.Slice(one.upper, one.lower), f"write `{other}` in place of `{text}`"
    elif isinstance(node, ast.BinOp):
        left, right = f"({ast.unparse(node.left)})", f"({ast.unparse(node.right)})"
        for drop in (left, right):
            yield from instead(2, drop)
        if isinstance(node.op, (ast.Add, ast.Sub)):
            yield from instead(1, f"{left} {'-' if isinstance(node.op, ast.Add) else '+'} {right}")
            of_constants = isinstance(node.left, ast.Constant) or isinstance(node.right, ast.Constant)
            yield from instead(2 + of_constants, f"{right} - {left}")
            for product, other in ((node.left, right), (node.right, left)):  # a b + c in place of (a + c) b
                if isinstance(product, ast.BinOp) and isinstance(product.op, (ast.Mult, ast.Div)):
                    a, b = f"({ast.unparse(product.left)})", f"({ast.unparse(product.right)})"
                    sign = "*" if isinstance(product.op, ast.Mult) else "/"
                    yield from instead(2, f"({a} + {other}) {sign} {b}")
                    yield from instead(2, f"{a} {sign} ({b} + {other})")
        if isinstance(node.op, ast.Pow):
            yield from instead(2, left)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield from instead(1, ast.unparse(node.value))
    elif isinstance(node, ast.Call):
        if node.args and (known.is_misshaped or not re.search(r"\bsum$", ast.unparse(node.func))):
            yield from instead(2, ast.unparse(node.args[0]))  # a sum is left out only where a shape is wrong
        if re.search(r"\b(mean|sum)$", ast.unparse(node.func)):
            other = re.sub(r"\b(mean|sum)$", lambda m: {"mean": "sum", "sum": "mean"}[m[1]], ast.unparse(node.func))
            yield from instead(1, text.replace(ast.unparse(node.func), other, 1))
        lengths = getattr(node.args[0], "elts", node.args) if node.args else []
        if isinstance(node.func, ast.Attribute) and node.func.attr == "reshape" and len(lengths) == 2:
            yield from instead(1, "{}({}, {}).T".format(*map(ast.unparse, (node.func, *reversed(lengths)))))
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("astype", "clip", "transpose",
                                                                             "swapaxes"):
            yield from instead(1, ast.unparse(node.func.value))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield from instead(2, ast.unparse(node.operand))


def shifts(node: ast.Subscript) -> Iterator[Change]:
    """x[:, t - 1] for x[:, t], wherever it stands."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for i, sign in itertools.product((i for i, part in enumerate(parts) if not isinstance(part, ast.Slice)), "-+"):
        twin = copy.deepcopy(node)
        new = ast.parse(simplified(f"{ast.unparse(parts[i])} {sign} 1"), mode="eval").body
        if isinstance(twin.slice, ast.Tuple):
            twin.slice.elts[i] = new
        else:
            twin.slice = new
        cost = 4 if isinstance(parts[i], ast.Constant) else 1  # an entry of a cache is none of a time
        yield cost, partial(replaced, new=twin), f"write `{ast.unparse(twin)}` in place of `{ast.unparse(node)}`"


def begins(s: ast.stmt) -> bool:
    """Whether a statement assigns zeros."""
    return isinstance(s, ast.Assign) and bool(re.fullmatch(
        r"0(\.0)?|(np|numpy)\.zeros(_like)?\(.*\)|None", ast.unparse(s.value)))


def loaded_in(s: ast.AST) -> Iterator[ast.expr]:
    return (n for n in ast.walk(s) if isinstance(n, (ast.Name, ast.Attribute, ast.Subscript))
            and isinstance(n.ctx, ast.Load))


def simplified(index: str) -> str:
    """t - 1 + 1 as t, and t - 1 - 1 as t - 2."""
    if not (found := re.fullmatch(r"(.*\S) ([-+]) (\d+) ([-+]) (\d+)", index)):
        return index
    more = int(found[2] + found[3]) + int(found[4] + found[5])
    return f"{found[1]} {'+' if more > 0 else '-'} {abs(more)}" if more else found[1]


def replaced(_: Any, new: Any) -> Any:
    return new


def followed(node: Any, new: str) -> list:
    return [node, *ast.parse(new).body]


def along(_: Any, axis: int) -> ast.keyword:
    return ast.keyword("axis", ast.Constant(axis))


def exchanged(node: Any, i: int, j: int) -> Any:
    node.elts[i], node.elts[j] = node.elts[j], node.elts[i]
    return node


def moves(block: Any) -> Iterator[Change]:
    """Statements in another place: the last of a loop behind it, the one behind a loop at its end, zeros before a loop
    or at its beginning, and a sum before its first use."""
    for k, s in enumerate(block.body):
        target = getattr(s, "targets", [getattr(s, "target", None)])[0]
        name = ast.unparse(target) if isinstance(s, ast.AugAssign) or (isinstance(s, ast.Assign) and ast.unparse(
            target) in map(ast.unparse, loaded_in(s.value))) else ""
        used = [j for j, other in enumerate(block.body[:k]) if name and name in map(ast.unparse, loaded_in(other))]
        if used:
            yield (2, partial(moved, start=(None, k), end=(None, used[0])),
                   f"{shown(s)} belongs before {shown(block.body[used[0]])}", s.lineno)
        for j, loop in enumerate(block.body[k + 1:], k + 1) if begins(s) else ():
            if isinstance(loop, ast.For):
                yield (1, partial(repeated, k=k, loop=j), f"{shown(s)} belongs at the beginning of {shown(loop, 60)}",
                       s.lineno)
    for k, loop in enumerate(block.body):
        if not isinstance(loop, ast.For):
            continue
        for i, s in enumerate(loop.body if len(loop.body) > 1 else ()):
            if begins(s):
                yield 1, partial(moved, start=(k, i), end=(None, k)), f"{shown(s)} belongs before the loop", s.lineno
        if len(loop.body) > 1:
            yield (2, partial(moved, start=(k, len(loop.body) - 1), end=(None, k + 1)),
                   f"{shown(loop.body[-1])} belongs behind the loop", loop.body[-1].lineno)
        for s in block.body[k + 1:k + 2]:
            if not isinstance(s, ast.Return):
                yield (2, partial(moved, start=(None, k + 1), end=(k, len(loop.body))),
                       f"{shown(s)} belongs into the loop before it", s.lineno)


def moved(block: Any, start: tuple[int | None, int], end: tuple[int | None, int]) -> Any:
    """Move a statement: (index of a loop in the block, or None for the block itself; index in it)."""
    source, target = (block.body if k is None else block.body[k].body for k, _ in (start, end))
    target.insert(end[1], source.pop(start[1]))
    return block


def repeated(block: Any, k: int, loop: int) -> Any:
    """Repeat a statement of the block at the beginning of a loop."""
    block.body[loop].body.insert(0, block.body[k])
    return block


def shown(s: ast.stmt, n: int = 80) -> str:
    return f"`{one_line(ast.unparse(s), n)}`"
