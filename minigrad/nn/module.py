"""`Module`: an object whose tensors can be found by name, trained, saved and shown. Nothing is registered: a module's
parts are what its attributes hold, in the order in which they were first assigned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.tensor import Tensor


class Module:
    """What layers and models derive from. Assign tensors and other modules as attributes, and write `__call__`.

    ```python
    class Model(nn.Module):
        def __init__(self, rng):
            self.lstm = nn.LSTM(3, 5, rng=rng)
            self.Wy = mg.tensor(nn.init.glorot_uniform((2, 5), rng), requires_grad=True)

        def __call__(self, x):
            output, _ = self.lstm(x)
            return output @ self.Wy.T
    ```
    Parts are leaf tensors and modules, also inside lists, tuples and dicts, with names as in PyTorch:
    `layers.0.W`. A part that is reached twice is listed once, under its first name. A tensor that does not require
    gradients is saved but not trained. An attribute that holds a tensor without a name gives it its own.
    """

    # _path: the way to this module from the outermost one that it was assigned in, for `bptt.record`. A slot, for what
    # stands in __dict__ is a part of the key of a cell's program (`scan.look`), and that does not depend on a name.
    __slots__ = ("__dict__", "__weakref__", "_path")

    training = True

    def __call__(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} cannot be called yet: write its method __call__(self, …)")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_leaf and value.name is None:
            value.name = name  # for error messages and derived programs
        object.__setattr__(self, name, value)
        if isinstance(value, HOLDERS) and not isinstance(value, Tensor):
            path = getattr(self, "_path", "")
            for way, part in parts_of(f"{path}.{name}" if path else name, value):
                known = getattr(part, "_path", way)  # a second name does not count, a longer one does
                if isinstance(part, Module) and f".{way}".endswith(f".{known}"):
                    object.__setattr__(part, "_path", way)

    # -- parts ----------------------------------------------------------------------------------------

    def named_parts(self) -> list[tuple[str, Tensor | Module]]:
        """This module (its name is ''), and every module and leaf tensor below it, in the order of definition."""
        return parts_of("", self)

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """(dotted name, tensor) of every leaf tensor that requires gradients."""
        return [(name, x) for name, x in self.named_parts() if isinstance(x, Tensor) and x.requires_grad]

    def parameters(self) -> list[Tensor]:
        return [x for _, x in self.named_parameters()]

    # -- training -------------------------------------------------------------------------------------

    def zero_grad(self) -> None:
        """Forget the gradients: every parameter's grad is None."""
        for x in self.parameters():
            x.grad = None

    def train(self, mode: bool = True) -> Module:
        """Switch what differs in training (dropout) on, here and in every module below. Returns self."""
        for _, part in self.named_parts():
            if isinstance(part, Module):
                part.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    # -- saving ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of the values of every leaf tensor, by name."""
        return {name: x.data.copy() for name, x in self.named_parts() if isinstance(x, Tensor)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every leaf tensor to a copy of the array of its name, in its own dtype.

        Raises ValueError, and changes nothing, unless the names are exactly those of `state_dict()`, with its shapes.
        """
        mine = {name: x for name, x in self.named_parts() if isinstance(x, Tensor)}
        state = matching(state, {name: x.shape for name, x in mine.items()}, type(self).__name__)
        for name, x in mine.items():
            x.data = np.array(state[name], x.dtype)

    # -- showing --------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """The tree of parts, with shapes, and how many numbers each has."""
        lines: list[tuple[str, int]] = []
        depth: dict[str, int] = {}
        for name, part in self.named_parts():
            above = [other for other in depth if other == "" or name.startswith(other + ".")]
            parent = max(above, key=len, default="")
            own = name[len(parent) + 1 if parent else 0:]
            indent = "  " * (depth[parent] + 1 if above else 0)
            if isinstance(part, Module):
                depth[name] = len(indent) // 2
                label, size = type(part).__name__, sum(x.size for x in part.parameters())
            else:
                label, size = str(part.shape) + ("" if part.requires_grad else " fixed"), part.size
            lines.append((f"{indent}{own}{': ' if isinstance(part, Module) else ' '}{label}" if own else label, size))
        width = max(len(text) for text, _ in lines)
        digits = max(len(str(size)) for _, size in lines)
        return "\n".join(f"{text:<{width}}  {size:>{digits}}" for text, size in lines)


HOLDERS = (Tensor, Module, dict, list, tuple)  # what is a part, or may hold parts


def parts_of(name: str, value: Any) -> list[tuple[str, Tensor | Module]]:
    """Every module and leaf tensor of a value of this name, itself included, each once."""
    found, seen = [], set()
    stack: list[tuple[str, Any]] = [(name, value)]
    while stack:
        name, value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found += [(name, value)] if value.is_leaf else []
            continue
        if isinstance(value, Module):
            found.append((name, value))
            value = vars(value)
        children = value.items() if isinstance(value, dict) else enumerate(value)
        stack += reversed([(f"{name}.{key}" if name else str(key), child) for key, child in children
                           if isinstance(child, HOLDERS)])
    return found


def matching(arrays: Mapping[str, Any], shapes: dict[str, tuple[int, ...]], whose: str) -> dict[str, np.ndarray]:
    """The arrays, if they have exactly these names and shapes. Raises ValueError that lists every difference."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{whose} takes arrays by name, as a state_dict() is, not an object of {type(arrays).__name__}")
    given = {name: np.asarray(array) for name, array in arrays.items()}
    wrong = [f"missing {', '.join(missing)}"] if (missing := [name for name in shapes if name not in given]) else []
    wrong += [f"unexpected {', '.join(more)}"] if (more := [str(name) for name in given if name not in shapes]) else []
    wrong += [f"{name} has shape {given[name].shape} and must have {shape}" for name, shape in shapes.items()
              if name in given and given[name].shape != shape]
    if wrong:
        raise ValueError(f"these arrays are not those of this {whose}: {'; '.join(wrong)}")
    return given
