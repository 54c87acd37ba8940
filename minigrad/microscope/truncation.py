"""Truncated backpropagation through time compared with the whole gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from minigrad.engine.backward import behind, data_of
from minigrad.engine.op import RELEASED
from minigrad.engine.tensor import Tensor, describe
from minigrad.microscope.cell_program import free
from minigrad.microscope.recording import Record, Recording, Window, one_scan, replayed_gradients, shortened
from minigrad.notebook import table
from minigrad.timeloop.call import ScanCall

Array = np.ndarray


@dataclass
class Truncation:
    """The weights' gradients g_k from backwards over k steps, for K values of k, compared with the whole gradient g.

    ks         (K,)
    full       {weight: g}
    gradients  {weight: (K, *shape)}   g_k
    bias       {weight: (K,)}   ‖g_k − g‖ / ‖g‖
    cosine     {weight: (K,)}   ⟨g_k, g⟩ / ‖g_k‖ ‖g‖
    ratio      {weight: (K,)}   ‖g_k‖ / ‖g‖;   all three are NaN if g is 0
    """

    ks: Array
    full: dict[str, Array]
    gradients: dict[str, Array]

    @property
    def bias(self) -> dict[str, Array]:
        return self.compare(lambda g_k, g: np.linalg.norm(g_k - g) / np.linalg.norm(g))

    @property
    def cosine(self) -> dict[str, Array]:
        return self.compare(lambda g_k, g: np.vdot(g_k, g).real / (np.linalg.norm(g_k) * np.linalg.norm(g)))

    @property
    def ratio(self) -> dict[str, Array]:
        return self.compare(lambda g_k, g: np.linalg.norm(g_k) / np.linalg.norm(g))

    def compare(self, f: Callable[[Array, Array], float]) -> dict[str, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: np.array([f(g_k, self.full[name]) if self.full[name].any() else np.nan for g_k in gradients])
                    for name, gradients in self.gradients.items()}

    def smallest(self, tolerance: float) -> dict[str, int | None]:
        """{weight: the smallest of ks from which the bias stays within the tolerance; None if it never does}"""
        order = np.argsort(self.ks)[::-1]
        found = {name: takewhile(lambda k, bias=bias: bias[k] <= tolerance, order) for name, bias in self.bias.items()}
        return {name: min((int(self.ks[k]) for k in within), default=None) for name, within in found.items()}

    def __repr__(self) -> str:
        enough = list(self.smallest(0.1).values())
        found = "for no k is every" if None in enough else f"from k = {max(enough)} on every"
        return (f"backwards over k = {shortened(list(map(str, self.ks)))} steps: {found} weight's gradient "
                f"{'' if None in enough else 'is '}within 10 %")

    def _repr_html_(self) -> str:
        bias, cosine = self.bias, self.cosine
        head = ["k (steps)", *(f"{what} of {name}" for name in bias for what in ("bias", "cosine"))]
        return table(repr(self), head, [
            (k, *(f"{x[name][i]:.3g}" for name in bias for x in (bias, cosine))) for i, k in enumerate(self.ks)])


def truncation(rec: Recording | Record, ks: Any, *, every: int | None = None, loss: Tensor | None = None
               ) -> Truncation:
    """The error of backpropagation through time truncated to k steps, for each k of ks.

    every  number of steps between two backwards: BPTT(k; every) of Williams & Peng, "An efficient gradient-based
           algorithm for on-line training of recurrent network trajectories" (1990). Default: k steps, as in training
           on pieces of a long sequence with a detached state between them. 1: the loss of every step is sent back over
           exactly k steps (fewer at the start); this costs T · k steps.
    loss   a loss whose graph still exists (before `backward`, or after `backward(retain_graph=True)`). All recorded
           scans behind it are truncated together, and all parameters behind it are compared, also those below a scan.
           Without a loss, the recorded backward runs again for the one scan of rec and its own weights.

    Steps are counted in the order of running. Several scans (layers, directions) need the loss, and every=None.
    `mg.gradcheck(f, …, frozen=True)` checks such a gradient against the function in which the older state is frozen.
    Raises ValueError if a k is not an integer ≥ every, or if the scans cannot be truncated together.
    """
    ks = np.atleast_1d(np.asarray(ks))
    if ks.ndim != 1 or ks.dtype.kind not in "iu" or not ks.size or ks.min() < (every or 1) or (every or 1) < 1:
        raise ValueError(f"truncation takes integers k ≥ {'every = ' + str(every) if every else 1}, "
                         f"not {ks.tolist()}")
    windows: list[Window] = [(), *((int(k), int(every or k)) for k in ks)]
    if loss is None:
        scan = one_scan(rec)
        full, *rest = [gradients_of_weights(scan, window) for window in windows]
    else:
        names = names_behind(loss, every)
        full, *rest = [gradients_behind(loss, names, window) for window in windows]
    return Truncation(ks, full, {name: np.stack([gradients[name] for gradients in rest]) for name in full})


def gradients_of_weights(scan: Record, window: Window) -> dict[str, Array]:
    """{name: truncated gradient} of a scan's own weights, from the recorded gradients of its results."""
    weights = {name: w for name, w in scan.weight_values.items() if w in scan.step.program.gradients}
    total = {name: np.zeros(w.shape, w.dtype) for name, w in weights.items()}
    for backward in scan.recorded_backwards():
        for _, env in scan.steps_back(backward.d_state, backward.d_ys, *window):
            for name, w in weights.items():
                total[name] += env[scan.step.gradients[w]]
    return total


def gradients_behind(loss: Tensor, names: dict[str, Tensor], window: Window) -> dict[str, Array]:
    """{name: truncated gradient} of the named leaves, by a sweep of the whole graph that truncates every scan."""
    found = replayed_gradients([loss], list(names.values()), window)
    return {name: np.array(data_of(found[x._index])) for name, x in names.items()}


def names_behind(loss: Tensor, every: int | None) -> dict[str, Tensor]:
    """{name: leaf tensor behind the loss}, if its scans can be truncated together."""
    if not isinstance(loss, Tensor) or loss.size != 1 or not loss.requires_grad:
        raise ValueError(f"truncation takes a loss of one number that requires gradients, not {describe(loss)}")
    nodes = behind([loss])
    if any(x._op is RELEASED for x in nodes):
        raise RuntimeError("the graph behind the loss has been released: ask for truncation before backward, or call "
                           "backward(retain_graph=True)")
    calls = [call for x in nodes if x._metadata and isinstance(call := x._metadata.get("run"), ScanCall)]
    scans = [call.executor for call in calls]
    if not scans or not all(isinstance(scan, Record) for scan in scans):
        raise ValueError("a scan behind the loss was not recorded and cannot be truncated: compute the loss inside "
                         "record()")
    twice = [scan.path for i, scan in enumerate(scans) if scan.path in [other.path for other in scans[:i]]]
    if twice:
        raise ValueError(f"{twice[0]} ran more than once, and truncation counts steps within one run: call it once, "
                         "over the whole sequence")
    if len(scans) > 1 and every is not None:
        raise ValueError(f"the windows of the {len(scans)} scans behind the loss differ: leave out every=")
    owners = {index: (f"{scan.path}." if len(scans) > 1 else "") + name for scan in scans
              for index, name in scan.weight_indices.items()}
    names: dict[str, Tensor] = {}
    for i, x in enumerate(x for x in nodes if x._op is None):
        names[free(owners.get(x._index) or x.name or f"parameter {i}", names)] = x
    return names
