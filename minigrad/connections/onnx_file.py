"""ONNX: a trained model as a file that onnxruntime and others run (the extra `onnx`).

ONNX has RNN, GRU and LSTM as ops. Their equations are ours with other orders of the gates, and their two biases of a
gate are our one and zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.engine.ops import relu, sigmoid, softmax, tanh
from minigrad.nn.cells import GRUCell, LSTMCell, RNNCell, TorchCell
from minigrad.training.sequence_model import SequenceModel

OPSET, IR = 18, 9  # of 2022 and 2023: every onnxruntime since 1.15 reads them
FUNCTIONS: dict[Any, str] = {tanh: "Tanh", sigmoid: "Sigmoid", relu: "Relu", softmax: "Softmax"}
CELLS: dict[type, str] = {RNNCell: "RNN", GRUCell: "GRU", LSTMCell: "LSTM"}


def to_onnx(model: Any, path: str | Path, *, lengths: bool = False) -> None:
    """Write a model as an ONNX file, in float32.

    model    a `SequenceModel`, RNN, GRU, LSTM, Linear, Embedding, LayerNorm, or an nn.Sequential of these, Dropout and
             the functions mg.tanh, mg.sigmoid, mg.relu and mg.softmax; dropout is off
    path     of the file; ends in .onnx
    lengths  whether the file takes the length of each sequence

    The file takes "x": (time, batch, features) float32, or (time, batch) int64 for symbols; batch first if the first
    recurrent layer is batch_first. With `lengths`, it also takes "lengths": (batch,) int32. It returns "y", not the
    final states. States start at their initial value. It agrees with the model to rounding in float32.

    Raises ModuleNotFoundError if onnx is not installed, ValueError for a path or a layer that ONNX does not have.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise ModuleNotFoundError("ONNX files need onnx, which is not installed: pip install onnx") from None
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"an ONNX file ends in .onnx, and {path} does not: write {path.with_suffix('.onnx').name}")
    layers = flat(model)
    first, stacks = layers[0], [layer for layer in layers if isinstance(layer, nn.Stacked)]
    if lengths and not stacks:
        raise ValueError("lengths are for recurrent layers, and this model has none: leave out lengths=True")
    writer = Writer("lengths" if lengths else "")
    y = "x"
    for layer in layers:
        y = writer.layer(layer, y)
    writer.nodes[-1].output[0] = "y"  # the last node made y
    axes = ["batch", "time"] if stacks and stacks[0].batch_first else ["time", "batch"]
    value, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    is_symbols = isinstance(first, (nn.Embedding, OneHot))
    inputs = [value("x", types.INT64, axes) if is_symbols else
              value("x", types.FLOAT, [*axes, features_of(first)])]
    inputs += [value("lengths", types.INT32, ["batch"])] if lengths else []
    graph = onnx.helper.make_graph(writer.nodes, type(model).__name__, inputs,
                                   [value("y", types.FLOAT, [*axes, None])], writer.weights)
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR,
                                  producer_name="minigrad")
    onnx.checker.check_model(file, full_check=True)
    onnx.save(file, str(path))


class OneHot:
    """The input of a `SequenceModel` of symbols without an embedding."""

    def __init__(self, size: int):
        self.size = size


def flat(model: Any) -> list[Any]:
    """The layers of a model in order."""
    if isinstance(model, nn.Sequential):
        return [layer for i in range(len(model)) for layer in flat(model[i])]
    if isinstance(model, SequenceModel):
        first = [model.embedding] if model.embedding is not None else [OneHot(model.inputs)] if model.symbols else []
        return [*first, model.recurrent, model.linear]
    return [model]


def features_of(layer: Any) -> Any:
    """The number of features that a layer takes; None if it takes any."""
    if isinstance(layer, nn.LayerNorm):
        return layer.weight.shape[0]
    return layer.input_size if isinstance(layer, nn.Stacked) else layer.weight.shape[1] if hasattr(layer, "weight") \
        else None


class Writer:
    """Collects the nodes and weights of a graph. Each method takes the name of its input and returns that of its
    output."""

    def __init__(self, lengths: str):
        self.lengths = lengths
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, array: Any) -> str:
        from onnx import numpy_helper
        name = f"w{len(self.weights)}"
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **options: Any) -> str:
        from onnx import helper
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **options))
        return name

    def layer(self, layer: Any, x: str) -> str:
        if isinstance(layer, nn.Stacked) and {type(cell) for cell in layer.layers.values()} <= CELLS.keys():
            return self.stacked(layer, x)
        function = layer if callable(layer) and getattr(layer, "__hash__", None) else None
        if function in FUNCTIONS:
            return self.node(FUNCTIONS[function], x)
        writers: dict[type, Callable[[Any, str], str]] = {
            nn.Linear: self.linear, nn.Embedding: self.embedding, nn.LayerNorm: self.layer_norm, OneHot: self.one_hot,
            nn.Dropout: lambda _, x: self.node("Identity", x)}
        if type(layer) not in writers:
            name = getattr(layer, "__name__", type(layer).__name__)
            raise ValueError(f"{name} has no op in ONNX that minigrad knows: to_onnx writes a SequenceModel, RNN, GRU, "
                             "LSTM, Linear, Embedding, LayerNorm, Dropout, and mg.tanh, sigmoid, relu, softmax, alone "
                             "or in an nn.Sequential")
        return writers[type(layer)](layer, x)

    def linear(self, layer: nn.Linear, x: str) -> str:
        y = self.node("MatMul", x, self.weight(layer.weight.data.T))
        return y if layer.bias is None else self.node("Add", y, self.weight(layer.bias.data))

    def embedding(self, layer: nn.Embedding, x: str) -> str:
        return self.node("Gather", self.weight(layer.weight.data), x, axis=0)

    def one_hot(self, layer: OneHot, x: str) -> str:
        return self.node("OneHot", x, self.weight(np.array([layer.size])), self.weight(np.array([0.0, 1.0])))

    def layer_norm(self, layer: nn.LayerNorm, x: str) -> str:
        if layer.axis != -1:
            raise ValueError("ONNX normalises the last axis, and this LayerNorm has axis −2: use axis −1")
        return self.node("LayerNormalization", x, self.weight(layer.weight.data), self.weight(layer.bias.data),
                         axis=-1, epsilon=layer.eps)

    def stacked(self, layer: nn.Stacked, x: str) -> str:
        x = self.node("Transpose", x, perm=[1, 0, 2]) if layer.batch_first else x
        cells, directions = list(layer.layers.values()), 1 + layer.bidirectional
        for i in range(0, len(cells), directions):
            x = self.recurrent(cells[i:i + directions], x)
        return self.node("Transpose", x, perm=[1, 0, 2]) if layer.batch_first else x

    def recurrent(self, cells: list[TorchCell], x: str) -> str:
        """One layer, x (time, batch, features) → (time, batch, directions · H)."""
        kind, H = CELLS[type(cells[0])], cells[0].hidden_size
        W, R, B = (self.weight(np.stack(parts)) for parts in zip(*map(weights_of, cells)))
        options: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional" if len(cells) > 1 else "forward"}
        if isinstance(cells[0], GRUCell):
            options["linear_before_reset"] = int(cells[0].reset_after)
        if isinstance(cells[0], RNNCell):
            options["activations"] = [cell.nonlinearity.capitalize() for cell in cells]
        starts = [self.start(np.stack([getattr(cell, name).data.T for cell in cells]), x)
                  for name in cells[0].states] if cells[0].learned_state else []
        y = self.node(kind, x, W, R, B, self.lengths, *starts, **options)  # (time, directions, batch, H)
        return self.node("Reshape", self.node("Transpose", y, perm=[0, 2, 1, 3]), self.weight(np.array([0, 0, -1])))

    def start(self, state: np.ndarray, x: str) -> str:
        """A learned initial state (directions, 1, H) for every sequence of x."""
        batch = self.node("Shape", x, start=1, end=2)
        shape = self.node("Concat", self.weight(np.array([len(state)])), batch,
                          self.weight(np.array([state.shape[2]])), axis=0)
        return self.node("Expand", self.weight(state), shape)


def weights_of(cell: TorchCell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(W, R, B) of ONNX: its gates are i, o, f, c of an LSTM and z, r, h of a GRU."""
    H = cell.hidden_size
    order = {RNNCell: (0,), GRUCell: (1, 0), LSTMCell: (1, 2, 0, 3)}[type(cell)]
    gates, b = (np.concatenate([x.data[cell.rows(gate)] for gate in order]) for x in (cell.W, cell.b))
    W, R, b, recurrent_b = gates[:, H:], gates[:, :H], b[:, 0], np.zeros(len(b))
    if isinstance(cell, GRUCell):
        W, R, b = np.vstack([W, cell.Wx.data]), np.vstack([R, cell.Wh.data]), np.append(b, cell.bx.data)
        recurrent_b = np.append(recurrent_b, cell.bh.data if cell.reset_after else np.zeros(H))
    return W, R, np.concatenate([b, recurrent_b])
