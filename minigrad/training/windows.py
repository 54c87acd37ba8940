"""Truncated backpropagation through time: split a batch into windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.tasks.task import Batch, length_mask


@dataclass
class Window:
    """Consecutive steps of a batch, for one optimiser step; the first four fields are those of `Batch`.

    first    whether sequences begin here: one bool, or (B,) of them; otherwise the state is carried over
    advance  number of steps to the start of the next window
    """

    x: np.ndarray
    targets: np.ndarray
    mask: np.ndarray | None
    lengths: np.ndarray | None
    first: Any
    advance: int

    @property
    def has_targets(self) -> bool:
        """Whether any target counts."""
        return self.mask is None or bool(self.mask.any())


def split_windows(batch: Batch, k1: int | None = None, k2: int | None = None) -> Iterator[Window]:
    """Yield windows of k2 steps, each k1 steps after the one before; without k1 and k2, the whole batch.

    Each target counts only in the first window that contains it.
    """
    T, mask, lengths = len(batch.x), batch.mask, batch.lengths
    k1, k2 = k1 or T, k2 or T
    if mask is None and lengths is not None:
        mask = length_mask(lengths, T)
    for start in range(0, max(1, T - (k2 - k1)), k1):
        steps = slice(start, min(start + k2, T))
        size = steps.stop - start
        asked = None if mask is None else mask[steps]
        if start and k1 < k2:
            seen = np.arange(size)[:, None] < k2 - k1
            asked = ~seen & (np.ones(batch.x.shape[1], bool) if asked is None else asked)
        yield Window(batch.x[steps], batch.targets[steps], asked,
                     None if lengths is None else np.clip(lengths - start, 1, size),
                     batch.first if start == 0 else False, size if steps.stop == T else k1)


def parse_bptt(bptt: int | tuple[int, int] | None) -> tuple[int | None, int | None]:
    """(k1, k2) of a bptt setting. Raises ValueError unless 1 ≤ k1 ≤ k2."""
    k1, k2 = bptt if isinstance(bptt, (tuple, list)) else (bptt, bptt)
    if bptt is not None and not 1 <= k1 <= k2:
        raise ValueError(f"bptt is (k1, k2), windows of k2 steps that advance by k1, 1 ≤ k1 ≤ k2, not {bptt}")
    return k1, k2
