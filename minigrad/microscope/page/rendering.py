"""A report: arrays of one recording → one HTML file, which opens from disk and asks nothing of the network.

The page is `template.html`, beside this file: its style and its script stand there as they are delivered. Here the
arrays are packed, and everything goes in as data. Whatever a text or a file name holds, it stays text: it is JSON in
which no `<` is left, the script writes it by `textContent` alone, and the page's own Content-Security-Policy lets no
script run but this one, by its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
POINTS = 600  # of a curve, at most: as many as a screen has columns for it
POWERS = np.array([float(f"1e{k}") for k in range(309)])  # each rounded once, which 10.0**k need not be


@dataclass
class LayerInspection:
    """One recurrent layer over the sequence of T steps. All arrays are of real numbers, of any size of them.

    name      of the layer, as "l0"; no two layers of a report have the same
    values    {name: (T, n)}: what the cell computed at every step, an n for each name
    grads     {name: (T, n)}: dL/d(the value of that name), for those that have one
    reach     {name: (S, T)}: the size of the gradient that the loss at step asked[s] sends to what is named, as step t
              used it. The credit ledger of the weights, and the same of each state
    spectrum  (T, m): singular values of the step Jacobians d state_t / d state_{t−1}, the largest first; or None
    source    the derived program, as text
    facts     {what: how much}, to be shown above the spectrum, or in its place
    """

    name: str
    values: dict[str, Array]
    grads: dict[str, Array]
    reach: dict[str, Array] = field(default_factory=dict)
    spectrum: Array | None = None
    source: str = ""
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Inspection:
    """What a page shows. Texts may hold anything.

    title    of the page
    facts    {what: how much}, as {"task": "copy"}
    symbols  T texts: what the model read at each step
    targets  T texts: what was asked of it there, or ""; None, if nothing was
    asked    (S,) the steps that have a loss
    steps    {name: (T,)}: numbers of each step, NaN where there is none, as "loss"; the symbols can be tinted by them
    curves   {name: (x, y)}: the run, y (n,) over steps of training x (n,)
    layers   one or more
    """

    title: str
    facts: dict[str, str]
    symbols: list[str]
    targets: list[str] | None
    asked: Array
    steps: dict[str, Array]
    curves: dict[str, tuple[Array, Array]]
    layers: list[LayerInspection]


def render(inspection: Inspection) -> str:
    """The HTML file, as text.

    Arrays are kept to the four digits that the page shows (`packed`), curves and numbers of steps whole, a curve of
    more than 600 points by its extremes. Raises ValueError, in a sentence, when the arrays do not fit the sequence.
    """
    check(inspection)
    curves = {name: as_data(thinned(x, y)) for name, (x, y) in inspection.curves.items()}
    data = {**as_data(inspection), "curves": curves}
    template = Path(__file__).with_name("template.html").read_text(encoding="utf-8")
    parts = {"title": html.escape(inspection.title), "data": json_for_html(data)}
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", template, re.S)[1]
        parts[f"{tag}-hash"] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    whole = re.sub(r"\{\{([a-z-]+)\}\}", lambda hole: parts[hole[1]], template)
    return whole.encode("utf-8", "xmlcharrefreplace").decode()  # of a file name, what is no UTF-8


def json_for_html(data: Any) -> str:
    """JSON that can stand in a script element: without <, > and &, which could end it, and in ASCII."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def as_data(thing: Any) -> Any:
    """Dataclasses as dicts, arrays packed, the rest as it is."""
    if is_dataclass(thing):
        return {one.name: as_data(getattr(thing, one.name)) for one in fields(thing)}
    if isinstance(thing, dict):
        return {name: as_data(x) for name, x in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [as_data(x) for x in thing]
    return packed(thing) if isinstance(thing, np.ndarray) else thing


def packed(x: Array) -> dict[str, Any]:
    """An array as {"shape", "kind", "base64"}, in what zlib makes of it. Kinds:

    decimal  as the page shows it: of each number four digits and a power of ten, in four planes of octets, since those
             of a kind pack well. About 1.6 octets a number, 2.1 characters
    double   a float64, little end first, for one axis, where size does not matter
    """
    x = np.asarray(x, np.float64)
    if x.ndim == 1:
        kind, octets = "double", x.astype("<f8").tobytes()
    else:
        parts = np.stack([part.ravel() for part in decimal(x)]).astype("<i2")
        kind, octets = "decimal", parts.view(np.uint8).reshape(2, x.size, 2).transpose(0, 2, 1).tobytes()
    return {"shape": list(x.shape), "kind": kind, "base64": base64.b64encode(zlib.compress(octets)).decode()}


def decimal(x: Array) -> tuple[Array, Array]:
    """(m, e): integers with x ≈ m · 10ᵉ, rounded as `f"{x:.3e}"` does, 1000 ≤ |m| ≤ 9999; or m = 0 where x is 0, and
    where it is no number: with e = 1 for NaN, 2 for Inf, 3 for −Inf."""
    size = np.abs(x)
    usual = np.isfinite(x) & (size > 0)
    shift = np.where(usual & (size < 1e-280), 100, 0)  # subnormals have no power of ten that would bring them up
    size = np.where(usual, size, 1.0) * 10.0**shift
    e = np.floor(np.log10(size)).astype(int) - 3
    m = np.rint(np.where(e < 0, size * POWERS[np.maximum(-e, 0)], size / POWERS[np.maximum(e, 0)])).astype(int)
    over = m == 10_000
    m, e = np.where(over, 1000, m), e + over - shift
    odd = np.select([np.isnan(x), x == np.inf, x == -np.inf], [1, 2, 3], 0)
    return np.where(usual, np.copysign(m, x), 0).astype(int), np.where(usual, e, odd)


def thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """A curve without its gaps; if it is long, the least and the largest of each of 300 stretches."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(y) <= POINTS:
        return x, y
    kept = {0, len(y) - 1}
    for stretch in np.array_split(np.arange(len(y)), POINTS // 2 - 1):
        kept |= {stretch[y[stretch].argmin()], stretch[y[stretch].argmax()]}
    places = sorted(kept)
    return x[places], y[places]


def check(inspection: Inspection) -> None:
    """Raises ValueError where the page would have nothing to show, or something else than it says."""
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
        expected += [(f"{layer.name}.{kind}[{name!r}]", x, shape) for kind, name, x, shape in named]
        expected += [(f"{layer.name}.spectrum", layer.spectrum, (T, None))] if layer.spectrum is not None else []
    for name, x, shape in expected:
        if len(x.shape) != len(shape) or any(b is not None and a != b for a, b in zip(x.shape, shape)):
            wanted = ", ".join("n" if n is None else str(n) for n in shape)
            raise ValueError(f"{name} has shape {x.shape} and must be ({wanted}): of {T} steps, {S} have a loss")
