"""API keys: what one is, the file that holds their hashes, and a ring that follows the file."""
