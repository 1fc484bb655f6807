"""Hyperscaler plugins: the hooks, and how a plugin is found, loaded and configured."""
