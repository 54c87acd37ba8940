"""The gradient microscope: what backpropagation through time does, seen in one recording.

```python
with mg.bptt.record() as rec:
    loss = loss_fn(model, batch)
    loss.backward()
lstm = rec["lstm"]             # by the module's path; rec[0] is the first scan that ran
lstm.values["ft"]              # (T, H, B)   the value that the cell calls ft, at every step
lstm.grads["ft"]               # (T, H, B)   dL/dft at every step; so for states and inputs too
lstm.weight_grads("W")         # (T, 4H, H + D)   what each step added to dL/dW; its sum over time is W.grad
```
Every recurrence is one cell in one `scan`, so one recording holds all that can be asked. The model does not change, no
hook is set, and the scan stays one op on the graph, with the same gradients to rounding. Outside of `record` nothing is
different and nothing slower.

What a recording is, and how it comes about, stands in recording.py (`record`, `Recording`, `Record`). Here are the
questions, each a function of a recording (the first in credit.py):

    credit(rec, loss_by_step)   how much of the weights' gradient goes from the loss at step s to the step t
    jacobians(rec)              d(state_t)/d(state_{t−1}), its singular values, products over lags, Lyapunov exponent
    truncation(rec, ks)         what a backward over k steps only gives in place of the whole gradient
    paths(rec)                  through which part of the state (c or a) a gradient came
    saturation(rec)             gates that are shut or open, units that are dead or explode, the first NaN

`rec` is one scan's `Record`, or a recording that has one scan only. Time is in the order of xs, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minigrad.engine.backward import behind, data_of
from minigrad.engine.op import RELEASED
from minigrad.engine.tensor import Tensor, describe
from minigrad.microscope.cell_program import free
from minigrad.microscope.credit import Credit, credit
from minigrad.microscope.recording import WHOLE, Pull, Record, RecordedRun, Recording, one_scan, record, swept
from minigrad.program.simplify import Value

__all__ = ["Credit", "Record", "Recording", "credit", "jacobians", "paths", "record", "saturation", "truncation"]

Array = np.ndarray


# -- jacobians --------------------------------------------------------------------------------------------------------


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
    n, pull = ends[-1], Pull(scan, [step.gradient_of(s) for s in states])
    v = np.zeros((n, batch, n + 1), J.dtype)  # vᵀ J for the unit vectors, and for one with another entry everywhere
    v[np.arange(n), :, np.arange(n)] = 1.0
    v[:, :, n] = np.random.default_rng(0).uniform(0.5, 1.5, (n, batch))
    seeds = [(result, part.reshape(*result.shape, n + 1)) for result, part in zip(results, np.split(v, ends[1:-1]))]
    for t in range(scan.steps):
        rows = np.concatenate([d.reshape(-1, batch, n + 1) for d in pull(t, seeds)])
        J[scan.place(t)] = here = rows[:, :, :n].transpose(1, 2, 0)
        if not np.isfinite(here).all():
            raise FloatingPointError(f"the Jacobian of {scan.path} at step {scan.place(t)} is not finite: "
                                     "saturation(rec).nan says where that began")
        sums = np.einsum("ib,bij->jb", v[:, :, n], here)
        if np.abs(rows[:, :, n] - sums).max() > 1e4 * np.finfo(J.dtype).eps * np.abs(here).sum(axis=1).max():
            raise ValueError(f"a sequence in the batch of {scan.path} has an influence on another one: ask for one "
                             "Jacobian of all of the state, with batched=False")
    names = list(scan.states.items())
    lengths = np.full(batch, scan.steps) if scan.mask is None or not batched else scan.mask.sum(axis=0)
    leaves = [(*names[i], size) for i, size in zip(of_floats, sizes)]
    return Jacobians(J, leaves, np.maximum(lengths, 1), scan.reverse)


# -- truncation -------------------------------------------------------------------------------------------------------


@dataclass
class Truncation:
    """What backward passes over k steps give, for each of K values of k, beside the whole gradient g; by weight.

    ks         (K,)
    full       {weight: g}
    gradients  {weight: (K, *shape)}   g_k
    bias       {weight: (K,)}   ‖g_k − g‖ / ‖g‖
    cosine     {weight: (K,)}   ⟨g_k, g⟩ / ‖g_k‖ ‖g‖
    ratio      {weight: (K,)}   ‖g_k‖ / ‖g‖;   all three NaN where g is 0
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

    def compare(self, f: Any) -> dict[str, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: np.array([f(g_k, self.full[name]) if self.full[name].any() else np.nan for g_k in gradients])
                    for name, gradients in self.gradients.items()}

    def smallest(self, tolerance: float) -> dict[str, int | None]:
        """{weight: the smallest of ks from which on the bias stays within the tolerance; None if it never does}"""
        found: dict[str, int | None] = {}
        for name, bias in self.bias.items():
            found[name] = None
            for k, b in sorted(zip(self.ks.tolist(), bias), reverse=True):
                if not b <= tolerance:
                    break
                found[name] = k
        return found


def truncation(rec: Recording | Record, ks: Any, *, every: int | None = None, loss: Tensor | None = None
               ) -> Truncation:
    """What is lost by truncated backpropagation through time over k steps, for each k of ks.

    every  after how many steps a backward is made: BPTT(k; every) of Williams & Peng, "An efficient gradient-based
           algorithm for on-line training of recurrent network trajectories" (1990). By default after k steps, as one
           trains on pieces of a long sequence and hands the state on, detached. 1: every step's loss is sent back over
           exactly k steps (fewer at the start); this costs T · k steps.
    loss   the loss whose graph is still there (before `backward`, or after `backward(retain_graph=True)`). Then all
           recorded scans behind it are truncated at once, and all parameters behind it are compared, those below a scan
           too. Without it, the backward that was recorded is run again for the one scan of rec and its own weights.

    Steps are counted in the order of running. Several scans (layers, directions) need the loss, and every=None.
    `mg.gradcheck(f, …, frozen=True)` checks such a gradient against the function in which the older state is frozen.
    Raises ValueError for a k that is no whole number ≥ every, and where the scans do not allow an answer.
    """
    ks = np.atleast_1d(np.asarray(ks))
    if ks.ndim != 1 or ks.dtype.kind not in "iu" or not ks.size or ks.min() < (every or 1) or (every or 1) < 1:
        raise ValueError(f"truncation takes whole numbers k ≥ {'every = ' + str(every) if every else 1}, "
                         f"not {ks.tolist()}")
    cuts = [(int(k), int(every or k)) for k in ks]
    if loss is None:
        scan = one_scan(rec)
        full, *rest = [gradients_of_weights(scan, cut) for cut in [WHOLE, *cuts]]
    else:
        names = names_behind(rec, loss, every)
        full, *rest = [gradients_behind(loss, names, cut) for cut in [WHOLE, *cuts]]
    return Truncation(ks, full, {name: np.stack([gradients[name] for gradients in rest]) for name in full})


def gradients_of_weights(scan: Record, cut: tuple[int, int]) -> dict[str, Array]:
    """Of a scan's own weights, from the recorded gradients of its results."""
    weights = {name: w for name, w in scan.weight_values.items() if w in scan.step.program.gradients}
    total = {name: np.zeros(w.shape, w.dtype) for name, w in weights.items()}
    for backward in scan.through():
        for _, env in scan.truncated(backward.d_state, backward.d_ys, *cut):
            for name, w in weights.items():
                total[name] += scan.step.gradient(env, w)
    return total


def gradients_behind(loss: Tensor, names: dict[str, Tensor], cut: tuple[int, int]) -> dict[str, Array]:
    """Of the leaves of these names, by a sweep through all of the graph in which every recorded scan is truncated."""
    found = swept([loss], list(names.values()), cut)
    return {name: np.array(data_of(found[x._index])) for name, x in names.items()}


def names_behind(rec: Recording | Record, loss: Tensor, every: int | None) -> dict[str, Tensor]:
    """{name: leaf tensor behind the loss}, if its scans can be truncated together."""
    if not isinstance(loss, Tensor) or loss.size != 1 or not loss.requires_grad:
        raise ValueError(f"truncation takes a loss that is one number and requires gradients, not {describe(loss)}")
    nodes = behind([loss])
    if any(x._op is RELEASED for x in nodes):
        raise RuntimeError("the graph behind the loss has been released: ask for truncation before backward, or call "
                           "backward(retain_graph=True)")
    runs = [x._metadata["run"] for x in nodes if x._op is not None and x._op.name == "scan"]
    if not runs or not all(isinstance(run, RecordedRun) for run in runs):
        raise ValueError("a scan behind the loss was not recorded, and so cannot be truncated: compute the loss inside "
                         "of record()")
    scans = [run.record for run in runs]
    twice = [scan.path for i, scan in enumerate(scans) if scan.path in [other.path for other in scans[:i]]]
    if twice:
        raise ValueError(f"{twice[0]} ran more than once, and truncation counts steps within one run: call it once, "
                         "over all of the sequence")
    if len(scans) > 1 and every is not None:
        raise ValueError(f"behind the loss are {len(scans)} scans, whose windows differ: leave out every=")
    owners = {id(x()): (f"{scan.path}." if len(scans) > 1 else "") + name for scan in scans
              for name, x in scan.weight_tensors.items()}
    names: dict[str, Tensor] = {}
    for i, x in enumerate(x for x in nodes if x._op is None):
        names[free(owners.get(id(x)) or x.name or f"parameter {i}", names)] = x
    return names


# -- paths ------------------------------------------------------------------------------------------------------------


def paths(rec: Recording | Record) -> dict[str, dict[str, Array]]:
    """Through which part of the new state the gradient of each part of the old state came, step by step.

    Returns {state: {result: (T, …)}}, each of the state's shape. For an LSTM:

        paths(rec)["c_prev"]["c_next"][t]   (∂c_t/∂c_{t−1})ᵀ dL/dc_t, through the cell state alone: ft ∘ dL/dc_t, where
                                            dL/dc_t is what the steps after t send back to c_t
        paths(rec)["c_prev"]["a_next"][t]   (∂a_t/∂c_{t−1})ᵀ dL/da_t, through the output: of the loss at step t, and of
                                            the gates and candidates of later steps
        paths(rec)["a_prev"][…]             likewise

    dL/dc_t and dL/da_t are taken where the step hands them out, so that each way is counted once; the parts add up to
    the gradient that step t sends to the state before it. A y that is no state is a result of its own.
    Raises RuntimeError before a backward.
    """
    scan = one_scan(rec)
    step, backwards = scan.step, scan.through()
    states = {name: s for name, s in zip(scan.states, step.states) if s.dtype.kind in "fc"}
    after = [new or f"{old}_next" for old, new in scan.states.items()] + [name or "y" for name in step.names_of["y"]]
    results: dict[Value, str] = {}
    for name, result in zip(after, step.new_states + step.ys):
        if result in step.program.seeds:
            results.setdefault(result, name)
    out = {name: {result: np.zeros((scan.steps, *s.shape), s.dtype) for result in results.values()}
           for name, s in states.items()}
    pull = Pull(scan, [step.gradient_of(s) for s in states.values()])
    for t in range(scan.steps):
        arrived = [sum(backward.kept[t][step.program.seeds[result]] for backward in backwards) for result in results]
        alone = [(result, np.where(one, d[..., None], 0.0)) for result, d, one in zip(
            results, arrived, np.eye(len(results), dtype=bool))]
        for state, parts in zip(states, pull(t, alone)):
            for k, name in enumerate(results.values()):
                out[state][name][scan.place(t)] += parts[..., k]  # masked, a state and a y may share a name
    return out


# -- saturation -------------------------------------------------------------------------------------------------------


@dataclass
class Saturation:
    """What `saturation` finds. A unit is an entry of a value without its time and batch axes.

    low, high   {gate: (units…)}   the part of all steps and sequences in which a unit is below 0.05, above 0.95
    dead        {state: (units…)}  whether it never moves
    exploding   {state: (units…)}  whether it goes beyond 1000, or is not finite
    nan         (t, name) of the first step, and its first value, that holds a NaN; or None
    nan_grad    the same of the gradients: the first that a backward met, so the last in time; or None
    """

    low: dict[str, Array]
    high: dict[str, Array]
    dead: dict[str, Array]
    exploding: dict[str, Array]
    nan: tuple[int, str] | None
    nan_grad: tuple[int, str] | None


def saturation(rec: Recording | Record, *, low: float = 0.05, high: float = 0.95, still: float = 1e-6,
               large: float = 1e3) -> Saturation:
    """Gates that are shut or open, units that are dead or explode, and the first NaN of a scan.

    Gates are the named values that a sigmoid gave, and those of a tanh, from −1 to 1, as (1 + v)/2. Beyond the bounds
    σ' is below 0.05, and tanh' below 0.2: little gradient goes through.
    A unit of the state is dead when its values, over all steps and sequences, differ by no more than `still`, and
    explodes beyond `large`. The last axis of a value of two or more is taken as the batch. What the mask leaves out
    does not count, but for nan_grad: 0 · NaN is NaN, and reaches the weights from there too. Needs no backward;
    without one nan_grad is None. Raises ValueError where nothing counts, as in an empty batch.
    """
    scan = one_scan(rec)
    found = Saturation({}, {}, {}, {}, None, None)
    for name in scan.values:
        kind = scan.curve(name)
        if kind in ("sigmoid", "tanh"):
            v = samples(scan, name) if kind == "sigmoid" else (1.0 + samples(scan, name)) / 2.0
            found.low[name], found.high[name] = np.mean(v < low, axis=0), np.mean(v > high, axis=0)
    for before, after in scan.states.items():
        v = samples(scan, after or before)
        if v.dtype.kind == "f":
            found.dead[after or before] = v.max(axis=0) - v.min(axis=0) <= still
            found.exploding[after or before] = ~(np.abs(v).max(axis=0) <= large)
    running = [scan.place(t) for t in range(scan.steps)]
    found.nan = first_nan(scan.values, running, scan.mask)
    if scan.backwards:
        floats = {name: scan.grads[name] for name in reversed(list(scan.grads)) if scan.values[name].dtype.kind in "fc"}
        found.nan_grad = first_nan(floats, running[::-1])
    return found


def samples(scan: Record, name: str) -> Array:
    """(samples, units…): a value at all steps and in all sequences that count."""
    v = scan.values[name]
    if is_masked(v, scan.mask):
        v = np.moveaxis(v, -1, 1)[scan.mask]
    elif v.ndim > 2:
        v = np.moveaxis(v, -1, 1).reshape(-1, *v.shape[1:-1])
    if not len(v):
        raise ValueError(f"no step of {scan.path} counts: its batch is empty, or its mask leaves out all of it")
    return v


def is_masked(v: Array, mask: Array | None) -> bool:
    """Whether the last axis of a value (T, …) is the batch of the mask."""
    return mask is not None and v.ndim > 1 and v.shape[-1] == mask.shape[1]


def first_nan(arrays: Mapping[str, Array], order: list[int], mask: Array | None = None) -> tuple[int, str] | None:
    for t in order:
        for name, a in arrays.items():
            if np.isnan(a[t][..., mask[t]] if is_masked(a, mask) else a[t]).any():
                return t, name
    return None
