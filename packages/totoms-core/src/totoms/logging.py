"""Logging: `TotoLogger`, a thin face of the standard library's :mod:`logging`.

Lines go to the logger ``totoms.<service>``, so that handlers, filters and levels set the usual way apply. Where nobody
set any, :func:`configure_logging` installs a handler of ours.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any, ClassVar, Final

from totoms.context import current_cid
from totoms.log_format import JSONFormatter, LineFormatter, describe_error
from totoms.log_writer import BatchHandler

LOGGER_NAME: Final = "totoms"

_LEVELS: Final[dict[Any, int]] = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
    None: logging.INFO,
}
_INFO: Final = logging.INFO
_UNNAMED: Final = "unknown"
_lock: Final = threading.Lock()


class TotoLogger:
    """Writes lines that carry a correlation id and the service's name.

    Args:
        api_name: The service's name. It becomes the field ``service`` and, in the standard library, the logger
            ``totoms.<api_name>``.
    """

    __slots__ = ("_logger", "_name")
    _instance: ClassVar[TotoLogger | None] = None

    def __init__(self, api_name: str = "") -> None:
        self.api_name = api_name

    @property
    def api_name(self) -> str:
        """The service's name."""
        return self._name

    @api_name.setter
    def api_name(self, name: str) -> None:
        self._name = name or _UNNAMED
        self._logger = logging.getLogger(f"{LOGGER_NAME}.{self._name}")

    @classmethod
    def get_instance(cls, api_name: str = "") -> TotoLogger:
        """Return the process's default logger. The first non-empty `api_name` names it, for all who hold it."""
        with _lock:
            if cls._instance is None:
                cls._instance = cls(api_name)
            elif api_name and cls._instance.api_name == _UNNAMED:
                cls._instance.api_name = api_name
            return cls._instance

    def log(
        self, correlation_id: str | None, msg: object, level: object = "INFO", error: BaseException | None = None
    ) -> None:
        """Write one line. Never raises, and never writes more than one line.

        Args:
            correlation_id: The correlation id; None or "" stands for that of the request or message at hand.
            msg: What happened. Keep secrets, tokens and payloads out of it.
            level: A level of the standard library, by name in any case or by number; anything else means INFO.
            error: An exception whose class and stack are logged. Its text is withheld, as it may quote a caller or a
                secret, unless it is a `TotoError` or this logger's level is DEBUG.
        """
        logger = self._logger
        number = _INFO if level == "INFO" else _level(level)
        if not logger.isEnabledFor(number):
            return
        if error is None:
            handler = _sole_handler(logger, number)
            if handler is not None and isinstance(formatter := handler.formatter, JSONFormatter):
                cid = _string(correlation_id) if correlation_id else current_cid.get()
                line = formatter.line(number, time.time(), cid, _string(msg), self._name, logger.name)
                handler.add(line, number)
                return
        record = logger.makeRecord(logger.name, number, "totoms", 0, _string(msg), (), None)
        record.cid = _string(correlation_id) if correlation_id else current_cid.get()
        record.service = self._name
        if error is not None:
            record.exc_text = describe_error(error, messages=logger.isEnabledFor(logging.DEBUG))
        logger.handle(record)


def _level(level: Any) -> int:
    if isinstance(level, str):
        return _LEVELS.get(level) or _LEVELS.get(level.strip().upper(), logging.INFO)
    if isinstance(level, int) and not isinstance(level, bool) and 0 < level <= logging.CRITICAL:
        return level
    return logging.INFO


def _string(value: object) -> str:
    if type(value) is str:
        return value
    try:
        return str(value)
    except Exception as error:  # an object whose __str__ fails must not fail the caller
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"


def _sole_handler(logger: logging.Logger, level: int) -> BatchHandler | None:
    # Where nobody but us looks at a record, making one (5 µs) is saved. Looked up each time: handlers come and go.
    found: logging.Handler | None = None
    current: logging.Logger | None = logger
    if logger.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    while current is not None:
        if current.handlers:
            if found is not None or len(current.handlers) > 1:
                return None
            found = current.handlers[0]
        current = current.parent if current.propagate else None
    if type(found) is not BatchHandler or found.filters or level < found.level:
        return None
    return found if type(found.formatter) is JSONFormatter else None


def configure_logging(*, json: bool | None = None) -> None:
    """Make log lines appear, unless somebody set up logging already. Called when a service starts.

    When neither the root logger nor ``totoms`` has a handler, one that writes to standard output is installed on the
    root logger, and ``totoms`` is let through from INFO on. Otherwise nothing is touched.

    Args:
        json: Whether to write JSON objects; by default, unless standard output is a terminal.
    """
    root, ours = logging.getLogger(), logging.getLogger(LOGGER_NAME)
    with _lock:
        if root.handlers or ours.handlers:
            return
        if json is None:
            json = not _is_terminal()
        handler = BatchHandler()
        handler.setFormatter(JSONFormatter() if json else LineFormatter())
        root.addHandler(handler)
        if ours.level == logging.NOTSET:
            ours.setLevel(logging.INFO)


def flush_logging() -> None:
    """Write out what is still in a batch. Called when a service stops; it also happens at exit."""
    for handler in logging.getLogger().handlers + logging.getLogger(LOGGER_NAME).handlers:
        if isinstance(handler, BatchHandler):
            handler.flush()


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # no standard output, or a closed one
        return False
