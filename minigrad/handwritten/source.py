"""A user's Python file or notebook: what it defines, and the part of it that chosen functions need.

Nothing is imported. The file is parsed, and only the statements that the chosen functions depend on are run, in their
order: a training loop at the end of the file never starts, and of two definitions of a name the last one wins.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import functools
import io
import json
import linecache
import re
import signal
import sys
import threading
import tokenize
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
from numpy.random import RandomState, default_rng

from minigrad.engine.messages import nearest, one_line
from minigrad.engine.ops import sigmoid, softmax
from minigrad.handwritten.closures import with_classes
from minigrad.handwritten.recordable import HELPERS, bases, loss_alone, recordable

TEXT = "hello world, this is a text\n" * 40  # of a file that is not here
LIMIT = 10.0  # seconds of computing that one call of the user's code may take
Function = ast.FunctionDef | ast.ClassDef
PYTHON_2 = [(r"^\s*print\s+[^\s(=.,]|^\s*print\s*$", "print is a function since Python 3: write print(…)"),
            (r"^\s*except\s+[\w.]+\s*,\s*\w+\s*:", "Python 3 writes `except … as …:`"), (r"<>", "Python 3 writes !="),
            (r"^\s*exec\s+[^(]", "exec is a function since Python 3: write exec(…)"),
            (r"^\s*raise\s+\w+\s*,", "Python 3 writes raise …(…)"), (r"^\s*/\*|\*/", "comments begin with #"),
            (r"^\s*//", "comments begin with #")]
IN_PYTHON_3 = [(r"(^|:)(\s*)print\b(?!\s*[(=.,])(.*)", r"\1\2pass  #\3"),
               (r"\bexcept\s+([\w.]+)\s*,\s*(\w+)\s*:", r"except \1 as \2:"),
               (r"<>", "!="), (r"\.iter(items|values|keys)\(\)", r".\1()")]
GONE = {"xrange": "range", "raw_input": "input", "unicode": "str", "long": "int", "np.float": "float", "np.int": "int",
        "np.bool": "bool", "np.object": "object", "np.float_": "np.float64", "np.product": "np.prod",
        "np.numpy": "np.dot", "np.Inf": "np.inf", "np.NaN": "np.nan", "np.row_stack": "np.vstack"}
EXPONENTIAL = re.compile(r"\b(exp|expit|log|log1p|logaddexp|sqrt|tanh)\b")
DEFINITION = re.compile(r"^(def|class)\b", re.M)
ABSENT = re.compile(r"module 'numpy' has no attribute '(\w+)'|`?np\.(\w+)`? was (?:a deprecated alias|removed)|"
                    r"name '(\w+)' is not defined")


class TooSlow(BaseException):
    """The user's code ran for too long; no `except Exception` of theirs catches it."""


class CouldNotRun(ValueError):
    """What keeps a user's code from being judged, in one sentence."""


@dataclass
class Source:
    """A parsed file. `places[i]` says in words where line i + 1 of the text comes from."""

    file: str
    text: str
    places: list[str]
    tree: ast.Module
    python_2: str = ""  # its first line of Python 2, and what to write instead
    gone: str = ""  # the first use of what Python 3 or NumPy 2 do not have, and what to write instead
    failed: dict[str, str] = field(default_factory=dict)  # name → why the statement that binds it could not be run

    def place(self, line: int) -> str:
        return self.places[line - 1] if 0 < line <= len(self.places) else f"line {line}"

    @functools.cached_property
    def definitions(self) -> dict[str, Function]:
        """The last definition of each function and class."""
        return {node.name: node for node in self.tree.body if isinstance(node, Function)}

    @functools.cached_property
    def parents(self) -> set[str]:
        """The names of the classes from which other classes of the file are derived."""
        return {base.id for name, node in self.definitions.items() for base in getattr(node, "bases", [])
                if isinstance(base, ast.Name) and base.id != name}

    @functools.cached_property
    def words(self) -> set[str]:
        """All names in the file: of variables, parameters, attributes and keys, as `subjects.bare` writes them."""
        found = {getattr(n, "id", getattr(n, "arg", getattr(n, "attr", getattr(n, "value", None))))
                 for n in ast.walk(self.tree)}
        return {name.replace("_", "").lower() if len(name) > 2 else name for name in found if isinstance(name, str)}

    @property
    def assigned(self) -> dict[str, Any]:
        """The names that the top level assigns, with their values where they are constants."""
        found: dict[str, Any] = {}
        for s in [s for s in self.tree.body if isinstance(s, ast.Assign)]:
            found |= dict.fromkeys(bound(s), getattr(s.value, "value", None))
            if isinstance(s.targets[0], ast.Tuple) and isinstance(s.value, ast.Tuple):
                found |= {ast.unparse(t): getattr(v, "value", None) for t, v in zip(s.targets[0].elts, s.value.elts)}
        return found

    @functools.cached_property
    def methods_put(self) -> list[tuple[str, str, ast.FunctionDef]]:
        """(class, its method, the function) of each `Class.method = function`, as notebooks have them."""
        pairs = [(s.targets[0], self.definitions.get(ast.unparse(s.value))) for s in self.tree.body
                 if isinstance(s, ast.Assign)]
        return [(ast.unparse(t.value), t.attr, f) for t, f in pairs if isinstance(t, ast.Attribute)
                and isinstance(f, ast.FunctionDef)]

    def methods(self, name: str, node: Any = None) -> dict[str, ast.FunctionDef]:
        """The methods of a class, with those of its base classes in the file, and the constructor of a dataclass.

        node  its definition, if it is not the last one: `class Cell(Cell)` has the methods of the one before
        """
        node = node or self.definitions[name]
        earlier = [one for one in self.tree.body if isinstance(one, ast.ClassDef) and one.lineno < node.lineno]
        bases = [one for base in map(ast.unparse, node.bases) for one in [
            one for one in earlier if one.name == base][-1:]]
        fields = [ast.unparse(s.target) for s in node.body if isinstance(s, ast.AnnAssign) and s.value is None]
        made = ast.parse(f"def __init__({', '.join(('self', *fields))}): pass").body[0]
        is_made = any("dataclass" in ast.unparse(one) for one in node.decorator_list)
        return {key: f for base in bases for key, f in self.methods(base.name, base).items()} | {
            s.name: s for s in [made] * is_made + node.body if isinstance(s, ast.FunctionDef)} | {
            key: f for owner, key, f in self.methods_put if owner == name}

    def functions_in(self, name: str, alone: bool = False) -> list[ast.FunctionDef]:
        """The function, or all methods of the class, and unless `alone` the file's functions that they call."""
        found: list[ast.FunctionDef] = []
        names = [name]
        for called in names:
            node = self.definitions.get(called)
            if node is not None:
                found += [node] if isinstance(node, ast.FunctionDef) else self.methods(called).values()
                names += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id not in names and not alone]
        return found

    def global_names(self, name: str, among: set[str]) -> dict[str, int]:
        """{name: line} of these names, where a function and those it calls read them from globals."""
        found: dict[str, int] = {}
        for f in self.functions_in(name):
            own = {n.arg for n in ast.walk(f) if isinstance(n, ast.arg)}  # of functions inside it too
            own |= {n.id for n in ast.walk(f) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            for n in ast.walk(f):
                if isinstance(n, ast.Name) and n.id in among - own:
                    found.setdefault(n.id, n.lineno)
        return found

    def library_of(self, names: set[str]) -> str:
        """The library of derivatives that functions or classes use, torch or the like; "" if none."""
        nodes = [self.definitions[name] for name in names & self.definitions.keys()]
        used = {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}
        imports = [s for s in self.tree.body if isinstance(s, (ast.Import, ast.ImportFrom)) and bound(s) & used]
        found = re.search(r"\b(torch|tensorflow|keras|jax)\b", " ".join(map(ast.unparse, imports)))
        return found[1] if found else ""

    def keys_of(self, name: str) -> tuple[str, ...]:
        """The keys that a function reads from a dict of parameters, p["Wf"] or p.get("bf"), called functions too."""
        found: list[str] = []
        for n in (n for f in self.functions_in(name) for n in ast.walk(f)):
            if isinstance(n, ast.Subscript):
                base, key = n.value, n.slice
            elif isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "get" and n.args:
                base, key = n.func.value, n.args[0]
            else:
                continue
            if isinstance(base, ast.Name) and re.match(r"p(aram(eter)?s?)?$|weights?$|theta$", base.id, re.I) and \
                    isinstance(key, ast.Constant) and isinstance(key.value, str):
                found.append(key.value)
        return tuple(dict.fromkeys(found))

    def unclipped(self, name: str) -> Source:
        """The source in which a function or a class, and what it calls, does not clip or scale its gradients."""
        nodes = self.clips(name)

        class Unclipped(ast.NodeTransformer):
            def visit(self, node: ast.AST) -> Any:
                if node not in nodes:
                    return self.generic_visit(node)
                if isinstance(node, ast.If):
                    return node.orelse or ast.copy_location(ast.Pass(), node)
                return clipped(node)
        shared = {id(node): node for node in nodes}  # deepcopy would make others of them
        return replace(self, tree=Unclipped().visit(copy.deepcopy(self.tree, shared)), failed={})

    def clips(self, name: str) -> list[ast.AST]:
        """The calls of clip, and each `if norm > 5`, in a function or a class and what it calls; not those that keep
        the argument of an exponential or a logarithm in bounds."""
        of_values = {id(n) for f in self.functions_in(name) for call in ast.walk(f) if is_activation(f) or (isinstance(
            call, ast.Call) and EXPONENTIAL.search(ast.unparse(call.func))) for n in ast.walk(call)}
        return [n for f in self.functions_in(name) for n in ast.walk(f) if id(n) not in of_values and (
            scales(n) or (isinstance(n, ast.Call) and clipped(n) is not None))]

    def recordable(self, loss: str | None = None, at: int = 0) -> Source:
        """The source rewritten for tensors; of the function `loss` only what computes its result `at` this place."""
        tree = self.tree
        if loss is not None:
            class Alone(ast.NodeTransformer):
                def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
                    return loss_alone(node, at) if node.name == loss else node
            tree = Alone().visit(copy.deepcopy(tree))
        return replace(self, tree=recordable(tree), failed={})

    def run(self, wanted: Iterable[str], given: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run what these names need and return the namespace; names in `given` keep these values."""
        namespace: dict[str, Any] = {"__name__": "minigrad_user", "np": np, "numpy": np, "__file__": self.file,
                                     "static_": Static, "sigmoid": on_arrays(sigmoid), "softmax": SOFTMAX,
                                     **HELPERS, **(given or {})}
        np.random.seed(0)  # weights of the file are the same each time
        linecache.cache[self.file] = (len(self.text), None, self.text.splitlines(True), self.file)
        with importing_beside(self.file):
            for statement in self.needed(set(wanted), set(given or ())):
                self.run_statement(statement, namespace)
                namespace |= given or {}  # a statement may bind other names too
        return namespace

    def run_statement(self, statement: ast.stmt, namespace: dict[str, Any]) -> None:
        """Run one; a failure is remembered for whoever needs what it binds. One that takes too long is run once."""
        if any("still running" in self.failed.get(name, "") for name in bound(statement)):
            return
        try:
            with limited():
                exec(compile(ast.Module([statement], []), self.file, "exec", dont_inherit=True), namespace)
        except (Exception, SystemExit, TooSlow) as problem:
            for name in bound(statement) or {"*"}:
                self.failed[name] = self.sentence(problem)

    def needed(self, wanted: set[str], given: set[str]) -> list[ast.stmt]:
        """The top-level statements that these names depend on, imports with * included."""
        chosen: set[ast.stmt] = {s for s in self.tree.body if always(s)}
        names, before = set(wanted), None
        while names != before:
            before = set(names)
            for s in self.tree.body:
                if s not in chosen and runs(s) and bound(s) & (names - given):
                    chosen.add(s)
                    names |= {n.id for n in ast.walk(s) if isinstance(n, ast.Name)}
        return [s for s in self.tree.body if s in chosen]

    def line_of(self, problem: BaseException) -> int:
        """The last line of the user's file that led to an exception; 0 if none."""
        lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == self.file]
        return lines[-1] or 0 if lines else 0

    def sentence(self, problem: BaseException) -> str:
        """An exception as "line 7: what, and what to do instead"."""
        line, message = self.line_of(problem), one_line(str(problem), 300)
        where = f"{self.place(line)}: " if line else ""
        if found := ABSENT.search(message):
            name = next(filter(None, found.groups()))
            full = name if found[3] else f"np.{name}"
            if full in GONE:  # by another name of NumPy than np
                return f"{where}{full} is of another Python or NumPy: write {GONE[full]}"
            if name in self.failed or "*" in self.failed:
                return f"{where}{name} is not defined, because of {self.failed.get(name, self.failed.get('*'))}"
            known = {*self.definitions, *dir(builtins)} if found[3] else dir(np)
            return f"{where}there is no {full} here{nearest(name, known)}"
        if isinstance(problem, EOFError):
            return f"{where}input() has nobody to answer it here: write the value in its place"
        if isinstance(problem, TooSlow):
            return f"{where}still running after {LIMIT:g} s"
        if isinstance(problem, CouldNotRun):
            return message
        return f"{where}{type(problem).__name__}: {message}" if message else f"{where}{type(problem).__name__}"


def read(file: str) -> Source:
    """Parse a .py file, or the code cells of a notebook. Raises CouldNotRun with the line for what is not Python 3."""
    path = Path(file)
    if not path.is_file():
        near = nearest(file, [str(p) for kind in ("*.py", "*.ipynb") for p in path.parent.glob(kind)])
        raise CouldNotRun(f"{file} is not a file{near}")
    if path.suffix not in (".py", ".ipynb"):
        raise CouldNotRun(f"{file} is neither a .py file nor a notebook (.ipynb)")
    try:
        with path.open(encoding="utf-8-sig") if path.suffix == ".ipynb" else tokenize.open(file) as opened:
            text = opened.read()
    except (OSError, UnicodeDecodeError, SyntaxError) as problem:
        raise CouldNotRun(f"{file} cannot be read: {problem}") from None
    lines, places = notebook(file, text) if path.suffix == ".ipynb" else script(text)
    said = ""
    try:
        tree = ast.parse("\n".join(lines) + "\n", file)
    except (SyntaxError, ValueError, RecursionError) as problem:
        said = grammar(problem, lines, places)
        lines = list(map(in_python_3, lines))
        if not parses(lines):
            raise CouldNotRun(f"{file} is not Python 3: {said}") from None
        tree = ast.parse("\n".join(lines) + "\n", file)
    modern = Modern(tree)
    tree = ast.fix_missing_locations(with_classes(Plain().visit(modern.visit(tree))))
    source = Source(file, "\n".join(lines) + "\n", places, tree, said)
    if modern.found:
        line, name = min(modern.found)
        source.gone = f"{source.place(line)}: {name} is of another Python or NumPy: write {GONE[name]}"
    return source


def in_python_3(line: str) -> str:
    """A line of Python 2 as one of Python 3; what it would print is left out."""
    for pattern, new in IN_PYTHON_3:
        line = re.sub(pattern, new, line)
    return line


class Modern(ast.NodeTransformer):
    """What Python 3 and NumPy 2 do not have, by the names that it has now. found: [(line, the old name)]"""

    def __init__(self, tree: ast.Module):
        self.found: list[tuple[int, str]] = []
        self.own = {name for s in ast.walk(tree) for name in bound(s)}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.now(node, node.id) if node.id in GONE and node.id not in self.own else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        is_numpy = ast.unparse(node.value) in ("np", "numpy") and not hasattr(np, node.attr)
        return self.now(node, f"np.{node.attr}") if is_numpy and f"np.{node.attr}" in GONE else node

    def now(self, node: ast.expr, old: str) -> ast.expr:
        self.found.append((node.lineno, old))
        new = ast.parse(GONE[old], mode="eval").body
        return ast.copy_location(new, node)


class Plain(ast.NodeTransformer):
    """One form for what can be written in several: `f = lambda x: …` is a function, an argument that is passed by its
    name is one like any other, and a static method has a `self`."""

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        self.generic_visit(node)
        value, target = node.value, node.targets[0]
        if not isinstance(value, ast.Lambda) or not isinstance(target, ast.Name):
            return node
        body = ast.copy_location(ast.Return(value.body), value)
        return ast.copy_location(ast.FunctionDef(target.id, value.args, [body], []), node)

    def visit_Return(self, node: ast.Return) -> Any:
        self.generic_visit(node)
        parts = getattr(node.value, "elts", [])
        found = next((one for one in parts if isinstance(one, ast.Lambda)), None)
        if found is None:
            return node
        parts[parts.index(found)] = ast.copy_location(ast.Name("backward", ast.Load()), found)
        named = ast.Assign([ast.Name("backward", ast.Store())], found)
        return [self.visit_Assign(ast.copy_location(named, node)), node]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        a = node.args
        if not a.vararg and (not a.defaults or all(a.kw_defaults)):
            a.args, a.kwonlyargs = [*a.args, *a.kwonlyargs], []
            a.defaults, a.kw_defaults = [*a.defaults, *filter(None, a.kw_defaults)], []
        if [ast.unparse(one) for one in node.decorator_list] == ["staticmethod"]:
            node.args.args.insert(0, ast.arg("self"))
            node.decorator_list = [ast.Name("static_", ast.Load())]
        return node


class Static:
    """A static method that has a `self`: an instance or, where it is called by the class, that."""

    def __init__(self, function: Any):
        self.function, self.__code__ = function, function.__code__

    def __get__(self, one: Any, cls: type) -> Any:
        return MethodType(self.function, cls if one is None else one)


def script(text: str) -> tuple[list[str], list[str]]:
    lines = text.splitlines()
    return lines, [f"line {i + 1}" for i in range(len(lines))]


def notebook(file: str, text: str) -> tuple[list[str], list[str]]:
    """(lines of all code cells, their places in words); magics and shell commands become comments."""
    lines, places = [], []
    try:
        cells = json.loads(text)
        cells = cells["cells"] if "cells" in cells else [c for sheet in cells["worksheets"] for c in sheet["cells"]]
        for number, cell in enumerate(cells, start=1):
            if cell["cell_type"] != "code":
                continue
            source = cell.get("source", cell.get("input", ""))
            own = (source if isinstance(source, str) else "".join(source)).splitlines()
            if own and own[0].startswith("%%") and not own[0].startswith(("%%time", "%%capture")):
                continue  # the cell is not Python
            if not parses(own):
                own = [re.sub(r"^(\s*)([%!?].*|[^#'\"]*\?)$", r"\1pass  # \2", line) for line in own]
            if parses(own) or DEFINITION.search("\n".join(own)):  # another cell that is not Python 3 is not needed
                lines += own
                places += [f"cell {number}, line {i + 1}" for i in range(len(own))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CouldNotRun(f"{file} is not a Jupyter notebook: it has no code cells in JSON") from None
    return lines, places


def parses(lines: list[str]) -> bool:
    try:
        ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def grammar(problem: Exception, lines: list[str], places: list[str]) -> str:
    """A syntax error as "line 7: `print loss`: what to write instead"."""
    at = getattr(problem, "lineno", None) or 0
    for i in [*range(max(at - 1, 0), min(at, len(lines))), *range(max(at - 2, 0), min(at + 1, len(lines)))]:
        for pattern, advice in PYTHON_2:
            if re.search(pattern, lines[i]):
                return f"{places[i]}: `{one_line(lines[i].strip(), 60)}`: {advice}"
    if not 0 < at <= len(lines):
        return str(problem)
    return f"{places[at - 1]}: `{one_line(lines[at - 1].strip(), 60)}`: {getattr(problem, 'msg', problem)}"


def opened(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
    """A file to read, or some text in its place; what is written goes nowhere."""
    if not {*mode} & {*"wax+"}:
        with contextlib.suppress(OSError):
            return builtins.open(file, mode, *rest, **options)
        return io.BytesIO(TEXT.encode()) if "b" in mode else io.StringIO(TEXT)
    return io.BytesIO() if "b" in mode else io.StringIO()


# -- which statements are run ---------------------------------------------------------------------------


def runs(s: ast.stmt) -> bool:
    """Whether a statement may be run: definitions, imports, assignments, `if` and `try` around them, and a loop that
    only makes something, as the weights of each gate or layer."""
    if isinstance(s, ast.For):
        is_literal = isinstance(s.iter, (ast.List, ast.Tuple, ast.Constant))
        return all(is_appended(one) or (isinstance(one, ast.Assign) and (is_literal or not changes(one))) or (
            isinstance(one, ast.AugAssign) and is_literal) or (isinstance(one, ast.For) and runs(one))
            for one in s.body)
    return isinstance(s, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign,
                          ast.AugAssign, ast.If, ast.Try)) or is_appended(s)


def is_appended(s: ast.AST) -> bool:
    """Whether a statement is `Ws.append(…)`."""
    return isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and isinstance(
        s.value.func, ast.Attribute) and s.value.func.attr == "append"


def changes(s: ast.Assign) -> bool:
    """Whether an assignment reads what it binds, W = W - lr * dW: a loop that trains."""
    return bool({base.id for target in s.targets for base in bases(target)} & {
        n.id for n in ast.walk(s.value) if isinstance(n, ast.Name)})


def clipped(call: ast.AST) -> ast.expr | None:
    """What a call of np.clip, or of the method of an array, clips; None for another node."""
    if not isinstance(call, ast.Call) or ast.unparse(call.func).rpartition(".")[2] != "clip":
        return None
    is_method = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) not in ("np", "numpy")
    return call.func.value if is_method else call.args[0] if call.args else None  # type: ignore[attr-defined]


def is_activation(f: ast.FunctionDef) -> bool:
    """Whether a function is one expression with an exponential in it, as a sigmoid."""
    return len(f.body) <= 3 and not any(isinstance(n, ast.For) for n in ast.walk(f)) and \
        bool(EXPONENTIAL.search(ast.unparse(f)))


def scales(s: ast.AST) -> bool:
    """Whether a statement is `if norm > 5:`, or `if total > 5:` with a division by it, which scales gradients."""
    if not isinstance(s, ast.If) or not isinstance(s.test, ast.Compare):
        return False
    divisors = [ast.unparse(n.right) if isinstance(n, ast.BinOp) else ast.unparse(n.value) for one in s.body
                for n in ast.walk(one) if isinstance(n, (ast.BinOp, ast.AugAssign)) and isinstance(n.op, ast.Div)]
    return "norm" in ast.unparse(s.test) or (isinstance(s.test.ops[0], (ast.Gt, ast.GtE)) and any(
        re.search(rf"\b{re.escape(ast.unparse(s.test.left))}\b", one) for one in divisors))


def always(s: ast.stmt) -> bool:
    """Imports with *, and changes to sys.path: what they bind is not known before they are run."""
    if isinstance(s, ast.ImportFrom):
        return s.names[0].name == "*"
    return (isinstance(s, ast.Expr) and ast.unparse(s).startswith("sys.path.")) or \
        (isinstance(s, ast.Import) and s.names[0].name == "sys")


def bound(s: ast.AST) -> set[str]:
    """The names that a top-level statement binds or changes."""
    if isinstance(s, Function):
        return {s.name}
    if isinstance(s, (ast.Import, ast.ImportFrom)):
        return {(a.asname or a.name).partition(".")[0] for a in s.names} - {"*"}
    if isinstance(s, (ast.If, ast.For, ast.Try)):
        inner = [*s.body, *s.orelse, *(t for h in getattr(s, "handlers", ()) for t in h.body)]
        return {name for child in inner for name in bound(child)}
    if is_appended(s):
        return {base.id for base in bases(s.value.func.value)}  # type: ignore[attr-defined]
    targets = s.targets if isinstance(s, ast.Assign) else [getattr(s, "target", None)]
    return {base.id for target in targets if target is not None for base in bases(target)}


def on_arrays(f: Any, **options: Any) -> Any:
    """One of minigrad's functions for user code that imports its own from a module that is not here."""
    def call(x: Any) -> Any:
        if not isinstance(x, np.ndarray) or type(x) is np.ndarray:
            return f(x, **options)
        return x.__array_wrap__(f(np.asarray(x), **options))  # of a class that notes what happens to it (shapes.py)
    return call


SOFTMAX = on_arrays(softmax, axis=0)  # as in the course, whose columns are examples


def parameters_of(node: Function, method: str | None = None) -> tuple[str, ...]:
    """The positional parameters of a function, or of a method of a class without self."""
    if isinstance(node, ast.ClassDef):
        found = method_of(node, method or "__init__")
        return parameters_of(found)[1:] if found else ()
    return tuple(a.arg for a in [*node.args.posonlyargs, *node.args.args])


def required(node: Any, method: str | None = None) -> tuple[str, ...]:
    """The parameters without a default, as `parameters_of`."""
    function = method_of(node, method or "__init__") if isinstance(node, ast.ClassDef) else node
    names = parameters_of(node, method)
    return names[:len(names) - len(function.args.defaults)] if function else ()


def names_called(node: ast.AST, owner: str | None = None) -> set[str]:
    """The names of the functions and methods that are called in a node, or only those of one owner, self.x()."""
    called = (ast.unparse(n.func).rpartition(".") for n in ast.walk(node) if isinstance(n, ast.Call))
    return {name for own, _, name in called if owner in (None, own)}


class OfAny(type):
    """Each generator is an instance: code of others, NumPy's too, asks for the class by the name that it replaces."""

    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, RandomState)


class Seeded(RandomState, metaclass=OfAny):
    """A generator of random numbers that gives the same ones where it is made without a seed."""

    integers = RandomState.randint  # as of np.random.default_rng

    def __init__(self, seed: Any = None):
        super().__init__(0 if seed is None else seed)


@contextlib.contextmanager
def importing_beside(file: str) -> Iterator[None]:
    """Like a script, the file may import modules beside it."""
    folder = str(Path(file).resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed sys.path
            sys.path.remove(folder)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """What the user's generators of random numbers give is the same at each call."""
    before = np.random.RandomState, np.random.default_rng
    np.random.RandomState = Seeded  # type: ignore[misc]
    np.random.default_rng = lambda seed=None: default_rng(0 if seed is None else seed)
    try:
        yield
    finally:
        np.random.RandomState, np.random.default_rng = before  # type: ignore[misc]


def method_of(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == name), None)


@contextlib.contextmanager
def limited(seconds: float | None = None) -> Iterator[None]:
    """Stop the user's code after this many seconds of computing (LIMIT), where signals can: in the main thread, not on
    Windows."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds or LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def explained(source: Source, what: str, seconds: float | None = None) -> Iterator[None]:
    """Turn whatever a user's function raises into CouldNotRun."""
    try:
        with np.errstate(all="ignore"), seeded(), limited(seconds):
            yield
    except CouldNotRun:
        raise
    except (Exception, SystemExit, TooSlow) as problem:
        raise CouldNotRun(f"{what}: {source.sentence(problem)}") from problem
