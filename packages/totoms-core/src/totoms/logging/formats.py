"""Format a log record as exactly one line.

There are two formats: JSON with the field names that log stores index, and a readable line for a terminal. Both escape
control characters.
"""

from __future__ import annotations

import logging
import time
import traceback
from types import TracebackType
from typing import Final

import orjson

from totoms.context import current_cid, current_span_ids
from totoms.errors import TotoError
from totoms.logging.describe import error_text, texts_shown
from totoms.logging.fields import LAST, encode_fields, fields_of, given_with, quoted, reserve, show_fields
from totoms.logging.masking import mask
from totoms.logging.text import printed, visible

_MAX_ERRORS: Final = 10
"""The most causes and members of groups in one log line."""
_FRAMEWORKS: Final = frozenset({"anyio", "fastapi", "starlette", "totoms", "uvicorn"})
_Record: Final = logging.LogRecord
_MAX_TAILS: Final = 1000
_SEVERITIES: Final = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_COLOURS: Final = {
    "DEBUG": "",
    "INFO": "\x1b[0;36m",
    "WARNING": "\x1b[0;33m",
    "ERROR": "\x1b[0;31m",
    "CRITICAL": "\x1b[0;1;31m",
}

DEFAULT_LEVEL_FIELD: Final = "severity"


def severity(level: int) -> str:
    """Return the clouds' name for a level of the standard library."""
    for least, name in _SEVERITIES:
        if level >= least:
            return name
    return "DEBUG"


def format_error(error: BaseException) -> str:
    """Return the stack, the class and the message of `error` and of its causes, with secrets masked.

    With ``LogConfiguration(errors="class")``, source lines and the messages of errors other than `TotoError` are left
    out.
    """
    return "\n\nwhich led to\n\n".join(reversed(_chain(error, set())))


def _chain(error: BaseException, seen: set[int]) -> list[str]:
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _MAX_ERRORS:
        seen.add(id(current))
        frames = "".join(map(_frame, traceback.extract_tb(_own(current.__traceback__))[-50:]))
        frames = f"Traceback (most recent call last):\n{frames}" if frames else ""
        text = error_text(current) if texts_shown() or isinstance(current, TotoError) else "message withheld"
        parts.append(f"{frames}{type(current).__module__}.{type(current).__qualname__}: {text}{_notes(current)}")
        if isinstance(current, BaseExceptionGroup):
            for number, member in enumerate(current.exceptions, 1):
                text = "\n\nwhich led to\n\n".join(reversed(_chain(member, seen)))
                parts[-1] += f"\n  member {number}:\n" + "\n".join(f"    {line}" for line in text.split("\n"))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return parts


def _notes(error: BaseException) -> str:
    notes = vars(error).get("__notes__") if texts_shown() else None
    return "".join(f"\n{mask(printed(note))}" for note in notes) if isinstance(notes, list) else ""


def _frame(frame: traceback.FrameSummary) -> str:
    line = f"    {mask(frame.line)}\n" if texts_shown() and frame.line else ""
    return f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n{line}'


def _own(trace: TracebackType | None) -> TracebackType | None:
    # Leave out the frameworks' frames before the user's code: they are always the same.
    own = trace
    while own is not None and own.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _FRAMEWORKS:
        own = own.tb_next
    return own or trace


class Identity:
    """What the lines of this process say of its service. Of several services, the one created last decides.

    Attributes:
        service: The name, in lines that are not written by a `TotoLogger`.
        versions: The version of each service, by its name.
        level_field: How the log store calls the level.
        heads: How the lines of each level begin.
        tails: The fields that are the same in all lines of a service and a logger.
    """

    def __init__(self) -> None:
        self.service = ""
        self.versions: dict[str, str] = {}
        self.level_field = DEFAULT_LEVEL_FIELD
        self.heads: dict[int, str] = {}
        self.tails: dict[tuple[str, str], str] = {}

    def describe(self, service: str, version: str, level_field: str) -> None:
        """Set the name and the version of a service, and the level's field."""
        self.service = service
        self.versions[service] = version
        self.level_field = level_field
        reserve(level_field)
        self.heads.clear()
        self.tails.clear()

    def tail(self, service: str, logger: str) -> str:
        """Return the fields of a service and a logger."""
        version = self.versions.get(service)
        shown = f',"version":{quoted(version)}' if version else ""
        if len(self.tails) >= _MAX_TAILS:
            self.tails.clear()
        tail = self.tails[service, logger] = f',"service":{quoted(service)}{shown},"logger":{quoted(logger)}'
        return tail


identity: Final = Identity()


class JSONFormatter(logging.Formatter):
    """Writes one JSON object per record, on one line.

    Fields: ``severity`` (or how the hyperscaler's log store calls the level), ``message``, ``timestamp`` (RFC 3339,
    UTC), ``cid``, ``trace_id`` and ``span_id`` if they are known, ``service``, ``version`` if it is known, ``logger``,
    the fields given with the line and, for a record with an exception, ``exception``.

    Args:
        level_field: How the level is called; by default as the service's hyperscaler says.
    """

    def __init__(self, level_field: str = "") -> None:
        super().__init__()
        self._second = (0, "")
        self._level_field = level_field
        self._heads: dict[int, str] = {} if level_field else identity.heads
        if level_field:
            reserve(level_field)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`."""
        # Read from the dictionary: attributes of a record with fields are slower.
        of = record.__dict__
        ours = "totoms" in of and given_with(record) is not None
        failed = of["exc_info"] or of["exc_text"] or of["stack_info"]
        return self.line(
            of["levelno"],
            of["created"],
            quoted(str(of["cid"]) if ours else current_cid.get()),
            mask(record.getMessage()),
            str(of["service"]) if ours else identity.service,
            str(of["name"]),
            encode_fields(fields_of(record)) if ours or type(record) is not _Record else encode_fields(of, LAST),
            _exception(record) if failed else "",
        )

    def line(
        self,
        level: int,
        created: float,
        cid: str,
        message: str,
        service: str,
        logger: str,
        fields: str = "",
        exception: str = "",
    ) -> str:
        """Return the line for the fields of a record.

        Args:
            level: The level's number.
            created: Seconds since the epoch.
            cid: The correlation id, as JSON.
            message: The message, masked.
            service: The name of the service.
            logger: The name of the logger.
            fields: Further fields, as `encode_fields` returns them.
            exception: The text of an exception, masked.
        """
        head = self._heads.get(level) or self._head(level)
        trace, span = current_span_ids()
        ids = f',"trace_id":"{trace}"' if trace else ""
        if span:
            ids += f',"span_id":"{span}"'
        tail = identity.tails.get((service, logger)) or identity.tail(service, logger)
        if exception:
            shown = "\n".join(map(visible, exception.split("\n")))
            fields += f',"exception":{orjson.dumps(shown).decode()}'
        return f'{head}{quoted(message)},"timestamp":"{self.timestamp(created)}","cid":{cid}{ids}{tail}{fields}}}'

    def _head(self, level: int) -> str:
        field = self._level_field or identity.level_field
        head = self._heads[level] = f'{{{quoted(field)}:"{severity(level)}","message":'
        return head

    def timestamp(self, created: float) -> str:
        """Return `created`, seconds since the epoch, as RFC 3339. The part up to the second is cached."""
        second = int(created)
        known, text = self._second
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = (second, text)
        return f"{text}{int((created - second) * 1_000_000):06d}Z"


class LineFormatter(logging.Formatter):
    """Writes one readable line per record, for a terminal; an exception follows it, indented.

    Args:
        colours: Whether to colour the level, and dim the time and what the line is about.
    """

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, with an exception's lines below it."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = fields_of(record)
        given = given_with(record)
        service = visible(str(record.name) if given is None else str(record.service))  # type: ignore[attr-defined]
        cid = visible(current_cid.get() if given is None else str(record.cid))  # type: ignore[attr-defined]
        where = f"[{service}] [{cid}]" if cid else f"[{service}]"
        message = visible(mask(record.getMessage()))
        if given is not None and given.in_message:
            fields = {name: value for name, value in fields.items() if name not in given}
        shown = show_fields(fields) if fields else ""
        clock, level = f"{clock}.{int(record.msecs):03d}", f"{severity(record.levelno):8}"
        if self._colours:
            clock, level, where = f"{_DIM}{clock}", f"{_COLOURS[level.strip()]}{level}{_DIM}", f"{where}{_PLAIN}"
        line = f"{clock} {level} {where} {message}{shown}"
        exception = _exception(record)
        if exception:
            # Indented, so that none of these lines looks like a log line.
            line += "".join(f"\n    | {visible(text)}" for text in exception.split("\n"))
        return line


def _exception(record: logging.LogRecord) -> str:
    text = record.exc_text or ""
    error = record.exc_info[1] if record.exc_info else None
    if not text and error is not None:
        text = format_error(error)
    if record.stack_info:
        text = f"{text}\n{record.stack_info}" if text else record.stack_info
    return mask(text) if text else ""
