"""The console: what happens in the services of a developer's machine, in a browser. ``run --console`` starts it."""

TOKEN_VARIABLE = "_TOTOMS_CONSOLE_TOKEN"
"""The token of the console, which stays the same over a reload: the page in the browser goes on working."""
