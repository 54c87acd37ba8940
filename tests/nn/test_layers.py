"""Feed-forward layers: values, gradients, PyTorch, parameters, wrong input."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape)


# name → layer in float64, an input, the same as PyTorch has it
LAYERS = {
    "Linear": (lambda: nn.Linear(3, 5, dtype=float, rng=0), normal(4, 2, 3), lambda torch: torch.nn.Linear(3, 5)),
    "Linear without bias": (lambda: nn.Linear(3, 5, False, dtype=float, rng=0), normal(4, 2, 3),
                            lambda torch: torch.nn.Linear(3, 5, False)),
    "Embedding": (lambda: nn.Embedding(6, 3, dtype=float, rng=0), rng.integers(0, 6, (4, 5)),
                  lambda torch: torch.nn.Embedding(6, 3)),
    "LayerNorm": (lambda: nn.LayerNorm(3, 1e-3, dtype=float), normal(4, 2, 3),
                  lambda torch: torch.nn.LayerNorm(3, 1e-3)),
    "LayerNorm of features first": (lambda: nn.LayerNorm(2, axis=-2, dtype=float), normal(4, 2, 3), None),
    "Sequential": (lambda: nn.Sequential(nn.Embedding(6, 3, dtype=float, rng=0), nn.LSTM(3, 4, dtype=float, rng=1),
                                         mg.tanh, nn.Linear(4, 2, dtype=float, rng=2)), rng.integers(0, 6, (5, 2)),
                   None),
}
every = pytest.mark.parametrize("name", LAYERS)


def made(name):
    """The layer, with random parameters, and its input."""
    layer, x, _ = LAYERS[name]
    layer = layer()
    for p in layer.parameters():
        p.data = np.random.default_rng(1).normal(size=p.shape)
    return layer, x


# -- every layer ------------------------------------------------------------------------------------------------------


@every
def test_gradients_to_order_2(name):
    layer, x = made(name)
    if x.dtype.kind == "f":
        report = mg.gradcheck(layer, x, order=2)
        assert [row.name for row in report.rows][:1] == ["x"]
    else:
        def layer_of_symbols():
            return layer(x)
        layer_of_symbols.named_parameters = layer.named_parameters
        report = mg.gradcheck(layer_of_symbols, order=2)
    assert report.ok and report.method == "complex step"


@every
def test_torch(name):
    torch = pytest.importorskip("torch")
    layer, x = made(name)
    if LAYERS[name][2] is None:
        pytest.skip("PyTorch has none of this kind")
    theirs = LAYERS[name][2](torch).double()
    theirs.load_state_dict({key: torch.tensor(array) for key, array in layer.to_torch().items()})
    ours, given = mg.tensor(x, requires_grad=x.dtype.kind == "f"), torch.tensor(x)
    given.requires_grad_(x.dtype.kind == "f")
    y, their_y = layer(ours), theirs(given)
    g = normal(*y.shape)
    y.backward(g)
    their_y.backward(torch.tensor(g))
    np.testing.assert_allclose(y.data, their_y.detach().numpy(), rtol=1e-12, atol=1e-13)
    pairs = [(p.grad, dict(theirs.named_parameters())[key].grad) for key, p in layer.named_parameters()]
    for a, b in pairs + ([(ours.grad, given.grad)] if x.dtype.kind == "f" else []):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-11, atol=1e-12)


@every
def test_a_torch_state_dict_loads(name):
    torch = pytest.importorskip("torch")
    if LAYERS[name][2] is not None:
        layer, theirs = LAYERS[name][0](), LAYERS[name][2](torch)
        layer.load_torch(theirs.state_dict())
        for key, p in layer.named_parameters():
            assert np.array_equal(p.data, theirs.state_dict()[key].numpy())


@every
def test_an_empty_batch_and_arrays_of_other_shapes(name):
    layer, x = made(name)
    y = layer(x).data
    if name != "Sequential":  # a recurrent layer takes T ≥ 1
        assert layer(x[:0]).shape == (0, *y.shape[1:])
        mg.sum(layer(x[:0])).backward()
        assert all((p.grad == 0).all() for p in layer.parameters())
    if getattr(layer, "axis", -1) == -1:
        assert layer(x[:, :0]).shape == (len(y), 0, *y.shape[2:])
    if name not in ("Sequential", "LayerNorm of features first"):
        np.testing.assert_allclose(layer(x[1, 0]).data, y[1, 0], rtol=1e-13)
    np.testing.assert_array_equal(layer(x.tolist()).data, y)
    np.testing.assert_array_equal(layer(mg.tensor(x)).data, y)


def test_float32_is_the_default_and_stays():
    layers = nn.Sequential(nn.Embedding(6, 3, rng=0), nn.LayerNorm(3), nn.Dropout(0.5, rng=0), nn.Linear(3, 2, rng=0))
    y = layers([[1, 2]])
    mg.sum(y).backward()
    assert {y.dtype, *(x.dtype for p in layers.parameters() for x in (p, p.grad))} == {np.dtype(np.float32)}


IN_ITS_DTYPE = {  # a layer → its result for x (4, 2, 3), or (2, 3) for a cell
    "Linear": (lambda dtype: nn.Linear(3, 5, dtype=dtype, rng=0), lambda y: y),
    "LayerNorm": (lambda dtype: nn.LayerNorm(3, dtype=dtype), lambda y: y),
    "LSTM": (lambda dtype: nn.LSTM(3, 5, 2, bidirectional=True, dtype=dtype, rng=0), lambda y: y[0]),
    "GRUCell": (lambda dtype: nn.GRUCell(3, 5, dtype=dtype, rng=0), lambda y: y),
    "Sequential": (lambda dtype: nn.Sequential(nn.Dropout(0.0), nn.RNN(3, 5, dtype=dtype, rng=0), mg.tanh,
                                               nn.Linear(5, 2, dtype=dtype, rng=0)), lambda y: y),
}


@pytest.mark.parametrize("own", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, np.int64, bool])
@pytest.mark.parametrize("name", IN_ITS_DTYPE)
def test_a_layer_computes_in_the_dtype_of_its_parameters(name, own, given):
    """The gradient of x has the dtype of x."""
    make, result = IN_ITS_DTYPE[name]
    layer = make(own)
    x = (2 * np.random.default_rng(0).normal(size=(2, 3) if name == "GRUCell" else (4, 2, 3))).astype(given)
    x = mg.tensor(x, requires_grad=x.dtype.kind == "f")
    y = result(layer(x))
    assert y.dtype == own and np.array_equal(y.data, result(layer(x.data.astype(own))).data)
    mg.sum(y * y).backward()
    assert all(p.grad.dtype == own for p in layer.parameters())
    assert not x.requires_grad or (x.grad.dtype == given and x.grad.any())


@pytest.mark.parametrize("name", IN_ITS_DTYPE)
def test_gradcheck_goes_through_layers_of_any_dtype(name):
    make, result = IN_ITS_DTYPE[name]
    layer = make(np.float32)
    x = normal(2, 3) if name == "GRUCell" else normal(4, 2, 3)
    for method in ("complex", "central"):
        report = mg.gradcheck(lambda x: result(layer(x)), x, method=method, raise_error=False)
        assert report.ok and report.rows[0].name == "x" and report.rows[0].derived


@pytest.mark.parametrize("name", IN_ITS_DTYPE)
def test_arrays_other_than_numbers_are_refused(name):
    make, _ = IN_ITS_DTYPE[name]
    for x in (np.full((4, 2, 3), "a"), np.full((4, 2, 3), None)):
        with pytest.raises(TypeError, match=r"takes numbers, and x is an array of (<U1|object)"):
            make(np.float32)(x)


def test_the_same_seed_gives_the_same_bits():
    for make in (lambda rng: nn.Linear(3, 5, rng=rng), lambda rng: nn.Embedding(3, 5, rng=rng)):
        a, b, c = make(1), make(1), make(2)
        assert np.array_equal(a.weight.data, b.weight.data) and not np.array_equal(a.weight.data, c.weight.data)
        shared = np.random.default_rng(1)
        assert not np.array_equal(make(shared).weight.data, make(shared).weight.data)


# -- single ones ------------------------------------------------------------------------------------------------------


def test_linear_takes_integers_as_floats():
    layer = nn.Linear(3, 2, rng=0)
    y = layer([[0, 1, 0]])
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.data[0], layer.weight.data[:, 1])


def test_embedding_adds_the_gradients_of_a_row_that_is_used_twice():
    layer = nn.Embedding(4, 2, dtype=float, rng=0)
    y = layer(np.array([[1, 3], [1, 1]], np.uint8))
    np.testing.assert_array_equal(y.data, layer.weight.data[[[1, 3], [1, 1]]])
    y.backward(np.arange(8.0).reshape(2, 2, 2))
    assert layer.weight.grad.tolist() == [[0, 0], [10, 13], [0, 0], [2, 3]]


def test_dropout_keeps_the_mean_and_draws_anew():
    layer, x = nn.Dropout(0.25, rng=0), np.ones((200, 50))
    y = layer(x)
    assert set(np.unique(y)) == {0.0, 1 / 0.75} and abs(y.mean() - 1) < 0.02
    assert not np.array_equal(layer(x), y)
    assert np.array_equal(nn.Dropout(0.25, rng=0)(x), y)
    t = mg.tensor(x, requires_grad=True)
    out = layer(t)
    out.backward(np.ones_like(x))
    assert np.array_equal(t.grad, out.data)


def test_dropout_is_off_in_eval_and_for_p_0():
    x = normal(3, 4)
    assert nn.Dropout(0.0)(x) is x and nn.Dropout(0.5, rng=0).eval()(x) is x
    layer = nn.Dropout(0.5, rng=0)
    before = layer.rng_states()
    layer.eval()(x)
    assert layer.rng_states() == before


def test_variational_dropout_draws_once_for_all_steps():
    y = nn.Dropout(0.5, variational=True, rng=0)(np.ones((7, 3, 40)))
    assert (y == y[:1]).all() and 0 < y.mean() < 2 and not (y[0] == y[0, :1]).all()


def test_dropout_of_integers_and_of_complex_numbers():
    kept = np.unique(nn.Dropout(0.2, rng=0)(np.ones(100, int)))
    assert kept.tolist() == [0, 1.25]
    assert nn.Dropout(0.2, rng=0)(np.full(100, 1j)).max().imag == pytest.approx(1.25)


def test_dropout_resumes_from_its_saved_state():
    model, x = nn.Sequential(nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=1)), np.ones((5, 6))
    model(x)
    states = model.rng_states()
    expected = model(x)
    model.load_rng_states(states)
    assert list(states) == ["0.rng", "1.rng"] and np.array_equal(model(x), expected)


def test_layernorm_normalises_also_extreme_numbers():
    layer = nn.LayerNorm(50, dtype=float)
    y = layer(normal(4, 50) * 1e3 + 1e6).data
    np.testing.assert_allclose([y.mean(-1), y.std(-1)], [[0] * 4, [1] * 4], atol=1e-6)
    assert not layer(np.full((2, 50), 7.0)).data.any()  # nothing varies: 0, not NaN
    y = nn.LayerNorm(3)([[1e15, -1e15, 0]])
    assert np.isfinite(y.data).all()


def test_layernorm_in_a_cell_of_features_first():
    norm, inside, x = nn.LayerNorm(3, dtype=float), nn.LayerNorm(3, axis=-2, dtype=float), normal(6, 3, 2)
    _, ys = mg.scan(lambda h, x: (h, inside(x)), np.zeros((1, 2)), x)
    y = norm(x.transpose(0, 2, 1))
    np.testing.assert_allclose(ys.data, y.data.transpose(0, 2, 1), rtol=1e-12)
    (ys * ys * ys).sum().backward()
    (y * y * y).sum().backward()
    np.testing.assert_allclose(inside.weight.grad, norm.weight.grad, rtol=1e-12)
    np.testing.assert_allclose(inside.bias.grad, norm.bias.grad, rtol=1e-12)


def test_sequential_is_a_list_of_its_modules():
    first, last = nn.Linear(3, 4, rng=0), nn.Linear(4, 2, rng=1)
    model = nn.Sequential(first, mg.tanh, last)
    assert len(model) == 3 and model[0] is first and model[-1] is last and list(model) == [first, mg.tanh, last]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"] == list(model.to_torch())
    np.testing.assert_array_equal(model(np.ones(3)).data, last(np.tanh(first(np.ones(3)))).data)
    assert nn.Sequential()(7) == 7
    assert model.eval().train()[0].training
    with pytest.raises(IndexError):
        model[3]


def test_sequential_passes_on_the_output_of_a_recurrent_layer():
    lstm, linear = nn.LSTM(3, 4, rng=0), nn.Linear(4, 2, rng=1)
    x = normal(5, 2, 3)
    np.testing.assert_array_equal(nn.Sequential(lstm, linear)(x).data, linear(lstm(x)[0]).data)


@pytest.mark.parametrize("call, error, says", [
    (lambda: nn.Linear(0, 2), ValueError, "Linear takes in_features as an integer ≥ 1, not 0"),
    (lambda: nn.Linear(2, 1.5), ValueError, "Linear takes out_features as an integer ≥ 1, not 1.5"),
    (lambda: nn.Linear(3, 2)(np.ones((3, 2))), ValueError,
     r"Linear takes 3 features, the last axis of x, and x has shape \(3, 2\)"),
    (lambda: nn.Linear(3, 2)(1.0), ValueError, r"the last axis of x, and x has shape \(\)"),
    (lambda: nn.Embedding(0, 2), ValueError, "Embedding takes num_embeddings as an integer ≥ 1, not 0"),
    (lambda: nn.Embedding(3, 2)([0.0]), TypeError, "Embedding takes symbols, integers from 0, not float64"),
    (lambda: nn.Embedding(3, 2)([True]), TypeError, "integers from 0, not bool"),
    (lambda: nn.Embedding(3, 2)([0, 3]), IndexError, "Embedding has symbols from 0 to 2, and x contains 0 to 3"),
    (lambda: nn.Embedding(3, 2)(-1), IndexError, "Embedding has symbols from 0 to 2, and x contains -1 to -1"),
    (lambda: nn.Dropout(1.0), ValueError, "Dropout takes a probability from 0 to less than 1, not 1.0"),
    (lambda: nn.Dropout(np.nan), ValueError, "Dropout takes a probability"),
    (lambda: nn.Dropout(variational=True)(1.0), ValueError, "variational Dropout takes x with time as its first axis"),
    (lambda: nn.LayerNorm(0), ValueError, "LayerNorm takes size as an integer ≥ 1, not 0"),
    (lambda: nn.LayerNorm(3, eps=-1), ValueError, "LayerNorm takes an eps ≥ 0 and axis −1 or −2, not -1 and -1"),
    (lambda: nn.LayerNorm(3, axis=0), ValueError, "axis −1 or −2, not 1e-05 and 0"),
    (lambda: nn.LayerNorm(3, axis=-2)(np.ones(3)), ValueError, "3 features, the last axis but one of x"),
    (lambda: nn.LayerNorm(3)(np.ones(4)), ValueError, "LayerNorm takes 3 features"),
    (lambda: nn.Sequential(nn.Linear(1, 1), 3), TypeError, "Sequential takes modules and functions.* number 1 is 3"),
])
def test_bad_input_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("dtype", [int, "i4", bool, np.uint8])
@pytest.mark.parametrize("make", [
    lambda dtype: nn.Linear(3, 2, dtype=dtype), lambda dtype: nn.Embedding(3, 2, dtype=dtype),
    lambda dtype: nn.LayerNorm(3, dtype=dtype), lambda dtype: nn.LSTM(3, 2, dtype=dtype),
    lambda dtype: nn.GRUCell(3, 2, dtype=dtype)])
def test_integer_parameters_are_refused_by_the_name_of_the_layer(make, dtype):
    with pytest.raises(TypeError, match=r"^(Linear|Embedding|LayerNorm|LSTM|GRUCell) takes a float type as dtype"):
        make(dtype)
