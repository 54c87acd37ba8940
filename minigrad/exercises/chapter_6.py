"""Chapter 6: gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.engine.context import no_grad
from minigrad.exercises.exercise import audited, differs, exercise
from minigrad.functional import vjp
from minigrad.timeloop.scan import scan


@exercise("6.1", "A forget bias for fifty steps", """
import numpy as np

gate = 0.5 ** (1 / 50)
bias = np.log(gate / (1 - gate))  # ←
""", why="""
The gate must be 0.986 and so its bias 4.27: about ln of (number of steps / ln 2). A bias of 1 halves c about
every two steps.
""")
def bias(my: Any) -> Iterator[str]:
    """A forget gate σ(bias) is the same at all steps. For which bias is half of the gradient of c left after
    50 steps?
    """
    gate = 0.5 ** (1 / 50)
    yield from differs("bias", my.bias, np.log(gate / (1 - gate)), 1e-3)


def lstm_entrywise(ft, it, cct, ot, c_prev):
    c_next = ft * c_prev + it * cct
    a_next = ot * np.tanh(c_next)
    return a_next, c_next


@exercise("6.2", "The LSTM behind its gates", """
import numpy as np


def forward(ft, it, cct, ot, c_prev):
    c_next = ft * c_prev + it * cct
    a_next = ot * np.tanh(c_next)
    return a_next, c_next


def backward(d_outputs, ft, it, cct, ot, c_prev):
    d_a_next, d_c_next = d_outputs
    a_next, c_next = forward(ft, it, cct, ot, c_prev)
    d_c = d_c_next + d_a_next * ot * (1.0 - np.tanh(c_next) ** 2)                        # ←
    return {"dft": d_c * c_prev, "dit": d_c * cct, "dcct": d_c * it,                     # ←
            "dot": d_a_next * np.tanh(c_next), "dc_prev": d_c * ft}                      # ←
""", why="""
c_next has two readers: the next step, and a_next. Its gradient is the sum of both, and only then goes on to ft, it, cct
and c_prev. A whole `lstm_cell_backward` is judged by `minigrad audit` ([how](audit.md)).
""")
def lstm(my: Any) -> Iterator[str]:
    """Write the backward of the two lines that make an LSTM, for given gates: from the gradients of a_next and c_next
    to those of ft, it, cct, ot and c_prev (keys dft, dit, dcct, dot, dc_prev). All are (H, B).
    """
    yield from audited(lstm_entrywise, my.backward, ft=(4, 3), it=(4, 3), cct=(4, 3), ot=(4, 3), c_prev=(4, 3))


@exercise("6.3", "A GRU in four lines", """
import numpy as np

import minigrad as mg


def gru(h_prev, x, W, b, Wh, Wx, bx):
    gates = mg.sigmoid(W @ np.concatenate([h_prev, x]) + b)       # ←
    r, z = np.split(gates, 2)                                     # ←
    candidate = np.tanh(Wx @ x + bx + Wh @ (r * h_prev))          # ←
    return (1.0 - z) * candidate + z * h_prev                     # ←
""", why="""
Cho et al. (2014). Papers differ in the name of the update gate (z or 1 − z) and in where r is applied; the state is
always a weighted mean of the old one and a candidate. `mg.derive` and `mg.scan` take your function as it is.
""")
def gru(my: Any) -> Iterator[str]:
    """Write a GRU's step: r, z = σ(W [h_prev; x] + b), first the rows of r; the candidate is
    tanh(Wx x + bx + Wh (r ∘ h_prev)); the new state is z ∘ h_prev + (1 − z) ∘ candidate. h_prev (H, B), x (D, B).
    """
    rng = np.random.default_rng(0)
    cell = nn.GRUCell(2, 3, reset_after=False, dtype=np.float64, rng=0)
    for p in cell.parameters():
        p.data = rng.normal(size=p.shape)
    h_prev, x = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    weights = [w.data.copy() for w in (cell.W, cell.b, cell.Wh, cell.Wx, cell.bx)]
    with no_grad():
        right, _ = cell.cell(h_prev, x)
        found = my.gru(h_prev, x, *weights)
        cell.W.data[3:], cell.b.data[3:] = -cell.W.data[3:], -cell.b.data[3:]  # σ(−z) = 1 − σ(z)
        exchanged, _ = cell.cell(h_prev, x)
    if np.shape(found) == np.shape(right) and np.allclose(found, exchanged):
        yield "z and 1 − z are exchanged: here z keeps the old state"
    yield from differs("gru(…)", found, right)


@exercise("6.4", "The carousel", """
import numpy as np

import minigrad as mg

W = np.random.default_rng(0).normal(size=(8, 3))


def cell(c_prev, x):
    gate, value = np.split(W @ x, 2)
    c_next = c_prev + mg.sigmoid(gate) * np.tanh(value)  # ←
    return c_next, c_next
""", why="""
Hochreiter & Schmidhuber called it the constant error carousel. It is a residual connection: c_next = c_prev + f(x). The
derivative of c_next by c_prev is exactly 1, because f does not read c_prev. The ResNet of 2015 has the same sum between
its layers.
""")
def carousel(my: Any) -> Iterator[str]:
    """Write the line for c_next so that a gradient passes 1000 steps *unchanged*, and the cell still stores its input:
    σ(gate) ∘ tanh(value). c_prev is (4, B), x (3, B).
    """
    rng = np.random.default_rng(0)
    xs, start = rng.normal(size=(1000, 3, 2)), rng.normal(size=(4, 2))
    (end, states), pull = vjp(lambda start: scan(my.cell, start, xs), start)
    if np.shape(end) != (4, 2):
        yield f"c_next has shape {np.shape(end)}, and must have the shape of c_prev, (4, 2)"
        return
    d_start, = pull((np.ones((4, 2)), np.zeros(np.shape(states))))
    if not (d_start == 1.0).all():
        yield (f"the gradient is not passed unchanged: after 1000 steps a gradient of 1 is between {d_start.min():.2g} "
               f"and {d_start.max():.2g}")
    z = my.W @ xs
    yield from differs("the last state", end,
                       start + np.sum(np.tanh(z[:, 4:]) / (1 + np.exp(-z[:, :4])), axis=0))
