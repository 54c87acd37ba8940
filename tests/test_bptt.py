"""bptt: every recorded value and gradient against a loop written out, in minigrad for every cell and in PyTorch for the
layers; and what is asked of a recording, against brute force."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
from test_scan import WAYS, assert_same, every_cell, mask_for, mixed, outcome

import minigrad as mg
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
