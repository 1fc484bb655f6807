"""Report a service that cannot start in one line, with exit status 2, instead of a stack trace."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Final

from totoms.errors import ConfigurationError
from totoms.logging.describe import printable
from totoms.logging.masking import mask

EXIT_STATUS: Final = 2
"""The exit status for wrong arguments or settings, as shells and argparse use it."""


def install() -> None:
    """Install a hook for uncaught `ConfigurationError`s. Others go to the previous hook, unless they quote a secret."""
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, ConfigurationError):
            sys.stderr.write(f"totoms: {printable(str(error))}\n")
            sys.stderr.flush()
            sys.exit(EXIT_STATUS)  # the interpreter uses the status of a SystemExit raised in the hook
        text = "".join(traceback.format_exception(kind, error, trace))
        if (masked := mask(text)) == text:
            previous(kind, error, trace)
        else:
            sys.stderr.write(masked)

    sys.excepthook = excepthook
