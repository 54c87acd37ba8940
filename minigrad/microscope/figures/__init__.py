"""Pictures: curves, graphs."""
