"""bptt: every recorded value and gradient against a loop written out, in minigrad for every cell and in PyTorch for the
layers; and what is asked of a recording, against brute force."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
from test_scan import WAYS, assert_same, every_cell, mask_for, mixed, outcome

import minigrad as mg
from minigrad import nn
from minigrad.tree import flatten, map_leaves, unflatten


def scan_recorded(cell, state, xs, **options):
    """scan inside of a recording; its record stays in `scan_recorded.record`."""
    with mg.bptt.record() as rec:
        results = mg.scan(cell, state, xs, **options)
    (scan_recorded.record,) = rec
    return results


# -- the graph is as without a recording ----------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("way", WAYS)
def test_a_recorded_scan_gives_what_scan_gives(row, way):
    if "mask" in way and not row.batch_last:
        pytest.skip("a mask has no meaning for this cell")
    options, inputs = dict(WAYS[way]), row.inputs()
    if "mask" in way:
        options["mask"] = mask_for(4, 2)
    for wanted in ((True, True, True), (False, False, True), (True, False, False)):
        assert_same(outcome(scan_recorded, row.cell, inputs, wanted, **options),
                    outcome(mg.scan, row.cell, inputs, wanted, **options))


@every_cell
def test_float32_stays_float32_when_recorded(row):
    ours = outcome(scan_recorded, row.cell, row.inputs(dtype=np.float32))
    assert_same(ours, outcome(mg.scan, row.cell, row.inputs(dtype=np.float32)), 1e-5)
    record = scan_recorded.record
    for name, value in record.values.items():
        assert value.dtype.kind != "f" or value.dtype == record.grads[name].dtype == np.float32


# -- every named value of every cell, against the loop written out ---------------------------------------------------


@contextmanager
def locals_of(cell):
    """What the cell's variables hold when it returns, of each call."""
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
    """(loss, what the variables of the cell held at each step in the order of xs): op by op, with retain_grad."""
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
@pytest.mark.parametrize("way", WAYS)
def test_every_named_value_and_its_gradient(row, way):
    """A variable that is assigned again has its second value as name_2 in the recording: one of them must be it."""
    if "mask" in way and not row.batch_last:
        pytest.skip("a mask has no meaning for this cell")
    options, trees = dict(WAYS[way]), row.inputs()
    if "mask" in way:
        options["mask"] = mask_for(4, 2)

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
    """(output, final states, {path: what its cell computed at each step, weights of that step among it})"""
    named = {}
    xs, finals = [torch.where(m, step.T, 0.0) for step, m in zip(x, mask)], []
    for name, cell in model.rnn.layers.items():
        weights = {key: torch.tensor(p.data, requires_grad=True) for key, p in cell.named_parameters()}
        if not name.endswith("_reverse"):
            outputs = []
        state = [torch.zeros(5, x.shape[1], dtype=torch.float64, requires_grad=True) for _ in cell.states]
        steps, ys = [None] * len(xs), [None] * len(xs)
        for t in reversed(range(len(xs))) if name.endswith("_reverse") else range(len(xs)):
            own = {key: w * 1.0 for key, w in weights.items()}  # so that each use has a gradient of its own, of x too
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
    count = len(finals) // len(model.rnn.layers)  # of states of a cell
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
