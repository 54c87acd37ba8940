"""Products of matrices. `matmul` alone has rules; dot, outer, tensordot and einsum are said with it."""

import math
import re

import numpy as np

from minigrad.ops.elementwise import multiply
from minigrad.ops.indexing import getitem
from minigrad.ops.reduce import sum
from minigrad.ops.shape import broadcast_to, normalize_axis, reshape, shape_of, swap, transpose
from minigrad.tensor import composite, op


def matmul_da(g, a, b):
    if b.ndim == 1:
        return g[..., None] * b
    if a.ndim == 1:
        return (b @ g[..., None])[..., 0]
    return matmul(g, swap(b))


def matmul_db(g, a, b):
    if a.ndim == 1:
        return g[..., None] * a if b.ndim == 1 else a[:, None] * g[..., None, :]
    if b.ndim == 1:
        return (g[..., None, :] @ a)[..., 0, :]
    if b.ndim == 2 < a.ndim:  # one product for the whole stack, where a sum of small ones would follow
        return matmul(reshape(a, (-1, a.shape[-1])).T, reshape(g, (-1, g.shape[-1])))
    return matmul(swap(a), g)


@op(np=np.matmul, infix="@", da=matmul_da, db=matmul_db,
    shapes="the last axis of a must be as long as the second to last of b (its only one, for a vector), and "
           "axes before them must broadcast")
def matmul(a, b):
    """C = A B,  Cᵢⱼ = Σₖ Aᵢₖ Bₖⱼ.      A (…, n, k)   B (…, k, m)   C, g (…, n, m);  a vector stands for its one axis
    dL/da:  dL/dAᵢₖ = Σⱼ gᵢⱼ Bₖⱼ   ⇒   g Bᵀ
    dL/db:  dL/dBₖⱼ = Σᵢ Aᵢₖ gᵢⱼ   ⇒   Aᵀ g        (leading axes that were broadcast: the engine sums them)
    """
    # on matrices dot is the same product with less around it: up to 8 times faster for one column
    if np.ndim(a) >= 2 == np.ndim(b):
        return np.dot(a.reshape(math.prod(a.shape[:-1]), a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    return np.matmul(a, b)


@composite(np=np.dot)
def dot(a, b):
    """NumPy's dot: a product with a number, of vectors, of matrices; else over the last axis of a and the second to
    last of b."""
    a_ndim, b_ndim = len(shape_of(a)), len(shape_of(b))
    if not a_ndim or not b_ndim:
        return multiply(a, b)
    if a_ndim <= 2 and b_ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, (-1, -2 if b_ndim > 1 else -1))


@composite(np=np.outer)
def outer(a, b):
    """yᵢⱼ = aᵢ bⱼ of the flat entries."""
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


# -- einsum ---------------------------------------------------------------------------------------------


@composite(np=np.einsum)
def einsum(subscripts, *arrays):
    """Σ of products by letters, as np.einsum: 'ik,kj->ij', '...i,i', 'ii->i'.

    Two operands at a time, from left to right: letters that only one of them has and nobody needs are summed, the
    rest is one matmul. Raises ValueError when letters and axes do not fit.
    """
    operands, output = parse(subscripts, arrays)
    letters, y = operands[0], arrays[0]
    for k in range(len(arrays)):
        later = set("".join(operands[k + 2:])) | set(output)
        if k + 1 == len(arrays):
            break
        letters, y = contract_pair(letters, y, operands[k + 1], arrays[k + 1], later)
    letters, y = sum_alone(*without_repeats(letters, y), set(output))
    return transpose(y, tuple(letters.index(c) for c in output))


TERM = r"[a-zA-Z]*(\.\.\.)?[a-zA-Z]*"


def parse(subscripts, arrays):
    """Letters for each operand and for the output; the axes of an ellipsis get letters of their own."""
    def fail(why):
        shapes = ", ".join(str(shape_of(a)) for a in arrays)
        raise ValueError(f"einsum: {subscripts!r} does not fit the shapes {shapes}: {why}")

    if not isinstance(subscripts, str):
        raise TypeError("einsum: the first argument is the subscripts, as 'ij,jk->ik'")
    if not re.fullmatch(rf"{TERM}(,{TERM})*(->{TERM})?", subscripts.replace(" ", "")):
        fail("subscripts are letters, with one '...' in a term at most, commas, and one '->'")
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) != len(arrays):
        fail(f"it names {len(operands)} operands")
    unused = [chr(c) for c in range(0x3B1, 0x3B1 + 64)]  # Greek, which subscripts cannot hold
    widest = 0
    for i, (term, array) in enumerate(zip(operands, arrays)):
        hidden = len(shape_of(array)) - len(term.replace("...", ""))
        if hidden < 0 or (hidden > 0 and "..." not in term):
            fail(f"{term!r} names {len(term.replace('...', ''))} axes of an operand with {len(shape_of(array))}")
        widest = hidden if hidden > widest else widest
        operands[i] = term.replace("...", "".join(unused[:hidden][::-1]))
    ellipsis = "".join(unused[:widest][::-1])
    seen = "".join(operands)
    if arrow:
        if widest and "..." not in output:
            fail("the operands have axes under '...', and the output does not")
        output = output.replace("...", ellipsis)
    else:
        output = ellipsis + "".join(sorted(c for c in set(seen) - set(ellipsis) if seen.count(c) == 1))
    if not set(output) <= set(seen) or len(set(output)) < len(output):
        fail("the output names a letter twice, or one that no operand has")
    sizes = {}
    for term, array in zip(operands, arrays):
        for c, n in zip(term, shape_of(array)):
            if sizes.setdefault(c, n) != n and 1 not in (n, sizes[c]):
                fail(f"{c!r} is {sizes[c]} long and {n} long" if c in inputs else "the axes of ... do not broadcast")
            sizes[c] = n if sizes[c] == 1 else sizes[c]
    return operands, output


def without_repeats(letters, x):
    """'ii' → 'i': the diagonal."""
    for c in letters:
        while letters.count(c) > 1:
            first = letters.index(c)
            second = letters.index(c, first + 1)
            x = diagonal_of(x, first, second)
            letters = letters[:first] + letters[first + 1:second] + letters[second + 1:] + c
    return letters, x


def sum_alone(letters, x, wanted):
    """Sum the axes whose letters are not wanted."""
    axes = tuple(i for i, c in enumerate(letters) if c not in wanted)
    return "".join(c for c in letters if c in wanted), sum(x, axis=axes) if axes else x


def contract_pair(a_letters, a, b_letters, b, later):
    """The product of two operands, summed over the letters that both have and nobody needs later."""
    a_letters, a = sum_alone(*without_repeats(a_letters, a), set(b_letters) | later)
    b_letters, b = sum_alone(*without_repeats(b_letters, b), set(a_letters) | later)
    shared = [c for c in a_letters if c in b_letters]
    summed = [c for c in shared if c not in later]
    batch = [c for c in shared if c in later]
    rows = [c for c in a_letters if c not in shared]
    columns = [c for c in b_letters if c not in shared]
    size = {c: n for c, n in [*zip(a_letters, shape_of(a)), *zip(b_letters, shape_of(b))]}
    for c in summed:  # a summed axis of length 1 against n must really be n long
        n, m = shape_of(a)[a_letters.index(c)], shape_of(b)[b_letters.index(c)]
        size[c] = m if n == 1 else n
    a, b = stretched(a_letters, a, summed, size), stretched(b_letters, b, summed, size)
    a = transpose(a, tuple(a_letters.index(c) for c in batch + rows + summed))
    b = transpose(b, tuple(b_letters.index(c) for c in batch + summed + columns))
    n_batch, n_summed = len(batch), int(np.prod([size[c] for c in summed]))
    a = reshape(a, (*shape_of(a)[:n_batch], int(np.prod([size[c] for c in rows])), n_summed))
    b = reshape(b, (*shape_of(b)[:n_batch], n_summed, int(np.prod([size[c] for c in columns]))))
    y = matmul(a, b) if summed else a * b
    y = reshape(y, (*shape_of(y)[:n_batch], *(size[c] for c in rows + columns)))
    return "".join(batch + rows + columns), y


def stretched(letters, x, summed, size):
    shape = tuple(size[c] if c in summed else n for c, n in zip(letters, shape_of(x)))
    return broadcast_to(x, shape) if shape != tuple(shape_of(x)) else x


def diagonal_of(x, first, second):
    """The entries whose indices along two axes are equal, along a new last axis."""
    index = [slice(None)] * len(shape_of(x))
    index[first] = index[second] = np.arange(shape_of(x)[first])
    y = getitem(x, index=tuple(index))
    # NumPy puts the axis of index arrays where they stand if they are neighbours, and in front if not
    place = first if second == first + 1 else 0
    return transpose(y, (*(a for a in range(len(shape_of(y))) if a != place), place))
