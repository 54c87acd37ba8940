"""An op of one block goes everywhere with no second edit, and no pass or printer tests the name of an op."""

import ast
from pathlib import Path

import numpy as np
import pytest
from fuzz import loop as by_loop

import minigrad as mg
from minigrad.engine.op import OPS, op
from minigrad.engine.operators import NUMPY

PACKAGE = Path(mg.__file__).parent


@mg.op(np=np.hypot, da=lambda g, y, a: g * a / y, db=lambda g, y, b: g * b / y)
def hypotenuse(a, b):
    """y = √(a² + b²), elementwise.   dL/da = g a / y,  dL/db = g b / y."""
    return np.hypot(a, b)


del NUMPY[np.hypot]  # NumPy's own function stays without an op for the other tests


@mg.op(elementwise=True, dx=lambda g, y: g * y * (1.0 - y))
def logistic_of(x):
    """y = 1 / (1 + e⁻ˣ), elementwise, by its own forward.   dL/dx = g y (1 − y)."""
    return 1.0 / (1.0 + np.exp(-x))


OURS = {"a ufunc": lambda h, z: mg.tanh(hypotenuse(z, 1.0 + h * h) - 1.0),
        "an own forward": lambda h, z: logistic_of(z) * h + logistic_of(h + z)}
rng = np.random.default_rng(0)
W, H, XS = rng.normal(size=(3, 3)), rng.normal(size=(3, 2)), rng.normal(size=(5, 3, 2))


def cell_of(use, w):
    def cell(h, x):
        h = use(h, w @ h + x)
        return h, h
    return cell


def gradients(scan, use):
    leaves = [mg.tensor(x, requires_grad=True) for x in (W, H, XS)]
    final, ys = scan(cell_of(use, leaves[0]), *leaves[1:])
    (mg.sum(final * final) + mg.sum(ys * ys)).backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("use", OURS)
def test_an_op_of_one_block_goes_everywhere(use):
    use = OURS[use]
    expected = gradients(by_loop, use)
    mg.gradcheck(lambda h, z: mg.sum(use(h, z)), H, XS[0])
    for ours, theirs in zip(gradients(mg.scan, use), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    with mg.bptt.record() as recording:
        for ours, theirs in zip(gradients(mg.scan, use), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert len(recording) == 1
    w = mg.tensor(W, requires_grad=True)
    derived = mg.derive(lambda h, xs: mg.scan(cell_of(use, w), h, xs), H, XS)
    (final, ys), cache = derived.forward(H, XS)
    d_h, d_xs, d_w = derived.backward((2 * final, 2 * ys), cache)
    for ours, theirs in zip((d_w, d_h, d_xs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert mg.graph(use, H, XS[0])


@mg.op(dx=lambda g, axes: g * axes)
def times_axes(x, *, axes=2):
    return x * axes


@mg.op(dx=lambda g, x_shape, axis: mg.broadcast_to(g, x_shape))
def sum_of_all(x, *, axis="all"):
    return np.sum(x)


@mg.op(dx=lambda g, index: g * len(index))
def times_length(x, *, index="ab"):
    return x * len(index)


@mg.op(dx=lambda g, shape: g * 2.0)
def doubled(x, *, shape="round"):
    return x * 2.0


@pytest.mark.parametrize("f", [times_axes, sum_of_all, times_length, doubled], ids=lambda f: f.__name__)
def test_metadata_may_mean_something_else_than_in_numpy(f):
    derived = mg.derive(lambda x: f(x) * 1.5, H)
    y, cache = derived.forward(H)
    np.testing.assert_array_equal(y, f(H) * 1.5)
    (d,), (expected,) = derived.backward(np.ones(y.shape), cache), mg.vjp(f, H)[1](np.full(y.shape, 1.5))
    np.testing.assert_array_equal(d, expected)


def test_a_ufunc_is_written_into_its_buffer_and_computed_for_a_block_of_steps():
    w = mg.tensor(W, requires_grad=True)
    source = mg.derive(cell_of(OURS["a ufunc"], w), H, XS[0]).planned_source
    (line,) = [line for line in source.splitlines() if line.lstrip().startswith("hypot(")]
    assert line.count(",") == 2 and "hypot" in next(row for row in source.splitlines() if row.startswith("from numpy"))


def test_a_linear_op_whose_rule_reads_an_input_is_refused():
    with pytest.raises(TypeError, match=r"op \w+: the rule of a linear op must not read an input"):
        @op(linear=True, dx=lambda g, x: 2.0 * g * x)
        def square_but_linear(x):
            return x * x


@pytest.mark.parametrize("file", sorted(
    p.relative_to(PACKAGE).as_posix() for room in ("program", "printers", "timeloop", "microscope")
    for p in (PACKAGE / room).rglob("*.py")))
def test_no_pass_or_printer_compares_the_name_of_an_op(file):
    """Comparisons of something called `name` with the name of an op, as `value.op.name == "matmul"`."""
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            about_name = any(getattr(side, "attr", getattr(side, "id", "")) == "name" for side in sides)
            names = {leaf.value for side in sides for leaf in ast.walk(side)
                     if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}
            assert not (about_name and names & OPS.keys()), f"{file}:{node.lineno} compares with {names & OPS.keys()}"
