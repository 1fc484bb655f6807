"""Messages and dead letters as Service Bus has them: those of totoms on the way out, any program's on the way in."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import orjson
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType

from totoms.errors import InvalidArgument
from totoms.plugin import CONTENT_TYPE, ID_ATTRIBUTE, DeadLetterReason, Lease, Outgoing, Received, Subscription

UNORDERED: Final = "totoms-unordered-"
"""Prefix of the sessions of messages without an ordering key."""
REASON: Final = "DeadLetterReason"
DESCRIPTION: Final = "DeadLetterErrorDescription"
"""The two properties that Service Bus has on a dead letter: a reason, and a description for people."""
_UNORDERED_SESSIONS: Final = 16
_LONGEST_KEY: Final = 128
_REASONS: Final = {"MaxDeliveryCountExceeded": "lease_expired"}
"""From Service Bus's own reasons to those of totoms
(https://learn.microsoft.com/azure/service-bus-messaging/service-bus-dead-letter-queues#moving-messages-to-the-dlq)."""
_LONGEST_DESCRIPTION: Final = 4000
_DESCRIPTION: Final = re.compile(
    r"(?P<class>\S+) after (?P<attempts>\d{1,9}) attempts?, (?P<since>[0-9T:.+-]{10,40})(?:, as (?P<id>\S{1,128}))?: ?",
    re.ASCII,
)
_NO_CLASS: Final = "Given-up"


def session_of(outgoing: Outgoing) -> str:
    """Return the session of a message: its ordering key, or one of a few.

    The publisher does not know who has subscribed, and Service Bus dead-letters a message without a session on a
    subscription that keeps the order.

    Raises:
        InvalidArgument: The key is longer than Service Bus allows, 128 characters.
    """
    key = outgoing.ordering_key
    if key is None:
        return f"{UNORDERED}{zlib.crc32(outgoing.message_id.encode()) % _UNORDERED_SESSIONS}"
    if len(key) > _LONGEST_KEY:
        raise InvalidArgument(f"An ordering key has at most {_LONGEST_KEY} characters on Service Bus.")
    return key


def message_of(outgoing: Outgoing) -> ServiceBusMessage:
    """Return the SDK's message to publish."""
    message = ServiceBusMessage(
        outgoing.body,
        application_properties=cast("dict[str | bytes, Any]", dict(outgoing.attributes)),
        message_id=outgoing.message_id,
        content_type=CONTENT_TYPE,
        session_id=session_of(outgoing),
    )
    if outgoing.delay:
        message.scheduled_enqueue_time_utc = datetime.now(UTC) + timedelta(seconds=outgoing.delay)
    return message


def copy_of(body: bytes, message_id: str, attributes: Mapping[str, str]) -> ServiceBusMessage:
    """Return the SDK's message for one that was published before, to keep or to replay it."""
    properties: dict[str | bytes, Any] = {ID_ATTRIBUTE: message_id}
    properties.update((name, value) for name, value in attributes.items() if name != ID_ATTRIBUTE)
    return ServiceBusMessage(
        body, message_id=message_id or None, content_type=CONTENT_TYPE, application_properties=properties
    )


def received_from(message: ServiceBusReceivedMessage, subscription: Subscription, lease: Lease) -> Received:
    """Return the core's message for one that the SDK has received."""
    attributes = attributes_of(message)
    session = message.session_id
    return Received(
        body_of(message),
        attributes.get(ID_ATTRIBUTE) or str(message.message_id or message.sequence_number or ""),
        (message.delivery_count or 0) + 1,
        subscription,
        attributes,
        lease,
        None if session is None or session.startswith(UNORDERED) else session,
    )


def body_of(message: ServiceBusReceivedMessage) -> bytes:
    """Return the bytes of a message. Another program's body may have another AMQP type; it is written as JSON."""
    body: Any = message.body
    if message.body_type == AmqpMessageBodyType.DATA:
        return b"".join(body)
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    try:
        return orjson.dumps(_texts(body if message.body_type == AmqpMessageBodyType.VALUE else list(body)), default=str)
    except TypeError:
        return str(body).encode("utf-8", "replace")


def attributes_of(message: ServiceBusReceivedMessage) -> dict[str, str]:
    """Return the application properties as texts, without those that Service Bus adds to a dead letter."""
    properties = message.application_properties or {}
    texts = {_text(name): _text(value) for name, value in properties.items()}
    return {name: value for name, value in texts.items() if name not in (REASON, DESCRIPTION)}


@dataclass(frozen=True, slots=True)
class Death:
    """Why and when a message was dead-lettered.

    Attributes:
        reason: Why.
        since: When, in seconds since the epoch.
        message_id: Its message id, if it has none of its own.
    """

    reason: DeadLetterReason
    since: float
    message_id: str = ""

    def __str__(self) -> str:
        """Return a description that has all of it: ``ValueError after 3 attempts, 2026-…: no such post``."""
        reason = self.reason
        since = datetime.fromtimestamp(self.since, UTC).isoformat()
        times = f"{reason.attempts} attempt{'' if reason.attempts == 1 else 's'}"
        name = f", as {self.message_id}" if self.message_id else ""
        return f"{reason.error_class or _NO_CLASS} after {times}, {since}{name}: {reason.description}"[
            :_LONGEST_DESCRIPTION
        ]


def death_of(message: ServiceBusReceivedMessage) -> Death:
    """Return why and when a dead letter died; of one that totoms did not dead-letter, what Service Bus has."""
    properties = {_text(name): _text(value) for name, value in (message.application_properties or {}).items()}
    reason, description = properties.get(REASON, ""), properties.get(DESCRIPTION, "")
    enqueued = message.enqueued_time_utc
    since = enqueued.timestamp() if enqueued else 0.0
    parsed = _DESCRIPTION.match(description)
    if parsed is None:
        attempts = message.delivery_count or 0
        return Death(DeadLetterReason(_REASONS.get(reason, reason), "", description, attempts), since)
    with contextlib.suppress(ValueError):
        since = datetime.fromisoformat(parsed["since"]).timestamp()
    error_class = "" if parsed["class"] == _NO_CLASS else parsed["class"]
    ours = DeadLetterReason(reason, error_class, description[parsed.end() :], int(parsed["attempts"]))
    return Death(ours, since, parsed["id"] or "")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _texts(value: Any) -> Any:
    """Return an AMQP value with texts in place of bytes, which the SDK makes of texts."""
    if isinstance(value, dict):
        return {_text(name): _texts(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(one) for one in value]
    return _text(value) if isinstance(value, bytes) else value
