"""`TotoLogger`, a thin layer over the standard library's :mod:`logging`.

Lines go to the logger ``totoms.<service>``, so handlers, filters and levels apply as usual. If the program has
configured none, :func:`configure_logging` installs a handler.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any, ClassVar, Final, Literal

from totoms.context import current_cid
from totoms.logging.describe import show_texts
from totoms.logging.formats import JSONFormatter, LineFormatter, format_error
from totoms.logging.handler import BatchHandler
from totoms.logging.levels import LEVELS_VARIABLE, level_from_variable, levels_from_variable, set_levels
from totoms.logging.masking import mask

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
_configured = False
"""Whether there is a handler: the program's own, or one installed by this module."""


class TotoLogger:
    """Logs lines with a correlation id and the service's name.

    Args:
        api_name: The service's name: the field ``service``, and the name of the logger ``totoms.<api_name>``.
    """

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
        """Return the process's default logger. The first non-empty `api_name` sets its name."""
        with _lock:
            if cls._instance is None:
                cls._instance = cls(api_name)
            elif api_name and cls._instance.api_name == _UNNAMED:
                cls._instance.api_name = api_name
            return cls._instance

    def log(
        self, correlation_id: str | None, msg: object, level: object = "INFO", error: BaseException | None = None
    ) -> None:
        """Log exactly one line. Never raises.

        Secrets that a `SecretsManager` read, tokens and signatures are masked.

        Args:
            correlation_id: The correlation id; None or "" for that of the request or message being handled.
            msg: What happened. Keep payloads out of it.
            level: A level of the standard library, by name in any case or by number; anything else means INFO.
            error: An exception whose stack, class and message to log. Of a pydantic error, the fields that are wrong
                are logged without their values.
        """
        number = _INFO if level == "INFO" else _level(level)
        if not _configured:
            _install_early_handler()
        if self._logger.isEnabledFor(number):
            self._write(correlation_id, mask(_string(msg)), number, error)

    def log_masked(self, correlation_id: str, text: str) -> None:
        """Log a line at the level INFO whose parts are masked already."""
        if not _configured:
            _install_early_handler()
        if self._logger.isEnabledFor(_INFO):
            self._write(correlation_id, text, _INFO, None)

    def _write(self, correlation_id: str | None, text: str, number: int, error: BaseException | None) -> None:
        logger = self._logger
        cid = _string(correlation_id) if correlation_id else current_cid.get()
        if error is None:
            handler = _sole_handler(logger, number)
            if handler is not None and isinstance(formatter := handler.formatter, JSONFormatter):
                handler.add(formatter.line(number, time.time(), cid, text, self._name, logger.name), number)
                return
        record = logger.makeRecord(logger.name, number, "totoms", 0, text, (), None)
        record.cid = cid
        record.service = self._name
        if error is not None:
            record.exc_text = format_error(error)
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
    except Exception as error:  # a __str__ that fails must not fail the caller
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"


def _sole_handler(logger: logging.Logger, level: int) -> BatchHandler | None:
    # If a BatchHandler is the only handler, no record (5 µs) is needed. Checked each time, as handlers may change.
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


def _install_early_handler() -> None:
    """Install a handler for lines logged before, or without, a service: 1.5.0 printed them.

    Install it on the logger ``totoms``, so that ``logging.basicConfig`` still configures the root logger.
    """
    global _configured
    root, own = logging.getLogger(), logging.getLogger(LOGGER_NAME)
    with _lock:
        _configured = True
        if root.handlers or own.handlers:
            return
        handler = _EarlyHandler()
        handler.setFormatter(LineFormatter() if _is_terminal() else JSONFormatter())
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
    global _configured
    with _lock:
        _configured = True
        _remove_early_handler(own)
        if not (root.handlers or own.handlers):
            handler = BatchHandler()
            handler.setFormatter(JSONFormatter() if (not _is_terminal() if json is None else json) else LineFormatter())
            root.addHandler(handler)
            root.setLevel(level or logging.INFO)
            if own.level == logging.NOTSET:
                own.setLevel(logging.INFO)
        if level is not None:
            own.setLevel(level)
        verbose = set_levels(levels)
    for name in verbose:
        TotoLogger.get_instance().log(
            "init",
            f"{LEVELS_VARIABLE}: {name} logs requests and answers of the SDK, which may include secrets and messages.",
            "WARNING",
        )


def flush_logging() -> None:
    """Write the batched lines. Called when a service stops; it also happens at exit."""
    for handler in logging.getLogger().handlers + logging.getLogger(LOGGER_NAME).handlers:
        if isinstance(handler, BatchHandler):
            handler.flush()


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # no standard output, or a closed one
        return False
