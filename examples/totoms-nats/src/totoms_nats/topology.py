"""Streams and consumers: what a subscription consists of at the broker, found or made.

::

    stream of the topic        consumer <subscription>, filtered by the topic       what is published
    stream totoms-queues       consumer <subscription>, filtered by its own subject what is delivered again, and queues
    stream totoms-dead         one subject for each subscription                    dead letters
    bucket totoms-attempts     one key for each message given back unhandled        see totoms_nats.leases
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nats.js import JetStreamContext, api

from totoms.envelope import Subscription
from totoms.errors import BackendError, NotFound
from totoms_nats.connection import Connection
from totoms_nats.names import Names, is_topic, token

_DAY: Final = 24 * 3600.0
_REMEMBERED: Final = 30 * _DAY
"""How long a message may stay in its stream and still be known as given back."""


@dataclass(frozen=True, slots=True)
class Source:
    """One consumer that a subscription's messages come from.

    Attributes:
        stream: Its stream.
        consumer: Its name.
        lease_seconds: How long the server waits for an acknowledgement.
    """

    stream: str
    consumer: str
    lease_seconds: float


def check_topic(subject: str) -> None:
    """Raise NotFound if nothing can be published to `subject`, or nothing should."""
    if not is_topic(subject):
        raise NotFound(f"{subject!r} is no subject that can be a topic.", resource=subject)


class Topology:
    """Finds and makes what subscriptions need.

    Args:
        connection: To whom.
        names: What it is called.
        replicas: Of each stream made.
        lease_seconds: Of each consumer made.
    """

    def __init__(self, connection: Connection, names: Names, *, replicas: int, lease_seconds: float) -> None:
        self._connection = connection
        self._names = names
        self._replicas = replicas
        self._lease_seconds = lease_seconds

    async def sources_of(self, subscription: Subscription, *, create: bool) -> list[Source]:
        """Return where a subscription's messages come from: what is delivered again first, then the topic.

        Raises:
            NotFound: The topic does not exist; or, without `create`, what else is missing.
        """
        names, consumer = self._names, token(subscription.name)
        topic = await self.stream_of(subscription.topic) if subscription.topic else None
        missing = [
            await self._stream(names.queues, names.queue_subject("*"), api.RetentionPolicy.WORK_QUEUE, create=create),
            await self._stream(names.dead, names.dead_subject("*"), api.RetentionPolicy.LIMITS, create=create),
            await self._bucket(names.attempts, create=create),
        ]
        sources = []
        wanted = [(names.queues, names.queue_subject(subscription.name), api.DeliverPolicy.ALL)]
        if topic is not None:
            wanted.append((topic, subscription.topic, api.DeliverPolicy.NEW))
        for stream, subject, start in wanted:
            source = None
            if stream not in missing:
                source = await self._consumer(stream, consumer, subject, start, create=create)
            if source is None:
                missing.append(f"consumer {consumer} of the stream {stream}")
            else:
                sources.append(source)
        if any(missing):
            told = "; ".join(filter(None, missing))
            raise NotFound(f"The subscription {subscription.name!r} lacks: {told}.", resource=subscription.name)
        return sources

    async def stream_of(self, topic: str) -> str:
        """Return the stream that keeps what is published to a topic.

        Raises:
            NotFound: No stream does.
        """
        check_topic(topic)
        return await self._connection.call(
            lambda js: js.find_stream_name_by_subject(topic), f"No stream keeps the subject {topic!r}", topic
        )

    async def make_queues(self) -> None:
        """Make the stream of all queues."""
        names = self._names
        await self._stream(names.queues, names.queue_subject("*"), api.RetentionPolicy.WORK_QUEUE, create=True)

    async def has_subscription(self, name: str) -> bool:
        """Tell whether there is a subscription of that name."""
        return await self._info(self._names.queues, token(name)) is not None

    # --- each kind of thing ---

    async def _stream(self, name: str, subject: str, retention: api.RetentionPolicy, *, create: bool) -> str | None:
        # Returns what is missing, or None. One that is there is left as its operator made it.
        call = self._connection.call
        try:
            await call(lambda js: js.stream_info(name), f"There is no stream {name}", name)
        except NotFound:
            if not create:
                return name
            config = api.StreamConfig(
                name=name, subjects=[subject], retention=retention, num_replicas=self._replicas,
                storage=api.StorageType.FILE, duplicate_window=120,
            )  # fmt: skip
            await call(lambda js: js.add_stream(config), f"The stream {name} cannot be made", name)
        return None

    async def _bucket(self, name: str, *, create: bool) -> str | None:
        call = self._connection.call
        try:
            await call(lambda js: js.stream_info(f"KV_{name}"), f"There is no bucket {name}", name)
        except NotFound:
            if not create:
                return f"bucket {name}"

            def make(js: JetStreamContext) -> object:
                return js.create_key_value(bucket=name, history=1, ttl=_REMEMBERED, replicas=self._replicas)

            await call(make, f"The bucket {name} cannot be made", name)  # type: ignore[arg-type]
        return None

    async def _consumer(
        self, stream: str, name: str, subject: str, start: api.DeliverPolicy, *, create: bool
    ) -> Source | None:
        found = await self._info(stream, name)
        if found is None:
            if not create:
                return None
            wanted = api.ConsumerConfig(
                durable_name=name, filter_subject=subject, deliver_policy=start, ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=self._lease_seconds,
                max_deliver=-1,  # the core gives a message up, with its reason; the server would drop it without a word
                max_ack_pending=-1,  # what waits for another attempt counts as pending, and must not hold up the rest
            )  # fmt: skip
            found = await self._connection.call(
                lambda js: js.add_consumer(stream, wanted), f"The consumer {name} cannot be made", name
            )
        config = found.config
        if config.filter_subject not in (subject, None):
            raise BackendError(f"The consumer {name} of {stream} is filtered by another subject.", resource=name)
        if config.deliver_subject or config.ack_policy != api.AckPolicy.EXPLICIT:
            raise BackendError(f"The consumer {name} of {stream} is not for pulling with explicit acks.", resource=name)
        if (config.max_deliver or -1) > 0:
            raise BackendError(
                f"The consumer {name} of {stream} has max_deliver={config.max_deliver}, after which the server drops a "
                "message without a word: set it to -1.", resource=name,
            )  # fmt: skip
        return Source(stream, name, config.ack_wait or self._lease_seconds)

    async def _info(self, stream: str, consumer: str) -> api.ConsumerInfo | None:
        try:
            info: api.ConsumerInfo = await self._connection.call(
                lambda js: js.consumer_info(stream, consumer), f"There is no consumer {consumer}", consumer
            )
        except NotFound:
            return None
        return info
