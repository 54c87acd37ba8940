"""einsum, built from matmul: two operands at a time, from left to right."""

import re

import numpy as np

from minigrad.engine.advice import refuse_unless_default
from minigrad.engine.operators import composite
from minigrad.engine.ops.halves import HALF, is_half
from minigrad.engine.ops.indexing import getitem
from minigrad.engine.ops.numpy_calls import astype, matmul, reshape, sum, transpose
from minigrad.engine.ops.shape import broadcast_to, shape_of


@composite(np=np.einsum)
def einsum(*operands, out=None, optimize=False, dtype=None, order="K", casting="safe"):
    """Sum of products by subscripts, as np.einsum: 'ik,kj->ij', '...i,i', 'ii->i'; or with the numbers of its axes
    after each array, and those of the result last: einsum(a, [0, 1], b, [1, 2], [0, 2]).

    It contracts two operands at a time, from left to right, and ignores `optimize`. Letters of one operand only that
    are not needed later are summed; the rest is one matmul. Raises ValueError if letters and axes do not fit.
    """
    refuse_unless_default("einsum", out=out, dtype=dtype, order=None if order in ("K", "C") else order,
                          casting=None if casting == "safe" else casting)
    subscripts, *arrays = operands if operands and isinstance(operands[0], str) else with_letters(operands)
    if not any(map(is_half, arrays)):
        return contract(subscripts, arrays)
    halves = np.result_type(*[a.dtype if hasattr(a, "dtype") else np.asarray(a) for a in arrays]) == HALF
    y = contract(subscripts, [astype(a, np.float32) if is_half(a) else a for a in arrays])
    return astype(y, HALF) if halves else y


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def with_letters(operands):
    """(array, numbers of its axes, …, numbers of the result) → (subscripts, array, …)."""
    def letters(numbers):
        if not isinstance(numbers, (list, tuple)) or not all(
                n is Ellipsis or 0 <= n < len(LETTERS) for n in numbers):
            raise TypeError("einsum takes subscripts, such as 'ij,jk->ik', and arrays; or after each array a list of "
                            f"its axes' numbers, from 0 to {len(LETTERS) - 1}, not {type(numbers).__name__}")
        return "".join("..." if n is Ellipsis else LETTERS[n] for n in numbers)

    pairs = len(operands) // 2
    subscripts = ",".join(letters(operands[2 * i + 1]) for i in range(pairs))
    if len(operands) % 2:
        subscripts += f"->{letters(operands[-1])}"
    return subscripts, *operands[:2 * pairs:2]


def contract(subscripts, arrays):
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
    """(letters of each operand, letters of the output). The axes of an ellipsis get extra letters."""
    def fail(why):
        shapes = ", ".join(str(shape_of(a)) for a in arrays)
        raise ValueError(f"einsum: {subscripts!r} does not fit the shapes {shapes}: {why}")

    if not re.fullmatch(rf"{TERM}(,{TERM})*(->{TERM})?", subscripts.replace(" ", "")):
        fail("subscripts are letters, at most one '...' in a term, commas, and one '->'")
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) != len(arrays):
        fail(f"it names {len(operands)} operands")
    unused = [chr(c) for c in range(0x3B1, 0x3B1 + 64)]  # Greek letters, which subscripts cannot contain
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
            fail("the operands have axes under '...', but the output does not")
        output = output.replace("...", ellipsis)
    else:
        output = ellipsis + "".join(sorted(c for c in set(seen) - set(ellipsis) if seen.count(c) == 1))
    if not set(output) <= set(seen) or len(set(output)) < len(output):
        fail("the output names a letter twice, or one that no operand has")
    sizes = {}
    for term, array in zip(operands, arrays):
        for c, n in zip(term, shape_of(array)):
            if sizes.setdefault(c, n) != n and 1 not in (n, sizes[c]):
                fail(f"{c!r} has the lengths {sizes[c]} and {n}" if c in inputs else "the axes of ... do not broadcast")
            sizes[c] = n if sizes[c] == 1 else sizes[c]
    return operands, output


def without_repeats(letters, x):
    """'ii' → 'i': take the diagonal."""
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
    """The product of two operands, summed over the shared letters that are not needed later."""
    a_letters, a = sum_alone(*without_repeats(a_letters, a), set(b_letters) | later)
    b_letters, b = sum_alone(*without_repeats(b_letters, b), set(a_letters) | later)
    shared = [c for c in a_letters if c in b_letters]
    summed = [c for c in shared if c not in later]
    batch = [c for c in shared if c in later]
    rows = [c for c in a_letters if c not in shared]
    columns = [c for c in b_letters if c not in shared]
    size = {c: n for c, n in [*zip(a_letters, shape_of(a)), *zip(b_letters, shape_of(b))]}
    for c in summed:  # a summed axis of length 1 is stretched to the length of the other
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
    # NumPy puts the axis of adjacent index arrays in their place, and that of others in front
    place = first if second == first + 1 else 0
    return transpose(y, (*(a for a in range(len(shape_of(y))) if a != place), place))
