"""Pytrees: flatten any nesting of tuples, lists and dicts into its leaves, and rebuild it.

Everything except tuples, lists, dicts and None is a leaf. A dict keeps its own order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

CONTAINERS = tuple, list, dict


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of a tree from left to right, and the tree itself as the pattern for `unflatten`."""
    leaves: list[Any] = []
    collect((tree,), leaves)
    return leaves, tree


def collect(node: Any, leaves: list[Any]) -> None:
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, CONTAINERS):
            collect(child, leaves)
        elif child is not None:
            leaves.append(child)


def unflatten(pattern: Any, leaves: list[Any]) -> Any:
    """A tree with the nesting of the pattern and these leaves, in the order of `flatten`."""
    return build(pattern, iter(leaves))


def build(node: Any, leaves: Iterator[Any]) -> Any:
    # not inside `unflatten`: a recursive closure is a reference cycle, which would keep the leaves alive
    if not isinstance(node, CONTAINERS):
        return None if node is None else next(leaves)
    if node.__class__ is tuple:  # the usual tree, without a call for each leaf
        return tuple([build(child, leaves) if isinstance(child, CONTAINERS) or child is None else next(leaves)
                      for child in node])
    if isinstance(node, (tuple, list)):
        children = [build(child, leaves) for child in node]
        return type(node)(*children) if hasattr(node, "_fields") else type(node)(children)
    out = copy(node)  # keeps its class, such as defaultdict
    out.update([(key, build(child, leaves)) for key, child in node.items()])
    return out


def named_leaves(tree: Any, name: str = "") -> list[tuple[str, Any]]:
    """(path, leaf) for every leaf: `[("[0].Wf", array), …]`. The path is written after the name of the tree."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        children = [(f"{name}.{key}" if name else str(key), child) for key, child in tree.items()]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        children = [(f"{name}.{field}" if name else field, child)
                    for field, child in zip(tree._fields, tree)]
    elif isinstance(tree, (tuple, list)):
        children = [(f"{name}[{i}]", child) for i, child in enumerate(tree)]
    else:
        return [(name, tree)]
    return [pair for child_name, child in children for pair in named_leaves(child, child_name)]


def map_leaves(f: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with f applied to every leaf."""
    if tree.__class__ is tuple:  # the usual tree, without a call for each leaf
        return tuple([map_leaves(f, child) if isinstance(child, CONTAINERS) or child is None else f(child)
                      for child in tree])
    if tree is not None and not isinstance(tree, CONTAINERS):
        return f(tree)
    leaves, pattern = flatten(tree)
    return unflatten(pattern, [f(leaf) for leaf in leaves])
