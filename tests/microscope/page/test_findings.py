"""The sentences on top of a page: each against arrays whose answer is known by hand."""

import numpy as np
import pytest

from minigrad.microscope.credit import lag_of_share
from minigrad.microscope.page.findings import findings
from minigrad.microscope.page.rendering import Inspection, LayerInspection

NAN = np.nan


def inspection(T=6, name="l0", **parts):
    """An inspection of T steps, with nothing to find in it but these parts."""
    layer = LayerInspection(name, {"c": np.zeros((T, 3))}, {"c": np.zeros((T, 3))})
    report = Inspection("", {}, ["a"] * T, None, np.arange(T), {}, {}, [layer])
    for key, part in parts.items():
        setattr(report if hasattr(report, key) else layer, key, part)
    return report


def changed(T=6, **entries):
    x = np.zeros((T, 3))
    for place, value in entries.items():
        x[tuple(map(int, place[1:].split("_")))] = value
    return {"c": x}


def band(lags, T=6):
    """A ledger whose every loss s sends these sizes to the steps s, s − 1, …"""
    return {"weights": sum(np.diag(np.full(T - k, float(size)), -k) for k, size in enumerate(lags))}


CASES = [
    ({}, []),
    ({"steps": {"loss": np.array([NAN, 1.0, 4.0, 1.0, NAN, 2.0])}},
     [("The largest loss is at step 2: 4, where the mean is 2.", {"t": 2, "loss": 2})]),
    ({"steps": {"loss": np.array([NAN] * 5 + [0.5])}}, [("The only loss is at step 5: 0.5.", {"t": 5, "loss": 5})]),
    ({"values": changed(_4_1=NAN, _3_2=np.inf), "grads": changed(_5_0=NAN)},
     [("c is NaN or Inf at step 3", {"layer": "l0", "t": 3, "unit": 2})]),
    ({"grads": changed(_4_1=NAN, _2_0=NAN)}, [("dL/dc is NaN or Inf at step 4", {"layer": "l0", "t": 4, "unit": 1})]),
    ({"reach": band([1])}, [("Half of the credit lies at the step of the loss itself, all but a tenth",
                             {"layer": "l0", "loss": 5, "t": 5})]),
    ({"reach": {"weights": np.eye(6)[:1] + 0.1, "c": np.zeros((1, 6))}, "asked": np.array([5])},
     [("Half of the credit lies within 5 steps of the loss", {"layer": "l0", "loss": 5, "t": 0})]),
    ({"reach": {"weights": np.full((6, 6), NAN)}}, []),
    ({"keeps": {"a": np.array([[0.1, 0.1], [0.2, 0.2]]), "c": np.array([[0.96, 0.5, 0.95], [0.97, 0.9, 0.999]])}},
     [("2 of 3 units of c never forget, keeping at least 95 % of their value at every step; unit 2 keeps 99.9 % a",
       {"layer": "l0", "unit": 2})]),
    ({"keeps": {"c": np.array([[0.2, 0.95], [0.2, 0.95]])}},
     [("1 of 2 units of c never forgets, keeping at least 95 % of its value at every step; unit 1 keeps 95 % a step.",
       {"layer": "l0", "unit": 1})]),
    ({"keeps": {"c": np.array([[0.97, 0.96], [0.98, 0.97]])}},
     [("All 2 units of c never forget, keeping at least 95 % of their value at", {"layer": "l0", "unit": 0})]),
    ({"keeps": {"c": np.array([[0.2, 0.4], [0.2, 0.5]])}},
     [("No unit of c keeps 95 % of its value at every step; unit 1 keeps 50 % a step, half of its value for 1 step.",
       {"layer": "l0", "unit": 1})]),
    ({"keeps": {"c": np.zeros((2, 3))}},
     [("No unit of c keeps 95 % of its value at every step; unit 0 keeps 0 % a step.", {"layer": "l0", "unit": 0})]),
]


@pytest.mark.quick
@pytest.mark.parametrize("parts, expected", CASES, ids=range(len(CASES)))
def test_sentences(parts, expected):
    found = findings(inspection(**parts))
    assert [f.place for f in found] == [place for _, place in expected]
    for f, (text, _) in zip(found, expected):
        assert f.text.startswith(text), f.text


def test_the_first_finding_is_the_most_urgent_and_layers_are_named():
    report = inspection(steps={"loss": np.arange(6.0)}, reach=band([2, 1]), values=changed(_1_0=NAN))
    report.layers += inspection(name="l1", reach=band([2, 1])).layers
    texts = [f.text for f in findings(report)]
    assert [text[:12] for text in texts] == ["c is NaN or ", "The largest ", "Layer l0: Ha", "Layer l1: Ha"]


def test_the_lag_of_a_share_counts_both_directions():
    size = np.zeros((2, 5))
    size[0, 4], size[0, 2], size[1, 0] = 1.0, 2.0, 1.0
    assert [lag_of_share(size, np.array([4, 0]), share) for share in (0.5, 0.51, 1.0)] == [0, 2, 2]
    assert lag_of_share(size[:, ::-1], np.array([0, 4]), 1.0) == 2  # a scan that ran backwards
