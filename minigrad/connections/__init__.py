"""Files that other programs read: TensorBoard's logs and ONNX models."""

from minigrad.connections.onnx_file import to_onnx
from minigrad.connections.tensorboard import TensorBoard

__all__ = ["TensorBoard", "to_onnx"]
