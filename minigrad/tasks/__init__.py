"""Toy sequence problems, made from an explicit rng or from a text."""
