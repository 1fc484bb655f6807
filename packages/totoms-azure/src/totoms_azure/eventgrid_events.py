"""Events as Event Grid pushes them, taken apart without touching the messages in them.

There are two forms, one event or an array of them (https://learn.microsoft.com/azure/event-grid/event-schema,
https://learn.microsoft.com/azure/event-grid/cloud-event-schema); which it is the event itself tells, by its
``specversion``. CloudEvents in HTTP headers ("binary mode") are taken by Event Grid, but never sent by it
(https://learn.microsoft.com/azure/event-grid/namespaces-cloud-events).

The message is the event's ``data``. Its bytes are cut out of the body as they are: read and written again, numbers that
no float holds would come out as others. That also keeps one senseless event from spoiling the array that it is in.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from totoms.messages import CONTENT_TYPE_ATTRIBUTE, TRACEPARENT_ATTRIBUTE, TYPE_ATTRIBUTE

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
"""One that does not end takes all that is left, so that no text is looked at twice."""
_TOKEN: Final = re.compile(_STRING + rb"|[][{},]", re.DOTALL)
_NAME: Final = re.compile(rb"[ \t\r\n]*(" + _STRING + rb")[ \t\r\n]*:", re.DOTALL)
_SPACE: Final = b" \t\r\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LONGEST_ID: Final = 128
"""What Service Bus takes for a message's id, if it ends among the dead letters."""
_LONGEST_ATTRIBUTE: Final = 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        body: The message that it brings; if none, the event itself in an array, which is no message.
        told: The topic, or the source of a CloudEvent; None if it tells none.
        is_cloud_event: Whether `told` may be the word of who published it, and not of Event Grid.
        message_id: Its id; of one that is too long, a digest.
        attributes: What it tells of its message besides.
    """

    body: bytes
    told: str | None = None
    is_cloud_event: bool = False
    message_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


def events_of(body: bytes) -> list[Event]:
    """Return the events of a request; of a body that makes no sense one with that body. Never raises."""
    text = body.removeprefix(_BYTE_ORDER_MARK).strip(_SPACE)
    try:
        parts = _parts(text)
    except ValueError:
        # Never an object, but for one in UTF-16, which the standard library would read.
        return [Event(_no_message(body) if b"\0" in body else body)]
    return [_event(one) for one in (parts if text[:1] == b"[" else [text])]


def members(text: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object: their values as they are.

    Raises:
        ValueError: It is none.
    """
    if text[:1] != b"{":
        raise ValueError("no object")
    found = {}
    for part in _parts(text):
        name = _NAME.match(part)
        if name is None:
            raise ValueError("no member")
        found[orjson.loads(name[1])] = part[name.end() :].strip(_SPACE)
    return found


def text_of(value: bytes | None) -> str | None:
    """Return the text that a JSON value is; None if it is none."""
    if value is None or value[:1] != b'"':
        return None
    try:
        text: str = orjson.loads(value)
    except ValueError:  # a lone surrogate, for one
        return None
    return text


def _parts(text: bytes) -> list[bytes]:
    """Return what stands between the commas of a JSON array or object."""
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
    if depth:
        raise ValueError("it does not end")
    last = text[begin:-1].strip(_SPACE)
    return [*found, last] if found or last else []


def _event(text: bytes) -> Event:
    try:
        fields = members(text)
    except ValueError:
        return Event(_no_message(text))
    version = fields.get("specversion")
    cloud = version is not None
    told = text_of(fields.get("source" if cloud else "topic"))
    # What tells no topic could be of any: it may be kept, but not handled.
    message = _message(fields) if told is not None and version in (None, b'"1.0"') else None
    message_id = text_of(fields.get("id")) or ""
    if len(message_id) > _LONGEST_ID:
        message_id = hashlib.sha256(message_id.encode()).hexdigest()
    attributes = {
        TYPE_ATTRIBUTE: text_of(fields.get("type" if cloud else "eventType")),
        TRACEPARENT_ATTRIBUTE: text_of(fields.get("traceparent")),
        CONTENT_TYPE_ATTRIBUTE: text_of(fields.get("datacontenttype")),
    }
    return Event(
        _no_message(text) if message is None else message,
        told,
        cloud,
        message_id,
        {name: value for name, value in attributes.items() if value and len(value) <= _LONGEST_ATTRIBUTE},
    )


def _no_message(text: bytes) -> bytes:
    """Return an event for the dead letters. As it is, it could pass for a message: both have a type and an id."""
    return b"[" + text + b"]"


def _message(fields: Mapping[str, bytes]) -> bytes | None:
    """Return the message: an object as it is, a text as UTF-8, base64 decoded; None if there is none."""
    data = fields.get("data")
    if data is not None and data != b"null":
        text = text_of(data)
        return text.encode() if text is not None else data if data[:1] != b'"' else None
    encoded = text_of(fields.get("data_base64"))
    try:
        return None if encoded is None else base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
