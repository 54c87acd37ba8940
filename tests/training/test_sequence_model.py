"""The model of a sequence task: inputs and outputs, user-defined cells, and the same numbers as PyTorch."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.engine.pytree import flatten
from minigrad.training.sequence_model import LAYERS, SequenceModel

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
    # the state is carried: two pieces give the same as the whole
    first, between = model(x[:2])
    second, end = model(x[2:], between)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(np.concatenate([first.data, second.data]), outputs.data, atol=tolerance)
    for one, other in zip(flatten(end)[0], flatten(state)[0]):
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


def test_some_rows_restart_and_the_others_continue(file):
    """Also for a learned initial state, through which gradients flow."""
    for cell in ("lstm", f"{file}:Leaky"):
        model = SequenceModel(7, 2, cell=cell, hidden=5, layers=2, rng=0)
        x = data(model)
        _, state = model(x)
        rows = np.array([False, True, False])
        outputs, _ = model(x, model.restart(state, rows))
        fresh, carried = model(x)[0].data, model(x, state)[0].data
        np.testing.assert_array_equal(outputs.data, np.where(rows[None, :, None], fresh, carried))
        outputs.sum().backward()
    assert np.abs(model.recurrent.layers["l1"].start.grad).min() > 0


NOT_SYMBOLS = [(np.array([[7]]), "takes symbols from 0 to 6, and x contains 7 to 7"),
               (np.array([[-1, 2]]), "takes symbols from 0 to 6, and x contains -1 to 2"),
               (np.array([[0.0]]), r"symbols as integers from 0 to 6, and x is float64 .* without symbols=True"),
               (np.ones((5, 3, 7), np.float32), r"x is float32 of shape \(5, 3, 7\): if it contains features"),
               (np.ones((5, 3), bool), "x is bool"),
               (np.zeros((5, 3, 7), int), r"symbols of shape \(T, B\), or \(T,\) for one sequence, not \(5, 3, 7\)")]


@pytest.mark.parametrize("x, says", NOT_SYMBOLS)
@pytest.mark.parametrize("embedding", [None, 2])
def test_inputs_other_than_symbols_are_refused_in_the_name_of_the_model(x, says, embedding):
    model = SequenceModel(7, 2, hidden=5, symbols=True, embedding=embedding, rng=0)
    for given in (x, mg.tensor(x), x.tolist()) if x.dtype != np.float32 else (x, mg.tensor(x)):
        with pytest.raises(ValueError, match=f"^this SequenceModel .*{says}"):
            model(given)


@pytest.mark.parametrize("shape", [(7, 10), (10, 16), (5,), (5, 3, 10)])
def test_integers_for_a_model_of_features_suggest_symbols(shape):
    """Even if some sizes agree."""
    model = SequenceModel(10, 2, hidden=5, rng=0)
    for x in (np.zeros(shape, int), mg.tensor(np.zeros(shape, np.uint8)), np.zeros(shape, int).tolist()):
        with pytest.raises(ValueError, match=r"takes features, .* x contains integers, .* build it with symbols=True"):
            model(x)
    with pytest.raises(ValueError, match=r"SequenceModel takes features of shape \(T, B, 10\), or .* not \(5, 16\)"):
        model(np.zeros((5, 16)))


def test_features_are_cast_to_the_models_dtype():
    model = SequenceModel(7, 2, hidden=5, rng=0)
    x = np.random.default_rng(0).normal(size=(5, 3, 7))
    expected = model(x.astype(np.float32))[0]
    given = mg.tensor(x, requires_grad=True)
    for one in (x, x.tolist(), given):
        assert np.array_equal(model(one)[0].data, expected.data)
    (model(given)[0] ** 2).sum().backward()
    assert given.grad.dtype == np.float64 and given.grad.any()
    assert model(x > 0)[0].dtype == np.float32


@pytest.mark.parametrize("cell, sentence", [
    ("lsmt", "'lsmt' is neither rnn, gru, lstm nor FILE.py:Class: did you mean lstm?"),
    ("nowhere.py:Cell", "nowhere.py is not a file"),
    ("{file}:Leeky", "{file} has no class 'Leeky': did you mean Leaky?"),
    ("{file}:leaky", "leaky in {file} is not a class; its type is int"),
    ("{file}:Dense", "{file}:Dense is not a subclass of nn.Recurrent: derive it from that"),
    ("{file}:Bare", "{file}:Bare cannot be built as Bare(input_size, hidden_size, dtype=…, rng=…): "),
    ("{file}:Broken", "{file}:Broken does not run on sequences of shape (2, 3, 7): AttributeError: 'Broken' object has "
                      "no attribute 'V' (at {file}:"),
    ("{file}:Narrow", "{file}:Narrow returns y of shape (2, 3, 1) for sequences of shape (2, 3, 7), and a layer of 5 "
                      "units returns (2, 3, 5): let its cell return y of shape (H, B)"),
])
def test_a_cell_that_does_not_fit_is_refused_in_a_sentence(cell, sentence, file):
    with pytest.raises(ValueError) as error:
        SequenceModel(7, 2, cell=cell.format(file=file), hidden=5)
    assert sentence.format(file=file) in str(error.value) and "\n" not in str(error.value)


def test_options_of_the_cell(file):
    assert SequenceModel(7, 2, cell="lstm", hidden=5, chrono=50, rng=0).recurrent.layers["l0"].bf.min() >= 0
    for wrong, says in (({"cell": "rnn", "chrono": 50}, "the cell rnn has no option chrono: it takes .*, nonlinearity"),
                        ({"hiden": 5}, r"has no option hiden \(did you mean hidden\?\): it takes inputs, outputs"),
                        ({"num_layers": 2}, r"SequenceModel has no option num_layers \(did you mean layers\?\)"),
                        ({"bidirectional": True}, "SequenceModel has no option bidirectional: it takes"),
                        ({"cell": f"{file}:Leaky", "chrono": 3}, "Leaky has no option chrono: it takes inputs")):
        with pytest.raises(ValueError, match=says) as error:
            SequenceModel(7, 2, **wrong)
        assert isinstance(error.value, TypeError) and "Stacked" not in str(error.value)
    with pytest.raises(ValueError, match="dropout from 0 to less than 1"):
        SequenceModel(7, 2, hidden=5, dropout=1.5)


def test_it_computes_the_same_as_pytorchs_embedding_lstm_and_linear():
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
