"""The main job: a character model on the document's LSTM, checked against numerical gradients, then trained.

The model is the document's cell, step by step, with every operation recorded by the engine; the training is
truncated backpropagation through time on parallel streams of the text, the state carried from window to window.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from minigrad.document import lstm_cell_forward
from minigrad.gradcheck import Report, gradcheck
from minigrad.ops import log, maximum, mean, negative, stack
from minigrad.optim import Adam, clip_grad_norm
from minigrad.tasks.text import Text, streams
from minigrad.tensor import Tensor, no_grad

State = tuple[np.ndarray, np.ndarray]


class CharModel:
    """The next character from all before it: one-hot characters, the document's LSTM, softmax.

    n characters, hidden units n_a; parameters under the document's names. Weights start uniform within ±1/√n_a, the
    forget bias at 1 (Gers et al. 2000), the others at 0.
    """

    def __init__(self, n: int, hidden: int, rng: np.random.Generator, dtype: type = np.float32):
        def weights(*shape: int) -> np.ndarray:
            return rng.uniform(-1, 1, shape) / np.sqrt(hidden)

        self.n, self.hidden, self.dtype = n, hidden, dtype
        values = {}
        for gate in "fico":
            values[f"W{gate}"] = weights(hidden, hidden + n)
            values[f"b{gate}"] = np.full((hidden, 1), 1.0 if gate == "f" else 0.0)
        values |= {"Wy": weights(n, hidden), "by": np.zeros((n, 1))}
        self.parameters = {name: Tensor(value, True, dtype, name) for name, value in values.items()}

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.parameters.items()

    def zero_state(self, batch: int) -> State:
        return np.zeros((self.hidden, batch), self.dtype), np.zeros((self.hidden, batch), self.dtype)

    def __call__(self, inputs: np.ndarray, state: State) -> tuple[Tensor, tuple]:
        """Characters (T, batch) → probabilities of the next (T, n, batch), and the state after the last."""
        a, c = state
        one_hot = np.eye(self.n, dtype=self.dtype)
        y = []
        for codes in inputs:
            a, c, yt, _ = lstm_cell_forward(one_hot[:, codes], a, c, self.parameters)
            y.append(yt)
        return stack(y), (a, c)

    def loss(self, inputs: np.ndarray, targets: np.ndarray, state: State) -> tuple[Tensor, tuple]:
        """Mean −ln p(target), in nats a character, and the state after the last step."""
        y, state = self(inputs, state)
        T, batch = targets.shape
        p = y[np.arange(T)[:, None], targets, np.arange(batch)]
        # a probability that float32 rounds to 0 counts as its smallest number, so that the loss stays finite
        return negative(mean(log(maximum(p, np.finfo(self.dtype).tiny)))), state


def check_model(model: CharModel, text: Text, rng: np.random.Generator) -> Report:
    """Compare the gradients of this very model, on the beginning of its text, with numerical ones."""
    inputs, targets, _ = next(streams(text.train[:100], 2, 4))

    def loss():
        return model.loss(inputs, targets, model.zero_state(inputs.shape[1]))[0]
    loss.named_parameters = model.named_parameters
    return gradcheck(loss, rng=rng, raise_error=False)


@dataclass
class History:
    """What a training did: the loss of each step, in nats a character, and whether it was interrupted."""

    losses: list[float]
    seconds: float
    tokens: int
    interrupted: bool


def train(model: CharModel, text: Text, *, steps: int, batch: int = 32, length: int = 32, lr: float = 0.02,
          clip: float = 1.0, report: Callable[[str], None] | None = None) -> History:
    """Train for so many steps of `batch` windows of `length` characters; lr falls to a tenth along a cosine.

    Ctrl-C ends it after the step it is in. On a terminal there is a bar on stderr; elsewhere ten lines go to `report`.
    """
    optimizer = Adam(model.parameters.values(), lr=lr)
    windows = streams(text.train, batch, length)
    losses: list[float] = []
    start = time.perf_counter()
    state, tokens = (), 0
    bar = tqdm(total=steps, unit="step", disable=not sys.stderr.isatty() or report is None, dynamic_ncols=True)
    with Interrupt() as interrupt, bar:
        for step in range(steps):
            inputs, targets, first = next(windows)
            if first:
                state = model.zero_state(inputs.shape[1])
            loss, (a, c) = model.loss(inputs, targets, state)
            state = a.detach(), c.detach()
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm(optimizer.parameters, clip)
            optimizer.lr = lr * (0.55 + 0.45 * np.cos(np.pi * step / steps))
            optimizer.step()

            losses.append(loss.item())
            tokens += inputs.size
            rate = tokens / (time.perf_counter() - start)
            bar.set_postfix_str(f"loss {np.mean(losses[-50:]):.3f}, {rate:,.0f} tokens/s", refresh=False)
            bar.update()
            if bar.disable and report and (step + 1) % max(1, steps // 10) == 0:
                report(f"step {step + 1} of {steps}: loss {np.mean(losses[-50:]):.3f}, {rate:,.0f} tokens/s")
            if interrupt.came:
                break
    return History(losses, time.perf_counter() - start, tokens, interrupt.came)


class Interrupt:
    """While it is open, the first Ctrl-C is only noted in `came`; a second one interrupts as usual."""

    def __enter__(self) -> Interrupt:
        self.came = False
        try:
            self.previous = signal.signal(signal.SIGINT, self.note)
        except ValueError:  # not in the main thread, where Ctrl-C does not arrive either
            self.previous = None
        return self

    def note(self, *_: object) -> None:
        self.came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)


def bits_per_character(model: CharModel, codes: np.ndarray, batch: int | None = None) -> float:
    """Mean −log₂ p of each character of a text. It is read in `batch` streams, by default as many as leave each 500
    characters: the first few of a stream are guessed without what stood before them."""
    batch = batch or min(64, max(1, len(codes) // 500))
    steps = max(1, (len(codes) - 1) // batch)
    inputs, targets, _ = next(streams(codes, batch, steps))
    state = model.zero_state(inputs.shape[1])
    total = 0.0
    with no_grad():
        for start in range(0, len(inputs), 100):
            loss, (a, c) = model.loss(inputs[start:start + 100], targets[start:start + 100], state)
            state = a, c
            total += loss.item() * inputs[start:start + 100].size
    return total / inputs.size / np.log(2)


def sample(model: CharModel, length: int, rng: np.random.Generator, first: int = 0,
           temperature: float = 0.7) -> np.ndarray:
    """So many characters, each drawn from the model's p^(1/temperature), as codes."""
    state, code, codes = model.zero_state(1), first, []
    with no_grad():
        for _ in range(length):
            y, state = model(np.array([[code]]), state)
            scores = np.log(np.maximum(y.numpy()[0, :, 0].astype(float), 1e-30)) / temperature
            p = np.exp(scores - scores.max())
            code = int(rng.choice(model.n, p=p / p.sum()))
            codes.append(code)
    return np.array(codes)
