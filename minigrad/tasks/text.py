"""Text as a sequence problem: characters as numbers, parallel streams for truncated backpropagation, and what the
simplest models make of the same text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HELD_OUT = 0.1  # the last part of a text is for measuring
SHORTEST = 20  # characters; below that there is nothing to hold out


@dataclass
class Text:
    """A text as numbers: `train` and `held_out` are arrays of positions in `characters`, which are sorted."""

    source: str
    characters: str
    train: np.ndarray
    held_out: np.ndarray

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def decode(self, codes: np.ndarray) -> str:
        return "".join(self.characters[code] for code in codes)


def read_text(file: str | Path | None = None) -> Text:
    """The text of a UTF-8 file, or, without one, of the language reference that Python brings along.

    Raises ValueError with a sentence when the file is missing, unreadable, not UTF-8, or too short.
    """
    if file is None:
        from pydoc_data.topics import topics
        return split_text("".join(topics.values()), "pydoc_data.topics, Python's language reference")
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{file} is not UTF-8 text (byte {problem.start}): convert it, as with iconv") from None
    except OSError as problem:
        raise ValueError(f"{file} cannot be read: {problem.strerror or problem}") from None
    return split_text(text, str(file))


def split_text(text: str, source: str) -> Text:
    """Number the characters of a text and hold out its end. Raises ValueError when it is too short."""
    if len(text) < SHORTEST:
        raise ValueError(f"{source} has {len(text)} characters: at least {SHORTEST} are needed to train and to measure")
    characters, codes = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
    cut = len(codes) - max(2, round(HELD_OUT * len(codes)))
    return Text(source, "".join(map(chr, characters)), codes[:cut], codes[cut:])


def streams(codes: np.ndarray, batch: int, length: int) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Windows for truncated backpropagation, without end: (inputs, targets, first), both (length, batch).

    The text is laid in `batch` parallel streams, and window follows window, so that a state can be carried on; `first`
    says that the streams begin anew. Both sizes are made smaller for a text that is shorter than that.
    """
    batch = max(1, min(batch, (len(codes) - 1) // 2))
    steps = (len(codes) - 1) // batch
    length = min(length, steps)
    inputs = codes[:steps * batch].reshape(batch, steps).T
    targets = codes[1:steps * batch + 1].reshape(batch, steps).T
    while True:
        for start in range(0, steps - length + 1, length):
            yield inputs[start:start + length], targets[start:start + length], start == 0


def unigram_bits(text: Text) -> float:
    """Bits per held-out character when each is guessed from how often it stands in the training text (one added)."""
    return float(-np.mean(np.log2(unigram(text)[text.held_out])))


def unigram(text: Text) -> np.ndarray:
    counts = np.bincount(text.train, minlength=len(text.characters)) + 1.0
    return counts / counts.sum()


def bigram_bits(text: Text) -> float:
    """Bits per held-out character when each is guessed from the one before it: how often it followed in the training
    text, with the unigram counted as one more occurrence."""
    n = len(text.characters)
    pairs = np.bincount(text.train[:-1] * n + text.train[1:], minlength=n * n).reshape(n, n)
    p = (pairs + unigram(text)) / (pairs.sum(axis=1, keepdims=True) + 1.0)
    before = np.concatenate([text.train[-1:], text.held_out[:-1]])
    return float(-np.mean(np.log2(p[before, text.held_out])))
