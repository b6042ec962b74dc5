"""A finished network to a bundle: memory, calibration, graphs, card."""
