"""A few hundred random cells, and faults that the fuzzer must find."""

import numpy as np
import pytest
from fuzz import OPS, Case, check, failure, make

import minigrad as mg

SEEDS, CHUNK = 240, 20


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_random_cells_equal_the_loop_everywhere(start):
    problems = {seed: check(seed) for seed in range(start, start + CHUNK)}
    assert not any(problems.values()), "\n\n".join(filter(None, problems.values()))
    assert list(problems.values()).count("") <= CHUNK // 4, "too many seeds could not be compared"


def test_every_op_of_the_table_is_used_by_some_seed():
    written = dict.fromkeys(text for seed in range(1500) for _, text, _ in make(seed).lines)
    for op in OPS:
        assert any(map(op.wrote, written)), f"no cell contains {op.text}: no shapes fit it"


def test_a_seed_is_one_case():
    one, other = make(7), make(7)
    assert one.text() == other.text() and all(np.array_equal(one.arrays[k], other.arrays[k]) for k in one.arrays)


def case(lines, new, out, **arrays):
    """A cell of one state h0, one input x0 and one weight w0."""
    inputs = {"h0": np.full((2, 2), 0.5), "x0": np.full((3, 2, 2), 0.3), "w0": np.array([[0.5, 0.2], [-0.4, 0.7]])}
    lines = [(f"v{i}", text, quiet) for i, (text, quiet) in enumerate(lines)]
    return Case("h0", "x0", inputs | arrays, ["w0"], {"w0"}, {"h0", "x0"}, 1, {}, lines, new, out)


def wrong_transpose(monkeypatch):
    """Fault: a pass takes every transpose for that of a matrix."""
    from minigrad.program import simplify
    order = simplify.order_of_axes
    monkeypatch.setattr(simplify, "order_of_axes", lambda axes, n: order(None, n))


def one_identity(monkeypatch):
    """Fault: values with equal expressions are merged, even if a gradient flows to only one of them."""
    from minigrad.program.simplify import Program
    monkeypatch.setattr(Program, "detached", lambda self, x: x)


def late_tracking(monkeypatch):
    """Fault: a pull reads the tracked flags when it runs, not when it is recorded."""
    import sys
    loops = sys.modules["minigrad.timeloop.compiled"]
    pulled_back = loops.pulled_back
    monkeypatch.setattr(loops, "pulled_back", lambda run, g, inputs, tracked: pulled_back(
        run, g, inputs, [isinstance(x, mg.Tensor) and x._tracked for x in inputs]))


@pytest.mark.parametrize("fault, small", [
    (wrong_transpose, case([("np.transpose(h0 * x0, (0, 1))", False), ("w0 @ v0", False)], "v1", "v0")),
    (one_identity, case([("np.tanh(w0 @ h0 + x0)", False), ("detach(v0)", False)], "v0", "v1")),
    (one_identity, case([("np.tanh(w0 @ h0 + x0)", False), ("np.tanh(w0 @ h0 + x0)", True)], "v0", "v1")),
    (late_tracking, case([("np.tanh(w0 @ h0 + x0)", False)], "v0", "v0"))],
    ids=["transpose", "detached value", "value under no_grad", "late tracking"])
def test_the_fuzzer_finds_a_fault(fault, small, monkeypatch):
    assert failure(small) is None
    fault(monkeypatch)
    assert failure(small)
