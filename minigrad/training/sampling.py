"""Sample a sequence of symbols from a model, one symbol at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minigrad.engine.context import no_grad
from minigrad.training.sequence_model import eval_mode


def sample(model: Any, length: int, rng: Any = None, prime: Iterable[int] = (0,), temperature: float = 1.0
           ) -> np.ndarray:
    """Read `prime`, then draw `length` symbols from the model's p^(1/temperature); temperature 0 takes the likeliest.

    Raises ValueError if the temperature is below 0 or infinite, or if `prime` is empty.
    """
    rng = np.random.default_rng(rng)
    codes = np.asarray(list(prime), int)
    if not codes.size or not 0 <= temperature < math.inf:
        raise ValueError(f"sample takes a prime of one symbol or more and a temperature ≥ 0, not {codes.size} symbols "
                         f"and {temperature}")
    state, drawn = None, []
    with eval_mode(model), no_grad():
        for _ in range(length):
            outputs, state = model(codes[:, None], state)
            logits = np.asarray(outputs)[-1, 0].astype(float)
            logits -= logits.max()
            if temperature:
                p = np.exp(logits / temperature)
                code = rng.choice(len(p), p=p / p.sum())
            else:
                code = logits.argmax()
            drawn.append(int(code))
            codes = np.array([code])
    return np.array(drawn, int)
