"""From what a user hands over to a folder of audio files."""
