"""Fields of a log line in addition to its own: ``extra=`` of the standard library, and keywords of `TotoLogger`.

Values become JSON, with secrets masked; what JSON cannot hold becomes text. Keys stay as they are.
"""

from __future__ import annotations

import datetime
import enum
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from totoms.logging.describe import error_text
from totoms.logging.masking import mask
from totoms.logging.text import printed, visible

PREFIX: Final = "extra_"
"""What a field of the user's is prefixed with whose name is one of a line's own fields, on every backend alike."""
_own = {"severity", "level", "message", "timestamp", "cid", "trace_id", "span_id"}
_own |= {"service", "version", "logger", "exception"}
# `color_message` is uvicorn's: the message again, for a terminal with colours.
_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"})
_MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 1000
"""Items of containers in one field: a structure that contains itself twice would double with each level."""
_MAX_NAMES: Final = 1000
_LEAST: Final = -(2**63)
_GREATEST: Final = 2**63 - 1
"""Integers beyond these are written as text: most stores and parsers hold 64 bits."""
_names: Final[dict[str, str]] = {}


LAST: Final = list(vars(logging.makeLogRecord({})))[-1]
"""The last attribute that a record of the standard library has by itself."""


class GivenFields(dict[str, object]):
    """The fields that `TotoLogger` puts on a record, which tell its records from others.

    Attributes:
        in_message: Whether the message has them already, so that a readable line need not repeat them.
    """

    in_message = False


def given_with(record: logging.LogRecord) -> GivenFields | None:
    """Return the fields that `TotoLogger` put on a record; None for a record of others."""
    given = record.__dict__.get("totoms")
    return given if isinstance(given, GivenFields) else None


def reserve(name: str) -> None:
    """Add a name to those of a line's own fields: what the hyperscaler's log store calls the level."""
    if name not in _own:
        _own.add(name)
        _names.clear()


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a record in addition to those of the standard library."""
    found = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    given = given_with(record)
    if given is not None:
        for name in ("totoms", "cid", "service"):
            found.pop(name, None)
        found.update(given)
    return found


def encode_fields(fields: dict[Any, Any], behind: str | None = None) -> str:
    """Return the JSON of fields, each with a comma before it: ``,"invoice":7``.

    Args:
        fields: The fields, or the attributes of a record.
        behind: The last of the record's own attributes. Fields come behind it, so they are read from the end: to look
            at each of the others takes longer than all else.
    """
    text = ""
    for name in reversed(fields):
        key = _names.get(name)
        if key is None:
            if behind is not None and name in _STANDARD:
                if name == behind:
                    break
                continue
            key = _key(name, fields)
        value = fields[name]
        kind = type(value)
        if kind is int and _LEAST <= value <= _GREATEST:
            text = f"{key}{value}{text}"
        elif kind is str and value.isprintable():
            text = f"{key}{quoted(mask(value))}{text}"
        elif kind is float and math.isfinite(value):
            text = f"{key}{value!r}{text}"
        else:
            text = f"{key}{orjson.dumps(_plain(value)).decode()}{text}"
    return text


def show_fields(fields: Mapping[Any, object]) -> str:
    """Return fields for a terminal: `` invoice=7 customer="Jane Doe"``."""
    text = ""
    for name, value in fields.items():
        plain = _plain(value)
        simple = isinstance(plain, str) and plain.isprintable() and not set(plain) & set(" \"'=") and plain
        text += f" {visible(_name_of(name, fields))}={plain if simple else visible(orjson.dumps(plain).decode())}"
    return text


def quoted(text: str) -> str:
    """Return the JSON of a text on one line, with its control characters as escapes."""
    if text.isprintable():
        return f'"{text}"' if '"' not in text and "\\" not in text else orjson.dumps(text).decode()
    return orjson.dumps(visible(text)).decode()


def _key(name: object, fields: Mapping[Any, object]) -> str:
    key = f",{quoted(_name_of(name, fields))}:"
    if type(name) is str and name not in _own and name not in _STANDARD:
        if len(_names) >= _MAX_NAMES:
            _names.clear()
        _names[name] = key
    return key


def _name_of(name: object, fields: Mapping[Any, object]) -> str:
    text = name if type(name) is str else printed(name)
    while text in _own or (text is not name and text in fields):
        text = PREFIX + text
    return text


def _plain(value: object) -> Any:
    """Return a value as JSON has it; never raises."""
    return _item(value, 0, iter(range(_MAX_ITEMS)))


def _item(value: object, depth: int, left: Iterator[int]) -> Any:
    try:
        return _converted(value, depth, left)
    except Exception as error:  # a container that changes meanwhile, or whose methods fail
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"


def _converted(value: object, depth: int, left: Iterator[int]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return _converted(value.value, depth, left)
    if isinstance(value, str):
        return _text(str.__str__(value))
    if isinstance(value, int):
        whole = int.__index__(value)
        return whole if _LEAST <= whole <= _GREATEST else str(whole)
    if isinstance(value, float):
        number = float.__float__(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {error_text(value)}")
    if isinstance(value, (bytes, bytearray)):
        return _text(repr(bytes(value)))
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        if depth >= _MAX_DEPTH:
            return f"<{type(value).__name__}>"
        # `left` comes first: zip stops without taking an item.
        if isinstance(value, dict):
            shown = {
                visible(printed(name)): _item(one, depth + 1, left)
                for _, (name, one) in zip(left, value.items(), strict=False)
            }
            return shown if len(shown) >= len(value) else {**shown, "...": f"{len(value) - len(shown)} more"}
        items = [_item(one, depth + 1, left) for _, one in zip(left, value, strict=False)]
        return items if len(items) >= len(value) else [*items, f"... {len(value) - len(items)} more"]
    return _text(printed(value))


def _text(text: str) -> str:
    return "\n".join(map(visible, mask(text).split("\n")))
