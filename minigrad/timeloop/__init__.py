"""A cell over time, as one op."""
