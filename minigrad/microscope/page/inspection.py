"""Inspect a model on one sequence: record it, and compute the arrays that a report shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.derived import derive
from minigrad.engine.backward import behind, sweep
from minigrad.engine.context import no_grad
from minigrad.engine.pytree import unflatten
from minigrad.engine.tensor import Tensor
from minigrad.microscope.bptt import Record, Recording, credit, jacobians, record
from minigrad.microscope.cell_program import free
from minigrad.microscope.jacobians import Jacobians
from minigrad.microscope.page.rendering import LayerInspection
from minigrad.nn.module import Module
from minigrad.training.sequence_model import eval_mode

Array = np.ndarray
Names = Any  # a string or list of the names of symbols 0, 1, …; or None
LEDGER = 40_000  # maximum number of entries of a credit ledger; each costs one step of a backward
LARGEST, LONGEST = 50_000_000, 20_000  # maximum characters of a page and maximum steps; browsers are slow beyond


@dataclass
class Sequence:
    """One sequence of T steps, in a batch of one.

    x, targets        (T, 1, …)   as in a batch of a task
    asked             (S,)        the steps whose target counts
    loss              a loss of minigrad.nn, for outputs (1, outputs) and targets (1, …)
    names             names of the symbols of x and of targets; None for numbers or unnamed symbols
    about             what a step reads and what it is asked for, in a sentence
    symbols, answers  T texts     the inputs; the targets, "" at steps without one
    """

    x: Array
    targets: Array
    asked: Array
    loss: Callable[[Tensor, Array], Tensor]
    names: tuple[Names, Names] = (None, None)
    about: str = ""

    @property
    def symbols(self) -> list[str]:
        return [as_text(one, self.names[0]) for one in self.x[:, 0]]

    @property
    def answers(self) -> list[str]:
        asked = set(self.asked.tolist())
        return [as_text(one, self.names[1]) if t in asked else "" for t, one in enumerate(self.targets[:, 0])]


def as_text(value: Any, names: Names) -> str:
    """The name or number of a symbol, or the numbers of a step."""
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu":
        return names[value] if names else str(value)
    return " ".join(f"{number:.3g}" for number in np.ravel(value))


Looked = tuple[list[LayerInspection], Array, dict[str, Array]]


def inspect(model: Module, sequence: Sequence, batch: int | None = 1) -> Looked:
    """Returns (an inspection of each layer, the steps whose losses the ledgers follow, numbers of every step).

    The loss L is the mean over the asked steps. In a long sequence, the ledgers follow a subset of its losses, evenly
    spaced and including the last, so that a ledger has at most 40 000 entries; values and gradients refer to the whole
    L. The derived source is for a batch of this size. The model, called as model(x), runs in eval mode; `.grad` and its
    mode are unchanged.

    Raises ValueError if this machine has too little memory, and for a cell that has no state or cannot be traced.
    """
    with eval_mode(model), np.errstate(all="ignore"):
        refuse_too_long(model, sequence.x, ledger_rows(len(sequence.x), len(sequence.asked)))
        with record(model) as recording:
            outputs = model(sequence.x)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        if np.shape(outputs)[:2] != (len(sequence.x), 1):
            raise ValueError(f"the model makes outputs {np.shape(outputs)} of x {sequence.x.shape}, and a page needs "
                             "one at every step, time first: (T, 1, …); for another model give mg.inspect a function "
                             "batch → loss")
        losses = {int(s): sequence.loss(outputs[int(s)], sequence.targets[s]) for s in sequence.asked}
        return look(scans_by_layer(recording), losses, batch)


def look(scans: dict[str, Record], losses: Mapping[int, Tensor], batch: int | None = None) -> Looked:
    """What `inspect` returns, from recorded scans of one sequence and the loss at each step that has one."""
    T, S, steps = next(iter(scans.values())).steps, len(losses), np.array(list(losses))
    asked = steps[np.linspace(S - 1, 0, ledger_rows(T, S)).round().astype(int)[::-1]]
    followed = [losses[int(s)] / S for s in asked]
    ledgers = [{"weights": found.size, **found.states} for found in (credit(scan, followed) for scan in scans.values())]
    whole = sum(losses.values()) / S
    leaves = [x for x in behind([whole]) if x._op is None]
    with no_grad():  # `whole.backward()` would change .grad
        sweep([whole], [np.ones(whole.shape, whole.dtype)], leaves, release=True)
    layers = [inspect_layer(name, scan, ledger, batch) for (name, scan), ledger in zip(scans.items(), ledgers)]
    loss = np.full(T, np.nan)
    for s, one in losses.items():
        loss[s] = one.item()
    lowest = next(iter(scans.values()))
    d_x = lowest.grads[lowest.inputs[0]]
    return layers, asked, {"loss": loss, "‖dL/dx‖": np.linalg.norm(d_x.reshape(T, -1), axis=1)}


def ledger_rows(T: int, S: int) -> int:
    """The number of losses that a ledger follows."""
    return min(S, max(1, LEDGER // T))


def scans_by_layer(recording: Recording) -> dict[str, Record]:
    """The recorded scans by their paths, without the module that has them all: l0, l1, …"""
    try:
        scans = list(recording)
    except TypeError as problem:  # the message of record contains the reason
        raise ValueError(str(problem)) from None
    found: dict[str, Record] = {}
    parents = {scan.path.rpartition(".")[0] for scan in scans}
    common = f"{parents.pop()}." if len(parents) == 1 else ""
    for scan in scans:
        if not scan.states:
            cell = type(getattr(scan.cell, "__self__", scan.cell)).__name__
            raise ValueError(f"{cell} has no recurrence: its state is empty, so no gradient goes back through time")
        found[free(scan.path.removeprefix(common), found)] = scan
    return found


def inspect_layer(name: str, scan: Record, ledger: dict[str, Array], batch: int | None) -> LayerInspection:
    """The inspection of one cell."""
    flat = shown(scan)
    grads = {value: scan.grads[value].reshape(scan.steps, -1) for value in flat}
    try:
        J = jacobians(scan)
    except FloatingPointError:
        spectrum, keeps = None, {}
        facts = {"no spectrum": "a Jacobian contains NaN or Inf; the values show where the first one is"}
    else:
        rate = float(J.lyapunov[0])
        tens = rate * scan.steps / np.log(10)
        over_all = f"{10**tens:.3g}" if tens < 300 else f"1e{tens:.0f}"
        spectrum, keeps = J.singular_values[:, 0], kept_parts(J)
        facts = {"largest Lyapunov exponent": f"{rate:.4g} nats a step",
                 f"back over {scan.steps} steps": f"a gradient grows at most by the factor {over_all}"}
    meanings = getattr(getattr(scan.cell, "__self__", None), "meanings", {})
    return LayerInspection(name, flat, grads, ledger, spectrum, source_of(scan, batch), facts, keeps,
                           {value: text for value, text in meanings.items() if value in flat})


def kept_parts(J: Jacobians) -> dict[str, Array]:
    """{state: (2, n)}: the diagonal of the step Jacobians by state, its least size and its geometric mean over time."""
    own = np.abs(np.diagonal(J.steps[:, 0], axis1=1, axis2=2))
    parts = np.stack([own.min(axis=0), np.exp(np.log(own).mean(axis=0))])
    ends = np.cumsum([size for _, _, size in J.leaves])[:-1]
    return {after or before: part for (before, after, _), part in zip(J.leaves, np.split(parts, ends, axis=1))}


def shown(scan: Record) -> dict[str, Array]:
    """{name: (T, n)}: the computed values that are as large as a state or an output."""
    inside = [name for name in scan.values if name not in scan.states and name not in scan.inputs]
    flat = {name: scan.values[name].reshape(scan.steps, -1) for name in inside}
    sizes = {flat[name].shape[1] for name in (*scan.states.values(), *scan.outputs) if name in flat}
    return {name: x for name, x in flat.items() if x.dtype.kind == "f" and x.shape[1] in sizes}


def source_of(scan: Record, batch: int | None) -> str:
    """The derived program of a step, for a batch of this size as the last axis; None: of the recorded size."""
    def zeros(name: str) -> Array:
        shape = scan.values[name].shape[1:]
        return np.zeros(shape if batch is None else (*shape[:-1], batch), scan.values[name].dtype)
    state, x = (unflatten(nesting, [zeros(name) for name in names])
                for nesting, names in zip(scan.nesting, (scan.states, scan.inputs)))
    return derive(scan.cell, state, x).source


# -- how long a sequence may be --------------------------------------------------------------------------------------


def refuse_too_long(model: Module, x: Array, rows: int) -> None:
    """Raise ValueError if the sequence needs more memory than is free, or a page that is too large for browsers."""
    with record(model) as recording, no_grad():
        model(x[:1])
    a_step = list(scans_by_layer(recording).values())
    needed, free = memory_needed(a_step, len(x), rows), free_memory()
    if free is not None and needed > free:
        raise ValueError(f"a sequence of {len(x):,} steps needs about {needed / 1e9:,.3g} GB of memory, and "
                         f"{free / 1e9:,.3g} GB are free: take a shorter one, or a model with fewer units")
    size = page_size(a_step, len(x), rows)
    if size > LARGEST or len(x) > LONGEST:
        raise ValueError(f"a sequence of {len(x):,} steps makes a page of about {size / 1e6:,.3g} MB, and browsers are "
                         f"slow beyond {LARGEST / 1e6:,.3g} MB or {LONGEST:,} steps: take a shorter one, or a model "
                         "with fewer units")


def page_size(a_step: list[Record], T: int, rows: int) -> int:
    """Approximate characters of the page, from recordings of one step: three per number; half of a ledger is 0."""
    return 3 * T * sum(2 * sum(x.size for x in shown(scan).values()) + state_size(scan)
                       + (1 + len(scan.states)) * rows // 2 for scan in a_step)


def memory_needed(a_step: list[Record], T: int, rows: int) -> int:
    """Estimate bytes from recordings of one step: the recording of all cells, plus for one cell at a time the larger of
    its ledger (a gradient of the weights per step and per loss) and its Jacobians with their decomposition."""
    recorded, largest = 0, 0
    for scan in a_step:
        values = [scan.values[name] for name in scan.values]
        weights = sum(int(np.prod(w.shape)) for w in scan.weight_values.values())
        # values, inputs of the backward and gradients, all of them again stacked over time; and Python objects
        recorded += sum(4 * v.nbytes + 800 for v in values)
        largest = max(largest, values[0].itemsize * max(weights * (T + rows), 3 * T * state_size(scan)**2))
    return 6 * (T * recorded + largest) // 5


def state_size(scan: Record) -> int:
    return sum(scan.values[name][0].size for name in scan.states)


def free_memory() -> int | None:
    """Free bytes on this machine and in this container; None if unknown (not Linux)."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        found += [int(limit) - int(used)] if limit != "max" else []
    except (OSError, ValueError):
        pass
    return min(found, default=None)
