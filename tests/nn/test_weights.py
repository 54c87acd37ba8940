"""Weights in a file: what is saved is loaded to the bit, by PyTorch's names, and a wrong file loses nothing."""

import os
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.files import atomic

KINDS = ["npz", "safetensors"]


@pytest.fixture(params=KINDS)
def path(request, tmp_path):
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"weights.{request.param}"


class Model(nn.Module):
    def __init__(self, hidden=5, dtype=np.float32, rng=0):
        rng = np.random.default_rng(rng)
        self.embedding = nn.Embedding(7, 3, dtype=dtype, rng=rng)
        self.recurrent = nn.LSTM(3, hidden, 2, bidirectional=True, dtype=dtype, rng=rng)
        self.scale = mg.tensor(dtype(2.5), requires_grad=True)
        self.count = mg.tensor(np.arange(3))


def same(a, b):
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a.state_dict().values(), b.values()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_what_is_saved_is_loaded_to_the_bit(path, dtype):
    model, other = Model(dtype=dtype), Model(dtype=dtype, rng=1)
    assert not same(model, other.state_dict())
    model.save(path)
    before = path.read_bytes()
    assert other.load(path) is other and same(model, other.state_dict())
    other.save(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_the_names_are_pytorchs_and_numpy_reads_the_archive(tmp_path):
    model = Model()
    model.save(tmp_path / "w")  # any other name gives an .npz archive
    with np.load(tmp_path / "w", allow_pickle=False) as arrays:
        assert arrays.files == list(model.to_torch()) and "recurrent.weight_ih_l1_reverse" in arrays.files
    np.savez(tmp_path / "numpy.npz", **model.to_torch())
    assert same(model, Model(rng=1).load(tmp_path / "numpy.npz").state_dict())


def test_pytorch_reads_and_writes_the_same_file(tmp_path):
    torch, library = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    ours, theirs = nn.LSTM(3, 5, rng=0), torch.nn.LSTM(3, 5)
    ours.save(tmp_path / "w.safetensors")
    theirs.load_state_dict(library.load_file(tmp_path / "w.safetensors"))
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(theirs(torch.tensor(x))[0].detach(), ours(x)[0].detach().numpy(), atol=1e-6)
    theirs = torch.nn.LSTM(3, 5)
    library.save_file(theirs.state_dict(), tmp_path / "t.safetensors")
    np.testing.assert_array_equal(ours.load(tmp_path / "t.safetensors").to_torch()["weight_hh_l0"],
                                  theirs.weight_hh_l0.detach())


def other_size(path):
    Model(hidden=6).save(path)


def fewer(path):
    Model().embedding.save(path)


def cut_short(path):
    Model().save(path)
    os.truncate(path, 200)


def pickled(path):
    path.write_bytes(pickle.dumps({"embedding.weight": np.zeros(3)}))


def complex_numbers(path):
    Model(dtype=np.complex64).save(path)


@pytest.mark.parametrize("write, sentence", [
    (other_size, "recurrent.weight_ih_l0 has shape (24, 3) and must have (20, 3)"),
    (fewer, "missing embedding.weight, recurrent.weight_ih_l0"), (cut_short, "is cut short"), (pickled, " "),
    (complex_numbers, "embedding.weight of this Model is float32, and the array given for it complex64"),
    (lambda path: None, "cannot be read: No such file"), (lambda path: path.write_bytes(b""), "is cut short"),
    (lambda path: path.mkdir(), "cannot be read: Is a directory")])
def test_a_wrong_file_is_a_sentence_and_changes_no_weight(path, write, sentence):
    write(path)
    model = Model(rng=1)
    before = model.state_dict()
    with pytest.raises(ValueError) as error:
        model.load(path)
    assert sentence in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
    assert same(model, before)


def test_arrays_of_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)
    arrays = Model().to_torch()
    arrays["embedding.weight"] = np.array([Trap()], object)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ValueError, match="object values"):
        Model().load(tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_cannot_be_written_keeps_the_old_one(path, monkeypatch):
    Model().save(path)
    before = path.read_bytes()
    if os.path.exists("/dev/full"):
        monkeypatch.setattr(atomic, "open", lambda _, mode: open("/dev/full", mode), raising=False)
        with pytest.raises(ValueError, match="cannot be written: No space left on device"):
            Model(rng=1).save(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_without_the_library_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    for call in (Model().save, Model().load):
        with pytest.raises(ValueError, match=r"needs the library safetensors: pip install safetensors, or give a name"):
            call(tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())
