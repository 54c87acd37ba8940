"""The C loops of a program as an executor of scan: arrays in and out, buffers, and sums over time.

One call of a C function runs all steps; ctypes gives the interpreter lock up for it. The backward also multiplies the
rows that the loops lay down into the gradients of the weights. Where these sums are not plain NumPy does, after each
few steps.
"""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from typing import Any

import numpy as np

from minigrad.engine.ops import index_add
from minigrad.printers.c_loop import CPlan, Loop, Rows
from minigrad.printers.c_products import BEHIND, panel_entries, taken
from minigrad.printers.c_schedule import dtype_of
from minigrad.printers.c_threads import THREADS
from minigrad.program.ir import Value
from minigrad.timeloop.cache import Allocator, Executor, pool
from minigrad.timeloop.compile import compiler
from minigrad.timeloop.compile import threads as blas_threads

LINE = 64  # bytes of a line of the cache
SUMMED = 512, 1024  # columns that a product of a sum over time has at least, and at most
ROWS_BYTES = 1 << 20  # of what one call of the backward lays down for sums, so that it is still in the cache for them


class Call:
    """One loop of a program: its C function, and which arrays it takes.

    given    [(kind, what)] of the arrays that come in or go out, each with rows and columns as its last two axes
    checked  [(index in `given`, number of axes)] of those of the caller, and of those that have other axes
    weights  [(index in `closed`, dtype)] of weights;  before: [(Value, dtype)] of what is computed from them
    own      [name of rows, or Value] of arrays of the buffers
    order    for each array that C takes, its index in [*given, *weights, *before, *own]
    """

    def __init__(self, loop: Loop, library: Any, given: list[tuple], plan: CPlan):
        self.function = getattr(library, loop.name)
        self.function.argtypes, self.function.restype = [ctypes.c_void_p, ctypes.c_long], None
        typed = [(kind, what) for kind, what, *_ in loop.typed]
        values = {"x": plan.x, "d_x": plan.x, "y": plan.y, "d_y": plan.y}
        self.checked = [(n, 2 + (kind in values)) for n, (kind, k) in enumerate(given)
                        if kind != "total" and (kind, k) in typed
                        and (kind in ("state", "x", "d_y") or len(values.get(kind, plan.state)[k].shape) != 2)]
        weights = [("invariant", a) for a in plan.closed if ("invariant", a) in typed]
        before = [of for of in typed if of[0] == "invariant" and of not in weights]
        own = [of for of in typed if of[0] in ("rows", "panels")]
        self.weights = [(plan.closed.index(a), dtype_of(a)) for _, a in weights]
        self.before = [(value, dtype_of(value)) for _, value in before]
        self.own = [what.name if kind == "rows" else what for kind, what in own]
        self.order = list(map([*given, *weights, *before, *own].index, typed))
        self.pack = struct.Struct(f"{len(typed)}P").pack_into


class Made(tuple):
    """The arrays of a set of buffers.

    by_name   {name of rows, or matrix: its array};  line: entries of a line of the rows
    threads   that run it
    calls     {loop: (its own arrays, addresses of all arrays, run, address of run)}, the last three as C reads them
    """

    by_name: dict
    line: int
    threads: int
    calls: dict


class CProgram:
    """The compiled C of a plan.

    allocator  makes its buffers
    block      number of steps that are summed at once;  at_once: that the backward runs before they are
    totals     [(weight, or stand-in for a part of its gradient, np.empty or np.zeros, shape, dtype)] that C adds up
    """

    def __init__(self, plan: CPlan, library: Any, block: int):
        self.plan, self.library = plan, library
        self.in_numpy = {a: later for a, terms in plan.sums.items() if a not in plan.summed
                         if (later := [term for term in terms if term[0] != "step"])}
        by_c = [a for a, terms in plan.sums.items() if self.in_numpy.get(a) != terms]
        self.totals = [(a, np.empty if a in plan.summed else np.zeros, a.shape, a.dtype) for a in by_c]
        self.final = [(a.shape, a.dtype) for a in plan.state]
        self.y = [(y.shape, dtype_of(y)) for y in plan.y]
        self.indices = [(plan.x.index(a), length) for a, length in plan.looked_up.items()]
        self.d_x = [(a.shape, a.dtype) if a in plan.gradients else None for a in plan.x]
        state, x, y = range(len(plan.state)), range(len(plan.x)), range(len(plan.y))
        forward = [("state", k) for k in state] + [("x", k) for k in x] + [("final", k) for k in state] + \
            [("y", k) for k in y]
        backward = [("x", k) for k in x] + [("d_y", k) for k in y] + [("d_x", k) for k in x] + \
            [("total", a) for a in by_c] + [("d_state", k) for k in state]
        self.calls = {loop.name: Call(loop, library, given, plan) for loop, given in (
            (plan.forward, forward), (plan.backward, backward)) if loop is not None}
        self.batch = plan.state[0].shape[-1] if plan.columns else 1
        self.chunks = -(-self.batch // plan.filled) if plan.columns else 1
        self.block = block
        if self.batch >= 16:
            fitting = ROWS_BYTES // max(self.bytes_laid_down(), 1) * self.batch
            self.block = max(block, -(-min(max(fitting, SUMMED[0]), SUMMED[1]) // self.batch))
        self.work_bytes = max(loop.work for loop in (plan.forward, plan.backward) if loop is not None)
        self.across = max(map(self.entries, plan.rows.values()), default=1)
        self.at_once = self.block * max(1, ROWS_BYTES // (self.block * max(self.bytes_laid_down(), 1)))
        self.allocator = Allocator(self.make, lambda steps, made: ((), ()))

    def bytes_laid_down(self) -> int:
        """By the backward, for sums, at each step."""
        return sum(rows.rows * self.entries(rows) * rows.value.dtype.itemsize
                   for rows in self.plan.rows.values() if rows.backward)

    def entries(self, rows: Rows) -> int:
        """The entries that one step lays down in a row."""
        return self.batch if self.plan.columns else rows.across

    def chunk_bytes(self, steps: int) -> int:
        return sum(taken((steps + extra) * entries * np.dtype(dtype).itemsize)
                   for entries, extra, dtype in self.plan.stacks.values())

    def make(self, steps: int) -> tuple:
        """A set of buffers for so many steps."""
        threads = blas_threads()
        threads, share = (threads, address) if threads > 1 and (address := pool_of_threads()) else (1, 0)
        memory = at_a_line((self.chunks * self.chunk_bytes(steps),), np.uint8)
        work = at_a_line((min(threads, self.chunks) * self.work_bytes,), np.uint8)
        line = 16 * (-(-min(steps, self.block) * self.across // 16) | 1)  # odd: one column of all rows lies in all sets
        by_name: dict = {}
        for rows in self.plan.rows.values():
            laid_down = min(steps, self.at_once) if rows.backward else steps
            shape = (-(-laid_down // self.block), rows.rows, line) if rows.in_lines else \
                (laid_down * self.entries(rows), rows.rows)
            by_name[rows.name] = at_a_line(shape, rows.value.dtype, BEHIND)  # no two threads write into one line
        for call in self.calls.values():
            for what in call.own:
                if isinstance(what, Value):
                    by_name[what] = at_a_line((panel_entries(*what.shape),), what.dtype)
        made = Made(x.base for x in (memory, work, *by_name.values()))
        made.by_name, made.line, made.threads, made.calls = by_name, line, threads, {}
        for name, call in self.calls.items():
            arrays = (ctypes.c_void_p * len(call.order))()
            run = (ctypes.c_long * 15)(0, 0, 0, 0, self.batch, self.chunks, self.block, line, self.at_once, 0,
                                       self.work_bytes, memory.ctypes.data, work.ctypes.data,
                                       ctypes.addressof(arrays), share)
            made.calls[name] = [by_name[what] for what in call.own], arrays, run, ctypes.addressof(run)
        return made, ()

    def call(self, name: str, steps: int, first: int, last: int, given: list, closed: list, made: Made,
             fresh: bool = True) -> None:
        """Run a loop over the steps from first to last. given: the arrays that come in or go out; fresh: whether sums
        over time begin with the last step."""
        call, (own, arrays, run, where) = self.calls[name], made.calls[name]
        for n, axes in call.checked:
            x = given[n]
            if x.ndim != axes or not x.flags.aligned:
                given[n] = reshaped(x, axes - 2)
        alive = [*given]  # what C reads must not be freed before it returns
        for n, dtype in call.weights:
            alive.append(np.ascontiguousarray(closed[n], dtype))
        known: dict = dict(zip(self.plan.closed, closed)) if call.before else {}
        for value, dtype in call.before:
            alive.append(np.ascontiguousarray(value_of(value, known), dtype))
        alive += own
        call.pack(arrays, 0, *map(id, map(alive.__getitem__, call.order)))
        if run[0] != steps:
            run[0], run[9] = steps, self.chunk_bytes(steps)
        run[1], run[2], run[3] = first, last, fresh
        call.function(where, made.threads)

    # -- sums over time -------------------------------------------------------------------------------------------

    def add_sums(self, first: int, last: int, made: Made, totals: dict) -> None:
        """Add the sums of NumPy over the steps from first to last, block by block from the last."""
        for start in range(first + (last - first - 1) // self.block * self.block, first - 1, -self.block):
            stop = min(start + self.block, last)
            blocks = {rows: self.block_of(made, rows, start - first * rows.backward, stop - first * rows.backward)
                      for rows in self.plan.rows.values()}
            for a, terms in self.in_numpy.items():
                for term in terms:
                    summed = summed_over(term, blocks, stop - start, a.shape)
                    totals[a] = np.add(totals[a], summed, totals[a]) if a in totals else summed

    def block_of(self, made: Made, rows: Rows, start: int, stop: int) -> np.ndarray:
        """The steps from start to stop: (rows, columns)."""
        array = made.by_name[rows.name]
        entries = self.entries(rows)
        if rows.in_lines:
            return array[start // self.block][:, :(stop - start) * entries]
        return array[start * entries:stop * entries].T


def linear(parts: list, shape: tuple, totals: dict, known: dict) -> np.ndarray:
    """The sum of the parts of a gradient (CPlan.parted)."""
    def value(part: Any) -> np.ndarray:
        if isinstance(part, Value):
            return totals[part]
        v, of = part
        return value_of(v, known) if of is None else \
            v.op.forward(*(linear(parts, a.shape, totals, known) for a, parts in zip(v.inputs, of)), **v.metadata)
    return np.asarray(functools.reduce(np.add, map(value, parts))).reshape(shape)


def summed_over(term: tuple, blocks: dict, steps: int, shape: tuple) -> np.ndarray:
    """One term of a gradient, summed over a block of steps."""
    how, left, right = term
    x = blocks[left]
    if how == "at":
        return index_add(x, blocks[right].reshape(-1), length=shape[-1], axis=1)
    if how == "product":
        return (x @ blocks[right].T).reshape(shape)  # np.dot would copy rows with a gap between them
    own, lead = left.value.shape, left.value.shape[:-1]
    axes = [a for a in right if a < len(lead)]
    if own and len(lead) not in right:
        summed = np.add.reduce(x.reshape(*lead, steps, own[-1]), axis=(len(lead), *axes))
    else:
        summed = x @ np.ones(x.shape[1], x.dtype)  # by BLAS, a third of the time of np.add.reduce
        if axes:
            summed = np.add.reduce(summed.reshape(lead), axis=tuple(axes))
    return np.asarray(summed).reshape(shape)


class InC(Executor):
    """Run the C loops of a program."""

    __slots__ = ()

    def forward(self, state: list, xs: list, closed: list) -> tuple:
        program, steps = self.program, len(xs[0])
        self.buffers = pool.take(program.allocator, steps)
        xs = self.with_indices(xs) if program.indices else xs
        final = [np.empty(shape, dtype) for shape, dtype in program.final]
        ys = [np.empty((steps, *shape), dtype) for shape, dtype in program.y]
        program.call("forward", steps, 0, steps, [*state, *xs, *final, *ys], closed, self.buffers.made[0])
        return tuple(final), tuple(ys)

    def with_indices(self, xs: list) -> list:
        """The xs, in which those that are indices count from the first entry. Raises IndexError as NumPy does."""
        xs = list(xs)
        for k, length in self.program.indices:
            least, most = xs[k].min(initial=0), xs[k].max(initial=0)
            if least < -length or most >= length:
                raise IndexError(f"index {most if most >= length else least} is out of bounds for axis 1 with size "
                                 f"{length}")
            xs[k] = np.where(xs[k] < 0, xs[k] + length, xs[k]) if least < 0 else xs[k]
        return xs

    def segment(self, d_state: list, d_ys: list, xs: list, closed: list, totals: dict | None) -> tuple:
        program, steps, made = self.program, len(xs[0]), self.buffers.made[0]
        d_xs = tuple([None if kind is None else np.empty((steps, *kind[0]), kind[1]) for kind in program.d_x])
        fresh = totals is None
        if totals is None:
            totals = {a: new(shape, dtype) for a, new, shape, dtype in program.totals}
        arrays = [*xs, *d_ys, *d_xs, *[totals[a] for a, *_ in program.totals], *d_state]
        if not program.in_numpy:
            program.call("backward", steps, 0, steps, arrays, closed, made, fresh)
        else:
            for first in range((steps - 1) // program.at_once * program.at_once, -1, -program.at_once):
                last = min(first + program.at_once, steps)
                program.call("backward", steps, first, last, arrays, closed, made, fresh)
                program.add_sums(first, last, made, totals)
        return d_state, d_xs, totals

    def gradients(self, totals: dict, closed: list) -> tuple:
        plan = self.program.plan
        if not plan.parted:
            return tuple(map(totals.get, plan.closed))
        known = dict(zip(plan.closed, closed))
        return tuple([linear(plan.parted[a], a.shape, totals, known) if a in plan.parted else totals.get(a)
                      for a in plan.closed])


def pool_of_threads() -> int:
    """The address of the function that shares tasks out to threads; 0 if it cannot be compiled."""
    library = compiler.load(THREADS)
    return (library and ctypes.cast(library.pool, ctypes.c_void_p).value) or 0


def reshaped(x: np.ndarray, lead: int) -> np.ndarray:
    """x as so many leading axes, rows and columns; a copy where rows are not evenly spaced or entries not aligned."""
    x = x if x.flags.aligned else x.copy()
    shape = x.shape[lead:]
    rows, columns = (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)
    return x.reshape(*x.shape[:lead], rows, columns)


def value_of(value: Value, known: dict) -> Any:
    """The array of a value that is the same at every step."""
    if value not in known:
        known[value] = value.constant if value.is_constant else \
            value.op.forward(*(value_of(a, known) for a in value.inputs), **value.metadata)
    return known[value]


def at_a_line(shape: tuple, dtype: Any, behind: int = 0) -> np.ndarray:
    """An empty array that begins with a line of the cache, with so many bytes behind it: a view of its base."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    base = np.empty(count + LINE + behind, np.uint8)
    start = -base.ctypes.data % LINE
    return base[start:start + count].view(dtype).reshape(shape)
