"""The module of a planned cell: two functions allocate arrays, the other two run in them."""

from __future__ import annotations

import re

from minigrad.engine.op import OPS
from minigrad.printers.statements import LoopText
from minigrad.printers.text import bracket, fitted, function

# Names that the functions use for their own variables
RESERVED = frozenset({"T", "t", "K", "start", "stop", "state", "xs", "weights", "made", "made_backward", "steps",
                      "d_state", "d_ys", "sums"})


def called_functions() -> frozenset[str]:
    """NumPy's functions that the loops call by their bare names: 90 ns less a call than np.add(…, out=…)."""
    ufuncs = {op.ufunc.__name__ for op in OPS.values() if op.ufunc is not None}
    return frozenset(ufuncs | {"dot", "matmul", "copyto", "square"})


def module_text(name: str, weights: list[str], helpers: list[str], forward: LoopText, backward: LoopText | None) -> str:
    """The module; `weights`: the loops' names for the arrays that the cell closes over."""
    loops = [forward] if backward is None else [forward, backward]
    lines = [line for loop in loops for line in [*loop.before, *loop.ahead, *loop.body, *loop.behind]]
    lines += [line for helper in helpers for line in helper.splitlines()]
    used = sorted(name for name in called_functions() if any(re.search(rf"(?<![\w.]){name}\(", line) for line in lines))
    head = f'"""{name} over time, as minigrad runs it."""\n\nimport numpy as np\n'
    head += f"from numpy import {', '.join(used)}\n" if used else ""
    taken = [f"{bracket(weights, '(')} = weights"] if weights else []
    functions = [
        made_function("make", forward, None),
        function("forward", ["T", "state", "xs", "weights", "made"],
                 [*taken, *unpacked(forward, "made"), *forward.before, *loop_text(forward), *forward.after])]
    if backward is not None:
        functions += [
            made_function("make_backward", backward, forward),
            function("backward", ["T", "d_state", "d_ys", "xs", "weights", "sums", "made", "made_backward"],
                     [*taken, *arrays_of(forward, "made"), *unpacked(backward, "made_backward"), *backward.before,
                      *loop_text(backward, backwards=True), *backward.after])]
    return "\n\n".join(part.strip("\n") + "\n" for part in [head, *helpers, *functions])


def made_function(name: str, loop: LoopText, before: LoopText | None) -> str:
    """The function that allocates the arrays of a loop for up to T steps, with all views into them."""
    lines = [f"K = min({loop.size}, T)"] if loop.ahead or loop.behind else []
    lines += arrays_of(before, "made") if before is not None else []
    lines += [f"{array} = {text}" for array, text in loop.arrays.items()]
    lines += [f"{variable} = {text}" for variable, text in loop.fixed.items()]
    lines += fitted("steps = [", bracket(list(views_of(loop).values()), "("), " for t in range(T)]")
    lines += fitted("return ", bracket([*loop.arrays, *loop.fixed], "("), ", steps")
    return function(name, ["T"] if before is None else ["T", "made"], lines)


def views_of(loop: LoopText) -> dict[str, str]:
    """The views that the steps of a loop use."""
    used = set(re.findall(r"\w+", " ".join(loop.body)))
    return {name: text for name, text in loop.views.items() if name in used}


def unpacked(loop: LoopText, made: str) -> list[str]:
    """Unpack the arrays, the fixed views and the views of each step from the result of `make`."""
    return fitted("", bracket([*loop.arrays, *loop.fixed], "("), f", steps = {made}")


def arrays_of(loop: LoopText, made: str) -> list[str]:
    """Unpack only the arrays."""
    return fitted("", bracket([*loop.arrays], "("), f" = {made}[0][:{len(loop.arrays)}]") if loop.arrays else []


def loop_text(loop: LoopText, backwards: bool = False) -> list[str]:
    """The loop over time, in blocks if something is computed ahead or behind."""
    blocks = bool(loop.ahead or loop.behind)
    first, last, views = ("start", "stop", "steps[start:stop]") if blocks else ("0", "T", "steps[:T]")
    steps = f"range({first}, {last})"
    if backwards:
        steps, views = f"range({last} - 1, {first} - 1, -1)", f"reversed({views})"
    names = bracket(list(views_of(loop)), "(")
    if any(re.search(r"\bt\b", line) for line in loop.body):
        head = fitted("for t, ", names, f" in zip({steps}, {views}):")
    else:
        head = fitted("for ", names, f" in {views}:")
    text = [*head, *(f"    {line}" for line in loop.body or ["pass"])]
    if blocks:
        starts = "range((T - 1) // K * K, -1, -K)" if backwards else "range(0, T, K)"
        text = [f"K = min({loop.size}, T)", f"for start in {starts}:", "    stop = min(start + K, T)",
                *(f"    {line}" for line in [*loop.ahead, *text, *loop.behind])]
    if loop.quiet:
        text = ["with np.errstate(over='ignore', under='ignore'):", *(f"    {line}" for line in text)]
    return text
