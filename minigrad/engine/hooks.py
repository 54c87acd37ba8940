"""Hooks on gradients: `retain_grad` and `register_hook`. `sweep` reads them from a tensor's slot `_watch`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

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


Tensor.retain_grad, Tensor.register_hook = retain_grad, register_hook
