"""The message bus: what services use, and the few operations a backend fills in.

The public methods are concrete and live here once: resolving topics, encoding, size limits, ids,
attributes. A backend implements the underscored operations and declares its capabilities. Receiving
(:mod:`totoms.consumer`), the push endpoint (:mod:`totoms.push`) and routing (:mod:`totoms.routing`)
are the core's as well, so that a message means the same on every backend.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final

from totoms.context import current_cid, new_cid
from totoms.envelope import (
    DeadLetter,
    DeadLetterReason,
    DeliveryMode,
    Outgoing,
    PushReply,
    PushRequest,
    Received,
    Subscription,
)
from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.errors import BackendError, Closed, MessageTooLarge, NotFound, Unsupported, ValidationError
from totoms.messages import (
    CONTENT_TYPE,
    CONTENT_TYPE_ATTRIBUTE,
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    MessageDestination,
    TotoMessage,
    encode_message,
)
from totoms.operations import backend_operation
from totoms.tracing import current_traceparent

ORDERING: Final = "ordering"
DELAY: Final = "delay"
QUEUES: Final = "queues"
PUSH: Final = "push"
PULL: Final = "pull"
DEAD_LETTERS: Final = "dead_letters"
_MOST_ATTRIBUTE_BYTES: Final = 512
"""More than all attributes but the message type take; so that the exact size is seldom computed."""


class MessageBus(ABC):  # noqa: B024 - it has some: see backend_operation
    """Publishes messages. ``MessageBus(...)`` gives the current environment's implementation.

    Args:
        environment: Where the service runs; by default the current one.
        topics: From logical name to the provider's identifier.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({PULL})
    """What the backend can do: of the names above. Using another raises `Unsupported`."""
    default_delivery: ClassVar[DeliveryMode] = "pull"
    """The backend's habit when the configuration leaves `delivery` out."""
    max_message_bytes: ClassVar[int] = 256 * 1024
    """The broker's limit for body and attributes together, in bytes."""

    def __new__(cls, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> MessageBus:
        """Pick the class: as ``Path()`` is a ``PosixPath``, so this is the implementation of `environment`."""
        made: type[MessageBus] = cls
        if cls is MessageBus:
            made = implementation(MessageBus, environment or current_environment())
        return object.__new__(made)

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        self.environment = environment or current_environment()
        self.topics: dict[str, str] = dict(topics or {})
        self._closed = False

    # --- what services use ---

    async def publish_message(
        self,
        destination: MessageDestination,
        message: TotoMessage,
        *,
        ordering_key: str | None = None,
        delay: float = 0.0,
    ) -> str:
        """Publish a message. When this returns, the broker has it: it will be delivered at least once.

        Args:
            destination: A topic by its logical name, or a queue.
            message: What to publish. An empty `cid` becomes that of the request or message being handled.
            ordering_key: Messages with one key are handled in order, where the subscription is ordered.
            delay: Seconds before it may be delivered.

        Returns:
            The message id, the same on every redelivery.

        Raises:
            NotFound: The topic is not in the configuration, or gone at the provider.
            ValidationError: The message cannot be written as JSON.
            MessageTooLarge: It is over the broker's limit. Nothing was sent.
            Unsupported: The backend has no ordering keys, delay or queues.
            Closed: After `close`.
            Unavailable: The broker is away. Whether it has the message is unknown: publish again.
        """
        outgoing = self._outgoing(destination, message, ordering_key, delay)
        (result,) = await self._publish((outgoing,))
        if result is not None:
            raise result
        return outgoing.message_id

    async def publish_messages(
        self,
        destination: MessageDestination,
        messages: Iterable[TotoMessage],
        *,
        ordering_key: str | None = None,
        delay: float = 0.0,
    ) -> list[str | BackendError]:
        """Publish several messages, in batches as large as the broker takes.

        Returns:
            For each message, in order, its id, or the error that it alone met.

        Raises:
            The same as `publish_message`, but only for what is wrong before anything was sent.
        """
        batch = [self._outgoing(destination, message, ordering_key, delay) for message in messages]
        results = await self._publish(batch) if batch else []
        return [error or outgoing.message_id for outgoing, error in zip(batch, results, strict=True)]

    async def list_dead_letters(self, subscription: str, limit: int = 100) -> list[DeadLetter]:
        """List the dead letters of a subscription, oldest first, at most `limit`.

        Raises:
            Unsupported: The backend's dead letters cannot be listed.
            NotFound: No such subscription.
            Closed: After `close`; so do the other two.
        """
        self._check_open()
        self._require(DEAD_LETTERS)
        return await self._list_dead_letters(subscription, limit)

    async def replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None = None) -> int:
        """Deliver dead letters again, with their id and cid kept and the attempts starting over.

        Args:
            subscription: The name of the subscription that gave them up.
            letter_ids: Which; all when left out.

        Returns:
            How many were replayed.
        """
        self._check_open()
        self._require(DEAD_LETTERS)
        return await self._replay_dead_letters(subscription, letter_ids)

    async def purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None = None) -> int:
        """Delete dead letters for good; all of the subscription's when `letter_ids` is left out."""
        self._check_open()
        self._require(DEAD_LETTERS)
        return await self._purge_dead_letters(subscription, letter_ids)

    async def close(self) -> None:
        """Flush, and release connections. A second call does nothing."""
        if not self._closed:
            self._closed = True
            await self._close()

    # --- checks, once for all backends ---

    def _outgoing(
        self, destination: MessageDestination, message: TotoMessage, ordering_key: str | None, delay: float
    ) -> Outgoing:
        self._check_open()
        topic = None
        if destination.topic is not None:
            topic = self.topics.get(destination.topic)
            if topic is None:
                known = ", ".join(sorted(self.topics)) or "none"
                raise NotFound(
                    f"No topic {destination.topic!r} in the configuration (known: {known}).", resource=destination.topic
                )
        else:
            self._require(QUEUES)
        if ordering_key is not None:
            self._require(ORDERING)
        if delay:
            self._require(DELAY)
            if not 0 < delay < float("inf"):
                raise ValidationError("delay must be a finite number of seconds, zero or more.")
        if not message.cid:
            message.cid = current_cid.get() or new_cid()
        body = encode_message(message)
        message_id = new_cid()
        attributes = {TYPE_ATTRIBUTE: message.type, ID_ATTRIBUTE: message_id, CONTENT_TYPE_ATTRIBUTE: CONTENT_TYPE}
        traceparent = current_traceparent()
        if traceparent:
            attributes[TRACEPARENT_ATTRIBUTE] = traceparent
        if len(body) + _MOST_ATTRIBUTE_BYTES + 4 * len(message.type) > self.max_message_bytes:
            size = len(body) + sum(len(name) + len(value.encode()) for name, value in attributes.items())
            if size > self.max_message_bytes:
                raise MessageTooLarge(
                    f"The message is {size} bytes; the limit is {self.max_message_bytes}.",
                    resource=destination.topic or destination.queue,
                )
        return Outgoing(body, message_id, attributes, topic, destination.queue, ordering_key, delay)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("The message bus is closed.")

    def _require(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise Unsupported(
                f"The {self.environment.hyperscaler} message bus has no {capability}.", resource=capability
            )

    # --- what a backend fills in; all raise BackendErrors only ---

    @backend_operation
    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        """Hand messages to the broker, splitting beyond its batch limit. One result for each, in order."""
        raise NotImplementedError

    @backend_operation
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        """Make sure the subscription exists, with its policies.

        Without `create`, infrastructure is never touched. Raises NotFound that says what is missing.
        """
        raise NotImplementedError

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        """Lease up to `max_messages`; wait up to `wait` seconds for the first. Called by one task at a time."""
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no pull.", resource=PULL)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        """Make a `_receive` that waits return soon, with what it has. By default its wait runs out."""

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Settle messages for good. LeaseLost for one that another consumer owns by now."""
        raise NotImplementedError

    async def _nack(self, received: Received, delay: float) -> None:
        """Have the message delivered again after `delay` seconds, the attempt counted."""
        raise NotImplementedError

    async def _release(self, batch: Sequence[Received]) -> None:
        """Give back what was never handed to a handler: available at once, no attempt counted."""
        raise NotImplementedError

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Renew leases for `lease_seconds` from now. LeaseLost for one that is gone."""
        raise NotImplementedError

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        """Keep the message, with the reason, in the dead-letter store and settle it."""
        raise NotImplementedError

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        """Verify a push request and decode its envelope; a handshake is answered with a PushReply.

        An authentic request whose envelope makes no sense gives one `Received` with the raw body, so that it
        ends in the dead-letter store like any other undecodable message.

        Raises:
            Unauthorized, Forbidden: A forgery. Nothing may be run or fetched on its behalf.
            Undecidable: The keys to verify it are out of reach.
        """
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no push.", resource=PUSH)

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        raise NotImplementedError

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        raise NotImplementedError

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        raise NotImplementedError

    async def _close(self) -> None:
        """Release connections and threads. Idempotent."""
