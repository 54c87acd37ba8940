"""What TensorBoard itself reads in the logs."""

import sys
import time

import numpy as np
import pytest

import minigrad as mg
from minigrad.connections import TensorBoard
from minigrad.optim import Adam
from minigrad.tasks import Adding
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.trainer import Trainer


def trained(folder=None, every=2, **settings):
    model = SequenceModel(2, 1, hidden=4, layers=2, dropout=0.5, rng=0)
    trainer = Trainer(model, Adding(6), Adam(model.parameters()), steps=4, batch=3, rng=0, validate_every=2, **settings)
    if folder is None:
        trainer.run()
    else:
        with TensorBoard(folder, every) as board:
            trainer.callbacks.append(board)
            trainer.run()
    return trainer


def read(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0}).Reload()


@pytest.fixture(autouse=True)
def installed(request):
    if "without" not in request.node.name:
        pytest.importorskip("tensorboardX")


def test_tensorboard_reads_scalars_and_histograms(tmp_path):
    trainer = trained(tmp_path)
    log = read(tmp_path)
    assert set(log.Tags()["scalars"]) == {"loss", "norm", "lr", "metric"}
    assert [(e.step, e.value) for e in log.Scalars("loss")] == [
        (row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in trainer.rows]
    assert [e.step for e in log.Scalars("metric")] == [2, 4]
    by_layer = {f"gradient/{name.replace('.', '/')}" for name, _ in trainer.model.named_parameters()}
    assert by_layer <= set(log.Tags()["histograms"])
    last = log.Histograms("gradient/recurrent/layers/l1/W")[-1]
    W = dict(trainer.model.named_parameters())["recurrent.layers.l1.W"]
    assert last.step == 4 and last.histogram_value.num == W.size
    assert last.histogram_value.sum == pytest.approx(float(W.grad.sum()), rel=1e-4, abs=1e-6)
    for update in (2, 4):  # by time step: step is the time of the sequence
        for layer in ("l0", "l1"):
            for state in ("a_next", "c_next"):
                found = log.Histograms(f"gradient_over_time/recurrent/{layer}/{state}/update_{update}")
                assert [e.step for e in found] == [0, 1, 2, 3, 4, 5]
                assert all(e.histogram_value.num == 4 * 3 for e in found)


@pytest.mark.parametrize("bptt", [None, 4])
def test_a_board_does_not_change_the_training(bptt, tmp_path):
    plain, watched = trained(bptt=bptt), trained(tmp_path, every=1, bptt=bptt)
    for (name, a), (_, b) in zip(plain.model.named_parameters(), watched.model.named_parameters()):
        np.testing.assert_array_equal(a.data, b.data, name)


def test_a_loop_of_ones_own(tmp_path):
    layer = mg.nn.LSTM(2, 3, rng=0)
    with TensorBoard(tmp_path) as board, mg.bptt.record() as rec:
        y, _ = layer(np.ones((150, 1, 2)))
        loss = (y**2).sum()
        loss.backward()
        board.scalars(1, loss=loss.item(), rate=0.5)
        board.gradients(layer, 1)
        layer.layers["l0"].W.grad[...] = np.nan
        board.gradients(layer, 2)
        board.over_time(rec[0], 1)
    log = read(tmp_path)
    assert set(log.Tags()["scalars"]) == {"loss", "rate"}
    assert [e.step for e in log.Histograms("gradient/layers/l0/W")] == [1]
    assert len(log.Histograms("gradient_over_time/l0/a_next/update_1")) == 100


def test_a_resumed_training_replaces_what_is_newer(tmp_path):
    for steps, loss in ((range(1, 6), 1.0), (range(4, 7), 2.0)):
        with TensorBoard(tmp_path) as board:
            for step in steps:
                board.scalars(step, loss=loss)
        time.sleep(1.1)  # files are read in the order of their names, which have the second
    assert [(e.step, e.value) for e in read(tmp_path).Scalars("loss")] == [
        (1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]


def test_wrong_numbers_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="≥ 1 of updates"):
        TensorBoard(tmp_path, every=0)


def test_without_tensorboardx_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboardX"):
        TensorBoard(tmp_path)
