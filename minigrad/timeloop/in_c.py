"""The C loops of a program as an executor of scan: arrays in and out, buffers, and sums over time.

One call of a C function runs all steps; ctypes gives the interpreter lock up for it. The weights' gradients are products
of the rows that the loops lay down, by NumPy.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from minigrad.printers.c_loop import CPlan, Rows
from minigrad.printers.c_products import panel_entries, taken
from minigrad.program.ir import Value
from minigrad.timeloop.cache import Allocator, Buffers, pool
from minigrad.timeloop.compile import threads as blas_threads


def address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]


def rounded(count: int) -> int:
    return (count + 63) // 64 * 64


class CProgram:
    """The compiled C of a plan.

    allocator  makes its buffers; block: the number of steps that are summed at once
    """

    def __init__(self, plan: CPlan, library: Any, block: int):
        self.plan, self.library = plan, library
        self.loops = {}
        for loop in (plan.forward, plan.backward):
            if loop is not None:
                function = getattr(library, loop.name)
                function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_long], None
                self.loops[loop.name] = loop, function
        batch = plan.state[0].shape[-1] if plan.columns else 1
        self.batch, self.chunks = batch, -(-batch // plan.columns) if plan.columns else 1
        self.width = plan.columns or 1
        self.block = 2 * block if 16 <= batch and block * batch < 512 else block
        self.work_bytes = rounded(max(loop.work for loop, _ in self.loops.values()) + 64)
        self.threads = self.chunks
        self.allocator = Allocator(self.make, lambda steps, made: ((), ()))
        self.across = max([rows.across for rows in plan.rows.values()], default=1)

    def chunk_bytes(self, steps: int) -> int:
        return sum(taken((steps + extra) * entries * np.dtype(dtype).itemsize)
                   for entries, extra, dtype in self.plan.stacks.values())

    def make(self, steps: int) -> tuple:
        """The arrays of a set of buffers: [memory, work, rows and panels by name, entries of a line]."""
        threads = min(blas_threads(), self.chunks)
        arrays = {"memory": np.empty(self.chunks * self.chunk_bytes(steps) + 64, np.uint8),
                  "work": np.empty(threads * self.work_bytes + 64, np.uint8)}
        line = -(-min(steps, self.block) * self.chunks * self.across // 16) * 16 + 16
        for rows in self.plan.rows.values():
            narrow = rows.across == 1
            shape = (steps * self.chunks, rows.rows) if narrow else (-(-steps // self.block), rows.rows, line)
            arrays[rows.name] = np.empty(shape, rows.value.dtype)
        for loop, _ in self.loops.values():
            for kind, what, *_ in loop.typed:
                if kind == "panels":
                    arrays[what] = np.empty(panel_entries(*what.shape), what.dtype)
        made = Made(arrays.values())
        made.by_name, made.line, made.threads = arrays, line, threads
        return made, ()

    def invariants(self, closed: list) -> Any:
        """A function from a value that is the same at every step to its array."""
        known: dict[Value, Any] = dict(zip(self.plan.closed, closed))

        def value_of(v: Value) -> Any:
            if v.is_constant:
                return v.constant
            if v not in known:
                known[v] = v.op.forward(*map(value_of, v.inputs), **v.metadata)
            return known[v]
        return value_of

    def call(self, name: str, steps: int, given: dict, buffers: Buffers, value_of: Any) -> None:
        """Run a loop. given: {(kind, what): an array with the axes that its strides say}."""
        loop, function = self.loops[name]
        made = buffers.made[0]
        pointers, strides, alive = [], [], []
        for kind, what, _, count, _ in loop.typed:
            if kind == "rows":
                pointers.append(address(made.by_name[what.name]))
                continue
            if kind == "panels":
                pointers.append(address(made.by_name[what]))
                continue
            if kind == "invariant":
                dtype = what.dtype if what.dtype is not None else np.asarray(what.constant).dtype
                x = np.ascontiguousarray(value_of(what), dtype)
            elif kind == "packed":
                x = np.asarray(value_of(what))
            else:
                x = given[kind, what]
            alive.append(x)
            pointers.append(address(x))
            size = x.itemsize
            strides += [s // size for s in x.strides[:count]] if count else []
        pointers = (ctypes.c_void_p * len(pointers))(*pointers)
        strides = (ctypes.c_long * len(strides))(*strides)
        run = (ctypes.c_long * 11)(
            steps, self.batch, self.chunks, self.block, made.line, self.chunk_bytes(steps), self.work_bytes,
            rounded(address(made.by_name["memory"])), rounded(address(made.by_name["work"])),
            ctypes.addressof(pointers), ctypes.addressof(strides))
        function(ctypes.addressof(run), made.threads)

    def sums(self, steps: int, buffers: Buffers, d_closed: tuple, by_step: dict) -> list:
        """The gradients of the weights: sums over time, block by block from the last."""
        made, plan = buffers.made[0], self.plan
        padded = self.chunks * self.width
        if plan.columns and padded > self.batch:
            for rows in plan.rows.values():
                for start in range(0, steps, self.block):
                    stop = min(start + self.block, steps)
                    self.block_of(made, rows, start, stop).reshape(rows.rows, stop - start, -1)[..., self.batch:] = 0
        out: list = [None if given is None else np.array(given) for given in d_closed]
        places = {a: k for k, a in enumerate(plan.closed)}
        for start in range((steps - 1) // self.block * self.block, -1, -self.block):
            stop = min(start + self.block, steps)
            shared: dict = {}
            for a, terms in plan.sums.items():
                for term in terms:
                    if term[0] == "step":
                        continue
                    summed = self.summed(made, term, start, stop, a.shape)
                    k = places[a]
                    out[k] = summed if out[k] is None else np.add(out[k], summed, out[k])
        for a, total in by_step.items():
            k = places[a]
            out[k] = total if out[k] is None else np.add(out[k], total, out[k])
        return out

    def block_of(self, made: Any, rows: Rows, start: int, stop: int) -> np.ndarray:
        """The steps from start to stop: (rows, columns)."""
        array, scale = made.by_name[rows.name], self.chunks
        if rows.across == 1:
            return array[start * scale:stop * scale].T
        return array[start // self.block][:, :(stop - start) * scale * rows.across]

    def summed(self, made: Any, term: tuple, start: int, stop: int, shape: tuple) -> np.ndarray:
        how, left, right = term
        x = self.block_of(made, left, start, stop)
        if how == "product":
            return x @ self.block_of(made, right, start, stop).T
        own = left.value.shape
        axes, lead = set(right), own[:-1]
        if own and len(own) - 1 not in axes:
            x = x.reshape(*lead, stop - start, own[-1])
            return np.add.reduce(x, axis=(len(lead), *(a for a in axes if a < len(lead)))).reshape(shape)
        x = np.add.reduce(x, axis=1)
        return np.add.reduce(x.reshape(lead), axis=tuple(a for a in axes if a < len(lead))).reshape(shape)


class Made(tuple):
    """The arrays of a set of buffers, and by name."""


class InC:
    """Run the C loops of a program, in buffers that are kept from the forward to the backward."""

    __slots__ = ("buffers", "program")

    def __init__(self, program: CProgram):
        self.program = program
        self.buffers: Buffers | None = None

    def forward(self, state: list, xs: list, closed: list) -> tuple:
        program, steps = self.program, len(xs[0])
        plan = program.plan
        self.buffers = pool.take(program.allocator, steps)
        given: dict = {}
        for k, x in enumerate(state):
            given["state", k] = flat(x, 0)
        for k, x in enumerate(xs):
            given["x", k] = flat(x, 1)
        final = [np.empty(a.shape, a.dtype) for a in plan.state]
        ys = [np.empty((steps, *y.shape), dtype_of(y)) for y in plan.y]
        given |= {("final", k): flat(x, 0) for k, x in enumerate(final)}
        given |= {("y", k): flat(y, 1) for k, y in enumerate(ys)}
        program.call("forward", steps, given, self.buffers, program.invariants(closed))
        return tuple(final), tuple(ys)

    def backward(self, d_state: tuple, d_ys: list, xs: list, closed: list, d_closed: tuple | None = None) -> tuple:
        """d_closed: gradients of later steps to add to, or None."""
        program, steps = self.program, len(xs[0])
        plan = program.plan
        given: dict = {("x", k): flat(x, 1) for k, x in enumerate(xs)}
        for k, (a, d) in enumerate(zip(plan.state, d_state)):
            given["d_final", k] = flat(np.asarray(d, a.dtype), 0)
        for k, (y, d) in enumerate(zip(plan.y, d_ys)):
            given["d_y", k] = flat(np.asarray(d, dtype_of(y)), 1)
        first = [np.empty(a.shape, a.dtype) for a in plan.state]
        d_xs = [np.empty((steps, *a.shape), a.dtype) if a in plan.gradients else None for a in plan.x]
        given |= {("d_state", k): flat(x, 0) for k, x in enumerate(first)}
        given |= {("d_x", k): flat(x, 1) for k, x in enumerate(d_xs) if x is not None}
        by_step = {a: np.zeros(a.shape, a.dtype) for a, terms in plan.sums.items()
                   if any(term[0] == "step" for term in terms) or not terms}
        given |= {("total", a): x for a, x in by_step.items()}
        program.call("backward", steps, given, self.buffers, program.invariants(closed))
        return tuple(first), tuple(d_xs), tuple(
            program.sums(steps, self.buffers, d_closed or (None,) * len(closed), by_step))

    def __del__(self) -> None:
        if self.buffers is not None:
            pool.give(self.buffers)


def dtype_of(v: Value) -> Any:
    return v.dtype if v.dtype is not None else np.asarray(v.constant).dtype


def flat(x: np.ndarray, lead: int) -> np.ndarray:
    """x as (…, rows, columns) after `lead` axes; a copy if the rows are not evenly spaced."""
    shape = x.shape[lead:]
    if len(shape) == 2:
        return x
    rows, columns = (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)
    return x.reshape(*x.shape[:lead], rows, columns)
