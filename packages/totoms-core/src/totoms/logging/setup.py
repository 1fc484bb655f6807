"""Set up the log of the process: our handler, the levels, and the loggers of servers.

What the program has set up itself stays: if the root logger or ``totoms`` has a handler, none is installed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Final, Literal

from totoms.context import current_cid
from totoms.logging.describe import show_texts
from totoms.logging.formats import JSONFormatter, LineFormatter
from totoms.logging.handler import BatchHandler
from totoms.logging.levels import LEVELS_VARIABLE, level_from_variable, levels_from_variable, set_levels

LOGGER_NAME: Final = "totoms"
_SERVERS: Final = ("uvicorn", "uvicorn.error", "gunicorn.error", "_granian")
_SERVERS_ACCESS: Final = ("uvicorn.access", "gunicorn.access", "granian.access")
_lock: Final = threading.Lock()
_shared: list[BatchHandler] = []
configured = False
"""Whether there is a handler: the program's own, or one installed by this module."""


class _EarlyHandler(BatchHandler):
    """Writes lines logged before the service starts, unless the root logger has a handler by then.

    Attributes:
        set_level: Whether installing it set the level of the logger ``totoms``.
    """

    set_level = False

    def handle(self, record: logging.LogRecord) -> bool:
        if logging.getLogger().handlers:
            return False
        return bool(super().handle(record))


def install_early_handler() -> None:
    """Install a handler for lines logged before, or without, a service: 1.5.0 printed them.

    Install it on the logger ``totoms``, so that ``logging.basicConfig`` still configures the root logger.
    """
    global configured
    root, own = logging.getLogger(), logging.getLogger(LOGGER_NAME)
    with _lock:
        configured = True
        if root.handlers or own.handlers:
            return
        handler = _EarlyHandler()
        handler.setFormatter(_formatter(None))
        own.addHandler(handler)
        if own.level == logging.NOTSET:
            own.setLevel(logging.INFO)
            handler.set_level = True


def _remove_early_handler(own: logging.Logger) -> None:
    for handler in own.handlers[:]:
        if isinstance(handler, _EarlyHandler):
            handler.close()
            own.removeHandler(handler)
            if handler.set_level:
                own.setLevel(logging.NOTSET)


def configure_logging(*, json: bool | None = None, errors: Literal["text", "class"] = "text") -> None:
    """Configure logging when a service starts, as far as the program has not done so already.

    If neither the root logger nor ``totoms`` has a handler, install one on the root logger that writes to standard
    output, and set the level of all loggers to ``LOG_LEVEL``, by default INFO. If the program has handlers of its own,
    ``LOG_LEVEL`` sets the level of ``totoms`` only. ``LOG_LEVELS`` sets the levels of single loggers.

    Args:
        json: Whether to write JSON objects; by default unless standard output is a terminal.
        errors: Whether to log the text of exceptions, or their class and place only.

    Raises:
        ConfigurationError: ``LOG_LEVEL`` or ``LOG_LEVELS`` is wrong.
    """
    level, levels = level_from_variable(), levels_from_variable()
    show_texts(errors == "text")
    root, own = logging.getLogger(), logging.getLogger(LOGGER_NAME)
    global configured
    with _lock:
        configured = True
        _remove_early_handler(own)
        if not (root.handlers or own.handlers):
            root.addHandler(_handler(json))
            root.setLevel(level or logging.INFO)
            if own.level == logging.NOTSET:
                own.setLevel(logging.INFO)
        if level is not None:
            own.setLevel(level)
        verbose = set_levels(levels)
    token = current_cid.set("init")
    try:
        for name in verbose:
            own.warning(
                f"{LEVELS_VARIABLE}: {name} logs requests and answers of the SDK, which may include secrets and "
                "messages."
            )
    finally:
        current_cid.reset(token)


def adopt_servers(*, access: bool) -> None:
    """Send the log lines of uvicorn, gunicorn and granian to our log, unless the program configured their logging.

    Their handlers that write plain text to standard output or error are replaced by ours; files, and handlers with a
    formatter of the program's, stay.

    Args:
        access: Whether the service writes a line for each request, so that the server need not.
    """
    handlers = logging.getLogger().handlers
    if not all(isinstance(handler, BatchHandler) for handler in handlers):
        return
    for name in _SERVERS + _SERVERS_ACCESS:
        own = logging.getLogger(name).handlers
        kept = [handler for handler in own if not _is_plain(handler)]
        if len(kept) < len(own):
            # In place: gunicorn's worker gives one list to several loggers.
            own[:] = kept if access and name in _SERVERS_ACCESS else [*kept, *(handlers or [_handler(None)])]
        if access and name in _SERVERS_ACCESS:
            logging.getLogger(name).propagate = False


def _is_plain(handler: logging.Handler) -> bool:
    if type(handler) is not logging.StreamHandler:
        return False
    plain = type(handler.formatter) in (logging.Formatter, type(None))
    return plain or type(handler.formatter).__module__.startswith("uvicorn.")


def writes_json() -> bool:
    """Return whether the log of this process is ours, and JSON."""
    handlers = logging.getLogger().handlers or logging.getLogger(LOGGER_NAME).handlers
    if handlers:
        return any(isinstance(handler.formatter, JSONFormatter) for handler in handlers)
    return not _is_terminal()


def flush_logging() -> None:
    """Write the batched lines. Called when a service stops; it also happens at exit."""
    for handler in logging.getLogger().handlers + logging.getLogger(LOGGER_NAME).handlers:
        if isinstance(handler, BatchHandler):
            handler.flush()


def _handler(json: bool | None) -> BatchHandler:
    """Return our handler, the same one for the root logger and the loggers of servers."""
    if not _shared:
        _shared.append(BatchHandler())
    _shared[0].setFormatter(_formatter(json))
    return _shared[0]


def _formatter(json: bool | None) -> logging.Formatter:
    if not _is_terminal() if json is None else json:
        return JSONFormatter()
    # https://no-color.org
    colours = _is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return LineFormatter(colours=colours)


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # no standard output, or a closed one
        return False
