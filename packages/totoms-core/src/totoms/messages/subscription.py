"""Subscriptions and retry policies."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

DeliveryMode = Literal["push", "pull"]


@dataclass(frozen=True)
class RetryPolicy:
    """How often and after what pause a failed message is delivered again.

    Attributes:
        max_attempts: After this many failed attempts the message is dead-lettered.
        min_backoff: The longest pause after the first failure, in seconds. It doubles with each failure.
        max_backoff: The longest pause after any failure, in seconds.
    """

    max_attempts: int = 5
    min_backoff: float = 1.0
    max_backoff: float = 300.0

    def backoff(self, attempt: int) -> float:
        """Return the pause after failed attempt number `attempt`, in seconds.

        Exponential with full jitter, so that consumers that fail together do not retry together
        (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
        """
        ceiling = min(self.max_backoff, self.min_backoff * 2.0 ** min(attempt - 1, 32))
        return random.uniform(0, ceiling)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One service's subscription to one topic, as the backend needs it.

    Attributes:
        name: ``{service_name}-{logical_name}`` unless configured.
        topic: The provider's identifier of the topic.
        logical_name: The name of the topic in code.
        delivery: Whether messages are pulled, or pushed to `push_url`.
        push_url: The public address of the push endpoint; None if it is unknown.
        retry: Attempts and backoff.
        ordered: Whether messages with the same ordering key must be handled in order.
        dead_letters: Whether a push subscription must have a dead-letter store. A pull subscription always has one.
    """

    name: str
    topic: str
    logical_name: str
    delivery: DeliveryMode = "pull"
    push_url: str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    ordered: bool = False
    dead_letters: bool = True


@dataclass(frozen=True, slots=True)
class Backlog:
    """The messages of one subscription that are not handled yet.

    Attributes:
        messages: How many there are, including those that are being handled or wait for another attempt. A delayed
            message counts from when it is due.
        oldest_seconds: Since when the oldest could have been handled, in seconds before now: since it was published,
            replayed, or due if it was delayed. None if there are no messages, or if the broker does not say.
    """

    messages: int
    oldest_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """What already exists at the broker for one subscription of a service.

    Attributes:
        pull: Whether the service's pull subscription exists.
        push: All addresses that the topic is pushed to, except unconfirmed ones.
        drain: The command that deletes the pull subscription once its messages are handled.
        dead_letters: For each address of `push`, where this service stores the dead letters of a subscription made by
            hand, as text for the log.
    """

    pull: bool = False
    push: tuple[str, ...] = ()
    drain: str = ""
    dead_letters: tuple[str, ...] = ()
