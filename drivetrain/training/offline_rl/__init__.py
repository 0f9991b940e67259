"""Learning from what others did, without acting: one algorithm, one file."""
