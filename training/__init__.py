"""Training: one script per stage, run from a clone as `python -m training.<stage>`."""
