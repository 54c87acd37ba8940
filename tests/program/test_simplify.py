"""A simplified program computes the same: values with and without a gradient stay two, axes are respected."""

import itertools

import numpy as np
import pytest
from fuzz import loop as by_loop
from fuzz import traced

import minigrad as mg
from minigrad.engine.pytree import flatten, unflatten

rng = np.random.default_rng(0)
W0, XS, H0 = rng.normal(size=(3, 3)), rng.normal(size=(4, 3, 2)), np.full((3, 2), 0.3)


def outcome(scan, make, weight, state=H0, xs=XS, **options):
    """(results and gradients of weight, state and xs; whether each result is tracked)."""
    w, state, xs = (mg.tensor(x, requires_grad=True) for x in (weight, state, xs))
    results = flatten(scan(make(w), state, xs, **options))[0]
    loss = sum((y * y + (n + 1.0) * y).sum() for n, y in enumerate(results) if y.requires_grad)
    loss.backward()
    return [*(y.data for y in results), *(np.zeros(x.shape) if x.grad is None else x.grad for x in (w, state, xs))], \
        [y.requires_grad for y in results]


def check(make, weight=W0, **given):
    """Compare a cell by scan, by a recording and by its derived texts with the loop."""
    right, tracked = outcome(by_loop, make, weight, **given)
    with traced():
        ours, flags = outcome(mg.scan, make, weight, **given)
    assert flags == tracked
    with mg.bptt.record():
        recorded, _ = outcome(mg.scan, make, weight, **given)
    for a, b, c in zip(ours, recorded, right, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(b, c, rtol=1e-11, atol=1e-12)
    check_derived(lambda w, h, xs: mg.scan(make(w), h, xs), lambda w, h, xs: by_loop(make(w), h, xs),
                  weight, given.get("state", H0), given.get("xs", XS))
    check_derived(lambda w, h, x: make(w)(h, x), lambda w, h, x: make(w)(h, x), weight, given.get("state", H0),
                  given.get("xs", XS)[0])


def check_derived(f, eager, *inputs):
    tensors = [mg.tensor(x, requires_grad=True) for x in inputs]
    results = eager(*tensors)
    leaves = flatten(results)[0]
    d = [np.random.default_rng(n).normal(size=y.shape) for n, y in enumerate(leaves)]
    sum((y * g).sum() for y, g in zip(leaves, d) if y.requires_grad).backward()
    derived = mg.derive(f, *inputs)
    output, cache = derived.forward(*inputs)
    gradients = derived.backward(unflatten(results, d), cache)
    for a, y in zip(flatten(output)[0], leaves, strict=True):
        np.testing.assert_allclose(a, y.data, rtol=1e-11, atol=1e-12)
    for g, x in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(g, np.zeros(x.shape) if x.grad is None else x.grad, rtol=1e-11, atol=1e-12)


# -- with and without a gradient ---------------------------------------------------------------------------------------


def quietly(f):
    with mg.no_grad():
        return f()


TWINS = {
    "state cut": lambda w, h, k: (k.detach(), k),
    "output cut": lambda w, h, k: (k, k.detach()),
    "both out": lambda w, h, k: (k, (k, k.detach(), k)),
    "as floats": lambda w, h, k: (k, (k, k.detach().astype(float))),
    "a copy without": lambda w, h, k: (k, (quietly(lambda: mg.copy(k)), mg.copy(k))),
    "twice": lambda w, h, k: (k.detach(), (k.detach(), k, k.detach().detach())),
    "the old state": lambda w, h, k: (k, (h, h.detach())),
    "the old state goes on": lambda w, h, k: (h.detach(), k),
    "inside": lambda w, h, k: (k, (w @ k, w @ k.detach(), mg.tanh(k.detach()) * k)),
    "cut in a view": lambda w, h, k: (k, (k[1:], k[1:].detach(), k.detach()[1:], k[:, None].detach(), k[:, None])),
    "cut, transposed": lambda w, h, k: (k, (-(-k).detach(), k.T.detach().T, k.detach().reshape(6).reshape(3, 2))),
    "broadcast": lambda w, h, k: (k, (k * w[0, 0], k * quietly(lambda: mg.broadcast_to(w[0, 0], (3, 2))))),
    "minus itself": lambda w, h, k: (k - k.detach() + h, k + 0.0),
    "a twin made after": lambda w, h, k: (k, (k * k, quietly(lambda: k * k))),
    "a twin made before": lambda w, h, k: (k, (quietly(lambda: mg.exp(k)), mg.exp(k))),
    "a joined twin": lambda w, h, k: (k, mg.concatenate([k, k.detach(), h])),
    "a rule's own twin": lambda w, h, k: (k, (quietly(lambda: mg.sigmoid(k)), mg.softplus(k)))}


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"checkpoint_every": 2},
                                     {"mask": np.array([[1, 1], [1, 0], [0, 1], [1, 1]])}], ids=str)
def test_a_value_and_its_twin_without_a_gradient_stay_two(twin, options):
    def make(w):
        return lambda h, x: TWINS[twin](w, h, mg.tanh(w @ h + x))
    check(make, **options)


@mg.op(dx=lambda g, x: g[0] * mg.cos(x) - g[1] * mg.sin(x))
def sin_and_cos(x):
    """(sin x, cos x), any shape.   dL/dx = g₀ cos x − g₁ sin x."""
    return np.sin(x), np.cos(x)


@pytest.mark.parametrize("first", [True, False], ids=["twin before", "twin after"])
def test_the_twin_of_an_op_with_two_results(first):
    def make(w):
        def cell(h, x):
            k = w @ h + x
            quiet = quietly(lambda: sin_and_cos(k)) if first else ()
            loud = sin_and_cos(k)
            return loud[0], (*loud, *(quiet or quietly(lambda: sin_and_cos(k))))
        return cell
    check(make)


def test_a_weight_as_the_state_may_be_cut():
    def make(w):
        return lambda h, x: (mg.copy(w), (w @ h + x, quietly(lambda: w * 1.0), w))
    check(make, state=np.full((3, 3), 0.3), xs=XS[:, :, :1])


def test_a_state_that_is_cut_at_every_step_gives_the_truncated_gradient():
    w = mg.tensor([[2.0]], requires_grad=True)

    def cell(h, x):
        h = w @ h + x
        return h.detach(), h
    _, ys = mg.scan(cell, np.ones((1, 1)), np.ones((2, 1, 1)))
    ys.sum().backward()
    assert w.grad.item() == 4  # h₁ = 3, h₂ = 7: dL/dw = h₀ + h₁ = 1 + 3 within each step


def test_a_twin_is_not_computed_twice():
    w = mg.tensor(W0, requires_grad=True)

    def cell(h, x):
        k = mg.tanh(w @ h + x)
        return k.detach(), (k, quietly(lambda: mg.tanh(w @ h + x)))
    source = mg.derive(cell, H0, XS[0]).planned_source
    forward = source[source.index("def forward"):source.index("def make_backward")]
    assert forward.count("tanh(") == 1 and "copyto" not in forward


def test_a_cast_to_integers_ends_the_gradient():
    check(lambda w: lambda h, x: (mg.tanh(h), (3.0 * h).astype(int).astype(float) * h))


def test_only_inputs_that_an_op_has_a_rule_for_make_a_result_tracked():
    w = mg.tensor(W0, requires_grad=True)
    _, ys = mg.scan(lambda h, x: (h, mg.where(w, x, 0.5)), np.zeros((3, 3)), rng.normal(size=(2, 3, 3)))
    assert not getattr(ys, "requires_grad", False)  # only the condition depends on w


# -- axes ------------------------------------------------------------------------------------------------------------

MOVES = {
    "transpose (0, 1)": lambda A, h: A @ np.transpose(A @ h, (0, 1)),
    "transpose (-2, 1)": lambda A, h: A @ np.transpose(A @ h, (-2, 1)),
    "moveaxis(0, 0)": lambda A, h: A @ np.moveaxis(A @ h, 0, 0),
    "swapaxes(-2, 0)": lambda A, h: A @ np.swapaxes(A @ h, -2, 0),
    "T T": lambda A, h: A @ (A @ h).T.T,
    "transposes": lambda A, h: A @ np.transpose(np.transpose((A @ h)[None], (1, 2, 0)), (2, 0, 1))[0],
    "transposes, sum": lambda A, h: A @ np.transpose(np.transpose((A @ h)[None], (1, 2, 0)), (2, 0, 1)).sum(0),
    "tensordot (1, 0)": lambda A, h: np.tensordot(A, A @ h, (1, 0)),
    "tensordot ((0,), (0,))": lambda A, h: np.tensordot(A, A @ h, ((0,), (0,))),
    "einsum ib->ib": lambda A, h: A @ np.einsum("ib->ib", A @ h),
    "einsum ib,ib->ib": lambda A, h: A @ np.einsum("ib,ib->ib", A @ h, h),
    "einsum i,ib->ib": lambda A, h: A @ np.einsum("i,ib->ib", A[0], A @ h),
    "a stack times a vector": lambda A, h: (np.broadcast_to(A, (3, 3, 3)) @ h[:, 0])[:, :2],
    "rows of that": lambda A, h: np.concatenate([(mg.stack([A, A * A]) @ h[:, 0])[:1, :2] * h, h])[:3],
    "a vector times a stack": lambda A, h: A[:, :2] @ (h[:, 0] @ mg.stack([A, A * A]))[:, :2]}


@pytest.mark.parametrize("move", MOVES)
def test_axes_are_respected(move):
    def make(A):
        def cell(h, x):
            h = mg.tanh(MOVES[move](A, h) + x)
            return h, MOVES[move](A, h)
        return cell
    check(make)


def test_transposes_that_undo_each_other_are_not_printed():
    def f(x):
        return mg.tanh(np.moveaxis(np.swapaxes(np.transpose(x, (1, 2, 0)), 0, 2), 1, 2)) + np.transpose(x, (0, 1, 2))
    source = mg.derive(f, np.ones((2, 3, 4))).source
    assert "transpose" not in source and ".T" not in source


# -- numbers, constants, sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight, steps", list(itertools.product((np.array(0.5), np.array([0.5]), np.array([[0.5]])),
                                                                 (1, 2, 33, 300))))
def test_a_weight_of_one_number_has_a_gradient_at_any_length(weight, steps):
    right = 6 * steps * 0.5 ** (steps - 1)  # h_T = bᵀ in each of six entries
    b = mg.tensor(weight, requires_grad=True)
    final, _ = mg.scan(lambda h, x: (b * h + x, h), np.ones((3, 2)), np.zeros((steps, 3, 2)))
    final.sum().backward()
    assert isinstance(b.grad, np.ndarray) and b.grad.shape == weight.shape
    np.testing.assert_allclose(b.grad, np.full(weight.shape, right), rtol=1e-12)


SMALL = {"used twice": lambda b: lambda h, x: ((k := b * h + b * x[0]), k),
         "as the state": lambda b: lambda h, x: (mg.tanh(b), b * h + x),
         "itself the state": lambda b: lambda h, x: (b, b * h + x),
         "in a sum": lambda b: lambda h, x: (mg.sum(b * x), b + h),
         "in a product": lambda b: lambda h, x: (h * b * b, mg.exp(-b) * x * h),
         "of its own square": lambda b: lambda h, x: (b * b + mg.tanh(h), (b * b) * b),
         "chosen": lambda b: lambda h, x: (mg.where(h > 0.1, b, h), mg.maximum(b, mg.max(x)) * h),
         "indexed": lambda b: lambda h, x: (h[()] * b[...], b[()] + x)}


@pytest.mark.parametrize("steps", [1, 4, 40])
@pytest.mark.parametrize("use", SMALL)
def test_states_and_weights_of_one_number(use, steps):
    check(SMALL[use], np.array(0.7), state=np.array(0.4), xs=np.linspace(-1, 1, 3 * steps).reshape(steps, 3))


INFINITE, SOME = np.array([[-np.inf], [0.0], [0.5]]), np.array([[True], [False], [True]])
ODD = {"infinite": lambda w: lambda h, x: (mg.tanh(h), mg.exp(h + INFINITE) * w[0, 0]),
       "not a number": lambda w: lambda h, x: (mg.tanh(h), mg.where(SOME, h, np.float64("nan"))[::2] * w[:2, :1]),
       "an integer condition": lambda w: lambda h, x: (mg.where((x > 0).astype(int), h * w[0, 0], x), h),
       "a float condition": lambda w: lambda h, x: (mg.where(mg.maximum(x, 0.0), h * w[0, 0], x), h),
       "booleans and a number": lambda w: lambda h, x: (h * ((x > 0) + 1), h * ((x > 0) * 3) * w[0, 0]),
       "joined in one axis": lambda w: lambda h, x: (mg.tanh(h), mg.concatenate([h, w, x], axis=None)),
       "powers by an array": lambda w: lambda h, x: (mg.tanh(h * w[0, 0]), (1.5 + h) ** np.array([2.0, 3.0])),
       "empty": lambda w: lambda h, x: (mg.tanh(h * w[0, 0]), mg.concatenate([h[:0], x]) @ np.zeros((2, 0)))}


@pytest.mark.parametrize("kind", ODD)
def test_odd_constants_and_conditions(kind):
    check(ODD[kind])


def test_a_comparison_with_a_number_between_the_integers():
    ys = mg.scan(lambda h, n: (h, (n < 2.5, (n > 1) + 1)), np.zeros(1), np.array([[1], [2], [3]]))[1]
    assert ys[0][:, 0].tolist() == [True, True, False] and ys[1][:, 0].tolist() == [1, 2, 2]


def test_minus_zero_plus_zero_is_zero():
    derived = mg.derive(lambda x: x + 0.0, np.ones(1))
    assert not np.signbit(derived.forward(np.array([-0.0]))[0])


def test_a_concatenation_of_two_dtypes_keeps_the_dtype_of_the_state():
    w = mg.tensor(np.ones((2, 6)), requires_grad=True)

    def cell(h, x):
        z = mg.concatenate([h, x])
        return mg.tanh(h).astype(np.float32), w @ z
    final, _ = mg.scan(cell, np.ones((3, 2), np.float32), XS)
    assert final.dtype == np.float32


def test_an_inner_scan_over_invariants_stays_in_the_outer_loop():
    def make(w):
        def cell(h, x):
            k, _ = mg.scan(lambda k, z: (mg.tanh(k * z), k), h, mg.stack([w, w * w]))
            return h, k * x
        return cell
    check_derived(lambda w, h, xs: mg.scan(make(w), h, xs), lambda w, h, xs: by_loop(make(w), h, xs), W0[:, :2], H0, XS)
