"""Test gradcheck itself: each rule of each op in turn is made wrong by a thousandth. gradcheck must fail each time, and
name only that rule."""

import sys
import warnings

import numpy as np
import pytest
from cases import CASES

import minigrad as mg
from minigrad import nn
from minigrad.check.faults import CallSites, nodes_behind
from minigrad.engine.op import OPS, VJP
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.engine.tensor import wrap
from minigrad.timeloop.cache import Programs

FACTOR = 1.001


def parts(d):
    return list(d) if isinstance(d, (tuple, list)) else [d]


def rows_with(op, position):
    """The rows of the table that call this op with a nonzero gradient through this argument. If a is larger everywhere,
    the gradient of b in max(a, b) is 0, and a scaled rule is still right."""
    rng = np.random.default_rng(5)
    rule = next(vjp.plain for vjp in op.vjps if vjp.position == position)
    for case in CASES:
        if case.name == op.name:
            inputs = [wrap(x, tracked=x.dtype.kind == "f") for x in case.inputs()]
            with CallSites() as sites:
                outputs = [y for y in parts(case.ours(*inputs)) if y._tracked]
            for call in [sites.calls[node._index] for node in nodes_behind(outputs)]:
                if call.node._op is op and call.node._mask >> position & 1:
                    g = [rng.uniform(0.5, 1.5, np.shape(y)) for y in parts(call.y)]
                    g = tuple(g) if isinstance(call.y, tuple) else g[0]
                    if any(np.any(d) for d in parts(rule(g, call.y, call.node._inputs, call.node._metadata))):
                        yield case


def with_fault(op, position):
    """The op's VJPs with one rule scaled, also where it adds into an array."""
    def scaled(rule):
        def wrong(*arguments):
            d = rule(*arguments)
            return type(d)(part * FACTOR for part in d) if isinstance(d, (tuple, list)) else d * FACTOR
        return wrong

    def with_into(into):
        return into and (lambda total, g, *rest: into(total, g * FACTOR, *rest))

    return [vjp._replace(recorded=scaled(vjp.recorded), plain=scaled(vjp.plain), into=with_into(vjp.into))
            if vjp.position == position else vjp for vjp in op.vjps]


RULES = [(op, vjp.position) for op in OPS.values() if op.forward.__module__.startswith("minigrad.")
         for vjp in op.vjps]


def rule_name(op, position):
    return f"{op.name}.d{op.arrays[position]}"


@pytest.fixture
def planted(monkeypatch):
    """planted(op, position) makes one rule wrong during a test, also in the programs that scan derives."""
    monkeypatch.setattr(sys.modules["minigrad.timeloop.compiled"], "programs", Programs(limit=128))

    def plant(op, position):
        monkeypatch.setattr(op, "vjps", with_fault(op, position))
    return plant


def assert_named(name, f, *inputs, **options):
    with pytest.raises(mg.GradcheckError) as caught:
        mg.gradcheck(f, *inputs, **options)
    report = caught.value.report
    assert not report.ok
    assert [blamed for blamed, _ in report.blamed] == [name]
    assert abs(report.blamed[0][1] - (FACTOR - 1)) < 1e-5
    assert name in str(report)


@pytest.mark.parametrize("op, position", RULES, ids=[rule_name(*rule) for rule in RULES])
def test_a_scaled_rule_is_found_and_named(op, position, planted):
    rows = list(rows_with(op, position))
    assert rows, "no row would show it"
    planted(op, position)
    for case in rows:
        assert_named(rule_name(op, position), case.ours, *case.inputs())
    assert_named(rule_name(op, position), rows[0].ours, *rows[0].inputs(), order=2)


def cell(parameters, x, a_prev, c_prev):
    """An LSTM step, large enough to be checked along random directions."""
    z = parameters["W"] @ mg.concatenate([a_prev, x]) + parameters["b"]
    f, i, o = mg.split(mg.sigmoid(z[:36]), 3)
    c = f * c_prev + i * mg.tanh(z[36:])
    return o * mg.tanh(c), c, mg.softmax(mg.einsum("ij,jk->ik", parameters["V"], o), axis=0)


def cell_inputs():
    rng = np.random.default_rng(3)
    return ({"W": rng.standard_normal((48, 19)), "b": rng.standard_normal((48, 1)), "V": rng.standard_normal((5, 12))},
            *[rng.standard_normal((n, 4)) for n in (7, 12, 12)])


RULES_OF_THE_CELL = [("matmul", 0), ("matmul", 1), ("concatenate", 0), ("add", 0), ("add", 1), ("split", 0),
                     ("sigmoid", 0), ("getitem", 0), ("tanh", 0), ("multiply", 0), ("multiply", 1), ("softmax", 0)]


@pytest.mark.parametrize("name, position", RULES_OF_THE_CELL)
def test_a_scaled_rule_is_found_deep_in_a_recurrent_cell(name, position, planted):
    planted(OPS[name], position)
    assert_named(rule_name(OPS[name], position), cell, *cell_inputs())


def test_the_cell_passes_without_a_fault():
    assert mg.gradcheck(cell, *cell_inputs(), order=2).ok


# -- inside a scan --------------------------------------------------------------------------------------------


def rules_of_cell(kind):
    """{name: (op, position)} of all rules on the path of the gradients through a step of the layer's cell."""
    cell = kind(3, 4, rng=0).layers["l0"]
    state, x = map_leaves(lambda leaf: mg.tensor(leaf, requires_grad=True), (cell.initial_state(2), np.ones((3, 2))))
    nodes = nodes_behind(flatten(cell.cell(state, x))[0])
    return {rule_name(node._op, vjp.position): (node._op, vjp.position) for node in nodes for vjp in node._op.vjps
            if node._op.variadic or node._mask >> vjp.position & 1}


IN_CELLS = {f"{kind.__name__} {name}": (kind, rule) for kind in (nn.RNN, nn.LSTM, nn.GRU)
            for name, rule in rules_of_cell(kind).items()}


def test_the_cells_use_these_rules():
    assert sorted(IN_CELLS) == sorted(
        [f"{kind} {rule}" for kind in ("RNN", "LSTM", "GRU")
         for rule in ("add.da", "add.db", "concatenate.darrays", "matmul.da", "matmul.db", "tanh.dx")]
        + [f"{kind} {rule}" for kind in ("LSTM", "GRU")
           for rule in ("multiply.da", "multiply.db", "sigmoid.dx", "split.dx")]
        + ["LSTM getitem.dx", "GRU subtract.db"])


@pytest.mark.parametrize("key", IN_CELLS)
def test_a_scaled_rule_is_found_inside_the_cell_of_a_layer(key, planted):
    kind, (op, position) = IN_CELLS[key]
    planted(op, position)
    layer, x = kind(3, 4, rng=0), np.random.default_rng(0).normal(size=(5, 2, 3))
    assert_named(rule_name(op, position), layer, x)


@pytest.mark.filterwarnings("ignore:scan runs")
@pytest.mark.parametrize("order, bidirectional, lengths", [(2, False, None), (1, True, None), (1, False, [3, 5])])
def test_a_fault_is_found_in_every_kind_of_scan(order, bidirectional, lengths, planted):
    planted(OPS["sigmoid"], 0)
    layer, x = nn.GRU(2, 3, bidirectional=bidirectional, rng=0), np.random.default_rng(0).normal(size=(5, 2, 2))
    assert_named("sigmoid.dx", lambda x: layer(x, lengths=lengths), x, order=order)


def test_a_rule_that_is_wrong_at_one_step_is_named_with_the_step(monkeypatch):
    op = OPS["tanh"]

    def rule(g, y, x, m):
        return g * (1.0 - y * y) * np.where(np.abs(y) > 0.9, 1.001, 1.0)
    monkeypatch.setattr(op, "vjps", [VJP(0, rule, rule, (-1,))])
    monkeypatch.setattr(sys.modules["minigrad.timeloop.compiled"], "programs", Programs(limit=128))

    def cell(h, x):
        h = 0.5 * h + mg.tanh(x)
        return h, h
    x = np.full((40, 2), 0.3)
    x[33] = 2.0
    with pytest.raises(mg.GradcheckError) as caught:
        mg.gradcheck(lambda x: mg.scan(cell, np.zeros(2), x), x)
    report = caught.value.report
    assert [rule for rule, _ in report.blamed] == ["tanh.dx"]
    assert report.locations["tanh.dx"].startswith(f"in 1 of 40 calls, as at {__file__}:")
    assert report.locations["tanh.dx"].endswith("in cell, t = 33") and report.locations["tanh.dx"] in str(report)


def test_a_program_that_is_wrong_by_itself_is_blamed_as_a_whole(monkeypatch):
    """If every rule is right but the program that scan runs is wrong, scan itself is blamed."""
    module = sys.modules["minigrad.timeloop.compiled"]
    right = module.first_order
    monkeypatch.setattr(module, "first_order", lambda *given: [d * FACTOR for d in right(*given)])
    monkeypatch.setattr(module, "programs", Programs(limit=128))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert_named("scan.dinputs", nn.RNN(3, 4, rng=0), np.random.default_rng(0).normal(size=(5, 2, 3)))
    assert not [str(w.message) for w in warned if "complex" in str(w.message)]  # it is tried, and seen to be unfit


def test_a_fault_that_only_the_second_order_shows(monkeypatch):
    """A rule may be right and its own derivative missing: here sign, which passes no gradient, replaces x / |x|."""
    op = OPS["square"]

    def rule(g, y, x, m):
        return 2.0 * g * mg.sqrt(mg.square(x[0])).detach() * mg.sign(x[0])
    monkeypatch.setattr(op, "vjps", [VJP(0, rule, lambda g, y, x, m: 2.0 * g * x[0].data, (0,))])
    x = np.random.default_rng(0).standard_normal(3)
    assert mg.gradcheck(mg.square, x).ok
    with pytest.raises(mg.GradcheckError) as caught:
        mg.gradcheck(mg.square, x, order=2)
    assert caught.value.report.worst.order == 2
