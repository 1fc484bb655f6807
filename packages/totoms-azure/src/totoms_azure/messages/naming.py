"""Names at Service Bus: of topics, their subscriptions, and the queues that belong to a subscription.

The rules: https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules#microsoftservicebus
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from totoms.errors import NotFound
from totoms.plugin import Subscription

REPLAY: Final = "-replay"
"""Suffix of the queue through which dead letters are replayed to a subscription."""
DEAD: Final = "-dead"
"""Suffix of the queue for the dead letters of a pushed subscription."""
_ENTITY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/~-]{0,258}[A-Za-z0-9])?")
_LONGEST_ENTITY: Final = 260
_LONGEST_SUBSCRIPTION: Final = 50
_NOT_ALLOWED: Final = re.compile(r"[^A-Za-z0-9._-]")
_DIGEST: Final = 10


@dataclass(frozen=True, slots=True)
class Entity:
    """A subscription or a queue.

    Attributes:
        topic: The topic; "" for a queue.
        name: The name of the topic's subscription, or of the queue.
    """

    topic: str
    name: str

    def __str__(self) -> str:
        """Return its path."""
        return f"{self.topic}/subscriptions/{self.name}" if self.topic else self.name

    @property
    def kind(self) -> str:
        """The kind of entity, for errors."""
        return "the subscription" if self.topic else "the queue"

    @property
    def title(self) -> str:
        """The kind of entity and its name, for errors."""
        return f"subscription {self.name!r} to the topic {self.topic!r}" if self.topic else f"queue {self.name!r}"

    def queue(self, ending: str) -> Entity:
        """Return the queue with `ending` that belongs to it, and to no subscription of another topic."""
        stem = f"{self.topic}.{self.name}" if self.topic else self.name
        return Entity("", _shortened(stem, _LONGEST_ENTITY - len(ending)) + ending)


def topic_name(identifier: str) -> str:
    """Return the name of a topic.

    Raises:
        NotFound: Service Bus allows no such name, so there is no such topic.
    """
    return _checked("topic", identifier)


def queue_name(name: str) -> str:
    """Return the name of a queue.

    Raises:
        NotFound: Service Bus allows no such name, so there is no such queue.
    """
    return _checked("queue", name)


def entity_of(subscription: Subscription) -> Entity:
    """Return the entity of one of the core's subscriptions; one without a topic is a queue.

    A subscription's name has at most 50 characters at Service Bus. One that is longer, or has characters that are not
    allowed, is shortened and gets a digest.
    """
    if not subscription.topic:
        return Entity("", queue_name(subscription.name))
    return subscription_to(subscription.topic, subscription.name)


def subscription_to(identifier: str, subscription: str) -> Entity:
    """Return the subscription with a name to a topic. A topic of Event Grid may be named by its resource id.

    Raises:
        NotFound: Service Bus allows no such topic.
    """
    if identifier.lower().startswith("/subscriptions/"):
        identifier = identifier.rstrip("/").rpartition("/")[2]
    return Entity(topic_name(identifier), subscription_name(subscription))


def subscription_name(name: str) -> str:
    """Return the name at Service Bus of one of the core's subscriptions."""
    allowed = _NOT_ALLOWED.sub("-", name).strip("-._") or "subscription"
    return name if allowed == name and len(name) <= _LONGEST_SUBSCRIPTION else _digested(name, allowed)


def _checked(kind: str, name: str) -> str:
    if not _ENTITY.fullmatch(name) or "//" in name:
        raise NotFound(f"There is no {kind} {name!r}: Service Bus allows no such name.", resource=name)
    return name


def _digested(name: str, allowed: str, longest: int = _LONGEST_SUBSCRIPTION) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{allowed[: longest - _DIGEST - 1]}-{digest}"


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else _digested(name, name, longest)
