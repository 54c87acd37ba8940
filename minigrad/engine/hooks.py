"""What happens to a complete gradient: it is shown to hooks, and added into `.grad`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy

from minigrad.engine.arrays import plain
from minigrad.engine.tensor import Tensor, describe, next_index, node_of


def retain_grad(self: Tensor) -> Tensor:
    """Let backward keep the gradient of this result in `.grad`, as it does for leaves. Returns self."""
    hooks = watch(self)
    if self._node is not None:
        hooks["retain"] = weakref.ref(self)
    return self


class Handle:
    """What `register_hook` returns: `remove()` takes the hook off again."""

    __slots__ = ("_hooks", "_key")

    def __init__(self, hooks: dict, key: int):
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        self._hooks.pop(self._key, None)


def register_hook(self: Tensor, hook: Callable[[Any], Any]) -> Handle:
    """Call hook(g) when the gradient of this tensor is complete; what it returns, unless None, takes its place.

    g is a read-only ndarray of the tensor's shape (a Tensor while a gradient of a gradient is being recorded). A hook
    stays until its handle's `remove()`.
    """
    hooks = watch(self)
    key = next_index()
    hooks[key] = hook
    return Handle(hooks, key)


def watch(x: Tensor) -> dict:
    if not x._tracked:
        raise RuntimeError(f"{describe(x)} does not require gradients, so none will come: set requires_grad=True")
    node = node_of(x)
    if node._watch is None:
        node._watch = {}
    return node._watch


def watched(node: Any, g: Any, graph: bool, keep: bool) -> Any:
    """Show a complete gradient to the hooks of its value, and keep it if asked."""
    for hook in [h for key, h in node._watch.items() if key != "retain"]:
        if not graph:  # other values may have been sent the same array
            g = numpy.asarray(g).view()
            g.flags.writeable = False
        seen = hook(g)
        if seen is not None:
            seen = seen if isinstance(seen, Tensor) else plain(seen)
            if numpy.shape(seen) != node.shape:
                raise ValueError(f"a hook returned a gradient of shape {numpy.shape(seen)} for {describe(node)}: "
                                 "return that shape, or None to leave it as it is")
            g = seen if graph else numpy.asarray(seen, node.dtype)
    if keep and "retain" in node._watch and (result := node._watch["retain"]()) is not None:
        accumulate(result, g)
    return g


def accumulate(leaf: Tensor, g: Any, owned: bool = False) -> None:
    """Add into .grad; never in place, so that an array taken from .grad earlier keeps its values. owned: nobody else
    holds g, so that it need not be copied."""
    g = g._array if isinstance(g, Tensor) else g
    if leaf._grad is None:
        leaf._grad = g if owned else numpy.array(g)
    else:
        leaf._grad = numpy.asarray(leaf._grad + g)


Tensor.retain_grad, Tensor.register_hook = retain_grad, register_hook  # type: ignore
