"""Learning from what is tried in the world."""
