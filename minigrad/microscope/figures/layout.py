"""Where the boxes of a graph stand: in layers, every edge going down, as few crossings as a few sweeps find.

The way of Sugiyama, Tagawa & Toda 1981, in three steps: a layer for each box (the longest way to it), an order in each
layer (barycentres, then exchanges of neighbours), and an x for each box, near the boxes it is joined to. Where an edge
passes a layer a thin box of its own keeps the place free, so no edge runs over a box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

GAP = 26.0  # between the boxes of a layer
THIN = 14.0  # the width that an edge keeps free where it passes a layer
SWEEPS = 24
SIDES = 10.0  # what stays free beside an edge that is drawn straight


@dataclass
class Place:
    """One box, or the place where an edge passes a layer."""

    layer: int
    width: float
    thin: bool = False
    x: float = 0.0  # of its middle
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)


@dataclass
class Layout:
    """places of the boxes, in the order they were given; then those of passing edges. layers: the places of each, from
    left to right. ways: for each edge the places that it goes through, its two ends among them."""

    places: list[Place]
    layers: list[list[int]]
    ways: list[list[int]]

    @property
    def left(self) -> float:
        return min(place.x - place.width / 2 for place in self.places)

    @property
    def right(self) -> float:
        return max(place.x + place.width / 2 for place in self.places)

    def mirrored(self) -> Layout:
        for place in self.places:
            place.x = -place.x
        self.layers = [layer[::-1] for layer in self.layers]
        return self


def layered(widths: list[float], edges: list[tuple[int, int]], first: set[int]) -> Layout:
    """Lay out boxes of these widths.

    edges  (from, to) with from < to: the boxes are given in an order of computing
    first  boxes that stand in the first layer whatever uses them; others that nothing leads to stand just above what
           uses them
    """
    places = [Place(layer, width) for layer, width in zip(layers_of(len(widths), edges, first), widths)]
    ways = []
    for source, target in edges:
        way = [source]
        for layer in range(places[source].layer + 1, places[target].layer):
            way.append(len(places))
            places.append(Place(layer, THIN, thin=True))
        ways.append([*way, target])
    for way in ways:
        for upper, lower in pairwise(way):
            places[upper].below.append(lower)
            places[lower].above.append(upper)
    layout = Layout(places, [[] for _ in range(1 + max(place.layer for place in places))], ways)
    for i in first_order(places):
        layout.layers[places[i].layer].append(i)
    order(layout)
    align(layout)
    return layout


def layers_of(count: int, edges: list[tuple[int, int]], first: set[int]) -> list[int]:
    """The layer of each box: one below the lowest of what leads to it."""
    layers = [0] * count
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        layers[target] = max(layers[target], layers[source] + 1)
    for i in range(count):
        if i not in first and all(target != i for _, target in edges):
            layers[i] = max(0, min([layers[target] for source, target in edges if source == i], default=1) - 1)
    return layers


def first_order(places: list[Place]) -> list[int]:
    """Depth first from the top: what is joined stands together."""
    seen: dict[int, None] = {}
    stack = [i for i, place in enumerate(places) if not place.above][::-1]
    while stack:
        i = stack.pop()
        if i not in seen:
            seen[i] = None
            stack += reversed(places[i].below)
    return list(seen)


# -- the order in each layer ------------------------------------------------------------------------------------


def order(layout: Layout) -> None:
    """Sweep down and up, and keep the order with the fewest crossings."""
    best, fewest = layout.layers, crossings(layout)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for n in range(len(layout.layers)) if down else reversed(range(len(layout.layers))):
            rank = {i: k for layer in layout.layers for k, i in enumerate(layer)}
            layer = layout.layers[n]

            def barycentre(i, down=down, rank=rank):
                near = layout.places[i].above if down else layout.places[i].below
                return sum(rank[k] for k in near) / len(near) if near else rank[i]

            layout.layers[n] = sorted(layer, key=barycentre)
        exchange(layout)
        found = crossings(layout)
        if found < fewest:
            best, fewest = [list(layer) for layer in layout.layers], found
        if fewest == 0:
            break
    layout.layers = best


def exchange(layout: Layout) -> None:
    """Exchange neighbours as long as that saves crossings."""
    rank = {i: k for layer in layout.layers for k, i in enumerate(layer)}
    better = True
    while better:
        better = False
        for layer in layout.layers:
            for k in range(len(layer) - 1):
                left, right = layer[k:k + 2]
                if saved(layout.places[left], layout.places[right], rank) > 0:
                    layer[k:k + 2] = right, left
                    rank[left], rank[right] = k + 1, k
                    better = True


def saved(left: Place, right: Place, rank: dict[int, int]) -> int:
    """How many crossings fewer there are when two neighbours are exchanged: only their own edges matter."""
    return sum((rank[a] > rank[b]) - (rank[a] < rank[b])
               for ends, others in ((left.above, right.above), (left.below, right.below)) for a in ends for b in others)


def crossings(layout: Layout) -> int:
    """How many pairs of edges cross, layer after layer."""
    total = 0
    for upper, lower in zip(layout.layers, layout.layers[1:]):
        rank = {i: k for k, i in enumerate(lower)}
        ends = [sorted(rank[i] for i in layout.places[u].below) for u in upper]
        seen: list[int] = []
        for near in ends:
            total += sum(s > end for end in near for s in seen)
            seen += near
    return total


# -- x ------------------------------------------------------------------------------------------------------


def align(layout: Layout) -> None:
    """Move every box towards those it is joined to, as far as the order and the gaps of its layer allow.

    Each pass sets one layer to the least squares of what pulls at it, the others held still. A box and its only
    follower pull harder, and the thin places of one edge pull each other most, so that long ways become straight.
    """
    places, passes = layout.places, {i: way[1:-1] for way in layout.ways for i in way[1:-1]}
    for layer in layout.layers:
        x = -sum(places[i].width + GAP for i in layer) / 2
        for i in layer:
            places[i].x = x + places[i].width / 2
            x += places[i].width + GAP

    def pulls_at(i: int) -> list[tuple[float, float]]:
        """[(how hard, to which x)]"""
        place = places[i]
        ends = [k for k in place.above + place.below if k not in passes or not place.thin]
        pulls = [(4.0 if only(i, k) and not place.thin else 1.0, places[k].x) for k in ends]
        if place.thin:
            pulls.append((8.0, sum(places[k].x for k in passes[i]) / len(passes[i])))
        return pulls or [(0.1, place.x)]

    def only(i: int, k: int) -> bool:
        upper, lower = sorted((places[i], places[k]), key=lambda place: place.layer)
        return len(upper.below) == len(lower.above) == 1

    for sweep in range(4 * SWEEPS):
        for layer in layout.layers if sweep % 2 == 0 else reversed(layout.layers):
            pulls = [pulls_at(i) for i in layer]
            weights = [sum(w for w, _ in near) for near in pulls]
            wishes = [sum(w * x for w, x in near) / weight for near, weight in zip(pulls, weights)]
            for i, x in zip(layer, apart(wishes, weights, [places[i].width for i in layer])):
                places[i].x = x
    for way in layout.ways:
        straighten(layout, way[1:-1])


def straighten(layout: Layout, passing: list[int]) -> None:
    """One x for all thin places of an edge, the nearest to their mean that leaves room on both sides, if there is one.
    """
    places = layout.places
    low, high = -float("inf"), float("inf")
    for i in passing:
        layer = layout.layers[places[i].layer]
        k = layer.index(i)
        if k:
            low = max(low, places[layer[k - 1]].x + places[layer[k - 1]].width / 2 + SIDES)
        if k + 1 < len(layer):
            high = min(high, places[layer[k + 1]].x - places[layer[k + 1]].width / 2 - SIDES)
    if passing and low <= high:
        x = sum(places[i].x for i in passing) / len(passing)
        for i in passing:
            places[i].x = min(max(x, low), high)


def apart(wishes: list[float], weights: list[float], widths: list[float]) -> list[float]:
    """The positions nearest to the wishes, by weighted squares, in which nothing overlaps.

    Without the room that the boxes take it is isotonic regression: neighbours that would change places share a mean.
    """
    room, offsets = 0.0, []
    for k, width in enumerate(widths):
        room += (widths[k - 1] / 2 + GAP + width / 2) if k else 0.0
        offsets.append(room)
    blocks: list[list[float]] = []  # [mean, weight, how many]
    for wish, weight, offset in zip(wishes, weights, offsets):
        blocks.append([wish - offset, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, total, count = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * total) / (last[1] + total)
            last[1], last[2] = last[1] + total, last[2] + count
    means = [mean for mean, _, count in blocks for _ in range(int(count))]
    return [mean + offset for mean, offset in zip(means, offsets)]
