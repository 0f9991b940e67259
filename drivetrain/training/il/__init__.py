"""Learning from what a demonstrator did."""
