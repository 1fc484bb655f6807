"""New services: the files that ``python -m totoms new`` writes."""
