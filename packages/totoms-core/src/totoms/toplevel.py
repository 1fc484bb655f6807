"""What a person sees when a service cannot start: one line, exit status 2, never a stack trace."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final

from totoms.describe import printable
from totoms.errors import ConfigurationError

EXIT_STATUS: Final = 2
"""Status for a mistake in how the program was called or configured, as shells and argparse use it."""


def install() -> None:
    """Have an uncaught `ConfigurationError` end the process with one line; all else goes to the hook before."""
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, ConfigurationError):
            sys.stderr.write(f"totoms: {printable(str(error))}\n")
            sys.stderr.flush()
            sys.exit(EXIT_STATUS)  # the interpreter takes the status of a SystemExit raised in this hook
        previous(kind, error, trace)

    sys.excepthook = excepthook
