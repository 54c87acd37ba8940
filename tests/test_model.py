"""The model of a sequence task: what goes in and out, cells of one's own, and PyTorch's numbers."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.model import LAYERS, SequenceModel

OWN = """
import numpy as np
import minigrad as mg
from minigrad import nn

class Leaky(nn.Recurrent):
    def __init__(self, input_size, hidden_size, *, dtype, rng):
        super().__init__()
        self.W = mg.tensor(nn.init.glorot_uniform((hidden_size, input_size), rng, dtype), requires_grad=True)
        self.rate = mg.tensor(np.zeros((hidden_size, 1), dtype), requires_grad=True)
        self.start = mg.tensor(np.ones((hidden_size, 1), dtype), requires_grad=True)

    def initial_state(self, batch):
        return self.start

    def cell(self, h, x):
        h_next = h + mg.sigmoid(self.rate) * (mg.tanh(self.W @ x) - h)
        return h_next, h_next

class Narrow(Leaky):
    def cell(self, h, x):
        h, y = super().cell(h, x)
        return h, y[:1]

class Broken(Leaky):
    def cell(self, h, x):
        return self.V @ x, h

class Bare(nn.Recurrent):
    def __init__(self, size):
        self.size = size

class Dense(nn.Linear):
    pass

leaky = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cells.py"
    path.write_text(OWN)
    return path


def data(model, T=5, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 7, (T, batch)) if model.symbols else rng.normal(size=(T, batch, 7)).astype(np.float32)


CASES = {"floats": {}, "one-hot": {"symbols": True}, "embedding": {"symbols": True, "embedding": 4},
         "deep": {"layers": 3, "symbols": True, "embedding": 2}}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("cell", [*LAYERS, "own"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_states_and_their_dtype(options, cell, dtype, file):
    cell = f"{file}:Leaky" if cell == "own" else cell
    model = SequenceModel(7, 2, cell=cell, hidden=5, dtype=dtype, rng=0, **options)
    x = data(model)
    outputs, state = model(x)
    assert outputs.shape == (5, 3, 2) and outputs.dtype == dtype
    # the state is carried: two pieces are the whole
    first, between = model(x[:2])
    second, end = model(x[2:], between)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(np.concatenate([first.data, second.data]), outputs.data, atol=tolerance)
    for one, other in zip(mg.tree.flatten(end)[0], mg.tree.flatten(state)[0]):
        assert one.shape == (options.get("layers", 1), 3, 5) and one.dtype == dtype
        np.testing.assert_allclose(one.data, other.data, atol=tolerance)


def test_gradients_of_all_parts_pass_the_complex_step():
    model = SequenceModel(7, 2, cell="gru", hidden=4, layers=2, symbols=True, embedding=3, rng=0)
    x, targets = data(model), np.random.default_rng(1).integers(0, 2, (5, 3))

    def loss():
        return nn.cross_entropy(model(x, None, np.array([5, 1, 3]))[0], targets)
    loss.named_parameters = model.named_parameters
    report = mg.gradcheck(loss)
    assert report.method == "complex step"
    assert {row.name for row in report.rows} == dict(model.named_parameters()).keys()


def test_one_hot_is_an_embedding_with_the_identity():
    plain = SequenceModel(7, 2, hidden=5, symbols=True, rng=0)
    embedded = SequenceModel(7, 2, hidden=5, symbols=True, embedding=7, rng=0)
    embedded.load_state_dict(plain.state_dict() | {"embedding.weight": np.eye(7)})
    x = data(plain)
    np.testing.assert_array_equal(plain(x)[0].data, embedded(x)[0].data)


def test_a_row_begins_anew_and_the_others_go_on(file):
    """Also where the initial state is a parameter, through which gradients flow."""
    for cell in ("lstm", f"{file}:Leaky"):
        model = SequenceModel(7, 2, cell=cell, hidden=5, layers=2, rng=0)
        x = data(model)
        _, state = model(x)
        rows = np.array([False, True, False])
        outputs, _ = model(x, model.restarted(state, rows))
        fresh, carried = model(x)[0].data, model(x, state)[0].data
        np.testing.assert_array_equal(outputs.data, np.where(rows[None, :, None], fresh, carried))
        outputs.sum().backward()
    assert np.abs(model.recurrent.layers["l1"].start.grad).min() > 0


@pytest.mark.parametrize("x", [np.array([[7]]), np.array([[-1]]), np.array([[0.0]])])
def test_a_symbol_that_there_is_not(x):
    with pytest.raises(ValueError, match=r"takes symbols as integers from 0 to 6, and x is (int|float)64 of shape"):
        SequenceModel(7, 2, hidden=5, symbols=True)(x)
    with pytest.raises((IndexError, TypeError), match="Embedding"):
        SequenceModel(7, 2, hidden=5, symbols=True, embedding=2)(x)


@pytest.mark.parametrize("cell, sentence", [
    ("lsmt", "'lsmt' is neither rnn, gru, lstm nor FILE.py:Class: did you mean lstm?"),
    ("nowhere.py:Cell", "nowhere.py is not a file"),
    ("{file}:Leeky", "{file} has no class 'Leeky': did you mean Leaky?"),
    ("{file}:leaky", "leaky in {file} is not a class, but of type int"),
    ("{file}:Dense", "{file}:Dense is no subclass of nn.Recurrent: derive it from that"),
    ("{file}:Bare", "{file}:Bare cannot be built as Bare(input_size, hidden_size, dtype=…, rng=…): "),
    ("{file}:Broken", "{file}:Broken does not run on sequences of shape (2, 3, 7): AttributeError: 'Broken' object has "
                      "no attribute 'V' (at {file}:"),
    ("{file}:Narrow", "{file}:Narrow gives y of shape (2, 3, 1) for sequences of shape (2, 3, 7), and a layer of 5 "
                      "units gives (2, 3, 5): let its cell return y of shape (H, B)"),
])
def test_a_cell_that_does_not_fit_is_refused_in_a_sentence(cell, sentence, file):
    with pytest.raises(ValueError) as error:
        SequenceModel(7, 2, cell=cell.format(file=file), hidden=5)
    assert sentence.format(file=file) in str(error.value) and "\n" not in str(error.value)


def test_options_of_the_cell(file):
    assert SequenceModel(7, 2, cell="lstm", hidden=5, chrono=50, rng=0).recurrent.layers["l0"].bf.min() >= 0
    with pytest.raises(ValueError, match=r"rnn cannot be built: .*chrono"):
        SequenceModel(7, 2, cell="rnn", hidden=5, chrono=50)
    with pytest.raises(ValueError, match="dropout from 0 to less than 1"):
        SequenceModel(7, 2, hidden=5, dropout=1.5)


def test_it_is_pytorchs_embedding_lstm_and_linear():
    torch = pytest.importorskip("torch")
    model = SequenceModel(7, 2, hidden=5, layers=2, symbols=True, embedding=3, dtype="float64", rng=0)

    class Same(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.recurrent = torch.nn.Embedding(7, 3), torch.nn.LSTM(3, 5, 2)
            self.linear = torch.nn.Linear(5, 2)
    theirs = Same().double()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in model.to_torch().items()})
    x = data(model)
    output = theirs.linear(theirs.recurrent(theirs.embedding(torch.tensor(x)))[0])
    np.testing.assert_allclose(model(x)[0].data, output.detach().numpy(), atol=1e-12)
