"""Source of the helper functions of a derived text: the forwards of ops that NumPy has no function for."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from minigrad.engine.op import OPS, Op


def helper_names() -> set[str]:
    return {op.name for op in OPS.values() if not op.numpy} | {"shifted_exp"}


def add_helper(op: Op, helpers: dict[str, str]) -> None:
    """Add the source of an op's function to `helpers`, {name: source}."""
    if op.helper is not None:
        helpers[op.name] = op.helper
    else:
        copy_source(op.forward, helpers)


def copy_source(function: Callable, helpers: dict[str, str]) -> None:
    """Add the source of a function and of the functions it calls, without decorators and docstrings."""
    name = function.__name__
    if name in helpers:
        return
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source).body[0]
    except (OSError, SyntaxError):
        raise ValueError(f"the source of {name} cannot be read, so it cannot be printed: put it in a file") from None
    tree.decorator_list = []
    docstring = tree.body[0] if ast.get_docstring(tree) else None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            other = function.__globals__.get(node.id)
            if inspect.isfunction(other) and node.id != name:
                copy_source(other.op.forward if hasattr(other, "op") else other, helpers)
    helpers[name] = "\n".join(
        line for n, line in enumerate(source.splitlines(), start=1)
        if n >= tree.lineno and not (docstring and docstring.lineno <= n <= docstring.end_lineno))
