"""What scan keeps from one call to the next: programs by key, and idle sets of buffers. Both are bounded.

A set of buffers belongs to one run at a time. The idle sets of all programs lie in one pool that is bounded in bytes;
the least recently used go first. Programs whose weights are all gone share an eighth of it: a dropped model leaves
little, and a function that makes its weights anew at each call (`mg.grad`) still finds its buffers.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any

from minigrad.engine.tensor import Tensor

# Reentrant: a weight that dies while this thread is in here calls back.
LOCK = threading.RLock()

VIEW = 150  # bytes of a view: an ndarray without its data


class Buffers:
    """A set of arrays in which a program can run up to `capacity` steps. Those of the backward are made when it first
    runs. nbytes: of the arrays, and of the views of each step."""

    __slots__ = ("capacity", "made", "made_backward", "nbytes", "source")

    def __init__(self, source: Source, capacity: int):
        self.source, self.capacity = source, capacity
        self.made, self.made_backward = source.make(capacity), None
        self.nbytes = size_of(self.made)

    def for_backward(self) -> Any:
        if self.made_backward is None:
            self.made_backward = self.source.make_backward(self.capacity, self.made)
            self.nbytes += size_of(self.made_backward)
        return self.made_backward


def size_of(made: tuple) -> int:
    arrays, steps = made
    return sum(x.nbytes for x in arrays if x.base is None) + VIEW * sum(map(len, steps))


class Pool:
    """The idle sets of buffers of all programs, at most `limit` bytes together (settable; MINIGRAD_POOL_MB at start).

    nbytes  what they take now
    """

    def __init__(self, limit: int):
        self.limit, self.nbytes, self.dropped = limit, 0, 0
        self.idle: OrderedDict[Buffers, int] = OrderedDict()  # with their bytes, the least recently used first

    def take(self, source: Source, steps: int) -> Buffers:
        """A set for a run of this many steps: the smallest idle one that is long enough. If there is none, a new one
        that replaces the shorter idle sets of this program."""
        with LOCK:
            for buffers in sorted(source.idle, key=attrgetter("capacity")):
                if buffers.capacity >= steps and self.remove(buffers):
                    return buffers
            self.drop(source)
        return Buffers(source, rounded(steps))

    def give(self, buffers: Buffers) -> None:
        """Take a set back, of a program that is still in use."""
        with LOCK:
            if buffers.source.closed or buffers.nbytes > self.limit:
                return
            buffers.source.idle.append(buffers)
            self.idle[buffers] = buffers.nbytes
            self.nbytes += buffers.nbytes
            self.trim()

    def trim(self) -> None:
        """Let the least recently used sets go until both bounds hold."""
        with LOCK:
            while self.nbytes > self.limit:
                self.let_go(next(iter(self.idle)))
            orphans = [buffers for buffers in list(self.idle) if buffers.source.orphaned]
            total = sum(buffers.nbytes for buffers in orphans)
            for buffers in orphans:
                if total > self.limit // 8:
                    total -= buffers.nbytes
                    self.let_go(buffers)

    def remove(self, buffers: Buffers) -> bool:
        """Whether the set was still idle: a weight that dies at any time may have had it dropped (`forget`)."""
        size = self.idle.pop(buffers, None)
        if size is None:
            return False
        self.nbytes -= size
        buffers.source.idle.remove(buffers)
        return True

    def drop(self, source: Source) -> None:
        """Forget the idle sets of a program."""
        with LOCK:
            for buffers in list(source.idle):
                self.let_go(buffers)

    def let_go(self, buffers: Buffers) -> None:
        """Remove a set for good. From time to time, have the C library give the memory back to the system: it keeps
        freed pages that lie below others, which after 100 models of different sizes was 250 MB."""
        if self.remove(buffers):
            self.dropped += buffers.nbytes
        if self.dropped > self.limit // 4:
            self.dropped = 0
            malloc_trim(0)


try:
    malloc_trim = ctypes.CDLL(None).malloc_trim
except (AttributeError, OSError, TypeError):  # not glibc
    def malloc_trim(_: int) -> None:
        """Nothing to do."""


def rounded(steps: int) -> int:
    """A number of steps, rounded up by at most an eighth, so that growing lengths do not each need new buffers."""
    unit = 1 << max(steps.bit_length() - 4, 0)
    return -(-steps // unit) * unit


pool = Pool(int(float(os.environ.get("MINIGRAD_POOL_MB", 256)) * 2 ** 20))


class Source:
    """What makes the buffers of one program, by its functions make(steps) and make_backward(steps, made).

    orphaned  whether all weights that it ran with are gone
    closed    whether the program is gone: then no set is kept
    """

    def __init__(self, make: Callable[[int], tuple], make_backward: Callable[[int, tuple], tuple] | None):
        self.make, self.make_backward = make, make_backward
        self.idle: list[Buffers] = []
        self.owners: dict[int, Any] = {}
        self.orphaned = self.closed = False

    def used_by(self, inputs: Iterable[Any]) -> None:
        """Note the weights, which are leaf tensors, among the inputs of a run."""
        for x in inputs:
            if isinstance(x, Tensor) and x._op is None and id(x) not in self.owners:
                self.owners[id(x)] = weakref.ref(x, partial(forget, weakref.ref(self), id(x)))
                self.orphaned = False

    def close(self) -> None:
        with LOCK:
            self.closed = True
            pool.drop(self)


def forget(source: Any, key: int, _: Any) -> None:
    """Called as a weight dies."""
    source = source()
    if source is not None:
        source.owners.pop(key, None)
        if not source.owners:
            source.orphaned = True
            pool.trim()


class Programs:
    """Programs by key, at most `limit`; the least recently used goes first."""

    def __init__(self, limit: int):
        self.limit = limit
        self.by_key: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        with LOCK:
            program = self.by_key.get(key)
            if program is not None:
                self.by_key.move_to_end(key)
            return program

    def put(self, key: Hashable, program: Any) -> Any:
        """Keep a program, unless another thread was first: returns the one that is kept."""
        with LOCK:
            while len(self.by_key) >= self.limit and key not in self.by_key:
                self.by_key.popitem(last=False)
            return self.by_key.setdefault(key, program)

    def keys_of(self, code: Any) -> list[tuple]:
        """The keys of the programs of one function: (…, its code, …)."""
        with LOCK:
            return [key for key in self.by_key if key[1] is code]

    def clear(self) -> None:
        with LOCK:
            self.by_key.clear()

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.by_key.values()))

    def __len__(self) -> int:
        return len(self.by_key)


programs = Programs(limit=128)
