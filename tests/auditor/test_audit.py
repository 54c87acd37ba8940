"""`mg.audit`: right backwards are called right, planted faults are named first, and nothing else is said."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from auditor.planted import FAULTS, NO_CAUSE, TRIAL
from auditor.programs import PROGRAMS, σ
from auditor.score import audited, score, table
from fuzz import HERE, make

import minigrad as mg
from minigrad.auditor.tape import Tape
from minigrad.engine.pytree import flatten, named_leaves, unflatten


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_right_backward_is_called_right_with_no_other_word(name):
    assert str(audited(name)) == "right: every gradient agrees"


PLANTED = TRIAL + FAULTS
SAMPLE = [fault for fault in PLANTED[::9] if fault[3] != NO_CAUSE]
RARE = [fault for fault in PLANTED if fault[3] == NO_CAUSE]


@pytest.mark.parametrize("name, old, new, said", SAMPLE, ids=[f"{i}-{fault[0]}" for i, fault in enumerate(SAMPLE)])
def test_a_planted_fault_is_named_first_and_explains_everything(name, old, new, said):
    report = audited(name, old, new)
    assert report.causes and re.search(said, report.causes[0].text), str(report)
    assert not report.unexplained
    explained = [key for cause in report.causes for key in cause.explains]
    assert sorted(explained) == sorted(report.wrong), "each wrong gradient is explained once"


@pytest.mark.parametrize("name, old, new, said", RARE, ids=[fault[0] for fault in RARE])
def test_a_rare_fault_of_no_kind_in_the_table_is_not_explained(name, old, new, said):
    report = audited(name, old, new)
    assert not report.causes and report.unexplained == list(report.wrong)


@pytest.mark.slow
def test_the_score_of_all_planted_faults():
    """The table is that of docs/performance.md."""
    rows = score(PLANTED)
    print(table(rows))
    assert len(TRIAL) == 62 and len(FAULTS) >= 62
    assert rows["all"].first >= 0.95 * len(PLANTED), "\n".join(rows["all"].missed)
    assert not rows["all"].false


def test_a_query_path_beside_a_matrix_with_fewer_axes_than_what_it_meets():
    def forward(h, q, W):
        return np.concatenate((np.tanh(h * q), h), axis=2) @ W

    def backward(dy, h, q, W):
        a, d = np.tanh(h * q), dy @ W.T
        ds, n = d[:, :, :4] * (1 - a ** 2), h.shape[2]
        z = np.concatenate((a, h), axis=2)
        return {"dh": d[:, :, n:], "dq": (ds * h).sum((0, 1)), "dW": np.einsum("ntd,ntm->dm", z, dy)}
    report = mg.audit(forward, backward, np.ones((3, 5, 4)), np.ones(4), np.ones((8, 2)))
    assert list(report.wrong) == ["dh"] and "dh lacks the path from h q to h" in str(report)


# -- random cells -----------------------------------------------------------------------------------------------


CONVENTIONS = {"nested": lambda gradients, args: unflatten(args, gradients),
               "list of all": lambda gradients, args: list(gradients),
               "tuple in order": lambda gradients, args: tuple(gradients),
               "by name": lambda gradients, args: {
                   f"d{name}": g for (name, _), g in zip(named_leaves(args), gradients)}}


def random_cell(seed):
    """(forward, a right backward, inputs) of a case of the fuzzer, or None if it computes in float32 or integers."""
    case = make(seed)
    if "float32" in case.text() or any(a.dtype == np.float32 for a in case.arrays.values()):
        return None
    inputs = {name: a[0] if name in flatten(case.x)[0] else a for name, a in case.arrays.items()}

    def forward(values):
        cell = case.cell(HERE, {name: values[name] for name in case.weights})
        return cell(case.tree(case.state, values), case.tree(case.x, values))

    def gradients(d, values):
        tensors = {name: mg.tensor(x, requires_grad=True) if x.dtype.kind == "f" else x for name, x in values.items()}
        outputs = [(y, dy) for y, dy in zip(flatten(forward(tensors))[0], flatten(d)[0])
                   if isinstance(y, mg.Tensor) and y.requires_grad]
        if outputs:
            sum(mg.sum(y * dy) for y, dy in outputs).backward()
        return [None if not isinstance(x, mg.Tensor) else np.zeros(x.shape) if x.grad is None else x.grad
                for x in tensors.values()]
    return forward, gradients, inputs


def right_cells(convention: str, start: int, count: int) -> None:
    """Audit right backwards of random cells in a convention: each is called right, with no word but on sizes that are
    fixed in the cell."""
    audits, seed = 0, start
    while audits < count:
        seed += 1
        if (found := random_cell(seed)) is None:
            continue
        forward, gradients, inputs = found
        try:
            with np.errstate(all="ignore"):
                report = mg.audit(forward, lambda d, values, gradients=gradients: CONVENTIONS[convention](
                    gradients(d, values), values), inputs)
        except (mg.TraceError, ValueError, ZeroDivisionError) as problem:
            assert "nothing to audit" in str(problem) or isinstance(problem, mg.TraceError), (seed, problem)
            continue
        audits += 1
        report.notes = [note for note in report.notes if "have the same length" not in note]
        assert str(report) == "right: every gradient agrees", (seed, str(report))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_random_right_backwards_are_called_right(convention):
    right_cells(convention, 1000 + 500 * list(CONVENTIONS).index(convention), 3)


@pytest.mark.slow
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_two_hundred_random_right_backwards_are_called_right(convention):
    right_cells(convention, 1000 + 500 * list(CONVENTIONS).index(convention), 50)


# -- it never misleads --------------------------------------------------------------------------------------------


STRANGE = [("document_cell", "cct * it * (1 - it)", "cct * np.cos(3 * it + 1) * (1 - it)"),
           ("document_cell", "dcn = dc +", "dcn = np.sin(dc) +"),
           ("document_cell", "P['Wo'][:, n:].T @ dot", "P['Wo'][:, n:].T @ (dot ** 3 + 0.1)"),
           ("document_lstm", "dc * cp * f * (1 - f)", "dc * cp * f * np.cos(f + 2)"),
           ("document_lstm", "da_prev = dz[:n]", "da_prev = dz[:n] * np.arange(1, 7)[:, None] ** 0.3"),
           ("rnn", "(1 - hs[t + 1] ** 2)", "(1 - 0.7 * hs[t + 1] ** 3)"),
           ("rnn", "db += dz.sum(axis=0)", "db += (dz ** 2).sum(axis=0)"),
           ("fused_cell", "dA = np.hstack((df, dg, di, do))", "dA = np.hstack((df, dg, di, do)) + 0.01"),
           ("layer_norm", "rstd ** 3", "rstd ** 2.7"),
           ("attention", "ds = ds / np.sqrt(3.0)", "ds = ds / np.sqrt(3.0) + 0.05 * dp"),
           ("gru_before", "drh * h * r", "drh * np.exp(h) * r"),
           ("peephole", "+ do * po", "+ do * po ** 2 * 1.3")]


@pytest.mark.parametrize("name, old, new", STRANGE[::3])
def test_a_fault_of_no_known_kind_gets_no_cause(name, old, new):
    report = audited(name, old, new)
    assert report.wrong and not report.causes, str(report)
    assert report.unexplained == list(report.wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name, old, new", STRANGE)
def test_no_fault_of_no_known_kind_gets_a_cause(name, old, new):
    test_a_fault_of_no_known_kind_gets_no_cause(name, old, new)


def spoilt(how: Callable, seed: int) -> Callable:
    """A right backward whose gradients go through how(gradient, rng), the first half of them by chance."""
    def of(right: Callable) -> Callable:
        def backward(*args: Any) -> dict:
            rng, out = np.random.default_rng(seed), right(*args)
            hit = [key for key in out if rng.random() < 0.5] or [next(iter(out))]
            return {key: how(g, rng) if key in hit else g for key, g in out.items()}
        return backward
    return of


SPOILT = {"factors by entry": lambda g, rng: g * rng.uniform(0.5, 1.5, g.shape),
          "noise": lambda g, rng: g + 0.1 * rng.normal(size=g.shape),
          "one entry": lambda g, rng: g + 0.1 * (np.arange(g.size).reshape(g.shape) == rng.integers(g.size)),
          "mixed rows": lambda g, rng: np.tensordot(rng.normal(size=(len(g), len(g))), g, 1),
          "another power": lambda g, rng: np.sign(g) * np.abs(g) ** 0.9,
          "a shift": lambda g, rng: g + 0.03}
MISLEADING = list(itertools.product(
    ["fused_cell", "document_cell", "gru_after", "layer_norm", "attend", "elman"], SPOILT))


@pytest.mark.parametrize("name, how", [
    pytest.param(*case, marks=[] if i % 7 == 0 else pytest.mark.slow) for i, case in enumerate(MISLEADING)])
def test_gradients_spoilt_at_random_get_no_cause(name, how):
    program = PROGRAMS[name]
    for seed in range(3):
        report = mg.audit(program.forward, spoilt(SPOILT[how], seed)(program.run(program.backward)), *program.inputs)
        assert report.wrong and not report.causes, str(report)


# Two faults that meet on a path: (program, [(text, what replaces it, what a cause must say), …])
MEETING = [
    ("document_cell", [("(1 - tc ** 2) * da", "da", r"lacks the derivative of its tanh"),
                       ("cct * it * (1 - it)", "cct", r"dit lacks|of sigmoid|derivative of its sigmoid")]),
    ("document_cell", [("cct * it * (1 - it)", "c_prev * it",
                        r"(it is missing|it alone).*; and (c_prev|dft) is used")]),
    ("fused_cell", [("f * (1 - f)", "f", r"f alone"), ("dc_prev = ds * f", "dc_prev = ds", r"factor f is missing")]),
    ("gru_before", [("(h - n)", "(n - h)", r"sign|−1"), ("+ drh * r ", "+ drh ", r"factor r is missing")]),
    ("elman", [("dW += ds", "dW = ds", r"dW is overwritten"), ("dh = U.T @ ds", "dh = 0 * dh", r"dh is not carried")]),
    ("attend", [("dv = p.T @ g", "dv = s.T @ g", r"used where p"), (" / np.sqrt(3.0)\ndq", "\ndq", r"√3")]),
]


@pytest.mark.parametrize("name, faults", MEETING, ids=[f"{name} {len(faults)}" for name, faults in MEETING])
def test_of_two_faults_each_cause_is_one_of_them(name, faults):
    program = PROGRAMS[name]
    text = program.backward
    for old, new, _ in faults:
        assert old in text
        text = text.replace(old, new, 1)
    report = mg.audit(program.forward, program.run(text), *program.inputs)
    for cause in report.causes:
        assert any(re.search(said, one) for _, _, said in faults for one in (cause.text, *cause.also)), str(report)
    assert report.causes, str(report)


def rnn_layer(x, W, U):
    hs = [np.zeros((2, 4))]
    for t in range(3):
        hs.append(np.tanh(x[:, t] @ W + hs[-1] @ U))
    return hs


def rnn_layer_backward(d, x, W, U):
    hs, dx, dW, dU, carried = rnn_layer(x, W, U), np.zeros_like(x), 0, 0, 0
    for t in (2, 1, 0):
        dh = d[:, t] + carried  # lacks 1 − h²
        dx[:, t], carried = dh @ W.T, dh @ U.T
        dW, dU = dW + x[:, t].T @ dh, dU + hs[t].T @ dh
    return dx, dW, dU


def test_a_line_that_runs_in_two_layers_and_another_fault_in_one_of_them():
    """The second layer has the fault of the first too, and its gradient is not turned round."""
    def forward(x, W1, U1, W2, U2):
        one, two = (mg.stack(rnn_layer(part, *weights)[1:], axis=1)
                    for part, weights in ((x, (W1, U1)), (x[:, ::-1], (W2, U2))))
        return one, mg.transpose(mg.transpose(two, (1, 0, 2))[::-1], (1, 0, 2))

    def backward(d, x, W1, U1, W2, U2):
        (dx1, *one), (dx2, *two) = rnn_layer_backward(d[0], x, W1, U1), rnn_layer_backward(d[1], x[:, ::-1], W2, U2)
        return dx1 + dx2[:, ::-1], *one, *two
    report = mg.audit(forward, backward, *map(np.zeros, [(2, 3, 5), (5, 4), (4, 4), (5, 4), (4, 4)]), other_sizes=False)
    assert not report.unexplained, str(report)
    assert all("lacks the derivative of its tanh" in cause.text for cause in report.causes)
    assert any("is not turned back: the forward turns" in cause.text for cause in report.causes)


def test_a_softmax_over_all_entries_whose_gradient_is_that_of_its_columns():
    y = np.eye(4)[[0, 2, 1, 3, 2]].T

    def softmax(z):
        e = np.exp(z)
        return e / e.sum()

    def backward(d, W, x):
        dz = d * (softmax(W @ x) - y) / 5
        return dz @ x.T, W.T @ dz

    def forward(W, x):
        return -np.sum(y * np.log(softmax(W @ x))) / 5
    report = mg.audit(forward, backward, np.zeros((4, 3)), np.zeros((3, 5)), other_sizes=False)
    (cause,) = report.causes
    assert "is that of sums over axis 0, and sum(e) in the forward is over all axes" in cause.text, str(report)


def test_a_copy_of_an_expression_before_a_long_loop():
    """The loop has more steps than Python's recursion allows; dW has its own dh, which lacks a path."""
    def forward(x, W):
        a = np.tanh(W @ x)
        z = a * a
        for _ in range(120):
            z = z * 0.99 + 0.001 * (z * z)
        return z + a

    def backward(d, x, W):
        a = np.tanh(W @ x)
        zs = [a * a]
        for _ in range(120):
            zs.append(zs[-1] * 0.99 + 0.001 * zs[-1] ** 2)
        g = d
        for z in reversed(zs[:-1]):
            g = g * (0.99 + 0.002 * z)
        return W.T @ ((2 * g * a + d) * (1 - a * a)), 2 * g * a * (1 - a * a) @ x.T
    report = mg.audit(forward, backward, np.zeros((3, 2)), np.zeros((4, 3)))
    assert report.right == ["dx"] and "in dW only: da lacks the path from z + a to a" in str(report)


def test_a_cause_holds_at_inputs_that_the_audit_has_not_seen():
    """The value that is replaced equals another at one draw only: such a change is not a cause."""
    program = PROGRAMS["rnn"]
    right = program.run(program.backward)
    seen = []

    def backward(d, *args):
        out = dict(right(d, *args))
        seen.append(0)
        out["dWh"] = out["dWh"].T if len(seen) <= 2 else 1.3 * out["dWh"]  # the first draw is called twice
        return out
    report = mg.audit(program.forward, backward, *program.inputs)
    assert not report.causes and report.unexplained == ["dWh"]


def test_what_is_unexplained_is_narrowed_down():
    """The gradients behind one value follow from each other: the fault lies before it."""
    report = audited("document_cell", "cct * it * (1 - it)", "cct * np.cos(3 * it + 1) * (1 - it)")
    assert report.notes == ["dxt, da_prev, dWi, dbi agree with each other: the fault lies before the gradient of "
                            "(Wi @ concat) + bi"]
    assert not audited("rnn", "db += dz.sum(axis=0)", "db += (dz ** 2).sum(axis=0)").notes


# -- what is not a number ---------------------------------------------------------------------------------------------


def test_arguments_changed_in_place_are_noted_and_the_gradients_called_right():
    program = PROGRAMS["fused_cell"]
    right = program.run(program.backward)

    def backward(d, *args):
        out = right(d, *args)
        args[2][...] = 0
        d[1][...] += 1
        return out
    report = mg.audit(program.forward, backward, *program.inputs)
    assert report.ok
    assert report.notes == ["note: backward changes its argument c_prev in place",
                            "note: backward changes d_outputs in place"]


def test_state_left_from_the_call_before_is_noted():
    program, kept = PROGRAMS["fused_cell"], {}
    right = program.run(program.backward)

    def backward(d, *args):
        out = right(d, *args)
        kept["db"] = out["db"] = out["db"] + kept.get("db", 0)
        return out
    report = mg.audit(program.forward, backward, *program.inputs)
    assert any("keeps state between the calls" in note for note in report.notes)


def test_gradients_that_are_not_written_yet_are_listed():
    program = PROGRAMS["document_cell"]
    right = program.run(program.backward)
    report = mg.audit(program.forward, lambda *args: right(*args) | {"dxt": None, "dc_prev": None}, *program.inputs)
    assert report.missing == ["dxt", "dc_prev"] and not report.wrong and not report.ok
    assert "not written yet: dxt, dc_prev" in str(report)
    nothing = mg.audit(program.forward, lambda *args: None, *program.inputs)
    assert len(nothing.missing) == 11 and not nothing.right


def test_nan_and_what_is_no_number_are_noted():
    program = PROGRAMS["fused_cell"]
    right = program.run(program.backward)
    report = mg.audit(program.forward, lambda *args: right(*args) | {"db": np.full(16, np.nan), "dWh": "later"},
                      *program.inputs)
    assert report.unexplained == ["db"] and report.missing == ["dWh"] and not report.causes
    assert report.notes == ["note: dWh are not arrays of real numbers", "note: db contain nan or inf"]


EQUAL = [(4, 5, 4), (4, 6), (4, 6), (6, 6), (6,)], 1, "axes of x (0 and 2) have the same length"
SHORT = [(5, 2, 3), (5, 6), (3, 6), (6, 6), (6,)], 1, "axis 1 of x is time and has the length 2"
SINGLE = [(5, 1, 3), (5, 6), (3, 6), (6, 6), (6,)], 2, "axis 1 of x is time and has the length 1"  # Wh is not tied


@pytest.mark.parametrize("shapes, notes, said", [EQUAL, SHORT, SINGLE])
def test_lengths_that_hide_faults_are_changed_or_noted(shapes, notes, said):
    program = PROGRAMS["rnn"]
    right, seen = program.run(program.backward), []

    def watched(d, *args):
        seen.append(args[0].shape)
        return right(d, *args)
    assert str(mg.audit(program.forward, watched, *map(np.zeros, shapes))) == "right: every gradient agrees"
    assert all(len({*shape, 6}) == 4 and shape[1] >= 3 for shape in seen)

    def fixed(d, *args):
        assert args[0].shape == shapes[0]
        return right(d, *args)
    report = mg.audit(program.forward, fixed, *map(np.zeros, shapes))
    assert report.ok and len(report.notes) == notes + 1 and said in report.notes[-2]
    assert re.match("note: it is not judged at other lengths: with .* backward fails: AssertionError", report.notes[-1])


def test_a_fault_that_equal_lengths_hide_is_found():
    """The mean over the batch in place of the features: the same number while there are as many."""
    program = PROGRAMS["layer_norm"]
    wrong = program.run(program.backward.replace("D = x.shape[1]", "D = x.shape[0]"))
    report = mg.audit(program.forward, wrong, np.zeros((7, 7)), np.zeros(7), np.zeros(7))
    assert list(report.wrong) == ["dx"]
    report = mg.audit(program.forward, program.run(program.backward), np.zeros((7, 7)), np.zeros(7), np.zeros(7))
    assert str(report) == "right: every gradient agrees"


def test_a_backward_that_is_right_only_at_equal_lengths_is_noted():
    def forward(x, h, W):
        return np.tanh(np.hstack([x, h]) @ W)

    def backward(d, x, h, W):
        z = np.hstack([x, h])
        da, n = d * (1 - np.tanh(z @ W) ** 2), h.shape[1]  # where x.shape[1] is meant
        dz = da @ W.T
        return dz[:, :n], dz[:, n:], z.T @ da
    report = mg.audit(forward, backward, np.zeros((5, 3)), np.zeros((5, 3)), np.zeros((6, 4)))
    assert report.ok
    assert report.notes == ["note: it is not judged at other lengths: with x (5, 7), W (10, 4) dx has the shape "
                            "(5, 3), dh has the shape (5, 7)"]


def test_other_lengths_leave_indices_what_they_are():
    """As many classes, or features, as examples: the labels are 5, so both stay 5, or the features become another."""
    program = PROGRAMS["cross_entropy"]
    right, seen = program.run(program.backward), []

    def watched(d, *args):
        seen.append([x.shape for x in args])
        return right(d, *args)
    labels = np.array([0, 3, 4, 1, 2])
    report = mg.audit(program.forward, watched, np.zeros((5, 3)), np.zeros((3, 5)), np.zeros(5), labels)
    assert report.ok and {tuple(shapes) for shapes in seen} == {((5, 3), (3, 5), (5,), (5,))}
    report = mg.audit(program.forward, watched, np.zeros((5, 6)), np.zeros((6, 6)), np.zeros(6), labels)
    assert str(report) == "right: every gradient agrees" and seen[-1][0] == (5, seen[-1][1][0])
    assert len({5, *seen[-1][1]}) == 3


def test_a_forward_without_gradients_is_refused():
    with pytest.raises(ValueError, match="nothing to audit: no result of forward depends on a float"):
        mg.audit(lambda x: np.zeros(3), lambda d, x: {"dx": x}, np.zeros(3))


def test_values_from_elsewhere_are_noted():
    program = PROGRAMS["fused_cell"]
    right = program.run(program.backward)
    fixed = [np.random.default_rng(1).normal(size=x.shape) for x in program.inputs]
    report = mg.audit(program.forward, lambda d, *args: right((np.ones((5, 4)), np.ones((5, 4))), *fixed),
                      *program.inputs)
    assert any("reads its values from elsewhere" in note for note in report.notes)
    assert not report.causes


def test_float32_is_judged_to_its_digits():
    program = PROGRAMS["rnn"]
    right, wrong = (program.run(program.backward.replace("dWh += hs", f"dWh {sign} hs")) for sign in ("+=", "="))

    def single(backward):
        return lambda d, *args: {key: g.astype(np.float32) for key, g in backward(
            np.float32(d), *map(np.float32, args)).items()}
    report = mg.audit(program.forward, single(right), *program.inputs)
    assert report.ok and report.notes == ["note: computed in float32, and judged to its digits"]
    report = mg.audit(program.forward, single(wrong), *program.inputs)
    assert report.causes[0].text == "dWh is overwritten at each step, not added up"


def test_one_gradient_in_float32_is_noted_and_the_others_judged_to_theirs():
    program = PROGRAMS["rnn"]
    right = program.run(program.backward)
    for factor, is_right in ((1.0, True), (1 + 1e-6, False)):
        report = mg.audit(program.forward, lambda d, *args, factor=factor: (out := right(d, *args)) | {
            "dWh": np.float32(out["dWh"]), "db": factor * out["db"]}, *program.inputs)
        assert report.notes == ["note: dWh computed in float32, and judged to its digits"]
        assert ("db" in report.right) == is_right and "dWh" in report.right


def test_names_are_matched_by_their_letters_or_given():
    program = PROGRAMS["fused_cell"]
    right = program.run(program.backward)
    renamed = dict(dx="dX", dh_prev="dprev_h", dc_prev="grad_memory", dWx="dwx", dWh="d_Wh", db="db")
    report = mg.audit(program.forward, lambda *args: {renamed[k]: g for k, g in right(*args).items()},
                      *program.inputs, names={"grad_memory": "c_prev", "dprev_h": "h_prev"})
    assert report.ok and report.right == ["dX", "dprev_h", "grad_memory", "dwx", "d_Wh", "db"]


def test_a_tuple_of_another_length_is_refused():
    program = PROGRAMS["rnn"]
    with pytest.raises(ValueError, match="backward returned 2 gradients and forward has 5 inputs"):
        mg.audit(program.forward, lambda d, *args: args[:2], *program.inputs)


# -- lines, text, time -------------------------------------------------------------------------------------------------


def hand_written(d, x, h0, Wx, Wh, b):
    hs = [h0]
    for t in range(4):
        hs.append(np.tanh(x[:, t] @ Wx + hs[-1] @ Wh + b))
    dx, dWx, dWh, db, dprev = np.zeros_like(x), 0, 0, 0, 0
    for t in reversed(range(4)):
        dz = (d[:, t] + dprev) * (1 - hs[t + 1] ** 2)
        dx[:, t] = dz @ Wx.T
        dWx = dWx + x[:, t].T @ dz
        dWh = hs[t].T @ dz
        db = db + dz.sum(0)
        dprev = dz @ Wh.T
    return dx, dprev, dWx, dWh, db


def test_the_report_shows_the_lines_of_both_functions():
    program = PROGRAMS["rnn"]
    report = mg.audit(program.forward, hand_written, *program.inputs)
    (cause,) = report.causes
    assert cause.backward_line.endswith(": dWh = hs[t].T @ dz")
    assert cause.forward_line.endswith(": h = np.tanh(x[:, t] @ Wx + h @ Wh + b)")
    assert str(report).splitlines()[:4] == ["wrong: dWh", "right: dx, dh0, dWx, db", "",
                                            "dWh is overwritten at each step, not added up"]
    assert repr(report) == str(report)
    html = report._repr_html_()
    assert html.startswith("<p>wrong: dWh</p><table>") and ">gradient</th>" in html and "dWh is overwritten" in html
    assert "<script" not in html
    assert cause.derived_line is None  # the derived loop is unrolled: it has no line like the user's


def test_the_derived_line_stands_beside_the_user_s():
    def forward(x, W, b):
        y = mg.sigmoid(W @ x + b)
        return y

    def backward(d_y, x, W, b):
        y = 1 / (1 + np.exp(-(W @ x + b)))
        dy = d_y * y
        return {"dx": W.T @ dy, "dW": dy @ x.T, "db": dy.mean(axis=1, keepdims=True) * 2}
    (cause,) = mg.audit(forward, backward, *map(np.zeros, [(3, 2), (5, 3), (5, 1)])).causes
    assert cause.backward_line.endswith(": dy = d_y * y")
    assert cause.derived_line == "d_y = d_output; d_y_in = d_y * y * (1.0 - y)"


@pytest.mark.parametrize("name, seconds", [("document_cell", 1), ("fused_cell", 1), ("document_lstm", 5)])
def test_an_audit_takes_little_time(name, seconds):
    """CPU seconds of this process, for a fault that is not the first of the table; twice as much is allowed here."""
    start = time.process_time()
    audited(name, "(1 - cct ** 2)" if name == "document_cell" else "(1 - g ** 2)", "np.cos(3)")
    assert time.process_time() - start < 2 * seconds


def test_the_tape_is_the_eager_backward():
    for program in PROGRAMS.values():
        tape = Tape(program.forward, tuple(program.inputs), np.random.default_rng(3))
        _, d, leaves = tape.draws[0]
        args = unflatten(tape.pattern, [mg.tensor(x, requires_grad=True) if x.dtype.kind == "f" else x for x in leaves])
        result = program.forward(*args)
        sum(mg.sum(y * dy) for y, dy in zip(flatten(result)[0], flatten(d)[0])).backward()
        for label, x in zip(tape.labels, flatten(args)[0]):
            if isinstance(x, mg.Tensor):
                np.testing.assert_allclose(tape.gradients((label,), {})[0], x.grad, rtol=1e-12, atol=1e-14)


def test_a_forward_with_its_own_logistic_has_the_derivative_of_a_sigmoid():
    def forward(x, W):
        f = 1 / (1 + np.exp(-(W @ x)))
        return f * f

    def backward(d, x, W):
        f = σ(W @ x)
        df = d * 2 * f
        return {"dx": W.T @ df, "dW": df @ x.T}
    report = mg.audit(forward, backward, np.zeros((3, 5)), np.zeros((4, 3)))
    assert report.causes[0].text == "df lacks the derivative of its sigmoid, f (1 − f)"


def test_a_sum_without_one_of_its_terms():
    """Of a fused h W + b the last block, computed anew without b."""
    def forward(r, h, W, b):
        q = h @ W + b
        return np.tanh(r * q[:, 2:])

    def backward(g, r, h, W, b):
        q = (h @ W + b)[:, 2:]
        dz = g * (1 - np.tanh(r * q) ** 2)
        dq = np.concatenate([np.zeros((3, 2)), dz * r], axis=1)
        return {"dr": dz * (h @ W[:, 2:]), "dh": dq @ W.T, "dW": h.T @ dq, "db": dq.sum(0)}
    report = mg.audit(forward, backward, *map(np.zeros, ((3, 4), (3, 5), (5, 6), 6)))
    (cause,) = report.causes
    assert cause.explains == ["dr"] and "q without its term b is used where q is meant" in cause.text


def test_a_term_of_a_part_of_a_split():
    def forward(r, h, W, b):
        q, n = np.split(h @ W + b, 2, axis=1)
        return np.tanh(q + r * n)

    def backward(g, r, h, W, b):
        q, n = np.split(h @ W + b, 2, axis=1)
        dq = g * (1 - np.tanh(q + r * n) ** 2)
        dz = np.concatenate([dq, dq * r], axis=1)
        return {"dr": dq * (h @ W[:, 3:]), "dh": dz @ W.T, "dW": h.T @ dz, "db": dz.sum(0)}
    report = mg.audit(forward, backward, *map(np.zeros, ((4, 3), (4, 5), (5, 6), 6)))
    (cause,) = report.causes
    assert cause.explains == ["dr"] and "n without its term b is used where n is meant" in cause.text


def layered(x, h0, layers):
    """Layers of several sizes in one loop: the same lines are called for each."""
    for p, h in zip(layers, h0):
        out = []
        for t in range(len(x)):
            h = np.tanh(x[t] @ p["W"] + h @ p["U"])
            out.append(h)
        x = np.stack(out)
    return x


def layered_backward(first):
    """The backward of `layered`, with a loop that ends at this step."""
    def backward(g, x, h0, layers):
        caches, gradients = [], {}
        for p, h in zip(layers, h0):
            caches.append((x, [h]))
            for t in range(len(x)):
                caches[-1][1].append(np.tanh(x[t] @ p["W"] + caches[-1][1][-1] @ p["U"]))
            x = np.stack(caches[-1][1][1:])
        for k, (p, (x, hs)) in reversed([*enumerate(zip(layers, caches))]):
            dx, dW, dU, dh = np.zeros_like(x), np.zeros_like(p["W"]), np.zeros_like(p["U"]), 0
            for t in range(len(x) - 1, first - 1, -1):
                dz = (g[t] + dh) * (1 - hs[t + 1] ** 2)
                dW += x[t].T @ dz
                dU += hs[t].T @ dz
                dx[t], dh = dz @ p["W"].T, dz @ p["U"].T
            gradients |= {f"h{k}": dh, f"W{k}": dW, f"U{k}": dU}
            g = dx
        return {"dx": g, **gradients}
    return backward


def test_a_loop_that_leaves_out_a_step_in_layers_of_several_sizes():
    sizes = [3, 4, 5]
    layers = [{"W": np.zeros((n, m)), "U": np.zeros((m, m))} for n, m in itertools.pairwise(sizes)]
    arguments = np.zeros((3, 2, 3)), [np.zeros((2, n)) for n in sizes[1:]], layers
    names = {f"h{k}": f"h0[{k}]" for k in (0, 1)} | {f"{w}{k}": f"layers[{k}].{w}" for w in "WU" for k in (0, 1)}
    assert mg.audit(layered, layered_backward(0), *arguments, names=names).ok
    report = mg.audit(layered, layered_backward(1), *arguments, names=names)
    (cause,) = report.causes
    assert cause.text == "the loop over time leaves out the first 1 of the 3 steps" and not report.unexplained


def test_a_step_over_time_has_its_caller_s_name():
    def squashed(x):
        return np.tanh(x)

    def forward(x, c, W):
        h = []
        for t in range(len(x)):
            c_new = np.tanh(x[t] + c)
            h.append(squashed(c_new) * (c_new * W))
            c = c_new
        return np.stack(h)

    def backward(g, x, c, W):
        cs, dx, dW, dc = [c], np.zeros_like(x), 0, 0
        for t in range(len(x)):
            cs.append(np.tanh(x[t] + cs[-1]))
        for t in range(len(x) - 1, -1, -1):
            y = np.tanh(cs[t + 1])
            dW += (g[t] * y * cs[t]).sum(0)  # the state before
            dc = dc + g[t] * ((1 - y ** 2) * cs[t + 1] * W + y * W)
            dx[t] = dc = dc * (1 - cs[t + 1] ** 2)
        return {"dx": dx, "dc": dc, "dW": dW}
    report = mg.audit(forward, backward, np.zeros((3, 2, 4)), np.zeros((2, 4)), np.zeros(4))
    (cause,) = report.causes
    assert cause.text.startswith("c_new of the step before is used where c_new is meant")
