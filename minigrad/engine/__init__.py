"""The mini framework itself: tensors, ops and their rules, and the backward pass."""

from minigrad.engine import hooks, python_methods, queries  # noqa: F401  (they install methods of Tensor)
