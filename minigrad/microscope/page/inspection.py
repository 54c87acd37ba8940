"""A model and one sequence, seen through the microscope: what a report shows of them, from one recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.derived import derive
from minigrad.engine.pytree import unflatten
from minigrad.engine.tensor import Tensor, no_grad
from minigrad.microscope.bptt import Record, credit, jacobians, record
from minigrad.microscope.page.rendering import LayerInspection
from minigrad.training.sequence_model import SequenceModel, eval_mode

Array = np.ndarray
Names = Any  # a string or list of the names of symbols 0, 1, …; or None
LEDGER = 40_000  # entries of a credit ledger, at most: each is a step of a backward
LARGEST, LONGEST = 50_000_000, 20_000  # characters of a page, and steps, beyond which browsers are slow


@dataclass
class Sequence:
    """One sequence of T steps, in a batch of one.

    x, targets        (T, 1, …)   as a task's batch has them
    asked             (S,)        the steps at which a target counts
    loss              of minigrad.nn, for outputs (1, outputs) and targets (1, …)
    names             of the symbols of x, and of those of targets, if these are symbols and have names
    symbols, answers  T texts     what is read, and what is asked for, "" where nothing is
    """

    x: Array
    targets: Array
    asked: Array
    loss: Callable[[Tensor, Array], Tensor]
    names: tuple[Names, Names] = (None, None)

    @property
    def symbols(self) -> list[str]:
        return [as_text(one, self.names[0]) for one in self.x[:, 0]]

    @property
    def answers(self) -> list[str]:
        asked = set(self.asked.tolist())
        return [as_text(one, self.names[1]) if t in asked else "" for t, one in enumerate(self.targets[:, 0])]


def as_text(value: Any, names: Names) -> str:
    """A symbol, by its name if it has one; or the numbers of a step."""
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu":
        return names[value] if names else str(value)
    return " ".join(f"{number:.3g}" for number in np.ravel(value))


def inspect(model: SequenceModel, sequence: Sequence, batch: int = 1
            ) -> tuple[list[LayerInspection], Array, dict[str, Array]]:
    """Returns (an inspection of each layer, the steps whose losses the ledgers follow, numbers of every step).

    The loss L is the mean over the steps that are asked. Of a sequence with many, so many losses are followed, evenly
    chosen and the last among them, that a ledger has 40 000 entries at most; values and gradients are of all of L.
    The derived source is that for a batch of this size. The model is looked at as in eval mode. Nothing is added to any
    `.grad`, and no mode is changed.

    Raises ValueError, in a sentence, where the memory of this machine does not suffice, and for cells that have no
    state or cannot be traced.
    """
    with eval_mode(model):
        return inspect_in_eval_mode(model, sequence, batch)


def inspect_in_eval_mode(model: SequenceModel, sequence: Sequence, batch: int
                         ) -> tuple[list[LayerInspection], Array, dict[str, Array]]:
    """`inspect` for a model that is in eval mode."""
    T, S = len(sequence.x), len(sequence.asked)
    rows = min(S, max(1, LEDGER // T))
    asked = sequence.asked[np.linspace(S - 1, 0, rows).round().astype(int)[::-1]]
    refuse_too_long(model, sequence.x, rows)
    with record(model) as recording, np.errstate(all="ignore"):
        outputs, _ = model(sequence.x)
        losses = {int(s): sequence.loss(outputs[int(s)], sequence.targets[s]) for s in sequence.asked}
        scans = traced(model, recording)
        followed = [losses[int(s)] / S for s in asked]
        ledgers = [credit(scan, followed) for scan in scans.values()]
        ledgers = [{"weights": ledger.size, **ledger.states} for ledger in ledgers]
        before = [(p, p.grad) for p in model.parameters()]
        try:
            (sum(losses.values()) / S).backward()
        finally:
            for p, grad in before:
                p.grad = grad
        layers = [inspect_layer(name, scan, model.recurrent.layers[name], ledger, batch)
                  for (name, scan), ledger in zip(scans.items(), ledgers)]
    loss = np.full(T, np.nan)
    for s, one in losses.items():
        loss[s] = one.item()
    lowest = next(iter(scans.values()))
    d_x = lowest.grads[lowest.inputs[0]]
    return layers, asked, {"loss": loss, "‖dL/dx‖": np.linalg.norm(d_x.reshape(T, -1), axis=1)}


def traced(model: SequenceModel, recording: Any) -> dict[str, Record]:
    """The scan of each cell, by the name of its layer."""
    try:
        scans = dict(zip(model.recurrent.layers, recording))
    except TypeError as problem:  # which says why
        raise ValueError(str(problem)) from None
    for name, scan in scans.items():
        if not scan.states:
            cell = type(model.recurrent.layers[name]).__name__
            raise ValueError(f"{cell} has no recurrence: its state is empty, so nothing goes back through time")
    return scans


def inspect_layer(name: str, scan: Record, cell: Any, ledger: dict[str, Array], batch: int) -> LayerInspection:
    """What is shown of one cell."""
    flat = shown(scan)
    grads = {value: scan.grads[value].reshape(scan.steps, -1) for value in flat}
    try:
        J = jacobians(scan)
    except FloatingPointError:
        facts = {"there is none": "a Jacobian holds NaN or Inf, and the values show where that began"}
        return LayerInspection(name, flat, grads, ledger, None, source_of(scan, cell, batch), facts)
    rate = float(J.lyapunov[0])
    tens = rate * scan.steps / np.log(10)
    over_all = f"{10**tens:.3g}" if tens < 300 else f"1e{tens:.0f}"
    facts = {"largest Lyapunov exponent": f"{rate:.4g} nats a step",
             f"back over {scan.steps} steps": f"a gradient becomes {over_all} times as large, at most"}
    return LayerInspection(name, flat, grads, ledger, J.singular_values[:, 0], source_of(scan, cell, batch), facts)


def shown(scan: Record) -> dict[str, Array]:
    """{name: (T, n)}: the values that have as many numbers as a state or an output, without what enters the step."""
    inside = [name for name in scan.values if name not in scan.states and name not in scan.inputs]
    flat = {name: scan.values[name].reshape(scan.steps, -1) for name in inside}
    sizes = {flat[name].shape[1] for name in (*scan.states.values(), *scan.outputs) if name in flat}
    return {name: x for name, x in flat.items() if x.dtype.kind == "f" and x.shape[1] in sizes}


def source_of(scan: Record, cell: Any, batch: int) -> str:
    """The derived program of a step, for a batch of this size."""
    state, (x,) = ([np.zeros((*scan.values[name].shape[1:-1], batch), scan.values[name].dtype) for name in names]
                   for names in (scan.states, scan.inputs))
    return derive(cell.cell, unflatten(cell.initial_state(1), state), x).source


# -- how long a sequence may be --------------------------------------------------------------------------------------


def refuse_too_long(model: SequenceModel, x: Array, rows: int) -> None:
    """Raises ValueError when the sequence needs more memory than there is, or makes a page that none can open."""
    with record(model) as recording, no_grad():
        model(x[:1])
    a_step = list(traced(model, recording).values())
    needed, there = memory_needed(a_step, len(x), rows), memory_there()
    if there is not None and needed > there:
        raise ValueError(f"a sequence of {len(x):,} steps needs about {needed / 1e9:,.3g} GB of memory, and "
                         f"{there / 1e9:,.3g} GB are free: take a shorter one, or a model with fewer units")
    size = page_size(a_step, len(x), rows)
    if size > LARGEST or len(x) > LONGEST:
        raise ValueError(f"a sequence of {len(x):,} steps makes a page of about {size / 1e6:,.3g} MB, and browsers are "
                         f"slow beyond {LARGEST / 1e6:,.3g} MB or {LONGEST:,} steps: take a shorter one, or a model "
                         "with fewer units")


def page_size(a_step: list[Record], T: int, rows: int) -> int:
    """Characters of the page, nearly, from recordings of one step: three for each number, and half of a ledger is 0."""
    return 3 * T * sum(2 * sum(x.size for x in shown(scan).values()) + state_size(scan)
                       + (1 + len(scan.states)) * rows // 2 for scan in a_step)


def memory_needed(a_step: list[Record], T: int, rows: int) -> int:
    """Bytes, from recordings of one step: the recording of all cells; of one at a time the ledger, which holds a
    gradient of the weights for each step and each loss, and the Jacobians with their decomposition."""
    recorded, largest = 0, 0
    for scan in a_step:
        values = [scan.values[name] for name in scan.values]
        weights = sum(int(np.prod(w.shape)) for w in scan.weight_values.values())
        # values, what the backward reads, gradients, and all of these once more over time; as Python's objects too
        recorded += sum(4 * v.nbytes + 800 for v in values)
        largest = max(largest, values[0].itemsize * max(weights * (T + rows), 3 * T * state_size(scan)**2))
    return 6 * (T * recorded + largest) // 5


def state_size(scan: Record) -> int:
    return sum(scan.values[name][0].size for name in scan.states)


def memory_there() -> int | None:
    """Bytes that are free on this machine, and in this container; None where the system does not say (not Linux)."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        found += [int(limit) - int(used)] if limit != "max" else []
    except (OSError, ValueError):
        pass
    return min(found, default=None)
