"""Stub."""
import numpy as np
from minigrad.functional import vjp
from minigrad.engine.pytree import flatten, unflatten


class Report:
    def __init__(self, right, wrong):
        self.right, self.wrong, self.ok, self.causes, self.unexplained = right, wrong, not wrong, [], list(wrong)

    def __str__(self):
        return "right" if self.ok else f"wrong: {', '.join(self.wrong)}"


def audit(forward, backward, *inputs, names=None):
    rng = np.random.default_rng(1)
    inputs = [rng.normal(size=np.shape(x)) for x in inputs]
    y, pull = vjp(forward, *inputs)
    leaves, pattern = flatten(y)
    d = [rng.normal(size=np.shape(leaf)) for leaf in leaves]
    true = pull(unflatten(pattern, d))
    given = backward(unflatten(pattern, d), *inputs)
    right, wrong = [], {}
    for name, g in zip(names, true):
        h = given.get("d" + name)
        if h is None or np.shape(h) != np.shape(g):
            wrong["d" + name] = np.inf
        elif np.abs(h - g).max() > (1e-4 if np.asarray(h).dtype == np.float32 else 1e-7) * max(1, np.abs(g).max()):
            wrong["d" + name] = np.abs(h - g).max()
        else:
            right.append("d" + name)
    return Report(right, wrong)
