"""Sizes: lengths of axes that remember how a function computed them. Derived source then works at other sizes.

While `derive` traces a function, `a_prev.shape[0]` is a `Size`, and so is `3 * a_prev.shape[0]`: to Python and NumPy an
int, to the printer a polynomial in the axes of the function's arguments. An axis of length 1 is a plain 1: it
broadcasts, and the program depends on that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minigrad.engine.op import Op
from minigrad.engine.ops import matmul


class Axis(NamedTuple):
    """An axis of an argument, which is identified by its index on the engine's clock."""

    argument: int
    axis: int


@dataclass(frozen=True)
class Quotient:
    """A division of sizes with a remainder (`//`), or the remainder (`%`)."""

    left: Size | int
    sign: str
    right: Size | int


Factor = Axis | Quotient
Terms = dict[tuple[Factor, ...], int]  # product of factors → coefficient; the empty product is 1


def with_ints(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A method of Size for an operation with another int."""
    return lambda n, other: operation(n, other) if isinstance(other, int) else NotImplemented


class Size(int):
    """An int that is the sum of its `terms`. Sums, products and quotients with other ints keep track of them; any other
    arithmetic returns plain numbers."""

    terms: Terms

    __add__ = with_ints(lambda n, m: total(n, m))
    __radd__ = with_ints(lambda n, m: total(m, n))
    __sub__ = with_ints(lambda n, m: total(n, -m))
    __rsub__ = with_ints(lambda n, m: total(m, -n))
    __mul__ = __rmul__ = with_ints(lambda n, m: product(n, m))
    __floordiv__ = with_ints(lambda n, m: quotient(n, m))
    __rfloordiv__ = with_ints(lambda n, m: opaque(m, "//", n))
    __mod__ = with_ints(lambda n, m: remainder(n, m))
    __neg__ = lambda n: product(n, -1)  # noqa: E731

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply the ufunc to plain ints, which do not widen float32."""
        return getattr(ufunc, method)(*map(plain_number, inputs), **options)

    def __reduce__(self) -> tuple:
        return int, (int(self),)


def size(terms: Terms, n: int) -> Size | int:
    """The size of these terms, whose value is n; a plain int if no axis is left in it."""
    terms = {product: count for product, count in terms.items() if count}
    if not any(terms):
        return int(n)
    out = Size(n)
    out.terms = terms
    return out


def total(left: int, right: int) -> Size | int:
    terms = dict(terms_of(left))
    for product, n in terms_of(right).items():
        terms[product] = terms.get(product, 0) + n
    return size(terms, int(left) + int(right))


def product(left: int, right: int) -> Size | int:
    terms: Terms = {}
    for a, n in terms_of(left).items():
        for b, m in terms_of(right).items():
            factors = tuple(sorted(a + b, key=repr))
            terms[factors] = terms.get(factors, 0) + n * m
    return size(terms, int(left) * int(right))


def axes_of(argument: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an argument."""
    return tuple(n if n == 1 else size({(Axis(argument, axis),): 1}, n) for axis, n in enumerate(shape))


def terms_of(n: int) -> Terms:
    return n.terms if isinstance(n, Size) else {(): int(n)}


def plain_number(x: Any) -> Any:
    return int(x) if isinstance(x, Size) else x


def quotient(n: Size, divisor: int) -> Size | int:
    exact = exact_quotient(n, divisor)
    return opaque(n, "//", divisor) if exact is None else exact


def remainder(n: Size, divisor: int) -> Size | int:
    return opaque(n, "%", divisor) if exact_quotient(n, divisor) is None else 0


def exact_quotient(n: Size, divisor: int) -> Size | int | None:
    """n / divisor, if there is no remainder for any lengths of the axes; else None."""
    if not divisor or len(terms_of(divisor)) != 1:
        return None
    ((factors, count),) = terms_of(divisor).items()
    terms: Terms = {}
    for product, m in n.terms.items():
        left = list(product)
        for factor in factors:
            if factor not in left:
                return None
            left.remove(factor)
        if m % count:
            return None
        terms[tuple(left)] = m // count
    return size(terms, int(n) // int(divisor))


def opaque(left: int, sign: str, right: int) -> Size | int:
    n = int(left) // int(right) if sign == "//" else int(left) % int(right)
    return size({(Quotient(left, sign, right),): 1}, n)


def factor_of(n: Size) -> Factor | None:
    """The factor of a size that is neither a sum nor a product; else None."""
    ((product, count), *more) = n.terms.items()
    return product[0] if count == len(product) == 1 and not more else None


def meaning(n: int) -> Any:
    """A key that is equal for two sizes if they are equal for all lengths of the axes."""
    return frozenset(n.terms.items()) if isinstance(n, Size) else int(n)


# -- the shape of a result, from those of the inputs -----------------------------------------------------------


def shape_of_result(op: Op, shapes: list[tuple], metadata: dict, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a result with these lengths, as sizes; a length that cannot be derived is a plain int.

    The names of metadata are NumPy's and mean the same in all ops: `shape`, `index`, `axes` (of a transpose), `axis`.
    For an op whose metadata means something else, lengths are plain ints where they do not fit.
    """
    try:
        known = expected_shape(op, shapes, metadata, len(lengths))
    except (TypeError, IndexError, ZeroDivisionError):
        return lengths
    if len(known) != len(lengths):
        return lengths
    return tuple(n if n == length != 1 else length for n, length in zip(known, lengths))


def expected_shape(op: Op, shapes: list[tuple], metadata: dict, ndim: int) -> tuple:
    if op.variadic and metadata.get("axis") is not None:
        return joined(shapes, metadata["axis"])
    if "shape" in metadata:
        return given(shapes[0], metadata["shape"])
    if "index" in metadata:
        return indexed(shapes[0], metadata["index"])
    if "axes" in metadata:
        axes = metadata["axes"]
        return shapes[0][::-1] if axes is None else tuple(shapes[0][a] for a in axes)
    if "axis" in metadata:
        return reduced(shapes[0], metadata["axis"], ndim)
    if op is matmul.op:
        a, b = shapes
        return (*broadcast(a[:-2], b[:-2]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
    return broadcast(*shapes)


def broadcast(*shapes: tuple) -> tuple[int, ...]:
    ndim = max(map(len, shapes), default=0)
    columns = zip(*[(1,) * (ndim - len(shape)) + tuple(shape) for shape in shapes])
    return tuple(max(column, key=lambda n: (n != 1, isinstance(n, Size))) for column in columns)


def joined(shapes: list[tuple], axis: int) -> tuple[int, ...]:
    known = list(broadcast(*shapes))
    known[axis] = sum(shape[axis] for shape in shapes)
    return tuple(known)


def given(before: tuple, shape: Any) -> tuple[int, ...]:
    """A requested shape, in which one length may be −1."""
    shape = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if -1 not in shape:
        return shape
    rest = math.prod(n for n in shape if n != -1)
    total = math.prod(before)
    return tuple(total // rest if n == -1 and rest else n for n in shape)


def indexed(shape: tuple, index: tuple) -> tuple[int, ...]:
    """The shape after basic indexing; () for other indices."""
    index = list(index) if isinstance(index, tuple) else [index]
    if not all(i is None or i is Ellipsis or isinstance(i, slice) or type(i) in (int, Size) for i in index):
        return ()
    if Ellipsis not in index:
        index.append(Ellipsis)
    place = index.index(Ellipsis)
    taken = sum(i is not None for i in index) - 1
    index[place:place + 1] = [slice(None)] * (len(shape) - taken)
    lengths, out = iter(shape), []
    for i in index:
        if i is None:
            out.append(1)
            continue
        n = next(lengths)
        if isinstance(i, slice):
            out.append(length_of_slice(i, n))
    return tuple(out)


def length_of_slice(i: slice, n: int) -> int:
    start, stop, step = i.indices(n)
    if step != 1:
        return n if (i.start, i.stop, step) == (None, None, -1) else len(range(start, stop, step))
    start, stop = (end if bound is None else bound + n if bound < 0 else bound if bound == place else place
                   for bound, place, end in ((i.start, start, 0), (i.stop, stop, n)))
    return stop - start


def reduced(shape: tuple, axis: Any, ndim: int) -> tuple[int, ...]:
    """The shape without the axes of a reduction, or unchanged if the result has as many axes."""
    if ndim == len(shape):
        return shape
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(n for a, n in enumerate(shape) if a not in {a % len(shape) for a in axes})


def cuts(length: int, sections: Any) -> list[int]:
    """The bounds of the parts of a split into `sections`, or at these indices."""
    if isinstance(sections, int):
        return [i * (length // sections) for i in range(sections)] + [length]
    return [0, *sections, length]
