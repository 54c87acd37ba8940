"""Match arrays by name with the tensors that they are loaded into: names, shapes, kinds of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.engine.arrays import bare
from minigrad.engine.messages import in_one_sentence


def name_differences(given: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """["missing a, b", "unexpected c"], without an entry that has no names."""
    missing = ", ".join(name for name in expected if name not in given)
    unexpected = ", ".join(str(name) for name in given if name not in expected)
    return [f"{what} {names}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names]


def with_shapes(arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], owner: str) -> dict[str, np.ndarray]:
    """The arrays, if they have exactly these names and shapes. Raises a ValueError that lists every difference."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{owner} takes arrays by name, such as a state_dict(), not an object of "
                        f"{type(arrays).__name__}")
    given = {name: as_array(name, array) for name, array in arrays.items()}
    wrong = name_differences(given, shapes)
    wrong += [f"{name} has shape {given[name].shape} and must have {shape}" for name, shape in shapes.items()
              if name in given and given[name].shape != shape]
    if wrong:
        raise ValueError(f"these arrays are not those of this {owner}: {'; '.join(wrong)}")
    return given


def matching(arrays: Mapping[str, Any], expected: Mapping[str, Any], owner: str) -> dict[str, np.ndarray]:
    """The arrays, if names and shapes are as expected, and each dtype can be cast to the expected one within its kind.
    Raises ValueError otherwise."""
    given = with_shapes(arrays, {name: x.shape for name, x in expected.items()}, owner)
    for name, x in expected.items():
        if not np.can_cast(given[name].dtype, x.dtype, "same_kind"):
            raise ValueError(f"{name} of this {owner} is {x.dtype}, and the array given for it {given[name].dtype}")
    return given


def as_array(name: str, given: Any) -> np.ndarray:
    """An array, or one of PyTorch's tensors, as an ndarray. Raises ValueError, with the name, for anything else."""
    try:
        given = given.detach() if hasattr(given, "detach") else given
        try:
            array = bare(given)
        except TypeError:  # for example PyTorch's bfloat16, which NumPy lacks
            if not hasattr(given, "float"):
                raise
            array = np.asarray(given.float())
    except Exception as problem:  # whatever another library raises
        raise ValueError(f"{name} cannot be read as an array ({in_one_sentence(problem)}): give an ndarray, or a dense "
                         "tensor on the CPU") from None
    # bfloat16 and its relatives, if a package has registered them with NumPy
    return array.astype(np.float32) if array.dtype.kind == "V" and np.can_cast(array.dtype, np.float32) else array
