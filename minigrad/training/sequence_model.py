"""The model of a sequence task: embedding or one-hot vectors, recurrent layers, a linear layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.engine.arrays import bare
from minigrad.engine.context import no_grad
from minigrad.engine.messages import in_one_sentence, nearest
from minigrad.engine.ops import concatenate, expand_dims, where
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.nn.checks import Array, Tree
from minigrad.nn.signature import UnknownOption, options_of
from minigrad.training.user_code import from_file

LAYERS: dict[str, type[nn.Stacked]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class SequenceModel(nn.Module):
    """x → (embedding, or one-hot) → recurrent layers → linear, at every step.

    inputs     number of features of x, or of symbols
    outputs    number of outputs per step, such as logits
    cell       "rnn", "gru", "lstm", a subclass of nn.Recurrent, or FILE.py:Class. A class is built as
               Class(input_size, hidden_size, dtype=…, rng=…) and returns y (H, B).
    hidden     H, the units of each layer
    layers, dropout   number of layers, and the dropout between them
    symbols    x contains integers; they become vectors of size `embedding`, or one-hot vectors without it
    dtype      of the parameters
    rng        seed or np.random.Generator for the parameters
    options    keywords of the cells, such as chrono=100

    `model(x, state=None, lengths=None)` takes x (T, B, inputs), or (T, B) symbols; state and lengths are those of
    nn.LSTM. It returns outputs (T, B, outputs) and the state after the last step, in `dtype`; features are cast to it.
    Raises ValueError if cell, options or x do not fit, also for integers without `symbols` and for an unknown symbol.
    """

    def __init__(self, inputs: int, outputs: int, *, cell: str | type[nn.Recurrent] = "lstm", hidden: int = 128,
                 layers: int = 1, dropout: float = 0.0, symbols: bool = False, embedding: int | None = None,
                 dtype: Any = np.float32, rng: Any = None, **options: Any):
        rng = np.random.default_rng(rng)
        self.inputs, self.symbols = inputs, symbols
        self.embedding = nn.Embedding(inputs, embedding, dtype=dtype, rng=rng) if symbols and embedding else None
        self.recurrent = recurrent_layers(type(self), cell, embedding if self.embedding else inputs, hidden, layers,
                                          dropout=dropout, dtype=dtype, rng=rng, **options)
        self.linear = nn.Linear(hidden, outputs, dtype=dtype, rng=rng)

    def __call__(self, x: Array, state: Tree = None, lengths: Any = None) -> tuple[Tensor, Tree]:
        x = self.checked_input(x)
        table, dtype = None, self.linear.weight.dtype
        if self.embedding is not None:
            table = self.embedding.weight
        elif self.symbols and self.inputs < x.size:
            table = np.eye(self.inputs, dtype=dtype)  # of fewer entries than the one-hot vectors
        elif self.symbols:
            x = (np.arange(self.inputs) == x[..., None]).astype(dtype)
        output, state = self.recurrent(x, state, lengths, table)
        return self.linear(output), state

    def checked_input(self, x: Array) -> Array:
        """x as symbols (an ndarray) or features. Raises ValueError if its type or shape is not what the model takes."""
        x = x if isinstance(x, Tensor) else bare(x)
        kind, n = type(self).__name__, self.inputs
        if not self.symbols:
            if x.dtype.kind in "iu":
                raise ValueError(f"this {kind} takes features, floats of shape (T, B, {n}), and x contains integers, "
                                 f"{x.dtype} of shape {x.shape}: if they are symbols, build it with symbols=True; if "
                                 "they are features, pass x.astype(float)")
            if x.ndim not in (2, 3) or x.shape[-1] != n:
                raise ValueError(f"this {kind} takes features of shape (T, B, {n}), or (T, {n}) for one sequence, not "
                                 f"{x.shape}")
            return x
        x = np.asarray(x)
        if x.dtype.kind not in "iu":
            raise ValueError(f"this {kind} takes symbols as integers from 0 to {n - 1}, and x is {x.dtype} of shape "
                             f"{x.shape}: if it contains features, build the model without symbols=True")
        if x.ndim not in (1, 2):
            raise ValueError(f"this {kind} takes symbols of shape (T, B), or (T,) for one sequence, not {x.shape}")
        if x.size and not 0 <= x.min() <= x.max() < n:
            raise ValueError(f"this {kind} takes symbols from 0 to {n - 1}, and x contains {x.min()} to {x.max()}")
        return x

    def restart(self, state: Tree, rows: np.ndarray) -> Tree:
        """The state, reset to the initial state in the batch rows where `rows` (B,) is true."""
        cells = self.recurrent.layers.values()
        starts = [flatten(cell.initial_state(len(rows)))[0] for cell in cells]  # leaves (H, B) or (H, 1)
        leaves = []
        for leaf, *of_cells in zip(flatten(state)[0], *starts):
            start = concatenate([expand_dims(one.T, 0) for one in of_cells], axis=0)
            leaves.append(where(rows[:, None], start, leaf).astype(leaf.dtype))
        return unflatten(state, leaves)


def recurrent_layers(model: type, cell: str | type[nn.Recurrent], inputs: int, hidden: int, layers: int, *,
                     dropout: float, dtype: Any, rng: Any, **options: Any) -> nn.Stacked:
    """Build the layers of a cell. Raises ValueError if the cell cannot be built or does not fit, and UnknownOption, in
    the name of the model, for an option that the cell does not take."""
    stacked, name = layers_class(cell)
    of_layers = options_of(nn.Stacked)  # options that the model sets itself
    known = options_of(model) + [option for option in options_of(stacked.Cell)[2:] if option not in of_layers]
    own = [option for option in options if option in of_layers]
    if own:
        raise UnknownOption(model.__name__, own, known)
    try:
        made = stacked(inputs, hidden, layers, dropout=dropout, dtype=dtype, rng=rng, **options)
    except Exception as problem:  # a user's class may raise anything
        if isinstance(problem, UnknownOption) and set(problem.names) <= set(options):
            raise UnknownOption(f"{model.__name__} with the cell {name}", problem.names, known) from None
        if isinstance(problem.__cause__, UnknownOption):
            problem = problem.__cause__
        how = "" if cell in LAYERS else f" as {stacked.Cell.__name__}(input_size, hidden_size, dtype=…, rng=…)"
        raise ValueError(f"{name} cannot be built{how}: {in_one_sentence(problem)}") from problem
    if cell not in LAYERS:
        try_out(made, name, inputs, hidden)
    return made


def layers_class(cell: str | type[nn.Recurrent]) -> tuple[type[nn.Stacked], str]:
    """(class of the layers, name of the cell for messages)"""
    if cell in LAYERS:
        return LAYERS[cell], cell
    if not isinstance(cell, str):
        name = cell.__name__
    elif ".py:" in cell:
        name, cell = cell, from_file(cell, type, "class")
    else:
        raise ValueError(f"{cell!r} is neither {', '.join(LAYERS)} nor FILE.py:Class{nearest(cell, LAYERS)}")
    if not issubclass(cell, nn.Recurrent):
        raise ValueError(f"{name} is not a subclass of nn.Recurrent: derive it from that, with cell and initial_state")
    return type(f"{cell.__name__}Layers", (nn.Stacked,), {"Cell": cell}), name


def try_out(layers: nn.Stacked, name: str, inputs: int, hidden: int) -> None:
    """Run a user's cell on zeros. Raises ValueError if it fails or does not return y (T, B, H)."""
    dtype = np.result_type(*[p.dtype for p in layers.parameters()], np.float32)
    try:
        with no_grad():
            y, _ = layers(np.zeros((2, 3, inputs), dtype))
    except Exception as problem:  # a user's cell may raise anything
        raise ValueError(f"{name} does not run on sequences of shape (2, 3, {inputs}): {in_one_sentence(problem)}"
                         ) from problem
    shape = getattr(y, "shape", None)
    if shape != (2, 3, hidden):
        raise ValueError(f"{name} returns y of shape {shape} for sequences of shape (2, 3, {inputs}), and a layer of "
                         f"{hidden} units returns (2, 3, {hidden}): let its cell return y of shape (H, B)")


@contextlib.contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Put the model in eval mode (no dropout), then restore the mode of each module."""
    with model.modes_kept():
        model.eval()
        yield
