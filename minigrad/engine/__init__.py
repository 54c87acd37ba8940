"""The mini framework itself: tensors, ops and their rules, and the backward pass."""
