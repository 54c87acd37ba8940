"""Pictures of runs and of gradients, by matplotlib (the extra `plot`): each a function on arrays, drawn on an `ax`.

    against_lag(norms)        how much gradient comes back over how many steps
    heat(values)              time × unit, for a value or a gradient
    gates(values)             how far the gates are open, over time
    ledger(credit)            which loss pays for which step
    spectra(singular_values)  of the step Jacobians
    curves(runs)              training curves, from metrics.jsonl

Where a recording, or what `mg.bptt` makes of one, holds these arrays it may be given in their place. Every function
takes `ax`, draws on it, labels its axes with units and returns it; without one it makes a figure. Lines differ in dash
and marker as well as in colour (Okabe and Ito's), and colour maps rise evenly in lightness, so that all of it can be
read in grey and by the colour-blind. Text from data (symbols, names) is drawn as it is, never as markup.
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
from minigrad.microscope.recording import Record, Recording, one_scan
from minigrad.microscope.saturation import is_masked

# Okabe and Ito's colours, each with a dash and a marker of its own; the first four differ in lightness too.
STYLES = [("#000000", "-", "o"), ("#D55E00", (0, (5, 2)), "s"), ("#0072B2", (0, (8, 2, 1.5, 2)), "^"),
          ("#56B4E9", (0, (1.2, 1.4)), "D"), ("#E69F00", (0, (3, 1.2, 1, 1.2, 1, 1.2)), "v"), ("#009E73", "-", "x"),
          ("#CC79A7", (0, (5, 2)), "+")]
MAP = "cividis"  # made for the colour-blind, even in lightness
SLACK = 1e-6  # distance by which a gate may leave [0, 1]
DECADES = 12  # that a logarithmic colour map spans at most
MARKERS = 12  # on a line, at most
SYMBOLS = 80  # along an axis, at most; beyond it has numbers
UNITS = {"loss": "loss (mean, in nats or squared)", "norm": "norm of the gradient",
         "lr": "learning rate (step size)"}
SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\0": "␀", "": "∅"}

Lines = Mapping[str, Any]


def by_lag(of: Record | Recording | Credit, name: str | None = None) -> np.ndarray:
    """(lags,): how much gradient comes back over 0, 1, … steps.

    of    a recorded scan: the norm of the gradient of a value over the whole batch, by the number of steps before the
          last; with a mask, before the last of each sequence, from those that are long enough, scaled to the whole
          batch. Or a `Credit`: the size of the gradient that a loss sends to each earlier use of the weights, by the
          number of steps between them; the mean over its losses
    name  of the value, by default the first part of the state as it leaves a step (h_next, a_next); of a Credit, one
          of its states in place of the weights

    Raises ValueError for a scan into which gradients come at more than one step, as from a loss at every step: what is
    there at a lag is then a sum over many lags.
    """
    if isinstance(of, Credit):
        return np.nanmean(lags_of(of, name), axis=0)
    if not isinstance(of, (Record, Recording)):
        raise TypeError("gradients by lag are those of one recorded scan, as rec[0], or of a Credit, not of an object "
                        f"of {type(of).__name__}")
    scan = one_scan(of)
    d = scan.grads[name if name is not None else main_state(scan)]
    d = d[::-1] if scan.reverse else d
    steps, ends = entries(scan)
    if (steps.sum(axis=0) > 1).any():
        raise ValueError(f"gradients come into {scan.path} at {steps.any(axis=1).sum()} of its steps, as from a loss "
                         "at every step, and what is there at a lag is the sum of them all, which hides what vanishes: "
                         "give mg.bptt.credit(rec, losses), which keeps them apart, or record the backward of a loss "
                         "at the last step")
    if not is_masked(d, scan.mask):
        return np.linalg.norm(d.reshape(scan.steps, -1), axis=1)[::-1]
    squares = np.square(np.abs(d)).reshape(scan.steps, -1, len(ends)).sum(axis=1)
    sums, there = np.zeros((2, max(ends) + 1))
    for b, end in enumerate(ends):
        sums[:end + 1] += squares[end::-1, b]
        there[:end + 1] += 1
    return np.sqrt(sums * len(ends) / there)


def entries(scan: Record) -> tuple[np.ndarray, np.ndarray]:
    """(T, B): whether a gradient comes to a sequence from outside of the scan at a step, in the order of running; and
    the last step (B,) of each. Without a mask, B = 1 is for all sequences."""
    T, mask = scan.steps, scan.mask
    ends = np.array([T - 1]) if mask is None else np.full(mask.shape[1], T - 1) if scan.reverse else \
        np.maximum(mask.sum(axis=0) - 1, 0)
    steps = np.zeros((T, len(ends)), bool)
    for backward in scan.recorded_backwards():
        for d in backward.d_ys:
            each = is_masked(d, mask)
            steps |= (d != 0).reshape(T, -1, len(ends) if each else 1).any(axis=1)
        for d in backward.d_state:
            each = mask is not None and d.shape[-1:] == ends.shape
            steps[ends, np.arange(len(ends))] |= (d != 0).reshape(-1, len(ends) if each else 1).any(axis=0)
    return steps, ends


def lags_of(credit: Credit, name: str | None = None) -> np.ndarray:
    """(losses, lags): the size of what each loss sends back by each lag; NaN before the first step."""
    if name is not None and name not in credit.states:
        raise ValueError(f"this Credit has no state {name!r}: there is {', '.join(credit.states) or 'none'}")
    sizes = credit.size if name is None else credit.states[name]
    rows = [row[s:] if credit.reverse else row[s::-1] for row, s in zip(sizes, credit.at) if s >= 0]
    if not rows:
        raise ValueError("none of the losses of this Credit depends on a step of its scan")
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for line, row in zip(table, rows):
        line[:len(row)] = row
    return table


def main_state(scan: Record) -> str:
    for before, after in scan.states.items():
        return after or before
    raise ValueError(f"{scan.path} has no state: name the value that is meant")


def against_lag(norms: Any, ax: Any = None, *, of: str | None = None) -> Any:
    """How much gradient comes back over how many steps, on a log axis.

    norms  a recorded scan of a loss at its last step, or a `Credit`, for losses at many steps (see `by_lag`); or
           (lags,), or (repeats, lags): ‖dL/dh‖ at T − lag for lag 0, 1, …, in the unit of the gradient, or divided by
           that of lag 0, without unit; or name → such. Of several repeats the median is drawn, and their range as a
           band; of a Credit the mean over its losses, and their range.
    of     the value that is meant, by default the state as it leaves a step; of a Credit a state as it enters one, by
           default the weights. Of arrays it is the label
    """
    norms = checked(norms if isinstance(norms, Mapping) else {"": norms}, "norms")
    credits = [isinstance(x, Credit) for x in norms.values()]
    if any(credits) and not all(credits):
        raise ValueError("a Credit is drawn with others of its kind alone, since it is about the weights, or the state "
                         "that enters a step: give one for each line")
    scans = {name: one_scan(x) for name, x in norms.items() if isinstance(x, (Record, Recording))}
    found = lines_of({name: lags_of(x, of) if isinstance(x, Credit) else by_lag(scans[name], of) if name in scans else x
                      for name, x in norms.items()}, "norms", "each lag")
    mains = {main_state(scan) for scan in scans.values()} if len(scans) == len(norms) and of is None else set()
    ax = axes(ax)
    for k, (name, values) in enumerate(found):
        given: dict[str, Any] = {}
        if any(credits):
            above = np.where(values > 0, values, np.nan)  # a 0 has no place on a log axis
            given = {"middle": np.nanmean(values, axis=0), "band": (np.fmin.reduce(above), np.fmax.reduce(above))}
        draw_line(ax, np.arange(values.shape[1]), values, name, k, log=True, **given)
    ax.set_yscale("log")
    if any(credits):
        ax.set_xlabel("lag (time steps before the loss)")
        ax.set_ylabel(f"mean gradient norm  ‖dLₛ/d{plain(of or 'W')}‖ at s − lag", parse_math=False)
    else:
        ax.set_xlabel("lag (time steps before the last)")
        of = of or (mains.pop() if len(mains) == 1 else "h")
        ax.set_ylabel(f"gradient norm  ‖dL/d{plain(of)}‖ at T − lag", parse_math=False)
    return finished(ax)


def heat(values: Any, ax: Any = None, *, symbols: Sequence[Any] | None = None, name: str = "value", log: bool = False,
         example: int = 0) -> Any:
    """A map of time × unit, for a value or a gradient.

    values   (T, H), or (T, H, B) of which one example is shown
    symbols  T characters or other symbols of the input, for the axis
    name     what the colours are, with its unit, if it has one
    log      colours by the decades of the size |value|, as for gradients
    """
    values = one_example(values, example, "values")
    ax = axes(ax)
    mapped(ax, values.T, name, log)
    ax.set_ylabel("unit (number)")
    time_axis(ax, values.shape[0], symbols)
    return ax


def gates(values: Lines | Record | Recording, ax: Any = None, *, symbols: Sequence[Any] | None = None,
          example: int | None = None) -> Any:
    """Gates over time: the mean over their units as a line, and where the middle 80 % of them lie as a band.

    values   name → (T, H) or (T, H, B), as `{name: scan.values[name] for name in ("ft", "it", "ot")}`, between 0 and
             1; of a recorded scan, those values that a sigmoid gave, and that are not cut up into others, of each
             sequence up to its end
    symbols  T characters or other symbols of the input, for the axis
    example  one of the batch; without it, the units of all
    """
    mask = None
    if isinstance(values, (Record, Recording)):
        scan = one_scan(values)
        values, mask = gates_of(scan), scan.mask
    arrays = {name: over_time(x, f"gate {name!r}") for name, x in checked(values, "gates").items()}
    if len({len(x) for x in arrays.values()}) > 1:
        said = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(f"gates are drawn over one time axis, the first of each, and they have {said}")
    for name, x in arrays.items():
        if not (x[np.isfinite(x)] >= -SLACK).all() or not (x[np.isfinite(x)] <= 1 + SLACK).all():
            raise ValueError(f"gate {name!r} lies between {np.nanmin(x):.3g} and {np.nanmax(x):.3g}, and a gate "
                             "between 0 and 1: draw other values by heat")
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
    finished(ax)
    time_axis(ax, steps, symbols, cells=False)
    return ax


def gates_of(scan: Record) -> dict[str, np.ndarray]:
    """What a sigmoid gave in a recorded scan, by name; where that is cut up into gates with names, these alone."""
    found = {name: scan.step.named[name].value for name in scan.values if scan.op_of(name) is sigmoid.op}
    whole = {value.inputs[0] for value in found.values() if value.op is getitem.op}
    if not found:
        raise ValueError(f"{scan.path} has no gate with a name, as no value of its is what a sigmoid gave")
    return {name: scan.values[name] for name, value in found.items() if value not in whole}


def ledger(credit: Credit | Any, ax: Any = None, *, symbols: Sequence[Any] | None = None) -> Any:
    """The ledger of credit: how much the loss at step s sends to the weights' use at step t; white is nothing.

    credit   as `mg.bptt.credit` gives it, or (S, T): the size of that gradient
    symbols  T characters or other symbols of the input, for the axis
    """
    at = credit.at if isinstance(credit, Credit) else None
    sizes = numbers(credit.size if isinstance(credit, Credit) else credit, "a ledger of credit")
    if sizes.ndim != 2:
        raise ValueError(f"a ledger of credit has shape (losses, steps), not {sizes.shape}")
    S, T = sizes.shape
    ax = axes(ax)
    mapped(ax, sizes, "size of the gradient from s to t", log=True)
    ax.set_ylabel("s, step of the loss" if at is not None or S == T else "s, number of the loss")
    if at is not None and not np.array_equal(at, np.arange(T)):
        rows = np.unique(np.linspace(0, S - 1, min(S, 10)).round().astype(int))
        ax.set_yticks(rows, ["none" if at[s] < 0 else str(at[s]) for s in rows])
    time_axis(ax, T, symbols, name="t, step at which the weights were used")
    return ax


def spectra(singular_values: Any, ax: Any = None) -> Any:
    """Singular values of Jacobians, the largest first, on a log axis.

    singular_values  the Jacobians that `mg.bptt.jacobians` gives, of a sequence up to its end, or (…, n), as over time:
                     the median is drawn, and the range as a band; or name → such. They have no unit: factors of
                     stretching.
    """
    given = checked(singular_values if isinstance(singular_values, Mapping) else {"": singular_values}, "spectra")
    found = lines_of({name: stretching(x) for name, x in given.items()}, "spectra", "each singular value")
    ax = axes(ax)
    for k, (name, values) in enumerate(found):
        values = -np.sort(-values, axis=1)
        draw_line(ax, 1 + np.arange(values.shape[1]), values, name, k, log=True)
    ax.set_yscale("log")
    ax.axhline(1.0, color="#808080", linewidth=0.8, zorder=0)
    ax.set_xlabel("singular value (number, the largest first)")
    ax.set_ylabel("factor of stretching (1 keeps length)")
    return finished(ax)


def stretching(x: Any) -> Any:
    """(repeats, n)"""
    if isinstance(x, Jacobians):
        return np.concatenate([x.singular_values[:n, b] for b, n in enumerate(x.lengths)])
    return x.reshape(-1, x.shape[-1]) if isinstance(x, np.ndarray) and x.ndim > 2 else x


def curves(runs: Any, ax: Any = None, *, what: str = "loss", smooth: int | None = None, log: bool = False) -> Any:
    """Training curves.

    runs    what `Trainer.run` returns, a metrics.jsonl, the folder of a run that has one, its rows (dicts with "step"),
            or name → such
    what    the number of each row that is drawn: "loss" (as the run's loss has it: nats, or squares), "norm", "lr",
            "metric", …; rows without it are passed over
    smooth  draw the mean over so many rows, and the rows themselves thin behind it; by default a fiftieth of them
    log     a log axis for it
    """
    found = [(name, *column(run, what)) for name, run in
             checked(runs if isinstance(runs, Mapping) and not is_history(runs) else {"": runs}, "runs").items()]
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
    return finished(ax)


# -- drawing --------------------------------------------------------------------------------------------------


def axes(ax: Any) -> Any:
    """The given ax, or that of a new figure."""
    if ax is not None:
        if not hasattr(ax, "set_xlabel"):
            raise TypeError(f"ax is an axes of matplotlib, as plt.subplots() gives, not {type(ax).__name__}")
        return ax
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        raise ModuleNotFoundError("pictures need matplotlib, which is not installed: pip install matplotlib") from None
    return plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]


def draw_line(ax: Any, x: np.ndarray, values: np.ndarray, name: str, number: int, log: bool = False,
              middle: np.ndarray | None = None, band: Sequence[np.ndarray] | None = None) -> None:
    """The median of the rows of values, and their range; or the given line and band."""
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


def finished(ax: Any) -> Any:
    """Grid, and the names of the lines, if they have any."""
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        for text in ax.legend(frameon=False, handlelength=3.6).get_texts():
            text.set_parse_math(False)
    return ax


def mapped(ax: Any, values: np.ndarray, name: str, log: bool) -> None:
    """A colour map of values, (rows, columns), with its bar. What is no number is hatched, and so named; in decades
    0 is white."""
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
    """Time along x: the symbols of the input where they are given and there is room, else numbers."""
    ax.set_xlabel(name)
    if cells:
        ax.set_xlim(-0.5, steps - 0.5)
    if symbols is None:
        return
    if len(symbols) != steps:
        raise ValueError(f"there are {len(symbols)} symbols for {steps} steps: give one for each")
    if steps > SYMBOLS:
        return
    ax.set_xticks(np.arange(steps), [plain(symbol) for symbol in symbols], fontsize=min(10.0, 400.0 / steps))
    long = max(len(plain(symbol)) for symbol in symbols) > 2
    for label in ax.get_xticklabels():
        label.set(parse_math=False, rotation=90 if long else 0, verticalalignment="top" if long else "baseline")
    ax.tick_params(axis="x", pad=4 if long else 13)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel(f"input over {name}")


def plain(said: Any) -> str:
    """Text from data: what cannot be seen gets a sign."""
    said = SHOWN.get(said, str(said)) if isinstance(said, str) else str(said)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in said)


# -- what comes in ---------------------------------------------------------------------------------------------


def checked(lines: Any, what: str) -> Lines:
    if not isinstance(lines, Mapping) or not lines:
        raise ValueError(f"{what} are given as a dict, a name for each, with at least one in it")
    return lines


def numbers(values: Any, what: str) -> np.ndarray:
    """An array of floats, of at least one number."""
    values = np.asarray(values.detach() if hasattr(values, "detach") else values)
    if values.dtype.kind not in "fiub" or not values.size:
        raise ValueError(f"{what} must be an array of real numbers, not {values.dtype} of shape {values.shape}")
    return values.astype(float)


def lines_of(lines: Any, what: str, column: str) -> list[tuple[str, np.ndarray]]:
    """[(name, (repeats, n))]"""
    found = []
    for name, values in checked(lines, what).items():
        values = numbers(values, f"{what}[{name!r}]")
        if values.ndim not in (1, 2):
            raise ValueError(f"{what}[{name!r}] has shape {values.shape}, and must have one number for {column}, or "
                             "rows of them")
        found.append((name, np.atleast_2d(values)))
    return found


def over_time(values: Any, what: str) -> np.ndarray:
    values = numbers(values, what)
    if values.ndim not in (2, 3):
        raise ValueError(f"{what} must have shape (T, H) or (T, H, B), not {values.shape}")
    return values


def one_example(values: Any, example: int, what: str) -> np.ndarray:
    """(T, H)"""
    values = over_time(values, what)
    if values.ndim == 2:
        return values
    if not -values.shape[2] <= example < values.shape[2]:
        raise ValueError(f"example {example} is not among the {values.shape[2]} of {what}")
    return values[:, :, example]


def column(run: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one number in the rows of a run."""
    rows = read_rows(Path(run)) if isinstance(run, (str, Path)) else rows_of(run) if is_history(run) else run
    try:
        found = [(row["step"], row[what]) for row in rows if row.get(what) is not None]
    except (TypeError, KeyError, AttributeError):
        raise ValueError("the rows of a run are dicts with a step, as the lines of metrics.jsonl hold") from None
    if not found:
        raise ValueError(f"no row has {what!r}; there is "
                         f"{', '.join(dict.fromkeys(key for row in rows for key in row)) or 'nothing'}")
    steps, values = zip(*found)
    return numbers(steps, "step"), numbers(values, what)


def is_history(run: Any) -> bool:
    """Whether this is what `Trainer.run` returns: arrays, one of them named step."""
    return isinstance(run, Mapping) and isinstance(run.get("step"), np.ndarray)


def rows_of(history: Mapping[str, np.ndarray]) -> list[dict]:
    """Its rows, each without what was not measured there, which is NaN in a history."""
    return [{name: value for name, value in zip(history, row) if not np.isnan(value)} for row in zip(*history.values())]


def read_rows(path: Path) -> list[dict]:
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
            if number < len(lines):  # a run that is being written, or was killed, may end within a line
                raise ValueError(f"{path}, line {number} is no JSON: {line[:60]!r}") from None
    return rows


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value and the window − 1 before it, fewer at the start; what is no number is passed over."""
    known = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, values, 0.0), known))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    with np.errstate(invalid="ignore"):
        return (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])
