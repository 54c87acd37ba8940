"""Write and read a model's arrays by name: .safetensors with the library of that name, any other file as .npz."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.engine.messages import refusing
from minigrad.files import archive
from minigrad.files.atomic import CheckpointError, atomic_write, file_errors, refuse_special

SAFETENSORS = ".safetensors"


def write_weights(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays atomically. Raises CheckpointError, and changes no file, if it cannot be written, and ValueError
    if its name ends in .safetensors and that library is not installed."""
    if Path(path).suffix != SAFETENSORS:
        archive.write(path, arrays)
        return
    library = safetensors(path)
    with refusing(f"{path} cannot be written", CheckpointError):
        content = library.save({name: np.array(array, array.dtype.newbyteorder("="), order="C")
                                for name, array in arrays.items()}, metadata={"format": "pt"})  # as PyTorch's tools do
    with atomic_write(path) as file:
        file.write(content)


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file, by name. Raises CheckpointError if it cannot be read or is damaged, and ValueError as
    `write_weights`."""
    if Path(path).suffix != SAFETENSORS:
        return archive.read(path)
    library = safetensors(path)
    with file_errors(path, "cannot be read"):
        refuse_special(path)
        content = Path(path).read_bytes()
    with refusing(f"{path} is cut short, damaged, or has numbers that NumPy lacks", CheckpointError):
        return library.load(content)


def safetensors(path: str | Path) -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ValueError(f"{path} needs the library safetensors: pip install safetensors, or give a name that ends in "
                         ".npz") from None
    return safetensors.numpy
