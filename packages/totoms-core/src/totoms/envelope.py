"""What the core and a message backend hand each other: bytes with attributes, never a decoded message."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DeliveryMode = Literal["push", "pull"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed message comes again. Lowered to the broker's own mechanism.

    Attributes:
        max_attempts: After this many failed attempts the message is dead-lettered.
        min_backoff: Seconds; upper bound of the pause after the first failure.
        max_backoff: Seconds; upper bound that the doubling stops at.
    """

    max_attempts: int = 5
    min_backoff: float = 1.0
    max_backoff: float = 300.0

    def backoff(self, attempt: int) -> float:
        """Return the pause after failed attempt number `attempt`, in seconds.

        Exponential with full jitter, so that consumers that failed together do not return together
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
        logical_name: The name the topic has in code.
        delivery: Whether messages are pulled, or pushed to `push_url`.
        push_url: The public address of the push endpoint, when it is known.
        retry: Attempts and backoff.
        ordered: Whether messages with one ordering key must be handled in order.
    """

    name: str
    topic: str
    logical_name: str
    delivery: DeliveryMode = "pull"
    push_url: str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    ordered: bool = False


@dataclass(slots=True, eq=False)
class Outgoing:
    """One message on its way to the broker.

    Attributes:
        body: The wire form.
        message_id: Travels as an attribute; the same on every redelivery.
        attributes: What travels beside the body.
        topic: The provider's identifier of the topic, or None.
        queue: The name of the queue, or None. Exactly one of the two is set.
        ordering_key: Messages with one key are handled in the order they were published.
        delay: Seconds before it may be delivered.
    """

    body: bytes
    message_id: str
    attributes: Mapping[str, str]
    topic: str | None = None
    queue: str | None = None
    ordering_key: str | None = None
    delay: float = 0.0


@dataclass(slots=True, eq=False)
class Received:
    """One message from the broker, under lease (PULL) or in a push request.

    Attributes:
        body: The bytes that were published.
        message_id: What `publish_message` returned for it.
        attempt: 1 on the first delivery, then growing.
        subscription: The subscription it came from.
        attributes: What travelled beside the body.
        lease: The backend's own handle; opaque to the core.
        lease_seconds: How long the lease lasts when it is given or extended; 0 without a lease.
        ordering_key: As published.
    """

    body: bytes
    message_id: str
    attempt: int
    subscription: Subscription
    attributes: Mapping[str, str] = field(default_factory=dict)
    lease: Any = None
    lease_seconds: float = 0.0
    ordering_key: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterReason:
    """Why a message was given up.

    Attributes:
        reason: ``attempts_exhausted``, ``non_retryable``, ``undecodable`` or ``lease_expired``.
        error_class: The exception's class, or "FAILED" for a handler that said so.
        description: For a person; control characters removed, at most 1,000 characters.
        attempts: How many were made.
    """

    reason: str
    error_class: str = ""
    description: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in the dead-letter store.

    Attributes:
        letter_id: Names it for replay and purge.
        message_id: What `publish_message` returned for it.
        subscription: The name of the subscription that gave it up.
        body: The bytes that were published.
        attributes: What travelled beside the body.
        reason: Why it is here.
        dead_since: Seconds since the epoch.
    """

    letter_id: str
    message_id: str
    subscription: str
    body: bytes
    attributes: Mapping[str, str]
    reason: DeadLetterReason
    dead_since: float


@dataclass(slots=True, eq=False)
class PushRequest:
    """A request to the push endpoint, as the backend needs it to verify and decode it.

    Attributes:
        headers: Names in lower case; of a repeated header the values, joined with ", ".
        body: The raw body: signatures are over bytes.
        url: The address it was sent to, as the service's own configuration knows it, else as requested.
        method: ``POST``; or ``OPTIONS``, which brings no message: it asks whether messages may be pushed here
            (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection).
    """

    headers: Mapping[str, str]
    body: bytes
    url: str
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class PushReply:
    """A backend's own answer to a push request that carries no message (a subscription handshake).

    Attributes:
        status: The HTTP status.
        body: JSON content of the answer.
        headers: Further headers of the answer.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
