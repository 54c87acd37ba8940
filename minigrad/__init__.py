"""minigrad: write a recurrent cell in a few lines, and see, check and run its gradients.

`Tensor` and the ops make a graph, `backward` and `grad` go back through it, `gradcheck` proves it right.
"""

from minigrad import interrupt  # noqa: F401, I001  (first: it answers Ctrl-C while the rest is imported)
from minigrad import bptt, nn, optim, plot
from minigrad.anomaly import detect_anomaly
from minigrad.autodiff import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from minigrad.derive import TraceError, derive
from minigrad.gradcheck import GradcheckError, gradcheck
from minigrad.graph import graph
from minigrad.ops import *  # noqa: F403
from minigrad.ops import __all__ as op_names
from minigrad.scan import scan
from minigrad.tensor import OPS, Tensor, composite, no_grad, op, tensor

__version__ = "0.1.0"
__all__ = [
    "OPS", "GradcheckError", "Tensor", "TraceError", "bptt", "composite", "derive", "detect_anomaly", "grad",
    "gradcheck", "graph", "hessian", "hvp", "jacobian", "jvp", "nn", "no_grad", "op", "optim", "plot", "scan", "tensor",
    "value_and_grad", "vjp", *op_names,
]
