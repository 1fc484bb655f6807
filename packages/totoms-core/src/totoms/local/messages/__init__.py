"""The local backend's message bus: a broker in one SQLite file."""
