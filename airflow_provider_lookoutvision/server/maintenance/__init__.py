"""What an operator does beside a running service: check what it keeps, back it up, restore it."""
