"""What an inspection finds, in sentences: the largest loss, the reach of the credit, the units that keep their value.

Each sentence has a place on the page: a step, a unit, a layer, a loss. The page opens at the places of the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.microscope.credit import lag_of_share

Array = np.ndarray
NEVER = 0.95  # a unit that keeps at least this part of its value at every step never forgets


@dataclass
class Finding:
    """A sentence, and where the page shows it: {"t": step, "unit": …, "layer": name, "loss": step}, or a part of it."""

    text: str
    place: dict[str, str | int]


def findings(inspection: Any) -> list[Finding]:
    """The findings of an Inspection, the most urgent first."""
    several = len(inspection.layers) > 1
    found = [f for layer in inspection.layers for f in first_bad_number(layer)]
    found += largest_loss(inspection.steps.get("loss"))
    for layer in inspection.layers:
        of_layer = [*reach_of_credit(layer, inspection.asked), *longest_memory(layer)]
        found += [Finding(f"Layer {layer.name}: {f.text}", f.place) if several else f for f in of_layer]
    return found


def first_bad_number(layer: Any) -> list[Finding]:
    """The first NaN or Inf among the values; if there is none, the last among the gradients, which go back in time."""
    for arrays, label, first in ((layer.values, "{}", min), (layer.grads, "dL/d{}", max)):
        bad = {name: ~np.isfinite(x) for name, x in arrays.items()}
        steps = {name: first(np.flatnonzero(x.any(axis=1))) for name, x in bad.items() if x.any()}
        if steps:
            name = first(steps, key=steps.__getitem__)
            t, unit = int(steps[name]), int(bad[name][steps[name]].argmax())
            return [Finding(f"{label.format(name)} is NaN or Inf at step {t}, the first place where a number fails.",
                            {"layer": layer.name, "t": t, "unit": unit})]
    return []


def largest_loss(loss: Array | None) -> list[Finding]:
    """The step of the largest loss."""
    steps = np.flatnonzero(np.isfinite(loss)) if loss is not None else ()
    if not len(steps):
        return []
    t = int(steps[np.argmax(loss[steps])])
    if len(steps) == 1:
        text = f"The only loss is at step {t}: {loss[t]:.3g}."
    else:
        text = f"The largest loss is at step {t}: {loss[t]:.3g}, where the mean is {loss[steps].mean():.3g}."
    return [Finding(text, {"t": t, "loss": t})]


def reach_of_credit(layer: Any, asked: Array) -> list[Finding]:
    """How many steps before its loss half of the credit lies, and how many nine tenths."""
    size = layer.reach.get("weights")
    if size is None or not np.isfinite(size).all() or not size.any():
        return []
    half, most = (lag_of_share(size, asked, share) for share in (0.5, 0.9))
    where = "at the step of the loss itself" if half == 0 else f"within {steps_of(half)} of the loss"
    further = "all but a tenth, too" if half == most else f"all but a tenth within {steps_of(most)}"
    s = int(asked[-1])
    return [Finding(f"Half of the credit lies {where}, {further}.", {"layer": layer.name, "loss": s, "t": s - half})]


def longest_memory(layer: Any) -> list[Finding]:
    """The units of the state that keep their value at every step, or the one that keeps it longest."""
    if not layer.keeps:
        return []
    name, (least, mean) = max(layer.keeps.items(), key=lambda item: item[1][1].max())
    never, best = least >= NEVER, int(np.argmax(mean))
    keeps = f"unit {best} keeps {100 * mean[best]:.3g} % a step"
    if never.any():
        n, one = never.sum(), never.sum() == 1
        units = f"All {n} units" if n == len(never) > 1 else f"{n} of {len(never)} units"
        text = (f"{units} of {name} never forget{'s' if one else ''}, keeping at least "
                f"{100 * NEVER:.0f} % of {'its' if one else 'their'} value at every step; {keeps}.")
    else:
        half = np.log(0.5) / np.log(mean[best]) if 0 < mean[best] < 1 else 0
        rest = f", half of its value for {steps_of(round(half))}" if half >= 0.5 else ""
        text = f"No unit of {name} keeps {100 * NEVER:.0f} % of its value at every step; {keeps}{rest}."
    return [Finding(text, {"layer": layer.name, "unit": best})]


def steps_of(n: int) -> str:
    return f"{n} step{'s' if n > 1 else ''}"
