"""Write dead letters to a file of their owner's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from totoms.cli.fakes import Fakes
from totoms.errors import ConfigurationError
from totoms.messages.dead_letters import DeadLetter
from totoms.messages.exported import to_line


def refuse_existing(path: Path) -> None:
    """Raise ConfigurationError if there is a file already, or no folder for it."""
    if os.path.lexists(path):
        raise ConfigurationError(f"{path} exists already: an export replaces no file.")
    if not path.parent.is_dir():
        raise ConfigurationError(f"There is no folder {str(path.parent)!r}.")


def write_export(path: Path, dead_letters: Sequence[DeadLetter], *, with_data: bool) -> None:
    """Write dead letters, one on each line, to a new file that only its owner may read.

    Args:
        path: The file.
        dead_letters: What to write.
        with_data: Whether to write the values that were published; otherwise fakes of the same shape.

    Raises:
        ConfigurationError: The file exists already, or cannot be written. Nothing is left of it then.
    """
    fakes = Fakes()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already: an export replaces no file.") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            for one in dead_letters:
                file.write(to_line(one if with_data else fakes.dead_letter(one), with_data=with_data) + "\n")
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
        raise
