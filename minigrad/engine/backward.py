"""The backward sweep: gradients of outputs, carried back through the records to the leaves.

A result was made after its inputs, so going through the records from the youngest to the oldest meets every
value after all that used it: by then its gradient is complete. The sweep is one loop with a heap of the
values that have a gradient and wait; nothing recurses, and a gradient is dropped as soon as it is used.

The rules are run on arrays, or on tensors (`graph=True`): then the gradients are recorded too, and can be
differentiated again. Shapes and number types are put right here, once, and never in a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from minigrad.engine import tensor as engine
from minigrad.engine.arrays import bare, ndarray, plain
from minigrad.engine.hooks import accumulate, watched
from minigrad.engine.op import OPS, PART, RELEASED, Op, part
from minigrad.engine.ops import add, astype, sum_to
from minigrad.engine.tensor import Node, Shape, Tensor, describe, new, no_grad, node_of

# -- the sweep ----------------------------------------------------------------------------------------


def sweep(outputs: list[Tensor], gradients: list[Any], targets: list[Tensor] | None = None,
          needed: set[int] | None = None, *, graph: bool = False, release: bool = False) -> dict[int, Any]:
    """Send gradients back from the outputs.

    Return {index of target: its gradient}. With targets, only the rules on paths to them run (`needed`, by default from
    `needed_for`), and nothing is written anywhere. Without, the gradients of leaves, and of results that
    retain theirs, are added into `.grad`. Gradients are arrays; with graph=True tensors, and recorded. With
    release=True the nodes let go of their values as they are used.
    """
    if targets is not None and needed is None:
        needed = needed_for(targets, behind(outputs, targets))
    goals = () if targets is None else {t._index for t in targets}
    found: dict[int, Any] = {}
    arrivals, watching = Arrivals(graph, needed), engine.watcher.get()
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
                               "the value (as a state that is carried on) where the new graph begins")
        else:
            if watching is not None:
                watching.visit(node, g)
            if op is PART:  # one result of several: its gradient takes its place in the tuple
                arrivals.part(node._inputs[0], node._metadata["i"], g)
            else:
                run_rules(node, g, arrivals, watching)
        if release and op is not None:
            release_values(node)
    return found


def release_values(node: Any) -> None:
    """Let go of what a node keeps: its backward is done."""
    node._op, node._inputs, node._metadata = RELEASED, None, None
    node._array = tuple([Shape(y.shape, y.dtype) for y in node._array]) if node._array.__class__ is tuple else None


def run_rules(node: Any, g: Any, arrivals: Arrivals, watching: Any) -> None:
    """Run the rules of a node: from its complete gradient g to gradients for its inputs."""
    op, inputs, metadata, mask = node._op, node._inputs, node._metadata, node._mask
    graph, needed = arrivals.graph, arrivals.needed
    if node._index < engine.last_change:
        unchanged_or_raise(node)
    if g.__class__ is list:
        g = tuple([zeros_of(y) if d is None else d for d, y in zip(g, node._array)])
    y = node._array if not graph else value_of(node)
    if op.variadic:
        run_variadic_rule(node, g, y, arrivals, watching)
        return
    for position, recorded, plainly, _, into in op.vjps:
        if not mask >> position & 1:
            continue
        x = inputs[position]
        if x.__class__ is not Node:
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
    """Run the one rule of an op of `*arrays`, which returns a gradient for each."""
    op, inputs, graph, needed = node._op, node._inputs, arrivals.graph, arrivals.needed
    try:
        given = (op.vjps[0].recorded if graph else op.vjps[0].plain)(g, y, inputs, node._metadata)
        if len(given) != len(inputs):
            raise ValueError(f"the rule of {op.name} gave {len(given)} gradients for {len(inputs)} arrays: "
                             "it must return one for each")
        for x, d in zip(inputs, given):
            if not isinstance(x, (Node, Tensor)) or (d is None and op.name not in OPS):  # scan's own has none to give
                continue
            x = node_of(x)
            if x._tracked if needed is None else x._index in needed:
                if watching is not None:
                    watching.gradient(node, op, x, d)
                arrivals.add(x, fitted(d, x, op, graph), op.fresh and not graph)
    except Exception as problem:
        located(problem, op, op.arrays[0])
        raise


class Arrivals:
    """The gradients on their way back, of the values that wait for their turn: all that used a value is younger, so
    when it is the youngest its gradient is complete.

    waiting  {index: [node, the gradient so far, whether that is an array of our own making, to be added into]}
    heap     the indices, the largest first (negative)
    needed   the indices of the values on the paths to the targets; None if all are
    """

    __slots__ = ("graph", "heap", "needed", "waiting")

    def __init__(self, graph: bool, needed: set[int] | None):
        self.graph, self.needed = graph, needed
        self.heap: list[int] = []
        self.waiting: dict[int, list] = {}

    def add(self, x: Any, d: Any, is_own: bool = False) -> None:
        """Add d to the gradient of x. is_own: nobody else holds d."""
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
        """The gradient of x so far, as an array to add into: T slices of x then cost T slices, not T arrays."""
        if x._index not in self.waiting:
            self.add(x, np.zeros(x.shape, x.dtype), is_own=True)
        entry = self.waiting[x._index]
        if not entry[2]:
            entry[1:] = np.array(entry[1]), True
        return entry[1]

    def part(self, whole: Any, i: int, g: Any) -> None:
        """Put the gradient of result i of a node of several in its place."""
        if whole._index not in self.waiting:
            self.add(whole, [None] * len(whole._array))
        self.waiting[whole._index][1][i] = g


def value_of(node: Any) -> Any:
    """The result of a node as a tensor on the graph, or a tuple of them; None if it was not kept."""
    y = node._array
    if y.__class__ is tuple:
        return None if y and isinstance(y[0], Shape) else tuple([part(node, i, np.asarray(v))
                                                                 for i, v in enumerate(y)])
    if node.__class__ is not Node:  # a symbol
        return node
    if y is None:
        return None
    out = new(Tensor)
    out._array, out._tracked, out._node, out._index, out._grad = y, True, node, node._index, None
    return out


def located(problem: Exception, op: Op, argument: str) -> None:
    """Add to an error in a rule which rule it is, and where it is written."""
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
    """No gradient for a leaf of a result: of its shape and type, floats where it holds integers."""
    data = leaf if isinstance(leaf, Shape) else data_of(leaf)
    return np.zeros(data.shape, data.dtype if data.dtype.kind in "fc" else float)


def behind(outputs: Sequence[Tensor], stop: Sequence[Tensor] = ()) -> list[Any]:
    """Every node (a leaf is its own) that gradients reach from the outputs, the oldest first; none behind `stop`."""
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
    """The indices of the targets, and of all among the nodes (the oldest first) that were computed from them."""
    needed = {t._index for t in targets}
    for node in nodes:
        if any([x._index in needed for x in nodes_of(node)]):
            needed.add(node._index)
    return needed


def fitted(d: Any, x: Tensor, op: Op, graph: bool) -> Any:
    """A gradient in the shape and number type of its input: summed over what broadcasting added, and cast."""
    shape, dtype = x.shape, x.dtype
    if not graph and d.__class__ is not ndarray:
        d = data_of(d)
    elif not hasattr(d, "dtype"):  # a Python number
        d = np.asarray(d)
    if d.dtype.kind not in "fciub":
        raise TypeError(f"a rule of {op.name} gave no gradient for {describe(x)}, but {d}: return an array")
    if d.shape != shape:
        added = d.ndim - len(shape)
        if added < 0 or any(n != m and n != 1 for n, m in zip(shape, d.shape[added:])):
            raise ValueError(f"a rule of {op.name} gave a gradient of shape {d.shape} for {describe(x)}: "
                             "it must have that shape, or broadcast from it")
        d = sum_to(d, shape=shape) if graph else sum_to.op.forward(d, shape=shape)
    if d.dtype != dtype:
        if d.dtype.kind == "c" and dtype.kind != "c":
            raise TypeError(f"{describe(x)} is real and its gradient, from {op.name}, complex: "
                            "make it a complex tensor, or keep complex numbers out of the function")
        d = astype(d, dtype=dtype)
    return d


def unchanged_or_raise(node: Any) -> None:
    """A rule reads values of the forward: refuse if one of them has been assigned since."""
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

    gradient: an array of self's shape, 1 for a tensor of size 1. The graph is released as it is used, unless
    retain_graph=True. Raises RuntimeError when there is nothing to go back to, the graph has been released, or a
    value that is needed has changed; ValueError for a gradient of another shape.
    """
    if not self._tracked:
        raise RuntimeError(f"{describe(self)} depends on no tensor that requires gradients: create one with "
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
        raise ValueError(f"the gradient has shape {gradient.shape}, and {describe(y)}: they must be of one shape")
    return gradient.astype(y._array.dtype, copy=False)


Tensor.backward = backward  # type: ignore
