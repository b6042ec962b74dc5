"""Clips for training: decoded, augmented, split, batched."""
