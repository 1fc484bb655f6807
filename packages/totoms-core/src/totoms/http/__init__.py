"""HTTP: from a socket to a delegate, and its answer back."""
