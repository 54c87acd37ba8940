"""The backward sweep: propagate gradients from the outputs through the nodes to the leaves.

A result is younger than its inputs, so the sweep visits the nodes from the youngest to the oldest. When it reaches
a node, it has visited every node that used the value, and the gradient is complete. The sweep is one loop over a
heap of the nodes that have a gradient. Nothing recurses, and a gradient is freed as soon as it is used.

The rules run on arrays, or on tensors (`graph=True`): then the gradients are recorded and can be differentiated
again. The sweep fits each gradient to the shape and dtype of its input; a rule never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from minigrad.engine import tensor as engine
from minigrad.engine.arrays import bare, ndarray, plain
from minigrad.engine.context import no_grad, watcher
from minigrad.engine.hooks import accumulate, watched
from minigrad.engine.op import OPS, PART, RELEASED, Op
from minigrad.engine.ops import add, astype, sum_to
from minigrad.engine.tensor import Node, Shape, Tensor, describe, new, node_of, result

# -- the sweep ----------------------------------------------------------------------------------------


def sweep(outputs: list[Tensor], gradients: list[Any], targets: list[Tensor] | None = None,
          needed: set[int] | None = None, *, graph: bool = False, release: bool = False) -> dict[int, Any]:
    """Propagate gradients back from the outputs. Return {index of target: its gradient}.

    With targets, only the rules on paths to them run (`needed`, by default from `needed_for`), and no `.grad`
    changes. Without targets, the gradients of leaves, and of results after `retain_grad`, are added into `.grad`.
    Gradients are arrays; with graph=True they are recorded tensors. release=True frees the values of each node
    after use.
    """
    if targets is not None and needed is None:
        needed = needed_for(targets, behind(outputs, targets))
    goals = () if targets is None else {t._index for t in targets}
    found: dict[int, Any] = {}
    arrivals, watching = Arrivals(graph, needed), watcher.get()
    for output, gradient in zip(outputs, gradients):
        if output._tracked if needed is None else output._index in needed:
            arrivals.add(node_of(output), gradient)

    waiting, heap = arrivals.waiting, arrivals.heap
    while heap:
        node, g, is_own = waiting.pop(-heappop(heap))
        if node._watch is not None:
            g = watched(node, g, graph, keep=targets is None)
        op, index = node._op, node._index
        if index in goals:
            found[index] = g
        elif op is None:
            if node._tracked:
                accumulate(node, g, is_own)
        elif op is RELEASED:
            raise RuntimeError(f"the graph behind {describe(node)} has been used by an earlier backward and released: "
                               "call that backward with retain_graph=True, run the forward again, or .detach() "
                               "the value (such as a carried state) where the new graph begins")
        else:
            if watching is not None:
                watching.visit(node, g)
            if op is PART:  # one of several results: store its gradient at i
                arrivals.part(node._inputs[0], node._metadata["i"], g)
            else:
                run_rules(node, g, arrivals, watching)
        if release and op is not None:
            release_values(node)
    return found


def release_values(node: Any) -> None:
    """Free the values that a node keeps, after its backward."""
    node._op, node._inputs, node._metadata = RELEASED, None, None
    node._array = tuple([y if y.__class__ is Shape else Shape(y.shape, y.dtype) for y in node._array]) \
        if node._array.__class__ is tuple else None


def run_rules(node: Any, g: Any, arrivals: Arrivals, watching: Any) -> None:
    """Run the rules of a node: compute the gradients of its inputs from its complete gradient g."""
    op, inputs, metadata, mask = node._op, node._inputs, node._metadata, node._mask
    graph, needed = arrivals.graph, arrivals.needed
    if node._index < engine.last_change:
        unchanged_or_raise(node)
    if g.__class__ is list and (graph or not op.fresh):
        g = tuple([zeros_of(y) if d is None else d for d, y in zip(g, node._array)])
    y = node._array if not graph else value_of(node)
    if op.variadic:
        run_variadic_rule(node, g, y, arrivals, watching)
        return
    for position, recorded, plainly, _, into in op.vjps:
        if not mask >> position & 1:
            continue
        x = inputs[position]
        x = x._node or x
        if needed is not None and x._index not in needed:
            continue
        try:
            if graph:
                d = recorded(g, y, inputs, metadata)
            elif into is None:
                d = plainly(g, y, inputs, metadata)
            else:
                into(arrivals.total(x), g, y, inputs, metadata)
                continue
            if watching is not None:
                watching.gradient(node, op, x, d)
            if getattr(d, "shape", None) != x.shape or d.dtype is not x.dtype:
                d = fitted(d, x, op, graph)
        except Exception as problem:
            located(problem, op, op.arrays[position])
            raise
        arrivals.add(x, d)


def run_variadic_rule(node: Any, g: Any, y: Any, arrivals: Arrivals, watching: Any) -> None:
    """Run the single rule of an op of `*arrays`, which returns one gradient for each array."""
    op, inputs, graph, needed = node._op, node._inputs, arrivals.graph, arrivals.needed
    try:
        given = (op.vjps[0].recorded if graph else op.vjps[0].plain)(g, y, inputs, node._metadata)
        if len(given) != len(inputs):
            raise ValueError(f"the rule of {op.name} returned {len(given)} gradients for {len(inputs)} arrays: "
                             "it must return one for each")
        for x, d in zip(inputs, given):
            if not isinstance(x, (Node, Tensor)) or (d is None and op.name not in OPS):  # scan's may be None
                continue
            x = x._node or x
            if x._tracked if needed is None else x._index in needed:
                if watching is not None:
                    watching.gradient(node, op, x, d)
                arrivals.add(x, fitted(d, x, op, graph), op.fresh and not graph)
    except Exception as problem:
        located(problem, op, op.arrays[0])
        raise


class Arrivals:
    """The gradients of the nodes that the sweep has not visited yet. The gradient of the youngest node is complete.

    waiting  {index: [node, gradient so far, whether the sweep owns that array and may add into it]}
    heap     negated indices, so the youngest node comes first
    needed   indices of the nodes on paths to the targets; None for all nodes
    """

    __slots__ = ("graph", "heap", "needed", "waiting")

    def __init__(self, graph: bool, needed: set[int] | None):
        self.graph, self.needed = graph, needed
        self.heap: list[int] = []
        self.waiting: dict[int, list] = {}

    def add(self, x: Any, d: Any, is_own: bool = False) -> None:
        """Add d to the gradient of x. is_own: nothing else refers to d."""
        index = x._index
        entry = self.waiting.get(index)
        if entry is None:
            self.waiting[index] = [x, d, is_own]
            heappush(self.heap, -index)
        elif self.graph:
            entry[1] = add(entry[1], d)
        elif entry[2]:
            np.add(entry[1], d, out=entry[1])
        else:
            entry[1] = total = np.add(entry[1], d)
            entry[2] = total.__class__ is ndarray

    def total(self, x: Any) -> ndarray:
        """The gradient of x so far, as an array to add into. T slices of x then cost T slices, not T arrays."""
        if x._index not in self.waiting:
            self.add(x, np.zeros(x.shape, x.dtype), is_own=True)
        entry = self.waiting[x._index]
        if not entry[2]:
            entry[1:] = np.array(entry[1]), True
        return entry[1]

    def part(self, whole: Any, i: int, g: Any) -> None:
        """Store the gradient of result i of a node with several results."""
        if whole._index not in self.waiting:
            self.add(whole, [None] * len(whole._array))
        self.waiting[whole._index][1][i] = g


def value_of(node: Any) -> Any:
    """The result of a node as a tensor on the graph, or a tuple of them; None if it was not saved."""
    y = node._array
    if y.__class__ is tuple:
        return None if y and isinstance(y[0], Shape) else tuple([
            result(np.asarray(v), PART, (node,), 1, {"i": i}, None) for i, v in enumerate(y)])
    if node.__class__ is not Node:  # a symbol
        return node
    if y is None:
        return None
    out = new(Tensor)
    out._array, out._tracked, out._node, out._index, out._grad = y, True, node, node._index, None
    return out


def located(problem: Exception, op: Op, argument: str) -> None:
    """Add to an error in a rule the name of the rule, and its file and line."""
    rule = op.rules.get(argument)
    note = f"in the backward of {op.name}" if rule is None else (
        f"in the rule d{argument} of op {op.name}, {rule.__code__.co_filename}:{rule.__code__.co_firstlineno}")
    if hasattr(problem, "add_note"):
        problem.add_note(note)
    else:  # Python 3.10
        problem.args = (f"{problem} ({note})",)


def data_of(leaf: Any) -> ndarray:
    return leaf._array if isinstance(leaf, Tensor) else bare(leaf)


def zeros_of(leaf: Any) -> ndarray:
    """A zero gradient shaped like `leaf`, in its dtype; float64 if it holds integers."""
    data = leaf if isinstance(leaf, Shape) else data_of(leaf)
    return np.zeros(data.shape, data.dtype if data.dtype.kind in "fc" else float)


def behind(outputs: Sequence[Tensor], stop: Sequence[Tensor] = ()) -> list[Any]:
    """Every node (a leaf is its own) that gradients of the outputs reach, oldest first. The search ends at `stop`."""
    ends = {x._index for x in stop}
    seen = {y._index: node_of(y) for y in outputs if y._tracked}
    stack = list(seen.values())
    while stack:
        node = stack.pop()
        if node._index in ends:
            continue
        for x in nodes_of(node):
            if x._tracked and x._index not in seen:
                seen[x._index] = x
                stack.append(x)
    return [seen[index] for index in sorted(seen)]


def nodes_of(node: Any) -> list[Any]:
    """The nodes of a node's inputs."""
    return [node_of(x) for x in node._inputs or () if isinstance(x, (Node, Tensor))]


def needed_for(targets: list[Tensor], nodes: list[Any]) -> set[int]:
    """The indices of the targets, and of those nodes (ordered oldest first) that were computed from them."""
    needed = {t._index for t in targets}
    for node in nodes:
        if any([x._index in needed for x in nodes_of(node)]):
            needed.add(node._index)
    return needed


def fitted(d: Any, x: Any, op: Op, graph: bool) -> Any:
    """Fit a gradient to the shape and dtype of its input: sum over the broadcast axes, and cast."""
    shape, dtype = x.shape, x.dtype
    if not graph and d.__class__ is not ndarray:
        d = data_of(d)
    elif not hasattr(d, "dtype"):  # a Python number
        d = np.asarray(d)
    if d.dtype.kind not in "fciub":
        raise TypeError(f"a rule of {op.name} returned no gradient for {describe(x)}, but {d}: return an array")
    if d.shape != shape:
        added = d.ndim - len(shape)
        if added < 0 or any(n != m and n != 1 for n, m in zip(shape, d.shape[added:])):
            raise ValueError(f"a rule of {op.name} returned a gradient of shape {d.shape} for {describe(x)}: "
                             "it must have that shape, or broadcast from it")
        d = sum_to(d, shape=shape) if graph else sum_to.op.forward(d, shape=shape)
    if d.dtype != dtype:
        if d.dtype.kind == "c" and dtype.kind != "c":
            raise TypeError(f"{describe(x)} is real, but its gradient from {op.name} is complex: "
                            "make it a complex tensor, or keep complex numbers out of the function")
        d = astype(d, dtype=dtype)
    return d


def unchanged_or_raise(node: Any) -> None:
    """Raise RuntimeError if a value that a rule reads has been assigned since the forward."""
    op, inputs = node._op, node._inputs
    saves = {i for vjp in op.vjps if op.variadic or node._mask >> vjp.position & 1 for i in vjp.saves}
    saved = inputs if op.variadic and saves else [node if i < 0 else inputs[i] for i in saves]
    for x in saved:
        if isinstance(x, (Node, Tensor)) and getattr(node_of(x), "_version", 0) > node._index:
            raise RuntimeError(f"{describe(x)} was changed after {op.name} had used it, and the gradient needs the "
                               "old values: change it after backward, or work on a copy")


# -- backward: gradients into .grad ----------------------------------------------------------------------


def backward(self: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add dL/dleaf into `.grad` of every leaf that requires gradients, where L = Σ gradient · self.

    gradient is an array of self's shape, by default 1 for a tensor of size 1. The sweep releases the graph unless
    retain_graph=True. Raises RuntimeError if self does not require gradients, if the graph has been released, or if
    a value that a rule reads has changed; ValueError for a gradient of another shape.
    """
    if not self._tracked:
        raise RuntimeError(f"{describe(self)} does not depend on a tensor that requires gradients: create one with "
                           "mg.tensor(data, requires_grad=True), and compute outside of no_grad")
    with no_grad():
        sweep([self], [seed(self, gradient)], release=not retain_graph)


def seed(y: Tensor, gradient: Any) -> Any:
    if gradient is None:
        if y._array.size != 1:
            raise ValueError(f"{describe(y)} is not a single number: reduce it (.sum(), .mean()), or pass the gradient "
                             "of the loss with respect to it, of the same shape")
        return np.ones(y._array.shape, y._array.dtype)
    gradient = gradient._array if isinstance(gradient, Tensor) else np.asarray(plain(gradient))
    if gradient.shape != y._array.shape:
        raise ValueError(f"a gradient of shape {gradient.shape} does not fit {describe(y)}: pass one of the same shape")
    return gradient.astype(y._array.dtype, copy=False)


Tensor.backward = backward  # type: ignore
