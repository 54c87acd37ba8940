"""Hooks on complete gradients, and accumulation into `.grad`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy

from minigrad.engine.arrays import plain
from minigrad.engine.tensor import Tensor, describe, next_index, node_of


def retain_grad(self: Tensor) -> Tensor:
    """Make backward store the gradient of this result in `.grad`, as for leaves. Returns self."""
    hooks = watch(self)
    if self._node is not None:
        hooks["retain"] = weakref.ref(self)
    return self


class Handle:
    """Handle of a hook, from `register_hook`; `remove()` removes the hook."""

    __slots__ = ("_hooks", "_key")

    def __init__(self, hooks: dict, key: int):
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        self._hooks.pop(self._key, None)


def register_hook(self: Tensor, hook: Callable[[Any], Any]) -> Handle:
    """Call hook(g) when the gradient of this tensor is complete. The result of the hook, unless None, replaces g.

    g is a read-only ndarray of the tensor's shape (a Tensor while a gradient of a gradient is being recorded). The
    hook stays registered until `remove()` is called on its handle.
    """
    hooks = watch(self)
    key = next_index()
    hooks[key] = hook
    return Handle(hooks, key)


def watch(x: Tensor) -> dict:
    if not x._tracked:
        raise RuntimeError(f"{describe(x)} does not require gradients, so it gets none: set requires_grad=True")
    node = node_of(x)
    if node._watch is None:
        node._watch = {}
    return node._watch


def watched(node: Any, g: Any, graph: bool, keep: bool) -> Any:
    """Call the hooks of a node with its complete gradient g, and store g after `retain_grad`. Returns the new g."""
    for hook in [h for key, h in node._watch.items() if key != "retain"]:
        if not graph:  # other nodes may share this array
            g = numpy.asarray(g).view()
            g.flags.writeable = False
        seen = hook(g)
        if seen is not None:
            seen = seen if isinstance(seen, Tensor) else plain(seen)
            if numpy.shape(seen) != node.shape:
                raise ValueError(f"a hook returned a gradient of shape {numpy.shape(seen)} for {describe(node)}: "
                                 "return that shape, or None to keep the gradient")
            g = seen if graph else numpy.asarray(seen, node.dtype)
    if keep and "retain" in node._watch and (result := node._watch["retain"]()) is not None:
        accumulate(result, g)
    return g


def accumulate(leaf: Tensor, g: Any, owned: bool = False) -> None:
    """Add g into .grad. This is never in place: an array read from .grad earlier keeps its values. owned: nothing else
    refers to g, and it is not copied."""
    g = g._array if isinstance(g, Tensor) else g
    if leaf._grad is None:
        leaf._grad = g if owned else numpy.array(g)
    else:
        leaf._grad = numpy.asarray(leaf._grad + g)


Tensor.retain_grad, Tensor.register_hook = retain_grad, register_hook  # type: ignore
