"""The cells RNNCell, GRUCell and LSTMCell: their equations in the source document's names, and PyTorch's names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np

from minigrad.engine.ops import concatenate, relu, sigmoid, split, tanh
from minigrad.engine.tensor import Tensor
from minigrad.nn.checks import Array, Tree, cast, check_float, check_sizes, features
from minigrad.nn.init import chrono as chrono_biases
from minigrad.nn.init import glorot_uniform, orthogonal
from minigrad.nn.recurrent import Recurrent, common
from minigrad.nn.signature import UnknownOption, options_of
from minigrad.nn.state_dict import matching
from minigrad.timeloop.compile import compiler, loops
from minigrad.timeloop.scan import recorder

F = TypeVar("F", bound=Callable)

# Of symbols in place of x, forward and backward: three products of an entry, its lookup and sum, and all that is fixed
PRODUCT_SECONDS, LOOKUP_SECONDS, SETUP_SECONDS = 6e-11, 2e-9, 1.2e-4


def keyed_by(*names: str) -> Callable[[F], F]:
    """Declare the attributes of self that a method `cell` uses: `scan` keys its program by them and need not trace."""
    def declare(cell: F) -> F:
        cell.key_attributes = names  # type: ignore[attr-defined]
        return cell
    return declare


class TorchCell(Recurrent):
    """Base class of RNNCell, GRUCell and LSTMCell: sizes, call, PyTorch's layout of the weights.

    `cell(x, state=None)` is one step, as with PyTorch's cells: x (B, D) or (D,) → the new state, batch first.

    W  (gates · H, H + D): the rows of all gates, one block below the other, on [state; x]
    b  (gates · H, 1)

    In each gate's block of W, the columns of the state are orthogonal, those of x Glorot-uniform. b starts at 0 unless
    the cell says otherwise. dtype is that of the parameters; rng, a np.random.Generator or a seed, draws their initial
    values. With learned_state the initial state is a parameter too, (H, 1), initially 0.
    two_biases=True: a second bias `b_state`, initially 0, is added to b, as in PyTorch. The model is the same; the
    training is not: two biases with the same gradient move twice as far per step as one, and count twice in a norm.
    Raises ValueError unless input_size ≥ 0 and hidden_size ≥ 1 are integers.
    """

    gates = 1
    torch_order: tuple[int, ...] = (0,)  # index of our gate for each gate of PyTorch; it is its own inverse
    states: tuple[str, ...] = ("h0",)
    of_state: Tensor | None = None  # the columns of W for the state, and W x + b for each x that a symbol can stand
    of_x: Tensor | None = None  # for; in a copy of the cell while x is symbols (`run_symbols`)

    def __init__(self, input_size: int, hidden_size: int, *, learned_state: bool = False, two_biases: bool = False,
                 dtype: Any = np.float32, rng: Any = None, **unknown: Any):
        if unknown:
            raise UnknownOption(type(self).__name__, unknown, options_of(type(self)))
        check_sizes(self, 0, input_size=input_size)
        check_sizes(self, hidden_size=hidden_size)
        check_float(self, dtype)
        self.input_size, self.hidden_size, self.learned_state = input_size, hidden_size, learned_state
        self.two_biases = two_biases
        self.rng, self.dtype = np.random.default_rng(rng), np.dtype(dtype)
        self.W = self.weight(*[[self.state_block(), self.input_block()] for _ in range(self.gates)])
        self.b = self.weight([np.zeros((self.gates * hidden_size, 1))])
        if two_biases:
            self.b_state = self.weight([np.zeros((self.gates * hidden_size, 1))])
        if learned_state:
            for name in self.states:
                setattr(self, name, self.weight([np.zeros((hidden_size, 1))]))

    def __call__(self, x: Array, state: Tree = None) -> Any:  # type: ignore[override]
        return self.step(features(self, x, self.input_size), state)[1]

    def initial_state(self, batch: int) -> Tree:
        leaves = tuple([getattr(self, name) if self.learned_state else np.zeros((self.hidden_size, batch), self.dtype)
                        for name in self.states])
        return leaves if len(leaves) > 1 else leaves[0]

    def weight(self, *rows: list[np.ndarray]) -> Tensor:
        """A parameter of these blocks."""
        return Tensor(np.block(list(rows)), requires_grad=True, dtype=self.dtype)

    def state_block(self) -> np.ndarray:
        return orthogonal((self.hidden_size, self.hidden_size), self.rng, float)

    def input_block(self) -> np.ndarray:
        return glorot_uniform((self.hidden_size, self.input_size), self.rng, float)

    def bias(self) -> Array:
        return self.b + self.b_state if self.two_biases else self.b

    def product(self, h_prev: Array, x: Array) -> Array:
        """W [h_prev; x] + b."""
        if self.of_state is not None and self.of_x is not None:
            return self.of_state @ h_prev + self.of_x[:, x]
        concat = concatenate([h_prev, x], axis=0)
        return self.W @ concat + self.bias()

    # -- symbols in place of x ----------------------------------------------------------------------------

    def run_symbols(self, table: Array, symbols: np.ndarray, *how: Any) -> tuple[Tree, Tree]:
        """As `Recurrent.run_symbols`. If that saves time, W x is looked up among the products with the table's rows:
        W_x x = (W_x tableᵀ)[:, symbol]. Recordings show the cell with x."""
        is_own = not hasattr(type(self).cell, "key_attributes")  # a subclass may have another cell
        if is_own or recorder.get() is not None or not self.saves_products(symbols.size, len(table)):
            return super().run_symbols(table, symbols, *how)
        dtypes, multiplied = self.parameter_types(), copy.copy(self)
        columns = cast(table, common(dtypes)).T
        vars(multiplied).update(self.products_of(columns))  # of this call alone, and no parameters
        return self.scanned(multiplied.cell, dtypes | {columns.dtype}, symbols, *how)

    def saves_products(self, symbols: int, rows: int) -> bool:
        """Whether the products with the rows of a table, and lookups, take less time than the products with x; in the
        loops in NumPy they do not."""
        saved = PRODUCT_SECONDS * self.input_size * (symbols - rows) - LOOKUP_SECONDS * symbols
        return saved * len(self.W.data) > SETUP_SECONDS and loops.get() != "numpy" and compiler.enabled()

    def products_of(self, columns: Array) -> dict[str, Array]:
        """The attributes that hold the products with these columns, each of which is an x."""
        of_state, inputs = split(self.W, [self.hidden_size], axis=1)
        return {"of_state": of_state, "of_x": inputs @ columns + self.bias()}

    def rows(self, gate: int) -> slice:
        """The rows of one gate in W and b."""
        return slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)

    # -- PyTorch's names and order ------------------------------------------------------------------------

    def to_torch(self) -> dict[str, np.ndarray]:
        """weight_ih, weight_hh, bias_ih and bias_hh of PyTorch's cell: bias_ih is b; bias_hh is 0, or with two_biases
        b_state."""
        W, b, h = self.reordered(self.W.data), self.reordered(self.b.data)[:, 0], self.hidden_size
        b_state = self.reordered(self.b_state.data)[:, 0] if self.two_biases else np.zeros_like(b)
        return {"weight_ih": W[:, h:].copy(), "weight_hh": W[:, :h].copy(), "bias_ih": b.copy(),
                "bias_hh": b_state.copy()}

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        """Load the parameters of PyTorch's cell by its names, from arrays or CPU tensors. Without two_biases the two
        biases are added, in float64 or wider.

        Raises ValueError, and changes nothing, unless names and shapes are those of `to_torch()`.
        """
        arrays = matching(arrays, self.to_torch(), type(self).__name__)
        W = np.hstack([arrays["weight_hh"], arrays["weight_ih"]])
        self.W.data = self.reordered(np.ascontiguousarray(W))
        self.load_biases(arrays["bias_ih"], arrays["bias_hh"])

    def load_biases(self, bias_ih: np.ndarray, bias_hh: np.ndarray) -> None:
        if self.two_biases:
            self.b.data, self.b_state.data = (self.reordered(b[:, None]) for b in (bias_ih, bias_hh))
        else:
            self.b.data = self.reordered(sum_of_biases(bias_ih, bias_hh)[:, None])

    def reordered(self, array: np.ndarray) -> np.ndarray:
        """The blocks of rows in PyTorch's order, or from PyTorch's order in ours."""
        return np.concatenate([array[self.rows(gate)] for gate in self.torch_order])


def sum_of_biases(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b in float64 or wider: half precision would round, and integers could overflow."""
    return np.add(a, b, dtype=np.result_type(a, b, np.float64))


def gate_view(name: str, gate: int) -> property:
    """The rows of W or b that belong to a gate of the document, as a property of LSTMCell."""
    return property(lambda cell: getattr(cell, name).data[cell.rows(gate)],
                    doc=f"The rows of {name} for the document's gate {'fioc'[gate]}, as a view: an ndarray.")


class RNNCell(TorchCell):
    """h_next = tanh(W [h_prev; x] + b), or relu.          W (H, H + D), b (H, 1)

    Elman 1990. Further options: see `TorchCell`.
    """

    meanings: ClassVar = {"h_next": "hidden state: the memory and the output, which the next step reads"}

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options: Any):
        super().__init__(input_size, hidden_size, **options)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"{type(self).__name__} takes nonlinearity 'tanh' or 'relu', not {nonlinearity!r}")
        self.nonlinearity = nonlinearity

    @keyed_by("W", "b", "two_biases", "b_state", "of_state", "of_x", "nonlinearity")
    def cell(self, h_prev: Array, x: Array) -> tuple[Array, Array]:
        activation = tanh if self.nonlinearity == "tanh" else relu
        h_next = activation(self.product(h_prev, x))
        return h_next, h_next


class GRUCell(TorchCell):
    """Gated recurrent unit:

        r, z = σ(W [h_prev; x] + b)
        n = tanh(Wx x + bx + r ∘ (Wh h_prev + bh))        reset_after, the default
        n = tanh(Wx x + bx + Wh (r ∘ h_prev))             reset_after=False, without bh
        h_next = (1 − z) ∘ n + z ∘ h_prev

    W (2H, H + D), b (2H, 1), rows r, z; Wh (H, H), Wx (H, D), bh and bx (H, 1). Further options: see `TorchCell`.

    Conventions differ. Here z keeps the *old* state, as in Cho et al. 2014 and PyTorch; Chung et al. 2014 exchange z
    and 1 − z. r is applied after the product with Wh in the first version of Cho et al. (arXiv 1406.1078v1), cuDNN and
    PyTorch, and before it in later versions of the paper (v3, and EMNLP). After the product, r scales bh alone, so the
    two biases of the candidate cannot be merged: PyTorch's bias_ih and bias_hh of n are bx and bh. `two_biases` is
    about r and z.

    chrono  the longest dependency expected: b of z is then log U[1, chrono − 1] (see `nn.init.chrono`)
    """

    gates = 2
    torch_order = (0, 1)
    candidates: Tensor | None = None  # Wx x + bx for each x that a symbol can stand for
    meanings: ClassVar = {
        "r": "reset gate: how much of the old state the candidate sees",
        "z": "update gate: the part of the old state that is kept; 1 − z comes from the candidate",
        "recurrent": "what the old state contributes to the candidate",
        "candidate": "candidate: what may replace the old state, from −1 to 1",
        "h_next": "hidden state: the memory and the output, which the next step reads"}

    def __init__(self, input_size: int, hidden_size: int, *, reset_after: bool = True, chrono: float | None = None,
                 **options: Any):
        super().__init__(input_size, hidden_size, **options)
        self.reset_after = reset_after
        self.Wh, self.Wx = self.weight([self.state_block()]), self.weight([self.input_block()])
        self.bx = self.weight([np.zeros((hidden_size, 1))])
        if reset_after:
            self.bh = self.weight([np.zeros((hidden_size, 1))])
        if chrono is not None:
            self.b.data[self.rows(1)] = chrono_biases((hidden_size, 1), chrono, self.rng)[0]

    @keyed_by("W", "b", "two_biases", "b_state", "of_state", "of_x", "Wh", "bh", "Wx", "bx", "candidates",
              "reset_after")
    def cell(self, h_prev: Array, x: Array) -> tuple[Array, Array]:
        gates = sigmoid(self.product(h_prev, x))
        r, z = split(gates, 2)
        recurrent = r * (self.Wh @ h_prev + self.bh) if self.reset_after else self.Wh @ (r * h_prev)
        candidate = tanh(self.input_product(x) + recurrent)
        h_next = (1.0 - z) * candidate + z * h_prev
        return h_next, h_next

    def input_product(self, x: Array) -> Array:
        """Wx x + bx."""
        return self.Wx @ x + self.bx if self.candidates is None else self.candidates[:, x]

    def products_of(self, columns: Array) -> dict[str, Array]:
        return {**super().products_of(columns), "candidates": self.Wx @ columns + self.bx}

    def to_torch(self) -> dict[str, np.ndarray]:
        """As PyTorch's GRUCell, rows r, z, n. Raises ValueError with reset_after=False, which PyTorch does not have."""
        if not self.reset_after:
            raise ValueError("PyTorch's GRU resets after the product, and this one has reset_after=False: its weights "
                             "do not fit PyTorch's")
        gates = super().to_torch()
        candidate = {"weight_ih": self.Wx.data, "weight_hh": self.Wh.data,
                     "bias_ih": self.bx.data[:, 0], "bias_hh": self.bh.data[:, 0]}
        return {name: np.concatenate([gates[name], candidate[name]]) for name in gates}

    def load_torch(self, arrays: Mapping[str, Any]) -> None:
        arrays = matching(arrays, self.to_torch(), type(self).__name__)
        (w_ih, Wx), (w_hh, Wh), (b_ih, bx), (b_hh, bh) = (np.split(arrays[name], [2 * self.hidden_size])
                                                          for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        self.W.data = np.ascontiguousarray(np.hstack([w_hh, w_ih]))
        self.load_biases(b_ih, b_hh)
        for ours, theirs in ((self.Wh, Wh), (self.Wx, Wx), (self.bh, bh[:, None]), (self.bx, bx[:, None])):
            ours.data = np.array(theirs, order="C")


class LSTMCell(TorchCell):
    """The document's cell, its three sigmoids in one:

        ft, it, ot = σ(W [a_prev; x] + b), the first three blocks of rows      cct = tanh(…), the fourth
        c_next = ft ∘ c_prev + it ∘ cct                    a_next = ot ∘ tanh(c_next)

    W (4H, H + D), b (4H, 1), rows f, i, o, c; state (a, c). Wf, bf, Wi, bi, Wo, bo, Wc, bc are views of them, named as
    in the document's `parameters`. Further options: see `TorchCell`. Gers, Schmidhuber & Cummins 2000.

    forget_bias  initial value of bf; 1 lets the gradient reach further from the start of training (Jozefowicz et al.
                 2015)
    chrono       the longest dependency expected: then bf = log U[1, chrono − 1] and bi = −bf (see `nn.init.chrono`)
    """

    gates = 4
    torch_order = (1, 0, 3, 2)  # f, i, o, c ⇄ i, f, g, o
    states = ("h0", "c0")
    meanings: ClassVar = {
        "ft": "forget gate: the part of the old cell state that is kept",
        "it": "input gate: the part of the candidate that comes in",
        "ot": "output gate: the part of tanh(c_next) that is passed on",
        "cct": "candidate: what may come into the cell state, from −1 to 1",
        "c_next": "cell state: the memory, which the gates keep and change",
        "a_next": "hidden state: the output, which the next step reads too"}

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, chrono: float | None = None,
                 **options: Any):
        super().__init__(input_size, hidden_size, **options)
        self.bf[:] = forget_bias
        if chrono is not None:
            self.bf[:], self.bi[:] = chrono_biases((hidden_size, 1), chrono, self.rng)

    @keyed_by("W", "b", "two_biases", "b_state", "of_state", "of_x", "hidden_size")
    def cell(self, state: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        a_prev, c_prev = state
        z = self.product(a_prev, x)
        gates = sigmoid(z[:3 * self.hidden_size])
        ft, it, ot = split(gates, 3)
        cct = tanh(z[3 * self.hidden_size:])
        c_next = ft * c_prev + it * cct
        a_next = ot * tanh(c_next)
        return (a_next, c_next), a_next

    Wf, bf, Wi, bi, Wo, bo, Wc, bc = (gate_view(name, gate) for gate in range(4) for name in "Wb")
