"""An ONNX file gives what the model gives: checked by onnxruntime, which reads it without minigrad."""

import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.connections import to_onnx
from minigrad.training.sequence_model import SequenceModel

RNG = np.random.default_rng(0)
T, B, D, H, SYMBOLS = 7, 3, 4, 5, 6
X = RNG.normal(size=(T, B, D)).astype(np.float32)
CODES = RNG.integers(SYMBOLS, size=(T, B))
LENGTHS = np.array([7, 3, 1], np.int32)

# name → (model, x, lengths)
MODELS = {
    "rnn": (lambda: nn.RNN(D, H, rng=0), X, None),
    "rnn relu": (lambda: nn.RNN(D, H, 2, nonlinearity="relu", rng=0), X, None),
    "rnn both directions": (lambda: nn.RNN(D, H, bidirectional=True, nonlinearity="relu", rng=0), X, None),
    "gru": (lambda: nn.GRU(D, H, rng=0), X, None),
    "gru reset before": (lambda: nn.GRU(D, H, reset_after=False, rng=0), X, None),
    "lstm": (lambda: nn.LSTM(D, H, rng=0), X, None),
    "lstm float64": (lambda: nn.LSTM(D, H, dtype=np.float64, rng=0), X, None),
    "lstm learned state": (lambda: nn.LSTM(D, H, learned_state=True, bidirectional=True, rng=0), X, None),
    "lstm batch first": (lambda: nn.LSTM(D, H, batch_first=True, rng=0), X.swapaxes(0, 1), None),
    "lstm deep, both directions, lengths": (lambda: nn.LSTM(D, H, 3, bidirectional=True, rng=0), X, LENGTHS),
    "gru deep, both directions, lengths": (lambda: nn.GRU(D, H, 2, bidirectional=True, rng=0), X, LENGTHS),
    "rnn lengths": (lambda: nn.RNN(D, H, rng=0), X, LENGTHS),
    "model of features": (lambda: SequenceModel(D, 2, hidden=H, layers=2, dropout=0.5, rng=0), X, None),
    "model of symbols": (lambda: SequenceModel(SYMBOLS, SYMBOLS, cell="gru", hidden=H, symbols=True, rng=0), CODES,
                         None),
    "model with embedding": (lambda: SequenceModel(SYMBOLS, 2, hidden=H, symbols=True, embedding=3, rng=0), CODES,
                             LENGTHS),
    "sequential": (lambda: nn.Sequential(nn.Linear(D, 6, rng=0), mg.tanh, nn.LayerNorm(6), nn.Dropout(0.5),
                                         nn.LSTM(6, H, rng=1), mg.relu, nn.Linear(H, 3, bias=False, rng=2), mg.softmax),
                   X, None),
    "nested": (lambda: nn.Sequential(nn.Embedding(SYMBOLS, 3, rng=0), nn.Sequential(nn.RNN(3, H, rng=1), mg.sigmoid)),
               CODES, None),
}


def randomised(model):
    """Every parameter random: zeros of biases and learned states would hide an error."""
    rng = np.random.default_rng(1)
    for p in model.parameters():
        p.data = rng.normal(size=p.shape, scale=0.5)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_agrees(name, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    make, x, lengths = MODELS[name]
    model = randomised(make())
    to_onnx(model, tmp_path / "model.onnx", lengths=lengths is not None)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    given = {"x": x} | ({} if lengths is None else {"lengths": lengths})
    (y,) = session.run(["y"], given)
    ours = model(x) if lengths is None else model(x, None, lengths)
    ours = (ours[0] if isinstance(ours, tuple) else ours).detach().numpy()
    np.testing.assert_allclose(y, ours, rtol=0, atol=1e-5)
    if lengths is None:  # another length and another batch
        axes = (slice(None, 2), slice(None, 1))
        (y,) = session.run(["y"], {"x": x[axes]})
        ours = model(x[axes])
        np.testing.assert_allclose(y, (ours[0] if isinstance(ours, tuple) else ours).detach().numpy(), atol=1e-5)


class OwnCell(nn.Recurrent):
    def cell(self, h, x):
        return x, x

    def initial_state(self, batch):
        return np.zeros((D, batch))


@pytest.mark.parametrize(("model", "path", "lengths", "words"), [
    (nn.LSTM(D, H), "model.pt", False, "ends in .onnx"),
    (OwnCell(), "model.onnx", False, "OwnCell has no op in ONNX"),
    (nn.Sequential(nn.Linear(D, H), mg.exp), "model.onnx", False, "exp has no op in ONNX"),
    (nn.Sequential(nn.LayerNorm(3, axis=-2)), "model.onnx", False, "axis −2"),
    (nn.Linear(D, H), "model.onnx", True, "leave out lengths"),
], ids=["path", "own cell", "function", "axis", "lengths"])
def test_what_onnx_does_not_have_gets_a_sentence(model, path, lengths, words, tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=words):
        to_onnx(model, tmp_path / path, lengths=lengths)
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match="pip install onnx"):
        to_onnx(nn.LSTM(D, H), tmp_path / "model.onnx")
