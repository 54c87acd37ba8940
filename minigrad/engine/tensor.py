"""`Tensor` and `@op`: the only two concepts of the engine.

A `Tensor` is an array that remembers how it was made: which op, from which inputs. An op is a NumPy
function together with the rules of its derivative, in one block. This file knows no op by name: an op
that is declared anywhere finds its way to the operators of `Tensor` and to NumPy's own functions.

A call of an op takes one of two ways. With ndarrays alone it *is* its forward, nothing is recorded.
With a Tensor among its inputs the result is a Tensor, and if a gradient can flow through it, it keeps its
op, its inputs and its metadata. `autodiff.py` walks these records.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy

from minigrad.engine.advice import dotted, missing, refuse_unless_default
from minigrad.engine.context import Context

ndarray = numpy.ndarray
asarray = numpy.asarray
new = object.__new__
next_index = itertools.count(1).__next__  # one clock for creation and change; atomic under the GIL

OPS: dict[str, Op] = {}  # every op by name
NUMPY: dict[Callable, Callable] = {}  # NumPy's function → ours

# Both are per thread and per async task. A watcher sees every op call that has a Tensor among its inputs,
# in place of `apply`: that is how anomaly detection looks on without slowing the rest.
recording: ContextVar[bool] = ContextVar("recording", default=True)
watcher: ContextVar[Any] = ContextVar("watcher", default=None)

last_change = 0  # the clock at the last assignment to any tensor's data


class Tensor:
    """An ndarray `data` that can be differentiated.

    data           the values. Assigning counts as a change; a backward that still needs the old ones refuses.
    grad           ndarray of data's shape and dtype once `backward` has reached this leaf, else None; it adds up.
                   Assigning anything else raises TypeError or ValueError; another float type is cast.
    requires_grad  whether gradients flow to or through this tensor
    name           for error messages, pictures and printed programs, or None

    `Tensor(data, requires_grad=False, dtype=None, name=None)` copies data; NumPy's dtype rules hold.
    Raises TypeError when a tensor of integers or booleans is to require gradients, and for a tensor through which
    gradients are recorded, unless the new one is to be a leaf of its own (requires_grad=True).
    """

    # _array: not called _data, which numpy.ma reads of anything: np.ma.add(t, x) would lose the gradient in silence.
    # _op, _inputs, _metadata: how it was made. A leaf has no op; after its backward, a result has RELEASED.
    # _index: the clock at creation, so inputs always have a smaller one. _version: the clock at the last change.
    # _watch: None, or what wants to see the gradient (hooks by number, "retain").
    __slots__ = ("__weakref__", "_array", "_grad", "_index", "_inputs", "_metadata", "_op", "_tracked", "_version",
                 "_watch", "name")

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None, name: str | None = None):
        if isinstance(data, Tensor):
            if flowing(data) and not requires_grad:
                raise TypeError(f"{describe(data)} requires gradients, and a copy of its values would not pass them on"
                                ": use it as it is, or take its values with .detach()")
            data = data._array
        self._array = numpy.array(plain(data), native(dtype))
        self._grad = self._op = self._inputs = self._metadata = None
        self.name = name
        self._tracked = False
        self._index = next_index()
        self._version = 0
        self._watch = None
        self.requires_grad = requires_grad

    # -- what it is ---------------------------------------------------------------------------------

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
        self._version = last_change = next_index()

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

    @property
    def requires_grad(self) -> bool:
        return self._tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self._array.dtype.kind not in "fc":
            raise TypeError(f"a tensor of {self._array.dtype} has no gradients: pass floats, as in "
                            "mg.tensor(data, dtype=float, requires_grad=True)")
        if self._op is not None and not value:
            raise RuntimeError(f"{describe(self)} is the result of an op and carries its gradients on: "
                               "use .detach() for the same values without")
        self._tracked = bool(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> numpy.dtype:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def size(self) -> int:
        return self._array.size

    @property
    def is_leaf(self) -> bool:
        """True unless an op made it and its gradient flows on to that op's inputs."""
        return self._op is None

    # -- ways out of the engine ---------------------------------------------------------------------

    def detach(self) -> Tensor:
        """A tensor of the same data, not copied, through which no gradient flows."""
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
        """The one value of a tensor of size 1, as a Python number."""
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

    def _number(self) -> Any:
        """The one value, for float(x), math.sin(x) and array[i] = x. Refused while gradients are recorded through it:
        they would be lost without a word."""
        if self._array.size != 1:  # NumPy's own error for a number, where item has a ValueError
            raise TypeError(f"{describe(self)} has {self._array.size} values, not one: index it or reduce it first")
        value = self.item()
        if flowing(self):
            raise TypeError(
                f"{describe(self)} requires gradients, and a Python number cannot carry them: keep it a tensor (np.sin "
                "instead of math.sin; mg.stack of a list instead of array[i] = x), or read its value with .item()")
        return value

    def __float__(self) -> float:
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __complex__(self) -> complex:
        return complex(self._number())

    def __index__(self) -> int:
        self._number()
        return self._array.__index__()

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise ValueError(f"the truth value of {describe(self)} is ambiguous: use np.any, np.all or mg.where")
        return bool(self._array.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    # -- as a container -----------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self._array.ndim:
            raise TypeError(f"{describe(self)} has no axis and so no length: use .size or .item()")
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("writing into a tensor cannot be recorded: collect the parts in a list and use "
                        "mg.stack or mg.concatenate, or mg.where for a mask")

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return other // self, other % self

    __hash__ = object.__hash__  # == is elementwise, as in NumPy; as a key a tensor is itself

    def __reduce__(self):
        if self._op is not None:
            raise TypeError(f"{describe(self)} is part of a graph and cannot be copied or pickled: .detach() it first")
        grad = None if self._grad is None else self._grad.copy()
        return type(self), (self._array, self._tracked, None, self.name), (None, {"_grad": grad})

    def __repr__(self) -> str:
        values = numpy.array2string(self._array, separator=", ", prefix="tensor(")
        notes = [f"dtype={self.dtype}"] if self.dtype not in (float, int, bool) else []
        notes += [f"name={self.name!r}"] if self.name else []
        if self._tracked:
            maker = made_by(self)
            notes += ["requires_grad=True" if self._op is None else f"op={maker}" if maker else "graph released"]
        return f"tensor({', '.join([values, *notes])})"

    # -- NumPy's own functions ----------------------------------------------------------------------

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            raise TypeError(missing(f"{dotted(ufunc)}.{method}"))
        if kwargs.get("out") is not None:
            raise TypeError(f"{dotted(ufunc)} into an existing array cannot be recorded: "
                            "write a = a + b instead of a += b, or read values with .detach().numpy()")
        return self.__array_function__(ufunc, (), inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        ours = NUMPY.get(function)
        if ours is None:
            raise TypeError(missing(dotted(function)))
        known = parameters(ours)
        if kwargs and "kwargs" not in known:  # NumPy's name for an argument that has another name here: by its place
            theirs, kwargs = parameters(function), dict(kwargs)
            while len(args) < min(len(theirs), len(known)) and theirs[len(args)] in {*kwargs} - {*known}:
                args = (*args, kwargs.pop(theirs[len(args)]))
            refuse_unless_default(dotted(function), **{key: kwargs.pop(key) for key in {*kwargs} - {*known}})
        return ours(*args, **kwargs)

    if TYPE_CHECKING:  # installed by the ops; here for type checkers and editors alone
        T: Tensor
        def __add__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def sum(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Tensor: ...
        def prod(self, axis: Any = None, *, keepdims: bool = False, **options: Any) -> Tensor: ...
        def mean(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Tensor: ...
        def var(self, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, **options: Any) -> Tensor: ...
        def std(self, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, **options: Any) -> Tensor: ...
        def max(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Tensor: ...
        def cumsum(self, axis: Any = None) -> Tensor: ...
        def cumprod(self, axis: Any = None) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        def swapaxes(self, axis1: int, axis2: int) -> Tensor: ...
        def squeeze(self, axis: Any = None) -> Tensor: ...
        def ravel(self) -> Tensor: ...
        def flatten(self, order: str = "C") -> Tensor: ...
        def repeat(self, repeats: Any, axis: Any = None) -> Tensor: ...
        def take(self, indices: Any, axis: Any = None) -> Tensor: ...
        def clip(self, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Tensor: ...
        def dot(self, b: Any) -> Tensor: ...
        def copy(self) -> Tensor: ...
        def round(self, decimals: int = 0) -> Tensor: ...
        def __round__(self, decimals: int | None = None) -> Tensor: ...
        def astype(self, dtype: Any, *, copy: bool = True) -> Tensor: ...
        def any(self, axis: Any = None) -> Any: ...
        def all(self, axis: Any = None) -> Any: ...
        def argmax(self, axis: Any = None) -> Any: ...
        def argmin(self, axis: Any = None) -> Any: ...
        def backward(self, gradient: Any = None, retain_graph: bool = False) -> None: ...
        def retain_grad(self) -> Tensor: ...
        def register_hook(self, hook: Callable) -> Any: ...


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, name: str | None = None) -> Tensor:
    """A new leaf `Tensor` with a copy of data; see `Tensor`."""
    return Tensor(data, requires_grad, dtype, name)


def wrap(data: Any, tracked: bool = False) -> Tensor:
    """A Tensor around an array, not copied."""
    out = new(Tensor)
    out._array = data
    out._tracked = tracked
    out._op = out._inputs = out._metadata = out._watch = out._grad = out.name = None
    out._index = next_index()
    out._version = 0
    return out


@functools.cache
def parameters(function: Callable) -> tuple[str, ...]:
    """The names of a function's parameters, none where it does not tell (or takes any)."""
    try:
        return tuple(inspect.signature(function).parameters)
    except ValueError:
        return ()


def flowing(x: Tensor) -> bool:
    """Whether gradients are being recorded through x."""
    return x._tracked and x._op is not RELEASED and recording.get()


def made_by(x: Tensor) -> Op | None:
    """The op that a user would name: for one of several results the op that gave them; None for leaves and when the
    graph has been released."""
    op = x._inputs[0]._op if x._op is PART else x._op
    return None if op is RELEASED else op


def describe(x: Any) -> str:
    """How an error message speaks of a value: its name, what made it, its shape."""
    if not isinstance(x, Tensor):
        return f"an array of shape {numpy.shape(x)}"
    name, maker = f" {x.name!r}" if x.name else "", made_by(x)
    made = f", made by {maker}" if maker else ""
    if x._array.__class__ is tuple:
        return f"results of shapes {', '.join(str(y.shape) for y in x._array)}{made}"
    return f"tensor{name} of shape {x._array.shape}{made}"


class no_grad(Context):
    """Inside, nothing is recorded: for this thread and async task only. Also a decorator, of generators too."""

    def __init__(self) -> None:
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens.append(recording.set(False))

    def __exit__(self, *exception: Any) -> None:
        recording.reset(self._tokens.pop())


# -- ops ----------------------------------------------------------------------------------------------


class Op:
    """What is known of one op. Made by `@op`, found in `OPS` and as the attribute `.op` of the function.

    name, forward  the forward sees ndarrays only
    arrays         the names of its array arguments; with variadic there is one, `*arrays`
    defaults       its metadata by name, with default values (or REQUIRED)
    rules          {argument: rule}; an argument without a rule passes no gradient
    pulls          [(position, pull, pull_arrays, reads)]: each rule as `pull(g, y, inputs, metadata)`, the same on
                   the inputs' arrays, and which inputs it reads (-1 for y): the exact list of values to keep
    into           like rules, but `into(total, g, …)` adds the gradient into an array that exists
    analytic       False where the forward breaks the complex step (abs, sign)
    fresh          True where the gradients of a variadic rule are arrays that nobody else holds

    Traits steer the passes and printers; an op's name never does. They are read off the declaration or stated in it:
    ufunc          the NumPy ufunc that computes it entry by entry, taken from `np=`; else None
    elementwise    each entry of y needs only the entries of the (broadcast) inputs at its index; true of every ufunc
    linear         y is linear in all inputs together, so sums can be exchanged with it: Σ f(x) = f(Σ x)
    view           y is a view of its first input: `is_view(metadata)`
    text           its NumPy text as a template, where it is neither an operator nor a call by keyword: `template`
    buffered       NumPy statements that write it into a buffer `{y}`; a ufunc needs none
    """

    __slots__ = ("analytic", "arrays", "buffered", "defaults", "elementwise", "forward", "fresh", "infix", "into",
                 "linear", "name", "numpy", "pulls", "rules", "shapes", "text", "ufunc", "variadic", "view")
    name: str
    forward: Any
    arrays: tuple[str, ...]
    defaults: dict[str, Any]
    rules: dict[str, Any]
    pulls: list
    into: dict[int, Any]
    analytic: bool
    fresh: bool
    variadic: bool
    ufunc: Any
    elementwise: bool
    linear: bool
    view: Any
    text: Any
    buffered: str | None

    def is_view(self, metadata: dict) -> bool:
        """Whether y is a view of its first input, with this metadata."""
        return self.view(**metadata) if callable(self.view) else self.view

    def template(self, metadata: dict) -> str | None:
        """The NumPy text, with the inputs and the metadata in braces; None for an operator or a plain call."""
        return self.text(**metadata) if callable(self.text) else self.text

    def __repr__(self) -> str:
        return self.name

    def error(self, problem: Exception, arrays: tuple, metadata: dict) -> Exception:
        """NumPy's complaint as one sentence that names the op, the shapes and what to do."""
        shapes = ", ".join(f"{name} {numpy.shape(x)}" for name, x in zip(self.names(arrays), arrays))
        given = "".join(f", {key} {value.shape}" if isinstance(value, ndarray) else f", {key}={value!r}"
                        for key, value in metadata.items() if value is not self.defaults[key])
        kind = next(k for k in (IndexError, ValueError, TypeError) if isinstance(problem, k))
        if kind is ValueError and self.shapes and re.search("broadcast|shape|dimension", str(problem)):
            return kind(f"{self.name}: {shapes}{given} do not go together: {self.shapes}")
        return kind(f"{self.name} cannot take {shapes}{given}: {problem}")

    def names(self, arrays: tuple) -> list[str]:
        return [f"{self.arrays[0]}[{i}]" for i in range(len(arrays))] if self.variadic else list(self.arrays)


REQUIRED = inspect.Parameter.empty
BROADCAST = "from the right, axes must have equal lengths, or one of them 1 (reshape or mg.expand_dims one of them)"


def op(forward: Callable | None = None, *, np: Any = (), infix: str | None = None, method: bool = False,
       analytic: bool = True, shapes: str = "", around: Callable | None = None, elementwise: bool = False,
       linear: bool = False, view: Any = False, text: Any = None, buffered: str | None = None, **rules: Callable
       ) -> Callable[..., Any]:
    """Declare an op: its NumPy forward and, as `d<argument>`, the rule of its derivative.

    ```python
    @op(np=np.tanh, dx=lambda g, y: g * (1.0 - y * y))
    def tanh(x):
        '''y = tanh x,  dy/dx = 1 − y².'''
        return np.tanh(x)
    ```
    Array arguments are positional, metadata is keyword-only, `*arrays` takes any number. A rule names what it
    uses: `g` the gradient that arrives, `y` the result, any input, `<input>_shape`, any metadata. The rule for
    `*arrays` returns one gradient for each. An op may return a tuple; then g is a tuple. Rules use operators
    and minigrad ops only, so that one text serves arrays, tensors and symbols. They never undo broadcasting:
    the engine does. A rule `d<argument>_into(total, g, …)` beside `d<argument>` adds the same gradient into an
    array that exists.

    np        NumPy's function or functions that this op answers for when they are called with a Tensor
    infix     the operator it gives to Tensor, as "+"
    method    whether Tensor gets it as a method
    analytic  False where the complex step does not see the derivative
    shapes    the sentence that tells which shapes go together
    around    makes the public function from the op's call, where NumPy's way of calling it needs another signature

    Traits, which `Op` explains:
    elementwise, linear  True where they hold; an elementwise op whose np= is no more than a name for NumPy's ufunc, as
                         its own forward does something else, states `elementwise`
    view                 True, or a function of the metadata
    text                 a template such as "{x}[{index}]", or a function of the metadata that returns one
    buffered             statements such as "np.add.reduce({x}, axis={axis}, out={y})", separated by semicolons

    Raises TypeError or ValueError at once, with a sentence that names the op, when a declaration does not hold.
    Complex numbers: the derivative is the holomorphic one, without conjugation.
    """
    if forward is None:
        return lambda f: op(f, np=np, infix=infix, method=method, analytic=analytic, shapes=shapes, around=around,
                            elementwise=elementwise, linear=linear, view=view, text=text, buffered=buffered, **rules)
    self = describe_op(forward, rules)
    self.analytic, self.infix = analytic, infix
    self.numpy = np if isinstance(np, tuple) else (np,)
    self.shapes = shapes or (BROADCAST if len(self.arrays) > 1 else "")
    self.ufunc = None if elementwise else ufunc_of(self.numpy)
    self.elementwise = elementwise or self.ufunc is not None
    self.linear, self.view, self.text, self.buffered = linear, view, text, buffered
    if linear and any(reads for *_, reads in self.pulls):
        raise TypeError(f"op {self.name}: the rule of a linear op reads no input and no result; this one does")
    call = named(callable_for(self), self)
    call.__signature__ = inspect.signature(forward)
    if around is not None:
        call = named(around(call), self)
    OPS[self.name] = self
    install(call, self.numpy, infix, method)
    return call


def ufunc_of(functions: tuple) -> Any:
    """NumPy's ufunc that computes one entry from one entry of each input, if the first function is one."""
    first = functions[0] if functions else None
    elementwise = isinstance(first, numpy.ufunc) and first.signature is None
    return first if elementwise and getattr(numpy, first.__name__, None) is first else None


def named(call: Callable, self: Op) -> Callable:
    call.op, forward = self, self.forward
    call.__name__, call.__qualname__, call.__doc__ = forward.__name__, forward.__qualname__, forward.__doc__
    call.__module__ = forward.__module__
    return call


def composite(*, np: Any = (), method: bool = False) -> Callable:
    """Declare a function that is made of ops and so needs no rule: it too gets NumPy's name and a method."""
    def declare(function):
        install(function, np if isinstance(np, tuple) else (np,), None, method)
        return function
    return declare


def describe_op(forward: Callable, rules: dict[str, Callable]) -> Op:
    """Read an op off its declaration, and check the contract."""
    self = Op()
    self.name = name = forward.__name__
    self.forward, self.fresh = forward, False
    if name in OPS and OPS[name].forward.__module__.startswith("minigrad.") \
            and not forward.__module__.startswith("minigrad."):
        raise ValueError(f"op {name}: minigrad has an op of this name; choose another")
    parameters = list(inspect.signature(forward).parameters.values())
    self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    self.arrays = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    self.defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD or (p.kind is not p.KEYWORD_ONLY and p.default is not REQUIRED)
           for p in parameters) or (self.variadic and len(self.arrays) > 1):
        raise TypeError(f"op {name}: arrays are positional without defaults (or one *arrays), metadata keyword-only")
    self.rules, self.into, self.pulls = {}, {}, []
    for key, rule in rules.items():
        argument, into = key[1:].removesuffix("_into"), key.endswith("_into")
        if key[0] != "d" or argument not in self.arrays:
            raise TypeError(f"op {name}: {key} is the rule of no array argument; they are {', '.join(self.arrays)}")
        pull, pull_arrays, reads = bind(self, key, rule, ("total",) if into else ())
        rule.__name__ = rule.__qualname__ = f"{name}.{key}"
        if into:
            self.into[self.arrays.index(argument)] = pull_arrays
        else:
            self.rules[argument] = rule
            self.pulls.append((self.arrays.index(argument), pull, pull_arrays, reads))
    return self


def bind(self: Op, key: str, rule: Callable, extra: tuple[str, ...]) -> tuple[Callable, Callable, tuple[int, ...]]:
    """Resolve the names of a rule once, into two positional calls, and say which inputs it reads (-1: y)."""
    if not inspect.isfunction(rule):
        raise TypeError(f"op {self.name}: the rule {key} must be a function or lambda, not {rule!r}")
    if not extra and not is_pure(rule):
        raise TypeError(f"op {self.name}: the rule {key} must be pure: no closure and no bare numpy, "
                        "only operators, minigrad ops and its own arguments")
    where = {"g": "g", "y": "y", **{name: name for name in extra}, **{name: f"m[{name!r}]" for name in self.defaults}}
    if self.variadic:
        where |= {f"{self.arrays[0]}_shape": "[shape(a) for a in x]"}
        inputs, arrays = {self.arrays[0]: "x"}, {self.arrays[0]: "[data(a) for a in x]"}
    else:
        where |= {f"{name}_shape": f"shape(x[{i}])" for i, name in enumerate(self.arrays)}
        inputs = {name: f"x[{i}]" for i, name in enumerate(self.arrays)}
        arrays = {name: f"({x}._array if isinstance({x}, Tensor) else {x})" for name, x in inputs.items()}
    names = list(inspect.signature(rule).parameters)
    unknown = [name for name in names if name not in where and name not in inputs]
    if unknown:
        raise TypeError(f"op {self.name}: the rule {key} asks for {unknown[0]!r}; "
                        f"there are {', '.join([*where, *inputs])}")
    head = f"lambda {''.join(name + ', ' for name in extra)}g, y, x, m: "
    known = {"rule": rule, "Tensor": Tensor, "shape": lambda a: getattr(a, "shape", ()),
             "data": lambda a: a._array if isinstance(a, Tensor) else a}
    pull, pull_arrays = (eval(f"{head}rule({', '.join((where | values)[name] for name in names)})", known)
                         for values in (inputs, arrays))
    reads = tuple(-1 if name == "y" else self.arrays.index(name) for name in names
                  if name == "y" or name in self.arrays)
    return pull, pull_arrays, reads


def is_pure(rule: Callable) -> bool:
    """Whether a rule captures nothing and does not name numpy, in nested functions and comprehensions neither."""
    codes = [rule.__code__]
    for code in codes:
        codes += [c for c in code.co_consts if inspect.iscode(c)]
    return not rule.__closure__ and not any({"np", "numpy"} & set(code.co_names) for code in codes)


def callable_for(self: Op) -> Callable:
    """The public function of an op. The two common kinds, where every input has a rule, have a short way."""
    forward = self.forward
    if self.defaults or self.variadic or len(self.pulls) < len(self.arrays) or len(self.arrays) > 2:
        ready = self.defaults if REQUIRED not in self.defaults.values() and not self.variadic else None

        def call(*args, **metadata):
            if ready is not None and not metadata and len(args) == len(self.arrays):
                inputs, metadata = tuple([x if isinstance(x, Tensor) else plain(x) for x in args]), ready
            else:
                inputs, metadata = arguments(self, args, metadata)
            for x in inputs:
                if isinstance(x, Tensor):
                    arrays = [x._array if isinstance(x, Tensor) else x for x in inputs]
                    return apply(self, inputs, arrays, metadata, tracks(self, inputs))
            return run(self, inputs, metadata)
    elif len(self.arrays) == 1:
        def call(x):
            if isinstance(x, Tensor):
                return apply(self, (x,), (x._array,), NO_METADATA, x._tracked)
            return forward(plain(x))
    else:
        def call(a, b):
            if isinstance(a, Tensor):
                if isinstance(b, Tensor):
                    return apply(self, (a, b), (a._array, b._array), NO_METADATA, a._tracked or b._tracked)
                b = plain(b)
                return apply(self, (a, b), (a._array, b), NO_METADATA, a._tracked)
            a = plain(a)
            if isinstance(b, Tensor):
                return apply(self, (a, b), (a, b._array), NO_METADATA, b._tracked)
            return run(self, (a, plain(b)), NO_METADATA)
    return call


NO_METADATA: dict = {}


def arguments(self: Op, args: tuple, metadata: dict) -> tuple[tuple, dict]:
    """A call as it was written → its array inputs, and all of its metadata by name."""
    n = len(self.arrays)
    if not metadata and not self.variadic and len(args) == n + len(self.defaults):  # the quick way, all in their places
        metadata = dict(zip(self.defaults, args[n:]))
        return tuple([x if isinstance(x, Tensor) else plain(x) for x in args[:n]]), metadata
    names = [*self.arrays, *self.defaults]
    if self.variadic:  # as NumPy writes it: a sequence (or an array of rows) first, metadata after it
        sequence = args and (isinstance(args[0], (list, tuple)) or (len(args) == 1 and numpy.ndim(args[0])))
        args, rest = (tuple(args[0]), args[1:]) if sequence else (args, ())
    else:
        args, rest = args[:len(self.arrays)], args[len(self.arrays):]
        while len(args) < len(self.arrays):
            if self.arrays[len(args)] not in metadata:
                raise TypeError(f"{self.name} takes {', '.join(names)}; {self.arrays[len(args)]!r} is missing")
            args += (metadata.pop(self.arrays[len(args)]),)
    if rest or metadata:
        if len(rest) > len(self.defaults):
            raise TypeError(f"{self.name} takes {', '.join(names)}; {len(args) + len(rest)} values were given")
        if rest and metadata and (twice := [key for key, _ in zip(self.defaults, rest) if key in metadata]):
            raise TypeError(f"{self.name} takes {', '.join(names)}; {twice[0]!r} is given twice")
        metadata = {**self.defaults, **dict(zip(self.defaults, rest)), **metadata}
        if len(metadata) > len(self.defaults):
            raise TypeError(f"{self.name} takes {', '.join(names)}; there is no "
                            f"{', '.join(repr(key) for key in metadata if key not in self.defaults)}")
    else:
        metadata = self.defaults
    if any([value is REQUIRED for value in metadata.values()]):  # not `in`, which compares: a value may be an array
        missing = [key for key, value in metadata.items() if value is REQUIRED]
        raise TypeError(f"{self.name} takes {', '.join(names)}; {missing[0]!r} is missing")
    return tuple([x if isinstance(x, Tensor) else plain(x) for x in args]), metadata


def plain(x: Any) -> Any:
    """An input that is not a Tensor: Python numbers stay (they do not widen float32), lists become arrays."""
    kind = x.__class__
    if kind is float or kind is int or (kind is ndarray and x.dtype in NUMBERS):
        return x
    return entering(x)


NUMBERS = frozenset(map(numpy.dtype, "?bhilqBHILQefdgFDG"))  # in native byte order


def entering(x: Any) -> Any:
    """What is not plain yet, in native byte order. Raises TypeError for objects, text, records, and as `bare` does."""
    if isinstance(x, (numpy.number, numpy.bool_, complex, int)):
        return x
    return (out := bare(x)).astype(native(out.dtype), copy=False)


def bare(x: Any) -> ndarray:
    """x as an ndarray. Raises TypeError for kinds of arrays that mean more than their numbers, also within lists."""
    waiting = [] if x.__class__ is ndarray else [x]
    while waiting:
        part = waiting.pop()
        if isinstance(part, numpy.ma.MaskedArray):
            raise TypeError("a masked array would lose its mask: pass its numbers as x.filled(0), and the mask by "
                            "itself, as to mg.where")
        if isinstance(part, ndarray) and type(part) not in (ndarray, numpy.memmap, numpy.recarray):
            raise TypeError(f"a {type(part).__name__} may mean more than its numbers: if they are all that counts, "
                            "pass np.asarray(x)")
        waiting += part if isinstance(part, (list, tuple)) and {type(i) for i in part} - {float, int, bool} else ()
    return asarray(x)


def native(dtype: Any) -> numpy.dtype | None:
    """A number type in native byte order; None for None. Raises TypeError for others."""
    if dtype is None:
        return None
    dtype = numpy.dtype(dtype)
    if dtype.kind not in "fciub":
        raise TypeError(f"a tensor holds numbers, not {dtype}: pass an array of one number type")
    return numpy.dtype(dtype.char)  # not .newbyteorder("="): NumPy's own object for it, which `is` finds


def tracks(self: Op, inputs: tuple) -> bool:
    """Whether a gradient is wanted by an input that the op has a rule for."""
    if self.variadic:
        return bool(self.pulls) and any([isinstance(x, Tensor) and x._tracked for x in inputs])
    return any([isinstance(inputs[pull[0]], Tensor) and inputs[pull[0]]._tracked for pull in self.pulls])


def run(self: Op, arrays: tuple, metadata: dict) -> Any:
    """The forward on arrays, with errors in our words."""
    try:
        return self.forward(*arrays, **metadata)
    except (ValueError, TypeError, IndexError) as problem:
        raise self.error(problem, arrays, metadata) from problem


def apply(self: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
    """Run an op with a Tensor among its inputs, and record it on the result if a gradient can flow through it."""
    watching = watcher.get()
    if watching is not None:
        return watching(self, inputs, arrays, metadata, tracked)
    try:
        y = self.forward(*arrays, **metadata) if metadata else self.forward(*arrays)
    except (ValueError, TypeError, IndexError) as problem:
        raise self.error(problem, arrays, metadata) from problem
    if y.__class__ is tuple:
        whole = record(self, inputs, metadata, y, tracked)
        return tuple([record(PART, (whole,), {"i": i}, asarray(value), whole._tracked) for i, value in enumerate(y)])
    if not self.analytic and tracked:
        if any(numpy.iscomplexobj(a) for a in arrays):
            raise TypeError(f"{self.name} has no complex derivative: differentiate it at real values")
        tracked = asarray(y).dtype.kind in "fc"  # a cast to integers ends the gradient
    out = new(Tensor)  # as record does, without the call: this is the hot path
    out._array = y if y.__class__ is ndarray else asarray(y)
    out._watch = out._grad = out.name = None
    out._index = next_index()
    out._version = 0
    if tracked and recording.get():
        out._tracked = True
        out._op, out._inputs, out._metadata = self, inputs, metadata
    else:
        out._tracked = False
        out._op = out._inputs = out._metadata = None
    return out


def record(self: Op, inputs: tuple, metadata: dict, y: Any, tracked: bool) -> Tensor:
    """The result y as a Tensor, which remembers how it was made when it is tracked and recording is on."""
    out = new(Tensor)
    out._array = y
    out._watch = out._grad = out.name = None
    out._index = next_index()
    out._version = 0
    if tracked and recording.get():
        out._tracked = True
        out._op, out._inputs, out._metadata = self, inputs, metadata
    else:
        out._tracked = False
        out._op = out._inputs = out._metadata = None
    return out


def primitive(name: str) -> Op:
    """An op of the engine's own, which no user calls and the sweep knows how to treat."""
    self = Op()
    self.name, self.arrays, self.defaults, self.rules, self.into, self.pulls = name, ("whole",), {}, {}, {}, []
    self.analytic, self.fresh, self.variadic, self.infix, self.numpy, self.shapes = True, False, False, None, (), ""
    self.elementwise = self.linear = self.view = False
    self.forward = self.ufunc = self.text = self.buffered = None
    return self


# Several results: the record stands on a tensor whose data is the tuple, and each result is a part of it.
PART = primitive("part")
RELEASED = primitive("released")  # the op of a result whose backward has been done


# -- how an op comes to the operators and to NumPy's functions -----------------------------------------

UNARY = {"-": "neg", "+": "pos", "~": "invert"}
DUNDER = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "@": "matmul", "**": "pow",
          ">": "gt", ">=": "ge", "<": "lt", "<=": "le", "==": "eq", "!=": "ne", "&": "and", "|": "or"}
COMPARISON = {">", ">=", "<", "<=", "==", "!="}  # Python reflects these itself


def install(call: Callable, functions: tuple, infix: str | None, method: bool) -> None:
    for function in functions:
        NUMPY[function] = call
    if method:
        setattr(Tensor, call.__name__, call)
    if infix is None:
        return
    if len(call.op.arrays) == 1:
        setattr(Tensor, f"__{UNARY[infix]}__", call)
        return
    setattr(Tensor, f"__{DUNDER[infix]}__", call)
    if infix not in COMPARISON:
        setattr(Tensor, f"__r{DUNDER[infix]}__", lambda b, a: call(a, b))
        setattr(Tensor, f"__i{DUNDER[infix]}__", lambda a, b: in_place(call, a, b))


def in_place(call: Callable, a: Tensor, b: Any) -> Tensor:
    """`a += b`. A leaf that requires gradients changes in place, under no_grad only (that is an optimiser's step);
    everything else is a new tensor, so that no value saved for a backward can change."""
    if not (a._tracked and a._op is None):
        return call(a, b)
    if recording.get():
        raise RuntimeError(f"{describe(a)} is a leaf that requires gradients and cannot be changed where they are "
                           "recorded: update it inside `with mg.no_grad():`, or write a = a + b for a new tensor")
    value = call(a._array, b._array if isinstance(b, Tensor) else b)
    if value.shape != a._array.shape:
        raise ValueError(f"{describe(a)} keeps its shape when it changes in place, and the result has {value.shape}: "
                         "write a = a + b for a new tensor")
    a._array[...] = value
    a.data = a._array
    return a
