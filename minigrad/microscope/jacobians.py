"""Step Jacobians of a scan, and the norms of their products: bounds on gradients over lags, Lyapunov exponent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minigrad.microscope.recording import Record, Recording, one_scan
from minigrad.microscope.step_vjp import StepVJP
from minigrad.notebook import milestones, table

Array = np.ndarray


@dataclass
class Jacobians:
    """The step Jacobians of a scan with n numbers of state in each of B sequences.

    steps    (T, B, n, n)   steps[t, b, i, j] = d(state after step t)_i / d(state before it)_j
    leaves   [(name before, name after, size)]: the parts of the state in order; their sizes add up to n
    lengths  (B,)   the number of unmasked steps of each sequence
    reverse  whether the scan ran from the last step to the first; the state before step t is then that of t + 1
    """

    steps: Array
    leaves: list[tuple[str, str | None, int]]
    lengths: Array
    reverse: bool

    @cached_property
    def singular_values(self) -> Array:
        """(T, B, n), the largest first. In this step, directions below 1 shrink, those above 1 grow."""
        return np.linalg.svd(self.steps, compute_uv=False)

    @cached_property
    def norms(self) -> Array:
        """(T, B): norms[k − 1] = ‖J_T J_{T−1} … J_{T−k+1}‖₂, the largest factor by which k steps back can stretch a
        gradient of the last state."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_sizes())

    @cached_property
    def lyapunov(self) -> Array:
        """(B,): (1/T) ln ‖J_T … J_1‖₂, T the sequence's own length: the largest finite-time Lyapunov exponent, the rate
        in nats a step at which two nearby states diverge (> 0) or converge (< 0); −∞ if the product is 0.
        """
        return self.log_sizes(last=True)[0] / self.lengths

    def log_sizes(self, last: bool = False) -> list[Array]:
        """ln ‖J_T … J_{T−k+1}‖₂ (B,) for k = 1, 2, …, or only for the last k."""
        product, scale, found = np.eye(self.steps.shape[-1]), 0.0, []
        order = self.steps if self.reverse else self.steps[::-1]
        for k, J in enumerate(order, 1):
            product = product @ J
            size = np.abs(product).max(axis=(1, 2))  # factored out: a long product must not vanish or overflow
            size[size == 0] = 1.0
            product, scale = product / size[:, None, None], scale + np.log(size)
            if k == len(order) or not last:
                with np.errstate(divide="ignore"):
                    found.append(np.log(np.linalg.norm(product, ord=2, axis=(1, 2))) + scale)
        return found

    def __repr__(self) -> str:
        T, B, n = self.steps.shape[:3]
        b = int(self.lyapunov.argmax())
        rate, length = float(self.lyapunov[b]), int(self.lengths[b])
        return (f"{T} steps × {B} sequence{'s' * (B != 1)}, {n} × {n} each: Lyapunov exponent {rate:.3g} nats a step; "
                f"{length} steps back, a gradient is at most {power_of_e(rate * length)} times as large")

    def _repr_html_(self) -> str:
        largest = np.max(self.log_sizes(), axis=1)
        one = f"; one step stretches at most {np.median(self.singular_values[:, :, 0]):.3g} times (median)"
        return table(repr(self) + one, ["steps back", "largest factor of a gradient"],
                     [(k, power_of_e(largest[k - 1])) for k in milestones(len(largest))[1:]])


def power_of_e(x: float) -> str:
    """eˣ as text, also where it is no float."""
    tens = x / np.log(10)
    return f"{10**tens:.3g}" if abs(tens) < 300 or tens == -np.inf else f"1e{tens:.0f}"


def jacobians(rec: Recording | Record, batched: bool | None = None) -> Jacobians:
    """The exact Jacobian d(state_t)/d(state_{t−1}) of every step of a scan; see `Jacobians` for its uses.

    A gradient k steps back is a product with k Jacobians: it vanishes if their norms stay below 1, and can explode only
    if some exceed 1. Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen" (1991); Bengio, Simard &
    Frasconi, "Learning long-term dependencies with gradient descent is difficult" (1994); Pascanu, Mikolov & Bengio,
    "On the difficulty of training recurrent neural networks" (2013).

    batched  whether the last axis of every leaf of the state is a batch of independent sequences, each with its own
             Jacobian. Default: whether all leaves have two axes or more and the same length of the last. If not, B = 1
             and n is the size of the whole state.

    Does not need a backward. All n rows of a step go through its derived backward together. Raises ValueError for a
    scan without a state of floats, and if sequences of the batch depend on one another; FloatingPointError for a NaN.
    """
    scan = one_scan(rec)
    step = scan.step
    of_floats = [i for i, s in enumerate(step.states) if s.dtype.kind in "fc"]
    states, results = ([values[i] for i in of_floats] for values in (step.states, step.new_states))
    if not sum(int(np.prod(s.shape)) for s in states):
        raise ValueError(f"{scan.path} has no Jacobian: its state has no floats, or an empty batch of them")
    if batched is None:
        batched = all(len(s.shape) > 1 and s.shape[-1] == states[0].shape[-1] for s in states)
    if batched and len({s.shape[-1:] for s in states}) > 1:
        raise ValueError(f"the last axes of the states of {scan.path} differ, {[s.shape for s in states]}: they are "
                         "not a batch, so pass batched=False")
    batch = states[0].shape[-1] if batched else 1
    sizes = [int(np.prod(s.shape)) // batch for s in states]
    n, ends = sum(sizes), np.cumsum(sizes)
    step_vjp = StepVJP(scan, [step.gradients[s] for s in states])
    J = np.zeros((scan.steps, batch, n, n), np.result_type(*[s.dtype for s in states]))
    v = np.zeros((n, batch, n + 1), J.dtype)  # rows v of vᵀ J: the unit vectors, and a random one as a check
    v[np.arange(n), :, np.arange(n)] = 1.0
    v[:, :, n] = np.random.default_rng(0).uniform(0.5, 1.5, (n, batch))
    seeds = [(result, part.reshape(*result.shape, n + 1)) for result, part in zip(results, np.split(v, ends[:-1]))]
    for t, time in enumerate(scan.order):
        rows = np.concatenate([d.reshape(-1, batch, n + 1) for d in step_vjp(t, seeds)])
        J[time] = here = rows[:, :, :n].transpose(1, 2, 0)
        if not np.isfinite(here).all():
            raise FloatingPointError(f"the Jacobian of {scan.path} at step {time} is not finite: "
                                     "saturation(rec).nan has the first NaN")
        sums = np.einsum("ib,bij->jb", v[:, :, n], here)
        if np.abs(rows[:, :, n] - sums).max() > 1e4 * np.finfo(J.dtype).eps * np.abs(here).sum(axis=1).max():
            raise ValueError(f"a sequence in the batch of {scan.path} influences another one: pass batched=False "
                             "for one Jacobian of the whole state")
    names = list(scan.states.items())
    lengths = np.full(batch, scan.steps) if scan.mask is None or not batched else scan.mask.sum(axis=0)
    leaves = [(*names[i], size) for i, size in zip(of_floats, sizes)]
    return Jacobians(J, leaves, np.maximum(lengths, 1), scan.reverse)
