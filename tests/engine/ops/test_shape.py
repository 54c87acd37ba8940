"""Joining and splitting beyond the table of cases, and error messages."""

import numpy as np
import pytest

import minigrad as mg

x = np.arange(12.0).reshape(3, 4)


def test_parts_that_are_not_used_send_zeros():
    np.testing.assert_array_equal(mg.grad(lambda x: mg.split(x, 3)[1].sum())(x), np.eye(3)[1][:, None] * np.ones(4))
    d = mg.grad(lambda x: mg.split(x, (1,), axis=-1)[0].sum())(x)
    np.testing.assert_array_equal(d, np.eye(4)[0] * np.ones((3, 1)))


def test_a_part_used_twice_and_an_array_joined_twice():
    d = mg.grad(lambda x: (lambda a, b: (a * a * b).sum())(*mg.split(x, 2)))(np.array([3.0, 5.0]))
    np.testing.assert_array_equal(d, [30, 9])
    d = mg.grad(lambda x: (mg.concatenate([x, x * 2, x]) * np.arange(6.0)).sum())(np.ones(2))
    np.testing.assert_array_equal(d, [0 + 2 * 2 + 4, 1 + 2 * 3 + 5])


def test_arrays_and_tensors_join():
    y = mg.concatenate([x, mg.tensor(x), [[0.0] * 4]], axis=0)
    assert isinstance(y, mg.Tensor) and y.shape == (7, 4)
    assert isinstance(mg.concatenate([x, x]), np.ndarray)
    assert mg.stack([mg.tensor(1.0), 2.0, np.float64(3.0)]).tolist() == [1, 2, 3]
    assert mg.stack(t for t in (mg.tensor(x), x)).shape == (2, 3, 4)


def test_split_and_join_are_inverses():
    for axis in (0, 1, -1, -2):
        parts = mg.split(mg.tensor(x), (1, 2), axis=axis)
        np.testing.assert_array_equal(mg.concatenate(parts, axis=axis).data, x)
    assert [p.shape for p in np.split(mg.tensor(x), 2, axis=1)] == [(3, 2), (3, 2)]


def test_methods_of_tensor():
    t = mg.tensor(x)
    assert t.reshape(2, 6).shape == t.reshape((2, 6)).shape == t.reshape(-1, 6).shape == (2, 6)
    assert t.T.shape == t.transpose().shape == t.transpose(1, 0).shape == t.transpose((1, 0)).shape == (4, 3)
    assert t.ravel().shape == (12,) and t[None].squeeze().shape == (3, 4) and t.swapaxes(0, 1).shape == (4, 3)


@pytest.mark.parametrize("call, error, message", [
    (lambda x: x.reshape(5), ValueError, r"reshape cannot take x \(3, 4\), shape=\(5,\)"),
    (lambda x: mg.transpose(x, (0, 0)), ValueError, r"transpose cannot take x \(3, 4\), axes=\(0, 0\): repeated"),
    (lambda x: mg.broadcast_to(x, (5,)), ValueError, r"broadcast_to cannot take x \(3, 4\), shape=\(5,\)"),
    (lambda x: mg.concatenate([x, np.zeros((2, 2))]), ValueError,
     r"concatenate: arrays\[0\] \(3, 4\), arrays\[1\] \(2, 2\) do not go together: all axes except the joined one"),
    (lambda x: mg.concatenate([x, x], axis=3), IndexError, "concatenate cannot take .*axis 3 is out of bounds"),
    (lambda x: mg.concatenate([]), ValueError, "concatenate cannot take.*need at least one array"),
    (lambda x: mg.concatenate([x, 1.0]), ValueError, r"arrays\[1\] \(\) do not go together"),
    (lambda x: mg.stack([x, np.zeros(2)]), ValueError, r"stack: shapes \(2,\), \(3, 4\) differ: all must be equal"),
    (lambda x: mg.stack([]), ValueError, "stack needs at least one array"),
    (lambda x: mg.split(x, 3, axis=1), ValueError, r"split cannot take x \(3, 4\).*4 entries cannot be cut"),
    (lambda x: mg.split(x, 0), ValueError, "cannot be cut into 0 equal parts"),
    (lambda x: mg.split(x, 2, axis=7), IndexError, "split cannot take.*axis 7 is out of bounds for 2 dimensions"),
    (lambda x: mg.swapaxes(x, 0, 2), np.exceptions.AxisError, "swapaxes: axis 2 is out of bounds for 2 dimensions"),
    (lambda x: mg.moveaxis(x, 0, -3), np.exceptions.AxisError, "moveaxis: axis -3 is out of bounds"),
    (lambda x: mg.moveaxis(x, (0, 1), 0), ValueError, "moveaxis: 2 source axes and 1 destinations"),
    (lambda x: mg.expand_dims(x, 4), np.exceptions.AxisError, "expand_dims: axis 4 is out of bounds for 3 dimensions"),
    (lambda x: mg.expand_dims(x, (0, 0)), ValueError, r"expand_dims: axis \(0, 0\) names an axis twice"),
    (lambda x: mg.squeeze(x, 0), ValueError, r"squeeze: axis 0 of shape \(3, 4\) has length 3: only length 1"),
])
def test_bad_input_gets_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(mg.tensor(x, requires_grad=True))
