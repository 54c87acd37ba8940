"""A scan in a derived function: two plain loops, equal to the engine for every cell of the table."""

import numpy as np
import pytest
from derive.test_derive import assert_equal_trees
from scan_cells import CELLS

import minigrad as mg
from minigrad.tree import flatten, map_leaves


def check(f, *inputs, tolerance=1e-12):
    """derive(f), its forward and backward equal to the engine's, as the text alone gives them."""
    derived = mg.derive(f, *inputs)
    alone = {}
    exec(compile(derived.source, "alone.py", "exec"), alone)
    args = [*inputs, *(x._data for x in derived.closed)]
    y, cache = alone["forward"](*args)

    def engine(*values):
        return f(*values)
    floats = [i for i, x in enumerate(inputs) if any(np.asarray(leaf).dtype.kind == "f" for leaf in flatten(x)[0])]
    expected, pull = mg.vjp(lambda *values: f(*[values[floats.index(i)] if i in floats else x
                                                for i, x in enumerate(inputs)]), *[inputs[i] for i in floats])
    assert_equal_trees(y, expected, tolerance)
    d_y = map_leaves(lambda leaf: np.cos(3 * leaf + np.arange(np.size(leaf)).reshape(np.shape(leaf))).astype(np.asarray(leaf).dtype), expected)
    d = alone["backward"](d_y, cache)
    assert_equal_trees(d[:len(floats)], pull(d_y), tolerance)
    return derived.source


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("row", CELLS, ids=str)
def test_cell(row, reverse):
    state, xs, weights = row.inputs()
    if any(leaf.dtype.kind != "f" for leaf in flatten(xs)[0]):
        floats = [leaf for leaf in flatten(xs)[0] if leaf.dtype.kind == "f"]
        from minigrad.tree import unflatten
        def f(state, floats, weights):
            it = iter(floats)
            x = unflatten(xs, [next(it) if leaf.dtype.kind == "f" else leaf for leaf in flatten(xs)[0]])
            return mg.scan(row.cell(weights), state, x, reverse=reverse)
        source = check(f, state, floats, weights)
    else:
        def f(state, xs, weights):
            return mg.scan(row.cell(weights), state, xs, reverse=reverse)
        source = check(f, state, xs, weights)
    assert "for t in" in source
