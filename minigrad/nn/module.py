"""`Module`: an object whose tensors are found by name, trained, saved and shown.

Nothing is registered. A module's parts are the tensors and modules in its attributes, in the order in which these were
first assigned.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.engine.pytree import map_leaves
from minigrad.engine.tensor import Tensor, describe
from minigrad.files.weights import read_weights, write_weights
from minigrad.nn.signature import CheckedCall
from minigrad.nn.state_dict import matching, name_differences


class Module(CheckedCall):
    """Base class of layers and models. Assign tensors and other modules as attributes, and write `__call__`.

    ```python
    class Model(nn.Module):
        def __init__(self, rng):
            self.lstm = nn.LSTM(3, 5, rng=rng)
            self.Wy = mg.tensor(nn.init.glorot_uniform((2, 5), rng), requires_grad=True)

        def __call__(self, x):
            output, _ = self.lstm(x)
            return output @ self.Wy.T
    ```
    Parts are leaf tensors and modules, also inside lists, tuples and dicts, with names as in PyTorch: `layers.0.W`. A
    shared part is listed once, under its first name. A tensor that does not require gradients is saved but not
    trained. A tensor without a name is named after the attribute that it is assigned to.

    Raises ValueError for a part that would be neither trained nor saved: a tensor that requires gradients and is the
    result of an op, or a part inside a set or another container. Raises TypeError for arguments that the class does
    not take.
    """

    # _path: the path to this module from the outermost one that it was assigned in, for `bptt.record`. It is a slot
    # because a module's attributes are its parts.
    __slots__ = ("__dict__", "__weakref__", "_path")

    training = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if is_part(value):
                raise ValueError(f"{cls.__name__}.{name} is an attribute of the class, which all its modules would "
                                 f"share and none would train or save: assign self.{name} in __init__")

    if TYPE_CHECKING:  # each subclass has its own arguments
        __call__: Callable[..., Any]
    else:
        def __call__(self, *inputs: Any) -> Any:
            raise NotImplementedError(f"{type(self).__name__} cannot be called yet: write its method __call__(self, …)")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_leaf and value.name is None:
            value.name = name  # for error messages and derived programs
        if not isinstance(value, UNCHECKED):
            refuse_hidden(f"{type(self).__name__}.{name}", value)
        object.__setattr__(self, name, value)
        if isinstance(value, SEARCHED):
            prefix = getattr(self, "_path", "")
            for path, part in parts_of(f"{prefix}.{name}" if prefix else name, value, (Module,)):
                if f".{path}".endswith(f".{getattr(part, '_path', path)}"):  # longer, not a second name
                    object.__setattr__(part, "_path", path)

    # -- parts ----------------------------------------------------------------------------------------

    def named_parts(self, *kinds: type) -> list[tuple[str, Any]]:
        """(dotted name, part) for this module, named '', and every module and leaf tensor below it, in the order of
        definition; or only for the parts of these kinds."""
        return parts_of("", self, kinds or (Module, Tensor))

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """(dotted name, tensor) for every leaf tensor that requires gradients."""
        return [(name, x) for name, x in self.named_parts(Tensor) if x.requires_grad]

    def parameters(self) -> list[Tensor]:
        """The leaf tensors that require gradients."""
        return [x for _, x in self.named_parameters()]

    # -- training -------------------------------------------------------------------------------------

    def zero_grad(self) -> None:
        """Set the grad of every parameter to None."""
        for x in self.parameters():
            x.grad = None

    def train(self, mode: bool = True) -> Module:
        """Set `training`, which switches dropout on, here and in every module below. Returns self."""
        for _, part in self.named_parts(Module):
            part.training = mode
        return self

    def eval(self) -> Module:
        """Set `training` to False, here and in every module below. Returns self."""
        return self.train(False)

    @contextlib.contextmanager
    def modes_kept(self) -> Iterator[None]:
        """Context in which `train` and `eval` may be called; on exit, every module has its old mode again."""
        before = [(part, part.training) for _, part in self.named_parts(Module)]
        try:
            yield
        finally:
            for part, mode in before:
                part.training = mode

    # -- saving ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the values of all leaf tensors, by name."""
        return {name: x.data.copy() for name, x in self.named_parts(Tensor)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy into every leaf tensor the array of the same name, in the tensor's dtype.

        Raises ValueError, and changes nothing, unless names and shapes are exactly those of `state_dict()`.
        """
        tensors = dict(self.named_parts(Tensor))
        state = matching(state, tensors, type(self).__name__)
        for name, x in tensors.items():
            x.data = np.array(state[name], x.dtype, order="C")

    # -- PyTorch's names --------------------------------------------------------------------------------

    def to_torch(self) -> dict[str, np.ndarray]:
        """Copies of the values of the leaf tensors by PyTorch's names, for `load_state_dict` of a PyTorch module whose
        attributes have the same names.

        Names are those of `state_dict()`, except in layers with a `to_torch` of their own, such as LSTM. A shared
        tensor is listed under each of its names, as in PyTorch.
        """
        found: dict[str, np.ndarray] = {}
        for name, part in self.torch_parts():
            found |= {name: part.data.copy()} if isinstance(part, Tensor) else {
                f"{name}.{key}": array for key, array in part.to_torch().items()}
        return found

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        """Load the values of a PyTorch module: its `state_dict()`, `dict(module.named_parameters())`, or arrays by the
        same names. PyTorch's tensors must be on the CPU; they may be bfloat16 and may require gradients.

        Raises ValueError, and changes nothing, unless names and shapes are exactly those of `to_torch()`. A shared
        tensor may be given under one of its names, or under several with equal values.
        """
        parts = self.torch_parts()
        twins: dict[str, str] = {}  # another name of an array → its first name
        first: dict[int, str] = {}
        for name, part in parts:
            other = first.setdefault(id(part), name)
            if other != name:
                twins |= {f"{name}{key}": f"{other}{key}" for key in torch_keys(part)}
        if isinstance(arrays, Mapping):
            arrays = {name: arrays[other] for name, other in twins.items() if other in arrays} | dict(arrays)
        arrays = matching(arrays, self.to_torch(), type(self).__name__)
        for name, other in twins.items():
            if not np.array_equal(arrays[name], arrays[other], equal_nan=True):
                raise ValueError(f"{name} and {other} are one tensor in this {type(self).__name__}, and their arrays "
                                 "differ")
        for name, part in parts:
            if isinstance(part, Tensor):
                part.data = np.array(arrays[name], part.dtype, order="C")
            else:
                part.load_torch({key[1:]: arrays[f"{name}{key}"] for key in torch_keys(part)})

    def torch_parts(self) -> list[tuple[str, Tensor | Module]]:
        """Leaf tensors below this module, each under all its names; a submodule with its own `to_torch` is listed
        instead of its tensors."""
        found: list[tuple[str, Tensor | Module]] = []
        stack: list[tuple[str, Any, tuple]] = [("", self, ())]
        while stack:
            name, value, above = stack.pop()
            if isinstance(value, Tensor) or (
                    isinstance(value, Module) and value is not self and type(value).to_torch is not Module.to_torch):
                found.append((name, value))
            elif id(value) not in above:  # modules may refer to each other
                inside = children(name, value, (*SEARCHED, Tensor))
                stack += [(*child, (*above, id(value))) for child in reversed(inside)]
        return found

    # -- files -------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the weights to a file, by PyTorch's names (`to_torch`), without pickle.

        A name that ends in .safetensors gives that format, and needs the library safetensors; any other gives an .npz
        archive, which `np.load` reads too. The file is replaced atomically: it is whole whenever the machine stops.
        Raises ValueError, and leaves the old file as it was, if the new one cannot be written.
        """
        write_weights(path, self.to_torch())

    def load(self, path: str | Path) -> Module:
        """Load the weights that `save` or, in the same names, PyTorch's users wrote; returns self.

        Nothing in the file is executed. Raises ValueError, and changes no weight, if the file is missing or damaged,
        or its names, shapes or kinds of numbers are not those of `to_torch()`; floats are cast to the weights' dtype.
        """
        arrays = read_weights(path)
        try:
            self.load_torch(arrays)
        except ValueError as problem:
            raise ValueError(f"{path}: {problem}") from None
        return self

    # -- randomness -------------------------------------------------------------------------------------

    def generators(self) -> dict[str, np.random.BitGenerator]:
        """The bit generator of every np.random.Generator in a module below, by the name of its attribute."""
        return {name: part.bit_generator for name, part in self.named_parts(np.random.Generator)}

    def rng_states(self) -> dict[str, Any]:
        """The state of every np.random.Generator in a module below, by the name of its attribute, to resume dropout
        exactly. Consists of numbers, strings, lists and dicts, as JSON needs it."""
        return {name: as_lists(generator.state) for name, generator in self.generators().items()}

    def load_rng_states(self, states: Mapping[str, Any]) -> None:
        """Set every generator to the state of the same name. Raises ValueError, and changes nothing, unless the names
        are those of `rng_states()` and each state fits its kind of generator."""
        generators = self.generators()
        wrong = name_differences(states, generators)
        for name, generator in generators.items():
            if name in states:
                try:
                    type(generator)().state = states[name]
                except (ValueError, TypeError, KeyError, IndexError, OverflowError) as problem:
                    wrong.append(f"{name} is not a state of a {type(generator).__name__} ({problem})")
        if wrong:
            raise ValueError(f"these are not the random states of this {type(self).__name__}: {'; '.join(wrong)}")
        for name, generator in generators.items():
            generator.state = states[name]

    # -- showing --------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """The tree of parts, with shapes and numbers of elements."""
        lines: list[tuple[str, int]] = []
        modules: list[str] = []
        for name, part in self.named_parts():
            above = [module for module in modules if not module or name.startswith(f"{module}.")]
            own = name[len(max(above, key=len, default="")):].removeprefix(".")
            if isinstance(part, Module):
                modules.append(name)
                label, size = type(part).__name__, sum(x.size for x in part.parameters())
                own += ": " if own else ""
            else:
                label, size = f" {part.shape}{'' if part.requires_grad else ' fixed'}", part.size
            lines.append(("  " * len(above) + own + label, size))
        width = max(len(text) for text, _ in lines)
        digits = max(len(str(size)) for _, size in lines)
        return "\n".join(f"{text:<{width}}  {size:>{digits}}" for text, size in lines)


def as_lists(state: Any) -> Any:
    """The state of a generator with lists in place of arrays, as JSON needs it."""
    return map_leaves(lambda leaf: leaf.tolist() if isinstance(leaf, np.ndarray) else leaf, state)


def torch_keys(part: Tensor | Module) -> list[str]:
    """What PyTorch appends to the name of a part for each of its arrays."""
    return [""] if isinstance(part, Tensor) else [f".{key}" for key in part.to_torch()]


CONTAINERS = (dict, list, tuple)
SEARCHED = (Module, *CONTAINERS)  # where parts are found
UNCHECKED = (int, float, str, *SEARCHED)  # attributes that cannot hide a part
PLAIN = {int, float, str, bool}  # the usual classes of options: most attributes are passed over by one look-up


def parts_of(name: str, value: Any, kinds: tuple[type, ...]) -> list[tuple[str, Any]]:
    """(dotted name, part) for every part of these kinds in a value of this name, itself included, each once."""
    found, seen, inside = [], set(), (*SEARCHED, *kinds)
    stack: list[tuple[str, Any]] = [(name, value)]
    while stack:
        name, value = stack.pop()
        if id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, kinds):
                found.append((name, value))
            if isinstance(value, SEARCHED):
                stack += reversed(children(name, value, inside))
    return found


def children(name: str, value: Any, kinds: tuple[type, ...]) -> list[tuple[str, Any]]:
    """(dotted name, child) for every child of these kinds (of tensors, only leaves) directly in a module or container
    of this name."""
    items: Mapping[Any, Any]
    if isinstance(value, Module):
        items = vars(value)
    elif isinstance(value, CONTAINERS):
        items = value if isinstance(value, dict) else dict(enumerate(value))
        for key, child in items.items():  # these did not pass through __setattr__
            refuse_hidden(f"{name}.{key}", child)
    else:
        return []
    return [(f"{name}.{key}" if name else str(key), child) for key, child in items.items()
            if child.__class__ not in PLAIN and isinstance(child, kinds)
            and (not isinstance(child, Tensor) or child.is_leaf)]


def is_part(value: Any) -> bool:
    """True for a module, and for a tensor that requires gradients."""
    return isinstance(value, Module) or (isinstance(value, Tensor) and value.requires_grad)


def refuse_hidden(name: str, value: Any) -> None:
    """Raise ValueError for a value that looks like a part and that a module could neither train nor save."""
    if isinstance(value, Tensor):
        if value.requires_grad and not value.is_leaf:
            raise ValueError(f"{name} would be a {describe(value)}, the result of an op, and so neither trained nor "
                             "saved: write a parameter as mg.tensor(0.1 * array, requires_grad=True), compute values "
                             "that depend on parameters in __call__, and store a result for inspection as "
                             "result.detach()")
    elif not isinstance(value, SEARCHED) and any(map(is_part, contents(value))):
        raise ValueError(f"{name} is a {type(value).__name__} with tensors or modules in it, which would be neither "
                         "trained nor saved: put them in a list, a tuple or a dict")


def contents(value: Any) -> Iterable[Any]:
    """The objects in a container that is not searched for parts."""
    if isinstance(value, np.ndarray):
        return value.flat if value.dtype.hasobject else ()
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (set, frozenset, deque, MappingView)):
        return iter(value)  # type: ignore[arg-type]
    if isinstance(value, SimpleNamespace) or (is_dataclass(value) and not isinstance(value, type)):
        return getattr(value, "__dict__", {}).values()
    return ()
