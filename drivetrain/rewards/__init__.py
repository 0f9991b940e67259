"""Who judges: what is asked about a frame, what answers it, what reward comes of that, and whether it can be trusted."""
