"""Pictures: what is drawn, on the ax that was given, with labels; and read in grey."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, plot

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)
T, H, B = 12, 5, 3
VALUES = RNG.normal(size=(T, H, B))
ROWS = [{"step": i + 1, "loss": 3.0 / (i + 1), "norm": 1.0, **({"metric": 0.5} if i % 10 == 9 else {})}
        for i in range(100)]


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def scans():
    """{kind: Record} of a loss on the last step of each kind of layer."""
    out, x = {}, RNG.normal(size=(T, B, 2))
    for kind in ("RNN", "GRU", "LSTM"):
        layer = getattr(nn, kind)(2, H, rng=0, dtype=np.float64)
        with mg.bptt.record() as rec:
            y, _ = layer(x)
            (y[-1] ** 2).sum().backward()
        out[kind] = rec[0]
    return out


DRAW = {
    "against_lag": lambda ax: plot.against_lag({"RNN": 0.5 ** np.arange(9), "LSTM": VALUES[:, :, 0] ** 2}, ax),
    "heat": lambda ax: plot.heat(VALUES, ax, name="c_next"),
    "heat log": lambda ax: plot.heat(VALUES[:, :, 0], ax, name="|dL/dc_next|", log=True),
    "gates": lambda ax: plot.gates({"ft": VALUES ** 2, "it": VALUES[:, :, 0] ** 2}, ax),
    "ledger": lambda ax: plot.ledger(np.tril(np.exp(RNG.normal(size=(T, T)))), ax),
    "spectra": lambda ax: plot.spectra({"one": [3.0, 1.0, 0.1], "many": VALUES[:, :, 0] ** 2}, ax),
    "curves": lambda ax: plot.curves({"a": ROWS, "b": ROWS[:50]}, ax),
}
LABELS = {  # x, y, and on the bar
    "against_lag": ("lag (time steps before the last)", "gradient norm  ‖dL/dh‖ at T − lag", None),
    "heat": ("time (steps)", "unit (number)", "c_next"),
    "heat log": ("time (steps)", "unit (number)", "|dL/dc_next|"),
    "gates": ("time (steps)", "openness of the gate (0 shut, 1 open)", None),
    "ledger": ("t, step at which the weights were used", "s, step of the loss", "size of the gradient from s to t"),
    "spectra": ("singular value (number, the largest first)", "factor of stretching (1 keeps length)", None),
    "curves": ("step (updates of the weights)", "loss (mean, in nats or squared)", None),
}


@pytest.mark.parametrize("name", DRAW)
def test_each_draws_on_the_given_ax_and_labels_it(name, ax):
    assert DRAW[name](ax) is ax
    x, y, bar = LABELS[name]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x, y)
    assert ax.lines or ax.images
    others = [other for other in ax.figure.axes if other is not ax]
    assert [other.get_ylabel() for other in others] == ([bar] if bar else [])
    ax.figure.canvas.draw()  # no warning, which is an error here
    assert plt.get_fignums() == [ax.figure.number]


@pytest.mark.parametrize("name", DRAW)
def test_each_makes_a_figure_without_an_ax(name):
    ax = DRAW[name](None)
    assert plt.get_fignums() == [ax.figure.number]


def test_what_is_drawn_is_what_was_given(ax):
    plot.against_lag({"all": [[1.0, 0.1, 0.01], [3.0, 0.3, 0.0], [2.0, 0.2, 0.03]]}, ax)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(line.get_ydata()[:2], [2.0, 0.2])  # medians
    assert np.isnan(line.get_ydata()[2])  # a 0 has no place on a log axis
    assert ax.get_yscale() == "log"


def test_heat_shows_units_from_above_and_time_to_the_right(ax):
    plot.heat(VALUES, ax, example=1)
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), VALUES[:, :, 1].T)
    assert image.norm.vmin == -image.norm.vmax  # signed values: 0 in the middle
    assert ax.yaxis_inverted()


def test_a_logarithmic_map_leaves_zeros_white_and_hatches_what_is_no_number(ax):
    plot.ledger([[1.0, 0.0, np.nan], [1e-3, 1e-30, 2.0]], ax)
    (image,) = ax.images
    colours = image.cmap(image.norm(image.get_array()))
    assert colours[0, 1].tolist() == [1, 1, 1, 1] and colours[1, 1].tolist() != [1, 1, 1, 1]
    assert image.get_array().mask.tolist() == [[False, False, True], [False] * 3]
    assert image.norm.vmin == pytest.approx(2e-12)  # no more than 12 decades
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["NaN or Inf"]


@pytest.mark.parametrize("values", [np.zeros((4, 3)), np.full((4, 3), np.nan), np.full((4, 3), 2.0)])
@pytest.mark.parametrize("log", [False, True])
def test_maps_of_nothing_and_of_one_value(values, log, ax):
    plot.heat(values, ax, log=log)
    ax.figure.canvas.draw()


def test_curves_from_rows_files_and_folders(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"step": 101, "lo')
    for run in (ROWS, tmp_path, str(tmp_path), tmp_path / "metrics.jsonl", {"a run": tmp_path}):
        line = plot.curves(run, smooth=1).lines[-1]
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 101))
        np.testing.assert_allclose(line.get_ydata(), 3.0 / np.arange(1, 101))
    line = plot.curves(ROWS, what="metric").lines[-1]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(10, 101, 10))


def test_smooth_is_a_running_mean():
    values = RNG.normal(size=30)
    values[7] = np.nan  # passed over
    ax = plot.curves([{"step": i, "loss": v} for i, v in enumerate(values)], smooth=4)
    raw, mean = ax.lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    np.testing.assert_allclose(mean.get_ydata(), [np.nanmean(values[max(0, i - 3):i + 1]) for i in range(30)])


# -- recordings in the place of arrays -------------------------------------------------------------------------


def test_gradients_against_lag_of_recordings(scans, ax):
    plot.against_lag(scans, ax)
    assert [line.get_label() for line in ax.lines] == list(scans)
    for line, (kind, scan) in zip(ax.lines, scans.items()):
        grads = scan.grads["a_next" if kind == "LSTM" else "h_next"]
        np.testing.assert_allclose(line.get_ydata(), [np.linalg.norm(grads[T - 1 - lag]) for lag in range(T)])
    plot.against_lag(scans["LSTM"], plt.subplots()[1])
    np.testing.assert_allclose(plot.by_lag(scans["LSTM"], "ft"), [np.linalg.norm(d) for d in
                                                                  scans["LSTM"].grads["ft"][::-1]])


def test_lag_counts_back_from_the_last_step_that_ran():
    with mg.bptt.record() as rec:
        cell = nn.RNNCell(2, H, rng=0)
        cell.reverse = True
        y, _ = mg.nn.Recurrent.__call__(cell, RNG.normal(size=(T, B, 2)))
        (y[0] ** 2).sum().backward()  # the last that ran
    norms = plot.by_lag(rec[0])
    assert norms[0] == norms.max() and norms[0] == pytest.approx(np.linalg.norm(rec[0].grads["h_next"][0]))


@pytest.mark.parametrize("kind, names", [("LSTM", ["ft", "it", "ot"]), ("GRU", ["r", "z"])])
def test_gates_of_a_recording(kind, names, scans, ax):
    plot.gates(scans[kind], ax, symbols="abcdefghijkl")
    assert [line.get_label() for line in ax.lines] == names
    np.testing.assert_allclose(ax.lines[0].get_ydata(), scans[kind].values[names[0]].mean(axis=(1, 2)))


def test_credit_and_jacobians(scans):
    layer = nn.GRU(2, H, rng=0)
    with mg.bptt.record() as rec:
        y, _ = layer(RNG.normal(size=(T, B, 2)))
        credit = mg.bptt.credit(rec, [(y[t] ** 2).sum() for t in range(T)])
    (image,) = plot.ledger(credit).images
    np.testing.assert_allclose(image.get_array()[np.tril_indices(T)], credit.size[np.tril_indices(T)])
    jacobians = mg.bptt.jacobians(scans["LSTM"])
    (line, _) = plot.spectra(jacobians).lines  # and that of 1
    np.testing.assert_allclose(line.get_ydata(), np.median(jacobians.singular_values.reshape(T * B, -1), axis=0))


# -- seen in grey -------------------------------------------------------------------------------------------------


def lightness(colour):
    """L* of CIELAB."""
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]])
    y = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * (y ** (1 / 3) if y > 0.008856 else 7.787 * y + 16 / 116) - 16


def test_lines_differ_without_their_colours():
    ax = plot.against_lag({str(k): 0.5 ** np.arange(9.0) for k in range(len(plot.STYLES))})
    looks = {(str(line.get_linestyle()), str(line._unscaled_dash_pattern), line.get_marker()) for line in ax.lines}
    assert len(looks) == len(plot.STYLES)
    shades = sorted(lightness(matplotlib.colors.to_rgb(colour)) for colour, *_ in plot.STYLES[:4])
    assert min(np.diff(shades)) > 5


def test_the_map_rises_evenly_in_lightness():
    shades = [lightness(colour) for colour in matplotlib.colormaps[plot.MAP](np.linspace(0, 1, 17))]
    steps = np.diff(shades)
    assert steps.min() > 0.6 * steps.mean()


# -- text is data ---------------------------------------------------------------------------------------------------


SYMBOLS = ["$x$", "_a", "\n", " ", "\\frac", "<b>", "", "\x07", "é", "a\nb", 7, "$"]


def test_symbols_are_drawn_as_they_are(ax):
    plot.heat(VALUES, ax, symbols=SYMBOLS, name="$\\broken{$ a $ b")
    ax.figure.canvas.draw()  # mathtext would raise
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "$x$", "_a", "↵", "␣", "\\frac", "<b>", "∅", "\\x07", "é", "a\\x0ab", "7", "$"]


def test_names_of_lines_are_drawn_as_they_are(ax):
    plot.against_lag({"_hidden": [1.0, 0.5], "$\\broken{$ a $": [1.0, 0.2]}, ax, of="$\\x{$ $")
    ax.figure.canvas.draw()
    assert [text.get_text().strip() for text in ax.get_legend().get_texts()] == ["_hidden", "$\\broken{$ a $"]


def test_many_symbols_give_way_to_numbers(ax):
    plot.heat(np.zeros((200, 2)), ax, symbols=["a"] * 200)
    ax.figure.canvas.draw()
    assert len(ax.get_xticklabels()) < 20


# -- wrong input ------------------------------------------------------------------------------------------------


WRONG = {
    "no dict": (lambda: plot.against_lag([1.0, 2.0]), "norms are given as a dict"),
    "nothing": (lambda: plot.against_lag({}), "at least one"),
    "too many axes": (lambda: plot.against_lag({"a": np.ones((2, 2, 2))}), r"norms['a'] has shape (2, 2, 2)"),
    "text": (lambda: plot.spectra({"a": "text"}), "must be an array of real numbers"),
    "complex": (lambda: plot.heat(np.ones((2, 2), complex)), "real numbers, not complex128"),
    "a vector": (lambda: plot.heat(np.ones(4)), "shape (T, H) or (T, H, B), not (4,)"),
    "no values": (lambda: plot.heat(np.ones((0, 4))), "of shape (0, 4)"),
    "no such example": (lambda: plot.heat(VALUES, example=3), "example 3 is not among the 3"),
    "no such example of gates": (lambda: plot.gates({"ft": VALUES}, example=-4), "example -4 is not among the 3"),
    "symbols": (lambda: plot.heat(VALUES, symbols="abc"), "3 symbols for 12 steps"),
    "gates of two lengths": (lambda: plot.gates({"f": np.ones((4, 2)), "i": np.ones((5, 2))}), "one time axis"),
    "a ledger": (lambda: plot.ledger(np.ones(4)), "(losses, steps), not (4,)"),
    "no such column": (lambda: plot.curves(ROWS, what="los"), "no row has 'los'; there is step, loss, norm, metric"),
    "no rows": (lambda: plot.curves([1, 2]), "dicts with a step"),
    "no file": (lambda: plot.curves("nowhere/metrics.jsonl"), "nowhere/metrics.jsonl cannot be read"),
    "half a row": (lambda: plot.curves(ROWS, smooth=0.5), "smooth is a number of rows ≥ 1, not 0.5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_a_sentence_and_no_figure(case):
    call, said = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(said)):
        call()


def test_a_broken_line_in_the_middle_of_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n<html>\n{"step": 3, "loss": 2.0}\n')
    with pytest.raises(ValueError, match="line 2 is no JSON: '<html>'"):
        plot.curves(tmp_path)


def test_no_ax_and_no_gates(scans):
    with pytest.raises(TypeError, match="not str"):
        plot.heat(VALUES, "c_next")
    with pytest.raises(TypeError, match="one recorded scan"):
        plot.by_lag([1.0])
    with pytest.raises(ValueError, match="has no gate with a name"):
        plot.gates(scans["RNN"])


def test_without_matplotlib_the_message_says_what_to_install():
    code = ("import sys; sys.modules['matplotlib'] = None\n"
            "import minigrad as mg\n"
            "try:\n    mg.plot.heat([[1.0]])\n"
            "except ModuleNotFoundError as problem:\n    print(problem)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "pictures need matplotlib, which is not installed: pip install matplotlib\n", done.stderr
