"""For tests and demonstrations: a server, and what an operator sets up on it."""
