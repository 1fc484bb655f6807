"""What commands print: tables, times, notes and log lines, with control characters replaced."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from totoms.logging.describe import printable
from totoms.logging.setup import LOGGER_NAME


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; an empty cell is a dash."""
    table = [list(columns), *([printable(str(cell)) or "-" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(columns))]
    for line in table:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def print_findings(findings: Sequence[Any], line: Callable[[Any], str], summary: str, *, as_json: bool) -> None:
    """Print the findings of a command: a line for each and a summary, or JSON.

    Args:
        findings: Instances of a dataclass.
        line: Returns the line of one.
        summary: The last line.
        as_json: Whether to print JSON.
    """
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in findings], indent=2, ensure_ascii=False) + "\n")
        return
    for one in findings:
        sys.stdout.write(f"{line(one)}\n")
    sys.stdout.write(f"{summary}\n")


def print_note(text: str) -> None:
    """Print a line on standard error, apart from the results."""
    sys.stderr.write(f"totoms: {printable(text)}\n")


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


@contextmanager
def log_as_notes() -> Iterator[None]:
    """Print warnings and errors of totoms's log as notes, so that standard output has the results only."""
    own, handler = logging.getLogger(LOGGER_NAME), _NoteHandler(logging.WARNING)
    own.addHandler(handler)
    try:
        yield
    finally:
        own.removeHandler(handler)


def iso(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as ``2026-12-01T03:00:00Z``."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # out of range
        return str(seconds)


def counted(number: int, what: str = "dead letter") -> str:
    """Return ``1 dead letter`` or ``2 dead letters``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
