"""The contract of starting and stopping a service."""
