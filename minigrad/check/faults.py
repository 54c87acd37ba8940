"""Find the faulty rules behind a wrong gradient: each rule of each recorded op is checked separately."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, NamedTuple

import numpy as np

from minigrad.engine.anomaly import recorded, unwatched, user_line
from minigrad.engine.backward import behind, fitted
from minigrad.engine.context import watcher
from minigrad.engine.op import OPS, Op
from minigrad.engine.tensor import Node, Tensor

COMPLEX_STEP = 1e-20
WRONG = 1e-5  # a rule with a larger relative error is reported as wrong
MOST_CALLS = 100  # calls checked for each op


class Call(NamedTuple):
    """One recorded op call with all values, also those that no rule reads and the graph frees."""

    node: Node
    arrays: list
    y: Any
    location: str


class CallSites:
    """A watcher that records every op call. Under any watcher, scan runs step by step."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}

    def __enter__(self) -> Any:
        self.token = watcher.set(self)
        return self

    def __exit__(self, *exception: Any) -> None:
        watcher.reset(self.token)

    def __call__(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        out = unwatched(op, inputs, arrays, metadata, tracked)
        node = recorded(out)
        if node is not None:
            y = tuple([part._array for part in out]) if isinstance(out, tuple) else out._array
            self.calls[node._index] = Call(node, list(arrays), y, user_line())
        return out

    def visit(self, node: Tensor, g: Any) -> None:
        """Ignore the nodes of a sweep."""

    def gradient(self, node: Tensor, op: Op, x: Tensor, d: Any) -> None:
        """Ignore the gradients of a sweep."""


def rule_errors(call: Call, rng: np.random.Generator) -> list[tuple[str, float]]:
    """[(rule, relative error)] for each rule of one recorded op: ⟨rule(g), v⟩ against ⟨g, J v⟩."""
    node, arrays = call.node, call.arrays
    op, metadata = node._op, node._metadata
    several = isinstance(call.y, tuple)
    as_tuple = (lambda y: y) if several else (lambda y: (y,))
    g = tuple(rng.uniform(0.5, 1.5, y.shape) for y in as_tuple(call.y))

    def along(i: int, v: np.ndarray, h: complex) -> complex:
        shifted = [a + h * v if j == i else a for j, a in enumerate(arrays)]
        return sum(np.sum(d * y) for d, y in zip(g, as_tuple(op.forward(*shifted, **metadata))))

    out = []
    for i, x in enumerate(node._inputs):
        vjp = op.vjps[0] if op.variadic else next((vjp for vjp in op.vjps if vjp.position == i), None)
        if vjp is None or not node._mask >> i & 1:
            continue
        v = rng.uniform(0.5, 1.5, np.shape(arrays[i]))
        rule = vjp.plain(g if several else g[0], call.y, node._inputs, metadata)
        rule = np.sum(fitted(rule[i] if op.variadic else rule, x, op, graph=False) * v)
        error = relative(rule, (along(i, v, 1e-6) - along(i, v, -1e-6)) / 2e-6, 1e-8)
        if op.analytic and not any(np.iscomplexobj(a) for a in arrays):  # sharper, if it sees the imaginary part
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)  # buffers of a scan hold real numbers
                error = min(error, relative(rule, along(i, v, 1j * COMPLEX_STEP).imag / COMPLEX_STEP, 1e-8))
        out.append((f"{op.name}.d{op.arrays[0] if op.variadic else op.arrays[i]}", float(error)))
    return out


def nodes_behind(outputs: list[Tensor]) -> list[Node]:
    """The nodes behind the outputs whose ops have rules."""
    return [node for node in behind(outputs) if node._op is not None and node._op.vjps]


def scan_calls(nodes: list[Node]) -> list[Call]:
    """The calls of the scans, which keep all their inputs."""
    return [Call(node, [x._array if isinstance(x, Tensor) else x for x in node._inputs], node._array, "")
            for node in nodes if node._op.name not in OPS]


def wrong_rules(calls: list[Call], rng: np.random.Generator) -> dict[str, tuple[int, list[tuple[float, Call]]]]:
    """{rule: (number of calls checked, [(relative error, call)] for the wrong ones, the worst first)}

    Of each op, at most MOST_CALLS calls are checked, evenly spread over time.
    """
    by_op: dict[str, list[Call]] = {}
    for call in calls:
        by_op.setdefault(call.node._op.name, []).append(call)
    errors: dict[str, list[tuple[float, Call]]] = {}
    for group in by_op.values():
        for i in np.linspace(0, len(group) - 1, min(len(group), MOST_CALLS)).astype(int):
            for rule, error in rule_errors(group[i], rng):
                errors.setdefault(rule, []).append((error, group[i]))
    wrong = {rule: sorted([pair for pair in found if pair[0] > WRONG], key=lambda pair: -pair[0])
             for rule, found in errors.items()}
    return {rule: (len(errors[rule]), found) for rule, found in wrong.items() if found}


def relative(a: complex, b: complex, scale: float) -> float:
    """|a − b| relative to the larger of |a|, |b| and scale."""
    size = max(abs(a), abs(b), scale)
    return abs(a - b) / size if size else 0.0 if a == b else np.inf
