"""totoms in the memory of one process."""
