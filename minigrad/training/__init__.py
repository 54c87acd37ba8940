"""A training loop one can read, and runs that survive interruption."""
