"""Audio bytes to 16 kHz waveforms: formats, readers, limits, speech."""
