"""`Tensor`, an array that can be differentiated, and `Node`, the record of how a result was made.

The graph consists of nodes, which `backward.py` visits. The node of a result is separate from its tensor, so the
graph keeps alive only the arrays that a rule will read. A leaf is its own node.
This file knows no ops: an op installs itself in the operators of `Tensor` when it is declared (`op.py`).
"""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from minigrad.engine.arrays import asarray, native, ndarray, plain
from minigrad.engine.context import recording, watcher

if TYPE_CHECKING:
    from minigrad.engine.typing_stubs import Installed
else:
    Installed = object

new = object.__new__
next_index = itertools.count(1).__next__  # one clock for creation and change; atomic under the GIL


last_change = 0  # the clock at the last assignment to any tensor's data


class Tensor(Installed):
    """An ndarray `data` that can be differentiated.

    data           the values. After an assignment, a backward that needs the old values raises RuntimeError.
    grad           ndarray of data's shape and dtype, accumulated by `backward`; None before the first one.
                   Assigning anything else raises TypeError or ValueError; another float dtype is cast.
    requires_grad  whether gradients flow to or through this tensor
    name           for error messages, figures and printed programs, or None

    `Tensor(data, requires_grad=False, dtype=None, name=None)` copies data and follows NumPy's dtype rules.
    Raises TypeError if a tensor of integers or booleans should require gradients, and if data is a tensor through
    which gradients are recorded, unless requires_grad=True makes the new one a leaf.
    """

    # `fill` sets the slots. None is called _data: numpy.ma reads that attribute of any object, and np.ma.add(t, x)
    # would silently lose the gradient.
    __slots__ = ("__weakref__", "_array", "_grad", "_index", "_name", "_node", "_tracked", "_version", "_watch")
    _array: Any
    _tracked: bool
    is_symbol = False  # whether its values are unknown, while a function is traced

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None, name: str | None = None):
        if isinstance(data, Tensor):
            if flowing(data) and not requires_grad:
                raise TypeError(f"{describe(data)} requires gradients, and a copy of its values would not pass them on"
                                ": use the tensor itself, or take its values with .detach()")
            data = data._array
        fill(self, numpy.array(plain(data), native(dtype)))
        self.name = name
        self.requires_grad = requires_grad

    # -- properties ---------------------------------------------------------------------------------

    @property
    def data(self) -> ndarray:
        return self._array

    @data.setter
    def data(self, value: Any) -> None:
        global last_change
        value = asarray(value._array if isinstance(value, Tensor) else plain(value), dtype=self._array.dtype)
        if value.shape != self._array.shape:
            raise ValueError(f"data of shape {value.shape} cannot be assigned to {describe(self)}: "
                             "make a new tensor for another shape")
        self._array = value
        node_of(self)._version = last_change = next_index()

    @property
    def name(self) -> str | None:
        return getattr(node_of(self), "_name", None)

    @name.setter
    def name(self, name: str | None) -> None:
        node_of(self)._name = name

    def _set_grad(self, value: Any) -> None:
        if value is not None:
            kind = self._array.dtype.kind
            if not isinstance(value, (ndarray, numpy.generic)) or not (value.dtype.kind in "fc" and kind in "fc") \
                    or (value.dtype.kind == "c" and kind != "c"):
                given = f"an array of {value.dtype}" if isinstance(value, ndarray) else f"a {type(value).__name__}"
                raise TypeError(f"the gradient of {describe(self)} and dtype {self.dtype} must be None or an ndarray "
                                f"of the same kind of numbers, not {given}")
            if value.shape != self._array.shape:
                raise ValueError(f"{describe(self)} cannot have a gradient of shape {value.shape}: the shapes differ")
            value = asarray(plain(value), self._array.dtype)
        self._grad = value

    grad: Any = property(operator.attrgetter("_grad"), _set_grad)

    def _set_requires_grad(self, value: bool) -> None:
        if value and self._array.dtype.kind not in "fc":
            raise TypeError(f"a tensor of {self._array.dtype} has no gradients: pass floats, as in "
                            "mg.tensor(data, dtype=float, requires_grad=True)")
        if self._node is not None and not value:
            raise RuntimeError(f"{describe(self)} is the result of an op, and gradients flow through it: "
                               "use .detach() for the same values without gradients")
        self._tracked = bool(value)

    requires_grad: bool = property(operator.attrgetter("_tracked"), _set_requires_grad)  # type: ignore[assignment]
    shape: Any = property(operator.attrgetter("_array.shape"))
    dtype: Any = property(operator.attrgetter("_array.dtype"))
    ndim: Any = property(operator.attrgetter("_array.ndim"))
    size: Any = property(operator.attrgetter("_array.size"))

    @property
    def is_leaf(self) -> bool:
        """True unless an op made it and gradients flow to the inputs of that op."""
        return self._op is None

    # the record of how it was made, None for a leaf: see `Node`
    _node: Node | None
    _index: int
    _watch: dict | None
    _op: Any = property(lambda self: self._node and self._node._op)
    _inputs: Any = property(lambda self: self._node and self._node._inputs)
    _metadata: Any = property(lambda self: self._node and self._node._metadata)

    # -- conversion to NumPy and Python -------------------------------------------------------------

    def detach(self) -> Tensor:
        """A tensor that shares this data, and through which no gradient flows."""
        watching = watcher.get()
        if hasattr(watching, "detached"):
            return watching.detached(self)
        out = wrap(self._array)
        out.name = self.name
        return out

    def numpy(self) -> ndarray:
        """The data as an ndarray, not copied. Raises TypeError for a tensor that requires gradients."""
        return self.__array__()

    def item(self) -> Any:
        """The single value of a tensor of size 1, as a Python number."""
        if self._array.size != 1:
            raise ValueError(f"{describe(self)} has {self._array.size} values, not one: index it or reduce it first")
        return self._array.item()

    def tolist(self) -> Any:
        return self._array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ndarray:
        if self._tracked:
            raise TypeError(
                f"{describe(self)} requires gradients, and an ndarray cannot carry them: read its values with "
                ".detach().numpy(); to fill an array step by step, collect the steps in a list and mg.stack them")
        if dtype is not None and dtype != self._array.dtype:
            return self._array.astype(dtype)
        return self._array.copy() if copy else self._array

    __hash__ = object.__hash__  # by identity, although == is elementwise as in NumPy


class Node:
    """The record of how a result was made."""

    __slots__ = ("__weakref__", "_array", "_index", "_inputs", "_mask", "_metadata", "_name", "_op", "_version",
                 "_watch", "dtype", "shape")
    _op: Any
    _metadata: Any
    _inputs: Any  # each is the tensor or array if a rule reads it; else the node its gradient goes to, if one does
    _mask: int  # bit i: a gradient goes to input i, so its rule runs
    _array: Any  # the result if a rule reads it, else None; for several results a tuple of arrays or `Shape`s
    _index: int  # the clock at creation; the inputs have smaller indices
    _version: int  # the clock at the last change of the result; unset before a change
    _name: str | None  # unset until assigned
    _watch: dict | None  # hooks by number, and "retain" for retain_grad (hooks.py)
    shape: tuple[int, ...]
    dtype: Any
    _tracked, _node = True, None


class Shape(NamedTuple):
    """Shape and dtype of an array that no rule reads, in its place."""

    shape: tuple[int, ...]
    dtype: Any = None


def result(y: Any, op: Any, inputs: tuple, mask: int, metadata: dict, saved: Any) -> Tensor:
    """A tensor with the values y and a new node, which keeps `saved`: y or None."""
    node, out = Node(), new(Tensor)
    node._op, node._inputs, node._mask, node._metadata = op, inputs, mask, metadata
    node.shape, node.dtype, node._array = y.shape, y.dtype, saved
    node._index = out._index = next_index()
    node._watch = out._grad = None
    out._array, out._tracked, out._node = y, True, node
    return out


def fill(out: Tensor, array: Any, tracked: bool = False) -> Any:
    """Set the slots of a new tensor that has no node. Returns it."""
    if array is not None:  # a symbol has its own array
        out._array = array
    out._tracked = tracked
    out._index = next_index()
    out._grad = out._node = out._watch = None
    return out


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, name: str | None = None) -> Tensor:
    """A new leaf `Tensor` with a copy of data; see `Tensor`."""
    return Tensor(data, requires_grad, dtype, name)


def wrap(data: Any, tracked: bool = False) -> Tensor:
    """A Tensor around an array, not copied."""
    return fill(new(Tensor), data, tracked)


def flowing(x: Tensor) -> bool:
    """Whether gradients are being recorded through x: it is tracked, and its graph has not been released."""
    return x._tracked and (x._op is None or x._inputs is not None) and recording.get()


def node_of(x: Any) -> Any:
    """The node of a tensor; a node, a leaf and a symbol are their own."""
    return x._node or x


def made_by(x: Any) -> Any:
    """The op that made x, as a user would name it: for one of several results, the op that returned them all. None for
    leaves and released graphs."""
    inputs = x._inputs
    if inputs and getattr(inputs[0], "_array", None).__class__ is tuple:
        x = inputs[0]
    return x._op if x._inputs is not None else None


def describe(x: Any) -> str:
    """Text for a value in error messages: its name, its shape, and the op that made it."""
    if not isinstance(x, (Tensor, Node)):
        return f"an array of shape {numpy.shape(x)}"
    name, maker = getattr(node_of(x), "_name", None), made_by(x)
    name = f" {name!r}" if name else ""
    made = f", made by {maker}" if maker else ""
    if x._array.__class__ is tuple:
        return f"results of shapes {', '.join(str(y.shape) for y in x._array)}{made}"
    return f"tensor{name} of shape {x.shape}{made}"
