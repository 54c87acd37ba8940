"""The layers RNN, GRU and LSTM: cells stacked in layers and in both directions, with PyTorch's shapes and names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from minigrad.engine.ops import concatenate
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.nn.cells import GRUCell, LSTMCell, RNNCell
from minigrad.nn.checks import Array, as_numbers, check_float, check_sizes
from minigrad.nn.layout import Batch, state_to_cell_layout, symbols_to_cell_layout, to_cell_layout
from minigrad.nn.module import Module
from minigrad.nn.signature import UnknownOption, options_of
from minigrad.nn.state_dict import matching

State = TypeVar("State")


class Stacked(Module, Generic[State]):
    """Cells in several layers and both directions; base class of `RNN`, `GRU` and `LSTM`.

    input_size D, hidden_size H
    num_layers     number of layers; each takes the output of the one below
    bidirectional  each layer has a second cell that runs from the end to the start; the outputs are concatenated
    dropout        in training, an output between two layers is set to 0 with this probability, and the others are
                   scaled by 1 / (1 − dropout); not after the last layer; drawn from the layer's own rng
    batch_first    x and output are (B, T, …); states keep their layout, as in PyTorch
    dtype          of the parameters
    rng            a np.random.Generator or a seed, for the initial values and the dropout
    Further options, such as learned_state=True and two_biases=True, are passed to the cells.

    Called as `layer(x, state=None, lengths=None, table=None)`; with L = num_layers · (2 if bidirectional else 1):
    x        (T, B, D), or (T, D) for one sequence
    state    the initial state, in the layout of the final state; zeros by default
    lengths  (B,) integers from 1 to T: past the end of a sequence its states are kept, its output is 0, and the
             backward direction starts at its own end
    table    (V, D): x is then (T, B) symbols, or (T,), and each stands for a row, as in
             `layer(symbols, table=embedding.weight)`; for one-hot vectors, np.eye(D). The same result as with the rows
             as x; the loops in C then multiply V columns in the first layer, and not T · B, where that saves time
    Returns output (T, B, H), or (T, B, 2H) if bidirectional, and the final state: (L, B, H), for an LSTM a pair (h, c)
    of such. For one sequence, output (T, H) and states (L, H). The results have the dtype of the parameters, also if
    x and state have another (see layers.py).

    The cells are in `layers`, under PyTorch's names: l0, l0_reverse, l1, … To stack your own cell, subclass `Stacked`
    and set `Cell` to a Recurrent that is built by (input_size, hidden_size, *, dtype, rng) and returns y (H, B).
    Raises ValueError if sizes, x, state or lengths do not fit.
    """

    Cell: type[Any]
    layers: dict[str, Any]

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, *, bidirectional: bool = False,
                 dropout: float = 0.0, batch_first: bool = False, dtype: Any = np.float32, rng: Any = None,
                 **options: Any):
        kind = type(self).__name__
        check_sizes(self, 0, input_size=input_size)
        check_sizes(self, hidden_size=hidden_size, num_layers=num_layers)
        check_float(self, dtype)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"{kind} takes a dropout from 0 to less than 1, not {dropout}")
        if dropout and num_layers == 1:
            warnings.warn(f"{kind} has one layer, so its dropout, which is between layers, has no effect: use "
                          "nn.Dropout on x or on the output", stacklevel=2)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.dropout, self.batch_first = bidirectional, dropout, batch_first
        self.rng = np.random.default_rng(rng)
        sizes = [input_size] + [hidden_size * (2 if bidirectional else 1)] * (num_layers - 1)
        directions = ("", "_reverse") if bidirectional else ("",)
        try:
            self.layers = {f"l{i}{direction}": self.Cell(size, hidden_size, dtype=dtype, rng=self.rng, **options)
                           for i, size in enumerate(sizes) for direction in directions}
        except UnknownOption as problem:
            if set(problem.names) <= set(options):
                raise UnknownOption(kind, problem.names, self.option_names()) from None
            raise TypeError(f"{kind} builds its cells as {self.Cell.__name__}(input_size, hidden_size, dtype=…, rng=…)"
                            f", and {problem}") from problem

    @classmethod
    def option_names(cls) -> list[str]:
        """The names of all arguments: its own, and the options of its cells."""
        return list(dict.fromkeys(options_of(cls) + options_of(getattr(cls, "Cell", cls))[2:]))

    def __call__(self, x: Array, state: Any = None, lengths: Any = None, table: Array | None = None
                 ) -> tuple[Tensor, State]:
        if table is None:
            x, mask, batch = to_cell_layout(self, x, lengths, self.batch_first, self.input_size)
        else:
            table = as_numbers(self, table)
            x, mask, batch = symbols_to_cell_layout(self, x, lengths, self.batch_first, table, self.input_size)
        cells = list(self.layers.values())
        if state is not None:
            like = cells[0].initial_state(x.shape[-1])
            size = None if batch.axis is None else x.shape[-1]
            state = state_to_cell_layout(self, state, like, size, len(cells))
        of_state = Batch(None if batch.axis is None else 1, is_layer=True)
        finals, ys = [], []
        for i, (name, cell) in enumerate(self.layers.items()):
            def of_cell(start: Array, i: int = i) -> Array:
                return start[i]
            how = (None if state is None else map_leaves(of_cell, state), mask, name.endswith("_reverse"),
                   (of_state, batch if i + 1 == len(cells) and not self.bidirectional else None))
            final, y = cell.run(x, *how) if table is None or i > self.bidirectional else \
                cell.run_symbols(table, x, *how)
            finals.append(final)
            ys.append(y)
            if len(ys) == 1 + self.bidirectional:  # the layer is complete: its output is the next one's x
                x, ys = concatenate(ys, axis=1) if self.bidirectional else y, []
                x = self.apply_dropout(x) if i + 1 < len(cells) else x
        output = batch.leave(x) if self.bidirectional else x
        if len(cells) == 1:
            return output, finals[0]
        return output, unflatten(finals[0], list(map(concatenate, zip(*[flatten(final)[0] for final in finals]))))

    def apply_dropout(self, x: Array) -> Array:
        if not (self.training and self.dropout):
            return x
        keep = self.rng.random(x.shape) >= self.dropout
        return x * (keep / (1.0 - self.dropout)).astype(x.dtype)

    # -- PyTorch's names and order ------------------------------------------------------------------------

    def to_torch(self) -> dict[str, np.ndarray]:
        """The parameters in PyTorch's names and order (weight_ih_l0, …): its `load_state_dict` takes
        `{name: torch.from_numpy(array) for name, array in layer.to_torch().items()}`.

        The equations are PyTorch's. The initial values are not, and PyTorch has two biases for our one: bias_ih is b,
        and bias_hh is 0. Both have the gradient of b, so in PyTorch their sum moves twice as far per step of SGD or
        Adam, and a clipped norm counts it twice. To train as PyTorch does, build the layer with two_biases=True and
        load PyTorch's weights. A learned state has no place in PyTorch's layer and is left out.
        """
        return {f"{name}_{layer}": array for layer, cell in self.layers.items()
                for name, array in cell.to_torch().items()}

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        """Load the parameters of PyTorch's module of the same sizes: its `state_dict()`, or arrays by the same names.

        Without two_biases the two biases of a gate are added, in float64 or wider. Raises ValueError, and changes
        nothing, if names or shapes differ.
        """
        arrays = matching(arrays, self.to_torch(), type(self).__name__)
        for layer, cell in self.layers.items():
            cell.load_torch({name: arrays[f"{name}_{layer}"]
                             for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})


class RNN(Stacked[Tensor]):
    """Layers of `RNNCell`; options nonlinearity="tanh" or "relu". See `Stacked`."""

    Cell = RNNCell


class GRU(Stacked[Tensor]):
    """Layers of `GRUCell`, which states the convention; options reset_after=True, chrono=None. See `Stacked`."""

    Cell = GRUCell


class LSTM(Stacked[tuple[Tensor, Tensor]]):
    """Layers of `LSTMCell`; options forget_bias=1.0, chrono=None. State and final state are (h, c). See `Stacked`."""

    Cell = LSTMCell
