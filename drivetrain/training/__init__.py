"""How policies learn: one algorithm, one file; each with Config, DEBUG, losses and train."""
