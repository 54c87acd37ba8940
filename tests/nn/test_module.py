"""Module: its parts, their order and names; saving, loading, repr, training mode."""

import copy
import gc
import json
import pickle
import weakref
from collections import deque
from dataclasses import make_dataclass
from types import MappingProxyType, SimpleNamespace

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
    """A part of every kind, and attributes that are not parts."""

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


def test_modes_come_back_as_they_were_also_after_an_exception():
    model = Model()
    model.shared = model.blocks[1][0]
    model.blocks[0].eval()
    model.shared.eval()
    parts = [part for _, part in model.named_parts() if isinstance(part, nn.Module)]
    before = [part.training for part in parts]
    assert before == [True, False, False, True]
    with pytest.raises(KeyError), model.modes_kept():
        model.eval()
        raise KeyError
    assert [part.training for part in parts] == before
    with model.modes_kept():
        assert model.train().blocks[0].training
    assert [part.training for part in parts] == before


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


# -- parts that would not be trained ---------------------------------------------------------------------------------


def scaled():
    return mg.tensor(np.ones((3, 3)), requires_grad=True) * 0.1


def objects(part):
    array = np.empty(2, object)
    array[1] = part
    return array


HIDDEN = {  # how a part is hidden → the text that names it
    "a scaled weight": (lambda m: setattr(m, "W", scaled()), "Module.W"),
    "a weight that is scaled later": (lambda m: setattr(m, "scale", m.scale * 2), "Module.scale"),
    "one of several results": (lambda m: setattr(m, "half", mg.split(m.scale, 2)[0]), "Module.half"),
    "a result that is kept": (lambda m: setattr(m, "last", mg.tanh(m.scale)), r"result.detach\(\)"),
    "in a list": (lambda m: setattr(m, "weights", [leaf(2), scaled()]), "weights.1"),
    "in a dict of a tuple": (lambda m: setattr(m, "weights", ({"a": scaled()},)), "weights.0.a"),
    "in a list, later": (lambda m: (m.blocks.append(scaled()), m.parameters()), "blocks.1"),
    "in a module below": (lambda m: setattr(m.blocks[0], "W", scaled()), "Linear.W"),
    "a set": (lambda m: setattr(m, "weights", {leaf(2)}), "Module.weights is a set"),
    "a deque of modules": (lambda m: setattr(m, "parts", deque([Linear(1, 1)])), "Module.parts is a deque"),
    "a mapping": (lambda m: setattr(m, "parts", MappingProxyType({"W": leaf(1)})), "parts is a mappingproxy"),
    "values of a dict in a list": (lambda m: setattr(m, "parts", [{"W": leaf(1)}.values()]), "0 is a dict_values"),
    "an array of objects": (lambda m: setattr(m, "parts", objects(Linear(1, 1))), "Module.parts is a ndarray"),
    "a namespace": (lambda m: setattr(m, "parts", SimpleNamespace(W=leaf(1))), "Module.parts is a SimpleNamespace"),
    "a dataclass": (lambda m: setattr(m, "parts", make_dataclass("Gates", ["W"])(leaf(1))), "Module.parts is a Gates"),
    "an attribute of a class": (lambda m: type("Wrong", (nn.Module,), {"W": leaf(1)}), "Wrong.W is an attribute"),
    "a module in a class": (lambda m: type("Wrong", (nn.Linear,), {"inner": Linear(1, 1)}), "assign self.inner in"),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_a_hidden_part_is_refused(how):
    model = nn.Module()
    model.blocks, model.scale = [Linear(2, 3)], leaf(2)
    hide, says = HIDDEN[how]
    with pytest.raises(ValueError, match=says):
        hide(model)


def test_attributes_other_than_parts_may_be_anything():
    model = nn.Module()
    model.scale = leaf(2)
    model.array, model.fixed, model.kept = np.ones(3), leaf(2, trained=False) * 2, mg.tanh(model.scale).detach()
    with mg.no_grad():
        model.start = model.scale * 0.0
    model.names, model.recent = {"a", "b"}, deque([1.0, np.ones(2), leaf(1, trained=False)])
    assert list(dict(model.named_parameters())) == ["scale"]
    assert list(model.state_dict()) == ["scale", "fixed", "kept", "start"]


# -- PyTorch's names ---------------------------------------------------------------------------------------------


class CharModel(nn.Module):
    """Embedding, two recurrent layers in a list, a head that shares the embedding's weight, an untrained scale."""

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
    """Names, also of a shared tensor, and shapes are those of PyTorch's state_dict; the round trip is exact."""
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


@pytest.mark.parametrize("given", ["state_dict", "named_parameters", "bfloat16", "float8", "no second name"])
def test_load_torch_reads_tensors_of_every_kind(given):
    theirs, model = torch_model(), CharModel(0)
    import torch
    del model.scale  # a buffer, which named_parameters lacks
    del theirs.scale
    arrays = dict(theirs.named_parameters()) if given == "named_parameters" else dict(theirs.state_dict())
    if given in ("bfloat16", "float8"):
        dtype = torch.bfloat16 if given == "bfloat16" else torch.float8_e4m3fn
        arrays = {name: x.to(dtype) for name, x in arrays.items()}
    if given == "no second name":
        del arrays["head.2.weight"]
    model.load_torch(arrays)
    for name, array in model.layers[0].to_torch().items():
        if "weight" in name:
            assert np.array_equal(array, arrays[f"layers.0.{name}"].detach().float().numpy()), name
    assert np.array_equal(model.embedding.weight.data, arrays["embedding.weight"].detach().float().numpy())


@pytest.mark.parametrize("wrong", [lambda torch, x: x.to("meta"), lambda torch, x: x.to_sparse(),
                                   lambda torch, x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)],
                         ids=["meta", "sparse", "quantized"])
@pytest.mark.filterwarnings("ignore")
def test_load_torch_names_an_array_that_it_cannot_read(wrong):
    torch = pytest.importorskip("torch")
    model = nn.Sequential(nn.Linear(2, 3, rng=0))
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"^0.bias cannot be read as an array \(.*\): give an ndarray"):
        model.load_torch({"0.weight": torch.ones(3, 2), "0.bias": wrong(torch, torch.ones(3))})
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())


@pytest.mark.parametrize("array", [np.ones(3, complex), np.array(["a", "b", "c"]), np.array([None] * 3)])
def test_arrays_of_another_kind_of_number_are_refused(array):
    model = nn.Linear(2, 3, rng=0)
    for load in (model.load_state_dict, model.load_torch):
        with pytest.raises(ValueError, match="bias of this Linear is float32, and the array given for it"):
            load({"weight": np.ones((3, 2)), "bias": array})


@pytest.mark.parametrize("make", [
    lambda: nn.RNN(3, 4, rng=0), lambda: nn.GRU(3, 4, 2, bidirectional=True, rng=0), lambda: nn.LSTM(3, 4, 2, rng=0),
    lambda: nn.RNNCell(3, 4, rng=0), lambda: nn.GRUCell(3, 4, rng=0), lambda: nn.LSTMCell(3, 4, rng=0),
    lambda: nn.Linear(3, 4, rng=0), lambda: nn.Embedding(3, 4, rng=0), lambda: nn.LayerNorm(3), lambda: CharModel(0),
    lambda: nn.Sequential(nn.LSTM(3, 4, rng=0), nn.Linear(4, 2, rng=0))])
def test_to_torch_gives_c_contiguous_arrays_of_their_own(make):
    model = make()
    for p in model.parameters():
        p.data = np.asfortranarray(p.data)
    arrays, again = model.to_torch(), model.to_torch()
    for name, array in arrays.items():
        assert array.flags.c_contiguous and array.flags.owndata and array.dtype == again[name].dtype, name
        assert not any(np.shares_memory(array, p.data) for p in model.parameters()), name
        assert not np.shares_memory(array, again[name]), name
    model.load_torch({name: np.asfortranarray(array) for name, array in arrays.items()})
    for p in model.parameters():
        assert p.data.flags.c_contiguous and not any(np.shares_memory(p.data, array) for array in arrays.values())


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
    ({"rng": 3}, "rng is not a state of a PCG64"),
    ({"rng": {"bit_generator": "PCG64"}}, "rng is not a state of a PCG64"),
    ({"rng": np.random.Generator(np.random.SFC64(0)).bit_generator.state}, r"state of a PCG64 \(state must be for"),
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


def test_a_module_without_a_call_raises():
    with pytest.raises(NotImplementedError, match=r"Module cannot be called yet: write its method __call__"):
        nn.Module()(1)
