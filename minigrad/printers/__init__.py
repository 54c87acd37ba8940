"""Printers of one program: for people, and for NumPy's buffers."""
