"""nnpm: the service that answers, and the room it shares with training."""

__version__ = "0.1.0"
