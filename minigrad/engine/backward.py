"""The backward sweep: gradients of outputs, carried back through the records to the leaves.

A result was made after its inputs, so going through the records from the youngest to the oldest meets every
value after all that used it: by then its gradient is complete. The sweep is one loop with a heap of the
values that have a gradient and wait; nothing recurses, and a gradient is dropped as soon as it is used.

The rules are run on arrays, or on tensors (`graph=True`): then the gradients are recorded too, and can be
differentiated again. Shapes and number types are put right here, once, and never in a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import numpy as np

from minigrad.engine import tensor as engine
from minigrad.engine.arrays import bare, ndarray, plain
from minigrad.engine.op import OPS, PART, RELEASED, Op, record
from minigrad.engine.ops import add, astype, sum_to
from minigrad.engine.tensor import Tensor, describe, no_grad

# -- the sweep ----------------------------------------------------------------------------------------


def sweep(outputs: list[Tensor], gradients: list[Any], targets: list[Tensor] | None = None,
          needed: set[int] | None = None, *, graph: bool = False, release: bool = False) -> dict[int, Any]:
    """Send gradients back from the outputs.

    Return {index of target: its gradient}. With targets, only the rules on paths to them run (`needed`, by default from
    `needed_for`), and nothing is written anywhere. Without, the gradients of leaves, and of results that
    retain theirs, are added into `.grad`. Gradients are arrays; with graph=True tensors, and recorded. With
    release=True the records go as they are used.
    """
    totals: dict[int, Any] = {}
    owned: set[int] = set()  # totals that are arrays of our own making, which may be added into
    waiting: list[int] = []
    nodes: dict[int, Tensor] = {}
    found: dict[int, Any] = {}
    goals = None if targets is None else {t._index for t in targets}
    if targets is not None and needed is None:
        needed = needed_for(targets, behind(outputs, targets))
    watching = engine.watcher.get()

    def arrive(x: Tensor, d: Any) -> None:
        """Add d to what has come for x so far."""
        index = x._index
        total = totals.get(index)
        if total is None:
            totals[index] = d
            nodes[index] = x
            heappush(waiting, -index)
        elif graph:
            totals[index] = add(total, d)
        elif index in owned:
            np.add(total, d, out=total)
        else:
            totals[index] = np.add(total, d)
            if totals[index].__class__ is ndarray:
                owned.add(index)

    def add_into(into: Callable, x: Tensor, *rule_arguments: Any) -> None:
        """Let a rule add into the total for x, an array made for it: T slices of x then cost T slices, not T arrays."""
        index = x._index
        if index not in owned:
            before = totals.get(index)
            if before is None:
                arrive(x, np.zeros(x._array.shape, x._array.dtype))
            else:
                totals[index] = np.array(before)
            owned.add(index)
        into(totals[index], *rule_arguments)

    for output, gradient in zip(outputs, gradients):
        if output._tracked if needed is None else output._index in needed:
            arrive(output, gradient)

    while waiting:
        index = -heappop(waiting)
        node, g = nodes.pop(index), totals.pop(index)
        if node._watch is not None:
            g = watched(node, g, graph, keep=targets is None)
        op = node._op
        if goals is not None and index in goals:
            found[index] = g
            continue
        if op is None:
            accumulate(node, g, index in owned)
            continue
        if op is RELEASED:
            raise RuntimeError(f"the graph behind {describe(node)} has been used by an earlier backward and released: "
                               "call that backward with retain_graph=True, run the forward again, or .detach() "
                               "the value (as a state that is carried on) where the new graph begins")
        inputs, metadata = node._inputs, node._metadata
        if index < engine.last_change:
            unchanged_or_raise(node)
        if watching is not None:
            watching.visit(node, g)
        if release:
            node._op, node._inputs, node._metadata = RELEASED, None, None
        if op is PART:  # one result of several: its gradient takes its place in the tuple
            whole = inputs[0]
            if whole._index not in totals:
                arrive(whole, [None] * len(whole._array))
            totals[whole._index][metadata["i"]] = g
            continue
        y = node if graph else node._array
        if g.__class__ is list:
            g = tuple([zeros_of(v) if d is None else d for d, v in zip(g, node._array)])
            if graph:
                y = tuple([record(PART, (node,), {"i": i}, np.asarray(v), True) for i, v in enumerate(node._array)])
        position = 0
        try:
            if op.variadic:
                given = op.pulls[0][1 if graph else 2](g, y, inputs, metadata)
                if len(given) != len(inputs):
                    raise ValueError(f"the rule of {op.name} gave {len(given)} gradients for {len(inputs)} arrays: "
                                     "it must return one for each")
                for x, d in zip(inputs, given):
                    if d is None and op.name not in OPS:  # one of the engine's own has none to give
                        continue
                    if isinstance(x, Tensor) and (x._tracked if needed is None else x._index in needed):
                        if watching is not None:
                            watching.gradient(node, op, x, d)
                        d = fitted(d, x, op, graph)
                        arrive(x, d)
                        if op.fresh and not graph and totals[x._index] is d:
                            owned.add(x._index)
                continue
            for position, pull, pull_arrays, _ in op.pulls:
                x = inputs[position]
                if not isinstance(x, Tensor) or not (x._tracked if needed is None else x._index in needed):
                    continue
                if graph:
                    d = pull(g, y, inputs, metadata)
                elif position in op.into:
                    add_into(op.into[position], x, g, y, inputs, metadata)
                    continue
                else:
                    d = pull_arrays(g, y, inputs, metadata)
                if watching is not None:
                    watching.gradient(node, op, x, d)
                try:
                    if d.shape != x._array.shape or d.dtype is not x._array.dtype:
                        d = fitted(d, x, op, graph)
                except AttributeError:  # a rule gave a Python number
                    d = fitted(np.asarray(d), x, op, graph)
                arrive(x, d)
        except Exception as problem:
            located(problem, op, op.arrays[position])
            raise
    return found


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
    data = data_of(leaf)
    return np.zeros(data.shape, data.dtype if data.dtype.kind in "fc" else float)


def behind(outputs: list[Tensor], stop: list[Tensor] = ()) -> list[Tensor]:
    """Every value that gradients reach from the outputs, the oldest first; nothing that lies behind `stop`."""
    stop = {x._index for x in stop}
    seen = {y._index: y for y in outputs if y._tracked}
    stack = list(seen.values())
    while stack:
        node = stack.pop()
        if node._index in stop:
            continue
        for x in node._inputs or ():
            if isinstance(x, Tensor) and x._tracked and x._index not in seen:
                seen[x._index] = x
                stack.append(x)
    return [seen[index] for index in sorted(seen)]


def needed_for(targets: list[Tensor], nodes: list[Tensor]) -> set[int]:
    """The indices of the targets, and of all among the nodes (the oldest first) that were computed from them."""
    needed = {t._index for t in targets}
    for node in nodes:
        if any([isinstance(x, Tensor) and x._index in needed for x in node._inputs or ()]):
            needed.add(node._index)
    return needed


def fitted(d: Any, x: Tensor, op: Op, graph: bool) -> Any:
    """A gradient in the shape and number type of its input: summed over what broadcasting added, and cast."""
    shape, dtype = x._array.shape, x._array.dtype
    if not graph and d.__class__ is not ndarray:
        d = data_of(d)
    if d.dtype.kind not in "fciub":
        raise TypeError(f"a rule of {op.name} gave no gradient for {describe(x)}, but {d}: return an array")
    if d.shape != shape:
        added = d.ndim - len(shape)
        if added < 0 or any(n != m and n != 1 for n, m in zip(shape, d.shape[added:])):
            raise ValueError(f"a rule of {op.name} gave a gradient of shape {d.shape} for {describe(x)}: "
                             "it must have that shape, or broadcast from it")
        d = sum_to(d, shape=x.shape) if graph else sum_to.op.forward(d, shape=shape)
    if d.dtype != dtype:
        if d.dtype.kind == "c" and dtype.kind != "c":
            raise TypeError(f"{describe(x)} is real and its gradient, from {op.name}, complex: "
                            "make it a complex tensor, or keep complex numbers out of the function")
        d = astype(d, dtype=dtype)
    return d


def watched(node: Tensor, g: Any, graph: bool, keep: bool) -> Any:
    """Show a complete gradient to the hooks of its value, and keep it if asked."""
    for hook in [h for key, h in node._watch.items() if key != "retain"]:
        if not graph:  # other values may have been sent the same array
            g = np.asarray(g).view()
            g.flags.writeable = False
        seen = hook(g)
        if seen is not None:
            seen = seen if isinstance(seen, Tensor) else plain(seen)
            if np.shape(seen) != node._array.shape:
                raise ValueError(f"a hook returned a gradient of shape {np.shape(seen)} for {describe(node)}: "
                                 "return that shape, or None to leave it as it is")
            g = seen if graph else np.asarray(seen, node._array.dtype)
    if keep and "retain" in node._watch and node._op is not None:
        accumulate(node, g)
    return g


def accumulate(leaf: Tensor, g: Any, owned: bool = False) -> None:
    """Add into .grad; never in place, so that an array taken from .grad earlier keeps its values. owned: nobody else
    holds g, so that it need not be copied."""
    g = g._array if isinstance(g, Tensor) else g
    if leaf._grad is None:
        leaf._grad = g if owned else np.array(g)
    else:
        leaf._grad = np.asarray(leaf._grad + g)


def unchanged_or_raise(node: Tensor) -> None:
    """A rule reads values of the forward: refuse if one of them has been assigned since."""
    op, inputs = node._op, node._inputs
    for _, _, _, reads in op.pulls:
        for x in [node if r < 0 else inputs[r] for r in reads] if not op.variadic else inputs * bool(reads):
            if isinstance(x, Tensor) and x._version > node._index:
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


Tensor.backward = backward
