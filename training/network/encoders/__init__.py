"""Encoders: features to one vector per clip; one file a family."""
