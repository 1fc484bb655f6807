"""The command line: ``python -m totoms``."""
