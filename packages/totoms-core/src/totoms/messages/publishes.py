"""Check what is published: the arguments, and ``MessageBusTopicConfig(publishes=[...])``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from totoms.errors import InvalidArgument
from totoms.messages.events import InvalidEvent, TotoEvent, validate
from totoms.messages.message import MessageDestination, TotoMessage, decode_message, encode_message

Publishable = TotoMessage[Any] | TotoEvent
"""What can be published: a message, or an event as the data of a new message."""


def to_publish(destination: object, message: object) -> TotoMessage[Any]:
    """Return the message to publish, for an event a new message with it as data.

    Raises:
        InvalidArgument: An argument is of another class, or the event is abstract.
    """
    if not isinstance(destination, MessageDestination):
        raise InvalidArgument(
            f"The destination is {_described(destination)}, not a MessageDestination: write "
            'MessageDestination(topic="posts").'
        )
    if isinstance(message, TotoEvent):
        return TotoMessage(data=message)
    if not isinstance(message, TotoMessage):
        raise InvalidArgument(
            f"The message is {_described(message)}, not a TotoMessage or a TotoEvent: write "
            'TotoMessage(type="postCreated", data=...).'
        )
    return message


def version_to_publish(
    message: TotoMessage[Any], topic: str | None, publishes: Mapping[str, Sequence[type[TotoEvent]]]
) -> int | None:
    """Return the version of a message, or None for untyped data on a topic that declares no events.

    Args:
        message: The message.
        topic: The logical name of its topic; None for a queue.
        publishes: The declared events, by topic.

    Raises:
        InvalidArgument: The topic declares events, and the message is none of them.
        NotSerializable: The message cannot be written as JSON.
    """
    event = message.data if isinstance(message.data, TotoEvent) else None
    version = event.__toto_version__ if event is not None else None
    declared = None if topic is None else publishes.get(topic)
    if declared is None or isinstance(event, tuple(declared)):
        return version
    known = [one for one in declared if one.__toto_type__ == message.type and version in (None, one.__toto_version__)]
    if not known:
        names = ", ".join(f"{one.__name__} ({one.__toto_type__!r} version {one.__toto_version__})" for one in declared)
        given = f"{message.type!r:.100}" + ("" if version is None else f" version {version}")
        raise InvalidArgument(f"The topic {topic!r} does not publish {given}; it declares {names or 'nothing'}.")
    data = decode_message(encode_message(message)).data
    invalid = None
    for kind in sorted(known, key=lambda one: one.__toto_version__, reverse=True):
        try:
            validate(kind, data)
            return kind.__toto_version__
        except InvalidEvent as error:
            invalid = invalid or error
    raise InvalidArgument(f"A message for the topic {topic!r} is invalid: {invalid}.")


def _described(value: object) -> str:
    return f"the text {value!r:.60}" if isinstance(value, str) else f"a {type(value).__name__}"
