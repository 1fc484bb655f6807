"""Checks of a declaration that start nothing."""
