"""bptt: recorded values and gradients against unrolled loops, in minigrad for every cell and in PyTorch for the layers;
the questions against brute force."""

import copy
import pickle
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from scan_cells import CELLS, SCAN_OPTIONS, assert_same, every_cell, gradient, mask_for, mixed, outcome

import minigrad as mg
from minigrad import nn
from minigrad.document import CACHE, GATES, lstm_backward, lstm_cell_backward, lstm_cell_forward, lstm_forward
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.timeloop.cache import programs


def scan_recorded(cell, state, xs, **options):
    """Scan inside a recording; the record remains in `scan_recorded.record`."""
    with mg.bptt.record() as rec:
        results = mg.scan(cell, state, xs, **options)
    (scan_recorded.record,) = rec
    return results


def options_for(row, variant):
    """The options of scan for 4 steps and a batch of 2; a cell that takes no mask is skipped."""
    if "mask" in variant and not row.batch_last:
        pytest.skip("a mask has no meaning for this cell")
    return SCAN_OPTIONS[variant] | ({"mask": mask_for(4, 2)} if "mask" in variant else {})


# -- recording does not change the graph ---------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("variant", SCAN_OPTIONS)
def test_a_recorded_scan_gives_what_scan_gives(row, variant):
    options, inputs = options_for(row, variant), row.inputs()
    subsets = ((True, True, True), (False, False, True), (True, False, False))
    for wanted in subsets if variant == "plain" else subsets[:1]:
        assert_same(outcome(scan_recorded, row.cell, inputs, wanted, **options),
                    outcome(mg.scan, row.cell, inputs, wanted, **options))


@every_cell
def test_float32_stays_float32_when_recorded(row):
    ours = outcome(scan_recorded, row.cell, row.inputs(dtype=np.float32))
    assert_same(ours, outcome(mg.scan, row.cell, row.inputs(dtype=np.float32)), 1e-5)
    record = scan_recorded.record
    for name, value in record.values.items():
        assert value.dtype.kind != "f" or value.dtype == record.grads[name].dtype == np.float32


# -- every named value of every cell, against the unrolled loop -------------------------------------------------------


@contextmanager
def locals_of(cell):
    """Collect the variables of the cell at the end of each call."""
    calls = []

    def profile(frame, event, _):
        if event == "return" and frame.f_code is cell.__code__:
            calls.append({name: x for name, x in frame.f_locals.items() if isinstance(x, mg.Tensor)})
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def written_out(cell, state, xs, reverse=False, mask=None):
    """(loss, variables of the cell at each step in the order of xs), op by op, with retain_grad."""
    steps = len(flatten(xs)[0][0])
    ys = [None] * steps
    with locals_of(cell) as calls:
        for t in reversed(range(steps)) if reverse else range(steps):
            before, (state, y) = state, cell(state, map_leaves(lambda leaf, t=t: leaf[t], xs))
            if mask is not None:
                leaves = [mg.where(mask[t], new, old) for new, old in zip(flatten(state)[0], flatten(before)[0])]
                state, y = unflatten(state, leaves), map_leaves(lambda leaf, t=t: mg.where(mask[t], leaf, 0.0), y)
            ys[t] = flatten(y)[0]
    ys = [mg.stack(list(leaf)) for leaf in zip(*ys)]
    for call in calls:
        for x in call.values():
            if x.requires_grad and not x.is_leaf:
                x.retain_grad()
    return mixed((flatten(state)[0], ys)), calls[::-1] if reverse else calls


@every_cell
@pytest.mark.parametrize("variant", SCAN_OPTIONS)
def test_every_named_value_and_its_gradient(row, variant):
    """The second value of a variable is name_2 in the recording, so one of the two must match."""
    options, trees = options_for(row, variant), row.inputs()

    def tensors():
        return [map_leaves(lambda leaf: mg.tensor(leaf, requires_grad=leaf.dtype.kind == "f"), tree) for tree in trees]
    state, xs, weights = tensors()
    loss, calls = written_out(row.cell(weights), state, xs, **options)
    loss.backward()
    first_weights = weights.values()
    state, xs, weights = tensors()
    final, ys = scan_recorded(row.cell(weights), state, xs, **options)
    loss = mixed((final, ys))
    record = scan_recorded.record
    loss.backward()
    seen = 0
    for name in {name for call in calls for name in call if not name.startswith("_")}:
        if any(call[name] is w for call in calls for w in first_weights):
            continue
        expected = np.stack([call[name].detach().numpy() for call in calls])
        candidates = [own for own in record.values if own == name or own.startswith(f"{name}_")]
        same = [own for own in candidates if record.values[own].shape == expected.shape
                and np.allclose(record.values[own], expected, rtol=1e-13, atol=1e-13)]
        assert same, f"no {name} among {list(record.values)}"
        if expected.dtype.kind != "f":
            continue
        gradients = np.stack([np.zeros(call[name].shape) if call[name].grad is None else call[name].grad
                              for call in calls])
        assert any(np.allclose(record.grads[own], gradients, rtol=1e-12, atol=1e-12) for own in same), name
        seen += 1
    assert seen or not flatten(state)[0], "no gradient was compared"
    for name, w in weights.items():
        if w.grad is not None:
            np.testing.assert_allclose(record.weight_grads(name).sum(0), w.grad, rtol=1e-12, atol=1e-12)


# -- the layers, against PyTorch's retain_grad on cells unrolled by hand ----------------------------------------------


def torch_rnn(torch, w, h_prev, x):
    concat = torch.cat([h_prev, x])
    h_next = torch.tanh(w["W"] @ concat + w["b"])
    return h_next, h_next, locals()


def torch_gru(torch, w, h_prev, x):
    concat = torch.cat([h_prev, x])
    gates = torch.sigmoid(w["W"] @ concat + w["b"])
    r, z = gates.chunk(2)
    recurrent = r * (w["Wh"] @ h_prev + w["bh"])
    candidate = torch.tanh(w["Wx"] @ x + w["bx"] + recurrent)
    h_next = (1.0 - z) * candidate + z * h_prev
    return h_next, h_next, locals()


def torch_lstm(torch, w, state, x):
    a_prev, c_prev = state
    concat = torch.cat([a_prev, x])
    z = w["W"] @ concat + w["b"]
    gates = torch.sigmoid(z[:3 * len(a_prev)])
    ft, it, ot = gates.chunk(3)
    cct = torch.tanh(z[3 * len(a_prev):])
    c_next = ft * c_prev + it * cct
    a_next = ot * torch.tanh(c_next)
    return (a_next, c_next), a_next, locals()


KINDS = {"RNN": torch_rnn, "GRU": torch_gru, "LSTM": torch_lstm}
LAYERS = {"one layer": {}, "two layers": {"num_layers": 2}, "both directions": {"bidirectional": True},
          "two layers, both directions": {"num_layers": 2, "bidirectional": True}}


class Model(nn.Module):
    def __init__(self, kind, **options):
        self.rnn = getattr(nn, kind)(3, 5, rng=0, dtype=np.float64, **options)

    def __call__(self, x, lengths=None):
        return self.rnn(x, lengths=lengths)


def unrolled_in_torch(torch, kind, model, x, mask):
    """(output, final states, {path: values of its cell at each step, including the weights of that step})"""
    named = {}
    xs, finals = [torch.where(m, step.T, 0.0) for step, m in zip(x, mask)], []
    for name, cell in model.rnn.layers.items():
        weights = {key: torch.tensor(p.data, requires_grad=True) for key, p in cell.named_parameters()}
        if not name.endswith("_reverse"):
            outputs = []
        state = [torch.zeros(5, x.shape[1], dtype=torch.float64, requires_grad=True) for _ in cell.states]
        steps, ys = [None] * len(xs), [None] * len(xs)
        for t in reversed(range(len(xs))) if name.endswith("_reverse") else range(len(xs)):
            own = {key: w * 1.0 for key, w in weights.items()}  # each use, also of x, gets its own gradient
            new, y, steps[t] = KINDS[kind](torch, own, tuple(state) if len(state) > 1 else state[0], xs[t] * 1.0)
            steps[t] |= own
            new = list(new) if isinstance(new, tuple) else [new]
            if not mask.all():
                new, y = [torch.where(mask[t], a, b) for a, b in zip(new, state)], torch.where(mask[t], y, 0.0)
            state, ys[t] = new, y
        for step in steps:
            for key, value in list(step.items()):
                if torch.is_tensor(value):
                    if value.requires_grad:
                        value.retain_grad()
                else:
                    del step[key]
        named[f"rnn.{name}"] = steps
        outputs.append(ys)
        finals += state
        if len(outputs) == 1 + model.rnn.bidirectional:
            xs = [torch.cat(parts) for parts in zip(*outputs)]
    return torch.stack(xs), finals, named


@pytest.mark.parametrize("lengths", [None, [6, 4, 1]], ids=["full", "lengths"])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_layer_equals_pytorch(kind, layers, lengths):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, model = rng.normal(size=(6, 3, 3)), Model(kind, **LAYERS[layers])
    for p in model.parameters():
        p.data = rng.normal(size=p.shape)
    with mg.bptt.record() as rec:
        output, state = model(mg.tensor(x, requires_grad=True), lengths)
        mixed((output, state)).backward()

    mask = torch.ones(6, 3, dtype=bool) if lengths is None else torch.arange(6)[:, None] < torch.tensor(lengths)
    theirs, finals, named = unrolled_in_torch(torch, kind, model, torch.tensor(x, requires_grad=True), mask)
    theirs = theirs.permute(0, 2, 1)
    np.testing.assert_allclose(output.detach().numpy(), theirs.detach(), rtol=1e-12, atol=1e-12)
    count = len(finals) // len(model.rnn.layers)  # number of states of a cell
    finals = [torch.stack([final.T for final in finals[i::count]]) for i in range(count)]
    loss, weigh = 0.0, np.random.default_rng(5)  # as in `mixed`
    for leaf in [theirs, *finals]:
        loss = loss + (leaf * torch.tensor(weigh.normal(size=tuple(leaf.shape)))).sum()
    loss.backward()

    assert rec.paths == list(named)
    for path, steps in named.items():
        scan = rec[path]
        assert set(scan.values) <= set(steps[0]) and set(scan.weights) <= set(steps[0])
        for name in scan.values:
            expected = [np.stack([step[name].detach() for step in steps]),
                        np.stack([np.zeros(step[name].shape) if step[name].grad is None else step[name].grad
                                  for step in steps])]
            np.testing.assert_allclose(scan.values[name], expected[0], rtol=1e-12, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(scan.grads[name], expected[1], rtol=1e-12, atol=1e-12, err_msg=name)
        for name in scan.weights:
            expected = np.stack([step[name].grad for step in steps])
            np.testing.assert_allclose(scan.weight_grads(name), expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_cell_of_the_document_in_its_own_names():
    """Compare with the caches of lstm_forward, the gradients of lstm_backward, and the derived backward of each
    step."""
    rng, (n_x, n_a, n_y, m, T) = np.random.default_rng(2), (3, 5, 2, 4, 6)
    arrays = {name: rng.normal(size=(n_y if "y" in name else n_a, 1 if "b" in name else n_a + n_x)) for name in GATES}
    arrays |= {"Wy": rng.normal(size=(n_y, n_a)), "by": rng.normal(size=(n_y, 1))}
    x, a0, dy, da = (rng.normal(size=shape) for shape in ((n_x, m, T), (n_a, m), (n_y, m, T), (n_a, m, T)))
    *_, caches = lstm_forward(x, a0, arrays)
    expected = lstm_backward(da, caches, dy)

    parameters = {name: mg.tensor(w, requires_grad=True) for name, w in arrays.items()}

    def cell(state, x_t):
        a_prev, c_prev = state
        a_next, c_next, yt_pred, _ = lstm_cell_forward(x_t, a_prev, c_prev, parameters)
        return (a_next, c_next), (a_next, yt_pred)
    xs = mg.tensor(np.moveaxis(x, 2, 0), requires_grad=True)
    with mg.bptt.record() as rec:
        _, (a, y) = mg.scan(cell, (a0, np.zeros_like(a0)), xs)
        (mg.sum(a * np.moveaxis(da, 2, 0)) + mg.sum(y * np.moveaxis(dy, 2, 0))).backward()
    scan = rec[0]
    assert [name for name in scan.values if name in CACHE] == [
        "a_prev", "c_prev", "x_t", "ft", "it", "cct", "c_next", "ot", "a_next"]
    assert sorted(scan.weights) == sorted(parameters)
    sent = mg.bptt.paths(scan)
    for t, cache in enumerate(caches[0]):
        for name, value in zip(CACHE[:-1], cache):
            np.testing.assert_allclose(scan.values[name][t], value, rtol=1e-13)
        step = lstm_cell_backward(
            da[:, :, t] + (sum(sent["a_prev"].values())[t + 1] if t + 1 < T else 0.0),
            sum(sent["c_prev"].values())[t + 1] if t + 1 < T else np.zeros((n_a, m)), cache, dy[:, :, t])
        np.testing.assert_allclose(scan.grads["x_t"][t], step["dxt"], rtol=1e-11, atol=1e-13)
        for name in arrays:
            np.testing.assert_allclose(scan.weight_grads(name)[t], step[f"d{name}"], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(np.moveaxis(scan.grads["x_t"], 0, 2), expected["dx"], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(scan.grads["a_prev"][0], expected["da0"], rtol=1e-11, atol=1e-13)
    for name, w in parameters.items():
        np.testing.assert_allclose(w.grad, expected[f"d{name}"], rtol=1e-11, atol=1e-13)


# -- the life of a recording --------------------------------------------------------------------------------------


def simple(T=5, B=2, dtype=np.float64):
    """(model, x, weights of the loss) for an LSTM."""
    rng = np.random.default_rng(3)
    return Model("LSTM"), rng.normal(size=(T, B, 3)).astype(dtype), rng.normal(size=(T, B, 5))


def recorded(model, x, u, **options):
    with mg.bptt.record(**options) as rec:
        mg.sum(model(x)[0] * u).backward()
    return rec


def test_names_shapes_and_roles():
    rec = recorded(*simple())
    lstm = rec["rnn"]
    assert lstm is rec[0] is rec["rnn.l0"] and len(rec) == 1 and list(rec) == [lstm] and rec.paths == ["rnn.l0"]
    assert list(lstm.values) == ["a_prev", "c_prev", "x", "concat", "z", "gates", "ft", "it", "ot", "cct", "c_next",
                                 "a_next"] == list(lstm.grads)
    assert {name: value.shape for name, value in lstm.values.items()} == {
        name: value.shape for name, value in lstm.grads.items()}
    assert lstm.values["ft"].shape == (5, 5, 2) and lstm.values["z"].shape == (5, 20, 2)
    assert lstm.weight_grads("W").shape == (5, 20, 8) and lstm.weights == ["W", "b"]
    assert lstm.states == {"a_prev": "a_next", "c_prev": "c_next"}
    assert (lstm.inputs, lstm.outputs, lstm.steps, lstm.reverse, lstm.mask) == (["x"], ["a_next"], 5, False, None)
    assert "rnn.l0: 5 steps, one backward" in repr(rec) and "ft (5, 5, 2)" in repr(lstm.values)


@pytest.mark.parametrize("ask, error, words", [
    (lambda rec: rec["run"], KeyError, "did you mean 'rnn.l0'"),
    (lambda rec: rec["rnn.l"], KeyError, "it has rnn.l0"),
    (lambda rec: rec[1], IndexError, "the recording has 1 scans"),
    (lambda rec: rec[0].values["fft"], KeyError, "rnn.l0 has no 'fft': did you mean 'ft'"),
    (lambda rec: rec[0].grads["W"], KeyError, "it has a_prev, c_prev"),
    (lambda rec: rec[0].weight_grads("bias"), KeyError, "among its weights, has no 'bias'.* W, b"),
    (lambda rec: mg.bptt.jacobians(3), TypeError, "not an object of type int"),
], ids=["unknown path", "part of a path", "index", "value", "gradient", "weight", "not a recording"])
def test_a_wrong_name_gets_the_nearest(ask, error, words):
    with pytest.raises(error, match=words):
        ask(recorded(*simple()))


def test_before_a_backward_and_without_gradients():
    model, x, u = simple()
    with mg.bptt.record() as rec:
        loss = mg.sum(model(x)[0] * u)
        with mg.no_grad():
            model(x)
    first, second = rec["rnn"]
    np.testing.assert_array_equal(first.values["ft"], second.values["ft"])
    for scan in (first, second):
        for ask in (lambda s: s.grads["ft"], lambda s: s.weight_grads("W"), mg.bptt.paths):
            with pytest.raises(RuntimeError, match=r"no backward has gone through rnn.l0"):
                ask(scan)
    loss.backward()  # outside the recording: the backward of a recorded run is recorded
    assert first.grads["ft"].any() and not second.backwards


def test_two_backwards_and_two_losses_add_up():
    model, x, u = simple()
    once = recorded(model, x, u)[0]
    model.zero_grad()
    with mg.bptt.record() as rec:
        y = model(x)[0]
        loss = mg.sum(y * u)
        loss.backward(retain_graph=True)
        first = rec[0].grads["ft"].copy()
        loss.backward(retain_graph=True)
        mg.sum(y * 2.0 * u).backward()
    np.testing.assert_allclose(first, once.grads["ft"], rtol=1e-13)
    np.testing.assert_allclose(rec[0].grads["ft"], 4.0 * once.grads["ft"], rtol=1e-12)
    np.testing.assert_allclose(rec[0].weight_grads("W").sum(0), model.rnn.layers["l0"].W.grad, rtol=1e-12)


def test_a_recording_keeps_old_values(monkeypatch):
    """Later changes of weights, inputs and results do not change the recording."""
    model, x, u = simple()
    expected = recorded(model, x.copy(), u)[0]
    values, weight_grads, jacobians = expected.values["x"], expected.weight_grads("W"), mg.bptt.jacobians(expected)
    x_own = mg.tensor(x)
    rec = recorded(model, x_own, u)
    x_own.data[:] = 0.0
    for p in model.parameters():
        p.data[:] = 7.0
    np.testing.assert_array_equal(rec[0].values["x"], values)
    np.testing.assert_array_equal(rec[0].weight_grads("W"), weight_grads)
    np.testing.assert_array_equal(mg.bptt.jacobians(rec).steps, jacobians.steps)


def test_scans_of_layers_directions_and_several_calls():
    model = Model("GRU", num_layers=2, bidirectional=True)
    _, x, _ = simple()
    with mg.bptt.record() as rec:
        for _ in range(2):
            y, _ = model(x)
        mg.sum(y).backward()
    assert rec.paths == ["rnn.l0", "rnn.l0_reverse", "rnn.l1", "rnn.l1_reverse"] * 2
    assert [scan.path for scan in rec["rnn"]] == rec.paths and len(rec["rnn.l1_reverse"]) == 2
    assert [scan.reverse for scan in rec["rnn.l0_reverse"]] == [True, True]
    with pytest.raises(AttributeError, match=r"2 scans \(rnn.l1, rnn.l1\), each with its own values: take one"):
        print(rec["rnn.l1"].values)
    with pytest.raises(ValueError, match="takes one scan, not 8"):
        mg.bptt.jacobians(rec)
    with pytest.raises(RuntimeError, match="no backward"):
        rec["rnn.l1"][0].grads["r"]
    assert rec["rnn.l1"][1].grads["r"].any()


def test_paths_of_modules():
    class Head(nn.Module):
        def __init__(self):
            self.cells = [nn.RNNCell(3, 3, rng=i, dtype=np.float64) for i in range(2)]

    class Outer(nn.Module):
        def __init__(self):
            self.inner = Model("LSTM")
            self.heads = {"a": Head()}
            self.alias = self.inner

        def __call__(self, x):
            y, _ = self.inner(x)
            for cell in self.heads["a"].cells:
                cell.step(x[0])
            return y
    outer, x = Outer(), simple()[1]
    with mg.bptt.record() as rec:
        outer(x)
        outer.inner.rnn(x)
        nn.LSTM(3, 5, rng=0)(x.astype("f"))
        mg.scan(lambda h, x: (h + x, h), np.zeros((2, 3)), x)
    assert rec.paths == ["inner.rnn.l0", "heads.a.cells.0", "heads.a.cells.1", "inner.rnn.l0", "l0", "<lambda>"]
    assert len(rec["heads"]) == 2 and rec["<lambda>"] is rec[-1]
    with mg.bptt.record(outer.inner) as rec:
        outer(x)
    assert rec.paths[0] == "rnn.l0"


def test_paths_survive_copies_and_programs_do_not_depend_on_them():
    class Other(nn.Module):
        def __init__(self, inner):
            self.inner = inner
    model, x, _ = simple()
    model(x)
    count = len(programs)
    with mg.bptt.record() as rec:
        Other(model).inner(x)
        assert len(programs) == count
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            twin(x)
    assert rec.paths == ["inner.rnn.l0"] * 3


def test_a_cell_that_cannot_be_traced_says_so():
    def cell(h, x):
        return (h if x.sum().item() > 0 else h * 0.5), h
    with mg.bptt.record() as rec:
        with pytest.warns(mg.scan.__globals__["ScanNotice"]):
            mg.scan(cell, np.ones(2), mg.tensor(np.ones((3, 2)), requires_grad=True))
        mg.scan(lambda h, x: (h + np.random.default_rng().normal(size=2), h), np.ones(2), np.ones((3, 2)))
    with pytest.raises(TypeError, match=r"cell was not recorded, because its cell cannot be traced: .* into a number"):
        rec[0]
    with pytest.raises(TypeError, match="new values at every call"):
        rec["<lambda>"]
    assert "not recorded" in repr(rec)


def test_an_empty_recording_says_why():
    model, x, _ = simple()
    with mg.bptt.record() as rec, mg.detect_anomaly():
        model(x)
    with pytest.raises(LookupError, match=r"no scan ran inside record.*detect_anomaly"):
        rec[0]


def test_recordings_inside_of_one_another_and_after():
    model, x, _ = simple()
    with mg.bptt.record() as outer:
        model(x)
        with mg.bptt.record() as inner:
            model(x)
        model(x)
    model(x)
    assert (len(outer), len(inner)) == (2, 1)


def test_an_exception_inside_ends_the_recording_and_keeps_what_ran():
    model, x, u = simple()
    with pytest.raises(ZeroDivisionError), mg.bptt.record() as rec:
        y, _ = model(x)
        raise ZeroDivisionError
    model(x)
    mg.sum(y * u).backward()
    assert len(rec) == 1 and rec[0].grads["ft"].any()


@pytest.mark.parametrize("T, B", [(1, 1), (1, 3), (4, 0)])
def test_one_step_one_sequence_and_none(T, B):
    model, x, u = simple(T, B)
    with mg.bptt.record() as rec:
        losses = mg.sum(model(x)[0] * u, axis=(1, 2))
        ledger = mg.bptt.credit(rec, losses)
        mg.sum(losses).backward()
    grad = model.rnn.layers["l0"].W.grad
    np.testing.assert_allclose(rec[0].weight_grads("W").sum(0), grad, rtol=1e-13)
    np.testing.assert_allclose(ledger.by_step["W"].sum(0), grad, rtol=1e-13)
    found = mg.bptt.truncation(rec, [T])
    np.testing.assert_allclose(found.gradients["W"][0], grad, rtol=1e-13)
    assert {part.shape for parts in mg.bptt.paths(rec).values() for part in parts.values()} == {(T, 5, B)}
    if B:
        assert mg.bptt.jacobians(rec).norms.shape == (T, B) and mg.bptt.saturation(rec).nan is None
        assert ledger.share.sum() == pytest.approx(1.0)
    else:
        assert not ledger.size.any() and not ledger.share.any()
        with pytest.raises(ValueError, match="an empty batch"):
            mg.bptt.jacobians(rec)


def test_losses_that_do_not_depend_on_the_scan_get_no_credit():
    model, x, u = simple()
    with mg.bptt.record() as rec:
        y, _ = model(x)
        ledger = mg.bptt.credit(rec, [mg.tensor(1.0), mg.sum(y[3] * u[3]), 3.0 * mg.tensor(2.0, requires_grad=True)])
        none = mg.bptt.credit(rec, [])
    assert not ledger.size[[0, 2]].any() and ledger.size[1, :4].all() and not ledger.size[1, 4]
    assert none.size.shape == (0, 5) and none.by_loss["W"].shape == (0, 20, 8) and not none.by_step["W"].any()


def test_values_without_influence_are_recorded_too():
    extra = mg.tensor(np.ones(2), requires_grad=True)

    def cell(h, x):
        size, unused = mg.sum(h * h), extra * x  # extra is not an argument of the program
        assert size.shape == () and unused.shape == (2,)
        h_next = mg.tanh(h + x)
        return h_next, h_next
    with mg.bptt.record() as rec:
        _, ys = mg.scan(cell, np.zeros(2), mg.tensor(np.ones((3, 2)), requires_grad=True))
        mg.sum(ys).backward()
    h = rec[0].values["h"]
    np.testing.assert_allclose(rec[0].values["size"], (h * h).sum(1))
    assert not rec[0].grads["size"].any() and "unused" not in rec[0].values


def test_one_name_of_several_values_and_results_without_a_name():
    w = mg.tensor(0.5 * np.ones((2, 2)), requires_grad=True)

    def gate(x):
        z = w @ x
        return mg.sigmoid(z)
    with mg.bptt.record() as rec:
        mg.scan(lambda h, x: (gate(x) * h + gate(h), {"out": h * h, "k": np.ones(2)}), np.ones(2), np.ones((3, 2)))
    assert list(rec[0].values) == ["h", "x", "z", "z_2", "h_next", "y.out"]
    assert rec[0].outputs == ["y.out"] and rec[0].states == {"h": "h_next"}
    np.testing.assert_allclose(rec[0].values["z_2"], rec[0].values["h"] @ w.data.T)


def test_detached_values_and_values_computed_twice():
    """Each variable has its own gradient, even if the program has one value for two variables."""
    def cell(h, x):
        one = mg.tanh(h + x)
        two = mg.tanh(h + x)
        frozen = two.detach()
        h_next = one * 2.0 + frozen * one + two * 3.0
        return h_next, two
    trees = np.ones(2), np.linspace(-1.0, 1.0, 8).reshape(4, 2)
    loss, calls = written_out(cell, mg.tensor(trees[0], requires_grad=True), mg.tensor(trees[1], requires_grad=True))
    loss.backward()
    with mg.bptt.record() as rec:
        mixed(mg.scan(cell, trees[0], mg.tensor(trees[1], requires_grad=True))).backward()
    for name in ("one", "two", "h_next"):
        np.testing.assert_allclose(rec[0].grads[name], [call[name].grad for call in calls], rtol=1e-12)
    assert not rec[0].grads["frozen"].any()


def test_a_scan_inside_of_a_cell_is_a_part_of_it():
    def cell(h, x):
        def inner(g, u):
            g_next = mg.tanh(g + u)
            return g_next, g_next
        h_next, _ = mg.scan(inner, h, x)
        return h_next, h_next
    x = np.linspace(-1.0, 1.0, 12).reshape(2, 3, 2)
    with mg.bptt.record() as rec:
        _, ys = mg.scan(cell, np.zeros(2), mg.tensor(x, requires_grad=True))
        mg.sum(ys).backward()
    assert len(rec) == 1
    np.testing.assert_allclose(rec[0].values["h_next"], ys.detach().numpy())
    with mg.bptt.record() as flat:
        _, ys = mg.scan(lambda g, u: (mg.tanh(g + u),) * 2, np.zeros(2), mg.tensor(x.reshape(6, 2), requires_grad=True))
        mg.sum(ys[np.array([2, 5])]).backward()
    np.testing.assert_allclose(rec[0].grads["x"], flat[0].grads["u"].reshape(2, 3, 2), rtol=1e-12)


def test_integers_have_values_and_no_gradients():
    def cell(h, x):
        t, x = x
        h_next = h + x * (t > 1)
        return h_next, h_next
    with mg.bptt.record() as rec:
        _, ys = mg.scan(cell, np.zeros(2), (np.arange(3), mg.tensor(np.ones((3, 2)), requires_grad=True)))
        mg.sum(ys).backward()
    assert rec[0].values["t"].tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match=r"t of .*cell has dtype int64, and only floats"):
        rec[0].grads["t"]


def test_frozen_weights():
    model, x, u = simple()
    model.rnn.layers["l0"].b.requires_grad = False
    rec = recorded(model, x, u)
    assert rec[0].weight_grads("W").any() and rec[0].weights == ["W", "b"]
    with pytest.raises(ValueError, match=r"b of rnn.l0 does not require gradients"):
        rec[0].weight_grads("b")


def test_gradients_of_gradients_do_not_change_in_a_recording():
    model, x, _ = simple()

    def product():
        return mg.hvp(lambda x: mg.sum(model(x)[0] ** 2), x, np.ones_like(x)).detach().numpy()
    with mg.bptt.record() as rec:
        ours = product()
    np.testing.assert_allclose(ours, product(), rtol=1e-12)
    assert len(rec) == 1


def test_checkpoints_do_not_matter_and_gradients_of_functions_are_seen():
    def cell(h, x):
        h_next = mg.tanh(h + x)
        return h_next, h_next
    x = np.linspace(-1.0, 1.0, 12).reshape(6, 2)

    def f(x):
        return mg.sum(mg.scan(cell, np.zeros(2), x, checkpoint_every=2)[1])
    with mg.bptt.record() as rec:
        g = mg.grad(f)(x)
    np.testing.assert_allclose(rec[0].grads["x"], g, rtol=1e-13)


def test_memory_of_a_recording():
    """Check the docstring of record: 12 H + 2 D numbers, and 16 H + D per backward."""
    H, D, B, T = 16, 8, 4, 50
    model = nn.LSTM(D, H, rng=0, dtype=np.float64)
    rec = recorded(model, np.ones((T, B, D)), np.ones((T, B, H)))

    def numbers(arrays):
        whole = {}
        for a in arrays:
            while a.base is not None:
                a = a.base
            whole[id(a)] = a.nbytes
        return sum(whole.values()) / 8 / (T * B)
    kept = [a for step in rec[0].forward_values for a in step.values()]
    weights = sum(a.nbytes for a in rec[0].invariants.values() if isinstance(a, np.ndarray) and a.ndim) / 8 / (T * B)
    backward = rec[0].backwards[0]
    gradients = [*backward.d_ys, *backward.d_state, *(a for step in backward.values for a in step.values())]
    assert numbers(kept) - weights == pytest.approx(12 * H + 2 * D, rel=0.05)
    assert numbers(gradients) == pytest.approx(16 * H + D, rel=0.05)


def test_the_graph_is_freed_and_the_recording_does_not_hold_it():
    model, x, _ = simple()
    with mg.bptt.record() as rec:
        y, _ = model(x)
        alive = rec[0].node
        assert alive() is not None
        del y, _
        assert alive() is None


# -- the questions, each against brute force ----------------------------------------------------------------------


def named_row(name):
    (found,) = [row for row in CELLS if str(row) == name]
    return found


def unrolled(row, trees, reverse=False, mask=None):
    """(ys, [weights of each step in the order of xs]): op by op, with separate weights for each step."""
    state, xs, weights = trees
    steps = len(flatten(xs)[0][0])
    ys, used = [None] * steps, [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        used[t] = {name: mg.tensor(w, requires_grad=True) for name, w in weights.items()}
        before, (state, y) = state, row.cell(used[t])(state, map_leaves(lambda leaf, t=t: leaf[t], xs))
        if mask is not None:
            leaves = [mg.where(mask[t], new, old) for new, old in zip(flatten(state)[0], flatten(before)[0])]
            state, y = unflatten(state, leaves), map_leaves(lambda leaf, t=t: mg.where(mask[t], leaf, 0.0), y)
        ys[t] = y
    return ys, used


@pytest.mark.parametrize("name, variant", [(name, variant) for name in ("rnn", "lstm", "gru", "vectors", "weight_twice")
                                       for variant in SCAN_OPTIONS] + [(str(row), "plain") for row in CELLS])
def test_credit(name, variant):
    row = named_row(name)
    if "mask" in variant and not row.batch_last:
        pytest.skip("a mask has no meaning for this cell")
    state, xs, weights = trees = row.inputs()
    options = dict(SCAN_OPTIONS[variant]) | ({"mask": mask_for(4, 2)} if "mask" in variant else {})
    ys, used = unrolled(row, trees, **options)
    if not all(flatten(y)[0] and isinstance(flatten(y)[0][0], mg.Tensor) for y in ys):
        pytest.skip("the first output of this cell does not depend on its weights")
    expected = []  # expected[s][t][weight]
    for y in ys:
        for w in [w for step in used for w in step.values()]:
            w.grad = None
        mg.sum(flatten(y)[0][0] ** 2).backward(retain_graph=True)
        expected.append([{key: gradient(w) for key, w in step.items()} for step in used])

    weights = {key: mg.tensor(w, requires_grad=True) for key, w in weights.items()}
    with mg.bptt.record() as rec:
        _, ys = mg.scan(row.cell(weights), state, xs, **options)
        losses = [mg.sum(flatten(ys)[0][0][t] ** 2) for t in range(4)]
        ledger = mg.bptt.credit(rec, losses)
        assert not rec[0].backwards and all(w.grad is None for w in weights.values())
        sum(losses[1:], losses[0]).backward()
    size = [[np.sqrt(sum((g**2).sum() for g in entry.values())) for entry in line] for line in expected]
    np.testing.assert_allclose(ledger.size, size, rtol=1e-12, atol=1e-13)
    assert ledger.share.sum() == pytest.approx(1.0)
    for key, w in weights.items():
        G = np.array([[entry[key] for entry in line] for line in expected])
        np.testing.assert_allclose(ledger.by_loss[key], G.sum(1), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(ledger.by_step[key], G.sum(0), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(ledger.by_step[key], rec[0].weight_grads(key), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(ledger.by_loss[key].sum(0), w.grad, rtol=1e-12, atol=1e-13)
    share = [[sum((entry[key] * w.grad).sum() for key, w in weights.items()) for entry in line] for line in expected]
    np.testing.assert_allclose(ledger.share, share / sum((w.grad**2).sum() for w in weights.values()), atol=1e-12)


@pytest.mark.parametrize("most", [2, 64], ids=["in groups", "at once"])
@pytest.mark.parametrize("B, dtype", [(1, "d"), (3, "d"), (1, "f"), (40, "d")])
def test_credit_is_what_each_backward_alone_adds_at_each_step(B, dtype, most, monkeypatch):
    """Test a weight whose gradient remains a product of factors (B = 1, 3), and one computed in full (40)."""
    monkeypatch.setattr("minigrad.microscope.credit.MOST", most)
    rng, T = np.random.default_rng(0), 7
    model = nn.LSTM(6, 10, bidirectional=True, rng=0, dtype=dtype)
    x, u = (rng.normal(size=(T, B, n)).astype(dtype) for n in (6, 20))
    with mg.bptt.record() as rec:
        losses = mg.sum(model(x)[0] * u, axis=(1, 2))
        ledgers = [mg.bptt.credit(scan, losses) for scan in rec]
    for s in range(T):
        with mg.bptt.record() as rec:
            mg.sum(model(x)[0][s] * u[s]).backward()
        for scan, ledger in zip(rec, ledgers):
            expected = [scan.weight_grads(name) for name in ("W", "b")]
            sizes = np.sqrt(sum((g.astype("d") ** 2).sum(axis=(1, 2)) for g in expected))
            tolerance = {"d": 1e-12, "f": 1e-5}[dtype]
            np.testing.assert_allclose(ledger.size[s], sizes, rtol=tolerance, atol=1e-14)
            for name, g in zip(("W", "b"), expected):
                np.testing.assert_allclose(ledger.by_loss[name][s], g.sum(0), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind, states", [("RNN", ["h_prev"]), ("LSTM", ["a_prev", "c_prev"])])
def test_credit_reaches_the_states_as_the_backward_of_each_loss_does(kind, states):
    model = Model(kind, num_layers=2)
    _, x, u = simple()
    with mg.bptt.record() as rec:
        y, _ = model(x)
        ledgers = [mg.bptt.credit(rec[path], mg.sum(y * u, axis=(1, 2))) for path in ("rnn.l0", "rnn.l1")]
    for s in range(len(x)):
        with mg.bptt.record() as rec:
            y, _ = model(x)
            mg.sum(y[s] * u[s]).backward()
        for ledger, scan in zip(ledgers, rec):
            assert list(ledger.states) == states
            for name, parts in mg.bptt.paths(scan).items():
                through = sum(parts.values()).reshape(len(x), -1)
                size = np.linalg.norm(through, axis=1)
                np.testing.assert_allclose(ledger.states[name][s], size, rtol=1e-12, atol=1e-14)


def test_credit_of_a_lower_layer_goes_through_the_one_above():
    model = Model("GRU", num_layers=2)
    _, x, u = simple()
    with mg.bptt.record() as rec:
        y, _ = model(x)
        losses = mg.sum(y * u, axis=(1, 2))
        ledgers = [mg.bptt.credit(rec[path], losses) for path in ("rnn.l0", "rnn.l1")]
        assert not any(scan.backwards for scan in rec)
        mg.sum(losses).backward()
    for ledger, (name, cell) in zip(ledgers, model.rnn.layers.items()):
        assert set(ledger.by_step) == {"W", "b", "Wh", "Wx", "bx", "bh"}
        for key, w in cell.named_parameters():
            np.testing.assert_allclose(ledger.by_loss[key].sum(0), w.grad, rtol=1e-12, atol=1e-14)
            by_step = rec[f"rnn.{name}"].weight_grads(key)
            np.testing.assert_allclose(ledger.by_step[key], by_step, rtol=1e-11, atol=1e-14)


def test_credit_and_truncation_without_a_graph_say_so():
    model, x, u = simple()
    with mg.bptt.record() as rec:
        losses = mg.sum(model(x)[0] * u, axis=(1, 2))
        loss = mg.sum(losses)
        loss.backward()
    with pytest.raises(RuntimeError, match=r"graph between the losses and rnn.l0 does not exist or was released"):
        mg.bptt.credit(rec, losses)
    with pytest.raises(RuntimeError, match="graph behind the loss has been released"):
        mg.bptt.truncation(rec, [1], loss=loss)
    with pytest.raises(ValueError, match="one number each, not an array of shape"):
        mg.bptt.credit(rec, [1.0])
    with pytest.raises(ValueError, match="one loss for each step"):
        mg.bptt.credit(rec, loss)
    with pytest.raises(TypeError, match="from which paths start, not str"), mg.bptt.record("rnn"):
        pass


JACOBIAN_CELLS = ["rnn", "lstm", "gru", "peephole", "layer_normalised", "nested", "swapped", "never_changing", "reset",
                  "vectors", "scalar", "batch_first", "state_used_transposed", "slices_of_the_state"]


@pytest.mark.parametrize("variant", ["plain", "mask and reverse"])
@pytest.mark.parametrize("name", JACOBIAN_CELLS)
def test_jacobians(name, variant):
    """Against mg.jacobian of one step, with the whole state as one vector: exact, and sequences are independent."""
    row = named_row(name)
    if "mask" in variant and not row.batch_last:
        pytest.skip("a mask has no meaning for this cell")
    state, xs, weights = row.inputs()
    weights = {key: mg.tensor(w) for key, w in weights.items()}
    options = {"reverse": True, "mask": mask_for(4, 2)} if "mask" in variant else {}
    with mg.bptt.record() as rec:
        mg.scan(row.cell(weights), state, xs, **options)
    leaves, pattern = flatten(state)
    found = mg.bptt.jacobians(rec, batched=None if row.batch_last else False)
    whole = mg.bptt.jacobians(rec, batched=False)
    n = sum(leaf.size for leaf in leaves)
    assert whole.steps.shape == (4, 1, n, n) and [size for *_, size in whole.leaves] == [leaf.size for leaf in leaves]
    for t in reversed(range(4)) if options else range(4):
        def step(*leaves, t=t):
            before = unflatten(pattern, list(leaves))
            after, _ = row.cell(weights)(before, map_leaves(lambda x, t=t: x[t], xs))
            after = flatten(after)[0]
            if options:
                after = [mg.where(options["mask"][t], new, old) for new, old in zip(after, leaves)]
            return after
        blocks = mg.jacobian(lambda *leaves: [y + 0.0 * sum(mg.sum(leaf) for leaf in leaves) for y in step(*leaves)],
                             argnums=tuple(range(len(leaves))))(*leaves)
        expected = np.block([[np.reshape(block, (leaf.size, -1)) for block, leaf in zip(rows, leaves)]
                             for rows in blocks]).reshape(n, n)
        np.testing.assert_allclose(whole.steps[t, 0], expected, rtol=1e-12, atol=1e-12)
        if row.batch_last:  # entry (j, b) of a leaf is at j · 2 + b
            for b in range(2):
                own = np.concatenate([start + np.arange(b, leaf.size, 2) for start, leaf in
                                      zip(np.cumsum([0] + [leaf.size for leaf in leaves]), leaves)])
                np.testing.assert_allclose(found.steps[t, b], expected[np.ix_(own, own)], rtol=1e-12, atol=1e-12)
        leaves = [np.asarray(y) for y in step(*leaves)]


def test_products_of_jacobians_and_the_lyapunov_exponent():
    model, x, _ = simple(T=7)
    with mg.bptt.record() as rec:
        model(x, lengths=[7, 3])
    found = mg.bptt.jacobians(rec)
    for b, length in enumerate((7, 3)):
        product, norms = np.eye(10), []
        for J in found.steps[::-1, b]:
            product = product @ J
            norms.append(np.linalg.norm(product, 2))
        np.testing.assert_allclose(found.norms[:, b], norms, rtol=1e-12)
        assert found.lyapunov[b] == pytest.approx(np.log(norms[-1]) / length)
    np.testing.assert_allclose(found.singular_values[:, :, 0], np.linalg.norm(found.steps, 2, axis=(2, 3)))
    assert found.leaves == [("a_prev", "a_next", 5), ("c_prev", "c_next", 5)]
    assert (found.norms[:4, 1] == 1.0).all()  # nothing moves past the end


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_the_exponent_neither_vanishes_nor_overflows(factor):
    with mg.bptt.record() as rec:
        mg.scan(lambda h, x: (factor * h + x, h), np.zeros((2, 1)), np.zeros((1000, 2, 1)))
    assert mg.bptt.jacobians(rec).lyapunov == pytest.approx(np.log(factor))


@pytest.mark.parametrize("eigenvalues", [[0.5, 0.9, -0.7], [0.4, -1.2, 1.1]])
def test_the_exponent_of_a_linear_cell_is_its_largest_eigenvalue(eigenvalues):
    """Exact for a diagonal matrix; for other eigenvectors within ln(κ) / T."""
    rng, T, largest = np.random.default_rng(0), 400, np.log(np.abs(eigenvalues).max())
    Q = rng.normal(size=(3, 3))
    for A, tolerance in ((np.diag(eigenvalues), 1e-12),
                         (Q @ np.diag(eigenvalues) @ np.linalg.inv(Q), np.log(np.linalg.cond(Q)) / T)):
        with mg.bptt.record() as rec:
            mg.scan(lambda h, x, A=A: (A @ h + x, h), np.zeros((3, 2)), rng.normal(size=(T, 3, 2)))
        assert mg.bptt.jacobians(rec).lyapunov == pytest.approx(largest, abs=tolerance)


def test_the_exponent_of_a_chaotic_map():
    """The exponent of the logistic map at r = 4 is exactly ln 2 per step."""
    with mg.bptt.record() as rec:
        mg.scan(lambda h, x: (4.0 * h * (1.0 - h) + x, h), np.full((1, 1), 0.3), np.zeros((5000, 1, 1)))
    assert mg.bptt.jacobians(rec).lyapunov == pytest.approx(np.log(2.0), abs=0.005)


def test_a_forgotten_state_and_a_nan_state():
    with mg.bptt.record() as rec:
        mg.scan(lambda h, x: (x, h), np.zeros((2, 1)), np.ones((3, 2, 1)))
    found = mg.bptt.jacobians(rec)
    assert found.lyapunov == [-np.inf] and not found.norms.any()
    with mg.bptt.record() as rec, np.errstate(invalid="ignore"):
        mg.scan(lambda h, x: (h * mg.sqrt(x), h), np.ones((2, 1)), np.array([1.0, 1.0, -1.0, 1.0]))
        with pytest.raises(FloatingPointError, match="at step 2 is not finite"):
            mg.bptt.jacobians(rec)


def test_dependent_sequences_are_found():
    with mg.bptt.record() as rec:
        mg.scan(lambda h, x: (h - mg.mean(h, axis=1, keepdims=True) + x, h), np.ones((2, 3)), np.ones((4, 2, 3)))
    with pytest.raises(ValueError, match=r"influences another one: .*batched=False"):
        mg.bptt.jacobians(rec)
    assert mg.bptt.jacobians(rec, batched=False).steps.shape == (4, 1, 6, 6)
    with mg.bptt.record() as rec:
        mg.scan(lambda h, x: (h, x), np.arange(2), np.ones((4, 2)))
    with pytest.raises(ValueError, match="its state has no floats"):
        mg.bptt.jacobians(rec)


def in_pieces(layer, x, u, k, frozen=0):
    """The loss of training on pieces of k steps with a detached state between them. The first `frozen` steps have no
    loss, and their state is detached too."""
    state, loss = None, 0.0
    if frozen:
        state = map_leaves(lambda leaf: leaf.detach(), layer(x[:frozen])[1])
        x, u = x[frozen:], u[frozen:]
    for start in range(0, len(x), k):
        y, state = layer(x[start:start + k], state)
        loss = loss + mg.sum(y * u[start:start + k])
        state = map_leaves(lambda leaf: leaf.detach(), state)
    return loss


@pytest.mark.parametrize("layers", [1, 2])
def test_truncation_in_pieces(layers):
    model, (_, x, u) = Model("LSTM", num_layers=layers), simple(T=7)
    ks = [1, 2, 3, 7, 10]
    with mg.bptt.record() as rec:
        loss = mg.sum(model(x)[0] * u)
        loss.backward(retain_graph=True)
    found = mg.bptt.truncation(rec, ks, loss=loss)
    assert len(rec[0].backwards) == 1
    if layers == 1:
        alone = mg.bptt.truncation(rec, ks)
        for name, values in alone.gradients.items():
            np.testing.assert_allclose(found.gradients[name], values, rtol=1e-12)
    names = {f"rnn.{layer}.{name}" if layers > 1 else name: p for layer, cell in model.rnn.layers.items()
             for name, p in cell.named_parameters()}
    assert set(found.full) == set(names)
    for name, p in names.items():
        np.testing.assert_allclose(found.full[name], p.grad, rtol=1e-12)
    for i, k in enumerate(ks):
        model.zero_grad()
        in_pieces(model.rnn, x, u, k).backward()
        for name, p in names.items():
            g = found.full[name]
            np.testing.assert_allclose(found.gradients[name][i], p.grad, rtol=1e-12, atol=1e-14)
            assert found.bias[name][i] == pytest.approx(np.linalg.norm(p.grad - g) / np.linalg.norm(g), abs=1e-14)
            assert found.ratio[name][i] == pytest.approx(np.linalg.norm(p.grad) / np.linalg.norm(g))
            assert found.cosine[name][i] == pytest.approx(
                (p.grad * g).sum() / np.linalg.norm(p.grad) / np.linalg.norm(g))
    assert found.smallest(1e-9) == dict.fromkeys(names, 7) and found.smallest(10.0) == dict.fromkeys(names, 1)


@pytest.mark.parametrize("k, every", [(1, 1), (3, 1), (4, 2), (5, 3), (9, 1)])
def test_truncation_with_windows(k, every):
    """BPTT(k; every): the loss of each piece of `every` steps, with the state before its k steps frozen."""
    model, x, u = simple(T=8)
    found = mg.bptt.truncation(recorded(model, x, u), [k], every=every)
    total = {name: 0.0 for name in found.full}
    for first in range(0, 8, every):
        model.zero_grad()
        own = np.where((np.arange(8) >= first)[:, None, None], u, 0.0)[:first + every]
        in_pieces(model.rnn, x[:first + every], own, 8, frozen=max(0, first - (k - every))).backward()
        for name in total:
            total[name] = total[name] + getattr(model.rnn.layers["l0"], name).grad
    for name, expected in total.items():
        np.testing.assert_allclose(found.gradients[name][0], expected, rtol=1e-12, atol=1e-14)


def test_truncation_reaches_the_parameters_below():
    class Embedded(nn.Module):
        def __init__(self):
            self.E = mg.tensor(np.random.default_rng(0).normal(size=(3, 3)), requires_grad=True)
            self.rnn = nn.GRU(3, 5, rng=0, dtype=np.float64)

        def __call__(self, x, state=None):
            return self.rnn(x @ self.E, state)
    model, (_, x, u) = Embedded(), simple(T=6)
    with mg.bptt.record() as rec:
        found = mg.bptt.truncation(rec, [2], loss=mg.sum(model(x)[0] * u))
    in_pieces(model, x, u, 2).backward()
    assert set(found.full) == {"E", "W", "b", "Wh", "Wx", "bx", "bh"}
    np.testing.assert_allclose(found.gradients["E"][0], model.E.grad, rtol=1e-12)


def test_truncation_refuses_scans_that_it_cannot_truncate():
    model, x, u = simple()
    rec = recorded(model, x, u)
    for ks, every in (([], None), ([0], None), ([1.5], None), ([2], 3), ([2], -1), ("abc", None)):
        with pytest.raises(ValueError, match="takes integers k ≥"):
            mg.bptt.truncation(rec, ks, every=every)
    with mg.bptt.record() as rec:
        two = mg.sum(Model("RNN", num_layers=2)(x)[0] * u)
        _, state = model.rnn(x)
        chained = mg.sum(model.rnn(x, state)[0] * u)
    with pytest.raises(ValueError, match="windows of the 2 scans behind the loss differ"):
        mg.bptt.truncation(rec, [2], every=1, loss=two)
    with pytest.raises(ValueError, match=r"rnn.l0 ran more than once"):
        mg.bptt.truncation(rec, [2], loss=chained)
    with pytest.raises(ValueError, match="takes one scan, not 4"):
        mg.bptt.truncation(rec, [2])
    with pytest.raises(ValueError, match="was not recorded"):
        mg.bptt.truncation(rec, [2], loss=mg.sum(model(x)[0] * u))
    with pytest.raises(ValueError, match="one number that requires gradients"):
        mg.bptt.truncation(rec, [2], loss=mg.tensor(1.0))


def test_truncation_of_no_gradient_is_nan():
    model, x, u = simple()
    found = mg.bptt.truncation(recorded(model, x, 0.0 * u), [1, 2])
    assert np.isnan([*found.bias["W"], *found.cosine["W"], *found.ratio["W"]]).all()
    assert found.smallest(0.1) == {"W": None, "b": None}


@pytest.mark.parametrize("variant", ["plain", "mask", "reverse"])
def test_paths(variant):
    """Compare with the VJP of one step for the gradient of a single result."""
    row = named_row("lstm_four_weights")
    state, xs, weights = row.inputs()
    weights = {name: mg.tensor(w, requires_grad=True) for name, w in weights.items()}
    mask = mask_for(4, 2) if variant == "mask" else None
    with mg.bptt.record() as rec:
        final, ys = mg.scan(row.cell(weights), state, xs, reverse=variant == "reverse", mask=mask)
        mixed((final, ys)).backward()
    found, scan = mg.bptt.paths(rec), rec[0]
    assert set(found) == {"a_prev", "c_prev"} and set(found["c_prev"]) == {"a_next", "c_next", "y"}
    rng = np.random.default_rng(5)  # as in `mixed`
    d_final, d_ys = [rng.normal(size=leaf.shape) for leaf in final], rng.normal(size=ys.shape)
    order = range(4) if variant == "reverse" else reversed(range(4))
    for t in order:
        def step(a_prev, c_prev, t=t):
            (a, c), y = row.cell(weights)((a_prev, c_prev), xs[t])
            if mask is not None:
                a, c, y = mg.where(mask[t], a, a_prev), mg.where(mask[t], c, c_prev), mg.where(mask[t], y, 0.0)
            return a, c, y
        before = scan.values["a_prev"][t], scan.values["c_prev"][t]
        _, pull = mg.vjp(step, *before)
        given = [*d_final, d_ys[t]]
        carried = [0.0, 0.0]
        for i, name in enumerate(("a_next", "c_next", "y")):
            alone = tuple(d if i == j else np.zeros_like(d) for j, d in enumerate(given))
            parts = [np.asarray(part.detach() if isinstance(part, mg.Tensor) else part) for part in pull(alone)]
            for state_name, part in zip(found, parts):
                np.testing.assert_allclose(found[state_name][name][t], part, rtol=1e-11, atol=1e-13)
            carried = [total + part for total, part in zip(carried, parts)]
        d_final = carried


def test_the_path_through_c_is_the_forget_gate():
    """Both parts add up to the gradient that a step sends back: dL/dc_t = ft ∘ dL/dc_{t+1} + …"""
    scan = recorded(*simple())[0]
    found = mg.bptt.paths(scan)
    whole = found["c_prev"]["c_next"] + found["c_prev"]["a_next"]
    seeds = np.append(whole[1:], np.zeros((1, 5, 2)), axis=0)  # the gradient of later steps for c_t
    np.testing.assert_allclose(found["c_prev"]["c_next"], scan.values["ft"] * seeds, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(whole[0], scan.grads["c_prev"][0], rtol=1e-12)
    through_a = scan.grads["a_next"] * scan.values["ot"] * (1.0 - np.tanh(scan.values["c_next"]) ** 2)
    np.testing.assert_allclose(found["c_prev"]["a_next"], scan.values["ft"] * through_a, rtol=1e-12, atol=1e-14)


def test_saturation():
    def cell(state, x):
        _, c = state
        gate = mg.sigmoid(np.array([[-9.0], [0.0], [9.0]]) * x)
        cct = mg.tanh(x * np.array([[9.0], [0.0], [-9.0]]))
        h_next = mg.relu(x * np.array([[-1.0], [1.0], [2.0]]))
        c_next = c * np.array([[1.0], [100.0], [1.0]]) + 1.0
        return (h_next, c_next), gate * cct
    x = np.ones((4, 1, 2))
    x[3, 0, 1] = 0.0
    with mg.bptt.record() as rec:
        mg.scan(cell, (np.zeros((3, 2)), np.zeros((3, 2))), x)
    found = mg.bptt.saturation(rec)
    np.testing.assert_array_equal(found.low["gate"], [7 / 8, 0, 0])
    np.testing.assert_array_equal(found.high["gate"], [0, 0, 7 / 8])
    np.testing.assert_array_equal(found.high["cct"], [7 / 8, 0, 0])
    np.testing.assert_array_equal(found.dead["h_next"], [True, False, False])
    np.testing.assert_array_equal(found.exploding["c_next"], [False, True, False])
    assert set(found.low) == {"gate", "cct"} and found.nan is found.nan_grad is None
    with mg.bptt.record() as rec:
        mg.scan(cell, (np.zeros((3, 2)), np.zeros((3, 2))), x, mask=np.array([[1, 1], [1, 1], [1, 1], [1, 0]]))
    np.testing.assert_array_equal(mg.bptt.saturation(rec).low["gate"], [1, 0, 0])
    units = mg.bptt.saturation(recorded(*simple())[0])
    assert {name: a.shape for name, a in units.low.items()} == {
        "gates": (15,), "ft": (5,), "it": (5,), "ot": (5,), "cct": (5,)}


@pytest.mark.parametrize("reverse", [False, True])
def test_the_first_nan(reverse):
    def cell(h, x):
        root = mg.sqrt(x)
        h_next = 0.5 * h + root
        return h_next, h_next
    x = np.ones((6, 2))
    x[2:4, 1] = -1.0
    with np.errstate(invalid="ignore"), mg.bptt.record() as rec:
        _, ys = mg.scan(cell, np.zeros(2), mg.tensor(x, requires_grad=True), reverse=reverse)
        assert mg.bptt.saturation(rec).nan_grad is None
        mg.sum(ys[0]).backward()
    found = mg.bptt.saturation(rec)
    assert found.nan == ((3, "root") if reverse else (2, "root"))
    assert found.exploding["h_next"].tolist() == [False, True]
    assert found.nan_grad == ((2, "x") if reverse else (3, "x"))  # a gradient of 0 through √ at −1 is 0 · NaN


def test_masked_steps_do_not_saturate():
    """Also for a state without units, (batch,), and with NaN; but 0 · NaN is NaN in the backward."""
    def cell(h, x):
        gate = mg.sigmoid(mg.sqrt(x) - 10.0)
        h_next = 0.5 * h + gate
        return h_next, h_next
    x, mask = np.ones((3, 2)), np.array([[1, 1], [1, 0], [1, 0]], bool)
    x[1:, 1], x[0] = [-1.0, 400.0], 400.0
    with np.errstate(invalid="ignore"), mg.bptt.record() as rec:
        _, ys = mg.scan(cell, np.zeros(2), mg.tensor(x, requires_grad=True), mask=mask)
        assert mg.bptt.saturation(rec).nan is None
        mg.sum(ys).backward()
    found = mg.bptt.saturation(rec)
    assert (found.low["gate"], found.high["gate"]) == (2 / 4, 2 / 4)
    assert found.nan is None and found.nan_grad == (1, "x")
    for options in ({"mask": np.zeros((3, 2))}, {}):
        with mg.bptt.record() as rec:
            mg.scan(lambda h, x: (mg.tanh(h + x), h), np.zeros((3, 2 * len(options))), np.ones((3, 3, 1)), **options)
        with pytest.raises(ValueError, match="no step of <lambda> counts: its batch is empty, or its mask"):
            mg.bptt.saturation(rec)


# -- gradcheck of a truncated gradient ----------------------------------------------------------------------------


def test_gradcheck_freezes_detached_values():
    model, (_, x, u) = Model("GRU"), simple(T=5)

    class Pieces(nn.Module):
        def __init__(self):
            self.model = model

        def __call__(self, x):
            return in_pieces(self.model.rnn, x, u, 2)
    report = mg.gradcheck(Pieces(), x, frozen=True)
    assert report.method == "complex step" and report.worst.error < 1e-10 and len(report.rows) == 7
    assert mg.gradcheck(Pieces(), x, frozen=True, order=2, max_entries=4, directions=2).ok
    with pytest.raises(mg.GradcheckError, match="is wrong"):
        mg.gradcheck(Pieces(), x)
    with mg.bptt.record() as rec:
        found = mg.bptt.truncation(rec, [2], loss=mg.sum(model(x)[0] * u))
    Pieces()(x).backward()
    np.testing.assert_allclose(found.gradients["Wh"][0], model.rnn.layers["l0"].Wh.grad, rtol=1e-12)


def test_gradcheck_freezes_inside_of_a_cell():
    w = mg.tensor(0.5, requires_grad=True, name="w")

    def cell(h, x):
        h_next = w * mg.tanh(h.detach() + x)
        return h_next, h_next
    x = np.linspace(-1.0, 1.0, 8).reshape(4, 2)
    assert mg.gradcheck(lambda x: mg.scan(cell, mg.tensor(np.zeros(2)), x), x, frozen=True).ok
    assert not mg.gradcheck(lambda x: mg.scan(cell, mg.tensor(np.zeros(2)), x), x, raise_error=False).ok


def test_gradcheck_wants_the_same_detaches():
    calls = []

    def f(x):
        calls.append(1)
        return mg.sum(x * (x.detach() if len(calls) < 6 else x.detach() + x.detach()))
    with pytest.raises(mg.GradcheckError, match="detaches other values"):
        mg.gradcheck(f, np.ones(3), frozen=True)
