"""The network: front end, encoders, head, memory."""
