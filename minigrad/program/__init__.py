"""A function as a program, and what is known about it."""
