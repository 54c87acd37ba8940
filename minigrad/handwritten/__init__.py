"""Backward passes that somebody wrote by hand: find them in a file, run them, and say what is wrong with them."""
