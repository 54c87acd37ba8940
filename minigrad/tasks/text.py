"""Text as a task: characters as numbers in parallel streams for truncated backpropagation, and unigram and bigram
baselines.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minigrad.engine.ops import log_softmax
from minigrad.tasks.task import Batch, Task, lstm_recipe

HELD_OUT = 0.1  # fraction at the end of a text that is used only for measuring
SHORTEST = 20  # minimum number of characters


@dataclass(frozen=True)
class Text(Task):
    """The next character of a text: a UTF-8 file, or the language reference that comes with Python.

    file   the file; without file and `text`, Python's language reference, about 500 000 characters, or if that is not
           installed, NumPy's docstrings, about 1 000 000
    text   the text itself, instead of a file

    `characters` are the distinct characters, sorted; `train` and `held_out`, the first nine tenths and the rest, are
    arrays of positions in it; `source` describes the origin. A batch is all of `train` in `size` parallel streams
    x (T, B), T = (len(train) − 1) // B; each stream continues where the one before it ends. Targets (T, B) are the
    characters after those of x. Train on it in windows, carrying the state from one to the next.

    Metric: bits per character on the held-out part, in up to 64 streams. The baseline is `bigram_bits`, from how often
    a character followed the one before it in the training text. Solved below that.

    Published: char-rnn, from which the problem comes, names no figure for its defaults.

    Raises ValueError if the file is missing, unreadable or not UTF-8, or the text has less than 20 characters.
    """

    file: str | Path | None = None
    text: str | None = field(default=None, repr=False)

    name = "text"
    about = "A step reads a character and is asked for the next one."
    symbols, loss = True, "cross_entropy"
    metric_name, higher_is_better = "bits per character", False
    recipe = lstm_recipe(hidden=160, embedding=64, batch=32, bptt=32, steps=1200, lr=0.01, schedule="cosine",
                  validate_every=None, until_solved=False)

    def __post_init__(self) -> None:
        text, source = self.read()
        if not isinstance(text, str):
            raise ValueError(f"a text is a str, not {type(text).__name__}: decode it first")
        if len(text) < SHORTEST:
            raise ValueError(f"{source} has {len(text)} characters: at least {SHORTEST} are needed to train and to "
                             "measure")
        characters, codes = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
        cut = len(codes) - max(2, round(HELD_OUT * len(codes)))
        for name, value in (("source", source), ("characters", "".join(map(chr, characters))), ("train", codes[:cut]),
                            ("held_out", codes[cut:])):
            object.__setattr__(self, name, value)

    def read(self) -> tuple[str, str]:
        """(text, description of its source)."""
        if self.text is not None:
            if self.file is not None:
                raise ValueError(f"both a text and the file {self.file} are given: give one of them")
            return self.text, "the text"
        if self.file is None:
            return reference()
        try:
            return Path(self.file).read_text(encoding="utf-8-sig"), str(self.file)
        except UnicodeDecodeError as problem:
            raise ValueError(f"{self.file} is not UTF-8 text (byte {problem.start}): convert it, as with iconv"
                             ) from None
        except OSError as problem:
            raise ValueError(f"{self.file} cannot be read: {problem.strerror or problem}") from None

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)

    def decode(self, codes: np.ndarray) -> str:
        return "".join(self.characters[code] for code in codes)

    @property
    def inputs(self) -> int:
        return len(self.characters)

    outputs = inputs

    @property
    def names(self) -> tuple[str, str]:
        return self.characters, self.characters

    @property
    def baseline(self) -> float:
        return bigram_bits(self)

    goal = baseline

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the text: of its characters and their numbers."""
        codes = np.concatenate([self.train, self.held_out])
        return hashlib.sha256(self.characters.encode() + codes.tobytes()).hexdigest()

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        return parallel_streams(self.train, size)

    def test(self, rng: np.random.Generator | int) -> Batch:
        return parallel_streams(self.held_out, min(64, max(1, len(self.held_out) // 500)))

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        log_p = np.take_along_axis(log_softmax(outputs), batch.targets[:, :, None], axis=-1)
        return -np.mean(log_p, dtype=float) / np.log(2)


def reference() -> tuple[str, str]:
    """(text, description): Python's language reference, or NumPy's docstrings in a Python without it."""
    try:
        from pydoc_data.topics import topics
        return "".join(topics.values()), "pydoc_data.topics, Python's language reference"
    except ImportError:  # some distributions of Python omit it
        docs = [getattr(np, name).__doc__ for name in sorted(np.__all__)]
        text = "".join(dict.fromkeys(doc for doc in docs if isinstance(doc, str)))
        if len(text) < 100_000:
            raise ValueError("this Python has no pydoc_data, and its NumPy no docstrings: give a text, for example "
                             "with --text FILE") from None
        return text, f"the docstrings of NumPy {np.__version__}, as this Python has no pydoc_data"


def parallel_streams(codes: np.ndarray, size: int) -> Batch:
    """Split a text into `size` parallel streams (T, B), fewer if it is too short for two characters each."""
    size = max(1, min(size, (len(codes) - 1) // 2))
    steps = (len(codes) - 1) // size
    return Batch(codes[:steps * size].reshape(size, steps).T, codes[1:steps * size + 1].reshape(size, steps).T)


def unigram_bits(text: Text) -> float:
    """Bits per held-out character, guessed from its count in the training text plus one."""
    return float(-np.mean(np.log2(unigram(text)[text.held_out])))


def unigram(text: Text) -> np.ndarray:
    counts = np.bincount(text.train, minlength=len(text.characters)) + 1.0
    return counts / counts.sum()


def bigram_bits(text: Text) -> float:
    """Bits per held-out character, guessed from how often it followed the one before it in the training text; the
    unigram distribution counts as one more occurrence."""
    n = len(text.characters)
    pairs = np.bincount(text.train[:-1] * n + text.train[1:], minlength=n * n).reshape(n, n)
    p = (pairs + unigram(text)) / (pairs.sum(axis=1, keepdims=True) + 1.0)
    before = np.concatenate([text.train[-1:], text.held_out[:-1]])
    return float(-np.mean(np.log2(p[before, text.held_out])))
