"""The mini framework itself: tensors, ops and their rules, and the backward pass."""

from minigrad.engine import python_methods  # noqa: F401  (installs the methods that Python calls)
