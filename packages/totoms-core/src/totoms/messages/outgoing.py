"""Messages to publish, as a backend gets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from totoms.context import current_cid, current_traceparent, new_cid
from totoms.errors import MessageTooLarge
from totoms.messages.events import VERSION_ATTRIBUTE
from totoms.messages.message import (
    CONTENT_TYPE,
    CONTENT_TYPE_ATTRIBUTE,
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    TotoMessage,
    encode_message,
)

_MAX_ATTRIBUTE_BYTES: Final = 512
"""More than all attributes but the message type take, so that the exact size is seldom computed."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """One message to publish.

    Attributes:
        body: The wire form.
        message_id: The same on every redelivery; also one of the attributes.
        attributes: The attributes of the broker's message.
        topic: The provider's identifier of the topic, or None.
        queue: The name of the queue, or None. Exactly one of the two is set.
        ordering_key: Messages with the same key are handled in the order they were published.
        delay: Seconds before it may be delivered.
    """

    body: bytes
    message_id: str
    attributes: Mapping[str, str]
    topic: str | None = None
    queue: str | None = None
    ordering_key: str | None = None
    delay: float = 0.0

    @property
    def message_type(self) -> str:
        """The type of the message."""
        return self.attributes[TYPE_ATTRIBUTE]

    def check_size(self, limit: int, resource: str | None) -> None:
        """Check the size of body and attributes.

        Args:
            limit: The broker's limit in bytes.
            resource: The name of the topic or queue, for the error.

        Raises:
            MessageTooLarge: They are larger.
        """
        if len(self.body) + _MAX_ATTRIBUTE_BYTES + 4 * len(self.message_type) <= limit:
            return
        size = len(self.body) + sum(len(name) + len(value.encode()) for name, value in self.attributes.items())
        if size > limit:
            raise MessageTooLarge(f"The message is {size} bytes; the limit is {limit}.", resource=resource)


def to_outgoing(
    message: TotoMessage[Any],
    topic: str | None,
    queue: str | None,
    ordering_key: str | None,
    delay: float,
    version: int | None = None,
) -> Outgoing:
    """Encode a message and give it a new message id.

    `version` is that of the event, None for untyped data. An empty `cid` of the message becomes that of the request or
    message being handled, else a new one.

    Raises:
        NotSerializable: The message cannot be written as JSON.
    """
    if message.cid is None or message.cid == "":
        message.cid = current_cid.get() or new_cid()
    body = encode_message(message)
    message_id = new_cid()
    attributes = {TYPE_ATTRIBUTE: message.type, ID_ATTRIBUTE: message_id, CONTENT_TYPE_ATTRIBUTE: CONTENT_TYPE}
    if version is not None:
        attributes[VERSION_ATTRIBUTE] = str(version)
    traceparent = current_traceparent()
    if traceparent:
        attributes[TRACEPARENT_ATTRIBUTE] = traceparent
    return Outgoing(body, message_id, attributes, topic, queue, ordering_key, delay)
