"""Report a service that cannot start in one line, with exit status 2, instead of a stack trace.

The line is on standard error. If the log is ours and not on a terminal, it has the error as well, as JSON.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Final

from totoms.errors import ConfigurationError
from totoms.logging import setup
from totoms.logging.describe import printable
from totoms.logging.formats import identity
from totoms.logging.logger import TotoLogger
from totoms.logging.masking import mask

EXIT_STATUS: Final = 2
"""The exit status for wrong arguments or settings, as shells and argparse use it."""


def install() -> None:
    """Install a hook for uncaught `ConfigurationError`s. Others go to the previous hook, unless they quote a secret."""
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _log(error)
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


def mark_logged(error: BaseException) -> None:
    """Note that the log has `error` already, in case it ends the process."""
    _logged[:] = [error]


_logged: list[BaseException] = []


def _log(error: BaseException) -> None:
    """Log the error that ends the process: one of the configuration, or any other of a process with a service."""
    if any(error is one for one in _logged) or not setup.writes_json() or not isinstance(error, Exception):
        return
    logger = TotoLogger.get_instance()
    if isinstance(error, ConfigurationError):
        logger.log("init", str(error), "CRITICAL")
    elif identity.service:
        logger.log("init", f"{identity.service} ends: an exception was not caught", "CRITICAL", error)
