"""The learning-rate range test finds the scale of lr and undoes its training."""

import numpy as np
import pytest

from minigrad.training import LrRange, Settings, lr_range_test


def trainer():
    return Settings.for_task("adding", options={"length": 6}, optimizer="sgd", hidden=8, dropout=0.2, layers=2,
                             cell_options={}).trainer()


def test_lr_rises_by_the_same_factor_and_the_training_is_undone():
    one, other = trainer(), trainer()
    one.steps = other.steps = 3
    one.run()
    other.run()
    found = lr_range_test(one, 1e-3, 1e-1, 21)
    np.testing.assert_allclose(found.lr, np.geomspace(1e-3, 1e-1, 21))
    assert found.loss.shape == found.smoothed.shape == (21,) and found.smoothed[0] == pytest.approx(found.loss[0])
    for made in (one, other):
        made.steps = 9
    np.testing.assert_array_equal(one.run()["loss"], other.run()["loss"])
    assert all((a == b).all() for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values()))


def test_it_ends_when_the_loss_diverges():
    found = lr_range_test(trainer(), 1e-2, 1e30, 100)
    assert 10 < len(found.lr) < 100 and found.lowest < found.lr[-1] and 1e-2 <= found.steepest < 1e2


def test_what_it_prints():
    text = str(LrRange(np.geomspace(1e-3, 1, 40), np.concatenate([np.linspace(1, 0.1, 30), np.linspace(0.2, 4, 10)])))
    assert len(text.splitlines()) == 22 and "the loss falls fastest at lr " in text and "end of the range" not in text
    assert str(LrRange(np.array([]), np.array([])))  # diverged at the first step
    falling = LrRange(np.array([0.1, 0.2, 0.4]), np.array([3.0, 2.0, 1.0]))
    assert "the end of the range: try a higher one" in str(falling)


@pytest.mark.parametrize("span", [(0, 1, 9), (1, 1, 9), (1, 0.1, 9), (0.1, np.inf, 9), (0.1, 1, 1)])
def test_a_wrong_range_is_a_sentence(span):
    with pytest.raises(ValueError, match="a range test takes 0 < low < high and two steps or more"):
        lr_range_test(trainer(), *span)
