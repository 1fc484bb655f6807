"""Contracts: what a service promises to its callers and to the services that hear its events."""
