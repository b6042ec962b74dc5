"""The service: audio in, calibrated probabilities out; jobs that adapt; HTTP around them."""
