"""Contracts: the endpoints and events that callers and other services rely on."""
