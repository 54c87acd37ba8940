"""Chapter 7: does an LSTM's gradient vanish?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.engine.context import no_grad
from minigrad.exercises.exercise import differs, exercise
from minigrad.functional import vjp
from minigrad.microscope import bptt
from minigrad.microscope.figures.plot import by_lag
from minigrad.timeloop.scan import scan


@exercise("7.1", "Gone in float32", """
import numpy as np

gate = 1 / (1 + np.exp(-1.0))
lag = int(np.ceil(np.log(float(np.finfo(np.float32).smallest_subnormal)) / np.log(gate)))  # ←
""", why="""
330 steps. The paths through h can add to what the gate lets through, but with forget bias 1 they do not save it.
""")
def gone(my: Any) -> Iterator[str]:
    """The forget bias is 1 and the gate is σ(1) at all steps; nothing comes through h. What is the first lag at which
    the part of dL/dc that is left is below the smallest positive float32 (its smallest subnormal)?
    """
    yield from differs("lag", my.lag, 330)


@exercise("7.2", "Chrono initialisation", """
import numpy as np


def chrono(longest, hidden, rng):
    forget = np.log(rng.uniform(1.0, longest - 1.0, size=(hidden, 1)))  # ←
    return forget, -forget                                              # ←
""", why="""
A gate σ(b) forgets within about 1 + eᵇ steps, so the units cover all memories from 2 steps to `longest`.
`nn.LSTM(…, chrono=longest)` does it.
""")
def chrono(my: Any) -> Iterator[str]:
    """Tallec & Ollivier (2018) draw the forget biases as log U(1, T − 1), where T is the longest lag expected, and set
    the biases of the input gate to the negative of them. Return both, (hidden, 1) each; rng is a numpy Generator.
    """
    result = my.chrono(50, 4000, np.random.default_rng(0))
    if not isinstance(result, tuple) or [np.shape(b) for b in result] != [(4000, 1)] * 2:
        yield "chrono must return two arrays of shape (hidden, 1)"
        return
    forget, given = map(np.asarray, result)
    times = np.exp(forget)
    if times.min() < 1 or times.max() > 49:
        yield (f"e to the forget biases must lie between 1 and longest − 1 = 49, not between {times.min():.3g} and "
               f"{times.max():.3g}")
    elif abs(times.mean() - 25) > 1.5 or abs(np.quantile(times, 0.25) - 13) > 1.5:
        yield "e to the forget biases must be uniform: draw from U(1, longest − 1) first, and take the logarithm then"
    yield from differs("the input bias", given, -forget)


@exercise("7.3", "The cell of 1997", """
import numpy as np

import minigrad as mg

rng = np.random.default_rng(0)
W, b = rng.normal(size=(12, 6)), rng.normal(size=(12, 1))


def cell(state, x):
    h_prev, c_prev = state
    concat = np.concatenate([h_prev.detach(), x])  # ←
    it, ot, cct = np.split(W @ concat + b, 3)
    c_next = c_prev + mg.sigmoid(it) * np.tanh(cct)
    h_next = mg.sigmoid(ot) * np.tanh(c_next)
    return (h_next, c_next), h_next
""", why="""
The paper of 1997 has no forget gate, and its algorithm *truncates* the gradient: what leaves the cell through h does
not come back. Then the error flow through c is exactly 1. With the whole gradient it is not.
""")
def first_lstm(my: Any) -> Iterator[str]:
    """In the first LSTM the gradient that leaves the cell through h_prev is cut off. Write the line for `concat`, the
    h_prev above x, so that dL/dc is *exactly* the same at all steps; the values must be those without the cut.
    h_prev (4, B), x (2, B).
    """
    rng = np.random.default_rng(0)
    xs, start = rng.normal(size=(100, 2, 3)), rng.normal(size=(2, 4, 3))
    (end, ys), pull = vjp(lambda h, c: scan(my.cell, (h, c), xs), *start)
    with no_grad():
        h, c = start
        for x in xs:
            i, o, u = np.split(my.W @ np.concatenate([h, x]) + my.b, 3)
            c = c + np.tanh(u) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
    yield from differs("the last c", end[1], c)
    d_c = pull(((np.zeros((4, 3)), np.ones((4, 3))), np.zeros(np.shape(ys))))[1]
    if not (d_c == 1.0).all():
        yield (f"dL/dc is not constant: from 1 at the last step it becomes {d_c.min():.2g} to {d_c.max():.2g} at the "
               "first; something still comes back through h_prev")


@exercise("7.4", "How open is open enough?", """
import numpy as np

import minigrad as mg
from minigrad import nn


def kept(bias, seed, lag=60):
    lstm = nn.LSTM(2, 16, forget_bias=float(bias), dtype=np.float64, rng=seed)
    x = np.random.default_rng(seed).normal(size=(lag + 1, 4, 2))
    with mg.bptt.record() as rec:
        y, _ = lstm(x)
        y[-1].sum().backward()
    norms = mg.plot.by_lag(rec[0])
    return norms[lag] / norms[0]


bias = min(b for b in range(7) if all(kept(b, seed) > 0.01 for seed in range(5)))  # ←
""", why="""
With bias 1 less than a thousandth is left, with 2 between 0.05 and 0.3, with 3 between 0.1 and 1.5. With 6 the gradient
of one network grows to 19 times its size.
""")
def open_enough(my: Any) -> Iterator[str]:
    """An experiment. `kept` is the part of dL/dh that is left after 60 steps of an untrained LSTM. Find the smallest
    whole forget bias with which all five networks, of the seeds 0 to 4, keep more than a hundredth.
    """
    for bias, enough in ((my.bias, True), (my.bias - 1, False)):
        parts = []
        for seed in range(5):
            lstm = nn.LSTM(2, 16, forget_bias=float(bias), dtype=np.float64, rng=seed)
            with bptt.record() as rec:
                y, _ = lstm(np.random.default_rng(seed).normal(size=(61, 4, 2)))
                y[-1].sum().backward()
            norms = by_lag(rec[0])
            parts.append(norms[60] / norms[0])
        if enough and min(parts) <= 0.01:
            yield f"with bias {bias} one of the networks keeps only {min(parts):.1e}"
        elif not enough and min(parts) > 0.01:
            yield f"bias {bias} is enough too: all of the networks keep {min(parts):.1e} or more"
