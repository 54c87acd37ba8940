"""Expressions that replace NumPy functions without an op: they give the same result and can be pasted."""

from __future__ import annotations

from typing import Any

import numpy

SPACES = {"np": numpy, "np.linalg": numpy.linalg, "np.fft": numpy.fft, "np.emath": numpy.emath,
          "np.strings": numpy.strings, "np.polynomial.polynomial": numpy.polynomial.polynomial,
          "np.lib.stride_tricks": numpy.lib.stride_tricks}


def dotted(function: Any) -> str:
    """The name of a NumPy function as users write it, such as np.linalg.svd; the plain name of any other function."""
    name = getattr(function, "__name__", repr(function))
    spaces = [space for space, module in SPACES.items() if getattr(module, name, None) is function]
    return f"{spaces[0]}.{name}" if spaces else name


def missing(name: str) -> str:
    """The error message for a function without an op that is called with a tensor. `name` is its dotted name."""
    instead = f"write {INSTEAD[name]}, " if name in INSTEAD else ""
    return (f"{name} has no op and cannot be recorded: {instead}declare it with @mg.op, or pass x.detach().numpy() to "
            "do without its gradient")


def refuse_unless_default(name: str, **given: Any) -> None:
    """Raise TypeError for each of these arguments of a NumPy function that is not None: minigrad does not have it."""
    for key, value in given.items():
        if value is not None:
            what = f"an array of shape {value.shape}" if getattr(value, "shape", ()) else f"{key}={value!r}"
            raise TypeError(f"{name} takes no {key} here, and {what} was given: leave it out")


# In terms of x, of a and b, and of n. Only equivalent expressions, no functions with similar names.
INSTEAD = {f"np.{name}": text for name, text in {
    "tan": "mg.sin(x) / mg.cos(x)",
    "sinh": "(mg.exp(x) - mg.exp(-x)) / 2",
    "cosh": "(mg.exp(x) + mg.exp(-x)) / 2",
    "arcsinh": "mg.log(x + mg.sqrt(x * x + 1))",
    "arctanh": "(mg.log1p(x) - mg.log1p(-x)) / 2",
    "exp2": "2.0 ** x",
    "cbrt": "mg.sign(x) * abs(x) ** (1 / 3)",
    "reciprocal": "1.0 / x",
    "remainder": "a % b",
    "hypot": "mg.sqrt(a * a + b * b)",
    "float_power": "a ** b",
    "degrees": "x * (180 / np.pi)",
    "rad2deg": "x * (180 / np.pi)",
    "radians": "x * (np.pi / 180)",
    "deg2rad": "x * (np.pi / 180)",
    "fmax": "mg.maximum(a, b)",
    "fmin": "mg.minimum(a, b)",
    "sort": "x[np.argsort(x)] for a vector x",
    "ptp": "mg.max(x) - mg.min(x)",
    "average": "mg.mean(x)",
    "nansum": "mg.sum(mg.where(np.isnan(x), 0.0, x))",
    "nan_to_num": "mg.where(np.isfinite(x), x, 0.0)",
    "cumulative_sum": "mg.cumsum(x) for a vector x",
    "ediff1d": "x[1:] - x[:-1] for a vector x",
    "vsplit": "mg.split(x, n, axis=0)",
    "hsplit": "mg.split(x, n, axis=1)",
    "array_split": "mg.split(x, n)",
    "unstack": "list(x)",
    "fliplr": "mg.flip(x, axis=1)",
    "flipud": "mg.flip(x, axis=0)",
    "rot90": "mg.flip(x, axis=1).T",
    "matrix_transpose": "mg.swapaxes(x, -1, -2)",
    "inner": 'mg.einsum("...i,...i->...", a, b) for vectors a and b',
    "vdot": "mg.sum(a * b)",
    "vecdot": "mg.sum(a * b, axis=-1)",
    "trace": 'mg.einsum("ii->", x)',
    "diagonal": 'mg.einsum("ii->i", x)',
    "diag": 'mg.einsum("ii->i", x)',
    "compress": "x[condition]",
    "extract": "x[condition]",
    "copyto": "mg.where(condition, b, a)",
    "putmask": "mg.where(condition, b, a)",
    "linalg.vector_norm": "np.linalg.norm(x)",
    "linalg.matrix_norm": "np.linalg.norm(x)",
    "linalg.matmul": "mg.matmul(a, b)",
    "linalg.multi_dot": "mg.matmul(a, b)",
    "linalg.outer": "mg.outer(a, b) for vectors a and b",
    "linalg.tensordot": "mg.tensordot(a, b)",
    "linalg.vecdot": "mg.sum(a * b, axis=-1)",
    "linalg.trace": 'mg.einsum("ii->", x)',
    "linalg.diagonal": 'mg.einsum("ii->i", x)',
    "linalg.matrix_transpose": "mg.swapaxes(x, -1, -2)",
    "add.reduce": "mg.sum(x, axis=0)",
    "multiply.reduce": "mg.prod(x, axis=0)",
    "maximum.reduce": "mg.max(x, axis=0)",
    "minimum.reduce": "mg.min(x, axis=0)",
    "add.accumulate": "mg.cumsum(x, axis=0)",
    "multiply.outer": "mg.outer(a, b) for vectors a and b",
    "logical_and.reduce": "np.all(x, axis=0)",
    "logical_or.reduce": "np.any(x, axis=0)",
}.items()}
