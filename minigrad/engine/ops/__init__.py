"""The public ops. `__all__` lists their names; all other names in these files are internal."""

# ruff: noqa: F403, F405
from minigrad.engine.ops.einsum import *
from minigrad.engine.ops.elementwise import *
from minigrad.engine.ops.indexing import *
from minigrad.engine.ops.library import *
from minigrad.engine.ops.linalg import *
from minigrad.engine.ops.lookup import *
from minigrad.engine.ops.reduce import *
from minigrad.engine.ops.shape import *
from minigrad.engine.ops.special import *
from minigrad.engine.ops.unruled import *

from minigrad.engine.ops.numpy_calls import *  # isort: skip (they replace the ops' own functions)

__all__ = [
    "abs", "add", "append", "astype", "atleast_1d", "atleast_2d", "atleast_3d", "bitwise_and", "bitwise_or",
    "broadcast_to", "ceil", "clip", "column_stack", "concatenate", "copy", "cos", "cumprod", "cumsum", "diff",
    "divide", "dot", "dstack", "einsum", "elu", "equal", "exp", "expand_dims", "expm1", "flip", "floor",
    "floor_divide", "getitem", "greater", "greater_equal", "hstack", "index_add", "index_select", "invert",
    "leaky_relu", "less", "less_equal", "log", "log1p", "log2", "log10", "log_sigmoid", "log_softmax",
    "logaddexp", "logical_and", "logical_not", "logical_or", "logsumexp", "matmul", "max", "maximum", "mean",
    "min", "minimum", "moveaxis", "multiply", "negative", "norm", "not_equal", "outer", "pad", "positive",
    "power", "prod", "ravel", "relu", "remainder", "repeat", "reshape", "roll", "round", "scatter", "sigmoid",
    "sign", "sin", "softmax", "softplus", "split", "sqrt", "square", "squeeze", "stack", "std", "subtract",
    "sum", "sum_to", "swapaxes", "take", "tanh", "tensordot", "tile", "transpose", "tril", "triu", "trunc",
    "var", "vstack", "where",
]
