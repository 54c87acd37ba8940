"""`mg.inspect`: the report on a model of one's own, to show in a notebook or to save."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.engine.tensor import Tensor, describe
from minigrad.files.atomic import atomic_write
from minigrad.microscope.bptt import Recording, credit, record
from minigrad.microscope.page import inspection
from minigrad.microscope.page.inspection import Names, Sequence, look, scans_by_layer
from minigrad.microscope.page.rendering import Inspection, render
from minigrad.tasks.task import Batch
from minigrad.training.trainer import LOSSES

WIDEST = 4  # maximum number of features that are shown as numbers
HEIGHT = 900  # pixels of the report in a notebook


class Report:
    """A page about a model. A notebook shows it; `save` writes it as one HTML file, which opens from disk.

    inspection  the arrays that the page shows
    html        the text of the page
    """

    def __init__(self, inspection: Inspection):
        self.inspection, self.html = inspection, render(inspection)

    def save(self, path: str | Path) -> None:
        """Write the page; a file of this name is replaced. Raises ValueError for a name that does not end in .html, and
        if the file cannot be written."""
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"a report is an HTML file, and {path} does not end in .html: save it as "
                             f"{path.with_suffix('.html')}")
        with atomic_write(path) as file:
            file.write(self.html.encode())

    def __repr__(self) -> str:
        looked = self.inspection
        layers = ", ".join(layer.name for layer in looked.layers)
        return (f"report on {looked.title}: {len(looked.symbols)} steps, {layers}, {len(self.html) / 1e6:.2g} MB; a "
                'notebook shows it, and .save("report.html") writes it')

    def _repr_html_(self) -> str:
        return (f'<iframe srcdoc="{html.escape(self.html)}" width="100%" height="{HEIGHT}" style="border: 0" '
                f'title="{html.escape(self.inspection.title)}"></iframe>')


def inspect(model: nn.Module | Callable[[Any], Any], batch: Any, *, loss: str | Callable | None = None,
            example: int = 0, names: tuple[Names, Names] = (None, None), title: str | None = None) -> Report:
    """Put a model and one sequence under the microscope; docs/inspect.md explains the page.

    model    a module, called as model(x) → outputs (T, 1, …), or (outputs, state); or a function loss_fn(batch) → the
             loss, or one loss for each step, as a tensor (T,) or a list
    batch    a `Batch`, or for a module (x, targets), time first. For a function it may be anything, with one sequence
    loss     for a module: "cross_entropy", "mse", "binary_cross_entropy", or a function (outputs, targets) → loss of
             one step. Default: cross_entropy for targets that are integers, otherwise mse
    example  the sequence of a Batch that is shown; the model sees this sequence alone
    names    names of the symbols of x and of the targets, a string or list each; None: their numbers
    title    of the page; by default the name of the model

    L is the mean of the losses. A module runs in eval mode, a function as it is. `.grad` does not change. Each
    recurrent layer becomes a part of the page. Raises ValueError if the batch, the losses or the layers do not fit.
    """
    batch = Batch(*batch) if isinstance(model, nn.Module) and isinstance(batch, (tuple, list)) else batch
    one = one_sequence(batch, example) if isinstance(batch, Batch) else None
    kind = title or getattr(model, "__name__", type(model).__name__)
    if isinstance(model, nn.Module):
        if one is None:
            raise ValueError(f"inspect takes (x, targets) or a Batch of minigrad.tasks for a model, not a "
                             f"{type(batch).__name__}; or give a function batch → loss in place of the model")
        layers, asked, steps = inspection.inspect(model, sequence_of(one, loss, names), None)
        size = f"{sum(p.size for p in model.parameters()):,}"
    else:
        if loss is not None or not callable(model):
            raise ValueError("inspect takes a module, with its loss, or a function batch → loss, not "
                             f"{'a loss for a function' if callable(model) else f'a {type(model).__name__}'}")
        with np.errstate(all="ignore"):
            with record() as recording:
                found = model(batch if one is None else one)
            scans = scans_of_one_sequence(recording)
            layers, asked, steps = look(scans, losses_by_step(found, scans))
        weights = [w.shape for scan in scans.values() for w in scan.weight_values.values()]
        size = f"{sum(int(np.prod(shape)) for shape in weights):,} in the layers"
    T = len(steps["loss"])
    symbols, targets = [str(t) for t in range(T)], None
    if one is not None and len(one.x) == T:
        sequence = sequence_of(one, None, names)
        symbols = sequence.symbols if one.x.ndim < 3 or one.x.shape[2] <= WIDEST else symbols
        targets = sequence.answers
    count = int((~np.isnan(steps["loss"])).sum())
    facts = {"parameters": size, "sequence": f"number {example} of {batch.x.shape[1]}" if one is not None else "given",
             "loss L": f"{np.nanmean(steps['loss']):.4g}{f', the mean of {count} steps' if count > 1 else ''}"}
    return Report(Inspection(kind, facts, symbols, targets, asked, steps, {}, layers))


def one_sequence(batch: Batch, example: int) -> Batch:
    """The batch of this sequence alone, without what follows its end."""
    x, targets = np.asarray(batch.x), np.asarray(batch.targets)
    if x.ndim < 2 or targets.shape[:2] != x.shape[:2]:
        raise ValueError(f"a batch has x (T, B, …) and targets (T, B, …), time first, not {x.shape} and "
                         f"{targets.shape}; for other targets give a function batch → loss in place of the model")
    size = x.shape[1]
    if not -size <= example < size:
        raise ValueError(f"the batch has {size} sequences, not number {example}")
    e = example % size
    T = len(x) if batch.lengths is None else int(batch.lengths[e])
    mask = None if batch.mask is None else np.asarray(batch.mask)[:T, e:e + 1]
    return Batch(x[:T, e:e + 1], targets[:T, e:e + 1], mask)


def sequence_of(one: Batch, loss: str | Callable | None, names: tuple[Names, Names]) -> Sequence:
    """A batch of one sequence, as the inspection takes it."""
    loss = loss or ("cross_entropy" if one.targets.dtype.kind in "iu" else "mse")
    if isinstance(loss, str) and loss not in LOSSES:
        raise ValueError(f"loss is {', '.join(LOSSES)}, or a function of outputs and targets, not {loss!r}")
    asked = np.arange(len(one.x)) if one.mask is None else np.flatnonzero(one.mask[:, 0])
    if not len(asked):
        raise ValueError("no step of this sequence has a target that counts: choose another example")
    return Sequence(one.x, one.targets, asked, LOSSES.get(loss, loss) if isinstance(loss, str) else loss, names)


def scans_of_one_sequence(recording: Recording) -> dict[str, Any]:
    """The recorded scans by layer. Raises ValueError unless they run over the same steps of one sequence."""
    if not len(recording):
        raise ValueError("the function ran no recurrent layer and no mg.scan (a Python loop is not a scan), so there "
                         "is nothing to inspect")
    scans = scans_by_layer(recording)
    if len({scan.steps for scan in scans.values()}) > 1:
        raise ValueError("the layers ran over different numbers of steps, and a page has one time axis: "
                         f"{', '.join(f'{name} {scan.steps}' for name, scan in scans.items())}")
    for name, scan in scans.items():
        batch = {scan.values[state].shape[-1] for state in scan.states if scan.values[state].ndim > 2}
        if len(batch) == 1 and max(batch) > 1:
            raise ValueError(f"{name} ran on {max(batch)} sequences, and a page shows one: give a Batch, from which "
                             "example=… is taken, or a batch of one sequence")
    return scans


def losses_by_step(found: Any, scans: dict[str, Any]) -> dict[int, Tensor]:
    """{step: loss}; a loss belongs to the last step of the last layer that it depends on."""
    losses = list(found) if isinstance(found, (list, tuple)) or getattr(found, "ndim", 0) else [found]
    for one in losses:
        if not isinstance(one, Tensor) or one.size != 1 or not one.requires_grad:
            raise ValueError("the function returns a loss, or one for each step, through which gradients flow, not "
                             f"{describe(one)}")
    top = list(scans.values())[-1]
    try:
        at = range(top.steps) if len(losses) == top.steps else credit(top, losses).at
    except RuntimeError:  # nothing keeps the graph of the layer
        at = [-1] * len(losses)
    by_step: dict[int, Tensor] = {}
    for step, one in zip(at, losses):
        if step >= 0:
            by_step[int(step)] = by_step[int(step)] + one if int(step) in by_step else one
    if not by_step:
        raise ValueError("no loss depends on the last recurrent layer that ran in this call")
    return dict(sorted(by_step.items()))
