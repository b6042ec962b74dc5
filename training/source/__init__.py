"""Source training: the run and its trainer."""
