"""Transformations of functions: grad, vjp, jvp, jacobian, hessian, over any nesting of tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine import context
from minigrad.engine.arrays import plain
from minigrad.engine.backward import behind, data_of, needed_for, sweep, zeros_of
from minigrad.engine.ops import copy, reshape, stack
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor, wrap


def grad(f: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """The function that returns df/dx for the argument x of a scalar f: `grad(f)(x, …)`.

    Each argument in argnums is a float or any nesting of tuples, lists and dicts of float arrays. Its gradient has
    the same nesting, shapes and dtypes, and is zero where f does not depend on it. If argnums is a tuple, the result
    is a tuple. With has_aux, f returns (loss, aux), and `grad(f)(x, …)` returns (df/dx, aux).

    A gradient is a Tensor if it depends on tensors outside f that require gradients, else an array. So grads nest,
    also over variables of an enclosing function. The same holds for the tensors in aux.
    """
    both = value_and_grad(f, argnums, has_aux)

    def gradient(*args, **kwargs):
        value, d = both(*args, **kwargs)
        return (d, value[1]) if has_aux else d
    return gradient


def value_and_grad(f: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """Like `grad`, but returns (f(x), df/dx); with has_aux ((loss, aux), df/dx)."""
    def value_and_gradient(*args, **kwargs):
        y, pull, value = pullback(f, args, kwargs, positions(argnums, args), has_aux)
        refuse_without_floats(y)
        if len(flatten(y)[0]) != 1 or np.size(flatten(y)[0][0]) != 1:
            raise ValueError(f"grad needs a function that returns one number, not {nature(y)}: reduce the result, pass "
                             "has_aux=True for a function that returns (loss, aux), or use mg.jacobian or mg.vjp")
        gradients = pull(map_leaves(lambda leaf: np.ones(np.shape(leaf), data_of(leaf).dtype), y))
        return value, gradients if isinstance(argnums, tuple) else gradients[0]
    return value_and_gradient


def vjp(f: Callable, *args: Any) -> tuple[Any, Callable[[Any], tuple]]:
    """`y, pull = vjp(f, *x)`: y = f(*x), and pull(d_y) returns a tuple with d_x for each argument.

    d_y has the nesting and shapes of y. pull may be called any number of times.
    """
    _, pull, value = pullback(f, args, {}, range(len(args)))
    return value, pull


def jvp(f: Callable, args: tuple, tangents: tuple) -> tuple[Any, Any]:
    """(f(*args), its derivative in the direction of the tangents), both in the nesting of f's result.

    The tangents have the nesting and shapes of args. The vjp is linear in d_y, and its own vjp is the jvp: this needs
    no second set of rules. The cost is about three evaluations of f.
    """
    if not isinstance(args, tuple) or not isinstance(tangents, tuple):
        raise TypeError("jvp takes the arguments and the tangents as two tuples: mg.jvp(f, (x,), (v,))")
    same_shapes(args, tangents, "tangents", "arguments")
    y, pull, value = pullback(f, args, {}, range(len(args)))
    _, pull_again = vjp(pull, map_leaves(zeros_of, y))
    return value, pull_again(tangents)[0]


def hvp(f: Callable, x: Any, v: Any) -> Any:
    """Hessian-vector product of a scalar f at x: d/dx ⟨df/dx, v⟩. v and the result have the nesting and shapes of x."""
    same_shapes(x, v, "v", "x")
    _, pull = vjp(grad(f), x)
    return pull(v)[0]


def jacobian(f: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """The function that returns dy/dx, of shape y.shape + x.shape. It takes one sweep for each entry of y.

    Nested results or arguments return the nesting of y, with that of x in place of each leaf. A tuple of argnums adds
    a tuple as one more level of x.
    """
    def rows(*args, **kwargs):
        wanted = positions(argnums, args)
        y, pull, _ = pullback(f, args, kwargs, wanted)
        refuse_without_floats(y)
        leaves, pattern = flatten(y)
        blocks = []
        for k, leaf in enumerate(leaves):
            gradients = []
            for i in np.ndindex(np.shape(leaf)):
                d_y = [zeros_of(other) for other in leaves]
                d_y[k][i] = 1
                gradients.append(pull(unflatten(pattern, d_y)))
            blocks.append(stacked(gradients, np.shape(leaf), [args[p] for p in wanted]))
        out = [tuple(block) if isinstance(argnums, tuple) else block[0] for block in blocks]
        return unflatten(pattern, out)
    return rows


def hessian(f: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """The function that returns d²f/dx² of a scalar f, of shape x.shape + x.shape."""
    return jacobian(grad(f, argnums), argnums)


# -- shared implementation ---------------------------------------------------------------------------------


def pullback(f: Callable, args: tuple, kwargs: dict, wanted: Any, has_aux: bool = False) -> tuple[Any, Callable, Any]:
    """Run f with fresh tensors for the wanted arguments. Return its result y, the function from d_y to gradients, and
    the result for the caller. With has_aux f returns (y, aux), and the caller gets both.

    Gradients are taken with respect to the fresh tensors, never the caller's: so nested gradients cannot be confused.
    If the result depends on outer tensors (arguments of the caller, which `copy` keeps in the graph, or tensors that f
    closes over), gradients are recorded and results stay tensors; else they are arrays.
    """
    arguments = list(args)
    fresh: list[Tensor] = []
    made: list[Tensor] = []
    recording, symbolic = context.recording.get(), is_symbolic()

    def lift(x):
        callers = isinstance(x, Tensor) and x._tracked and recording
        fresh.append(copy(x) if callers or (symbolic and isinstance(x, Tensor)) else Tensor(x))
        fresh[-1].name = getattr(x, "name", None)
        if not callers:
            if fresh[-1].dtype.kind not in "fc":
                raise TypeError(f"a derivative with respect to {fresh[-1].dtype} numbers does not exist: "
                                "pass floats, such as 2.0 for 2")
            made.append(fresh[-1])
            made[-1]._tracked = True
        return fresh[-1]

    for position in wanted:
        arguments[position] = map_leaves(lift, arguments[position])
    token = context.recording.set(True)
    try:
        y = f(*arguments, **kwargs)
    finally:
        context.recording.reset(token)
    aux = None
    if has_aux:
        if not isinstance(y, (tuple, list)) or len(y) != 2:
            raise TypeError(f"with has_aux=True the function must return (loss, aux), not {nature(y)}")
        y, aux = y
    outputs = [leaf if isinstance(leaf, Tensor) else wrap(np.asarray(leaf)) for leaf in flatten(y)[0]]
    nodes = behind(outputs, fresh)
    needed = needed_for(fresh, nodes)
    known = {x._index for x in made}

    def depends(nodes: list[Tensor]) -> bool:
        """Whether one of these nodes is a leaf of the caller: then gradients must be recorded."""
        return recording and any(x._inputs is None and x._index not in known for x in nodes)

    outer = symbolic or (recording and len(made) < len(fresh)) or depends(nodes)
    aux = map_leaves(lambda leaf: leaf if isinstance(leaf, Tensor) and depends(behind([leaf], fresh))
                     else own_array(leaf), aux)
    for x in made:  # untracked from now on, so outer code does not record through them
        x._tracked = False

    def pull(d_y: Any) -> tuple:
        same_shapes(y, d_y, "the gradient", "the result")
        given = flatten(d_y)[0]
        recorded = is_symbolic() or (context.recording.get() and (
            outer or any(isinstance(g, Tensor) and g._tracked for g in given)))
        gradients = [g if isinstance(g, Tensor) else np.asarray(plain(g), out._array.dtype)
                     for g, out in zip(given, outputs)]
        gradients = [data_of(g) if not recorded else g if isinstance(g, Tensor) else wrap(g) for g in gradients]
        found = sweep(outputs, gradients, fresh, needed, graph=recorded)
        values = iter([handed_out(found.get(x._index), x) for x in fresh])
        return tuple(map_leaves(lambda _: next(values), arguments[position]) for position in wanted)

    value = y if outer else map_leaves(own_array, y)
    return y, pull, (value, aux) if has_aux else value


def handed_out(g: Any, x: Tensor) -> Any:
    """A gradient for the caller: a tensor if it depends on outer tensors, else a new array."""
    if g is None:
        return np.zeros(x._array.shape, x._array.dtype)
    return g if isinstance(g, Tensor) and (g._tracked or is_symbolic()) else np.array(data_of(g))


def is_symbolic() -> bool:
    """Whether a function is being traced. Values are then examples, and only the records count."""
    return getattr(context.watcher.get(), "symbolic", False)


def own_array(leaf: Any) -> Any:
    """A copy of a tensor's values for the caller to change: pull still reads the originals. Other leaves unchanged."""
    return np.array(leaf._array) if isinstance(leaf, Tensor) else leaf


def positions(argnums: int | tuple[int, ...], args: tuple) -> list[int]:
    wanted = list(argnums) if isinstance(argnums, tuple) else [argnums]
    for position in wanted:
        if not -len(args) <= position < len(args):
            raise ValueError(f"argnums names argument {position}, but there are {len(args)}: count from 0")
    wanted = [position % len(args) for position in wanted]
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"argnums {argnums} names an argument twice: name each once")
    return wanted


def nature(y: Any) -> str:
    leaves = flatten(y)[0]
    return f"an array of shape {np.shape(leaves[0])}" if len(leaves) == 1 else f"{len(leaves)} arrays"


def same_shapes(tree: Any, other: Any, other_name: str, name: str) -> None:
    """Raise ValueError unless two trees have equally many leaves, of the same shapes."""
    shapes, others = ([tuple(np.shape(leaf)) for leaf in flatten(t)[0]] for t in (tree, other))
    if shapes != others:
        raise ValueError(f"{other_name} must have the shapes of {name}: {shapes}, not {others}")


def refuse_without_floats(y: Any) -> None:
    """Raise TypeError for a result without floats: its derivative would silently be zero."""
    kinds = [data_of(leaf).dtype for leaf in flatten(y)[0]]
    if not any(kind.kind in "fc" for kind in kinds):
        raise TypeError(f"no derivative of {', '.join(map(str, kinds)) or 'nothing'} exists: return floats")


def stacked(gradients: list[tuple], shape: tuple, args: list) -> list:
    """Stack the rows of a Jacobian, one tree for each row, into trees whose leaves have the row axes in front."""
    out = []
    for position, arg in enumerate(args):
        leaves, pattern = flatten(arg)
        columns = [[flatten(row[position])[0][i] for row in gradients] for i in range(len(leaves))]
        joined = []
        for leaf, rows in zip(leaves, columns):
            full = (*shape, *np.shape(leaf))
            joined.append(reshape(stack(rows), full) if rows else np.zeros(full, data_of(leaf).dtype))
        out.append(unflatten(pattern, joined))
    return out
