"""Render an inspection as one HTML file, which opens from disk and needs no network.

`template.html` contains the page with its style and script. This file packs the arrays and inserts all data as JSON.
Texts and file names never become markup: the JSON contains no `<`, the script writes texts only by `textContent`, and
the page's Content-Security-Policy allows only this script, by its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.microscope.page.findings import findings

Array = np.ndarray
POINTS = 600  # maximum number of points of a curve: the columns of pixels it gets on a screen
POWERS = np.array([float(f"1e{k}") for k in range(309)])  # correctly rounded, unlike 10.0**k


@dataclass
class LayerInspection:
    """One recurrent layer over the sequence of T steps. All arrays are real.

    name      name of the layer, as "l0", unique in a report
    values    {name: (T, n)}: a value of the cell at every step; n may differ between names
    grads     {name: (T, n)}: dL/d(the value of that name), if it has a gradient
    reach     {name: (S, T)}: credit ledgers of the weights and of each state: norm of the gradient of the loss at step
              asked[s] for the weights or the state at step t
    spectrum  (T, m): singular values of the step Jacobians d state_t / d state_{t−1}, the largest first; or None
    source    the text of the derived program
    facts     {label: text}, shown above the spectrum, or in its place
    keeps     {state: (2, n)}: the part of its own value that each number of a state keeps in a step,
              |∂state_i(t) / ∂state_i(t − 1)|: the least over all steps, and the geometric mean
    meanings  {name: text}: what a value is, for people who do not know the cell
    """

    name: str
    values: dict[str, Array]
    grads: dict[str, Array]
    reach: dict[str, Array] = field(default_factory=dict)
    spectrum: Array | None = None
    source: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    keeps: dict[str, Array] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)


@dataclass
class Inspection:
    """The contents of a page. Texts may contain any characters.

    title    title of the page
    facts    {label: text}, as {"task": "copy"}
    symbols  T texts: the input at each step
    targets  T texts: the target at each step, or ""; None if the sequence has no targets
    asked    (S,) the steps that have a loss
    steps    {name: (T,)}: numbers that can colour the symbols, such as "loss"; NaN where undefined
    curves   {name: (x, y)}: training curves y (n,) over updates x (n,)
    layers   one layer or more
    about    what a step reads and what it is asked for, in a sentence
    """

    title: str
    facts: dict[str, str]
    symbols: list[str]
    targets: list[str] | None
    asked: Array
    steps: dict[str, Array]
    curves: dict[str, tuple[Array, Array]]
    layers: list[LayerInspection]
    about: str = ""


def render(inspection: Inspection) -> str:
    """The text of the HTML file.

    Arrays are rounded to the four digits that the page shows (`packed`); curves and numbers of steps are not, but a
    curve of more than 600 points is reduced to its extremes. Raises ValueError if the arrays do not fit the sequence.
    """
    check(inspection)
    curves = {name: thinned(x, y) for name, (x, y) in inspection.curves.items()}
    shown = {**vars(inspection), "curves": curves, "findings": findings(inspection)}
    data = json.dumps(shown, allow_nan=False, separators=(",", ":"),
                      default=lambda x: packed(x) if isinstance(x, np.ndarray) else vars(x))
    return page_of(inspection.title, re.sub("[<>&]", lambda c: f"\\u{ord(c[0]):04x}", data))  # no text ends the script


def page_of(title: str, data: str) -> str:
    """The page with this data, as JSON without `<`."""
    template = Path(__file__).with_name("template.html").read_text(encoding="utf-8")
    parts = {"title": html.escape(title), "data": data}
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", template, re.S)[1]
        parts[f"{tag}-hash"] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    whole = re.sub(r"\{\{([a-z-]+)\}\}", lambda hole: parts[hole[1]], template)
    return whole.encode("utf-8", "xmlcharrefreplace").decode()  # a file name may contain surrogates


def packed(x: Array) -> dict[str, Any]:
    """An array as {"shape", "kind", "base64"}, compressed by zlib. Kinds:

    decimal  four digits and a power of ten for each number, in four planes of bytes, which compress well: about 1.6
             bytes, or 2.1 characters, a number
    double   little-endian float64, for arrays with one axis, which are small
    """
    x = np.asarray(x, np.float64)
    if x.ndim == 1:
        kind, octets = "double", x.astype("<f8").tobytes()
    else:
        parts = np.stack([part.ravel() for part in decimal(x)]).astype("<i2")
        kind, octets = "decimal", parts.view(np.uint8).reshape(2, x.size, 2).transpose(0, 2, 1).tobytes()
    return {"shape": list(x.shape), "kind": kind, "base64": base64.b64encode(zlib.compress(octets)).decode()}


def decimal(x: Array) -> tuple[Array, Array]:
    """(m, e): integers with x ≈ m · 10ᵉ, rounded as by `f"{x:.3e}"`, 1000 ≤ |m| ≤ 9999; or m = 0, with e = 0 for 0,
    1 for NaN, 2 for Inf, 3 for −Inf."""
    size = np.abs(x)
    usual = np.isfinite(x) & (size > 0)
    shift = np.where(usual & (size < 1e-280), 100, 0)  # no float64 power of ten could scale subnormals up
    size = np.where(usual, size, 1.0) * 10.0**shift
    e = np.floor(np.log10(size)).astype(int) - 3
    m = np.rint(np.where(e < 0, size * POWERS[np.maximum(-e, 0)], size / POWERS[np.maximum(e, 0)])).astype(int)
    over = m == 10_000
    m, e = np.where(over, 1000, m), e + over - shift
    odd = np.select([np.isnan(x), x == np.inf, x == -np.inf], [1, 2, 3], 0)
    return np.where(usual, np.copysign(m, x), 0).astype(int), np.where(usual, e, odd)


def thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """A curve without its gaps; a long one is reduced to the minimum and maximum of each of 299 intervals."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(y) <= POINTS:
        return x, y
    chosen = {0, len(y) - 1}
    for interval in np.array_split(np.arange(len(y)), POINTS // 2 - 1):
        chosen |= {interval[y[interval].argmin()], interval[y[interval].argmax()]}
    indices = sorted(chosen)
    return x[indices], y[indices]


def check(inspection: Inspection) -> None:
    """Raise ValueError if the inspection is empty, or if its arrays do not fit together."""
    T, S = len(inspection.symbols), len(inspection.asked)
    if not T or not inspection.layers:
        raise ValueError(f"an inspection needs at least one step and one layer; this one has {T} steps and "
                         f"{len(inspection.layers)} layers: give it more")
    names = [layer.name for layer in inspection.layers]
    if len(set(names)) < len(names):
        raise ValueError(f"the layers of an inspection need different names, not {', '.join(names)}")
    expected = [(f"steps[{name!r}]", x, (T,)) for name, x in inspection.steps.items()]
    expected += [("targets", np.asarray(inspection.targets), (T,))] if inspection.targets is not None else []
    for layer in inspection.layers:
        if not layer.values:
            raise ValueError(f"a layer needs at least one value of its cell to show, and {layer.name} has none")
        named = [("values", name, x, (T, None)) for name, x in layer.values.items()]
        named += [("grads", name, x, np.shape(layer.values.get(name))) for name, x in layer.grads.items()]
        named += [("reach", name, x, (S, T)) for name, x in layer.reach.items()]
        named += [("keeps", name, x, (2, None)) for name, x in layer.keeps.items()]
        expected += [(f"{layer.name}.{kind}[{name!r}]", x, shape) for kind, name, x, shape in named]
        expected += [(f"{layer.name}.spectrum", layer.spectrum, (T, None))] if layer.spectrum is not None else []
    for name, x, shape in expected:
        if len(x.shape) != len(shape) or any(b is not None and a != b for a, b in zip(x.shape, shape)):
            wanted = ", ".join("n" if n is None else str(n) for n in shape)
            raise ValueError(f"{name} has shape {x.shape} and must be ({wanted}): of {T} steps, {S} have a loss")
