"""The shared room: audio bytes in, calibrated probabilities out; no HTTP, no torch, no database."""
