"""Non-differentiable NumPy queries: called with a Tensor, they return plain arrays and numbers, as in NumPy.

The queries in ABOUT_SHAPE do not read values, so a traced function may call them too.
"""

import numpy as np

from minigrad.engine.operators import NUMPY
from minigrad.engine.tensor import Tensor

ABOUT_SHAPE = (np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.result_type)
ABOUT_VALUES = (np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.any, np.all, np.isnan, np.isinf,
                np.isfinite, np.isclose, np.allclose, np.array_equal, np.array2string, np.array_repr, np.array_str)


def answered(question, values):
    def answer(*args, **kwargs):
        return question(*[values(a) if isinstance(a, Tensor) else a for a in args],
                        **{name: values(a) if isinstance(a, Tensor) else a for name, a in kwargs.items()})
    answer.__name__ = question.__name__
    return answer


NUMPY.update({question: answered(question, lambda x: x._array) for question in ABOUT_SHAPE})
NUMPY.update({question: answered(question, lambda x: x.detach().numpy()) for question in ABOUT_VALUES})
NUMPY[np.shape] = lambda a: a.shape
for question in (np.any, np.all, np.argmax, np.argmin):
    setattr(Tensor, question.__name__, NUMPY[question])
