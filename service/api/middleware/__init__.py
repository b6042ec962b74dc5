"""What surrounds every request: access, origin, uploads, log."""
