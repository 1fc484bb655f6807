"""Processes that have metrics, and what Prometheus would read from them."""
