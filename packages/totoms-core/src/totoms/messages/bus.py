"""The message bus: the public methods for services, and the operations that a backend implements.

The public methods resolve topics, encode messages and check limits, the same for all backends. A backend declares its
capabilities and implements the methods with an underscore; `_subscribe` returns a `Receiver` and `_dead_letters` a
`DeadLetterStore`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.errors import BackendError, Closed, InvalidArgument, NotFound, Unsupported
from totoms.messages.dead_letters import DeadLetter, DeadLetterStore
from totoms.messages.events import TotoEvent
from totoms.messages.lease_setting import check_lease
from totoms.messages.message import MessageDestination
from totoms.messages.outgoing import Outgoing, to_outgoing
from totoms.messages.publishes import Publishable, to_publish, version_to_publish
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Existing, Subscription
from totoms.operations import backend_operation

ORDERING: Final = "ordering"
DELAY: Final = "delay"
QUEUES: Final = "queues"
PUSH: Final = "push"
PULL: Final = "pull"
DEAD_LETTERS: Final = "dead_letters"


class MessageBus(ABC):  # noqa: B024 - its abstract methods are marked by backend_operation
    """Publishes messages. ``MessageBus(...)`` returns the implementation for the environment.

    Args:
        environment: Where the service runs; by default the current one.
        topics: The provider's identifier for each logical name.

    Attributes:
        publishes: For topics that declare it, by logical name, the events that may be published.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({PULL})
    """Which of the capabilities above the backend has. Using another raises `Unsupported`."""
    creates_push: ClassVar[bool] = False
    """Whether the backend can create and list push subscriptions; see `_existing`."""
    lease_seconds: ClassVar[float] = 0.0
    """How long a lease lasts unless :meth:`use_lease` is called, for the log; 0 if the backend does not know."""
    lease_range: ClassVar[tuple[float, float] | None] = None
    """The shortest and the longest lease that :meth:`use_lease` takes, in seconds; None if it cannot be set."""
    max_message_bytes: ClassVar[int] = 256 * 1024
    """The broker's limit for body and attributes together, in bytes."""
    max_push_bytes: ClassVar[int] = 10 * 1024 * 1024
    """The largest push request in bytes: the broker's largest message in its envelope, encoded and escaped."""
    push_patience: ClassVar[float] = 30.0
    """Seconds that the broker waits for the answer to a push."""

    def __new__(cls, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> MessageBus:
        """Return the implementation for `environment`, as ``Path()`` returns a ``PosixPath``."""
        made: type[MessageBus] = cls
        if cls is MessageBus:
            made = implementation(MessageBus, environment or current_environment())
        return object.__new__(made)

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        self.environment = environment or current_environment()
        self.topics: dict[str, str] = dict(topics or {})
        self.publishes: Mapping[str, Sequence[type[TotoEvent]]] = {}
        self._closed = False

    async def publish_message(
        self,
        destination: MessageDestination,
        message: Publishable,
        *,
        ordering_key: str | None = None,
        delay: float = 0.0,
    ) -> str:
        """Publish a message. When this returns, the broker has stored it and will deliver it at least once.

        Args:
            destination: A topic by its logical name, or a queue.
            message: The message, or its data if that is a `TotoEvent`. An empty `cid` becomes that of the request or
                message being handled.
            ordering_key: Messages with the same key are handled in order, if the subscription is ordered.
            delay: Seconds before it may be delivered.

        Returns:
            The message id, the same on every redelivery.

        Raises:
            NotFound: The topic is not in the configuration, or does not exist at the provider.
            NotSerializable: The message cannot be written as JSON.
            InvalidArgument: The topic does not declare this message, or `delay` is negative or infinite.
            MessageTooLarge: It is over the broker's limit. Nothing was sent.
            Unsupported: The backend does not support ordering keys, delay or queues.
            Closed: After `close`.
            Unavailable: The broker is unavailable. It may or may not have the message: publish again.
        """
        outgoing = self._outgoing(destination, message, ordering_key, delay)
        (result,) = await self._publish((outgoing,))
        if result is not None:
            raise result
        return outgoing.message_id

    async def publish_messages(
        self,
        destination: MessageDestination,
        messages: Iterable[Publishable],
        *,
        ordering_key: str | None = None,
        delay: float = 0.0,
    ) -> list[str | BackendError]:
        """Publish several messages, in batches as large as the broker accepts.

        Returns:
            For each message, in order, its id or its own error.

        Raises:
            The same as `publish_message`, but only before anything is sent.
        """
        batch = [self._outgoing(destination, message, ordering_key, delay) for message in messages]
        results = await self._publish(batch) if batch else []
        return [error or outgoing.message_id for outgoing, error in zip(batch, results, strict=True)]

    async def list_dead_letters(self, subscription: str, limit: int = 100) -> list[DeadLetter]:
        """List at most `limit` dead letters of a subscription, oldest first.

        Raises (as do the next three methods):
            Unsupported: The backend has no dead-letter store.
            NotFound: The subscription does not exist.
            Closed: After `close`.
        """
        return await self._store(subscription).list(limit)

    async def show_dead_letter(self, subscription: str, letter_id: str) -> DeadLetter:
        """Return one dead letter of a subscription. Raises NotFound if there is none with this id."""
        return await self._store(subscription).show(letter_id)

    async def replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None = None) -> int:
        """Deliver dead letters again, with the same ids and with attempts counted from 1; return how many.

        Args:
            subscription: The name of the subscription.
            letter_ids: Which ones; by default all.
        """
        return await self._store(subscription).replay(letter_ids)

    async def purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None = None) -> int:
        """Delete dead letters of a subscription for good, by default all; return how many."""
        return await self._store(subscription).purge(letter_ids)

    async def close(self) -> None:
        """Send what is queued and close connections. A second call does nothing."""
        if not self._closed:
            self._closed = True
            await self._close()

    def use_lease(self, seconds: float) -> None:
        """Set the length of leases. The core calls it with `MessageBusConfig.lease` before it subscribes.

        Raises:
            ConfigurationError: The backend does not support it; the error gives the supported range.
        """
        check_lease(seconds, self.lease_range, self.environment.hyperscaler)
        self._use_lease(seconds)

    def _outgoing(
        self, destination: MessageDestination, message: Publishable, ordering_key: str | None, delay: float
    ) -> Outgoing:
        self._check_open()
        message = to_publish(destination, message)
        topic = None
        if destination.topic is not None:
            topic = self.topics.get(destination.topic)
            if topic is None:
                known = ", ".join(sorted(self.topics)) or "none"
                raise NotFound(
                    f"The configuration has no topic {destination.topic!r} (known: {known}).",
                    resource=destination.topic,
                )
        else:
            self._require(QUEUES)
        if ordering_key is not None:
            self._require(ORDERING)
            target = topic or destination.queue or ""
            if not self._keeps_order(target):
                raise Unsupported(f"{target!r} does not preserve order, so it takes no ordering keys.", resource=target)
        if delay:
            self._require(DELAY)
            if not 0 < delay < float("inf"):
                raise InvalidArgument("delay must be a finite number of seconds, zero or more.")
        version = version_to_publish(message, destination.topic, self.publishes)
        outgoing = to_outgoing(message, topic, destination.queue, ordering_key, delay, version)
        outgoing.check_size(self.max_message_bytes, destination.topic or destination.queue)
        return outgoing

    def _store(self, subscription: str) -> DeadLetterStore:
        self._check_open()
        self._require(DEAD_LETTERS)
        return self._dead_letters(subscription)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("The message bus is closed.")

    def _require(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise Unsupported(
                f"The {self.environment.hyperscaler} message bus has no {capability}.", resource=capability
            )

    # --- implemented by a backend; all raise BackendErrors only ---

    @backend_operation
    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        """Send messages, in several batches if there are too many for one. Return a result for each, in order."""
        raise NotImplementedError

    def _keeps_order(self, destination: str) -> bool:
        """Return whether a topic or queue preserves the order of messages with the same key.

        By default all do, if the backend has the ``ordering`` capability.

        Args:
            destination: The provider's identifier of the topic, or the name of the queue.
        """
        return ORDERING in self.capabilities

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        """Create or update the pull subscription if needed, and return its receiver.

        Args:
            subscription: The subscription to pull.
            create: Whether infrastructure may be created or changed.

        Raises:
            NotFound: Something does not exist; the message says what.
            AccessDenied: The broker denied access; the message names the missing right.
        """
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no pull.", resource=PULL)

    async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
        """Create or update the push subscription to `subscription.push_url`. Raises the same as `_subscribe`."""
        raise Unsupported(f"The {self.environment.hyperscaler} message bus makes no push subscriptions.", resource=PUSH)

    async def _existing(self, subscription: Subscription) -> Existing | None:
        """Return which subscriptions exist, pull and push, or None if the broker has no way to tell. Change nothing.

        Raises:
            AccessDenied: The service may not read subscriptions. The message names the missing right.
            NotFound: The topic does not exist.
        """
        return None

    def _use_lease(self, seconds: float) -> None:
        """Set the length of leases; `seconds` is within `lease_range`."""

    async def _push_lacks(self, subscription: Subscription, address: str) -> str:
        """Return what must change in a push subscription so that it survives an outage of an hour, or "".

        The text continues a sentence whose subject is the subscription, and ends with the command that changes it.
        """
        return ""

    async def _undelivered(self, subscription: Subscription) -> Receiver | None:
        """Return a receiver for messages that the broker could not push, such as during an outage.

        Called after `_subscribe_push`. None if the broker itself retries for long enough.
        """
        return None

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        """Verify a push request and decode its envelope, or answer a handshake with a PushReply.

        Check the credentials in the headers, then ``await request.read(verified=True)``. If the signature is in the
        body, ``await request.read(verified=False)``, which has tight limits, and check that.

        For an authentic request whose envelope cannot be decoded, return one `Received` with the raw body and
        `undecodable` set, so that it is dead-lettered like any other undecodable message.

        Raises:
            Unauthorized, Forbidden: A forgery. Nothing may be run or fetched because of it.
            Undecidable: The keys to verify it are unavailable.
        """
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no push.", resource=PUSH)

    def _dead_letters(self, subscription: str) -> DeadLetterStore:
        """Return the dead-letter store of the subscription of this name, without I/O.

        Implemented with the capability ``dead_letters``.
        """
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no dead letters.", resource=DEAD_LETTERS)

    async def _close(self) -> None:
        """Close connections and threads. May be called twice."""
