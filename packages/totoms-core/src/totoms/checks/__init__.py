"""Checks of a declaration that do not start the service."""
