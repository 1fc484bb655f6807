"""`TotoLogger`, a thin layer over the standard library's :mod:`logging`.

Lines go to the logger ``totoms.<service>``, so handlers, filters and levels apply as usual. If the program has
configured none, `totoms.logging.setup` installs a handler.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any, ClassVar, Final

from totoms.context import current_cid
from totoms.logging import setup
from totoms.logging.fields import GivenFields, encode_fields, quoted
from totoms.logging.formats import JSONFormatter, format_error
from totoms.logging.handler import BatchHandler
from totoms.logging.masking import mask
from totoms.logging.text import printed

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
_MAX_REQUESTS: Final = 1000
_MAX_REMEMBERED: Final = 500
_requests: Final[dict[tuple[str, str, int, str], str]] = {}
_UNNAMED: Final = "unknown"
_lock: Final = threading.Lock()


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
        self._logger = logging.getLogger(f"{setup.LOGGER_NAME}.{self._name}")

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
        if not setup.configured:
            setup.install_early_handler()
        if self._logger.isEnabledFor(number):
            self._write(correlation_id, mask(printed(msg)), number, error)

    def debug(self, message: object, /, **fields: object) -> None:
        """Log a line at DEBUG, with the correlation id of the request or message being handled. Never raises.

        Args:
            message: What happened. Keep payloads out of it.
            fields: Fields of the line: ``logger.info("Paid", invoice=7)``. Secrets in their values are masked, and
                what JSON cannot hold becomes text. A name that the line has itself, such as ``cid``, gets the prefix
                ``extra_``.
        """
        self._log(message, logging.DEBUG, None, fields)

    def info(self, message: object, /, **fields: object) -> None:
        """Log a line at INFO; see `debug`."""
        self._log(message, _INFO, None, fields)

    def warning(self, message: object, /, **fields: object) -> None:
        """Log a line at WARNING; see `debug`."""
        self._log(message, logging.WARNING, None, fields)

    def error(self, message: object, /, **fields: object) -> None:
        """Log a line at ERROR; see `debug`. In an ``except`` block, `exception` adds the exception."""
        self._log(message, logging.ERROR, None, fields)

    def exception(self, message: object, /, **fields: object) -> None:
        """Log a line at ERROR with the exception being handled; see `debug`."""
        self._log(message, logging.ERROR, sys.exc_info()[1], fields)

    def enabled(self, level: int) -> bool:
        """Return whether lines of a level of the standard library are written."""
        return self._logger.isEnabledFor(level)

    def log_request(
        self, correlation_id: str, text: str, level: int, method: str, route: str, status: int, time_: str, subject: str
    ) -> None:
        """Log the line of a request.

        Args:
            correlation_id: The correlation id, which was checked.
            text: The readable line, masked.
            level: The level.
            method: The HTTP method, or ``WEBSOCKET``.
            route: The path template of the route; "" if no route matched.
            status: The HTTP status.
            time_: Milliseconds that the request took, with one decimal.
            subject: The caller, masked; "" leaves the field out.
        """
        if not setup.configured:
            setup.install_early_handler()
        if not self._logger.isEnabledFor(level):
            return
        handler = _sole_handler(self._logger, level)
        if handler is not None and isinstance(formatter := handler.formatter, JSONFormatter):
            key = (method, route, status, subject)
            fields = f'{_requests.get(key) or _request_fields(key)},"milliseconds":{time_}'
            cid, name = f'"{correlation_id}"', self._logger.name
            handler.add(formatter.line(level, time.time(), cid, text, self._name, name, fields), level)
            return
        given = GivenFields(method=method, route=route, status=status)
        if subject:
            given["subject"] = subject
        given["milliseconds"] = float(time_)
        given.in_message = True
        self._handle(correlation_id, text, level, None, given)

    def _log(self, message: object, number: int, error: BaseException | None, fields: dict[str, object]) -> None:
        if not setup.configured:
            setup.install_early_handler()
        if self._logger.isEnabledFor(number):
            self._write("", mask(printed(message)), number, error, fields)

    def _write(
        self,
        correlation_id: str | None,
        text: str,
        number: int,
        error: BaseException | None,
        fields: dict[str, object] | None = None,
    ) -> None:
        cid = printed(correlation_id) if correlation_id else current_cid.get()
        if error is None:
            handler = _sole_handler(self._logger, number)
            if handler is not None and isinstance(formatter := handler.formatter, JSONFormatter):
                encoded = encode_fields(fields) if fields else ""
                name = self._logger.name
                handler.add(formatter.line(number, time.time(), quoted(cid), text, self._name, name, encoded), number)
                return
        self._handle(cid, text, number, error, GivenFields(fields or {}))

    def _handle(self, cid: str, text: str, number: int, error: BaseException | None, fields: GivenFields) -> None:
        """Have a record handled as the standard library does, with the fields as its attributes."""
        logger = self._logger
        record = logger.makeRecord(logger.name, number, "totoms", 0, text, (), None)
        attributes = record.__dict__
        attributes.update((name, value) for name, value in fields.items() if name not in attributes)
        attributes.update(cid=cid, service=self._name, totoms=fields)
        if error is not None:
            record.exc_text = format_error(error)
        logger.handle(record)


def _request_fields(key: tuple[str, str, int, str]) -> str:
    """Return the JSON of the fields of a request, which are the same in many requests, and remember it."""
    if len(_requests) >= _MAX_REQUESTS:
        _requests.clear()
    method, route, status, subject = key
    named = f',"subject":{quoted(subject)}' if subject else ""
    fields = f',"method":{quoted(method)},"route":{quoted(route)},"status":{status}{named}'
    if len(fields) <= _MAX_REMEMBERED:
        _requests[key] = fields
    return fields


def _level(level: Any) -> int:
    if isinstance(level, str):
        return _LEVELS.get(level) or _LEVELS.get(level.strip().upper(), logging.INFO)
    if isinstance(level, int) and not isinstance(level, bool) and 0 < level <= logging.CRITICAL:
        return level
    return logging.INFO


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
