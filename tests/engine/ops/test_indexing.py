"""Indexing beyond the table of cases: other kinds of indices, their ownership, and error messages."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.engine.ops.indexing import add_at

x = np.arange(20.0).reshape(4, 5)


def gradient(f):
    return mg.grad(lambda x: f(x).sum())(x)


def test_an_entry_read_twice_gets_both_gradients():
    expected = np.zeros((4, 5))
    expected[0], expected[3] = 3, 1
    for index in (np.array([0, 3, 0, -4]), [0, 3, 0, 0], mg.tensor([0, 3, 0, 0]), np.array([[0, 3], [0, 0]], np.int8)):
        np.testing.assert_array_equal(gradient(lambda x, index=index: x[index]), expected)
        np.testing.assert_array_equal(gradient(lambda x, index=index: mg.take(x, index, 0)), expected)
        np.testing.assert_array_equal(gradient(lambda x, index=index: mg.getitem(x, index)), expected)
    assert gradient(lambda x: x[[1, 1], [2, 2]])[1, 2] == 2
    assert gradient(lambda x: x.ravel()[[7, 7, -13]])[1, 2] == 3


@pytest.mark.parametrize("index", [
    mg.tensor(2), np.int64(2), mg.tensor([True, False, True, True]), [True, False, True, True], mg.tensor(x > 7), [],
    ([], 0), (mg.tensor([0, 1]), slice(None, None, 2)), (slice(None), [0, -1]), (None, mg.tensor(1), ...), True,
    (slice(mg.tensor(1), 3),)])
def test_an_index_may_be_a_tensor_or_a_list(index):
    def plainly(i):
        return i.data if isinstance(i, mg.Tensor) else i

    plain = tuple(map(plainly, index)) if isinstance(index, tuple) else plainly(index)
    y = mg.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(y[index].data, x[plain])
    y[index].sum().backward()
    expected = np.zeros((4, 5))
    expected[plain] = 1
    np.testing.assert_array_equal(y.grad, expected)


def test_an_index_that_changes_later_does_not_matter():
    index, y = np.array([0, 1]), mg.tensor(x, requires_grad=True)
    loss = y[index].sum() + y[index, index].sum()
    index[:] = 3
    loss.backward()
    np.testing.assert_array_equal(y.grad, np.repeat([1.0, 1, 0, 0], 5).reshape(4, 5) + np.diag([1.0, 1, 0, 0, 0])[:4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, complex])
@pytest.mark.parametrize("width", [(4,), (5,), (2, 3), (3, 1), (0,)], ids=str)
def test_a_table_of_rows_as_an_embedding(width, dtype):
    """The path for many rows, on flat arrays, equals np.add.at: for even and odd widths, g of any strides, and indices
    of a dtype too small for the product with the width."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-30, 30, (8, 25))
    table, g = (rng.integers(-9, 9, (*shape, *width)).astype(dtype) for shape in ((300,), (8, 25)))
    others = [g.transpose(1, *range(2, g.ndim), 0).copy().transpose(-1, *range(g.ndim - 1)), g[::-1, ::-1].copy()[
        ::-1, ::-1], np.broadcast_to(g[:1], g.shape), g.real.astype(np.int8)]
    for kind in (np.int64, np.int8, np.uint8):
        for d in [g, *others]:
            index, found, expected = rows.astype(kind) % 250 if kind is np.uint8 else rows.astype(kind), *np.zeros(
                (2, *table.shape), dtype)
            add_at(found, d, (index,))
            np.add.at(expected, index, d)
            np.testing.assert_array_equal(found, expected)
    leaf = mg.tensor(table, requires_grad=True)
    (leaf[rows] * g).sum().backward()
    expected = np.zeros_like(table)
    np.add.at(expected, rows, g)
    np.testing.assert_array_equal(leaf.grad, expected)


def test_rows_are_added_into_a_table_of_any_strides():
    total = np.zeros((4, 3)).T
    add_at(total, np.ones((2, 4)), (np.array([2, 2]),))
    assert total.tolist() == [[0] * 4, [0] * 4, [2] * 4]


def test_getitem_and_scatter_are_a_pair():
    """⟨x[i], g⟩ = ⟨x, scatter(g, i)⟩ for indices of every kind."""
    rng = np.random.default_rng(1)
    for index in (np.s_[1:, ::2], np.s_[::-1], np.array([0, 0, 3]), np.s_[[1, 1], [2, 2]], x > 7, np.s_[..., None]):
        g = rng.standard_normal(x[index].shape)
        assert np.sum(x[index] * g) == pytest.approx(np.sum(x * mg.scatter(g, shape=x.shape, index=index)))


@pytest.mark.parametrize("call, error, message", [
    (lambda x: x[7], IndexError, r"getitem cannot take x \(4, 5\), index=\(7,\): index 7 is out of bounds"),
    (lambda x: x[0, 0, 0], IndexError, "getitem cannot take.*too many indices"),
    (lambda x: x[1.5], IndexError, "getitem cannot take.*integer"),
    (lambda x: x["name"], IndexError, "getitem cannot take.*integer"),
    (lambda x: x[np.zeros(3, bool)], IndexError, "getitem cannot take.*boolean"),
    (lambda x: mg.take(x, 9, axis=1), IndexError, "getitem cannot take.*index 9 is out of bounds"),
    (lambda x: mg.take(x, 0, axis=2), np.exceptions.AxisError, "take: axis 2 is out of bounds"),
    (lambda x: mg.scatter(x, shape=(3, 5), index=np.arange(4)), IndexError, "scatter cannot take.*out of bounds"),
    (lambda x: mg.flip(x, 2), np.exceptions.AxisError, "flip: axis 2 is out of bounds"),
    (lambda x: mg.repeat(x, [1, 2, 3], axis=0), ValueError, "repeat: 3 repeats for 4 entries: give one number"),
    (lambda x: mg.pad(x, -1), ValueError, r"pad: widths -1 do not fit the shape \(4, 5\)"),
    (lambda x: mg.pad(x, (1, 2, 3)), ValueError, r"pad: widths \(1, 2, 3\) do not fit the shape \(4, 5\)"),
    (lambda x: mg.pad(x, 1, mode="mean"), ValueError, "pad: mode 'mean' does not copy entries"),
    (lambda x: mg.pad(x, 1, constant_values=(1, 2)), ValueError, "pad: constant_values must be one number"),
])
def test_bad_input_gets_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(mg.tensor(x, requires_grad=True))
