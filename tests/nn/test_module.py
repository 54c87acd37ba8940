"""Module: what it finds, in which order and under which names; saving, showing, switching."""

import copy
import gc
import json
import pickle
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


def leaf(*shape, trained=True):
    return mg.tensor(np.ones(shape), requires_grad=trained)


class Linear(nn.Module):
    def __init__(self, inputs, outputs):
        self.W = leaf(outputs, inputs)
        self.b = leaf(outputs, 1)

    def __call__(self, x):
        return self.W @ x + self.b


class Model(nn.Module):
    """A part of every kind, and attributes that are no parts."""

    def __init__(self):
        self.rate, self.name, self.rng, self.array = 0.1, "model", np.random.default_rng(0), np.ones(3)
        self.blocks = [Linear(2, 3), (Linear(3, 1), leaf(4))]
        self.table = {"a": leaf(2), 1: [Linear(1, 1)]}
        self.scale = leaf(1)
        self.mean = leaf(5, trained=False)

    def __call__(self, x):
        return self.blocks[1][0](self.blocks[0](x)) * self.scale


NAMES = ["blocks.0.W", "blocks.0.b", "blocks.1.0.W", "blocks.1.0.b", "blocks.1.1", "table.a", "table.1.0.W",
         "table.1.0.b", "scale"]


def test_parameters_are_found_in_the_order_of_definition():
    model = Model()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [id(p) for p in model.parameters()] == [id(p) for _, p in model.named_parameters()]
    model.rate = leaf(1)  # an attribute keeps its place
    assert [name for name, _ in model.named_parameters()] == ["rate", *NAMES]
    model.last = model(np.ones((2, 1)))
    assert "last" not in dict(model.named_parameters())  # the result of an op is no parameter
    model.scale.requires_grad = False
    assert "scale" not in dict(model.named_parameters()) and "scale" in model.state_dict()


def test_shared_parts_and_cycles_are_listed_once():
    model = Model()
    model.again, model.tied = model.blocks[0], model.blocks[0].W
    model.me = model
    model.blocks[0].parent = model
    model.table["blocks"] = model.blocks
    model.blocks.append(model.blocks)
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert list(model.state_dict()) == [*NAMES, "mean"]
    model.eval().train().zero_grad()
    assert repr(model)
    tied = Linear(2, 2)
    tied.b = tied.W
    assert [name for name, _ in tied.named_parameters()] == ["W"]


def test_deep_nesting_needs_no_recursion():
    top = model = nn.Module()
    for _ in range(5000):
        model.inner = nn.Module()
        model = model.inner
    model.W = leaf(1)
    assert len(top.parameters()) == 1


def test_tensors_get_the_name_of_their_attribute():
    model = Linear(2, 3)
    assert (model.W.name, model.b.name) == ("W", "b")
    model.other = model.W
    assert model.W.name == "W"
    model.named = mg.tensor(1.0, name="mine")
    assert model.named.name == "mine"
    with pytest.raises(ValueError, match="'W' of shape"):
        model.W.data = np.ones(3)


def test_zero_grad_and_training():
    model = Model()
    mg.sum(model(np.ones((2, 1)))).backward()
    assert model.blocks[0].W.grad is not None
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    modules = [part for _, part in model.named_parts() if isinstance(part, nn.Module)]
    assert len(modules) == 4 and all(m.training for m in modules)
    assert model.eval() is model and not any(m.training for m in modules)
    assert model.train() is model and all(m.training for m in modules)


def test_state_dict_is_a_copy_and_comes_back():
    model, other = Model(), Model()
    for p in model.parameters():
        p.data = np.random.default_rng(p.size).normal(size=p.shape)
    state = model.state_dict()
    other.load_state_dict(state)
    for name, array in other.state_dict().items():
        assert np.array_equal(array, state[name])
    state["scale"][:] = 9
    assert model.scale.data[0] != 9 and other.scale.data[0] != 9


def test_load_state_dict_keeps_dtype_and_counts_as_a_change():
    model = Linear(2, 3)
    y = mg.sum(mg.square(model(np.ones((2, 1)))))
    model.load_state_dict({"W": np.zeros((3, 2), np.float32), "b": [[1], [2], [3]]})
    assert model.W.dtype == np.float64 and model.b.data[2, 0] == 3
    with pytest.raises(RuntimeError):
        y.backward()


def test_load_state_dict_lists_every_difference_and_changes_nothing():
    model = Linear(2, 3)
    with pytest.raises(ValueError, match=r"these arrays are not those of this Linear: missing b; unexpected bias, c; "
                                         r"W has shape \(2, 3\) and must have \(3, 2\)$"):
        model.load_state_dict({"W": np.zeros((2, 3)), "bias": np.zeros(3), "c": 1})
    with pytest.raises(ValueError, match=r"Linear: b has shape \(3,\) and must have \(3, 1\)$"):
        model.load_state_dict({"W": np.zeros((3, 2)), "b": np.zeros(3)})
    assert model.W.data.all()


# -- PyTorch's names ---------------------------------------------------------------------------------------------


class CharModel(nn.Module):
    """Embedding, two recurrent layers in a list, a head that shares the embedding's weight, a scale of no training."""

    def __init__(self, seed):
        self.embedding = nn.Embedding(6, 4, rng=seed)
        self.layers = [nn.LSTM(4, 3, 2, bidirectional=True, rng=seed), nn.GRU(6, 4, rng=seed)]
        self.head = nn.Sequential(nn.LayerNorm(4), mg.tanh, nn.Linear(4, 6, rng=seed))
        self.head[2].weight = self.embedding.weight
        self.scale = leaf(1, trained=False)


def torch_model():
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    model.embedding = torch.nn.Embedding(6, 4)
    model.layers = torch.nn.ModuleList([torch.nn.LSTM(4, 3, 2, bidirectional=True), torch.nn.GRU(6, 4)])
    model.head = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Tanh(), torch.nn.Linear(4, 6))
    model.head[2].weight = model.embedding.weight
    model.register_buffer("scale", torch.zeros(1, dtype=torch.float64))
    return model


def test_a_tree_by_pytorchs_names():
    """Names, also of a shared tensor, and shapes are those of PyTorch's own state_dict; it comes back to the bit."""
    model, other = CharModel(0), CharModel(1)
    arrays = model.to_torch()
    assert list(arrays)[:3] == ["embedding.weight", "layers.0.weight_ih_l0", "layers.0.weight_hh_l0"]
    assert list(arrays)[-5:] == ["head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias", "scale"]
    arrays["scale"][:] = 5
    assert model.scale.data[0] == 1  # copies
    other.load_torch(arrays)
    assert other.scale.data[0] == 5 and other.head[2].weight is other.embedding.weight
    for key, array in other.to_torch().items():
        assert np.array_equal(array, arrays[key]), key


def test_a_tree_goes_to_pytorch_and_back():
    theirs, model = torch_model(), CharModel(0)
    import torch
    theirs.load_state_dict({key: torch.tensor(array) for key, array in model.to_torch().items()})
    other = CharModel(1)
    other.load_torch(theirs.state_dict())
    for key, array in other.state_dict().items():
        assert np.array_equal(array, model.state_dict()[key]), key


def test_load_torch_lists_every_difference_and_changes_nothing():
    model = CharModel(0)
    arrays, before = CharModel(1).to_torch(), model.to_torch()
    del arrays["layers.1.bias_hh_l0"]
    arrays |= {"bias": np.zeros(3), "head.0.bias": np.zeros(5)}
    with pytest.raises(ValueError, match=r"not those of this CharModel: missing layers.1.bias_hh_l0; unexpected bias; "
                                         r"head.0.bias has shape \(5,\) and must have \(4,\)$"):
        model.load_torch(arrays)
    with pytest.raises(ValueError, match=r"head.2.weight and embedding.weight are one tensor in this CharModel"):
        model.load_torch({**CharModel(1).to_torch(), "head.2.weight": np.zeros((6, 4))})
    for key, array in model.to_torch().items():
        assert np.array_equal(array, before[key])


def test_cycles_have_pytorchs_names_too():
    model = Linear(2, 3)
    model.inner = Linear(1, 1)
    model.inner.parent, model.me = model, [model]
    assert list(model.to_torch()) == ["W", "b", "inner.W", "inner.b"]
    model.load_torch(model.to_torch())


# -- randomness --------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    def __init__(self, kind, seed):
        self.noise = [nn.Dropout(0.5, rng=np.random.Generator(kind(seed))), nn.Dropout(0.5, variational=True, rng=seed)]
        self.lstm = nn.LSTM(2, 3, num_layers=2, dropout=0.5, rng=self.noise[1].rng)
        self.rng = np.random.Generator(kind(seed + 1))

    def draw(self):
        return [*(layer(np.ones((4, 5))) for layer in self.noise), self.rng.normal(size=3),
                self.lstm(np.ones((4, 1, 2)))[0].data]


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox,
                                  np.random.SFC64])
def test_random_states_come_back_through_json(kind):
    model = Noisy(kind, 0)
    model.draw()
    states = json.loads(json.dumps(model.rng_states()))
    assert list(states) == ["noise.0.rng", "noise.1.rng", "rng"]  # one that is shared, by its first name
    expected = model.draw()
    other = Noisy(kind, 5)
    other.lstm.load_state_dict(model.lstm.state_dict())
    other.load_rng_states(states)
    for a, b in zip(other.draw(), expected):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("change, says", [
    ({"rng": None}, r"these are not the random states of this Noisy: missing rng$"),
    ({"other": 1}, "unexpected other$"),
    ({"rng": 3}, "rng holds no state of a PCG64"),
    ({"rng": {"bit_generator": "PCG64"}}, "rng holds no state of a PCG64"),
    ({"rng": np.random.Generator(np.random.SFC64(0)).bit_generator.state}, r"no state of a PCG64 \(state must be for"),
])
def test_random_states_that_do_not_fit_change_nothing(change, says):
    model = Noisy(np.random.PCG64, 0)
    before = model.rng_states()
    states = {key: value for key, value in {**Noisy(np.random.PCG64, 7).rng_states(), **change}.items() if value}
    with pytest.raises(ValueError, match=says):
        model.load_rng_states(states)
    assert model.rng_states() == before


# -- showing, copying ----------------------------------------------------------------------------------------------


def test_repr_is_the_tree_with_shapes_and_counts():
    model = nn.Module()
    model.lstm = nn.LSTM(2, 3, num_layers=2)
    model.head = [Linear(3, 1)]
    model.mean = leaf(4, trained=False)
    assert repr(model) == """\
Module                   160
  lstm: LSTM             156
    layers.l0: LSTMCell   72
      W (12, 5)           60
      b (12, 1)           12
    layers.l1: LSTMCell   84
      W (12, 6)           72
      b (12, 1)           12
  head.0: Linear           4
    W (1, 3)               3
    b (1, 1)               1
  mean (4,) fixed          4"""


def test_gradcheck_takes_a_module():
    report = mg.gradcheck(Linear(2, 3), np.ones((2, 4)))
    assert [row.name for row in report.rows] == ["x", "W", "b"]


def test_copies_pickles_and_is_freed():
    model = Model()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(twin.state_dict()) == list(model.state_dict())
        twin.scale.data = [5.0]
        assert model.scale.data[0] == 1
    gc.disable()
    try:
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_module_without_a_call_says_so():
    with pytest.raises(NotImplementedError, match=r"Module cannot be called yet: write its method __call__"):
        nn.Module()(1)
