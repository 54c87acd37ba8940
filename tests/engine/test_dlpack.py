"""Arrays go to other libraries and come from them by DLPack."""

import numpy as np
import pytest

import minigrad as mg


class Foreign:
    """An array of another library: it has DLPack's two methods and nothing else."""

    def __init__(self, array, problem=None):
        self.array, self.problem = array, problem

    def __dlpack__(self, **options):
        if self.problem:
            raise self.problem
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_a_tensor_is_handed_over_without_a_copy():
    t = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    taken = np.from_dlpack(t)
    assert np.shares_memory(taken, t.data) and taken.tolist() == t.tolist()
    result = mg.tensor([1.0], requires_grad=True) * 2.0
    assert np.from_dlpack(result.detach()).tolist() == [2.0]


@pytest.mark.parametrize("make", [lambda: mg.tensor([1.0], requires_grad=True, name="w"),
                                  lambda: mg.tensor([1.0], requires_grad=True, name="w") * 2.0], ids=["leaf", "result"])
def test_a_tensor_that_requires_gradients_is_refused_as_in_pytorch(make):
    with pytest.raises(BufferError, match=r"requires gradients, and DLPack does not carry them: .*\.detach\(\)"):
        np.from_dlpack(make())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex64, np.bool_])
def test_a_foreign_array_comes_in(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    t = mg.tensor(Foreign(array))
    assert t.dtype == dtype and t.tolist() == array.tolist() and not np.shares_memory(t.data, array)
    assert (mg.tensor(array) + Foreign(array)).tolist() == (array + array).tolist()


@pytest.mark.parametrize("problem", [BufferError("on a GPU"), RuntimeError("on a GPU"), TypeError("on a GPU"),
                                     ValueError("on a GPU")])
def test_a_foreign_array_that_is_not_handed_over_gets_a_sentence(problem):
    words = r"test_dlpack\.Foreign cannot be read by DLPack: on a GPU; pass an array on the CPU, without gradients"
    with pytest.raises(TypeError, match=words):
        mg.tensor(Foreign(np.ones(2), problem))


def test_pytorch():
    torch = pytest.importorskip("torch")
    t = mg.tensor(np.arange(6.0).reshape(2, 3).T)
    theirs = torch.from_dlpack(t)
    assert theirs.tolist() == t.tolist() and theirs.dtype == torch.float64
    theirs[0, 0] = 7.0
    assert t.data[0, 0] == 7.0  # the same memory
    for x in (torch.arange(3.0), torch.tensor(2), torch.ones(2, 3).T, torch.ones(4)[::2], torch.ones(2, dtype=bool)):
        assert mg.tensor(x).tolist() == x.tolist()
    for x in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        with pytest.raises(TypeError, match=r"a torch\.Tensor cannot be read by DLPack"):
            mg.tensor(x)
