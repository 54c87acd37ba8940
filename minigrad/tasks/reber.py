"""The embedded Reber grammar: follow a small automaton, and remember one symbol from before it."""

from __future__ import annotations

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


ARCS = np.array([[state[0], state[-1]] for state in embedded()] + [[(0, END)] * 2])  # two arcs, equal if there is one
STEP = np.full((END + 1, len(SYMBOLS)), END)  # next state; END if the symbol is illegal
LEGAL = np.zeros((END + 1, len(SYMBOLS)), bool)
for _state, _arcs in enumerate(embedded()):
    for _symbol, _to in _arcs:
        STEP[_state, _symbol], LEGAL[_state, _symbol] = _to, True


@dataclass(frozen=True)
class Reber(Task):
    """The next symbol of a string of the embedded Reber grammar.

    A string is B, T or P, a string of Reber's grammar, the same T or P again, and E; where the grammar has a choice,
    both arcs are equally likely. 9 symbols or more; x (T, B) are all but the last, targets (T, B) all but the first,
    as positions in "BTPSXVE". Cleeremans, Servan-Schreiber & McClelland 1989; Hochreiter & Schmidhuber 1997,
    experiment 1.

    Metric: the fraction of 256 strings whose every symbol is predicted, as in 1997: at each step the symbols that
    may follow, one or two, have the largest outputs. Solved when that is so for all strings.

    Baseline: one half, by a guess that follows the grammar but forgets the second symbol, which is the last but one
    too. The current symbol alone gets no string right: T, say, is followed by B as the second symbol,
    and by E as the last but one.

    Published (table 1; 256 strings for training, over and over, and success when all strings of both sets are right):
    LSTM of 3 blocks of 2 cells, learning rate 0.5: all of 30 trials, after 8 440 strings on the mean; 4 blocks of 1,
    rate 0.1: all, 39 740. RTRL: some of the trials, 25 000 to 173 000; Elman's net: none; recurrent cascade
    correlation: half, 182 000. Here every string of a batch is a fresh one.
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
        codes, state, lengths = [], np.full(size, START), np.zeros(size, int)
        while (state != END).any():
            lengths += state != END
            symbol, state = ARCS[state, rng.integers(0, 2, size)].T
            codes.append(symbol)
        symbols = np.stack(codes)
        lengths -= 1  # the last symbol is only a target
        mask = length_mask(lengths, len(symbols) - 1)
        return Batch(np.where(mask, symbols[:-1], 0), np.where(mask, symbols[1:], 0), mask, lengths)

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
