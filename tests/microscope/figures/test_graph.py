"""The graph as SVG, read back: its contents and its layout; and text that must not become markup."""

import itertools
import re
import time
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
from scan_cells import CELLS

import minigrad as mg
from minigrad import nn
from minigrad.document import GATES, lstm_cell_forward
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.microscope.figures.graph import GraphBuilder, gradients_along
from minigrad.microscope.figures.layout import apart, crossings, layered

SVG = "{http://www.w3.org/2000/svg}"
D, H, B = 3, 5, 4
X, STATE = np.zeros((D, B)), np.zeros((H, B))


def document_cell(state, x_t):
    """The document's cell as a cell (state, x) → (state, y)."""
    a_prev, c_prev = state
    a_next, c_next, yt_pred, _ = lstm_cell_forward(x_t, a_prev, c_prev, PARAMETERS)
    return (a_next, c_next), yt_pred


PARAMETERS = {name: mg.tensor(np.zeros((H, H + D) if name[0] == "W" else (H, 1)), requires_grad=True) for name in GATES}
PARAMETERS |= {"Wy": mg.tensor(np.zeros((2, H)), requires_grad=True), "by": mg.tensor(np.zeros((2, 1)))}
BUILT_IN = {
    "rnn": (nn.RNNCell(D, H, rng=0).cell, STATE, X),
    "gru": (nn.GRUCell(D, H, rng=0).cell, STATE, X),
    "lstm": (nn.LSTMCell(D, H, rng=0).cell, (STATE, STATE), X),
    "document": (document_cell, (STATE, STATE), X),
}


# -- an SVG read back -------------------------------------------------------------------------------------------


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text)]


def points(path):
    """Points along a path of M, L, C, Q and Z with absolute coordinates."""
    out, here = [], None
    for command, rest in re.findall(r"([MLCQZ])([^MLCQZ]*)", path):
        ends = np.reshape(numbers(rest), (-1, 2))
        control = ends if here is None else np.vstack([here, ends])
        if command == "M":
            out.append(ends[0])
        elif command in "LCQ":
            for u in np.linspace(0, 1, 25):
                level = control
                while len(level) > 1:  # de Casteljau
                    level = (1 - u) * level[:-1] + u * level[1:]
                out.append(level[0])
        here = ends[-1] if len(ends) else here
    return np.array(out)


def read(picture):
    """boxes [(name, texts, left, top, right, bottom)], edges [(title, class, points, width, dashed)], texts, root"""
    root = ET.fromstring(picture.svg)
    boxes, edges = [], []
    for g in root.iter(f"{SVG}g"):
        title = g.findtext(f"{SVG}title")
        if g.get("class") == "box":
            frame = g.find(f"{SVG}rect")
            x, y, w, h = (float(frame.get(key)) for key in ("x", "y", "width", "height"))
            texts = [text.text for text in g.iter(f"{SVG}text")]
            boxes.append(SimpleNamespace(name=texts[0], texts=texts, left=x, top=y, right=x + w, bottom=y + h, g=g,
                                         border=float(frame.get("stroke-width")), title=title))
        elif g.get("class") in ("edge", "carry"):
            line = g.find(f"{SVG}path")
            edges.append(SimpleNamespace(title=title, kind=g.get("class"), points=points(line.get("d")),
                                         width=float(line.get("stroke-width")), dash=line.get("stroke-dasharray"),
                                         ink=line.get("stroke")))
    return SimpleNamespace(root=root, boxes=boxes, edges=edges, size=numbers(root.get("viewBox"))[2:],
                           texts=[text.text for text in root.iter(f"{SVG}text")])


def check_picture(picture):
    """Check that boxes overlap nothing, that everything lies inside the picture, and that the text fits."""
    found = read(picture)
    width, height = found.size
    for box in found.boxes:
        assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height, box.name
        for text in box.g.iter(f"{SVG}text"):
            wide = 0.602 * float(text.get("font-size")) * len(text.text)
            x = float(text.get("x")) - {"start": 0, "middle": wide / 2, "end": wide}[text.get("text-anchor")]
            assert box.left < x and x + wide < box.right and box.top < float(text.get("y")) < box.bottom, text.text
    for one, other in itertools.combinations(found.boxes, 2):
        assert one.right + 4 < other.left or other.right + 4 < one.left or one.bottom + 4 < other.top or \
            other.bottom + 4 < one.top, (one.name, other.name)
    for edge in found.edges:
        assert (edge.points >= 0).all() and (edge.points <= found.size).all(), edge.title
        for box in found.boxes:
            x, y = edge.points.T
            inside = (x > box.left - 1) & (x < box.right + 1) & (y > box.top + 0.5) & (y < box.bottom - 0.5)
            assert not inside.any(), f"{edge.title} runs over {box.name}"
    return found


# -- contents -------------------------------------------------------------------------------------------------


NAMES = {
    "rnn": ["h_prev", "x", "concat", "h_next"],
    "gru": ["h_prev", "x", "concat", "gates", "r", "z", "t1", "recurrent", "candidate", "t2", "h_next"],
    "lstm": ["a_prev", "c_prev", "x", "concat", "z", "gates", "ft", "it", "ot", "cct", "c_next", "tanh_c_next",
             "a_next"],
    "document": ["a_prev", "c_prev", "x_t", "concat", "ft", "it", "cct", "c_next", "ot", "tanh_c_next", "a_next",
                 "yt_pred"],
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_boxes_are_the_lines_of_the_derived_source(name):
    graph = mg.graph(*BUILT_IN[name])
    assert [box.name for box in graph.boxes] == NAMES[name]
    source = mg.derive(*BUILT_IN[name]).source.replace("left // 2", "5")  # a picture writes sizes as numbers
    for box in graph.boxes:
        assert not box.text or f"    {box.name} = {box.text}\n" in source.replace("np.", ""), box


@pytest.mark.parametrize("name", BUILT_IN)
def test_edges_lead_from_the_values_that_a_line_reads(name):
    graph = mg.graph(*BUILT_IN[name])
    for i, box in enumerate(graph.boxes):
        read_there = {graph.boxes[edge.source].name for edge in graph.edges if edge.target == i and not edge.over_time}
        assert read_there == set(re.findall(r"\w+", box.text)) & set(NAMES[name]), box
    over_time = {(graph.boxes[e.source].name, graph.boxes[e.target].name) for e in graph.edges if e.over_time}
    assert over_time == ({("a_next", "a_prev"), ("c_next", "c_prev")} if "c_prev" in NAMES[name]
                         else {("h_next", "h_prev")})


@pytest.mark.parametrize("name", BUILT_IN)
def test_folded_and_unrolled_pictures(name):
    graph = mg.graph(*BUILT_IN[name])
    states = sum(edge.over_time for edge in graph.edges)
    folded = check_picture(graph.folded())
    assert [box.name for box in folded.boxes] == NAMES[name]
    shapes = {box.name: box.texts[1] for box in folded.boxes}
    assert shapes["concat"] == "(8, 4)"
    assert sum(edge.kind == "carry" for edge in folded.edges) == states
    assert all((edge.dash is not None) == (edge.kind == "carry") for edge in folded.edges)
    assert "state, passed to the next step" in folded.texts and "result" in folded.texts
    unrolled = check_picture(graph.unrolled(4))
    assert [box.name for box in unrolled.boxes] == NAMES[name] * 4
    assert [text for text in unrolled.texts if text.startswith("step")] == ["step 0", "step 1", "step 2", "step 3"]
    assert len(unrolled.edges) == 4 * len(folded.edges)
    assert [box.title for box in unrolled.boxes[:len(NAMES[name])]] == [box.title for box in folded.boxes]
    for one in (folded, unrolled):
        thick = {box.name for box in one.boxes if box.border > 2}
        assert thick == {"yt_pred" if name == "document" else NAMES[name][-1]}


@pytest.mark.parametrize("row", CELLS, ids=str)
def test_every_cell_is_drawn_and_nothing_overlaps(row):
    state, xs, weights = row.inputs()
    cell = row.cell({name: mg.tensor(value, requires_grad=True) for name, value in weights.items()})
    graph = mg.graph(cell, state, map_leaves(lambda x: x[0], xs), weights=True)
    check_picture(graph.folded())
    assert graph.is_cell == bool(flatten(state)[0])
    assert sum(edge.over_time for edge in graph.edges) == len(flatten(state)[0])
    if graph.is_cell:
        check_picture(graph.unrolled(2))


def feed_forward(x, W1, b1, W2):
    hidden = np.tanh(W1 @ x + b1)
    y = W2 @ hidden
    loss = (y ** 2).sum()
    return loss


def many(x):
    for _ in range(20):
        one, two, three = np.tanh(x), np.sin(x), np.cos(x)
        x = one * two + three * one + two * three + x
    return x


FUNCTIONS = {
    "a multiplication": (lambda w, x: w * x, (0.5, 2.0), 3),
    "itself": (lambda x: x, (X,), 1),
    "a number as result": (feed_forward, (X, np.zeros((6, D)), np.zeros((6, 1)), np.zeros((2, 6))), 7),
    "a dict as result": (lambda x: {"s": np.sin(x), "c": np.cos(x)}, (X,), 3),
    "a constant as result": (lambda x: (x + 1.0, np.ones(2)), (X,), 3),
    "long edges side by side": (many, (X,), None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_are_not_cells(name):
    f, examples, count = FUNCTIONS[name]
    graph = mg.graph(f, *examples)
    found = check_picture(graph.folded())
    assert count is None or len(found.boxes) == count
    assert not graph.is_cell and "state, passed to the next step" not in found.texts
    with pytest.raises(ValueError, match="is not a cell"):
        graph.unrolled(2)


class Last(nn.Module):
    """Two directions, joined at the last step, and the final cell states."""

    def __init__(self):
        self.rnn = nn.LSTM(D, H, bidirectional=True, rng=0, dtype=np.float64)

    def __call__(self, x):
        y, (_, c) = self.rnn(x)
        last = y[-1]
        return last, c


def test_a_scan_is_one_box_with_an_edge_to_itself():
    graph = mg.graph(Last(), np.zeros((7, B, D)), weights=True)
    names = [box.name for box in graph.boxes]
    scans = [box for box in graph.boxes if box.kind == "scan"]
    assert [(box.name, box.text) for box in scans] == [
        ("rnn.l0", "scan over 7 steps"), ("rnn.l0_reverse", "scan over 7 steps in reverse")]
    for box in scans:
        i = names.index(box.name)
        reads = [graph.boxes[edge.source] for edge in graph.edges if edge.target == i]
        gives = [graph.boxes[edge.target] for edge in graph.edges if edge.source == i]
        assert [one.kind for one in reads] == ["value", "weight", "weight"]
        assert sorted((one.text, one.shape) for one in gives) == [
            ("after the last step", (H, B)), ("at every step", (7, H, B))]
    assert not {"concat", "gates", "c_prev_over_time"} & set(names)  # these are inside the loop
    assert not graph.is_cell
    found = check_picture(graph.folded())
    assert "state, passed to the next step" in found.texts
    assert sum(g.get("class") == "loop" for g in found.root.iter(f"{SVG}g")) == 2
    check_loops_are_free(found)


def check_loops_are_free(found):
    for g in found.root.iter(f"{SVG}g"):
        if g.get("class") == "loop":
            x, y = points(g.find(f"{SVG}path").get("d")).T
            for box in found.boxes:
                assert not ((x > box.left + 1) & (x < box.right - 1) & (y > box.top) & (y < box.bottom)).any(), box.name


def test_scans_written_out_and_inside_of_cells():
    few, many = (len(mg.graph(Last(), np.zeros((7, B, D)), scans=scans).boxes) for scans in (True, False))
    assert few == 12 and many > 7 * 12

    def layer(state, xs):
        def cell(h, x):
            h_next = np.tanh(h + x)
            return h_next, h_next
        state, ys = mg.scan(cell, state, xs)
        return state, ys.sum()
    graph = mg.graph(layer, np.zeros(H), np.zeros((3, H)))
    assert [box.name for box in graph.boxes] == ["state", "xs", "cell", "state_2", "ys", "sum_ys"] and graph.is_cell
    check_loops_are_free(check_picture(graph.folded()))
    check_loops_are_free(check_picture(graph.unrolled(3)))


def test_many_boxes_are_laid_out_in_seconds():
    graph = mg.graph(Last(), np.zeros((7, B, D)), scans=False)
    start = time.perf_counter()
    graph.folded()
    assert len(graph.boxes) > 100 and time.perf_counter() - start < 30  # 1.5 s; minutes if swaps count all crossings


def test_weights_are_boxes_when_asked_for():
    assert "W" not in {box.name for box in mg.graph(*BUILT_IN["lstm"]).boxes}
    graph = mg.graph(*BUILT_IN["lstm"], weights=True)
    z = [box.name for box in graph.boxes].index("z")
    assert {graph.boxes[edge.source].name for edge in graph.edges if edge.target == z} == {"W", "concat", "b"}
    assert {box.name for box in graph.boxes if box.kind == "weight"} == {"W", "b"}
    check_picture(graph.folded())


def test_a_picture_is_the_same_every_time():
    assert mg.graph(*BUILT_IN["gru"]).folded().svg == mg.graph(*BUILT_IN["gru"]).folded().svg


def test_jupyter_and_files_get_the_picture(tmp_path):
    graph = mg.graph(*BUILT_IN["rnn"])
    assert graph._repr_svg_() == graph.folded().svg == graph.folded()._repr_svg_()
    graph.save(tmp_path / "folded.svg")
    graph.unrolled(2).save(tmp_path / "unrolled.svg")
    assert (tmp_path / "folded.svg").read_text(encoding="utf-8") == graph.folded().svg
    assert len(read(SimpleNamespace(svg=(tmp_path / "unrolled.svg").read_text(encoding="utf-8"))).boxes) == 8


# -- text in it is data ------------------------------------------------------------------------------------------


def test_text_is_escaped():
    evil = "<script>alert('x')</script>\"&\x07"

    def cell(h, x):
        h = mg.where(h < 0.0, h, np.tanh(h + x))
        return h, h

    cell.__name__ = evil
    for picture in (mg.graph(cell, STATE, STATE).folded(), mg.graph(cell, STATE, STATE).unrolled(2)):
        found = read(picture)  # well-formed, or this raises
        assert {element.tag.removeprefix(SVG) for element in found.root.iter()} == {"svg", "title", "rect", "g", "path",
                                                                                     "text"}
        seen = evil.replace("\x07", "\ufffd")
        assert seen in found.root.findtext(f"{SVG}title") and seen in found.root.get("aria-label")
        assert "<script" not in picture.svg
    assert any("<" in text for text in read(mg.graph(cell, STATE, STATE).folded()).texts)


def test_a_picture_needs_nothing_from_the_page_and_leaves_nothing_in_it():
    svg = mg.graph(*BUILT_IN["lstm"]).folded().svg
    assert not re.search(r"<style|<script|\bid=|\bhref|url\(|@import|\bon\w+=", svg)


# -- gradients along the edges -------------------------------------------------------------------------------------


def recorded(kind="LSTM", steps=6, layers=1):
    rng = np.random.default_rng(0)
    layer = getattr(nn, kind)(D, H, layers, rng=0, dtype=np.float64)
    with mg.bptt.record() as rec:
        y, _ = layer(rng.normal(size=(steps, B, D)))
        (rng.normal(size=y.shape) * y).sum().backward()
    return rec


def scan_recorded(row, **options):
    state, xs, weights = row.inputs()
    cell = row.cell({name: mg.tensor(value, requires_grad=True) for name, value in weights.items()})
    with mg.bptt.record() as rec:
        _, y = mg.scan(cell, state, xs, **options)
        loss = sum(((leaf * leaf).sum() for leaf in flatten(y)[0] if isinstance(leaf, mg.Tensor) and
                    leaf.requires_grad), mg.tensor(0.0))
    if not loss.requires_grad:
        pytest.skip("nothing here requires gradients")
    loss.backward()
    return rec[0]


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_gradients_along_the_edges_add_up_to_the_recorded_one(kind):
    scan = recorded(kind)[0]
    builder = GraphBuilder(scan.step.program, 2, weights=True)
    inside = {name: known.value for name, known in scan.step.named.items()
              if known.value not in scan.step.new_states + scan.step.states}  # those are also read outside the step
    for t in range(scan.steps):
        along = gradients_along(builder, scan, t)
        sums = {a: sum(d for (b, _), d in along.items() if b is a) for a, _ in along}
        for name, value in inside.items():
            np.testing.assert_allclose(sums[value], scan.grads[name][t], rtol=1e-9, atol=1e-13, err_msg=name)
        for name, value in scan.weight_values.items():
            np.testing.assert_allclose(sums[value], scan.weight_grads(name)[t], rtol=1e-9, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_an_edge_over_time_has_the_gradient_of_paths(kind):
    scan = recorded(kind)[0]
    graph = mg.graph(scan)
    paths = mg.bptt.paths(scan)
    for edge in graph.edges:
        if edge.over_time:
            came = sum(paths[graph.boxes[edge.target].name].values())
            np.testing.assert_allclose(edge.sizes, [np.linalg.norm(d) for d in came[1:]], rtol=1e-10)
            assert edge.size(scan.steps - 1) is None and edge.size(0) == edge.sizes[0]


@pytest.mark.parametrize("row", [row for row in CELLS if row.batch_last], ids=str)
@pytest.mark.parametrize("options", [{}, {"reverse": True}], ids=["forward", "reverse"])
def test_every_recorded_cell_is_drawn(row, options):
    scan = scan_recorded(row, **options)
    graph = mg.graph(scan)
    assert all(edge.sizes is None or np.isfinite(edge.sizes).all() for edge in graph.edges)
    check_picture(graph.folded())
    if graph.is_cell:
        check_picture(graph.unrolled())


def test_times_and_sizes_of_a_scan_in_reverse_and_with_lengths():
    rng = np.random.default_rng(0)
    layer = nn.GRU(D, H, rng=0, dtype=np.float64, bidirectional=True)
    with mg.bptt.record() as rec:
        y, _ = layer(rng.normal(size=(5, B, D)), lengths=np.array([5, 3, 2, 5]))
        (y ** 2).sum().backward()
    for scan in rec:
        graph = mg.graph(scan)
        times = [text for text in check_picture(graph.unrolled(3, start=1)).texts if text.startswith("step")]
        assert times == (["step 3", "step 2", "step 1"] if scan.reverse else ["step 1", "step 2", "step 3"])
        paths = mg.bptt.paths(scan)["h_prev"]
        (carry,) = [edge for edge in graph.edges if edge.over_time]
        came = sum(paths.values())[::-1 if scan.reverse else 1]
        np.testing.assert_allclose(carry.sizes, [np.linalg.norm(d) for d in came[1:]], rtol=1e-10)


def test_width_by_size():
    scan = recorded("RNN", steps=8)[0]
    graph = mg.graph(scan)
    found = read(graph.unrolled(8))
    sized = [(float(edge.title.rpartition(" ")[2]), edge.width) for edge in found.edges if "gradient" in edge.title]
    assert len(sized) == 8 * 4 - 1  # all except the edge out of the last step
    sizes, widths = np.array(sorted(sized)).T
    assert (np.diff(widths) >= -0.011).all() and widths[-1] == 7.0 and widths[0] >= 1.0  # two decimals in the text
    assert f"gradient norm {sizes[-1]:.1e}" in found.texts


def test_no_gradient_and_broken_gradients_have_their_own_lines():
    graph = mg.graph(recorded("RNN")[0])
    graph.edges[0].sizes[:] = 0.0
    graph.edges[1].sizes[:] = np.nan
    found = read(graph.folded())
    assert "no gradient" in found.texts and "NaN or Inf" in found.texts
    nothing, broken = (edge.dash for edge in found.edges[:2])
    assert len({nothing, broken, None}) == 3


# -- wrong input ---------------------------------------------------------------------------------------------------


def deep(x):
    for _ in range(400):
        x = np.tanh(x)
    return x


WRONG = {
    "no function": (lambda: mg.graph(3.0), TypeError, "one recorded scan, as rec[0], not an object of type float"),
    "a recording of two scans": (lambda: mg.graph(recorded(layers=2)), ValueError, "takes one scan, not 2"),
    "a PNG": (lambda: mg.graph(*BUILT_IN["lstm"]).save("graph.png"), ValueError, "graph.png does not end in .svg: "
              "save it as graph.svg"),
    "a PDF": (lambda: mg.graph(*BUILT_IN["lstm"]).unrolled(2).save("a/graph.PDF"), ValueError, "save it as graph.svg"),
    "no suffix": (lambda: mg.graph(*BUILT_IN["lstm"]).save("graph"), ValueError, "graph does not end in .svg"),
    "a record and examples": (lambda: mg.graph(recorded()[0], X), TypeError, "pass it without examples"),
    "a branch": (lambda: mg.graph(lambda x: x if x.sum() > 0 else -x, X), mg.TraceError, "branch on the value"),
    "too much": (lambda: mg.graph(deep, X), ValueError, "has 401 lines, more than the 300 of a picture"),
    "too many steps": (lambda: mg.graph(*BUILT_IN["lstm"]).unrolled(100), ValueError, "over 1 to 23 steps"),
    "no steps": (lambda: mg.graph(*BUILT_IN["lstm"]).unrolled(0), ValueError, "not 0"),
    "half a step": (lambda: mg.graph(*BUILT_IN["lstm"]).unrolled(1.5), ValueError, "not 1.5"),
    "before the start": (lambda: mg.graph(*BUILT_IN["lstm"]).unrolled(2, -1), ValueError, "from a step ≥ 0, not -1"),
    "beyond the end": (lambda: mg.graph(recorded()[0]).unrolled(3, 4), ValueError, "over 1 to 2 steps from step 4"),
    "after the end": (lambda: mg.graph(recorded()[0]).unrolled(1, 6), ValueError, "≥ 0 and < 6, not 6"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_a_sentence(case):
    call, error, message = WRONG[case]
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_a_recording_of_one_scan_is_that_scan():
    rec = recorded()
    assert mg.graph(rec).folded().svg == mg.graph(rec[0]).folded().svg


def test_without_a_backward_there_are_no_gradients_to_draw():
    with mg.bptt.record() as rec:
        nn.RNN(D, H, rng=0)(np.zeros((3, B, D)))
    with pytest.raises(RuntimeError, match="no backward has gone through"):
        mg.graph(rec[0])


# -- the layout ----------------------------------------------------------------------------------------------------


def test_apart_is_the_least_squares_solution():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = rng.integers(1, 6)
        wishes, weights, widths = rng.normal(size=n) * 40, rng.uniform(0.5, 3, n), rng.uniform(10, 60, n)
        x = np.array(apart(list(wishes), list(weights), list(widths)))
        gaps = (widths[:-1] + widths[1:]) / 2 + 26.0
        assert (np.diff(x) >= gaps - 1e-9).all()
        cost = (weights * (x - wishes) ** 2).sum()
        for _ in range(200):  # no other allowed positions are better
            other = x + rng.normal(size=n) * rng.choice([0.01, 1.0, 20.0])
            other = np.maximum.accumulate(other - np.r_[0, np.cumsum(gaps)]) + np.r_[0, np.cumsum(gaps)]
            assert (weights * (other - wishes) ** 2).sum() >= cost - 1e-9


def test_crossings_are_counted_and_taken_out():
    edges = [(0, 5), (1, 4), (2, 3)]  # in the given order all three cross
    layout = layered([20.0] * 6, edges, first={0, 1, 2})
    assert crossings(layout) == 0
    layout.layers[1] = layout.layers[1][::-1]
    assert crossings(layout) == 3


def test_edges_go_down_and_long_ones_keep_their_place():
    layout = layered([20.0] * 4, [(0, 1), (1, 2), (2, 3), (0, 3)], first={0})
    assert [place.layer for place in layout.vertices[:4]] == [0, 1, 2, 3]
    assert [layout.vertices[i].layer for i in layout.routes[3]] == [0, 1, 2, 3]
    assert len({round(layout.vertices[i].x, 6) for i in layout.routes[3][1:-1]}) == 1  # straight


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_picture_fits_a_page_and_has_its_own_paper(steps):
    layer = mg.nn.LSTM(3, 4, rng=0)
    svg = mg.graph(layer.layers["l0"].cell, (np.zeros((4, 2)), np.zeros((4, 2))), np.zeros((3, 2))).unrolled(steps).svg
    width, height, _, _, full, whole = map(float, re.findall(
        r'width="(\d+)" height="(\d+)" viewBox="(\S+) (\S+) (\S+) (\S+)"', svg)[0])
    assert width <= 960 and width / height == pytest.approx(full / whole, rel=0.01)
    assert f'<rect width="{full:.0f}" height="{whole:.0f}" fill="#fdfdfe"/>' in svg  # legible on a dark page
