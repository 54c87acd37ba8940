"""Inspections against a recording of the same sequence, and against results by hand."""

import tracemalloc

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.microscope.page import inspection
from minigrad.microscope.page.inspection import Sequence, inspect
from minigrad.microscope.page.rendering import Inspection, LayerInspection, render
from minigrad.training.sequence_model import SequenceModel


def sequence_of(T=7, symbols=5, asked=None, seed=0):
    codes = np.random.default_rng(seed).integers(0, symbols, T + 1)
    asked = np.arange(T) if asked is None else np.asarray(asked)
    return Sequence(codes[:-1, None], codes[1:, None], asked, nn.cross_entropy, ("abcde", None))


def model_of(cell="lstm", **options):
    return SequenceModel(5, 5, cell=cell, hidden=4, symbols=True, embedding=3, dtype=np.float64, rng=0, **options)


@pytest.mark.parametrize("asked", [None, [6], [1, 4]])
@pytest.mark.parametrize("cell, layers, names", [
    ("lstm", 1, ["ft", "it", "ot", "cct", "c_next", "a_next"]),
    ("gru", 2, ["r", "z", "recurrent", "candidate", "h_next"]),
    ("rnn", 1, ["h_next"]),
])
def test_values_and_gradients_are_those_of_a_backward(cell, layers, names, asked):
    model, sequence = model_of(cell, layers=layers), sequence_of(asked=asked)
    found, rows, steps = inspect(model, sequence)
    with mg.bptt.record(model) as rec:
        outputs, _ = model(sequence.x)
        mask = np.isin(np.arange(7), sequence.asked)[:, None]
        loss = nn.cross_entropy(outputs, sequence.targets, mask=mask)
        loss.backward()
    np.testing.assert_array_equal(rows, sequence.asked)
    assert np.nanmean(steps["loss"]) == pytest.approx(loss.item(), rel=1e-12)
    assert np.array_equal(np.isfinite(steps["loss"]), mask[:, 0])
    np.testing.assert_allclose(steps["‖dL/dx‖"], np.linalg.norm(rec[0].grads["x"][:, :, 0], axis=1), rtol=1e-12)
    assert [one.name for one in found] == [f"l{i}" for i in range(layers)]
    for one, scan in zip(found, rec):
        assert list(one.values) == list(one.grads) == names
        for name in names:
            np.testing.assert_allclose(one.values[name], scan.values[name][:, :, 0], rtol=1e-12)
            np.testing.assert_allclose(one.grads[name], scan.grads[name][:, :, 0], rtol=1e-9, atol=1e-16)
        jacobians = mg.bptt.jacobians(scan)
        np.testing.assert_allclose(one.spectrum, np.linalg.svd(jacobians.steps[:, 0])[1], rtol=1e-9, atol=1e-15)
        assert one.facts["largest Lyapunov exponent"] == f"{jacobians.lyapunov[0]:.4g} nats a step"
        assert list(one.meanings) == names and list(one.keeps) == [*scan.states.values()]
        assert list(one.reach) == ["weights", *scan.states] and "def backward(d_output, cache):" in one.source


def test_a_unit_of_an_lstm_keeps_what_its_forget_gate_lets_through():
    (one,), _, _ = inspect(model_of(), sequence_of())
    ft = one.values["ft"]
    np.testing.assert_allclose(one.keeps["c_next"], [ft.min(axis=0), np.exp(np.log(ft).mean(axis=0))], rtol=1e-12)


def test_a_model_in_training_mode_is_inspected_without_dropout_and_stays_in_it():
    model, sequence = model_of(layers=2, dropout=0.5), sequence_of()
    model.linear.eval()
    drawn = model.rng_states()
    training, _, _ = inspect(model, sequence)
    assert (model.training, model.recurrent.training, model.linear.training) == (True, True, False)
    assert model.rng_states() == drawn
    using, _, _ = inspect(model.eval(), sequence)
    for one, other in zip(training, using):
        np.testing.assert_array_equal(one.values["c_next"], other.values["c_next"])


def test_the_ledger_is_that_of_the_loss():
    """The gradient of one loss at one step, by a backward of that loss alone."""
    model, sequence = model_of("rnn"), sequence_of(asked=[2, 5])
    (one,), rows, _ = inspect(model, sequence)
    for row, s in enumerate(rows):
        with mg.bptt.record(model) as rec:
            outputs, _ = model(sequence.x)
            (nn.cross_entropy(outputs[int(s)], sequence.targets[s]) / 2).backward()
        steps = [rec[0].weight_grads(name) for name in ("W", "b")]
        size = np.sqrt(sum((g.reshape(7, -1)**2).sum(axis=1) for g in steps))
        np.testing.assert_allclose(one.reach["weights"][row], size, rtol=1e-9, atol=1e-16)
        state = np.linalg.norm(rec[0].grads["h_prev"][:, :, 0], axis=1) * (np.arange(7) <= s)
        np.testing.assert_allclose(one.reach["h_prev"][row], state, rtol=1e-9, atol=1e-16)


def test_of_many_losses_a_ledger_follows_some(monkeypatch):
    monkeypatch.setattr(inspection, "LEDGER", 30)
    _, rows, steps = inspect(model_of("rnn"), sequence_of())
    np.testing.assert_array_equal(rows, [0, 2, 4, 6])  # 30 // 7 of the 7 losses, including the last
    assert np.isfinite(steps["loss"]).all()
    _, rows, _ = inspect(model_of("rnn"), sequence_of(T=40))
    np.testing.assert_array_equal(rows, [39])


def test_symbols_by_name_and_numbers_as_they_are():
    sequence = sequence_of(asked=[1, 6])
    assert sequence.symbols == ["abcde"[code] for code in sequence.x[:, 0]]
    assert sequence.answers == ["", str(sequence.targets[1, 0]), "", "", "", "", str(sequence.targets[6, 0])]
    numbers = Sequence(np.float32([[[0.25, 1.0]], [[1 / 3, 0.0]]]), np.zeros((2, 1, 1)), np.array([1]), nn.mse_loss)
    assert (numbers.symbols, numbers.answers) == (["0.25 1", "0.333 0"], ["", "0"])


def test_nothing_is_left_in_the_model():
    model = model_of()
    first, *others = model.parameters()
    first.grad = kept = np.ones(first.shape)
    inspect(model, sequence_of())
    assert first.grad is kept and (kept == 1).all() and all(p.grad is None for p in others)


class Fast(nn.Recurrent):
    """A user-defined cell with a matrix as state and values of other sizes."""

    def __init__(self, inputs, hidden, dtype=np.float64, rng=None):
        rng = np.random.default_rng(rng)
        self.U = mg.tensor(rng.normal(size=(hidden, inputs)).astype(dtype), requires_grad=True)
        self.hidden = hidden

    def initial_state(self, batch):
        return {"A": np.zeros((self.hidden, 2, batch))}

    def cell(self, state, x):
        pair = mg.tanh(x[:2])
        key = mg.tanh(self.U @ x)
        A_next = 0.9 * state["A"] + mg.expand_dims(key, 1) * pair
        total = mg.sum(A_next, axis=1)
        return {"A": A_next}, total


def test_a_user_defined_cell():
    (one,), _, _ = inspect(model_of(Fast), sequence_of())
    assert {name: x.shape for name, x in one.values.items()} == {"key": (7, 4), "A_next": (7, 8), "total": (7, 4)}
    np.testing.assert_allclose(one.spectrum, np.full((7, 8), 0.9))
    np.testing.assert_allclose(one.keeps["A_next"], np.full((2, 8), 0.9))
    assert one.meanings == {}


class Squaring(Fast):
    def cell(self, state, x):
        A_next = state["A"]**2 + 1e30 * mg.sum(mg.tanh(self.U @ x))
        return {"A": A_next}, mg.sum(A_next, axis=1)


def test_nan_and_inf_are_shown():
    (one,), _, steps = inspect(model_of(Squaring), sequence_of(T=20))
    assert not np.isfinite(one.values["A_next"][-1]).all() and np.isnan(steps["loss"][-1])
    assert one.spectrum is None and "contains NaN or Inf" in one.facts["no spectrum"]


class Doubling(Fast):
    def cell(self, state, x):
        A_next = 1e30 * state["A"] + mg.sum(mg.tanh(self.U @ x))
        return {"A": A_next}, mg.sum(A_next, axis=1)


def test_a_gradient_may_grow_beyond_the_range_of_floats():
    (one,), _, _ = inspect(model_of(Doubling), sequence_of(T=20))
    np.testing.assert_allclose(one.spectrum, 1e30)
    assert one.facts["back over 20 steps"] == "a gradient grows at most by the factor 1e600"


class Memoryless(Fast):
    def initial_state(self, batch):
        return ()

    def cell(self, state, x):
        return state, mg.tanh(self.U @ x)


class Branching(Fast):
    def cell(self, state, x):
        return (state, state["A"][:, 0]) if float(x[0, 0].item()) > 9 else super().cell(state, x)


@pytest.mark.parametrize("cell, sentence", [
    (Memoryless, "Memoryless has no recurrence: its state is empty"),
    (Branching, "cannot be traced"),
])
@pytest.mark.filterwarnings("ignore::minigrad.timeloop.scan.ScanNotice")
def test_cells_that_cannot_be_inspected(cell, sentence):
    with pytest.raises(ValueError, match=sentence):
        inspect(model_of(cell), sequence_of())


def test_a_sequence_longer_than_memory_allows_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(inspection, "free_memory", lambda: 1_000_000)
    inspect(model_of(), sequence_of())
    sentence = r"a sequence of 3,000 steps needs about 0\.0\d+ GB of memory, and 0\.001 GB are free: take a shorter one"
    with pytest.raises(ValueError, match=sentence):
        inspect(model_of(), sequence_of(3000))
    monkeypatch.setattr(inspection, "free_memory", lambda: None)  # unknown
    inspect(model_of(), sequence_of())


def test_a_page_too_large_for_browsers_is_refused(monkeypatch):
    model = SequenceModel(5, 5, cell="gru", hidden=32, symbols=True, embedding=3, rng=0)
    sequence = sequence_of(100)
    monkeypatch.setattr(inspection, "LARGEST", 100_000)
    with pytest.raises(ValueError, match=r"makes a page of about 0\.1\d+ MB, and .* beyond 0\.1 MB or 20,000 steps"):
        inspect(model, sequence)
    monkeypatch.undo()
    layers, asked, steps = inspect(model, sequence)
    size = len(render(Inspection("", {}, sequence.symbols, sequence.answers, asked, steps, {}, layers)))
    one = LayerInspection("l0", {"a": np.zeros((1, 1))}, {})
    empty = len(render(Inspection("", {}, ["a"], None, asked[:0], {}, {}, [one])))
    with mg.bptt.record(model) as a_step:
        model(sequence.x[:1])
    assert inspection.page_size(list(a_step), 100, 100) == pytest.approx(size - empty, rel=0.1)


@pytest.mark.parametrize("cell, hidden, T", [("lstm", 24, 60), ("gru", 64, 40), ("rnn", 48, 100)])
def test_the_estimate_of_memory_is_close(cell, hidden, T):
    """The measured memory is less than the estimate, but not much less."""
    model = SequenceModel(5, 5, cell=cell, hidden=hidden, symbols=True, embedding=3, rng=0)
    inspect(model, sequence_of(2))  # fill the cache of programs
    tracemalloc.start()
    inspect(model, sequence_of(T))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with mg.bptt.record(model) as a_step:
        model(sequence_of(1).x)
    needed = inspection.memory_needed(list(a_step), T, T)
    assert needed / 2 < peak < needed, (needed, peak)


def test_some_memory_is_free():
    free = inspection.free_memory()
    assert free is None or 1e6 < free < 1e15
