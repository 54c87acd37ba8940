"""Chapter 1: one multiplication."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.exercises.exercise import audited, differs, exercise
from minigrad.functional import grad


@exercise("1.1", "Three gradients by hand", """
d_w, d_x, d_target = -24.0, 8.0, 8.0  # ←
""", why="""
The error is y − target = −3 − 1 = −4. So d_y = 2 · (−4) = −8, d_target = 8, d_w = d_y · x = −24 and d_x = d_y · w = 8.
""")
def by_hand(my: Any) -> Iterator[str]:
    """The model of the chapter, y = w x and L = (y − target)², now has w = −1, x = 3 and target = 1. What are
    dL/dw, dL/dx and dL/dtarget? Use pen and paper.
    """
    for name, right in (("d_w", -24.0), ("d_x", 8.0), ("d_target", 8.0)):
        yield from differs(name, getattr(my, name), right)


def two_paths(w, x):
    h = np.tanh(w * x)
    y = h * x
    return y


@exercise("1.2", "Two paths", """
import numpy as np


def forward(w, x):
    h = np.tanh(w * x)
    y = h * x
    return y


def backward(d_y, w, x):
    h = np.tanh(w * x)
    d_h = d_y * x                       # ←
    d_z = d_h * (1.0 - h * h)           # ←
    d_w = d_z * x                       # ←
    d_x = d_y * h + d_z * w             # ←
    return {"dw": d_w, "dx": d_x}       # ←
""", why="""
x acts on y along two paths: directly, as the factor of h, and through h. The gradients of the two paths are added.
""")
def paths(my: Any) -> Iterator[str]:
    """Write the backward of `forward`: from d_y = dL/dy to the gradients of w and x. Look for every use of x.

    The check is `mg.audit`, which compares your backward with the derived one and says which fault explains a
    difference.
    """
    yield from audited(two_paths, my.backward, w=(), x=())


@exercise("1.3", "A numerical gradient", """
import numpy as np


def numerical(f, x, step=1e-6):
    gradient = np.zeros(x.shape)                        # ←
    for i in np.ndindex(x.shape):                       # ←
        more, less = x.copy(), x.copy()                 # ←
        more[i] += step                                 # ←
        less[i] -= step                                 # ←
        gradient[i] = (f(more) - f(less)) / (2 * step)  # ←
    return gradient                                     # ←
""", why="""
Two calls of f for each entry of x: this is why one checks a small model. A backward computes all entries for the price
of about two calls in all.
""")
def numerical_gradient(my: Any) -> Iterator[str]:
    """Write the check that finds a wrong backward: the numerical gradient of any f(x), which returns a number, at an
    array x of floats. Use central differences: (f(x + step) − f(x − step)) / (2 step), entry by entry. Leave x as
    it was.
    """
    x = np.random.default_rng(0).normal(size=(2, 3))
    given = x.copy()

    def f(x):
        return np.sum(np.sin(x) * np.square(x))
    found = my.numerical(f, given)
    if not np.array_equal(given, x):
        yield "numerical changes x: add the step to a copy, or take it away again"
    one_sided = my.numerical(lambda x: np.sum(np.square(x)), np.ones(2), 0.1)
    if np.abs(np.asarray(one_sided) - 2.0).max() > 1e-9:
        yield "with step = 0.1 and f = Σ x² the result is not exact: central differences are, one-sided ones are not"
    yield from differs("numerical(f, x)", found, grad(f)(x))


@exercise("1.4", "Which step is best?", """
import numpy as np


def error(exponent, central):
    step = 10.0 ** exponent
    if central:
        found = (np.sin(1.0 + step) - np.sin(1.0 - step)) / (2 * step)
    else:
        found = (np.sin(1.0 + step) - np.sin(1.0)) / step
    return abs(found - np.cos(1.0))


one_sided = min(range(-14, 0), key=lambda exponent: error(exponent, central=False))  # ←
central = min(range(-14, 0), key=lambda exponent: error(exponent, central=True))     # ←
""", why="""
A large step errs because the curve bends (by step, or step² for central differences), a small one because the
difference of two nearly equal floats keeps few digits (10⁻¹⁶ / step). The best step is near 10⁻⁸ for one-sided
differences and near 10⁻⁵ for central ones. `mg.gradcheck` uses a complex step, which subtracts nothing, and is right to
10⁻¹⁵.
""")
def best_step(my: Any) -> Iterator[str]:
    """An experiment. `error` is the error of a numerical derivative of sin at 1 with a step of 10 to some power. Find
    the whole exponent from −14 to −1 with the smallest error, for one-sided and for central differences.
    """
    for name, central, words in (("one_sided", False, "one-sided"), ("central", True, "central")):
        exponent, step = getattr(my, name), 10.0 ** np.arange(-14, 0)
        before = 1.0 - step if central else np.ones(14)
        errors = np.abs((np.sin(1.0 + step) - np.sin(before)) / (2 * step if central else step) - np.cos(1.0))
        if exponent not in range(-14, 0):
            yield f"{name} is {exponent!r}, and must be a whole number from −14 to −1"
        elif errors[exponent] > 5 * errors.min():
            yield (f"with 10 to the {exponent} the error of {words} differences is {errors[exponent]:.0e}, and another "
                   f"exponent gives {errors.min():.0e}")
