"""The log: `TotoLogger`, its line formats and its handler."""
