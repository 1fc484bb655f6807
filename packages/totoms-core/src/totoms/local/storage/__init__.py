"""The local backend's files."""
