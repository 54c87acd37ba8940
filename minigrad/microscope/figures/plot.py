"""Pictures of runs and of gradients with matplotlib (the extra `plot`): functions that draw arrays on an `ax`.

    against_lag(norms)        gradient norm against the number of steps back
    heat(values)              map of time × unit, for a value or a gradient
    gates(values)             openness of gates over time
    ledger(credit)            gradient of each loss for each step
    spectra(singular_values)  singular values of the step Jacobians
    truncation(found)         error of truncated gradients against the number of steps
    paths(parts)              gradient of each state, split by the path that it came through
    saturation(found)         how often each unit of a gate is closed and open
    curves(runs)              training curves of runs

Every function draws on `ax` (default: a new figure), labels the axes with units, gives it a title unless it has one,
and returns it. A recording, or the result of a question of `mg.bptt`, may be given in place of its arrays, and
{name: …} in place of one line. `symbols` are T characters or other symbols of the input, for the time axis; `example`
is the index of one example of the batch.

Lines differ in dash and marker as well as in colour (Okabe and Ito's), and colour maps rise evenly in lightness, so
pictures are readable in grey and by the colour-blind. Text from data (symbols, names) is never interpreted as markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.engine.ops import getitem, sigmoid
from minigrad.microscope.credit import Credit
from minigrad.microscope.jacobians import Jacobians
from minigrad.microscope.paths import paths as paths_of
from minigrad.microscope.recording import Record, Recording, one_scan
from minigrad.microscope.saturation import Saturation, is_masked
from minigrad.microscope.saturation import saturation as saturation_of
from minigrad.microscope.truncation import Truncation

# Okabe and Ito's colours, each with its own dash and marker; the first four also differ in lightness
STYLES = [("#000000", "-", "o"), ("#D55E00", (0, (5, 2)), "s"), ("#0072B2", (0, (8, 2, 1.5, 2)), "^"),
          ("#56B4E9", (0, (1.2, 1.4)), "D"), ("#E69F00", (0, (3, 1.2, 1, 1.2, 1, 1.2)), "v"), ("#009E73", "-", "x"),
          ("#CC79A7", (0, (5, 2)), "+")]
MAP = "cividis"  # colour map for the colour-blind, even in lightness
SLACK = 1e-6  # tolerance beyond [0, 1] for the values of a gate
DECADES = 12  # maximum span of a logarithmic colour map
MARKERS = 12  # maximum number of markers on a line
SYMBOLS = 80  # maximum number of symbols along an axis; longer axes have numbers
UNITS = {"loss": "loss (mean, in nats or squared)", "norm": "norm of the gradient",
         "lr": "learning rate (step size)"}
SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\0": "␀", "": "∅"}
OVER_TIME = {2: "(T, H)", 3: "(T, H, B)"}  # shapes of a value over time


def by_lag(of: Record | Recording | Credit, name: str | None = None) -> np.ndarray:
    """(lags,): norm of the gradient 0, 1, … steps back.

    of    a recorded scan: norm of the gradient of a value over the whole batch, by the number of steps before the last.
          With a mask, steps count back from the end of each sequence, and the norm over the sequences that are long
          enough is scaled to the whole batch. Or a `Credit`: norm of the gradient that a loss sends to each earlier use
          of the weights, by the number of steps between them; mean over its losses
    name  the value, by default the first part of the new state (h_next, a_next); of a Credit, a state in place of the
          weights

    Raises ValueError if gradients enter the scan at several steps, as from a loss at every step: the gradient at one
    lag is then a sum over many lags.
    """
    if isinstance(of, Credit):
        return np.nanmean(of.by_lag(name), axis=0)
    if not isinstance(of, (Record, Recording)):
        raise TypeError("by_lag takes one recorded scan, as rec[0], or a Credit, not an object of type "
                        f"{type(of).__name__}")
    scan = one_scan(of)
    d = scan.grads[name if name is not None else main_state(scan)]
    d = d[::-1] if scan.reverse else d
    steps, ends = entries(scan)
    if (steps.sum(axis=0) > 1).any():
        raise ValueError(f"gradients enter {scan.path} at {steps.any(axis=1).sum()} of its steps, as from a loss at "
                         "every step, so the gradient at one lag is a sum over many lags, which hides vanishing: give "
                         "mg.bptt.credit(rec, losses), which separates them, or record the backward of a loss at the "
                         "last step")
    if not is_masked(d, scan.mask):
        return np.linalg.norm(d.reshape(scan.steps, -1), axis=1)[::-1]
    squares = np.square(np.abs(d)).reshape(scan.steps, -1, len(ends)).sum(axis=1)
    sums, counts = np.zeros((2, max(ends) + 1))
    for b, end in enumerate(ends):
        sums[:end + 1] += squares[end::-1, b]
        counts[:end + 1] += 1
    return np.sqrt(sums * len(ends) / counts)


def entries(scan: Record) -> tuple[np.ndarray, np.ndarray]:
    """(T, B): whether a gradient from outside the scan enters a sequence at a step, in the order of running; and the
    last step (B,) of each sequence. Without a mask, B = 1 covers all sequences."""
    T, mask = scan.steps, scan.mask
    ends = np.array([T - 1]) if mask is None else np.full(mask.shape[1], T - 1) if scan.reverse else \
        np.maximum(mask.sum(axis=0) - 1, 0)

    def enters(d: np.ndarray) -> np.ndarray:
        return (d != 0).reshape(len(d), -1, len(ends) if is_masked(d, mask) else 1).any(axis=1)

    steps = np.zeros((T, len(ends)), bool)
    for backward in scan.recorded_backwards():
        for d in backward.d_ys:
            steps |= enters(d)
        for d in backward.d_state:
            steps[ends, np.arange(len(ends))] |= enters(d[None])[0]
    return steps, ends


def main_state(scan: Record) -> str:
    """The name of the first part of the new state."""
    for before, after in scan.states.items():
        return after or before
    raise ValueError(f"{scan.path} has no state: name a value")


def against_lag(norms: Any, ax: Any = None, *, of: str | None = None) -> Any:
    """Draw gradient norms against the number of steps back, on a log axis.

    norms  a recorded scan of a loss at its last step, or a `Credit` for losses at many steps (see `by_lag`); or (lags,)
           or (repeats, lags): ‖dL/dh‖ at T − lag for lag 0, 1, …, in the unit of the gradient, or divided by that of
           lag 0. Draws the median of the repeats and their range as a band; of a Credit, the mean over its losses and
           their range
    of     the value, by default the new state; of a Credit an old state, by default the weights. For arrays, the label
    """
    norms = named(norms, "norms")
    is_credit = any(isinstance(x, Credit) for x in norms.values())
    if is_credit and not all(isinstance(x, Credit) for x in norms.values()):
        raise ValueError("a Credit cannot be drawn with other kinds of lines, since it measures gradients of "
                         "the weights or of old states: give a Credit for each line")
    scans = {name: one_scan(x) for name, x in norms.items() if isinstance(x, (Record, Recording))}
    norms = {name: x.by_lag(of) if is_credit else by_lag(scans[name], of) if name in scans else x
             for name, x in norms.items()}
    tables = tables_of(norms, "norms", "each lag")
    mains = {main_state(scan) for scan in scans.values()} if len(scans) == len(norms) and of is None else set()
    ax = axes(ax)
    for k, (name, values) in enumerate(tables.items()):
        given: dict[str, Any] = {}
        if is_credit:
            above = np.where(values > 0, values, np.nan)  # a log axis cannot show 0
            given = {"middle": np.nanmean(values, axis=0), "band": (np.fmin.reduce(above), np.fmax.reduce(above))}
        draw_line(ax, np.arange(values.shape[1]), values, name, k, log=True, **given)
    ax.set_yscale("log")
    if is_credit:
        last, label = "loss", f"mean gradient norm  ‖dLₛ/d{plain(of or 'W')}‖ at s − lag"
    else:
        of = of or (mains.pop() if len(mains) == 1 else "h")
        last, label = "last", f"gradient norm  ‖dL/d{plain(of)}‖ at T − lag"
    ax.set_xlabel(f"lag (time steps before the {last})")
    ax.set_ylabel(label, parse_math=False)
    return finished(ax, "gradient against lag")


def heat(values: Any, ax: Any = None, *, symbols: Sequence[Any] | None = None, name: str = "value", log: bool = False,
         example: int = 0) -> Any:
    """Draw a map of time × unit, for a value or a gradient.

    values  (T, H), or (T, H, B); then one example is shown
    name    label of the colour bar, with a unit if there is one
    log     whether colours show log |value|, as for gradients
    """
    values = one_example(numbers(values, "values", OVER_TIME), example, "values")
    ax = axes(ax)
    mapped(ax, values.T, name, log)
    ax.set_ylabel("unit (number)")
    time_axis(ax, values.shape[0], symbols)
    return titled(ax, f"{plain(name)} of every unit over time")


def gates(values: Mapping[str, Any] | Record | Recording, ax: Any = None, *, symbols: Sequence[Any] | None = None,
          example: int | None = None) -> Any:
    """Draw gates over time: the mean over their units as a line, and the middle 80 % of them as a band.

    values   {name: (T, H) or (T, H, B)}, as `{name: scan.values[name] for name in ("ft", "it", "ot")}`, between 0 and
             1; or a recorded scan: the results of a sigmoid, or their named slices, without masked steps
    example  default: the units of all examples
    """
    mask = None
    if isinstance(values, (Record, Recording)):
        scan = one_scan(values)
        values, mask = gates_of(scan), scan.mask
    arrays = {name: numbers(x, f"gate {name!r}", OVER_TIME) for name, x in checked(values, "gates").items()}
    if len({len(x) for x in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(f"gates need one time axis, the first axis of each, not shapes {shapes}")
    for name, x in arrays.items():
        if not (x[np.isfinite(x)] >= -SLACK).all() or not (x[np.isfinite(x)] <= 1 + SLACK).all():
            raise ValueError(f"gate {name!r} lies between {np.nanmin(x):.3g} and {np.nanmax(x):.3g}, not "
                             "between 0 and 1: draw other values with heat")
    if example is not None:
        arrays = {name: one_example(x, example, f"gate {name!r}") for name, x in arrays.items()}
        mask = None if mask is None else mask[:, example]
    steps = len(next(iter(arrays.values())))
    ax = axes(ax)
    for k, (name, x) in enumerate(arrays.items()):
        rows = [x[t].ravel() if mask is None else x[t][..., mask[t]].ravel() for t in range(steps)]
        middle, *band = np.array([[row.mean(), *np.quantile(row, [0.1, 0.9])] if row.size else [np.nan] * 3
                                  for row in rows]).T
        draw_line(ax, np.arange(steps), x, name, k, middle=middle, band=band)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("openness of the gate (0 shut, 1 open)")
    finished(ax, "gates over time")
    time_axis(ax, steps, symbols, cells=False)
    return ax


def gates_of(scan: Record) -> dict[str, np.ndarray]:
    """{name: result of a sigmoid in a recorded scan}; only the slices if a result is sliced into named gates."""
    found = {name: scan.step.named[name].value for name in scan.values if scan.op_of(name) is sigmoid.op}
    whole = {value.inputs[0] for value in found.values() if value.op is getitem.op}
    if not found:
        raise ValueError(f"{scan.path} has no named gate: none of its named values is the result of a sigmoid")
    return {name: scan.values[name] for name, value in found.items() if value not in whole}


def ledger(credit: Credit | Any, ax: Any = None, *, symbols: Sequence[Any] | None = None) -> Any:
    """Draw a credit ledger: norm of the gradient of the loss at step s for the weights at step t; white is 0.

    credit   the result of `mg.bptt.credit`, or an array (S, T) of these norms
    """
    at = credit.at if isinstance(credit, Credit) else None
    sizes = numbers(credit if at is None else credit.size, "a ledger of credit", {2: "(losses, steps)"})
    S, T = sizes.shape
    ax = axes(ax)
    mapped(ax, sizes, "size of the gradient from s to t", log=True)
    ax.set_ylabel("s, step of the loss" if at is not None or S == T else "s, number of the loss")
    if at is not None and not np.array_equal(at, np.arange(T)):
        rows = np.unique(np.linspace(0, S - 1, min(S, 10)).round().astype(int))
        ax.set_yticks(rows, ["none" if at[s] < 0 else str(at[s]) for s in rows])
    time_axis(ax, T, symbols, name="t, step at which the weights were used")
    return titled(ax, "credit ledger: gradient of each loss for each step")


def spectra(singular_values: Any, ax: Any = None) -> Any:
    """Draw the singular values of Jacobians, the largest first, on a log axis.

    singular_values  the result of `mg.bptt.jacobians`, without masked steps, or (…, n), such as over time. Draws the
                     median, and the range as a band. They are stretching factors, without a unit
    """
    given = {name: stretching(x) for name, x in named(singular_values, "spectra").items()}
    tables = tables_of(given, "spectra", "each singular value")
    ax = axes(ax)
    for k, (name, values) in enumerate(tables.items()):
        values = -np.sort(-values, axis=1)
        draw_line(ax, 1 + np.arange(values.shape[1]), values, name, k, log=True)
    ax.set_yscale("log")
    ax.axhline(1.0, color="#808080", linewidth=0.8, zorder=0)
    ax.set_xlabel("singular value (number, the largest first)")
    ax.set_ylabel("factor of stretching (1 keeps length)")
    return finished(ax, "singular values of the step Jacobians")


def stretching(x: Any) -> Any:
    """Singular values (repeats, n)."""
    if isinstance(x, Jacobians):
        return np.concatenate([x.singular_values[:n, b] for b, n in enumerate(x.lengths)])
    return x.reshape(-1, x.shape[-1]) if isinstance(x, np.ndarray) and x.ndim > 2 else x


def truncation(found: Truncation, ax: Any = None, *, what: str = "bias") -> Any:
    """Draw the error of truncated gradients against k, one line a weight.

    found   the result of `mg.bptt.truncation`
    what    "bias", "cosine" or "ratio", as `Truncation` defines them
    """
    if not isinstance(found, Truncation):
        raise TypeError("truncation takes the result of mg.bptt.truncation, not an object of type "
                        f"{type(found).__name__}")
    labels = {"bias": "bias  ‖gₖ − g‖ / ‖g‖", "cosine": "cosine of gₖ and g", "ratio": "ratio  ‖gₖ‖ / ‖g‖"}
    if what not in labels:
        raise ValueError(f"what is {', '.join(labels)}, not {what!r}")
    ax, order = axes(ax), np.argsort(found.ks)
    for k, (name, values) in enumerate(getattr(found, what).items()):
        draw_line(ax, found.ks[order], values[None, order], name, k, log=what == "bias")
    ax.set_xscale("log")
    if what == "bias":
        ax.set_yscale("log")
    ax.set_xlabel("k (steps that the gradient flows back)")
    ax.set_ylabel(labels[what], parse_math=False)
    return finished(ax, "error of a truncated backward")


def paths(parts: Any, ax: Any = None, *, symbols: Sequence[Any] | None = None) -> Any:
    """Draw the norm of the gradient of each part of the old state at each step, split by the path that it came through.

    parts   the result of `mg.bptt.paths`, or a recorded scan
    """
    parts = paths_of(parts) if isinstance(parts, (Record, Recording)) else checked(parts, "paths")
    lines = {f"{state} through {result}": numbers(d, f"the path from {state} to {result}")
             for state, results in parts.items() for result, d in checked(results, f"paths[{state!r}]").items()}
    steps = len(next(iter(lines.values())))
    ax = axes(ax)
    for k, (name, d) in enumerate(lines.items()):
        draw_line(ax, np.arange(steps), np.linalg.norm(d.reshape(steps, -1), axis=1)[None], name, k, log=True)
    ax.set_yscale("log")
    ax.set_ylabel("gradient norm along the path")
    finished(ax, "paths of the gradient into the old state")
    time_axis(ax, steps, symbols, cells=False)
    return ax


def saturation(found: Any, ax: Any = None) -> Any:
    """Draw how often each unit of a gate is closed and open: near the axes' ends it is saturated, near 0 it works in
    between. Karpathy, Johnson & Fei-Fei, "Visualizing and understanding recurrent networks" (2015), figure 4.

    found   the result of `mg.bptt.saturation`, or a recorded scan
    """
    found = saturation_of(found) if isinstance(found, (Record, Recording)) else found
    if not isinstance(found, Saturation) or not found.low:
        raise ValueError("saturation draws the gates of a recorded scan, or the result of mg.bptt.saturation; this one "
                         "has no gate")
    ax = axes(ax)
    for k, name in enumerate(found.low):
        color, _, marker = STYLES[k % len(STYLES)]
        ax.plot(found.low[name].ravel(), found.high[name].ravel(), linestyle="none", marker=marker, color=color,
                markersize=5, alpha=0.6, label=plain(name))
    ax.plot([0, 1], [1, 0], color="#808080", linewidth=0.8, zorder=0)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("closed (fraction of steps and sequences)")
    ax.set_ylabel("open (fraction of steps and sequences)")
    return finished(ax, "saturation of the gates: one mark a unit")


def curves(runs: Any, ax: Any = None, *, what: str = "loss", smooth: int | None = None, log: bool = False) -> Any:
    """Draw training curves.

    runs    one run: a `Run` or `Trainer`, the result of `Trainer.run`, the folder of a run, its metrics.jsonl, or its
            rows (dicts with "step"); or several: {name: run}, or a list of folders
    what    the entry of each row to draw: "loss" (in the run's unit: nats, or squares), "norm", "lr", "metric", …; rows
            without it are skipped
    smooth  number of rows to average, with the rows themselves as a thin line behind; default: a fiftieth of all rows
    log     whether the axis is logarithmic
    """
    if isinstance(runs, (list, tuple)) and runs and all(isinstance(run, (str, Path)) for run in runs):
        runs = {str(run): run for run in runs}
    runs = named({"": runs} if is_history(runs) else runs, "runs")
    found = [(name, *column(run, what)) for name, run in runs.items()]
    if smooth is not None and (not isinstance(smooth, (int, np.integer)) or smooth < 1):
        raise ValueError(f"smooth is a number of rows ≥ 1, not {smooth!r}")
    ax = axes(ax)
    for k, (name, steps, values) in enumerate(found):
        window = int(smooth or max(1, len(values) // 50))
        if window > 1:
            ax.plot(steps, values, color=STYLES[k % len(STYLES)][0], alpha=0.25, linewidth=0.6)
        draw_line(ax, steps, running_mean(values, window)[None], name, k, log=log)
    if log:
        ax.set_yscale("log")
    ax.set_xlabel("step (updates of the weights)")
    ax.set_ylabel(UNITS.get(what, plain(what)), parse_math=False)
    return finished(ax, f"{plain(what)} over the training")


# -- drawing --------------------------------------------------------------------------------------------------


def axes(ax: Any) -> Any:
    """The given ax, or the axes of a new figure."""
    if ax is not None:
        if not hasattr(ax, "set_xlabel"):
            raise TypeError(f"ax must be matplotlib's Axes, as from plt.subplots(), not {type(ax).__name__}")
        return ax
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        raise ModuleNotFoundError("pictures need matplotlib, which is not installed: pip install matplotlib") from None
    return plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]


def draw_line(ax: Any, x: np.ndarray, values: np.ndarray, name: str, number: int, log: bool = False,
              middle: np.ndarray | None = None, band: Sequence[np.ndarray] | None = None) -> None:
    """Draw the median of the rows of values, and their range; or the given line and band."""
    color, dash, marker = STYLES[number % len(STYLES)]
    name, values = str(name), np.where(values > 0, values, np.nan) if log else values
    middle = np.median(values, axis=0) if middle is None else np.where(middle > 0, middle, np.nan) if log else middle
    every = max(1, -(-len(x) // MARKERS))
    ax.plot(x, middle, color=color, linestyle=dash, linewidth=1.8, marker=marker, markersize=4.5,
            markevery=(number % every, every), label=f"{' ' * name.startswith('_')}{plain(name)}" if name else "_")
    if band is None and len(values) > 1:
        band = values.min(axis=0), values.max(axis=0)
    if band is not None:
        ax.fill_between(x, *band, color=color, alpha=0.13, linewidth=0)


def titled(ax: Any, title: str) -> Any:
    """Give the ax this title, unless it has one."""
    if not any(ax.get_title(loc) for loc in ("left", "center", "right")):
        ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    return ax


def finished(ax: Any, title: str = "") -> Any:
    """Add a grid, a title unless the ax has one, and a legend if lines have names."""
    titled(ax, title)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        for text in ax.legend(frameon=False, handlelength=3.6).get_texts():
            text.set_parse_math(False)
    return ax


def mapped(ax: Any, values: np.ndarray, name: str, log: bool) -> None:
    """Draw values (rows, columns) as colours, with a colour bar. NaN and Inf are hatched; on a log scale 0 is white."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Patch

    known = np.isfinite(values)
    if log:
        values = np.abs(values)
        sizes = values[known & (values > 0)]
        most = sizes.max(initial=0.0) or 1.0
        norm = LogNorm(max(sizes.min(initial=most), most * 10.0 ** -DECADES) * (1.0 if sizes.size > 1 else 0.1), most)
        values = np.where(values > 0, np.maximum(values, norm.vmin), 0.1 * norm.vmin)  # 0 stays white
    else:
        most = np.abs(values[known]).max(initial=0.0) or 1.0
        norm = Normalize(-most if (values[known] < 0).any() else 0.0, most)
    image = ax.imshow(np.ma.array(values, mask=~known), aspect="auto", interpolation="nearest", norm=norm,
                      cmap=colormaps[MAP].with_extremes(under="white"))
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(plain(name), parse_math=False)
    if not known.all():
        ax.patch.set(hatch="xxx", edgecolor="#D55E00")
        ax.legend(handles=[Patch(facecolor="white", edgecolor="#D55E00", hatch="xxx", label="NaN or Inf")],
                  loc="upper right")


def time_axis(ax: Any, steps: int, symbols: Sequence[Any] | None, name: str = "time (steps)", cells: bool = True
              ) -> None:
    """Label the x axis with the symbols of the input, if given and if they fit, else with step numbers."""
    ax.set_xlabel(name)
    if cells:
        ax.set_xlim(-0.5, steps - 0.5)
    if symbols is None:
        return
    if len(symbols) != steps:
        raise ValueError(f"got {len(symbols)} symbols for {steps} steps: give one per step")
    if steps > SYMBOLS:
        return
    ax.set_xticks(np.arange(steps), [plain(symbol) for symbol in symbols], fontsize=min(10.0, 400.0 / steps))
    long = max(len(plain(symbol)) for symbol in symbols) > 2
    for label in ax.get_xticklabels():
        label.set(parse_math=False, rotation=90 if long else 0, verticalalignment="top" if long else "baseline")
    ax.tick_params(axis="x", pad=4 if long else 13)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel(f"input over {name}")


def plain(symbol: Any) -> str:
    """Text of a symbol or name; invisible characters become visible signs."""
    text = SHOWN.get(symbol, symbol) if isinstance(symbol, str) else str(symbol)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


# -- checking arguments ---------------------------------------------------------------------------------------------


def named(lines: Any, what: str) -> Mapping[str, Any]:
    """{name: line}; a single line has no name."""
    return checked(lines if isinstance(lines, Mapping) else {"": lines}, what)


def checked(lines: Any, what: str) -> Mapping[str, Any]:
    """The dict of lines; raises ValueError if it is not a dict, or empty."""
    if not isinstance(lines, Mapping) or not lines:
        raise ValueError(f"{what} must be a dict with at least one entry, a name for each")
    return lines


def numbers(values: Any, what: str, shapes: Mapping[int, str] | None = None) -> np.ndarray:
    """Values as an array of floats; raises ValueError unless they are real numbers, at least one, in one of the shapes
    {number of axes: shape}."""
    values = np.asarray(values.detach() if hasattr(values, "detach") else values)
    if values.dtype.kind not in "fiub" or not values.size:
        raise ValueError(f"{what} must be an array of real numbers, not {values.dtype} of shape {values.shape}")
    if shapes is not None and values.ndim not in shapes:
        raise ValueError(f"{what} must have shape {' or '.join(shapes.values())}, not {values.shape}")
    return values.astype(float)


def tables_of(lines: Mapping[str, Any], what: str, column: str) -> dict[str, np.ndarray]:
    """{name: (repeats, n)}"""
    shapes = {1: f"(n,), one number for {column},", 2: "(repeats, n)"}
    return {name: np.atleast_2d(numbers(values, f"{what}[{name!r}]", shapes)) for name, values in lines.items()}


def one_example(values: np.ndarray, example: int, what: str) -> np.ndarray:
    """One example (T, H) of values (T, H) or (T, H, B)."""
    if values.ndim == 2:
        return values
    if not -values.shape[2] <= example < values.shape[2]:
        raise ValueError(f"{what} has {values.shape[2]} examples, not example {example}")
    return values[:, :, example]


def column(run: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one entry in the rows of a run."""
    run = getattr(run, "trainer", run)
    rows = read_rows(Path(run)) if isinstance(run, (str, Path)) else rows_of(run) if is_history(run) else \
        getattr(run, "rows", run)
    try:
        found = [(row["step"], row[what]) for row in rows if row.get(what) is not None]
    except (TypeError, KeyError, AttributeError):
        raise ValueError("the rows of a run must be dicts with a step, as in metrics.jsonl") from None
    if not found:
        raise ValueError(f"no row has {what!r}; rows have "
                         f"{', '.join(dict.fromkeys(key for row in rows for key in row)) or 'nothing'}")
    steps, values = zip(*found)
    return numbers(steps, "step"), numbers(values, what)


def is_history(run: Any) -> bool:
    """Whether this is a result of `Trainer.run`: a dict of arrays, one of them named step."""
    return isinstance(run, Mapping) and isinstance(run.get("step"), np.ndarray)


def rows_of(history: Mapping[str, np.ndarray]) -> list[dict]:
    """The rows of a history; entries that are NaN were not measured and are left out."""
    return [{name: value for name, value in zip(history, row) if not np.isnan(value)} for row in zip(*history.values())]


def read_rows(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, or of the one in this folder."""
    path = path / "metrics.jsonl" if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} cannot be read as the metrics of a run: {problem}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):  # the last line may be cut off while a run writes it, or after it was killed
                raise ValueError(f"{path}, line {number} is not JSON: {line[:60]!r}") from None
    return rows


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value and the window − 1 before it, fewer at the start; skips NaN and Inf."""
    known = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, values, 0.0), known))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    with np.errstate(invalid="ignore"):
        return (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])
