"""The built-in backend `local`: messages, files and secrets on this machine, for development and tests."""
