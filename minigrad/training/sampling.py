"""Sample sequences of symbols from a model, one symbol at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minigrad.engine.context import no_grad
from minigrad.nn.checks import is_whole
from minigrad.training.sequence_model import eval_mode


def sample(model: Any, length: int, rng: Any = None, prime: Iterable[Any] = (0,), temperature: float = 1.0,
           batch: int | None = None) -> np.ndarray:
    """Read `prime`, then draw `length` symbols from the model's p^(1/temperature), (length,) integers.

    model        an nn.Module called as model(x, state) → (logits (T, B, n), state) for symbols x (T, B), such as a
                 `SequenceModel` that was trained on symbols
    rng          seed or np.random.Generator
    prime        the symbols (P,) that the model reads first, at least one; or (P, batch), for each sequence its own
    temperature  below 1: more likely symbols more often; 0: always the likeliest
    batch        draw this many sequences side by side, (length, batch)

    Raises ValueError if length, batch or prime do not fit, the temperature is below 0 or infinite, the model takes
    features, or its logits are not finite.
    """
    rng = np.random.default_rng(rng)
    codes = np.asarray(prime if isinstance(prime, np.ndarray) else list(prime))
    if not codes.size or not 0 <= temperature < math.inf:
        raise ValueError(f"sample takes a prime of one symbol or more and a temperature ≥ 0, not {codes.size} symbols "
                         f"and {temperature}")
    if codes.dtype.kind not in "iu":
        raise ValueError(f"prime contains {codes.dtype} values, and symbols are integers: give the positions of the "
                         "symbols among those that the model was trained on")
    if not is_whole(length, 0) or not (batch is None or is_whole(batch, 1)):
        raise ValueError(f"length is a whole number from 0 on, and batch one above 0, not {length!r} and {batch!r}")
    size = batch or 1
    if codes.ndim == 1:
        codes = np.repeat(codes[:, None], size, axis=1)
    if codes.ndim != 2 or codes.shape[1] != size:
        raise ValueError(f"prime has shape {codes.shape}: give (P,) symbols, or (P, batch) with batch={size}")
    state, drawn = None, np.zeros((length, size), int)
    with eval_mode(model), no_grad():
        for t in range(length):
            outputs, state = model(codes, state)
            logits = np.asarray(outputs)[-1].astype(float)
            if not np.isfinite(logits).all():
                raise ValueError(f"the model's logits contain NaN or infinity after {t} symbols: its weights have "
                                 "diverged")
            logits -= logits.max(axis=-1, keepdims=True)
            if temperature:
                p = np.exp(logits / temperature)
                p /= p.sum(axis=-1, keepdims=True)
                below = p.cumsum(axis=-1)
                below /= below[:, -1:]
                drawn[t] = (below <= rng.random(size)[:, None]).sum(axis=-1)  # what rng.choice(n, p=p) draws
            else:
                drawn[t] = logits.argmax(axis=-1)
            codes = drawn[t:t + 1]
    return drawn if batch is not None else drawn[:, 0]
