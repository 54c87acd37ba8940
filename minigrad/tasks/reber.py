"""The embedded Reber grammar: follow a small automaton, and remember one symbol from before it."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from minigrad.tasks.task import Batch, Task, length_mask, lstm_recipe

SYMBOLS = "BTPSXVE"
REBER = [["B1"], ["T2", "P3"], ["S2", "X4"], ["T3", "V5"], ["X3", "S6"], ["P4", "V6"], ["E7"]]  # symbol, next state
START, END = 0, 19


def embedded() -> list[list[tuple[int, int]]]:
    """Each state's arcs (symbol, next state) of B (T or P) Reber (the same) E: two copies of the inner grammar."""
    arcs: list[list[tuple[int, int]]] = [[] for _ in range(END)]
    arcs[START], arcs[1], arcs[18] = [(0, 1)], [(1, 2), (2, 10)], [(6, END)]
    for outer, shift in ((1, 2), (2, 10)):
        for state, inner in enumerate(REBER, start=shift):
            arcs[state] = [(SYMBOLS.index(symbol), int(to) + shift) for symbol, to in inner]
        arcs[shift + 7] = [(outer, 18)]
    return arcs


INNER = np.array([[[SYMBOLS.index(arc[0]), int(arc[1])] for arc in (arcs[0], arcs[-1])] for arcs in REBER]
                 + [[[-1, len(REBER)]] * 2])  # two arcs a state, equal if the grammar has one; then the end
STEP = np.full((END + 1, len(SYMBOLS)), END)  # next state; END if the symbol is illegal
LEGAL = np.zeros((END + 1, len(SYMBOLS)), bool)
for _state, _arcs in enumerate(embedded()):
    for _symbol, _to in _arcs:
        STEP[_state, _symbol], LEGAL[_state, _symbol] = _to, True

TEST, VALIDATION, TRAINING = (0,), (1,), (2, 3)  # quarters of the language


def quarter(inner: bytes) -> int:
    """The quarter of the language, 0 … 3, that an inner string (see `inner_strings`) belongs to."""
    return zlib.crc32(inner) % 4


def inner_strings(rng: np.random.Generator, size: int, quarters: Collection[int], distinct: bool = False
                  ) -> list[bytes]:
    """`size` strings of Reber's grammar from these quarters, as bytes: positions in "BTPSXVE" plus 1."""
    found: list[bytes] = []
    while len(found) < size:
        codes, state = [], np.zeros(4 * size, int)
        while (state != len(REBER)).any():
            symbol, state = INNER[state, rng.integers(0, 2, len(state))].T
            codes.append(symbol + 1)
        drawn = (row.tobytes().rstrip(b"\0") for row in np.stack(codes, axis=1).astype(np.uint8))
        found += [inner for inner in drawn if quarter(inner) in quarters]
        found = list(dict.fromkeys(found)) if distinct else found
    return found[:size]


@dataclass(frozen=True)
class Reber(Task):
    """The next symbol of a string of the embedded Reber grammar.

    A string is B, T or P, a string of Reber's grammar, the same T or P again, and E; where the grammar has a choice,
    both arcs are equally likely. 9 symbols or more; x (T, B) are all but the last, targets (T, B) all but the first,
    as positions in "BTPSXVE". Cleeremans, Servan-Schreiber & McClelland 1989; Hochreiter & Schmidhuber 1997,
    experiment 1.

    Inner strings are split by a hash: half of them are for training, a quarter for the validation set, a quarter for
    the test set. So no model has seen a string of its test, not even with the other second symbol. In 1997, too,
    strings of the training set were not used for testing. A test set has 128 distinct inner strings, each with T
    and with P; as many short strings as they are likely would be a handful of strings, over and over.

    Metric: the fraction of 256 strings whose every symbol is predicted, as in 1997: at each step the symbols that
    may follow, one or two, have the largest outputs. Solved when that is so for all strings.

    Baseline: one half, by a guess that follows the grammar but forgets the second symbol, which is the last but one
    too. The current symbol alone gets no string right: T, say, is followed by B as the second symbol,
    and by E as the last but one.

    Published (table 1; 256 strings for training, over and over, and success when all strings of both sets are right):
    LSTM of 3 blocks of 2 cells, learning rate 0.5: all of 30 trials, after 8 440 strings on the mean; 4 blocks of 1,
    rate 0.1: all, 39 740. RTRL: some of the trials, 25 000 to 173 000; Elman's net: none; recurrent cascade
    correlation: half, 182 000. Here every string of a batch is drawn anew.
    """

    name = "reber"
    about = ("A step reads a symbol of a grammar and is asked for the next; the last but one, T or P, repeats the "
             "second.")
    inputs, symbols, outputs, loss = len(SYMBOLS), True, len(SYMBOLS), "cross_entropy"
    names = SYMBOLS, SYMBOLS
    metric_name, test_size = "fraction of strings right", 256
    baseline, goal = 0.5, 1.0
    recipe = lstm_recipe(hidden=32, batch=5, steps=2000, lr=0.01, validate_every=20)

    def make(self, rng: np.random.Generator, size: int) -> Batch:
        return embed(inner_strings(rng, size, TRAINING), rng.integers(1, 3, size))

    def test(self, rng: np.random.Generator | int) -> Batch:
        return self.held_out(rng, TEST)

    def validation(self, rng: np.random.Generator | int) -> Batch:
        return self.held_out(rng, VALIDATION)

    def held_out(self, rng: np.random.Generator | int, quarters: Collection[int]) -> Batch:
        """Distinct inner strings of these quarters, each with both outer symbols."""
        inner = inner_strings(np.random.default_rng(rng), self.test_size // 2, quarters, distinct=True)
        return embed(2 * inner, np.repeat([1, 2], len(inner)))

    def legal(self, x: np.ndarray) -> np.ndarray:
        """(T, B, 7): which symbols may follow after each step of strings x (T, B)."""
        state, legal = np.full(x.shape[1], START), np.empty((*x.shape, len(SYMBOLS)), bool)
        for t, symbols in enumerate(x):
            state = STEP[state, symbols]
            legal[t] = LEGAL[state]
        return legal

    def score(self, outputs: np.ndarray, batch: Batch) -> float:
        legal = self.legal(batch.x)
        right = np.where(legal, outputs, np.inf).min(axis=-1) > np.where(legal, -np.inf, outputs).max(axis=-1)
        return np.mean((right | ~batch.mask).all(axis=0))


def embed(inner: list[bytes], outer: np.ndarray) -> Batch:
    """The strings B, outer, inner, outer, E, with outer 1 for T and 2 for P."""
    lengths = np.array([len(string) for string in inner]) + 3  # the last symbol is only a target
    symbols = np.zeros((lengths.max() + 1, len(inner)), int)
    symbols[1] = symbols[lengths - 1, np.arange(len(inner))] = outer
    for i, string in enumerate(inner):
        symbols[2:lengths[i] - 1, i] = np.frombuffer(string, np.uint8) - 1
    symbols[lengths, np.arange(len(inner))] = SYMBOLS.index("E")
    mask = length_mask(lengths, len(symbols) - 1)
    return Batch(np.where(mask, symbols[:-1], 0), np.where(mask, symbols[1:], 0), mask, lengths)
