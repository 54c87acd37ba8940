"""A user's forward rewritten for tensors: what NumPy does in place becomes an expression that can be recorded.

* `h[:, t] = a` becomes `h = put(h, (slice(None), t), a)`. The writes are collected on a `Board` and put together once,
  after the loop; reading back what was written returns the written value itself.
* `a += b` becomes `a = a + b`, and `np.tanh(z, out=a)` becomes `a = np.tanh(z)`; `a.dot(b)` becomes `np.dot(a, b)`,
  for an ndarray `a` would refuse a tensor `b`.
* A loop or a comprehension over literals, as `for gate in "fico"`, is written out, so that each gate is a place of the
  code of its own and not a step of time.
* The value of `hs[t] = np.tanh(…)` gets a name, `h`.
* `log(p + 1e-7)` becomes `log(p)`, and `x - np.max(x)` becomes `x`: what guards against an overflow is no part of the
  derivation.

The user's backward is never rewritten.
"""

from __future__ import annotations

import ast
import copy
import itertools
import keyword
import re
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np

from minigrad.engine.ops import logsumexp, softmax
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor

MOST_WRITTEN_OUT = 8  # iterations of a loop over literals
REDUCTIONS = {"add.reduce": "np.sum", "maximum.reduce": "np.max", "logaddexp.reduce": "logsumexp_"}  # of np.add …
LOSS = r"loss|cost|error|cross_?entropy|objective|criterion|cout|perte|erreur|verlust|kosten|fehler|perda|perdida|costo"
SMALL = 1e-6  # the largest guard in an argument of log


def recordable(tree: ast.Module) -> ast.Module:
    """The module rewritten; it needs the names of `HELPERS`."""
    tree = copy.deepcopy(tree)
    literals: dict[str, ast.expr] = {s.targets[0].id: s.value for s in tree.body if isinstance(s, ast.Assign)
                and isinstance(s.targets[0], ast.Name) and isinstance(s.value, (ast.Tuple, ast.List, ast.Constant))}
    tree = WrittenOut(literals).visit(tree)
    tree = Expressions().visit(tree)
    return ast.fix_missing_locations(tree)


# -- loops over literals --------------------------------------------------------------------------------------


class WrittenOut(ast.NodeTransformer):
    def __init__(self, literals: dict[str, ast.expr]):
        self.literals = literals

    def elements(self, iterable: ast.expr) -> list[ast.expr] | None:
        """The elements of a literal, of range(3), enumerate or zip of literals; None for anything else."""
        if isinstance(iterable, ast.Name):
            iterable = self.literals.get(iterable.id, iterable)
        if isinstance(iterable, (ast.Tuple, ast.List)):
            return None if any(isinstance(e, ast.Starred) for e in iterable.elts) else iterable.elts
        if isinstance(iterable, ast.Constant) and isinstance(iterable.value, str):
            return [ast.Constant(letter) for letter in iterable.value]
        if not (isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name)) or iterable.keywords:
            return None
        arguments = iterable.args
        if iterable.func.id == "range" and all(isinstance(a, ast.Constant) for a in arguments):
            return [ast.Constant(i) for i in range(*(a.value for a in arguments))]  # type: ignore[attr-defined]
        columns = [self.elements(a) for a in arguments]
        if iterable.func.id == "enumerate" and len(columns) == 1 and columns[0] is not None:
            return [ast.Tuple([ast.Constant(i), e], ast.Load()) for i, e in enumerate(columns[0])]
        if iterable.func.id == "zip" and columns and all(column is not None for column in columns):
            return [ast.Tuple(list(row), ast.Load()) for row in zip(*columns)]  # type: ignore[arg-type]
        return None

    def visit_For(self, node: ast.For) -> Any:
        elements = self.elements(node.iter)
        leaves = any(isinstance(n, (ast.Break, ast.Continue)) for n in ast.walk(node))
        self.generic_visit(node)
        if not elements or leaves or node.orelse or len(elements) > MOST_WRITTEN_OUT:
            return node
        return [s for e in elements for s in (
            ast.copy_location(ast.Assign([copy.deepcopy(node.target)], copy.deepcopy(e)), node),
            *copy.deepcopy(node.body))]

    def visit_ListComp(self, node: Any) -> Any:
        self.generic_visit(node)
        elements = self.elements(node.generators[0].iter)
        if len(node.generators) > 1 or node.generators[0].ifs or elements is None or len(elements) > MOST_WRITTEN_OUT:
            return node
        rows = [self.values(node.generators[0].target, e) for e in elements]
        if None in rows:
            return node
        put_in = [lambda part, row=row: Named(row).visit(copy.deepcopy(part)) for row in rows]
        if isinstance(node, ast.DictComp):
            new: ast.expr = ast.Dict([f(node.key) for f in put_in], [f(node.value) for f in put_in])
        else:
            new = ast.List([f(node.elt) for f in put_in], ast.Load())
        return ast.copy_location(new, node)

    visit_GeneratorExp = visit_DictComp = visit_ListComp

    def values(self, target: ast.expr, value: ast.expr) -> dict[str, ast.expr] | None:
        """{name: expression} of what `target = value` would bind."""
        if isinstance(target, ast.Name):
            return {target.id: value}
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            found = [self.values(t, v) for t, v in zip(target.elts, value.elts)]
            return None if None in found else {k: v for one in found for k, v in one.items()}  # type: ignore[union-attr]
        return None


class Named(ast.NodeTransformer):
    """Expressions in place of names."""

    def __init__(self, values: dict[str, ast.expr]):
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return copy.deepcopy(self.values.get(node.id, node)) if isinstance(node.ctx, ast.Load) else node


# -- assignments in place -------------------------------------------------------------------------------------


class Expressions(ast.NodeTransformer):
    """Assignments to parts, and in place, as assignments of a name."""

    def __init__(self) -> None:
        self.loops = 0
        self.used: set[str] = set()  # the names in the present function
        self.scopes: list[set[str]] = []  # the names that the present function, and each around it, binds
        self.whole: set[str] = set()  # the arrays that are read as a whole in the present loop
        self.stores: list[tuple[int, str, ast.expr | None]] = []  # (line, name, x of name = exp(x)), in this function

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        outside, stores = self.used, self.stores
        self.used = {str(getattr(n, "id", getattr(n, "arg", ""))) for n in ast.walk(node)}
        own = bound_in(node)
        self.scopes.append(own)
        exps = {id(t): exponent(s.value) for s in own_nodes(node) if isinstance(s, ast.Assign) for t in s.targets}
        self.stores = [(n.lineno, n.id, exps.get(id(n))) for n in own_nodes(node) if isinstance(
            n, ast.Name) and isinstance(n.ctx, ast.Store)]
        self.generic_visit(node)
        self.scopes.pop()
        for name in sorted(bound_in(node) - own & self.used):  # what it only changed a part of, it binds now
            declare = ast.Nonlocal if any(name in scope for scope in self.scopes) else ast.Global
            node.body.insert(0, ast.copy_location(declare([name]), node.body[0]))
        self.used, self.stores = outside, stores
        return node

    def visit_For(self, node: Any) -> Any:
        if not self.loops:
            parts = {id(n.value) for n in ast.walk(node) if isinstance(n, ast.Subscript)}
            self.whole = {ast.unparse(n) for n in ast.walk(node) if isinstance(n, (ast.Name, ast.Attribute))
                          and isinstance(n.ctx, ast.Load) and id(n) not in parts}
            written = {ast.unparse(base): base for s in ast.walk(node) if isinstance(s, (ast.Assign, ast.AugAssign))
                       for t in (s.targets if isinstance(s, ast.Assign) else [s.target]) for base in parts_of(t)}
            own = {base.id for base in bases(getattr(node, "target", ast.Tuple([], ast.Store())))}  # of p in p.grad
            self.whole |= {name for name, base in written.items() if own & {one.id for one in bases(base)}}
        self.loops += 1
        self.generic_visit(node)
        self.loops -= 1
        if self.loops:
            return node
        return [node, *(ast.copy_location(ast.Assign([stored(base)], call("settle_", loaded(base))), node)
                        for name, base in written.items() if name not in self.whole)]

    visit_While = visit_For

    def visit_Expr(self, node: ast.Expr) -> Any:
        if isinstance(node.value, ast.Call) and (into := [k.value for k in node.value.keywords if k.arg == "out"]):
            return self.visit_Assign(ast.copy_location(ast.Assign([stored(into[0])], node.value), node))
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        if len(node.targets) > 1 and any(map(parts_of, node.targets)):  # hs[t] = h = a is h = a and hs[t] = h
            first, *_ = [t for t in node.targets if isinstance(t, ast.Name)] or [ast.Name("value_", ast.Store())]
            rest = [t for t in node.targets if t is not first]
            each = [ast.Assign([first], node.value), *(ast.Assign([t], loaded(first)) for t in rest)]
            found = [self.visit_Assign(ast.copy_location(one, node)) for one in each]
            return [s for one in found for s in (one if isinstance(one, list) else [one])]
        self.generic_visit(node)
        target = node.targets[0]
        base = parts_of(target)
        if len(node.targets) == 1 and isinstance(target, ast.Subscript) and base:
            name = self.name_of_part(base[0])
            if not self.loops or not name or isinstance(node.value, ast.Name):
                return ast.copy_location(self.put(target, node.value), node)
            return [ast.copy_location(s, node) for s in (ast.Assign([ast.Name(name, ast.Store())], node.value),
                                                         self.put(target, ast.Name(name, ast.Load())))]
        if isinstance(target, ast.Tuple) and any(isinstance(t, ast.Subscript) for t in target.elts):
            assigned = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
            values = node.value.elts if isinstance(node.value, ast.Tuple) else []
            if len(values) == len(target.elts) and all(
                    isinstance(v, ast.Name) and v.id not in assigned for v in values):  # they have names already
                pairs = [ast.copy_location(ast.Assign([t], v), node) for t, v in zip(target.elts, values)]
                return [self.visit_Assign(one) for one in pairs]
            own = [self.name_of_part(base[0]) if (base := parts_of(t)) else "" for t in target.elts]
            names = [name if own.count(name) == 1 else f"part_{i}_" for i, name in enumerate(own)]
            parts = [ast.Name(n, ast.Store()) for n in names]
            unpack = ast.Assign([ast.Tuple([ast.Starred(part, ast.Store()) if isinstance(t, ast.Starred) else part
                                            for t, part in zip(target.elts, parts)], ast.Store())], node.value)
            single: list[Any] = [ast.Assign([t.value if isinstance(t, ast.Starred) else t], ast.Name(n, ast.Load()))
                                 for t, n in zip(target.elts, names)]
            return [ast.copy_location(s if isinstance(s.targets[0], (ast.Name, ast.Attribute, ast.Tuple)) else
                                      self.put(s.targets[0], s.value), node) for s in (unpack, *single)]
        return node

    def name_of_part(self, base: ast.expr) -> str:
        """A free name for a part of an array, h of hs and C_t of C; "" if there is none."""
        name = ast.unparse(base).rpartition(".")[2].strip("_").removesuffix("s")
        name = f"{name}_t" if name in self.used else name
        return name if name.isidentifier() and not keyword.iskeyword(name) and name not in self.used else ""

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        self.generic_visit(node)
        if isinstance(node.target, ast.Subscript) and not parts_of(node.target):  # f(x)[i] += y
            return node
        value = self.visit_BinOp(ast.copy_location(ast.BinOp(loaded(node.target), node.op, node.value), node))
        new = self.put(node.target, value) if isinstance(node.target, ast.Subscript) else \
            ast.Assign([node.target], value)
        return ast.copy_location(new, node)

    def of_softmax(self, node: ast.BinOp) -> ast.expr | None:
        """softmax(x, axis) for exp(x) / sum(exp(x), axis); None for anything else."""
        x = exponent(node.left) or self.exponential(node)
        total: Any = node.right
        while isinstance(total, ast.Subscript):  # [:, None]
            total = total.value
        if not isinstance(node.op, ast.Div) or not x or not isinstance(total, ast.Call):
            return None
        summed, *axis = [x]
        if ast.unparse(total.func) in ("np.sum", "sum"):
            summed, *axis = total.args
        elif isinstance(total.func, ast.Attribute) and total.func.attr == "sum":
            summed, *axis = total.func.value, *total.args
        axis += [k.value for k in total.keywords if k.arg == "axis"]
        return call("softmax_", x, *axis[:1]) if ast.unparse(summed) == ast.unparse(node.left) else None

    def exponential(self, node: ast.BinOp) -> ast.expr | None:
        """x, where exp(x) was the last that got the name on the left, and x is still what it was then."""
        here = getattr(node, "lineno", 0)
        line, name, x = max((one for one in self.stores if one[1] == ast.unparse(node.left) and one[0] < here),
                            key=itemgetter(0), default=(0, "", None))
        since = {name, *(other for at, other, _ in self.stores if line < at < here)}
        return None if x is None or since & names_in(x) else x

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        if x := self.of_softmax(node):
            return self.visit(ast.copy_location(x, node))
        self.generic_visit(node)
        if isinstance(node.op, ast.Sub) and maximum_of(node.right) == ast.unparse(node.left):
            return node.left
        for one, other in ((node.left, node.right), (node.right, node.left)):  # max(x) + log(sum(exp(x - max(x))))
            if isinstance(node.op, ast.Add) and maximum_of(one) and "log(" in ast.unparse(other):
                return other
        return node

    def put(self, target: ast.Subscript, value: ast.expr) -> ast.Assign:
        """`a[i] = value` as `a = put(a, i, value)`; `a[i][j] = value` as `a[i] = put(a[i], j, value)`."""
        base = target.value
        waits = self.loops and ast.unparse(base) not in self.whole
        new = call("put_", loaded(base), index_of(target), value, ast.Constant(bool(waits)))
        if isinstance(base, ast.Subscript):
            return self.put(base, new)
        return ast.Assign([stored(base)], new)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        f = node.func
        if ast.unparse(f) == "float" and node.args and not isinstance(node.args[0], ast.Constant):
            return call("number_", node.args[0])
        if isinstance(f, ast.Attribute) and f.attr == "item" and not node.args:
            return call("number_", f.value)
        if made := REDUCTIONS.get(ast.unparse(f).partition(".")[2]):
            along = [] if node.args[1:] or any(k.arg == "axis" for k in node.keywords) else [
                ast.keyword("axis", ast.Constant(0))]
            return ast.copy_location(ast.Call(loaded(ast.parse(made, mode="eval").body), node.args, [
                *node.keywords, *along]), node)
        node.keywords = [k for k in node.keywords if k.arg != "out"]
        if isinstance(f, ast.Attribute) and f.attr == "dot" and len(node.args) == 1:
            return ast.copy_location(call("dot_", f.value, node.args[0]), node)
        x = node.args[0] if node.args else None
        if re.match(r"(copy\.)?(deep)?copy$", ast.unparse(f)) and x is not None:
            return ast.copy_location(call("copy_", x), node)
        if ast.unparse(f).endswith("log") and isinstance(x, ast.BinOp) and isinstance(x.op, ast.Add) and \
                isinstance(x.right, ast.Constant) and isinstance(x.right.value, float) and x.right.value <= SMALL:
            node.args[0] = x.left
        return node


def bound_in(function: ast.FunctionDef) -> set[str]:
    """The names of a function's own: what it takes or assigns, declares as another's, or defines."""
    found = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
    for n in ast.walk(function):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            found.add(n.id)
        elif isinstance(n, (ast.Global, ast.Nonlocal)):
            found |= {*n.names}
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef)):
            found.add(n.name)
    return found


def parts_of(target: ast.expr) -> list[ast.expr]:
    """The names and attributes of which a target assigns a part."""
    if isinstance(target, (ast.Tuple, ast.List)):
        return [base for t in target.elts for base in parts_of(t)]
    if not isinstance(target, ast.Subscript):
        return []
    while isinstance(target, ast.Subscript):
        target = target.value
    return [target] if isinstance(target, (ast.Name, ast.Attribute)) else []


def maximum_of(node: ast.expr) -> str:
    """x of np.max(x) and of x.max(), along any axis; "" for anything else."""
    found = re.fullmatch(r"(?:np|numpy)\.a?max\((.*?)(?:, .*)?\)|(.*?)\.max\(.*\)", ast.unparse(node))
    return (found[1] or found[2]) if found else ""


def call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def loaded(target: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(target), mode="eval").body


def stored(target: ast.expr) -> ast.expr:
    return ast.parse(f"{ast.unparse(target)} = 0").body[0].targets[0]  # type: ignore[attr-defined]


def index_of(target: ast.Subscript) -> ast.expr:
    """The index as an expression: slices as calls of slice."""
    def one(part: ast.expr) -> ast.expr:
        if isinstance(part, ast.Slice):
            return call("slice", *(p or ast.Constant(None) for p in (part.lower, part.upper, part.step)))
        return part
    index = target.slice
    return ast.Tuple([one(p) for p in index.elts], ast.Load()) if isinstance(index, ast.Tuple) else one(index)


# -- what the rewritten code calls ----------------------------------------------------------------------------


class Board(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that is filled part by part with tensors."""

    def __init__(self, base: Any):
        self.base = base
        self.places = np.arange(base.size).reshape(base.shape)
        self.writes: list[tuple[np.ndarray, Any]] = []
        self.made: Any = None

    def __getitem__(self, index: Any) -> Any:
        wanted = self.places[index]
        for places, value in reversed(self.writes):
            if np.array_equal(places, wanted):
                return value
            if np.isin(wanted, places).any():
                return self.settled()[index]
        return self.base[index]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*map(settle, inputs), **options)

    def __getattr__(self, name: str) -> Any:  # shape, T, dtype
        return getattr(self.settled(), name)

    def settled(self) -> Any:
        """The whole array as one tensor, which is known as this board from now on."""
        BOARDS.pop(id(self.made), None)  # the one before may go, and its id with it
        self.made = self.whole()
        BOARDS[id(self.made)] = self
        return self.made

    def whole(self) -> Any:
        """All writes put together: a stack, if the array was filled along one axis."""
        for axis, length in enumerate(self.base.shape):
            found = {np.take(self.places, i, axis).tobytes(): i for i in range(length)}
            order = {found.get(places.tobytes()): value for places, value in self.writes
                     if np.shape(value) == places.shape and places.ndim < self.base.ndim}
            if set(order) == set(range(length)):
                return np.stack([order[i] for i in range(length)], axis=axis)
        pick, parts, size = np.full(self.base.size, -1), [], 0
        for places, value in self.writes:
            if np.shape(value) != places.shape or not isinstance(value, Tensor):
                value = value + np.zeros(places.shape)
            pick[places.ravel()] = size + np.arange(places.size)
            parts.append(value.reshape(-1))
            size += places.size
        if (pick < 0).any():
            rest = np.flatnonzero(pick < 0)
            pick[rest] = size + np.arange(len(rest))
            parts.append(self.base.reshape(-1)[rest])
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return (whole if np.array_equal(pick, np.arange(len(pick))) else whole[pick]).reshape(self.base.shape)


BOARDS: dict[int, Board] = {}  # by the tensor that was made of them, which they keep alive


def put(x: Any, index: Any, value: Any, waits: bool) -> Any:
    """x with x[index] = value; a Board while it `waits` for the end of the loop."""
    if isinstance(x, Tensor) and np.ndim(value) == 0 and np.shape(index) == x.shape:  # a mask
        return np.where(index, value, x)
    if isinstance(value, (tuple, list)) and isinstance(x, (np.ndarray, Tensor, Board)):
        value = OnTensors(np).array(value)
    board = x if isinstance(x, Board) else BOARDS.get(id(x))
    if board is None and not (isinstance(x, (np.ndarray, Tensor)) and (isinstance(x, Tensor) or isinstance(
            value, Tensor))):
        x[index] = value
        return x
    board = board or Board(x)
    board.writes.append((board.places[index], value))
    return board if waits else board.settled()


def settle(x: Any) -> Any:
    return x.settled() if isinstance(x, Board) else x


class OnTensors:
    """NumPy, with what it does not hand over to tensors by itself."""

    def __init__(self, numpy: Any):
        self.numpy = numpy
        self.c_, self.r_ = Joined(numpy.c_), Joined(numpy.r_)

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.numpy, name)
        if name in ("put_along_axis", "copyto", "fill_diagonal"):  # of gradients; in a forward the numbers would differ
            return lambda x, *others, **options: None if isinstance(x, Tensor) else function(x, *others, **options)
        if name in ("flipud", "fliplr", "rot90", "roll", "tile", "repeat", "delete"):
            return lambda x, *others, **options: moved(lambda y: function(y, *others, **options), x)
        if name in ("sum", "mean", "prod", "max", "min", "log", "exp", "dot"):  # of lists of tensors
            return lambda *arguments, **options: function(*(
                self.array(x) if isinstance(x, list) else x for x in arguments), **options)
        return function

    def array(self, x: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(x, (list, tuple)) and any(isinstance(leaf, Tensor) for leaf in flatten(x)[0]):
            return np.stack([self.array(row) for row in x])
        return x if isinstance(x, Tensor) else self.numpy.array(x, *arguments, **options)

    asarray = ascontiguousarray = array

    def reciprocal(self, x: Any) -> Any:
        return 1.0 / x

    def take_along_axis(self, x: Any, indices: Any, axis: int) -> Any:
        return moved(lambda y: self.numpy.take_along_axis(y, indices, axis), x)

    def hsplit(self, x: Any, sections: Any) -> Any:
        return self.numpy.split(x, sections, axis=min(1, x.ndim - 1))

    def vsplit(self, x: Any, sections: Any) -> Any:
        return self.numpy.split(x, sections, axis=0)

    def array_split(self, x: Any, sections: Any, axis: int = 0) -> Any:
        return self.numpy.split(x, sections, axis=axis)


class Joined:
    """np.c_ and np.r_ of tensors."""

    def __init__(self, joined: Any):
        self.joined = joined

    def __getitem__(self, parts: Any) -> Any:
        return moved(lambda *arrays: self.joined[arrays], *(parts if isinstance(parts, tuple) else (parts,)))


def moved(function: Callable, *arrays: Any) -> Any:
    """The tensor for a function that only moves the entries of arrays: what it does with their places."""
    if not any(isinstance(x, Tensor) for x in arrays):
        return function(*arrays)
    sizes = [0, *itertools.accumulate(np.size(x) for x in arrays)]
    places = function(*(size + np.arange(np.size(x)).reshape(np.shape(x)) for size, x in zip(sizes, arrays)))
    return np.concatenate([np.reshape(x, (-1,)) for x in arrays])[places]


def copied(x: Any) -> Any:
    """A copy; of tensors, which nothing changes in place, only of what they are in."""
    leaves, pattern = flatten(x)
    return unflatten(pattern, [one if isinstance(one, (Tensor, Board)) else copy.deepcopy(one) for one in leaves])


def soft(x: Any, axis: Any = None) -> Any:
    """exp(x) / sum(exp(x), axis); without an axis along all that have more than one entry."""
    long = [k for k, n in enumerate(np.shape(x)) if n > 1] or [0]
    if axis is None and len(long) > 1:
        return softmax(np.reshape(x, (-1,)), axis=0).reshape(np.shape(x))
    return softmax(x, axis=long[0] if axis is None else axis)


def exponent(node: ast.expr) -> ast.expr | None:
    """x of np.exp(x)."""
    is_exp = isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.exp", "numpy.exp") and len(node.args) == 1
    return node.args[0] if is_exp else None  # type: ignore[attr-defined]


def number(x: Any) -> Any:
    """float(x) or x.item() of an array with one entry."""
    return x.reshape(()) if np.ndim(x) else x


HELPERS = {"number_": number, "put_": put, "settle_": settle, "dot_": np.dot, "copy_": copied, "logsumexp_": logsumexp,
           "softmax_": soft}


# -- the part of a function that computes its loss ------------------------------------------------------------


def loss_alone(function: ast.FunctionDef, at: int = 0) -> ast.FunctionDef:
    """The function with only what the loss depends on, which is the first of the values that it returns, or that `at`
    this place."""
    function = copy.deepcopy(function)
    function.body = needed(function.body, set(), at) or [ast.Pass()]
    return function


def needed(body: list[ast.stmt], names: set[str], at: int) -> list[ast.stmt]:
    """The statements on which what follows depends, if it reads these names; those that they read are added."""
    kept: list[ast.stmt] = []
    for s in reversed(body):
        while isinstance(s, ast.Return) and isinstance(s.value, ast.Tuple):  # also of ((loss, h), gradients)
            s.value, at = s.value.elts[at], 0
        if isinstance(s, ast.Return) and isinstance(s.value, ast.Dict):
            s.value = next((value for key, value in zip(s.value.keys, s.value.values) if re.search(
                LOSS, str(getattr(key, "value", "")), re.I)), s.value)
        blocks = [] if isinstance(s, ast.FunctionDef) else [b for b in ("body", "orelse") if getattr(s, b, None)]
        header = getattr(s, "iter", getattr(s, "test", s))
        before = None
        while blocks and before != names:  # an iteration needs what the one before leaves
            before = set(names)
            parts = {block: needed(getattr(s, block), names, at) for block in blocks}
            if is_needed := any(not isinstance(one, PLAIN) for part in parts.values() for one in part):
                names |= names_in(header)
        if blocks and is_needed:
            for block, part in parts.items():
                setattr(s, block, part or [ast.Pass()])
        elif not blocks and (isinstance(s, PLAIN) or bound_by(s) & names):
            names |= names_in(s)
        else:
            continue
        kept.insert(0, s)
    return kept


PLAIN = (ast.Return, ast.FunctionDef, ast.Global, ast.Break, ast.Continue)  # no loop is kept for these alone


def names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def bound_by(s: ast.AST) -> set[str]:
    """The names that a simple statement binds, or may change a part of, as caches in `x, h = caches.pop()`."""
    targets = [*getattr(s, "targets", []), *filter(None, [getattr(s, "target", None)])]
    changed = [n.func.value for n in ast.walk(s) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
               and n.func.attr in ("append", "insert", "extend", "pop", "popleft", "appendleft", "update", "fill")]
    if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and isinstance(s.value.func, ast.Attribute):
        owner = s.value.func.value  # node.step(x), where all of a model is in self
        changed += [owner] * (not {one.id for one in bases(owner)} & {"np", "numpy", "self"})
    return {base.id for target in (*targets, *changed) for base in bases(target)}


def bases(target: ast.AST) -> Iterator[ast.Name]:
    """The names in a target of an assignment: W of W, W[0], W.x and (W, b)."""
    while isinstance(target, (ast.Subscript, ast.Attribute, ast.Starred)):
        target = target.value
    if isinstance(target, ast.Name):
        yield target
    for child in getattr(target, "elts", []):
        yield from bases(child)


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions in it, which have returns and names of their own."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield from own_nodes(child)
