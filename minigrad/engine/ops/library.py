"""Functions made of other ops, which give them gradients: NumPy's functions, and activations of sequence models."""

import functools
import operator

import numpy as np

from minigrad.engine.advice import refuse_unless_default
from minigrad.engine.arrays import bare, plain
from minigrad.engine.op import op
from minigrad.engine.operators import composite
from minigrad.engine.ops.elementwise import abs, copy, divide, multiply, negative, square
from minigrad.engine.ops.halves import in_float32
from minigrad.engine.ops.indexing import getitem, scatter, settled
from minigrad.engine.ops.lookup import index_select
from minigrad.engine.ops.numpy_calls import astype, matmul, max, min, reshape, sum, transpose, where
from minigrad.engine.ops.reduce import count, root
from minigrad.engine.ops.shape import broadcast_to, concatenate, normalize_axis, shape_of
from minigrad.engine.ops.special import expm1, softplus
from minigrad.engine.ops.unruled import equal, greater, less, logical_or, not_equal
from minigrad.engine.tensor import Tensor


def array(x):
    """A number or a list as an array; arrays and tensors unchanged."""
    return x if hasattr(x, "shape") else np.asarray(plain(x))


def one_axis(axis, ndim, name):
    """An axis as one int ≥ 0. A single number also has axis 0 (or −1): in NumPy it counts as a vector of length 1."""
    (axis,) = normalize_axis(operator.index(axis), ndim or 1, name)
    return axis


def part(x, axis, start, stop=None):
    """x[…, start:stop, …] along an axis."""
    return getitem(x, index=(slice(None),) * axis + (slice(start, stop),))


@composite(np=np.expand_dims)
def expand_dims(x, axis):
    """x with new axes of length 1, at the positions `axis` of the result."""
    shape = list(shape_of(x))
    ndim = len(shape) + (len(axis) if isinstance(axis, (tuple, list)) else 1)
    for a in sorted(normalize_axis(axis, ndim, "expand_dims")):
        shape.insert(a, 1)
    return reshape(x, tuple(shape))


@composite(np=np.ravel, method=True)
def ravel(x, order="C"):
    """x flattened to one axis."""
    return reshape(x, (-1,), order)


@composite(np=np.swapaxes, method=True)
def swapaxes(x, axis1, axis2):
    """x with two axes exchanged."""
    order = list(range(len(shape_of(x))))
    a, b = normalize_axis(axis1, len(order), "swapaxes") + normalize_axis(axis2, len(order), "swapaxes")
    order[a], order[b] = order[b], order[a]
    return transpose(x, tuple(order))


@composite(np=np.stack)
def stack(arrays, axis=0):
    """Arrays of equal shapes joined along a new axis: `stack([a, b], axis=0)`."""
    arrays = list(arrays)
    if not arrays:
        raise ValueError("stack needs at least one array: the list is empty")
    shapes = {shape_of(a) for a in arrays}
    if len(shapes) > 1:
        raise ValueError(f"stack: shapes {', '.join(map(str, sorted(shapes)))} differ: all must be equal")
    return concatenate([expand_dims(a, axis) for a in arrays], axis=axis)


# -- selection ----------------------------------------------------------------------------------------


@composite(np=np.clip, method=True)
def clip(x, a_min=None, a_max=None, out=None, *, min=None, max=None):
    """x limited to [a_min, a_max]; either may be None. min and max are NumPy's newer names for them.
    Between and at the bounds the gradient goes to x, beyond them to the bound. If a bound is nan, the result is nan."""
    refuse_unless_default("clip", out=out)
    a_min, a_max = (a_min if min is None else min), (a_max if max is None else max)
    if a_min is not None:
        x = where(beyond(less, x, a_min), a_min, x)
    if a_max is not None:
        x = where(beyond(greater, x, a_max), a_max, x)
    return x


def beyond(compare, x, bound):
    """Mask of the entries of x beyond a bound; True if the bound is nan."""
    past = compare(x, bound)
    return past if isinstance(bound, (int, float)) and bound == bound else logical_or(past, not_equal(bound, bound))


@composite(np=np.take, method=True)
def take(x, indices, axis=None, out=None, mode="raise"):
    """x[…, indices, …] along an axis, or from the flattened x. For indices out of bounds, mode "raise" raises
    IndexError, "wrap" wraps around, and "clip" takes the first or last entry."""
    refuse_unless_default("take", out=out, mode=None if mode in ("raise", "wrap", "clip") else mode)
    if axis is None or not shape_of(x):
        x, axis = ravel(x), one_axis(0 if axis is None else axis, 0, "take")
    axis = one_axis(axis, len(shape_of(x)), "take")
    if isinstance(indices, Tensor) and indices.is_symbol:
        n = shape_of(x)[axis]
        indices = indices % n if mode == "wrap" else clip(indices, 0, n - 1) if mode == "clip" else indices
        return index_select(x, indices, axis=axis)
    indices = indices._array if isinstance(indices, Tensor) else bare(indices)
    if indices.dtype == bool:
        indices = indices.astype(int)  # as in NumPy: 0 and 1, not a mask
    if mode != "raise":
        n = shape_of(x)[axis]
        (indices,) = settled(indices)
        indices = np.mod(indices, n) if mode == "wrap" else np.clip(indices, 0, n - 1)
    return getitem(x, settled((slice(None),) * axis + (indices,)))


# -- bits: on booleans these equal the logical functions, which take all numbers -------------------------------------


@op(np=np.bitwise_and, infix="&")
def bitwise_and(a, b):
    """a and b, for booleans or each bit of integers."""
    return np.bitwise_and(a, b)


@op(np=np.bitwise_or, infix="|")
def bitwise_or(a, b):
    """a or b, for booleans or each bit of integers."""
    return np.bitwise_or(a, b)


@op(np=np.invert, infix="~")
def invert(x):
    """not x, for booleans or each bit of integers."""
    return np.invert(x)


# -- means, deviations, norms -------------------------------------------------------------------------


def in_dtype(function, floats=False):
    """Wrap `function(x, axis, dtype, out, …)` to cast x to dtype first. If dtype is None, float16 runs in float32."""
    wide = in_float32(function)

    @functools.wraps(function)
    def cast(x, axis=None, dtype=None, out=None, *args, **options):
        if out is not None:
            refuse_unless_default(function.__name__, out=out)
        if floats and dtype is not None and np.dtype(dtype).kind not in "fc":
            raise TypeError(f"{function.__name__} in {np.dtype(dtype)} would lose the fractions: pass a float dtype, "
                            "or none")
        return wide(x if dtype is None else astype(x, dtype), axis, None, None, *args, **options)
    return cast


in_floats = functools.partial(in_dtype, floats=True)


@composite(np=np.mean, method=True)
@in_floats
def mean(x, axis=None, dtype=None, out=None, keepdims=False):
    """y = Σ x / n over the axes."""
    return divide(sum(x, axis=axis, keepdims=keepdims), count(shape_of(x), axis))


@composite(np=np.var, method=True)
@in_floats
def var(x, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
    """y = Σ (x − mean x)² / (n − ddof) over the axes. As in NumPy, a negative n − ddof counts as 0: inf or nan.
    Complex x uses the same formula, without an absolute value: so the complex step applies.
    """
    squares = square(x - mean(x, axis=axis, keepdims=True))
    n = count(shape_of(x), axis) - ddof
    return divide(sum(squares, axis=axis, keepdims=keepdims), n if n > 0 else 0)


@composite(np=np.std, method=True)
@in_floats
def std(x, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
    """y = √var x. If all entries are equal, y has a kink and the gradient is 0, as in PyTorch."""
    return root(var(x, axis=axis, ddof=ddof, keepdims=keepdims))


@composite(np=np.linalg.norm)
@in_float32
def norm(x, ord=None, axis=None, keepdims=False):
    """‖x‖ of vectors (one axis: ord 1, 2, inf, or any number) or matrices (two axes: "fro", 1, inf), as np.linalg.norm:
    √Σ x² of all entries by default. Its slope at 0 is 0, as in PyTorch.
    Complex x also uses √Σ x², without an absolute value: so the complex step applies. Raises ValueError for the
    matrix norms that need singular values.
    """
    x = array(x)
    x = x if x.dtype.kind in "fc" else astype(x, float)
    ndim = len(x.shape)
    if axis is None and ord is None:
        return root(sum(square(x), keepdims=keepdims))
    axes = tuple(range(ndim)) if axis is None else normalize_axis(axis, ndim, "norm")
    if len(axes) not in (1, 2):
        raise ValueError(f"norm: ord={ord!r} takes one axis (a vector) or two (a matrix), not {len(axes)}")
    if ord is None or ord == ("fro" if len(axes) == 2 else 2):
        return root(sum(square(x), axis=axes, keepdims=keepdims))
    if len(axes) == 1:
        return vector_norm(x, ord, axes, keepdims)
    if ord not in (1, -1, np.inf, -np.inf):
        raise ValueError(f"norm: ord={ord!r} of a matrix has no gradient here: use 'fro', 1, −1, inf or −inf")
    summed, sought = axes if np.abs(ord) == 1 else axes[::-1]
    y = (max if ord > 0 else min)(sum(abs(x), axis=summed, keepdims=True), axis=sought, keepdims=True)
    return y if keepdims else squeeze(y, axes)


def vector_norm(x, ord, axes, keepdims):
    if ord in (np.inf, -np.inf):
        return (max if ord > 0 else min)(abs(x), axis=axes, keepdims=keepdims)
    if isinstance(ord, str):
        raise ValueError(f"norm: ord={ord!r} is a norm of matrices, but there is one axis: name two")
    if ord == 0:
        return sum(not_equal(x, 0), axis=axes, dtype=x.dtype, keepdims=keepdims)
    if ord == 1:
        return sum(abs(x), axis=axes, keepdims=keepdims)
    if ord < 0:  # if an entry is 0, so is y
        y = sum(where(equal(x, 0), 1.0, abs(x)) ** ord, axis=axes, keepdims=keepdims) ** (1 / ord)
        return where(equal(min(abs(x), axis=axes, keepdims=keepdims), 0), 0.0, y)
    return power_of_some(sum(power_of_some(abs(x), ord), axis=axes, keepdims=keepdims), 1 / ord)


def power_of_some(x, n):
    """xⁿ for x ≥ 0 and n > 0. At 0 its slope is 0; that of the power may be infinite."""
    zero = equal(x, 0)
    return where(zero, 0.0, where(zero, 1.0, x) ** n)


# -- products of entries ------------------------------------------------------------------------------


@composite(np=np.prod, method=True)
@in_dtype
def prod(x, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=None):
    """y = Π x over the axes.
    It multiplies the first half by the second until one entry is left: log₂ n products. The rule of multiply is
    right to any order, also at entries that are 0; the rule y / x would not be.
    """
    refuse_unless_default("prod", initial=initial, where=where)
    x = widened(x)
    ndim = len(x.shape)
    axes = tuple(range(ndim)) if axis is None else normalize_axis(axis, ndim or 1, "prod")
    axes = axes if ndim else ()
    for a in axes:
        x = halves_multiplied(x, a)
    return x if keepdims else squeeze(x, axes)


def widened(x):
    """x, with small integers in the dtype in which NumPy multiplies and sums them."""
    x = array(x)
    return x if x.dtype.kind in "fc" else astype(x, np.sum(np.zeros(0, x.dtype)).dtype)


def halves_multiplied(x, axis):
    """The product along one axis, which is kept with length 1."""
    n = shape_of(x)[axis]
    if n == 0:
        return sum(x, axis=axis, keepdims=True) + 1
    while n > 1:
        half = n // 2
        y = part(x, axis, 0, half) * part(x, axis, half, 2 * half)
        x = concatenate([y, part(x, axis, 2 * half, n)], axis=axis) if n % 2 else y
        n -= half
    return x


@composite(np=np.cumprod, method=True)
@in_dtype
def cumprod(x, axis=None, dtype=None, out=None):
    """yₜ = Πₛ≤ₜ xₛ along an axis, or of the flattened x. It takes log₂ n products, for the same reason as `prod`."""
    x = widened(x)
    if axis is None or not x.shape:
        x, axis = ravel(x), one_axis(0 if axis is None else axis, 0, "cumprod")
    axis = one_axis(axis, len(shape_of(x)), "cumprod")
    n, done = shape_of(x)[axis], 1  # each entry is the product of the `done` entries up to it
    while done < n:
        x = concatenate([part(x, axis, 0, done), part(x, axis, done) * part(x, axis, 0, n - done)], axis=axis)
        done *= 2
    return x


# -- products of matrices -----------------------------------------------------------------------------


@composite(np=np.dot, method=True)
def dot(a, b, out=None):
    """As np.dot: the product with a number, of vectors or of matrices; else the sum over the last axis of a and the
    second to last of b."""
    refuse_unless_default("dot", out=out)
    a_ndim, b_ndim = len(shape_of(a)), len(shape_of(b))
    if not a_ndim or not b_ndim:
        return multiply(a, b)
    if a_ndim <= 2 and b_ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, (-1, -2 if b_ndim > 1 else -1))


@composite(np=np.outer)
def outer(a, b, out=None):
    """yᵢⱼ = aᵢ bⱼ of the flattened arrays."""
    refuse_unless_default("outer", out=out)
    return reshape(a, (-1, 1)) * reshape(b, (1, -1))


@composite(np=np.tensordot)
def tensordot(a, b, axes=2):
    """Σ a b over pairs of axes: the last `axes` of a with the first of b, or (axes of a, axes of b)."""
    a_shape, b_shape = shape_of(a), shape_of(b)
    if isinstance(axes, (int, np.integer)):
        axes = tuple(range(-axes, 0)), tuple(range(axes))
    a_axes = normalize_axis(axes[0], len(a_shape), "tensordot")
    b_axes = normalize_axis(axes[1], len(b_shape), "tensordot")
    if [a_shape[i] for i in a_axes] != [b_shape[i] for i in b_axes]:
        raise ValueError(f"tensordot: axes {a_axes} of {a_shape} and {b_axes} of {b_shape} differ in length: "
                         "each pair must be equal")
    a_free = tuple(i for i in range(len(a_shape)) if i not in a_axes)
    b_free = tuple(i for i in range(len(b_shape)) if i not in b_axes)
    n = int(np.prod([a_shape[i] for i in a_axes]))
    free = [a_shape[i] for i in a_free] + [b_shape[i] for i in b_free]
    rows = int(np.prod([a_shape[i] for i in a_free]))
    columns = int(np.prod([b_shape[i] for i in b_free]))
    y = reshape(transpose(a, a_free + a_axes), (rows, n)) @ reshape(transpose(b, b_axes + b_free), (n, columns))
    return reshape(y, tuple(free))


# -- joining ------------------------------------------------------------------------------------------


def at_least(ndim, grow, arrays):
    """The arrays with at least `ndim` axes; `grow` computes the new shape. Returns one array, or a tuple of several."""
    arrays = [array(a) for a in arrays]
    grown = tuple(a if len(a.shape) >= ndim else reshape(a, grow(a.shape)) for a in arrays)
    return grown[0] if len(grown) == 1 else grown


@composite(np=np.atleast_1d)
def atleast_1d(*arrays):
    """Numbers as vectors of length 1; other arrays unchanged."""
    return at_least(1, lambda shape: (1,), arrays)


@composite(np=np.atleast_2d)
def atleast_2d(*arrays):
    """Numbers and vectors as matrices of one row."""
    return at_least(2, lambda shape: (1,) * (2 - len(shape)) + shape, arrays)


@composite(np=np.atleast_3d)
def atleast_3d(*arrays):
    """Arrays with at least three axes: n → (1, n, 1), (n, m) → (n, m, 1)."""
    return at_least(3, lambda shape: (*(1, *shape)[-2:], 1) if shape else (1, 1, 1), arrays)


def joined(arrays, axis, name, dtype, casting):
    refuse_unless_default(name, dtype=dtype, casting=None if casting == "same_kind" else casting)
    return concatenate(list(arrays), axis=axis)


@composite(np=np.vstack)
def vstack(arrays, *, dtype=None, casting="same_kind"):
    """The arrays stacked vertically; a vector counts as a row."""
    return joined([atleast_2d(a) for a in arrays], 0, "vstack", dtype, casting)


@composite(np=np.hstack)
def hstack(arrays, *, dtype=None, casting="same_kind"):
    """The arrays side by side: joined along their second axis, vectors along their only one."""
    arrays = [atleast_1d(a) for a in arrays]
    return joined(arrays, 0 if arrays and len(arrays[0].shape) == 1 else 1, "hstack", dtype, casting)


@composite(np=np.dstack)
def dstack(arrays):
    """The arrays joined along a third axis."""
    return concatenate([atleast_3d(a) for a in arrays], axis=2)


@composite(np=np.column_stack)
def column_stack(arrays):
    """The arrays side by side; a vector counts as a column."""
    arrays = [atleast_1d(a) for a in arrays]
    return concatenate([expand_dims(a, 1) if len(a.shape) == 1 else a for a in arrays], axis=1)


@composite(np=np.append)
def append(x, values, axis=None):
    """x followed by `values` along an axis, or both flattened."""
    return concatenate([ravel(x), ravel(values)] if axis is None else [x, values], axis=axis or 0)


# -- axes and positions ------------------------------------------------------------------------------------


@composite(np=np.squeeze, method=True)
def squeeze(x, axis=None):
    """x without its axes of length 1: all of them, or those in `axis`."""
    shape = shape_of(x)
    if axis is None:
        drop = [a for a, n in enumerate(shape) if n == 1]
    else:
        drop = normalize_axis(axis, len(shape) or 1, "squeeze")
    for a in drop if shape else ():
        if shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} of shape {shape} has length {shape[a]}: only length 1 can be removed")
    return reshape(x, tuple(n for a, n in enumerate(shape) if a not in drop))


@composite(np=np.moveaxis)
def moveaxis(x, source, destination):
    """x with the axes `source` moved to the positions `destination`; the others keep their order."""
    ndim = len(shape_of(x))
    source, destination = normalize_axis(source, ndim, "moveaxis"), normalize_axis(destination, ndim, "moveaxis")
    if len(source) != len(destination):
        raise ValueError(f"moveaxis: {len(source)} source axes and {len(destination)} destinations: give one for each")
    order = [a for a in range(ndim) if a not in source]
    for place, a in sorted(zip(destination, source)):
        order.insert(place, a)
    return transpose(x, tuple(order))


@composite(np=np.roll)
def roll(x, shift, axis=None):
    """x with its entries moved by `shift` positions along an axis (or several, or flat); the last become the first."""
    shape = shape_of(x)
    if axis is None:
        return reshape(roll(ravel(x), np.sum(bare(shift)), 0), shape)
    for places, a in np.broadcast(bare(shift), axis):
        (a,) = normalize_axis(int(a), len(shape), "roll")
        cut = -int(places) % shape[a] if shape[a] else 0
        x = concatenate([part(x, a, cut), part(x, a, 0, cut)], axis=a)
    return x


@composite(np=np.diff)
def diff(x, n=1, axis=-1, prepend=None, append=None):
    """yᵢ = xᵢ₊₁ − xᵢ along an axis, n times over; `prepend` and `append` are put before and after x first."""
    shape = shape_of(x)
    if n < 0 or not shape:
        raise ValueError(f"diff takes an array of one axis or more and n ≥ 0, not shape {shape} and n={n}")
    (axis,) = normalize_axis(axis, len(shape), "diff")
    one = tuple(1 if a == axis else m for a, m in enumerate(shape))
    ends = [end if end is None or shape_of(end) else broadcast_to(end, one) for end in (prepend, append)]
    parts = [a for a in (ends[0], x, ends[1]) if a is not None]
    x = concatenate(parts, axis=axis) if len(parts) > 1 else array(x)
    for _ in range(n):
        later, earlier = part(x, axis, 1), part(x, axis, 0, -1)
        x = not_equal(later, earlier) if x.dtype == bool else later - earlier
    return x


@composite(np=np.tril)
def tril(x, k=0):
    """x with zeros above the k-th diagonal of its last two axes."""
    x = array(x)
    return where(below("tril", x, k), x, x.dtype.type(0) if x.dtype == bool else 0)


@composite(np=np.triu)
def triu(x, k=0):
    """x with zeros below the k-th diagonal of its last two axes."""
    x = array(x)
    return where(below("triu", x, k - 1), x.dtype.type(0) if x.dtype == bool else 0, x)


def below(name, x, k):
    if not shape_of(x):
        raise ValueError(f"{name} takes a matrix, not a single number")
    return np.tri(*shape_of(x)[-2:], k=k, dtype=bool)


@composite(np=np.repeat, method=True)
def repeat(x, repeats, axis=None):
    """Each entry of x, or of the flattened x, `repeats` times along an axis: one number, or one for each entry."""
    if axis is None or not shape_of(x):
        x, axis = ravel(x), one_axis(0 if axis is None else axis, 0, "repeat")
    axis = one_axis(axis, len(shape_of(x)), "repeat")
    n = shape_of(x)[axis]
    if (repeats := bare(repeats)).size not in (1, n):
        raise ValueError(f"repeat: {repeats.size} repeats for {n} entries: give one number, or one for each")
    return take(x, np.repeat(np.arange(n), repeats), axis)


@composite(np=np.tile)
def tile(x, reps):
    """x repeated reps[i] times along axis i; missing axes are added in front, as in NumPy."""
    reps = tuple(reps) if np.ndim(reps) else (reps,)
    shape = (1,) * (len(reps) - len(shape_of(x))) + tuple(shape_of(x))
    reps = (1,) * (len(shape) - len(reps)) + reps
    pairs = list(zip(reps, shape))
    spread = broadcast_to(reshape(x, [m for _, n in pairs for m in (1, n)]), tuple([m for pair in pairs for m in pair]))
    return reshape(spread, tuple(r * n for r, n in zip(reps, shape)))


@composite(np=np.pad)
def pad(x, pad_width, mode="constant", *, constant_values=0):
    """x with entries added before and after along each axis; widths as NumPy takes them: n, (before, after), or a
    pair for each axis. Any mode of np.pad that copies entries: constant, edge, reflect, symmetric, wrap.
    """
    shape = shape_of(x)
    try:
        widths = np.broadcast_to(bare(pad_width), (len(shape), 2)).tolist()
    except ValueError:
        widths = [(-1, -1)]
    if any(not isinstance(n, int) or n < 0 for pair in widths for n in pair):
        raise ValueError(f"pad: widths {pad_width!r} do not fit the shape {shape}: give a number ≥ 0, (before, after), "
                         "or such a pair for each axis")
    if mode == "constant":
        if np.ndim(constant_values):
            raise ValueError(f"pad: constant_values must be one number, not {constant_values!r}: concatenate others")
        index = tuple(slice(before, before + n) for (before, _), n in zip(widths, shape))
        full = tuple(before + n + after for (before, after), n in zip(widths, shape))
        y = scatter(x, shape=full, index=index)
        if constant_values == 0:
            return y
        inside = np.zeros(full, bool)
        inside[index] = True
        return where(inside, y, constant_values)
    for axis, (n, width) in enumerate(zip(shape, widths)):
        if mode not in ("edge", "reflect", "symmetric", "wrap"):
            raise ValueError(f"pad: mode {mode!r} does not copy entries: "
                             "use constant, edge, reflect, symmetric or wrap")
        x = take(x, np.pad(np.arange(n), width, mode=mode), axis)
    return x


Tensor.flatten = lambda x, order="C": copy(ravel(x, order))


# -- activations ------------------------------------------------------------------------------------------


@composite()
def log_sigmoid(x):
    """y = ln sigmoid x = −softplus(−x), with full precision in both tails."""
    return negative(softplus(negative(x)))


@composite()
def leaky_relu(x, negative_slope=0.01):
    """y = x where x > 0, else negative_slope · x."""
    return where(greater(x, 0), x, multiply(x, negative_slope))


@composite()
def elu(x, alpha=1.0):
    """y = x where x > 0, else alpha (eˣ − 1)."""
    positive = greater(x, 0)
    return where(positive, x, multiply(alpha, expm1(where(positive, 0.0, x))))
