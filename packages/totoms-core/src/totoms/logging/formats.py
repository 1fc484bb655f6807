"""Format a log record as exactly one line.

There are two formats: JSON with the field names that the clouds index
(https://cloud.google.com/logging/docs/structured-logging, CloudWatch and Azure Monitor parse the same object),
and a readable line for a terminal. Both escape control characters.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from types import TracebackType
from typing import Final

import orjson

from totoms.context import current_cid
from totoms.errors import TotoError
from totoms.logging.describe import error_text, texts_shown
from totoms.logging.masking import mask

# C0 and C1 controls, DEL, the Unicode line ends and text-direction overrides, and lone surrogates (no UTF-8 for them).
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MAX_ERRORS: Final = 10
"""The most causes and members of groups in one log line."""
_FRAMEWORKS: Final = frozenset({"anyio", "fastapi", "starlette", "totoms", "uvicorn"})
_SEVERITIES: Final = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))


def visible(text: str) -> str:
    r"""Return `text` with control characters, line ends and lone surrogates as escapes (``\n``, ``\x1b``)."""
    if text.isprintable():
        return text
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


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
    notes = getattr(error, "__notes__", None) if texts_shown() else None
    return "".join(f"\n{mask(str(note))}" for note in notes) if isinstance(notes, list) else ""


def _frame(frame: traceback.FrameSummary) -> str:
    line = f"    {mask(frame.line)}\n" if texts_shown() and frame.line else ""
    return f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n{line}'


def _own(trace: TracebackType | None) -> TracebackType | None:
    # Leave out the frameworks' frames before the user's code: they are always the same.
    own = trace
    while own is not None and own.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _FRAMEWORKS:
        own = own.tb_next
    return own or trace


class JSONFormatter(logging.Formatter):
    """Writes one JSON object per record, on one line.

    Fields: ``severity``, ``level``, ``message``, ``timestamp`` (RFC 3339, UTC), ``cid``, ``service``, ``logger`` and,
    for a record with an exception, ``exception``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`."""
        return self.line(
            record.levelno,
            record.created,
            str(getattr(record, "cid", "") or current_cid.get()),
            mask(record.getMessage()),
            str(getattr(record, "service", "")),
            record.name,
            _exception(record),
        )

    def line(
        self, level: int, created: float, cid: str, message: str, service: str, logger: str, exception: str = ""
    ) -> str:
        """Return the line for the fields of a record."""
        name = severity(level)
        fields = {
            "severity": name,
            "level": name,
            "message": message if message.isprintable() else visible(message),
            "timestamp": self.timestamp(created),
            "cid": cid if cid.isprintable() else visible(cid),
            "service": service if service.isprintable() else visible(service),
            "logger": logger if logger.isprintable() else visible(logger),
        }
        if exception:
            fields["exception"] = "\n".join(map(visible, exception.split("\n")))
        return orjson.dumps(fields).decode()

    def timestamp(self, created: float) -> str:
        """Return `created`, seconds since the epoch, as RFC 3339. The part up to the second is cached."""
        second = int(created)
        known, text = self._second
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = (second, text)
        return f"{text}{int((created - second) * 1_000_000):06d}Z"


class LineFormatter(logging.Formatter):
    """Writes one readable line per record, for a terminal; an exception follows it, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, with an exception's lines below it."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        service = visible(str(getattr(record, "service", "") or record.name))
        cid = visible(str(getattr(record, "cid", "") or current_cid.get()))
        where = f"[{service}] [{cid}]" if cid else f"[{service}]"
        line = (
            f"{clock}.{int(record.msecs):03d} {severity(record.levelno):8} {where} {visible(mask(record.getMessage()))}"
        )
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
