"""Adaptation to a language without labels."""
