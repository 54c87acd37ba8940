"""A model and one sequence, seen through the microscope: what a report shows of them, from one recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.bptt import Record, credit, jacobians, record
from minigrad.derive import derive
from minigrad.model import SequenceModel
from minigrad.report import Lens
from minigrad.tensor import Tensor, no_grad
from minigrad.tree import unflatten

Array = np.ndarray
LEDGER = 40_000  # entries of a credit ledger, at most: each is a step of a backward


@dataclass
class Sequence:
    """One sequence of T steps, in a batch of one.

    x, targets        (T, 1, …)   as a task's batch has them
    asked             (S,)        the steps at which a target counts
    symbols, answers  T texts     what is read, and what is asked for, "" where nothing is
    loss              of minigrad.nn, for outputs (1, outputs) and targets (1, …)
    """

    x: Array
    targets: Array
    asked: Array
    symbols: list[str]
    answers: list[str]
    loss: Callable[[Tensor, Array], Tensor]


def look(model: SequenceModel, sequence: Sequence, batch: int = 1) -> tuple[list[Lens], Array, dict[str, Array]]:
    """(a lens for each cell of the model, the steps whose losses stand in the ledgers, numbers of every step).

    The loss L is the mean over the steps that are asked. Of a sequence with many, so many losses are followed, evenly
    chosen and the last among them, that a ledger has 40 000 entries at most; values and gradients are of all of L.
    The derived source is that for a batch of this size. Nothing is added to any `.grad`.

    Raises ValueError, in a sentence, where the memory of this machine does not suffice, and for cells that have no
    state or cannot be traced.
    """
    T, S = len(sequence.x), len(sequence.asked)
    rows = min(S, max(1, LEDGER // T))
    asked = sequence.asked[np.linspace(S - 1, 0, rows).round().astype(int)[::-1]]
    refuse_too_long(model, sequence.x, rows)
    with record(model) as recording:
        outputs, _ = model(sequence.x)
        losses = {int(s): sequence.loss(outputs[int(s)], sequence.targets[s]) for s in sequence.asked}
        scans = traced(model, recording)
        followed = [losses[int(s)] / S for s in asked]
        ledgers = [credit(scan, followed) for scan in scans.values()]
        ledgers = [{"weights": ledger.size, **ledger.states} for ledger in ledgers]
        before = [p.grad for p in model.parameters()]
        total = losses[int(sequence.asked[0])] / S
        for s in sequence.asked[1:]:
            total = total + losses[int(s)] / S
        total.backward()
        for p, grad in zip(model.parameters(), before):
            p.grad = grad
    lenses = [lens_of(name, scan, model.recurrent.layers[name], ledger, batch)
              for (name, scan), ledger in zip(scans.items(), ledgers)]
    loss = np.full(T, np.nan)
    for s, one in losses.items():
        loss[s] = one.item()
    first = [scan for name, scan in scans.items() if name.startswith("l0")]
    d_x = sum(scan.grads[scan.inputs[0]] for scan in first)
    return lenses, asked, {"loss": loss, "‖dL/dx‖": np.linalg.norm(d_x.reshape(T, -1), axis=1)}


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


def lens_of(name: str, scan: Record, cell: Any, ledger: dict[str, Array], batch: int) -> Lens:
    """What is shown of one cell: the values that have as many numbers as a state or an output, not the ways in."""
    shown = [value for value in scan.values if value not in scan.states and value not in scan.inputs]
    flat = {value: scan.values[value].reshape(scan.steps, -1) for value in shown}
    sizes = {flat[value].shape[1] for value in (*scan.states.values(), *scan.outputs) if value in flat}
    flat = {value: x for value, x in flat.items() if x.dtype.kind == "f" and x.shape[1] in sizes}
    grads = {value: scan.grads[value].reshape(scan.steps, -1) for value in flat}
    J = jacobians(scan)
    rate = float(J.lyapunov[0])
    over_all = np.exp(rate * scan.steps)
    facts = {"largest Lyapunov exponent": f"{rate:.4g} nats a step",
             f"back over {scan.steps} steps": f"a gradient becomes {over_all:.3g} times as large, at most"}
    return Lens(name, flat, grads, ledger, J.singular_values[:, 0], source_of(scan, cell, batch), facts)


def source_of(scan: Record, cell: Any, batch: int) -> str:
    """The derived program of a step, for a batch of this size."""
    state, (x,) = ([np.zeros((*scan.values[name].shape[1:-1], batch), scan.values[name].dtype) for name in names]
                   for names in (scan.states, scan.inputs))
    return derive(cell.cell, unflatten(cell.initial_state(1), state), x).source


# -- memory -----------------------------------------------------------------------------------------------------------


def refuse_too_long(model: SequenceModel, x: Array, rows: int) -> None:
    """Raises ValueError when the sequence needs more memory than there is."""
    needed, there = memory_needed(model, x, rows), memory_there()
    if there is not None and needed > there:
        raise ValueError(f"a sequence of {len(x):,} steps needs about {needed / 1e9:,.3g} GB of memory, and "
                         f"{there / 1e9:,.3g} GB are free: take a shorter one, or a model with fewer units")


def memory_needed(model: SequenceModel, x: Array, rows: int) -> int:
    """Bytes, from what one step takes: the recording of all cells; of one at a time the ledger, which holds a gradient
    of the weights for each step and each loss, and the Jacobians with their decomposition."""
    with record(model) as recording, no_grad():
        model(x[:1])
    T, recorded, largest = len(x), 0, 0
    for scan in traced(model, recording).values():
        a_step = [scan.values[name][0] for name in scan.values]
        states = sum(scan.values[name][0].size for name in scan.states)
        weights = sum(int(np.prod(w.shape)) for w in scan.weight_values.values())
        # values, what the backward reads, gradients, and all of these once more over time; as Python's objects too
        recorded += sum(4 * v.nbytes + 800 for v in a_step)
        largest = max(largest, a_step[0].itemsize * max(weights * (T + rows), 3 * T * states**2))
    return 6 * (T * recorded + largest) // 5


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
