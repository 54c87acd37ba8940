"""Chapter 3: a curve in the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.exercises.exercise import audited, differs, exercise


@exercise("3.1", "Half the slope", """
import numpy as np

z = np.arctanh(np.sqrt(0.5))  # ←
""", why="""
1 − s² = 1/2 at s = √½, and s = tanh z. So a unit halves its gradient when what comes in is only 0.88.
""")
def half_slope(my: Any) -> Iterator[str]:
    """The slope of tanh at z is 1 − tanh² z. For which z > 0 is it 1/2?"""
    yield from differs("z", my.z, np.arctanh(np.sqrt(0.5)), 1e-3)


def tanh_step(w, s_prev, x):
    s = np.tanh(w * s_prev + x)
    return s


@exercise("3.2", "The step with tanh", """
import numpy as np


def forward(w, s_prev, x):
    s = np.tanh(w * s_prev + x)
    return s


def backward(d_s, w, s_prev, x):
    s = np.tanh(w * s_prev + x)
    d_z = d_s * (1.0 - s * s)                                    # ←
    return {"dw": d_z * s_prev, "ds_prev": d_z * w, "dx": d_z}   # ←
""", why="""
The gradient passes tanh once, and then goes to w, s_prev and x as in chapter 2.
""")
def step(my: Any) -> Iterator[str]:
    """Write the backward of one step: the gradients of w, s_prev and x, with the keys dw, ds_prev and dx. All are
    numbers.
    """
    yield from audited(tanh_step, my.backward, w=(), s_prev=(), x=())


@exercise("3.3", "Where the state stays", """
import numpy as np


def factor(w):
    s = 1.0                        # ←
    for _ in range(100_000):       # ←
        s = np.tanh(w * s)         # ←
    return w * (1.0 - s * s)       # ←
""", why="""
The largest factor is that of w = 1. A smaller w shrinks the gradient itself; a larger one moves the state to where tanh
is flat.
""")
def fixed_point(my: Any) -> Iterator[str]:
    """Without input, s ← tanh(w s) from s = 1 comes to rest. By which factor does one step multiply the gradient there?
    Write it as a function of w > 0, and try it from 0.5 to 2.
    """
    for w in (0.5, 0.9, 1.1, 1.3, 2.0):
        s = 1.0
        for _ in range(2000):
            s = np.tanh(w * s)
        yield from differs(f"factor({w})", my.factor(w), w * (1 - s * s), 1e-4)


@exercise("3.4", "A switch keeps its bit and loses its gradient", """
import numpy as np


def runs(w, steps=100, count=100):
    rng = np.random.default_rng(0)
    s, gradient = np.ones(count), np.ones(count)
    for _ in range(steps):
        s = np.tanh(w * s + 0.5 * rng.normal(size=count))
        gradient = gradient * w * (1.0 - s * s)
    return s, gradient


w = 3.0  # ←
""", why="""
With w = 1 half of the runs end with the other sign, and 10⁻²⁰ of the gradient is left (the median). With w = 2.5 none
does, and 10⁻¹¹⁴ is left. What keeps a bit against noise is flatness, and flatness is a slope near 0: a theorem of
Bengio, Simard & Frasconi (1994).
""")
def switch(my: Any) -> Iterator[str]:
    """An experiment. A state starts at 1 and is disturbed by noise at each of 100 steps. Find a w for which at least 95
    of the 100 runs end with the sign they started with. How much gradient is left then?
    """
    rng = np.random.default_rng(0)
    s = np.ones(100)
    for _ in range(100):
        s = np.tanh(float(my.w) * s + 0.5 * rng.normal(size=100))
    if (kept := int((s > 0).sum())) < 95:
        yield f"with w = {my.w} only {kept} of 100 runs keep their sign"
