"""What is wrong with a backward written by hand? `audit` compares it with the derived one and looks for the change."""
