"""Parses events of Event Grid without changing the messages in them.

There are two schemas, one event or an array of them (https://learn.microsoft.com/azure/event-grid/event-schema,
https://learn.microsoft.com/azure/event-grid/cloud-event-schema); a CloudEvent has a ``specversion``. Event Grid accepts
CloudEvents in HTTP headers ("binary mode"), but never sends them
(https://learn.microsoft.com/azure/event-grid/namespaces-cloud-events).

The message is the event's ``data``. Its bytes are cut out of the body as they are: parsed and written again, numbers
that no float can hold would change. That also keeps one malformed event from spoiling the array that it is in.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from totoms.plugin import CONTENT_TYPE_ATTRIBUTE, TRACEPARENT_ATTRIBUTE, TYPE_ATTRIBUTE

MOST_EVENTS: Final = 5000
"""In one request (https://learn.microsoft.com/azure/event-grid/delivery-and-retry#output-batching)."""
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
"""An unterminated string takes the rest of the text, so that no text is scanned twice."""
_TOKEN: Final = re.compile(_STRING + rb"|[][{},]", re.DOTALL)
_NAME: Final = re.compile(rb"[ \t\r\n]*(" + _STRING + rb")[ \t\r\n]*:", re.DOTALL)
_SPACE: Final = b" \t\r\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UNLIMITED: Final = sys.maxsize
_LONGEST_ID: Final = 128
"""The longest message id of Service Bus, which keeps the dead letters."""
_LONGEST_ATTRIBUTE: Final = 1024


class TooManyEvents(Exception):
    """There are more than `MOST_EVENTS`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        body: The message; if there is none, the event itself in an array, which is not a message.
        origin: The topic, or the source of a CloudEvent; None if it has none.
        is_cloud_event: Whether the publisher, and not Event Grid, may have set `origin`.
        message_id: The event's id, or a digest of one that is too long.
        attributes: Further attributes of the message.
    """

    body: bytes
    origin: str | None = None
    is_cloud_event: bool = False
    message_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


def parse_events(body: bytes) -> list[Event]:
    """Return the events of a request; for a malformed body, one event with that body.

    Raises:
        TooManyEvents: Before any event is parsed.
    """
    text = body.removeprefix(_BYTE_ORDER_MARK).strip(_SPACE)
    array = text[:1] == b"["
    try:
        parts = _split(text, MOST_EVENTS if array else _UNLIMITED)
    except ValueError:
        # It is not an object, unless it is in UTF-16, which the standard library would read.
        return [Event(_no_message(body) if b"\0" in body else body)]
    return [_event(one) for one in (parts if array else [text])]


def parse_members(text: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object, with their values unparsed.

    Raises:
        ValueError: It is not an object.
    """
    if text[:1] != b"{":
        raise ValueError("not an object")
    found = {}
    for part in _split(text):
        name = _NAME.match(part)
        if name is None:
            raise ValueError("not a member")
        found[orjson.loads(name[1])] = part[name.end() :].strip(_SPACE)
    return found


def parse_text(value: bytes | None) -> str | None:
    """Return a JSON string as text; None if it is not a string."""
    if value is None or value[:1] != b'"':
        return None
    try:
        text: str = orjson.loads(value)
    except ValueError:  # such as a lone surrogate
        return None
    return text


def _split(text: bytes, most: int = _UNLIMITED) -> list[bytes]:
    """Return what stands between the commas of a JSON array or object.

    Raises:
        TooManyEvents: There are more than `most`.
        ValueError: It is neither.
    """
    if text[:1] not in (b"[", b"{") or text[-1:] != (b"]" if text[:1] == b"[" else b"}"):
        raise ValueError("neither an array nor an object")
    found: list[bytes] = []
    depth = begin = 0
    for token in _TOKEN.finditer(text):
        at, sign = token.start(), token[0]
        if sign in (b"[", b"{"):
            depth += 1
            if depth == 1:
                begin = at + 1
        elif sign in (b"]", b"}"):
            depth -= 1
            if depth == 0 and at + 1 != len(text):
                raise ValueError("something follows")
        elif sign == b"," and depth == 1:
            found.append(text[begin:at].strip(_SPACE))
            begin = at + 1
            if len(found) >= most:
                raise TooManyEvents
    if depth:
        raise ValueError("not terminated")
    last = text[begin:-1].strip(_SPACE)
    return [*found, last] if found or last else []


def _event(text: bytes) -> Event:
    try:
        fields = parse_members(text)
    except ValueError:
        return Event(_no_message(text))
    version = fields.get("specversion")
    cloud = version is not None
    origin = parse_text(fields.get("source" if cloud else "topic"))
    # An event without a topic could belong to any: it may be kept, but not handled.
    message = _message(fields) if origin is not None and version in (None, b'"1.0"') else None
    message_id = parse_text(fields.get("id")) or ""
    if len(message_id) > _LONGEST_ID:
        message_id = hashlib.sha256(message_id.encode()).hexdigest()
    attributes = {
        TYPE_ATTRIBUTE: parse_text(fields.get("type" if cloud else "eventType")),
        TRACEPARENT_ATTRIBUTE: parse_text(fields.get("traceparent")),
        CONTENT_TYPE_ATTRIBUTE: parse_text(fields.get("datacontenttype")),
    }
    return Event(
        _no_message(text) if message is None else message,
        origin,
        cloud,
        message_id,
        {name: value for name, value in attributes.items() if value and len(value) <= _LONGEST_ATTRIBUTE},
    )


def _no_message(text: bytes) -> bytes:
    """Return an event for the dead letters. Unchanged it could pass for a message: both have a type and an id."""
    return b"[" + text + b"]"


def _message(fields: Mapping[str, bytes]) -> bytes | None:
    """Return the message: an object unchanged, a text as UTF-8, base64 decoded; None if there is none."""
    data = fields.get("data")
    if data is not None and data != b"null":
        text = parse_text(data)
        return text.encode() if text is not None else data if data[:1] != b'"' else None
    encoded = parse_text(fields.get("data_base64"))
    try:
        return None if encoded is None else base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
