"""The gradient of each part of the state, split by the part of the new state that it came through."""

from __future__ import annotations

import numpy as np

from minigrad.microscope.recording import Record, Recording, one_scan
from minigrad.microscope.step_vjp import StepVJP
from minigrad.program.ir import Value

Array = np.ndarray


def paths(rec: Recording | Record) -> dict[str, dict[str, Array]]:
    """The gradient of each part of the old state, split by the result of the step that it came through.

    Returns {state: {result: (T, …)}}, arrays of the state's shape at every step. For an LSTM:

        paths(rec)["c_prev"]["c_next"][t]   (∂c_t/∂c_{t−1})ᵀ dL/dc_t, through the cell state alone: ft ∘ dL/dc_t, where
                                            dL/dc_t is the gradient that later steps send to c_t
        paths(rec)["c_prev"]["a_next"][t]   (∂a_t/∂c_{t−1})ᵀ dL/da_t, through the output: from the loss at step t, and
                                            from the gates and candidates of later steps
        paths(rec)["a_prev"][…]             likewise

    dL/dc_t and dL/da_t are the gradients from outside step t, so each path is counted once. The parts add up to the
    gradient that step t sends to the state before it. A y that is not part of the state is a result of its own.
    Raises RuntimeError before a backward.
    """
    scan = one_scan(rec)
    step, backwards = scan.step, scan.recorded_backwards()
    states = {name: s for name, s in zip(scan.states, step.states) if s.dtype.kind in "fc"}
    after = [new or f"{old}_next" for old, new in scan.states.items()] + [name or "y" for name in step.names_of["y"]]
    results: dict[Value, str] = {}
    for name, result in zip(after, step.new_states + step.ys):
        if result in step.program.seeds:
            results.setdefault(result, name)
    out = {name: {result: np.zeros((scan.steps, *s.shape), s.dtype) for result in results.values()}
           for name, s in states.items()}
    step_vjp = StepVJP(scan, [step.gradients[s] for s in states.values()])
    for t, time in enumerate(scan.order):
        arrived = [sum(backward.values[t][step.program.seeds[result]] for backward in backwards) for result in results]
        alone = [(result, np.where(one, d[..., None], 0.0)) for result, d, one in zip(
            results, arrived, np.eye(len(results), dtype=bool))]
        for state, parts in zip(states, step_vjp(t, alone)):
            for k, name in enumerate(results.values()):
                out[state][name][time] += parts[..., k]  # masked, a state and a y may share a name
    return out
