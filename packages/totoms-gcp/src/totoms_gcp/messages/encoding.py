"""Messages as Pub/Sub has them: pulled, pushed, kept as dead letters; and its limits for one message.

One message beyond a limit makes Pub/Sub refuse the whole request with all messages in it, so the limits are checked
before: https://cloud.google.com/pubsub/quotas#resource_limits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.pubsub_v1.types import PubsubMessage

from totoms.errors import MessageTooLarge
from totoms.plugin import ID_ATTRIBUTE, DeadLetter, DeadLetterReason, Lease, Outgoing, Received, Subscription

MAX_ATTRIBUTES: Final = 100
MAX_NAME_BYTES: Final = 256
MAX_VALUE_BYTES: Final = 1024
MAX_KEY_BYTES: Final = 1024
_MAX_BYTES_PER_CHARACTER: Final = 4
_TRANSIT: Final = 0.05
"""The part of a lease that may be over when a message arrives."""
_REASON: Final = "totoms-dead-"
_FORWARDED: Final = "CloudPubSubDeadLetterSource"
"""What Pub/Sub adds when it forwards a message itself (https://cloud.google.com/pubsub/docs/handling-failures)."""


class PubSubLease(Lease):
    """A lease of a pulled message. Its handle is the acknowledgement id.

    Args:
        handle: The acknowledgement id.
        path: The subscription that it came from.
        seconds: How long it lasts.
        begun: When it began, by `time.monotonic`.
    """

    __slots__ = ("path",)

    def __init__(self, handle: str, path: str, seconds: float, begun: float) -> None:
        super().__init__(handle, seconds, begun)
        self.path = path


def encode(body: bytes, attributes: Mapping[str, str], ordering_key: str | None, message_id: str = "") -> PubsubMessage:
    """Return a message to publish; `message_id`, if there is one, becomes an attribute."""
    given = {**attributes, ID_ATTRIBUTE: message_id} if message_id else dict(attributes)
    return PubsubMessage(data=body, attributes=given, ordering_key=ordering_key or "")


def exceeded_limit(outgoing: Outgoing) -> MessageTooLarge | None:
    """Return the error for a message with an attribute or an ordering key that is too long, or None."""
    topic, attributes = outgoing.topic or "", outgoing.attributes
    if len(attributes) > MAX_ATTRIBUTES:
        return _too_large(topic, f"{len(attributes)} attributes; Pub/Sub takes {MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if _is_longer(name, MAX_NAME_BYTES):
            return _too_large(topic, f"an attribute whose name is {len(name.encode())} bytes; Pub/Sub takes 256")
        if _is_longer(value, MAX_VALUE_BYTES):
            return _too_large(topic, f"an attribute {name!r} of {len(value.encode())} bytes; Pub/Sub takes 1,024")
    key = outgoing.ordering_key
    if key and _is_longer(key, MAX_KEY_BYTES):
        return _too_large(topic, f"an ordering key of {len(key.encode())} bytes; Pub/Sub takes 1,024")
    return None


def decode_pulled(
    messages: Sequence[Any], subscription: Subscription, path: str, lease_seconds: float
) -> list[Received]:
    """Return the messages of a pull.

    Args:
        messages: What Pub/Sub answered.
        subscription: The subscription of the service.
        path: The subscription that was pulled.
        lease_seconds: Its acknowledgement deadline.
    """
    begun = time.monotonic() - lease_seconds * _TRANSIT
    received = []
    for one in messages:
        message = one.message
        given = message.attributes
        attributes: dict[str, str] = {name: given[name] for name in given}  # `dict(given)` takes twice as long
        received.append(
            Received(
                message.data,
                attributes.get(ID_ATTRIBUTE) or message.message_id,
                one.delivery_attempt or 1,
                subscription,
                attributes,
                PubSubLease(one.ack_id, path, lease_seconds, begun),
                message.ordering_key or None,
            )
        )
    return received


def reason_attributes(message_id: str, reason: DeadLetterReason) -> dict[str, str]:
    """Return the attributes of a dead letter that say why it is one."""
    attributes = {
        "message-id": message_id,
        "reason": reason.reason,
        "error-class": reason.error_class,
        "description": reason.description,
        "attempts": str(reason.attempts),
    }
    return {f"{_REASON}{name}": _cut(value) for name, value in attributes.items()}


def decode_dead_letter(subscription: str, message: Any) -> DeadLetter:
    """Return a dead letter as `reason_attributes` or Pub/Sub itself made it.

    Its id is that of the message which holds it. If Pub/Sub forwarded it, the reason is empty: see `was_forwarded`.
    """
    given: dict[str, str] = dict(message.attributes)
    attempts = given.get(f"{_REASON}attempts", given.get(f"{_FORWARDED}DeliveryCount", ""))
    return DeadLetter(
        letter_id=message.message_id,
        message_id=given.get(f"{_REASON}message-id") or given.get(ID_ATTRIBUTE) or message.message_id,
        subscription=subscription,
        body=message.data,
        attributes={name: value for name, value in given.items() if not name.startswith((_REASON, _FORWARDED))},
        reason=DeadLetterReason(
            given.get(f"{_REASON}reason", ""),
            given.get(f"{_REASON}error-class", ""),
            given.get(f"{_REASON}description", ""),
            int(attempts) if attempts.isdecimal() else 0,
        ),
        dead_since=message.publish_time.seconds + message.publish_time.nanos / 1e9,
    )


def was_forwarded(message: Any) -> bool:
    """Return whether Pub/Sub itself dead-lettered a message."""
    attributes = message.attributes
    return f"{_REASON}reason" not in attributes and f"{_FORWARDED}DeliveryCount" in attributes


def _is_longer(text: str, most: int) -> bool:
    return len(text) * _MAX_BYTES_PER_CHARACTER > most and len(text.encode("utf-8", "surrogatepass")) > most


def _too_large(topic: str, what: str) -> MessageTooLarge:
    return MessageTooLarge(f"The message has {what}.", resource=topic)


def _cut(value: str) -> str:
    return value.encode()[:MAX_VALUE_BYTES].decode(errors="ignore")
