"""``nnpm benchmark``: every method on every target, and the tables of it."""
