"""Equations in LaTeX: the rule of the symbols, every kind of cell, and whether LaTeX can typeset them."""

import contextlib
import re
import sys
from html import unescape
from pathlib import Path

import equations
import fuzz
import numpy as np
import pytest
from derive_cells import document, examples, lstm, lstm_layer

import minigrad as mg
from minigrad import nn
from minigrad.engine.pytree import flatten
from minigrad.printers.latex import number, symbol

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "examples"))
import own_cells  # noqa: E402


def rows(latex):
    """[(left, right)] of the equations of a text, which is one `aligned` environment."""
    head, *lines, tail = latex.splitlines()
    assert (head, tail) == (r"\begin{aligned}", r"\end{aligned}")
    return [re.sub(r" \\\\(\[2ex\])?$", "", line).split(" &= ") for line in lines]


def typeset(latex):
    """Typeset every equation by matplotlib, if it is installed; it raises for what is not LaTeX."""
    mathtext = pytest.importorskip("matplotlib.mathtext")
    parser = mathtext.MathTextParser("path")
    for left, right in rows(latex):
        parser.parse(f"${left} = {right}$")


@pytest.mark.quick
@pytest.mark.parametrize("name, expected", [
    ("c_next", r"c^{\langle t \rangle}"), ("a_prev", r"a^{\langle t-1 \rangle}"), ("x_t", r"x^{\langle t \rangle}"),
    ("xt", r"x^{\langle t \rangle}"), ("ft", r"f^{\langle t \rangle}"), ("cct", r"\tilde{c}^{\langle t \rangle}"),
    ("Wf", "W_{f}"), ("h0", "h_{0}"), ("x12", "x_{12}"), ("gain_h", r"\mathrm{gain}_{h}"), ("h", "h"),
    ("concat", r"\mathrm{concat}"), ("yt_pred", r"y_{\mathrm{pred}}^{\langle t \rangle}"), ("gamma", r"\gamma"),
    ("alpha_t", r"\alpha^{\langle t \rangle}"), ("h_next_2", r"h_{2}^{\langle t \rangle}"), ("_x", r"\mathrm{\_x}"),
    ("x__y", r"\mathrm{x\_\_y}"), ("out", r"\mathrm{out}"),
])
def test_a_name_becomes_a_symbol(name, expected):
    assert symbol(name) == expected


@pytest.mark.quick
@pytest.mark.parametrize("x, expected", [
    (1.0, "1"), (0.5, "0.5"), (-2, "-2"), (1e-5, "10^{-5}"), (2.5e-7, r"2.5 \cdot 10^{-7}"), (np.float32(0.25), "0.25"),
    (np.inf, r"\infty"), (-np.inf, r"-\infty"), (np.nan, r"\mathrm{NaN}"), (True, r"\mathrm{True}"),
])
def test_a_number(x, expected):
    assert number(x)[0] == expected


X, W, H, V = np.ones((3, 2)), np.ones((2, 3)), np.ones((3, 2)), np.ones(3)


@mg.op(dx=lambda g, times: g * times)
def my_op(x, *, times=1.0):
    return x * times


FORMULAS = [
    (lambda x, h: np.tanh(x * (h + 1.0)), (X, H), r"\tanh\left(x \odot t_{1}\right)"),
    (lambda x, h: x * h * 2.0, (X, H), r"2 \, \left(x \odot h\right)"),
    (lambda x, h: 2.0 * (x - (h - x)), (X, H), r"2 \, \left(x - \left(h - x\right)\right)"),
    (lambda x: x * x, (X,), "x^{2}"), (lambda x: np.tanh(x) ** 2, (X,), r"\left(\tanh\left(x\right)\right)^{2}"),
    (lambda x: -x * x, (X,), r"t_{1} \odot x"), (lambda x, h: x / (h + 1.0), (X, H), r"\frac{x}{t_{1}}"),
    (lambda x: W @ (x + 1.0), (X,), r"\mathbf{C}_{1} \, \left(x + 1\right)"),
    (lambda x: W @ X @ x[:2], (X,), r"\mathbf{C}_{1} \, x_{{:}2}"),
    (lambda x: V * (-x[:, 0]), (X,), r"\mathbf{C}_{1} \odot \left(-x_{{:}, 0}\right)"),
    (lambda x, h: x.T @ h, (X, H), r"x^{\top} \, h"), (lambda x: x[1:], (X,), r"x_{1{:}}"),
    (lambda x, i: x[:, i], (X, np.array([1, 0])), r"x_{{:}, i}"),
    (lambda x, i: x[i] * 2.0, (X, np.array([1, 0])),
     r"\operatorname{scatter}_{i}\left(2 \, \frac{\partial L}{\partial \mathrm{output}}\right)"),
    (lambda x: x[:, 0], (X,), r"x_{{:}, 0}"), (lambda x, h: np.concatenate([x, h]), (X, H), r"\left[x; h\right]"),
    (lambda x, h: np.concatenate([x, h], axis=1), (X, H), r"\left[x, h\right]"),
    (lambda x: np.sum(x * x, axis=0), (X,), r"\sum_{\mathrm{axis}\,0} x^{2}"),
    (lambda x: np.abs(x), (X,), r"\left|x\right|"),
    (lambda x: np.sqrt(x) + np.square(x), (X,), r"\sqrt{x} + x^{2}"),
    (lambda x, h: np.where(x > h, x, 0.0), (X, H), r"\operatorname{where}\left(t_{1}, x, 0\right)"),
    (lambda x: my_op(x), (X,), r"\operatorname{my\_op}\left(x\right)"),
    (lambda x: my_op(x, times=2.0), (X,), r"\operatorname{my\_op}_{\mathrm{times}=\mathrm{2.0}}\left(x\right)"),
    (lambda x: x + np.array([1.0, 2.0]), (X,), r"x + \mathbf{C}_{1}"),
]


@pytest.mark.parametrize("f, arguments, expected", FORMULAS, ids=[expected for _, _, expected in FORMULAS])
def test_formulas(f, arguments, expected):
    latex = mg.derive(f, *arguments).latex
    assert expected in [right for _, right in rows(latex)]
    typeset(latex)


def cell_of_the_page(x_t, a_prev, c_prev, parameters):
    a_next, c_next, _ = document(x_t, a_prev, c_prev, parameters)
    return a_next, c_next


def in_the_notation_of_the_page(latex):
    """A formula as docs/document.md writes it: ∂L/∂z_o as dzo, ⊙ as ∘."""
    for gate, base in (("f", "f"), ("i", "i"), ("o", "o"), ("c", r"\tilde{c}")):
        latex = latex.replace(d(rf"z_{{{base}}}^{{\langle t \rangle}}"), f"dz{gate}")
        latex = latex.replace(d(f"W_{{{gate}}}"), f"dW{gate}")
    for name in ("c_next", "a_prev", "c_prev", "concat", "x_t"):
        latex = latex.replace(d(symbol(name)), {"c_next": "dc", "x_t": "dxt"}.get(name, f"d{name}"))
    latex = latex.replace(d(symbol("a_next")), "da_next").replace(rf"\delta {symbol('c_next')}", "dc_next")
    latex = latex.replace(r"\left", "").replace(r"\right", "")
    for name in ("c_next", "c_prev", "ft", "it", "ot", "cct", "concat", "Wf", "Wi", "Wo", "Wc"):
        latex = latex.replace(symbol(name), name)
    latex = re.sub(r"\((\w+)\)_{(.*)}$", lambda m: f"{m[1]}[{m[2].replace('{:}', ':').replace('{a}', 'a')}]", latex)
    for ours, theirs in ((r"\odot", "∘"), ("(cct)^{2}", "cct²"), ("^{2}", "²"), (r"^{\top}", "ᵀ"), (r" \, ", " "),
                         (r"\tanh", "tanh"), (" - ", " − ")):
        latex = latex.replace(ours, theirs)
    return latex


def d(of):
    return rf"\frac{{\partial L}}{{\partial {of}}}"


def test_the_lstm_of_the_document_is_derived_as_by_hand():
    """Line by line, the formulas of docs/document.md, part 4, which takes each gate and its curve in one step."""
    page = (ROOT / "docs" / "document.md").read_text(encoding="utf-8")
    page = page[page.index("## 4."):]
    page = page[:page.index("```")]
    by_hand = dict(formula.split(" = ") for line in re.findall(r"^    (d\w+ = .*)$", page, re.M)
                   for formula in re.split(r"\s{3,}", line) if not formula.startswith("d_"))
    derived = dict(rows(mg.derive(cell_of_the_page, *examples()[document]).latex))
    for value in (*map(symbol, ("ot", "it", "ft", "cct")), rf"\tanh\left({symbol('c_next')}\right)"):
        step = derived.pop(d(value))
        derived = {left: right.replace(d(value), step) for left, right in derived.items()}
    derived = dict(map(in_the_notation_of_the_page, row) for row in derived.items())
    assert sorted(by_hand) == sorted(["dc", "dzo", "dzf", "dzi", "dzc", "dconcat", "da_prev", "dxt", "dc_prev"])
    for name, formula in by_hand.items():
        terms = [sorted(text.split(" + ")) if name == "dconcat" else text for text in (derived[name], formula)]
        assert terms[0] == terms[1], name
    assert "dW = dz concatᵀ" in page and [derived[f"dW{gate}"] for gate in "fico"] == [
        f"dz{gate} concatᵀ" for gate in "fico"]


def test_the_picture_of_the_equations_is_up_to_date():
    text = equations.PICTURE.read_text(encoding="utf-8")
    assert unescape(re.search("<desc>(.*?)</desc>", text, re.S)[1]) == equations.latex(), \
        "run PYTHONPATH=. python tests/equations.py"


def test_two_names_never_share_a_symbol():
    def f(ct, c_next):
        c_t = ct * c_next
        return c_t + ct

    left = [row[0] for row in rows(mg.derive(f, X, H).latex)]
    assert left[0] == r"\mathrm{c\_t}" and left[-1] == r"\frac{\partial L}{\partial \mathrm{c\_next}}"


def test_a_gradient_that_arrives_differs_from_the_sum():
    latex = mg.derive(lstm, *examples()[lstm]).latex
    assert r"\frac{\partial L}{\partial c} &= \delta c + " in latex
    assert r"\delta a" not in latex  # nothing is added to it


def test_a_scan_is_written_out():
    latex = mg.derive(lstm_layer, *examples()[lstm_layer]).latex
    assert sum(left.startswith("f") for left, _ in rows(latex)) == 6


def cells():
    """Every cell of minigrad and of the examples, with its arguments."""
    for make, options in ((nn.RNNCell, {}), (nn.RNNCell, {"nonlinearity": "relu"}), (nn.GRUCell, {}),
                          (nn.GRUCell, {"reset_after": False}), (nn.LSTMCell, {}),
                          *((kind, {}) for kind in own_cells.CELLS)):
        made = make(3, 5, dtype=np.float64, rng=0, **options)
        state = made.initial_state(4) if make in own_cells.CELLS else np.zeros((5, 4))
        if make is nn.LSTMCell:
            state = (state, state)
        yield pytest.param(made.cell, (state, np.zeros((3, 4))), id=f"{make.__name__} {options or ''}")
    for f, arguments in examples().items():
        yield pytest.param(f, arguments, id=f.__name__)


@pytest.mark.parametrize("cell, arguments", list(cells()))
def test_a_cell_has_an_equation_for_every_gradient(cell, arguments):
    derived = mg.derive(cell, *arguments)
    lines = rows(derived.latex)
    assert len({left for left, _ in lines}) == len(lines) and all(right for _, right in lines)
    leaves = [leaf for leaf in flatten(arguments)[0] if leaf.dtype.kind == "f"]
    gradients = [left for left, _ in lines if left.startswith(r"\frac{\partial L}")]
    assert len(gradients) >= len(leaves) + len(derived.closed)
    if cell is document:
        typeset(derived.latex)


def random_cells(seeds):
    """The LaTeX of the fuzzer's cells."""
    for seed in seeds:
        case = fuzz.make(seed)
        values = {name: mg.tensor(a[0] if name in flatten(case.x)[0] else a, requires_grad=a.dtype.kind == "f")
                  for name, a in case.arrays.items()}
        cell = case.cell(fuzz.HERE, {name: values[name] for name in case.weights})
        state, x = (case.tree(names, values) for names in (case.state, case.x))
        with contextlib.suppress(mg.TraceError):
            yield mg.derive(cell, state, x).latex


def test_any_cell_has_equations():
    """Left sides differ, brackets and braces balance, and no symbol has two superscripts or two subscripts."""
    for latex in random_cells(range(100)):
        assert len({left for left, _ in rows(latex)}) == len(rows(latex)), latex
        for left, right in rows(latex):
            for side in (left, right):
                depth = 0
                for mark in re.findall(r"\\left|\\right|[{}]", side):
                    depth += mark in (r"\left", "{") or -1
                    assert depth >= 0, side
                assert depth == 0 and side.count(r"\left") == side.count(r"\right"), side
                assert not re.search(r"([_^])\{[^{}]*\}\1", side), side


@pytest.mark.slow
def test_any_cell_can_be_typeset():
    for cell, arguments in (row.values for row in cells()):
        typeset(mg.derive(cell, *arguments).latex)
    for latex in random_cells(range(150)):
        typeset(latex)
