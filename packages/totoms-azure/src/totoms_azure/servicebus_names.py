"""Names of Service Bus: of topics, of subscriptions beneath them, and of the queues that stand beside these.

What is allowed: https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules#microsoftservicebus
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from totoms.envelope import Subscription
from totoms.errors import NotFound

REPLAY: Final = "-replay"
DEAD: Final = "-dead"
_ENTITY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/~-]{0,258}[A-Za-z0-9])?")
_LONGEST_ENTITY: Final = 260
_LONGEST_SUBSCRIPTION: Final = 50
_NOT_ALLOWED: Final = re.compile(r"[^A-Za-z0-9._-]")
_DIGEST: Final = 10


@dataclass(frozen=True, slots=True)
class Entity:
    """What messages are received from.

    Attributes:
        topic: The topic; "" for a queue.
        name: The subscription's name beneath it, or the queue's.
    """

    topic: str
    name: str

    def __str__(self) -> str:
        """Return its path."""
        return f"{self.topic}/subscriptions/{self.name}" if self.topic else self.name

    def beside(self, ending: str) -> Entity:
        """Return the queue that belongs to it, and to no subscription of another topic."""
        stem = f"{self.topic}.{self.name}" if self.topic else self.name
        return Entity("", _shortened(stem, _LONGEST_ENTITY - len(ending)) + ending)


def topic_name(identifier: str) -> str:
    """Return the name of a topic, if it can be one.

    Raises:
        NotFound: It cannot, so there is no such topic.
    """
    if not _ENTITY.fullmatch(identifier) or "//" in identifier:
        raise NotFound(f"There is no topic {identifier!r}: Service Bus knows no such name.", resource=identifier)
    return identifier


def queue_name(name: str) -> str:
    """Return the name of a queue, if it can be one.

    Raises:
        NotFound: It cannot, so there is no such queue.
    """
    if not _ENTITY.fullmatch(name) or "//" in name:
        raise NotFound(f"There is no queue {name!r}: Service Bus knows no such name.", resource=name)
    return name


def entity_of(subscription: Subscription) -> Entity:
    """Return what a subscription of the core's is called here; one without a topic is a queue.

    A name that is too long, or has other characters, is shortened and told apart by a digest: names are at most 50
    characters here, and are made of a service's and a topic's.
    """
    if not subscription.topic:
        return Entity("", queue_name(subscription.name))
    return beneath(subscription.topic, subscription.name)


def beneath(identifier: str, subscription: str) -> Entity:
    """Return the subscription of that name to a topic; one of Event Grid may go by its resource id.

    Raises:
        NotFound: There can be no such topic.
    """
    if identifier.lower().startswith("/subscriptions/"):
        identifier = identifier.rstrip("/").rpartition("/")[2]
    return Entity(topic_name(identifier), subscription_name(subscription))


def subscription_name(name: str) -> str:
    """Return what a subscription of that name is called at Service Bus."""
    allowed = _NOT_ALLOWED.sub("-", name).strip("-._") or "subscription"
    return name if allowed == name and len(name) <= _LONGEST_SUBSCRIPTION else _digested(name, allowed)


def _digested(name: str, allowed: str, longest: int = _LONGEST_SUBSCRIPTION) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{allowed[: longest - _DIGEST - 1]}-{digest}"


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else _digested(name, name, longest)
