"""Layered layout of a graph: positions of its boxes, with every edge going down and few crossings.

The method of Sugiyama, Tagawa & Toda (1981) in three steps: a layer for each box (its longest path from the top), an
order within each layer (barycentres, then swaps of neighbours), and an x for each box near its neighbours. An edge that
passes a layer gets a dummy vertex there, so no edge runs over a box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, combinations, pairwise
from operator import attrgetter
from statistics import fmean

import numpy as np

GAP = 26.0  # distance between the boxes of a layer
DUMMY_WIDTH = 14.0  # width reserved for an edge that passes a layer
SWEEPS = 24  # maximum number of sweeps to order the layers
CLEARANCE = 10.0  # distance of a straightened edge from the boxes beside it


@dataclass
class Vertex:
    """A box, or (dummy) the point where an edge passes a layer."""

    layer: int
    width: float
    dummy: bool = False
    x: float = 0.0  # x of the middle
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)


@dataclass
class Layout:
    """Positions of the vertices: first the boxes in the given order, then the dummies.

    layers  the vertices of each layer, from left to right
    routes  the vertices of each edge, from end to end
    """

    vertices: list[Vertex]
    layers: list[list[int]]
    routes: list[list[int]]

    @property
    def left(self) -> float:
        return min(vertex.x - vertex.width / 2 for vertex in self.vertices)

    @property
    def right(self) -> float:
        return max(vertex.x + vertex.width / 2 for vertex in self.vertices)

    def mirror(self) -> None:
        self.layers = [layer[::-1] for layer in self.layers]
        for vertex in self.vertices:
            vertex.x = -vertex.x

    def ranks(self) -> dict[int, int]:
        """The position of each vertex in its layer."""
        return {i: k for layer in self.layers for k, i in enumerate(layer)}


def layered(widths: list[float], edges: list[tuple[int, int]], first: set[int]) -> Layout:
    """Lay out boxes of these widths.

    edges  (from, to) with from < to: the boxes are in an order of computation
    first  boxes that go into the first layer; other boxes without an incoming edge go just above their first use
    """
    vertices = [Vertex(layer, width) for layer, width in zip(layers_of(len(widths), edges, first), widths)]
    routes = []
    for source, target in edges:
        route = [source]
        for layer in range(vertices[source].layer + 1, vertices[target].layer):
            route.append(len(vertices))
            vertices.append(Vertex(layer, DUMMY_WIDTH, dummy=True))
        routes.append([*route, target])
    for route in routes:
        for upper, lower in pairwise(route):
            vertices[upper].below.append(lower)
            vertices[lower].above.append(upper)
    layout = Layout(vertices, [[] for _ in range(1 + max(vertex.layer for vertex in vertices))], routes)
    for i in first_order(vertices):
        layout.layers[vertices[i].layer].append(i)
    order(layout)
    align(layout)
    return layout


def layers_of(count: int, edges: list[tuple[int, int]], first: set[int]) -> list[int]:
    """The layer of each box: one below its lowest predecessor."""
    layers = [0] * count
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        layers[target] = max(layers[target], layers[source] + 1)
    for i in range(count):
        if i not in first and all(target != i for _, target in edges):
            layers[i] = max(0, min([layers[target] for source, target in edges if source == i], default=1) - 1)
    return layers


def first_order(vertices: list[Vertex]) -> list[int]:
    """Vertices depth first from the top, which keeps connected ones together."""
    seen: dict[int, None] = {}
    stack = [i for i, vertex in enumerate(vertices) if not vertex.above][::-1]
    while stack:
        i = stack.pop()
        if i not in seen:
            seen[i] = None
            stack += reversed(vertices[i].below)
    return list(seen)


# -- the order in each layer ------------------------------------------------------------------------------------


def order(layout: Layout) -> None:
    """Sweep down and up, sorting each layer by the mean rank of its neighbours; keep the sweep with the fewest
    crossings."""
    best, fewest = layout.layers, np.inf
    for sweep in range(SWEEPS):
        side, layers = ("above", layout.layers) if sweep % 2 == 0 else ("below", layout.layers[::-1])
        for layer in layers:
            rank = layout.ranks()
            means = {i: fmean([rank[k] for k in getattr(layout.vertices[i], side)] or [rank[i]]) for i in layer}
            layer.sort(key=means.get)
        swap_neighbours(layout)
        found = crossings(layout)
        if found < fewest:
            best, fewest = [list(layer) for layer in layout.layers], found
        if fewest == 0:
            break
    layout.layers = best


def swap_neighbours(layout: Layout) -> None:
    """Swap neighbours while that saves crossings."""
    rank, better = layout.ranks(), True
    while better:
        better = False
        for layer in layout.layers:
            for k in range(len(layer) - 1):
                left, right = layer[k:k + 2]
                if crossings_saved(layout.vertices[left], layout.vertices[right], rank) > 0:
                    layer[k:k + 2] = right, left
                    rank[left], rank[right] = k + 1, k
                    better = True


def crossings_saved(left: Vertex, right: Vertex, rank: dict[int, int]) -> int:
    """The number of crossings saved by swapping two neighbours; only their own edges matter."""
    return sum((rank[a] > rank[b]) - (rank[a] < rank[b])
               for ends, others in ((left.above, right.above), (left.below, right.below)) for a in ends for b in others)


def crossings(layout: Layout) -> int:
    """The number of pairs of edges that cross between successive layers."""
    rank, total = layout.ranks(), 0
    for layer in layout.layers:
        ends = [end for i in layer for end in sorted(rank[k] for k in layout.vertices[i].below)]
        total += sum(one > other for one, other in combinations(ends, 2))
    return total


# -- x ------------------------------------------------------------------------------------------------------


def align(layout: Layout) -> None:
    """Move every box towards its neighbours, as far as the order and the gaps of its layer allow.

    Each pass solves the least squares of the springs of one layer with the other layers fixed. Springs are stiffer
    between a box and its only successor, and stiffest within the dummies of one edge, which straightens long edges.
    """
    vertices, passes = layout.vertices, {i: route[1:-1] for route in layout.routes for i in route[1:-1]}
    for layer in layout.layers:
        x = -sum(vertices[i].width + GAP for i in layer) / 2
        for i in layer:
            vertices[i].x = x + vertices[i].width / 2
            x += vertices[i].width + GAP

    def is_only(i: int, k: int) -> bool:
        upper, lower = sorted((vertices[i], vertices[k]), key=attrgetter("layer"))
        return len(upper.below) == len(lower.above) == 1

    def springs_at(i: int) -> list[tuple[float, float]]:
        """[(stiffness, x of the other end)]"""
        vertex = vertices[i]
        ends = vertex.above + vertex.below
        if not vertex.dummy:
            return [(4.0 if is_only(i, k) else 1.0, vertices[k].x) for k in ends] or [(0.1, vertex.x)]
        springs = [(1.0, vertices[k].x) for k in ends if k not in passes]
        return [*springs, (8.0, sum(vertices[k].x for k in passes[i]) / len(passes[i]))]

    for sweep in range(4 * SWEEPS):
        for layer in layout.layers if sweep % 2 == 0 else reversed(layout.layers):
            springs = [springs_at(i) for i in layer]
            weights = [sum(w for w, _ in near) for near in springs]
            targets = [sum(w * x for w, x in near) / weight for near, weight in zip(springs, weights)]
            for i, x in zip(layer, apart(targets, weights, [vertices[i].width for i in layer])):
                vertices[i].x = x
    for route in layout.routes:
        straighten(layout, route[1:-1])


def straighten(layout: Layout, passing: list[int]) -> None:
    """Give all dummies of an edge the same x, the nearest to their mean with room on both sides, if possible."""
    vertices = layout.vertices
    low, high = -np.inf, np.inf
    for i in passing:
        layer = layout.layers[vertices[i].layer]
        k = layer.index(i)
        if k:
            low = max(low, vertices[layer[k - 1]].x + vertices[layer[k - 1]].width / 2 + CLEARANCE)
        if k + 1 < len(layer):
            high = min(high, vertices[layer[k + 1]].x - vertices[layer[k + 1]].width / 2 - CLEARANCE)
    if passing and low <= high:
        x = sum(vertices[i].x for i in passing) / len(passing)
        for i in passing:
            vertices[i].x = min(max(x, low), high)


def apart(targets: list[float], weights: list[float], widths: list[float]) -> list[float]:
    """The positions nearest to the targets in weighted least squares, without overlaps.

    After subtracting the widths this is isotonic regression: neighbours in the wrong order get their common mean.
    """
    steps = ((left / 2 + GAP + right / 2) for left, right in pairwise(widths))
    offsets = list(accumulate(steps, initial=0.0))
    blocks: list[list[float]] = []  # [mean, weight, number of boxes]
    for target, weight, offset in zip(targets, weights, offsets):
        blocks.append([target - offset, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, total, count = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * total) / (last[1] + total)
            last[1], last[2] = last[1] + total, last[2] + count
    means = [mean for mean, _, count in blocks for _ in range(int(count))]
    return [mean + offset for mean, offset in zip(means, offsets)]
