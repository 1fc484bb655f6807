"""Dead letters of production as messages of a test."""

from __future__ import annotations

import os
from pathlib import Path

from totoms.errors import ConfigurationError
from totoms.messages.dead_letters import DeadLetter
from totoms.messages.exported import from_line


def load_dead_letters(path: str | os.PathLike[str]) -> list[DeadLetter]:
    """Return the dead letters of a file that ``python -m totoms dlq export`` wrote, for `TestMicroservice.deliver`.

    Args:
        path: The file.

    Raises:
        ConfigurationError: A line is not a dead letter; the message names it.
        OSError: The file cannot be read.
    """
    found: list[DeadLetter] = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(from_line(line.decode()))
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{path}:{number} is not an exported dead letter: {error}") from None
    return found
