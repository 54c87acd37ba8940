"""minigrad: write a recurrent cell in a few lines, and see, check and run its gradients.

`Tensor` and the ops make a graph, `backward` and `grad` go back through it, `gradcheck` proves it right.
"""

import os

# Before NumPy is loaded: a thread of OpenBLAS then waits awake for 2²⁰ cycles after a product, not for 2²⁶ (20 ms), in
# which it takes the processor from the threads of the loops in C (docs/performance.md).
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")

from minigrad import interrupt  # noqa: F401, I001  (first: it answers Ctrl-C while the rest is imported)
from minigrad import connections, data, nn, optim, training
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
from minigrad.microscope.page.report import inspect
from minigrad.program.trace import TraceError
from minigrad.timeloop.compile import loops_in
from minigrad.timeloop.scan import scan
from minigrad.training.sampling import sample

__version__ = "0.1.0"
__all__ = [
    "OPS", "GradcheckError", "Tensor", "TraceError", "audit", "bptt", "composite", "connections", "data", "derive",
    "detect_anomaly", "grad", "gradcheck", "graph", "hessian", "hvp", "inspect", "jacobian", "jvp", "loops_in", "nn",
    "no_grad", "op", "ops", "optim", "plot", "sample", "scan", "tensor", "training", "value_and_grad", "vjp", *op_names,
]
