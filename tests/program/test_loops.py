"""A scan in a derived function: two loops in the text, equal to the engine for every cell of the table."""

import ast
import re
import sys
import warnings

import derive_cells as cells
import numpy as np
import pytest
from scan_cells import CELLS, random_row
from test_derived import assert_equal_trees, gradients_like

import minigrad as mg
from minigrad import nn
from minigrad.engine.pytree import flatten, map_leaves, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.timeloop.scan import ScanNotice, StepByStep

TOLERANCE = {np.float64: 1e-12, np.float32: 3e-5}
T, D, B, H = 5, 3, 2, 4
BATCH_LAST = [row for row in CELLS if row.batch_last]


def op_by_op(f, *args):
    """f(*args), with every scan in it step by step."""
    def refuse(*_):
        raise StepByStep("a test compares it with the loop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["minigrad.timeloop.scan"], "prepare", refuse)
        return f(*args)


def assert_derives(f, *inputs, dtype=np.float64):
    """Assert that the text of f equals the engine op by op and has no dead line; return it."""
    derived = mg.derive(f, *inputs)
    alone = {}
    exec(compile(derived.source, "alone.py", "exec"), alone)
    leaves, pattern = flatten(inputs)
    leaves = [np.asarray(leaf) for leaf in leaves]
    floats = [i for i, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]
    tensors = [Tensor(leaf, requires_grad=i in floats) for i, leaf in enumerate(leaves)]
    for x in derived.closed:
        x.grad = None
    expected = op_by_op(f, *unflatten(pattern, tensors))
    expected = map_leaves(lambda y: y if isinstance(y, Tensor) else Tensor(y), expected)
    d_y = gradients_like(expected, np.random.default_rng(0), dtype)
    sum(mg.sum(y * d) for y, d in zip(flatten(expected)[0], flatten(d_y)[0]) if y.dtype.kind == "f").backward()

    y, cache = alone["forward"](*unflatten(pattern, leaves), *(x.data for x in derived.closed))
    before = [np.copy(leaf) for leaf in flatten((cache, d_y))[0]]
    gradients = alone["backward"](d_y, cache)
    for leaf, copied in zip(flatten((cache, d_y))[0], before):
        np.testing.assert_array_equal(leaf, copied)
    wanted = [tensors[i] for i in floats] + [x for x in derived.closed if x.requires_grad]
    assert_equal_trees(y, map_leaves(lambda leaf: leaf.data, expected), TOLERANCE[dtype])
    assert_equal_trees(gradients, [np.zeros(x.shape, x.dtype) if x.grad is None else x.grad for x in wanted],
                       TOLERANCE[dtype])
    assert_no_dead_line(derived.source)
    return derived.source


def assert_no_dead_line(source):
    """Every name that a function binds, or fills an array of, is read in it."""
    for function in ast.parse(source).body[1:]:
        names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        filled = {node.value for node in ast.walk(function)
                  if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)}
        read = {node.id for node in names if isinstance(node.ctx, ast.Load) and node not in filled}
        bound = {node.id for node in names if isinstance(node.ctx, ast.Store) or node in filled}
        assert bound - {"_", "t"} <= read, f"{bound - read} in\n{source}"


def loops(source):
    return [line.strip() for line in source.splitlines() if line.lstrip().startswith("for ")]


# -- every cell ---------------------------------------------------------------------------------------------------


def over(row, scan=mg.scan, result=lambda state, ys: (state, ys), **options):
    """A scan of a cell as a function of all it needs."""
    def f(state, xs, weights, *mask):
        given = {"mask": mask[0]} if mask else {}
        return result(*scan(row.cell(weights), state, xs, **options, **given))
    return f


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("row", CELLS, ids=str)
def test_every_cell(row, reverse, dtype):
    source = assert_derives(over(row, reverse=reverse), *row.inputs(dtype), dtype=dtype)
    first, last = f"for t in {'reversed(range(T))' if reverse else 'range(T)'}:", \
        f"for t in {'range(T)' if reverse else 'reversed(range(T))'}:"
    assert loops(source) == [first, last]


@pytest.mark.parametrize("row", BATCH_LAST, ids=str)
def test_every_cell_with_a_mask(row):
    mask = np.array([[True, True], [True, False], [True, False], [True, True]])
    assert_derives(over(row), *row.inputs(), mask)
    assert_derives(over(row, mask=mask), *row.inputs())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("row", CELLS, ids=str)
def test_every_cell_of_which_a_part_is_used(row, steps):
    for result, none in ((lambda state, ys: state), "without_state"), ((lambda state, ys: ys), "no_output"):
        if str(row) != none:
            assert_derives(over(row, result=result), *row.inputs(steps=steps))


@pytest.mark.parametrize("row", CELLS, ids=str)
def test_the_text_is_as_long_for_many_steps_as_for_few(row):
    short, long = (mg.derive(over(row), *row.inputs(steps=steps)).source for steps in (4, 40))
    assert len(loops(short)) == len(loops(long)) == 2
    if str(row) not in ("counted", "constant_outputs", "large_constant"):  # they have arrays in the text
        assert long.split('"""')[2].replace("40", "4").split() == short.split('"""')[2].split()


# -- random cells ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(60))
def test_random_cells(seed):
    row, rng = random_row(seed), np.random.default_rng([seed, 1])
    steps, reverse, used = rng.integers(1, 4), bool(rng.integers(2)), rng.integers(3)
    masks = (rng.integers(0, 2, (steps, B)),) if rng.integers(3) == 0 else ()
    f = over(row, result=lambda state, ys: (state, ys, (state, ys))[used], reverse=reverse)
    assert_derives(f, *row.inputs(steps=steps), *masks)


# -- ops around a scan -------------------------------------------------------------------------------------------------


def array(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape) * 0.5


def rnn(W, b):
    def cell(h_prev, x):
        concat = np.concatenate([h_prev, x])
        h = np.tanh(W @ concat + b)
        return h, h
    return cell


def two_cells(x, h0, W, b, V, c):
    h_last, hs = mg.scan(rnn(W, b), h0, x)
    g_last, gs = mg.scan(rnn(V, c), h_last, hs)
    return g_last, (gs ** 2).mean()


def one_cell_twice(x, h0, W, b):
    h_last, hs = mg.scan(rnn(W, b), h0, x)
    h_first, gs = mg.scan(rnn(W, b), h_last, x, reverse=True)
    return h_first, hs * gs


def everything_computed(x, h0, W, b):
    return (mg.scan(rnn(W * W, b * 3.0), np.tanh(h0), np.exp(x))[1] ** 2).mean()


def constant_inputs(W, b):
    return mg.scan(rnn(W, b), np.ones((H, B)), array(T, D, B, seed=3))[1]


def no_gradient_for_x(x, W, b):
    return mg.scan(rnn(W, b), np.zeros((H, B)), x.detach())[0] + 0.0 * mg.sum(x)


def ahead_of_time(x, Wx, A, C):
    """Loop invariants, and a weight that is used outside too."""
    def cell(h, x):
        h = np.tanh(Wx[:, :D] @ x + (A @ C) @ h)
        return h, h
    return mg.scan(cell, np.zeros((H, B)), x)[1] + mg.sum(Wx)


def half_of_ys(x, W, V):
    """An unused y, and a weight that f computes."""
    V = np.tanh(V)

    def cell(h, x):
        h = np.tanh(W @ np.concatenate([h, x]))
        return h, (h, V @ h)
    return mg.scan(cell, np.zeros((H, B)), x)[1][0]


def scan_within_scan(x, h0, W, b):
    def outer(h, x):
        h, hs = mg.scan(rnn(W, b), h, x)
        return h, mg.max(hs, axis=0)
    return mg.scan(outer, h0, x)


def without_recording(x, W, b):
    with mg.no_grad():
        target = mg.scan(rnn(W, b), np.zeros((H, B)), x)[1]
    return (mg.scan(rnn(W, b), np.zeros((H, B)), x)[1] - target * 2.0) ** 2


def with_checkpoints(x, h0, W, b):
    return mg.scan(rnn(W, b), h0, x, checkpoint_every=2)


def named_t(t, W, b):
    """The loops have a t of their own."""
    hs = mg.scan(rnn(W, b), np.zeros((H, B)), t)[1]
    return hs * mg.sum(t)


X, H0, W, BIAS = array(T, D, B), array(H, B), array(H, H + D), array(H, 1)


@pytest.mark.parametrize("f, inputs, count", [
    (two_cells, (X, H0, W, BIAS, array(H, 2 * H), BIAS), 4),
    (one_cell_twice, (X, H0, W, BIAS), 4),
    (everything_computed, (X, H0, W, BIAS), 2),
    (constant_inputs, (W, BIAS), 2),
    (no_gradient_for_x, (X, W, BIAS), 2),
    (ahead_of_time, (X, array(H, D + 1), array(H, 2), array(2, H)), 2),
    (half_of_ys, (X, W, array(2, H)), 2),
    (scan_within_scan, (array(T, 3, D, B), H0, W, BIAS), 4),
    (without_recording, (X, W, BIAS), 3),
    (with_checkpoints, (X, H0, W, BIAS), 2),
    (named_t, (X, W, BIAS), 2),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_scan_among_other_things(f, inputs, count):
    assert len(loops(assert_derives(f, *inputs))) == count


@pytest.mark.parametrize("lengths", [None, [T, 2]], ids=["", "lengths"])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM], ids=lambda kind: kind.__name__)
def test_layers(kind, lengths):
    layer = kind(D, H, 2, bidirectional=True, learned_state=True, dtype=np.float64, rng=0)
    source = assert_derives(lambda x: layer(x, lengths=lengths)[0], array(T, B, D))
    assert len(loops(source)) == 8
    assert source.count("mask = np.array") == (0 if lengths is None else 2)  # once in each function


def test_gradients_that_nothing_needs_are_not_computed():
    def f(x, steps, W, b):
        def cell(h, x):
            x, n = x
            h = np.tanh(W @ np.concatenate([h, x]) + b * n)
            return h, W @ np.concatenate([h, x])
        return mg.scan(cell, np.zeros((H, B)), (x.detach(), steps))[0]
    source = mg.derive(f, X, np.arange(T), W, BIAS).source
    forward, backward = source.split("def backward")
    assert forward.count(" @ ") == 1 and "d_x" not in backward and "d_concat[4:]" not in backward


def test_loop_invariants_are_computed_before_the_loop():
    lines = mg.derive(ahead_of_time, X, array(H, D + 1), array(H, 2), array(2, H)).source.splitlines()
    product = next(i for i, line in enumerate(lines) if line.endswith("A @ C"))
    assert product < next(i for i, line in enumerate(lines) if line.lstrip().startswith("for t"))


# -- cells that cannot be a loop ---------------------------------------------------------------------------------------


def random_numbers(x, W, b):
    rng = np.random.default_rng(3)

    def cell(h, x):
        h = np.tanh(W @ np.concatenate([h, x]) + b) * rng.random((H, 1))
        return h, h
    return mg.scan(cell, np.zeros((H, B)), x)[1]


def branch_on_the_step(x, W, b):
    def cell(h, x):
        t, x = x
        h = np.tanh(W @ np.concatenate([h, x]) + b) if t < 2 else h * 0.5
        return h, h
    return mg.scan(cell, np.zeros((H, B)), (np.arange(T), x))[1]


@pytest.mark.parametrize("f, why", [(random_numbers, "new values at every call"), (branch_on_the_step, "a branch")])
def test_a_cell_that_differs_from_step_to_step_is_written_out(f, why):
    with pytest.warns(ScanNotice, match=f"scan runs .*{f.__name__}.*cell step by step: .*{why}") as notices:
        derived = mg.derive(f, X, W, BIAS)
    assert notices[0].filename == __file__
    assert not loops(derived.source)
    if f is random_numbers:  # drawn anew for each step
        assert len(set(re.findall(r"np\.array\(.*?\)", derived.source.split("def backward")[0]))) == T
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_derives(f, X, W, BIAS)


def test_a_gradient_of_a_gradient_is_right():
    """mg.grad within the function takes the scan step by step: its gradient has a gradient."""
    def f(x, W, b):
        d_W = mg.grad(lambda W: (mg.scan(rnn(W, b), np.zeros((H, B)), x)[1] ** 2).mean())(W)
        return mg.sum(d_W * d_W)
    derived = mg.derive(f, X, W, BIAS)
    _, cache = derived.forward(X, W, BIAS)
    assert_equal_trees(derived.backward(1.0, cache)[:3], op_by_op(mg.grad(f, (0, 1, 2)), X, W, BIAS))


@pytest.mark.parametrize("cell, error, says", [
    (lambda h, x: (h * float(x[0, 0]), h), mg.TraceError, r"turned into a number at .*test_loops.py:\d+"),
    (lambda h, x: (h if h[0, 0] > 0 else -h, h), mg.TraceError, r"branch .* at .*test_loops.py:\d+"),
    (lambda h, x: h, TypeError, "a cell returns a pair"),
    (lambda h, x: (h[:1], h), ValueError, r"state of shapes and dtypes \(4, 2\) float64 and returned \(1, 2\)"),
    (lambda h, x: (h @ x, h), ValueError, r"matmul: a \(4, 2\), b \(3, 2\) do not go together"),
], ids=["float", "branch", "no pair", "shape of the state", "matmul"])
def test_a_wrong_cell_gets_the_same_errors_as_elsewhere(cell, error, says):
    with pytest.raises(error, match=says):
        mg.derive(lambda h, x: mg.scan(cell, h, x), H0, X)


def test_a_mask_that_does_not_fit():
    with pytest.raises(ValueError, match=r"mask has shape \(3, 2\) and must be \(T, batch\) = \(5, batch\)"):
        mg.derive(lambda h, x, mask: mg.scan(rnn(W, BIAS), h, x, mask=mask), H0, X, np.ones((3, 2)))


def test_the_planned_source_of_a_cell_with_a_scan_within():
    def cell(h, x):
        h, hs = mg.scan(rnn(W, BIAS), h, x)
        return h, hs
    derived = mg.derive(cell, H0, X)
    assert loops(derived.source) == ["for t in range(T):", "for t in reversed(range(T)):"]
    assert "steps" in derived.planned_source


def test_the_trace_leaves_nothing_behind():
    """The same function again: the same bytes. And scan itself, after it, is as before."""
    args = cells.examples()[cells.lstm_layer]
    texts = {mg.derive(cells.lstm_layer, *args).source for _ in range(2)}
    assert len(texts) == 1
    assert all(isinstance(y, np.ndarray) for y in flatten(cells.lstm_layer(*args))[0])


def test_a_cell_that_differentiates_at_an_array_of_its_own_stays_a_loop():
    """A tensor that the cell makes has other indices at every call; its sizes must not name them."""
    c = np.full((H, B), 0.5)

    def layer(h, xs):
        def cell(h, x):
            return h, mg.grad(lambda z: np.sum(np.tanh(z * x) * z))(c)
        return mg.scan(cell, h, xs)
    assert "for t in range(T):" in assert_derives(layer, np.ones((H, B)), np.ones((T, H, B)))
