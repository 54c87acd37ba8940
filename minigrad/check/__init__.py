"""Check a gradient numerically, and find the faulty rule."""
