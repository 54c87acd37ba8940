"""Elementwise ops, whose inputs broadcast.

Shapes: the inputs have any shapes that broadcast; y and g have the broadcast shape. The engine sums each
gradient to its input's shape. Python numbers do not widen float32.
Conventions at kinks: maximum and minimum split the gradient of a tie equally, relu'(0) = 0, |x|'(0) = 0.
A rule never hides a nan: at a nan, its comparison selects the side that passes the gradient.
"""

import numpy as np

from minigrad.engine.arrays import native
from minigrad.engine.op import op
from minigrad.engine.ops.unruled import equal, floor_divide, logical_and, sign
from minigrad.engine.tensor import Tensor

# -- arithmetic -----------------------------------------------------------------------------------


@op(np=np.add, infix="+", linear=True, da=lambda g: g, db=lambda g: g)
def add(a, b):
    """y = a + b.   dL/da = g,  dL/db = g."""
    return np.add(a, b)


@op(np=np.subtract, infix="-", linear=True, da=lambda g: g, db=lambda g: -g)
def subtract(a, b):
    """y = a − b.   dL/da = g,  dL/db = −g."""
    return np.subtract(a, b)


@op(np=np.multiply, infix="*", da=lambda g, b: g * b, db=lambda g, a: g * a)
def multiply(a, b):
    """y = a b.   dL/da = g b,  dL/db = g a."""
    return np.multiply(a, b)


@op(np=np.divide, infix="/", da=lambda g, b: g / b, db=lambda g, b, y: -g * y / b)
def divide(a, b):
    """y = a / b.   dL/da = g / b,  dL/db = −g a / b² = −g y / b."""
    return np.divide(a, b)


@op(np=np.negative, infix="-", linear=True, dx=lambda g: -g)
def negative(x):
    """y = −x.   dL/dx = −g."""
    return np.negative(x)


def power_da(g, a, b):
    # at a = 0 the slope of a⁰ is 0, but aᵇ⁻¹ is infinite: 1 replaces a
    if not hasattr(b, "shape"):
        return g * b * a ** (b - (b != 0))
    return g * b * (a + logical_and(equal(a, 0), equal(b, 0))) ** (b - 1)


@op(np=np.power, infix="**", da=power_da, db=lambda g, y, a: g * y * log(where(equal(a, 0), 1.0, a)))
def power(a, b):
    """y = aᵇ.   dL/da = g b aᵇ⁻¹,  dL/db = g y ln a.
    At a = 0, dL/da of a⁰ is 0, and dL/db is 0, its limit for b > 0. For a < 0 and real b,
    dL/db does not exist: nan, as in NumPy.
    """
    return a ** b


@op(np=np.positive, infix="+", linear=True, dx=lambda g: g)
def positive(x):
    """y = x.   dL/dx = g."""
    return np.positive(x)


@op(infix="%", analytic=False, elementwise=True, da=lambda g: g, db=lambda g, a, b: -g * floor_divide(a, b))
def remainder(a, b):
    """y = a − b ⌊a / b⌋, with the sign of b.   dL/da = g,  dL/db = −g ⌊a / b⌋. np.remainder does not call it."""
    return np.remainder(a, b)


# -- functions of one variable ----------------------------------------------------------------------


@op(np=np.exp, dx=lambda g, y: g * y)
def exp(x):
    """y = eˣ.   dL/dx = g y."""
    return np.exp(x)


@op(np=np.log, dx=lambda g, x: g / x)
def log(x):
    """y = ln x.   dL/dx = g / x."""
    return np.log(x)


@op(np=np.sqrt, dx=lambda g, y: 0.5 * g / y)
def sqrt(x):
    """y = √x.   dL/dx = g / 2y: infinite at 0, like the slope."""
    return np.sqrt(x)


@op(np=np.square, dx=lambda g, x: 2.0 * g * x)
def square(x):
    """y = x².   dL/dx = 2 g x."""
    return np.square(x)


@op(np=(np.abs, np.fabs), analytic=False, dx=lambda g, x: g * sign(x))
def abs(x):
    """y = |x|.   dL/dx = g sign x, 0 at the kink."""
    return np.abs(x)


Tensor.__abs__ = abs


@op(np=np.sin, dx=lambda g, x: g * cos(x))
def sin(x):
    """y = sin x.   dL/dx = g cos x."""
    return np.sin(x)


@op(np=np.cos, dx=lambda g, x: -g * sin(x))
def cos(x):
    """y = cos x.   dL/dx = −g sin x."""
    return np.cos(x)


@op(np=np.tanh, dx=lambda g, y: g * (1.0 - y * y))
def tanh(x):
    """y = tanh x.   dL/dx = g (1 − y²): in terms of y it is finite for every x."""
    return np.tanh(x)


# Into a buffer as 1 / (1 + e⁻ˣ), four calls. If e⁻ˣ is inf, the result is 0, as it should be
@op(elementwise=True, buffered="negative({x}, {y}); exp({y}, {y}); add({y}, {1.0}, {y}); divide({1.0}, {y}, {y})",
    helper="def sigmoid(x):\n    return 0.5 * np.tanh(0.5 * x) + 0.5", dx=lambda g, y: g * y * (1.0 - y))
def sigmoid(x):
    """y = 1 / (1 + e⁻ˣ) = ½ tanh(x/2) + ½.   dL/dx = g y (1 − y).
    The tanh form never overflows, and its absolute error is rounding only. If the relative error of a small
    tail matters, use ln y = −softplus(−x).
    """
    y = np.tanh(np.multiply(x, 0.5))
    return np.add(np.multiply(y, 0.5, out=y), 0.5, out=y) if isinstance(y, np.ndarray) else y * 0.5 + 0.5


@op(elementwise=True, dx=lambda g, x: where(x <= 0, 0.0, g))
def relu(x):
    """y = max(x, 0).   dL/dx = g where x > 0, else 0."""
    return np.where(np.real(x) <= 0, 0, x)  # not > 0, which would turn nan into 0


# -- selection --------------------------------------------------------------------------------------

# At a tie each side gets half, the mean of the possible slopes, as in autograd and PyTorch.


def larger(g, a, b):
    return where(equal(a, b), 0.5 * g, where(a < b, 0.0, g))


@op(np=np.maximum, da=lambda g, a, b: larger(g, a, b), db=lambda g, a, b: larger(g, b, a))
def maximum(a, b):
    """y = max(a, b).   dL/da = g where a > b, g/2 at a tie, else 0; dL/db likewise. If one is nan, both get g."""
    return np.maximum(a, b)


@op(np=np.minimum, da=lambda g, a, b: larger(g, b, a), db=lambda g, a, b: larger(g, a, b))
def minimum(a, b):
    """y = min(a, b).   dL/da = g where a < b, g/2 at a tie, else 0; dL/db likewise. If one is nan, both get g."""
    return np.minimum(a, b)


@op(np=np.where, elementwise=True,
    da=lambda g, condition: where(condition, g, 0.0), db=lambda g, condition: where(condition, 0.0, g))
def where(condition, a, b):
    """y = a where condition holds, else b.   dL/da = g there, else 0; dL/db the rest.
    No gradient comes from the other side, not even a nan.
    """
    return np.where(condition, a, b)


# -- dtypes -----------------------------------------------------------------------------------------


@op(np=np.copy, method=True, elementwise=True, linear=True, dx=lambda g: g)
def copy(x):
    """y = x, in a new array.   dL/dx = g."""
    return np.array(x)


@op(np=getattr(np, "astype", ()), method=True, analytic=False, elementwise=True, text="{x}.astype({dtype})",
    dx=lambda g: g)
def astype(x, *, dtype):
    """y = x in another dtype.   dL/dx = g (the engine casts it back to x's dtype).
    A cast to integers or booleans passes no gradient.
    """
    return np.asarray(x).astype(native(dtype))
