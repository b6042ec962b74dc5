"""The network: encoders, head, memory, and the losses on it."""
