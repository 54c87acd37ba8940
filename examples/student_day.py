"""A student's day: derive the backward of a cell, find what is wrong with one's own, look at it.

    python examples/student_day.py                # in a notebook, leave a result as the last line of a cell to see it
"""

from __future__ import annotations

import argparse

import numpy as np

import minigrad as mg


def cell(h_prev, x, W, b):
    """The lecture's cell."""
    h_next = np.tanh(W @ np.concatenate([h_prev, x]) + b)
    return h_next


def backward(d_h_next, h_prev, x, W, b):
    """The student's own backward, with a fault."""
    concat = np.concatenate([h_prev, x])
    h_next = np.tanh(W @ concat + b)
    d_z = d_h_next * (1.0 - h_next)                 # h_next, where its square belongs
    d_concat = W.T @ d_z
    return {"h_prev": d_concat[:len(h_prev)], "x": d_concat[len(h_prev):], "W": d_z @ concat.T,
            "b": d_z.sum(axis=1, keepdims=True)}


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    rng = np.random.default_rng(0)
    h, x, W, b = (rng.normal(size=shape) for shape in [(5, 4), (3, 4), (5, 8), (5, 1)])

    derived = mg.derive(cell, h, x, W, b)           # what it should be; a notebook highlights it
    print(derived.source[derived.source.index("def backward"):])

    print(mg.audit(cell, backward, h, x, W, b))     # what is wrong with mine

    W, b = mg.tensor(0.5 * W, requires_grad=True), mg.tensor(b, requires_grad=True)

    def step(h, x):
        h = cell(h, x, W, b)
        return h, h

    def through_time(xs):                           # the loss at every step
        _, hs = mg.scan(step, np.zeros((5, 1)), xs)
        return (hs**2).sum(axis=(1, 2))

    xs = rng.normal(size=(30, 3, 1))
    with mg.bptt.record() as rec:
        losses = through_time(xs)
        print(mg.bptt.credit(rec, losses))                     # how far back gradients reach; a table in a notebook
        losses.sum().backward()
    mg.graph(rec).unrolled(4).save("my_first_cell.svg")
    report = mg.inspect(through_time, xs, title="my first cell")   # everything on one page, which a notebook shows
    report.save("my_first_cell.html")
    print(report)


if __name__ == "__main__":
    main()
