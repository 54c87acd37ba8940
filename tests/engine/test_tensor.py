"""Tensor and @op: properties, conversions, NumPy calls, recording, and errors for bad declarations."""

from __future__ import annotations

import array
import cmath
import copy
import math
import operator
import pickle
import re
import weakref

import numpy as np
import pytest
from leaves import leaf

import minigrad as mg
from minigrad import nn
from minigrad.engine.op import OPS
from minigrad.engine.operators import NUMPY


@pytest.fixture
def ops():
    """Restore the registries after a test that declares ops."""
    before, functions, methods = dict(OPS), dict(NUMPY), dict(vars(mg.Tensor))
    yield
    for registry, kept in ((OPS, before), (NUMPY, functions)):
        registry.clear()
        registry.update(kept)
    for name in set(vars(mg.Tensor)) - set(methods):
        delattr(mg.Tensor, name)
    for name, method in methods.items():
        if vars(mg.Tensor)[name] is not method:
            setattr(mg.Tensor, name, method)


# -- properties ---------------------------------------------------------------------------------------


def test_a_tensor_copies_its_data_and_keeps_numpys_dtype():
    x = np.arange(3, dtype=np.float32)
    t = mg.tensor(x)
    x[0] = 7
    assert t.data.tolist() == [0, 1, 2] and t.dtype == np.float32
    assert [mg.tensor(v).dtype for v in (1, 1.0, True, 1j)] == [np.int64, np.float64, np.bool_, np.complex128]
    assert mg.tensor(mg.tensor([1, 2]), dtype=np.float32).dtype == np.float32
    assert (t.shape, t.ndim, t.size, len(t)) == ((3,), 1, 3, 3)
    assert mg.tensor([mg.tensor(1.0), mg.tensor(2.0)]).tolist() == [1, 2]


@pytest.mark.parametrize("make, error, message", [
    (lambda: mg.tensor([1, 2], requires_grad=True), TypeError, r"int64.*pass floats"),
    (lambda: mg.tensor([True], requires_grad=True), TypeError, r"bool.*pass floats"),
    (lambda: mg.tensor("a"), TypeError, "holds numbers"),
    (lambda: mg.tensor([{}]), TypeError, "holds numbers"),
    (lambda: setattr(mg.tensor(1), "requires_grad", True), TypeError, "no gradients"),
    (lambda: setattr(leaf(2) * 2.0, "requires_grad", False), RuntimeError, r"detach"),
    (lambda: setattr(leaf(2), "data", np.zeros(3)), ValueError, r"\(3,\).*\(2,\).*new tensor"),
    (lambda: leaf(2).numpy(), TypeError, r"detach\(\)\.numpy"),
    (lambda: leaf(2).item(), ValueError, "2 values, not one"),
    *[(lambda f=f: f(leaf(2)), TypeError, "2 values, not one") for f in (float, int, complex, math.sin)],
    (lambda: format(leaf(2), ".3f"), ValueError, "2 values, not one"),
    (lambda: len(leaf()), TypeError, "no axis"),
    (lambda: iter(leaf()), TypeError, "no axis"),
    (lambda: bool(leaf(2) > 0), ValueError, r"truth value of .*shape \(2,\).*np\.any"),
    (lambda: leaf(2).__setitem__(0, 1.0), TypeError, "mg.stack"),
    (lambda: pickle.dumps(leaf(2) * 2.0), TypeError, "part of a graph.*detach"),
    (lambda: mg.tensor([leaf(), leaf(seed=1)]), TypeError, "mg.stack"),
])
def test_what_cannot_be_is_refused_in_a_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("value", [0, -1, 2.5, [0, 1], [9, 1], np.arange(2), np.float32(3), mg.tensor(3.0)], ids=str)
@pytest.mark.parametrize("data", [[[0.0, 1.0], [2.0, 3.0]], [[1.0], [2.5]], [2.5, 3.0], np.zeros((0, 2))], ids=str)
def test_in_asks_what_numpy_asks(data, value):
    x = np.array(data)
    numpys = value.detach().numpy() if isinstance(value, mg.Tensor) else value
    assert (value in mg.tensor(x, requires_grad=True)) is (numpys in x)


def test_numbers_and_text():
    t = mg.tensor(2.5)
    assert (float(t), int(t), complex(t), t.item(), f"{t:.3f}", f"{t}") == (2.5, 2, 2.5, 2.5, "2.500", "tensor(2.5)")
    assert mg.tensor([[3.0]], requires_grad=True).item() == 3.0 and f"{leaf(1, 1) * 0.0 + 2.0:.1f}" == "2.0"
    assert [10, 20, 30][mg.tensor(1)] == 20
    assert bool(mg.tensor(1.0)) and not bool(mg.tensor([0]))
    assert [row.tolist() for row in mg.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    assert sum(x.item() for x in leaf(3)) == pytest.approx(leaf(3).sum().item())


@pytest.mark.parametrize("t, text", [
    (mg.tensor([1.0, 2.0]), "tensor([1., 2.])"),
    (mg.tensor([1, 2]), "tensor([1, 2])"),
    (mg.tensor(1.5, dtype=np.float32), "tensor(1.5, dtype=float32)"),
    (mg.tensor([1.0], requires_grad=True, name="Wf"), "tensor([1.], name='Wf', requires_grad=True)"),
    (mg.tanh(mg.tensor(0.0, requires_grad=True)), "tensor(0., op=tanh)"),
    (mg.tensor([[1.0, 2.0], [3.0, 4.0]]), "tensor([[1., 2.],\n        [3., 4.]])"),
])
def test_repr(t, text):
    assert repr(t) == text


def test_a_leaf_can_be_pickled_and_copied():
    w = leaf(2, name="w")
    for copied in (lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy):
        for grad in (None, [1.0, 2.0]):
            w.grad = None if grad is None else np.array(grad)
            twin = copied(w)
            assert twin is not w and not np.shares_memory(twin.data, w.data)
            assert (twin.tolist(), twin.requires_grad, twin.name) == (w.tolist(), True, "w")
            if grad is None:
                assert twin.grad is None
            else:
                twin.grad += 1.0
                assert twin.grad.tolist() == [2, 3] and w.grad.tolist() == [1, 2]
    assert not copy.deepcopy(mg.tensor(1.0)).requires_grad


@pytest.mark.parametrize("wrong, error, message", [
    (np.ones((3, 2)), ValueError, r"'w' of shape \(2, 3\) cannot have a gradient of shape \(3, 2\)"),
    (np.ones((1, 3)), ValueError, "shape"), (np.float64(1), ValueError, "shape"),
    (np.ones((2, 3), int), TypeError, "'w' of shape.*dtype float32 must be None or an ndarray.*not an array of int64"),
    (np.ones((2, 3), bool), TypeError, "array of bool"), (np.ones((2, 3), complex), TypeError, "array of complex128"),
    (np.ones((2, 3), object), TypeError, "array of object"), ([[1.0] * 3] * 2, TypeError, "not a list"),
    (mg.tensor(np.ones((2, 3))), TypeError, "not a Tensor"), (1.0, TypeError, "not a float"), ("a", TypeError, "a str"),
    (np.ma.ones((2, 3)), TypeError, "mask"),
])
def test_a_gradient_of_the_wrong_kind_cannot_be_assigned(wrong, error, message):
    w = leaf(2, 3, name="w", dtype=np.float32)
    w.grad = before = np.ones((2, 3), np.float32)
    with pytest.raises(error, match=message):
        w.grad = wrong
    assert w.grad is before
    w.grad = np.ones((2, 3), ">f8")
    assert w.grad.dtype == np.float32 and w.grad.dtype.isnative
    w.grad *= 2
    w.grad = None
    n, z = mg.tensor([1, 2]), mg.tensor([1j], requires_grad=True)
    with pytest.raises(TypeError, match="dtype int64"):
        n.grad = np.ones(2)
    z.grad = np.ones(1)
    assert z.grad.dtype == complex


# -- inputs -----------------------------------------------------------------------------------------------

MASKED = np.ma.array([1.0, 2.0, 1e6], mask=[0, 0, 1])


class Metres(np.ndarray):
    """A subclass as in packages for units."""


@pytest.mark.parametrize("x, message", [
    (MASKED, r"lose its mask.*filled"), ([MASKED, MASKED], "mask"), ([[1.0, 2.0, np.ma.masked]], "mask"),
    (np.ones((1, 3)).view(np.matrix), "matrix may carry more.*np.asarray"), (np.ones(3).view(Metres), "Metres may"),
    (np.array([1.0, 2.0, 3.0], object), "not object"), (np.zeros(3, [("a", float)]), "holds numbers"), ("a", "<U1"),
    (np.zeros(3, [("a", float)]).view(np.recarray), "holds numbers"), (np.array("2026-01-01", "M8[D]"), "datetime64"),
    ({}, "not object"), (np.str_("a"), "<U1"),
])
def test_arrays_that_mean_more_than_their_numbers_are_refused_wherever_they_enter(x, message):
    def assign(x):
        t.data = x
    t = mg.tensor([1.0, 1.0, 1.0], requires_grad=True)
    entries = [mg.tensor, lambda x: t * x, lambda x: mg.maximum(x, t), lambda x: np.add(t, x), mg.exp, assign,
               mg.grad(mg.sum), lambda x: mg.where(t > 0, t, x)]
    if getattr(x, "shape", None) == t.shape:
        entries += [mg.softmax, lambda x: mg.stack([t, x]), lambda x: mg.matmul(t, x),
                    lambda x: (t * 1.0).backward(x), lambda x: mg.vjp(mg.tanh, t)[1]((x,))]
    for enter in entries:
        with pytest.raises(TypeError, match=message):
            enter(x)


def test_what_numpy_ma_does_with_a_tensor_does_not_lose_its_gradient():
    """numpy.ma reads the attribute `_data` of any object."""
    t = mg.tensor([1.0, 1.0, 1.0], requires_grad=True)
    for use in (lambda: MASKED * t, lambda: np.ma.multiply(t, MASKED), lambda: np.ma.array(t),
                lambda: np.ma.zeros(3).__setitem__(0, t[0])):
        with pytest.raises((TypeError, ValueError)):
            use()


def test_numbers_of_foreign_byte_order_become_native_at_the_door(tmp_path):
    for dtype in (">f8", ">f4", ">i4", ">c8", ">f2"):
        x = np.arange(1.0, 9.0).reshape(4, 2).astype(dtype)
        same = np.dtype(dtype).newbyteorder("=")
        for y in (mg.tensor(x), mg.tensor([1, 2], dtype=dtype), mg.exp(x), mg.tensor(x) * x,
                  mg.tensor([1.0]).astype(dtype), mg.concatenate([x, x]), mg.tensor(list(x))):
            assert y.dtype.isnative
        assert mg.tensor(x).dtype == mg.tensor([1], dtype=dtype).dtype == same and np.array_equal(mg.tensor(x).data, x)
    w = mg.tensor(x, requires_grad=True)
    assert mg.grad(lambda x: (x[[0, 0, 3]] * 2.0).sum())(x.astype(">f8")).tolist() == [[4, 4], [0, 0], [0, 0], [2, 2]]
    (mg.take(w, [0, 0, 3], axis=0) * 2.0).sum().backward(np.array(1.0, ">f8"))
    assert w.grad.tolist() == [[4, 4], [0, 0], [0, 0], [2, 2]]
    e = mg.nn.Embedding(4, 2, dtype=">f4", rng=0)
    (e(np.array([0, 0, 3], ">i8")) * 3.0).sum().backward()
    assert e.weight.grad.tolist() == [[6, 6], [0, 0], [0, 0], [3, 3]]
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    assert mg.sum(mg.tensor(mapped) + mapped).item() == 0


def test_a_tensor_is_a_key_and_can_be_weakly_referred_to():
    w = leaf(2)
    assert {w: 1}[w] == 1 and weakref.ref(w)() is w


def test_detach_shares_the_data_and_stops_gradients():
    w = leaf(2, name="w")
    d = w.detach()
    assert d.data is w.data and d.name == "w" and not d.requires_grad
    assert not (d * 2.0).requires_grad and d.numpy() is w.data


# -- NumPy's own functions and operators ------------------------------------------------------------------

X = np.array([1.0, 2.0, 3.0])
W, v = np.random.default_rng(1).normal(size=(2, 3)), np.random.default_rng(2).normal(size=(3, 4))


@pytest.mark.parametrize("f", [
    lambda t: np.tanh(t), lambda t: np.exp(-t) + 1, lambda t: W @ t, lambda t: np.dot(W, t), lambda t: np.matmul(W, t),
    lambda t: np.concatenate([t, v]), lambda t: np.concatenate((v, t), axis=1), lambda t: np.sum(t, axis=0),
    lambda t: np.mean(t, 1, keepdims=True), lambda t: np.maximum(t, 0.1), lambda t: np.where(v > 0, t, 0.0),
    lambda t: np.stack([t, t]), lambda t: np.transpose(t), lambda t: np.reshape(t, (-1,)), lambda t: np.clip(t, -1, 1),
    lambda t: np.einsum("ij,kj->ik", t, v), lambda t: np.split(t, 3)[1], lambda t: np.max(t), lambda t: np.abs(t),
    lambda t: v * t, lambda t: np.float64(2) * t, lambda t: 2 - t, lambda t: 1 / (t + 9), lambda t: abs(t) ** 0.5,
    lambda t: t.T, lambda t: t[::-1, [0, 2]], lambda t: (t > 0) & ~(t > 1), lambda t: v < t, lambda t: t != v,
])
def test_numpy_text_runs_on_tensors(f):
    """NumPy code of the document, run on a Tensor, returns the same values and records them."""
    x = np.random.default_rng(3).normal(size=(3, 4))
    y = f(mg.tensor(x, requires_grad=True))
    assert isinstance(y, mg.Tensor)
    np.testing.assert_allclose(y.data, f(x), rtol=1e-13)
    assert y.requires_grad == (y.dtype != bool)


def test_questions_about_values_are_answered_with_arrays():
    t = leaf(3, 4)
    assert (np.shape(t), np.ndim(t), np.size(t), np.argmax(t)) == ((3, 4), 2, 12, t.data.argmax())
    assert type(np.zeros_like(t)) is np.ndarray and np.allclose(t, t.data) and np.isfinite(t).all()


@pytest.mark.parametrize("act, error, message", [
    (lambda t: np.asarray(t), TypeError, r"requires gradients.*detach\(\)\.numpy\(\).*mg\.stack"),
    (lambda t: np.zeros(3).__setitem__(slice(None), t), TypeError, "collect the steps in a list and mg.stack"),
    (lambda t: np.zeros((3, 2)).__setitem__((slice(None), 1), t), TypeError, "collect the steps in a list"),
    (lambda t: np.zeros(3).__iadd__(t), TypeError, r"a = a \+ b instead of a \+= b"),
    (lambda t: np.add(t, 1, out=np.zeros(3)), TypeError, "into an existing array cannot be recorded"),
    (lambda t: np.tan(t), TypeError, r"np\.tan has no op.*write mg\.sin\(x\) / mg\.cos.*detach"),
    (lambda t: np.nansum(t), TypeError, r"np\.nansum has no op.*write mg\.sum\("),
    (lambda t: np.isneginf(t), TypeError, r"np\.isneginf has no op and cannot be recorded: declare it"),
    (lambda t: np.add.reduce(t), TypeError, r"np\.add\.reduce.*mg\.sum"),
    (lambda t: np.sum(t, initial=1.0), TypeError, "sum takes no initial here, and initial=1.0 was given: leave it out"),
    (lambda t: np.add(t, 1, where=[True]), TypeError, "add.*where"),
    (lambda t: t + np.zeros(2), ValueError, r"add: a \(3,\), b \(2,\) do not go together.*from the right"),
    (lambda t: t @ np.zeros((2, 2)), ValueError, r"matmul: a \(3,\), b \(2, 2\) do not go together.*last axis"),
    (lambda t: mg.concatenate([t, np.zeros((1, 3))]), ValueError, r"concatenate: arrays\[0\] \(3,\), arrays\[1\]"),
    (lambda t: t.reshape(2, 2), ValueError, r"reshape cannot take x \(3,\), shape=\(2, 2\): "),
    (lambda t: t[5], IndexError, r"getitem cannot take x \(3,\), index=\(5,\): .*out of bounds"),
    (lambda t: t + "a", TypeError, "holds numbers, not <U1"),
    (lambda t: mg.reshape(t), TypeError, r"reshape\(\) missing 1 required .*'shape'"),
    (lambda t: mg.sum(), TypeError, r"sum\(\) missing 1 required .*'x'"),
    (lambda t: mg.sum(t, 0, float, 1), TypeError, "sum takes no out here, and out=1 was given"),
])
def test_what_numpy_cannot_do_with_a_tensor_is_said(act, error, message):
    with pytest.raises(error, match=message):
        act(leaf(3))


@pytest.mark.parametrize("call", [
    lambda x: np.allclose(X, b=x), lambda x: np.isclose(a=x, b=X), lambda x: np.isclose(X, X, rtol=x),
    lambda x: np.array_equal(a1=x, a2=x), lambda x: np.argmax(a=x), lambda x: np.argsort(a=x),
    lambda x: np.count_nonzero(a=x, axis=0), lambda x: np.any(a=x > 1),
    lambda x: np.all(np.ones(3, bool), where=x > 1), lambda x: np.zeros_like(a=x), lambda x: np.ndim(a=x),
    lambda x: np.shape(a=x), lambda x: np.sum(a=x), lambda x: np.sum(a=x, axis=0, keepdims=True),
    lambda x: np.max(a=x), lambda x: np.var(a=x), lambda x: np.cumsum(a=x), lambda x: np.transpose(a=x),
    lambda x: np.expand_dims(a=x, axis=0), lambda x: np.moveaxis(a=x, source=0, destination=0),
    lambda x: np.broadcast_to(array=x, shape=(2, 3)), lambda x: np.stack(arrays=[x, x]),
    lambda x: np.split(ary=x, indices_or_sections=3)[1], lambda x: np.take(a=x, indices=[0, 2]),
    lambda x: np.repeat(a=x, repeats=2), lambda x: np.tile(A=x, reps=2), lambda x: np.flip(m=x),
    lambda x: np.pad(array=x, pad_width=1), lambda x: np.clip(a=x, a_min=1.5, a_max=None),
    lambda x: np.clip(X, a_min=x, a_max=9), lambda x: np.outer(a=X, b=x), lambda x: np.tensordot(a=x, b=X, axes=1),
])
def test_a_tensor_may_be_given_by_numpys_own_keyword(call):
    ours, theirs = call(mg.tensor(X, requires_grad=True)), call(X)
    np.testing.assert_array_equal(ours.data if isinstance(ours, mg.Tensor) else ours, theirs)


def test_arrays_alone_give_arrays():
    x = np.ones((2, 2))
    assert type(mg.tanh(x)) is np.ndarray and type(mg.sum(x, axis=0)) is np.ndarray
    assert type(mg.matmul(x, x)) is np.ndarray and type(mg.split(x, 2)[0]) is np.ndarray


def write(array, index, value):
    array[index] = value
    return array


TURNED_INTO_NUMBERS = {
    "float": float, "int": int, "complex": complex, "index": operator.index, "math": math.sin, "cmath": cmath.exp,
    "ceil": math.ceil, "isclose": lambda x: math.isclose(x, 1.0), "fsum": lambda x: math.fsum([x, x]),
    "range": range, "slice": lambda x: [1, 2, 3][x:],
    "NumPy scalar": np.float64, "of single precision": np.float32, "complex scalar": np.complex128,
    "array": np.array, "list": lambda x: np.array([x, 1.0]), "iterator": lambda x: np.fromiter([x, x], float),
    "entry": lambda x: write(np.zeros(2), 0, x), "entry of one axis": lambda x: write(np.zeros(2), 0, x.reshape(1)),
    "entry of halves": lambda x: write(np.zeros(2, np.float16), 0, x),
    "entry of integers": lambda x: write(np.zeros(2, int), 0, x),
    "complex entry": lambda x: write(np.zeros(2, complex), 0, x),
    "slice of an array": lambda x: write(np.zeros(2), slice(None), x), "0-d": lambda x: write(np.zeros(()), (), x),
    "record": lambda x: write(np.zeros(2, [("a", float)]), 0, (x,)), "fill": lambda x: np.zeros(2).fill(x),
    "full": lambda x: np.full(2, x), "initial": lambda x: np.sum(np.ones(2), initial=x), "arange": np.arange,
    "random": lambda x: np.random.default_rng(0).normal(x), "method of an array": lambda x: np.ones(2).searchsorted(x),
    "array.array": lambda x: array.array("d", [x]),
    "new tensor": mg.tensor, "new tensor of a list": lambda x: mg.tensor([x, x]),
}


@pytest.mark.parametrize("what", TURNED_INTO_NUMBERS)
def test_a_gradient_is_not_lost_to_a_number_without_a_word(what):
    x = leaf()
    for tracked in (x, x * 2.0):
        with pytest.raises((TypeError, ValueError)) as problem:
            TURNED_INTO_NUMBERS[what](tracked)
        message = f"{problem.value} {problem.value.__cause__}"  # for an entry, NumPy raises its own error from ours
        assert re.search(r"requires gradients.*(\.item\(\)|\.detach\(\))", message)


def test_numbers_that_no_gradient_is_recorded_through_can_be_taken():
    """`losses[i] = loss` works under no_grad, for a detached tensor, and after backward."""
    w, losses = leaf(3), np.zeros(4)
    loss = (w ** 2).sum()
    right = (w.data ** 2).sum()
    with mg.no_grad():
        losses[0] = loss
    losses[1] = loss.detach()
    losses[2] = loss.item()
    loss.backward(retain_graph=True)
    with pytest.raises(TypeError, match=r"math\.sin.*\.item\(\)"):
        float(loss)
    loss.backward()
    losses[3] = loss
    assert losses == pytest.approx(right) and float(loss) == math.fsum([loss]) == loss.item() and f"{loss:.3f}"


@pytest.mark.parametrize("f", [
    lambda x: math.sin(x[0]) * x[1], lambda x: float(x[0]) * x[1], lambda x: mg.tensor(x[0]) * x[1],
    lambda x: mg.sum(write(np.zeros(2), 0, x[0] * x[1])), lambda x: np.full(2, x[0]) @ x,
])
def test_in_a_function_that_is_differentiated_neither(f):
    for derivative in (mg.grad, mg.value_and_grad, mg.jacobian, mg.hessian):
        with pytest.raises((TypeError, ValueError)):
            derivative(f)(np.array([2.0, 3.0]))


def test_dtype_rules():
    x = mg.tensor([1.0, 2.0], dtype=np.float32, requires_grad=True)
    assert all(y.dtype == np.float32 for y in (x * 2.0, 1 - x, x ** 2, x / 3, mg.sigmoid(x), mg.softmax(x), x.mean()))
    w = mg.tensor([3.0, 4.0], requires_grad=True)
    y = x * w
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32 and w.grad.dtype == np.float64
    assert x.grad.tolist() == [3, 4] and w.grad.tolist() == [1, 2]


def test_a_cast_to_integers_carries_no_gradient():
    x = leaf(3)
    assert x.astype(np.float32).requires_grad and not x.astype(int).requires_grad
    assert mg.grad(lambda x: (x * x.astype(int)).sum())(np.array([2.5])).tolist() == [2]


# -- in place ---------------------------------------------------------------------------------------------


def test_in_place_operators():
    """On a leaf under no_grad they change its data (an optimiser's step); otherwise they make a new tensor."""
    w = leaf(3)
    data, kept = w.data, w.data.copy()
    for change in (lambda w: w.__iadd__(1.0), lambda w: w.__imul__(w)):
        with pytest.raises(RuntimeError, match=r"leaf that requires gradients.*with mg\.no_grad\(\)"):
            change(w)
    with mg.no_grad():
        w -= mg.tensor([1.0, 2.0, 3.0])
        w *= 2
    assert w.data is data and w.requires_grad and w.is_leaf
    np.testing.assert_array_equal(w.data, 2 * (kept - [1, 2, 3]))
    with mg.no_grad(), pytest.raises(ValueError, match=r"must keep its shape.*\(2, 3\)"):
        w += np.ones((2, 3))
    a = b = w * 1.0
    a += 1.0
    assert a is not b and np.array_equal(a.data, b.data + 1)
    c = d = mg.tensor(1.0)
    c += 1
    assert (float(c), float(d)) == (2.0, 1.0)


# -- declaring an op --------------------------------------------------------------------------------------


def test_an_op_of_ones_own(ops):
    @mg.op(np=np.cbrt, method=True, dx=lambda g, y: g / (3.0 * y * y))
    def cube_root(x):
        """y = ∛x.   dL/dx = g / 3y²."""
        return np.cbrt(x)

    x = np.array([1.0, 8.0])
    assert mg.grad(lambda x: np.cbrt(x).sum())(x) == pytest.approx([1 / 3, 1 / 12])
    assert mg.tensor(x).cube_root().tolist() == [1, 2] and type(cube_root(x)) is np.ndarray
    assert mg.grad(mg.grad(cube_root))(8.0) == pytest.approx(-2 / 9 * 8 ** (-5 / 3))
    assert (cube_root.__name__, cube_root.op.name, OPS["cube_root"]) == ("cube_root", "cube_root", cube_root.op)


def test_an_op_of_ones_own_needs_no_docstring_and_every_one_of_ours_has_one(ops):
    @mg.op(dx=lambda g: 3.0 * g)
    def threefold(x):
        return 3.0 * x

    assert mg.grad(lambda x: threefold(x).sum())(np.ones(2)).tolist() == [3, 3]
    ours = [op for op in OPS.values() if op.forward.__module__.startswith("minigrad.")]
    assert len(ours) > 40 and not [op.name for op in ours if not op.forward.__doc__]


def test_several_results_and_any_number_of_inputs(ops):
    @mg.op(dx=lambda g, y: g[0] * y[1] - g[1] * y[0])
    def sine_and_cosine(x):
        """(sin x, cos x).   dL/dx = g₀ cos x − g₁ sin x."""
        return np.sin(x), np.cos(x)

    @mg.op(darrays=lambda g, arrays: [2.0 * g * a for a in arrays])
    def sum_of_squares(*arrays):
        """Σ a².   dL/da = 2 g a."""
        return sum(a * a for a in arrays)

    assert mg.gradcheck(lambda x: sine_and_cosine(x), np.array([0.3, 1.0]), order=2).ok
    assert mg.grad(lambda x: sine_and_cosine(x)[1])(1.0) == pytest.approx(-np.sin(1.0))
    assert mg.gradcheck(lambda a, b: sum_of_squares(a, b, a), np.ones(2), np.full(2, 3.0), order=2).ok
    assert type(sine_and_cosine(1.0)[0]) is np.float64


def test_an_argument_without_a_rule_passes_no_gradient(ops):
    @mg.op(da=lambda g, b: g * b)
    def scale_by(a, b):
        """a b, with b as a constant."""
        return a * b

    @mg.op()
    def largest_of(*arrays):
        """The index of the array with the largest sum. It has no rule."""
        return np.asarray(np.argmax([a.sum() for a in arrays]))

    a, b = leaf(2), leaf(2, seed=1)
    assert not scale_by(a.data, b).requires_grad and not largest_of(a, b).requires_grad
    scale_by(a, b).sum().backward()
    assert b.grad is None and np.array_equal(a.grad, b.data)


def forward(x):
    """x"""
    return x


def with_default(x, axis=None):
    """x"""
    return x


def tanh(x):
    """x"""
    return x


scale = 2.0


@pytest.mark.parametrize("f, rules, error, message", [
    (forward, {"dz": lambda g: g}, TypeError, "op forward: dz is not the rule of an array argument; these are x"),
    (forward, {"method_": True}, TypeError, "op forward: method_ is not the rule of an array"),
    (forward, {"dx": lambda g, q: g}, TypeError, "op forward: the rule dx asks for 'q'; it may use g, y"),
    (forward, {"dx": lambda g, x: g * np.cos(x)}, TypeError, "op forward: the rule dx must be pure"),
    (forward, {"dx": (lambda k: lambda g: g * k)(2.0)}, TypeError, "op forward: the rule dx must be pure"),
    (forward, {"dx": 2.0}, TypeError, "op forward: the rule dx must be a function"),
    (with_default, {}, TypeError, "op with_default: arrays are positional without defaults"),
    (tanh, {}, ValueError, "op tanh: minigrad has an op of this name"),
])
def test_a_declaration_that_does_not_hold_is_refused_at_once(ops, f, rules, error, message):
    with pytest.raises(error, match=message):
        mg.op(f, **rules)


@pytest.mark.parametrize("rule, error, message", [
    (lambda g: None, TypeError, r"a rule of forward returned no gradient for tensor 'w'.*, but None"),
    (lambda g: g[0], None, ""),
    (lambda g: 1.0, None, ""),
    (lambda g: g.reshape((3, 2)), ValueError, r"rule of forward returned a gradient of shape \(3, 2\) for tensor 'w'"),
    (lambda g: g * 1j, TypeError, "is real, but its gradient from forward is complex"),
])
@pytest.mark.parametrize("graph", [False, True])
def test_a_gradient_that_does_not_fit_is_refused(ops, rule, error, message, graph):
    """A gradient with extra axes, as from broadcasting, is summed. g[0] and 1.0 lack axes, so they fail too."""
    op = mg.op(forward, dx=rule)
    w = leaf(2, 3, name="w")
    run = (lambda: mg.grad(mg.grad(lambda w, s: (op(w) * s).sum()))(w, 1.0)) if graph else \
        (lambda: op(w).sum().backward())
    with pytest.raises(error or ValueError, match=message if error else "a rule of forward returned a gradient of"):
        run()


def test_a_variadic_rule_must_give_one_gradient_for_each_array(ops):
    @mg.op(darrays=lambda g: [g])
    def total_of(*arrays):
        """Σ a"""
        return sum(arrays)

    with pytest.raises(ValueError, match="the rule of total_of returned 1 gradients for 2 arrays"):
        total_of(leaf(2), leaf(2)).sum().backward()


def test_every_operator_that_python_has_for_numbers_can_be_declared(ops):
    @mg.op(infix="%", da=lambda g: g, db=lambda g, a, b: -g * (a // b))
    def rest_of(a, b):
        """y = a mod b, with the sign of b.   dL/da = g,  dL/db = −g ⌊a / b⌋."""
        return np.remainder(a, b)

    @mg.op(infix="//")
    def whole_of(a, b):
        """y = ⌊a / b⌋."""
        return np.floor_divide(a, b)

    @mg.op(infix="+", dx=lambda g: g)
    def same_as(x):
        """y = x.   dL/dx = g."""
        return np.positive(x)

    t = mg.tensor([5.0, -7.0], requires_grad=True)
    assert [y.tolist() for y in (+t, t % 3, t // 3, 9 % t, 9 // t)] == [[5, -7], [2, 2], [1, -3], [4, -5], [1, -2]]
    assert [y.tolist() for y in (*divmod(t, 3), *divmod(9, t))] == [[1, -3], [2, 2], [1, -2], [4, -5]]
    a = t * 1.0
    a %= 3
    assert a.tolist() == [2, 2] and a.requires_grad
    a //= 2
    assert a.tolist() == [1, 1] and not a.requires_grad
    (9.0 % +t).sum().backward()
    assert t.grad.tolist() == [-1, 2]
    assert "a % b" in mg.derive(lambda a, b: a % b, np.ones(2), np.ones(2)).source


HIDDEN = np.ma.array([0, 1, 1], mask=[0, 1, 0])


@pytest.mark.parametrize("use", [
    lambda x: x[HIDDEN], lambda x: x[HIDDEN == 1], lambda x: mg.take(x, HIDDEN), lambda x: mg.repeat(x, HIDDEN),
    lambda x: mg.pad(x, HIDDEN[:2]), lambda x: mg.roll(x, HIDDEN[1:2]), lambda x: nn.Linear(3, 2)(HIDDEN),
    lambda x: nn.LayerNorm(3)(HIDDEN), lambda x: nn.Embedding(3, 2)(HIDDEN),
    lambda x: nn.LSTM(3, 2)(np.ma.masked_greater(np.ones((4, 1, 3)), 2)),
    lambda x: nn.LSTM(1, 2)(np.ones((4, 3, 1)), lengths=HIDDEN + 1),
    lambda x: nn.GRU(1, 3)(np.ones((4, 1)), HIDDEN[None]), lambda x: nn.mse_loss(x, HIDDEN),
    lambda x: nn.mse_loss(x, [0.0, 1.0, 1.0], mask=HIDDEN), lambda x: nn.binary_cross_entropy(x, HIDDEN),
    lambda x: nn.cross_entropy(mg.stack([x, x], 1), HIDDEN),
    lambda x: nn.cross_entropy(mg.stack([x, x], 1), [0, 1, 1], mask=HIDDEN),
    lambda x: mg.gradcheck(lambda a: a * a, HIDDEN * 1.0)])
def test_a_mask_is_lost_nowhere(use):
    with pytest.raises(TypeError, match=r"lose its mask"):
        use(mg.tensor([1.0, 2.0, 3.0], requires_grad=True))


@pytest.mark.parametrize("use, expected", [
    (lambda a: a & 3, [2, 3]), (lambda a: 3 & a, [2, 3]), (lambda a: a | 8, [14, 11]), (lambda a: ~a, [-7, -4]),
    (np.invert, [-7, -4]), (lambda a: np.bitwise_and(a, 3), [2, 3]), (lambda a: np.logical_and(a, 4), [True, True]),
    (lambda a: (a > 3) & [True, False], [True, False]), (lambda a: ~(a > 3), [False, True])])
def test_bits_of_integers_are_bits_and_of_booleans_answers(use, expected):
    np.testing.assert_array_equal(use(mg.tensor([6, 3])), expected, strict=True)


def test_bits_of_floats_are_refused():
    with pytest.raises(TypeError, match="bitwise_and cannot take"):
        mg.tensor([1.0]) & True
