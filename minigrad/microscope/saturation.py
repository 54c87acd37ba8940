"""Saturated gates, dead and exploding units, and the first NaN of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minigrad.engine.ops import sigmoid, tanh
from minigrad.microscope.recording import Record, Recording, one_scan
from minigrad.notebook import table

Array = np.ndarray


@dataclass
class Saturation:
    """The result of `saturation`. A unit is an entry of a value without its time and batch axes.

    low, high   {gate: (units…)}   fraction of all steps and sequences in which a unit is below 0.05, above 0.95
    dead        {state: (units…)}  whether the unit never moves
    exploding   {state: (units…)}  whether the unit exceeds 1000, or is not finite
    nan         (t, name) of the first value that contains a NaN; None if none does
    nan_grad    likewise for gradients: the first that a backward met, so the last in time; None if none does
    """

    low: dict[str, Array]
    high: dict[str, Array]
    dead: dict[str, Array]
    exploding: dict[str, Array]
    nan: tuple[int, str] | None
    nan_grad: tuple[int, str] | None

    def __repr__(self) -> str:
        def mean(parts: dict[str, Array]) -> str:
            return f"{100 * np.concatenate([x.ravel() for x in parts.values()]).mean():.0f} %"

        def units(parts: dict[str, Array]) -> int:
            return sum(int(x.sum()) for x in parts.values())
        gates = f"gates closed {mean(self.low)}, open {mean(self.high)} of the time" if self.low else "no gates"
        nan = next((f"the first NaN of {what} in {found[1]} at step {found[0]}" for what, found in
                    (("the values", self.nan), ("the gradients", self.nan_grad)) if found), "no NaN")
        return (f"{gates}; {units(self.dead)} of {sum(x.size for x in self.dead.values())} units dead, "
                f"{units(self.exploding)} exploding; {nan}")

    def _repr_html_(self) -> str:
        gates = [(name, low.size, f"{100 * low.mean():.1f} %", f"{100 * self.high[name].mean():.1f} %", "–", "–")
                 for name, low in self.low.items()]
        states = [(name, x.size, "–", "–", int(x.sum()), int(self.exploding[name].sum()))
                  for name, x in self.dead.items()]
        return table(repr(self), ["value", "units", "closed", "open", "dead units", "exploding units"], gates + states)


def saturation(rec: Recording | Record, *, low: float = 0.05, high: float = 0.95, still: float = 1e-6,
               large: float = 1e3) -> Saturation:
    """Find closed and open gates, dead and exploding units, and the first NaN of a scan.

    Gates are the named results of a sigmoid, and those of a tanh rescaled from [−1, 1] as (1 + v)/2. Beyond the bounds
    σ' is below 0.05 and tanh' below 0.2: little gradient passes.
    A unit of the state is dead if its values, over all steps and sequences, differ by at most `still`; it explodes
    beyond `large`. In a value with two axes or more, the last is the batch. Masked steps do not count, except for
    nan_grad: 0 · NaN is NaN, which reaches the weights from there too. Does not need a backward; without one, nan_grad
    is None. Raises ValueError if no step counts, as in an empty batch.
    """
    scan = one_scan(rec)
    found = Saturation({}, {}, {}, {}, None, None)
    for name in scan.values:
        op = scan.op_of(name)
        if op in (sigmoid.op, tanh.op):
            v = samples(scan, name) if op is sigmoid.op else (1.0 + samples(scan, name)) / 2.0
            found.low[name], found.high[name] = np.mean(v < low, axis=0), np.mean(v > high, axis=0)
    for before, after in scan.states.items():
        v = samples(scan, after or before)
        if v.dtype.kind == "f":
            found.dead[after or before] = v.max(axis=0) - v.min(axis=0) <= still
            found.exploding[after or before] = ~(np.abs(v).max(axis=0) <= large)
    found.nan = first_nan(scan.values, scan.order, scan.mask)
    if scan.backwards:
        floats = {name: scan.grads[name] for name in reversed(list(scan.grads)) if scan.values[name].dtype.kind in "fc"}
        found.nan_grad = first_nan(floats, scan.order[::-1])
    return found


def samples(scan: Record, name: str) -> Array:
    """(samples, units…): a value at every step of every sequence, without the masked ones."""
    v = scan.values[name]
    if is_masked(v, scan.mask):
        v = np.moveaxis(v, -1, 1)[scan.mask]
    elif v.ndim > 2:
        v = np.moveaxis(v, -1, 1).reshape(-1, *v.shape[1:-1])
    if not len(v):
        raise ValueError(f"no step of {scan.path} counts: its batch is empty, or its mask leaves out every step")
    return v


def is_masked(v: Array, mask: Array | None) -> bool:
    """Whether the last axis of a value (T, …) is the batch of the mask."""
    return mask is not None and v.ndim > 1 and v.shape[-1] == mask.shape[1]


def first_nan(arrays: Mapping[str, Array], order: range, mask: Array | None = None) -> tuple[int, str] | None:
    """(t, name) of the first array with a NaN at a step, in this order of steps."""
    return next(((t, name) for t in order for name, a in arrays.items()
                 if np.isnan(a[t][..., mask[t]] if is_masked(a, mask) else a[t]).any()), None)
