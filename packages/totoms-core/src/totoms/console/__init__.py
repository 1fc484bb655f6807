"""The console: what happens in the services of a developer's machine, in a browser. ``run --console`` starts it."""

KEPT_VARIABLE = "_TOTOMS_CONSOLE"
"""The port and the token of the console, which stay the same over a reload: the page in the browser goes on working."""
