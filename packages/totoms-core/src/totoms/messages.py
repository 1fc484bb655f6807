"""Messages: what a service publishes and handles, and the wire form both sides agree on.

The wire form is the JSON object ``{"timestamp","cid","id","type","msg","data"}``, in this order, UTF-8.
It is shared with services written for totoms 1.x and with its Node sibling, so nothing is ever added
inside it; what is ours travels beside it, as attributes of the broker's message.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import orjson

from totoms.context import current_cid, new_cid
from totoms.errors import UndecodableMessage, ValidationError

TYPE_ATTRIBUTE: Final = "messageType"
"""Attribute with the message type, for filters at the broker."""
ID_ATTRIBUTE: Final = "messageId"
"""Attribute with the id given by `publish_message`, the same on every redelivery."""
TRACEPARENT_ATTRIBUTE: Final = "traceparent"
"""Attribute with the W3C trace context (https://www.w3.org/TR/trace-context/)."""
CONTENT_TYPE_ATTRIBUTE: Final = "contentType"
CONTENT_TYPE: Final = "application/json"

_DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_INTEGER: Final = b"0" * 19

_second: tuple[int, str] = (0, "")


def _now() -> str:
    # Formatted once a second: it is more work than the rest of a message.
    global _second
    now = int(time.time())
    if _second[0] != now:
        _second = (now, time.strftime("%Y.%m.%d %H:%M:%S", time.localtime(now)))
    return _second[1]


def _cid() -> str:
    return current_cid.get() or new_cid()


@dataclass(slots=True)
class Delivery:
    """How a message reached this handler. Not part of the message, so never on the wire.

    Attributes:
        message_id: Given by `publish_message`; the same on every redelivery. Use it to deduplicate.
        attempt: 1 on the first delivery, then growing.
        topic: The logical name of the topic, or "" when it came from a queue.
        subscription: The subscription it came from.
        attributes: What travelled beside the body.
    """

    message_id: str
    attempt: int = 1
    topic: str = ""
    subscription: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def redelivered(self) -> bool:
        """Whether an earlier attempt was made, so the work may have been done in part already."""
        return self.attempt > 1


@dataclass(slots=True)
class TotoMessage:
    """A message (an event).

    Attributes:
        timestamp: When it happened; a free string, by default now as ``YYYY.MM.DD HH:MM:SS``.
        cid: The correlation id; by default that of the request or message being handled.
        id: The identifier of the *object* the event is about; by default a random one.
        type: The event type, by which it is routed to a handler. Required.
        msg: A line for people, for logs; by default empty.
        data: The payload: anything JSON can hold.
        delivery: On a message received, how it came here; None on one that is to be published.

    Raises:
        ValidationError: `type` is missing or not a string.
    """

    timestamp: str = field(default_factory=_now)
    cid: str = field(default_factory=_cid)
    id: str = field(default_factory=new_cid)
    type: str = ""
    msg: str = ""
    data: Any = field(default_factory=dict)
    delivery: Delivery | None = field(default=None, compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or not self.type:
            raise ValidationError("TotoMessage needs a type: a non-empty string, by which it is routed.")


@dataclass(frozen=True, slots=True)
class MessageDestination:
    """Where to publish: exactly one of the two.

    Attributes:
        topic: The logical name of a topic of the configuration.
        queue: The name of a queue, on backends that have queues of their own.
    """

    topic: str | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        if bool(self.topic) == bool(self.queue):
            raise ValidationError("MessageDestination needs exactly one of topic and queue.")


class ProcessingStatus(str, Enum):
    """What a handler says of a message."""

    SUCCESS = "success"
    FAILED = "failed"
    IGNORED = "ignored"


@dataclass(slots=True)
class ProcessingResponse:
    """A handler's answer.

    Attributes:
        status: SUCCESS and IGNORED settle the message; FAILED has it delivered again.
        response_payload: Kept for services of 1.x; not sent anywhere.
        error: Why it failed, for the log and, after the last attempt, the dead letter.
    """

    status: ProcessingStatus
    response_payload: Any = None
    error: str | None = None


_TEXTS: Final = ("timestamp", "cid", "id", "type", "msg")
_STRINGS: Final = {str}


def encode_message(message: TotoMessage) -> bytes:
    """Encode a message into the wire form.

    Raises:
        ValidationError: JSON cannot hold it unchanged: NaN, a lone surrogate, an unknown type, a cycle.
    """
    wire = {
        "timestamp": message.timestamp,
        "cid": message.cid,
        "id": message.id,
        "type": message.type,
        "msg": message.msg,
        "data": message.data,
    }
    for name in _TEXTS:
        if not isinstance(wire[name], str):
            raise ValidationError(f"TotoMessage.{name} must be a string, not {type(wire[name]).__name__}.")
    try:
        body = orjson.dumps(wire)
        if b"null" not in body:
            return body
    except TypeError:
        pass
    # orjson writes NaN as null and refuses integers over 64 bits; the standard library tells them apart.
    try:
        return json.dumps(wire, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise ValidationError(
            f"The message of type {message.type!r} cannot be written as JSON: {_why(error)}."
        ) from None


def _plain(value: Any) -> Any:
    # The types orjson writes by itself (dates, dataclasses, UUIDs) come out the same on the slow way.
    return orjson.loads(orjson.dumps(value))


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeEncodeError):
        return "it holds a lone surrogate"
    return type(error).__name__ + (": " + str(error) if isinstance(error, TypeError) else " (NaN, infinity or a cycle)")


def has_long_integer(body: bytes) -> bool:
    """Tell whether JSON may hold an integer over 64 bits, which orjson would turn into a float.

    Nineteen digits is the first length that may be one. They are looked for with every digit mapped to 0, which takes
    a tenth of the time of a regular expression.
    """
    return _LONG_INTEGER in body.translate(_DIGITS_TO_ZERO)


def decode_message(body: bytes, delivery: Delivery | None = None) -> TotoMessage:
    """Decode the wire form. Attributes are never needed for it.

    Raises:
        UndecodableMessage: It is not our wire form. The reason never quotes the payload.
    """
    try:
        wire = json.loads(body, parse_constant=_refuse) if has_long_integer(body) else orjson.loads(body)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage(f"not JSON: {type(error).__name__}") from None
    if not isinstance(wire, dict):
        raise UndecodableMessage(f"not a JSON object but {type(wire).__name__}")
    texts: list[Any] = list(map(wire.get, _TEXTS))
    if set(map(type, texts)) != _STRINGS:
        for place, value in enumerate(texts):
            if value is None:
                texts[place] = ""
            elif not isinstance(value, str):
                raise UndecodableMessage(f"{_TEXTS[place]!r} is not a string but {type(value).__name__}")
    timestamp, cid, object_id, message_type, msg = texts
    if not message_type:
        raise UndecodableMessage("'type' is missing")
    return TotoMessage(timestamp, cid, object_id, message_type, msg, wire.get("data", {}), delivery=delivery)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
