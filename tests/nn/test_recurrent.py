"""Recurrent layers against PyTorch, against complex steps in every configuration, and against single sequences."""

import copy
import gc
import itertools
import pickle
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.document import lstm_forward
from minigrad.engine.pytree import map_leaves
from minigrad.timeloop.compile import compiler

GOLDEN = Path(__file__).parents[1] / "golden"
MAKE = runpy.run_path(str(GOLDEN / "make_torch_recurrent.py"))
SIZES = MAKE["SIZES"]

# name → layer, options of its cells; PyTorch lacks "GRU before"
KINDS = {
    "RNN": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "GRU": (nn.GRU, {}),
    "GRU before": (nn.GRU, {"reset_after": False}),
    "LSTM": (nn.LSTM, {}),
}
TORCH_KINDS = [kind for kind in KINDS if kind != "GRU before"]
CELLS = {"RNN": nn.RNNCell, "GRU": nn.GRUCell, "LSTM": nn.LSTMCell}


def make(kind, input_size=3, hidden_size=4, rng=0, dtype=np.float64, **options):
    """A layer with random weights and biases: zeros could hide a mistake."""
    layer, more = KINDS[kind]
    model = layer(input_size, hidden_size, dtype=dtype, rng=rng, **more, **options)
    rng = np.random.default_rng(rng)
    for p in model.parameters():
        p.data = rng.uniform(-0.8, 0.8, p.shape)
    return model


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def leaves(state):
    return state if isinstance(state, tuple) else (state,)


# -- PyTorch ------------------------------------------------------------------------------------------------------


def agrees_with_torch(data, kind, options, lengths=None, rtol=1e-12):
    """Results and all gradients of a run of PyTorch, computed from its inputs and parameters."""
    layer, more = KINDS[kind]
    model = layer(data["x"].shape[2], data["h0"].shape[2], dtype=float, rng=0, **options, **more)
    names = list(model.to_torch())
    model.load_torch({name: data[name] for name in names})
    starts = [mg.tensor(data[name], requires_grad=True) for name in ("x", "h0", "c0") if name in data]
    x, *start = starts
    output, end = model(x, tuple(start) if len(start) == 2 else start[0], lengths)
    results = dict(zip(("output", "h_n", "c_n"), (output, *leaves(end))))
    sum(mg.sum(data[d] * value) for d, value in zip(("d_output", "d_h", "d_c"), results.values())).backward()

    found = {**{name: value.detach().numpy() for name, value in results.items()},
             **{f"grad {name}": leaf.grad for name, leaf in zip(("x", "h0", "c0"), starts)}}
    for p in model.parameters():
        p.data = p.grad
    gradients = model.to_torch()
    for name, d in gradients.items():
        if name.startswith("bias_hh"):  # our one bias is the sum of PyTorch's two, which have its gradient
            shared = gradients[name.replace("_hh", "_ih")]
            d = np.concatenate([shared[:-4], d[-4:]]) if kind == "GRU" else shared
        found[f"grad {name}"] = d
    for name, value in found.items():
        np.testing.assert_allclose(value, data[name], rtol=rtol, atol=rtol, err_msg=name)
    assert set(data) <= {*found, *names, "x", "h0", "c0", "d_output", "d_h", "d_c"}, "something is not compared"


@pytest.mark.parametrize("row", MAKE["CONFIGURATIONS"], ids=lambda row: row[0])
def test_golden_file_of_torch(row):
    with np.load(GOLDEN / "torch_recurrent.npz") as file:
        data = {key.partition(": ")[2]: file[key] for key in file.files if key.startswith(row[0] + ":")}
    agrees_with_torch(data, *row)


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("lengths", [None, [3, 5, 1]], ids=["full", "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_torch(kind, num_layers, bidirectional, lengths, batch_first):
    pytest.importorskip("torch")
    row = kind, {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first}, lengths
    agrees_with_torch(MAKE["torch_recurrent"](*row, **SIZES, seed=2), *row)


@pytest.mark.parametrize("steps, batch, lengths", [(1, 2, None), (1, 3, [1, 1, 1]), (4, 1, [3]), (6, 3, [2, 4, 3])],
                         ids=["one step", "one step, lengths", "one sequence", "none is full"])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_torch_at_the_edges(kind, steps, batch, lengths):
    pytest.importorskip("torch")
    row = kind, {"num_layers": 2, "bidirectional": True}, lengths
    data = MAKE["torch_recurrent"](*row, input_size=5, hidden_size=4, batch=batch, steps=steps, seed=3)
    agrees_with_torch(data, *row)


def test_torch_after_a_thousand_steps():
    pytest.importorskip("torch")
    data = MAKE["torch_recurrent"]("LSTM", {}, input_size=2, hidden_size=4, batch=2, steps=1000)
    agrees_with_torch(data, "LSTM", {}, rtol=1e-10)


@pytest.mark.parametrize("kind", CELLS)
def test_torch_cells(kind):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, kind + "Cell")(3, 4, dtype=torch.float64)
    cell = CELLS[kind](3, 4, dtype=float)
    cell.load_torch(theirs.state_dict())
    x, h, c = normal(2, 3), normal(2, 4, seed=2), normal(2, 4, seed=3)
    for one, state in itertools.product((slice(None), 0), (True, False)):  # a batch, and one of it
        given = (x[one], (h[one], c[one]) if kind == "LSTM" else h[one])[:1 + state]
        for a, b in zip(leaves(cell(*given)), leaves(theirs(*map_leaves(torch.tensor, given))), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_torch_loads_the_arrays_of_to_torch(kind):
    torch = pytest.importorskip("torch")
    model = make(kind, num_layers=2, bidirectional=True)
    nonlinearity = {"nonlinearity": "relu"} if kind == "relu" else {}
    theirs = getattr(torch.nn, "RNN" if kind == "relu" else kind)(3, 4, 2, bidirectional=True, dtype=torch.float64,
                                                                 **nonlinearity)
    assert list(model.to_torch()) == list(theirs.state_dict())  # also the order is PyTorch's
    theirs.load_state_dict({name: torch.tensor(array) for name, array in model.to_torch().items()})
    x = normal(5, 2, 3)
    np.testing.assert_allclose(model(x)[0].detach().numpy(), theirs(torch.tensor(x))[0].detach().numpy(),
                               rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_round_trip_through_torch_is_exact(kind, num_layers, bidirectional):
    model, other = (make(kind, rng=seed, num_layers=num_layers, bidirectional=bidirectional) for seed in (1, 2))
    other.load_torch(model.to_torch())
    for (name, p), (_, q) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert np.array_equal(p.data, q.data) and p.data is not q.data, name
    x = normal(4, 2, 3)
    assert np.array_equal(model(x)[0].data, other(x)[0].data)
    assert all(np.array_equal(a, other.to_torch()[name]) for name, a in model.to_torch().items())


def test_load_torch_names_every_difference_and_changes_nothing():
    model = make("LSTM")
    before, arrays = model.state_dict(), model.to_torch()
    arrays["weight_hr_l0"] = arrays.pop("bias_ih_l0")
    arrays["weight_ih_l0"] = arrays["weight_ih_l0"].T
    with pytest.raises(ValueError, match=r"of this LSTM: missing bias_ih_l0; unexpected weight_hr_l0; "
                                         r"weight_ih_l0 has shape \(3, 16\) and must have \(16, 3\)"):
        model.load_torch(arrays)
    assert all(np.array_equal(before[name], a) for name, a in model.state_dict().items())
    with pytest.raises(ValueError, match="PyTorch's GRU resets after the product"):
        make("GRU before").to_torch()


# -- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [1, 3]], ids=["full", "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, num_layers, bidirectional, lengths):
    model = make(kind, 2, 3, num_layers=num_layers, bidirectional=bidirectional)
    start = [normal(num_layers * (1 + bidirectional), 2, 3, seed=seed) for seed in (4, 5)]
    start = tuple(start) if kind == "LSTM" else start[0]
    report = mg.gradcheck(lambda x, state: model(x, state, lengths), normal(3, 2, 2), start, directions=4)
    assert len(report.rows) == 1 + len(leaves(start)) + len(model.parameters())
    assert report.method == "complex step"


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_learned_state_one_sequence_and_one_step(kind):
    model = make(kind, 2, 3, learned_state=True, bidirectional=True)
    report = mg.gradcheck(model, normal(1, 2))
    assert {"layers.l0.h0", "layers.l0_reverse.W"} <= {row.name for row in report.rows}
    assert all(row.derived for row in report.rows) or kind == "relu"  # nonzero: every parameter has an effect


@pytest.mark.parametrize("kind", ["RNN", "GRU", "GRU before", "LSTM"])
def test_gradients_of_the_gradients(kind):
    model = make(kind, 2, 2, bidirectional=True)
    mg.gradcheck(lambda x: model(x, lengths=[2, 1]), normal(2, 2, 2), order=2, directions=4)


def test_gradients_through_dropout():
    model = make("GRU", 2, 3, num_layers=2, dropout=0.5)

    def f(x):
        model.rng = np.random.default_rng(7)
        return model(x)

    mg.gradcheck(f, normal(3, 2, 2))
    with pytest.raises(mg.GradcheckError, match="not deterministic"):
        mg.gradcheck(model, normal(3, 2, 2))


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_of_cells(kind):
    mg.gradcheck(CELLS[kind](2, 3, rng=0), normal(2, 2))


# -- meaning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_sequence_of_a_batch_is_as_if_alone(kind, batch_first):
    """Numbers past the ends, NaN included, have no effect on results, nor on the gradients of the parameters."""
    model = make(kind, num_layers=2, bidirectional=True, batch_first=batch_first)
    lengths, steps = [4, 1, 6, 3], 6
    x = normal(steps, 4, 3)
    for b, n in enumerate(lengths):
        x[n:, b] = np.nan
    output, state = model(np.swapaxes(x, 0, 1) if batch_first else x, lengths=np.array(lengths))
    together = mg.grad(lambda p: mg.sum(mg.square(run_with(model, p, x, lengths))))(model.state_dict())
    apart = []
    for b, n in enumerate(lengths):
        mine, end = model(x[:n, b])
        found = (output[b] if batch_first else output[:, b]).detach().numpy()
        np.testing.assert_allclose(found[:n], mine.detach().numpy(), rtol=1e-12, atol=1e-14)
        assert not found[n:].any()
        for a, leaf in zip(leaves(state), leaves(end), strict=True):
            np.testing.assert_allclose(a[:, b].detach().numpy(), leaf.detach().numpy(), rtol=1e-12, atol=1e-14)
        apart.append(mg.grad(lambda p, b=b, n=n: mg.sum(mg.square(run_with(model, p, x[:n, b]))))(model.state_dict()))
    for name, d in together.items():
        np.testing.assert_allclose(d, sum(one[name] for one in apart), rtol=1e-11, atol=1e-13, err_msg=name)


def run_with(model, values, x, lengths=None):
    """The output of a copy of the model that has these values as its parameters."""
    model = copy.deepcopy(model)
    model.batch_first = False
    for cell_name, cell in model.layers.items():
        for name in [name for name, _ in cell.named_parameters()]:
            setattr(cell, name, values[f"layers.{cell_name}.{name}"])
    return model(x, lengths=lengths)[0]


def test_lstm_is_the_documents():
    model = make("LSTM")
    cell = model.layers["l0"]
    names = "Wf bf Wi bi Wo bo Wc bc".split()
    parameters = {name: getattr(cell, name) for name in names} | {"Wy": normal(2, 4), "by": normal(2, 1)}
    x, a0 = normal(5, 2, 3), normal(2, 4, seed=8)
    a, _, c, _ = lstm_forward(x.transpose(2, 1, 0), a0.T, parameters)
    output, (h, c_n) = model(x, (a0[None], np.zeros((1, 2, 4))))
    np.testing.assert_allclose(output.detach().numpy(), a.transpose(2, 1, 0), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(h.detach().numpy()[0], a[:, :, -1].T, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(c_n.detach().numpy()[0], c[:, :, -1].T, rtol=1e-13, atol=1e-15)
    assert [parameters[name].shape for name in names[:2]] == [(4, 7), (4, 1)]
    assert all(np.shares_memory(parameters[name], (cell.W if name[0] == "W" else cell.b).data) for name in names)


def test_gru_that_resets_before_the_product():
    """Cho et al. 2014, equations 5 to 8, in plain NumPy."""
    model = make("GRU before")
    p = model.layers["l0"]
    Wr, Wz, br, bz = p.W.data[:4], p.W.data[4:], p.b.data[:4], p.b.data[4:]
    x, h = normal(5, 2, 3), np.zeros((4, 2))
    for t in range(5):
        concat = np.concatenate([h, x[t].T])
        r, z = (1 / (1 + np.exp(-(W @ concat + b))) for W, b in ((Wr, br), (Wz, bz)))
        candidate = np.tanh(p.Wx.data @ x[t].T + p.bx.data + p.Wh.data @ (r * h))
        h = z * h + (1 - z) * candidate
    np.testing.assert_allclose(model(x)[1].detach().numpy()[0], h.T, rtol=1e-13)
    assert "bh" not in dict(p.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_two_pieces(kind):
    model, x = make(kind, num_layers=2), normal(7, 2, 3)
    whole, end = model(x)
    first, state = model(x[:3])
    second, again = model(x[3:], state)
    np.testing.assert_allclose(mg.concatenate([first, second]).detach().numpy(), whole.detach().numpy(), atol=1e-14)
    for a, b in zip(leaves(end), leaves(again), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-14)


def test_names_that_a_derived_cell_shows():
    lstm = nn.LSTMCell(3, 4, rng=0)
    a = np.zeros((4, 2), np.float32)
    source = mg.derive(lambda a_prev, c_prev, x: lstm.cell((a_prev, c_prev), x)[0], a, a, a[:3]).source
    assert all(name in source for name in ("concat", "ft", "it", "ot", "cct", "c_next", "a_next", "W @ concat + b"))


@pytest.mark.parametrize("kind", TORCH_KINDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_two_biases_of_pytorch_are_added_in_float64(kind, dtype):
    layer = make(kind, dtype=np.float32)
    arrays = {name: array.astype(dtype) for name, array in layer.to_torch().items()}
    for one, other in ((1.0, 3e-4), (40000, 40000)):
        arrays["bias_ih_l0"][:], arrays["bias_hh_l0"][:] = one, other
        layer.load_torch(arrays)
        added = (arrays["bias_ih_l0"].astype(float) + arrays["bias_hh_l0"].astype(float)).astype(np.float32)
        assert (layer.layers["l0"].b.data == added[0]).all()


def test_dropout_is_between_layers_and_in_training_only():
    x = normal(50, 8, 3)
    model, other = (nn.RNN(3, 64, 2, dropout=0.25, nonlinearity="relu", dtype=float, rng=3) for _ in range(2))
    below = model.layers["l0"].run(mg.tensor(x.transpose(0, 2, 1)))[1]
    dropped = model.apply_dropout(below).data
    ratio = dropped[below.data > 0] / below.data[below.data > 0]
    assert set(np.round(np.unique(ratio), 12)) == {0.0, np.round(1 / 0.75, 12)}
    assert abs((ratio == 0).mean() - 0.25) < 0.01
    other.apply_dropout(below)
    assert np.array_equal(model(x)[0].data, other(x)[0].data)  # one seed, one result
    assert not np.array_equal(model(x)[0].data, model(x)[0].data)
    plain = nn.RNN(3, 64, 2, nonlinearity="relu", dtype=float, rng=3)
    assert np.array_equal(model.eval()(x)[0].data, plain(x)[0].data)
    with pytest.warns(UserWarning, match="RNN has one layer.*dropout.*nn.Dropout"):
        single = nn.RNN(3, 4, dropout=0.9, dtype=float, rng=3)
    assert np.array_equal(single(x)[0].data, single(x)[0].data)


def test_learned_state_is_where_a_sequence_starts():
    model = make("LSTM", num_layers=2, bidirectional=True, learned_state=True)
    names = [name for name, _ in model.layers["l1_reverse"].named_parameters()]
    assert names == ["W", "b", "h0", "c0"]
    given = tuple(np.stack([np.repeat(getattr(cell, name).data.T, 2, axis=0) for cell in model.layers.values()])
                  for name in ("h0", "c0"))
    x = normal(3, 2, 3)
    assert np.array_equal(model(x)[0].data, model(x, given)[0].data)
    fresh = nn.GRU(3, 4, learned_state=True, rng=0)
    assert not fresh.layers["l0"].h0.data.any()


@pytest.mark.parametrize("kind", KINDS)
def test_dtypes(kind):
    layer, more = KINDS[kind]
    model = layer(3, 4, 2, bidirectional=True, rng=0, **more)
    x = normal(5, 2, 3)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}
    for given, dtype in ((x.astype(np.float32), np.float32), ((x > 0).astype(int), np.float32), (x > 0, np.float32),
                         (x, np.float32), (x.tolist(), np.float32), (x.astype(np.float16), np.float32),
                         (x.astype(complex), np.complex128)):
        output, state = model(given, lengths=[5, 2])
        assert {output.dtype, *(leaf.dtype for leaf in leaves(state))} == {np.dtype(dtype)}
    start = map_leaves(lambda leaf: np.zeros(leaf.shape), state)  # float64
    output, state = model(x, start)
    assert {output.dtype, *(leaf.dtype for leaf in leaves(state))} == {np.dtype(np.float32)}
    mg.sum(model(x.astype(np.float32))[0]).backward()
    assert all(p.grad.dtype == np.float32 and p.grad.shape == p.shape for p in model.parameters())


def test_same_seed_same_bits_and_copies():
    first, second = (nn.LSTM(3, 4, 2, bidirectional=True, rng=5).state_dict() for _ in range(2))
    other = nn.LSTM(3, 4, 2, bidirectional=True, rng=6).state_dict()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["layers.l0.W"], other["layers.l0.W"])
    assert not np.array_equal(first["layers.l0.W"], first["layers.l0_reverse.W"])
    model, x = make("GRU"), normal(3, 2, 3)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(model(x)[0].data, twin(x)[0].data)
        assert not np.shares_memory(model.layers["l0"].W.data, twin.layers["l0"].W.data)


def test_first_values():
    cell = nn.LSTM(30, 20, rng=0).layers["l0"]
    assert (cell.bf == 1).all() and not any(b.any() for b in (cell.bi, cell.bo, cell.bc))
    for gate in "fioc":
        W = getattr(cell, "W" + gate)
        np.testing.assert_allclose(W[:, :20] @ W[:, :20].T, np.eye(20), atol=1e-5)
        assert np.sqrt(6 / 50) * 0.9 < np.abs(W[:, 20:]).max() <= np.sqrt(6 / 50) * (1 + 1e-6)
    assert (nn.LSTMCell(3, 4, forget_bias=0.5, rng=0).bf == 0.5).all()
    cell = nn.LSTM(3, 500, chrono=100, rng=0).layers["l0"]
    assert np.array_equal(cell.bi, -cell.bf) and not cell.bo.any()
    assert 0 <= cell.bf.min() < np.log(3) and np.log(90) < cell.bf.max() <= np.log(99)
    gru = nn.GRUCell(3, 500, chrono=100, rng=0)
    assert not gru.b.data[:500].any() and np.log(90) < gru.b.data[500:].max() <= np.log(99)


X, H = np.zeros((5, 2, 3)), np.zeros((1, 2, 4))
ERRORS = {
    "rank": (lambda m: m(np.zeros(3)), r"LSTM takes x of shape \(time, batch, features\), or .*, not \(3,\)"),
    "size": (lambda m: m(np.zeros((5, 2, 4))), r"LSTM takes 3 features, .* x has shape \(5, 2, 4\)"),
    "no steps": (lambda m: m(np.zeros((0, 2, 3))), "sequences of one step or more, and x has none"),
    "length 0": (lambda m: m(X, lengths=[0, 5]), r"lengths from 1 to 5, the steps of x, not \[0, 5\]"),
    "length 6": (lambda m: m(X, lengths=[6, 5]), r"lengths from 1 to 5, the steps of x, not \[6, 5\]"),
    "float length": (lambda m: m(X, lengths=[1.0, 5]), "one integer for each of 2 sequences, not float64"),
    "one length": (lambda m: m(X, lengths=[5]), r"one integer for each of 2 sequences, not int64 of shape \(1,\)"),
    "no pair": (lambda m: m(X, H), r"takes a state of shape \(1, 2, 4\) and \(1, 2, 4\), not \(1, 2, 4\)$"),
    "state size": (lambda m: m(X, (H, H[:, :1])), r"and \(1, 2, 4\), not \(1, 2, 4\) and \(1, 1, 4\)"),
    "state rank": (lambda m: m(X[:, 0], (H, H)), r"a state of shape \(1, 4\) and \(1, 4\), not \(1, 2, 4\)"),
    "empty state": (lambda m: m(X, ()), "not nothing"),
    "layers": (lambda m: nn.LSTM(3, 4, 0), "num_layers .* ≥ 1, not 0"),
    "hidden": (lambda m: nn.LSTM(3, 0), "^LSTM takes hidden_size .* ≥ 1, not 0"),
    "true layers": (lambda m: nn.LSTM(3, 4, True), "^LSTM takes num_layers .* ≥ 1, not True"),
    "half a layer": (lambda m: nn.LSTM(3, 4, 1.5), "num_layers .* ≥ 1, not 1.5"),
    "hidden in words": (lambda m: nn.LSTM(3, "4"), "hidden_size .* ≥ 1, not '4'"),
    "lengths as state": (lambda m: m(X, [5, 4, 3, 3, 2, 1]), r"not \(\) and \(\) and \(\) and \(\) and 2 more$"),
    "dropout": (lambda m: nn.LSTM(3, 4, dropout=1.0), "from 0 to less than 1, not 1.0"),
    "nonlinearity": (lambda m: nn.RNN(3, 4, nonlinearity="sin"), "'tanh' or 'relu', not 'sin'"),
    "chrono": (lambda m: nn.LSTM(3, 4, chrono=1), "2 steps or more, not 1"),
    "cell size": (lambda m: m.layers["l0"](np.zeros((2, 4))), "LSTMCell takes 3 features"),
    "cell rank": (lambda m: m.layers["l0"](np.zeros((5, 2, 3))), r"one step of LSTMCell takes x .*\(5, 2, 3\)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call(nn.LSTM(3, 4, rng=0))


@pytest.mark.parametrize("make, message", [
    (lambda: nn.GRU(3, 4).load_torch([1]), "GRU takes arrays by name.*state_dict.*, not .* list")])
def test_errors_of_type(make, message):
    with pytest.raises(TypeError, match=message):
        make()


# -- symbols that stand for the rows of a table -----------------------------------------------------------------


def with_and_without_table(model, symbols, table, lengths=None, state=None):
    """(results and gradients with the table, those with its rows as x)"""
    both = []
    for rows in (False, True):
        model.zero_grad()
        table.grad = None
        y, final = model(mg.take(table, symbols, axis=0), state, lengths) if rows else \
            model(symbols, state, lengths, table=table)
        sum(mg.sum(a * normal(*a.shape, seed=9)) for a in (y, *leaves(final))).backward()
        both.append([a.detach().numpy() for a in (y, *leaves(final))] + [p.grad for p in (table, *model.parameters())])
    return both


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"batch_first": True},
                                     {"two_biases": True, "learned_state": True}], ids=str)
@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_symbols_stand_for_rows_of_a_table(kind, products, options, monkeypatch):
    monkeypatch.setattr(nn.cells.TorchCell, "saves_products", lambda cell, symbols, rows: products)
    rows = 4
    model, table = make(kind, **options), mg.tensor(normal(rows, 3), requires_grad=True)
    symbols = np.random.default_rng(2).integers(0, rows, (5, 6))
    lengths = [5, 1, 3, 4, 5, 2] if not model.batch_first else [6, 1, 3, 4, 5]
    for got, expected in zip(*with_and_without_table(model, symbols, table, lengths)):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)
    for got, expected in zip(*with_and_without_table(model, np.resize([1, 0, 3], 7), table)):  # one sequence
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_products_are_looked_up_where_that_takes_less_time():
    cell = nn.LSTMCell(128, 128)
    with mg.loops_in("numpy"):
        assert not cell.saves_products(2500, 65)
    assert cell.saves_products(2500, 65) == compiler.enabled()
    assert not any(cell.saves_products(symbols, rows) for symbols, rows in ((64, 65), (70, 65), (2500, 2400)))
    assert not nn.LSTMCell(26, 128).saves_products(3200, 26)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_with_a_table(kind, monkeypatch):
    monkeypatch.setattr(nn.cells.TorchCell, "saves_products", lambda cell, symbols, rows: True)
    model, symbols = make(kind, 2, 3), np.array([[0, 1], [2, 0], [1, 1]])
    assert mg.gradcheck(lambda table: model(symbols, table=table), normal(3, 2), directions=3).method == "complex step"
    mg.gradcheck(lambda table: model(symbols, table=table), normal(3, 2), order=2, directions=2)


def test_a_table_may_be_one_hot_and_padding_may_be_anything():
    model, symbols = make("LSTM"), np.array([[0, 1], [2, 0], [1, -1]], np.int8)
    one_hot = np.eye(3)[symbols]
    y, _ = model(symbols, lengths=[3, 2], table=np.eye(3))
    np.testing.assert_allclose(y.data, model(one_hot, lengths=[3, 2])[0].data, rtol=1e-12)
    assert model(symbols[:, :0], table=np.eye(3))[0].shape == (3, 0, 4)


def test_a_cell_of_ones_own_gets_the_rows_of_a_table():
    class Doubled(nn.LSTMCell):
        def cell(self, state, x):
            return super().cell(state, 2.0 * x)

    class Layers(nn.Stacked):
        Cell = Doubled
    model, table = Layers(3, 4, rng=0, dtype=float), mg.tensor(normal(2, 3), requires_grad=True)
    got, expected = with_and_without_table(model, np.array([[0, 1], [1, 1], [0, 0]]), table)
    assert all(map(np.array_equal, got, expected))


def test_a_recording_shows_the_cell_with_x():
    model = make("LSTM")
    with mg.bptt.record() as recording:
        mg.sum(model(np.array([[0, 1], [2, 0], [1, 1]]), table=np.eye(3))[0]).backward()
    assert "a_prev, c_prev, x, concat, z, gates, ft, it, ot, cct, c_next, a_next; weights W, b" in repr(recording)


@pytest.mark.parametrize("table, symbols, kind, message", [
    (np.eye(3), [[0.0]], TypeError, "LSTM with a table takes x as symbols, integers .*, not float64"),
    (np.eye(3), [[3]], IndexError, "symbols from 0 to 2, and x contains 3 to 3"),
    (np.eye(3), [[-1]], IndexError, "symbols from 0 to 2, and x contains -1 to -1"),
    (np.eye(4), [[0]], ValueError, r"table of shape \(symbols, 3\), .* not \(4, 4\)"),
    (np.zeros((0, 3)), [[0]], ValueError, r"a row for each symbol, not \(0, 3\)"),
    (np.eye(3), [[[0]]], ValueError, r"symbols of shape \(time, batch\), or .*, not \(1, 1, 1\)"),
    (np.eye(3), np.zeros((0, 2), int), ValueError, r"one step or more, not \(0, 2\)")])
def test_errors_of_symbols(table, symbols, kind, message):
    with pytest.raises(kind, match=message):
        nn.LSTM(3, 4, rng=0)(np.array(symbols), table=table)


# -- a cell of one's own ----------------------------------------------------------------------------------------


class Leaky(nn.Recurrent):
    """The example of the docstring, with two more parts of a state and of an output."""

    def __init__(self, size, learned=False, **options):
        super().__init__(**options)
        self.rate = mg.tensor(normal(size, 1), requires_grad=True)
        self.start = mg.tensor(normal(size, 1, seed=3), requires_grad=learned)

    def initial_state(self, batch):
        return {"h": self.start, "count": np.zeros((1, batch))}

    def cell(self, state, x):
        h_next = state["h"] + mg.sigmoid(self.rate) * (x - state["h"])
        return {"h": h_next, "count": state["count"] + 1.0}, (h_next, mg.sum(h_next, axis=0))


def leaky(cell, x):
    """Leaky on one sequence (T, D), in plain NumPy."""
    h, rate, out = cell.start.data[:, 0], 1 / (1 + np.exp(-cell.rate.data[:, 0])), []
    for x_t in x[::-1] if cell.reverse else x:
        h = h + rate * (x_t - h)
        out.append(h)
    return np.array(out[::-1] if cell.reverse else out), h


@pytest.mark.parametrize("batch_first, reverse, lengths", list(itertools.product(
    (False, True), (False, True), (None, [2, 5, 1]))))
def test_own_cell_over_sequences(batch_first, reverse, lengths):
    cell = Leaky(3, batch_first=batch_first, reverse=reverse)
    x = normal(5, 3, 3)
    (h, total), state = cell(np.swapaxes(x, 0, 1) if batch_first else x, lengths=lengths)
    h, total = (value.data if not batch_first else np.swapaxes(value.data, 0, 1) for value in (h, total))
    assert h.shape == (5, 3, 3) and total.shape == (5, 3) and state["h"].shape == (3, 3)
    for b, n in enumerate(lengths or [5, 5, 5]):
        want, end = leaky(cell, x[:n, b])
        np.testing.assert_allclose(h[:n, b], want, rtol=1e-13)
        np.testing.assert_allclose(total[:n, b], want.sum(axis=1), rtol=1e-12)
        np.testing.assert_allclose(state["h"].data[b], end, rtol=1e-13)
        assert np.asarray(state["count"])[b] == n and not h[n:, b].any()


def test_own_cell_with_a_learned_or_a_given_state():
    cell, x = Leaky(3, learned=True), normal(4, 2, 3)
    assert [name for name, _ in cell.named_parameters()] == ["rate", "start"]
    mg.gradcheck(cell, x)
    _, state = cell(x[:2])
    (h, _), _ = cell(x[2:], state)
    np.testing.assert_allclose(h.data, cell(x)[0][0].data[2:], rtol=1e-13)
    mg.gradcheck(lambda x, state: cell(x, state), x, {"h": normal(2, 3), "count": np.zeros((2, 1))})
    (y, _), state = cell.step(x[0, 0])
    assert y.shape == (3,) and state["h"].shape == (3,)
    with pytest.raises(ValueError, match=r"Leaky takes a state of shape \(2, 3\) and \(2, 1\), not \(3, 2\)"):
        cell(x, {"h": normal(3, 2), "count": np.zeros((2, 1))})


def test_own_cell_needs_no_constructor_and_names_a_missing_method():
    class Sum(nn.Recurrent):
        def cell(self, state, x):
            return state + x, state + x

    with pytest.raises(NotImplementedError, match="Sum has no initial state yet: write its method initial_state"):
        Sum()(np.ones((3, 2, 1)))
    Sum.initial_state = lambda self, batch: np.zeros((1, batch))
    output, end = Sum()(np.ones((3, 2, 1)), lengths=[3, 2])
    assert output[:, 1, 0].tolist() == [1, 2, 0] and end[:, 0].tolist() == [3, 2]
    for shape in ((4, 2), (3,), ()):
        Sum.initial_state = lambda self, batch, shape=shape: np.zeros(shape)
        with pytest.raises(ValueError, match=rf"initial_state gave a leaf of shape {re.escape(str(shape))} for 4 seq"):
            Sum()(np.ones((3, 4, 1)))
    with pytest.raises(NotImplementedError, match="Recurrent has no cell yet"):
        nn.Recurrent().cell(None, None)


def test_own_cell_in_layers():
    class Light(nn.RNNCell):
        def cell(self, h, x):
            h = mg.sin(self.W @ mg.concatenate([h, x]) + self.b)
            return h, h

    class Lights(nn.Stacked):
        Cell = Light

    model = Lights(2, 3, 2, bidirectional=True, dtype=float, rng=0)
    mg.gradcheck(lambda x: model(x, lengths=[3, 1]), normal(3, 2, 2))
    assert model(normal(3, 2, 2))[0].shape == (3, 2, 6)


def test_a_call_takes_few_python_calls():
    """At small sizes they are what a forward and backward costs. There were 321, and later 235."""
    layer, x, g, calls = nn.LSTM(7, 12, rng=0), np.ones((12, 1, 7), "f"), np.ones((12, 1, 12), "f"), []

    def profile(frame, event, _):
        if event == "call":
            calls.append(frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)
    before = sys.getprofile()
    gc.collect()
    gc.disable()  # what it would free calls functions, too
    try:
        with mg.loops_in("numpy"):
            for _ in range(2):
                layer(x)[0].backward(g)
            sys.setprofile(profile)
            layer(x)[0].backward(g)
    finally:
        sys.setprofile(before)
        gc.enable()
    assert len(calls) < 160, Counter(calls)
