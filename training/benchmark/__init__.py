"""``nnpm benchmark``: every adaptation method on every target, as tables and charts."""
