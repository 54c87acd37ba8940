"""What a sentence calls a step of the tape, and a path."""

from __future__ import annotations

import numpy as np

from minigrad.auditor.record import Step
from minigrad.engine.op import PART

PLAIN = ("getitem", "transpose", "reshape", "copy", "broadcast_to")  # written as their first input


def d(x: Step | str) -> str:
    """What the user calls the gradient of a step, or of a name."""
    name = x if isinstance(x, str) else say(x)
    return f"d{name}" if name.isidentifier() else f"the gradient of {name}"


def say(step: Step, depth: int = 2) -> str:
    """What the user calls a step; an expression where it has no name."""
    if step.kind == "total":
        return d(step.of)
    if step.kind in ("seed", "edge"):
        how = "arriving" if step.kind == "seed" else "carried"
        return f"the {how} {d(step.x).removeprefix('the ')}"
    if step.name:
        return step.name
    if step.kind == "constant":
        return "the constant" if step.shape else f"{float(step.example):g}"
    if depth < 0 or step.op is None:
        return "…"
    inputs = [say(x, depth - 1 if step.kind == x.kind else 2) for x in step.inputs]
    if step.op.infix and len(inputs) == 1:
        return f"−{inputs[0]}"
    if step.op.infix and len(inputs) == 2:
        if inputs[0] == inputs[1] and step.op.infix == "*":
            return f"{inputs[0]}²"
        sign = {"*": " ", "-": " − "}.get(step.op.infix, f" {step.op.infix} ")
        return sign.join(x if len(x.split()) == 1 or x.endswith(")") else f"({x})" for x in inputs)
    if step.kind == "forward" and is_turned(step):
        return f"{inputs[0]} turned round"
    if step.op is PART or step.op.view or step.op.name in PLAIN:
        return inputs[0] + (".T" if step.kind == "rule" and step.op.name.startswith("t") else "")
    return f"{step.op.name}({', '.join(dict.fromkeys(inputs))})"


def is_turned(step: Step) -> bool:
    """Whether an axis is read from its end, as in x[:, ::-1]."""
    return any(isinstance(one, slice) and (one.step or 1) < 0 for one in np.index_exp[step.metadata.get("index", ())])


def say_read(x: Step, time: int) -> str:
    """A value that a rule reads at a time; a state of the step before is called so."""
    if x.starts and time == 0:
        return f"{say(x.starts)} of the step before"
    is_before = x.kind == "forward" and x.is_repeated and x.time < time
    return say(x, 2 + (x.kind == "rule")) + " of the step before" * is_before


def path(e: Step) -> str:
    return f"from {say(e.of)} to {say(e.x)}"


def between(e: Step) -> str:
    """Where the path lies, in terms of the gradients that the user wrote."""
    return f"between {d(e.of)} and {d(e.x)}"
