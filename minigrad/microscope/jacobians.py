"""StepProgram Jacobians of a scan, and what their products do to a gradient: norms over lags, Lyapunov exponent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minigrad.microscope.recording import Record, Recording, StepVJP, one_scan

Array = np.ndarray


@dataclass
class Jacobians:
    """The step Jacobians of a scan, n numbers of state in each of B sequences.

    steps    (T, B, n, n)   steps[t, b, i, j] = d(state after step t)_i / d(state before it)_j
    leaves   [(name before, name after, how many of the n)]: the parts of the state, one behind the other
    lengths  (B,)   the number of steps of each sequence that the mask lets count
    reverse  whether the scan ran from the last step to the first: then the state before step t is that of t + 1
    """

    steps: Array
    leaves: list[tuple[str, str | None, int]]
    lengths: Array
    reverse: bool

    @cached_property
    def singular_values(self) -> Array:
        """(T, B, n), the largest first. One below 1: what shrinks in this step; above 1: what grows."""
        return np.linalg.svd(self.steps, compute_uv=False)

    @cached_property
    def norms(self) -> Array:
        """(T, B): norms[k − 1] = ‖J_T J_{T−1} … J_{T−k+1}‖₂: a gradient of the last state is k steps before at most so
        many times as large."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_sizes())

    @cached_property
    def lyapunov(self) -> Array:
        """(B,): (1/T) ln ‖J_T … J_1‖₂, T the sequence's own length: the largest finite-time Lyapunov exponent, the rate
        in nats a step at which two states that are near each other part (> 0) or meet (< 0); −∞ where the product is 0.
        """
        return self.log_sizes(last=True)[0] / self.lengths

    def log_sizes(self, last: bool = False) -> list[Array]:
        """ln ‖J_T … J_{T−k+1}‖₂ (B,) for k = 1, 2, …, or for the last k alone."""
        product, scale, found = np.eye(self.steps.shape[-1]), 0.0, []
        order = self.steps if self.reverse else self.steps[::-1]
        for k, J in enumerate(order, 1):
            product = product @ J
            size = np.abs(product).max(axis=(1, 2))  # taken out, so that a long product neither vanishes nor overflows
            size[size == 0] = 1.0
            product, scale = product / size[:, None, None], scale + np.log(size)
            if k == len(order) or not last:
                with np.errstate(divide="ignore"):
                    found.append(np.log(np.linalg.norm(product, ord=2, axis=(1, 2))) + scale)
        return found


def jacobians(rec: Recording | Record, batched: bool | None = None) -> Jacobians:
    """The exact Jacobian d(state_t)/d(state_{t−1}) of every step of a scan; see `Jacobians` for what follows from it.

    A gradient k steps back is a product of k of them: it vanishes where their norms stay below 1, and can explode only
    where they go above. Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen" (1991); Bengio, Simard &
    Frasconi, "Learning long-term dependencies with gradient descent is difficult" (1994); Pascanu, Mikolov & Bengio,
    "On the difficulty of training recurrent neural networks" (2013).

    batched  whether the last axis of every leaf of the state is a batch of independent sequences, each with a Jacobian
             of its own; by default where all leaves have two axes or more, and the last in common. If not, B = 1, and
             n is all of the state.

    Needs no backward. All n rows of a step go through its derived backward at once. Raises ValueError for a scan
    without a state of floats, and when sequences are not independent after all; FloatingPointError for a NaN.
    """
    scan = one_scan(rec)
    step = scan.step
    of_floats = [i for i, s in enumerate(step.states) if s.dtype.kind in "fc"]
    states, results = ([values[i] for i in of_floats] for values in (step.states, step.new_states))
    if not sum(int(np.prod(s.shape)) for s in states):
        raise ValueError(f"{scan.path} has no state of floats, or an empty batch of them, and so no Jacobian")
    if batched is None:
        batched = all(len(s.shape) > 1 and s.shape[-1] == states[0].shape[-1] for s in states)
    if batched and len({s.shape[-1:] for s in states}) > 1:
        raise ValueError(f"the last axes of the states of {scan.path} differ, {[s.shape for s in states]}: they are no "
                         "batch, so ask with batched=False")
    batch = states[0].shape[-1] if batched else 1
    sizes = [int(np.prod(s.shape)) // batch for s in states]
    ends = np.cumsum([0, *sizes])
    J = np.zeros((scan.steps, batch, ends[-1], ends[-1]), np.result_type(*[s.dtype for s in states]))
    n, pull = ends[-1], StepVJP(scan, [step.gradient_of(s) for s in states])
    v = np.zeros((n, batch, n + 1), J.dtype)  # vᵀ J for the unit vectors, and for one with another entry everywhere
    v[np.arange(n), :, np.arange(n)] = 1.0
    v[:, :, n] = np.random.default_rng(0).uniform(0.5, 1.5, (n, batch))
    seeds = [(result, part.reshape(*result.shape, n + 1)) for result, part in zip(results, np.split(v, ends[1:-1]))]
    for t in range(scan.steps):
        rows = np.concatenate([d.reshape(-1, batch, n + 1) for d in pull(t, seeds)])
        J[scan.time_index(t)] = here = rows[:, :, :n].transpose(1, 2, 0)
        if not np.isfinite(here).all():
            raise FloatingPointError(f"the Jacobian of {scan.path} at step {scan.time_index(t)} is not finite: "
                                     "saturation(rec).nan says where that began")
        sums = np.einsum("ib,bij->jb", v[:, :, n], here)
        if np.abs(rows[:, :, n] - sums).max() > 1e4 * np.finfo(J.dtype).eps * np.abs(here).sum(axis=1).max():
            raise ValueError(f"a sequence in the batch of {scan.path} has an influence on another one: ask for one "
                             "Jacobian of all of the state, with batched=False")
    names = list(scan.states.items())
    lengths = np.full(batch, scan.steps) if scan.mask is None or not batched else scan.mask.sum(axis=0)
    leaves = [(*names[i], size) for i, size in zip(of_floats, sizes)]
    return Jacobians(J, leaves, np.maximum(lengths, 1), scan.reverse)
