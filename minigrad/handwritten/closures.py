"""A function that returns functions which share its variables, rewritten as a class with methods.

`make_lstm` returns forward and backward, and these keep weights and caches in variables of make_lstm. In the class they
are attributes, and an instance is unpacked as what the function returned.
"""

from __future__ import annotations

import ast
from typing import Any

from minigrad.handwritten.recordable import names_in, own_nodes


def with_classes(tree: ast.Module) -> ast.Module:
    """The file with each such function as a class of the same name."""
    tree.body = [as_class(s) or s if isinstance(s, ast.FunctionDef) else s for s in tree.body]
    return tree


def as_class(f: ast.FunctionDef) -> ast.ClassDef | None:
    """The class; None for a function that does not end with a return of two functions of its own, or more, or whose
    defaults are variables, which a class does not have yet."""
    inner, end = {s.name: s for s in f.body if isinstance(s, ast.FunctionDef)}, f.body[-1]
    if not isinstance(end, ast.Return) or len(names_in(end) & inner.keys()) < 2:
        return None
    shared = Shared(own_names(f) | inner.keys())
    if any(names_in(d) & shared.names for s in inner.values() for d in (*s.args.defaults, *s.args.kw_defaults) if d):
        return None
    body = [shared.visit(s) for s in f.body if s is not end and not isinstance(s, ast.FunctionDef)]
    names = [one.arg for one in ast.walk(f.args) if isinstance(one, ast.arg)]
    body[:0] = ast.parse("\n".join(f"self.{name} = {name}" for name in names)).body
    unpacked = ast.unparse(shared.visit(end).value)
    more = ast.parse(f"def __iter__(self):\n    return iter({unpacked})\n"
                     f"def __getitem__(self, key):\n    return ({unpacked})[key]").body
    methods = [method("__init__", f.args, body), *(method(one.name, one.args, shared.inside(one)) for one in
                                                   inner.values())]
    for one, origin in zip(methods, (f, *inner.values())):
        ast.copy_location(one, origin)
    made: Any = ast.copy_location(ast.parse(f"class {f.name}: pass").body[0], f)
    made.body, made.was_function = [*methods, *more], True
    return made


def in_words(node: ast.AST) -> str:
    """What the definition of a forward and a backward together is."""
    was_function = getattr(node, "was_function", False)
    return "functions that share variables" if was_function else "a class with forward and backward"


def method(name: str, args: ast.arguments, body: list[ast.stmt]) -> ast.FunctionDef:
    made: Any = ast.parse(f"def {name}(): pass").body[0]
    args.args.insert(0, ast.arg("self"))
    made.args, made.body = args, body or made.body
    return made


def own_names(f: Any) -> set[str]:
    """Return the parameters and local variables of a function, without those of nested functions."""
    nodes = list(own_nodes(f))
    outer = {name for n in nodes if isinstance(n, (ast.Nonlocal, ast.Global)) for name in n.names}
    return ({n.arg for n in nodes if isinstance(n, ast.arg)} | {
        n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}) - outer


class Shared(ast.NodeTransformer):
    """Makes attributes of self of the names that functions share."""

    def __init__(self, names: set[str]):
        self.names = names

    def inside(self, f: Any) -> list[ast.stmt]:
        """The body of a function, whose own names are not shared."""
        own = Shared(self.names - own_names(f))
        return [own.visit(s) for s in f.body]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = self.inside(node)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        node.body = Shared(self.names - own_names(node)).visit(node.body)
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.names:
            return node
        return ast.copy_location(ast.Attribute(ast.Name("self", ast.Load()), node.id, node.ctx), node)
