"""One table of calls: a row or more for every op of minigrad, and for every function that is made of ops.

A row is written as the call itself, with makers in place of arrays:

    case("sum", normal(2, 3, 4), axis=(0, 2))

and stands for `mg.sum(x, axis=(0, 2))` as well as for `np.sum(x, axis=(0, 2))`, because minigrad keeps NumPy's
names and arguments. What NumPy lacks (sigmoid, softmax, …) is written out plainly in `Reference`. Whoever wants to
know whether something holds for every op goes through CASES:

    inputs = case.inputs()             # the arrays, in the order of the call; float64, always the same
    case.ours(*inputs)                 # by minigrad, on arrays, tensors or symbols
    case.numpys(*inputs)               # by NumPy

All that a single op does not share with the others stands in the sets below the makers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine.operators import NUMPY

# -- makers: the inputs of a case, with their domain --------------------------------------------------


@dataclass(frozen=True)
class Maker:
    """An input of a given shape. draw(rng, shape) is an ordinary one, `extremes` are the ends of its domain."""

    draw: Callable
    shape: tuple[int, ...]
    extremes: tuple[float, ...]

    def make(self, rng, dtype, extreme):
        x = np.asarray(self.draw(rng, self.shape))
        if extreme:
            places = rng.permutation(x.size)[:len(self.extremes)]
            x.flat[places] = self.extremes[:len(places)]
        if x.dtype.kind != "f":
            return x
        if np.dtype(dtype).kind in "iub":
            x = rng.integers(1, 5, self.shape)
        if np.dtype(dtype).kind == "c" and not extreme:
            x = x + 1j * rng.uniform(-0.5, 0.5, self.shape)
        return np.asarray(x, dtype)


def normal(*shape):
    """Any real number."""
    return Maker(lambda rng, shape: rng.standard_normal(shape), shape, (800.0, -800.0, 1.0, -1.0, 0.0))


def nonzero(*shape):
    """Of either sign and not near 0: for divisors, and where 0 is a kink."""
    return Maker(lambda rng, shape: rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 2.0, shape), shape,
                 (800.0, -800.0, 1.0, -1.0, 0.5))


def positive(*shape):
    return Maker(lambda rng, shape: rng.uniform(0.5, 2.0, shape), shape, (800.0, 1.0, 1 / 800.0))


def booleans(*shape):
    return Maker(lambda rng, shape: rng.integers(0, 2, shape).astype(bool), shape, (True, False))


def classes(n, *shape):
    """Integers from 0 to n − 1."""
    return Maker(lambda rng, shape: rng.integers(0, n, shape), shape, ())


def with_zeros(*shape):
    """A matrix with zeros below its diagonal: two in the first column, one in the next. Nothing may divide by them."""
    return Maker(lambda rng, shape: np.triu(rng.standard_normal(shape)), shape, (0.0,))


# -- what sets single ops apart ------------------------------------------------------------------------

PREDICATES = {"equal", "greater", "greater_equal", "less", "less_equal", "not_equal",
              "logical_and", "logical_not", "logical_or", "bitwise_and", "bitwise_or", "invert"}
WITHOUT_GRADIENT = {"sign", "floor", "ceil", "trunc", "round", "floor_divide", *PREDICATES}
REAL_ONLY = {"remainder"}                       # NumPy has no complex ones
NOT_ANALYTIC = {"abs", "sign", "astype", *REAL_ONLY}  # the derivative exists for real numbers only; see Case.analytic
BEYOND_FLOATS = {"exp", "expm1", "power"}       # at 800 the value itself is


class Reference:
    """NumPy, and in NumPy's words what NumPy lacks: as plain as possible, with no care for overflow."""

    def __getattr__(self, name):
        return getattr(np, name)

    def sigmoid(self, x):
        return 1 / (1 + np.exp(-x))

    def softplus(self, x):
        return np.logaddexp(0, x) if np.isrealobj(x) else np.log(1 + np.exp(x))

    def relu(self, x):
        return np.maximum(x, 0)

    def logsumexp(self, x, axis=None, keepdims=False):
        return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))

    def softmax(self, x, axis=-1):
        return np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)

    def log_softmax(self, x, axis=-1):
        return np.log(self.softmax(x, axis))

    def softplus_slope(self, x):
        return self.sigmoid(x)

    def log_sigmoid(self, x):
        return np.log(self.sigmoid(x))

    def leaky_relu(self, x, negative_slope=0.01):
        return np.where(x > 0, x, negative_slope * x)

    def elu(self, x, alpha=1.0):
        return np.where(x > 0, x, alpha * (np.exp(x) - 1))

    def logaddexp(self, a, b):
        real = np.isrealobj(a) and np.isrealobj(b)
        return np.logaddexp(a, b) if real else np.log(np.exp(a) + np.exp(b))

    def root(self, x):
        return np.sqrt(x)

    def norm(self, x, *how, **more):  # np.linalg.norm of complex numbers takes absolute values: see var
        if np.isrealobj(x) or more.get("ord") not in (None, 2, "fro"):
            return np.linalg.norm(x, *how, **more)
        return np.sqrt(np.sum(x ** 2, **{key: value for key, value in more.items() if key != "ord"}))

    def var(self, x, *places, **how):  # np.var of complex numbers takes absolute values, without a complex derivative
        how = {**dict(zip(("axis", "dtype", "out", "ddof", "keepdims"), places)), **how}
        return np.var(x, **how) if np.isrealobj(x) else np.var(x.real, **how) - np.var(x.imag, **how) + 2j * (
            np.var(x.real + x.imag, **how) - np.var(x.real, **how) - np.var(x.imag, **how)) / 2

    def std(self, x, *places, **how):
        return np.sqrt(self.var(x, *places, **how))

    def astype(self, x, dtype):
        return x.astype(dtype)

    def getitem(self, x, index):
        return x[index]

    def scatter(self, x, shape, index):
        y = np.zeros(shape, x.dtype)
        np.add.at(y, index, x)
        return y

    def index_select(self, x, index, axis):
        return np.take(x, index, axis)

    def index_add(self, x, index, length, axis):
        y = np.zeros((*x.shape[:axis], length, *x.shape[axis + np.ndim(index):]), x.dtype)
        np.add.at(y, (*[slice(None)] * axis, index), x)
        return y

    def cross_entropy(self, logits, targets, mask=None):
        p = np.take_along_axis(self.softmax(logits), targets[..., None], -1)[..., 0]
        return np.mean(-np.log(p if mask is None else p[mask]))

    def cross_entropy_slope(self, scale, logits, targets, mask=None):
        mask = np.ones(targets.shape, bool) if mask is None else mask
        one_hot = np.arange(logits.shape[-1]) == targets[..., None]
        return scale / int(mask.sum()) * (self.softmax(logits) - one_hot) * mask[..., None]

    def sum_to(self, x, shape):
        added = x.ndim - len(shape)
        axes = [a for a in range(x.ndim) if a < added or shape[a - added] == 1]
        return np.sum(x, axis=tuple(axes), keepdims=True).reshape(shape)


REFERENCE = Reference()


# -- rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One call. `arguments` holds makers, or lists of makers, where arrays go, and everything else as it is."""

    name: str
    arguments: tuple
    metadata: dict

    @property
    def makers(self) -> list[Maker]:
        flat = [part for a in self.arguments for part in (a if isinstance(a, list) else [a])]
        return [part for part in flat if isinstance(part, Maker)]

    def inputs(self, dtype: Any = np.float64, extreme: bool = False) -> list[np.ndarray]:
        """The arrays of the call. Numbers are of this dtype, booleans stay. extreme: with the ends of the domain among
        them, ±800 where every number is allowed."""
        rng = np.random.default_rng(7)
        return [maker.make(rng, dtype, extreme) for maker in self.makers]

    def call(self, module: Any, *inputs: Any) -> Any:
        remaining = iter(inputs)

        def filled(a):
            if isinstance(a, list):
                return [filled(part) for part in a]
            return next(remaining) if isinstance(a, Maker) else a

        return getattr(module, self.name)(*[filled(a) for a in self.arguments], **self.metadata)

    def ours(self, *inputs: Any) -> Any:
        places = mg, mg.nn.losses, mg.ops.special, mg.ops.reduce
        return self.call(next(place for place in places if hasattr(place, self.name)), *inputs)

    def numpys(self, *inputs: Any) -> Any:
        return self.call(REFERENCE, *inputs)

    @property
    def in_numpy(self) -> bool:
        """Whether NumPy has a function of this name that a Tensor answers."""
        return self.name not in vars(Reference) and getattr(np, self.name, None) in NUMPY

    @property
    def differentiable(self) -> bool:
        return self.name not in WITHOUT_GRADIENT and any(m.draw is not booleans().draw for m in self.makers)

    @property
    def analytic(self) -> bool:
        """Whether the derivative exists for complex numbers: not of a norm that sums absolute values."""
        return self.name not in NOT_ANALYTIC and self.metadata.get("ord") in (None, 2, "fro")

    def __str__(self) -> str:
        given = [shown(a) for a in self.arguments] + [f"{key}={shown(value)}" for key, value in self.metadata.items()]
        return f"{self.name}({', '.join(given)})"


def shown(a: Any) -> str:
    """An argument as one would write it: a shape for a maker, 1:3 for a slice."""
    if isinstance(a, Maker):
        return f"({','.join(map(str, a.shape))})"
    if isinstance(a, list):
        return f"[{' '.join(map(shown, a))}]"
    if isinstance(a, tuple):
        return f"({' '.join(map(shown, a))})"
    if isinstance(a, slice):
        return ":".join("" if n is None else str(n) for n in (a.start, a.stop, a.step)).removesuffix(":")
    if isinstance(a, np.ndarray):
        return f"array{a.tolist()}".replace(", ", " ")
    return "..." if a is Ellipsis else a.__name__ if isinstance(a, type) else str(a)


def case(name, *arguments, **metadata):
    return Case(name, arguments, metadata)


def unary(name, maker=normal):
    """A function of one variable: a matrix, a single number, and nothing at all."""
    return [case(name, maker(*shape)) for shape in ((3, 4), (), (0, 3))]


def binary(name, a=normal, b=normal):
    """A function of two variables, with all ways of broadcasting, and with Python numbers."""
    shapes = [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((), (2,)), ((2,), ()), ((), ()), ((0, 3), (3,)),
              ((0, 3), (1, 1))]
    return [*[case(name, a(*left), b(*right)) for left, right in shapes],
            case(name, a(3), 2), case(name, a(3), 0.5), case(name, 2, b(3)), case(name, 0.5, b())]


s_ = np.s_  # s_[1:3, ::-1] is an index
SOME = np.array([[True, False, True], [False, True, True]])

CASES = [
    # elementwise
    *binary("add"), *binary("subtract"), *binary("multiply"), *binary("divide", normal, nonzero),
    *binary("power", positive, normal),
    case("power", positive(3, 4), with_zeros(3, 4)), *[case("power", nonzero(3, 4), n) for n in (0, 1, 2, 3, -1, -2)],
    *binary("remainder", normal, nonzero)[:8], case("remainder", normal(3), 2.0), case("remainder", 2.0, nonzero(3)),
    *binary("floor_divide", normal, nonzero), *binary("logaddexp"),
    *unary("positive"), *unary("negative"), *unary("exp"), *unary("expm1"), *unary("log", positive),
    *unary("log2", positive), *unary("log10", positive), *unary("log1p", positive), *unary("root", positive),
    *unary("floor"), *unary("ceil"), *unary("trunc"), *unary("round"), case("round", normal(3, 4), 1),
    *unary("sqrt", positive), *unary("square"), *unary("abs", nonzero), *unary("sign", nonzero), *unary("sin"),
    *unary("cos"), *unary("tanh"), *unary("sigmoid"), *unary("softplus"), *unary("relu", nonzero),
    *unary("softplus_slope"), *unary("log_sigmoid"), *unary("leaky_relu", nonzero), *unary("elu", nonzero),
    case("leaky_relu", nonzero(3, 4), 0.2), case("elu", nonzero(3, 4), alpha=2.0),
    *binary("maximum"), *binary("minimum"),
    *[case("where", booleans(*c), normal(*a), normal(*b)) for c, a, b in
      (((3, 4), (3, 4), (3, 4)), ((3, 1), (4,), ()), ((), (3,), (2, 1)), ((0, 3), (3,), (1,)), ((4,), (3, 1), (1, 4)))],
    case("where", booleans(3), normal(3), 0.0), case("where", booleans(3), 1, normal(3)),
    case("where", booleans(2, 1), 0.0, normal()),
    case("clip", normal(3, 4), -0.5, 0.5), case("clip", normal(3, 4), None, 0.5), case("clip", normal(), -0.5, None),
    case("clip", normal(0, 3), 0, 1), case("clip", normal(3, 4), normal(4), 2.0),
    *[row for name in ("equal", "greater", "greater_equal", "less", "less_equal", "not_equal") for row in binary(name)],
    *binary("logical_and", booleans, booleans)[:8], *binary("logical_or", booleans, booleans)[:8],
    *unary("logical_not", booleans), *binary("bitwise_and", booleans, booleans)[:8],
    *binary("bitwise_or", booleans, booleans)[:8], *unary("invert", booleans),
    *unary("copy"), case("astype", normal(3, 4), dtype=np.float64), case("astype", normal(), np.float64),
    case("astype", normal(0, 3), dtype=np.float64),

    # shape
    case("reshape", normal(2, 6), (3, 4)), case("reshape", normal(2, 6), (-1,)), case("reshape", normal(2, 6), 12),
    case("reshape", normal(), (1, 1)), case("reshape", normal(1), ()), case("reshape", normal(0, 3), (3, 2, 0)),
    case("transpose", normal(2, 3)), case("transpose", normal(2, 3, 4)), case("transpose", normal(2, 3, 4), (2, 0, 1)),
    case("transpose", normal(2, 3, 4), (-1, 0, -2)), case("transpose", normal()), case("transpose", normal(0, 3)),
    case("transpose", normal(3), 0), case("transpose", normal(2, 3), [-1, 0]), case("transpose", normal(), ()),
    case("reshape", normal(2, 6), (3, 4), order="F"), case("reshape", normal(2, 6), -1, order="F"),
    case("swapaxes", normal(2, 3, 4), 0, -1), case("swapaxes", normal(0, 3), 0, 1),
    case("moveaxis", normal(2, 3, 4), 0, -1), case("moveaxis", normal(2, 3, 4, 5), (0, -1), (2, 0)),
    case("moveaxis", normal(0, 3), 1, 0),
    case("expand_dims", normal(2, 3), 0), case("expand_dims", normal(2, 3), -1), case("expand_dims", normal(), (0, 1)),
    case("expand_dims", normal(2, 3), (0, -1)), case("expand_dims", normal(0, 3), 1),
    case("squeeze", normal(1, 3, 1)), case("squeeze", normal(1, 3, 1), -1), case("squeeze", normal(1, 1), axis=(0, 1)),
    case("squeeze", normal()), case("squeeze", normal(0, 1)), case("squeeze", normal(), 0),
    case("squeeze", normal(), -1),
    case("ravel", normal(2, 3)), case("ravel", normal(2, 3), "F"), case("ravel", normal()), case("ravel", normal(0, 3)),
    case("broadcast_to", normal(3, 1), (2, 3, 4)), case("broadcast_to", normal(), (2, 3)),
    case("broadcast_to", normal(1, 3), (0, 3)), case("broadcast_to", normal(2, 3), (2, 3)),
    case("broadcast_to", normal(0, 3), (2, 0, 3)),
    case("sum_to", normal(2, 3, 4), (3, 1)), case("sum_to", normal(2, 3), ()), case("sum_to", normal(2, 3), (2, 3)),
    case("sum_to", normal(), ()), case("sum_to", normal(0, 3), (1, 3)), case("sum_to", normal(2, 1), (1, 1)),
    case("concatenate", [normal(2, 3), normal(1, 3)]), case("concatenate", [normal(2, 1), normal(2, 3)], axis=-1),
    case("concatenate", [normal(2, 3), normal(), normal(2)], axis=None), case("concatenate", [normal(3)]),
    case("concatenate", [normal(0, 3), normal(2, 3), normal(0, 3)], 0), case("concatenate", [normal(0), normal(0)]),
    case("split", normal(6, 2), 3), case("split", normal(2, 7), (2, 3), axis=-1), case("split", normal(4), [1, 1, 9]),
    case("split", normal(0, 4), 2, 1), case("split", normal(5), (-2,)), case("split", normal(5), ()),
    case("stack", [normal(2, 3), normal(2, 3)]), case("stack", [normal(2, 3), normal(2, 3)], axis=-1),
    case("stack", [normal(), normal(), normal()], 0), case("stack", [normal(0, 3)], axis=1),
    case("stack", [normal(2, 3), normal(2, 3)], axis=1),
    case("vstack", [normal(3), normal(2, 3)]), case("vstack", [normal(), normal()]), case("vstack", [normal(0, 3)]),
    case("hstack", [normal(3), normal(2)]), case("hstack", [normal(2, 3), normal(2, 1)]), case("hstack", [normal()]),
    case("dstack", [normal(3), normal(1, 3, 2)]), case("dstack", [normal(2, 3), normal(2, 3)]),
    case("column_stack", [normal(3), normal(3, 2)]), case("column_stack", [normal(), normal(1, 2)]),
    case("append", normal(2, 3), normal(2)), case("append", normal(2, 3), normal(1, 3), axis=0),
    case("append", normal(2, 3), normal(2, 1), -1), case("append", normal(3), normal()),
    *[case(name, normal(*shape)) for name in ("atleast_1d", "atleast_2d", "atleast_3d")
      for shape in ((), (3,), (2, 3), (2, 3, 4), (0,))],
    case("atleast_2d", normal(), normal(3), normal(1, 2)),

    # reduce
    *[case(name, normal(3, 4, 5), **how) for name in ("sum", "mean", "var", "std", "max", "min", "prod", "logsumexp")
      for how in ({}, {"axis": 1}, {"axis": (0, -1)}, {"axis": -1, "keepdims": True}, {"keepdims": True},
                  {"axis": ()} if name in ("sum", "max", "min", "logsumexp", "prod") else {"axis": 0})],
    *[case(name, normal(0, 3), axis=1) for name in ("sum", "mean", "var", "max", "min", "prod", "logsumexp")],
    *[case(name, normal()) for name in ("sum", "mean", "var", "max", "min", "prod", "logsumexp")],
    case("sum", normal(0, 3)), case("sum", normal(0, 3), axis=0, keepdims=True), case("prod", normal(0, 3), axis=0),
    case("sum", normal(2, 3), 0), case("max", normal(2, 3), -1), case("mean", normal(2, 3), -2),
    case("var", normal(4, 3), axis=0, ddof=1), case("std", normal(4, 3), ddof=1, keepdims=True),
    *[case(name, normal(), axis=axis) for axis in (0, -1)
      for name in ("sum", "max", "min", "prod", "logsumexp", "softmax", "log_softmax", "cumsum", "cumprod")],
    case("sum", normal(2, 3), 1, None, None, True), case("max", normal(2, 3), -1, None, True),
    case("var", normal(4, 3), 0, None, None, 1, True), case("std", normal(4, 3), -1, None, None, 1),
    case("mean", normal(2, 3), None, None, None, True),
    *[case("norm", normal(*shape), **how) for shape, how in (
        ((4,), {}), ((3, 4), {}), ((2, 3, 4), {}), ((2, 3, 4), {"axis": 1}), ((3, 4), {"axis": (1, 0)}),
        ((3, 4), {"axis": -1, "keepdims": True}), ((3, 4), {"ord": "fro", "keepdims": True}), ((0, 3), {"axis": 1}),
        ((4,), {"ord": 2}), ((2, 3, 4), {"ord": 2, "axis": -1}), ((2, 3, 4), {"axis": (0, 2)}))],
    *[case("norm", nonzero(*shape), **how) for shape, how in (
        ((4,), {"ord": 1}), ((3, 4), {"ord": 1, "axis": 0, "keepdims": True}), ((4,), {"ord": np.inf}),
        ((3, 4), {"ord": -np.inf, "axis": 1}), ((4,), {"ord": 3}), ((4,), {"ord": 1.5}), ((4,), {"ord": -1}),
        ((3, 4), {"ord": 1}), ((3, 4), {"ord": np.inf, "keepdims": True}), ((2, 3, 4), {"ord": -1, "axis": (2, 0)}))],
    case("prod", with_zeros(3, 4), axis=0), case("prod", normal(7, 2), axis=0), case("prod", normal(1, 2), 0),
    case("cumsum", normal(2, 3)), case("cumsum", normal(2, 3, 4), axis=1), case("cumsum", normal(2, 3), axis=-1),
    case("cumsum", normal()), case("cumsum", normal(0, 3), 0), case("cumsum", normal(2, 3), 0),
    case("cumprod", normal(2, 3)), case("cumprod", with_zeros(5, 4), axis=0), case("cumprod", normal(2, 3, 4), axis=1),
    case("cumprod", with_zeros(3, 4), axis=-1), case("cumprod", normal()), case("cumprod", normal(0, 3), 0),
    *[row for name in ("softmax", "log_softmax") for row in (
        case(name, normal(3, 4)), case(name, normal(3, 4), axis=0), case(name, normal(2, 3, 4), axis=(0, 2)),
        case(name, normal(3, 4), axis=None), case(name, normal(0, 3)), case(name, normal(5)),
        case(name, normal(3, 1)))],

    # indexing
    *[case("getitem", normal(4, 5), index=index) for index in (
        1, -1, s_[1:3], s_[::-1], s_[-1:0:-2, 1], s_[..., 0], s_[:, None, 2:], s_[None], s_[...], s_[()], s_[9:],
        np.array([0, 2, 0]), np.array([[1, 1], [3, -1]]), s_[np.array([0, 2, 0, 0]), np.array([1, 4, 1, -4])],
        s_[:, np.array([0, 0, 3])], s_[np.array([0, 0]), 1:3], s_[np.array([[0], [1]]), np.array([2, 2])],
        s_[1, np.array([4, 4])], np.arange(20).reshape(4, 5) % 3 == 0, np.array([True, False, True, True]),
        s_[:, np.arange(5) > 2], s_[np.array([True, False, True, False]), np.array([1, 1])], np.zeros(0, int),
        s_[np.array(2), None], np.zeros((4, 5), bool), s_[[0, 0, 1]], s_[[0, 0], [1, 1]])],
    *[case("getitem", normal(*shape), index=index) for shape, index in (
        ((), ()), ((), ...), ((), None), ((0, 3), s_[:, 1]), ((3,), s_[None, ::2]), ((5,), np.array([0, 0, 4, -5])),
        ((5,), s_[:0]), ((2, 3, 4), s_[1, ..., np.array([0, 0])]), ((2, 3, 4), s_[:, np.array([0, 2])]),
        ((2, 3, 4), s_[np.array([0, 0]), :, np.array([3, 3])]))],
    case("scatter", normal(2, 3), shape=(4, 3), index=s_[1:3]), case("scatter", normal(3), (5,), np.array([0, 0, -1])),
    case("scatter", normal(3, 2), shape=(5, 2), index=np.array([4, 0, 4])), case("scatter", normal(), (2, 2), (0, 1)),
    case("scatter", normal(0, 3), (2, 3), np.zeros(0, int)), case("scatter", normal(2), (3, 3), s_[[1, 1], [2, 2]]),
    case("scatter", normal(2), shape=(3,), index=np.array([True, False, True])),
    *[case("index_select", normal(*shape), index, axis=axis) for shape, index, axis in (
        ((4, 5), np.array([0, 3, 3]), 0), ((4, 5), np.array([[1, -1], [1, 4]]), 1), ((2, 3, 4), np.array([2, 2]), 1),
        ((3,), np.array(1), 0), ((3, 2), np.zeros(0, int), 0))],
    *[case("index_add", normal(*shape), index, length=4, axis=axis) for shape, index, axis in (
        ((3, 2), np.array([0, 3, 3]), 0), ((2, 3), np.array([1, 1, -1]), 1), ((2, 2, 3), np.array([[1, 0], [1, 1]]), 0),
        ((2,), np.array(3), 0), ((2, 0), np.zeros(0, int), 1))],
    case("take", normal(4, 5), np.array([0, 7, 7])), case("take", normal(4, 5), [[1, 1], [0, -1]], axis=1),
    case("take", normal(4, 5), 2, axis=-1), case("take", normal(4, 5), indices=[0, 0], axis=0),
    case("take", normal(), 0), case("take", normal(0, 3), [1, 1], 1), case("take", normal(), [0, 0], axis=0),
    case("take", normal(), 0, -1), case("take", normal(4, 5), [-9, 1, 7], 0, None, "wrap"),
    case("take", normal(4, 5), [-9, 1, 7], axis=1, mode="clip"),
    case("roll", normal(2, 3), 1), case("roll", normal(2, 3), -2, axis=1), case("roll", normal(2, 3), (1, 2), (0, 1)),
    case("roll", normal(2, 3), 7, -1), case("roll", normal(2, 3), 1, (0, 1)), case("roll", normal(0, 3), 1, 0),
    case("roll", normal(2, 3), (1, 2)), case("roll", normal(), 3),
    case("diff", normal(4)), case("diff", normal(4, 3), axis=0), case("diff", normal(2, 5), 2),
    case("diff", normal(3), 0),
    case("diff", normal(2, 3), 1, 0, normal(3, 3)), case("diff", normal(2, 3), 1, -1, normal(), normal()),
    case("diff", normal(1, 3), axis=0), case("diff", normal(2), 3),
    *[case(name, normal(*shape), *k) for name in ("tril", "triu")
      for shape, k in (((3, 4), ()), ((3, 4), (1,)), ((2, 3, 3), (-1,)), ((3,), ()), ((0, 3), ()))],
    case("flip", normal(2, 3)), case("flip", normal(2, 3), 0), case("flip", normal(2, 3, 2), axis=(0, -1)),
    case("flip", normal()), case("flip", normal(0, 3)),
    case("repeat", normal(2, 3), 2), case("repeat", normal(2, 3), 2, axis=0), case("repeat", normal(), 3),
    case("repeat", normal(), 3, axis=0), case("repeat", normal(), [2], -1),
    case("repeat", normal(2, 3), [1, 0, 2], axis=-1), case("repeat", normal(0, 3), 2, 1),
    case("repeat", normal(2, 3), 0, 1),
    case("tile", normal(2, 3), 2), case("tile", normal(2, 3), (2, 1)), case("tile", normal(3), (2, 2)),
    case("tile", normal(2, 3, 1), [2]), case("tile", normal(), 3), case("tile", normal(0, 3), (2, 2)),
    case("tile", normal(3), 0), case("tile", normal(2, 3), ()),
    case("tile", normal(3), np.array([2, 1])),
    case("pad", normal(2, 3), 1), case("pad", normal(2, 3), (1, 2)), case("pad", normal(2, 3), ((0, 1), (2, 0))),
    case("pad", normal(2, 3), ((1,), (2,))), case("pad", normal(3), 2, constant_values=2), case("pad", normal(), 0),
    *[case("pad", normal(2, 3), ((1, 0), (2, 4)), mode=mode)
      for mode in ("constant", "edge", "reflect", "symmetric", "wrap")],
    case("pad", normal(0, 3), 1), case("pad", normal(0, 3), ((0, 0), (2, 1)), "edge"),

    # losses
    case("cross_entropy", normal(5), classes(5)), case("cross_entropy", normal(5), classes(5), np.array(True)),
    *[case("cross_entropy", normal(2, 3, 5), classes(5, 2, 3), mask=mask) for mask in (None, SOME)],
    *[case("cross_entropy_slope", normal(), normal(2, 3, 5), classes(5, 2, 3), mask=mask) for mask in (None, SOME)],
    case("cross_entropy_slope", normal(), normal(5), classes(5)),

    # linalg
    *[case("matmul", normal(*a), normal(*b)) for a, b in (
        ((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
        ((2, 1, 2, 3), (4, 3, 2)), ((2, 2, 3), (3,)), ((3,), (2, 3, 4)), ((1, 2, 3), (4, 3, 1)), ((0, 3), (3, 2)),
        ((2, 0), (0, 3)), ((0, 2, 3), (3, 2)), ((3, 2, 2, 3), (3, 4)), ((1, 1), (1, 1)))],
    *[case("dot", normal(*a), normal(*b)) for a, b in (
        ((2, 3), (3, 4)), ((3,), (3,)), ((2, 3), (3,)), ((), (2, 3)), ((2,), ()), ((2, 3, 4), (4,)),
        ((2, 3, 4), (4, 2)), ((2, 4), (3, 4, 2)), ((4,), (3, 4, 2)), ((0, 3), (3, 2)))],
    case("outer", normal(2), normal(3)), case("outer", normal(2, 2), normal()), case("outer", normal(0), normal(3)),
    *[case("tensordot", normal(*a), normal(*b), axes) for a, b, axes in (
        ((2, 3, 4), (3, 4, 5), 2), ((2, 3), (4, 5), 0), ((2, 3, 4), (4, 2), ((0, 2), (1, 0))), ((2, 3), (2, 3), 2),
        ((2, 3), (3,), 1), ((2, 3), (4, 2), (0, -1)), ((0, 3), (3, 2), 1), ((2, 0), (0, 3), 1), ((), (2,), 0))],
    case("tensordot", normal(2, 3, 4), normal(3, 4)),
    case("einsum", normal(2, 3), [0, 1], normal(3, 4), [1, 2], [2, 0]), case("einsum", normal(3, 3), [4, 4]),
    case("einsum", normal(2, 3, 4), [..., 0], normal(4), [0], [...]),
    case("einsum", "ij,jk,kl->il", normal(2, 3), normal(3, 4), normal(4, 2), optimize=True),
    case("einsum", "ij,jk->ik", normal(2, 3), normal(3, 4), optimize="greedy"),
    *[case("einsum", subscripts, *[normal(*shape) for shape in shapes]) for subscripts, *shapes in (
        ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ij->ji", (2, 3)), ("ij", (2, 3)), ("ba", (2, 3)),
        ("ij->", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("iij->j", (2, 2, 3)), ("iji->j", (2, 3, 2)),
        ("jii->ij", (3, 2, 2)), ("iii->i", (3, 3, 3)), ("i,i", (3,), (3,)), ("i,j->ij", (2,), (3,)),
        ("i,j->ji", (2,), (3,)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 2)), ("...ij,...jk->...ik", (2, 3, 4), (4, 2)),
        ("...ij,jk", (2, 3, 4), (4, 2)), ("i...->...", (2, 3, 4)), ("...i,...i->...", (1, 3), (2, 3)),
        ("...,...->...", (2, 1, 3), (4, 1)), ("...ii->...i", (2, 3, 3)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
        ("i,ij,j", (2,), (2, 3), (3,)), ("ij,j->i", (2, 1), (3,)), ("ij,ij->ij", (1, 3), (2, 3)),
        ("ij,ij->", (2, 1), (2, 3)), ("ij,kl->", (2, 3), (4, 2)), ("ii,ij->j", (2, 2), (2, 3)), (",ij->ij", (), (2, 3)),
        ("->", ()), ("ij,jk->ik", (0, 3), (3, 2)), ("ij,jk->ik", (2, 0), (0, 3)), ("ij,ik->jk", (4, 2), (4, 3)),
        ("i j , j k -> k i", (2, 3), (3, 4)),
        ("b...i,b...i->b...", (2, 3, 4), (2, 3, 4)), ("ijk,ijk->j", (2, 3, 2), (2, 3, 2)))],
]
