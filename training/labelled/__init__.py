"""Work with labelled clips: calibrate, evaluate, and choose which clips are worth a label."""
