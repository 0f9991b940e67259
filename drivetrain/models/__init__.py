"""Networks only: no data, no optimiser, no loop."""
