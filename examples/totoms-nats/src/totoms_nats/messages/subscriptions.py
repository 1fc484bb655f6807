"""The streams and consumers of a subscription, found or made.

::

    stream of the topic        consumer <subscription>, filtered by the topic       what is published
    stream totoms-queues       consumer <subscription>, filtered by its own subject what is replayed, and queues
    stream totoms-dead         one subject for each subscription                    dead letters
    bucket totoms-attempts     one key for each message given back                  see totoms_nats.messages.receiver
"""

from __future__ import annotations

import time
from typing import Final

from nats.js import JetStreamContext, api

from totoms.errors import BackendError, NotFound
from totoms.plugin import Backlog, Subscription
from totoms_nats.clients import Connection
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.messages.pull import Source
from totoms_nats.naming import Names, is_topic, name_of, token

_NOTES_SECONDS: Final = 30 * 24 * 3600.0
"""How long the note of a message that was given back is kept."""


def check_topic(subject: str) -> None:
    """Raise NotFound if `subject` cannot be a topic."""
    if not is_topic(subject):
        raise NotFound(f"{subject!r} cannot be a topic: it is not a valid subject.", resource=subject)


class Subscriptions:
    """Finds and makes what subscriptions need.

    Args:
        connection: The connection.
        names: The names that the installation uses.
        settings: How many replicas streams have, and how long leases last, where they are made here.
    """

    def __init__(self, connection: Connection, names: Names, settings: NatsConfiguration) -> None:
        self.names = names
        self._connection = connection
        self._settings = settings

    async def sources_of(self, subscription: Subscription, *, create: bool) -> list[Source]:
        """Return the consumers of a subscription: that of what is replayed first, then the topic's.

        Raises:
            NotFound: The topic does not exist; or, without `create`, something else is missing.
        """
        names, consumer = self.names, token(subscription.name)
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
            named = "; ".join(filter(None, missing))
            raise NotFound(f"The subscription {subscription.name!r} lacks: {named}.", resource=subscription.name)
        return sources

    async def stream_of(self, topic: str) -> str:
        """Return the stream that keeps what is published to a topic.

        Raises:
            NotFound: No stream keeps it.
        """
        check_topic(topic)
        return await self._connection.call(
            lambda js: js.find_stream_name_by_subject(topic), f"No stream keeps the subject {topic!r}", topic
        )

    async def make_queues(self) -> None:
        """Make the stream of all queues."""
        names = self.names
        await self._stream(names.queues, names.queue_subject("*"), api.RetentionPolicy.WORK_QUEUE, create=True)

    async def backlog(self, subscription: Subscription) -> Backlog:
        """Return how many messages the consumers of a subscription have not acknowledged, and how old the oldest is.

        Raises:
            NotFound: The topic or a consumer does not exist.
        """
        streams = [self.names.queues]
        if subscription.topic:
            streams.append(await self.stream_of(subscription.topic))
        found = [await self._backlog_of(stream, token(subscription.name)) for stream in streams]
        ages = [one.oldest_seconds for one in found if one.oldest_seconds is not None]
        return Backlog(sum(one.messages for one in found), max(ages, default=None))

    async def exists(self, name: str) -> bool:
        """Return whether there is a subscription called `name`."""
        return await self._info(self.names.queues, token(name)) is not None

    async def all(self) -> list[str]:
        """Return the names of all subscriptions and queues that were ever received from."""
        found: list[str] = []
        while page := await self._consumers(len(found)):
            found += [name_of(consumer.name) for consumer in page]
        return found

    async def _consumers(self, offset: int) -> list[api.ConsumerInfo]:
        stream = self.names.queues
        try:
            return await self._connection.call(
                lambda js: js.consumers_info(stream, offset), f"There is no stream {stream}", stream
            )
        except NotFound:  # nothing has subscribed yet
            return []

    # --- streams, buckets, consumers ---

    async def _stream(self, name: str, subject: str, retention: api.RetentionPolicy, *, create: bool) -> str | None:
        # Returns what is missing, or None. A stream that exists stays as its operator made it.
        call = self._connection.call
        try:
            await call(lambda js: js.stream_info(name), f"There is no stream {name}", name)
        except NotFound:
            if not create:
                return name
            config = api.StreamConfig(
                name=name,
                subjects=[subject],
                retention=retention,
                num_replicas=self._settings.replicas,
                storage=api.StorageType.FILE,
                duplicate_window=120,
            )
            await call(lambda js: js.add_stream(config), f"The stream {name} cannot be created", name)
        return None

    async def _bucket(self, name: str, *, create: bool) -> str | None:
        call = self._connection.call
        try:
            await call(lambda js: js.stream_info(f"KV_{name}"), f"There is no bucket {name}", name)
        except NotFound:
            if not create:
                return f"bucket {name}"

            def make(js: JetStreamContext) -> object:
                return js.create_key_value(bucket=name, history=1, ttl=_NOTES_SECONDS, replicas=self._settings.replicas)

            await call(make, f"The bucket {name} cannot be created", name)  # type: ignore[arg-type]
        return None

    async def _consumer(
        self, stream: str, name: str, subject: str, start: api.DeliverPolicy, *, create: bool
    ) -> Source | None:
        found = await self._info(stream, name)
        if found is None:
            if not create:
                return None
            wanted = api.ConsumerConfig(
                durable_name=name,
                filter_subject=subject,
                deliver_policy=start,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=self._settings.lease_seconds,
                max_deliver=-1,  # the core dead-letters a message with its reason; the server would drop it silently
                max_ack_pending=-1,  # what waits for another attempt counts as pending, and must not block the rest
            )
            found = await self._connection.call(
                lambda js: js.add_consumer(stream, wanted), f"The consumer {name} cannot be created", name
            )
        config = found.config
        if config.filter_subject not in (subject, None):
            raise BackendError(f"The consumer {name} of {stream} is filtered by another subject.", resource=name)
        if config.deliver_subject or config.ack_policy != api.AckPolicy.EXPLICIT:
            raise BackendError(f"The consumer {name} of {stream} is not for pulling with explicit acks.", resource=name)
        if (config.max_deliver or -1) > 0:
            raise BackendError(
                f"The consumer {name} of {stream} has max_deliver={config.max_deliver}, after which the server drops a "
                "message silently: set it to -1.",
                resource=name,
            )
        return Source(stream, name, config.ack_wait or self._settings.lease_seconds)

    async def _backlog_of(self, stream: str, consumer: str) -> Backlog:
        info = await self._info(stream, consumer)
        if info is None:
            raise NotFound(f"There is no consumer {consumer} of the stream {stream}.", resource=consumer)
        messages = (info.num_pending or 0) + (info.num_ack_pending or 0)
        if not messages:
            return Backlog(0)
        first, subject = _last_acknowledged(info) + 1, info.config.filter_subject or ">"
        try:
            oldest = await self._connection.call(
                lambda js: js.get_msg(stream, seq=first, subject=subject, next=True), "There is no message", stream
            )
        except NotFound:  # it was acknowledged meanwhile
            return Backlog(messages)
        # A consumer of new messages has none that is older than itself.
        created = info.created if info.config.deliver_policy == api.DeliverPolicy.NEW else None
        times = [one.timestamp() for one in (oldest.time, created) if one is not None]
        return Backlog(messages, max(0.0, time.time() - max(times)) if times else None)

    async def _info(self, stream: str, consumer: str) -> api.ConsumerInfo | None:
        try:
            info: api.ConsumerInfo = await self._connection.call(
                lambda js: js.consumer_info(stream, consumer), f"There is no consumer {consumer}", consumer
            )
        except NotFound:
            return None
        return info


def _last_acknowledged(info: api.ConsumerInfo) -> int:
    """Return the sequence in the stream up to which a consumer has acknowledged everything; 0 if that is unknown."""
    acknowledged = info.ack_floor.stream_seq if info.ack_floor else 0
    if acknowledged or info.delivered is None or info.delivered.consumer_seq:
        return acknowledged
    return info.delivered.stream_seq  # nothing was delivered yet: where the consumer begins
