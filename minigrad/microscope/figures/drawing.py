"""A graph drawn as SVG: boxes in layers, edges over time around them.

Names and expressions are escaped, so they never become markup. The SVG has neither style sheet nor script nor ids, so a
page can contain several.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from minigrad.microscope.figures.layout import layered

MOST_BOXES = 300  # maximum number of boxes in a picture
FONT = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
CHARACTER = 0.602  # width of a character in these fonts, as a fraction of the font size
NAME, SMALL = 14.0, 12.0  # font sizes
LINE = 30  # maximum number of characters in a row of an expression
ROWS = 4  # maximum number of rows in a box
CHANNEL = 46.0  # height between two layers, for the edges
LANE = 14.0  # distance between parallel edges over time
MARGIN = 18.0
PAGE = 960.0  # maximum width at which a picture is shown; a wider one is scaled down
WIDEST, DECADES = 7.0, 6  # width of the largest gradient, and the decades below it down to a width of 1
INK, BLUE, BROWN, GREY, PAPER, CELL, FRAME = "#1c1f26", "#1f4e79", "#a8480f", "#5c6470", "#fdfdfe", "#f2f4f8", "#c3c8d1"
FILL = {"state": "#cfe0f0", "scan": "#cfe0f0", "weight": "#ece7db"}  # other boxes are white
GIVEN = ("x", "state", "argument")


@dataclass
class Box:
    """A value of the graph.

    kind    "x", "state", "argument": an argument of the function; "weight": closed over; "value": computed; "scan": a
            loop, which has results but no shape
    result  whether the function returns it (a cell: as y)
    """

    name: str
    text: str
    shape: tuple[int, ...] | None
    kind: str
    result: bool = False

    @property
    def size(self) -> str:
        return "" if self.shape is None else f"({', '.join(map(str, self.shape))})"


@dataclass(eq=False)
class Edge:
    """An edge from a value to one that reads it, as indices of boxes; over time, from a new state to the old one.

    sizes  norm of the gradient along the edge at every step of a recording, in the order of running; over time, of the
           gradient from the step after
    """

    source: int
    target: int
    over_time: bool = False
    sizes: np.ndarray | None = None

    def size(self, step: int | None) -> float | None:
        """The size at a step, or (None) of all steps together; None if unknown."""
        if self.sizes is None or (step is not None and step >= len(self.sizes)):
            return None
        return float(np.linalg.norm(self.sizes) if step is None else self.sizes[step])


class Picture:
    """An SVG that Jupyter shows. svg: its text. `save` raises ValueError for a name that does not end in .svg."""

    def __init__(self, svg: str):
        self.svg = svg

    def save(self, path: str | Path) -> None:
        path = Path(path)
        if path.suffix.lower() != ".svg":
            raise ValueError(f"a graph is saved as SVG, and {path.name or path} does not end in .svg: save it as "
                             f"{path.with_suffix('.svg').name if path.name else 'graph.svg'}, which browsers show and "
                             "other programs convert to PNG or PDF")
        path.write_text(self.svg, encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg


class Graph:
    """Boxes and edges, with their pictures.

    times  index in xs of each step of a recording, in the order of running, which is the order of the edges' sizes
    """

    def __init__(self, name: str, boxes: list[Box], edges: list[Edge], times: Sequence[int] | None = None):
        self.name, self.boxes, self.edges, self.times = name, boxes, edges, times

    @property
    def is_cell(self) -> bool:
        return any(edge.over_time for edge in self.edges)

    def folded(self) -> Picture:
        """The picture of the function, or of one step of a cell with its edges over time."""
        return Picture(Drawing(self).svg())

    def unrolled(self, steps: int | None = None, start: int = 0) -> Picture:
        """The picture of a cell over `steps` steps (default 3, or fewer in a shorter recording) from step `start`, in
        the order of running. Raises ValueError for a function that is not a cell, and for steps that do not exist."""
        if not self.is_cell:
            raise ValueError(f"{self.name} is not a cell: only a function (state, x) → (state, y) runs over time")
        most = MOST_BOXES // len(self.boxes)
        count = len(self.times) if self.times is not None else None
        if not isinstance(start, (int, np.integer)) or start < 0 or (count is not None and start >= count):
            raise ValueError(f"{self.name} is unrolled from a step ≥ 0{f' and < {count}' * (count is not None)}, "
                             f"not {start!r}")
        most = most if count is None else min(most, count - start)
        steps = min(3, most) if steps is None else steps
        if not isinstance(steps, (int, np.integer)) or not 1 <= steps <= most:
            raise ValueError(f"{self.name} is unrolled over 1 to {most} steps from step {start}, not {steps!r}")
        return Picture(Drawing(self, range(start, start + steps)).svg())

    def save(self, path: str | Path) -> None:
        self.folded().save(path)

    def _repr_svg_(self) -> str:
        return self.folded().svg


class Drawing:
    """One picture of a graph: sizes and positions of the boxes, paths of the edges, and their SVG."""

    def __init__(self, graph: Graph, steps: range | None = None):
        """steps: those to draw side by side; None: the folded picture."""
        self.graph, self.folded = graph, steps is None
        self.columns: list[int | None] = [None] if steps is None else list(steps)
        self.rows = [wrapped(box.text) if self.folded else [] for box in graph.boxes]
        self.widths = [self.width(box, rows) for box, rows in zip(graph.boxes, self.rows)]
        self.heights = [26.0 + 15.0 * len(rows) + 4.0 * bool(rows) for rows in self.rows]
        self.inside = [edge for edge in graph.edges if not edge.over_time]
        self.carried = [edge for edge in graph.edges if edge.over_time]
        room = [width + 4 * LANE * (box.kind == "scan") for box, width in zip(graph.boxes, self.widths)]
        self.layout = layered(room, [(edge.source, edge.target) for edge in self.inside],
                              {i for i, box in enumerate(graph.boxes) if box.kind in GIVEN})
        self.turn()
        self.assign_rows()
        self.find_ports()
        self.scale = Scale([edge.size(step) for edge in graph.edges for step in self.columns])
        self.parts: list[str] = []

    def width(self, box: Box, rows: list[str]) -> float:
        head = len(box.name) * NAME + (len(box.size) + 1) * SMALL * self.folded
        return max(44.0, CHARACTER * max([head, *(len(row) * SMALL for row in rows)]) + 20.0)

    def turn(self) -> None:
        """Mirror the layout if fewer edges over time cross then: the higher a new state, the further right its old
        state should be."""
        vertices = self.layout.vertices
        self.carried.sort(key=lambda edge: (vertices[edge.source].layer, -vertices[edge.source].x))
        right = [vertices[edge.target].x for edge in self.carried]
        pairs = [(a, b) for i, a in enumerate(right) for b in right[i + 1:]]
        if sum(a < b for a, b in pairs) > sum(a > b for a, b in pairs):
            self.layout.mirror()
            self.carried.sort(key=lambda edge: (vertices[edge.source].layer, -vertices[edge.source].x))

    def assign_rows(self) -> None:
        """Set the y of every layer, and the lanes of the edges over time: right of a column, and above it."""
        layout, n = self.layout, len(self.carried)
        self.lanes_of = [[edge for edge in self.carried if layout.vertices[edge.source].layer == k]
                         for k in range(len(layout.layers))]
        self.left = MARGIN * 2
        self.start = self.left + MARGIN - layout.left
        self.column = layout.right - layout.left + 2 * MARGIN
        self.gutter = LANE * (n + 2) if n else 0.0
        self.cell_top = MARGIN + 24.0 * (not self.folded) + (LANE * (n + 1) if n else 0.0)
        y, self.layer_top, self.layer_height = self.cell_top + MARGIN, [], []
        for layer, lanes in zip(layout.layers, self.lanes_of):
            boxes = [i for i in layer if i < len(self.heights)]
            self.layer_top.append(y)
            self.layer_height.append(max(self.heights[i] for i in boxes))
            spread = max([abs(layout.vertices[i].x - layout.vertices[k].x)
                          for i in layer for k in layout.vertices[i].below], default=0.0)
            y += self.layer_height[-1] + CHANNEL + min(40.0, spread / 12) + LANE * len(lanes)
        self.cell_bottom = y - CHANNEL + MARGIN

    def x(self, i: int, column: int) -> float:
        return self.start + column * (self.column + self.gutter) + self.layout.vertices[i].x

    def top(self, i: int) -> float:
        layer = self.layout.vertices[i].layer
        return self.layer_top[layer] + (self.layer_height[layer] - self.heights[i]) / 2

    def find_ports(self) -> None:
        """Set where each edge leaves and enters its boxes, relative to their middle: sorted by the x of the other end.
        The only edge on a side is placed where it runs straight."""
        vertices, routes, boxes = self.layout.vertices, self.layout.routes, range(len(self.graph.boxes))
        self.ports: dict[tuple[int, str], float] = {}  # (index of the edge, "out" or "in")
        alone = []
        for i in boxes:
            leaving = [(vertices[route[1]].x, k) for k, route in enumerate(routes) if route[0] == i]
            leaving += [(np.inf, -1 - k) for k, edge in enumerate(self.carried) if edge.source == i]
            entering = [(vertices[route[-2]].x, k) for k, route in enumerate(routes) if route[-1] == i]
            for ends, side in ((leaving, "out"), (entering, "in")):
                space = min(18.0, (self.widths[i] - 16.0) / max(1, len(ends) - 1))
                for rank, (_, k) in enumerate(sorted(ends)):
                    self.ports[k, side] = (rank - (len(ends) - 1) / 2) * space
                    if len(ends) == 1 and k >= 0:
                        alone.append((k, side))
        for k, side in alone:
            here, there = (routes[k][0], routes[k][1]) if side == "out" else (routes[k][-1], routes[k][-2])
            other = "in" if side == "out" else "out"
            x = vertices[there].x + (self.ports[k, other] if there in boxes else 0.0) - vertices[here].x
            if abs(x) <= self.widths[here] / 2 - 12.0:
                self.ports[k, side] = x

    # -- SVG --------------------------------------------------------------------------------------------------

    def svg(self) -> str:
        for column, step in enumerate(self.columns):
            left = self.left + column * (self.column + self.gutter)
            self.rectangle(left, self.cell_top, self.column, self.cell_bottom - self.cell_top, CELL, FRAME, 1.0, 12)
            if step is not None:
                time = step if self.graph.times is None else self.graph.times[step]
                self.text(left + 4, MARGIN + 14, f"step {time}", SMALL, BLUE)
        for draw, things in ((self.draw_edge, self.inside), (self.draw_carry, self.carried),
                             (self.draw_box, self.graph.boxes)):
            for column in range(len(self.columns)):
                for k, thing in enumerate(things):
                    draw(k, thing, column)
        width = self.left * 2 + len(self.columns) * (self.column + self.gutter)
        width, height = max(width, 330.0), self.legend(self.cell_bottom + 26.0)
        scale = min(1.0, PAGE / width)
        what = f"The graph of {self.graph.name}" + ("" if self.folded else f" over {len(self.columns)} steps")
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * scale:.0f}" height="{height * scale:.0f}" '
                f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto" role="img" '
                f'aria-label="{written(what)}">\n'
                f"<title>{written(what)}</title>\n"
                f'<rect width="{width:.0f}" height="{height:.0f}" fill="{PAPER}"/>\n'
                f'<g font-family="{FONT}">\n' + "\n".join(self.parts) + "\n</g>\n</svg>\n")

    def rectangle(self, x: float, y: float, w: float, h: float, fill: str, stroke: str, line: float, round_: float
                  ) -> None:
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{round_:.0f}" '
                          f'fill="{fill}" stroke="{stroke}" stroke-width="{line:g}"/>')

    def text(self, x: float, y: float, label: str, size: float, ink: str, anchor: str = "start", bold: bool = False
             ) -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{ink}" text-anchor="{anchor}"'
                          + (' font-weight="bold"' if bold else "") + f' xml:space="preserve">{written(label)}</text>')

    def draw_box(self, i: int, box: Box, column: int) -> None:
        x, y, w, h = self.x(i, column), self.top(i), self.widths[i], self.heights[i]
        if box.kind == "scan":
            self.draw_loop(x + w / 2, y + 0.25 * h, y + 0.75 * h)
        label = " ".join(filter(None, [box.name, box.size, box.text and f"= {box.text}"]))
        self.parts.append(f'<g class="box"><title>{written(label)}</title>')
        self.rectangle(x - w / 2, y, w, h, FILL.get(box.kind, "#ffffff"), INK if box.kind != "weight" else GREY,
                       2.6 if box.result else 1.2, h / 2 if box.kind in GIVEN else 5)
        if self.folded and box.size:
            room = CHARACTER * (len(box.name) * NAME + (len(box.size) + 1) * SMALL)
            self.text(x - room / 2, y + 18, box.name, NAME, INK, bold=True)
            self.text(x + room / 2, y + 18, box.size, SMALL, GREY, "end")
        else:
            self.text(x, y + 18, box.name, NAME, INK, "middle", bold=True)
        for k, row in enumerate(self.rows[i]):
            self.text(x, y + 35 + 15 * k, row, SMALL, INK, "middle")
        self.parts.append("</g>")

    def draw_loop(self, x: float, high: float, low: float) -> None:
        """Draw the edge over time of a scan, out of its right side and back into it."""
        side = x + 1.5 * LANE
        width, ink, dash = self.scale.line(None, True)
        self.parts.append('<g class="loop">')
        self.line(rounded([(x, low), (side, low), (side, high), (x + 8, high)]), ink, width, dash)
        self.parts.append(f'<path d="M{x:.1f} {high:.1f} l10 -4.5 v9 Z" fill="{ink}"/>')
        self.rectangle(side - 4.5, (high + low) / 2 - 4.5, 9, 9, ink, ink, 1, 0)
        self.parts.append("</g>")

    def draw_edge(self, k: int, edge: Edge, column: int) -> None:
        route = self.layout.routes[k]
        x, y = self.x(edge.source, column) + self.ports[k, "out"], self.top(edge.source) + self.heights[edge.source]
        path = [f"M{x:.1f} {y:.1f}"]
        end_x, end_y = self.x(edge.target, column) + self.ports[k, "in"], self.top(edge.target)
        for before, after in pairwise(route):
            layer = self.layout.vertices[before].layer
            low, high = self.layer_top[layer] + self.layer_height[layer], self.layer_top[layer + 1]
            next_x = end_x if after == edge.target else self.x(after, column)
            middle = (low + high) / 2
            path.append(f"L{x:.1f} {low:.1f} C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {high:.1f}")
            x = next_x
        path.append(f"L{x:.1f} {end_y - 6:.1f}")
        self.draw_arrow(edge, column, " ".join(path), end_x, end_y)

    def draw_carry(self, k: int, edge: Edge, column: int) -> None:
        """Draw an edge over time: down into the channel, right into the gutter, up, over this column
        (unrolled: the next), and down."""
        n, layer = len(self.carried), self.layout.vertices[edge.source].layer
        x = self.x(edge.source, column) + self.ports[-1 - k, "out"]
        y = self.top(edge.source) + self.heights[edge.source]
        low = self.layer_top[layer] + self.layer_height[layer] + 12.0 + LANE * self.lanes_of[layer].index(edge)
        side = self.left + column * (self.column + self.gutter) + self.column + LANE * (k + 1)
        if not self.folded and column == len(self.columns) - 1:
            end = side + LANE * (n - k) + 16
            self.draw_arrow(edge, column, rounded([(x, y), (x, low), (end - 6, low)]), end, low, right=True)
            return
        high = self.cell_top - LANE * (1 + (k if self.folded else n - 1 - k))
        end_x, end_y = self.x(edge.target, column + (not self.folded)), self.top(edge.target)
        points = [(x, y), (x, low), (side, low), (side, high), (end_x, high), (end_x, end_y - 6)]
        self.draw_arrow(edge, column, rounded(points), end_x, end_y)
        delay = min((self.cell_top + self.cell_bottom) / 2, (high + low) / 2)
        half = 4.0 + 0.5 * self.scale.line(edge.size(self.columns[column]), True)[0]
        self.rectangle(side - half, delay - half, 2 * half, 2 * half, BLUE, BLUE, 1, 0)

    def draw_arrow(self, edge: Edge, column: int, path: str, x: float, y: float, right: bool = False) -> None:
        """Draw a path and an arrowhead with its tip at (x, y), as wide as the scale makes its gradient."""
        size = edge.size(self.columns[column])
        width, ink, dash = self.scale.line(size, edge.over_time)
        names = f"{self.graph.boxes[edge.source].name} → {self.graph.boxes[edge.target].name}"
        label = written(names if size is None else f"{names}, gradient {size:.3g}")
        long, half = 9.0 + 0.6 * width, 3.6 + 0.7 * width
        ends = [(x - long, y - half), (x - long, y + half)] if right else [(x - half, y - long), (x + half, y - long)]
        self.parts.append(f'<g class="{"carry" if edge.over_time else "edge"}"><title>{label}</title>')
        self.line(path, ink, width, dash)
        self.parts.append('<path d="M{:.1f} {:.1f} L{:.1f} {:.1f} L{:.1f} {:.1f} Z" fill="{}"/></g>'.format(
            x, y, *ends[0], *ends[1], ink))

    def line(self, path: str, ink: str, width: float, dash: str = "") -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{ink}" stroke-width="{width:.2f}"{dashed}/>')

    def legend(self, y: float) -> float:
        """Draw the legend at y; return the y where the picture ends."""
        x = self.left
        loops = bool(self.carried) or any(box.kind == "scan" for box in self.graph.boxes)
        rows = [("state, passed to the next step", None, True)] * loops
        for label, size, over_time in rows + self.scale.examples():
            width, ink, dash = self.scale.line(size, over_time)
            self.line(f"M{x:.1f} {y:.1f} h44", ink, width, dash)
            if over_time:
                self.rectangle(x + 17.5, y - 4.5, 9, 9, BLUE, BLUE, 1, 0)
            self.text(x + 54, y + 4, label, SMALL, INK)
            y += 22
        if any(box.result for box in self.graph.boxes):
            self.rectangle(x, y - 8, 44, 16, "#ffffff", INK, 2.6, 5)
            self.text(x + 54, y + 4, "result", SMALL, INK)
            y += 22
        return y + 2


class Scale:
    """Line widths for gradient sizes: logarithmic, over at most DECADES decades below the largest."""

    def __init__(self, sizes: list[float | None]):
        known = [size for size in sizes if size is not None]
        finite = [size for size in known if np.isfinite(size) and size > 0]
        self.largest = max(finite, default=1.0)
        span = np.log10(self.largest / min(finite, default=1.0)) if finite else 1.0
        self.decades = float(np.clip(np.ceil(span), 2, DECADES))
        self.any, self.none, self.broken = bool(known), 0.0 in known, not np.isfinite(known).all()

    def line(self, size: float | None, over_time: bool) -> tuple[float, str, str]:
        """(width, colour, dashes)"""
        dash = "7 4" if over_time else ""
        if size is None:
            return 1.6, BLUE if over_time else GREY, dash
        if not np.isfinite(size):
            return WIDEST, INK, "2 3"
        if size == 0:
            return 1.0, GREY, "1 4"
        width = 1.0 + (WIDEST - 1.0) * max(0.0, 1.0 + np.log10(size / self.largest) / self.decades)
        return width, BLUE if over_time else BROWN, f"{5 + 1.2 * width:.1f} {3 + 0.5 * width:.1f}" if over_time else ""

    def examples(self) -> list[tuple[str, float | None, bool]]:
        """Rows of the legend: (text, size, whether over time)."""
        if not self.any:
            return []
        least = self.largest * 10 ** -self.decades
        rows = [(f"gradient norm {self.largest:.1e}", self.largest, False),
                (f"norm {least:.1e} or less", least, False)]
        return rows + [("no gradient", 0.0, False)] * self.none + [("NaN or Inf", np.nan, False)] * self.broken


def written(label: str) -> str:
    """Text escaped for XML; unprintable characters become U+FFFD."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label), {'"': "&quot;"})


def wrapped(text: str) -> list[str]:
    """An expression in at most ROWS rows."""
    rows = textwrap.wrap(text, LINE, break_on_hyphens=False)
    return rows if len(rows) <= ROWS else [*rows[:ROWS - 1], rows[ROWS - 1][:LINE - 2] + " …"]


def rounded(points: list[tuple[float, float]], radius: float = 6.0) -> str:
    """An SVG path of straight segments with rounded corners."""
    parts = ["M{:.1f} {:.1f}".format(*points[0])]
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:]):
        before, after = (max(1e-9, abs(a - c) + abs(b - d)) for a, b, c, d in ((x0, y0, x1, y1), (x1, y1, x2, y2)))
        r = min(radius, before / 2, after / 2)
        parts.append(f"L{x1 + (x0 - x1) * r / before:.1f} {y1 + (y0 - y1) * r / before:.1f} "
                     f"Q{x1:.1f} {y1:.1f} {x1 + (x2 - x1) * r / after:.1f} {y1 + (y2 - y1) * r / after:.1f}")
    return " ".join([*parts, "L{:.1f} {:.1f}".format(*points[-1])])
