"""Messages as Service Bus has them: ours on the way out, anybody's on the way in."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import orjson
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType

from totoms.envelope import Outgoing, Received, Subscription
from totoms.errors import ValidationError
from totoms.messages import CONTENT_TYPE, ID_ATTRIBUTE

_Properties = dict[str | bytes, Any]
UNORDERED: Final = "totoms-unordered-"
"""What sessions of messages without an ordering key begin with."""
_UNORDERED_SESSIONS: Final = 16
_LONGEST_KEY: Final = 128
_ADDED_WHEN_DEAD: Final = ("DeadLetterReason", "DeadLetterErrorDescription")


def session_of(outgoing: Outgoing) -> str:
    """Return the session that a message belongs to: its ordering key, or one of a few.

    Who publishes does not know who has subscribed, and a subscription that keeps an order takes no message without a
    session: Service Bus puts it among the dead letters.

    Raises:
        ValidationError: The key is longer than Service Bus allows, 128 characters.
    """
    key = outgoing.ordering_key
    if key is None:
        return f"{UNORDERED}{zlib.crc32(outgoing.message_id.encode()) % _UNORDERED_SESSIONS}"
    if len(key) > _LONGEST_KEY:
        raise ValidationError(f"An ordering key has at most {_LONGEST_KEY} characters on Service Bus.")
    return key


def to_send(outgoing: Outgoing) -> ServiceBusMessage:
    """Return a message as the SDK sends it."""
    message = ServiceBusMessage(
        outgoing.body,
        application_properties=cast("_Properties", dict(outgoing.attributes)),
        message_id=outgoing.message_id,
        content_type=CONTENT_TYPE,
        session_id=session_of(outgoing),
    )
    if outgoing.delay:
        message.scheduled_enqueue_time_utc = datetime.now(UTC) + timedelta(seconds=outgoing.delay)
    return message


def received_from(
    message: ServiceBusReceivedMessage, subscription: Subscription, lease: Any, lease_seconds: float
) -> Received:
    """Return what the core is given for a message that the SDK has received."""
    attributes = attributes_of(message)
    session = message.session_id
    return Received(
        body_of(message),
        attributes.get(ID_ATTRIBUTE) or str(message.message_id or message.sequence_number or ""),
        (message.delivery_count or 0) + 1,
        subscription,
        attributes,
        lease,
        lease_seconds,
        None if session is None or session.startswith(UNORDERED) else session,
    )


def body_of(message: ServiceBusReceivedMessage) -> bytes:
    """Return the bytes of a message; those of other AMQP types, which are nobody's of ours, as they are best read."""
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


def attributes_of(message: ServiceBusReceivedMessage) -> Mapping[str, str]:
    """Return the application properties as texts, without those that Service Bus adds to a dead letter."""
    properties = message.application_properties or {}
    texts = {_text(name): _text(value) for name, value in properties.items()}
    return {name: value for name, value in texts.items() if name not in _ADDED_WHEN_DEAD}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _texts(value: Any) -> Any:
    """Return a value of AMQP with texts for the bytes that the SDK makes of them."""
    if isinstance(value, dict):
        return {_text(name): _texts(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(one) for one in value]
    return _text(value) if isinstance(value, bytes) else value
