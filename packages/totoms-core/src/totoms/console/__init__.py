"""The console: a web page that shows what local services do. ``run --console`` starts it."""

KEPT_VARIABLE = "_TOTOMS_CONSOLE"
"""The port and the token of the console. They stay the same over a reload, so that an open page keeps working."""
