"""A right cell in place of a wrong one, so that the backward of a sequence is judged by itself.

The user's cache is opaque: the cell's forward keeps the inputs beside each cache that it makes, and the true backward
looks them up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.pytree import flatten, unflatten
from minigrad.functional import vjp
from minigrad.handwritten.subjects import Course, Layer, Subject


def replace_cell(namespace: dict[str, Any], cell: Subject, reference: Callable) -> None:
    """Give a namespace the true backward of a cell. It finds the inputs of a cache in a list kept by its forward."""
    seen: list[tuple[Any, dict[str, np.ndarray]]] = []

    def gradients(memory: Any, d_outputs: tuple) -> dict[str, np.ndarray]:
        inputs = next(i for m, i in reversed(seen) if m is memory)

        def forward(*arguments: Any) -> Any:
            found = reference(*arguments)
            return tuple(found[i] for i in cell.arriving) if isinstance(found, tuple) else found
        y, pull = vjp(forward, *inputs.values())
        leaves, pattern = flatten(y)
        d_y = [np.zeros(leaf.shape) + d for leaf, d in zip(leaves, d_outputs)]
        found = dict(zip(inputs, pull(unflatten(pattern, d_y))))
        return {name: d for name, d in found.items() if name not in cell.silent}

    if isinstance(cell, Layer):
        user = namespace[cell.name]

        class True_(user):  # type: ignore[misc, valid-type]
            def forward(self, *xs: Any) -> Any:
                seen.append((self, dict(zip([n for n in cell.inputs if n not in cell.weights], copy.deepcopy(xs)))
                             | {name: np.array(w) for name, w in zip(cell.weights, self.params)}))
                return super().forward(*xs)

            def backward(self, *d_outputs: Any) -> Any:
                found = gradients(self, d_outputs)
                for i, name in enumerate(cell.weights):
                    self.grads[i][...] = found.pop(name)
                return tuple(found.values()) if len(found) > 1 else next(iter(found.values()))
        namespace[cell.name] = True_
        return
    user_forward, user_backward = namespace[cell.forward_name], namespace[cell.name]

    def cell_forward(*arguments: Any) -> Any:
        result = user_forward(*arguments)
        inputs = dict(zip(cell.inputs, arguments))
        if isinstance(cell, Course):  # the last argument is the dict of parameters
            *xs, parameters = arguments
            inputs = dict(zip(cell.inputs, xs)) | {name: parameters[name] for name in list(cell.inputs)[len(xs):]}
        seen.append((result[-1], copy.deepcopy(inputs)))
        return result

    def cell_backward(*arguments: Any) -> Any:
        *d_outputs, cache = arguments
        found = gradients(cache, tuple(d_outputs))
        if not isinstance(cell, Course):
            return tuple(found[name] for name in cell.names or found)
        try:  # the keys that the user's sequence reads are those of the user's cell
            keys = list(user_backward(*copy.deepcopy(arguments)))
        except Exception:
            keys = []
        names = {f"d{name}": name for name in found} | {key: name for key in keys for name in cell.named({key: None})}
        return {key: found[name] for key, name in names.items() if name in found}
    namespace[cell.forward_name], namespace[cell.name] = cell_forward, cell_backward
