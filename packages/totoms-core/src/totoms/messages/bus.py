"""The message bus: the methods for services. They resolve topics, encode messages and check limits for all backends.

A backend implements the operations in :mod:`totoms.messages.driver`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.errors import BackendError, Closed, InvalidArgument, NotFound, Unsupported
from totoms.messages.dead_letters import DeadLetter, DeadLetterStore
from totoms.messages.driver import DEAD_LETTERS, DELAY, ORDERING, QUEUES, BusDriver
from totoms.messages.events import TotoEvent
from totoms.messages.lease_setting import check_lease
from totoms.messages.message import MessageDestination
from totoms.messages.outgoing import Outgoing, to_outgoing
from totoms.messages.publishes import Publishable, to_publish, version_to_publish
from totoms.telemetry import state as telemetry


class MessageBus(BusDriver):
    """Publishes messages. ``MessageBus(...)`` returns the implementation for the environment.

    Args:
        environment: Where the service runs; by default the current one.
        topics: The provider's identifier for each logical name.

    Attributes:
        publishes: For topics that declare it, by logical name, the events that may be published.
    """

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
        (outgoing,), (result,) = await self._send(destination, (message,), ordering_key, delay)
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
        batch, results = await self._send(destination, messages, ordering_key, delay)
        return [error or outgoing.message_id for outgoing, error in zip(batch, results, strict=True)]

    async def list_dead_letters(self, subscription: str, limit: int = 100) -> list[DeadLetter]:
        """List at most `limit` dead letters of a subscription, oldest first.

        Raises (as do the next three methods):
            Unsupported: The backend has no dead-letter store.
            NotFound: The subscription does not exist.
            Closed: After `close`.
        """
        with _dead_letter_span("list", subscription):
            return await self._store(subscription).list(limit)

    async def show_dead_letter(self, subscription: str, letter_id: str) -> DeadLetter:
        """Return one dead letter of a subscription. Raises NotFound if there is none with this id."""
        with _dead_letter_span("show", subscription):
            return await self._store(subscription).show(letter_id)

    async def replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None = None) -> int:
        """Deliver dead letters again, with the same ids and with attempts counted from 1; return how many.

        Args:
            subscription: The name of the subscription.
            letter_ids: Which ones; by default all.
        """
        with _dead_letter_span("replay", subscription):
            return await self._store(subscription).replay(letter_ids)

    async def purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None = None) -> int:
        """Delete dead letters of a subscription for good, by default all; return how many."""
        with _dead_letter_span("purge", subscription):
            return await self._store(subscription).purge(letter_ids)

    @property
    def system(self) -> str:
        """The messaging system, as spans and metrics name it."""
        return self.messaging_system or self.environment.hyperscaler

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

    async def _send(
        self,
        destination: MessageDestination,
        messages: Iterable[Publishable],
        ordering_key: str | None,
        delay: float,
    ) -> tuple[list[Outgoing], Sequence[BackendError | None]]:
        """Encode and publish messages; return them and a result for each."""
        if telemetry.active is None:
            batch = [self._outgoing(destination, message, ordering_key, delay) for message in messages]
            return batch, (await self._publish(batch) if batch else [])
        encoders = [partial(self._outgoing, destination, message, ordering_key, delay) for message in messages]
        name = destination.topic or destination.queue or ""
        return await telemetry.active.publish(self.system, name, encoders, self._publish)

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


def _dead_letter_span(operation: str, subscription: str) -> AbstractContextManager[object]:
    return telemetry.span(f"dead_letters {operation}", {"messaging.destination.subscription.name": subscription})
