"""Pytrees: flatten and unflatten restore every nesting, with the same container classes."""

import collections
import gc
import weakref

import numpy as np
import pytest

from minigrad.engine.pytree import flatten, map_leaves, named_leaves, unflatten

Pair = collections.namedtuple("Pair", "h c")

TREES = [
    (1.0, [("", 1.0)]),
    (None, []),
    ((), []),
    ([1, (2, [3])], [("[0]", 1), ("[1][0]", 2), ("[1][1][0]", 3)]),
    ({"b": 1, "a": {"c": 2}}, [("b", 1), ("a.c", 2)]),  # insertion order, not alphabetical
    (Pair(1, (2, None)), [("h", 1), ("c[0]", 2)]),
    ([Pair(1, 2), None, {"w": [3]}], [("[0].h", 1), ("[0].c", 2), ("[2].w[0]", 3)]),
    (collections.OrderedDict(x=1, y=2), [("x", 1), ("y", 2)]),
    (collections.defaultdict(list, x=1), [("x", 1)]),
    ("text is a leaf", [("", "text is a leaf")]),
]


@pytest.mark.parametrize("tree, leaves", TREES)
def test_trees_come_apart_and_together(tree, leaves):
    assert named_leaves(tree) == leaves
    found, pattern = flatten(tree)
    assert found == [leaf for _, leaf in leaves]
    again = unflatten(pattern, found)
    assert again == tree and type(again) is type(tree)
    doubled = map_leaves(lambda leaf: (leaf, leaf), tree)
    assert len(flatten(doubled)[0]) == 2 * len(leaves)


def test_names_continue_a_name():
    assert named_leaves({"Wf": 1, "state": (2,)}, "p") == [("p.Wf", 1), ("p.state[0]", 2)]


def test_a_tree_is_not_changed():
    tree = {"a": [1.0, None]}
    map_leaves(lambda leaf: leaf + 1, tree)
    assert tree == {"a": [1.0, None]}


def test_leaves_are_freed_without_the_garbage_collector():
    class Leaf:
        pass

    gc.disable()
    try:
        leaf = Leaf()
        saved = weakref.ref(leaf)
        unflatten({"a": [np.ones(2), (1, 2)]}, [leaf, leaf, leaf])
        del leaf
        assert saved() is None
    finally:
        gc.enable()
