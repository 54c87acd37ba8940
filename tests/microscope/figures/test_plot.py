"""Pictures: drawn on the given ax, with labels, and readable in grey."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, plot
from minigrad.tasks import Adding
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.trainer import Trainer

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

ROOT = Path(__file__).parents[3]
RNG = np.random.default_rng(0)
T, H, B = 12, 5, 3
VALUES = RNG.normal(size=(T, H, B))
OPEN = 1 / (1 + np.exp(-VALUES))
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
    "gates": lambda ax: plot.gates({"ft": OPEN, "it": OPEN[:, :, 0] ** 2}, ax),
    "ledger": lambda ax: plot.ledger(np.tril(np.exp(RNG.normal(size=(T, T)))), ax),
    "spectra": lambda ax: plot.spectra({"one": [3.0, 1.0, 0.1], "many": VALUES[:, :, 0] ** 2}, ax),
    "curves": lambda ax: plot.curves({"a": ROWS, "b": ROWS[:50]}, ax),
}
TITLES = {"against_lag": "gradient against lag", "heat": "c_next of every unit over time",
          "heat log": "|dL/dc_next| of every unit over time", "gates": "gates over time",
          "ledger": "credit ledger: gradient of each loss for each step",
          "spectra": "singular values of the step Jacobians", "curves": "loss over the training"}
LABELS = {  # labels of x, y and the colour bar
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
    assert ax.get_title("left") == TITLES[name]
    others = [other for other in ax.figure.axes if other is not ax]
    assert [other.get_ylabel() for other in others] == ([bar] if bar else [])
    ax.figure.canvas.draw()  # a warning would be an error here
    assert plt.get_fignums() == [ax.figure.number]


@pytest.mark.parametrize("name", DRAW)
def test_each_makes_a_figure_without_an_ax(name):
    ax = DRAW[name](None)
    assert plt.get_fignums() == [ax.figure.number]


def test_the_given_numbers_are_drawn(ax):
    plot.against_lag({"all": [[1.0, 0.1, 0.01], [3.0, 0.3, 0.0], [2.0, 0.2, 0.03]]}, ax)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(line.get_ydata()[:2], [2.0, 0.2])  # medians
    assert np.isnan(line.get_ydata()[2])  # a log axis cannot show 0
    assert ax.get_yscale() == "log"


def test_heat_shows_units_from_above_and_time_to_the_right(ax):
    plot.heat(VALUES, ax, example=1)
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), VALUES[:, :, 1].T)
    assert image.norm.vmin == -image.norm.vmax  # signed values: 0 in the middle
    assert ax.yaxis_inverted()


def test_a_logarithmic_map_leaves_zeros_white_and_hatches_nan(ax):
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


def test_curves_of_the_result_of_a_trainer():
    task = Adding(length=5)
    model = SequenceModel(task.inputs, task.outputs, hidden=4, rng=0)
    optimizer = mg.optim.Adam(model.parameters(), lr=0.01)
    trainer = Trainer(model, task, optimizer, steps=6, batch=2, validate_every=3)
    history = trainer.run()
    for run in (history, {"adam": history}, trainer.rows, {"adam": trainer.rows}):
        np.testing.assert_array_equal(plot.curves(run, smooth=1).lines[-1].get_ydata(), history["loss"])
        line = plot.curves(run, what="metric").lines[-1]  # NaN in the history was not measured
        np.testing.assert_array_equal(line.get_xdata(), [3, 6])
        np.testing.assert_array_equal(line.get_ydata(), history["metric"][[2, 5]])
    ax = plot.curves({"step": trainer.rows, "loss": history})  # names of runs
    assert [line.get_label() for line in ax.lines] == ["step", "loss"]


def test_smooth_is_a_running_mean():
    values = RNG.normal(size=30)
    values[7] = np.nan  # skipped
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
        (y[0] ** 2).sum().backward()  # the last step that ran
    norms = plot.by_lag(rec[0])
    assert norms[0] == norms.max() and norms[0] == pytest.approx(np.linalg.norm(rec[0].grads["h_next"][0]))


def recorded(loss, lengths=None, kind=nn.RNN, x=None, **options):
    """Record a layer and the backward of loss(output, state)."""
    layer = kind(2, H, rng=0, dtype=np.float64, **options)
    with mg.bptt.record() as rec:
        loss(*layer(RNG.normal(size=(T, B, 2)) if x is None else x, lengths=lengths))
    return rec


MIXTURES = {
    "a loss at every step": lambda y, h: (y ** 2).mean().backward(),
    "two steps": lambda y, h: (y[3].sum() + y[7].sum()).backward(),
    "a step and the final state": lambda y, h: (y[3].sum() + h.sum()).backward(),
    "two backwards": lambda y, h: [y[t].sum().backward(retain_graph=True) for t in (2, 5)],
}


@pytest.mark.parametrize("loss", MIXTURES)
@pytest.mark.parametrize("lengths", [None, [T, 9, 4]])
def test_a_mixture_of_lags_is_refused(loss, lengths):
    """Otherwise the curve would be flat although every gradient vanishes."""
    rec = recorded(MIXTURES[loss], lengths)
    for draw in (lambda: plot.by_lag(rec[0]), lambda: plot.against_lag({"a": rec}), lambda: plot.against_lag(rec[0])):
        with pytest.raises(ValueError, match=r"gradients enter l0 at \d+ of its steps.*mg.bptt.credit"):
            draw()
    assert not plt.get_fignums()


@pytest.mark.parametrize("lengths", [None, [T, 9, 4]])
def test_one_step_is_not_a_mixture(lengths):
    for loss in (lambda y, h: y[3].sum().backward(), lambda y, h: h.sum().backward(),
                 lambda y, h: (y[3].sum() + 0.0 * y.sum()).backward()):
        assert plot.by_lag(recorded(loss, lengths)[0]).shape == (T,)


@pytest.mark.parametrize("loss", [lambda y, h: h.sum(), lambda y, h: y[np.array([T, 9, 4]) - 1, np.arange(B)].sum()],
                         ids=["final state", "last outputs"])
def test_lag_counts_from_each_sequences_own_end(loss):
    x, lengths = RNG.normal(size=(T, B, 2)), [T, 9, 4]
    norms = plot.by_lag(recorded(lambda y, h: loss(y, h).backward(), lengths, x=x)[0])
    squares = np.full((B, T), np.nan)
    for b, n in enumerate(lengths):
        squares[b, :n] = plot.by_lag(recorded(lambda y, h: h.sum().backward(), x=x[:n, b:b + 1])) ** 2
    np.testing.assert_allclose(norms, np.sqrt(B * np.nanmean(squares, axis=0)), rtol=1e-12)


def test_the_label_names_what_is_drawn_against_lag(scans):
    ax = plot.against_lag({"LSTM": scans["LSTM"]}, of="c_next")
    assert "dL/dc_next" in ax.get_ylabel()
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), plot.by_lag(scans["LSTM"], "c_next"))
    assert "dL/da_next" in plot.against_lag({"LSTM": scans["LSTM"]}).get_ylabel()
    assert "dL/dh_next" in plot.against_lag({"GRU": scans["GRU"], "RNN": scans["RNN"]}).get_ylabel()
    assert "dL/dh‖" in plot.against_lag(scans).get_ylabel()
    norms = plot.by_lag(scans["RNN"])
    np.testing.assert_array_equal(plot.against_lag(norms).lines[0].get_ydata(), norms)  # an array without a name


@pytest.mark.parametrize("reverse", [False, True])
def test_losses_at_many_steps_against_lag_from_a_credit(reverse):
    """Compare the mean and range at each lag with backwards of single losses."""
    cell = nn.RNNCell(2, H, rng=0, dtype=np.float64)
    cell.reverse = reverse
    x, order = RNG.normal(size=(T, B, 2)), range(T)[::-1] if reverse else range(T)
    with mg.bptt.record() as rec:
        y, _ = nn.Recurrent.__call__(cell, x)
        credit = mg.bptt.credit(rec, [(y[t] ** 2).sum() for t in order[2:]])  # some losses, in the order of running
    assert credit.at.tolist() == list(order[2:]) and credit.reverse is reverse
    table = np.full((T - 2, T), np.nan)
    for k in range(T - 2):  # the k-th loss, at the (k + 2)-th step that ran
        for lag in range(k + 3):
            table[k, lag] = credit.size[k, order[k + 2 - lag]]
    ax = plot.against_lag(credit)
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), np.nanmean(table, axis=0), rtol=1e-12)
    assert line.get_ydata()[-1] < 0.05 * line.get_ydata()[0]  # it vanishes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("lag (time steps before the loss)",
                                                  "mean gradient norm  ‖dLₛ/dW‖ at s − lag")
    ax.figure.canvas.draw()
    (last,) = plot.against_lag({"one": mg.bptt.credit(rec, [(y[order[-1]] ** 2).sum()])}, of="h_prev").lines
    rec.records[0].backwards.clear()
    (y[order[-1]] ** 2).sum().backward()
    np.testing.assert_allclose(last.get_ydata(), plot.by_lag(rec[0], "h_prev"), rtol=1e-10)


def test_the_lower_of_two_layers_against_lag_is_a_question_for_credit():
    layer = nn.RNN(2, H, 2, rng=0, dtype=np.float64)
    with mg.bptt.record() as rec:
        y, _ = layer(RNG.normal(size=(T, B, 2)))
        loss = (y[-1] ** 2).sum()
        credit = mg.bptt.credit(rec["l0"], [loss])
        loss.backward()
    with pytest.raises(ValueError, match="gradients enter l0 at 12 of its steps"):
        plot.by_lag(rec["l0"])
    norms = np.linalg.norm(rec["l0"].grads["h_next"].reshape(T, -1), axis=1)[::-1]
    assert plot.by_lag(credit).shape == (T,) and credit.at.tolist() == [T - 1]
    assert plot.by_lag(rec["l1"]).shape == (T,) and norms[0] > 0


def test_a_credit_that_cannot_be_drawn_against_lag():
    layer = nn.RNN(2, H, rng=0)
    with mg.bptt.record() as rec:
        y, _ = layer(RNG.normal(size=(T, B, 2)))
        credit, none = mg.bptt.credit(rec, [y[2].sum()]), mg.bptt.credit(rec, [mg.tensor(1.0, requires_grad=True) * 2])
    for draw, says in ((lambda: plot.against_lag({"a": credit, "b": [1.0]}), "with other kinds of lines"),
                       (lambda: plot.against_lag(credit, of="c"), "has no state 'c': it has h_prev"),
                       (lambda: plot.by_lag(none), "none of the losses of this Credit depends on a step")):
        with pytest.raises(ValueError, match=says):
            draw()
    assert none.at.tolist() == [-1]


def test_a_ledger_names_the_step_of_each_loss():
    with mg.bptt.record() as rec:
        y, _ = nn.RNN(2, H, rng=0)(RNG.normal(size=(T, B, 2)))
        credit = mg.bptt.credit(rec, [y[t].sum() for t in (11, 4, 7)])
        whole = mg.bptt.credit(rec, [y[t].sum() for t in range(T)])
    ax = plot.ledger(credit)
    assert ax.get_ylabel() == "s, step of the loss" and ax.get_yticks().tolist() == [0, 1, 2]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["11", "4", "7"]
    assert plot.ledger(credit.size).get_ylabel() == "s, number of the loss"
    assert plot.ledger(whole).get_ylabel() == "s, step of the loss"


def test_gates_and_spectra_of_sequences_end_where_these_end():
    """Steps past the end of a sequence do not count."""
    x, lengths = RNG.normal(size=(T, B, 2)), [9, 5, 2]
    rec = recorded(lambda y, h: h[0].sum().backward(), lengths, nn.LSTM, x)
    values = rec[0].values["ft"]
    line = plot.gates(rec).lines[0]
    for t in range(T):
        there = values[t][:, np.array(lengths) > t]
        expected = there.mean() if there.size else np.nan
        np.testing.assert_allclose(line.get_ydata()[t], expected, rtol=1e-12)
    ended = plot.gates(rec[0], example=1).lines[0].get_ydata()
    np.testing.assert_allclose(ended[:5], values[:5, :, 1].mean(axis=1))
    assert np.isnan(ended[5:]).all()
    plt.gcf().canvas.draw()
    jacobians = mg.bptt.jacobians(rec)
    sv = np.concatenate([jacobians.singular_values[:n, b] for b, n in enumerate(lengths)])
    np.testing.assert_allclose(plot.spectra(jacobians).lines[0].get_ydata(), np.median(sv, axis=0))
    full = jacobians.singular_values
    np.testing.assert_allclose(plot.spectra(full).lines[0].get_ydata(), np.median(full.reshape(-1, 2 * H), axis=0))


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
    (line, _) = plot.spectra(jacobians).lines  # the second line is y = 1
    np.testing.assert_allclose(line.get_ydata(), np.median(jacobians.singular_values.reshape(T * B, -1), axis=0))


def test_truncation_paths_and_saturation(scans, ax):
    scan = scans["LSTM"]
    found = mg.bptt.truncation(scan, [8, 1, 4])
    drawn = plot.truncation(found)
    bias = dict(zip([8, 1, 4], found.bias["W"]))
    np.testing.assert_allclose(drawn.lines[0].get_xydata(), sorted(bias.items()))
    assert drawn.get_title("left") == "error of a truncated backward"
    assert plot.truncation(found, what="cosine").get_ylabel() == "cosine of gₖ and g"
    parts = mg.bptt.paths(scan)
    lines = {line.get_label(): line.get_ydata() for line in plot.paths(scan, symbols="a" * T).lines}
    np.testing.assert_allclose(lines["c_prev through c_next"][:-1], np.linalg.norm(
        parts["c_prev"]["c_next"].reshape(T, -1), axis=1)[:-1])
    assert list(lines) == [line.get_label() for line in plot.paths(parts).lines]
    found = mg.bptt.saturation(scan)
    assert plot.saturation(scan, ax) is ax
    name = ax.lines[0].get_label()
    np.testing.assert_allclose(ax.lines[0].get_xydata().T, [found.low[name], found.high[name]])
    with pytest.raises(ValueError, match="no gate"):
        plot.saturation(scans["RNN"].values)
    with pytest.raises(ValueError, match="bias, cosine, ratio, not 'size'"):
        plot.truncation(mg.bptt.truncation(scan, [1]), what="size")


def test_a_title_of_ones_own_stays(ax):
    ax.set_title("mine")
    assert DRAW["heat"](ax).get_title("left") == "" and ax.get_title() == "mine"


def test_curves_of_trainers_runs_and_folders(tmp_path):
    model = SequenceModel(2, 1, hidden=3, rng=0)
    trainer = Trainer(model, Adding(4), mg.optim.Adam(model.parameters()), steps=5, batch=2)
    trainer.run()
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, trainer.rows)))
    run = type("Run", (), {"trainer": trainer})()
    folders = [tmp_path / "a", tmp_path / "b"]
    for runs, names in ((trainer, []), (run, []), ({"x": run, "y": folders[0]}, ["x", "y"]), (folders, None)):
        ax = plot.curves(runs, smooth=1)
        np.testing.assert_allclose(ax.lines[-1].get_ydata(), [row["loss"] for row in trainer.rows])
        assert ax.get_legend_handles_labels()[1] == ([str(folder) for folder in folders] if names is None else names)


# -- seen in grey -------------------------------------------------------------------------------------------------


def lightness(colour):
    """The lightness L* of CIELAB."""
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
    "no dict": (lambda: plot.gates([1.0, 2.0]), "gates must be a dict"),
    "no gate": (lambda: plot.gates({"c": VALUES}), f"gate 'c' lies between {VALUES.min():.3g} and {VALUES.max():.3g}"),
    "nothing": (lambda: plot.against_lag({}), "at least one"),
    "too many axes": (lambda: plot.against_lag({"a": np.ones((2, 2, 2))}),
                      "norms['a'] must have shape (n,), one number for each lag, or (repeats, n), not (2, 2, 2)"),
    "text": (lambda: plot.spectra({"a": "text"}), "must be an array of real numbers"),
    "complex": (lambda: plot.heat(np.ones((2, 2), complex)), "real numbers, not complex128"),
    "a vector": (lambda: plot.heat(np.ones(4)), "shape (T, H) or (T, H, B), not (4,)"),
    "no values": (lambda: plot.heat(np.ones((0, 4))), "of shape (0, 4)"),
    "no such example": (lambda: plot.heat(VALUES, example=3), "has 3 examples, not example 3"),
    "no such example of gates": (lambda: plot.gates({"ft": OPEN}, example=-4), "has 3 examples, not example -4"),
    "symbols": (lambda: plot.heat(VALUES, symbols="abc"), "3 symbols for 12 steps"),
    "gates of two lengths": (lambda: plot.gates({"f": np.ones((4, 2)), "i": np.ones((5, 2))}), "one time axis"),
    "a ledger": (lambda: plot.ledger(np.ones(4)), "(losses, steps), not (4,)"),
    "no such column": (lambda: plot.curves(ROWS, what="los"), "no row has 'los'; rows have step, loss, norm, metric"),
    "no rows": (lambda: plot.curves([1, 2]), "dicts with a step"),
    "no file": (lambda: plot.curves("nowhere/metrics.jsonl"), "nowhere/metrics.jsonl cannot be read"),
    "half a row": (lambda: plot.curves(ROWS, smooth=0.5), "smooth is a number of rows ≥ 1, not 0.5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_a_sentence_and_no_figure(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_a_broken_line_in_the_middle_of_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n<html>\n{"step": 3, "loss": 2.0}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON: '<html>'"):
        plot.curves(tmp_path)


def test_no_ax_and_no_gates(scans):
    with pytest.raises(TypeError, match="not str"):
        plot.heat(VALUES, "c_next")
    with pytest.raises(TypeError, match=r"one recorded scan, as rec\[0\], or a Credit, not an object of type list"):
        plot.by_lag([1.0])
    with pytest.raises(ValueError, match="has no named gate"):
        plot.gates(scans["RNN"])


def test_without_matplotlib_the_message_says_what_to_install():
    code = ("import sys; sys.modules['matplotlib'] = None\n"
            "import minigrad as mg\n"
            "try:\n    mg.plot.heat([[1.0]])\n"
            "except ModuleNotFoundError as problem:\n    print(problem)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "pictures need matplotlib, which is not installed: pip install matplotlib\n", done.stderr
