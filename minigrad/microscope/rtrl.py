"""Real-time recurrent learning: the exact gradient, forward in time, without keeping a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.derived import derive
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.timeloop.call import length

Array = np.ndarray


def rtrl(cell: Callable, state: Any, xs: Any, weights: Sequence[Tensor]) -> Iterator[tuple[float, list[Array]]]:
    """Yield, at each step, its loss and the gradient of this loss with respect to each of the weights.

    cell     (state, x) → (new state, loss), as for `scan`: state any nesting of n floats, loss one number
    weights  tensors that the cell closes over, with |W| numbers in all

    The influence P = d(state)/d(weights), (n, |W|), is carried forward: P_next = J P + ∂⁺(new state)/∂W, with the
    Jacobian J = ∂(new state)/∂(state) and ∂⁺ the derivative by the weights of this step alone. Both come from the
    derived backward, a row for each number of the new state. The sum of the gradients over the steps equals that of
    BPTT. Memory: n |W| numbers, for any T. Time: n² |W| products a step; for H units H⁴. Weights that change between
    two steps are read anew; the influence of the earlier ones is then out of date.

    Williams & Zipser, "A learning algorithm for continually running fully recurrent neural networks", Neural
    Computation 1(2), 1989. Raises ValueError for a loss that is not one number, and for weights without effect.
    """
    derived = derive(cell, state, map_leaves(lambda x: x[0], xs))
    closed = [id(tensor) for tensor in derived.closed]
    if missing := [w.name or f"of shape {w.shape}" for w in weights if id(w) not in closed]:
        raise ValueError(f"the cell does not use these weights: {', '.join(missing)}")
    chosen = [closed.index(id(w)) - len(closed) for w in weights]  # the last results of `backward` are theirs
    n = sum(np.size(leaf) for leaf in flatten(state)[0])
    influence = np.zeros((n, sum(w.size for w in weights)))
    for t in range(length(flatten(xs)[0], xs)):
        results, cache = derived.forward(state, map_leaves(lambda x, t=t: x[t], xs))
        state, loss = results
        if np.size(loss) != 1:
            raise ValueError(f"the cell returns a loss of shape {np.shape(loss)}, and must return one number")
        rows = [derived.backward(row, cache) for row in unit_vectors(results)]
        J = np.array([flat(row[0]) for row in rows])                                        # (n + 1, n)
        of_this_step = np.array([flat([row[i] for i in chosen]) for row in rows])           # (n + 1, |W|)
        influence = J @ influence + of_this_step
        gradient, influence = influence[n], influence[:n]
        yield float(np.reshape(loss, ())), shaped_like(weights, gradient)


def unit_vectors(tree: Any) -> Iterator[Any]:
    """For each number of a tree, the tree with 1 in its place and 0 elsewhere."""
    leaves, pattern = flatten(tree)
    for row in np.eye(sum(np.size(leaf) for leaf in leaves)):
        yield unflatten(pattern, shaped_like(leaves, row))


def flat(tree: Any) -> Array:
    """All numbers of a tree as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in flatten(tree)[0]])


def shaped_like(leaves: Sequence[Any], vector: Array) -> list[Array]:
    """Cut a vector into arrays of the shapes of the leaves."""
    ends = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
    return [part.reshape(np.shape(leaf)) for part, leaf in zip(np.split(vector, ends), leaves)]
