"""Read sequences of unequal length as arrays, and pad them to one array. Every refusal names the sequence.

A sequence has its steps first: floats (T, D), or (T,) for one feature, are features; integers, booleans or strings (T,)
are symbols; a str is a sequence of characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minigrad.engine.messages import brief
from minigrad.engine.tensor import Tensor


def pad(sequences: Iterable[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, mask, lengths): N sequences side by side, time first, the shorter ones filled with 0.

    x        (T, N, D) float32 for features, (T, N) int64 for symbols; T is the longest length
    mask     (T, N) booleans: true before the end of each sequence
    lengths  (N,) int64

    Raises ValueError if there are no sequences, if one has no steps, another number of features, or values that are not
    finite numbers, and for strings, which `encode` turns into numbers.
    """
    arrays = read("sequences", sequences)
    if arrays[0].dtype.kind == "U":
        raise ValueError("these sequences contain strings: turn them into numbers with codes, names = "
                         "data.encode(sequences)")
    return padded(arrays)


def padded(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`pad` for arrays that were read."""
    lengths = np.array([len(one) for one in arrays])
    x = np.zeros((lengths.max(), len(arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for i, one in enumerate(arrays):
        x[:len(one), i] = one
    return x, np.arange(len(x))[:, None] < lengths, lengths


def encode(sequences: Iterable[Any], names: Sequence[str] | None = None) -> tuple[list[np.ndarray], list[str]]:
    """(codes, names) of sequences of strings: integers (T,) each, and the distinct strings that they index, sorted.

    names  the strings, in the order of their codes, where they are known. Raises ValueError for one that is not there.
    """
    arrays = read("sequences", sequences)
    if arrays[0].dtype.kind != "U":
        raise ValueError(f"encode takes sequences of strings, and these contain {arrays[0].dtype} numbers")
    return coded("sequences", arrays, names)


def coded(what: str, arrays: Sequence[np.ndarray], names: Sequence[str] | None) -> tuple[list[np.ndarray], list[str]]:
    found = sorted(set(np.concatenate([one.ravel() for one in arrays]).tolist()))
    if names is None:
        names = found
    elif unknown := set(found) - set(names):
        raise ValueError(f"{what} contain {brief(min(unknown))}, which is not among the names {brief(list(names))}")
    positions = {name: i for i, name in enumerate(names)}
    return [np.array([positions[name] for name in one.ravel().tolist()], np.int64).reshape(one.shape)
            for one in arrays], list(names)


def read(what: str, sequences: Iterable[Any]) -> list[np.ndarray]:
    """The sequences as arrays of one kind: float32 (T, D), int64 (T,) or strings (T,). If some contain integers and
    others floats, all are features. `what` is their name in errors."""
    found = [read_one(f"{what}[{i}]", one) for i, one in enumerate(listed(what, sequences))]
    kinds = [one.dtype.kind for one in found]
    if "f" in kinds:
        found = [one.astype(np.float32)[:, None] if kind == "i" else one for one, kind in zip(found, kinds)]
    for i, one in enumerate(found):
        if one.dtype.kind != found[0].dtype.kind:
            raise ValueError(f"{what}[{i}] contains {WORDS[one.dtype.kind]}, and {what}[0] {WORDS[found[0].dtype.kind]}"
                             ": all sequences have one kind")
        if one.shape[1:] != found[0].shape[1:]:
            raise ValueError(f"{what}[{i}] has {one.shape[1]} features, and {what}[0] has {found[0].shape[1]}: all "
                             "sequences have the same features at every step")
    return found


WORDS = {"f": "numbers", "i": "integers", "U": "strings"}


def listed(what: str, sequences: Any) -> list[Any]:
    """A list of one thing or more. Raises ValueError for anything else."""
    if isinstance(sequences, (str, bytes, dict)) or not hasattr(sequences, "__iter__") or (
            isinstance(sequences, (np.ndarray, Tensor)) and sequences.ndim == 0):
        raise ValueError(f"{what} is a list with an entry for each sequence, not {brief(sequences)}")
    if not (made := list(sequences)):
        raise ValueError(f"{what} is empty: give one sequence or more")
    return made


def read_one(what: str, sequence: Any) -> np.ndarray:
    """One sequence as float32 (T, D), int64 (T,) or strings (T,)."""
    array = read_array(what, sequence)
    if array.ndim == 0:
        raise ValueError(f"{what} is {brief(sequence)}, and a sequence is a list of steps: put it in a list, as "
                         f"[{brief(sequence)}]")
    if len(array) == 0 or array.size == 0:
        raise ValueError(f"{what} has no steps or no features (shape {array.shape}): leave it out")
    if array.ndim > 2:
        raise ValueError(f"{what} has shape {array.shape}, and a sequence has shape (T,) or (T, features)")
    if array.ndim == 2 and array.dtype.kind == "U":
        raise ValueError(f"{what} has shape {array.shape}, and a sequence of strings has one string a step")
    if array.dtype.kind == "i" and array.ndim == 2:
        array = array.astype(np.float32)
    return array[:, None] if array.dtype.kind == "f" and array.ndim == 1 else array


def read_array(what: str, value: Any) -> np.ndarray:
    """An array of any shape as float32, int64 or strings. Raises ValueError for other values, NaN and infinity."""
    value = value.detach() if hasattr(value, "detach") else value
    try:
        array = np.array(list(value) if isinstance(value, str) else value)
    except Exception:  # a ragged list, or whatever another library's array raises
        raise ValueError(f"{what} is not an array: its steps have unequal shapes, or cannot be read") from None
    if array.dtype.kind in "iub":
        if array.dtype.kind == "u" and array.size and array.max() >= 2**63:
            raise ValueError(f"{what} contains {array.max()}, which no symbol has: integers go up to 2⁶³ − 1")
        return array.astype(np.int64)
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind != "f":
        raise ValueError(f"{what} contains {array.dtype} values: give numbers, or strings as symbols")
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{what} contains {array[tuple(where)]} at step {where[0] if len(where) else 0}: replace it, "
                         "or leave the sequence out")
    if array.size and abs(array).max() > np.finfo(np.float32).max:
        raise ValueError(f"{what} contains {abs(array).max():.3g}, which float32 cannot hold: rescale it")
    return array.astype(np.float32)
