"""Chapter 8: memory, time and windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.exercises.exercise import differs, exercise


@exercise("8.1", "Every which step?", """
k = 100        # ←
states = 200   # ←
""", why="""
T/k + k is least where both are equal: k = √T. 200 numbers in place of 10 000, for one more forward.
""")
def every_which(my: Any) -> Iterator[str]:
    """A sequence has T = 10 000 steps. Keep every k-th state, T/k of them, and recompute the k steps between two of
    them when the backward needs them. For which k are the fewest states kept at once, T/k + k, and how many are these?
    """
    yield from differs("k", my.k, 100)
    yield from differs("states", my.states, 200)


@exercise("8.2", "Checkpoints", """
def gradient(forward, backward, state, xs, d_state, k):
    kept, d_w = [], 0.0
    for t, x in enumerate(xs):                             # ←
        if t % k == 0:                                     # ←
            kept.append(state)                             # ←
        state, _ = forward(state, x)                       # ←
    for start in reversed(range(0, len(xs), k)):           # ←
        state, caches = kept.pop(), []                     # ←
        for x in xs[start:start + k]:                      # ←
            state, cache = forward(state, x)               # ←
            caches.append(cache)                           # ←
        for cache in reversed(caches):                     # ←
            d_state, d_w_of_step = backward(d_state, cache)  # ←
            d_w = d_w + d_w_of_step                        # ←
    return d_w
""", why="""
Each step runs forward twice, and at most k caches exist at once. `mg.scan(…, checkpoint_every=k)` does it for any cell.
""")
def checkpoints(my: Any) -> Iterator[str]:
    """Write the backward through time with checkpoints. `forward(state, x)` returns (new state, cache),
    `backward(d_state, cache)` returns (the gradient of the state before, the part of d_w of this step), and d_state is
    the gradient of the last state. Never have more than about k caches at once, and run each step forward at most
    twice. The last piece may be shorter than k.
    """
    w, xs, steps = 0.9, np.random.default_rng(0).normal(size=22), Steps(0.9)
    found = my.gradient(steps.forward, steps.backward, 0.0, list(xs), 1.0, 5)
    states = [0.0]
    for x in xs:
        states.append(np.tanh(w * states[-1] + x))
    right, d = 0.0, 1.0
    for before, after in zip(states[-2::-1], states[::-1]):
        d_z = d * (1 - after ** 2)
        right, d = right + d_z * before, d_z * w
    yield from differs("the gradient", found, right)
    if steps.most > 5 + 2:
        yield f"with k = 5, {steps.most} caches are kept at once: drop those of a piece before the next one is computed"
    if steps.forwards > 2 * len(xs):
        yield f"the forward ran {steps.forwards} times for {len(xs)} steps: twice for each is enough"


class Steps:
    """s ← tanh(w s + x), forward and backward; counts the forwards, and the caches that exist at once."""

    def __init__(self, w: float):
        self.w, self.forwards, self.alive, self.most = w, 0, 0, 0

    def forward(self, s: float, x: float) -> tuple[float, Any]:
        s_next = np.tanh(self.w * s + x)
        self.forwards += 1
        return s_next, Cache(self, s, s_next)

    def backward(self, d_s: float, cache: Any) -> tuple[float, float]:
        d_z = d_s * (1 - cache.s_next ** 2)
        return d_z * self.w, d_z * cache.s


class Cache:
    """What one step keeps; tells its owner when it comes and goes."""

    def __init__(self, owner: Steps, s: float, s_next: float):
        self.owner, self.s, self.s_next = owner, s, s_next
        owner.alive += 1
        owner.most = max(owner.most, owner.alive)

    def __del__(self) -> None:
        self.owner.alive -= 1


@exercise("8.3", "Windows", """
def windows(T, k1, k2):
    return [(max(0, end - k2), end) for end in range(k1, T + 1, k1)]  # ←
""", why="""
With k1 = k2 each step belongs to one window, and its loss is sent back anything between 1 and k2 steps. With k1 < k2
windows overlap. That costs more, and the first steps of a window can look back too.
""")
def windows(my: Any) -> Iterator[str]:
    """Truncated BPTT runs a backward after every k1 steps, over the last k2 steps (fewer at the beginning). List these
    windows for a sequence of T steps as (first step, one past the last step); T is a multiple of k1.
    """
    for T, k1, k2 in ((12, 3, 3), (12, 3, 6), (4, 1, 2), (10, 5, 20)):
        right = [(max(0, end - k2), end) for end in range(k1, T + 1, k1)]
        found = [tuple(map(int, pair)) for pair in my.windows(T, k1, k2)]
        if found != right:
            yield f"windows({T}, {k1}, {k2}) is {found}, and that is not right: there are {len(right)} windows"


@exercise("8.4", "Teacher forcing", """
import numpy as np


def inputs(targets, start):
    return np.concatenate([np.full((1, *targets.shape[1:]), start), targets[:-1]])  # ←
""", why="""
At step t the network reads what *should* have come at step t − 1. When it runs by itself it reads its own output there,
mistakes included, which it has never seen in training.
""")
def teacher_forcing(my: Any) -> Iterator[str]:
    """A network is trained to say the next symbol: targets (T, B) are whole numbers. With teacher forcing its input is
    the right symbol of the step before, and `start` at the first step. Return the inputs (T, B).
    """
    targets = np.random.default_rng(0).integers(0, 9, (6, 3))
    found = np.asarray(my.inputs(targets.copy(), 9))
    if found.shape == targets.shape and (found == targets).all():
        yield "these inputs contain the answer: at step t the network reads the target of step t − 1"
    yield from differs("inputs(targets, 9)", found, np.concatenate([np.full((1, 3), 9), targets[:-1]]))
