"""Learning a world, and a policy in dreams of it."""
