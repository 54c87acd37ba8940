"""`Module`: an object whose tensors can be found by name, trained, saved and shown. Nothing is registered: a module's
parts are what its attributes hold, in the order in which they were first assigned.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.messages import in_one_sentence
from minigrad.engine.pytree import map_leaves
from minigrad.engine.tensor import Tensor, describe
from minigrad.nn.signature import check_call


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

    Raises ValueError for a part that would be neither trained nor saved: a tensor that requires gradients and is the
    result of an op, or a part inside a set or another container. Raises TypeError, in the name of the class that is
    called, for arguments that it does not take.
    """

    # _path: the path to this module from the outermost one that it was assigned in, for `bptt.record`. A slot, so that
    # it is not one of the module's attributes.
    __slots__ = ("__dict__", "__weakref__", "_path")

    training = True

    def __new__(cls, *given: Any, **named: Any) -> Any:
        if given or named:  # copies and pickles are made without arguments
            check_call(cls, given, named)
        return object.__new__(cls)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if is_part(value):
                raise ValueError(f"{cls.__name__}.{name} is an attribute of the class, which all its modules would "
                                 f"share and none would train or save: assign self.{name} in __init__")

    if TYPE_CHECKING:  # a subclass has arguments of its own
        __call__: Callable[..., Any]
    else:
        def __call__(self, *inputs: Any) -> Any:
            raise NotImplementedError(f"{type(self).__name__} cannot be called yet: write its method __call__(self, …)")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_leaf and value.name is None:
            value.name = name  # for error messages and derived programs
        if not isinstance(value, PLAIN):
            refuse_hidden(f"{type(self).__name__}.{name}", value)
        object.__setattr__(self, name, value)
        if isinstance(value, HOLDERS):
            path = getattr(self, "_path", "")
            for way, part in parts_of(f"{path}.{name}" if path else name, value):
                known = getattr(part, "_path", way)  # a second name does not count, a longer one does
                if isinstance(part, Module) and f".{way}".endswith(f".{known}"):
                    object.__setattr__(part, "_path", way)

    # -- parts ----------------------------------------------------------------------------------------

    def named_parts(self, kind: type = Tensor) -> list[tuple[str, Any]]:
        """This module (its name is ''), and every module and leaf tensor below it, in the order of definition; another
        `kind` of object may be asked for in place of tensors."""
        return parts_of("", self, kind)

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
        """Switch that off, here and in every module below. Returns self."""
        return self.train(False)

    @contextlib.contextmanager
    def modes_kept(self) -> Iterator[None]:
        """Inside, `train` and `eval` may switch; afterwards this module, and every one below, is as it was."""
        before = [(part, part.training) for _, part in self.named_parts() if isinstance(part, Module)]
        try:
            yield
        finally:
            for part, mode in before:
                part.training = mode

    # -- saving ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of the values of every leaf tensor, by name."""
        return {name: x.data.copy() for name, x in self.named_parts() if isinstance(x, Tensor)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every leaf tensor to a copy of the array of its name, in its own dtype.

        Raises ValueError, and changes nothing, unless the names are exactly those of `state_dict()`, with its shapes.
        """
        mine = {name: x for name, x in self.named_parts() if isinstance(x, Tensor)}
        state = fitting(state, mine, type(self).__name__)
        for name, x in mine.items():
            x.data = np.array(state[name], x.dtype, order="C")

    # -- PyTorch's names --------------------------------------------------------------------------------

    def to_torch(self) -> dict[str, np.ndarray]:
        """The values of the leaf tensors by PyTorch's names, for `load_state_dict` of a PyTorch module whose attributes
        have the same names.

        Tensors have the dotted names of `state_dict()`, and layers that PyTorch writes in another way say how. A tensor
        that is reached by two names stands under both, as in PyTorch.
        """
        found = {}
        for name, part in self.torch_parts():
            found |= {name: part.data.copy()} if isinstance(part, Tensor) else {
                f"{name}.{key}": array for key, array in part.to_torch().items()}
        return found

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        """Take the values of a PyTorch module: its `state_dict()`, `dict(module.named_parameters())`, or arrays by the
        same names. PyTorch's tensors lie on the CPU, and may be bfloat16 or require gradients.

        Raises ValueError, and changes nothing, unless names and shapes are exactly those of `to_torch()`. Of a tensor
        with two names one is enough; if both are there, they have the same values.
        """
        parts, first = self.torch_parts(), {}
        if isinstance(arrays, Mapping):
            arrays = dict(arrays)
            for name, part in parts:
                other = first.setdefault(id(part), name)
                for mine, theirs in zip(torch_names(name, part), torch_names(other, part)):
                    if theirs in arrays:
                        arrays.setdefault(mine, arrays[theirs])
        arrays = fitting(arrays, self.to_torch(), type(self).__name__)
        for name, part in parts:
            other = first[id(part)]
            for mine, theirs in zip(torch_names(name, part), torch_names(other, part)):
                if not np.array_equal(arrays[mine], arrays[theirs], equal_nan=True):
                    raise ValueError(f"{mine} and {theirs} are one tensor in this {type(self).__name__}, and their "
                                     "arrays differ")
        for name, part in parts:
            if isinstance(part, Tensor):
                part.data = np.array(arrays[name], part.dtype, order="C")
            else:
                part.load_torch({key: arrays[f"{name}.{key}"] for key in part.to_torch()})

    def torch_parts(self) -> list[tuple[str, Tensor | Module]]:
        """The leaf tensors below this module, and instead of what stands in a module with a `to_torch` of its own, that
        module; each under all of its names."""
        found: list[tuple[str, Tensor | Module]] = []
        stack: list[tuple[str, Any, tuple]] = [("", self, ())]
        while stack:
            name, value, above = stack.pop()
            if isinstance(value, Tensor) or (
                    isinstance(value, Module) and value is not self and type(value).to_torch is not Module.to_torch):
                found.append((name, value))
            elif id(value) not in above:  # a module may hold the one that holds it
                stack += [(*child, (*above, id(value))) for child in reversed(children(name, value, Tensor))]
        return found

    # -- randomness -------------------------------------------------------------------------------------

    def generators(self) -> dict[str, np.random.BitGenerator]:
        return {name: part.bit_generator for name, part in self.named_parts(np.random.Generator)
                if isinstance(part, np.random.Generator)}

    def rng_states(self) -> dict[str, Any]:
        """The state of every np.random.Generator that a module below holds, by the name of its attribute: what dropout
        needs to go on as if never interrupted. Numbers, strings, lists and dicts, so that JSON can hold it."""
        return {name: map_leaves(lambda leaf: leaf.tolist() if isinstance(leaf, np.ndarray) else leaf, generator.state)
                for name, generator in self.generators().items()}

    def load_rng_states(self, states: Mapping[str, Any]) -> None:
        """Set every generator to the state of its name. Raises ValueError, and changes nothing, unless the names are
        those of `rng_states()` and each state is one of that kind of generator."""
        mine = self.generators()
        wrong = differences(states, mine)
        for name, generator in mine.items():
            if name in states:
                try:
                    type(generator)().state = states[name]
                except (ValueError, TypeError, KeyError, IndexError, OverflowError) as problem:
                    wrong.append(f"{name} holds no state of a {type(generator).__name__} ({problem})")
        if wrong:
            raise ValueError(f"these are not the random states of this {type(self).__name__}: {'; '.join(wrong)}")
        for name, generator in mine.items():
            generator.state = states[name]

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


def torch_names(name: str, part: Tensor | Module) -> list[str]:
    return [name] if isinstance(part, Tensor) else [f"{name}.{key}" for key in part.to_torch()]


CONTAINERS = (dict, list, tuple)
HOLDERS = (Module, *CONTAINERS)
PLAIN = (int, float, str, *HOLDERS)  # attributes that hide no part


def parts_of(name: str, value: Any, kind: type = Tensor) -> list[tuple[str, Any]]:
    """Every module and leaf tensor of a value of this name, itself included, each once."""
    found, seen = [], set()
    stack: list[tuple[str, Any]] = [(name, value)]
    while stack:
        name, value = stack.pop()
        if id(value) not in seen:
            seen.add(id(value))
            found += [(name, value)] if isinstance(value, (Module, kind)) else []
            stack += reversed(children(name, value, kind))
    return found


def children(name: str, value: Any, kind: type) -> list[tuple[str, Any]]:
    """(dotted name, child) of the modules, containers, and things of this kind (tensors: leaves) that a module or a
    container of this name holds."""
    items = vars(value).items() if isinstance(value, Module) else value.items() if isinstance(value, dict) else \
        enumerate(value) if isinstance(value, CONTAINERS) else ()
    if isinstance(value, CONTAINERS):  # what is in one was not assigned as an attribute
        for key, child in items:
            refuse_hidden(f"{name}.{key}", child)
        items = value.items() if isinstance(value, dict) else enumerate(value)
    return [(f"{name}.{key}" if name else str(key), child) for key, child in items
            if isinstance(child, (Module, kind, *CONTAINERS)) and (not isinstance(child, Tensor) or child.is_leaf)]


def is_part(value: Any) -> bool:
    """Whether a value is to be trained, or holds what is."""
    return isinstance(value, Module) or (isinstance(value, Tensor) and value.requires_grad)


def refuse_hidden(name: str, value: Any) -> None:
    """Raises ValueError for what a module cannot train or save under this name, though it is meant to, as it seems."""
    if isinstance(value, Tensor):
        if value.requires_grad and not value.is_leaf:
            raise ValueError(f"{name} would be a {describe(value)}, and as the result of an op neither trained nor "
                             "saved: write a parameter as mg.tensor(0.1 * array, requires_grad=True), compute what "
                             "follows from parameters in __call__, and keep a result to look at as result.detach()")
    elif not isinstance(value, HOLDERS) and any(map(is_part, unseen(value))):
        raise ValueError(f"{name} is a {type(value).__name__} with tensors or modules in it, which would be neither "
                         "trained nor saved: put them in a list, a tuple or a dict")


def unseen(value: Any) -> Iterable[Any]:
    """What is in a container in which no part is found."""
    if isinstance(value, np.ndarray):
        return value.flat if value.dtype.hasobject else ()
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (set, frozenset, deque, MappingView)):
        return value
    if isinstance(value, SimpleNamespace) or (is_dataclass(value) and not isinstance(value, type)):
        return getattr(value, "__dict__", {}).values()
    return ()


def numbers(layer: Module, x: Any) -> Any:
    """What a layer is given, as an ndarray or tensor. Raises TypeError for what holds no numbers."""
    x = x if isinstance(x, Tensor) else bare(x)
    if x.dtype.kind not in "fciub":
        raise TypeError(f"{type(layer).__name__} takes numbers, and x is an array of {x.dtype}")
    return x


def refuse_integers(layer: Module, dtype: Any) -> None:
    """Raises TypeError for a dtype in which no parameter can be trained."""
    if np.dtype(dtype).kind not in "fc":
        raise TypeError(f"{type(layer).__name__} takes dtype as a type of floats, as np.float32, not {np.dtype(dtype)}")


def cast(x: Any, dtype: np.dtype | None) -> Any:
    """x in the dtype of a layer's parameters; where it has none, integers as floats. Complex numbers stay, since the
    complex step of `gradcheck` goes through real layers."""
    if x.dtype.kind == "c" or x.dtype == dtype or (dtype is None and x.dtype.kind == "f"):
        return x
    return x.astype(dtype or np.float64)


def differences(given: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Which names of mine are missing in what was given, and which of those given are unexpected."""
    missing = ", ".join(name for name in mine if name not in given)
    unexpected = ", ".join(str(name) for name in given if name not in mine)
    return [f"{what} {names}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names]


def matching(arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], whose: str) -> dict[str, np.ndarray]:
    """The arrays, if they have exactly these names and shapes. Raises ValueError that lists every difference."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{whose} takes arrays by name, as a state_dict() is, not an object of {type(arrays).__name__}")
    given = {name: as_array(name, array) for name, array in arrays.items()}
    wrong = differences(given, shapes)
    wrong += [f"{name} has shape {given[name].shape} and must have {shape}" for name, shape in shapes.items()
              if name in given and given[name].shape != shape]
    if wrong:
        raise ValueError(f"these arrays are not those of this {whose}: {'; '.join(wrong)}")
    return given


def fitting(arrays: Mapping[str, Any], mine: Mapping[str, Any], whose: str) -> dict[str, np.ndarray]:
    """The arrays, if they have the names and shapes of mine, and numbers that their dtypes can take. Raises ValueError
    otherwise."""
    given = matching(arrays, {name: x.shape for name, x in mine.items()}, whose)
    for name, x in mine.items():
        if not np.can_cast(given[name].dtype, x.dtype, "same_kind"):
            raise ValueError(f"{name} of this {whose} holds {x.dtype}, and the array given for it {given[name].dtype}")
    return given


def as_array(name: str, given: Any) -> np.ndarray:
    """An array, or a tensor of PyTorch's, as an ndarray. Raises ValueError, with the name, where it is neither."""
    try:
        given = given.detach() if hasattr(given, "detach") else given
        try:
            array = bare(given)
        except TypeError:  # as of PyTorch's bfloat16, which NumPy lacks
            if not hasattr(given, "float"):
                raise
            array = np.asarray(given.float())
    except Exception as problem:  # whatever another library raises
        raise ValueError(f"{name} cannot be read as an array ({in_one_sentence(problem)}): give an ndarray, or a dense "
                         "tensor on the CPU") from None
    # bfloat16 and kin, where a package has brought them to NumPy
    return array.astype(np.float32) if array.dtype.kind == "V" and np.can_cast(array.dtype, np.float32) else array
