"""Sequences of your own: padded, in batches, split, and as a task that `Trainer` takes like the built-in ones."""

from minigrad.data.examples import batches, split
from minigrad.data.reading import encode, pad
from minigrad.data.sequences import Sequences

__all__ = ["Sequences", "batches", "encode", "pad", "split"]
