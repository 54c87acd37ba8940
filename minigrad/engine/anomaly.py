"""`detect_anomaly`: find the op that made the first NaN or Inf, and saved arrays that were changed in place.

It is a watcher (see `context.watcher`), called in place of each op, forward and backward. It stores the line of user
code that made the call. Inside the context this costs a few times the computation itself; outside it costs nothing.
"""

from __future__ import annotations

import functools
import sys
import weakref
import zlib
from types import FrameType
from typing import Any

import numpy as np

from minigrad.engine.arrays import ndarray
from minigrad.engine.context import Context, watcher
from minigrad.engine.op import Op
from minigrad.engine.tensor import Node, Tensor, describe

# Modules whose frames are not the user's
OWN = ("minigrad.engine.", "minigrad.functional.", "minigrad.check.", "minigrad.program.", "minigrad.printers.",
       "minigrad.derived.", "minigrad.timeloop.", "minigrad.auditor.", "minigrad.handwritten.trial.",
       "minigrad.handwritten.meant.", "minigrad.handwritten.causes.",
       "minigrad.handwritten.subjects.", "minigrad.handwritten.recordable.", "contextlib.", "dataclasses.", "numpy.")


@functools.lru_cache(maxsize=1024)
def is_own(module: str) -> bool:
    return f"{module}.".startswith(OWN)


def is_own_frame(frame: FrameType) -> bool:
    """Whether a frame is minigrad's own, or of a library that it calls."""
    return is_own(frame.f_globals.get("__name__", ""))


class detect_anomaly(Context):
    """Raise FloatingPointError at the first NaN or Inf that an op or a rule makes, and RuntimeError if an array that
    a rule reads was changed in place. The message names the op, the tensor, the line of code and, if a loop variable
    `t` counts the time steps, the step.

    It holds for this thread and async task; run forward and backward inside. Also a decorator, of generators too.
    """

    def __init__(self):
        self._entered = []
        self._notes: dict[int, tuple] = {}  # node index → (line, saved arrays, weak reference)

    def __enter__(self) -> detect_anomaly:
        quiet = np.errstate(divide="ignore", over="ignore", invalid="ignore")  # our error replaces NumPy's warning
        quiet.__enter__()
        self._entered.append((watcher.set(self), quiet))
        return self

    def __exit__(self, *exception: Any) -> None:
        token, quiet = self._entered.pop()
        watcher.reset(token)
        quiet.__exit__(*exception)

    def __call__(self, *args: Any) -> Any:
        """Decorate a function; as the watcher, run an op call."""
        return self.forward(*args) if args and isinstance(args[0], Op) else super().__call__(*args)

    def forward(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        out = unwatched(op, inputs, arrays, metadata, tracked)
        place = user_line()
        for y in out if isinstance(out, tuple) else (out,):
            if not np.isfinite(y._array).all():
                before = [f"its input {describe(x)} already held {first_bad(a)}" for x, a in zip(inputs, arrays)
                          if not np.isfinite(a).all()]
                names = ", ".join(describe(x) for x in inputs if isinstance(x, Tensor))
                raise FloatingPointError(f"{op.name} of {names} gave {first_bad(y._array)} in the forward pass, "
                                         f"{place}; {'; '.join(before) or 'its inputs were finite'}")
        node = recorded(out)
        if node is not None:
            self.note(node, place)
        return out

    def note(self, node: Node, place: str) -> None:
        """Store where a node was made, and fingerprints of the arrays that its rules will read."""
        saved = [x._array if isinstance(x, Tensor) else x for x in node._inputs]
        saved += node._array if isinstance(node._array, tuple) else [node._array]
        prints = [(v, fingerprint(v)) for v in {id(v): v for v in saved if isinstance(v, ndarray)}.values()]
        index, notes = node._index, self._notes  # the note is deleted with the node
        notes[index] = place, prints, weakref.ref(node, lambda _: notes.pop(index, None))

    def visit(self, node: Tensor, g: Any) -> None:
        """Called by the sweep before it runs the rules of a node."""
        place, saved, _ = self._notes.get(node._index, ("", (), None))
        for array, before in saved:
            if fingerprint(array) != before:
                raise RuntimeError(f"an array of shape {array.shape} that the backward of {node._op} needs was changed "
                                   f"in place after the forward, {place}: change it after backward, or copy it")

    def gradient(self, node: Tensor, op: Op, x: Tensor, d: Any) -> None:
        """Called by the sweep with each gradient that a rule returned."""
        d = d._array if isinstance(d, Tensor) else d
        if not np.isfinite(d).all():
            place, *_ = self._notes.get(node._index, ("outside of detect_anomaly",))
            raise FloatingPointError(f"the rule of {op.name} gave {first_bad(np.asarray(d))} in the gradient of "
                                     f"{describe(x)}, in the backward pass of a value computed {place}")


def unwatched(op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
    """Run an op call without a watcher."""
    token = watcher.set(None)
    try:
        return op(inputs, metadata)
    finally:
        watcher.reset(token)


def recorded(out: Any) -> Node | None:
    """The node that an op call made, or None. Several results are parts of one node."""
    node = out[0]._node if isinstance(out, tuple) else out._node
    return node if node is None or not isinstance(out, tuple) else node._inputs[0]


def first_bad(array: Any) -> str:
    """The first entry that is not finite, such as `nan at index (0, 3)`."""
    array = np.asarray(array)
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    return f"{array[index]} at index {index}" if index else f"{array[()]}"


def fingerprint(array: ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data) if array.size else 0


def user_line() -> str:
    """The nearest frame outside the engine and the nearest loop variable t: `at model.py:12 in step, t = 3`."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and is_own_frame(frame):
        frame = frame.f_back
    place = f"at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    while frame is not None:
        t = frame.f_locals.get("t")
        if isinstance(t, (int, np.integer)):
            return f"{place}, t = {t}"
        frame = frame.f_back
    return place
