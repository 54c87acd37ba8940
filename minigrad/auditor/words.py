"""What a sentence calls a step of the tape, a path, and a number."""

from __future__ import annotations

from minigrad.auditor.record import Step
from minigrad.auditor.tape import Tape
from minigrad.engine.op import PART

PLAIN = ("getitem", "transpose", "reshape", "copy", "broadcast_to")  # written as their first input


def d(name: str) -> str:
    return f"d{name}" if name.isidentifier() else f"the gradient of {name}"


def say(tape: Tape, step: Step, depth: int = 2) -> str:
    """What the user calls a step; an expression where it has no name."""
    if step.kind == "total":
        return d(say(tape, step.of))
    if step.kind in ("seed", "edge"):
        how = "arriving" if step.kind == "seed" else "carried"
        return f"the {how} {d(say(tape, step.x)).removeprefix('the ')}"
    if names := [call.name for call in tape.places[step.place] if call.name]:
        return step.name or max(dict.fromkeys(names), key=names.count)
    if step.kind == "constant":
        return "the constant" if step.shape else f"{float(step.example):g}"
    if depth < 0 or step.op is None:
        return "…"
    inputs = [say(tape, x, depth - 1 if step.kind == x.kind else 2) for x in step.inputs]
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
    index = (step.metadata or {}).get("index", ())
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(one, slice) and (one.step or 1) < 0 for one in parts)


def say_read(tape: Tape, x: Step, time: int) -> str:
    """A value that a rule reads at a time; a state of the step before is called so."""
    state = next((place for place, start in tape.starts.items() if start is x), None)
    if state is not None and time == 0:
        return f"{say(tape, tape.places[state][0])} of the step before"
    is_before = x.kind == "forward" and len(tape.places[x.place]) > 1 and x.time < time
    return say(tape, x, 2 + (x.kind == "rule")) + " of the step before" * is_before


def path(tape: Tape, e: Step) -> str:
    return f"from {say(tape, e.of)} to {say(tape, e.x)}"


def between(tape: Tape, e: Step) -> str:
    """Where the path lies, in terms of the gradients that the user wrote."""
    return f"between {d(say(tape, e.of))} and {d(say(tape, e.x))}"


def number_name(tape: Tape, k: float) -> tuple[str, bool]:
    """A number as a person would write it, and whether the sizes give it."""
    found = next((name for n, name in tape.numbers if abs(n - k) < 1e-7 * abs(k)), None)
    return found or f"{k:.6g}", found is not None
