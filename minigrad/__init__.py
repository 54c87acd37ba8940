"""minigrad: write a recurrent cell in a few lines, and see, check and run its gradients.

`Tensor` and the ops make a graph, `backward` and `grad` go back through it, `gradcheck` proves it right.
"""

from minigrad import interrupt  # noqa: F401, I001  (first: it answers Ctrl-C while the rest is imported)
from minigrad import data, nn, optim, training
from minigrad.auditor.audit import audit
from minigrad.check.gradcheck import GradcheckError, gradcheck
from minigrad.derived import derive
from minigrad.engine import ops
from minigrad.engine.anomaly import detect_anomaly
from minigrad.engine.ops import *  # noqa: F403
from minigrad.engine.ops import __all__ as op_names
from minigrad.engine.op import OPS, op
from minigrad.engine.operators import composite
from minigrad.engine.context import no_grad
from minigrad.engine.tensor import Tensor, tensor
from minigrad.functional import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from minigrad.microscope import bptt
from minigrad.microscope.figures import plot
from minigrad.microscope.figures.graph import graph
from minigrad.program.trace import TraceError
from minigrad.timeloop.compile import loops_in
from minigrad.timeloop.scan import scan
from minigrad.training.sampling import sample

__version__ = "0.1.0"
__all__ = [
    "OPS", "GradcheckError", "Tensor", "TraceError", "audit", "bptt", "composite", "data", "derive",
    "detect_anomaly", "grad", "gradcheck", "graph", "hessian", "hvp", "jacobian", "jvp", "loops_in", "nn", "no_grad",
    "op", "ops", "optim", "plot", "sample", "scan", "tensor", "training", "value_and_grad", "vjp", *op_names,
]
