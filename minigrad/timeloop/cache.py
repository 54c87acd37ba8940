"""Cache of scan between calls: programs by key, and idle sets of buffers. Both are bounded.

One call at a time uses a set of buffers; its Executor holds them from the forward to the backward. The idle sets of
all programs lie in one pool, bounded in bytes; the least recently used are evicted first. Programs whose weights are
all gone share an eighth of it: a dropped model leaves little behind, and a function that makes new weights at each
call (`mg.grad`) still finds its buffers.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any

from minigrad.engine.tensor import Tensor

# Reentrant: a weight may die while this thread holds the lock, and its weak reference calls `forget`.
LOCK = threading.RLock()

VIEW = 150  # bytes of an ndarray without its data
CAPACITY = attrgetter("capacity")


class Buffers:
    """A set of arrays in which a program can run up to `capacity` steps.

    made, made_backward   arrays of the forward, and of the backward, which are made when it first runs
    nbytes                of the arrays, and of the views of each step
    """

    __slots__ = ("allocator", "capacity", "made", "made_backward", "nbytes")

    def __init__(self, allocator: Allocator, capacity: int):
        self.allocator, self.capacity = allocator, capacity
        self.made, self.made_backward = allocator.make(capacity), None
        self.nbytes = size_of(self.made)

    def for_backward(self) -> Any:
        if self.made_backward is None:
            self.made_backward = self.allocator.make_backward(self.capacity, self.made)
            self.nbytes += size_of(self.made_backward)
        return self.made_backward


def size_of(made: tuple) -> int:
    arrays, steps = made
    return sum(x.nbytes for x in arrays if x.base is None) + VIEW * sum(map(len, steps))


class Pool:
    """The idle sets of buffers of all programs, at most `limit` bytes together (settable; MINIGRAD_POOL_MB at start).

    nbytes  their size now
    """

    def __init__(self, limit: int):
        self.limit, self.nbytes, self.dropped = limit, 0, 0
        self.idle: OrderedDict[Buffers, int] = OrderedDict()  # {set: bytes}, the least recently used first

    def take(self, allocator: Allocator, steps: int) -> Buffers:
        """Return a set for this number of steps: the smallest idle set that is long enough, else a new one, which
        replaces the shorter idle sets of this program."""
        with LOCK:
            for buffers in sorted(allocator.idle, key=CAPACITY):
                if buffers.capacity >= steps and self.remove(buffers):
                    return buffers
            self.drop(allocator)
        return Buffers(allocator, rounded(steps))

    def give(self, buffers: Buffers) -> None:
        """Keep a set as idle, if its program is still in use."""
        with LOCK:
            if buffers.allocator.closed or buffers.nbytes > self.limit:
                return
            buffers.allocator.idle.append(buffers)
            self.idle[buffers] = buffers.nbytes
            self.nbytes += buffers.nbytes
            if self.nbytes > self.limit or buffers.allocator.orphaned:
                self.trim()

    def trim(self) -> None:
        """Evict the least recently used sets until both bounds hold."""
        with LOCK:
            while self.nbytes > self.limit:
                self.evict(next(iter(self.idle)))
            orphans = [buffers for buffers in list(self.idle) if buffers.allocator.orphaned]
            total = sum(buffers.nbytes for buffers in orphans)
            for buffers in orphans:
                if total > self.limit // 8:
                    total -= buffers.nbytes
                    self.evict(buffers)

    def remove(self, buffers: Buffers) -> bool:
        """Remove an idle set; return False if it is gone, as a dying weight may evict it at any time (`forget`)."""
        size = self.idle.pop(buffers, None)
        if size is None:
            return False
        self.nbytes -= size
        buffers.allocator.idle.remove(buffers)
        return True

    def drop(self, allocator: Allocator) -> None:
        """Evict all idle sets of a program."""
        with LOCK:
            for buffers in list(allocator.idle):
                self.evict(buffers)

    def evict(self, buffers: Buffers) -> None:
        """Free an idle set. From time to time, make the C library return memory to the system: it keeps freed pages
        that lie below others, 250 MB after 100 models of different sizes."""
        if self.remove(buffers):
            self.dropped += buffers.nbytes
        if self.dropped > self.limit // 4:
            self.dropped = 0
            malloc_trim(0)


# The C library would return what a step of training frees to the system, and take it anew at the next step, page by
# page, up to a fifth of the step's time (docs/performance.md). Now it keeps KEPT bytes, unless its variables are set.
KEPT, MAPPED = 64 << 20, 32 << 20  # MAPPED: bytes from which an array is mapped by itself, and always returned
OWN_VARIABLES = "MALLOC_", "GLIBC_TUNABLES"

try:
    malloc_trim, mallopt = ctypes.CDLL(None).malloc_trim, ctypes.CDLL(None).mallopt
except (AttributeError, OSError, TypeError):  # not glibc
    def malloc_trim(_: int) -> None:
        """Nothing to do."""
else:
    if not any(name.startswith(OWN_VARIABLES) for name in os.environ):
        for parameter, value in ((-1, KEPT), (-3, MAPPED)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(parameter, value)


def rounded(steps: int) -> int:
    """Round a number of steps up by at most an eighth: growing lengths then share buffers."""
    unit = 1 << max(steps.bit_length() - 4, 0)
    return -(-steps // unit) * unit


class Executor:
    """One run of a program, in buffers that are kept from its forward to its backward.

    program    has the allocator of these buffers
    segment    the backward of some steps, (d_state, d_ys, xs, closed, sums) → (d_state, d_xs, sums), where sums is what
               later steps have added up for the weights, or None; it may write into d_state
    gradients  (sums, closed) → the gradients of the weights, None where there is none
    """

    __slots__ = ("buffers", "program")

    def __init__(self, program: Any) -> None:
        self.program, self.buffers = program, None

    def backward(self, d_state: tuple, d_ys: list, xs: list, closed: list) -> tuple:
        d_state, d_xs, sums = self.segment(d_state, d_ys, xs, closed, None)
        return d_state, d_xs, self.gradients(sums, closed)

    def segment(self, d_state: tuple, d_ys: list, xs: list, closed: list, sums: Any) -> tuple:
        raise NotImplementedError

    def gradients(self, sums: Any, closed: list) -> tuple:
        return sums

    def __del__(self) -> None:
        if self.buffers is not None:
            pool.give(self.buffers)


pool = Pool(int(float(os.environ.get("MINIGRAD_POOL_MB", 256)) * 2 ** 20))


class Allocator:
    """Make the buffers of one program with its functions make(steps) and make_backward(steps, made).

    idle      its sets in the pool
    owners    weak references to the weights it ran with, by id;  orphaned: whether all of them are gone
    closed    whether the program is gone; its sets are then not kept
    """

    def __init__(self, make: Callable[[int], tuple], make_backward: Callable[[int, tuple], tuple] | None):
        self.make, self.make_backward = make, make_backward
        self.idle: list[Buffers] = []
        self.owners: dict[int, Any] = {}
        self.orphaned = self.closed = False

    def used_by(self, inputs: Iterable[Any]) -> None:
        """Note the weights among the inputs of a run: the leaf tensors."""
        for x in inputs:
            if id(x) not in self.owners and isinstance(x, Tensor) and x._op is None:
                self.owners[id(x)] = weakref.ref(x, partial(forget, weakref.ref(self), id(x)))
                self.orphaned = False

    def close(self) -> None:
        with LOCK:
            self.closed = True
            pool.drop(self)


def forget(allocator: Any, key: int, _: Any) -> None:
    """Callback of a dying weight: mark an allocator as orphaned after its last one."""
    allocator = allocator()
    if allocator is not None:
        allocator.owners.pop(key, None)
        if not allocator.owners:
            allocator.orphaned = True
            pool.trim()


class Entry:
    """A program, and the time of its last use, by the clock `uses`."""

    __slots__ = ("__weakref__", "program", "used")

    def __init__(self, program: Any):
        self.program, self.used = program, next(uses)


uses = itertools.count()

SHORTCUTS = 1024  # maximum number of them


class Programs:
    """Programs by key, at most `limit`; the least recently used is evicted first.

    shortcuts  {another key, which is found more cheaply: (weak reference to an entry, a value to keep with it)}
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.by_key: dict[Hashable, Entry] = {}
        self.shortcuts: dict[Hashable, tuple[weakref.ref[Entry], Any]] = {}

    def get(self, key: Hashable) -> Any:
        entry = self.by_key.get(key)
        if entry is None:
            return None
        entry.used = next(uses)
        return entry.program

    def put(self, key: Hashable, program: Any) -> Any:
        """Keep a program and return it, or the one that another thread kept first."""
        with LOCK:
            while len(self.by_key) >= self.limit and key not in self.by_key:
                del self.by_key[min(self.by_key, key=lambda key: self.by_key[key].used)]
            return self.by_key.setdefault(key, Entry(program)).program

    def keys_of(self, code: Any) -> list[tuple]:
        """Return the keys of the programs of one function: (…, its code, …)."""
        with LOCK:
            return [key for key in self.by_key if key[1] is code]

    def clear(self) -> None:
        with LOCK:
            self.by_key.clear()
            self.shortcuts.clear()

    def by_shortcut(self, short: Hashable) -> tuple[Any, Any] | None:
        """Return (program, the value kept with this shortcut), or None."""
        reference, value = self.shortcuts.get(short, (None, None))
        entry = reference and reference()
        if entry is None:
            return None
        entry.used = next(uses)
        return entry.program, value

    def put_shortcut(self, short: Hashable, key: Hashable, value: Any) -> None:
        with LOCK:
            if len(self.shortcuts) >= SHORTCUTS:
                self.shortcuts.clear()
            if key in self.by_key:
                self.shortcuts[short] = weakref.ref(self.by_key[key]), value

    def items(self) -> list[tuple[Any, Any]]:
        """[(key, program)], the most recently used last."""
        entries = sorted(list(self.by_key.items()), key=lambda item: item[1].used)
        return [(key, entry.program) for key, entry in entries]

    def __iter__(self) -> Iterator[Any]:
        return iter([program for _, program in self.items()])

    def __len__(self) -> int:
        return len(self.by_key)


programs = Programs(limit=128)
