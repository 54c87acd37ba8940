"""grad, value_and_grad, vjp, jvp, hvp, jacobian and hessian: nesting, arguments, results and error messages."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from leaves import leaf

import minigrad as mg
from minigrad.engine.tensor import Tensor


@pytest.mark.parametrize("found, expected", [
    (lambda: mg.grad(lambda x: x * mg.grad(lambda y: x + y)(1.0))(2.0), 1),          # perturbation confusion
    (lambda: mg.grad(lambda x: x * mg.grad(lambda y: x * y)(2.0))(1.0), 2),
    (lambda: mg.grad(lambda x: mg.grad(lambda y: x * y * y)(3.0))(5.0), 6),
    (lambda: mg.grad(lambda x: mg.grad(lambda y: x ** 2 * y)(x) * x)(3.0), 27),
    (lambda: mg.grad(lambda x: mg.grad(lambda x: x * x)(x) * x)(3.0), 12),           # the inner x hides the outer
    (lambda: mg.grad(mg.grad(mg.grad(lambda x: x ** 4)))(2.0), 48),
    (lambda: mg.grad(mg.grad(mg.grad(mg.tanh)))(0.0), -2),
    (lambda: mg.grad(lambda x: mg.value_and_grad(lambda y: x * y * y)(x)[0])(2.0), 12),
    (lambda: mg.grad(lambda x: mg.vjp(lambda y: x * y, 3.0)[1](x)[0])(2.0), 4),
    (lambda: mg.grad(lambda x: mg.jvp(lambda y: x * y * y, (x,), (x,))[1])(2.0), 6 * 4),
    (lambda: mg.grad(lambda x: mg.hvp(lambda y: x * y ** 3, x, 1.0))(2.0), 24),
    (lambda: mg.jvp(mg.grad(lambda x: x ** 3), (2.0,), (1.0,))[1], 12),
    (lambda: mg.jvp(lambda x: mg.jvp(mg.sin, (x,), (1.0,))[1], (0.5,), (1.0,))[1], -np.sin(0.5)),
    (lambda: mg.jvp(lambda x: x * mg.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (2.0,), (1.0,))[1], 1),
    (lambda: mg.grad(lambda x: mg.sum(mg.jacobian(lambda y: mg.stack([x * y, y * y]))(x)))(2.0), 3),
], ids=range(15))
def test_gradients_nest(found, expected):
    assert found() == pytest.approx(expected)
    assert not isinstance(found(), Tensor)


def test_gradients_of_an_enclosing_scope():
    """Cases from autograd: the inner function closes over a variable that the outer gradient differentiates."""
    def outer(x):
        def inner(y):
            return mg.sum(x * y)
        return mg.sum(mg.grad(inner)(x * 1.0))

    x = np.random.default_rng(0).normal(size=4)
    np.testing.assert_array_equal(mg.grad(outer)(x), np.ones(4))

    def mutable(x):
        seen = []
        for t in range(3):
            seen.append(x[t] * (seen[-1] if seen else 1.0))
        return mg.sum(mg.grad(lambda y: mg.sum(y * seen[-1]))(x[:1]))

    np.testing.assert_allclose(mg.grad(mutable)(x), [x[1] * x[2], x[0] * x[2], x[0] * x[1], 0])


def test_what_comes_back_is_a_tensor_only_where_something_outside_depends_on_it():
    w, x = leaf(3), np.ones(3)

    def f(x):
        return (w * x * x).sum()

    for got in (mg.grad(f)(x), mg.value_and_grad(f)(x)[0], mg.vjp(f, x)[0], mg.jvp(f, (x,), (x,))[1], mg.hvp(f, x, x),
                mg.jacobian(f)(x), mg.hessian(f)(x)):
        assert isinstance(got, Tensor) and got.requires_grad
    mg.grad(f)(x).sum().backward()  # a gradient penalty
    assert w.grad.tolist() == [2, 2, 2]

    def g(x):
        return (x * x).sum()
    for got in (mg.grad(g)(x), mg.value_and_grad(g)(x)[0], mg.vjp(g, x)[0], mg.jvp(g, (x,), (x,))[1], mg.hvp(g, x, x),
                mg.jacobian(g)(x), mg.hessian(g)(x), mg.grad(mg.grad(lambda x: x * x))(1.0),
                # the inner gradient leaves a tensor in the graph, but no outer tensor
                mg.grad(lambda s: mg.value_and_grad(lambda y, s: (y * s).sum())(x, s)[0])(2.0)):
        assert type(got) is np.ndarray
    assert isinstance(mg.grad(g)(w), Tensor) and type(mg.grad(g)(w.detach())) is np.ndarray
    assert w.grad.tolist() == [2, 2, 2]  # no function has written into it


Pair = collections.namedtuple("Pair", "h c")


def test_a_loss_may_hand_out_more_than_its_value():
    """aux keeps its nesting and its contents; tensors in it are returned as arrays."""
    def loss(w, x):
        h = mg.tanh(w * x)
        return (h * h).sum(), {"state": (h, w), "name": "step 1", "n": 3, "x": x, "none": None}
    w, x = np.ones(3), np.array([0.1, 0.2, 0.3])
    (value, aux), d = mg.value_and_grad(loss, has_aux=True)(w, x)
    alone, right = mg.value_and_grad(lambda w, x: loss(w, x)[0])(w, x)
    assert value == alone and np.array_equal(d, right)
    assert type(aux["state"][0]) is type(aux["state"][1]) is np.ndarray and aux["x"] is x
    assert np.array_equal(aux["state"][0], np.tanh(x)) and (aux["name"], aux["n"], aux["none"]) == ("step 1", 3, None)
    assert aux["state"][1] is not w
    d, aux = mg.grad(loss, argnums=(0, 1), has_aux=True)(w, x)
    assert np.array_equal(d[0], right) and len(d) == 2 and aux["n"] == 3
    assert mg.grad(lambda w: [w.sum(), w], has_aux=True)(w)[1].tolist() == [1, 1, 1]
    with mg.no_grad():
        assert type(mg.grad(loss, has_aux=True)(w, x)[1]["state"][0]) is np.ndarray


def test_what_it_hands_out_is_a_tensor_only_where_something_outside_depends_on_it():
    W = leaf(3)
    f = mg.value_and_grad(lambda x: ((x * x).sum(), (x * 2.0, x * W)), has_aux=True)
    (value, (mine, theirs)), d = f(np.ones(3))
    assert type(value) is type(d) is type(mine) is np.ndarray and isinstance(theirs, mg.Tensor)
    theirs.sum().backward()
    assert W.grad.tolist() == [1, 1, 1]

    def outer(y):
        d, aux = mg.grad(lambda x: ((x ** 3).sum(), x * y), has_aux=True)(y)
        return (aux * d).sum()  # y² · 3 y²
    assert mg.grad(outer)(np.array([2.0])).tolist() == [12 * 8]


def test_nestings():
    state = Pair(np.array([1.0, 2.0]), [np.array(3.0), {"w": np.float32(4.0), "none": None}])

    def f(state, scale=1.0):
        return scale * (mg.sum(state.h) * state.c[0] * state.c[1]["w"])

    value, d = mg.value_and_grad(f)(state, scale=2.0)
    assert value == 72 and isinstance(d, Pair) and d.h.tolist() == [24, 24]
    assert (d.c[0], d.c[1]["w"], d.c[1]["none"]) == (24, 18, None) and d.c[1]["w"].dtype == np.float32
    kept = collections.defaultdict(list, a=1.0)
    assert type(mg.grad(lambda p: p["a"] * 2)(kept)) is collections.defaultdict


def test_argnums_and_keywords():
    def f(a, b, c, k=1.0):
        return a * b * c * k
    assert mg.grad(f, 1)(2.0, 3.0, 5.0) == 10 and mg.grad(f, -1)(2.0, 3.0, 5.0, k=2.0) == 12
    assert mg.grad(f, (2, 0))(2.0, 3.0, 5.0) == (6, 15)
    assert mg.grad(f, (0,))(2.0, 3.0, 5.0) == (15,)
    assert mg.jacobian(f, (0, 1))(2.0, 3.0, 5.0) == (15, 10)
    assert mg.hessian(f, (0, 1))(2.0, 3.0, 5.0) == ((0, 5), (5, 0))


def test_zeros_where_nothing_depends():
    d = mg.grad(lambda p: p["a"] * 2.0)({"a": 1.0, "b": np.ones((2, 3), np.float32)})
    assert d["b"].shape == (2, 3) and d["b"].dtype == np.float32 and not d["b"].any()
    assert mg.jacobian(lambda x: mg.stack([x, 1.0]))(1.0).tolist() == [1, 0]
    assert mg.jvp(lambda x: (x * x, 3), (1.0,), (1.0,))[1] == (2, 0)
    assert mg.jacobian(lambda x: x)(np.zeros(0, np.float32)).dtype == np.float32
    assert mg.hessian(lambda x: x * 2.0)(1.0) == 0


@pytest.mark.parametrize("act, error, message", [
    (lambda: mg.grad(lambda x: x)(2), TypeError, "int64 numbers does not exist: pass floats, such as 2.0 for 2"),
    (lambda: mg.grad(lambda x: x)(np.ones(3)), ValueError, r"returns one number, not an array of shape \(3,\)"),
    (lambda: mg.grad(lambda x: (x, x))(1.0), ValueError, "returns one number, not 2 arrays"),
    (lambda: mg.grad(lambda x: (x, x))(1.0), ValueError, r"has_aux=True for a function that returns \(loss, aux\)"),
    (lambda: mg.grad(lambda x: x, has_aux=True)(1.0), TypeError, r"must return \(loss, aux\), not an array of"),
    (lambda: mg.grad(lambda x: (x, x, x), has_aux=True)(1.0), TypeError, r"must return \(loss, aux\), not 3 arrays"),
    (lambda: mg.grad(lambda x: x, 1)(1.0), ValueError, "argnums names argument 1, but there are 1: count from 0"),
    (lambda: mg.grad(lambda x, y: x, (0, -2))(1.0, 2.0), ValueError, "names an argument twice"),
    (lambda: mg.vjp(lambda x: x, np.ones(2))[1](np.ones(3)), ValueError, r"shapes of the result: \[\(2,\)\], not"),
    (lambda: mg.jvp(lambda x: x, (np.ones(2),), (np.ones(3),)), ValueError, "the shapes of arguments"),
    (lambda: mg.jvp(lambda x: x, 1.0, 1.0), TypeError, "as two tuples"),
    (lambda: mg.hvp(lambda x: x, 1.0, np.ones(2)), ValueError, "v must have the shapes of x"),
])
def test_functions_refuse_in_a_sentence(act, error, message):
    with pytest.raises(error, match=message):
        act()


@pytest.mark.parametrize("act", [
    lambda f: mg.grad(f)(np.ones(3)), lambda f: mg.value_and_grad(f)(np.ones(3)),
    lambda f: mg.grad(lambda x: (f(x), x), has_aux=True)(np.ones(3)), lambda f: mg.jacobian(f)(np.ones(3)),
    lambda f: mg.hessian(f)(np.ones(3)), lambda f: mg.hvp(f, np.ones(3), np.ones(3)),
], ids=["grad", "value_and_grad", "has_aux", "jacobian", "hessian", "hvp"])
@pytest.mark.parametrize("f, kinds", [
    (lambda x: np.allclose(x, 3.0 * x), "bool"), (lambda x: np.sum(x) > 1.0, "bool"), (lambda x: np.argmax(x), "int64"),
    (lambda x: np.sum(x).astype(int), "int64"), (lambda x: 3, "int64"), (lambda x: "loss", "<U4"),
    (lambda x: None, "nothing"),
], ids=["allclose", "comparison", "argmax", "cast", "number", "text", "nothing"])
def test_a_result_without_any_float_has_no_derivative_rather_than_zeros(act, f, kinds):
    with pytest.raises(TypeError, match=f"no derivative of {kinds} exists: return floats"):
        act(f)


A = np.random.default_rng(4).normal(size=(3, 3))
x0, v0 = np.random.default_rng(5).normal(size=(2, 3))


def quadratic(x):
    return 0.5 * mg.sum(x * (A @ x))


def cell(x):
    return mg.softmax(A @ mg.tanh(x) + mg.sigmoid(x) * x)


def test_vjp_can_pull_again_and_again():
    y, pull = mg.vjp(lambda p, c: {"h": p["w"] @ c, "c": (c * c,)}, {"w": A}, x0)
    assert np.array_equal(y["h"], A @ x0)
    for d in (v0, 2 * v0):
        d_p, d_c = pull({"h": d, "c": (v0,)})
        np.testing.assert_allclose(d_p["w"], np.outer(d, x0))
        np.testing.assert_allclose(d_c, A.T @ d + 2 * x0 * v0)


def test_closed_forms():
    S = 0.5 * (A + A.T)
    np.testing.assert_allclose(mg.grad(quadratic)(x0), S @ x0)
    np.testing.assert_allclose(mg.hessian(quadratic)(x0), S)
    np.testing.assert_allclose(mg.hvp(quadratic, x0, v0), S @ v0)
    value, tangent = mg.jvp(lambda x: A @ x * 2.0, (x0,), (v0,))
    np.testing.assert_allclose(tangent, 2 * A @ v0)
    np.testing.assert_allclose(value, 2 * A @ x0)
    np.testing.assert_allclose(mg.jacobian(lambda x: mg.tanh(x))(x0), np.diag(1 - np.tanh(x0) ** 2))
    blocks = mg.jacobian(lambda p: {"y": p["w"] @ p["x"]})({"w": A, "x": x0})
    np.testing.assert_allclose(blocks["y"]["x"], A)
    np.testing.assert_allclose(blocks["y"]["w"], np.einsum("ij,k->ijk", np.eye(3), x0))


def test_jvp_and_hvp_against_differences():
    h = 1e-5
    np.testing.assert_allclose(mg.jvp(cell, (x0,), (v0,))[1], (cell(x0 + h * v0) - cell(x0 - h * v0)) / (2 * h),
                               rtol=1e-8)
    first = mg.grad(lambda x: mg.sum(cell(x) * x))
    np.testing.assert_allclose(mg.hvp(lambda x: mg.sum(cell(x) * x), x0, v0),
                               (first(x0 + h * v0) - first(x0 - h * v0)) / (2 * h), rtol=1e-8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.func's own import
def test_against_torch():
    torch = pytest.importorskip("torch")
    tA, tx, tv = (torch.tensor(a) for a in (A, x0, v0))

    def torch_cell(x):
        return torch.softmax(tA @ torch.tanh(x) + torch.sigmoid(x) * x, 0)

    def ours(x):
        return mg.sum(cell(x) ** 2)

    def theirs(x):
        return torch.sum(torch_cell(x) ** 2)

    for found, expected in [
        (mg.grad(ours)(x0), torch.func.grad(theirs)(tx)),
        (mg.jacobian(cell)(x0), torch.func.jacrev(torch_cell)(tx)),
        (mg.hessian(ours)(x0), torch.func.hessian(theirs)(tx)),
        (mg.jvp(cell, (x0,), (v0,))[1], torch.func.jvp(torch_cell, (tx,), (tv,))[1]),
        (mg.hvp(ours, x0, v0), torch.func.hessian(theirs)(tx) @ tv),
    ]:
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10, atol=1e-14)
