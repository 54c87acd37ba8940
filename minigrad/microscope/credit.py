"""Credit assignment: the gradient that each of S losses sends to the weights at each of T steps of a scan.

The gradients of all losses go back through a step together, stacked along one more axis. The gradient that a loss sends
to a weight, G(s, t), has the weight's shape. If G is a matrix product, G = A B with A (m, B) from the loss and B (B, k)
from the step, these S · T arrays are never computed: ‖G‖² = Σ (AᵀA) ∘ (B Bᵀ), and Σ over t of G is one product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from minigrad.engine.backward import behind, data_of, zeros_of
from minigrad.engine.op import RELEASED
from minigrad.engine.tensor import Tensor, describe
from minigrad.microscope.recording import Record, Recording, one_scan, replayed_gradients
from minigrad.microscope.step_vjp import StepVJP
from minigrad.notebook import milestones, table
from minigrad.program.analysis import is_matrix_product
from minigrad.program.ir import Value, in_order
from minigrad.timeloop.call import enter

Array = np.ndarray
MOST = 64  # maximum number of losses in a group
COLUMNS = 64  # columns of factors kept before their products are summed over the steps


@dataclass
class Credit:
    """The result of `credit` for S losses and T steps.

    size     (S, T)   ‖G(s, t)‖ over all weights; G(s, t) is the gradient of loss s for the weights as step t used them
    share    (S, T)   ⟨G(s, t), g⟩ / ⟨g, g⟩ with g = Σ G, the whole gradient; the entries add up to 1
    states   {state: (S, T)}   norm of the gradient of loss s for the state that enters step t
    by_loss  {weight: (S, *shape)}   Σ over t of G: the gradient of each loss
    by_step  {weight: (T, *shape)}   Σ over s of G: the contribution of each step, as `weight_grads`
    at       (S,)     the last step, in the order of running, that each loss depends on directly; −1 if none
    reverse  whether the scan ran from the last step to the first
    """

    size: Array
    share: Array
    states: dict[str, Array]
    by_loss: dict[str, Array]
    by_step: dict[str, Array]
    at: Array
    reverse: bool

    def by_lag(self, name: str | None = None) -> Array:
        """(S, lags): norm of the gradient that each loss sends back over 0, 1, … steps; NaN before the first step.
        Losses that depend on no step are left out.

        name  an old state, in place of the weights

        Raises ValueError for an unknown state, and if no loss depends on a step.
        """
        if name is not None and name not in self.states:
            raise ValueError(f"this Credit has no state {name!r}: it has {', '.join(self.states) or 'none'}")
        sizes = self.size if name is None else self.states[name]
        rows = [row[s:] if self.reverse else row[s::-1] for row, s in zip(sizes, self.at) if s >= 0]
        if not rows:
            raise ValueError("none of the losses of this Credit depends on a step of its scan")
        longest = max(map(len, rows))
        return np.array([np.pad(row, (0, longest - len(row)), constant_values=np.nan) for row in rows])

    def __repr__(self) -> str:
        losses = f"{len(self.size)} loss{'es' * (len(self.size) != 1)} × {self.size.shape[1]} steps"
        if not np.isfinite(self.size).all():
            return f"{losses}, some of the credit is NaN or Inf"
        if not self.size.any():
            return f"{losses}, no credit: the gradient is 0"
        half = lag_of_share(self.size, self.at, 0.5)
        return f"{losses}, half of the credit {f'within {half} step' + 's' * (half != 1) if half else 'at lag 0'}"

    def _repr_html_(self) -> str:
        if not (self.at >= 0).any() or not np.isfinite(self.size).all():
            return table(repr(self), ["lag"], [])
        lags = self.by_lag()
        means, sums = np.nanmean(lags, axis=0), np.cumsum(np.nansum(lags, axis=0))
        return table(repr(self), ["lag (steps)", "gradient, mean of the losses", "credit up to this lag"],
                     [(k, f"{means[k]:.3g}", f"{100 * sums[k] / (sums[-1] or 1):.1f} %")
                      for k in milestones(len(means) - 1)])


def credit(rec: Recording | Record, loss_by_step: Sequence[Tensor] | Tensor) -> Credit:
    """The gradient that each loss sends to the weights of a scan at each step.

    loss_by_step  S tensors of size 1, or one of shape (S,): usually the losses of all steps, whose sum is L. Their
                  graph must still exist: call `credit` before `backward`, or after `backward(retain_graph=True)`.

    Changes neither any `.grad` nor the recording. Raises RuntimeError if the graph has been released, ValueError for a
    loss that is not a single number.
    """
    scan = one_scan(rec)
    if isinstance(loss_by_step, Tensor) and loss_by_step.ndim == 0:
        raise ValueError(f"credit takes one loss for each step, (S,) or a list, not {describe(loss_by_step)}")
    losses = [loss_by_step[s] for s in range(len(loss_by_step))]
    for loss in losses:
        if not isinstance(loss, Tensor) or loss.size != 1:
            raise ValueError(f"credit takes losses that are tensors of one number each, not {describe(loss)}")
    node = scan.node()
    if node is None or any(x._op is RELEASED for x in behind(losses)):
        raise RuntimeError(f"the graph between the losses and {scan.path} does not exist or was released: ask for "
                           "credit before backward, or call backward(retain_graph=True), outside of no_grad")
    return credit_of(scan, node, losses)


def credit_of(scan: Record, node: Tensor, losses: list[Tensor]) -> Credit:
    """The Credit of these losses; `node` is the scan's node on the graph."""
    step, S, T = scan.step, len(losses), scan.steps
    weights = {name: w for name, w in scan.weight_values.items() if w in step.program.gradients}
    by_step = {name: np.zeros((T, *w.shape), w.dtype) for name, w in weights.items()}
    for t, env in scan.steps_back(*gradients_into(scan, node, losses)):  # of the sum of the losses
        for name, w in weights.items():
            by_step[name][scan.order[t]] = env[step.gradients[w]]
    whole = {name: g.sum(axis=0) for name, g in by_step.items()}

    uses = [use_of(scan, step.gradients[w], whole[name], S) for name, w in weights.items()]
    reads = [value for use in uses for value in use.reads]
    step_vjp = StepVJP(scan, [*(step.gradients[s] for s in step.states), *reads])
    squares, share = np.zeros((2, S, T))
    states = {name: np.zeros((S, T)) for name, s in zip(scan.states, step.states) if s in step.program.gradients}
    room = (S + T) * sum(prod(w.shape) for w in weights.values()) // 4  # a quarter of the numbers in the result
    each = sum(use.numbers for use in uses)
    at, start = np.full(S, -1), 0
    for d_state, d_ys in in_groups((gradients_into(scan, node, [loss]) for loss in losses), room, each):
        group = slice(start, start := start + len(d_state))
        ends = [T - 1 if any(np.any(d) for d in end) else max((t for d in d_y for t in d), default=-1)
                for end, d_y in zip(d_state, d_ys)]
        at[group], last = [scan.order[t] if t >= 0 else -1 for t in ends], 1 + max(ends)
        d_state = [np.stack(leaf, axis=-1) for leaf in zip(*d_state)]
        for t in reversed(range(last)):
            d_y = [np.stack([d.get(t, np.zeros(y.shape, y.dtype)) for d in leaf], axis=-1)
                   for y, leaf in zip(step.ys, zip(*d_ys))]
            found = iter(step_vjp(t, list(zip(step.new_states + step.ys, d_state + d_y))))
            d_state, time = [next(found) for _ in d_state], scan.order[t]
            for name, d in zip(scan.states, d_state):
                if name in states:
                    states[name][group, time] = np.linalg.norm(d.reshape(-1, d.shape[-1]), axis=0)
            for use in uses:
                square, along = use.add(group, *[next(found) for _ in use.reads])
                squares[group, time] += square
                share[group, time] += along
        for use in uses:
            use.finish(group)
    total = sum(np.vdot(g, g).real for g in whole.values())
    return Credit(np.sqrt(squares), share / total if total else share, states,
                  {name: use.by_loss for name, use in zip(weights, uses)}, by_step, at, scan.reverse)


def lag_of_share(size: Array, at: Array, share: float) -> int:
    """The smallest lag k such that the steps at most k from their loss have this share of the whole credit.

    size  (S, T)   ‖G(s, t)‖, as in `Credit`
    at    (S,)     the step of each loss
    """
    lags = np.abs(np.asarray(at)[:, None] - np.arange(size.shape[1]))
    reached = np.cumsum(np.bincount(lags.ravel(), size.ravel()))
    return int(np.searchsorted(reached, share * reached[-1]))


def gradients_into(scan: Record, node: Tensor, losses: list[Tensor]) -> tuple[list[Array], list[Array]]:
    """Gradients of Σ losses for the scan's final states and its ys, in the order of running."""
    n, results = len(scan.step.new_states), node._array
    found = replayed_gradients(losses, [node]).get(node._index, [None] * len(results))
    g = [zeros_of(y) if d is None else data_of(d) for d, y in zip(found, results)]
    d_ys = enter(scan.axes[1], g[n:])
    return enter(scan.axes[0], g[:n]), [d[::-1] if scan.reverse else d for d in d_ys]


def in_groups(arrived: Iterable[tuple[list[Array], list[Array]]], room: int, each: int
              ) -> Iterator[tuple[list[list[Array]], list[list[dict[int, Array]]]]]:
    """Group the losses' gradients, d_state and d_ys, to fit `room` numbers (`each` per loss); keep only the non-zero
    steps of d_ys, since most losses depend on one step."""
    states, ys, numbers = [], [], 0
    for d_state, d_ys in arrived:
        states.append(d_state)
        ys.append([{t: d[t].copy() for t in range(len(d)) if np.any(d[t])} for d in d_ys])
        numbers += each + sum(x.size for d in ys[-1] for x in d.values())
        if numbers > room or len(states) == MOST:
            yield states, ys
            states, ys, numbers = [], [], 0
    if states:
        yield states, ys


# -- the gradient of one weight at one step, for K losses -------------------------------------------------------------


def use_of(scan: Record, g: Value, whole: Array, losses: int) -> Dense:
    """Accumulator for a weight with gradient `g` in the step program; whole: its sum over all steps and losses."""
    is_product = is_matrix_product(g) and not depends_on_losses(scan, g.inputs[1])
    is_smaller = sum(prod(a.shape) for a in g.inputs) < prod(g.shape)
    return (Product if is_product and is_smaller else Dense)(g, whole, losses)


def depends_on_losses(scan: Record, value: Value) -> bool:
    """Whether a value of a step's backward depends on the gradients of the step's results."""
    seeds = set(scan.step.program.seeds.values())
    return value in seeds or any(
        not seeds.isdisjoint(v.inputs) for v in in_order([value], set(scan.step.recorded)))


class Dense:
    """Accumulates G, computed in full.

    reads    values of the step's backward that `add` takes
    numbers  numbers kept per loss
    """

    def __init__(self, g: Value, whole: Array, losses: int):
        self.reads, self.whole, self.numbers = [g], whole, 3 * whole.size
        self.by_loss = np.zeros((losses, *whole.shape), whole.dtype)

    def add(self, group: slice, *read: Array) -> tuple[Array, Array]:
        """Add G (…, K) to by_loss; return ‖G‖² and ⟨G, whole⟩ of each loss of the group."""
        (G,) = read
        self.by_loss[group] += np.moveaxis(G, -1, 0)
        G = G.reshape(-1, G.shape[-1])
        return (G.conj() * G).real.sum(axis=0), (self.whole.conj().reshape(-1) @ G).real

    def finish(self, group: slice) -> None:
        """Add what `add` has collected of this group to by_loss: here nothing."""


class Product(Dense):
    """Accumulates G = A B through its two factors; B does not depend on the loss."""

    def __init__(self, g: Value, whole: Array, losses: int):
        super().__init__(g, whole, losses)
        m, B = g.inputs[0].shape
        self.reads, self.numbers = list(g.inputs), 3 * m * (COLUMNS + B) + 2 * whole.size
        self.factors: list[tuple[Array, Array]] = []

    def add(self, group: slice, *read: Array) -> tuple[Array, Array]:
        """As `Dense.add`, for A (m, B, K) and B (B, k, K), which repeats one matrix K times."""
        A, B = read[0], read[1][..., 0]
        self.factors.append((A, B))
        if len(self.factors) * len(B) >= COLUMNS:
            self.finish(group)
        along = np.tensordot(self.whole.conj() @ B.T, A, 2).real
        A, B = (x.astype(np.result_type(x, np.float64)) for x in (A, B))  # squares lose half the digits
        grams = A.transpose(2, 1, 0).conj() @ A.transpose(2, 0, 1)
        return np.maximum((grams * (B.conj() @ B.T)).real.sum(axis=(1, 2)), 0.0), along

    def finish(self, group: slice) -> None:
        """Sum A B over the collected steps in one product."""
        if self.factors:
            A, B = (np.concatenate(parts, axis=axis) for parts, axis in zip(zip(*self.factors), (1, 0)))
            self.by_loss[group] += np.tensordot(A, B, ((1,), (0,))).swapaxes(0, 1)
            self.factors = []
