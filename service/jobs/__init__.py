"""Adaptation jobs: taken in, kept, run, published."""
