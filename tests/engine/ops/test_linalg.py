"""Products compared with loops, einsum with random subscripts, and error messages."""

import numpy as np
import pytest

import minigrad as mg


@pytest.mark.parametrize("seed", range(40))
def test_einsum_of_random_subscripts(seed):
    """Up to three operands over four letters, some of their axes of length 1, letters repeated, an output or none."""
    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcd", rng.integers(1, 4, 4)))
    operands = ["".join(rng.choice(list("abcd"), rng.integers(0, 4))) for _ in range(rng.integers(1, 4))]
    arrays = []
    for term in operands:
        alone = {c: 1 if rng.random() < 0.15 else n for c, n in sizes.items()}
        arrays.append(rng.standard_normal([alone[c] for c in term]))
    used = sorted(set("".join(operands)))
    output = "".join(rng.permutation(used)[:rng.integers(0, len(used) + 1)]) if used else ""
    subscripts = ",".join(operands) + ("->" + output if rng.random() < 0.7 else "")
    try:
        expected = np.einsum(subscripts, *arrays)
    except ValueError as refusal:
        raise AssertionError(f"a seed that NumPy refuses tests nothing: {subscripts}") from refusal
    np.testing.assert_allclose(mg.einsum(subscripts, *arrays), expected, rtol=1e-12, atol=1e-13, err_msg=subscripts)
    mg.gradcheck(lambda *arrays: mg.einsum(subscripts, *arrays), *arrays)


def test_the_gradient_of_a_product_is_a_product():
    """dL/da = g bᵀ and dL/db = aᵀ g, written with loops over the stack and summed where an axis was broadcast."""
    rng = np.random.default_rng(0)
    a, b, g = rng.standard_normal((2, 1, 3, 4)), rng.standard_normal((5, 4, 2)), rng.standard_normal((2, 5, 3, 2))
    d_a, d_b = mg.grad(lambda a, b: (a @ b * g).sum(), (0, 1))(a, b)
    np.testing.assert_allclose(d_a[:, 0], [sum(g[i, j] @ b[j].T for j in range(5)) for i in range(2)])
    np.testing.assert_allclose(d_b, [sum(a[i, 0].T @ g[i, j] for i in range(2)) for j in range(5)])


def test_a_quadratic_form():
    rng = np.random.default_rng(0)
    A, v = rng.standard_normal((3, 3)), rng.standard_normal(3)
    np.testing.assert_allclose(mg.grad(lambda v: v @ A @ v)(v), (A + A.T) @ v)
    np.testing.assert_allclose(mg.hessian(lambda v: v @ A @ v)(v), A + A.T)
    np.testing.assert_allclose(mg.grad(lambda A: v @ A @ v)(A), np.outer(v, v))


@pytest.mark.parametrize("call, error, message", [
    (lambda x: x @ x, ValueError, r"matmul: a \(2, 3\), b \(2, 3\) do not go together: the last axis of a must be as"),
    (lambda x: mg.dot(x, x), ValueError, r"matmul: a \(2, 3\), b \(2, 3\)"),
    (lambda x: x @ 2.0, ValueError, r"matmul: a \(2, 3\), b \(\) do not go together"),
    (lambda x: mg.tensordot(x, x, 1), ValueError, r"tensordot: axes \(1,\) of \(2, 3\) and \(0,\) of \(2, 3\) differ"),
    (lambda x: mg.tensordot(x, x, 3), np.exceptions.AxisError, "tensordot: axis -3 is out of bounds"),
    (lambda x: mg.einsum("ij,jk->ik", x, x), ValueError,
     r"einsum: 'ij,jk->ik' does not fit the shapes \(2, 3\), \(2, 3\): 'j' has the lengths 3 and 2"),
    (lambda x: mg.einsum("ij->iz", x), ValueError, "the output names a letter twice, or one that no operand has"),
    (lambda x: mg.einsum("ij->ii", x), ValueError, "the output names a letter twice"),
    (lambda x: mg.einsum("ijk->i", x), ValueError, "'ijk' names 3 axes of an operand with 2"),
    (lambda x: mg.einsum("i->i", x), ValueError, "'i' names 1 axes of an operand with 2"),
    (lambda x: mg.einsum("ij", x, x), ValueError, "it names 1 operands"),
    (lambda x: mg.einsum("i...->i", x), ValueError, r"axes under '\.\.\.', but the output does not"),
    (lambda x: mg.einsum("...i,...i->...", x, np.ones((4, 3))), ValueError, r"the axes of \.\.\. do not broadcast"),
    (lambda x: mg.einsum("i1->i", x), ValueError, "subscripts are letters"),
    (lambda x: mg.einsum("ij->i->j", x), ValueError, "subscripts are letters"),
    (lambda x: mg.einsum("......->", x), ValueError, "subscripts are letters"),
    (lambda x: mg.einsum(x, "ij"), TypeError, "einsum takes subscripts, such as 'ij,jk->ik', and arrays; or after"),
])
def test_bad_input_gets_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(mg.tensor(np.ones((2, 3)), requires_grad=True))
