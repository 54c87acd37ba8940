"""Optimisers: PyTorch's numbers, the effect of a step on a tensor, saving, wrong input; clipping, schedules."""

import copy
import json
import math
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.engine.tensor import wrap

GOLDEN = Path(__file__).parent / "golden"
MAKE = runpy.run_path(str(GOLDEN / "make_torch_optim.py"))
SETTINGS, label = MAKE["SETTINGS"], MAKE["label"]
every = pytest.mark.parametrize("name, settings", SETTINGS, ids=[label(*row) for row in SETTINGS])


def leaf(value, dtype=float):
    return mg.tensor(value, requires_grad=True, dtype=dtype)


def given_gradient(value, g):
    p = leaf(value)
    p.grad = np.array(g, float)
    return p


def make(name, parameters, settings):
    return getattr(optim, name)(parameters, **settings)


def take_steps(parameters, optimizer, gradients):
    norms = []
    for step in gradients:
        optimizer.zero_grad()
        for p, g in zip(parameters, step):
            p.grad = g
        norms.append(optim.clip_grad_norm(parameters, MAKE["CLIP"]))
        optimizer.step()
    return norms


def steps(name, settings, dtype=float):
    """`torch_steps` of the golden file's maker, with minigrad's optimiser."""
    values, gradients = MAKE["problem"](dtype)
    parameters = [leaf(value, dtype) for value in values]
    norms = take_steps(parameters, make(name, parameters, settings), gradients)
    assert all(p.dtype == dtype for p in parameters)
    return [p.data for p in parameters], norms


# -- the formulas -----------------------------------------------------------------------------------------------------


@every
def test_golden_file_of_torch(name, settings):
    with np.load(GOLDEN / "torch_optim.npz") as file:
        for i, p in enumerate(steps(name, settings)[0]):
            np.testing.assert_allclose(p, file[f"{label(name, settings)}: {i}"], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-13), (np.float32, 2e-6)])
@every
def test_torch(name, settings, dtype, tolerance):
    pytest.importorskip("torch")
    (ours, norms), (theirs, their_norms) = steps(name, settings, dtype), MAKE["torch_steps"](name, settings, dtype)
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p, q, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(norms, their_norms, rtol=tolerance)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_arguments_and_defaults_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    mine, theirs = make(name, [leaf(1.0)], {}), getattr(torch.optim, name)([torch.zeros(1)]).defaults
    for key in set(vars(mine)) - {"parameters", "steps", "flats", "moments"}:
        assert getattr(mine, key) == theirs[key], key


def test_adams_first_step_is_lr_in_the_direction_of_the_sign():
    p = given_gradient([1.0, -2.0, 3.0], [0.1, -5.0, 1e3])
    optim.Adam([p], lr=0.01).step()
    np.testing.assert_allclose(p.data, [0.99, -1.99, 2.99], rtol=1e-6)


def test_centered_rmsprop_of_a_constant_gradient_is_finite():
    """v − m² tends to 0, and rounding makes it negative."""
    p = leaf(np.ones(1000), np.float32)
    optimizer = optim.RMSprop([p], alpha=0.5, centered=True)
    p.grad = np.random.default_rng(0).normal(size=1000).astype("f")
    for _ in range(50):
        optimizer.step()
    assert np.isfinite(p.data).all()


def test_a_formula_of_ones_own():
    class Signs(optim.Optimizer):
        """Lion without its second mean."""

        moments = ("mean",)

        def change(self, g, steps, work, mean):
            mean *= 0.9
            mean += np.multiply(g, 0.1, out=work)
            g[...] = self.lr * np.sign(mean)

    p = given_gradient([1.0, 2.0], [3.0, -4.0])
    optimizer = Signs([p], lr=0.5)
    optimizer.step()
    assert p.data.tolist() == [0.5, 2.5]
    np.testing.assert_allclose(optimizer.state_dict()["mean.0"], [0.3, -0.4])
    with pytest.raises(NotImplementedError, match="Optimizer has no formula yet: write its method change"):
        optim.Optimizer([p], lr=1).step()


# -- the effect of a step on a tensor ---------------------------------------------------------------------------------


def test_few_calls_whatever_the_number_of_parameters(monkeypatch):
    """The formula runs once for all parameters with gradients that share their dtype and number of steps."""
    parameters = [leaf(np.ones(3)) for _ in range(50)] + [leaf(np.ones(2), np.float32)]
    optimizer, calls = optim.Adam(parameters), []
    monkeypatch.setattr(optimizer, "change", lambda g, steps, work, *moments: calls.append((g.size, g.dtype, steps)))

    def step(without=()):
        calls.clear()
        for i, p in enumerate(parameters):
            p.grad = None if i in without else np.ones(p.shape, p.dtype)
        optimizer.step()
        return calls
    assert step() == [(150, float, 1), (2, np.float32, 1)]
    assert step(without=[10]) == [(30, float, 2), (117, float, 2), (2, np.float32, 2)]
    assert step() == [(30, float, 3), (3, float, 2), (117, float, 3), (2, np.float32, 3)]
    assert step(without=range(51)) == []


@every
def test_parameters_of_any_dtype_and_layout_step_as_alone(name, settings):
    """Interleaved float32 and float64, transposed, reversed, empty and 0-D parameters: each changes as with its own
    optimiser."""
    rng = np.random.default_rng(1)

    def those():
        rng = np.random.default_rng(2)
        tensors = [wrap(rng.normal(size=(3, 4)), True), wrap(rng.normal(size=(4, 3)).T, True),
                   wrap(rng.normal(size=5).astype("f"), True), wrap(rng.normal(size=6)[::-2], True),
                   wrap(np.zeros((0, 3)), True), wrap(np.array(1.5, "f"), True)]
        return tensors, [t.data for t in tensors]

    (together, arrays), (alone, _) = those(), those()
    optimizers = [make(name, together, settings), *[make(name, [p], settings) for p in alone]]
    for step in range(4):
        for i, (p, q) in enumerate(zip(together, alone)):
            g = rng.normal(size=p.shape[::-1]).astype(p.dtype).T
            p.grad, q.grad = (None, None) if step == 1 and i in (0, 3) else (g, g.copy())
        for optimizer in optimizers:
            optimizer.step()
    for p, q, before in zip(together, alone, arrays):
        assert p.data is before and p.dtype == q.dtype  # in place
        np.testing.assert_allclose(p.data, q.data, rtol=1e-6 if p.dtype == np.float32 else 1e-13)


def test_a_parameter_without_a_gradient_stays():
    p, q = given_gradient([1.0], [1.0]), leaf([1.0])
    optimizer = optim.Adam([p, q], lr=0.1, weight_decay=0.1)
    optimizer.step()
    assert p.data[0] != 1.0 and q.data[0] == 1.0
    optimizer.zero_grad()
    assert p.grad is None


def test_a_step_counts_as_a_change():
    p = given_gradient([1.0, 2.0], [0.0, 1.0])
    loss = (p * p).sum()
    optim.SGD([p]).step()
    with pytest.raises(RuntimeError, match="was changed after multiply had used it"):
        loss.backward()


def test_replaced_data_is_trained():
    """Data may be replaced by a user, load_state_dict or another optimiser: an optimiser refers to tensors alone."""
    model = nn.Linear(2, 1, rng=0, dtype=float)
    first, second = optim.SGD(model.parameters(), lr=1.0), optim.SGD(model.parameters(), lr=10.0)
    model.weight.data = [[5.0, 6.0]]
    model.load_state_dict({"weight": model.weight.data, "bias": [7.0]})
    for optimizer in (first, second):
        model.weight.grad, model.bias.grad = np.ones((1, 2)), np.ones(1)
        optimizer.step()
    assert model.weight.data.tolist() == [[-6.0, -5.0]] and model.bias.data.tolist() == [-4.0]


def test_data_that_cannot_be_written_into_is_replaced():
    p = given_gradient([1.0, 1.0], [1.0, 2.0])
    p.data = np.broadcast_to(3.0, 2)
    optim.SGD([p], lr=1.0).step()
    assert p.data.tolist() == [2.0, 1.0]


def test_gradients_stay_as_they_are():
    p = given_gradient([1.0, 1.0], [1.0, 2.0])
    optim.AdamW([p]).step()
    assert p.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_an_lr_of_numpys_does_not_widen(name):
    p = leaf([1.0], np.float32)
    p.grad = np.ones(1, np.float32)
    optimizer = make(name, [p], {})
    optimizer.lr = np.float64(0.1)
    optimizer.step()
    assert p.dtype == np.float32 and p.data[0] < 1


def test_every_optimiser_fits_a_line():
    """Through noisy points, close to the least-squares line."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2))
    y = x @ [[2.0], [-3.0]] + 0.5 + 0.01 * rng.normal(size=(50, 1))
    for name, settings in (("SGD", {"lr": 0.1}), ("RMSprop", {"lr": 0.05}), ("Adagrad", {"lr": 1.0}),
                           ("Adam", {"lr": 0.1}), ("AdamW", {"lr": 0.1, "weight_decay": 1e-4})):
        model = nn.Linear(2, 1, dtype=float, rng=1)
        optimizer, schedule = make(name, model.parameters(), settings), optim.cosine(settings["lr"], 300)
        for step in range(300):
            optimizer.lr = schedule(step)
            optimizer.zero_grad()
            nn.mse_loss(model(x), y).backward()
            optimizer.step()
        np.testing.assert_allclose(model.weight.data, [[2, -3]], atol=0.02, err_msg=name)


# -- saving -----------------------------------------------------------------------------------------------------------


@every
def test_a_saved_run_resumes(name, settings, tmp_path):
    """Bit for bit, through npz and through JSON."""
    values, gradients = MAKE["problem"]()
    whole = [leaf(value) for value in values]
    take_steps(whole, make(name, whole, settings), gradients)
    for through in ("npz", "json"):
        parts = [leaf(value) for value in values]
        optimizer = make(name, parts, settings)
        take_steps(parts, optimizer, gradients[:7])
        state = optimizer.state_dict()
        if through == "npz":
            np.savez(tmp_path / "state.npz", **state)
            with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
                state = dict(file)
        else:
            state = json.loads(json.dumps({key: np.asarray(value).tolist() for key, value in state.items()}))
        again = make(name, parts, {**settings, "lr": 5.0})
        again.load_state_dict(state)
        assert isinstance(again.lr, float) and again.lr == optimizer.lr
        take_steps(parts, again, gradients[7:])
        for p, q in zip(whole, parts):
            assert np.array_equal(p.data, q.data)


def test_state_is_a_copy_by_name_and_place():
    p, q = given_gradient([[1.0, 2.0]], [[3.0, 4.0]]), leaf(0.0)
    optimizer = optim.Adam([p, q], lr=0.1)
    optimizer.step()
    state = optimizer.state_dict()
    assert list(state) == ["lr", "steps", "exp_avg.0", "exp_avg.1", "exp_avg_sq.0", "exp_avg_sq.1"]
    assert state["lr"] == 0.1 and state["steps"].tolist() == [1, 0] and state["exp_avg.0"].shape == (1, 2)
    state["exp_avg.0"][:] = 9
    assert optimizer.state_dict()["exp_avg.0"].max() < 1


@pytest.mark.parametrize("change, says", [
    ({"lr": None, "beta": 1.0}, r"these arrays are not those of this Adam: missing lr; unexpected beta$"),
    ({"exp_avg.0": np.zeros((2, 1))}, r"exp_avg.0 has shape \(2, 1\) and must have \(1, 2\)"),
    ({"steps": [1]}, r"steps has shape \(1,\) and must have \(2,\)"),
    ({"steps": [1, -1]}, r"Adam counts steps by integers ≥ 0, not \[1, -1\]"),
    ({"steps": [1.5, 1]}, r"Adam counts steps by integers ≥ 0, not \[1.5, 1.0\]"),
    ({"exp_avg.1": 1j}, "Adam keeps real numbers, and exp_avg.1 is complex128"),
    ({"lr": -1.0}, r"Adam takes lr as a finite number ≥ 0, not -1.0")])
def test_a_state_that_does_not_fit_changes_nothing(change, says):
    optimizer = optim.Adam([given_gradient([[1.0, 2.0]], [[3.0, 4.0]]), leaf(0.0)])
    optimizer.step()
    before = optimizer.state_dict()
    state = {key: value for key, value in {**before, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=says):
        optimizer.load_state_dict({**state, "exp_avg_sq.0": 7 * before["exp_avg_sq.0"]})
    for key, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, error, says", [
    (lambda p: optim.Adam([]), ValueError, "Adam was given no parameters: pass the tensors"),
    (lambda p: optim.SGD(p), TypeError, r"SGD takes a list of tensors.*model.parameters\(\), not a Tensor"),
    (lambda p: optim.SGD(nn.Linear(1, 1)), TypeError, r"model.parameters\(\), not a Linear"),
    (lambda p: optim.SGD(nn.Linear(1, 1).named_parameters()), TypeError, "takes tensors.*number 0 is a tuple"),
    (lambda p: optim.SGD([p, p]), ValueError, "SGD was given a parameter twice: list each once"),
    (lambda p: optim.SGD([p, mg.tensor(1.0, name="w")]), ValueError, "SGD cannot train number 1, tensor 'w' of shape"),
    (lambda p: optim.SGD([p * 2]), ValueError, r"SGD cannot train number 0, .* made by multiply: parameters are real"),
    (lambda p: optim.SGD([leaf(1j, complex)]), ValueError, "parameters are real leaf tensors"),
    (lambda p: optim.SGD([p], lr=-0.1), ValueError, "SGD takes lr as a finite number ≥ 0, not -0.1"),
    (lambda p: optim.SGD([p], lr=math.nan), ValueError, "lr as a finite number"),
    (lambda p: optim.SGD([p], lr="fast"), ValueError, "lr as a finite number ≥ 0, not 'fast'"),
    (lambda p: optim.SGD([p], momentum=-1), ValueError, "momentum as a finite number"),
    (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov=True with a momentum > 0 and no dampening"),
    (lambda p: optim.SGD([p], momentum=0.9, dampening=0.1, nesterov=True), ValueError, "no dampening, not 0.9 and 0.1"),
    (lambda p: optim.SGD([p], weight_decay=-1), ValueError, "weight_decay as a finite number"),
    (lambda p: optim.RMSprop([p], alpha=1.0), ValueError, r"RMSprop takes alpha as a number from 0 to less than 1"),
    (lambda p: optim.RMSprop([p], eps=-1e-8), ValueError, "eps as a finite number"),
    (lambda p: optim.Adagrad([p], lr_decay=-1), ValueError, "lr_decay as a finite number"),
    (lambda p: optim.Adagrad([p], initial_accumulator_value=-1), ValueError, "initial_accumulator_value as a finite"),
    (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, r"Adam takes betas\[1\] as a number from 0 to less"),
    (lambda p: optim.Adam([p], betas=(-0.9, 0.9)), ValueError, r"betas\[0\] as a number from 0"),
    (lambda p: optim.Adam([p], betas=0.9), ValueError, r"Adam takes betas as two numbers, not 0.9"),
    (lambda p: optim.AdamW([p], weight_decay=-1), ValueError, "AdamW takes weight_decay as a finite number"),
    (lambda p: optim.clip_grad_norm([p], -1.0), ValueError, "max_norm ≥ 0, not -1.0"),
    (lambda p: optim.clip_grad_norm([p], math.nan), ValueError, "max_norm ≥ 0, not nan"),
    (lambda p: optim.step_decay(0.1, 0, 0.5), ValueError, "step_decay takes every ≥ 1 steps, not 0"),
    (lambda p: optim.cosine(0.1, 0), ValueError, "cosine takes steps ≥ 1, not 0"),
    (lambda p: optim.warm_up(-1, optim.constant(0.1)), ValueError, "warm_up takes steps ≥ 0, not -1"),
])
def test_bad_input_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call(leaf([1.0, 2.0]))


def test_a_step_that_fails_changes_nothing():
    p = given_gradient(np.ones(2), np.ones(2))
    optimizer = optim.SGD([p], momentum=0.9)
    optimizer.lr = math.inf
    with pytest.raises(ValueError, match="SGD takes lr as a finite number ≥ 0, not inf"):
        optimizer.step()
    assert (p.data == 1).all() and optimizer.steps == [0]


# -- clipping ---------------------------------------------------------------------------------------------------------


def test_clipping_scales_all_gradients_together():
    a, b = given_gradient([0.0], [3.0]), given_gradient([0.0, 0.0], [0.0, 4.0])
    seen = b.grad
    assert optim.clip_grad_norm([a, b], 10.0) == 5.0
    assert optim.clip_grad_norm([a, b], math.inf) == 5.0
    assert a.grad[0] == 3.0 and b.grad is seen
    assert optim.clip_grad_norm([a, b, leaf(1.0)], 1.0) == 5.0
    np.testing.assert_allclose([a.grad[0], b.grad[1]], [0.6, 0.8], rtol=1e-6)
    assert seen[1] == 4.0  # an array taken from .grad keeps its values
    assert optim.clip_grad_norm(a, 0.0) == pytest.approx(0.6) and a.grad[0] == 0.0
    assert optim.clip_grad_norm([], 1.0) == 0.0


def test_a_norm_that_is_not_finite_is_returned_and_nothing_scaled():
    a, b = given_gradient([0.0], [np.nan]), given_gradient([0.0], [4.0])
    assert np.isnan(optim.clip_grad_norm([a, b], 1.0)) and b.grad[0] == 4.0
    a.grad = np.array([np.inf])
    assert optim.clip_grad_norm([a, b], 1.0) == math.inf and b.grad[0] == 4.0


def test_a_norm_whose_square_float32_cannot_hold_is_found():
    p = leaf(np.zeros(2), np.float32)
    p.grad = np.array([3e30, 4e30], np.float32)
    assert optim.clip_grad_norm([p], 1.0) == pytest.approx(5e30)
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)
    assert p.grad.dtype == np.float32


# -- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule, expected", [
    (optim.constant(0.1), {0: 0.1, 1000: 0.1}),
    (optim.step_decay(0.8, 10, 0.5), {0: 0.8, 9: 0.8, 10: 0.4, 19: 0.4, 35: 0.1}),
    (optim.cosine(1.0, 100), {0: 1.0, 25: 0.5 + 0.25 * 2 ** 0.5, 50: 0.5, 100: 0.0, 1000: 0.0}),
    (optim.cosine(1.0, 100, final=0.2), {0: 1.0, 50: 0.6, 100: 0.2, 150: 0.2}),
    (optim.warm_up(4, optim.constant(0.8)), {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8, 100: 0.8}),
    (optim.warm_up(0, optim.step_decay(0.8, 2, 0.5)), {0: 0.8, 2: 0.4}),
    (optim.warm_up(10, optim.cosine(1.0, 20)), {9: optim.cosine(1.0, 20)(9), 4: 0.5 * optim.cosine(1.0, 20)(4)}),
])
def test_schedules(schedule, expected):
    for step, lr in expected.items():
        assert schedule(step) == pytest.approx(lr, abs=1e-12)
        assert isinstance(schedule(step), float)


@every
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
                         ids=["deepcopy", "pickle"])
def test_a_copy_in_mid_training_continues_like_the_original(name, settings, copied):
    p = given_gradient([1.0, -2.0], [0.5, 3.0])
    optimizer = getattr(optim, name)([p], **settings)
    optimizer.step()
    q, other = copied((p, optimizer))
    before = q.data.copy()
    optimizer.step()
    other.step()
    assert (q.data != before).all()
    np.testing.assert_array_equal(q.data, p.data)


@every
@pytest.mark.parametrize("g", [0.0, 1e-4, 300.0, 60000.0])
def test_halves_step_as_their_numbers_in_float64_do(name, settings, g):
    """In float16, 1e-8 would be 0, and g² either 0 or infinite."""
    narrow, wide = leaf([1.0, 2.0], np.float16), leaf([1.0, 2.0])
    for p in (narrow, wide):
        optimizer = getattr(optim, name)([p], **{"lr": 1e-2, **settings})
        for _ in range(2):
            p.grad = np.full(2, g, np.float16).astype(p.dtype)
            optimizer.step()
    assert narrow.dtype == np.float16
    np.testing.assert_allclose(narrow.data.astype(float), wide.data, rtol=2e-3, atol=2e-3)


def test_gradients_of_halves_are_scaled_by_a_factor_that_is_0_in_halves():
    p = leaf(np.ones(9), np.float16)
    p.grad = np.full(9, 60000, np.float16)
    assert optim.clip_grad_norm([p], 1e-3) == pytest.approx(180000, rel=1e-3)
    np.testing.assert_allclose(p.grad.astype(float), 1e-3 / 3, rtol=1e-3)
    assert p.grad.dtype == np.float16
