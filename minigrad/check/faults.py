"""Find the faulty rules behind a wrong gradient: each rule of each recorded op is checked by itself."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np

from minigrad.engine.anomaly import recorded, unwatched, user_line
from minigrad.engine.backward import behind, fitted
from minigrad.engine.tensor import Op, Tensor, watcher

COMPLEX_STEP = 1e-20
WRONG = 1e-5  # a rule with a larger relative error is reported as wrong
MOST_CALLS = 100  # calls checked for each op


class CallSites:
    """A watcher that records the source line of every op call. Under any watcher, scan runs step by step."""

    def __init__(self) -> None:
        self.locations: dict[int, str] = {}

    def __enter__(self) -> Any:
        self.token = watcher.set(self)
        return self

    def __exit__(self, *exception: Any) -> None:
        watcher.reset(self.token)

    def __call__(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        out = unwatched(op, inputs, arrays, metadata, tracked)
        node = recorded(out)
        if node is not None:
            self.locations[node._index] = user_line()
        return out

    def visit(self, node: Tensor, g: Any) -> None:
        """Ignore the nodes of a sweep."""

    def gradient(self, node: Tensor, op: Op, x: Tensor, d: Any) -> None:
        """Ignore the gradients of a sweep."""


def rule_errors(node: Tensor, rng: np.random.Generator) -> list[tuple[str, float]]:
    """[(rule, relative error)] for each rule of one recorded op: ⟨rule(g), v⟩ against ⟨g, J v⟩."""
    op, metadata = node._op, node._metadata
    arrays = [x._array if isinstance(x, Tensor) else x for x in node._inputs]
    several = isinstance(node._array, tuple)
    as_tuple = (lambda y: y) if several else (lambda y: (y,))
    g = tuple(rng.uniform(0.5, 1.5, np.shape(y)) for y in as_tuple(node._array))

    def along(i: int, v: np.ndarray, h: complex) -> complex:
        shifted = [a + h * v if j == i else a for j, a in enumerate(arrays)]
        return sum(np.sum(d * y) for d, y in zip(g, as_tuple(op.forward(*shifted, **metadata))))

    out = []
    for i, x in enumerate(node._inputs):
        pull = op.pulls[0] if op.variadic else next((p for p in op.pulls if p[0] == i), None)
        if pull is None or not (isinstance(x, Tensor) and x._tracked):
            continue
        v = rng.uniform(0.5, 1.5, x._array.shape)
        rule = pull[2](g if several else g[0], node._array, node._inputs, metadata)
        rule = np.sum(fitted(rule[i] if op.variadic else rule, x, op, graph=False) * v)
        error = relative(rule, (along(i, v, 1e-6) - along(i, v, -1e-6)) / 2e-6, 1e-8)
        if op.analytic and not any(np.iscomplexobj(a) for a in arrays):  # sharper, if it sees the imaginary part
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)  # buffers of a scan hold real numbers
                error = min(error, relative(rule, along(i, v, 1j * COMPLEX_STEP).imag / COMPLEX_STEP, 1e-8))
        out.append((f"{op.name}.d{op.arrays[0] if op.variadic else op.arrays[i]}", float(error)))
    return out


def nodes_behind(outputs: list[Tensor]) -> list[Tensor]:
    """The recorded results, behind the outputs, of ops that have rules."""
    return [node for node in behind(outputs) if node._op is not None and node._op.pulls]


def wrong_rules(nodes: list[Tensor], rng: np.random.Generator) -> dict[str, tuple[int, list[tuple[float, int]]]]:
    """{rule: (number of calls checked, [(relative error, index of the node)] for the wrong ones)}

    Of each op, at most MOST_CALLS nodes are checked, evenly spread over time.
    """
    by_op: dict[str, list[Tensor]] = {}
    for node in nodes:
        by_op.setdefault(node._op.name, []).append(node)
    errors: dict[str, list[tuple[float, int]]] = {}
    for group in by_op.values():
        for i in np.linspace(0, len(group) - 1, min(len(group), MOST_CALLS)).astype(int):
            for rule, error in rule_errors(group[i], rng):
                errors.setdefault(rule, []).append((error, group[i]._index))
    wrong = {rule: [pair for pair in found if pair[0] > WRONG] for rule, found in errors.items()}
    return {rule: (len(errors[rule]), found) for rule, found in wrong.items() if found}


def relative(a: complex, b: complex, scale: float) -> float:
    """|a − b| relative to the larger of |a|, |b| and scale."""
    size = max(abs(a), abs(b), scale)
    return abs(a - b) / size if size else 0.0 if a == b else np.inf
