"""A framework engineer's day: an op of one's own, checked; tensors to and from PyTorch; TensorBoard; a file for ONNX.

    python examples/engineer_day.py               # what is not installed is left out, in a sentence
"""

from __future__ import annotations

import argparse

import numpy as np

import minigrad as mg
from minigrad.connections import TensorBoard, to_onnx
from minigrad.tasks import Reber
from minigrad.training.sequence_model import SequenceModel
from minigrad.training.trainer import Trainer


@mg.op(dx=lambda g, x: g / (1.0 + abs(x)) ** 2)
def softsign(x):
    """y = x / (1 + |x|)."""
    return x / (1.0 + np.abs(x))


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    rng = np.random.default_rng(0)
    print(mg.gradcheck(softsign, rng.normal(size=(3, 4))))     # the op: its rule is right
    print(mg.derive(softsign, np.ones(3)))                     # and it derives like any other

    x = mg.tensor(rng.normal(size=(2, 3)))                     # DLPack: the same memory, without a copy
    print(np.shares_memory(np.from_dlpack(x), x.data))
    try:
        import torch
        print(torch.from_dlpack(x).shape, mg.tensor(torch.ones(3)))
    except ModuleNotFoundError as problem:
        print(problem)

    task = Reber()                                             # a training, watched by TensorBoard
    model = SequenceModel(**task.sizes, hidden=12, rng=0)
    trainer = Trainer(model, task, mg.optim.Adam(model.parameters(), lr=0.02), steps=20, batch=8)
    print(trainer)
    try:
        with TensorBoard("logs", every=10) as board:           # then: tensorboard --logdir logs
            trainer.callbacks.append(board)
            trainer.run()
    except ModuleNotFoundError as problem:
        print(problem)

    try:                                                       # the model, for other programs
        to_onnx(model.eval(), "reber.onnx")
        import onnxruntime
        codes = task.batch(1, 4).x
        (y,) = onnxruntime.InferenceSession("reber.onnx").run(["y"], {"x": codes})
        print("onnxruntime differs by", abs(y - model(codes)[0].detach().numpy()).max())
    except ModuleNotFoundError as problem:
        print(problem)


if __name__ == "__main__":
    main()
