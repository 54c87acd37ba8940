"""What backpropagation through time does, seen from one recording."""
