"""Ops without a rule, which pass no gradient: comparisons, logic and rounding.

Inputs broadcast. Complex numbers compare by their real part first.
"""

import numpy as np

from minigrad.engine.op import op
from minigrad.engine.tensor import Tensor


def unruled(function, meaning, infix=None, analytic=True):
    """The op of a NumPy ufunc, without a rule."""
    if function.nin == 1:
        def forward(x):
            return function(x)
    else:
        def forward(a, b):
            return function(a, b)
    forward.__name__ = forward.__qualname__ = function.__name__
    forward.__doc__ = meaning
    return op(forward, np=function, infix=infix, analytic=analytic)


greater = unruled(np.greater, "a > b, booleans.", ">")
greater_equal = unruled(np.greater_equal, "a ≥ b, booleans.", ">=")
less = unruled(np.less, "a < b, booleans.", "<")
less_equal = unruled(np.less_equal, "a ≤ b, booleans.", "<=")
equal = unruled(np.equal, "a = b, booleans.", "==")
not_equal = unruled(np.not_equal, "a ≠ b, booleans.", "!=")
logical_and = unruled(np.logical_and, "a and b, booleans.")
logical_or = unruled(np.logical_or, "a or b, booleans.")
logical_not = unruled(np.logical_not, "not x, booleans.")

floor_divide = unruled(np.floor_divide, "y = ⌊a / b⌋. It passes no gradient.", "//", analytic=False)
sign = unruled(np.sign, "y = −1, 0 or 1. It passes no gradient.", analytic=False)
floor = unruled(np.floor, "y = ⌊x⌋. It passes no gradient.", analytic=False)
ceil = unruled(np.ceil, "y = ⌈x⌉. It passes no gradient.", analytic=False)
trunc = unruled(np.trunc, "y = x rounded towards 0. It passes no gradient.", analytic=False)


@op(np=(np.round, np.around), method=True, analytic=False, elementwise=True)
def round(x, *, decimals=0):
    """y = x rounded to `decimals` decimals, a tie to the even neighbour. It passes no gradient."""
    return np.round(x, decimals)


Tensor.__round__ = lambda x, decimals=None: round(x, decimals or 0)
